"""The market channel `/ws/market` (reference: polymarket-trading.md, 5.1).

Nothing is acknowledged. A subscription is answered by one array of `book` objects, an unknown token by nothing. Only
the client pings, with the text PING.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from pmkit.sim.ordered import OrderedSet
from pmkit.sim.polymarket.live import Tell
from pmkit.sim.polymarket.market import Window
from pmkit.sim.server import Server, SocketSession

_NOT_UNDERSTOOD = "INVALID OPERATION"


class _Request(msgspec.Struct):
    """First message (`type`) or a later one (`operation`). Fields that concern other channels are ignored."""

    type: str = ""
    operation: str = ""
    assets_ids: list[str] = []
    custom_feature_enabled: bool = False
    initial_dump: bool = True


_decoder = msgspec.json.Decoder(_Request)


class MarketChannel(Tell):
    """Who subscribed to what. `snapshot` gives the book frames of a token, None where it has no book;

    `subscribed` is told which tokens somebody wants now.
    """

    def __init__(self, snapshot: Callable[[str], str | None], subscribed: Callable[[Iterable[str]], object]) -> None:
        self.snapshot = snapshot
        self.subscribed = subscribed
        self.sessions: OrderedSet[MarketSession] = OrderedSet()
        self._by_token: dict[str, OrderedSet[MarketSession]] = {}

    def make_session(self, server: Server, request: web.Request) -> MarketSession:
        return MarketSession(server, request, self)

    def add(self, token: str, session: MarketSession) -> None:
        self._by_token.setdefault(token, OrderedSet()).add(session)

    def remove(self, token: str, session: MarketSession) -> None:
        sessions = self._by_token.get(token)
        if sessions is not None:
            sessions.discard(session)
            if not sessions:
                del self._by_token[token]

    def _watchers(self, window: Window) -> list[MarketSession]:
        found = (session for token in window.tokens for session in self._by_token.get(token, ()))
        return list(dict.fromkeys(found))

    def watched(self, window: Window) -> bool:
        return any(token in self._by_token for token in window.tokens)

    def market(self, window: Window, frame: str, *, custom: bool = False) -> None:
        raw = frame.encode()
        for session in self._watchers(window):
            if session.custom or not custom:
                session.send_data(raw)

    def token(self, token: str, frame: Callable[[], str]) -> None:
        sessions = self._by_token.get(token)
        if sessions:
            raw = frame().encode()
            for session in list(sessions):
                session.send_data(raw)

    def everybody(self, frame: str) -> None:
        """A message that is venue wide: to all who asked for custom features."""
        raw = frame.encode()
        for session in list(self.sessions):
            if session.custom:
                session.send_data(raw)


class MarketSession(SocketSession):
    """One client of the channel."""

    def __init__(self, server: Server, request: web.Request, channel: MarketChannel) -> None:
        super().__init__(server, request)
        self.channel = channel
        self.tokens: dict[str, None] = {}
        self.custom = False

    async def on_open(self) -> None:
        self.channel.sessions.add(self)

    async def on_close(self) -> None:
        self.channel.sessions.discard(self)
        for token in self.tokens:
            self.channel.remove(token, self)

    async def on_text(self, text: str) -> None:
        if text == "PING":
            self.send_control("PONG")
            return
        try:
            request = _decoder.decode(text)
        except msgspec.MsgspecError:
            self.send_control(_NOT_UNDERSTOOD)
            return
        operation = request.operation or ("subscribe" if request.type.lower() == "market" else "")
        if operation == "subscribe":
            self.custom = self.custom or request.custom_feature_enabled
            self._subscribe(request.assets_ids, request.initial_dump)
        elif operation == "unsubscribe":
            for token in request.assets_ids:
                if token in self.tokens:
                    del self.tokens[token]
                    self.channel.remove(token, self)
        else:
            self.send_control(_NOT_UNDERSTOOD)

    def _subscribe(self, tokens: Iterable[str], dump: bool) -> None:
        new = [token for token in dict.fromkeys(tokens) if token not in self.tokens]
        # The market is started first, so that its book is in the snapshot and not beside it.
        self.channel.subscribed(new)
        for token in new:
            self.tokens[token] = None
            self.channel.add(token, self)
        books = [book for token in new if (book := self.channel.snapshot(token)) is not None] if dump else []
        if books:
            self.send_data(f"[{','.join(books)}]")
