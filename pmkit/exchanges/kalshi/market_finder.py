"""Finds Kalshi's 15-minute up/down windows: by series and times, never by the text of a ticker.

Tickers carry New York wall-clock time, so the repeated hour of an autumn night cannot be told from them, and during the
Thursday maintenance (03:00-05:00 in New York) the windows do not exist at all. What counts is the series from
GET /series and `open_time` and `close_time` of its markets.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pmkit.clock import to_utc
from pmkit.errors import ConfigError, MarketNotFound, PmkitError, ProtocolChanged
from pmkit.exchanges.base import MarketFinder, asset_name
from pmkit.exchanges.kalshi.catalogue import TRANSIENT, Catalogue
from pmkit.exchanges.kalshi.rest_messages import Schedule, SeriesRow, StatusAnswer
from pmkit.exchanges.kalshi.schedule import closed_until
from pmkit.exchanges.kalshi.types import WINDOW_MS, KalshiMarket, RowError, time_ms
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import MarketStatus, NoMarket

if TYPE_CHECKING:
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData

INTERVAL: Final = "15m"
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_LISTING_MS: Final = 120_000
"""The next day's windows are listed just after 00:00Z (kalshi.md 4.3): the day's list is read from 00:02Z on."""
_RETRY_MS: Final = 15_000
"""A list may come from the CDN and be 15 s old."""
_MISS_SECONDS: Final = 1.0
_MISS_WALL_SECONDS: Final = 0.25
_OVER: Final = (MarketStatus.CLOSED, MarketStatus.RESOLVED)
_PAGE: Final = 20
_DAY_PAGE: Final = 1000
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiMarketFinder(MarketFinder):
    """The windows of every 15-minute up/down series. Metadata is that of the market data it belongs to.

    The day's windows are read once; a miss asks again, at most once a second (market time). A window whose strike is
    not written yet is a market with `strike` None, and is read again at most once a second until it has one.
    """

    def __init__(self, data: KalshiMarketData) -> None:
        super().__init__(data)
        self._catalogue: Catalogue = data.catalogue
        self._windows: dict[str, dict[str, KalshiMarket]] = {}
        self._day: dict[str, int] = {}
        self._asked: dict[str, tuple[float, float]] = {}
        self._schedule: tuple[float, Schedule] | None = None
        self._said: set[str] = set()

    async def get_current_market(self, asset: str, interval: str = INTERVAL) -> KalshiMarket | NoMarket:
        """The market whose window contains now (venue time); NoMarket in maintenance, or when none is listed."""
        series = await self._series(asset, interval)
        now = await self._catalogue.now_ms()
        market = await self._find(series, now)
        if market is not None:
            return market.at(now)
        return await self._why_none(series, now, now)

    async def get_next_market(self, asset: str, interval: str = INTERVAL) -> KalshiMarket | NoMarket:
        """The market of the window that opens at the next quarter; NoMarket when that window does not exist."""
        series = await self._series(asset, interval)
        now = await self._catalogue.now_ms()
        opens = (now // WINDOW_MS + 1) * WINDOW_MS
        market = await self._find(series, opens)
        if market is not None:
            return market.at(now)
        return await self._why_none(series, opens, now)

    async def list_markets(
        self,
        asset: str | None = None,
        status: MarketStatus | None = None,
        interval: str = INTERVAL,
        *,
        series: str | None = None,
    ) -> list[Market]:
        """Windows of an asset (None: of every one) that are not over, oldest first, as far as the next day is listed;
        with status CLOSED or RESOLVED those of the last 24 hours.

        `series` lists another series instead, e.g. "KXBTCD" (hourly), "KXBTC" (ranges), "KXHIGHNY" (weather) or
        "KXNBAGAME": all its markets that close from then on. Raises MarketNotFound for a wrong one.
        """
        status = self._status(status)
        if series is not None:
            if asset is not None:
                raise ConfigError("list_markets takes an asset or a series, not both")
            return await self._list_series(series, status)
        if asset is None:
            self._check_interval(interval)
            chosen = list((await self._catalogue.up_down_series()).values())
        else:
            chosen = [await self._series(asset, interval)]
        now = await self._catalogue.now_ms()
        since = now - _DAY_MS if status in _OVER else now
        found: list[KalshiMarket] = []
        for one in chosen:
            found += await self._read(one, since, now + 2 * _DAY_MS, _DAY_PAGE)
        states: list[Market] = [market.at(now) for market in sorted(found, key=lambda one: (one.open_ms, one.ticker))]
        return [market for market in states if _fits(market, status, now)]

    async def _list_series(self, ticker: str, status: MarketStatus | None) -> list[Market]:
        row = await self._catalogue.series(ticker)
        now = await self._catalogue.now_ms()
        since = now - _DAY_MS if status in _OVER else now
        found = await self._catalogue.listed(row, since, None, _DAY_PAGE)
        states: list[Market] = [market.at(now) for market in sorted(found, key=lambda one: (one.close_ms, one.ticker))]
        return [market for market in states if _fits(market, status, now)]

    async def list_series(self, category: str = "Crypto") -> list[SeriesRow]:
        """Every series of a category of Kalshi's ("Crypto", "Climate and Weather", "Sports", ...), for
        `list_markets(series=...)`."""
        return await self._catalogue.all_series(category)

    async def list_assets(self, interval: str = INTERVAL) -> list[str]:
        """The assets that have a 15-minute up/down series, whether or not it has markets now."""
        self._check_interval(interval)
        return list(await self._catalogue.up_down_series())

    @staticmethod
    def _check_interval(interval: str) -> None:
        if interval != INTERVAL:
            raise ConfigError(f"Kalshi lists up/down windows of {INTERVAL} only, not of {ascii(interval)[:20]}")

    async def _series(self, asset: str, interval: str) -> SeriesRow:
        self._check_interval(interval)
        asset = asset_name(asset)
        series = (await self._catalogue.up_down_series()).get(asset)
        if series is None:
            known = await self._catalogue.up_down_series(refresh=True)
            series = known.get(asset)
            if series is None:
                raise ConfigError(f"Kalshi has no 15-minute windows of {asset}: it has {', '.join(known)}")
        return series

    async def _find(self, series: SeriesRow, at_ms: int) -> KalshiMarket | None:
        """The one window that contains a moment. Asks the venue when the day's list is old or has none."""
        now = self.data.venue_clock.now_ms()
        fresh = await self._read_day(series, now, at_ms)
        market = self._match(series, at_ms)
        if market is None and not fresh and self._may_ask(series.ticker):
            await self._read(series, min(now, at_ms), at_ms + _HOUR_MS, _PAGE)
            market = self._match(series, at_ms)
        if market is None or market.strike is not None or now < market.open_ms or not self._may_ask(market.ticker):
            return market
        try:
            return await self._catalogue.market(market.ticker)
        except MarketNotFound:
            # A provisional market may vanish.
            self._catalogue.forget(market.ticker)
            self._windows[series.ticker].pop(market.ticker, None)
            return None
        except TRANSIENT as error:
            # The window is known; only its strike could not be read (failure mode DI-07).
            _LOG.log(self._level(market.ticker), "kalshi: the strike of %s could not be read: %s", market.ticker, error)
            return market

    async def _read_day(self, series: SeriesRow, now_ms: int, at_ms: int) -> bool:
        """Read the day's windows once; whether that was just now. A failure is raised unless the window is known."""
        today = (now_ms - _LISTING_MS) // _DAY_MS
        if self._day.get(series.ticker) == today:
            return False
        known = self._match(series, at_ms) is not None
        if known and not self._may_ask(series.ticker):
            return False
        try:
            await self._read(series, now_ms, now_ms + 25 * _HOUR_MS, _DAY_PAGE)
        except TRANSIENT as error:
            if not known:
                raise
            _LOG.log(self._level(series.ticker), "kalshi: windows of %s could not be read: %s", series.ticker, error)
            return False
        self._day[series.ticker] = today
        self._prune(series.ticker, now_ms)
        return True

    def _level(self, what: str) -> int:
        """A failure is said once per thing, and repeated quietly."""
        level = logging.DEBUG if what in self._said else logging.WARNING
        self._said.add(what)
        return level

    async def _read(self, series: SeriesRow, min_close_ms: int, max_close_ms: int, limit: int) -> list[KalshiMarket]:
        markets = await self._catalogue.windows(series, min_close_ms, max_close_ms, limit)
        self._windows.setdefault(series.ticker, {}).update({market.ticker: market for market in markets})
        return markets

    def _match(self, series: SeriesRow, at_ms: int) -> KalshiMarket | None:
        found: list[KalshiMarket] = []
        for ticker, listed in self._windows.get(series.ticker, {}).items():
            market = self._catalogue.markets.get(ticker, listed)
            if market.open_ms <= at_ms < market.close_ms:
                found.append(market)
        if len(found) > 1:
            names = ", ".join(market.ticker for market in found)
            raise ProtocolChanged(f"{series.ticker} has {len(found)} windows at one moment ({names}): one was expected")
        return found[0] if found else None

    def _may_ask(self, what: str) -> bool:
        """At most once per market second, and not faster than four times a wall second."""
        clock = self.clock
        market_at, wall_at = self._asked.get(what, (-_MISS_SECONDS, -_MISS_WALL_SECONDS))
        if clock.monotonic() - market_at < _MISS_SECONDS or clock.io_monotonic() - wall_at < _MISS_WALL_SECONDS:
            return False
        self._asked[what] = (clock.monotonic(), clock.io_monotonic())
        return True

    def _prune(self, series_ticker: str, now_ms: int) -> None:
        windows = self._windows[series_ticker]
        for ticker, market in tuple(windows.items()):
            if market.close_ms < now_ms - _DAY_MS:
                del windows[ticker]
                self._asked.pop(ticker, None)
                self._said.discard(ticker)

    # Why there is none.

    async def _why_none(self, series: SeriesRow, at_ms: int, now_ms: int) -> NoMarket:
        retry = to_utc(now_ms + _RETRY_MS)
        try:
            schedule = await self._trading_hours()
            opens = closed_until(schedule, at_ms)
            status = await self._catalogue.status() if at_ms == now_ms and opens is None else None
        except (PmkitError, RowError) as error:
            return NoMarket(f"no window of {series.ticker} is listed; why could not be read ({error})", retry)
        if opens is not None:
            return NoMarket("the exchange is closed for maintenance", to_utc(opens))
        if status is not None and not _trades(status, self._shard(series)):
            return NoMarket("trading is paused", _resume(status) or retry)
        return NoMarket("not listed yet", retry)

    async def _trading_hours(self) -> Schedule:
        now = self.clock.monotonic()
        if self._schedule is None or now - self._schedule[0] > _HOUR_MS / 1000:
            self._schedule = (now, (await self._catalogue.schedule()).schedule)
        return self._schedule[1]

    def _shard(self, series: SeriesRow) -> int:
        known = [market.exchange_index for market in self._windows.get(series.ticker, {}).values()]
        return max([series.exchange_index or 0, *known])


def _fits(market: Market, status: MarketStatus | None, now_ms: int) -> bool:
    return market.close_ms > now_ms if status is None else market.status is status


def _trades(status: StatusAnswer, shard: int) -> bool:
    """Whether a shard trades. The top fields speak for shard 0 only."""
    for one in status.exchange_index_statuses or ():
        if one.exchange_index == shard:
            return one.exchange_active and one.trading_active
    return status.exchange_active and status.trading_active


def _resume(status: StatusAnswer) -> datetime | None:
    if not status.exchange_estimated_resume_time:
        return None
    try:
        return to_utc(time_ms(status.exchange_estimated_resume_time, "the estimated resume time"))
    except RowError:
        return None
