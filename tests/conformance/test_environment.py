"""The checks of this directory can fail, and the client processes reach nothing but loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmkit.clock import Entropy, ManualClock
from pmkit.sim.engine import MatchingEngine
from pmkit.sim.traders import Grid, Traders
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import SCRIPTS, Client, ClientError
from tests.conformance.truth import (
    WINDOW_MS,
    balanced_seed,
    common_run,
    levels,
    same_as_truth,
)


def traders() -> Traders:
    return Traders(
        MatchingEngine(),
        fair=lambda: 0.5,
        seconds_left=lambda: 900.0,
        grid=lambda: Grid.even(100),
        clock=ManualClock(),
        entropy=Entropy("traders"),
    )


async def test_a_book_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> str:
        return "stale"

    monkeypatch.setattr("tests.conformance.truth.LATE_READS", 3)
    for live in (False, True):
        with pytest.raises(AssertionError, match="stale is not true"):
            await same_as_truth(read, lambda: "true", traders(), live=live)


async def test_nobody_trades_while_a_book_is_read_and_each_reading_is_of_another_book() -> None:
    those = traders()
    book = 0

    def truth() -> int:
        nonlocal book
        book += not those.resting  # it changes whenever somebody may trade
        return book

    async def read() -> int:
        return truth()

    assert await same_as_truth(read, truth, those) == [0, 1, 2]
    assert not those.resting


def test_common_runs() -> None:
    assert common_run([1, 2, 3, 4], [3, 4, 5]) == ([3, 4], [3, 4])
    assert common_run([3, 4, 5], [1, 2, 3, 9]) == ([3, 4], [3, 9])
    assert common_run([1], [2]) == ([], [])


@pytest.mark.parametrize("left_ms", [895_000, 450_000, 100_000])
def test_there_is_an_undecided_market_at_any_time(left_ms: int) -> None:
    for number in range(6):
        close = 1_795_219_200_000 + number * WINDOW_MS
        assert balanced_seed(ManualClock(start_ms=close - left_ms)) > 0


def test_a_price_that_comes_twice_is_no_book() -> None:
    with pytest.raises(AssertionError, match="twice"):
        levels([("0.50", "1"), ("0.5", "2")])


async def test_clients_reach_loopback_only(client: OpenClient) -> None:
    """With the addresses of the real venues every client fails before a byte leaves this machine."""
    real = {"binance": {"rest": ["https://api.binance.com"], "ws": ["wss://stream.binance.com"]}}
    with pytest.raises(AssertionError, match="may reach loopback only, not api.binance.com"):
        async with client("python_binance_candles", {"endpoints": real}):
            pass
    clob = {"polymarket": {"clob": "https://192.0.2.1"}}  # an address that nobody has

    async def ask() -> None:
        async with client("py_clob_client_public", {"endpoints": clob}) as one:
            with pytest.raises(ClientError):
                await one.ask("read", name="get_ok", args=[])
            with pytest.raises(ClientError, match="is no read"):
                await one.ask("read", name="cancel_all", args=[])

    with pytest.raises(AssertionError, match="may reach loopback only, not 192.0.2.1"):
        await ask()


async def test_a_client_that_cannot_start_says_why(client_python: Path) -> None:
    with pytest.raises(AssertionError, match="KeyError: 'endpoints'"):
        async with Client(client_python, "ccxt_candles", {}):
            pass


def test_every_client_is_pinned_with_hashes_and_no_index() -> None:
    wanted = [line for line in (SCRIPTS / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    lock = (SCRIPTS / "requirements.lock").read_text()
    assert len(wanted) == 8
    for line in wanted:
        assert f"\n{line.partition(';')[0]} " in lock
    pins = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert pins and all(line.endswith("\\") for line in pins)  # a hash follows
    assert "--index-url" not in lock and "http" not in "".join(line for line in lock.splitlines() if "://" in line)
