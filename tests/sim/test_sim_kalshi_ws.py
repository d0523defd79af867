"""The socket of the local Kalshi against its page, AsyncAPI file and recordings; the client is plain aiohttp."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from pmkit.sim.engine import MatchingEngine
from pmkit.sim.kalshi.market import count_text, price_text
from pmkit.sim.kalshi.windows import LENGTH_MS
from tests.sim.kalshi_client import ASSETS, NEXT, OPEN, TICKER, Setup, running, sign, until, utc
from tests.sim.openapi import Spec


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


@pytest.fixture
async def calm() -> AsyncIterator[Setup]:
    """With traders who are slow, for tests that let a quarter of an hour pass."""
    async with running(steps=0.2) as made:
        yield made


@pytest.fixture(scope="session")
def asyncapi(recordings: Path) -> Spec:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    return Spec(recordings / "kalshi/spec/asyncapi-2.0.0-2026-08-22.yaml")


class Books:
    """Books kept from frames alone, with the arithmetic of the page."""

    def __init__(self) -> None:
        self.levels: dict[tuple[str, str], dict[int, int]] = {}

    def apply(self, frame: Any) -> None:
        message = frame["msg"]
        if frame["type"] == "orderbook_snapshot":
            for side in ("yes", "no"):
                rows = message.get(f"{side}_dollars_fp", [])
                assert rows != [] or f"{side}_dollars_fp" not in message  # an empty side is left out
                self.levels[message["market_ticker"], side] = {_units(p, 4): _units(c, 2) for p, c in rows}
        elif frame["type"] == "orderbook_delta":
            levels = self.levels[message["market_ticker"], message["side"]]
            price = _units(message["price_dollars"], 4)
            left = levels.pop(price, 0) + _units(message["delta_fp"], 2)
            assert left >= 0
            if left:
                levels[price] = left

    def rows(self, ticker: str) -> dict[str, list[tuple[str, str]]]:
        return {
            side: [
                (price_text(price), count_text(size * 10_000))
                for price, size in sorted(self.levels[ticker, side].items())
            ]
            for side in ("yes", "no")
        }


def _units(text: str, decimals: int) -> int:
    return round(float(text) * 10**decimals)


async def test_snapshot_and_deltas_make_the_venues_book() -> None:
    books = Books()
    both = [TICKER, "KXETH15M-26NOV200715-15"]
    async with running(steps=3) as setup, setup.socket() as ws:
        assert (await ws.call("subscribe", channels=["orderbook_delta"], market_tickers=both))["type"] == "subscribed"
        for _ in range(150):
            await setup.clock.advance(1)
        await ws.drain()
        data = [frame for frame in ws.frames if frame.get("sid")]
        assert [frame["seq"] for frame in data] == list(range(1, len(data) + 1))
        assert len(data) > 300
        for frame in data:
            books.apply(frame)
        for ticker in both:
            assert books.rows(ticker) == setup.venue.book_truth(ticker)
        # Up to the close, when everything is cancelled.
        await setup.clock.advance(600)
        for frame in await ws.drain():
            books.apply(frame)
        assert books.rows(TICKER) == setup.venue.book_truth(TICKER) == {"yes": [], "no": []}


async def test_the_next_market_begins_with_an_empty_snapshot(calm: Setup) -> None:
    books = Books()
    async with calm.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=NEXT)
        first = await ws.receive()
        assert set(first["msg"]) == {"market_ticker", "market_id"}
        await calm.clock.advance(600)
        await calm.clock.advance(30)
        books.apply(first)
        for frame in await ws.drain():
            books.apply(frame)
        assert books.rows(NEXT) == calm.venue.book_truth(NEXT)
        assert all(books.rows(NEXT).values())


async def test_control_replies_use_up_sequence_numbers_as_recorded(setup: Setup, recordings: Path) -> None:
    with gzip.open(recordings / "kalshi/sessions/ws_orderbook_20260701T0231Z_first180s.jsonl.gz", "rt") as file:
        recorded = [json.loads(line) for line in file][:4]
    assert [(frame["type"], frame.get("seq")) for frame in recorded] == [
        ("subscribed", None),
        ("ok", 1),
        ("orderbook_snapshot", 2),
        ("ok", 3),
    ]
    async with setup.socket() as ws:
        first = await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        assert (first["msg"], "seq" in first) == ({"channel": "orderbook_delta", "sid": 1}, False)
        assert (await ws.receive())["seq"] == 1
        again = await ws.call("subscribe", channels=["orderbook_delta"], market_tickers=[NEXT])
        assert {name: again[name] for name in ("type", "sid", "seq", "msg")} == {
            "type": "ok",
            "sid": 1,
            "seq": 2,
            "msg": {"market_tickers": [TICKER, NEXT]},
        }
        assert ((await ws.receive())["type"], ws.frames[-1]["seq"]) == ("orderbook_snapshot", 3)
        gone = await ws.call("update_subscription", sids=[1], action="delete_markets", market_tickers=[TICKER])
        assert (gone["seq"], gone["msg"]) == (4, {"market_tickers": [NEXT]})
        await ws.send("update_subscription", sid=1, action="get_snapshot", market_tickers=[NEXT])
        assert ((await ws.receive())["type"], ws.frames[-1]["seq"]) == ("orderbook_snapshot", 5)
        bad = await ws.call("update_subscription", sid=1, action="turn_round", market_tickers=[NEXT])
        assert (bad["type"], bad["sid"], bad["seq"], bad["msg"]["code"]) == ("error", 1, 6, 13)
        assert (await ws.call("list_subscriptions"))["msg"] == [{"channel": "orderbook_delta", "sid": 1}]
        end = await ws.call("unsubscribe", sids=[1])
        assert (end["type"], end["seq"]) == ("unsubscribed", 7)
        assert (await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER))["msg"]["sid"] == 2
        assert (await ws.receive())["seq"] == 1


async def test_deltas_of_deleted_markets_end(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        await ws.call("update_subscription", sids=[1], action="delete_markets", market_tickers=[TICKER])
        await setup.clock.advance(10)
        assert await ws.drain() == []


async def test_yes_prices_on_demand(setup: Setup) -> None:
    async with setup.socket() as plain, setup.socket() as unified:
        await plain.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        await unified.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER, use_yes_price=True)
        for _ in range(20):
            await setup.clock.advance(1)
        await plain.drain()
        await unified.drain()
        pairs = list(zip(plain.frames[1:-1], unified.frames[1:-1], strict=True))
        assert len(pairs) > 50
        no_side = 0
        for one, two in pairs:
            if one["type"] == "orderbook_snapshot":
                assert one["msg"]["yes_dollars_fp"] == two["msg"]["yes_dollars_fp"]
                own, other = one["msg"]["no_dollars_fp"], two["msg"]["no_dollars_fp"]
                assert [(10_000 - _units(p, 4), c) for p, c in own] == [(_units(p, 4), c) for p, c in other]
            elif one["msg"]["side"] == "no":
                no_side += 1
                assert _units(one["msg"]["price_dollars"], 4) + _units(two["msg"]["price_dollars"], 4) == 10_000
        assert no_side > 5


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("{", 1),
        ("[]", 1),
        ({"id": "one", "cmd": "subscribe"}, 1),
        ({"id": 1, "cmd": "subscribe"}, 2),
        ({"id": 1, "cmd": "subscribe", "params": {}}, 3),
        ({"id": 1, "cmd": "unsubscribe", "params": {}}, 4),
        ({"id": 1, "cmd": "sing", "params": {}}, 5),
        ({"id": 1, "cmd": "unsubscribe", "params": {"sids": [9]}}, 7),
        ({"id": 1, "cmd": "update_subscription", "params": {"sid": 9, "action": "add_markets"}}, 7),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["nope"]}}, 8),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["pyth_value"]}}, 8),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"], "market_tickers": "X"}}, 11),
        (
            {
                "id": 1,
                "cmd": "subscribe",
                "params": {"channels": ["trade"], "market_ticker": "X", "market_tickers": ["Y"]},
            },
            11,
        ),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["ticker"], "market_ids": ["X"]}}, 11),
        ({"id": 1, "cmd": "update_subscription", "params": {"sids": [1, 2], "action": "add_markets"}}, 12),
        ({"id": 1, "cmd": "update_subscription", "params": {"action": "add_markets"}}, 12),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}, 14),
    ],
)
async def test_bad_commands_are_answered_with_their_code(setup: Setup, asyncapi: Spec, command: Any, code: int) -> None:
    async with setup.socket() as ws:
        await ws.ws.send_str(command if isinstance(command, str) else json.dumps(command))
        reply = await ws.receive()
    assert (reply["type"], reply["msg"]["code"]) == ("error", code)
    assert asyncapi.problems(reply, asyncapi.schema("errorResponsePayload")) == []
    assert reply.get("id") == (1 if isinstance(command, dict) and command["id"] == 1 else None)


async def test_every_frame_fits_the_asyncapi_file(calm: Setup, asyncapi: Spec) -> None:
    schemas = {
        "subscribed": "subscribedResponsePayload",
        "unsubscribed": "unsubscribedResponsePayload",
        "ok": "okResponsePayload",
        "orderbook_snapshot": "orderbookSnapshotPayload",
        "orderbook_delta": "orderbookDeltaPayload",
        "ticker": "tickerPayload",
        "trade": "tradePayload",
        "market_lifecycle_v2": "marketLifecycleV2Payload",
        "event_lifecycle": "eventLifecyclePayload",
        "cfbenchmarks_value": "cfbenchmarksValuePayload",
        "cfbenchmarks_value_indexlist": "cfbenchmarksIndexListPayload",
    }
    async with calm.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta", "ticker", "trade"], market_tickers=[TICKER, NEXT])
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        await ws.call("subscribe", channels=["cfbenchmarks_value"], index_ids=["all"])
        await ws.call("update_subscription", sid=5, action="indexlist")
        await ws.call("update_subscription", sid=1, action="add_markets", market_ticker="KXETH15M-26NOV200715-15")
        for _ in range(13):
            await calm.clock.advance(50)
            await ws.drain()
        await ws.call("unsubscribe", sids=[1])
    async with running(utc("2026-11-20T00:00:00+00:00"), steps=1) as night, night.socket() as more:
        await more.call("subscribe", channels=["market_lifecycle_v2"])
        await night.clock.advance(90)  # a day is listed
        await more.drain()
        told = [frame["msg"] for frame in more.frames if frame["type"] == "market_lifecycle_v2"]
        created = [message for message in told if message["event_type"] == "created"]
        assert len(created) == 2 * 96
    seen = set()
    for frame in ws.frames + more.frames:
        if isinstance(frame.get("msg"), list):
            schema = "listSubscriptionsResponsePayload"
        else:
            schema = schemas[frame["type"]]
        assert asyncapi.problems(frame, asyncapi.schema(schema)) == [], frame
        assert isinstance(frame["sending_ts_ms"], int)
        seen.add(frame["type"])
    assert seen == set(schemas)


async def test_prints_on_the_socket_and_over_rest_are_the_same(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["trade"])  # all markets
        for _ in range(100):
            await setup.clock.advance(1)
        prints = [frame for frame in await ws.drain() if frame["type"] == "trade"]
        assert len(prints) > 5
        assert [frame["seq"] for frame in prints] == list(range(1, len(prints) + 1))
        found = (await setup.get("/markets/trades", {"limit": 1000}))["trades"]
        assert [frame["msg"]["trade_id"] for frame in prints] == [trade["trade_id"] for trade in reversed(found)]
        for frame, trade in zip(prints, reversed(found), strict=True):
            for name in ("yes_price_dollars", "no_price_dollars", "count_fp", "taker_outcome_side", "taker_book_side"):
                assert frame["msg"][name] == trade[name]


async def test_the_ticker_shows_the_touch(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["ticker"], market_tickers=[TICKER], send_initial_snapshot=True)
        first = (await ws.receive())["msg"]
        await setup.clock.advance(5)
        frames = await ws.drain()
        assert frames
        assert all("seq" not in frame for frame in frames)
        last = frames[-1]["msg"]
        market = await setup.market()
        for name in ("yes_bid_dollars", "yes_ask_dollars", "yes_bid_size_fp", "yes_ask_size_fp", "volume_fp"):
            assert last[name] == market[name]
        assert first["market_id"] == last["market_id"]


async def test_lifecycle_of_a_window(calm: Setup) -> None:
    async with calm.socket() as ws:
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        await calm.clock.advance(610)
        frames = await ws.drain()
        assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
        told = {
            (frame["msg"]["market_ticker"], frame["msg"]["event_type"]): (frame["msg"], frame["sending_ts_ms"])
            for frame in frames
        }
        assert set(told) == {
            (ticker.replace("BTC", asset), kind)
            for asset in ASSETS
            for ticker, kind in ((TICKER, "determined"), (TICKER, "settled"), (NEXT, "metadata_updated"))
        }
        market, following = await calm.market(), await calm.market(NEXT)
        assert told[TICKER, "determined"][0]["result"] == market["result"]
        assert told[NEXT, "metadata_updated"][0]["floor_strike"] == following["floor_strike"]
        close = OPEN + LENGTH_MS
        assert 600 < told[NEXT, "metadata_updated"][1] - close < 900
        assert 3_900 < told[TICKER, "settled"][1] - close < 4_100


async def test_the_index_ends_in_the_settlement_value(calm: Setup) -> None:
    async with calm.socket() as ws:
        await ws.call("subscribe", channels=["cfbenchmarks_value"], index_ids=["BRTI"])
        await calm.clock.advance(602)
        frames = await ws.drain()
        assert {frame["msg"]["index_id"] for frame in frames} == {"BRTI"}
        ticks = [json.loads(frame["msg"]["data"])["time"] for frame in frames]
        assert ticks == list(range(ticks[0], ticks[0] + 1000 * len(ticks), 1000))
        close = OPEN + LENGTH_MS
        sizes = {
            tick - close: frame["msg"].get("last_60s_windowed_average_15min", {}).get("window_size")
            for tick, frame in zip(ticks, frames, strict=True)
        }
        assert sizes[-60_000] is None  # the start is left out, the close taken in
        assert [sizes[-59_000], sizes[-46_000], sizes[-1_000], sizes[0]] == [1, 14, 59, 60]
        assert sizes[1_000] is None
        last = frames[ticks.index(close)]["msg"]
        values = [float(json.loads(frame["msg"]["data"])["value"]) for frame in frames]
        place = ticks.index(close)
        mean = math.fsum(values[place - 59 : place + 1]) / 60
        assert float(last["last_60s_windowed_average_15min"]["value"]) == pytest.approx(mean, abs=1e-8)
        assert last["avg_60s_data"]["window_size"] == 60
        trailing = math.fsum(values[place - 60 : place]) / 60
        assert float(last["avg_60s_data"]["value"]) == pytest.approx(trailing, abs=1e-8)
        await calm.clock.advance(10)
        assert (await calm.market())["expiration_value"] == f"{round(mean, 2):.2f}"


async def test_indices_are_added_and_taken_away(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["cfbenchmarks_value"])
        await setup.clock.advance(2)
        assert await ws.drain() == []
        listed = await ws.call("update_subscription", sid=1, action="indexlist")
        assert listed["msg"]["index_ids"] == ["BRTI", "ETHUSD_RTI"]
        missing = await ws.call("update_subscription", sid=1, action="subscribe_indices")
        assert missing["msg"]["code"] == 24
        await ws.call("update_subscription", sid=1, action="subscribe_indices", index_ids=["ETHUSD_RTI"])
        await setup.clock.advance(2)
        assert {frame["msg"]["index_id"] for frame in await ws.drain()} == {"ETHUSD_RTI"}
        await ws.call("update_subscription", sid=1, action="unsubscribe_indices", index_ids=["ETHUSD_RTI"])
        await setup.clock.advance(2)
        assert await ws.drain() == []


async def test_account_channels_can_be_asked_for_and_stay_silent(setup: Setup) -> None:
    async with setup.socket() as ws:
        reply = await ws.call("subscribe", channels=["fill", "user_orders", "market_positions"])
        assert (reply["type"], reply["msg"]["channel"]) == ("subscribed", "fill")
        assert [(await ws.receive())["msg"]["channel"] for _ in range(2)] == ["user_orders", "market_positions"]
        await setup.clock.advance(5)
        assert await ws.drain() == []


async def test_compression_is_used_when_the_client_offers_it(setup: Setup) -> None:
    for offered in (0, 15):
        async with setup.socket(compress=offered) as ws:
            assert ws.ws.compress == offered
            await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
            assert len((await ws.receive())["msg"]["yes_dollars_fp"]) > 5


async def test_heartbeats_every_ten_seconds(setup: Setup) -> None:
    url = setup.venue.endpoints().ws
    headers = sign(setup.venue.key, setup.clock.now_ms(), "GET", urlsplit(url).path)
    async with setup.http.ws_connect(url, headers=headers, autoping=False) as ws:
        await until(lambda: len(setup.venue.server.sessions) == 1)
        await setup.clock.advance(10.1)
        async with asyncio.timeout(30):
            message = await ws.receive()
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PING, b"heartbeat")


# -- scripted faults of the socket


async def test_a_skipped_delta_is_a_gap_and_a_duplicate_repeats_a_number(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        await ws.receive()
        setup.venue.faults.arm("skip_delta")
        await setup.clock.advance(3)
        numbers = [frame["seq"] for frame in await ws.drain()]
        assert numbers[0] == 3
        assert numbers == list(range(3, 3 + len(numbers)))
        setup.venue.faults.arm("duplicate_frame")
        await setup.clock.advance(3)
        frames = await ws.drain()
        assert frames[0] == frames[1]
        assert frames[2]["seq"] == frames[1]["seq"] + 1


@pytest.mark.parametrize("code", [10, 25])
async def test_codes_10_and_25_end_the_subscription(setup: Setup, code: int) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta", "trade"], market_ticker=TICKER)
        await setup.clock.advance(1)
        assert setup.venue.overflow(code) == 1
        while (frame := await ws.receive())["type"] != "error":
            last = frame
        assert (frame["sid"], frame["msg"]["code"]) == (1, code)
        assert last["type"] == "trade" or frame["seq"] == last["seq"] + 1
        assert (await ws.call("list_subscriptions"))["msg"] == [{"channel": "trade", "sid": 2}]
        assert (await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER))["msg"]["sid"] == 3


async def test_silence_loses_data_but_answers_commands(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        last = (await ws.receive())["seq"]
        setup.venue.faults.silence(20)
        await setup.clock.advance(19)
        assert await ws.drain() == []
        await setup.clock.advance(5)
        assert (await ws.drain())[0]["seq"] > last + 10
        assert setup.venue.faults.drop_connections() == 1
        async with asyncio.timeout(30):
            ended = await ws.ws.receive()
        assert ended.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def test_a_pause_stops_trading_and_its_end_empties_the_book(setup: Setup) -> None:
    async with setup.socket() as ws:
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        setup.venue.pause()
        assert (await setup.market())["status"] == "inactive"
        assert await setup.tickers(status="paused") == [TICKER, "KXETH15M-26NOV200715-15"]
        status = await setup.get("/exchange/status")
        assert status["trading_active"]  # shard 0 speaks at the top
        assert not status["exchange_index_statuses"][2]["trading_active"]
        await setup.clock.advance(1)
        before = setup.venue.book_truth(TICKER)
        await setup.clock.advance(20)
        assert setup.venue.book_truth(TICKER) == before  # nobody trades, orders rest
        setup.venue.pause(False)
        assert setup.venue.book_truth(TICKER) == {"yes": [], "no": []}
        assert (await setup.market())["status"] == "active"
        await setup.clock.advance(10)
        assert any(setup.venue.book_truth(TICKER).values())
        kinds = [frame["msg"]["event_type"] for frame in await ws.drain()]
        assert kinds == ["deactivated"] * 2 + ["activated"] * 2


async def test_memory_stays_flat_over_many_windows() -> None:
    async with running(steps=0.05) as setup:
        await setup.clock.advance(3 * 3600)
        assert len(setup.venue._life.live) == len(ASSETS)
        assert len(setup.venue._tasks) < 10
        engines = [live.engine for live in setup.venue._life.live.values()]
        assert all(isinstance(engine, MatchingEngine) for engine in engines)


async def test_the_venue_closes_within_a_second_with_clients_connected() -> None:
    async with running() as setup, setup.socket() as ws:
        await ws.call("subscribe", channels=["orderbook_delta"], market_ticker=TICKER)
        async with asyncio.timeout(1):
            await setup.venue.close()
        await setup.venue.close()
