"""A real day of 1s candles served by the local venue: over REST, over bulk files and live, the same CSV each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pmkit.clock import Entropy, ScaledClock, SystemClock
from pmkit.data.binance import kline_ws
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.storage import HEADER, validate
from pmkit.endpoints import Endpoints, Where
from pmkit.sim.binance import streams
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World
from pmkit.websocket import deadlines
from tests.binance.history_venue import DAY, months, ms
from tests.websocket_peers import until

S = 1000
START = ms("2026-03-13")
LIVE_FACTOR = 4000.0
LEAD_MS = 1_000_000


class PacedClock(ScaledClock):
    """Never further than LEAD_MS ahead of `reached_ms`: a busy machine makes the day longer, not torn."""

    def __init__(self, now_ms: int, factor: float) -> None:
        super().__init__(SystemClock().now_ms(), factor, now_ms, Entropy(3))
        self.reached_ms = 1 << 60  # until the venue has spoken
        self._held_ns = 0

    def time_ns(self) -> int:
        now, most = super().time_ns() - self._held_ns, (self.reached_ms + LEAD_MS) * 1_000_000
        self._held_ns += max(0, now - most)
        return min(now, most)


class PacedVenue(BinanceVenue):
    """Tells its clock up to where it has spoken."""

    clock: PacedClock

    async def _emit(self, second: int, event_ms: int) -> None:
        await super()._emit(second, event_ms)
        self.clock.reached_ms = event_ms
        if second % 10 == 0:
            await asyncio.sleep(0)  # a pump that is always late would leave nobody else a turn


@contextlib.asynccontextmanager
async def local(
    day: Path, now_ms: int, factor: float = 1.0
) -> AsyncIterator[tuple[BinanceVenue, Endpoints, PacedClock]]:
    clock = PacedClock(now_ms, factor)
    venue = PacedVenue(World(7, clock, ("BTC",)), clock)
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
async def test_the_same_day_live(day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What must not happen because the machine is busy: a stall of a second is no fault, the day is one connection.
    monkeypatch.setattr(deadlines, "BINANCE_KLINE_1S", None)
    monkeypatch.setattr(kline_ws, "RENEW_SECONDS", 1e9)
    monkeypatch.setattr(streams, "LIFETIME_SECONDS", 1e9)
    bulk = await fetched(day, tmp_path, "bulk")
    async with (
        local(day, START - 8_000 * S, LIVE_FACTOR) as (_, endpoints, clock),
        BinanceFeed(endpoints, clock, ["BTCUSDT"], size=150_000) as feed,
    ):
        candles = feed.candles("BTCUSDT")
        await until(lambda: (candles.last_ms or 0) >= START + DAY, 240)
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
