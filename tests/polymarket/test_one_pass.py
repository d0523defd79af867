"""The frames that are decoded in one pass, by their spelling, must do what the same frames do in any other spelling."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.exchanges.polymarket.book_feed import BookFeed
from pmkit.exchanges.polymarket.messages import PRICE_CHANGE_END, PriceChange, TypedBook, decode, decode_frame
from tests.polymarket.frames import DOWN, T0, UP, book, change, make_feed, ns, price_change, trade


def type_last(content: Any) -> bytes:
    """As the venue writes it."""
    items = content if isinstance(content, list) else [content]
    for item in items:
        if isinstance(item, dict) and "event_type" in item:
            item["event_type"] = item.pop("event_type")
    return json.dumps(content, separators=(",", ":")).encode()


def type_first(content: Any) -> bytes:
    """The same content, so that no short way knows it."""
    items = content if isinstance(content, list) else [content]
    moved = [
        {"event_type": item["event_type"], "padding": "x" * 400} | item
        if isinstance(item, dict) and "event_type" in item
        else item
        for item in items
    ]
    return json.dumps(moved if isinstance(content, list) else moved[0]).encode()


def state(feed: BookFeed) -> dict[str, Any]:
    skipped = {"books", "last_error", "recent", "unknown"}
    found = {n: v for n, v in vars(feed).items() if n not in skipped and not n.startswith("on_")}
    found["unknown"] = dict(feed.unknown)
    for token, live in feed.books.items():
        one = live.book
        found[token] = [
            *(one.levels("BID"), one.levels("ASK"), one.valid, one.reason, one.best_bid, one.best_ask, one.venue_ms),
            *(one.received_ns, one.changes, one.epoch, one.unit, live.live, live.doubt, live.late_run),
            *(live.lost_ms, len(live.parked)),
        ]
    return found


prices = st.sampled_from(["0.47", "0.48", "0.49", "0.50", ".5", "0.52", "0.53", "0.505", "1.5", "x"])
sizes = st.sampled_from(["0", "5", "5", "7.25", "0.0000001", "-1", "-0.000001", "NaN", "1e300", "oops"])
touches = st.sampled_from(["0.48", "0.49", "0.5", "0.52", "0.53", "0", "1", "", None])
tokens = st.sampled_from([UP, DOWN, "stranger"])
stamps = st.integers(-3, 40).map(lambda ms: T0 + ms)
changes = st.builds(change, prices, sizes, st.sampled_from(["BUY", "SELL", "HOLD"]), touches, touches, tokens)
mild = st.builds(
    change, st.just("0.48"), st.sampled_from(["5", "9"]), st.just("BUY"), st.just("0.49"), st.just("0.52"), tokens
)
books = st.builds(lambda token, at: book(token, at=at), tokens, stamps)
events = st.one_of(
    st.builds(lambda parts, at: price_change(*parts, at=at), st.lists(mild, min_size=1, max_size=4), stamps),
    st.builds(lambda parts, at: price_change(*parts, at=at), st.lists(changes, max_size=4), stamps),
    books,
    st.builds(lambda one: {k: v for k, v in one.items() if k != "asks"}, books),
    st.builds(lambda one, kind: one | {"event_type": kind}, books, st.sampled_from(["bok", "last_trade_price"])),
    st.builds(lambda at: trade("0.5", "1", "BUY", at=at), stamps),
)
frames = st.one_of(events, st.lists(events, max_size=3), st.lists(books, min_size=1, max_size=3))


@given(st.lists(frames, max_size=25))
@settings(max_examples=150, deadline=None)
def test_a_session_is_the_same_in_both_spellings(session: list[Any]) -> None:
    (short, short_told), (long, long_told) = make_feed(), make_feed()
    for number, content in enumerate([book(UP), book(DOWN), *session]):
        received_ns = ns(T0 + number)
        copied = json.loads(json.dumps(content))
        assert short.apply(type_last(copied), received_ns) == long.apply(type_first(content), received_ns)
        assert state(short) == state(long)
        assert vars(short_told) == vars(long_told)


def test_the_short_ways_are_taken() -> None:
    one = type_last(price_change(change("0.48", "5", "BUY", "0.49", "0.52")))
    assert one.endswith(PRICE_CHANGE_END)
    assert isinstance(decode(one), PriceChange)
    whole = decode_frame(type_last([book(UP), book(DOWN)]))
    assert isinstance(whole, list) and all(type(item) is TypedBook for item in whole)
    assert type(decode_frame(type_last(book(UP)))) is TypedBook
    assert type(decode_frame(type_first(book(UP)))) is not TypedBook


def test_a_size_that_cannot_be_is_refused_for_both_halves_of_a_change() -> None:
    for size in ("-1", "1e300", "-0.0000001"):
        feed, told = make_feed(book(UP), book(DOWN))
        halves = (change("0.48", size, "BUY", "0.49", "0.52"), change("0.48", size, "BUY", "0.49", "0.52", DOWN))
        good = change("0.47", "3", "BUY", "0.49", "0.52"), change("0.47", "3", "BUY", "0.49", "0.52", DOWN)
        assert feed.apply(type_last(price_change(*good)), ns()) == 2
        assert feed.apply(type_last(price_change(*halves)), ns()) == 0
        assert [token for token, _ in told.lost] == [UP, DOWN]
        assert feed.unparsed == 2
