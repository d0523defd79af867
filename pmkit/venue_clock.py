"""A venue's time as seen from here: local market time plus a measured offset."""

from __future__ import annotations

from pmkit.clock import Clock

KEEP = 8
STEP_MS = 250


class VenueClock:
    """Feed it with server times. Each answer says that the offset lies between two bounds: the venue's stamp was made
    between sending and receiving, and its cut-off fraction is unknown. The bounds of the last answers are intersected.

    As long as no answer proves the local date wrong it is believed (offset 0): stamps in whole seconds alone would
    else move every boundary by up to half a second. Answers that contradict each other mean that one of the clocks was
    moved: the newest alone counts then. When the local date itself was stepped (a corrected clock, a machine that
    slept), what was measured before is forgotten.

    `offset_ms`: venue minus local; `uncertainty_ms`: how far it may be off, None before the first answer.
    """

    __slots__ = ("_bounds", "_clock", "_limit_ms", "_skew_ms", "offset_ms", "uncertainty_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bounds: list[tuple[int, int]] = []
        self._skew_ms = 0.0
        self._limit_ms = STEP_MS * max(1.0, clock.factor)
        self.offset_ms = 0
        self.uncertainty_ms: int | None = None

    def observe(self, venue_ms: int, sent_ms: int, received_ms: int, resolution_ms: int = 1) -> None:
        """One answer: the venue's stamp, and when request and answer passed here (market ms).

        `resolution_ms` is 1000 for an HTTP Date header, whose fraction is cut off.
        """
        self._forget_after_step()
        if received_ms < sent_ms:
            return  # the date was moved while the request was on its way: nothing can be told from it
        newest = (venue_ms - received_ms, venue_ms + resolution_ms - 1 - sent_ms)
        self._bounds = [*self._bounds, newest][-KEEP:]
        low = max(bound[0] for bound in self._bounds)
        high = min(bound[1] for bound in self._bounds)
        if low > high:
            self._bounds = [newest]
            low, high = newest
        self.offset_ms = 0 if low <= 0 <= high else (low + high) // 2
        self.uncertainty_ms = max(high - self.offset_ms, self.offset_ms - low)
        self._skew_ms = self._skew()

    def now_ms(self) -> int:
        """The venue's time now, epoch ms."""
        # Part of every order: the step is looked for with the reading that is needed anyway.
        now_ms = self._clock.time_ns() // 1_000_000
        if self._bounds and abs(now_ms - self._clock.monotonic() * 1000 - self._skew_ms) > self._limit_ms:
            self._forget_after_step()
        return now_ms + self.offset_ms

    def _skew(self) -> float:
        """The date against the monotonic time: constant, but for a step."""
        return self._clock.now_ms() - self._clock.monotonic() * 1000

    def _forget_after_step(self) -> None:
        # Looked at twice: this process may have been held up between the two readings.
        if self._bounds and all(abs(self._skew() - self._skew_ms) > self._limit_ms for _ in range(2)):
            self._bounds = []
            self.offset_ms = 0
            self.uncertainty_ms = None
