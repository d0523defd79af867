"""Where Kalshi's live data come from: the socket with a key, REST polls without one.

The market data say what is wanted; here it is wanted from the one or the other, what the socket missed is read over
REST, and a socket that has gone silent is compared with REST before its books count again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pmkit.clock import Clock
from pmkit.errors import ConfigError, PmkitError, VenueUnavailable
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.market_watch import MarketWatch
from pmkit.exchanges.kalshi.messages import (
    LIFECYCLE,
    ORDERBOOK,
    TICKER,
    TRADE,
    Event,
    EventFeeFrame,
    LifecycleFrame,
    Ticker,
    TickerFrame,
    TradeFrame,
)
from pmkit.exchanges.kalshi.rest_poll import TICKERS_PER_CALL, BookPoll, TradePoll, read_depths
from pmkit.exchanges.kalshi.trades import Trades
from pmkit.exchanges.types import PublicTrade
from pmkit.http import HttpSession
from pmkit.venue_clock import VenueClock
from pmkit.websocket.deadlines import FIRST_SNAPSHOT

if TYPE_CHECKING:
    from pmkit.exchanges.kalshi.auth import HandshakeSigner
    from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket, Key

_LOOK_SECONDS: Final = 0.05
_NEWS = (LIFECYCLE, "")
_LOG = logging.getLogger("pmkit.kalshi")


class Source:
    """Books, prints and market news for one `BookFeed` and one `MarketWatch`.

    `want_*` return when the first answer is there. They raise VenueUnavailable when it does not come within 5 s (wall),
    and AuthError when the venue refuses the key.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        venue_clock: VenueClock,
        session: HttpSession,
        feed: BookFeed,
        catalogue: Catalogue,
        watch: MarketWatch,
        signer: HandshakeSigner | None,
        publish: Callable[[PublicTrade], object],
        publish_ticker: Callable[[Ticker, int], object],
        compression: bool,
    ) -> None:
        self.socket: KalshiSocket | None = None
        self.trades = Trades(session, clock, venue_clock, publish)
        self._url = url
        self._clock = clock
        self._venue_clock = venue_clock
        self._session = session
        self._feed = feed
        self._catalogue = catalogue
        self._watch = watch
        self._signer = signer
        self._publish_ticker = publish_ticker
        self._compression = compression
        self._books = BookPoll(session, clock, venue_clock, feed)
        self._trade_poll = TradePoll(clock, self.trades)
        self._tasks: set[asyncio.Task[None]] = set()
        self._filling = False
        self._closed = False
        feed.on_event = self._on_event
        feed.on_missed = self._on_missed

    async def close(self) -> None:
        """End everything, within a second. May be called twice."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        parts: list[Coroutine[Any, Any, None]] = [self._books.close(), self._trade_poll.close()]
        if self.socket is not None:
            parts.append(self.socket.close())
        await asyncio.gather(*parts, *self._tasks, return_exceptions=True)

    async def want_books(self, tickers: Sequence[str]) -> None:
        """Books of these watched markets."""
        pairs = [self._feed.pairs[ticker] for ticker in tickers]
        keys = [(ORDERBOOK, ticker) for ticker in tickers]
        if self._signer is None:
            self._books.tickers.update(tickers)
            self._books.start()
            self._books.wake()
        else:
            await (await self._open(self._signer)).want(keys)
        await self._until(lambda: all(pair.live for pair in pairs), keys, "book")

    async def want_trades(self, tickers: Sequence[str]) -> None:
        """Prints of these markets from now on."""
        keys = [(TRADE, ticker) for ticker in tickers]
        for ticker in tickers:
            self.trades.follow(ticker)
        if self._signer is None:
            polls = self._trade_poll.polls
            self._trade_poll.start()
            self._trade_poll.wake()
            await self._until(lambda: self._trade_poll.polls > polls, keys, "trades")
        else:
            socket = await self._open(self._signer)
            await socket.want(keys)
            await self._until(lambda: all(socket.subscriptions.has(key) for key in keys), keys, "trades")

    async def want_news(self) -> None:
        """Lifecycle events; without a key the watch reads the markets by itself."""
        if self._signer is not None:
            socket = await self._open(self._signer)
            await socket.want([_NEWS])
            await self._until(lambda: socket.subscriptions.has(_NEWS), [_NEWS], "market news")

    async def want_tickers(self, tickers: Sequence[str]) -> None:
        """Top of book and last price of these markets. Raises ConfigError without a key: REST has no such stream."""
        if self._signer is None:
            raise ConfigError(
                "Kalshi's ticker channel comes from the signed socket only: give a key (KALSHI_API_KEY_ID), or read "
                "the books"
            )
        keys = [(TICKER, ticker) for ticker in tickers]
        socket = await self._open(self._signer)
        await socket.want(keys)
        await self._until(lambda: all(socket.subscriptions.has(key) for key in keys), keys, "ticker")

    async def drop_books(self, tickers: Iterable[str]) -> None:
        """No longer wanted."""
        names = list(tickers)
        for ticker in names:
            self._books.forget(ticker)
        await self._unwant([(ORDERBOOK, ticker) for ticker in names])

    async def drop_trades(self, tickers: Iterable[str]) -> None:
        """No longer wanted."""
        names = list(tickers)
        for ticker in names:
            self.trades.forget(ticker)
        await self._unwant([(TRADE, ticker) for ticker in names])

    async def drop_tickers(self, tickers: Iterable[str]) -> None:
        """No longer wanted."""
        await self._unwant([(TICKER, ticker) for ticker in tickers])

    async def drop_news(self) -> None:
        """No longer wanted."""
        await self._unwant([_NEWS])

    async def _unwant(self, keys: Sequence[Key]) -> None:
        if self.socket is not None and keys and not self._closed:
            await self.socket.unwant(keys)

    async def _open(self, signer: HandshakeSigner) -> KalshiSocket:
        if self.socket is None:
            from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket

            self.socket = KalshiSocket(
                self._url,
                self._clock,
                signer,
                self._feed,
                venue_clock=self._venue_clock,
                confirm=self._confirm,
                measure=self._catalogue.measure,
                is_over=self._is_over,
                on_gap=self._on_gap,
                compression=self._compression,
            )
            try:
                await self._catalogue.now_ms()  # the handshake is stamped with the venue's time
            except PmkitError as error:
                _LOG.warning("kalshi: the venue's clock was not measured before the handshake: %s", error)
        await self.socket.start()
        return self.socket

    async def _until(self, ready: Callable[[], bool], keys: Sequence[Key], what: str) -> None:
        """Wait for the first answer of a subscription."""
        deadline = self._clock.io_monotonic() + FIRST_SNAPSHOT
        while not ready():
            problem = self.socket.problem(keys) if self.socket is not None else None
            if problem is not None:
                raise problem
            if self._clock.io_monotonic() >= deadline:
                raise VenueUnavailable(f"no {what} of {_names(keys)} within {FIRST_SNAPSHOT:g} s{self._why()}")
            await self._clock.io_sleep(_LOOK_SECONDS)

    def _why(self) -> str:
        if self.socket is not None:
            return f" ({self.socket.stats.last_reason})" if self.socket.stats.last_reason else ""
        error = self._books.error or self._trade_poll.error
        return f" ({error})" if error is not None else ""

    # What the feed, the socket and the polls report.

    def _on_event(self, frame: Event, received_ns: int) -> None:
        if isinstance(frame, TradeFrame):
            self.trades.on_print(frame.msg, received_ns)
        elif isinstance(frame, TickerFrame):
            self._publish_ticker(frame.msg, received_ns)
        elif isinstance(frame, LifecycleFrame | EventFeeFrame):
            self._watch.on_event(frame)

    def _on_missed(self, channel: str) -> None:
        if channel == LIFECYCLE:
            self._watch.refresh()
        elif channel == TRADE and not self._filling:
            task = asyncio.get_running_loop().create_task(self._fill(), name="pmkit kalshi back-fill")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _on_gap(self, reason: str, since_ns: int) -> None:
        self._watch.refresh()
        await self._fill()

    async def _fill(self) -> None:
        """Read the trades that the socket missed. What fails here is missing for good, and is said so."""
        self._filling = True
        try:
            await self.trades.fill(self.trades.tickers)
        except PmkitError as error:
            _LOG.warning("kalshi: trades missed by the socket could not be read: %s", error)
        finally:
            self._filling = False

    def _is_over(self, ticker: str) -> bool:
        market = self._catalogue.markets.get(ticker)
        return market is not None and self._venue_clock.now_ms() >= market.close_ms

    async def _confirm(self) -> bool:
        """The socket is silent: True where one REST read shows that it missed nothing."""
        feed = self._feed
        feed.suspect("no data for too long")
        frames = feed.frames
        open_pairs = [pair for pair in feed.pairs.values() if not self._is_over(pair.ticker)]
        if any(not pair.live for pair in open_pairs):
            return False
        for start in range(0, len(open_pairs), TICKERS_PER_CALL):
            part = open_pairs[start : start + TICKERS_PER_CALL]
            _, depth_of = await read_depths(self._session, [pair.ticker for pair in part])
            if feed.frames != frames:
                return True  # it speaks again; the next number tells whether something is missing
            for pair in part:
                depth = depth_of.get(pair.ticker)
                if depth is None or not pair.holds(depth.yes_dollars or (), depth.no_dollars or ()):
                    return False
        if await self.trades.fill(self.trades.tickers):
            return feed.frames != frames
        feed.confirm()
        return True


def _names(keys: Sequence[Key]) -> str:
    names = [name for _, name in keys if name]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
