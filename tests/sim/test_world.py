"""The world: the same everywhere, Brownian, and a fair value that neither looks ahead nor lies."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock
from pmkit.errors import ConfigError
from pmkit.sim.world import ASSETS, World, window_open, windows

START = 1_795_176_000_000
LENGTH = 900_000
moments = st.integers(min_value=START - 10**11, max_value=START + 10**11)


def world(seed: int = 7, assets: tuple[str, ...] = ("BTC", "ETH")) -> World:
    return World(seed, ManualClock(START), assets)


def test_another_process_sees_the_same_world() -> None:
    asked = [START + 977 * step for step in (0, -5_000_000, 3, 12_345_678)]
    script = (
        "from pmkit.clock import ManualClock\n"
        "from pmkit.sim.world import World\n"
        "w = World(7, ManualClock(), ('BTC', 'ETH'))\n"
        f"print([(w.price('BTC', ms), w.twap60('ETH', ms), w.draw('x', ms)) for ms in {asked}])"
    )
    root = Path(__file__).resolve().parents[2]
    other = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    mine = world()
    assert other.stdout.strip() == str(
        [(mine.price("BTC", ms), mine.twap60("ETH", ms), mine.draw("x", ms)) for ms in asked]
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(moments, min_size=1, max_size=8))
def test_any_order_of_questions_gives_the_same_prices(asked: list[int]) -> None:
    forwards, backwards = world(), world()
    assert [forwards.price("BTC", ms) for ms in asked] == [backwards.price("BTC", ms) for ms in reversed(asked)][::-1]
    assert [forwards.prices("BTC", ms, 130) for ms in asked] == [
        [backwards.price("BTC", ms + 1000 * step) for step in range(130)] for ms in asked
    ]


def test_seeds_and_assets_have_paths_of_their_own() -> None:
    paths = [
        [value / ASSETS[asset].base for value in world(seed).prices(asset, START, 50)]
        for seed in (1, 2)
        for asset in ("BTC", "ETH")
    ]
    assert all(a != b for index, a in enumerate(paths) for b in paths[:index])


def test_the_path_moves_like_a_price() -> None:
    prices = world().prices("BTC", START, 40_000)
    logs = [math.log(value) for value in prices]
    deviation = ASSETS["BTC"].deviation
    second = statistics.pstdev(b - a for a, b in pairwise(logs))
    assert second == pytest.approx(deviation, rel=0.03)
    quarter = statistics.pstdev(logs[at + 900] - logs[at] for at in range(0, 39_000, 60))
    assert quarter == pytest.approx(deviation * 30, rel=0.25)
    # No seam at the edges of cached chunks (64 s) or blocks (2**17 s).
    edge = (START // 1000 // 2**17 + 1) * 2**17 * 1000
    near = [math.log(value) for value in world().prices("BTC", edge - 200_000, 400)]
    assert max(abs(b - a) for a, b in pairwise(near)) < 6 * deviation


def test_prices_stay_near_their_base_for_years() -> None:
    one = world()
    far = [one.price("BTC", START + day * 86_400_000) for day in range(-2_000, 2_000, 7)]
    assert 90_000 * 0.85 < min(far) < 90_000 < max(far) < 90_000 * 1.15


@settings(max_examples=30, deadline=None)
@given(moments)
def test_the_average_holds_the_sixty_seconds_up_to_the_moment(ms: int) -> None:
    one = world()
    last = ms // 1000 * 1000
    values = [one.price("ETH", last - 1000 * back) for back in range(60)]
    assert one.twap60("ETH", ms) == pytest.approx(math.fsum(values) / 60, rel=1e-12)


def test_windows_are_integer_arithmetic() -> None:
    assert window_open("15m", START) == START
    assert window_open("15m", START - 1) == START - LENGTH
    assert window_open("5m", START + 299_999) == START
    assert list(windows("15m", START, START + 1)) == [START]
    assert list(windows("15m", START + 1, START + LENGTH)) == []
    assert list(windows("5m", START - 1, START + 600_000)) == [START, START + 300_000]


class _Blind(World):
    """A world that refuses to tell what comes after `now`."""

    now_ms = 0

    def prices(self, asset: str, start_ms: int, count: int) -> list[float]:
        assert start_ms // 1000 + count - 1 <= self.now_ms // 1000, "looked ahead"
        return super().prices(asset, start_ms, count)

    def price(self, asset: str, ms: int) -> float:
        assert ms // 1000 <= self.now_ms // 1000, "looked ahead"
        return super().price(asset, ms)


def test_the_fair_value_does_not_look_ahead() -> None:
    blind = _Blind(7, ManualClock(), ("BTC",))
    for at in (-3_600, -61, -60, -59, -1, 0, 1, 450, 839, 840, 841, 899, 900):
        blind.now_ms = START + at * 1000
        assert 0.0 <= blind.fair_up("BTC", START, START + LENGTH, blind.now_ms) <= 1.0


def _history(one: World, at: int) -> Iterator[tuple[float, bool]]:
    for opened in windows("15m", START, START + 250 * LENGTH):
        for asset in one.assets:
            fair = one.fair_up(asset, opened, opened + LENGTH, opened + at * 1000)
            yield fair, one.went_up(asset, opened, opened + LENGTH)


@pytest.mark.parametrize("at", [-30, 60, 600, 870])
def test_the_fair_value_is_the_share_of_windows_that_end_up(at: int) -> None:
    rows = list(_history(world(), at))
    error = sum(up - fair for fair, up in rows)
    spread = math.sqrt(sum(fair * (1 - fair) for fair, _ in rows)) + 1.0
    assert abs(error) < 3 * spread
    for low, high in ((0.0, 0.35), (0.35, 0.65), (0.65, 1.0)):
        part = [(fair, up) for fair, up in rows if low <= fair <= high]
        if len(part) > 30:
            expected = statistics.fmean(fair for fair, _ in part)
            assert statistics.fmean(up for _, up in part) == pytest.approx(expected, abs=0.13)


def test_windows_begin_undecided_and_are_mostly_decided_near_the_end() -> None:
    begin = [fair for fair, _ in _history(world(), 0)]
    end = [fair for fair, _ in _history(world(), 870)]
    assert sum(0.3 < fair < 0.7 for fair in begin) / len(begin) > 0.95
    assert sum(fair < 0.05 or fair > 0.95 for fair in end) / len(end) > 0.8


def test_after_the_close_the_fair_value_is_the_result() -> None:
    one = world()
    for opened in windows("15m", START, START + 20 * LENGTH):
        up = one.went_up("BTC", opened, opened + LENGTH)
        assert one.fair_up("BTC", opened, opened + LENGTH, opened + LENGTH) == float(up)


def test_unknown_assets_are_named() -> None:
    with pytest.raises(ConfigError, match="PEPE"):
        World(7, ManualClock(), ("BTC", "PEPE"))
    with pytest.raises(ConfigError, match="once each"):
        World(7, ManualClock(), ("BTC", "BTC"))
    with pytest.raises(ConfigError, match="once each"):
        World(7, ManualClock(), ())
