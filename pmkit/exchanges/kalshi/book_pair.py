"""The two books of one Kalshi market (wire): the bids of NO are the asks of YES, and the NO book is its mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import floor
from typing import Final

from pmkit.exchanges.kalshi.messages import Delta
from pmkit.exchanges.kalshi.types import NO, SIZE_SCALE, VENUE, YES
from pmkit.exchanges.mirror import MirroredBook
from pmkit.exchanges.numbers import MAX_UNITS, BookError, delta_units, price_ticks, size_units
from pmkit.exchanges.orderbook import OrderBook

FINEST_UNIT: Final = 1
"""0.0001 dollars: every price of Kalshi is a multiple of it."""
POLLED: Final = -1
"""The `sid` of books that come from REST polls."""

Levels = Iterable[tuple[str, float]]


class BookPair:
    """The YES and NO books of one market. `sid` is the subscription they follow, 0 while they wait for a
    snapshot. `listeners` get `books`, both in a tuple, after every change, and the one alone whose validity changed."""

    __slots__ = ("books", "crossed", "listeners", "no", "prices", "quiet", "sid", "ticker", "ticks", "yes")

    def __init__(self, ticker: str, unit: int) -> None:
        self.ticker = ticker
        self.yes = OrderBook(
            venue=VENUE, market_id=ticker, outcome=YES, token_id=f"{ticker}:{YES}", unit=unit, size_scale=SIZE_SCALE
        )
        self.no = MirroredBook(self.yes, outcome=NO, token_id=f"{ticker}:{NO}")
        self.books: tuple[OrderBook, ...] = (self.yes, self.no)
        self.prices = price_ticks(unit)
        self.ticks = self.yes.ticks
        self.sid = 0
        self.crossed = False
        self.quiet = False
        self.listeners: list[Callable[[tuple[OrderBook, ...]], object]] = []
        self.yes.on_validity = self.no.on_validity = self._validity

    @property
    def unit(self) -> int:
        """The price step of both books in 0.0001 dollars."""
        return self.yes.unit

    @property
    def live(self) -> bool:
        """Whether both books stand on a snapshot (they may still be crossed or suspected)."""
        return self.sid != 0

    def _validity(self, book: OrderBook) -> None:
        if not self.quiet:
            for listen in self.listeners:
                listen((book,))

    def publish(self) -> None:
        """Hand both books to the listeners."""
        for listen in self.listeners:
            listen(self.books)

    def change(self, delta: Delta, received_ns: int) -> bool:
        """Apply and stamp one signed change of the bids of YES or of NO. Does not publish, except a change of validity.

        False, with the books unchanged, where a level would go below zero. Raises BookError, with the YES book expired,
        for what cannot be.
        """
        yes, no = self.yes, self.no
        value = delta.delta_fp
        tick = self.prices[delta.price_dollars]
        # `delta_units` in line, for what venues send.
        change = floor(value * SIZE_SCALE + 0.5) if -1e9 < value < 1e9 else MAX_UNITS  # half the time of `round`
        if change / SIZE_SCALE != value:
            change = delta_units(value, SIZE_SCALE)
        if delta.side == "yes":
            bid, levels = True, yes.bid_units
        else:
            bid, levels, tick = False, yes.ask_units, self.ticks - tick
        if tick in levels:
            size = levels[tick] + change
            if size > 0:
                levels[tick] = size  # what `set` would do: a level that stays moves no touch
            elif size < 0:
                return False
            elif yes.set_bid(tick, 0) if bid else yes.set_ask(tick, 0):
                no.follow()
        elif change < 0 and 0 < tick < self.ticks:
            return False
        elif yes.set_bid(tick, change) if bid else yes.set_ask(tick, change):
            no.follow()
        venue_ms = delta.ts_ms
        if yes.valid and no.valid and (yes.best_bid_tick < yes.best_ask_tick or yes.best_ask_tick < 0):
            # Not crossed, and no doubt stands: what `touch` would do, without the calls.
            yes.venue_ms = no.venue_ms = venue_ms
            yes.received_ns = no.received_ns = received_ns
            yes.changes += 1
            no.changes += 1
        else:
            yes.touch(venue_ms, received_ns)
            no.touch(venue_ms, received_ns)
        return True

    def load(self, yes: Levels, no: Levels, venue_ms: int, received_ns: int) -> None:
        """Replace both books by these bids, (price, contracts) as the wire has them. Does not publish.

        Prices finer than the grid switch the books to the finest one. Raises BookError, with both books expired, for
        what cannot be a book.
        """
        self.quiet = True
        try:
            try:
                bids, asks = self._read(yes), self._read(no)
            except BookError:
                if self.unit == FINEST_UNIT:
                    raise
                self.regrid(FINEST_UNIT)
                bids, asks = self._read(yes), self._read(no)
            ticks = self.ticks
            self.yes.snapshot(bids, {ticks - tick: size for tick, size in asks.items()}, venue_ms, received_ns)
            self.no.renew(venue_ms, received_ns)
        except BookError:
            self.expire("bad snapshot")
            raise
        finally:
            self.quiet = False

    def _read(self, levels: Levels) -> dict[int, int]:
        prices = self.prices
        return {prices[price]: size_units(size, SIZE_SCALE) for price, size in levels}

    def holds(self, yes: Levels, no: Levels) -> bool:
        """Whether the books hold exactly these bids. Raises BookError for what cannot be a book."""
        other = BookPair(self.ticker, self.unit)
        other.load(yes, no, 0, 0)
        mine, theirs = (self.yes, self.no), (other.yes, other.no)
        return all(one.levels("BID") == two.levels("BID") for one, two in zip(mine, theirs, strict=True))

    def expire(self, reason: str) -> None:
        """Both books are invalid until their next snapshot."""
        self.sid = 0
        self.crossed = False
        self.yes.expire(reason)
        self.no.expire(reason)

    def regrid(self, unit: int) -> None:
        """Another price step: everything is dropped."""
        self.sid = 0
        self.crossed = False
        self.prices = price_ticks(unit)
        # Nobody hears of it before both have the new step: the one reads its levels from the other.
        quiet, self.quiet, was_valid = self.quiet, True, self.yes.valid
        self.yes.regrid(unit)
        self.no.regrid(unit)
        self.ticks = self.yes.ticks
        self.quiet = quiet
        if was_valid and not quiet:
            self.publish()
