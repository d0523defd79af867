"""Settled windows: their tickers, times and results by the rules of finder and settlement."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.kalshi.rest_messages import Hours, MarketRow, Schedule, SeriesRow, WeekHours
from pmkit.exchanges.kalshi.schedule import closed_until
from pmkit.exchanges.kalshi.tickers import series_of, window_closes, window_ticker
from pmkit.exchanges.kalshi.types import (
    WINDOW_MS,
    KalshiMarket,
    RowError,
    asset_of,
    is_window,
    parse_market,
    payouts_of,
    time_ms,
)
from tests.real_data.report import Report

EXPECTED_MS = 300_000
"""The column `close` is the expected expiration: five minutes after the close of the window."""
LATE_MS = 20_700_000
LATE = "the expected expiration (column close) is 5 h 45 min after the window's end; all else is exact"
CUT = "the strike shown is cut: the previous window's settlement, which is the strike, lies above this one's"
NEAR = "the strike shown is cut, the index is less than a digit above it, and the window before is not in the file"
ZERO = "the index value reads 0: the exchange published no right one, and its result stands"
NO_DATA = "no strike or no index value was published: NO by the rules"

_DAY = [Hours("00:00", "00:00")]
MAINTENANCE = Schedule(
    [WeekHours(None, None, _DAY, _DAY, _DAY, [Hours("00:00", "03:00"), Hours("05:00", "00:00")], _DAY, _DAY, _DAY)]
)
"""Trading hours as they were recorded: none on Thursdays from 03:00 to 05:00 in New York."""


class OddWindow(ValueError):
    """A window that the rules do not explain."""


def check_settled(name: str, rows: Iterable[dict[str, Any]]) -> Report:
    """Rows of ticker, index before and at the end (`a0`, `a1`), result and expected expiration."""
    report = Report(name)
    placed: dict[tuple[str, int], dict[str, Any]] = {}
    decimals: dict[str, int] = defaultdict(int)
    for row in rows:
        try:
            close_ms = _place(row)
            if placed.setdefault((row["series"], close_ms), row) is not row:
                raise OddWindow("a window twice")
            decimals[row["series"]] = max(decimals[row["series"]], _decimals(row["a0"]))
        except (OddWindow, RowError, ArithmeticError, KeyError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], str(row.get("ticker")))
    for (series, close_ms), row in placed.items():
        before = placed.get((series, close_ms - WINDOW_MS))
        try:
            kind = _explain(row, before, Decimal(1).scaleb(-decimals[series]))
        except (OddWindow, ArithmeticError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], row["ticker"])
            continue
        if kind is None and time_ms(row["close"], "close") - close_ms == LATE_MS:
            kind = LATE
        if kind is None:
            report.explain()
        else:
            report.name_it(kind, row["ticker"])
    return report


def _place(row: dict[str, Any]) -> int:
    """The close of the window, epoch ms: by its ticker, and on the autumn night by its expected expiration as well."""
    ticker = row["ticker"]
    if series_of(ticker) != row["series"] or asset_of(row["series"]) != row["coin"]:
        raise OddWindow("ticker, series and coin disagree")
    expected = time_ms(row["close"], "close")
    closes = window_closes(ticker)
    fits = [close_ms for close_ms in closes if expected - close_ms in (EXPECTED_MS, LATE_MS)]
    if not fits:
        raise OddWindow(f"none of the ticker's {len(closes)} closes is five minutes before the expected expiration")
    if fits[0] % WINDOW_MS or window_ticker(row["series"], fits[0]) != ticker:
        raise OddWindow("no quarter of an hour, or another ticker than the one built from the close")
    if closed_until(MAINTENANCE, fits[0] - WINDOW_MS) is not None:
        raise OddWindow("a window in the maintenance of Thursday 03:00-05:00 in New York")
    return fits[0]


def _explain(row: dict[str, Any], before: dict[str, Any] | None, step: Decimal) -> str | None:
    """None where the result follows from what is shown, else the named kind. Raises OddWindow."""
    if payouts_of(row["result"], None) is None:
        raise OddWindow(f"the result {row['result']!r} pays nobody")
    if not row["a0"] or not row["a1"]:
        if row["result"] != "no":
            raise OddWindow("no index data, and yet not NO")
        return NO_DATA
    strike, value = Decimal(row["a0"]), Decimal(row["a1"])
    if not strike or not value:
        return ZERO
    exact_strike = Decimal(before["a1"]) if before is not None and before["a1"] else None
    if exact_strike is not None and not strike <= exact_strike < strike + step:
        raise OddWindow("the strike is not the previous window's settlement, cut")
    if ("yes" if value >= strike else "no") == row["result"]:
        return None
    if exact_strike is not None and ("yes" if value >= exact_strike else "no") == row["result"]:
        return CUT
    if exact_strike is None and strike <= value < strike + step:
        return NEAR
    raise OddWindow("the result is not that of the index against the strike")


def _decimals(text: str) -> int:
    exponent = Decimal(text).as_tuple().exponent if text else 0
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def check_markets(name: str, rows: Iterable[dict[str, Any]]) -> Report:
    """Market rows of REST: through pmkit's own reading of a market."""
    report = Report(name)
    for row in rows:
        label = str(row.get("ticker"))
        try:
            kind = _explain_market(row)
        except (OddWindow, RowError, ProtocolChanged, msgspec.ValidationError, ArithmeticError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], label)
            continue
        if kind is None:
            report.explain()
        else:
            report.name_it(kind, label)
    return report


def _explain_market(row: dict[str, Any]) -> str | None:
    series = SeriesRow(series_of(row["ticker"]), "", "Crypto", "fifteen_min", "quadratic", Decimal(1))
    market = parse_market(msgspec.convert(row, MarketRow, strict=False), series, time_ms(row["close_time"], "close"))
    if asset_of(market.series_ticker) is None or not is_window(market):
        return _explain_other(market, row)
    if market.close_ms not in window_closes(market.ticker):
        raise OddWindow("the ticker does not name the close")
    if market.payouts is None:
        return f"not finalized ({market.venue_status})"
    if market.strike is None or not market.expiration_value:
        if market.result != "no":
            raise OddWindow("no strike or no index value, and yet not NO")
        return NO_DATA
    if not Decimal(market.expiration_value):
        return ZERO
    if ("yes" if Decimal(market.expiration_value) >= market.strike else "no") != market.result:
        raise OddWindow("the result is not that of the index against the strike")
    return None


def _explain_other(market: KalshiMarket, row: dict[str, Any]) -> str | None:
    """Hourly, range and other markets: the value against the strikes, by the kind of strike; else no rule of ours."""
    if market.payouts is None:
        return f"not finalized ({market.venue_status})"
    value, kind = _number(row.get("expiration_value")), row.get("strike_type")
    floor, cap = _number(row.get("floor_strike")), _number(row.get("cap_strike"))
    holds: bool | None = None
    if value is not None and floor is not None and kind in ("greater", "greater_or_equal"):
        holds = value > floor or (kind == "greater_or_equal" and value == floor)
    elif value is not None and cap is not None and kind in ("less", "less_or_equal"):
        holds = value < cap or (kind == "less_or_equal" and value == cap)
    elif value is not None and floor is not None and cap is not None and kind == "between":
        holds = floor <= value <= cap
    if holds is None or market.result not in ("yes", "no"):
        return "not a 15-minute window of a coin, and no number against a strike: no rule of ours"
    if holds != (market.result == "yes"):
        raise OddWindow("the result is not that of the value against the strikes")
    return None


def _number(value: object) -> Decimal | None:
    text = str(value).replace(",", "") if value not in (None, "") else ""
    return Decimal(text) if re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII) else None
