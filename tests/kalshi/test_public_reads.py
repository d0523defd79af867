"""A market's past and what else can be listed: candles and prints, live or archived; hourly, weather and sports."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pmkit.errors import ConfigError, InvalidOrder, MarketNotFound, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.kalshi.candles import CandleRow, CandlesAnswer, candle
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.schedule import closed_until
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import MarketStatus, Side
from tests.kalshi.rest_venue import iso
from tests.kalshi.spec_check import Check, directory
from tests.kalshi.tap import Exchange
from tests.kalshi.test_market_finder import at, running

NOW = "2026-11-20T20:07:00Z"
CUTOFF = {
    "market_settled_ts": "2026-09-01T00:00:00Z",
    "trades_created_ts": "2026-09-01T00:00:00Z",
    "orders_updated_ts": "2026-11-06T00:00:00Z",
}


def row(end: int, **prices: Any) -> dict[str, Any]:
    one = {"open_dollars": "0.4000", "high_dollars": "0.6", "low_dollars": "0.30", "close_dollars": "0.5000"}
    return {
        "end_period_ts": end,
        "yes_bid": one,
        "yes_ask": one,
        "price": one,
        "volume_fp": "3.50",
        "open_interest_fp": "9.00",
        **prices,
    }


def old_row(end: int) -> dict[str, Any]:
    one = {"open": "0.4000", "high": "0.6000", "low": "0.3000", "close": "0.5000"}
    return {
        "end_period_ts": end,
        "yes_bid": one,
        "yes_ask": one,
        "price": one,
        "volume": "3.50",
        "open_interest": "9.00",
    }


def old_market(ticker: str, opened: str, closed: str) -> dict[str, Any]:
    return {
        "ticker": ticker,
        "event_ticker": ticker.rpartition("-")[0],
        "open_time": opened,
        "close_time": closed,
        "status": "finalized",
        "result": "yes",
        "price_level_structure": "linear_cent",
        "exchange_index": 0,
    }


def test_recorded_candles(recordings: Path) -> None:
    text = (recordings / "kalshi" / "rest" / "candlesticks_KXBTC15M-26JUL290015-15.json").read_bytes()
    first, last = map(candle, msgspec.json.decode(text, type=CandlesAnswer).candlesticks or ())
    assert first.trades is not None and last.bid is not None
    assert (first.trades.open, first.trades.close, first.volume) == (
        Decimal("0.5300"),
        Decimal("0.4500"),
        Decimal("192854.05"),
    )
    assert last.end_ms == first.end_ms + 14 * 60_000


async def test_candles_of_an_open_market_and_of_an_archived_one() -> None:
    async with running(NOW) as (finder, venue, _):
        data = finder.data
        assert isinstance(data, KalshiMarketData)
        market = await finder.get_current_market("BTC")
        assert isinstance(market, KalshiMarket)
        start = market.open_ms // 1000
        path = f"/series/KXBTC15M/markets/{market.ticker}/candlesticks"
        nothing = {"open_dollars": None, "close_dollars": None}
        venue.old[path] = {"candlesticks": [row(start + 120), row(start + 60, price=nothing)]}
        found = await data.get_market_candles(market)
        assert [one.end_ms // 1000 - start for one in found] == [60, 120]
        assert found[0].trades is None and found[1].trades is not None
        assert f"start_ts={start}&end_ts={at(NOW) // 1000}&period_interval=1" in venue.urls[-1]
        for period in (59, 0, 900):
            with pytest.raises(ConfigError, match="60, 3600, 86400"):
                await data.get_market_candles(market, period)

        old = "KXBTC15M-26JUL222315-15"
        venue.old[f"/historical/markets/{old}"] = {
            "market": old_market(old, "2026-07-23T03:00:00Z", "2026-07-23T03:15:00Z")
        }
        venue.old["/historical/cutoff"] = CUTOFF
        archived = await data.get_market(old)
        assert (archived.status, archived.payouts) == (MarketStatus.RESOLVED, (1, 0))
        venue.old[f"/historical/markets/{old}/candlesticks"] = {"candlesticks": [old_row(1784776000)]}
        (one,) = await data.get_market_candles(archived)
        assert one.trades is not None and (one.trades.high, one.volume) == (Decimal("0.6"), Decimal("3.5"))
        assert not any(url.endswith(f"/series/KXBTC15M/markets/{old}/candlesticks") for url in venue.urls)
        del venue.old[f"/historical/markets/{old}/candlesticks"]
        with pytest.raises(MarketNotFound):
            await data.get_market_candles(archived)


@pytest.mark.parametrize("field", ["open_dollars", "high_dollars", "low_dollars"])
@pytest.mark.parametrize("text", ["nan", "-1", "7", "x"])
async def test_a_candle_that_cannot_be_is_an_error(field: str, text: str) -> None:
    async with running(NOW) as (finder, venue, _):
        market = await finder.get_current_market("BTC")
        assert isinstance(market, KalshiMarket)
        made = row(market.open_ms // 1000 + 60)
        made["price"] = {**made["price"], field: text}
        venue.old[f"/series/KXBTC15M/markets/{market.ticker}/candlesticks"] = {"candlesticks": [made]}
        with pytest.raises(ProtocolChanged, match="candle"):
            await finder.data.get_market_candles(market)  # type: ignore[attr-defined]
    assert candle(CandleRow(60)).trades is None


async def test_prints_of_a_market_are_whole_across_pages_and_the_archive() -> None:
    async with running(NOW) as (finder, venue, _):
        data = finder.data
        assert isinstance(data, KalshiMarketData)
        market = await finder.get_current_market("BTC")
        assert isinstance(market, KalshiMarket)
        opened = datetime.fromtimestamp(market.open_ms / 1000, UTC)

        def made(number: int, moment: datetime, ticker: str) -> dict[str, Any]:
            return {
                "trade_id": f"t{number}",
                "ticker": ticker,
                "count_fp": "1.00",
                "yes_price_dollars": "0.4000",
                "taker_outcome_side": "no",
                "created_time": iso(moment),
            }

        venue.old["/historical/cutoff"] = CUTOFF
        venue.trades = [made(n, opened + timedelta(seconds=n), market.ticker) for n in range(7)]
        venue.page_size = 3
        found = await data.get_market_trades(market)
        assert [one.trade_id for one in found] == [f"t{n}" for n in range(7)]
        assert found[0].side is Side.SELL
        since = opened + timedelta(seconds=4)
        assert [one.trade_id for one in await data.get_market_trades(market, since)] == ["t4", "t5", "t6"]
        assert [one.trade_id for one in await data.get_market_trades(market, limit=2)] == ["t0", "t1"]
        with pytest.raises(InvalidOrder):
            await data.get_market_trades(market, limit=0)
        assert not venue.calls["/historical/trades"]

        old = msgspec.structs.replace(market, ticker="KXBTC15M-OLD-1", open_ms=at("2026-07-23T03:00:00Z"))
        rows = [made(90, datetime(2026, 7, 23, 3, 1, tzinfo=UTC), old.ticker)]
        venue.old["/historical/trades"] = {"trades": rows, "cursor": ""}
        assert [one.trade_id for one in await data.get_market_trades(old)] == ["t90"]
        venue.old["/historical/trades"] = {"trades": rows, "cursor": "again"}
        with pytest.raises(VenueUnavailable, match="repeats its cursor"):
            await data.get_market_trades(old)
        venue.old["/historical/trades"] = {"trades": [{**rows[0], "count_fp": "nan"}], "cursor": ""}
        with pytest.raises(ProtocolChanged):
            await data.get_market_trades(old)


async def test_hourly_range_weather_and_sports_series_are_listed(recordings: Path) -> None:
    hourly = json.loads((recordings / "kalshi/rest/market_KXBTCD-26AUG1717-T72749.99.json").read_text())["market"]

    def other(ticker: str, **fields: Any) -> dict[str, Any]:
        whole = {**hourly, "ticker": ticker, "event_ticker": ticker.rpartition("-")[0]}
        return whole | {"open_time": "2026-11-20T15:00:00Z", "close_time": "2026-11-22T04:59:00Z", **fields}

    async with running(NOW) as (finder, venue, _):
        names = ("KXBTCD", "KXBTC", "KXHIGHNY", "KXNBAGAME")
        venue.extra_series = [venue.series(name) | {"frequency": "hourly", "category": "x"} for name in names]
        venue.extra_markets = [
            other("KXBTCD-26NOV2017-T72749.99", close_time="2026-11-20T22:00:00Z"),
            other(
                "KXBTCD-26NOV2016-T72749.99",
                close_time="2026-11-20T21:00:00Z",
                status="initialized",
                open_time="2026-11-20T20:30:00Z",
            ),
            other("KXBTC-26NOV2017-B84650", strike_type="between", floor_strike=84600, cap_strike=84699.99),
            other("KXHIGHNY-26NOV21-B56.5", strike_type="between", floor_strike=56, cap_strike=57),
            other("KXHIGHNY-26NOV21-T58", strike_type="less", floor_strike=None, cap_strike=58),
            other("KXNBAGAME-26NOV25BKNGSW-GSW", strike_type="structured", floor_strike=None),
        ]
        listed = await finder.list_markets(series="KXBTCD")
        assert [one.market_id[:14] for one in listed] == ["KXBTCD-26NOV20"] * 2
        assert [one.close_ms for one in listed] == sorted(one.close_ms for one in listed)
        (opened,) = await finder.list_markets(series="KXBTCD", status=MarketStatus.OPEN)
        assert isinstance(opened, KalshiMarket)
        assert (opened.strike, opened.strike_type, opened.asset) == (Decimal("72749.99"), "greater", "BTCD")
        (between,) = await finder.list_markets(series="KXBTC")
        assert between.strike is None  # two strikes: which one would it be?
        strikes = {one.market_id: one.strike for one in await finder.list_markets(series="KXHIGHNY")}
        assert strikes == {"KXHIGHNY-26NOV21-B56.5": None, "KXHIGHNY-26NOV21-T58": Decimal(58)}
        assert len(await finder.list_markets(series="KXNBAGAME")) == 1
        found = await finder.data.get_market("KXHIGHNY-26NOV21-T58")
        assert found.market_id == "KXHIGHNY-26NOV21-T58"
        assert {one.ticker for one in await finder.list_series("Sports")} >= set(names)
        with pytest.raises(MarketNotFound):
            await finder.list_markets(series="KXNOSUCH")
        with pytest.raises(ConfigError, match="not both"):
            await finder.list_markets("BTC", series="KXBTCD")
        # They are none of the finder's windows.
        current = await finder.get_current_market("BTC")
        assert current and current.market_id.startswith("KXBTC15M")


async def test_every_read_is_as_the_openapi_file_says() -> None:
    files = directory()
    if files is None:
        pytest.skip("the specifications of Kalshi, or PyYAML, are not here")
    check = Check(files)
    async with running(NOW) as (finder, venue, _):
        data = finder.data
        assert isinstance(data, KalshiMarketData)
        venue.old["/historical/cutoff"] = CUTOFF
        market = await data.get_market((await finder.list_markets("BTC"))[-1].market_id)
        settled = msgspec.structs.replace(market, payouts=(Decimal(1), Decimal(0)), close_ms=at("2026-07-23T03:15:00Z"))
        await finder.list_markets(series="KXBTC15M")
        await finder.list_series("Sports")
        for one in (market, settled):
            with pytest.raises(MarketNotFound):
                await data.get_market_candles(one, 60, datetime(2026, 7, 23, tzinfo=UTC))
            await data.get_market_trades(one, datetime(2026, 11, 20, tzinfo=UTC))
        with pytest.raises(MarketNotFound):
            await data.get_market_trades(market, datetime(2026, 7, 20, tzinfo=UTC))
        await data.exchange_schedule()
        asked = [Exchange("GET", httpx.URL(url).raw_path.decode(), {}) for url in venue.urls]
        assert {problem for one in asked for problem in check.request(one)} == set()
        assert {"/historical/trades", "/markets/trades", "/historical/cutoff"} <= set(venue.calls)


async def test_the_exchange_tells_its_status_and_schedule() -> None:
    async with running("2026-11-19T08:30:00Z") as (finder, venue, _):
        data = finder.data
        assert isinstance(data, KalshiMarketData)
        venue.trading = False
        status = await data.exchange_status()
        assert [one.trading_active for one in status.exchange_index_statuses or ()] == [True, False]
        assert closed_until(await data.exchange_schedule(), at("2026-11-19T08:30:00Z")) == at("2026-11-19T10:00:00Z")
