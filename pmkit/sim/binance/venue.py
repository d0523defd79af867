"""The local Binance on one port: REST and market streams."""

from __future__ import annotations

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.endpoints import BinanceEndpoints
from pmkit.sim.binance.candles import CandleMaker, make_symbol
from pmkit.sim.binance.intervals import LENGTHS, floor_open, step
from pmkit.sim.binance.limits import Limits, error_body
from pmkit.sim.binance.rest import Rest
from pmkit.sim.binance.streams import Streams, StreamSession
from pmkit.sim.server import Server, SocketSession, Venue
from pmkit.sim.world import World

# "1000 ms for 1s, 2000 ms for the other intervals"
_SLOW_SECONDS = 2
# A process that slept longer than this (market seconds) goes on with the present; the frames between never come.
_LONGEST_BACKLOG = 60


class BinanceVenue(Venue):
    """Klines of `{asset}USDT` for every asset of the World.

    Beside `faults`: `server_shutdown`, `rest.lag_ms`, `limits.limit`.
    """

    def __init__(self, world: World, clock: Clock, port: int = 0) -> None:
        super().__init__("binance", clock)
        self.world = world
        self.makers = {
            symbol.name: CandleMaker(world, symbol) for symbol in (make_symbol(asset) for asset in world.assets)
        }
        self.limits = Limits(clock)
        self.streams = Streams(frozenset(self.makers))
        self.server = self.add_server("binance", port, error_body=error_body)
        self.rest = Rest(self.makers, clock, self.limits)
        self.rest.add_routes(self.server)
        for path in ("/ws", "/ws/{streams:.*}", "/stream"):
            self.server.socket(path, self._session)
        # The forming candle last sent, by stream: a market without trades sends nothing.
        self._sent: dict[str, tuple[int, int]] = {}

    def _session(self, server: Server, request: web.Request) -> SocketSession:
        self.limits.connect(request.remote or "")
        return StreamSession(server, request, self.streams)

    def endpoints(self) -> BinanceEndpoints:
        """Where this venue is. The bulk files are not served yet: their address answers 404."""
        return BinanceEndpoints(rest=(self.server.url(),), ws=(self.server.url(scheme="ws"),), bulk=self.server.url())

    async def start(self) -> None:
        await super().start()
        self.spawn(self._pump(), "klines")

    def server_shutdown(self) -> int:
        """Announce `serverShutdown` to every connection, as before a real one goes away. Returns how many were told."""
        for session in list(self.streams.sessions):
            event = {"e": "serverShutdown", "E": self.clock.now_ms() * session.scale}
            session.send_control(
                msgspec.json.encode({"stream": "!serverShutdown", "data": event} if session.combined else event)
            )
        return len(self.streams.sessions)

    async def _pump(self) -> None:
        """Once per market second: the second that just ended, and every other second the larger candles."""
        second = self.clock.now_ms() // 1000 + 1
        while True:
            delay = 2 + self.world.bits("binance", "delay", second) % 42  # E is 1-44 ms after T [obs]
            due = second * 1000 + delay
            wait = due - self.clock.now_ms()
            if wait > 0:
                await self.clock.sleep(wait / 1000)
            elif -wait > _LONGEST_BACKLOG * 1000:
                second = self.clock.now_ms() // 1000
                self.server.counts["slept"] += 1
            else:
                await self._emit(second, due)
                second += 1

    async def _emit(self, second: int, event_ms: int) -> None:
        for name, sessions in self.streams.listeners().items():
            found = self.streams.kline(name)
            assert found is not None
            symbol, interval = found
            moment = second * 1000
            opened = floor_open(interval, moment - 1)
            if LENGTHS[interval] != 1000:
                if second % _SLOW_SECONDS:
                    continue
                if step(interval, opened, 1) != moment:
                    opened = floor_open(interval, moment)
            candle = (await self.makers[symbol].candles(interval, [opened], moment, self.clock))[0]
            state = (candle.open_ms, candle.trades)
            if not candle.closed and (candle.trades == 0 or self._sent.get(name) == state):
                continue
            self._sent[name] = state
            frames: dict[tuple[bool, int], bytes] = {}
            for session in sessions:
                form = (session.combined, session.scale)
                if form not in frames:
                    event = {
                        "e": "kline",
                        "E": event_ms * session.scale,
                        "s": symbol,
                        "k": candle.frame(symbol, interval, session.scale),
                    }
                    frames[form] = msgspec.json.encode({"stream": name, "data": event} if session.combined else event)
                session.send_data(frames[form])
