"""Tickers of windows (wire): "KXBTC15M-26AUG170100-00" is the window that closes on 2026-08-17 at 01:00 in New York.

The time is the close, in New York wall-clock time, its minute repeated as the suffix. On the autumn night a ticker of
the repeated hour names two closes and the grammar cannot tell them apart; on the spring night the skipped hour names
none. So a ticker is a shortcut only: `open_time` and `close_time` of the market count. Source: 38,474 recorded tickers.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from pmkit.exchanges.kalshi.schedule import NEW_YORK
from pmkit.exchanges.kalshi.types import RowError

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WINDOW = re.compile(r"(KX[A-Z0-9]+)-([0-9]{2})([A-Z]{3})([0-9]{2})([0-9]{2})([0-9]{2})-([0-9]{2})").fullmatch


def series_of(ticker: str) -> str:
    """ "KXBTC15M" of a market's or event's ticker: what comes before the first dash."""
    return ticker.partition("-")[0]


def window_closes(ticker: str) -> tuple[int, ...]:
    """The closes a window's ticker may stand for, epoch ms, earliest first: one, two on the autumn night, none on the
    spring night. Raises RowError for a text that is no ticker of a window."""
    found = _WINDOW(ticker)
    if found is None or found[3] not in _MONTHS or found[6] != found[7]:
        raise RowError(f"{ascii(ticker)[:60]} is no ticker of a window")
    year, month, day, hour, minute = 2000 + int(found[2]), _MONTHS.index(found[3]) + 1, *map(int, found.group(4, 5, 6))
    try:
        wall = datetime(year, month, day, hour, minute, tzinfo=NEW_YORK)
    except ValueError:
        raise RowError(f"{ascii(ticker)[:60]} names no day or time") from None
    moments = {wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}
    # The skipped hour of the spring night does not come back as the hour it was written as.
    real = [moment for moment in moments if _label(moment.astimezone(NEW_YORK)) == _label(wall)]
    return tuple(sorted(int(moment.timestamp()) * 1000 for moment in real))


def _label(wall: datetime) -> tuple[int, int]:
    return wall.hour, wall.minute


def window_ticker(series: str, close_ms: int) -> str:
    """The market ticker of a series' window that closes at `close_ms` (epoch ms)."""
    wall = datetime.fromtimestamp(close_ms / 1000, UTC).astimezone(NEW_YORK)
    day = f"{wall.year % 100:02d}{_MONTHS[wall.month - 1]}{wall.day:02d}"
    return f"{series}-{day}{wall.hour:02d}{wall.minute:02d}-{wall.minute:02d}"
