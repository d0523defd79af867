"""`CandleBuffer`: the last candles of one symbol, in columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, overload

from pmkit.data.binance.types import Candle

if TYPE_CHECKING:
    import pandas as pd

N = TypeVar("N", int, float)

NUMBERS: Final = ("open", "high", "low", "close", "volume")


class CandleBuffer(Sequence[Candle]):
    """At most `size` closed candles, oldest first, read like a sequence of `Candle`; open times only go up.

    Six `array.array` columns: 48 bytes per candle (up to 51 while it grows). `append` is O(1); reading one candle makes
    it anew. Iterating, slicing, `since`, `column` and `frame` work on a copy, so that what comes in meanwhile does not
    move it.
    """

    __slots__ = ("_closes", "_head", "_highs", "_lows", "_opens", "_times", "_volumes", "size")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a candle buffer needs room for at least 1 candle, not {size}")
        self.size = size
        self._times = array("q")
        self._opens = array("d")
        self._highs = array("d")
        self._lows = array("d")
        self._closes = array("d")
        self._volumes = array("d")
        # Where the oldest candle is: 0 until the buffer is full.
        self._head = 0

    def append(self, candle: Candle) -> None:
        """Add a candle, dropping the oldest when full. Raises ValueError for one that is not newer than the last."""
        times, head, count = self._times, self._head, len(self._times)
        # Index -1 is the newest also once the ring turns, since the head is behind it.
        if count and candle.timestamp <= times[head - 1]:
            raise ValueError(f"the candle of {candle.timestamp} is not newer than the last, {times[head - 1]}")
        if count < self.size:
            times.append(candle.timestamp)
            self._opens.append(candle.open)
            self._highs.append(candle.high)
            self._lows.append(candle.low)
            self._closes.append(candle.close)
            self._volumes.append(candle.volume)
            return
        times[head] = candle.timestamp
        self._opens[head] = candle.open
        self._highs[head] = candle.high
        self._lows[head] = candle.low
        self._closes[head] = candle.close
        self._volumes[head] = candle.volume
        self._head = (head + 1) % count

    def __len__(self) -> int:
        return len(self._times)

    def _at(self, place: int) -> Candle:
        i = (self._head + place) % len(self._times)
        return Candle(self._times[i], self._opens[i], self._highs[i], self._lows[i], self._closes[i], self._volumes[i])

    @overload
    def __getitem__(self, index: int) -> Candle: ...
    @overload
    def __getitem__(self, index: slice) -> list[Candle]: ...
    def __getitem__(self, index: int | slice) -> Candle | list[Candle]:
        count = len(self)
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(count))]
        place = index + count if index < 0 else index
        if not 0 <= place < count:
            raise IndexError(f"candle {index} of {count}")
        return self._at(place)

    def __iter__(self) -> Iterator[Candle]:
        return map(Candle, self._ordered(self._times), *(self._ordered(column) for column in self._numbers))

    def __repr__(self) -> str:
        span = f", {self[0].timestamp} to {self[-1].timestamp}" if len(self) else ""
        return f"CandleBuffer({len(self)} of {self.size}{span})"

    @property
    def last(self) -> Candle | None:
        """The newest candle; None while empty."""
        return self._at(len(self) - 1) if len(self) else None

    @property
    def last_ms(self) -> int | None:
        """The open time of the newest candle; None while empty."""
        return self._times[self._head - 1] if len(self) else None

    def _place(self, ms: int) -> int:
        """How many candles open before a moment."""
        times, head, low, high = self._times, self._head, 0, len(self)
        count = high
        while low < high:
            middle = (low + high) // 2
            if times[(head + middle) % count] < ms:
                low = middle + 1
            else:
                high = middle
        return low

    def find(self, ms: int) -> Candle | None:
        """The candle that opens at `ms`; None where there is none."""
        place = self._place(ms)
        if place == len(self):
            return None
        candle = self._at(place)
        return candle if candle.timestamp == ms else None

    def since(self, ms: int) -> list[Candle]:
        """The candles that open at or after `ms`, oldest first."""
        return [self._at(place) for place in range(self._place(ms), len(self))]

    @property
    def _numbers(self) -> tuple[array[float], ...]:
        return self._opens, self._highs, self._lows, self._closes, self._volumes

    def _ordered(self, column: array[N]) -> array[N]:
        return column[self._head :] + column[: self._head]

    def column(self, name: str) -> array[int] | array[float]:
        """A copy of one column ("timestamp", "open", "high", "low", "close", "volume"), oldest first."""
        if name == "timestamp":
            return self._ordered(self._times)
        if name not in NUMBERS:
            raise KeyError(f"no column {name!r}: there are timestamp, {', '.join(NUMBERS)}")
        return self._ordered(self._numbers[NUMBERS.index(name)])

    def frame(self) -> pd.DataFrame:
        """A DataFrame with the columns timestamp (epoch ms), open, high, low, close, volume; the index, named "time",
        is the open time as UTC datetimes.

        The first call in a process imports pandas, which stops the loop for a moment: make one before trading.
        """
        import numpy as np
        import pandas as pd

        # frombuffer refuses an empty buffer.
        times = np.frombuffer(self._ordered(self._times), dtype=np.int64) if len(self) else np.empty(0, dtype=np.int64)
        data = {"timestamp": times} | {
            name: np.frombuffer(self._ordered(column)) if len(self) else np.empty(0)
            for name, column in zip(NUMBERS, self._numbers, strict=True)
        }
        return pd.DataFrame(data, index=pd.DatetimeIndex(pd.to_datetime(times, unit="ms", utc=True), name="time"))
