"""The local Binance: REST, bulk files and market streams."""

from __future__ import annotations

from pathlib import Path

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.endpoints import BinanceEndpoints
from pmkit.errors import ConfigError
from pmkit.sim.binance.bulk import Bulk
from pmkit.sim.binance.candles import CandleMaker
from pmkit.sim.binance.faults import BinanceFaults
from pmkit.sim.binance.history import History
from pmkit.sim.binance.intervals import LENGTHS, floor_open, step
from pmkit.sim.binance.limits import Limits
from pmkit.sim.binance.recorded import RecordedDay, read_day
from pmkit.sim.binance.refusals import error_body
from pmkit.sim.binance.rest import Rest
from pmkit.sim.binance.rows import candle_absent, shown
from pmkit.sim.binance.streams import Streams, StreamSession
from pmkit.sim.binance.symbols import make_symbol
from pmkit.sim.server import Server, SocketSession, Venue
from pmkit.sim.world import World

# "1000 ms for 1s, 2000 ms for the other intervals"
_SLOW_SECONDS = 2
# A process that slept longer than this goes on with the present; the frames between never come. The larger of both:
# at a high clock factor a market minute is no sleep but a breath.
_LONGEST_BACKLOG = 60  # market seconds
_LONGEST_BACKLOG_WALL = 5  # wall seconds


class BinanceVenue(Venue):
    """Klines of `{asset}USDT` for every asset of the World, recorded days where they are loaded.

    Everything it can be made to do: `pmkit.sim.binance.faults`. `hosts` is on how many ports REST and sockets are
    served (one budget for all, as at the real venue); `port` is the first one's, which has the bulk files as well.
    """

    faults: BinanceFaults

    def __init__(self, world: World, clock: Clock, port: int = 0, hosts: int = 1) -> None:
        super().__init__("binance", clock)
        if hosts < 1:
            raise ConfigError(f"the local Binance needs at least one host, not {hosts}")
        self.world = world
        symbols = [make_symbol(asset) for asset in world.assets]
        self.histories = {symbol.name: History(symbol) for symbol in symbols}
        self.makers = {symbol.name: CandleMaker(world, symbol, self.histories[symbol.name]) for symbol in symbols}
        self.faults = BinanceFaults(clock, world, self.histories)
        self.limits = Limits(clock)
        self.streams = Streams(frozenset(self.makers))
        self.rest = Rest(self.makers, clock, self.limits, self.faults)
        self.bulk = Bulk(self.makers, world, clock, self.faults)
        for host in range(hosts):
            name = f"binance-{host + 1}" if host else "binance"
            server = self.add_server(name, 0 if host else port, error_body=error_body)
            self.rest.add_routes(server, host)
            for path in ("/ws", "/ws/{streams:.*}", "/stream"):
                server.socket(path, self._session)
        self.server = self.servers[0]
        self.bulk.add_routes(self.server)
        # The forming candle last sent, by stream: a market without trades sends nothing.
        self._sent: dict[str, tuple[int, int]] = {}

    def load_day(self, path: str | Path) -> RecordedDay:
        """Serve a real day of 1s candles (a daily bulk file) in the place of the made one, in all three ways.

        Over REST and on the sockets its rows, as a bulk file its bytes; longer candles are the sums of its seconds.
        Takes a quarter of a second: with a running loop call `read_day` in a thread and `add_day` with its result.
        Raises ConfigError for a file that is none, or of a symbol that is not served.
        """
        day = read_day(path)
        self.add_day(day)
        return day

    def add_day(self, day: RecordedDay) -> None:
        """Serve a day that `read_day` read. Raises ConfigError for a symbol that is not served."""
        if day.symbol not in self.makers:
            raise ConfigError(f"the local Binance has no {day.symbol}; it has {', '.join(self.makers)}")
        day.first_id = self.makers[day.symbol].first_id(day.first_second)
        self.histories[day.symbol].add_day(day)

    def _session(self, server: Server, request: web.Request) -> SocketSession:
        self.limits.connect(request.remote or "")
        return StreamSession(server, request, self.streams)

    def endpoints(self) -> BinanceEndpoints:
        """Where this venue is."""
        return BinanceEndpoints(
            rest=tuple(server.url() for server in self.servers),
            ws=tuple(server.url(scheme="ws") for server in self.servers),
            bulk=self.server.url(),
        )

    async def start(self) -> None:
        await super().start()
        self.spawn(self._pump(), "klines")

    async def close(self) -> None:
        await self.bulk.close()
        await super().close()

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
        backlog_ms = 1000 * max(_LONGEST_BACKLOG, _LONGEST_BACKLOG_WALL * self.clock.factor)
        while True:
            delay = 2 + self.world.bits("binance", "delay", second) % 42  # E is 1-44 ms after T [obs]
            due = second * 1000 + delay
            wait = due - self.clock.now_ms()
            if wait > 0:
                await self.clock.sleep(wait / 1000)
            elif -wait > backlog_ms:
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
            maker = self.makers[symbol]
            if candle_absent(maker.history, interval, opened, moment) is not None:
                continue
            made = (await maker.candles(interval, [opened], moment, self.clock))[0]
            candle = shown(maker.history, interval, made)
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
