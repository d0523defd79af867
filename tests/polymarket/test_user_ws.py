"""Fills and orders as streams: the user channel, and REST for what it missed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest

from pmkit.errors import PmkitError
from pmkit.exchanges.polymarket.auth import Credentials
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.journal import Journal
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.user_messages import OwnOrder
from pmkit.exchanges.types import Fill, FillState, OrderId, OrderState, OrderStatus, Side

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.venues import LocalVenues
from tests.polymarket.accounts import API_KEY, PASSPHRASE, SECRET
from tests.polymarket.trading import account_of, current, exchange_of, local, net, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local(9) as venues:
        yield venues


@pytest.fixture
async def exchange(venues: LocalVenues) -> AsyncIterator[PolymarketExchange]:
    async with exchange_of(venues) as exchange:
        yield exchange


@pytest.fixture
async def market(exchange: PolymarketExchange) -> PolymarketMarket:
    return await current(exchange)


async def take(exchange: PolymarketExchange, market: PolymarketMarket, amount: int = 10) -> OrderId:
    return await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=amount)


def once(fills: list[Fill]) -> bool:
    return set(Counter((fill.fill_id, fill.order_id, fill.state) for fill in fills).values()) <= {1}


def final(fills: list[Fill]) -> bool:
    return any(fill.state is not FillState.PENDING for fill in fills)


async def test_uw_01_fills_missed_while_disconnected_come_once_after_it(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    states: list[OrderStatus] = []
    await exchange.subscribe_fills(fills.append)
    await exchange.subscribe_orders(states.append)
    venues.polymarket.faults.reject_handshake(503, times=1)
    venues.polymarket.faults.drop_connections()
    placed = await take(exchange, market)
    record = orders_of(venues, account_of(venues))[placed]
    await until(lambda: record.matched, 3)
    await until(lambda: exchange.journal.filled(placed) == D(record.matched).scaleb(-6), 10)
    await until(lambda: not exchange.journal.pending(), 10)
    assert once(fills)
    assert net(fills) == {"UP": D(record.matched).scaleb(-6)}
    assert [state.status for state in states if state.order_id == placed][-1] is OrderState.FILLED


async def test_uw_02_repeated_events_are_one_fill(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    states: list[OrderStatus] = []
    await exchange.subscribe_fills(fills.append)
    await exchange.subscribe_orders(states.append)
    venues.polymarket.faults.arm("duplicate_event", 1000)
    placed = await take(exchange, market)
    await until(lambda: fills and not exchange.journal.pending(), 10)
    await exchange.stream.back_fill()
    assert once(fills)
    assert set(Counter((state.order_id, state.status, state.filled_amount) for state in states).values()) == {1}
    assert {fill.order_id for fill in fills} == {str(placed)}


async def test_uw_03_a_fill_before_the_answer_is_known_as_own(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    venues.polymarket.answers.late_seconds = 0.4
    venues.polymarket.faults.arm("answer_late")
    placing = asyncio.create_task(
        exchange.place_market_order(
            market, "UP", Side.BUY, worst_price="0.98", amount=10, client_order_id="before the answer"
        )
    )
    await until(lambda: fills, 3)
    assert not placing.done()
    assert {(fill.own, fill.client_order_id) for fill in fills} == {(True, "before the answer")}
    placed = await placing
    assert {fill.order_id for fill in fills} == {str(placed)}
    # The late answer says less than what is known by now, and does not take it back.
    status = exchange.journal.status(placed)
    assert status is not None and status.status is OrderState.FILLED


async def test_uw_04_a_trade_that_fails_is_taken_back(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    states: list[OrderStatus] = []
    await exchange.subscribe_fills(fills.append)
    await exchange.subscribe_orders(states.append)
    venues.polymarket.faults.arm("trade_failed", 20)
    placed = await take(exchange, market)
    await until(lambda: any(fill.state is FillState.FAILED for fill in fills), 10)
    await until(lambda: not exchange.journal.pending(), 10)
    assert [fill.state for fill in fills if fill.fill_id == fills[0].fill_id] == [FillState.PENDING, FillState.FAILED]
    assert exchange.journal.filled(placed) == 0
    assert await exchange.get_positions() == []
    # The venue goes on counting it as matched; the order holds nothing.
    status = await exchange.get_order_status(placed)
    assert (status.status, status.filled_amount) == (OrderState.CANCELED, 0)
    assert "failed on chain" in status.reason
    assert states[-1].status is OrderState.CANCELED and states[-1].filled_amount == 0


async def test_uw_05_a_resting_order_that_is_hit_in_parts(venues: LocalVenues) -> None:
    """Some parts over the socket, some over REST only: they sum up to what the order says."""
    accounts = venues.polymarket_accounts
    async with exchange_of(venues, accounts[0]) as maker, exchange_of(venues, accounts[2]) as taker:
        market = await current(maker)
        venues.polymarket.desk.taker_delay_seconds = 0
        fills: list[Fill] = []
        states: list[OrderStatus] = []
        await maker.subscribe_fills(fills.append)
        await maker.subscribe_orders(states.append)
        book = await taker.get_orderbook(market, "UP")
        bid, ask = book.best_bid, book.best_ask
        assert bid is not None and ask is not None
        price = market.floor_price((bid + ask) / 2)
        part = max(5, int(1 / (1 - price)) + 1)  # one that takes is worth a dollar at least
        rested = await maker.place_limit_order(market, "UP", Side.BUY, price, 6 * part)
        record = orders_of(venues, account_of(venues, accounts[0]))[rested]
        for number in range(6):
            if number % 2:
                venues.polymarket.faults.drop_connections()
            # Whoever buys DOWN at the rest of a dollar makes a pair with it.
            await taker.place_limit_order(market, "DOWN", Side.BUY, 1 - price, part)
        await until(lambda: maker.journal.matched(rested) == D(record.matched).scaleb(-6), 15)
        parts = [fill for fill in fills if fill.order_id == rested and fill.state is FillState.PENDING]
        assert len(parts) > 1 and once(fills)
        assert sum((fill.size for fill in parts), D(0)) == D(record.matched).scaleb(-6) <= 6 * part
        grown = [state.filled_amount for state in states if state.order_id == rested]
        assert grown == sorted(grown)
        status = await maker.get_order_status(rested)
        assert status.filled_amount == D(record.matched).scaleb(-6)


async def test_uw_06_a_silent_socket_is_found_out_and_replaced(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmkit.exchanges.polymarket.owed.SILENT_SECONDS", 0.3)
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    venues.polymarket.user.silence(1.5 * venues.clock.factor)
    placed = await take(exchange, market)
    await until(lambda: fills, 5)
    assert {fill.order_id for fill in fills} == {str(placed)}
    await until(lambda: not exchange.journal.pending(), 10)
    assert exchange.stream.silences == 1
    assert exchange.stream.socket is not None and exchange.stream.socket.stats.disconnects == 1
    assert once(fills)


async def test_uw_06_a_resting_order_that_is_hit_on_a_silent_socket_is_heard_of(venues: LocalVenues) -> None:
    """Nothing is owed and nothing pending: that an order rests is reason enough to look."""
    accounts = venues.polymarket_accounts
    async with exchange_of(venues, accounts[0]) as maker, exchange_of(venues, accounts[2]) as taker:
        market = await current(maker)
        venues.polymarket.desk.taker_delay_seconds = 0
        for live in venues.polymarket.live.values():
            live.traders.step = lambda: None  # type: ignore[method-assign]
        fills: list[Fill] = []
        await maker.subscribe_fills(fills.append)
        book = await taker.get_orderbook(market, "UP")
        assert book.best_bid is not None and book.best_ask is not None
        price = market.floor_price((book.best_bid + book.best_ask) / 2)
        rested = await maker.place_limit_order(market, "UP", Side.BUY, price, 20)
        await until(lambda: maker.journal.records[str(rested)].seen, 3)
        await asyncio.sleep(1)  # matches are dated in whole seconds: this one is clearly of this connection
        venues.polymarket.user.silence(1e6)
        assert not fills
        await taker.place_limit_order(market, "DOWN", Side.BUY, 1 - price, 20)
        await until(lambda: any(fill.order_id == rested for fill in fills), 30)
        assert maker.stream.socket is not None
        await until(lambda: maker.stream.silences == 1 and maker.stream.socket.stats.disconnects == 1, 30)
        assert once(fills)


@pytest.mark.parametrize("lost", ["garbled", "swallowed"])
async def test_a_trade_that_the_socket_never_told_legibly_comes_over_rest(
    venues: LocalVenues,
    exchange: PolymarketExchange,
    market: PolymarketMarket,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """The events of the order come all the same, so that nothing is owed."""
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    send = venues.polymarket.user._send

    def without_trades(owner: str, condition: str, event: dict[str, object]) -> None:
        if event["event_type"] != "trade":
            send(owner, condition, event)
        elif lost == "garbled":
            send(owner, condition, {**event, "price": None})

    monkeypatch.setattr(venues.polymarket.user, "_send", without_trades)
    placed = await take(exchange, market)
    await until(lambda: exchange.journal.records[str(placed)].seen, 3)
    await until(lambda: fills, 30)
    assert {fill.order_id for fill in fills} == {str(placed)}
    await until(lambda: final(fills) and not exchange.journal.pending(), 60)
    assert exchange.journal.filled(placed) == placed.filled_amount or placed.filled_amount == 0
    assert once(fills)


async def test_uw_05_more_than_the_order_is_not_believed_and_read_over_rest(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes in base units, as one page of the venue has them."""
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    send = venues.polymarket.user._send

    def in_base_units(owner: str, condition: str, event: dict[str, object]) -> None:
        if event["event_type"] == "trade":
            event = {**event, "size": str(D(str(event["size"])).scaleb(6))}
        send(owner, condition, event)

    monkeypatch.setattr(venues.polymarket.user, "_send", in_base_units)
    placed = await take(exchange, market)
    await until(lambda: exchange.journal.impossible, 3)
    await until(lambda: final(fills) and not exchange.journal.pending(), 60)
    record = orders_of(venues, account_of(venues))[placed]
    assert exchange.journal.filled(placed) == D(record.matched).scaleb(-6)
    assert once(fills)


async def test_a_fill_of_an_own_order_is_of_the_market_that_was_signed_for(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Condition ids of Protocol V2 are written with and without their padding."""
    fills: list[Fill] = []
    states: list[OrderStatus] = []
    await exchange.subscribe_fills(fills.append)
    await exchange.subscribe_orders(states.append)
    send = venues.polymarket.user._send
    other = "0x" + "9" * 62
    monkeypatch.setattr(
        venues.polymarket.user, "_send", lambda owner, of, event: send(owner, of, {**event, "market": other})
    )
    placed = await take(exchange, market)
    await until(lambda: final(fills), 10)
    assert {fill.market_id for fill in fills if fill.order_id == placed} == {market.market_id}
    assert {status.market_id for status in states} == {market.market_id}


async def test_one_trade_over_rest_that_does_not_read_hides_no_other(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    venues.polymarket.user.silence(1e6)
    async with exchange_of(venues) as other:
        placed = await take(other, market)
        await asyncio.sleep(1)  # the taker delay
        page = msgspec.json.decode((await other._http.get("/data/trades", {"next_cursor": "MA=="})).body)
    page["data"].insert(0, {**page["data"][0], "id": "odd", "price": None})
    venues.polymarket.faults.http_status("^GET /data/trades", 200, msgspec.json.encode(page).decode(), times=None)
    await exchange.stream.back_fill()
    assert {fill.order_id for fill in fills} == {str(placed)}
    assert exchange.stream.odd_rows
    with pytest.raises(PmkitError, match="does not read"):  # a query that is asked for everything says so
        await exchange.get_positions()


async def test_one_wrong_date_of_the_venue_hides_no_fill(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    exchange.venue_clock.offset_ms = 3_600_000
    await exchange.stream.back_fill()
    exchange.venue_clock.offset_ms = 0
    venues.polymarket.user.silence(1e6)
    async with exchange_of(venues) as other:
        placed = await take(other, market)
        await asyncio.sleep(10)  # longer than two reads overlap
        await exchange.stream.back_fill()
        assert {fill.order_id for fill in fills} == {str(placed)}


async def test_uw_06_wrong_credentials_are_an_error_and_no_quiet_account(venues: LocalVenues) -> None:
    test = venues.polymarket_account
    wrong = Credentials(test.address, API_KEY, SECRET, PASSPHRASE)
    async with exchange_of(venues, credentials=wrong) as exchange:
        with pytest.raises(PmkitError):
            await exchange.subscribe_fills(lambda fill: None)


async def test_uw_08_a_fill_of_another_process_is_delivered_as_foreign(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    async with exchange_of(venues) as other:
        placed = await take(other, market)
        await until(lambda: fills, 5)
        assert {(fill.order_id, fill.own, fill.outcome) for fill in fills} == {(str(placed), False, "UP")}


async def test_the_venues_own_cancel_comes_with_its_reason(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    states: list[OrderStatus] = []
    await exchange.subscribe_orders(states.append)
    placed = await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
    record = orders_of(venues, account_of(venues))[placed]
    venues.polymarket.desk.take_out([record], "CANCELED_NOT_ENOUGH_BALANCE")
    await until(lambda: states and states[-1].status is OrderState.CANCELED, 3)
    assert states[-1].reason == "not enough balance"


async def test_a_reader_that_falls_behind_is_refilled(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    stream = await exchange.subscribe_fills()
    stream._limit = 1
    for _ in range(3):
        await take(exchange, market, 5)
    await until(lambda: len(exchange.journal.fills) >= 6 and not exchange.journal.pending(), 10)
    got: list[Fill] = []
    while len(got) < len(exchange.journal.fills):
        async with asyncio.timeout(3):
            got.append(await anext(stream))
    assert stream.stats.gaps > 0
    assert once(got)


async def test_garbage_and_unknown_events_do_not_end_the_stream(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    fills: list[Fill] = []
    await exchange.subscribe_fills(fills.append)
    venues.polymarket.faults.garbage(b'[{"event_type":"trade","id":"x"},{"event_type":"news"}]')
    venues.polymarket.faults.garbage("{cut")
    await take(exchange, market)
    await until(lambda: fills, 3)
    socket = exchange.stream.socket
    assert socket is not None
    assert socket.stats.garbage == 2
    assert socket.stats.unknown == {"news": 1}
    assert socket.stats.disconnects == 0


async def test_close_leaves_no_task_behind(venues: LocalVenues) -> None:
    before = asyncio.all_tasks()
    exchange = exchange_of(venues)
    market = await current(exchange)
    await exchange.subscribe_fills(lambda fill: None)
    await exchange.subscribe_reference(["BTC"])
    await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
    async with asyncio.timeout(1.5):
        await exchange.close()
        await exchange.close()
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not {task.get_name() for task in left if task.get_name().startswith("pmkit ")}


def row(status: str, matched: str, event: str = "UPDATE") -> OwnOrder:
    return OwnOrder(
        order_id="0xaa",
        market_id="0x" + "ab" * 32,
        token_id="1",
        side=Side.BUY,
        price=D("0.5"),
        original_size=D(10),
        size_matched=D(matched),
        status=status,
        event=event,
    )


def test_uw_09_any_order_of_events_ends_in_the_same_state() -> None:
    from itertools import permutations

    rows = [row("LIVE", "0", "PLACEMENT"), row("LIVE", "4"), row("LIVE", "7"), row("CANCELED", "7", "CANCELLATION")]
    ends = set()
    for order in permutations(rows):
        journal = Journal("polymarket")
        for one in order:
            journal.on_order(one, "UP")
        status = journal.status("0xaa")
        assert status is not None
        ends.add((status.status, status.filled_amount))
    assert ends == {(OrderState.CANCELED, D(7))}


def test_an_unknown_word_keeps_the_state_and_is_counted() -> None:
    journal = Journal("polymarket")
    journal.on_order(row("LIVE", "0", "PLACEMENT"), "UP")
    assert journal.on_order(row("PONDERING", "0"), "UP") is None
    status = journal.status("0xaa")
    assert status is not None and status.status is OrderState.LIVE
    assert journal.odd_words == {"PONDERING": 1}
    assert msgspec.structs.asdict(status)["outcome"] == "UP"
