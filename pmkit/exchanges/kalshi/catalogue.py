"""Kalshi's metadata: series, events and markets, read once and shared by market data, finder and exchange."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import msgspec

from pmkit.clock import Clock
from pmkit.errors import MarketNotFound, NotSent, ProtocolChanged, RateLimited, VenueUnavailable
from pmkit.exchanges.kalshi.fees import fee_rule
from pmkit.exchanges.kalshi.messages import EventFee
from pmkit.exchanges.kalshi.rest_messages import (
    CutoffAnswer,
    EventAnswer,
    EventRow,
    MarketAnswer,
    MarketRow,
    MarketsPage,
    ScheduleAnswer,
    SeriesAnswer,
    SeriesPage,
    SeriesRow,
    StatusAnswer,
)
from pmkit.exchanges.kalshi.types import KalshiMarket, RowError, asset_of, is_ticker, is_window, parse_market, time_ms
from pmkit.exchanges.market import FeeRule
from pmkit.http import HttpSession
from pmkit.venue_clock import VenueClock

FREQUENCY = "fifteen_min"
_MAX_PAGES = 30
_MAX_EVENTS = 5000
_DAY_MS = 86_400_000
_RETRY_SECONDS = 30.0
TRANSIENT = (RateLimited, VenueUnavailable, NotSent)
"""Failures of a query that say nothing about the next one."""
_RANKS = {"initialized": 0, "active": 1, "inactive": 1, "closed": 2, "determined": 3, "disputed": 3, "amended": 3}
_FINAL_RANK = 4
_Row = TypeVar("_Row")
_LOG = logging.getLogger("pmkit.kalshi")


class Cutoff(NamedTuple):
    """Before these moments (epoch ms) settled markets, trades and finished orders are in the archive."""

    markets_ms: int
    trades_ms: int
    orders_ms: int


class Catalogue:
    """What Kalshi says about its markets. `markets`: the newest state of each market that was read, by ticker.

    `odd_rows` counts rows that could not be read; they are left out and the others of their list go on.
    """

    def __init__(self, session: HttpSession, clock: Clock, venue_clock: VenueClock) -> None:
        self.session = session
        self.markets: dict[str, KalshiMarket] = {}
        self.odd_rows = 0
        self._clock = clock
        self._venue_clock = venue_clock
        self._series: dict[str, SeriesRow] = {}
        self._events: dict[str, EventRow] = {}
        self._crypto: dict[str, SeriesRow] = {}
        self._crypto_day = -1
        self._crypto_retry = 0.0
        self._measured = False

    async def now_ms(self) -> int:
        """Venue time, epoch ms. The first call asks the venue, so that its offset is known."""
        if self._venue_clock.uncertainty_ms is None and not self._measured:
            await self.measure()
            self._measured = True
        return self._venue_clock.now_ms()

    async def measure(self) -> None:
        """Measure the venue's clock: any answer's Date does."""
        await self.status()

    # Series.

    async def up_down_series(self, *, refresh: bool = False) -> dict[str, SeriesRow]:
        """asset -> series of the 15-minute up/down markets, read once a day. Raises what the first query raises; later
        the known ones stay while it fails."""
        day = await self.now_ms() // _DAY_MS
        now = self._clock.monotonic()
        if refresh or (day != self._crypto_day and now >= self._crypto_retry):
            try:
                page = await self.session.get_json("/series", SeriesPage, {"category": "Crypto"})
            except TRANSIENT as error:
                if refresh or not self._crypto:
                    raise
                # What was read yesterday still stands; series come and go once in months.
                self._crypto_retry = now + _RETRY_SECONDS
                _LOG.warning("kalshi: the series could not be read anew: %s", error)
                return self._crypto
            found: dict[str, SeriesRow] = {}
            for row in self._rows(page.series or (), SeriesRow):
                asset = asset_of(row.ticker)
                if asset is not None and row.frequency == FREQUENCY:
                    found[asset] = self._series[row.ticker] = row
            self._crypto, self._crypto_day = dict(sorted(found.items())), day
        return self._crypto

    async def series(self, ticker: str) -> SeriesRow:
        """One series."""
        known = self._series.get(ticker)
        if known is None:
            _check_ticker(ticker)
            known = (await self.session.get_json(f"/series/{ticker}", SeriesAnswer)).series
            self._series[ticker] = known
        return known

    async def event(self, ticker: str) -> EventRow:
        """One event: its series and its own fees, if it has any."""
        known = self._events.get(ticker)
        if known is None:
            _check_ticker(ticker)
            known = (await self.session.get_json(f"/events/{ticker}", EventAnswer)).event
            self._remember_event(known)
        return known

    def _remember_event(self, event: EventRow) -> None:
        if len(self._events) >= _MAX_EVENTS:
            self._events.clear()
        self._events[event.event_ticker] = event

    def override_fees(self, fee: EventFee) -> KalshiMarket | None:
        """Fees of one event changed: the market of it that is known here, with its new fees."""
        market = next((one for one in self.markets.values() if one.event_ticker == fee.event_ticker), None)
        if market is None:
            return None
        event = EventRow(fee.event_ticker, market.series_ticker, fee.fee_type_override, fee.fee_multiplier_override)
        self._remember_event(event)
        series = self._series.get(market.series_ticker)
        if series is None:
            return None
        return self.remember(msgspec.structs.replace(market, fees=self._fees(series, event)))

    @staticmethod
    def _fees(series: SeriesRow, event: EventRow | None) -> FeeRule:
        kind, multiplier = series.fee_type, series.fee_multiplier
        if event is not None:
            kind = event.fee_type_override or kind
            multiplier = multiplier if event.fee_multiplier_override is None else event.fee_multiplier_override
        return fee_rule(kind, multiplier, f"series {series.ticker}")

    # Markets.

    async def market(self, ticker: str) -> KalshiMarket:
        """One market, read now (this answer is not cached by the venue's CDN). Raises MarketNotFound, and
        ProtocolChanged for a row that cannot be read."""
        return await self._market(ticker, f"/markets/{ticker}")

    async def archived_market(self, ticker: str) -> KalshiMarket:
        """One market of the archive, where settled ones go after some weeks. Raises as `market`."""
        return await self._market(ticker, f"/historical/markets/{ticker}")

    async def _market(self, ticker: str, path: str) -> KalshiMarket:
        _check_ticker(ticker)
        row = (await self.session.get_json(path, MarketAnswer)).market
        known = self.markets.get(ticker)
        series = await self.series(known.series_ticker) if known else None
        if series is None:
            if not row.event_ticker:
                raise ProtocolChanged(f"market {ticker} has no event_ticker, so its series and fees are unknown")
            series = await self.series((await self.event(row.event_ticker)).series_ticker)
        try:
            return self.remember(self._parse(row, series))
        except RowError as error:
            raise ProtocolChanged(f"market {ticker} cannot be read: {error}") from error

    async def windows(self, series: SeriesRow, min_close_ms: int, max_close_ms: int, limit: int) -> list[KalshiMarket]:
        """The 15-minute windows of a series that close in [min, max], oldest first. `limit`: rows per page. Raises as
        `listed`."""
        found = await self.listed(series, min_close_ms, max_close_ms, limit, only=is_window)
        return sorted(found, key=lambda market: market.open_ms)

    async def listed(
        self,
        series: SeriesRow,
        min_close_ms: int,
        max_close_ms: int | None,
        limit: int,
        only: Callable[[KalshiMarket], bool] | None = None,
    ) -> list[KalshiMarket]:
        """The markets of any series that close in [min, max], those that `only` takes.

        Raises ProtocolChanged when no row of a list can be read, or paging goes round in circles.
        """
        params: dict[str, str | int] = {
            "series_ticker": series.ticker,
            "min_close_ts": min_close_ms // 1000,
            "limit": limit,
        }
        if max_close_ms is not None:
            params["max_close_ts"] = -(-max_close_ms // 1000)
        found: dict[str, KalshiMarket] = {}
        seen: set[str] = set()
        rows = read = 0
        for _ in range(_MAX_PAGES):
            page = await self.session.get_json("/markets", MarketsPage, params)
            raw = page.markets or []
            rows += len(raw)
            for row in self._rows(raw, MarketRow):
                try:
                    market = self._parse(row, series)
                except RowError as error:
                    self._odd(error)
                    continue
                read += 1
                if only is None or only(market):
                    found[market.ticker] = self._listed(market)
            if not page.cursor:
                break
            if page.cursor in seen:
                raise ProtocolChanged(f"{self.session.host} repeats the cursor of /markets for {series.ticker}")
            seen.add(page.cursor)
            params["cursor"] = page.cursor
        else:
            raise ProtocolChanged(f"{self.session.host} gives more than {_MAX_PAGES} pages of {series.ticker}")
        if rows and not read:
            raise ProtocolChanged(f"none of {rows} markets of {series.ticker} can be read: update pmkit")
        return list(found.values())

    def remember(self, market: KalshiMarket) -> KalshiMarket:
        """Keep the newest state of a market. What is long over is forgotten."""
        if len(self.markets) > _MAX_EVENTS:
            limit = self._venue_clock.now_ms() - _DAY_MS
            self.markets = {ticker: one for ticker, one in self.markets.items() if one.close_ms > limit}
        self.markets[market.ticker] = market
        return market

    def forget(self, ticker: str) -> None:
        """The venue does not know this market any more."""
        self.markets.pop(ticker, None)

    def _listed(self, market: KalshiMarket) -> KalshiMarket:
        """A row of a list, which the CDN may have kept for 15 s: it does not replace what is known to be newer."""
        known = self.markets.get(market.ticker)
        if known is not None and ((known.strike is not None and market.strike is None) or _rank(known) > _rank(market)):
            return known
        return self.remember(market)

    def _parse(self, row: MarketRow, series: SeriesRow) -> KalshiMarket:
        fees = self._fees(series, self._events.get(row.event_ticker))
        return parse_market(row, series, self._venue_clock.now_ms(), fees)

    async def all_series(self, category: str) -> list[SeriesRow]:
        """Every series of a category ("Crypto", "Climate and Weather", "Sports", ...)."""
        page = await self.session.get_json("/series", SeriesPage, {"category": category})
        rows = self._rows(page.series or (), SeriesRow)
        self._series.update((row.ticker, row) for row in rows)
        return rows

    # The exchange.

    async def cutoff(self) -> Cutoff:
        """GET /historical/cutoff."""
        answer = await self.session.get_json("/historical/cutoff", CutoffAnswer)
        try:
            return Cutoff(
                time_ms(answer.market_settled_ts, "market_settled_ts of the cut-off"),
                time_ms(answer.trades_created_ts, "trades_created_ts of the cut-off"),
                time_ms(answer.orders_updated_ts, "orders_updated_ts of the cut-off"),
            )
        except RowError as error:
            raise ProtocolChanged(f"the historical cut-off cannot be read: {error}") from error

    async def status(self) -> StatusAnswer:
        """GET /exchange/status, which may come with 503 or 504 and the same body."""
        answer = await self.session.request("GET", "/exchange/status")
        if answer.status not in (503, 504):
            answer.raise_for_status()
            return answer.decode(StatusAnswer)
        try:
            return answer.decode(StatusAnswer)
        except ProtocolChanged:
            answer.raise_for_status()
            raise

    async def schedule(self) -> ScheduleAnswer:
        """GET /exchange/schedule."""
        return await self.session.get_json("/exchange/schedule", ScheduleAnswer)

    def _rows(self, raw: Iterable[msgspec.Raw], kind: type[_Row]) -> list[_Row]:
        rows: list[_Row] = []
        for one in raw:
            try:
                rows.append(msgspec.json.decode(one, type=kind, strict=False))
            # ValueError: a raw row was not decoded before, so that bytes that are no UTF-8 come up here.
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                self._odd(error)
        return rows

    def _odd(self, error: Exception) -> None:
        self.odd_rows += 1
        if self.odd_rows in (1, 10, 100) or self.odd_rows % 1000 == 0:
            _LOG.warning("kalshi: a row was left out (%s; %d so far)", error, self.odd_rows)


def _rank(market: KalshiMarket) -> int:
    return _RANKS.get(market.venue_status, _FINAL_RANK if market.venue_status == "finalized" else 1)


def _check_ticker(ticker: str) -> None:
    if not is_ticker(ticker):
        raise MarketNotFound(f"{ascii(ticker)[:60]} is no Kalshi ticker: it looks like KXBTC15M-26NOV202015-15")
