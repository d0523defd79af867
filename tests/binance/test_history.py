"""History over REST: which rows, in which files, and what is refused. Plans and costs."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.data.binance import plan
from pmkit.data.binance.archive import Archive
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.gaps import GapReport, read_report
from pmkit.data.binance.history import Progress
from pmkit.data.binance.plan import Bulk, Costs, Kind, Month, Page, Source, Target
from pmkit.data.binance.rows import BadRows, page_rows
from pmkit.data.storage import HEADER, CandleFile, validate
from pmkit.errors import ConfigError, MarketNotFound, ProtocolChanged, RateLimited
from tests.binance.history_venue import DAY, HistoryVenue, history, months, ms
from tests.websocket_peers import fast_clock

NOW = "2026-03-20T12:00:10"
S = 1000


def client(venue: HistoryVenue, **options: float) -> BinanceFetcher:
    return BinanceFetcher(venue.endpoints(), fast_clock(), **options)  # type: ignore[arg-type]


def report_of(path: Path | None) -> GapReport:
    assert path is not None
    found = read_report(path)
    assert found is not None
    return found


# Rows and files.


async def test_a_range_is_whole_in_order_and_in_the_venues_text(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start, end = ms("2026-03-19T10:00:00"), ms("2026-03-19T13:10:00")
        seen: list[Progress] = []
        found = await fetcher.fetch("btcusdt", "1s", start, end, tmp_path, progress=seen.append)
        assert months(tmp_path) == {"2026-03": venue.csv(start, end)}
        assert (found.rows, found.candles, found.missing, found.gaps, found.notes) == (11_400, 11_400, 0, [], [])
        assert found.requests == 12 and found.source is Source.REST
        assert [each.done for each in seen] == sorted(each.done for each in seen)
        assert seen[-1].done == seen[-1].total == seen[-1].rows == 11_400
        assert all(query["limit"] in ("1", "1000") for query in venue.queries)
        # The same again asks for nothing but the first candle and the time.
        before = len(venue.queries)
        again = await fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path)
        assert (again.rows, again.candles, again.requests) == (0, 11_400, 0)
        assert len(venue.queries) == before + 1
        assert validate(found.files[0], S) == []


async def test_months_have_files_of_their_own(tmp_path: Path) -> None:
    async with history("15m", NOW) as venue, client(venue) as fetcher:
        venue.first_ms = ms("2025-11-05T07:30:00")
        found = await fetcher.fetch("BTCUSDT", "15m", None, None, tmp_path)
        end = ms("2026-03-20T12:00:00")
        names = ["2025-11", "2025-12", "2026-01", "2026-02", "2026-03"]
        files = months(tmp_path, interval="15m")
        assert list(files) == names == [path.stem[-7:] for path in found.files]
        assert b"".join(data[len(HEADER) :] for data in files.values()) == venue.csv(0, end, header=False)
        assert (found.start_ms, found.end_ms) == (venue.first_ms, end)
        assert report_of(found.report).complete


async def test_what_lies_before_and_between_is_filled_in(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue, client(venue) as fetcher:
        day = ms("2026-03-10")
        for first, last in ((4, 5), (8, 9), (2, 3), (0, 1), (0, 10)):
            await fetcher.fetch("BTCUSDT", "1m", day + first * DAY // 2, day + last * DAY // 2, tmp_path)
            held = months(tmp_path, interval="1m")["2026-03"]
            # Without a hole from the earliest to the latest that was asked for so far.
            low, high = {4: (4, 5), 8: (4, 9), 2: (2, 9)}.get(first, (0, max(9, last)))
            assert held == venue.csv(day + low * DAY // 2, day + high * DAY // 2)
        assert not list((tmp_path / "BTCUSDT-1m").glob("*.head"))


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 2000])
async def test_rs_19_every_length_and_holes_at_every_seam(size: int, tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start = ms("2026-03-19T10:00:00")
        seams = range(998, 1002), range(999, 1000), range(1000, 1001)
        for number, hole in enumerate((range(0), range(1), *seams, range(size - 1, size), range(size))):
            venue.outage = {start + at * S for at in hole if at < size}
            found = await fetcher.fetch("BTCUSDT", "1s", start, start + size * S, tmp_path / str(number))
            rows = size - len(venue.outage)
            assert (found.rows, found.candles, found.missing) == (rows, rows, size - rows)
            held = months(tmp_path / str(number)).get("2026-03", HEADER)
            assert held == venue.csv(start, start + size * S)
            streamed = [row.open_ms async for row in fetcher.klines("BTCUSDT", "1s", start, start + size * S)]
            assert streamed == list(venue.opens(start, start + size * S))


async def test_rs_19_nothing_at_all(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        venue.first_ms = ms("2026-03-20T12:00:00")
        found = await fetcher.fetch("BTCUSDT", "1s", ms("2026-03-19"), ms("2026-03-19T01:00:00"), tmp_path)
        assert (found.rows, found.candles, found.gaps, found.files) == (0, 0, [], [])
        assert [row async for row in fetcher.klines("BTCUSDT", "1s", ms("2026-03-19"), ms("2026-03-19"))] == []


async def test_holes_are_reported_and_never_filled(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start, end = ms("2026-03-19T23:00:00"), ms("2026-03-20T01:00:00")
        # At the start, in the middle over page edges, one second, at the end.
        gone = [(0, 3), (900, 2950), (5000, 5001), (7190, 7200)]
        venue.outage = {start + at * S for first, last in gone for at in range(first, last)}
        found = await fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(start, end)
        assert [(gap.first_ms, gap.last_ms + S, gap.missing) for gap in found.gaps] == [
            (start + first * S, start + last * S, last - first) for first, last in gone
        ]
        report = report_of(found.report)
        assert report.missing == found.missing == len(venue.outage)
        assert report.candles + report.missing == 7200
        assert json.loads(found.report.read_text())["gaps"][2]["first"] == "2026-03-20T00:23:20.000Z"  # type: ignore[union-attr]


async def test_known_outages_are_named(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue, client(venue) as fetcher:
        venue.first_ms = ms("2020-06-01")
        start, end = ms("2020-06-28"), ms("2020-06-29")
        venue.outage = set(range(ms("2020-06-28T02:01:00"), ms("2020-06-28T05:30:00"), 60_000)) | {end - 60_000}
        found = await fetcher.fetch("BTCUSDT", "1m", start, end, tmp_path)
        assert [gap.why.startswith("known outage") for gap in found.gaps] == [True, False]


@pytest.mark.parametrize(("interval", "length", "off"), [("1m", 60_000, 14_789), ("1s", 1000, 789)])
async def test_off_grid_candles_are_kept_and_reported(tmp_path: Path, interval: str, length: int, off: int) -> None:
    async with history(interval, NOW) as venue, client(venue) as fetcher:
        start = ms("2026-03-11")
        end = start + 1440 * length
        venue.off_grid = {start + at * length: start + at * length + off for at in range(995, 1010)}
        found = await fetcher.fetch("BTCUSDT", interval, start, end, tmp_path)
        assert months(tmp_path, interval=interval)["2026-03"] == venue.csv(start, end)
        assert found.off_grid == 15 and any("grid" in note for note in found.notes)
        assert [problem.kind for problem in validate(found.files[0], length)] == ["grid"] * 15
        again = await fetcher.fetch("BTCUSDT", interval, start, end, tmp_path)
        assert again.rows == 0


async def test_late_finalisation_leaves_the_newest_for_the_next_run(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        found = await fetcher.fetch("BTCUSDT", "1s", ms("2026-03-20T12:00:00"), None, tmp_path)
        assert found.end_ms == ms("2026-03-20T12:00:08")
        assert b"777.0" not in months(tmp_path)["2026-03"]
        venue.now_ms += 5 * S
        await fetcher.fetch("BTCUSDT", "1s", ms("2026-03-20T12:00:00"), None, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(ms("2026-03-20T12:00:00"), ms("2026-03-20T12:00:13"))


async def test_a_page_that_is_short_for_a_moment_is_asked_for_again(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start = ms("2026-03-20T10:00:00")
        real, short = venue.rows, [2]

        def rows(query):  # type: ignore[no-untyped-def]
            found = real(query)
            if short[0] and query.get("limit") == "1000":
                short[0] -= 1
                return found[: len(found) // 2]
            return found

        venue.rows = rows  # type: ignore[method-assign]
        found = await fetcher.fetch("BTCUSDT", "1s", start, start + 3000 * S, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(start, start + 3000 * S) and found.gaps == []


async def test_rows_of_elsewhere_end_the_run_and_keep_what_is_whole(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start = ms("2026-03-20T10:00:00")
        real = venue.rows

        def rows(query):  # type: ignore[no-untyped-def]
            found = real(query)
            return found if int(query["startTime"]) < start + 2000 * S else [found[0], *found]

        venue.rows = rows  # type: ignore[method-assign]
        with pytest.raises(ProtocolChanged, match="not in order"):
            await fetcher.fetch("BTCUSDT", "1s", start, start + 4000 * S, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(start, start + 2000 * S)
        report = report_of(tmp_path / "BTCUSDT-1s" / "BTCUSDT-1s.gaps.json")
        assert not report.complete and report.end_ms == start + 1999 * S + 1


async def test_rs_02_418_ends_the_run_at_once_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        start = ms("2026-03-20T10:00:00")

        def ban(count: int) -> None:
            if count == 5:
                body = json.dumps({"code": -1003, "msg": "banned"})
                venue.always = (418, body, {"Retry-After": "120"})

        venue.on_request = ban
        async with client(venue, in_flight=2) as fetcher:
            with pytest.raises(RateLimited, match="banned"):
                await fetcher.fetch("BTCUSDT", "1s", start, start + 7000 * S, tmp_path)
            asked = len(venue.requests)
            await asyncio.sleep(0.05)
            assert len(venue.requests) == asked
        venue.always = venue.on_request = None
        async with client(venue) as fetcher:
            await fetcher.fetch("BTCUSDT", "1s", start, start + 7000 * S, tmp_path)
        assert months(tmp_path)["2026-03"] == venue.csv(start, start + 7000 * S)


async def test_the_share_of_the_weight_is_never_exceeded(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue:
        venue.limit = 200
        async with client(venue, share=0.4) as fetcher:
            venue.clock = fetcher.clock
            assert await fetcher.weight_per_minute("BTCUSDT") == 80
            sent: list[tuple[float, int]] = []
            spend = fetcher.budget.spend

            def note(weight: int) -> None:
                sent.append((fetcher.clock.monotonic(), weight))
                spend(weight)

            fetcher.budget.spend = note  # type: ignore[method-assign]
            start = ms("2026-03-19T10:00:00")
            found = await fetcher.fetch("BTCUSDT", "1s", start, start + 70_000 * S, tmp_path)
            assert months(tmp_path)["2026-03"] == venue.csv(start, start + 70_000 * S)
        assert found.weight == venue.weight - 20 == sum(weight for _, weight in sent) >= 140
        for at, _ in sent:
            assert sum(weight for moment, weight in sent if at - 60 < moment <= at) <= 80


# What is refused.


async def test_bad_input_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        good = datetime(2026, 3, 20, tzinfo=UTC)
        for start, end, match in (
            (good, datetime(2026, 3, 19, tzinfo=UTC), "not after the start"),
            (good, good, "not after the start"),
            (datetime(2026, 3, 19), good, "start is a naive datetime"),  # noqa: DTZ001 - that is what is tested
            (good, datetime(2026, 3, 21), "end is a naive datetime"),  # noqa: DTZ001
            (1_773_360_000, None, "13 digits"),
            (1_773_360_000_000_000, None, "13 digits"),
        ):
            with pytest.raises(ValueError, match=match):
                await fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path)
        with pytest.raises(ConfigError, match="2s"):
            await fetcher.fetch("BTCUSDT", "2s", good, None, tmp_path)
        with pytest.raises(ConfigError, match="no Binance symbol"):
            await fetcher.fetch("../../etc", "1s", good, None, tmp_path)
        with pytest.raises(ValueError, match="source"):
            await fetcher.fetch("BTCUSDT", "1s", good, None, tmp_path, source="ftp")
        assert venue.requests == [] and os.listdir(tmp_path) == []


async def test_bad_input_that_only_the_venue_knows(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        with pytest.raises(MarketNotFound, match="NOPEUSDT"):
            await fetcher.fetch("NOPEUSDT", "1s", None, None, tmp_path)
        with pytest.raises(ValueError, match="in the future"):
            await fetcher.fetch("BTCUSDT", "1s", ms("2026-03-21"), None, tmp_path)
        assert os.listdir(tmp_path) == []
        found = await fetcher.fetch("BTCUSDT", "1s", ms("2026-03-20T11:00:00"), ms("2027-01-01"), tmp_path)
        assert found.end_ms == ms("2026-03-20T12:00:08") and "in the future" in found.notes[0]
        early = await fetcher.fetch("BTCUSDT", "1s", ms("2020-01-01"), ms("2020-02-01"), tmp_path)
        assert early.rows == 0 and "no candles before" in early.notes[0]


async def test_disks_and_files_that_are_in_the_way(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start = ms("2026-03-20T10:00:00")
        folder = tmp_path / "BTCUSDT-1s"
        folder.mkdir()
        path = folder / "BTCUSDT-1s-2026-03.csv"
        for content, match in (
            (b"my own notes, not a candle in sight\n" * 5, "not a candle file"),
            (HEADER + b"nonsense\n", "not end in a candle"),
            (HEADER + b"1700000000000,1.0,1.0,1.0,1.0,1.0\n", "another month"),
        ):
            path.write_bytes(content)
            with pytest.raises(ConfigError, match=match):
                await fetcher.fetch("BTCUSDT", "1s", start, start + 5000 * S, tmp_path)
            assert path.read_bytes() == content
        path.unlink()
        with CandleFile(path), pytest.raises(ConfigError, match="in use"):
            await fetcher.fetch("BTCUSDT", "1s", start, start + 5000 * S, tmp_path)
        (tmp_path / "file").write_text("x")
        with pytest.raises(ConfigError, match="file"):
            await fetcher.fetch("BTCUSDT", "1s", start, start + 5000 * S, tmp_path / "file")


# Plans.


def test_targets_are_what_files_lack() -> None:
    start, end = ms("2026-02-10"), ms("2026-04-05")
    empty = plan.months(start, end)
    assert [month.name for month in empty] == ["2026-02", "2026-03", "2026-04"]
    assert [(t.start_ms, t.end_ms) for t in plan.targets(empty, start, end, S)] == [
        (start, ms("2026-03-01")), (ms("2026-03-01"), ms("2026-04-01")), (ms("2026-04-01"), end)
    ]  # fmt: skip
    march = Month("2026-03", ms("2026-03-01"), ms("2026-04-01"), ms("2026-03-05"), ms("2026-03-31T23:59:59"))
    assert plan.targets([march], start, end, S) == [Target(march, Kind.HEAD, ms("2026-03-01"), ms("2026-03-05"))]
    assert plan.targets([march], ms("2026-03-05"), end, S) == []


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.sampled_from([1000, 60_000, 900_000]))
def test_pages_tile_a_range(first: int, size: int, length: int) -> None:
    start, end = first * 137, first * 137 + size * length // 1000
    found = list(plan.pages(start, end, length))
    assert [page.start_ms for page in found[1:]] == [page.end_ms for page in found[:-1]]
    assert not found or (found[0].start_ms, found[-1].end_ms) == (start, end)
    assert all(plan.row_count(page.start_ms, page.end_ms, length) <= 1000 for page in found)
    assert len(found) == plan.page_count(start, end, length)


def test_bulk_is_chosen_by_cost() -> None:
    now, costs = ms("2026-11-20T12:00:00"), Costs(2400)

    def work(start: str, end: str, length: int = S) -> plan.Work:
        found = plan.targets(plan.months(ms(start), ms(end)), ms(start), ms(end), length)
        return plan.choose(found, now, length, costs)

    assert work("2026-11-17", "2026-11-20").source is Source.REST  # the last three days
    year = work("2025-11-20", "2026-11-20")
    assert year.source is Source.BULK and year.files < 45 and year.requests < 200 and year.seconds < 200
    full = work("2017-08-17", "2026-11-20")
    assert full.source is Source.BULK and 111 <= full.files < 170 and full.rows > 290_000_000
    assert work("2017-08-17", "2026-11-20", 900_000).source is Source.REST
    assert work("2017-08-17", "2026-11-20", 60_000).source is Source.BULK  # minutes of waiting for weight otherwise


def test_only_whole_old_days_come_from_bulk_files() -> None:
    now, costs = ms("2026-11-20T12:00:00"), Costs(2400)
    month = plan.months(ms("2026-11-01"), ms("2026-11-20"))[0]
    target = Target(month, Kind.FILE, ms("2026-11-03T10:00:00"), ms("2026-11-20T11:00:00"))
    found = list(plan.pieces(target, now, S, costs, Source.BULK))
    bulk = [piece for piece in found if isinstance(piece, Bulk)]
    assert [piece.name for piece in bulk] == [f"2026-11-{day:02d}" for day in range(4, 18)]
    assert found[: found.index(bulk[0])] == list(plan.pages(target.start_ms, ms("2026-11-04"), S))
    assert isinstance(found[-1], Page) and found[-1].end_ms == target.end_ms
    # A month that is out for long is one file, unless little of it is wanted.
    march = plan.months(ms("2026-03-01"), ms("2026-04-01"))[0]
    whole = list(plan.pieces(Target(march, Kind.FILE, march.start_ms, march.end_ms), now, S, costs, Source.BULK))
    assert [piece.name for piece in whole if isinstance(piece, Bulk)] == ["2026-03"]
    some = list(plan.pieces(Target(march, Kind.FILE, ms("2026-03-20"), march.end_ms), now, S, costs, Source.BULK))
    assert len(some) == 12
    assert (
        Bulk("2026-03", 0, 1, 0, 1).path("BTCUSDT", "1s").endswith("/monthly/klines/BTCUSDT/1s/BTCUSDT-1s-2026-03.zip")
    )


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b"{}", b'[[1]]', b'[["x","1","1","1","1","1"]]', b'[[1773360000000,1,1,1,1,1]]',
        b'[[1773360000000,"1.0","1.0","1.0","1.0","1,0"]]', b'[[1773360000000,"1.0","1.0","1.0","1.0",""]]',
        b'[[1773360000000,"1.0","1.0","1.0","1.0","-1.0"]]', b'[[1773360000000,"1.0","1.0","1.0","1.0","1e5"]]',
        b'[[1773360000000,"1.0","1.0","1.0","1.0","."]]', b'[[1773360000000,"1.0","1.0","1.0","NaN","1.0"]]',
        '[[1773360000000,"1.0","1.0","1.0","1.0","\u0661.0"]]'.encode(),
        b'[[1773360000000,"1.0","1.0","1.0","1.0","1.0\\n"]]',
        b'[[1773359999999,"1.0","1.0","1.0","1.0","1.0"]]', b'[[1773360001000,"1.0","1.0","1.0","1.0","1.0"]]',
    ],
)  # fmt: skip
def test_pages_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(BadRows):
        page_rows(body, 1_773_360_000_000, 1_773_360_001_000, S)


def test_numbers_keep_their_text() -> None:
    body = b'[[1773360000000,"0.10","1","2.00000000","0.000000010","12345678901234567.123456789",1,"x"]]'
    chunk = page_rows(body, 1_773_360_000_000, 1_773_360_001_000, S)
    assert chunk is not None
    assert chunk.data == b"1773360000000,0.10,1,2.00000000,0.000000010,12345678901234567.123456789\n"
    micro = page_rows(body.replace(b"60000000,", b"60000000999,", 1), 1_773_360_000_000, 1_773_360_001_000, S)
    assert micro is not None and micro.data == chunk.data


async def test_the_estimate_is_what_then_happens(tmp_path: Path) -> None:
    async with history("1s", NOW) as venue, client(venue) as fetcher:
        start, end = ms("2026-03-20T09:00:00"), ms("2026-03-20T11:00:00")
        guess = await fetcher.estimate("BTCUSDT", "1s", start, end, tmp_path)
        assert not os.listdir(tmp_path)
        found = await fetcher.fetch("BTCUSDT", "1s", start, end, tmp_path)
        assert (guess.rows, guess.requests) == (found.rows, found.requests)
        assert guess.free_bytes > 0 and guess.bytes == 85 * 7200
        assert (await fetcher.estimate("BTCUSDT", "1s", start, end, tmp_path)).rows == 0


def test_files_of_other_names_are_not_heads(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "BTCUSDT", "1s", S)
    archive.directory.mkdir()
    stray = archive.directory / "BTCUSDT-1s-2026-03.csv.notes.head"
    stray.write_text("mine")
    march = plan.months(ms("2026-03-01"), ms("2026-04-01"))[0]
    target = Target(march, Kind.HEAD, ms("2026-03-01"), ms("2026-03-05"))
    assert archive.resumed(target) == target and stray.read_text() == "mine"
