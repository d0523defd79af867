"""The REST hosts of Binance: which one is asked, how much weight may be spent, when nothing may be sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from pmkit.clock import Clock
from pmkit.data.binance.types import (
    RETRY_CODES,
    UNKNOWN_INTERVAL,
    UNKNOWN_SYMBOL,
    parse_error,
    parse_weight_limit,
)
from pmkit.data.binance.weights import WeightBudget
from pmkit.endpoints import Endpoints
from pmkit.errors import (
    ConfigError,
    MarketNotFound,
    NotSent,
    PmkitError,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.http import HttpAnswer, HttpSession
from pmkit.venue_clock import VenueClock

KLINES: Final = "/api/v3/klines"
TIME: Final = "/api/v3/time"
EXCHANGE_INFO: Final = "/api/v3/exchangeInfo"
WEIGHTS: Final[Mapping[str, int]] = {KLINES: 2, TIME: 1, EXCHANGE_INFO: 20}
_ALLOW = (("GET", r"/api/v3/(klines|time|exchangeInfo)"),)
_USED_WEIGHT = "x-mbx-used-weight-1m"

ATTEMPTS: Final = 5
FIRST_BACKOFF: Final = 0.5
BAN_SECONDS: Final = 120.0
"""A 418 without Retry-After: the shortest ban (SPOT/rest-api.md, IP limits)."""

_LOG = logging.getLogger("pmkit.binance")


class BinanceHosts:
    """GET on the first host that does not refuse this machine, within the share of the request weight.

    `blocked`: hosts that refuse this machine (403, 451), and what they said; they are not asked again. Network
    failures, 5xx and the codes for "busy" are tried up to 5 times, on the next host each time. 429 is waited out;
    after 418 (the IP is banned) nothing is sent until the ban is over.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock, share: float, max_connections: int) -> None:
        if not endpoints.binance.rest:
            raise ConfigError("the endpoints name no REST host of Binance")
        self.budget = WeightBudget(share)
        self.venue_clock = VenueClock(clock)
        self.blocked: dict[str, str] = {}
        self._clock = clock
        self._sessions = [
            HttpSession(
                url, clock, allow=_ALLOW, venue_clock=self.venue_clock, max_connections=max_connections, public=True
            )
            for url in endpoints.binance.rest
        ]
        self._turn = 0
        self._closed = False
        self._limit_lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(max_connections)
        self._resume_at = 0.0
        self._banned_until = 0.0

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        """End all connections, within a second; nothing is sent any more."""
        self._closed = True
        await asyncio.gather(*(session.close() for session in self._sessions), return_exceptions=True)

    def _session(self) -> HttpSession:
        count = len(self._sessions)
        for step in range(count):
            session = self._sessions[(self._turn + step) % count]
            if session.host not in self.blocked:
                self._turn = (self._turn + step) % count
                return session
        said = "; ".join(f"{host}: {reason}" for host, reason in self.blocked.items())
        raise RegionBlocked(f"every REST host of Binance refuses this machine ({said}): no retry will help")

    def _leave(self, session: HttpSession) -> None:
        """The next request goes to the next host, unless another request has moved on already."""
        if self._sessions[self._turn] is session:
            self._turn = (self._turn + 1) % len(self._sessions)

    async def get(self, path: str, params: Mapping[str, str | int]) -> HttpAnswer:
        """One answer with status 200. Raises as the class says, NotSent when closed."""
        weight, failures, backoff = WEIGHTS[path], 0, FIRST_BACKOFF
        while True:
            await self._admit(path, params, weight)
            async with self._slots:
                # What waited for a connection is asked again: meanwhile the venue may have said stop.
                if not self._may_send(weight):
                    continue
                found = await self._ask(path, params, weight)
            if isinstance(found, HttpAnswer):
                return found
            if found is None:
                continue
            problem = found
            failures += 1
            if failures >= ATTEMPTS or self._closed:
                raise problem
            _LOG.info("Binance: %s: attempt %d of %d follows", problem, failures + 1, ATTEMPTS)
            await self._clock.sleep(backoff * self._clock.entropy.uniform(0.8, 1.2))
            backoff *= 2

    async def _ask(self, path: str, params: Mapping[str, str | int], weight: int) -> HttpAnswer | PmkitError | None:
        """One request: its answer, a failure that may pass, or None where it is asked again at once. Raises others."""
        session = self._session()
        self.budget.spend(weight)
        try:
            answer = await session.request("GET", path, params=params, wait=False)
        except RateLimited as error:  # the session's own gate: nothing was sent
            self._pause(error.retry_after)
            return None
        except (NotSent, VenueUnavailable) as error:
            self._leave(session)
            return error
        finally:
            self.budget.answered(weight, self._clock.monotonic())
        self._observe(answer)
        if answer.status == 200:
            return answer
        problem = self._refused(answer, params)
        if isinstance(problem, RegionBlocked):
            self.blocked[session.host] = f"{answer.status} {answer.excerpt}".strip()
            _LOG.warning("Binance: %s: going on with the next host", problem)
            return None
        if isinstance(problem, VenueUnavailable):
            self._leave(session)
        elif answer.status != 429:
            raise problem
        return problem

    def _refused(self, answer: HttpAnswer, params: Mapping[str, str | int]) -> PmkitError:
        """What an answer that is no candles means. The status comes first: bodies of 451 and 5xx look alike."""
        status = answer.status
        code, text = parse_error(answer.body)
        what = f"{answer.host} answered {answer.path} with {status}: {answer.excerpt or '(empty body)'}"
        if status == 418:
            wait = BAN_SECONDS if answer.retry_after is None else answer.retry_after
            self._banned_until = max(self._banned_until, self._clock.io_monotonic() + wait)
            _LOG.error("Binance has banned this IP for %.0f s: nothing is sent until then", wait)
            return RateLimited(f"{what}; this IP is banned for {wait:.0f} s", wait)
        if status == 429:
            self._pause(answer.retry_after)
            return RateLimited(f"{what}; wait before asking again", answer.retry_after)
        if status in (403, 451):
            return RegionBlocked(what)
        if status >= 500 or code in RETRY_CODES:
            return VenueUnavailable(f"{what}; try again later", status, answer.retry_after)
        if code == UNKNOWN_SYMBOL:
            return MarketNotFound(f"Binance does not know the symbol {params.get('symbol')} ({answer.host}: {text})")
        if code == UNKNOWN_INTERVAL:
            return ConfigError(f"Binance does not know the interval {params.get('interval')} ({answer.host}: {text})")
        return ProtocolChanged(f"{what}; the request is not understood any more")

    def _observe(self, answer: HttpAnswer) -> None:
        used = answer.headers.get(_USED_WEIGHT, "")
        if used.isdecimal():
            self.budget.observe(int(used), self.venue_clock.now_ms())

    def _pause(self, seconds: float | None) -> None:
        wait = 1.0 if seconds is None else seconds
        self._resume_at = max(self._resume_at, self._clock.io_monotonic() + wait)

    def _may_send(self, weight: int) -> bool:
        """Whether a request may go out now. Raises RateLimited during a ban, NotSent when closed."""
        if self._closed:
            raise NotSent("the Binance fetcher is closed: nothing was sent")
        now = self._clock.io_monotonic()
        if now < self._banned_until:
            left = self._banned_until - now
            raise RateLimited(f"Binance has banned this IP for {left:.0f} s more: nothing was sent", left)
        return now >= self._resume_at and not self.budget.wait(
            weight, self._clock.monotonic(), self.venue_clock.now_ms()
        )

    async def _admit(self, path: str, params: Mapping[str, str | int], weight: int) -> None:
        """Wait until this may be sent. Raises RateLimited during a ban, NotSent when closed."""
        while True:
            free = self._may_send(weight)
            pause = self._resume_at - self._clock.io_monotonic()
            if pause > 0:
                await self._clock.io_sleep(pause)
                continue
            now, venue_ms = self._clock.monotonic(), self.venue_clock.now_ms()
            # Asked while there is still room for the question itself.
            spare = weight + WEIGHTS[EXCHANGE_INFO]
            if not self.budget.known and path != EXCHANGE_INFO and self.budget.wait(spare, now, venue_ms) > 0:
                await self.read_limit(params)
                continue
            if free:
                return
            await self._clock.sleep(self.budget.wait(weight, now, venue_ms))

    async def read_limit(self, params: Mapping[str, str | int]) -> None:
        """The limit itself costs 20 and is asked for only when the cautious assumption does not suffice."""
        async with self._limit_lock:
            if not self.budget.known:
                symbol = {"symbol": params["symbol"]} if "symbol" in params else {}
                self.budget.set_limit(parse_weight_limit((await self.get(EXCHANGE_INFO, symbol)).body))
