"""The user channel of the local Polymarket: who hears what, in which order, and what goes wrong there."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from pmkit.sim.engine import Side
from tests.sim.polymarket_client import Bench
from tests.sim.polymarket_trader import Trader

SHARE = 1_000_000


@pytest.fixture
async def at_once(still: Bench) -> Trader:
    still.venue.desk.taker_delay_seconds = 0
    trader = Trader(still)
    trader.clear_book()
    return trader


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["status"]) for event in events]


async def test_an_order_from_its_placement_to_its_end(at_once: Trader) -> None:
    feed = await at_once.user()
    order_id = await at_once.rest(price=4000, shares=10 * SHARE)
    at_once.house(Side.SELL, 4000, 4 * SHARE)
    await at_once.ask("DELETE", "/order", {"orderID": order_id})
    events = await feed.settle()
    assert kinds(events) == [
        ("PLACEMENT", "LIVE"),
        ("TRADE", "MATCHED"),
        ("UPDATE", "LIVE"),
        ("CANCELLATION", "CANCELED"),
    ]
    placed, trade, update, _ = events
    assert set(placed) == {
        *("event_type", "type", "id", "owner", "order_owner", "market", "asset_id", "side", "original_size"),
        *("size_matched", "price", "associate_trades", "outcome", "created_at", "expiration", "order_type", "status"),
        *("maker_address", "timestamp"),
    }
    assert (placed["id"], placed["owner"], placed["size_matched"]) == (order_id, at_once.test.api_key.key, "0")
    assert (update["size_matched"], update["associate_trades"]) == ("4", [trade["id"]])
    assert (trade["trader_side"], trade["size"], trade["transaction_hash"]) == ("MAKER", "4", "")
    assert trade["maker_orders"][0]["order_id"] == order_id
    assert trade["maker_orders"][0]["matched_amount"] == "4"


async def test_a_trade_of_two_accounts_is_told_to_each_in_its_own_words(still: Bench, at_once: Trader) -> None:
    other = Trader(still, 3)
    maker, taker = await at_once.user(), await other.user()
    resting = await at_once.rest(price=4000, shares=10 * SHARE)
    await other.place(price=6000, shares=10 * SHARE, token=at_once.window.tokens[1])
    await still.advance(20)
    for feed in (maker, taker):
        await feed.settle()
        assert [event["status"] for event in feed.of("TRADE")] == ["MATCHED", "MINED", "CONFIRMED"]
        assert feed.of("TRADE")[1]["transaction_hash"].startswith("0x")
    mine, theirs = maker.of("TRADE")[0], taker.of("TRADE")[0]
    assert mine["id"] == theirs["id"]
    assert (mine["trader_side"], theirs["trader_side"]) == ("MAKER", "TAKER")
    assert (mine["trade_owner"], theirs["trade_owner"]) == (at_once.test.api_key.key, other.test.api_key.key)
    # The outer fields are the taker's, who bought the other outcome.
    assert (mine["outcome"], mine["price"], mine["side"]) == ("Down", "0.6", "BUY")
    (leg,) = mine["maker_orders"]
    assert (leg["order_id"], leg["outcome"], leg["price"], leg["side"]) == (resting, "Up", "0.4", "BUY")
    assert [event["id"] for event in maker.of("PLACEMENT")] == [resting]


async def test_a_delayed_order_and_its_kill(still: Bench) -> None:
    trader = Trader(still)
    trader.clear_book()
    trader.house(Side.SELL, 5000, 10 * SHARE)
    feed = await trader.user()
    still.venue.faults.arm("killed_in_delay")
    order_id = (await trader.place(kind="FOK", price=5000))[1]["orderID"]
    await still.advance(0.2, step=0.1)
    assert kinds(await feed.settle()) == [
        ("PLACEMENT", "DELAYED"),
        ("CANCELLATION", "CANCELED_order couldn't be fully filled. FOK orders are fully filled or killed."),
    ]
    still.venue.faults.arm("long_delay")
    matched = (await trader.place(kind="FOK", price=5000))[1]["orderID"]
    await still.advance(4.9, step=0.5)
    assert not feed.of("UPDATE")
    await still.advance(0.2)
    await feed.settle()
    assert [event["status"] for event in feed.of("UPDATE", order_id=matched)] == ["MATCHED"]
    assert matched != order_id


async def test_the_failure_of_a_trade_is_told(still: Bench, at_once: Trader) -> None:
    feed = await at_once.user()
    still.venue.faults.arm("trade_failed")
    at_once.house(Side.SELL, 5000, 10 * SHARE)
    await at_once.place(price=5000)
    await still.advance(20)
    await feed.settle()
    assert [event["status"] for event in feed.of("TRADE")] == ["MATCHED", "RETRYING", "FAILED"]


async def test_markets_can_be_chosen(still: Bench) -> None:
    trader = Trader(still)
    eth = still.venue.current("ETH")
    feed = await trader.user([trader.window.condition_id])
    await trader.rest(price=100)
    await trader.rest(price=100, token=eth.tokens[0])
    assert len(await feed.settle()) == 1
    await feed.ws.send_json({"operation": "subscribe", "markets": [eth.condition_id]})
    await feed.settle()
    await trader.rest(price=100, token=eth.tokens[0])
    assert len(await feed.settle()) == 2
    await feed.ws.send_json({"operation": "unsubscribe", "markets": [eth.condition_id]})
    await feed.settle()
    await trader.rest(price=100, token=eth.tokens[0])
    assert len(await feed.settle()) == 2


async def test_wrong_credentials_close_the_link(still: Bench) -> None:
    for auth in ({"apiKey": "x", "secret": "y", "passphrase": "z"}, None):
        ws = await still.http.ws_connect(still.venue.endpoints().user_ws)
        still.sockets.append(ws)
        await ws.send_json({"type": "user", **({"auth": auth} if auth else {})})
        async with asyncio.timeout(3):
            message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_silence_and_duplicates(still: Bench) -> None:
    trader = Trader(still)
    feed = await trader.user()
    still.venue.user.silence(10)
    await trader.rest(price=100)
    assert await feed.settle() == []  # PING is answered all the same
    await still.advance(11)
    assert await feed.settle() == []  # what was missed never comes
    still.venue.faults.arm("duplicate_event")
    order_id = await trader.rest(price=100)
    events = await feed.settle()
    assert [event["id"] for event in events] == [order_id, order_id]
    assert events[0] == events[1]


async def test_the_venue_cancels_with_a_reason(still: Bench) -> None:
    trader = Trader(still)
    feed = await trader.user()
    order_id = await trader.rest(price=100)
    still.venue.desk.take_out([still.venue.desk.orders[order_id]], "INVALID")
    events = await feed.settle()
    assert kinds(events) == [("PLACEMENT", "LIVE"), ("CANCELLATION", "INVALID")]
