"""Fixtures of the tests of the local venues."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sim.polymarket_client import Bench, open_bench

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
