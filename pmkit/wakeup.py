"""A machine that slept, and a loop that was held up: told from the time between two looks at the clocks."""

from __future__ import annotations

from typing import Final, NamedTuple

from pmkit.clock import Clock

SLEPT_SECONDS: Final = 10.0
"""Wall seconds missing between two looks from which on nothing that was known before can be trusted."""


class Lapse(NamedTuple):
    """What one look found, in wall seconds: `late` after the expected moment, `missing` in all."""

    late: float
    missing: float

    @property
    def slept(self) -> bool:
        """Whether sockets may be dead and data old: the machine slept, the process stopped or the loop was blocked."""
        return self.missing > SLEPT_SECONDS


class WakeWatch:
    """Look every few seconds. While a machine sleeps its date goes on; its monotonic time may or may not (failure mode
    CK-02), so both are looked at. A date that was moved forward looks the same, and is treated the same.
    """

    __slots__ = ("_clock", "_monotonic", "_wall_ns")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_ns = clock.time_ns()
        self._monotonic = clock.io_monotonic()

    def look(self, expected: float) -> Lapse:
        """The lapse since the last look, which was to be `expected` wall seconds ago."""
        wall_ns, monotonic = self._clock.time_ns(), self._clock.io_monotonic()
        passed = monotonic - self._monotonic
        by_date = (wall_ns - self._wall_ns) / 1e9 / self._clock.factor
        self._wall_ns, self._monotonic = wall_ns, monotonic
        return Lapse(passed - expected, max(passed, by_date) - expected)
