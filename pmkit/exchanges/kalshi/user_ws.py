"""Kalshi's user socket: own fills, orders and positions as they change.

The handshake is signed, and the venue acknowledges each channel: until all are acknowledged on the current connection
nothing is known to be listened to (`live`). The stream does not replay: `on_live` is called with every new connection,
for the back-fill. An accepted order of which the socket says nothing proves it deaf: it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from pmkit.clock import Clock, Timer
from pmkit.errors import AuthError, PmkitError, VenueUnavailable
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.messages import (
    ENDED_CODES,
    Envelope,
    ErrorFrame,
    OkFrame,
    SubscribedFrame,
    UnsubscribedFrame,
    decode_envelope,
    subscribe,
    unsubscribe,
)
from pmkit.exchanges.kalshi.sequence import Stream, Verdict
from pmkit.exchanges.kalshi.signed_ws import SignedSocket
from pmkit.exchanges.kalshi.types import RowError
from pmkit.exchanges.kalshi.user_messages import (
    FILL,
    MARKET_POSITIONS,
    USER_ORDERS,
    USER_TYPES,
    UserEvent,
    decode_user_frame,
)
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import FrameError
from pmkit.websocket.deadlines import KALSHI_USER
from pmkit.websocket.failures import printable

CHANNELS: Final = (FILL, USER_ORDERS, MARKET_POSITIONS)
ACK_SECONDS: Final = 5.0
"""Wall seconds within which every channel must be acknowledged, and within which an accepted order must be heard of."""
_CONTROL: Final = frozenset({"subscribed", "ok", "unsubscribed", "error"})
_LOG = logging.getLogger("pmkit.kalshi")


class UserSocket(SignedSocket[str]):
    """One connection for one account. Keys are channels.

    `on_event(frame, received_ns)`: an own fill, order or position; may raise RowError. `on_live()`: every channel is
    acknowledged on a new connection. `on_missed(reason)`: a number in a sequence is missing. `missed` and
    `deaf` count.
    """

    log_frames = False

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        *,
        venue_clock: VenueClock,
        on_event: Callable[[UserEvent, int], object],
        on_live: Callable[[], object],
        on_missed: Callable[[str], object],
        measure: Callable[[], Awaitable[object]],
        compression: bool = False,
    ) -> None:
        super().__init__(
            url,
            clock,
            signer,
            venue_clock=venue_clock,
            measure=measure,
            name="kalshi user",
            deadline=KALSHI_USER,
            compression=compression,
            max_size=64 * 2**20,
        )
        self.missed = 0
        self.deaf = 0
        self.refused = ""
        self._on_event = on_event
        self._on_live = on_live
        self._on_missed = on_missed
        self._ids = 0
        self._asked: dict[int, str] = {}
        self._acked: set[str] = set()
        self._streams: dict[int, Stream] = {}
        self._timer: Timer | None = None
        self._live = asyncio.Event()

    @property
    def live(self) -> bool:
        """Whether the venue has acknowledged every channel on the current connection."""
        return self._live.is_set()

    async def wait_live(self, seconds: float) -> None:
        """Wait wall seconds until `live`. Raises AuthError where the venue refuses the key, else VenueUnavailable."""
        try:
            async with self._clock.io_timeout(seconds):
                await self._live.wait()
        except TimeoutError:
            raise self._problem(seconds) from None

    def _problem(self, seconds: float) -> PmkitError:
        if self.stats.blocked:
            return AuthError(
                f"{self.host} refuses the user socket ({self.stats.blocked}): check the key, its environment (demo or "
                "production) and this machine's clock"
            )
        why = self.refused or self.stats.last_reason or "no answer"
        return VenueUnavailable(f"{self.host} has not acknowledged the user stream within {seconds:g} s ({why})")

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> Sequence[str | bytes]:
        frames: list[str | bytes] = []
        if first:
            self._asked.clear()
        for channel in keys:
            self._ids += 1
            self._asked[self._ids] = channel
            frames.append(subscribe(self._ids, channel, ()))
        return frames

    def _unsubscribe_frames(self, keys: Sequence[str]) -> Sequence[str | bytes]:
        frames: list[str | bytes] = []
        for sid, stream in list(self._streams.items()):
            if stream.channel in keys:
                self._ids += 1
                frames.append(unsubscribe(self._ids, sid))
                self._acked.discard(stream.channel)
        return frames

    def _on_connect(self) -> None:
        self._forget()
        self._timer = self._clock.io_call_later(ACK_SECONDS, self._unacknowledged, self.generation)

    def _on_disconnect(self, reason: str) -> None:
        self._forget()

    def _forget(self) -> None:
        self._live.clear()
        self._acked.clear()
        self._streams.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unacknowledged(self, generation: int) -> None:
        missing = [channel for channel in self.wanted if channel not in self._acked]
        if generation == self.generation and missing:
            self.drop(f"{', '.join(missing)} not acknowledged within {ACK_SECONDS:g} s")

    # Frames.

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            envelope = decode_envelope(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._on_missed("a frame that could not be read")
            raise FrameError("not a frame of Kalshi's") from error
        if envelope.type not in USER_TYPES and envelope.type not in _CONTROL:
            self._count(envelope)
            self.count_unknown(envelope.type)
            return False
        try:
            frame = decode_user_frame(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            # What it said is lost here, but not for the account.
            self._count(envelope)
            self._on_missed("a frame that could not be read")
            raise FrameError(f"a {envelope.type} frame that does not fit") from error
        if isinstance(frame, SubscribedFrame):
            self._subscribed(frame)
            return False
        self._count(envelope)
        if isinstance(frame, ErrorFrame):
            self._error(frame)
            return False
        if isinstance(frame, OkFrame | UnsubscribedFrame):
            return False
        try:
            self._on_event(frame, received_ns)
        except RowError as error:
            self._on_missed("an event with numbers or words that cannot be")
            raise FrameError(str(error)) from error
        return True

    def _count(self, frame: Envelope) -> None:
        """Numbers are not documented for these channels, and count where they are there."""
        if frame.sid is None or frame.seq is None:
            return
        stream = self._streams.get(frame.sid)
        if stream is None:
            stream = self._streams[frame.sid] = Stream(frame.sid, "")
        verdict = stream.check(frame.seq, control=frame.type in _CONTROL)
        if verdict in (Verdict.GAP, Verdict.RESTART):
            self.missed += 1
            self._on_missed("a number of the user stream is missing")

    def _subscribed(self, frame: SubscribedFrame) -> None:
        channel = frame.msg.channel
        if frame.id is not None:
            self._asked.pop(frame.id, None)
        self._streams.setdefault(frame.msg.sid, Stream(frame.msg.sid, channel))
        self._acked.add(channel)
        if not self.live and all(one in self._acked for one in self.wanted):
            self.refused = ""
            self._live.set()
            self._on_live()

    def _error(self, frame: ErrorFrame) -> None:
        text = f"code {frame.msg.code}: {printable(frame.msg.msg, 100)}"
        channel = self._asked.pop(frame.id, "") if frame.id is not None else ""
        if frame.msg.code in ENDED_CODES:
            self.drop(f"a user subscription has ended ({text})")
        elif channel:
            self.refused = f"{channel} was refused with {text}"
            _LOG.error("kalshi: the user stream: %s", self.refused)
        else:
            _LOG.warning("kalshi: the user stream says %s", text)

    # Deafness.

    def expect(self, heard: Callable[[], bool]) -> None:
        """An order was accepted: within `ACK_SECONDS` of a connection that was live all the while the socket must speak
        of it. Silence beside activity that REST sees is a fault (UW-06)."""
        if self.live and not heard():
            self._clock.io_call_later(ACK_SECONDS, self._check_heard, self.generation, heard)

    def _check_heard(self, generation: int, heard: Callable[[], bool]) -> None:
        if generation == self.generation and self.live and not heard():
            self.deaf += 1
            self.drop(f"no word of an accepted order within {ACK_SECONDS:g} s")
