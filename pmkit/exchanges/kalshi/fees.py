"""Kalshi's fees (wire).

fee = 0.07 x multiplier x contracts x price x (1 - price) for takers; makers pay nothing, a quarter or a half of that,
depending on the series' `fee_type`. Settlement is free. The charge of a direct member is rounded so that his balance
changes by whole $0.0001; `ceil(fee, 0.0001)` per fill equals the recorded charges and is an upper bound for orders that
fill in parts. Source: Kalshi, "Fee rounding"; recorded fills of August 2026.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.market import FeeRule

TAKER_RATE: Final = Decimal("0.07")
QUANTUM: Final = Decimal("0.0001")

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
