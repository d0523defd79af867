"""The dry-run on books and prints that the test makes: every fill has its reason, money and shares add up."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock, to_utc
from pmkit.errors import InsufficientFunds, InvalidOrder, OrderRejected
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.types import (
    Accepted,
    CancelResult,
    FillState,
    Liquidity,
    MarketResult,
    OrderState,
    Side,
    TimeInForce,
    TradeResult,
)

from .conftest import KALSHI, POLYMARKET, START_MS, HandData, make_market

D = Decimal


class Venue:
    """A dry-run with its data, its fills and a clock that moves while an order is on its way."""

    def __init__(self, clock: ManualClock, queue: str = "middle", balance: int = 100, **changes) -> None:
        self.clock = clock
        self.market = make_market(**changes)
        self.data = HandData(self.market, clock)
        self.paper = PaperExchange(self.data, balance=balance, queue=queue)
        self.fills = []
        self.orders = []

    async def __aenter__(self) -> "Venue":
        await self.paper.subscribe_fills(self.fills.append)
        await self.paper.subscribe_orders(self.orders.append)
        return self

    async def __aexit__(self, *_) -> None:
        await self.paper.close()
        await self.paper.close()
        assert self.data.closed

    async def done(self, coro, seconds: float = 2.0):
        task = asyncio.ensure_future(coro)
        for _ in range(40):
            await self.clock.advance(seconds / 40)
            if task.done():
                break
        return await task

    async def limit(self, outcome, side, price, size, **more):
        return await self.done(self.paper.place_limit_order(self.market, outcome, side, price, size, **more))


async def test_a_taker_walks_the_levels_and_pays_each_level_its_fee(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10", "0.53": "10", "0.60": "100"})
        order_id = await venue.limit("UP", Side.BUY, "0.55", "30")
        assert (order_id.status, order_id.filled_amount) == (OrderState.LIVE, 20)
        assert [(fill.price, fill.size, fill.liquidity) for fill in venue.fills] == [
            (D("0.52"), 10, Liquidity.TAKER),
            (D("0.53"), 10, Liquidity.TAKER),
        ]
        fees = D("0.17472") + D("0.17437")
        assert sum(fill.fee for fill in venue.fills) == fees == order_id.fee
        assert await venue.paper.get_balance() == 100 - D("10.5") - fees
        status = await venue.paper.get_order_status(order_id)
        assert (status.filled_amount, status.remaining, status.average_price) == (20, 10, D("0.525"))
        assert "took a level of 10 shares" in venue.paper.explain(venue.fills[0].fill_id)


async def test_what_was_taken_is_not_there_a_second_time(clock):
    """The venue goes on showing what a live order would have used up; only what is added to it can be had."""
    async with Venue(clock) as venue:

        async def take(size: str):
            order_id = await venue.limit("UP", Side.BUY, "0.52", size, time_in_force=TimeInForce.IOC)
            return order_id.filled_amount

        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        assert await take("8") == 8
        assert await take("8") == 2
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "9"})
        assert await take("8") == 0, "one of the ten that we have taken left"
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "15"})
        assert await take("8") == 6, "six came"
        sold = await venue.limit("DOWN", Side.SELL, "0.48", "5", time_in_force=TimeInForce.IOC)
        assert (sold.status, sold.filled_amount) == (OrderState.CANCELED, 0), "bids for DOWN are the asks of UP"
        venue.data.show("UP", {"0.50": "100"}, {"0.53": "10"})
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        assert await take("8") == 8, "the level was gone and came back"


async def test_ioc_and_fok_that_fill_nothing_are_canceled_order_ids(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        for tif in (TimeInForce.IOC, TimeInForce.FOK):
            order_id = await venue.limit("UP", Side.BUY, "0.51", "8", time_in_force=tif)
            assert (order_id.status, order_id.filled_amount) == (OrderState.CANCELED, 0)
        killed = await venue.limit("UP", Side.BUY, "0.52", "11", time_in_force=TimeInForce.FOK)
        assert (killed.status, killed.filled_amount) == (OrderState.CANCELED, 0)
        whole = await venue.limit("UP", Side.BUY, "0.52", "10", time_in_force=TimeInForce.FOK)
        assert (whole.status, whole.filled_amount) == (OrderState.FILLED, 10)


async def test_post_only_that_would_cross_is_rejected_by_name_and_costs_nothing(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "100"}, {"0.52": "10"})
        with pytest.raises(OrderRejected) as refused:
            await venue.limit("UP", Side.BUY, "0.52", "10", post_only=True)
        assert refused.value.code == "post_only_cross"
        assert await venue.paper.get_balance(venue.market) == 100
        assert (await venue.limit("UP", Side.BUY, "0.51", "10", post_only=True)).status is OrderState.LIVE


async def test_a_resting_order_waits_for_its_queue(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.52": "10"})
        order_id = await venue.limit("UP", Side.BUY, "0.50", "10")
        venue.data.trade("UP", Side.SELL, "0.50", "15")
        assert not venue.fills
        venue.data.trade("UP", Side.BUY, "0.50", "100")  # a buyer's print does not hit bids
        venue.data.trade("DOWN", Side.BUY, "0.50", "8")  # buying DOWN at 0.50 is selling UP at 0.50
        assert [(fill.size, fill.price, fill.fee, fill.liquidity) for fill in venue.fills] == [
            (3, D("0.50"), 0, Liquidity.MAKER)
        ]
        venue.data.trade("UP", Side.SELL, "0.49", "4")  # traded through: nobody is ahead any more
        venue.data.show("UP", {"0.48": "20"}, {"0.50": "2"})  # the other side crosses our price
        assert [fill.size for fill in venue.fills] == [3, 4, 2]
        venue.data.show("UP", {"0.48": "20"}, {"0.50": "2"})
        assert len(venue.fills) == 3, "the same displayed level does not fill us twice"
        venue.data.trade("UP", Side.SELL, "0.45", "50")
        assert [fill.size for fill in venue.fills] == [3, 4, 2, 1]
        assert (await venue.paper.get_order_status(order_id)).status is OrderState.FILLED
        assert "a print traded through it of 50 shares" in venue.paper.explain(venue.fills[-1].fill_id)


async def test_own_orders_share_a_print_in_their_order(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "10"}, {"0.53": "10"})
        second = await venue.limit("UP", Side.BUY, "0.50", "5")
        third = await venue.limit("UP", Side.BUY, "0.50", "5")
        first = await venue.limit("UP", Side.BUY, "0.51", "5")
        venue.data.trade("UP", Side.SELL, "0.50", "18")  # 5 for the better bid, 10 who were there, 3 for the next
        assert [(fill.order_id, fill.size) for fill in venue.fills] == [(first, 5), (second, 3)]
        assert "of which 5 went to own orders that come first" in venue.paper.explain(venue.fills[1].fill_id)
        venue.data.trade("UP", Side.SELL, "0.50", "4")
        assert [(fill.order_id, fill.size) for fill in venue.fills[2:]] == [(second, 2), (third, 2)]


async def test_pessimistic_those_whom_an_own_order_spared_still_stand_before_the_next(clock):
    sizes = {}
    for model in ("pessimistic", "middle"):
        async with Venue(clock, queue=model) as venue:
            venue.data.show("UP", {"0.51": "6", "0.50": "10"}, {"0.53": "10"})
            await venue.limit("UP", Side.BUY, "0.52", "6")
            next_one = await venue.limit("UP", Side.BUY, "0.50", "5")
            venue.data.trade("UP", Side.SELL, "0.51", "6")  # it hit our first bid, so those at 0.51 are still there
            venue.data.trade("UP", Side.SELL, "0.49", "8")
            sizes[model] = sum(fill.size for fill in venue.fills if fill.order_id == next_one)
    assert sizes == {"pessimistic": 2, "middle": 5}
    for model in ("pessimistic", "middle"):
        async with Venue(clock, queue=model) as venue:
            venue.data.show("UP", {"0.50": "10"}, {"0.53": "10"})
            await venue.limit("UP", Side.BUY, "0.52", "10")
            next_one = await venue.limit("UP", Side.BUY, "0.50", "5")
            venue.data.trade("UP", Side.SELL, "0.50", "10")  # our first bid had it all
            venue.data.trade("UP", Side.SELL, "0.49", "12")
            sizes[model] = sum(fill.size for fill in venue.fills if fill.order_id == next_one)
    assert sizes == {"pessimistic": 2, "middle": 5}


async def test_nothing_is_concluded_from_a_book_that_is_not_valid(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.52": "10"})
        await venue.limit("UP", Side.BUY, "0.50", "10")
        venue.data.books["UP"].expire("gone")
        with pytest.raises(OrderRejected) as refused:
            await venue.limit("UP", Side.BUY, "0.52", "5")
        assert refused.value.code == "no_valid_book"


async def test_money_held_back_by_open_orders_cannot_be_spent_twice(clock):
    async with Venue(clock, balance=10) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.60": "100"})
        first = await venue.limit("UP", Side.BUY, "0.50", "12")
        assert await venue.paper.get_balance(venue.market) == 4
        with pytest.raises(InsufficientFunds, match=r"needs 5\.0000 dollars and 4\.0000 are free"):
            await venue.limit("UP", Side.BUY, "0.50", "10")
        assert await venue.done(venue.paper.cancel_order(first)) is CancelResult.CANCELED
        assert await venue.done(venue.paper.cancel_order(first)) is CancelResult.ALREADY_DONE
        assert await venue.paper.get_balance(venue.market) == 10
        with pytest.raises(InsufficientFunds, match="offers 5 shares of UP and 0 are free"):
            await venue.limit("UP", Side.SELL, "0.70", "5")


async def test_a_polymarket_buy_by_amount_spends_dollars_and_gets_more_at_a_better_price(clock):
    async with Venue(clock, **POLYMARKET) as venue:
        venue.data.show("UP", {"0.40": "20"}, {"0.50": "100"})
        order_id = await venue.done(
            venue.paper.place_market_order(venue.market, "UP", Side.BUY, worst_price="0.60", amount="10")
        )
        spent = D("9.66")  # 10 / (1 + 0.07 * 0.5), to the cent
        assert (order_id.status, order_id.filled_amount) == (OrderState.FILLED, spent / D("0.5"))
        assert 100 - await venue.paper.get_balance() == spent + order_id.fee
        status = await venue.paper.get_order_status(order_id)
        assert status.size == D("16.1"), "what the worst price gives for it"


async def test_a_polymarket_ioc_that_buys_aims_at_its_dollars_and_may_be_small(clock):
    async with Venue(clock, **POLYMARKET) as venue:
        venue.data.show("UP", {"0.40": "20"}, {"0.50": "100"})
        order_id = await venue.limit("UP", Side.BUY, "0.60", "3", time_in_force=TimeInForce.IOC)
        assert (order_id.status, order_id.filled_amount) == (OrderState.FILLED, D("3.6"))
        with pytest.raises(InvalidOrder, match="two decimals of dollars"):
            await venue.limit("UP", Side.BUY, "0.53", "3.33", time_in_force=TimeInForce.IOC)


@pytest.mark.parametrize("arguments", [{}, {"size": 5, "amount": 5}, {"amount": 5, "side": Side.SELL}])
async def test_a_market_order_takes_exactly_one_of_size_and_amount(clock, arguments):
    async with Venue(clock) as venue:
        side = arguments.pop("side", Side.BUY)
        with pytest.raises(InvalidOrder):
            await venue.paper.place_market_order(venue.market, "UP", side, worst_price="0.60", **arguments)


@pytest.mark.parametrize(
    ("price", "size", "words"),
    [
        ("0.505", "10", "0.5 and 0.51"),
        (0.5, "10", "float"),
        ("NaN", "10", "NaN"),
        ("0.50", "4.99", "minimum of 5"),
        ("0.50", "5.001", "5.00 and 5.01"),
        ("0.50", True, "bool"),
    ],
)
async def test_illegal_orders_name_what_is_wrong_and_the_neighbours(clock, price, size, words):
    async with Venue(clock) as venue:
        with pytest.raises(InvalidOrder, match=words):
            await venue.paper.place_limit_order(venue.market, "UP", Side.BUY, price, size)


async def test_expiry_and_the_close_end_resting_orders(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.60": "100"})
        soon = to_utc(clock.now_ms()) + timedelta(seconds=60)
        brief = await venue.limit("UP", Side.BUY, "0.50", "5", time_in_force=TimeInForce.GTD, expires_at=soon)
        long = await venue.limit("UP", Side.BUY, "0.50", "5")
        await clock.advance(70)
        assert (await venue.paper.get_order_status(brief)).status is OrderState.EXPIRED
        await clock.advance(900)
        ended = await venue.paper.get_order_status(long)
        assert (ended.status, ended.reason) == (OrderState.CANCELED, "market closed")
        assert await venue.paper.get_balance(venue.market) == 100
        with pytest.raises(OrderRejected) as refused:
            await venue.limit("UP", Side.BUY, "0.50", "5")
        assert refused.value.code == "market_closed"


async def test_before_the_window_orders_are_taken_only_where_the_venue_takes_them(clock):
    later = {"open_ms": START_MS + 60_000}
    async with Venue(clock, **later) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.60": "100"})
        with pytest.raises(OrderRejected) as refused:
            await venue.limit("UP", Side.BUY, "0.50", "5")
        assert refused.value.code == "market_not_open"
    async with Venue(clock, **later, tradable_before_open=True) as venue:
        venue.data.show("UP", {"0.50": "20"}, {"0.60": "100"})
        assert (await venue.limit("UP", Side.BUY, "0.50", "5")).status is OrderState.LIVE


async def test_the_result_pays_and_history_says_won_and_lost(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.39": "20"}, {"0.40": "100"})
        await venue.limit("UP", Side.BUY, "0.40", "10")
        await venue.limit("DOWN", Side.BUY, "0.61", "5")
        cash = await venue.paper.get_balance()
        assert {row.result for row in await venue.paper.get_trade_history()} == {TradeResult.OPEN}
        await clock.advance(900)
        venue.data.result.set_result(MarketResult("M", ("UP", "DOWN"), (D(1), D(0))))
        await clock.settle()
        assert await venue.paper.get_balance() == cash + 10
        assert await venue.paper.get_positions() == []
        won, lost = await venue.paper.get_trade_history()
        assert (won.result, won.pnl) == (TradeResult.WON, 6 - won.fee)
        assert (lost.result, lost.pnl) == (TradeResult.LOST, D("-3.05") - lost.fee)


async def test_fills_are_pending_first_where_the_venue_settles_on_chain(clock):
    async with Venue(clock, final_after_ms=2000) as venue:
        venue.data.show("UP", {"0.39": "20"}, {"0.40": "100"})
        await venue.limit("UP", Side.BUY, "0.40", "10")
        (position,) = await venue.paper.get_positions()
        assert (position.size, position.pending, position.confirmed) == (10, 10, 0)
        await clock.advance(3)
        assert [fill.state for fill in venue.fills] == [FillState.PENDING, FillState.FINAL]
        (position,) = await venue.paper.get_positions()
        assert (position.pending, position.confirmed) == (0, 10)


async def test_kalshi_nets_buying_no_closes_yes(clock):
    async with Venue(clock, **KALSHI) as venue:
        venue.data.show("YES", {"0.59": "100"}, {"0.60": "100"})
        await venue.limit("YES", Side.BUY, "0.60", "10")
        cash = await venue.paper.get_balance()
        order_id = await venue.limit("NO", Side.BUY, "0.41", "4")
        (position,) = await venue.paper.get_positions()
        assert (position.outcome, position.size) == ("YES", 6)
        assert await venue.paper.get_balance() == cash - 4 * D("0.41") - order_id.fee + 4
        await venue.limit("YES", Side.SELL, "0.59", "10")
        (position,) = await venue.paper.get_positions()
        assert (position.outcome, position.size) == ("NO", 4)


async def test_a_caller_that_is_cancelled_leaves_an_order_that_can_be_resolved(clock):
    async with Venue(clock) as venue:
        venue.data.show("UP", {"0.39": "20"}, {"0.40": "100"})
        placing = asyncio.ensure_future(
            venue.paper.place_limit_order(venue.market, "UP", Side.BUY, "0.40", "10", client_order_id="mine")
        )
        await clock.settle()
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        await clock.advance(1)
        (intent,) = venue.paper.unresolved
        assert intent.client_order_id == "mine"
        answer = await venue.paper.resolve_order(intent)
        assert isinstance(answer, Accepted) and answer.order_id.filled_amount == 10
        assert not venue.paper.unresolved
        with pytest.raises(OrderRejected) as refused:
            await venue.limit("UP", Side.BUY, "0.40", "10", client_order_id="mine")
        assert refused.value.code == "duplicate"


PRINTS = st.lists(
    st.tuples(st.sampled_from(("UP", "DOWN")), st.sampled_from(Side), st.integers(45, 55), st.integers(1, 40)),
    max_size=15,
)
BOOKS = st.tuples(st.integers(44, 49), st.integers(51, 56), st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(PRINTS, BOOKS), max_size=8), st.lists(st.integers(45, 55), min_size=1, max_size=4))
def test_no_tape_makes_money_out_of_nothing(tape, quotes):
    """Over any tape: fills never exceed orders, never beat the limit the wrong way, and cash plus held value is
    conserved.
    """

    async def play() -> None:
        clock = ManualClock(START_MS + 1000)
        async with Venue(clock, balance=1000) as venue:
            venue.data.show("UP", {"0.48": "30"}, {"0.53": "30"})
            ids = [await venue.limit("UP", Side.BUY, D(cents) / 100, "10") for cents in quotes]
            for step in tape:
                if isinstance(step, tuple):
                    bid, ask, first, second = step
                    venue.data.show("UP", {str(D(bid) / 100): str(first)}, {str(D(ask) / 100): str(second)})
                else:
                    for outcome, side, cents, size in step:
                        before = sum(fill.size for fill in venue.fills)
                        venue.data.trade(outcome, side, str(D(cents) / 100), str(size))
                        assert sum(fill.size for fill in venue.fills) - before <= size
            spent = sum((fill.price * fill.size + fill.fee for fill in venue.fills), D(0))
            assert await venue.paper.get_balance() == 1000 - spent
            held = sum((position.size for position in await venue.paper.get_positions()), D(0))
            assert held == sum((fill.size for fill in venue.fills), D(0))
            for order_id in ids:
                status = await venue.paper.get_order_status(order_id)
                mine = [fill for fill in venue.fills if fill.order_id == order_id]
                assert sum((fill.size for fill in mine), D(0)) == status.filled_amount <= status.size
                assert all(fill.price <= status.price for fill in mine)
                assert all(fill.price == status.price for fill in mine if fill.liquidity is Liquidity.MAKER)

    asyncio.run(play())
