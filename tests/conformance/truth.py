"""What the tests of both prediction-market venues share: their clock, and books that move while they are compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

from pmkit.clock import Clock, ScaledClock, SystemClock
from pmkit.endpoints import Endpoints
from pmkit.exchanges.orderbook import OrderBook

WINDOW_MS = 900_000
LONGEST_TEST_MS = 45_000
_FURTHEST_MS = 25_000

Levels = dict[Decimal, Decimal]
Book = tuple[Levels, Levels]
_T = TypeVar("_T")


def market_clock() -> Clock:
    """The wall's time, moved by up to 25 s so that no window ends within the next 45 s.

    The clients sign with the wall's time, and the venue takes stamps that are up to 30 s off.
    """
    now = SystemClock().now_ms()
    left = WINDOW_MS - now % WINDOW_MS
    if left > LONGEST_TEST_MS:
        return SystemClock()
    moved = left + 1000 if left + 1000 <= _FURTHEST_MS else -_FURTHEST_MS
    return ScaledClock(now, 1.0, now + moved)


def settings_of(endpoints: Endpoints) -> dict[str, Any]:
    return {"endpoints": json.loads(endpoints.to_json())}


def levels(rows: Iterable[Any]) -> Levels:
    """Rows of (price, size), as pairs or objects, as decimals; a price that comes twice is refused."""
    found: Levels = {}
    for row in rows:
        if isinstance(row, dict):
            price, size = row["price"], row.get("size", row.get("quantity"))
        else:
            price, size = row
        assert Decimal(price) not in found, f"{price} comes twice"
        found[Decimal(price)] = Decimal(str(size))
    return found


def held(book: OrderBook) -> Book:
    """Bids and asks of one of pmkit's books."""
    assert book.valid, book.reason
    bids, asks = ({level.price: level.size for level in book.levels(side)} for side in ("BID", "ASK"))
    return bids, asks


def common_run(mine: list[_T], heard: list[_T]) -> tuple[list[_T], list[_T]]:
    """Both lists from the first element that both have, as far as both go: which listened first does not matter."""
    first = next((key for key in mine if key in heard), None)
    if first is None:
        return [], []
    begin, other = mine.index(first), heard.index(first)
    length = min(len(mine) - begin, len(heard) - other)
    return mine[begin : begin + length], heard[other : other + length]


async def same_as_truth(
    read: Callable[[], Awaitable[_T]], truth: Callable[[], _T], *, live: bool = False, times: int = 3
) -> list[_T]:
    """`read` gives what `truth` is, `times` times over with a different truth each time. Gives the truths.

    A reading during which the truth changed says nothing. A `live` book may still be on its way: it gets half a second.
    """
    seen: list[_T] = []
    behind = 0
    async with asyncio.timeout(20):
        while len(seen) < times:
            before = truth()
            found = await read()
            if truth() != before:
                continue
            if found != before:
                behind += 1
                assert live and behind < 10, f"{found} is not {before}"
                await asyncio.sleep(0.05)
                continue
            behind = 0
            if before not in seen:
                seen.append(before)
            await asyncio.sleep(0.02)
    return seen
