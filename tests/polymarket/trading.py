"""An exchange on the local venue, and what the tests of trading share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pmkit.clock import Clock
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import Fill, FillState, Side
from pmkit.sim.polymarket.accounts import Account, TestAccount
from pmkit.sim.venues import LocalVenues
from tests.local import local_venues, polymarket_exchange

D = Decimal
FACTOR = 15.0
CENT = D("0.01")


@asynccontextmanager
async def local(seed: int = 7, factor: float = FACTOR, boundary: float = 45.0) -> AsyncIterator[LocalVenues]:
    """The local venues, with the better part of a window ahead."""
    async with local_venues(seed=seed, factor=factor, boundary=boundary) as venues:
        yield venues


def exchange_of(
    venues: LocalVenues, account: TestAccount | None = None, *, clock: Clock | None = None, **options: Any
) -> PolymarketExchange:
    exchange = polymarket_exchange(venues, clock, account=account, **options)
    exchange.lookup.absent_after = 1.0
    return exchange


async def current(exchange: PolymarketExchange) -> PolymarketMarket:
    market = await exchange.finder().get_current_market("BTC")
    assert isinstance(market, PolymarketMarket)
    return market


def account_of(venues: LocalVenues, test: TestAccount | None = None) -> Account:
    found = venues.polymarket.accounts.find((test or venues.polymarket_account).funder)
    assert found is not None
    return found


def orders_of(venues: LocalVenues, account: Account) -> dict[str, Any]:
    """The venue's own records by order id."""
    return {key: row for key, row in venues.polymarket.desk.orders.items() if row.account is account}


def net(fills: list[Fill]) -> dict[str, Decimal]:
    """Shares by outcome after fills that did not fail, each trade counted once."""
    last: dict[tuple[str, str], Fill] = {}
    for fill in fills:
        last[fill.fill_id, fill.order_id] = fill
    held: dict[str, Decimal] = {}
    for fill in last.values():
        if fill.state is not FillState.FAILED:
            sign = 1 if fill.side is Side.BUY else -1
            held[fill.outcome] = held.get(fill.outcome, D(0)) + sign * fill.size
    return held


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
