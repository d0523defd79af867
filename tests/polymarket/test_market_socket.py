"""The market channel over real sockets: books end to end, and what happens when the venue misbehaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import pytest

from pmkit.clock import Clock
from pmkit.errors import VenueUnavailable
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket import orderbook_ws, subscriptions
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.orderbook_ws import ASSETS_PER_SOCKET, MarketSocket
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import PublicTrade
from pmkit.sim.virtual import VirtualClock
from tests.polymarket.loopback import LoopbackVenue, make_market

pytestmark = pytest.mark.virtual_time

FACTOR = 20.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of seconds become tenths, so that a test need not wait for them."""
    monkeypatch.setattr(orderbook_ws, "FIRST_SNAPSHOT", 0.4)
    monkeypatch.setattr(orderbook_ws, "FRESH_BOOK_SECONDS", 0.2)
    monkeypatch.setattr(subscriptions, "SUBSCRIBE_SECONDS", 2.0)


@pytest.fixture
async def clock() -> Clock:
    return VirtualClock(factor=FACTOR)


@pytest.fixture
async def venue(clock: Clock) -> AsyncIterator[LoopbackVenue]:
    async with LoopbackVenue(clock) as venue:
        yield venue


@pytest.fixture
async def data(venue: LoopbackVenue, clock: Clock) -> AsyncIterator[PolymarketMarketData]:
    async with PolymarketMarketData(venue.endpoints, clock) as data:
        yield data


async def until(condition: Callable[[], object], seconds: float = 4.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.0005)  # a book may be mended within a few


def right(venue: LoopbackVenue, data: PolymarketMarketData, market: PolymarketMarket) -> bool:
    """Whether both books are valid and exactly the venue's."""
    for token, outcome in zip(market.token_ids, market.outcomes, strict=True):
        book = data.book(market, outcome)
        bids, asks = venue.truth[token].sides(token)
        if not book.valid:
            return False
        if {level.price: level.size for level in book.levels("BID")} != bids:
            return False
        if {level.price: level.size for level in book.levels("ASK")} != asks:
            return False
    return True


def socket_of(data: PolymarketMarketData) -> MarketSocket:
    (socket,) = data.sockets
    return socket


async def test_books_from_the_first_message_to_the_last(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1)
    events: list[OrderBook] = []
    subscription = await data.subscribe_orderbook([market, market], events.append)
    assert right(venue, data, market)
    assert {book.outcome for book in events} == {"UP", "DOWN"}
    for size in range(1, 40):
        await venue.change(market, f"0.{30 + size % 19}", str(size), "BUY")
    await venue.change(market, "0.52", "0", "SELL")
    await until(lambda: right(venue, data, market))
    assert data.book(market, "DOWN").best_bid == Decimal("0.47")
    feed = socket_of(data).feed
    assert (feed.best_failures, feed.lost, feed.unparsed, feed.strangers) == (0, 0, 0, 0)
    book = data.book(market, "UP")
    await subscription.close()
    assert (book.valid, book.reason) == (False, "not subscribed")
    assert data.book(market, "UP").reason == "not subscribed"
    await until(lambda: venue.unsubscribed)
    assert sorted(venue.unsubscribed[-1]) == sorted(market.token_ids)


async def test_interest_is_counted(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    one, two = venue.add(1), venue.add(2)
    first = await data.subscribe_orderbook([one, two])
    second = await data.subscribe_orderbook([two])
    trades = await data.subscribe_trades([two])
    assert len(venue.subscribed) == 1
    await first.close()
    await until(lambda: venue.unsubscribed)
    assert venue.unsubscribed == [list(one.token_ids)]
    await venue.change(two, "0.50", "1", "BUY")
    await until(lambda: right(venue, data, two))
    await second.close()
    assert data.book(two, "UP").valid
    await trades.close()
    assert not data.book(two, "UP").valid
    await until(lambda: len(venue.unsubscribed) == 2)
    again = await data.subscribe_orderbook([two])
    assert right(venue, data, two)
    await again.close()
    await again.close()


async def test_a_reader_without_a_callback_gets_the_state_and_then_changes(
    venue: LoopbackVenue, data: PolymarketMarketData
) -> None:
    market = venue.add(1)
    await data.subscribe_orderbook([market])
    late = await data.subscribe_orderbook([market])
    seen = {(await anext(late)).outcome, (await anext(late)).outcome}
    assert seen == {"UP", "DOWN"}
    await venue.change(market, "0.50", "1", "BUY")
    book = await anext(late)
    assert Decimal("0.50") in (book.best_bid, book.best_ask)


async def test_prints(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market, other = venue.add(1), venue.add(2)
    trades: list[PublicTrade] = []
    await data.subscribe_trades([market], trades.append)
    await data.subscribe_orderbook([other])
    event = {"event_type": "last_trade_price", "market": market.market_id, "price": "0.6", "size": "5", "side": "BUY"}
    event |= {"timestamp": venue.now(), "transaction_hash": "0xaa"}
    up, down = market.token_ids
    await venue.send([up], event | {"asset_id": up})
    await venue.send([up], event | {"asset_id": down, "price": "0.4", "side": "SELL"})
    await venue.send([up], event | {"asset_id": down, "price": "0.3"})
    await venue.send([up], event | {"asset_id": other.token_ids[0]})
    await venue.send([up], event | {"asset_id": up, "price": "7"})
    await until(lambda: socket_of(data).feed.unparsed == 1)
    assert [(t.market_id, t.outcome, str(t.price), t.side.value) for t in trades] == [
        (market.market_id, "UP", "0.6", "BUY"),
        (market.market_id, "DOWN", "0.3", "BUY"),
    ]


async def test_md_05_md_11_md_12_a_reconnect_rebuilds_all(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1)
    states: list[bool] = []
    await data.subscribe_orderbook([market], lambda book: states.append(book.valid))
    states.clear()
    await venue.drop_all()
    await until(lambda: states)
    assert not any(states)
    assert data.book(market, "UP").reason.startswith("disconnected")
    await venue.change(market, "0.49", "0", "BUY", send=False)  # a ghost level, if the old book survived
    added = venue.add(2)
    subscribing = asyncio.create_task(data.subscribe_orderbook([added]))
    await until(lambda: right(venue, data, market))
    await subscribing
    assert right(venue, data, added)
    assert venue.connections == 2
    assert sorted(venue.subscribed[-1]) == sorted([*market.token_ids, *added.token_ids])
    assert data.book(market, "UP").generation == 2


async def test_md_01_silence_is_confirmed_by_one_read(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1)
    states: list[tuple[bool, str]] = []
    await data.subscribe_orderbook([market], lambda book: states.append((book.valid, book.reason)))
    states.clear()
    await until(lambda: len(states) == 4)
    assert states == [(False, "silent")] * 2 + [(True, "")] * 2
    assert venue.connections == 1
    assert sorted(venue.books_asked[0]) == sorted(market.token_ids)


@pytest.mark.parametrize("status", [200, 500])
async def test_md_01_a_silent_stall_costs_the_connection(
    venue: LoopbackVenue, data: PolymarketMarketData, status: int
) -> None:
    market = venue.add(1)
    await data.subscribe_orderbook([market])
    venue.mute, venue.rest_status = True, status
    await venue.change(market, "0.50", "1", "BUY")
    await until(lambda: not data.book(market, "UP").valid)
    venue.mute = False
    await until(lambda: right(venue, data, market))
    assert venue.connections == 2
    assert socket_of(data).stats.silences >= 1


async def test_silence_after_the_end_is_no_fault(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1, seconds=5)  # 0.25 s of wall time
    await data.subscribe_orderbook([market])
    venue.truth.clear()
    await until(lambda: socket_of(data).stats.silences >= 1)
    await asyncio.sleep(0.05)
    assert venue.connections == 1
    assert venue.books_asked == []


async def test_md_08_a_missed_change_is_repaired_by_subscribing_again(
    venue: LoopbackVenue, data: PolymarketMarketData
) -> None:
    market, other = venue.add(1), venue.add(2)
    await data.subscribe_orderbook([market, other])
    await venue.change(market, "0.49", "0", "BUY", send=False)
    await venue.change(market, "0.30", "1", "BUY")
    await until(lambda: not data.book(market, "UP").valid)
    assert right(venue, data, other)
    await until(lambda: right(venue, data, market))
    assert sorted(venue.unsubscribed[-1]) == sorted(market.token_ids)
    assert venue.connections == 1
    assert venue.books_asked == []


async def test_a_repair_falls_back_to_rest_and_then_to_a_new_connection(
    venue: LoopbackVenue, data: PolymarketMarketData
) -> None:
    market = venue.add(1)
    await data.subscribe_orderbook([market])
    await venue.send_text('{"event_type":"price_change","asset')
    await until(lambda: not data.book(market, "UP").valid)
    await until(lambda: right(venue, data, market))
    # A tick change whose book never comes: REST.
    await venue.change_tick(market, "0.001", books=False)
    await until(lambda: not data.book(market, "UP").valid)
    await venue.change(market, "0.485", "7", "BUY")
    await until(lambda: right(venue, data, market))
    assert venue.books_asked
    assert socket_of(data).repaired == 2
    assert data.book(market, "UP").unit == 10
    # And where REST is down as well, the book stays invalid until it is back.
    venue.rest_status = 503
    venue.no_dump = set(market.token_ids)
    await venue.change_tick(market, "0.01", books=False)
    await until(lambda: not data.book(market, "UP").valid)
    await asyncio.sleep(0.5)
    assert not data.book(market, "UP").valid
    venue.rest_status, venue.no_dump = 200, set()
    await until(lambda: right(venue, data, market))


async def test_md_21_a_tick_change_with_its_book(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1)
    changed: list[PolymarketMarket] = []
    await data.subscribe_markets(changed.append)  # type: ignore[arg-type]
    await data.subscribe_orderbook([market])
    await venue.change_tick(market, "0.001")
    await venue.change(market, "0.485", "7", "BUY")
    await until(lambda: right(venue, data, market))
    assert data.book(market, "UP").unit == 10
    assert [state.grid.unit for state in changed] == [10]
    assert data.current(market).check_price("0.485") == Decimal("0.485")
    assert venue.books_asked == []
    assert len(venue.subscribed) == 1


async def test_a_slow_first_snapshot(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market = venue.add(1)
    venue.dump_delay = 0.3
    await data.subscribe_orderbook([market])
    assert right(venue, data, market)
    assert venue.connections == 1


async def test_a_first_snapshot_that_never_comes(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    market, fine = venue.add(1), venue.add(2)
    await data.subscribe_orderbook([fine])
    venue.no_dump = set(market.token_ids)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(VenueUnavailable, match=r"127\.0\.0\.1:\d+ sent no book of 2 of 2 assets"):
        await data.subscribe_orderbook([market])
    assert asyncio.get_running_loop().time() - begin == pytest.approx(2.0, abs=0.5)
    assert 2 <= venue.connections <= 3  # new connections were tried for it, within bounds
    assert data.book(market, "UP").reason == "not subscribed"
    await until(lambda: right(venue, data, fine))


async def test_an_asset_without_a_book_does_not_drag_the_others_down_for_ever(
    venue: LoopbackVenue, data: PolymarketMarketData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "SUBSCRIBE_SECONDS", 30.0)
    market, fine = venue.add(1), venue.add(2)
    venue.no_dump = set(market.token_ids)
    await data.subscribe_orderbook([fine])
    waiting = asyncio.create_task(data.subscribe_orderbook([market]))
    await until(lambda: venue.connections >= 3)
    seen = venue.connections
    await asyncio.sleep(1.5)
    assert venue.connections <= seen + 2
    assert right(venue, data, fine)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: set(market.token_ids) not in map(set, venue.sessions.values()))


async def test_md_27_at_most_200_assets_on_a_connection(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    markets = [venue.add(number) for number in range(ASSETS_PER_SOCKET // 2 + 3)]
    subscription = await data.subscribe_orderbook(markets)
    assert [len(socket.wanted) for socket in data.sockets] == [ASSETS_PER_SOCKET, 6]
    assert all(right(venue, data, market) for market in markets)
    assert len(venue.subscribed) == 2
    await subscription.close()
    assert len(data.sockets) == 1


async def test_ro_03_messages_after_unsubscribing_are_dropped(venue: LoopbackVenue, data: PolymarketMarketData) -> None:
    old, new = venue.add(1), venue.add(2)
    first = await data.subscribe_orderbook([old])
    await data.subscribe_orderbook([new])
    events: list[OrderBook] = []
    await first.close()
    (session,) = venue.sessions.values()
    session |= set(old.token_ids)  # the venue goes on sending
    await venue.change(old, "0.50", "1", "BUY")
    await until(lambda: socket_of(data).feed.strangers == 2)
    assert events == []
    assert right(venue, data, new)


async def test_md_13_old_messages_mean_a_new_connection(
    venue: LoopbackVenue, data: PolymarketMarketData, clock: Clock
) -> None:
    market = venue.add(1)
    data.venue_clock.observe(clock.now_ms(), clock.now_ms(), clock.now_ms())
    await data.subscribe_orderbook([market])
    venue.stamp_ms = 0
    venue.now = lambda: str(clock.now_ms() - round(6000 * FACTOR))  # type: ignore[method-assign]
    reasons: list[str] = []
    for _ in range(80):
        await venue.change(market, "0.30", "1", "BUY")
        reasons.append(socket_of(data).stats.last_reason)
    await until(lambda: "old" in socket_of(data).stats.last_reason or venue.connections > 1)


async def test_subscribing_to_nothing(data: PolymarketMarketData) -> None:
    subscription = await data.subscribe_orderbook([])
    assert data.sockets == ()
    await subscription.close()


async def test_no_connection_at_all(clock: Clock) -> None:
    async with LoopbackVenue(clock) as venue:
        endpoints = venue.endpoints
    async with PolymarketMarketData(endpoints, clock) as data:
        with pytest.raises(VenueUnavailable):
            await data.subscribe_orderbook([make_market(1, clock)])


async def test_pl_09_close_is_quick_complete_and_idempotent(venue: LoopbackVenue, clock: Clock) -> None:
    before = asyncio.all_tasks()
    market, never = venue.add(1), venue.add(2)
    venue.no_dump = set(never.token_ids)
    data = PolymarketMarketData(venue.endpoints, clock)
    subscription = await data.subscribe_orderbook([market])
    markets = await data.subscribe_markets()
    waiting = asyncio.create_task(data.subscribe_orderbook([never]))
    result = asyncio.create_task(data.wait_result(market))
    await asyncio.sleep(0.05)
    book = data.book(market, "UP")
    begin = asyncio.get_running_loop().time()
    await asyncio.gather(data.close(), data.close())
    assert asyncio.get_running_loop().time() - begin < 1.0
    assert not book.valid
    assert [event async for event in subscription] or subscription.closed
    assert markets.closed
    with pytest.raises(VenueUnavailable):
        await waiting
    assert isinstance((await asyncio.gather(result, return_exceptions=True))[0], asyncio.CancelledError)
    with pytest.raises(VenueUnavailable):
        await data.subscribe_orderbook([market])
    await asyncio.sleep(0.05)
    left = {task for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}
    assert left == set()
    gc.collect()


async def test_nothing_connects_before_it_is_asked(venue: LoopbackVenue, clock: Clock) -> None:
    data = PolymarketMarketData(venue.endpoints, clock)
    data.finder()
    assert data.sockets == ()
    await data.close()
    assert venue.connections == 0
