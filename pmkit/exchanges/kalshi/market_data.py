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
from typing import TYPE_CHECKING, Any, TypeVar

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, VenueUnavailable
from pmkit.exchanges.base import Callback
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.market_watch import MarketWatch
from pmkit.exchanges.kalshi.messages import Ticker
from pmkit.exchanges.kalshi.public_reads import PublicReads, own
from pmkit.exchanges.kalshi.source import Source
from pmkit.exchanges.kalshi.types import NO, SIZE_SCALE, VENUE, KalshiMarket, KalshiTicker, RowError, parse_ticker
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import PublicTrade, ReferencePrice
from pmkit.http import Allowed
from pmkit.streams import Policy, Subscription

if TYPE_CHECKING:
    from pmkit.exchanges.kalshi.auth import HandshakeSigner
    from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder
    from pmkit.exchanges.kalshi.reference_ws import IndexPrices

T = TypeVar("T")
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiMarketData(PublicReads):
    """Books, trades and metadata of Kalshi. Needs no key; with a `HandshakeSigner` it listens to the socket.

    `catalogue`: markets, series and events as read so far. `feed`: the live books and their counters. `polled`: whether
    books come from REST, once a second and valid for three polls. `reference`: the index prices, once subscribed.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        *,
        signer: HandshakeSigner | None = None,
        allow: Allowed | None = None,
        compression: bool = False,
    ) -> None:
        """`allow`: the requests the HTTP session may send, `PUBLIC_READS` when None. `compression`: the sockets offer
        permessage-deflate, which saves bandwidth and costs time."""
        super().__init__(endpoints, clock, allow)
        self.feed = BookFeed()
        self.polled = signer is None
        self.odd_tickers = 0
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
            self._publish_ticker,
            compression,
        )
        self.reference: IndexPrices | None = None
        self._signer = signer
        self._compression = compression
        self._finder: KalshiMarketFinder | None = None
        self._book_refs: dict[str, int] = {}
        self._trade_readers: dict[str, list[Subscription[PublicTrade]]] = {}
        self._ticker_readers: dict[str, list[Subscription[KalshiTicker]]] = {}
        self._subscriptions: dict[Subscription[Any], None] = {}

    async def close(self) -> None:
        """End all sockets, tasks and connections, within a second. May be called twice."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="pmkit kalshi close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        subscriptions = tuple(self._subscriptions)
        await asyncio.gather(
            self.source.close(),
            *(() if self.reference is None else (self.reference.close(),)),
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

    def current(self, market: Market) -> KalshiMarket:
        """The freshest known state of a market, without asking anybody."""
        mine = own(market)
        return self.catalogue.markets.get(mine.ticker, mine)

    def book(self, market: Market, outcome: str) -> OrderBook:
        """The live book of an outcome. Not subscribed: an empty one, not valid, reason "not subscribed"."""
        token_id = own(market).token_id(outcome)
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
            pair.listeners = [*pair.listeners, subscription.publish_all]
            pairs.append(pair)
            self._watch.follow(market)
        already = [pair for pair in pairs if pair.live]
        try:
            await self.source.want_books(tickers)
        except BaseException:
            await subscription.close()
            raise
        for pair in already:
            subscription.publish_all(pair.books)
        return subscription

    async def _leave_books(self, tickers: Sequence[str], subscription: Subscription[OrderBook]) -> None:
        self._subscriptions.pop(subscription, None)
        gone: list[str] = []
        for ticker in tickers:
            pair = self.feed.pairs.get(ticker)
            if pair is not None:
                pair.listeners = [listen for listen in pair.listeners if listen != subscription.publish_all]
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
        self._subscriptions.pop(subscription, None)
        for ticker in tickers:
            self._watch.unfollow(ticker)
        await self.source.drop_trades(_unread(self._trade_readers, tickers, subscription))

    async def subscribe_ticker(
        self, markets: Iterable[Market], callback: Callback[KalshiTicker] | None = None
    ) -> Subscription[KalshiTicker]:
        """Top of book, last price and volume of the markets whenever one changes. A slow reader gets the latest.

        Needs a key. Raises ConfigError without one, else like `subscribe_orderbook`.
        """
        tickers = tuple(_chosen(markets))
        subscription: Subscription[KalshiTicker] = Subscription(
            "kalshi ticker",
            self.clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_market_id_of,
            on_close=partial(self._leave_tickers, tickers),
        )
        self._enter(subscription)
        for ticker in tickers:
            self._ticker_readers[ticker] = [*self._ticker_readers.get(ticker, ()), subscription]
        try:
            await self.source.want_tickers(tickers)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def _leave_tickers(self, tickers: Sequence[str], subscription: Subscription[KalshiTicker]) -> None:
        self._subscriptions.pop(subscription, None)
        await self.source.drop_tickers(_unread(self._ticker_readers, tickers, subscription))

    async def subscribe_reference(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """`KalshiReference`s: index, its 60 s average, the settlement as it forms, the running window's strike.

        Needs a key. Raises ConfigError without one or for what is no asset, AuthError where the venue refuses the key,
        VenueUnavailable where no tick of an asset comes within 5 s.
        """
        if self._signer is None:
            raise ConfigError("Kalshi's index comes from the signed socket only: give a key (KALSHI_API_KEY_ID)")
        if self._closing is not None:
            raise VenueUnavailable("these market data are closed: make a new object")
        if self.reference is None:
            from pmkit.exchanges.kalshi.reference_ws import IndexPrices

            self.reference = IndexPrices(
                self.endpoints.kalshi.ws,
                self.clock,
                self._signer,
                self.venue_clock,
                compression=self._compression,
                current=self.finder().get_current_market,
                measure=self.catalogue.now_ms,
            )
        return await self.reference.subscribe(assets, callback)

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
        self._subscriptions.pop(subscription, None)
        self._watch.subscriptions = [one for one in self._watch.subscriptions if one is not subscription]
        if not self._watch.subscriptions:
            await self.source.drop_news()

    def _enter(self, subscription: Subscription[Any]) -> None:
        if self._closing is not None:
            raise VenueUnavailable("these market data are closed: make a new object")
        self._subscriptions[subscription] = None

    # What others report.

    def _publish_trade(self, trade: PublicTrade) -> None:
        for subscription in self._trade_readers.get(trade.market_id, ()):
            subscription.publish(trade)

    def _publish_ticker(self, row: Ticker, received_ns: int) -> None:
        readers = self._ticker_readers.get(row.market_ticker)
        if readers:
            try:
                ticker = parse_ticker(row, received_ns)
            except RowError as error:
                self.odd_tickers += 1
                _LOG.debug("kalshi: a ticker was left out: %s", error)
                return
            for subscription in readers:
                subscription.publish(ticker)

    def _on_changed(self, old: KalshiMarket, new: KalshiMarket) -> None:
        if old.grid != new.grid:
            self.feed.regrid(new.ticker, new.grid.unit)


def _chosen(markets: Iterable[Market]) -> dict[str, KalshiMarket]:
    return {mine.market_id: mine for mine in map(own, markets)}


def _token_of(book: OrderBook) -> str:
    return book.token_id


def _market_id_of(one: Market | KalshiTicker) -> str:
    return one.market_id


def _unread(readers: dict[str, list[Subscription[T]]], tickers: Iterable[str], closed: Subscription[T]) -> list[str]:
    """Take a reader out; the markets that nobody reads any more."""
    gone: list[str] = []
    for ticker in tickers:
        left = [one for one in readers.pop(ticker, ()) if one is not closed]
        if left:
            readers[ticker] = left
        else:
            gone.append(ticker)
    return gone
