"""Candles of one market as Kalshi gives them (wire): bids, asks and trades of YES per period.

Archived markets have the same candles under other names (`open` for `open_dollars`, `volume` for `volume_fp`), with
prices in dollars all the same. Source: OpenAPI 3.28.0, "Get market candlesticks", "Get historical market candlesticks".
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from pmkit.exchanges.kalshi.types import RowError


class PricesRow(msgspec.Struct, frozen=True):
    """Open, high, low, close of one thing; null or missing without a trade or quote."""

    open_dollars: str | None = None
    high_dollars: str | None = None
    low_dollars: str | None = None
    close_dollars: str | None = None
    open: str | None = None
    high: str | None = None
    low: str | None = None
    close: str | None = None


class CandleRow(msgspec.Struct, frozen=True):
    """One candle; `end_period_ts` is its inclusive end, epoch seconds."""

    end_period_ts: int
    yes_bid: PricesRow | None = None
    yes_ask: PricesRow | None = None
    price: PricesRow | None = None
    volume_fp: str | None = None
    volume: str | None = None
    open_interest_fp: str | None = None
    open_interest: str | None = None


class CandlesAnswer(msgspec.Struct, frozen=True):
    """GET .../candlesticks."""

    candlesticks: list[CandleRow] | None


class Prices(msgspec.Struct, frozen=True):
    """YES dollars."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class KalshiCandle(msgspec.Struct, frozen=True, kw_only=True):
    """One period up to `end_ms` (epoch ms, inclusive), YES dollars and contracts. `trades` is None where
    nothing traded.
    """

    end_ms: int
    bid: Prices | None
    ask: Prices | None
    trades: Prices | None
    volume: Decimal
    open_interest: Decimal


def candle(row: CandleRow) -> KalshiCandle:
    """A row of either form. Raises RowError for numbers that cannot be."""
    return KalshiCandle(
        end_ms=row.end_period_ts * 1000,
        bid=_prices(row.yes_bid),
        ask=_prices(row.yes_ask),
        trades=_prices(row.price),
        volume=_number(row.volume_fp or row.volume or "0"),
        open_interest=_number(row.open_interest_fp or row.open_interest or "0"),
    )


def _prices(row: PricesRow | None) -> Prices | None:
    if row is None:
        return None
    texts = (
        row.open_dollars or row.open,
        row.high_dollars or row.high,
        row.low_dollars or row.low,
        row.close_dollars or row.close,
    )
    if not all(texts):
        return None  # the first minute of a market has a close without an open; a price that is not whole is none
    found = Prices(*(_number(text or "") for text in texts))
    if not 0 <= found.low <= min(found.open, found.close) or not max(found.open, found.close) <= found.high <= 1:
        raise RowError(f"a candle of {found.open} {found.high} {found.low} {found.close} dollars is none")
    return found


def _number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise RowError(f"{ascii(text)[:30]} in a candle is no number")
    return value
