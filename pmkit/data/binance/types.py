"""Binance spot candles on the wire: rows of `GET /api/v3/klines` and frames of the kline streams. Pure.

Everything is keyed by (symbol, interval, open time in ms). Numbers on the wire are decimal text; `KlineRow` keeps that
text for CSV files, `Candle` is floats. Sources: SPOT/rest-api.md, SPOT/web-socket-streams.md, SPOT/errors.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import msgspec

from pmkit.errors import ConfigError, ProtocolChanged

INTERVALS: Final[Mapping[str, int]] = {"1s": 1_000, "1m": 60_000, "5m": 300_000, "15m": 900_000}
"""The intervals offered, in ms. All have a fixed length and a grid that begins at 0 UTC."""

QUOTE: Final = "USDT"
ASSETS: Final = ("BTC", "ETH", "SOL", "XRP", "ADA", "LTC", "BNB")
"""The assets offered. A further one is added here and nowhere else."""

MAX_ROWS: Final = 1_000
"""Rows of one page: the largest `limit`."""

LONGEST_REQUEST: Final = 4_096
"""Bytes of a SUBSCRIBE text; longer ones were ignored without an answer (JKorf/Binance.Net issue 1180)."""

RETRY_CODES: Final = frozenset({-1000, -1001, -1007, -1008})
"""Unknown, disconnected, timeout, overloaded: asking again may help (SPOT/errors.md)."""
UNKNOWN_SYMBOL: Final = -1121
UNKNOWN_INTERVAL: Final = -1120

_FIRST_MICROSECOND = 10**14
_SYMBOL = re.compile(r"[A-Z0-9]{2,20}")
_MS_RANGE = range(10**12, 10**13)


class BadFrame(ValueError):
    """A frame that is no JSON object, or of a known type and does not parse."""


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One candle, closed unless said otherwise. `timestamp`: its open time, epoch ms UTC; `volume` is in the asset."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,24}(\.[0-9]{1,24})?\Z")]


class KlineRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The first seven of the twelve fields of a REST row, prices and volume in the venue's own text."""

    open_ms: int
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    close_ms: int

    def candle(self) -> Candle:
        """The same in floats."""
        return Candle(
            self.open_ms, float(self.open), float(self.high), float(self.low), float(self.close), float(self.volume)
        )


class CandleEvent(msgspec.Struct, frozen=True, gc=False):
    """A closed candle that entered the buffer. `live` is False when it was filled in over REST.

    `venue_ms` is the event time of the frame (for REST the candle's close), `received_ns` when it came here.
    """

    symbol: str
    interval: str
    candle: Candle
    venue_ms: int
    received_ns: int
    live: bool


class Hole(msgspec.Struct, frozen=True, gc=False):
    """Candles that are not there: `first_ms` and `last_ms` are the open times of the first and the last one missing."""

    first_ms: int
    last_ms: int
    missing: int
    reason: str


# What a frame may be.


class KlineEvent(msgspec.Struct, frozen=True, gc=False):
    """An update of a candle; `closed` is the venue's `x`."""

    symbol: str
    interval: str
    event_ms: int
    candle: Candle
    closed: bool


class Shutdown(msgspec.Struct, frozen=True):
    """The venue is about to end this connection: open another one at once."""

    event_ms: int


class Reply(msgspec.Struct, frozen=True):
    """A request over the socket was accepted."""

    request_id: int | str | None


class Refusal(msgspec.Struct, frozen=True):
    """A request over the socket was refused."""

    request_id: int | str | None
    code: int
    message: str


class Unknown(msgspec.Struct, frozen=True):
    """Something this version does not read; `kind` names it (text from the network)."""

    kind: str


Frame = KlineEvent | Shutdown | Reply | Refusal | Unknown


class _Kline(msgspec.Struct, gc=False):
    t: int
    s: str
    i: str
    o: Number
    c: Number
    h: Number
    l: Number  # noqa: E741 - the venue's name
    v: Number
    x: bool


class _Event(msgspec.Struct, gc=False):
    e: str = ""
    E: int = 0
    k: _Kline | None = None


class _Combined(msgspec.Struct, gc=False):
    data: _Event


class _Error(msgspec.Struct):
    code: int
    msg: str = ""


class _Envelope(msgspec.Struct):
    """Which kind of frame it is, without trusting what is inside."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: _Error | None = None


class _Limit(msgspec.Struct):
    rateLimitType: str = ""
    interval: str = ""
    intervalNum: int = 0
    limit: int = 0


class _ExchangeInfo(msgspec.Struct):
    rateLimits: list[_Limit]


class _Failure(msgspec.Struct):
    code: int = 0
    msg: str = ""


_combined = msgspec.json.Decoder(_Combined)
_event = msgspec.json.Decoder(_Event)
_envelope = msgspec.json.Decoder(_Envelope)
_any = msgspec.json.Decoder()
_page = msgspec.json.Decoder(list[KlineRow])
_info = msgspec.json.Decoder(_ExchangeInfo)
_failure = msgspec.json.Decoder(_Failure)


def symbol_of(asset: str) -> str:
    """The symbol of an asset: BTC -> BTCUSDT. Raises ConfigError for an asset that is not offered."""
    name = str(asset).upper()
    if name not in ASSETS:
        raise ConfigError(f"no Binance candles for the asset {asset!r}: there are {', '.join(ASSETS)}")
    return name + QUOTE


def check_symbol(symbol: object) -> str:
    """The symbol as REST wants it, upper case. Raises ConfigError where it cannot be one."""
    if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol.upper()):
        raise ConfigError(f"{ascii(symbol)[:40]} is no Binance symbol: those look like BTCUSDT")
    return symbol.upper()


def interval_ms(interval: str) -> int:
    """The length of an interval in ms. Raises ConfigError for one that is not offered (they are case-sensitive)."""
    length = INTERVALS.get(interval)
    if length is None:
        raise ConfigError(f"no Binance candles of {interval!r}: the intervals are {', '.join(INTERVALS)}")
    return length


def check_ms(value: int, what: str) -> int:
    """Refuse a moment that is not epoch milliseconds of 13 digits: the venue answers others with an empty list."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be epoch milliseconds as int, not {value!r}")
    if value not in _MS_RANGE:
        hint = "seconds are refused" if value < 10**12 else "microseconds are refused"
        raise ValueError(f"{what} must be epoch milliseconds of 13 digits, not {value}: {hint}")
    return value


def to_ms(stamp: int) -> int:
    """Milliseconds out of milliseconds or microseconds: 1e14 is the year 5138 in one and 1973 in the other."""
    return stamp // 1000 if stamp >= _FIRST_MICROSECOND else stamp


def parse_klines(body: bytes) -> list[KlineRow]:
    """A REST page, oldest first, times in ms. Raises ProtocolChanged where it is none, or out of order."""
    try:
        rows = _page.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProtocolChanged(f"a page of klines does not fit: {error}; it begins {body[:100]!r}") from error
    if any(row.open_ms >= _FIRST_MICROSECOND or row.close_ms >= _FIRST_MICROSECOND for row in rows):
        rows = [msgspec.structs.replace(row, open_ms=to_ms(row.open_ms), close_ms=to_ms(row.close_ms)) for row in rows]
    previous = -1
    for row in rows:
        if row.open_ms <= previous:
            raise ProtocolChanged(f"a page of klines is not in order: {row.open_ms} comes after {previous}")
        previous = row.open_ms
    return rows


def parse_weight_limit(body: bytes) -> int:
    """Request weight per minute out of `exchangeInfo`. Raises ProtocolChanged where it is not there."""
    try:
        limits = _info.decode(body).rateLimits
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProtocolChanged(f"exchangeInfo does not fit: {error}") from error
    for limit in limits:
        kind = (limit.rateLimitType, limit.interval, limit.intervalNum)
        if kind == ("REQUEST_WEIGHT", "MINUTE", 1) and limit.limit > 0:
            return limit.limit
    raise ProtocolChanged("exchangeInfo names no REQUEST_WEIGHT limit per minute")


def parse_error(body: bytes) -> tuple[int, str]:
    """Code and text of an error body; (0, "") where it has none (5xx pages, a firewall's HTML)."""
    try:
        failure = _failure.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return 0, ""
    return failure.code, failure.msg


def stream_of(symbol: str, interval: str) -> str:
    """The name of a stream, in lower case: btcusdt@kline_1s."""
    return f"{symbol.lower()}@kline_{interval}"


def requests(method: str, streams: Sequence[str], first_id: int) -> Iterator[str]:
    """SUBSCRIBE or UNSUBSCRIBE texts for all streams, none longer than LONGEST_REQUEST; ids count up."""
    batch: list[str] = []
    for stream in streams:
        if batch and len(_request(method, [*batch, stream], first_id)) > LONGEST_REQUEST:
            yield _request(method, batch, first_id)
            first_id += 1
            batch = []
        batch.append(stream)
    if batch:
        yield _request(method, batch, first_id)


def _request(method: str, streams: Sequence[str], request_id: int) -> str:
    return msgspec.json.encode({"method": method, "params": list(streams), "id": request_id}).decode()


def parse_frame(data: bytes) -> Frame:
    """One frame of a raw or combined connection. Raises BadFrame."""
    try:
        event = _combined.decode(data).data
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _other(data)
    return _read(event) if event.e == "kline" else _other(data)


def _read(event: _Event) -> Frame:
    kline = event.k
    if kline is None:
        raise BadFrame("a kline event without its candle")
    opened, high, low, close = float(kline.o), float(kline.h), float(kline.l), float(kline.c)
    if not low <= min(opened, close) <= max(opened, close) <= high:
        raise BadFrame(f"a candle whose low and high do not hold its open and close: {low} {opened} {close} {high}")
    if kline.t < 0:
        raise BadFrame(f"a candle that opens at {kline.t}")
    candle = Candle(to_ms(kline.t), opened, high, low, close, float(kline.v))
    return KlineEvent(kline.s, kline.i, to_ms(event.E), candle, kline.x)


def _other(data: bytes) -> Frame:
    """Every frame that is no well-formed combined kline: told apart by its keys."""
    try:
        frame = _envelope.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadFrame(str(error)) from error
    if frame.error is not None:
        return Refusal(frame.id, frame.error.code, frame.error.msg)
    if frame.code is not None:
        return Refusal(frame.id, frame.code, frame.msg)
    payload = bytes(frame.data) or data
    kind = _kind(payload)
    try:
        if kind == "kline":
            return _read(_event.decode(payload))
        if kind == "serverShutdown":
            return Shutdown(to_ms(_event.decode(payload).E))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadFrame(str(error)) from error
    if kind:
        return Unknown(kind)
    if frame.stream:
        return Unknown(frame.stream.rpartition("@")[2])
    if "result" in _any.decode(data):  # its value is null in the answer to SUBSCRIBE
        return Reply(frame.id)
    return Unknown("(no event type)")


class _Kind(msgspec.Struct):
    e: str = ""


_kinds = msgspec.json.Decoder(_Kind)


def _kind(payload: bytes) -> str:
    """The event type; empty where there is none (bookTicker has none, `!miniTicker@arr` is a list)."""
    try:
        return _kinds.decode(payload).e
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ""
