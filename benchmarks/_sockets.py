"""The contenders of the feed benchmark on a real loopback socket: connect, subscribe, receive until the last callback.

Each is an async function (address, traffic, probe) that returns once `probe` has its last touch. `probe.start()` is
called before the subscription is sent: the server sends nothing earlier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks._ccxt import exchange_class
from benchmarks._feeds import CcxtBook, Naive, Nautilus, Probe, follow_kalshi, follow_polymarket, subscription
from benchmarks.traffic import Traffic
from pmkit.clock import SystemClock
from pmkit.venue_clock import VenueClock

Contender = Callable[[str, Traffic, Probe], Awaitable[None]]

PATH = {"polymarket": "/ws/market", "kalshi": "/trade-api/ws/v2"}
WAIT_SECONDS = 60.0


def subscribe_text(traffic: Traffic) -> str:
    """What a client of each venue sends first."""
    if traffic.venue == "polymarket":
        from pmkit.exchanges.polymarket.messages import subscribe_frame

        return subscribe_frame(list(traffic.books), True)
    from pmkit.exchanges.kalshi.messages import ORDERBOOK, subscribe

    return subscribe(1, ORDERBOOK, traffic.books)


async def ended(probe: Probe) -> asyncio.Event:
    """An event that is set with the last touch, also from another thread."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    probe.done = lambda: loop.call_soon_threadsafe(event.set)
    return event


async def wait(event: asyncio.Event, probe: Probe) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await event.wait()
    except TimeoutError:
        raise RuntimeError(f"{probe.left} touches did not come within {WAIT_SECONDS:g} s") from None


# -- pmkit: the sockets of the library ------------------------------------------------------------------------------


async def pmkit(address: str, traffic: Traffic, probe: Probe) -> None:
    """MarketSocket or KalshiSocket as the library makes them, and a Subscription. Raises RuntimeError for anything that
    was not clean: garbage, a lost book, a second connection."""
    logging.getLogger("pmkit").setLevel(logging.ERROR)
    event = await ended(probe)
    clock = SystemClock()
    sink = subscription(probe, clock).publish_all
    venue_clock = VenueClock(clock)  # never measured: the stamps of the frames are old on purpose

    async def nothing(*_: object) -> Any:
        raise RuntimeError("the feed had to ask REST")

    if traffic.venue == "polymarket":
        from pmkit.exchanges.polymarket.orderbook_ws import MarketSocket

        socket: Any = MarketSocket(
            address, clock, venue_clock, name="bench", read_books=nothing, is_over=lambda token: False
        )
        feed: Any = socket.feed
        follow = follow_polymarket
        keys: list[Any] = list(traffic.books)
    else:
        from pmkit.exchanges.kalshi.book_feed import BookFeed
        from pmkit.exchanges.kalshi.messages import ORDERBOOK
        from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket

        feed = BookFeed()
        follow = follow_kalshi
        socket = KalshiSocket(
            address, clock, signer(), feed,
            venue_clock=venue_clock, confirm=nothing, measure=nothing, is_over=lambda ticker: False,
        )  # fmt: skip
        keys = [(ORDERBOOK, ticker) for ticker in traffic.books]
    await socket.start()
    try:
        await socket.wait_connected(WAIT_SECONDS)
        follow(feed, traffic, sink)  # only now: a new connection tells every sink that its book is not valid yet
        probe.start()
        await socket.want(keys)
        await wait(event, probe)
        bad = (feed.unparsed, getattr(feed, "lost", 0), getattr(feed, "seq_gaps", 0), feed.crossed)
        if socket.stats.connects != 1 or socket.stats.garbage or any(bad):
            raise RuntimeError(f"the run was not clean: {socket.stats}, unparsed, lost, gaps, crossed: {bad}")
    finally:
        await socket.close()


_SIGNER: list[Any] = []


def signer() -> Any:
    """A HandshakeSigner with a key made here, once."""
    if not _SIGNER:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        from pmkit.exchanges.kalshi.auth import HandshakeSigner

        pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _SIGNER.append(HandshakeSigner.from_key("5a9f7c1e-0000-4000-8000-000000000000", pem.decode()))
    return _SIGNER[0]


# -- peers ----------------------------------------------------------------------------------------------------------


async def _websockets(address: str, traffic: Traffic, probe: Probe, feed: Any) -> None:
    from websockets.asyncio.client import connect

    apply = feed.apply
    async with connect(address, compression=None) as socket:
        probe.start()
        await socket.send(subscribe_text(traffic))
        async for message in socket:
            apply(message)
            if probe.left <= 0:
                return
    raise RuntimeError("the server ended the connection")


async def naive(address: str, traffic: Traffic, probe: Probe) -> None:
    """`async for` on plain websockets, json, Decimal, dicts, max and min."""
    await _websockets(address, traffic, probe, Naive(traffic, probe))


async def orjson_ccxt_book(address: str, traffic: Traffic, probe: Probe) -> None:
    """`async for` on plain websockets, orjson, ccxt's OrderBook."""
    await _websockets(address, traffic, probe, CcxtBook(traffic, probe))


async def ccxt_pro(address: str, traffic: Traffic, probe: Probe) -> None:
    """ccxt's own client, parser, books and futures; a user that awaits `watch_order_books` in a loop.

    Its user is told of the latest book only, so the touches are compared where the books change.
    """
    feed = CcxtBook(traffic, probe)

    class Feed(exchange_class()):  # type: ignore[misc]
        def describe(self) -> Any:
            return self.deep_extend(super().describe(), {"id": "bench", "enableRateLimit": False, "pro": True})

        async def watch_order_books(self) -> Any:
            hashes = [f"orderbook:{key}" for key in traffic.books]
            message = self.unjson(subscribe_text(traffic))
            book = await self.watch_multiple(address, hashes, message, hashes)
            return book.limit()

        def handle_message(self, client: Any, message: Any) -> None:
            for event in message if isinstance(message, list) else [message]:
                if traffic.venue == "polymarket":
                    self.handle_polymarket(client, event)
                else:
                    self.handle_kalshi(client, event)

        def handle_kalshi(self, client: Any, event: Any) -> None:
            kind = self.safe_string(event, "type")
            message = self.safe_dict(event, "msg", {})
            ticker = self.safe_string(message, "market_ticker")
            if kind == "orderbook_snapshot":
                feed.kalshi_event(event)
            elif kind == "orderbook_delta":
                side, price = self.safe_string(message, "side"), self.safe_float(message, "price_dollars")
                sizes, book = feed.sizes[ticker], feed.books[ticker]
                size = round(sizes.get((side, price), 0.0) + self.safe_float(message, "delta_fp"), 2)
                sizes[side, price] = size
                if side == "yes":
                    book["bids"].storeArray([price, size])
                else:
                    book["asks"].storeArray([round(1 - price, 4), size])
                book["timestamp"] = self.safe_integer(message, "ts_ms")
                book["datetime"] = self.iso8601(book["timestamp"])
                feed.tell_both(ticker, book)
            else:
                return
            client.resolve(feed.books[ticker], f"orderbook:{ticker}")

        def handle_polymarket(self, client: Any, event: Any) -> None:
            kind = self.safe_string(event, "event_type")
            stamp = self.safe_integer(event, "timestamp")
            if kind == "book":
                token = self.safe_string(event, "asset_id")
                book = feed.books.setdefault(token, self.order_book({}))
                book.reset(self.parse_order_book(event, token, stamp, "bids", "asks", "price", "size"))
                self.changed(client, token, book, stamp)
            elif kind == "price_change":
                touched = {}
                for change in self.safe_list(event, "price_changes", []):
                    token = self.safe_string(change, "asset_id")
                    book = touched[token] = feed.books[token]
                    side = book["bids"] if self.safe_string(change, "side") == "BUY" else book["asks"]
                    side.storeArray([self.safe_float(change, "price"), self.safe_float(change, "size")])
                for token, book in touched.items():
                    self.changed(client, token, book, stamp)

        def changed(self, client: Any, token: str, book: Any, stamp: int) -> None:
            book["timestamp"] = stamp
            book["datetime"] = self.iso8601(stamp)
            feed.tell(token, book)
            client.resolve(book, f"orderbook:{token}")

        def unjson(self, text: str) -> Any:
            import json

            return json.loads(text)

    exchange = Feed()
    probe.start()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while probe.left > 0:
                await exchange.watch_order_books()
    finally:
        await exchange.close()


async def nautilus(address: str, traffic: Traffic, probe: Probe) -> None:
    """Its Rust WebSocket client, and `Nautilus`. Its callbacks run in the thread of the client."""
    from nautilus_trader.core.nautilus_pyo3 import WebSocketClient, WebSocketConfig

    event = await ended(probe)
    feed = Nautilus(traffic, probe)
    client = await WebSocketClient.connect(WebSocketConfig(url=address, handler=feed.apply, headers=[]))
    probe.start()
    await client.send_text(subscribe_text(traffic).encode())
    try:
        await wait(event, probe)
    finally:
        await client.disconnect()
