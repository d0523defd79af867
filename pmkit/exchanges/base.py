"""What every venue offers: `MarketData` (public), `MarketFinder`, and `BaseExchange` (MarketData plus the account).

All `get_*`, `place_*`, `cancel_*` and `list_*` are coroutines. `subscribe_*` are coroutines that return after the first
snapshot or raise after a deadline. Properties and book reads are plain. A failed query raises; it never looks like an
empty answer. Nothing connects in `__init__`; `close()` is idempotent.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, InvalidOrder, MarketNotFound, NotSent, PmkitError
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    Budget,
    CancelResult,
    Fill,
    Intent,
    MarketResult,
    MarketStatus,
    NoMarket,
    Order,
    OrderId,
    OrderStatus,
    Position,
    PublicTrade,
    ReferencePrice,
    Side,
    TimeInForce,
    Trade,
)
from pmkit.streams import Subscription
from pmkit.venue_clock import VenueClock

_ASSET = re.compile(r"[A-Za-z0-9]{1,12}").fullmatch
T = TypeVar("T")
Callback: TypeAlias = Callable[[T], Awaitable[None]] | Callable[[T], None]
Amount: TypeAlias = Decimal | str | int
LegResult: TypeAlias = OrderId | PmkitError


def not_placed(market_id: str, error: PmkitError) -> InvalidOrder | NotSent:
    """What placing an order raises where its market could not be read: a wrong id, or a query that failed."""
    if isinstance(error, MarketNotFound):
        return InvalidOrder(f"{error}: nothing was sent")
    return NotSent(f"the market {ascii(market_id)[:80]} could not be read, nothing was sent: {error}")


def asset_name(asset: object) -> str:
    """The symbol of an asset, upper case. Raises ConfigError for what is none."""
    if not isinstance(asset, str) or not _ASSET(asset):
        raise ConfigError(f"asset {ascii(asset)[:40]} is no name of one: write it like BTC")
    return asset.upper()


def asset_names(assets: Iterable[str]) -> tuple[str, ...]:
    """Symbols of assets, upper case, each once. Raises ConfigError for what is none, and for a text instead of several
    (which would be taken for its letters).
    """
    if isinstance(assets, str):
        raise ConfigError(f"assets is the text {ascii(assets)[:40]}: give a list such as ['BTC']")
    return tuple(dict.fromkeys(asset_name(asset) for asset in assets))


def order_ids_of(order_ids: Sequence[object]) -> list[str]:
    """Order ids, each once. Raises InvalidOrder for what is none, and for a text instead of several (which would be
    taken for its letters).
    """
    ids = [order_id for order_id in order_ids if isinstance(order_id, str) and order_id]
    if isinstance(order_ids, str) or len(ids) != len(order_ids):
        raise InvalidOrder(f"{ascii(order_ids)[:80]} is no list of order ids: nothing was sent")
    return list(dict.fromkeys(ids))


def check_limit(limit: int | None) -> None:
    """Raises InvalidOrder for a number of rows that is not above zero."""
    if limit is not None and limit <= 0:
        raise InvalidOrder(f"limit {limit} is not above zero")


class MarketData(ABC):
    """The public side of one venue: books, trades, reference prices, metadata. Needs no key, or only to listen.

    One object per venue, an async context manager, shared by finder, exchange and dry-run.
    """

    venue: str

    def __init__(self, endpoints: Endpoints, clock: Clock) -> None:
        self.endpoints = endpoints
        self.clock = clock
        self.venue_clock = VenueClock(clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """End all sockets, tasks and connections, within a second. May be called twice."""

    @abstractmethod
    def finder(self) -> MarketFinder:
        """The finder of this venue, on this object's metadata."""

    @abstractmethod
    async def get_market(self, market_id: str) -> Market:
        """One market, read from the venue. Raises MarketNotFound for a wrong id."""

    def current(self, market: Market) -> Market:
        """The freshest known state of a market (price step, status, result), without asking anybody."""
        return market

    @abstractmethod
    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        """One REST read of a book, valid at the moment of the answer. Does not touch the live book."""

    @abstractmethod
    def book(self, market: Market, outcome: str) -> OrderBook:
        """The live book of an outcome. Not subscribed: an empty one, not valid, reason "not subscribed"."""

    @abstractmethod
    async def subscribe_orderbook(
        self, markets: Iterable[Market], callback: Callback[OrderBook] | None = None
    ) -> Subscription[OrderBook]:
        """Live books of all outcomes of the markets. Events are the live books themselves, after each change or change
        of validity; a slow reader gets each book's latest state. Closing the subscription ends the interest in them.

        Raises VenueUnavailable when no snapshot came within the deadline.
        """

    @abstractmethod
    async def subscribe_trades(
        self, markets: Iterable[Market], callback: Callback[PublicTrade] | None = None
    ) -> Subscription[PublicTrade]:
        """Public prints of the markets. A slow reader loses the oldest, counted."""

    @abstractmethod
    async def subscribe_markets(self, callback: Callback[Market] | None = None) -> Subscription[Market]:
        """The new state of a subscribed market whenever tick, status, close time, strike or result changed."""

    async def subscribe_reference(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """Settlement index, its running average and the strike. Raises NotImplementedError where pmkit has none yet."""
        raise NotImplementedError(f"reference prices of {self.venue} are not built yet")

    @abstractmethod
    async def wait_result(self, market: Market) -> MarketResult:
        """Wait until the venue has published the result (cancel it, or wrap it in `clock.timeout`, to stop waiting)."""


class MarketFinder(ABC):
    """Finds the windows of an asset. Returns `Market | NoMarket`; raises ConfigError for an unknown asset or interval
    and what the query raised when it failed. Assets are taken in upper and lower case.
    """

    def __init__(self, data: MarketData) -> None:
        self.data = data
        self.clock = data.clock

    @abstractmethod
    async def get_current_market(self, asset: str, interval: str = "15m") -> Market | NoMarket:
        """The market whose window contains now (venue time)."""

    @abstractmethod
    async def get_next_market(self, asset: str, interval: str = "15m") -> Market | NoMarket:
        """The market of the window after the current one."""

    async def get_smart_market(self, asset: str, lead: float = 10, interval: str = "15m") -> Market | NoMarket:
        """The current market, or from `lead` seconds before its close on the next one."""
        current = await self.get_current_market(asset, interval)
        if current and self.get_seconds_remaining(current) > lead:
            return current
        following = await self.get_next_market(asset, interval)
        return following or current

    @abstractmethod
    async def list_markets(
        self, asset: str | None = None, status: MarketStatus | None = None, interval: str = "15m"
    ) -> list[Market]:
        """The listed markets of an asset (None: of every asset) that are not over, oldest window first; with a status
        those that have it, and with CLOSED or RESOLVED those of the last day.
        """

    @abstractmethod
    async def list_assets(self, interval: str = "15m") -> list[str]:
        """The assets this venue lists windows of."""

    @staticmethod
    def _status(status: MarketStatus | None) -> MarketStatus | None:
        """What `list_markets` is asked for. A word that is none must not look like an empty list."""
        try:
            return None if status is None else MarketStatus(status)
        except ValueError:
            known = ", ".join(MarketStatus)
            raise ConfigError(f"{ascii(status)[:40]} is no status of a market: there are {known}") from None

    def get_seconds_remaining(self, market: Market) -> float:
        """Seconds (venue time) until the market closes; negative afterwards."""
        return (market.close_ms - self.data.venue_clock.now_ms()) / 1000


class BaseExchange(MarketData):
    """A venue with an account. Placing an order has three outcomes: see `pmkit.errors`."""

    @property
    @abstractmethod
    def unresolved(self) -> Sequence[Intent]:
        """Orders whose outcome is unknown, also those whose caller was cancelled. Shrinks by `resolve_order`."""

    @abstractmethod
    async def place_limit_order(
        self,
        market: Market,
        outcome: str,
        side: Side,
        price: Amount,
        size: Amount,
        *,
        time_in_force: TimeInForce = TimeInForce.GTC,
        expires_at: datetime | None = None,
        post_only: bool = False,
        client_order_id: str | None = None,
    ) -> OrderId:
        """Place an order at `price` dollars for `size` shares. Returns when the venue accepted it.

        Raises InvalidOrder, NotSent, OrderRejected or OrderUnknown.
        """

    @abstractmethod
    async def place_market_order(
        self,
        market: Market,
        outcome: str,
        side: Side,
        *,
        worst_price: Amount,
        size: Amount | None = None,
        amount: Amount | None = None,
        client_order_id: str | None = None,
    ) -> OrderId:
        """Take what is there, no worse than `worst_price`. Exactly one of `size` (shares) and `amount` (dollars
        including the taker fee, BUY only). Raises like `place_limit_order`.
        """

    @abstractmethod
    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        """Place several; one result per leg, in order: an OrderId or the error that `place_limit_order` would raise."""

    @abstractmethod
    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        """Cancel, then place. Leg i of `places` replaces order i of `cancels`; a leg whose cancel is unknown is not
        placed and holds the CancelUnknown; an order that was already done is not replaced and holds an InvalidOrder.
        """

    @abstractmethod
    async def cancel_order(self, order_id: str) -> CancelResult:
        """Cancel one order. Raises CancelUnknown; the cancel may be repeated."""

    @abstractmethod
    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        """Cancel several; a result or error per id."""

    @abstractmethod
    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        """Cancel all open orders of this account in one market, by id."""

    @abstractmethod
    async def resolve_order(self, intent: Intent) -> Accepted | Absent:
        """Ask the venue what became of an unknown order. Raises OrderUnknown again while it cannot tell."""

    @abstractmethod
    async def get_order_status(self, order_id: str) -> OrderStatus:
        """One own order. A vanished one is resolved by its trades. Raises MarketNotFound for an id that the venue does
        not know, or that is none."""

    @abstractmethod
    async def get_open_orders(self, market: Market | None = None) -> list[OrderStatus]:
        """Open orders of the account, oldest first."""

    @abstractmethod
    async def get_positions(self) -> list[Position]:
        """All positions with shares in them."""

    async def get_positions_by_market_id(self, market_id: str) -> list[Position]:
        """Positions in one market."""
        return [position for position in await self.get_positions() if position.market_id == market_id]

    async def get_positions_by_token_id(self, token_id: str) -> list[Position]:
        """Positions of one token."""
        return [position for position in await self.get_positions() if position.token_id == token_id]

    @abstractmethod
    async def get_balance(self, market: Market | None = None) -> Decimal:
        """Dollars of cash; with a market, what an order on it can spend (open orders held back)."""

    @abstractmethod
    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        """Own past trades with won / lost / open, oldest first: those from `since` (aware) on, the first `limit` of
        them. Raises InvalidOrder for a limit that is not above zero.
        """

    @abstractmethod
    async def subscribe_fills(self, callback: Callback[Fill] | None = None) -> Subscription[Fill]:
        """Own fills, each once per state change; never dropped."""

    @abstractmethod
    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        """Every change of an own order, the venue's own cancels with their reason; never dropped."""

    @abstractmethod
    async def keep_warm(self) -> None:
        """Open the connections that the next order will need."""

    @abstractmethod
    def budget(self) -> Budget:
        """Orders and cancels left per second."""

    @abstractmethod
    def dead_man(self) -> AbstractAsyncContextManager[Any]:
        """A context in which the venue cancels the orders when this process stops telling it that it lives."""


class PublicSide(BaseExchange):
    """An exchange whose public side is another object's: every public call is passed on to `data`."""

    def __init__(self, data: MarketData) -> None:
        super().__init__(data.endpoints, data.clock)
        self.venue = data.venue
        self.venue_clock = data.venue_clock
        self.data = data

    async def close(self) -> None:
        await self.data.close()

    def finder(self) -> MarketFinder:
        return self.data.finder()

    async def get_market(self, market_id: str) -> Market:
        return await self.data.get_market(market_id)

    def current(self, market: Market) -> Market:
        return self.data.current(market)

    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        return await self.data.get_orderbook(market, outcome)

    def book(self, market: Market, outcome: str) -> OrderBook:
        return self.data.book(market, outcome)

    async def subscribe_orderbook(
        self, markets: Iterable[Market], callback: Callback[OrderBook] | None = None
    ) -> Subscription[OrderBook]:
        return await self.data.subscribe_orderbook(markets, callback)

    async def subscribe_trades(
        self, markets: Iterable[Market], callback: Callback[PublicTrade] | None = None
    ) -> Subscription[PublicTrade]:
        return await self.data.subscribe_trades(markets, callback)

    async def subscribe_markets(self, callback: Callback[Market] | None = None) -> Subscription[Market]:
        return await self.data.subscribe_markets(callback)

    async def subscribe_reference(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        return await self.data.subscribe_reference(assets, callback)

    async def wait_result(self, market: Market) -> MarketResult:
        return await self.data.wait_result(market)
