"""What every local venue stands on: an aiohttp application per port, error bodies, sockets with bounded queues, faults.

Answers carry a `Date` in market time. A handler returns `answer(...)` or raises `Refused`; the text of an error is
wrapped by the venue's own `error_body`. A socket is a subclass of `SocketSession`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from email.utils import formatdate
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.errors import ConfigError
from pmkit.sim.faults import Faults, frame_of
from pmkit.sim.ordered import OrderedSet
from pmkit.sim.sockets import CLOSE_SECONDS, QUEUED_BYTES, QUEUED_FRAMES, SocketSession

__all__ = [
    "QUEUED_BYTES",
    "QUEUED_FRAMES",
    "Faults",
    "Refused",
    "RequestLine",
    "Server",
    "SocketSession",
    "Venue",
    "answer",
    "frame_of",
]

HOST = "127.0.0.1"
LOGGED_REQUESTS = 2_000
CLIENT_GONE = 499

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("pmkit.sim")


@lru_cache(64)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


class Refused(Exception):
    """A request that the venue refuses with that status and text."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.text = text
        self.headers = dict(headers or {})
        super().__init__(f"{status} {text}")


class RequestLine(msgspec.Struct, frozen=True):
    """One request that was answered; `at_ms` is market time."""

    at_ms: int
    method: str
    path: str
    query: str
    status: int


def answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON. `bytes` are sent as they are (they must be JSON already)."""
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


class Server:
    """One port. Add routes before `start`.

    `requests` counts by method and route ("GET /events/slug/{slug}"), `log` holds the latest requests, `failures` must
    stay empty (a handler that raised something unexpected). `dated`: answers get a `Date` in market time.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        faults: Faults,
        *,
        port: int = 0,
        dated: bool = True,
        error_body: Callable[[int, str], object] = lambda status, text: {"error": text},
    ) -> None:
        self.name = name
        self.clock = clock
        self.faults = faults
        self.port = port
        self.sessions: OrderedSet[SocketSession] = OrderedSet()
        self.requests: Counter[str] = Counter()
        self.log: deque[RequestLine] = deque(maxlen=LOGGED_REQUESTS)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._error_body = error_body
        self._runner: web.AppRunner | None = None
        self.app = web.Application(middlewares=[self._middleware], client_max_size=4 * 2**20)
        if dated:
            self.app.on_response_prepare.append(self._date)

    # ---- routes

    def get(self, path: str, handler: Handler) -> None:
        self.app.router.add_get(path, handler, allow_head=False)

    def post(self, path: str, handler: Handler) -> None:
        self.app.router.add_post(path, handler)

    def delete(self, path: str, handler: Handler) -> None:
        self.app.router.add_delete(path, handler)

    def any(self, path: str, handler: Handler) -> None:
        self.app.router.add_route("*", path, handler)

    def socket(self, path: str, session: Callable[[Server, web.Request], SocketSession]) -> None:
        """A WebSocket route. A plain request to it is refused with 400."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Upgrade", "").lower() != "websocket":
                raise Refused(400, "Bad Request: a WebSocket handshake is expected here")
            return await session(self, request).serve()

        self.app.router.add_get(path, handle, allow_head=False)

    def url(self, path: str = "", scheme: str = "http") -> str:
        """Where this port is, with a path appended. Raises RuntimeError before `start`."""
        if not self.port:
            raise RuntimeError(f"{self.name} has no port before start()")
        return f"{scheme}://{HOST}:{self.port}{path}"

    # ---- life

    async def start(self) -> None:
        """Listen on loopback. Raises ConfigError where the given port is taken."""
        runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self.port).start()
        except OSError as error:
            await runner.cleanup()
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigError(
                f"the local venue {self.name} cannot listen on {HOST}:{self.port}: the port is taken; "
                "choose another one or 0 for any free port"
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def close(self) -> None:
        """Close every connection and stop listening, within a second. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await asyncio.gather(*(session.close(1001, "going away") for session in list(self.sessions)))
        for session in list(self.sessions):
            session.abort()
        await runner.cleanup()

    def failed(self, error: BaseException) -> None:
        """Count and log something that must not happen."""
        self.failures.append(f"{type(error).__name__}: {error}")
        _log.error("%s: unexpected %s", self.name, type(error).__name__, exc_info=error)

    # ---- plumbing

    async def _date(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = _http_date(self.clock.now_ms() // 1000)

    def error(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
        """An error in this venue's form."""
        return answer(self._error_body(status, text), status, headers)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        self.requests[f"{request.method} {resource.canonical if resource else '(no such path)'}"] += 1
        status = 0
        try:
            response: web.StreamResponse | None = await self.faults.before(request)
            if response is None:
                response = await self._answer(request, handler)
            status = response.status
            return response
        except ConnectionError:
            if request.transport is not None and not request.transport.is_closing():
                raise
            # The client hung up, or a fault did: nobody reads an answer, and aiohttp would log a traceback.
            return web.Response(status=CLIENT_GONE)
        finally:
            line = RequestLine(self.clock.now_ms(), request.method, request.path, request.query_string, status)
            self.log.append(line)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return self.error(refused.status, refused.text, refused.headers)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return self.error(error.status, error.reason, allow)
        except ConnectionError:
            raise
        except Exception as error:
            self.failed(error)
            return self.error(500, "internal server error")


class Venue:
    """Ports and background tasks that live and end together. A task that fails is kept in `failures`."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.faults = Faults(clock)
        self.servers: list[Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[str] = []

    def add_server(self, name: str, port: int = 0, **options: Any) -> Server:
        """A further port of this venue; options as in `Server`."""
        server = Server(name, self.clock, self.faults, port=port, **options)
        self.servers.append(server)
        return server

    @property
    def failures(self) -> list[str]:
        """Everything unexpected so far, of all ports and tasks."""
        return [*self._failures, *(failure for server in self.servers for failure in server.failures)]

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something until the venue closes."""
        task = asyncio.create_task(coroutine, name=f"{self.name} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(f"{task.get_name()}: {type(error).__name__}: {error}")
            _log.error("%s failed", task.get_name(), exc_info=error)

    async def start(self) -> None:
        """Listen on every port. Subclasses spawn their tasks after this."""
        try:
            for server in self.servers:
                await server.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End every task and port within a second. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self.servers))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
