"""The life of every window: created, open, strike, closed, determined, settled, each at its moment."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pmkit.clock import Clock
from pmkit.sim.engine import Order
from pmkit.sim.kalshi import messages
from pmkit.sim.kalshi.feed import Feed
from pmkit.sim.kalshi.market import LiveMarket, Stats
from pmkit.sim.kalshi.windows import LENGTH_MS, LONGEST_SETTLEMENT_MS, Calendar, Window, exists
from pmkit.sim.world import World

_STATS_KEPT = 1_000
_PAUSE_SECONDS = 0.1  # wall; how often paused traders look whether they may go on


class Life:
    """Which markets trade now (`live`, by ticker), and what was traded in them and before (`stats`)."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        calendar: Calendar,
        feed: Feed,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        steps_per_wall_second: float,
    ) -> None:
        self.live: dict[str, LiveMarket] = {}
        self.stats: dict[str, Stats] = {}
        self.paused = False
        # Orders that the venue itself takes out of a book; a pause that begins; a result that pays.
        self.on_removed: list[Callable[[list[Order]], object]] = []
        self.on_paused: list[Callable[[], object]] = []
        self.on_settled: list[Callable[[str, str], object]] = []
        self._world = world
        self._clock = clock
        self._calendar = calendar
        self._feed = feed
        self._spawn = spawn
        self._steps = steps_per_wall_second
        # Results that are on their way: a script that puts one off makes it come up again.
        self._telling: dict[Window, set[str]] = {}

    def start(self) -> None:
        """Open the current windows and begin to watch the clock. Needs a running loop."""
        now = self._clock.now_ms()
        close = (now // LENGTH_MS + 1) * LENGTH_MS
        if exists(close):
            for asset in self._world.assets:
                self._open(Window(asset, close))
        self._spawn(self._watch(now), "life of markets")

    def pause(self, paused: bool) -> None:
        """Pause trading, or go on: then every resting order is gone, as when a market is re-activated."""
        if paused == self.paused:
            return
        self.paused = paused
        for live in list(self.live.values()):
            if not paused:
                self._clear(live)
            self._feed.lifecycle(messages.paused(live.ticker, paused))
        if paused:
            for hear in self.on_paused:
                hear()

    def _clear(self, live: LiveMarket) -> None:
        gone = live.engine.cancel_all()
        for hear in self.on_removed:
            hear(gone)

    async def _until(self, ms: int) -> None:
        while (left := ms - self._clock.now_ms()) > 0:
            await self._clock.sleep(left / 1000)

    async def _watch(self, since: int) -> None:
        while True:
            until = since + LENGTH_MS
            for at, _, happen, window in sorted(self._due(since, until), key=lambda event: event[:2]):
                await self._until(at)
                happen(window)
            await self._until(until)
            since = until
            for window in [old for old in self._telling if old.close_ms < since - 2 * LONGEST_SETTLEMENT_MS]:
                del self._telling[window]

    def _due(self, since: int, until: int) -> list[tuple[int, int, Callable[[Window], None], Window]]:
        """What happens in (since, until], with its moment and its place among things of the same moment."""
        calendar = self._calendar
        found: list[tuple[int, int, Callable[[Window], None], Window]] = []
        first = (since - LONGEST_SETTLEMENT_MS) // LENGTH_MS
        for quarter in range(first, calendar.listed_until(until) // LENGTH_MS + 2):
            close = quarter * LENGTH_MS
            if not exists(close):
                continue
            for asset in self._world.assets:
                window = Window(asset, close)
                moments = (
                    (close, self._close),
                    (window.open_ms, self._open),
                    (calendar.strike_ms(window), self._strike),
                    (calendar.determined_ms(window), self._determined),
                    (calendar.settled_ms(window), self._settled),
                    (-(-calendar.created_us(window) // 1000), self._created),
                )
                found += [(at, place, do, window) for place, (at, do) in enumerate(moments) if since < at <= until]
        return found

    def _open(self, window: Window) -> None:
        if self._clock.now_ms() >= window.close_ms:
            return  # the process slept through it
        live = LiveMarket(window, self._world, self._clock, self._feed.changed, lambda: self.paused, self._steps)
        self.live[live.ticker] = live
        self.stats[live.ticker] = live.stats
        while len(self.stats) > _STATS_KEPT:
            del self.stats[next(iter(self.stats))]
        live.traders.fill()
        self._spawn(self._trade(live), f"traders of {live.ticker}")

    async def _trade(self, live: LiveMarket) -> None:
        while self._clock.now_ms() < live.window.close_ms:
            await live.traders.run()
            await self._clock.io_sleep(_PAUSE_SECONDS)

    def _close(self, window: Window) -> None:
        """Trading ends; resting orders are cancelled, which subscribers of the book see as deltas."""
        live = self.live.pop(window.ticker, None)
        if live is not None:
            self._clear(live)

    def _strike(self, window: Window) -> None:
        strike = self._calendar.strike(window)
        if strike is not None:
            self._feed.lifecycle(messages.strike_known(window, strike))

    def _created(self, window: Window) -> None:
        self._feed.lifecycle(messages.event_created(window), "event_lifecycle")
        self._feed.lifecycle(messages.market_created(window))

    def _determined(self, window: Window) -> None:
        if self._first_time(window, "determined"):
            self._spawn(self._tell_determined(window), f"result of {window.ticker}")

    def _settled(self, window: Window) -> None:
        if self._first_time(window, "settled"):
            self._spawn(self._tell_settled(window), f"settlement of {window.ticker}")

    def _first_time(self, window: Window, what: str) -> bool:
        told = self._telling.setdefault(window, set())
        if what in told:
            return False
        told.add(what)
        return True

    async def _tell_determined(self, window: Window) -> None:
        await self._until(self._calendar.determined_ms(window))  # a script may have put it off since
        result = self._calendar.result(window)
        self._feed.lifecycle(messages.determined(window, result, self._clock.now_ms()))

    async def _tell_settled(self, window: Window) -> None:
        await self._until(self._calendar.settled_ms(window))
        self._feed.lifecycle(messages.settled(window, self._calendar.settled_us(window)))
        for hear in self.on_settled:
            hear(window.ticker, self._calendar.result(window))
