"""What can be read about a market over Kalshi's public REST: itself, its book, its past, its result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pmkit.clock import Clock, to_ms
from pmkit.endpoints import Endpoints
from pmkit.errors import (
    ConfigError,
    InvalidOrder,
    MarketNotFound,
    NotSent,
    ProtocolChanged,
    RateLimited,
    VenueUnavailable,
)
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.candles import CandlesAnswer, KalshiCandle, candle
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.market_watch import QUICK_SECONDS
from pmkit.exchanges.kalshi.rest_messages import DepthAnswer, Schedule, StatusAnswer, TradesPage
from pmkit.exchanges.kalshi.types import NO, VENUE, KalshiMarket, RowError, is_ticker, parse_trade
from pmkit.exchanges.market import Market, market_of
from pmkit.exchanges.numbers import BookError
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import MarketResult, PublicTrade
from pmkit.http import Allowed, HttpSession

PUBLIC_READS: Final = (
    ("GET", r"/exchange/(status|schedule)"),
    ("GET", r"/series(/[^/]+)?"),
    ("GET", r"/series/[^/]+/markets/[^/]+/candlesticks"),
    ("GET", r"/events/[^/]+"),
    ("GET", r"/markets(/[^/]+(/orderbook)?)?"),
    ("GET", r"/historical/(cutoff|trades|markets/[^/]+(/candlesticks)?)"),
)
"""(method, path pattern) of all that is ever asked for without a key; the default allow-list of the session."""

PERIODS: Final = (60, 3600, 86400)
_CANDLES_PER_CALL: Final = 5000
_TRADES_PER_PAGE: Final = 1000
_MAX_PAGES: Final = 500
_MIN_RESULT_WALL_SECONDS: Final = 0.2
_BEFORE_CLOSE_SECONDS: Final = 60.0
_LOG = logging.getLogger("pmkit.kalshi")


class PublicReads(MarketData):
    """The reading half of `KalshiMarketData`. `catalogue`: markets, series and events as read so far."""

    venue = VENUE

    def __init__(self, endpoints: Endpoints, clock: Clock, allow: Allowed | None) -> None:
        super().__init__(endpoints, clock)
        self.session = HttpSession(
            endpoints.kalshi.rest,
            clock,
            allow=PUBLIC_READS if allow is None else allow,
            venue_clock=self.venue_clock,
            connect_timeout=2.0,
            timeout=5.0,
            public=True,
        )
        self.catalogue = Catalogue(self.session, clock, self.venue_clock)
        self._closing: asyncio.Task[None] | None = None

    async def get_market(self, market_id: str) -> KalshiMarket:
        """One market by its ticker, read now, with its series' and event's fees; archived ones too. Raises
        MarketNotFound."""
        await self.catalogue.now_ms()
        try:
            return await self.catalogue.market(market_id)
        except MarketNotFound:
            if not is_ticker(market_id):
                raise
        try:
            return await self.catalogue.archived_market(market_id)
        except MarketNotFound as error:
            raise MarketNotFound(
                f"Kalshi knows no market {market_id}, neither live nor archived: use the ticker of a market, like "
                "KXBTC15M-26NOV202015-15 (that of a series or an event is shorter)"
            ) from error

    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        """One REST read of a book, valid at the moment of the answer; its `venue_ms` is an estimate, as the venue gives
        none. Raises what the query raises."""
        ticker = own(market).ticker
        market.token_id(outcome)
        answer = await self.session.get(f"/markets/{ticker}/orderbook")
        depth = answer.decode(DepthAnswer).orderbook_fp
        pair = BookPair(market.market_id, market.grid.unit)
        venue_ms = (answer.sent_ms + answer.received_ms) // 2 + self.venue_clock.offset_ms
        try:
            pair.load(depth.yes_dollars or (), depth.no_dollars or (), venue_ms, self.clock.time_ns())
        except BookError as error:
            raise VenueUnavailable(f"{self.session.host} gave a book that cannot be: {error}") from error
        book = pair.no if outcome == NO else pair.yes
        book.on_validity = None
        return book

    async def get_market_candles(
        self, market: Market, period: int = 60, since: datetime | None = None, until: datetime | None = None
    ) -> list[KalshiCandle]:
        """Candles of a market, oldest first, archived ones too; `period` is 60, 3600 or 86400 s. From its open to its
        close (or now) unless said otherwise.

        Raises ConfigError for another period, what the query raises, and ProtocolChanged for rows that cannot be read.
        """
        if period not in PERIODS:
            raise ConfigError(f"Kalshi has candles of {', '.join(map(str, PERIODS))} seconds, not of {period!r}")
        mine = own(market)
        now_ms = await self.catalogue.now_ms()
        first = mine.open_ms if since is None else to_ms(since)
        last = min(mine.close_ms, now_ms) if until is None else to_ms(until)
        live = f"/series/{mine.series_ticker}/markets/{mine.ticker}/candlesticks"
        paths = [live]
        if mine.payouts is not None:
            # A settled market moves into the archive some weeks later.
            archived = mine.close_ms < (await self.catalogue.cutoff()).markets_ms
            old = f"/historical/markets/{mine.ticker}/candlesticks"
            paths = [old, live] if archived else [live, old]
        error: MarketNotFound | None = None
        answered = False
        for path in paths:
            try:
                found = await self._candles(path, first // 1000, -(-last // 1000), period)
            except MarketNotFound as missing:
                error = missing
                continue
            answered = True
            if found:
                return found
        if error is not None and not answered:  # one of the two places knows every market that there was
            raise error
        return []

    async def _candles(self, path: str, start: int, end: int, period: int) -> list[KalshiCandle]:
        found: dict[int, KalshiCandle] = {}
        while start <= end:
            stop = min(end, start + period * _CANDLES_PER_CALL)
            params = {"start_ts": start, "end_ts": stop, "period_interval": period // 60}
            answer = await self.session.get_json(path, CandlesAnswer, params)
            try:
                found |= {row.end_period_ts: candle(row) for row in answer.candlesticks or ()}
            except RowError as error:
                raise ProtocolChanged(f"GET {path}: {error}") from error
            start = stop + 1
        return [found[at] for at in sorted(found)]

    async def get_market_trades(
        self, market: Market, since: datetime | None = None, limit: int | None = None
    ) -> list[PublicTrade]:
        """Public prints of a market in YES terms, oldest first; archived ones too. `limit` keeps the first ones.

        Raises what the query raises, and ProtocolChanged for rows that cannot be read.
        """
        if limit is not None and limit <= 0:
            raise InvalidOrder(f"limit {limit} is not above zero")
        mine = own(market)
        params: dict[str, str | int] = {"ticker": mine.ticker, "limit": _TRADES_PER_PAGE}
        since_ms = 0 if since is None else to_ms(since)
        if since_ms:
            params["min_ts"] = since_ms // 1000
        found: dict[str, PublicTrade] = {}
        for path in await self._trade_paths(since_ms or mine.open_ms):
            for trade in await self._trades(path, params):
                if trade.venue_ms >= since_ms:
                    found[trade.trade_id] = trade
        ordered = sorted(found.values(), key=lambda one: (one.venue_ms, one.trade_id))
        return ordered[:limit]

    async def _trades(self, path: str, params: dict[str, str | int]) -> list[PublicTrade]:
        rows: list[PublicTrade] = []
        cursors: set[str] = set()
        asked = dict(params)
        for _ in range(_MAX_PAGES):
            page = await self.session.get_json(path, TradesPage, asked)
            received_ns = self.clock.time_ns()
            try:
                rows += [parse_trade(row, received_ns) for row in page.trades or ()]
            except RowError as error:
                raise ProtocolChanged(f"a trade of {params['ticker']} cannot be read: {error}") from error
            if not page.cursor:
                return rows
            if page.cursor in cursors:
                raise VenueUnavailable(f"GET {path} repeats its cursor: the list has no end")
            cursors.add(page.cursor)
            asked["cursor"] = page.cursor
        raise VenueUnavailable(f"GET {path} has more than {_MAX_PAGES} pages")

    async def _trade_paths(self, since_ms: int) -> Sequence[str]:
        cutoff = await self.catalogue.cutoff()
        return ("/historical/trades", "/markets/trades") if since_ms < cutoff.trades_ms else ("/markets/trades",)

    async def exchange_status(self) -> StatusAnswer:
        """Whether the exchange is up and trading, also per shard. The top fields speak for shard 0."""
        return await self.catalogue.status()

    async def exchange_schedule(self) -> Schedule:
        """Trading hours in New York and maintenance windows; `schedule.closed_until` answers for a moment."""
        return (await self.catalogue.schedule()).schedule

    async def wait_result(self, market: Market) -> MarketResult:
        """Wait until the market is finalized: reads it after its close every 1, 2, 4 ... 15 s (market time).

        Goes on through outages. Raises MarketNotFound, AuthError, RegionBlocked or ProtocolChanged, after which waiting
        is no use, and VenueUnavailable once this object is closed.
        """
        ticker, step = own(market).ticker, 0
        while True:
            state = self.catalogue.markets.get(ticker)
            left = 0.0
            if state is None or state.payouts is None:
                try:
                    state = await self.catalogue.market(ticker)
                except (RateLimited, VenueUnavailable, NotSent) as error:
                    _LOG.log(logging.WARNING if step == 0 else logging.DEBUG, "kalshi: result of %s: %s", ticker, error)
            if state is not None:
                if state.payouts is not None:
                    return MarketResult(ticker, state.outcomes, state.payouts)
                left = (state.close_ms - self.venue_clock.now_ms()) / 1000
            if self._closing is not None:
                raise VenueUnavailable(f"the market data were closed while waiting for the result of {ticker}")
            if left > 0:
                seconds = min(left, _BEFORE_CLOSE_SECONDS)
            else:
                seconds = QUICK_SECONDS[min(step, len(QUICK_SECONDS) - 1)]
                step += 1
            await self.clock.io_sleep(max(seconds / self.clock.factor, _MIN_RESULT_WALL_SECONDS))


def own(market: Market) -> KalshiMarket:
    """The market, which must be of Kalshi. Raises InvalidOrder."""
    return market_of(KalshiMarket, market, "Kalshi")
