"""Serving a recorded session to the clients that made it: the same answers to the same requests, each frame at its
recorded moment.

A request gets the answer that the same request got within five seconds of now (`Session.exchange`), at the moment at
which it came then; one that the recording does not have gets a 501 that says so. A client that connects gets the next
recorded connection of that address, and hears its frames; what the venue said after a command waits for that command. A
connection that the recording does not have is refused with 503; one that was lost here and not in the recording goes on
without what was missed. Where lines were lost, all connections are: a hole must not look like silence. All of it is
counted, in `Session.answers` and `SessionReplay.sockets`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from email.utils import formatdate
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints, Where
from pmkit.recording.lines import Close, Said
from pmkit.sim.replay.session import NS, Session, Socket, authority_of, key_of
from pmkit.sim.server import Refused, Server, SocketSession, Venue

if TYPE_CHECKING:
    from collections.abc import Iterator

AHEAD_SECONDS = 60.0
_READ_SECONDS = 20.0
COMMAND_SECONDS = 5.0
"""Wall seconds that frames wait for the command which they followed in the recording."""
_OWN_HEADERS = {"content-length", "transfer-encoding", "content-encoding"}


class SessionReplay(Venue):
    """One server per recorded host. `over` is set when the recorded bot began to stop, or when the recording ends.
    `sockets` counts frames sent, connections, and what did not come as recorded.
    """

    def __init__(self, session: Session, clock: Clock) -> None:
        super().__init__(f"replay of {session.path.name}", clock)
        self.session = session
        self.over = asyncio.Event()
        self.sockets: Counter[str] = Counter()
        self._hosts: dict[str, Server] = {}
        self._waiting: list[Playback] = []
        self._in_hole = 0
        for url in _urls(session.start.endpoints):
            if authority_of(url) not in self._hosts:
                self._add(authority_of(url))

    def _add(self, authority: str) -> None:
        server = self.add_server(authority, dated=False)

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._connect(server, authority, request)
            return await self._answer(authority, request)

        server.any("/{path:.*}", handle)
        self._hosts[authority] = server

    @property
    def endpoints(self) -> Endpoints:
        """The recorded endpoints, each host replaced by its server. Raises RuntimeError before `start`."""
        recorded = self.session.start.endpoints
        named = msgspec.to_builtins(recorded)
        for part in ("binance", "polymarket", "kalshi"):
            named[part] = {name: self._moved(value) for name, value in named[part].items()}
        return msgspec.convert({**named, "where": Where.LOCAL, "clock": "manual"}, Endpoints)

    def _moved(self, value: str | tuple[str, ...] | list[str]) -> str | list[str]:
        if not isinstance(value, str):
            return [str(self._moved(one)) for one in value]
        if not value:
            return value
        scheme, _, rest = value.partition("://")
        host, slash, path = rest.partition("/")
        server = self._hosts[host]
        return server.url(slash + path, "ws" if scheme.startswith("ws") else "http")

    async def start(self) -> None:
        await super().start()
        self._read()
        self.spawn(self._read_on(), "reader")

    def _now_ns(self) -> int:
        return self.clock.time_ns()

    def _market(self, wall_seconds: float) -> int:
        return round(wall_seconds * self.clock.factor * NS)

    def _read(self) -> None:
        known = len(self.session.holes)
        self.session.read_until(self._now_ns() + self._market(AHEAD_SECONDS), self._now_ns())
        for since_ns, until_ns, _ in self.session.holes[known:]:
            self.spawn(self._hole(since_ns, until_ns), "hole")

    async def _hole(self, since_ns: int, until_ns: int) -> None:
        """What was said in it is not known: nobody may take the silence for calm, so all connections are lost."""
        await self.until(since_ns)
        self._in_hole += 1
        for server in self.servers:
            for session in list(server.sessions):
                self.sockets["cut by a hole"] += 1
                session.abort()
        await self.until(until_ns)
        self._in_hole -= 1

    async def until(self, moment_ns: int) -> None:
        """Sleep until that moment of the recording."""
        while (left := moment_ns - self._now_ns()) > 0:
            await self.clock.sleep(left / NS)

    async def _read_on(self) -> None:
        """Stay ahead of the moment, and tell when it is over."""
        session = self.session
        while not session.over and not session.stopping_ns:
            await self.clock.io_sleep(_READ_SECONDS)
            self._read()
        await self.until(session.stopping_ns or session.last_ns)
        self.over.set()
        while not session.over:
            await self.clock.io_sleep(_READ_SECONDS)
            self._read()

    # -- requests -------------------------------------------------------------------------------------------------

    async def _answer(self, authority: str, request: web.Request) -> web.StreamResponse:
        key, moments = key_of(authority, request.method, request.raw_path, await request.read())
        found = self.session.exchange(key, moments, self._now_ns())
        if found is None:
            what = f"{request.method} {authority}{request.path}"
            raise Refused(501, f"the recording has no answer to {what} at this time", self._date())
        await self.until(found.done_ns)
        if found.answer is None:
            self.session.answers["failed as recorded"] += 1
            self._cut(request)
            return web.Response(status=500)
        headers = {name: value for name, value in found.answer.headers.items() if name not in _OWN_HEADERS}
        headers = headers if "date" in headers else headers | self._date()
        return web.Response(body=found.answer.data, status=found.answer.status, headers=headers)

    def _date(self) -> dict[str, str]:
        # Without one aiohttp would add the wall's, and the client would take the venue's clock to be there.
        return {"Date": formatdate(self.clock.now_ms() // 1000, usegmt=True)}

    @staticmethod
    def _cut(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()

    # -- sockets --------------------------------------------------------------------------------------------------

    async def _connect(self, server: Server, authority: str, request: web.Request) -> web.StreamResponse:
        if self._in_hole:
            raise Refused(503, "the recording has a hole here", self._date())
        socket = self.session.connection(authority, request.path, self._now_ns())
        if socket is None and (socket := self.session.left(authority, request.path)) is not None:
            # Unlike the recorded client this one lost its connection: it hears what is still to come.
            self.sockets["resumed"] += 1
            return await Playback(self, server, request, socket, resumed=True).serve()
        if socket is None:
            self.sockets["not recorded"] += 1
            raise Refused(503, "the recording has no connection to this address at this time", self._date())
        if socket.failed is not None:
            await self.until(socket.failed.at_ns)
            self.sockets["failed as recorded"] += 1
            if not socket.failed.status:
                self._cut(request)
            return web.Response(status=socket.failed.status or 500, text=socket.failed.reason)
        await self.until(socket.open_ns)
        self.sockets["connections"] += 1
        return await Playback(self, server, request, socket).serve()

    def settle(self, one: Playback, text: str) -> None:
        """Two clients of the same address that connected at the same time are told apart by their first command."""
        if one.socket.first_said == text:
            return
        for other in self._waiting:
            if other is not one and other.socket.path == one.socket.path and other.socket.first_said == text:
                one.socket, other.socket = other.socket, one.socket
                return

    def waits(self, one: Playback) -> None:
        self._waiting.append(one)

    def waits_no_more(self, one: Playback) -> None:
        if one in self._waiting:
            self._waiting.remove(one)


class Playback(SocketSession):
    """One connection, played to a client."""

    def __init__(
        self, replay: SessionReplay, server: Server, request: web.Request, socket: Socket, resumed: bool = False
    ) -> None:
        super().__init__(server, request)
        self._resumed = resumed
        self.socket = socket
        self._replay = replay
        self._said = 0
        self._heard_more = asyncio.Event()

    async def on_open(self) -> None:
        self._replay.waits(self)
        self.spawn(self._play())

    async def on_text(self, text: str) -> None:
        if not self._said:
            self._replay.settle(self, text)
            self._replay.waits_no_more(self)
        self._said += 1
        self._heard_more.set()

    async def on_close(self) -> None:
        self.socket.playing = False
        self._replay.waits_no_more(self)

    async def _play(self) -> None:
        counts, said = self._replay.sockets, 0
        while True:
            if not self.socket.events:
                if self.socket.complete:
                    return
                self.socket.more.clear()
                await self.socket.more.wait()
            event = self.socket.events[0]
            if self._resumed and event.at_ns < self.clock.time_ns():
                counts["missed frames"] += not isinstance(event, Said)
            elif isinstance(event, Said):
                said += not self._resumed
                if not await self._command(said, event.at_ns):
                    counts["commands that did not come"] += 1
                    said = self._said
            else:
                await self._replay.until(event.at_ns)
                if isinstance(event, Close):
                    await self._end(event)
                elif event.private:
                    counts["private frames"] += 1
                else:
                    self.send_control(event.data)
                    counts["frames"] += 1
            self.socket.events.popleft()

    async def _command(self, number: int, at_ns: int) -> bool:
        """Wait for the client's command of that number; not for ever, and not before its time."""
        await self._replay.until(at_ns)
        if self._said >= number:
            return True
        try:
            async with self.clock.io_timeout(COMMAND_SECONDS):
                while self._said < number:
                    self._heard_more.clear()
                    await self._heard_more.wait()
        except TimeoutError:
            return False
        return True

    async def _end(self, event: Close) -> None:
        if event.by == "us":
            return  # so will this client, for the same reason
        self._replay.sockets["closed as recorded"] += 1
        if event.code == 1006:
            self.abort()
        else:
            await self.close(event.code, event.reason)


def _urls(endpoints: Endpoints) -> Iterator[str]:
    for part in (endpoints.binance, endpoints.polymarket, endpoints.kalshi):
        for value in msgspec.to_builtins(part).values():
            yield from filter(None, [value] if isinstance(value, str) else value)
