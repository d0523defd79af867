"""examples/check_venues.py: against local venues, a closed port, a venue that says nothing; never a traceback."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples import check_venues
from examples.check_venues import Report, check, check_clock, step
from pmkit.bot.local import KalshiKey, LocalLine, PolymarketAccount
from pmkit.clock import ManualClock
from pmkit.config.env import Settings
from pmkit.endpoints import BinanceEndpoints, Endpoints, KalshiEndpoints, PolymarketEndpoints, Where
from pmkit.errors import RegionBlocked
from pmkit.sim.venues import LocalVenues
from pmkit.venue_clock import VenueClock

ROOT = Path(__file__).resolve().parent.parent


def endpoints_at(port: int, where: Where = Where.REAL) -> Endpoints:
    """Every venue on one loopback port."""
    http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
    return Endpoints(
        where=where,
        binance=BinanceEndpoints(rest=(http, http), ws=(ws,), bulk=http),
        polymarket=PolymarketEndpoints(
            clob=http, gamma=http, data=http, market_ws=f"{ws}/ws/market", user_ws=ws, live_ws=ws, relayer=http
        ),
        kalshi=KalshiEndpoints(rest=f"{http}/trade-api/v2", ws=f"{ws}/trade-api/ws/v2"),
    )


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
async def local() -> AsyncIterator[LocalVenues]:
    async with LocalVenues(seed=7, factor=15.0, assets=("BTC",), first_boundary_wall_seconds=40) as venues:
        yield venues


async def test_a_wallet_without_allowance_is_named(local: LocalVenues, capsys: pytest.CaptureFixture[str]) -> None:
    account = local.polymarket_account
    found = local.polymarket.accounts.find(account.funder)
    assert found is not None
    found.approve_none()
    settings = Settings.load(None, {"POLYMARKET_PRIVATE_KEY": account.private_key})
    report = Report("polymarket")
    clock = local.endpoints.make_clock()
    await check_venues.check_account(report, local.endpoints, clock, settings, "BTC", None)
    assert report.failed == 1 and "allowance" in report.lines[-1]
    nobody = Report("kalshi")
    await check_venues.check_account(nobody, local.endpoints, clock, settings, "BTC", None)
    assert nobody.failed == 0 and "no key" in nobody.lines[-1]


async def test_all_is_well_on_local_venues_with_a_key(local: LocalVenues, capsys: pytest.CaptureFixture[str]) -> None:
    key = KalshiKey(local.kalshi_key.id, local.kalshi_key.pem)
    account = local.polymarket_account
    line = LocalLine(
        local.endpoints, key, PolymarketAccount(account.private_key, account.funder, account.signature_type)
    )
    failed = await check(local.endpoints, Settings(), "BTC", key, line)
    out = capsys.readouterr().out
    assert failed == 0, out
    assert out.count("books from the socket, with the key") == 2
    assert "wallet type 0" in out and "may move the funds" in out and out.count("0 open orders, 0 positions") == 2
    assert account.private_key not in out
    assert all(line.startswith("ok ") for line in out.splitlines())


async def test_without_a_key_kalshi_is_polled_and_that_is_said(
    local: LocalVenues, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = await check(local.endpoints, Settings(), "BTC", None)
    out = capsys.readouterr().out
    assert failed == 0, out
    assert out.count("books polled over REST, since there is no key") == 2


async def test_an_asset_that_no_venue_has(local: LocalVenues, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(local.endpoints, Settings(), "ZEC", None) > 0
    out = capsys.readouterr().out
    assert "Traceback" not in out and out.count("WRONG") >= 3


@pytest.mark.parametrize(("where", "venues"), [(Where.REAL, 3), (Where.DEMO, 2)])
async def test_a_network_that_is_not_there(
    where: Where, venues: int, closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    failed = await check(endpoints_at(closed_port, where), Settings(), "BTC")
    out = capsys.readouterr().out
    assert time.monotonic() - began < 10
    assert failed == 2 * venues
    assert out.count("not reachable: ") == venues
    assert out.count(check_venues.NETWORK) == venues
    assert "Traceback" not in out and "\nok " not in f"\n{out}"


async def test_venues_that_accept_and_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_venues, "STEP_SECONDS", 0.5)
    open_connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: open_connections.append(writer), "127.0.0.1", 0)
    began = time.monotonic()
    async with server:
        failed = await check(endpoints_at(server.sockets[0].getsockname()[1]), Settings(), "BTC")
        for writer in open_connections:
            writer.close()
    out = capsys.readouterr().out
    assert time.monotonic() - began < 5
    assert failed == 6
    assert out.count("nothing within") == 3


@pytest.mark.parametrize(("offset_ms", "verdict"), [(300, "ok"), (-900, "ok"), (5_000, "WRONG"), (-5_000, "WRONG")])
def test_a_clock_that_is_wrong(offset_ms: int, verdict: str) -> None:
    clock, report = ManualClock(), Report("kalshi")
    venue_clock = VenueClock(clock)
    now = clock.now_ms()
    venue_clock.observe(now + offset_ms, now - 10, now + 10)
    check_clock(report, clock, venue_clock)
    assert report.lines[0].startswith(verdict)
    assert f"{-offset_ms:+d} ms" in report.lines[0]


def test_a_clock_that_nobody_measured_is_not_ok() -> None:
    report = Report("kalshi")
    check_clock(report, ManualClock(), VenueClock(ManualClock()))
    assert report.failed == 1


@pytest.mark.parametrize("error", [RuntimeError("boom"), RegionBlocked("venue: not from here"), TimeoutError()])
async def test_whatever_is_raised_becomes_a_line(error: Exception) -> None:
    async def work() -> None:
        raise error

    report = Report("binance")
    assert await step(report, ManualClock(), "time", work()) is None
    assert report.failed == 1 and report.lines[0].startswith("WRONG   binance")


def run_script(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PMKIT_", "KALSHI_"))}
    return subprocess.run(
        [sys.executable, "-m", "examples.check_venues"],
        env=environment | variables, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_script_on_local_venues() -> None:
    done = run_script(PMKIT_WHERE="local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all ok on local venues"
    assert "Traceback" not in done.stderr


def test_the_script_without_an_answer_or_a_terminal() -> None:
    done = run_script()
    assert done.returncode == 1
    assert "PMKIT_WHERE" in done.stderr and "Traceback" not in done.stderr
