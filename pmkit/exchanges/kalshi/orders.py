"""What Kalshi's order endpoints are sent (wire): paths, queries and bodies.

Every check raises InvalidOrder before anything can be sent. Sources: OpenAPI 3.28.0, "Create order (V2)", changelog of
2026-10-01 (expiry in amends, reduce-only with IOC only).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from pmkit.errors import InvalidOrder
from pmkit.exchanges.kalshi.sides import BookSide, book_side, count_text, yes_price_text
from pmkit.exchanges.kalshi.types import KalshiMarket, is_ticker
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.types import Order, Side, TimeInForce

ORDERS_PATH: Final = "/portfolio/events/orders"
BATCH_PATH: Final = "/portfolio/events/orders/batched"
GROUPS_PATH: Final = "/portfolio/order_groups"
GROUP_CREATE_PATH: Final = "/portfolio/order_groups/create"
MAX_CLIENT_ID: Final = 64
MAX_SUBACCOUNT: Final = 63

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_RESERVED: Final = frozenset({"batched", "create"})
_CLIENT_ID = re.compile(r"[!-~]{1,64}").fullmatch


class SelfTrade(StrEnum):
    """What happens when an order meets an own one: TAKER_AT_CROSS ends the incoming, MAKER cancels the resting one."""

    TAKER_AT_CROSS = "taker_at_cross"
    MAKER = "maker"


WIRE_TIME_IN_FORCE: Final = {
    TimeInForce.GTC: "good_till_canceled",
    TimeInForce.GTD: "good_till_canceled",
    TimeInForce.IOC: "immediate_or_cancel",
    TimeInForce.FOK: "fill_or_kill",
}


# -- paths and queries ------------------------------------------------------------------------------------------------


def order_path(order_id: object, action: str = "") -> str:
    """The path of one order; `action` is "", "amend" or "decrease".

    Raises InvalidOrder for an id that is empty (DELETE without an id cancels everything) or could name another path.
    """
    if not isinstance(order_id, str) or not _ID(order_id) or order_id in _RESERVED:
        raise InvalidOrder(f"{ascii(order_id)[:80]} is no order id of Kalshi: nothing was sent")
    return f"{ORDERS_PATH}/{order_id}{'/' + action if action else ''}"


def group_path(group_id: str, action: str = "") -> str:
    """The path of one order group; `action` is "", "limit", "reset" or "trigger". Raises like `order_path`."""
    if not _ID(group_id) or group_id in _RESERVED:
        raise InvalidOrder(f"{ascii(group_id)[:80]} is no order group of Kalshi: nothing was sent")
    return f"{GROUPS_PATH}/{group_id}{'/' + action if action else ''}"


def cancel_query(ticker: str, exchange_index: int | None = None, subaccount: int | None = None) -> dict[str, str | int]:
    """The query of a cancel: always with the market, since without market and shard it goes to shard 0."""
    _check_ticker(ticker)
    query: dict[str, str | int] = {"market_ticker": ticker}
    if exchange_index is not None:
        query["exchange_index"] = exchange_index
    return query | account_query(subaccount)


def account_query(subaccount: int | None, exchange_index: int | None = None) -> dict[str, str | int]:
    """The query of amend, decrease and order-group calls. Raises InvalidOrder for a sub-account outside 0 to 63."""
    query: dict[str, str | int] = {}
    if subaccount is not None:
        query["subaccount"] = _checked_subaccount(subaccount)
    if exchange_index is not None:
        query["exchange_index"] = exchange_index
    return query


# -- bodies -----------------------------------------------------------------------------------------------------------


class CreateOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST /portfolio/events/orders. Price in YES dollars; `expiration_time` in epoch seconds."""

    ticker: str
    side: BookSide
    count: str
    price: str
    time_in_force: str
    self_trade_prevention_type: SelfTrade
    client_order_id: str
    exchange_index: int | None = None
    expiration_time: int | None = None
    post_only: bool = False
    reduce_only: bool = False
    cancel_order_on_pause: bool = False
    order_group_id: str | None = None
    subaccount: int | None = None

    @property
    def rests(self) -> bool:
        """Whether what does not fill at once may stay in the book."""
        return self.time_in_force == WIRE_TIME_IN_FORCE[TimeInForce.GTC]


class CreateBatch(msgspec.Struct, frozen=True):
    """POST /portfolio/events/orders/batched."""

    orders: tuple[CreateOrder, ...]


class CancelLeg(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order of a batch cancel; market and shard say where it is."""

    order_id: str
    market_ticker: str
    exchange_index: int | None = None
    subaccount: int | None = None


class CancelBatch(msgspec.Struct, frozen=True):
    """DELETE /portfolio/events/orders/batched, with a body."""

    orders: tuple[CancelLeg, ...]


class AmendOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST .../{order_id}/amend. `count` is the total: what has filled plus what shall rest.

    `expiration_time` (since 2026-10-01): left out keeps it, 0 clears it, else epoch seconds.
    """

    ticker: str
    side: BookSide
    price: str
    count: str
    client_order_id: str | None = None
    updated_client_order_id: str | None = None
    expiration_time: int | UnsetType = UNSET
    exchange_index: int | None = None


class DecreaseOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST .../{order_id}/decrease: exactly one of `reduce_by` and `reduce_to`, contracts."""

    market_ticker: str
    reduce_by: str | None = None
    reduce_to: str | None = None
    exchange_index: int | None = None


class CreateGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST /portfolio/order_groups/create: at most so many contracts filled within a rolling 15 s."""

    contracts_limit_fp: str
    exchange_index: int
    subaccount: int | None = None


encode: Final = msgspec.json.Encoder().encode
"""A body to the bytes that are sent."""


def create_order(
    market: KalshiMarket,
    order: Order,
    *,
    client_order_id: str,
    now_ms: int,
    self_trade: SelfTrade = SelfTrade.TAKER_AT_CROSS,
    reduce_only: bool = False,
    cancel_on_pause: bool = False,
    order_group_id: str | None = None,
    subaccount: int | None = None,
) -> CreateOrder:
    """The body for one order. `now_ms`: venue time, against which an expiry is checked.

    Raises InvalidOrder: foreign market or outcome, off-grid price or size, an expiry without GTD, in the past or
    without a zone, post-only with IOC or FOK, reduce-only without IOC, an id that Kalshi would not take.
    """
    if order.market_id != market.market_id:
        raise InvalidOrder(f"the order is for {order.market_id}, the market is {market.market_id}")
    _check_ticker(market.ticker)
    wire_side = book_side(order.outcome, order.side)
    takes = order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    if order.post_only and takes:
        raise InvalidOrder(f"post-only and {order.time_in_force} exclude each other: such an order could never fill")
    if reduce_only and order.time_in_force is not TimeInForce.IOC:
        raise InvalidOrder(f"Kalshi takes reduce-only with IOC only, not with {order.time_in_force}")
    return CreateOrder(
        ticker=market.ticker,
        side=wire_side,
        count=count_text(market.check_size(order.size)),
        price=yes_price_text(market, order.outcome, order.price),
        time_in_force=WIRE_TIME_IN_FORCE[order.time_in_force],
        self_trade_prevention_type=self_trade,
        client_order_id=_checked_client_id(client_order_id),
        exchange_index=market.exchange_index,
        expiration_time=_expiry(order.time_in_force, order.expires_at, now_ms),
        post_only=order.post_only,
        reduce_only=reduce_only,
        cancel_order_on_pause=cancel_on_pause,
        order_group_id=order_group_id,
        subaccount=None if subaccount is None else _checked_subaccount(subaccount),
    )


def taking_order(
    market: KalshiMarket,
    outcome: str,
    side: Side,
    *,
    worst_price: object,
    size: object | None = None,
    amount: object | None = None,
) -> Order:
    """A market order: IOC bounded by `worst_price`. Exactly one of `size` (contracts) and `amount` (dollars, BUY only).

    `amount` covers the taker fee of a single fill; each further fill may round its fee up by less than 0.0002 dollars.
    Raises InvalidOrder.
    """
    yes_price_text(market, outcome, worst_price)
    price = to_decimal(worst_price, "worst_price")
    if (size is None) == (amount is None):
        raise InvalidOrder("a market order takes exactly one of size (contracts) and amount (dollars)")
    if amount is not None:
        if side is not Side.BUY:
            raise InvalidOrder("amount is for BUY only: a SELL says how many contracts")
        count = market.size_for(amount, price)
    else:
        count = market.check_size(size)
    return Order(
        market_id=market.market_id, outcome=outcome, side=side, price=price, size=count, time_in_force=TimeInForce.IOC
    )


def cancel_batch(legs: Sequence[CancelLeg]) -> CancelBatch:
    """The body of a batch cancel. Raises InvalidOrder for an empty list or a leg without order id or market."""
    if not legs:
        raise InvalidOrder("a batch cancel without orders: nothing was sent")
    for leg in legs:
        order_path(leg.order_id)
        _check_ticker(leg.market_ticker)
    return CancelBatch(tuple(legs))


def amend_order(
    market: KalshiMarket,
    outcome: str,
    side: Side,
    *,
    price: object,
    total: object,
    client_order_id: str | None = None,
    new_client_order_id: str | None = None,
    expires_at: datetime | UnsetType | None = UNSET,
    now_ms: int = 0,
) -> AmendOrder:
    """The body of an amend. `price` is of `outcome`, `total` is filled plus wanted rest, `expires_at` None clears.

    Raises InvalidOrder as `create_order`.
    """
    expiration: int | UnsetType = UNSET
    if expires_at is None:
        expiration = 0
    elif not isinstance(expires_at, UnsetType):
        expiration = _seconds(expires_at, now_ms)
    return AmendOrder(
        ticker=market.ticker,
        side=book_side(outcome, side),
        price=yes_price_text(market, outcome, price),
        count=count_text(market.check_size(total)),
        client_order_id=None if client_order_id is None else _checked_client_id(client_order_id),
        updated_client_order_id=None if new_client_order_id is None else _checked_client_id(new_client_order_id),
        expiration_time=expiration,
        exchange_index=market.exchange_index,
    )


def decrease_order(market: KalshiMarket, *, by: object | None = None, to: object | None = None) -> DecreaseOrder:
    """The body of a decrease: by so many contracts, or to so many resting ones. Raises InvalidOrder unless exactly one
    is given and is a positive multiple of 0.01: to get rid of an order, cancel it."""
    if (by is None) == (to is None):
        raise InvalidOrder("a decrease takes exactly one of by and to (contracts)")
    return DecreaseOrder(
        market_ticker=market.ticker,
        reduce_by=None if by is None else count_text(market.check_size(by)),
        reduce_to=None if to is None else count_text(market.check_size(to)),
        exchange_index=market.exchange_index,
    )


def create_group(limit: object, exchange_index: int, subaccount: int | None = None) -> CreateGroup:
    """The body that makes an order group. The shard is asked for, because Kalshi's default is 0 and crypto is on 2.

    `limit`: contracts filled within 15 s before the group's orders are cancelled. Raises InvalidOrder.
    """
    return CreateGroup(
        contracts_limit_fp=count_text(to_decimal(limit, "limit")),
        exchange_index=exchange_index,
        subaccount=None if subaccount is None else _checked_subaccount(subaccount),
    )


# -- checks -----------------------------------------------------------------------------------------------------------


def _check_ticker(ticker: str) -> None:
    if not is_ticker(ticker):
        raise InvalidOrder(f"{ascii(ticker)[:80]} is no ticker of Kalshi")


def _checked_client_id(text: str) -> str:
    if not _CLIENT_ID(text):
        raise InvalidOrder(
            f"client_order_id {ascii(text)[:80]} has to be 1 to {MAX_CLIENT_ID} printable ASCII letters without blanks"
        )
    return text


def _checked_subaccount(number: int) -> int:
    if type(number) is not int or not 0 <= number <= MAX_SUBACCOUNT:
        raise InvalidOrder(f"sub-account {number!r} is not from 0 to {MAX_SUBACCOUNT}")
    return number


def _expiry(time_in_force: TimeInForce, expires_at: datetime | None, now_ms: int) -> int | None:
    if time_in_force is not TimeInForce.GTD:
        if expires_at is not None:
            raise InvalidOrder(f"expires_at goes with GTD, not with {time_in_force}")
        return None
    if expires_at is None:
        raise InvalidOrder("GTD needs expires_at, the moment the order must be gone")
    return _seconds(expires_at, now_ms)


def _seconds(moment: object, now_ms: int) -> int:
    """Epoch seconds, cut: the order is never there after the moment that was asked for."""
    if not isinstance(moment, datetime):
        raise InvalidOrder(f"expires_at {ascii(moment)[:40]} is no datetime")
    if moment.tzinfo is None:
        raise InvalidOrder(f"expires_at {moment.isoformat()} has no zone: give an aware datetime, e.g. in UTC")
    seconds = int(moment.astimezone(UTC).replace(microsecond=0).timestamp())
    if seconds * 1000 <= now_ms:
        raise InvalidOrder(
            f"expires_at {moment.isoformat()} is not in the future: Kalshi counts whole seconds, cut, and it is "
            f"{datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec='milliseconds')} there"
        )
    return seconds
