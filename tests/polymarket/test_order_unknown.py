"""Orders whose outcome is unknown, in every way that it can come to that: nothing is made up and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest

from pmkit.clock import Entropy
from pmkit.errors import CancelUnknown, InvalidOrder, MarketNotFound, NotSent, OrderRejected, OrderUnknown
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import Absent, Accepted, Order, OrderId, OrderState, Side
from pmkit.http import HttpAnswer

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.proxy import Proxy
from pmkit.sim.venues import LocalVenues
from tests.local import clock_of
from tests.polymarket.trading import account_of, current, exchange_of, local, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal
LOW = D("0.02")


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local(13) as venues:
        yield venues


@pytest.fixture
async def exchange(venues: LocalVenues) -> AsyncIterator[PolymarketExchange]:
    async with exchange_of(venues) as exchange:
        yield exchange


@pytest.fixture
async def market(exchange: PolymarketExchange) -> PolymarketMarket:
    return await current(exchange)


def booked(venues: LocalVenues) -> set[str]:
    return set(orders_of(venues, account_of(venues)))


async def rest(exchange: PolymarketExchange, market: PolymarketMarket) -> OrderId:
    return await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 10)


async def test_oe_03_a_reset_in_the_middle_of_the_request_loses_nothing(
    venues: LocalVenues, market: PolymarketMarket
) -> None:
    async with Proxy(venues.polymarket.clob.port, clock_of(venues)) as proxy:
        known: set[str] = set()
        for cut in (17, 600, 1150, 4000):
            async with exchange_of(venues) as through:
                through._http.orders.base_url = f"http://127.0.0.1:{proxy.port}"
                await through.login.ready()
                proxy.reset_after(cut)
                try:
                    known.add(str(await rest(through, market)))
                except OrderUnknown as error:
                    found = await through.resolve_order(error.intent)
                    if isinstance(found, Accepted):
                        known.add(str(found.order_id))
                except NotSent:
                    pass
                assert booked(venues) == known, cut
        assert known and proxy.counts["reset_after"] >= 3  # the last one is longer than the request


async def test_oe_07_a_caller_that_is_cancelled_at_any_moment_leaves_nothing_behind(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    known: set[str] = set()
    for turns in range(25):
        placing = asyncio.ensure_future(rest(exchange, market))
        for _ in range(turns):
            await asyncio.sleep(0)
        placing.cancel()
        try:
            known.add(str(await placing))
        except asyncio.CancelledError:
            assert len(exchange.unresolved) <= 1
        for intent in exchange.unresolved:
            found = await exchange.resolve_order(intent)
            assert isinstance(found, Accepted), turns
            known.add(str(found.order_id))
        assert booked(venues) == known, turns
    assert len(known) >= 20  # all but those that were cancelled before they began


async def test_oe_08_the_status_of_an_unknown_order_is_unknown(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.faults.arm("request_lost")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    order_id = str(caught.value.intent.order_id)
    with pytest.raises(OrderUnknown, match="resolve_order"):
        await exchange.get_order_status(order_id)
    assert await exchange.resolve_order(caught.value.intent) == Absent(caught.value.intent)
    assert (await exchange.get_order_status(order_id)).status is OrderState.REJECTED
    for wrong in ("0x12", "garbage?a=b", "../balance", ""):
        with pytest.raises(MarketNotFound, match="no order id"):
            await exchange.get_order_status(wrong)


async def test_a_refused_order_is_rejected_ever_after(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.desk.closed_only.add(venues.polymarket_account.address)
    with pytest.raises(OrderRejected, match="closed only"):
        await rest(exchange, market)
    (record,) = exchange.journal.records.values()
    status = await exchange.get_order_status(record.order_id)
    assert (status.status, status.filled_amount) == (OrderState.REJECTED, 0)
    assert "closed only" in status.reason


async def test_oe_20_not_found_is_no_end_of_an_order_that_may_still_arrive(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.answers.zombie_seconds = 0.5
    venues.polymarket.faults.arm("request_late")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    order_id = str(caught.value.intent.order_id)
    assert order_id not in booked(venues)
    with pytest.raises(CancelUnknown, match="not resolved"):
        await exchange.cancel_order(order_id)
    found = await exchange.resolve_order(caught.value.intent)
    assert isinstance(found, Accepted)
    assert await exchange.cancel_order(order_id)
    assert not orders_of(venues, account_of(venues))[order_id].open


async def test_rs_16_an_answer_that_is_held_back_is_waited_for_or_unknown_and_never_asked_for_again(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    venues.polymarket.answers.late_seconds = 0.3
    venues.polymarket.faults.arm("answer_late")
    placed = await rest(exchange, market)
    assert placed.status is OrderState.LIVE
    exchange._http.orders._timeout = 0.2
    venues.polymarket.faults.arm("answer_late")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    assert isinstance(await exchange.resolve_order(caught.value.intent), Accepted)
    assert venues.polymarket.clob.requests["POST /order"] == len(booked(venues)) == 2


async def test_oe_22_a_second_process_makes_ids_of_its_own(venues: LocalVenues, market: PolymarketMarket) -> None:
    placed: list[str] = []
    clients: list[str] = []
    for _ in range(2):
        clock = clock_of(venues)
        clock.entropy = Entropy()
        async with exchange_of(venues, clock=clock) as one:
            placed += [str(await rest(one, market)), str(await rest(one, market))]
            clients += [record.intent.client_order_id for record in one.journal.records.values()]
    assert len(set(placed)) == len(set(clients)) == 4
    assert booked(venues) == set(placed)


async def test_one_order_is_not_replaced_by_two(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    leg = Order(market_id=market.market_id, outcome="UP", side=Side.BUY, price=LOW, size=D(11))
    with pytest.raises(InvalidOrder, match="twice"):
        await exchange.replace_orders([placed, placed.upper().replace("X", "x", 1)], [leg, leg])
    assert booked(venues) == {str(placed)}
    assert orders_of(venues, account_of(venues))[placed].open


async def test_rs_06_a_key_that_the_venue_forgot_is_fetched_anew_by_a_query(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    identity = await exchange.login.ready()
    (key,) = venues.polymarket.keys.of(venues.polymarket_account.address)
    venues.polymarket.keys.forget(key)
    assert [status.order_id for status in await exchange.get_open_orders()] == [placed]
    again = await exchange.login.ready()
    assert again.credentials.api_key != identity.credentials.api_key
    assert (await rest(exchange, market)).status is OrderState.LIVE
    await until(lambda: len(booked(venues)) == 2)


async def test_a_refusal_of_an_order_that_the_socket_has_told_of_proves_nothing(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge in between answers with a text of the table while the engine has the order."""
    await exchange.subscribe_orders(lambda status: None)
    send = exchange._http.send

    async def refused(method: str, path: str, body: bytes | None) -> HttpAnswer:
        answer = await send(method, path, body)
        if method == "POST":
            await until(lambda: all(record.seen for record in exchange.journal.records.values()))
            answer = msgspec.structs.replace(answer, status=429, body=b'{"error":"Too Many Requests"}')
        return answer

    monkeypatch.setattr(exchange._http, "send", refused)
    with pytest.raises(OrderUnknown, match="Too Many Requests") as caught:
        await rest(exchange, market)
    assert exchange.unresolved == (caught.value.intent,)
    found = await exchange.resolve_order(caught.value.intent)
    assert isinstance(found, Accepted) and found.order_id.status is OrderState.LIVE
    assert {str(found.order_id)} == booked(venues)
    assert exchange.unresolved == ()


async def test_a_lookup_that_is_answered_with_another_order_is_no_answer(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    other = await rest(exchange, market)
    venues.polymarket.faults.arm("request_lost")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    lost = str(caught.value.intent.order_id)
    answer = await exchange._http.get(f"/data/order/{other}")
    venues.polymarket.faults.http_status(f"^GET /data/order/{lost}", 200, answer.body.decode(), times=None)
    with pytest.raises(OrderUnknown, match="another order"):
        await exchange.resolve_order(caught.value.intent)
    venues.polymarket.faults.forget(f"^GET /data/order/{lost}")
    assert isinstance(await exchange.resolve_order(caught.value.intent), Absent)


async def test_a_look_up_ends_when_the_exchange_is_closed(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.faults.arm("request_lost")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    exchange.lookup.absent_after = 60.0
    looking = asyncio.create_task(exchange.resolve_order(caught.value.intent))
    await asyncio.sleep(1)
    await exchange.close()
    async with asyncio.timeout(6):
        with pytest.raises(OrderUnknown, match="closed"):
            await looking
    assert exchange.unresolved == (caught.value.intent,)


@pytest.mark.parametrize("legs", [1, 2])
async def test_oe_07_closing_while_a_duplicate_is_looked_up_ends_as_unknown(
    venues: LocalVenues,
    exchange: PolymarketExchange,
    market: PolymarketMarket,
    monkeypatch: pytest.MonkeyPatch,
    legs: int,
) -> None:
    """And not as a cancellation, which nobody asked for and which would end the caller's task without a word."""
    await exchange.keep_warm()
    send = exchange._http.send

    async def duplicated(method: str, path: str, body: bytes | None) -> HttpAnswer:
        answer = await send(method, path, body)
        said = f"order {next(iter(exchange.journal.records))} is invalid. Duplicated."
        leg = {"orderID": "", "errorMsg": said, "success": False}
        if legs == 1:
            return msgspec.structs.replace(answer, status=400, body=msgspec.json.encode({"error": said}))
        return msgspec.structs.replace(answer, body=msgspec.json.encode([leg] * legs))

    monkeypatch.setattr(exchange._http, "send", duplicated)
    venues.polymarket.reads.hydration_seconds = 1e6
    order = Order(market_id=market.market_id, outcome="UP", side=Side.BUY, price=LOW, size=D(10))
    placing = asyncio.create_task(rest(exchange, market) if legs == 1 else exchange.place_orders([order] * legs))
    await until(lambda: len(booked(venues)) == legs)
    await asyncio.sleep(0.3)
    async with asyncio.timeout(1.5):
        await exchange.close()
    if legs == 1:
        with pytest.raises(OrderUnknown):
            await placing
    else:
        assert [type(result) for result in await placing] == [OrderUnknown] * legs
    assert len(exchange.unresolved) == legs
