"""The live feed against a venue on loopback: seams, cuts, silences, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pmkit.clock import Clock, ManualClock
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.kline_ws import RENEW_SECONDS
from pmkit.data.binance.types import CandleEvent
from pmkit.endpoints import BinanceEndpoints, Endpoints
from pmkit.errors import ConfigError, MarketNotFound, RegionBlocked, VenueUnavailable
from tests.binance.venue import FORMING, T0, Venue, candle, running
from tests.websocket_peers import fast_clock, until

pytestmark = pytest.mark.virtual_time

S = 1000
M = 60 * S


async def subscribed(venue: Venue, connections: int = 1) -> None:
    await until(lambda: len(venue.sockets) >= connections and venue.last.streams, what="a subscription")


@contextlib.asynccontextmanager
async def live(venue: Venue, *symbols: str, clock: Clock | None = None, size: int = 10) -> AsyncIterator[BinanceFeed]:
    """A feed that is warmed up; the candle of T0 was the first one live. Fails when it leaves a task behind."""
    before = asyncio.all_tasks()
    symbols = symbols or ("BTCUSDT",)
    feed = BinanceFeed(venue.endpoints(), clock or fast_clock(), symbols, venue.interval, size)
    starting = asyncio.ensure_future(feed.start())
    try:
        await subscribed(venue)
        await both(venue, symbols)
        await asyncio.wait_for(starting, 8)
        yield feed
    finally:
        begin = asyncio.get_running_loop().time()
        await feed.close()
        await feed.close()
        assert asyncio.get_running_loop().time() - begin < 1.0, "close() took longer than a second"
        await asyncio.sleep(0)
        left = {task for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}
        assert not left, f"tasks left behind: {left}"


async def both(venue: Venue, symbols: tuple[str, ...] | list[str]) -> None:
    """One candle of every symbol."""
    opened = venue.now_ms // venue.length * venue.length
    venue.now_ms = opened + venue.length
    for symbol in symbols:
        await venue.last.send(venue.frame(symbol, opened))


def opens(feed: BinanceFeed, symbol: str = "BTCUSDT") -> list[int]:
    return [(c.timestamp - T0) // venue_length(feed) for c in feed.candles(symbol)]


def venue_length(feed: BinanceFeed) -> int:
    return {"1s": S, "1m": M}[feed.interval]


def assert_true_candles(feed: BinanceFeed, symbol: str = "BTCUSDT") -> None:
    for entry in feed.candles(symbol):
        assert entry == candle(entry.timestamp, symbol)


# The seam.


@pytest.mark.parametrize("offset", range(-3, 4))
async def test_md_26_seam_at_every_offset(offset: int) -> None:
    """The newest row of the first REST page lies `offset` candles after the one before the first live candle."""
    async with running() as venue:
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"], size=20)
        events: list[CandleEvent] = []
        await feed.subscribe_candles(events.append)
        ahead = offset

        async def move_on() -> None:
            nonlocal ahead
            if venue.queries[-1]["limit"] != "20":
                return
            while ahead > 0:
                ahead -= 1
                await venue.tick()

        venue.before_klines = move_on
        if offset < 0:
            venue.lag_ms, venue.lag_reads = (1 - offset) * S, 3
        starting = asyncio.ensure_future(feed.start())
        await subscribed(venue)
        await venue.tick()
        await asyncio.wait_for(starting, 8)
        await venue.tick(count=3)
        newest = 3 + max(offset, 0)
        await until(lambda: feed.candles("BTCUSDT").last == candle(T0 + newest * S))
        assert opens(feed) == list(range(newest - 19, newest + 1))
        assert_true_candles(feed)
        assert [event.candle.timestamp for event in events] == [T0 + i * S for i in range(newest + 1)]
        assert feed.gaps("BTCUSDT") == [] and feed.stats.differing == 0
        await feed.close()


async def test_md_26_a_newest_row_that_never_comes_is_marked_as_a_hole(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as venue:
        venue.lag_ms = 4 * S
        async with live(venue) as feed:
            assert opens(feed) == [*range(-11, -2), 0]
            assert [(h.first_ms, h.last_ms, h.missing) for h in feed.gaps("BTCUSDT")] == [(T0 - 2 * S, T0 - S, 2)]
            assert feed.stats.lost == 2
            reads = sum(query.get("limit") == "10" for query in venue.queries)
            assert reads == 5  # and once more after 0.25, 0.5, 1 and 2 s
    assert "2 candles of BTCUSDT" in caplog.text


async def test_frames_before_the_warm_up_is_read_wait_for_it() -> None:
    async with running() as venue:
        gate = asyncio.Event()
        venue.before_klines = gate.wait
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"], size=10)
        starting = asyncio.ensure_future(feed.start())
        await subscribed(venue)
        for _ in range(5):
            await venue.tick()
        await until(lambda: feed.socket_stats.data_frames == 5)
        assert len(feed.candles("BTCUSDT")) == 0 and not starting.done()
        gate.set()
        await asyncio.wait_for(starting, 8)
        assert opens(feed) == list(range(-5, 5))
        await feed.close()


# Live.


async def test_candles_reach_buffer_and_subscribers() -> None:
    async with running() as venue, live(venue, "BTCUSDT", "ETHUSDT") as feed:
        plain: list[CandleEvent] = []
        only_eth: list[CandleEvent] = []
        later: list[CandleEvent] = []

        async def slowly(event: CandleEvent) -> None:
            await asyncio.sleep(0)
            later.append(event)

        def broken(event: CandleEvent) -> None:
            raise RuntimeError("a strategy's mistake")

        bad = await feed.subscribe_candles(broken)
        await feed.subscribe_candles(plain.append)
        await feed.subscribe_candles(only_eth.append, symbols=["ethusdt"])
        await feed.subscribe_candles(slowly)
        reader = await feed.subscribe_candles()
        await both(venue, feed.symbols)
        await both(venue, feed.symbols)
        await until(lambda: len(plain) == len(later) == 4)
        assert plain == later and [event.symbol for event in only_eth] == ["ETHUSDT"] * 2
        assert bad.stats.errors == 4
        first = await anext(reader)
        assert first == plain[0]
        assert first.candle == candle(T0 + S) and first.live and first.interval == "1s"
        assert first.venue_ms == T0 + 2 * S + 3 and first.received_ns > 0
        await reader.close()
        assert opens(feed, "ETHUSDT") == opens(feed, "BTCUSDT") == list(range(-7, 3))
        assert feed.candles("btcusdt") is feed.candles("BTCUSDT")
        with pytest.raises(ConfigError, match="SOLUSDT"):
            feed.candles("SOLUSDT")
        with pytest.raises(ConfigError, match="SOLUSDT"):
            await feed.subscribe_candles(plain.append, symbols=["SOLUSDT"])


async def test_readers_that_never_read_do_not_stop_the_feed() -> None:
    """A queue of 100 that ended the stream when it was full (python-binance issues 1016, 1295, 1647)."""
    async with running() as venue, live(venue, "BTCUSDT") as feed:
        stuck = asyncio.Event()

        async def hangs(event: CandleEvent) -> None:
            await stuck.wait()

        seen: list[CandleEvent] = []
        idle = await feed.subscribe_candles()
        behind = await feed.subscribe_candles(hangs)
        idle._limit = behind._limit = 5
        await feed.subscribe_candles(seen.append)
        for _ in range(20):
            await venue.tick()
        await until(lambda: len(seen) == 20)
        assert feed.candles("BTCUSDT").last_ms == seen[-1].candle.timestamp == venue.now_ms - S
        assert feed.gaps("BTCUSDT") == []
        assert idle.stats.dropped == 15 and behind.stats.dropped > 0
        stuck.set()


async def test_the_venues_limits_of_subscribing() -> None:
    async with running() as venue, live(venue, "BTCUSDT", "ETHUSDT") as feed:
        assert venue.last.streams == ["btcusdt@kline_1s", "ethusdt@kline_1s"]
        assert len(venue.last.texts) == 1 and json.loads(venue.last.texts[0])["method"] == "SUBSCRIBE"
        assert feed.connected


async def test_md_25_only_closed_candles_are_stored() -> None:
    async with running("1m") as venue, live(venue) as feed:
        opened = venue.now_ms
        for price in ("776.0", "777.0"):
            await venue.last.send(venue.frame("BTCUSDT", opened, closed=False, c=price))
        await until(lambda: (seen := feed.open_candle("BTCUSDT")) is not None and seen.close == 777.0)
        assert opens(feed) == list(range(-9, 1))
        await venue.tick()
        await until(lambda: opens(feed) == list(range(-8, 2)))
        assert feed.open_candle("BTCUSDT") is None
        assert_true_candles(feed)


async def test_md_25_closed_flag_lost_across_a_reconnect() -> None:
    async with running("1m") as venue, live(venue) as feed:
        opened = venue.now_ms
        await venue.last.send(venue.frame("BTCUSDT", opened, closed=False))
        await until(lambda: feed.open_candle("BTCUSDT") is not None)
        venue.last.cut()
        await until(lambda: feed.open_candle("BTCUSDT") is None)
        venue.now_ms += M + 500  # its last update is lost
        await subscribed(venue, 2)
        await venue.last.send(venue.frame("BTCUSDT", opened + M, closed=False))
        await until(lambda: feed.candles("BTCUSDT").last_ms == opened)
        assert_true_candles(feed)
        assert not any(entry.close == float(FORMING) for entry in feed.candles("BTCUSDT"))


async def test_a_slow_interval_warms_up_on_an_open_frame() -> None:
    async with running("1m", T0 + 20 * S) as venue:
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"], "1m", 10)
        starting = asyncio.ensure_future(feed.start())
        await subscribed(venue)
        await venue.last.send(venue.frame("BTCUSDT", T0, closed=False))
        await asyncio.wait_for(starting, 8)
        assert opens(feed) == list(range(-10, 0))
        await feed.close()


async def test_duplicates_order_and_other_values(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as venue, live(venue) as feed:
        say = venue.last.send
        venue.now_ms = T0 + 5 * S
        await say(venue.frame("BTCUSDT", T0 + S))
        await say(venue.frame("BTCUSDT", T0 + S))
        await say(venue.frame("BTCUSDT", T0 + S, v="9.0"))
        await say(venue.frame("BTCUSDT", T0 - 2 * S))
        await say(venue.frame("BTCUSDT", T0 + 4 * S))  # two and three are skipped
        await say(venue.frame("BTCUSDT", T0 + 3 * S))
        await until(lambda: opens(feed) == list(range(-5, 5)))
        assert_true_candles(feed)
        stats = feed.stats
        assert stats.differing == 1 and stats.duplicates >= 2 and stats.lost == 0
    assert "other values" in caplog.text


async def test_garbage_and_unknown_frames_are_counted_and_survived() -> None:
    async with running() as venue, live(venue) as feed:
        for text in ("", "{", "[]", '{"e":"kline"}', '{"e":"newThing"}', '{"u":1,"s":"BTCUSDT"}'):
            await venue.last.send(text)
        await venue.last.send(venue.frame("SOLUSDT", T0 + S))
        await venue.last.send(venue.frame("BTCUSDT", T0 + S, i="1m"))
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 1)
        stats = feed.socket_stats
        assert stats.garbage == 4 and stats.callback_errors == 0
        assert set(stats.unknown) == {"newThing", "(no event type)", "kline SOLUSDT 1s", "kline BTCUSDT 1m"}
        assert len(venue.sockets) == 1


# Losses.


async def test_md_24_a_cut_loses_no_candle() -> None:
    async with running() as venue, live(venue, size=30) as feed:
        events: list[CandleEvent] = []
        await feed.subscribe_candles(events.append)
        for _ in range(3):
            connections = len(venue.sockets)
            await venue.tick(count=2)
            await until(lambda: feed.candles("BTCUSDT").last_ms == venue.now_ms - S)
            venue.last.cut()
            venue.now_ms += 3 * S  # nobody hears of these
            await subscribed(venue, connections + 1)
            assert feed.candles("BTCUSDT").last_ms == venue.now_ms - 4 * S  # unchanged, readable
            await venue.tick()
            await until(lambda: feed.candles("BTCUSDT").last_ms == venue.now_ms - S)
        assert [(event.candle.timestamp - T0) // S for event in events] == list(range(1, 19))
        assert [event.live for event in events[:6]] == [True, True, False, False, False, True]
        assert_true_candles(feed)
        assert not feed.gaps("BTCUSDT") and feed.stats.filled == 9


async def test_md_24_server_shutdown_renews_at_once_without_a_gap() -> None:
    async with running() as venue, live(venue) as feed:
        events: list[int] = []
        await feed.subscribe_candles(lambda event: events.append((event.candle.timestamp - T0) // S))
        old = venue.last
        notice = {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": venue.now_ms}}
        await old.send(json.dumps(notice))
        await subscribed(venue, 2)
        opened = venue.now_ms
        venue.now_ms += S
        for socket in (old, venue.last):  # both bring the next one
            await socket.send(venue.frame("BTCUSDT", opened))
        await until(lambda: old.ended)
        await venue.tick(count=2)
        await until(lambda: events == [1, 2, 3])
        stats = feed.socket_stats
        assert stats.renewals == 1 and stats.disconnects == 0 and stats.unknown == {}
        assert feed.stats.lost == 0


async def test_md_24_renewal_before_the_venue_cuts_at_24_hours() -> None:
    clock = ManualClock(T0)
    async with running("1m") as venue, live(venue, clock=clock) as feed:
        await clock.advance(RENEW_SECONDS - 60)
        await asyncio.sleep(0.01)
        assert len(venue.sockets) == 1
        await clock.advance(61)
        await subscribed(venue, 2)
        await until(lambda: feed.socket_stats.renewals == 1)
        assert RENEW_SECONDS == 23 * 3600 + 50 * 60
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 1)
        assert feed.socket_stats.disconnects == 0


async def test_md_01_a_silent_socket_is_replaced_and_what_it_kept_back_is_read() -> None:
    clock = ManualClock(T0)
    async with running() as venue, live(venue, clock=clock) as feed:
        venue.now_ms += 5 * S  # pings are answered, candles do not come
        await clock.advance(4.9)
        assert feed.connected
        await clock.advance(0.2)
        assert not feed.connected and feed.socket_stats.silences == 1
        await clock.advance(1.3)
        await subscribed(venue, 2)
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 6)
        assert opens(feed) == list(range(-3, 7))


async def test_one_stream_of_two_that_stops_is_a_fault_of_the_connection() -> None:
    async with running() as venue, live(venue, "BTCUSDT", "ETHUSDT", size=20) as feed:
        for _ in range(7):
            await venue.tick()  # BTCUSDT alone
        await until(lambda: "ETHUSDT has stopped" in feed.socket_stats.last_reason)
        await subscribed(venue, 2)
        await both(venue, feed.symbols)
        await until(lambda: opens(feed, "ETHUSDT") == opens(feed, "BTCUSDT") == list(range(-11, 9)))
        assert_true_candles(feed, "ETHUSDT")


# Gaps that cannot be closed.


async def test_an_outage_of_the_venue_is_logged_once_and_passed() -> None:
    async with running() as venue, live(venue) as feed:
        venue.outage = {T0 + i * S for i in range(2, 5)}
        await venue.tick()
        venue.now_ms = T0 + 6 * S
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 6)
        assert opens(feed) == [*range(-6, 2), 5, 6]
        gap = feed.gaps("BTCUSDT")
        assert [(h.first_ms, h.last_ms, h.missing, h.reason) for h in gap] == [
            (T0 + 2 * S, T0 + 4 * S, 3, "not at the venue")
        ]
        asked = len(venue.queries)
        await venue.tick(count=3)
        await until(lambda: opens(feed)[-1] == 9)
        assert len(venue.queries) == asked, "live data is never asked for over REST"


async def test_rest_that_is_down_holds_live_candles_back_for_a_while_only(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as venue, live(venue) as feed:
        venue.always = (503, "", {})
        venue.now_ms += S
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 2)
        assert [(h.missing, h.reason) for h in feed.gaps("BTCUSDT")] == [(1, "not read: VenueUnavailable")]
        assert feed.stats.failures == 3
        venue.always = None
        venue.now_ms += S
        await venue.tick()
        await until(lambda: opens(feed)[-2:] == [3, 4])
    assert "503" in caplog.text


async def test_a_ban_is_not_answered_with_more_requests() -> None:
    async with running() as venue, live(venue) as feed:
        venue.always = (418, '{"code":-1003,"msg":"banned"}', {"Retry-After": "300"})
        asked = len(venue.requests)
        venue.now_ms += S
        await venue.tick()
        await until(lambda: opens(feed)[-1] == 2)
        assert len(venue.requests) == asked + 1
        assert feed.gaps("BTCUSDT")[0].reason == "not read: RateLimited"


async def test_a_long_back_fill_does_not_stop_the_reader() -> None:
    async with running() as venue, live(venue) as feed:
        gate = asyncio.Event()
        venue.before_klines = gate.wait
        venue.now_ms += S
        for _ in range(30):
            await venue.tick()
        await until(lambda: feed.socket_stats.data_frames >= 31)
        assert opens(feed)[-1] == 0
        gate.set()
        await until(lambda: opens(feed) == list(range(22, 32)))
        assert_true_candles(feed)


# A start that fails.


async def test_an_unknown_symbol_is_named() -> None:
    async with running() as venue:
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT", "NOPEUSDT"])
        with pytest.raises(MarketNotFound, match="NOPEUSDT"):
            await asyncio.wait_for(feed.start(), 5)
        with pytest.raises(VenueUnavailable, match="closed"):
            await feed.start()


async def test_a_region_that_is_blocked_is_final() -> None:
    async with running() as venue:
        venue.always = (451, '{"code":0,"msg":"restricted location"}', {})
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"])
        with pytest.raises(RegionBlocked):
            await asyncio.wait_for(feed.start(), 5)


@pytest.mark.parametrize(
    ("what", "says"), [("silent", "the stream says nothing"), ("no rest", "503"), ("nothing", "no connection")]
)
async def test_a_start_that_does_not_succeed_says_what_is_missing(what: str, says: str) -> None:
    async with running() as venue:
        endpoints = venue.endpoints()
        if what == "nothing":
            # REST is there, the sockets are not.
            endpoints = Endpoints(binance=BinanceEndpoints(rest=endpoints.binance.rest, ws=("ws://127.0.0.1:9",)))
        feed = BinanceFeed(endpoints, fast_clock(factor=10.0), ["BTCUSDT"])

        async def break_rest() -> None:
            await until(lambda: venue.queries)
            venue.always = (503, "", {})
            await subscribed(venue)
            await venue.tick()

        breaking = asyncio.ensure_future(break_rest()) if what == "no rest" else None
        with pytest.raises(VenueUnavailable, match=says) as caught:
            await feed.start(timeout=1.6 if what == "no rest" else 0.3)
        assert "BTCUSDT" in str(caught.value)
        if breaking is not None:
            await breaking


async def test_closing_while_it_starts() -> None:
    async with running() as venue:
        feed = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"])
        starting = asyncio.ensure_future(feed.start())
        await subscribed(venue)
        await feed.close()
        with pytest.raises(VenueUnavailable, match="closed while it started"):
            await starting
        unstarted = BinanceFeed(venue.endpoints(), fast_clock(), ["BTCUSDT"])
        await unstarted.close()
        with pytest.raises(VenueUnavailable, match="closed"):
            await unstarted.subscribe_candles()


async def test_two_starts_and_a_shared_fetcher() -> None:
    async with running() as venue:
        clock = fast_clock()
        async with BinanceFetcher(venue.endpoints(), clock) as fetcher:
            feed = BinanceFeed(venue.endpoints(), clock, ["BTCUSDT"], fetcher=fetcher)
            starts = asyncio.gather(feed.start(), feed.start())
            await subscribed(venue)
            await venue.tick()
            await asyncio.wait_for(starts, 8)
            assert len(feed.candles("BTCUSDT")) == 900
            await feed.start()
            await feed.close()
            assert await fetcher.server_ms() == venue.now_ms


async def test_a_refused_subscription_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as venue:
        endpoints = venue.endpoints()

        async def refuse(self: Any, text: str) -> None:
            self.streams += ["refused"]
            await self.send(json.dumps({"code": 2, "msg": "Invalid request", "id": json.loads(text)["id"]}))

        monkeypatch.setattr("tests.binance.venue.Socket.on_text", refuse)
        feed = BinanceFeed(endpoints, fast_clock(), ["BTCUSDT"])
        with caplog.at_level(logging.ERROR), pytest.raises(VenueUnavailable, match="Invalid request"):
            await feed.start(timeout=0.3)
        assert feed.stats.refused == 1 and "refused a subscription" in caplog.text


def test_settings_are_checked() -> None:
    clock = fast_clock()
    for symbols, interval in (([], "1s"), (["BTC/USDT"], "1s"), (["BTCUSDT"], "7s")):
        with pytest.raises(ConfigError):
            BinanceFeed(Endpoints(), clock, symbols, interval)
