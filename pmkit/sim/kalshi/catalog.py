"""Series, events and the state of the exchange over REST (reference: kalshi.md, sections 3.2, 3.3, 3.9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from aiohttp import web

from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.market import SHARD, count_text, title_of
from pmkit.sim.kalshi.rest import Query, boolean, choice, integer, paginate, read_limit
from pmkit.sim.kalshi.windows import Window, in_maintenance, iso, iso_us, maintenance_end, new_york, parse, series_of
from pmkit.sim.world import ASSETS

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

# Shards as seen on 2026-09-04.
_SHARDS = ((0, "Default"), (1, "Combos"), (2, "Crypto"), (3, "Tennis & Baseball"))
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SOURCES = [{"name": "CF Benchmarks", "url": "https://www.cfbenchmarks.com/"}]
_SERIES_UPDATED_MS = 1_782_929_104_000


class CatalogRest:
    """The handlers."""

    def __init__(self, venue: KalshiVenue) -> None:
        self._venue = venue

    def routes(self) -> dict[str, Callable[[web.Request], Awaitable[object]]]:
        """Handlers by path below /trade-api/v2."""
        return {
            "/series": self._series_list,
            "/series/fee_changes": self._series_fee_changes,
            "/events/fee_changes": self._event_fee_changes,
            "/series/{ticker}": self._series,
            "/events": self._events,
            "/events/{ticker}": self._event,
            "/exchange/status": self._status,
            "/exchange/schedule": self._schedule,
        }

    # -- series

    async def _series_list(self, request: web.Request) -> object:
        query = request.query
        since = integer(query, "min_updated_ts")
        found = [
            self._series_object(asset, query)
            for asset in self._venue.world.assets
            if query.get("category", "") in ("", "Crypto")
            and set(_tags(asset)).issuperset(filter(None, query.get("tags", "").split(",")))
            and (since is None or since * 1000 <= _SERIES_UPDATED_MS)
        ]
        return {"series": found}

    async def _series(self, request: web.Request) -> object:
        ticker = request.match_info["ticker"]
        for asset in self._venue.world.assets:
            if series_of(asset) == ticker:
                return {"series": self._series_object(asset, request.query)}
        raise refuse(404, "not_found", f"no series {ticker[:80]}")

    def _series_object(self, asset: str, query: Query) -> dict[str, object]:
        data: dict[str, object] = {
            "ticker": series_of(asset),
            "title": f"{ASSETS[asset].name} price up down",
            "category": "Crypto",
            "categories": ["Crypto"],
            "tags": _tags(asset),
            "frequency": "fifteen_min",
            "fee_type": "quadratic",
            "fee_multiplier": 1,
            "settlement_sources": _SOURCES,
            "contract_url": "https://www.kalshi.com/contracts/CRYPTO15M.pdf",
            "contract_terms_url": "https://www.kalshi.com/contracts/CRYPTO15M-terms.pdf",
            "additional_prohibitions": [],
            "last_updated_ts": iso(_SERIES_UPDATED_MS),
            "exchange_index": SHARD,
        }
        if boolean(query, "include_product_metadata"):
            data["product_metadata"] = {"cadence": "fifteen_min"}
        if boolean(query, "include_volume"):
            data["volume_fp"] = count_text(self._venue.volume(asset))
        return data

    async def _series_fee_changes(self, request: web.Request) -> object:
        """None is planned, and there was none."""
        boolean(request.query, "show_historical")
        return {"series_fee_change_arr": []}

    async def _event_fee_changes(self, request: web.Request) -> object:
        read_limit(request.query, 100, 1_000)
        return {"event_fee_changes": [], "cursor": ""}

    # -- events

    async def _event(self, request: web.Request) -> object:
        ticker = request.match_info["ticker"]
        window = parse(ticker, self._venue.world.assets) if ticker.count("-") == 1 else None
        calendar, now = self._venue.calendar, self._venue.clock.now_ms()
        # Events stay here when their markets are archived.
        if window is None or not (calendar.is_listed(window, now) or calendar.is_archived(window, now)):
            raise refuse(404, "not_found", f"no event {ticker[:80]}")
        nested = boolean(request.query, "with_nested_markets")
        markets = [] if nested else [self._venue.market_json(window)]
        return {"event": self._event_object(window, nested), "markets": markets}

    async def _events(self, request: web.Request) -> object:
        query = request.query
        limit = read_limit(query, 200, 200)
        nested = boolean(query, "with_nested_markets")
        page, cursor = paginate(
            self._select(query), lambda found: (-found.close_ms, found.event_ticker), limit, query.get("cursor", "")
        )
        return {"events": [self._event_object(window, nested) for window in page], "cursor": cursor}

    def _select(self, query: Query) -> Iterator[Window]:
        calendar, now = self._venue.calendar, self._venue.clock.now_ms()
        status = choice(query, "status", ("unopened", "open", "closed", "settled"))
        words = {
            "": (),
            "unopened": ("initialized",),
            "open": ("active", "inactive"),
            "closed": ("closed", "determined"),
            "settled": ("finalized",),
        }[status]
        closes = integer(query, "min_close_ts")
        updated = integer(query, "min_updated_ts")
        named = set(filter(None, query.get("tickers", "").split(",")))
        chosen = tuple(
            asset for asset in self._venue.world.assets if query.get("series_ticker", "") in ("", series_of(asset))
        )
        low = None if closes is None else closes * 1000
        for window in calendar.newest_first(now, chosen, low):
            if named and window.event_ticker not in named:
                continue
            if words and calendar.status(window, now, self._venue.paused) not in words:
                continue
            if updated is not None and calendar.created_us(window) < updated * 1_000_000:
                continue
            yield window

    def _event_object(self, window: Window, nested: bool) -> dict[str, object]:
        local = new_york(window.close_ms)
        data: dict[str, object] = {
            "event_ticker": window.event_ticker,
            "series_ticker": window.series,
            "title": title_of(window),
            "sub_title": f"{local:%b %d, %Y %I:%M %p %Z}",
            "category": "Crypto",
            "collateral_return_type": "",
            "mutually_exclusive": False,
            "strike_date": iso(window.close_ms),
            "product_metadata": {"cadence": "fifteen_min"},
            "settlement_sources": _SOURCES,
            "last_updated_ts": iso_us(self._venue.calendar.created_us(window)),
            "exchange_index": SHARD,
        }
        if nested:
            data["markets"] = [self._venue.market_json(window)]
        return data

    # -- exchange

    async def _status(self, request: web.Request) -> object:
        now = self._venue.clock.now_ms()
        stands = in_maintenance(now)
        data: dict[str, object] = {
            "exchange_active": not stands,
            "trading_active": not stands,
            "intra_exchange_transfers_active": not stands,
            "exchange_index_statuses": [
                {
                    "exchange_index": index,
                    "description": description,
                    "exchange_active": not stands,
                    "trading_active": not (stands or (index == SHARD and self._venue.paused)),
                    "intra_exchange_transfers_active": not stands,
                }
                for index, description in _SHARDS
            ],
        }
        if stands:
            data["exchange_estimated_resume_time"] = iso(maintenance_end(now))
        return data

    async def _schedule(self, request: web.Request) -> object:
        """As captured on 2026-01-15: around the clock but for Thursday 03:00 to 05:00."""
        week: dict[str, object] = {day: [{"open_time": "00:00", "close_time": "00:00"}] for day in _DAYS}
        week["thursday"] = [
            {"open_time": "00:00", "close_time": "03:00"},
            {"open_time": "05:00", "close_time": "00:00"},
        ]
        hours = {"start_time": "2024-12-01T00:00:00Z", "end_time": "2200-12-01T00:00:00Z"} | week
        return {"schedule": {"standard_hours": [hours], "maintenance_windows": []}}


def _tags(asset: str) -> list[str]:
    return [asset, "15 min"]
