"""What to fetch and from where: months, REST pages, bulk files, and what they cost. Pure arithmetic.

A file holds one UTC month of one symbol and interval, and has no holes but the venue's between its first and its last
row. So what is left to fetch follows from those two times alone: rows before the first (a `HEAD`, written aside and
joined) and after the last (the `FILE` itself).

Bulk files have whole UTC days and cost no request weight; REST has everything. `choose` compares what both take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from pmkit.data.binance.types import MAX_ROWS

DAY_MS: Final = 86_400_000
BULK_AGE_DAYS: Final = 2
"""Younger days may not be published, or not whole, yet (binance.md section 3, lag)."""
MONTH_AGE_DAYS: Final = 16
"""Monthly files come by the middle of the next month."""
KLINE_WEIGHT: Final = 2

# Bytes of our CSV per row (binance.md section 3), measured on 1s candles of March 2026.
_ROW_BYTES: Final[Mapping[str, int]] = {"BTC": 85, "ETH": 81, "SOL": 73, "XRP": 70}
_OTHER_ROW_BYTES: Final = 76
# Bytes of a day zip per row: 2.1 to 2.7 MB a day of 1s, 60 to 70 kB a day of 1m.
_ZIP_BYTES_1S: Final = 31
_ZIP_BYTES: Final = 46


class Source(StrEnum):
    """Where rows come from; AUTO chooses by cost."""

    AUTO = "auto"
    REST = "rest"
    BULK = "bulk"


class Kind(StrEnum):
    """What a target is: the month's file, or what comes before its first row."""

    FILE = "file"
    HEAD = "head"


class Month(msgspec.Struct, frozen=True, gc=False):
    """One file and what it has: the times of its first and last row, None when there is none."""

    name: str
    """2026-03"""
    start_ms: int
    end_ms: int
    first_ms: int | None = None
    last_ms: int | None = None


class Target(msgspec.Struct, frozen=True, gc=False):
    """A stretch of one file that is to be written: opens in [start_ms, end_ms)."""

    month: Month
    kind: Kind
    start_ms: int
    end_ms: int


class Page(msgspec.Struct, frozen=True, gc=False):
    """One REST request: opens in [start_ms, end_ms), at most 1000 rows."""

    start_ms: int
    end_ms: int


class Bulk(msgspec.Struct, frozen=True, gc=False):
    """One bulk file of which the opens in [start_ms, end_ms) are wanted; it holds those in [file_start, file_end)."""

    name: str
    """2026-03-13, or 2026-03 for a monthly one."""
    start_ms: int
    end_ms: int
    file_start: int
    file_end: int

    @property
    def monthly(self) -> bool:
        return len(self.name) == 7

    def path(self, symbol: str, interval: str) -> str:
        """The path on the host of the bulk files."""
        folder = "monthly" if self.monthly else "daily"
        return f"/data/spot/{folder}/klines/{symbol}/{interval}/{symbol}-{interval}-{self.name}.zip"


Piece = Page | Bulk


class Costs(msgspec.Struct, frozen=True):
    """What the choice is made by; seconds, bytes and weight per minute. Defaults suit a common line."""

    weight_per_minute: int
    latency: float = 0.15
    in_flight: int = 8
    bytes_per_second: float = 12.5e6
    bulk_rows_per_second: float = 600_000.0


def row_bytes(symbol: str) -> int:
    """Bytes of one CSV row, on average."""
    return next((size for asset, size in _ROW_BYTES.items() if symbol.startswith(asset)), _OTHER_ROW_BYTES)


def zip_bytes(rows: int, length: int) -> int:
    """Bytes of the bulk files that hold so many rows."""
    return rows * (_ZIP_BYTES_1S if length == 1000 else _ZIP_BYTES)


def day_name(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def month_of(ms: int) -> tuple[str, int, int]:
    """Name, start and end of the UTC month that holds a moment."""
    first = datetime.fromtimestamp(ms / 1000, UTC).date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return first.strftime("%Y-%m"), _midnight(first), _midnight(following)


def months(start_ms: int, end_ms: int) -> list[Month]:
    """The months that [start_ms, end_ms) touches, empty."""
    found, at = [], start_ms
    while at < end_ms:
        name, first, at = month_of(at)
        found.append(Month(name, first, at))
    return found


def targets(have: Sequence[Month], start_ms: int, end_ms: int, length: int) -> list[Target]:
    """What is to be written so that every month holds [start_ms, end_ms), in order.

    Where a file ends before what is asked for, what lies between is fetched too: files have no holes of ours.
    """
    found = []
    for month in have:
        start, end = max(start_ms, month.start_ms), min(end_ms, month.end_ms)
        if month.first_ms is None or month.last_ms is None:
            found.append(Target(month, Kind.FILE, start, end))
            continue
        if start < month.first_ms:
            found.append(Target(month, Kind.HEAD, start, month.first_ms))
        # From the next slot on; one millisecond after the last row, since a few of 2018 lie off the grid.
        if (month.last_ms // length + 1) * length < end:
            found.append(Target(month, Kind.FILE, month.last_ms + 1, end))
    return found


def pages(start_ms: int, end_ms: int, length: int) -> Iterator[Page]:
    """REST pages that cover a range, cut on the grid."""
    while start_ms < end_ms:
        stop = min(end_ms, (start_ms // length + MAX_ROWS) * length)
        yield Page(start_ms, stop)
        start_ms = stop


def page_count(start_ms: int, end_ms: int, length: int) -> int:
    """How many `pages` there are."""
    if start_ms >= end_ms:
        return 0
    return -(-(end_ms - start_ms // length * length) // (MAX_ROWS * length))


def row_count(start_ms: int, end_ms: int, length: int) -> int:
    """Candles on the grid in [start_ms, end_ms)."""
    return max(0, -(-end_ms // length) - -(-start_ms // length))


def whole_days(start_ms: int, end_ms: int, now_ms: int) -> tuple[int, int]:
    """The part of a range that bulk files may have: whole UTC days old enough; empty where both are equal."""
    first = -(-start_ms // DAY_MS) * DAY_MS
    last = min(end_ms // DAY_MS, now_ms // DAY_MS - BULK_AGE_DAYS) * DAY_MS
    return (first, last) if first < last else (start_ms, start_ms)


def day_files(start_ms: int, end_ms: int) -> list[Bulk]:
    """One daily file per UTC day; both ends are midnights."""
    return [Bulk(day_name(day), day, day + DAY_MS, day, day + DAY_MS) for day in range(start_ms, end_ms, DAY_MS)]


def bulk_files(start_ms: int, end_ms: int, now_ms: int, length: int, costs: Costs) -> list[Bulk]:
    """The files for whole days inside one month: the monthly one where that is cheaper, else the daily ones."""
    days = day_files(start_ms, end_ms)
    name, first, last = month_of(start_ms)
    if not days or last + MONTH_AGE_DAYS * DAY_MS > now_ms:
        return days
    month = Bulk(name, start_ms, end_ms, first, last)
    return [month] if _file_seconds([month], length, costs) < _file_seconds(days, length, costs) else days


def _file_seconds(files: Sequence[Bulk], length: int, costs: Costs) -> float:
    """A file and its checksum are two round trips; a few files at a time."""
    size = sum(zip_bytes(row_count(file.file_start, file.file_end, length), length) for file in files)
    return 2 * costs.latency * -(-len(files) // 3) + size / costs.bytes_per_second


def rest_seconds(page_count: int, costs: Costs) -> float:
    """The first minute's weight may be spent at once; from then on the limit sets the pace."""
    weight = page_count * KLINE_WEIGHT
    waiting = max(0.0, weight - costs.weight_per_minute) * 60 / costs.weight_per_minute
    return max(page_count * costs.latency / costs.in_flight, waiting)


def pieces(target: Target, now_ms: int, length: int, costs: Costs, source: Source) -> Iterator[Piece]:
    """A target in order. `source` is REST or BULK (what no bulk file has comes over REST)."""
    first, last = target.start_ms, target.start_ms
    if source is not Source.REST:
        first, last = whole_days(target.start_ms, target.end_ms, now_ms)
    yield from pages(target.start_ms, first, length)
    yield from bulk_files(first, last, now_ms, length, costs)
    yield from pages(last, target.end_ms, length)


class Work(msgspec.Struct, frozen=True):
    """What a fetch comes to. `rows` are slots of the grid, an upper bound where the venue has holes."""

    source: Source
    rows: int
    requests: int
    """Over REST."""
    files: int
    """Bulk files."""
    download_bytes: int
    """Of bulk files."""
    seconds: float


def choose(todo: Sequence[Target], now_ms: int, length: int, costs: Costs, source: Source = Source.AUTO) -> Work:
    """The cheaper of REST alone and bulk files with REST for the rest, or the one that is asked for."""
    if source is not Source.AUTO:
        return _work(todo, now_ms, length, costs, source)
    rest = _work(todo, now_ms, length, costs, Source.REST)
    # While the whole job fits into a minute's share of the weight, REST is quick and needs nobody else.
    if rest.requests * KLINE_WEIGHT <= costs.weight_per_minute // 2:
        return rest
    bulk = _work(todo, now_ms, length, costs, Source.BULK)
    return bulk if bulk.files and bulk.seconds < rest.seconds else rest


def _work(todo: Sequence[Target], now_ms: int, length: int, costs: Costs, source: Source) -> Work:
    rows = requests = files = size = 0
    seconds = 0.0
    for target in todo:
        rows += row_count(target.start_ms, target.end_ms, length)
        first = last = target.start_ms
        if source is Source.BULK:
            first, last = whole_days(target.start_ms, target.end_ms, now_ms)
        requests += page_count(target.start_ms, first, length) + page_count(last, target.end_ms, length)
        found = bulk_files(first, last, now_ms, length, costs)
        files += len(found)
        size += sum(zip_bytes(row_count(file.file_start, file.file_end, length), length) for file in found)
        seconds += max(_file_seconds(found, length, costs), row_count(first, last, length) / costs.bulk_rows_per_second)
    return Work(source, rows, requests, files, size, seconds + rest_seconds(requests, costs))
