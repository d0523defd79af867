"""A book read from the other side (wire: no I/O, no clock).

Where a venue keeps one book per market, a bid for one outcome at q is an ask for the other at 1 - q. The levels are
kept once, in an `OrderBook` of the first outcome; `MirroredBook` is the book of the second one.
"""

from __future__ import annotations

from collections.abc import Iterator

from pmkit.exchanges.depth import ASK, BID
from pmkit.exchanges.numbers import BookError
from pmkit.exchanges.orderbook import Levels, OrderBook


class MirroredBook(OrderBook):
    """The other outcome of `of`: everything that an `OrderBook` can be asked, and none of its levels.

    Best prices, stamps and validity are its own, so that reading them costs nothing. Whoever changes `of` says so here:
    `follow()` after its touch may have moved, `renew()` after a snapshot, and `touch`, `expire`, `suspect`, `confirm`,
    `regrid` like on any book. Levels are changed on `of` only: `set`, `add` and `snapshot` raise BookError.
    """

    __slots__ = ("of",)

    def __init__(self, of: OrderBook, *, outcome: str, token_id: str) -> None:
        self.of = of
        super().__init__(
            venue=of.venue,
            market_id=of.market_id,
            outcome=outcome,
            token_id=token_id,
            unit=of.unit,
            size_scale=of.size_scale,
        )

    def follow(self) -> None:
        """The touch of the other book may have moved."""
        of, ticks = self.of, self.ticks
        bid, ask = of.best_ask_tick, of.best_bid_tick
        self._touch_is(ticks - bid if bid >= 0 else -1, ticks - ask if ask >= 0 else -1)

    def renew(self, venue_ms: int, received_ns: int) -> None:
        """The other book has taken a snapshot."""
        self.follow()
        self._renewed(venue_ms, received_ns)

    def size_units(self, side: int, tick: int) -> int:
        """As in `Depth`."""
        return self.of.size_units(BID if side else ASK, self.ticks - tick)

    def _walk(self, side: int) -> Iterator[tuple[int, int]]:
        ticks = self.ticks
        for tick, size in self.of._walk(BID if side else ASK):
            yield ticks - tick, size

    def _empty(self, unit: int) -> None:
        self._grid(unit)

    def set_bid(self, tick: int, size_units: int) -> bool:
        """Not here: see the class."""
        raise self._not_here()

    def set_ask(self, tick: int, size_units: int) -> bool:
        """Not here: see the class."""
        raise self._not_here()

    def add(self, side: int, tick: int, delta_units: int) -> bool:
        """Not here: see the class."""
        raise self._not_here()

    def snapshot(self, bids: Levels, asks: Levels, venue_ms: int, received_ns: int) -> None:
        """Not here: see the class."""
        raise self._not_here()

    def _not_here(self) -> BookError:
        return BookError(f"{self.market_id} {self.outcome} mirrors {self.of.outcome}: change that book")

    def copy(self) -> OrderBook:
        """As in `OrderBook`: a book with levels of its own."""
        twin, of = self._shallow(), self.of
        twin.bid_units, twin._bid_at = twin._read((self.ticks - tick, size) for tick, size in of.ask_units.items())
        twin.ask_units, twin._ask_at = twin._read((self.ticks - tick, size) for tick, size in of.bid_units.items())
        return twin
