"""Kills and cancellations at any point: the next runs give byte for byte what an uninterrupted one gives."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

import pytest

from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.storage import HEADER, validate
from tests.binance.history_venue import DAY, Axe, HistoryVenue, Killed, history, months, ms
from tests.websocket_peers import fast_clock

S, M = 1000, 60_000
NOW = "2026-03-20T12:00:10"
ROOT = Path(__file__).resolve().parents[2]


def client(venue: HistoryVenue, in_flight: int = 3) -> BinanceFetcher:
    return BinanceFetcher(venue.endpoints(), fast_clock(), in_flight=in_flight)


def holes(rng: random.Random, start: int, end: int, length: int) -> set[int]:
    """Outages of one candle to more than a page."""
    found: set[int] = set()
    slots = (end - start) // length
    for _ in range(rng.randrange(6)):
        first, count = rng.randrange(slots), rng.choice([1, 2, 30, 999, 1000, 2500])
        found |= {start + at * length for at in range(first, min(slots, first + count))}
    return found


def check_prefix(venue: HistoryVenue, directory: Path, interval: str) -> None:
    """Whatever is there is whole and has no holes but the venue's, but for a torn last row."""
    for data in months(directory, interval=interval).values():
        rows = data[len(HEADER) :].rpartition(b"\n")[0]
        if rows:
            first, last = int(rows[:13]), int(rows[rows.rfind(b"\n") + 1 :][:13])
            assert data[: len(HEADER)] == HEADER
            assert rows + b"\n" == venue.csv(first, last + 1, header=False)


@pytest.mark.parametrize("seed", range(24))
async def test_st_04_kills_at_any_write(seed: int, tmp_path: Path) -> None:
    """Random ranges (before, after, around what is there), random holes, both sources, and an axe at a random call."""
    rng = random.Random(seed)
    interval, length = rng.choice([("1m", M), ("15m", 15 * M)])
    async with history(interval, "2026-06-10T12:00:10") as venue:
        low, high = ms("2026-03-25"), ms("2026-05-10")
        days = (high - low) // DAY
        if length == M:
            low, high, days = ms("2026-04-27"), ms("2026-05-05"), 8
        venue.first_ms = low - rng.randrange(DAY) // length * length
        venue.outage = holes(rng, low, high, length)
        asked: list[tuple[int, int]] = []
        for _ in range(rng.randrange(2, 5)):
            a, b = sorted(rng.sample(range(days * 24), 2))
            start, end = low + a * 3_600_000, low + b * 3_600_000
            source = rng.choice(["rest", "bulk"])
            for _ in range(rng.randrange(4)):
                with pytest.MonkeyPatch.context() as patch:
                    axe = Axe(patch, rng.randrange(1, 30), rng.random())
                    async with client(venue, rng.randrange(1, 5)) as fetcher:
                        try:
                            await fetcher.fetch("BTCUSDT", interval, start, end, tmp_path, source=source)
                        except Killed:
                            assert axe.dead
                check_prefix(venue, tmp_path, interval)
            async with client(venue) as fetcher:
                found = await fetcher.fetch("BTCUSDT", interval, start, end, tmp_path, source=source)
            asked.append((start, end))
            missing = sum(start <= opened < end for opened in venue.outage)
            assert (found.candles, found.missing) == ((end - start) // length - missing, missing)
            held = months(tmp_path, interval=interval)
            check_prefix(venue, tmp_path, interval)
            together = b"".join(data[len(HEADER) :] for data in held.values())
            for first, last in asked:
                assert venue.csv(first, last, header=False) in together
        assert not list((tmp_path / f"BTCUSDT-{interval}").glob("*.head"))


@pytest.mark.parametrize("seed", range(8))
async def test_cancellations_end_cleanly_and_go_on(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    async with history("1s", NOW) as venue:
        start, end = ms("2026-03-17T22:00:00"), ms("2026-03-18T02:30:00")
        venue.outage = holes(rng, start, end, S)
        for _ in range(6):
            stop_at = rng.randrange(1, 12)
            async with client(venue) as fetcher:
                task = asyncio.ensure_future(fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path))
                venue.served, venue.on_request = 0, lambda count, at=stop_at, task=task: count == at and task.cancel()
                before = asyncio.all_tasks()
                with contextlib.suppress(asyncio.CancelledError):  # it may be quicker than its end
                    await task
                assert {t for t in asyncio.all_tasks() - before if "BTCUSDT" in t.get_name()} == set()
            check_prefix(venue, tmp_path, "1s")
        venue.on_request = None
        async with client(venue) as fetcher:
            found = await fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(start, end)
        assert found.missing == len(venue.outage)
        assert validate(found.files[0], S, holes=False) == []


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from pmkit.clock import SystemClock
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.endpoints import Endpoints

endpoints, start, end, directory, source, at = sys.argv[1:]
real, count = os.write, [int(at)]

def write(fd, data):
    count[0] -= 1
    if count[0] == 0:
        real(fd, bytes(data)[: len(data) * 2 // 3])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(fd, data)

async def main():
    async with BinanceFetcher(Endpoints.from_json(endpoints), SystemClock(), in_flight=4) as fetcher:
        await fetcher.fetch("BTCUSDT", "1s", int(start), int(end), Path(directory), source=source)

os.write = write
asyncio.run(main())
"""


@pytest.mark.parametrize(("seed", "source"), [(1, "rest"), (2, "rest"), (3, "bulk")])
async def test_kill_9_of_a_real_process(seed: int, source: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    async with history("1s", NOW) as venue:
        start, end = ms("2026-03-15T23:20:00"), ms("2026-03-17T00:40:00")
        if source == "rest":
            start = ms("2026-03-16T20:00:00")
        venue.outage = holes(rng, start, end, S)

        async def run(begin: int, at: int, kill_at: int) -> int:
            """One process, killed by itself in a write or by us at a request."""
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CHILD, venue.endpoints().to_json(), str(begin), str(end), str(tmp_path), source,
                str(at), cwd=ROOT,
            )  # fmt: skip
            venue.served = 0
            venue.on_request = lambda count: count == kill_at and child.kill()
            code = await asyncio.wait_for(child.wait(), 30)
            check_prefix(venue, tmp_path, "1s")
            return code

        assert await run(start + 3_600_000, rng.randrange(2, 5), -1) == -signal.SIGKILL
        assert await run(start + 3_600_000, -1, rng.randrange(3, 9)) == -signal.SIGKILL
        assert await run(start + 3_600_000, -1, -1) == 0
        # Now what lies before it, killed again.
        assert await run(start, rng.randrange(2, 4), -1) == -signal.SIGKILL
        assert await run(start, -1, -1) == 0
        assert months(tmp_path)["2026-03"] == venue.csv(start, end)


async def test_two_at_once_are_refused(tmp_path: Path) -> None:
    from pmkit.errors import ConfigError

    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start, end = ms("2026-03-17T22:00:00"), ms("2026-03-18T02:30:00")
        calls = [fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path) for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(isinstance(result, ConfigError) for result in results) == [False, True]
        assert months(tmp_path)["2026-03"] == venue.csv(start, end)
