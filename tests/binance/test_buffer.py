"""The rolling buffer against a deque."""

from __future__ import annotations

import gc
import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.data.binance.buffer import CandleBuffer
from pmkit.data.binance.types import Candle


def make(opened: int) -> Candle:
    return Candle(opened, opened + 0.1, opened + 0.3, opened - 0.1, opened + 0.2, opened / 7)


@given(st.integers(1, 12), st.lists(st.integers(1, 5), max_size=40))
def test_like_a_deque(size: int, steps: list[int]) -> None:
    buffer, model = CandleBuffer(size), deque[Candle](maxlen=size)
    opened = 0
    assert buffer.last is None and buffer.last_ms is None and buffer.since(0) == []
    for step in steps:
        opened += step
        buffer.append(make(opened))
        model.append(make(opened))
        assert list(buffer) == list(model)
        assert len(buffer) == len(model)
        assert [buffer[i] for i in range(-len(model), len(model))] == [model[i] for i in range(-len(model), len(model))]
        assert buffer[1:-1] == list(model)[1:-1] and buffer[::-2] == list(model)[::-2]
        assert list(reversed(buffer)) == list(reversed(model))
        assert buffer.last == model[-1] and buffer.last_ms == opened
        for moment in range(model[0].timestamp - 2, opened + 3):
            assert buffer.since(moment) == [c for c in model if c.timestamp >= moment]
            assert buffer.find(moment) == next((c for c in model if c.timestamp == moment), None)
        for wrong in (len(model), -len(model) - 1):
            with pytest.raises(IndexError):
                buffer[wrong]
        with pytest.raises(ValueError, match="not newer"):
            buffer.append(make(opened))


def test_a_reader_is_not_moved_by_what_comes_in() -> None:
    buffer = CandleBuffer(3)
    for opened in (1, 2, 3):
        buffer.append(make(opened))
    seen = []
    for candle in buffer:
        seen.append(candle.timestamp)
        buffer.append(make(buffer[-1].timestamp + 1))
    assert seen == [1, 2, 3]
    assert [candle.timestamp for candle in buffer] == [4, 5, 6]


def test_columns_and_frame() -> None:
    buffer = CandleBuffer(3)
    empty = buffer.frame()
    assert list(empty.columns) == ["timestamp", "open", "high", "low", "close", "volume"] and len(empty) == 0
    for opened in range(1_795_176_000_000, 1_795_176_005_000, 1000):
        buffer.append(make(opened))
    assert list(buffer.column("timestamp")) == [1_795_176_002_000, 1_795_176_003_000, 1_795_176_004_000]
    assert list(buffer.column("close")) == [candle.close for candle in buffer]
    with pytest.raises(KeyError):
        buffer.column("price")
    frame = buffer.frame()
    assert frame["timestamp"].dtype == "int64" and frame["close"].dtype == "float64"
    assert str(frame.index[0]) == "2026-11-20 12:00:02+00:00" and frame.index.name == "time"
    assert [Candle(*row) for row in frame.itertuples(index=False)] == list(buffer)
    buffer.append(make(1_795_176_009_000))
    assert frame["timestamp"].iloc[0] == 1_795_176_002_000


def test_a_million_candles_in_the_memory_of_their_numbers() -> None:
    size = 1_000_000
    candle = make(0)
    buffer = CandleBuffer(size)
    for opened in range(1, size + 3):
        buffer.append(Candle(opened, candle.open, candle.high, candle.low, candle.close, candle.volume))
    # An array tells what it has allocated, not only what it uses.
    used = sys.getsizeof(buffer) + sum(
        sys.getsizeof(part) for part in gc.get_referents(buffer) if part is not CandleBuffer
    )
    assert len(buffer) == size and buffer[0].timestamp == 3
    assert used <= 1.1 * 48 * size, f"{used / size:.1f} bytes per candle"
    assert used >= 48 * size


def test_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CandleBuffer(0)
