"""What changes in a market while it is followed: status, close time, strike, result, grid and fees.

The clock opens and closes windows without any message of the venue. Strike and result come from the lifecycle channel
where there is a socket, and in any case from reads: after the open until the strike is there, after the close until the
market is finalized.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import MarketNotFound, PmkitError
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.messages import EventFeeFrame, Lifecycle, LifecycleFrame
from pmkit.exchanges.kalshi.types import KalshiMarket, RowError, with_event
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import MarketStatus
from pmkit.streams import Subscription
from pmkit.venue_clock import VenueClock

QUICK_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Market seconds between two reads while something is due; the last one repeats."""
PUSHED_SECONDS: Final = (5.0, 5.0, 10.0, 15.0)
"""The same where the socket should bring it first."""
STEADY_SECONDS: Final = 30.0
MIN_WALL_SECONDS: Final = 0.25
STEADY_WALL_SECONDS: Final = 2.0
LINGER_MS: Final = 3_600_000
"""How long a closed market that nobody reads any more is followed for its result."""
_LOG = logging.getLogger("pmkit.kalshi")


class _Followed:
    __slots__ = ("due", "market", "phase", "refs", "step")

    def __init__(self, market: KalshiMarket) -> None:
        self.market = market
        self.refs = 0
        self.phase = ""
        self.step = 0
        self.due = 0.0


class MarketWatch:
    """Follows markets for the subscribers of `subscribe_markets`. `changed(old, new)` is called for every change.

    `pushed`: the socket brings lifecycle events, so reads are only the safety net.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        clock: Clock,
        venue_clock: VenueClock,
        *,
        pushed: bool,
        changed: Callable[[KalshiMarket, KalshiMarket], object],
    ) -> None:
        self.subscriptions: list[Subscription[Market]] = []
        self.failures = 0
        self.odd = 0
        self._catalogue = catalogue
        self._clock = clock
        self._venue_clock = venue_clock
        self._pushed = pushed
        self._changed = changed
        self._followed: dict[str, _Followed] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. A second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pmkit kalshi markets")
        self._wake.set()

    async def close(self) -> None:
        """End. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def follow(self, market: KalshiMarket) -> None:
        """One more reason to follow this market."""
        one = self._followed.get(market.ticker)
        if one is None:
            one = self._followed[market.ticker] = _Followed(self._catalogue.markets.get(market.ticker, market))
        one.refs += 1
        self._wake.set()

    def unfollow(self, ticker: str) -> None:
        """One reason less. A market that has closed is followed on until its result is there."""
        one = self._followed.get(ticker)
        if one is not None:
            one.refs -= 1
            self._prune()

    def _prune(self) -> None:
        now = self._venue_clock.now_ms()
        for ticker, one in tuple(self._followed.items()):
            market = one.market
            awaited = market.close_ms <= now < market.close_ms + LINGER_MS and market.payouts is None
            if one.refs <= 0 and not (awaited and self.subscriptions):
                del self._followed[ticker]

    def on_event(self, frame: LifecycleFrame | EventFeeFrame) -> None:
        """News of the lifecycle channel, which brings those of every market of the exchange."""
        if isinstance(frame, EventFeeFrame):
            try:
                market = self._catalogue.override_fees(frame.msg)
            except PmkitError as error:
                self._odd(error)
                return
            if market is not None:
                self.put(market)
            return
        self._lifecycle(frame.msg)

    def _lifecycle(self, event: Lifecycle) -> None:
        known = self._catalogue.markets.get(event.market_ticker)
        if known is None:
            one = self._followed.get(event.market_ticker)
            if one is None:
                return
            known = one.market
        try:
            self.put(with_event(known, event, self._venue_clock.now_ms()))
        except RowError as error:
            self._odd(error)

    def put(self, market: KalshiMarket) -> None:
        """The newest state of a market, from wherever it came."""
        self._catalogue.remember(market)
        one = self._followed.get(market.ticker)
        if one is None:
            return
        old, one.market = one.market, market
        if old is market or _same(old, market):
            return
        self._changed(old, market)
        for subscription in tuple(self.subscriptions):
            subscription.publish(market)

    def refresh(self) -> None:
        """Something may have been missed: read every followed market soon."""
        for one in self._followed.values():
            one.due = 0.0
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait = await self._round()
            except Exception:
                self.failures += 1
                _LOG.exception("kalshi: following the markets failed")
                wait = STEADY_SECONDS
            try:
                async with self._clock.io_timeout(max(wait, 0.02)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _round(self) -> float:
        """Let the clock have its way, read what is due; returns the wall seconds until there is more to do."""
        self._prune()
        wait = 10.0
        for one in tuple(self._followed.values()):
            now = self._venue_clock.now_ms()
            newest = self._catalogue.markets.get(one.market.ticker, one.market)
            self.put(newest.at(now))
            market = one.market
            if market.payouts is not None:
                continue
            for edge in (market.open_ms, market.close_ms):
                if edge > now:
                    wait = min(wait, (edge - now) / 1000 / self._clock.factor)
            wait = min(wait, await self._read_if_due(one))
        return wait

    async def _read_if_due(self, one: _Followed) -> float:
        market, clock = one.market, self._clock
        phase = "steady"
        if market.status is MarketStatus.CLOSED:
            phase = "result"
        elif market.status is MarketStatus.OPEN and market.strike is None:
            phase = "strike"
        if phase != one.phase:
            one.phase, one.step = phase, 0
            one.due = clock.io_monotonic() + self._delay(one)
        left = one.due - clock.io_monotonic()
        if left > 0:
            return left
        one.step += 1
        one.due = clock.io_monotonic() + self._delay(one)
        try:
            self.put(await self._catalogue.market(market.ticker))
        except MarketNotFound:
            self._catalogue.forget(market.ticker)  # a provisional market may vanish; new ones answer 404 for a moment
        except PmkitError as error:
            self.failures += 1
            if self.failures in (1, 10) or self.failures % 100 == 0:
                _LOG.warning("kalshi: reading a market failed (%d so far): %s", self.failures, error)
        return one.due - clock.io_monotonic()

    def _delay(self, one: _Followed) -> float:
        if one.phase == "steady":
            return max(STEADY_SECONDS / self._clock.factor, STEADY_WALL_SECONDS)
        steps = PUSHED_SECONDS if self._pushed else QUICK_SECONDS
        return max(steps[min(one.step, len(steps) - 1)] / self._clock.factor, MIN_WALL_SECONDS)

    def _odd(self, error: Exception) -> None:
        self.odd += 1
        if self.odd in (1, 10, 100) or self.odd % 1000 == 0:
            _LOG.warning("kalshi: market news was left out (%s; %d so far)", error, self.odd)


def _same(old: KalshiMarket, new: KalshiMarket) -> bool:
    return (
        old.status is new.status
        and old.close_ms == new.close_ms
        and old.strike == new.strike
        and old.payouts == new.payouts
        and old.result == new.result
        and old.grid == new.grid
        and old.fees == new.fees
    )
