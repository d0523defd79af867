"""The seeded world behind all local venues: prices, settlement averages and the fair value of a window.

Every number is a pure function of (seed, asset, moment): any moment can be asked for in any order, past or future, and
another process with the same seed sees the same world. Nothing is kept but a bounded cache.

The path is Brownian: the log price at the edges of blocks of 2**17 s (36 h) is drawn independently, so that a price
stays near its base for ever, and between them Brownian bridges are halved down to single seconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

import msgspec

from pmkit.clock import Clock
from pmkit.errors import ConfigError

SECOND_MS = 1_000
AVERAGE_SECONDS = 60
INTERVALS_MS = {"5m": 300_000, "15m": 900_000}

_BLOCK_BITS = 17
_CHUNK_BITS = 6
_CHUNK_SECONDS = 1 << _CHUNK_BITS
_CACHED_CHUNKS = 4_096
_CACHED_AVERAGES = 8_192
_CACHED_EXPECTATIONS = 256
_NORMAL = NormalDist()


class AssetTraits(msgspec.Struct, frozen=True):
    """What the path of an asset looks like.

    `base` is the price it stays around, `deviation` the relative standard deviation of one second, `decimals` those of
    the price on an exchange.
    """

    name: str
    base: float
    deviation: float
    decimals: int


ASSETS = {
    "BTC": AssetTraits("Bitcoin", 90_000.0, 0.9e-4, 2),
    "ETH": AssetTraits("Ethereum", 3_100.0, 1.2e-4, 2),
    "SOL": AssetTraits("Solana", 190.0, 1.5e-4, 2),
    "XRP": AssetTraits("XRP", 2.3, 1.4e-4, 4),
    "DOGE": AssetTraits("Dogecoin", 0.21, 1.6e-4, 5),
    "BNB": AssetTraits("BNB", 880.0, 1.1e-4, 2),
    "HYPE": AssetTraits("Hyperliquid", 38.0, 1.8e-4, 2),
    "ZEC": AssetTraits("Zcash", 410.0, 1.8e-4, 2),
    "ADA": AssetTraits("Cardano", 0.62, 1.5e-4, 4),
    "LTC": AssetTraits("Litecoin", 95.0, 1.2e-4, 2),
}


def window_open(interval: str, ms: int) -> int:
    """The start (epoch ms) of the window of "5m" or "15m" that holds the moment; the start itself belongs to it."""
    length = INTERVALS_MS[interval]
    return ms // length * length


def windows(interval: str, start_ms: int, end_ms: int) -> range:
    """The starts (epoch ms) of all windows whose start lies in [start_ms, end_ms)."""
    length = INTERVALS_MS[interval]
    return range(-(-start_ms // length) * length, end_ms, length)


class World:
    """Prices in dollars, moments in epoch milliseconds of market time.

    Raises ConfigError for an asset that has no traits here.
    """

    def __init__(self, seed: int, clock: Clock, assets: Sequence[str] = ("BTC", "ETH", "SOL", "XRP")) -> None:
        unknown = [asset for asset in assets if asset not in ASSETS]
        if unknown:
            raise ConfigError(f"the local venues know no {', '.join(unknown)}; they know {', '.join(ASSETS)}")
        if not assets or len(set(assets)) != len(assets):
            raise ConfigError(f"the assets of the local venues must be named once each, not {list(assets)}")
        self.seed = seed
        self.clock = clock
        self.assets = tuple(assets)
        self._chunks: OrderedDict[tuple[str, int], tuple[float, ...]] = OrderedDict()
        self._averages: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._expectations: dict[tuple[str, int], tuple[int, float]] = {}
        self._key = str(seed).encode()
        self._hashes: dict[int, Any] = {}

    # ---- randomness by name

    def bits(self, *labels: object, size: int = 8) -> int:
        """`size` bytes (at most 64) that depend on the seed and the labels only, as an integer."""
        fresh = self._hashes.get(size)
        if fresh is None:
            fresh = self._hashes[size] = blake2b(digest_size=size, key=self._key)
        hashed = fresh.copy()
        hashed.update("\x1f".join(map(str, labels)).encode())
        return int.from_bytes(hashed.digest())

    def draw(self, *labels: object) -> float:
        """A uniform number in [0, 1) that depends on the seed and the labels only."""
        return (self.bits(*labels) >> 11) * 2.0**-53

    # ---- prices

    def price(self, asset: str, ms: int) -> float:
        """The price of the second that holds the moment."""
        second = ms // SECOND_MS
        return self._chunk(asset, second >> _CHUNK_BITS)[second & (_CHUNK_SECONDS - 1)]

    def prices(self, asset: str, start_ms: int, count: int) -> list[float]:
        """The prices of `count` consecutive seconds, the first being the one that holds `start_ms`."""
        second = start_ms // SECOND_MS
        end = second + count
        found: list[float] = []
        while second < end:
            chunk = self._chunk(asset, second >> _CHUNK_BITS)
            first = second & (_CHUNK_SECONDS - 1)
            part = chunk[first : first + end - second]
            found += part
            second += len(part)
        return found

    def twap60(self, asset: str, ms: int) -> float:
        """The mean of the 60 prices of the seconds in (ms - 60 s, ms]: what windows start from and settle on."""
        key = (asset, ms // SECOND_MS)
        known = self._averages.get(key)
        if known is not None:
            return known
        first = (key[1] - AVERAGE_SECONDS + 1) * SECOND_MS
        average = round(math.fsum(self.prices(asset, first, AVERAGE_SECONDS)) / AVERAGE_SECONDS, 11)
        self._averages[key] = average
        if len(self._averages) > _CACHED_AVERAGES:
            self._averages.popitem(last=False)
        return average

    def went_up(self, asset: str, open_ms: int, close_ms: int) -> bool:
        """Whether the average at the close is at or above the one at the open (a tie is up)."""
        return self.twap60(asset, close_ms) >= self.twap60(asset, open_ms)

    # ---- fair value

    def fair_up(self, asset: str, open_ms: int, close_ms: int, now_ms: int) -> float:
        """The probability that the window ends up, as seen at `now_ms` without looking ahead; 0.0 or 1.0 at its end.

        The difference of the two averages is normal: its mean holds every unknown second at the current price, its
        variance sums the weight with which each coming second enters it.
        """
        if now_ms >= close_ms:
            return 1.0 if self.went_up(asset, open_ms, close_ms) else 0.0
        price = self.price(asset, now_ms)
        mean = self._expected(asset, close_ms, now_ms, price) - self._expected(asset, open_ms, now_ms, price)
        to_open = max(0.0, min(float(AVERAGE_SECONDS), (open_ms - now_ms) / SECOND_MS))
        to_close = (close_ms - now_ms) / SECOND_MS
        third = AVERAGE_SECONDS / 3.0
        if to_close < AVERAGE_SECONDS:
            weight = third * (to_close / AVERAGE_SECONDS) ** 3
        elif now_ms >= open_ms:
            weight = to_close - AVERAGE_SECONDS + third
        else:
            before = third * (1.0 - (1.0 - to_open / AVERAGE_SECONDS) ** 3)
            weight = before + (close_ms - open_ms) / SECOND_MS - AVERAGE_SECONDS + third
        deviation = price * ASSETS[asset].deviation * math.sqrt(max(weight, 1e-9))
        return _NORMAL.cdf(max(-8.0, min(8.0, mean / deviation)))

    def _expected(self, asset: str, at_ms: int, now_ms: int, price: float) -> float:
        """The expected average at a moment: seconds that have come at their price, the rest at the current one."""
        key, second = (asset, at_ms), now_ms // SECOND_MS
        kept = self._expectations.get(key)
        if kept is not None and kept[0] == second:
            return kept[1]  # traders ask many times in a second
        first = at_ms // SECOND_MS - AVERAGE_SECONDS + 1
        known = max(0, min(AVERAGE_SECONDS, now_ms // SECOND_MS - first + 1))
        total = math.fsum(self.prices(asset, first * SECOND_MS, known)) if known else 0.0
        expected = (total + (AVERAGE_SECONDS - known) * price) / AVERAGE_SECONDS
        if len(self._expectations) >= _CACHED_EXPECTATIONS:
            self._expectations.clear()
        self._expectations[key] = (second, expected)
        return expected

    # ---- the path

    def _gauss(self, asset: str, level: int, index: int) -> float:
        return _NORMAL.inv_cdf(max(1e-12, self.draw("path", asset, level, index)))

    def _edge(self, asset: str, block: int) -> float:
        # Two independent edges differ by sqrt(2) of this, which is what a Brownian path of that length does.
        return ASSETS[asset].deviation * math.sqrt((1 << _BLOCK_BITS) / 2.0) * self._gauss(asset, _BLOCK_BITS, block)

    def _chunk(self, asset: str, index: int) -> tuple[float, ...]:
        key = (asset, index)
        found = self._chunks.get(key)
        if found is not None:
            self._chunks.move_to_end(key)
            return found
        traits = ASSETS[asset]
        block = index >> (_BLOCK_BITS - _CHUNK_BITS)
        low, high = self._edge(asset, block), self._edge(asset, block + 1)
        position = block << (_BLOCK_BITS - _CHUNK_BITS)
        for level in range(_BLOCK_BITS - 1, _CHUNK_BITS - 1, -1):
            half = 1 << (level - _CHUNK_BITS)
            middle = self._between(asset, traits, level, (position + half) << _CHUNK_BITS, low, high)
            if index < position + half:
                high = middle
            else:
                low, position = middle, position + half
        logs = [low, *[0.0] * (_CHUNK_SECONDS - 1), high]
        first = index << _CHUNK_BITS
        for level in range(_CHUNK_BITS - 1, -1, -1):
            half = 1 << level
            for middle_at in range(half, _CHUNK_SECONDS, half * 2):
                logs[middle_at] = self._between(
                    asset, traits, level, first + middle_at, logs[middle_at - half], logs[middle_at + half]
                )
        prices = tuple(round(traits.base * math.exp(value), 8) for value in logs[:-1])
        self._chunks[key] = prices
        if len(self._chunks) > _CACHED_CHUNKS:
            self._chunks.popitem(last=False)
        return prices

    def _between(self, asset: str, traits: AssetTraits, level: int, second: int, low: float, high: float) -> float:
        """The middle of a bridge over 2 * 2**level seconds."""
        return (low + high) / 2.0 + traits.deviation * math.sqrt((1 << level) / 2.0) * self._gauss(asset, level, second)
