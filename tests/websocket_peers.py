"""What the socket tests talk to: a scripted WebSocket venue, raw TCP servers, a spiteful proxy; and clocks."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pmkit.clock import Clock, Entropy, ScaledClock, SystemClock
from pmkit.websocket.base import BaseWebSocket, FrameError

GUARD_SECONDS = 8.0


async def until(condition: Callable[[], object], seconds: float = GUARD_SECONDS, what: str = "") -> None:
    """Poll until a condition holds; fails the test after wall seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is awaited has no event
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what or condition}") from None


def fast_clock(factor: float = 100.0) -> ScaledClock:
    """Backoff of a second passes in 10 ms; pings and closing take their real time."""
    return ScaledClock(1_795_176_000_000, factor, entropy=Entropy(7))


class SkippingClock(SystemClock):
    """Market sleeps take no time; they are noted, and market time moves on by them."""

    def __init__(self, seed: int = 7) -> None:
        super().__init__(Entropy(seed))
        self.sleeps: list[float] = []
        self.skipped = 0.0
        self.stop_after: int | None = None

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.skipped += seconds
        if self.stop_after is not None and len(self.sleeps) >= self.stop_after:
            await asyncio.get_running_loop().create_future()  # the test has seen enough
        await asyncio.sleep(0)


class Feed(BaseWebSocket[str]):
    """JSON objects; {"data": ...} is data. Notes all that happens to it, in order."""

    def __init__(self, url: Any, clock: Clock, **options: Any) -> None:
        options.setdefault("name", "feed")
        options.setdefault("deadline", None)
        options.setdefault("pace", 1000.0)
        options.setdefault("on_gap", lambda reason, since_ns: self.gaps.append((reason, since_ns)))
        super().__init__(url, clock, **options)
        self.events: list[str] = []
        self.got: list[Any] = []
        self.stamps: list[int] = []
        self.by_generation: list[tuple[int, Any]] = []
        self.gaps: list[tuple[str, int]] = []
        self.headers: Mapping[str, str] = {}
        self.raise_on: Callable[[Any], BaseException | None] = lambda payload: None

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> list[str | bytes]:
        return [json.dumps({"subscribe": list(keys), "first": first})] if keys else []

    def _unsubscribe_frames(self, keys: Sequence[str]) -> list[str | bytes]:
        return [json.dumps({"unsubscribe": list(keys)})]

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            message = json.loads(data)
        except ValueError as error:
            raise FrameError(f"not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("not an object")
        if (error := self.raise_on(message)) is not None:
            raise error
        if "data" not in message:
            return False
        self.got.append(message["data"])
        self.stamps.append(received_ns)
        self.by_generation.append((self.generation, message["data"]))
        return True

    def _handshake_headers(self) -> Mapping[str, str]:
        return self.headers

    def _on_connect(self) -> None:
        self.events.append(f"connect {self.generation}")

    def _on_disconnect(self, reason: str) -> None:
        self.events.append(f"disconnect: {reason}")

    def _on_blocked(self, reason: str) -> None:
        self.events.append(f"blocked: {reason}")


class Peer:
    """One connection as the venue sees it. `frames` are the texts the client sent, PINGs left out."""

    def __init__(self, number: int, connection: ServerConnection) -> None:
        self.number = number
        self.connection = connection
        self.frames: list[Any] = []
        self.texts: list[str] = []
        self.ended = False

    @property
    def subscribed(self) -> list[str]:
        """The keys that were subscribed, in order, repeats included."""
        return [key for frame in self.frames for key in frame.get("subscribe", [])]

    async def send(self, data: Any) -> None:
        await self.connection.send(json.dumps({"data": data}))

    def cut(self) -> None:
        """A TCP reset, without a close frame."""
        self.connection.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Venue:
    """A WebSocket server on loopback. `script` runs for every connection, beside the reading of its frames."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.url = ""
        self.script: Script | None = None
        self.answer_pings = True

    async def handle(self, connection: ServerConnection) -> None:
        peer = Peer(len(self.peers) + 1, connection)
        self.peers.append(peer)
        script = None if self.script is None else asyncio.ensure_future(self.script(peer))
        try:
            async for text in connection:
                assert isinstance(text, str), "a control frame went out as binary"
                peer.texts.append(text)
                if text == "PING":
                    if self.answer_pings:
                        await connection.send("PONG")
                else:
                    peer.frames.append(json.loads(text))
            # The client may have gone; what is left of the script has nobody to talk to.
        except ConnectionClosed:
            pass
        finally:
            peer.ended = True
            if script is not None:
                script.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                    await script

    @property
    def last(self) -> Peer:
        return self.peers[-1]


@contextlib.asynccontextmanager
async def venue(script: Script | None = None, **options: Any) -> AsyncIterator[Venue]:
    """A venue that is up. Options go to websockets' serve."""
    served = Venue()
    served.script = script
    options.setdefault("compression", None)
    async with serve(served.handle, "127.0.0.1", 0, close_timeout=0.2, **options) as server:
        port = server.sockets[0].getsockname()[1]
        served.url = f"ws://127.0.0.1:{port}"
        yield served


@contextlib.asynccontextmanager
async def running(feed: BaseWebSocket[Any], *keys: str, connected: bool = True) -> AsyncIterator[None]:
    """Start a feed that wants keys, and close it; fails when it leaves a task behind."""
    before = asyncio.all_tasks()
    await feed.want(keys)
    await feed.start()
    try:
        if connected:
            await feed.wait_connected(GUARD_SECONDS)
        yield
    finally:
        begin = asyncio.get_running_loop().time()
        await feed.close()
        assert asyncio.get_running_loop().time() - begin < 1.0, "close() took longer than a second"
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}
    assert not left, f"tasks left behind: {left}"


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def tcp_server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A raw TCP server; yields its port. Connections are cut at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def read_request(reader: asyncio.StreamReader) -> str:
    """The head of an HTTP request."""
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def answering(*answers: bytes, seen: list[str] | None = None) -> Handler:
    """Each connection gets the next answer (the last one for ever), then the end of the connection."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if seen is not None:
            seen.append(request)
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handle


def status_answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    head = "".join(f"{header}\r\n" for header in (f"Content-Length: {len(body)}", *headers))
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body


class Proxy:
    """Forwards TCP to a port, in small slices when asked, until it is frozen: then nothing passes, nothing closes."""

    def __init__(self, target: int, slices: tuple[int, int] | None = None) -> None:
        self.target = target
        self.slices = slices
        self.frozen = False
        self.accepted = 0
        self._random = random.Random(3)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        frozen_here = asyncio.Event()
        out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self.target)
        pumps = [
            asyncio.ensure_future(self._pump(reader, out_writer, frozen_here)),
            asyncio.ensure_future(self._pump(out_reader, writer, frozen_here)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            out_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frozen_here: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if self.frozen:
                frozen_here.set()
            if frozen_here.is_set():
                continue
            if self.slices is None:
                writer.write(data)
                await writer.drain()
                continue
            low, high = self.slices
            while data:
                size = self._random.randint(low, high)
                writer.write(data[:size])
                data = data[size:]
                await writer.drain()
                await asyncio.sleep(0)
        if frozen_here.is_set():
            await asyncio.get_running_loop().create_future()


@contextlib.asynccontextmanager
async def proxy(url: str, slices: tuple[int, int] | None = None) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a venue; yields it and the address that goes through it."""
    before = Proxy(int(url.rpartition(":")[2]), slices)
    async with tcp_server(before.handle) as port:
        yield before, f"ws://127.0.0.1:{port}"
