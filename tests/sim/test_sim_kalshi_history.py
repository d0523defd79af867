"""Candles and the archive of the local Kalshi. The fixture of this folder holds answers to the OpenAPI file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pmkit.sim.engine import Side
from tests.sim.kalshi_client import NEXT, OPEN, TICKER, running
from tests.sim.kalshi_trader import Desk, desk

CANDLES = f"/series/KXBTC15M/markets/{TICKER}/candlesticks"
SECOND = OPEN // 1000


@pytest.fixture
async def at() -> AsyncIterator[Desk]:
    async with desk() as made:
        yield made


def whole(**more: Any) -> dict[str, Any]:
    return {"start_ts": SECOND, "end_ts": SECOND + 900, "period_interval": 1} | more


async def trade(at: Desk) -> None:
    """In the sixth minute one contract at 0.55 and one at 0.56, in the eighth two at 0.53."""
    at.quote(Side.SELL, 5_500, 1)
    at.quote(Side.SELL, 5_600, 4)
    at.quote(Side.BUY, 5_300, 4)
    at.take(Side.BUY, 5_600, 2)
    await at.clock.advance(130)
    at.take(Side.SELL, 5_300, 2)
    await at.clock.advance(60)


async def test_candles_are_the_quotes_and_trades_of_their_minute(at: Desk) -> None:
    await trade(at)
    body = await at.get(CANDLES, whole())
    rows = body["candlesticks"]
    assert body["ticker"] == TICKER
    assert [row["end_period_ts"] - SECOND for row in rows] == [360, 420, 480, 540]
    first, calm, third, last = rows
    assert {name: first["price"][f"{name}_dollars"] for name in ("open", "high", "low", "close", "mean")} == {
        "open": "0.5500", "high": "0.5600", "low": "0.5500", "close": "0.5600", "mean": "0.5550"
    }  # fmt: skip
    assert first["volume_fp"] == "2.00" and "previous_dollars" not in first["price"]
    assert first["yes_ask"]["close_dollars"] == "0.5600" and first["yes_bid"]["close_dollars"] == "0.5300"
    assert calm["price"] == {"previous_dollars": "0.5600"} and calm["volume_fp"] == "0.00"
    assert set(calm["yes_ask"].values()) == {"0.5600"}
    assert third["price"]["close_dollars"] == "0.5300" and third["price"]["previous_dollars"] == "0.5600"
    assert last["price"] == {"previous_dollars": "0.5300"}
    assert [row["open_interest_fp"] for row in rows] == ["2.00", "2.00", "0.00", "0.00"]


async def test_longer_periods_are_their_minutes_together(at: Desk) -> None:
    await trade(at)
    for minutes in (60, 1440):
        (row,) = (await at.get(CANDLES, whole(period_interval=minutes, end_ts=SECOND + 86_400)))["candlesticks"]
        assert row["end_period_ts"] % (minutes * 60) == 0
        assert (row["price"]["open_dollars"], row["price"]["close_dollars"]) == ("0.5500", "0.5300")
        assert (row["volume_fp"], row["price"]["mean_dollars"]) == ("4.00", "0.5425")


async def test_several_markets_at_once_and_the_candle_before(at: Desk) -> None:
    await trade(at)
    rows = (await at.get(CANDLES, whole()))["candlesticks"]
    query = whole(market_tickers=f"{TICKER},{NEXT}", start_ts=SECOND + 421, include_latest_before_start="true")
    one, other = (await at.get("/markets/candlesticks", query))["markets"]
    assert (one["market_ticker"], other["market_ticker"]) == (TICKER, NEXT)
    before, *found = one["candlesticks"]
    assert found == rows[2:] and other["candlesticks"] == []
    assert (before["end_period_ts"], before["price"]) == (SECOND + 480, {"previous_dollars": "0.5600"})
    event = await at.get("/series/KXBTC15M/events/KXBTC15M-26NOV200715/candlesticks", whole())
    assert (event["market_tickers"], event["market_candlesticks"]) == ([TICKER], [rows])


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (CANDLES, {"start_ts": SECOND, "end_ts": SECOND}, 400),
        (CANDLES, whole(period_interval=5), 400),
        (CANDLES, whole(end_ts=SECOND - 1), 400),
        (CANDLES.replace("KXBTC15M/", "KXETH15M/"), whole(), 404),
        ("/series/KXBTC15M/markets/KXBTC15M-26JAN010000-00/candlesticks", whole(), 404),
        ("/markets/candlesticks", whole(), 400),
        ("/markets/candlesticks", whole(market_tickers=",".join([TICKER] * 101)), 400),
    ],
)
async def test_candles_that_nobody_can_have(at: Desk, path: str, query: dict[str, Any], status: int) -> None:
    assert (await at.ask(path, query))[0] == status


async def test_what_a_candle_says_is_what_was_printed() -> None:
    async with running(OPEN + 60_000, steps=12) as setup:
        for _ in range(180):
            await setup.clock.advance(1)
        rows = (await setup.get(CANDLES, whole()))["candlesticks"]
        trades = (await setup.get("/markets/trades", {"ticker": TICKER, "limit": 1000}))["trades"]
        assert len(trades) > 20
        assert sum(round(float(row["volume_fp"]) * 100) for row in rows) == sum(
            round(float(trade["count_fp"]) * 100) for trade in trades
        )
        prices = [trade["yes_price_dollars"] for trade in trades]
        ranges = [row["price"] for row in rows if "high_dollars" in row["price"]]
        assert max(row["high_dollars"] for row in ranges) == max(prices)
        assert min(row["low_dollars"] for row in ranges) == min(prices)
        assert ranges[-1]["close_dollars"] == prices[0]


# ---- the archive


async def test_an_account_before_the_cut_off_is_under_historical_only(at: Desk) -> None:
    ask = at.trader.get
    at.quote(Side.SELL, 5_500, 3)
    filled = await at.trader.order("bid", "0.5500", "3.00")
    gone = await at.trader.order("bid", "0.0100", "1.00")
    await at.trader.cancel(gone["order_id"])
    rests = await at.trader.order("bid", "0.0200", "1.00")
    at.venue.exchange.settle(TICKER, "yes")
    await at.clock.advance(5)
    for name in ("orders", "fills", "positions"):
        body = await ask(f"/historical/{name}")
        assert body["market_positions" if name == "positions" else name] == []
    before = {
        "orders": (await ask("/portfolio/orders"))["orders"],
        "fills": (await ask("/portfolio/fills"))["fills"],
        "market_positions": (await ask("/portfolio/positions", settlement_status="all"))["market_positions"],
    }
    at.venue.calendar.archived_ms = at.clock.now_ms()
    later = await at.trader.order("bid", "0.0300", "1.00")
    assert [row["order_id"] for row in (await ask("/portfolio/orders"))["orders"]] == [
        later["order_id"], rests["order_id"]
    ]  # fmt: skip
    assert (await ask("/portfolio/fills"))["fills"] == []
    assert (await ask("/portfolio/positions", settlement_status="all"))["market_positions"] == []
    assert (await ask("/historical/orders"))["orders"] == before["orders"][1:]
    assert (await ask("/historical/fills", ticker=TICKER))["fills"] == before["fills"]
    assert (await ask("/historical/fills", ticker=NEXT))["fills"] == []
    assert (await ask("/historical/positions"))["market_positions"] == before["market_positions"]
    for order_id in (filled["order_id"], gone["order_id"]):
        assert (await at.trader.ask("GET", f"/portfolio/orders/{order_id}"))[0] == 404
    assert (await at.trader.ask("GET", f"/portfolio/orders/{rests['order_id']}"))[0] == 200
    pages = [await ask("/historical/orders", limit=1)]
    pages.append(await ask("/historical/orders", limit=1, cursor=pages[0]["cursor"]))
    assert [page["orders"] for page in pages] == [[row] for row in before["orders"][1:]]
    assert pages[1]["cursor"] == ""


async def test_markets_before_the_cut_off_are_under_historical_only(at: Desk) -> None:
    await trade(at)
    await at.clock.advance(720)  # the window is settled
    prints = (await at.get("/markets/trades", {"ticker": TICKER}))["trades"]
    candles = (await at.get(CANDLES, whole()))["candlesticks"]
    market = await at.market()
    assert market["status"] == "finalized" and len(prints) == 3
    assert (await at.ask(f"/historical/markets/{TICKER}"))[0] == 404
    at.venue.calendar.archived_ms = cut = at.clock.now_ms()
    assert (await at.get("/historical/cutoff"))["market_settled_ts"].startswith("2026-11-20T12:2")
    assert (await at.ask(f"/markets/{TICKER}"))[0] == 404
    assert (await at.ask(CANDLES, whole()))[0] == 404
    assert TICKER not in await at.tickers(series_ticker="KXBTC15M", status="settled", limit=50)
    assert (await at.get(f"/historical/markets/{TICKER}"))["market"] == market
    listed = await at.get("/historical/markets", {"series_ticker": "KXBTC15M", "limit": 5})
    assert listed["markets"][0]["ticker"] == TICKER and listed["cursor"]
    assert all(row["close_time"] <= market["open_time"] for row in listed["markets"][1:])
    more = await at.get("/historical/markets", {"series_ticker": "KXBTC15M", "limit": 5, "cursor": listed["cursor"]})
    assert not {row["ticker"] for row in more["markets"]} & {row["ticker"] for row in listed["markets"]}
    one = await at.get("/historical/markets", {"tickers": f"{TICKER},{NEXT}"})
    assert [row["ticker"] for row in one["markets"]] == [TICKER]
    assert (await at.get("/markets/trades", {"ticker": TICKER}))["trades"] == []
    assert (await at.get("/historical/trades", {"ticker": TICKER}))["trades"] == prints
    old = (await at.get(f"/historical/markets/{TICKER}/candlesticks", whole()))["candlesticks"]
    assert [row["volume"] for row in old] == [row["volume_fp"] for row in candles]
    assert old[1]["price"] == dict.fromkeys(("open", "high", "low", "close", "mean")) | {"previous": "0.5600"}
    assert (await at.get("/events/KXBTC15M-26NOV200715"))["event"]["event_ticker"] == "KXBTC15M-26NOV200715"
    assert cut == at.clock.now_ms()


async def test_a_window_of_last_winter_is_archived() -> None:
    async with running() as setup:
        ticker = "KXBTC15M-26JAN142015-15"
        assert (await setup.ask(f"/markets/{ticker}"))[0] == 404
        market = (await setup.get(f"/historical/markets/{ticker}"))["market"]
        assert (market["status"], market["ticker"]) == ("finalized", ticker) and market["result"] in ("yes", "no")
        assert (await setup.get("/series/fee_changes"))["series_fee_change_arr"] == []
        assert (await setup.get("/events/fee_changes"))["event_fee_changes"] == []
