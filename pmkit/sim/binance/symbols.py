"""The pairs, and numbers in units of 1e-8."""

from __future__ import annotations

from dataclasses import dataclass

from pmkit.sim.binance.intervals import floor_open
from pmkit.sim.world import ASSETS

UNIT = 100_000_000  # all numbers have eight decimals


@dataclass(frozen=True, slots=True)
class Symbol:
    """One pair. `tick` and `lot` in 1e-8; `rate` trades per second; `burst` how unevenly they come (0 to 5)."""

    name: str
    asset: str
    tick: int
    lot: int
    rate: int
    burst: float
    first_ms: int  # the open of the first candle

    @property
    def tick_text(self) -> str:
        return decimal_text(self.tick)

    @property
    def lot_text(self) -> str:
        return decimal_text(self.lot)


# Trades a second, unevenness (which gives the share of seconds without trades), first candle (reference, section 2).
_KNOWN: dict[str, tuple[int, float, int]] = {
    "BTC": (12, 2.0, 1502942400000),
    "ETH": (9, 2.9, 1502942400000),
    "BNB": (5, 4.0, 1509940440000),
    "LTC": (4, 4.8, 1513135920000),
    "ADA": (4, 4.8, 1523937720000),
    "XRP": (5, 4.4, 1525421460000),
    "SOL": (6, 3.3, 1597125600000),
}
_OTHERS = (5, 4.4, 1609459200000)


def make_symbol(asset: str) -> Symbol:
    """The pair of one of the World's assets against USDT."""
    traits = ASSETS[asset]
    tick = 10 ** (8 - traits.decimals)
    # The finest lot that keeps a quote volume (tick * lot) within eight decimals, coarser for cheap assets.
    lot = UNIT // tick * (10 if traits.decimals == 2 else 1)
    if traits.decimals == 2 and traits.base < 10_000:
        lot *= 10 if traits.base >= 1_000 else 100
    elif traits.decimals > 2:
        lot *= 1_000
    rate, burst, first = _KNOWN.get(asset, _OTHERS)
    return Symbol(f"{asset}USDT", asset, tick, lot, rate, burst, first)


def decimal_text(value: int) -> str:
    """1e-8 units as the eight-decimal text of the venue."""
    return f"{value // UNIT}.{value % UNIT:08d}"


def first_open(symbol: Symbol, interval: str) -> int:
    """The open of the first candle of an interval: the one that holds the first trade."""
    return floor_open(interval, symbol.first_ms)
