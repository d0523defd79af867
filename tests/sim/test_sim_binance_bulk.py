"""The bulk files of the local Binance against the sheet of the real ones and against its own REST."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import AsyncIterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pmkit.clock import ManualClock, SystemClock
from pmkit.sim.binance.archives import DAILY, MONTHLY, ArchiveName, day_ms, read_key
from pmkit.sim.binance.faults import Units
from pmkit.sim.binance.intervals import DAY, HOUR, MINUTE
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World
from tests.sim.binance_client import START, Setup, running

DAY_START = START - START % DAY  # 2026-11-20
S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


def key(date: str, interval: str = "15m", kind: str = "daily", symbol: str = "BTCUSDT") -> str:
    return f"/data/spot/{kind}/klines/{symbol}/{interval}/{symbol}-{interval}-{date}.zip"


async def get(setup: Setup, path: str) -> tuple[int, bytes]:
    async with setup.http.get(setup.venue.endpoints().bulk + path) as answer:
        return answer.status, await answer.read()


async def rows(setup: Setup, path: str) -> list[list[str]]:
    status, content = await get(setup, path)
    assert status == 200, content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = path.rpartition("/")[2].replace(".zip", ".csv")
        assert archive.namelist() == [name]
        text = archive.read(name).decode()
    assert text.endswith("\n") and "\r" not in text
    return [line.split(",") for line in text.splitlines()]


async def over_rest(setup: Setup, interval: str, start: int, end: int) -> list[list[str]]:
    found: list[list[Any]] = []
    while start < end:
        page = await setup.klines(symbol="BTCUSDT", interval=interval, startTime=start, endTime=end - 1, limit=1000)
        if not page:
            break
        found += page
        start = page[-1][0] + 1
    return [list(map(str, row)) for row in found]


def thin(setup: Setup, first: date, days: int) -> None:
    """Leave a minute of each day, since made files cost what their seconds cost."""
    for at in range(day_ms(first), day_ms(first) + days * DAY, DAY):
        setup.venue.faults.outage(at + MINUTE, at + DAY)


def sparse(setup: Setup, day: date) -> None:
    """Leave the first minute of each quarter of an hour of a day, for the same reason."""
    for at in range(day_ms(day), day_ms(day) + DAY, 15 * MINUTE):
        setup.venue.faults.outage(at + MINUTE, at + 15 * MINUTE)


def in_ms(found: list[list[str]]) -> list[list[str]]:
    return [[row[0][:13], *row[1:6], row[6][:13], *row[7:]] for row in found]


async def test_a_daily_file_tells_the_rows_of_rest(setup: Setup) -> None:
    for interval, count in (("1m", 1440), ("5m", 288), ("15m", 96), ("1h", 24), ("1d", 1)):
        found = await rows(setup, key("2026-11-19", interval))
        assert len(found) == count
        assert all(len(row) == 12 and len(row[0]) == 16 and row[6].endswith("999999") for row in found)
        assert in_ms(found) == await over_rest(setup, interval, DAY_START - DAY, DAY_START)


async def test_a_day_of_seconds_has_86400_rows_and_the_loop_goes_on_meanwhile(setup: Setup) -> None:
    setup.venue.limits.limit = 10**9
    making = asyncio.create_task(get(setup, key("2026-11-19", "1s")))
    wall = SystemClock()
    took: list[float] = []
    while not making.done():
        before = time.thread_time()  # of this thread alone: a busy machine takes none of it
        assert (await setup.ask("/api/v3/ping"))[0] == 200
        took.append(time.thread_time() - before)
        await wall.io_sleep(0.02)
    # Made on the loop it would be one answer of more than a second.
    asked = len(took)
    assert asked > 5 and sorted(took)[asked // 2] < 0.1 and max(took) < 0.6
    found = await rows(setup, key("2026-11-19", "1s"))
    assert [int(row[0]) // 1000 for row in found] == list(range(DAY_START - DAY, DAY_START, 1000))
    hour = await over_rest(setup, "1s", DAY_START - HOUR, DAY_START)
    assert in_ms(found)[-3600:] == hour
    assert setup.venue.limits.used("127.0.0.1") == asked + 10  # only REST costs weight


async def test_units_are_milliseconds_until_the_end_of_2024() -> None:
    async with running(day_ms(date(2025, 1, 3)) + 6 * HOUR) as setup:
        setup.venue.faults.outage(day_ms(date(2024, 12, 31)), day_ms(date(2025, 1, 1)) - HOUR)
        setup.venue.faults.outage(day_ms(date(2025, 1, 1)) + HOUR, day_ms(date(2025, 1, 2)))
        old = await rows(setup, key("2024-12-31", "1h"))
        new = await rows(setup, key("2025-01-01", "1h"))
    assert {len(row[0]) for row in old} == {len(row[6]) for row in old} == {13}
    assert {len(row[0]) for row in new} == {len(row[6]) for row in new} == {16}
    assert int(old[-1][6]) + 1 == int(new[0][0]) // 1000


def test_lines_have_the_form_of_recorded_ones(recordings: Path) -> None:
    for file, digits in (("BTCUSDT-1s-2024-03-01.ms.excerpt", 13), ("BTCUSDT-1s-2025-03-15_16.us.midnight", 16)):
        lines = (recordings / f"binance/dump/{file}.csv").read_text().splitlines()
        name = read_key(key("2024-03-01" if digits == 13 else "2025-03-15", "1s")[1:])
        assert name is not None
        assert name.units is (Units.MILLISECONDS if digits == 13 else Units.MICROSECONDS)
        assert {len(line.split(",")[0]) for line in lines} == {digits}


async def test_the_checksum_is_one_line_of_digest_and_name(setup: Setup) -> None:
    sparse(setup, date(2026, 11, 19))
    path = key("2026-11-19")
    _, content = await get(setup, path)
    status, line = await get(setup, path + ".CHECKSUM")
    assert status == 200
    assert line.decode() == f"{hashlib.sha256(content).hexdigest()}  BTCUSDT-15m-2026-11-19.zip\n"
    assert (await get(setup, path))[1] == content
    assert setup.venue.bulk.made == {"BTCUSDT-15m-2026-11-19": 1}


async def test_a_second_process_makes_the_same_file() -> None:
    async with running() as one, running() as two:
        for setup in (one, two):
            sparse(setup, date(2026, 11, 18))
        assert await get(one, key("2026-11-18")) == await get(two, key("2026-11-18"))


async def test_files_appear_hours_after_their_day() -> None:
    async with running(DAY_START + 5 * HOUR - 1000) as setup:
        thin(setup, date(2026, 11, 12), 8)
        assert (await get(setup, key("2026-11-18")))[0] == 200
        status, body = await get(setup, key("2026-11-19"))
        assert status == 404 and b"<Code>NoSuchKey</Code>" in body
        assert (await get(setup, key("2026-11-19") + ".CHECKSUM"))[0] == 404
        setup.clock.step_wall(2)
        assert (await get(setup, key("2026-11-19")))[0] == 200
        setup.venue.bulk.daily_lag_ms = 7 * DAY
        assert (await get(setup, key("2026-11-13")))[0] == 404
        assert (await get(setup, key("2026-11-12")))[0] == 200


@pytest.mark.parametrize(
    ("month", "published"),
    [("2026-02", date(2026, 3, 2)), ("2026-05", date(2026, 6, 1)), ("2026-10", date(2026, 11, 2))],
)
def test_months_appear_on_the_first_monday(month: str, published: date) -> None:
    name = read_key(key(month, "1mo", "monthly")[1:])
    assert name is not None
    assert published.weekday() == 0
    assert name.published_ms(5 * HOUR, None) == day_ms(published) + 5 * HOUR
    assert name.published_ms(5 * HOUR, DAY) == name.end_ms + DAY


async def test_a_month_is_its_days_and_its_candles_may_be_weeks() -> None:
    async with running(day_ms(date(2020, 9, 20)), assets=("BTC", "SOL")) as setup:
        thin(setup, date(2020, 8, 12), 26)  # to the end of the last week
        setup.venue.faults.outage(day_ms(date(2020, 8, 11)) + 7 * HOUR, day_ms(date(2020, 8, 12)))
        # The month of the listing: it is short, and so is its file.
        month = await rows(setup, key("2020-08", "1d", "monthly", "SOLUSDT"))
        assert int(month[0][0]) == day_ms(date(2020, 8, 11))
        assert [int(b[0]) - int(a[0]) for a, b in pairwise(month)] == [DAY] * 20
        for day in ("2020-08-11", "2020-08-31"):
            assert (await rows(setup, key(day, "1d", "daily", "SOLUSDT")))[0] in month
        assert [int(row[0]) for row in await rows(setup, key("2020-08", "1mo", "monthly", "SOLUSDT"))] == [
            day_ms(date(2020, 8, 1))
        ]
        weeks = await rows(setup, key("2020-08", "1w", "monthly", "SOLUSDT"))
        assert [int(row[0]) for row in weeks] == [day_ms(date(2020, 8, day)) for day in (10, 17, 24, 31)]


@pytest.mark.parametrize(
    "path",
    [
        key("2026-11-19", "1M", "monthly"),
        key("2026-11", "1M", "monthly"),
        key("2026-11-01", "1mo"),
        key("2026-11-19", "1w"),
        key("2026-11", "1h"),
        key("2026-02-30"),
        key("2026-11-19", symbol="NOPEUSDT"),
        key("2017-08-16"),
        key("2026-11-19").replace("spot", "futures/um"),
        key("2026-11-19").replace("/BTCUSDT-", "/ETHUSDT-"),
        "/data/",
    ],
)
async def test_paths_that_are_no_file_are_404(setup: Setup, path: str) -> None:
    assert (await get(setup, path))[0] == 404


async def test_only_reading_is_allowed(setup: Setup) -> None:
    sparse(setup, date(2026, 11, 19))
    url = setup.venue.endpoints().bulk + key("2026-11-19")
    async with setup.http.head(url) as answer:
        size = int(answer.headers["Content-Length"])
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/zip"
    assert size == len((await get(setup, key("2026-11-19")))[1])
    async with setup.http.put(url) as answer:
        assert answer.status == 405


# -- spoiled files


async def test_short_days_are_replaced_later(setup: Setup) -> None:
    path, until_ms = key("2026-11-19", "1m"), setup.clock.now_ms() + 1000
    setup.venue.faults.spoil("BTCUSDT-1m-2026-11-19", rows=456, until_ms=until_ms)
    short = await get(setup, path)
    assert (await get(setup, path + ".CHECKSUM"))[1].startswith(hashlib.sha256(short[1]).hexdigest().encode())
    found = await rows(setup, path)
    assert len(found) == 456
    setup.clock.step_wall(1)
    whole = await rows(setup, path)
    assert len(whole) == 1440 and whole[:456] == found


async def test_wrong_checksums_and_broken_files_are_told_apart(setup: Setup) -> None:
    for day in (18, 19):
        sparse(setup, date(2026, 11, day))
    setup.venue.faults.spoil("BTCUSDT-15m-2026-11-19", checksum=True)
    setup.venue.faults.spoil("BTCUSDT-15m-2026-11-18", corrupt=True)
    assert len(await rows(setup, key("2026-11-19"))) == 96
    for name in ("2026-11-19", "2026-11-18"):
        _, content = await get(setup, key(name))
        digest = (await get(setup, key(name) + ".CHECKSUM"))[1].split()[0].decode()
        assert digest != hashlib.sha256(content).hexdigest() and len(digest) == 64
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        await rows(setup, key("2026-11-18"))


async def test_units_may_mix_in_one_file_and_a_header_may_come(setup: Setup) -> None:
    for day in (18, 19):
        sparse(setup, date(2026, 11, day))
    setup.venue.faults.spoil("BTCUSDT-15m-2026-11-19", units=Units.MIXED, header=True)
    setup.venue.faults.spoil("BTCUSDT-15m-2026-11-18", units=Units.MILLISECONDS)
    header, *found = await rows(setup, key("2026-11-19"))
    assert header[0] == "open_time" and len(header) == 12
    assert [len(row[0]) for row in found] == [13] * 48 + [16] * 48
    assert in_ms(found) == await over_rest(setup, "15m", DAY_START - DAY, DAY_START)
    assert {len(row[0]) for row in await rows(setup, key("2026-11-18"))} == {13}


async def test_a_missing_file_is_missing_in_the_listing_as_well(setup: Setup) -> None:
    setup.venue.faults.spoil("BTCUSDT-1mo-2026-03", missing=True)
    assert (await get(setup, key("2026-03", "1mo", "monthly")))[0] == 404
    names = await listed(setup, prefix="data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2026")
    assert [name[-11:-4] for name in names if name.endswith(".zip")] == [f"2026-{m:02d}" for m in (1, 2, *range(4, 11))]


async def test_an_outage_is_missing_in_files_too(setup: Setup) -> None:
    before = await rows(setup, key("2026-11-19", "1m"))
    setup.venue.faults.outage(DAY_START - 3 * HOUR, DAY_START - HOUR, "BTCUSDT")
    after = await rows(setup, key("2026-11-19", "1m"))
    assert after == before[:1260] + before[1380:]
    assert in_ms(after) == await over_rest(setup, "1m", DAY_START - DAY, DAY_START)
    setup.venue.faults.outage(DAY_START - 2 * DAY, DAY_START - DAY)
    assert (await get(setup, key("2026-11-18", "1m")))[0] == 404


async def test_kept_files_are_bounded(setup: Setup) -> None:
    thin(setup, date(2026, 11, 1), 9)
    one = len((await get(setup, key("2026-11-01")))[1])
    setup.venue.bulk.kept_bytes = 3 * one
    for day in range(2, 9):
        await get(setup, key(f"2026-11-{day:02d}"))
    assert 1 <= len(setup.venue.bulk._files) <= 3
    await get(setup, key("2026-11-01"))
    assert setup.venue.bulk.made["BTCUSDT-15m-2026-11-01"] == 2


async def test_many_who_ask_at_once_wait_for_one_making(setup: Setup) -> None:
    found = await asyncio.gather(*(get(setup, key("2026-11-19", "1m")) for _ in range(5)))
    assert len(set(found)) == 1
    assert setup.venue.bulk.made == {"BTCUSDT-1m-2026-11-19": 1}


async def test_the_venue_closes_within_a_second_while_a_month_is_made() -> None:
    clock = ManualClock(START)
    venue = BinanceVenue(World(7, clock, ("BTC",)), clock)
    async with venue:
        name = ArchiveName("BTCUSDT", "1s", date(2026, 9, 1), True)
        making = asyncio.create_task(venue.bulk.file(name))
        wall = SystemClock()
        await wall.io_sleep(0.2)
        before = wall.io_monotonic()
        await venue.close()
        assert wall.io_monotonic() - before < 1.0
        with pytest.raises(Exception, match="going away"):
            await making
    assert venue.failures == []


# -- listing


async def listed(setup: Setup, tag: str = "Contents/{s}Key", **query: Any) -> list[str]:
    async with setup.http.get(setup.venue.endpoints().bulk + "/data.binance.vision", params=query) as answer:
        assert answer.status == 200
        tree = ET.fromstring(await answer.read())
    assert tree.tag == S3 + "ListBucketResult"
    path = "/".join(S3 + part for part in tag.replace("{s}", "").split("/"))
    return [element.text or "" for element in tree.findall(path)]


async def test_the_listing_pages_by_marker_and_by_token(setup: Setup) -> None:
    prefix = "data/spot/daily/klines/BTCUSDT/1s/"
    first = await listed(setup, prefix=prefix, delimiter="/")
    assert len(first) == 1000
    assert first[0] == prefix + "BTCUSDT-1s-2017-08-17.zip" and first[1] == first[0] + ".CHECKSUM"
    assert await listed(setup, "IsTruncated", prefix=prefix) == ["true"]
    second = await listed(setup, prefix=prefix, marker=first[-1])
    assert second[0] == prefix + "BTCUSDT-1s-2018-12-30.zip"
    query = {"prefix": prefix, "list-type": "2"}
    token = (await listed(setup, "NextContinuationToken", **query))[0]
    assert await listed(setup, **query, **{"continuation-token": token}) == second
    newest = await listed(setup, prefix=prefix, marker=prefix + "BTCUSDT-1s-2026-11-18.zip.CHECKSUM")
    assert [name.removeprefix(prefix) for name in newest] == [
        "BTCUSDT-1s-2026-11-19.zip",
        "BTCUSDT-1s-2026-11-19.zip.CHECKSUM",
    ]
    assert await listed(setup, "IsTruncated", prefix=prefix, marker=first[-1], **{"max-keys": "2"}) == ["true"]


async def test_the_listing_knows_folders_and_unknown_prefixes_are_empty(setup: Setup) -> None:
    async def folders(prefix: str) -> list[str]:
        names = await listed(setup, "CommonPrefixes/Prefix", prefix=prefix, delimiter="/")
        return [name.removeprefix(prefix) for name in names]

    assert await folders("data/spot/") == ["daily/", "monthly/"]
    assert await folders("data/spot/daily/klines/") == ["BTCUSDT/", "ETHUSDT/"]
    assert set(await folders("data/spot/daily/klines/BTCUSDT/")) == {f"{name}/" for name in DAILY}
    assert set(await folders("data/spot/monthly/klines/BTCUSDT/")) == {f"{name}/" for name in MONTHLY}
    for prefix in ("data/spot/daily/klines/NOPEUSDT/", "nope/", "data/spot/daily/klines/BTCUSDT/1M/"):
        assert await folders(prefix) == [] and await listed(setup, prefix=prefix) == []
