"""A real day of 1s candles served by the local venue: over REST, over bulk files and live, the same CSV each time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pmkit.clock import Entropy, ScaledClock, SystemClock
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.storage import HEADER, validate
from pmkit.endpoints import Endpoints, Where
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World
from tests.binance.history_venue import DAY, months, ms
from tests.websocket_peers import until

S = 1000
START = ms("2026-03-13")
LIVE_FACTOR = 4000.0


@contextlib.asynccontextmanager
async def local(
    day: Path, now_ms: int, factor: float = 1.0
) -> AsyncIterator[tuple[BinanceVenue, Endpoints, ScaledClock]]:
    clock = ScaledClock(SystemClock().now_ms(), factor, now_ms, Entropy(3))
    venue = BinanceVenue(World(7, clock, ("BTC",)), clock)
    venue.load_day(day)
    async with venue:
        yield venue, Endpoints(where=Where.LOCAL, binance=venue.endpoints(), clock=clock.text()), clock
        assert venue.failures == []


@pytest.fixture
def day(recordings: Path) -> Path:
    return recordings / "binance" / "sessions" / "BTCUSDT-1s-2026-03-13.zip"


async def fetched(day: Path, directory: Path, source: str) -> bytes:
    async with local(day, ms("2026-03-20T12:00:10")) as (venue, endpoints, clock):
        async with BinanceFetcher(endpoints, clock) as fetcher:
            found = await fetcher.fetch("BTCUSDT", "1s", START, START + DAY, directory, source=source)
            assert venue.limits.used("127.0.0.1") <= 0.4 * venue.limits.limit
        assert (found.rows, found.missing) == (86_400, 0)
        assert (found.requests, found.downloads) == ((0, 1) if source == "bulk" else (87, 0))
        assert validate(found.files[0], S) == []
    return months(directory)["2026-03"]


async def test_a_real_day_over_rest_and_over_bulk_files(day: Path, tmp_path: Path) -> None:
    rest = await fetched(day, tmp_path / "rest", "rest")
    assert rest.count(b"\n") == 86_401
    assert await fetched(day, tmp_path / "bulk", "bulk") == rest


@pytest.mark.slow
async def test_the_same_day_live(day: Path, tmp_path: Path) -> None:
    bulk = await fetched(day, tmp_path, "bulk")
    async with (
        local(day, START - 8_000 * S, LIVE_FACTOR) as (_, endpoints, clock),
        BinanceFeed(endpoints, clock, ["BTCUSDT"], size=150_000) as feed,
    ):
        candles = feed.candles("BTCUSDT")
        await until(lambda: (candles.last_ms or 0) >= START + DAY, 150)
        assert feed.gaps("BTCUSDT") == []
        live = feed.stats.live
    # Floats of eight decimals go back to their text.
    rows = [
        f"{c.timestamp},{c.open:.8f},{c.high:.8f},{c.low:.8f},{c.close:.8f},{c.volume:.8f}\n"
        for c in candles
        if START <= c.timestamp < START + DAY
    ]
    assert live > 43_200  # most came over the socket
    assert HEADER + "".join(rows).encode() == bulk
