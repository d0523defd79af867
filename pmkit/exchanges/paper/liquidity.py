"""What a taker gets from a displayed book, and the memory of what the dry-run already took from it. Pure; integers
only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pmkit.exchanges.types import PRICE_SCALE

SIZE_SCALE = 1_000_000
"""Size units per share in the dry-run."""


@dataclass(frozen=True, slots=True)
class Take:
    """A part of one displayed level: price in 0.0001 dollars, size in units, what the level showed."""

    price: int
    size: int
    shown: int


@dataclass(slots=True)
class TakenLevels:
    """How much of each displayed level the dry-run has used. Forgotten when the venue changes the level.

    Levels are keyed by (token, side of the book, price).
    """

    _taken: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)

    def left(self, token: str, side: str, price: int, shown: int) -> int:
        """Units of a displayed level that are still to be had."""
        known = self._taken.get((token, side, price))
        if known is None:
            return shown
        if known[0] != shown:
            del self._taken[(token, side, price)]
            return shown
        return max(0, shown - known[1])

    def use(self, token: str, side: str, take: Take) -> None:
        """Remember a part as used."""
        key = (token, side, take.price)
        known = self._taken.get(key)
        before = known[1] if known is not None and known[0] == take.shown else 0
        self._taken[key] = (take.shown, before + take.size)

    def forget(self, token: str) -> None:
        """A market is over."""
        for key in [key for key in self._taken if key[0] == token]:
            del self._taken[key]


def walk_size(levels: Iterable[tuple[int, int, int]], size: int) -> list[Take]:
    """Take `size` units from (price, shown, left) levels, best first."""
    takes: list[Take] = []
    for price, shown, left in levels:
        if size <= 0:
            break
        part = min(left, size)
        if part > 0:
            takes.append(Take(price, part, shown))
            size -= part
    return takes


def walk_money(levels: Iterable[tuple[int, int, int]], money: int, step: int = 1) -> list[Take]:
    """Spend `money` (units of 1e-10 dollars: price units times size units) on (price, shown, left) levels, best first.

    Sizes are cut to `step` units; the rest of a cut stays unspent.
    """
    takes: list[Take] = []
    for price, shown, left in levels:
        part = min(left, money // price)
        part -= part % step
        if part <= 0:
            break
        takes.append(Take(price, part, shown))
        money -= part * price
    return takes


def money_units(dollars_times_scale: int) -> int:
    """Dollars in units of 1e-6 as `walk_money` takes them."""
    return dollars_times_scale * PRICE_SCALE
