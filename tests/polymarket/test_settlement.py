"""Results: who says them, how often they are asked for, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import msgspec
import pytest
import respx

from pmkit.errors import RegionBlocked
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.types import PolymarketMarket, Window
from pmkit.exchanges.types import MarketResult, MarketStatus
from tests.polymarket.rest import START, Venue, condition_of, event_row, tokens_of

NOW = Window("BTC", "15m", START)
UP, DOWN = tokens_of(NOW)
RESOLVED = {
    "closed": True,
    "umaResolutionStatus": "resolved",
    "outcomePrices": '["1", "0"]',
    "acceptingOrders": False,
}


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    with respx.mock(assert_all_called=False) as router:
        yield Venue(router, NOW, NOW.following)


@pytest.fixture
async def data(venue: Venue) -> AsyncIterator[PolymarketMarketData]:
    async with venue.data() as data:
        yield data


async def current(data: PolymarketMarketData) -> PolymarketMarket:
    market = await data.finder().get_current_market("BTC")
    assert isinstance(market, PolymarketMarket)
    return market


def waiting(data: PolymarketMarketData, market: Market) -> asyncio.Task[MarketResult]:
    return asyncio.get_running_loop().create_task(data.wait_result(market))


def resolve(venue: Venue, strike: float | None = None, **changed: Any) -> None:
    row = event_row(NOW, **RESOLVED | changed)
    if strike is not None:
        row["eventMetadata"] = {"priceToBeat": strike, "finalPrice": strike + 1}
    venue.listed[NOW.slug] = row


def clob_winner(up: bool) -> dict[str, Any]:
    tokens = [
        {"token_id": UP, "outcome": "Up", "winner": up},
        {"token_id": DOWN, "outcome": "Down", "winner": not up},
    ]
    return {"condition_id": condition_of(NOW), "closed": True, "tokens": tokens}


async def test_the_result_and_the_strike_from_gamma(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    task = waiting(data, market)
    await venue.clock.advance(449)
    assert data.settlement.polls == 0  # nothing is asked before the end
    await venue.clock.advance(30)
    assert not task.done()
    resolve(venue, 86434.33744369619)
    await venue.clock.advance(16)
    result = await task
    assert (result.winner, result.payouts) == ("UP", (1, 0))
    known = data.current(market)
    assert known.status is MarketStatus.RESOLVED
    assert (known.strike, known.strike_source) == (Decimal("86434.33744369619"), "gamma priceToBeat")
    asked = data.settlement.polls
    assert await data.wait_result(market) == result  # remembered
    assert data.settlement.polls == asked


async def test_the_clob_may_know_it_first(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    task = waiting(data, market)
    venue.markets[condition_of(NOW)] = clob_winner(False)
    await venue.clock.advance(452)
    assert (await task).winner == "DOWN"


async def test_questions_come_after_2_4_8_15_15_seconds(venue: Venue, data: PolymarketMarketData) -> None:
    task = waiting(data, await current(data))
    asked: list[float] = []
    venue.events.mock(side_effect=lambda _: asked.append(venue.clock.monotonic()) or httpx.Response(404))
    await venue.clock.advance(530)
    assert asked[0] == pytest.approx(450, abs=0.6)
    waits = [after - before for before, after in pairwise(asked)]
    assert waits == pytest.approx([2, 4, 8, 15, 15, 15, 15])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_failures_are_waited_out_and_refusals_are_not(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    answers = [httpx.Response(500), httpx.ReadTimeout("slow"), httpx.ConnectError("down"), httpx.Response(429)]
    venue.events.mock(side_effect=[*answers, httpx.Response(403)])
    task = waiting(data, market)
    await venue.clock.advance(500)
    assert data.settlement.failed == 4
    with pytest.raises(RegionBlocked):
        await task


async def test_callers_share_the_questions_and_leave_on_their_own(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    tasks = [waiting(data, market) for _ in range(5)]
    await venue.clock.advance(452)
    assert data.settlement.polls == 2
    for task in tasks[:4]:
        task.cancel()
    await venue.clock.settle()
    assert [task.cancelled() for task in tasks] == [True] * 4 + [False]
    resolve(venue)
    await venue.clock.advance(20)
    assert (await tasks[4]).winner == "UP"


async def test_nobody_asks_when_nobody_waits(venue: Venue, data: PolymarketMarketData) -> None:
    task = waiting(data, await current(data))
    await venue.clock.advance(452)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    asked = data.settlement.polls
    await venue.clock.advance(100)
    assert data.settlement.polls == asked
    assert venue.clock.pending == 0


async def test_the_sockets_word_makes_it_ask_at_once(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    task = waiting(data, market)
    await venue.clock.advance(500)
    resolve(venue)
    data.settlement.poke(market.market_id)
    await venue.clock.advance(0.5)
    assert (await task).winner == "UP"


async def test_a_split_market(venue: Venue, data: PolymarketMarketData) -> None:
    task = waiting(data, await current(data))
    resolve(venue, outcomePrices='["0.5", "0.5"]')
    await venue.clock.advance(452)
    result = await task
    assert result.winner is None
    assert str(result) == "0.5/0.5"


async def test_close_ends_all_waiting(venue: Venue, data: PolymarketMarketData) -> None:
    task = waiting(data, await current(data))
    await venue.clock.advance(10)
    await data.close()
    assert task.done()


async def test_what_changes_in_a_followed_market(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    seen: list[Market] = []
    subscription = await data.subscribe_markets(seen.append)
    data._watch.follow(market)
    data.catalogue.set_tick(market.market_id, "0.001")
    await venue.clock.advance(451)
    resolve(venue, 86000.5)
    await venue.clock.advance(30)
    assert [(market.status, market.grid.unit, market.strike) for market in seen] == [
        (MarketStatus.OPEN, 10, None),
        (MarketStatus.CLOSED, 10, None),
        (MarketStatus.RESOLVED, 10, Decimal("86000.5")),
    ]
    await subscription.close()
    assert venue.clock.pending == 0


async def test_a_followed_market_that_is_never_resolved_is_given_up(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    await data.subscribe_markets(lambda market: None)
    data._watch.follow(market)
    await venue.clock.advance(460)
    assert data._watch._tasks
    await venue.clock.advance(3 * 3600)
    assert not data._watch._tasks


async def test_an_odd_price_step_changes_nothing(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    for text in ("0", "0.03", "NaN", "much", "-1", ""):
        data.catalogue.set_tick(market.market_id, text)
    assert data.current(market).grid == market.grid


async def test_pl_10_memory_of_markets_is_bounded(venue: Venue, data: PolymarketMarketData) -> None:
    market = await current(data)
    for number in range(2000):
        start = START - 86_400 * 30 + number * 900
        window = Window("BTC", "15m", start)
        old = {"market_id": condition_of(window), "slug": window.slug, "close_ms": window.end * 1000}
        data.catalogue.store(_changed(market, **old))
        data._watch.follow(_changed(market, **old))
    assert len(data.catalogue.listed) <= 501
    assert len(data._watch._seen) <= 201
    assert data.catalogue.known(market.market_id) is not None


def _changed(market: PolymarketMarket, **changes: Any) -> PolymarketMarket:
    return msgspec.structs.replace(market, **changes)
