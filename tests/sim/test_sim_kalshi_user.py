"""The channels of an account on the local Kalshi against the page and the AsyncAPI file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pmkit.sim.engine import Side
from tests.sim.kalshi_client import TICKER, Client
from tests.sim.kalshi_trader import Desk, Trader, desk
from tests.sim.openapi import Spec

CHANNELS = ["fill", "market_positions", "user_orders", "order_group_updates"]
SCHEMAS = {
    "fill": "fillPayload",
    "market_position": "marketPositionPayload",
    "user_order": "userOrderPayload",
    "order_group_updates": "orderGroupUpdatesPayload",
}


@pytest.fixture
async def at() -> AsyncIterator[Desk]:
    async with desk() as made:
        yield made


@pytest.fixture(scope="session")
def asyncapi(recordings: Path) -> Spec:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    return Spec(recordings / "kalshi/spec/asyncapi-2.0.0-2026-08-22.yaml")


def kinds(frames: list[Any]) -> list[str]:
    return [frame["type"] for frame in frames]


def of(frames: list[Any], kind: str) -> list[Any]:
    return [frame["msg"] for frame in frames if frame["type"] == kind]


async def subscribed(ws: Client) -> None:
    await ws.send("subscribe", channels=CHANNELS)
    for channel in CHANNELS:
        assert (await ws.receive())["msg"]["channel"] == channel


async def test_everything_about_an_order_is_told(at: Desk, asyncapi: Spec) -> None:
    async with at.trader.socket() as ws:
        await subscribed(ws)
        at.quote(Side.SELL, 5_500, 4)
        made = await at.trader.order("bid", "0.5500", "6.00", client_order_id="mine")
        frames = await ws.drain()
        assert kinds(frames) == ["fill", "market_position", "user_order"]
        at.take(Side.SELL, 5_500, 2)
        frames += await ws.drain()
        assert kinds(frames[3:]) == ["fill", "market_position", "user_order"]
        await at.trader.ask("POST", "/portfolio/order_groups/create", {"contracts_limit": 5, "exchange_index": 2})
        frames += await ws.drain()
    assert {frame["type"] for frame in frames} == set(SCHEMAS)
    for frame in frames:
        assert asyncapi.problems(frame, asyncapi.schema(SCHEMAS[frame["type"]])) == []
        assert ("seq" in frame) == (frame["type"] == "order_group_updates")
    taken, made_fill = of(frames, "fill")
    assert (taken["is_taker"], taken["count_fp"], taken["fee_cost"]) == (True, "4.00", "0.069300")
    assert (taken["order_id"], taken["client_order_id"], taken["exchange_index"]) == (made["order_id"], "mine", 2)
    assert (taken["post_position_fp"], made_fill["post_position_fp"]) == ("4.00", "6.00")
    assert (made_fill["is_taker"], made_fill["fee_cost"]) == (False, "0.000000")
    rested, done = of(frames, "user_order")
    assert (rested["status"], rested["fill_count_fp"], rested["remaining_count_fp"]) == ("resting", "4.00", "2.00")
    assert (done["status"], done["remaining_count_fp"], done["last_update_reason"]) == ("executed", "0.00", "Trade")
    assert of(frames, "market_position")[-1]["position_cost_dollars"] == "3.3000"
    [group] = of(frames, "order_group_updates")
    assert (group["event_type"], group["contracts_limit_fp"]) == ("created", "5.00")
    fills = (await at.trader.get("/portfolio/fills"))["fills"]
    assert [fill["trade_id"] for fill in fills] == [made_fill["trade_id"], taken["trade_id"]]


async def test_reasons_of_the_last_change(at: Desk) -> None:
    async with at.trader.socket() as ws:
        await subscribed(ws)
        at.quote(Side.SELL, 5_500, 1)
        path = "/portfolio/events/orders/{}/{}"
        at.venue.exchange.crosses_are_cancelled = True
        crossed = await at.trader.order("bid", "0.5500", "1.00", post_only=True)
        kept = await at.trader.order("bid", "0.4000", "5.00")
        await at.trader.ask("POST", path.format(kept["order_id"], "decrease"), {"reduce_by": "1", "exchange_index": 2})
        amended = {"ticker": TICKER, "side": "bid", "price": "0.4100", "count": "3.00", "exchange_index": 2}
        await at.trader.ask("POST", path.format(kept["order_id"], "amend"), amended)
        stopped = await at.trader.order("ask", "0.4100", "1.00")
        await at.trader.cancel(kept["order_id"])
        short = await at.trader.order("bid", "0.3000", "1.00", expiration_time=at.clock.now_ms() // 1000 + 5)
        await at.clock.advance(6)
        closed = await at.trader.order("bid", "0.3000", "1.00")
        await at.clock.advance(600)
        frames = of(await ws.drain(), "user_order")
    found = {
        order: [
            (frame["status"], frame["last_update_reason"]) for frame in frames if frame["order_id"] == made["order_id"]
        ]
        for order, made in {
            "crossed": crossed,
            "kept": kept,
            "stopped": stopped,
            "short": short,
            "closed": closed,
        }.items()
    }
    assert found == {
        "crossed": [("canceled", "PostOnlyCrossCancel")],
        "kept": [("resting", ""), ("resting", "Decrease"), ("resting", "Amend"), ("canceled", "")],
        "stopped": [("canceled", "SelfTradeCancel")],
        "short": [("resting", ""), ("canceled", "ExpiryCancel")],
        "closed": [("resting", ""), ("canceled", "")],
    }


async def test_nobody_hears_of_another_members_orders(at: Desk) -> None:
    rich = Trader(at, at.venue.accounts.open({2: 100}))
    async with at.trader.socket() as mine, rich.socket() as theirs:
        await subscribed(mine)
        await subscribed(theirs)
        await rich.order("ask", "0.5500", "1.00")
        assert kinds(await theirs.drain()) == ["user_order"]
        assert await mine.drain() == []
        await at.trader.order("bid", "0.5500", "1.00")
        ours, others = await mine.drain(), await theirs.drain()
        assert kinds(ours) == kinds(others) == ["fill", "market_position", "user_order"]
        assert of(ours, "fill")[0]["trade_id"] == of(others, "fill")[0]["trade_id"]
        assert [of(frames, "fill")[0]["is_taker"] for frames in (ours, others)] == [True, False]
        assert of(others, "fill")[0]["post_position_fp"] == "-1.00"


async def test_the_book_tells_a_member_which_changes_were_its_own(at: Desk, asyncapi: Spec) -> None:
    async with at.trader.socket() as mine, at.other.socket() as theirs:
        for ws in (mine, theirs):
            await ws.call("subscribe", channels=["orderbook_delta"], market_tickers=[TICKER])
            assert kinds([await ws.receive()]) == ["orderbook_snapshot"]
        made = await at.trader.order("bid", "0.4000", "3.00", client_order_id="mine")
        at.take(Side.SELL, 4_000, 1)
        await at.trader.cancel(made["order_id"])
        ours, others = await mine.drain(), await theirs.drain()
    for frame in ours:
        assert asyncapi.problems(frame, asyncapi.schema("orderbookDeltaPayload")) == []
    assert [frame["msg"]["delta_fp"] for frame in ours] == ["3.00", "-1.00", "-2.00"]
    assert [frame["msg"].get("client_order_id") for frame in ours] == ["mine", None, "mine"]
    assert [frame["msg"].get("subaccount") for frame in ours] == [0, None, 0]
    assert not any("client_order_id" in frame["msg"] for frame in others)


async def test_channels_may_be_narrowed_to_markets(at: Desk) -> None:
    async with at.trader.socket() as ws:
        reply = await ws.call("subscribe", channels=["user_orders"], market_tickers=["KXETH15M-26NOV200715-15"])
        await at.trader.order("bid", "0.4000", "1.00")
        assert await ws.drain() == []
        await ws.call("update_subscription", sids=[reply["msg"]["sid"]], market_tickers=[TICKER], action="add_markets")
        await at.trader.order("bid", "0.4000", "1.00")
        assert kinds(await ws.drain()) == ["user_order"]


async def test_groups_are_counted(at: Desk) -> None:
    async with at.trader.socket() as ws:
        await subscribed(ws)
        _, body = await at.trader.ask(
            "POST", "/portfolio/order_groups/create", {"contracts_limit": 1, "exchange_index": 2}
        )
        made = await at.trader.order("bid", "0.4000", "5.00", order_group_id=body["order_group_id"])
        at.take(Side.SELL, 4_000, 2)
        path = f"/portfolio/order_groups/{body['order_group_id']}"
        query = {"exchange_index": 2}
        await at.trader.ask("PUT", f"{path}/reset", {}, query)
        await at.trader.ask("PUT", f"{path}/limit", {"contracts_limit_fp": "7.50"}, query)
        await at.trader.ask("DELETE", path, None, query)
        frames = [frame for frame in await ws.drain() if frame["type"] == "order_group_updates"]
        assert [frame["msg"]["event_type"] for frame in frames] == [
            "created",
            "triggered",
            "reset",
            "limit_updated",
            "deleted",
        ]
        assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5]
        last = of(ws.frames, "user_order")[-1]
        assert (last["order_id"], last["status"], last["order_group_id"]) == (
            made["order_id"],
            "canceled",
            body["order_group_id"],
        )


async def test_a_settlement_is_told_as_a_position(at: Desk) -> None:
    at.quote(Side.SELL, 5_500, 4)
    await at.trader.order("bid", "0.5500", "4.00")
    async with at.trader.socket() as ws:
        await subscribed(ws)
        await at.clock.advance(606)
        [position] = of(await ws.drain(), "market_position")
    won = (await at.market())["result"] == "yes"
    assert (position["position_fp"], position["position_cost_dollars"]) == ("0.00", "0.0000")
    assert position["realized_pnl_dollars"] == ("1.8000" if won else "-2.2000")


async def test_a_fill_may_come_twice(at: Desk) -> None:
    at.venue.faults.arm("duplicate_fill")
    async with at.trader.socket() as ws:
        await subscribed(ws)
        at.quote(Side.SELL, 5_500, 2)
        await at.trader.order("bid", "0.5500", "1.00")
        await at.trader.order("bid", "0.5500", "1.00")
        fills = of(await ws.drain(), "fill")
    assert [fills[0]["trade_id"] == fill["trade_id"] for fill in fills] == [True, True, False]
    assert len(at.trader.account.fills) == 2


async def test_the_account_may_be_silent_while_the_market_goes_on(at: Desk) -> None:
    async with at.trader.socket() as ws:
        await subscribed(ws)
        await ws.call("subscribe", channels=["orderbook_delta"], market_tickers=[TICKER])
        at.venue.user_feed.silence(5)
        await at.trader.order("bid", "0.4000", "1.00")
        assert set(kinds(await ws.drain())) <= {"orderbook_snapshot", "orderbook_delta"}
        assert at.venue.user_feed.lost == 1
        await at.clock.advance(6)
        await at.trader.order("bid", "0.4000", "1.00")
        assert "user_order" in kinds(await ws.drain())
