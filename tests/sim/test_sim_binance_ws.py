"""The sockets of the local Binance against the sheet of the real ones; the client is plain aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import pytest

from pmkit.sim.binance import streams as streams_module
from tests.sim.binance_client import START, Setup, call, nothing, receive, running, until


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running() as made:
        yield made


async def test_socket_and_rest_tell_the_same_candles(setup: Setup) -> None:
    async with setup.socket("/stream?streams=btcusdt@kline_1s/ethusdt@kline_1m") as ws:
        frames: dict[str, list[Any]] = {"btcusdt@kline_1s": [], "ethusdt@kline_1m": []}
        for _ in range(62):
            await setup.clock.advance(1)
        while len(frames["btcusdt@kline_1s"]) < 62:
            frame = await receive(ws)
            frames[frame["stream"]].append(frame["data"])
    seconds = frames["btcusdt@kline_1s"]
    assert all(frame["k"]["x"] for frame in seconds)
    assert [frame["k"]["t"] for frame in seconds] == [START + 1000 * i for i in range(62)]
    assert all(1 <= frame["E"] - frame["k"]["T"] <= 44 for frame in seconds)
    rows = await setup.klines(symbol="BTCUSDT", interval="1s", startTime=START, limit=62)
    for frame, row in zip(seconds, rows, strict=True):
        k = frame["k"]
        assert [k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"], k["V"], k["Q"]] == row[:11]
    minutes = frames["ethusdt@kline_1m"]
    closed = [frame["k"] for frame in minutes if frame["k"]["x"]]
    assert [k["t"] for k in closed] == [START]
    row = (await setup.klines(symbol="ETHUSDT", interval="1m", startTime=START, limit=1))[0]
    assert [closed[0][field] for field in "ohlcv"] == row[1:6]
    assert 25 <= len([frame for frame in minutes if frame["k"]["t"] == START]) <= 30  # every two seconds


async def test_subscribing_while_connected(setup: Setup) -> None:
    async with setup.socket("/ws") as ws:
        assert await call(ws, {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1s"], "id": 1}) == {
            "result": None,
            "id": 1,
        }
        assert await call(ws, {"method": "LIST_SUBSCRIPTIONS", "id": "three"}) == {
            "result": ["btcusdt@kline_1s"],
            "id": "three",
        }
        await setup.clock.advance(1)
        raw = await receive(ws)
        assert (raw["e"], raw["s"]) == ("kline", "BTCUSDT")
        assert await call(ws, {"method": "GET_PROPERTY", "params": ["combined"], "id": 2}) == {"result": False, "id": 2}
        assert (await call(ws, {"method": "SET_PROPERTY", "params": ["combined", True], "id": None}))["result"] is None
        await setup.clock.advance(1)
        assert (await receive(ws))["stream"] == "btcusdt@kline_1s"
        assert await call(ws, {"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1s"], "id": 4}) == {
            "result": None,
            "id": 4,
        }
        await setup.clock.advance(2)
        await nothing(ws)


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ("{not json", 3, "Invalid JSON"),
        ({"method": "NOPE", "id": 1}, 2, "unknown variant `NOPE`"),
        ({"id": 1}, 2, "missing field `method`"),
        ({"method": "LIST_SUBSCRIPTIONS", "params": ["x"], "id": 1}, 2, "too many parameters"),
        ({"method": "SUBSCRIBE", "params": [1], "id": 1}, 2, "Invalid request"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1s"], "id": 1.5}, 2, "request ID"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "expected Boolean"),
        ({"method": "GET_PROPERTY", "params": ["colour"], "id": 1}, 0, "Unknown property"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}, 2, "not built"),
    ],
)
async def test_bad_socket_requests_are_answered(setup: Setup, request_: Any, code: int, words: str) -> None:
    async with setup.socket("/ws") as ws:
        reply = await call(ws, request_)
    assert reply["code"] == code
    assert words in reply["msg"]


async def test_unknown_symbols_and_upper_case_streams_stay_silent(setup: Setup) -> None:
    """The real venue takes them without a word: a client that forgets to lower-case waits for ever."""
    async with setup.socket("/ws/BTCUSDT@kline_1s") as ws:
        assert (await call(ws, {"method": "SUBSCRIBE", "params": ["nopeusdt@kline_1s"], "id": 1}))["result"] is None
        await setup.clock.advance(3)
        await nothing(ws)


async def test_streams_that_are_not_built_are_refused_by_name_in_the_address(setup: Setup) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await setup.http.ws_connect(f"{setup.ws}/ws/btcusdt@trade")
    assert refused.value.status == 400


async def test_a_request_beyond_4096_bytes_is_ignored_without_an_answer(setup: Setup) -> None:
    params = [f"btcusdt@kline_1s{i:060d}" for i in range(60)]
    async with setup.socket("/ws") as ws:
        await ws.send_json({"method": "SUBSCRIBE", "params": params, "id": 1})
        await nothing(ws)
        assert (await call(ws, {"method": "LIST_SUBSCRIPTIONS", "id": 2}))["result"] == []


async def test_more_than_five_messages_a_second_end_the_connection(setup: Setup) -> None:
    async with setup.socket("/ws") as ws:
        for i in range(5):
            assert (await call(ws, {"method": "LIST_SUBSCRIPTIONS", "id": i}))["id"] == i
        await ws.ping()  # PING frames count
        async with asyncio.timeout(5):
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert setup.venue.server.counts["too_many_messages"] == 1


async def test_messages_spread_over_time_are_fine(setup: Setup) -> None:
    async with setup.socket("/ws") as ws:
        for i in range(20):
            assert (await call(ws, {"method": "LIST_SUBSCRIPTIONS", "id": i}))["id"] == i
            await setup.clock.advance(0.25)


async def pings(setup: Setup, reply: Callable[[Any, bytes], Coroutine[Any, Any, None]]) -> Any:
    """Six server pings, each handled by `reply`; the message that ended it."""
    async with setup.socket("/ws", autoping=False, autoclose=False) as ws:
        for _ in range(6):
            await setup.clock.advance(20)
            async with asyncio.timeout(5):
                message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.PING:
                return message
            session = next(iter(setup.venue.streams.sessions))
            await reply(ws, bytes(message.data))
            await until(partial(lambda session, count: session.received > count, session, session.received))
        return message


async def test_a_server_ping_every_20_s_wants_its_own_payload_back(setup: Setup) -> None:
    assert (await pings(setup, lambda ws, data: ws.pong(data))).type is aiohttp.WSMsgType.PING


async def test_unsolicited_pongs_do_not_keep_the_line(setup: Setup) -> None:
    ended = await pings(setup, lambda ws, data: ws.pong(b"hello"))
    assert ended.type is aiohttp.WSMsgType.CLOSE
    assert setup.venue.server.counts["no_pong"] == 1


async def test_connections_end_after_24_hours(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streams_module.LIFETIME_SECONDS == 24 * 3600
    monkeypatch.setattr(streams_module, "LIFETIME_SECONDS", 30.0)  # a day of candles would take its time
    async with setup.socket("/ws") as ws:
        await setup.clock.advance(29)
        await nothing(ws)
        await setup.clock.advance(2)
        async with asyncio.timeout(5):
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert setup.venue.server.counts["aged"] == 1


async def test_a_shutdown_is_announced_in_both_forms(setup: Setup) -> None:
    async with (
        setup.socket("/ws/btcusdt@kline_1s") as raw,
        setup.socket("/stream?streams=btcusdt@kline_1s") as combined,
    ):
        assert setup.venue.server_shutdown() == 2
        now = setup.clock.now_ms()
        assert await receive(raw) == {"e": "serverShutdown", "E": now}
        assert await receive(combined) == {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": now}}


async def test_silence_loses_frames_and_drops_reset(setup: Setup) -> None:
    async with setup.socket("/ws/btcusdt@kline_1s") as ws:
        setup.venue.faults.silence(5)
        await setup.clock.advance(5)
        await nothing(ws)
        assert (await call(ws, {"method": "LIST_SUBSCRIPTIONS", "id": 1}))["id"] == 1  # replies still come
        await setup.clock.advance(2)
        assert (await receive(ws))["k"]["t"] >= START + 4_000
        assert setup.venue.faults.garbage("{") == 1
        async with asyncio.timeout(5):
            while (message := await ws.receive()).data != "{":
                assert message.type is aiohttp.WSMsgType.TEXT
        assert setup.venue.faults.drop_connections() == 1
        async with asyncio.timeout(5):
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def test_handshakes_can_be_refused_and_are_limited_to_300_in_five_minutes(setup: Setup) -> None:
    setup.venue.faults.reject_handshake(503)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await setup.http.ws_connect(f"{setup.ws}/ws")
    assert refused.value.status == 503
    for _ in range(300):
        setup.venue.limits.connect("127.0.0.1")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await setup.http.ws_connect(f"{setup.ws}/ws")
    assert refused.value.status == 429
    await setup.clock.advance(300)
    async with setup.socket("/ws"):
        pass


async def test_microseconds_on_the_socket(setup: Setup) -> None:
    async with setup.socket("/ws/btcusdt@kline_1s?timeUnit=MICROSECOND") as ws:
        await setup.clock.advance(1)
        k = (await receive(ws))["k"]
    assert (k["t"], k["T"]) == (START * 1000, (START + 1000) * 1000 - 1)


async def test_a_process_that_slept_goes_on_with_the_present(setup: Setup) -> None:
    async with setup.socket("/ws/btcusdt@kline_1s") as ws:
        setup.clock.step_wall(3_600)
        await setup.clock.advance(2)
        assert (await receive(ws))["k"]["t"] > START + 3_500_000
    assert setup.venue.server.counts["slept"] == 1


async def test_the_venue_closes_within_a_second_with_clients_connected() -> None:
    async with running() as setup, setup.socket("/ws/btcusdt@kline_1s"):
        async with asyncio.timeout(1):
            await setup.venue.close()
        await setup.venue.close()
