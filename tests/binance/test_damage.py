"""What disks, people and networks do to a long fetch: the CSVs are whole afterwards, and no report tells lies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pmkit.clock import ManualClock
from pmkit.config import values
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.gaps import LOST, read_report
from pmkit.data.binance.history import Fetched, Progress
from pmkit.data.binance.rows import BadRows, page_rows
from pmkit.data.candle_file import FileGone
from pmkit.data.storage import HEADER, CandleFile, candles, last_time
from pmkit.errors import ConfigError, NotSent, VenueUnavailable
from tests.binance.history_venue import HistoryVenue, history, months, ms
from tests.websocket_peers import fast_clock

S, HOUR = 1000, 3_600_000
NOW = "2026-03-20T12:00:10"
START = ms("2026-03-19T10:00:00")
NAME = "BTCUSDT-1s-2026-03.csv"


def client(venue: HistoryVenue) -> BinanceFetcher:
    return BinanceFetcher(venue.endpoints(), fast_clock(), in_flight=3)


async def fetch(venue: HistoryVenue, directory: Path, end: int, start: int = START, **options: Any) -> Fetched:
    async with client(venue) as fetcher:
        return await fetcher.fetch("BTCUSDT", venue.interval, start, end, directory, **options)


# Files that change under us.


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("at", [1_000, 8_000])
async def test_st_09_a_file_that_is_taken_away_while_it_is_written(tmp_path: Path, at: int, replaced: bool) -> None:
    path = tmp_path / "BTCUSDT-1s" / NAME

    def moved(progress: Progress) -> None:
        if progress.rows >= at and path.exists() and not (tmp_path / "away").exists():
            path.rename(tmp_path / "away")
            if replaced:
                path.write_bytes(HEADER)

    async with history("1s", NOW) as venue:
        end = START + 8_000 * S
        with pytest.raises(FileGone, match="removed or replaced while it was written"):
            await fetch(venue, tmp_path, end, progress=moved)
        assert not (tmp_path / "BTCUSDT-1s" / "BTCUSDT-1s.gaps.json").exists()  # it would tell of a gap of the venue
        found = await fetch(venue, tmp_path, end)
        assert (found.candles, found.gaps) == (8_000, [])
        assert months(tmp_path)["2026-03"] == venue.csv(START, end)


async def test_rows_that_were_taken_out_are_not_said_to_be_the_venues_holes(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        venue.outage = set(range(START + 300 * S, START + 310 * S, S))
        end = START + 5_000 * S
        path = (await fetch(venue, tmp_path, end)).files[0]
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join(lines[:2000] + lines[2100:]))
        for _ in range(2):  # also when it is known already
            found = await fetch(venue, tmp_path, end)
            assert [(gap.missing, gap.why == LOST) for gap in found.gaps] == [(10, False), (100, True)]
            assert any(LOST in note for note in found.notes)
        path.unlink()
        found = await fetch(venue, tmp_path, end)
        assert [(gap.missing, gap.why == LOST) for gap in found.gaps] == [(10, False)]


async def test_a_file_with_rubbish_inside_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        path = (await fetch(venue, tmp_path, START + 5_000 * S)).files[0]
        good = path.read_bytes()
        bad = good[:100_000] + b"rubbish,\n" + good[100_000:]
        path.write_bytes(bad)
        path.with_name("BTCUSDT-1s.gaps.json").unlink()
        with pytest.raises(ConfigError, match="rows that are no candles"):
            await fetch(venue, tmp_path, START + 5_000 * S)
        assert path.read_bytes() == bad


async def test_st_04_zeros_before_rows_that_did_reach_the_disk(tmp_path: Path) -> None:
    """Pages of a file reach the disk in any order: after a power cut good rows may stand behind a run of zeros."""
    async with history("1s", NOW) as venue:
        path = (await fetch(venue, tmp_path, START + 5_000 * S)).files[0]
        good = bytearray(path.read_bytes())
        good[200_000:204_096] = bytes(4_096)
        path.write_bytes(bytes(good))
        last = last_time(path)
        assert last is not None and last < START + 5_000 * S - S  # readers see the end that writers see
        assert [candle.timestamp for candle in candles(path)][-1] == last
        found = await fetch(venue, tmp_path, START + 6_000 * S)
        assert (found.candles, found.gaps) == (6_000, [])
        assert months(tmp_path)["2026-03"] == venue.csv(START, START + 6_000 * S)


async def test_st_06_every_fetch_twice_and_overlapping(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        for hour in (0, 1, 1, 0, 2):
            for _ in range(2):
                await fetch(venue, tmp_path, START + (hour + 1) * HOUR + 7 * S, START + hour * HOUR - 7 * S)
        assert months(tmp_path)["2026-03"] == venue.csv(START - 7 * S, START + 3 * HOUR + 7 * S)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"])
async def test_st_05_months_are_those_of_utc_in_every_zone(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        async with history("15m", NOW) as venue:
            venue.first_ms = ms("2026-02-01")
            start, end = ms("2026-02-28T10:00:00"), ms("2026-03-01T16:00:00")
            await fetch(venue, tmp_path, end, start)
            edge = ms("2026-03-01")
            held = months(tmp_path, interval="15m")
            assert held == {"2026-02": venue.csv(start, edge), "2026-03": venue.csv(edge, end)}
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_dst_changes_neither_days_nor_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New York has 23 hours on 2026-03-08; at Binance and in PMKIT_PERIOD every day is one of UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        start, end = values.period("2026-03-07..2026-03-10").bounds(datetime(2026, 3, 20, tzinfo=UTC))
        async with history("15m", NOW) as venue, client(venue) as fetcher:
            found = await fetcher.fetch("BTCUSDT", "15m", start, end, tmp_path)
            assert (found.candles, found.missing) == (3 * 96, 0)
            held = months(tmp_path, interval="15m")["2026-03"]
            assert held == venue.csv(ms("2026-03-07"), ms("2026-03-10"))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
async def test_a_local_clock_that_is_wrong_changes_no_row(tmp_path: Path, hours: int) -> None:
    async with history("1s", NOW) as venue:
        clock = ManualClock(ms(NOW) + hours * HOUR)
        async with BinanceFetcher(venue.endpoints(), clock) as fetcher:
            found = await fetcher.fetch("BTCUSDT", "1s", ms(NOW) - HOUR, None, tmp_path)
            assert found.end_ms == ms("2026-03-20T12:00:08")  # what ended within two seconds is left for the next run
            assert months(tmp_path)["2026-03"] == venue.csv(ms(NOW) - HOUR, found.end_ms)


@pytest.mark.parametrize("text", ['=cmd|"/c calc"!A1', "+1.0", "1.0\n2,3", "1,0", "NaN", "1e5", "-1.0", "", "１.0"])
def test_st_07_text_that_is_no_number_never_reaches_a_file(text: str) -> None:
    body = json.dumps([[START, text, "1.0", "1.0", "1.0", "1.0", 0, "0", 0, "0", "0", "0"]])
    with pytest.raises(BadRows):
        page_rows(body.encode(), START, START + S, S)


# Disks.


class FullFile:
    """A file on a disk that has room for so many bytes: what is left in its buffer is written once more at the end."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self._room = room

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(data))

    def close(self) -> None:
        self._file.close()
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def full(monkeypatch: pytest.MonkeyPatch, part: str, room: int) -> Iterator[None]:
    """The disk is full: for the CSV, for downloads, or where a head is joined."""
    real_write, real_temporary, left = os.write, tempfile.TemporaryFile, [room]

    def write(fd: int, data: Any) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real_write(fd, data[: left[0]])
        left[0] -= done
        return done

    def copy(source: Any, target: Any, length: int) -> None:
        target.write(source.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if part == "csv":
            patch.setattr(os, "write", write)
        elif part == "download":
            patch.setattr(tempfile, "TemporaryFile", lambda **options: FullFile(real_temporary(**options), room))
        else:
            patch.setattr(shutil, "copyfileobj", copy)
        yield


@pytest.mark.parametrize(
    ("part", "room"), [("csv", 0), ("csv", 300_001), ("download", 0), ("download", 200_000), ("join", 0)]
)
async def test_st_01_a_full_disk_is_said_and_the_next_run_goes_on(
    tmp_path: Path, part: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history("1s", NOW) as venue:
        start, end = ms("2026-03-15T23:00:00"), ms("2026-03-17T01:00:00")
        if part == "join":
            await fetch(venue, tmp_path, end, end - HOUR)
            end -= HOUR  # what is asked for now lies before that
            start = end - HOUR
        with full(monkeypatch, part, room), pytest.raises(ConfigError, match="no room on the disk.*goes on from there"):
            await fetch(venue, tmp_path, end, start, source="rest" if part == "join" else "bulk")
        left = sorted(path.name for path in (tmp_path / "BTCUSDT-1s").iterdir())
        assert [name for name in left if name.endswith(".new")] == []
        if part == "join":
            end += HOUR
        found = await fetch(venue, tmp_path, end, start, source="bulk")
        assert (found.missing, found.gaps) == (0, [])
        assert months(tmp_path)["2026-03"] == venue.csv(start, end)
        assert sorted(os.listdir(tmp_path / "BTCUSDT-1s")) == [NAME, "BTCUSDT-1s.gaps.json"]


async def test_st_08_a_slow_disk_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fsync ends only after the loop has run: on the loop it would never end."""
    loop, real, waited = asyncio.get_running_loop(), os.fsync, list[bool]()

    def fsync(fd: int) -> None:
        ran = threading.Event()
        loop.call_soon_threadsafe(ran.set)
        waited.append(ran.wait(5))
        real(fd)

    async with history("1s", NOW) as venue:
        monkeypatch.setattr(os, "fsync", fsync)
        await fetch(venue, tmp_path, START + 3_000 * S)
    assert waited and all(waited)


async def test_a_head_or_file_that_changes_between_plan_and_start_is_not_written_to(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        path = (await fetch(venue, tmp_path, START + 3_000 * S)).files[0]
        before = path.read_bytes()

        def cut(count: int) -> None:
            if count == 2:  # the first page behind the first candle's: the plan is made
                path.write_bytes(before[: before.rfind(b"\n", 0, -1) + 1])

        venue.served, venue.on_request = 0, cut
        with pytest.raises(ConfigError, match="changed by somebody else"):
            await fetch(venue, tmp_path, START + 5_000 * S)
        venue.on_request = None
        await fetch(venue, tmp_path, START + 5_000 * S)
        assert months(tmp_path)["2026-03"] == venue.csv(START, START + 5_000 * S)
        with CandleFile(path) as file:
            assert file.cut == 0


# Networks: a lid that is closed, a router that starts anew.


class Outage:
    """From a number of rows on nothing can be reached, for so many market seconds (of the test's fast clock)."""

    def __init__(self, venue: HistoryVenue, rows: int, seconds: float) -> None:
        self.down = False
        self.refused = 0
        self.told: list[str] = []
        self._rows, self._seconds, self._over = rows, seconds, False
        self._real, self._bulk = venue.rows, venue.bulk
        venue.rows, venue.bulk = self.rows, self.bulk  # type: ignore[method-assign]

    def rows(self, query: Any) -> Any:
        if self.down:
            self.refused += 1
            raise web.HTTPBadGateway
        return self._real(query)

    async def bulk(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            self.refused += 1
            raise web.HTTPBadGateway
        return await self._bulk(request)

    def moved(self, progress: Progress) -> None:
        if progress.trouble or self.told:
            self.told.append(progress.trouble)
        if progress.rows >= self._rows and not self._over:
            self.down = self._over = True
            asyncio.get_running_loop().call_later(self._seconds / 100, self._end)

    def _end(self) -> None:
        self.down = False


@pytest.mark.parametrize("source", ["rest", "bulk"])
async def test_a_network_that_is_away_for_minutes_is_waited_for(tmp_path: Path, source: str) -> None:
    async with history("1m", NOW) as venue:
        outage = Outage(venue, 1_000, 120.0)
        start, end = ms("2026-03-02"), ms("2026-03-18")
        found = await fetch(venue, tmp_path, end, start, source=source, progress=outage.moved, patience=3_000.0)
        assert outage.refused >= 5 and "502" in outage.told[0] and "" in outage.told
        assert months(tmp_path, interval="1m")["2026-03"] == venue.csv(start, end)
        if source == "bulk":  # the host of the files is left alone for a while, not for good
            assert "left alone" in " ".join(found.notes) or found.downloads >= 12
            assert found.downloads > 4


async def test_patience_ends_and_closing_does_not_wait_for_it(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        start, end = ms("2026-03-02"), ms("2026-03-18")
        outage = Outage(venue, 1_000, 1e9)
        with pytest.raises(VenueUnavailable, match="502"):
            await fetch(venue, tmp_path, end, start, source="rest", progress=outage.moved, patience=30.0)
        report = read_report(tmp_path / "BTCUSDT-1m" / "BTCUSDT-1m.gaps.json")
        assert report is not None and not report.complete and report.gaps == []
        outage.down = False
        outage = Outage(venue, 1_000, 1e9)
        async with client(venue) as fetcher:
            fetching = asyncio.ensure_future(
                fetcher.fetch("BTCUSDT", "1m", start, end, tmp_path, source="rest", progress=outage.moved, patience=1e9)
            )
            async with asyncio.timeout(8):
                while not outage.told:  # noqa: ASYNC110 - what is awaited has no event
                    await asyncio.sleep(0.002)
            await fetcher.close()
            with pytest.raises((VenueUnavailable, NotSent)):
                await asyncio.wait_for(fetching, 8)
