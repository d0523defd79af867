"""Placing orders on the local venue: three outcomes, nothing sent twice, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from pmkit.errors import (
    InsufficientFunds,
    InvalidOrder,
    NotSent,
    OrderAuthError,
    OrderRegionBlocked,
    OrderRejected,
    OrderUnknown,
    OrderVenueUnavailable,
)
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import Absent, Accepted, Order, OrderId, OrderState, Side, TimeInForce

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.polymarket.modes import Mode
from pmkit.sim.venues import LocalVenues
from tests.polymarket.trading import account_of, current, exchange_of, local, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal
LOW = D("0.02")


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local() as venues:
        yield venues


@pytest.fixture
async def exchange(venues: LocalVenues) -> AsyncIterator[PolymarketExchange]:
    async with exchange_of(venues) as exchange:
        yield exchange


@pytest.fixture
async def market(exchange: PolymarketExchange) -> PolymarketMarket:
    return await current(exchange)


def sent(venues: LocalVenues, path: str = "/order") -> int:
    return venues.polymarket.clob.requests[f"POST {path}"]


async def rest(exchange: PolymarketExchange, market: PolymarketMarket, size: int = 10) -> OrderId:
    return await exchange.place_limit_order(market, "UP", Side.BUY, LOW, size)


async def test_every_kind_of_wallet_trades(venues: LocalVenues) -> None:
    for kind, test in venues.polymarket_accounts.items():
        async with exchange_of(venues, test) as exchange:
            placed = await rest(exchange, await current(exchange))
            record = orders_of(venues, account_of(venues, test))[placed]
            assert (placed.status, record.intent.signed.signature_type) == (OrderState.LIVE, kind)


async def test_the_order_path_asks_nobody(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    before = sum(server.requests.total() for server in (venues.polymarket.clob, venues.polymarket.gamma))
    await rest(exchange, market)
    await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.99", amount=10)
    after = sum(server.requests.total() for server in (venues.polymarket.clob, venues.polymarket.gamma))
    assert after - before == 2


@pytest.mark.parametrize("fault", ["answer_lost", "answer_500", "request_lost"])
async def test_oe_01_oe_03_oe_04_an_answer_that_is_lost_leaves_the_outcome_unknown(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, fault: str
) -> None:
    venues.polymarket.faults.arm(fault)
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    intent = caught.value.intent
    assert exchange.unresolved == (intent,)
    assert sent(venues) == 1  # nothing was sent again
    found = await exchange.resolve_order(intent)
    stands = orders_of(venues, account_of(venues))
    if fault == "request_lost":
        assert found == Absent(intent)
        assert not stands
    else:
        assert isinstance(found, Accepted)
        assert list(stands) == [found.order_id] == [intent.order_id]
        assert found.order_id.status is OrderState.LIVE
    assert exchange.unresolved == ()
    assert sent(venues) == 1


async def test_oe_07_a_caller_that_is_cancelled_leaves_a_resolvable_intent(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    venues.polymarket.answers.late_seconds = 0.3
    venues.polymarket.faults.arm("answer_late")
    placing = asyncio.create_task(rest(exchange, market))
    await until(lambda: orders_of(venues, account_of(venues)))
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    (intent,) = exchange.unresolved
    found = await exchange.resolve_order(intent)
    assert isinstance(found, Accepted)
    assert list(orders_of(venues, account_of(venues))) == [found.order_id]
    assert exchange.unresolved == ()


async def test_oe_07_closing_in_the_middle_ends_as_unknown(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    venues.polymarket.answers.late_seconds = 3.0
    venues.polymarket.faults.arm("answer_late")
    placing = asyncio.create_task(rest(exchange, market))
    await until(lambda: orders_of(venues, account_of(venues)))
    async with asyncio.timeout(1.5):
        await exchange.close()
    with pytest.raises(OrderUnknown):
        await placing
    assert len(exchange.unresolved) == 1
    with pytest.raises(NotSent):
        await rest(exchange, market)


async def test_oe_08_a_new_order_that_cannot_be_read_yet_is_not_absent(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.reads.hydration_seconds = 0.5 * venues.clock.factor
    venues.polymarket.faults.arm("answer_lost")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    assert isinstance(await exchange.resolve_order(caught.value.intent), Accepted)


async def test_oe_08_a_vanished_order_that_was_filled_is_found_by_its_trades(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    venues.polymarket.faults.arm("answer_lost")
    with pytest.raises(OrderUnknown) as caught:
        await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.99", amount=5)
    await until(lambda: all(not row.open for row in orders_of(venues, account_of(venues)).values()))
    venues.polymarket.reads.hydration_seconds = 1e6  # the order itself is never seen again
    found = await exchange.resolve_order(caught.value.intent)
    assert isinstance(found, Accepted)
    assert found.order_id.filled_amount > 0


async def test_oe_20_an_order_that_appears_after_it_was_said_to_be_absent_is_known_again(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.lookup.absent_after = 0.2
    venues.polymarket.reads.hydration_seconds = 0.6 * venues.clock.factor
    venues.polymarket.faults.arm("answer_lost")
    with pytest.raises(OrderUnknown) as caught:
        await rest(exchange, market)
    intent = caught.value.intent
    assert isinstance(await exchange.resolve_order(intent), Absent)
    await asyncio.sleep(0.6)
    (listed,) = await exchange.get_open_orders(market)
    assert listed.client_order_id == intent.client_order_id
    assert exchange.unresolved == (intent,)
    assert "stands after all" in caplog.text
    assert isinstance(await exchange.resolve_order(intent), Accepted)


async def test_a_duplicate_client_order_id_is_refused_here(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 10, client_order_id="one")
    with pytest.raises(OrderRejected) as caught:
        await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 10, client_order_id="one")
    assert caught.value.code == "duplicate"
    assert sent(venues) == 1


async def test_refusals_are_proof_and_of_their_kind(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    desk, modes = venues.polymarket.desk, venues.polymarket.modes
    with pytest.raises(OrderRejected) as caught:
        await exchange.place_limit_order(market, "UP", Side.BUY, "0.99", 10, post_only=True)
    assert caught.value.code == "post_only_cross"
    with pytest.raises(InsufficientFunds):
        await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 10_000_000)
    with pytest.raises(InsufficientFunds):  # no shares to sell
        await exchange.place_limit_order(market, "DOWN", Side.SELL, "0.98", 10)
    account_of(venues).approve_none()
    with pytest.raises(InsufficientFunds) as short:
        await rest(exchange, market)
    assert short.value.code == "insufficient_allowance"
    account_of(venues).approve_all()
    desk.banned.add(venues.polymarket_account.address)
    with pytest.raises(OrderRejected, match="banned"):
        await rest(exchange, market)
    desk.banned.clear()
    modes.region_blocked = True
    with pytest.raises(OrderRegionBlocked):
        await rest(exchange, market)
    modes.region_blocked = False
    modes.set(Mode.CANCEL_ONLY)
    with pytest.raises(OrderVenueUnavailable):
        await rest(exchange, market)
    modes.set(Mode.RESTARTING)
    with pytest.raises(OrderUnknown):  # 425 proves nothing
        await rest(exchange, market)
    assert not orders_of(venues, account_of(venues))


@pytest.mark.parametrize(
    ("price", "size", "options"),
    [
        ("0.505", 10, {}),
        ("0.50", "10.001", {}),
        ("0.50", 1, {}),
        (0.5, 10, {}),
        ("0.50", 10, {"time_in_force": TimeInForce.GTD}),
        ("0.50", 10, {"time_in_force": TimeInForce.IOC, "post_only": True}),
        ("NaN", 10, {}),
        ("1", 10, {}),
    ],
)
async def test_oe_11_oe_12_what_cannot_be_right_is_never_sent(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, price: str, size: str, options: dict
) -> None:
    with pytest.raises(InvalidOrder):
        await exchange.place_limit_order(market, "UP", Side.BUY, price, size, **options)
    assert sent(venues) == 0


async def test_a_closed_market_takes_no_order(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    import msgspec

    over = msgspec.structs.replace(market, market_id="0x" + "12" * 32, close_ms=market.open_ms)
    with pytest.raises(OrderRejected) as caught:
        await rest(exchange, over)
    assert caught.value.code == "market_closed"
    assert sent(venues) == 0


async def test_rs_05_a_wrong_clock_is_measured_and_the_order_signed_anew_once(venues: LocalVenues) -> None:
    async with exchange_of(venues) as exchange:
        market = await current(exchange)
        await exchange.keep_warm()
        clock = exchange.venue_clock
        # What was measured is wrong by an hour, as after a step of the machine's clock that was not noticed.
        clock._bounds = [(-3_600_000, -3_599_999)]
        clock.offset_ms = -3_600_000
        placed = await rest(exchange, market)
        assert placed.status is OrderState.LIVE
        assert exchange._http.restamped == 1
        assert sent(venues) == 2
        assert list(orders_of(venues, account_of(venues))) == [placed]


async def test_rs_06_a_401_with_a_right_clock_is_the_key_and_is_not_repeated(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    await exchange.keep_warm()
    venues.polymarket.keys.forget(venues.polymarket_account.api_key)
    with pytest.raises(OrderAuthError):
        await rest(exchange, market)
    assert sent(venues) == 1
    # The credentials are made anew behind the scenes; the next order gets through.
    await until(lambda: venues.polymarket.clob.requests["POST /auth/api-key"] > 0)
    await until(lambda: not [task for task in exchange._tasks if "credentials" in task.get_name()])
    assert (await rest(exchange, market)).status is OrderState.LIVE


async def test_a_log_in_that_fails_is_proof_that_nothing_was_sent(venues: LocalVenues) -> None:
    venues.polymarket.faults.http_status("GET /auth/derive-api-key", 503, b"down", times=None)
    async with exchange_of(venues) as exchange:
        with pytest.raises(NotSent, match="log-in"):
            await rest(exchange, await current(exchange))
        assert sent(venues) == 0
        venues.polymarket.faults.clear()
        assert await rest(exchange, await current(exchange))


async def test_an_unreachable_venue_is_not_sent(venues: LocalVenues, exchange: PolymarketExchange) -> None:
    market = await current(exchange)
    await exchange.keep_warm()
    await exchange._http.orders.close()
    with pytest.raises(NotSent):
        await rest(exchange, market)
    assert exchange.unresolved == ()
    assert not exchange.journal.records


async def test_oe_17_oe_18_ioc_fills_in_part_or_not_at_all(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    nothing = await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 100, time_in_force=TimeInForce.IOC)
    assert (nothing.status, nothing.filled_amount) == (OrderState.CANCELED, 0)
    killed = await exchange.place_limit_order(market, "UP", Side.BUY, LOW, 100, time_in_force=TimeInForce.FOK)
    assert (killed.status, killed.filled_amount) == (OrderState.CANCELED, 0)
    venues.polymarket.desk.taker_delay_seconds = 0
    taken = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.99", amount=10)
    assert taken.filled_amount > 0
    status = await exchange.get_order_status(taken)
    assert status.status is OrderState.FILLED
    record = orders_of(venues, account_of(venues))[taken]
    assert status.filled_amount == D(record.matched).scaleb(-6)
    assert 9 < D(record.spent + record.fees).scaleb(-6) <= 10  # without a live book some is left over, never spent
    await exchange.subscribe_orderbook([market], lambda book: None)
    exact = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.99", amount=10)
    record = orders_of(venues, account_of(venues))[exact]
    assert D("9.8") < D(record.spent + record.fees).scaleb(-6) <= 10


async def test_gtd_ends_by_itself(venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket) -> None:
    at = exchange.clock.now() + timedelta(seconds=125)
    placed = await exchange.place_limit_order(
        market, "UP", Side.BUY, LOW, 10, time_in_force=TimeInForce.GTD, expires_at=at
    )
    assert (await exchange.get_order_status(placed)).status is OrderState.LIVE
    await until(lambda: not orders_of(venues, account_of(venues))[placed].open, 15)
    ended = await exchange.get_order_status(placed)
    assert ended.status.terminal
    assert ended.filled_amount == 0


async def test_oe_21_a_batch_gives_every_leg_its_own_result(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    def leg(price: str, size: int = 10, **options: object) -> Order:
        return Order(market_id=market.market_id, outcome="UP", side=Side.BUY, price=D(price), size=D(size), **options)

    legs = [leg("0.02"), leg("0.99", post_only=True), leg("0.03", 1), leg("0.03")]
    results = await exchange.place_orders(legs)
    assert [type(result) for result in results] == [OrderId, OrderRejected, InvalidOrder, OrderId]
    assert set(orders_of(venues, account_of(venues))) == {results[0], results[3]}
    assert sent(venues, "/orders") == 1
    many = await exchange.place_orders([leg("0.02", 10 + number) for number in range(17)])
    assert all(isinstance(result, OrderId) for result in many)
    assert sent(venues, "/orders") == 3
    venues.polymarket.faults.arm("answer_lost")
    lost = await exchange.place_orders([leg("0.04"), leg("0.05")])
    assert all(isinstance(result, OrderUnknown) for result in lost)
    assert len(exchange.unresolved) == 2
    for result in lost:
        assert isinstance(result, OrderUnknown)
        assert isinstance(await exchange.resolve_order(result.intent), Accepted)
    assert exchange.unresolved == ()


async def test_a_tick_that_changed_unseen_is_read_after_the_refusal(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    live = venues.polymarket.live[market.market_id]
    live.tick = 100  # the venue's own is 0.01
    exchange.data.catalogue.set_tick(market.market_id, "0.001")
    with pytest.raises(OrderRejected) as caught:
        await exchange.place_limit_order(market, "UP", Side.BUY, "0.021", 50)
    assert caught.value.code == "tick_size"
    await until(lambda: exchange.data.current(market).grid.unit == 100)
    with pytest.raises(InvalidOrder):
        await exchange.place_limit_order(market, "UP", Side.BUY, "0.021", 50)


async def test_the_local_limit_holds_orders_back_and_never_cancels(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    placed = await rest(exchange, market)
    exchange.limits._orders.tokens = -1e6
    with pytest.raises(NotSent, match="limit"):
        await rest(exchange, market)
    assert exchange.budget().orders == 0
    assert await exchange.cancel_order(placed)
