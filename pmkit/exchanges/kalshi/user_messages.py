"""What Kalshi says about one's own orders, fills, positions and money (wire): REST answers and socket frames.

Only the fields that pmkit uses are read, and only those without which a row is useless are required. Words (status,
reason, result) stay text, so that a new one never fails a page. Prices are dollars and counts contracts, both as text;
`book_side` is "bid" (positioned for YES) or "ask" (for NO). `user_types` makes the types that users see of them.

Sources: OpenAPI 3.28.0, the AsyncAPI file of 2026-08-22, the changelog up to 2026-10-15, recorded rows and frames.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from pmkit.exchanges.kalshi.messages import ErrorFrame, OkFrame, SubscribedFrame, UnsubscribedFrame

FILL: Final = "fill"
USER_ORDERS: Final = "user_orders"
MARKET_POSITIONS: Final = "market_positions"
ORDER_GROUPS: Final = "order_group_updates"
USER_TYPES: Final = frozenset({"fill", "user_order", "market_position", "order_group_updates"})
"""Types of the frames of those channels; two of them differ from the channel's name."""


# -- REST -------------------------------------------------------------------------------------------------------------


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order of GET /portfolio/orders. Fill costs are of the outcome that the order is positioned for."""

    order_id: str
    ticker: str
    book_side: str
    status: str
    yes_price_dollars: str
    initial_count_fp: str
    fill_count_fp: str
    remaining_count_fp: str
    client_order_id: str | None = None
    taker_fill_cost_dollars: str | None = None
    maker_fill_cost_dollars: str | None = None
    taker_fees_dollars: str | None = None
    maker_fees_dollars: str | None = None
    created_time: str | None = None
    last_update_time: str | None = None
    expiration_time: str | None = None
    self_trade_prevention_type: str | None = None
    order_group_id: str | None = None
    subaccount_number: int | None = None
    exchange_index: int | None = None


class OrderAnswer(msgspec.Struct, frozen=True):
    """GET /portfolio/orders/{id}."""

    order: OrderRow


class OrdersPage(msgspec.Struct, frozen=True):
    """GET /portfolio/orders."""

    orders: list[OrderRow] | None
    cursor: str | None = None


class FillRow(msgspec.Struct, frozen=True, kw_only=True):
    """A fill of GET /portfolio/fills, newest first. `trade_id` equals `fill_id`; no client order id here."""

    trade_id: str
    order_id: str
    ticker: str
    book_side: str
    count_fp: str
    yes_price_dollars: str
    is_taker: bool
    fee_cost: str
    created_time: str | None = None
    subaccount_number: int | None = None
    exchange_index: int | None = None


class FillsPage(msgspec.Struct, frozen=True):
    """GET /portfolio/fills."""

    fills: list[FillRow] | None
    cursor: str | None = None


class FillTexts(msgspec.Struct, frozen=True):
    """GET /portfolio/fills, row by row: for a reader whom one row that does not fit must not blind to the others."""

    fills: list[msgspec.Raw] | None
    cursor: str | None = None


decode_fill_row = msgspec.json.Decoder(FillRow, strict=False).decode
"""One of them. Raises msgspec.DecodeError or ValidationError."""


class PositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A market position. `position_fp` below zero is NO; `market_exposure_dollars` is what it cost."""

    ticker: str
    position_fp: str
    market_exposure_dollars: str
    realized_pnl_dollars: str | None = None
    fees_paid_dollars: str | None = None
    last_updated_ts: str | None = None
    exchange_index: int | None = None


class PositionsPage(msgspec.Struct, frozen=True):
    """GET /portfolio/positions."""

    market_positions: list[PositionRow] | None
    cursor: str | None = None


class SettlementRow(msgspec.Struct, frozen=True, kw_only=True):
    """A settled position. `revenue` and `value` (of one YES) are integer cents, all else dollars as text."""

    ticker: str
    market_result: str
    yes_count_fp: str
    yes_total_cost_dollars: str
    no_count_fp: str
    no_total_cost_dollars: str
    revenue: int
    fee_cost: str
    settled_time: str
    event_ticker: str = ""
    value: int | None = None
    exchange_index: int | None = None


class SettlementsPage(msgspec.Struct, frozen=True):
    """GET /portfolio/settlements."""

    settlements: list[SettlementRow] | None
    cursor: str | None = None


class ShardBalance(msgspec.Struct, frozen=True):
    exchange_index: int
    balance: str


class BalanceAnswer(msgspec.Struct, frozen=True):
    """GET /portfolio/balance. Without `exchange_index` in the query it is the sum over all shards.

    The breakdown is absent for keys that are bound to a sub-account. `updated_ts` is epoch seconds.
    """

    balance_dollars: str
    updated_ts: int = 0
    balance_breakdown: list[ShardBalance] | None = None


class QueueAnswer(msgspec.Struct, frozen=True):
    """GET /portfolio/orders/{id}/queue_position: contracts ahead."""

    queue_position_fp: str


class QueueRow(msgspec.Struct, frozen=True):
    order_id: str
    market_ticker: str
    queue_position_fp: str


class QueuesAnswer(msgspec.Struct, frozen=True):
    """GET /portfolio/orders/queue_positions."""

    queue_positions: list[QueueRow] | None


class Bucket(msgspec.Struct, frozen=True):
    """Tokens per second and at most."""

    refill_rate: float
    bucket_capacity: float


class LimitsAnswer(msgspec.Struct, frozen=True):
    """GET /account/limits."""

    read: Bucket
    write: Bucket
    usage_tier: str = ""


# -- socket -----------------------------------------------------------------------------------------------------------


class UserFill(msgspec.Struct, frozen=True, kw_only=True):
    """An own fill. `post_position_fp`: the account's net position after it, below zero NO."""

    trade_id: str
    order_id: str
    market_ticker: str
    book_side: str
    yes_price_dollars: str
    count_fp: str
    fee_cost: str
    is_taker: bool
    client_order_id: str | None = None
    post_position_fp: str | None = None
    exchange_index: int | None = None
    subaccount: int | None = None
    ts_ms: int = 0


class FillFrame(msgspec.Struct, frozen=True, tag_field="type", tag="fill"):
    msg: UserFill
    sid: int | None = None
    seq: int | None = None


class UserOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an own order; `last_update_reason` (since October 2026) says why, in an open set of words."""

    order_id: str
    ticker: str
    book_side: str
    status: str
    yes_price_dollars: str
    initial_count_fp: str
    fill_count_fp: str
    remaining_count_fp: str
    client_order_id: str | None = None
    taker_fill_cost_dollars: str | None = None
    maker_fill_cost_dollars: str | None = None
    taker_fees_dollars: str | None = None
    maker_fees_dollars: str | None = None
    order_group_id: str | None = None
    created_ts_ms: int = 0
    last_updated_ts_ms: int = 0
    expiration_ts_ms: int | None = None
    last_update_reason: str = ""
    exchange_index: int | None = None
    subaccount_number: int | None = None


class UserOrderFrame(msgspec.Struct, frozen=True, tag_field="type", tag="user_order"):
    msg: UserOrder
    sid: int | None = None
    seq: int | None = None


class MarketPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A changed position; the names are other ones than over REST."""

    market_ticker: str
    position_fp: str
    position_cost_dollars: str
    realized_pnl_dollars: str | None = None
    fees_paid_dollars: str | None = None
    subaccount: int | None = None


class MarketPositionFrame(msgspec.Struct, frozen=True, tag_field="type", tag="market_position"):
    msg: MarketPosition
    sid: int | None = None
    seq: int | None = None


class OrderGroupEvent(msgspec.Struct, frozen=True, kw_only=True):
    """created, triggered, reset, deleted or limit_updated. After "triggered" its orders are cancelled."""

    event_type: str
    order_group_id: str
    contracts_limit_fp: str | None = None
    ts_ms: int = 0


class OrderGroupFrame(msgspec.Struct, frozen=True, tag_field="type", tag="order_group_updates"):
    msg: OrderGroupEvent
    sid: int | None = None
    seq: int | None = None


UserEvent: TypeAlias = FillFrame | UserOrderFrame | MarketPositionFrame | OrderGroupFrame
UserFrame: TypeAlias = UserEvent | SubscribedFrame | OkFrame | UnsubscribedFrame | ErrorFrame

decode_user_frame = msgspec.json.Decoder(UserFrame, strict=False).decode
"""bytes -> UserFrame. Raises msgspec.DecodeError or ValidationError; a type that is not one of these as well."""
