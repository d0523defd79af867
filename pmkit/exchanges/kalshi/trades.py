"""Kalshi's public prints: from the socket, from polls and from back-fills, each delivered once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from pmkit.clock import Clock
from pmkit.exchanges.kalshi.messages import TradePrint
from pmkit.exchanges.kalshi.rest_messages import TradesPage
from pmkit.exchanges.kalshi.types import RowError, parse_trade
from pmkit.exchanges.types import PublicTrade
from pmkit.http import HttpSession
from pmkit.venue_clock import VenueClock

_PER_PAGE: Final = 1000
_MAX_PAGES: Final = 20
_OVERLAP_MS: Final = 5_000
_MAX_SEEN: Final = 50_000
_LOG = logging.getLogger("pmkit.kalshi")


class Trades:
    """Public prints of the wanted markets, each once, whether they come from the socket, a poll or a back-fill."""

    def __init__(
        self, session: HttpSession, clock: Clock, venue_clock: VenueClock, publish: Callable[[PublicTrade], object]
    ) -> None:
        self.odd = 0
        self.repeated = 0
        self._session = session
        self._clock = clock
        self._venue_clock = venue_clock
        self._publish = publish
        self._since: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def tickers(self) -> tuple[str, ...]:
        """The markets that are wanted."""
        return tuple(self._since)

    def follow(self, ticker: str) -> None:
        """Prints of this market from now on; the venue's clock is known to `uncertainty_ms` only, so a bit earlier."""
        clock = self._venue_clock
        self._since.setdefault(ticker, clock.now_ms() - (clock.uncertainty_ms or 0))

    def forget(self, ticker: str) -> None:
        """No longer wanted."""
        self._since.pop(ticker, None)
        self._newest.pop(ticker, None)

    def on_print(self, row: TradePrint, received_ns: int) -> None:
        """A frame of the trade channel."""
        if row.market_ticker in self._since:
            try:
                self.take(parse_trade(row, received_ns))
            except RowError as error:
                self._odd(error)

    def take(self, trade: PublicTrade) -> bool:
        """Publish a print unless it was, or nobody wants it."""
        if trade.market_id not in self._since:
            return False
        if trade.trade_id:
            if trade.trade_id in self._seen:
                self.repeated += 1
                return False
            self._seen[trade.trade_id] = None
            if len(self._seen) > _MAX_SEEN:
                self._seen.popitem(last=False)
        self._newest[trade.market_id] = max(trade.venue_ms, self._newest.get(trade.market_id, 0))
        self._publish(trade)
        return True

    async def fill(self, tickers: Iterable[str]) -> int:
        """Read over REST what these markets traded since their last print, oldest first; how many were new.

        Raises what the query raises.
        """
        count = 0
        for ticker in tickers:
            since = self._since.get(ticker)
            if since is not None:
                for trade in await self._read(ticker, since):
                    count += self.take(trade)
        return count

    async def _read(self, ticker: str, since: int) -> list[PublicTrade]:
        begin = max(since, self._newest.get(ticker, 0) - _OVERLAP_MS)
        params: dict[str, str | int] = {"ticker": ticker, "min_ts": begin // 1000, "limit": _PER_PAGE}
        found: list[PublicTrade] = []
        cursors: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = await self._session.get_json("/markets/trades", TradesPage, params)
            received_ns = self._clock.time_ns()
            for row in page.trades or ():
                try:
                    trade = parse_trade(row, received_ns)
                except RowError as error:
                    self._odd(error)
                    continue
                if trade.market_id == ticker and trade.venue_ms >= since:
                    found.append(trade)
            if not page.cursor or page.cursor in cursors:
                break
            cursors.add(page.cursor)
            params["cursor"] = page.cursor
        else:
            _LOG.warning("kalshi: more trades of %s than %d pages: the older ones are left out", ticker, _MAX_PAGES)
        found.reverse()
        return sorted(found, key=lambda trade: trade.venue_ms)

    def _odd(self, error: RowError) -> None:
        self.odd += 1
        if self.odd in (1, 10, 100) or self.odd % 1000 == 0:
            _LOG.warning("kalshi: a trade was left out (%s; %d so far)", error, self.odd)
