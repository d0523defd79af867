"""`BinanceFeed`: closed candles of several symbols, live, in rolling buffers without gaps or duplicates.

One combined connection brings the frames; REST brings what was before it and what it missed. `join` decides what
follows what; here are the reading over REST, the life of the feed and its subscribers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from pmkit.clock import Clock
from pmkit.data.binance.buffer import CandleBuffer
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.join import Added
from pmkit.data.binance.kline_ws import KlineSocket
from pmkit.data.binance.series import Series
from pmkit.data.binance.types import (
    Candle,
    CandleEvent,
    Hole,
    KlineEvent,
    check_symbol,
    interval_ms,
    stream_of,
)
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, PmkitError, VenueUnavailable
from pmkit.streams import Policy, Subscription
from pmkit.websocket.base import SocketStats

START_SECONDS: Final = 30.0

_LOG = logging.getLogger("pmkit.binance")


@dataclass(slots=True)
class FeedStats:
    """Counters over all symbols since the start. `differing`: closed candles that came again with other values (the
    first was kept); `late`: that came after their place was passed; `lost`: that became holes; `failures`: reads over
    REST without an answer; `refused`: subscriptions that the venue refused.
    """

    live: int = 0
    filled: int = 0
    duplicates: int = 0
    differing: int = 0
    late: int = 0
    lost: int = 0
    failures: int = 0
    refused: int = 0


class BinanceFeed:
    """Live closed candles. Nothing connects before `start`; `close` is idempotent and final.

    `size` candles per symbol are kept, and read before the first live one (the warm-up). `interval`: "1s", "1m", "5m",
    "15m". A `fetcher` that is given is shared and stays open.

    A candle enters its buffer once, closed, in order; while a gap is being read over REST newer candles wait behind it.
    What the venue does not have is in `gaps`. Buffers stay readable, unchanged, while the connection is lost.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        symbols: Sequence[str],
        interval: str = "1s",
        size: int = 900,
        fetcher: BinanceFetcher | None = None,
    ) -> None:
        length = interval_ms(interval)
        if isinstance(symbols, str):
            raise ConfigError(f"symbols is the text {ascii(symbols)[:40]}: give a list such as ['BTCUSDT']")
        self.symbols = tuple(dict.fromkeys(check_symbol(symbol) for symbol in symbols))
        if not self.symbols:
            raise ConfigError("a candle feed needs at least one symbol, e.g. BTCUSDT")
        self.interval = interval
        self._clock = clock
        self._length = length
        self._fetcher = fetcher or BinanceFetcher(endpoints, clock)
        self._own_fetcher = fetcher is None
        self._series = {
            symbol: Series(symbol, interval, size, self._fetcher, clock, self._publish) for symbol in self.symbols
        }
        self._streams = {stream_of(symbol, interval): symbol for symbol in self.symbols}
        self._socket = KlineSocket(
            endpoints.binance.ws,
            clock,
            length,
            on_kline=self._hear,
            on_end=self._forget_forming,
            on_refusal=self._refusal,
        )
        self._subscriptions: dict[Subscription[CandleEvent], frozenset[str]] = {}
        self._refused = ""
        self._refusals = 0
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # What users read.

    @property
    def connected(self) -> bool:
        """The connection is up and everything is subscribed on it."""
        return self._socket.connected

    @property
    def socket_stats(self) -> SocketStats:
        """Counters of the connection."""
        return self._socket.stats

    @property
    def stats(self) -> FeedStats:
        """Counters of the candles."""
        joins = [series.join.stats for series in self._series.values()]
        return FeedStats(
            live=sum(stats.live for stats in joins),
            filled=sum(stats.filled for stats in joins),
            duplicates=sum(stats.duplicates for stats in joins),
            differing=sum(stats.differing for stats in joins),
            late=sum(stats.late for stats in joins),
            lost=sum(stats.lost for stats in joins),
            failures=sum(series.failures for series in self._series.values()),
            refused=self._refusals,
        )

    @property
    def _closed(self) -> bool:
        return self._closing is not None

    def _of(self, symbol: str) -> Series:
        series = self._series.get(symbol.upper())
        if series is None:
            raise ConfigError(f"this feed has no {symbol}: it has {', '.join(self.symbols)}")
        return series

    def candles(self, symbol: str) -> CandleBuffer:
        """The rolling closed candles of a symbol, oldest first: the same object for ever. Empty before `start`."""
        return self._of(symbol).join.buffer

    def open_candle(self, symbol: str) -> Candle | None:
        """The candle that is forming, as last heard; None where the venue sends none (1s) or the connection is lost."""
        return self._of(symbol).join.forming

    def gaps(self, symbol: str) -> list[Hole]:
        """The candles that are known to be missing (the last 1000 holes), oldest first."""
        return list(self._of(symbol).join.holes)

    async def subscribe_candles(
        self,
        callback: Callable[[CandleEvent], Awaitable[None] | None] | None = None,
        *,
        symbols: Sequence[str] | None = None,
    ) -> Subscription[CandleEvent]:
        """Every candle that enters a buffer from now on, in order per symbol, without those of the warm-up.
        `Subscription` says how they reach a callback or an `async for`. `symbols`: only these; ConfigError for others.
        """
        wanted = self.symbols if symbols is None else tuple(self._of(symbol).symbol for symbol in symbols)
        if self._closed:
            raise VenueUnavailable("the candle feed is closed")

        def gone(subscription: Subscription[CandleEvent]) -> None:
            self._subscriptions.pop(subscription, None)

        subscription: Subscription[CandleEvent] = Subscription(
            "candles", self._clock, callback=callback, policy=Policy.DROP_OLDEST, on_close=gone
        )
        self._subscriptions[subscription] = frozenset(wanted)
        return subscription

    # Life.

    async def start(self, timeout: float = START_SECONDS) -> None:
        """Connect, warm up, and return when every symbol is live.

        Raises VenueUnavailable after `timeout` wall seconds, saying what is missing; MarketNotFound, RegionBlocked or
        ProtocolChanged at once. The feed is closed then. A second call waits for the first.
        """
        if self._closed:
            raise VenueUnavailable("the candle feed is closed: make a new one")
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start(timeout), name="pmkit candles start")
        try:
            await asyncio.shield(self._starting)
        except PmkitError:
            await self.close()
            raise
        except asyncio.CancelledError:
            # Only `close` cancels what starts; anything else was meant for whoever called this.
            if not self._starting.cancelled() or _cancelling():
                raise
            raise VenueUnavailable("the candle feed was closed while it started") from None

    async def _start(self, timeout: float) -> None:
        await self._socket.want(self._streams)
        await self._socket.start()
        warm = [series.start() for series in self._series.values()]
        # An unknown symbol is silent on the socket for ever; only REST says so.
        known = [self._fetcher.require(symbol, self.interval) for symbol in self.symbols]
        try:
            async with self._clock.io_timeout(timeout):
                await _all(known, warm)
        except TimeoutError:
            raise VenueUnavailable(f"no live candles within {timeout:g} s: {self._state()}") from None

    def _state(self) -> str:
        """What is missing, for the message of a start that failed."""
        socket = self._socket
        parts = []
        if not socket.connected:
            why = socket.stats.blocked or socket.stats.last_reason or "no attempt has ended yet"
            parts.append(f"no connection to {socket.host} ({why})")
        if self._refused:
            parts.append(self._refused)
        for series in self._series.values():
            if not series.join.warm:
                heard = "the stream says nothing" if series.join.missing is None else "history is missing"
                parts.append(f"{series.symbol}: {series.trouble or heard}")
        return "; ".join(parts)

    async def close(self) -> None:
        """End the connection, all tasks and subscriptions, within a second. May be called again."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="pmkit candles close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(series.close() for series in self._series.values()))
        await asyncio.gather(self._socket.close(), *([self._fetcher.close()] if self._own_fetcher else []))
        for subscription in list(self._subscriptions):
            await subscription.close()

    # Frames.

    def _hear(self, event: KlineEvent, received_ns: int) -> bool:
        """One kline frame; False for one that nobody asked for."""
        series = self._series.get(event.symbol)
        if series is None or event.interval != self.interval:
            return False
        series.hear(event, received_ns)
        return True

    def _forget_forming(self) -> None:
        for series in self._series.values():
            series.join.forming = None

    def _refusal(self, text: str) -> None:
        self._refusals += 1
        self._refused = f"{self._socket.host} refused a subscription: {text}"
        _LOG.error("Binance: %s", self._refused)

    def _publish(self, series: Series, added: Sequence[Added]) -> None:
        for entry in added:
            candle, frame = entry.candle, entry.event
            venue_ms = candle.timestamp + self._length if frame is None else frame.event_ms
            event = CandleEvent(
                series.symbol, self.interval, candle, venue_ms, entry.received_ns, live=frame is not None
            )
            for subscription, wanted in list(self._subscriptions.items()):
                if series.symbol in wanted:
                    subscription.publish(event)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(known: Sequence[Awaitable[None]], warm: Sequence[Awaitable[None]]) -> None:
    """Wait for all; the first error ends the wait at once."""
    tasks = [asyncio.ensure_future(one) for one in (*known, *warm)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
