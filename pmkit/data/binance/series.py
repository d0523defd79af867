"""`Series`: the candles of one symbol, with the task that reads over REST what the stream did not bring."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pmkit.clock import Clock
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.join import Added, CandleJoin, Missing
from pmkit.data.binance.types import Candle, KlineEvent, interval_ms
from pmkit.errors import ConfigError, MarketNotFound, PmkitError, ProtocolChanged, RateLimited, RegionBlocked
from pmkit.logging.limits import RateLimitedLog

LATE_WAITS: Final = (0.25, 0.5, 1.0, 2.0)
"""Market seconds between reads while the newest row is not there yet: klines come from a database."""
FAILURES_BEFORE_HOLE: Final = 3
"""Failed reads of one gap (each of several attempts) until live candles go on without it."""
LONGEST_BAN_SECONDS: Final = 30.0
"""Wall seconds in which a gap may wait for the end of a rate limit before that counts as a failed read."""
BAN_MARGIN_SECONDS: Final = 0.05
FAILURE_WAITS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_FINAL = (MarketNotFound, ConfigError, RegionBlocked, ProtocolChanged)

_LOG = logging.getLogger("pmkit.binance")


class Series:
    """One symbol. `publish(series, added)` is called with what entered the buffer after the warm-up."""

    def __init__(
        self,
        symbol: str,
        interval: str,
        size: int,
        fetcher: BinanceFetcher,
        clock: Clock,
        publish: Callable[[Series, Sequence[Added]], None],
    ) -> None:
        self.symbol = symbol
        self.interval = interval
        self.join = CandleJoin(interval_ms(interval), size)
        self.failures = 0
        """Reads over REST that brought no answer."""
        self.trouble = ""
        """Why the last of them failed; empty when all is well."""
        self.warmed: asyncio.Future[None] | None = None
        self._size = size
        self._fetcher = fetcher
        self._clock = clock
        self._publish = publish
        self._wake = asyncio.Event()
        self._limited = RateLimitedLog(_LOG, clock)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Future[None]:
        """Begin to read. The future is done after the warm-up; it raises where that can never succeed."""
        loop = asyncio.get_running_loop()
        self.warmed = loop.create_future()
        self._task = loop.create_task(self._keep(self.warmed), name=f"pmkit candles {self.symbol}")
        return self.warmed

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hear(self, event: KlineEvent, received_ns: int) -> None:
        """One frame of the stream."""
        differing = self.join.stats.differing
        added = self.join.hear(event, received_ns)
        self._compare(differing, event.candle.timestamp)
        if added:
            self._publish(self, added)
        if self.join.missing is not None:
            self._wake.set()

    async def _keep(self, warmed: asyncio.Future[None]) -> None:
        """Read what is missing, whenever something is. Ends only with the feed, or when it cannot start."""
        while True:
            self._wake.clear()
            missing = self.join.missing
            if missing is None:
                await self._wake.wait()
                continue
            try:
                await self._fill(missing)
            except Exception as error:
                if not self.join.warm:
                    if not warmed.done():
                        warmed.set_exception(error)
                    return
                # A gap that cannot be read becomes a hole, so this is a mistake of ours; the feed must not end by it.
                self._limited.error("mistake", "Binance: %s: reading a gap raised", self.symbol, exc_info=error)
                await self._clock.sleep(FAILURE_WAITS[0])
                continue
            if not warmed.done():
                warmed.set_result(None)

    async def _fill(self, missing: Missing) -> None:
        """Read a range until it is whole, or known not to be. Raises where the warm-up can never succeed."""
        failures, waited = 0, 0.0
        late = deque(LATE_WAITS)
        while True:
            try:
                candles = await self._read(missing)
            except Exception as error:
                self._failed(error)
                ban = error.retry_after if isinstance(error, RateLimited) else None
                if ban is not None and waited + ban <= LONGEST_BAN_SECONDS:
                    # The venue said when it will answer: no failure, and sooner there is nothing to ask.
                    waited += ban
                    await self._clock.io_sleep(ban + BAN_MARGIN_SECONDS)
                    missing = self.join.missing or missing
                    continue
                failures += 1
                if isinstance(error, _FINAL) or not isinstance(error, PmkitError):
                    if missing.warm_up:
                        raise
                    failures = FAILURES_BEFORE_HOLE
                if not missing.warm_up and failures >= FAILURES_BEFORE_HOLE:
                    self._enter(missing, [], f"not read: {type(error).__name__}")
                    return
                await self._clock.sleep(FAILURE_WAITS[min(failures, len(FAILURE_WAITS)) - 1])
                # Live candles went on meanwhile: the range may have been cut to what the buffer holds.
                missing = self.join.missing or missing
                continue
            if self.join.complete(missing, candles) or not late:
                self.trouble = ""
                self._enter(missing, candles, "not at the venue")
                return
            await self._clock.sleep(late.popleft())

    async def _read(self, missing: Missing) -> list[Candle]:
        fetcher = self._fetcher
        # The stream spoke of what comes behind: all of the range is closed by construction, whatever a clock says.
        fetcher.note_server_ms(missing.end_ms)
        if missing.warm_up:
            return await fetcher.warm_up(self.symbol, self.interval, self._size, missing.end_ms)
        rows = fetcher.klines(self.symbol, self.interval, missing.start_ms, missing.end_ms)
        return [row.candle() async for row in rows]

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.trouble = f"{type(error).__name__}: {error}"
        unexpected = None if isinstance(error, PmkitError) else error
        message = "Binance: candles of %s are missing: %s"
        self._limited.warning("read", message, self.symbol, self.trouble, exc_info=unexpected)

    def _enter(self, missing: Missing, candles: Sequence[Candle], reason: str) -> None:
        join = self.join
        lost, differing = join.stats.lost, join.stats.differing
        added = join.fill(missing, candles, self._clock.time_ns(), reason)
        if join.stats.lost > lost:
            message = "Binance: %d candles of %s between %d and %d are missing (%s)"
            count = join.stats.lost - lost
            self._limited.warning("hole", message, count, self.symbol, missing.start_ms, missing.end_ms, reason)
        self._compare(differing, missing.start_ms)
        if added:
            self._publish(self, added)

    def _compare(self, differing: int, opened: int) -> None:
        if self.join.stats.differing > differing:
            message = (
                "Binance: a closed candle of %s near %d came again with other values; the first is kept (%d so far)"
            )
            self._limited.warning("differing", message, self.symbol, opened, self.join.stats.differing)
