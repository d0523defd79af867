"""The Data API of the local Polymarket: late, rounded, paged, and equal to the ledger in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pmkit.sim.engine import Side
from tests.sim.polymarket_client import Bench, json_types
from tests.sim.polymarket_trader import Trader

SHARE = 1_000_000


@pytest.fixture
async def at_once(still: Bench) -> Trader:
    still.venue.desk.taker_delay_seconds = 0
    trader = Trader(still)
    trader.clear_book()
    return trader


async def ask(bench: Bench, path: str, **query: Any) -> tuple[int, Any]:
    async with bench.http.get(bench.venue.endpoints().data + path, params=query) as response:
        return response.status, await response.json()


async def bought(bench: Bench, trader: Trader, *, outcome: int = 0, shares: int = 10) -> str:
    """Buy at 0.50 from the background traders, mined; the token."""
    trader.house(Side.SELL if outcome == 0 else Side.BUY, 5000, shares * SHARE)
    token = trader.window.tokens[outcome]
    status, data = await trader.place(price=5000, shares=shares * SHARE, token=token)
    assert (status, data["status"]) == (200, "matched")
    await bench.advance(5)
    return token


async def test_positions_come_late(still: Bench, at_once: Trader) -> None:
    token = await bought(still, at_once)
    user = at_once.test.funder
    assert (await ask(still, "/v2/positions", user=user))[1]["data"] == []
    await still.advance(91)
    status, page = await ask(still, "/v2/positions", user=user)
    assert status == 200
    (row,) = page["data"]
    assert page["pagination"] == {"limit": 100, "offset": 0, "has_more": False, "next_cursor": None}
    assert (row["token_id"], row["current_size"], row["avg_price"], row["status"]) == (token, 10, 0.5, "OPEN")
    assert (row["entry_cost_usdc"], row["entry_fees_usdc"]) == (5.0, 0.175)
    assert row["opposite_token_id"] == at_once.window.tokens[1]
    assert (await ask(still, "/v2/positions", user=at_once.test.funder.lower()))[1]["data"] == [row]
    assert (await ask(still, "/v2/value", user=user))[1]["data"]["value"] == row["current_value"]


async def test_rows_have_the_fields_and_types_of_official_samples(
    still: Bench, at_once: Trader, recordings: Path
) -> None:
    await bought(still, at_once)
    await still.advance(100)
    for path, file in (("positions", "positions_rows"), ("trades", "trades_rows"), ("activity", "activity_rows")):
        sample = json.loads((recordings / "polymarket" / f"data_v2_{file}.json").read_text())["data"][0]
        (row,) = (await ask(still, f"/v2/{path}", user=at_once.test.funder))[1]["data"]
        mine, theirs = json_types(row), json_types(sample)
        assert {key: kind for key, kind in mine.items() if key in theirs} == theirs, path


async def test_trades_need_taker_only_false_to_show_makers(still: Bench, at_once: Trader) -> None:
    await at_once.rest(price=4000, shares=10 * SHARE)
    at_once.house(Side.SELL, 4000, 10 * SHARE)
    await still.advance(10)
    user = at_once.test.funder
    assert (await ask(still, "/v2/trades", user=user))[1]["data"] == []
    (row,) = (await ask(still, "/v2/trades", user=user, taker_only="false"))[1]["data"]
    assert (row["side"], row["price"], row["size"], row["outcome_index"]) == ("BUY", 0.4, 10, 999)
    await still.advance(90)
    (row,) = (await ask(still, "/v2/trades", user=user, takerOnly="false"))[1]["data"]
    assert row["outcome_index"] == 0


async def test_failed_trades_never_show(still: Bench, at_once: Trader) -> None:
    still.venue.faults.arm("trade_failed")
    await bought(still, at_once)
    await still.advance(120)
    for path in ("/v2/trades", "/v2/positions", "/v2/activity"):
        assert (await ask(still, path, user=at_once.test.funder))[1]["data"] == []


async def test_activity_says_what_was_paid_with_the_fee(still: Bench, at_once: Trader) -> None:
    await bought(still, at_once)
    await still.advance(10)
    (row,) = (await ask(still, "/v2/activity", user=at_once.test.funder))[1]["data"]
    assert (row["type"], row["usdc_size"], row["size"]) == ("TRADE", 5.175, 10)
    rows = (await ask(still, "/v2/activity", user=at_once.test.funder, excludeDepositsWithdrawals="false"))[1]["data"]
    assert [row["type"] for row in rows] == ["TRADE", "DEPOSIT"]


async def test_pages(still: Bench, at_once: Trader) -> None:
    for _ in range(5):
        await bought(still, at_once)
    await still.advance(10)
    seen: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await ask(still, "/v2/trades", user=at_once.test.funder, limit=2, **cursor))[1]
        seen += page["data"]
        if page["pagination"]["next_cursor"] is None:
            break
        cursor = {"cursor": page["pagination"]["next_cursor"]}
    assert len({row["transaction_hash"] for row in seen}) == 5
    status, error = await ask(still, "/v2/trades", limit=1001)
    assert (status, error["code"], error["retryable"]) == (400, "invalid_request", False)
    assert (await ask(still, "/v2/trades", offset=1))[0] == 400
    assert (await ask(still, "/v2/positions"))[0] == 400


async def test_winners_losers_and_redeeming(still: Bench, at_once: Trader) -> None:
    window = at_once.window
    await bought(still, at_once)
    await bought(still, at_once, outcome=1)
    tokens = (await ask(still, "/v2/tokens", token_id=",".join(window.tokens)))[1]["data"]
    assert [(row["resolved"], row["final_price"]) for row in tokens] == [(False, None)] * 2
    await still.advance((window.resolved_ms - still.clock.now_ms()) / 1000 + 100, step=30)
    tokens = (await ask(still, "/v2/tokens", condition=window.condition_id))[1]["data"]
    assert sorted(row["final_price"] for row in tokens) == [0, 1]
    won = next(row["token_id"] for row in tokens if row["final_price"] == 1)
    user = at_once.test.funder
    (winner,) = (await ask(still, "/v2/positions", user=user))[1]["data"]
    (loser,) = (await ask(still, "/v2/positions", user=user, status="REDEEMABLE_LOST"))[1]["data"]
    assert (winner["token_id"], winner["current_price"], winner["redeemable"]) == (won, 1, True)
    assert (loser["current_value"], loser["redeemable"]) == (0, True)
    (resolution,) = (await ask(still, "/v2/resolutions", condition=window.condition_id))[1]["data"]
    assert (resolution["status"], sorted(resolution["payouts"])) == ("resolved", [0, 1_000_000])
    before = at_once.account.cash
    payouts = dict(zip(window.tokens, resolution["payouts"], strict=True))
    assert still.venue.accounts.redeem(at_once.account, window.condition_id, payouts) == 10 * SHARE
    assert at_once.account.cash == before + 10 * SHARE
    await still.advance(91, step=30)
    assert (await ask(still, "/v2/positions", user=user))[1]["data"] == []
    assert len((await ask(still, "/v2/positions", user=user, status="CLOSED"))[1]["data"]) == 2
