"""The order book against a naive one: after every operation every read is equal.

The model is two dicts of Decimal, sorted on every read, and three flags; it shares nothing with the book but words.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pmkit.exchanges.orderbook import ASK, BID, BookError, OrderBook
from pmkit.exchanges.types import Side

SIDES = st.sampled_from((BID, ASK))
SIZES = st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 1 << 52))
POSITION = st.floats(0, 1, exclude_max=True)  # of a tick within the range in use
LEVELS = st.lists(st.tuples(POSITION, SIZES), max_size=12)


class Naive:
    """Absolute sizes by price, and validity as DESIGN tells it."""

    def __init__(self) -> None:
        self.sides: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
        self.expired = "no snapshot yet"
        self.suspected = ""
        self.crossed_since = 0
        self.stamps = (0, 0)
        self.epoch = self.changes = 0
        self.told: list[bool] = []

    def bids(self) -> list[tuple[Decimal, Decimal]]:
        return sorted(self.sides[BID].items(), reverse=True)

    def asks(self) -> list[tuple[Decimal, Decimal]]:
        return sorted(self.sides[ASK].items())

    def is_crossed(self) -> bool:
        return bool(self.sides[BID] and self.sides[ASK] and max(self.sides[BID]) >= min(self.sides[ASK]))

    def reason(self) -> str:
        return self.expired or self.suspected or ("crossed" if self.crossed_since else "")

    def stamp(self, venue_ms: int, received_ns: int) -> None:
        self.stamps = (venue_ms, received_ns)
        self.changes += 1
        self.crossed_since = (self.crossed_since or received_ns) if self.is_crossed() else 0


class BookMachine(RuleBasedStateMachine):
    """`low` and `high` bound the ticks in use as parts of the grid: a narrow range is dense, the whole one thin."""

    low, high = 0.0, 1.0

    @initialize(
        unit=st.sampled_from((1000, 100, 50, 25, 10, 1)), scale=st.sampled_from((1, 100, 1_000_000)), levels=LEVELS
    )
    def start(self, unit: int, scale: int, levels: list[tuple[float, int]]) -> None:
        self.book = OrderBook(venue="v", market_id="m", outcome="YES", unit=unit, size_scale=scale)
        self.book.on_validity = lambda book: self.model.told.append(book.valid)
        self.model = Naive()
        self.unit, self.scale, self.now = unit, scale, 0
        self.kept: OrderBook | None = None
        self.was_valid = False
        self.switches: list[bool] = []
        if levels:
            self.snapshot(levels, levels, True)

    def tick(self, position: float) -> int:
        last = 10_000 // self.unit - 1
        return min(last, max(1, round((self.low + (self.high - self.low) * position) * last)))

    def price(self, tick: int) -> Decimal:
        return Decimal(tick * self.unit) / 10_000

    def after(self) -> None:
        """The model's own record of validity, once per operation that may change it."""
        valid = not self.model.reason()
        if valid is not self.was_valid:
            self.was_valid = valid
            self.switches.append(valid)

    def put(self, side: int, tick: int, units: int) -> None:
        levels = self.model.sides[side]
        levels.pop(self.price(tick), None)
        if units:
            levels[self.price(tick)] = Decimal(units) / self.scale

    @rule(
        changes=st.lists(st.tuples(SIDES, POSITION, SIZES, st.none() | st.integers(-60, 60)), max_size=8),
        touch=st.sampled_from((True, True, True, False)),
    )
    def message(self, changes: list[tuple[int, float, int, int | None]], touch: bool) -> None:
        for side, position, size, delta in changes:
            tick = self.tick(position)
            if delta is None:
                self.book.set(side, tick, size)
                self.put(side, tick, size)
            else:
                self.add(side, tick, delta)
        if touch:
            self.touch()

    def add(self, side: int, tick: int, delta: int) -> None:
        old = int(self.model.sides[side].get(self.price(tick), Decimal(0)) * self.scale)
        size = old + delta
        if size < 0 and delta % 4:
            delta, size = -old, 0  # mostly legal: the whole level goes
        assert self.book.add(side, tick, delta) is (size >= 0)
        if size >= 0:
            self.put(side, tick, size)
        elif not self.model.expired:
            self.model.expired, self.model.crossed_since = "negative level", 0
            self.after()

    @rule(side=SIDES)
    def remove_best(self, side: int) -> None:
        tick = self.book.best_ask_tick if side == ASK else self.book.best_bid_tick
        if tick >= 0:
            self.book.set(side, tick, 0)
            self.put(side, tick, 0)
            self.touch()

    def touch(self) -> None:
        self.now += 1
        self.book.touch(self.now, self.now * 10)
        if not self.model.expired:
            self.model.stamp(self.now, self.now * 10)
            self.after()
        assert not (self.book.valid and self.model.is_crossed())

    @rule(bids=LEVELS, asks=LEVELS, tidy=st.sampled_from((True, True, True, False)))
    def snapshot(self, bids: list[tuple[float, int]], asks: list[tuple[float, int]], tidy: bool) -> None:
        self.now += 1
        # Tidy: bids in the lower half of the range, asks in the upper, so that most books are not crossed.
        low = [(self.tick(position / 2 if tidy else position), size) for position, size in bids]
        high = [(self.tick(0.51 + position * 0.49 if tidy else position), size) for position, size in asks]
        self.book.snapshot(low, iter(high), self.now, self.now * 10)
        self.model.sides = ({}, {})
        for side, levels in ((BID, low), (ASK, high)):
            for tick, size in levels:
                self.put(side, tick, size)
        self.model.expired = self.model.suspected = ""
        self.model.epoch += 1
        self.model.stamp(self.now, self.now * 10)
        self.after()
        assert not (self.book.valid and self.model.is_crossed())

    @rule(
        kind=st.sampled_from(("suspect", "confirm", "gap", "regrid", "bad snapshot", "bad change")),
        side=SIDES,
        bad=st.sampled_from(((-1, 1), (0, 1), (0, 0), (10_000, 1), (1, -1))),
        unit=st.sampled_from((100, 10)),
        recovery=LEVELS,
    )
    def trouble(self, kind: str, side: int, bad: tuple[int, int], unit: int, recovery: list[tuple[float, int]]) -> None:
        book, model = self.book, self.model
        if kind == "suspect":
            book.suspect("silent")
            model.suspected = "silent"
        elif kind == "confirm":
            book.confirm()
            model.suspected = ""
        elif kind == "gap":
            book.expire("sequence gap")
            model.expired, model.crossed_since = "sequence gap", 0
        elif kind == "regrid":
            book.regrid(unit)
            self.unit, model.sides = unit, ({}, {})
            model.expired, model.crossed_since = "tick size changed", 0
        elif kind == "bad snapshot":
            levels = [(self.tick(0.5), 1), bad if bad[1] else (-1, 1)]
            with pytest.raises(BookError):
                book.snapshot(*((levels, []) if side == BID else ([], levels)), 99, 99)
            model.expired, model.crossed_since = "bad snapshot", 0
        else:
            with pytest.raises(BookError):
                book.set(side, *bad)
            if not model.expired:
                model.expired, model.crossed_since = "bad change", 0
        self.after()
        if recovery:
            self.every_read_is_equal()
            self.snapshot(recovery, recovery, True)

    @rule()
    def keep_a_copy(self) -> None:
        self.kept = self.book.copy()
        self.kept_reads = self.reads(self.kept)

    @precondition(lambda self: self.kept is not None)
    @rule()
    def the_copy_has_not_moved(self) -> None:
        assert self.kept is not None
        assert self.reads(self.kept) == self.kept_reads

    @staticmethod
    def reads(book: OrderBook) -> tuple[Any, ...]:
        return (
            *(book.best_bid, book.best_ask, book.mid, book.spread, book.best_bid_size, book.best_ask_size),
            *(book.levels("BID"), book.levels("ASK"), book.valid, book.reason, book.venue_ms, book.received_ns),
            *(book.epoch, book.changes, book.crossed_since_ns, book.best_bid_tick, book.best_ask_tick),
        )

    @invariant()
    def every_read_is_equal(self) -> None:
        book, model = self.book, self.model
        bids, asks = model.bids(), model.asks()
        bid, ask = (bids[0] if bids else (None, None)), (asks[0] if asks else (None, None))
        both = bid[0] is not None and ask[0] is not None
        assert self.reads(book) == (
            *(bid[0], ask[0]),
            (bid[0] + ask[0]) / 2 if both else None,  # type: ignore[operator]
            ask[0] - bid[0] if both else None,  # type: ignore[operator]
            *(bid[1], ask[1], bids, asks, not model.reason(), model.reason(), *model.stamps),
            *(model.epoch, model.changes, model.crossed_since),
            int(bid[0] * 10_000) // self.unit if bid[0] is not None else -1,
            int(ask[0] * 10_000) // self.unit if ask[0] is not None else -1,
        )
        assert model.told == self.switches, "told once per change of validity"
        for side, levels, word in ((BID, bids, "BUY"), (ASK, asks, "SELL")):
            assert book.levels(word, 2) == levels[:2]
            for price, size in levels[:3]:
                assert book.size_at(price, word) == size
                assert book.size_units(side, int(price * 10_000) // self.unit) == size * self.scale

    @invariant()
    def walking_the_book_is_equal(self) -> None:
        for side, levels in ((Side.BUY, self.model.asks()), (Side.SELL, self.model.bids())):
            total = sum((Fraction(size) for _, size in levels), Fraction(0))
            for part in (Fraction(1, self.scale), total / 3, total, total + Fraction(1, self.scale)):
                size = Fraction(int(part * self.scale), self.scale)
                if size == 0:
                    continue
                left, amount, worst = size, Fraction(0), None
                for price, available in levels:
                    taken = min(left, Fraction(available))
                    if taken:
                        amount, left, worst = amount + taken * Fraction(price), left - taken, price
                cost = self.book.cost(side, Decimal(size.numerator) / Decimal(size.denominator))
                assert (cost is None) is (left > 0)
                if cost is not None:
                    assert (Fraction(cost.size), Fraction(cost.amount), cost.worst_price) == (size, amount, worst)
                    assert abs(Fraction(cost.average_price) - amount / size) < Fraction(1, 10**27)
                    # What the whole amount buys is that size: nothing is lost between the two.
                    assert self.book.size_for(side, cost.amount) == cost.size
            assert self.book.size_for(side, 10**17) == Decimal(total.numerator) / Decimal(total.denominator)


class DenseMachine(BookMachine):
    low, high = 0.47, 0.53


class NearTheEndMachine(BookMachine):
    low, high = 0.96, 1.0


@pytest.mark.parametrize("machine", [BookMachine, DenseMachine, NearTheEndMachine])
def test_the_book_equals_a_naive_one(machine: type[BookMachine]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None, database=None)
    )


@settings(max_examples=100, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 10**7)), min_size=1, max_size=30),
    st.decimals(min_value=0, max_value=10**6, places=6),
)
def test_size_for_is_the_largest_size_the_amount_pays_for(levels: list[tuple[int, int]], amount: Decimal) -> None:
    book = OrderBook(venue="v", market_id="m", outcome="YES")
    book.snapshot([], levels, 0, 1)
    size = book.size_for(Side.BUY, amount)
    if size:
        cost = book.cost(Side.BUY, size)
        assert cost is not None
        assert cost.amount <= amount
    more = book.cost(Side.BUY, size + Decimal("0.01"))
    assert more is None or more.amount > amount


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.tuples(SIDES, st.integers(1, 999), st.integers(0, 5)), max_size=60))
def test_md_09_absolute_changes_may_be_repeated_in_any_number(changes: list[tuple[int, int, int]]) -> None:
    books = [OrderBook(venue="v", market_id="m", outcome="YES", unit=10) for _ in range(2)]
    for times, book in enumerate(books, 1):
        book.snapshot([], [], 0, 1)
        for change in changes:
            for _ in range(times):
                book.set(*change)
        book.touch(1, 2)
    assert BookMachine.reads(books[0]) == BookMachine.reads(books[1])


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.dictionaries(st.integers(1, 999), st.integers(1, 10**9), max_size=80),
    st.dictionaries(st.integers(1, 999), st.integers(1, 10**9), max_size=80),
)
def test_md_12_a_snapshot_equals_the_same_levels_set_one_by_one(bids: dict[int, int], asks: dict[int, int]) -> None:
    whole, one_by_one = (OrderBook(venue="v", market_id="m", outcome="YES", unit=10) for _ in range(2))
    whole.snapshot([(tick, 7) for tick in range(1, 500, 3)], [(tick, 7) for tick in range(500, 1000, 3)], 0, 1)
    whole.snapshot(bids.items(), reversed(asks.items()), 5, 50)
    one_by_one.snapshot([], [], 0, 1)
    for side, levels in ((BID, bids), (ASK, asks)):
        for tick, size in levels.items():
            one_by_one.set(side, tick, size)
    one_by_one.touch(5, 50)
    one_by_one.epoch = whole.epoch
    assert BookMachine.reads(whole) == BookMachine.reads(one_by_one)
