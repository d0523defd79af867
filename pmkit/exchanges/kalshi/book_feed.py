"""Frames to books (wire: no socket, no clock): the sequence of every subscription, snapshots and signed changes.

Kalshi numbers the frames of one subscription (`sid`) over all its markets, control replies included. A book is kept
only over an unbroken run of numbers; at the first doubt all books of the subscription become invalid and a fresh
snapshot of each is asked for (`on_resync`). Changes of a book are dropped until its snapshot comes. What the numbers
cannot prove is not applied: repeats, late frames, snapshots that arrive across a gap.

Kalshi's book holds bids only, on YES and on NO. A NO bid at q is a YES ask at 1 - q and the other way round, so both
outcomes are read from one book of levels. Source: Kalshi, "Orderbook updates", and recorded sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from pmkit.exchanges.kalshi.book_pair import FINEST_UNIT, BookPair
from pmkit.exchanges.kalshi.messages import (
    CHANNEL_OF,
    ENDED_CODES,
    IGNORED_TYPES,
    KNOWN_TYPES,
    ORDERBOOK,
    Control,
    DeltaFrame,
    ErrorFrame,
    Event,
    EventFeeFrame,
    IndexFrame,
    LifecycleFrame,
    SnapshotFrame,
    SubscribedFrame,
    TickerFrame,
    TradeFrame,
    UnsubscribedFrame,
    decode_envelope,
    decode_frame,
    may_hide_a_side,
)
from pmkit.exchanges.kalshi.sequence import Stream, Verdict
from pmkit.exchanges.numbers import BookError, price_ticks

CONTROL: Final = -1
UNKNOWN: Final = -2
UNPARSED: Final = -3
UNKNOWN_TYPE: Final = "a message of an unknown type"

_MAX_UNKNOWN_KINDS = 64
# ValueError: bytes that are no UTF-8 come as UnicodeDecodeError, which is none of msgspec's own.
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
_EVENTS = (TradeFrame, TickerFrame, LifecycleFrame, EventFeeFrame, IndexFrame)
_BOOK_TYPES = ("orderbook_delta", "orderbook_snapshot")


class BookFeed:
    """Applies frames to the watched books. Usable without a socket, for replays and benchmarks.

    Counters: `frames`, `applied` (changes and snapshots), `unparsed`, `unknown` (by type), `seq_gaps`, `duplicates`,
    `restarts`, `negative`, `crossed`, `refused` (a price or size that cannot be), `dropped` (changes without a
    snapshot), `foreign` (markets or subscriptions not asked for), `missed` (gaps of other channels).

    The owner may set the hooks: `on_resync(sid, tickers, reason)`, `on_crossed(pair)`, `on_event(frame, received_ns)`,
    `on_control(frame)`, `on_missed(channel)`.
    """

    def __init__(self) -> None:
        self.pairs: dict[str, BookPair] = {}
        self.streams: dict[int, Stream] = {}
        self.generation = 0
        self._ended: dict[int, str] = {}
        self.frames = self.applied = self.unparsed = self.seq_gaps = self.duplicates = self.restarts = 0
        self.negative = self.crossed = self.refused = self.dropped = self.foreign = self.missed = 0
        self.unknown: Counter[str] = Counter()
        self.last_venue_ms = self.last_received_ns = 0
        self.last_unknown = ""
        self.on_resync: Callable[[int, tuple[str, ...], str], object] | None = None
        self.on_crossed: Callable[[BookPair], object] | None = None
        self.on_event: Callable[[Event, int], object] | None = None
        self.on_control: Callable[[Control], object] | None = None
        self.on_missed: Callable[[str], object] | None = None

    @property
    def lag_ms(self) -> int:
        """Receive time minus venue time of the last change; 0 where it had no time, or there was none."""
        return self.last_received_ns // 1_000_000 - self.last_venue_ms if self.last_venue_ms else 0

    # What the owner says.

    def watch(self, ticker: str, unit: int) -> BookPair:
        """Keep books of a market; `unit` is its price step in 0.0001 dollars. The same pair for the same ticker."""
        pair = self.pairs.get(ticker)
        if pair is None:
            pair = self.pairs[ticker] = BookPair(ticker, unit)
            pair.yes.generation = pair.no.generation = self.generation
        return pair

    def forget(self, ticker: str, reason: str = "not subscribed") -> None:
        """Drop the books of a market; whoever still holds them sees them invalid."""
        pair = self.pairs.pop(ticker, None)
        if pair is not None:
            pair.expire(reason)

    def regrid(self, ticker: str, unit: int) -> None:
        """The market's price step is now `unit`. A grid that holds the new prices already is kept."""
        pair = self.pairs.get(ticker)
        if pair is not None and unit % pair.unit:
            sid = pair.sid
            pair.regrid(unit)
            if sid:
                self._ask(sid, (ticker,), "tick size changed")

    def reset(self, reason: str) -> None:
        """The connection is gone: every book is invalid, no subscription stands."""
        self.streams.clear()
        self._ended.clear()
        self.last_venue_ms = 0
        for pair in tuple(self.pairs.values()):
            pair.expire(reason)

    def begin(self, generation: int) -> None:
        """A new connection: its number goes into the books."""
        self.generation = generation
        for pair in self.pairs.values():
            pair.yes.generation = pair.no.generation = generation

    def end(self, sid: int, reason: str) -> None:
        """A subscription is over: later frames of it are ignored."""
        stream = self.streams.pop(sid, None)
        self._ended[sid] = stream.channel if stream is not None else self._ended.get(sid, "")
        if stream is None or stream.channel == ORDERBOOK:
            for pair in tuple(self.pairs.values()):
                if pair.sid == sid:
                    pair.expire(reason)

    def sid_of(self, channel: str) -> int | None:
        """The newest subscription of a channel."""
        return next((stream.sid for stream in reversed(self.streams.values()) if stream.channel == channel), None)

    def channel_of(self, sid: int) -> str:
        """The channel of a subscription, also of one that has ended; "" for an unknown one."""
        stream = self.streams.get(sid)
        return stream.channel if stream is not None else self._ended.get(sid, "")

    def suspect(self, reason: str) -> None:
        """All live books are in doubt until `confirm`, a snapshot, or the next number of their subscription."""
        for stream in self.streams.values():
            stream.doubt()
        for pair in tuple(self.pairs.values()):
            if pair.sid:
                pair.yes.suspect(reason)
                pair.no.suspect(reason)

    def confirm(self) -> None:
        """What was suspected is proven right."""
        for stream in self.streams.values():
            stream.trust()
        for pair in tuple(self.pairs.values()):
            pair.yes.confirm()
            pair.no.confirm()

    # Frames.

    def apply(self, frame: bytes, received_ns: int) -> int:
        """One frame; returns the number of changes applied to a market (0 or 1). Never raises for a bad frame."""
        code = self.receive(frame, received_ns)
        return code if code > 0 else 0

    def receive(self, frame: bytes, received_ns: int) -> int:
        """Like `apply`, and tells the others apart: 0 for data that changed nothing, CONTROL, UNKNOWN, UNPARSED."""
        self.frames += 1
        try:
            if not frame.isascii():
                frame.decode()  # the decoder does not look into what it skips: a name that is no text would hide damage
            message = decode_frame(frame)
        except _UNREADABLE:
            return self._odd(frame)
        if type(message) is not DeltaFrame:
            return self._other(message, received_ns, frame)
        # The hottest path of the venue: nothing is called here that can be read from an attribute.
        sid, seq, delta = message.sid, message.seq, message.msg
        stream = self.streams.get(sid)
        if stream is not None and seq == stream.last + 1 and stream.calm:
            stream.last = seq
        elif not self._counts(sid, seq, ORDERBOOK):
            return 0
        pair = self.pairs.get(delta.market_ticker)
        if pair is None:
            self.foreign += 1
            return 0
        if pair.sid != sid:
            self.dropped += 1
            return 0
        try:
            fits = pair.change(delta, received_ns)
        except BookError:
            return self._refuse(pair, sid, delta.price_dollars)
        if not fits:
            self.negative += 1
            pair.expire("negative level")
            self._ask(sid, (pair.ticker,), "negative level")
            return 0
        self.last_venue_ms = delta.ts_ms
        self.last_received_ns = received_ns
        self.applied += 1
        if pair.yes.crossed_since_ns or pair.crossed:
            self._cross(pair)
        for listen in pair.listeners:
            listen(pair.books)
        return 1

    def _other(self, message: SnapshotFrame | Event | Control, received_ns: int, frame: bytes) -> int:
        if isinstance(message, SnapshotFrame):
            return self._snapshot(message, received_ns, frame)
        if isinstance(message, _EVENTS):
            return self._event(message, received_ns)
        return self._control(message)

    def _refuse(self, pair: BookPair, sid: int, price: str) -> int:
        """A price off the grid means a finer one (every price of Kalshi is on the finest); the rest are faults."""
        self.refused += 1
        reason = "a change that cannot be"
        if pair.unit != FINEST_UNIT:
            try:
                price_ticks(FINEST_UNIT)[price]
            except BookError:
                pair.expire(reason)
            else:
                reason = "price off the grid"
                pair.regrid(FINEST_UNIT)
        else:
            pair.expire(reason)
        self._ask(sid, (pair.ticker,), reason)
        return 0

    def _snapshot(self, message: SnapshotFrame, received_ns: int, frame: bytes) -> int:
        sid, msg = message.sid, message.msg
        stream = self.streams.get(sid)
        if stream is not None and message.seq < stream.last:
            # Late, or the first of a new count: nothing tells which, so nothing is kept.
            self.duplicates += 1
            self._resync(stream, "a snapshot out of order")
            return 0
        if not self._counts(sid, message.seq, ORDERBOOK):
            return 0
        pair = self.pairs.get(msg.market_ticker)
        if pair is None:
            self.foreign += 1
            return 0
        try:
            if (msg.yes_dollars_fp is None or msg.no_dollars_fp is None) and may_hide_a_side(frame):
                pair.expire("a snapshot with a side under another name")
                raise BookError("a side may have been renamed")
            pair.load(msg.yes_dollars_fp or (), msg.no_dollars_fp or (), message.sending_ts_ms, received_ns)
        except BookError:
            self.refused += 1
            pair.publish()
            self._ask(sid, (pair.ticker,), "a snapshot that cannot be")
            return 0
        pair.sid = sid
        self.applied += 1
        self._cross(pair)
        pair.publish()
        return 1

    def _cross(self, pair: BookPair) -> None:
        crossed = pair.yes.crossed_since_ns != 0
        if crossed and not pair.crossed:
            self.crossed += 1
            if self.on_crossed is not None:
                self.on_crossed(pair)
        pair.crossed = crossed

    def _event(self, message: Event, received_ns: int) -> int:
        seq = message.seq
        if seq is not None:
            stream = self._stream(message.sid, CHANNEL_OF[type(message)])
            if stream is None:
                self.foreign += 1
                return 0
            verdict = stream.check(seq)
            if verdict is Verdict.OLD:
                self.duplicates += 1
                return 0
            if verdict is not Verdict.NEXT:
                self._miss(stream.channel)
        if self.on_event is not None:
            self.on_event(message, received_ns)
        return 0

    def _control(self, message: Control) -> int:
        if isinstance(message, SubscribedFrame):
            sid = message.msg.sid
            self._ended.pop(sid, None)
            known = self.streams.get(sid)
            if known is None or known.channel != message.msg.channel:
                self.streams[sid] = Stream(sid, message.msg.channel)
        elif message.sid is not None:
            if message.seq is not None and message.sid in self.streams:
                self._counts(message.sid, message.seq, "", control=True)
            if isinstance(message, UnsubscribedFrame):
                self.end(message.sid, "unsubscribed")
            elif isinstance(message, ErrorFrame) and message.msg.code in ENDED_CODES:
                self.end(message.sid, f"the venue ended the subscription (code {message.msg.code})")
        elif isinstance(message, ErrorFrame) and message.msg.code in ENDED_CODES:
            for sid in tuple(self.streams):
                self.end(sid, f"the venue ended a subscription (code {message.msg.code})")
        if self.on_control is not None:
            self.on_control(message)
        return CONTROL

    def _odd(self, frame: bytes) -> int:
        """A frame that fits no type: unknown, or of a known type and broken. Its number counts all the same."""
        try:
            frame.decode()
            envelope = decode_envelope(frame)
        except _UNREADABLE:
            # It may have been anything. The next number tells whether a change went with it.
            self.unparsed += 1
            self.suspect("a frame could not be read")
            return UNPARSED
        kind, sid, seq = envelope.type, envelope.sid, envelope.seq
        stream = None if sid is None else self.streams.get(sid)
        if stream is not None and seq is not None:
            self._counts(stream.sid, seq, stream.channel, control=True)
        if kind in KNOWN_TYPES:
            self.unparsed += 1
            if kind in _BOOK_TYPES:
                for one in tuple(self.streams.values()):
                    if one.channel == ORDERBOOK:
                        self._resync(one, "a frame could not be read")
            return UNPARSED
        self.last_unknown = "" if kind in IGNORED_TYPES else kind
        if self.last_unknown:
            new = kind not in self.unknown
            self.unknown[kind if not new or len(self.unknown) < _MAX_UNKNOWN_KINDS else "(other)"] += 1
            if new and stream is not None and stream.channel == ORDERBOOK:
                # It may be a change under another name. Once per type: a new kind of message is no reason for a storm.
                self._resync(stream, UNKNOWN_TYPE)
        return UNKNOWN

    # Sequence.

    def _stream(self, sid: int, channel: str) -> Stream | None:
        """The subscription of a frame. One that nobody announced is taken only where its channel has none yet."""
        stream = self.streams.get(sid)
        if stream is None and sid not in self._ended and self.sid_of(channel) is None:
            stream = self.streams[sid] = Stream(sid, channel)
        return stream

    def _counts(self, sid: int, seq: int, channel: str, *, control: bool = False) -> bool:
        """Whether a numbered frame of a book subscription is the next one and may be applied."""
        stream = self._stream(sid, channel)
        if stream is None:
            self.foreign += 1
            return False
        verdict = stream.check(seq, control=control)
        if verdict is Verdict.NEXT:
            if stream.doubted:
                self._clear(stream)
            return True
        if verdict is Verdict.GAP:
            self.seq_gaps += 1
            self._resync(stream, "sequence gap")
        elif verdict is Verdict.RESTART:
            self.restarts += 1
            self._resync(stream, "sequence restarted")
        elif not control:
            self.duplicates += 1
        return False

    def _clear(self, stream: Stream) -> None:
        stream.trust()
        for pair in tuple(self.pairs.values()):
            if pair.sid == stream.sid:
                pair.yes.confirm()
                pair.no.confirm()

    def _resync(self, stream: Stream, reason: str) -> None:
        """Something of this subscription was missed: its books are worthless until each has a new snapshot."""
        stream.trust()
        if stream.channel != ORDERBOOK:
            self._miss(stream.channel)
            return
        tickers: list[str] = []
        for pair in tuple(self.pairs.values()):
            if pair.sid in (stream.sid, 0):
                tickers.append(pair.ticker)
                pair.expire(reason)
        self._ask(stream.sid, tuple(tickers), reason)

    def _miss(self, channel: str) -> None:
        self.missed += 1
        if self.on_missed is not None:
            self.on_missed(channel)

    def _ask(self, sid: int, tickers: tuple[str, ...], reason: str) -> None:
        if tickers and self.on_resync is not None:
            self.on_resync(sid, tickers, reason)
