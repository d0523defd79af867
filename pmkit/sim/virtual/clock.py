"""The `Clock` of virtual time: moves with the loop, and its date can be stepped on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pmkit.clock import Entropy, LoopClock
from pmkit.sim.virtual.loop import VirtualLoop


class VirtualClock(LoopClock):
    """Time of a `VirtualLoop` (the running one, unless given).

    `start_ms` is the date (epoch ms, UTC) at the moment of construction. Market and I/O time are the same unless
    `factor` says otherwise. Several clocks may stand on one loop: one for the venues and one, a little off, for a bot.
    """

    def __init__(
        self,
        start_ms: int = 1_795_176_000_000,
        entropy: Entropy | None = None,
        *,
        factor: float = 1.0,
        line: VirtualLoop | None = None,
    ) -> None:
        super().__init__(entropy or Entropy(0), factor)
        running = line or asyncio.get_running_loop()
        if not isinstance(running, VirtualLoop):
            raise TypeError(f"a virtual clock stands on a VirtualLoop, not on {type(running).__name__}")
        self._line = running
        self._zero = running.moment
        self._start_ns = start_ms * 1_000_000
        self._told_at, self._told = self._zero, 0  # asked for many times in a moment
        # Code takes no time here: what is measured must not depend on the machine.
        self.perf_ns = lambda: round(running.moment * 1e9)

    def time_ns(self) -> int:
        moment = self._line.moment
        if moment != self._told_at:
            self._told_at, self._told = moment, round((moment - self._zero) * self.factor * 1e9)
        return self._start_ns + self._told

    def io_monotonic(self) -> float:
        return self._line.moment

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return self._line.sleep(seconds / self.factor)

    def io_sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return self._line.sleep(seconds)

    def step_wall(self, seconds: float) -> None:
        """Move the date by that much, not the monotonic time: a corrected clock, or a machine that slept."""
        self._start_ns += round(seconds * 1e9)

    def now_ms(self) -> int:
        moment = self._line.moment
        if moment != self._told_at:
            self._told_at, self._told = moment, round((moment - self._zero) * self.factor * 1e9)
        return (self._start_ns + self._told) // 1_000_000

    def text(self) -> str:
        raise ValueError("a virtual clock cannot travel to another process")

    def __repr__(self) -> str:
        return f"VirtualClock(now_ms={self.now_ms()}, factor={self.factor})"
