"""Which answers prove that nothing was placed, what each becomes, and that nothing else counts as proof."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import (
    AuthError,
    InsufficientFunds,
    OrderRejected,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.exchanges.polymarket.answers import (
    Placed,
    read_balance,
    read_batch,
    read_canceled,
    read_heartbeat,
    read_placed,
)
from pmkit.exchanges.polymarket.order_plan import plan_limit, plan_market
from pmkit.exchanges.polymarket.orders import OrderSigner, SignedOrder
from pmkit.exchanges.polymarket.refusals import Proof, Verdict, judge, judge_leg
from pmkit.exchanges.polymarket.states import cancel_result, fill_state, order_state
from pmkit.exchanges.types import CancelResult, FillState, OrderState, Side, TimeInForce
from tests.polymarket.accounts import API_KEY, NOW_MS, market, signer

ID = "0x" + "5a" * 32
REFUSALS: list[tuple[int, str, str, type[Exception]]] = [
    (400, "order_version_mismatch", "version_mismatch", OrderRejected),
    (400, "Invalid order payload", "invalid_payload", OrderRejected),
    (400, "the order owner has to be the owner of the API KEY", "auth", AuthError),
    (400, "the order signer address has to be the address of the API KEY", "wallet_type", AuthError),
    (400, "maker address not allowed, please use the deposit wallet flow", "wallet_type", AuthError),
    (400, "'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266' address banned", "banned", OrderRejected),
    (400, "'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266' address in closed only mode", "closed_only", OrderRejected),
    (400, "invalid signature", "invalid_signature", OrderRejected),
    (400, f"order {ID} is invalid. Price (0.515) breaks minimum tick size rule: 0.01", "tick_size", OrderRejected),
    (400, f"order {ID} is invalid. Size (1) lower than the minimum: 5", "below_minimum", OrderRejected),
    (400, "invalid amount for a marketable BUY order ($0.5), min size: $1", "below_minimum", OrderRejected),
    (
        400,
        (
            "invalid amounts, the market buy orders maker amount supports a max accuracy of 2 decimals, "
            "taker amount a max of 4 decimals"
        ),
        "invalid_amounts",
        OrderRejected,
    ),
    (400, "invalid post-only order: order crosses book", "post_only_cross", OrderRejected),
    (400, f"order {ID} crosses the book", "post_only_cross", OrderRejected),
    (400, "not enough balance / allowance", "insufficient_funds", InsufficientFunds),
    (
        400,
        "not enough balance / allowance: the balance is not enough -> balance: 1000, order amount: 5000000",
        "insufficient_funds",
        InsufficientFunds,
    ),
    (
        400,
        "not enough balance / allowance: the allowance is not enough -> spender: 0xE111, allowance: 0, order amount: 5",
        "insufficient_allowance",
        InsufficientFunds,
    ),
    (400, "invalid expiration", "invalid_expiration", OrderRejected),
    (400, "invalid nonce", "invalid_nonce", OrderRejected),
    (400, "order canceled in the CTF exchange contract", "canceled_on_chain", OrderRejected),
    (400, "the market is not yet ready to process new orders", "market_not_ready", OrderRejected),
    (400, "Too many orders in payload: 16, max allowed: 15", "too_many_orders", OrderRejected),
    (400, "Payload exceeds the limit", "too_many_orders", OrderRejected),
    (400, "Invalid orderID", "invalid_payload", OrderRejected),
    (400, "invalid order params payload", "invalid_payload", OrderRejected),
    (400, "Invalid trade params payload", "invalid_payload", OrderRejected),
    (400, "Invalid asset type", "invalid_payload", OrderRejected),
    (400, "Invalid signature_type", "invalid_payload", OrderRejected),
    (400, "Invalid token id", "invalid_payload", OrderRejected),
    (400, "Invalid payload", "invalid_payload", OrderRejected),
    (400, "Invalid side", "invalid_payload", OrderRejected),
    (401, "Unauthorized/Invalid api key", "auth", AuthError),
    (401, "Invalid api key", "auth", AuthError),
    (401, "Invalid L1 Request headers", "auth", AuthError),
    (403, "Trading restricted in your region", "region_blocked", RegionBlocked),
    (404, "No orderbook exists for the requested token id", "market_not_found", OrderRejected),
    (404, "market not found", "market_not_found", OrderRejected),
    (429, "Too Many Requests", "rate_limited", RateLimited),
    (503, "Trading is currently disabled. Check polymarket.com for updates", "trading_disabled", VenueUnavailable),
    (503, "trading is disabled", "trading_disabled", VenueUnavailable),
    (
        503,
        "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed.",
        "cancel_only",
        VenueUnavailable,
    ),
    (503, "post-only mode: only post-only orders and cancels are allowed", "post_only_mode", VenueUnavailable),
]
KILLS = [
    "order couldn't be fully filled. FOK orders are fully filled or killed.",
    "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found.",
]
UNKNOWN = [
    (400, "order match delayed due to market conditions"),
    (400, "context canceled"),
    (400, "something new"),
    (400, "Too Many Requests"),
    (400, "invalid signature of the times"),
    (400, "could not insert order: not enough balance / allowance"),
    (401, "not enough balance / allowance"),
    (404, "order not found"),
    (425, "Too Early"),
    (425, "the market is not yet ready to process new orders"),
    (500, "there are no matching orders"),
    (500, "the trade contains rounding issues"),
    (500, "could not run the execution"),
    (500, "could not insert order"),
    (500, "order timed out"),
    (500, "not enough balance / allowance"),
    (500, f"order {ID} is invalid. Duplicated."),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "trading is disabled"),
]


def said(text: str, **more: Any) -> bytes:
    return json.dumps({"error": text} | more).encode()


def buy(time_in_force: TimeInForce = TimeInForce.GTC, size: str = "10") -> SignedOrder:
    plan = plan_limit(market(), "UP", Side.BUY, "0.50", size, now_ms=NOW_MS, time_in_force=time_in_force)
    return OrderSigner(signer(), API_KEY).sign(plan, 7, NOW_MS)


def sell(time_in_force: TimeInForce = TimeInForce.IOC) -> SignedOrder:
    plan = plan_market(market(), "UP", Side.SELL, worst_price="0.50", size="10", time_in_force=time_in_force)
    return OrderSigner(signer(), API_KEY).sign(plan, 7, NOW_MS)


def answer(sent: SignedOrder, status: str, **more: Any) -> bytes:
    row = {"success": True, "errorMsg": "", "orderID": sent.order_id, "status": status}
    return json.dumps(row | {"makingAmount": "", "takingAmount": ""} | more).encode()


@pytest.mark.parametrize(("status", "text", "code", "kind"), REFUSALS)
def test_the_table_of_refusals(status: int, text: str, code: str, kind: type[Exception]) -> None:
    for body in (said(text), json.dumps({"errorMsg": text + "."}).encode(), json.dumps(text.upper()).encode()):
        verdict = judge(status, body)
        assert (verdict.proof, verdict.code) == (Proof.REFUSED, code)
        assert isinstance(verdict.error(), kind) and isinstance(verdict.error(), OrderRejected)
        assert verdict.reason.lower().startswith(text.lower().rstrip("."))
    leg = judge_leg(text)
    assert (leg.proof, leg.code) == (Proof.REFUSED, code)
    # The same text with a status that says the server broke down proves nothing.
    for other in (425, 500, 502):
        assert judge(other, said(text)).proof is Proof.UNKNOWN


@pytest.mark.parametrize(("status", "text"), UNKNOWN)
def test_oe_04_what_is_no_proof(status: int, text: str) -> None:
    verdict = judge(status, said(text))
    assert verdict.proof is Proof.UNKNOWN
    with pytest.raises(ValueError, match="no refusal"):
        verdict.error()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 418, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"Too Many Requests", b"<html>502</html>", b"{", b"null", b"[]", b"7", b"{}", b"\xff", b"[" * 99_999),
        *(b'{"error":null}', b'{"error":{"a":1}}', b'{"error":""}', b'{"code":7}', b'{"status":"error"}'),
    ],
)
def test_rs_04_bodies_that_say_nothing(status: int, body: bytes) -> None:
    assert judge(status, body).proof is Proof.UNKNOWN


@given(st.sampled_from([200, 400, 401, 403, 404, 408, 425, 429, 500, 502, 503, 504]), st.text(max_size=200))
def test_anything_not_in_the_table_is_unknown(status: int, text: str) -> None:
    known = {row[1].lower().rstrip(".") for row in REFUSALS}
    if text.strip().rstrip(".").lower() in known:
        return
    assert judge(status, said(text)).proof is Proof.UNKNOWN
    assert judge_leg(text).proof is Proof.UNKNOWN


def test_known_texts_with_something_more_are_unknown() -> None:
    rng = random.Random(3)
    for status, text, _, _ in REFUSALS:
        for _ in range(20):
            at = rng.randrange(len(text) + 1)
            longer = text[:at] + rng.choice(["; but", "\n", "<b>", "å", '"']) + text[at:]
            if longer.strip() != text:
                assert judge(status, said(longer)).proof is Proof.UNKNOWN, longer
        assert judge(status, said(text + ". The order was placed")).proof is Proof.UNKNOWN


def test_rs_01_limits_and_pauses_say_when_to_come_back() -> None:
    body = said("post-only mode: only post-only orders and cancels are allowed", code="post_only_mode")
    error = judge(503, body[:-1] + b',"retry_after_seconds":90}').error()
    assert isinstance(error, VenueUnavailable) and error.retry_after == 90 and error.status == 503
    limited = judge(429, said("Too Many Requests"), retry_after=1.5).error()
    assert isinstance(limited, RateLimited) and limited.retry_after == 1.5
    assert judge(503, b'{"code":"post_only_mode"}').code == "post_only_mode"
    for odd in (b"true", b'"1"', b"-1", b"1e300", b"null"):
        assert (
            judge(503, said("trading is disabled")[:-1] + b',"retry_after_seconds":' + odd + b"}").retry_after is None
        )


def test_rs_07_the_edge_turns_away_with_html() -> None:
    page = b"<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title></html>"
    assert isinstance(judge(403, page).error(), RegionBlocked)
    assert judge(502, page).proof is Proof.UNKNOWN
    assert judge(403, b"<html>nginx</html>").proof is Proof.UNKNOWN


def test_messages_are_escaped_and_short() -> None:
    verdict = judge(400, said("\x1b[31m" + "x" * 5000))
    assert "\x1b" not in verdict.reason and len(verdict.reason) < 400


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", KILLS)
def test_oe_17_oe_18_a_kill_is_an_order_that_filled_nothing(text: str) -> None:
    for time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        sent = buy(time_in_force)
        for placed in (
            read_placed(400, said(text), sent),
            read_placed(500, said(text), sent),
            read_placed(200, json.dumps({"success": True, "errorMsg": text, "orderID": ""}).encode(), sent),
        ):
            assert isinstance(placed, Placed) and placed.order_id == sent.order_id
            assert (placed.order_id.status, placed.order_id.filled_amount) == (OrderState.CANCELED, 0)
    resting = read_placed(400, said(text), buy())
    assert isinstance(resting, Verdict) and resting.proof is Proof.UNKNOWN


def test_oe_02_duplicated_means_that_it_is_there() -> None:
    verdict = read_placed(400, said(f"order {ID} is invalid. Duplicated."), buy())
    assert isinstance(verdict, Verdict) and verdict.proof is Proof.DUPLICATE


@pytest.mark.parametrize(("word", "state"), [("live", OrderState.LIVE), ("delayed", OrderState.DELAYED)])
def test_accepted(word: str, state: OrderState) -> None:
    placed = read_placed(200, answer(buy(), word, tradeIDs=["t1"]), buy())
    assert isinstance(placed, Placed)
    assert (placed.order_id, placed.order_id.status, placed.trade_ids) == (buy().order_id, state, ("t1",))


@pytest.mark.parametrize(
    ("sent", "making", "taking", "state", "filled", "average"),
    [
        (buy(), "5", "10", OrderState.FILLED, "10", "0.5"),
        (buy(), "2.4", "5", OrderState.LIVE, "5", "0.48"),
        (buy(), "5000000", "10000000", OrderState.FILLED, "10", "0.5"),
        # Money is spent, a better price gave more shares.
        (buy(TimeInForce.IOC), "5", "12.5", OrderState.FILLED, "12.5", "0.4"),
        (buy(TimeInForce.IOC), "2", "5", OrderState.CANCELED, "5", "0.4"),
        (sell(), "10", "5.5", OrderState.FILLED, "10", "0.55"),
        (sell(), "9.995", "5.4", OrderState.FILLED, "9.995", None),
        (sell(), "4", "2", OrderState.CANCELED, "4", "0.5"),
    ],
)
def test_oe_17_a_match_says_how_much(
    sent: SignedOrder, making: str, taking: str, state: OrderState, filled: str, average: str | None
) -> None:
    placed = read_placed(200, answer(sent, "matched", makingAmount=making, takingAmount=taking), sent)
    assert isinstance(placed, Placed)
    assert (placed.order_id.status, placed.order_id.filled_amount) == (state, Decimal(filled))
    if average is not None:
        assert placed.order_id.average_price == Decimal(average)


@pytest.mark.parametrize(
    ("making", "taking"), [("", ""), ("6", "9"), ("x", "y"), ("-1", "2"), ("5", "0"), ("5", "1" * 39)]
)
def test_amounts_that_do_not_fit_are_left_out(making: str, taking: str) -> None:
    placed = read_placed(200, answer(buy(), "matched", makingAmount=making, takingAmount=taking), buy())
    assert isinstance(placed, Placed)
    assert (placed.order_id.status.terminal, placed.order_id.filled_amount) == (False, 0)


@pytest.mark.parametrize(
    "body",
    [
        answer(buy(), "unmatched"),
        answer(buy(), "resting"),
        answer(buy(), ""),
        answer(buy(), "live", errorMsg="could not insert order"),
        answer(buy(), "live", success=False),
        answer(buy(), "live", orderID=ID),
        answer(buy(), "live", orderID=7 * 10**70),
        answer(buy(), "live", tradeIDs="t1"),
        answer(buy(), "", orderID=""),
        answer(buy(), "", orderID="", errorMsg="Insufficient balance"),
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"OK"',
        b"<html>",
    ],
)
def test_rs_13_a_200_that_is_no_acceptance(body: bytes) -> None:
    verdict = read_placed(200, body, buy())
    assert isinstance(verdict, Verdict) and verdict.proof is Proof.UNKNOWN


def test_oe_21_a_batch_has_a_result_per_leg() -> None:
    sent = [buy(size=str(size)) for size in (10, 11, 12)]
    refused = {"success": True, "errorMsg": "not enough balance / allowance", "orderID": "", "status": ""}
    odd = {"success": True, "errorMsg": "order timed out", "orderID": "", "status": ""}
    body = json.dumps([json.loads(answer(sent[0], "live")), refused, odd]).encode()
    placed, lacking, unknown = read_batch(200, body, sent)
    assert isinstance(placed, Placed) and placed.order_id == sent[0].order_id
    assert isinstance(lacking, Verdict) and isinstance(lacking.error(), InsufficientFunds)
    assert isinstance(unknown, Verdict) and unknown.proof is Proof.UNKNOWN
    swapped = json.dumps([json.loads(answer(order, "live")) for order in sent[::-1]]).encode()
    found = read_batch(200, swapped, sent)
    assert [isinstance(item, Placed) for item in found] == [False, True, False]
    for whole, proof in (
        (read_batch(429, said("Too Many Requests"), sent), Proof.REFUSED),
        (read_batch(200, json.dumps([refused]).encode(), sent), Proof.UNKNOWN),
        (read_batch(200, b"{}", sent), Proof.UNKNOWN),
        (read_batch(500, b"", sent), Proof.UNKNOWN),
        (read_batch(400, said(KILLS[0]), sent), Proof.UNKNOWN),
    ):
        assert len(whole) == 3
        assert all(isinstance(item, Verdict) and item.proof is proof for item in whole)


def test_recorded_order_answers(recordings: Path) -> None:
    samples = recordings / "polymarket" / "samples" / "nautilus"
    for name, status in (
        ("http_order_response_ok", 200),
        ("http_order_response_failed", 200),
        ("http_order_response_error_500", 500),
    ):
        verdict = read_placed(status, (samples / f"{name}.json").read_bytes(), buy())
        assert isinstance(verdict, Verdict) and verdict.proof is Proof.UNKNOWN


@given(st.integers(100, 599), st.binary(max_size=300))
def test_answers_never_raise(status: int, body: bytes) -> None:
    assert isinstance(read_placed(status, body, buy()), Verdict)
    assert len(read_batch(status, body, [buy()])) == 1


# -- cancels, account -----------------------------------------------------------------------------------------------


def test_oe_05_cancels_say_what_is_final(recordings: Path) -> None:
    samples = recordings / "polymarket" / "samples" / "nautilus"
    found = read_canceled((samples / "http_batch_cancel_response.json").read_bytes())
    assert sorted(found.results.values()) == [CancelResult.ALREADY_DONE, CancelResult.CANCELED, CancelResult.CANCELED]
    failed = read_canceled((samples / "http_cancel_response_failed.json").read_bytes())
    assert [bool(result) for result in failed.results.values()] == [False]
    assert cancel_result("Order not found or already canceled") is CancelResult.ALREADY_DONE
    waiting = "cannot cancel because the order is in pending/delayed status"
    odd = read_canceled(json.dumps({"canceled": None, "not_canceled": {"0xAB": waiting, "0xCD": "who knows"}}).encode())
    assert odd.results == {"0xab": CancelResult.NOT_YET} and odd.odd == {"0xcd": "'who knows'"}
    for wrong in (b"", b"[]", b"{}", b"null", b'{"canceled":"0x1"}', b'{"not_canceled":[]}', b'{"error":"x"}'):
        with pytest.raises(ProtocolChanged):
            read_canceled(wrong)


def test_balances_are_whole_base_units(recordings: Path) -> None:
    samples = recordings / "polymarket" / "samples" / "nautilus"
    assert read_balance((samples / "http_balance_allowance_collateral.json").read_bytes()).balance == 1000
    most = str(2**256 - 1)
    found = read_balance(json.dumps({"balance": "5250001", "allowances": {"0xE111": most, "0xe222": 7}}).encode())
    assert found.balance == Decimal("5.250001")
    assert found.allows("0xe111", 10**30) and found.allows("0xE222", 7)
    assert not found.allows("0xE222", 8) and not found.allows("0xE333", 1)
    for wrong in (b"", b"{}", b'{"balance":"250.5"}', b'{"balance":250.5}', b'{"balance":"-1"}', b'{"balance":true}'):
        with pytest.raises(ProtocolChanged):
            read_balance(wrong)


def test_oe_19_heartbeats_go_on_with_the_id_of_the_answer() -> None:
    beat = read_heartbeat(200, b'{"heartbeat_id":"7d9d"}')
    assert beat is not None and (beat.heartbeat_id, beat.accepted) == ("7d9d", True)
    wrong = read_heartbeat(400, b'{"error_msg":"Invalid Heartbeat ID","heartbeat_id":"7d9d"}')
    assert wrong is not None and (wrong.heartbeat_id, wrong.accepted) == ("7d9d", False)
    older = read_heartbeat(200, b'{"status":"ok"}')
    assert older is not None and older.accepted
    for status, body in ((500, b'{"heartbeat_id":"1"}'), (200, b"<html>"), (400, b'{"error":"x"}'), (200, b"[]")):
        assert read_heartbeat(status, body) is None


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "event", "state", "reason"),
    [
        ("LIVE", "", OrderState.LIVE, ""),
        ("ORDER_STATUS_LIVE", "", OrderState.LIVE, ""),
        ("live", "PLACEMENT", OrderState.LIVE, ""),
        ("MATCHED", "UPDATE", OrderState.FILLED, ""),
        ("DELAYED", "", OrderState.DELAYED, ""),
        ("ORDER_STATUS_CANCELED_MARKET_RESOLVED", "", OrderState.CANCELED, "market resolved"),
        ("CANCELED_NOT_ENOUGH_BALANCE", "CANCELLATION", OrderState.CANCELED, "not enough balance"),
        ("CANCELED_EXPIRED_ORDER", "CANCELLATION", OrderState.EXPIRED, "expired order"),
        ("CANCELED_FROM_THE_FUTURE", "", OrderState.CANCELED, "from the future"),
        (f"CANCELED_{KILLS[0]}", "CANCELLATION", OrderState.CANCELED, KILLS[0]),
        ("INVALID", "CANCELLATION", OrderState.CANCELED, "canceled by the venue"),
        ("ORDER_STATUS_INVALID", "", OrderState.REJECTED, ""),
        ("UNMATCHED", "", None, ""),
        ("BRAND_NEW", "UPDATE", None, ""),
    ],
)
def test_order_words(word: str, event: str, state: OrderState | None, reason: str) -> None:
    found = order_state(word, event)
    assert (found.state, found.word, found.reason) == (state, word, reason)


@given(st.text(max_size=60))
def test_whatever_begins_with_canceled_is_final(rest: str) -> None:
    found = order_state("CANCELED" + rest)
    assert found.state is not None and found.state.terminal


def test_trade_words() -> None:
    for word in ("MATCHED", "MINED", "RETRYING", "TRADE_STATUS_MATCHED_NOT_BROADCASTED"):
        assert fill_state(word) is FillState.PENDING
    assert fill_state("TRADE_STATUS_CONFIRMED") is FillState.FINAL
    assert fill_state("FAILED") is FillState.FAILED
    assert fill_state("SETTLED") is None
