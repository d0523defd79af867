"""A real day of 1s candles, out of a bulk file as the venue published it (binance.md, section 3)."""

from __future__ import annotations

import re
import zipfile
from array import array
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pmkit.errors import ConfigError
from pmkit.sim.binance.intervals import DAY, SECOND

DAY_SECONDS = DAY // SECOND

_NAME = re.compile(r"(?P<symbol>[A-Z0-9]{2,20})-1s-(?P<date>\d{4}-\d{2}-\d{2})\.zip")
_DECIMAL = rb",\d+\.\d{8}"
_LINE = re.compile(
    rb"(\d{13}|\d{16})" + _DECIMAL * 5 + rb",(?:\d{13}|\d{16})" + _DECIMAL + rb",(\d+)" + _DECIMAL * 2 + rb",0"
)

# open, high, low, close, volume, quote, trades, taker volume, taker quote, first id, last id; in 1e-8 where not counts
Bar = tuple[int, int, int, int, int, int, int, int, int, int, int]


class RecordedDay:
    """The rows of one symbol and UTC day, their file byte for byte, and which seconds have no row.

    A file does not tell trade ids: they are counted on from the first of the day (`first_id`, set by whoever serves
    it), so they run without holes within the day.
    """

    def __init__(
        self, symbol: str, start_ms: int, archive: bytes, lines: list[bytes | None], counts: list[int]
    ) -> None:
        self.symbol = symbol
        self.start_ms = start_ms
        self.archive = archive
        self.sha256 = sha256(archive).hexdigest()
        self.first_id = 0
        self._lines = lines
        self._before = array("Q", [0])
        for count in counts:
            self._before.append(self._before[-1] + count)

    @property
    def first_second(self) -> int:
        return self.start_ms // SECOND

    @property
    def rows(self) -> int:
        """How many of the 86,400 seconds have a row."""
        return sum(line is not None for line in self._lines)

    def gaps(self) -> list[tuple[int, int]]:
        """The runs of seconds without a row, as (first, one past the last) in epoch seconds."""
        found: list[tuple[int, int]] = []
        for offset, line in enumerate(self._lines):
            if line is not None:
                continue
            second = self.first_second + offset
            if found and found[-1][1] == second:
                found[-1] = (found[-1][0], second + 1)
            else:
                found.append((second, second + 1))
        return found

    def bar(self, second: int) -> Bar:
        """A second that has a row; ids are -1 without trades. Raises KeyError for one without."""
        offset = second - self.first_second
        line = self._lines[offset]
        if line is None:
            raise KeyError(second)
        _, o, h, low, c, v, _, q, n, taker, taker_quote, _ = line.split(b",")
        trades = int(n)
        first = self.first_id + self._before[offset]
        return (
            _units(o),
            _units(h),
            _units(low),
            _units(c),
            _units(v),
            _units(q),
            trades,
            _units(taker),
            _units(taker_quote),
            first if trades else -1,
            first + trades - 1 if trades else -1,
        )


def _units(text: bytes) -> int:
    return int(text.replace(b".", b"", 1))


def read_day(path: str | Path) -> RecordedDay:
    """A daily file of 1s candles, `BTCUSDT-1s-2026-03-13.zip`; takes a quarter of a second.

    Milliseconds and microseconds are both read. A short file is taken as it is: the seconds it lacks are absent.
    Raises ConfigError for any other name or content.
    """
    path = Path(path)
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise ConfigError(f"{path.name} is no daily file of 1s candles, which are named like BTCUSDT-1s-2026-03-13.zip")
    try:
        archive = path.read_bytes()
        with zipfile.ZipFile(BytesIO(archive)) as opened:
            text = opened.read(path.stem + ".csv")
        start_ms = int(datetime.strptime(named["date"], "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1000
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path.name} cannot be read as a bulk file: {error}") from error
    lines: list[bytes | None] = [None] * DAY_SECONDS
    counts = [0] * DAY_SECONDS
    last = -1
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError(f"{path.name}, line {number}: not the twelve columns of a spot kline")
        offset, rest = divmod(int(found[1][:13]) - start_ms, SECOND)
        if rest or not last < offset < DAY_SECONDS:
            raise ConfigError(f"{path.name}, line {number}: its open time is not the next second of that day")
        lines[offset], counts[offset], last = line, int(found[2]), offset
    if last < 0:
        raise ConfigError(f"{path.name} holds no rows")
    return RecordedDay(named["symbol"], start_ms, archive, lines, counts)
