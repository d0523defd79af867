"""The local Kalshi over REST against its page, OpenAPI file and recordings; the client is plain aiohttp."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pmkit.clock import ManualClock
from pmkit.sim.engine import Side
from pmkit.sim.kalshi.market import GRID
from pmkit.sim.kalshi.windows import LENGTH_MS, Calendar, Window
from pmkit.sim.world import World
from tests.sim.kalshi_client import ASSETS, HOUR, NEXT, OPEN, TICKER, Setup, running, utc
from tests.sim.openapi import Spec


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


@pytest.fixture
async def calm() -> AsyncIterator[Setup]:
    """With traders who are slow, for tests that let a quarter of an hour pass."""
    async with running(steps=0.2) as made:
        yield made


@pytest.fixture(scope="session")
def openapi(recordings: Path) -> Spec:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    return Spec(recordings / "kalshi/spec/openapi-3.28.0-2026-08-22.yaml")


# -- the life of a market


async def test_a_market_goes_through_its_states_by_the_clock() -> None:
    async with running(OPEN - 1_000, steps=0.5) as setup:
        market = await setup.market()
        assert market["status"] == "initialized"
        assert "floor_strike" not in market
        assert "strike_type" not in market
        assert market["yes_sub_title"] == "Target price: TBD"
        await setup.clock.advance(1.2)  # 0.2 s after the open
        market = await setup.market()
        assert market["status"] == "active"
        assert "floor_strike" not in market
        await setup.clock.advance(0.7)
        market = await setup.market()
        assert market["strike_type"] == "greater_or_equal"
        assert isinstance(market["floor_strike"], float)
        assert market["yes_sub_title"] == f"Target Price: ${market['floor_strike']:,.2f}"
        assert OPEN + 600 < datetime.fromisoformat(market["updated_time"]).timestamp() * 1000 < OPEN + 900
        await setup.clock.advance(899.5)  # 0.4 s after the close
        market = await setup.market()
        assert (market["status"], market["result"], market["expiration_value"]) == ("closed", "", "")
        assert (market["yes_bid_dollars"], market["yes_ask_dollars"]) == ("0.0000", "1.0000")
        await setup.clock.advance(3)
        assert (await setup.market())["status"] == "determined"
        await setup.clock.advance(1)
        market = await setup.market()
        assert market["status"] == "finalized"
        assert market["result"] == ("yes" if float(market["expiration_value"]) >= market["floor_strike"] else "no")
        assert market["settlement_value_dollars"] == {"yes": "1.0000", "no": "0.0000"}[market["result"]]
        assert 3.9 < datetime.fromisoformat(market["settlement_ts"]).timestamp() - (OPEN + LENGTH_MS) / 1000 < 4.1
        following = await setup.market(NEXT)
        assert f"{following['floor_strike']:.2f}" == market["expiration_value"]


async def test_a_value_is_the_mean_of_the_60_prints_of_the_last_minute(setup: Setup) -> None:
    settled = (await setup.get("/markets", {"status": "settled", "series_ticker": "KXETH15M", "limit": 30}))["markets"]
    assert {market["result"] for market in settled} == {"yes", "no"}
    for market in settled:
        close = int(datetime.fromisoformat(market["close_time"]).timestamp())
        prints = [round(setup.venue.world.price("ETH", second * 1000), 2) for second in range(close - 59, close + 1)]
        assert market["expiration_value"] == f"{round(math.fsum(prints) / 60, 2):.2f}"
    for later, earlier in pairwise(settled):
        assert f"{later['floor_strike']:.2f}" == earlier["expiration_value"]


async def test_a_window_without_index_data_settles_no_and_leaves_the_next_without_strike(calm: Setup) -> None:
    """As recorded for 26JUL221430 and the window after it."""
    close = OPEN + LENGTH_MS
    calm.venue.calendar.missing.add(("BTC", close))
    await calm.clock.advance(700)
    market = await calm.market()
    assert (market["status"], market["result"], market["expiration_value"]) == ("finalized", "no", "")
    following = await calm.market(NEXT)
    assert "floor_strike" not in following
    assert following["yes_sub_title"] == "Target price: TBD"
    await calm.clock.advance(900)
    following = await calm.market(NEXT)
    assert (following["status"], following["result"]) == ("finalized", "no")
    assert following["expiration_value"] != ""
    assert "floor_strike" in await calm.market("KXBTC15M-26NOV200745-45")


async def test_a_settlement_may_be_late(calm: Setup) -> None:
    calm.venue.calendar.late["BTC", OPEN + LENGTH_MS] = 340_000
    async with calm.socket() as ws:
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        await calm.clock.advance(660)
        assert (await calm.market())["status"] == "closed"
        await calm.clock.advance(300)
        assert (await calm.market())["status"] == "finalized"
        kinds = [frame["msg"]["event_type"] for frame in await ws.drain() if frame["msg"]["market_ticker"] == TICKER]
        assert kinds == ["determined", "settled"]


async def test_nobody_trades_on_thursday_night() -> None:
    async with running(utc("2026-11-19T02:59:00-05:00"), steps=0.5) as setup:
        last = "KXBTC15M-26NOV190300-00"
        assert (await setup.get("/exchange/status"))["exchange_index_statuses"][2]["trading_active"]
        await setup.clock.advance(120)
        status = await setup.get("/exchange/status")
        assert not status["exchange_active"]
        assert not status["exchange_index_statuses"][2]["trading_active"]
        assert status["exchange_estimated_resume_time"] == "2026-11-19T10:00:00Z"
        assert (await setup.market(last))["status"] == "closed"
        assert await setup.tickers(status="open") == []
        coming = await setup.tickers(
            series_ticker="KXBTC15M", min_close_ts=setup.clock.now_ms() // 1000, max_close_ts=OPEN // 1000 - 24 * 3600
        )
        assert coming[-1] == "KXBTC15M-26NOV190515-15"  # the first one after it
        await setup.clock.advance(2 * 3600)
        market = await setup.market(last)
        assert (market["status"], market["settlement_ts"][:17]) == ("finalized", "2026-11-19T10:00:")
        assert await setup.tickers(status="open") == ["KXBTC15M-26NOV190515-15", "KXETH15M-26NOV190515-15"]
        assert any(setup.venue.book_truth("KXBTC15M-26NOV190515-15").values())


def test_a_day_is_listed_in_one_batch_after_midnight() -> None:
    midnight = utc("2026-11-20T00:00:00+00:00")
    clock = ManualClock(midnight)
    calendar = Calendar(World(7, clock, ASSETS))
    before = list(calendar.newest_first(midnight - 1, ASSETS))
    after = list(calendar.newest_first(midnight + 180_000, ASSETS))
    fresh = set(after) - set(before)
    assert len(fresh) == 2 * 96
    assert min(window.open_ms for window in fresh) == midnight + 4 * HOUR
    assert max(window.open_ms for window in fresh) == midnight + 28 * HOUR - LENGTH_MS
    assert all(midnight < calendar.created_us(window) // 1000 < midnight + 70_000 for window in fresh)


# -- market lists


async def test_the_finders_query_gives_the_current_and_next_windows(setup: Setup) -> None:
    now = setup.clock.now_ms() // 1000
    found = await setup.tickers(series_ticker="KXBTC15M", min_close_ts=now, max_close_ts=now + 3600, limit=20)
    assert sorted(found) == [
        "KXBTC15M-26NOV200715-15",
        "KXBTC15M-26NOV200730-30",
        "KXBTC15M-26NOV200745-45",
        "KXBTC15M-26NOV200800-00",
    ]


async def test_filter_words_differ_from_answer_words(calm: Setup) -> None:
    words = {"unopened": "initialized", "open": "active", "settled": "finalized"}
    for word, status in words.items():
        markets = (await calm.get("/markets", {"status": word, "limit": 5}))["markets"]
        assert {market["status"] for market in markets} == {status}, word
    assert await calm.tickers(status="open") == [TICKER, "KXETH15M-26NOV200715-15"]
    assert await calm.tickers(status="paused") == []
    await calm.clock.advance(601)
    assert await calm.tickers(status="closed", series_ticker="KXBTC15M") == [TICKER]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({"min_created_ts": 1, "status": "open"}, True),
        ({"max_created_ts": 1, "status": "settled"}, False),
        ({"min_close_ts": 1, "limit": 1}, True),
        ({"min_close_ts": 1, "status": "closed"}, True),
        ({"min_close_ts": 1, "status": "open"}, False),
        ({"min_settled_ts": 1, "status": "settled", "limit": 1}, True),
        ({"min_settled_ts": 1, "status": "unopened"}, False),
        ({"min_close_ts": 1, "min_settled_ts": 1}, False),
        ({"min_updated_ts": 1, "limit": 1}, True),
        ({"min_updated_ts": 1, "status": "open"}, False),
        ({"min_updated_ts": 1, "series_ticker": "KXBTC15M"}, False),
        ({"min_updated_ts": 1, "series_ticker": "KXBTC15M", "mve_filter": "exclude", "limit": 1}, True),
        ({"min_close_ts": "1.5"}, False),
        ({"min_close_ts": "2026-11-20T00:00:00Z"}, False),
        ({"status": "active"}, False),
        ({"limit": 1001}, False),
        ({"limit": 1000, "status": "open"}, True),
        ({"event_ticker": "A,B"}, False),
        ({"cursor": "%%%"}, False),
        ({"mve_filter": "some"}, False),
    ],
)
async def test_which_filters_go_together(setup: Setup, query: dict[str, Any], fits: bool) -> None:
    status, body = await setup.ask("/markets", query)
    assert status == (200 if fits else 400), body
    if not fits:
        assert body["error"]["code"] == "invalid_parameters"


async def test_pages_join_without_loss(setup: Setup) -> None:
    query: dict[str, Any] = {"status": "unopened", "limit": 7}
    found: list[str] = []
    for _ in range(100):
        page = await setup.get("/markets", query)
        found += [market["ticker"] for market in page["markets"]]
        if not page["cursor"]:
            break
        query["cursor"] = page["cursor"]
    assert found == await setup.tickers(status="unopened", limit=1000)
    assert len(found) == len(set(found)) > 90


async def test_markets_by_name(setup: Setup) -> None:
    assert await setup.tickers(tickers=f"{TICKER},NOPE,{NEXT}") == [NEXT, TICKER]
    assert await setup.tickers(event_ticker="KXBTC15M-26NOV200715") == [TICKER]
    assert await setup.tickers(series_ticker="KXNOPE") == []
    assert await setup.tickers(mve_filter="only") == []
    status, body = await setup.ask("/markets/KXBTC15M-26NOV190315-15")
    assert (status, body["error"]["code"]) == (404, "not_found")
    far = Window("BTC", OPEN + 40 * HOUR).ticker
    assert (await setup.ask(f"/markets/{far}"))[0] == 404  # not listed yet


async def test_settled_windows_by_the_time_of_settlement(setup: Setup) -> None:
    close = OPEN // 1000 - 900
    found = await setup.tickers(min_settled_ts=close, max_settled_ts=close + 900, status="settled")
    assert sorted(found) == ["KXBTC15M-26NOV200645-45", "KXETH15M-26NOV200645-45"]


async def test_lists_may_be_as_old_as_a_cdn_makes_them(calm: Setup) -> None:
    calm.venue.markets.lag_ms = 15_000
    await calm.clock.advance(601)
    assert await calm.tickers(status="open", series_ticker="KXBTC15M") == [TICKER]
    assert (await calm.market())["status"] == "closed"


# -- every answer against the OpenAPI file


_REMOVED = {"EventData": ["available_on_brokers"]}  # gone since 2026-09-10 (kalshi.md, 1.4)


async def test_every_answer_fits_the_specification(openapi: Spec) -> None:
    for schema, names in _REMOVED.items():
        openapi.schema(schema)["required"] = [name for name in openapi.schema(schema)["required"] if name not in names]
    seen: set[str] = set()
    async with running(OPEN - 1_000, steps=0.5) as setup:

        async def check(pattern: str, path: str, query: Any = None, *, signed: bool = False) -> None:
            status, body = await setup.ask(path, query, signed=signed)
            assert status == 200, (path, body)
            assert openapi.problems(body, openapi.answer(pattern)) == [], path
            seen.add(pattern)

        for wait in (0.0, 1.2, 0.8, 300.0, 599.3, 3.0, 1.0):  # one window through all of its states
            await setup.clock.advance(wait)
            await check("/markets/{ticker}", f"/markets/{TICKER}")
            await check("/markets/{ticker}/orderbook", f"/markets/{TICKER}/orderbook")
            await check("/events/{event_ticker}", "/events/KXBTC15M-26NOV200715", {"with_nested_markets": "true"})
        for status in ("unopened", "open", "closed", "settled"):
            await check("/markets", "/markets", {"status": status, "limit": 50})
            await check("/events", "/events", {"status": status, "limit": 50, "with_nested_markets": "true"})
        await check("/markets/orderbooks", "/markets/orderbooks", [("tickers", TICKER), ("tickers", NEXT)])
        await check("/markets/trades", "/markets/trades")
        await check("/events/{event_ticker}", "/events/KXBTC15M-26NOV200715")
        await check("/series", "/series", {"category": "Crypto", "include_volume": "true"})
        await check("/series/{series_ticker}", "/series/KXETH15M", {"include_product_metadata": "true"})
        await check("/exchange/status", "/exchange/status")
        await check("/exchange/schedule", "/exchange/schedule")
        await check("/account/limits", "/account/limits", signed=True)
        await check("/account/endpoint_costs", "/account/endpoint_costs")
    assert len(seen) == 13


def test_the_reader_of_the_specification_refuses_what_does_not_fit(openapi: Spec, recordings: Path) -> None:
    recorded = json.loads((recordings / "kalshi/rest/market_KXBTC15M-26JUL222315-15.json").read_text())["body"]
    schema = openapi.answer("/markets/{ticker}")
    assert openapi.problems(recorded, schema) == []
    for field, bad in (("status", "open"), ("floor_strike", "1"), ("price_ranges", {}), ("open_time", "noon")):
        assert len(openapi.problems({"market": recorded["market"] | {field: bad}}, schema)) == 1, field
    assert openapi.problems({"market": {k: v for k, v in recorded["market"].items() if k != "result"}}, schema)


async def test_a_market_has_the_fields_of_the_recorded_one(setup: Setup, recordings: Path) -> None:
    recorded = json.loads((recordings / "kalshi/rest/market_KXBTC15M-26JUL222315-15.json").read_text())
    before = recorded["body"]["market"]
    ours = await setup.market()
    changed = {"exchange_index", "settlement_bounds_type", "liquidity_dollars"}
    assert set(ours) ^ set(before) == changed
    for name in set(ours) - changed:
        assert type(ours[name]) is type(before[name]), name
    for name in ("price_ranges", "price_level_structure", "custom_strike", "settlement_timer_seconds", "strike_type"):
        assert ours[name] == before[name]
    assert (ours["exchange_index"], ours["settlement_bounds_type"]) == (2, "default")


async def test_a_series_says_what_it_is(setup: Setup) -> None:
    series = (await setup.get("/series", {"category": "Crypto"}))["series"]
    assert [entry["ticker"] for entry in series] == ["KXBTC15M", "KXETH15M"]
    assert {(entry["frequency"], entry["fee_type"], entry["exchange_index"]) for entry in series} == {
        ("fifteen_min", "quadratic", 2)
    }
    assert (await setup.get("/series", {"category": "Sports"}))["series"] == []
    assert (await setup.ask("/series/KXNOPE"))[0] == 404


# -- books and trades


async def test_a_book_is_bids_on_both_sides_ascending(setup: Setup) -> None:
    live = setup.venue.live(TICKER)
    assert live is not None
    book = (await setup.get(f"/markets/{TICKER}/orderbook"))["orderbook_fp"]
    for side in ("yes_dollars", "no_dollars"):
        prices = [float(price) for price, _ in book[side]]
        assert prices == sorted(prices)
        assert len(prices) > 5
    yes_bid, no_bid = float(book["yes_dollars"][-1][0]), float(book["no_dollars"][-1][0])
    assert yes_bid + no_bid < 1
    market = await setup.market()
    assert float(market["yes_bid_dollars"]) == yes_bid
    assert float(market["yes_ask_dollars"]) == pytest.approx(1 - no_bid)
    assert market["yes_bid_size_fp"] == book["yes_dollars"][-1][1]
    assert float(market["no_ask_dollars"]) == pytest.approx(1 - yes_bid)
    top = (await setup.get(f"/markets/{TICKER}/orderbook", {"depth": 2}))["orderbook_fp"]
    assert top["yes_dollars"] == book["yes_dollars"][-2:]
    assert top["no_dollars"] == book["no_dollars"][-2:]
    both = (await setup.get("/markets/orderbooks", [("tickers", TICKER), ("tickers", NEXT)]))["orderbooks"]
    assert both[0] == {"ticker": TICKER, "orderbook_fp": book}
    assert both[1]["orderbook_fp"] == {"yes_dollars": [], "no_dollars": []}
    assert (await setup.ask(f"/markets/{TICKER}/orderbook", {"depth": 101}))[0] == 400
    assert (await setup.ask("/markets/orderbooks"))[0] == 400


async def test_every_price_is_on_the_tapered_grid(calm: Setup) -> None:
    for _ in range(60):
        await calm.clock.advance(12)
        for live in list(calm.venue._life.live.values()):
            for side in Side:
                for price, size in live.engine.levels(side):
                    assert GRID.holds(price)
                    assert price % (100 if 1_000 <= price <= 9_000 else 10) == 0
                    assert size % 10_000 == 0


async def test_trades_come_newest_first_in_pages(setup: Setup) -> None:
    for _ in range(200):
        await setup.clock.advance(0.5)
    everything = (await setup.get("/markets/trades", {"limit": 1000}))["trades"]
    assert len(everything) > 10
    moments = [datetime.fromisoformat(trade["created_time"]) for trade in everything]
    assert moments == sorted(moments, reverse=True)
    for trade in everything:
        assert float(trade["yes_price_dollars"]) + float(trade["no_price_dollars"]) == pytest.approx(1)
        assert trade["taker_book_side"] == {"yes": "bid", "no": "ask"}[trade["taker_outcome_side"]]
    first = await setup.get("/markets/trades", {"limit": 4})
    second = await setup.get("/markets/trades", {"limit": 4, "cursor": first["cursor"]})
    assert first["trades"] + second["trades"] == everything[:8]
    mine = (await setup.get("/markets/trades", {"ticker": TICKER, "limit": 1000}))["trades"]
    assert mine == [trade for trade in everything if trade["ticker"] == TICKER]
    since = setup.clock.now_ms() // 1000 - 20
    late = (await setup.get("/markets/trades", {"min_ts": since, "limit": 1000}))["trades"]
    assert late == [trade for trade in everything if datetime.fromisoformat(trade["created_time"]).timestamp() >= since]
    assert (await setup.get("/markets/trades", {"is_block_trade": "true"}))["trades"] == []
    market = await setup.market()
    assert float(market["volume_fp"]) == pytest.approx(sum(float(trade["count_fp"]) for trade in mine))
    assert market["last_price_dollars"] == mine[0]["yes_price_dollars"]
    assert 0 < float(market["open_interest_fp"]) <= float(market["volume_fp"])


# -- refusals, limits, faults


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/portfolio/orders"), ("DELETE", "/portfolio/orders/abc"), ("POST", "/portfolio/orders/abc/amend")],
)
async def test_old_order_paths_are_gone(setup: Setup, recordings: Path, method: str, path: str) -> None:
    recorded = json.loads((recordings / "kalshi/rest/errors_observed.json").read_text())["errors"][1]
    assert await setup.ask(path, method=method, signed=True) == (410, recorded["body"])
    assert (await setup.ask(path, method=method))[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/portfolio/deposits"),
        ("POST", "/portfolio/subaccounts"),
        ("POST", "/portfolio/target_balance_allocation"),
        ("GET", "/portfolio/summary/total_resting_order_value"),
    ],
)
async def test_other_signed_paths_say_that_they_are_not_built(setup: Setup, method: str, path: str) -> None:
    status, body = await setup.ask(path, method=method, signed=True)
    assert (status, body["error"]["code"]) == (501, "not_implemented")
    assert "not built" in body["error"]["details"]
    assert (await setup.ask(path, method=method))[0] == 401


async def test_other_public_paths_say_that_they_are_not_built(setup: Setup) -> None:
    for path in ("/events/multivariate", "/milestones", "/live_data/batch"):
        status, body = await setup.ask(path)
        assert (status, body["error"]["code"]) == (501, "not_implemented")
        assert path in body["error"]["details"]


async def test_read_buckets_refill_in_market_time(setup: Setup) -> None:
    setup.venue.limits.capacity = 30
    setup.venue.limits.refill_unsigned = 10
    answers = [await setup.ask("/exchange/status") for _ in range(5)]
    assert [status for status, _ in answers] == [200, 200, 200, 429, 429]
    assert answers[-1][1] == {"error": "too many requests"}
    assert (await setup.ask("/exchange/status", signed=True))[0] == 200  # a bucket of its own
    await setup.clock.advance(1)
    assert [(await setup.ask("/exchange/status"))[0] for _ in range(2)] == [200, 429]


async def test_faults_answer_in_the_venues_place(setup: Setup) -> None:
    setup.venue.faults.http_status("/markets", 502, "<html>bad gateway</html>")
    async with setup.http.get(setup.venue.endpoints().rest + "/markets") as answer:
        assert answer.status == 502
    assert (await setup.ask("/markets", {"limit": 1}))[0] == 200
    assert (await setup.ask("/nothing"))[1]["error"]["code"] == "not_found"
