"""Requests side by side, rows in order: pieces of a plan become CSV chunks.

REST pages and bulk files are asked for ahead of their turn, a bounded number of them; what comes early waits. Memory
does not grow with the range. While nothing can be reached (a closed lid, a router that starts anew) pages are asked for
again until the patience ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pmkit.data.binance import plan
from pmkit.data.binance.bulk import BulkFacts, BulkZip
from pmkit.data.binance.plan import Bulk, Page, Piece
from pmkit.data.binance.rows import BadRows, Chunk, page_rows
from pmkit.data.binance.types import MAX_ROWS
from pmkit.errors import NotSent, VenueUnavailable

if TYPE_CHECKING:
    from pmkit.data.binance.fetcher import BinanceFetcher

WINDOW_PER_REQUEST: Final = 4
"""Pages that may be on their way or wait for their turn, per request in flight."""
BULK_AHEAD: Final = 3
PAGE_ATTEMPTS: Final = 3
SHORT_PAGE_SECONDS: Final = 0.5
UNREACHABLE_WAITS: Final = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Market seconds between two rounds of requests while the venue cannot be reached; the last one again and again."""

_LOG = logging.getLogger("pmkit.binance")


class _Started:
    """A piece whose request is on its way."""

    __slots__ = ("page", "piece", "target", "zipped")

    def __init__(self, target: int, piece: Piece) -> None:
        self.target = target
        self.piece = piece
        self.page: asyncio.Task[Chunk | None] | None = None
        self.zipped: asyncio.Task[BulkZip | None] | None = None

    @property
    def task(self) -> asyncio.Task[Chunk | None] | asyncio.Task[BulkZip | None]:
        task = self.page or self.zipped
        assert task is not None
        return task


class Pipeline:
    """The requests of one fetch. `directory` is where bulk files lie while they are read.

    `patience`: market seconds without any answer until a network failure or a 5xx ends the fetch; `on_trouble(text)` is
    called when that begins, and with "" when it is over.
    """

    def __init__(
        self,
        fetcher: BinanceFetcher,
        symbol: str,
        interval: str,
        length: int,
        directory: Path,
        *,
        patience: float,
        on_trouble: Callable[[str], object],
    ) -> None:
        self.requests = 0
        self.downloads = 0
        self.notes: list[str] = []
        self.sources: dict[str, BulkFacts] = {}
        """The bulk files that rows came from, by name."""
        self._fetcher = fetcher
        self._clock = fetcher.clock
        self._symbol = symbol
        self._interval = interval
        self._length = length
        self._directory = directory
        self._slots = asyncio.Semaphore(fetcher.in_flight)
        self._bulk = fetcher.bulk_host()
        self._patience = patience
        self._on_trouble = on_trouble
        self._trouble_since: float | None = None

    async def batches(self, items: Iterable[tuple[int, Piece]]) -> AsyncGenerator[tuple[int, list[Chunk]]]:
        """The rows of all pieces in order, several requests ahead."""
        coming = iter(items)
        window: deque[_Started] = deque()
        most = WINDOW_PER_REQUEST * self._fetcher.in_flight
        waiting: tuple[int, Piece] | None = next(coming, None)
        try:
            while True:
                zips = sum(started.zipped is not None for started in window)
                while waiting is not None and len(window) < most:
                    if isinstance(waiting[1], Bulk):
                        if zips == BULK_AHEAD:
                            break
                        zips += 1
                    window.append(self._begin(*waiting))
                    waiting = next(coming, None)
                if not window:
                    return
                head = window[0]
                if isinstance(head.piece, Bulk):
                    async with aclosing(self._unpacked(head, head.piece)) as batches:
                        async for batch in batches:
                            yield head.target, batch
                    window.popleft()
                    continue
                await head.task
                found = [chunk for chunk in self._ready(window, head.target) if chunk is not None]
                if found:
                    yield head.target, found
        finally:
            await self._abandon(window)

    def _begin(self, target: int, piece: Piece) -> _Started:
        started, loop = _Started(target, piece), asyncio.get_running_loop()
        if isinstance(piece, Page):
            started.page = loop.create_task(self._page(piece), name=f"pmkit {self._symbol} page")
        else:
            get = self._bulk.get(piece, self._symbol, self._interval, self._length, self._directory)
            started.zipped = loop.create_task(get, name=f"pmkit {self._symbol} {piece.name}")
        return started

    def _ready(self, window: deque[_Started], target: int) -> Iterator[Chunk | None]:
        """The pages at the head of the window that have come, all of one target."""
        while window and window[0].target == target and window[0].page is not None and window[0].page.done():
            yield window[0].page.result()
            window.popleft()

    async def _abandon(self, window: Iterable[_Started]) -> None:
        tasks = [started.task for started in window]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BulkZip):
                await result.close()

    async def _page(self, page: Page, confirm: bool = True) -> Chunk | None:
        """One request, as CSV. A page that lacks rows is asked for twice: only the venue's database lags or fails for a
        moment, a hole stays.
        """
        chunk = await self._asked(page)
        wanted = plan.row_count(page.start_ms, page.end_ms, self._length)
        if confirm and (chunk is None or chunk.rows < wanted):
            await self._clock.sleep(SHORT_PAGE_SECONDS)
            again = await self._asked(page)
            if again is not None and (chunk is None or again.rows > chunk.rows):
                chunk = again
        # Rows off the grid may be more than slots: what the limit cut off is asked for.
        if (
            chunk is not None
            and chunk.rows >= MAX_ROWS
            and (chunk.last_ms // self._length + 1) * self._length < page.end_ms
        ):
            more = await self._page(Page(chunk.last_ms + 1, page.end_ms), confirm)
            if more is not None:
                chunk = Chunk(chunk.first_ms, more.last_ms, chunk.rows + more.rows, chunk.data + more.data)
        return chunk

    async def _asked(self, page: Page) -> Chunk | None:
        for attempt in range(1, PAGE_ATTEMPTS + 1):
            body = await self._answer(page)
            try:
                return page_rows(body, page.start_ms, page.end_ms, self._length)
            except BadRows as error:  # a body that was cut on the way looks like that
                if attempt == PAGE_ATTEMPTS:
                    raise
                _LOG.warning("Binance: %s: asking again", error)
                await self._clock.sleep(SHORT_PAGE_SECONDS * attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _answer(self, page: Page) -> bytes:
        """The body of one page, waited for while the venue cannot be reached."""
        failures = 0
        while True:
            try:
                async with self._slots:
                    self.requests += 1
                    body = await self._fetcher.raw_page(self._symbol, self._interval, page.start_ms, page.end_ms)
            except (NotSent, VenueUnavailable) as error:
                now = self._clock.monotonic()
                if self._trouble_since is None:
                    # Counted from the first failure and not from the last answer: a sleep of the machine is no attempt.
                    self._trouble_since = now
                    _LOG.warning("Binance: %s: waiting, for at most %.0f s", error, self._patience)
                    self._on_trouble(str(error))
                if self._fetcher.closed or now - self._trouble_since >= self._patience:
                    raise
                await self._clock.sleep(UNREACHABLE_WAITS[min(failures, len(UNREACHABLE_WAITS) - 1)])
                failures += 1
                continue
            if self._trouble_since is not None:
                self._trouble_since = None
                self._on_trouble("")
            return body

    async def _unpacked(self, started: _Started, bulk: Bulk) -> AsyncGenerator[list[Chunk]]:
        """A bulk file's rows; what it lacks comes over REST (or, of a month, from the files of its days)."""
        assert started.zipped is not None
        at = bulk.start_ms
        found = await started.zipped
        if found is not None:
            self.downloads += 1
            self.sources[bulk.name] = found.facts
            try:
                async with aclosing(found.chunks()) as chunks:
                    async for chunk in chunks:
                        async for fill in self._filled(at, chunk.first_ms, None):
                            yield fill
                        yield [chunk]
                        at = chunk.last_ms + 1
            except BadRows as error:
                self._note(f"{bulk.name}: {error}: the rest is taken over REST")
            finally:
                await found.close()
        async for fill in self._filled(at, bulk.end_ms, bulk if found is None else None):
            yield fill

    async def _filled(self, start: int, end: int, bulk: Bulk | None) -> AsyncIterator[list[Chunk]]:
        if not plan.row_count(start, end, self._length):
            return
        if bulk is not None and bulk.monthly:
            pieces: Iterable[Piece] = plan.day_files(start, end)
        else:
            pieces = plan.pages(start, end, self._length)
        async with aclosing(self.batches((0, piece) for piece in pieces)) as batches:
            async for _, chunks in batches:
                yield chunks

    def _note(self, text: str) -> None:
        self.notes.append(text)
        _LOG.warning("Binance: %s", text)
