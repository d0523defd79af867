"""Words, ids and shapes that all venues share (wire: no I/O, no clock).

Money is `Decimal`: dollars 0.00-1.00 per share, shares or contracts for sizes. Inside, prices are integers of 0.0001
dollars. Event times are epoch milliseconds (`..._ms`), receive times epoch nanoseconds (`received_ns`), both in market
time.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, Self

import msgspec

PRICE_SCALE = 10_000
"""Integer price units per dollar."""


class Side(StrEnum):
    """What an order does with its outcome."""

    BUY = "BUY"
    SELL = "SELL"


class TimeInForce(StrEnum):
    """How long an order may live. IOC is Polymarket's FAK."""

    GTC = "GTC"
    GTD = "GTD"
    IOC = "IOC"
    FOK = "FOK"


class OrderState(StrEnum):
    """Where an order stands. CANCELED and EXPIRED may have fills. The last four are terminal."""

    DELAYED = "DELAYED"
    LIVE = "LIVE"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens to the order."""
        return self not in (OrderState.DELAYED, OrderState.LIVE)


class Liquidity(StrEnum):
    """Which side of a match an own order was on."""

    MAKER = "MAKER"
    TAKER = "TAKER"


class FillState(StrEnum):
    """PENDING until the venue is sure, then FINAL, or FAILED, which takes the fill back."""

    PENDING = "PENDING"
    FINAL = "FINAL"
    FAILED = "FAILED"


class MarketStatus(StrEnum):
    """UPCOMING: listed, window not open; OPEN: window running; CLOSED: over, no result yet; RESOLVED: payouts known.

    PAUSED: the venue stopped trading in it. Whether orders are taken before the window opens is the venue's affair
    (Polymarket: yes, Kalshi: no): see `Market.tradable_before_open`.
    """

    UPCOMING = "UPCOMING"
    OPEN = "OPEN"
    PAUSED = "PAUSED"
    CLOSED = "CLOSED"
    RESOLVED = "RESOLVED"


class CancelResult(StrEnum):
    """Truthy only for CANCELED. ALREADY_DONE: nothing was left to cancel; NOT_YET: in its taker delay, try again."""

    CANCELED = "CANCELED"
    ALREADY_DONE = "ALREADY_DONE"
    NOT_YET = "NOT_YET"

    def __bool__(self) -> bool:
        return self is CancelResult.CANCELED


class TradeResult(StrEnum):
    """What became of a trade that is held to the end: WON where what was bought paid a dollar, or what was sold paid
    nothing. VOID pays something between."""

    WON = "WON"
    LOST = "LOST"
    VOID = "VOID"
    OPEN = "OPEN"


class MarketResult(msgspec.Struct, frozen=True):
    """How a market ended. `payouts` are dollars per share, in the order of the market's outcomes."""

    market_id: str
    outcomes: tuple[str, ...]
    payouts: tuple[Decimal, ...]

    @property
    def winner(self) -> str | None:
        """The outcome that pays one dollar; None for a void or split market."""
        for outcome, payout in zip(self.outcomes, self.payouts, strict=True):
            if payout == 1:
                return outcome
        return None

    def payout(self, outcome: str) -> Decimal:
        """Dollars one share of the outcome pays. Raises KeyError for a foreign outcome."""
        if outcome not in self.outcomes:
            raise KeyError(outcome)
        return self.payouts[self.outcomes.index(outcome)]

    def __str__(self) -> str:
        return self.winner or "/".join(str(payout) for payout in self.payouts)


class NoMarket(msgspec.Struct, frozen=True):
    """There is none now, and why. `until`: when to look again, aware UTC, None where nobody knows. Falsy."""

    reason: str
    until: datetime | None = None

    def __bool__(self) -> Literal[False]:
        return False


class OrderId(str):
    """The venue's order id, with what the answer already said about the order. Compares and prints as the id."""

    status: OrderState
    filled_amount: Decimal
    average_price: Decimal | None
    fee: Decimal | None

    def __new__(
        cls,
        order_id: str,
        status: OrderState,
        filled_amount: Decimal = Decimal(0),
        average_price: Decimal | None = None,
        fee: Decimal | None = None,
    ) -> Self:
        if not order_id:
            raise ValueError("an order id is never empty")
        self = str.__new__(cls, order_id)
        self.status = status
        self.filled_amount = filled_amount
        self.average_price = average_price
        self.fee = fee
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # A text is copied and pickled by its letters alone, which `__new__` does not take.
        return type(self), (str(self), self.status, self.filled_amount, self.average_price, self.fee)


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a strategy wants placed: one leg of `place_orders`. Price in dollars of its own outcome, size in shares."""

    market_id: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    time_in_force: TimeInForce = TimeInForce.GTC
    expires_at: datetime | None = None
    post_only: bool = False
    client_order_id: str | None = None


class Intent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision to place one order, with the identities it is looked up by. Made before anything is sent.

    `order_id` is known beforehand only on Polymarket (the order's hash).
    """

    venue: str
    client_order_id: str
    order: Order
    created_ms: int
    order_id: str | None = None


class Accepted(msgspec.Struct, frozen=True):
    """An unknown order turned out to stand (or to have stood) at the venue."""

    order_id: OrderId


class Absent(msgspec.Struct, frozen=True):
    """An unknown order is proven not to exist at the venue."""

    intent: Intent


class OrderStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One own order as the venue sees it. Sizes in shares, prices in dollars of the order's own outcome."""

    order_id: str
    client_order_id: str | None
    market_id: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    filled_amount: Decimal
    status: OrderState
    average_price: Decimal | None = None
    fee: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reason: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    expires_at: datetime | None = None
    received_ns: int = 0

    @property
    def remaining(self) -> Decimal:
        """Shares that may still fill: zero once the order is terminal."""
        return Decimal(0) if self.status.terminal else self.size - self.filled_amount


class Fill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One match of an own order. Price and side are in the outcome's own terms; `fee` in dollars.

    Delivered once per (fill_id, order_id, state). `own` is False for an order that this process did not place.
    """

    fill_id: str
    order_id: str
    client_order_id: str | None
    market_id: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    liquidity: Liquidity
    state: FillState
    own: bool = True
    venue_ms: int = 0
    received_ns: int = 0


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Shares held of one outcome. `size` is confirmed plus pending; `as_of_ms` is the age of the oldest part of it."""

    market_id: str
    token_id: str
    outcome: str
    size: Decimal
    average_price: Decimal | None
    confirmed: Decimal
    pending: Decimal
    as_of_ms: int


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One past own trade and what became of it. `pnl` in dollars, None while open."""

    trade_id: str
    order_id: str
    market_id: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    time_ms: int
    result: TradeResult
    pnl: Decimal | None = None


class PublicTrade(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A print of the venue. `side` is the taker's, in terms of `outcome`; `trade_id` may be empty (Polymarket)."""

    market_id: str
    outcome: str
    price: Decimal
    size: Decimal
    side: Side
    trade_id: str
    venue_ms: int
    received_ns: int


class ReferencePrice(msgspec.Struct, frozen=True, kw_only=True):
    """The index a market settles on, its running settlement average and strike, as far as they are known."""

    asset: str
    price: Decimal | None
    average: Decimal | None
    strike: Decimal | None
    venue_ms: int
    received_ns: int


class Budget(msgspec.Struct, frozen=True):
    """What the venue's rate limits leave right now: orders and cancels per second."""

    orders: float
    cancels: float
