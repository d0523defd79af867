"""The order book: validity, the failure modes of book feeds, reads, recordings, memory."""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from pmkit.errors import InvalidOrder, PmkitError
from pmkit.exchanges.numbers import delta_units, price_ticks, size_units
from pmkit.exchanges.orderbook import ASK, BID, BookError, Cost, Level, OrderBook
from pmkit.exchanges.types import Side

D = Decimal
Levels = list[tuple[int, int]]


def make(unit: int = 100, size_scale: int = 100) -> OrderBook:
    return OrderBook(
        venue="polymarket", market_id="0xabc", outcome="UP", token_id="1", unit=unit, size_scale=size_scale
    )


def filled(bids: Levels | None = None, asks: Levels | None = None, **options: int) -> OrderBook:
    """A valid book of cents; by default bids 0.50 x 10, 0.48 x 5 and asks 0.53 x 20, 0.60 x 1."""
    book = make(**options)
    book.snapshot(
        [(48, 500), (50, 1000)] if bids is None else bids, [(53, 2000), (60, 100)] if asks is None else asks, 1, 10
    )
    return book


def contents(book: OrderBook) -> tuple[list[Level], list[Level]]:
    return book.levels("BID"), book.levels("ASK")


class Watch:
    """Records every call of on_validity."""

    def __init__(self, book: OrderBook) -> None:
        self.seen: list[tuple[bool, str]] = []
        book.on_validity = self

    def __call__(self, book: OrderBook) -> None:
        # What a subscriber would see: the book is consistent when it is told.
        assert book.valid is (book.reason == "")
        assert not (book.valid and -1 < book.best_ask_tick <= book.best_bid_tick)
        self.seen.append((book.valid, book.reason))


# -- validity -------------------------------------------------------------------------------------------------------


def test_a_new_book_is_invalid_until_its_snapshot() -> None:
    book = make()
    watch = Watch(book)
    assert (book.valid, book.reason) == (False, "no snapshot yet")
    book.set(BID, 50, 100)
    book.touch(5, 6)
    book.confirm()
    assert (book.valid, book.reason) == (False, "no snapshot yet")
    assert (book.venue_ms, book.received_ns, book.changes, book.epoch) == (0, 0, 0, 0)
    book.snapshot([], [], 7, 8)
    assert (book.valid, book.reason) == (True, "")
    assert contents(book) == ([], []), "what came before the snapshot is not in it"
    assert (book.venue_ms, book.received_ns, book.changes, book.epoch) == (7, 8, 1, 1)
    assert watch.seen == [(True, "")]


def test_md_08_a_cross_is_invalid_at_once_and_valid_with_the_message_that_ends_it() -> None:
    book = filled()
    watch = Watch(book)
    book.set(BID, 53, 100)  # locked: bid == ask
    book.touch(2, 20)
    assert (book.valid, book.reason, book.crossed_since_ns) == (False, "crossed", 20)
    book.set(BID, 54, 100)  # still crossed: the first moment counts, and nobody is told again
    book.touch(3, 30)
    assert (book.valid, book.crossed_since_ns) == (False, 20)
    book.set(ASK, 53, 0)
    book.touch(4, 40)
    assert (book.valid, book.reason, book.crossed_since_ns) == (True, "", 0)
    assert watch.seen == [(False, "crossed"), (True, "")]
    assert book.epoch == 1, "no resync was needed"


def test_md_08_the_two_halves_of_a_match_in_one_message_are_no_cross() -> None:
    book = filled()
    watch = Watch(book)
    book.set(BID, 54, 100)
    book.set(ASK, 53, 0)
    book.touch(2, 20)
    assert book.valid
    assert watch.seen == []


def test_md_08_a_dropped_removal_leaves_the_book_invalid() -> None:
    book = filled()
    watch = Watch(book)
    book.set(BID, 55, 100)  # the removal of ask 53 got lost
    book.touch(2, 20)
    for n in range(3, 50):
        book.set(BID, 40, n)
        book.touch(n, n * 10)
        assert not book.valid
    assert book.crossed_since_ns == 20
    book.expire("crossed for 250 ms")
    assert (book.reason, book.crossed_since_ns) == ("crossed for 250 ms", 0)
    book.snapshot([(55, 100)], [(56, 100)], 60, 600)
    assert book.valid
    assert watch.seen == [(False, "crossed"), (True, "")], "one call per change of validity, not per reason"


def test_md_08_a_crossed_snapshot_is_not_published_as_valid() -> None:
    book = make()
    watch = Watch(book)
    book.snapshot([(60, 1)], [(55, 1)], 1, 10)
    assert (book.valid, book.reason, book.crossed_since_ns, book.epoch) == (False, "crossed", 10, 1)
    assert watch.seen == []
    book.snapshot([(61, 1)], [(55, 1)], 2, 20)
    assert book.crossed_since_ns == 10
    book.snapshot([(54, 1)], [(55, 1)], 3, 30)
    assert (book.valid, book.crossed_since_ns) == (True, 0)
    book.snapshot([(60, 1)], [(55, 1)], 4, 40)
    assert (book.valid, book.crossed_since_ns) == (False, 40)
    book.set(BID, 60, 0)
    book.touch(5, 50)
    assert book.valid
    assert watch.seen == [(True, ""), (False, "crossed"), (True, "")]


def test_md_08_received_time_zero_does_not_hide_a_cross() -> None:
    book = filled()
    book.set(BID, 53, 100)
    book.touch(0, 0)
    assert not book.valid
    book.set(BID, 53, 0)
    book.touch(0, 0)
    assert book.valid


def test_a_reason_given_by_expire_is_stronger_than_all_but_a_snapshot() -> None:
    book = filled()
    watch = Watch(book)
    book.expire("sequence gap")
    book.set(BID, 53, 100)
    book.touch(9, 90)
    assert book.reason == "sequence gap"
    book.set(BID, 53, 0)
    book.touch(9, 91)
    book.suspect("silent for 5 s")
    book.confirm()
    assert (book.valid, book.reason) == (False, "sequence gap")
    book.expire("connection lost")
    assert book.reason == "connection lost"
    book.expire("")
    assert not book.valid, "no reason is no way back"
    assert (book.venue_ms, book.received_ns) == (1, 10), "the age is that of the last change that counted"
    book.snapshot([(50, 1)], [], 10, 100)
    assert book.valid
    assert watch.seen == [(False, "sequence gap"), (True, "")]


def test_a_suspected_book_comes_back_by_confirm_or_snapshot_only() -> None:
    book = filled()
    watch = Watch(book)
    book.suspect("best bid differs from the venue's")
    assert (book.valid, book.reason) == (False, "best bid differs from the venue's")
    book.set(BID, 49, 100)
    book.touch(2, 20)
    assert not book.valid, "a change alone proves nothing: the feed confirms"
    assert (book.venue_ms, book.received_ns, book.changes) == (2, 20, 2)
    book.confirm()
    assert (book.valid, book.reason) == (True, "")
    book.confirm()
    book.suspect("silent for 5 s")
    book.snapshot([(50, 1)], [], 3, 30)
    assert book.valid
    assert [valid for valid, _ in watch.seen] == [False, True, False, True]
    book.suspect("")
    assert not book.valid


def test_confirm_does_not_clear_a_cross() -> None:
    book = filled()
    book.suspect("silent for 5 s")
    book.set(BID, 53, 1)
    book.touch(2, 20)
    assert book.reason == "silent for 5 s"
    book.confirm()
    assert (book.valid, book.reason) == (False, "crossed")


def test_md_11_every_read_between_a_loss_and_the_next_snapshot_is_flagged() -> None:
    book = filled()
    before = contents(book)
    book.expire("connection lost")
    assert contents(book) == before, "it still answers with what it last knew"
    for step in range(200):
        if step % 3 == 0:
            book.set(step % 2, 1 + step % 99, step)
        elif step % 3 == 1:
            book.add(step % 2, 1 + step % 99, step)
        book.touch(1000 + step, 1000 + step)
        book.confirm()
        assert not book.valid
        assert (book.venue_ms, book.received_ns) == (1, 10)
    book.snapshot([(1, 1)], [], 3000, 3000)
    assert book.valid
    assert book.levels("BID") == [Level(D("0.01"), D("0.01"))]


def test_the_validity_callback_may_change_the_book_and_may_raise() -> None:
    book = filled()
    seen = []

    def on_validity(changed: OrderBook) -> None:
        seen.append(changed.valid)
        if changed.valid:
            changed.expire("the feed has other plans")

    book.on_validity = on_validity
    book.expire("gap")
    book.snapshot([(50, 1)], [], 2, 20)
    assert seen == [False, True, False]
    assert (book.valid, book.reason) == (False, "the feed has other plans")

    def broken(changed: OrderBook) -> None:
        raise RuntimeError("subscriber")

    book.on_validity = broken
    with pytest.raises(RuntimeError, match="subscriber"):
        book.snapshot([(51, 1)], [(52, 1)], 3, 30)
    assert book.valid, "the book was done before it told anyone"
    assert (book.best_bid, book.best_ask) == (D("0.51"), D("0.52"))


# -- changes --------------------------------------------------------------------------------------------------------


def test_md_09_a_repeated_absolute_size_is_harmless() -> None:
    once, twice = filled(), filled()
    for side, tick, size in [(BID, 51, 700), (BID, 50, 0), (ASK, 53, 0), (ASK, 99, 5), (BID, 48, 1), (ASK, 53, 8)]:
        once.set(side, tick, size)
        twice.set(side, tick, size)
        twice.set(side, tick, size)
        once.touch(2, 20)
        twice.touch(2, 20)
        assert contents(once) == contents(twice)
        assert (once.best_bid_tick, once.best_ask_tick) == (twice.best_bid_tick, twice.best_ask_tick)
    assert once.valid
    assert twice.valid


def test_md_12_no_level_of_the_old_book_survives_a_snapshot() -> None:
    book = filled([(n, n) for n in range(1, 50)], [(n, n) for n in range(60, 100)])
    book.expire("connection lost")
    book.snapshot([(40, 7)], [(70, 9)], 2, 20)
    assert contents(book) == ([Level(D("0.40"), D("0.07"))], [Level(D("0.70"), D("0.09"))])
    assert (book.best_bid_tick, book.best_ask_tick) == (40, 70)
    # A ghost would also show as the next best price once the real one goes.
    book.set(BID, 40, 0)
    book.set(ASK, 70, 0)
    assert (book.best_bid_tick, book.best_ask_tick) == (-1, -1)
    assert book.size_at("0.39") == 0


def test_the_last_of_several_entries_of_a_snapshot_counts() -> None:
    book = filled([(50, 1), (49, 2), (50, 3), (48, 5), (48, 0)], [(60, 0)])
    assert contents(book) == ([Level(D("0.50"), D("0.03")), Level(D("0.49"), D("0.02"))], [])


@pytest.mark.parametrize(
    "bad",
    [
        *([(0, 1)], [(100, 1)], [(-1, 1)], [(10_000, 1)], [(50, -1)], [(50, -1), (50, 2), (51, -1)]),
        *([(50, math.nan)], [(50, 1.5)], [(50, math.inf)], [(50, D("NaN"))], [(50.0, 1)], [(math.nan, 1)]),
        *([(50, None)], [(None, 1)], [("50", 1)], [(50, "1")], [(50,)], [50], None, 5, [(50, 1, 2)]),
    ],
)
@pytest.mark.parametrize("side", [BID, ASK])
def test_a_bad_snapshot_is_refused_whole(bad: Any, side: int) -> None:
    book = filled()
    watch = Watch(book)
    before = contents(book)
    with pytest.raises(BookError):
        book.snapshot(*((bad, [(60, 1)]) if side == BID else ([(40, 1)], bad)), 2, 20)
    assert contents(book) == before, "never half-made"
    assert (book.valid, book.reason) == (False, "bad snapshot")
    assert (book.epoch, book.venue_ms, book.received_ns) == (1, 1, 10)
    assert watch.seen == [(False, "bad snapshot")]
    book.snapshot([(40, 1)], [(60, 1)], 3, 30)
    assert book.valid


@pytest.mark.parametrize("error", [BookError("price"), KeyError("size"), ValueError("x"), KeyboardInterrupt()])
def test_a_snapshot_whose_decoding_fails_midway_leaves_the_book_invalid(error: BaseException) -> None:
    def decoded() -> Iterator[tuple[int, int]]:
        yield 70, 5
        raise error

    book = filled()
    before = contents(book)
    with pytest.raises(BookError if isinstance(error, ValueError) else type(error)):
        book.snapshot([(40, 1)], decoded(), 2, 20)
    assert not book.valid
    assert contents(book) == before


@pytest.mark.parametrize("tick", [0, -1, -50, 100, 101, 10_000, -(10**9)])
@pytest.mark.parametrize("size", [0, 1, 10**12])
@pytest.mark.parametrize("side", [BID, ASK])
@pytest.mark.parametrize("how", ["set", "add"])
def test_a_tick_out_of_range_is_refused_and_ends_trust(tick: int, size: int, side: int, how: str) -> None:
    book = filled()
    before = contents(book)
    with pytest.raises(BookError, match=str(tick)):
        getattr(book, how)(side, tick, size)
    assert contents(book) == before
    assert (book.valid, book.reason) == (False, "bad change")


@pytest.mark.parametrize("size", [-1, -(10**9), math.nan, -math.inf])
@pytest.mark.parametrize("tick", [50, 53, 20])
@pytest.mark.parametrize("side", [BID, ASK])
def test_a_negative_or_nan_size_is_refused(size: Any, tick: int, side: int) -> None:
    book = filled()
    before = contents(book)
    with pytest.raises(BookError):
        book.set(side, tick, size)
    assert contents(book) == before
    assert not book.valid
    with pytest.raises(ValueError, match="cannot be"):
        book.set(side, tick, size)
    assert issubclass(BookError, PmkitError)


def test_signed_changes() -> None:
    book = filled()
    assert book.add(BID, 50, -1)
    assert book.size_units(BID, 50) == 999
    assert book.add(BID, 50, -999)
    assert (book.size_units(BID, 50), book.best_bid_tick) == (0, 48)
    assert book.add(ASK, 52, 7)
    assert (book.size_units(ASK, 52), book.best_ask_tick) == (7, 52)
    assert book.add(ASK, 51, 0)
    assert book.best_ask_tick == 52, "a change by nothing makes no level"
    book.touch(2, 20)
    assert book.valid


@pytest.mark.parametrize(("tick", "delta"), [(50, -1001), (49, -1), (48, -501)])
def test_a_level_that_would_go_below_zero_means_the_book_is_wrong(tick: int, delta: int) -> None:
    book = filled()
    watch = Watch(book)
    before = contents(book)
    assert not book.add(BID, tick, delta)
    assert contents(book) == before
    assert (book.valid, book.reason) == (False, "negative level")
    book.touch(2, 20)
    book.confirm()
    assert not book.valid, "only a snapshot helps"
    book.expire("sequence gap")
    assert not book.add(BID, tick, delta)
    assert book.reason == "sequence gap", "the first cause stays in front"
    book.snapshot([(50, 1)], [], 3, 30)
    assert watch.seen == [(False, "negative level"), (True, "")]


def test_md_21_a_new_tick_size_drops_the_book_and_moves_the_grid() -> None:
    book = filled([(95, 100)], [(97, 200)])
    watch = Watch(book)
    book.regrid(10)
    assert (book.valid, book.reason) == (False, "tick size changed")
    assert (book.unit, book.ticks) == (10, 1000)
    assert contents(book) == ([], [])
    assert (book.best_bid, book.best_ask, book.mid, book.spread) == (None, None, None, None)
    book.set(BID, 965, 300)  # a delta on the new grid, before its snapshot
    book.touch(2, 20)
    book.confirm()
    assert (book.valid, book.reason) == (False, "tick size changed")
    book.snapshot([(985, 100)], [(986, 200)], 3, 30)
    assert book.valid
    assert (book.best_bid, book.best_ask, book.spread) == (D("0.985"), D("0.986"), D("0.001"))
    assert book.size_at("0.965") == 0
    book.regrid(100)
    assert (book.ticks, book.best_bid_tick, book.valid) == (100, -1, False)
    with pytest.raises(BookError):
        book.set(BID, 985, 1)
    assert watch.seen == [(False, "tick size changed"), (True, ""), (False, "tick size changed")]


@pytest.mark.parametrize("unit", [0, -1, 3, 10_000, 1.5, None])
def test_md_21_an_impossible_tick_size_ends_trust(unit: Any) -> None:
    book = filled()
    with pytest.raises(BookError):
        book.regrid(unit)
    assert (book.valid, book.reason, book.unit) == (False, "bad tick size", 100)
    with pytest.raises(BookError):
        make(unit=unit)


# -- reads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bids", [[], [(50, 1000)]])
@pytest.mark.parametrize("asks", [[], [(53, 2000)]])
def test_md_22_all_four_emptiness_cases(bids: Levels, asks: Levels) -> None:
    """One-sided and empty books are normal in the last minute: valid, and no price is invented."""
    for book in (filled(bids, asks), filled()):
        for side, levels in ((BID, bids), (ASK, asks)):
            for tick in (48, 50, 53, 60):
                book.set(side, tick, dict(levels).get(tick, 0))
        book.touch(2, 20)
        assert book.valid
        assert book.best_bid == (D("0.50") if bids else None)
        assert book.best_ask == (D("0.53") if asks else None)
        assert book.best_bid_size == (D(10) if bids else None)
        assert book.best_ask_size == (D(20) if asks else None)
        assert book.best_bid_tick == (50 if bids else -1)
        assert book.best_ask_tick == (53 if asks else -1)
        assert book.mid == (D("0.515") if bids and asks else None)
        assert book.spread == (D("0.03") if bids and asks else None)
        assert len(book.levels("BID")) == len(bids)
        assert len(book.levels(Side.SELL, 5)) == len(asks)
        assert (book.cost(Side.BUY, 1) is None) is (not asks)
        assert (book.cost(Side.SELL, 1) is None) is (not bids)
        assert book.size_for(Side.BUY, 1000) == (20 if asks else 0)
        assert book.size_for(Side.SELL, 1000) == (10 if bids else 0)
        assert book.size_at("0.50") == (10 if bids else 0)
        assert repr(book.copy())


def test_reads_are_exact_decimals() -> None:
    book = filled([(523, 1_234_567)], [(528, 7_000_001)], unit=10, size_scale=1_000_000)
    assert str(book.best_bid) == "0.523"
    assert str(book.best_ask) == "0.528"
    assert book.mid == D("0.5255")
    assert book.spread == D("0.005")
    assert str(book.best_bid_size) == "1.234567"
    assert str(book.best_ask_size) == "7.000001"
    with localcontext() as context:
        context.prec = 2
        assert book.mid == D("0.5255"), "whatever precision the caller works with"
        assert book.best_ask_size == D("7.000001")
        cost = book.cost(Side.BUY, "6.543211")
        assert cost is not None
        assert cost.amount == D("3.454815408")
        assert cost.average_price == D("0.528")


def test_levels_are_best_first_and_of_one_side() -> None:
    book = filled([(10, 100), (50, 200), (48, 300)], [(99, 400), (53, 500), (60, 600)])
    bids = [Level(D("0.50"), D(2)), Level(D("0.48"), D(3)), Level(D("0.10"), D(1))]
    asks = [Level(D("0.53"), D(5)), Level(D("0.60"), D(6)), Level(D("0.99"), D(4))]
    assert book.levels("BID") == book.levels("BUY") == book.levels(Side.BUY) == bids
    assert book.levels("ASK") == book.levels("SELL") == book.levels(Side.SELL) == asks
    for n in range(5):
        assert book.levels("BID", n) == bids[:n]
        assert book.levels(Side.SELL, n) == asks[:n]
    price, size = book.levels("BID", 1)[0]
    assert (price, size) == (D("0.50"), D(2))


@pytest.mark.parametrize("side", ["bid", "buy", "UP", "", None, 0, 1, True, BID, ASK, b"BID", ["BID"], D(0)])
def test_other_words_for_a_side_are_refused(side: Any) -> None:
    book = filled()
    with pytest.raises(InvalidOrder, match="side"):
        book.levels(side)
    with pytest.raises(InvalidOrder, match="side"):
        book.cost(side, 1)
    with pytest.raises(InvalidOrder, match="side"):
        book.size_for(side, 1)
    if side is not None:
        with pytest.raises(InvalidOrder, match="side"):
            book.size_at("0.5", side)


@pytest.mark.parametrize("side", ["BID", "ASK"])
def test_cost_takes_only_what_an_order_does(side: str) -> None:
    """ "BID" may mean hitting bids or bidding: refused, where a wrong guess costs money."""
    with pytest.raises(InvalidOrder):
        filled().cost(side, 1)
    with pytest.raises(InvalidOrder):
        filled().size_for(side, 1)


def test_size_at_finds_the_side() -> None:
    book = filled()
    assert book.size_at("0.50") == book.size_at(D("0.5")) == book.size_at("0.5", "BID") == 10
    assert book.size_at("0.5", Side.SELL) == 0
    assert book.size_at("0.53") == book.size_at("0.530", Side.SELL) == 20
    assert book.size_at("0.52") == book.size_at("0.525") == book.size_at("0.50001") == 0
    assert book.size_at(0) == book.size_at(1) == book.size_at("0.0") == 0
    book.set(BID, 53, 700)
    assert book.size_at("0.53") == 7
    assert book.size_at("0.53", "ASK") == 20


@pytest.mark.parametrize("price", [0.5, True, None, "NaN", D("NaN"), "x", 50, "-0.01", "1.01", D("Infinity")])
def test_size_at_refuses_what_is_no_price(price: Any) -> None:
    with pytest.raises(InvalidOrder, match="price"):
        filled().size_at(price)


def test_cost_walks_the_book_from_the_best_price() -> None:
    book = filled([(50, 1000), (48, 500)], [(53, 2000), (60, 100)])
    assert book.cost(Side.BUY, 20) == Cost(D(20), D("10.6"), D("0.53"), D("0.53"))
    assert book.cost("BUY", "20.5") == Cost(D("20.5"), D("10.9"), D("10.9") / D("20.5"), D("0.60"))
    assert book.cost(Side.BUY, 21) == Cost(D(21), D("11.2"), D("11.2") / D(21), D("0.60"))
    assert book.cost(Side.BUY, "21.01") is None
    assert book.cost(Side.SELL, "0.01") == Cost(D("0.01"), D("0.005"), D("0.5"), D("0.50"))
    assert book.cost(Side.SELL, 15) == Cost(D(15), D("7.4"), D("7.4") / 15, D("0.48"))
    assert book.cost(Side.SELL, 16) is None


@pytest.mark.parametrize("size", [0, "0.00", -1, "-0.01", 1.0, True, None, "NaN", D("Infinity"), "x", "1e400"])
def test_cost_refuses_what_is_no_size(size: Any) -> None:
    with pytest.raises(InvalidOrder, match="size"):
        filled().cost(Side.BUY, size)


def test_cost_names_the_neighbours_of_an_off_grid_size() -> None:
    with pytest.raises(InvalidOrder, match=r"10\.00 and 10\.01"):
        filled().cost(Side.BUY, "10.005")


def test_size_for_is_floored_and_bounded_by_the_depth() -> None:
    book = filled([(50, 1000), (48, 500)], [(53, 2000), (60, 100)])
    assert book.size_for(Side.BUY, "10.6") == 20
    assert book.size_for(Side.BUY, "10.599999999999999999") == D("19.99")
    assert book.size_for(Side.BUY, "10.61") == D("20.01"), "the rest at 0.60, floored to 0.01"
    assert book.size_for(Side.BUY, "0.0052") == 0
    assert book.size_for(Side.BUY, "0.0053") == D("0.01")
    assert book.size_for(Side.BUY, 1_000_000) == 21
    assert book.size_for(Side.SELL, 5) == 10
    assert book.size_for(Side.SELL, "5.24") == D("10.5")
    assert book.size_for(Side.BUY, 0) == 0


@pytest.mark.parametrize("amount", [-1, "-0.01", 1.0, False, None, "NaN", D("-Infinity"), "x"])
def test_size_for_refuses_what_is_no_amount(amount: Any) -> None:
    with pytest.raises(InvalidOrder, match="amount"):
        filled().size_for(Side.BUY, amount)


def test_a_copy_is_frozen_in_time() -> None:
    book = filled()
    book.generation = 3
    watch = Watch(book)
    kept = book.copy()
    before = contents(kept)
    book.set(BID, 51, 100)
    book.add(ASK, 53, -2000)
    book.touch(2, 20)
    book.expire("gap")
    assert contents(kept) == before
    assert (kept.valid, kept.venue_ms, kept.received_ns, kept.epoch, kept.generation) == (True, 1, 10, 1, 3)
    assert kept.size_units(ASK, 53) == 2000
    kept.set(ASK, 53, 0)
    kept.expire("mine")
    assert watch.seen == [(False, "gap")], "the copy tells nobody"
    assert book.size_units(BID, 51) == 100


def test_repr_is_short_and_never_raises() -> None:
    assert repr(filled()) == "<OrderBook polymarket 0xabc UP 0.50 x 10.00 / 0.53 x 20.00 valid>"
    assert repr(make()) == "<OrderBook polymarket 0xabc UP None x None / None x None invalid: no snapshot yet>"
    assert "not made" in repr(OrderBook.__new__(OrderBook))
    hostile = OrderBook(venue="v", market_id="\x1b[2J\n\u202e" * 50, outcome="9" * 77)
    hostile.expire("\x1b]0;" * 100)
    assert repr(hostile).isascii()
    assert repr(hostile).isprintable()
    assert len(repr(hostile)) < 250


# -- recordings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixed_20260428T1404Z_6min", "mixed_20260429T0210Z_30min"])
def test_recorded_polymarket_books_follow_the_best_prices_of_the_venue(recordings: Path, name: str) -> None:
    path = recordings / "polymarket" / "sessions" / f"{name}.jsonl.gz"
    ticks, books, compared = price_ticks(10), dict[str, OrderBook](), 0
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if row["source"] != "polymarket_clob":
                continue
            payload = json.loads(row["payload"])
            for frame in payload if isinstance(payload, list) else [payload]:
                now, received = int(frame["timestamp"]) if "timestamp" in frame else 0, row["recv_mono_ns"]
                if "bids" in frame:
                    token = frame["asset_id"]
                    book = books.setdefault(
                        token,
                        OrderBook(venue="polymarket", market_id=frame["market"], outcome="", token_id=token, unit=10),
                    )
                    book.snapshot(
                        ((ticks[level["price"]], size_units(float(level["size"]), 100)) for level in frame["bids"]),
                        ((ticks[level["price"]], size_units(float(level["size"]), 100)) for level in frame["asks"]),
                        now,
                        received,
                    )
                    assert book.valid
                    assert len(book.levels("BID")) == len(frame["bids"])
                    assert len(book.levels("ASK")) == len(frame["asks"])
                for change in frame.get("price_changes", []):
                    book = books[change["asset_id"]]
                    side = BID if change["side"] == "BUY" else ASK
                    book.set(side, ticks[change["price"]], size_units(change["size"], 100))
                    book.touch(now, received)
                    assert book.valid, book.reason
                    assert book.best_bid == D(change["best_bid"])
                    assert book.best_ask == D(change["best_ask"])
                    compared += 1
    assert compared == {"mixed_20260428T1404Z_6min": 16, "mixed_20260429T0210Z_30min": 80}[name]


def test_recorded_kalshi_deltas_equal_a_plain_sum(recordings: Path) -> None:
    path = recordings / "kalshi" / "sessions" / "ws_orderbook_20260701T0231Z_first180s.jsonl.gz"
    ticks = price_ticks(10)
    books: dict[str, OrderBook] = {}
    sums: dict[str, dict[tuple[int, Decimal], Decimal]] = {}
    deltas = 0
    with gzip.open(path, "rt") as lines:
        for line in lines:
            frame = json.loads(line)
            message = frame["msg"]
            if frame["type"] == "orderbook_snapshot":
                ticker = message["market_ticker"]
                book = books[ticker] = OrderBook(venue="kalshi", market_id=ticker, outcome="YES", unit=10)
                yes, no = message.get("yes_dollars_fp", []), message.get("no_dollars_fp", [])
                book.snapshot(
                    [(ticks[price], size_units(size, 100)) for price, size in yes],
                    [(1000 - ticks[price], size_units(float(size), 100)) for price, size in no],
                    0,
                    1,
                )
                sums[ticker] = {(BID, D(price)): D(size) for price, size in yes}
                sums[ticker] |= {(ASK, 1 - D(price)): D(size) for price, size in no}
            elif frame["type"] == "orderbook_delta":
                ticker, price, delta = message["market_ticker"], message["price_dollars"], message["delta_fp"]
                book, plain = books[ticker], sums[ticker]
                side, tick = (BID, ticks[price]) if message["side"] == "yes" else (ASK, 1000 - ticks[price])
                assert book.add(side, tick, delta_units(float(delta), 100))
                book.touch(message["ts_ms"], message["ts_ms"] * 1_000_000)
                key = (side, D(price) if side == BID else 1 - D(price))
                plain[key] = plain.get(key, D(0)) + D(delta)
                bids = [price for (where, price), size in plain.items() if where == BID and size]
                asks = [price for (where, price), size in plain.items() if where == ASK and size]
                assert book.best_bid == max(bids, default=None)
                assert book.best_ask == min(asks, default=None)
                assert book.size_at(key[1], ("BID", "ASK")[side]) == plain[key]
                deltas += 1
    assert deltas == 1790
    for ticker, book in books.items():
        rest = {(BID, level.price): level.size for level in book.levels("BID")}
        rest |= {(ASK, level.price): level.size for level in book.levels("ASK")}
        assert rest == {key: size for key, size in sums[ticker].items() if size}


# -- memory ---------------------------------------------------------------------------------------------------------


def test_a_fine_book_is_no_larger_than_that_of_ccxt() -> None:
    from benchmarks.book import ccxt_book, deep_size, full_book

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = ccxt_book()
    book = full_book(unit=10)
    assert len(book.levels("BID")) == len(book.levels("ASK")) == 60
    # The finest grid of 2 x 10,000 prices must not cost by the tick either.
    assert deep_size(book) < 16 * 1024
    assert deep_size(full_book(unit=1)) < 36 * 1024
    if peer is None:
        pytest.skip("ccxt is not installed: the bounds in bytes hold, the comparison was not made")
    assert deep_size(book) <= deep_size(peer)


def test_memory_stays_flat_under_churn() -> None:
    from benchmarks.book import deep_size, full_book

    book = full_book(unit=10)
    start = deep_size(book)
    for n in range(20_000):
        book.set(n & 1, 1 + (n * 7919) % 998, 0 if n % 3 else 10**6 + n)
        book.set(n & 1, 1 + ((n - 40) * 7919) % 998, 0)
        book.touch(n, n)
    assert deep_size(book) <= 2 * start
