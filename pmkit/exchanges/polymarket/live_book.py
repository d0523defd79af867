"""The book of one outcome on one connection, and how far it can be trusted (wire).

The market channel has no sequence numbers. Three things stand in for them: the touch that every change carries is
compared with the book after the whole message; stamps tell what is late; what cannot be right makes the book invalid
and asks for a fresh one, while changes are parked, to be put on top of a book read over REST.

Stamps are the venue's epoch ms. Those of books and of changes come from the same engine: a book holds every change up
to its own stamp, and its stamp is that of its last change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import floor, gcd
from typing import TYPE_CHECKING, Final

from pmkit.exchanges.numbers import BookError, TickMap, price_ticks, prices, size_units
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.messages import Change, Level, PriceChange, RestBook
from pmkit.exchanges.polymarket.types import SIZE_SCALE

if TYPE_CHECKING:
    from pmkit.exchanges.polymarket.book_feed import BookFeed

GRACE_NS: Final = 250_000_000
"""How long a cross or another touch may last, in market time, before the book is made anew."""

LATE_RUN: Final = 50
PARKED_LIMIT: Final = 5_000
TICK_CHANGED: Final = "tick size changed"
ANOTHER_TOUCH: Final = "the best prices differ from the venue's"
COARSEST: Final = 5_000
DAY_MS: Final = 86_400_000
EARLIEST_MS: Final = 1_577_836_800_000  # 2020
LATEST_MS: Final = 4_102_444_800_000  # 2100
_FINE: Final = price_ticks(1)


Sink = Callable[[Sequence[OrderBook]], object]
"""Who is told of books: the callbacks of users, by way of `Subscription.publish_all`."""


class _TouchMap(dict[str | None, int]):
    """Text of best_bid or best_ask -> tick, -1 for an empty side, which is written "", "0" or "1".

    Raises BookError for what is no price on the grid, and for None: a message need not say its touch.
    """

    __slots__ = ("_ticks",)

    def __init__(self, ticks: TickMap) -> None:
        super().__init__({"": -1})
        self._ticks = ticks

    def __missing__(self, text: str | None) -> int:
        tick = self._ticks[text or ""]
        tick = tick if 0 < tick < self._ticks.ticks else -1
        if len(self) < 20_000:
            self[text] = tick
        return tick


@cache
def touch_texts(unit: int) -> tuple[list[str], list[str]]:
    """How the venue writes each tick as best bid and as best ask; the last of either is an empty side, tick -1.

    A text that is not here may still name the same price: `LiveBook.touch_of` knows every spelling.
    """
    texts = [str(price).rstrip("0").rstrip(".") or "0" for price in prices(unit)]
    return [*texts[:-1], "0"], texts  # the price of the last tick is 1 dollar


def units_of(size: float) -> int:
    """A size made by the decoder in units of 0.000001 share. Raises BookError for NaN, infinity, negative, huge."""
    # Below 1e8 shares the product is off by less than a thousandth of a unit: adding a half and cutting is rounding,
    # which `floor` does in half the time of `int` and `round`.
    return floor(size * 1e6 + 0.5) if 0.0 <= size < 1e8 else size_units(size, SIZE_SCALE)


def finer_unit(unit: int, prices: list[str]) -> int:
    """The largest step, `unit` or finer, whose grid holds these prices, in 0.0001 dollars. Raises BookError."""
    for price in prices:
        unit = gcd(unit, _FINE[price])
    return unit


def _prices(event: RestBook) -> list[str]:
    return [level.price for level in event.bids] + [level.price for level in event.asks]


def plausible(venue_ms: int, received_ns: int) -> bool:
    """Whether a stamp can be one: between 2020 and 2100, and not more than a day ahead of the time of receipt."""
    limit = received_ns // 1_000_000 + DAY_MS
    return EARLIEST_MS <= venue_ms <= (limit if limit > EARLIEST_MS + DAY_MS else LATEST_MS)


class LiveBook:
    """A book and what is known about it on the current connection.

    `live`: a snapshot came and nothing was lost since; else changes are parked. `heard`: the venue said something about
    it. `doubt`: the number of the doubt (a cross, another touch) that stands, or 0. `sinks` are called after every
    message about it and every change of its validity, with all books of the message that have the same sinks.
    """

    __slots__ = (
        "_feed",
        "ask_texts",
        "bid_texts",
        "book",
        "doubt",
        "heard",
        "late_run",
        "live",
        "lost_ms",
        "parked",
        "parked_not_ms",
        "sinks",
        "snapshot_ms",
        "tick_of",
        "touch_of",
        "wrong_ms",
    )

    def __init__(self, book: OrderBook, feed: BookFeed) -> None:
        self._feed = feed
        self.book = book
        self.sinks: tuple[Sink, ...] = ()
        self.regrid(book.unit)
        self.reset()

    def regrid(self, unit: int) -> None:
        """Another price step: the book is empty and waits."""
        if unit != self.book.unit:
            self.book.regrid(unit)
        self.tick_of = price_ticks(unit)
        self.touch_of = _TouchMap(self.tick_of)
        self.bid_texts, self.ask_texts = touch_texts(unit)

    def reset(self) -> None:
        """Nothing is known on the current connection."""
        self.heard = False
        self.snapshot_ms = 0
        self._park(0)

    def _park(self, lost_ms: int) -> None:
        """From now on changes are kept, not applied. `lost_ms`: a book that replaces this one must reach that stamp."""
        self.live = False
        self.doubt = self.wrong_ms = self.late_run = 0
        self.parked: list[tuple[int, Change]] = []
        self.parked_not_ms = 0  # the latest stamp that found no room
        self.lost_ms = lost_ms

    def keep(self, change: Change, venue_ms: int) -> None:
        """Park one change, up to a bound."""
        self.heard = True
        if len(self.parked) < PARKED_LIMIT:
            self.parked.append((venue_ms, change))
        else:
            self.parked_not_ms = max(self.parked_not_ms, venue_ms)

    def publish(self) -> None:
        """Tell the sinks."""
        for sink in self.sinks:
            sink((self.book,))

    # -- doubts -----------------------------------------------------------------------------------------------------

    def weigh(self, same: bool | None, venue_ms: int, received_ns: int) -> None:
        """After a message that left the book crossed or with another touch than the venue's, or that clears a doubt.

        `same`: whether the touch is the venue's; None: the message did not say.
        """
        book = self.book
        if same:
            self.wrong_ms = 0
            book.confirm()
        elif same is False:
            self._feed.best_failures += 1
            if not self.wrong_ms:
                self.wrong_ms = venue_ms
                book.suspect(ANOTHER_TOUCH)
            elif venue_ms > self.wrong_ms:
                # Only now: messages of one stamp are parts of one event and may carry the touch after all of them.
                self.lose(ANOTHER_TOUCH, venue_ms)
                return
        if book.crossed_since_ns:
            if book.crossed_since_ns == received_ns:
                self._feed.crossed += 1
            elif received_ns - book.crossed_since_ns >= GRACE_NS:
                self.lose("crossed", venue_ms)
                return
        if not self.wrong_ms and not book.crossed_since_ns:
            self.doubt = 0
        elif not self.doubt:
            self.doubt = self._feed.new_doubt(book.token_id)

    def lose(self, reason: str, lost_ms: int) -> None:
        """The book has to be made anew. `lost_ms`: the stamp that its successor has to reach."""
        self._park(lost_ms)
        self.book.expire(reason)
        self._feed.book_lost(self.book.token_id, reason)
        self.publish()

    def misfit(self, prices: tuple[str, ...], venue_ms: int, error: BookError) -> None:
        """A change that the book cannot hold: its price step is too coarse, or the change is none."""
        unit = self.book.unit
        try:
            unit = finer_unit(unit, list(prices))
        except BookError:
            self._feed.unreadable("price_change", error)
        else:
            if unit != self.book.unit:
                self.regrid(unit)
                self.lose("a price between two ticks", venue_ms)
                return
            self._feed.unreadable("price_change", error)
        self.lose("a change that cannot be", venue_ms)

    def change_tick(self, tick_size: str, venue_ms: int) -> None:
        """The price step changed: the levels of the old grid are dropped until a fresh book comes. Raises BookError."""
        self.regrid(finer_unit(COARSEST, [tick_size]))
        self.lose(TICK_CHANGED, max(venue_ms, self.book.venue_ms))

    # -- whole books ------------------------------------------------------------------------------------------------

    def replace(self, event: RestBook, received_ns: int) -> bool:
        """The book becomes that of a snapshot. False, and the book lost, where it cannot be one."""
        try:
            if not plausible(event.timestamp, received_ns):
                raise BookError(f"its stamp is {event.timestamp}")
            unit = self.book.unit if event.tick_size is None else finer_unit(COARSEST, [event.tick_size])
            if unit != self.book.unit:
                self.regrid(finer_unit(unit, _prices(event)))
            try:
                bids, asks = self._read(event.bids), self._read(event.asks)
            except BookError:
                # Orders of a finer grid outlive a change to a coarser one: the step is the one that holds them all.
                self.regrid(finer_unit(unit, _prices(event)))
                bids, asks = self._read(event.bids), self._read(event.asks)
            self.book.snapshot(bids, asks, event.timestamp, received_ns)
        except BookError as error:
            self._feed.unreadable("book", error)
            self.lose("a book that cannot be", event.timestamp)
            return False
        self._park(0)
        self.live = True
        self.snapshot_ms = event.timestamp
        return True

    def _read(self, levels: list[Level]) -> dict[int, int]:
        """Size units by tick; `units_of` in line, since whole books have many levels. Raises BookError."""
        tick_of = self.tick_of
        return {
            tick_of[level.price]: floor(size * 1e6 + 0.5) if 0.0 <= (size := level.size) < 1e8 else units_of(size)
            for level in levels
        }

    def take(self, event: RestBook, received_ns: int) -> bool:
        """A book from the socket. False where it cannot be one."""
        known_ms = self.book.venue_ms if self.live else 0
        parked = [(stamp, change) for stamp, change in self.parked if stamp > event.timestamp]
        if self.parked_not_ms > event.timestamp:
            self.lose("more changes than can be kept", self.parked_not_ms)
            return True
        if not self.replace(event, received_ns):
            return False
        if parked:
            self._put_back(parked, max(stamp for stamp, _ in parked), received_ns)
        elif event.timestamp < known_ms:
            # A late one: what is newer is put back on top, as far as it is remembered.
            self._feed.late += 1
            newer = self._feed.recent.newer_than(event.timestamp)
            if newer is None:
                self.lose("a late book, and newer changes that are forgotten", known_ms)
                return True
            token_id = event.asset_id
            mine = [(e.timestamp, c) for e in newer for c in e.price_changes if c.asset_id == token_id]
            self._put_back(mine, known_ms, received_ns)
        elif self.book.crossed_since_ns:
            self.weigh(None, event.timestamp, received_ns)
        self._publish_live()
        return True

    def merge(self, event: RestBook, received_ns: int) -> bool:
        """A book read over REST while this one waits: parked changes go on top.

        False where it does not reach the stamp of what was lost, or too much was parked: get another one.
        """
        if self.live:
            return True
        if event.timestamp < self.lost_ms or (self.parked_not_ms and event.timestamp <= self.parked_not_ms):
            return False
        parked = [(stamp, change) for stamp, change in self.parked if stamp >= event.timestamp]
        if not self.replace(event, received_ns):
            return False
        if parked:
            self._put_back(parked, max(stamp for stamp, _ in parked), received_ns)
        elif self.book.crossed_since_ns:
            self.weigh(None, event.timestamp, received_ns)
        return self._publish_live()

    def _publish_live(self) -> bool:
        """Tell the sinks, unless the book was lost on the way (`lose` has told them)."""
        if self.live:
            self.publish()
        return self.live

    def _put_back(self, changes: list[tuple[int, Change]], venue_ms: int, received_ns: int) -> None:
        """Newer changes on top of an older book, in the order of their stamps."""
        for _, change in sorted(changes, key=lambda item: item[0]):
            try:
                self.book.set(change.side == "SELL", self.tick_of[change.price], units_of(change.size))
            except BookError as error:
                self.misfit((change.price,), venue_ms, error)
                return
        self.book.touch(venue_ms, received_ns)
        if not self.book.valid:
            self.weigh(None, venue_ms, received_ns)

    def same_levels(self, event: RestBook) -> bool:
        """Whether a book read over REST is this one, level by level: behind a touch that still stands the rest may have
        changed unheard. True for a book that is not live."""
        if not self.live:
            return True
        try:
            bids = {self.tick_of[level.price]: size for level in event.bids if (size := units_of(level.size))}
            asks = {self.tick_of[level.price]: size for level in event.asks if (size := units_of(level.size))}
        except BookError:
            return False
        return bids == self.book.bid_units and asks == self.book.ask_units

    # -- late changes -----------------------------------------------------------------------------------------------

    def take_late(self, change: Change, venue_ms: int, received_ns: int) -> None:
        """A change older than the book: applied only where nothing newer is known about its level."""
        self.late_run += 1
        if self.late_run > LATE_RUN:
            # One stamp that ran ahead, or a venue whose clock was set back: begin anew rather than doubt for ever.
            self.lose("stamps that go backwards", 0)
            return
        if venue_ms < self.snapshot_ms:
            return  # the book held it when it came
        newer = self._feed.recent.newer_than(venue_ms)
        if newer is None:
            self.lose("a late change, and newer ones that are forgotten", self.book.venue_ms)
            return
        try:
            tick = self.tick_of[change.price]
            if self._changed_since(newer, change, tick):
                return
            self.book.set(change.side == "SELL", tick, units_of(change.size))
        except BookError as error:
            self.misfit((change.price,), venue_ms, error)
            return
        self.book.touch(self.book.venue_ms, received_ns)
        if not self.book.valid:
            self.weigh(None, self.book.venue_ms, received_ns)
        self._publish_live()

    def _changed_since(self, newer: list[PriceChange], change: Change, tick: int) -> bool:
        for event in newer:
            for other in event.price_changes:
                same_side = other.asset_id == change.asset_id and other.side == change.side
                if same_side and self.tick_of[other.price] == tick:
                    return True
        return False


def listen(lives: Iterable[LiveBook], sink: Sink) -> None:
    """Call `sink` with these books."""
    shared: dict[tuple[Sink, ...], tuple[Sink, ...]] = {}
    for live in lives:
        sinks = (*live.sinks, sink)
        live.sinks = shared.setdefault(sinks, sinks)  # one object for all: the feed sees at once that they agree


def unlisten(lives: Iterable[LiveBook], sink: Sink) -> None:
    """Take back one `listen`."""
    shared: dict[tuple[Sink, ...], tuple[Sink, ...]] = {}
    for live in lives:
        if sink in live.sinks:
            at = live.sinks.index(sink)
            sinks = live.sinks[:at] + live.sinks[at + 1 :]
            live.sinks = shared.setdefault(sinks, sinks)
