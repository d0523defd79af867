"""`BinanceFetcher`: closed candles over REST, from the first host that serves this machine, and history into files.

`GET /api/v3/klines` is asked in pages whose edges are computed beforehand (both ends inclusive, on the open time), so a
short page is a hole and not the end. The candle that forms is part of the venue's answers and never part of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from pmkit.clock import Clock
from pmkit.data.binance.hosts import KLINES, TIME, BinanceHosts
from pmkit.data.binance.types import (
    MAX_ROWS,
    Candle,
    KlineRow,
    check_ms,
    check_symbol,
    interval_ms,
    parse_klines,
    to_ms,
)
from pmkit.endpoints import Endpoints
from pmkit.errors import (
    ProtocolChanged,
)

if TYPE_CHECKING:
    from pmkit.data.binance.bulk import BulkHost
    from pmkit.data.binance.history import Estimate, Fetched, Progress

SETTLE_MS: Final = 500
"""A candle that ended this recently by the venue's clock may still be written (python-binance issue 1246)."""

_LOG = logging.getLogger("pmkit.binance")


class _Time(msgspec.Struct):
    serverTime: int


class BinanceFetcher:
    """Candles over REST. Nothing connects before the first call; `close` is idempotent.

    `share`: how much of the request weight of this IP may be spent here; `in_flight`: pages asked for at once.

    A host that answers 403 or 451 refuses this machine and is not asked again. Network failures, 5xx and the codes for
    "busy" are tried up to 5 times, on the next host each time. 429 is waited out; after 418 (the IP is banned) nothing
    is sent until the ban is over. Raises MarketNotFound (unknown symbol), ConfigError (unknown interval), RegionBlocked
    (no host left), RateLimited (banned), VenueUnavailable (no usable answer), ProtocolChanged.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock, *, share: float = 0.4, in_flight: int = 8) -> None:
        if in_flight < 1:
            raise ValueError(f"at least one page must be in flight, not {in_flight}")
        self._hosts = BinanceHosts(endpoints, clock, share, max(4, in_flight))
        self.budget = self._hosts.budget
        self.venue_clock = self._hosts.venue_clock
        self.blocked = self._hosts.blocked
        """Hosts that refuse this machine, and what they said."""
        self.clock = self._clock = clock
        self.in_flight = self._in_flight = in_flight
        self._endpoints = endpoints
        self._bulk: BulkHost | None = None
        self._server_ms = 0
        self._pages: set[asyncio.Task[list[KlineRow]]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all requests and connections, within a second."""
        pages = list(self._pages)
        for page in pages:
            page.cancel()
        closing = [self._hosts.close()]
        if self._bulk is not None:
            closing.append(self._bulk.close())
        await asyncio.gather(*pages, *closing, return_exceptions=True)

    @property
    def closed(self) -> bool:
        """Nothing is sent any more."""
        return self._hosts.closed

    # Candles.

    async def warm_up(self, symbol: str, interval: str, n: int, before_ms: int | None = None) -> list[Candle]:
        """The last `n` candles that were closed before a moment (default: now), oldest first.

        Fewer only when the market has no more. Holes of the venue are not counted: what lies before them comes instead.
        """
        symbol, length = check_symbol(symbol), interval_ms(interval)
        if type(n) is not int or n < 1:
            raise ValueError(f"warm_up wants a number of candles, at least 1, not {n!r}")
        if before_ms is None:
            until = await self._closed_until(length, None)
        else:
            until = await self._closed_until(length, check_ms(before_ms, "before_ms"))
        pages: list[list[KlineRow]] = []
        left, end = n, until
        while left > 0:
            limit = min(left, MAX_ROWS)
            page = await self._page({"symbol": symbol, "interval": interval, "endTime": end - 1, "limit": limit})
            page = [row for row in page if row.open_ms < end]
            if not page:
                break
            pages.append(page[-left:])
            left -= len(page)
            end = page[0].open_ms
        return [row.candle() for page in reversed(pages) for row in page]

    async def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> AsyncGenerator[KlineRow]:
        """Closed rows with `start_ms` <= open time < `end_ms`, oldest first, in the venue's own text.

        What the venue does not have is left out.
        """
        async with aclosing(self.pages(symbol, interval, start_ms, end_ms)) as pages:
            async for page in pages:
                for row in page:
                    yield row

    async def pages(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> AsyncGenerator[list[KlineRow]]:
        """`klines` by the page: up to 1000 rows each, some maybe empty. Memory does not grow with the range."""
        symbol, length = check_symbol(symbol), interval_ms(interval)
        start = -(-check_ms(start_ms, "start_ms") // length) * length
        if start >= check_ms(end_ms, "end_ms"):
            return
        end = await self._closed_until(length, -(-end_ms // length) * length)
        waiting: deque[asyncio.Task[list[KlineRow]]] = deque()
        try:
            while start < end or waiting:
                while start < end and len(waiting) < self._in_flight:
                    page_end = min(end, start + MAX_ROWS * length)
                    waiting.append(self._spawn(symbol, interval, start, page_end))
                    start = page_end
                yield await waiting[0]
                waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def _spawn(self, symbol: str, interval: str, start: int, end: int) -> asyncio.Task[list[KlineRow]]:
        task = asyncio.get_running_loop().create_task(
            self._range(symbol, interval, start, end), name=f"pmkit binance {symbol} page"
        )
        self._pages.add(task)
        task.add_done_callback(self._pages.discard)
        return task

    async def _range(self, symbol: str, interval: str, start: int, end: int) -> list[KlineRow]:
        edges = {"startTime": start, "endTime": end - 1, "limit": MAX_ROWS}
        rows = await self._page({"symbol": symbol, "interval": interval, **edges})
        if rows and not (start <= rows[0].open_ms and rows[-1].open_ms < end):
            raise ProtocolChanged(f"Binance sent candles outside of {start} to {end}: {rows[0]} to {rows[-1]}")
        return rows

    async def _page(self, params: Mapping[str, str | int]) -> list[KlineRow]:
        return parse_klines((await self._hosts.get(KLINES, params)).body)

    async def require(self, symbol: str, interval: str) -> None:
        """Raise MarketNotFound or ConfigError where the venue does not know one of them."""
        interval_ms(interval)
        await self._page({"symbol": check_symbol(symbol), "interval": interval, "limit": 1})

    # History.

    async def fetch(
        self,
        symbol: str,
        interval: str,
        start: datetime | int | None,
        end: datetime | int | None,
        directory: Path,
        *,
        progress: Callable[[Progress], object] | None = None,
        source: str = "auto",
        patience: float = 600.0,
    ) -> Fetched:
        """Closed candles with `start` <= open < `end` into CSV files under `directory`, and a gap report beside them.

        Moments are aware datetimes or epoch ms; `start` None is the first candle of the symbol, `end` None is now. What
        the files already have is kept, so that the same call continues a run that was ended in any way. `source`:
        "auto" (by cost), "rest", "bulk". Once it has begun, a venue that cannot be reached is waited for, `patience`
        seconds at most. Raises what the class says, ConfigError for the disk or a file that is not of
        pmkit, ValueError for a naive datetime, an end before the start, a start in the future. See `history`.
        """
        from pmkit.data.binance.history import History

        history = History(
            self, symbol, interval, start, end, directory, progress=progress, source=source, patience=patience
        )
        return await history.run()

    async def estimate(
        self,
        symbol: str,
        interval: str,
        start: datetime | int | None,
        end: datetime | int | None,
        directory: Path,
        *,
        source: str = "auto",
    ) -> Estimate:
        """What `fetch` would do: rows, bytes, requests, minutes; what the files have is not counted. Same errors."""
        from pmkit.data.binance.history import History

        return await History(self, symbol, interval, start, end, directory, source=source).estimate()

    def bulk_host(self) -> BulkHost:
        """The host of the bulk files, shared by all fetches of this object."""
        from pmkit.data.binance.bulk import BulkHost

        if self._bulk is None:
            self._bulk = BulkHost(self._endpoints, self._clock)
        return self._bulk

    async def raw_page(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> bytes:
        """The venue's answer for opens in [start_ms, end_ms), unread: at most 1000 rows, the forming one among them."""
        edges = {"startTime": start_ms, "endTime": end_ms - 1, "limit": MAX_ROWS}
        return (await self._hosts.get(KLINES, {"symbol": symbol, "interval": interval, **edges})).body

    async def first_open(self, symbol: str, interval: str) -> int | None:
        """The open time of the symbol's first candle; None where it has none. Raises as `require`."""
        rows = await self._page({"symbol": symbol, "interval": interval, "startTime": 0, "limit": 1})
        return rows[0].open_ms if rows else None

    async def weight_per_minute(self, symbol: str) -> int:
        """Our share of the venue's limit, which is asked for once."""
        if not self.budget.known:
            await self._hosts.read_limit({"symbol": symbol})
        return int(self.budget.share * self.budget.limit)

    # What is closed.

    async def server_ms(self) -> int:
        """The venue's time, asked now (epoch ms)."""
        stamp = to_ms((await self._hosts.get(TIME, {})).decode(_Time).serverTime)
        self.note_server_ms(stamp - SETTLE_MS)
        return stamp

    def note_server_ms(self, ms: int) -> None:
        """The venue's clock is known to be there, or past it: candles that end by then are closed without asking."""
        self._server_ms = max(self._server_ms, ms)

    async def _closed_until(self, length: int, wanted: int | None) -> int:
        """The end (exclusive, on the grid) of what is closed, at most `wanted`. The local clock has no say in it."""
        if wanted is not None and wanted <= self._server_ms:
            return wanted // length * length
        closed = (await self.server_ms() - SETTLE_MS) // length * length
        return closed if wanted is None else min(closed, wanted // length * length)
