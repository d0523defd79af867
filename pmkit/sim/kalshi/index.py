"""Messages of `cfbenchmarks_value` (reference: kalshi.md, section 6.6)."""

from __future__ import annotations

import math

import msgspec

from pmkit.sim.kalshi.windows import LENGTH_MS, Calendar, digits_of, index_of

_MINUTE_MS = 60_000


def index_message(calendar: Calendar, asset: str, tick_ms: int, received_ms: int) -> bytes:
    """The `msg` of one tick (on a whole second).

    The trailing average is over [tick - 60 s, tick). In the last minute before a quarter of an hour there is also the
    average over (quarter - 60 s, tick], which at the quarter itself is the settlement value before rounding.
    """
    name = index_of(asset)
    value = f"{calendar.index(asset, tick_ms):.{digits_of(asset)}f}"
    message: dict[str, object] = {
        "index_id": name,
        "received_at": received_ms,
        "data": msgspec.json.encode({"type": "value", "id": name, "time": tick_ms, "value": value}).decode(),
        "avg_60s_data": _average(calendar, asset, tick_ms - _MINUTE_MS, tick_ms),
    }
    quarter = -(-tick_ms // LENGTH_MS) * LENGTH_MS
    if tick_ms > quarter - _MINUTE_MS:
        start = quarter - _MINUTE_MS + 1_000
        message["last_60s_windowed_average_15min"] = _average(calendar, asset, start, tick_ms + 1_000)
    return msgspec.json.encode(message)


def _average(calendar: Calendar, asset: str, start_ms: int, end_ms: int) -> dict[str, object]:
    """The mean of the ticks in [start, end)."""
    ticks = [calendar.index(asset, at) for at in range(start_ms, end_ms, 1_000)]
    return {
        "value": f"{math.fsum(ticks) / len(ticks):.8f}",
        "window_size": len(ticks),
        "window_start_ts_ms": start_ms,
        "window_end_ts_exclusive": end_ms,
    }
