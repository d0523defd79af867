"""A Polymarket for respx: Gamma and CLOB rows of the windows a test lists, in the venue's shapes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import respx

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.types import Window, iso_seconds

CLOB = "https://clob.polymarket.com"
GAMMA = "https://gamma-api.polymarket.com"
START = 1_795_176_000
"""The window that is open when a test begins: its clock stands 450 s into it."""


def tokens_of(window: Window) -> tuple[str, str]:
    seed = int(f"{window.start}{sum(map(ord, window.asset))}{len(window.interval)}")
    return str(seed * 10**60 + 2**52 * 3 + 1), str(seed * 10**60 + 2**52 * 5 + 1)


def condition_of(window: Window) -> str:
    return f"0x{int(tokens_of(window)[0]) % 16**64:064x}"


def event_row(window: Window, **market: Any) -> dict[str, Any]:
    row = {
        "id": str(window.start),
        "conditionId": condition_of(window),
        "slug": window.slug,
        "question": f"{window.asset} up or down",
        "version": "v1",
        "outcomes": '["Up", "Down"]',
        "outcomePrices": '["0.5", "0.5"]',
        "clobTokenIds": json.dumps(tokens_of(window)),
        "startDate": iso_seconds((window.start - 86_400) * 1000),
        "eventStartTime": iso_seconds(window.start * 1000),
        "endDate": iso_seconds(window.end * 1000),
        "active": True,
        "closed": False,
        "acceptingOrders": True,
        "enableOrderBook": True,
        "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5,
        "negRisk": False,
        "feesEnabled": True,
        "feeSchedule": {"exponent": 1, "rate": 0.07, "takerOnly": True, "rebateRate": 0.2},
    } | market
    return {
        "id": f"9{window.start}",
        "slug": row["slug"],
        "seriesSlug": window.series,
        "startTime": row["eventStartTime"],
        "endDate": row["endDate"],
        "closed": row["closed"],
        "version": row["version"],
        "markets": [row],
    }


def clob_row(window: Window, **changed: Any) -> dict[str, Any]:
    up, down = tokens_of(window)
    return {
        "t": [{"t": up, "o": "Up"}, {"t": down, "o": "Down"}],
        "mts": 0.01,
        "mos": 5,
        "ao": True,
        "fd": {"r": 0.07, "e": 1, "to": True},
        "itode": True,
        "v": "v1",
    } | changed


class Venue:
    """Routes of one respx router. `listed` are Gamma's events by slug, `known` the CLOB's markets by condition id."""

    def __init__(self, router: respx.MockRouter, *windows: Window) -> None:
        self.clock = ManualClock((START + 450) * 1000)
        self.listed = {window.slug: event_row(window) for window in windows}
        self.known = {condition_of(window): clob_row(window) for window in windows}
        self.markets: dict[str, dict[str, Any]] = {}
        self.series = [
            {"id": "10192", "slug": "btc-up-or-down-15m", "recurrence": "15m"},
            {"id": "10684", "slug": "btc-up-or-down-5m", "recurrence": "5m"},
            {"id": "10193", "slug": "eth-up-or-down-15m", "recurrence": "15m"},
        ]
        self.pages: list[httpx.Response] | None = None
        self.time = router.get(f"{CLOB}/time").mock(side_effect=lambda _: httpx.Response(200, text=str(self.now_s)))
        self.events = router.get(url__regex=rf"{GAMMA}/events/slug/.*").mock(side_effect=self._event)
        self.clob = router.get(url__regex=rf"{CLOB}/clob-markets/.*").mock(side_effect=self._clob)
        self.clob_market = router.get(url__regex=rf"{CLOB}/markets/.*").mock(side_effect=self._clob_market)
        self.series_route = router.get(f"{GAMMA}/series").mock(side_effect=self._series)
        self.keyset = router.get(f"{GAMMA}/events/keyset").mock(side_effect=self._keyset)
        self.market_keyset = router.get(f"{GAMMA}/markets/keyset").mock(side_effect=self._market_keyset)

    @property
    def now_s(self) -> int:
        return self.clock.now_ms() // 1000

    def data(self) -> PolymarketMarketData:
        return PolymarketMarketData(Endpoints.real(), self.clock)

    def _event(self, request: httpx.Request) -> httpx.Response:
        row = self.listed.get(request.url.path.rsplit("/", 1)[-1])
        return httpx.Response(404, json={"type": "not found error"}) if row is None else httpx.Response(200, json=row)

    def _clob(self, request: httpx.Request) -> httpx.Response:
        row = self.known.get(request.url.path.rsplit("/", 1)[-1])
        return httpx.Response(404, json={"error": "market not found"}) if row is None else httpx.Response(200, json=row)

    def _clob_market(self, request: httpx.Request) -> httpx.Response:
        row = self.markets.get(request.url.path.rsplit("/", 1)[-1])
        return httpx.Response(404, json={"error": "market not found"}) if row is None else httpx.Response(200, json=row)

    def _series(self, request: httpx.Request) -> httpx.Response:
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        rows = [row for row in self.series if row["recurrence"] == request.url.params["recurrence"]]
        return httpx.Response(200, json=rows[offset : offset + limit])

    def _keyset(self, request: httpx.Request) -> httpx.Response:
        if self.pages is not None:
            return self.pages.pop(0)
        params = request.url.params
        slug = next(row["slug"] for row in self.series if row["id"] == params["series_id"])
        rows = [
            row
            for row in self.listed.values()
            if row["seriesSlug"] == slug
            and str(row["closed"]).lower() == params["closed"]
            and params["end_date_min"] <= row["endDate"] <= params.get("end_date_max", "9")
        ]
        rows.sort(key=lambda row: row["endDate"])
        first = int(params.get("after_cursor", "0"))
        page = rows[first : first + 2]
        more = {"next_cursor": str(first + 2)} if first + 2 < len(rows) else {}
        return httpx.Response(200, json={"events": page} | more)

    def _market_keyset(self, request: httpx.Request) -> httpx.Response:
        rows = [market for row in self.listed.values() for market in row["markets"]]
        wanted = request.url.params["condition_ids"], request.url.params["closed"]
        found = [row for row in rows if (row["conditionId"], str(row["closed"]).lower()) == wanted]
        return httpx.Response(200, json={"markets": found})
