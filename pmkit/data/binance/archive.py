"""The files of one symbol and interval: which there are, where they go on, how rows get in front, what they lack.

    BTCUSDT-1s/BTCUSDT-1s-2026-03.csv           a UTC month
    BTCUSDT-1s/BTCUSDT-1s-2026-03.csv.N.head    rows from N on that will stand before its first one
    BTCUSDT-1s/BTCUSDT-1s.gaps.json             the gap report

All of it blocks: call it in a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from pmkit.data.binance import plan
from pmkit.data.binance.bulk import BulkFacts
from pmkit.data.binance.gaps import FileFacts, GapReport, find_gaps, lost_rows, read_report, scan, write_report
from pmkit.data.binance.plan import Kind, Month, Target
from pmkit.data.candle_file import HEADER, CandleFile, disk_errors, sync_directory
from pmkit.data.storage import first_time, last_time
from pmkit.errors import ConfigError


class Archive:
    """See the module docstring. Raises ConfigError for everything the disk refuses and files that are not of pmkit."""

    def __init__(self, directory: Path, symbol: str, interval: str, length: int) -> None:
        self.name = f"{symbol}-{interval}"
        self.directory = directory / self.name
        self.report_path = self.directory / f"{self.name}.gaps.json"
        self._symbol = symbol
        self._interval = interval
        self._length = length
        # By month: the head that is written, and its last row so far.
        self._heads: dict[str, tuple[Path, int | None]] = {}
        self._facts: dict[str, FileFacts] = {}
        self._sources: dict[str, BulkFacts] = {}
        # First and last row of files that were there when they were last read.
        self._gone: list[tuple[int, int]] = []

    def path(self, month: str) -> Path:
        """The file of a month (2026-03)."""
        return self.directory / f"{self.name}-{month}.csv"

    def months(self, start_ms: int, end_ms: int) -> list[Month]:
        """The months of a range, with the first and last row of what is there."""
        found = []
        for month in plan.months(start_ms, end_ms):
            path = self.path(month.name)
            # Shorter than a header: a run that was killed before it had written that.
            if path.exists() and path.stat().st_size >= len(HEADER):
                first, last = first_time(path), last_time(path)
                if (first is None) != (last is None):
                    raise ConfigError(f"{path.absolute()} holds a row that is no candle: it was left alone")
                if first is not None and last is not None:
                    if not month.start_ms <= first <= last < month.end_ms:
                        raise ConfigError(f"{path.absolute()} holds candles of another month: it was left alone")
                    self._drop_joined(path, first)
                month = msgspec.structs.replace(month, first_ms=first, last_ms=last)
            found.append(month)
        return found

    def _found_heads(self, path: Path) -> list[tuple[int, Path]]:
        pattern = re.compile(re.escape(path.name) + r"\.([0-9]{13})\.head")
        found = ((pattern.fullmatch(each.name), each) for each in path.parent.glob(path.name + ".*.head"))
        return sorted((int(match[1]), each) for match, each in found if match)

    def _drop_joined(self, path: Path, first_ms: int) -> None:
        """A run may have been killed between joining a head and removing it."""
        for _, head in self._found_heads(path):
            if head.stat().st_size >= len(HEADER) and (last_time(head) or 0) >= first_ms:
                with disk_errors(head):
                    os.unlink(head)

    def resumed(self, target: Target) -> Target:
        """Where a head that an earlier run began goes on; those that do not cover what is wanted are removed."""
        if target.kind is not Kind.HEAD:
            return target
        path = self.path(target.month.name)
        chosen = path.with_name(f"{path.name}.{target.start_ms}.head")
        start, last = target.start_ms, None
        for begins, head in self._found_heads(path):
            with disk_errors(head):
                if begins > target.start_ms or head.stat().st_size < len(HEADER):
                    os.unlink(head)
                    continue
            with CandleFile(head) as file:
                chosen, last = head, file.last_ms
                start = begins if last is None else last + 1
            break
        self._heads[target.month.name] = (chosen, last)
        return msgspec.structs.replace(target, start_ms=start)

    def open(self, target: Target) -> CandleFile:
        """The file that a target is written to, open at its end."""
        path, last = self.path(target.month.name), target.month.last_ms
        if target.kind is Kind.HEAD:
            path, last = self._heads[target.month.name]
        file = CandleFile(path)
        if file.last_ms != last:
            file.close()
            raise ConfigError(f"{file.path.absolute()} was changed by somebody else meanwhile: start again")
        return file

    def join(self, target: Target) -> None:
        """Put a head into its file, in one step."""
        head, path = self._heads[target.month.name][0], self.path(target.month.name)
        if not head.exists():
            return
        new = path.with_name(path.name + ".new")
        # Opening cuts torn rows, and refuses a file that somebody else is writing.
        with CandleFile(path) as old, CandleFile(head) as front:
            if old.first_ms != target.month.first_ms or (front.last_ms or 0) >= (old.first_ms or 0):
                raise ConfigError(f"{path.absolute()} was changed by somebody else meanwhile: start again")
            with disk_errors(new):
                try:
                    _concatenate(new, head, path)
                except OSError:
                    with suppress(OSError):  # where the disk is full it would keep what little room there is
                        new.unlink()
                    raise
        with disk_errors(path):
            os.replace(new, path)
            sync_directory(path.parent)
            os.unlink(head)

    # The report.

    def load_report(self) -> None:
        """What the last run knew of the files, so that they need not be read again."""
        last = read_report(self.report_path)
        if last is not None and (last.symbol, last.interval) == (self._symbol, self._interval):
            self._facts = dict(last.files)
            self._sources = dict(last.bulk)

    def look(self, month: str) -> None:
        """Read the times in a file, unless that was done and its size is the same."""
        self._look(self.path(month))

    def _look(self, path: Path) -> None:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            if gone := self._facts.pop(path.name, None):
                self._gone.append((gone.first_ms, gone.last_ms))
            return
        known = self._facts.get(path.name)
        if known is None or known.bytes != size:
            self._facts.pop(path.name, None)
            facts = scan(path, self._length) if size > len(HEADER) else None
            if facts is not None:
                lost = lost_rows(known, facts) if known else []
                self._facts[path.name] = msgspec.structs.replace(facts, lost=lost)

    def report(self, start_ms: int, end_ms: int, complete: bool, sources: dict[str, BulkFacts]) -> GapReport:
        """Look at every file of the range, and write what is missing in it."""
        length = self._length
        for month in plan.months(start_ms, end_ms):
            self.look(month.name)
        for name in list(self._facts):
            with suppress(ConfigError):  # of another range: whoever asks for that one is told
                self._look(self.directory / name)
        self._sources.update(sources)
        grid = -(-start_ms // length) * length, end_ms // length * length
        gaps = find_gaps(self._facts, *grid, length, self._gone)
        missing = sum(gap.missing for gap in gaps)
        report = GapReport(
            symbol=self._symbol,
            interval=self._interval,
            start_ms=start_ms,
            end_ms=end_ms,
            complete=complete,
            candles=plan.row_count(start_ms, end_ms, length) - missing,
            missing=missing,
            gaps=gaps,
            off_grid=sorted(at for facts in self._facts.values() for at in facts.off_grid if start_ms <= at < end_ms),
            files=dict(sorted(self._facts.items())),
            bulk=dict(sorted(self._sources.items())),
        )
        write_report(self.report_path, report)
        return report


def _concatenate(target: Path, head: Path, rest: Path) -> None:
    """Two candle files under one header, synced."""
    with target.open("wb") as joined:
        with head.open("rb") as part:
            shutil.copyfileobj(part, joined, 1 << 20)
        with rest.open("rb") as part:
            part.seek(len(HEADER))
            shutil.copyfileobj(part, joined, 1 << 20)
        joined.flush()
        os.fsync(joined.fileno())


def free_bytes(directory: Path) -> int:
    """Room on the disk that a directory is, or will be, on."""
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with disk_errors(directory):
        return shutil.disk_usage(place).free
