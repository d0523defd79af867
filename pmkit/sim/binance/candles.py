"""Candles out of the World's price path, for any second in the past or present.

Everything is a pure function of (seed, asset, second), in integers of 1e-8, so REST, bulk files and sockets cannot
disagree and two processes with one seed serve the same digits. Larger candles are the exact sums of their seconds.
Recorded days and outages come out of the symbol's `History` and go before the World.

What is kept from the real thing (binance.md, sections 2 and 6): seconds without trades exist, repeat the last close and
have volume 0; the open of a second is its first trade, not the previous close; trade ids run without holes; the candle
of the current moment grows and does not say so; low * volume <= quote volume <= high * volume.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import reduce

from pmkit.clock import Clock
from pmkit.sim.binance.history import History
from pmkit.sim.binance.intervals import MINUTE, SECOND, step
from pmkit.sim.binance.recorded import Bar
from pmkit.sim.binance.symbols import UNIT, Symbol, decimal_text
from pmkit.sim.world import World

_MASK = (1 << 64) - 1
_LOOK_BACK = 5
_MINUTES_KEPT = 20_000
# A reply is worked on at most this long (wall seconds): "the APIs time out after 10 s" with -1007. What would take far
# longer anyhow (more new seconds of history than this) is refused at once.
WORK_SECONDS = 10.0
WORK_HISTORY_SECONDS = 1_500_000
_SECONDS_PER_SLICE = 500


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle; prices, volumes in 1e-8; ids are -1 without trades; `closed` is not on the wire over REST."""

    open_ms: int
    close_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote: int
    trades: int
    taker: int
    taker_quote: int
    first_id: int
    last_id: int
    closed: bool

    def row(self, scale: int = 1) -> list[int | str]:
        """The twelve fields of a REST row. `scale` 1000 gives microseconds."""
        return [
            self.open_ms * scale,
            decimal_text(self.open),
            decimal_text(self.high),
            decimal_text(self.low),
            decimal_text(self.close),
            decimal_text(self.volume),
            (self.close_ms + 1) * scale - 1,
            decimal_text(self.quote),
            self.trades,
            decimal_text(self.taker),
            decimal_text(self.taker_quote),
            "0",
        ]

    def frame(self, symbol: str, interval: str, scale: int = 1) -> dict[str, int | str | bool]:
        """The `k` object of a kline frame."""
        return {
            "t": self.open_ms * scale,
            "T": (self.close_ms + 1) * scale - 1,
            "s": symbol,
            "i": interval,
            "f": self.first_id,
            "L": self.last_id,
            "o": decimal_text(self.open),
            "c": decimal_text(self.close),
            "h": decimal_text(self.high),
            "l": decimal_text(self.low),
            "v": decimal_text(self.volume),
            "n": self.trades,
            "x": self.closed,
            "q": decimal_text(self.quote),
            "V": decimal_text(self.taker),
            "Q": decimal_text(self.taker_quote),
            "B": "0",
        }


# Yields the number of seconds gone through, ends with the candle.
_Work = Generator[int, None, Candle]


class WorkTimeout(Exception):
    """The candles asked for would take longer than the venue lets a request run (-1007)."""


class CandleMaker:
    """All candles of one symbol: those of its `history`, and out of the World where that tells nothing.

    Belongs to one thread. A second maker on the same history gives the same candles.
    """

    def __init__(self, world: World, symbol: Symbol, history: History | None = None) -> None:
        self.symbol = symbol
        self.history = history or History(symbol)
        self._version = self.history.version
        self._world = world
        self._salt = reduce(lambda h, b: _mix(h ^ b), f"{world.seed}:{symbol.name}".encode(), 0x9E3779B97F4A7C15)
        self._spread = int(symbol.rate * symbol.burst)
        self._first_second = symbol.first_ms // SECOND
        self._minutes: dict[int, Bar | None] = {}

    # -- one second

    def _ids(self, second: int, count: int) -> list[int]:
        """How many trades happened before each of `count` seconds: grows with time, and can be asked for any second.

        A steady count with a random lead of at most `burst` seconds; the maximum over the last seconds makes it grow.
        """
        rate, spread, salt = self.symbol.rate, self._spread, self._salt
        first = self._first_second
        raw = [(at - first) * rate + _mix(at ^ salt) % spread for at in range(second - _LOOK_BACK, second + count)]
        return [max(raw[i : i + _LOOK_BACK + 1]) for i in range(count)]

    def _ticks(self, second: int, count: int) -> list[int]:
        """The World's prices of `count` seconds in 1e-8, on the tick."""
        tick = self.symbol.tick
        prices = self._world.prices(self.symbol.asset, second * SECOND, count)
        return [round(price * UNIT / tick) * tick for price in prices]

    def _bar(self, second: int, before: int, after: int, start: int, end: int) -> Bar | None:
        """A second with `after - before` trades that moves from price `start` to `end`; None without trades."""
        trades = after - before
        if trades <= 0:
            return None
        symbol = self.symbol
        tick = symbol.tick
        h = _mix(second * 0xD6E8FEB86659FD93 ^ self._salt)
        move = (end - start) // tick
        if trades == 1:
            opened = closed = high = low = start + move * (512 + h % 512) // 1024 * tick
        else:
            opened = start + move * (h % 256) // 1024 * tick
            closed = start + move * (768 + (h >> 8) % 257) // 1024 * tick
            high, low = max(opened, closed), min(opened, closed)
            if trades > 2:
                reach = abs(move) // 2 + 2
                high += (h >> 17) % reach * tick
                low -= (h >> 25) % reach * tick
        size = 3 + (h >> 33) % 40
        if (h >> 40) % 8 == 0:
            size *= 12  # now and then somebody trades big
        volume = (trades * size + (h >> 44) % 50 + 1) * symbol.lot
        lots = volume // symbol.lot
        taker_lots = lots * ((h >> 50) % 1025) // 1024 if trades > 1 else lots * ((h >> 50) & 1)
        mean = (opened + closed) // (2 * tick) * tick
        mean = min(high, max(low, mean))
        money = mean * symbol.lot // UNIT  # of one lot, exact
        return (
            opened,
            high,
            low,
            closed,
            volume,
            lots * money,
            trades,
            taker_lots * symbol.lot,
            taker_lots * money,
            before + 1,
            after,
        )

    def _second(self, second: int) -> Bar | None:
        return self._span(second, second)[0]

    def _forming_second(self, second: int, passed_ms: int) -> Bar | None:
        """What of a second is known `passed_ms` after its start: the first trades, evenly spread."""
        bar = self._second(second)
        if bar is None:
            return None
        opened, high, low, closed, volume, _, trades, taker, _, first, _ = bar
        done = trades * passed_ms // SECOND
        if done == 0:
            return None
        symbol = self.symbol
        closed = opened + (closed - opened) // symbol.tick * done // trades * symbol.tick
        high, low = max(opened, closed), min(opened, closed)
        lots = max(1, volume // symbol.lot * done // trades)
        taker_lots = min(lots, taker // symbol.lot * done // trades)
        money = min(high, max(low, (opened + closed) // (2 * symbol.tick) * symbol.tick)) * symbol.lot // UNIT
        return (
            opened,
            high,
            low,
            closed,
            lots * symbol.lot,
            lots * money,
            done,
            taker_lots * symbol.lot,
            taker_lots * money,
            first,
            first + done - 1,
        )

    def last_price(self, before_second: int) -> int:
        """The price of the last trade before a second, in 1e-8."""
        day = self.history.day(before_second)
        if day is not None and self.history.outage(before_second) is None:
            bar = day.bar(before_second)
            if not bar[6]:
                return bar[0]  # a second without trades tells it
        second = before_second - 1
        while True:
            outage = self.history.outage(second)
            if outage is not None:
                second = outage[0] - 1
                continue
            found = self._second(second)
            if found is not None:
                return found[3]
            second -= 1

    def first_id(self, second: int) -> int:
        """The id of the first trade of a second that the World makes, or of the next one."""
        return self._ids(second, 1)[0] + 1

    # -- more than one second

    def _made(self, first: int, last: int) -> list[Bar | None]:
        """The World's seconds first..last, both included, with every price and id computed once."""
        ids = self._ids(first, last - first + 2)
        prices = self._ticks(first, last - first + 2)
        return [self._bar(first + i, *ids[i : i + 2], *prices[i : i + 2]) for i in range(last - first + 1)]

    def _span(self, first: int, last: int) -> list[Bar | None]:
        """The seconds first..last; None where there was no trade, or no candle."""
        bars: list[Bar | None] = []
        for piece in self.history.pieces(first, last):
            if piece.absent:
                bars += [None] * (piece.last - piece.first + 1)
            elif piece.day is None:
                bars += self._made(piece.first, piece.last)
            else:
                days = (piece.day.bar(second) for second in range(piece.first, piece.last + 1))
                bars += [bar if bar[6] else None for bar in days]
        return bars

    def seconds(self, first: int, last: int) -> list[Candle]:
        """The 1s candles of the seconds first..last that exist, all in the past."""
        found: list[Candle] = []
        price: int | None = None
        for piece in self.history.pieces(first, last):
            if piece.absent:
                continue
            day = piece.day
            seconds = range(piece.first, piece.last + 1)
            bars = self._made(piece.first, piece.last) if day is None else [day.bar(second) for second in seconds]
            for second, bar in zip(seconds, bars, strict=True):
                if bar is None:
                    price = self.last_price(second) if price is None else price
                    bar = (price, price, price, price, 0, 0, 0, 0, 0, -1, -1)
                price = bar[3]
                found.append(Candle(second * SECOND, second * SECOND + SECOND - 1, *bar, True))
        return found

    def _minute(self, minute: int) -> Bar | None:
        """A whole minute that lies in the past."""
        if minute in self._minutes:
            return self._minutes[minute]
        bar = reduce(_join, self._span(minute * 60, minute * 60 + 59), None)
        if len(self._minutes) >= _MINUTES_KEPT:
            del self._minutes[next(iter(self._minutes))]
        self._minutes[minute] = bar
        return bar

    def candle(self, interval: str, open_ms: int, now_ms: int) -> Candle:
        """The candle that opens at `open_ms` (on the grid, not after `now_ms`) as it is known at `now_ms`."""
        work = self.work(interval, open_ms, now_ms)
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: Candle = done.value
                return result

    def work(self, interval: str, open_ms: int, now_ms: int) -> _Work:
        """`candle` in slices: yields the number of seconds gone through since the last yield."""
        if self._version != self.history.version:
            self._minutes.clear()
            self._version = self.history.version
        end_ms = step(interval, open_ms, 1)
        known = min(end_ms, now_ms) // SECOND  # seconds before this one are whole
        bar: Bar | None = None
        second = max(open_ms, self.symbol.first_ms) // SECOND  # nothing traded before the listing
        fresh = 0
        while second < known:
            if second % 60 == 0 and second + 60 <= known:
                fresh += 1 if second // 60 in self._minutes else 60
                bar = _join(bar, self._minute(second // 60))
                second += 60
            else:
                until = min(known, second - second % 60 + 60)
                bar = reduce(_join, self._span(second, until - 1), bar)
                fresh += until - second
                second = until
            if fresh >= _SECONDS_PER_SLICE:
                yield fresh
                fresh = 0
        if now_ms < end_ms and now_ms % SECOND:
            bar = _join(bar, self._forming_second(known, now_ms % SECOND))
        yield fresh
        closed = now_ms >= end_ms
        if bar is None:
            price = self.last_price(open_ms // SECOND)
            return Candle(open_ms, end_ms - 1, price, price, price, price, 0, 0, 0, 0, 0, -1, -1, closed)
        o, h, low, c, v, q, n, taker, taker_quote, first, last = bar
        return Candle(open_ms, end_ms - 1, o, h, low, c, v, q, n, taker, taker_quote, first, last, closed)

    async def candles(self, interval: str, opens: list[int], now_ms: int, clock: Clock) -> list[Candle]:
        """Those of the candles that exist, in order, letting the loop run in between. Raises WorkTimeout.

        Every candle is the exact sum of its seconds, at about 10 us each: a day of history costs most of a second. So
        pages of 1000 are served up to the 15m interval, a few candles of a day, and none of a month.
        """
        result: list[Candle] = []
        if interval == "1s":
            closed = [opened for opened in opens if opened + SECOND <= now_ms]
            for i in range(0, len(closed), _SECONDS_PER_SLICE):
                part = closed[i : i + _SECONDS_PER_SLICE]
                result += self.seconds(part[0] // SECOND, part[-1] // SECOND)
                await clock.io_sleep(0)
            opens = opens[len(closed) :]
        elif opens:
            span = min(step(interval, opens[-1], 1), now_ms) - opens[0]
            known = sum(opens[0] <= minute * MINUTE < opens[-1] for minute in self._minutes) * 60
            if span // SECOND - known > WORK_HISTORY_SECONDS:
                raise WorkTimeout
        until = clock.io_monotonic() + WORK_SECONDS
        fresh = 0
        for opened in opens:
            work = self.work(interval, opened, now_ms)
            while True:
                try:
                    fresh += next(work)
                except StopIteration as done:
                    result.append(done.value)
                    break
                if fresh >= _SECONDS_PER_SLICE:
                    fresh = 0
                    if clock.io_monotonic() > until:
                        raise WorkTimeout
                    await clock.io_sleep(0)
        return result


def _mix(value: int) -> int:
    """Steele, Lea and Flood's SplitMix64 finaliser: 64 well-mixed bits out of a counter."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _join(one: Bar | None, two: Bar | None) -> Bar | None:
    """Two neighbouring spans as one."""
    if one is None or two is None:
        return two if one is None else one
    return (
        one[0],
        one[1] if one[1] > two[1] else two[1],
        one[2] if one[2] < two[2] else two[2],
        two[3],
        one[4] + two[4],
        one[5] + two[5],
        one[6] + two[6],
        one[7] + two[7],
        one[8] + two[8],
        one[9],
        two[10],
    )
