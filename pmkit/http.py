"""The one HTTP session class: httpx behind it, typed errors in front.

`request` sends exactly once and tells apart what matters for money: `NotSent` (proof that no byte left), an
`HttpAnswer` (any status), and `Unanswered` (it may have arrived). `get_json` is for queries: it maps statuses to the
error tree and decodes. Nothing here ever sends a request twice, but a GET whose reused connection the server had
already dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from pmkit.clock import Clock, VenueClock
from pmkit.endpoints import is_loopback
from pmkit.errors import (
    AuthError,
    MarketNotFound,
    NotSent,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Params = Mapping[str, str | int] | Sequence[tuple[str, str | int]]

EXCERPT_CHARS = 200
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_GATE_WAIT_SECONDS = 2.0
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
        text = self.headers.get("retry-after", "")
        try:
            seconds = float(text)
        except ValueError:
            return None
        return seconds if 0 <= seconds < 1e7 else None

    def decode(self, kind: type[T]) -> T:
        """The body as JSON of that type. Raises ProtocolChanged where it is something else."""
        try:
            return msgspec.json.decode(self.body, type=kind, strict=False)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
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


Allowed = Iterable[tuple[str, str]]


class HttpSession:
    """Keep-alive connections to one base URL.

    `allow`, where given, is a list of (method, path pattern): a request that matches none raises NotSent before
    anything is sent (the dry-run's proof that it cannot trade). A 429 or 418 closes a gate for all callers until its
    Retry-After has passed: short waits are waited out, longer ones raise RateLimited; an order never waits.
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
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._gate_until = 0.0
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
            import httpx

            self._client = httpx.AsyncClient(
                base_url=self.base_url,
                timeout=httpx.Timeout(self._timeout, connect=self._connect_timeout, pool=self._connect_timeout),
                limits=httpx.Limits(max_connections=self._max_connections, keepalive_expiry=30.0),
                follow_redirects=False,
                trust_env=not is_loopback(self.base_url),
                headers={"user-agent": "pmkit"},
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
    ) -> HttpAnswer:
        """Send once. Raises NotSent, RateLimited (the gate is closed, nothing was sent) or Unanswered.

        `path` is added to the base URL; `body` goes out byte for byte; `wait=False` never waits at the gate.
        """
        import httpx

        if self._allow is not None and not any(
            method == allowed and pattern.fullmatch(path) for allowed, pattern in self._allow
        ):
            raise NotSent(f"{method} {path} is not on the allow-list of this session to {self.host}: nothing was sent")
        await self._pass_gate(wait)
        client = self._open()
        request = client.build_request(
            method,
            path,
            params=None if params is None else list(params.items()) if isinstance(params, Mapping) else list(params),
            content=body,
            headers=dict(headers) if headers else None,
        )
        where = f"{method} {path} to {self.host}"
        sent_ms = self._clock.now_ms()
        self.requests += 1
        try:
            async with self._clock.io_timeout(self._timeout):
                response = await client.send(request, stream=True)
                try:
                    content = await self._read(response, where)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise NotSent(
                f"{where} was not sent ({type(error).__name__}): check the network and the address"
            ) from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise Unanswered(f"{where} got no usable answer ({type(error).__name__})") from error
        received_ms = self._clock.now_ms()
        answer = HttpAnswer(
            method,
            self.host,
            path,
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
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
        if answer.status in (429, 418):
            wait = answer.retry_after
            self._gate_until = self._clock.io_monotonic() + (1.0 if wait is None else wait)
        date = answer.headers.get("date")
        if self._venue_clock is not None and date:
            try:
                stamp = parsedate_to_datetime(date)
            except ValueError:
                return
            venue_ms = int(stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp()) * 1000
            self._venue_clock.observe(venue_ms, answer.sent_ms, answer.received_ms, resolution_ms=1000)

    async def _pass_gate(self, wait: bool) -> None:
        left = self._gate_until - self._clock.io_monotonic()
        if left <= 0:
            return
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
        closing = asyncio.ensure_future(client.aclose())
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        if not done:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)


def _dropped_while_idle(error: BaseException) -> bool:
    import httpx

    cause: Any = error.__cause__
    return isinstance(cause, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))
