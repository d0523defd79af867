"""Live prices `/ws`, "PolyBolt" (reference: polymarket-trading.md, 5.3): the settlement index and its running average.

One price per market second and subscription, numbered per connection and channel. A subscription starts with a
snapshot of the last two minutes. Faults: `price_dropped` loses the next message of every connection (the number is
used up, `dropped` counts it), `PriceChannel.carry` repeats the last price for a while, marked as carried forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.faults import Faults
from pmkit.sim.ordered import OrderedSet
from pmkit.sim.polymarket.auth import ApiKeys
from pmkit.sim.server import Server, SocketSession
from pmkit.sim.world import AVERAGE_SECONDS, World

SPOT = "price.crypto"
AVERAGE = "price.crypto.twap"
SNAPSHOT_SECONDS = 120
MAX_SUBSCRIPTIONS = 64
MAX_FRAMES_PER_SECOND = 20
MAX_FRAME_BYTES = 64 * 1024
MAX_AUTH_ATTEMPTS = 8
PING_SECONDS = 25.0
AUTH_CLOSE, SLOW_CLOSE, DRAIN_CLOSE, POLICY_CLOSE = 4001, 4002, 4003, 4008
_CATCH_UP = 120
_PROVIDERS = ("chainlink", "pyth")


class _Auth(msgspec.Struct):
    key: str = msgspec.field(name="apiKey", default="")
    secret: str = ""
    passphrase: str = ""


class _Filter(msgspec.Struct, frozen=True):
    symbol: str = ""
    provider: str = "chainlink"
    window_seconds: int = AVERAGE_SECONDS


class _Subscription(msgspec.Struct, frozen=True):
    channel: str = ""
    filter: _Filter = _Filter()


class _Request(msgspec.Struct):
    op: str = ""
    rid: str | None = None
    auth: _Auth = msgspec.field(default_factory=_Auth)
    subscriptions: list[_Subscription] = []


_decoder = msgspec.json.Decoder(_Request)


class PriceChannel:
    """Who wants which price. `run` is for the venue to run."""

    def __init__(self, world: World, clock: Clock, keys: ApiKeys, faults: Faults) -> None:
        self.world = world
        self.clock = clock
        self.keys = keys
        self.faults = faults
        self.sessions: OrderedSet[PriceSession] = OrderedSet()
        self._carried: tuple[float, int] = (0.0, 0)

    def make_session(self, server: Server, request: web.Request) -> PriceSession:
        return PriceSession(server, request, self)

    def carry(self, seconds: float) -> None:
        """The feed behind stands still: for market seconds the price of now is repeated."""
        self._carried = (self.clock.monotonic() + seconds, self.clock.now_ms() // 1000 * 1000)

    async def drain(self) -> None:
        """Ask every client to come back later."""
        for session in list(self.sessions):
            await session.close(DRAIN_CLOSE, "draining")

    def asset_of(self, symbol: str) -> str | None:
        """The asset of a symbol like "btcusd"."""
        asset = symbol.lower().removesuffix("usd").upper()
        return asset if asset in self.world.assets and symbol.lower().endswith("usd") else None

    async def run(self) -> None:
        """Send the price of every second as it begins."""
        second = self.clock.now_ms() // 1000 + 1
        while True:
            wait = second - self.clock.now_ms() / 1000
            if wait > 0:
                await self.clock.sleep(wait)
                continue
            now = self.clock.now_ms() // 1000
            second = max(second, now - _CATCH_UP)
            lost = bool(self.sessions) and self.faults.take("price_dropped")
            for session in list(self.sessions):
                session.tick(second * 1000, lost=lost)
            second += 1

    def point(self, wanted: _Subscription, ms: int) -> dict[str, Any]:
        """One price of a subscription at a whole second."""
        asset = self.asset_of(wanted.filter.symbol)
        assert asset is not None
        value = self.world.twap60(asset, ms) if wanted.channel == AVERAGE else self.world.price(asset, ms)
        if wanted.filter.provider == "pyth":
            value = round(value * 1.00001, 8)
        return {"timestamp": ms, "value": value, "full_accuracy_value": repr(value)}

    def payload(self, wanted: _Subscription, ms: int) -> dict[str, Any]:
        """The payload of an update."""
        until, since = self._carried
        carried = self.clock.monotonic() < until and wanted.channel == SPOT
        head = self._head(wanted)
        body = self.point(wanted, since if carried else ms)
        extra = {"received_at": self.clock.now_ms(), "is_carried_forward": carried} if wanted.channel == SPOT else {}
        return {**head, **body, **extra}

    def history(self, wanted: _Subscription) -> dict[str, Any]:
        """The payload of a snapshot."""
        last = self.clock.now_ms() // 1000
        points = [self.point(wanted, second * 1000) for second in range(last - SNAPSHOT_SECONDS + 1, last + 1)]
        return {**self._head(wanted), "data": points}

    @staticmethod
    def _head(wanted: _Subscription) -> dict[str, Any]:
        head: dict[str, Any] = {"symbol": wanted.filter.symbol.lower(), "source": wanted.filter.provider}
        if wanted.channel == AVERAGE:
            head["window_seconds"] = AVERAGE_SECONDS
        return head


class PriceSession(SocketSession):
    """One client."""

    autoping = False

    def __init__(self, server: Server, request: web.Request, channel: PriceChannel) -> None:
        super().__init__(server, request)
        self.channel = channel
        self.authed = False
        self.wanted: dict[_Subscription, None] = {}
        self._attempts = 0
        self._numbers: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._frames: list[float] = []
        self._missed = 0

    async def on_open(self) -> None:
        self.channel.sessions.add(self)
        self.spawn(self._ping())

    async def on_close(self) -> None:
        self.channel.sessions.discard(self)

    async def on_ping(self, data: bytes) -> None:
        await self.ws.pong(data)

    async def on_pong(self, data: bytes) -> None:
        self._missed = 0

    async def _ping(self) -> None:
        while True:
            await self.clock.io_sleep(PING_SECONDS)
            if self._missed >= 2:
                await self.close(SLOW_CLOSE, "too slow")
                return
            self._missed += 1
            await self.ping()

    # ---- requests

    def _say(self, op: str, rid: str | None, **fields: object) -> None:
        self.send_control(msgspec.json.encode({"op": op, **({} if rid is None else {"rid": rid}), **fields}))

    def _error(self, rid: str | None, code: str, **fields: object) -> None:
        self._say("error", rid, code=code, message=code.replace("_", " "), **fields)

    async def on_text(self, text: str) -> None:
        if len(text) > MAX_FRAME_BYTES:
            await self.close(POLICY_CLOSE, "frame too large")
            return
        try:
            request = _decoder.decode(text)
        except msgspec.MsgspecError:
            self._error(None, "bad_op")
            return
        if request.op == "ping":
            self._say("pong", request.rid)
        elif request.op == "auth":
            await self._auth(request)
        elif request.op in ("subscribe", "unsubscribe"):
            self._change(request)
        else:
            self._error(request.rid, "bad_op")

    async def _auth(self, request: _Request) -> None:
        self._attempts += 1
        if self._attempts > MAX_AUTH_ATTEMPTS:
            self._error(request.rid, "auth_attempts")
            await self.close(AUTH_CLOSE, "too many attempts")
            return
        auth = request.auth
        if self.channel.keys.known(auth.key, auth.secret, auth.passphrase) is None:
            self._error(request.rid, "auth_invalid")
            return
        self.authed = True
        self._say("authed", request.rid)

    def _too_fast(self) -> bool:
        now = self.clock.io_monotonic()
        self._frames = [*(at for at in self._frames if now - at < 1.0), now]
        return len(self._frames) > MAX_FRAMES_PER_SECOND

    def _change(self, request: _Request) -> None:
        if not self.authed:
            self._error(request.rid, "auth_required")
            return
        if self._too_fast():
            self._error(request.rid, "rate_limited")
            return
        for wanted in request.subscriptions:
            if wanted.channel not in (SPOT, AVERAGE):
                self._error(request.rid, "bad_channel", channel=wanted.channel)
            elif request.op == "unsubscribe":
                self.wanted.pop(wanted, None)
                self._say("unsubscribed", request.rid, channel=wanted.channel)
            elif not self._legal(wanted.filter):
                self._error(request.rid, "bad_filter", channel=wanted.channel)
            elif wanted not in self.wanted and len(self.wanted) >= MAX_SUBSCRIPTIONS:
                self._error(request.rid, "sub_limit", channel=wanted.channel)
            else:
                self.wanted[wanted] = None
                self._say("subscribed", request.rid, channel=wanted.channel)
                self._send(wanted.channel, self.channel.history(wanted), snapshot=True)

    def _legal(self, wanted: _Filter) -> bool:
        known = self.channel.asset_of(wanted.symbol) is not None
        return known and wanted.provider in _PROVIDERS and wanted.window_seconds == AVERAGE_SECONDS

    # ---- prices

    def tick(self, ms: int, *, lost: bool = False) -> None:
        """A second began."""
        for wanted in self._live():
            if lost:
                self._numbers[wanted.channel] += 1
                self._dropped[wanted.channel] += 1
            else:
                self._send(wanted.channel, self.channel.payload(wanted, ms))

    def _live(self) -> Sequence[_Subscription]:
        return list(self.wanted)

    def _send(self, channel: str, payload: dict[str, Any], *, snapshot: bool = False) -> None:
        self._numbers[channel] += 1
        frame: dict[str, Any] = {
            "v": 1,
            "channel": channel,
            "seq": self._numbers[channel],
            "ts": self.clock.now_ms(),
            "payload": payload,
        }
        if snapshot:
            frame["snapshot"] = True
        if self._dropped[channel]:
            frame["dropped"] = self._dropped.pop(channel)
        self.send_data(msgspec.json.encode(frame))
