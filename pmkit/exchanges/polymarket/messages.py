"""What Polymarket puts on the wire on its public side: the market channel, Gamma and the CLOB's public REST (wire).

Only the fields that are used are declared; unknown ones are ignored. Prices stay text and are looked up as ticks; sizes
become doubles in the decoder and integers at once where they are used. Sources:
docs.polymarket.com/market-data/websocket, docs.polymarket.com/api-reference, and real frames.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

WireSide = Literal["BUY", "SELL"]

# -- market channel -------------------------------------------------------------------------------------------------


class Level(msgspec.Struct, frozen=True, gc=False):
    """One price level of a snapshot. Bids come ascending and asks descending, but nothing relies on it."""

    price: str
    size: float


class RestBook(msgspec.Struct, frozen=True, gc=False):
    """A whole book: the answer of GET /book and one item of POST /books. `timestamp` is the ms of its last change."""

    asset_id: str
    timestamp: int
    bids: list[Level]
    asks: list[Level]
    market: str = ""
    tick_size: str | None = None


class Book(RestBook, frozen=True, gc=False, tag_field="event_type", tag="book"):
    """A whole book on the socket: on subscribing and after trades. Replaces what was there."""


class TypedBook(RestBook, frozen=True, gc=False, kw_only=True):
    """`Book` again, its type as a field of its own: see `decode_frame`."""

    event_type: Literal["book"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One level of one asset: `size` is its new total ("0" removes it), best_* the touch after the message."""

    asset_id: str
    price: str
    size: float
    side: WireSide
    best_bid: str | None = None
    best_ask: str | None = None


class PriceChange(msgspec.Struct, frozen=True, gc=False):
    """Changed levels, usually of both outcomes of one market. The shape before 2025-09 had one asset and `changes`."""

    timestamp: int
    price_changes: list[Change]


class TaggedPriceChange(PriceChange, frozen=True, gc=False, tag_field="event_type", tag="price_change"):
    """`PriceChange` among events of other types."""


class TickSizeChange(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="tick_size_change"):
    """The price step changed (beyond 0.96 and 0.04, and back): the old one is refused at once."""

    asset_id: str
    new_tick_size: str
    market: str = ""
    timestamp: int = 0


class LastTradePrice(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="last_trade_price"):
    """A public print. `side` is the taker's."""

    asset_id: str
    price: str
    size: str
    side: WireSide
    timestamp: int
    market: str = ""
    transaction_hash: str = ""


class BestBidAsk(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="best_bid_ask"):
    """The touch. Not used: every change carries it too, and the order of the two messages is not documented."""

    asset_id: str


class NewMarket(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="new_market"):
    """A market was listed, anywhere on the venue. Not used: windows are found by their computed names."""

    slug: str = ""


class MarketResolved(msgspec.Struct, frozen=True, gc=False, tag_field="event_type", tag="market_resolved"):
    """A market was resolved, possibly one that nobody here subscribed to."""

    market: str = ""
    assets_ids: list[str] = []
    winning_asset_id: str = ""


Event = Book | TaggedPriceChange | TickSizeChange | LastTradePrice | BestBidAsk | NewMarket | MarketResolved

KNOWN_EVENTS: Final = frozenset(
    {"book", "price_change", "tick_size_change", "last_trade_price", "best_bid_ask", "new_market", "market_resolved"}
)
"""Every documented event type; a frame of one of these that does not decode means that the venue changed."""

BOOK_EVENTS: Final = frozenset({"book", "price_change", "tick_size_change"})
"""Those whose loss makes a book wrong."""

_EVENTS: Final[msgspec.json.Decoder[Event | list[Event]]] = msgspec.json.Decoder(Event | list[Event], strict=False)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANYTHING: Final = msgspec.json.Decoder()

DecodeFailure: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that `decode` raises for a frame that is none of ours."""

decode = _EVENTS.decode
"""A text frame of the market channel: one event or a list of them. Raises one of `DecodeFailure`."""

BOOK_HEAD: Final = 400
"""Bytes from the start of a frame within which the levels of its first book begin."""

PRICE_CHANGE_END: Final = b'"event_type":"price_change"}'
"""How a frame ends that `decode_price_change` takes: the venue writes the type last; nine frames of ten are these."""

decode_price_change: Final = msgspec.json.Decoder(PriceChange, strict=False).decode
"""`decode` for a frame with that end, in one pass: a union is read once to find the type and again for the content.
It does not look at the type."""

_BOOKS: Final[msgspec.json.Decoder[TypedBook | list[TypedBook]]] = msgspec.json.Decoder(
    TypedBook | list[TypedBook], strict=False
)


def decode_frame(frame: bytes) -> Event | TypedBook | list[Event] | list[TypedBook]:
    """`decode`, and in one pass where whole books are expected and nothing else is there."""
    if frame.find(b'"bids":', 0, BOOK_HEAD) > 0:
        try:
            return _BOOKS.decode(frame)
        except DecodeFailure:
            pass  # of several kinds, or broken: `decode` tells
    return decode(frame)


def decode_items(frame: bytes | bytearray | memoryview) -> list[msgspec.Raw]:
    """The items of a JSON array, not decoded yet. Raises one of `DecodeFailure`."""
    return _ITEMS.decode(frame)


class Wreck(msgspec.Struct, frozen=True):
    """What can still be read of a frame that does not decode.

    `kind` is its event type, "" where it is JSON without one, None where it is no JSON object at all. `assets` are all
    that it speaks of; empty where that is not sure.
    """

    kind: str | None
    assets: tuple[str, ...]


def inspect(frame: bytes | bytearray | memoryview | msgspec.Raw) -> Wreck:
    """Tell an unknown event type from a known one that does not fit, and name the assets it speaks of. Never raises."""
    try:
        content: Any = _ANYTHING.decode(frame)
    except DecodeFailure:
        return Wreck(None, ())
    if not isinstance(content, dict):
        return Wreck(None, ())
    kind = content.get("event_type", "")
    parts = content.get("price_changes")
    if not isinstance(parts, list) or not parts:
        parts = [content]
    found = [part.get("asset_id") if isinstance(part, dict) else None for part in parts]
    named = [asset for asset in found if isinstance(asset, str)]
    assets = tuple(dict.fromkeys(named)) if len(named) == len(found) else ()
    return Wreck(kind if isinstance(kind, str) else "", assets)


def subscribe_frame(assets: list[str], first: bool) -> str:
    """The first message of a connection, or a later addition. At most 200 assets belong on one connection."""
    if first:
        content: dict[str, Any] = {
            "assets_ids": assets,
            "type": "market",
            "custom_feature_enabled": True,
            "initial_dump": True,
            "level": 2,
        }
    else:
        content = {"operation": "subscribe", "assets_ids": assets, "custom_feature_enabled": True}
    return msgspec.json.encode(content).decode()


def unsubscribe_frame(assets: list[str]) -> str:
    """End the interest in some assets."""
    return msgspec.json.encode({"operation": "unsubscribe", "assets_ids": assets}).decode()


# -- Gamma ----------------------------------------------------------------------------------------------------------

JsonList = str | list[str] | None
"""Gamma writes lists as JSON inside a string; a real list is taken as well."""


class FeeSchedule(msgspec.Struct, frozen=True, rename="camel"):
    """rate * (p * (1 - p)) ** exponent per share; takers only."""

    rate: Decimal
    exponent: Decimal = Decimal(1)
    taker_only: bool = True


class CryptoConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The machine-readable settlement rule of an Up/Down market."""

    asset: str = ""
    duration: str = ""
    twap_enabled: bool = False
    twap_lookback_seconds: int = 0


class GammaMarket(msgspec.Struct, frozen=True, rename="camel"):
    """One market row. Everything optional: rows are trimmed, old, or of another protocol."""

    id: str | int = ""
    condition_id: str | None = None
    slug: str | None = None
    question: str | None = None
    version: str | None = None
    outcomes: JsonList = None
    outcome_prices: JsonList = None
    clob_token_ids: JsonList = None
    position_ids: JsonList = None
    start_date: str | None = None
    event_start_time: str | None = None
    end_date: str | None = None
    closed_time: str | None = None
    closed: bool | None = None
    accepting_orders: bool | None = None
    enable_order_book: bool | None = None
    order_price_min_tick_size: Decimal | None = None
    order_min_size: Decimal | None = None
    neg_risk: bool | None = None
    fees_enabled: bool | None = None
    fee_type: str | None = None
    fee_schedule: FeeSchedule | None = None
    uma_resolution_status: str | None = None
    resolution_status: str | None = None
    resolution_source: str | None = None
    crypto_market_config: CryptoConfig | None = None


class EventMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """Strike and final index; both appear minutes after the end."""

    price_to_beat: Decimal | None = None
    final_price: Decimal | None = None


class GammaEvent(msgspec.Struct, frozen=True, rename="camel"):
    """One event row with its markets (Up/Down: exactly one)."""

    id: str | int = ""
    slug: str | None = None
    series_slug: str | None = None
    start_time: str | None = None
    end_date: str | None = None
    closed: bool | None = None
    enable_order_book: bool | None = None
    version: str | None = None
    event_metadata: EventMetadata | None = None
    markets: list[GammaMarket] = []


class EventsPage(msgspec.Struct, frozen=True):
    """GET /events/keyset: rows stay raw and are decoded one by one; no `next_cursor` on the last page."""

    events: list[msgspec.Raw]
    next_cursor: str | None = None


class MarketsPage(msgspec.Struct, frozen=True):
    """GET /markets/keyset."""

    markets: list[GammaMarket]
    next_cursor: str | None = None


class GammaSeries(msgspec.Struct, frozen=True):
    """One row of GET /series."""

    id: str | int
    slug: str = ""
    recurrence: str | None = None


def decode_event(row: msgspec.Raw | bytes) -> GammaEvent:
    """One event row. Raises one of `DecodeFailure`."""
    return msgspec.json.decode(row, type=GammaEvent, strict=False)


# -- CLOB metadata --------------------------------------------------------------------------------------------------


class ClobToken(msgspec.Struct, frozen=True):
    """`t` token id, `o` outcome label."""

    t: str = ""
    o: str = ""


class FeeData(msgspec.Struct, frozen=True):
    """`r` rate, `e` exponent, `to` takers only."""

    r: Decimal
    e: Decimal = Decimal(1)
    to: bool = True


class ClobInfo(msgspec.Struct, frozen=True):
    """GET /clob-markets/{condition}, in the venue's short keys.

    `t` tokens, `mts` price step, `mos` minimum size, `nr` neg-risk (left out when false), `ao` takes orders, `fd` fees,
    `itode` taker delay on, `v` protocol version.
    """

    t: list[ClobToken | None] | None = None
    mts: Decimal | None = None
    mos: Decimal | None = None
    nr: bool | None = None
    ao: bool | None = None
    fd: FeeData | None = None
    itode: bool | None = None
    v: str | None = None


class ClobMarketToken(msgspec.Struct, frozen=True):
    """A token of GET /markets/{condition}; `winner` is set after resolution."""

    token_id: str = ""
    outcome: str = ""
    winner: bool | None = None


class ClobMarket(msgspec.Struct, frozen=True):
    """GET /markets/{condition}. Tokens are empty in the minutes before the CLOB knows a market that Gamma shows."""

    condition_id: str = ""
    market_slug: str = ""
    closed: bool | None = None
    accepting_orders: bool | None = None
    enable_order_book: bool | None = None
    is_50_50_outcome: bool | None = None
    tokens: list[ClobMarketToken] = []
