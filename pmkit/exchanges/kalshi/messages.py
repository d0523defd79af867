"""What Kalshi puts on its WebSocket, and the commands sent to it. REST bodies: `rest_messages`.

Only the fields that pmkit uses are read; unknown ones are skipped. Frames are decoded by one tagged union on `type`.
Sizes on the book channel are doubles made by the decoder from number text and become integers at once (`numbers`);
prices stay text and become ticks. Everything else that is money is `Decimal` or text.

Source: the AsyncAPI file of 2026-08-22, the OpenAPI file 3.28.0, the changelog up to 2026-10-15 and recorded frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

ORDERBOOK = "orderbook_delta"
TRADE = "trade"
TICKER = "ticker"
LIFECYCLE = "market_lifecycle_v2"
INDEX = "cfbenchmarks_value"

CHANNEL_ERROR = 10
BUFFER_OVERFLOW = 25
UNKNOWN_SID = 7
ENDED_CODES: Final = frozenset({CHANNEL_ERROR, BUFFER_OVERFLOW})
"""Error codes after which the venue has ended the subscription."""
FINAL_CODES: Final = frozenset({2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 26})
"""Error codes that the same command would get again: asking once more is no use."""


class _Frame(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """A frame of a subscription. `sending_ts_ms`: when Kalshi queued it (since October 2026)."""

    sid: int


# -- order book -------------------------------------------------------------------------------------------------------


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A signed change of the bids at one price of one side. Contracts; dollars as text; `ts_ms` epoch ms."""

    market_ticker: str
    price_dollars: str
    delta_fp: float
    side: Literal["yes", "no"]
    ts_ms: int = 0


class DeltaFrame(_Frame, frozen=True, gc=False, tag="orderbook_delta"):
    """One change of one book."""

    seq: int
    msg: Delta


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """All bids of both sides, (price, contracts); a side without bids is missing or null."""

    market_ticker: str
    yes_dollars_fp: list[tuple[str, float]] | None = None
    no_dollars_fp: list[tuple[str, float]] | None = None


class SnapshotFrame(_Frame, frozen=True, gc=False, tag="orderbook_snapshot"):
    """The whole of one book."""

    seq: int
    msg: Snapshot
    sending_ts_ms: int = 0


_SNAPSHOT_FIELDS: Final = frozenset({"market_ticker", "market_id", "yes_dollars_fp", "no_dollars_fp"})


class _SnapshotFields(msgspec.Struct, frozen=True):
    msg: dict[str, msgspec.Raw]


_decode_fields = msgspec.json.Decoder(_SnapshotFields).decode


def may_hide_a_side(frame: bytes) -> bool:
    """Whether a snapshot of which a side is missing holds a list under a name that is not known here.

    A missing side has no orders (kalshi.md 6.4), but one that was renamed looks just so, and an empty side that is not
    empty is the worst of books.
    """
    try:
        fields = _decode_fields(frame).msg
    except (msgspec.DecodeError, ValueError, RecursionError):
        return True
    return any(name not in _SNAPSHOT_FIELDS and bytes(value)[:1] == b"[" for name, value in fields.items())


# -- other channels ---------------------------------------------------------------------------------------------------


class TradePrint(msgspec.Struct, frozen=True, gc=False):
    """A public trade. `ts` is seconds in older frames; prices and count are text."""

    trade_id: str
    market_ticker: str
    yes_price_dollars: str
    count_fp: str
    taker_outcome_side: str = ""
    taker_book_side: str = ""
    taker_side: str = ""
    ts_ms: int = 0
    ts: int | float | str | None = None


class TradeFrame(_Frame, frozen=True, gc=False, tag="trade"):
    """`seq` is there in captures and absent from the AsyncAPI."""

    msg: TradePrint
    seq: int | None = None


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """Top of book and last price of one market; an empty side is bid 0 or ask 1."""

    market_ticker: str
    yes_bid_dollars: str = ""
    yes_ask_dollars: str = ""
    yes_bid_size_fp: str = ""
    yes_ask_size_fp: str = ""
    price_dollars: str = ""
    last_trade_size_fp: str = ""
    volume_fp: str = ""
    open_interest_fp: str = ""
    ts_ms: int = 0


class TickerFrame(_Frame, frozen=True, gc=False, tag="ticker"):
    msg: Ticker
    seq: int | None = None


class PriceRange(msgspec.Struct, frozen=True):
    """One band of the price grid, dollars, both ends included."""

    start: Decimal
    end: Decimal
    step: Decimal


class Lifecycle(msgspec.Struct, frozen=True):
    """What happened to a market. Times are epoch seconds. Only the fields of its `event_type` are set."""

    market_ticker: str
    event_type: str
    close_ts: int | None = None
    strike_type: str | None = None
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    result: str | None = None
    settlement_value: Decimal | None = None
    is_deactivated: bool | None = None
    price_level_structure: str | None = None
    price_ranges: list[PriceRange] | None = None


class LifecycleFrame(_Frame, frozen=True, tag="market_lifecycle_v2"):
    msg: Lifecycle
    seq: int | None = None


class EventFee(msgspec.Struct, frozen=True):
    """The fee of one event's markets; each override holds alone, null takes it back."""

    event_ticker: str
    fee_type_override: str | None = None
    fee_multiplier_override: Decimal | None = None


class EventFeeFrame(_Frame, frozen=True, tag="event_fee_update"):
    """Comes with the lifecycle channel."""

    msg: EventFee
    seq: int | None = None


class IndexAverage(msgspec.Struct, frozen=True):
    """A running average of the settlement index. `window_size`: ticks in it."""

    value: Decimal
    window_size: int = 0
    window_start_ts_ms: int = 0
    window_end_ts_exclusive: int = 0


class IndexValue(msgspec.Struct, frozen=True):
    """One tick of a settlement index. `data` is CF Benchmarks' own JSON, as text: see `index_tick`."""

    index_id: str
    data: str
    received_at: int = 0
    avg_60s_data: IndexAverage | None = None
    last_60s_windowed_average_15min: IndexAverage | None = None


class IndexTick(msgspec.Struct, frozen=True):
    """The JSON inside `IndexValue.data`: epoch ms and dollars."""

    id: str
    time: int
    value: Decimal


class IndexFrame(_Frame, frozen=True, tag="cfbenchmarks_value"):
    msg: IndexValue
    seq: int | None = None


# -- replies to commands ----------------------------------------------------------------------------------------------


class Subscribed(msgspec.Struct, frozen=True):
    channel: str
    sid: int


class SubscribedFrame(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    """The subscription stands; comes before any of its data."""

    msg: Subscribed
    id: int | None = None
    sid: int | None = None
    seq: int | None = None


class Tickers(msgspec.Struct, frozen=True):
    """All markets of the subscription after an update."""

    market_tickers: list[str] | None = None


class OkFrame(msgspec.Struct, frozen=True, tag_field="type", tag="ok"):
    """An update was taken. The answer to list_subscriptions is a list instead."""

    msg: Tickers | list[Subscribed] | None = None
    id: int | None = None
    sid: int | None = None
    seq: int | None = None


class UnsubscribedFrame(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribed"):
    sid: int
    id: int | None = None
    seq: int | None = None


class ErrorDetail(msgspec.Struct, frozen=True):
    code: int
    msg: str = ""
    market_ticker: str | None = None


class ErrorFrame(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A command refused, or (codes 10 and 25) a subscription ended."""

    msg: ErrorDetail
    id: int | None = None
    sid: int | None = None
    seq: int | None = None


class Envelope(msgspec.Struct, frozen=True):
    """What every frame has; read when the frame is of no type known here, since it still counts in its sequence."""

    type: str
    sid: int | None = None
    seq: int | None = None


Control: TypeAlias = SubscribedFrame | OkFrame | UnsubscribedFrame | ErrorFrame
Event: TypeAlias = TradeFrame | TickerFrame | LifecycleFrame | EventFeeFrame | IndexFrame
Frame: TypeAlias = DeltaFrame | SnapshotFrame | Event | Control

CHANNEL_OF: Final[dict[type, str]] = {
    TradeFrame: TRADE,
    TickerFrame: TICKER,
    LifecycleFrame: LIFECYCLE,
    EventFeeFrame: LIFECYCLE,
    IndexFrame: INDEX,
}
"""Which channel a frame comes with, where that is not its own name."""

decode_frame = msgspec.json.Decoder(Frame, strict=False).decode
"""bytes -> Frame. Raises msgspec.DecodeError or ValidationError."""
decode_envelope = msgspec.json.Decoder(Envelope, strict=False).decode
decode_index_tick = msgspec.json.Decoder(IndexTick, strict=False).decode

_KNOWN = """
    orderbook_delta orderbook_snapshot trade ticker market_lifecycle_v2 event_fee_update cfbenchmarks_value
    subscribed ok unsubscribed error
"""
_IGNORED = """
    event_lifecycle fill user_order market_position order_group_updates multivariate_market_lifecycle
    cfbenchmarks_value_5hz cfbenchmarks_value_indexlist pyth_value pyth_value_underlying_list
    rfq_created rfq_deleted quote_created quote_accepted quote_executed
"""
KNOWN_TYPES: Final = frozenset(_KNOWN.split())
IGNORED_TYPES: Final = frozenset(_IGNORED.split())
"""Documented types of channels that the market-data socket does not ask for: skipped without a warning."""


class _Params(msgspec.Struct, frozen=True, omit_defaults=True):
    channels: tuple[str, ...] | None = None
    market_tickers: tuple[str, ...] | None = None
    index_ids: tuple[str, ...] | None = None
    sids: tuple[int, ...] | None = None
    action: str | None = None
    use_yes_price: bool | None = None


class _Command(msgspec.Struct, frozen=True):
    id: int
    cmd: str
    params: _Params


_encode = msgspec.json.Encoder().encode


def subscribe(command_id: int, channel: str, names: Sequence[str]) -> str:
    """A subscribe command for one channel: market tickers, index ids, or nothing where the channel takes no filter.

    `use_yes_price` is always given on the book channel, since Kalshi will change its default.
    """
    chosen = tuple(names) or None
    params = _Params(
        channels=(channel,),
        market_tickers=chosen if channel in (ORDERBOOK, TRADE, TICKER) else None,
        index_ids=chosen if channel == INDEX else None,
        use_yes_price=False if channel == ORDERBOOK else None,
    )
    return _encode(_Command(command_id, "subscribe", params)).decode()


def update(command_id: int, sid: int, action: str, tickers: Sequence[str]) -> str:
    """add_markets, delete_markets or get_snapshot on one subscription."""
    params = _Params(sids=(sid,), market_tickers=tuple(tickers), action=action)
    return _encode(_Command(command_id, "update_subscription", params)).decode()


def unsubscribe(command_id: int, sid: int) -> str:
    """End one subscription."""
    return _encode(_Command(command_id, "unsubscribe", _Params(sids=(sid,)))).decode()


def update_indices(command_id: int, sid: int, action: str, index_ids: Sequence[str]) -> str:
    """subscribe_indices or unsubscribe_indices on one index subscription."""
    params = _Params(sids=(sid,), index_ids=tuple(index_ids), action=action)
    return _encode(_Command(command_id, "update_subscription", params)).decode()
