"""Candles, and what is past the cut-off, over REST (reference: kalshi.md, sections 3.8 and 3.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from aiohttp import web

from pmkit.sim.engine import PRICE_UNITS
from pmkit.sim.kalshi.candles import Candle, Candles, Range
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.market import count_text, price_text
from pmkit.sim.kalshi.rest import Query, boolean, integer, paginate, read_limit, trade_object
from pmkit.sim.kalshi.windows import Window, iso, parse, series_of

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

_INTERVALS = (1, 60, 1440)
_MOST_MARKETS = 100
_MOST_CANDLES = 10_000


class HistoryRest:
    """The handlers. Candles begin with the start of this venue, or with the market."""

    def __init__(self, venue: KalshiVenue, candles: Candles) -> None:
        self._venue = venue
        self._candles = candles

    def routes(self) -> dict[str, Callable[[web.Request], Awaitable[object]]]:
        """Handlers by path below /trade-api/v2."""
        return {
            "/markets/candlesticks": self._several,
            "/series/{series}/markets/{ticker}/candlesticks": self._one,
            "/series/{series}/events/{ticker}/candlesticks": self._event,
            "/historical/cutoff": self._cutoff,
            "/historical/markets": self._markets,
            "/historical/markets/{ticker}": self._market,
            "/historical/markets/{ticker}/candlesticks": self._archived_candles,
            "/historical/trades": self._trades,
        }

    # ---- candles

    async def _one(self, request: web.Request) -> object:
        window = self._listed(request.match_info["ticker"], request.match_info["series"])
        return {"ticker": window.ticker, "candlesticks": [_candle(row) for row in self._asked(window, request.query)]}

    async def _several(self, request: web.Request) -> object:
        query = request.query
        tickers = [ticker for ticker in query.get("market_tickers", "").split(",") if ticker]
        if not 1 <= len(tickers) <= _MOST_MARKETS:
            raise refuse(400, "invalid_parameters", f"market_tickers must name 1 to {_MOST_MARKETS} markets")
        found = [(ticker, self._asked(self._listed(ticker), query)) for ticker in tickers]
        if sum(len(rows) for _, rows in found) > _MOST_CANDLES:
            raise refuse(400, "invalid_parameters", f"more than {_MOST_CANDLES} candlesticks")
        return {
            "markets": [
                {"market_ticker": ticker, "candlesticks": [_candle(row) for row in rows]} for ticker, rows in found
            ]
        }

    async def _event(self, request: web.Request) -> object:
        ticker, query = request.match_info["ticker"], request.query
        window = self._listed(ticker, request.match_info["series"]) if ticker.count("-") == 1 else None
        if window is None:
            raise refuse(400, "invalid_parameters", f"no event {ticker[:80]}")
        rows = [_candle(row) for row in self._asked(window, query)]
        end = integer(query, "end_ts")
        return {"market_tickers": [window.ticker], "market_candlesticks": [rows], "adjusted_end_ts": end}

    def _listed(self, ticker: str, series: str | None = None) -> Window:
        window = parse(ticker, self._venue.world.assets)
        calendar, now = self._venue.calendar, self._venue.clock.now_ms()
        if window is None or series not in (None, window.series) or not calendar.is_listed(window, now):
            raise refuse(404, "not_found", f"no market {ticker[:80]}")
        return window

    def _asked(self, window: Window, query: Query) -> list[Candle]:
        low, high, minutes = (integer(query, name) for name in ("start_ts", "end_ts", "period_interval"))
        if low is None or high is None or low > high or minutes not in _INTERVALS:
            raise refuse(
                400, "invalid_parameters", "start_ts, end_ts and a period_interval of 1, 60 or 1440 are required"
            )
        rows = self._candles.of(window, minutes)
        found = [row for row in rows if low <= row.end_s <= high]
        before = [row for row in rows if row.end_s < low]
        if boolean(query, "include_latest_before_start") and before:
            period_s = minutes * 60
            found.insert(0, before[-1].after((low // period_s + 1) * period_s))
        return found

    # ---- past the cut-off

    async def _cutoff(self, request: web.Request) -> object:
        """What is older than this is archived."""
        calendar, now = self._venue.calendar, self._venue.clock.now_ms()
        kept = iso(calendar.kept_since(now))
        return {
            "market_settled_ts": kept,
            "trades_created_ts": kept,
            "orders_updated_ts": iso(calendar.orders_kept_since(now)),
            "market_positions_last_updated_ts": kept,
        }

    def _archived(self, ticker: str) -> Window:
        window = parse(ticker, self._venue.world.assets) if ticker.count("-") == 2 else None
        if window is None or not self._venue.calendar.is_archived(window, self._venue.clock.now_ms()):
            raise refuse(404, "not_found", f"no archived market {ticker[:80]}")
        return window

    async def _market(self, request: web.Request) -> object:
        return {"market": self._venue.market_json(self._archived(request.match_info["ticker"]))}

    async def _markets(self, request: web.Request) -> object:
        query = request.query
        limit = read_limit(query, 100, 1_000)
        page, cursor = paginate(
            self._select(query), lambda window: (-window.close_ms, window.ticker), limit, query.get("cursor", "")
        )
        return {"markets": [self._venue.market_json(window) for window in page], "cursor": cursor}

    def _select(self, query: Query) -> Iterator[Window]:
        calendar, assets, now = self._venue.calendar, self._venue.world.assets, self._venue.clock.now_ms()
        series = query.get("series_ticker")
        event = query.get("event_ticker", "")
        names = set(filter(None, query.get("tickers", "").split(",")))
        if event or names:
            found = {parse(name, assets) for name in names or {event}}
            for window in sorted(filter(None, found), key=lambda one: (-one.close_ms, one.ticker)):
                fits = series in (None, window.series) and event in ("", window.event_ticker)
                if fits and calendar.is_archived(window, now):
                    yield window
            return
        chosen = tuple(asset for asset in assets if series in (None, "", series_of(asset)))
        yield from calendar.archived_first(now, chosen)

    async def _archived_candles(self, request: web.Request) -> object:
        window = self._archived(request.match_info["ticker"])
        rows = [_archived_candle(row) for row in self._asked(window, request.query)]
        return {"ticker": window.ticker, "candlesticks": rows}

    async def _trades(self, request: web.Request) -> object:
        query = request.query
        limit = read_limit(query, 100, 1_000)
        low, high = integer(query, "min_ts"), integer(query, "max_ts")
        ticker = query.get("ticker")
        kept_us = self._venue.calendar.kept_since(self._venue.clock.now_ms()) * 1000
        blocks = boolean(query, "is_block_trade")
        found = (
            trade
            for trade in reversed(self._venue.trades)
            if trade.at_us < kept_us
            and not blocks
            and ticker in (None, trade.ticker)
            and (low is None or trade.at_us >= low * 1_000_000)
            and (high is None or trade.at_us <= high * 1_000_000)
        )
        page, cursor = paginate(found, lambda trade: (-trade.number, ""), limit, query.get("cursor", ""))
        return {"trades": [trade_object(trade) for trade in page], "cursor": cursor}


def _texts(found: Range, end: str) -> dict[str, object]:
    rows = (("open", found.open), ("high", found.high), ("low", found.low), ("close", found.close))
    return {name + end: price_text(price) for name, price in rows}


def _prices(row: Candle, end: str) -> dict[str, object]:
    """Of trades: empty without one but for the price before."""
    data = {} if row.price is None else _texts(row.price, end)
    if row.price is not None:
        data["mean" + end] = price_text(min(PRICE_UNITS, (row.money + row.volume // 2) // row.volume))
    if row.previous:
        data["previous" + end] = price_text(row.previous)
    return data


def _candle(row: Candle) -> dict[str, object]:
    return {
        "end_period_ts": row.end_s,
        "yes_bid": _texts(row.bid, "_dollars"),
        "yes_ask": _texts(row.ask, "_dollars"),
        "price": _prices(row, "_dollars"),
        "volume_fp": count_text(row.volume),
        "open_interest_fp": count_text(row.open_interest),
    }


def _archived_candle(row: Candle) -> dict[str, object]:
    """The same under other names, with null where there is nothing."""
    empty = dict.fromkeys(("open", "high", "low", "close", "mean", "previous"))
    return {
        "end_period_ts": row.end_s,
        "yes_bid": _texts(row.bid, ""),
        "yes_ask": _texts(row.ask, ""),
        "price": empty | _prices(row, ""),
        "volume": count_text(row.volume),
        "open_interest": count_text(row.open_interest),
    }
