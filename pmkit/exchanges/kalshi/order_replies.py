"""What Kalshi's order endpoints answer (wire): to `OrderId`s in the outcome's own terms, cancel results, or a verdict.

Source: OpenAPI 3.28.0, recorded replies of 2026-06 and 2026-08.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from pmkit.errors import OrderRejected
from pmkit.exchanges.kalshi.orders import CreateOrder
from pmkit.exchanges.kalshi.refusals import Proof, VenueError, Verdict, leg_refusal, refusal, venue_error
from pmkit.exchanges.kalshi.sides import EXACT, BookSide, mirrored
from pmkit.exchanges.types import CancelResult, OrderId, OrderState

ZERO: Final = Decimal(0)
_MAX_COUNT: Final = Decimal(10) ** 12


class ReplyError(ValueError):
    """A reply that makes no sense: what it is about has to be looked up."""


class CreateReply(msgspec.Struct, frozen=True):
    """201 of a create, or one leg of a batch. Price in YES dollars, fee per contract; there is no status word."""

    order_id: str | None = None
    client_order_id: str | None = None
    fill_count: str | None = None
    remaining_count: str | None = None
    average_fill_price: str | None = None
    average_fee_paid: str | None = None
    ts_ms: int | None = None
    error: VenueError | None = None


class CreateBatchReply(msgspec.Struct, frozen=True):
    """201 of a batch create, legs in the order of the request."""

    orders: list[CreateReply]


class CancelReply(msgspec.Struct, frozen=True):
    """200 of a cancel, or one leg of a batch. `reduced_by`: contracts that were still open."""

    order_id: str | None = None
    client_order_id: str | None = None
    reduced_by: str | None = None
    ts_ms: int | None = None
    error: VenueError | None = None


class CancelBatchReply(msgspec.Struct, frozen=True):
    """200 of a batch cancel."""

    orders: list[CancelReply]


class AmendReply(msgspec.Struct, frozen=True):
    """200 of an amend; counts are null where it neither filled nor changed size."""

    order_id: str | None = None
    client_order_id: str | None = None
    remaining_count: str | None = None
    fill_count: str | None = None
    average_fill_price: str | None = None
    average_fee_paid: str | None = None
    ts_ms: int | None = None


class DecreaseReply(msgspec.Struct, frozen=True):
    """200 of a decrease."""

    order_id: str | None = None
    remaining_count: str | None = None
    client_order_id: str | None = None
    ts_ms: int | None = None


class GroupReply(msgspec.Struct, frozen=True):
    """201 of an order group."""

    order_group_id: str | None = None
    subaccount: int | None = None
    exchange_index: int | None = None


class Amended(msgspec.Struct, frozen=True, kw_only=True):
    """What an amend did. `remaining` None: as before. `filled` is what the amend itself filled, in contracts; price of
    the outcome in dollars; `fee` in dollars, from the reply's rounded average."""

    order_id: str
    remaining: Decimal | None
    filled: Decimal
    average_price: Decimal | None
    fee: Decimal | None
    venue_ms: int


Created: TypeAlias = OrderId | Verdict
"""An accepted order, or the verdict on an answer that accepts none. A verdict is never PLACED."""

_create = msgspec.json.Decoder(CreateReply).decode
_create_batch = msgspec.json.Decoder(CreateBatchReply).decode
_cancel = msgspec.json.Decoder(CancelReply).decode
_cancel_batch = msgspec.json.Decoder(CancelBatchReply).decode
_amend = msgspec.json.Decoder(AmendReply).decode
_decrease = msgspec.json.Decoder(DecreaseReply).decode
_group = msgspec.json.Decoder(GroupReply).decode
_BAD = (msgspec.DecodeError, ValueError, RecursionError)


def created(status: int, body: bytes, sent: CreateOrder, outcome: str) -> Created:
    """The answer to a create. `outcome` is the one that the caller named: prices come back in its terms.

    A post-only order that came back with nothing filled and nothing resting is REFUSED as "post_only_cross".
    """
    if not 200 <= status < 300:
        return refusal(status, body)
    try:
        reply = _create(body)
    except _BAD:
        return refusal(status, body)
    return _leg(reply, sent, outcome) if reply.order_id else refusal(status, body)


def created_batch(status: int, body: bytes, sent: Sequence[tuple[CreateOrder, str]]) -> list[Created]:
    """The answer to a batch create, one result per leg; `sent` are the bodies with their outcomes."""
    if 200 <= status < 300:
        try:
            reply = _create_batch(body)
        except _BAD:
            reply = None
        if reply is not None:
            if len(reply.orders) != len(sent):
                reason = f"the answer has {len(reply.orders)} legs, {len(sent)} were sent"
                return [Verdict(Proof.UNKNOWN, reason)] * len(sent)
            return [_leg(leg, order, outcome) for leg, (order, outcome) in zip(reply.orders, sent, strict=True)]
    return [refusal(status, body)] * len(sent)


def _leg(reply: CreateReply, sent: CreateOrder, outcome: str) -> Created:
    if reply.error is not None and reply.order_id:
        return Verdict(Proof.UNKNOWN, f"an order id and an error in one reply: {reply.error.text}")
    if reply.error is not None:
        return leg_refusal(reply.error)
    try:
        return accepted(reply, sent, outcome)
    except OrderRejected as error:
        return Verdict(Proof.REFUSED, error.reason, error)
    except ReplyError as error:
        return Verdict(Proof.UNKNOWN, str(error))


def accepted(reply: CreateReply, sent: CreateOrder, outcome: str) -> OrderId:
    """The order id with state, filled contracts, average price of `outcome` and fee in dollars.

    The fee is the reply's average per contract, which is rounded, times the contracts: fills have the exact one. With
    IOC and FOK the rest is gone, so `remaining_count` 0 says nothing and less than the whole is CANCELED.

    Raises ReplyError for a reply without order id, of another order, or with numbers that cannot be; OrderRejected
    ("post_only_cross") for a post-only order that neither filled nor rests.
    """
    if not reply.order_id:
        raise ReplyError("a reply without an order id")
    if reply.client_order_id is not None and reply.client_order_id != sent.client_order_id:
        raise ReplyError(f"a reply about another order: {ascii(reply.client_order_id)[:80]}")
    count = Decimal(sent.count)
    filled = _count(reply.fill_count, "fill_count")
    remaining = _count(reply.remaining_count, "remaining_count")
    if EXACT.add(filled, remaining) > count:
        raise ReplyError(f"{filled} filled and {remaining} remaining of {count}")
    if filled == count:
        state = OrderState.FILLED
    elif sent.rests and remaining:
        state = OrderState.LIVE
    elif sent.post_only and not filled:
        raise OrderRejected("post_only_cross", f"order {reply.order_id} came back neither filled nor resting")
    else:
        state = OrderState.CANCELED
    price, fee = _averages(reply.average_fill_price, reply.average_fee_paid, filled, outcome)
    return OrderId(reply.order_id, state, filled, price, fee)


def cancelled(status: int, body: bytes, order_id: str, *, routed: bool) -> CancelResult | str:
    """The answer to one cancel; a text says why nothing is known (CancelUnknown; the cancel may be repeated).

    `routed`: market or shard went along, without which a 404 may come from the wrong shard and proves nothing.
    """
    if 200 <= status < 300:
        try:
            return _cancel_result(_cancel(body), order_id)
        except _BAD as error:
            return f"{status} with a reply that does not fit: {error}"
    if status == 404 and routed and venue_error(body) is not None:
        return CancelResult.ALREADY_DONE
    return _why(status, body)


def cancelled_batch(status: int, body: bytes, order_ids: Sequence[str]) -> dict[str, CancelResult | str]:
    """The answer to a batch cancel by order id; every leg was sent with its market. See `cancelled`."""
    if 200 <= status < 300:
        try:
            legs = {leg.order_id: leg for leg in _cancel_batch(body).orders}
        except _BAD as error:
            return dict.fromkeys(order_ids, f"{status} with a reply that does not fit: {error}")
        return {order_id: _cancel_leg(legs.get(order_id), order_id) for order_id in order_ids}
    return dict.fromkeys(order_ids, _why(status, body))


def _why(status: int, body: bytes) -> str:
    found = venue_error(body)
    return f"{status} {found.text if found else 'without a body of Kalshi'}"


def _cancel_leg(leg: CancelReply | None, order_id: str) -> CancelResult | str:
    if leg is None:
        return "the answer does not name this order"
    if leg.error is not None:
        gone = leg.error.code.lower() in ("not_found", "order_not_found")
        return CancelResult.ALREADY_DONE if gone else leg.error.text or "an error without text"
    try:
        return _cancel_result(leg, order_id)
    except ReplyError as error:
        return str(error)


def _cancel_result(reply: CancelReply, order_id: str) -> CancelResult:
    if reply.order_id != order_id:
        raise ReplyError(f"a reply about {ascii(reply.order_id)[:80]}")
    return CancelResult.CANCELED if _count(reply.reduced_by, "reduced_by") else CancelResult.ALREADY_DONE


def amended(body: bytes, outcome: str) -> Amended:
    """A 2xx answer to an amend. Raises ReplyError for one that does not fit: look the order up."""
    try:
        reply = _amend(body)
    except _BAD as error:
        raise ReplyError(f"the reply to an amend does not fit: {error}") from error
    if not reply.order_id:
        raise ReplyError("a reply to an amend without an order id")
    filled = ZERO if reply.fill_count is None else _count(reply.fill_count, "fill_count")
    price, fee = _averages(reply.average_fill_price, reply.average_fee_paid, filled, outcome)
    remaining = None if reply.remaining_count is None else _count(reply.remaining_count, "remaining_count")
    return Amended(
        order_id=reply.order_id,
        remaining=remaining,
        filled=filled,
        average_price=price,
        fee=fee,
        venue_ms=reply.ts_ms or 0,
    )


def decreased(body: bytes, order_id: str) -> Decimal:
    """A 2xx answer to a decrease: contracts that still rest. Raises ReplyError."""
    try:
        reply = _decrease(body)
    except _BAD as error:
        raise ReplyError(f"the reply to a decrease does not fit: {error}") from error
    if reply.order_id != order_id:
        raise ReplyError(f"a reply about {ascii(reply.order_id)[:80]}")
    return _count(reply.remaining_count, "remaining_count")


def group_created(body: bytes) -> str:
    """A 2xx answer to the making of an order group: its id. Raises ReplyError."""
    try:
        group_id = _group(body).order_group_id
    except _BAD as error:
        raise ReplyError(f"the reply to an order group does not fit: {error}") from error
    if not group_id:
        raise ReplyError("an order group without an id")
    return group_id


def _averages(
    price_text: str | None, fee_text: str | None, filled: Decimal, outcome: str
) -> tuple[Decimal | None, Decimal | None]:
    if not filled:
        return None, ZERO
    price = fee = None
    if price_text is not None:
        yes_price = _number(price_text, "average_fill_price")
        if not 0 <= yes_price <= 1:
            raise ReplyError(f"an average price of {yes_price} dollars")
        price = mirrored(outcome, yes_price)
    if fee_text is not None:
        fee = EXACT.multiply(_number(fee_text, "average_fee_paid"), filled)
    return price, fee


def _count(text: str | None, what: str) -> Decimal:
    value = _number(text, what)
    if not 0 <= value < _MAX_COUNT:
        raise ReplyError(f"{what} is {value}")
    return value


def _number(text: str | None, what: str) -> Decimal:
    try:
        value = Decimal(text or "")
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ReplyError(f"{what} is {ascii(text)[:40]}, not a number")
    return value


def same_order(sent: CreateOrder, ticker: str, side: BookSide | str, yes_price: Decimal, count: Decimal) -> bool:
    """Whether an order found under the client order id of a 409 is the one sent: market, side, price and count."""
    mine = (sent.ticker, str(sent.side), Decimal(sent.price), Decimal(sent.count))
    return mine == (ticker, str(side), yes_price, count)
