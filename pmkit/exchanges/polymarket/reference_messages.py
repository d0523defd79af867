"""The live-price socket (wire): log-in, subscriptions, prices of the settlement index and of its running average.

`price.crypto` is the index, `price.crypto.twap` its average over `window_seconds`. `seq` runs per connection and
channel, so that a gap shows. Prices are read from `full_accuracy_value`, decimal text; the plain number beside it has
lost digits. The log-in frame is made by `auth`. Source: docs.polymarket.com/api-reference/live-data, the code of
Polymarket's Python SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any, Final, Literal

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.fields import JSON, Fields, FieldsError, money

PRICE: Final = "price.crypto"
AVERAGE: Final = "price.crypto.twap"
PROVIDER: Final = "chainlink"
"""Named explicitly: the default was another one once."""

MAX_SUBSCRIPTIONS: Final = 64
PING: Final = '{"op":"ping"}'
_SCALE: Final = 18
_CONTEXT: Final = Context(prec=80)


class Topic(msgspec.Struct, frozen=True):
    """One subscription. `window_seconds` is 0 for the index itself, else that of its average."""

    symbol: str
    window_seconds: int = 0

    @property
    def channel(self) -> str:
        return AVERAGE if self.window_seconds else PRICE


class PriceTick(msgspec.Struct, frozen=True):
    """One price. `carried`: no fresh price, the last one was carried forward."""

    time_ms: int
    price: Decimal
    carried: bool = False
    received_ms: int = 0


class PriceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one topic, oldest first. A snapshot holds the last two minutes and may be empty.

    `seq` and `dropped` are None and 0 where the frame does not say. `sent_ms`: when the venue sent it.
    """

    topic: Topic
    source: str
    ticks: tuple[PriceTick, ...]
    snapshot: bool
    seq: int | None
    dropped: int
    sent_ms: int


class ControlMessage(msgspec.Struct, frozen=True):
    """Everything else: `authed`, acknowledgements, `pong`, errors. `code` is of an error (auth_invalid, bad_op, ...),
    "" where it is none.
    """

    op: str
    rid: str
    code: str = ""
    text: str = ""


def symbol_of(asset: str) -> str:
    """BTC -> btcusd."""
    return f"{asset.lower()}usd"


def asset_of(symbol: str) -> str:
    """btcusd -> BTC; a symbol of another form comes back as it is, upper case."""
    return symbol.upper().removesuffix("USD")


def subscribe_frame(topics: Sequence[Topic], rid: str, op: Literal["subscribe", "unsubscribe"] = "subscribe") -> str:
    """Begin or end some topics. Raises ValueError above the venue's 64 subscriptions."""
    if len(topics) > MAX_SUBSCRIPTIONS:
        raise ValueError(f"{len(topics)} live-price topics: at most {MAX_SUBSCRIPTIONS} on one connection")
    items = [{"channel": topic.channel, "filter": _filter(topic)} for topic in topics]
    return msgspec.json.encode({"op": op, "rid": rid, "subscriptions": items}).decode()


def _filter(topic: Topic) -> dict[str, str | int]:
    found: dict[str, str | int] = {"symbol": topic.symbol, "provider": PROVIDER}
    if topic.window_seconds:
        found["window_seconds"] = topic.window_seconds
    return found


def decode_prices(frame: bytes) -> PriceMessage | ControlMessage:
    """One text frame. Raises ProtocolChanged for no JSON object, and for a price message that does not read."""
    try:
        content: Any = JSON.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ProtocolChanged(f"a frame of Polymarket's live prices is no JSON object ({len(frame)} bytes)")
    row = Fields(content)
    try:
        if content.get("channel") in (PRICE, AVERAGE) and isinstance(content.get("payload"), dict):
            return _prices(row)
        return _control(row)
    except FieldsError as error:
        raise ProtocolChanged(f"a frame of Polymarket's live prices does not read: {error}") from error


def _prices(row: Fields) -> PriceMessage:
    payload = row.object("payload")
    window = payload.count("window_seconds")
    if row.text("channel") == AVERAGE and not window:
        raise FieldsError("window_seconds is missing from an average")
    snapshot = row.flag("snapshot") or payload.flag("snapshot") or isinstance(payload.raw("data"), list)
    ticks = [_tick(item) for item in payload.items("data")] if snapshot else [_tick(payload)]
    return PriceMessage(
        topic=Topic(payload.text("symbol").lower(), window if row.text("channel") == AVERAGE else 0),
        source=payload.text("source", ""),
        ticks=tuple(sorted(ticks, key=lambda tick: tick.time_ms)),
        snapshot=snapshot,
        seq=row.count("seq") if row.has("seq") else None,
        dropped=row.count("dropped"),
        sent_ms=row.time_ms("ts"),
    )


def _tick(row: Fields) -> PriceTick:
    time_ms = row.time_ms("timestamp")
    if not time_ms:
        raise FieldsError("timestamp is missing")
    return PriceTick(time_ms, _price(row), row.flag("is_carried_forward"), row.time_ms("received_at"))


def _price(row: Fields) -> Decimal:
    """The exact price. An older socket scaled this text by 10^18 for one provider: the plain number tells."""
    plain = money(row.raw("value"), "value") if row.has("value") else None
    if not row.has("full_accuracy_value"):
        if plain is None:
            raise FieldsError("full_accuracy_value is missing")
        return _positive(plain)
    exact = _positive(row.money("full_accuracy_value"))
    if plain is None or _near(exact, plain):
        return exact
    scaled = exact.scaleb(-_SCALE, _CONTEXT)
    if _near(scaled, plain):
        return scaled
    raise FieldsError("full_accuracy_value and value contradict each other")


def _positive(price: Decimal) -> Decimal:
    if price <= 0:
        raise FieldsError("value is not above zero")
    return price


def _near(one: Decimal, other: Decimal) -> bool:
    return _CONTEXT.abs(_CONTEXT.subtract(one, other)) <= _CONTEXT.multiply(other, Decimal("0.001"))


def _control(row: Fields) -> ControlMessage:
    problem = row.raw("error")
    inner = Fields(problem) if isinstance(problem, dict) else row
    return ControlMessage(
        op=_word(row.raw("op") or row.raw("type")),
        rid=_word(row.raw("rid")),
        code=_word(inner.raw("code") or (problem if isinstance(problem, str) else "")),
        text=_word(inner.raw("message") or inner.raw("reason")),
    )


def _word(value: Any) -> str:
    """What a control message says, escaped and short; "" for what is neither a text nor a number."""
    if isinstance(value, str):
        return ascii(value[:200])[1:-1]
    return str(value) if type(value) is int and abs(value) < 1 << 64 else ""
