"""Faults, limits and the end of the local Polymarket."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from pmkit.clock import ManualClock
from pmkit.errors import ConfigError
from pmkit.sim.polymarket.market import Series, Window
from pmkit.sim.polymarket.venue import PolymarketVenue
from pmkit.sim.world import World
from tests.sim.polymarket_client import START, Bench


async def test_silence_answers_pings_and_sends_no_data(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens))
    await bench.until(lambda: feed.kinds["book"] == 2)
    bench.venue.faults.silence(30)
    count = len(feed.events)
    await bench.advance(29, 1)
    await bench.settle()  # by PING and PONG
    assert len(feed.events) == count
    quiet = await bench.feed(list(window.tokens))  # accepted, no snapshot
    await bench.settle()
    assert quiet.kinds["book"] == 0
    await bench.advance(10, 1)
    await bench.settle()
    assert len(feed.events) > count
    assert bench.venue.faults.counts["silenced"] > 0


async def test_dropped_connections_and_rejected_handshakes(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens))
    await bench.settle()
    bench.venue.faults.reject_handshake(503, times=2)
    assert bench.venue.faults.drop_connections() == 1
    await bench.until(feed.ended.is_set)
    assert feed.ws.close_code == 1006
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await bench.http.ws_connect(bench.venue.endpoints().market_ws)
        assert refused.value.status == 503
    again = await bench.feed(list(window.tokens))
    await bench.until(lambda: again.kinds["book"] == 2)
    assert not {*bench.venue.channel.sessions} - {*bench.venue.clob.sessions}


async def test_statuses_delays_and_garbage(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    faults = bench.venue.faults
    faults.http_status(r"GET /time", 502, "<html>bad gateway</html>", times=2, headers={"Retry-After": "1"})
    for _ in range(2):
        async with bench.http.get(bench.venue.endpoints().clob + "/time") as response:
            assert (response.status, response.content_type) == (502, "text/html")
            assert response.headers["Retry-After"] == "1"
    assert (await bench.get("/time"))[0] == 200
    faults.http_status("/ok$", 429, '{"error":"Too Many Requests"}', times=None)
    for _ in range(3):
        assert await bench.get("/ok") == (429, {"error": "Too Many Requests"})
    faults.clear()
    assert (await bench.get("/ok"))[0] == 200
    faults.delay(5)
    waiting = asyncio.create_task(bench.get("/ok"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await bench.clock.advance(5)
    assert (await waiting)[0] == 200
    faults.clear()
    feed = await bench.feed(list(window.tokens))
    await bench.settle()
    assert faults.garbage('{"event_type":') == 1
    await bench.settle()
    assert feed.noise == ['{"event_type":']
    assert bench.venue.clob.requests["GET /time"] == 3
    assert [line.status for line in bench.venue.clob.log if line.path == "/time"] == [502, 502, 200]


async def test_a_session_that_fails_is_counted_and_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tokens: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(bench.venue.channel, "subscribed", broken)
    feed = await bench.feed(["1"])
    await bench.until(feed.ended.is_set)
    assert feed.ws.close_code == 1011
    assert bench.venue.failures == ["LookupError: no such thing"]
    bench.venue.clob.failures.clear()


async def test_a_client_that_does_not_read_is_reset(bench: Bench) -> None:
    feed = await bench.feed([])
    await bench.settle()
    for _ in range(9_000):
        bench.venue.faults.garbage(b"x" * 50)
    await bench.until(feed.ended.is_set)
    assert bench.venue.clob.counts["slow_clients"] >= 1
    assert not bench.venue.clob.sessions


async def test_a_venue_closes_within_a_second_with_clients_on_it() -> None:
    clock = ManualClock(START)
    venue = PolymarketVenue(World(7, clock, ("BTC",)), clock)
    await venue.start()
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(venue.endpoints().market_ws, autoclose=False)  # never answers the closing
        await ws.send_json({"assets_ids": list(venue.current("BTC").tokens), "type": "market"})
        venue.faults.delay(600)
        stuck = asyncio.create_task(http.get(venue.endpoints().clob + "/time"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1.0):
            await venue.close()
        await venue.close()
        assert (await asyncio.gather(stuck, return_exceptions=True))[0]
        await ws.close()
    assert venue.failures == []
    left = [task.get_name() for task in asyncio.all_tasks() if "polymarket" in task.get_name()]
    assert left == []


async def test_a_taken_port_is_a_clear_error(bench: Bench) -> None:
    port = bench.venue.clob.port
    clock = ManualClock(START)
    other = PolymarketVenue(World(7, clock, ("BTC",)), clock, gamma_port=port)
    with pytest.raises(ConfigError, match=rf"{port}.*taken"):
        await other.start()
    await other.close()


def test_titles_are_in_new_york_time() -> None:
    clock = ManualClock(START)
    venue = PolymarketVenue(World(7, clock, ("BTC",)), clock)
    window: Window = venue.listings.at(Series("BTC", "5m"), 1_790_123_400_000)
    assert window.title == "Bitcoin Up or Down - September 22, 8:30PM-8:35PM ET"
    assert window.slug == "btc-updown-5m-1790123400"
