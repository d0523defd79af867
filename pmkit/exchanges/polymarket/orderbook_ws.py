"""The market channel: one socket, at most 200 assets, and the care for their books.

`BookFeed` says what cannot be trusted; this shell gets it made anew: by subscribing the asset again, by a REST book
with the parked changes on top, and at last by another connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import NotSent, PmkitError, VenueUnavailable
from pmkit.exchanges.polymarket.book_feed import BookFeed
from pmkit.exchanges.polymarket.live_book import GRACE_NS, TICK_CHANGED
from pmkit.exchanges.polymarket.messages import RestBook, subscribe_frame, unsubscribe_frame
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import BaseWebSocket, FrameError
from pmkit.websocket.deadlines import FIRST_SNAPSHOT, POLYMARKET_MARKET

__all__ = ["ASSETS_PER_SOCKET", "BookFeed", "MarketSocket"]

_LOG = logging.getLogger("pmkit.polymarket")

ASSETS_PER_SOCKET: Final = 200
"""No maximum is published; stalls were reported at about 250 (py-clob-client issue 292)."""

RENEW_AFTER: Final = 1_500.0
"""Market seconds. Connections of this venue go silent; a fresh one every 25 minutes costs nothing."""

FRESH_BOOK_SECONDS: Final = 1.0
"""Wall seconds for the book that should follow a new subscription or a tick change; then REST is asked."""

MIN_GRACE_SECONDS: Final = 0.05
"""Wall seconds: however fast market time runs, the next message must have a chance to arrive."""

LAG_SECONDS: Final = 5.0
"""Wall seconds that changes may be old when they are read; beyond, the reader fell behind and begins anew."""

_LAG_EVERY: Final = 64
_CALM_SECONDS: Final = 10.0
_MAX_WAIT: Final = 30.0
_DROPS: Final = 2

ReadBooks = Callable[[Sequence[str]], Awaitable[list[RestBook]]]


class _Step(Enum):
    """What is tried next for a book that is waited for."""

    SUBSCRIBE = auto()
    REST = auto()


class _Repair:
    """One book that is waited for. `due`: wall time of the next step."""

    __slots__ = ("due", "step", "tries")

    def __init__(self, step: _Step, due: float, tries: int = 0) -> None:
        self.step = step
        self.due = due
        self.tries = tries


class MarketSocket(BaseWebSocket[str]):
    """A connection to the market channel; keys are token ids.

    `read_books` is POST /books. `is_over` says whether an asset's market has ended: nothing more comes for it, and that
    is no fault.
    """

    public = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        venue_clock: VenueClock,
        *,
        name: str,
        read_books: ReadBooks,
        is_over: Callable[[str], bool],
        deadline: float | None = POLYMARKET_MARKET,
    ) -> None:
        super().__init__(
            url,
            clock,
            name=name,
            deadline=deadline,
            ping_text="PING",
            pong_text="PONG",
            ping_every=10.0,
            renew_after=RENEW_AFTER,
        )
        self.feed = BookFeed()
        self.feed.on_lost = self._lost_book
        self.feed.on_doubt = self._doubted
        self.feed.on_unknown = self.count_unknown
        self.repaired = 0
        self._venue_clock = venue_clock
        self._read_books = read_books
        self._is_over = is_over
        self._repairs: dict[str, _Repair] = {}
        self._losses: dict[str, tuple[int, float]] = {}
        self._drops: dict[str, int] = {}
        self._mend = asyncio.Event()
        self._mender: asyncio.Task[None] | None = None
        self._next_log = 0.0

    @property
    def room(self) -> int:
        """How many assets it can still take."""
        return ASSETS_PER_SOCKET - len(self.wanted)

    def forget(self, tokens: Iterable[str]) -> None:
        """Drop the books of assets. Call `unwant` as well."""
        for token in tokens:
            self.feed.remove(token)
            self._repairs.pop(token, None)
            self._losses.pop(token, None)
            self._drops.pop(token, None)

    async def start(self) -> None:
        """Begin to connect, and return at once. A second call does nothing."""
        await super().start()
        if self._mender is None:
            self._mender = asyncio.get_running_loop().create_task(self._mend_books(), name=f"pmkit {self.name} repairs")

    async def close(self) -> None:
        """End everything, within a second of wall time. May be called again."""
        mender = self._mender
        if mender is not None and not mender.done():
            mender.cancel()
            await asyncio.gather(mender, return_exceptions=True)
        await super().close()

    # What BaseWebSocket asks for.

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> list[str | bytes]:
        if not keys:
            return []
        self._expect(keys)
        return [subscribe_frame(list(keys), first)]

    def _unsubscribe_frames(self, keys: Sequence[str]) -> list[str | bytes]:
        return [unsubscribe_frame(list(keys))]

    def _on_connect(self) -> None:
        self.feed.connected(self.generation)
        self._repairs.clear()
        self._expect(self.wanted)

    def _on_disconnect(self, reason: str) -> None:
        self._repairs.clear()
        self.feed.disconnected(reason)

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        feed = self.feed
        bad, seen = feed.garbage + feed.unparsed, feed.data_frames
        feed.apply(data, received_ns)
        if feed.garbage + feed.unparsed != bad:
            raise FrameError(feed.last_error)
        if not feed.frames % _LAG_EVERY:
            self._check_lag(received_ns)
        return feed.data_frames != seen

    async def _confirm_silence(self) -> bool:
        """Nothing came for a while: compare all books with one REST read."""
        feed = self.feed
        feed.suspect("silent")
        seen = self.stats.data_frames
        tokens = [token for token in self.wanted if not self._is_over(token)]
        answers = {book.asset_id: book for book in await self._read_books(tokens)} if tokens else {}
        quiet = self.stats.data_frames == seen
        different = [token for token in tokens if not self._same(token, answers.get(token))]
        # An asset that nothing was ever heard of may not be subscribed at all, whatever the others say.
        unheard = [token for token in tokens if (live := feed.books.get(token)) is not None and not live.heard]
        if quiet and (different or (unheard and self._worth_another(unheard))):
            return False
        for token in different:
            # Data came while REST was asked: only these books are in question, not the connection.
            live = feed.books.get(token)
            if live is not None and live.live:
                live.lose("differs from the venue's book", live.book.venue_ms)
        feed.confirm()
        return True

    def _same(self, token: str, answer: RestBook | None) -> bool:
        live = self.feed.books.get(token)
        if live is None or not live.live:
            return True  # it is waited for anyway
        return answer is not None and live.same_levels(answer)

    # Doubts and losses.

    def _doubted(self, token: str, doubt: int) -> None:
        grace = max(GRACE_NS / 1e9 / self._clock.factor, MIN_GRACE_SECONDS)
        self._clock.io_call_later(grace, self.feed.check, token, doubt)

    def _lost_book(self, token: str, reason: str) -> None:
        now = self._clock.io_monotonic()
        if reason == TICK_CHANGED:
            self._repair(token, _Repair(_Step.REST, now + FRESH_BOOK_SECONDS))
            return
        count, last = self._losses.get(token, (0, 0.0))
        count = count + 1 if now - last < _CALM_SECONDS else 0
        self._losses[token] = (count, now)
        wait = min(_MAX_WAIT, 0.5 * 2.0 ** min(count, 10)) if count else 0.0
        self._warn("the book of %s is made anew (%s)", token, reason)
        self._repair(token, _Repair(_Step.SUBSCRIBE, now + wait, count))

    def _expect(self, tokens: Iterable[str]) -> None:
        """A first snapshot is due for these."""
        due = self._clock.io_monotonic() + FIRST_SNAPSHOT
        for token in tokens:
            self._repair(token, _Repair(_Step.REST, due))

    def _repair(self, token: str, repair: _Repair) -> None:
        self._repairs[token] = repair
        self._mend.set()

    def _warn(self, text: str, *what: object) -> None:
        """Log, but not more often than every ten seconds."""
        now = self._clock.io_monotonic()
        if now >= self._next_log:
            self._next_log = now + _CALM_SECONDS
            _LOG.warning(f"%s: {text}", self.name, *what)

    async def _mend_books(self) -> None:
        """The one task for repairs: takes the steps that are due, in one go for all books that wait."""
        clock = self._clock
        while True:
            self._mend.clear()
            now = clock.io_monotonic()
            due = [token for token, repair in self._repairs.items() if repair.due <= now]
            if due:
                try:
                    await self._step(due)
                except (NotSent, VenueUnavailable) as error:
                    self._warn("repairs wait for the next connection (%s)", error)  # which expects all books anew
                except Exception:
                    _LOG.exception("%s: a repair failed", self.name)
                    await clock.io_sleep(1.0)
                continue
            nearest = min((repair.due for repair in self._repairs.values()), default=None)
            try:
                async with clock.io_timeout(None if nearest is None else nearest - now):
                    await self._mend.wait()
            except TimeoutError:
                continue

    async def _step(self, due: list[str]) -> None:
        fresh: list[str] = []
        read: list[str] = []
        unheard: list[str] = []
        for token in due:
            live = self.feed.books.get(token)
            repair = self._repairs[token]
            if live is None or live.live or self._is_over(token):
                del self._repairs[token]
                self._drops.pop(token, None)
            elif repair.step is _Step.SUBSCRIBE:
                repair.step, repair.due = _Step.REST, self._clock.io_monotonic() + FRESH_BOOK_SECONDS
                fresh.append(token)
            elif live.heard:
                read.append(token)
            else:
                # A REST book would look valid and never change: the subscription is what does not work.
                repair.step, repair.due = _Step.SUBSCRIBE, self._clock.io_monotonic() + _MAX_WAIT
                unheard.append(token)
        if unheard and self._worth_another(unheard):
            self.drop(f"no book of {len(unheard)} assets within {FIRST_SNAPSHOT:g} s of subscribing")
            return
        if fresh:
            await self.send(unsubscribe_frame(fresh))
            await self.send(subscribe_frame(fresh, False))
        if read:
            await self._read(read)

    def _worth_another(self, tokens: list[str]) -> bool:
        """Whether assets without a first book are worth another connection: not for ever, the others have books."""
        worth = any(self._drops.get(token, 0) < _DROPS for token in tokens)
        for token in tokens:
            self._drops[token] = self._drops.get(token, 0) + 1
        return worth

    async def _read(self, tokens: list[str]) -> None:
        generation = self.generation
        try:
            books = await self._read_books(tokens)
        except PmkitError as error:
            books = []
            self._warn("books could not be read over REST: %s", error)
        if generation != self.generation:
            return
        received_ns = self._clock.time_ns()
        for book in books:
            if book.asset_id in tokens and self.feed.merge(book, received_ns):
                self._repairs.pop(book.asset_id, None)
                self.repaired += 1
        now = self._clock.io_monotonic()
        for token in tokens:
            repair = self._repairs.get(token)
            if repair is not None and repair.step is _Step.REST and repair.due <= now:
                repair.tries += 1
                repair.step, repair.due = _Step.SUBSCRIBE, now + min(_MAX_WAIT, 0.5 * 2.0 ** min(repair.tries, 10))

    def _check_lag(self, received_ns: int) -> None:
        """Replace a connection whose messages are old when they are read: its buffers are full of the past."""
        venue, clock, change_ms = self._venue_clock, self._clock, self.feed.change_ms
        if venue.uncertainty_ms is None or venue.uncertainty_ms > 1000 * clock.factor or not change_ms:
            return  # without a measured clock an offset would look like lag
        lag_ms = received_ns // 1_000_000 + venue.offset_ms - change_ms
        if lag_ms > LAG_SECONDS * 1000 * clock.factor:
            self.drop(f"its messages are {lag_ms / 1000:.1f} s old")
