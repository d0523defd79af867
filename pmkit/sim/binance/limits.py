"""Request weight per address and market minute, and what follows from too much (binance.md, section 2, limits).

A minute is a calendar minute of market time; whether the real one slides is not known. `Retry-After` is in market
seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pmkit.clock import Clock
from pmkit.sim.binance.refusals import refuse
from pmkit.sim.server import Refused

LIMIT = 6_000
MINUTE_MS = 60_000
FIRST_BAN_MS = 120_000
LONGEST_BAN_MS = 3 * 24 * 3_600_000
CONNECTIONS = 300
CONNECTIONS_MS = 300_000


@dataclass(slots=True)
class _Address:
    minute: int = 0
    used: int = 0
    refused: int = 0  # in this minute
    bans: int = 0
    banned_until: int = 0
    connects: deque[int] = field(default_factory=deque)


class Limits:
    """The counters of all addresses. `limit` may be set by tests; `patience` is how many 429 come before a ban."""

    def __init__(self, clock: Clock) -> None:
        self.limit = LIMIT
        self.patience = 10
        self._clock = clock
        self._addresses: dict[str, _Address] = {}

    def used(self, address: str) -> int:
        """What an address has spent in the current minute."""
        spender = self._addresses.get(address)
        return spender.used if spender and spender.minute == self._clock.now_ms() // MINUTE_MS else 0

    def spend(self, address: str, weight: int) -> dict[str, str]:
        """Charge a request and return the headers of its answer. Raises Refused with 429 or 418."""
        now = self._clock.now_ms()
        spender = self._addresses.setdefault(address, _Address())
        if now < spender.banned_until:
            raise self._banned(spender, now)
        minute = now // MINUTE_MS
        if spender.minute != minute:
            spender.minute, spender.used, spender.refused = minute, 0, 0
        spender.used += weight
        headers = {"X-MBX-USED-WEIGHT": str(spender.used), "X-MBX-USED-WEIGHT-1M": str(spender.used)}
        if spender.used <= self.limit:
            return headers
        spender.refused += 1
        if spender.refused > self.patience:
            spender.banned_until = now + min(LONGEST_BAN_MS, FIRST_BAN_MS << min(spender.bans, 20))
            spender.bans += 1
            raise self._banned(spender, now)
        headers["Retry-After"] = str((MINUTE_MS - now % MINUTE_MS + 999) // 1000)
        raise refuse(
            429,
            -1003,
            f"Too much request weight used; current limit is {self.limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
            headers,
        )

    def ban(self, seconds: float, address: str = "127.0.0.1") -> None:
        """Ban an address for market seconds from now, on every host."""
        spender = self._addresses.setdefault(address, _Address())
        spender.banned_until = self._clock.now_ms() + round(seconds * 1000)

    def _banned(self, spender: _Address, now: int) -> Refused:
        return refuse(
            418,
            -1003,
            f"Way too much request weight used; IP banned until {spender.banned_until}. "
            "Please use WebSocket Streams for live updates to avoid bans.",
            {"Retry-After": str((spender.banned_until - now + 999) // 1000)},
        )

    def connect(self, address: str) -> None:
        """Count a socket connection. Raises Refused with 429 beyond 300 in five market minutes."""
        now = self._clock.now_ms()
        connects = self._addresses.setdefault(address, _Address()).connects
        while connects and connects[0] <= now - CONNECTIONS_MS:
            connects.popleft()
        if len(connects) >= CONNECTIONS:
            raise refuse(429, -1034, f"Too many connection attempts from IP; current limit is {CONNECTIONS}")
        connects.append(now)
