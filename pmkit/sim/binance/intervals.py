"""The sixteen kline intervals and their grid in UTC (SPOT/rest-api.md, klines)."""

from __future__ import annotations

from datetime import UTC, datetime

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Case-sensitive: "1m" is a minute and "1M" a month.
LENGTHS: dict[str, int] = {
    "1s": SECOND,
    "1m": MINUTE,
    "3m": 3 * MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "8h": 8 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
    "3d": 3 * DAY,
    "1w": 7 * DAY,
    "1M": 0,  # calendar months have no length
}
# 1970-01-01 was a Thursday; weekly candles open on Mondays.
_WEEK_OFFSET = 4 * DAY


def _month(index: int) -> int:
    """The first moment of month `index`, counted from January 1970, as epoch ms."""
    return int(datetime(1970 + index // 12, index % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


def floor_open(interval: str, ms: int) -> int:
    """The open of the candle that holds `ms`."""
    if interval == "1M":
        moment = datetime.fromtimestamp(ms // 1000, UTC)
        return _month((moment.year - 1970) * 12 + moment.month - 1)
    length = LENGTHS[interval]
    if interval == "1w":
        return (ms - _WEEK_OFFSET) // length * length + _WEEK_OFFSET
    return ms // length * length


def ceil_open(interval: str, ms: int) -> int:
    """The first open at or after `ms`."""
    opened = floor_open(interval, ms)
    return opened if opened == ms else step(interval, opened, 1)


def step(interval: str, opened: int, count: int) -> int:
    """The open `count` candles after (before, when negative) the one that opens at `opened`."""
    if interval == "1M":
        moment = datetime.fromtimestamp(opened // 1000, UTC)
        return _month((moment.year - 1970) * 12 + moment.month - 1 + count)
    return opened + count * LENGTHS[interval]
