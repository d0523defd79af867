"""Kalshi's public side: books, trades, metadata, results.

With a `HandshakeSigner` everything comes from the socket, which Kalshi wants signed also for public data; without one
books and trades come from REST polls (`polled`). A market has two books, YES and NO, which mirror each other: a NO bid
at q is a YES ask at 1 - q. Prints are given in YES terms: a taker who buys NO sells YES.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, NotSent, RateLimited, VenueUnavailable
from pmkit.exchanges.base import Callback, MarketData
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.market_watch import QUICK_SECONDS, MarketWatch
from pmkit.exchanges.kalshi.rest_messages import DepthAnswer
from pmkit.exchanges.kalshi.source import Source
from pmkit.exchanges.kalshi.types import NO, SIZE_SCALE, VENUE, KalshiMarket
from pmkit.exchanges.market import Market
from pmkit.exchanges.numbers import BookError
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import MarketResult, PublicTrade
from pmkit.http import Allowed, HttpSession
from pmkit.streams import Policy, Subscription

if TYPE_CHECKING:
    from pmkit.exchanges.kalshi.auth import HandshakeSigner
    from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder

PUBLIC_READS: Final = (
    ("GET", r"/exchange/(status|schedule)"),
    ("GET", r"/series(/[^/]+)?"),
    ("GET", r"/events/[^/]+"),
    ("GET", r"/markets(/[^/]+(/orderbook)?)?"),
)
"""(method, path pattern) of all that this class ever asks for; the default allow-list of its session."""

_MIN_RESULT_WALL_SECONDS: Final = 0.2
_BEFORE_CLOSE_SECONDS: Final = 60.0
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiMarketData(MarketData):
    """Books, trades and metadata of Kalshi. Needs no key; with a `HandshakeSigner` it listens to the socket.

    `catalogue`: markets, series and events as read so far. `feed`: the live books and their counters. `polled`: whether
    books come from REST, once a second and valid for three polls.
    """

    venue = VENUE

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        *,
        signer: HandshakeSigner | None = None,
        allow: Allowed | None = None,
    ) -> None:
        """`allow`: the requests the HTTP session may send, `PUBLIC_READS` when None."""
        super().__init__(endpoints, clock)
        self.session = HttpSession(
            endpoints.kalshi.rest,
            clock,
            allow=PUBLIC_READS if allow is None else allow,
            venue_clock=self.venue_clock,
            connect_timeout=2.0,
            timeout=5.0,
        )
        self.catalogue = Catalogue(self.session, clock, self.venue_clock)
        self.feed = BookFeed()
        self.polled = signer is None
        self._watch = MarketWatch(
            self.catalogue, clock, self.venue_clock, pushed=signer is not None, changed=self._on_changed
        )
        self.source = Source(
            endpoints.kalshi.ws,
            clock,
            self.venue_clock,
            self.session,
            self.feed,
            self.catalogue,
            self._watch,
            signer,
            self._publish_trade,
        )
        self._finder: KalshiMarketFinder | None = None
        self._book_refs: dict[str, int] = {}
        self._trade_readers: dict[str, list[Subscription[PublicTrade]]] = {}
        self._subscriptions: set[Subscription[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End all sockets, tasks and connections, within a second. May be called twice."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="pmkit kalshi close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        subscriptions = tuple(self._subscriptions)
        await asyncio.gather(
            self.source.close(),
            self._watch.close(),
            self.session.close(),
            *(subscription.close() for subscription in subscriptions),
            return_exceptions=True,
        )
        self.feed.reset("closed")

    def finder(self) -> KalshiMarketFinder:
        """The finder, on this object's metadata; one per object."""
        if self._finder is None:
            from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder

            self._finder = KalshiMarketFinder(self)
        return self._finder

    # Reads.

    async def get_market(self, market_id: str) -> KalshiMarket:
        """One market by its ticker, read now, with its series' and event's fees. Raises MarketNotFound."""
        await self.catalogue.now_ms()
        return await self.catalogue.market(market_id)

    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        """One REST read of a book, valid at the moment of the answer; its `venue_ms` is an estimate, as the venue gives
        none. Raises what the query raises."""
        market.token_id(outcome)
        answer = await self.session.get(f"/markets/{_own(market).ticker}/orderbook")
        depth = answer.decode(DepthAnswer).orderbook_fp
        pair = BookPair(market.market_id, market.grid.unit)
        venue_ms = (answer.sent_ms + answer.received_ms) // 2 + self.venue_clock.offset_ms
        try:
            pair.load(depth.yes_dollars or (), depth.no_dollars or (), venue_ms, self.clock.time_ns())
        except BookError as error:
            raise VenueUnavailable(f"{self.session.host} gave a book that cannot be: {error}") from error
        book = pair.no if outcome == NO else pair.yes
        book.on_validity = None
        return book

    def book(self, market: Market, outcome: str) -> OrderBook:
        """The live book of an outcome. Not subscribed: an empty one, not valid, reason "not subscribed"."""
        token_id = market.token_id(outcome)
        pair = self.feed.pairs.get(market.market_id)
        if pair is not None:
            return pair.no if outcome == NO else pair.yes
        book = OrderBook(
            venue=VENUE,
            market_id=market.market_id,
            outcome=outcome,
            token_id=token_id,
            unit=market.grid.unit,
            size_scale=SIZE_SCALE,
        )
        book.expire("not subscribed")
        return book

    async def wait_result(self, market: Market) -> MarketResult:
        """Wait until the market is finalized: reads it after its close every 1, 2, 4 ... 15 s (market time).

        Goes on through outages. Raises MarketNotFound, AuthError, RegionBlocked or ProtocolChanged, after which waiting
        is no use, and VenueUnavailable once this object is closed.
        """
        ticker, step = _own(market).ticker, 0
        while True:
            state = self.catalogue.markets.get(ticker)
            left = 0.0
            if state is None or state.payouts is None:
                try:
                    state = await self.catalogue.market(ticker)
                except (RateLimited, VenueUnavailable, NotSent) as error:
                    _LOG.log(logging.WARNING if step == 0 else logging.DEBUG, "kalshi: result of %s: %s", ticker, error)
            if state is not None:
                if state.payouts is not None:
                    return MarketResult(ticker, state.outcomes, state.payouts)
                left = (state.close_ms - self.venue_clock.now_ms()) / 1000
            if self._closing is not None:
                raise VenueUnavailable(f"the market data were closed while waiting for the result of {ticker}")
            if left > 0:
                seconds = min(left, _BEFORE_CLOSE_SECONDS)
            else:
                seconds = QUICK_SECONDS[min(step, len(QUICK_SECONDS) - 1)]
                step += 1
            await self.clock.io_sleep(max(seconds / self.clock.factor, _MIN_RESULT_WALL_SECONDS))

    # Streams.

    async def subscribe_orderbook(
        self, markets: Iterable[Market], callback: Callback[OrderBook] | None = None
    ) -> Subscription[OrderBook]:
        """Live books of YES and NO of the markets, see `MarketData`. Raises VenueUnavailable when no snapshot came
        within 5 s, AuthError when the venue refuses the key."""
        chosen = _chosen(markets)
        tickers = tuple(chosen)
        subscription: Subscription[OrderBook] = Subscription(
            "kalshi books",
            self.clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_token_of,
            on_close=partial(self._leave_books, tickers),
        )
        self._enter(subscription)
        pairs: list[BookPair] = []
        for ticker, market in chosen.items():
            self._book_refs[ticker] = self._book_refs.get(ticker, 0) + 1
            pair = self.feed.watch(ticker, market.grid.unit)
            pair.listeners = [*pair.listeners, subscription.publish]
            pairs.append(pair)
            self._watch.follow(market)
        already = [pair for pair in pairs if pair.live]
        try:
            await self.source.want_books(tickers)
        except BaseException:
            await subscription.close()
            raise
        for pair in already:
            subscription.publish(pair.yes)
            subscription.publish(pair.no)
        return subscription

    async def _leave_books(self, tickers: Sequence[str], subscription: Subscription[OrderBook]) -> None:
        self._subscriptions.discard(subscription)
        gone: list[str] = []
        for ticker in tickers:
            pair = self.feed.pairs.get(ticker)
            if pair is not None:
                pair.listeners = [listen for listen in pair.listeners if listen != subscription.publish]
            self._watch.unfollow(ticker)
            self._book_refs[ticker] -= 1
            if not self._book_refs[ticker]:
                del self._book_refs[ticker]
                self.feed.forget(ticker)
                gone.append(ticker)
        await self.source.drop_books(gone)

    async def subscribe_trades(
        self, markets: Iterable[Market], callback: Callback[PublicTrade] | None = None
    ) -> Subscription[PublicTrade]:
        """Public prints of the markets from now on, in YES terms, each once; what was missed is read over REST. Raises
        like `subscribe_orderbook`."""
        chosen = _chosen(markets)
        tickers = tuple(chosen)
        subscription: Subscription[PublicTrade] = Subscription(
            "kalshi trades",
            self.clock,
            callback=callback,
            policy=Policy.DROP_OLDEST,
            on_close=partial(self._leave_trades, tickers),
        )
        self._enter(subscription)
        for ticker, market in chosen.items():
            self._trade_readers[ticker] = [*self._trade_readers.get(ticker, ()), subscription]
            self._watch.follow(market)
        try:
            await self.source.want_trades(tickers)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def _leave_trades(self, tickers: Sequence[str], subscription: Subscription[PublicTrade]) -> None:
        self._subscriptions.discard(subscription)
        gone: list[str] = []
        for ticker in tickers:
            readers = [one for one in self._trade_readers.pop(ticker, ()) if one is not subscription]
            self._watch.unfollow(ticker)
            if readers:
                self._trade_readers[ticker] = readers
            else:
                gone.append(ticker)
        await self.source.drop_trades(gone)

    async def subscribe_markets(self, callback: Callback[Market] | None = None) -> Subscription[Market]:
        """The new state of every market whose books or trades are subscribed, whenever tick, status, close time,
        strike, result or fees changed; of a closed one also after its subscription has ended, up to its result."""
        subscription: Subscription[Market] = Subscription(
            "kalshi markets",
            self.clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_market_id_of,
            on_close=self._leave_markets,
        )
        self._enter(subscription)
        self._watch.subscriptions = [*self._watch.subscriptions, subscription]
        self._watch.start()
        try:
            await self.source.want_news()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def _leave_markets(self, subscription: Subscription[Market]) -> None:
        self._subscriptions.discard(subscription)
        self._watch.subscriptions = [one for one in self._watch.subscriptions if one is not subscription]
        if not self._watch.subscriptions:
            await self.source.drop_news()

    def _enter(self, subscription: Subscription[Any]) -> None:
        if self._closing is not None:
            raise VenueUnavailable("these market data are closed: make a new object")
        self._subscriptions.add(subscription)

    # What others report.

    def _publish_trade(self, trade: PublicTrade) -> None:
        for subscription in self._trade_readers.get(trade.market_id, ()):
            subscription.publish(trade)

    def _on_changed(self, old: KalshiMarket, new: KalshiMarket) -> None:
        if old.grid != new.grid:
            self.feed.regrid(new.ticker, new.grid.unit)


def _own(market: Market) -> KalshiMarket:
    if not isinstance(market, KalshiMarket):
        raise ConfigError(f"{ascii(market)[:60]} is not a Kalshi market")
    return market


def _chosen(markets: Iterable[Market]) -> dict[str, KalshiMarket]:
    return {market.market_id: _own(market) for market in markets}


def _token_of(book: OrderBook) -> str:
    return book.token_id


def _market_id_of(market: Market) -> str:
    return market.market_id
