"""Signed requests to the CLOB (L2): one signature per attempt, over the exact bytes that are sent.

Stamps are in the venue's time as it was measured. A 401 does not say whether the stamp or the key is wrong: `/time` is
asked, and only where the stamp was off is the request signed anew and sent once more (401 proves that nothing was
done). Queries are repeated on 429, 5xx and broken connections; nothing else ever is. Orders, cancels and queries have
connections of their own, so that none of them waits for another.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from pmkit.clock import Clock
from pmkit.endpoints import require_safe
from pmkit.errors import AuthError, ClockSkewError, NotSent, PmkitError, RateLimited, VenueUnavailable
from pmkit.exchanges.polymarket.auth import Credentials
from pmkit.http import HttpAnswer, HttpSession
from pmkit.http_pool import Params
from pmkit.venue_clock import VenueClock

ATTEMPTS: Final = 4
FIRST_WAIT_SECONDS: Final = 0.2
SKEW_SECONDS: Final = 2.0
"""A stamp so far off the venue's time is blamed for a 401. The venue publishes no figure; users report a few."""

_LOG = logging.getLogger("pmkit.polymarket")


async def _never() -> bool:
    return False


class SignedSession:
    """The CLOB's private side, for one account. `restamped` counts requests that were signed anew.

    `renew()` asks for the credentials anew where a query is refused though its stamp was right (the venue forgets keys
    at times: py-clob-client-v2 issue 40); whether that was done.
    """

    def __init__(self, base_url: str, clock: Clock, venue_clock: VenueClock) -> None:
        require_safe(base_url, "the Polymarket CLOB")
        self.orders = HttpSession(base_url, clock, venue_clock=venue_clock, connect_timeout=2.0, timeout=10.0)
        self.cancels = HttpSession(base_url, clock, venue_clock=venue_clock, connect_timeout=2.0, timeout=5.0)
        self.queries = HttpSession(base_url, clock, venue_clock=venue_clock, connect_timeout=2.0, timeout=5.0)
        self.restamped = 0
        self.credentials: Credentials | None = None
        self.renew: Callable[[], Awaitable[bool]] = _never
        self._clock = clock
        self._venue_clock = venue_clock
        self.now_ms: Callable[[], int] = venue_clock.now_ms
        """Venue time, epoch ms."""

    async def close(self) -> None:
        """Within a second. May be called twice."""
        await self.orders.close()
        await self.cancels.close()
        await self.queries.close()

    @property
    def host(self) -> str:
        return self.orders.host

    async def measure_clock(self, session: HttpSession | None = None) -> None:
        """Ask the venue for its time. Opens a connection as well."""
        answer = await (session or self.queries).get("/time")
        self._venue_clock.observe(answer.decode(int) * 1000, answer.sent_ms, answer.received_ms, resolution_ms=1000)

    async def send(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
        """A request that changes something, sent once; once more where a 401 was for its stamp.

        Raises NotSent (also while the gate of a 429 is closed) and Unanswered; ClockSkewError for a stamp that stays
        refused. Any other status is an answer.
        """
        session = self.orders if method == "POST" else self.cancels
        wait = method != "POST"
        try:
            headers, stamp = self._headers(method, path, body)
            answer = await session.request(method, path, body=body, headers=headers, wait=wait)
            if answer.status != 401 or not await self._stale(stamp):
                return answer
            self._restamp(method, path)
            headers, stamp = self._headers(method, path, body)
            answer = await session.request(method, path, body=body, headers=headers, wait=wait)
        except RateLimited as error:
            raise NotSent(str(error)) from error
        if answer.status == 401 and await self._stale(stamp):
            raise ClockSkewError(
                f"{self.host} refuses the time stamp of {method} {path}, also after it was signed anew: set this "
                "machine's clock (NTP)",
                -self._venue_clock.offset_ms,
            )
        return answer

    async def get(self, path: str, params: Params | None = None, *, missing: bool = False) -> HttpAnswer:
        """A query: 2xx, or 404 where `missing` allows it. Raises as `HttpSession.get`; ClockSkewError, AuthError."""
        attempt = 0
        restamped = False
        while True:
            attempt += 1
            headers, stamp = self._headers("GET", path, None)
            try:
                answer = await self.queries.request("GET", path, params=params, headers=headers)
                if answer.status == 401:
                    if await self._stale(stamp) and not restamped:
                        restamped = True
                        self._restamp("GET", path)
                        continue
                    if await self.renew():
                        continue
                    raise AuthError(
                        f"{self.host} refuses the API credentials (401 on {path}; the clock is right within "
                        f"{SKEW_SECONDS:g} s): leave POLYMARKET_API_KEY, _SECRET and _PASSPHRASE out to have them "
                        "derived, or check that they belong to this private key"
                    )
                if missing and answer.status == 404:
                    return answer
                answer.raise_for_status()
                return answer
            except (RateLimited, VenueUnavailable, NotSent):
                if attempt >= ATTEMPTS:
                    raise
            jitter = 0.5 + self._clock.entropy.random()
            await self._clock.io_sleep(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1) * jitter)

    def _headers(self, method: str, path: str, body: bytes | None) -> tuple[dict[str, str], int]:
        credentials = self.credentials
        if credentials is None:
            raise NotSent("not logged in to Polymarket yet: nothing was sent")
        stamp = self._venue_clock.now_ms() // 1000
        headers = credentials.headers(stamp, method, path, body or b"")
        if body is not None:
            headers["content-type"] = "application/json"
        return headers, stamp

    async def _stale(self, stamp_s: int) -> bool:
        """Whether a stamp (epoch seconds) was off when it was used, by a fresh look at the venue's clock."""
        try:
            await self.measure_clock()
        except PmkitError as error:
            _LOG.warning("polymarket: a 401, and the venue's clock could not be read: %s", error)
            return False
        return abs(self.now_ms() / 1000 - stamp_s) > max(SKEW_SECONDS, SKEW_SECONDS * self._clock.factor)

    def _restamp(self, method: str, path: str) -> None:
        self.restamped += 1
        _LOG.warning(
            "polymarket: %s %s was refused for its time stamp; signed anew with the venue's time (this clock is off by "
            "%.1f s)",
            method,
            path,
            -self._venue_clock.offset_ms / 1000,
        )
