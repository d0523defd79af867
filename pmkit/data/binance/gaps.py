"""The gap report: what the venue does not have, as JSON beside the data.

It is read off the files, so that a run that was killed and continued gives the same one as a run that was not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from pmkit.clock import to_utc
from pmkit.data.binance.bulk import BulkFacts
from pmkit.data.candle_file import disk_errors, sync_directory
from pmkit.data.storage import blocks
from pmkit.errors import ConfigError

MOST_OFF_GRID: Final = 1_000
_SECOND = 1000
_WHOLE_SECOND = re.compile(rb"\n[0-9]{10}000,")

_OUTAGES = """
2017-09-06T16:00:00 2017-09-06T23:00:00
2017-12-04T06:00:20 2017-12-04T06:49:06
2017-12-18T10:00:42 2017-12-18T10:14:47
2017-12-18T12:29:13 2017-12-18T13:34:10
2018-01-04T03:00:14 2018-01-04T05:06:13
2018-02-08T00:28:14 2018-02-09T10:00:01
2018-02-10T05:59:59 2018-02-10T06:15:00
2018-02-11T04:00:00 2018-02-11T04:35:00
2018-06-26T02:00:00 2018-06-26T12:00:00
2018-06-27T13:00:00 2018-06-27T14:45:00
2018-07-04T00:22:25 2018-07-04T08:00:00
2018-10-19T06:00:00 2018-10-19T09:30:00
2018-11-14T02:00:00 2018-11-14T09:00:00
2019-03-12T02:00:00 2019-03-12T08:00:00
2019-05-15T03:00:00 2019-05-15T13:00:00
2019-06-07T21:13:13 2019-06-07T22:15:00
2020-02-09T02:00:00 2020-02-09T03:00:00
2020-02-19T11:35:33 2020-02-19T17:30:00
2020-03-04T09:21:47 2020-03-04T11:30:00
2020-04-25T02:00:00 2020-04-25T04:30:00
2020-06-28T02:00:00 2020-06-28T05:30:00
2020-11-30T06:00:00 2020-11-30T07:00:00
2020-12-21T13:47:21 2020-12-21T18:00:00
2020-12-25T02:00:00 2020-12-25T03:00:00
2021-02-11T03:40:55 2021-02-11T05:00:00
2021-03-06T02:00:00 2021-03-06T03:30:00
2021-04-20T02:00:00 2021-04-20T04:30:00
2021-04-25T04:00:59 2021-04-25T08:45:00
"""


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


KNOWN_OUTAGES: Final[Sequence[tuple[int, int]]] = [
    (_ms(line.split()[0]), _ms(line.split()[1])) for line in _OUTAGES.strip().splitlines()
]
"""Outages of the whole venue until April 2021 (binance-public-data issues 365 and 368; ccxt issue 8068). They explain
holes; a hole that is not among them is just as real. Not complete."""


LOST: Final = "they were in the file and are not any more: move the file away and fetch it anew"


class Gap(msgspec.Struct, frozen=True):
    """Candles that the venue does not have: from and to are the open times of the first and the last one. With `why`
    LOST it is the file that does not have them any more.
    """

    first_ms: int
    last_ms: int
    missing: int
    first: str
    last: str
    why: str


class FileFacts(msgspec.Struct, frozen=True):
    """What a file holds. `holes` are (before, after) open times around missing candles."""

    bytes: int
    rows: int
    first_ms: int
    last_ms: int
    holes: list[tuple[int, int]]
    off_grid: list[int]
    disorder: list[int]
    """Rows that are not newer than the one before: never written by pmkit."""
    lost: list[tuple[int, int]] = []
    """Of the holes, those that were none when the file was read before: somebody else took rows out."""


class GapReport(msgspec.Struct, frozen=True):
    """`start_ms` and `end_ms` (exclusive) are what was asked for, as far as the venue had it when it was asked; with
    `complete` False the run ended before, at `end_ms`. `bulk` says which files the rows came from, others came over
    REST.
    """

    symbol: str
    interval: str
    start_ms: int
    end_ms: int
    complete: bool
    candles: int
    missing: int
    gaps: list[Gap]
    off_grid: list[int]
    files: dict[str, FileFacts]
    bulk: dict[str, BulkFacts]


def scan(path: Path, length: int) -> FileFacts | None:
    """Read a file's times; None where it has no rows. Blocking. Raises ConfigError.

    Of 1s candles, a block whose rows are all on the grid and as many as its first and last time say is not looked at
    row by row: enough for what `CandleFile` wrote, where times only go up. `storage.validate` looks at every row.
    """
    count, first, previous = 0, -1, -1
    holes: list[tuple[int, int]] = []
    off_grid: list[int] = []
    disorder: list[int] = []
    for block in blocks(path):
        rows = block.count(b"\n")
        try:
            opened = int(block[:13])
            last = int(block[block.rfind(b"\n", 0, -1) + 1 :][:13])
            whole = last - opened == (rows - 1) * length
            if whole and length == _SECOND and len(_WHOLE_SECOND.findall(b"\n" + block)) == rows:
                opens = [opened]
            else:
                opens = [int(line[:13]) for line in block.split(b"\n")[:-1]]
        except ValueError:
            raise ConfigError(
                f"{path.absolute()} holds rows that are no candles: it was left alone; move it away (validate() says "
                "which rows)"
            ) from None
        for before, after in pairwise([previous, *opens] if count else opens):
            if after <= before:
                disorder.append(after)
            elif after - before > length:
                holes.append((before, after))
        off_grid += [each for each in opens if each % length][: MOST_OFF_GRID - len(off_grid)]
        if not count:
            first = opened
        count += rows
        previous = last
    if not count:
        return None
    return FileFacts(path.stat().st_size, count, first, previous, holes, off_grid, disorder[:MOST_OFF_GRID])


def lost_rows(known: FileFacts, now: FileFacts) -> list[tuple[int, int]]:
    """Holes of a file that it had not when it was read before."""
    before = set(known.holes) - set(known.lost)
    inside = (hole for hole in now.holes if known.first_ms <= hole[0] < known.last_ms)
    return [hole for hole in inside if hole not in before]


def find_gaps(
    files: Mapping[str, FileFacts],
    start_ms: int,
    end_ms: int,
    length: int,
    lost: Sequence[tuple[int, int]] = (),
) -> list[Gap]:
    """What is missing in [start_ms, end_ms), oldest first; both on the grid. The files follow each other in time.

    `lost`: stretches of which it is known that the venue has candles there.
    """
    lost = [*lost, *(stretch for facts in files.values() for stretch in facts.lost)]
    found: list[tuple[int, int]] = []
    previous = start_ms - length
    for facts in sorted(files.values(), key=lambda facts: facts.first_ms):
        if facts.last_ms < start_ms or facts.first_ms >= end_ms:
            continue
        if facts.first_ms - previous > length:
            found.append((previous, facts.first_ms))
        found += facts.holes
        previous = facts.last_ms
    if end_ms - previous > length:
        found.append((previous, end_ms))
    gaps = []
    for before, after in found:
        first = max(start_ms, (before // length + 1) * length)
        last = min(end_ms, -(-after // length) * length) - length
        if first <= last and (after - before - 1) // length:
            ours = any(first <= end and start <= last for start, end in lost)
            gaps.append(_gap(first, last, length, LOST if ours else _why(first, last, length)))
    return gaps


def _why(first: int, last: int, length: int) -> str:
    for start, end in KNOWN_OUTAGES:
        if first >= start - length and last < end + length:
            return f"known outage, {to_utc(start):%Y-%m-%d %H:%M:%S} to {to_utc(end):%Y-%m-%d %H:%M:%S} UTC"
    return "the venue has no candles there"


def _gap(first: int, last: int, length: int, why: str) -> Gap:
    return Gap(first, last, (last - first) // length + 1, _text(first), _text(last), why)


def _text(ms: int) -> str:
    return to_utc(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_report(path: Path) -> GapReport | None:
    """The last report; None where there is none that can be read (it is made anew from the files)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=GapReport)
    except (OSError, msgspec.MsgspecError):
        return None


def write_report(path: Path, report: GapReport) -> None:
    """Replace the report in one step. Blocking. Raises ConfigError."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    new = path.with_name(path.name + ".new")
    with disk_errors(path):
        with new.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_directory(path.parent)
