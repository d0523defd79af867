"""`KalshiExchange` as its users see it, against the local venue: money, positions, history, switches, streams."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
import respx

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints, KalshiEndpoints
from pmkit.errors import (
    AuthError,
    ConfigError,
    InvalidOrder,
    MarketNotFound,
    NotSent,
    OrderRejected,
    ProtocolChanged,
    RateLimited,
    VenueUnavailable,
)
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.budget import TokenBudget
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.orders import SelfTrade
from pmkit.exchanges.kalshi.user_messages import Bucket, LimitsAnswer
from pmkit.exchanges.types import CancelResult, MarketStatus, OrderId, OrderState, Side, TimeInForce, TradeResult
from tests.kalshi.test_order_entry import desk_again, rest
from tests.kalshi.test_user_ws import take
from tests.kalshi.trading import LOW, desk, eventually, freeze, watch
from tests.local import kalshi_exchange

pytestmark = pytest.mark.virtual_time

BASE = "https://external-api.kalshi.com/trade-api/v2"


async def test_nothing_connects_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk(streams=False) as one:
        begun = len(wire.lines)
        async with kalshi_exchange(one.venues) as exchange:
            await asyncio.sleep(0.05)
            assert exchange.unresolved == () and exchange.stream.socket.stats.attempts == 0
        assert len(wire.lines) == begun


def test_credentials_are_not_sent_in_clear_text() -> None:
    endpoints = Endpoints(kalshi=KalshiEndpoints(rest="http://example.com/trade-api/v2"))
    from pmkit.sim.kalshi.auth import Keys

    key = Keys(ManualClock()).make("ed25519")
    with pytest.raises(ConfigError, match="http://"):
        KalshiExchange(endpoints, ManualClock(), signer=Signer.from_key(key.id, key.pem))


async def test_money_is_that_of_the_markets_shard() -> None:
    async with desk() as one:
        account = one.venue.accounts.open({0: 300, 2: Decimal("41.5")})
        signer = Signer.from_key(account.key.id, account.key.pem)
        async with kalshi_exchange(one.venues, one.exchange.clock, signer=signer) as exchange:
            assert await exchange.get_balance() == Decimal("341.5")
            assert await exchange.get_balance(one.market) == Decimal("41.5")
            assert await exchange.get_balances() == {0: 300, 2: Decimal("41.5")}
            await exchange.place_limit_order(one.market, "NO", Side.BUY, "0.02", 100)
            assert await exchange.get_balance(one.market) == Decimal(account.available(2)) / 10**6


async def test_a_no_position_is_positive_no_and_netting_closes_it() -> None:
    async with desk() as one:
        await take(one, 7, "NO")
        (position,) = await one.exchange.get_positions()
        assert (position.outcome, position.size, position.token_id) == ("NO", 7, f"{one.market.ticker}:NO")
        assert position.average_price == sum(fill.price * fill.size for fill in one.fills) / 7
        (again,) = await one.exchange.get_positions_by_market_id(one.market.market_id)
        assert (again.token_id, again.size) == (position.token_id, 7)
        assert await one.exchange.get_positions_by_token_id(f"{one.market.ticker}:YES") == []
        await take(one, 7)
        assert await one.exchange.get_positions() == []


async def test_a_failed_query_never_looks_like_nothing() -> None:
    async with desk() as one:
        await take(one)
        one.venue.faults.http_status("GET .*/portfolio/", 503, "<html>", times=None)
        for query in (
            one.exchange.get_positions,
            one.exchange.get_open_orders,
            one.exchange.get_balance,
            one.exchange.get_trade_history,
        ):
            with pytest.raises(VenueUnavailable):
                await query()
        one.venue.faults.clear()
        one.venue.faults.http_status("GET .*/portfolio/positions", 200, '{"event_positions":[]}', times=None)
        with pytest.raises(ProtocolChanged):
            await one.exchange.get_positions()


async def test_history_says_what_became_of_each_trade() -> None:
    async with desk(factor=60.0) as one:
        await take(one, 4)
        await one.exchange.place_limit_order(one.market, "NO", Side.BUY, "0.99", 1)
        assert {trade.result for trade in await one.exchange.get_trade_history()} == {TradeResult.OPEN}
        result = await one.exchange.wait_result(one.market)
        rows: list[Any] = []
        async with asyncio.timeout(10):
            while not rows:
                rows = await one.exchange.get_settlements()
                await asyncio.sleep(0.05)
        trades = await one.exchange.get_trade_history()
        assert len(trades) == len(one.venue.account.fills)
        for trade in trades:
            won = trade.outcome == result.winner
            assert trade.result is (TradeResult.WON if won else TradeResult.LOST)
            assert trade.pnl == (Decimal(int(won)) - trade.price) * trade.size - trade.fee
        assert [trade.time_ms for trade in trades] == sorted(trade.time_ms for trade in trades)
        cash = Decimal(one.venue.account.available(2)) / 10**6
        assert sum(trade.pnl or 0 for trade in trades) == cash - 10_000
        assert await one.exchange.get_positions() == []  # settled, and not from an old fill either
        later = one.exchange.clock.now() + timedelta(hours=1)
        assert await one.exchange.get_trade_history(since=later) == []
        assert await one.exchange.get_trade_history(limit=1) == trades[:1]
        settled = await one.exchange.get_market(one.market.market_id)
        assert settled.status is MarketStatus.RESOLVED


async def test_cancel_all_is_of_one_market_and_everything_is_a_switch_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with desk() as one:
        wire = watch(monkeypatch)
        placed = [await rest(one) for _ in range(3)]
        assert await one.exchange.cancel_all(one.market) == dict.fromkeys(placed, CancelResult.CANCELED)
        assert wire.count("DELETE", "/portfolio/events/orders") == 0
        await rest(one)
        async with desk_again(one) as other:
            await other.place_limit_order(one.market, "NO", Side.BUY, LOW, 1)
        await one.exchange.cancel_everything()
        assert one.venue.account.resting == {}
        assert wire.count("DELETE", "/portfolio/events/orders") == 1


async def test_oe_19_the_order_group_takes_its_orders_with_it() -> None:
    async with desk() as one:
        before = await rest(one)
        inside: list[OrderId] = []

        async def block() -> None:
            async with one.exchange.dead_man(limit=50) as group:
                inside.append(await rest(one, "x-1"))
                assert one.ledger["x-1"].group_id == group
                with pytest.raises(InvalidOrder, match="already"):
                    await one.exchange.dead_man().__aenter__()
                raise RuntimeError("boom")

        with pytest.raises(RuntimeError, match="boom"):
            await block()
        await eventually(lambda: one.exchange.journal.statuses[inside[0]].status is OrderState.CANCELED)
        assert [order.order_id for order in await one.exchange.get_open_orders()] == [before]
        await rest(one, "x-2")
        assert one.ledger["x-2"].group_id is None


async def test_oe_19_a_group_that_blows_refuses_orders_until_it_is_left() -> None:
    async with desk() as one:
        async with one.exchange.dead_man(limit=5):
            inside = await rest(one)
            await take(one, 8)
            await eventually(lambda: one.exchange.journal.statuses[inside].status is OrderState.CANCELED)
            with pytest.raises(OrderRejected):
                await rest(one)
        await rest(one)


async def test_queue_position_counts_what_is_ahead() -> None:
    async with desk() as one:
        freeze(one)
        first, second = await rest(one, size=5), await rest(one, size=5)
        ahead = await one.exchange.queue_position(first)
        assert await one.exchange.queue_position(second) >= ahead + 5
        assert await one.exchange.queue_positions(one.market) == {
            order_id: await one.exchange.queue_position(order_id) for order_id in (first, second)
        }


@pytest.mark.parametrize("kind", list(SelfTrade))
async def test_self_trades_end_as_was_chosen(kind: SelfTrade) -> None:
    async with desk(self_trade=kind) as one:
        freeze(one)
        await one.exchange.subscribe_orderbook([one.market])
        ask = one.exchange.book(one.market, "YES").best_ask
        assert ask is not None
        own = await one.exchange.place_limit_order(one.market, "YES", Side.SELL, min(ask + LOW * 2, LOW * 98), 1)
        assert own.status is OrderState.LIVE
        await one.exchange.place_limit_order(one.market, "YES", Side.BUY, "0.99", 5000)
        own_now = (await one.exchange.get_order_status(own)).status
        assert own_now is (OrderState.LIVE if kind is SelfTrade.TAKER_AT_CROSS else OrderState.CANCELED)
        if kind is SelfTrade.MAKER:
            await eventually(lambda: any(one_.reason == "SelfTradeCancel" for one_ in one.orders))


async def test_status_of_an_order_that_rest_does_not_know_yet() -> None:
    async with desk() as one:
        one.venue.portfolio.lag_ms = 60_000
        order_id = await rest(one)
        assert (await one.exchange.get_order_status(order_id)).status is OrderState.LIVE
        done = await take(one)
        assert (await one.exchange.get_order_status(done)).status is OrderState.FILLED
        with pytest.raises(MarketNotFound):
            await one.exchange.get_order_status("11111111-2222-4333-8444-555555555555")


async def test_demo_key_on_production_is_said() -> None:
    async with desk(streams=False) as one:
        stranger = one.venue.keys.make("ed25519")
        signer = Signer.from_key("99999999-aaaa-4bbb-8ccc-dddddddddddd", stranger.pem)
        async with kalshi_exchange(one.venues, one.exchange.clock, signer=signer) as exchange:
            with pytest.raises(AuthError, match="environment"):
                await exchange.keep_warm()


async def test_subscriptions_survive_a_callback_that_raises() -> None:
    async with desk(streams=False) as one:

        def broken(_: object) -> None:
            raise RuntimeError("strategy bug")

        subscription = await one.exchange.subscribe_fills(broken)
        await take(one)
        await eventually(lambda: subscription.stats.errors >= 1)
        assert one.exchange.stream.socket.connected
        await subscription.close()
        await take(one)
        assert subscription.stats.published == subscription.stats.errors


# Lists and limits, without a venue.


@pytest.fixture
def exchange() -> KalshiExchange:
    from pmkit.sim.kalshi.auth import Keys

    clock = ManualClock()
    key = Keys(clock).make("ed25519")
    return KalshiExchange(Endpoints.real(), clock, signer=Signer.from_key(key.id, key.pem))


@respx.mock
async def test_rs_14_a_cursor_that_repeats_is_an_error(exchange: KalshiExchange) -> None:
    page = {"orders": [], "cursor": "same"}
    respx.get(f"{BASE}/portfolio/orders").mock(return_value=httpx.Response(200, json=page))
    with pytest.raises(VenueUnavailable, match="cursor"):
        await exchange.get_open_orders()
    await exchange.close()


@respx.mock
async def test_a_new_status_word_raises_instead_of_hiding_an_order(exchange: KalshiExchange) -> None:
    row = {
        "order_id": "o-1",
        "ticker": "KXBTC15M-26NOV202000-00",
        "book_side": "bid",
        "status": "hibernating",
        "yes_price_dollars": "0.5000",
        "initial_count_fp": "1.00",
        "fill_count_fp": "0.00",
        "remaining_count_fp": "1.00",
        "new_field": 1,
    }
    respx.get(f"{BASE}/portfolio/orders").mock(return_value=httpx.Response(200, json={"orders": [row], "cursor": ""}))
    with pytest.raises(ProtocolChanged, match="hibernating"):
        await exchange.get_open_orders()
    await exchange.close()


@respx.mock
async def test_rs_06_every_query_is_signed_without_its_parameters(exchange: KalshiExchange) -> None:
    route = respx.get(f"{BASE}/portfolio/positions").mock(
        return_value=httpx.Response(200, json={"market_positions": [], "event_positions": [], "cursor": ""})
    )
    signed: list[tuple[str, str]] = []
    real = exchange._session._signer.headers

    class Spy:
        def headers(self, method: str, path: str, timestamp_ms: int) -> dict[str, str]:
            signed.append((method, path))
            return real(method, path, timestamp_ms)

    exchange._session._signer = Spy()  # type: ignore[assignment]
    assert await exchange.get_positions() == []
    assert signed == [("GET", "/trade-api/v2/portfolio/positions")]
    assert "settlement_status=unsettled" in str(route.calls[0].request.url)
    await exchange.close()


async def test_the_budget_refills_and_keeps_its_reserve() -> None:
    clock = ManualClock()
    budget = TokenBudget(clock, "venue")
    budget.learn(LimitsAnswer(read=Bucket(20.0, 20.0), write=Bucket(10.0, 100.0)))
    assert budget.batch_size == 8 and budget.left().orders == 8
    budget.order(2, 8)
    with pytest.raises(NotSent):
        budget.order(2)
    budget.order(0, 8)  # shards have buckets of their own
    await budget.cancel(2, 10)
    assert budget.left().orders == 0 and budget.left().cancels == 0
    await clock.advance(3.0)
    budget.order(2)
    await budget.read()
    await budget.read()
    waiting = asyncio.ensure_future(budget.read(50.0))
    await clock.advance(1.1)
    await clock.advance(1.1)
    await asyncio.gather(waiting, return_exceptions=True)
    budget.learn(LimitsAnswer(read=Bucket(0.1, 20.0), write=Bucket(10.0, 100.0)))
    budget.drained(read=True)
    with pytest.raises(RateLimited):
        await budget.read()


@respx.mock
async def test_history_goes_on_beyond_the_cutoff(exchange: KalshiExchange) -> None:
    def row(trade_id: str, day: int) -> dict[str, Any]:
        return {
            "trade_id": trade_id,
            "order_id": f"o-{trade_id}",
            "ticker": f"KXBTC15M-OLD-{day}",
            "book_side": "bid",
            "count_fp": "2.00",
            "yes_price_dollars": "0.4000",
            "is_taker": True,
            "fee_cost": "0.03",
            "created_time": f"2026-09-{day:02d}T12:00:00Z",
        }

    def answer(path: str, body: dict[str, Any], status: int = 200) -> respx.Route:
        return respx.get(f"{BASE}{path}").mock(return_value=httpx.Response(status, json=body))

    gone = {"error": {"code": "not_found", "message": "not found"}}
    answer("/exchange/status", {"exchange_active": True, "trading_active": True})
    moment = "2026-09-10T00:00:00Z"
    cutoff = {"market_settled_ts": moment, "trades_created_ts": moment, "orders_updated_ts": moment}
    answer("/historical/cutoff", cutoff)
    old = answer("/historical/fills", {"fills": [row("b", 9), row("a", 2)], "cursor": ""})
    answer("/portfolio/fills", {"fills": [row("c", 11), row("b", 9)], "cursor": ""})
    answer("/portfolio/settlements", {"settlements": [], "cursor": ""})
    for day, result in ((2, "yes"), (9, "no"), (11, "")):
        answer(f"/markets/KXBTC15M-OLD-{day}", gone, 404)
        answer(f"/historical/markets/KXBTC15M-OLD-{day}", {"market": {"result": result}})
    trades = await exchange.get_trade_history()
    assert [(one.trade_id, one.result) for one in trades] == [
        ("a", TradeResult.WON),
        ("b", TradeResult.LOST),
        ("c", TradeResult.OPEN),
    ]
    assert [one.pnl for one in trades] == [Decimal("1.17"), Decimal("-0.83"), None]
    await exchange.get_trade_history(since=datetime(2026, 9, 10, tzinfo=UTC))
    assert old.call_count == 1
    await exchange.close()


@respx.mock
async def test_an_order_that_was_archived_is_still_found(exchange: KalshiExchange) -> None:
    row = {
        "order_id": "old-1",
        "client_order_id": "mine",
        "ticker": "KXBTC15M-OLD-1",
        "book_side": "ask",
        "status": "canceled",
        "yes_price_dollars": "0.4000",
        "initial_count_fp": "2.00",
        "fill_count_fp": "0.50",
        "remaining_count_fp": "0.00",
        "created_time": "2026-09-10T12:00:00Z",
        "exchange_index": 2,
    }
    gone = {"error": {"code": "not_found", "message": "not found"}}
    respx.get(url__regex=rf"{BASE}/portfolio/orders/.*").mock(return_value=httpx.Response(404, json=gone))
    pages = [{"orders": [{**row, "order_id": "old-0"}], "cursor": "1"}, {"orders": [row], "cursor": ""}]
    respx.get(f"{BASE}/historical/orders").mock(side_effect=[httpx.Response(200, json=page) for page in pages * 2])
    status = await exchange.get_order_status("old-1")
    assert (status.status, status.filled_amount, status.outcome) == (OrderState.CANCELED, Decimal("0.5"), "NO")
    with pytest.raises(MarketNotFound, match="neither live nor archived"):
        await exchange.get_order_status("old-9")
    await exchange.close()


async def test_a_new_process_learns_every_order_of_its_predecessor() -> None:
    async with desk() as one:
        resting = await rest(one)
        begun = one.exchange.clock.now() - timedelta(seconds=30)
        over = await one.exchange.place_limit_order(one.market, "NO", Side.BUY, LOW, 1, time_in_force=TimeInForce.IOC)
        async with desk_again(one) as other:
            found = await other.get_orders(one.market, begun)
            assert {status.order_id: status.status for status in found} == {
                str(resting): OrderState.LIVE,
                str(over): OrderState.CANCELED,
            }
            assert await other.get_orders(since=one.exchange.clock.now() + timedelta(minutes=5)) == []
