"""`Supervisor`: opens the connections of one socket, switches between them, and waits for their loss.

One task does it all, in turn; each connection's own tasks live in its `Link`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed

from pmkit.clock import Clock
from pmkit.endpoints import require_safe
from pmkit.errors import NotSent, VenueUnavailable
from pmkit.websocket.backoff import Backoff
from pmkit.websocket.connection import CLOSE_SECONDS
from pmkit.websocket.failures import Failure, of_close, of_handshake
from pmkit.websocket.link import K, Link, LinkSettings
from pmkit.websocket.reports import Reports

if TYPE_CHECKING:
    from pmkit.websocket.base import BaseWebSocket

FIRST_FRAME_SECONDS = 2.0
_CANCEL_SECONDS = 0.15


class _NoConnection(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.reason)


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """`renew_after` and `min_uptime` in market seconds."""

    url: str | Sequence[str] | Callable[[], str]
    on_gap: Callable[[str, int], object] | None
    renew_after: float | None
    min_uptime: float
    link: LinkSettings


class Supervisor(Generic[K]):
    """The connections of `socket`, whose hooks it calls. `wanted` is the socket's state, read by every link."""

    def __init__(
        self,
        socket: BaseWebSocket[K],
        clock: Clock,
        settings: SupervisorSettings,
        wanted: dict[K, None],
        reports: Reports,
    ) -> None:
        self.link: Link[K] | None = None
        self.generation = 0
        self.up = asyncio.Event()
        self.closed = False
        self._socket = socket
        self._clock = clock
        self._settings = settings
        self._wanted = wanted
        self._reports = reports
        self._stats = reports.stats
        self._turn = 0
        self._backoff = Backoff(clock.entropy)
        self._loss = Failure("")
        self._lost = asyncio.Event()
        self._wake = asyncio.Event()
        self._renewal: str | None = None
        self._gap: str | None = None
        self._since_ns = 0
        self._refused = False
        self._task: asyncio.Task[NoReturn] | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._hooks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pmkit {self._socket.name}")

    async def close(self) -> None:
        """End all tasks and connections, well within a second of wall time."""
        self.closed = True
        self.up.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CANCEL_SECONDS)
        link, self.link = self.link, None
        if link is not None:
            self._retire(link)
            self._call("_on_disconnect", self._socket._on_disconnect, "closed")
        for task in self._hooks:
            task.cancel()
        if rest := self._goodbyes | self._hooks:
            await asyncio.wait(rest, timeout=CLOSE_SECONDS + 0.2)

    def drop(self, reason: str) -> None:
        """Lose the current connection, if there is one."""
        if self.link is not None:
            self._link_lost(self.link, Failure(reason))

    def renew(self, reason: str) -> None:
        """Replace the current connection, if there is one."""
        if self._renewal is None and self.link is not None:
            self._renewal = reason
            self._wake.set()

    @property
    def url(self) -> str:
        """The address of the next attempt."""
        url = self._settings.url
        if isinstance(url, str):
            return url
        return url() if callable(url) else url[self._turn % len(url)]

    @property
    def host(self) -> str:
        """Host and port of the address, without path, query or credentials."""
        try:
            parts = urlsplit(self.url)
            return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        except ValueError:
            return "(unreadable address)"

    # One life after the other.

    async def _run(self) -> NoReturn:
        while True:
            try:
                failure = await self._life()
            except Exception as error:
                self._reports.failed("supervisor", error)
                failure = Failure("an error in a hook or in pmkit")
                self.drop(failure.reason)
            await self._clock.sleep(self._wait(self._backoff, failure))

    def _wait(self, backoff: Backoff, failure: Failure) -> float:
        """Market seconds until the next attempt."""
        if failure.blocked:
            backoff.to_cap()
        return max(backoff.next(), (failure.retry_after or 0.0) * self._clock.factor)

    async def _life(self) -> Failure:
        """Open a connection, serve it and its planned successors; returns what ended it."""
        try:
            await self._switch(await self._open(), None)
        except _NoConnection as error:
            return error.failure
        while self.link is not None:
            self._wake.clear()
            if self._renewal is None:
                await self._wake.wait()
            else:
                await self._replace(self._renewal)
        self._renewal = None
        return self._loss

    async def _replace(self, reason: str) -> None:
        """A planned renewal. The old connection serves until the new one speaks; a failure is tried again."""
        backoff = Backoff(self._clock.entropy)
        while self.link is not None:
            try:
                link = await self._open()
                await self._introduce(link)
            except _NoConnection as error:
                self._reports.renewal_failed(error.failure)
                wait = self._wait(backoff, error.failure)
            else:
                self._stats.renewals += 1
                await self._switch(link, reason)
                return
            try:
                async with self._clock.timeout(wait):
                    await self._lost.wait()
            except TimeoutError:
                continue

    async def _introduce(self, link: Link[K]) -> None:
        try:
            await link.introduce(FIRST_FRAME_SECONDS)
        except ConnectionClosed as error:
            self._retire(link)
            raise _NoConnection(of_close(error, self._socket.refusing_codes)) from None
        except (NotSent, VenueUnavailable) as error:
            self._retire(link)
            raise _NoConnection(Failure(str(error))) from None
        except BaseException:
            self._retire(link)
            raise

    async def _open(self) -> Link[K]:
        self._stats.attempts += 1
        secrets: list[str] = []
        try:
            url = self.url
            headers = self._socket._handshake_headers()
            secrets += [urlsplit(url).query, *headers.values()]
            if headers:
                require_safe(url, self._socket.name)
            connection = await self._socket._connect(url, headers)
        except Exception as error:
            failure = of_handshake(error, secrets)
            self._refused = self._refused or failure.blocked
            self._trouble(failure, f"no connection to {self.host}")
            self._turn += 1
            raise _NoConnection(failure) from None
        if self._refused:
            self._refused = False
            self._stats.blocked = ""
        return Link(
            connection,
            self._clock,
            self._settings.link,
            self._socket,
            self._wanted,
            self._reports,
            on_ready=self._link_ready,
            on_delivery=self._unblock,
            on_loss=self._link_lost,
        )

    async def _switch(self, link: Link[K], renewal: str | None) -> None:
        """Make a connection the current one. From here on frames of the old one are dropped."""
        old, self.link = self.link, link
        self.generation += 1
        self._stats.connects += 1
        self._renewal = None
        self._gap = self._gap or renewal
        self._since_ns = self._since_ns or self._clock.time_ns()
        self._lost.clear()
        self.up.clear()
        if old is not None:
            self._leave(old)
        self._call("_on_connect", self._socket._on_connect)
        if old is not None:
            await old.ended()  # one reader at a time
        if self.link is not link:
            return
        link.timers.append(self._clock.call_later(self._settings.min_uptime, self._unblock))
        if self._settings.renew_after is not None:
            link.timers.append(self._clock.call_later(self._settings.renew_after, self.renew, "planned"))
        link.serve()

    def _leave(self, link: Link[K]) -> None:
        """A connection is done with: what it delivered last, what it proved, and its goodbye."""
        if link.data_frames:
            self._since_ns = link.last_data_ns
        # Where no data is due (no deadline), silence is no reason to doubt a connection that lasted.
        delivered = link.data_frames or self._settings.link.deadline is None
        if delivered and self._clock.monotonic() - link.up_since >= self._settings.min_uptime:
            self._backoff.reset()
            self._reports.proved()
        self._retire(link)

    def _retire(self, link: Link[K]) -> None:
        link.end()
        self._spawn(self._goodbyes, link.close(), "goodbye")

    # What a link reports.

    def _link_ready(self) -> None:
        self.up.set()
        self._reports.up(self.host, self.generation)
        gap, self._gap = self._gap, None
        if gap is not None and self._settings.on_gap is not None:
            self._call("on_gap", self._settings.on_gap, gap, self._since_ns)

    def _link_lost(self, link: Link[K], failure: Failure) -> None:
        if link is not self.link:
            return
        host = self.host
        self.link = None
        self.up.clear()
        self._stats.disconnects += 1
        self._leave(link)
        if not link.data_frames:
            self._turn += 1
        self._gap = self._gap or failure.reason
        self._loss = failure
        self._lost.set()
        self._wake.set()
        self._call("_on_disconnect", self._socket._on_disconnect, failure.reason)
        self._trouble(failure, f"lost the connection to {host}")

    def _trouble(self, failure: Failure, what: str) -> None:
        if self._reports.trouble(failure, what):
            self._call("_on_blocked", self._socket._on_blocked, failure.reason)

    def _unblock(self) -> None:
        if not self._refused:  # what a handshake was refused for, only another handshake takes back
            self._stats.blocked = ""

    # Hooks, and the tasks that are not a link's.

    def _call(self, what: str, hook: Callable[..., object], *args: object) -> None:
        try:
            outcome = hook(*args)
        except Exception as error:
            self._reports.failed(what, error)
            return
        if inspect.isawaitable(outcome):
            self._spawn(self._hooks, _finish(outcome), what)

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"pmkit {self._socket.name} {what}")
        tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._reports.failed(what, error)

        task.add_done_callback(done)


async def _finish(outcome: Any) -> None:
    await outcome
