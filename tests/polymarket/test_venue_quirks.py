"""What the venue is known to do to its clients, one by one: answers that mislead, and reads that are late or stuck."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pmkit.errors import InvalidOrder, OrderUnknown
from pmkit.exchanges.types import Absent, Accepted, OrderState, Side
from pmkit.sim.polymarket.modes import TEXTS_500
from tests.polymarket.trading import account_of, current, exchange_of, local, until

D = Decimal


@pytest.mark.parametrize("null", [True, False])
async def test_an_answer_that_proves_nothing_is_looked_up(null: bool) -> None:
    """A 500, or the 400 that says "delayed": whether there is an order is asked, and nothing is sent again."""
    async with local() as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        venue = venues.polymarket
        venue.reads.unknown_is_404 = not null
        for fault, text, placed in (
            *(("answer_500", text, True) for text in TEXTS_500),
            ("request_500", TEXTS_500[0], False),
            ("answer_400", TEXTS_500[0], True),
        ):
            venue.answers.text_500 = text
            venue.faults.arm(fault)
            with pytest.raises(OrderUnknown) as unknown:
                await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
            found = await exchange.resolve_order(unknown.value.intent)
            assert isinstance(found, Accepted if placed else Absent), (fault, text)
            assert (unknown.value.intent.order_id in venue.desk.orders) is placed
        assert not exchange.unresolved
        assert venue.clob.requests["POST /order"] == len(TEXTS_500) + 2  # nothing was sent twice


async def test_a_word_that_no_document_has_is_looked_up() -> None:
    async with local() as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        venues.polymarket.faults.arm("unmatched")
        with pytest.raises(OrderUnknown) as unknown:
            await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=5)
        assert isinstance(await exchange.resolve_order(unknown.value.intent), Accepted)
        order_id = unknown.value.intent.order_id
        assert order_id is not None
        record = venues.polymarket.desk.orders[order_id]
        await until(lambda: not record.open)
        status = await exchange.get_order_status(order_id)
        assert (status.status, status.filled_amount) == (OrderState.FILLED, D(record.matched).scaleb(-6))


@pytest.mark.parametrize("stuck", [True, False])
async def test_a_position_is_right_while_balances_are_old_and_a_match_is_stuck(stuck: bool) -> None:
    """The venue's view of the chain is minutes old unless it is asked to look; a match may never reach the chain."""
    async with local() as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        venue = venues.polymarket
        venue.reads.balance_lag_seconds = 300
        venue.reads.not_broadcasted = True
        if stuck:
            venue.faults.arm("trade_stuck", 9)
        placed = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=5)
        record = venue.desk.orders[placed]
        await until(lambda: record.matched)
        if not stuck:
            await until(lambda: all(venue.trades.trades[name].state == "CONFIRMED" for name in record.trades))
        size = D(record.matched).scaleb(-6)
        (position,) = await exchange.get_positions()
        assert position.size == size
        assert (position.confirmed, position.pending) == ((D(0), size) if stuck else (size, D(0)))
        on_chain = D(account_of(venues).shares[market.token_id("UP")]).scaleb(-6)
        assert on_chain == (D(0) if stuck else size)


async def test_a_step_that_becomes_finer_is_known_at_once_and_used() -> None:
    async with local() as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        with pytest.raises(InvalidOrder, match=r"0\.02 and 0\.03"):
            await exchange.place_limit_order(market, "UP", Side.BUY, "0.021", 10)
        await exchange.subscribe_orderbook([market])
        venues.polymarket.live[market.market_id].refine()
        await until(lambda: exchange.data.current(market).grid.unit == 10)
        await until(lambda: exchange.book(market, "UP").valid)
        placed = await exchange.place_limit_order(market, "UP", Side.BUY, "0.021", 10)
        assert venues.polymarket.desk.orders[placed].intent.limit == 210
        bids = {level.price: level.size for level in exchange.book(market, "UP").levels("BID")}
        assert bids[D("0.021")] == 10
