"""Token buckets: reads per account or address, writes per account and shard (reference: kalshi.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

from pmkit.clock import Clock
from pmkit.sim.kalshi.errors import too_many

COST = 10
CANCEL_COST = 2
# A live Basic account in August 2026: 200 tokens a second, 600 at once. Without a key 51 requests a second passed, 77
# did not.
REFILL = 200.0
CAPACITY = 600.0
REFILL_UNSIGNED = 600.0
# The same account's writes.
WRITE_REFILL = 100.0
WRITE_CAPACITY = 100.0
# Shards with a bucket of their own; None is the unscoped bucket.
SHARDS = (1, 2, 3)

# What `GET /account/endpoint_costs` lists of the calls that exist here.
EXCEPTIONS = (
    ("DELETE", "/portfolio/events/orders", CANCEL_COST),
    ("DELETE", "/portfolio/events/orders/:order_id", CANCEL_COST),
    ("DELETE", "/portfolio/events/orders/batched", CANCEL_COST),
    ("GET", "/portfolio/orders/:order_id", CANCEL_COST),
)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def refill(self, now: float, rate: float, capacity: float) -> float:
        self.tokens = min(capacity, self.tokens + (now - self.at) * rate)
        self.at = now
        return self.tokens


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
        if bucket.refill(now, self.refill if signed else self.refill_unsigned, self.capacity) < cost:
            raise too_many()
        bucket.tokens -= cost


class WriteLimits:
    """The same for writes: an unscoped bucket and one per nonzero shard."""

    def __init__(self, clock: Clock) -> None:
        self.refill = WRITE_REFILL
        self.capacity = WRITE_CAPACITY * max(1.0, clock.factor)
        self._clock = clock
        self._buckets: dict[tuple[str, int | None], _Bucket] = {}

    def spend(self, who: str, shard: int | None, cost: int = COST) -> None:
        """Take the tokens of one write, from all its buckets or none. Raises Refused with 429.

        A nonzero shard costs that shard's bucket; shard 0 the unscoped one; None (routed by the market's ticker) the
        unscoped one and every shard's.
        """
        now = self._clock.monotonic()
        names: tuple[int | None, ...] = (None,) if shard == 0 else (None, *SHARDS) if shard is None else (shard,)
        buckets = [self._buckets.setdefault((who, name), _Bucket(self.capacity, now)) for name in names]
        left = [bucket.refill(now, self.refill, self.capacity) for bucket in buckets]
        if min(left) < cost:
            raise too_many()
        for bucket in buckets:
            bucket.tokens -= cost
