"""Fetcher and feed against the local Binance, whose reading of the venue's pages is its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pmkit.clock import Entropy
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.types import CandleEvent
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import MarketNotFound
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.virtual import VirtualClock
from pmkit.sim.world import World
from tests.websocket_peers import until

S = 1000
M = 60 * S
pytestmark = pytest.mark.virtual_time
MARKET_START = 1_795_176_030_500


@contextlib.asynccontextmanager
async def local(factor: float) -> AsyncIterator[tuple[BinanceVenue, Endpoints, VirtualClock]]:
    clock = VirtualClock(MARKET_START, Entropy(3), factor=factor)
    venue = BinanceVenue(World(7, clock, ("BTC", "ETH")), clock)
    async with venue:
        yield venue, Endpoints(where=Where.LOCAL, binance=venue.endpoints(), clock="manual"), clock
        assert venue.failures == []


async def test_klines_equal_what_the_venue_would_write() -> None:
    async with local(1.0) as (venue, endpoints, clock), BinanceFetcher(endpoints, clock) as fetcher:
        start = MARKET_START // S * S - 2500 * S
        rows = [row async for row in fetcher.klines("BTCUSDT", "1s", start, MARKET_START + 3600 * S)]
        assert [row.open_ms for row in rows] == list(range(start, rows[-1].open_ms + 1, S))
        assert MARKET_START - 2 * S <= rows[-1].open_ms + S <= clock.now_ms()
        maker = venue.makers["BTCUSDT"]
        for row in rows[::97]:
            truth = maker.candle("1s", row.open_ms, clock.now_ms()).row()
            assert [row.open_ms, row.open, row.high, row.low, row.close, row.volume, row.close_ms] == truth[:7]
        assert venue.limits.used("127.0.0.1") == fetcher.budget.spent
        with pytest.raises(MarketNotFound, match="DOGEUSDT"):
            await fetcher.require("DOGEUSDT", "1s")
        # All requests were understood, none refused.
        assert {line.status for line in venue.server.log} == {200, 400}


async def test_feed_through_faults_equals_rest() -> None:
    async with local(25.0) as (venue, endpoints, clock):
        feed = BinanceFeed(endpoints, clock, ["BTCUSDT", "ETHUSDT"], size=120)
        events: list[CandleEvent] = []
        await feed.subscribe_candles(events.append)
        await asyncio.wait_for(feed.start(), 8)
        first = {symbol: feed.candles(symbol).last_ms for symbol in feed.symbols}
        assert all(len(feed.candles(symbol)) == 120 for symbol in feed.symbols)

        async def more(count: int) -> None:
            target = len(events) + count
            await until(lambda: len(events) >= target)

        await more(10)
        venue.faults.drop_connections()
        await more(60)
        assert venue.server_shutdown() == 1
        await until(lambda: feed.socket_stats.renewals == 1)
        await more(20)
        venue.faults.garbage('{"e":"kline","k":5}')
        venue.faults.http_status("GET /api/v3/klines", 503, times=2)
        venue.faults.drop_connections()
        await more(60)
        venue.faults.silence(40)
        await until(lambda: feed.socket_stats.silences >= 1)
        await more(60)

        async with BinanceFetcher(endpoints, clock) as fetcher:
            for symbol in feed.symbols:
                assert feed.gaps(symbol) == []
                mine = [event.candle for event in events if event.symbol == symbol]
                times = [candle.timestamp for candle in mine]
                start = first[symbol]
                assert start is not None
                assert times[0] <= start + S
                assert times == list(range(times[0], times[-1] + 1, S))
                fetcher.note_server_ms(times[-1] + S)  # the newest one may not have settled by the clock
                rows = [row.candle() async for row in fetcher.klines(symbol, "1s", times[0], times[-1] + 1)]
                assert rows == mine
                buffer = list(feed.candles(symbol))[: len(rows)]
                assert [c.timestamp for c in buffer] == list(range(buffer[0].timestamp, buffer[-1].timestamp + 1, S))
        assert feed.stats.differing == 0 and feed.socket_stats.callback_errors == 0
        await feed.close()
        assert venue.server.counts["slow_clients"] == 0
        assert not {line.status for line in venue.server.log} & {400, 418, 429}


async def test_minute_candles_and_the_one_that_forms() -> None:
    async with local(60.0) as (_, endpoints, clock):
        feed = BinanceFeed(endpoints, clock, ["BTCUSDT"], "1m", 30)
        await asyncio.wait_for(feed.start(), 8)
        warm = feed.candles("BTCUSDT").last_ms
        assert warm is not None
        await until(lambda: (feed.candles("BTCUSDT").last_ms or 0) >= warm + 3 * M)
        await until(lambda: feed.open_candle("BTCUSDT") is not None)
        forming, last = feed.open_candle("BTCUSDT"), feed.candles("BTCUSDT").last_ms
        assert forming is not None and last is not None and forming.timestamp == last + M
        async with BinanceFetcher(endpoints, clock) as fetcher:
            candles = list(feed.candles("BTCUSDT"))
            fetcher.note_server_ms(candles[-1].timestamp + M)
            rows = fetcher.klines("BTCUSDT", "1m", candles[0].timestamp, candles[-1].timestamp + M)
            assert [row.candle() async for row in rows] == candles
        assert len(candles) == 30 and feed.gaps("BTCUSDT") == []
        await feed.close()
