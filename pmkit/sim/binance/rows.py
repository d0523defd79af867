"""Which rows a klines request gets, and their text."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from pmkit.clock import Clock
from pmkit.sim.binance.candles import Candle, CandleMaker
from pmkit.sim.binance.history import History
from pmkit.sim.binance.intervals import ceil_open, floor_open, step
from pmkit.sim.binance.symbols import first_open


def opens_between(
    history: History, interval: str, start_us: int | None, end_us: int | None, limit: int, now_ms: int
) -> list[int]:
    """Which candles come, by their place on the grid: startTime <= open <= endTime, both ends included.

    The forming one comes too. Without startTime the newest ones up to the end, else the oldest ones from the start.
    `start_us` and `end_us` in microseconds.
    """
    first = first_open(history.symbol, interval)
    last = floor_open(interval, now_ms)
    if end_us is not None:
        last = min(last, floor_open(interval, end_us // 1000))
    start_ms = None if start_us is None else -(-start_us // 1000)
    if history.plain:
        if start_ms is None:
            first = max(first, step(interval, last, 1 - limit))
        else:
            first = max(first, ceil_open(interval, start_ms))
        opens: list[int] = []
        while first <= last and len(opens) < limit:
            opens.append(first)
            first = step(interval, first, 1)
        return opens
    if start_ms is not None:
        first = max(first, floor_open(interval, start_ms))  # one that opens before may show after it
    end_ms = now_ms if end_us is None else min(now_ms, end_us // 1000)
    return _picked(history, interval, (first, last), (start_ms, end_ms), limit, now_ms)


def _picked(
    history: History, interval: str, grid: tuple[int, int], shown: tuple[int | None, int], limit: int, now_ms: int
) -> list[int]:
    """Those that exist and show in the range, one after the other, from the start or from the end."""
    first, last = grid
    start_ms, end_ms = shown
    opens: list[int] = []
    at = last if start_ms is None else first
    while first <= at <= last and len(opens) < limit:
        outage = candle_absent(history, interval, at, now_ms)
        if outage is not None:
            if start_ms is None:
                at = floor_open(interval, outage[0] * 1000 - 1)
            else:
                at = max(step(interval, at, 1), floor_open(interval, outage[1] * 1000))
            continue
        moment = at + history.shift(interval, at)
        if moment <= end_ms and (start_ms is None or moment >= start_ms):
            opens.append(at)
        at = step(interval, at, -1 if start_ms is None else 1)
    return opens if start_ms is not None else opens[::-1]


def candle_absent(history: History, interval: str, open_ms: int, now_ms: int) -> tuple[int, int] | None:
    """The outage that leaves nothing of a candle as far as it is known at `now_ms`."""
    return history.absent(open_ms, max(open_ms + 1, min(now_ms, step(interval, open_ms, 1))))


def shown(history: History, interval: str, candle: Candle) -> Candle:
    """The candle with the times it shows."""
    shift = history.shift(interval, candle.open_ms)
    if not shift:
        return candle
    return replace(candle, open_ms=candle.open_ms + shift, close_ms=candle.close_ms + shift)


class RowTexts:
    """Rows as JSON text. The latest `kept` closed ones stay (about 400 bytes each) and cost little then."""

    def __init__(self, clock: Clock) -> None:
        self.kept = 20_000
        self._clock = clock
        self._texts: dict[tuple[str, str, int], bytes] = {}
        self._versions: dict[str, int] = {}

    async def page(
        self, maker: CandleMaker, interval: str, opens: list[int], now_ms: int, settled_ms: int, scale: int
    ) -> bytes:
        """The JSON array of the candles at `opens`, all of which exist. Raises WorkTimeout.

        A candle that ends after `settled_ms` is told as it stood then. `scale` 1000 gives microseconds.
        """
        history = maker.history
        name = maker.symbol.name
        if self._versions.get(name, history.version) != history.version:
            self._texts = {key: text for key, text in self._texts.items() if key[0] != name}
        self._versions[name] = history.version
        settled = [opened for opened in opens if step(interval, opened, 1) <= settled_ms]
        found = {opened: self._texts.get((name, interval, opened)) if scale == 1 else None for opened in settled}
        missing = [opened for opened, text in found.items() if text is None]
        if missing:
            for candle in await maker.candles(interval, missing, now_ms, self._clock):
                if candle.open_ms in found:
                    text = msgspec.json.encode(shown(history, interval, candle).row(scale))
                    found[candle.open_ms] = text
                    if scale == 1:
                        self._keep((name, interval, candle.open_ms), text)
        texts = [text for text in found.values() if text is not None]
        for opened in opens[len(settled) :]:
            known_ms = max(opened, settled_ms)
            for candle in await maker.candles(interval, [opened], known_ms, self._clock):
                texts.append(msgspec.json.encode(shown(history, interval, candle).row(scale)))
        return b"[" + b",".join(texts) + b"]"

    def _keep(self, key: tuple[str, str, int], text: bytes) -> None:
        self._texts[key] = text
        while len(self._texts) > self.kept:
            del self._texts[next(iter(self._texts))]
