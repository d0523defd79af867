"""Serving a recording on loopback: the same bytes, with the same pauses at any speed.

`replay_of(recording, clock)` gives the server of its form; `async with` starts it. Nothing is sent before a client has
subscribed, and everything waits for the client: a frame that was handed to a connection is not taken back, so `out`
can be compared with what the client has received. What is not in the recording is not made up, but for the answers to
the commands of a client that is not the recorder, which count in `answers`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from aiohttp import WSMsgType, web

from pmkit.clock import Clock
from pmkit.endpoints import BinanceEndpoints, Endpoints, KalshiEndpoints, PolymarketEndpoints, Where
from pmkit.sim.replay.recording import Frame, Opening, Read, Recording
from pmkit.sim.replay.sessions import rows
from pmkit.sim.server import Server, SocketSession, Venue

FLUSH_SECONDS = 30.0
"""Wall seconds within which a client must have taken what it was sent."""
_YIELD_EVERY = 32


class Pace:
    """The recorded pauses, `speed` times as fast; no pauses at all when it is None."""

    def __init__(self, clock: Clock, speed: float | None) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"the speed of a replay must be above 0, not {speed!r}")
        self._clock = clock
        self._speed = speed
        self._begin: tuple[float, int] | None = None
        self._rows = 0

    def restart(self) -> None:
        """The next row is due at once, and the others after it: a client that connected late misses nothing."""
        self._begin = None

    async def until(self, at_ms: int) -> None:
        """Wait until a row recorded at that moment is due."""
        now = self._clock.io_monotonic()
        if self._begin is None:
            self._begin = now, at_ms
        wall, ms = self._begin
        if self._speed is not None:
            left = wall + (at_ms - ms) / 1000 / self._speed - now
            if left > 0:
                await self._clock.io_sleep(left)
                return
        self._rows += 1
        if self._rows % _YIELD_EVERY == 0:
            await self._clock.io_sleep(0)


class ReplaySession(SocketSession):
    """A connection to a replay. `subscribed`: the client has said what it wants."""

    autoping = False

    def __init__(self, replay: Replay, server: Server, request: web.Request) -> None:
        super().__init__(server, request)
        self.subscribed = False
        self._replay = replay
        self._pong = asyncio.Event()
        self._gone = False

    async def on_text(self, text: str) -> None:
        self._replay.heard(self, text)

    async def on_ping(self, data: bytes) -> None:
        with suppress(ConnectionError):
            await self.ws.pong(data)

    async def on_pong(self, data: bytes) -> None:
        self._pong.set()

    async def on_close(self) -> None:
        self._gone = True
        self._pong.set()
        self._replay.left(self)

    def reply(self, frame: str | bytes) -> None:
        """An answer that is not in the recording."""
        self._replay.answers += 1
        self._replay.out += 1
        self.send_control(frame)

    async def forward(self, data: bytes) -> bool:
        """Send one recorded frame as it is, when the client has room. False where the connection is gone."""
        if self._gone:
            return False
        try:
            await self.ws.send_frame(data, WSMsgType.TEXT)
        except ConnectionError:
            return False
        return True

    async def flush(self) -> None:
        """Wait until the client's library has read everything: its answer to a ping comes after it."""
        with suppress(TimeoutError):
            async with self.clock.io_timeout(FLUSH_SECONDS):
                while self.queued and not self._gone:
                    await self.clock.io_sleep(0.001)
                self._pong.clear()
                if not self._gone:
                    await self.ping(b"flush")
                    await self._pong.wait()


class Replay(Venue):
    """One recording behind one port. Counters: `sent` recorded frames, `out` all text frames, `answers` those of them
    that are not in the recording, `commands` of clients, `reads` that were offered.

    `on_read(read)`, where set, is awaited when a recorded REST answer is due, before anything later is sent: a client
    that asks then gets just that answer. `on_end()` likewise, before a recorded connection is ended. `go` holds a
    replay back after its first row until it is set (it is set unless cleared before). `finished` is set when the last
    row was sent and taken.
    """

    def __init__(self, recording: Recording, clock: Clock, speed: float | None = None) -> None:
        super().__init__(f"replay of {recording.path.name}", clock)
        self.recording = recording
        self.sent = self.out = self.answers = self.commands = self.reads = 0
        self.finished = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.on_read: Callable[[Read], Awaitable[None]] | None = None
        self.on_end: Callable[[], Awaitable[None]] | None = None
        self.pace = Pace(clock, speed)
        self.server = self.add_server(self.name, error_body=_error_body)
        self._session: ReplaySession | None = None
        self._ready = asyncio.Event()
        self.add_routes()

    @property
    def endpoints(self) -> Endpoints:
        """Addresses of this replay; whatever it does not serve answers 404."""
        rest, ws = self.server.url(), self.server.url(scheme="ws")
        return Endpoints(
            where=Where.LOCAL,
            binance=BinanceEndpoints(rest=(rest,), ws=(ws,), bulk=rest),
            polymarket=PolymarketEndpoints(
                clob=rest,
                gamma=rest,
                data=rest,
                market_ws=f"{ws}/ws/market",
                user_ws=f"{ws}/ws/user",
                live_ws=f"{ws}/ws",
                relayer=rest,
                rpc=rest,
                rpc_others=(),
            ),
            kalshi=KalshiEndpoints(rest=f"{rest}/trade-api/v2", ws=f"{ws}/trade-api/ws/v2"),
        )

    async def start(self) -> None:
        """Listen, and begin."""
        await super().start()
        self.spawn(self._play(), "player")

    # -- what a form adds ---------------------------------------------------------------------------------------------

    @abstractmethod
    def add_routes(self) -> None:
        """Its REST paths and its socket."""

    @abstractmethod
    def heard(self, session: ReplaySession, text: str) -> None:
        """A command of the client; call `subscribed` when it has said what it wants."""

    def opened(self, opening: Opening) -> None:
        """A recorded connection begins."""

    def remember(self, row: Frame | Read) -> None:
        """A row that is about to be sent or offered."""

    # -- connections --------------------------------------------------------------------------------------------------

    def subscribed(self, session: ReplaySession) -> None:
        """From now on this connection gets the frames."""
        session.subscribed = True
        self._session = session
        self._ready.set()

    def left(self, session: ReplaySession) -> None:
        """A connection is gone."""
        if session is self._session:
            self._session = None
            self._ready.clear()

    async def _client(self) -> ReplaySession:
        while self._session is None:
            await self._ready.wait()
        return self._session

    async def _hang_up(self) -> None:
        """End the connection as the recorder's ended, when everything on it was taken."""
        session = self._session
        if session is not None:
            await session.flush()
            if self.on_end is not None:
                await self.on_end()
            self.left(session)
            await session.close(1001, "the recorded connection ends")

    # -- rows ---------------------------------------------------------------------------------------------------------

    async def _play(self) -> None:
        begun = False
        for row in rows(self.recording):
            if isinstance(row, Opening):
                if begun:
                    # The old connection stays until the new one begins: how long the recorder's lasted is not recorded.
                    await self.pace.until(row.at_ms)
                    await self._hang_up()
                begun = True
                self.opened(row)
                await self._client()
                self.pace.restart()
            elif isinstance(row, Frame):
                await self.pace.until(row.at_ms)
                await self._send(row)
            elif isinstance(row, Read):
                if begun:
                    await self.pace.until(row.at_ms)
                await self._offer(row)
        await self.finish()

    async def finish(self) -> None:
        """Everything was sent: wait until it was taken."""
        if self._session is not None:
            await self._session.flush()
        self.finished.set()

    async def _send(self, frame: Frame) -> None:
        self.remember(frame)
        session = await self._client()
        self.sent += 1
        self.out += 1
        await session.forward(frame.data)  # where the connection is gone, the difference to `out` tells
        await self.go.wait()

    async def _offer(self, read: Read) -> None:
        self.remember(read)
        self.reads += 1
        if self.on_read is not None:
            if self._session is not None:
                await self._session.flush()
            await self.on_read(read)


def _error_body(status: int, text: str) -> object:
    return msgspec.Raw(text.encode()) if text.startswith("{") else {"error": text}


def command_of(text: str) -> dict[str, object]:
    """A JSON command of a client; empty for anything else."""
    try:
        command = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError):
        return {}
    return command if isinstance(command, dict) else {}
