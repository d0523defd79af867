"""What goes over the sockets between a client and the local Kalshi: every request, answer and frame, as bytes.

The tap sits where the venue's connections are accepted, below aiohttp: no client can reach the venue around it, and it
changes nothing. Bytes are read with h11 and the frame parser of `websockets`, which the venue does not use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h11
import pytest
from aiohttp.web_protocol import RequestHandler
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from pmkit.sim.faults import Faults, frame_of
from pmkit.sim.kalshi.venue import KalshiVenue


@dataclass
class Exchange:
    """One request and its answer. `status` is 0 where the connection ended without one."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""
    complete: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Frame:
    """One message of a socket. `sent` by the client, else told by the venue; `kind` is text, ping, pong or close."""

    connection: int
    sent: bool
    kind: str
    data: bytes


@dataclass
class Record:
    """Everything that went by, in order, and what tests had the venue say out of turn."""

    exchanges: list[Exchange] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    connections: int = 0
    unread: list[str] = field(default_factory=list)
    scripted: set[tuple[int, bytes]] = field(default_factory=set)
    garbage: set[bytes] = field(default_factory=set)


class _Messages:
    """One direction of a socket after its handshake."""

    def __init__(self, record: Record, connection: int, *, sent: bool, compressed: bool) -> None:
        self._record, self._connection, self._sent = record, connection, sent
        self._extensions = [PerMessageDeflate(False, False, 15, 15)] if compressed else []
        self._reader = StreamReader()
        self._parts: list[bytes] = []
        self._kind = ""
        self._parsing = self._parse()
        next(self._parsing)

    def feed(self, data: bytes) -> None:
        self._reader.feed_data(data)
        next(self._parsing)

    def _parse(self) -> Generator[None, None, None]:
        while True:
            yield from self._at_least_a_byte()
            frame = yield from WireFrame.parse(
                self._reader.read_exact, mask=self._sent, extensions=self._extensions or None
            )
            self._take(frame)

    def _at_least_a_byte(self) -> Generator[None, None, None]:
        while not self._reader.buffer:
            yield

    def _take(self, frame: WireFrame) -> None:
        if frame.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            self._keep(frame.opcode.name.lower(), bytes(frame.data))
            return
        if frame.opcode is not Opcode.CONT:
            self._kind = frame.opcode.name.lower()
        self._parts.append(bytes(frame.data))
        if frame.fin:
            self._keep(self._kind, b"".join(self._parts))
            self._parts.clear()

    def _keep(self, kind: str, data: bytes) -> None:
        self._record.frames.append(Frame(self._connection, self._sent, kind, data))


class _Connection:
    """One connection: requests in turn, then perhaps a socket."""

    def __init__(self, record: Record) -> None:
        record.connections += 1
        self._record, self._number = record, record.connections
        self._inward = h11.Connection(h11.SERVER)
        self._outward = h11.Connection(h11.CLIENT)
        self._now: Exchange | None = None
        self._early = b""
        self._messages: tuple[_Messages, _Messages] | None = None

    def sent(self, data: bytes) -> None:
        self._guarded(self._read_sent, data)

    def told(self, data: bytes) -> None:
        self._guarded(self._read_told, data)

    def _guarded(self, read: Any, data: bytes) -> None:
        try:
            read(data)
        except Exception as error:  # a tap that fails must not change what it watches, nor go unnoticed
            self._record.unread.append(f"{type(error).__name__}: {error}: {data[:200]!r}")

    def _read_sent(self, data: bytes) -> None:
        if self._messages is not None:
            self._messages[0].feed(data)
            return
        if self._inward.their_state is h11.SWITCHED_PROTOCOL or self._inward.their_state is h11.MIGHT_SWITCH_PROTOCOL:
            self._early += data
            return
        self._inward.receive_data(data)
        self._requests()

    def _requests(self) -> None:
        while True:
            event = self._inward.next_event()
            if isinstance(event, h11.Request):
                self._now = Exchange(event.method.decode(), event.target.decode(), _headers(event.headers))
                self._record.exchanges.append(self._now)
                self._outward.send(event)
            elif isinstance(event, h11.Data):
                assert self._now is not None
                self._now.body += bytes(event.data)
                self._outward.send(event)
            elif isinstance(event, h11.EndOfMessage):
                self._outward.send(event)
            else:
                return

    def _read_told(self, data: bytes) -> None:
        if self._messages is not None:
            self._messages[1].feed(data)
            return
        self._outward.receive_data(data)
        while True:
            event = self._outward.next_event()
            if not isinstance(event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage):
                return
            assert self._now is not None
            if isinstance(event, h11.InformationalResponse | h11.Response):
                self._now.status, self._now.answer_headers = event.status_code, _headers(event.headers)
                if event.status_code == 100:
                    continue
            elif isinstance(event, h11.Data):
                self._now.answer += bytes(event.data)
            self._inward.send(event)
            if isinstance(event, h11.InformationalResponse):
                self._switch()
                return
            if isinstance(event, h11.EndOfMessage):
                self._now.complete = True
                self._again()

    def _again(self) -> None:
        if self._inward.our_state is h11.MUST_CLOSE or self._outward.their_state is h11.MUST_CLOSE:
            return
        if self._inward.their_state is not h11.DONE:
            return  # answered before the whole request was there
        self._inward.start_next_cycle()
        self._outward.start_next_cycle()
        self._requests()

    def _switch(self) -> None:
        assert self._now is not None
        self._now.complete = True
        deflate = "permessage-deflate" in self._now.answer_headers.get("sec-websocket-extensions", "")
        self._messages = (
            _Messages(self._record, self._number, sent=True, compressed=deflate),
            _Messages(self._record, self._number, sent=False, compressed=deflate),
        )
        for direction, data in zip(
            self._messages, (self._inward.trailing_data[0] + self._early, self._outward.trailing_data[0]), strict=True
        ):
            if data:
                direction.feed(bytes(data))


def _headers(pairs: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


class _Watched:
    """A transport whose writes are seen."""

    def __init__(self, transport: asyncio.Transport, connection: _Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._connection.told(bytes(data))
        self._transport.write(data)

    def writelines(self, lines: Any) -> None:
        self.write(b"".join(lines))


@contextmanager
def tapped() -> Iterator[Record]:
    """Record all traffic of every KalshiVenue that starts inside."""
    record = Record()
    servers: list[Any] = []
    connections: dict[Any, _Connection] = {}
    start, made, received, lost = (
        KalshiVenue.start, RequestHandler.connection_made, RequestHandler.data_received, RequestHandler.connection_lost
    )  # fmt: skip
    status, garbage = Faults.http_status, Faults.garbage

    async def started(self: KalshiVenue) -> None:
        await start(self)
        runner = self.server._runner
        assert runner is not None
        servers.append(runner.server)

    def connection_made(self: Any, transport: Any) -> None:
        if self._manager in servers:
            connections[self] = connection = _Connection(record)
            transport = _Watched(transport, connection)
        made(self, cast(asyncio.BaseTransport, transport))

    def data_received(self: Any, data: bytes) -> None:
        if data and (connection := connections.get(self)) is not None:
            connection.sent(data)
        received(self, data)

    def connection_lost(self: Any, error: BaseException | None) -> None:
        connections.pop(self, None)
        lost(self, error)

    def http_status(
        self: Faults, path_pattern: str, code: int, body: str | bytes = b"", times: int | None = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        record.scripted.add((code, body.encode() if isinstance(body, str) else body))
        status(self, path_pattern, code, body, times, headers)

    def say(self: Faults, frame: str | bytes) -> int:
        record.garbage.add(frame_of(frame))
        return garbage(self, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KalshiVenue, "start", started)
        patch.setattr(RequestHandler, "connection_made", connection_made)
        patch.setattr(RequestHandler, "data_received", data_received)
        patch.setattr(RequestHandler, "connection_lost", connection_lost)
        patch.setattr(Faults, "http_status", http_status)
        patch.setattr(Faults, "garbage", say)
        yield record
