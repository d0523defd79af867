"""GET requests on markets, books and trades (kalshi.md, section 3; OpenAPI 3.28.0 with the later changes)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from pmkit.sim.engine import PRICE_UNITS, Side
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.market import LiveMarket, Trade, count_text, price_text
from pmkit.sim.kalshi.windows import LENGTH_MS, LONGEST_SETTLEMENT_MS, Window, iso_us, parse, series_of

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

Query = Mapping[str, str]
_T = TypeVar("_T")

_TIMESTAMPS = {
    "created": ("unopened", "open", ""),
    "close": ("closed", ""),
    "settled": ("settled", ""),
    "updated": ("",),
}
_STATUSES = {
    "unopened": ("initialized",),
    "open": ("active",),
    "paused": ("inactive",),
    "closed": ("closed", "determined", "disputed", "amended"),
    "settled": ("finalized",),
    "": (),
}
_BATCH_MS = 30 * 3_600_000


class MarketRest:
    """The handlers. `lag_ms` makes lists as old as a CDN would (real ones up to 15 s); 0 unless a test sets it."""

    def __init__(self, venue: KalshiVenue) -> None:
        self.lag_ms = 0
        self._venue = venue

    def routes(self) -> dict[str, Callable[[web.Request], Awaitable[object]]]:
        """Handlers by path below /trade-api/v2; fixed paths before those with a ticker."""
        return {
            "/markets": self._markets,
            "/markets/trades": self._trades,
            "/markets/orderbooks": self._orderbooks,
            "/markets/{ticker}": self._market,
            "/markets/{ticker}/orderbook": self._orderbook,
        }

    # -- markets

    async def _market(self, request: web.Request) -> object:
        return {"market": self._venue.market_json(self._window(request.match_info["ticker"]))}

    def _window(self, ticker: str) -> Window:
        window = self._venue.window(ticker)
        if window is None:
            raise refuse(404, "not_found", f"no market {ticker[:80]}")
        return window

    async def _markets(self, request: web.Request) -> object:
        query = request.query
        limit = read_limit(query, 100, 1_000)
        now = self._venue.clock.now_ms() - self.lag_ms
        if choice(query, "mve_filter", ("only", "exclude")) == "only":
            return {"markets": [], "cursor": ""}
        windows = self._select(query, now)
        page, cursor = paginate(windows, _window_key, limit, query.get("cursor", ""))
        return {"markets": [self._venue.market_json(window, now) for window in page], "cursor": cursor}

    def _select(self, query: Query, now: int) -> Iterator[Window]:
        calendar, paused = self._venue.calendar, self._venue.paused
        status = choice(query, "status", tuple(word for word in _STATUSES if word))
        bounds = {kind: _bounds(query, kind) for kind in _TIMESTAMPS}
        _check_combination(query, status, bounds)
        words = _STATUSES[status]
        low, high = _close_range(status, bounds, now)
        for window in self._candidates(query, now, low, high):
            if words and calendar.status(window, now, paused) not in words:
                continue
            created = calendar.created_us(window) // 1000
            settled = calendar.settled_us(window) // 1000
            moments = {
                "created": created,
                "close": window.close_ms,
                "settled": settled if settled <= now else None,
                "updated": calendar.updated_us(window, now) // 1000,
            }
            if all(_within(moments[kind], bounds[kind]) for kind in _TIMESTAMPS):
                yield window

    def _candidates(self, query: Query, now: int, low: int | None, high: int | None) -> Iterator[Window]:
        """Windows by name or series; what names no window of this venue finds nothing."""
        calendar, assets = self._venue.calendar, self._venue.world.assets
        named: list[Window | None] | None = None
        if "tickers" in query:
            named = [parse(ticker, assets) for ticker in query["tickers"].split(",") if ticker.count("-") == 2]
        if "event_ticker" in query:
            wanted = query["event_ticker"]
            if "," in wanted:
                raise refuse(400, "invalid_parameters", "only a single event_ticker is supported")
            event = parse(wanted, assets) if wanted.count("-") == 1 else None
            named = [event] if named is None else [found for found in named if found == event]
        series = query.get("series_ticker")
        if named is not None:
            known = {found for found in named if found is not None and calendar.is_listed(found, now)}
            for window in sorted(known, key=_window_key):
                if series in (None, window.series):
                    yield window
            return
        chosen = tuple(asset for asset in assets if series in (None, "", series_of(asset)))
        yield from calendar.newest_first(now, chosen, low, high)

    # -- books

    async def _orderbook(self, request: web.Request) -> object:
        depth = integer(request.query, "depth")
        if depth is not None and depth > 100:
            raise refuse(400, "invalid_parameters", "depth must be between 0 and 100")
        window = self._window(request.match_info["ticker"])
        return {"orderbook_fp": book_object(self._venue.live(window.ticker), max(0, depth or 0))}

    async def _orderbooks(self, request: web.Request) -> object:
        tickers = request.query.getall("tickers", [])
        if not 1 <= len(tickers) <= 100:
            raise refuse(
                400, "invalid_parameters", "tickers must name 1 to 100 markets, each in a parameter of its own"
            )
        windows = [self._window(ticker) for ticker in tickers]
        return {
            "orderbooks": [
                {"ticker": window.ticker, "orderbook_fp": book_object(self._venue.live(window.ticker), 0)}
                for window in windows
            ]
        }

    # -- trades

    async def _trades(self, request: web.Request) -> object:
        query = request.query
        limit = read_limit(query, 100, 1_000)
        low, high = integer(query, "min_ts"), integer(query, "max_ts")
        ticker = query.get("ticker")
        blocks = boolean(query, "is_block_trade")
        if blocks:
            return {"trades": [], "cursor": ""}
        kept_us = self._venue.calendar.kept_since(self._venue.clock.now_ms()) * 1000
        found = (
            trade
            for trade in reversed(self._venue.trades)
            if trade.at_us >= kept_us
            and (ticker is None or trade.ticker == ticker)
            and (low is None or trade.at_us >= low * 1_000_000)
            and (high is None or trade.at_us <= high * 1_000_000)
        )
        page, cursor = paginate(found, lambda trade: (-trade.number, ""), limit, query.get("cursor", ""))
        return {"trades": [trade_object(trade) for trade in page], "cursor": cursor}


def book_object(live: LiveMarket | None, depth: int) -> dict[str, object]:
    """Both sides as bids, ascending; an empty side is an empty list."""
    yes, no = live.levels(depth=depth) if live else ([], [])
    return {"yes_dollars": yes, "no_dollars": no}


def trade_object(trade: Trade) -> dict[str, object]:
    """A print as GET /markets/trades gives it."""
    bought = trade.taker is Side.BUY
    return {
        "trade_id": trade.trade_id,
        "ticker": trade.ticker,
        "count_fp": count_text(trade.size),
        "yes_price_dollars": price_text(trade.price),
        "no_price_dollars": price_text(PRICE_UNITS - trade.price),
        "taker_side": "yes" if bought else "no",
        "taker_outcome_side": "yes" if bought else "no",
        "taker_book_side": "bid" if bought else "ask",
        "created_time": iso_us(trade.at_us),
        "is_block_trade": False,
    }


# -- parameters


def integer(query: Query, name: str) -> int | None:
    """A whole number (timestamps are whole seconds); None when absent."""
    text = query.get(name)
    if text is None or text == "":
        return None
    try:
        if not text.isascii() or len(text) > 19:
            raise ValueError
        return int(text)
    except ValueError:
        raise refuse(400, "invalid_parameters", f"{name} must be a whole number") from None


def boolean(query: Query, name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise refuse(400, "invalid_parameters", f"{name} must be true or false")
    return text == "true"


def choice(query: Query, name: str, words: Sequence[str]) -> str:
    """One of the words, "" when absent."""
    text = query.get(name, "")
    if text and text not in words:
        raise refuse(400, "invalid_parameters", f"{name} must be one of {', '.join(words)}")
    return text


def read_limit(query: Query, default: int, most: int) -> int:
    limit = integer(query, "limit")
    if limit is not None and not 0 <= limit <= most:
        raise refuse(400, "invalid_parameters", f"limit must be between 1 and {most}")
    return limit or default


def paginate(
    items: Iterable[_T], key: Callable[[_T], tuple[int, str]], limit: int, cursor: str
) -> tuple[list[_T], str]:
    """A page of items whose keys ascend, and the cursor of the next one ("" at the end)."""
    after = _decode(cursor) if cursor else None
    page: list[_T] = []
    for item in items:
        if after is not None and key(item) <= after:
            continue
        if len(page) == limit:
            last = key(page[-1])
            return page, base64.urlsafe_b64encode(f"{last[0]}:{last[1]}".encode()).decode()
        page.append(item)
    return page, ""


def _decode(cursor: str) -> tuple[int, str]:
    try:
        number, _, name = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        return int(number), name
    except (binascii.Error, ValueError):
        raise refuse(400, "invalid_parameters", "invalid cursor") from None


def _window_key(window: Window) -> tuple[int, str]:
    return -window.close_ms, window.ticker


_Bounds = tuple[int | None, int | None]


def _bounds(query: Query, kind: str) -> _Bounds:
    return integer(query, f"min_{kind}_ts"), integer(query, f"max_{kind}_ts")


def _within(moment: int | None, bounds: _Bounds) -> bool:
    low, high = bounds
    if low is None and high is None:
        return True
    if moment is None:
        return False
    return (low is None or moment >= low * 1000) and (high is None or moment <= high * 1000)


def _check_combination(query: Query, status: str, bounds: Mapping[str, _Bounds]) -> None:
    """Which timestamps go with which status (3.4). Raises Refused with 400."""
    given = [kind for kind, pair in bounds.items() if pair != (None, None)]
    if len(given) > 1:
        raise refuse(400, "invalid_parameters", f"{' and '.join(given)} timestamps are mutually exclusive")
    if not given:
        return
    kind = given[0]
    if status not in _TIMESTAMPS[kind]:
        raise refuse(400, "invalid_parameters", f"{kind} timestamps cannot be combined with status {status}")
    if kind == "updated":
        others = set(query) - {"min_updated_ts", "max_updated_ts", "mve_filter", "series_ticker", "limit", "cursor"}
        if others or ("series_ticker" in query and query.get("mve_filter") != "exclude"):
            raise refuse(400, "invalid_parameters", "updated timestamps go only with mve_filter=exclude and a series")


def _close_range(status: str, bounds: Mapping[str, _Bounds], now: int) -> tuple[int | None, int | None]:
    """Closes outside this range cannot match, so that nobody looks at three months of windows for nothing."""
    lows: list[int] = []
    highs: list[int] = []
    if status in ("open", "paused"):
        lows.append(now)
        highs.append(now + LENGTH_MS)
    elif status == "unopened":
        lows.append(now)
    elif status == "closed":
        lows.append(now - LONGEST_SETTLEMENT_MS)
        highs.append(now)
    elif status == "settled":
        highs.append(now)
    for kind, before, after in (
        ("close", 0, 0),
        ("created", 0, _BATCH_MS),
        ("settled", LONGEST_SETTLEMENT_MS, 0),
        ("updated", LONGEST_SETTLEMENT_MS, _BATCH_MS),
    ):
        low, high = bounds[kind]
        if low is not None:
            lows.append(low * 1000 - before)
        if high is not None:
            highs.append(high * 1000 + after)
    return max(lows, default=None), min(highs, default=None)
