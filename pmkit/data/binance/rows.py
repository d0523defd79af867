"""Candles as CSV text: out of REST pages and out of the bulk files' rows, in the venue's own digits.

`timestamp,open,high,low,close,volume`, UTC ms. No number becomes a float on the way; what does not look like the
venue's rows raises `BadRows` before anything of it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from pmkit.errors import ProtocolChanged

_FIRST_MICROSECOND = 10**14
_DIGITS = b"0123456789"
# A row of five decimals without its digits.
_SHAPE = b",.,.,.,.,.\n"
_ROW = re.compile(rb"[0-9]{1,16}(?:,[0-9]{1,24}(?:\.[0-9]{1,24})?){5}")
_FIELDS = 12  # of a bulk row
_LEFT_OUT = 6  # of them: close time, quote volume, count, taker volumes, the unused one
_MS_DIGITS, _US_DIGITS = 13, 16
_COMMA, _DOT, _LINE_END = ord(","), ord("."), ord("\n")
_PIECE = 1 << 18


class BadRows(ProtocolChanged):
    """Rows that are none of Binance's spot klines, or out of order, or outside of what was asked for."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Whole CSV rows in order: `data` ends in a line end, times are open times."""

    first_ms: int
    last_ms: int
    rows: int
    data: bytes


class _Row(msgspec.Struct, array_like=True, gc=False):
    """The fields of a REST row that are kept; the six that follow are skipped by the decoder."""

    t: int
    o: str
    h: str
    l: str  # noqa: E741 - the venue's name
    c: str
    v: str


_page = msgspec.json.Decoder(list[_Row])


def page_rows(body: bytes, start_ms: int, end_ms: int, length: int) -> Chunk | None:
    """A REST page as CSV; None for an empty one. Raises BadRows.

    Opens must lie in [start_ms, end_ms) and go up; they need not be on the grid (a few of 2018 are not). `length` is
    that of a candle in ms.
    """
    try:
        rows = _page.decode(body)
        if not rows:
            return None
        opens = [row.t for row in rows]
        if max(opens) >= _FIRST_MICROSECOND:
            opens = [_to_ms(open_) for open_ in opens]
            for row, open_ in zip(rows, opens, strict=True):
                row.t = open_
        data = "".join([f"{r.t},{r.o},{r.h},{r.l},{r.c},{r.v}\n" for r in rows]).encode("ascii")
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeEncodeError) as error:
        raise BadRows(f"a page of klines does not fit: {error}; it begins {body[:100]!r}") from error
    check_order(opens, start_ms, end_ms, length)
    _check_text(data, len(rows))
    return Chunk(opens[0], opens[-1], len(rows), data)


def bulk_rows(block: bytes, start_ms: int, end_ms: int, length: int) -> list[Chunk]:
    """Whole lines of a bulk file as CSV, cut where candles are missing. Raises BadRows.

    The unit of each row is told by its own digits (13 are ms, 16 are us): files mix them. Opens must lie in
    [start_ms, end_ms) and go up.
    """
    chunks: list[Chunk] = []
    at = start_ms
    for piece in _pieces(block):
        found = all_at_once(piece, at, end_ms, length)
        if found is None:
            return row_by_row(block, start_ms, end_ms, length)
        at = found[-1].last_ms + 1
        chunks += found
    return _joined(chunks, length)


def _pieces(block: bytes) -> Iterator[bytes]:
    """Whole lines that, with all that is made of them, stay in the processor's cache: twice as quick as a megabyte."""
    at = 0
    while at < len(block):
        stop = block.find(b"\n", at + _PIECE) + 1 or len(block)
        yield block[at:stop]
        at = stop


def _joined(chunks: list[Chunk], length: int) -> list[Chunk]:
    """Runs that go on in the next piece as one."""
    edges = [i for i in range(1, len(chunks)) if chunks[i].first_ms - chunks[i - 1].last_ms != length]
    return [
        Chunk(
            chunks[i].first_ms,
            chunks[j - 1].last_ms,
            sum(chunk.rows for chunk in chunks[i:j]),
            b"".join([chunk.data for chunk in chunks[i:j]]),
        )
        for i, j in zip([0, *edges], [*edges, len(chunks)], strict=True)
        if i < j
    ]


def all_at_once(block: bytes, start_ms: int, end_ms: int, length: int) -> list[Chunk] | None:
    """`bulk_rows` without a loop, where every row is in the unit of the first and nothing is wrong; None otherwise.

    Commas and line ends are found in one pass, and what is kept between them is copied in one.
    """
    import numpy as np

    text = np.frombuffer(block, np.uint8)
    # Whatever else is down there makes another number of marks, or another pattern.
    found = np.flatnonzero(text <= _COMMA)
    rows, odd = divmod(len(found), _FIELDS)
    if odd or not rows or found[-1] != len(block) - 1:
        return None
    marks = found.reshape(rows, _FIELDS)
    first, last, ends = marks[:, 0], marks[:, _FIELDS - 1 - _LEFT_OUT], marks[:, _FIELDS - 1]
    if (text[marks[:, :-1]] != _COMMA).any() or (text[ends] != _LINE_END).any():
        return None
    numbers = marks[:, : _FIELDS - _LEFT_OUT]  # lie between these
    if (text[numbers[:, :-1] + 1] == _DOT).any() or (text[numbers[:, 1:] - 1] == _DOT).any():
        return None
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))
    digits = int(first[0])
    if digits not in (_MS_DIGITS, _US_DIGITS) or (first - starts != digits).any():
        return None
    stamps = np.lib.stride_tricks.sliding_window_view(text, digits)[starts] - ord("0")
    if (stamps > 9).any():  # of eight bits: what is below "0" comes out high
        return None
    opens = stamps[:, :_MS_DIGITS] @ 10 ** np.arange(_MS_DIGITS - 1, -1, -1, dtype=np.int64)
    steps = np.diff(opens)
    if opens[0] < start_ms or opens[-1] >= end_ms or (steps <= 0).any():
        return None
    # Of each row: ms kept, us not, numbers kept, the rest not, the line end kept.
    runs = np.empty((rows, 5), np.int64)
    runs[:, 0], runs[:, 1], runs[:, 4] = _MS_DIGITS, digits - _MS_DIGITS, 1
    np.subtract(last, first, out=runs[:, 2])
    np.subtract(ends, last, out=runs[:, 3])
    kept = np.repeat(np.tile(np.array([True, False, True, False, True]), rows), runs.ravel())
    data = text[kept].tobytes()
    if data.translate(None, _DIGITS) != _SHAPE * rows:
        return None
    holes = (np.flatnonzero(steps != length) + 1).tolist()
    if not holes:
        return [Chunk(int(opens[0]), int(opens[-1]), rows, data)]
    stops = np.cumsum(runs[:, 0] + runs[:, 2] + 1).tolist()
    times = opens.tolist()
    return [
        Chunk(times[i], times[j - 1], j - i, data[stops[i - 1] if i else 0 : stops[j - 1]])
        for i, j in zip([0, *holes], [*holes, rows], strict=True)
    ]


def row_by_row(block: bytes, start_ms: int, end_ms: int, length: int) -> list[Chunk]:
    """`bulk_rows` of any block: tells units apart and says what is wrong."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        return []
    opens: list[int] = []
    rows: list[bytes] = []
    for line in lines:
        stamp, comma, numbers = line.rsplit(b",", _LEFT_OUT)[0].partition(b",")
        if not stamp.isdigit():
            raise BadRows(f"a row of a bulk file does not begin with a time: {line[:100]!r}")
        open_ = _to_ms(int(stamp))
        opens.append(open_)
        rows.append(b"%d%b%b" % (open_, comma, numbers))
    check_order(opens, start_ms, end_ms, length)
    edges = [i for i in range(1, len(opens)) if opens[i] - opens[i - 1] != length]
    return [_chunk(opens[i:j], rows[i:j]) for i, j in zip([0, *edges], [*edges, len(opens)], strict=True)]


def check_order(opens: Sequence[int], start_ms: int, end_ms: int, length: int) -> None:
    """Raises BadRows where opens do not go up inside [start_ms, end_ms)."""
    first, last = opens[0], opens[-1]
    if first < start_ms or last >= end_ms:
        raise BadRows(f"candles from {first} to {last} where {start_ms} to {end_ms} was asked for")
    if last - first == (len(opens) - 1) * length and opens == list(range(first, last + 1, length)):
        return
    for before, after in pairwise(opens):
        if after <= before:
            raise BadRows(f"candles are not in order: {after} comes after {before}")


def _chunk(opens: Sequence[int], rows: Sequence[bytes]) -> Chunk:
    data = b"\n".join(rows) + b"\n"
    _check_text(data, len(rows))
    return Chunk(opens[0], opens[-1], len(rows), data)


def _check_text(data: bytes, rows: int) -> None:
    """Every row is a time and five decimals. Without its digits such text is one pattern, over and over."""
    if _has_shape(data, rows):
        return
    for line in data.split(b"\n")[:-1]:
        if not _ROW.fullmatch(line):
            raise BadRows(f"not a row of klines: {line[:100]!r}")


def _has_shape(data: bytes, rows: int) -> bool:
    return data.translate(None, _DIGITS) == _SHAPE * rows and b",." not in data


def _to_ms(stamp: int) -> int:
    return stamp // 1000 if stamp >= _FIRST_MICROSECOND else stamp


SNIFFED_HEADER: Final = (b"open_time", b"open time")


def is_header(line: bytes) -> bool:
    """Whether the first line of a bulk file is a header (futures files have one, spot files do not).

    Two fields are looked at: a torn first row is no header.
    """
    fields = line.lower().split(b",")
    return len(fields) > 1 and fields[0] in SNIFFED_HEADER and fields[1] == b"open"
