"""What the tests of both prediction-market venues share: their clock, and books that move between comparisons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

import pytest

import pmkit.sim.kalshi.auth
from pmkit.clock import Clock, ScaledClock, SystemClock
from pmkit.endpoints import Endpoints
from pmkit.exchanges.orderbook import OrderBook
from pmkit.sim.traders import Traders
from pmkit.sim.world import World

WINDOW_MS = 900_000
LONGEST_TEST_MS = 45_000
PATIENCE_SECONDS = 120.0  # of the wall, for what happens within a few on an idle machine
LATE_READS = 600  # of a live book, 0.05 s apart
FRIDAY_NOON = 1_795_176_000_000 + 450_000  # 2026-11-20T12:07:30Z

Levels = dict[Decimal, Decimal]
Book = tuple[Levels, Levels]
_T = TypeVar("_T")


def middle_clock() -> Clock:
    """At the pace of the wall, from the middle of a window on, so that none ends while a test runs."""
    now = SystemClock().now_ms()
    return ScaledClock(now, 1.0, now // WINDOW_MS * WINDOW_MS + WINDOW_MS // 2)


def signed_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The same for clients of Kalshi, which sign with the wall's time: the venue takes whatever stamp they write.

    The middle of a window of a Friday afternoon, whenever the test runs: no window ends, and no Thursday comes.
    """
    monkeypatch.setattr(pmkit.sim.kalshi.auth, "TOLERANCE_SECONDS", 1e12)
    return ScaledClock(SystemClock().now_ms(), 1.0, FRIDAY_NOON)


def balanced_seed(clock: Clock, asset: str = "BTC") -> int:
    """The first seed whose market of now stays undecided while a test runs.

    Near the end of a window most books have one side only and nobody trades: true to life, and nothing to compare.
    """
    now = clock.now_ms()
    opened = now // WINDOW_MS * WINDOW_MS
    for seed in range(1, 2000):
        world = World(seed, clock, (asset,))
        if all(
            0.3 < world.fair_up(asset, opened, opened + WINDOW_MS, now + ahead) < 0.7
            for ahead in range(0, LONGEST_TEST_MS, 5_000)
        ):
            return seed
    raise AssertionError(f"no seed has an undecided market at {now}")


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
    read: Callable[[], Awaitable[_T]],
    truth: Callable[[], _T],
    traders: Traders,
    *,
    live: bool = False,
    times: int = 3,
) -> list[_T]:
    """`read` gives what `truth` is, `times` times over with a different truth each time. Gives the truths.

    The traders rest while it is read, so that a slow machine compares the same book on both sides; between two readings
    they trade. A `live` book may still be on its way: it is read until it is there.
    """
    seen: list[_T] = []
    while True:
        traders.resting = True
        wanted = truth()
        for _ in range(LATE_READS if live else 1):
            if (found := await read()) == wanted:
                break
            await asyncio.sleep(0.05)
        assert found == wanted, f"{found} is not {wanted}"
        traders.resting = False
        seen.append(wanted)
        if len(seen) >= times:
            return seen
        async with asyncio.timeout(PATIENCE_SECONDS):
            while truth() == wanted:  # noqa: ASYNC110 - the traders' next step has no event
                await asyncio.sleep(0.02)
