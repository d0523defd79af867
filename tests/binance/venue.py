"""A Binance that does as it is told: klines over REST and combined streams, on one loopback port, for the tests.

Prices come from `tape`, a function of symbol and open time; a candle that is not closed has other numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import formatdate
from typing import Any

from aiohttp import WSMsgType, web

from pmkit.clock import Clock
from pmkit.data.binance.types import INTERVALS, Candle
from pmkit.endpoints import BinanceEndpoints, Endpoints, Where

T0 = 1_795_176_000_000
FORMING = "777.00000000"


def tape(symbol: str, opened: int) -> list[str]:
    """open, high, low, close, volume of a closed candle, as the venue writes them."""
    n = (opened // 1000 * 7919 + len(symbol)) % 10_007
    return [f"{100 + n / 1000 + d:.8f}" for d in (0.1, 0.3, 0.0, 0.2)] + [f"{n / 100:.8f}"]


def candle(opened: int, symbol: str = "BTCUSDT") -> Candle:
    """The closed candle as pmkit should see it."""
    o, h, low, c, v = map(float, tape(symbol, opened))
    return Candle(opened, o, h, low, c, v)


class Venue:
    """`now_ms` is the venue's time: it alone decides which rows there are. `weight` counts what was spent."""

    def __init__(self, interval: str = "1s", now_ms: int = T0) -> None:
        self.interval = interval
        self.length = INTERVALS[interval]
        self.now_ms = now_ms
        self.symbols = {"BTCUSDT", "ETHUSDT"}
        self.outage: set[int] = set()  # opens without a candle
        self.lag_ms = 0  # REST is that much behind
        self.lag_reads = 0  # for so many reads of klines; 0: for ever
        self.first_ms = 0
        self.limit = 6000
        self.weight = 0  # of all requests
        self.used = 0  # of this IP in this minute, others included
        self.minute = 0
        self.clock: Clock | None = None  # what Date and minutes go by; without it `now_ms`
        self.queries: list[Mapping[str, str]] = []
        self.requests: list[str] = []
        self.answers: deque[tuple[int, str, dict[str, str]]] = deque()  # before anything else
        self.always: tuple[int, str, dict[str, str]] | None = None
        self.before_klines: Callable[[], Any] | None = None
        self.sockets: list[Socket] = []
        self.url = ""

    # REST

    def endpoints(self, *more: str, first: tuple[str, ...] = ()) -> Endpoints:
        return Endpoints(
            where=Where.LOCAL,
            binance=BinanceEndpoints(rest=(*first, self.url, *more), ws=(self.url.replace("http", "ws", 1),)),
        )

    async def rest(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rpartition("/")[2]
        self.requests.append(path)
        weight = {"klines": 2, "time": 1, "exchangeInfo": 20}[path]
        now = self.now_ms if self.clock is None else self.clock.now_ms()
        if now // 60_000 != self.minute:
            self.minute, self.used = now // 60_000, 0
        self.weight += weight
        self.used += weight
        headers = {"X-MBX-USED-WEIGHT-1M": str(self.used), "Date": formatdate(now // 1000, usegmt=True)}
        special = self.answers.popleft() if self.answers else self.always
        if special is not None:
            status, text, extra = special
            return web.Response(status=status, text=text, headers={**headers, **extra})
        if path == "time":
            return web.json_response({"serverTime": self.now_ms}, headers=headers)
        if path == "exchangeInfo":
            limits = [
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.limit},
            ]
            return web.json_response({"rateLimits": limits}, headers=headers)
        query = dict(request.query)
        self.queries.append(query)
        if query["symbol"] not in self.symbols:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400, headers=headers)
        if self.before_klines is not None:
            outcome = self.before_klines()
            if asyncio.iscoroutine(outcome):
                await outcome
        return web.json_response(self.rows(query), headers=headers)

    def rows(self, query: Mapping[str, str]) -> list[list[Any]]:
        length, symbol = self.length, query["symbol"]
        limit = int(query.get("limit", "500"))
        now = self.now_ms - self.lag_ms
        if self.lag_reads > 0:
            self.lag_reads -= 1
            if self.lag_reads == 0:
                self.lag_ms = 0
        last = min(now, int(query.get("endTime", now))) // length * length
        if "startTime" in query:
            start = -(-int(query["startTime"]) // length) * length
            opens = list(range(start, last + 1, length))
        else:
            span = limit + len(self.outage)
            opens = list(range(last - (span - 1) * length, last + 1, length))
        opens = [opened for opened in opens if opened not in self.outage and opened >= self.first_ms]
        opens = opens[:limit] if "startTime" in query else opens[-limit:]
        return [self.row(symbol, opened) for opened in opens]

    def row(self, symbol: str, opened: int) -> list[Any]:
        closed = opened + self.length <= self.now_ms
        numbers = tape(symbol, opened) if closed else [FORMING] * 5
        return [opened, *numbers, opened + self.length - 1, "0.0", 1, "0.0", "0.0", "0"]

    # sockets

    async def stream(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        socket = Socket(self, ws)
        self.sockets.append(socket)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await socket.on_text(message.data)
        socket.ended = True
        return ws

    @property
    def last(self) -> Socket:
        return self.sockets[-1]

    def frame(self, symbol: str, opened: int, closed: bool = True, **over: Any) -> str:
        o, h, low, c, v = tape(symbol, opened) if closed else [FORMING] * 5
        kline = {"t": opened, "T": opened + self.length - 1, "s": symbol, "i": self.interval, "o": o, "h": h, "l": low}
        kline |= {"c": c, "v": v, "x": closed} | over
        event = {"e": "kline", "E": opened + self.length + 3, "s": symbol, "k": kline}
        return json.dumps({"stream": f"{symbol.lower()}@kline_{self.interval}", "data": event})

    async def tick(self, symbol: str = "BTCUSDT", count: int = 1) -> None:
        """Let candles end: time moves on, and the last connection hears of each."""
        for _ in range(count):
            opened = self.now_ms // self.length * self.length
            self.now_ms = opened + self.length
            if self.sockets and not self.last.ended:
                await self.last.send(self.frame(symbol, opened))


class Socket:
    """One connection as the venue sees it."""

    def __init__(self, venue: Venue, ws: web.WebSocketResponse) -> None:
        self.venue = venue
        self.ws = ws
        self.texts: list[str] = []
        self.streams: list[str] = []
        self.ended = False
        self.refuse: str | None = None

    async def on_text(self, text: str) -> None:
        self.texts.append(text)
        request = json.loads(text)
        self.streams += request["params"]
        await self.send(json.dumps({"result": None, "id": request["id"]}))

    async def send(self, text: str) -> None:
        with contextlib.suppress(ConnectionError):
            await self.ws.send_str(text)

    def cut(self) -> None:
        transport = self.ws._req.transport if self.ws._req is not None else None
        if transport is not None:
            transport.abort()


@contextlib.asynccontextmanager
async def running(interval: str = "1s", now_ms: int = T0) -> AsyncIterator[Venue]:
    """A venue that is up."""
    venue = Venue(interval, now_ms)
    app = web.Application()
    app.router.add_get("/api/v3/{path}", venue.rest)
    app.router.add_get("/stream", venue.stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield venue
    finally:
        for socket in venue.sockets:
            socket.cut()
        await runner.cleanup()
