"""`Subscription`: how events reach a strategy.

A plain callback runs inline in the reader; taking over 5 ms for the events of one message is counted. An async callback
runs in a task of its own behind a bounded buffer. Without a callback the subscription is read with `async for`. Every
buffer has a bound and a policy:

* CONFLATE: only the latest event per key (books, prices);
* DROP_OLDEST: the oldest go, counted (public trades);
* NEVER_DROP: on overflow nothing more is buffered, the overflow is reported and, once the reader has caught up, the
  source refills what was missed over REST (fills, orders). An event is delivered once per key.

A callback that raises is logged and counted and never ends the stream.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Self, TypeVar

from pmkit.clock import Clock

T = TypeVar("T")

SLOW_CALLBACK_NS = 5_000_000
_LOG = logging.getLogger("pmkit.streams")
_LOG_EVERY_SECONDS = 10.0
_CLOSE_SECONDS = 0.5


class Policy(Enum):
    """What a full buffer does."""

    CONFLATE = auto()
    DROP_OLDEST = auto()
    NEVER_DROP = auto()


@dataclass(slots=True)
class StreamStats:
    """Counters of one subscription. `gaps` counts overflows of a NEVER_DROP buffer that were refilled."""

    published: int = 0
    delivered: int = 0
    conflated: int = 0
    dropped: int = 0
    gaps: int = 0
    slow: int = 0
    errors: int = 0


class Subscription(Generic[T]):
    """A stream of events with one consumer: a callback, or `async for event in subscription`.

    `publish` and `publish_all` are the source's side. `close` ends it; pending events of an `async for` are still
    delivered.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        callback: Callable[[T], Any] | None = None,
        policy: Policy = Policy.DROP_OLDEST,
        limit: int = 10_000,
        key: Callable[[T], Hashable] = id,
        on_close: Callable[[Subscription[T]], Awaitable[None] | None] | None = None,
        refill: Callable[[], Awaitable[Iterable[T]]] | None = None,
    ) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"{name}: the callback is a {type(callback).__name__}, which cannot be called")
        if policy is Policy.NEVER_DROP and (refill is None or key is id):
            raise ValueError(f"{name}: a stream that never drops needs a way to refill what overflowed, and a key")
        self.name = name
        self.stats = StreamStats()
        self.closed = False
        self._clock = clock
        self._policy = policy
        self._limit = limit
        self._key = key
        self._on_close = on_close
        self._refill = refill
        self._latest: OrderedDict[Hashable, T] = OrderedDict()
        self._buffer: deque[T] = deque()
        self._overflowed = False
        self._accepted: OrderedDict[Hashable, None] = OrderedDict()
        self._ready = asyncio.Event()
        self._next_log = 0.0
        self._task: asyncio.Task[None] | None = None
        self.publish_all: Callable[[Collection[T]], None] = self._all_to_buffer
        """Hand over the events of one message. Called by the source, on the loop; never raises what the consumer
        raised."""
        self._inline = False
        if callback is not None:
            if _is_async(callback):
                self._task = asyncio.get_running_loop().create_task(self._drain(callback), name=f"pmkit {name}")
            else:
                self._inline = True
                self.publish_all = self._to_callback(callback)

    def publish(self, event: T) -> None:
        """Hand over one event: see `publish_all`."""
        self.publish_all((event,))

    def _to_callback(self, callback: Callable[[T], Any]) -> Callable[[Collection[T]], None]:
        """`publish_all` for a plain callback. Feeds call it for every frame, so what it needs is bound once, and the
        clock is read twice for a message and not for an event: a tenth of the time of a Kalshi frame."""
        stats, perf_ns, isawaitable = self.stats, self._clock.perf_ns, inspect.isawaitable

        def publish_all(events: Collection[T]) -> None:
            done = failed = 0
            begin = perf_ns()
            for event in events:
                if self.closed:
                    break
                done += 1
                try:
                    outcome = callback(event)
                    if outcome is not None and isawaitable(outcome):
                        _refuse(outcome)
                except Exception as error:
                    failed += 1
                    self._failed(error)
            if perf_ns() - begin > SLOW_CALLBACK_NS:
                stats.slow += 1
            stats.published += done
            stats.delivered += done - failed

        return publish_all

    def _all_to_buffer(self, events: Collection[T]) -> None:
        """`publish_all` for an async callback and for `async for`."""
        for event in events:
            self._to_buffer(event)

    def _to_buffer(self, event: T) -> None:
        if self.closed:
            return
        stats = self.stats
        stats.published += 1
        if self._policy is Policy.CONFLATE:
            key = self._key(event)
            if key in self._latest:
                stats.conflated += 1
            self._latest[key] = event
        elif self._policy is Policy.NEVER_DROP:
            if self._key(event) in self._accepted:
                stats.conflated += 1
            elif self._overflowed or len(self._buffer) >= self._limit:
                if not self._overflowed:
                    self._overflowed = True
                    stats.gaps += 1
                    _LOG.error(
                        "%s: the reader is %d events behind; the rest is read again over REST", self.name, self._limit
                    )
            else:
                self._accept(event)
                self._buffer.append(event)
        else:
            if len(self._buffer) >= self._limit:
                self._buffer.popleft()
                stats.dropped += 1
            self._buffer.append(event)
        self._ready.set()

    @property
    def pending(self) -> int:
        """Events that wait for their reader."""
        return len(self._latest) + len(self._buffer)

    async def _take(self) -> T | None:
        """The next event, or None when the stream is closed and empty."""
        while True:
            if self._latest:
                return self._latest.popitem(last=False)[1]
            if self._buffer:
                return self._buffer.popleft()
            if self._overflowed and self._refill is not None and not self.closed:
                await self._catch_up(self._refill)
                continue
            if self.closed:
                return None
            self._ready.clear()
            await self._ready.wait()

    def _accept(self, event: T) -> None:
        self._accepted[self._key(event)] = None
        while len(self._accepted) > 10 * self._limit:
            self._accepted.popitem(last=False)

    async def _catch_up(self, refill: Callable[[], Awaitable[Iterable[T]]]) -> None:
        # Buffering starts again before the refill is asked for, so that nothing falls between; keys keep each event
        # single.
        self._overflowed = False
        try:
            missed = list(await refill())
        except Exception as error:
            self._overflowed = True
            self._failed(error)
            await self._clock.sleep(1.0)
            return
        except BaseException:
            self._overflowed = True  # a reader that gave up waiting (wait_for, say) may come back
            raise
        fresh: list[T] = []
        for event in missed:
            if self._key(event) not in self._accepted:
                self._accept(event)
                fresh.append(event)
        self._buffer.extendleft(reversed(fresh))

    async def _drain(self, callback: Callable[[T], Awaitable[None]]) -> None:
        while not self.closed and (event := await self._take()) is not None:
            try:
                await callback(event)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._failed(error)  # nobody cancels us: the callback awaited something that was cancelled
            except Exception as error:
                self._failed(error)
            else:
                self.stats.delivered += 1

    def _failed(self, error: BaseException) -> None:
        self.stats.errors += 1
        now = self._clock.io_monotonic()
        if now >= self._next_log:
            self._next_log = now + _LOG_EVERY_SECONDS
            _LOG.error("%s: a consumer raised (%d so far)", self.name, self.stats.errors, exc_info=error)

    def __aiter__(self) -> Self:
        if self._inline or self._task is not None:
            raise RuntimeError(f"{self.name} delivers to a callback: subscribe without one to read it with async for")
        return self

    async def __anext__(self) -> T:
        event = await self._take()
        if event is None:
            raise StopAsyncIteration
        self.stats.delivered += 1
        return event

    async def close(self) -> None:
        """End the stream: no callback begins any more. May be called twice, also from its own callback."""
        if self.closed:
            return
        self.closed = True
        self._ready.set()
        task = self._task
        try:
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
                if not task.done():
                    _LOG.error("%s: a callback does not end when it is cancelled", self.name)
        finally:
            if self._on_close is not None:
                outcome = self._on_close(self)
                if outcome is not None:
                    await outcome


def _refuse(outcome: Any) -> None:
    if inspect.iscoroutine(outcome):
        outcome.close()
    raise TypeError("a plain callback returned something to be awaited, which nobody awaits: make it an `async def`")


def _is_async(callback: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))
