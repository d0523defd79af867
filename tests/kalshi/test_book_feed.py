"""Frames to books: recorded sessions, and the failure modes of a numbered stream of signed changes."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pmkit.exchanges.kalshi.book_feed import CONTROL, UNKNOWN, UNPARSED, BookFeed
from pmkit.exchanges.kalshi.book_pair import BookPair
from tests.kalshi.frames import T0_NS, NaiveBook, T, U, delta, encode, feed_of, levels, snapshot, subscribed

SESSION = "ws_orderbook_20260701T0231Z_first180s.jsonl.gz"


def lines(path: Path) -> list[bytes]:
    with gzip.open(path) as file:
        return [line for line in file.read().splitlines() if line.strip()]


@pytest.fixture(scope="module")
def session(recordings: Path) -> list[bytes]:
    return lines(recordings / "kalshi" / "sessions" / SESSION)


@pytest.fixture(scope="module")
def rest_books(recordings: Path) -> dict[str, dict[str, Any]]:
    """ticker -> orderbook_fp of the REST books that were recorded beside the session."""
    books: dict[str, dict[str, Any]] = {}
    for line in lines(recordings / "kalshi" / "samples" / "rest_orderbook_positions_20260701.jsonl.gz"):
        row = json.loads(line)
        if row["url"].endswith("/orderbook"):
            books[row["url"].split("/")[-2]] = json.loads(row["response_body"])["orderbook_fp"]
    return books


def started(*tickers: str) -> tuple[BookFeed, list[tuple[tuple[str, ...], str]]]:
    """Subscribed, with a first snapshot of each: YES 0.40 x 10 and 0.41 x 5, NO 0.50 x 7 (YES ask 0.50)."""
    feed, asked = feed_of(*(tickers or (T,)))
    assert feed.apply(subscribed(), T0_NS) == 0
    for number, ticker in enumerate(tickers or (T,)):
        frame = snapshot(number + 1, [("0.4000", "10.00"), ("0.4100", "5.00")], [("0.5000", "7.00")], ticker=ticker)
        assert feed.apply(frame, T0_NS) == 1
    return feed, asked


def test_recorded_session_replays_without_a_fault(session: list[bytes], rest_books: dict[str, Any]) -> None:
    feed, asked = feed_of(*rest_books)
    naive = {ticker: NaiveBook() for ticker in rest_books}
    snapshots: dict[str, dict[str, Any]] = {}
    applied = 0
    for number, line in enumerate(session):
        frame = json.loads(line)
        changed = feed.apply(line, T0_NS + number)
        applied += changed
        msg = frame["msg"]
        if frame["type"] == "orderbook_snapshot":
            snapshots[msg["market_ticker"]] = msg
            naive[msg["market_ticker"]].load(msg)
        elif frame["type"] == "orderbook_delta":
            naive[msg["market_ticker"]].change(msg)
        else:
            assert changed == 0
            continue
        assert changed == 1
        pair = feed.pairs[msg["market_ticker"]]
        assert pair.yes.valid, pair.yes.reason
        assert pair.no.valid
        if number % 25 == 0 or number > len(session) - 10:
            assert levels(pair.yes) == naive[pair.ticker].yes()
            assert levels(pair.no) == naive[pair.ticker].no()
    assert applied == 1795
    assert not asked
    assert feed.frames == len(session) == 1801
    assert feed.applied == applied
    for counter in ("unparsed", "seq_gaps", "duplicates", "restarts", "negative", "crossed", "refused", "dropped"):
        assert getattr(feed, counter) == 0, counter
    assert feed.foreign == 0
    assert not feed.unknown
    # The REST books recorded beside the session are the very snapshots of the socket.
    assert set(snapshots) == set(rest_books)
    assert len(rest_books) == 5
    for ticker, depth in rest_books.items():
        ours, theirs = BookPair(ticker, 10), BookPair(ticker, 10)
        ours.load(snapshots[ticker].get("yes_dollars_fp", ()), snapshots[ticker].get("no_dollars_fp", ()), 0, 0)
        theirs.load(depth.get("yes_dollars") or (), depth.get("no_dollars") or (), 0, 0)
        assert levels(ours.yes) == levels(theirs.yes)
        assert ours.holds(depth.get("yes_dollars") or (), depth.get("no_dollars") or ())


def test_recorded_session_with_the_control_replies_left_out_is_a_gap(session: list[bytes]) -> None:
    """The `ok` replies take numbers of their own: whoever does not count them sees gaps where there are none."""
    tickers = {json.loads(line)["msg"]["market_ticker"] for line in session if b"orderbook_snapshot" in line}
    feed, asked = feed_of(*tickers)
    for line in session:
        if b'"type":"ok"' not in line:
            feed.apply(line, T0_NS)
    assert feed.seq_gaps == 2
    assert asked


def test_ok_replies_are_in_the_sequence(session: list[bytes]) -> None:
    numbers = [frame["seq"] for frame in map(json.loads, session) if frame.get("sid") == 1 and "seq" in frame]
    assert numbers == list(range(1, 1800))


def test_both_outcomes_mirror_each_other() -> None:
    feed, _ = started()
    feed.apply(delta(2, "no", "0.5500", "3.00"), T0_NS)
    feed.apply(delta(3, "yes", "0.4100", "-5.00"), T0_NS)
    yes, no = feed.pairs[T].yes, feed.pairs[T].no
    assert levels(yes) == (
        {Decimal("0.400"): Decimal("10.00")},
        {Decimal("0.450"): Decimal("3.00"), Decimal("0.500"): Decimal("7.00")},
    )
    assert levels(no) == (
        {Decimal("0.550"): Decimal("3.00"), Decimal("0.500"): Decimal("7.00")},
        {Decimal("0.600"): Decimal("10.00")},
    )
    assert (yes.best_bid, yes.best_ask, no.best_bid, no.best_ask) == (
        Decimal("0.400"),
        Decimal("0.450"),
        Decimal("0.550"),
        Decimal("0.600"),
    )
    assert yes.token_id == f"{T}:YES"
    assert no.token_id == f"{T}:NO"
    assert yes.venue_ms == no.venue_ms == 1_795_176_000_000


@pytest.mark.parametrize(
    ("yes", "no"), [([], []), (None, None), ([("0.0100", "1.00")], None), (None, [("0.9900", "2")])]
)
def test_md_22_empty_sides_are_missing_in_snapshots(yes: Any, no: Any) -> None:
    feed, _ = feed_of(T)
    feed.apply(subscribed(), T0_NS)
    assert feed.apply(snapshot(17, yes, no), T0_NS) == 1
    book = feed.pairs[T].yes
    assert book.valid
    assert (book.best_bid is None) is (not yes)
    assert (book.best_ask is None) is (not no)
    assert book.mid is None


@pytest.mark.parametrize("first", [1, 2, 17])
def test_a_sequence_may_begin_anywhere(first: int) -> None:
    feed, asked = feed_of(T)
    feed.apply(subscribed(), T0_NS)
    assert feed.apply(snapshot(first, [("0.40", "1")]), T0_NS) == 1
    assert feed.apply(delta(first + 1, "yes", "0.40", "1"), T0_NS) == 1
    assert not asked


def test_md_07_a_gap_invalidates_every_book_of_the_subscription_until_its_snapshot() -> None:
    feed, asked = started(T, U)
    assert feed.apply(delta(4, "yes", "0.4000", "1.00"), T0_NS) == 0  # 3 is missing
    assert feed.seq_gaps == 1
    for ticker in (T, U):
        assert not feed.pairs[ticker].yes.valid
        assert not feed.pairs[ticker].no.valid
        assert feed.pairs[ticker].yes.reason == "sequence gap"
    assert asked == [((T, U), "sequence gap")]
    assert feed.apply(delta(5, "yes", "0.4000", "1.00"), T0_NS) == 0  # in order, but of a book that waits
    assert feed.dropped == 1
    assert feed.apply(snapshot(6, [("0.3000", "2.00")]), T0_NS) == 1
    assert feed.pairs[T].yes.valid
    assert not feed.pairs[U].yes.valid
    assert feed.apply(delta(7, "yes", "0.3000", "1.00"), T0_NS) == 1
    assert levels(feed.pairs[T].yes)[0] == {Decimal("0.300"): Decimal("3.00")}
    assert feed.seq_gaps == 1


def test_md_07_a_snapshot_across_a_gap_is_not_trusted_either() -> None:
    feed, asked = started(T)
    assert feed.apply(snapshot(9, [("0.30", "2")]), T0_NS) == 0
    assert not feed.pairs[T].yes.valid
    assert asked


def test_md_09_a_repeat_is_ignored_and_counted() -> None:
    feed, asked = started()
    change = delta(2, "yes", "0.4000", "1.00")
    assert feed.apply(change, T0_NS) == 1
    assert feed.apply(change, T0_NS) == 0
    assert feed.apply(change, T0_NS) == 0
    assert feed.duplicates == 2
    assert feed.pairs[T].yes.valid
    assert feed.apply(delta(3, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert levels(feed.pairs[T].yes)[0][Decimal("0.400")] == Decimal("12.00")
    assert not asked


def test_md_09_a_long_run_of_lower_numbers_is_a_new_count() -> None:
    feed, asked = started()
    for seq in range(2, 51):
        assert feed.apply(delta(seq, "yes", "0.4000", "1.00"), T0_NS) == 1
    for seq in range(2, 7):
        assert feed.apply(delta(seq, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert feed.restarts == 1
    assert asked == [((T,), "sequence restarted")]
    assert not feed.pairs[T].yes.valid
    assert feed.apply(snapshot(7, [("0.3000", "2.00")]), T0_NS) == 1
    assert feed.apply(delta(8, "yes", "0.3000", "1.00"), T0_NS) == 1
    assert feed.pairs[T].yes.valid


def test_md_09_a_new_count_that_overtakes_the_old_one_is_noticed() -> None:
    feed, asked = started()
    for seq in (2, 3, 4):
        feed.apply(delta(seq, "yes", "0.4000", "1.00"), T0_NS)
    for seq in (2, 3, 4):  # these are new changes, not repeats: the count began anew
        assert feed.apply(delta(seq, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert feed.apply(delta(5, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert not feed.pairs[T].yes.valid
    assert asked == [((T,), "sequence restarted")]


def test_md_10_swapped_frames_are_a_gap_and_the_late_one_is_dropped() -> None:
    feed, asked = started()
    assert feed.apply(delta(3, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert feed.apply(delta(2, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert (feed.seq_gaps, feed.duplicates) == (1, 1)
    assert asked == [((T,), "sequence gap")]
    assert feed.apply(snapshot(4, [("0.4000", "12.00")]), T0_NS) == 1
    assert feed.pairs[T].yes.valid


def test_md_10_a_late_snapshot_is_never_applied() -> None:
    feed, asked = started(T, U)
    for seq in (3, 4, 5):
        feed.apply(delta(seq, "yes", "0.4000", "1.00"), T0_NS)
    assert feed.apply(snapshot(1, [("0.9000", "1.00")]), T0_NS) == 0
    assert not feed.pairs[T].yes.valid
    assert asked == [((T, U), "a snapshot out of order")]


def test_control_replies_count_and_late_ones_are_ignored() -> None:
    feed, asked = started()
    ok = {"type": "ok", "id": 3, "sid": 1, "seq": 2, "msg": {"market_tickers": [T]}}
    assert feed.receive(encode(ok), T0_NS) == CONTROL
    assert feed.apply(delta(3, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert feed.receive(encode({**ok, "seq": 1}), T0_NS) == CONTROL
    error = {"type": "error", "id": 9, "msg": {"code": 8, "msg": "Unknown channel name"}}
    assert feed.receive(encode(error), T0_NS) == CONTROL
    assert feed.apply(delta(4, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert feed.duplicates == 0
    assert feed.pairs[T].yes.valid
    assert feed.receive(encode({**ok, "seq": 9}), T0_NS) == CONTROL  # a reply from the future: something is missing
    assert asked == [((T,), "sequence gap")]


@pytest.mark.parametrize("code", [10, 25])
@pytest.mark.parametrize("with_sid", [True, False])
def test_an_ended_subscription_ends_its_books(code: int, with_sid: bool) -> None:
    feed, _ = started(T, U)
    error: dict[str, Any] = {"type": "error", "msg": {"code": code, "msg": "Subscription buffer overflow"}}
    if with_sid:
        error |= {"sid": 1, "seq": 3}
    assert feed.receive(encode(error), T0_NS) == CONTROL
    for ticker in (T, U):
        assert not feed.pairs[ticker].yes.valid
        assert f"code {code}" in feed.pairs[ticker].no.reason
    assert feed.sid_of("orderbook_delta") is None
    assert feed.apply(delta(3 + with_sid, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert feed.foreign == 1
    feed.apply(subscribed(2), T0_NS)
    assert feed.apply(snapshot(1, [("0.30", "1")], sid=2), T0_NS) == 1
    assert feed.pairs[T].yes.valid


def test_ro_03_frames_of_others_are_dropped_and_counted_but_count() -> None:
    feed, asked = started()
    assert feed.apply(delta(2, "yes", "0.4000", "1.00", ticker="KXOLD15M-26NOV202000-00"), T0_NS) == 0
    assert feed.apply(snapshot(3, [("0.1", "1")], ticker="KXOLD15M-26NOV202000-00"), T0_NS) == 0
    assert feed.apply(delta(4, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert feed.foreign == 2
    assert not asked


def test_a_second_subscription_does_not_apply_changes_twice() -> None:
    feed, _ = started()
    feed.apply(subscribed(2), T0_NS)
    feed.apply(snapshot(1, [("0.3000", "1.00")], sid=2), T0_NS)
    assert feed.apply(delta(2, "yes", "0.3000", "1.00", sid=2), T0_NS) == 1
    assert feed.apply(delta(2, "yes", "0.3000", "1.00", sid=1), T0_NS) == 0
    assert levels(feed.pairs[T].yes)[0] == {Decimal("0.300"): Decimal("2.00")}


def test_frames_of_a_subscription_that_nobody_announced_do_not_replace_a_known_one() -> None:
    feed, _ = started()
    assert feed.apply(snapshot(1, [("0.9000", "1.00")], sid=7), T0_NS) == 0
    assert feed.pairs[T].yes.best_bid == Decimal("0.410")


def test_a_level_below_zero_is_a_wrong_book() -> None:
    feed, asked = started(T, U)
    assert feed.apply(delta(3, "yes", "0.4000", "-10.01"), T0_NS) == 0
    assert feed.negative == 1
    assert asked == [((T,), "negative level")]
    assert feed.pairs[T].no.reason == "negative level"
    assert feed.pairs[U].yes.valid
    assert feed.apply(delta(4, "no", "0.6000", "-1.00", ticker=U), T0_NS) == 0
    assert feed.negative == 2


def test_md_08_a_cross_of_one_message_is_no_resync() -> None:
    feed, asked = started()
    crosses: list[BookPair] = []
    feed.on_crossed = crosses.append
    feed.apply(delta(2, "no", "0.6000", "1.00"), T0_NS)  # YES ask 0.40 under the bid of 0.41
    yes, no = feed.pairs[T].yes, feed.pairs[T].no
    assert (yes.valid, no.valid, yes.reason) == (False, False, "crossed")
    feed.apply(delta(3, "no", "0.6000", "-1.00"), T0_NS + 5)
    assert yes.valid
    assert no.valid
    assert feed.crossed == len(crosses) == 1
    assert not asked


def test_md_12_a_snapshot_replaces_the_book() -> None:
    feed, _ = started()
    feed.reset("disconnected: test")
    assert not feed.pairs[T].yes.valid
    feed.begin(2)
    feed.apply(subscribed(1), T0_NS)
    feed.apply(snapshot(1, [("0.2000", "1.00")], None), T0_NS)
    assert levels(feed.pairs[T].yes) == ({Decimal("0.200"): Decimal("1.00")}, {})
    assert feed.pairs[T].yes.generation == 2


def test_md_11_a_lost_connection_makes_every_book_invalid_at_once() -> None:
    feed, _ = started(T, U)
    seen: list[tuple[str, bool]] = []
    for ticker in (T, U):
        feed.pairs[ticker].listeners.append(lambda books: seen.extend((book.token_id, book.valid) for book in books))
    feed.reset("disconnected: gone")
    assert sorted(seen) == sorted((f"{ticker}:{outcome}", False) for ticker in (T, U) for outcome in ("YES", "NO"))
    assert feed.apply(delta(3, "yes", "0.4000", "1.00"), T0_NS) == 0
    assert not feed.pairs[T].yes.valid


BROKEN = [
    b"",
    b"PONG",
    b"\x00\xff\xfe",
    b"null",
    b"[]",
    b"12",
    b'{"type":"orderbook_delta","sid":1,"seq":2,',
    b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"X","price_dollars":"0.4","delta_fp":NaN,"side":"yes"}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("frame", BROKEN, ids=lambda frame: ascii(frame[:12]))
def test_md_18_what_is_no_frame_is_counted_and_puts_the_books_in_doubt(frame: bytes) -> None:
    feed, asked = started()
    assert feed.receive(frame, T0_NS) == UNPARSED
    assert feed.unparsed == 1
    # It may have been a change: not valid until the next number shows that nothing was missed.
    assert feed.pairs[T].yes.reason == "a frame could not be read"
    assert feed.apply(delta(2, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert feed.pairs[T].yes.valid
    assert feed.pairs[T].no.valid
    assert not asked
    feed.receive(frame, T0_NS)
    assert feed.apply(delta(4, "yes", "0.4000", "1.00"), T0_NS) == 0  # 3 was the broken one
    assert not feed.pairs[T].yes.valid
    assert asked == [((T,), "sequence gap")]


def without(frame: bytes, *path: str) -> bytes:
    document = json.loads(frame)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return encode(document)


@pytest.mark.parametrize(
    "path",
    [("msg", "price_dollars"), ("msg", "delta_fp"), ("msg", "side"), ("msg", "market_ticker"), ("msg",), ("seq",)],
)
def test_md_23_a_known_type_that_does_not_fit_is_loud(path: tuple[str, ...]) -> None:
    feed, asked = started()
    assert feed.receive(without(delta(2, "yes", "0.4000", "1.00"), *path), T0_NS) == UNPARSED
    assert feed.unparsed == 1
    assert not feed.pairs[T].yes.valid
    assert asked == [((T,), "a frame could not be read")]


def test_md_23_the_old_shape_with_cents_is_loud() -> None:
    feed, asked = started()
    old = {"market_ticker": T, "price": 96, "delta": -54, "side": "yes"}
    assert feed.receive(encode({"type": "orderbook_delta", "sid": 1, "seq": 2, "msg": old}), T0_NS) == UNPARSED
    assert asked


@pytest.mark.parametrize(
    "renamed",
    [
        {"yes": [[8, 300]], "no": [[54, 20]]},  # the shape of 2025
        {"no_dollars_fp": [["0.5400", "20.00"]], "yes_dollars_v2": [["0.0800", "300.00"]]},
        {"bids": [], "asks": []},
    ],
)
def test_md_23_a_side_under_another_name_is_not_an_empty_side(renamed: dict[str, Any]) -> None:
    feed, asked = started()
    whole = {"market_ticker": T, "market_id": "9b0f", **renamed}
    feed.receive(encode({"type": "orderbook_snapshot", "sid": 1, "seq": 2, "msg": whole}), T0_NS)
    assert not feed.pairs[T].yes.valid and not feed.pairs[T].no.valid
    assert asked == [((T,), "a snapshot that cannot be")] and feed.refused == 1
    # A side that is missing, beside new fields that are no lists, has no orders.
    fine = {"market_ticker": T, "market_id": "9b0f", "no_dollars_fp": [["0.5400", "20.00"]], "new": {"a": [1]}}
    feed.receive(encode({"type": "orderbook_snapshot", "sid": 1, "seq": 3, "msg": fine}), T0_NS)
    assert feed.pairs[T].yes.valid and feed.pairs[T].yes.best_bid is None


def test_md_19_new_types_and_fields_are_no_fault() -> None:
    feed, asked = started()
    rich = json.loads(delta(2, "yes", "0.4000", "1.00"))
    rich |= {"sending_ts_ms": 1, "trace": {"a": [1, 2]}}
    rich["msg"] |= {"client_order_id": "x", "subaccount": 3, "new_field": None}
    assert feed.apply(encode(rich), T0_NS) == 1
    assert feed.receive(encode({"type": "orderbook_hint", "sid": 1, "seq": 3, "msg": {}}), T0_NS) == UNKNOWN
    assert feed.last_unknown == "orderbook_hint"
    assert feed.receive(encode({"type": "user_order", "sid": 9, "msg": {}}), T0_NS) == UNKNOWN
    assert feed.last_unknown == ""
    # On a book's own subscription it may be a change under another name: the books are read anew, once per type.
    assert asked == [((T,), "a message of an unknown type")] and not feed.pairs[T].yes.valid
    feed.apply(snapshot(4, [("0.4000", "1.00")]), T0_NS)  # the unknown one had number 3
    assert feed.receive(encode({"type": "orderbook_hint", "sid": 1, "seq": 5, "msg": {}}), T0_NS) == UNKNOWN
    assert feed.apply(delta(6, "yes", "0.4000", "1.00"), T0_NS) == 1
    assert feed.pairs[T].yes.valid
    assert dict(feed.unknown) == {"orderbook_hint": 2}
    assert len(asked) == 1
    for number in range(1000):
        feed.receive(encode({"type": f"junk{number}"}), T0_NS)
    assert len(feed.unknown) < 100


@pytest.mark.parametrize("price", ["0.4", ".4", "0.400", "0.4000", "4e-1"])
@pytest.mark.parametrize("change", ["1.00", "1", 1, 1.0, "1e0"])
def test_md_20_every_spelling_of_a_number_is_the_same(price: str, change: Any) -> None:
    feed, _ = started()
    assert feed.apply(delta(2, "yes", price, change), T0_NS) == 1
    assert levels(feed.pairs[T].yes)[0][Decimal("0.400")] == Decimal("11.00")


@pytest.mark.parametrize(
    ("price", "change"),
    [("0.4", "nan"), ("0.4", "inf"), ("1.4", "1"), ("-0.4", "1"), ("x", "1"), ("0.4", "1.001"), ("0", "1"), ("1", "1")],
)
def test_md_20_what_cannot_be_is_refused_and_the_book_rebuilt(price: str, change: str) -> None:
    feed, asked = started(T, U)
    assert feed.apply(delta(3, "yes", price, change), T0_NS) == 0
    assert feed.refused == 1
    assert not feed.pairs[T].yes.valid
    assert not feed.pairs[T].no.valid
    assert feed.pairs[U].yes.valid
    assert [names for names, _ in asked] == [(T,)]


def test_md_21_a_price_finer_than_the_grid_rebuilds_the_book_on_the_finest() -> None:
    feed, asked = feed_of(T, unit=100)
    feed.apply(subscribed(), T0_NS)
    feed.apply(snapshot(1, [("0.4000", "10.00")]), T0_NS)
    told: list[bool] = []
    feed.pairs[T].listeners.append(lambda books: told.extend(book.valid for book in books))
    assert feed.apply(delta(2, "yes", "0.4010", "1.00"), T0_NS) == 0
    assert asked == [((T,), "price off the grid")]
    assert told
    assert not any(told)
    assert feed.apply(snapshot(3, [("0.4000", "10.00"), ("0.4010", "1.00")], [("0.5985", "2.00")]), T0_NS) == 1
    book = feed.pairs[T].yes
    assert (book.valid, book.unit, book.best_bid, book.best_ask) == (
        True,
        1,
        Decimal("0.4010"),
        Decimal("0.4015"),
    )


def test_md_21_a_snapshot_finer_than_the_grid_is_read_at_once() -> None:
    feed, asked = feed_of(T, unit=100)
    feed.apply(subscribed(), T0_NS)
    assert feed.apply(snapshot(1, [("0.4005", "10.00")]), T0_NS) == 1
    assert feed.pairs[T].yes.best_bid == Decimal("0.4005")
    assert not asked


def test_md_21_regrid_keeps_a_grid_that_is_fine_enough() -> None:
    feed, asked = started()
    feed.regrid(T, 100)
    assert feed.pairs[T].yes.valid
    feed.regrid(T, 1)
    assert not feed.pairs[T].yes.valid
    assert asked == [((T,), "tick size changed")]


@pytest.mark.parametrize(
    "bids", [[("0.4000", "-1.00")], [("0.4000", "nan")], [("1.0000", "1.00")], [("0", "1.00")], [("x", "1.00")]]
)
def test_a_snapshot_that_cannot_be_leaves_no_half_made_book(bids: list[tuple[str, str]]) -> None:
    feed, asked = started()
    told: list[bool] = []
    feed.pairs[T].listeners.append(lambda books: told.extend(book.valid for book in books))
    assert feed.apply(snapshot(2, [("0.1000", "1.00"), *bids], [("0.2000", "1.00")]), T0_NS) == 0
    assert not feed.pairs[T].yes.valid
    assert not feed.pairs[T].no.valid
    assert asked
    assert told
    assert not any(told)


def test_listeners_get_both_books_once_per_change_and_see_them_in_step() -> None:
    feed, _ = started()
    seen: list[tuple[str, bool]] = []
    pair = feed.pairs[T]

    def look(books: Any) -> None:
        in_step = pair.yes.best_bid is None or pair.no.best_ask == 1 - pair.yes.best_bid
        seen.extend((book.outcome, in_step) for book in books)

    pair.listeners.append(look)
    feed.apply(delta(2, "yes", "0.4200", "1.00"), T0_NS)
    assert seen == [("YES", True), ("NO", True)]
    seen.clear()
    feed.apply(snapshot(3, [("0.1", "1")], [("0.2", "1")]), T0_NS)
    assert seen == [("YES", True), ("NO", True)]


def test_the_age_of_messages_is_kept() -> None:
    feed, _ = started()
    feed.apply(delta(2, "yes", "0.4200", "1.00", ts_ms=T0_NS // 1_000_000 - 8_000), T0_NS)
    assert feed.lag_ms == 8_000


def test_trades_count_per_subscription_and_a_gap_is_told() -> None:
    feed, _ = started()
    events: list[Any] = []
    missed: list[str] = []
    feed.on_event = lambda frame, received_ns: events.append(frame)
    feed.on_missed = missed.append
    row = {"trade_id": "a", "market_ticker": T, "yes_price_dollars": "0.36", "count_fp": "1.00", "ts_ms": 1}
    for seq in (5, 6, 6, 9):
        assert feed.receive(encode({"type": "trade", "sid": 2, "seq": seq, "msg": row}), T0_NS) == 0
    feed.receive(encode({"type": "trade", "sid": 2, "msg": row}), T0_NS)
    assert len(events) == 4
    assert missed == ["trade"]
    assert feed.pairs[T].yes.valid
