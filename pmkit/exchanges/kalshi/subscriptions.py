"""What is subscribed on Kalshi's socket: commands and their replies, and how a broken book is healed.

One command at a time is under way per channel, since Kalshi may answer them out of order; after every reply what the
venue has is compared with what is wanted. A broken sequence is healed in steps: a snapshot of each book, a new
subscription, a new connection.

Nothing here sends or waits: `due` gives the commands to send now, and the socket asks for them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from pmkit.clock import Clock
from pmkit.exchanges.kalshi.book_feed import UNKNOWN_TYPE, BookFeed
from pmkit.exchanges.kalshi.messages import (
    ENDED_CODES,
    FINAL_CODES,
    ORDERBOOK,
    TICKER,
    TRADE,
    UNKNOWN_SID,
    Control,
    ErrorFrame,
    OkFrame,
    SubscribedFrame,
    Tickers,
    UnsubscribedFrame,
    subscribe,
    unsubscribe,
    update,
)
from pmkit.websocket.deadlines import FIRST_SNAPSHOT
from pmkit.websocket.failures import printable

Key = tuple[str, str]
"""(channel, market ticker); ("market_lifecycle_v2", "") for the channel without a filter."""

ANSWER_SECONDS: Final = 5.0
"""Wall seconds within which a command must be answered."""
AGAIN_SECONDS: Final = 10.0
"""Wall seconds within which another resync means that the last step did not help."""
RETRY_SECONDS: Final = 1.0
HARMLESS: Final = frozenset({"tick size changed", "price off the grid", UNKNOWN_TYPE})
"""Reasons for a new snapshot that are no fault of the connection."""
_SNAPSHOT: Final = "get_snapshot"
_ASKED, _RESUBSCRIBED = 1, 2
_FILTERED = (ORDERBOOK, TRADE, TICKER)
_LOG = logging.getLogger("pmkit.kalshi")


class _Command(NamedTuple):
    """One that waits for its answer. `due`: wall seconds, monotonic."""

    what: str
    channel: str
    names: frozenset[str]
    due: float


class Subscriptions:
    """The subscriptions of one connection at a time.

    `wanted()`: all keys that should be subscribed; `drop(reason)` ends the connection; `wake()` is called when `due`
    has something new; `is_over(ticker)`: the market has closed, its silence means nothing. `refused` holds what the
    venue said to commands that it will never take.
    """

    def __init__(
        self,
        feed: BookFeed,
        clock: Clock,
        *,
        wanted: Callable[[], Iterable[Key]],
        drop: Callable[[str], object],
        wake: Callable[[], object],
        is_over: Callable[[str], bool],
    ) -> None:
        self.refused: dict[Key, str] = {}
        self.unanswered = 0
        self.resyncs = 0
        self._feed = feed
        self._clock = clock
        self._wanted = wanted
        self._drop = drop
        self._wake = wake
        self._is_over = is_over
        self._ids = 0
        self._commands: dict[int, _Command] = {}
        self._have: dict[str, set[str]] = {}
        self._dirty: dict[str, float] = {}
        self._waits: dict[str, tuple[float, int]] = {}
        self._asks: set[str] = set()
        self._again = False
        self._healed: deque[float] = deque(maxlen=2)
        feed.on_control = self.on_control
        feed.on_resync = self.on_resync

    def forget(self) -> None:
        """The connection is gone, and with it everything it was told."""
        for table in (self._commands, self._have, self._dirty, self._waits, self._asks, self.refused):
            table.clear()
        self._again = False

    def has(self, key: Key) -> bool:
        """Whether the venue has acknowledged this subscription."""
        return key[1] in self._have.get(key[0], ())

    def first(self, keys: Iterable[Key]) -> list[str]:
        """The commands that open a connection."""
        names_of: dict[str, list[str]] = {}
        for channel, name in keys:
            names_of.setdefault(channel, []).append(name)
        return [self._subscribe(channel, names) for channel, names in names_of.items()]

    def touch(self, channel: str, delay: float = 0.0) -> None:
        """What is wanted on a channel has changed: compare after `delay` wall seconds."""
        self._dirty[channel] = self._clock.io_monotonic() + delay
        self._wake()

    # What must be sent now.

    def due(self) -> list[str]:
        """The commands to send now, in order. May drop the connection instead."""
        now = self._clock.io_monotonic()
        for number, command in tuple(self._commands.items()):
            if command.due > now:
                continue
            if command.what == _SNAPSHOT:
                # Answered by the snapshots themselves, or not at all: the books that wait are looked after below.
                del self._commands[number]
            else:
                self.unanswered += 1
                self._drop(f"no answer to {command.what} within {ANSWER_SECONDS:g} s")
                return []
        frames = self._heal(now)
        busy = {command.channel for command in self._commands.values() if command.what != _SNAPSHOT}
        for channel, at in tuple(self._dirty.items()):
            if at <= now and channel not in busy:
                del self._dirty[channel]
                frames += self._compare(channel)
        return frames

    def _compare(self, channel: str) -> list[str]:
        wanted = {name for one, name in self._wanted() if one == channel and (one, name) not in self.refused}
        sid = self._feed.sid_of(channel)
        if sid is None:
            return [self._subscribe(channel, wanted)] if wanted else []
        if not wanted:
            return [self._unsubscribe(channel, sid, "unsubscribed")]
        have = self._have.setdefault(channel, set())
        if missing := sorted(wanted - have):
            self._expect(channel, missing)
            return [update(self._issue("add_markets", channel, missing), sid, "add_markets", missing)]
        if gone := sorted(have - wanted):
            return [update(self._issue("delete_markets", channel, gone), sid, "delete_markets", gone)]
        return []

    def _subscribe(self, channel: str, names: Iterable[str]) -> str:
        chosen = sorted(names)
        self._have[channel] = set()
        self._expect(channel, chosen)
        self._again = self._again and channel != ORDERBOOK
        return subscribe(self._issue("subscribe", channel, chosen), channel, [name for name in chosen if name])

    def _unsubscribe(self, channel: str, sid: int, reason: str) -> str:
        # Its frames count no more; a new subscription waits for the answer, lest it be ended with the old one.
        self._feed.end(sid, reason)
        self._have.pop(channel, None)
        return unsubscribe(self._issue("unsubscribe", channel, ()), sid)

    def _issue(self, what: str, channel: str, names: Iterable[str]) -> int:
        self._ids += 1
        due = self._clock.io_monotonic() + ANSWER_SECONDS
        self._commands[self._ids] = _Command(what, channel, frozenset(names), due)
        return self._ids

    def _expect(self, channel: str, names: Iterable[str], step: int = 0) -> None:
        if channel == ORDERBOOK:
            now = self._clock.io_monotonic()
            for name in names:
                self._waits[name] = (now, max(step, self._waits.get(name, (0.0, 0))[1]))

    # Healing.

    def on_resync(self, sid: int, tickers: tuple[str, ...], reason: str) -> None:
        """The feed lost these books: each needs a snapshot. Repeated soon after, the next step is taken."""
        first = not self._asks
        self._asks.update(tickers)
        if reason not in HARMLESS:
            self.resyncs += 1
            _LOG.info("kalshi: %s: %d books wait for a snapshot", reason, len(tickers))
            if first:
                now = self._clock.io_monotonic()
                recent = sum(now - at < AGAIN_SECONDS for at in self._healed)
                self._healed.append(now)
                if recent >= 2:
                    self._drop(f"{reason}, for the third time within {AGAIN_SECONDS:g} s")
                    return
                self._again = self._again or recent == 1
        self._wake()

    def _heal(self, now: float) -> list[str]:
        pairs = self._feed.pairs
        for ticker in tuple(self._waits):
            pair = pairs.get(ticker)
            if pair is None or pair.live or self._is_over(ticker):
                del self._waits[ticker]
        have = self._have.get(ORDERBOOK, set())
        # Wanted again before the venue was told that it was not: it sends no snapshot by itself.
        lost = {name for name in have if name not in self._waits and not self._is_over(name)}
        lost = {name for name in lost if (pair := pairs.get(name)) is not None and not pair.live}
        self._asks |= lost
        overdue = {ticker: step for ticker, (since, step) in self._waits.items() if now - since >= FIRST_SNAPSHOT}
        if overdue:
            step = max(overdue.values())
            if step >= _RESUBSCRIBED:
                self._drop(f"no snapshot of {len(overdue)} books, also after subscribing again")
                return []
            if step == _ASKED:
                self._again = True
            self._asks.update(overdue)
        if not self._asks:
            return []
        asks, self._asks = self._asks, set()
        sid = self._feed.sid_of(ORDERBOOK)
        if self._again and sid is not None:
            self._again = False
            self._expect(ORDERBOOK, asks, _RESUBSCRIBED)
            return [self._unsubscribe(ORDERBOOK, sid, "subscribing again")]
        known = sorted(ticker for ticker in asks if ticker in have and ticker in pairs)
        self._expect(ORDERBOOK, known, _ASKED)
        if sid is None or not known:
            return []
        return [update(self._issue(_SNAPSHOT, ORDERBOOK, known), sid, _SNAPSHOT, known)]

    # Replies.

    def on_control(self, frame: Control) -> None:
        """A reply of the venue. Commands of an earlier connection are long forgotten."""
        command = self._commands.pop(frame.id, None) if frame.id is not None else None
        if isinstance(frame, ErrorFrame):
            self._error(frame, command)
            return
        channel, delay = command.channel if command is not None else "", 0.0
        if isinstance(frame, SubscribedFrame):
            channel = frame.msg.channel
            self._have.setdefault(channel, set()).update(command.names if command is not None else ())
        elif isinstance(frame, OkFrame):
            delay = 0.0 if self._ok(frame, command) else RETRY_SECONDS
        elif isinstance(frame, UnsubscribedFrame):
            channel = channel or self._feed.channel_of(frame.sid)
            self._have.pop(channel, None)
        if channel:
            self.touch(channel, delay)

    def _ok(self, frame: OkFrame, command: _Command | None) -> bool:
        """Whether the venue did what it was told, as far as the reply says."""
        if command is None or command.what == _SNAPSHOT:
            return True
        have = self._have.setdefault(command.channel, set())
        listed = frame.msg.market_tickers if isinstance(frame.msg, Tickers) else None
        if listed is not None and command.channel in _FILTERED:
            have.clear()
            have.update(listed)
            return command.names.isdisjoint(have) if command.what == "delete_markets" else command.names <= have
        if command.what == "delete_markets":
            have -= command.names
        else:
            have |= command.names
        return True

    def _error(self, frame: ErrorFrame, command: _Command | None) -> None:
        code, text = frame.msg.code, f"code {frame.msg.code}: {printable(frame.msg.msg, 100)}"
        if code in ENDED_CODES:
            channel = self._feed.channel_of(frame.sid) if frame.sid is not None else ""
            self._restart(command.channel if command is not None else channel, text)
        elif command is None:
            _LOG.warning("kalshi: the venue says %s", text)
        elif code == UNKNOWN_SID:
            sid = self._feed.sid_of(command.channel)
            if sid is not None:
                self._feed.end(sid, "the venue does not know the subscription")
            self._restart(command.channel, text)
        elif code in FINAL_CODES and command.what in ("subscribe", "add_markets"):
            names = {frame.msg.market_ticker} if frame.msg.market_ticker in command.names else command.names
            self._refuse(command.channel, names, text)
            self.touch(command.channel)
        else:
            _LOG.warning("kalshi: %s was answered with %s; asking again", command.what, text)
            if command.what == "delete_markets":
                self._have.get(command.channel, set()).difference_update(command.names)
            self.touch(command.channel, RETRY_SECONDS)

    def _restart(self, channel: str, text: str) -> None:
        """The venue has ended a subscription: subscribe again, and on repetition connect again."""
        now = self._clock.io_monotonic()
        recent = sum(now - at < AGAIN_SECONDS for at in self._healed)
        self._healed.append(now)
        _LOG.warning("kalshi: a subscription has ended (%s); subscribing again", text)
        if recent >= 2:
            self._drop(f"subscriptions end again and again ({text})")
            return
        for one in [channel] if channel else list(self._have):
            self._have.pop(one, None)
            self.touch(one, RETRY_SECONDS * recent)

    def _refuse(self, channel: str, names: Iterable[str | None], text: str) -> None:
        for name in names:
            if name is not None:
                self.refused[(channel, name)] = text
                self._waits.pop(name, None)
                pair = self._feed.pairs.get(name) if channel == ORDERBOOK else None
                if pair is not None:
                    pair.expire(f"the venue refused the subscription ({text})")
        _LOG.error("kalshi: a subscription on %s was refused: %s", channel, text)
