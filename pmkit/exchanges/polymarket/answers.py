"""What Polymarket answers to orders, cancels and account queries (wire).

Sources: docs.polymarket.com/api-reference, docs.polymarket.com/changelog, the code of Polymarket's Python SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.numbers import MAX_UNITS, quotient, scaled, whole
from pmkit.exchanges.polymarket.amounts import BASE
from pmkit.exchanges.polymarket.fields import JSON, Fields, FieldsError, shown
from pmkit.exchanges.polymarket.order_plan import OrderPlan
from pmkit.exchanges.polymarket.orders import SignedOrder
from pmkit.exchanges.polymarket.refusals import LEG, Proof, Verdict, judge, judge_leg
from pmkit.exchanges.polymarket.states import cancel_result, says_not_found
from pmkit.exchanges.types import CancelResult, OrderId, OrderState, Side, TimeInForce

_TAKING: Final = (TimeInForce.IOC, TimeInForce.FOK)
_DUST: Final = BASE // 100

# -- orders ---------------------------------------------------------------------------------------------------------


class Placed(msgspec.Struct, frozen=True):
    """The venue took the order. `trade_ids` are matches at entry: the trades, not this answer, say what was filled."""

    order_id: OrderId
    trade_ids: tuple[str, ...] = ()


class _Plain(
    msgspec.Struct, frozen=True, rename={"order_id": "orderID", "problem": "errorMsg", "trade_ids": "tradeIDs"}
):
    order_id: str
    status: str
    success: bool
    problem: str
    trade_ids: tuple[str, ...] = ()


_PLAIN: Final = msgspec.json.Decoder(_Plain).decode
_RESTING: Final = {"live": OrderState.LIVE, "delayed": OrderState.DELAYED}


def read_placed(status: int, body: bytes, sent: SignedOrder, retry_after: float | None = None) -> Placed | Verdict:
    """The answer of POST /order. Never raises: what does not read is a Verdict of UNKNOWN.

    KILLED comes back as Placed with CANCELED and nothing filled, as an order that found nothing to take.
    """
    if status not in (200, 201):
        return _settled(judge(status, body, retry_after), sent)
    try:  # the usual answer, quickly; whatever else it is, `_leg` looks closely
        plain = _PLAIN(body)
        if plain.success and not plain.problem and plain.order_id == sent.order_id and plain.status in _RESTING:
            return Placed(OrderId(sent.order_id, _RESTING[plain.status]), plain.trade_ids)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        content: Any = JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict(Proof.UNKNOWN, "unreadable", f"HTTP {status} without a readable body", status)
    return _leg(content, sent)


def read_batch(
    status: int, body: bytes, sent: Sequence[SignedOrder], retry_after: float | None = None
) -> list[Placed | Verdict]:
    """The answer of POST /orders, one result per order in the order sent. Never raises.

    A refusal of the whole batch is one of every order; an answer of another length leaves all unknown.
    """
    if status not in (200, 201):
        verdict = judge(status, body, retry_after)
        if verdict.proof in (Proof.KILLED, Proof.DUPLICATE):
            # Which order it speaks of is not said.
            verdict = Verdict(Proof.UNKNOWN, verdict.code, verdict.reason, status, retry_after)
        return [verdict for _ in sent]
    try:
        content: Any = JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    if not isinstance(content, list) or len(content) != len(sent):
        odd = Verdict(Proof.UNKNOWN, "unreadable", f"HTTP {status}: not one answer per order", status)
        return [odd for _ in sent]
    return [_leg(item, order) for item, order in zip(content, sent, strict=True)]


def _leg(content: Any, sent: SignedOrder) -> Placed | Verdict:
    try:
        row = Fields(content)
        order_id = row.text("orderID", "")
        problem = row.text("errorMsg", "") or row.text("error", "")
        word = row.text("status", "").lower()
        trades = row.texts("tradeIDs")
    except FieldsError as error:
        return Verdict(Proof.UNKNOWN, "unreadable", str(error), LEG)
    if not order_id:
        return _settled(judge_leg(problem), sent)
    if problem:
        return Verdict(Proof.UNKNOWN, "contradiction", f"an order id and an error: {shown(problem)}", LEG)
    if order_id.lower() != sent.order_id:
        return Verdict(Proof.UNKNOWN, "contradiction", f"the id of another order: {shown(order_id)}", LEG)
    if row.raw("success") is False or word not in ("live", "matched", "delayed"):
        return Verdict(Proof.UNKNOWN, "unlisted_status", f"status {shown(word)}", LEG)
    if word != "matched":
        state = OrderState.LIVE if word == "live" else OrderState.DELAYED
        return Placed(OrderId(sent.order_id, state), trades)
    return Placed(_matched(row, sent), trades)


def _settled(verdict: Verdict, sent: SignedOrder) -> Placed | Verdict:
    if verdict.proof is not Proof.KILLED:
        return verdict
    if sent.plan.time_in_force not in _TAKING:
        return Verdict(Proof.UNKNOWN, "contradiction", f"a resting order killed: {verdict.reason}", verdict.status)
    return Placed(OrderId(sent.order_id, OrderState.CANCELED))


def _matched(row: Fields, sent: SignedOrder) -> OrderId:
    """A match at entry, whole or in part. Amounts that do not fit the order are left out; the trades decide anyway."""
    plan = sent.plan
    found = _amounts(row, plan)
    if found is None:
        # Not terminal: whether a rest was cancelled is not said, and a status that claims it could be wrong.
        return OrderId(sent.order_id, OrderState.LIVE)
    making, taking = found
    dollars, shares = (making, taking) if plan.side is Side.BUY else (taking, making)
    # A BUY that takes aims at its dollars, every other order at its shares; under a hundredth is dust.
    if plan.side is Side.BUY and plan.time_in_force not in _TAKING:
        done = taking + _DUST > plan.taker_amount
    else:
        done = making + _DUST > plan.maker_amount
    rest = OrderState.CANCELED if plan.time_in_force in _TAKING else OrderState.LIVE
    average = quotient(Decimal(dollars), Decimal(shares))
    return OrderId(sent.order_id, OrderState.FILLED if done else rest, scaled(shares, 6), average)


def _amounts(row: Fields, plan: OrderPlan) -> tuple[int, int] | None:
    """makingAmount and takingAmount in base units. Production writes whole units, the OpenAPI text says base units.

    What is given can never exceed the order, no share costs more than a dollar, and a match has a hundredth of a share
    at least: that tells the two apart.
    """
    try:
        making, taking = row.money("makingAmount"), row.money("takingAmount")
    except FieldsError:
        return None
    for scale in (BASE, 1):
        given, got = whole(making, scale), whole(taking, scale)
        if not given or not got or given > plan.maker_amount or got > MAX_UNITS:
            continue
        dollars, shares = (given, got) if plan.side is Side.BUY else (got, given)
        if dollars <= shares and shares >= _DUST:
            return given, got
    return None


# -- cancels --------------------------------------------------------------------------------------------------------


class CancelAnswer(msgspec.Struct, frozen=True):
    """What a cancel did, by order id (lower case). `odd` are reasons that are not known: those may be repeated.
    `missing` are done, or were never there.
    """

    results: dict[str, CancelResult]
    odd: dict[str, str]
    missing: frozenset[str] = frozenset()


def read_canceled(body: bytes) -> CancelAnswer:
    """The answer (200) of every cancel route. An id that is in neither map is not known. Raises ProtocolChanged."""
    content = _content(body, "a cancel")
    canceled, left = content.get("canceled"), content.get("not_canceled")
    canceled = [] if canceled is None else canceled
    left = {} if left is None else left
    if (
        not isinstance(canceled, list)
        or not isinstance(left, dict)
        or not content.keys() & {"canceled", "not_canceled"}
    ):
        raise ProtocolChanged("Polymarket's answer to a cancel has neither canceled nor not_canceled: update pmkit")
    results: dict[str, CancelResult] = {}
    odd: dict[str, str] = {}
    missing: set[str] = set()
    for order_id, reason in left.items():
        if isinstance(reason, str) and says_not_found(reason):
            missing.add(str(order_id).lower())
        known = cancel_result(reason) if isinstance(reason, str) else None
        if known is None:
            odd[str(order_id).lower()] = ascii(reason)[:200]
        else:
            results[str(order_id).lower()] = known
    for order_id in canceled:
        if isinstance(order_id, str):
            results[order_id.lower()] = CancelResult.CANCELED
    return CancelAnswer(results, odd, frozenset(missing))


# -- account --------------------------------------------------------------------------------------------------------


class BalanceAllowance(msgspec.Struct, frozen=True):
    """Dollars or shares of one asset, and by spender (lower case) how much it may take, in base units."""

    balance: Decimal
    allowances: dict[str, int]

    def allows(self, spender: str, base_units: int) -> bool:
        """Whether that contract may take so much."""
        return self.allowances.get(spender.lower(), 0) >= base_units


def read_balance(body: bytes) -> BalanceAllowance:
    """The answer of GET /balance-allowance. Amounts are whole base units. Raises ProtocolChanged for anything else."""
    content = _content(body, "/balance-allowance")
    allowances = content.get("allowances")
    allowances = {} if allowances is None else allowances
    if not isinstance(allowances, dict):
        raise ProtocolChanged("Polymarket's /balance-allowance: allowances is no object: update pmkit")
    found = {str(spender).lower(): _base_units(value, "an allowance") for spender, value in allowances.items()}
    return BalanceAllowance(scaled(_base_units(content.get("balance"), "balance"), 6), found)


class Heartbeat(msgspec.Struct, frozen=True):
    """`heartbeat_id` goes into the next call. Not `accepted`: the id sent was not the one expected."""

    heartbeat_id: str
    accepted: bool


def read_heartbeat(status: int, body: bytes) -> Heartbeat | None:
    """The answer of POST /v1/heartbeats: 200, or 400 with the id to go on with. None where it is neither."""
    try:
        row = Fields(_content(body, "a heartbeat"))
        heartbeat_id = row.text("heartbeat_id", "")
        problem = row.text("error_msg", "") or row.text("error", "")
    except (ProtocolChanged, FieldsError):
        return None
    if status == 200 and not problem:
        return Heartbeat(heartbeat_id, True)
    if status == 400 and heartbeat_id and "heartbeat" in problem.lower():
        return Heartbeat(heartbeat_id, False)
    return None


def _base_units(value: Any, name: str) -> int:
    # An unlimited allowance is 2^256 - 1, which is beyond what `money` takes.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
        return int(value)
    if type(value) is int and 0 <= value < 1 << 256:
        return value
    raise ProtocolChanged(f"Polymarket's /balance-allowance: {name} is {shown(value)}: not whole base units")


def _content(body: bytes, what: str) -> dict[str, Any]:
    try:
        content: Any = JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ProtocolChanged(f"Polymarket's answer to {what} is no JSON object ({len(body)} bytes)")
    return content
