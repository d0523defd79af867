"""`Life`: the part of a bot that starts, ticks, watches its tasks and ends in time. Knows nothing of markets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from pmkit.bot.signals import StopSignals
from pmkit.clock import Clock
from pmkit.errors import ConfigError
from pmkit.wakeup import WakeWatch

MAX_TICK_ERRORS = 20
EXIT_SECONDS = 3.4
"""Wall seconds from the first word of a stop to the end of the last step. The rest of the 5 s that are promised is for
the last rows, for Python's own end, and for a machine that is busy."""
TICK_GRACE_SECONDS = 0.8
BEGIN_GRACE_SECONDS = 1.0
ENDED_GRACE_SECONDS = 0.3
"""For what was cancelled and does not end."""
HOOK_GRACE_SECONDS = 0.5
LEAST_SECONDS = 0.2
"""What a step gets even where those before it have used up its share."""
KEPT_FOR_CLOSING = 0.6
KEPT_FOR_END = 2.0
"""What the earlier steps leave of EXIT_SECONDS to closing, and to `_end` as a whole."""
LOOK_SECONDS = 1.0
LATE_SECONDS = 0.1
SLOW_SECONDS = 5.0
"""Wall seconds: between two looks at the loop, by how much it may be late, and after which a tick or hook is named."""


@dataclass(slots=True)
class BotStats:
    """Counters of one run. `held_up`: how often the event loop was late by over 0.1 s. `sleeps`: how often the machine
    slept, or the process stood still.
    """

    ticks: int = 0
    ticks_skipped: int = 0
    tick_errors: int = 0
    held_up: int = 0
    sleeps: int = 0
    hook_errors: int = 0
    task_errors: int = 0
    rollovers: int = 0
    windows_skipped: int = 0
    settled: int = 0
    fills: int = 0
    foreign_fills: int = 0


class Life:
    """Start, tick, stop. A subclass gives `_begin` (acquire), `_tick` and `_end` (release, always run once)."""

    TICK_SECONDS: ClassVar[float] = 1.0

    def __init__(self, clock: Clock, log: logging.Logger) -> None:
        self.clock = clock
        self.log = log
        self.stats = BotStats()
        self.failure: BaseException | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their making: so they are cancelled
        self._stop_event = asyncio.Event()
        self._exit_by: float | None = None
        self._finished = asyncio.Event()
        self._running = False
        self._in_tick = False
        self._hurry = asyncio.Event()

    async def _begin(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError

    async def _tick(self) -> None:
        """Every TICK_SECONDS."""

    async def start(self) -> None:
        """Connect, run until `stop` or a signal, clean up. Raises what made the start fail, or the failure that ended
        the run. Everything acquired is released in every case.
        """
        if self._running:
            raise ConfigError("this bot is already running")
        self._running = True
        self._stop_event.clear()
        self._exit_by = None
        self._finished.clear()
        signals = StopSignals(self._on_signal)
        try:
            async with AsyncExitStack() as stack:
                signals.install()
                stack.callback(signals.remove)
                stack.push_async_callback(self._leave)
                started = asyncio.ensure_future(self._begin())
                stopping = asyncio.ensure_future(self._stop_event.wait())
                try:
                    await asyncio.wait({started, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if started.done():
                        started.result()
                        await self._run()
                finally:
                    for task in (started, stopping):
                        task.cancel()
                    await asyncio.wait({started, stopping}, timeout=self._share(BEGIN_GRACE_SECONDS, KEPT_FOR_END))
                    if not started.done():
                        self.log.error("the start does not end, though it was cancelled, and was left behind")
                    elif not started.cancelled() and (error := started.exception()) is not None:
                        self.log.debug("the start ended with %s", type(error).__name__)
        finally:
            self._running = False
            self._finished.set()
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        """End the run and wait until it has ended. Safe to call twice and from a hook (then it does not wait)."""
        self._ask_to_stop()
        if self._running and asyncio.current_task() not in self._tasks:
            await self._finished.wait()

    @property
    def hurried(self) -> bool:
        """Whether a second signal made it leave without cancelling orders."""
        return self._hurry.is_set()

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stop_event.is_set()

    async def wait_stopping(self) -> None:
        """Until the end has begun."""
        await self._stop_event.wait()

    def _ask_to_stop(self) -> None:
        if self._exit_by is None:
            self._exit_by = self.clock.io_monotonic() + EXIT_SECONDS
        self._stop_event.set()

    def _share(self, seconds: float, kept: float = 0.0) -> float:
        """What a step of the end may take: that long, less where it would eat into the `kept` seconds of the steps
        after it. A budget of each step alone would add up to more than was promised.
        """
        if self._exit_by is None:  # nobody asked: the start failed
            self._exit_by = self.clock.io_monotonic() + EXIT_SECONDS
        return max(LEAST_SECONDS, min(seconds, self._exit_by - kept - self.clock.io_monotonic()))

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self._ask_to_stop()

    def _on_signal(self, name: str, count: int) -> None:
        if count == 1:
            self.log.info("%s: stopping; once more to leave at once", name)
        else:
            self.log.warning("%s again: leaving without cancelling orders", name)
            self._hurry.set()
        self._ask_to_stop()

    async def _leave(self) -> None:
        background = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in background:
            task.cancel()
        await self._patiently(set(background), self._share(ENDED_GRACE_SECONDS, KEPT_FOR_END))
        await self._end()

    def _resumed(self, seconds: float) -> None:
        """The machine was away for so many wall seconds."""

    async def _look_after(self) -> None:
        """Names what holds the loop up, and notices that the machine slept."""
        watch = WakeWatch(self.clock)
        next_word = 0.0
        while True:
            await self.clock.io_sleep(LOOK_SECONDS)
            lapse = watch.look(LOOK_SECONDS)
            if lapse.slept:
                self.stats.sleeps += 1
                self.log.warning("this machine was away for %.0f s: everything is looked up anew", lapse.missing)
                self._resumed(lapse.missing)
            elif lapse.late > LATE_SECONDS:
                self.stats.held_up += 1
                now = self.clock.io_monotonic()
                if now >= next_word:
                    next_word = now + 60.0
                    self.log.warning(
                        "the event loop was held up for %.2f s (%d times so far): something slow runs in it; "
                        "asyncio.to_thread takes it out",
                        lapse.late, self.stats.held_up,
                    )  # fmt: skip

    async def _run(self) -> None:
        self.spawn(self._look_after(), "loop watch")
        ticker = self.spawn(self._ticks(), "ticks")
        await self._stop_event.wait()
        if self._in_tick:
            await self._patiently({ticker}, self._share(TICK_GRACE_SECONDS, KEPT_FOR_END))
        ticker.cancel()
        await self._patiently({ticker}, self._share(ENDED_GRACE_SECONDS, KEPT_FOR_END))

    async def _ticks(self) -> None:
        due = self.clock.monotonic()
        in_a_row = 0
        while not self._stop_event.is_set():
            self._in_tick = True
            slow = self.clock.io_call_later(SLOW_SECONDS, self._is_slow, "a tick")
            try:
                await self._tick()
                in_a_row = 0
            except Exception as error:
                in_a_row += 1
                self.stats.tick_errors += 1
                self.log.exception("a tick raised (%d in a row)", in_a_row)
                if in_a_row >= MAX_TICK_ERRORS:
                    self.log.error("%d ticks in a row raised: the bot stops", in_a_row)
                    self._fail(error)
            finally:
                self._in_tick = False
                slow.cancel()
            self.stats.ticks += 1
            due += self.TICK_SECONDS
            late = self.clock.monotonic() - due
            if late > 0:
                missed = int(late // self.TICK_SECONDS) if self.TICK_SECONDS > 0 else 0
                self.stats.ticks_skipped += missed
                due += missed * self.TICK_SECONDS
            await self.clock.sleep(max(0.0, due - self.clock.monotonic()))

    def _is_slow(self, what: str) -> None:
        self.log.warning("%s has been running for %g s of wall time", what, SLOW_SECONDS)

    async def _hook(self, name: str, hook: Awaitable[None]) -> None:
        slow = self.clock.io_call_later(SLOW_SECONDS, self._is_slow, name)
        try:
            await hook
        except Exception:
            self.stats.hook_errors += 1
            self.log.exception("%s raised", name)
        finally:
            slow.cancel()

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str = "task", critical: bool = True) -> asyncio.Task[Any]:
        """Run a coroutine beside the bot, kept referenced and watched. Its death by an exception is logged, counted
        and, when `critical`, stops the bot. Cancelled at exit.
        """
        task = asyncio.get_running_loop().create_task(coro, name=f"{type(self).__name__} {name}")
        self._tasks[task] = None

        def ended(done: asyncio.Task[Any]) -> None:
            self._tasks.pop(done, None)
            if done.cancelled() or (error := done.exception()) is None:
                return
            self.stats.task_errors += 1
            self.log.error("task %r died%s", name, "; the bot stops" if critical else "", exc_info=error)
            if critical:
                self._fail(error)

        task.add_done_callback(ended)
        return task

    async def _patiently(self, tasks: set[asyncio.Task[Any]], seconds: float) -> None:
        """Wait for tasks, no longer than that and no longer than until a second signal."""
        if not tasks:
            return
        waiters: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(self._hurry.wait()),
            asyncio.ensure_future(asyncio.wait(tasks)),
        }
        await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)

    async def _bounded(
        self,
        what: str,
        step: Coroutine[Any, Any, None],
        seconds: float,
        *,
        kept: float = 0.0,
        in_any_hurry: bool = False,
    ) -> None:
        """One step of the end, with its share of the exit budget; nothing that goes wrong in it stops the next. A
        second signal ends it at once, unless it is done `in_any_hurry`. `kept`: as in `_share`.
        """
        seconds = self._share(seconds, kept)
        task = asyncio.ensure_future(step)
        if in_any_hurry:
            await asyncio.wait({task}, timeout=seconds)
        else:
            await self._patiently({task}, seconds)
        if not task.done():
            if self.hurried and not in_any_hurry:
                self.log.warning("%s was given up", what)
            else:
                self.log.error("%s took longer than %.1f s and was given up", what, seconds)
            task.cancel()
            await asyncio.wait({task}, timeout=LEAST_SECONDS)
        elif not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("%s failed", what, exc_info=error)
