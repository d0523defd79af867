"""Gamma of the local Polymarket against the documents and real rows."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pmkit.sim.polymarket.market import Series
from tests.sim.polymarket_client import Bench, json_types


async def test_gamma_rows_have_the_fields_and_types_of_real_ones(bench: Bench, recordings: Path) -> None:
    hour_ago = bench.clock.now_ms() - 3_600_000
    rows = [bench.venue.listings.at(Series("BTC", "5m"), hour_ago - 300_000 * back) for back in range(20)]
    old = next(row for row in rows if bench.venue.rows.went_up(row))  # a lost one has no bestBid
    status, event = await bench.get(f"/events/slug/{old.slug}", gamma=True)
    assert status == 200
    name = "gamma_events_btc_5m_resolved_2026-09-23.json"
    real = json.loads((recordings / "polymarket" / name).read_text())["data"][0]
    ours, theirs = event["markets"][0], real["markets"][0]
    # Statistics of a day that the local venue does not keep.
    unkept = {"volume24hrClob", "volume1wkClob", "volume1moClob", "volume1yrClob", "volumeClob", "oneHourPriceChange"}
    assert {key: json_types(ours).get(key) for key in theirs if key not in unkept} == {
        key: kind for key, kind in json_types(theirs).items() if key not in unkept
    }
    assert {key: json_types(event).get(key) for key in real} == json_types(real)
    assert json_types(event["series"][0]).items() <= json_types(real["series"][0]).items() | {("recurrence", "str")}
    assert event["eventMetadata"].keys() == real["eventMetadata"].keys()
    assert ours["cryptoMarketConfig"] == theirs["cryptoMarketConfig"]
    assert ours["feeSchedule"] == theirs["feeSchedule"]
    assert (ours["closedTime"][10], ours["closedTime"][-3:]) == (" ", "+00")
    assert event["closedTime"].endswith("Z")
    open_name = "gamma_market_btc_5m_open_2026-08-22.json"
    open_real = json.loads((recordings / "polymarket" / open_name).read_text())["data"]
    status, open_ours = await bench.get(f"/markets/slug/{bench.venue.current('BTC', '5m').slug}", gamma=True)
    assert {key: json_types(open_ours).get(key) for key in open_real} == json_types(open_real)


async def test_an_open_market_in_gamma(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    status, market = await bench.get(f"/markets/slug/{window.slug}", gamma=True)
    assert status == 200
    assert market["slug"] == f"btc-updown-15m-{window.open_ms // 1000}"
    assert window.open_ms % 900_000 == 0
    assert json.loads(market["clobTokenIds"]) == list(window.tokens)
    assert all(len(token) == 77 and int(token) < 2**256 for token in window.tokens)
    assert json.loads(market["outcomes"]) == ["Up", "Down"]
    assert sum(map(Decimal, json.loads(market["outcomePrices"]))) == 1
    assert market["eventStartTime"] == f"{bench.clock.now():%Y-%m-%dT%H}:00:00Z"
    assert market["startDate"] < market["eventStartTime"] < market["endDate"]
    assert (market["closed"], market["acceptingOrders"], market["version"]) == (False, True, "v1")
    for absent in ("closedTime", "umaResolutionStatus", "automaticallyResolved"):
        assert absent not in market
    assert market["events"][0]["slug"] == window.slug
    assert "markets" not in market["events"][0]
    assert "eventMetadata" not in market["events"][0]
    by_id = await bench.get(f"/markets/{market['id']}", gamma=True)
    assert by_id[1]["conditionId"] == window.condition_id
    assert (await bench.get(f"/events/{market['events'][0]['id']}", gamma=True))[0] == 200
    status, error = await bench.get("/events/slug/no-such-slug", gamma=True)
    assert (status, error["error"]) == (404, "slug not found")


async def _walk(bench: Bench, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for _ in range(100):
        status, page = await bench.get(path, gamma=True, **query)
        assert status == 200
        rows += page[name]
        if not page.get("next_cursor"):
            return rows
        query["after_cursor"] = page["next_cursor"]
    raise AssertionError("endless")


async def test_keyset_pages_hold_every_row_once(bench: Bench) -> None:
    query = {"series_id": "10192", "closed": "false", "order": "endDate", "limit": 17}
    rows = await _walk(bench, "/events/keyset", "events", **query)
    ends = [row["endDate"] for row in rows]
    assert ends == sorted(ends)
    assert len({row["id"] for row in rows}) == len(rows) >= 96
    down = await _walk(bench, "/events/keyset", "events", **query, ascending="false")
    assert [row["id"] for row in down] == [row["id"] for row in rows][::-1]
    assert all(row["seriesSlug"] == "btc-up-or-down-15m" for row in rows)
    # `cursor` is silently ignored: the first page again, for ever.
    page = (await bench.get("/events/keyset", gamma=True, **query))[1]
    again = (await bench.get("/events/keyset", gamma=True, **query, cursor=page["next_cursor"]))[1]
    assert [row["id"] for row in again["events"]] == [row["id"] for row in page["events"]]
    markets = await _walk(bench, "/markets/keyset", "markets", order="eventStartTime", limit=500)
    assert len({row["id"] for row in markets}) == len(markets) > 4 * 96


async def test_lists_leave_closed_markets_out_unless_asked(bench: Bench) -> None:
    now = f"{bench.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    rows = await _walk(bench, "/events/keyset", "events", limit=500)
    assert rows
    assert not any(row["closed"] for row in rows)
    closed = await _walk(bench, "/events/keyset", "events", limit=500, closed="true", series_id="10684")
    assert closed
    assert all(row["closed"] and row["endDate"] < now for row in closed)
    later = await _walk(bench, "/events/keyset", "events", limit=500, end_date_min=now)
    assert all(row["endDate"] >= now for row in later)
    window = bench.venue.current("ETH")
    for query in ({"condition_ids": window.condition_id}, {"clob_token_ids": window.tokens[1]}, {"slug": window.slug}):
        page = (await bench.get("/markets/keyset", gamma=True, **query))[1]
        assert [row["conditionId"] for row in page["markets"]] == [window.condition_id]
    # An old window: gone from a list by slug, still there by its own route.
    old = bench.venue.listings.at(Series("BTC", "15m"), bench.clock.now_ms() - 3_600_000)
    assert (await bench.get("/markets/keyset", gamma=True, slug=old.slug))[1]["markets"] == []
    assert (await bench.get(f"/markets/slug/{old.slug}", gamma=True))[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        {"offset": "20"},
        {"end_date_min": "1795176000"},
        {"end_date_max": "yesterday"},
        {"closed": "maybe"},
        {"order": "end_date"},
        {"after_cursor": "!!"},
        {"limit": "-1"},
        {"slug": ",".join(["x"] * 101)},
    ],
)
async def test_keyset_refuses(bench: Bench, query: dict[str, str]) -> None:
    assert (await bench.get("/events/keyset", gamma=True, **query))[0] == 422


async def test_series_and_deprecated_lists(bench: Bench) -> None:
    rows = (await bench.get("/series", gamma=True, slug="btc-up-or-down-15m"))[1]
    assert [row["id"] for row in rows] == ["10192"]
    assert len((await bench.get("/series", gamma=True))[1]) == 4
    window = bench.venue.current("BTC")
    async with bench.http.get(bench.venue.endpoints().gamma + "/events", params={"slug": window.slug}) as response:
        assert response.headers["deprecation"] == "true"
        assert [row["slug"] for row in await response.json()] == [window.slug]


async def test_gamma_may_answer_from_a_cache(still: Bench) -> None:
    window = still.venue.current("BTC", "5m")
    await still.advance((window.resolved_ms - still.clock.now_ms()) / 1000 + 1, 30)
    path = f"/markets/slug/{window.slug}"
    assert (await still.get(path, gamma=True))[1]["closed"] is True
    still.venue.gamma_cache_seconds = 60.0
    assert (await still.get(path, gamma=True))[1]["closed"] is False


async def test_final_price_of_one_window_is_the_strike_of_the_next(bench: Bench) -> None:
    rows = await _walk(bench, "/events/keyset", "events", closed="true", series_id="10192", order="endDate", limit=500)
    assert len(rows) > 80
    for row, following in pairwise(rows):
        assert row["eventMetadata"]["finalPrice"] == following["eventMetadata"]["priceToBeat"]
        prices = json.loads(row["markets"][0]["outcomePrices"])
        up = row["eventMetadata"]["finalPrice"] >= row["eventMetadata"]["priceToBeat"]
        assert prices == (["1", "0"] if up else ["0", "1"])
