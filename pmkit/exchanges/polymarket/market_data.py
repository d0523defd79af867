"""`PolymarketMarketData`: books, trades and markets of Polymarket, public side. Needs no key, but for live prices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.base import Callback, MarketData, asset_names
from pmkit.exchanges.market import Market, market_of
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.auth import HandshakeSigner
from pmkit.exchanges.polymarket.book_feed import BookFeed
from pmkit.exchanges.polymarket.catalogue import Catalogue
from pmkit.exchanges.polymarket.live_book import LiveBook, Sink
from pmkit.exchanges.polymarket.market_watch import MarketWatch
from pmkit.exchanges.polymarket.messages import LastTradePrice
from pmkit.exchanges.polymarket.orderbook_ws import MarketSocket
from pmkit.exchanges.polymarket.prints import Prints
from pmkit.exchanges.polymarket.reference_ws import LivePrices
from pmkit.exchanges.polymarket.settlement import Settlement
from pmkit.exchanges.polymarket.subscriptions import Subscriptions
from pmkit.exchanges.polymarket.types import SIZE_SCALE, VENUE, PolymarketMarket
from pmkit.exchanges.types import MarketResult, PublicTrade, ReferencePrice
from pmkit.http import Allowed, HttpSession
from pmkit.streams import Policy, Subscription

if TYPE_CHECKING:
    from pmkit.exchanges.polymarket.market_finder import PolymarketMarketFinder

_ID: Final = r"[0-9A-Za-z_-]+"
PUBLIC_REQUESTS: Final = (
    ("GET", "/time"),
    ("GET", "/book"),
    ("POST", "/books"),
    ("GET", f"/markets/{_ID}"),
    ("GET", f"/clob-markets/{_ID}"),
    ("GET", f"/events/slug/{_ID}"),
    ("GET", "/events/keyset"),
    ("GET", "/markets/keyset"),
    ("GET", "/series"),
)
"""(method, path pattern) of all that this class ever asks for; the default allow-list of its sessions."""


class PolymarketMarketData(MarketData):
    """The public side of Polymarket: CLOB and Gamma over REST, books and trades from the market channel.

    `allow`: another list of (method, path pattern) for its two HTTP sessions; a request outside of it is never sent.
    `signer`: the log-in for `subscribe_reference`, which Polymarket does not give to everybody. Nothing connects before
    the first call.
    """

    venue = VENUE

    def __init__(
        self, endpoints: Endpoints, clock: Clock, *, allow: Allowed | None = None, signer: HandshakeSigner | None = None
    ) -> None:
        super().__init__(endpoints, clock)
        allowed = PUBLIC_REQUESTS if allow is None else tuple(allow)
        addresses = endpoints.polymarket
        self.clob = HttpSession(addresses.clob, clock, allow=allowed, venue_clock=self.venue_clock, public=True)
        self.gamma = HttpSession(addresses.gamma, clock, allow=allowed, public=True)
        self.catalogue = Catalogue(self.clob, self.gamma, clock, self.venue_clock)
        self.settlement = Settlement(self.catalogue, clock)
        self._watch = MarketWatch(self.catalogue, self.settlement, clock)
        self._subscriptions = Subscriptions(clock, self._make_socket)
        self._prints = Prints()
        self._followed: dict[str, PolymarketMarket] = {}
        self._trade_readers: dict[str, list[Subscription[PublicTrade]]] = {}
        self._open: list[Subscription[Any]] = []
        self._closing: asyncio.Task[None] | None = None
        self._prices: LivePrices | None = None
        if signer is not None:
            self.log_in(signer)

    def log_in(self, signer: HandshakeSigner) -> None:
        """From now on there are live prices."""
        if self._prices is None:
            self._prices = LivePrices(self.endpoints.polymarket.live_ws, self.clock, signer, self.venue_clock)

    @property
    def sockets(self) -> tuple[MarketSocket, ...]:
        """The connections to the market channel, with their counters (`stats`, `feed`)."""
        return tuple(self._subscriptions.sockets)

    async def close(self) -> None:
        """End all sockets, tasks and connections, within a second. May be called twice."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="pmkit polymarket data close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(self._watch.close(), self.settlement.close(), self._subscriptions.close())
        for subscription in list(self._open):
            await subscription.close()
        if self._prices is not None:
            await self._prices.close()
        await asyncio.gather(self.clob.close(), self.gamma.close())

    def finder(self) -> PolymarketMarketFinder:
        """The finder of this venue, on this object's metadata."""
        from pmkit.exchanges.polymarket.market_finder import PolymarketMarketFinder

        return PolymarketMarketFinder(self)

    # -- REST -----------------------------------------------------------------------------------------------------

    async def get_market(self, market_id: str) -> PolymarketMarket:
        """One market by its condition id, read from the venue. Raises MarketNotFound for a wrong id."""
        return await self.catalogue.condition(market_id)

    def current(self, market: Market) -> PolymarketMarket:
        """The freshest known state of a market (price step, status, result), without asking anybody."""
        own = _own(market)
        return self.catalogue.known(own.market_id) or own.at(self.catalogue.now_ms())

    def listed(self, market: Market) -> PolymarketMarket:
        """As `current`, but for the status, which nothing in an order hangs on."""
        own = market if type(market) is PolymarketMarket else _own(market)
        return self.catalogue.listed.get(own.market_id, own)

    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        """One REST read of a book. Raises MarketNotFound where the CLOB has none (any more)."""
        own = _own(market)
        token = own.token_id(outcome)
        answer = await self.catalogue.book(token)
        feed = BookFeed()
        book = feed.add(token, own.market_id, outcome, own.grid.unit)
        if not feed.merge(answer, self.clock.time_ns()):
            raise ProtocolChanged(
                f"{self.clob.host} sent a book of {own.slug} {outcome} that cannot be: {feed.last_error}"
            )
        return book

    async def wait_result(self, market: Market) -> MarketResult:
        """Wait until Gamma or the CLOB says how the market ended. Cancel it to stop waiting."""
        return await self.settlement.wait(market)

    # -- streams --------------------------------------------------------------------------------------------------

    def book(self, market: Market, outcome: str) -> OrderBook:
        """The live book of an outcome; an empty, invalid one with reason "not subscribed" where nobody follows it."""
        own = _own(market)
        token = own.token_id(outcome)
        live = self._subscriptions.live(token)
        if live is not None:
            return live.book
        book = OrderBook(
            venue=VENUE,
            market_id=own.market_id,
            outcome=outcome,
            token_id=token,
            unit=own.grid.unit,
            size_scale=SIZE_SCALE,
        )
        book.expire("not subscribed")
        return book

    def best_ask(self, token_id: str) -> Decimal | None:
        """Of the live book of an outcome; None where nobody follows it, it is not valid, or nothing is offered."""
        live = self._subscriptions.live(token_id)
        return live.book.best_ask if live is not None and live.book.valid else None

    async def subscribe_orderbook(
        self, markets: Iterable[Market], callback: Callback[OrderBook] | None = None
    ) -> Subscription[OrderBook]:
        """Live books of all outcomes of the markets; see `MarketData.subscribe_orderbook`."""
        interest = _Interest(self, markets)
        subscription: Subscription[OrderBook] = Subscription(
            "polymarket books",
            self.clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_token_of,
            on_close=interest.end,
        )
        await interest.begin(subscription, subscription.publish_all)
        return subscription

    async def subscribe_trades(
        self, markets: Iterable[Market], callback: Callback[PublicTrade] | None = None
    ) -> Subscription[PublicTrade]:
        """Public prints of the markets, each match once, with the taker's side; a slow reader loses the oldest."""
        interest = _Interest(self, markets)
        subscription: Subscription[PublicTrade] = Subscription(
            "polymarket trades", self.clock, callback=callback, policy=Policy.DROP_OLDEST, on_close=interest.end
        )
        for market in interest.markets:
            self._trade_readers.setdefault(market.market_id, []).append(subscription)
        await interest.begin(subscription, None)
        return subscription

    async def subscribe_markets(self, callback: Callback[Market] | None = None) -> Subscription[Market]:
        """The new state of every market whose books or trades are subscribed, until it is resolved."""
        if self._closing is not None:
            raise VenueUnavailable("this PolymarketMarketData is closed")
        subscription: Subscription[Market] = Subscription(
            "polymarket markets",
            self.clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_id_of,
            on_close=self._leave_markets,
        )
        self._open.append(subscription)
        self._watch.add(subscription)
        return subscription

    async def _leave_markets(self, subscription: Subscription[Market]) -> None:
        self._open.remove(subscription)
        await self._watch.remove(subscription)

    # -- live prices ----------------------------------------------------------------------------------------------

    async def subscribe_reference(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """The settlement index of assets, its running 60 s average, and the strike of the current 15-minute window.

        Raises ConfigError without a log-in, AuthError where the venue refuses it, VenueUnavailable where no prices
        come.
        """
        names = asset_names(assets)
        if self._prices is None:
            raise ConfigError(
                "Polymarket's live prices want a log-in: give API credentials (POLYMARKET_API_KEY, "
                "POLYMARKET_API_SECRET, POLYMARKET_API_PASSPHRASE)"
            )
        return await self._prices.subscribe(names, callback)

    def strike(self, market: Market) -> Decimal | None:
        """The price to beat of a window, once its average at the open was seen. Asks nobody."""
        if market.strike is not None or self._prices is None:
            return market.strike
        return self._prices.strike(market.asset, market.open_ms)

    # -- the market channel ---------------------------------------------------------------------------------------

    def _make_socket(self, name: str) -> MarketSocket:
        socket = MarketSocket(
            self.endpoints.polymarket.market_ws,
            self.clock,
            self.venue_clock,
            name=name,
            read_books=self.catalogue.books,
            is_over=self._is_over,
        )
        socket.feed.on_trade = self._on_trade
        socket.feed.on_tick = self._on_tick
        socket.feed.on_resolved = self.settlement.poke
        return socket

    def _is_over(self, token_id: str) -> bool:
        live = self._subscriptions.live(token_id)
        market = None if live is None else self._followed.get(live.book.market_id)
        return market is not None and self.venue_clock.now_ms() >= market.close_ms

    def _on_tick(self, live: LiveBook, tick_size: str) -> None:
        self.catalogue.set_tick(live.book.market_id, tick_size)

    def _on_trade(self, live: LiveBook, event: LastTradePrice, received_ns: int) -> None:
        book = live.book
        readers = self._trade_readers.get(book.market_id)
        market = self._followed.get(book.market_id)
        if not readers or market is None:
            return
        first = market.token_ids[0] == book.token_id
        trade = self._prints.read(event, book.market_id, book.outcome, first, received_ns)
        if trade is not None:
            for reader in list(readers):
                reader.publish(trade)


class _Interest:
    """What one subscription holds: its markets on the market channel, for as long as it is open."""

    __slots__ = ("_data", "_held", "_sink", "markets")

    def __init__(self, data: PolymarketMarketData, markets: Iterable[Market]) -> None:
        self._data = data
        self._held = False
        self._sink: Sink | None = None
        self.markets = list({own.market_id: own for own in map(_own, markets)}.values())

    async def begin(self, subscription: Subscription[Any], sink: Sink | None) -> None:
        """Returns with the first books. Where they do not come, closes the subscription and raises VenueUnavailable."""
        data = self._data
        data._open.append(subscription)
        for market in self.markets:
            data._followed[market.market_id] = market
            if data.catalogue.known(market.market_id) is None:
                data.catalogue.store(market)
            data._watch.follow(market)
        try:
            await data._subscriptions.acquire(self.markets, sink)
            self._sink, self._held = sink, True
        except BaseException:
            await subscription.close()
            raise

    async def end(self, subscription: Subscription[Any]) -> None:
        """The subscription was closed."""
        data = self._data
        if subscription in data._open:
            data._open.remove(subscription)
        for market in self.markets:
            readers = data._trade_readers.get(market.market_id, [])
            if subscription in readers:
                readers.remove(subscription)
                if not readers:
                    del data._trade_readers[market.market_id]
        if self._held:
            self._held = False
            await data._subscriptions.release(self.markets, self._sink)
        for market in self.markets:
            if data._subscriptions.live(market.token_ids[0]) is None:
                data._followed.pop(market.market_id, None)


def _own(market: Market) -> PolymarketMarket:
    return market_of(PolymarketMarket, market, "Polymarket")


def _token_of(book: OrderBook) -> str:
    return book.token_id


def _id_of(market: Market) -> str:
    return market.market_id
