"""Books, trades and market news without a key: polls of a REST behind respx, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.errors import MarketNotFound, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import MarketStatus, PublicTrade, Side
from tests.kalshi.rest_venue import RestVenue, serving

NAME = "KXBTC15M-26NOV201515-15"
OTHER = "KXETH15M-26NOV201515-15"
BOOK = {"yes_dollars": [["0.4000", "10.00"], ["0.4100", "5.00"]], "no_dollars": [["0.5500", "7.00"]]}


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@asynccontextmanager
async def running(now: str = "2026-11-20T20:07:00Z") -> AsyncIterator[tuple[KalshiMarketData, RestVenue, ManualClock]]:
    clock = ManualClock(at(now))
    venue = RestVenue(clock)
    venue.books = {NAME: BOOK, OTHER: {"yes_dollars": [], "no_dollars": None}}
    with serving(venue):
        data = KalshiMarketData(Endpoints.real(), clock)
        try:
            yield data, venue, clock
        finally:
            closing = asyncio.ensure_future(data.close())
            for _ in range(20):
                await clock.advance(0.1)
            await closing


async def subscribed(work: Any, clock: ManualClock, seconds: float = 6.0) -> Any:
    """Await something that needs the clock to move."""
    task = asyncio.ensure_future(work)
    for _ in range(round(seconds / 0.05)):
        if task.done():
            break
        await clock.advance(0.05)
    return await asyncio.wait_for(task, 1)


async def market(data: KalshiMarketData, name: str = NAME) -> KalshiMarket:
    return await data.get_market(name)


async def test_books_come_once_a_second_in_one_call() -> None:
    async with running() as (data, venue, clock):
        markets = [await market(data), await market(data, OTHER)]
        events: list[OrderBook] = []
        await subscribed(data.subscribe_orderbook(markets, events.append), clock)
        book = data.book(markets[0], "YES")
        assert (book.valid, book.best_bid, book.best_ask) == (True, Decimal("0.410"), Decimal("0.450"))
        assert data.book(markets[0], "NO").best_bid == Decimal("0.550")
        assert data.book(markets[1], "YES").valid  # an empty book is a book
        calls, urls = venue.calls["/markets/orderbooks"], len(events)
        await clock.advance(10)
        assert 9 <= venue.calls["/markets/orderbooks"] - calls <= 11
        assert f"tickers={NAME}&tickers={OTHER}" in venue.urls[-1]
        assert len(events) == urls, "the same book again is no change"
        assert book.received_ns // 1_000_000 > clock.now_ms() - 1_500, "but it is fresh"
        venue.books[NAME] = {**BOOK, "yes_dollars": [["0.4000", "9.00"]]}
        await clock.advance(1.1)
        assert [one.token_id for one in events[urls:]] == [f"{NAME}:YES", f"{NAME}:NO"]
        assert book.best_bid == Decimal("0.400")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_rs_01_polled_books_outlive_three_polls_and_no_more(status: int) -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        seen: list[bool] = []
        await subscribed(data.subscribe_orderbook([one], lambda book: seen.append(book.valid)), clock)
        book = data.book(one, "YES")
        venue.fail["/markets/orderbooks"] = status
        await clock.advance(1.5)
        assert book.valid
        await clock.advance(2.6)
        assert not book.valid
        assert "no poll for 3 s" in book.reason
        assert False in seen
        calls = venue.calls["/markets/orderbooks"]
        await clock.advance(30)
        assert venue.calls["/markets/orderbooks"] - calls <= 10, "it backs off"
        venue.fail.clear()
        await clock.advance(12)
        assert book.valid
        assert seen[-1]


async def test_a_market_that_the_answer_leaves_out_is_not_valid() -> None:
    async with running() as (data, venue, clock):
        one, other = await market(data), await market(data, OTHER)
        await subscribed(data.subscribe_orderbook([one, other]), clock)
        del venue.books[NAME]
        await clock.advance(1.2)
        assert not data.book(one, "YES").valid
        assert data.book(other, "YES").valid


@pytest.mark.parametrize(
    "depth",
    [
        {"yes_dollars": [["0.4", "-1"]]},
        {"yes_dollars": [["1.4", "1"]]},
        {"yes_dollars": "x"},
        {"yes_dollars": [["0.4"]]},
    ],
)
async def test_a_polled_book_that_cannot_be_is_not_shown(depth: Any) -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        await subscribed(data.subscribe_orderbook([one]), clock)
        venue.books[NAME] = depth
        await clock.advance(5)
        assert not data.book(one, "YES").valid
        assert not data.book(one, "NO").valid
        with pytest.raises((VenueUnavailable, ProtocolChanged)):
            await data.get_orderbook(one, "YES")


async def test_crossed_polls_are_not_valid() -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        venue.books[NAME] = {"yes_dollars": [["0.6000", "1.00"]], "no_dollars": [["0.5000", "1.00"]]}
        await subscribed(data.subscribe_orderbook([one]), clock)
        assert data.book(one, "YES").reason == "crossed"
        venue.books[NAME] = BOOK
        await clock.advance(1.2)
        assert data.book(one, "YES").valid


async def test_no_first_snapshot_raises_and_leaves_nothing_wanted() -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        venue.fail["/markets/orderbooks"] = 503
        with pytest.raises(VenueUnavailable, match="503"):
            await subscribed(data.subscribe_orderbook([one]), clock, 8)
        assert data.feed.pairs == {}
        await clock.advance(10)
        calls = venue.calls.total()
        await clock.advance(20)
        assert venue.calls.total() == calls, "nobody wants anything: nothing is asked"


async def test_closing_a_subscription_ends_the_polls() -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        first = await subscribed(data.subscribe_orderbook([one]), clock)
        second = await subscribed(data.subscribe_orderbook([one]), clock)
        await first.close()
        await clock.advance(3)
        book = data.book(one, "YES")
        assert book.valid
        await second.close()
        assert (book.valid, book.reason) == (False, "not subscribed")
        await clock.advance(2)
        calls = venue.calls["/markets/orderbooks"]
        await clock.advance(10)
        assert venue.calls["/markets/orderbooks"] == calls


def trade(number: int, clock: ManualClock, name: str = NAME) -> dict[str, Any]:
    moment = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    return {
        "trade_id": f"trade-{number}",
        "ticker": name,
        "count_fp": "12.34",
        "yes_price_dollars": "0.4100",
        "no_price_dollars": "0.5900",
        "taker_outcome_side": "no" if number % 2 else "yes",
        "taker_book_side": "ask" if number % 2 else "bid",
        "created_time": moment.isoformat().replace("+00:00", "Z"),
        "is_block_trade": False,
    }


async def test_trades_are_delivered_once_and_oldest_first() -> None:
    async with running() as (data, venue, clock):
        one = await market(data)
        venue.trades.append(trade(0, clock))  # before anybody asked
        await clock.advance(3)
        got: list[PublicTrade] = []
        await subscribed(data.subscribe_trades([one], got.append), clock)
        assert got == []
        venue.page_size = 3
        for number in range(1, 41):
            venue.trades.append(trade(number, clock))
            if number % 4 == 0:
                await clock.advance(0.7)
        await clock.advance(5)
        assert [one.trade_id for one in got] == [f"trade-{number}" for number in range(1, 41)]
        assert [one.side for one in got[:2]] == [Side.SELL, Side.BUY]
        assert (got[0].outcome, got[0].price, got[0].size) == ("YES", Decimal("0.4100"), Decimal("12.34"))
        venue.fail["/markets/trades"] = 503
        venue.trades.append(trade(41, clock))
        await clock.advance(20)
        venue.fail.clear()
        await clock.advance(12)
        assert got[-1].trade_id == "trade-41"
        assert len(got) == 41


async def test_news_without_a_socket() -> None:
    async with running("2026-11-20T20:14:50Z") as (data, venue, clock):
        finder = data.finder()
        old = await finder.get_current_market("BTC")
        new = await finder.get_next_market("BTC")
        assert old
        assert new
        venue.books = {old.market_id: BOOK, new.market_id: BOOK}
        news: list[Market] = []
        await subscribed(data.subscribe_markets(news.append), clock)
        await subscribed(data.subscribe_orderbook([old, new]), clock)
        await clock.advance(40)
        first = [(one.status, one.payouts) for one in news if one.market_id == old.market_id]
        assert first == [(MarketStatus.CLOSED, None), (MarketStatus.RESOLVED, (1, 0))]
        second = [(one.status, one.strike) for one in news if one.market_id == new.market_id]
        assert second == [(MarketStatus.OPEN, None), (MarketStatus.OPEN, Decimal("90000.25"))]
        venue.markets[new.market_id] = {"status": "inactive"}
        await clock.advance(35)
        assert news[-1].status is MarketStatus.PAUSED
        venue.markets[new.market_id] = {
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0001"}],
            "close_time": "2026-11-20T20:20:00Z",
        }
        await clock.advance(35)
        assert (news[-1].status, news[-1].grid.unit) == (MarketStatus.OPEN, 1)
        assert news[-1].close_time == datetime(2026, 11, 20, 20, 20, tzinfo=UTC)
        await clock.advance(1.5)
        assert data.book(new, "YES").unit == 1
        assert data.book(new, "YES").valid


async def test_news_survive_outages_and_vanished_markets() -> None:
    async with running("2026-11-20T20:14:58Z") as (data, venue, clock):
        old = await data.finder().get_current_market("BTC")
        assert old
        venue.books = {old.market_id: BOOK}
        news: list[Market] = []
        await subscribed(data.subscribe_markets(news.append), clock)
        subscription = await subscribed(data.subscribe_orderbook([old]), clock)
        venue.fail["/markets/"] = 500
        await clock.advance(4)
        await subscription.close()  # after the close of the market: it is followed up to its result all the same
        await clock.advance(10)
        venue.fail["/markets/"] = 404
        await clock.advance(10)
        venue.fail.clear()
        await clock.advance(40)
        assert news[-1].status is MarketStatus.RESOLVED


async def test_wait_result_polls_after_the_close_and_outlives_outages() -> None:
    async with running("2026-11-20T20:14:30Z") as (data, venue, clock):
        one = await data.finder().get_current_market("BTC")
        assert one
        waiting = asyncio.ensure_future(data.wait_result(one))
        await clock.advance(29)
        calls = venue.calls[f"/markets/{one.market_id}"]
        assert calls <= 2, "before the close there is nothing to ask"
        venue.fail["/markets/"] = 503
        await clock.advance(10)
        assert not waiting.done()
        venue.fail.clear()
        venue.results[one.market_id] = ""  # determined, not finalized
        await clock.advance(30)
        assert not waiting.done()
        venue.results[one.market_id] = "no"
        await clock.advance(20)
        result = await asyncio.wait_for(waiting, 1)
        assert (result.winner, result.payouts) == ("NO", (0, 1))
        assert venue.calls[f"/markets/{one.market_id}"] - calls <= 14
        again = venue.calls.total()
        assert (await data.wait_result(one)).winner == "NO"
        assert venue.calls.total() == again, "a result is final"


async def test_wait_result_of_a_market_that_is_gone_raises() -> None:
    async with running("2026-11-20T20:14:30Z") as (data, venue, _):
        one = await data.finder().get_current_market("BTC")
        assert one
        venue.fail["/markets/"] = 404
        with pytest.raises(MarketNotFound):
            await data.wait_result(one)
