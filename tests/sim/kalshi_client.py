"""A plain client of the local Kalshi for tests, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from pmkit.clock import ManualClock
from pmkit.sim.kalshi.auth import VenueKey
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.world import World

HOUR = 3_600_000
PATIENCE = 30.0  # seconds of the wall for what takes milliseconds on an idle machine
ASSETS = ("BTC", "ETH")


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


OPEN = utc("2026-11-20T12:00:00+00:00")  # the window that closes 07:15 in New York
TICKER = "KXBTC15M-26NOV200715-15"
NEXT = "KXBTC15M-26NOV200730-30"


def sign(key: VenueKey, timestamp: int, method: str, path: str) -> dict[str, str]:
    """The three headers, written out once more for the tests."""
    private = serialization.load_pem_private_key(key.pem.encode(), None)
    message = f"{timestamp}{method}{path}".encode()
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.sign(message)
    else:
        assert isinstance(private, rsa.RSAPrivateKey)
        raw = private.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return {
        "KALSHI-ACCESS-KEY": key.id,
        "KALSHI-ACCESS-TIMESTAMP": str(timestamp),
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(raw).decode(),
    }


class Setup:
    """A venue on a clock that only the test moves, and a client."""

    def __init__(self, venue: KalshiVenue, clock: ManualClock, http: aiohttp.ClientSession) -> None:
        self.venue = venue
        self.clock = clock
        self.http = http

    async def ask(
        self, path: str, query: Any = None, *, method: str = "GET", signed: bool = False, **headers: str
    ) -> tuple[int, Any]:
        url = self.venue.endpoints().rest + path
        if signed:
            headers |= sign(self.venue.key, self.clock.now_ms(), method, urlsplit(url).path)
        async with self.http.request(method, url, params=query, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str, query: Any = None) -> Any:
        status, body = await self.ask(path, query)
        assert status == 200, body
        return body

    async def market(self, ticker: str = TICKER) -> Any:
        return (await self.get(f"/markets/{ticker}"))["market"]

    async def tickers(self, **query: Any) -> list[str]:
        return [market["ticker"] for market in (await self.get("/markets", query))["markets"]]

    @asynccontextmanager
    async def socket(self, *, compress: int = 0) -> AsyncIterator[Client]:
        url = self.venue.endpoints().ws
        headers = sign(self.venue.key, self.clock.now_ms(), "GET", urlsplit(url).path)
        before = len(self.venue.server.sessions)
        async with self.http.ws_connect(url, headers=headers, compress=compress) as ws:
            await until(lambda: len(self.venue.server.sessions) > before)
            yield Client(ws)


class Client:
    """A socket that keeps every frame."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[Any] = []
        self._last_id = 0

    async def receive(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            frame = json.loads((await self.ws.receive()).data)
        self.frames.append(frame)
        return frame

    async def send(self, cmd: str, **params: Any) -> int:
        self._last_id += 1
        await self.ws.send_json({"id": self._last_id, "cmd": cmd} | ({"params": params} if params else {}))
        return self._last_id

    async def call(self, cmd: str, **params: Any) -> Any:
        """The reply to a command; data that comes before it is kept in `frames`."""
        sent = await self.send(cmd, **params)
        while (frame := await self.receive()).get("id") != sent:
            pass
        return frame

    async def drain(self) -> list[Any]:
        """Everything that was on its way: an answer to a last command comes behind it."""
        place = len(self.frames)
        await self.call("list_subscriptions")
        return self.frames[place:-1]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for happens on the other end of a socket
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(now: int = OPEN + 300_000, *, key_kind: str = "ed25519", steps: float = 12.0) -> AsyncIterator[Setup]:
    clock = ManualClock(now)
    venue = KalshiVenue(World(7, clock, ASSETS), clock, key_kind=key_kind, steps_per_wall_second=steps)
    async with venue, aiohttp.ClientSession() as http:
        yield Setup(venue, clock, http)
    assert venue.failures == []
