"""Live prices of the local Polymarket: login, snapshots, numbers without gaps, and the average that settles."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import aiohttp

from pmkit.sim.polymarket import prices
from tests.sim.polymarket_client import Bench
from tests.sim.polymarket_trader import Trader


class Link:
    """A connection to the live prices."""

    def __init__(self, bench: Bench, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.bench = bench
        self.ws = ws
        self.data: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, bench: Bench, *, login: bool = True) -> Link:
        ws = await bench.http.ws_connect(bench.venue.endpoints().live_ws)
        bench.sockets.append(ws)
        link = cls(bench, ws)
        if login:
            key = Trader(bench).test.api_key
            auth = {"apiKey": key.key, "secret": key.secret, "passphrase": key.passphrase}
            assert await link.ask(op="auth", auth=auth) == [{"op": "authed", "rid": "7"}]
        return link

    async def ask(self, answers: int = 1, **request: Any) -> list[dict[str, Any]]:
        """Send one request and read until so many answers to it came."""
        await self.ws.send_json({"rid": "7", **request})
        got: list[dict[str, Any]] = []
        async with asyncio.timeout(3):
            while len(got) < answers:
                frame = json.loads(await self.ws.receive_str())
                (self.data if "v" in frame else got).append(frame)
        return got

    async def subscribe(self, *subscriptions: dict[str, Any]) -> list[dict[str, Any]]:
        return await self.ask(len(subscriptions), op="subscribe", subscriptions=list(subscriptions))

    async def settle(self) -> list[dict[str, Any]]:
        assert (await self.ask(op="ping"))[0]["op"] == "pong"
        return self.data


def spot(symbol: str = "btcusd", **more: Any) -> dict[str, Any]:
    return {"channel": "price.crypto", "filter": {"symbol": symbol, **more}}


def average(symbol: str = "btcusd", window: int = 60) -> dict[str, Any]:
    return {"channel": "price.crypto.twap", "filter": {"symbol": symbol, "window_seconds": window}}


async def test_snapshot_then_one_price_a_second_without_gaps(still: Bench) -> None:
    link = await Link.open(still)
    answers = await link.subscribe(spot(), average())
    assert [(row["op"], row["channel"]) for row in answers] == [
        ("subscribed", "price.crypto"),
        ("subscribed", "price.crypto.twap"),
    ]
    await still.advance(5)
    frames = await link.settle()
    world = still.venue.world
    for channel, exact in (("price.crypto", world.price), ("price.crypto.twap", world.twap60)):
        snapshot, *updates = [frame for frame in frames if frame["channel"] == channel]
        assert snapshot["snapshot"] is True
        assert len(snapshot["payload"]["data"]) == 120
        assert [frame["seq"] for frame in (snapshot, *updates)] == [1, 2, 3, 4, 5, 6]
        times = [point["timestamp"] for point in snapshot["payload"]["data"]]
        times += [frame["payload"]["timestamp"] for frame in updates]
        assert times == list(range(times[0], times[0] + 125_000, 1000))
        for frame in updates:
            payload = frame["payload"]
            assert (payload["symbol"], payload["source"]) == ("btcusd", "chainlink")
            assert Decimal(payload["full_accuracy_value"]) == Decimal(repr(exact("BTC", payload["timestamp"])))
            assert payload.get("window_seconds") == (60 if channel.endswith("twap") else None)


async def test_the_average_at_the_ends_of_a_window_is_what_it_settles_on(still: Bench) -> None:
    window = still.venue.current("BTC")
    await still.advance((window.close_ms - still.clock.now_ms()) / 1000 - 3, step=30)
    link = await Link.open(still)
    await link.subscribe(average())
    await still.advance(6)
    values = {
        frame["payload"]["timestamp"]: Decimal(frame["payload"]["full_accuracy_value"])
        for frame in await link.settle()
        if "snapshot" not in frame
    }
    assert values[window.close_ms] == Decimal(repr(still.venue.world.twap60("BTC", window.close_ms)))
    await still.advance((window.final_ms - still.clock.now_ms()) / 1000 + 1, step=30)
    _, event = await still.get(f"/events/slug/{window.slug}", gamma=True)
    assert Decimal(repr(event["eventMetadata"]["finalPrice"])) == values[window.close_ms]


async def test_what_is_refused(still: Bench) -> None:
    link = await Link.open(still, login=False)
    assert (await link.subscribe(spot()))[0]["code"] == "auth_required"
    assert (await link.ask(op="auth", auth={"apiKey": "x"}))[0]["code"] == "auth_invalid"
    assert (await link.ask(op="dance"))[0]["code"] == "bad_op"
    link = await Link.open(still)
    assert (await link.subscribe({"channel": "price.gold", "filter": {}}))[0]["code"] == "bad_channel"
    for bad in (spot("dogeusd"), spot("btc"), average(window=30), spot(provider="x")):
        assert (await link.subscribe(bad))[0]["code"] == "bad_filter"
    for _ in range(prices.MAX_FRAMES_PER_SECOND):
        answer = await link.subscribe(spot())
    assert answer[0]["code"] == "rate_limited"


async def test_faults_of_the_feed(still: Bench) -> None:
    link = await Link.open(still)
    await link.subscribe(spot())
    await still.advance(1)
    still.venue.faults.arm("price_dropped")
    await still.advance(2)
    frames = await link.settle()
    assert [frame["seq"] for frame in frames] == [1, 2, 4]
    assert frames[-1]["dropped"] == 1
    still.venue.prices.carry(2)
    await still.advance(3)
    frames = (await link.settle())[-3:]
    assert [frame["payload"]["is_carried_forward"] for frame in frames] == [True, False, False]
    assert frames[0]["payload"]["timestamp"] < frames[1]["payload"]["timestamp"]
    still.venue.faults.silence(2)
    count = len(link.data)
    await still.advance(1)
    assert len(await link.settle()) == count


async def test_draining_closes_with_its_code(still: Bench) -> None:
    link = await Link.open(still)
    closing = asyncio.create_task(still.venue.prices.drain())
    async with asyncio.timeout(3):
        while not link.ws.closed:
            await link.ws.receive()
    await closing
    assert link.ws.close_code == prices.DRAIN_CLOSE


async def test_a_client_that_answers_no_ping_is_closed(still: Bench) -> None:
    ws = await still.http.ws_connect(still.venue.endpoints().live_ws, autoping=False)
    still.sockets.append(ws)
    await still.clock.settle()
    seen = []
    async with asyncio.timeout(3):
        for _ in range(2):
            await still.advance(prices.PING_SECONDS, step=5)
            seen.append((await ws.receive()).type)
        await still.clock.advance(prices.PING_SECONDS)
        message = await ws.receive()
    assert seen == [aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PING]
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, prices.SLOW_CLOSE)
