"""REST against a server on loopback: pages, edges, hosts, limits."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.clock import Clock, ManualClock
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.hosts import ATTEMPTS
from pmkit.data.binance.types import Candle, KlineRow
from pmkit.data.binance.weights import IP_SHARE, UNREAD_LIMIT, WeightBudget
from pmkit.endpoints import Endpoints
from pmkit.errors import (
    ConfigError,
    MarketNotFound,
    NotSent,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from tests.binance.venue import T0, candle, running, tape
from tests.websocket_peers import SkippingClock, fast_clock, until

S = 1000
BLOCKED = (451, json.dumps({"code": 0, "msg": "Service unavailable from a restricted location"}), {})
BANNED = (
    418,
    json.dumps({"code": -1003, "msg": "Way too much request weight used; IP banned until 1."}),
    {"Retry-After": "120"},
)
DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens there


def error(status: int, code: int, **headers: str) -> tuple[int, str, dict[str, str]]:
    return status, json.dumps({"code": code, "msg": "text"}), headers


async def collect(fetcher: BinanceFetcher, start: int, end: int, symbol: str = "BTCUSDT") -> list[KlineRow]:
    return [row async for row in fetcher.klines(symbol, "1s", start, end)]


def opens(rows: list[KlineRow] | list[Candle]) -> list[int]:
    return [row.open_ms if isinstance(row, KlineRow) else row.timestamp for row in rows]


# Rows.


async def test_klines_are_whole_in_order_and_in_the_venues_text() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        start = T0 - 3700 * S
        rows = await collect(fetcher, start, T0 - 200 * S)
        assert opens(rows) == list(range(start, T0 - 200 * S, S))
        assert [[r.open, r.high, r.low, r.close, r.volume] for r in rows[:50]] == [
            tape("BTCUSDT", r.open_ms) for r in rows[:50]
        ]
        assert venue.requests == ["time", *["klines"] * 4]
        assert all(query["limit"] == "1000" for query in venue.queries)


async def test_a_short_page_is_not_the_end() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        # A hole that covers the whole second page and the edges around it.
        first = T0 - 5000 * S
        venue.outage = {first + i * S for i in range(990, 2010)}
        rows = await collect(fetcher, first, first + 4000 * S)
        assert opens(rows) == [first + i * S for i in range(4000) if not 990 <= i < 2010]


@pytest.mark.parametrize(
    ("start", "end", "count"), [(0, 3000, 3), (1, 3000, 2), (0, 2001, 3), (1, 1000, 0), (500, 1500, 1), (5, 5, 0)]
)
async def test_edges_are_half_open_on_the_open_time(start: int, end: int, count: int) -> None:
    base = T0 - 100 * S
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        rows = await collect(fetcher, base + start, base + end)
        assert len(rows) == count
        assert all(base + start <= opened < base + end for opened in opens(rows))


@pytest.mark.parametrize("into", [0, 1, 499, 500, 999])
async def test_md_25_the_forming_candle_is_never_returned(into: int) -> None:
    async with running(now_ms=T0 + into) as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        # What ended less than half a second ago may still be written.
        newest = T0 - S if into >= 500 else T0 - 2 * S
        far = await collect(fetcher, T0 - 5 * S, T0 + 3600 * S)
        assert opens(far) == list(range(T0 - 5 * S, newest + 1, S))
        for before in (None, T0 + S, T0 + 3600 * S):
            warm = await fetcher.warm_up("BTCUSDT", "1s", 4, before)
            assert warm == [candle(newest - i * S) for i in (3, 2, 1, 0)]
        assert opens(await fetcher.warm_up("BTCUSDT", "1s", 2, T0 - 9 * S + 1)) == [T0 - 11 * S, T0 - 10 * S]
        # Known from elsewhere (a live frame): no settling, no question.
        asked = venue.requests.count("time")
        fetcher.note_server_ms(T0)
        assert opens(await fetcher.warm_up("BTCUSDT", "1s", 1, T0)) == [T0 - S]
        assert venue.requests.count("time") == asked


async def test_warm_up_pages_backwards_over_holes() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        venue.outage = {T0 - i * S for i in range(100, 400)}
        warm = await fetcher.warm_up("btcusdt", "1s", 2500, T0 - 10 * S)
        expected = [T0 - i * S for i in range(11, 3000) if not 100 <= i < 400][:2500]
        assert opens(warm) == expected[::-1]
        venue.first_ms = T0 - 50 * S
        assert len(await fetcher.warm_up("BTCUSDT", "1s", 2500, T0 - 10 * S)) == 40


@pytest.mark.parametrize("moment", [1_795_176_000, 1_795_176_000_000_000])
async def test_seconds_instead_of_milliseconds_are_refused_before_anything_is_sent(moment: int) -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        with pytest.raises(ValueError, match="milliseconds"):
            await collect(fetcher, moment, T0)
        with pytest.raises(ValueError, match="milliseconds"):
            await collect(fetcher, T0, moment)
        with pytest.raises(ValueError, match="milliseconds"):
            await fetcher.warm_up("BTCUSDT", "1s", 5, moment)
        assert venue.requests == []


async def test_unknown_names() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        with pytest.raises(MarketNotFound, match="NOPEUSDT"):
            await fetcher.warm_up("NOPEUSDT", "1s", 5)
        with pytest.raises(MarketNotFound, match="NOPEUSDT"):
            await fetcher.require("NOPEUSDT", "1s")
        with pytest.raises(ConfigError, match="2s"):
            await fetcher.warm_up("BTCUSDT", "2s", 5)
        with pytest.raises(ConfigError, match="BTC/USDT"):
            await fetcher.warm_up("BTC/USDT", "1s", 5)
        venue.answers.append(error(400, -1120))
        with pytest.raises(ConfigError, match="1s"):
            await fetcher.require("BTCUSDT", "1s")
        await fetcher.require("BTCUSDT", "1s")


async def test_rows_outside_of_what_was_asked_are_refused() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        await fetcher.server_ms()
        page = json.dumps([venue.row("BTCUSDT", T0 - 99 * S)])
        venue.answers.append((200, page, {}))
        with pytest.raises(ProtocolChanged, match="outside"):
            await collect(fetcher, T0 - 50 * S, T0 - 40 * S)
        page = json.dumps([venue.row("BTCUSDT", T0 + i * S) for i in range(-42, -37)])
        venue.answers.append((200, page, {}))
        assert opens(await fetcher.warm_up("BTCUSDT", "1s", 2, T0 - 40 * S)) == [T0 - 42 * S, T0 - 41 * S]


async def test_leaving_early_leaves_no_request_behind() -> None:
    async with running() as venue:
        fetcher = BinanceFetcher(venue.endpoints(), fast_clock(), in_flight=4)
        pages = fetcher.pages("BTCUSDT", "1s", T0 - 90_000 * S, T0 - S)
        async for page in pages:
            assert len(page) == 1000
            break
        await pages.aclose()
        assert not [task for task in asyncio.all_tasks() if "pmkit binance" in task.get_name()]
        assert len(venue.queries) <= 5
        await fetcher.close()
        await fetcher.close()
        with pytest.raises(NotSent, match="closed"):
            await fetcher.server_ms()


# Hosts.


async def test_451_and_403_are_final_for_a_host_and_remembered() -> None:
    async with running() as us, running() as firewall, running() as good:
        us.always = BLOCKED
        firewall.always = (403, "<html>blocked</html>", {})
        clock = SkippingClock()
        async with BinanceFetcher(us.endpoints(firewall.url, good.url), clock) as fetcher:
            assert len(await collect(fetcher, T0 - 5 * S, T0 - 2 * S)) == 3
            assert len(await collect(fetcher, T0 - 9 * S, T0 - 2 * S)) == 7
            assert len(us.requests) == len(firewall.requests) == 1
            assert set(fetcher.blocked) == {url.partition("//")[2] for url in (us.url, firewall.url)}
            assert clock.sleeps == []
            good.always = BLOCKED
            with pytest.raises(RegionBlocked, match="every REST host"):
                await collect(fetcher, T0 - 9 * S, T0 - 2 * S)
            with pytest.raises(RegionBlocked):
                await collect(fetcher, T0 - 9 * S, T0 - 2 * S)
            assert len(us.requests) == len(firewall.requests) == 1


async def test_a_dead_host_is_left_for_the_next_one() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(first=(DEAD,)), fast_clock()) as fetcher:
        assert len(await fetcher.warm_up("BTCUSDT", "1s", 3)) == 3
        assert len(await fetcher.warm_up("BTCUSDT", "1s", 3)) == 3
        assert not fetcher.blocked


@pytest.mark.parametrize(
    "answer",
    [(502, "<html>", {}), error(503, 0), error(500, -1000), error(408, -1007), error(400, -1001), error(400, -1008)],
)
async def test_busy_venues_are_asked_again_with_growing_waits(answer: tuple[int, str, dict[str, str]]) -> None:
    clock = SkippingClock()
    async with running() as venue, BinanceFetcher(venue.endpoints(), clock) as fetcher:
        venue.answers.extend([answer] * (ATTEMPTS - 1))
        assert await fetcher.server_ms() == T0
        assert [0.8 * base <= wait <= 1.2 * base for wait, base in zip(clock.sleeps, (0.5, 1, 2, 4), strict=True)]
        venue.always = answer
        with pytest.raises(VenueUnavailable):
            await fetcher.server_ms()
        assert len(venue.requests) == 2 * ATTEMPTS


@pytest.mark.parametrize(
    "answer", [error(400, -1100), error(400, -1104), error(404, 0), (200, "[]", {}), (200, "<html>", {})]
)
async def test_what_is_not_understood_is_not_asked_again(answer: tuple[int, str, dict[str, str]]) -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock()) as fetcher:
        venue.always = answer
        with pytest.raises(ProtocolChanged):
            await fetcher.server_ms()
        assert len(venue.requests) == 1


# Limits.


async def test_rs_02_418_stops_everything_on_every_host_until_the_ban_is_over() -> None:
    clock = ManualClock(T0)
    async with running() as venue, running() as other, BinanceFetcher(venue.endpoints(other.url), clock) as fetcher:
        venue.answers.append(BANNED)
        with pytest.raises(RateLimited, match="banned") as caught:
            await fetcher.warm_up("BTCUSDT", "1s", 3)
        assert caught.value.retry_after == 120
        for _ in range(3):
            with pytest.raises(RateLimited, match="nothing was sent"):
                await collect(fetcher, T0 - 5 * S, T0)
        await clock.advance(119)
        with pytest.raises(RateLimited):
            await fetcher.server_ms()
        assert len(venue.requests) == 1 and not other.requests
        await clock.advance(2)
        assert len(await fetcher.warm_up("BTCUSDT", "1s", 3)) == 3


async def test_rs_02_418_in_the_middle_of_a_download_ends_it() -> None:
    async with running() as venue, BinanceFetcher(venue.endpoints(), fast_clock(), in_flight=3) as fetcher:
        await fetcher.server_ms()
        venue.answers.extend([(200, "[]", {}), BANNED])
        with pytest.raises(RateLimited):
            await collect(fetcher, T0 - 80_000 * S, T0 - S)
        sent = len(venue.requests)
        assert sent <= 6
        await asyncio.sleep(0.05)
        assert len(venue.requests) == sent


async def test_rs_01_429_is_waited_out() -> None:
    clock = ManualClock(T0)
    async with running() as venue, BinanceFetcher(venue.endpoints(), clock) as fetcher:
        venue.answers.append(error(429, -1003, **{"Retry-After": "7"}))
        asking = asyncio.ensure_future(fetcher.server_ms())
        await until(lambda: len(venue.requests) == 1)
        for _ in range(13):
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        assert len(venue.requests) == 1
        for _ in range(8):
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        assert await asyncio.wait_for(asking, 3) == T0
        assert len(venue.requests) == 2


async def test_the_weight_of_a_download_stays_below_its_share() -> None:
    clock = ManualClock(T0)
    async with running() as venue, BinanceFetcher(venue.endpoints(), clock, share=0.4, in_flight=4) as fetcher:
        venue.limit, venue.clock = 2000, clock
        venue.rows = lambda query: []  # type: ignore[method-assign]
        download = asyncio.ensure_future(collect(fetcher, T0 - 1_000_000 * S, T0 - S))
        spent: list[int] = []
        for _ in range(60):
            # Wait until nothing more comes without time: whatever the share allows was sent and has arrived.
            quiet, before = 0, -1
            while quiet < 5:
                quiet = quiet + 1 if before == venue.weight else 0
                before = venue.weight
                await asyncio.sleep(0.003)
            spent.append(venue.weight)
            if download.done():
                break
            await clock.advance(5.0)
        assert await asyncio.wait_for(download, 3) == []
        assert fetcher.budget.known and fetcher.budget.limit == 2000
        # 1000 pages are 2000; what lies between two looks came at the earlier one, 60 s are 12 looks.
        windows = [later - earlier for earlier, later in zip([0] * 12 + spent, spent, strict=False)]
        assert max(windows) <= 800
        assert max(windows) >= 780 and len(spent) >= 25, "the limiter held back too much or nothing"
        assert len(venue.queries) == 1000


async def test_what_others_spend_on_this_ip_is_respected() -> None:
    clock = ManualClock(T0)
    async with running() as venue, BinanceFetcher(venue.endpoints(), clock) as fetcher:
        venue.clock = clock
        await fetcher.server_ms()
        venue.used = 5990  # another process
        assert await fetcher.server_ms() == T0
        fetcher.budget.set_limit(6000)
        asking = asyncio.ensure_future(fetcher.server_ms())
        await clock.advance(50)
        await asyncio.sleep(0.01)
        assert len(venue.requests) == 2 and not asking.done()
        await clock.advance(12)
        assert await asyncio.wait_for(asking, 3) == T0


async def test_rs_01_a_burst_of_100_calls_stops_together() -> None:
    clock = ManualClock(T0)
    async with running() as venue, BinanceFetcher(venue.endpoints(), clock, in_flight=8) as fetcher:
        good, stop = (200, f'{{"serverTime":{T0}}}', dict[str, str]()), error(429, -1003, **{"Retry-After": "9"})
        venue.answers.extend([good] * 10 + [stop] * 8)
        calls = [asyncio.ensure_future(fetcher.server_ms()) for _ in range(100)]
        await until(lambda: len(venue.requests) >= 11)
        for _ in range(17):
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        # The first 10 were answered; what was on its way with the 11th is all that came behind it.
        assert len(venue.requests) <= 18
        venue.answers.clear()
        for _ in range(200):
            if all(call.done() for call in calls):
                break
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        assert await asyncio.gather(*calls) == [T0] * 100


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 20]), st.floats(0, 5), st.floats(0, 8), st.floats(0, 1)), max_size=200),
    st.integers(50, 900),
    st.integers(1, 8),
)
def test_no_window_of_a_minute_holds_more_than_the_share(
    script: list[tuple[int, float, float, float]], limit: int, in_flight: int
) -> None:
    """As the venue counts: at some moment between a request's sending and its answer, which may take long."""
    budget = WeightBudget(0.4)
    budget.set_limit(limit)
    now = 0.0
    counted: list[tuple[float, int]] = []
    answers: list[tuple[float, int]] = []
    for weight, pause, latency, share in script:
        sending = now + pause
        while True:
            # Answers that come meanwhile; the next one also where no more may be in flight.
            while answers and (answers[0][0] <= sending or len(answers) >= in_flight):
                now = max(now, answers[0][0])
                budget.answered(answers.pop(0)[1], now)
            now = max(now, sending)
            wait = budget.wait(weight, now, round(now * 1000))
            if wait <= 0:
                break
            sending = now + wait
        budget.spend(weight)
        counted.append((now + latency * share, weight))
        answers = sorted([*answers, (now + latency, weight)])
    for end, _ in counted:
        window = [spent for at, spent in counted if end - 60 < at <= end]
        assert sum(window) <= max(0.4 * limit, 20)


def test_budget_of_the_whole_ip() -> None:
    budget = WeightBudget(0.4)
    assert budget.limit == UNREAD_LIMIT
    budget.observe(int(UNREAD_LIMIT * IP_SHARE), 59_000)
    assert budget.wait(2, 0.0, 59_000) == pytest.approx(2.0)
    assert budget.wait(2, 0.0, 60_001) == 0.0
    budget.observe(10, 58_000)  # an answer that was overtaken
    assert budget.wait(2, 0.0, 59_500) > 0
    budget.observe(10, 61_000)
    assert budget.wait(2, 0.0, 61_500) == 0.0
    for wrong in (0.0, -1.0, 1.1):
        with pytest.raises(ValueError, match="share"):
            WeightBudget(wrong)


def test_settings_are_checked() -> None:
    clock: Clock = fast_clock()
    with pytest.raises(ValueError, match="in flight"):
        BinanceFetcher(Endpoints(), clock, in_flight=0)
    with pytest.raises(ValueError, match="share"):
        BinanceFetcher(Endpoints(), clock, share=2)
