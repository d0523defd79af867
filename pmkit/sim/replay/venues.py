"""The replays of the three venues: their paths, and how they answer the commands of a client."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.errors import ConfigError
from pmkit.sim.binance.refusals import refuse
from pmkit.sim.kalshi.auth import Keys, VenueKey
from pmkit.sim.replay.recording import CandleRow, Form, Frame, Opening, Read, Recording
from pmkit.sim.replay.server import Replay, ReplaySession, command_of
from pmkit.sim.replay.sessions import rows
from pmkit.sim.server import Refused, Server, answer

WARM_UP = 600
"""Candles at the start of a file that only REST has: a client warms up with them. A tenth of shorter files."""
HISTORY = 10_000
"""Rows that REST can still answer with."""
_KLINES_DEFAULT = 500
_KLINES_MAX = 1_000
_FIRST_OWN_SID = 1_000


class PolymarketReplay(Replay):
    """Market channel and the CLOB's books. GET /book and POST /books answer with the last whole book in the recording
    up to now, also one from the socket.
    """

    def add_routes(self) -> None:
        self._latest: dict[str, bytes] = {}
        self.server.get("/book", self._book)
        self.server.post("/books", self._books)
        self.server.socket("/ws/market", partial(ReplaySession, self))

    def heard(self, session: ReplaySession, text: str) -> None:
        if text == "PING":
            session.reply("PONG")
            return
        self.commands += 1
        command = command_of(text)
        if command.get("type") == "market" and command.get("assets_ids") and not session.subscribed:
            self.subscribed(session)

    def remember(self, row: Frame | Read) -> None:
        if isinstance(row, Read):
            self._latest[row.key] = row.data
        elif row.data.startswith(b"["):
            for item in _items(row.data):
                book = command_of(item.decode())
                if book.get("event_type") == "book":
                    self._latest[str(book.get("asset_id"))] = item

    async def _book(self, request: web.Request) -> web.Response:
        book = self._latest.get(request.query.get("token_id", ""))
        if book is None:
            raise Refused(404, "No orderbook exists for the requested token id")
        return answer(book)

    async def _books(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=list[dict[str, str]])
        except (msgspec.DecodeError, ValueError):
            raise Refused(400, "Invalid payload") from None
        found = [self._latest.get(one.get("token_id", "")) for one in wanted]
        return answer(b"[" + b",".join(book for book in found if book is not None) + b"]")


def _items(data: bytes) -> list[bytes]:
    try:
        return [bytes(item) for item in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, ValueError):
        return []


class KalshiReplay(Replay):
    """Kalshi's socket. `key` opens it; handshakes are checked.

    The recorder's own replies are part of the recording, with its command ids, and are sent like the rest since they
    count in the sequence. The client has other ids: its commands are answered beside them, without a number. A snapshot
    that is asked for is acknowledged, and comes when the recording has one: a made-up one would break the numbers.
    """

    def add_routes(self) -> None:
        self._keys = Keys(self.clock)
        self.key: VenueKey = self._keys.make()
        self._sid = 0
        self._tickers: set[str] = set()
        self.server.socket("/trade-api/ws/v2", self._connect)

    def _connect(self, server: Server, request: web.Request) -> ReplaySession:
        self._keys.check("GET", request.path, request.headers)
        return ReplaySession(self, server, request)

    def opened(self, opening: Opening) -> None:
        self._sid = opening.sid
        self._tickers.clear()

    def heard(self, session: ReplaySession, text: str) -> None:
        self.commands += 1
        command = command_of(text)
        params: Any = command.get("params") or {}
        if not isinstance(params, dict):
            return
        tickers = params.get("market_tickers") or ()
        number = command.get("id")
        if command.get("cmd") == "subscribe":
            for place, channel in enumerate(params.get("channels") or ()):
                sid = self._sid if channel == "orderbook_delta" and self._sid else _FIRST_OWN_SID + place
                _reply(session, {"id": number, "type": "subscribed", "msg": {"channel": channel, "sid": sid}})
            self._tickers.update(tickers)
            self.subscribed(session)
        elif command.get("cmd") == "update_subscription":
            action = params.get("action")
            if action == "delete_markets":
                self._tickers.difference_update(tickers)
            elif action == "add_markets":
                self._tickers.update(tickers)
            listed = {} if action == "get_snapshot" else {"msg": {"market_tickers": sorted(self._tickers)}}
            for sid in params.get("sids") or ():
                _reply(session, {"id": number, "type": "ok", "sid": sid, **listed})
        elif command.get("cmd") == "unsubscribe":
            for sid in params.get("sids") or ():
                _reply(session, {"id": number, "type": "unsubscribed", "sid": sid})
        else:
            _reply(session, {"id": number, "type": "error", "msg": {"code": 5, "msg": "Unknown command"}})


def _reply(session: ReplaySession, content: object) -> None:
    session.reply(msgspec.json.encode(content))


class CandleReplay(Replay):
    """Binance's klines: the first rows over REST only, then one closed kline frame per row, and REST up to the last one
    sent. An archive holds no frames: these have the venue's form around the texts of the row.
    """

    def add_routes(self) -> None:
        recording = self.recording
        self.warm_up = min(WARM_UP, recording.candles // 10)
        self._stream = f"{recording.symbol.lower()}@kline_{recording.interval}"
        self._history: deque[CandleRow] = deque(maxlen=HISTORY)
        self._listeners: list[ReplaySession] = []
        self.server.get("/api/v3/time", self._time)
        self.server.get("/api/v3/klines", self._klines)
        self.server.socket("/stream", partial(ReplaySession, self))

    def heard(self, session: ReplaySession, text: str) -> None:
        self.commands += 1
        command = command_of(text)
        params = command.get("params")
        _reply(session, {"result": None, "id": command.get("id")})
        if not isinstance(params, list) or self._stream not in params:
            return
        if command.get("method") == "SUBSCRIBE" and session not in self._listeners:
            self._listeners.append(session)
            self.subscribed(session)
        elif command.get("method") == "UNSUBSCRIBE" and session in self._listeners:
            self._listeners.remove(session)

    def left(self, session: ReplaySession) -> None:
        if session in self._listeners:
            self._listeners.remove(session)
        super().left(session)
        if self._listeners and self._session is None:
            self.subscribed(self._listeners[-1])

    async def _play(self) -> None:
        for number, row in enumerate(rows(self.recording)):
            if not isinstance(row, CandleRow):
                continue
            if number >= self.warm_up:
                await self.pace.until(row.at_ms)
                await self._client()
                data = self._frame(row)
                # A client that renews its connection has two for a moment: each gets every frame from its subscription
                # on.
                for session in tuple(self._listeners):
                    self.out += 1
                    await session.forward(data)
                self.sent += 1
            self._history.append(row)
            if number >= self.warm_up:
                await self.go.wait()
        await self.finish()

    def _frame(self, row: CandleRow) -> bytes:
        # open time, open, high, low, close, volume, close time, quote volume, trades, taker volume, taker quote volume
        t, o, h, low, c, v, end, q, n, tv, tq, _ = row.columns
        symbol, interval = self.recording.symbol, self.recording.interval
        return (
            f'{{"stream":"{self._stream}","data":{{"e":"kline","E":{int(end) + 1},"s":"{symbol}",'
            f'"k":{{"t":{t},"T":{end},"s":"{symbol}","i":"{interval}","f":-1,"L":-1,"o":"{o}","c":"{c}","h":"{h}","l":"{low}","v":"{v}",'
            f'"n":{n},"x":true,"q":"{q}","V":"{tv}","Q":"{tq}","B":"0"}}}}}}'
        ).encode()

    async def _time(self, request: web.Request) -> web.Response:
        last = self._history[-1].at_ms if self._history else self.recording.first_ms
        return answer({"serverTime": last + self.recording.interval_ms})

    async def _klines(self, request: web.Request) -> web.Response:
        query, recording = request.query, self.recording
        if query.get("symbol") != recording.symbol:
            raise refuse(400, -1121, "Invalid symbol.")
        if query.get("interval") != recording.interval:
            raise refuse(400, -1120, "Invalid interval.")
        try:
            limit = min(int(query.get("limit", _KLINES_DEFAULT)), _KLINES_MAX)
            start = int(query["startTime"]) if "startTime" in query else None
            end = int(query["endTime"]) if "endTime" in query else None
        except ValueError:
            raise refuse(400, -1100, "Illegal characters found in a parameter.") from None
        known = [
            row for row in self._history if (start is None or row.at_ms >= start) and (end is None or row.at_ms <= end)
        ]
        chosen = known[-limit:] if start is None else known[:limit]
        return answer(b"[" + b",".join(map(_kline, chosen)) + b"]")


def _kline(row: CandleRow) -> bytes:
    t, o, h, low, c, v, end, q, n, tv, tq, rest = row.columns
    return f'[{t},"{o}","{h}","{low}","{c}","{v}",{end},"{q}",{n},"{tv}","{tq}","{rest}"]'.encode()


_FORMS: dict[Form, type[Replay]] = {
    Form.KALSHI: KalshiReplay,
    Form.MIXED: PolymarketReplay,
    Form.CANDLES: CandleReplay,
}


def replay_of(recording: Recording, clock: Clock, speed: float | None = None) -> Replay:
    """The server of a recording, not started. `speed`: times the recorded pace; None: as fast as the client takes it.

    Raises ConfigError for a form that has nothing to serve.
    """
    kind = _FORMS.get(recording.form)
    if kind is None:
        raise ConfigError(f"{recording.path.name}: a recording of the form {recording.form} cannot be served")
    return kind(recording, clock, speed)
