"""The socket: commands, subscriptions and their sequence numbers (reference: kalshi.md, section 6; AsyncAPI).

`seq` counts per subscription over everything that carries its sid: data of all its markets, `ok`, `unsubscribed` and
errors of the subscription, as recorded on 2026-07-01. The `subscribed` reply has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from aiohttp import web

from pmkit.sim.kalshi.market import LiveMarket
from pmkit.sim.server import Server, SocketSession

HEARTBEAT_SECONDS = 10.0  # wall
BOOK, TICKER, TRADE, LIFECYCLE = "orderbook_delta", "ticker", "trade", "market_lifecycle_v2"
INDEX = "cfbenchmarks_value"
# Channels of the account that the key belongs to.
FILLS, POSITIONS, USER_ORDERS, GROUPS = "fill", "market_positions", "user_orders", "order_group_updates"
_CHANNELS = frozenset({BOOK, TICKER, TRADE, LIFECYCLE, INDEX, FILLS, POSITIONS, USER_ORDERS, GROUPS})
_NOT_BUILT = frozenset({"multivariate_market_lifecycle", "communications", "pyth_value", "cfbenchmarks_value_5hz"})
_SEQUENCED = frozenset({BOOK, TRADE, LIFECYCLE, INDEX, GROUPS})
_MARKET_CHANNELS = frozenset({BOOK, TICKER, TRADE, FILLS, POSITIONS, USER_ORDERS})

ERRORS = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    24: "Index IDs required",
    25: "Subscription buffer overflow",
}


class _Bad(Exception):
    """A command that is answered with an error; `sid` where it concerns a subscription."""

    def __init__(self, code: int, sid: int | None = None, more: str = "") -> None:
        self.code = code
        self.sid = sid
        self.more = more
        super().__init__(code, more)


@dataclass(slots=True)
class Subscription:
    """One sid. `tickers` None means all markets (channels where naming markets is optional)."""

    sid: int
    channel: str
    tickers: dict[str, None] | None = None
    indices: dict[str, None] = field(default_factory=dict)
    use_yes_price: bool = False
    skip_ack: bool = False
    seq: int = 0

    def wants(self, ticker: str) -> bool:
        return self.tickers is None or ticker in self.tickers


class Source(Protocol):
    """What a session asks of the venue."""

    @property
    def indices(self) -> tuple[str, ...]: ...

    def market_id(self, ticker: str) -> str | None: ...

    def live(self, ticker: str) -> LiveMarket | None: ...

    def ticker_message(self, ticker: str) -> dict[str, object] | None: ...


class KalshiSession(SocketSession):
    """One connection of a key. `subscriptions` by sid."""

    def __init__(self, server: Server, request: web.Request, source: Source, key_id: str) -> None:
        super().__init__(server, request)
        self.key_id = key_id
        self.subscriptions: dict[int, Subscription] = {}
        self._source = source
        self._last_sid = 0

    async def on_open(self) -> None:
        self.spawn(self._heartbeat())

    async def _heartbeat(self) -> None:
        while True:
            await self.clock.io_sleep(HEARTBEAT_SECONDS)
            await self.ping(b"heartbeat")

    # -- sending

    def by_channel(self, channel: str) -> list[Subscription]:
        return [found for found in self.subscriptions.values() if found.channel == channel]

    def publish(self, subscription: Subscription, kind: str, message: bytes | dict[str, object]) -> None:
        """Send one data message. `message` may be encoded already."""
        raw = message if isinstance(message, bytes) else msgspec.json.encode(message)
        seq = b""
        if subscription.channel in _SEQUENCED:
            subscription.seq += 1
            seq = b',"seq":%d' % subscription.seq
        if kind == "orderbook_delta" and self.faults.take("skip_delta"):
            return  # its number is used up: the client sees a gap
        frame = b'{"type":"%s","sid":%d%s,"msg":%s,"sending_ts_ms":%d}' % (
            kind.encode(),
            subscription.sid,
            seq,
            raw,
            self.clock.now_ms(),
        )
        self.send_data(frame)
        if seq and self.faults.take("duplicate_frame"):
            self.send_data(frame)

    def snapshot(self, subscription: Subscription, ticker: str) -> None:
        """The book of a market; a side without orders is left out. An unknown market has none."""
        market_id = self._source.market_id(ticker)
        if market_id is None:
            return
        message: dict[str, object] = {"market_ticker": ticker, "market_id": market_id}
        live = self._source.live(ticker)
        if live is not None:
            yes, no = live.levels(yes_price=subscription.use_yes_price)
            if yes:
                message["yes_dollars_fp"] = yes
            if no:
                message["no_dollars_fp"] = no
        self.publish(subscription, "orderbook_snapshot", message)

    def overflow(self, code: int = 25) -> int:
        """End every book subscription with that error, 25 or 10. Returns how many there were."""
        ended = self.by_channel(BOOK)
        for subscription in ended:
            self._send_error(code, subscription)
            del self.subscriptions[subscription.sid]
        return len(ended)

    def _send(self, reply: dict[str, object]) -> None:
        self.send_control(msgspec.json.encode(reply | {"sending_ts_ms": self.clock.now_ms()}))

    def _send_error(self, code: int, subscription: Subscription | None, request_id: int = 0, more: str = "") -> None:
        reply: dict[str, object] = {"id": request_id} if request_id else {}
        if subscription is not None:
            subscription.seq += 1
            reply |= {"sid": subscription.sid, "seq": subscription.seq}
        text = f"{ERRORS[code]}: {more}" if more else ERRORS[code]
        self._send(reply | {"type": "error", "msg": {"code": code, "msg": text}})

    # -- commands

    async def on_text(self, text: str) -> None:
        request_id = 0
        try:
            try:
                command = msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise _Bad(1) from None
            if not isinstance(command, dict):
                raise _Bad(1)
            given = command.get("id", 0)
            if not isinstance(given, int) or isinstance(given, bool) or given < 0:
                raise _Bad(1)
            request_id = given
            self._command(command, request_id)
        except _Bad as bad:
            self._send_error(bad.code, self.subscriptions.get(bad.sid or 0), request_id, bad.more)

    def _command(self, command: dict[str, object], request_id: int) -> None:
        handlers: dict[str, Callable[[dict[str, object], int], None]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "update_subscription": self._update,
        }
        name = command.get("cmd")
        if name == "list_subscriptions":
            listed = [{"channel": found.channel, "sid": found.sid} for found in self.subscriptions.values()]
            self._send(_with_id({"type": "ok", "msg": listed}, request_id))
            return
        if not isinstance(name, str) or name not in handlers:
            raise _Bad(5)
        params = command.get("params")
        if not isinstance(params, dict):
            raise _Bad(2)
        handlers[name](params, request_id)

    def _subscribe(self, params: dict[str, object], request_id: int) -> None:
        channels = _texts(params.get("channels"))
        if not channels:
            raise _Bad(3)
        tickers = _tickers(params)
        for channel in dict.fromkeys(channels):
            if channel in _NOT_BUILT:
                self._send_error(8, None, request_id, f"{channel} is not built in this local venue")
            elif channel not in _CHANNELS:
                self._send_error(8, None, request_id)
            elif channel == BOOK and not tickers:
                self._send_error(14, None, request_id)
            else:
                self._join(channel, tickers, params, request_id)

    def _join(self, channel: str, tickers: list[str], params: dict[str, object], request_id: int) -> None:
        """Start a subscription, or add to the one that this channel has already."""
        flags = {name: _flag(params, name) for name in ("use_yes_price", "skip_ticker_ack", "send_initial_snapshot")}
        indices = _texts(params.get("index_ids")) if channel == INDEX else []
        existing = self.by_channel(channel)
        if existing:
            subscription = existing[0]
            self._add(subscription, tickers, indices, request_id, snapshots=flags["send_initial_snapshot"])
            return
        self._last_sid += 1
        subscription = Subscription(
            self._last_sid,
            channel,
            dict.fromkeys(tickers) if tickers and channel in _MARKET_CHANNELS else None,
            dict.fromkeys(indices),
            flags["use_yes_price"],
            flags["skip_ticker_ack"],
        )
        self.subscriptions[subscription.sid] = subscription
        self._send(_with_id({"type": "subscribed", "msg": {"channel": channel, "sid": subscription.sid}}, request_id))
        self._first_messages(subscription, tickers, flags["send_initial_snapshot"])

    def _first_messages(self, subscription: Subscription, tickers: Iterable[str], snapshots: bool) -> None:
        if subscription.channel == BOOK:
            for ticker in tickers:
                self.snapshot(subscription, ticker)
        elif subscription.channel == TICKER and snapshots:
            for ticker in tickers:
                if (message := self._source.ticker_message(ticker)) is not None:
                    self.publish(subscription, "ticker", message)

    def _add(
        self, subscription: Subscription, tickers: list[str], indices: list[str], request_id: int, *, snapshots: bool
    ) -> None:
        fresh: list[str] = []
        if subscription.tickers is not None:
            fresh = [ticker for ticker in dict.fromkeys(tickers) if ticker not in subscription.tickers]
            subscription.tickers.update(dict.fromkeys(fresh))
        subscription.indices.update(dict.fromkeys(indices))
        self._ok(subscription, request_id)
        self._first_messages(subscription, fresh, snapshots)

    def _ok(self, subscription: Subscription, request_id: int) -> None:
        subscription.seq += 1
        reply: dict[str, object] = {"sid": subscription.sid, "seq": subscription.seq, "type": "ok"}
        if subscription.tickers is not None and not subscription.skip_ack:
            reply["msg"] = {"market_tickers": sorted(subscription.tickers)}
        self._send(_with_id(reply, request_id))

    def _unsubscribe(self, params: dict[str, object], request_id: int) -> None:
        sids = _sids(params.get("sids"))
        if not sids:
            raise _Bad(4)
        for sid in sids:
            subscription = self.subscriptions.pop(sid, None)
            if subscription is None:
                self._send_error(7, None, request_id)
                continue
            subscription.seq += 1
            self._send(_with_id({"sid": sid, "seq": subscription.seq, "type": "unsubscribed"}, request_id))

    def _update(self, params: dict[str, object], request_id: int) -> None:
        sids = _sids(params.get("sids")) + _sids([params["sid"]] if "sid" in params else None)
        if len(sids) != 1:
            raise _Bad(12)
        sid = sids[0]
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            raise _Bad(7)
        action = params.get("action")
        if action is None:
            raise _Bad(15, sid)
        if subscription.channel == INDEX:
            self._update_indices(subscription, action, params, request_id)
            return
        if action not in ("add_markets", "delete_markets", "get_snapshot") or subscription.channel == LIFECYCLE:
            raise _Bad(13, sid)
        if action == "get_snapshot" and subscription.channel != BOOK:
            raise _Bad(13, sid)
        tickers = _tickers(params, sid)
        if not tickers:
            raise _Bad(14, sid)
        if action == "get_snapshot":
            for ticker in tickers:
                self.snapshot(subscription, ticker)
        elif action == "add_markets":
            snapshots = _flag(params, "send_initial_snapshot", sid)
            self._add(subscription, tickers, [], request_id, snapshots=snapshots)
        else:
            for ticker in tickers:
                if subscription.tickers is not None:
                    subscription.tickers.pop(ticker, None)
            self._ok(subscription, request_id)

    def _update_indices(
        self, subscription: Subscription, action: object, params: dict[str, object], request_id: int
    ) -> None:
        if action == "indexlist":
            subscription.seq += 1
            reply: dict[str, object] = {
                "type": "cfbenchmarks_value_indexlist",
                "sid": subscription.sid,
                "seq": subscription.seq,
                "msg": {"index_ids": list(self._source.indices)},
            }
            self._send(_with_id(reply, request_id))
            return
        if action not in ("subscribe_indices", "unsubscribe_indices"):
            raise _Bad(13, subscription.sid)
        indices = _texts(params.get("index_ids"), subscription.sid)
        if not indices:
            raise _Bad(24, subscription.sid)
        if action == "subscribe_indices":
            self._add(subscription, [], indices, request_id, snapshots=False)
            return
        for name in indices:
            if name == "all":
                subscription.indices.clear()
            subscription.indices.pop(name, None)
        self._ok(subscription, request_id)


def _with_id(reply: dict[str, object], request_id: int) -> dict[str, object]:
    """An id of 0 is no id."""
    return {"id": request_id} | reply if request_id else reply


def _flag(params: dict[str, object], name: str, sid: int | None = None) -> bool:
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise _Bad(11, sid, name)
    return value


def _texts(value: object, sid: int | None = None) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Bad(11, sid)
    return value


def _tickers(params: dict[str, object], sid: int | None = None) -> list[str]:
    """One of `market_ticker` and `market_tickers`. Ids in place of tickers (ticker channel only) are not built here."""
    if "market_id" in params or "market_ids" in params:
        raise _Bad(11, sid, "market ids are not built in this local venue")
    single = params.get("market_ticker")
    several = _texts(params.get("market_tickers"), sid)
    if single is None:
        return several
    if several or not isinstance(single, str):
        raise _Bad(11, sid)
    return [single]


def _sids(value: object) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        raise _Bad(11)
    return value
