"""Placing an order in the dry-run has the three outcomes of a venue, whatever fails around it."""

import asyncio
from decimal import Decimal

import pytest

from pmkit.errors import (
    InvalidOrder,
    MarketNotFound,
    NotSent,
    OrderRejected,
    OrderUnknown,
    RateLimited,
    VenueUnavailable,
)
from pmkit.exchanges.types import Absent, MarketResult, Order, OrderState, Side

from .test_exchange import Venue

D = Decimal
LEG = Order(market_id="M", outcome="UP", side=Side.BUY, price=D("0.50"), size=D(10))


def failing(error: Exception):
    async def ask(*_, **__):
        raise error

    return ask


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (VenueUnavailable("the venue answered 503", 503), NotSent),
        (RateLimited("429"), NotSent),
        (MarketNotFound("no market M"), InvalidOrder),
    ],
)
async def test_a_leg_whose_market_cannot_be_read_was_not_sent(clock, error, outcome):
    async with Venue(clock) as venue:
        venue.data.get_market = failing(error)
        (result,) = await venue.done(venue.paper.place_orders([LEG]))
        assert type(result) is outcome and "nothing was sent" in str(result)


@pytest.mark.parametrize("stream", ["subscribe_orderbook", "subscribe_trades"])
async def test_without_books_or_prints_the_order_is_refused(clock, stream):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        working = getattr(venue.data, stream)
        setattr(venue.data, stream, failing(VenueUnavailable("no snapshot within 5 s")))
        (result,) = await venue.done(venue.paper.place_orders([LEG]))
        assert isinstance(result, OrderRejected) and result.code == "no_valid_book"
        setattr(venue.data, stream, working)
        assert (await venue.limit("UP", Side.BUY, "0.50", "10")).status is OrderState.LIVE


async def test_a_taker_does_not_wait_for_prints_and_is_paid_without_them(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        venue.data.subscribe_trades = failing(VenueUnavailable("no answer within 5 s"))
        taken = await venue.limit("UP", Side.BUY, "0.52", "12")
        assert taken.filled_amount == 10
        rest = await venue.paper.get_order_status(taken)
        assert rest.status is OrderState.CANCELED and "no telling" in rest.reason
        await clock.advance(900)
        venue.data.result.set_result(MarketResult("M", ("UP", "DOWN"), (D(1), D(0))))
        await clock.settle()
        assert await venue.paper.get_balance() == 100 - D("5.20") - taken.fee + 10


async def test_a_batch_arrives_together_and_in_order(clock):
    async with Venue(clock, balance=10) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        begun = clock.monotonic()
        results = await venue.done(venue.paper.place_orders([LEG, LEG, LEG]))
        assert clock.monotonic() - begun < 0.2, "one way there and back for all"
        assert [getattr(result, "status", type(result).__name__) for result in results] == [
            OrderState.LIVE, OrderState.LIVE, "InsufficientFunds",
        ]  # fmt: skip


async def test_closing_while_an_order_is_on_its_way_leaves_it_unknown(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        placing = asyncio.ensure_future(venue.paper.place_limit_order(venue.market, "UP", Side.BUY, "0.50", "10"))
        await clock.settle()
        await venue.paper.close()
        with pytest.raises(OrderUnknown) as unknown:
            await placing
        assert isinstance(await venue.paper.resolve_order(unknown.value.intent), Absent)
        with pytest.raises(NotSent):
            await venue.paper.place_limit_order(venue.market, "UP", Side.BUY, "0.50", "10")


async def test_a_held_order_is_accepted_at_once_and_matches_after_the_delay(clock):
    async with Venue(clock, taker_delay_ms=150) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        placing = asyncio.ensure_future(venue.paper.place_limit_order(venue.market, "UP", Side.BUY, "0.52", "10"))
        await clock.advance(0.05)
        await clock.advance(0.05)
        order_id = await placing
        assert (order_id.status, order_id.filled_amount) == (OrderState.DELAYED, 0)
        assert not (await venue.done(venue.paper.cancel_order(order_id), 0.05)) and not venue.fills
        await clock.advance(0.06)
        assert (await venue.paper.get_order_status(order_id)).status is OrderState.FILLED
        assert [status.status for status in venue.orders] == [OrderState.DELAYED, OrderState.FILLED]


async def test_what_a_held_order_meets_is_not_known_without_a_book(clock):
    async with Venue(clock, taker_delay_ms=150) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        placing = asyncio.ensure_future(venue.paper.place_limit_order(venue.market, "UP", Side.BUY, "0.52", "10"))
        await clock.advance(0.05)
        await clock.advance(0.05)
        venue.data.books["UP"].expire("gone")
        for _ in range(60):
            await clock.advance(0.1)
        status = await venue.paper.get_order_status(await placing)
        assert (status.status, status.filled_amount) == (OrderState.CANCELED, 0)
        assert "no telling" in status.reason
        assert await venue.paper.get_balance(venue.market) == 100
