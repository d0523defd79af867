"""Recorded days: the local Binance serves real rows in three ways, and they are the same."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import reduce
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from pmkit.clock import ManualClock, ScaledClock
from pmkit.errors import ConfigError
from pmkit.sim.__main__ import SimSettings
from pmkit.sim.binance.archives import day_ms
from pmkit.sim.binance.intervals import DAY, HOUR, MINUTE
from pmkit.sim.binance.recorded import RecordedDay, read_day
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.venues import LocalVenues
from pmkit.sim.world import World
from tests.sim.binance_client import Setup, receive

NAME = "BTCUSDT-1s-2026-03-13"
DAY_START = day_ms(date(2026, 3, 13))


@pytest.fixture(scope="module")
def path(recordings: Path) -> Path:
    return recordings / f"binance/sessions/{NAME}.zip"


@pytest.fixture(scope="module")
def whole(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(scope="module")
def lines(path: Path) -> list[list[str]]:
    """The recorded rows in milliseconds."""
    with zipfile.ZipFile(path) as archive:
        rows = [line.split(",") for line in archive.read(f"{NAME}.csv").decode().splitlines()]
    return [[row[0][:13], *row[1:6], row[6][:13], *row[7:]] for row in rows]


@asynccontextmanager
async def serving(now: int, path: Path) -> AsyncIterator[Setup]:
    clock = ManualClock(now)
    venue = BinanceVenue(World(7, clock, ("BTC", "ETH")), clock)
    venue.load_day(path)
    venue.limits.limit = 10**9
    async with venue, aiohttp.ClientSession() as http:
        yield Setup(venue, clock, http)
    assert venue.failures == []


async def test_rest_and_bulk_file_tell_every_recorded_row(path: Path, lines: list[list[str]], whole: bytes) -> None:
    async with serving(DAY_START + DAY + 6 * HOUR, path) as setup:
        found: list[list[str]] = []
        for start in range(DAY_START, DAY_START + DAY, 1000_000):
            page = await setup.klines(
                symbol="BTCUSDT",
                interval="1s",
                startTime=start,
                endTime=min(start + 999_000, DAY_START + DAY - 1),
                limit=1000,
            )
            found += [list(map(str, row)) for row in page]
        assert found == lines and len(found) == 86_400
        url = setup.rest + f"/data/spot/daily/klines/BTCUSDT/1s/{NAME}.zip"
        async with setup.http.get(url) as answer:
            archive = await answer.read()
        assert hashlib.sha256(archive).digest() == hashlib.sha256(whole).digest()
        async with setup.http.get(url + ".CHECKSUM") as answer:
            assert (await answer.text()) == f"{hashlib.sha256(archive).hexdigest()}  {NAME}.zip\n"
        assert setup.venue.bulk.made == {}


async def test_the_socket_tells_them_live_over_midnight(path: Path, lines: list[list[str]]) -> None:
    async with serving(DAY_START - 3_500, path) as setup, setup.socket("/ws/btcusdt@kline_1s") as ws:
        for _ in range(64):
            await setup.clock.advance(1)
        frames = [(await receive(ws))["k"] for _ in range(64)]
        assert [frame["t"] for frame in frames] == list(range(DAY_START - 4_000, DAY_START + 60_000, 1000))
        for frame, row in zip(frames[4:], lines, strict=False):
            fields = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")
            assert [str(frame[name]) for name in fields] == row
            assert (frame["f"] == -1) == (frame["n"] == 0)
        traded = [frame for frame in frames[4:] if frame["n"]]
        assert [b["f"] - a["L"] for a, b in pairwise(traded)] == [1] * (len(traded) - 1)


async def test_longer_candles_are_sums_of_recorded_seconds(path: Path, lines: list[list[str]]) -> None:
    async with serving(DAY_START + DAY + HOUR, path) as setup:
        rows = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=DAY_START, limit=20)
        for i, row in enumerate(rows):
            part = lines[60 * i : 60 * i + 60]
            traded = [second for second in part if second[8] != "0"]
            assert (row[0], row[1], row[4]) == (int(part[0][0]), traded[0][1], traded[-1][4])
            assert float(row[2]) == max(float(second[2]) for second in traded)
            assert float(row[3]) == min(float(second[3]) for second in traded)
            assert row[8] == sum(int(second[8]) for second in part)
            units = reduce(lambda total, second: total + int(second[5].replace(".", "")), part, 0)
            assert int(row[5].replace(".", "")) == units
        day = (await setup.klines(symbol="BTCUSDT", interval="1d", startTime=DAY_START, limit=1))[0]
        assert (day[1], day[4], day[8]) == (lines[0][1], lines[-1][4], sum(int(line[8]) for line in lines))


async def test_the_forming_second_of_a_recorded_day_grows_into_it(path: Path, lines: list[list[str]]) -> None:
    async with serving(DAY_START + 1_000, path) as setup:
        counts = []
        for _ in range(4):
            await setup.clock.advance(0.2)
            row = (await setup.klines(symbol="BTCUSDT", interval="1s", limit=1))[0]
            assert row[0] == DAY_START + 1_000
            counts.append(row[8])
        assert counts == sorted(counts) and 0 < counts[0] < counts[-1] < int(lines[1][8])


async def test_scripted_outages_go_through_a_recorded_day(path: Path, lines: list[list[str]]) -> None:
    async with serving(DAY_START + DAY + 6 * HOUR, path) as setup:
        setup.venue.faults.outage(DAY_START + 10_000, DAY_START + 20_000, "BTCUSDT")
        url = setup.rest + f"/data/spot/daily/klines/BTCUSDT/1s/{NAME}.zip"
        async with setup.http.get(url) as answer:
            text = zipfile.ZipFile(io.BytesIO(await answer.read())).read(f"{NAME}.csv").decode()
        rows = [line.split(",") for line in text.splitlines()]
        assert [[row[0][:13], *row[1:6], row[6][:13], *row[7:]] for row in rows] == lines[:10] + lines[20:]


def _zip(tmp_path: Path, name: str, text: str) -> Path:
    made = tmp_path / name
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name.replace(".zip", ".csv"), text)
    return made


def _line(second: int, scale: int = 1000) -> str:
    opened = DAY_START + second * 1000
    price = "1.00000000,1.00000000,1.00000000,1.00000000,0.00000000"
    return f"{opened * scale},{price},{(opened + 1000) * scale - 1},0.00000000,0,0.00000000,0.00000000,0\n"


async def test_a_short_recorded_day_is_a_day_with_holes(tmp_path: Path) -> None:
    short = _zip(tmp_path, f"{NAME}.zip", "".join(_line(s, 1) for s in (0, 1, 5, 6)))
    day = read_day(short)
    assert (day.rows, day.gaps()[0]) == (4, (DAY_START // 1000 + 2, DAY_START // 1000 + 5))
    async with serving(DAY_START + DAY + 6 * HOUR, short) as setup:
        rows = await setup.klines(symbol="BTCUSDT", interval="1s", startTime=DAY_START, limit=5)
        assert [row[0] - DAY_START for row in rows] == [0, 1000, 5000, 6000, DAY]
        minutes = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=DAY_START, limit=2)
        assert [row[0] - DAY_START for row in minutes] == [0, DAY]
        assert minutes[0][1:6] == ["1.00000000"] * 4 + ["0.00000000"]
        async with setup.http.get(setup.rest + f"/data/spot/daily/klines/BTCUSDT/1s/{NAME}.zip") as answer:
            assert await answer.read() == short.read_bytes()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BTCUSDT-1m-2026-03-13.zip", _line(0)),
        ("../x.zip", _line(0)),
        (f"{NAME}.zip", ""),
        (f"{NAME}.zip", "open_time,open\n"),
        (f"{NAME}.zip", _line(0) + _line(0)),
        (f"{NAME}.zip", _line(-1)),
        (f"{NAME}.zip", _line(86_400)),
        (f"{NAME}.zip", _line(0).replace("1.00000000", "1.0", 1)),
        ("BTCUSDT-1s-2026-02-30.zip", _line(0)),
    ],
)
def test_files_that_are_no_such_day_are_refused(tmp_path: Path, name: str, text: str) -> None:
    made = _zip(tmp_path, name.replace("../", ""), text)
    with pytest.raises(ConfigError, match=made.name[:3]):
        read_day(made)


def test_unreadable_files_and_unserved_symbols_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_day(tmp_path / f"{NAME}.zip")
    (tmp_path / f"{NAME}.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_day(tmp_path / f"{NAME}.zip")
    clock = ManualClock(DAY_START)
    venue = BinanceVenue(World(7, clock, ("ETH",)), clock)
    with pytest.raises(ConfigError, match="no BTCUSDT"):
        venue.add_day(RecordedDay("BTCUSDT", DAY_START, b"", [None] * 86_400, [0] * 86_400))


async def test_all_venues_can_start_inside_a_recorded_day(path: Path, lines: list[list[str]]) -> None:
    text = json.dumps({"assets": ["BTC"], "factor": 20, "start": "2026-03-13T00:10:00Z", "binance_days": [str(path)]})
    read = SimSettings.read([text])
    async with LocalVenues(
        assets=read.assets, factor=read.factor, start=read.start, binance_days=read.binance_days
    ) as v:
        assert isinstance(v.clock, ScaledClock)
        assert 0 <= v.clock.now_ms() - DAY_START - 10 * MINUTE < 100_000
        url = v.endpoints.binance.rest[0] + f"/api/v3/klines?symbol=BTCUSDT&interval=1s&startTime={DAY_START}&limit=600"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert [list(map(str, row)) for row in await answer.json()] == lines[:600]
        assert v.failures == []


def test_a_start_must_be_aware_and_the_only_wish() -> None:
    moment = datetime(2026, 3, 13, tzinfo=UTC)
    for arguments in (
        {"start": moment.replace(tzinfo=None)},
        {"start": moment, "first_boundary_wall_seconds": 5.0},
    ):
        with pytest.raises(ConfigError, match="start"):
            LocalVenues(assets=("BTC",), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="start"):
        SimSettings.read(['{"start": "2026-03-13T00:00:00"}'])
