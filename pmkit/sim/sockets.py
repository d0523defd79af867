"""One WebSocket connection of a local venue: a reader, a writer and a bounded queue between them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from pmkit.sim.server import Server

QUEUED_FRAMES = 8_192
QUEUED_BYTES = 32 * 2**20
CLOSE_SECONDS = 0.3
UNREAD_BYTES = 64 * 1024


class SocketSession:
    """One WebSocket connection. Override `on_open`, `on_text`, `on_close`; send with `send_data` and `send_control`.

    Frames wait in a queue of at most QUEUED_FRAMES frames and QUEUED_BYTES bytes; a client that is slower is reset.
    """

    # False: pings and pongs come to `on_ping` and `on_pong`, and the session answers pings itself.
    autoping = True

    def __init__(self, server: Server, request: web.Request) -> None:
        self.server = server
        self.request = request
        self.clock = server.clock
        self.faults = server.faults
        self.ws = web.WebSocketResponse(max_msg_size=4 * 2**20, timeout=CLOSE_SECONDS, autoping=self.autoping)
        self.sent = 0
        self.received = 0
        self.muted = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def on_open(self) -> None:
        """The handshake is done."""

    async def on_text(self, text: str) -> None:
        """A text frame came. An exception closes the connection and is counted in `Server.failures`."""

    async def on_binary(self, data: bytes) -> None:
        """A binary frame came; ignored unless overridden."""

    async def on_ping(self, data: bytes) -> None:
        """A protocol ping came; only where `autoping` is False."""

    async def on_pong(self, data: bytes) -> None:
        """A protocol pong came; only where `autoping` is False."""

    async def on_close(self) -> None:
        """The connection is gone; called once."""

    def send_data(self, frame: bytes | str) -> None:
        """Queue a text frame of market data. Lost while the venue is silent."""
        if self.faults.silent:
            self.muted += 1
            self.faults.counts["silenced"] += 1
            return
        self.send_control(frame)

    def send_control(self, frame: bytes | str) -> None:
        """Queue a text frame that a silent venue still sends (pongs, replies)."""
        raw = frame.encode() if isinstance(frame, str) else frame
        if len(self._queue) >= QUEUED_FRAMES or self._queued + len(raw) > QUEUED_BYTES:
            self.server.counts["slow_clients"] += 1
            self.abort()
            return
        self._queue.append(raw)
        self._queued += len(raw)
        self._wake.set()

    @property
    def queued(self) -> int:
        """Frames that wait to be written."""
        return len(self._queue)

    async def ping(self, data: bytes = b"") -> None:
        """A protocol ping. A connection that is going away is none of the caller's business."""
        with suppress(ConnectionError):
            await self.ws.ping(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """A closing handshake, given up after CLOSE_SECONDS; a client that does not read is reset at once."""
        transport = self.request.transport
        if transport is not None and transport.get_write_buffer_size() > UNREAD_BYTES:
            transport.abort()
            return
        try:
            async with self.clock.io_timeout(CLOSE_SECONDS):
                await self.ws.close(code=code, message=reason.encode())
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        """Reset the connection now."""
        transport = self.request.transport
        if transport is not None:
            transport.abort()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something until the connection ends."""
        self._tasks.append(asyncio.create_task(coroutine))

    async def serve(self) -> web.WebSocketResponse:
        """The life of the connection; what a route calls."""
        await self.ws.prepare(self.request)
        self.faults.sessions.add(self)
        self.server.sessions.add(self)
        self.server.counts["connections"] += 1
        self.spawn(self._write())
        try:
            await self.on_open()
            async for message in self.ws:
                self.received += 1
                if message.type is WSMsgType.TEXT:
                    await self.on_text(message.data)
                elif message.type is WSMsgType.BINARY:
                    await self.on_binary(message.data)
                elif message.type is WSMsgType.PING:
                    await self.on_ping(bytes(message.data))
                elif message.type is WSMsgType.PONG:
                    await self.on_pong(bytes(message.data))
        except ConnectionError:
            self.server.counts["resets"] += 1
        except Exception as error:
            self.server.failed(error)
            await self.close(1011, "internal error")
        finally:
            self.faults.sessions.discard(self)
            self.server.sessions.discard(self)
            for task in self._tasks:
                task.cancel()
            for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    self.server.failed(outcome)
            await self.on_close()
        return self.ws

    async def _write(self) -> None:
        try:
            while True:
                while not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                raw = self._queue.popleft()
                self._queued -= len(raw)
                await self.ws.send_frame(raw, WSMsgType.TEXT)
                self.sent += 1
        except ConnectionError:
            self.abort()
