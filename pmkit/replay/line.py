"""Both ends of a replay of raw frames: what was sent, and what the feed has handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pmkit.clock import Clock, ScaledClock, SystemClock, to_utc
from pmkit.exchanges.orderbook import OrderBook
from pmkit.sim.replay.recording import Recording
from pmkit.sim.replay.server import Replay
from pmkit.websocket.base import BaseWebSocket, SocketStats
from pmkit.websocket.link import K

ALONE_SECONDS = 60.0
LATE_SECONDS = 10.0


class FullSpeedClock(SystemClock):
    """For a replay without pauses. It is dated at the end of the recording and runs at the pace of the wall, so that no
    stamp lies in its future and no book seems crossed for long because its next frame waits in a buffer. Only the waits
    between two connections are cut short.
    """

    def __init__(self, date_ms: int) -> None:
        super().__init__()
        self._offset_ns = date_ms * 1_000_000 - super().time_ns()

    def time_ns(self) -> int:
        return super().time_ns() + self._offset_ns

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 1000)


def clock_of(recording: Recording, speed: float | None) -> Clock:
    """The clock of a replay so many times as fast as it was recorded; None: as fast as the feeds take it."""
    now_ms = SystemClock().now_ms()
    if speed is None:
        return FullSpeedClock(recording.last_ms or now_ms)
    return ScaledClock(now_ms, speed, recording.first_ms or now_ms)


class Connected(Protocol):
    """A socket, or a feed around one."""

    @property
    def connected(self) -> bool: ...


class Line:
    """Both ends of a replay: what was sent, and what the feed has handled. `lost`: frames that never came."""

    def __init__(self, replay: Replay, socket: Connected, stats: SocketStats, clock: Clock) -> None:
        self.replay, self.socket, self.stats, self.clock = replay, socket, stats, clock
        self.lost = 0

    async def played(self) -> None:
        """Wait for the end of the recording. Raises RuntimeError when the two ends cannot find each other."""
        replay, alone = self.replay, 0.0
        while not replay.finished.is_set():
            if replay.failures:
                raise RuntimeError(f"the replay broke: {replay.failures[0]}")
            alone = 0.0 if self.socket.connected else alone + 0.05
            if alone > ALONE_SECONDS:
                raise RuntimeError(f"the feed does not come back ({self.stats.last_reason})")
            try:
                async with self.clock.io_timeout(0.05):
                    await replay.finished.wait()
            except TimeoutError:
                continue
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until the feed has handled what was sent; what a broken connection has swallowed is given up."""
        waited = 0.0
        while self.stats.frames + self.lost < self.replay.out:
            if waited > LATE_SECONDS:
                self.lost = self.replay.out - self.stats.frames
                return
            await self.clock.io_sleep(0.001)
            waited += 0.001

    def totals(self) -> Counter[str]:
        """Frames of the recording that came, and that did not."""
        replay = self.replay
        unsent = max(0, replay.recording.frames - replay.sent)
        lost = max(0, replay.out - self.stats.frames)
        return Counter(
            frames=self.stats.frames - replay.answers, undelivered=unsent + lost, connections=self.stats.connects
        )


class Seen:
    """What was seen of one book; `look` is a sink of its feed. `compare()` is called after each snapshot."""

    def __init__(self, name: str, compare: Callable[[], object]) -> None:
        self.name = name
        self.events = self.snapshots = 0
        self.first_ms = self.last_ms = 0
        self.compare = compare

    def look(self, book: OrderBook) -> None:
        if book.epoch > self.snapshots:
            self.snapshots = book.epoch
            self.compare()
        if book.changes > self.events:
            self.events = book.changes
            if book.venue_ms:
                self.first_ms = self.first_ms or book.venue_ms
                self.last_ms = max(self.last_ms, book.venue_ms)

    def line(self, book: OrderBook) -> str:
        """In words."""
        span = f"{to_utc(self.first_ms):%H:%M:%S} to {to_utc(self.last_ms):%H:%M:%S}" if self.first_ms else "no stamps"
        touch = f"{book.best_bid} x {book.best_bid_size} / {book.best_ask} x {book.best_ask_size}"
        state = "valid" if book.valid else f"invalid: {book.reason}"
        return f"  {self.name:<44} {self.events:>6} changes, {self.snapshots} books, {span}, {touch}, {state}"


async def play(line: Line, socket: BaseWebSocket[K], keys: Sequence[K], at_end: Callable[[], Awaitable[None]]) -> None:
    """Connect a socket that wants these, until all was played."""
    try:
        await socket.start()
        await socket.want(keys)
        if keys:
            await line.played()
            await at_end()
    except BaseException:
        await socket.close()
        raise
