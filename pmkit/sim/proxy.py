"""A TCP proxy on loopback that makes the line bad: `async with Proxy(port, clock) as proxy`.

It stands between a client and a local venue, knows nothing of what passes, and works on real sockets and in virtual
time. Its switches hold until they are set back and concern connections that stand as well:

* `latency`, `jitter`: wall seconds that every piece is under way longer, each direction; order is kept;
* `bytes_per_second`: bandwidth of each direction of each connection, 0 for any;
* `slice_bytes`: nothing larger than this arrives in one piece, 0 for whole pieces;
* `black_hole`: nothing passes and nothing ends, in both directions; the sockets stay open. What comes in meanwhile
  waits, as in the buffers of a network, and goes on when the switch is set back;
* `slow_close`: an end of file is passed on that many seconds late.

`cut()` ends all connections, with a reset or without; `reset_after(n)` resets the next connection as soon as `n` bytes
of the client have passed; `refuse(True)` listens no more until `refuse(False)`. `counts` says what was done.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from pmkit.clock import Clock, Timer

HOST = "127.0.0.1"
HELD_BYTES = 256 * 1024
_NOW = struct.pack("ii", 1, 0)


class _End(asyncio.Protocol):
    """One socket of the proxy. What it reads goes through `_Flow` to the other end."""

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.transport: asyncio.Transport | None = None
        self.flow: _Flow | None = None
        self.feeds: _Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.line.made(self)

    def data_received(self, data: bytes) -> None:
        assert self.flow is not None
        self.flow.take(data)

    def eof_received(self) -> bool:
        assert self.flow is not None
        self.flow.end()
        return True  # the other direction goes on until it ends as well

    def pause_writing(self) -> None:
        if self.feeds is not None:
            self.feeds.hold(True)

    def resume_writing(self) -> None:
        if self.feeds is not None:
            self.feeds.hold(False)

    def connection_lost(self, error: Exception | None) -> None:
        self.line.lost(self, error)


class _Flow:
    """One direction: pieces that wait for their moment."""

    def __init__(self, line: _Line, source: _End, sink: _End) -> None:
        self._line = line
        self._proxy = line.proxy
        self._source = source
        self._sink = sink
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._size = 0
        self._held = False
        self._timer: Timer | None = None
        self._latest = 0.0
        self._free_at = 0.0
        self.passed = 0

    def take(self, data: bytes) -> None:
        self._queue(data)
        if self._size > HELD_BYTES and self._source.transport is not None:
            self._source.transport.pause_reading()

    def end(self) -> None:
        self._queue(None)

    def _queue(self, data: bytes | None) -> None:
        proxy = self._proxy
        delay = proxy.latency + (proxy.clock.entropy.uniform(0.0, proxy.jitter) if proxy.jitter else 0.0)
        if data is None:
            delay += proxy.slow_close
        self._latest = max(self._latest, proxy.clock.io_monotonic() + delay)
        self._waiting.append((self._latest, data))
        self._size += len(data or b"")
        self.pump()

    def hold(self, held: bool) -> None:
        """The other end takes no more for now, or again."""
        self._held = held
        self.pump()

    def stop(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pump(self) -> None:
        """Pass on what is due."""
        proxy = self._proxy
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self._held and not proxy.black_hole:
            due, data = self._waiting[0]
            wait = max(due, self._free_at) - proxy.clock.io_monotonic()
            if wait > 0:
                self._timer = proxy.clock.io_call_later(wait, self.pump)
                return
            self._waiting.popleft()
            if data is None:
                self._line.half_closed(self._sink)
                continue
            piece, rest = (data[: proxy.slice_bytes], data[proxy.slice_bytes :]) if proxy.slice_bytes else (data, b"")
            if rest:
                self._waiting.appendleft((due, rest))
                self._free_at = proxy.clock.io_monotonic() + proxy.slice_gap
            if proxy.bytes_per_second:
                self._free_at = proxy.clock.io_monotonic() + len(piece) / proxy.bytes_per_second
            self._size -= len(piece)
            if not self._line.pass_on(self, self._sink, piece):
                return
        if self._size <= HELD_BYTES // 2 and (source := self._source.transport) is not None:
            source.resume_reading()


class _Line:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = _End(self)
        self.venue = _End(self)
        self.up = self.client.flow = self.venue.feeds = _Flow(self, self.client, self.venue)
        self.down = self.venue.flow = self.client.feeds = _Flow(self, self.venue, self.client)
        self._ended = {self.client: False, self.venue: False}
        self._limit: int | None = None

    def made(self, end: _End) -> None:
        if end is self.venue:
            if self.client.transport is None or self.client.transport.is_closing():
                self.drop(reset=False)
                return
            self.client.transport.resume_reading()
            self.up.pump()
            return
        assert end.transport is not None
        self._limit = self.proxy.take_limit()
        end.transport.pause_reading()
        self.proxy.opened(self)

    def pass_on(self, flow: _Flow, sink: _End, piece: bytes) -> bool:
        """Write to the other end; False when this was the end of the connection."""
        if sink.transport is None:
            return False
        flow.passed += len(piece)
        over = self._limit is not None and flow is self.up and flow.passed >= self._limit
        if over and self._limit is not None:
            piece = piece[: len(piece) - (flow.passed - self._limit)]
        sink.transport.write(piece)
        if over:
            self.proxy.counts["reset_after"] += 1
            self.drop(reset=True)
            return False
        return True

    def half_closed(self, sink: _End) -> None:
        self._ended[sink] = True
        if sink.transport is None:
            return
        if all(self._ended.values()):
            self.drop(reset=False)
        elif sink.transport.can_write_eof():
            with suppress(OSError):  # gone in this moment: connection_lost follows
                sink.transport.write_eof()

    def lost(self, end: _End, error: Exception | None) -> None:
        other = self.venue if end is self.client else self.client
        if error is not None:
            self.drop(reset=True)
        elif other.transport is not None and not other.transport.is_closing():
            other.transport.close()
        self.proxy.closed(self)

    def drop(self, *, reset: bool) -> None:
        """End both sockets; without a reset what was written still goes out."""
        for end in (self.client, self.venue):
            transport = end.transport
            if end.flow is not None:
                end.flow.stop()
            if transport is None:
                continue
            if reset:
                with suppress(OSError):
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
                transport.abort()
            else:
                transport.close()


class Proxy:
    """See the module. `target` is the port of the venue; `port` is where clients connect after `start`."""

    def __init__(self, target: int, clock: Clock) -> None:
        self.target = target
        self.clock = clock
        self.port = 0
        self.latency = 0.0
        self.jitter = 0.0
        self.bytes_per_second = 0
        self.slice_bytes = 0
        self.slice_gap = 0.0
        self.slow_close = 0.0
        self.counts: Counter[str] = Counter()
        self._black_hole = False
        self._limits: list[int] = []
        self._lines: dict[_Line, None] = {}
        self._dialling: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    @property
    def connections(self) -> int:
        """How many stand now."""
        return len(self._lines)

    @property
    def black_hole(self) -> bool:
        return self._black_hole

    @black_hole.setter
    def black_hole(self, on: bool) -> None:
        self._black_hole = on
        self.counts["black_hole"] += on
        for line in [*self._lines]:
            line.up.pump()
            line.down.pump()

    def calm(self) -> None:
        """All switches back; connections that stand go on."""
        self.latency = self.jitter = self.slow_close = self.slice_gap = 0.0
        self.bytes_per_second = self.slice_bytes = 0
        self._limits.clear()
        self.black_hole = False

    def cut(self, *, reset: bool = False) -> int:
        """End every connection. Returns how many there were."""
        lines = [*self._lines]
        for line in lines:
            line.drop(reset=reset)
        self.counts["reset" if reset else "cut"] += len(lines)
        return len(lines)

    def reset_after(self, count: int, times: int = 1) -> None:
        """Reset the next connections once the client has sent `count` bytes."""
        self._limits += [count] * times

    async def refuse(self, on: bool) -> None:
        """Listen no more, or again on the same port. Connections that stand go on. Without effect when closed."""
        server = self._server
        if server is None or on is not server.is_serving():
            return
        if on:
            self.counts["refused"] += 1
            server.close()
            # Bound, or somebody else on this machine gets the port meanwhile; but deaf: who comes is refused.
            await self._bind(start_serving=False)
        else:
            await server.start_serving()

    # ---- what the lines ask

    def take_limit(self) -> int | None:
        return self._limits.pop(0) if self._limits else None

    def opened(self, line: _Line) -> None:
        self.counts["connections"] += 1
        self._lines[line] = None
        task = asyncio.get_running_loop().create_task(self._dial(line), name=f"proxy to {self.target}")
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    def closed(self, line: _Line) -> None:
        if all(end.transport is None or end.transport.is_closing() for end in (line.client, line.venue)):
            self._lines.pop(line, None)

    async def _dial(self, line: _Line) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: line.venue, HOST, self.target)
        except OSError:
            self.counts["unreachable"] += 1
            line.drop(reset=True)

    # ---- life

    async def _bind(self, *, start_serving: bool) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Line(self).client, HOST, self.port, start_serving=start_serving
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Listen on a free port."""
        await self._bind(start_serving=True)

    async def close(self) -> None:
        """End everything. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in [*self._dialling]:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        self.cut()
        for line in [*self._lines]:
            line.drop(reset=True)
        await self.clock.io_sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
