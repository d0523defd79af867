"""Against the local venues: another reading of the same pages, with traders, ticks, ends and results of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import pytest

from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import MarketStatus, PublicTrade

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.venues import LocalVenues
from tests.local import local_venues

pytestmark = pytest.mark.virtual_time

FACTOR = 45.0


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local_venues(factor=FACTOR, assets=("BTC", "ETH"), boundary=7.0) as venues:
        yield venues


@pytest.fixture
async def data(venues: LocalVenues) -> AsyncIterator[PolymarketMarketData]:
    async with PolymarketMarketData(venues.endpoints, venues.clock) as data:
        yield data


async def until(condition: Callable[[], object], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def current(data: PolymarketMarketData, asset: str = "BTC") -> PolymarketMarket:
    market = await data.finder().get_current_market(asset)
    assert isinstance(market, PolymarketMarket)
    return market


def truth(venues: LocalVenues, token: str) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
    own = venues.polymarket.book_truth(token)
    return dict(own.bids), dict(own.asks)


def held(book: OrderBook) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
    bids, asks = ({level.price: level.size for level in book.levels(side)} for side in ("BID", "ASK"))
    return bids, asks


async def test_one_window_from_trading_to_its_result(venues: LocalVenues, data: PolymarketMarketData) -> None:
    finder = data.finder()
    assert await finder.list_assets() == ["BTC", "ETH"]
    market = await current(data)
    following = await finder.get_next_market("BTC")
    assert isinstance(following, PolymarketMarket)
    assert following.open_ms == market.close_ms
    assert (await data.get_market(market.market_id)).token_ids == market.token_ids
    listed = await finder.list_markets("ETH")
    assert len(listed) > 50
    assert listed[0].status is MarketStatus.OPEN

    states: list[Market] = []
    trades: list[PublicTrade] = []
    await data.subscribe_markets(states.append)
    await data.subscribe_orderbook([market, following], lambda book: None)
    await data.subscribe_trades([market], trades.append)
    assert data.book(market, "UP").valid
    read = await data.get_orderbook(following, "UP")
    assert read.valid
    result = await asyncio.wait_for(data.wait_result(market), 20)
    assert result.winner in ("UP", "DOWN")
    assert data.current(market).strike is not None
    assert trades
    assert {trade.market_id for trade in trades} == {market.market_id}
    mine = [state for state in states if state.market_id == market.market_id]
    assert [state.status for state in mine][-2:] == [MarketStatus.CLOSED, MarketStatus.RESOLVED]
    (socket,) = data.sockets
    feed = socket.feed
    assert feed.best_checks > 50
    assert (feed.best_failures, feed.crossed, feed.garbage, feed.unparsed, feed.late) == (0, 0, 0, 0, 0)
    assert not feed.unknown
    assert socket.stats.disconnects == 0


async def test_books_equal_the_venues_own_through_faults(venues: LocalVenues, data: PolymarketMarketData) -> None:
    market = await current(data, "ETH")
    await data.subscribe_orderbook([market], lambda book: None)
    faults = venues.polymarket.faults

    def equal() -> bool:
        books = [data.book(market, outcome) for outcome in market.outcomes]
        pairs = zip(books, market.token_ids, strict=True)
        return all(book.valid and held(book) == truth(venues, token) for book, token in pairs)

    await until(equal, 5)
    assert faults.garbage(b'{"event_type":"price_change","cut') == 1
    await until(lambda: data.sockets[0].feed.garbage == 1, 2)
    await until(equal, 5)
    assert faults.drop_connections() == 1
    await until(lambda: data.sockets[0].stats.disconnects == 1, 5)
    await until(equal, 5)
    faults.silence(1.6 * FACTOR)
    await until(lambda: data.sockets[0].stats.silences > 0, 5)
    await until(equal, 8)
