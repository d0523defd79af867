"""Books and trades without a socket: polls of Kalshi's public REST.

Books of all wanted markets come in one call about once a second (market time, never faster than four times a wall
second). They are as old as the poll, carry no number or time of their own, and are valid for at most three polls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from pmkit.clock import Clock, Timer
from pmkit.errors import PmkitError, RateLimited
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.book_pair import POLLED
from pmkit.exchanges.kalshi.rest_messages import Depth, DepthsAnswer
from pmkit.exchanges.kalshi.trades import Trades
from pmkit.exchanges.numbers import BookError
from pmkit.http import HttpAnswer, HttpSession
from pmkit.venue_clock import VenueClock

BOOK_SECONDS: Final = 1.0
TRADE_SECONDS: Final = 2.0
MIN_WALL_SECONDS: Final = 0.25
VALID_POLLS: Final = 3
TICKERS_PER_CALL: Final = 100
_MAX_BACKOFF_SECONDS: Final = 8.0
_LOG = logging.getLogger("pmkit.kalshi")


async def read_depths(session: HttpSession, tickers: Sequence[str]) -> tuple[HttpAnswer, dict[str, Depth]]:
    """The books of up to `TICKERS_PER_CALL` markets in one call; markets that the venue leaves out are missing."""
    answer = await session.get("/markets/orderbooks", [("tickers", ticker) for ticker in tickers])
    return answer, {one.ticker: one.orderbook_fp for one in answer.decode(DepthsAnswer).orderbooks}


class Poll:
    """A task that asks again and again: every `seconds` of market time, slower after failures, quicker when woken."""

    def __init__(self, name: str, clock: Clock, seconds: float) -> None:
        self.name = name
        self.failures = 0
        self.polls = 0
        self.error: PmkitError | None = None
        self._clock = clock
        self._seconds = seconds
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def interval(self) -> float:
        """Wall seconds between two polls."""
        return max(self._seconds / self._clock.factor, MIN_WALL_SECONDS)

    def start(self) -> None:
        """Begin to poll. A second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pmkit kalshi {self.name}")

    def wake(self) -> None:
        """Poll soon: something new is wanted."""
        self._wake.set()

    async def close(self) -> None:
        """End. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def poll(self) -> None:
        """One round. Raises PmkitError."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Whether there is nothing to ask for."""
        raise NotImplementedError

    async def _run(self) -> None:
        failed = 0
        while True:
            if self.idle():
                self._wake.clear()
                await self._wake.wait()
                continue
            self._wake.clear()
            begun = self._clock.io_monotonic()
            try:
                await self.poll()
                self.polls += 1
                self.error = None
                failed = 0
            except PmkitError as error:
                self.failures += 1
                failed += 1
                self.error = error
                if failed in (1, 10) or failed % 100 == 0:
                    _LOG.warning("kalshi: a poll of %s failed (%d in a row): %s", self.name, failed, error)
            except Exception as error:
                # A bug of ours must not end the polls silently; the books expire by themselves meanwhile.
                self.failures += 1
                failed += 1
                self.error = PmkitError(f"{type(error).__name__} in a poll of {self.name}")
                _LOG.exception("kalshi: a poll of %s failed", self.name)
            await self._pause(begun, failed)

    async def _pause(self, begun: float, failed: int) -> None:
        """To the next poll. A wake shortens it to the minimum, but not the back-off after failures."""
        clock = self._clock
        passed = clock.io_monotonic() - begun
        if failed:
            wait = min(self.interval * 2 ** min(failed, 6), _MAX_BACKOFF_SECONDS)
            if isinstance(self.error, RateLimited) and self.error.retry_after is not None:
                wait = max(wait, min(self.error.retry_after, 60.0))
            await clock.io_sleep(wait * clock.entropy.uniform(0.8, 1.2))
            return
        await clock.io_sleep(max(0.0, MIN_WALL_SECONDS - passed))
        try:
            async with clock.io_timeout(max(0.0, self.interval - max(passed, MIN_WALL_SECONDS))):
                await self._wake.wait()
        except TimeoutError:
            pass


class BookPoll(Poll):
    """All wanted books in one call. `tickers`: whose; the pairs are those of the feed."""

    def __init__(self, session: HttpSession, clock: Clock, venue_clock: VenueClock, feed: BookFeed) -> None:
        super().__init__("books", clock, BOOK_SECONDS)
        self.tickers: set[str] = set()
        self._session = session
        self._venue_clock = venue_clock
        self._feed = feed
        self._last: dict[str, Depth] = {}
        self._timer: Timer | None = None

    def idle(self) -> bool:
        return not self.tickers

    async def close(self) -> None:
        await super().close()
        if self._timer is not None:
            self._timer.cancel()

    async def poll(self) -> None:
        wanted = sorted(self.tickers)
        for start in range(0, len(wanted), TICKERS_PER_CALL):
            await self._read(wanted[start : start + TICKERS_PER_CALL])
        if self._timer is not None:
            self._timer.cancel()
        # The answer of a poll that hangs must not keep old books valid: the timer runs whatever the poll does.
        self._timer = self._clock.io_call_later(self.interval * VALID_POLLS, self._expire)

    async def _read(self, tickers: list[str]) -> None:
        answer, depth_of = await read_depths(self._session, tickers)
        received_ns = self._clock.time_ns()
        venue_ms = (answer.sent_ms + answer.received_ms) // 2 + self._venue_clock.offset_ms
        for ticker in tickers:
            if ticker in self.tickers:
                self._load(ticker, depth_of.get(ticker), venue_ms, received_ns)

    def _load(self, ticker: str, depth: Depth | None, venue_ms: int, received_ns: int) -> None:
        pair = self._feed.pairs.get(ticker)
        if pair is None:
            return
        if depth is None:
            pair.expire("the venue's answer has no book of it")
            return
        was_live = pair.live and pair.yes.valid
        same = self._last.get(ticker) == depth
        try:
            pair.load(depth.yes_dollars or (), depth.no_dollars or (), venue_ms, received_ns)
        except BookError as error:
            self._feed.refused += 1
            pair.publish()
            _LOG.warning("kalshi: the book of %s cannot be: %s", ticker, error)
            return
        pair.sid = POLLED
        self._last[ticker] = depth
        if not (same and was_live):
            pair.publish()

    def forget(self, ticker: str) -> None:
        """No longer wanted."""
        self.tickers.discard(ticker)
        self._last.pop(ticker, None)

    def _expire(self) -> None:
        why = f": {self.error}" if self.error is not None else ""
        for ticker in sorted(self.tickers):
            pair = self._feed.pairs.get(ticker)
            if pair is not None:
                pair.expire(f"no poll for {self.interval * VALID_POLLS:.2g} s{why}"[:200])


class TradePoll(Poll):
    """The prints of every wanted market, one call each."""

    def __init__(self, clock: Clock, trades: Trades) -> None:
        super().__init__("trades", clock, TRADE_SECONDS)
        self._trades = trades

    def idle(self) -> bool:
        return not self._trades.tickers

    async def poll(self) -> None:
        await self._trades.fill(self._trades.tickers)
