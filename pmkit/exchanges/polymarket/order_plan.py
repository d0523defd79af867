"""What a user wants as an order that the venue takes (wire): every local check, then integers. Nothing is signed here.

Sources: docs.polymarket.com/trading/orders, docs.polymarket.com/concepts/order-lifecycle, the code of Polymarket's
Python SDK.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from pmkit.errors import InvalidOrder
from pmkit.exchanges.market import order_words
from pmkit.exchanges.numbers import scaled, to_decimal, whole
from pmkit.exchanges.polymarket import amounts
from pmkit.exchanges.polymarket.eip712 import POLYGON, Exchange, exchange_for
from pmkit.exchanges.polymarket.types import SIZE_STEP, PolymarketMarket
from pmkit.exchanges.types import Side, TimeInForce

EXPIRES_EARLY_S: Final = 60
"""The venue ends a GTD order this long before its stated second."""

LEAST_EXPIRY_S: Final = 180
"""How far ahead the stated second has to be (newer pages and the SDK; older ones say 60)."""

DUST: Final = Decimal("0.01")
"""Shares that do not count: less cannot be ordered."""

_ROUNDED: Final = Decimal("1.01")
_TAKING: Final = (TimeInForce.IOC, TimeInForce.FOK)
_PROTOCOLS: Final = {"2": "v1", "3": "v2"}
"""Version of the order domain -> protocol version of the market."""


class OrderPlan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order that passed every local check. Amounts in base units, `expiration` in epoch seconds (0: none)."""

    token_id: str
    exchange: Exchange
    side: Side
    maker_amount: int
    taker_amount: int
    time_in_force: TimeInForce
    post_only: bool = False
    expiration: int = 0

    def least_shares(self) -> Decimal:
        """The least shares that all of it can be: a BUY that aims at dollars may get more at a better price."""
        return scaled(self.taker_amount if self.side is Side.BUY else self.maker_amount, 6)

    def allows(self, shares: Decimal, dollars: Decimal) -> bool:
        """Whether it can have filled so much: up to dust, and for a BUY that aims at dollars up to a hundredth, since a
        price of several matches is rounded."""
        if self.side is Side.BUY and self.time_in_force in _TAKING:
            return dollars <= scaled(self.maker_amount, 6) * _ROUNDED + DUST
        return shares <= self.least_shares() + DUST


def plan_limit(
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    price: object,
    size: object,
    *,
    now_ms: int,
    time_in_force: TimeInForce = TimeInForce.GTC,
    expires_at: datetime | None = None,
    post_only: bool = False,
    chain_id: int = POLYGON,
) -> OrderPlan:
    """A limit order. `now_ms` is venue time; `expires_at` (GTD) the moment the order must be gone.

    Raises InvalidOrder: price off the grid, size with more than two decimals or below the market's minimum (orders that
    may rest), dollars with too many decimals or a BUY below the marketable minimum (orders that only take), an expiry
    missing, unwanted or too near, post-only with an order that cannot rest. The minimum of a marketable BUY holds at
    the venue for resting orders that cross as well; only the book knows which those are.
    """
    limit, shares = to_decimal(price, "price"), to_decimal(size, "size")
    return plan_limit_exact(
        market, outcome, side, limit, shares, now_ms, time_in_force, expires_at, post_only, chain_id
    )


def plan_limit_exact(
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    price: Decimal,
    size: Decimal,
    now_ms: int,
    time_in_force: TimeInForce,
    expires_at: datetime | None,
    post_only: bool,
    chain_id: int = POLYGON,
) -> OrderPlan:
    """As `plan_limit`, of numbers that `to_decimal` gave."""
    side, time_in_force = order_words(side, time_in_force)
    units = amounts.price_units(price, market.grid.unit)
    hundredths = amounts.size_hundredths(size)
    if time_in_force in _TAKING:
        if post_only:
            raise InvalidOrder(f"post_only goes with GTC and GTD, not with {time_in_force}")
        found = amounts.taking(side, units, hundredths)
        if side is Side.BUY:
            _check_marketable(market, found.maker)
    else:
        if size < market.min_size or market.size_step != SIZE_STEP:
            market.check_size(size)
        found = amounts.resting(side, units, hundredths)
    expiration = 0
    if expires_at is not None or time_in_force is TimeInForce.GTD:
        expiration = expiration_of(expires_at, time_in_force, now_ms)
    return _plan(market, outcome, side, found, time_in_force, chain_id, post_only, expiration)


def plan_market(
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    *,
    worst_price: object,
    size: object = None,
    amount: object = None,
    fee_price: Decimal | None = None,
    time_in_force: TimeInForce = TimeInForce.IOC,
    chain_id: int = POLYGON,
) -> OrderPlan:
    """An order that only takes, by shares (`size`) or, for a BUY, by dollars with the taker fee inside (`amount`).

    A BUY aims at the dollars either way: at a better price it gets more shares. The fee inside `amount` is reckoned at
    `fee_price`, the lowest price the order is expected to fill at (default: the worst price, where the fee per dollar
    is the least). Raises InvalidOrder as `plan_limit`, and for anything but exactly one of size and amount.
    """
    side, time_in_force = order_words(side, time_in_force)
    if time_in_force not in _TAKING:
        raise InvalidOrder(f"a market order is IOC or FOK, not {time_in_force}")
    if (size is None) == (amount is None):
        raise InvalidOrder("a market order takes exactly one of size (shares) and amount (dollars, BUY only)")
    tick = market.grid.unit
    units = amounts.price_units(to_decimal(worst_price, "price"), tick)
    if amount is None:
        found = amounts.taking(side, units, amounts.size_hundredths(to_decimal(size, "size")))
    elif side is not Side.BUY:
        raise InvalidOrder("amount is for BUY only: a SELL is given by size")
    else:
        money = to_decimal(amount, "amount")
        limit = scaled(units, 4)
        cents = amounts.cents_within(money, limit if fee_price is None else min(limit, fee_price), market.fees)
        _check_marketable(market, cents * 10_000, f"{money:f} dollars with the fee inside leave")
        found = amounts.spending(units, cents, tick)
    if side is Side.BUY:
        _check_marketable(market, found.maker)
    return _plan(market, outcome, side, found, time_in_force, chain_id)


def check_crossing(market: PolymarketMarket, plan: OrderPlan, price: Decimal, best_ask: Decimal | None) -> None:
    """Raises InvalidOrder for a BUY that may rest, would take now, and is worth too little for that. `best_ask`: of the
    live book, None where that is not known."""
    if plan.side is not Side.BUY or plan.post_only or best_ask is None or best_ask > price:
        return
    if plan.maker_amount < market.min_marketable * amounts.BASE:
        raise InvalidOrder(
            f"at {price:f} this BUY takes at once, and such a one has to be worth {market.min_marketable:f} "
            "dollars at least: more shares, or a price below the ask"
        )


def expiration_of(expires_at: object, time_in_force: TimeInForce, now_ms: int) -> int:
    """The stated second of a GTD order that must be gone at `expires_at`; 0 for the others.

    Raises InvalidOrder where it is missing, unwanted, naive or too near, naming the earliest one.
    """
    if time_in_force is not TimeInForce.GTD:
        if expires_at is not None:
            raise InvalidOrder(f"expires_at goes with GTD only, not with {time_in_force}")
        return 0
    if expires_at is None:
        raise InvalidOrder("GTD needs expires_at, the moment the order must be gone")
    if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
        raise InvalidOrder("expires_at is no datetime with a time zone: give one, e.g. datetime.now(UTC) + ...")
    expiration = int(expires_at.timestamp() // 1) + EXPIRES_EARLY_S
    if expiration * 1000 < now_ms + LEAST_EXPIRY_S * 1000:
        earliest = -(-now_ms // 1000) + LEAST_EXPIRY_S - EXPIRES_EARLY_S
        raise InvalidOrder(
            f"expires_at {expires_at.isoformat()} is too near: the venue takes nothing that ends within "
            f"{LEAST_EXPIRY_S - EXPIRES_EARLY_S} s; the earliest is {datetime.fromtimestamp(earliest, UTC).isoformat()}"
        )
    return expiration


def _check_marketable(market: PolymarketMarket, base_units: int, what: str = "the order comes to") -> None:
    least = whole(market.min_marketable, amounts.BASE) or 0
    if base_units < least:
        raise InvalidOrder(
            f"{what} {amounts.plain(base_units, 6)} dollars: a BUY that takes has to be worth "
            f"{market.min_marketable:f} at least"
        )


def _plan(
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    found: amounts.Amounts,
    time_in_force: TimeInForce,
    chain_id: int,
    post_only: bool = False,
    expiration: int = 0,
) -> OrderPlan:
    token = market.token_id(outcome)
    exchange = exchange_for(token, market.neg_risk, chain_id)
    if _PROTOCOLS[exchange.version] != market.protocol:
        raise InvalidOrder(
            f"token {token} of {market.market_id} is not of protocol {market.protocol or 'unknown'}: how to sign its "
            "orders is not known; read the market anew, or update pmkit"
        )
    return OrderPlan(
        token_id=token,
        exchange=exchange,
        side=side,
        maker_amount=found.maker,
        taker_amount=found.taker,
        time_in_force=time_in_force,
        post_only=post_only,
        expiration=expiration,
    )
