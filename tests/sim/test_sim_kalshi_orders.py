"""Order calls of the local Kalshi against its page and OpenAPI file; the client is plain aiohttp."""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pmkit.sim.engine import Side
from pmkit.sim.kalshi.mishaps import Mishap
from tests.sim.kalshi_client import OPEN, TICKER, running, utc
from tests.sim.kalshi_trader import ORDERS, Desk, Trader, desk
from tests.sim.openapi import Spec


@pytest.fixture
async def at() -> AsyncIterator[Desk]:
    async with desk() as made:
        yield made


@pytest.fixture(scope="session")
def openapi(recordings: Path) -> Spec:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    return Spec(recordings / "kalshi/spec/openapi-3.28.0-2026-08-22.yaml")


def fits(openapi: Spec, body: Any, path: str, method: str, status: str) -> None:
    assert openapi.problems(body, openapi.answer(path, method, status)) == []


# -- create


async def test_an_order_rests_is_read_and_cancelled(at: Desk, openapi: Spec) -> None:
    made = await at.trader.order("bid", "0.4000", "10.00", client_order_id="mine-1")
    fits(openapi, made, ORDERS, "post", "201")
    assert made == {
        "order_id": made["order_id"],
        "client_order_id": "mine-1",
        "fill_count": "0.00",
        "remaining_count": "10.00",
        "ts_ms": at.clock.now_ms(),
    }
    assert at.venue.book_truth(TICKER)["yes"] == [("0.4000", "10.00")]
    read = await at.trader.get(f"/portfolio/orders/{made['order_id']}")
    fits(openapi, read, "/portfolio/orders/{order_id}", "get", "200")
    order = read["order"]
    assert (order["status"], order["book_side"], order["outcome_side"]) == ("resting", "bid", "yes")
    assert (order["yes_price_dollars"], order["no_price_dollars"]) == ("0.4000", "0.6000")
    assert order["exchange_index"] == 2
    listed = await at.trader.get("/portfolio/orders", status="resting", ticker=TICKER)
    fits(openapi, listed, "/portfolio/orders", "get", "200")
    assert listed == {"orders": [order], "cursor": ""}
    status, gone = await at.trader.cancel(made["order_id"])
    assert status == 200
    fits(openapi, gone, ORDERS + "/{order_id}", "delete", "200")
    assert (gone["reduced_by"], gone["client_order_id"]) == ("10.00", "mine-1")
    assert at.venue.book_truth(TICKER)["yes"] == []
    order = await at.trader.read(made["order_id"])
    assert (order["status"], order["remaining_count_fp"], order["initial_count_fp"]) == ("canceled", "0.00", "10.00")
    assert (await at.trader.cancel(made["order_id"]))[0] == 404
    assert (await at.trader.get("/portfolio/orders", status="resting"))["orders"] == []


async def test_a_taker_pays_the_book_and_a_fee(at: Desk, openapi: Spec) -> None:
    at.quote(Side.SELL, 5_500, 4)
    at.quote(Side.SELL, 5_600, 2)
    made = await at.trader.order("bid", "0.5600", "10.00", time_in_force="immediate_or_cancel")
    fits(openapi, made, ORDERS, "post", "201")
    assert (made["fill_count"], made["remaining_count"]) == ("6.00", "0.00")  # partly filled and done
    assert made["average_fill_price"] == "0.5533"
    # 0.07 * 4 * 0.55 * 0.45 = 0.0693; 0.07 * 2 * 0.56 * 0.44 = 0.034496, up to 0.0345
    assert made["average_fee_paid"] == "0.0173"
    order = await at.trader.read(made["order_id"])
    assert (order["status"], order["fill_count_fp"], order["taker_fees_dollars"]) == ("canceled", "6.00", "0.103800")
    assert order["taker_fill_cost_dollars"] == "3.320000"
    balance = await at.trader.get("/portfolio/balance", exchange_index=2)
    assert balance["balance_dollars"] == "9996.5762"


async def test_what_does_not_trade_of_a_gtc_order_rests_and_makes_for_nothing(at: Desk) -> None:
    at.quote(Side.BUY, 4_500, 1)
    made = await at.trader.order("ask", "0.4500", "3.00")
    assert (made["fill_count"], made["remaining_count"]) == ("1.00", "2.00")
    at.take(Side.BUY, 4_500, 2)
    order = await at.trader.read(made["order_id"])
    assert (order["status"], order["maker_fees_dollars"]) == ("executed", "0.000000")
    assert order["maker_fill_cost_dollars"] == "1.100000"  # two NO at 0.55
    assert at.trader.account.net(TICKER) == -3_000_000


async def test_fill_or_kill(at: Desk) -> None:
    at.quote(Side.SELL, 5_500, 4)
    killed = await at.trader.order("bid", "0.5500", "5.00", time_in_force="fill_or_kill")
    assert (killed["fill_count"], killed["remaining_count"]) == ("0.00", "0.00")
    assert (await at.trader.read(killed["order_id"]))["status"] == "canceled"
    filled = await at.trader.order("bid", "0.5500", "4.00", time_in_force="fill_or_kill")
    assert filled["fill_count"] == "4.00"
    at.venue.exchange.kills_as_errors = True
    assert (await at.trader.refused("bid", "0.5500", "1", time_in_force="fill_or_kill"))[0] == 400


async def test_a_post_only_order_that_would_cross_is_refused_or_cancelled(at: Desk, recordings: Path) -> None:
    at.quote(Side.SELL, 5_500, 4)
    status, body = await at.trader.try_order("bid", "0.5500", "1.00", post_only=True)
    with gzip.open(recordings / "kalshi/sessions/order_api_log_20260804_maker.jsonl.gz", "rt") as file:
        [seen] = [row["resp"] for row in map(json.loads, file) if row["ev"] == "post" and row["status"] == 400]
    assert (status, body) == (400, ast.literal_eval(seen))
    at.venue.exchange.crosses_are_cancelled = True
    made = await at.trader.order("bid", "0.5500", "1.00", post_only=True)
    assert (made["fill_count"], made["remaining_count"]) == ("0.00", "0.00")
    assert at.venue.exchange.orders[made["order_id"]].reason == "PostOnlyCrossCancel"
    assert (await at.trader.order("bid", "0.5400", "1.00", post_only=True))["remaining_count"] == "1.00"


async def test_reduce_only_never_turns_a_position(at: Desk) -> None:
    assert await at.trader.refused("ask", "0.4", "1", reduce_only=True) == (400, "invalid_order")
    at.quote(Side.SELL, 5_500, 4)
    at.quote(Side.BUY, 5_000, 100)
    more = {"reduce_only": True, "time_in_force": "immediate_or_cancel"}
    nothing = await at.trader.order("ask", "0.5000", "2.00", **more)
    assert nothing["fill_count"] == "0.00"
    await at.trader.order("bid", "0.5500", "3.00")
    closed = await at.trader.order("ask", "0.5000", "5.00", **more)
    assert (closed["fill_count"], closed["remaining_count"]) == ("3.00", "0.00")
    assert at.venue.exchange.orders[closed["order_id"]].reason == "ReduceOnlyCancel"
    assert at.trader.account.net(TICKER) == 0


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"price": "0.4550"}, 400, "invalid_price"),  # between cents in the middle band
        ({"price": "0.05005"}, 400, "invalid_price"),
        ({"price": "1.0000"}, 400, "invalid_price"),
        ({"price": "0.0000"}, 400, "invalid_price"),
        ({"price": "45"}, 400, "invalid_price"),
        ({"price": 0.45}, 400, "invalid_parameters"),
        ({"count": "0.00"}, 400, "invalid_order_size"),
        ({"count": "-1.00"}, 400, "invalid_order_size"),
        ({"count": "1.005"}, 400, "invalid_order_size"),
        ({"count": 10}, 400, "invalid_parameters"),
        ({"side": "yes"}, 400, "invalid_parameters"),
        ({"time_in_force": "gtc"}, 400, "invalid_parameters"),
        ({"time_in_force": None}, 400, "invalid_parameters"),
        ({"self_trade_prevention_type": None}, 400, "invalid_parameters"),
        ({"ticker": None}, 400, "invalid_parameters"),
        ({"client_order_id": "x" * 65}, 400, "invalid_parameters"),
        ({"expiration_time": OPEN // 1000}, 400, "invalid_order"),
        ({"expiration_time": OPEN // 500, "time_in_force": "immediate_or_cancel"}, 400, "invalid_order"),
        ({"subaccount": 3}, 400, "invalid_parameters"),
        ({"exchange_index": 0}, 404, "market_not_found"),
        ({"ticker": "KXBTC15M-26NOV200710-10"}, 404, "market_not_found"),
        ({"ticker": "KXBTC15M-26NOV200730-30"}, 400, "market_inactive"),  # not open yet
        ({"order_group_id": "nothing"}, 404, "order_group_not_found"),
        ({"count": "1000000.00"}, 400, "insufficient_balance"),
    ],
)
async def test_what_is_refused(at: Desk, change: dict[str, Any], status: int, code: str) -> None:
    fields = {"side": "bid", "price": "0.4500", "count": "10.00"} | change
    assert await at.trader.refused(**fields) == (status, code)
    assert at.venue.exchange.orders == {}
    assert at.venue.book_truth(TICKER) == {"yes": [], "no": []}


async def test_prices_of_all_bands_and_routes_are_taken(at: Desk) -> None:
    for price in ("0.0990", "0.001", "0.45", "0.9010", "0.9990"):
        assert (await at.trader.order("bid", price, "1"))["remaining_count"] == "1.00"
    for shard in (None, -1, 2):
        assert (await at.trader.order("bid", "0.4500", "0.01", exchange_index=shard))["remaining_count"] == "0.01"


async def test_a_body_that_is_not_json_is_refused(at: Desk) -> None:
    from tests.sim.kalshi_client import sign

    url = at.venue.endpoints().rest + ORDERS
    for raw in (b"", b"{", b"[]", b"null", b'{"ticker":1}', b"\xff"):
        headers = sign(at.trader.account.key, at.clock.now_ms(), "POST", "/trade-api/v2" + ORDERS)
        async with at.http.post(url, data=raw, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "invalid_parameters"


async def test_a_client_order_id_is_taken_once(at: Desk) -> None:
    first = await at.trader.order("bid", "0.4000", "1.00", client_order_id="same")
    assert await at.trader.refused("bid", "0.4000", "1.00", client_order_id="same") == (409, "order_already_exists")
    await at.trader.cancel(first["order_id"])
    assert (await at.trader.refused("bid", "0.4000", "1.00", client_order_id="same"))[0] == 409
    at.venue.exchange.client_ids_come_free = True
    assert (await at.trader.order("bid", "0.4000", "1.00", client_order_id="same"))["order_id"] != first["order_id"]
    # What was refused has not used its id.
    assert (await at.trader.refused("bid", "0.4550", "1.00", client_order_id="new"))[0] == 400
    await at.trader.order("bid", "0.4500", "1.00", client_order_id="new")


async def test_money_on_another_shard_buys_nothing(at: Desk) -> None:
    assert await at.other.refused("bid", "0.4000", "1.00") == (400, "insufficient_balance")
    assert (await at.other.get("/portfolio/balance"))["balance"] == 50_000
    body = {
        "source": "event_contract",
        "destination": "event_contract",
        "amount": 1_000_000,  # 100 dollars
        "source_exchange_shard": 0,
        "destination_exchange_shard": 2,
    }
    status, answer = await at.other.ask("POST", "/portfolio/intra_exchange_instance_transfer", body)
    assert status == 200
    one = f"/portfolio/intra_exchange_instance_transfers/{answer['transfer_id']}"
    assert (await at.other.get(one))["transfer"]["status"] == "pending"
    assert (await at.other.refused("bid", "0.4000", "1.00"))[0] == 400
    await at.clock.advance(1)
    assert (await at.other.get(one))["transfer"]["status"] == "complete"
    assert (await at.other.get("/portfolio/balance"))["balance_breakdown"] == [
        {"exchange_index": 0, "balance": "400.0000"},
        {"exchange_index": 2, "balance": "100.0000"},
    ]
    await at.other.order("bid", "0.4000", "250.00")
    assert (await at.other.get("/portfolio/balance", exchange_index=2))["balance_dollars"] == "0.0000"
    assert await at.other.refused("bid", "0.0010", "1.00") == (400, "insufficient_balance")


async def test_resting_orders_reserve_money_and_positions_cover(at: Desk) -> None:
    poor = Trader(at, at.venue.accounts.open({2: 10}))
    first = await poor.order("bid", "0.5000", "20.00")
    assert await poor.refused("bid", "0.0100", "1.00") == (400, "insufficient_balance")
    at.take(Side.SELL, 5_000, 20)
    assert poor.account.available(2) == 0
    await poor.order("ask", "0.9000", "20.00")  # closes: needs nothing
    assert (await poor.refused("ask", "0.9500", "1.00"))[1] == "insufficient_balance"
    assert (await poor.read(first["order_id"]))["status"] == "executed"
    at.take(Side.BUY, 9_000, 20)
    assert poor.account.cash[2] == 18_000_000


# -- self-trade prevention


async def test_the_taker_stops_at_its_own_order(at: Desk) -> None:
    at.quote(Side.SELL, 5_400, 1)
    mine = await at.trader.order("ask", "0.5500", "2.00")
    at.quote(Side.SELL, 5_600, 5)
    made = await at.trader.order("bid", "0.6000", "4.00")
    assert (made["fill_count"], made["remaining_count"]) == ("1.00", "0.00")
    assert at.venue.exchange.orders[made["order_id"]].reason == "SelfTradeCancel"
    assert (await at.trader.read(mine["order_id"]))["status"] == "resting"
    # FOK that meets an own order is an IOC.
    fok = await at.trader.order("bid", "0.6000", "4.00", time_in_force="fill_or_kill")
    assert fok["fill_count"] == "0.00"


async def test_the_maker_goes_where_that_is_asked_for(at: Desk) -> None:
    at.quote(Side.SELL, 5_400, 1)
    mine = await at.trader.order("ask", "0.5500", "2.00")
    at.quote(Side.SELL, 5_600, 5)
    made = await at.trader.order("bid", "0.6000", "4.00", self_trade_prevention_type="maker")
    assert (made["fill_count"], made["average_fill_price"]) == ("4.00", "0.5550")
    assert (await at.trader.read(mine["order_id"]))["status"] == "canceled"
    assert at.venue.exchange.orders[mine["order_id"]].reason == "SelfTradeCancel"


# -- cancel


async def test_a_cancel_without_market_and_shard_goes_to_shard_0(at: Desk) -> None:
    made = await at.trader.order("bid", "0.4000", "1.00")
    for query in ({"subaccount": 0}, {"exchange_index": 0}):
        status, body = await at.trader.cancel(made["order_id"], **query)
        assert (status, body["error"]["code"]) == (404, "not_found")
    assert (await at.trader.cancel(made["order_id"], exchange_index=-1))[0] == 400
    assert (await at.trader.cancel(made["order_id"], market_ticker=TICKER))[0] == 200
    made = await at.trader.order("bid", "0.4000", "1.00")
    at.venue.orders.cancels_find_any_shard = True
    assert (await at.trader.cancel(made["order_id"], subaccount=0))[0] == 200


async def test_nobody_cancels_what_belongs_to_another_member(at: Desk) -> None:
    made = await at.trader.order("bid", "0.4000", "1.00")
    assert (await at.other.cancel(made["order_id"]))[0] == 404
    assert (await at.other.ask("GET", f"/portfolio/orders/{made['order_id']}"))[0] == 404
    await at.other.ask("DELETE", ORDERS)
    assert (await at.trader.read(made["order_id"]))["status"] == "resting"


@pytest.mark.parametrize("path", [ORDERS, ORDERS + "/"])
async def test_no_order_id_cancels_everything(at: Desk, path: str) -> None:
    for price in ("0.4000", "0.4100"):
        await at.trader.order("bid", price, "1.00")
    assert await at.trader.ask("DELETE", path) == (204, None)
    assert (await at.trader.get("/portfolio/orders", status="resting"))["orders"] == []


async def test_an_order_expires(at: Desk) -> None:
    made = await at.trader.order("bid", "0.4000", "1.00", expiration_time=at.clock.now_ms() // 1000 + 30)
    assert (await at.trader.read(made["order_id"]))["expiration_time"] == "2026-11-20T12:05:30Z"
    await at.clock.advance(29)
    assert (await at.trader.read(made["order_id"]))["status"] == "resting"
    await at.clock.advance(1.1)
    assert (await at.trader.read(made["order_id"]))["status"] == "canceled"
    assert at.venue.exchange.orders[made["order_id"]].reason == "ExpiryCancel"


async def test_after_the_close_everything_is_refused_and_resting_orders_are_gone(at: Desk) -> None:
    made = await at.trader.order("bid", "0.4000", "1.00")
    await at.clock.advance(600)
    status, body = await at.trader.cancel(made["order_id"])
    assert (status, body["error"]["code"]) == (400, "market_inactive")
    assert await at.trader.refused("bid", "0.4000", "1.00") == (400, "market_inactive")
    assert (await at.trader.read(made["order_id"]))["status"] == "canceled"
    assert at.trader.account.available(2) == at.trader.account.cash[2] == 10_000_000_000


async def test_a_pause_stops_creates_and_its_end_clears_the_book(at: Desk) -> None:
    stays = await at.trader.order("bid", "0.4000", "1.00")
    goes = await at.trader.order("bid", "0.4100", "1.00", cancel_order_on_pause=True)
    other = await at.trader.order("bid", "0.4200", "1.00")
    at.venue.pause()
    assert await at.trader.refused("bid", "0.4000", "1.00") == (400, "trading_is_paused")
    assert (await at.trader.read(goes["order_id"]))["status"] == "canceled"
    assert (await at.trader.cancel(other["order_id"]))[0] == 200
    at.venue.pause(False)
    assert (await at.trader.read(stays["order_id"]))["status"] == "canceled"
    assert at.trader.account.resting == {}


async def test_nothing_works_in_the_maintenance() -> None:
    async with running(utc("2026-11-19T03:30:00-05:00"), steps=0.5) as setup, aiohttp.ClientSession() as http:
        made = Desk(setup.venue, setup.clock, http)
        trader = Trader(made, setup.venue.account)
        ticker = "KXBTC15M-26NOV190515-15"
        assert await trader.refused("bid", "0.4", "1", ticker=ticker) == (400, "exchange_is_paused")
        assert (await trader.ask("DELETE", ORDERS))[0] == 400


# -- amend, decrease


async def test_a_decrease_keeps_the_place(at: Desk, openapi: Spec) -> None:
    made = await at.trader.order("bid", "0.4000", "10.00")
    at.quote(Side.BUY, 4_000, 5)
    path = f"{ORDERS}/{made['order_id']}/decrease"
    status, body = await at.trader.ask("POST", path, {"reduce_by": "4.00", "exchange_index": 2})
    assert (status, body["remaining_count"]) == (200, "6.00")
    fits(openapi, body, ORDERS + "/{order_id}/decrease", "post", "200")
    queue = f"/portfolio/orders/{made['order_id']}/queue_position"
    assert (await at.trader.get(queue))["queue_position_fp"] == "0.00"
    assert (await at.trader.ask("POST", path, {"reduce_to": "1.00"}))[0] == 404  # shard 0
    for body in ({}, {"reduce_to": "1.00", "reduce_by": "1.00"}, {"reduce_to": "7.00"}, {"reduce_by": "7.00"}):
        assert (await at.trader.ask("POST", path, {"market_ticker": TICKER} | body))[0] == 400
    assert (await at.trader.ask("POST", path, {"market_ticker": TICKER, "reduce_to": "0.00"}))[0] == 200
    assert (await at.trader.read(made["order_id"]))["status"] == "canceled"
    assert at.venue.book_truth(TICKER)["yes"] == [("0.4000", "5.00")]


async def test_an_amend_changes_price_and_total(at: Desk, openapi: Spec) -> None:
    made = await at.trader.order("bid", "0.4000", "10.00", client_order_id="a")
    at.take(Side.SELL, 4_000, 3)
    at.quote(Side.BUY, 4_000, 5)
    path = f"{ORDERS}/{made['order_id']}/amend"

    async def amend(**change: Any) -> tuple[int, Any]:
        fields = {"ticker": TICKER, "side": "bid", "price": "0.4000", "count": "8.00", "exchange_index": 2}
        return await at.trader.ask("POST", path, fields | change)

    for change, code in (
        ({"side": "ask"}, "order_side_mismatch"),
        ({"ticker": "KXETH15M-26NOV200715-15"}, "order_ticker_mismatch"),
        ({"client_order_id": "b"}, "order_id_and_client_order_id_mismatch"),
        ({"count": "3.00"}, "invalid_amend_qty_for_order"),
        ({"price": "0.4050"}, "invalid_price"),
        ({"count": "900000.00"}, "insufficient_balance"),
    ):
        status, body = await amend(**change)
        assert (status, body["error"]["code"]) == (400, code)
    order = await at.trader.read(made["order_id"])
    assert (order["status"], order["remaining_count_fp"], order["initial_count_fp"]) == ("resting", "7.00", "10.00")
    status, body = await amend()
    fits(openapi, body, ORDERS + "/{order_id}/amend", "post", "200")
    assert (status, body["remaining_count"], body["fill_count"]) == (200, "5.00", "0.00")
    assert (await at.trader.get(f"/portfolio/orders/{made['order_id']}/queue_position"))["queue_position_fp"] == "0.00"
    await amend(count="9.00")  # more: to the back
    assert (await at.trader.get(f"/portfolio/orders/{made['order_id']}/queue_position"))["queue_position_fp"] == "5.00"
    at.quote(Side.SELL, 4_500, 2)
    status, body = await amend(price="0.4500", count="9.00", updated_client_order_id="b")
    assert (body["fill_count"], body["remaining_count"], body["client_order_id"]) == ("2.00", "4.00", "b")
    assert body["average_fill_price"] == "0.4500"
    order = await at.trader.read(made["order_id"])
    assert (order["fill_count_fp"], order["initial_count_fp"]) == ("5.00", "9.00")
    assert at.trader.account.available(2) == at.trader.account.cash[2] - 1_800_000
    soon = at.clock.now_ms() // 1000 + 10
    _, body = await amend(price="0.4500", count="9.00", expiration_time=soon)
    assert "remaining_count" not in body  # nothing filled, nothing resized
    await amend(price="0.4500", count="9.00", expiration_time=0)
    await at.clock.advance(20)
    assert (await at.trader.read(made["order_id"]))["status"] == "resting"
    await amend(price="0.4500", count="9.00", expiration_time=soon + 20)
    await at.clock.advance(20)
    assert (await at.trader.read(made["order_id"]))["status"] == "canceled"


# -- batches


async def test_each_leg_of_a_batch_has_its_own_result(at: Desk, openapi: Spec) -> None:
    legs = [
        at.trader.body("bid", "0.4000", "1.00", client_order_id="one"),
        at.trader.body("bid", "0.4550", "1.00", client_order_id="two"),
        at.trader.body("ask", "0.6000", "1.00", client_order_id="one"),
        at.trader.body("ask", "0.6000", "2.00", exchange_index=None),
    ]
    status, body = await at.trader.ask("POST", ORDERS + "/batched", {"orders": legs})
    assert status == 201
    fits(openapi, body, ORDERS + "/batched", "post", "201")
    found = body["orders"]
    codes = [leg["error"] and leg["error"]["code"] for leg in found]
    assert codes == [None, "invalid_price", "order_already_exists", None]
    assert [leg["remaining_count"] for leg in found] == ["1.00", None, None, "2.00"]
    cancels = [
        {"order_id": found[0]["order_id"], "exchange_index": 2},
        {"order_id": "0000", "exchange_index": 2},
        {"order_id": found[3]["order_id"]},
        {"order_id": found[3]["order_id"], "market_ticker": TICKER},
    ]
    status, body = await at.trader.ask("DELETE", ORDERS + "/batched", {"orders": cancels})
    assert status == 200
    fits(openapi, body, ORDERS + "/batched", "delete", "200")
    assert [leg["reduced_by"] for leg in body["orders"]] == ["1.00", "0.00", "0.00", "2.00"]
    assert [leg["error"] and leg["error"]["code"] for leg in body["orders"]] == [None, "not_found", "not_found", None]


async def test_a_batch_takes_all_its_tokens_or_none(at: Desk) -> None:
    legs = [at.trader.body("bid", "0.4000", "1.00") for _ in range(11)]
    status, body = await at.trader.ask("POST", ORDERS + "/batched", {"orders": legs})
    assert (status, body) == (429, {"error": "too many requests"})
    assert (await at.trader.ask("POST", ORDERS + "/batched", {"orders": legs[:10]}))[0] == 201
    assert len(at.trader.account.resting) == 10
    assert (await at.trader.ask("POST", ORDERS + "/batched", {"orders": []}))[0] == 400


# -- tokens


async def test_writes_cost_the_buckets_of_their_shards(at: Desk) -> None:
    """7.3: explicit shard 2 has a bucket of its own; what is routed costs all of them."""
    for _ in range(10):
        await at.trader.order("bid", "0.4000", "0.01")
    assert await at.trader.try_order("bid", "0.4000", "0.01") == (429, {"error": "too many requests"})
    assert (await at.trader.try_order("bid", "0.4000", "0.01", exchange_index=None))[0] == 429  # shard 2 is empty
    assert (await at.trader.ask("POST", ORDERS + "/batched", {"orders": [at.trader.body("bid", "0.4", "1")]}))[0] == 201
    assert (await at.other.refused("bid", "0.4000", "0.01"))[0] == 400  # another member's buckets
    await at.clock.advance(0.1)
    order = await at.trader.order("bid", "0.4000", "0.01")
    assert (await at.trader.cancel(order["order_id"]))[0] == 429
    await at.clock.advance(0.02)
    assert (await at.trader.cancel(order["order_id"]))[0] == 200  # 2 tokens


async def test_limits_and_costs_are_told(at: Desk, openapi: Spec) -> None:
    limits = await at.trader.get("/account/limits")
    fits(openapi, limits, "/account/limits", "get", "200")
    assert limits["write"] == {"refill_rate": 100, "bucket_capacity": 100}
    costs = await at.trader.get("/account/endpoint_costs")
    fits(openapi, costs, "/account/endpoint_costs", "get", "200")
    assert {"method": "GET", "path": "/portfolio/orders/:order_id", "cost": 2} in costs["endpoint_costs"]


# -- what goes wrong on the way


@pytest.mark.parametrize("mishap", [Mishap.LOSE_ANSWER, Mishap.LOSE_REQUEST])
async def test_ex_a_lost_answer_leaves_the_truth_at_the_venue(at: Desk, mishap: Mishap) -> None:
    at.venue.faults.arm(mishap)
    with pytest.raises(aiohttp.ClientError):
        await at.trader.order("bid", "0.4000", "1.00", client_order_id="mine")
    placed = mishap is Mishap.LOSE_ANSWER
    listed = (await at.trader.get("/portfolio/orders"))["orders"]
    assert [order["client_order_id"] for order in listed] == (["mine"] if placed else [])
    status, _ = await at.trader.try_order("bid", "0.4000", "1.00", client_order_id="mine")
    assert status == (409 if placed else 201)
    assert len(at.venue.exchange.orders) == 1


@pytest.mark.parametrize("mishap", [Mishap.ERROR_BEFORE, Mishap.ERROR_AFTER])
async def test_a_503_says_nothing_about_the_order(at: Desk, mishap: Mishap) -> None:
    at.venue.mishaps.script = lambda line: mishap if line == "POST /trade-api/v2/portfolio/events/orders" else None
    assert await at.trader.refused("bid", "0.4000", "1.00") == (503, "exchange_unavailable")
    at.venue.mishaps.script = None
    assert len(at.venue.exchange.orders) == (1 if mishap is Mishap.ERROR_AFTER else 0)


async def test_an_answer_may_come_late(at: Desk) -> None:
    at.venue.faults.arm(Mishap.DELAY_ANSWER)
    at.venue.mishaps.delay = 0.2
    asked = asyncio.create_task(at.trader.order("bid", "0.4000", "1.00"))
    async with asyncio.timeout(30):
        while not at.venue.exchange.orders:  # noqa: ASYNC110 - the other end of a socket
            await asyncio.sleep(0.002)
    assert not asked.done()
    await at.clock.advance(0.3)
    assert (await asked)["remaining_count"] == "1.00"


async def test_a_timestamp_is_refused_once(at: Desk) -> None:
    at.venue.faults.arm("timestamp_expired")
    assert await at.trader.refused("bid", "0.4000", "1.00") == (401, "header_timestamp_expired")
    await at.trader.order("bid", "0.4000", "1.00")


async def test_rest_may_lag_behind_the_engine(at: Desk) -> None:
    at.venue.portfolio.lag_ms = 500
    made = await at.trader.order("bid", "0.4000", "1.00")
    assert (await at.trader.ask("GET", f"/portfolio/orders/{made['order_id']}"))[0] == 404
    assert (await at.trader.get("/portfolio/orders"))["orders"] == []
    await at.clock.advance(0.6)
    assert (await at.trader.read(made["order_id"]))["status"] == "resting"


async def test_a_taker_needs_its_fee_as_well(at: Desk) -> None:
    at.quote(Side.SELL, 5_000, 10)
    short = Trader(at, at.venue.accounts.open({2: "5.1749"}))
    enough = Trader(at, at.venue.accounts.open({2: "5.175"}))
    assert await short.refused("bid", "0.5000", "10.00") == (400, "insufficient_balance")
    assert (await enough.order("bid", "0.5000", "10.00"))["fill_count"] == "10.00"
    assert enough.account.cash[2] == 0
