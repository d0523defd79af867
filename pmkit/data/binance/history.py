"""History into CSV files: one per symbol, interval and UTC month, and a gap report beside them.

    data/BTCUSDT-1s/BTCUSDT-1s-2026-03.csv
    data/BTCUSDT-1s/BTCUSDT-1s.gaps.json

Requests run side by side, rows are written strictly in order, whole requests at a time, and synced. The files alone say
where the next run goes on: between its first and its last row a file lacks only what the venue lacks. Rows before the
first one are collected in `.csv.head` and joined to the file in one step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from pmkit.clock import to_ms, to_utc
from pmkit.data.binance import plan
from pmkit.data.binance.archive import Archive, free_bytes
from pmkit.data.binance.bulk import in_thread
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.gaps import LOST, Gap, GapReport
from pmkit.data.binance.pipeline import Pipeline
from pmkit.data.binance.plan import Costs, Kind, Piece, Source, Target, Work
from pmkit.data.binance.rows import Chunk
from pmkit.data.binance.types import check_ms, check_symbol, interval_ms
from pmkit.data.candle_file import CandleFile, FileGone
from pmkit.errors import ConfigError
from pmkit.logging.paths import ensure_writable

SETTLE_HISTORY_MS: Final = 2_000
"""What ended this recently by the venue's clock is left for the next run: it may still be written."""
SYNC_BYTES: Final = 4 << 20
"""Written between two fsyncs: about 50 pages."""

_LOG = logging.getLogger("pmkit.binance")


class Progress(msgspec.Struct, frozen=True):
    """After each write. `done` and `total` are slots of the grid, holes included; `rows` were written in this run.

    `trouble`: why nothing moves at the moment; empty when all is well.
    """

    symbol: str
    interval: str
    done: int
    total: int
    rows: int
    bytes: int
    trouble: str = ""


class Estimate(msgspec.Struct, frozen=True):
    """What a fetch would do. `rows` counts slots (an upper bound where the venue has holes), `bytes` is of CSV."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int
    source: Source
    rows: int
    bytes: int
    requests: int
    weight: int
    files: int
    download_bytes: int
    minutes: float
    free_bytes: int
    """Room on the disk of the directory."""
    notes: list[str]


class Fetched(msgspec.Struct, frozen=True):
    """What a fetch did. `rows` were written now, `candles` are in the files between `start_ms` and `end_ms`."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int
    source: Source
    rows: int
    candles: int
    requests: int
    weight: int
    downloads: int
    seconds: float
    gaps: list[Gap]
    missing: int
    off_grid: int
    files: list[Path]
    report: Path | None
    notes: list[str]


class _Range(msgspec.Struct, frozen=True):
    start_ms: int
    end_ms: int
    now_ms: int


def moment_ms(moment: datetime | int, what: str) -> int:
    """Epoch ms. Raises ValueError for a naive datetime, and for seconds or microseconds."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{what} is a naive datetime ({moment}): give it a zone, e.g. datetime(..., tzinfo=UTC)")
        moment = to_ms(moment)
    return check_ms(moment, what)


class History:
    """One fetch of one symbol. `run` once, or `estimate`."""

    def __init__(
        self,
        fetcher: BinanceFetcher,
        symbol: str,
        interval: str,
        start: datetime | int | None,
        end: datetime | int | None,
        directory: Path,
        *,
        progress: Callable[[Progress], object] | None = None,
        source: str = "auto",
        patience: float = 0.0,
    ) -> None:
        self.symbol = check_symbol(symbol)
        self.interval = interval
        self.length = interval_ms(interval)
        self.notes: list[str] = []
        self._fetcher = fetcher
        self._clock = fetcher.clock
        self._start = None if start is None else moment_ms(start, "start")
        self._end = None if end is None else moment_ms(end, "end")
        if self._start is not None and self._end is not None and self._end <= self._start:
            raise ValueError(f"the end ({to_utc(self._end)}) is not after the start ({to_utc(self._start)})")
        try:
            self._source = Source(source)
        except ValueError:
            raise ValueError(f"source is one of {', '.join(Source)}, not {source!r}") from None
        self._progress = progress
        self._archive = Archive(Path(directory), self.symbol, interval, self.length)
        self._pipeline = Pipeline(
            fetcher,
            self.symbol,
            interval,
            self.length,
            self._archive.directory,
            patience=patience,
            on_trouble=self._tell_trouble,
        )
        self._costs = Costs(1)
        self._rows = 0
        self._bytes = 0
        self._done = 0
        self._told = 0
        self._trouble = ""
        self._reached = 0
        self._total = 0
        self._file: CandleFile | None = None
        self._bulk_notes = len(fetcher.bulk_host().notes)

    # What is asked for, and what is there.

    async def _prepare(self) -> tuple[_Range, list[Target], Work]:
        first = await self._fetcher.first_open(self.symbol, self.interval)
        now = await self._fetcher.server_ms()
        closed = (now - SETTLE_HISTORY_MS) // self.length * self.length
        start, end = self._start, self._end
        if start is not None and start >= now:
            raise ValueError(f"the start ({to_utc(start)}) is in the future: at Binance it is {to_utc(now)}")
        if end is None or end > closed:
            if end is not None and end > now:
                self.notes.append(f"the end {to_utc(end)} is in the future: up to {to_utc(closed)} instead")
            end = closed
        if first is None:
            first = end
        if start is None or start < first:
            if start is not None:
                self.notes.append(f"{self.symbol} has no candles before {to_utc(first)}: from there on")
            start = first
        start = -(-start // self.length) * self.length if start != first else start
        end = -(-end // self.length) * self.length
        asked = _Range(start, max(start, end), now)
        have = await in_thread(self._archive.months, asked.start_ms, asked.end_ms)
        todo = plan.targets(have, asked.start_ms, asked.end_ms, self.length)
        todo = [await in_thread(self._archive.resumed, target) for target in todo]
        pages = sum(plan.page_count(target.start_ms, target.end_ms, self.length) for target in todo)
        share = int(self._fetcher.budget.share * self._fetcher.budget.limit)
        if pages * plan.KLINE_WEIGHT > share:
            share = await self._fetcher.weight_per_minute(self.symbol)
        self._costs = Costs(max(1, share), in_flight=self._fetcher.in_flight)
        return asked, todo, plan.choose(todo, now, self.length, self._costs, self._source)

    async def estimate(self) -> Estimate:
        """See `BinanceFetcher.estimate`."""
        asked, _, work = await self._prepare()
        return Estimate(
            symbol=self.symbol,
            interval=self.interval,
            start_ms=asked.start_ms,
            end_ms=asked.end_ms,
            source=work.source,
            rows=work.rows,
            bytes=work.rows * plan.row_bytes(self.symbol),
            requests=work.requests,
            weight=work.requests * plan.KLINE_WEIGHT,
            files=work.files,
            download_bytes=work.download_bytes,
            minutes=work.seconds / 60,
            free_bytes=await in_thread(free_bytes, self._archive.directory),
            notes=self.notes,
        )

    # The run.

    async def run(self) -> Fetched:
        """See `BinanceFetcher.fetch`."""
        began, weight = self._clock.monotonic(), self._fetcher.budget.spent
        asked, todo, work = await self._prepare()
        await in_thread(ensure_writable, self._archive.directory)
        await in_thread(self._archive.load_report)
        self._total = work.rows
        # Everything before that is in the files.
        self._reached = asked.end_ms
        if todo:
            first = todo[0]
            self._reached = max(asked.start_ms, first.month.start_ms if first.kind is Kind.HEAD else first.start_ms)
        try:
            await self._write_all(todo, asked, work.source)
        except BaseException as cause:
            try:
                await in_thread(self._close)
                if not isinstance(cause, FileGone):  # what is missing then is no gap
                    await self._report(asked, self._reached)
            except ConfigError as error:  # what ended the run is what is told
                _LOG.warning("the end of a run could not be written: %s", error)
            raise
        report = await self._report(asked, asked.end_ms)
        return self._fetched(asked, work, report, began, weight)

    async def _write_all(self, todo: list[Target], asked: _Range, source: Source) -> None:
        current = -1
        async with aclosing(self._pipeline.batches(self._plan(todo, asked, source))) as batches:
            async for at, chunks in batches:
                while current < at:
                    await self._finish(todo, current)
                    current += 1
                await self._write(todo[current], chunks)
        while current < len(todo):
            await self._finish(todo, current)
            current += 1

    async def _report(self, asked: _Range, reached: int) -> GapReport:
        complete = reached >= asked.end_ms
        return await in_thread(self._archive.report, asked.start_ms, reached, complete, self._pipeline.sources)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _plan(self, todo: list[Target], asked: _Range, source: Source) -> Iterator[tuple[int, Piece]]:
        for at, target in enumerate(todo):
            for piece in plan.pieces(target, asked.now_ms, self.length, self._costs, source):
                yield at, piece

    async def _write(self, target: Target, chunks: list[Chunk]) -> None:
        if self._file is None:
            await in_thread(self._open, target)
            assert self._file is not None
        data = chunks[0].data if len(chunks) == 1 else b"".join([chunk.data for chunk in chunks])
        await in_thread(partial(self._file.append, data, chunks[0].first_ms, chunks[-1].last_ms, every=SYNC_BYTES))
        self._rows += sum(chunk.rows for chunk in chunks)
        self._bytes += len(data)
        if target.kind is Kind.FILE:
            self._reached = chunks[-1].last_ms + 1
        before = plan.row_count(target.start_ms, chunks[-1].last_ms + 1, self.length)
        self._tell(self._done + before)

    def _open(self, target: Target) -> None:
        # Kept here, in the thread: a cancelled caller would lose it, with its lock.
        self._file = self._archive.open(target)

    def _tell(self, done: int) -> None:
        self._told = done
        if self._progress is not None:
            self._progress(
                Progress(self.symbol, self.interval, done, self._total, self._rows, self._bytes, self._trouble)
            )

    def _tell_trouble(self, text: str) -> None:
        self._trouble = text
        self._tell(self._told)

    async def _finish(self, todo: list[Target], at: int) -> None:
        """A target is complete."""
        if at < 0:
            return
        target = todo[at]
        await in_thread(self._close)
        if target.kind is Kind.HEAD:
            await in_thread(self._archive.join, target)
        self._done += plan.row_count(target.start_ms, target.end_ms, self.length)
        self._tell(self._done)
        if at + 1 == len(todo) or todo[at + 1].month.name != target.month.name:
            await in_thread(self._archive.look, target.month.name)

    def _say(self, text: str) -> None:
        self.notes.append(text)
        _LOG.warning("Binance: %s", text)

    def _fetched(self, asked: _Range, work: Work, report: GapReport, began: float, weight: int) -> Fetched:
        for name, facts in report.files.items():
            if facts.disorder:
                self._say(
                    f"{name} has {len(facts.disorder)} rows that are not newer than the one before: fetch it anew"
                )
        for gap in report.gaps:
            if gap.why == LOST:
                self._say(f"{gap.missing} candles from {gap.first} on: {LOST}")
        if report.off_grid:
            self._say(f"{len(report.off_grid)} candles do not open on the grid: kept as the venue has them")
        months = (self._archive.path(month.name) for month in plan.months(asked.start_ms, asked.end_ms))
        return Fetched(
            symbol=self.symbol,
            interval=self.interval,
            start_ms=asked.start_ms,
            end_ms=asked.end_ms,
            source=work.source,
            rows=self._rows,
            candles=report.candles,
            requests=self._pipeline.requests,
            weight=self._fetcher.budget.spent - weight,
            downloads=self._pipeline.downloads,
            seconds=self._clock.monotonic() - began,
            gaps=report.gaps,
            missing=report.missing,
            off_grid=len(report.off_grid),
            files=[path for path in months if path.name in report.files],
            report=self._archive.report_path,
            notes=[*self.notes, *self._pipeline.notes, *self._fetcher.bulk_host().notes[self._bulk_notes :]],
        )
