"""A plain client of the local Binance for tests, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pmkit.clock import ManualClock
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World

START = 1_795_176_000_000  # 2026-11-20 12:00 UTC, a whole hour
MINUTE = 60_000


class Setup:
    """A venue on a clock that only the test moves, and a client."""

    def __init__(self, venue: BinanceVenue, clock: ManualClock, http: aiohttp.ClientSession) -> None:
        self.venue = venue
        self.clock = clock
        self.http = http
        self.rest = venue.endpoints().rest[0]
        self.ws = venue.endpoints().ws[0]

    async def ask(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> tuple[int, Any, Any]:
        async with self.http.get(self.rest + path, params=query, headers=headers) as answer:
            return answer.status, json.loads(await answer.read()), answer.headers

    async def klines(self, **query: Any) -> list[list[Any]]:
        status, rows, _ = await self.ask("/api/v3/klines", **query)
        assert status == 200, rows
        return rows  # type: ignore[no-any-return]

    @asynccontextmanager
    async def socket(self, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        before = len(self.venue.streams.sessions)
        async with self.http.ws_connect(self.ws + path, **options) as ws:
            await until(lambda: len(self.venue.streams.sessions) > before)
            yield ws


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for happens on the other end of a socket
            await asyncio.sleep(0.002)


async def receive(ws: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(5):
        return json.loads((await ws.receive()).data)


async def call(ws: aiohttp.ClientWebSocketResponse, request: object) -> Any:
    await ws.send_str(request if isinstance(request, str) else json.dumps(request))
    return await receive(ws)


async def nothing(ws: aiohttp.ClientWebSocketResponse) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ws.receive()


@asynccontextmanager
async def running(now: int = START + 500, **world: Any) -> AsyncIterator[Setup]:
    clock = ManualClock(now)
    venue = BinanceVenue(World(world.get("seed", 7), clock, world.get("assets", ("BTC", "ETH"))), clock)
    async with venue, aiohttp.ClientSession() as http:
        yield Setup(venue, clock, http)
    assert venue.failures == []
