"""Where a resting order stands in the queue of its price, judged from the book and the prints. Pure; integers only.

What nobody outside the venue can know is who of a level cancelled. Three answers to it:

* PESSIMISTIC: those behind us, as far as that is possible;
* OPTIMISTIC: those ahead of us;
* MIDDLE: evenly, in proportion.

A print and the change of the book that it causes may come in either order. A decrease therefore first waits `GRACE_NS`
for its print; what no print has explained by then is taken for cancels. A print waits as long for its decrease.
"""

from __future__ import annotations

from enum import StrEnum

from pmkit.errors import ConfigError

GRACE_NS = 500_000_000


class QueueModel(StrEnum):
    """Whose cancels shorten a queue."""

    PESSIMISTIC = "pessimistic"
    MIDDLE = "middle"
    OPTIMISTIC = "optimistic"


def queue_model(name: str) -> QueueModel:
    """The model of that name. Raises ConfigError for another one."""
    try:
        return QueueModel(name)
    except ValueError:
        raise ConfigError(f"queue is {ascii(name)[:40]}: there are {', '.join(QueueModel)}") from None


class QueuePlace:
    """The queue ahead of one own order at its price. Sizes in units, times in ns."""

    __slots__ = ("_credits", "_decreases", "_shown", "ahead", "model", "spared")

    def __init__(self, model: QueueModel, shown: int) -> None:
        self.model = model
        self.ahead = shown
        self.spared = 0
        self._shown = shown
        self._credits: list[tuple[int, int]] = []
        self._decreases: list[tuple[int, int]] = []

    def on_level(self, shown: int, now_ns: int) -> None:
        """The venue shows a new size at our price (our own is never in it)."""
        self.settle(now_ns)
        decrease = self._shown - shown
        self._shown = shown
        if decrease > 0:
            decrease = _use_up(self._credits, decrease)
            if decrease:
                self._decreases.append((now_ns, decrease))

    def on_print(self, size: int, now_ns: int, reach: int | None = None) -> int:
        """A print at our price; returns the units of it that reach us, after the queue ahead.

        `reach`: what is left of it behind own orders that come before us and are in nobody's book; all where None.
        """
        self.settle(now_ns)
        left = _use_up(self._decreases, size)
        if left:
            self._credits.append((now_ns, left))
        reach = self.past_spared(size if reach is None else reach)
        reaching = max(0, reach - self.ahead)
        left = max(0, self.ahead - reach)
        # The book shows the whole print gone from our price, own orders or not.
        self.ahead = left if self.model is not QueueModel.PESSIMISTIC else max(0, self.ahead - size)
        self.spare(left - self.ahead)
        return reaching

    @property
    def exhausted(self) -> bool:
        """Whether prints have used up all that was shown at our price."""
        return self._shown <= sum(units for _, units in self._credits)

    def settle(self, now_ns: int) -> None:
        """Decreases that no print has explained in time are cancels; prints whose decrease was not seen are over."""
        while self._credits and now_ns - self._credits[0][0] >= GRACE_NS:
            self._credits.pop(0)
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

    def spare(self, size: int) -> None:
        """An own order before us took what in the book's eyes hit others. Those still stand before us, unless they
        cancelled: the pessimistic model has them wait for the next prints.
        """
        if self.model is QueueModel.PESSIMISTIC:
            self.spared += size

    def past_spared(self, size: int) -> int:
        """What is left of a print for us after those who were spared."""
        used = min(self.spared, size)
        self.spared -= used
        return size - used

    def overtaken(self) -> None:
        """The price was traded through or crossed: nobody is ahead any more."""
        self.ahead = 0


def _use_up(rows: list[tuple[int, int]], size: int) -> int:
    """Take `size` out of (when, units) rows, oldest first; returns what they did not have."""
    while size and rows:
        when, units = rows[0]
        used = min(size, units)
        size -= used
        if used == units:
            rows.pop(0)
        else:
            rows[0] = (when, units - used)
    return size
