"""OE-08: an order that is not found is not absent yet, least of all when nobody answered until just now."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pmkit.bot.base import BaseBot
from pmkit.errors import OrderUnknown
from pmkit.exchanges.types import Accepted, Side, TimeInForce
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local
from tests.chaos.truth import Truth

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


class Settled(BaseBot):
    """Keeps the profit that it was told, in the order in which it was told."""

    async def _on_start(self) -> None:
        self.told: list[Decimal] = []

    async def _on_settled(self, asset: str, market: Any, result: Any, pnl: Decimal) -> None:
        self.told.append(pnl)


def test_uw_01_a_fill_that_is_heard_of_after_the_result_is_counted_and_the_profit_told_again():
    """The stream told nothing of it, and REST did not answer until the market was settled: it is still the bot's."""

    async def story(bot: Settled, venues: LocalVenues) -> None:
        while not any(bot.markets.values()) or bot.seconds_remaining(bot.markets["BTC"]) > 60:
            await bot.clock.sleep(0.5)
        market = bot.markets["BTC"]
        local = venues.kalshi
        local.user_feed.silence(1e6)
        local.faults.http_status("^GET .*/portfolio/fills", 503, times=None)
        for outcome in market.outcomes:
            await bot.exchange.place_limit_order(
                market, outcome, Side.BUY, Decimal("0.99"), 10, time_in_force=TimeInForce.IOC
            )
        while not bot.told:
            await bot.clock.sleep(1)
        assert bot.told == [0] and not bot.stats.fills
        local.user_feed.silence(0.0)
        local.faults.forget("^GET .*/portfolio/fills")
        local.faults.drop_connections()
        await bot.clock.sleep(60)
        truth = [fill for fill in Truth(venues).fills("kalshi") if fill.market_id == market.market_id]
        assert truth and bot.stats.fills == len(truth) and not bot.stats.foreign_fills
        winner = market.outcomes[0 if Truth(venues).went_up(market) else 1]
        won = sum(fill.size * ((fill.outcome == winner) - fill.price) - fill.fee for fill in truth)
        assert bot.told[-1] == won != 0

    on_local(Settled, live=True, story=story, only="kalshi")


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("venue", ["kalshi", "polymarket"])
def test_ro_04_an_order_whose_answer_was_lost_is_cancelled_before_the_close_too(venue, told):
    """Nobody looked it up: whether the stream has told of it or not, it is the bot's own."""

    async def story(bot: BaseBot, venues: LocalVenues) -> None:
        while not any(bot.markets.values()):
            await bot.clock.sleep(0.1)
        market = bot.markets["BTC"]
        local: Any = getattr(venues, venue)
        if not told:
            (local.user_feed if venue == "kalshi" else local.user).silence(1e6)
        local.faults.arm("lose_answer" if venue == "kalshi" else "answer_lost")
        with pytest.raises(OrderUnknown):
            await bot.exchange.place_limit_order(market, market.outcomes[0], Side.BUY, Decimal("0.01"), 200)
        while bot.seconds_remaining(market) > 0.2:
            await bot.clock.sleep(0.1)
        (order,) = [one for one in Truth(venues).orders(venue) if one.market_id == market.market_id]
        assert not order.open, order
        await bot.clock.sleep(5)

    on_local(BaseBot, live=True, story=story, only=venue)


def test_a_close_that_is_moved_is_the_close():
    """Kalshi may end a market earlier: own orders go before that, and it is over then."""

    async def story(bot: BaseBot, venues: LocalVenues) -> None:
        while not any(bot.markets.values()):
            await bot.clock.sleep(0.1)
        market = bot.markets["BTC"]
        while bot.seconds_remaining(market) > 240:
            await bot.clock.sleep(0.1)
        order_id = await bot.exchange.place_limit_order(market, "YES", Side.BUY, Decimal("0.01"), 200)
        moved = msgspec.structs.replace(market, close_ms=market.close_ms - 180_000)
        bot._market_changed("kalshi", moved)
        open_until = 0.0
        while bot.seconds_remaining(moved) > 0.1:
            if bot.exchange.resting(market.market_id):
                open_until = bot.seconds_remaining(moved)
            assert bot.markets["BTC"].market_id == market.market_id
            await bot.clock.sleep(0.1)
        assert 0 < open_until < bot.CANCEL_BEFORE_CLOSE + 1 and order_id not in bot.exchange.open
        await bot.clock.sleep(0.5)
        assert not bot.markets["BTC"] or bot.markets["BTC"].market_id != market.market_id

    on_local(BaseBot, live=True, story=story, only="kalshi")
