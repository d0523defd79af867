"""OE-08: an order that is not found is not absent yet, least of all when nobody answered until just now."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pmkit.bot.base import BaseBot
from pmkit.errors import OrderUnknown
from pmkit.exchanges.types import Accepted, Side
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local

DEAD_SECONDS = {"kalshi": 7.5, "polymarket": 28.0}
READABLE_SECONDS = {"kalshi": 3.9, "polymarket": 6.0}
"""What a venue's reads may lag, after the dead line has let the order through."""


@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
def test_oe_08_an_order_that_a_dead_line_has_held_back_is_not_called_absent(venue):
    """The order arrives when the line does, and cannot be read for some seconds: the time since it was sent is over."""

    async def story(bot: BaseBot, venues: LocalVenues) -> None:
        while not any(bot.markets.values()):
            await bot.clock.sleep(0.1)
        local: Any = getattr(venues, venue)
        dead, late = DEAD_SECONDS[venue], READABLE_SECONDS[venue]
        if venue == "kalshi":
            local.mishaps.delay = dead
            local.faults.arm("late_request")
            local.portfolio.lag_ms = round(1000 * late)
            local.user_feed.silence(60.0)
        else:
            # It was accepted at once here: what counts is when it can be read.
            local.faults.arm("answer_lost")
            local.reads.hydration_seconds = dead + late
            local.user.silence(60.0)
        local.faults.http_status("^GET ", 503, times=None)
        market = bot.markets["BTC"]
        with pytest.raises(OrderUnknown) as unknown:
            await bot.exchange.place_limit_order(market, market.outcomes[0], Side.BUY, Decimal("0.02"), 50)
        await bot.clock.sleep(dead)
        local.faults.forget("^GET ")
        answer = await bot.exchange.resolve_order(unknown.value.intent)
        assert isinstance(answer, Accepted)

    on_local(BaseBot, live=True, story=story, only=venue)
