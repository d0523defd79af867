"""Fixtures of the tests of the local venues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.sim.polymarket_client import Bench, open_bench


@pytest.fixture(autouse=True)
def kalshi_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the local Kalshi answers and says in its own tests, which ask for nonsense as well, is as its files say."""
    if not request.path.name.startswith("test_sim_kalshi"):
        yield
        return
    from tests.kalshi.spec_check import hold
    from tests.kalshi.tap import tapped

    with tapped() as record:
        yield
    hold(record, requests=False)


SLOW = 0.02  # steps of the background traders per second where a test needs none


@pytest.fixture
async def still() -> AsyncIterator[Bench]:
    """A venue whose traders quote once and then stay away."""
    async with open_bench(200, steps_per_wall_second=SLOW) as opened:
        yield opened


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench(300) as opened:
        yield opened
