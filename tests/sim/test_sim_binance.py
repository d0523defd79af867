"""The local Binance over REST against the sheet of the real one; the client is plain aiohttp."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock
from pmkit.sim.binance import candles as candles_module
from pmkit.sim.binance.candles import CandleMaker
from pmkit.sim.binance.intervals import LENGTHS, ceil_open, floor_open, step
from pmkit.sim.binance.symbols import UNIT, make_symbol
from pmkit.sim.world import World
from tests.sim.binance_client import MINUTE, START, Setup, running


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


def maker(asset: str = "BTC", seed: int = 7) -> CandleMaker:
    return CandleMaker(World(seed, ManualClock(START), (asset,)), make_symbol(asset))


# -- candles


@pytest.mark.parametrize("interval", ["1s", "1m", "3m", "5m", "15m"])
async def test_a_row_has_twelve_fields_of_the_venues_types(setup: Setup, interval: str) -> None:
    rows = await setup.klines(symbol="BTCUSDT", interval=interval, limit=3)
    for row in rows:
        assert [type(field) for field in row] == [int, str, str, str, str, str, int, str, int, str, str, str]
        assert row[0] % LENGTHS[interval] == 0
        assert row[6] == row[0] + LENGTHS[interval] - 1
        assert row[11] == "0"
        assert all(len(row[i].split(".")[1]) == 8 for i in (1, 2, 3, 4, 5, 7, 9, 10))
        assert float(row[3]) <= min(float(row[1]), float(row[4])) <= max(float(row[1]), float(row[4])) <= float(row[2])
    assert [later[0] - row[0] for row, later in pairwise(rows)] == [LENGTHS[interval]] * 2


def test_rows_have_the_types_of_recorded_rows(recordings: Path) -> None:
    recorded = json.loads((recordings / "binance/rest/btcusdt_1m_unaligned_start.json").read_text())
    recorded = recorded if isinstance(recorded[0], list) else recorded["rows"]
    ours = maker().candle("1m", START - MINUTE, START).row()
    assert [type(field) for field in ours] == [type(field) for field in recorded[0]]


def test_frames_have_the_fields_of_recorded_frames(recordings: Path) -> None:
    lines = (recordings / "binance/ws/kline_1s_messages.jsonl").read_text().splitlines()
    whole = json.loads(lines[-1])["data"]["k"]
    ours = maker().candle("1s", START - 1000, START).frame("BTCUSDT", "1s")
    assert {name: type(value) for name, value in ours.items()} == {name: type(value) for name, value in whole.items()}
    quiet = next(frame for frame in map(json.loads, lines) if frame.get("k", {}).get("n") == 0)["k"]
    empty = next(
        candle
        for second in range(200)
        if (candle := maker().candle("1s", START - 1000 * (second + 1), START)).trades == 0
    ).frame("BTCUSDT", "1s")
    for field in ("f", "L", "n", "v", "q", "V", "Q", "x"):
        assert empty[field] == quiet[field]
    assert empty["o"] == empty["h"] == empty["l"] == empty["c"]


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**6), 10**6), st.sampled_from(["BTC", "ETH", "XRP", "DOGE"]))
def test_every_second_is_possible(offset: int, asset: str) -> None:
    """A volume cannot cost less than at the low nor more than at the high; takers buy a part of it."""
    made = maker(asset)
    second = START + offset * 1000
    candle = made.candle("1s", second, second + 1000)
    assert candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high
    assert candle.low * candle.volume <= candle.quote * UNIT <= candle.high * candle.volume
    assert candle.low * candle.taker <= candle.taker_quote * UNIT <= candle.high * candle.taker
    assert 0 <= candle.taker <= candle.volume
    assert 0 <= candle.taker_quote <= candle.quote
    assert (candle.trades == 0) == (candle.volume == 0) == (candle.first_id == -1)
    assert all(price % made.symbol.tick == 0 for price in (candle.open, candle.high, candle.low, candle.close))
    assert candle.volume % made.symbol.lot == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(-50_000, 50_000), st.sampled_from(["1m", "3m", "5m"]), st.integers(1, 100_000))
def test_a_candle_is_the_sum_of_its_seconds(offset: int, interval: str, passed_ms: int) -> None:
    """Also the forming one, of the seconds that are known."""
    made = maker("XRP")
    opened = floor_open(interval, START + offset * MINUTE)
    now = opened + passed_ms
    candle = made.candle(interval, opened, now)
    until_ms = min(step(interval, opened, 1), now)
    parts = [made.candle("1s", at, now) for at in range(opened, until_ms, 1000)]
    traded = [part for part in parts if part.trades]
    assert candle.trades == sum(part.trades for part in parts)
    assert candle.volume == sum(part.volume for part in parts)
    assert candle.quote == sum(part.quote for part in parts)
    assert candle.taker_quote == sum(part.taker_quote for part in parts)
    assert candle.closed == (now >= step(interval, opened, 1))
    if traded:
        assert (candle.open, candle.close) == (traded[0].open, traded[-1].close)
        assert candle.high == max(part.high for part in traded)
        assert candle.low == min(part.low for part in traded)
        assert (candle.first_id, candle.last_id) == (traded[0].first_id, traded[-1].last_id)
    else:
        assert candle.open == candle.close == made.last_price(opened // 1000)


def test_trade_ids_run_without_holes_and_empty_seconds_repeat_the_close() -> None:
    made = maker("ETH")
    seconds = [made.candle("1s", START - 1000 * back, START) for back in range(2_000, 0, -1)]
    last = None
    for candle in seconds:
        if candle.trades:
            assert last is None or candle.first_id == last.last_id + 1
            assert candle.last_id - candle.first_id + 1 == candle.trades
            last = candle
        elif last is not None:
            assert candle.open == last.close
    share = sum(candle.trades == 0 for candle in seconds) / len(seconds)
    assert 0.15 < share < 0.35  # recorded days of ETH: 23-24 %


def test_a_seed_is_the_same_market_in_every_process() -> None:
    assert maker(seed=3).candle("1m", START - MINUTE, START) == maker(seed=3).candle("1m", START - MINUTE, START)
    assert maker(seed=3).candle("1m", START - MINUTE, START) != maker(seed=4).candle("1m", START - MINUTE, START)


def test_the_forming_second_grows_into_the_closed_one() -> None:
    made = maker()
    known = [made.candle("1s", START, START + passed) for passed in range(0, 1001, 50)]
    for one, two in pairwise(known):
        assert one.trades <= two.trades
        assert one.volume <= two.volume
        assert one.high <= two.high or not one.trades
        assert one.low >= two.low or not one.trades
    assert [candle.closed for candle in known] == [False] * 20 + [True]
    assert known[10].trades < known[-1].trades


@pytest.mark.parametrize(
    ("interval", "moment", "floor", "ceil"),
    [
        ("1w", "2026-11-20T12:00:00+00:00", "2026-11-16T00:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("1M", "2026-11-20T12:00:00+00:00", "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"),
        ("1M", "2026-12-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"),
        ("4h", "2026-11-20T11:59:59+00:00", "2026-11-20T08:00:00+00:00", "2026-11-20T12:00:00+00:00"),
    ],
)
def test_the_grid_is_utc(interval: str, moment: str, floor: str, ceil: str) -> None:
    assert floor_open(interval, utc(moment)) == utc(floor)
    assert ceil_open(interval, utc(moment)) == utc(ceil)
    assert step(interval, step(interval, utc(floor), 5), -5) == utc(floor)


# -- which rows come (recorded requests: binance.md, section 2)


async def test_an_unaligned_range_rounds_up_and_down(setup: Setup) -> None:
    first = START - 100 * MINUTE
    rows = await setup.klines(
        symbol="BTCUSDT", interval="1m", startTime=first - 32_000, endTime=first + 59 * MINUTE + 28_000
    )
    assert [rows[0][0], rows[-1][0], len(rows)] == [first, first + 59 * MINUTE, 60]


async def test_both_ends_are_inclusive_on_the_open_time(setup: Setup) -> None:
    at = START - 10 * MINUTE
    assert [row[0] for row in await setup.klines(symbol="BTCUSDT", interval="1m", startTime=at, endTime=at)] == [at]
    end = {"symbol": "BTCUSDT", "interval": "1m", "startTime": at - 5 * MINUTE}
    assert len(await setup.klines(**end, endTime=at)) == 6
    assert len(await setup.klines(**end, endTime=at - 1)) == 5


async def test_with_both_times_the_oldest_come_first_and_with_the_end_alone_the_newest(setup: Setup) -> None:
    low, high = START - 100 * MINUTE, START - 50 * MINUTE
    both = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=low, endTime=high, limit=3)
    assert [row[0] for row in both] == [low, low + MINUTE, low + 2 * MINUTE]
    end = await setup.klines(symbol="BTCUSDT", interval="1m", endTime=high, limit=3)
    assert [row[0] for row in end] == [high - 2 * MINUTE, high - MINUTE, high]
    start = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=low, limit=3)
    assert start == both
    newest = await setup.klines(symbol="BTCUSDT", interval="1m", limit=2)
    assert [row[0] for row in newest] == [START - MINUTE, START]


async def test_limits_are_500_by_default_and_1000_at_most(setup: Setup) -> None:
    assert len(await setup.klines(symbol="BTCUSDT", interval="1s")) == 500
    assert len(await setup.klines(symbol="BTCUSDT", interval="1s", limit=5_000)) == 1_000


async def test_the_first_candle_and_empty_ranges(setup: Setup) -> None:
    first = await setup.klines(symbol="BTCUSDT", interval="1s", startTime=0, limit=1)
    assert first[0][0] == 1_502_942_400_000  # the real one
    assert await setup.klines(symbol="BTCUSDT", interval="1s", endTime=1_502_942_399_999) == []
    assert await setup.klines(symbol="BTCUSDT", interval="1m", startTime=START + MINUTE) == []
    assert await setup.klines(symbol="BTCUSDT", interval="1m", startTime=START, endTime=START - MINUTE) == []


async def test_nothing_traded_before_the_listing(setup: Setup) -> None:
    day = (await setup.klines(symbol="BTCUSDT", interval="1d", startTime=0, limit=1))[0]
    hours = await setup.klines(symbol="BTCUSDT", interval="1h", startTime=0, limit=20)
    assert day[0] == 1_502_928_000_000 and hours[0][0] == 1_502_942_400_000
    assert (day[1], day[8]) == (hours[0][1], sum(hour[8] for hour in hours))


async def test_the_forming_candle_comes_too_and_nothing_says_so(setup: Setup) -> None:
    await setup.clock.advance(20)
    query = {"symbol": "BTCUSDT", "interval": "1m", "limit": 1}
    row = (await setup.klines(**query))[0]
    assert row[0] == START
    assert row[6] > setup.clock.now_ms()
    await setup.clock.advance(10)
    later = (await setup.klines(**query, endTime=START + 10**9))[0]  # a future end is no different
    assert later[8] > row[8]
    assert later[1] == row[1]


async def test_times_may_be_microseconds_both_ways(setup: Setup) -> None:
    at = START - 10 * MINUTE
    asked = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=at * 1000, endTime=at * 1000)
    assert [row[0] for row in asked] == [at]
    status, rows, _ = await setup.ask(
        "/api/v3/klines", {"X-MBX-TIME-UNIT": "MICROSECOND"}, symbol="BTCUSDT", interval="1m", startTime=at, limit=1
    )
    assert status == 200
    assert (rows[0][0], rows[0][6]) == (at * 1000, (at + MINUTE) * 1000 - 1)
    assert rows[0][1:6] == asked[0][1:6]


async def test_a_database_lag_hides_the_newest_second(setup: Setup) -> None:
    setup.venue.rest.lag_ms = 1_500
    rows = await setup.klines(symbol="BTCUSDT", interval="1s", limit=1)
    assert rows[0][0] == START - 1_000


# -- errors and limits


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "NOPEUSDT", "interval": "1m"}, -1121),
        ({"symbol": "btcusdt", "interval": "1m"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1x"}, -1120),
        ({"symbol": "BTCUSDT", "interval": "1S"}, -1120),
        ({"symbol": "BTCUSDT"}, -1102),
        ({"interval": "1m"}, -1102),
        ({"symbol": "BTCUSDT", "interval": "1m", "endTime": ""}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "yesterday"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "-5"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1m", "limt": "5"}, -1104),
        ({"symbol": "BTCUSDT", "interval": "1m", "timeZone": "5"}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": "0"}, -1130),
    ],
)
async def test_refusals_carry_the_venues_code(setup: Setup, query: dict[str, str], code: int) -> None:
    status, body, headers = await setup.ask("/api/v3/klines", **query)
    assert (status, body["code"]) == (400, code)
    assert set(body) == {"code", "msg"}
    assert headers["X-MBX-USED-WEIGHT-1M"] == "2"


async def test_error_texts_are_the_recorded_ones(setup: Setup, recordings: Path) -> None:
    recorded = {
        entry["body"]["code"]: entry["body"]
        for entry in json.loads((recordings / "binance/rest/error_bodies.json").read_text())
        if "body" in entry
    }
    for query in ({"symbol": "NOPE", "interval": "1m"}, {"symbol": "BTCUSDT", "interval": "nope"}):
        _, body, _ = await setup.ask("/api/v3/klines", **query)
        assert body == recorded[body["code"]]


async def test_weights_are_charged_per_market_minute(setup: Setup) -> None:
    async def used(path: str, **query: Any) -> str:
        status, _, headers = await setup.ask(path, **query)
        assert status == 200
        assert headers["X-MBX-USED-WEIGHT"] == headers["X-MBX-USED-WEIGHT-1M"]
        return str(headers["X-MBX-USED-WEIGHT-1M"])

    klines = {"symbol": "BTCUSDT", "interval": "1m"}
    assert await used("/api/v3/ping") == "1"
    assert await used("/api/v3/time") == "2"
    assert await used("/api/v3/klines", **klines, limit=1) == "4"
    assert await used("/api/v3/klines", **klines, limit=1000) == "6"  # 2, whatever the limit
    assert await used("/api/v3/exchangeInfo") == "26"
    await setup.clock.advance(60)
    assert await used("/api/v3/ping") == "1"


async def test_429_then_418_with_the_recorded_words(setup: Setup) -> None:
    setup.venue.limits.limit = 3
    setup.venue.limits.patience = 2
    await setup.clock.advance(10)
    statuses = []
    for _ in range(7):
        status, body, headers = await setup.ask("/api/v3/ping")
        statuses.append(status)
        if status == 429:
            assert body["code"] == -1003
            assert "current limit is 3 request weight per 1 MINUTE" in body["msg"]
            assert headers["Retry-After"] == "50"
    assert statuses == [200, 200, 200, 429, 429, 418, 418]
    assert (body["code"], headers["Retry-After"]) == (-1003, "120")
    assert f"IP banned until {setup.clock.now_ms() + 120_000}" in body["msg"]
    await setup.clock.advance(119)
    assert (await setup.ask("/api/v3/ping"))[0] == 418
    await setup.clock.advance(2)
    assert (await setup.ask("/api/v3/ping"))[0] == 200


async def test_exchange_info_tells_the_limit_and_the_pairs(setup: Setup) -> None:
    _, info, _ = await setup.ask("/api/v3/exchangeInfo")
    weight = next(limit for limit in info["rateLimits"] if limit["rateLimitType"] == "REQUEST_WEIGHT")
    assert weight == {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
    assert [(pair["symbol"], pair["status"]) for pair in info["symbols"]] == [
        ("BTCUSDT", "TRADING"),
        ("ETHUSDT", "TRADING"),
    ]
    _, one, _ = await setup.ask("/api/v3/exchangeInfo", symbols='["ETHUSDT"]')
    assert [pair["symbol"] for pair in one["symbols"]] == ["ETHUSDT"]
    assert (await setup.ask("/api/v3/exchangeInfo", symbol="NOPE"))[1]["code"] == -1121
    assert (await setup.ask("/api/v3/exchangeInfo", symbol="BTCUSDT", symbols='["ETHUSDT"]'))[1]["code"] == -1128
    assert (await setup.ask("/api/v3/exchangeInfo", symbols="ETHUSDT"))[1]["code"] == -1100


async def test_history_that_takes_too_long_is_a_timeout_not_a_guess(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, body, _ = await setup.ask("/api/v3/klines", symbol="BTCUSDT", interval="1d", limit=100)
    assert (status, body["code"]) == (408, -1007)
    monkeypatch.setattr(candles_module, "WORK_SECONDS", -1.0)
    status, body, _ = await setup.ask("/api/v3/klines", symbol="BTCUSDT", interval="15m", limit=20)
    assert (status, body["code"]) == (408, -1007)


async def test_other_market_data_says_that_it_is_not_built(setup: Setup) -> None:
    for path in ("depth", "trades", "ticker/24hr", "uiKlines"):
        status, body, _ = await setup.ask(f"/api/v3/{path}", symbol="BTCUSDT")
        assert (status, body["code"]) == (501, -1020)
        assert path in body["msg"]
    assert (await setup.ask("/api/v1/klines"))[0] == 404


async def test_http_faults_answer_in_the_venues_place(setup: Setup) -> None:
    setup.venue.faults.http_status("klines", 451, '{"code":0,"msg":"restricted location"}')
    status, body, _ = await setup.ask("/api/v3/klines", symbol="BTCUSDT", interval="1m")
    assert (status, body["code"]) == (451, 0)
    assert (await setup.ask("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1))[0] == 200
