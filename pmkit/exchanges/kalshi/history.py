"""Own past trades on Kalshi and what became of them, archived ones included.

Kalshi keeps fills, orders and settled markets apart once they are some weeks old: before the moments of
`GET /historical/cutoff` they are under /historical. Source: Kalshi, "Historical data"; OpenAPI 3.28.0.
"""

from __future__ import annotations

import logging
from decimal import Decimal

import msgspec

from pmkit.errors import MarketNotFound, ProtocolChanged
from pmkit.exchanges.base import check_limit
from pmkit.exchanges.kalshi.account import Account
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.journal import count_of
from pmkit.exchanges.kalshi.paging import pages
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import RowError, is_ticker, payouts_of
from pmkit.exchanges.kalshi.user_messages import FillRow, FillsPage, SettlementRow, SettlementsPage
from pmkit.exchanges.kalshi.user_types import payouts, trade
from pmkit.exchanges.types import Trade
from pmkit.venue_clock import VenueClock

_LOG = logging.getLogger("pmkit.kalshi")


class _OldMarket(msgspec.Struct, frozen=True):
    result: str = ""
    settlement_value_dollars: str | None = None


class _OldMarketAnswer(msgspec.Struct, frozen=True):
    market: _OldMarket


class History:
    """Reads of what is over."""

    def __init__(
        self,
        session: SignedSession,
        account: Account,
        catalogue: Catalogue,
        venue_clock: VenueClock,
        *,
        query: dict[str, str | int],
    ) -> None:
        self._session = session
        self._account = account
        self._catalogue = catalogue
        self._venue_clock = venue_clock
        self._query = query

    async def settlements(self, since_ms: int | None = None) -> list[SettlementRow]:
        """Settled positions, as the venue lists them."""
        params = dict(self._query)
        if since_ms is not None:
            params["min_ts"] = since_ms // 1000
        rows = pages(self._session, "/portfolio/settlements", SettlementsPage, lambda page: page.settlements, params)
        return [row async for row in rows]

    async def trades(self, since_ms: int | None, limit: int | None) -> list[Trade]:
        """Own fills with what became of them, oldest first."""
        check_limit(limit)
        rows = {(row.trade_id, row.order_id): row for row in await self._archived(since_ms)}
        rows |= {(row.trade_id, row.order_id): row async for row in self._account.fill_rows(since_ms=since_ms)}
        fills = [one for one in map(self._account.as_fill, rows.values()) if one.venue_ms >= (since_ms or 0)]
        fills.sort(key=lambda one: (one.venue_ms, one.fill_id))
        if limit is not None:
            fills = fills[:limit]
        results = {row.ticker: payouts(row) for row in await self.settlements(since_ms)} if fills else {}
        for ticker in dict.fromkeys(one.market_id for one in fills):
            # A position that was closed before the end has no settlement: the market itself tells.
            if results.get(ticker) is None:
                results[ticker] = await self._payouts(ticker)
        return [trade(one, results[one.market_id]) for one in fills]

    async def _archived(self, since_ms: int | None) -> list[FillRow]:
        if since_ms is not None and since_ms >= (await self._catalogue.cutoff()).trades_ms:
            return []
        # Of its filters only the ticker and the end exist: what is older than `since_ms` is left out by the caller.
        rows = pages(self._session, "/historical/fills", FillsPage, lambda page: page.fills, {})
        return [row async for row in rows if self._mine(row)]

    def _mine(self, row: FillRow) -> bool:
        chosen = self._query.get("subaccount")
        return chosen is None or row.subaccount_number is None or row.subaccount_number == chosen

    async def _payouts(self, ticker: str) -> tuple[Decimal, Decimal] | None:
        market = self._catalogue.markets.get(ticker)
        if market is None or (market.payouts is None and self._venue_clock.now_ms() >= market.close_ms):
            try:
                market = await self._catalogue.market(ticker)
            except MarketNotFound:
                return await self._old_payouts(ticker)
        paid = market.payouts
        return None if paid is None else (paid[0], paid[1])

    async def _old_payouts(self, ticker: str) -> tuple[Decimal, Decimal] | None:
        if not is_ticker(ticker):
            raise ProtocolChanged(f"a fill is of the market {ascii(ticker)[:60]}, which is no ticker")
        try:
            market = (await self._session.get(f"/historical/markets/{ticker}", _OldMarketAnswer)).market
            value = None if not market.settlement_value_dollars else count_of(market.settlement_value_dollars)
        except (MarketNotFound, RowError) as error:
            _LOG.warning("kalshi: no result of %s, its trades stay open in the history: %s", ticker, error)
            return None
        return payouts_of(market.result, value)
