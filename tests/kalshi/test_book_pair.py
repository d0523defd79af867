"""One book of levels read from both sides must be what two books would be that each get every change."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.messages import Delta
from pmkit.exchanges.numbers import BookError, delta_units, price_ticks, size_units
from pmkit.exchanges.orderbook import ASK, BID, OrderBook

TICKER = "KXBTC15M-26NOV201200-00"


class TwoBooks:
    """The reference: YES and NO keep their own levels and each is told of everything."""

    def __init__(self, unit: int) -> None:
        self.yes, self.no = (
            OrderBook(venue="kalshi", market_id=TICKER, outcome=o, token_id=f"{TICKER}:{o}", unit=unit)
            for o in ("YES", "NO")
        )

    def change(self, delta: Delta, received_ns: int) -> bool:
        yes, no = self.yes, self.no
        tick, change = price_ticks(yes.unit)[delta.price_dollars], delta_units(delta.delta_fp, 100)
        own, other = (yes, no) if delta.side == "yes" else (no, yes)
        if not (own.add(BID, tick, change) and other.add(ASK, yes.ticks - tick, change)):
            return False
        yes.touch(delta.ts_ms, received_ns)
        no.touch(delta.ts_ms, received_ns)
        return True

    def load(self, yes: Any, no: Any, venue_ms: int, received_ns: int) -> None:
        ticks, tick_of = self.yes.ticks, price_ticks(self.yes.unit)
        bids = [(tick_of[price], size_units(size, 100)) for price, size in yes]
        asks = [(tick_of[price], size_units(size, 100)) for price, size in no]
        self.yes.snapshot(bids, [(ticks - tick, size) for tick, size in asks], venue_ms, received_ns)
        self.no.snapshot(asks, [(ticks - tick, size) for tick, size in bids], venue_ms, received_ns)

    def both(self, name: str, argument: Any) -> None:
        for book in (self.yes, self.no):
            getattr(book, name)(*(() if argument is None else (argument,)))


def reads(book: OrderBook) -> dict[str, Any]:
    """Everything that a user can ask."""
    names = """
        venue market_id outcome token_id unit ticks size_scale best_bid best_ask best_bid_tick best_ask_tick
        best_bid_size best_ask_size mid spread valid reason venue_ms received_ns epoch changes crossed_since_ns
        generation
    """
    found = {name: getattr(book, name) for name in names.split()}
    found["levels"] = [book.levels(side, n) for side in ("BID", "ASK") for n in (None, 0, 2)]
    found["units"] = [[book.size_units(side, tick) for tick in range(1, book.ticks)] for side in (BID, ASK)]
    prices = [Decimal(n) / 40 for n in range(41)]
    found["size_at"] = [book.size_at(price, side) for price in prices for side in (None, "BID", "ASK")]
    found["cost"] = [book.cost(side, size) for side in ("BUY", "SELL") for size in ("0.01", "3", "70")]
    found["size_for"] = [book.size_for(side, amount) for side in ("BUY", "SELL") for amount in ("0", "1.01", "80")]
    return found


units = st.sampled_from([100, 500])
prices = st.sampled_from(
    ["0.0500", "0.1000", "0.4500", "0.5000", "0.5500", "0.9000", "0.9500", "0.9700", "0.0000", "1.0000"]
)
sizes = st.sampled_from([0.01, 1.0, 2.5, 60.0])
levels = st.dictionaries(prices.filter(lambda price: price not in ("0.0000", "1.0000", "0.9700")), sizes, max_size=4)
steps = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(["yes", "no"]), prices, st.sampled_from([1, -1]), sizes),
    st.tuples(st.just("load"), levels, levels),
    st.tuples(st.sampled_from(["expire", "suspect"]), st.just("why")),
    st.tuples(st.just("confirm"), st.none()),
    st.tuples(st.just("regrid"), units),
)


@given(units, st.lists(steps, max_size=30))
@settings(max_examples=200, deadline=None)
def test_every_read_of_both_outcomes_equals_that_of_two_books(unit: int, script: list[Any]) -> None:
    pair, model = BookPair(TICKER, unit), TwoBooks(unit)
    told: list[tuple[str, bool]] = []
    expected: list[tuple[str, bool]] = []

    def listen(books: Sequence[OrderBook]) -> None:
        told.extend((book.outcome, book.valid) for book in books)
        assert pair.no.levels("BID") == [(1 - price, size) for price, size in pair.yes.levels("ASK")]  # also just now

    pair.listeners.append(listen)
    model.yes.on_validity = model.no.on_validity = lambda book: expected.append((book.outcome, book.valid))
    for number, (kind, *arguments) in enumerate(script, 1):
        if kind == "change":
            side, price, sign, size = arguments
            delta = Delta(TICKER, price, sign * size, side, number)
            outcomes: list[object] = []
            for books in (pair, model):
                try:
                    outcomes.append(books.change(delta, number * 1000))
                except BookError as error:
                    outcomes.append(type(error))
                if outcomes[-1] is not True:  # what the feed does then
                    books.yes.expire("bad")
                    books.no.expire("bad")
            assert outcomes[0] == outcomes[1]
        elif kind == "load":
            told_before = len(told)
            for books in (pair, model):
                books.load(arguments[0].items(), arguments[1].items(), number, number * 1000)
            assert len(told) == told_before  # `load` leaves telling to its caller
            told[:] = expected
        elif kind == "regrid":
            pair.regrid(arguments[0])
            model.both("regrid", arguments[0])
        else:
            for one in (pair.yes, pair.no):
                getattr(one, kind)(*(() if arguments[0] is None else arguments))
            model.both(kind, arguments[0])
        for mine, theirs in ((pair.yes, model.yes), (pair.no, model.no)):
            assert reads(mine) == reads(theirs)
            assert reads(mine.copy()) == reads(theirs)
        assert sorted(told) == sorted(expected)  # which outcome is told first is open


def test_a_copy_of_the_mirrored_book_stands_alone() -> None:
    pair = BookPair(TICKER, 100)
    pair.load([("0.4500", 3.0)], [("0.5000", 2.0)], 1, 1)
    copy = pair.no.copy()
    before = reads(pair.no)
    copy.set(BID, 50, 0)
    copy.set(ASK, 55, 900)
    assert (copy.best_bid, copy.best_ask_size) == (None, Decimal("9.00"))
    assert reads(pair.no) == before
    pair.change(Delta(TICKER, "0.4500", -3.0, "yes", 2), 2)
    assert (pair.no.best_ask, copy.best_ask) == (None, Decimal("0.55"))


def test_the_mirrored_book_takes_no_levels_of_its_own() -> None:
    pair = BookPair(TICKER, 100)
    pair.load([("0.4500", 3.0)], [("0.5000", 2.0)], 1, 1)
    before = reads(pair.no)
    with pytest.raises(BookError, match="NO mirrors YES"):
        pair.no.set(BID, 40, 100)
    with pytest.raises(BookError, match="NO mirrors YES"):
        pair.no.add(BID, 40, 100)
    with pytest.raises(BookError, match="NO mirrors YES"):
        pair.no.snapshot([], [], 2, 2)
    assert reads(pair.no) == before


@given(st.one_of(st.floats(), st.integers(-(10**9), 10**9).map(lambda cents: cents / 100)))
def test_a_change_is_the_size_that_delta_units_says(value: float) -> None:
    pair = BookPair(TICKER, 100)
    pair.load([("0.4500", 10_000_000.0)], [], 1, 1)
    try:
        expected: int | None = delta_units(value, 100)
    except BookError:
        expected = None
    delta = Delta(TICKER, "0.4500", value, "yes", 2)
    if expected is None:
        with pytest.raises(BookError):
            pair.change(delta, 2)
    else:
        assert pair.change(delta, 2) is (1_000_000_000 + expected >= 0)
        assert pair.yes.size_units(BID, 45) == 1_000_000_000 + (expected if expected >= -1_000_000_000 else 0)
