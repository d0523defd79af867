"""Frames to books: recorded sessions, and everything that can be wrong with a frame or with the order of frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pmkit.exchanges.numbers import price_ticks
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.book_feed import BookFeed
from pmkit.exchanges.polymarket.live_book import GRACE_NS, LATE_RUN, PARKED_LIMIT, listen, touch_texts, unlisten
from pmkit.exchanges.polymarket.messages import RestBook
from pmkit.exchanges.types import Side
from tests.polymarket.frames import (
    DOWN,
    MARKET,
    SESSIONS,
    T0,
    UP,
    book,
    change,
    make_feed,
    markets_of,
    ns,
    price_change,
    raw,
    session_frames,
    tick_change,
    trade,
)


def rest(*, bids: dict[str, str] | None = None, at: int = T0) -> RestBook:
    event = book(bids=bids, at=at)
    del event["event_type"]
    return msgspec.json.decode(json.dumps(event), type=RestBook, strict=False)


def levels(live: OrderBook, side: str) -> list[tuple[str, str]]:
    return [(f"{level.price:f}", f"{level.size.normalize():f}") for level in live.levels(side)]


# -- recorded sessions ------------------------------------------------------------------------------------------------


def test_recorded_sessions_rebuild_to_the_touch_of_every_change(recordings: Path) -> None:
    checks = frames = 0
    for session in SESSIONS:
        feed = BookFeed()
        for market in markets_of(recordings, session):
            for outcome in market["outcomes"]:
                feed.add(outcome["token_id"], market["condition_id"], outcome["outcome"].upper())
        for frame, received_ns in session_frames(recordings, session):
            feed.apply(frame, received_ns)
            frames += 1
            event = json.loads(frame)
            if isinstance(event, dict) and event["event_type"] == "price_change":
                for entry in event["price_changes"]:
                    live = feed.books[entry["asset_id"]].book
                    assert live.valid
                    assert (live.best_bid, live.best_ask) == (Decimal(entry["best_bid"]), Decimal(entry["best_ask"]))
        assert (feed.garbage, feed.unparsed, feed.unknown, feed.strangers) == (0, 0, {}, 0)
        assert (feed.best_failures, feed.crossed, feed.late, feed.lost) == (0, 0, 0, 0)
        assert all(live.book.valid for live in feed.books.values())
        checks += feed.best_checks
    assert checks == 100
    assert frames > 100


def test_a_recorded_book_is_what_json_and_decimal_make_of_it(recordings: Path) -> None:
    session = SESSIONS[1]
    feed = BookFeed()
    for market in markets_of(recordings, session):
        for outcome in market["outcomes"]:
            feed.add(outcome["token_id"], market["condition_id"], outcome["outcome"].upper())
    naive: dict[str, dict[str, dict[Decimal, Decimal]]] = {}
    for frame, received_ns in session_frames(recordings, session):
        feed.apply(frame, received_ns)
        content = json.loads(frame)
        for event in content if isinstance(content, list) else [content]:
            if event["event_type"] == "book":
                naive[event["asset_id"]] = {
                    side: {Decimal(level["price"]): Decimal(level["size"]) for level in event[side]}
                    for side in ("bids", "asks")
                }
            for entry in event.get("price_changes", ()):
                side = naive[entry["asset_id"]]["bids" if entry["side"] == "BUY" else "asks"]
                side[Decimal(entry["price"])] = Decimal(entry["size"])
    for token, sides in naive.items():
        for side, name in (("BID", "bids"), ("ASK", "asks")):
            held = {level.price: level.size for level in feed.books[token].book.levels(side)}
            assert held == {price: size for price, size in sides[name].items() if size}


# -- plain messages ---------------------------------------------------------------------------------------------------


def test_a_snapshot_and_changes() -> None:
    feed, _ = make_feed(book(), book(DOWN, {"0.48": "25"}, {"0.52": "30"}))
    up = feed.books[UP].book
    assert up.valid
    assert (up.best_bid, up.best_ask) == (Decimal("0.49"), Decimal("0.52"))
    frame = raw(
        price_change(
            change("0.50", "7.5", "BUY", "0.5", "0.52"),
            change("0.49", "0", "BUY", "0.5", "0.52"),
            change("0.50", "7.5", "SELL", "0.48", "0.5", DOWN),
            at=T0 + 5,
        )
    )
    assert feed.apply(frame, ns(T0 + 9)) == 3
    assert levels(up, "BID") == [("0.50", "7.5"), ("0.48", "30")]
    assert levels(feed.books[DOWN].book, "ASK") == [("0.50", "7.5"), ("0.52", "30")]
    assert (up.venue_ms, up.received_ns) == (T0 + 5, ns(T0 + 9))
    assert (feed.best_checks, feed.best_failures, feed.applied) == (2, 0, 5)
    assert up.cost(Side.BUY, "25") is not None


def test_sinks_see_both_books_of_a_message_after_all_of_it() -> None:
    feed, _ = make_feed(book(), book(DOWN, {"0.48": "25"}, {"0.52": "30"}))
    seen: list[tuple[str, Decimal | None, Decimal | None]] = []

    def sink(changed: Sequence[OrderBook]) -> None:
        seen.extend((one.outcome, feed.books[UP].book.best_bid, feed.books[DOWN].book.best_ask) for one in changed)

    listen(feed.books.values(), sink)
    changes = (change("0.5", "1", "BUY", "0.5", "0.52"), change("0.5", "1", "SELL", "0.48", "0.5", DOWN))
    feed.apply(raw(price_change(*changes)), ns())
    half = Decimal("0.5")
    assert seen == [("UP", half, half), ("DOWN", half, half)]


def test_sinks_get_the_books_of_a_message_together_and_only_what_they_asked_for() -> None:
    feed, _ = make_feed(book(), book(DOWN, {"0.48": "25"}, {"0.52": "30"}))
    seen: list[tuple[str, list[str]]] = []

    def sink_of(name: str) -> Any:
        return lambda books: seen.append((name, [one.outcome for one in books]))

    both, one, gone = sink_of("both"), sink_of("one"), sink_of("gone")
    for sink in (both, gone, both, gone):  # a sink may be there twice
        listen(feed.books.values(), sink)
    changes = (change("0.5", "1", "BUY", "0.5", "0.52"), change("0.5", "1", "SELL", "0.48", "0.5", DOWN))
    frame = raw(price_change(*changes))
    unlisten(feed.books.values(), gone)
    feed.apply(frame, ns())
    assert seen == [("both", ["UP", "DOWN"]), ("both", ["UP", "DOWN"]), ("gone", ["UP", "DOWN"])]
    seen.clear()
    unlisten(feed.books.values(), gone)
    unlisten(feed.books.values(), both)
    listen([feed.books[DOWN]], one)
    feed.apply(frame, ns())
    assert seen == [("both", ["UP"]), ("both", ["DOWN"]), ("one", ["DOWN"])]


@pytest.mark.parametrize("unit", [1, 10, 25, 50, 100, 1000])
def test_the_usual_text_of_every_touch_names_its_tick(unit: int) -> None:
    ticks = price_ticks(unit)
    bids, asks = touch_texts(unit)
    assert len(bids) == len(asks) == ticks.ticks + 1
    assert (bids[-1], asks[-1]) == ("0", "1")
    for tick in range(1, ticks.ticks):
        assert ticks[bids[tick]] == ticks[asks[tick]] == tick


def test_a_touch_in_another_spelling_is_the_same_touch_and_a_wrong_one_is_still_seen() -> None:
    feed, _ = make_feed(book())
    live = feed.books[UP]
    for best_bid, best_ask, right in (
        *(("0.4900", ".520", True), ("0.4900", ".520", True), ("0.49", "0.52", True)),
        *(("0.4900", "0.530", False), ("0.490", "0.520", True), ("0.47", "0.52", False)),
    ):
        at = live.book.venue_ms + 1
        feed.apply(raw(price_change(change("0.3", "1", "BUY", best_bid, best_ask), at=at)), ns(at))
        assert live.book.valid is right, (best_bid, best_ask)
    assert (feed.best_checks, feed.best_failures) == (6, 2)


@pytest.mark.parametrize(
    ("bids", "asks"),
    [({}, {}), ({"0.4": "1"}, {}), ({}, {"0.6": "1"}), ({"0.4": "1"}, {"0.6": "1"})],
)
@pytest.mark.parametrize(("no_bid", "no_ask"), [("0", "1"), ("", ""), ("0", "0")])
def test_md_22_one_sided_and_empty_books(bids: dict[str, str], asks: dict[str, str], no_bid: str, no_ask: str) -> None:
    feed, _ = make_feed(book(bids={"0.4": "1"}, asks={"0.6": "1"}))
    bid, ask = (next(iter(bids), no_bid), next(iter(asks), no_ask))
    gone = [change("0.4", "0", "BUY", bid, ask)] * (not bids) + [change("0.6", "0", "SELL", bid, ask)] * (not asks)
    feed.apply(raw(price_change(*gone or [change("0.3", "0", "BUY", bid, ask)])), ns())
    up = feed.books[UP].book
    assert up.valid
    assert feed.best_failures == 0
    assert (up.best_bid is None) is (not bids)
    assert (up.best_ask is None) is (not asks)
    assert (up.mid is None) is (not bids or not asks)


def test_md_12_a_snapshot_replaces_the_whole_book() -> None:
    feed, _ = make_feed()
    feed.apply(raw(book(bids={"0.10": "1"}, asks={"0.90": "2"}, at=T0 + 1)), ns())
    up = feed.books[UP].book
    assert levels(up, "BID") == [("0.10", "1")]
    assert levels(up, "ASK") == [("0.90", "2")]


def test_md_09_a_repeated_change_changes_nothing() -> None:
    feed, _ = make_feed()
    frame = raw(price_change(change("0.50", "7", "BUY", "0.5", "0.52")))
    feed.apply(frame, ns())
    before = levels(feed.books[UP].book, "BID")
    feed.apply(frame, ns())
    assert levels(feed.books[UP].book, "BID") == before
    assert feed.books[UP].book.valid


def test_changes_before_the_first_book_mean_nothing() -> None:
    feed = BookFeed()
    up = feed.add(UP, MARKET, "UP")
    feed.apply(raw(price_change(change("0.5", "7", "BUY", "0.5", "1"))), ns())
    assert not up.valid
    assert up.reason == "no snapshot yet"
    feed.apply(raw(book(at=T0 + 3)), ns())
    assert up.valid
    assert up.best_bid == Decimal("0.49")


def test_ro_03_messages_of_assets_nobody_follows_are_counted() -> None:
    feed, told = make_feed()
    feed.remove(DOWN)
    other = "9" * 77
    for event in (
        book(other),
        book(DOWN),
        price_change(change("0.5", "1", "BUY", "0.5", "0.6", other)),
        tick_change("0.001", token=other),
        trade("0.5", "1", "BUY", other),
    ):
        feed.apply(raw(event), ns())
    assert feed.strangers == 5
    assert told.lost == []
    assert feed.books[UP].book.valid


def test_a_book_that_is_removed_becomes_invalid_and_says_so() -> None:
    feed, _ = make_feed()
    up = feed.books[UP].book
    seen: list[str] = []
    listen([feed.books[UP]], lambda books: seen.extend(book.reason for book in books))
    feed.remove(UP)
    assert (up.valid, up.reason, seen) == (False, "not subscribed", ["not subscribed"])


@pytest.mark.parametrize("frame", [b"PONG", b"PING", b"", b"  ", b" PONG\n"])
def test_md_18_keep_alive_texts_are_no_garbage(frame: bytes) -> None:
    feed, told = make_feed()
    feed.apply(frame, ns())
    assert (feed.garbage, told.lost) == (0, [])
    assert feed.books[UP].book.valid


def test_md_18_a_remark_of_the_venue_is_garbage_but_costs_no_book() -> None:
    feed, told = make_feed()
    feed.apply(b"INVALID OPERATION", ns())
    assert (feed.garbage, told.lost) == (1, [])
    assert feed.books[UP].book.valid


@pytest.mark.parametrize(
    "frame",
    [raw(price_change(change("0.5", "7", "BUY", "0.5", "0.52")))[:-3], b"[" * 3000, b'{"a":NaN}', b"[{}", b"x" * 100],
)
def test_md_18_a_cut_frame_may_have_been_a_change_of_any_book(frame: bytes) -> None:
    feed, told = make_feed()
    assert feed.apply(frame, ns()) == 0
    assert feed.garbage == 1
    assert [token for token, _ in told.lost] == [UP]  # DOWN had no book to lose
    assert feed.books[UP].book.reason == "a frame that cannot be read"


def test_md_19_unknown_types_are_counted_by_name_and_bounded() -> None:
    feed, told = make_feed()
    feed.apply(raw(book(at=T0 + 1), {"event_type": "from_the_future", "asset_id": UP}), ns())
    for number in range(100):
        feed.apply(raw({"event_type": f"kind_{number}"}), ns())
    feed.apply(raw({"message": "hello"}), ns())
    assert feed.unknown["from_the_future"] == 1
    assert feed.unknown["(other)"] > 30
    assert len(feed.unknown) <= 66
    assert (feed.garbage, feed.unparsed, told.lost) == (0, 0, [])
    assert feed.books[UP].book.valid
    assert feed.books[UP].book.venue_ms == T0 + 1  # the known event beside the unknown one was applied


LEGACY = {"event_type": "price_change", "asset_id": UP, "changes": [{"price": "0.5", "side": "BUY", "size": "3"}]}


@pytest.mark.parametrize(
    "event",
    [
        LEGACY | {"timestamp": str(T0)},
        {"event_type": "price_change", "timestamp": str(T0 + 1)},
        price_change({key: value for key, value in change("0.5", "1", "BUY", "0.5", "0.52").items() if key != "size"}),
        price_change(change("0.5", "-1", "BUY", "0.5", "0.52")),
        price_change(change("0.5", "NaN", "BUY", "0.5", "0.52")),
        price_change(change("0.5", "inf", "BUY", "0.5", "0.52")),
        price_change(change("0.5", "1e15", "BUY", "0.5", "0.52")),
        price_change(change("five", "1", "BUY", "0.5", "0.52")),
        price_change(change("0", "1", "BUY", "0.5", "0.52")),
        price_change(change("1", "1", "SELL", "0.5", "0.52")),
        price_change(change("1.5", "1", "SELL", "0.5", "0.52")),
        price_change(change("0.00005", "1", "BUY", "0.5", "0.52")),
        price_change(change("0.49", "1", "BUY", "half", "0.52")),
        price_change(change("0.49", "1", "BUY", "0.49", "0.52"), at=17),
        price_change(change("0.49", "1", "BUY", "0.49", "0.52"), at=T0 * 1000),
        {key: value for key, value in book().items() if key != "asks"},
        book(bids={"0.5": "-1"}),
        book(bids={"0": "1"}),
        book(asks={"2": "1"}),
        book(at=0),
        book(tick="NaN"),
        {key: value for key, value in tick_change("0.001").items() if key != "new_tick_size"},
        tick_change("ten"),
    ],
)
def test_md_23_a_known_type_that_does_not_fit_is_loud(event: dict[str, Any]) -> None:
    feed, told = make_feed()
    feed.apply(raw(event), ns())
    assert feed.unparsed == 1
    assert feed.last_error
    assert told.lost
    assert not feed.books[UP].book.valid
    feed.apply(raw(book(at=T0 + 50)), ns(T0 + 50))
    assert feed.books[UP].book.valid


def test_md_23_a_print_that_does_not_fit_is_loud_and_costs_no_book() -> None:
    feed, told = make_feed()
    event = trade("0.5", "1", "BUY")
    del event["size"]
    feed.apply(raw(event), ns())
    assert (feed.unparsed, told.lost) == (1, [])
    assert feed.books[UP].book.valid


def test_one_bad_item_of_an_array_does_not_spoil_the_others() -> None:
    feed, _ = make_feed()
    frame = raw(book(DOWN, {"0.4": "1"}, {"0.6": "1"}, at=T0 + 1), LEGACY | {"timestamp": str(T0 + 1)})
    assert feed.apply(frame, ns()) == 1
    assert feed.books[DOWN].book.valid
    assert not feed.books[UP].book.valid
    assert feed.unparsed == 1


# -- the touch --------------------------------------------------------------------------------------------------------


def test_md_08_another_touch_is_doubted_at_once_and_believed_again_with_the_next_message() -> None:
    feed, told = make_feed()
    up = feed.books[UP].book
    feed.apply(raw(price_change(change("0.47", "1", "BUY", "0.5", "0.52"))), ns(T0 + 1))
    assert (up.valid, up.reason) == (False, "the best prices differ from the venue's")
    assert (feed.best_checks, feed.best_failures, told.lost) == (1, 1, [])
    assert told.doubts == [(UP, 1)]
    feed.apply(raw(price_change(change("0.5", "1", "BUY", "0.5", "0.52"), at=T0 + 2)), ns(T0 + 2))
    assert up.valid
    feed.check(UP, 1)
    assert up.valid  # the doubt of the timer is over


def test_md_08_another_touch_that_stays_costs_the_book() -> None:
    feed, told = make_feed()
    wrong = change("0.47", "1", "BUY", "0.5", "0.52")
    feed.apply(raw(price_change(wrong)), ns(T0 + 1))
    feed.apply(raw(price_change(wrong)), ns(T0 + 1))  # of the same stamp: parts of one event
    assert told.lost == []
    feed.apply(raw(price_change(wrong, at=T0 + 2)), ns(T0 + 2))
    assert told.lost == [(UP, "the best prices differ from the venue's")]
    feed.apply(raw(price_change(change("0.5", "1", "BUY", "0.5", "0.52"), at=T0 + 3)), ns(T0 + 3))
    assert not feed.books[UP].book.valid  # only a new book helps


def test_md_08_another_touch_is_not_waited_for_longer_than_the_grace() -> None:
    feed, told = make_feed()
    feed.apply(raw(price_change(change("0.47", "1", "BUY", "0.5", "0.52"))), ns(T0 + 1))
    feed.check(UP, told.doubts[0][1])
    assert told.lost == [(UP, "the best prices differ from the venue's")]


def test_md_08_a_benign_cross_of_one_message() -> None:
    feed, told = make_feed()
    up = feed.books[UP].book
    feed.apply(raw(price_change(change("0.52", "5", "BUY", "0.52", "0.52"))), ns(T0 + 1))
    assert (up.valid, up.reason, feed.crossed) == (False, "crossed", 1)
    feed.apply(raw(price_change(change("0.52", "0", "SELL", "0.52", "0.53"), at=T0 + 2)), ns(T0 + 2))
    assert up.valid
    assert told.lost == []


def test_md_08_a_lasting_cross_costs_the_book() -> None:
    for late in (True, False):
        feed, told = make_feed()
        feed.apply(raw(price_change(change("0.52", "5", "BUY", "0.52", "0.52"))), ns(T0 + 1))
        still = raw(price_change(change("0.10", "5", "BUY", "0.52", "0.52"), at=T0 + 20))
        feed.apply(still, ns(T0 + 1) + GRACE_NS - 1)
        assert told.lost == []
        if late:
            feed.apply(still, ns(T0 + 1) + GRACE_NS)
        else:
            feed.check(UP, told.doubts[0][1])
        assert told.lost == [(UP, "crossed")]
        assert not feed.books[UP].book.valid


def test_a_crossed_snapshot_is_doubted_too() -> None:
    feed, told = make_feed(book(bids={"0.6": "1"}, asks={"0.5": "1"}))
    assert feed.books[UP].book.reason == "crossed"
    assert told.doubts
    feed.apply(raw(price_change(change("0.6", "0", "BUY", "0", "0.5"))), ns())
    assert feed.books[UP].book.valid


def test_a_missed_removal_is_found_by_the_next_message() -> None:
    # The venue removed 0.49; that message was lost.
    feed, _ = make_feed()
    feed.apply(raw(price_change(change("0.30", "1", "BUY", "0.48", "0.52"))), ns())
    assert not feed.books[UP].book.valid


def test_changes_without_a_touch_are_applied_unchecked() -> None:
    feed, _ = make_feed()
    feed.apply(raw(price_change(change("0.50", "1", "BUY", None, None))), ns())
    assert feed.books[UP].book.valid
    assert feed.best_checks == 0


def test_a_doubt_is_not_cleared_by_a_message_that_says_nothing() -> None:
    feed, _ = make_feed()
    feed.apply(raw(price_change(change("0.47", "1", "BUY", "0.5", "0.52"))), ns())
    feed.apply(raw(price_change(change("0.46", "1", "BUY", None, None), at=T0 + 2)), ns())
    assert not feed.books[UP].book.valid


def test_suspicion_from_outside() -> None:
    feed, _ = make_feed()
    up = feed.books[UP].book
    feed.suspect("silent")
    assert up.reason == "silent"
    feed.confirm()
    assert up.valid
    feed.suspect("silent")
    feed.apply(raw(price_change(change("0.47", "1", "BUY", "0.49", "0.52"))), ns())
    assert up.valid
    feed.apply(raw(price_change(change("0.47", "1", "BUY", "0.5", "0.52"), at=T0 + 2)), ns())
    feed.confirm()
    assert not up.valid  # the feed's own doubt stays


# -- price steps ------------------------------------------------------------------------------------------------------


def test_md_21_a_changed_price_step_drops_the_book_until_a_fresh_one() -> None:
    feed, told = make_feed()
    up = feed.books[UP].book
    feed.apply(raw(tick_change("0.001")), ns())
    assert (up.valid, up.reason, up.unit) == (False, "tick size changed", 10)
    assert up.levels("BID") == []
    assert (told.lost, told.ticks) == ([(UP, "tick size changed")], ["0.01", "0.001"])
    feed.apply(raw(price_change(change("0.971", "3", "BUY", "0.971", "0.98"), at=T0 + 2)), ns())
    assert not up.valid
    feed.apply(raw(book(bids={"0.971": "3"}, asks={"0.98": "1"}, tick="0.001", at=T0 + 3)), ns())
    assert up.valid
    assert up.best_bid == Decimal("0.971")


def test_md_21_back_to_a_coarser_step_with_old_orders_between_the_ticks() -> None:
    feed, _ = make_feed(book(bids={"0.971": "3"}, asks={"0.98": "1"}, tick="0.001"))
    feed.apply(raw(tick_change("0.01", "0.001")), ns())
    feed.apply(raw(book(bids={"0.95": "3", "0.955": "2"}, asks={"0.98": "1"}, tick="0.01", at=T0 + 2)), ns())
    up = feed.books[UP].book
    assert up.valid
    assert up.unit == 50  # the largest step that holds 0.955
    assert levels(up, "BID") == [("0.955", "2"), ("0.950", "3")]


def test_md_21_a_price_between_two_ticks_makes_the_step_finer() -> None:
    feed, told = make_feed()
    up = feed.books[UP].book
    feed.apply(raw(price_change(change("0.485", "3", "BUY", "0.49", "0.52"))), ns())
    assert told.lost == [(UP, "a price between two ticks")]
    assert (up.valid, up.unit, feed.unparsed) == (False, 50, 0)
    feed.apply(raw(book(bids={"0.485": "3"}, tick="0.001", at=T0 + 2)), ns())
    assert up.valid
    assert up.best_bid == Decimal("0.485")


def test_md_21_a_touch_between_two_ticks_makes_the_step_finer() -> None:
    feed, told = make_feed()
    feed.apply(raw(price_change(change("0.48", "3", "BUY", "0.495", "0.52"))), ns())
    assert told.lost == [(UP, "a price between two ticks")]


def test_a_book_tells_its_price_step() -> None:
    feed, told = make_feed(book(tick="0.001"))
    assert feed.books[UP].book.unit == 10
    assert told.ticks == ["0.001"]
    feed.apply(raw(book(tick=None, at=T0 + 1)), ns())
    assert feed.books[UP].book.unit == 10
    assert feed.books[UP].book.valid


# -- order of messages ------------------------------------------------------------------------------------------------


def test_md_10_swapped_messages_end_in_the_right_book() -> None:
    changes = change("0.50", "5", "BUY", "0.5", "0.52"), change("0.40", "9", "BUY", "0.5", "0.52")
    first = raw(price_change(*changes, at=T0 + 1))
    second = raw(price_change(change("0.50", "8", "BUY", "0.5", "0.52"), at=T0 + 2))
    feed, _ = make_feed()
    feed.apply(second, ns())
    feed.apply(first, ns())
    up = feed.books[UP].book
    assert feed.late == 2
    assert up.valid
    assert up.size_at("0.50") == 8  # the newer change stands
    assert up.size_at("0.40") == 9  # and nothing of the older one is lost
    assert up.venue_ms == T0 + 2


def test_md_10_a_change_from_before_the_book_is_in_it_already() -> None:
    feed, _ = make_feed(book(at=T0 + 10))
    feed.apply(raw(price_change(change("0.49", "0", "BUY", "0.48", "0.52"), at=T0 + 9)), ns())
    up = feed.books[UP].book
    assert up.valid
    assert up.size_at("0.49") == 20
    assert feed.late == 1


def test_md_10_a_late_book_gets_the_newer_changes_on_top() -> None:
    feed, told = make_feed()
    feed.apply(raw(price_change(change("0.50", "5", "BUY", "0.5", "0.52"), at=T0 + 5)), ns())
    feed.apply(raw(book(bids={"0.48": "31", "0.49": "20"}, at=T0 + 4)), ns())
    up = feed.books[UP].book
    assert up.valid
    assert levels(up, "BID") == [("0.50", "5"), ("0.49", "20"), ("0.48", "31")]
    assert told.lost == []


def test_md_10_what_is_forgotten_is_not_guessed() -> None:
    feed, told = make_feed()
    for number in range(200):
        feed.apply(raw(price_change(change("0.10", str(number + 1), "BUY", "0.49", "0.52"), at=T0 + 10 + number)), ns())
    feed.apply(raw(price_change(change("0.20", "1", "BUY", "0.49", "0.52"), at=T0 + 5)), ns())
    assert [reason for _, reason in told.lost] == ["a late change, and newer ones that are forgotten"]


def test_md_09_stamps_that_stay_behind_lead_to_a_new_book() -> None:
    feed, told = make_feed()
    feed.apply(raw(price_change(change("0.10", "1", "BUY", "0.49", "0.52"), at=T0 + 3_600_000)), ns())
    for number in range(LATE_RUN + 1):
        assert told.lost == []
        frame = raw(price_change(change("0.20", str(number), "BUY", "0.49", "0.52"), at=T0 + 1 + number))
        feed.apply(frame, ns())
    assert [reason for _, reason in told.lost] == ["stamps that go backwards"]
    feed.apply(raw(book(at=T0 + 100)), ns())
    assert feed.books[UP].book.valid


def test_ck_06_a_stamp_from_another_century_is_no_stamp() -> None:
    feed, told = make_feed()
    feed.apply(raw(price_change(change("0.10", "1", "BUY", "0.49", "0.52"), at=T0 + 40 * 86_400_000)), ns())
    assert feed.unparsed == 1
    assert told.lost
    quiet, _ = make_feed()
    frame = raw(price_change(change("0.10", "1", "BUY", "0.49", "0.52"), at=T0 + 40 * 86_400_000))
    quiet.apply(frame, ns(T0 + 40 * 86_400_000))  # after forty days without a change it is one
    assert quiet.unparsed == 0


# -- connections ------------------------------------------------------------------------------------------------------


def test_md_11_from_the_instant_of_loss_no_book_is_valid() -> None:
    feed, _ = make_feed()
    up = feed.books[UP].book
    seen: list[tuple[bool, str]] = []
    listen([feed.books[UP]], lambda books: seen.extend((book.valid, book.reason) for book in books))
    feed.disconnected("gone")
    assert seen == [(False, "disconnected: gone")]
    feed.apply(raw(price_change(change("0.50", "1", "BUY", "0.5", "0.52"))), ns())
    assert not up.valid
    feed.connected(2)
    assert (up.valid, up.generation) == (False, 2)
    feed.apply(raw(price_change(change("0.50", "1", "BUY", "0.5", "0.52"))), ns())
    assert not up.valid
    feed.apply(raw(book(at=T0 - 60_000)), ns())  # a quiet book carries the stamp of its last change
    assert up.valid


# -- books over REST --------------------------------------------------------------------------------------------------


def lost_feed() -> tuple[BookFeed, OrderBook]:
    feed, _ = make_feed()
    feed.apply(raw(tick_change("0.01", at=T0 + 5)), ns())
    return feed, feed.books[UP].book


def test_a_rest_book_gets_what_came_meanwhile_on_top() -> None:
    feed, up = lost_feed()
    feed.apply(raw(price_change(change("0.30", "1", "BUY", "0.49", "0.52"), at=T0 + 6)), ns())
    feed.apply(raw(price_change(change("0.49", "9", "BUY", "0.49", "0.52"), at=T0 + 8)), ns())
    assert feed.merge(rest(bids={"0.49": "21"}, at=T0 + 7), ns())
    assert up.valid
    assert levels(up, "BID") == [("0.49", "9")]  # 0.30 is older than the book, which does not have it any more
    assert up.venue_ms == T0 + 8


def test_a_rest_book_that_is_older_than_what_was_lost_is_refused() -> None:
    feed, up = lost_feed()
    assert not feed.merge(rest(at=T0 + 4), ns())
    assert not up.valid
    assert feed.merge(rest(at=T0 + 5), ns())
    assert up.valid


def test_a_rest_book_is_refused_when_too_much_came_meanwhile() -> None:
    feed, up = lost_feed()
    frame = raw(price_change(*[change("0.30", "1", "BUY", "0.49", "0.52")] * 100, at=T0 + 6))
    for _ in range(PARKED_LIMIT // 100 + 1):
        feed.apply(frame, ns())
    assert not feed.merge(rest(at=T0 + 5), ns())
    assert not up.valid
    assert len(feed.books[UP].parked) == PARKED_LIMIT


def test_md_10_a_late_book_that_was_waited_for_gets_what_came_meanwhile_on_top() -> None:
    feed, up = lost_feed()
    feed.apply(raw(price_change(change("0.49", "0", "BUY", "0.48", "0.52"), at=T0 + 8)), ns())
    feed.apply(raw(price_change(change("0.30", "4", "BUY", "0.48", "0.52"), at=T0 + 6)), ns())
    feed.apply(raw(book(at=T0 + 7)), ns())
    assert up.valid
    assert levels(up, "BID") == [("0.48", "30")]  # without 0.49, and without 0.30, which the book knew of


def test_a_book_older_than_changes_that_found_no_room_is_refused() -> None:
    feed, up = lost_feed()
    frame = raw(price_change(*[change("0.30", "1", "BUY", "0.49", "0.52")] * 100, at=T0 + 9))
    for _ in range(PARKED_LIMIT // 100 + 1):
        feed.apply(frame, ns())
    feed.apply(raw(book(at=T0 + 7)), ns())
    assert not up.valid
    feed.apply(raw(book(at=T0 + 9)), ns())
    assert up.valid


def test_a_rest_book_never_replaces_a_live_one() -> None:
    feed, _ = make_feed()
    assert feed.merge(rest(bids={"0.01": "1"}, at=T0 + 50), ns())
    assert feed.books[UP].book.best_bid == Decimal("0.49")


def test_a_rest_book_that_cannot_be_is_refused() -> None:
    feed, up = lost_feed()
    assert not feed.merge(rest(bids={"7": "1"}, at=T0 + 50), ns())
    assert not up.valid
    assert feed.unparsed == 1


def test_md_01_a_silent_book_is_compared_level_by_level() -> None:
    feed, _ = make_feed()
    live = feed.books[UP]
    same = {format(level.price, "f"): format(level.size, "f") for level in live.book.levels("BID")}
    assert live.same_levels(rest()) and live.same_levels(rest(bids={**same, "0.50": "0"}))
    assert not live.same_levels(rest(bids={**same, "0.50": "1"}))
    assert not live.same_levels(rest(bids={}))
    assert not live.same_levels(rest(bids={"0.495": "1"}))
    # Behind a touch that still stands: a level with another size, one more, one less.
    assert not live.same_levels(rest(bids={**same, "0.49": "999"}))
    assert not live.same_levels(rest(bids={**same, "0.02": "3"}))
    deepest = min(same, key=Decimal)
    assert len(same) > 1 and not live.same_levels(rest(bids={price: same[price] for price in same if price != deepest}))


def test_every_change_of_validity_reaches_the_sinks() -> None:
    feed, _ = make_feed()
    seen: list[tuple[bool, str]] = []
    listen([feed.books[UP]], lambda books: seen.extend((book.valid, book.reason) for book in books))
    feed.suspect("silent")
    feed.confirm()
    feed.apply(raw(price_change(change("0.52", "5", "BUY", "0.52", "0.52"))), ns(T0 + 1))
    feed.apply(raw(price_change(change("0.52", "0", "SELL", "0.52", "0.53"), at=T0 + 2)), ns(T0 + 2))
    feed.apply(raw(tick_change("0.001", at=T0 + 3)), ns())
    feed.apply(raw(book(at=T0 + 4)), ns())
    feed.disconnected("gone")
    assert seen == [
        (False, "silent"),
        (True, ""),
        (False, "crossed"),
        (True, ""),
        (False, "tick size changed"),
        (True, ""),
        (False, "disconnected: gone"),
    ]
