"""Candles as CSV text: out of REST pages and out of the bulk files' rows, in the venue's own digits.

`timestamp,open,high,low,close,volume`, UTC ms. No number becomes a float on the way; what does not look like the
venue's rows raises `BadRows` before anything of it is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from pmkit.errors import ProtocolChanged

_FIRST_MICROSECOND = 10**14
_DIGITS = b"0123456789"
# A row of five decimals without its digits.
_SHAPE = b",.,.,.,.,.\n"
_ROW = re.compile(rb"[0-9]{1,16}(?:,[0-9]{1,24}(?:\.[0-9]{1,24})?){5}")
_LEFT_OUT = 6  # of a bulk row: close time, quote volume, count, taker volumes, the unused one
_MS_DIGITS, _US_DIGITS = 13, 16


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
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        return []
    try:
        opens, rows, data = _by_block(lines) or (*_by_row(lines), b"")
    except ValueError:
        raise BadRows(f"a row of a bulk file does not begin with a time: {_odd(lines)!r}") from None
    check_order(opens, start_ms, end_ms, length)
    if opens[-1] - opens[0] == (len(opens) - 1) * length:
        return [Chunk(opens[0], opens[-1], len(rows), data) if data else _chunk(opens, rows)]
    edges = [i for i in range(1, len(opens)) if opens[i] - opens[i - 1] != length]
    return [_chunk(opens[i:j], rows[i:j]) for i, j in zip([0, *edges], [*edges, len(opens)], strict=True)]


def _by_block(lines: Sequence[bytes]) -> tuple[list[int], list[bytes], bytes] | None:
    """Times, kept fields and, where it was looked at, their text; None where rows have not the unit of the first."""
    opens = [int(line[:_MS_DIGITS]) for line in lines]
    if lines[0][_MS_DIGITS : _MS_DIGITS + 1] == b",":
        if b"".join([line[_MS_DIGITS : _MS_DIGITS + 1] for line in lines]) != b"," * len(lines):
            return None
        return opens, [line.rsplit(b",", _LEFT_OUT)[0] for line in lines], b""
    rows = [line[:_MS_DIGITS] + line[_US_DIGITS:].rsplit(b",", _LEFT_OUT)[0] for line in lines]
    # A row in ms has lost its first comma to the cut.
    data = b"\n".join(rows) + b"\n"
    return (opens, rows, data) if _has_shape(data, len(rows)) else None


def _by_row(lines: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
    opens, rows = [], []
    for line in lines:
        stamp, comma, numbers = line.rsplit(b",", _LEFT_OUT)[0].partition(b",")
        open_ = _to_ms(int(stamp))
        opens.append(open_)
        rows.append(b"%d%b%b" % (open_, comma, numbers))
    return opens, rows


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


def _odd(lines: Sequence[bytes]) -> bytes:
    return next((line[:100] for line in lines if not line.partition(b",")[0].isdigit()), lines[0][:100])


def _to_ms(stamp: int) -> int:
    return stamp // 1000 if stamp >= _FIRST_MICROSECOND else stamp


SNIFFED_HEADER: Final = (b"open_time", b"open time")


def is_header(line: bytes) -> bool:
    """Whether the first line of a bulk file is a header (futures files have one, spot files do not).

    Two fields are looked at: a torn first row is no header.
    """
    fields = line.lower().split(b",")
    return len(fields) > 1 and fields[0] in SNIFFED_HEADER and fields[1] == b"open"
