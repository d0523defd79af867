"""Signed requests to Kalshi: one signature per attempt, stamped with the venue's time.

A request that was refused for its stamp (401, not carried out) is signed anew and sent once more, once the answer's
Date has corrected the venue's clock. Queries are repeated on 429, 5xx and a broken connection; nothing else ever is.
"""

from __future__ import annotations

import logging
from typing import Final, TypeVar

from pmkit.clock import Clock
from pmkit.errors import AuthError, ClockSkewError, NotSent, RateLimited, VenueUnavailable
from pmkit.exchanges.kalshi.auth import Signer, path_of
from pmkit.exchanges.kalshi.budget import COST, TokenBudget
from pmkit.exchanges.kalshi.refusals import stale_stamp, unknown_key, venue_error
from pmkit.http import HttpAnswer, HttpSession
from pmkit.http_pool import Params
from pmkit.venue_clock import VenueClock

T = TypeVar("T")

ATTEMPTS: Final = 4
FIRST_WAIT_SECONDS: Final = 0.15
_LOG = logging.getLogger("pmkit.kalshi")


class SignedSession:
    """Queries and writes of one account. Two connections pools, so that a query never holds back an order.

    `restamped` counts requests that were signed anew.
    """

    def __init__(
        self, base_url: str, clock: Clock, signer: Signer, venue_clock: VenueClock, budget: TokenBudget
    ) -> None:
        self.reads = HttpSession(base_url, clock, venue_clock=venue_clock, connect_timeout=2.0, timeout=5.0)
        self.writes = HttpSession(base_url, clock, venue_clock=venue_clock, connect_timeout=2.0, timeout=5.0)
        self.restamped = 0
        self.budget = budget
        self._clock = clock
        self._signer = signer
        self._venue_clock = venue_clock
        self._root = path_of(self.reads.base_url)

    async def close(self) -> None:
        """Within a second. May be called twice."""
        await self.reads.close()
        await self.writes.close()

    @property
    def skew_ms(self) -> int:
        """Local minus venue time, as measured."""
        return -self._venue_clock.offset_ms

    async def write(
        self, method: str, path: str, *, params: Params | None = None, body: bytes | None = None, wait: bool = False
    ) -> HttpAnswer:
        """Send a request that changes something, once; once more when its stamp was refused. Raises NotSent (also when
        the gate of a 429 is closed) and Unanswered."""
        answer = await self._write_once(method, path, params, body, wait)
        if stale_stamp(answer.status, answer.body):
            self._restamp(method, path)
            answer = await self._write_once(method, path, params, body, wait)
        return answer

    async def _write_once(
        self, method: str, path: str, params: Params | None, body: bytes | None, wait: bool
    ) -> HttpAnswer:
        headers = self._headers(method, path)
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            return await self.writes.request(method, path, params=params, body=body, headers=headers, wait=wait)
        except RateLimited as error:
            raise NotSent(str(error)) from error

    async def get(self, path: str, kind: type[T], params: Params | None = None, *, cost: float = COST) -> T:
        """A query decoded as `kind`; repeated up to three times. Raises as `HttpSession.get_json`, ClockSkewError for a
        stamp that stays refused."""
        attempt = 0
        restamped = False
        while True:
            await self.budget.read(cost)
            attempt += 1
            try:
                answer = await self.reads.request("GET", path, params=params, headers=self._headers("GET", path))
                if stale_stamp(answer.status, answer.body):
                    if restamped:
                        raise ClockSkewError(
                            f"{answer.host} refuses the time stamp of GET {path}: this machine's clock is off by about "
                            f"{self.skew_ms / 1000:.0f} s",
                            self.skew_ms,
                        )
                    restamped = True
                    self._restamp("GET", path)
                    continue
                if answer.status == 429:
                    self.budget.drained(read=True)
                self._refuse(answer)
                answer.raise_for_status()
                return answer.decode(kind)
            except (RateLimited, VenueUnavailable, NotSent):
                if attempt >= ATTEMPTS:
                    raise
            jitter = 0.5 + self._clock.entropy.random()
            await self._clock.io_sleep(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1) * jitter)

    def _refuse(self, answer: HttpAnswer) -> None:
        if answer.status == 401 and (error := venue_error(answer.body)) is not None:
            raise AuthError(f"{answer.host} refuses the key ({error.text}): {unknown_key(error)}")
        # A missing scope comes as 403 with Kalshi's own body; without one it is some filter in between.
        if answer.status == 403 and (error := venue_error(answer.body)) is not None:
            raise AuthError(
                f"{answer.host} answered {answer.method} {answer.path} with 403: {error.text}; check the key's scopes "
                "and its sub-account"
            )

    def _restamp(self, method: str, path: str) -> None:
        self.restamped += 1
        _LOG.warning(
            "kalshi: the stamp of %s %s was refused; signed anew with the venue's time (this clock is off by %.1f s)",
            method,
            path,
            self.skew_ms / 1000,
        )

    def _headers(self, method: str, path: str) -> dict[str, str]:
        return self._signer.headers(method, self._root + path, self._venue_clock.now_ms())
