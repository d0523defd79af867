"""`CandleJoin`: live candles and REST rows of one symbol become one unbroken series. No I/O, no clock, no logging.

The rule: whatever the stream speaks of proves that everything before it is closed. So the first frame says up to where
the warm-up reads, and a frame that does not follow the last candle names the range that is missing; newer candles wait,
in order, until that range was read. What the venue does not have becomes a `Hole`; no row is made up.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from pmkit.data.binance.buffer import CandleBuffer
from pmkit.data.binance.types import Candle, Hole, KlineEvent

MAX_HOLES: Final = 1_000


class Missing(msgspec.Struct, frozen=True):
    """Candles to read over REST: `start_ms` <= open time < `end_ms`. `warm_up`: the last ones before `end_ms`, however
    far back. All of them are closed.
    """

    start_ms: int
    end_ms: int
    warm_up: bool


class JoinStats(msgspec.Struct):
    """Counters of one series. `differing`: the same candle came with other values; the first was kept. `late`: it came
    after its place was passed (a hole, or older than the buffer). `lost`: candles that became holes.
    """

    live: int = 0
    filled: int = 0
    duplicates: int = 0
    differing: int = 0
    late: int = 0
    lost: int = 0


class Added(msgspec.Struct, frozen=True, gc=False):
    """A candle that entered the buffer after the warm-up; `event` is its frame, None when it came over REST."""

    candle: Candle
    event: KlineEvent | None
    received_ns: int


class CandleJoin:
    """The series of one symbol: `buffer` plus what waits to enter it."""

    def __init__(self, length: int, size: int) -> None:
        self.buffer = CandleBuffer(size)
        self.forming: Candle | None = None
        """The candle that is not closed yet, as last heard of."""
        self.holes: deque[Hole] = deque(maxlen=MAX_HOLES)
        self.stats = JoinStats()
        self._length = length
        self._size = size
        # Closed candles that wait for a range to be read, by open time.
        self._held: dict[int, Added] = {}
        self._order: list[int] = []
        # Every candle that opens before the edge is closed; every one before `_next` is in the buffer or in a hole.
        self._edge: int | None = None
        self._next: int | None = None

    @property
    def warm(self) -> bool:
        """The warm-up was read."""
        return self._next is not None

    @property
    def held(self) -> int:
        """Live candles that wait for a range to be read."""
        return len(self._order)

    def hear(self, event: KlineEvent, received_ns: int) -> list[Added]:
        """One frame of the stream. Returns what entered the buffer, oldest first; look at `missing` afterwards."""
        opened = event.candle.timestamp
        if self._edge is None or opened > self._edge:
            self._edge = opened
        if not event.closed:
            if self._next is None or opened >= self._next:
                self.forming = event.candle
            return []
        self._edge = max(self._edge, opened + self._length)
        if self.forming is not None and self.forming.timestamp <= opened:
            self.forming = None
        self.stats.live += 1
        if self._next is not None and opened < self._next:
            self._again(event.candle, self.buffer.find(opened))
        elif opened in self._held:
            self._again(event.candle, self._held[opened].candle)
        else:
            self._held[opened] = Added(event.candle, event, received_ns)
            insort(self._order, opened)
            if len(self._order) > self._size:
                # The buffer could not keep it: the missing range grows by it, and is cut to size.
                del self._held[self._order.pop(0)]
        return self._drain()

    def _again(self, candle: Candle, known: Candle | None) -> None:
        if known is None:
            self.stats.late += 1
        elif known == candle:
            self.stats.duplicates += 1
        else:
            self.stats.differing += 1

    def _drain(self) -> list[Added]:
        """Move what is next from the waiting candles to the buffer."""
        added: list[Added] = []
        while self._next is not None and self._order and self._order[0] == self._next:
            waiting = self._held.pop(self._order.pop(0))
            self.buffer.append(waiting.candle)
            self._next += self._length
            added.append(waiting)
        return added

    @property
    def missing(self) -> Missing | None:
        """What must be read over REST next; None when the series is whole up to what was heard."""
        if self._edge is None:
            return None
        end = self._order[0] if self._order else self._edge
        oldest = end - self._size * self._length
        if self._next is None:
            return Missing(oldest, end, True)
        return Missing(max(self._next, oldest), end, False) if self._next < end else None

    def complete(self, missing: Missing, candles: Sequence[Candle]) -> bool:
        """Whether rows leave nothing open that a later read may still bring: the newest one comes late at times."""
        if not candles or candles[-1].timestamp != missing.end_ms - self._length:
            return False
        return missing.warm_up or len(candles) >= (missing.end_ms - missing.start_ms) // self._length

    def fill(self, missing: Missing, candles: Sequence[Candle], received_ns: int, reason: str) -> list[Added]:
        """Enter what REST had for a range; what it had not becomes a hole with that reason. Returns what entered the
        buffer, oldest first, without the rows of the warm-up.
        """
        following = self._next
        if following is not None and following < missing.start_ms:
            self._hole(following, missing.start_ms, "longer than the buffer: not read")
            following = missing.start_ms
        rows = {candle.timestamp: Added(candle, None, received_ns) for candle in candles}
        while self._order and self._order[0] < missing.end_ms:
            # It came live after all, while REST was asked.
            waiting = self._held.pop(self._order.pop(0))
            if waiting.candle.timestamp in rows:
                self._again(waiting.candle, rows[waiting.candle.timestamp].candle)
            else:
                rows[waiting.candle.timestamp] = waiting
        added: list[Added] = []
        last = self.buffer.last_ms
        for opened in sorted(rows):
            if opened >= missing.end_ms:
                break
            if last is not None and opened <= last:
                self._again(rows[opened].candle, self.buffer.find(opened))
                continue
            if following is not None and opened > following:
                self._hole(following, opened, reason)
            self.buffer.append(rows[opened].candle)
            added.append(rows[opened])
            last = opened
            following = opened + self._length
        self._hole(missing.start_ms if following is None else following, missing.end_ms, reason)
        self._next = missing.end_ms if self._next is None else max(self._next, missing.end_ms)
        if self.forming is not None and self.forming.timestamp < self._next:
            self.forming = None
        if missing.warm_up:
            added = []
        self.stats.filled += sum(entry.event is None for entry in added)
        return added + self._drain()

    def _hole(self, start: int, end: int, reason: str) -> None:
        count = -(-(end - start) // self._length)
        if count > 0:
            self.stats.lost += count
            self.holes.append(Hole(start, start + (count - 1) * self._length, count, reason))
