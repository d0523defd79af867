"""What every exchange answers to arguments that are wrong, whichever venue: the same error, and nothing done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pmkit.errors import InvalidOrder
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Order, OrderId, OrderState, Side, TimeInForce
from tests.local import clock_of, exchange_on, local_venues

pytestmark = [
    pytest.mark.virtual_time,
    pytest.mark.parametrize("venue", ["polymarket", "kalshi"]),
    pytest.mark.parametrize("live", [True, False], ids=["live", "dry-run"]),
]


@dataclass
class Desk:
    """An exchange, a market of it, one of the other venue, and a leg that would rest."""

    exchange: BaseExchange
    market: Market
    foreign: Market
    leg: Order

    async def legs(self, *changes: dict[str, Any]) -> list[Any]:
        return await self.exchange.place_orders([msgspec.structs.replace(self.leg, **change) for change in changes])


@asynccontextmanager
async def desk(venue: str, live: bool) -> AsyncIterator[Desk]:
    async with local_venues(boundary=600.0) as venues:
        clock = clock_of(venues)
        other = exchange_on("kalshi" if venue == "polymarket" else "polymarket", venues, clock, live=False)
        exchange = exchange_on(venue, venues, clock, live=live)
        before = asyncio.all_tasks()
        async with other:
            foreign = await other.finder().get_current_market("BTC")
        assert isinstance(foreign, Market)
        async with exchange:
            market = await exchange.finder().get_current_market("BTC")
            assert isinstance(market, Market)
            await exchange.subscribe_orderbook([market], lambda book: None)
            leg = Order(
                market_id=market.market_id,
                outcome=market.outcomes[0],
                side=Side.BUY,
                price=Decimal("0.02"),
                size=Decimal(100),
            )
            yield Desk(exchange, market, foreign, leg)
        assert not {task.get_name() for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}


async def test_a_plain_text_is_the_word_it_spells_and_never_the_opposite(venue: str, live: bool) -> None:
    """Kalshi's batch took a leg whose side was the text "BUY" for a sell."""
    async with desk(venue, live) as at:
        (buy,) = await at.legs({"side": "BUY", "price": "0.02", "size": 100, "time_in_force": "GTC"})
        assert isinstance(buy, OrderId)
        assert buy.status is OrderState.LIVE
        (changed,) = await at.exchange.replace_orders(
            [buy], [msgspec.structs.replace(at.leg, side="BUY", size="50", time_in_force="GTC")]
        )
        assert isinstance(changed, OrderId)
        single = await at.exchange.place_limit_order(at.market, at.leg.outcome, "BUY", "0.02", 100, time_in_force="GTC")
        for order in (changed, single):
            status = await at.exchange.get_order_status(order)
            assert type(status.side) is Side
            assert (status.side, status.time_in_force) == (Side.BUY, TimeInForce.GTC)


async def test_a_word_that_is_none_is_an_invalid_order(venue: str, live: bool) -> None:
    async with desk(venue, live) as at:
        place, outcome = at.exchange.place_limit_order, at.leg.outcome
        for side in ("buy", None, 1):
            with pytest.raises(InvalidOrder, match="BUY and SELL"):
                await place(at.market, outcome, side, "0.02", 100)
            with pytest.raises(InvalidOrder, match="BUY and SELL"):
                await at.exchange.place_market_order(at.market, outcome, side, worst_price="0.02", size=100)
        for word in ("GTX", None):
            with pytest.raises(InvalidOrder, match="GTC, GTD, IOC and FOK"):
                await place(at.market, outcome, Side.BUY, "0.02", 100, time_in_force=word)
        results = await at.legs({"side": "buy"}, {"time_in_force": "GTX"}, {"price": 0.02}, {"size": None}, {})
        assert [type(result) for result in results] == [*[InvalidOrder] * 4, OrderId]
        assert await at.exchange.get_open_orders() != []
