"""Own orders as a bot keeps them, with the real clients on local venues, in virtual time."""

import asyncio
import logging
from decimal import Decimal

import msgspec
import pytest

from pmkit.bot.base import BaseBot
from pmkit.bot.own import OwnOrders
from pmkit.bot.rows import TradeRows
from pmkit.clock import Entropy
from pmkit.errors import ConfigError, InvalidOrder, OrderRejected
from pmkit.exchanges.types import Accepted, NoMarket, Order, OrderId, OrderState, Side
from pmkit.logging.csv_logger import TradeLog, read_trades
from pmkit.logging.paths import Paths
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from tests.bot.virtual import on_local
from tests.local import exchange_on


def own_orders(venue, scenario, jitter=0.0):
    """Run `scenario(own, market, book)` with the account of a local venue."""

    async def main():
        clock = VirtualClock(1_795_176_100_000, Entropy(1))
        async with LocalVenues(seed=2, assets=("BTC",), clock=clock, steps_per_wall_second=0.2) as venues:
            exchange = exchange_on(venue, venues, clock, live=True)
            own = OwnOrders(exchange, None)
            async with exchange:
                await own.subscribe_orders(own.note)
                market = await own.finder().get_current_market("BTC")
                await own.subscribe_orderbook([market], lambda book: None)
                await scenario(own, market, own.book(market, market.outcomes[0]))

    run(main(), latency=0.005, jitter=jitter)


def test_oe_06_an_order_that_could_not_be_cancelled_yet_is_not_forgotten_by_a_replacement():
    """On Polymarket an order cannot be cancelled while it is in its delay: the leg fails, and the order stands."""

    async def scenario(own, market, book):
        standing = await own.place_limit_order(market, market.outcomes[0], Side.BUY, book.best_ask, 5)
        assert standing.status is OrderState.DELAYED
        leg = Order(
            market_id=market.market_id,
            outcome=market.outcomes[0],
            side=Side.BUY,
            price=Decimal("0.02"),
            size=Decimal(5),
        )
        (result,) = await own.replace_orders([standing], [leg])
        assert not isinstance(result, OrderId)
        assert list(own.open) == [standing], "it may fill or rest: the bot must know of it until the venue has ended it"
        await own.clock.sleep(10)
        assert not own.open, "filled"

    own_orders("polymarket", scenario)


def test_oe_15_a_refused_post_only_order_is_over_whatever_the_stream_says_of_it(caplog):
    """Kalshi tells of it as of an order that was cancelled at once."""

    async def scenario(own, market, book):
        for _ in range(10):  # the answer comes first, or the stream
            with pytest.raises(OrderRejected, match="post_only_cross"):
                await own.place_limit_order(market, market.outcomes[0], Side.BUY, book.best_ask, 5, post_only=True)
            await asyncio.sleep(1)
        assert own.unresolved == () and not own.open

    with caplog.at_level(logging.ERROR):
        own_orders("kalshi", scenario, jitter=0.05)
    assert not caplog.records


@pytest.mark.parametrize("venue", ["polymarket", "kalshi"])
def test_oe_07_an_order_that_filled_after_its_caller_had_gone_is_resolved_as_filled_and_not_open(venue):
    """What the answer once said is not what is true now."""

    async def scenario(own, market, book):
        placing = asyncio.ensure_future(own.place_limit_order(market, market.outcomes[0], Side.BUY, book.best_ask, 5))
        await asyncio.sleep(0.001)
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        (intent,) = own.unresolved
        await own.clock.sleep(10)
        answer = await own.resolve_order(intent)
        assert isinstance(answer, Accepted)
        assert (answer.order_id.status, answer.order_id.filled_amount) == (OrderState.FILLED, 5)
        assert not own.open and not own.unresolved

    own_orders(venue, scenario)


def test_a_market_that_was_kept_since_its_step_became_finer_is_no_reason_to_refuse_a_price():
    """The exchange knows the step of now; the bot's own check knew the one that the strategy still held."""

    async def scenario(own, market, book):
        assert market.grid.unit == 100
        venue.live[market.condition_id].refine()
        while own.current(market).grid.unit != 10:
            await own.clock.sleep(0.1)
        order_id = await own.place_limit_order(market, "UP", Side.BUY, "0.013", 100)
        assert own.open[order_id].price == Decimal("0.013")

    venue = None

    async def main():
        nonlocal venue
        clock = VirtualClock(1_795_176_100_000, Entropy(1))
        async with LocalVenues(seed=2, assets=("BTC",), clock=clock, steps_per_wall_second=0.2) as venues:
            venue = venues.polymarket
            own = OwnOrders(exchange_on("polymarket", venues, clock, live=True), None)
            async with own:
                market = await own.finder().get_current_market("BTC")
                await own.subscribe_orderbook([market], lambda book: None)
                await own.subscribe_markets(lambda market: None)
                await scenario(own, market, own.book(market, "UP"))

    run(main(), latency=0.005)


def test_a_leg_that_is_no_order_is_one_result_of_many_and_a_row(tmp_path):
    """A float in one leg was a TypeError of the trade file, and none of the others was placed."""

    async def scenario(own, market, book):
        trades = TradeLog(Paths(tmp_path, tmp_path, tmp_path), "local", "Bot", own.clock)
        own.rows = TradeRows(own.exchange, trades)
        good = Order(
            market_id=market.market_id,
            outcome=market.outcomes[0],
            side=Side.BUY,
            price=Decimal("0.02"),
            size=Decimal(5),
        )
        results = await own.place_orders([msgspec.structs.replace(good, price=0.02), good])
        assert [type(result) for result in results] == [InvalidOrder, OrderId]
        trades.close()
        rows = [(row["event"], row["price"]) for row in read_trades(trades.path)]
        assert rows == [("intent", "0.02"), ("intent", "0.02"), ("rejected", "0.02"), ("accepted", "0.02")]

    own_orders("kalshi", scenario)


def test_a_market_that_is_none_is_said_with_its_reason():
    seen = []

    async def story(bot, venues):
        while not bot.stats.ticks:
            await bot.clock.sleep(0.1)
        for ask in (
            lambda: bot.book(NoMarket("maintenance"), "UP"),
            lambda: bot.seconds_remaining(NoMarket("maintenance")),
        ):
            with pytest.raises(InvalidOrder, match="maintenance"):
                ask()
        with pytest.raises(InvalidOrder, match="maintenance"):
            await bot.exchange.place_limit_order(NoMarket("maintenance"), "UP", Side.BUY, "0.5", 10)
        with pytest.raises(KeyError, match="'BTC'"):
            bot.markets["DOGE"]
        seen.append(True)

    on_local(BaseBot, live=False, story=story, only="polymarket")
    assert seen


def test_a_hook_without_async_is_said_at_once():
    """Twenty ticks in a row would raise "object NoneType can't be used in 'await' expression" otherwise."""

    class Plain(BaseBot):
        def _tick(self): ...

    with pytest.raises(ConfigError, match="write `async def _tick`"):
        on_local(Plain, live=False, story=lambda bot, venues: asyncio.sleep(0))
