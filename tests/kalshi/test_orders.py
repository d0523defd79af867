"""YES/NO to bid/ask and back, bodies that fit OpenAPI 3.28, and what is refused before anything is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import InvalidOrder
from pmkit.exchanges.kalshi import orders, sides
from pmkit.exchanges.kalshi.fees import NO_FEE, fee_rule
from pmkit.exchanges.kalshi.grid import grid_of
from pmkit.exchanges.kalshi.orders import CancelLeg, SelfTrade, create_order, encode, order_path, taking_order
from pmkit.exchanges.kalshi.sides import BookSide, book_side, count_text, mirrored, own_side, price_text
from pmkit.exchanges.kalshi.tickers import window_closes, window_ticker
from pmkit.exchanges.kalshi.types import NO, YES, KalshiMarket, RowError
from pmkit.exchanges.types import MarketStatus, Order, Side, TimeInForce
from tests.sim.openapi import Spec

TICKER = "KXBTC15M-26NOV201215-15"
OPEN_MS, CLOSE_MS = 1_795_193_100_000, 1_795_194_000_000
NOW_MS = OPEN_MS + 60_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
UUID = "8c35ecb3-328f-4f52-8c7c-0f4b9862f8d1"
LATER = datetime.fromtimestamp(CLOSE_MS / 1000 - 5, UTC)


def market(structure: str = "tapered_deci_cent", **changes: Any) -> KalshiMarket:
    values: dict[str, Any] = {
        "venue": "kalshi",
        "market_id": TICKER,
        "asset": "BTC",
        "interval": "15m",
        "title": "BTC price up in next 15 mins?",
        "outcomes": (YES, NO),
        "token_ids": (f"{TICKER}:YES", f"{TICKER}:NO"),
        "open_ms": OPEN_MS,
        "close_ms": CLOSE_MS,
        "grid": grid_of(None, structure),
        "min_size": Decimal("0.01"),
        "size_step": Decimal("0.01"),
        "fees": fee_rule("quadratic", Decimal(1), "test"),
        "status": MarketStatus.OPEN,
        "ticker": TICKER,
        "event_ticker": TICKER[:-3],
        "series_ticker": "KXBTC15M",
        "exchange_index": 2,
    }
    return KalshiMarket(**(values | changes))


def order(outcome: str = YES, side: Side = Side.BUY, price: str = "0.56", size: str = "10", **more: Any) -> Order:
    return Order(market_id=TICKER, outcome=outcome, side=side, price=Decimal(price), size=Decimal(size), **more)


def body(wanted: Order, **more: Any) -> dict[str, Any]:
    sent = create_order(more.pop("on", market()), wanted, client_order_id=UUID, now_ms=NOW_MS, **more)
    found: dict[str, Any] = json.loads(encode(sent))
    return found


@pytest.fixture(scope="module")
def spec(recordings: Path) -> Spec:
    pytest.importorskip("yaml")
    return Spec(recordings / "kalshi" / "spec" / "openapi-3.28.0-2026-08-22.yaml")


def fits(spec: Spec, name: str, value: dict[str, Any], newer: frozenset[str] = frozenset()) -> None:
    """It fits the schema, and has no field that the schema lacks but those named as newer."""
    schema = spec.schema(name)
    assert not spec.problems(value, schema)
    assert not set(value) - set(schema["properties"]) - newer


# -- translation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "side", "price", "wire_side", "wire_price"),
    [
        (YES, Side.BUY, "0.56", "bid", "0.5600"),
        (YES, Side.SELL, "0.56", "ask", "0.5600"),
        (NO, Side.BUY, "0.44", "ask", "0.5600"),
        (NO, Side.SELL, "0.44", "bid", "0.5600"),
        (NO, Side.BUY, "0.957", "ask", "0.0430"),
        (YES, Side.BUY, "0.043", "bid", "0.0430"),
    ],
)
def test_four_ways_into_one_book(outcome: str, side: Side, price: str, wire_side: str, wire_price: str) -> None:
    found = body(order(outcome, side, price))
    assert (found["side"], found["price"]) == (wire_side, wire_price)
    assert own_side(BookSide(wire_side), outcome) is side
    assert mirrored(outcome, Decimal(wire_price)) == Decimal(price)


def test_the_documented_example() -> None:
    found = body(order(time_in_force=TimeInForce.IOC))
    assert found == {
        "ticker": TICKER,
        "side": "bid",
        "count": "10.00",
        "price": "0.5600",
        "time_in_force": "immediate_or_cancel",
        "self_trade_prevention_type": "taker_at_cross",
        "client_order_id": UUID,
        "exchange_index": 2,
    }


@given(
    units=st.integers(1, 9_999),
    count=st.integers(1, 10**9),
    outcome=st.sampled_from((YES, NO)),
    side=st.sampled_from(Side),
    precision=st.integers(1, 40),
)
def test_every_price_and_count_survives_whatever_the_decimal_context(
    units: int, count: int, outcome: str, side: Side, precision: int
) -> None:
    price, size = Decimal(units).scaleb(-4), Decimal(count).scaleb(-2)
    centi = market("center_centi_edge_centi_cent")
    wanted = Order(market_id=TICKER, outcome=outcome, side=side, price=price, size=size)
    with localcontext() as context:
        context.prec = precision
        sent = create_order(centi, wanted, client_order_id=UUID, now_ms=NOW_MS)
    assert mirrored(outcome, Decimal(sent.price)) == price
    assert Decimal(sent.count) == size
    assert own_side(sent.side, outcome) is side
    assert len(sent.price) == 6
    assert sent.count[-3] == "."


def test_oe_09_every_grid_price_of_every_structure() -> None:
    checked = 0
    for structure in ("linear_cent", "deci_cent", "tapered_deci_cent", "center_half_edge_deci_cent"):
        on = market(structure)
        for units in range(1, 10_000):
            price = Decimal(units).scaleb(-4)
            for outcome in (YES, NO):
                yes_price = mirrored(outcome, price)
                if on.grid.legal(yes_price):
                    assert sides.yes_price_text(on, outcome, price) == f"{yes_price:.4f}"
                    checked += 1
                else:
                    with pytest.raises(InvalidOrder, match="legal neighbours"):
                        sides.yes_price_text(on, outcome, price)
    assert checked > 3000


@pytest.mark.parametrize(
    ("outcome", "price", "neighbours"),
    [
        (YES, "0.565", "0.56 and 0.57"),
        (NO, "0.435", "0.43 and 0.44"),
        (NO, "0.0435", "0.043 and 0.044"),
        (YES, "1", "0.999"),
    ],
)
def test_an_off_band_price_names_its_neighbours_in_its_own_terms(outcome: str, price: str, neighbours: str) -> None:
    with pytest.raises(InvalidOrder, match=f"neighbours are {neighbours}$"):
        body(order(outcome, price=price))


@pytest.mark.parametrize("price", ["0", "-0.5", "1.01", "NaN", "Infinity"])
def test_oe_11_nonsense_prices(price: str) -> None:
    with pytest.raises(InvalidOrder):
        body(order(price=price))


@pytest.mark.parametrize("size", ["0", "-1", "0.005", "1.234", "NaN", "Infinity"])
def test_oe_11_nonsense_sizes(size: str) -> None:
    with pytest.raises(InvalidOrder):
        body(order(size=size))


@given(value=st.decimals() | st.floats().map(str).map(Decimal))
def test_number_texts_are_exact_or_refused(value: Decimal) -> None:
    for text, low in ((price_text, 0), (count_text, 0)):
        try:
            shown = text(value) if value.is_finite() else None
        except InvalidOrder:
            continue
        if shown is not None:
            assert Decimal(shown) == value > low


# -- what goes together -----------------------------------------------------------------------------------------------


def test_expiry_is_cut_to_the_second_and_never_later() -> None:
    at = LATER + timedelta(milliseconds=999)
    found = body(order(time_in_force=TimeInForce.GTD, expires_at=at.astimezone(timezone(timedelta(hours=-5)))))
    assert found["expiration_time"] == int(LATER.timestamp())
    assert found["time_in_force"] == "good_till_canceled"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"time_in_force": TimeInForce.GTD}, "needs expires_at"),
        ({"expires_at": LATER}, "goes with GTD"),
        ({"time_in_force": TimeInForce.IOC, "expires_at": LATER}, "goes with GTD"),
        ({"time_in_force": TimeInForce.GTD, "expires_at": LATER.replace(tzinfo=None)}, "no zone"),
        ({"time_in_force": TimeInForce.GTD, "expires_at": NOW}, "not in the future"),
        ({"time_in_force": TimeInForce.IOC, "post_only": True}, "exclude each other"),
        ({"time_in_force": TimeInForce.FOK, "post_only": True}, "exclude each other"),
        ({"outcome": "UP"}, "no outcome"),
        ({"market_id": "KXETH15M-26NOV201215-15"}, "the order is for"),
    ],
)
def test_combinations_that_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidOrder, match=why):
        body(msgspec.structs.replace(order(), **changes))


@pytest.mark.parametrize("time_in_force", [TimeInForce.GTC, TimeInForce.FOK])
def test_reduce_only_is_taken_with_ioc_only(time_in_force: TimeInForce) -> None:
    with pytest.raises(InvalidOrder, match="reduce-only"):
        body(order(time_in_force=time_in_force), reduce_only=True)
    assert body(order(time_in_force=TimeInForce.IOC), reduce_only=True)["reduce_only"] is True


@pytest.mark.parametrize("client_id", ["", "a" * 65, "two words", "zeile\n", "é"])
def test_client_order_ids_that_kalshi_would_not_take(client_id: str) -> None:
    with pytest.raises(InvalidOrder, match="client_order_id"):
        create_order(market(), order(), client_order_id=client_id, now_ms=NOW_MS)


def test_market_orders_are_ioc_within_a_worst_price() -> None:
    taken = taking_order(market(), NO, Side.BUY, worst_price="0.60", amount="10")
    assert taken.time_in_force is TimeInForce.IOC
    cost = taken.size * Decimal("0.60")
    assert cost + market().fee("0.60", taken.size) <= 10 < cost + Decimal("0.02") + market().fee("0.60", taken.size)
    assert body(taken)["price"] == "0.4000"
    assert taking_order(market(fees=NO_FEE), YES, Side.SELL, worst_price="0.5", size="2.5").size == Decimal("2.5")
    for more in ({}, {"size": "1", "amount": "1"}):
        with pytest.raises(InvalidOrder, match="exactly one"):
            taking_order(market(), YES, Side.BUY, worst_price="0.5", **more)
    with pytest.raises(InvalidOrder, match="BUY only"):
        taking_order(market(), YES, Side.SELL, worst_price="0.5", amount="1")
    with pytest.raises(InvalidOrder, match="float"):
        taking_order(market(), YES, Side.BUY, worst_price=0.5, size="1")


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order_id", ["", "batched", "create", "a/b", "..", "a?b", "a b", "%2e", "x" * 65, "é"])
def test_an_id_that_could_name_another_path_is_refused(order_id: str) -> None:
    # DELETE of the path without an id cancels every order of the account; "batched" is another call.
    for path in (order_path, orders.group_path):
        with pytest.raises(InvalidOrder, match="nothing was sent"):
            path(order_id)


def test_paths_and_queries_are_those_of_the_specification(spec: Spec) -> None:
    paths = spec.document["paths"]
    assert "post" in paths[orders.ORDERS_PATH]
    assert {"post", "delete"} <= set(paths[orders.BATCH_PATH])
    for action, method in (("", "delete"), ("amend", "post"), ("decrease", "post")):
        assert method in paths[order_path("X1", action).replace("X1", "{order_id}")]
    for action, method in (("", "delete"), ("limit", "put"), ("reset", "put"), ("trigger", "put")):
        assert method in paths[orders.group_path("X1", action).replace("X1", "{order_group_id}")]
    assert "post" in paths[orders.GROUP_CREATE_PATH]
    assert orders.GROUPS_PATH in paths
    assert orders.cancel_query(TICKER, 2, 0) == {"market_ticker": TICKER, "exchange_index": 2, "subaccount": 0}
    parameters = paths[order_path("X1").replace("X1", "{order_id}")]["delete"]["parameters"]
    named = {one.get("name") or one["$ref"].rsplit("/", 1)[1] for one in parameters}
    assert {"market_ticker", "exchange_index", "SubaccountQueryDefaultPrimary"} <= named
    with pytest.raises(InvalidOrder, match="sub-account"):
        orders.account_query(64)
    with pytest.raises(InvalidOrder, match="ticker"):
        orders.cancel_query("")


# -- bodies against the specification ---------------------------------------------------------------------------------


def test_creates_fit_the_specification(spec: Spec) -> None:
    every = [
        body(order(outcome, side, time_in_force=tif, expires_at=LATER if tif is TimeInForce.GTD else None))
        for outcome in (YES, NO)
        for side in Side
        for tif in TimeInForce
    ]
    every.append(body(order(time_in_force=TimeInForce.IOC), reduce_only=True, self_trade=SelfTrade.MAKER))
    every.append(body(order(post_only=True), cancel_on_pause=True, order_group_id="og_1", subaccount=0))
    for one in every:
        fits(spec, "CreateOrderV2Request", one)
    assert every[-1]["subaccount"] == 0
    batch = [create_order(market(), order(), client_order_id=UUID, now_ms=NOW_MS)] * 2
    fits(spec, "BatchCreateOrdersV2Request", json.loads(encode(orders.CreateBatch(tuple(batch)))))


def test_other_bodies_fit_the_specification(spec: Spec) -> None:
    legs = [CancelLeg(order_id=UUID, market_ticker=TICKER, exchange_index=2, subaccount=0)]
    fits(spec, "BatchCancelOrdersV2Request", json.loads(encode(orders.cancel_batch(legs))))
    amend = orders.amend_order(
        market(), NO, Side.BUY, price="0.40", total="8", client_order_id=UUID, new_client_order_id="b", expires_at=None
    )
    found = json.loads(encode(amend))
    # Since 2026-10-01, so not in 3.28: 0 takes the expiry away, a missing field keeps it.
    fits(spec, "AmendOrderV2Request", found, frozenset({"expiration_time"}))
    assert (found["side"], found["price"], found["count"], found["expiration_time"]) == ("ask", "0.6000", "8.00", 0)
    kept = json.loads(encode(orders.amend_order(market(), NO, Side.BUY, price="0.40", total="8")))
    assert "expiration_time" not in kept
    fits(spec, "AmendOrderV2Request", kept)
    for change in ({"by": "2"}, {"to": "0.37"}):
        fits(spec, "DecreaseOrderV2Request", json.loads(encode(orders.decrease_order(market(), **change))))
    group = json.loads(encode(orders.create_group("150", 2, 0)))
    assert group == {"contracts_limit_fp": "150.00", "exchange_index": 2, "subaccount": 0}
    fits(spec, "CreateOrderGroupRequest", group)


def test_decreases_and_batches_that_make_no_sense() -> None:
    for change in ({}, {"by": "1", "to": "1"}, {"by": "0"}, {"to": "-1"}, {"by": 1.5}):
        with pytest.raises(InvalidOrder):
            orders.decrease_order(market(), **change)
    with pytest.raises(InvalidOrder, match="without orders"):
        orders.cancel_batch([])
    with pytest.raises(InvalidOrder, match="order id"):
        orders.cancel_batch([CancelLeg(order_id="", market_ticker=TICKER)])
    with pytest.raises(InvalidOrder):
        orders.create_group("0", 2)
    with pytest.raises(InvalidOrder, match="outcome"):
        book_side("UP", Side.BUY)


# -- tickers ----------------------------------------------------------------------------------------------------------


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_tickers_are_new_york_wall_time() -> None:
    assert window_closes("KXBTC15M-26AUG170100-00") == (ms("2026-08-17T05:00Z"),)
    assert window_closes(TICKER) == (ms("2026-11-20T17:15Z"),)
    assert window_ticker("KXBTC15M", ms("2026-08-17T05:00Z")) == "KXBTC15M-26AUG170100-00"
    # Autumn: one label, two closes an hour apart. Spring: a label for no close.
    assert window_closes("KXBTC15M-26NOV010130-30") == (ms("2026-11-01T05:30Z"), ms("2026-11-01T06:30Z"))
    assert window_closes("KXBTC15M-27MAR140230-30") == ()
    for bad in ("KXBTC15M-26AUG170100-15", "KXBTC15M-26FEB300100-00", "KXBTC15M-26AUG172500-00", "KXBTC15M", ""):
        with pytest.raises(RowError):
            window_closes(bad)


@given(quarter=st.integers(ms("2026-01-01T00:00Z") // 900_000, ms("2030-01-01T00:00Z") // 900_000))
def test_every_close_is_found_in_its_own_ticker(quarter: int) -> None:
    assert quarter * 900_000 in window_closes(window_ticker("KXETH15M", quarter * 900_000))
