"""Cancels, status, open orders and replacing against the local venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from pmkit.errors import CancelUnknown, InvalidOrder, MarketNotFound, PmkitError
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import CancelResult, Order, OrderId, OrderState, Side

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.polymarket.modes import Mode
from pmkit.sim.venues import LocalVenues
from tests.polymarket.trading import account_of, current, exchange_of, local, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local(17) as venues:
        yield venues


@pytest.fixture
async def exchange(venues: LocalVenues) -> AsyncIterator[PolymarketExchange]:
    async with exchange_of(venues) as exchange:
        yield exchange


@pytest.fixture
async def market(exchange: PolymarketExchange) -> PolymarketMarket:
    return await current(exchange)


async def rest(
    exchange: PolymarketExchange, market: PolymarketMarket, outcome: str = "UP", price: str = "0.02"
) -> OrderId:
    return await exchange.place_limit_order(market, outcome, Side.BUY, price, 10)


async def test_nothing_connects_before_the_first_call(venues: LocalVenues) -> None:
    exchange = exchange_of(venues)
    await asyncio.sleep(0.05)
    assert venues.polymarket.clob.requests.total() == 0
    await exchange.close()
    await exchange.close()


async def test_oe_05_a_cancel_says_what_it_did(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    assert await exchange.cancel_order(placed) is CancelResult.CANCELED
    again = await exchange.cancel_order(placed)
    assert again is CancelResult.ALREADY_DONE
    assert not again
    venues.polymarket.faults.arm("long_delay")
    delayed = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=10)
    assert delayed.status is OrderState.DELAYED
    assert await exchange.cancel_order(delayed) is CancelResult.NOT_YET


@pytest.mark.parametrize("fault", ["answer_lost", "request_lost", "answer_500"])
async def test_oe_06_a_cancel_without_an_answer_is_unknown_and_may_be_repeated(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, fault: str
) -> None:
    placed = await rest(exchange, market)
    venues.polymarket.faults.arm(fault)
    with pytest.raises(CancelUnknown):
        await exchange.cancel_order(placed)
    done = await exchange.cancel_order(placed)
    assert done is (CancelResult.CANCELED if fault == "request_lost" else CancelResult.ALREADY_DONE)
    assert (await exchange.get_order_status(placed)).status is OrderState.CANCELED


async def test_rs_03_a_restarting_engine_leaves_cancels_unknown(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    venues.polymarket.modes.set(Mode.RESTARTING)
    with pytest.raises(CancelUnknown):
        await exchange.cancel_order(placed)
    venues.polymarket.modes.set(Mode.CANCEL_ONLY)
    assert await exchange.cancel_order(placed)


async def test_several_cancels_have_a_result_each(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = [await rest(exchange, market) for _ in range(3)]
    await exchange.cancel_order(placed[0])
    unknown = "0x" + "77" * 32
    done = await exchange.cancel_orders([*placed, unknown])
    assert [done[one] for one in placed] == ["ALREADY_DONE", "CANCELED", "CANCELED"]
    assert done[unknown] == CancelResult.ALREADY_DONE
    assert await exchange.cancel_orders([]) == {}
    venues.polymarket.faults.arm("answer_lost")
    lost = await exchange.cancel_orders([unknown])
    assert isinstance(lost[unknown], CancelUnknown)


async def test_cancel_all_is_of_one_market_only(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    following = await exchange.finder().get_next_market("BTC")
    assert isinstance(following, PolymarketMarket)
    here = [await rest(exchange, market), await rest(exchange, market, "DOWN")]
    there = await rest(exchange, following)
    done = await exchange.cancel_all(market)
    assert set(done) == set(here)
    assert all(done.values())
    assert [status.order_id for status in await exchange.get_open_orders()] == [there]
    assert await exchange.get_open_orders(market) == []
    assert venues.polymarket.clob.requests["DELETE /cancel-all"] == 0


async def test_open_orders_are_all_pages_oldest_first(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.reads.page = 2
    placed = [await rest(exchange, market) for _ in range(5)]
    listed = await exchange.get_open_orders(market)
    assert {status.order_id for status in listed} == set(placed)
    assert [status.created_ms for status in listed] == sorted(status.created_ms for status in listed)
    first = listed[0]
    assert (first.price, first.size, first.outcome, first.side) == (D("0.02"), 10, "UP", Side.BUY)


async def test_a_vanished_order_ends_in_a_terminal_state(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    record = orders_of(venues, account_of(venues))[placed]
    venues.polymarket.desk.take_out([record], "CANCELED")
    del venues.polymarket.desk.orders[placed]  # as after the venue forgot it
    assert (await exchange.get_order_status(placed)).status is OrderState.LIVE  # too early to tell
    await asyncio.sleep(1.1)
    ended = await exchange.get_order_status(placed)
    assert (ended.status, ended.filled_amount) == (OrderState.CANCELED, 0)
    venues.polymarket.desk.orders[placed] = record  # the venue lost sight of it and finds it again (OE-08)
    record.state, record.reason = type(record.state).LIVE, ""
    assert (await exchange.get_order_status(placed)).status is OrderState.LIVE
    taken = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=10)
    record = orders_of(venues, account_of(venues))[taken]
    await until(lambda: not record.open)
    del venues.polymarket.desk.orders[taken]
    status = await exchange.get_order_status(taken)
    assert (status.status, status.filled_amount) == (OrderState.FILLED, D(record.matched).scaleb(-6))


async def test_an_order_that_nobody_knows_is_an_error(exchange: PolymarketExchange) -> None:
    with pytest.raises(MarketNotFound):
        await exchange.get_order_status("0x" + "99" * 32)


async def test_replacing_places_nothing_for_a_cancel_that_is_unknown(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    def leg(price: str) -> Order:
        return Order(market_id=market.market_id, outcome="UP", side=Side.BUY, price=D(price), size=D(10))

    first, second = await rest(exchange, market), await rest(exchange, market)
    await exchange.cancel_order(second)
    results = await exchange.replace_orders([first, second], [leg("0.03"), leg("0.04")])
    assert isinstance(results[0], OrderId)
    assert isinstance(results[1], InvalidOrder)
    venues.polymarket.faults.arm("answer_lost")
    (lost,) = await exchange.replace_orders([results[0]], [leg("0.05")])
    assert isinstance(lost, CancelUnknown)
    prices = [status.price for status in await exchange.get_open_orders(market)]
    assert prices == []  # the cancel had worked, and nothing took its place
    with pytest.raises(InvalidOrder):
        await exchange.replace_orders([first], [])


async def test_an_order_is_not_taken_away_for_one_that_cannot_be(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    old = [await rest(exchange, market), await rest(exchange, market, price="0.03")]
    legs = [
        Order(market_id=market.market_id, outcome="UP", side=Side.BUY, price=D(price), size=D(12))
        for price in ("0.025", "0.03")
    ]
    wrong, placed = await exchange.replace_orders(old, legs)
    assert isinstance(wrong, InvalidOrder) and isinstance(placed, OrderId)
    booked = orders_of(venues, account_of(venues))
    assert [booked[order_id].open for order_id in (*old, placed)] == [True, False, True]


async def test_errors_hold_no_secret(venues: LocalVenues, exchange: PolymarketExchange) -> None:
    await exchange.keep_warm()
    identity = exchange.login.identity
    assert identity is not None
    venues.polymarket.faults.http_status("GET /data/orders", 500, b"{}", times=None)
    with pytest.raises(PmkitError) as caught:
        await exchange.get_open_orders()
    text = repr(caught.value) + str(caught.value)
    assert not any(part in text for part in identity.credentials.reveal())
