"""A recorded day of Binance candles, through the feed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pmkit.clock import to_utc
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.types import Candle
from pmkit.replay.line import LATE_SECONDS, Line, clock_of
from pmkit.sim.replay.recording import CandleRow, Recording
from pmkit.sim.replay.sessions import rows
from pmkit.sim.replay.venues import CandleReplay

Tell = Callable[[str], object]


async def replay_candles(recording: Recording, speed: float | None, tell: Tell) -> Counter[str]:
    """A day through `BinanceFeed`: the first candles come with its warm-up over REST, the others live. Each is compared
    with its row of the file.
    """
    totals: Counter[str] = Counter()
    clock = clock_of(recording, speed)
    expected = (row for row in rows(recording) if isinstance(row, CandleRow))
    last_ms = 0

    def take(candle: Candle) -> None:
        nonlocal last_ms
        last_ms = candle.timestamp
        for row in expected:
            if row.at_ms == candle.timestamp:
                totals["candles"] += 1
                numbers = (candle.open, candle.high, candle.low, candle.close, candle.volume)
                totals["candle_mismatches"] += numbers != tuple(map(float, row.columns[1:6]))
                return
            totals["candle_gaps"] += 1
        totals["candle_mismatches"] += 1

    async with CandleReplay(recording, clock, speed) as replay:
        replay.go.clear()  # the stream begins with one candle, and goes on after the warm-up
        feed = BinanceFeed(replay.endpoints, clock, [recording.symbol], recording.interval)
        await feed.subscribe_candles(lambda event: take(event.candle) if event.candle.timestamp > last_ms > 0 else None)
        try:
            await feed.start()
            for candle in feed.candles(recording.symbol):
                take(candle)
            replay.go.set()
            line = Line(replay, feed, feed.socket_stats, clock)
            await line.played()
            waited = 0.0
            while last_ms < recording.last_ms and waited < LATE_SECONDS:  # a gap is being read over REST
                await clock.io_sleep(0.01)
                waited += 0.01
        finally:
            await feed.close()
    totals["candle_gaps"] += sum(1 for _ in expected)
    stats = feed.stats
    span = f"{to_utc(recording.first_ms):%Y-%m-%d %H:%M:%S} to {to_utc(last_ms):%H:%M:%S}"
    tell(f"  {recording.symbol} {recording.interval}: {totals['candles']} candles, {replay.warm_up} by REST, {span}")
    tell(f"  last: {feed.candles(recording.symbol).last}")
    totals.update(
        applied=stats.live,
        candle_gaps=stats.lost,
        candle_duplicates=stats.duplicates + stats.differing + stats.late,
        unparsed=feed.socket_stats.garbage,
        unknown=sum(feed.socket_stats.unknown.values()),
    )
    return totals + line.totals()
