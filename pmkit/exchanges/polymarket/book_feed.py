"""Frames of the market channel applied to books (wire: no socket, no clock, no logging).

`BookFeed.apply(frame, received_ns)` never raises for what a frame holds: garbage and unknown types are counted, and a
message that cannot be read makes the books invalid that it may have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import floor
from typing import Final

import msgspec

from pmkit.exchanges.numbers import BookError
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.live_book import DAY_MS, EARLIEST_MS, LiveBook, Sink, plausible, units_of
from pmkit.exchanges.polymarket.messages import (
    BOOK_EVENTS,
    KNOWN_EVENTS,
    PRICE_CHANGE_END,
    Change,
    DecodeFailure,
    Event,
    LastTradePrice,
    MarketResolved,
    PriceChange,
    RestBook,
    TickSizeChange,
    TypedBook,
    decode,
    decode_frame,
    decode_items,
    decode_price_change,
    inspect,
)
from pmkit.exchanges.polymarket.recent import Recent
from pmkit.exchanges.polymarket.types import SIZE_SCALE, VENUE

MAX_KINDS: Final = 64
REMARK_CHARS: Final = 64
_OF_ASSETS: Final = (RestBook, TickSizeChange, LastTradePrice)


class BookFeed:
    """The books of the assets of one connection.

    Counters: `frames`; `applied` changes and books; `data_frames` about known assets; `garbage` (no JSON of the
    venue's); `unparsed` (a known type that does not fit: the venue changed); `unknown` event types by name;
    `strangers` (messages about assets nobody asked for); `ignored`; `best_checks` and `best_failures` of the touch;
    `crossed` books; `late` messages; `lost` books. `last_error` says what the last bad frame was;
    `change_ms` is the venue's stamp of the last change, 0 before the first on this connection.

    Callbacks: `on_lost(token, reason)`, the book needs a successor; `on_doubt(token, doubt)`, call `check` with the
    same after the grace; `on_trade(book, print, received_ns)`; `on_tick(book, tick size)`; `on_resolved(market)`;
    `on_unknown(event type)`.
    """

    def __init__(self) -> None:
        self.books: dict[str, LiveBook] = {}
        self.generation = 0
        self.frames = self.applied = self.data_frames = 0
        self.garbage = self.unparsed = self.strangers = self.ignored = 0
        self.best_checks = self.best_failures = self.crossed = self.late = self.lost = 0
        self.unknown: Counter[str] = Counter()
        self.last_error = ""
        self.change_ms = self._doubts = 0
        self.on_lost: Callable[[str, str], object] | None = None
        self.on_doubt: Callable[[str, int], object] | None = None
        self.on_trade: Callable[[LiveBook, LastTradePrice, int], object] | None = None
        self.on_tick: Callable[[LiveBook, str], object] | None = None
        self.on_resolved: Callable[[str], object] | None = None
        self.on_unknown: Callable[[str], object] | None = None
        self._newest_ms = EARLIEST_MS
        self.recent = Recent()

    # -- what is followed, on which connection --------------------------------------------------------------------

    def add(self, token_id: str, market_id: str, outcome: str, unit: int = 100) -> OrderBook:
        """Follow an asset and return its book, which waits for a snapshot; the book there is, if it is followed.

        `unit`: the price step in 0.0001 dollars as far as it is known; the venue's own books correct it.
        """
        live = self.books.get(token_id)
        if live is None:
            book = OrderBook(
                venue=VENUE, market_id=market_id, outcome=outcome, token_id=token_id, unit=unit, size_scale=SIZE_SCALE
            )
            book.generation = self.generation
            live = self.books[token_id] = LiveBook(book, self)
        return live.book

    def remove(self, token_id: str) -> None:
        """Follow an asset no more: its book becomes invalid and its sinks are told a last time."""
        live = self.books.pop(token_id, None)
        if live is not None:
            live.reset()
            live.book.expire("not subscribed")
            live.publish()
            live.sinks = ()

    def connected(self, generation: int) -> None:
        """A new connection: every book waits for its first snapshot on it."""
        self.generation = generation
        self._newest_ms = EARLIEST_MS
        self.recent.clear()
        self.change_ms = 0
        self._expire_all("no book yet on this connection")

    def disconnected(self, reason: str) -> None:
        """The connection is gone: no book is valid from this instant on."""
        self._expire_all(f"disconnected: {reason}")

    def _expire_all(self, reason: str) -> None:
        for live in self.books.values():
            live.reset()
            live.book.generation = self.generation
            live.book.expire(reason)
            live.publish()

    def suspect(self, reason: str) -> None:
        """Doubt all books until `confirm`, or until their next message with the right touch."""
        for live in self.books.values():
            if live.live:
                live.book.suspect(reason)
                live.publish()

    def confirm(self) -> None:
        """What `suspect` doubted is proven right. A doubt of the feed's own stays."""
        for live in self.books.values():
            if live.live and not live.doubt:
                live.book.confirm()
                live.publish()

    # -- frames ---------------------------------------------------------------------------------------------------

    def apply(self, frame: bytes, received_ns: int) -> int:
        """Apply one text frame. Returns how many level changes and books were applied. Raises nothing of its own."""
        self.frames += 1
        if frame.endswith(PRICE_CHANGE_END):
            try:
                change = decode_price_change(frame)
            except DecodeFailure as error:
                return self._wreck(frame, received_ns, error)
            return self._price_change(change, frame, received_ns)
        try:
            event = decode_frame(frame)
        except DecodeFailure as error:
            return self._wreck(frame, received_ns, error)
        if isinstance(event, list):
            return sum([self._event(item, received_ns) for item in event])
        return self._event(event, received_ns)

    def _event(self, event: Event | TypedBook, received_ns: int) -> int:
        if isinstance(event, PriceChange):
            return self._price_change(event, event, received_ns)
        if isinstance(event, MarketResolved):
            if self.on_resolved is not None:
                self.on_resolved(event.market)
            return 0
        if not isinstance(event, _OF_ASSETS):
            self.ignored += 1  # best_bid_ask and new_market: see messages.py
            return 0
        live = self.books.get(event.asset_id)
        if live is None:
            self.strangers += 1
            return 0
        live.heard = True
        self.data_frames += 1
        if isinstance(event, RestBook):
            if not live.take(event, received_ns):
                return 0
            self._took(live, event)
            return 1
        if isinstance(event, TickSizeChange):
            try:
                live.change_tick(event.new_tick_size, event.timestamp)
            except BookError as error:
                self._unparsed("tick_size_change", (event.asset_id,), error)
                return 0
            if self.on_tick is not None:
                self.on_tick(live, event.new_tick_size)
        elif self.on_trade is not None:
            try:
                self.on_trade(live, event, received_ns)
            except BookError as error:
                self._unparsed("last_trade_price", (event.asset_id,), error)
        return 0

    def _price_change(self, event: PriceChange, kept: PriceChange | bytes, received_ns: int) -> int:
        """`kept`: the event or its frame, for `Recent`."""
        venue_ms, changes = event.timestamp, event.price_changes
        if venue_ms < self._newest_ms:
            changes = self._in_order(event, received_ns)
        elif venue_ms - self._newest_ms < DAY_MS or plausible(venue_ms, received_ns):
            self._newest_ms = venue_ms
        else:
            self._unparsed("price_change", tuple(change.asset_id for change in changes), f"its stamp is {venue_ms}")
            return 0
        self.change_ms = venue_ms
        self.recent.append(kept)
        books = self.books
        touched: dict[LiveBook, Change] = {}
        skipped, parked, units, size = 0, 0, 0, 0.0
        for change in changes:
            live = books.get(change.asset_id)
            if live is None:
                self.strangers += 1
                skipped += 1
            elif live.live:
                book = live.book
                try:
                    tick = live.tick_of[change.price]
                    shares = change.size
                    if shares != size:  # the other outcome's half of a change has the same
                        units = floor(shares * 1e6 + 0.5) if 0.0 <= shares < 1e8 else units_of(shares)
                        size = shares
                    if change.side == "SELL":
                        if units and tick in (levels := book.ask_units):
                            levels[tick] = units  # what `set` would do: a level that stays moves no touch
                        else:
                            book.set_ask(tick, units)
                    else:
                        if units and tick in (levels := book.bid_units):
                            levels[tick] = units
                        else:
                            book.set_bid(tick, units)
                except BookError as error:
                    live.misfit((change.price,), venue_ms, error)
                    skipped += 1
                touched[live] = change
            else:
                live.keep(change, venue_ms)
                skipped += 1
                parked = 1
        told: list[OrderBook] = []
        sinks: tuple[Sink, ...] = ()
        for live, change in touched.items():
            book = live.book
            bid, ask = book.best_bid_tick, book.best_ask_tick
            same = live.bid_texts[bid] == change.best_bid and live.ask_texts[ask] == change.best_ask
            if same and book.valid and (bid < ask or ask < 0):
                # The venue's touch, not crossed, and no doubt stands: what `_verify` would do, without the calls.
                book.venue_ms = venue_ms
                book.received_ns = received_ns
                book.changes += 1
            elif not self._verify(live, change, venue_ms, received_ns):
                continue
            if live.sinks is not sinks and live.sinks != sinks:
                for sink in sinks:
                    sink(told)
                told, sinks = [], live.sinks
            told.append(book)
        for sink in sinks:
            sink(told)
        applied = len(changes) - skipped
        self.applied += applied
        self.best_checks += len(touched)
        if touched or parked:
            self.data_frames += 1
        return applied

    def _verify(self, live: LiveBook, change: Change, venue_ms: int, received_ns: int) -> bool:
        """After the changes of a message: settle whether a book can be trusted. False where it was lost."""
        if not live.live:
            return False  # a change of this message did not fit
        book = live.book
        book.touch(venue_ms, received_ns)
        bid, ask = change.best_bid, change.best_ask
        same: bool | None = None
        if bid is None or ask is None:
            self.best_checks -= 1
        else:
            try:
                same = live.touch_of[bid] == book.best_bid_tick and live.touch_of[ask] == book.best_ask_tick
                if same:  # as the venue writes them: `_price_change` knows the texts the next time
                    live.bid_texts[book.best_bid_tick], live.ask_texts[book.best_ask_tick] = bid, ask
            except BookError as error:
                live.misfit((bid, ask), venue_ms, error)
                return False
        if not (same and book.valid):
            live.weigh(same, venue_ms, received_ns)
        return live.live

    def _in_order(self, event: PriceChange, received_ns: int) -> list[Change]:
        """The changes of an older message that are in order for their own book; the late ones are dealt with here."""
        if event.timestamp < EARLIEST_MS:
            named = tuple(change.asset_id for change in event.price_changes)
            self._unparsed("price_change", named, f"its stamp is {event.timestamp}")
            return []
        due: list[Change] = []
        for change in event.price_changes:
            live = self.books.get(change.asset_id)
            if live is None or not live.live or event.timestamp >= live.book.venue_ms:
                due.append(change)
            else:
                self.late += 1
                live.take_late(change, event.timestamp, received_ns)
        return due

    # -- what books report ----------------------------------------------------------------------------------------

    def merge(self, event: RestBook, received_ns: int) -> bool:
        """A book read over REST for an asset that waits for one. False where another one is needed."""
        live = self.books.get(event.asset_id)
        if live is None or live.live:
            return True
        if not live.merge(event, received_ns):
            return False
        self._took(live, event)
        return True

    def _took(self, live: LiveBook, event: RestBook) -> None:
        self.applied += 1
        self._newest_ms = max(self._newest_ms, event.timestamp)
        if event.tick_size is not None and self.on_tick is not None:
            self.on_tick(live, event.tick_size)

    def check(self, token_id: str, doubt: int) -> None:
        """The grace of a doubt has passed (see `on_doubt`): a book that is still in it is lost."""
        live = self.books.get(token_id)
        if live is not None and live.live and live.doubt == doubt:
            live.lose(live.book.reason or "in doubt", live.book.venue_ms)

    def new_doubt(self, token_id: str) -> int:
        """A book began to be doubted: the number of that doubt."""
        self._doubts += 1
        if self.on_doubt is not None:
            self.on_doubt(token_id, self._doubts)
        return self._doubts

    def book_lost(self, token_id: str, reason: str) -> None:
        """A book became invalid until a new one comes."""
        self.lost += 1
        if self.on_lost is not None:
            self.on_lost(token_id, reason)

    def unreadable(self, kind: str, error: object) -> None:
        """Count a message of a known type that does not fit."""
        self.unparsed += 1
        self.last_error = f"{kind}: {str(error)[:200]!a}"

    # -- frames that do not decode --------------------------------------------------------------------------------

    def _unparsed(self, kind: str, named: tuple[str, ...], error: object) -> None:
        """A message of a known type that does not fit. Where it may have been a change, its books are lost."""
        self.unreadable(kind, error)
        if kind in BOOK_EVENTS:
            self._lose(named or tuple(self.books), f"a {kind} that does not parse")

    def _lose(self, tokens: tuple[str, ...], reason: str) -> None:
        for token_id in tokens:
            live = self.books.get(token_id)
            if live is not None and live.live:
                live.lose(reason, live.book.venue_ms)

    def _wreck(self, frame: bytes, received_ns: int, error: Exception) -> int:
        """A frame that does not decode as a whole: item by item, then by what can still be read of it."""
        start = bytes(frame).strip()[:8]
        if start in (b"", b"PONG", b"PING"):
            self.ignored += 1
            return 0
        if start[:1] == b"[":
            try:
                items = decode_items(frame)
            except DecodeFailure:
                items = []
            if items:
                return sum([self._item(item, received_ns) for item in items])
        # A short text is a remark of the venue's; anything else may have been a change of any book.
        self._judge(frame, error, start[:1] in (b"{", b"[") or len(frame) > REMARK_CHARS)
        return 0

    def _item(self, item: msgspec.Raw, received_ns: int) -> int:
        try:
            event = decode(item)
        except DecodeFailure as error:
            self._judge(item, error, True)
            return 0
        if isinstance(event, list):
            self._judge(b"[]", ValueError("a list in a list"), True)
            return 0
        return self._event(event, received_ns)

    def _judge(self, frame: bytes | msgspec.Raw, error: Exception, may_be_data: bool) -> None:
        wreck = inspect(frame)
        if wreck.kind is None:
            self.garbage += 1
            self.last_error = f"garbage: {str(error)[:200]!a}"
            if may_be_data:
                self._lose(tuple(self.books), "a frame that cannot be read")
        elif wreck.kind in KNOWN_EVENTS:
            self._unparsed(wreck.kind, wreck.assets, error)
        else:
            kind = wreck.kind[:40] or "(none)"
            if kind not in self.unknown and len(self.unknown) >= MAX_KINDS:
                kind = "(other)"
            self.unknown[kind] += 1
            if self.on_unknown is not None:
                self.on_unknown(kind)
