"""The user channel, orders and trades over REST, live prices: samples, own legs, and frames that are none of these."""

from __future__ import annotations

import contextlib
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.reference_messages import (
    AVERAGE,
    PRICE,
    ControlMessage,
    PriceMessage,
    PriceTick,
    Topic,
    asset_of,
    decode_prices,
    subscribe_frame,
    symbol_of,
)
from pmkit.exchanges.polymarket.user_messages import (
    Odd,
    OwnOrder,
    OwnTrade,
    decode_order,
    decode_orders,
    decode_trades,
    decode_user,
)
from pmkit.exchanges.types import FillState, Liquidity, OrderState, Side

MINE, OTHER = "0x" + "aa" * 32, "0x" + "bb" * 32
KEY, STRANGER = "11111111-2222-3333-4444-555555555555", "99999999-0000-0000-0000-000000000000"
ME, THEM = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x" + "12" * 20
UP, DOWN = "1001", "1002"


def order(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "order",
        "type": "PLACEMENT",
        "id": MINE,
        "owner": KEY,
        "order_owner": KEY,
        "market": "0xc0",
        "asset_id": UP,
        "side": "BUY",
        "original_size": "10",
        "size_matched": "0",
        "price": "0.57",
        "associate_trades": None,
        "outcome": "Up",
        "created_at": "1795176300",
        "expiration": "1795180000",
        "order_type": "GTD",
        "status": "LIVE",
        "maker_address": ME,
        "timestamp": "1795176300123",
    }
    return row | changes


def maker(**changes: Any) -> dict[str, Any]:
    row = {
        "order_id": MINE,
        "owner": KEY,
        "maker_address": ME,
        "asset_id": UP,
        "side": "SELL",
        "price": "0.57",
        "matched_amount": "4",
        "outcome": "Up",
        "fee_rate_bps": "0",
    }
    return row | changes


def trade(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "trade",
        "type": "TRADE",
        "id": "28c4d2eb",
        "taker_order_id": OTHER,
        "market": "0xc0",
        "asset_id": UP,
        "side": "BUY",
        "size": "10",
        "price": "0.57",
        "fee_rate_bps": "0",
        "status": "MATCHED",
        "match_time": "1795176301",
        "last_update": "1795176301",
        "outcome": "Up",
        "owner": STRANGER,
        "trade_owner": STRANGER,
        "maker_address": THEM,
        "transaction_hash": "",
        "bucket_index": 0,
        "maker_orders": [maker(), maker(order_id=OTHER[:-1] + "c", owner=STRANGER, maker_address=THEM)],
        "trader_side": "MAKER",
        "timestamp": "1795176301",
    }
    return row | changes


def one(content: Any) -> Any:
    (event,) = decode_user(json.dumps(content).encode())
    return event


# -- samples --------------------------------------------------------------------------------------------------------


def test_every_recorded_user_event_reads(recordings: Path) -> None:
    folder = recordings / "polymarket" / "samples" / "nautilus"
    files = [*folder.glob("ws_user_*.json"), *folder.glob("py_ws_order_*.json"), *folder.glob("py_ws_user_*.json")]
    assert len(files) >= 12
    for path in files:
        for event in decode_user(path.read_bytes()):
            assert isinstance(event, OwnOrder | OwnTrade), (path.name, event)
            assert event.venue_ms > 1_700_000_000_000, path.name
            state = event.state.state if isinstance(event, OwnOrder) else None
            if "cancel" in path.name or "killed" in path.name:
                assert state is OrderState.CANCELED, path.name
    both = b"[" + b",".join(path.read_bytes() for path in files) + b"]"
    assert len(decode_user(both)) == len(files)


def test_recorded_trades_give_own_legs(recordings: Path) -> None:
    folder = recordings / "polymarket" / "samples" / "nautilus"
    (event,) = decode_user((folder / "py_ws_user_trade1.json").read_bytes())
    assert isinstance(event, OwnTrade) and event.trader_side == "MAKER"
    (leg,) = event.legs(api_key="3e2c94ca-8124-c4c1-c7ea-be1ea21b71fe")
    raw = json.loads((folder / "py_ws_user_trade1.json").read_text())
    mine = next(row for row in raw["maker_orders"] if row["owner"] == "3e2c94ca-8124-c4c1-c7ea-be1ea21b71fe")
    assert (leg.order_id, leg.size, leg.price) == (
        mine["order_id"],
        Decimal(mine["matched_amount"]),
        Decimal(mine["price"]),
    )
    assert (leg.liquidity, leg.state) == (Liquidity.MAKER, FillState.PENDING)
    # The frame names no sides of makers: the taker bought Yes at 0.518; who sold Yes sold, who gave No bought it.
    sides = {row["outcome"]: set() for row in raw["maker_orders"]}
    for row in raw["maker_orders"]:
        (found,) = event.legs(order_ids={row["order_id"]})
        sides[row["outcome"]].add(found.side)
    assert sides == {"No": {Side.BUY}, "Yes": {Side.SELL}}


def test_recorded_pages(recordings: Path) -> None:
    folder = recordings / "polymarket" / "samples" / "nautilus"
    orders = decode_orders((folder / "http_open_orders_page.json").read_bytes())
    assert [row.size_matched for row in orders.rows] == [0, 50] and orders.next_cursor is None
    assert orders.rows[0].created_ms == 1_703_875_200_000
    trades = decode_trades((folder / "http_trades_page.json").read_bytes())
    (leg,) = trades.rows[0].legs()
    assert (leg.size, leg.state, leg.venue_ms) == (10, FillState.PENDING, 1_704_067_210_000)
    for name in ("http_open_order", "http_open_order_sell_fok"):
        row = decode_order((folder / f"{name}.json").read_bytes())
        assert row is not None and row.event == ""
    report = json.loads((folder / "http_trade_report.json").read_text())
    assert decode_trades(json.dumps([report]).encode()).rows[0].legs()[0].state is FillState.FINAL


# -- orders ---------------------------------------------------------------------------------------------------------


def test_an_order_event() -> None:
    event = one(order())
    assert (event.order_id, event.outcome, event.side, event.price) == (MINE, "UP", Side.BUY, Decimal("0.57"))
    assert (event.created_ms, event.venue_ms, event.expiration) == (1_795_176_300_000, 1_795_176_300_123, 1_795_180_000)
    assert event.state.state is OrderState.LIVE and not event.size_is_money
    assert one(order(order_type="FAK")).size_is_money and not one(order(order_type="FAK", side="SELL")).size_is_money


@pytest.mark.parametrize(
    "value", ["1795176300", 1795176300, "1795176300000", 1795176300000, "2026-11-20T12:05:00Z", 1795176300000000]
)
def test_times_come_in_many_units(value: Any) -> None:
    assert one(order(timestamp=value, created_at=value)).venue_ms == 1_795_176_300_000
    assert one(trade(timestamp=None, last_update=value)).venue_ms == 1_795_176_300_000
    later = trade(matchtime=value)
    del later["match_time"]
    assert one(later).matched_ms == 1_795_176_300_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (name, missing)
            for name in ("id", "asset_id", "side", "price", "original_size", "status")
            for missing in (None, "")
        ),
        ("side", "LONG"),
        ("price", "NaN"),
        ("price", "-0.5"),
        ("price", True),
        ("price", "1e400"),
        ("price", "570000"),
        ("original_size", [1]),
        ("original_size", "1" * 60),
        ("timestamp", "yesterday"),
        ("timestamp", -5),
        ("associate_trades", "t1"),
        ("associate_trades", [1]),
    ],
)
def test_rows_that_cannot_be_are_said_to_be_odd(field: str, value: Any) -> None:
    event = one(order(**{field: value}))
    assert isinstance(event, Odd) and event.kind == "order" and field in event.problem
    with pytest.raises(ProtocolChanged, match=field):
        decode_order(json.dumps(order(**{field: value})).encode())
    with pytest.raises(ProtocolChanged, match=field):
        decode_orders(json.dumps({"data": [order(), order(**{field: value})], "next_cursor": "LTE="}).encode())


def test_a_taker_without_its_order_is_odd_and_ids_are_in_lower_case() -> None:
    event = one(trade(taker_order_id=None, trader_side="TAKER"))
    assert isinstance(event, Odd) and "taker_order_id" in event.problem
    event = one(trade(taker_order_id="0xAB", trader_side="TAKER"))
    assert isinstance(event, OwnTrade) and event.taker_order_id == "0xab"


def test_numbers_stay_exact() -> None:
    text = json.dumps(order()).replace('"0.57"', "0.1234567890123456789").replace('"10"', "10.10")
    (event,) = decode_user(text.encode())
    assert isinstance(event, OwnOrder)
    assert str(event.price) == "0.1234567890123456789" and str(event.original_size) == "10.10"


def test_one_bad_event_does_not_hide_the_others() -> None:
    frame = json.dumps([order(), 7, order(price=None), {"event_type": "brand_new"}, trade()]).encode()
    kinds = [type(event).__name__ for event in decode_user(frame)]
    assert kinds == ["OwnOrder", "Odd", "Odd", "Odd", "OwnTrade"]
    assert decode_user(frame)[3] == Odd("brand_new")
    assert decode_user(b"[]") == []


def test_oe_08_not_found_is_not_cancelled() -> None:
    for nothing in (b"null", b"{}", b'""'):
        assert decode_order(nothing) is None
    for odd in (b"", b"<html>", b"[]", b'{"error":"x"}', b"7"):
        with pytest.raises(ProtocolChanged):
            decode_order(odd)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"{}", b'{"data":null}', b'{"data":{}}', b'{"error":"x"}', b'{"data":[7]}'),
        *(b'{"data":[],"error":"internal"}', b'{"data":[],"next_cursor":17}'),
    ],
)
def test_rs_13_a_failed_query_is_no_empty_page(body: bytes) -> None:
    if body == b'{"data":null}':
        assert decode_orders(body).rows == ()
        return
    for decode in (decode_orders, decode_trades):
        with pytest.raises(ProtocolChanged):
            decode(body)


def test_pages_go_on_until_the_last_cursor() -> None:
    page = {"limit": 1, "count": 1, "data": [order()]}
    assert decode_orders(json.dumps(page | {"next_cursor": "MTAw"}).encode()).next_cursor == "MTAw"
    for last in ("LTE=", "", None):
        assert decode_orders(json.dumps(page | {"next_cursor": last}).encode()).next_cursor is None


# -- legs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [{"order_ids": {MINE}}, {"api_key": KEY}, {"address": ME.lower()}])
def test_a_makers_leg_is_its_own_element(who: dict[str, Any]) -> None:
    (leg,) = one(trade()).legs(**who)
    assert (leg.order_id, leg.side, leg.size, leg.liquidity) == (MINE, Side.SELL, 4, Liquidity.MAKER)


def test_a_maker_in_the_other_outcome_has_its_own_terms() -> None:
    mint = maker(asset_id=DOWN, outcome="Down", price="0.43", side="BUY")
    (leg,) = one(trade(maker_orders=[mint])).legs(api_key=KEY)
    assert (leg.token_id, leg.outcome, leg.side, leg.price) == (DOWN, "DOWN", Side.BUY, Decimal("0.43"))
    for side, taker in ((Side.BUY, "BUY"), (Side.SELL, "SELL")):
        (leg,) = one(trade(side=taker, maker_orders=[mint | {"side": None}])).legs(api_key=KEY)
        assert leg.side is side


def test_several_own_makers_in_one_trade() -> None:
    second = OTHER[:-1] + "d"
    legs = one(trade(maker_orders=[maker(), maker(order_id=second, matched_amount="1.5")])).legs(api_key=KEY)
    assert [(leg.trade_id, leg.order_id, leg.size) for leg in legs] == [
        ("28c4d2eb", MINE, 4),
        ("28c4d2eb", second, Decimal("1.5")),
    ]


def test_a_takers_leg_is_the_outer_row() -> None:
    event = one(
        trade(
            taker_order_id=MINE,
            trader_side="TAKER",
            owner=KEY,
            maker_orders=[maker(owner=STRANGER, order_id=OTHER, maker_address=THEM)],
        )
    )
    (leg,) = event.legs(api_key=KEY, address=ME)
    assert (leg.order_id, leg.side, leg.size, leg.liquidity) == (MINE, Side.BUY, 10, Liquidity.TAKER)
    silent = one(trade(trader_side=None, owner=KEY, maker_orders=[]))
    assert [leg.liquidity for leg in silent.legs(api_key=KEY)] == [Liquidity.TAKER]


def test_a_makers_event_never_books_the_takers_size() -> None:
    """Some servers put one's own key into the outer owner of a maker's event."""
    for side in ("MAKER", None):
        (leg,) = one(trade(trader_side=side, owner=KEY, trade_owner=KEY)).legs(api_key=KEY)
        assert (leg.order_id, leg.size) == (MINE, 4)
    assert one(trade(maker_orders=[], owner=KEY)).legs(api_key=KEY) == ()
    assert one(trade()).legs() == ()


def test_who_trades_with_itself_has_two_legs() -> None:
    event = one(trade(taker_order_id=OTHER, trader_side="TAKER", owner=KEY))
    assert [(leg.order_id, leg.liquidity) for leg in event.legs(api_key=KEY)] == [
        (OTHER, Liquidity.TAKER),
        (MINE, Liquidity.MAKER),
    ]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("MATCHED", "PENDING"),
        ("TRADE_STATUS_MINED", "PENDING"),
        ("CONFIRMED", "FINAL"),
        ("FAILED", "FAILED"),
        ("NEW", "PENDING"),
    ],
)
def test_the_states_of_a_leg(word: str, state: str) -> None:
    (leg,) = one(trade(status=word)).legs(api_key=KEY)
    assert (leg.state, leg.status) == (state, word)


# -- live prices ----------------------------------------------------------------------------------------------------


def price(**changes: Any) -> dict[str, Any]:
    payload = {
        "symbol": "btcusd",
        "value": 61035.86,
        "full_accuracy_value": "61035.861234567890123456",
        "timestamp": 1795176300000,
        "source": "chainlink",
    }
    return {"v": 1, "channel": PRICE, "seq": 12, "ts": 1795176300142, "payload": payload | changes}


def test_a_price_is_read_from_its_text() -> None:
    message = decode_prices(json.dumps(price(received_at=1795176300099, is_carried_forward=True)).encode())
    assert isinstance(message, PriceMessage)
    assert message.ticks == (
        PriceTick(1_795_176_300_000, Decimal("61035.861234567890123456"), True, 1_795_176_300_099),
    )
    assert (message.topic, message.source, message.seq, message.dropped) == (Topic("btcusd"), "chainlink", 12, 0)
    assert not message.snapshot and message.sent_ms == 1_795_176_300_142


def test_a_snapshot_is_sorted_and_may_be_empty() -> None:
    rows = [{"timestamp": at * 1000, "value": at, "full_accuracy_value": str(at)} for at in (1795176302, 1795176301)]
    frame = price(window_seconds=60, data=rows) | {"channel": AVERAGE, "snapshot": True, "dropped": 3}
    for name in ("value", "full_accuracy_value", "timestamp"):
        del frame["payload"][name]
    message = decode_prices(json.dumps(frame).encode())
    assert isinstance(message, PriceMessage) and message.snapshot and message.dropped == 3
    assert message.topic == Topic("btcusd", 60) and message.topic.channel == AVERAGE
    assert [tick.time_ms for tick in message.ticks] == [1_795_176_301_000, 1_795_176_302_000]
    frame["payload"]["data"] = []
    empty = decode_prices(json.dumps(frame).encode())
    assert isinstance(empty, PriceMessage) and empty.ticks == ()


def test_a_text_scaled_by_a_quintillion_is_told_by_the_number() -> None:
    message = decode_prices(json.dumps(price(full_accuracy_value="61035861234567890123456")).encode())
    assert isinstance(message, PriceMessage) and message.ticks[0].price == Decimal("61035.861234567890123456")


@pytest.mark.parametrize(
    "changes",
    [
        {"full_accuracy_value": "71035.86"},
        {"full_accuracy_value": "abc"},
        {"full_accuracy_value": None, "value": None},
        {"full_accuracy_value": "0", "value": 0},
        {"full_accuracy_value": "-1"},
        {"timestamp": None},
        {"symbol": None},
        {"data": [7]},
    ],
)
def test_prices_that_cannot_be_raise(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolChanged, match="live prices"):
        decode_prices(json.dumps(price(**changes)).encode())
    with pytest.raises(ProtocolChanged, match="window_seconds"):
        decode_prices(json.dumps(price() | {"channel": AVERAGE}).encode())


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"op": "authed", "rid": "1"}, ControlMessage("authed", "1")),
        ({"op": "subscribed", "rid": 2, "channel": PRICE}, ControlMessage("subscribed", "2")),
        ({"op": "error", "rid": "1", "error": "auth_invalid"}, ControlMessage("error", "1", "auth_invalid")),
        ({"op": "error", "code": "bad_op", "message": "no"}, ControlMessage("error", "", "bad_op", "no")),
        (
            {"op": "error", "error": {"code": "sub_limit", "message": "64"}},
            ControlMessage("error", "", "sub_limit", "64"),
        ),
        ({"op": "pong"}, ControlMessage("pong", "")),
        ({"channel": "price.stocks", "payload": {}}, ControlMessage("", "")),
        ({"op": "\x1b[31m"}, ControlMessage("\\x1b[31m", "")),
    ],
)
def test_control_messages(frame: dict[str, Any], expected: ControlMessage) -> None:
    assert decode_prices(json.dumps(frame).encode()) == expected


def test_subscriptions_name_their_provider() -> None:
    frame = json.loads(subscribe_frame([Topic("btcusd"), Topic("btcusd", 60)], "2"))
    assert frame == {
        "op": "subscribe",
        "rid": "2",
        "subscriptions": [
            {"channel": PRICE, "filter": {"symbol": "btcusd", "provider": "chainlink"}},
            {"channel": AVERAGE, "filter": {"symbol": "btcusd", "provider": "chainlink", "window_seconds": 60}},
        ],
    }
    with pytest.raises(ValueError, match="64"):
        subscribe_frame([Topic(f"a{number}usd") for number in range(65)], "1")
    assert (symbol_of("BTC"), asset_of("btcusd"), asset_of("btcusd2")) == ("btcusd", "BTC", "BTCUSD2")


# -- junk -----------------------------------------------------------------------------------------------------------


def decode_all(frame: bytes) -> None:
    """Every decoder gives a result or raises ProtocolChanged; nothing else."""
    with contextlib.suppress(ProtocolChanged):
        for event in decode_user(frame):
            if isinstance(event, OwnTrade):
                event.legs(KEY, ME, {MINE})
            elif isinstance(event, OwnOrder):
                _ = event.state
    for decode in (decode_order, decode_orders, decode_trades, decode_prices):
        with contextlib.suppress(ProtocolChanged):
            decode(frame)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(frame: bytes) -> None:
    decode_all(frame)


def test_md_23_mutated_and_truncated_frames_raise_nothing_else() -> None:
    rng = random.Random(11)
    seeds = [json.dumps(row).encode() for row in (order(), trade(), [order(), trade()], price(), {"data": [order()]})]
    values = [b"null", b"1e999999", b"-1", b"[]", b"{}", b'""', b"true", b"1" * 5000, b"0." + b"1" * 5000, b'"\\ud800"']
    for _ in range(4000):
        frame = bytearray(rng.choice(seeds))
        kind = rng.randrange(4)
        if kind == 0:
            del frame[rng.randrange(len(frame)) :]
        elif kind == 1:
            for _ in range(rng.randrange(1, 4)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
        elif kind == 2:
            text = bytes(frame)
            colon = rng.choice([at for at in range(len(text)) if text[at : at + 2] == b": "])
            end = min(found for found in (text.find(b",", colon), len(text)) if found > 0)
            frame = bytearray(text[: colon + 2] + rng.choice(values) + text[end:])
        else:
            at = rng.randrange(len(frame))
            frame[at:at] = rng.choice(values)
        decode_all(bytes(frame))
    for deep in (b"[" * 100_000, b'{"a":' * 100_000, b'{"event_type":"order","id":' + b"[" * 900 + b"]" * 900 + b"}"):
        decode_all(deep)
