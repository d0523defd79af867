"""What of a symbol's past the World does not make: recorded days, outages, candles off the grid.

It is true everywhere at once: over REST, in bulk files and on the sockets. What only one of them shows (a short file, a
row that comes late) is a fault and has its place in `faults`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pmkit.errors import ConfigError
from pmkit.sim.binance.intervals import DAY, LENGTHS, SECOND
from pmkit.sim.binance.recorded import DAY_SECONDS, RecordedDay
from pmkit.sim.binance.symbols import Symbol

Span = tuple[int, int]  # first second, one past the last


@dataclass(frozen=True, slots=True)
class Shift:
    """Candles of one interval that open in [start_ms, end_ms) on the grid, and show `shift_ms` later."""

    interval: str
    start_ms: int
    end_ms: int
    shift_ms: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Seconds first..last, both included, of one kind: out of a recorded day, absent, or made (neither)."""

    first: int
    last: int
    day: RecordedDay | None = None
    absent: bool = False


class History:
    """One symbol. `version` grows with every change, so that what was derived from it can be thrown away.

    Read by the thread that makes bulk files as well: its parts are replaced whole and never changed in place.
    """

    def __init__(self, symbol: Symbol) -> None:
        self.symbol = symbol
        self.version = 0
        self._days: dict[int, RecordedDay] = {}
        self._scripted: tuple[Span, ...] = ()
        self._outages: tuple[Span, ...] = ()
        self._shifts: tuple[Shift, ...] = ()

    # -- telling it

    def add_day(self, day: RecordedDay) -> None:
        """Let a real day stand in the place of a made one."""
        self._days = {**self._days, day.first_second // DAY_SECONDS: day}
        self._changed()

    def add_outage(self, start_ms: int, end_ms: int) -> None:
        """No candle exists in [start_ms, end_ms), whole seconds. Raises ConfigError for anything else."""
        if start_ms % SECOND or end_ms % SECOND or end_ms <= start_ms:
            raise ConfigError(f"an outage goes from a whole second to a later one, not from {start_ms} to {end_ms} ms")
        self._scripted = _merged([*self._scripted, (start_ms // SECOND, end_ms // SECOND)])
        self._changed()

    def add_shift(self, shift: Shift) -> None:
        """Candles off the grid. Raises ConfigError where the shift is not less than the interval."""
        length = LENGTHS.get(shift.interval, 0)
        if not 0 < shift.shift_ms < length:
            raise ConfigError(f"candles of {shift.interval} cannot be {shift.shift_ms} ms off the grid")
        self._shifts = (*self._shifts, shift)
        self._changed()

    def _changed(self) -> None:
        gaps = [gap for day in self._days.values() for gap in day.gaps()]
        self._outages = _merged([*self._scripted, *gaps])
        self.version += 1

    # -- asking it

    @property
    def outages(self) -> tuple[Span, ...]:
        """All of them, in order, as (first second, one past the last); also what recorded days lack."""
        return self._outages

    @property
    def plain(self) -> bool:
        """Whether every candle is there and on the grid."""
        return not self._outages and not self._shifts

    def outage(self, second: int) -> Span | None:
        """The outage a second lies in."""
        outages = self._outages
        at = bisect_right(outages, second, key=_start) - 1
        return outages[at] if at >= 0 and second < outages[at][1] else None

    def absent(self, open_ms: int, end_ms: int) -> Span | None:
        """The outage that leaves nothing of the candle [open_ms, end_ms), as far as it is known."""
        found = self.outage(open_ms // SECOND)
        return found if found is not None and found[1] * SECOND >= end_ms else None

    def shift(self, interval: str, open_ms: int) -> int:
        """How many ms off the grid a candle shows."""
        for shift in self._shifts:
            if shift.interval == interval and shift.start_ms <= open_ms < shift.end_ms:
                return shift.shift_ms
        return 0

    def day(self, second: int) -> RecordedDay | None:
        """The recorded day a second lies in."""
        return self._days.get(second // DAY_SECONDS)

    def untouched(self, start_ms: int) -> RecordedDay | None:
        """The recorded day that starts then, if its file still tells the truth."""
        day = self._days.get(start_ms // DAY)
        if day is None:
            return None
        first, end = day.first_second, day.first_second + DAY_SECONDS
        if any(a < end and first < b for a, b in self._scripted):
            return None
        touched = any(
            s.interval == "1s" and s.start_ms < end * SECOND and first * SECOND < s.end_ms for s in self._shifts
        )
        return None if touched else day

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """The seconds first..last cut where their kind changes, in order."""
        if not self._days and not self._outages:
            yield Piece(first, last)
            return
        second = first
        outages = self._outages
        while second <= last:
            found = self.outage(second)
            if found is not None:
                until = min(last, found[1] - 1)
                yield Piece(second, until, absent=True)
            else:
                until = min(last, second - second % DAY_SECONDS + DAY_SECONDS - 1)
                after = bisect_right(outages, second, key=_start)
                if after < len(outages):
                    until = min(until, outages[after][0] - 1)
                yield Piece(second, until, self.day(second))
            second = until + 1


def _start(span: Span) -> int:
    return span[0]


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return tuple(result)
