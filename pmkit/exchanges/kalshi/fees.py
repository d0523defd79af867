"""Kalshi's fees (wire).

fee = 0.07 x multiplier x contracts x price x (1 - price) for takers; makers pay nothing, a quarter or a half of that,
depending on the series' `fee_type`. Settlement is free. The charge of a direct member is rounded in two steps, so that
his balance changes by whole $0.0001 (see `charge`). `FeeRule.fee`, which rounds up to $0.0001 in one step, equals it
wherever price times contracts is a whole number of $0.0001, and else differs from it by less than $0.0001.
Source: Kalshi, "Fee rounding"; recorded fills of July and August 2026.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.market import Charged, FeeRule

TAKER_RATE: Final = Decimal("0.07")
QUANTUM: Final = Decimal("0.0001")
TRADE_FEE_QUANTUM: Final = Decimal("0.000001")
"""What a trade fee is rounded up to since release 3.29.0 (end of August 2026); before, it was `QUANTUM`."""

_EXACT: Final = Context(prec=60)

MAKER_SHARES: Final = {
    "quadratic": Decimal(0),
    "quadratic_with_maker_fees": Decimal("0.25"),
    "quadratic_with_combo_maker_fees": Decimal("0.5"),
}
"""fee_type -> the maker's part of the taker rate."""

NO_FEE: Final = FeeRule(quantum=QUANTUM, round_up=True)


def fee_rule(fee_type: str | None, multiplier: Decimal | None, where: str) -> FeeRule:
    """The fees of a series (or of an event with overrides). `multiplier` is relative: 1 means 0.07.

    Raises ProtocolChanged, naming `where`, for a fee type that is not documented or a multiplier that makes no sense:
    a fee that is guessed would be wrong money.
    """
    share = MAKER_SHARES.get(fee_type or "")
    if share is None:
        raise ProtocolChanged(
            f"{where} has the fee type {ascii(fee_type)[:60]}, which this version does not know "
            f"(it knows {', '.join(MAKER_SHARES)}): update pmkit before trading it"
        )
    if multiplier is None or not multiplier.is_finite() or not 0 <= multiplier <= 100:
        raise ProtocolChanged(f"{where} has the fee multiplier {multiplier}: expected a number from 0 to 100")
    rate = TAKER_RATE * multiplier
    return FeeRule(taker=rate, maker=rate * share, quantum=QUANTUM, round_up=True)


def charge(
    rule: FeeRule,
    price: Decimal,
    count: Decimal,
    maker: bool = False,
    *,
    trade_fee_quantum: Decimal = TRADE_FEE_QUANTUM,
) -> Decimal:
    """Dollars charged to a direct member for one fill: Kalshi's `fee_cost`, to $0.000001.

    `price`: dollars of the outcome that the fill is positioned for, i.e. the YES price of a bid and the NO price of an
    ask; so a sale of YES is given as the purchase of NO that it is. `count`: contracts. The trade fee is rounded up to
    `trade_fee_quantum`; then a rounding fee brings cost and fee together up to $0.0001, for makers without a fee too.
    Exact on 1,679 of 1,679 recorded fills with the quantum of their time.
    """
    trade_fee = rule.raw(price, count, maker).quantize(trade_fee_quantum, ROUND_CEILING, _EXACT)
    cost = _EXACT.multiply(price, count)
    total = _EXACT.add(cost, trade_fee).quantize(QUANTUM, ROUND_CEILING, _EXACT)
    return _EXACT.subtract(total, cost)


def charge_so_far(
    rule: FeeRule, price: Decimal, count: Decimal, maker: bool, before: Charged
) -> tuple[Decimal, Charged]:
    """`charge` for one more fill of an order that was charged `before`, and what it was charged with it.

    An accumulator per order pays back what rounding took too much ("Fee rounding"): cost and trade fees of all fills
    together are brought up to $0.0001. Numbers as in `charge`.
    """
    trade_fee = rule.raw(price, count, maker).quantize(TRADE_FEE_QUANTUM, ROUND_CEILING, _EXACT)
    trade_fee = _EXACT.add(before.trade_fee, trade_fee)
    cost = _EXACT.add(before.cost, _EXACT.multiply(price, count))
    due = _EXACT.subtract(_EXACT.add(cost, trade_fee).quantize(QUANTUM, ROUND_CEILING, _EXACT), cost)
    fee = max(Decimal(0), _EXACT.subtract(due, before.paid))
    return fee, Charged(cost, trade_fee, _EXACT.add(before.paid, fee))
