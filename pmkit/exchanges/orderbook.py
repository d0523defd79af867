"""The order book of one outcome (wire: no I/O, no clock), used by every venue and by the dry-run.

Feeds write integers (ticks and size units, see `depth`); users read `Decimal` dollars and shares.

A feed applies one message as: any number of `set` or `add`, then one `touch`, which stamps the book and settles a
cross; or one `snapshot`. A book is `valid` only between a snapshot and the first doubt:

- `expire(reason)`: a gap, a lost connection, a new tick size. Only the next snapshot makes it valid again. Changes that
  come in between are stored but mean nothing, and the stamps stay those of the last change that counted.
- `suspect(reason)`: a best price that differs from the venue's, silence. `confirm()` or a snapshot clears it.
- a cross, best bid >= best ask: found by `touch` and `snapshot`, cleared by the next of them that finds none. Venues
  report the two halves of a match apart, so a feed waits (250 ms from `crossed_since_ns`) before it rebuilds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pmkit.exchanges.depth import ASK, BID, Cost, Depth, Level
from pmkit.exchanges.numbers import BookError

__all__ = ["ASK", "BID", "BookError", "Cost", "Level", "OrderBook"]


Levels = Mapping[int, int] | Iterable[tuple[int, int]]
"""Size units by tick."""


class OrderBook(Depth):
    """Bids and asks of one outcome, and whether they can be trusted (`valid`, `reason`).

    Plain attributes, cheap to read: those of `Depth`, `valid`, `reason` ("" when valid), `venue_ms` and `received_ns`
    of the last applied change, `epoch` (+1 with every snapshot), `changes` (+1 with every applied message, snapshots
    included), `crossed_since_ns` (`received_ns` of the message that crossed the book, 0 when it is not crossed),
    `generation` (of the connection; set by the feed). An invalid book still answers: with what it last knew.

    `on_validity(book)` is called once per change of `valid`, after the book is consistent; what it raises reaches the
    feed.
    """

    __slots__ = (
        "_crossed",
        "_expired",
        "_suspected",
        "changes",
        "crossed_since_ns",
        "epoch",
        "generation",
        "market_id",
        "on_validity",
        "outcome",
        "reason",
        "received_ns",
        "token_id",
        "valid",
        "venue",
        "venue_ms",
    )

    def __init__(
        self, *, venue: str, market_id: str, outcome: str, token_id: str = "", unit: int = 100, size_scale: int = 100
    ) -> None:
        """`unit`: the price step in 0.0001 dollars (100 = 1 cent). `size_scale`: size units per share, a power of ten.

        Raises BookError for a step that does not divide a dollar or another scale.
        """
        super().__init__(unit=unit, size_scale=size_scale)
        self.venue = venue
        self.market_id = market_id
        self.outcome = outcome
        self.token_id = token_id
        self.venue_ms = 0
        self.received_ns = 0
        self.generation = 0
        self.epoch = 0
        self.changes = 0
        self.valid = False
        self.reason = self._expired = "no snapshot yet"
        self._suspected = ""
        self._crossed = False
        self.crossed_since_ns = 0
        self.on_validity: Callable[[OrderBook], None] | None = None

    def set(self, side: int, tick: int, size_units: int) -> bool:
        """The level now holds `size_units`; 0 removes it. Applying it twice changes nothing more.

        Whether the best price of the side moved. Raises BookError, and expires the book, for a tick out of range or a
        size that is negative or NaN.
        """
        return self.set_ask(tick, size_units) if side else self.set_bid(tick, size_units)

    def set_bid(self, tick: int, size_units: int) -> bool:
        """`set` for a bid: feeds that know the side spare the question."""
        sizes = self.bid_units
        if size_units > 0:
            if tick in sizes:
                sizes[tick] = size_units
            elif 0 < tick < self.ticks:
                sizes[tick] = size_units
                self._bid_at[tick] = 1
                if tick > self.best_bid_tick:
                    self.best_bid_tick = tick
                    self.best_bid = self._prices[tick]
                    return True
            else:
                raise self._refused(tick, size_units)
        elif size_units == 0:
            if tick in sizes:
                del sizes[tick]
                self._bid_at[tick] = 0
                if tick == self.best_bid_tick:
                    self.best_bid_tick = tick = self._bid_at.rfind(1, 0, tick)
                    self.best_bid = self._prices[tick] if tick >= 0 else None
                    return True
            elif not 0 < tick < self.ticks:
                raise self._refused(tick, size_units)
        else:
            raise self._refused(tick, size_units)
        return False

    def set_ask(self, tick: int, size_units: int) -> bool:
        """`set` for an ask."""
        sizes = self.ask_units
        if size_units > 0:
            if tick in sizes:
                sizes[tick] = size_units
            elif 0 < tick < self.ticks:
                sizes[tick] = size_units
                self._ask_at[tick] = 1
                if tick < self.best_ask_tick or self.best_ask_tick < 0:
                    self.best_ask_tick = tick
                    self.best_ask = self._prices[tick]
                    return True
            else:
                raise self._refused(tick, size_units)
        elif size_units == 0:
            if tick in sizes:
                del sizes[tick]
                self._ask_at[tick] = 0
                if tick == self.best_ask_tick:
                    self.best_ask_tick = tick = self._ask_at.find(1, tick)
                    self.best_ask = self._prices[tick] if tick >= 0 else None
                    return True
            elif not 0 < tick < self.ticks:
                raise self._refused(tick, size_units)
        else:
            raise self._refused(tick, size_units)
        return False

    def add(self, side: int, tick: int, delta_units: int) -> bool:
        """The level changes by `delta_units` (signed); at 0 it is gone.

        False, with the level unchanged and the book expired as "negative level", where it would go below zero: the book
        was wrong before. Raises BookError like `set`.
        """
        sizes = self.ask_units if side else self.bid_units
        size = sizes.get(tick, 0) + delta_units
        if size > 0 and tick in sizes:
            sizes[tick] = size
            return True
        if size < 0 and 0 < tick < self.ticks:
            if not self._expired:
                self.expire("negative level")
            return False
        self.set(side, tick, size)
        return True

    def touch(self, venue_ms: int, received_ns: int) -> None:
        """One message has been applied: stamp the book and settle whether it is crossed. Without effect while expired.

        `venue_ms`: the venue's time of the message, epoch ms (0: it has none); `received_ns`: epoch ns.
        """
        if self._expired:
            return
        self.venue_ms = venue_ms
        self.received_ns = received_ns
        self.changes += 1
        if self.best_ask_tick <= self.best_bid_tick and self.best_ask_tick >= 0:
            if not self._crossed:
                self._crossed = True
                self.crossed_since_ns = received_ns
                self._settle()
        elif self._crossed:
            self._crossed = False
            self.crossed_since_ns = 0
            self._settle()

    def snapshot(self, bids: Levels, asks: Levels, venue_ms: int, received_ns: int) -> None:
        """Replaces the whole book by these (tick, size units), in any order; nothing of the old one survives.

        Of entries for one tick the last counts; size 0 is no level. Raises BookError for a tick out of range or a size
        that is negative or no int, and whatever the iterables raise: the book then keeps its old levels and is expired
        as "bad snapshot".
        """
        try:
            new_bids, bid_at = self._read(bids)
            new_asks, ask_at = self._read(asks)
        except (TypeError, ValueError) as error:
            self.expire("bad snapshot")
            if isinstance(error, BookError):
                raise
            raise BookError(f"snapshot of {self.market_id} {self.outcome}: {error}") from error
        except BaseException:
            self.expire("bad snapshot")
            raise
        self.bid_units, self._bid_at = new_bids, bid_at
        self.ask_units, self._ask_at = new_asks, ask_at
        self._touch_is(bid_at.rfind(1), ask_at.find(1))
        self._renewed(venue_ms, received_ns)

    def _renewed(self, venue_ms: int, received_ns: int) -> None:
        """The levels are those of a snapshot: the stamps, and what it settles."""
        self.venue_ms = venue_ms
        self.received_ns = received_ns
        self.epoch += 1
        self.changes += 1
        self._expired = self._suspected = ""
        self._crossed = -1 < self.best_ask_tick <= self.best_bid_tick
        if not self._crossed:
            self.crossed_since_ns = 0
        elif not self.crossed_since_ns:
            self.crossed_since_ns = received_ns
        self._settle()

    def _read(self, levels: Levels) -> tuple[dict[int, int], bytearray]:
        sizes = dict(levels)
        at = bytearray(self.ticks)
        if sizes:
            # All checks run in C: a sum of ints is an int, and only ints index a bytearray.
            if type(sum(sizes.values())) is not int:
                raise BookError(f"snapshot of {self.market_id} {self.outcome}: a size is no integer")
            smallest = min(sizes.values())
            if smallest < 0 or min(sizes) < 1 or max(sizes) >= self.ticks:
                raise BookError(
                    f"snapshot of {self.market_id} {self.outcome}: ticks {min(sizes)} to {max(sizes)} of 1 to "
                    f"{self.ticks - 1}, smallest size {smallest}"
                )
            if smallest == 0:
                sizes = {tick: size for tick, size in sizes.items() if size}
            for tick in sizes:
                at[tick] = 1
        return sizes, at

    def regrid(self, unit: int) -> None:
        """The price step changed to `unit` x 0.0001 dollars: all levels are dropped, the book waits for a snapshot."""
        try:
            self._empty(unit)
        except BookError:
            self.expire("bad tick size")
            raise
        self.expire("tick size changed")

    def expire(self, reason: str) -> None:
        """Invalid from now until the next snapshot. Of several reasons the last is shown."""
        self._expired = reason or "no reason given"
        self._crossed = False
        self.crossed_since_ns = 0
        self._settle()

    def suspect(self, reason: str) -> None:
        """Invalid until `confirm()` or the next snapshot. A reason given by `expire` stays in front."""
        self._suspected = reason or "no reason given"
        self._settle()

    def confirm(self) -> None:
        """What was suspected is proven right: clears `suspect`, and neither a cross nor `expire`."""
        self._suspected = ""
        self._settle()

    def _settle(self) -> None:
        self.reason = self._expired or self._suspected or ("crossed" if self._crossed else "")
        valid = not self.reason
        if valid is not self.valid:
            self.valid = valid
            if self.on_validity is not None:
                self.on_validity(self)

    def _refused(self, tick: int, size_units: int) -> BookError:
        if not self._expired:
            self.expire("bad change")
        return BookError(
            f"{self.market_id} {self.outcome}: size {size_units} at tick {tick} cannot be (ticks are 1 to "
            f"{self.ticks - 1}, sizes integers from 0)"
        )

    def copy(self) -> OrderBook:
        """The book as it is now, independent of this one and without `on_validity`."""
        twin = self._shallow()
        twin.bid_units, twin.ask_units = self.bid_units.copy(), self.ask_units.copy()
        twin._bid_at, twin._ask_at = self._bid_at.copy(), self._ask_at.copy()
        return twin

    def _shallow(self) -> OrderBook:
        twin = OrderBook.__new__(OrderBook)
        for name in Depth.__slots__ + OrderBook.__slots__:
            if hasattr(self, name):
                setattr(twin, name, getattr(self, name))
        twin.on_validity = None
        return twin

    def __repr__(self) -> str:
        # Ids come from the network and may be 77 digits long: cut and escaped. Also called on half-made books.
        def text(name: str, limit: int = 20) -> str:
            value = str(getattr(self, name, "?"))
            return ascii(value if len(value) <= limit else f"{value[: limit - 3]}...")[1:-1]

        try:
            touch = f"{self.best_bid} x {self.best_bid_size} / {self.best_ask} x {self.best_ask_size}"
        except AttributeError:
            touch = "not made"
        state = "valid" if getattr(self, "valid", False) else f"invalid: {text('reason', 40)}"
        return f"<OrderBook {text('venue')} {text('market_id')} {text('outcome')} {touch} {state}>"
