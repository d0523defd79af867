"""Polymarket's per-signer rate limits as they are spent here: one token bucket for orders, one for cancels.

An order costs 1, a batch the number of its orders; a cancel 1, several the number of their ids. A batch is admitted
whole or not at all. The two buckets are apart, so that orders never hold back a cancel. Refills in market time, which
is wall time but on local venues. Source: docs.polymarket.com/api-reference/trading-rate-limits.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import NotSent
from pmkit.exchanges.types import Budget

MAX_WAIT_SECONDS: Final = 2.0
"""Wall seconds that a cancel waits for its tokens; an order never does."""

_TIERS: Final[dict[str, tuple[float, float]]] = {
    "standard": (40, 60),
    "copper": (60, 90),
    "bronze": (80, 120),
    "silver": (200, 300),
    "gold": (400, 600),
    "platinum": (450, 675),
    "diamond": (525, 787),
    "elite": (600, 900),
}
"""Orders per second and burst; cancels have twice as much of both."""

_LOG = logging.getLogger("pmkit.polymarket")
_COUNT = re.compile(r"-?[0-9]{1,9}").fullmatch  # the cancel bucket may be below zero


class _Tokens:
    __slots__ = ("at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, now

    def set(self, rate: float, burst: float) -> None:
        # What was spent stays spent.
        self.tokens = min(burst, self.tokens + burst - self.burst)
        self.rate, self.burst = rate, burst

    def level(self, now: float) -> float:
        if now > self.at:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return self.tokens

    def lacks(self, cost: float, now: float) -> float:
        """Market seconds until `cost` may be spent; 0: now. More than a burst may be spent from a full bucket."""
        missing = min(cost, self.burst) - self.level(now)
        return 0.0 if missing <= 1e-9 else missing / self.rate


class TradingLimits:
    """Both buckets of one signer, at the Standard tier until the venue names another one.

    `refused`: how often something was held back here, so that nothing was sent. `warnings`: answers in which the venue
    said that a limit was passed.
    """

    def __init__(self, clock: Clock, host: str) -> None:
        self.tier = "standard"
        self.refused = 0
        self.warnings = 0
        self._clock = clock
        self._host = host
        rate, burst = _TIERS[self.tier]
        now = clock.monotonic()
        self._orders = _Tokens(rate, burst, now)
        self._cancels = _Tokens(2 * rate, 2 * burst, now)

    @property
    def cancel_burst(self) -> int:
        """Cancels that can be sent in one go."""
        return int(self._cancels.burst)

    def order(self, count: int = 1) -> None:
        """Spend the tokens of `count` orders at once. Raises NotSent where they are not there, and spends nothing."""
        bucket, now = self._orders, self._clock.monotonic()
        if bucket.level(now) < count and (wait := bucket.lacks(count, now)) > 0:
            self.refused += 1
            raise NotSent(
                f"nothing was sent: the order limit of {self._host} ({self.tier}, {self._orders.rate:g}/s) is used up; "
                f"in {wait:.2f} s there is room for {count}"
            )
        bucket.tokens -= count

    async def cancel(self, count: int = 1) -> None:
        """Spend the tokens of cancels; waits up to 2 wall seconds. Raises NotSent."""
        until = self._clock.io_monotonic() + MAX_WAIT_SECONDS
        while (wait := self._cancels.lacks(count, self._clock.monotonic())) > 0:
            seconds = wait / self._clock.factor
            if self._clock.io_monotonic() + seconds > until:
                self.refused += 1
                raise NotSent(f"nothing was sent: the cancel limit of {self._host} is used up for {wait:.2f} s more")
            await self._clock.io_sleep(seconds)
        self._cancels.tokens -= count

    def spend_cancels(self, count: int) -> None:
        """The venue cancelled so many by one request: they count as well. The bucket may go below zero."""
        self._cancels.level(self._clock.monotonic())
        self._cancels.tokens -= count

    def learn(self, headers: Mapping[str, str], *, orders: bool, status: int = 200) -> None:
        """What the headers of an answer say: tier, tokens left, a warning. Never raises."""
        named = headers.get("poly-ratelimit-tier", self.tier)
        if named != self.tier and (tier := named.strip().lower()) != self.tier and tier in _TIERS:
            _LOG.info("polymarket: the account's rate limits are those of the tier %s", tier)
            self.tier = tier
            rate, burst = _TIERS[tier]
            self._orders.set(rate, burst)
            self._cancels.set(2 * rate, 2 * burst)
        bucket = self._orders if orders else self._cancels
        left = headers.get("poly-ratelimit-remaining")
        if left is not None and _COUNT(left.strip()):
            # Others may trade with this signer too: the venue's count is the one that matters.
            bucket.tokens = min(bucket.level(self._clock.monotonic()), float(left))
        if status == 429:
            bucket.level(self._clock.monotonic())
            bucket.tokens = min(bucket.tokens, 0.0)
        warning = headers.get("poly-ratelimit-warning")
        if warning is not None and warning.strip().lower() == "true":
            self.warnings += 1
            if self.warnings == 1:
                _LOG.warning("polymarket: the venue warns of the %s limit", "order" if orders else "cancel")

    def left(self) -> Budget:
        """Orders and cancels that could be sent now."""
        now = self._clock.monotonic()
        return Budget(orders=max(0.0, self._orders.level(now)), cancels=max(0.0, self._cancels.level(now)))
