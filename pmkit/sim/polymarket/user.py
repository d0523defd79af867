"""The user channel `/ws/user` (reference: polymarket-trading.md, 5.2).

The first frame carries the credentials; wrong ones close the link. Nothing is acknowledged and nothing is replayed.
Faults on the venue: `duplicate_event` sends the next event twice, `UserChannel.silence` keeps quiet for market seconds
while PING is still answered.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.faults import Faults
from pmkit.sim.ordered import OrderedSet
from pmkit.sim.polymarket.auth import ApiKeys
from pmkit.sim.polymarket.live import loose
from pmkit.sim.polymarket.records import OrderRecord, TradeRecord
from pmkit.sim.server import Server, SocketSession


class _Auth(msgspec.Struct):
    key: str = msgspec.field(name="apiKey", default="")
    secret: str = ""
    passphrase: str = ""


class _Request(msgspec.Struct):
    type: str = ""
    operation: str = ""
    auth: _Auth | None = None
    markets: list[str] = []


_decoder = msgspec.json.Decoder(_Request)


class UserChannel:
    """Who listens to whose orders and trades."""

    def __init__(self, keys: ApiKeys, clock: Clock, faults: Faults) -> None:
        self.keys = keys
        self.sessions: OrderedSet[UserSession] = OrderedSet()
        self.muted = 0
        self._clock = clock
        self._faults = faults
        self._silent_until = 0.0

    def make_session(self, server: Server, request: web.Request) -> UserSession:
        return UserSession(server, request, self)

    def silence(self, seconds: float) -> None:
        """Send no events for market seconds; what is missed never comes."""
        self._silent_until = self._clock.monotonic() + seconds

    def order(self, record: OrderRecord, kind: str) -> None:
        """A change of an order; `kind` is PLACEMENT, UPDATE or CANCELLATION."""
        self._send(record.account.owner, record.window.condition_id, record.event(kind, self._clock.now_ms()))

    def trade(self, trade: TradeRecord) -> None:
        """A new trade or a new state of one, to everybody who has a part in it."""
        for owner in sorted(trade.owners()):
            self._send(owner, trade.window.condition_id, trade.event(owner, self._clock.now_ms()))

    def _send(self, owner: str, condition: str, event: dict[str, object]) -> None:
        listeners = [session for session in self.sessions if session.hears(owner, condition)]
        if not listeners:
            return
        if self._clock.monotonic() < self._silent_until:
            self.muted += 1
            return
        raw = loose(event).encode()
        times = 2 if self._faults.take("duplicate_event") else 1
        for session in listeners:
            for _ in range(times):
                session.send_data(raw)


class UserSession(SocketSession):
    """One client of the channel. Without markets it hears of all."""

    def __init__(self, server: Server, request: web.Request, channel: UserChannel) -> None:
        super().__init__(server, request)
        self.channel = channel
        self.owner = ""
        self.markets: set[str] = set()
        self.all = False

    def hears(self, owner: str, condition: str) -> bool:
        return bool(self.owner) and owner == self.owner and (self.all or condition in self.markets)

    async def on_open(self) -> None:
        self.channel.sessions.add(self)

    async def on_close(self) -> None:
        self.channel.sessions.discard(self)

    async def on_text(self, text: str) -> None:
        if text == "PING":
            self.send_control("PONG")
            return
        try:
            request = _decoder.decode(text)
        except msgspec.MsgspecError:
            self.send_control("INVALID OPERATION")
            return
        if not self.owner:
            await self._login(request)
        elif request.operation == "subscribe":
            self.markets.update(request.markets)
        elif request.operation == "unsubscribe":
            self.markets.difference_update(request.markets)
        else:
            self.send_control("INVALID OPERATION")

    async def _login(self, request: _Request) -> None:
        auth = request.auth
        key = self.channel.keys.known(auth.key, auth.secret, auth.passphrase) if auth is not None else None
        if key is None or request.type.lower() != "user":
            await self.close(1008, "unauthorized")
            return
        self.owner = key.owner
        self.markets.update(request.markets)
        self.all = not request.markets
