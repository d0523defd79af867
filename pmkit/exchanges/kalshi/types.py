"""Kalshi's markets as pmkit shows them (wire): from REST rows and lifecycle events to `KalshiMarket`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from pmkit.exchanges.kalshi.fees import NO_FEE, QUANTUM, charge_so_far, fee_rule
from pmkit.exchanges.kalshi.grid import GridError, grid_of
from pmkit.exchanges.kalshi.messages import Lifecycle, Ticker, TradePrint
from pmkit.exchanges.kalshi.rest_messages import MarketRow, SeriesRow, TradeRow
from pmkit.exchanges.market import Charged, FeeRule, Market
from pmkit.exchanges.types import MarketStatus, PublicTrade, ReferencePrice, Side

VENUE: Final = "kalshi"
YES, NO = "YES", "NO"
OUTCOMES: Final = (YES, NO)
SIZE_SCALE: Final = 100
"""Contracts have two decimals."""
WINDOW_MS: Final = 900_000
UP_DOWN_STRIKE: Final = "greater_or_equal"
NOT_UP_DOWN: Final = frozenset({"KXCRYPTOLEAD15M", "KXCRYPTOCOMP15M"})
"""Fifteen-minute series in the crypto category that are coin races, not up/down of one coin."""

_CENT = Decimal("0.01")
_SERIES = re.compile(r"KX([A-Z0-9]{2,12})15M").fullmatch
_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,99}").fullmatch
_EARLIEST_MS, _LATEST_MS = 1_577_836_800_000, 4_102_444_800_000  # 2020, 2100
_INTERVALS: Final = {300: "5m", 900: "15m", 3600: "1h", 86400: "1d"}
_OVER: Final = frozenset({"closed", "determined", "disputed", "amended", "finalized"})


class RowError(ValueError):
    """A row of the venue that cannot be a market or a trade; the others of its list go on."""


class KalshiMarket(Market, frozen=True, kw_only=True):
    """One Kalshi market. `market_id` is the ticker; `token_ids` are "TICKER:YES" and "TICKER:NO".

    `venue_status` is Kalshi's own word, `result` is "" until determined ("yes", "no", "scalar"); payouts come when the
    market is finalized. `status` is that of the moment it was read: `at(now)` gives it for another one.
    """

    ticker: str
    event_ticker: str
    series_ticker: str
    exchange_index: int
    venue_status: str = ""
    strike_type: str = ""
    result: str = ""
    settlement_value: Decimal | None = None
    expiration_value: str = ""
    provisional: bool = False

    def at(self, now_ms: int) -> KalshiMarket:
        """The same market with `status` and `payouts` as they follow at `now_ms` (venue time, epoch ms)."""
        payouts = payouts_of(self.result, self.settlement_value) if self.venue_status == "finalized" else None
        status = status_of(self.venue_status, payouts is not None, self.open_ms, self.close_ms, now_ms)
        if status is self.status and payouts == self.payouts:
            return self
        return msgspec.structs.replace(self, status=status, payouts=payouts)

    def charge(
        self, side: Side, price: Decimal, size: Decimal, maker: bool, before: Charged
    ) -> tuple[Decimal, Charged]:
        """Kalshi rounds over all fills of an order: what was taken too much once is not taken again."""
        return charge_so_far(self.fees, price if side is Side.BUY else 1 - price, size, maker, before)

    def resting_fee(self, side: Side, price: Decimal, size: Decimal) -> Decimal:
        """Where a hundredth of a contract does not cost whole $0.0001, the rounding of the last fill as well."""
        own = price if side is Side.BUY else 1 - price
        return self.fees.fee(price, size, maker=True) + (QUANTUM if own % _CENT else 0)


class KalshiReference(ReferencePrice, frozen=True, kw_only=True):
    """`average` is the mean of the last 60 s, at any time. `settlement` is what the running window would settle on, of
    `settlement_ticks` of its 60 ticks: only in its last minute, None before; at the close it is the whole, unrounded.
    """

    settlement: Decimal | None = None
    settlement_ticks: int = 0


class KalshiTicker(msgspec.Struct, frozen=True, kw_only=True):
    """Top of book and last price of a market in YES dollars, contracts; None: there is no quote, or none was given."""

    market_id: str
    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None
    ask_size: Decimal | None
    last: Decimal | None
    last_size: Decimal | None
    volume: Decimal | None
    open_interest: Decimal | None
    venue_ms: int
    received_ns: int


def is_ticker(text: object) -> bool:
    """Whether a text can be a ticker. Anything else is never put into a URL."""
    return isinstance(text, str) and _TICKER(text) is not None


def asset_of(series_ticker: str) -> str | None:
    """ "BTC" of "KXBTC15M"; None for a series that is not a 15-minute up/down of one coin."""
    found = _SERIES(series_ticker)
    return found[1] if found and series_ticker not in NOT_UP_DOWN else None


def time_ms(text: str | None, what: str) -> int:
    """An ISO 8601 time with zone as epoch ms. Raises RowError: missing, no zone, no time, not in 2020-2100."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise RowError(f"{what} is {ascii(text)[:40]}, not a time") from None
    if moment.tzinfo is None:
        raise RowError(f"{what} is {ascii(text)[:40]}, without a zone")
    ms = int(moment.astimezone(UTC).replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
    if not _EARLIEST_MS <= ms < _LATEST_MS:
        raise RowError(f"{what} is {ascii(text)[:40]}, not between 2020 and 2100")
    return ms


def seconds_to_ms(seconds: int, what: str) -> int:
    """Epoch seconds to ms. Raises RowError outside 2020-2100, which catches milliseconds given for seconds."""
    if not _EARLIEST_MS <= seconds * 1000 < _LATEST_MS:
        raise RowError(f"{what} is {seconds}, not epoch seconds between 2020 and 2100")
    return seconds * 1000


def status_of(venue_status: str, settled: bool, open_ms: int, close_ms: int, now_ms: int) -> MarketStatus:
    """Kalshi's word and the clock to a MarketStatus.

    initialized -> active -> closed happens by the clock without any event, and lists may be 15 s old, so within its
    life the window decides. A finalized market without usable payouts is CLOSED.
    """
    if venue_status == "finalized" and settled:
        return MarketStatus.RESOLVED
    if venue_status in _OVER or now_ms >= close_ms:
        return MarketStatus.CLOSED
    if venue_status == "inactive":
        return MarketStatus.PAUSED
    return MarketStatus.UPCOMING if now_ms < open_ms else MarketStatus.OPEN


def payouts_of(result: str, settlement_value: Decimal | None) -> tuple[Decimal, Decimal] | None:
    """Dollars per YES and NO contract of a settled market, None where the venue has not said. The venue's `result`
    counts, not an average of one's own."""
    if result == "yes":
        return Decimal(1), Decimal(0)
    if result == "no":
        return Decimal(0), Decimal(1)
    if result == "scalar" and settlement_value is not None and 0 <= settlement_value <= 1:
        return settlement_value, 1 - settlement_value
    return None


def parse_market(row: MarketRow, series: SeriesRow, now_ms: int, fees: FeeRule | None = None) -> KalshiMarket:
    """A REST row and its series to a market, as of `now_ms` (venue time). `fees` overrides those of the series.

    Raises RowError for a row that makes no sense (odd times, bands, ticker), ProtocolChanged for an unknown fee type.
    """
    if not is_ticker(row.ticker):
        raise RowError(f"{ascii(row.ticker)[:60]} is no ticker")
    if row.market_type not in ("binary", "scalar"):
        raise RowError(f"{row.ticker} is of the type {ascii(row.market_type)[:30]}")
    open_ms = time_ms(row.open_time, f"open_time of {row.ticker}")
    close_ms = time_ms(row.close_time, f"close_time of {row.ticker}")
    if close_ms <= open_ms:
        raise RowError(f"{row.ticker} closes at {row.close_time}, not after its open at {row.open_time}")
    try:
        grid = grid_of(row.price_ranges, row.price_level_structure)
    except GridError as error:
        raise RowError(f"{row.ticker}: {error}") from error
    if fees is None:
        fees = fee_rule(series.fee_type, series.fee_multiplier, f"series {series.ticker}")
    waiver = row.fee_waiver_expiration_time
    if waiver and time_ms(waiver, f"fee_waiver_expiration_time of {row.ticker}") >= close_ms:
        fees = NO_FEE
    result = row.result or ""
    value = _dollars(row.settlement_value_dollars)
    payouts = payouts_of(result, value) if row.status == "finalized" else None
    return KalshiMarket(
        venue=VENUE,
        market_id=row.ticker,
        asset=asset_of(series.ticker) or series.ticker.removeprefix("KX"),
        interval=_INTERVALS.get((close_ms - open_ms) // 1000, series.frequency or f"{(close_ms - open_ms) // 1000}s"),
        title=row.title,
        outcomes=OUTCOMES,
        token_ids=(f"{row.ticker}:{YES}", f"{row.ticker}:{NO}"),
        open_ms=open_ms,
        close_ms=close_ms,
        grid=grid,
        min_size=_CENT,
        size_step=_CENT,
        fees=fees,
        status=status_of(row.status, payouts is not None, open_ms, close_ms, now_ms),
        strike=_strike(row.strike_type, row.floor_strike, row.cap_strike),
        strike_source="floor_strike",
        settlement=row.rules_primary or "",
        protocol="V2",
        tradable_before_open=False,
        nets_outcomes=True,
        payouts=payouts,
        ticker=row.ticker,
        event_ticker=row.event_ticker,
        series_ticker=series.ticker,
        exchange_index=row.exchange_index,
        venue_status=row.status,
        strike_type=row.strike_type or "",
        result=result,
        settlement_value=value,
        expiration_value=row.expiration_value or "",
        provisional=bool(row.is_provisional),
    )


def is_window(market: KalshiMarket) -> bool:
    """Whether a market is a 15-minute up/down window. Before its open it has no strike type yet."""
    return market.close_ms - market.open_ms == WINDOW_MS and market.strike_type in ("", UP_DOWN_STRIKE)


def with_event(market: KalshiMarket, event: Lifecycle, now_ms: int) -> KalshiMarket:
    """The market after one lifecycle event. Event types that are unknown or of no concern change nothing.

    Raises RowError for a value that makes no sense.
    """
    kind = event.event_type
    if kind == "metadata_updated":
        strike_type = event.strike_type or market.strike_type
        strike = _strike(strike_type, event.floor_strike, event.cap_strike)
        market = msgspec.structs.replace(
            market, strike_type=strike_type, strike=market.strike if strike is None else strike
        )
    elif kind == "close_date_updated" and event.close_ts is not None:
        close_ms = seconds_to_ms(event.close_ts, f"close_ts of {market.ticker}")
        market = msgspec.structs.replace(market, close_ms=close_ms)
    elif kind == "determined":
        market = msgspec.structs.replace(
            market,
            venue_status="determined",
            result=event.result or market.result,
            settlement_value=_in_dollars(event.settlement_value),
        )
    elif kind == "settled":
        market = msgspec.structs.replace(market, venue_status="finalized")
    elif kind in ("activated", "deactivated") and market.venue_status not in _OVER:
        paused = kind == "deactivated" if event.is_deactivated is None else event.is_deactivated
        market = msgspec.structs.replace(market, venue_status="inactive" if paused else "active")
    elif kind == "price_level_structure_updated":
        try:
            grid = grid_of(event.price_ranges, event.price_level_structure)
        except GridError as error:
            raise RowError(f"{market.ticker}: {error}") from error
        market = msgspec.structs.replace(market, grid=grid)
    return market.at(now_ms)


def _strike(strike_type: str | None, floor: Decimal | None, cap: Decimal | None) -> Decimal | None:
    """The one price that decides, None while the venue has not written it; never 0 for "missing"."""
    value = cap if strike_type in ("less", "less_or_equal") else None if strike_type == "between" else floor
    return value if value is not None and value.is_finite() and value > 0 else None


def _dollars(text: str | None) -> Decimal | None:
    try:
        return _in_dollars(Decimal(text)) if text else None
    except ArithmeticError:
        return None


def _in_dollars(value: Decimal | None) -> Decimal | None:
    return value if value is not None and value.is_finite() and 0 <= value <= 1 else None


def parse_trade(row: TradeRow | TradePrint, received_ns: int) -> PublicTrade:
    """A public print in YES terms: BUY when the taker bought YES, SELL when he bought NO (the two are one trade).

    Raises RowError where price, count or side make no sense.
    """
    if isinstance(row, TradeRow):
        ticker, venue_ms = row.ticker, time_ms(row.created_time, "created_time of a trade")
    else:
        ticker, venue_ms = row.market_ticker, row.ts_ms or _old_stamp(row.ts)
    price, size = _number(row.yes_price_dollars), _number(row.count_fp)
    if not 0 <= price <= 1 or size <= 0:
        raise RowError(f"a trade of {size} at {price} dollars is none")
    if row.taker_outcome_side in ("yes", "no"):
        bought_yes = row.taker_outcome_side == "yes"
    elif row.taker_book_side in ("bid", "ask"):
        bought_yes = row.taker_book_side == "bid"
    elif row.taker_side in ("yes", "no"):
        bought_yes = row.taker_side == "yes"
    else:
        raise RowError("a trade does not say which side took")
    return PublicTrade(
        market_id=ticker,
        outcome=YES,
        price=price,
        size=size,
        side=Side.BUY if bought_yes else Side.SELL,
        trade_id=row.trade_id,
        venue_ms=venue_ms,
        received_ns=received_ns,
    )


def parse_ticker(row: Ticker, received_ns: int) -> KalshiTicker:
    """A frame of the ticker channel. A bid of 0 and an ask of 1 stand for an empty side. Raises RowError."""
    bid, ask = _some(row.yes_bid_dollars), _some(row.yes_ask_dollars)
    if (bid is not None and not 0 <= bid <= 1) or (ask is not None and not 0 <= ask <= 1):
        raise RowError(f"a ticker of {bid} to {ask} dollars is none")
    return KalshiTicker(
        market_id=row.market_ticker,
        bid=bid or None,
        ask=None if ask == 1 else ask,
        bid_size=_some(row.yes_bid_size_fp) if bid else None,
        ask_size=_some(row.yes_ask_size_fp) if ask != 1 else None,
        last=_some(row.price_dollars) or None,
        last_size=_some(row.last_trade_size_fp) or None,
        volume=_some(row.volume_fp),
        open_interest=_some(row.open_interest_fp),
        venue_ms=row.ts_ms,
        received_ns=received_ns,
    )


def _some(text: str) -> Decimal | None:
    return _number(text) if text else None


def _old_stamp(stamp: int | float | str | None) -> int:
    if isinstance(stamp, str):
        return time_ms(stamp, "ts of a trade")
    return seconds_to_ms(int(stamp), "ts of a trade") if stamp else 0


def _number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite():
        raise RowError(f"{ascii(text)[:30]} is no number")
    return value
