"""A set that is walked in the order of adding: what is sent to several must not depend on addresses in memory."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class OrderedSet(dict[T, None]):
    """The few things of a set that the venues need."""

    def add(self, item: T) -> None:
        self[item] = None

    def discard(self, item: T) -> None:
        self.pop(item, None)
