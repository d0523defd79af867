"""Own orders, fills, positions and money: REST rows and socket frames to pmkit's types."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.exchanges.kalshi.fees import QUANTUM, charge, fee_rule
from pmkit.exchanges.kalshi.types import NO, YES, RowError
from pmkit.exchanges.kalshi.user_messages import (
    BalanceAnswer,
    FillFrame,
    FillRow,
    LimitsAnswer,
    MarketPositionFrame,
    OrderGroupFrame,
    OrderRow,
    PositionRow,
    PositionsPage,
    SettlementRow,
    UserOrderFrame,
    decode_user_frame,
)
from pmkit.exchanges.kalshi.user_types import (
    balance,
    fill,
    order_id_of,
    order_status,
    payouts,
    position,
    profit,
    trade,
    unseen,
)
from pmkit.exchanges.types import FillState, Liquidity, OrderState, Side, TimeInForce, TradeResult
from tests.sim.openapi import Spec

T = "KXBTC15M-26NOV201215-15"
ORDER: dict[str, Any] = {
    "order_id": "ee58",
    "user_id": "u",
    "client_order_id": "mine",
    "ticker": T,
    "outcome_side": "no",
    "book_side": "ask",
    "type": "limit",
    "status": "resting",
    "yes_price_dollars": "0.3500",
    "no_price_dollars": "0.6500",
    "initial_count_fp": "10.00",
    "fill_count_fp": "4.00",
    "remaining_count_fp": "6.00",
    "taker_fill_cost_dollars": "0.660000",
    "maker_fill_cost_dollars": "1.950000",
    "taker_fees_dollars": "0.015800",
    "maker_fees_dollars": "0.000000",
    "created_time": "2026-11-20T17:01:00.123456Z",
    "last_update_time": "2026-11-20T17:02:00Z",
    "expiration_time": None,
    "self_trade_prevention_type": "taker_at_cross",
    "exchange_index": 2,
}
FILL: dict[str, Any] = {
    "fill_id": "d91b",
    "trade_id": "d91b",
    "order_id": "ee58",
    "ticker": T,
    "market_ticker": T,
    "exchange_index": 2,
    "outcome_side": "no",
    "book_side": "ask",
    "count_fp": "2.50",
    "yes_price_dollars": "0.3400",
    "no_price_dollars": "0.6600",
    "is_taker": True,
    "fee_cost": "0.039300",
    "created_time": "2026-11-20T17:01:00.5Z",
}
SETTLEMENT: dict[str, Any] = {
    "ticker": T,
    "exchange_index": 2,
    "event_ticker": T[:-3],
    "market_result": "yes",
    "yes_count_fp": "10.00",
    "yes_total_cost_dollars": "5.6000",
    "no_count_fp": "0.00",
    "no_total_cost_dollars": "0.0000",
    "revenue": 1000,
    "settled_time": "2026-11-20T17:15:04Z",
    "fee_cost": "0.1725",
    "value": 100,
}


@pytest.fixture(scope="module")
def spec(recordings: Path) -> Spec:
    pytest.importorskip("yaml")
    return Spec(recordings / "kalshi" / "spec" / "openapi-3.28.0-2026-08-22.yaml")


def row(**changes: Any) -> OrderRow:
    return msgspec.convert(ORDER | changes, OrderRow)


def frame(kind: str, message: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"type": kind, "sid": 13, "msg": message} | more).encode()


def test_the_rows_here_are_those_of_the_specification(spec: Spec) -> None:
    for name, value in (("Order", ORDER), ("Fill", FILL), ("Settlement", SETTLEMENT)):
        assert not spec.problems(value, spec.schema(name))


@pytest.mark.parametrize(
    ("kind", "schema"),
    [(OrderRow, "Order"), (FillRow, "Fill"), (PositionRow, "MarketPosition"), (SettlementRow, "Settlement")],
)
def test_every_field_that_is_read_exists(spec: Spec, kind: type, schema: str) -> None:
    names = {one.encode_name for one in msgspec.structs.fields(kind)}
    properties = spec.schema(schema)["properties"]
    assert names <= set(properties)
    required = {one.encode_name for one in msgspec.structs.fields(kind) if one.required}
    assert required <= set(spec.schema(schema)["required"])


def test_an_order_in_the_terms_of_the_outcome_that_was_asked_for() -> None:
    bought_no = order_status(row())
    assert (bought_no.outcome, bought_no.side, bought_no.price) == (NO, Side.BUY, Decimal("0.65"))
    assert bought_no.average_price == Decimal("0.6525")
    assert (bought_no.status, bought_no.filled_amount, bought_no.remaining) == (OrderState.LIVE, 4, 6)
    assert bought_no.fee == Decimal("0.0158")
    sold_yes = order_status(row(), YES)
    assert (sold_yes.outcome, sold_yes.side, sold_yes.price) == (YES, Side.SELL, Decimal("0.35"))
    assert sold_yes.average_price == Decimal("0.3475")
    found = order_id_of(sold_yes)
    assert (found, found.filled_amount, found.average_price) == ("ee58", 4, Decimal("0.3475"))


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"status": "executed", "fill_count_fp": "10.00", "remaining_count_fp": "0.00"}, OrderState.FILLED),
        ({"status": "canceled", "remaining_count_fp": "0.00"}, OrderState.CANCELED),
        ({"status": "canceled", "expiration_time": "2026-11-20T17:02:00Z"}, OrderState.EXPIRED),
        ({"status": "canceled", "expiration_time": "2026-11-20T17:02:01Z"}, OrderState.CANCELED),
    ],
)
def test_order_states(changes: dict[str, Any], state: OrderState) -> None:
    found = order_status(row(**changes))
    assert found.status is state
    assert found.remaining == 0
    assert found.time_in_force is (TimeInForce.GTD if "expiration_time" in changes else TimeInForce.GTC)


def test_words_and_numbers_that_cannot_be_are_looked_up() -> None:
    for changes in (
        {"status": "pending"},
        {"book_side": "yes"},
        {"yes_price_dollars": "35"},
        {"fill_count_fp": "-1.00"},
        {"initial_count_fp": "NaN"},
        {"created_time": "yesterday"},
    ):
        with pytest.raises(RowError):
            order_status(row(**changes))
    with pytest.raises(RowError):
        order_status(row(), "UP")


def test_a_user_order_frame() -> None:
    message = {name: value for name, value in ORDER.items() if not name.endswith("_time")} | {
        "created_ts_ms": 1,
        "last_updated_ts_ms": 2_000,
        "expiration_ts_ms": 9_000,
        "status": "canceled",
        "last_update_reason": "SelfTradeCancel",
        "remaining_count_fp": "0.00",
        "side": "yes",
        "is_yes": False,
    }
    decoded = decode_user_frame(frame("user_order", message, seq=4, sending_ts_ms=3))
    assert isinstance(decoded, UserOrderFrame)
    found = order_status(decoded.msg, received_ns=7)
    assert (found.status, found.reason, found.updated_ms, found.received_ns) == (
        OrderState.CANCELED,
        "SelfTradeCancel",
        2_000,
        7,
    )
    expired = msgspec.structs.replace(decoded.msg, last_update_reason="ExpiryCancel")
    assert order_status(expired).status is OrderState.EXPIRED
    new_word = msgspec.structs.replace(decoded.msg, last_update_reason="OfTomorrow", last_updated_ts_ms=9_000)
    assert (order_status(new_word).status, order_status(new_word).reason) == (OrderState.CANCELED, "OfTomorrow")


def test_fills_keep_their_fraction_and_are_final() -> None:
    found = fill(msgspec.convert(FILL, FillRow), client_order_id="mine")
    assert (found.outcome, found.side, found.price, found.size) == (NO, Side.BUY, Decimal("0.66"), Decimal("2.50"))
    assert (found.fee, found.state, found.liquidity) == (Decimal("0.0393"), FillState.FINAL, Liquidity.TAKER)
    assert found.client_order_id == "mine"
    sold = fill(msgspec.convert(FILL, FillRow), YES)
    assert (sold.outcome, sold.side, sold.price) == (YES, Side.SELL, Decimal("0.34"))
    with pytest.raises(RowError):
        fill(msgspec.convert(FILL | {"count_fp": "0.00"}, FillRow))


def test_the_recorded_fill_frame(recordings: Path) -> None:
    data = (recordings / "kalshi" / "samples" / "ws_fill_20260701.json").read_bytes()
    decoded = decode_user_frame(data)
    assert isinstance(decoded, FillFrame)
    found = fill(decoded.msg)
    assert (found.outcome, found.side, found.price, found.size) == (YES, Side.BUY, Decimal("0.17"), Decimal("5.52"))
    assert found.venue_ms == 1782873388379
    assert found.fee == charge(
        fee_rule("quadratic", Decimal(1), "test"), found.price, found.size, trade_fee_quantum=QUANTUM
    )


def test_a_fill_live_and_back_filled_is_one_fill() -> None:
    live = {name: FILL[name] for name in FILL if name not in ("fill_id", "ticker", "created_time", "no_price_dollars")}
    decoded = decode_user_frame(frame("fill", live | {"client_order_id": "mine", "ts_ms": 1795194060500}))
    assert isinstance(decoded, FillFrame)
    first, again = fill(decoded.msg), fill(msgspec.convert(FILL, FillRow))
    seen: set[tuple[str, str, str]] = set()
    assert unseen([first], seen) == [first]
    assert unseen([again, first], seen) == []


def test_official_frames(recordings: Path) -> None:
    """Every private frame among the documented examples decodes and converts.

    Two examples are older than their own schema, which requires these fields; the recorded frame has them.
    """
    required = {"fill": {"book_side": "bid", "fee_cost": "3.648750"}, "user_order": {"book_side": "bid"}}
    text = (recordings / "kalshi" / "ws" / "official_examples.json").read_text()
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict) and value.get("type") in (
            "fill",
            "user_order",
            "market_position",
            "order_group_updates",
        ):
            message = required.get(value["type"], {}) | value["msg"]
            decoded = decode_user_frame(json.dumps(value | {"msg": message}).encode())
            if isinstance(decoded, FillFrame):
                assert fill(decoded.msg).size > 0
            elif isinstance(decoded, UserOrderFrame):
                assert order_status(decoded.msg).order_id
            elif isinstance(decoded, MarketPositionFrame):
                assert position(decoded.msg, 1) is not None
            else:
                assert isinstance(decoded, OrderGroupFrame)
            found.append(value["type"])
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    walk(json.loads(text))
    assert {"fill", "user_order", "market_position"} <= set(found)


def test_positions_below_zero_are_no(recordings: Path) -> None:
    held = msgspec.convert({"ticker": T, "position_fp": "-2.50", "market_exposure_dollars": "1.500000"}, PositionRow)
    found = position(held, 5)
    assert found is not None
    assert (found.outcome, found.token_id, found.size) == (NO, f"{T}:NO", Decimal("2.50"))
    assert (found.average_price, found.as_of_ms) == (Decimal("0.6"), 5)
    assert position(msgspec.structs.replace(held, position_fp="0.00"), 5) is None
    path = recordings / "kalshi" / "samples" / "rest_orderbook_positions_20260701.jsonl.gz"
    answers = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    recorded = next(one for one in answers if one["url"].endswith("/positions"))
    page = msgspec.json.decode(recorded["response_body"], type=PositionsPage)
    assert page.market_positions is not None
    assert len(page.market_positions) == 4
    assert not any(position(one, 5) for one in page.market_positions)


def test_what_an_order_can_spend_is_on_its_shard() -> None:
    answer = msgspec.json.decode(
        b'{"balance":11234,"balance_dollars":"112.3456","portfolio_value":0,"updated_ts":1,'
        b'"balance_breakdown":[{"exchange_index":0,"balance":"100.0056"},{"exchange_index":2,"balance":"12.3400"}]}',
        type=BalanceAnswer,
    )
    assert balance(answer) == Decimal("112.3456")
    assert balance(answer, 2) == Decimal("12.34")
    assert balance(answer, 3) == 0
    with pytest.raises(RowError, match="breakdown"):
        balance(BalanceAnswer("1.00"), 2)


def test_settlements() -> None:
    settled = msgspec.convert(SETTLEMENT, SettlementRow)
    assert payouts(settled) == (1, 0)
    assert profit(settled) == Decimal("4.2275")
    scalar = msgspec.structs.replace(settled, market_result="scalar", value=37)
    assert payouts(scalar) == (Decimal("0.37"), Decimal("0.63"))
    assert payouts(msgspec.structs.replace(settled, market_result="of_tomorrow")) is None


def test_trades_won_lost_and_open() -> None:
    bought = fill(msgspec.convert(FILL, FillRow))
    assert (trade(bought, None).result, trade(bought, None).pnl) == (TradeResult.OPEN, None)
    lost = trade(bought, (Decimal(1), Decimal(0)))
    assert (lost.result, lost.pnl) == (TradeResult.LOST, Decimal("-0.66") * Decimal("2.5") - Decimal("0.0393"))
    sold = fill(msgspec.convert(FILL, FillRow), YES)
    # The same fill, told as a sale of YES: the money is the same.
    assert trade(sold, (Decimal(1), Decimal(0))).pnl == lost.pnl
    assert trade(sold, (Decimal(0), Decimal(1))).result is TradeResult.WON
    assert trade(bought, (Decimal("0.37"), Decimal("0.63"))).result is TradeResult.VOID


def test_account_limits(recordings: Path) -> None:
    limits = json.loads((recordings / "kalshi" / "rest" / "account_limits_basic.json").read_text())["account_limits"]
    found = msgspec.convert(limits, LimitsAnswer)
    assert (found.usage_tier, found.read.bucket_capacity, found.write.refill_rate) == ("basic", 600, 100)


@given(data=st.binary(max_size=80), cut=st.integers(0, 300), place=st.integers(0, 300))
def test_damaged_frames_raise_decoding_errors_only(data: bytes, cut: int, place: int) -> None:
    message = {name: FILL[name] for name in FILL if name not in ("fill_id", "ticker")}
    whole = frame("fill", message)
    assert isinstance(decode_user_frame(whole), FillFrame)
    for damaged in (data, whole[:cut], whole[:place] + data + whole[place:]):
        try:
            decoded = decode_user_frame(damaged)
            if isinstance(decoded, FillFrame):
                fill(decoded.msg)
        except (msgspec.DecodeError, UnicodeDecodeError, RowError):
            continue


# -- the charge -------------------------------------------------------------------------------------------------------


@given(price=st.integers(1, 9_999), count=st.integers(1, 10**7), maker=st.booleans())
def test_a_charge_moves_the_balance_by_whole_quanta_and_costs_less_than_two_more(
    price: int, count: int, maker: bool
) -> None:
    rule = fee_rule("quadratic", Decimal(1), "test")
    dollars, contracts = Decimal(price).scaleb(-4), Decimal(count).scaleb(-2)
    charged = charge(rule, dollars, contracts, maker)
    assert (charged + dollars * contracts) % QUANTUM == 0
    assert 0 <= charged - rule.raw(dollars, contracts, maker) < 2 * QUANTUM
    assert charged <= rule.fee(dollars, contracts, maker) + QUANTUM
