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
from pmkit.data.binance.types import (
    MAX_ROWS,
    RETRY_CODES,
    UNKNOWN_INTERVAL,
    UNKNOWN_SYMBOL,
    Candle,
    KlineRow,
    check_ms,
    check_symbol,
    interval_ms,
    parse_error,
    parse_klines,
    parse_weight_limit,
    to_ms,
)
from pmkit.data.binance.weights import WeightBudget
from pmkit.endpoints import Endpoints
from pmkit.errors import (
    ConfigError,
    MarketNotFound,
    NotSent,
    PmkitError,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.http import HttpAnswer, HttpSession
from pmkit.venue_clock import VenueClock

if TYPE_CHECKING:
    from pmkit.data.binance.bulk import BulkHost
    from pmkit.data.binance.history import Estimate, Fetched, Progress

KLINES: Final = "/api/v3/klines"
TIME: Final = "/api/v3/time"
EXCHANGE_INFO: Final = "/api/v3/exchangeInfo"
WEIGHTS: Final[Mapping[str, int]] = {KLINES: 2, TIME: 1, EXCHANGE_INFO: 20}
_ALLOW = (("GET", r"/api/v3/(klines|time|exchangeInfo)"),)
_USED_WEIGHT = "x-mbx-used-weight-1m"

ATTEMPTS: Final = 5
FIRST_BACKOFF: Final = 0.5
BAN_SECONDS: Final = 120.0
"""A 418 without Retry-After: the shortest ban (SPOT/rest-api.md, IP limits)."""
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
        if not endpoints.binance.rest:
            raise ConfigError("the endpoints name no REST host of Binance")
        if in_flight < 1:
            raise ValueError(f"at least one page must be in flight, not {in_flight}")
        self.budget = WeightBudget(share)
        self.venue_clock = VenueClock(clock)
        self.blocked: dict[str, str] = {}
        """Hosts that refuse this machine, and what they said."""
        self.clock = self._clock = clock
        self.in_flight = self._in_flight = in_flight
        self._endpoints = endpoints
        self._bulk: BulkHost | None = None
        self._sessions = [
            HttpSession(url, clock, allow=_ALLOW, venue_clock=self.venue_clock, max_connections=max(4, in_flight))
            for url in endpoints.binance.rest
        ]
        self._turn = 0
        self._closed = False
        self._limit_lock = asyncio.Lock()
        self._server_ms = 0
        self._resume_at = 0.0
        self._banned_until = 0.0
        self._pages: set[asyncio.Task[list[KlineRow]]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all requests and connections, within a second."""
        self._closed = True
        pages = list(self._pages)
        for page in pages:
            page.cancel()
        closing = [session.close() for session in self._sessions]
        if self._bulk is not None:
            closing.append(self._bulk.close())
        await asyncio.gather(*pages, *closing, return_exceptions=True)

    # Candles.

    async def warm_up(self, symbol: str, interval: str, n: int, before_ms: int | None = None) -> list[Candle]:
        """The last `n` candles that were closed before a moment (default: now), oldest first.

        Fewer only when the market has no more. Holes of the venue are not counted: what lies before them comes instead.
        """
        symbol, length = check_symbol(symbol), interval_ms(interval)
        if n < 1:
            raise ValueError(f"warm_up wants at least 1 candle, not {n}")
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
        return parse_klines((await self._get(KLINES, params)).body)

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
    ) -> Fetched:
        """Closed candles with `start` <= open < `end` into CSV files under `directory`, and a gap report beside them.

        Moments are aware datetimes or epoch ms; `start` None is the first candle of the symbol, `end` None is now. What
        the files already have is kept, so that the same call continues a run that was ended in any way. `source`:
        "auto" (by cost), "rest", "bulk". Raises what the class says, ConfigError for the disk or a file that is not of
        pmkit, ValueError for a naive datetime, an end before the start, a start in the future. See `history`.
        """
        from pmkit.data.binance.history import History

        history = History(self, symbol, interval, start, end, directory, progress=progress, source=source)
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
        return (await self._get(KLINES, {"symbol": symbol, "interval": interval, **edges})).body

    async def first_open(self, symbol: str, interval: str) -> int | None:
        """The open time of the symbol's first candle; None where it has none. Raises as `require`."""
        rows = await self._page({"symbol": symbol, "interval": interval, "startTime": 0, "limit": 1})
        return rows[0].open_ms if rows else None

    async def weight_per_minute(self, symbol: str) -> int:
        """Our share of the venue's limit, which is asked for once."""
        if not self.budget.known:
            await self._read_limit({"symbol": symbol})
        return int(self.budget.share * self.budget.limit)

    # What is closed.

    async def server_ms(self) -> int:
        """The venue's time, asked now (epoch ms)."""
        stamp = to_ms((await self._get(TIME, {})).decode(_Time).serverTime)
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

    # Requests.

    def _session(self) -> HttpSession:
        count = len(self._sessions)
        for step in range(count):
            session = self._sessions[(self._turn + step) % count]
            if session.host not in self.blocked:
                self._turn = (self._turn + step) % count
                return session
        said = "; ".join(f"{host}: {reason}" for host, reason in self.blocked.items())
        raise RegionBlocked(f"every REST host of Binance refuses this machine ({said}): no retry will help")

    def _leave(self, session: HttpSession) -> None:
        """The next request goes to the next host, unless another request has moved on already."""
        if self._sessions[self._turn] is session:
            self._turn = (self._turn + 1) % len(self._sessions)

    async def _get(self, path: str, params: Mapping[str, str | int]) -> HttpAnswer:
        weight, failures, backoff = WEIGHTS[path], 0, FIRST_BACKOFF
        while True:
            await self._admit(path, params, weight)
            session = self._session()
            problem: PmkitError
            self.budget.spend(weight, self._clock.monotonic())
            try:
                answer = await session.request("GET", path, params=params, wait=False)
            except RateLimited as error:  # the session's own gate: nothing was sent
                self._pause(error.retry_after)
                continue
            except (NotSent, VenueUnavailable) as error:
                problem = error
                self._leave(session)
            else:
                if answer.status == 200:
                    self._observe(answer)
                    return answer
                problem = self._refused(answer, params)
                self._observe(answer)
                if isinstance(problem, RegionBlocked):
                    self.blocked[session.host] = f"{answer.status} {answer.excerpt}".strip()
                    _LOG.warning("Binance: %s: going on with the next host", problem)
                    continue
                if isinstance(problem, VenueUnavailable):
                    self._leave(session)
                elif answer.status != 429:
                    raise problem
            finally:
                self.budget.answered(weight)
            failures += 1
            if failures >= ATTEMPTS or self._closed:
                raise problem
            _LOG.info("Binance: %s: attempt %d of %d follows", problem, failures + 1, ATTEMPTS)
            await self._clock.sleep(backoff * self._clock.entropy.uniform(0.8, 1.2))
            backoff *= 2

    def _refused(self, answer: HttpAnswer, params: Mapping[str, str | int]) -> PmkitError:
        """What an answer that is no candles means. The status comes first: bodies of 451 and 5xx look alike."""
        status = answer.status
        code, text = parse_error(answer.body)
        what = f"{answer.host} answered {answer.path} with {status}: {answer.excerpt or '(empty body)'}"
        if status == 418:
            wait = BAN_SECONDS if answer.retry_after is None else answer.retry_after
            self._banned_until = max(self._banned_until, self._clock.io_monotonic() + wait)
            _LOG.error("Binance has banned this IP for %.0f s: nothing is sent until then", wait)
            return RateLimited(f"{what}; this IP is banned for {wait:.0f} s", wait)
        if status == 429:
            self._pause(answer.retry_after)
            return RateLimited(f"{what}; wait before asking again", answer.retry_after)
        if status in (403, 451):
            return RegionBlocked(what)
        if status >= 500 or code in RETRY_CODES:
            return VenueUnavailable(f"{what}; try again later", status, answer.retry_after)
        if code == UNKNOWN_SYMBOL:
            return MarketNotFound(f"Binance does not know the symbol {params.get('symbol')} ({answer.host}: {text})")
        if code == UNKNOWN_INTERVAL:
            return ConfigError(f"Binance does not know the interval {params.get('interval')} ({answer.host}: {text})")
        return ProtocolChanged(f"{what}; the request is not understood any more")

    def _observe(self, answer: HttpAnswer) -> None:
        used = answer.headers.get(_USED_WEIGHT, "")
        if used.isdecimal():
            self.budget.observe(int(used), self.venue_clock.now_ms())

    def _pause(self, seconds: float | None) -> None:
        wait = 1.0 if seconds is None else seconds
        self._resume_at = max(self._resume_at, self._clock.io_monotonic() + wait)

    async def _admit(self, path: str, params: Mapping[str, str | int], weight: int) -> None:
        """Wait until this may be sent. Raises RateLimited during a ban, NotSent when closed."""
        while True:
            if self._closed:
                raise NotSent("the Binance fetcher is closed: nothing was sent")
            now = self._clock.io_monotonic()
            if now < self._banned_until:
                left = self._banned_until - now
                raise RateLimited(f"Binance has banned this IP for {left:.0f} s more: nothing was sent", left)
            if now < self._resume_at:
                await self._clock.io_sleep(self._resume_at - now)
                continue
            now, venue_ms = self._clock.monotonic(), self.venue_clock.now_ms()
            # Asked while there is still room for the question itself.
            spare = weight + WEIGHTS[EXCHANGE_INFO]
            if not self.budget.known and path != EXCHANGE_INFO and self.budget.wait(spare, now, venue_ms) > 0:
                await self._read_limit(params)
                continue
            wait = self.budget.wait(weight, now, venue_ms)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    async def _read_limit(self, params: Mapping[str, str | int]) -> None:
        """The limit itself costs 20 and is asked for only when the cautious assumption does not suffice."""
        async with self._limit_lock:
            if not self.budget.known:
                symbol = {"symbol": params["symbol"]} if "symbol" in params else {}
                self.budget.set_limit(parse_weight_limit((await self._get(EXCHANGE_INFO, symbol)).body))
