"""`Link`: one connection in service, with the tasks and timers that live and end with it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from websockets.exceptions import ConnectionClosed

from pmkit.clock import Clock, Timer
from pmkit.errors import NotSent, PmkitError, VenueUnavailable
from pmkit.wakeup import WakeWatch
from pmkit.websocket.connection import Connection
from pmkit.websocket.failures import Failure, of_close, printable
from pmkit.websocket.reports import FrameError, Reports
from pmkit.websocket.transport import Pacer

if TYPE_CHECKING:
    from pmkit.websocket.base import BaseWebSocket

K = TypeVar("K", bound=Hashable)

CONFIRM_SECONDS = 5.0
AWAKE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`deadline`, `ping_every` and `pong_timeout` in wall seconds, `pace` in frames per wall second."""

    deadline: float | None
    ping_text: str | None
    pong: bytes | None
    ping_every: float
    pong_timeout: float
    pace: float


class Link(Generic[K]):
    """One connection of `socket`. `wanted` is the socket's state, read whenever it may have changed.

    `on_ready()` is called when everything wanted was subscribed, `on_delivery()` at the first data frame, and
    `on_loss(link, failure)` when the connection ended by itself.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        settings: LinkSettings,
        socket: BaseWebSocket[K],
        wanted: Mapping[K, None],
        reports: Reports,
        *,
        on_ready: Callable[[], None],
        on_delivery: Callable[[], None],
        on_loss: Callable[[Link[K], Failure], None],
    ) -> None:
        self.ready = False
        self.data_frames = 0
        self.last_data_ns = 0
        self.up_since = clock.monotonic()
        self.timers: list[Timer] = []
        self._connection = connection
        self._clock = clock
        self._settings = settings
        self._socket = socket
        self._on_ready = on_ready
        self._on_delivery = on_delivery
        self._on_loss = on_loss
        self._wanted = wanted
        self._reports = reports
        self._last_data = self._last_pong = clock.io_monotonic()
        self._told: dict[K, None] = {}
        self._introduced = False
        self._first = True
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pacer = Pacer(clock, settings.pace)
        self._ended = False

    async def introduce(self, seconds: float) -> None:
        """Subscribe, and wait for what comes first, but not longer than that. For a link that is not serving yet.

        Raises ConnectionClosed, NotSent or VenueUnavailable.
        """
        await self._replay()
        try:
            async with self._clock.io_timeout(seconds):
                await self._connection.spoken()
        except TimeoutError:
            return

    def serve(self) -> None:
        """Start reading (what waits first), subscribing and watching."""
        settings = self._settings
        self._spawn(self._read(), "reader")
        self._spawn(self._subscribe(), "subscriptions")
        self._spawn(self._stay_awake(), "wake watch")
        if settings.deadline is not None:
            self._spawn(self._watch(settings.deadline), "data deadline")
        if settings.ping_text is not None:
            self._spawn(self._ping(settings.ping_text), "pings")

    async def told(self) -> None:
        """Tell the venue what changed in `wanted`; returns when it was sent, or when this link ended."""
        if not self._ended:
            self._settled.clear()
            self._changed.set()
            await self._settled.wait()

    async def send(self, frame: str | bytes) -> None:
        """Send one text frame in its turn. Raises NotSent, or VenueUnavailable when it broke while sending."""
        await self._pacer.turn()
        if self._ended or not self._connection.is_open:
            raise NotSent("the connection is gone: nothing was sent")
        try:
            await self._connection.send(frame if isinstance(frame, str) else frame.decode())
        except ConnectionClosed:
            raise VenueUnavailable("the connection broke while a frame was being sent") from None

    def end(self) -> None:
        """From here on no frame is handed over, and nobody waits for this link."""
        self._ended = True
        for timer in self.timers:
            timer.cancel()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._changed.set()
        self._settled.set()

    async def ended(self) -> None:
        """Wait until its tasks are done. Call `end` first."""
        if rest := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(rest)

    async def close(self) -> None:
        """End, and say goodbye to the venue: about half a second at most."""
        self.end()
        await self._connection.hang_up()
        await self.ended()

    # Its tasks.

    async def _read(self) -> None:
        try:
            self._connection.deliver_to(self._receive)
            while True:
                self._receive([await self._connection.recv(False)])  # none: it only ends, with the reason
        except ConnectionClosed as error:
            self._on_loss(self, of_close(error, self._socket.refusing_codes))

    def _receive(self, messages: Sequence[bytes]) -> None:
        """The messages of one read, in order. What they are given as their time is the time of the read."""
        on_frame, stats, pong = self._socket._on_frame, self._reports.stats, self._settings.pong
        received_ns, now = self._clock.time_ns(), self._clock.io_monotonic()
        for data in messages:
            if self._ended:
                return
            stats.frames += 1
            stats.bytes += len(data)
            if data == pong:
                self._last_pong = now
                continue
            try:
                if not data:
                    raise FrameError("an empty frame")
                is_data = on_frame(data, received_ns)
            except FrameError as error:
                self._reports.garbage(data, error)
                continue
            except Exception as error:
                self._reports.failed("_on_frame", error)
                continue
            except asyncio.CancelledError as error:
                # Nothing here can be cancelled: a callback let it out. It must not go on into the transport.
                self._reports.failed("_on_frame", error)
                self._on_loss(self, Failure("the reader ended by itself"))
                return
            if is_data:
                stats.data_frames += 1
                self._last_data = now
                self.last_data_ns = received_ns
                self.data_frames += 1
                if self.data_frames == 1:
                    self._on_delivery()

    async def _subscribe(self) -> None:
        """Keep the venue's subscriptions in line with what is wanted."""
        try:
            while True:
                self._changed.clear()
                await self._replay()
                self._settled.set()
                if not self.ready:
                    self.ready = True
                    self._on_ready()
                await self._changed.wait()
        except (NotSent, VenueUnavailable):
            return  # the reader sees the same end, and says why

    async def _replay(self) -> None:
        while frames := self._difference():
            for frame in frames:
                await self.send(frame)

    def _difference(self) -> list[str | bytes]:
        """The frames that bring the venue from what it was told on this connection to what is wanted now."""
        told = self._told
        fresh = [key for key in self._wanted if key not in told]
        gone = [key for key in told if key not in self._wanted]
        frames: list[str | bytes] = []
        if fresh or not self._introduced:
            self._introduced = True
            frames += self._socket._subscribe_frames(fresh, self._first)
            self._first = self._first and not frames
        if fresh and not told:
            self._last_data = self._clock.io_monotonic()
        if gone:
            frames += self._socket._unsubscribe_frames(gone)
        told.update(dict.fromkeys(fresh))
        for key in gone:
            del told[key]
        return frames

    async def _watch(self, deadline: float) -> None:
        """The data deadline: one sleeping task that looks at the stamp of the last data frame."""
        clock = self._clock
        while True:
            if not self._wanted:
                self._last_data = clock.io_monotonic()
            left = self._last_data + deadline - clock.io_monotonic()
            if left > 0:
                await clock.io_sleep(left)
                continue
            self._reports.stats.silences += 1
            seen = self.data_frames
            if await self._confirmed():
                self._last_data = clock.io_monotonic()
            elif self.data_frames == seen:
                self._on_loss(self, Failure(f"no data for {deadline:g} s of wall time"))
                return

    async def _stay_awake(self) -> None:
        """After a sleep of the machine the other side may be gone without a word, and what is buffered is old."""
        watch = WakeWatch(self._clock)
        while True:
            await self._clock.io_sleep(AWAKE_SECONDS)
            lapse = watch.look(AWAKE_SECONDS)
            if lapse.slept:
                self._on_loss(self, Failure(f"this machine was away for {lapse.missing:.0f} s"))
                return

    async def _confirmed(self) -> bool:
        try:
            async with self._clock.io_timeout(CONFIRM_SECONDS):
                return await self._socket._confirm_silence()
        except (TimeoutError, PmkitError):
            return False  # nobody could confirm it: the loss that follows says so
        except Exception as error:
            self._reports.failed("_confirm_silence", error)
            return False

    async def _ping(self, text: str) -> None:
        clock, settings = self._clock, self._settings
        next_ping = clock.io_monotonic() + settings.ping_every
        try:
            while True:
                dead = self._last_pong + settings.pong_timeout if settings.pong is not None else math.inf
                if (left := min(next_ping, dead) - clock.io_monotonic()) > 0:
                    await clock.io_sleep(left)
                    continue
                if dead <= next_ping:
                    why = f"no {printable(settings.pong, 20)} for {settings.pong_timeout:g} s"
                    self._on_loss(self, Failure(why))
                    return
                await self.send(text)
                next_ping = clock.io_monotonic() + settings.ping_every
        except (NotSent, VenueUnavailable):
            return  # the reader sees the same end, and says why

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"pmkit link {what}")
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._reports.failed(what, error)
            # A reader that ended for a reason of its own (say, a hook raised CancelledError) must leave no dead feed.
            if not self._ended and (error is not None or what == "reader"):
                self._on_loss(self, Failure(f"the {what} ended by itself"))

        task.add_done_callback(done)
