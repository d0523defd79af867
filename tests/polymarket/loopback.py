"""A market channel and its REST books on loopback, with the faults a test asks for. Real sockets, real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from decimal import Decimal
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints, PolymarketEndpoints, Where
from pmkit.exchanges.market import PriceGrid
from pmkit.exchanges.polymarket.fees import CRYPTO_FALLBACK
from pmkit.exchanges.polymarket.types import SIZE_STEP, VENUE, PolymarketMarket
from pmkit.exchanges.types import MarketStatus

Levels = dict[Decimal, Decimal]


def make_market(number: int, clock: Clock, seconds: float = 3600.0) -> PolymarketMarket:
    """A market whose window is open now and closes after some market seconds."""
    now = clock.now_ms()
    return PolymarketMarket(
        venue=VENUE,
        market_id=f"0x{number:064x}",
        asset="BTC",
        interval="15m",
        title="t",
        outcomes=("UP", "DOWN"),
        token_ids=(f"{number:03d}".rjust(40, "7"), f"{number:03d}".rjust(40, "3")),
        open_ms=now - 1000,
        close_ms=now + round(seconds * 1000),
        grid=PriceGrid.uniform(Decimal("0.01")),
        min_size=Decimal(5),
        size_step=SIZE_STEP,
        fees=CRYPTO_FALLBACK,
        status=MarketStatus.OPEN,
        slug=f"market-{number}",
        protocol="v1",
    )


class Truth:
    """One market as the venue has it, in terms of its first outcome."""

    def __init__(self, market: PolymarketMarket) -> None:
        self.market = market
        self.tick = "0.01"
        self.bids: Levels = {Decimal("0.48"): Decimal(30), Decimal("0.49"): Decimal(20)}
        self.asks: Levels = {Decimal("0.52"): Decimal(25), Decimal("0.53"): Decimal(60)}

    def sides(self, token: str) -> tuple[Levels, Levels]:
        if token == self.market.token_ids[0]:
            return self.bids, self.asks
        return {1 - p: s for p, s in self.asks.items()}, {1 - p: s for p, s in self.bids.items()}

    def touch(self, token: str) -> tuple[str, str]:
        bids, asks = self.sides(token)
        return str(max(bids, default=0)), str(min(asks, default=1))


class LoopbackVenue:
    """`truth` is what a right client must hold. Counters: `connections`, `subscribed` (frames), `books_asked`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.truth: dict[str, Truth] = {}
        self.stamp_ms = clock.now_ms()
        self.sessions: dict[web.WebSocketResponse, set[str]] = {}
        self.connections = 0
        self.subscribed: list[list[str]] = []
        self.unsubscribed: list[list[str]] = []
        self.books_asked: list[list[str]] = []
        self.mute = False  # no data, but PONGs
        self.no_dump: set[str] = set()  # assets whose subscription is answered by nothing
        self.dump_delay = 0.0
        self.rest_status = 200
        self.endpoints = Endpoints()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/ws/market", self._socket)
        app.router.add_post("/books", self._books)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        base = f"http://127.0.0.1:{port}"
        addresses = PolymarketEndpoints(clob=base, gamma=base, market_ws=f"ws://127.0.0.1:{port}/ws/market")
        self.endpoints = Endpoints(where=Where.LOCAL, polymarket=addresses)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drop_all()
        assert self._runner is not None
        await self._runner.cleanup()

    def add(self, number: int, seconds: float = 3600.0) -> PolymarketMarket:
        market = make_market(number, self.clock, seconds)
        truth = Truth(market)
        self.truth.update(dict.fromkeys(market.token_ids, truth))
        return market

    def now(self) -> str:
        self.stamp_ms = max(self.stamp_ms + 1, self.clock.now_ms())
        return str(self.stamp_ms)

    def book(self, token: str) -> dict[str, Any]:
        truth = self.truth[token]
        bids, asks = truth.sides(token)
        return {
            "market": truth.market.market_id,
            "asset_id": token,
            "timestamp": str(self.stamp_ms),
            "hash": "x",
            "bids": [{"price": str(p), "size": str(bids[p])} for p in sorted(bids)],
            "asks": [{"price": str(p), "size": str(asks[p])} for p in sorted(asks, reverse=True)],
            "tick_size": truth.tick,
        }

    async def change(self, market: PolymarketMarket, price: str, size: str, side: str, *, send: bool = True) -> None:
        """One level of the first outcome changes; both outcomes are told, unless the message gets lost."""
        truth = self.truth[market.token_ids[0]]
        levels = truth.bids if side == "BUY" else truth.asks
        levels.pop(Decimal(price), None)
        if Decimal(size):
            levels[Decimal(price)] = Decimal(size)
        changes = []
        for token in market.token_ids:
            first = token == market.token_ids[0]
            bid, ask = truth.touch(token)
            where = (price, side) if first else (str(1 - Decimal(price)), "SELL" if side == "BUY" else "BUY")
            entry = {"price": where[0], "side": where[1]}
            changes.append(entry | {"asset_id": token, "size": size, "best_bid": bid, "best_ask": ask, "hash": "x"})
        event = {"event_type": "price_change", "market": market.market_id, "timestamp": self.now()}
        if send:
            await self.send(market.token_ids, event | {"price_changes": changes})

    async def change_tick(self, market: PolymarketMarket, tick: str, *, books: bool = True) -> None:
        truth = self.truth[market.token_ids[0]]
        old, truth.tick = truth.tick, tick
        for token in market.token_ids:
            event = {"event_type": "tick_size_change", "market": market.market_id, "asset_id": token}
            await self.send([token], event | {"old_tick_size": old, "new_tick_size": tick, "timestamp": self.now()})
            if books:
                await self.send([token], self.book(token) | {"event_type": "book"})

    async def send(self, tokens: Iterable[str], *events: dict[str, Any]) -> None:
        if self.mute:
            return
        text = json.dumps(events[0] if len(events) == 1 else list(events))
        for socket, followed in list(self.sessions.items()):
            if followed & set(tokens) and not socket.closed:
                await socket.send_str(text)

    async def send_text(self, text: str) -> None:
        for socket in list(self.sessions):
            await socket.send_str(text)

    async def drop_all(self) -> None:
        for socket in list(self.sessions):
            await socket.close(code=1012, message=b"restart")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        self.sessions[socket] = set()
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                if message.data == "PING":
                    await socket.send_str("PONG")
                    continue
                frame = json.loads(message.data)
                if frame.get("operation") == "unsubscribe":
                    self.unsubscribed.append(frame["assets_ids"])
                    self.sessions[socket] -= set(frame["assets_ids"])
                    continue
                self.subscribed.append(frame["assets_ids"])
                fresh = [token for token in frame["assets_ids"] if token not in self.sessions[socket]]
                if self.dump_delay:
                    await asyncio.sleep(self.dump_delay)
                working = [token for token in fresh if token not in self.no_dump]
                self.sessions[socket] |= set(working)
                books = [self.book(token) | {"event_type": "book"} for token in working if token in self.truth]
                if books and not self.mute:
                    await socket.send_str(json.dumps(books))
        finally:
            self.sessions.pop(socket, None)
        return socket

    async def _books(self, request: web.Request) -> web.Response:
        tokens = [row["token_id"] for row in await request.json()]
        self.books_asked.append(tokens)
        date = {"Date": formatdate(self.clock.now_ms() / 1000, usegmt=True)}
        if self.rest_status != 200:
            return web.Response(status=self.rest_status, text="<html>no</html>", headers=date)
        books = [self.book(token) for token in reversed(tokens) if token in self.truth]
        return web.json_response(books, headers=date)
