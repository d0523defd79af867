"""What an answer to an order proves, and what it does not."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import (
    ClockSkewError,
    InsufficientFunds,
    OrderAuthError,
    OrderRegionBlocked,
    OrderRejected,
    OrderVenueUnavailable,
    RateLimited,
)
from pmkit.exchanges.kalshi.order_replies import (
    CreateReply,
    ReplyError,
    accepted,
    amended,
    cancelled,
    cancelled_batch,
    created,
    created_batch,
    decreased,
    group_created,
    same_order,
)
from pmkit.exchanges.kalshi.orders import CreateOrder, SelfTrade
from pmkit.exchanges.kalshi.refusals import Proof, Verdict, refusal, stale_stamp, venue_error
from pmkit.exchanges.kalshi.sides import BookSide
from pmkit.exchanges.kalshi.types import NO, YES
from pmkit.exchanges.types import CancelResult, OrderId, OrderState

ID = "3b23c1c7-f4ef-4f0d-8b9a-9e53c61f1a0d"
IOC, FOK, GTC = "immediate_or_cancel", "fill_or_kill", "good_till_canceled"


def sent(tif: str = GTC, count: str = "10.00", **more: Any) -> CreateOrder:
    values: dict[str, Any] = {
        "ticker": "KXBTC15M-26NOV201215-15",
        "side": BookSide.BID,
        "count": count,
        "price": "0.5600",
        "time_in_force": tif,
        "self_trade_prevention_type": SelfTrade.TAKER_AT_CROSS,
        "client_order_id": "mine",
    }
    return CreateOrder(**(values | more))


def nested(code: str, message: str = "", details: str = "") -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "details": details}}).encode()


def reply(filled: str, remaining: str, **more: Any) -> bytes:
    return json.dumps(
        {"order_id": ID, "client_order_id": "mine", "fill_count": filled, "remaining_count": remaining, "ts_ms": 1}
        | more
    ).encode()


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, nested("invalid_price", "invalid price"), OrderRejected, "invalid_price"),
        (400, nested("invalid_order", "invalid order", "post only cross"), OrderRejected, "post_only_cross"),
        (400, nested("POST_ONLY_CROSS"), OrderRejected, "post_only_cross"),
        (400, nested("FOK_INSUFFICIENT_VOLUME"), OrderRejected, "fok_not_filled"),
        (
            400,
            b'{"code":"insufficient_balance","message":"insufficient balance"}',
            InsufficientFunds,
            "insufficient_funds",
        ),
        (400, nested("available_balance_too_low"), InsufficientFunds, "insufficient_funds"),
        (404, nested("user_not_found"), InsufficientFunds, "insufficient_funds"),
        (404, nested("market_not_found"), OrderRejected, "market_not_found"),
        (400, nested("trading_is_paused"), OrderVenueUnavailable, "venue_unavailable"),
        (409, nested("trading_is_paused"), OrderVenueUnavailable, "venue_unavailable"),
        (409, nested("MARKET_INACTIVE"), OrderRejected, "market_closed"),
        (400, nested("market_already_closed"), OrderRejected, "market_closed"),
        (401, nested("authentication_error", "", "INCORRECT_API_KEY_SIGNATURE"), OrderAuthError, "auth"),
        (403, nested("insufficient_scope"), OrderAuthError, "auth"),
        (403, nested("region_not_permitted"), OrderRegionBlocked, "region_blocked"),
        (410, nested("deprecated_v1_order_endpoint", "Please switch"), OrderRejected, "protocol_changed"),
        (429, b'{"error":"too many requests"}', RateLimited, "rate_limited"),
    ],
)
def test_oe_04_proven_refusals(status: int, body: bytes, kind: type[Exception], code: str) -> None:
    verdict = refusal(status, body)
    assert verdict.proof is Proof.REFUSED
    assert isinstance(verdict.error, kind)
    assert isinstance(verdict.error, OrderRejected)
    assert verdict.error.code == code


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, nested("internal_server_error")),
        (500, nested("insufficient_balance")),
        (502, b"<html>bad gateway</html>"),
        (503, nested("exchange_unavailable")),
        (400, nested("EXCHANGE_UNAVAILABLE")),
        (400, nested("SELF_CROSS_ATTEMPT_PARTIALLY_FILLED")),
        (400, nested("TAKER_CANCEL_FOR_SELF_TRADE_PREVENTION")),
        (504, b""),
        (425, nested("too_early")),
        (408, nested("invalid_order")),
        (429, b"slow down"),
        (429, b'{"error":"blocked by the proxy"}'),
        (400, b"<html>400 Bad Request</html>"),
        (400, nested("a_code_of_tomorrow")),
        (403, b"<html>CloudFront</html>"),
        (401, b""),
        (410, b"gone"),
        (302, b""),
        (201, b"{}"),
        (200, b"null"),
        (201, b'{"client_order_id":"mine","fill_count":"0.00","remaining_count":"10.00"}'),
        (201, b'{"order_id":""}'),
        (201, b'{"order_id":"x'),
    ],
)
def test_oe_04_everything_else_is_unknown(status: int, body: bytes) -> None:
    verdict = created(status, body, sent(), YES)
    assert isinstance(verdict, Verdict)
    assert verdict.proof is Proof.UNKNOWN
    assert verdict.error is None


def test_the_duplicate_and_the_stale_stamp_are_handled_apart() -> None:
    assert refusal(409, nested("order_already_exists")).proof is Proof.DUPLICATE
    assert refusal(409, nested("invalid_order", "duplicate client_order_id")).proof is Proof.DUPLICATE
    # Without a body of Kalshi's it is not even sure who said 409; both are looked up.
    assert refusal(409, b"").proof is Proof.UNKNOWN
    for body in (nested("header_timestamp_expired"), nested("authentication_error", "header_timestamp_expired")):
        verdict = refusal(401, body)
        assert verdict.proof is Proof.STALE_STAMP
        assert isinstance(verdict.error, ClockSkewError)
        assert stale_stamp(401, body)
    assert not stale_stamp(400, nested("header_timestamp_expired"))
    assert not stale_stamp(401, nested("authentication_error"))


def test_the_body_of_a_refusal_with_the_status_of_a_success() -> None:
    # Seen: the 410 body came through as a success (2026-06).
    verdict = created(201, nested("deprecated_v1_order_endpoint", "Please switch to the V2 endpoints"), sent(), YES)
    assert isinstance(verdict, Verdict)
    assert verdict.proof is Proof.REFUSED


def test_recorded_error_bodies(recordings: Path) -> None:
    errors = json.loads((recordings / "kalshi" / "rest" / "errors_observed.json").read_text())["errors"]
    verdicts = [refusal(one["status"], json.dumps(one["body"]).encode()) for one in errors]
    assert [verdict.error.code for verdict in verdicts if verdict.error] == [
        "auth",
        "protocol_changed",
        "invalid_price",
        "invalid_order",
        "rate_limited",
    ]


def test_texts_of_the_network_are_escaped_and_cut() -> None:
    verdict = refusal(400, nested("invalid_order", "\x1b[31m\nred", "x" * 5000))
    assert "\x1b" not in verdict.reason
    assert "\n" not in verdict.reason
    assert len(verdict.reason) < 400


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=60) | st.from_regex(r'\{"(error|code|order_id|fill_count)":.{0,30}\}').map(str.encode),
)
def test_no_body_raises_and_none_looks_accepted_without_an_order_id(status: int, body: bytes) -> None:
    verdict = created(status, body, sent(), YES)
    assert isinstance(verdict, Verdict)
    assert verdict.proof is not Proof.PLACED
    assert isinstance(cancelled(status, body, ID, routed=True), str | CancelResult)
    assert len(created_batch(status, body, [(sent(), YES)] * 2)) == 2


def test_deep_nesting_is_an_unreadable_body() -> None:
    assert venue_error(b'{"error":' + b"[" * 100_000) is None
    assert refusal(400, b"\xff\xfe").proof is Proof.UNKNOWN


# -- acceptances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tif", "filled", "remaining", "state"),
    [
        (GTC, "0.00", "10.00", OrderState.LIVE),
        (GTC, "4.00", "6.00", OrderState.LIVE),
        (GTC, "10.00", "0.00", OrderState.FILLED),
        (GTC, "4.00", "0.00", OrderState.CANCELED),  # self-trade prevention took the rest
        (IOC, "0.00", "0.00", OrderState.CANCELED),
        (IOC, "4.00", "0.00", OrderState.CANCELED),
        (IOC, "10.00", "0.00", OrderState.FILLED),
        (FOK, "0.00", "0.00", OrderState.CANCELED),
        (FOK, "10.00", "0.00", OrderState.FILLED),
    ],
)
def test_oe_17_nothing_remaining_is_not_filled(tif: str, filled: str, remaining: str, state: OrderState) -> None:
    more = {"average_fill_price": "0.5500", "average_fee_paid": "0.0172"} if filled != "0.00" else {}
    found = created(201, reply(filled, remaining, **more), sent(tif), YES)
    assert isinstance(found, OrderId)
    assert (found, found.status, found.filled_amount) == (ID, state, Decimal(filled))
    assert found.average_price == (Decimal("0.55") if more else None)
    assert found.fee == (Decimal("0.0172") * Decimal(filled) if more else 0)


def test_prices_come_back_in_the_outcomes_own_terms() -> None:
    body = reply("4.00", "0.00", average_fill_price="0.5600", average_fee_paid="0.0172")
    bought_no = created(201, body, sent(IOC, side=BookSide.ASK), NO)
    sold_yes = created(201, body, sent(IOC, side=BookSide.ASK), YES)
    assert isinstance(bought_no, OrderId)
    assert isinstance(sold_yes, OrderId)
    assert (bought_no.average_price, sold_yes.average_price) == (Decimal("0.44"), Decimal("0.56"))


def test_a_post_only_order_that_neither_fills_nor_rests_was_refused() -> None:
    verdict = created(201, reply("0.00", "0.00"), sent(post_only=True), YES)
    assert isinstance(verdict, Verdict)
    assert verdict.proof is Proof.REFUSED
    assert verdict.error is not None
    assert verdict.error.code == "post_only_cross"


@pytest.mark.parametrize(
    "body",
    [
        reply("11.00", "0.00"),
        reply("6.00", "6.00"),
        reply("-1.00", "0.00"),
        reply("NaN", "0.00"),
        reply("", "10.00"),
        reply("4.00", "6.00", average_fill_price="56"),
        reply("0.00", "10.00", client_order_id="another"),
        reply("0.00", "10.00", error={"code": "invalid_order"}),
        json.dumps({"order_id": ID}).encode(),
    ],
)
def test_replies_that_make_no_sense_are_looked_up(body: bytes) -> None:
    found = created(201, body, sent(), YES)
    assert isinstance(found, Verdict)
    assert found.proof is Proof.UNKNOWN
    with pytest.raises(ReplyError):
        accepted(CreateReply(), sent(), YES)


def test_official_and_recorded_replies(recordings: Path) -> None:
    examples = json.loads((recordings / "kalshi" / "rest" / "official_schema_examples.json").read_text())["examples"]
    legs = [
        (CreateOrder(**{k: v for k, v in one.items() if k != "exchange_index"}), YES)
        for one in examples["BatchCreateOrdersV2Request"]["orders"]
    ]
    found = created_batch(201, json.dumps(examples["BatchCreateOrdersV2Response"]).encode(), legs)
    assert [one.status for one in found if isinstance(one, OrderId)] == [OrderState.LIVE, OrderState.FILLED]
    amend = amended(json.dumps(examples["AmendOrderV2Response"]).encode(), YES)
    assert (amend.remaining, amend.filled) == (8, 0)
    assert decreased(json.dumps(examples["DecreaseOrderV2Response"]).encode(), ID) == 8
    cancel = examples["CancelOrderV2Response"]
    assert cancelled(200, json.dumps(cancel).encode(), cancel["order_id"], routed=True) is CancelResult.CANCELED
    ids = [one["order_id"] for one in examples["BatchCancelOrdersV2Request"]["orders"]]
    batch = cancelled_batch(200, json.dumps(examples["BatchCancelOrdersV2Response"]).encode(), ids)
    assert list(batch.values()) == [CancelResult.CANCELED] * 2
    live = json.loads((recordings / "kalshi" / "rest" / "order_v2_responses.json").read_text())
    one = created(201, json.dumps(live["create_201"]).encode(), sent(count="1.00", client_order_id="..."), YES)
    assert isinstance(one, OrderId)
    assert one.status is OrderState.LIVE


def test_oe_21_batches_have_a_result_per_leg() -> None:
    rows = [
        {
            "order_id": ID,
            "client_order_id": "mine",
            "fill_count": "0.00",
            "remaining_count": "10.00",
            "ts_ms": 1,
            "error": None,
        },
        {
            "order_id": None,
            "client_order_id": "mine",
            "fill_count": None,
            "ts_ms": None,
            "error": {"code": "insufficient_balance"},
        },
        {"error": {"code": "order_already_exists"}},
        {"error": {"code": "exchange_unavailable"}},
        {"client_order_id": "mine"},
    ]
    body = json.dumps({"orders": rows}).encode()
    found = created_batch(201, body, [(sent(), YES)] * 5)
    assert found[0] == ID
    assert [one.proof for one in found[1:] if isinstance(one, Verdict)] == [
        Proof.REFUSED,
        Proof.DUPLICATE,
        Proof.UNKNOWN,
        Proof.UNKNOWN,
    ]
    short = created_batch(201, body, [(sent(), YES)] * 4)
    assert all(isinstance(one, Verdict) and one.proof is Proof.UNKNOWN for one in short)
    whole = created_batch(429, b'{"error":"too many requests"}', [(sent(), YES)] * 2)
    assert all(isinstance(one, Verdict) and one.proof is Proof.REFUSED for one in whole)


# -- cancels, amends, groups ------------------------------------------------------------------------------------------


def test_oe_05_cancels() -> None:
    done = {"order_id": ID, "reduced_by": "10.00", "ts_ms": 1}
    assert cancelled(200, json.dumps(done).encode(), ID, routed=True) is CancelResult.CANCELED
    nothing_left = json.dumps(done | {"reduced_by": "0.00"}).encode()
    assert cancelled(200, nothing_left, ID, routed=True) is CancelResult.ALREADY_DONE
    assert cancelled(404, nested("not_found"), ID, routed=True) is CancelResult.ALREADY_DONE
    # A 404 that may be from the wrong shard, or from a proxy, proves nothing.
    assert isinstance(cancelled(404, nested("not_found"), ID, routed=False), str)
    assert isinstance(cancelled(404, b"<html>", ID, routed=True), str)
    assert "MARKET_INACTIVE" in str(cancelled(400, nested("MARKET_INACTIVE"), ID, routed=True))
    assert isinstance(cancelled(503, nested("not_found"), ID, routed=True), str)
    other = json.dumps(done | {"order_id": "other"}).encode()
    assert isinstance(cancelled(200, other, ID, routed=True), str)
    batch = {
        "orders": [
            done,
            {"order_id": "b", "reduced_by": "0.00", "error": {"code": "not_found"}},
            {"order_id": "c", "reduced_by": "0.00", "error": {"code": "internal"}},
        ]
    }
    found = cancelled_batch(200, json.dumps(batch).encode(), [ID, "b", "c", "d"])
    assert found[ID] is CancelResult.CANCELED
    assert found["b"] is CancelResult.ALREADY_DONE
    assert isinstance(found["c"], str) and not isinstance(found["c"], CancelResult)
    assert found["d"] == "the answer does not name this order"


def test_amends_decreases_and_groups() -> None:
    body = json.dumps({"order_id": ID, "remaining_count": None, "fill_count": None, "ts_ms": 5}).encode()
    assert amended(body, NO).remaining is None
    crossing = json.dumps(
        {
            "order_id": ID,
            "remaining_count": "3.00",
            "fill_count": "2.00",
            "average_fill_price": "0.3000",
            "average_fee_paid": "0.0100",
            "ts_ms": 5,
        }
    )
    found = amended(crossing.encode(), NO)
    assert (found.filled, found.average_price, found.fee) == (2, Decimal("0.7"), Decimal("0.02"))
    for bad in (b"{}", b"[]", b'{"order_id":"x","fill_count":"two"}'):
        with pytest.raises(ReplyError):
            amended(bad, YES)
    with pytest.raises(ReplyError):
        decreased(b'{"order_id":"other","remaining_count":"1.00"}', ID)
    assert group_created(b'{"order_group_id":"og_1","subaccount":0}') == "og_1"
    with pytest.raises(ReplyError):
        group_created(b'{"subaccount":0}')


def test_after_a_409_only_the_same_order_counts() -> None:
    mine = sent()
    assert same_order(mine, mine.ticker, "bid", Decimal("0.56"), Decimal(10))
    assert not same_order(mine, mine.ticker, "ask", Decimal("0.56"), Decimal(10))
    assert not same_order(mine, mine.ticker, "bid", Decimal("0.57"), Decimal(10))
    assert not same_order(mine, mine.ticker, "bid", Decimal("0.56"), Decimal(9))
    assert not same_order(mine, "KXETH15M-26NOV201215-15", "bid", Decimal("0.56"), Decimal(10))
