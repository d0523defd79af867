"""Token buckets per signer (reference: polymarket-trading.md, 6.2). Rates are per second of market time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pmkit.clock import Clock
from pmkit.sim.server import Refused

TIERS = {
    "Standard": (40, 60, 80, 120),
    "Copper": (60, 90, 120, 180),
    "Bronze": (80, 120, 160, 240),
    "Silver": (200, 300, 400, 600),
    "Gold": (400, 600, 800, 1200),
    "Platinum": (450, 675, 900, 1350),
    "Diamond": (525, 787, 1050, 1575),
    "Elite": (600, 900, 1200, 1800),
}
_MAY_OWE = ("Standard", "Copper", "Bronze", "Silver", "Gold")


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class SignerLimits:
    """One bucket for orders and one for cancels per signer. `tier` holds for everyone; `enforced` False only warns."""

    def __init__(self, clock: Clock, tier: str = "Standard") -> None:
        self.tier = tier
        self.enforced = True
        self.refused = 0
        self._clock = clock
        self._buckets: dict[tuple[str, bool], _Bucket] = {}

    def _rates(self, cancels: bool) -> tuple[int, int]:
        orders, burst, cancel, cancel_burst = TIERS[self.tier]
        return (cancel, cancel_burst) if cancels else (orders, burst)

    def take(self, signer: str, cost: int, *, cancels: bool = False) -> dict[str, str]:
        """Pay for a request; returns the headers of its answer. Raises Refused (429), then nothing is taken."""
        rate, burst = self._rates(cancels)
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault((signer, cancels), _Bucket(burst, now))
        bucket.left = min(float(burst), bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        short = bucket.left < cost and not (cancels and self.tier in _MAY_OWE and bucket.left > 0)
        if short and self.enforced:
            self.refused += 1
            wait = max(1, -int(-(cost - bucket.left) // rate))
            raise Refused(429, "Too Many Requests", {**self._headers(bucket, rate, burst), "Retry-After": str(wait)})
        bucket.left -= cost
        return {**self._headers(bucket, rate, burst), **({"Poly-RateLimit-Warning": "true"} if short else {})}

    def charge(self, signer: str, cost: int) -> None:
        """Take from the cancel bucket what is only known afterwards (cancel-all); it may owe."""
        bucket = self._buckets.get((signer, True))
        if bucket is not None:
            bucket.left -= cost

    def _headers(self, bucket: _Bucket, rate: int, burst: int) -> dict[str, str]:
        full = (burst - bucket.left) / rate
        return {
            "Poly-RateLimit-Remaining": str(math.floor(bucket.left)),
            "Poly-RateLimit-Reset": str(int(self._clock.now_ms() / 1000 + full) + 1),
            "Poly-RateLimit-Tier": self.tier,
        }
