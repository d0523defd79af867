"""Bulk files: units, checksums, short and missing days. Whatever they are like, the CSV equals the venue's rows."""

from __future__ import annotations

import hashlib
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.data.binance.bulk import BulkFacts, BulkZip
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.gaps import read_report
from pmkit.data.binance.plan import DAY_MS, Bulk
from pmkit.data.binance.rows import _PIECE, BadRows, Chunk, all_at_once, bulk_rows, is_header, row_by_row
from tests.binance.history_venue import HistoryVenue, history, months, ms
from tests.websocket_peers import fast_clock

S, M = 1000, 60_000
NOW = "2026-03-20T12:00:10"


def client(venue: HistoryVenue) -> BinanceFetcher:
    return BinanceFetcher(venue.endpoints(), fast_clock())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Recorded files.


def lines(data: bytes) -> list[bytes]:
    return [b",".join([str(int(stamp) // (1 if len(stamp) == 13 else 1000)).encode(), *rest]) for stamp, *rest in
            (line.split(b",")[:6] for line in data.splitlines())]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("BTCUSDT-1s-2024-03-01.ms.excerpt.csv", S),
        ("BTCUSDT-1s-2025-03-15_16.us.midnight.csv", S),
        ("BTCUSDT-1m-2025-04-10_11.us.midnight.csv", M),
        ("BTCUSDT-1d-2024-12_2025-01.ms_us.seam.csv", DAY_MS),
        ("KLAYUSDT-1d-2024-10.mixed_units_and_bad_close.csv", DAY_MS),
    ],
)
def test_units_are_told_row_by_row(recordings: Path, name: str, length: int) -> None:
    data = (recordings / "binance" / "dump" / name).read_bytes()
    found = bulk_rows(data, 0, 1 << 60, length)
    assert b"".join(chunk.data for chunk in found).splitlines() == lines(data)
    assert len(found) == 1 and found[0].data.count(b"\n") == data.count(b"\n")


def test_a_futures_file_has_a_header_that_is_told_from_a_torn_row(recordings: Path) -> None:
    path = recordings / "binance" / "dump" / "FUTURES-UM_DOTUSDT-1m-2025-11.header_ms.first200.csv"
    first, _, rest = path.read_bytes().partition(b"\n")
    assert is_header(first) and not is_header(rest.partition(b"\n")[0])
    assert not is_header(b"open_time") and not is_header(b"1773360000000,1.0") and not is_header(b"")
    with pytest.raises(BadRows):
        bulk_rows(first + b"\n" + rest, 0, 1 << 60, M)
    assert sum(chunk.rows for chunk in bulk_rows(rest, 0, 1 << 60, M)) == 200


async def test_a_recorded_day_is_converted_whole(recordings: Path) -> None:
    start = ms("2026-03-13")
    path = recordings / "binance" / "sessions" / "BTCUSDT-1s-2026-03-13.zip"
    bulk = Bulk("2026-03-13", start, start + DAY_MS, start, start + DAY_MS)
    found = BulkZip(bulk, path.open("rb"), S, BulkFacts(bulk.name, "", "ok"))
    try:
        data = b"".join([chunk.data async for chunk in found.chunks()])
    finally:
        await found.close()
    with zipfile.ZipFile(path) as archive:
        assert data.splitlines() == lines(archive.read(archive.namelist()[0]))
    assert data.count(b"\n") == 86_400


GOOD = b"1773360000000000,1.0,1.0,1.0,1.0,1.0,1773360000999999,1.0,1,1.0,1.0,0\n"


@pytest.mark.parametrize(
    "text",
    [
        b"hello", b",,,,,,,,,,,\n", GOOD + GOOD, GOOD[3:], GOOD.replace(b"1.0", b"x", 1), b"\0" * 100,
        GOOD.replace(b",1.0", b"", 1), GOOD + b"1773360001000000,1.0,1.0\n", b"-" + GOOD[1:],
        GOOD + GOOD.replace(b"60000000", b"59000000", 1), GOOD.replace(b"1773360000000000", b"1773360000"),
        GOOD + b"1773360001000,1.0,1.0,1.0,1.0,1.0,1,1.0,1,1.0,1.0,0,9\n",
        GOOD.replace(b"000000,", b"000abc,", 1), GOOD.replace(b"1773360", b"1_77336", 1),
    ],
)  # fmt: skip
def test_rows_that_are_none_are_refused(text: bytes) -> None:
    with pytest.raises(BadRows):
        bulk_rows(text, 1_773_360_000_000, 1_773_360_010_000, S)


def test_holes_cut_runs() -> None:
    def line(at: int) -> bytes:
        return GOOD.replace(b"1773360000000000", b"%d" % (1_773_360_000_000_000 + at * 1_000_000), 1)

    found = bulk_rows(b"".join(map(line, [0, 1, 5, 7, 8])), 1_773_360_000_000, 1_773_360_010_000, S)
    assert [((chunk.first_ms - 1_773_360_000_000) // S, chunk.rows) for chunk in found] == [(0, 2), (5, 1), (7, 2)]


# Blocks of rows: all at once is row by row.

AT = 1_773_360_000_000
ODD = [b"", *(b"%c" % char for char in b"09,.\n\r\0-+_ae/")]
SEEDS = st.integers(0, 1 << 32).map(random.Random)


def rows_of(source: random.Random) -> bytes:
    """Rows of seconds with holes, in one unit or mixed, as the venue writes them."""

    def number() -> bytes:
        return b"%d.%0*d" % (source.randrange(10**6), source.randint(1, 8), source.randrange(10))

    units = source.choice([[1000], [1], [1000, 1]])
    text = b""
    for place in sorted(source.sample(range(source.choice([40, 40, 40, 41])), source.randint(1, 30))):
        unit = source.choice(units)
        fields = [b"%d" % ((AT + place * S) * unit), *(number() for _ in range(5))]
        rest = [b"%d" % ((AT + place * S + 999) * unit), number(), b"%d" % place, number(), number(), b"0"]
        text += b",".join(fields + rest) + b"\n"
    return text


def outcome(function: Callable[[bytes, int, int, int], list[Chunk]], block: bytes) -> list[Chunk] | str:
    try:
        return function(block, AT, AT + max(40, block.count(b"\n")) * S, S)
    except BadRows as error:
        return str(error)


@given(SEEDS)
def test_good_blocks_are_the_same_both_ways(source: random.Random) -> None:
    block = rows_of(source)
    assert outcome(bulk_rows, block) == outcome(row_by_row, block)
    one_unit = len({line.index(b",") for line in block.splitlines()}) == 1
    assert (all_at_once(block, AT, AT + 41 * S, S) is None) != one_unit  # the quick way is the one that is taken


@given(SEEDS)
def test_damaged_blocks_are_the_same_both_ways(source: random.Random) -> None:
    block = rows_of(source)
    for _ in range(source.randint(1, 3)):
        start = source.randint(0, len(block))
        block = block[:start] + source.choice(ODD) + block[start + source.choice([0, 1, 1, 1, 3, 17, 120]) :]
    assert outcome(bulk_rows, block) == outcome(row_by_row, block)


def test_pieces_of_a_large_block_come_out_as_one_run() -> None:
    def line(at: int) -> bytes:
        return GOOD.replace(b"1773360000000000", b"%d" % ((AT + at * S) * 1000), 1)

    count = 3 * _PIECE // len(GOOD)
    whole = b"".join(map(line, range(count)))
    hole = b"".join(map(line, [*range(count // 2), *range(count // 2 + 7, count)]))
    swapped = b"".join(map(line, [*range(count // 2), count // 2 - 1, *range(count // 2, count)]))
    assert [chunk.rows for chunk in bulk_rows(whole, AT, AT + count * S, S)] == [count]
    for block in (whole, hole, swapped):
        found = [outcome(function, block) for function in (bulk_rows, row_by_row)]
        assert found[0] == found[1]


# Through the fetcher.

FIRST, LAST = "2026-03-11", "2026-03-15"


async def fetched(venue: HistoryVenue, directory: Path, first: str = FIRST, last: str = LAST, interval: str = "1m"):  # type: ignore[no-untyped-def]
    async with client(venue) as fetcher:
        found = await fetcher.fetch("BTCUSDT", interval, ms(first), ms(last), directory, source="bulk")
    held = months(directory, interval=interval)
    assert b"".join(data[37:] for data in held.values()) == venue.csv(ms(first), ms(last), header=False)
    return found


async def test_days_come_from_files_and_edges_over_rest(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        found = await fetched(venue, tmp_path, "2026-03-11T22:30:00", "2026-03-20T01:00:00")
        days = [path[-14:-4] for path in venue.bulk_requests if path.endswith(".zip")]
        assert sorted(days) == [f"2026-03-{day}" for day in range(12, 18)]
        assert (found.downloads, found.requests) == (6, 1 + 3)  # 90 minutes of the 11th; 49 hours from the 18th on
        assert found.notes == [] and found.gaps == []
        report = read_report(found.report)
        assert report is not None and report.bulk["2026-03-13"].checksum == "ok"
        assert report.bulk["2026-03-13"].sha256 == sha(venue.zip("BTCUSDT", "2026-03-13"))


async def test_short_days_are_filled_over_rest(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        day = ms("2026-03-12")
        whole = venue.text("BTCUSDT", day, day + DAY_MS).splitlines(keepends=True)
        # Without its morning, without an hour, without its evening, without anything.
        for name, kept in {
            "2026-03-11": None, "2026-03-12": whole[456:], "2026-03-13": None, "2026-03-14": [],
        }.items():  # fmt: skip
            start = ms(name)
            rows = venue.text("BTCUSDT", start, start + DAY_MS).splitlines(keepends=True) if kept is None else kept
            if name == "2026-03-11":
                rows = rows[:700] + rows[760:]
            if name == "2026-03-13":
                rows = rows[:-300]
            venue.files[name] = (venue.zip("BTCUSDT", name, b"".join(rows)), None)
        venue.outage = {ms("2026-03-13T22:00:00") + at * M for at in range(5)}  # the venue has them nowhere
        found = await fetched(venue, tmp_path)
        assert found.missing == 5 and len(found.gaps) == 1 and found.downloads == 4


async def test_missing_files_come_over_rest(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        venue.published = lambda name: name != "2026-03-12"
        found = await fetched(venue, tmp_path)
        assert found.downloads == 3 and found.requests == 2


async def test_a_missing_month_comes_from_its_days(tmp_path: Path) -> None:
    async with history("15m", "2026-06-01T12:00:10") as venue:
        venue.published = lambda name: name != "2026-03" and name != "2026-03-20"
        found = await fetched(venue, tmp_path, "2026-03-01", "2026-05-01", "15m")
        names = [path.rpartition("15m-")[2] for path in venue.bulk_requests if path.endswith(".zip")]
        assert names[0] == "2026-03.zip" and "2026-04.zip" in names and len(names) == 1 + 31 + 1
        assert found.requests == 1 and found.downloads == 31


async def test_part_of_a_month_is_clipped_from_its_file(tmp_path: Path) -> None:
    async with history("15m", "2026-06-01T12:00:10") as venue:
        found = await fetched(venue, tmp_path, "2026-04-02T06:00:00", "2026-04-30", "15m")
        assert "2026-04.zip" in venue.bulk_requests[-1] + venue.bulk_requests[-2] and found.requests <= 2


@pytest.mark.parametrize("units", ["ms", "mixed"])
async def test_republished_units(tmp_path: Path, units: str) -> None:
    async with history("1m", NOW) as venue:
        day, half = ms("2026-03-12"), ms("2026-03-12T11:00:00")
        text = venue.text("BTCUSDT", day, half, micro=False)
        text += venue.text("BTCUSDT", half, day + DAY_MS, micro=units == "mixed")
        venue.files["2026-03-12"] = (venue.zip("BTCUSDT", "2026-03-12", text), None)
        found = await fetched(venue, tmp_path)
        assert found.downloads == 4 and found.requests == 0 and found.notes == []


async def test_a_header_is_left_out(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        text = venue.text("BTCUSDT", ms("2026-03-12"), ms("2026-03-13"))
        text = b"open_time,open,high,low,close,volume,close_time,a,b,c,d,e\n" + text.rstrip(b"\n")
        venue.files["2026-03-12"] = (venue.zip("BTCUSDT", "2026-03-12", text), None)
        assert (await fetched(venue, tmp_path)).requests == 0


async def test_a_wrong_checksum_is_read_again_and_then_judged_by_the_rows(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        whole = venue.zip("BTCUSDT", "2026-03-12")
        venue.files["2026-03-12"] = (whole, sha(b"another file"))
        short = venue.zip("BTCUSDT", "2026-03-13", venue.text("BTCUSDT", ms("2026-03-13"), ms("2026-03-13T09:00:00")))
        venue.files["2026-03-13"] = (short, sha(b"another file"))
        venue.files["2026-03-14"] = (venue.zip("BTCUSDT", "2026-03-14"), "")  # no checksum file
        found = await fetched(venue, tmp_path)
        asked = [path for path in venue.bulk_requests if "2026-03-12.zip" in path]
        assert len(asked) == 4  # file and checksum, twice
        notes = sorted(found.notes)
        assert [note.partition(":")[0] for note in notes] == ["2026-03-12", "2026-03-13", "2026-03-14"]
        assert "used" in notes[0] and "540 of 1440 rows" in notes[1] and "absent" in notes[2]
        report = read_report(found.report)
        assert report is not None
        assert {name: facts.checksum for name, facts in report.bulk.items()} == {
            "2026-03-11": "ok", "2026-03-12": "wrong", "2026-03-14": "absent"
        }  # fmt: skip


async def test_a_file_that_is_replaced_meanwhile_is_read_again(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        good = venue.zip("BTCUSDT", "2026-03-12")
        venue.files["2026-03-12"] = (good[:-100], sha(good))
        real, asked = venue.bulk, []

        async def bulk(request):  # type: ignore[no-untyped-def]
            answer = await real(request)
            if request.path.endswith("2026-03-12.zip"):
                asked.append(request.path)
                venue.files.pop("2026-03-12", None)
            return answer

        venue.bulk = bulk  # type: ignore[method-assign]
        found = await fetched(venue, tmp_path)
        assert len(asked) == 2 and found.notes == [] and found.requests == 0


def two_files() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.csv", GOOD)
        archive.writestr("b.csv", GOOD)
    return target.getvalue()


@pytest.mark.parametrize("kind", ["html", "empty", "torn", "flipped", "two", "other day", "garbage row"])
async def test_damaged_files_are_taken_over_rest(tmp_path: Path, kind: str) -> None:
    async with history("1m", NOW) as venue:
        good = venue.zip("BTCUSDT", "2026-03-12")
        text = venue.text("BTCUSDT", ms("2026-03-12"), ms("2026-03-13"))
        body = {
            "html": b"<html>no such bucket</html>",
            "empty": b"",
            "torn": good[: len(good) // 2],
            "flipped": good[:20_000] + bytes([good[20_000] ^ 255]) + good[20_001:],
            "two": two_files(),
            "other day": venue.zip("BTCUSDT", "2026-03-13"),
            "garbage row": venue.zip("BTCUSDT", "2026-03-12", text[:70_000] + b"\nrubbish\n" + text[70_000:]),
        }[kind]
        venue.files["2026-03-12"] = (body, None)
        found = await fetched(venue, tmp_path)
        assert found.gaps == [] and any("2026-03-12" in note and "over REST" in note for note in found.notes)


@pytest.mark.parametrize("status", [403, 451, 500])
async def test_a_host_that_refuses_is_given_up(tmp_path: Path, status: int) -> None:
    async with history("1m", NOW) as venue:
        venue.bulk_status = status
        found = await fetched(venue, tmp_path)
        assert found.downloads == 0 and found.requests == 8
        said = "left alone for" if status == 500 else "given up"
        assert any(said in note for note in found.notes)
        # 403 and 451 are final; of others each file is tried a few times, and three files are enough.
        assert len(venue.bulk_requests) <= (3 if status != 500 else 4 * 4)


async def test_bulk_files_leave_nothing_behind(tmp_path: Path) -> None:
    async with history("1m", NOW) as venue:
        await fetched(venue, tmp_path)
        assert sorted(os.listdir(tmp_path / "BTCUSDT-1m")) == ["BTCUSDT-1m-2026-03.csv", "BTCUSDT-1m.gaps.json"]
