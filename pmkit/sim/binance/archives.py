"""The bulk files themselves: their names, when they are published, their rows and their zips (binance.md, section 3).

Pure but for the time it takes: a made day of 1s rows costs about a second and a half, a month of any interval up to 1d
most of a minute, since every candle is the sum of its seconds.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO

from pmkit.sim.binance.candles import Candle, CandleMaker
from pmkit.sim.binance.faults import Spoiled, Units
from pmkit.sim.binance.intervals import DAY, LENGTHS, SECOND, ceil_open, floor_open, step
from pmkit.sim.binance.rows import candle_absent, shown
from pmkit.sim.binance.symbols import first_open

# "1M" is named "1mo" here; there are no daily files of candles longer than a day.
MONTH_NAME = "1mo"
DAILY = tuple(name for name, length in LENGTHS.items() if 0 < length <= DAY)
MONTHLY = (*(name for name in LENGTHS if name != "1M"), MONTH_NAME)
# "From January 1st 2025 onwards in microseconds"
_MICROSECONDS_FROM = date(2025, 1, 1)
_SLICE_SECONDS = 500
_HEADER = (
    b"open_time,open,high,low,close,volume,close_time,"
    b"quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
_PATH = re.compile(
    r"data/spot/(?P<kind>daily|monthly)/klines/(?P<symbol>[A-Z0-9]{2,20})/(?P<interval>[0-9a-zA-Z]{2,3})/"
    r"(?P=symbol)-(?P=interval)-(?P<date>\d{4}-\d{2}(?:-\d{2})?)\.zip"
)


class Stopped(Exception):
    """The venue closes: whatever was being made is not needed any more."""


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """One file. `interval` as in a path (1mo)."""

    symbol: str
    interval: str
    first: date
    monthly: bool

    @property
    def base(self) -> str:
        """The name without its ending."""
        return f"{self.symbol}-{self.interval}-{self.first.isoformat()[: 7 if self.monthly else 10]}"

    @property
    def key(self) -> str:
        """The path of the zip, without a leading slash."""
        kind = "monthly" if self.monthly else "daily"
        return f"data/spot/{kind}/klines/{self.symbol}/{self.interval}/{self.base}.zip"

    @property
    def kline_interval(self) -> str:
        return "1M" if self.interval == MONTH_NAME else self.interval

    @property
    def end(self) -> date:
        """The first day that does not belong to it."""
        return next_month(self.first) if self.monthly else self.first + timedelta(days=1)

    @property
    def start_ms(self) -> int:
        return day_ms(self.first)

    @property
    def end_ms(self) -> int:
        return day_ms(self.end)

    @property
    def units(self) -> Units:
        """Of its times, unless spoiled."""
        return Units.MICROSECONDS if self.first >= _MICROSECONDS_FROM else Units.MILLISECONDS

    def published_ms(self, daily_lag_ms: int, monthly_lag_ms: int | None) -> int:
        """When it appears: so long after its last day; a monthly one without a lag on the next month's first Monday."""
        if not self.monthly:
            return self.end_ms + daily_lag_ms
        if monthly_lag_ms is not None:
            return self.end_ms + monthly_lag_ms
        return day_ms(self.end + timedelta(days=-self.end.weekday() % 7)) + daily_lag_ms


def day_ms(day: date) -> int:
    """The first moment of a UTC day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def read_key(key: str) -> ArchiveName | None:
    """The file of a path; None for a path that no file can have."""
    found = _PATH.fullmatch(key)
    if found is None:
        return None
    monthly = found["kind"] == "monthly"
    if found["interval"] not in (MONTHLY if monthly else DAILY) or (len(found["date"]) == 7) != monthly:
        return None
    try:
        first = date.fromisoformat(found["date"] + ("-01" if monthly else ""))
    except ValueError:
        return None
    return ArchiveName(found["symbol"], found["interval"], first, monthly)


def candles_of(maker: CandleMaker, name: ArchiveName, stop: Callable[[], bool]) -> Iterator[Candle]:
    """The candles of a file that is complete. Raises Stopped."""
    history = maker.history
    interval = name.kline_interval
    start_ms = max(name.start_ms, first_open(history.symbol, interval))
    if interval == "1s":
        for second in range(start_ms // SECOND, name.end_ms // SECOND, _SLICE_SECONDS):
            if stop():
                raise Stopped
            yield from maker.seconds(second, min(second + _SLICE_SECONDS, name.end_ms // SECOND) - 1)
        return
    # A week or three days that began before belongs to the file in which it opens.
    opened = ceil_open(interval, start_ms)
    while opened < name.end_ms:
        end_ms = step(interval, opened, 1)
        outage = candle_absent(history, interval, opened, end_ms)
        if outage is not None:
            opened = max(end_ms, floor_open(interval, outage[1] * SECOND))
            continue
        work = maker.work(interval, opened, end_ms)
        while True:
            if stop():
                raise Stopped
            try:
                next(work)
            except StopIteration as done:
                yield done.value
                break
        opened = end_ms


def lines_of(maker: CandleMaker, name: ArchiveName, spoiled: Spoiled, stop: Callable[[], bool]) -> Iterator[bytes]:
    """The CSV of a file, line by line."""
    units = spoiled.units or name.units
    middle = (name.start_ms + name.end_ms) // 2
    if spoiled.header:
        yield _HEADER
    for number, candle in enumerate(candles_of(maker, name, stop)):
        if number == spoiled.rows:
            return
        micro = units is Units.MICROSECONDS or (units is Units.MIXED and candle.open_ms >= middle)
        row = shown(maker.history, name.kline_interval, candle).row(1000 if micro else 1)
        yield (",".join(map(str, row)) + "\n").encode()


def zip_of(name: ArchiveName, lines: Iterable[bytes]) -> bytes | None:
    """The zip with its one CSV; None without a line. The same lines give the same bytes."""
    stamp = datetime(name.end.year, name.end.month, name.end.day, 0, 26, tzinfo=UTC)
    info = zipfile.ZipInfo(f"{name.base}.csv", stamp.timetuple()[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    written = BytesIO()
    count = 0
    with zipfile.ZipFile(written, "w", compresslevel=1) as archive, archive.open(info, "w") as csv:
        for line in lines:
            csv.write(line)
            count += 1
    return written.getvalue() if count else None
