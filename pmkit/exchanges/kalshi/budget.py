"""Kalshi's rate limits as they are spent here: token buckets for reads and, per shard, for writes.

Default cost 10; 2 for a cancel and for reading one order. A write that names its shard (not 0) spends that shard's
bucket; shard 0 and all batches spend the unscoped one. `GET /account/limits` gives the numbers, Basic's stand until
then. A fifth of the write bucket is kept for cancels. Source: Kalshi, "Rate limits", "Exchange sharding".
"""

from __future__ import annotations

from typing import Final

from pmkit.clock import Clock
from pmkit.errors import NotSent, RateLimited
from pmkit.exchanges.kalshi.user_messages import Bucket, LimitsAnswer
from pmkit.exchanges.types import Budget

COST: Final = 10.0
CANCEL_COST: Final = 2.0
LOOKUP_COST: Final = 2.0
RESERVE: Final = 0.2
"""Part of a write bucket that orders never touch."""
MAX_BATCH: Final = 20
MAX_WAIT_SECONDS: Final = 2.0
"""Wall seconds that a read or a cancel waits for its tokens; an order never does."""
BASIC: Final = LimitsAnswer(read=Bucket(200.0, 200.0), write=Bucket(100.0, 100.0), usage_tier="basic")


class _Tokens:
    """One bucket. Refills in market time, which is wall time but on local venues."""

    __slots__ = ("at", "capacity", "refill", "tokens")

    def __init__(self, limits: Bucket, now: float) -> None:
        self.refill, self.capacity = limits.refill_rate, limits.bucket_capacity
        self.tokens, self.at = self.capacity, now

    def set(self, limits: Bucket, now: float) -> None:
        """New limits; what was spent stays spent."""
        spent = self.capacity - self.level(now)
        self.refill, self.capacity = limits.refill_rate, limits.bucket_capacity
        self.tokens = max(0.0, self.capacity - spent)

    def level(self, now: float) -> float:
        self.tokens = min(self.capacity, self.tokens + max(0.0, now - self.at) * self.refill)
        self.at = now
        return self.tokens

    def lacks(self, cost: float, floor: float, now: float) -> float:
        """Market seconds until `cost` may be spent above `floor`; 0: now."""
        missing = cost + floor - self.level(now)
        if missing <= 1e-9:
            return 0.0
        return missing / self.refill if self.refill > 0 else float("inf")


class TokenBudget:
    """All buckets of one account. `refused`: how often something was held back here, so that nothing was sent."""

    def __init__(self, clock: Clock, host: str) -> None:
        self.tier = ""
        self.refused = 0
        self._clock = clock
        self._host = host
        self._limits = BASIC
        self._read = _Tokens(BASIC.read, clock.monotonic())
        self._write: dict[int, _Tokens] = {}

    def learn(self, limits: LimitsAnswer) -> None:
        """The account's own numbers."""
        now = self._clock.monotonic()
        self._limits, self.tier = limits, limits.usage_tier
        self._read.set(limits.read, now)
        for bucket in self._write.values():
            bucket.set(limits.write, now)

    @property
    def batch_size(self) -> int:
        """Orders that one batch can hold: all of its tokens must be there at once."""
        return max(1, min(MAX_BATCH, int(self._limits.write.bucket_capacity * (1 - RESERVE) / COST)))

    def order(self, shard: int, count: int = 1) -> None:
        """Spend the tokens of `count` orders at once. Raises NotSent where they are not there, and spends nothing."""
        bucket = self._shard(shard)
        cost, now = COST * count, self._clock.monotonic()
        wait = bucket.lacks(cost, self._floor(bucket), now)
        if wait > 0:
            self.refused += 1
            raise NotSent(
                f"nothing was sent: the write budget of {self._host} holds no {cost:g} tokens above the reserve for "
                f"cancels now; in {wait:.2f} s it will"
            )
        bucket.tokens -= cost

    async def cancel(self, shard: int, count: int = 1) -> None:
        """Spend the tokens of cancels, from the reserve too; waits up to 2 wall seconds. Raises NotSent."""
        bucket, cost = self._shard(shard), CANCEL_COST * count
        if not await self._wait(bucket, min(cost, bucket.capacity)):
            raise NotSent(f"nothing was sent: the write budget of {self._host} holds no {cost:g} tokens for a cancel")

    async def read(self, cost: float = COST) -> None:
        """Spend the tokens of a query; waits up to 2 wall seconds. Raises RateLimited."""
        if not await self._wait(self._read, min(cost, self._read.capacity)):
            raise RateLimited(f"nothing was sent: the read budget of {self._host} is spent", cost / self._read.refill)

    async def _wait(self, bucket: _Tokens, cost: float) -> bool:
        until = self._clock.io_monotonic() + MAX_WAIT_SECONDS
        while (wait := bucket.lacks(cost, 0.0, self._clock.monotonic())) > 0:
            left = until - self._clock.io_monotonic()
            seconds = wait / self._clock.factor
            if seconds > left:
                self.refused += 1
                return False
            await self._clock.io_sleep(seconds * (1 + self._clock.entropy.random() * 0.1))
        bucket.tokens -= cost
        return True

    def drained(self, *, read: bool, shard: int = 0) -> None:
        """The venue answered 429: it counts less than was thought here."""
        bucket = self._read if read else self._shard(shard)
        bucket.level(self._clock.monotonic())
        bucket.tokens = 0.0

    def left(self) -> Budget:
        """Orders and cancels that could be sent now, of the fullest use: the shard with the least left."""
        now = self._clock.monotonic()
        buckets = list(self._write.values()) or [_Tokens(self._limits.write, now)]
        return Budget(
            orders=min(max(0.0, (one.level(now) - self._floor(one)) // COST) for one in buckets),
            cancels=min(one.level(now) // CANCEL_COST for one in buckets),
        )

    @staticmethod
    def _floor(bucket: _Tokens) -> float:
        return bucket.capacity * RESERVE

    def _shard(self, shard: int) -> _Tokens:
        bucket = self._write.get(shard)
        if bucket is None:
            bucket = self._write[shard] = _Tokens(self._limits.write, self._clock.monotonic())
        return bucket
