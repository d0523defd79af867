"""What Kalshi's REST answers hold.

Only the fields that pmkit uses are read, and only those without which a row is useless are required. Lists may be null.

Source: OpenAPI 3.28.0, the changelog up to 2026-10-15 and recorded answers.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from pmkit.exchanges.kalshi.messages import PriceRange


class MarketRow(msgspec.Struct, frozen=True):
    """A market as REST gives it. Only what cannot be done without is required; times are ISO 8601 text.

    The series is not in it. `floor_strike` is a JSON number that appears after the open.
    """

    ticker: str
    open_time: str
    close_time: str
    status: str
    event_ticker: str = ""
    title: str = ""
    exchange_index: int = 0
    market_type: str = "binary"
    strike_type: str | None = None
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    result: str | None = None
    expiration_value: str | None = None
    settlement_value_dollars: str | None = None
    price_level_structure: str | None = None
    price_ranges: list[PriceRange] | None = None
    rules_primary: str | None = None
    fee_waiver_expiration_time: str | None = None
    is_provisional: bool | None = None


class MarketAnswer(msgspec.Struct, frozen=True):
    """GET /markets/{ticker}."""

    market: MarketRow


class MarketsPage(msgspec.Struct, frozen=True):
    """GET /markets. Rows are decoded one by one, so that an odd one does not hide the others."""

    markets: list[msgspec.Raw] | None
    cursor: str | None = None


class SeriesRow(msgspec.Struct, frozen=True):
    """A series: what all its markets share."""

    ticker: str
    title: str = ""
    category: str | None = None
    frequency: str | None = None
    fee_type: str | None = None
    fee_multiplier: Decimal | None = None
    exchange_index: int | None = None


class SeriesAnswer(msgspec.Struct, frozen=True):
    """GET /series/{ticker}."""

    series: SeriesRow


class SeriesPage(msgspec.Struct, frozen=True):
    """GET /series."""

    series: list[msgspec.Raw] | None
    cursor: str | None = None


class EventRow(msgspec.Struct, frozen=True):
    event_ticker: str
    series_ticker: str
    fee_type_override: str | None = None
    fee_multiplier_override: Decimal | None = None


class EventAnswer(msgspec.Struct, frozen=True):
    """GET /events/{ticker}."""

    event: EventRow


class Depth(msgspec.Struct, frozen=True):
    """Bids of both sides, ascending; an empty side is [], null or missing."""

    yes_dollars: list[tuple[str, float]] | None = None
    no_dollars: list[tuple[str, float]] | None = None


class DepthAnswer(msgspec.Struct, frozen=True):
    """GET /markets/{ticker}/orderbook."""

    orderbook_fp: Depth


class TickerDepth(msgspec.Struct, frozen=True):
    ticker: str
    orderbook_fp: Depth


class DepthsAnswer(msgspec.Struct, frozen=True):
    """GET /markets/orderbooks."""

    orderbooks: list[TickerDepth]


class TradeRow(msgspec.Struct, frozen=True):
    """A public trade as REST gives it; `created_time` has up to six fractional digits."""

    trade_id: str
    ticker: str
    count_fp: str
    yes_price_dollars: str
    created_time: str
    taker_outcome_side: str = ""
    taker_book_side: str = ""
    taker_side: str = ""


class TradesPage(msgspec.Struct, frozen=True):
    """GET /markets/trades, newest first."""

    trades: list[TradeRow] | None
    cursor: str | None = None


class CutoffAnswer(msgspec.Struct, frozen=True):
    """GET /historical/cutoff: what is older is archived."""

    market_settled_ts: str
    trades_created_ts: str
    orders_updated_ts: str


class ShardStatus(msgspec.Struct, frozen=True):
    exchange_index: int
    exchange_active: bool = True
    trading_active: bool = True


class StatusAnswer(msgspec.Struct, frozen=True):
    """GET /exchange/status. The top fields speak for shard 0."""

    exchange_active: bool
    trading_active: bool
    exchange_estimated_resume_time: str | None = None
    exchange_index_statuses: list[ShardStatus] | None = None


class Hours(msgspec.Struct, frozen=True):
    """ "HH:MM" in New York; a close of 00:00 is the end of the day."""

    open_time: str
    close_time: str


class WeekHours(msgspec.Struct, frozen=True):
    """Trading hours per weekday, in force from start_time to end_time."""

    start_time: str | None = None
    end_time: str | None = None
    monday: list[Hours] | None = None
    tuesday: list[Hours] | None = None
    wednesday: list[Hours] | None = None
    thursday: list[Hours] | None = None
    friday: list[Hours] | None = None
    saturday: list[Hours] | None = None
    sunday: list[Hours] | None = None


class MaintenanceWindow(msgspec.Struct, frozen=True):
    start_datetime: str
    end_datetime: str


class Schedule(msgspec.Struct, frozen=True):
    standard_hours: list[WeekHours] | None = None
    maintenance_windows: list[MaintenanceWindow] | None = None


class ScheduleAnswer(msgspec.Struct, frozen=True):
    """GET /exchange/schedule."""

    schedule: Schedule
