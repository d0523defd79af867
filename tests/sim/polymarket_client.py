"""A naive client of the local Polymarket for tests: it knows the documents only."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp

from pmkit.clock import ManualClock
from pmkit.sim.polymarket.venue import PolymarketVenue
from pmkit.sim.world import World

START = 1_795_176_000_000

BOOK_KEYS = (
    "market",
    "asset_id",
    "timestamp",
    "hash",
    "bids",
    "asks",
    "min_order_size",
    "tick_size",
    "neg_risk",
    "last_trade_price",
)


def book_hash(book: dict[str, Any]) -> str:
    """SHA-1 over the compact JSON of a REST book with an empty hash, in the documented order of keys."""
    ordered = {key: "" if key == "hash" else book[key] for key in BOOK_KEYS}
    return hashlib.sha1(json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


class Feed:
    """Reads the market channel, keeps one book per token, and checks what each message says about itself."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.kinds: Counter[str] = Counter()
        self.books: dict[str, dict[str, dict[Decimal, Decimal]]] = {}
        self.hashes: dict[str, str] = {}
        self.checked = 0
        self.wrong: list[object] = []
        self.pongs = 0
        self.noise: list[str] = []
        self.ended = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self.ws:
            self.take(message.data)
        self.ended.set()

    def take(self, text: str) -> None:
        self.frames.append(text)
        if text == "PONG":
            self.pongs += 1
            return
        try:
            data = json.loads(text)
        except ValueError:
            self.noise.append(text)
            return
        for event in data if isinstance(data, list) else [data]:
            self.events.append(event)
            self.kinds[event["event_type"]] += 1
            if event["event_type"] == "book":
                self._book(event)
            elif event["event_type"] == "price_change":
                self._change(event)

    def _book(self, event: dict[str, Any]) -> None:
        bids, asks = event["bids"], event["asks"]
        if bids != sorted(bids, key=lambda row: Decimal(row["price"])):
            self.wrong.append(("bids ascend", event))
        if asks != sorted(asks, key=lambda row: -Decimal(row["price"])):
            self.wrong.append(("asks descend", event))
        self.books[event["asset_id"]] = {
            side: {Decimal(row["price"]): Decimal(row["size"]) for row in rows}
            for side, rows in (("BUY", bids), ("SELL", asks))
        }
        self.hashes[event["asset_id"]] = event["hash"]

    def _change(self, event: dict[str, Any]) -> None:
        for row in event["price_changes"]:
            self.hashes[row["asset_id"]] = row["hash"]
            if row["asset_id"] not in self.books:
                continue
            levels = self.books[row["asset_id"]][row["side"]]
            if Decimal(row["size"]):
                levels[Decimal(row["price"])] = Decimal(row["size"])
            else:
                levels.pop(Decimal(row["price"]), None)
        for row in event["price_changes"]:
            if row["asset_id"] in self.books:
                self.checked += 1
                if self.touch(row["asset_id"]) != (Decimal(row["best_bid"]), Decimal(row["best_ask"])):
                    self.wrong.append(("touch", row, self.touch(row["asset_id"])))

    def touch(self, token: str) -> tuple[Decimal, Decimal]:
        book = self.books[token]
        return max(book["BUY"], default=Decimal(0)), min(book["SELL"], default=Decimal(1))

    def levels(self, token: str) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        """Bids and asks from the best to the worst."""
        book = self.books[token]
        return sorted(book["BUY"].items(), reverse=True), sorted(book["SELL"].items())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event_type"] == kind]


def json_types(row: dict[str, Any]) -> dict[str, str]:
    """What kind of JSON value each field holds."""

    def kind(value: object) -> str:
        return "number" if type(value) in (int, float) else type(value).__name__

    return {key: kind(value) for key, value in row.items()}


class Bench:
    """A venue, an HTTP client and sockets; `advance` moves market time."""

    def __init__(self, venue: PolymarketVenue, clock: ManualClock, http: aiohttp.ClientSession) -> None:
        self.venue = venue
        self.clock = clock
        self.http = http
        self.feeds: list[Feed] = []
        self.sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def get(self, path: str, *, gamma: bool = False, **query: Any) -> tuple[int, Any]:
        base = self.venue.endpoints().gamma if gamma else self.venue.endpoints().clob
        async with self.http.get(base + path, params=query) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        async with self.http.post(self.venue.endpoints().clob + path, json=body) as response:
            return response.status, await response.json()

    async def feed(self, tokens: list[str] | None = None, **fields: Any) -> Feed:
        ws = await self.http.ws_connect(self.venue.endpoints().market_ws)
        self.sockets.append(ws)
        feed = Feed(ws)
        self.feeds.append(feed)
        if tokens is not None:
            await ws.send_json({"assets_ids": tokens, "type": "market", **fields})
        return feed

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(3):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def advance(self, seconds: float, step: float = 1.0) -> None:
        while seconds > 0:
            await self.clock.advance(min(step, seconds))
            seconds -= step
        await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """Let everything that was sent arrive: a PONG comes after all frames before it."""
        for feed in self.feeds:
            if feed.ended.is_set() or feed.ws.closed:
                continue
            pongs = feed.pongs
            await feed.ws.send_str("PING")
            await self.until(lambda feed=feed, pongs=pongs: feed.pongs > pongs)  # type: ignore[misc]


@asynccontextmanager
async def open_bench(offset_seconds: float = 0, **options: Any) -> AsyncIterator[Bench]:
    clock = ManualClock(START + round(offset_seconds * 1000))
    venue = PolymarketVenue(World(7, clock, ("BTC", "ETH")), clock, **options)
    async with venue, aiohttp.ClientSession() as http:
        bench = Bench(venue, clock, http)
        try:
            yield bench
        finally:
            for feed in bench.feeds:
                await feed.close()
            for ws in bench.sockets:
                await ws.close()
        assert venue.failures == []
