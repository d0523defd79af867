"""`python -m pmkit.sim` as a process, and all venues together in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from pmkit.clock import ManualClock, ScaledClock, SystemClock, to_ms, to_utc
from pmkit.endpoints import Endpoints, Where, is_loopback
from pmkit.errors import ConfigError
from pmkit.sim.venues import LocalVenues, clock_for

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"seed": 3, "factor": 45, "assets": ["BTC"], "first_boundary_wall_seconds": 20}


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pmkit.sim", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def first_line(child: asyncio.subprocess.Process) -> dict[str, object]:
    assert child.stdout is not None
    async with asyncio.timeout(10):
        line = await child.stdout.readline()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


async def ending(child: asyncio.subprocess.Process) -> tuple[int | None, bytes, bytes]:
    async with asyncio.timeout(3):
        out, err = await child.communicate()
    return child.returncode, out, err


async def test_it_prints_one_line_and_serves_until_its_input_closes() -> None:
    async with process(json.dumps(SETTINGS)) as child:
        line = await first_line(child)
        assert set(line) == {"endpoints", "kalshi_key", "polymarket_account", "polymarket_accounts"}
        assert [account["signature_type"] for account in line["polymarket_accounts"].values()] == [0, 1, 2, 3]
        assert line["polymarket_account"] == line["polymarket_accounts"]["0"]
        assert set(line["polymarket_account"]) == {
            *("private_key", "address", "signature_type", "funder"),
            *("api_key", "api_secret", "api_passphrase"),
        }
        endpoints = Endpoints.from_json(json.dumps(line["endpoints"]))
        assert endpoints.where is Where.LOCAL
        urls = [*endpoints.binance.rest, *endpoints.binance.ws, endpoints.kalshi.rest, endpoints.kalshi.ws]
        polymarket = endpoints.polymarket
        assert polymarket.rpc_others == ()
        urls += [getattr(polymarket, name) for name in polymarket.__struct_fields__ if name != "rpc_others"]
        assert all(is_loopback(url) for url in urls)
        assert endpoints.kalshi.rest.endswith("/trade-api/v2")
        key = line["kalshi_key"]
        assert isinstance(key, dict)
        assert key["pem"].startswith("-----BEGIN PRIVATE KEY-----")
        clock = endpoints.make_clock()
        async with aiohttp.ClientSession() as http:
            for url, name in (
                (endpoints.polymarket.clob + "/time", None),
                (endpoints.binance.rest[0] + "/api/v3/time", "serverTime"),
            ):
                before = clock.now_ms()
                async with http.get(url) as response:
                    body = await response.json()
                seconds = body if name is None else body[name] / 1000
                # Venue and this process tell the same market time.
                assert before / 1000 - 1 <= seconds <= clock.now_ms() / 1000
            async with http.get(endpoints.kalshi.rest + "/exchange/status") as response:
                assert response.status == 200
            # The first boundary comes within the promised wall time.
            left = 900 - clock.now_ms() / 1000 % 900
            assert 0 < left / 45 <= 20
        assert child.stdin is not None
        child.stdin.close()
        assert await ending(child) == (0, b"", b"")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_end_it_without_a_traceback(number: signal.Signals) -> None:
    async with process(json.dumps(SETTINGS)) as child:
        line = await first_line(child)
        endpoints = Endpoints.from_json(json.dumps(line["endpoints"]))
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(endpoints.polymarket.market_ws)
            child.send_signal(number)
            assert await ending(child) == (0, b"", b"")
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            await ws.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{"], "must be a JSON object"),
        (['{"sede": 1}'], "sede"),
        (['{"assets": ["PEPE"]}'], "PEPE"),
        (['{"factor": 0}'], "factor"),
        (['{"ports": {"nasdaq": 1}}'], "nasdaq"),
        (["{}", "{}"], "at most one argument"),
    ],
)
def test_wrong_settings_are_said_in_one_line(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pmkit.sim", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_aiohttp_the_extra_is_named() -> None:
    script = "import sys; sys.modules['aiohttp'] = None; from pmkit.sim.__main__ import main; sys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pmkit[sim]" in done.stderr
    assert "Traceback" not in done.stderr


async def test_all_venues_in_process() -> None:
    async with LocalVenues(seed=7, factor=20.0, assets=("BTC", "ETH"), first_boundary_wall_seconds=5) as venues:
        endpoints = venues.endpoints
        assert Endpoints.from_json(endpoints.to_json()) == endpoints
        clock = endpoints.make_clock()
        assert abs(clock.now_ms() - venues.clock.now_ms()) < 1_000
        ports = {server.port for venue in venues.venues for server in venue.servers}
        assert len(ports) == sum(len(venue.servers) for venue in venues.venues)
        started = venues.clock.io_monotonic()
        await venues.close()
        assert venues.clock.io_monotonic() - started < 1.0
        await venues.close()
        assert venues.failures == []
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_taken_port_names_itself_and_leaves_nothing_open() -> None:
    async with LocalVenues(assets=("BTC",)) as venues:
        port = venues.polymarket.gamma.port
        other = LocalVenues(assets=("BTC",), ports={"polymarket_gamma": port})
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*taken"):
            await other.start()
        free = other.binance.servers[0].port
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", free)
        with pytest.raises(RuntimeError, match="before start"):
            _ = other.endpoints


async def test_a_manual_clock_stays_in_its_process() -> None:
    clock = ManualClock()
    async with LocalVenues(assets=("BTC",), clock=clock) as venues:
        assert venues.clock is clock
        with pytest.raises(ConfigError, match="not a clock"):
            venues.endpoints.make_clock()


def test_the_clock_of_local_venues() -> None:
    wall = ManualClock(to_ms(datetime(2026, 11, 20, 10, 3, tzinfo=UTC)))
    assert isinstance(clock_for(1.0, None, wall), SystemClock)
    for factor, seconds in ((1.0, 30.0), (45.0, 20.0), (45.0, 0.0), (7.5, 200.0)):
        clock = clock_for(factor, seconds, wall)
        assert isinstance(clock, ScaledClock)
        boundary = clock.market_anchor_ms + seconds * factor * 1000
        assert boundary % 900_000 == 0
        # Market time starts near the wall's date.
        assert -1 < (boundary - wall.now_ms()) / 900_000 - seconds * factor / 900 < 2
    with pytest.raises(ConfigError, match="negative"):
        clock_for(45.0, -1.0, wall)


def test_the_clock_steps_over_the_thursday_maintenance() -> None:
    new_york = ZoneInfo("America/New_York")
    for minute in range(0, 24 * 60, 10):
        thursday = datetime(2026, 11, 19, minute // 60, minute % 60, tzinfo=new_york)
        clock = clock_for(45.0, 20.0, ManualClock(to_ms(thursday)))
        assert isinstance(clock, ScaledClock)
        start = to_utc(clock.market_anchor_ms).astimezone(new_york)
        assert not (start.weekday() == 3 and 2 * 60 + 30 <= start.hour * 60 + start.minute < 5 * 60 + 30)
