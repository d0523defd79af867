"""All time and all randomness of pmkit.

Two kinds of durations:

* **market time**: windows, ticks, candles, backoff, data deadlines, venue delays, expiry. `sleep`, `timeout`,
  `call_later`, `now_ms`, `monotonic`. A `ScaledClock` makes it pass faster than the wall does.
* **I/O time**: connect, read and close timeouts, pings, the exit budget. `io_sleep`, `io_timeout`, `io_call_later`,
  `io_monotonic`. Never scaled.

A data deadline is market time, but never below one second of wall time: `Clock.deadline`.

Everything else in pmkit takes a `Clock`; a lint refuses `time`, `random`, `secrets`, `uuid4` and the timing calls of
asyncio outside this file, so that a test can move time and a seed can repeat a run.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

_T = TypeVar("_T")

MIN_DEADLINE_SECONDS = 1.0


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


_UUID_4 = 0x4 << 76 | 0x2 << 62
_UUID_RANDOM = ~(0xF << 76 | 0x3 << 62)


class Entropy:
    """Random numbers, UUIDs and salts. Without a seed they come from the operating system; with one they repeat."""

    __slots__ = ("_random", "randbits", "seeded")

    def __init__(self, seed: int | str | None = None) -> None:
        self.seeded = seed is not None
        self._random: random.Random = secrets.SystemRandom() if seed is None else random.Random(seed)
        self.randbits: Callable[[int], int] = self._random.getrandbits
        """An int of that many random bits."""

    def random(self) -> float:
        """A float in [0, 1)."""
        return self._random.random()

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def randint(self, low: int, high: int) -> int:
        """An int in [low, high], both ends included."""
        return self._random.randint(low, high)

    def gauss(self, mean: float, deviation: float) -> float:
        return self._random.gauss(mean, deviation)

    def choice(self, items: Sequence[_T]) -> _T:
        return self._random.choice(items)

    def uuid4(self) -> str:
        """A version-4 UUID in its canonical text form."""
        return uuid4_of(self.randbits(128))


def uuid4_of(bits: int) -> str:
    """128 random bits as a version-4 UUID in its canonical text form."""
    # By hand, since uuid.UUID takes four times as long and every order has one.
    text = f"{bits & _UUID_RANDOM | _UUID_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def to_utc(ms: int) -> datetime:
    """Epoch milliseconds as an aware UTC datetime, exact to the millisecond."""
    return datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)


def to_ms(moment: datetime) -> int:
    """An aware datetime as epoch milliseconds (floored). Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place in time: give it a zone, e.g. datetime(..., tzinfo=UTC)")
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1000 + moment.microsecond // 1000


class Clock(ABC):
    """Time and entropy. See the module docstring for market time and I/O time."""

    factor: float = 1.0
    entropy: Entropy
    perf_ns: Callable[[], int] = staticmethod(time.perf_counter_ns)
    """A high-resolution counter for measuring how long code takes. Not related to any date. The builtin itself: it is
    read twice for every event of every stream."""

    @abstractmethod
    def time_ns(self) -> int:
        """Market time as epoch nanoseconds (UTC). May step with the system's wall clock."""

    @abstractmethod
    def monotonic(self) -> float:
        """Market seconds that never go back."""

    @abstractmethod
    def io_monotonic(self) -> float:
        """Wall seconds that never go back."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep market seconds."""

    @abstractmethod
    async def io_sleep(self, seconds: float) -> None:
        """Sleep wall seconds."""

    @abstractmethod
    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """`async with` that raises TimeoutError after market seconds; None never ends."""

    @abstractmethod
    def io_timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """`async with` that raises TimeoutError after wall seconds; None never ends."""

    @abstractmethod
    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back after market seconds. Needs a running loop."""

    @abstractmethod
    def io_call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back after wall seconds. Needs a running loop."""

    @abstractmethod
    def text(self) -> str:
        """The form that travels in `Endpoints`, so that another process tells the same market time."""

    def now_ms(self) -> int:
        """Market time as epoch milliseconds (UTC)."""
        return self.time_ns() // 1_000_000

    def now(self) -> datetime:
        """Market time as an aware UTC datetime."""
        return to_utc(self.now_ms())

    def deadline(self, seconds: float) -> float:
        """A data deadline given in market seconds, as **wall** seconds: scaled, but never below one second."""
        return max(MIN_DEADLINE_SECONDS, seconds / self.factor)


class LoopClock(Clock):
    """A clock whose timers are those of the running asyncio loop."""

    def __init__(self, entropy: Entropy | None, factor: float = 1.0) -> None:
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(f"a clock factor must be a number above 0, not {factor!r}")
        self.factor = float(factor)
        self.entropy = entropy or Entropy()

    def monotonic(self) -> float:
        return self.io_monotonic() * self.factor

    def io_monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.factor)

    async def io_sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        return asyncio.timeout(None if seconds is None else seconds / self.factor)

    def io_timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        return self.io_call_later(seconds / self.factor, callback, *args)

    def io_call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, seconds), callback, *args)


class SystemClock(LoopClock):
    """The machine's own time: market time is wall time."""

    def __init__(self, entropy: Entropy | None = None) -> None:
        super().__init__(entropy)

    # The builtins themselves: an order alone reads them ten times.
    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)
    io_monotonic = staticmethod(time.monotonic)

    def text(self) -> str:
        return "system"

    def __repr__(self) -> str:
        return "SystemClock()"


class ScaledClock(LoopClock):
    """Market time that runs `factor` times as fast as the wall.

    `anchor` is the wall moment (epoch ms or aware datetime) at which market time is `market_anchor` (the same moment by
    default). With factor 45 a 15-minute market passes in 20 s.
    """

    def __init__(
        self,
        anchor: int | datetime,
        factor: float,
        market_anchor: int | datetime | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        super().__init__(entropy, factor)
        self.anchor_ms = anchor if isinstance(anchor, int) else to_ms(anchor)
        if market_anchor is None:
            market_anchor = self.anchor_ms
        self.market_anchor_ms = market_anchor if isinstance(market_anchor, int) else to_ms(market_anchor)

    def time_ns(self) -> int:
        elapsed = time.time_ns() - self.anchor_ms * 1_000_000
        return self.market_anchor_ms * 1_000_000 + round(elapsed * self.factor)

    def text(self) -> str:
        return f"scaled:{self.anchor_ms}:{self.market_anchor_ms}:{self.factor!r}"

    def __repr__(self) -> str:
        return f"ScaledClock({self.anchor_ms}, {self.factor}, {self.market_anchor_ms})"


def clock_from_text(text: str, entropy: Entropy | None = None) -> Clock:
    """The inverse of `Clock.text`. Raises ValueError for any other text."""
    if text == "system":
        return SystemClock(entropy)
    parts = text.split(":")
    if len(parts) == 4 and parts[0] == "scaled":
        return ScaledClock(int(parts[1]), float(parts[3]), int(parts[2]), entropy)
    raise ValueError(f"not a clock: {text!r} (expected 'system' or 'scaled:WALL_MS:MARKET_MS:FACTOR')")


class _ManualTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _ManualTimeout:
    """What asyncio.timeout is, on a clock that tests move."""

    def __init__(self, clock: ManualClock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._timer: Timer | asyncio.Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._expired = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a timeout needs a running task")
        self._cancelling = self._task.cancelling()
        if self._seconds is not None and self._seconds <= 0:
            self._timer = asyncio.get_running_loop().call_soon(self._expire)  # no time has to pass for that
        elif self._seconds is not None:
            self._timer = self._clock.call_later(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class ManualClock(Clock):
    """A clock for tests: nothing passes until `advance` is awaited. Market and I/O time are the same here.

    `step_wall` moves the date without moving the monotonic time, as an operating system does when it corrects its
    clock, or when it slept and its monotonic time stood still; `doze` moves both.
    """

    def __init__(self, start_ms: int = 1_795_176_000_000, entropy: Entropy | None = None) -> None:
        self._elapsed = 0.0
        self._start_ns = start_ms * 1_000_000
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._sequence = 0
        self.entropy = entropy or Entropy(0)

    def time_ns(self) -> int:
        return self._start_ns + round(self._elapsed * 1e9)

    def monotonic(self) -> float:
        return self._elapsed

    def io_monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    async def io_sleep(self, seconds: float) -> None:
        await self.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        return _ManualTimeout(self, seconds)

    def io_timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        return _ManualTimeout(self, seconds)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = _ManualTimer(lambda: callback(*args))
        self._sequence += 1
        heapq.heappush(self._timers, (self._elapsed + max(0.0, seconds), self._sequence, timer))
        return timer

    def io_call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        return self.call_later(seconds, callback, *args)

    def text(self) -> str:
        raise ValueError("a manual clock cannot travel to another process")

    def step_wall(self, seconds: float) -> None:
        """Move the date, not the monotonic time."""
        self._start_ns += round(seconds * 1e9)

    def doze(self, seconds: float) -> None:
        """All time moves at once, and nothing that was due in between has run: a machine that slept."""
        self._elapsed += seconds

    async def settle(self, rounds: int = 25) -> None:
        """Let everything that is ready run, without moving time."""
        for _ in range(rounds):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Move time forward, firing timers in order and letting tasks run after each."""
        target = self._elapsed + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= target:
            when, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            self._elapsed = max(self._elapsed, when)
            timer.callback()
            await self.settle()
        self._elapsed = target
        await self.settle()

    @property
    def pending(self) -> int:
        """Timers that have neither fired nor been cancelled."""
        return sum(not timer.cancelled for _, _, timer in self._timers)
