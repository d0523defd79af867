"""The read bucket: tokens per key, or per address without one (reference: kalshi.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

from pmkit.clock import Clock
from pmkit.sim.kalshi.errors import too_many

COST = 10
# A live Basic account in August 2026: 200 tokens a second, 600 at once. Without a key 51 requests a second passed, 77
# did not.
REFILL = 200.0
CAPACITY = 600.0
REFILL_UNSIGNED = 600.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class ReadLimits:
    """Buckets that refill in market time. The fields may be set by tests.

    Capacity grows with the clock factor as well, or one burst of the wall's time could not use the faster refill.
    """

    def __init__(self, clock: Clock) -> None:
        self.refill = REFILL
        self.refill_unsigned = REFILL_UNSIGNED
        self.capacity = CAPACITY * max(1.0, clock.factor)
        self._clock = clock
        self._buckets: dict[tuple[bool, str], _Bucket] = {}

    def spend(self, signed: bool, who: str, cost: int = COST) -> None:
        """Take the tokens of one request. Raises Refused with 429; nothing is taken then."""
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault((signed, who), _Bucket(self.capacity, now))
        refill = self.refill if signed else self.refill_unsigned
        bucket.tokens = min(self.capacity, bucket.tokens + (now - bucket.at) * refill)
        bucket.at = now
        if bucket.tokens < cost:
            raise too_many()
        bucket.tokens -= cost
