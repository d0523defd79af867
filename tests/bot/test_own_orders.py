"""Own orders as a bot keeps them, with the real clients on local venues, in virtual time."""

import asyncio
import logging
from decimal import Decimal

import pytest

from pmkit.bot.own import OwnOrders
from pmkit.clock import Entropy
from pmkit.errors import OrderRejected
from pmkit.exchanges.types import Accepted, Order, OrderId, OrderState, Side
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
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
