"""The one table of data deadlines: how long a connection may bring no *data* frame before it is suspect.

Market seconds (`Clock.deadline` turns them into wall seconds, never below one). Venues go silent with pings still
answered, so each feed passes its row to `BaseWebSocket(deadline=...)`. None: silence is normal there, and only the
protocol and text pings watch the line.
"""

from __future__ import annotations

from typing import Final

BINANCE_KLINE_1S: Final = 5.0
"""A 1s kline comes every second, also without trades: more than about 5 s of silence is a fault (binance.md 4)."""

BINANCE_KLINE_SLOW: Final = None
"""A kline of 1m and up sends nothing while nothing trades (binance.md 4)."""

POLYMARKET_MARKET: Final = 10.0
"""Active crypto books: 5-10 s without data is suspect; one `POST /books` confirms it (polymarket-trading.md 5.1)."""

POLYMARKET_USER: Final = None
"""Speaks only when an own order changes."""

POLYMARKET_REFERENCE: Final = 10.0
"""Live prices come about once a second. The official SDK waits 90 s; a strategy cannot (polymarket-trading.md 5.3)."""

KALSHI_BOOK: Final = 30.0
"""Books of quiet markets rest; the venue's own pings come every 10 s (kalshi.md 6.1). One REST read confirms."""

KALSHI_REFERENCE: Final = 10.0
"""The index channel ticks about once a second (kalshi.md 6.6)."""

KALSHI_USER: Final = None
"""Speaks only when an own order changes."""

FIRST_SNAPSHOT: Final = 5.0
"""**Wall** seconds within which the first snapshot must follow a subscription (polymarket-trading.md 5.1, rule 2)."""
