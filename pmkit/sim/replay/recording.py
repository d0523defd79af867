"""What a recording is made of: its form, its rows, and the notes taken when it was read through.

Forms, told apart by content and never by name:

* KALSHI: one text of Kalshi's WebSocket per line, as it came.
* MIXED: lines with `source`, `recv_wall_ts` and `payload`, the wire text of several venues. Of source `polymarket_clob`
  are replayed: what the market channel sent, and answers of GET /book (objects without `event_type`). Other sources
  are counted by name.
* CANDLES: one CSV of Binance's archive, zipped as there, gzipped or plain; twelve columns, times in ms or us.
* ANSWERS: REST exchanges (`method`, `url`, `status`, `response_body`).
* MARKETS: names of Polymarket markets (`condition_id`, `outcomes`); nothing of it is served.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Form(StrEnum):
    """What kind of recording it is."""

    KALSHI = "kalshi_socket"
    MIXED = "polymarket_mixed"
    CANDLES = "binance_candles"
    ANSWERS = "kalshi_rest"
    MARKETS = "polymarket_markets"


class Opening(NamedTuple):
    """From here on the recorder was on a new connection. `sid`: Kalshi's number of the book subscription on it."""

    at_ms: int
    sid: int = 0


class Frame(NamedTuple):
    """One text frame, byte for byte."""

    at_ms: int
    data: bytes


class Read(NamedTuple):
    """A REST answer, byte for byte: of an asset (Polymarket) or a market ticker (Kalshi)."""

    at_ms: int
    key: str
    data: bytes


class CandleRow(NamedTuple):
    """One row of a candle file: `open_ms`, and the columns as text (times in ms)."""

    at_ms: int
    columns: tuple[str, ...]


Row = Opening | Frame | Read | CandleRow


@dataclass(slots=True)
class Recording:
    """What one file holds, as far as it can be read.

    `frames`, `reads`, `candles`: how many of each. `types`: frames by event type. `others`: rows that are not replayed,
    by name. `bad_rows`: rows that are not of the form. `damage`: why the file ends early, "" for a whole one.
    `markets`: condition id -> asset -> tick size text (the first seen; "" for none). `tickers`: ticker -> the price
    step of all its prices in 0.0001 dollars, 0 where it has none. `names`: asset -> (slug, outcome). `sids`: Kalshi's
    number of the book subscription on each connection. The row readers take these notes until `scanned`.
    """

    path: Path
    form: Form
    frames: int = 0
    reads: int = 0
    candles: int = 0
    connections: int = 0
    first_ms: int = 0
    last_ms: int = 0
    symbol: str = ""
    interval: str = ""
    interval_ms: int = 0
    bad_rows: int = 0
    damage: str = ""
    types: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    markets: dict[str, dict[str, str]] = field(default_factory=dict)
    tickers: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    sids: list[int] = field(default_factory=list)
    scanned: bool = False
