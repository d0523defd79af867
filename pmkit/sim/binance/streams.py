"""The sockets: raw `/ws/<stream>`, combined `/stream?streams=`, live subscribing (SPOT/web-socket-streams.md).

Only kline streams are built. Another documented stream of a symbol that is served is refused by name; an unknown symbol
or an upper-case name is accepted and stays silent for ever, as at the real venue.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import msgspec
from aiohttp import web

from pmkit.sim.binance.intervals import LENGTHS
from pmkit.sim.binance.refusals import refuse
from pmkit.sim.ordered import OrderedSet
from pmkit.sim.server import Server, SocketSession

MAX_STREAMS = 1_024
MAX_MESSAGES = 5  # incoming, per wall second; PING and PONG frames count
LONGEST_REQUEST = 4_096  # bytes; what is longer was ignored without an answer [obs]
PING_SECONDS = 20.0  # wall
PONG_SECONDS = 60.0  # wall
LIFETIME_SECONDS = 24 * 3600.0  # market
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_NOT_BUILT = re.compile(
    r"(trade|aggTrade|bookTicker|miniTicker|ticker(_\w+)?|avgPrice|depth(\d+)?(@\d+ms)?|kline_\w+@[+-].*|blockTrade)"
)


class _Bad(Exception):
    """A request over the socket that is answered with an error."""

    def __init__(self, code: int, msg: str) -> None:
        self.code = code
        self.msg = msg
        super().__init__(msg)


def split_stream(name: str) -> tuple[str, str] | None:
    """Symbol (upper case) and interval of a kline stream; None for any other name."""
    symbol, _, kind = name.partition("@")
    interval = kind.removeprefix("kline_")
    if symbol != symbol.lower() or interval == kind or interval not in LENGTHS:
        return None
    return symbol.upper(), interval


class Streams:
    """Who listens to what. `built` tells whether a stream name has data here."""

    def __init__(self, symbols: frozenset[str]) -> None:
        self.sessions: OrderedSet[StreamSession] = OrderedSet()
        self._symbols = symbols

    def kline(self, name: str) -> tuple[str, str] | None:
        """Symbol and interval of a stream that has data here."""
        found = split_stream(name)
        return found if found and found[0] in self._symbols else None

    def refusal(self, name: str) -> str | None:
        """Why a stream is not served although the real venue has it."""
        symbol, _, kind = name.partition("@")
        if name.startswith("!") or (symbol.upper() in self._symbols and _NOT_BUILT.fullmatch(kind)):
            return f"the stream {name} is not built in this local venue; it has klines only"
        return None

    def listeners(self) -> dict[str, list[StreamSession]]:
        """The sessions of every stream that has data."""
        wanted: dict[str, list[StreamSession]] = {}
        for session in self.sessions:
            for name in session.streams:
                if self.kline(name):
                    wanted.setdefault(name, []).append(session)
        return wanted


class StreamSession(SocketSession):
    """One connection. `streams` is what it listens to, in order; `combined` whether payloads are wrapped."""

    autoping = False

    def __init__(self, server: Server, request: web.Request, streams: Streams) -> None:
        super().__init__(server, request)
        self._all = streams
        self.combined = request.path.startswith("/stream")
        unit = request.query.get("timeUnit", "MILLISECOND").upper()
        if unit not in ("MILLISECOND", "MICROSECOND"):
            raise refuse(400, -1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
        self.scale = 1000 if unit == "MICROSECOND" else 1
        text = request.query.get("streams", "") if self.combined else request.match_info.get("streams", "")
        self.streams: dict[str, None] = dict.fromkeys(name for name in text.split("/") if name)
        if len(self.streams) > MAX_STREAMS:
            raise refuse(400, -1101, f"Too many streams; a connection has at most {MAX_STREAMS}.")
        for name in self.streams:
            if refusal := streams.refusal(name):
                raise refuse(400, -1020, refusal)
        self._incoming: deque[float] = deque()
        self._unanswered: dict[bytes, float] = {}

    async def on_open(self) -> None:
        self._all.sessions.add(self)
        self.spawn(self._ping())
        self.spawn(self._end())

    async def on_close(self) -> None:
        self._all.sessions.discard(self)

    async def _ping(self) -> None:
        while True:
            await self.clock.io_sleep(PING_SECONDS)
            now = self.clock.io_monotonic()
            if any(sent < now - PONG_SECONDS for sent in self._unanswered.values()):
                self.server.counts["no_pong"] += 1
                await self.close(1008, "Pong timeout")
                return
            payload = str(self.clock.now_ms()).encode()
            self._unanswered[payload] = now
            await self.ping(payload)

    async def _end(self) -> None:
        await self.clock.sleep(LIFETIME_SECONDS)
        self.server.counts["aged"] += 1
        await self.close(1001, "24 hours are over")

    def _count(self) -> bool:
        """Whether one more incoming message is within the limit; else the connection is told to go."""
        now = self.clock.io_monotonic()
        while self._incoming and self._incoming[0] <= now - 1.0:
            self._incoming.popleft()
        self._incoming.append(now)
        return len(self._incoming) <= MAX_MESSAGES

    async def _enough(self) -> None:
        self.server.counts["too_many_messages"] += 1
        await self.close(1008, "Too many requests")

    async def on_ping(self, data: bytes) -> None:
        if not self._count():
            await self._enough()
            return
        await self.ws.pong(data)

    async def on_pong(self, data: bytes) -> None:
        if not self._count():
            await self._enough()
            return
        # A pong answers the ping it copies; an unsolicited one keeps nothing alive.
        if self._unanswered.pop(data, None) is not None:
            self._unanswered.clear()

    async def on_text(self, text: str) -> None:
        if not self._count():
            await self._enough()
            return
        if len(text.encode()) > LONGEST_REQUEST:
            self.server.counts["ignored_requests"] += 1
            return
        self.send_control(msgspec.json.encode(self._reply(text)))

    def _reply(self, text: str) -> dict[str, object]:
        request_id: object = None
        try:
            try:
                request = msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise _Bad(3, "Invalid JSON: expected value at line 1 column 1") from None
            if not isinstance(request, dict):
                raise _Bad(2, "Invalid request: expected an object")
            request_id = _request_id(request.get("id"))
            return {"result": self._do(request), "id": request_id}
        except _Bad as bad:
            return {"code": bad.code, "msg": bad.msg, "id": request_id}

    def _do(self, request: dict[str, object]) -> object:
        if unknown := set(request) - {"method", "params", "id"}:
            raise _Bad(2, f"Invalid request: unknown field `{min(unknown)}`")
        if "method" not in request:
            raise _Bad(
                2, f"Invalid request: missing field `method` at line 1 column {len(msgspec.json.encode(request))}"
            )
        method = request["method"]
        if method not in _METHODS:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            raise _Bad(2, f"Invalid request: unknown variant `{method}`, expected one of {names} at line 1 column 1")
        params = request.get("params", [])
        if not isinstance(params, list):
            raise _Bad(2, "Invalid request: params must be an array")
        action: dict[str, Callable[[list[object]], object]] = {
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "LIST_SUBSCRIPTIONS": self._list,
            "SET_PROPERTY": self._set_property,
            "GET_PROPERTY": self._get_property,
        }
        return action[str(method)](params)

    def _subscribe(self, params: list[object]) -> object:
        names = _names(params)
        for name in names:
            if refusal := self._all.refusal(name):
                raise _Bad(2, f"Invalid request: {refusal}")
        if len(self.streams.keys() | set(names)) > MAX_STREAMS:
            raise _Bad(2, f"Invalid request: a connection has at most {MAX_STREAMS} streams")
        self.streams.update(dict.fromkeys(names))
        return None

    def _unsubscribe(self, params: list[object]) -> object:
        for name in _names(params):
            self.streams.pop(name, None)
        return None

    def _list(self, params: list[object]) -> object:
        if params:
            raise _Bad(2, "Invalid request: too many parameters")
        return list(self.streams)

    def _set_property(self, params: list[object]) -> object:
        if len(params) > 2:
            raise _Bad(2, "Invalid request: too many parameters")
        self._property(params)
        if len(params) < 2 or not isinstance(params[1], bool):
            raise _Bad(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return None

    def _get_property(self, params: list[object]) -> object:
        if len(params) > 1:
            raise _Bad(2, "Invalid request: too many parameters")
        self._property(params)
        return self.combined

    def _property(self, params: list[object]) -> None:
        if not params or not isinstance(params[0], str):
            raise _Bad(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Bad(0, "Unknown property")


def _names(params: list[object]) -> list[str]:
    names = [name for name in params if isinstance(name, str)]
    if not names or len(names) != len(params):
        raise _Bad(2, "Invalid request: params must name streams")
    return names


def _request_id(value: object) -> object:
    """An int64, a text of at most 36 characters or null."""
    whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if value is None or whole or (isinstance(value, str) and len(value) <= 36):
        return value
    raise _Bad(2, "Invalid request: request ID must be an unsigned integer")
