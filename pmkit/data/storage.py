"""Candle CSV files: `timestamp,open,high,low,close,volume`; the time is the open in UTC ms, the numbers are the venue's
own text.

`CandleFile` appends; `first_time`, `last_time`, `read`, `chunks` and `candles` read; `validate` says what is wrong with
a file. A file is whole rows in order of time, always: what a kill or a power cut left of a last row is cut off when it
is opened for writing, and left out by those who read. A file with another header is never touched.

Everything here is synchronous: call it from a thread where a loop runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from pmkit.data.binance.types import Candle
from pmkit.data.candle_file import HEADER, LONGEST_ROW, CandleFile, row_time, whole_rows
from pmkit.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "HEADER",
    "CandleFile",
    "Problem",
    "blocks",
    "candles",
    "chunks",
    "first_time",
    "last_time",
    "read",
    "row_time",
    "validate",
]

COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")
CHUNK_ROWS: Final = 100_000
MOST_PROBLEMS: Final = 1_000
_BLOCK = 1 << 20


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A candle file behind its header. Raises ConfigError where it is none, or cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {path.absolute()}: {error.strerror or type(error).__name__}") from error
    with file:
        start = file.read(len(HEADER))
        if start != HEADER:
            raise ConfigError(f"{path.absolute()} is not a candle file of pmkit: it begins {start[:40]!r}")
        yield file


def _whole(file: IO[bytes]) -> tuple[int, bytes]:
    """The size without a torn end, and the last row; the file is behind the header before and after."""

    def read(start: int, count: int) -> bytes:
        file.seek(start)
        return file.read(count)

    found = whole_rows(read, file.seek(0, os.SEEK_END))
    file.seek(len(HEADER))
    return found


def blocks(path: Path, size: int = _BLOCK) -> Iterator[bytes]:
    """The rows of a file in blocks of whole lines, a torn last row left out. Raises ConfigError."""
    with _opened(path) as file:
        left, tail = _whole(file)[0] - len(HEADER), b""
        while left > 0:
            block = file.read(min(size, left))
            if not block:
                break  # it became shorter
            left -= len(block)
            cut = block.rfind(b"\n") + 1
            if cut:
                yield tail + block[:cut]
                tail = block[cut:]
            else:
                tail += block


def first_time(path: Path) -> int | None:
    """The open time of the first row; None for an empty file. Raises ConfigError."""
    with _opened(path) as file:
        return row_time(file.readline(LONGEST_ROW).removesuffix(b"\n"))


def last_time(path: Path) -> int | None:
    """The open time of the last whole row; None for an empty file. Raises ConfigError."""
    with _opened(path) as file:
        return row_time(_whole(file)[1])


def read(paths: Path | Sequence[Path], start_ms: int | None = None, end_ms: int | None = None) -> pd.DataFrame:
    """A DataFrame with the columns timestamp (epoch ms), open, high, low, close, volume; the index, "time", is the
    open time as UTC datetimes. Only rows with `start_ms` <= open < `end_ms`, where given.

    Floats are those nearest to the text. About 50 bytes per row: `chunks` for what does not fit. Raises ConfigError.
    """
    import pandas as pd

    parts = list(chunks(paths, start_ms=start_ms, end_ms=end_ms))
    return pd.concat(parts) if parts else _frame(Path(), b"")


def chunks(
    paths: Path | Sequence[Path],
    rows: int = CHUNK_ROWS,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> Iterator[pd.DataFrame]:
    """`read` in pieces of about `rows` rows, one after another; empty ones are left out."""
    for path in [paths] if isinstance(paths, Path) else paths:
        for block in blocks(path, max(1, rows) * 80):
            frame = _frame(path, block)
            if start_ms is not None:
                frame = frame[frame["timestamp"] >= start_ms]
            if end_ms is not None:
                frame = frame[frame["timestamp"] < end_ms]
            if len(frame):
                yield frame


def _frame(path: Path, block: bytes) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    # One pass in C that rounds as float() does; times are exact in a float until the year 287396.
    numbers = np.fromstring(block.rstrip(b"\n").replace(b"\n", b",").decode("ascii", "replace"), sep=",")
    if len(numbers) != len(COLUMNS) * block.count(b"\n"):
        raise ConfigError(f"{path.absolute()} holds rows that are no candles: validate() says which")
    table = numbers.reshape(-1, len(COLUMNS))
    data = {name: table[:, place].copy() for place, name in enumerate(COLUMNS)}
    times = data["timestamp"].astype(np.int64)
    index = pd.DatetimeIndex(pd.to_datetime(times, unit="ms", utc=True), name="time")
    return pd.DataFrame(data | {"timestamp": times}, index=index)


def candles(paths: Path | Iterable[Path]) -> Iterator[Candle]:
    """Every row as a `Candle`, without pandas. Raises ConfigError, also for a row that is none."""
    for path in [paths] if isinstance(paths, Path) else paths:
        for block in blocks(path):
            for line in block.split(b"\n")[:-1]:
                if row_time(line) is None:
                    raise ConfigError(f"{path.absolute()} holds a row that is no candle: {line[:100]!r}")
                stamp, *numbers = line.split(b",")
                yield Candle(int(stamp), *map(float, numbers))


# Checking.


class Problem(NamedTuple):
    """Something in a file that should not be so: `line` counts from 1 (the header)."""

    line: int
    kind: str
    """header, torn, row, order, duplicate, grid or hole."""
    text: str


def validate(path: Path, length: int | None = None, *, holes: bool = True) -> list[Problem]:
    """Read every row of a file and say what is wrong; empty when nothing is. At most 1000 problems.

    `length`: the interval in ms; without it steps and the grid are not looked at. `holes=False` where missing
    ones are known to be the venue's. Raises ConfigError only where the file cannot be read.
    """
    found: list[Problem] = []
    try:
        with path.open("rb") as file:
            if (start := file.read(len(HEADER))) != HEADER:
                return [Problem(1, "header", f"expected {HEADER[:-1].decode()}, not {start[:60]!r}")]
            _check_rows(file, length, holes, lambda *problem: found.append(Problem(*problem)), found)
    except OSError as error:
        raise ConfigError(f"cannot read {path.absolute()}: {error.strerror or type(error).__name__}") from error
    return found[:MOST_PROBLEMS]


def _check_rows(
    file: IO[bytes], length: int | None, holes: bool, say: Callable[[int, str, str], None], found: Sequence[Problem]
) -> None:
    previous: int | None = None
    for number, line in enumerate(file, start=2):
        if len(found) >= MOST_PROBLEMS:
            return
        if not line.endswith(b"\n"):
            say(number, "torn", f"the last row has no line end: {line[:100]!r}")
            return
        opened = row_time(line[:-1])
        if opened is None:
            say(number, "row", f"not a time in ms and five numbers: {line[:100]!r}")
            continue
        if previous is not None and opened == previous:
            say(number, "duplicate", f"the candle of {opened} again")
        elif previous is not None and opened < previous:
            say(number, "order", f"{opened} comes after {previous}")
        elif length is not None:
            if opened % length:
                say(number, "grid", f"{opened} is not a multiple of {length} ms")
            elif holes and previous is not None and opened - previous > length:
                missing = (opened - previous) // length - (0 if previous % length else 1)
                say(number, "hole", f"{missing} candles are missing between {previous} and {opened}")
        previous = opened
