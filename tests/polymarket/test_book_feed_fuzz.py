"""Mutated, cut, swapped and repeated frames: nothing raises, and no wrong book is ever valid."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.exchanges.polymarket.book_feed import BookFeed
from pmkit.exchanges.polymarket.messages import KNOWN_EVENTS
from tests.polymarket.frames import DOWN, MARKET, SESSIONS, T0, UP, book, change, markets_of, ns, price_change, raw
from tests.polymarket.frames import session_frames as recorded

Sides = dict[str, dict[Fraction, Fraction]]
TYPES = sorted(KNOWN_EVENTS)


class OffTrack(Exception):
    """A broken frame carried a stamp of its own: from here on the order of frames means nothing."""


class Naive:
    """The books as json and fractions make them. None: what is right cannot be told until the next whole book."""

    def __init__(self, tokens: list[str]) -> None:
        self.books: dict[str, Sides | None] = dict.fromkeys(tokens)
        self.newest = T0

    def apply(self, frame: bytes) -> None:
        try:
            content = json.loads(frame.decode("utf-8", "surrogateescape"), parse_constant=_refuse)
            if not isinstance(content, dict | list):
                raise ValueError(content)
        except (ValueError, RecursionError):
            if len(frame) > 64 or frame.strip()[:1] in (b"{", b"["):
                self.lose([None])
            return
        for event in content if isinstance(content, list) else [content]:
            if not isinstance(event, dict):
                self.lose([None])
                continue
            kind = event.get("event_type")
            parts = event.get("price_changes") if kind == "price_change" else [event]
            parts = parts if isinstance(parts, list) else []
            named = [part.get("asset_id") if isinstance(part, dict) else None for part in parts]
            try:
                if kind == "book":
                    self.book(event)
                elif kind == "price_change":
                    self.changes(event)
                elif kind == "tick_size_change":
                    self.lose(named)
            except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):
                self.lose(named or [None])

    def lose(self, named: list[Any]) -> None:
        sure = all(isinstance(token, str) for token in named)
        self.books.update(dict.fromkeys(token for token in self.books if not sure or token in named))

    def stamp(self, value: Any) -> None:
        stamp = _fraction(value)
        if stamp.denominator != 1:
            raise ValueError(stamp)
        if not self.newest <= stamp <= T0 + 2_000:
            raise OffTrack
        self.newest = int(stamp)

    def book(self, event: dict[str, Any]) -> None:
        token = event["asset_id"]
        if token not in self.books:
            return
        self.books[token] = None
        sides = {side: {_price_of(level): _size(level["size"]) for level in event[side]} for side in ("bids", "asks")}
        self.stamp(event["timestamp"])
        self.books[token] = {side: {p: s for p, s in levels.items() if s} for side, levels in sides.items()}

    def changes(self, event: dict[str, Any]) -> None:
        entries = [
            (entry["asset_id"], {"BUY": "bids", "SELL": "asks"}[entry["side"]], entry, float(entry["size"]))
            for entry in event["price_changes"]
        ]
        self.stamp(event["timestamp"])
        for token, side, entry, _ in entries:
            sides = self.books.get(token)
            if sides is None:
                continue
            try:
                price, size = _price_of(entry), _size(entry["size"])
            except (ValueError, ArithmeticError):
                self.books[token] = None
                continue
            sides[side][price] = size
            if not size:
                del sides[side][price]


def _fraction(value: Any) -> Fraction:
    if not -99 < Decimal(str(value)).adjusted() < 99:  # a fraction of 1e99999999 takes for ever
        raise ValueError(value)
    return Fraction(str(value))


def _price_of(level: dict[str, Any]) -> Fraction:
    if not isinstance(level["price"], str):
        raise ValueError(level)
    return _fraction(level["price"])


def _refuse(name: str) -> float:
    raise ValueError(name)


def _size(value: Any) -> Fraction:
    size = _fraction(value)
    if not 0 <= size < 10**10:
        raise ValueError(size)
    return Fraction(math.floor(size * 10**6 + Fraction(1, 2)), 10**6)


def compare(feed: BookFeed, naive: Naive) -> int:
    """Every valid book holds exactly what the naive model holds. Returns how many were compared."""
    compared = 0
    for token, live in feed.books.items():
        if not live.book.valid:
            continue
        right = naive.books[token]
        assert right is not None, f"valid, but nobody can know what it holds: {live.book!r}"
        for side in ("bids", "asks"):
            held = {Fraction(level.price): Fraction(level.size) for level in live.book.levels(side[:3].upper())}
            assert held == right[side]
        bids, asks = right["bids"], right["asks"]
        assert not bids or not asks or max(bids) < min(asks)
        compared += 1
    return compared


def traffic(random: Random, count: int) -> list[bytes]:
    """Frames of one market that a venue could have sent: two books, then changes of both outcomes."""
    bids = {n: random.randint(1, 10**8) for n in range(30, 50)}
    asks = {n: random.randint(1, 10**8) for n in range(52, 70)}

    def text(levels: dict[int, int], mirrored: bool) -> dict[str, str]:
        return {_price(100 - n if mirrored else n): f"{size / 10**6:.6f}" for n, size in levels.items()}

    def books(at: int) -> bytes:
        mirror = book(DOWN, text(asks, True), text(bids, True), at=at)
        return raw(book(UP, text(bids, False), text(asks, False), at=at), mirror)

    frames, at = [books(T0)], T0
    for number in range(count):
        at += random.randint(0, 3)
        if number % 10 == 9:
            frames.append(books(at))
            continue
        side = random.choice(("BUY", "SELL"))
        levels, others = (bids, asks) if side == "BUY" else (asks, bids)
        tick = random.randint(20, min(others) - 1) if side == "BUY" else random.randint(max(others) + 1, 80)
        size = 0 if tick in levels and len(levels) > 3 and random.random() < 0.5 else random.randint(1, 10**8)
        if size:
            levels[tick] = size
        else:
            levels.pop(tick, None)
        bid, ask = max(bids), min(asks)
        shown, other = f"{size / 10**6:.6f}", "SELL" if side == "BUY" else "BUY"
        frames.append(
            raw(
                price_change(
                    change(_price(tick), shown, side, _price(bid), _price(ask)),
                    change(_price(100 - tick), shown, other, _price(100 - ask), _price(100 - bid), DOWN),
                    at=at,
                )
            )
        )
    return frames


def _price(tick: int) -> str:
    return f"{tick / 100:g}"


def mutate(random: Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(data)) if data else 0
        what = random.random()
        if what < 0.5 and data:
            data[at] = random.choice(b'0123456789.-+eE"{}[],:aBSNn\x00\xff ')
        elif what < 0.65 and data:
            del data[at]
        elif what < 0.8:
            data.insert(at, random.randrange(256))
        elif what < 0.9:
            data = data[:at]
        else:
            data[at:at] = data[at : at + random.randint(1, 40)]
    return bytes(data)


def broken_frames(seed: int, count: int) -> int:
    """Feed so many broken frames among good ones. Returns how often a valid book was held against the naive one."""
    random = Random(seed)
    compared = broken = 0
    while broken < count:
        feed, naive = BookFeed(), Naive([UP, DOWN])
        for token, outcome in ((UP, "UP"), (DOWN, "DOWN")):
            feed.add(token, MARKET, outcome)
        for frame in traffic(random, 250):
            sent = [frame]
            if random.random() < 0.7:
                broken += 1
                sent = [mutate(random, frame), *sent[: random.randint(0, 1)]]  # in its place, or before it
            try:
                for one in sent:
                    feed.apply(one, ns())
                    naive.apply(one)
            except OffTrack:
                break
            if random.random() < 0.25:
                compared += compare(feed, naive)
        for live in feed.books.values():
            assert all(level.size.is_finite() for level in (*live.book.levels("BID"), *live.book.levels("ASK")))
    return compared


def test_md_18_broken_frames() -> None:
    """A share of `make soak`, which has 100,000 of them."""
    assert broken_frames(20261120, 10_000) > 1_000


@pytest.mark.parametrize("session", SESSIONS)
def test_md_18_recorded_frames_cut_at_every_byte(recordings: Path, session: str) -> None:
    feed = BookFeed()
    for market in markets_of(recordings, session):
        for outcome in market["outcomes"]:
            feed.add(outcome["token_id"], market["condition_id"], outcome["outcome"].upper())
    cuts = 0
    for frame, received_ns in list(recorded(recordings, session))[:25]:
        for end in range(1, len(frame), max(1, len(frame) // 300)):
            feed.apply(frame[:end], received_ns)
            assert not any(live.book.valid for live in feed.books.values())
            cuts += 1
        feed.apply(frame, received_ns)
    assert cuts > 2_000 or session != SESSIONS[1]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_md_18_arbitrary_bytes(frame: bytes) -> None:
    feed = BookFeed()
    feed.add(UP, MARKET, "UP")
    feed.apply(raw(book()), ns())
    feed.apply(frame, ns())


_KEYS = [*book(), *price_change(), *change("0", "0", "BUY", "0", "0")]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([UP, "BUY", "0.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=600, deadline=None)
@given(_json, st.sampled_from([*TYPES, "else"]))
def test_md_18_arbitrary_json_under_every_type(content: Any, kind: str) -> None:
    feed = BookFeed()
    feed.add(UP, MARKET, "UP")
    feed.apply(raw(book()), ns())
    if isinstance(content, dict):
        content = content | {"event_type": kind}
    feed.apply(json.dumps(content).encode(), ns())
    feed.apply(json.dumps([content, content]).encode(), ns())


_FATE = st.lists(st.sampled_from(["keep", "repeat", "swap"]), min_size=30, max_size=60)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), _FATE)
def test_md_09_md_10_repeated_and_swapped_messages_end_in_the_right_book(seed: int, fate: list[str]) -> None:
    """Messages with stamps of their own come twice, or one too late: a book that is valid in the end is right."""
    frames = []
    for number, frame in enumerate(traffic(Random(seed), len(fate))):
        content = json.loads(frame)
        for event in content if isinstance(content, list) else [content]:
            event["timestamp"] = str(T0 + number)
        frames.append(json.dumps(content).encode())
    feed, naive = BookFeed(), Naive([UP, DOWN])
    for token, outcome in ((UP, "UP"), (DOWN, "DOWN")):
        feed.add(token, MARKET, outcome)
    for frame in frames:
        naive.apply(frame)
    order = list(range(len(frames)))
    for number, what in enumerate(fate, start=1):
        if what == "swap" and number + 1 < len(frames):
            order[number], order[number + 1] = order[number + 1], order[number]
    for place, number in enumerate(order):
        feed.apply(frames[number], ns())
        if place and fate[place - 1] == "repeat":
            feed.apply(frames[number], ns())
    # The last message of each book decides about doubts; one more in order settles them without changing anything.
    last = json.loads(frames[-1])
    if isinstance(last, dict):
        last["timestamp"] = str(T0 + len(frames))
        feed.apply(json.dumps(last).encode(), ns())
    assert feed.garbage == feed.unparsed == 0
    compare(feed, naive)
