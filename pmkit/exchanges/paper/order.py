"""One order of the dry-run and what is written down about its fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

import msgspec

from pmkit.clock import Timer
from pmkit.exchanges.market import Charged, Market
from pmkit.exchanges.paper.liquidity import SIZE_SCALE
from pmkit.exchanges.paper.queue import QueuePlace
from pmkit.exchanges.types import PRICE_SCALE, Intent, Order, OrderId, OrderState, OrderStatus, PublicTrade, Side


def size_units(size: Decimal) -> int:
    """Shares as units; the markets' size steps are multiples of a unit."""
    return int(size * SIZE_SCALE)


def shares(units: int) -> Decimal:
    """Units as shares."""
    return Decimal(units) / SIZE_SCALE


def price_units(price: Decimal) -> int:
    """Dollars as 0.0001 dollars."""
    return int(price * PRICE_SCALE)


def dollars(units: int) -> Decimal:
    """0.0001 dollars as dollars."""
    return Decimal(units) / PRICE_SCALE


class How(StrEnum):
    """What made the dry-run fill."""

    LEVEL = "took a level"
    PRINT = "a print at its price"
    THROUGH = "a print traded through it"
    CROSS = "the other side crossed it with a level"


class FillReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the dry-run filled: enough to check it against the recorded book and prints.

    Prices and sizes are in the terms of the order's outcome. LEVEL and CROSS: the level at `level_price` showed
    `seen_size`, of which the dry-run had taken `taken_before`. PRINT and THROUGH: the print `trade` of `seen_size`, of
    which `own_before` had gone to own orders that come first; `ahead_before` and `ahead_after` are the queue at the
    order's price. `received_ns` is that of the book or print.
    """

    fill_id: str
    order_id: str
    how: How
    price: Decimal
    size: Decimal
    level_price: Decimal
    seen_size: Decimal
    taken_before: Decimal
    own_before: Decimal
    best_bid: Decimal | None
    best_ask: Decimal | None
    ahead_before: Decimal | None
    ahead_after: Decimal | None
    trade: PublicTrade | None
    venue_ms: int
    received_ns: int

    def __str__(self) -> str:
        rest = ""
        if self.taken_before:
            rest += f" at {self.level_price:f}, of which {self.taken_before:f} were taken before"
        if self.own_before:
            rest += f", of which {self.own_before:f} went to own orders that come first"
        if self.ahead_before is not None:
            rest += f"; {self.ahead_before:f} shares were ahead before it, {self.ahead_after:f} after"
        return (
            f"{self.fill_id} of {self.order_id}: {self.size:f} at {self.price:f}, "
            f"{self.how} of {self.seen_size:f} shares{rest}; "
            f"touch {self.best_bid}/{self.best_ask}, venue time {self.venue_ms}"
        )


@dataclass(slots=True, eq=False)
class PaperOrder:
    """The mutable state of one order. Integers inside: sizes, `notional` and `money` in units. `money`: what a buy that
    aims at dollars may spend, fee not included.
    """

    order_id: str
    intent: Intent
    market: Market
    size: int
    created_ms: int
    money: int | None = None
    filled: int = 0
    notional: int = 0
    charged: Charged = field(default_factory=Charged)
    fee: Decimal = Decimal(0)
    status: OrderState = OrderState.DELAYED
    reason: str = ""
    updated_ms: int = 0
    place: QueuePlace | None = None
    expiry: Timer | None = None

    @property
    def order(self) -> Order:
        return self.intent.order

    @property
    def outcome(self) -> str:
        return self.intent.order.outcome

    @property
    def buys(self) -> bool:
        return self.intent.order.side is Side.BUY

    @property
    def price(self) -> int:
        return price_units(self.intent.order.price)

    @property
    def left(self) -> int:
        return self.size - self.filled

    @property
    def average_price(self) -> Decimal | None:
        return Decimal(self.notional) / self.filled if self.filled else None

    def as_id(self) -> OrderId:
        """What placing it returns."""
        fee = self.fee if self.filled else None
        return OrderId(self.order_id, self.status, shares(self.filled), self.average_price, fee)

    def as_status(self, received_ns: int) -> OrderStatus:
        """What the status query returns."""
        order = self.order
        return OrderStatus(
            order_id=self.order_id,
            client_order_id=self.intent.client_order_id,
            market_id=order.market_id,
            outcome=order.outcome,
            side=order.side,
            price=order.price,
            size=shares(self.size),
            filled_amount=shares(self.filled),
            status=self.status,
            average_price=self.average_price,
            fee=self.fee if self.filled else None,
            time_in_force=order.time_in_force,
            reason=self.reason,
            created_ms=self.created_ms,
            updated_ms=self.updated_ms,
            expires_at=order.expires_at,
            received_ns=received_ns,
        )
