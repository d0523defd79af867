"""What markets there are and what they are like: Gamma and the CLOB's public REST, cached.

Gamma knows a window about a day ahead; the CLOB follows minutes later, and only what both know can be traded. A market
is read once; afterwards the socket (price step) and the result keep it fresh.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from pmkit.clock import Clock, to_utc
from pmkit.errors import MarketNotFound, ProtocolChanged
from pmkit.exchanges.polymarket.messages import (
    ClobInfo,
    ClobMarket,
    ClobToken,
    DecodeFailure,
    EventsPage,
    GammaEvent,
    GammaMarket,
    GammaSeries,
    MarketsPage,
    RestBook,
    decode_event,
)
from pmkit.exchanges.polymarket.types import (
    PolymarketMarket,
    Window,
    clob_tokens,
    is_condition_id,
    iso_seconds,
    parse_market,
    same_condition,
    series_asset,
    window_of,
)
from pmkit.exchanges.types import NoMarket
from pmkit.http import HttpSession
from pmkit.venue_clock import VenueClock

_LOG = logging.getLogger("pmkit.polymarket")

PAGE: Final = 100
MAX_PAGES: Final = 60
KEPT: Final = 500
KEPT_MS: Final = 6 * 3_600_000
SERIES_MS: Final = 3_600_000
NOT_YET_MS: Final = 5_000
"""When to look again for a window that is not listed or not on the CLOB yet (market time)."""

REPEAT_MARKET_SECONDS: Final = 2.0
REPEAT_SECONDS: Final = 0.2
"""An answer "there is none" stands for two seconds of market time and 0.2 s of wall time, however fast a bot ticks."""


class Catalogue:
    """Markets by window, condition id and series. `on_change(market)` is called when a known one changed.

    `skipped` counts rows of lists that could not be read; each is logged once.
    """

    def __init__(self, clob: HttpSession, gamma: HttpSession, clock: Clock, venue_clock: VenueClock) -> None:
        self.on_change: Callable[[PolymarketMarket], object] | None = None
        self.skipped = 0
        self._clob = clob
        self._gamma = gamma
        self._clock = clock
        self._venue_clock = venue_clock
        self.now_ms: Callable[[], int] = venue_clock.now_ms
        """Venue time, epoch ms."""
        self.listed: dict[str, PolymarketMarket] = {}
        """By market id, as it was last read or told of: `known` has the status of now."""
        self._slugs: dict[str, str] = {}
        self._none: dict[str, tuple[float, NoMarket]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._series: dict[str, tuple[int, dict[str, str]]] = {}
        self._complained: set[str] = set()
        self._synced = False

    # -- time -----------------------------------------------------------------------------------------------------

    async def sync_clock(self) -> None:
        """Measure the venue's clock once, by GET /time (whole seconds). Every later answer corrects it by its Date."""
        if self._synced:
            return
        answer = await self._clob.get("/time")
        self._venue_clock.observe(answer.decode(int) * 1000, answer.sent_ms, answer.received_ms, resolution_ms=1000)
        self._synced = True

    # -- what is known ----------------------------------------------------------------------------------------------

    def known(self, market_id: str) -> PolymarketMarket | None:
        """The freshest state of a market that was read before, without asking anybody."""
        market = self.listed.get(market_id)
        return None if market is None else market.at(self.now_ms())

    def store(self, market: PolymarketMarket) -> PolymarketMarket:
        """Remember a market and tell about a change. A known result is not undone by a row cached before it."""
        old = self.listed.get(market.market_id)
        if old is not None and old.payouts is not None and market.payouts is None:
            market = market.resolved(old.payouts, old.strike)
        self.listed[market.market_id] = market
        self._slugs[market.slug] = market.market_id
        if old is not None and old != market and self.on_change is not None:
            self.on_change(market)
        if len(self.listed) > KEPT:
            self._prune()
        return market

    def _prune(self) -> None:
        limit = self.now_ms() - KEPT_MS
        for market_id, market in list(self.listed.items()):
            if market.close_ms < limit:
                del self.listed[market_id]
                self._slugs.pop(market.slug, None)

    def set_tick(self, market_id: str, text: str) -> None:
        """The socket says which price step a market has now."""
        market = self.listed.get(market_id)
        if market is None:
            return
        try:
            changed = market.with_tick(Decimal(text))
        except (ArithmeticError, ValueError):  # InvalidOrder is a ValueError
            self._complain(f"tick {text}", f"{market.slug}: price step {text[:20]!a} cannot be, the old one stays")
            return
        if changed is not market:
            self.store(changed.at(self.now_ms()))

    def _complain(self, what: str, text: str) -> None:
        if what not in self._complained and len(self._complained) < 1000:
            self._complained.add(what)
            _LOG.warning("%s", text)

    # -- one market -------------------------------------------------------------------------------------------------

    async def window(self, window: Window) -> PolymarketMarket | NoMarket:
        """The market of one window, or why there is none yet. Raises what the query raised."""
        slug = window.slug
        lock = self._locks.setdefault(slug, asyncio.Lock())
        try:
            async with lock:
                cached = self._slugs.get(slug)
                if cached is not None:
                    market = self.listed[cached].at(self.now_ms())
                    if market.accepting_orders or self.now_ms() >= market.close_ms:
                        return market
                none = self._none.get(slug)
                if none is not None and self._clock.io_monotonic() < none[0]:
                    return none[1]
                found = await self._find(window)
                if isinstance(found, NoMarket):
                    wait = max(REPEAT_MARKET_SECONDS / self._clock.factor, REPEAT_SECONDS)
                    self._none[slug] = (self._clock.io_monotonic() + wait, found)
                    return found
                self._none.pop(slug, None)
                return self.store(found)
        finally:
            if not lock.locked():
                self._locks.pop(slug, None)
            while len(self._none) > KEPT:
                self._none.pop(next(iter(self._none)))

    async def _find(self, window: Window) -> PolymarketMarket | NoMarket:
        event = await self.event(window.slug)
        if event is None:
            event = await self._renamed(window)
        if event is None:
            return self._not_yet(f"{window.slug} is not listed yet")
        row = market_row(event)
        if row.enable_order_book is False:
            return self._not_yet(f"{window.slug} has no order book (yet)")
        info = await self.clob_info(row.condition_id or "") or await self._older_info(row.condition_id or "")
        if info is None:
            return self._not_yet(f"{window.slug} is not on the CLOB yet")
        market = parse_market(row, event, info, now_ms=self.now_ms(), window=window)
        if market.fees_assumed:
            text = f"{market.slug}: no source names its fees; a rate of {market.fees.taker} is assumed"
            self._complain(f"fees {window.series}", text)
        if not market.accepting_orders and self.now_ms() < market.close_ms:
            return self._not_yet(f"{window.slug} takes no orders")
        return market

    def _not_yet(self, reason: str) -> NoMarket:
        return NoMarket(reason, to_utc(self.now_ms() + NOT_YET_MS))

    async def event(self, slug: str) -> GammaEvent | None:
        """The event of that slug, None where Gamma knows none."""
        try:
            return await self._gamma.get_json(f"/events/slug/{slug}", GammaEvent)
        except MarketNotFound:
            return None

    async def _renamed(self, window: Window) -> GammaEvent | None:
        """The window under another name: the only event of its series with its times."""
        series = (await self.series(window.interval)).get(window.asset)
        if series is None:
            return None
        found = [
            event
            async for event in self.events(series, window.end * 1000 - 1000, window.end * 1000 + 1000, closed=False)
            if event.series_slug in (None, window.series) and len(event.markets) == 1
        ]
        return found[0] if len(found) == 1 else None

    async def clob_info(self, condition_id: str) -> ClobInfo | None:
        """What the CLOB says about a market; None while it does not know its tokens."""
        if not is_condition_id(condition_id.lower()):
            raise ProtocolChanged(f"{condition_id[:80]!a} is no condition id")
        try:
            info = await self._clob.get_json(f"/clob-markets/{condition_id}", ClobInfo)
        except MarketNotFound:
            return None
        return info if clob_tokens(info) else None

    async def _older_info(self, condition_id: str) -> ClobInfo | None:
        """The same, as far as GET /markets tells it: should the newer route be gone, not every market is "not yet"."""
        answer = await self.clob_market(condition_id)
        if answer is None or not answer.enable_order_book:
            return None
        tokens: list[ClobToken | None] = [ClobToken(token.token_id, token.outcome) for token in answer.tokens]
        info = ClobInfo(t=tokens, ao=answer.accepting_orders)
        return info if clob_tokens(info) else None

    async def clob_market(self, condition_id: str) -> ClobMarket | None:
        """GET /markets/{condition}: the winner after resolution. None where the CLOB does not know it."""
        try:
            return await self._clob.get_json(f"/markets/{condition_id}", ClobMarket)
        except MarketNotFound:
            return None

    async def condition(self, market_id: str) -> PolymarketMarket:
        """A market by its condition id, read from the venue. Raises MarketNotFound for a wrong one."""
        condition_id = str(market_id).lower()
        row = await self._row(condition_id) if is_condition_id(condition_id) else None
        if row is None:
            raise MarketNotFound(f"Polymarket knows no market {ascii(market_id)[:80]}: use a condition id (0x...)")
        event = await self.event(row.slug) if row.slug and window_of(row.slug) else None
        info = await self.clob_info(row.condition_id or "")
        return self.store(parse_market(row, event, info, now_ms=self.now_ms()))

    async def _row(self, condition_id: str) -> GammaMarket | None:
        for closed in ("false", "true"):  # closed markets are left out unless asked for
            params = {"condition_ids": condition_id, "closed": closed}
            page = await self._gamma.get_json("/markets/keyset", MarketsPage, params)
            for row in page.markets:
                if same_condition(row.condition_id or "", condition_id):
                    return row
        return None

    # -- lists ------------------------------------------------------------------------------------------------------

    async def series(self, interval: str) -> dict[str, str]:
        """Asset -> series id of that interval, never empty. Remembered for an hour of market time."""
        cached = self._series.get(interval)
        if cached is not None and self.now_ms() - cached[0] < SERIES_MS:
            return cached[1]
        found: dict[str, str] = {}
        seen: set[str] = set()
        for page in range(MAX_PAGES):
            params: dict[str, str | int] = {"recurrence": interval, "closed": "false", "exclude_events": "true"}
            rows = await self._gamma.get_json("/series", list[GammaSeries], params | {"limit": 50, "offset": 50 * page})
            fresh = [row for row in rows if str(row.id) not in seen]
            seen.update(str(row.id) for row in fresh)
            for row in fresh:
                if asset := series_asset(row.slug, interval):
                    found[asset] = str(row.id)
            if len(rows) < 50 or not fresh:
                break
        if not found:
            raise ProtocolChanged(f"{self._gamma.host} lists no {interval} series at all: have the names changed?")
        self._series[interval] = (self.now_ms(), found)
        return found

    async def events(
        self, series_id: str, from_ms: int, to_ms: int | None, *, closed: bool
    ) -> AsyncIterator[GammaEvent]:
        """The events of a series that end in [from_ms, to_ms], oldest first, page by page.

        Rows that cannot be read are skipped and counted. Raises ProtocolChanged for a walk that does not end.
        """
        params: dict[str, str | int] = {
            "series_id": series_id,
            "closed": "true" if closed else "false",
            "end_date_min": iso_seconds(from_ms),
            "order": "endDate",
            "ascending": "true",
            "limit": PAGE,
        }
        if to_ms is not None:
            params["end_date_max"] = iso_seconds(to_ms)
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await self._gamma.get_json("/events/keyset", EventsPage, params)
            new = 0
            for raw in page.events:
                event = self._read_event(raw)
                if event is not None and str(event.id) not in seen:
                    seen.add(str(event.id))
                    new += 1
                    yield event
            if not page.next_cursor:
                return
            if not new:
                raise ProtocolChanged(f"{self._gamma.host}: a page of /events/keyset repeats: is after_cursor gone?")
            params["after_cursor"] = page.next_cursor
        raise ProtocolChanged(f"{self._gamma.host}: /events/keyset does not end after {MAX_PAGES} pages")

    def _read_event(self, raw: msgspec.Raw) -> GammaEvent | None:
        try:
            return decode_event(raw)
        except DecodeFailure as error:
            self._skip(f"row {hash(bytes(raw))}", f"an event row cannot be read: {error}")
            return None

    def _skip(self, what: str, text: str) -> None:
        self.skipped += 1
        self._complain(what, text)

    async def windows(
        self, asset: str, interval: str, series_id: str, from_ms: int, to_ms: int | None, *, closed: bool
    ) -> list[PolymarketMarket]:
        """The markets of a series whose windows end in [from_ms, to_ms], oldest first, by Gamma alone.

        Leaves out rows without an order book, which includes those that Gamma forgot to close.
        """
        found: dict[str, PolymarketMarket] = {}
        async for event in self.events(series_id, from_ms, to_ms, closed=closed):
            try:
                row = market_row(event)
                if row.enable_order_book is False:
                    continue
                market = parse_market(row, event, now_ms=self.now_ms())
            except ProtocolChanged as error:
                self._skip(f"event {event.slug}", str(error))
                continue
            if (market.asset, market.interval) == (asset, interval):
                found[market.market_id] = self.known(market.market_id) or market
        return sorted(found.values(), key=lambda market: market.open_ms)

    # -- books ------------------------------------------------------------------------------------------------------

    async def book(self, token_id: str) -> RestBook:
        """GET /book. Raises MarketNotFound where the CLOB has none for this token."""
        book = await self._clob.get_json("/book", RestBook, {"token_id": token_id})
        if book.asset_id != token_id:
            raise ProtocolChanged(f"{self._clob.host} answered /book for one token with the book of another")
        return book

    async def books(self, token_ids: Sequence[str]) -> list[RestBook]:
        """POST /books: those it knows, in any order. It changes nothing, so it may be asked again."""
        body = msgspec.json.encode([{"token_id": token} for token in token_ids])
        answer = await self._clob.request("POST", "/books", body=body, headers={"content-type": "application/json"})
        answer.raise_for_status()
        return answer.decode(list[RestBook])


def market_row(event: GammaEvent) -> GammaMarket:
    """The one market of an Up/Down event. Raises ProtocolChanged where there is not exactly one that fits."""
    rows = [row for row in event.markets if row.slug == event.slug] or event.markets
    if len(rows) != 1:
        raise ProtocolChanged(f"Gamma event {(event.slug or '')[:80]!a} has {len(rows)} markets, expected one")
    return rows[0]
