"""How long to wait before the next attempt. Pure: no clock; randomness is handed in."""

from __future__ import annotations

from pmkit.clock import Entropy

STEPS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
CAP = STEPS[-1]
JITTER = (0.8, 1.2)


class Backoff:
    """1, 2, 4, 8, 16, 30, 30 ... market seconds, each times a random 0.8-1.2 and never above 30.

    The first wait is never 0: a venue that accepts and drops at once must not be hammered (failure mode MD-04).
    """

    __slots__ = ("_entropy", "_step")

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._step = 0

    def next(self) -> float:
        """The next wait, in market seconds."""
        base = STEPS[self._step]
        self._step = min(self._step + 1, len(STEPS) - 1)
        return min(CAP, base * self._entropy.uniform(*JITTER))

    def to_cap(self) -> None:
        """From now on the longest wait: for refusals that trying again does not change."""
        self._step = len(STEPS) - 1

    def reset(self) -> None:
        """Start over, after a connection that proved itself."""
        self._step = 0
