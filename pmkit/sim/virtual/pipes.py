"""Connections in memory with the manners of TCP on loopback: bounded buffers, end of file, half close, reset.

What goes over the line is the same as with sockets of asyncio: a full buffer holds the writer back, closing flushes
and says end of file, closing with unread data or with SO_LINGER 0 resets, writing to someone who has left resets.
"""

from __future__ import annotations

import asyncio
import errno
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pmkit.sim.virtual.sockets import PipeSocket

if TYPE_CHECKING:
    from pmkit.sim.virtual.loop import VirtualLoop
    from pmkit.sim.virtual.servers import PipeServer

LINE_BYTES = 256 * 1024
"""What the line itself takes in one direction, sent and not yet read."""
READ_BYTES = 256 * 1024
HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class PipeTransport(asyncio.Transport):
    """One end of a connection. `gone` is true once its socket is closed."""

    def __init__(
        self, line: VirtualLoop, sock: PipeSocket, protocol: asyncio.BaseProtocol, server: PipeServer | None = None
    ) -> None:
        super().__init__({"socket": sock, "sockname": sock.name, "peername": sock.peer})
        self.sock = sock
        sock.transport = self
        self.gone = False
        self._line = line
        self._protocol = protocol
        self._server = server
        self._peer: PipeTransport = self
        self._came: deque[tuple[float, bytes]] = deque()
        self._came_bytes = 0
        self._latest = 0.0
        self._ended: float | None = None
        self._broken: float | None = None
        self._saw_end = False
        self._wakes: float | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._high, self._low = HIGH_WATER, LOW_WATER
        self._held = False
        self._reading = True
        self._closing = False
        self._lost = False
        self._said_end = False
        self._made = False

    def meet(self, peer: PipeTransport) -> None:
        """Its other end."""
        self._peer = peer

    def connected(self) -> None:
        """Tell the protocol."""
        if self._server is not None:
            self._server.attach(self)
        self._made = True
        self._protocol.connection_made(self)
        self._look()

    # ---- what arrives

    def _arrives(self) -> float:
        """When something sent to this end now will be here: never before what was sent earlier."""
        latest = self._line.moment + self._line.flight()
        if latest > self._latest:
            self._latest = latest
        return self._latest

    def _take(self, data: bytes) -> None:
        if self._line.tape is not None:
            self._line.tape.append((self._line.moment, self._peer.sock.name[1], self.sock.name[1], len(data)))
        self._came.append((self._arrives(), data))
        self._came_bytes += len(data)
        if self._wakes is None or len(self._came) == 1:  # else it waits for what came before
            self._look()

    def _end(self) -> None:
        if self._ended is None:
            self._ended = self._arrives()
            self._look()

    def _break(self) -> None:
        if self._broken is None:
            self._broken = self._arrives()
            self._look()

    def _next(self) -> float | None:
        """When there is something to tell the protocol."""
        if self._lost or not self._made:
            return None
        if self._broken is not None and (not self._came or not self._reading or self._closing):
            return self._broken
        if not self._reading or self._closing:
            return None
        if self._came:
            return self._came[0][0]
        return None if self._saw_end else self._ended

    def _look(self) -> None:
        """Be called when the next thing is here."""
        when = self._next()
        if when is None or (self._wakes is not None and self._wakes <= when):
            return
        self._wakes = when
        self._line.at(when, self._tell, when)

    def _tell(self, when: float) -> None:
        if self._wakes != when:
            return  # an earlier call has done it
        self._wakes = None
        due = self._next()
        if due is None or due > self._line.moment:
            self._look()
            return
        if self._came and self._reading and not self._closing:
            self._tell_data()
        elif self._broken is not None:
            self._force(_reset())
        else:
            self._tell_end()
        self._look()

    def _tell_data(self) -> None:
        now, came = self._line.moment, self._came
        data = came.popleft()[1]
        if came and came[0][0] <= now and len(data) < READ_BYTES:
            parts, size = [data], len(data)
            while came and came[0][0] <= now and size < READ_BYTES:
                parts.append(came.popleft()[1])
                size += len(parts[-1])
            data = b"".join(parts)
        self._came_bytes -= len(data)
        try:
            protocol = self._protocol
            if isinstance(protocol, asyncio.BufferedProtocol):
                _feed(protocol, data)
            else:
                assert isinstance(protocol, asyncio.Protocol)
                protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal(error, "data_received")
        self._peer._room()

    def _tell_end(self) -> None:
        self._saw_end = True
        try:
            assert isinstance(self._protocol, asyncio.Protocol | asyncio.BufferedProtocol)
            keep = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal(error, "eof_received")
            return
        if not keep:
            self.close()

    def descriptor(self) -> int:
        """A descriptor that polls readable when something has come and was not read."""
        now = self._line.moment
        here = (
            bool(self._came and self._came[0][0] <= now)
            or (self._ended is not None and self._ended <= now)
            or (self._broken is not None and self._broken <= now)
        )
        return self._line.readability.descriptor(here)

    def pause_reading(self) -> None:
        if not self._closing:
            self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._reading = True
            self._look()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    # ---- what is sent

    def write(self, data: Any) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._said_end:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._closing or self._lost:
            return
        raw = bytes(data)
        if not self._waiting:
            raw = self._send(raw)
        if raw:
            self._waiting.append(raw)
            self._waiting_bytes += len(raw)
            if not self._held and self._waiting_bytes > self._high:
                self._held = True
                self._call(self._protocol.pause_writing, "pause_writing")

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, raw: bytes) -> bytes:
        """Put on the line what it takes; returns the rest."""
        peer = self._peer
        if peer.gone:
            self._break()
            return b""
        room = LINE_BYTES - peer._came_bytes
        if room >= len(raw):
            peer._take(raw)
            return b""
        if room > 0:
            peer._take(raw[:room])
            return raw[room:]
        return raw

    def _room(self) -> None:
        """The other end has read something, or has left."""
        while self._waiting and not self._lost:
            raw = self._waiting.popleft()
            rest = self._send(raw)
            self._waiting_bytes -= len(raw) - len(rest)
            if rest:
                self._waiting.appendleft(rest)
                break
        if self._held and self._waiting_bytes <= self._low:
            self._held = False
            self._call(self._protocol.resume_writing, "resume_writing")
        if not self._waiting:
            if self._closing and not self._lost:
                self._lose(None)
            elif self._said_end:
                self._peer._end()

    def write_eof(self) -> None:
        if self._closing or self._said_end:
            return
        self._said_end = True
        if not self._waiting:
            self._peer._end()

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes

    # ---- the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._waiting:
            self._lose(None)

    def abort(self) -> None:
        self._force(None)

    def _force(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._waiting.clear()
        self._waiting_bytes = 0
        self._closing = True
        self._lose(error)

    def _fatal(self, error: BaseException, where: str) -> None:
        if not isinstance(error, OSError):
            self._line.call_exception_handler(
                {
                    "message": f"Fatal error: protocol.{where}() call failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force(error)

    def _call(self, hook: Callable[[], object], where: str) -> None:
        try:
            hook()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._line.call_exception_handler(
                {"message": f"protocol.{where}() failed", "exception": error, "transport": self}
            )

    def _lose(self, error: BaseException | None) -> None:
        self._lost = True
        self._line.call_soon(self._leave, error)

    def _leave(self, error: BaseException | None) -> None:
        try:
            if self._made:
                self._protocol.connection_lost(error if isinstance(error, Exception) else None)
        finally:
            self.gone = True
            peer = self._peer
            if self.sock.resets or self._came:
                self._came.clear()
                self._came_bytes = 0
                peer._break()
            else:
                peer._end()
            peer._room()  # what waits there goes to someone who has left
            if self._server is not None:
                self._server.detach(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def __repr__(self) -> str:
        state = "closed" if self.gone else "closing" if self._closing else "open"
        return f"<PipeTransport {self.sock.name} to {self.sock.peer} {state}>"

    def __del__(self) -> None:
        if not self._lost and self._made and not sys.is_finalizing():
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self, stacklevel=2)


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        buffer = memoryview(protocol.get_buffer(len(rest)))
        count = min(len(buffer), len(rest))
        buffer[:count] = rest[:count]
        protocol.buffer_updated(count)
        rest = rest[count:]


def join(one: PipeTransport, other: PipeTransport) -> None:
    """Make them the two ends of one connection."""
    one.meet(other)
    other.meet(one)
