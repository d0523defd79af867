"""What the local Binance can be made to do wrong, seen by a plain client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock, SystemClock
from pmkit.errors import ConfigError
from pmkit.sim.binance.candles import CandleMaker
from pmkit.sim.binance.faults import Framing
from pmkit.sim.binance.history import History, Shift
from pmkit.sim.binance.intervals import HOUR, LENGTHS, MINUTE, step
from pmkit.sim.binance.rows import candle_absent, opens_between
from pmkit.sim.binance.symbols import make_symbol
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World
from tests.sim.binance_client import START, Setup, nothing, receive, running

KLINES = {"symbol": "BTCUSDT", "interval": "1m"}


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


# -- refusals


async def test_429_says_when_the_minute_ends_and_costs_no_weight(setup: Setup) -> None:
    await setup.clock.advance(20)
    setup.venue.faults.refuse(429)
    status, body, headers = await setup.ask("/api/v3/klines", **KLINES)
    assert (status, body["code"], headers["Retry-After"]) == (429, -1003, "40")
    _, _, headers = await setup.ask("/api/v3/klines", **KLINES, limit=1)
    assert headers["X-MBX-USED-WEIGHT-1M"] == "2"
    assert setup.venue.faults.counts["refused"] == 1


async def test_418_tells_the_end_of_the_ban_and_a_real_ban_is_on_all_hosts() -> None:
    clock = ManualClock(START)
    venue = BinanceVenue(World(7, clock, ("BTC",)), clock, hosts=2)
    async with venue, aiohttp.ClientSession() as http:
        assert len(venue.endpoints().rest) == len(venue.endpoints().ws) == 2
        venue.faults.refuse(418, retry_after=7)
        statuses = []
        for seconds in (0, 0, 29, 2):
            await clock.advance(seconds)
            for url in venue.endpoints().rest:
                async with http.get(url + "/api/v3/ping") as answer:
                    statuses.append(answer.status)
                    if answer.status == 418 and len(statuses) == 1:
                        body = await answer.json()
                        assert answer.headers["Retry-After"] == "7"
                        assert f"banned until {START + 7000}" in body["msg"]
            if len(statuses) == 2:
                venue.limits.ban(30)
        assert statuses == [418, 200, 418, 418, 418, 418, 200, 200]
    assert venue.failures == []


async def test_451_and_403_belong_to_one_host(recordings: Path) -> None:
    recorded = json.loads((recordings / "binance/rest/error_bodies.json").read_text())
    clock = ManualClock(START)
    venue = BinanceVenue(World(7, clock, ("BTC",)), clock, hosts=3)
    async with venue, aiohttp.ClientSession() as http:
        venue.faults.refuse(451, host=0, times=None)
        venue.faults.refuse(403, host=1, times=None)
        for _ in range(2):
            answers = [await http.get(url + "/api/v3/time") for url in venue.endpoints().rest]
            assert [answer.status for answer in answers] == [451, 403, 200]
        assert await answers[0].json() == next(entry["body"] for entry in recorded if entry["http"] == 451)
        assert (await answers[1].text()).startswith("<html>")
        assert answers[1].content_type == "text/html"
        venue.faults.clear()
        assert (await http.get(venue.endpoints().rest[0] + "/api/v3/time")).status == 200


@pytest.mark.parametrize(("status", "code"), [(500, -1000), (503, -1008), (504, -1007)])
async def test_5xx_have_the_form_of_errors(setup: Setup, status: int, code: int) -> None:
    setup.venue.faults.refuse(status, path="klines", times=2)
    assert (await setup.ask("/api/v3/ping"))[0] == 200
    for _ in range(2):
        answered, body, _ = await setup.ask("/api/v3/klines", **KLINES)
        assert (answered, body["code"]) == (status, code)
    assert (await setup.ask("/api/v3/klines", **KLINES))[0] == 200
    setup.venue.faults.refuse(status, code=-1016, msg="This service is no longer available.")
    assert (await setup.ask("/api/v3/ping"))[1] == {"code": -1016, "msg": "This service is no longer available."}


async def test_refusals_of_files_are_xml(setup: Setup) -> None:
    path = "/data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-19.zip"
    setup.venue.faults.refuse(503, path="GET /data/")
    async with setup.http.get(setup.rest + path) as answer:
        assert (answer.status, answer.content_type) == (503, "application/xml")
        assert b"<Code>SlowDown</Code>" in await answer.read()
    async with setup.http.get(setup.rest + path) as answer:
        assert answer.status == 200


async def test_chance_is_seeded_and_does_not_depend_on_the_order_of_requests() -> None:
    async def refused(order: list[int]) -> set[tuple[int, int]]:
        async with running(assets=("BTC",)) as setup:
            setup.venue.faults.refuse(500, path="klines", times=None, rate=0.4)
            hits = set()
            for nth in (1, 2):
                for limit in order:
                    if (await setup.ask("/api/v3/klines", **KLINES, limit=limit))[0] == 500:
                        hits.add((limit, nth))
            return hits

    forwards = await refused(list(range(1, 31)))
    assert forwards == await refused(list(range(30, 0, -1)))
    assert 12 <= len(forwards) <= 36


async def test_wrong_settings_are_refused(setup: Setup) -> None:
    faults = setup.venue.faults
    for call in (
        lambda: faults.refuse(200),
        lambda: faults.refuse(500, rate=1.5),
        lambda: faults.outage(START, START),
        lambda: faults.outage(START, START + 1),
        lambda: faults.outage(START, START + 1000, "NOPEUSDT"),
        lambda: faults.off_grid("1m", START, START + HOUR, 60_000),
        lambda: faults.off_grid("1M", START, START + HOUR, 1),
        lambda: BinanceVenue(setup.venue.world, setup.clock, hosts=0),
    ):
        with pytest.raises(ConfigError):
            call()


# -- slow and torn answers


async def test_slow_answers_and_standing_latency() -> None:
    wall = SystemClock()
    venue = BinanceVenue(World(7, wall, ("BTC",)), wall)
    async with venue, aiohttp.ClientSession() as http:

        async def took() -> float:
            before = wall.io_monotonic()
            async with http.get(venue.endpoints().rest[0] + "/api/v3/ping") as answer:
                assert answer.status == 200
            return wall.io_monotonic() - before

        await took()
        venue.faults.slow(0.2, path="ping")
        assert await took() >= 0.2
        assert await took() < 0.2
        venue.rest.latency_ms = 50
        assert [await took() >= 0.05 for _ in range(3)] == [True] * 3
        before = wall.io_monotonic()
        await asyncio.gather(*(took() for _ in range(8)))
        assert wall.io_monotonic() - before < 0.3  # they wait beside each other


async def test_a_torn_body_with_a_length_or_chunks_is_seen(setup: Setup) -> None:
    for framing in (Framing.LENGTH, Framing.CHUNKED):
        setup.venue.faults.tear(1000, framing=framing)
        async with setup.http.get(setup.rest + "/api/v3/klines", params=KLINES) as answer:
            assert answer.status == 200
            assert ("Content-Length" in answer.headers) == (framing is Framing.LENGTH)
            assert answer.headers["X-MBX-USED-WEIGHT-1M"]
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert len(await setup.klines(**KLINES)) == 500


async def test_a_torn_body_without_either_looks_whole(setup: Setup) -> None:
    path = "/data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-19.zip"
    async with setup.http.get(setup.rest + path) as answer:
        whole = await answer.read()
    for url, count in ((path, 700), (path, 10**9)):
        setup.venue.faults.tear(count, framing=Framing.CLOSE)
        async with setup.http.get(setup.rest + url) as answer:
            assert "Content-Length" not in answer.headers and "Transfer-Encoding" not in answer.headers
            assert await answer.read() == whole[: min(count, len(whole) - 1)]
    assert setup.venue.faults.counts["torn"] == 2


async def test_a_body_may_stall_before_it_is_cut() -> None:
    wall = SystemClock()
    venue = BinanceVenue(World(7, wall, ("BTC",)), wall)
    async with venue, aiohttp.ClientSession() as http:
        venue.faults.tear(5, stall=60.0)
        async with http.get(venue.endpoints().rest[0] + "/api/v3/time") as answer:
            assert await answer.content.read(5) == b'{"ser'
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await answer.content.read(1)
    assert venue.failures == []


# -- the past


def maker(*outages: tuple[int, int]) -> CandleMaker:
    symbol = make_symbol("BTC")
    history = History(symbol)
    for start, end in outages:
        history.add_outage(start, end)
    return CandleMaker(World(7, ManualClock(START), ("BTC",)), symbol, history)


async def test_an_outage_leaves_a_hole_as_the_recorded_one_does(setup: Setup, recordings: Path) -> None:
    """Hours 02 to 05 of 2020-06-28: three candles are absent, the next row jumps, a page is short."""
    page = json.loads((recordings / "binance/rest/btcusdt_1h_page2_outage_gap.json").read_text())
    recorded = [row[0] for row in (page if isinstance(page, list) else page["rows"])]
    hole = next(a for a, b in pairwise(recorded) if b - a > HOUR)
    setup.venue.faults.outage(hole + HOUR, hole + 4 * HOUR)
    query = {"symbol": "BTCUSDT", "startTime": hole - 2 * HOUR, "endTime": hole + 5 * HOUR}
    ours = [row[0] for row in await setup.klines(**query, interval="1h")]
    assert ours == [at for at in recorded if hole - 2 * HOUR <= at <= hole + 5 * HOUR]
    minutes = [row[0] for row in await setup.klines(**query, interval="1m", limit=1000)]
    assert len(minutes) == 421 - 180
    newest = await setup.klines(symbol="BTCUSDT", interval="1m", endTime=hole + 4 * HOUR, limit=3)
    assert [row[0] for row in newest] == [hole + HOUR - 2 * MINUTE, hole + HOUR - MINUTE, hole + 4 * HOUR]
    # Pages bounded by their number of rows go on behind the hole.
    assert len(await setup.klines(symbol="BTCUSDT", interval="1s", startTime=hole + HOUR - 5000, limit=10)) == 10


async def test_an_outage_that_goes_on_stops_the_sockets_and_the_newest_row(setup: Setup) -> None:
    setup.venue.faults.outage(START + 2_000, START + 6_000, "BTCUSDT")
    async with setup.socket("/stream?streams=btcusdt@kline_1s/ethusdt@kline_1s/btcusdt@kline_1m") as ws:
        for _ in range(10):
            await setup.clock.advance(1)
        frames = []
        while len(frames) < 10 + 6 + 3:
            frames.append(await receive(ws))
        await nothing(ws)
    opens = [f["data"]["k"]["t"] - START for f in frames if f["stream"] == "btcusdt@kline_1s"]
    assert opens == [0, 1000, 6000, 7000, 8000, 9000]
    rows = await setup.klines(symbol="BTCUSDT", interval="1s", limit=6)
    assert [row[0] - START for row in rows] == [1000, 6000, 7000, 8000, 9000, 10000]
    minute = [f["data"]["k"] for f in frames if f["stream"] == "btcusdt@kline_1m"][-1]
    known = [f["data"]["k"] for f in frames if f["stream"] == "btcusdt@kline_1s"]
    assert minute["n"] == sum(k["n"] for k in known)


async def test_during_an_outage_the_newest_row_is_the_one_before(setup: Setup) -> None:
    setup.venue.faults.outage(START - 10_000, START + HOUR)
    assert [row[0] for row in await setup.klines(symbol="BTCUSDT", interval="1s", limit=1)] == [START - 11_000]
    assert [row[0] for row in await setup.klines(symbol="BTCUSDT", interval="1m", limit=1)] == [START - MINUTE]
    assert await setup.klines(symbol="BTCUSDT", interval="1m", startTime=START) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-400, 100), st.integers(1, 200)), max_size=5),
    st.sampled_from(["1s", "1m"]),
    st.one_of(st.none(), st.integers(-500, 50)),
    st.one_of(st.none(), st.integers(-500, 50)),
    st.integers(1, 300),
)
def test_rows_are_the_plain_ones_without_the_holes(
    holes: list[tuple[int, int]], interval: str, start: int | None, end: int | None, limit: int
) -> None:
    made = maker(*((START + a * 1000, START + (a + n) * 1000) for a, n in holes))
    now = START + 30_500
    lost = {START // 1000 + a + i for a, n in holes for i in range(n)}

    def there(opened: int) -> bool:
        known = min(now, step(interval, opened, 1))
        return any(second not in lost for second in range(opened // 1000, max(opened // 1000 + 1, -(-known // 1000))))

    first = START + (start if start is not None else -1000) * 1000
    last = min(now, START + end * 1000) if end is not None else now
    length = LENGTHS[interval]
    expected = [at for at in range(-(-first // length) * length, last + 1, length) if there(at)]
    expected = expected[:limit] if start is not None else expected[-limit:]
    us = [None if value is None else (START + value * 1000) * 1000 for value in (start, end)]
    found = opens_between(made.history, interval, us[0], us[1], limit, now)
    if start is None and len(expected) < limit:
        found = [at for at in found if at >= first]
    assert found == expected
    assert all(candle_absent(made.history, interval, at, now) is None for at in found)


def test_the_seconds_around_a_long_outage_cost_no_walk_through_it() -> None:
    day = 86_400_000
    made = maker((START - 30 * day, START))
    wall = SystemClock()
    before = wall.io_monotonic()
    after = made.seconds(START // 1000 - 86_400, START // 1000 + 50)
    assert made.candle("1s", START, START).close > 0
    assert wall.io_monotonic() - before < 0.5
    assert [candle.open_ms for candle in after] == [START + i * 1000 for i in range(51)]
    assert len(opens_between(made.history, "1s", (START - 29 * day) * 1000, None, 5, START)) == 1


async def test_rows_off_the_grid_as_in_february_2018(setup: Setup) -> None:
    shift = 28 * MINUTE + 14_789
    setup.venue.faults.off_grid("1h", START - 5 * HOUR, START - 2 * HOUR, shift)
    query = {"symbol": "BTCUSDT", "interval": "1h"}
    rows = await setup.klines(**query, startTime=START - 6 * HOUR, endTime=START - HOUR)
    assert [row[0] - START for row in rows] == [
        -6 * HOUR,
        *(-h * HOUR + shift for h in (5, 4, 3)),
        -2 * HOUR,
        -HOUR,
    ]
    assert all(row[6] == row[0] + HOUR - 1 for row in rows)
    # The filter is on the open time that shows.
    assert len(await setup.klines(**query, startTime=START - 5 * HOUR + 1, endTime=START - 5 * HOUR + shift)) == 1
    assert await setup.klines(**query, startTime=START - 5 * HOUR, endTime=START - 5 * HOUR + shift - 1) == []
    newest = await setup.klines(**query, endTime=START - 3 * HOUR + shift - 1, limit=1)
    assert newest[0][0] == START - 4 * HOUR + shift
    minutes = await setup.klines(symbol="BTCUSDT", interval="1m", startTime=START - 5 * HOUR, limit=60)
    assert all(row[0] % MINUTE == 0 for row in minutes)


def test_a_shift_shows_in_the_version() -> None:
    history = History(make_symbol("BTC"))
    history.add_shift(Shift("1m", START, START + HOUR, 5))
    assert history.version == 1 and not history.plain


# -- late rows


async def test_a_row_may_change_after_its_end(setup: Setup) -> None:
    await setup.clock.advance(59.6)
    query = {"symbol": "BTCUSDT", "interval": "1m", "startTime": START, "limit": 1}
    setup.venue.rest.settle_ms = 1_500
    early = (await setup.klines(**query))[0]
    assert early[6] < setup.clock.now_ms()  # it looks closed
    await setup.clock.advance(2)
    late = (await setup.klines(**query))[0]
    assert early[:2] == late[:2] and early[8] < late[8]
    setup.venue.rest.settle_ms = 0
    assert (await setup.klines(**query))[0] == late


async def test_kept_rows_are_bounded_and_forgotten_when_the_past_changes(setup: Setup) -> None:
    texts = setup.venue.rest.texts
    texts.kept = 100
    query = {"symbol": "BTCUSDT", "interval": "1s", "endTime": START - 1000, "limit": 200}
    before = await setup.klines(**query)
    assert len(texts._texts) == 100
    assert await setup.klines(**query) == before
    setup.venue.faults.off_grid("1s", START - 100_000, START, 1)
    after = await setup.klines(**query)
    assert after[-1][0] == START - 2000 + 1
    assert after[-1][1:6] == before[-2][1:6]
