"""Candles of the markets that traded since the start: quotes and trades of YES, minute by minute (kalshi.md, 3.8).

A candle's time is its inclusive end. A minute without a change carries the last quotes on and has no prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pmkit.clock import Clock
from pmkit.sim.engine import PRICE_UNITS, Match
from pmkit.sim.kalshi.market import LiveMarket, Trade
from pmkit.sim.kalshi.windows import MINUTE_MS, Window

_KEPT = 1_000  # markets


@dataclass(slots=True)
class Range:
    """Open, high, low, close in 0.0001 dollars."""

    open: int
    high: int
    low: int
    close: int

    @classmethod
    def at(cls, price: int) -> Range:
        return cls(price, price, price, price)

    def add(self, price: int) -> None:
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price

    def then(self, later: Range) -> Range:
        """Both periods as one."""
        return Range(self.open, max(self.high, later.high), min(self.low, later.low), later.close)


@dataclass(slots=True)
class Candle:
    """One period. `price` None without a trade; `previous` is the last price before it, 0 before the first trade.

    Volume and open interest in engine units, money in price times volume.
    """

    end_s: int
    bid: Range
    ask: Range
    previous: int
    open_interest: int
    price: Range | None = None
    volume: int = 0
    money: int = 0

    def after(self, end_s: int) -> Candle:
        """A later period in which nothing has happened yet."""
        last = self.previous if self.price is None else self.price.close
        return Candle(end_s, Range.at(self.bid.close), Range.at(self.ask.close), last, self.open_interest)

    def then(self, later: Candle) -> Candle:
        """This and the period that follows it as one."""
        price = self.price or later.price
        if self.price is not None and later.price is not None:
            price = self.price.then(later.price)
        return Candle(
            later.end_s, self.bid.then(later.bid), self.ask.then(later.ask), self.previous, later.open_interest, price,
            self.volume + later.volume, self.money + later.money,
        )  # fmt: skip


class Candles:
    """Keeps them: `quoted` and `matched` are called by the feed of every change."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minutes: dict[str, list[Candle]] = {}

    def _now(self, live: LiveMarket) -> Candle:
        minutes = self._minutes.get(live.ticker)
        end_s = (self._clock.now_ms() // MINUTE_MS + 1) * MINUTE_MS // 1000
        if minutes is None:
            minutes = self._minutes[live.ticker] = [Candle(end_s, Range.at(0), Range.at(PRICE_UNITS), 0, 0)]
            while len(self._minutes) > _KEPT:
                del self._minutes[next(iter(self._minutes))]
        if minutes[-1].end_s < end_s:
            minutes.append(minutes[-1].after(end_s))
        return minutes[-1]

    def quoted(self, live: LiveMarket) -> None:
        """The book has changed."""
        now = self._now(live)
        now.bid.add(live.engine.best_bid or 0)
        now.ask.add(live.engine.best_ask or PRICE_UNITS)
        now.open_interest = live.stats.open_interest

    def matched(self, live: LiveMarket, match: Match, trade: Trade) -> None:
        """A trade."""
        now = self._now(live)
        if now.price is None:
            now.price = Range.at(trade.price)
        else:
            now.price.add(trade.price)
        now.volume += trade.size
        now.money += trade.price * trade.size

    def of(self, window: Window, minutes: int) -> Sequence[Candle]:
        """All periods of so many minutes that have begun, oldest first; none of a market that never traded here."""
        known = self._minutes.get(window.ticker)
        if not known:
            return []
        until_s = min(window.close_ms, self._clock.now_ms()) // 1000
        found: list[Candle] = []
        by_end = {candle.end_s: candle for candle in known}
        last = known[0]
        for end_s in range(last.end_s, until_s + 60, 60):
            last = by_end.get(end_s) or last.after(end_s)
            if end_s - 60 < until_s:
                found.append(last)
        return found if minutes == 1 else _joined(found, minutes)


def _joined(candles: Sequence[Candle], minutes: int) -> list[Candle]:
    length_s = minutes * 60
    found: list[Candle] = []
    for candle in candles:
        end_s = -(-candle.end_s // length_s) * length_s
        part = replace(candle, end_s=end_s)
        if found and found[-1].end_s == end_s:
            found[-1] = found[-1].then(part)
        else:
            found.append(part)
    return found
