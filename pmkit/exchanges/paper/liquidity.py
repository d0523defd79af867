"""What a taker gets from a displayed book, and the memory of what the dry-run already took from it. Pure; integers
only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pmkit.exchanges.types import PRICE_SCALE

SIZE_SCALE = 1_000_000
"""Size units per share in the dry-run, and money units per dollar."""

Key = tuple[str, bool, int]
"""A level: market, whether it is a bid for the first outcome, price of the first outcome in 0.0001 dollars."""


def cost_of(price: int, size: int) -> int:
    """Money of `size` units at `price` (0.0001 dollars): whole units, cut off as on chain."""
    return price * size // PRICE_SCALE


@dataclass(frozen=True, slots=True)
class Take:
    """A part of one displayed level: price in 0.0001 dollars, size in units, what the level showed, and what of that
    the dry-run had taken before.
    """

    price: int
    size: int
    shown: int
    taken: int = 0


@dataclass(slots=True)
class TakenLevels:
    """How much of each displayed level the dry-run has used: the venue goes on showing it.

    What is added to a level is there to be had. What leaves it was, as far as that is possible, what we had left of it:
    nobody knows whether those cancel whom we would have taken. So a level's memory ends when the level does.
    """

    _taken: dict[Key, int] = field(default_factory=dict)

    def taken(self, key: Key, shown: int) -> int:
        """Units of a level, which shows that many now, that are used up."""
        known = self._taken.get(key)
        if known is None:
            return 0
        if known > shown:
            known = shown
            self._taken[key] = shown
        if not known:
            del self._taken[key]
        return known

    def use(self, key: Key, size: int) -> None:
        """Remember a part as used."""
        self._taken[key] = self._taken.get(key, 0) + size

    def keys(self, market_id: str) -> list[Key]:
        """The levels of a market of which something is remembered."""
        return [key for key in self._taken if key[0] == market_id]

    def forget(self, market_id: str) -> None:
        """A market is over."""
        for key in self.keys(market_id):
            del self._taken[key]


def walk_size(levels: Iterable[tuple[int, int, int]], size: int) -> list[Take]:
    """Take `size` units from (price, shown, taken before) levels, best first."""
    takes: list[Take] = []
    for price, shown, taken in levels:
        if size <= 0:
            break
        part = min(shown - taken, size)
        if part > 0:
            takes.append(Take(price, part, shown, taken))
            size -= part
    return takes


def walk_money(levels: Iterable[tuple[int, int, int]], money: int) -> list[Take]:
    """Spend `money` units on (price, shown, taken before) levels, best first. What no unit can be had for is left."""
    takes: list[Take] = []
    for price, shown, taken in levels:
        left = shown - taken
        part = min(left, money * PRICE_SCALE // price)
        if part > 0:
            takes.append(Take(price, part, shown, taken))
            money -= cost_of(price, part)
        if part < left:
            break
    return takes
