"""Kalshi's market-data socket: a `BookFeed` on a connection that comes back.

Kalshi wants every handshake signed, also for public data; each attempt is signed anew, with the venue's time.
`BookFeed` can be used without a socket, for replays and benchmarks.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from pmkit.clock import Clock, Timer
from pmkit.errors import AuthError, NotSent, PmkitError, VenueUnavailable
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.book_feed import UNKNOWN, UNPARSED, BookFeed
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.signed_ws import SignedSocket
from pmkit.exchanges.kalshi.subscriptions import Key, Subscriptions
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import FrameError
from pmkit.websocket.deadlines import KALSHI_BOOK

__all__ = ["BookFeed", "KalshiSocket", "Key"]

CROSS_SECONDS: Final = 0.25
"""Wall seconds that a book may stay crossed before it is rebuilt."""
MAX_AGE_SECONDS: Final = 10.0
"""Market seconds (at least one of wall time) that a change may be old when it arrives."""
_KEEP_SECONDS: Final = 0.5
_MAX_FRAME_BYTES: Final = 64 * 2**20
_OWN_MARKS: Final = re.compile(
    rb',\s*"(?:client_order_id|subaccount)"\s*:\s*(?:"[^"]*"|\d+|null)'
    rb'|"(?:client_order_id|subaccount)"\s*:\s*(?:"[^"]*"|\d+|null)\s*,?'
)
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiSocket(SignedSocket[Key]):
    """One connection for books, trades and market news.

    `confirm()` is asked when nothing came for `KALSHI_BOOK` market seconds.
    """

    public = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        feed: BookFeed,
        *,
        venue_clock: VenueClock,
        confirm: Callable[[], Awaitable[bool]],
        measure: Callable[[], Awaitable[object]],
        is_over: Callable[[str], bool],
        on_gap: Callable[[str, int], object] | None = None,
        compression: bool = False,
    ) -> None:
        super().__init__(
            url,
            clock,
            signer,
            venue_clock=venue_clock,
            measure=measure,
            name="kalshi",
            deadline=KALSHI_BOOK,
            on_gap=on_gap,
            compression=compression,
            max_size=_MAX_FRAME_BYTES,
        )
        self.feed = feed
        self.aged = 0
        self.keeper_errors = 0
        self._work = asyncio.Event()
        self.subscriptions = Subscriptions(
            feed,
            clock,
            wanted=lambda: self.wanted,
            drop=self.drop,
            wake=self._work.set,
            is_over=is_over,
        )
        self._confirm = confirm
        self._crosses: dict[str, Timer] = {}
        self._keeper: asyncio.Task[None] | None = None
        feed.on_crossed = self._on_crossed

    def _subscribe_frames(self, keys: Sequence[Key], first: bool) -> Sequence[str | bytes]:
        if first:
            return self.subscriptions.first(keys)
        for channel in dict.fromkeys(channel for channel, _ in keys):  # a set has another order in each process
            self.subscriptions.touch(channel)
        return []

    def _unsubscribe_frames(self, keys: Sequence[Key]) -> Sequence[str | bytes]:
        for channel in dict.fromkeys(channel for channel, _ in keys):  # a set has another order in each process
            self.subscriptions.touch(channel)
        return []

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        feed = self.feed
        code = feed.receive(data, received_ns)
        if code >= 0:
            return True
        if code == UNPARSED:
            raise FrameError("not a frame of Kalshi's, or one of a known type that does not fit")
        if code == UNKNOWN and feed.last_unknown:
            self.count_unknown(feed.last_unknown)
        return False

    def _public_part(self, frame: bytes, sent: bool) -> bytes | None:
        """Changes of a book that own orders made are marked with their client order id and subaccount."""
        if b'"client_order_id"' not in frame and b'"subaccount"' not in frame:
            return frame
        bare = _OWN_MARKS.sub(b"", frame)
        return None if b"client_order_id" in bare or b"subaccount" in bare else bare

    def _on_connect(self) -> None:
        self._end_crosses()
        self.subscriptions.forget()
        self.feed.begin(self.generation)

    def _on_disconnect(self, reason: str) -> None:
        self._end_crosses()
        self.subscriptions.forget()
        self.feed.reset(f"disconnected: {reason}")

    async def _confirm_silence(self) -> bool:
        return await self._confirm()

    async def start(self) -> None:
        """Begin to connect, and return at once. A second call does nothing."""
        await super().start()
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="pmkit kalshi keeper")

    async def close(self) -> None:
        """End everything, within a second of wall time. May be called again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        self._end_crosses()
        await super().close()

    def problem(self, keys: Iterable[Key]) -> PmkitError | None:
        """Why these will not come soon: the handshake or a command was refused. None: nothing is known against it."""
        if self.stats.blocked:
            return AuthError(
                f"{self.host} refuses the socket ({self.stats.blocked}): check the key, its environment (demo or "
                "production) and this machine's clock"
            )
        for key in keys:
            said = self.subscriptions.refused.get(key)
            if said is not None:
                return VenueUnavailable(f"{self.host} refused to subscribe {key[1] or key[0]}: {said}")
        return None

    # The keeper: what cannot wait for the next frame.

    async def _keep(self) -> None:
        while True:
            try:
                async with self._clock.io_timeout(_KEEP_SECONDS):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            try:
                await self._attend()
            except (NotSent, VenueUnavailable) as error:
                _LOG.debug("kalshi: %s", error)  # the connection broke: it is replaced, and all of this begins anew
            except Exception:
                self.keeper_errors += 1
                if self.keeper_errors in (1, 10, 100) or self.keeper_errors % 1000 == 0:
                    _LOG.exception("kalshi: keeping the subscriptions failed (%d times so far)", self.keeper_errors)

    async def _attend(self) -> None:
        if not self.connected:
            return
        self._check_age()
        for frame in self.subscriptions.due():
            await self.send(frame)

    def _check_age(self) -> None:
        """Messages that come seconds late mean that this process, or the venue, cannot keep up (failure mode MD-13)."""
        if self.feed.lag_ms and self._venue_clock.uncertainty_ms is not None:
            age_ms = self.feed.lag_ms + self._venue_clock.offset_ms
            if age_ms > self._clock.deadline(MAX_AGE_SECONDS) * self._clock.factor * 1000:
                self.aged += 1
                self.drop(f"messages are {age_ms / 1000:.1f} s old when they arrive")

    def _on_crossed(self, pair: BookPair) -> None:
        if pair.ticker not in self._crosses:
            since_ns = pair.yes.crossed_since_ns
            self._crosses[pair.ticker] = self._clock.io_call_later(CROSS_SECONDS, self._uncross, pair, since_ns)

    def _uncross(self, pair: BookPair, since_ns: int) -> None:
        self._crosses.pop(pair.ticker, None)
        if not pair.crossed or not pair.sid or self.feed.pairs.get(pair.ticker) is not pair:
            return
        if pair.yes.crossed_since_ns != since_ns:
            self._on_crossed(pair)  # it uncrossed and crossed again meanwhile
            return
        sid = pair.sid
        pair.expire(f"crossed for {CROSS_SECONDS:g} s")
        self.subscriptions.on_resync(sid, (pair.ticker,), "crossed")

    def _end_crosses(self) -> None:
        for timer in self._crosses.values():
            timer.cancel()
        self._crosses.clear()
