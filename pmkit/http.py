"""The one HTTP session class: httpx behind it, typed errors in front.

`request` sends exactly once and tells apart what matters for money: `NotSent` (proof that no byte left), an
`HttpAnswer` (any status), and `Unanswered` (it may have arrived). `get_json` is for queries: it maps statuses to the
error tree and decodes. Nothing here ever sends a request twice, but a GET whose reused connection the server had
already dropped.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from pmkit.clock import Clock
from pmkit.errors import (
    AuthError,
    MarketNotFound,
    NotSent,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.http_pool import Params, build, open_client, send
from pmkit.recording.recorder import current
from pmkit.venue_clock import VenueClock

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

EXCERPT_CHARS = 200
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_GATE_WAIT_SECONDS = 2.0
# What a 429 and a 418 ask for when they name no time. Binance bans for two minutes at least.
GATE_SECONDS = {429: 1.0, 418: 120.0}
SINK_BYTES = 1024 * 1024
CLOSE_SECONDS = 0.8


class Unanswered(VenueUnavailable):
    """The request may have reached the venue; no usable answer came back."""


class HttpAnswer(msgspec.Struct, frozen=True):
    """Any answer. Header names are lower case; `sent_ms` and `received_ms` are market time."""

    method: str
    host: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_ms: int
    received_ms: int

    @property
    def excerpt(self) -> str:
        """The start of the body with control characters removed, for messages."""
        text = self.body[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")
        return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip()[:EXCERPT_CHARS]

    @property
    def retry_after(self) -> float | None:
        """Seconds of the Retry-After header, None where it is absent or no number."""
        text = self.headers.get("retry-after")
        return None if text is None else _seconds(text)

    def decode(self, kind: type[T]) -> T:
        """The body as JSON of that type. Raises ProtocolChanged where it is something else."""
        try:
            return msgspec.json.decode(self.body, type=kind, strict=False)
        # ValueError: bytes that are no UTF-8 come as UnicodeDecodeError, which is none of msgspec's own.
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ProtocolChanged(
                f"{self.host} answered {self.method} {self.path} with {self.status} and a body that does not fit: "
                f"{error}; it begins {self.excerpt!r}"
            ) from error

    def raise_for_status(self) -> None:
        """Map a status that is not 2xx to the error tree."""
        status = self.status
        if 200 <= status < 300:
            return
        what = f"{self.host} answered {self.method} {self.path} with {status}: {self.excerpt or '(empty body)'}"
        if status in (429, 418):
            raise RateLimited(f"{what}; wait before asking again", self.retry_after)
        if status == 401:
            raise AuthError(f"{what}; check the key, its environment and this machine's clock")
        if status in (403, 451):
            raise RegionBlocked(f"{what}; this host refuses this machine: no retry will help")
        if status == 404:
            raise MarketNotFound(what)
        if status == 425 or status >= 500:
            raise VenueUnavailable(f"{what}; try again later", status, self.retry_after)
        raise ProtocolChanged(f"{what}; the request is not understood any more")


def _texts(headers: httpx.Headers) -> dict[str, str]:
    """`headers.items()`, which asks for the encoding at every letter of it."""
    encoding = headers.encoding
    found: dict[str, str] = {}
    for raw_name, raw_value in headers.raw:
        name, value = raw_name.decode(encoding).lower(), raw_value.decode(encoding)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@functools.lru_cache(8)  # the answers of one second say the same
def _date_ms(text: str) -> int | None:
    """A Date header as epoch ms, None where it is none."""
    try:
        stamp = parsedate_to_datetime(text)
    except ValueError:
        return None
    return int(stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp()) * 1000


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e7 else None


Allowed = Iterable[tuple[str, str]]


class HttpSession:
    """Keep-alive connections to one base URL.

    `allow`, where given, is a list of (method, path pattern): a request that matches none raises NotSent before
    anything is sent (the dry-run's proof that it cannot trade). A 429 or 418 closes a gate for all callers until its
    Retry-After has passed: short waits are waited out, longer ones raise RateLimited; an order never waits.

    `public`: no request holds a key and no answer is about an account; a recording (`pmkit.recording`) may hold both.
    """

    def __init__(
        self,
        base_url: str,
        clock: Clock,
        *,
        allow: Allowed | None = None,
        venue_clock: VenueClock | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        max_connections: int = 20,
        public: bool = False,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.host = urlsplit(base_url).netloc
        self._path_prefix = urlsplit(self.base_url).path
        self._clock = clock
        self._allow = None if allow is None else [(method, re.compile(pattern)) for method, pattern in allow]
        self._venue_clock = venue_clock
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._public = public
        self._recorder = current()
        self._client: httpx.AsyncClient | None = None
        self._urls: dict[tuple[str, str], httpx.URL] = {}
        self._closed = False
        self._gate_until = 0.0
        # Tasks with a request on its way, and those of them that `close` has ended.
        self._asking: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()
        self.requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> httpx.AsyncClient:
        if self._closed:
            raise NotSent(f"the session to {self.host} is closed")
        if self._client is None:
            self._client = open_client(
                self.base_url,
                self.host,
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
                max_connections=self._max_connections,
            )
        return self._client

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait: bool = True,
        sink: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> HttpAnswer:
        """Send once. Raises NotSent, RateLimited (the gate is closed, nothing was sent) or Unanswered.

        `path` is added to the base URL; `body` goes out byte for byte; `wait=False` never waits at the gate.

        With a `sink` the body of a 200 goes there in pieces of at most 1 MiB, of any total size, and `answer.body` is
        empty; what came may be cut when this raises. Only a silence of `timeout` seconds ends such a request.
        """
        import httpx

        if self._allow is not None and not any(
            method == allowed and pattern.fullmatch(path) for allowed, pattern in self._allow
        ):
            raise NotSent(f"{method} {path} is not on the allow-list of this session to {self.host}: nothing was sent")
        if not path.startswith("/"):
            raise NotSent(f"{path!r} is not a path of {self.host}: nothing was sent")
        await self._pass_gate(wait)
        client = self._open()
        try:
            request = build(client, self._urls, method, path, params, body, headers)
        except (UnicodeError, httpx.InvalidURL) as error:
            # Without the cause, which holds the value: it may be a credential.
            raise NotSent(
                f"{method} {path} to {self.host} was not sent: a header or parameter holds letters that cannot be sent "
                f"({type(error).__name__})"
            ) from None
        self.requests += 1
        public = self._public and not headers  # a key goes in a header
        if self._recorder is None:
            return await self._exchange(client, request, path, sink)
        tap = self._recorder.request(method, str(request.url), body or b"", public)
        try:
            answer = await self._exchange(client, request, path, sink)
        except BaseException as error:
            tap.failed(error)
            raise
        tap.answered(answer.status, answer.headers, answer.body, sink is not None)
        return answer

    async def _exchange(
        self,
        client: httpx.AsyncClient,
        request: httpx.Request,
        path: str,
        sink: Callable[[bytes], Awaitable[None]] | None,
    ) -> HttpAnswer:
        import httpx

        where = f"{request.method} {path} to {self.host}"
        sent_ms = self._clock.now_ms()
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            async with self._clock.io_timeout(self._timeout if sink is None else None):
                response = await send(client, request)
                self._close_gate(response.status_code, response.headers.get("retry-after"))
                try:
                    if sink is None or response.status_code != 200:
                        content = await self._read(response, where)
                    else:
                        content = b""
                        async for part in response.aiter_bytes(SINK_BYTES):
                            await sink(part)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise NotSent(
                f"{where} was not sent ({type(error).__name__}): check the network and the address"
            ) from error
        except httpx.LocalProtocolError:
            # Refused by our own side before a byte was written; the text would show the header's value.
            raise NotSent(f"{where} was not sent: a header holds letters that HTTP does not allow") from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise Unanswered(f"{where} got no usable answer ({type(error).__name__})") from error
        except asyncio.CancelledError:
            # A cancellation of the caller's own is passed on, also when both come together.
            if task in self._ended and task.uncancel() == 0:
                raise Unanswered(f"{where} was on its way when the session was closed") from None
            raise
        finally:
            self._asking.discard(task)
            self._ended.discard(task)
        received_ms = self._clock.now_ms()
        answer = HttpAnswer(
            request.method,
            self.host,
            path,
            response.status_code,
            _texts(response.headers),
            content,
            sent_ms,
            received_ms,
        )
        self._observe(answer)
        return answer

    async def _read(self, response: httpx.Response, where: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise Unanswered(f"{where}: the body is larger than {MAX_BODY_BYTES} bytes")
            parts.append(part)
        return b"".join(parts)

    def _observe(self, answer: HttpAnswer) -> None:
        date = answer.headers.get("date")
        if answer.headers.get("age", "0").strip() != "0":
            return  # from a cache (Kalshi's CDN): its Date is that of the answer that was kept, seconds ago
        if self._venue_clock is not None and date:
            venue_ms = _date_ms(date)
            if venue_ms is None:
                return
            self._venue_clock.observe(venue_ms, answer.sent_ms, answer.received_ms, resolution_ms=1000)

    def _close_gate(self, status: int, retry_after: str | None) -> None:
        if status in GATE_SECONDS:
            wait = _seconds(retry_after)
            until = self._clock.io_monotonic() + (GATE_SECONDS[status] if wait is None else wait)
            self._gate_until = max(self._gate_until, until)

    async def _pass_gate(self, wait: bool) -> None:
        while (left := self._gate_until - self._clock.io_monotonic()) > 0:
            if not wait or left > MAX_GATE_WAIT_SECONDS:
                raise RateLimited(f"{self.host} asked to wait {left:.1f} s more: nothing was sent", left)
            await self._clock.io_sleep(left)

    async def get(
        self, path: str, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """A query: like `request`, and any status but 2xx raises (see `HttpAnswer.raise_for_status`).

        A GET on a connection that the server dropped while it was idle is sent once more.
        """
        reused = self.requests > 0
        try:
            answer = await self.request("GET", path, params=params, headers=headers)
        except Unanswered as error:
            if not reused or not _dropped_while_idle(error):
                raise
            answer = await self.request("GET", path, params=params, headers=headers)
        answer.raise_for_status()
        return answer

    async def get_json(
        self,
        path: str,
        kind: type[T],
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """A query decoded as `kind`. Raises as `get`, and ProtocolChanged for a body that does not fit."""
        return (await self.get(path, params, headers)).decode(kind)

    async def close(self) -> None:
        """Close all connections, within a second. May be called twice."""
        self._closed = True
        client, self._client = self._client, None
        if client is None:
            return
        # First the requests: a connection that is being made when its pool is closed would be left open for ever.
        for task in self._asking - self._ended - {asyncio.current_task()}:
            self._ended.add(task)
            task.cancel()
        closing = asyncio.ensure_future(self._close(client))
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if not done:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _close(self, client: httpx.AsyncClient) -> None:
        while self._ended:
            await asyncio.wait(self._ended, timeout=0.01)  # a task may go on behind its request
        await client.aclose()


def _dropped_while_idle(error: BaseException) -> bool:
    import httpx

    cause: Any = error.__cause__
    return isinstance(cause, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))
