"""The numbers of one subscription (wire). Source: Kalshi's AsyncAPI and recorded sessions: `seq` counts per `sid`."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

RESTART_RUN: Final = 5
"""So many lower numbers that follow each other are no repeats: the venue counts anew."""
LONGEST_BEHIND: Final = 25
"""So many lower numbers in a row, in whatever order, are no repeats either."""


class Verdict(Enum):
    """What a number says. NEXT: nothing was missed. OLD: a repeat, or late. GAP, RESTART: some are missing."""

    NEXT = auto()
    OLD = auto()
    GAP = auto()
    RESTART = auto()


class Stream:
    """One subscription: its channel and the last number seen (-1: none). `behind` counts lower numbers in a row;
    `doubted`: its books are suspected until the next number proves them. While it is `calm` (neither), the frame with
    the number `last` + 1 is the next one, and whoever reads it may set `last` without `check`.
    """

    __slots__ = ("_behind_at", "_rising", "behind", "calm", "channel", "doubted", "last", "sid")

    def __init__(self, sid: int, channel: str) -> None:
        self.sid = sid
        self.channel = channel
        self.last = -1
        self.behind = 0
        self.doubted = False
        self.calm = True
        self._behind_at = -1
        self._rising = 0

    def doubt(self) -> None:
        """A frame may have been missed."""
        self.doubted, self.calm = True, False

    def trust(self) -> None:
        """None was missed, or it does not matter any more."""
        self.doubted, self.calm = False, not self.behind

    def check(self, seq: int, *, control: bool = False) -> Verdict:
        """Judge the next frame's number and remember it. A control reply's number that is not above the last one is
        OLD and says nothing about a restart."""
        last = self.last
        if seq == last + 1 or last < 0:
            # Lower numbers that rose up to the last one and on: a new count that has just overtaken the old one.
            overtaken = self.behind > 1 and self._rising > 1 and self._behind_at == last
            self._go_on(seq)
            return Verdict.RESTART if overtaken else Verdict.NEXT
        if seq > last:
            self._go_on(seq)
            return Verdict.GAP
        if not control:
            self._rising = self._rising + 1 if self.behind and seq == self._behind_at + 1 else 1
            self._behind_at = seq
            self.behind += 1
            self.calm = False
            if self._rising >= RESTART_RUN or self.behind >= LONGEST_BEHIND:
                self._go_on(seq)
                return Verdict.RESTART
        return Verdict.OLD

    def _go_on(self, seq: int) -> None:
        self.last, self.behind, self.calm = seq, 0, not self.doubted
