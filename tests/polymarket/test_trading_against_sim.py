"""A seeded run of order intents with lost, delayed and reset answers, a dropped and silent socket and failing trades:
no order twice, none lost, each fill once per state, position equal to the venue's ledger, also after a restart.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from pmkit.errors import OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    Fill,
    FillState,
    Intent,
    OrderId,
    OrderState,
    OrderStatus,
    Side,
    TimeInForce,
)

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.venues import LocalVenues
from tests.polymarket.trading import account_of, current, exchange_of, local, net, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal
INTENTS = 300
LATE = 0.3


class Run:
    """What a bot would know: every intent, what was said of it, every fill and state."""

    def __init__(self, venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, seed: int) -> None:
        self.venues = venues
        self.exchange = exchange
        self.market = market
        self.random = random.Random(seed)
        self.fills: list[Fill] = []
        self.states: list[OrderStatus] = []
        self.accepted: set[str] = set()
        self.absent: list[Intent] = []
        self.rejected = 0
        self.unknown = 0
        self.cancelled = 0

    async def one(self) -> None:
        market, pick = self.market, self.random
        outcome = pick.choice(["UP", "DOWN"])
        kind = pick.random()
        size = pick.randint(5, 20)
        try:
            if kind < 0.5:
                price = D(pick.randint(2, 6)) / 100  # at 50 shares a dollar at least: where the market comes down to it
                placing = self.exchange.place_limit_order(market, outcome, Side.BUY, price, 45 + size)
            elif kind < 0.8:
                placing = self.exchange.place_market_order(
                    market, outcome, Side.BUY, worst_price="0.98", amount=pick.randint(2, 9)
                )
            elif kind < 0.9:
                placing = self.exchange.place_limit_order(
                    market, outcome, Side.SELL, "0.05", size, time_in_force=TimeInForce.IOC
                )
            else:
                placing = self.exchange.place_limit_order(market, outcome, Side.BUY, "0.95", size)
            task = asyncio.ensure_future(placing)
            if pick.random() < 0.1:
                await asyncio.sleep(pick.random() * 0.01)
                task.cancel()
            placed = await task
        except asyncio.CancelledError:
            self.cancelled += 1
            return
        except OrderUnknown as error:
            self.unknown += 1
            await self.resolve(error.intent)
            return
        except OrderRejected:
            self.rejected += 1
            return
        if placed.status is OrderState.CANCELED and not placed.filled_amount:
            return  # an order that takes and found nothing: the venue keeps no record of it
        self.accepted.add(str(placed))
        if pick.random() < 0.4:
            with suppress(PmkitError):  # a cancel may be repeated; what became of the order is looked at in the end
                await self.exchange.cancel_order(placed)

    async def resolve(self, intent: Intent) -> None:
        found = await self.exchange.resolve_order(intent)
        if isinstance(found, Accepted):
            self.accepted.add(str(found.order_id))
        else:
            assert isinstance(found, Absent)
            self.absent.append(intent)


def shares(venues: LocalVenues, market: PolymarketMarket, wallet: str) -> dict[str, Decimal]:
    """The venue's ledger."""
    found = {
        outcome: D(venues.polymarket.accounts.position(wallet, token)).scaleb(-6)
        for outcome, token in zip(market.outcomes, market.token_ids, strict=True)
    }
    return {outcome: size for outcome, size in found.items() if size}


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_order_twice_none_lost_each_fill_once(seed: int) -> None:
    async with local(seed) as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        run = Run(venues, exchange, market, seed)
        await exchange.subscribe_orderbook([market], lambda book: None)
        await exchange.subscribe_fills(run.fills.append)
        await exchange.subscribe_orders(run.states.append)
        venue = venues.polymarket
        venue.answers.late_seconds = LATE
        venue.answers.shares = {"request_lost": 0.06, "answer_lost": 0.06, "answer_late": 0.04, "answer_500": 0.04}
        venue.faults.arm("trade_failed", 5)
        venue.faults.arm("trade_retried", 5)
        venue.faults.arm("duplicate_event", 40)
        working: list[asyncio.Task[None]] = []
        for number in range(INTENTS):
            working.append(asyncio.create_task(run.one()))
            if number % 60 == 30:
                venue.faults.drop_connections()
            if number % 100 == 70:
                venue.user.silence(0.2 * venues.clock.factor)
            await asyncio.sleep(0.01)
        await asyncio.gather(*working)
        venue.answers.shares = {}
        await asyncio.gather(*(run.resolve(intent) for intent in exchange.unresolved))
        assert exchange.unresolved == ()
        assert run.unknown > 10 and run.cancelled > 0

        account = account_of(venues)
        booked = orders_of(venues, account)
        hashes = {record.order_id for record in exchange.journal.records.values()}
        assert set(booked) == run.accepted  # none lost, none made up
        assert set(booked) <= hashes  # and none twice: one intent is one hash
        assert not {intent.order_id for intent in run.absent} & set(booked)
        assert run.absent

        def settled() -> bool:
            return all(trade.state in ("CONFIRMED", "FAILED") for trade in venue.trades.trades.values())

        await exchange.cancel_all(market)
        await until(settled, 15)
        await until(lambda: not exchange.journal.pending(), 10)
        counts = Counter((fill.fill_id, fill.order_id, fill.state) for fill in run.fills)
        assert set(counts.values()) == {1}
        ended = [key for key in counts if key[2] is not FillState.PENDING]
        assert len({key[:2] for key in ended}) == len(ended)  # final or failed, never both
        assert all(fill.own for fill in run.fills)
        assert any(fill.state is FillState.FAILED for fill in run.fills)
        truth = shares(venues, market, account.wallet)
        assert {outcome: size for outcome, size in net(run.fills).items() if size} == truth
        held = {position.outcome: position.size for position in await exchange.get_positions()}
        assert held == truth
        await check_statuses(venues, exchange, booked)
        assert not venue.clob.failures


async def check_statuses(venues: LocalVenues, exchange: PolymarketExchange, booked: dict[str, Any]) -> None:
    """Every order ends, with what was filled and did not fail."""
    standing: Counter[str] = Counter()
    for trade in venues.polymarket.trades.trades.values():
        if trade.state != "FAILED":
            for leg in trade.legs:
                standing[leg.order_id] += leg.size
    for order_id in booked:
        status = await exchange.get_order_status(order_id)
        assert status.status.terminal
        assert status.filled_amount == D(standing[order_id]).scaleb(-6)


async def test_a_restart_in_the_middle_knows_orders_and_positions_at_once() -> None:
    async with local(3) as venues:
        first = exchange_of(venues)
        market = await current(first)
        await first.subscribe_fills(lambda fill: None)
        rested = [await first.place_limit_order(market, "UP", Side.BUY, "0.02", 10 + number) for number in range(5)]
        taken = await first.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=10)
        await until(lambda: venues.polymarket.desk.orders[taken].matched > 0)
        filled = D(venues.polymarket.desk.orders[taken].matched).scaleb(-6)
        killed = asyncio.create_task(first.place_limit_order(market, "DOWN", Side.BUY, "0.02", 10))
        await asyncio.sleep(0)
        killed.cancel()
        await first.close()

        foreign: list[Fill] = []
        async with exchange_of(venues) as again:
            (position,) = await again.get_positions()  # the Data API will not show it for minutes
            assert (position.outcome, position.size) == ("UP", filled)
            assert position.confirmed + position.pending == position.size
            listed = {status.order_id for status in await again.get_open_orders()}
            open_at_venue = {key for key, record in orders_of(venues, account_of(venues)).items() if record.open}
            assert listed == open_at_venue
            assert set(rested) <= listed
            status = await again.get_order_status(taken)
            assert status.status.terminal
            assert status.filled_amount == filled
            await again.subscribe_fills(foreign.append)
            await until(lambda: any(fill.state is FillState.FINAL for fill in foreign), 10)
            assert {fill.order_id for fill in foreign} == {str(taken)}
            assert not any(fill.own for fill in foreign)  # this process did not place it
            done = await again.cancel_orders(sorted(listed))
            assert all(done.values())


async def test_uw_07_two_accounts_meet_and_both_see_their_own_leg() -> None:
    """A maker's fill is its own leg, with its own side, outcome and price."""
    async with local(5) as venues:
        test = venues.polymarket_accounts
        async with exchange_of(venues, test[0]) as maker, exchange_of(venues, test[2]) as taker:
            market = await current(maker)
            await maker.subscribe_orderbook([market], lambda book: None)
            made: list[Fill] = []
            took: list[Fill] = []
            await maker.subscribe_fills(made.append)
            await taker.subscribe_fills(took.append)
            venues.polymarket.desk.taker_delay_seconds = 0
            ask = maker.book(market, "UP").best_ask
            bid = maker.book(market, "UP").best_bid
            assert ask is not None and bid is not None
            price = market.floor_price((ask + bid) / 2)
            rested = await maker.place_limit_order(market, "UP", Side.BUY, price, 50)
            # The other side of UP at p is DOWN at 1 - p: both buy, and a pair is made.
            met = await taker.place_limit_order(market, "DOWN", Side.BUY, 1 - price, 50)
            await until(lambda: made and took, 5)
            assert isinstance(met, OrderId)
            mine = next(fill for fill in made if fill.order_id == rested)
            theirs = next(fill for fill in took if fill.order_id == met)
            assert (mine.outcome, mine.side, mine.price, mine.liquidity) == ("UP", Side.BUY, price, "MAKER")
            assert (theirs.outcome, theirs.side, theirs.liquidity) == ("DOWN", Side.BUY, "TAKER")
            assert mine.fee == 0 and theirs.fee > 0
            assert all(fill.order_id == rested for fill in made)
