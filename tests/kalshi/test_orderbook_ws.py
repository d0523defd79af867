"""The socket against a scripted Kalshi on loopback: handshakes, crosses, old messages, silence, close."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from pmkit.clock import Clock
from pmkit.errors import AuthError, VenueUnavailable
from pmkit.exchanges.kalshi.auth import SOCKET_PATH, HandshakeSigner
from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.messages import ORDERBOOK
from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket
from pmkit.sim.virtual import VirtualClock
from pmkit.venue_clock import VenueClock
from tests.kalshi.frames import T, delta, encode, snapshot, subscribed

pytestmark = pytest.mark.virtual_time

KEY_ID = "0f0e0d0c-0b0a-4000-8000-070605040302"
PRIVATE = ed25519.Ed25519PrivateKey.generate()
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


class Kalshi:
    """Answers subscribe and get_snapshot as told; keeps handshakes and commands."""

    def __init__(self) -> None:
        self.handshakes: list[dict[str, str]] = []
        self.commands: list[dict[str, Any]] = []
        self.connections: list[ServerConnection] = []
        self.status = 0
        self.seq = 0
        self.bids = [("0.4000", "10.00")]
        self.answers = True
        self.url = ""

    async def process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append({name.lower(): value for name, value in request.headers.raw_items()})
        if self.status:
            return connection.respond(self.status, '{"error":{"code":"authentication_error"}}')
        return None

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self.seq = 0
        async for text in connection:
            command = json.loads(text)
            self.commands.append(command)
            if not self.answers:
                continue
            if command["cmd"] == "subscribe":
                await connection.send(subscribed(1, id_=command["id"]).decode())
                await self.snapshot()
            elif command["params"].get("action") == "get_snapshot":
                await self.snapshot()

    async def snapshot(self) -> None:
        await self.send(lambda seq: snapshot(seq, self.bids))

    async def send(self, make: Callable[[int], bytes]) -> None:
        self.seq += 1
        await self.connections[-1].send(make(self.seq).decode())


@asynccontextmanager
async def running(
    clock: Clock | None = None, *, confirm: bool = False, offset_ms: int = 0
) -> AsyncIterator[tuple[KalshiSocket, Kalshi]]:
    venue, clock = Kalshi(), clock or VirtualClock()
    venue_clock = VenueClock(clock)
    now = clock.now_ms()
    venue_clock.observe(now + offset_ms, now, now)
    feed = BookFeed()
    feed.watch(T, 10)
    asked: list[int] = []

    async def confirmed() -> bool:
        asked.append(1)
        feed.suspect("silence")
        if confirm:
            feed.confirm()
        return confirm

    async def measured() -> None:
        asked.append(2)

    async with serve(venue.handle, "127.0.0.1", 0, process_request=venue.process, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        socket = KalshiSocket(
            f"ws://127.0.0.1:{port}{SOCKET_PATH}",
            clock,
            HandshakeSigner.from_key(KEY_ID, PEM),
            feed,
            venue_clock=venue_clock,
            confirm=confirmed,
            measure=measured,
            is_over=lambda ticker: False,
        )
        socket.asked = asked  # type: ignore[attr-defined]
        try:
            await socket.start()
            await socket.want([(ORDERBOOK, T)])
            yield socket, venue
        finally:
            begun = clock.io_monotonic()
            await socket.close()
            await socket.close()
            assert clock.io_monotonic() - begun < 1
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("pmkit")]


async def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_every_handshake_is_signed_anew_with_the_venues_time() -> None:
    clock = VirtualClock(factor=50.0)
    async with running(clock, offset_ms=7_200_000) as (socket, venue):
        book = socket.feed.pairs[T].yes
        await eventually(lambda: book.valid)
        venue.connections[0].transport.abort()
        await eventually(lambda: not book.valid)
        await eventually(lambda: book.valid)
        assert book.generation == socket.generation == 2
        first, second = venue.handshakes[:2]
        for headers in (first, second):
            stamp = headers["kalshi-access-timestamp"]
            assert headers["kalshi-access-key"] == KEY_ID
            PRIVATE.public_key().verify(
                base64.b64decode(headers["kalshi-access-signature"]), f"{stamp}GET{SOCKET_PATH}".encode()
            )
        assert int(second["kalshi-access-timestamp"]) > int(first["kalshi-access-timestamp"])
        assert abs(int(second["kalshi-access-timestamp"]) - clock.now_ms() - 7_200_000) < 120_000


async def test_md_28_a_refused_key_is_a_problem_and_the_clock_is_measured() -> None:
    async with running() as (socket, venue):
        venue.status = 401
        await eventually(lambda: socket.feed.pairs[T].yes.valid or bool(socket.stats.blocked))
        if socket.stats.connects:
            venue.connections[-1].transport.abort()
        await eventually(lambda: bool(socket.stats.blocked), 4.0)
        problem = socket.problem([(ORDERBOOK, T)])
        assert isinstance(problem, AuthError)
        for secret in (KEY_ID, venue.handshakes[-1]["kalshi-access-signature"]):
            assert secret not in str(problem)
        await eventually(lambda: 2 in socket.asked)  # type: ignore[attr-defined]


async def test_a_refused_command_is_a_problem() -> None:
    async with running() as (socket, venue):
        await eventually(lambda: socket.feed.pairs[T].yes.valid)
        venue.answers = False
        await socket.want([(ORDERBOOK, "KXGONE-1")])
        await eventually(lambda: len(venue.commands) == 2)
        error = {"code": 11, "msg": "Invalid parameter"}
        await venue.send(lambda seq: encode({"type": "error", "id": venue.commands[1]["id"], "msg": error}))
        await eventually(lambda: socket.problem([(ORDERBOOK, "KXGONE-1")]) is not None)
        assert isinstance(socket.problem([(ORDERBOOK, "KXGONE-1")]), VenueUnavailable)
        assert socket.problem([(ORDERBOOK, T)]) is None


async def test_md_08_a_cross_that_stays_is_rebuilt_and_one_that_goes_is_not() -> None:
    async with running() as (socket, venue):
        book = socket.feed.pairs[T].yes
        await eventually(lambda: book.valid)
        await venue.send(lambda seq: delta(seq, "no", "0.6500", "1.00", ts_ms=0))
        await eventually(lambda: book.reason == "crossed")
        await venue.send(lambda seq: delta(seq, "no", "0.6500", "-1.00", ts_ms=0))
        await eventually(lambda: book.valid)
        await asyncio.sleep(0.35)
        assert book.valid
        assert [command["cmd"] for command in venue.commands] == ["subscribe"]
        await venue.send(lambda seq: delta(seq, "no", "0.6500", "1.00", ts_ms=0))
        await eventually(lambda: book.epoch == 2)
        assert book.valid
        assert venue.commands[-1]["params"]["action"] == "get_snapshot"
        assert socket.subscriptions.resyncs == 1
        assert socket.stats.connects == 1


async def test_md_13_messages_that_are_too_old_replace_the_connection() -> None:
    clock = VirtualClock(factor=20.0)
    async with running(clock) as (socket, venue):
        book = socket.feed.pairs[T].yes
        await eventually(lambda: book.valid)
        old = clock.now_ms() - 9_000
        await venue.send(lambda seq: delta(seq, "yes", "0.3000", "1.00", ts_ms=old))
        await asyncio.sleep(0.7)
        assert socket.aged == 0  # at factor 20 the limit is a wall second: 20 s of market time
        old = clock.now_ms() - 60_000
        await venue.send(lambda seq: delta(seq, "yes", "0.3000", "1.00", ts_ms=old))
        await eventually(lambda: socket.aged == 1)
        assert "old" in socket.stats.last_reason
        await eventually(lambda: socket.generation == 2 and book.valid)


@pytest.mark.parametrize("confirmed", [True, False])
async def test_md_01_silence_asks_and_acts_on_the_answer(confirmed: bool) -> None:
    clock = VirtualClock(factor=30.0)  # the deadline is a wall second
    async with running(clock, confirm=confirmed) as (socket, _venue):
        book = socket.feed.pairs[T].yes
        await eventually(lambda: book.valid)
        await eventually(lambda: 1 in socket.asked, 2.0)  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        if confirmed:
            assert book.valid
            assert socket.stats.disconnects == 0
        else:
            await eventually(lambda: socket.stats.disconnects == 1)
            await eventually(lambda: socket.generation == 2 and book.valid)


async def test_md_18_garbage_is_counted_and_the_stream_lives_on() -> None:
    async with running() as (socket, venue):
        book = socket.feed.pairs[T].yes
        await eventually(lambda: book.valid)
        for text in ("hello", "{", '{"type":"orderbook_delta","sid":1}', '{"type":"brand_new","sid":1,"seq":2}'):
            await venue.connections[-1].send(text)
        await venue.connections[-1].send(b"\xff\xfe\x00")
        venue.seq = 2
        await venue.send(lambda seq: delta(seq, "yes", "0.4000", "1.00", ts_ms=0))
        await eventually(lambda: socket.stats.garbage == 4)
        await eventually(lambda: book.valid)
        assert socket.stats.unknown == {"brand_new": 1}
        assert socket.stats.connects == 1


async def test_md_16_a_snapshot_of_many_megabytes_is_read() -> None:
    async with running() as (socket, venue):
        await eventually(lambda: socket.feed.pairs[T].yes.valid)
        large = json.loads(snapshot(2, venue.bids))
        large["msg"]["padding"] = "x" * 17 * 2**20
        await venue.connections[-1].send(json.dumps(large))
        await eventually(lambda: socket.feed.pairs[T].yes.epoch == 2, 6.0)
