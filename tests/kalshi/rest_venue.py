"""A small Kalshi REST behind respx, on the clock of the test: real shapes, windows by New York time, faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import respx

from pmkit.clock import ManualClock

BASE = "https://external-api.kalshi.com/trade-api/v2"
NEW_YORK = ZoneInfo("America/New_York")
WINDOW = timedelta(minutes=15)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
BANDS = [
    {"start": "0.0000", "end": "0.1000", "step": "0.0010"},
    {"start": "0.1000", "end": "0.9000", "step": "0.0100"},
    {"start": "0.9000", "end": "1.0000", "step": "0.0010"},
]


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RestVenue:
    """Answers like Kalshi. `fail[path prefix]` is a status to answer instead; `calls` counts paths; `old[path]` is what
    the archive and the candles answer."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls: Counter[str] = Counter()
        self.urls: list[str] = []
        self.fail: dict[str, int] = {}
        self.assets = ["BTC", "ETH"]
        self.extra_series: list[dict[str, Any]] = []
        self.extra_markets: list[dict[str, Any]] = []
        self.markets: dict[str, dict[str, Any]] = {}
        self.hidden: set[str] = set()
        self.listing = True
        self.strikes = True
        self.stale_seconds = 0
        self.clock_error = 0.0
        self.page_size = 1000
        self.repeat_cursor = False
        self.books: dict[str, dict[str, Any]] = {}
        self.trades: list[dict[str, Any]] = []
        self.trading = True
        self.results: dict[str, str] = {}
        self.old: dict[str, Any] = {}

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000 + self.clock_error, UTC)

    def ticker(self, asset: str, close: datetime) -> str:
        local = close.astimezone(NEW_YORK)
        return f"KX{asset}15M-{local:%y%b%d%H%M}-{local:%M}".upper()

    def exists(self, close: datetime) -> bool:
        local = close.astimezone(NEW_YORK)
        closed = local.replace(hour=3, minute=0, second=0), local.replace(hour=5, minute=0, second=0)
        return not (local.weekday() == 3 and closed[0] < local <= closed[1])

    def market(self, asset: str, close: datetime, now: datetime) -> dict[str, Any]:
        opened, ticker = close - WINDOW, self.ticker(asset, close)
        since_close = (now - close).total_seconds()
        status = "initialized" if now < opened else "active" if now < close else "closed"
        result = ""
        if since_close >= 4:
            result = self.results.get(ticker, "yes")
            status = "finalized" if result else "determined"
        row: dict[str, Any] = {
            "ticker": ticker,
            "event_ticker": ticker.rpartition("-")[0],
            "market_type": "binary",
            "title": f"{asset} price up in next 15 mins?",
            "open_time": iso(opened),
            "close_time": iso(close),
            "status": status,
            "result": result,
            "expiration_value": "",
            "exchange_index": 2,
            "price_level_structure": "tapered_deci_cent",
            "price_ranges": BANDS,
            "rules_primary": "If the simple average ...",
            "yes_bid_dollars": "0.0000",
        }
        if self.strikes and (now - opened).total_seconds() >= 0.7:
            row |= {"floor_strike": 90000.25, "strike_type": "greater_or_equal"}
        return row | self.markets.get(ticker, {})

    def listed(self, asset: str) -> Iterator[datetime]:
        """Closes of the windows: those of yesterday, today and, from 00:01Z on, tomorrow's until a day ahead."""
        day = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        last = day + timedelta(days=1, hours=4)
        close = day - timedelta(days=1)
        while close <= last:
            if self.exists(close) and self.ticker(asset, close) not in self.hidden:
                yield close
            close += WINDOW

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/trade-api/v2")
        self.calls[path] += 1
        self.urls.append(str(request.url))
        headers = {"date": format_datetime(self.now.replace(microsecond=0), usegmt=True)}
        for prefix, status in self.fail.items():
            if path.startswith(prefix):
                return httpx.Response(status, json={"error": "too many requests"}, headers=headers)
        found = self.route(path, request.url.params)
        if found is None:
            error = {"error": {"code": "not_found", "message": "not found"}}
            return httpx.Response(404, json=error, headers=headers)
        return httpx.Response(200, content=json.dumps(found), headers=headers)

    def route(self, path: str, params: httpx.QueryParams) -> Any:
        parts = path.strip("/").split("/")
        if parts[0] == "historical" or parts[-1] == "candlesticks":
            return self.old.get(path)
        if path == "/exchange/status":
            shards = [
                {"exchange_index": 0, "exchange_active": True, "trading_active": True},
                {"exchange_index": 2, "exchange_active": True, "trading_active": self.trading},
            ]
            return {"exchange_active": True, "trading_active": True, "exchange_index_statuses": shards}
        if path == "/exchange/schedule":
            whole = [{"open_time": "00:00", "close_time": "00:00"}]
            thursday = [{"open_time": "00:00", "close_time": "03:00"}, {"open_time": "05:00", "close_time": "00:00"}]
            hours = {day: thursday if day == "thursday" else whole for day in DAYS}
            week = {"start_time": "2024-12-01T00:00:00Z", "end_time": "2200-12-01T00:00:00Z", **hours}
            return {"schedule": {"standard_hours": [week], "maintenance_windows": []}}
        if parts[0] == "series":
            rows = [self.series(f"KX{asset}15M") for asset in self.assets]
            if len(parts) == 1:
                return {"series": [*rows, *self.extra_series]}
            return next(({"series": row} for row in [*rows, *self.extra_series] if row["ticker"] == parts[1]), None)
        if parts[0] == "events":
            series = parts[1].partition("-")[0]
            return {"event": {"event_ticker": parts[1], "series_ticker": series, "title": "x"}}
        if path == "/markets/orderbooks":
            names = params.get_list("tickers")
            return {"orderbooks": [{"ticker": n, "orderbook_fp": self.books[n]} for n in names if n in self.books]}
        if path == "/markets/trades":
            return self.trade_page(params)
        if len(parts) == 3 and parts[2] == "orderbook":
            return {"orderbook_fp": self.books[parts[1]]} if parts[1] in self.books else None
        if len(parts) == 2:
            return self.one(parts[1])
        return self.page(params)

    def series(self, ticker: str) -> dict[str, Any]:
        return {
            "ticker": ticker,
            "title": "price up down",
            "category": "Crypto",
            "frequency": "fifteen_min",
            "fee_type": "quadratic",
            "fee_multiplier": 1,
            "tags": None,
            "exchange_index": 2,
        }

    def one(self, ticker: str) -> Any:
        for asset in self.assets:
            for close in self.listed(asset):
                if self.ticker(asset, close) == ticker:
                    return {"market": self.market(asset, close, self.now)}
        return next(({"market": row} for row in self.extra_markets if row["ticker"] == ticker), None)

    def page(self, params: httpx.QueryParams) -> Any:
        assert "status" not in params, "close filters go without a status"
        series = params["series_ticker"]
        low, high = int(params["min_close_ts"]), int(params.get("max_close_ts", 2**40))
        now = self.now - timedelta(seconds=self.stale_seconds)
        asset = series.removeprefix("KX").removesuffix("15M")
        windows = self.listed(asset) if self.listing and series.endswith("15M") else ()
        closes = [close for close in windows if low <= close.timestamp() <= high]
        rows = [self.market(asset, close, now) for close in reversed(closes)]  # their order is not promised
        rows += [row for row in self.extra_markets if row["ticker"].startswith(series + "-")]
        start = int(params.get("cursor") or 0)
        size = min(int(params["limit"]), self.page_size)
        more = str(start + size) if start + size < len(rows) else ""
        return {"markets": rows[start : start + size], "cursor": "0" if self.repeat_cursor else more}

    def trade_page(self, params: httpx.QueryParams) -> Any:
        low = int(params.get("min_ts", 0))
        rows = [
            row
            for row in reversed(self.trades)
            if row["ticker"] == params["ticker"] and datetime.fromisoformat(row["created_time"]).timestamp() >= low
        ]
        start, size = int(params.get("cursor") or 0), min(int(params["limit"]), self.page_size)
        more = str(start + size) if start + size < len(rows) else ""
        return {"trades": rows[start : start + size], "cursor": more}


@contextmanager
def serving(venue: RestVenue) -> Iterator[None]:
    with respx.mock(assert_all_called=False) as router:
        router.route(url__startswith=BASE).mock(side_effect=venue.answer)
        yield
