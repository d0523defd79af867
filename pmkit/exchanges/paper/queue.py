"""Where a resting order stands in the queue of its price, judged from the book and the prints. Pure; integers only.

What nobody outside the venue can know is who of a level cancelled. Three answers to it:

* PESSIMISTIC: those behind us, as far as that is possible;
* OPTIMISTIC: those ahead of us;
* MIDDLE: evenly, in proportion.

A print and the change of the book that it causes may come in either order. A decrease therefore first waits `GRACE_NS`
for its print; what no print has explained by then is taken for cancels.
"""

from __future__ import annotations

from enum import StrEnum

GRACE_NS = 500_000_000


class QueueModel(StrEnum):
    """Whose cancels shorten a queue."""

    PESSIMISTIC = "pessimistic"
    MIDDLE = "middle"
    OPTIMISTIC = "optimistic"


class QueuePlace:
    """The queue ahead of one own order at its price. Sizes in units, times in ns."""

    __slots__ = ("_credit", "_decreases", "_shown", "ahead", "model")

    def __init__(self, model: QueueModel, shown: int) -> None:
        self.model = model
        self.ahead = shown
        self._shown = shown
        self._credit = 0
        self._decreases: list[tuple[int, int]] = []

    def on_level(self, shown: int, now_ns: int) -> None:
        """The venue shows a new size at our price (our own is never in it)."""
        self.settle(now_ns)
        decrease = self._shown - shown
        self._shown = shown
        if decrease > 0:
            explained = min(self._credit, decrease)
            self._credit -= explained
            if decrease > explained:
                self._decreases.append((now_ns, decrease - explained))

    def on_print(self, size: int, now_ns: int) -> int:
        """A print at our price; returns the units of it that reach us, after the queue ahead."""
        self.settle(now_ns)
        left = size
        while left and self._decreases:
            when, decrease = self._decreases[0]
            matched = min(left, decrease)
            left -= matched
            if matched == decrease:
                self._decreases.pop(0)
            else:
                self._decreases[0] = (when, decrease - matched)
        self._credit += left
        reaching = max(0, size - self.ahead)
        self.ahead = max(0, self.ahead - size)
        return reaching

    def settle(self, now_ns: int) -> None:
        """Decreases that no print has explained in time are cancels."""
        while self._decreases and now_ns - self._decreases[0][0] >= GRACE_NS:
            _, cancelled = self._decreases.pop(0)
            waiting = sum(decrease for _, decrease in self._decreases)
            after = self._shown + waiting
            if self.model is QueueModel.OPTIMISTIC:
                self.ahead = max(0, self.ahead - cancelled)
            elif self.model is QueueModel.MIDDLE:
                before = after + cancelled
                self.ahead -= self.ahead * cancelled // before
            self.ahead = min(self.ahead, after)

    def overtaken(self) -> None:
        """The price was traded through or crossed: nobody is ahead any more."""
        self.ahead = 0
