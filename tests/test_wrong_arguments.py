"""What every exchange answers to arguments that are wrong, whichever venue: the same error, and nothing done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pmkit.errors import ConfigError, InvalidOrder, MarketNotFound, NotSent, VenueUnavailable
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import MarketStatus, NoMarket, Order, OrderId, OrderState, Side, TimeInForce
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


async def test_a_market_that_is_none_of_this_venue_is_refused_everywhere(venue: str, live: bool) -> None:
    """None took Kalshi's `cancel_all` for all orders of the account, another venue's market for an empty answer."""
    async with desk(venue, live) as at:
        exchange, outcome = at.exchange, at.leg.outcome
        (standing,) = await at.legs({})
        assert isinstance(standing, OrderId), standing
        for market in (None, NoMarket("not listed yet"), at.foreign, at.market.market_id):
            calls: list[Callable[[Any], Any]] = [
                lambda market: exchange.place_limit_order(market, outcome, Side.BUY, "0.02", 100),
                lambda market: exchange.place_market_order(market, outcome, Side.BUY, worst_price="0.02", size=100),
                exchange.cancel_all,
                lambda market: exchange.get_orderbook(market, outcome),
                lambda market: exchange.subscribe_orderbook([market]),
                lambda market: exchange.subscribe_trades([market]),
            ]
            if market is not None:
                calls += [exchange.get_open_orders, exchange.get_balance]
            for call in calls:
                with pytest.raises(InvalidOrder, match="Polymarket|Kalshi"):
                    await call(market)
            with pytest.raises(InvalidOrder):
                exchange.book(market, outcome)
        assert [order.order_id for order in await exchange.get_open_orders(at.market)] == [standing]
        for word in (None, 5, "", "nope", "a/../b"):
            with pytest.raises(MarketNotFound):
                await exchange.get_market(word)


async def test_order_ids_that_are_none_are_refused(venue: str, live: bool) -> None:
    async with desk(venue, live) as at:
        for wrong in ("0x" + "1" * 64, [None], [""], [5]):
            with pytest.raises(InvalidOrder, match="no list of order ids"):
                await at.exchange.cancel_orders(wrong)
        assert await at.exchange.cancel_orders([]) == {}
        for wrong in (None, 5, ""):
            with pytest.raises(MarketNotFound):
                await at.exchange.get_order_status(wrong)
            with pytest.raises(InvalidOrder):
                await at.exchange.cancel_order(wrong)
        with pytest.raises(InvalidOrder, match="above zero"):
            await at.exchange.get_trade_history(limit=0)


async def test_an_expiry_that_is_no_time_is_an_invalid_order(venue: str, live: bool) -> None:
    async with desk(venue, live) as at:
        for wrong in ("2026-12-01", 1_795_176_900, datetime(2026, 12, 1)):  # noqa: DTZ001 - that is what is wrong
            with pytest.raises(InvalidOrder, match="expires_at"):
                await at.exchange.place_limit_order(
                    at.market, at.leg.outcome, Side.BUY, "0.02", 100, time_in_force="GTD", expires_at=wrong
                )


async def test_assets_and_statuses_that_are_none_never_look_like_an_empty_list(venue: str, live: bool) -> None:
    async with desk(venue, live) as at:
        finder = at.exchange.finder()
        assert await finder.get_current_market("btc") == await finder.get_current_market("BTC")
        for wrong in (None, 5, "", " BTC", "B\x1b[31m", "XYZ"):
            with pytest.raises(ConfigError):
                await finder.get_current_market(wrong)
        with pytest.raises(ConfigError, match="UPCOMING, OPEN"):
            await finder.list_markets("BTC", "running")
        assert {market.status for market in await finder.list_markets("btc", "OPEN")} == {MarketStatus.OPEN}
        listed = await finder.list_markets("BTC")
        assert {market.status for market in listed} == {MarketStatus.OPEN, MarketStatus.UPCOMING}
        with pytest.raises(ConfigError, match="list"):
            await at.exchange.subscribe_reference("BTC")


async def test_a_callback_that_cannot_be_called_is_refused_at_once(venue: str, live: bool) -> None:
    async with desk(venue, live) as at:
        with pytest.raises(TypeError, match="callback"):
            await at.exchange.subscribe_orderbook([at.market], 5)
        with pytest.raises(TypeError, match="callback"):
            await at.exchange.subscribe_fills("print")


async def test_what_is_closed_says_so_and_leaves_nothing_behind(venue: str, live: bool) -> None:
    """A subscription to markets of a closed exchange went on for ever; one to fills of a closed dry-run never ended."""
    async with desk(venue, live) as at:
        await at.exchange.close()
        exchange = at.exchange
        calls = [
            lambda: exchange.subscribe_orderbook([at.market]),
            exchange.subscribe_markets,
            exchange.subscribe_fills,
            exchange.subscribe_orders,
            lambda: exchange.place_limit_order(at.market, at.leg.outcome, Side.BUY, "0.02", 100),
        ]
        for call in calls:
            with pytest.raises((VenueUnavailable, NotSent)):
                await call()
