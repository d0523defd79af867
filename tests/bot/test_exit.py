"""PL-09: the end comes in time, whatever hangs, and nothing of it is loaded only then."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from pmkit.bot.base import BaseBot
from pmkit.exchanges.types import Side
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local


class DeafFeed:
    """A part of the bot whose close() does not return."""

    async def close(self) -> None:
        await asyncio.Event().wait()


class Stuck(BaseBot):
    """All that a strategy can hang in, and deaf to being cancelled."""

    async def _on_start(self) -> None:
        self.left: float | None = None
        self.spawn(self.deaf(), "deaf")

    async def deaf(self) -> None:
        until = self.clock.monotonic() + 30
        while self.clock.monotonic() < until:
            with suppress(asyncio.CancelledError):
                await self.clock.sleep(until - self.clock.monotonic())

    async def _tick(self) -> None:
        if self.stats.ticks > 3:
            await self.deaf()

    async def _on_stop(self) -> None:
        await self.deaf()


@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
def test_pl_09_where_every_step_of_the_end_hangs_it_is_over_in_four_seconds_and_names_the_order(venue: str):
    """The budgets of the steps, each within its own, came to 4.8 s, before the last rows and Python's own end."""

    async def story(bot: Any, venues: LocalVenues) -> None:
        while not any(bot.markets.values()):
            await bot.clock.sleep(0.1)
        local: Any = getattr(venues, venue)
        market = bot.markets["BTC"]
        order_id = await bot.exchange.place_limit_order(market, market.outcomes[0], Side.BUY, Decimal("0.02"), 50)
        await bot.clock.sleep(10)
        bot.feeds = (*bot.feeds, DeafFeed())
        local.faults.delay(30.0)
        began = bot.clock.io_monotonic()
        await bot.stop()
        bot.left = bot.clock.io_monotonic() - began
        assert any(order_id in line and "may still be open" in line for line in bot.log.lines)
        local.faults.delay(0.0)
        await bot.clock.sleep(40)  # the deaf ones

    bot: Any = on_local(Stuck, live=True, story=story, only=venue)
    assert bot.left < 4.0


def test_pl_09_the_summary_loads_nothing_at_the_end():
    """Importing rich at the end took half of a busy machine's five seconds."""
    code = """
import io, sys
from pmkit.bot.life import BotStats
from pmkit.bot.summary import prepare, print_summary
prepare()
before = set(sys.modules)
print_summary([], BotStats(), io.StringIO())
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
