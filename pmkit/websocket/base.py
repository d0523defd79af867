"""`BaseWebSocket`: a socket that comes back, with its subscriptions, and never pretends to be alive.

What is wanted is state and is replayed on every connect. A loss is followed by attempts after 1, 2, 4, 8, 16, 30, 30
and so on market seconds; a planned renewal opens the new connection before the old one goes. Beside the protocol's
pings (and text pings, where the venue has them) a data deadline watches for venues that answer pings and say nothing.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Generic

from pmkit.clock import Clock
from pmkit.errors import NotSent, VenueUnavailable
from pmkit.recording.recorder import SocketTap, current
from pmkit.websocket.connection import Connection
from pmkit.websocket.failures import REFUSING_CODES, of_handshake
from pmkit.websocket.link import K, LinkSettings
from pmkit.websocket.recorded import RecordedConnection
from pmkit.websocket.reports import FrameError, Reports, SocketStats
from pmkit.websocket.supervisor import Supervisor, SupervisorSettings
from pmkit.websocket.transport import OPEN_SECONDS, open_connection

__all__ = ["BaseWebSocket", "FrameError", "SocketStats"]


class BaseWebSocket(ABC, Generic[K]):
    """A reconnecting socket with subscriptions of type K (a token id, "btcusdt@kline_1s", a ticker).

    `url`: one address, several (the next one is tried after a failure), or a function asked before every attempt.
    `deadline`: market seconds without a data frame until the connection is suspect; None: never (`deadlines.py`). It
    counts only while something is wanted.
    `on_gap(reason, since_ns)`: called after every new connection but the first, planned ones included, once what is
    wanted has been subscribed; `since_ns` is the receive time of the last data frame. May be async.
    `ping_text`, `pong_text`: keep-alive texts every `ping_every` wall seconds; without a PONG for `pong_timeout` wall
    seconds the connection is dropped. They run beside the protocol's own pings (`ping_interval`, `ping_timeout`).
    `renew_after`: market seconds after which a connection is replaced. `max_size`: bytes of the largest frame.
    `min_uptime`: market seconds that a connection which delivered data must last for the backoff to start over (without
    a deadline: that any connection must last).
    `pace`: text frames sent per wall second. Protocol pings are not in it: stay one below a venue's documented limit.

    Nothing connects before `start`; after `close` nothing does again.
    """

    log_frames: ClassVar[bool] = True
    """Whether the start of a bad frame may be logged. Feeds of an account set it to False."""
    public: ClassVar[bool] = False
    """Whether a recording (`pmkit.recording`) may hold the frames. Only where none is about an account."""
    refusing_codes: frozenset[int] = REFUSING_CODES
    """Close codes that mean "not you": straight to the longest wait. A feed adds those of its venue."""

    def __init__(
        self,
        url: str | Sequence[str] | Callable[[], str],
        clock: Clock,
        *,
        name: str,
        deadline: float | None,
        on_gap: Callable[[str, int], object] | None = None,
        ping_text: str | None = None,
        pong_text: str | None = None,
        ping_every: float = 10.0,
        pong_timeout: float = 30.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        renew_after: float | None = None,
        compression: bool = False,
        max_size: int = 16 * 2**20,
        min_uptime: float = 30.0,
        pace: float = 5.0,
        open_timeout: float = OPEN_SECONDS,
    ) -> None:
        if not isinstance(url, str) and not callable(url) and not url:
            raise ValueError(f"{name}: no address to connect to")
        self.name = name
        self._clock = clock
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._compression = compression
        self._max_size = max_size
        self._open_timeout = open_timeout
        self._recorder = current()
        self._reports = Reports(name, clock, self.log_frames)
        self._wanted: dict[K, None] = {}
        link = LinkSettings(
            deadline=None if deadline is None else clock.deadline(deadline),
            ping_text=ping_text,
            pong=None if pong_text is None else pong_text.encode(),
            ping_every=ping_every,
            pong_timeout=pong_timeout,
            pace=pace,
        )
        settings = SupervisorSettings(url, on_gap, renew_after, min_uptime, link)
        self._supervisor = Supervisor(self, clock, settings, self._wanted, self._reports)
        self._closing: asyncio.Task[None] | None = None

    # What a feed overrides.

    @abstractmethod
    def _subscribe_frames(self, keys: Sequence[K], first: bool) -> Sequence[str | bytes]:
        """The text frames that subscribe these keys. `first`: nothing was sent on this connection yet.

        Asked once per connection also when nothing is wanted (for feeds that must introduce themselves). On a planned
        renewal it is asked **before** `_on_connect`, while the old connection still serves.
        """

    @abstractmethod
    def _unsubscribe_frames(self, keys: Sequence[K]) -> Sequence[str | bytes]:
        """The text frames that end these subscriptions."""

    @abstractmethod
    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        """One frame, text or binary, as bytes; never empty, never a known keep-alive text. Runs in the reader.

        True if it was data and feeds the deadline. Raise FrameError for one that does not parse.
        """

    def _handshake_headers(self) -> Mapping[str, str]:
        """Headers of the next handshake, made anew for every attempt. With any, only wss:// or loopback will do."""
        return {}

    def _on_connect(self) -> None:
        """A new connection (`generation` counted up) took over; none of its frames was handled. Books expire here."""

    def _on_disconnect(self, reason: str) -> None:
        """The connection is lost, this instant; "closed" at the end. Books expire here."""

    async def _confirm_silence(self) -> bool:
        """The deadline has passed. Expire the books first, then one REST read: True when nothing was missed (the
        deadline starts again), False to drop the connection. Cut off after 5 wall seconds; raising counts as False.
        """
        return False

    def _on_blocked(self, reason: str) -> None:
        """Once per episode: the venue refuses this client, see `stats.blocked`. Attempts go on, every 30 s."""

    def _public_part(self, frame: bytes, sent: bool) -> bytes | None:
        """What a recording may hold of a frame of a `public` feed; None: only that there was one. For log-ins, and for
        marks of the own account in the venue's frames.
        """
        return frame

    async def _connect(self, url: str, headers: Mapping[str, str]) -> Connection:
        """The seam to the library: one connection, without retries."""
        tap: SocketTap | None = None
        kind: Callable[..., Connection] = Connection
        if self._recorder is not None:
            tap = self._recorder.connection(self.name, url, self.public)
            kind = partial(RecordedConnection, tap=tap, public_part=self._public_part)
        try:
            connection = await open_connection(
                url,
                headers,
                compression=self._compression,
                max_size=self._max_size,
                open_timeout=self._open_timeout,
                ping_interval=self._ping_interval,
                ping_timeout=self._ping_timeout,
                factory=kind,
            )
        except BaseException as error:
            if tap is not None:
                status = getattr(getattr(error, "response", None), "status_code", 0)
                what = of_handshake(error, headers.values()).reason if isinstance(error, Exception) else "given up"
                tap.failed(what, status)
            raise
        if tap is not None:
            tap.opened()
        return connection

    # What others use.

    @property
    def generation(self) -> int:
        """The number of the current connection, or of the last one; 0 before the first."""
        return self._supervisor.generation

    @property
    def stats(self) -> SocketStats:
        """Counters over all connections."""
        return self._reports.stats

    @property
    def connected(self) -> bool:
        """A connection is up and everything wanted has been subscribed on it."""
        link = self._supervisor.link
        return link is not None and link.ready

    @property
    def wanted(self) -> tuple[K, ...]:
        """What is subscribed, or will be with the next connection, in the order of asking."""
        return tuple(self._wanted)

    @property
    def host(self) -> str:
        """Host and port of the current address, without path, query or credentials."""
        return self._supervisor.host

    async def start(self) -> None:
        """Begin to connect, and return at once. A second call does nothing. Raises RuntimeError after `close`."""
        if self._closing is not None:
            raise RuntimeError(f"{self.name} is closed: make a new one")
        self._supervisor.start()

    async def close(self) -> None:
        """End everything, within a second of wall time. May be called again."""
        if self._closing is None:
            closing = self._supervisor.close()
            self._closing = asyncio.get_running_loop().create_task(closing, name=f"pmkit {self.name} close")
        await asyncio.shield(self._closing)

    async def want(self, keys: Iterable[K]) -> None:
        """Subscribe keys, now and on every later connection. Returns when sent, at once when not connected."""
        self._wanted.update(dict.fromkeys(keys))
        await self._tell()

    async def unwant(self, keys: Iterable[K]) -> None:
        """End subscriptions, now and on every later connection. Returns when sent, at once when not connected."""
        for key in keys:
            self._wanted.pop(key, None)
        await self._tell()

    async def _tell(self) -> None:
        link = self._supervisor.link
        if link is not None:
            await link.told()

    async def send(self, frame: str | bytes) -> None:
        """Send one text frame at the pace of the socket. Raises NotSent when not connected, and VenueUnavailable when
        the connection broke in the middle of it.
        """
        link = self._supervisor.link
        if link is None:
            raise NotSent(f"{self.name}: not connected to {self.host}; nothing was sent")
        await link.send(frame)

    def drop(self, reason: str) -> None:
        """Give up the current connection and make a new one after the usual wait."""
        self._supervisor.drop(reason)

    def renew(self, reason: str) -> None:
        """Replace the current connection without a gap, now: for a venue's shutdown notice and planned renewals."""
        self._supervisor.renew(reason)

    async def wait_connected(self, seconds: float) -> None:
        """Wait wall seconds until `connected`. Raises VenueUnavailable."""
        try:
            async with self._clock.io_timeout(seconds):
                await self._supervisor.up.wait()
        except TimeoutError:
            why = self.stats.blocked or self.stats.last_reason or "no attempt has ended yet"
            raise VenueUnavailable(f"{self.name}: no connection to {self.host} within {seconds:g} s ({why})") from None
        if self._supervisor.closed:
            raise VenueUnavailable(f"{self.name} was closed while waiting for {self.host}")

    def count_unknown(self, kind: str) -> None:
        """Count an event type that this version does not know; warn once per type."""
        self._reports.unknown(kind, self.host)
