"""Damaged streams: whatever arrives, nothing is raised, and a book that says it is valid equals the venue's.

The venue keeps plain dicts and remembers them as they were after every number. A valid book must equal the venue's at
the last number its subscription has reached. Damage that nobody could see (a digit of a size) is not done to frames.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest

from pmkit.exchanges.kalshi.book_feed import BookFeed
from tests.kalshi.frames import T0_NS, T, U, delta, encode, levels, snapshot, subscribed

SIDES = ("yes", "no")
Bids = dict[Decimal, Decimal]


class Venue:
    """A venue with two books and one numbered subscription; answers snapshot requests like Kalshi."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seq = 0
        self.books: dict[str, dict[str, dict[int, int]]] = {name: {side: {} for side in SIDES} for name in (T, U)}
        self.after: dict[int, dict[str, dict[str, dict[int, int]]]] = {}

    def remember(self) -> None:
        """After a frame was made: how the books are at its number."""
        self.after[self.seq] = {
            name: {side: dict(bids) for side, bids in sides.items()} for name, sides in self.books.items()
        }

    def truth(self, seq: int, ticker: str) -> tuple[Bids, Bids]:
        """The bids of YES and of NO after this number."""
        yes, no = (
            {Decimal(price) / 1000: Decimal(size) / 100 for price, size in self.after[seq][ticker][side].items()}
            for side in SIDES
        )
        return yes, no

    def number(self) -> int:
        self.seq += 1
        return self.seq

    def snapshot(self, ticker: str) -> bytes:
        sides = [
            [(f"{price / 1000:.4f}", f"{size / 100:.2f}") for price, size in sorted(self.books[ticker][side].items())]
            for side in SIDES
        ]
        frame = snapshot(self.number(), sides[0] or None, sides[1] or None, ticker=ticker)
        self.remember()
        return frame

    def change(self) -> bytes:
        """YES bids stay under 0.5 and NO bids under 0.5, so the truth never crosses."""
        ticker, side = self.random.choice((T, U)), self.random.choice(SIDES)
        bids = self.books[ticker][side]
        price = self.random.randint(1, 99) * 5
        if bids and self.random.random() < 0.5:
            price = self.random.choice(list(bids))
            change = -bids[price] if self.random.random() < 0.6 else self.random.randint(1, 9_999)
        else:
            change = self.random.randint(1, 99_999)
        bids[price] = bids.get(price, 0) + change
        if not bids[price]:
            del bids[price]
        text = f"{price / 1000:.4f}" if self.random.random() < 0.8 else f"{price / 1000:.3f}"
        frame = delta(self.number(), side, text, f"{change / 100:.2f}", ticker=ticker)
        self.remember()
        return frame


def damage(frame: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    data = bytearray(frame)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if kind == 2:
        at = rng.randrange(len(data))
        return bytes(data[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 5))) + data[at:])
    if kind == 3:
        start = rng.randrange(len(data))
        return bytes(data[:start] + data[start + rng.randint(1, 20) :])
    if kind == 4:
        return rng.choice([b"", b"PONG", b"null", b"[1]", b"{}", b'{"type":7}', b'{"type":"x"}', frame + frame])
    digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    for at in rng.sample(digits, min(2, len(digits))):
        data[at] = rng.randrange(48, 58)
    return bytes(data)


def test_md_18_20000_damaged_frames_never_raise(recorded_like: list[bytes]) -> None:
    rng = random.Random(18)
    feed = BookFeed()
    feed.on_resync = feed.on_control = feed.on_event = lambda *_: None
    for ticker in (T, U):
        feed.watch(ticker, 10)
    for number in range(20_000):
        frame = recorded_like[number % len(recorded_like)]
        feed.apply(damage(frame, rng) if rng.random() < 0.9 else frame, T0_NS + number)
        for pair in feed.pairs.values():
            for book in (pair.yes, pair.no):
                assert all(level.size > 0 and level.size.is_finite() for level in book.levels("BID", 3))
    assert feed.frames == 20_000
    assert feed.unparsed > 5_000


def test_md_18_a_frame_with_bytes_that_are_no_text_is_not_taken() -> None:
    """In a name that the decoder skips they would hide that another name or the market was damaged as well."""
    venue = Venue(2)
    feed = BookFeed()
    asked: list[str] = []
    feed.on_resync = lambda sid, names, reason: asked.extend(names)
    feed.watch(T, 10)
    for frame in (subscribed(), venue.snapshot(T)):
        feed.apply(frame, T0_NS)
    assert feed.pairs[T].yes.valid
    other = delta(2, "yes", "0.1600", "61.35", ticker="KXBTC15M-26NOV202015-16").replace(b"market_id", b"mark\x98t_id")
    feed.apply(other, T0_NS)
    assert not feed.pairs[T].yes.valid
    feed.apply(venue.snapshot(T), T0_NS)
    assert feed.pairs[T].yes.valid
    # A type that nobody knows counts in its sequence only where the frame is one.
    unknown = delta(3, "yes", "0.1600", "61.35").replace(b"_delta", b"_dQlta").replace(b"9b0f", b"\xe0")
    feed.apply(unknown, T0_NS)
    assert not feed.pairs[T].yes.valid
    feed.apply(delta(4, "yes", "0.1600", "61.35"), T0_NS)
    assert not feed.pairs[T].yes.valid and asked == [T]


@pytest.fixture
def recorded_like() -> list[bytes]:
    venue = Venue(1)
    frames = [subscribed(), venue.snapshot(T), venue.snapshot(U)]
    frames += [venue.change() for _ in range(200)]
    frames += [
        encode({"type": "ok", "id": 3, "sid": 1, "seq": venue.number(), "msg": {"market_tickers": [T, U]}}),
        encode({"type": "ok", "id": 4, "msg": [{"channel": "trade", "sid": 2}]}),
        encode({"type": "error", "id": 5, "msg": {"code": 8, "msg": "Unknown channel name"}}),
        encode({"type": "trade", "sid": 2, "seq": 5, "msg": {"trade_id": "a", "market_ticker": T, "count_fp": "1.00"}}),
        encode({"type": "ticker", "sid": 3, "msg": {"market_ticker": T, "yes_bid_dollars": "0.5"}}),
        encode({"type": "market_lifecycle_v2", "sid": 4, "msg": {"market_ticker": T, "event_type": "settled"}}),
    ]
    return frames


def visibly(frame: bytes, rng: random.Random) -> bytes:
    """Damage that a reader can see: no JSON any more, or not the frame it was by its type, number or fields."""
    original = json.loads(frame)
    while True:
        broken = damage(frame, rng)
        try:
            found = json.loads(broken)
        except (ValueError, RecursionError):
            return broken
        if not isinstance(found, dict) or not isinstance(found.get("msg"), dict):
            return broken
        if any(name not in found["msg"] for name in original["msg"] if name != "market_id"):
            return broken


def renumbered(frame: bytes, rng: random.Random) -> bytes:
    """With a number that cannot be the next one."""
    document = json.loads(frame)
    document["seq"] = max(1, document["seq"] + rng.choice([-500, -40, -7, 9, 77, 5_000]))
    return encode(document)


FAULTS = ("none", "damage", "drop", "repeat", "old", "swap", "renumber")


class Line:
    """Between the venue and the feed: a tenth of the frames go wrong, and every arrival is checked."""

    def __init__(self, seed: int) -> None:
        self.venue = Venue(seed)
        self.random = random.Random(seed + 1000)
        self.feed = BookFeed()
        self.asked: list[str] = []
        self.feed.on_resync = lambda sid, names, reason: self.asked.extend(names)
        for ticker in (T, U):
            self.feed.watch(ticker, 10)
        self.feed.apply(subscribed(), T0_NS)
        self.counts = dict.fromkeys(FAULTS, 0)
        self.sent: list[bytes] = []
        self.valid = self.checks = 0

    def arrive(self, frame: bytes) -> None:
        self.feed.apply(frame, T0_NS)
        for ticker in (T, U):
            self.checks += 1
            pair = self.feed.pairs[ticker]
            if pair.yes.valid or pair.no.valid:
                self.valid += 1
                yes, no = self.venue.truth(self.feed.streams[1].last, ticker)
                assert levels(pair.yes) == (yes, {1 - price: size for price, size in no.items()}), (ticker, frame)
                assert levels(pair.no) == (no, {1 - price: size for price, size in yes.items()}), (ticker, frame)

    def send(self, queue: list[bytes]) -> None:
        rng = self.random
        while queue:
            frame = queue.pop(0)
            fault = rng.choice(FAULTS[1:]) if rng.random() < 0.1 else "none"
            self.counts[fault] += 1
            self.sent.append(frame)
            if fault == "damage":
                self.arrive(visibly(frame, rng))
            elif fault == "renumber":
                self.arrive(renumbered(frame, rng))
            elif fault == "repeat":
                self.arrive(frame)
                self.arrive(frame)
            elif fault == "old":
                self.arrive(frame)
                self.arrive(rng.choice(self.sent[-50:]))
            elif fault == "swap" and queue:
                self.arrive(queue.pop(0))
                self.arrive(frame)
            elif fault != "drop":
                self.arrive(frame)

    def snapshots(self) -> list[bytes]:
        wanted, self.asked = sorted(set(self.asked)), []
        return [self.venue.snapshot(ticker) for ticker in wanted]


@pytest.mark.parametrize("seed", range(8))
def test_md_07_md_08_md_09_md_10_a_valid_book_is_never_wrong(seed: int) -> None:
    line = Line(seed)
    queue = [line.venue.snapshot(T), line.venue.snapshot(U)]
    for _ in range(1_500):
        queue.append(line.venue.change())
        if line.asked and line.random.random() < 0.3:
            queue += line.snapshots()
        line.send(queue)
    assert all(line.counts.values()), line.counts
    # The calm phase: everything comes right by itself.
    for _ in range(40):
        line.arrive(line.venue.change())
        for frame in line.snapshots():
            line.arrive(frame)
    assert line.feed.pairs[T].yes.valid
    assert line.feed.pairs[U].no.valid
    assert 0.1 < line.valid / line.checks < 0.95, line.valid / line.checks


@pytest.mark.parametrize("fault", ["drop", "renumber", "repeat"])
def test_the_check_can_fail(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that takes every number for the next one is caught by the comparison above."""
    from pmkit.exchanges.kalshi.sequence import Stream, Verdict

    def gullible(self: Stream, seq: int, *, control: bool = False) -> Verdict:
        self.last = seq
        return Verdict.NEXT

    monkeypatch.setattr(Stream, "check", gullible)
    line = Line(5)
    for frame in (line.venue.snapshot(T), line.venue.snapshot(U), *(line.venue.change() for _ in range(20))):
        line.arrive(frame)
    frame = line.venue.change()
    faulty = {"drop": [], "renumber": [renumbered(frame, line.random)], "repeat": [frame] * 3}[fault]

    def go_on() -> None:
        for one in faulty:
            line.arrive(one)
        for _ in range(5):
            line.arrive(line.venue.change())

    with pytest.raises((AssertionError, KeyError)):
        go_on()
