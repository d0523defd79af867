"""The trade CSV: `trades_{mode}_{date}.csv`, one row per event, in the file of the event's UTC day.

    trades = TradeLog(paths, "dry-run", "FavouriteBot", clock)
    trades.write(TradeEvent.INTENT, venue="kalshi", market_id=..., side=Side.BUY, price=Decimal("0.55"), size=10)
    trades.close()

Every row is one line of the file, whatever its texts hold: control characters are written as escapes, so that a torn
row is found by its missing line end. Cells that a spreadsheet would run as a formula begin with an apostrophe;
`read_trades` takes it off again.
"""

from __future__ import annotations

import atexit
import csv
import io
import logging
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TypedDict, Unpack

from pmkit.clock import Clock, to_ms, to_utc
from pmkit.errors import ConfigError
from pmkit.logging.files import DailyFile
from pmkit.logging.paths import Paths, unwritable
from pmkit.logging.redact import REDACTOR
from pmkit.logging.sinks import FileLine, FileSink
from pmkit.logging.text import escape, shorten
from pmkit.logging.writer import CLOSE_SECONDS, RETRY_SECONDS, LineWriter, WriterStats

_LOG = logging.getLogger(__name__)

COLUMNS = (
    "time_utc", "mode", "venue", "bot", "event", "asset", "market_id", "outcome", "side", "type", "time_in_force",
    "price", "size", "filled", "remaining", "avg_price", "fee", "order_id", "client_order_id", "fill_id", "liquidity",
    "status", "reason", "best_bid", "best_ask", "seconds_left",
)  # fmt: skip
HEADER = (",".join(COLUMNS) + "\n").encode()
HELD_ROWS = 10_000
MAX_TEXT_CHARS = 500
_SHOWN_AT_CLOSE = 20

_FIXED = frozenset({"time_utc", "mode", "bot", "event"})
_NUMBERS = frozenset({"price", "size", "filled", "remaining", "avg_price", "fee", "best_bid", "best_ask"})
_FOREIGN_TEXT = frozenset({"reason", "status"})
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")  # also the full-width forms, which some locales take for them
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class TradeEvent(StrEnum):
    """What a row is about."""

    INTENT = "intent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    RESOLVED = "resolved"
    FILL = "fill"
    FILL_FINAL = "fill_final"
    FILL_FAILED = "fill_failed"
    CANCEL = "cancel"
    CANCELED = "canceled"
    ROLLOVER = "rollover"
    SETTLED = "settled"


Number = Decimal | int | str | None
"""Dollars, shares or contracts; a str is the venue's own text."""


class TradeFields(TypedDict, total=False):
    """The columns that a caller may fill; what is absent or None is an empty cell.

    `time_utc` (aware) is when the event happened, now by default; it decides the file. `seconds_left` is to the
    market's close.
    """

    time_utc: datetime | None
    venue: str | None
    asset: str | None
    market_id: str | None
    outcome: str | None
    side: str | None
    type: str | None
    time_in_force: str | None
    price: Number
    size: Number
    filled: Number
    remaining: Number
    avg_price: Number
    fee: Number
    order_id: str | None
    client_order_id: str | None
    fill_id: str | None
    liquidity: str | None
    status: str | None
    reason: str | None
    best_bid: Number
    best_ask: Number
    seconds_left: float | Decimal | None


class TradeLog:
    """Appends rows by a thread of its own; `write` never blocks and never raises for the disk's sake.

    The file is opened here and now, so that a directory that cannot be written is found at the start: ConfigError.
    Later on, while the disk is full or slow, up to `held_rows` rows wait in memory and are written when there is room
    again; that is logged once per episode, and what is lost beyond is counted. `fsync_rows`: fsync once so many rows
    were written since the last time (1: after every batch; 0: only at close).

    `mode` is the mode of file names (`pmkit.logging.paths.file_mode`). Several venues write into one file.
    """

    def __init__(
        self,
        paths: Paths,
        mode: str,
        bot: str,
        clock: Clock,
        *,
        fsync_rows: int = 1,
        held_rows: int = HELD_ROWS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.mode = mode
        self.bot = bot
        self._clock = clock
        self._file = DailyFile(
            lambda day, number: paths.trades_file(mode, day, number),
            lambda text: _LOG.warning("%s", text),
            header=HEADER,
        )
        today = clock.now().date()
        try:
            self._file.open(today)
        except OSError as error:
            raise unwritable(paths.trades_file(mode, today), error) from None
        self._writer: LineWriter[FileLine] = LineWriter(
            "trade file",
            FileSink(self._file),
            lambda text, recovered: _LOG.log(logging.WARNING if recovered else logging.ERROR, "%s", text),
            limit=held_rows,
            sync_every=fsync_rows,
            retry_seconds=retry_seconds,
        )
        self._closed = False
        atexit.register(self.close)

    @property
    def path(self) -> Path | None:
        """The file that was opened last."""
        return self._file.path

    @property
    def stats(self) -> WriterStats:
        """Rows written, waiting, lost; errors of the disk."""
        return self._writer.stats

    @property
    def trouble(self) -> str | None:
        """Why rows cannot be written at the moment; None when all is well."""
        return self._writer.trouble

    def write(self, event: TradeEvent, **fields: Unpack[TradeFields]) -> None:
        """One row. Raises TypeError for a float or bool where money belongs, a naive time or an unknown column."""
        moment = fields.get("time_utc")
        ms = self._clock.now_ms() if moment is None else _ms(moment)
        day, line = render(ms, self.mode, self.bot, TradeEvent(event), fields)
        self._writer.submit(FileLine(day, line))

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait (blocking, wall seconds) until all rows so far are in the file. False when they are not."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what is left, fsync, close. Blocks `timeout` wall seconds at most. Idempotent.

        Rows that could not be written are put into the log, so that they are not lost without a trace.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        left = self._writer.close(timeout)
        if left:
            _LOG.error("%d trade rows could not be written; they follow (%d at most)", len(left), _SHOWN_AT_CLOSE)
        for item in left[:_SHOWN_AT_CLOSE]:
            _LOG.error("unwritten trade row: %s", item.line.decode().rstrip("\n"))

    def __enter__(self) -> TradeLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ms(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise TypeError("time_utc must be an aware datetime")
    return to_ms(moment)


def render(ms: int, mode: str, bot: str, event: TradeEvent, fields: TradeFields) -> tuple[date, bytes]:
    """The UTC day and the line of one row. `ms` is when it happened."""
    unknown = fields.keys() - (set(COLUMNS) - _FIXED | {"time_utc"})
    if unknown:
        raise TypeError(f"no such column of the trade file: {', '.join(sorted(unknown))}")
    moment = to_utc(ms)
    fixed = {
        "time_utc": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z",
        "mode": mode,
        "bot": bot,
        "event": event.value,
    }
    cells = [_text(fixed[name], name) if name in fixed else _cell(name, fields.get(name)) for name in COLUMNS]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return moment.date(), out.getvalue().encode("utf-8", "backslashreplace")


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name == "seconds_left" and isinstance(value, int | float | Decimal):
        seconds = float(value)
        return f"{seconds:.3f}" if abs(seconds) < 1e12 else ""
    if name in _NUMBERS:
        if isinstance(value, bool | float):
            raise TypeError(f"{name} must be a Decimal, int or str, not {type(value).__name__}: money is never a float")
        if isinstance(value, Decimal):
            return plain(value)
    return _text(str(value), name)


def plain(value: Decimal) -> str:
    """A Decimal without exponent, all its digits kept."""
    if not value.is_finite() or abs(value.adjusted()) > 100:
        return str(value)
    return format(value, "f")


def _text(text: str, name: str) -> str:
    if name in _FOREIGN_TEXT:
        text = REDACTOR(text)
    return defuse(escape(shorten(text, MAX_TEXT_CHARS)))


def _is_formula(text: str) -> bool:
    return text.lstrip(" '")[:1] in _FORMULA and text.lstrip(" '") != "" and not _PLAIN_NUMBER.fullmatch(text)


def defuse(text: str) -> str:
    """A text that no spreadsheet takes for a formula; numbers stay as they are."""
    return "'" + text if _is_formula(text) else text


def undo(cell: str) -> str:
    """The inverse of `defuse`."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def read_trades(path: Path, on_bad: Callable[[int, str], object] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a trade file, oldest first, as {column: text}; an empty cell is "".

    Bad rows (torn, wrong number of cells) are passed over and reported: `on_bad(line number, line)`, or a warning in
    the log that counts them. Raises ConfigError when the file is not a trade file. Memory does not grow with the file.
    """
    bad: list[int] = []
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        if file.readline() != HEADER.decode():
            raise ConfigError(f"{path} is not a trade file of pmkit: its header is another one")
        for number, line in enumerate(file, 2):
            cells = _split(line)
            if cells is not None:
                yield dict(zip(COLUMNS, map(undo, cells), strict=True))
            elif on_bad is not None:
                on_bad(number, line)
            else:
                bad.append(number)
    if bad:
        _LOG.warning("%s: %d bad rows were passed over, the first is line %d", path, len(bad), bad[0])


def _split(line: str) -> list[str] | None:
    if not line.endswith("\n"):
        return None
    try:
        rows = list(csv.reader([line], strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 and len(rows[0]) == len(COLUMNS) else None
