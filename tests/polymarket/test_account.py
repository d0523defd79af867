"""Balance, positions, history, log-in and the dead-man switch against the local venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from pmkit.errors import AuthError, ConfigError, InsufficientFunds, NotSent, PmkitError, VenueUnavailable
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.wallets import wallets_of
from pmkit.exchanges.types import OrderId, OrderState, Side, TradeResult

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.polymarket.wallets import WalletType
from pmkit.sim.venues import LocalVenues
from tests.polymarket.trading import account_of, current, exchange_of, local, orders_of, until

pytestmark = pytest.mark.virtual_time

D = Decimal


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local(11) as venues:
        yield venues


@pytest.fixture
async def exchange(venues: LocalVenues) -> AsyncIterator[PolymarketExchange]:
    async with exchange_of(venues) as exchange:
        yield exchange


@pytest.fixture
async def market(exchange: PolymarketExchange) -> PolymarketMarket:
    return await current(exchange)


async def bought(venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket) -> OrderId:
    placed = await exchange.place_market_order(market, "UP", Side.BUY, worst_price="0.98", amount=20)
    await until(lambda: not orders_of(venues, account_of(venues))[placed].open)
    return placed


async def test_what_can_be_spent_is_what_the_venue_will_take(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket
) -> None:
    assert await exchange.get_balance() == 10_000
    await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 1000)
    await exchange.place_limit_order(market, "DOWN", Side.BUY, "0.03", 1000)
    assert await exchange.get_balance() == 10_000
    assert await exchange.get_balance(market) == 9_950
    await bought(venues, exchange, market)
    free = venues.polymarket.desk.free_cash(account_of(venues))
    # Never more than the venue will take; a unit of pUSD less per match that is not on chain yet.
    matches = len(venues.polymarket.trades.trades)
    assert 0 <= D(free).scaleb(-6) - await exchange.get_balance(market) <= D(1 + 2 * matches).scaleb(-6)
    account_of(venues).approve_none()
    assert await exchange.get_balance(market) == 0
    with pytest.raises(ConfigError, match="approve"):
        await exchange.check_allowance(market)


async def test_rs_20_a_position_is_there_at_once_and_becomes_confirmed(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmkit.sim.polymarket.trades.CONFIRMED_SECONDS", (30.0, 31.0))
    placed = await bought(venues, exchange, market)
    size = D(orders_of(venues, account_of(venues))[placed].matched).scaleb(-6)
    (position,) = await exchange.get_positions_by_market_id(market.market_id)
    assert (position.size, position.confirmed, position.pending) == (size, 0, size)
    assert position.token_id == market.token_ids[0]
    trades = venues.polymarket.trades.trades.values()
    await until(lambda: all(trade.state == "CONFIRMED" for trade in trades), 10)
    (position,) = await exchange.get_positions()
    assert (position.size, position.confirmed, position.pending) == (size, size, 0)
    sold = await exchange.place_market_order(market, "UP", Side.SELL, worst_price="0.01", size=market.floor_size(size))
    await until(lambda: not orders_of(venues, account_of(venues))[sold].open)
    await until(lambda: all(trade.state == "CONFIRMED" for trade in trades), 10)
    left = await exchange.get_positions()
    assert sum((one.size for one in left), D(0)) == D(account_of(venues).shares[market.token_ids[0]]).scaleb(-6)


async def test_rs_20_old_positions_come_from_the_data_api(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = await bought(venues, exchange, market)
    size = D(orders_of(venues, account_of(venues))[placed].matched).scaleb(-6)
    monkeypatch.setattr("pmkit.exchanges.polymarket.account.RECENT_MS", -3_600_000)  # no trade is recent
    async with asyncio.timeout(20):  # minutes of market time
        while not (found := await exchange.get_positions()):  # noqa: ASYNC110 - the venue says it only when asked
            await asyncio.sleep(0.2)
    # Its rows have four decimals; what may be sold is exact, and as of now.
    assert [(one.outcome, one.size, one.pending) for one in found] == [("UP", size, D(0))]
    assert found[0].as_of_ms > exchange.clock.now_ms() - 60_000


async def test_rs_20_a_trade_that_is_mined_while_positions_are_read_counts_once(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmkit.sim.polymarket.trades.MINED_SECONDS", (30.0, 31.0))
    placed = await bought(venues, exchange, market)
    size = D(orders_of(venues, account_of(venues))[placed].matched).scaleb(-6)
    real = exchange.login.balance
    reads = 0

    async def slow(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 1:  # between the trades and the balance
            mined = venues.polymarket.trades.trades.values()
            await until(lambda: all(trade.state in ("MINED", "CONFIRMED") for trade in mined))
        return await real(*arguments)

    monkeypatch.setattr(exchange.login, "balance", slow)
    assert [one.size for one in await exchange.get_positions()] == [size]
    assert reads == 2


async def test_a_failed_query_is_no_empty_answer(venues: LocalVenues, exchange: PolymarketExchange) -> None:
    await exchange.keep_warm()
    venues.polymarket.faults.http_status("GET /v2/positions", 503, b"down", times=None)
    with pytest.raises(VenueUnavailable):
        await exchange.get_positions()
    venues.polymarket.faults.clear()
    venues.polymarket.faults.http_status("GET /data/orders", 500, b"<html>", times=None)
    with pytest.raises(PmkitError):
        await exchange.get_open_orders()
    with pytest.raises(PmkitError):
        await exchange.get_balance(await current(exchange))


async def test_rs_14_a_walk_that_does_not_end_is_an_error(venues: LocalVenues, exchange: PolymarketExchange) -> None:
    await exchange.keep_warm()
    page = b'{"limit":1,"count":1,"next_cursor":"MQ==","data":[]}'
    venues.polymarket.faults.http_status("GET /data/trades", 200, page, times=None)
    with pytest.raises(PmkitError, match="does not end"):
        await exchange.get_trade_history()


async def test_history_knows_won_and_lost() -> None:
    async with local(13, factor=45.0, boundary=3.0) as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        for outcome in market.outcomes:
            await exchange.place_market_order(market, outcome, Side.BUY, worst_price="0.99", amount=20)
        await until(lambda: all(not row.open for row in orders_of(venues, account_of(venues)).values()))
        rows = await exchange.get_trade_history()
        matched = {key for key, row in orders_of(venues, account_of(venues)).items() if row.matched}
        assert matched
        assert {row.order_id for row in rows} == matched
        assert {row.result for row in rows} == {TradeResult.OPEN}
        result = await asyncio.wait_for(exchange.wait_result(market), 15)
        rows = await exchange.get_trade_history()
        assert rows == sorted(rows, key=lambda row: row.time_ms)
        for row in rows:
            won = row.outcome == result.winner
            assert row.result is (TradeResult.WON if won else TradeResult.LOST)
            assert row.pnl == (row.size * (won - row.price) - row.fee)
        account = account_of(venues)
        assert sum((row.fee for row in rows), D(0)) == D(
            sum(entry.fee for entry in venues.polymarket.accounts.ledger if entry.wallet == account.wallet)
        ).scaleb(-6)
        assert len(await exchange.get_trade_history(limit=1)) == 1
        assert await exchange.get_trade_history(since=exchange.clock.now()) == []


# -- log-in ------------------------------------------------------------------------------------------------------


async def test_the_wallet_type_is_found_out(venues: LocalVenues) -> None:
    for kind in (0, 1, 2, 3):
        test = venues.polymarket_accounts[kind]
        async with exchange_of(venues, test, signature_type=None, funder=None) as exchange:
            identity = await exchange.login.ready()
            assert (int(identity.signature_type), identity.maker) == (kind, test.funder)
        async with exchange_of(venues, test, signature_type=None) as exchange:
            assert int((await exchange.login.ready()).signature_type) == kind


async def test_the_deposit_wallet_is_the_one_on_chain(venues: LocalVenues) -> None:
    ledger, test = venues.polymarket.accounts, venues.polymarket_accounts[3]
    older = ledger.make(WalletType.EOA, "of an older factory")
    wallets = wallets_of(older.address)
    async with exchange_of(venues, older, signature_type=3, funder=None) as exchange:
        with pytest.raises(ConfigError, match=f"no deposit wallet .* {wallets.deposit_beacon}"):
            await exchange.login.ready()
        with pytest.raises(PmkitError, match="no deposit wallet"):  # and so nothing was sent
            await exchange.place_limit_order(await current(exchange), "UP", Side.BUY, "0.02", 10)
        ledger.open(older.address, WalletType.DEPOSIT, wallet=wallets.deposit_uups)
        assert (await exchange.login.wallet())[0] == wallets.deposit_uups
    ledger.open(test.address, WalletType.DEPOSIT, wallet=wallets_of(test.address).deposit_uups)
    async with exchange_of(venues, test, signature_type=3, funder=None) as exchange:
        with pytest.raises(ConfigError, match="both deposit wallets"):
            await exchange.login.ready()
    async with exchange_of(venues, test, signature_type=3) as exchange:
        assert (await exchange.login.ready()).maker == test.funder


async def test_a_wallet_type_that_does_not_fit_is_named(venues: LocalVenues) -> None:
    test = venues.polymarket_accounts[1]
    with pytest.raises(ConfigError, match="set it to 1"):
        exchange_of(venues, test, signature_type=2)


async def test_an_empty_wallet_beside_a_funded_one_is_told(
    venues: LocalVenues, caplog: pytest.LogCaptureFixture
) -> None:
    test = venues.polymarket_accounts[2]
    async with exchange_of(venues, test, signature_type=0, funder=None) as exchange:
        with pytest.raises(PmkitError):
            await exchange.place_limit_order(await current(exchange), "UP", Side.BUY, "0.02", 10)
        assert "GNOSIS_SAFE" in await exchange.login.other_wallet()


async def test_oe_13_a_refusal_for_lack_of_money_says_where_it_is(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, caplog: pytest.LogCaptureFixture
) -> None:
    venues.polymarket.accounts.deposit(account_of(venues), -10_000_000_000)
    for _ in range(3):
        with pytest.raises(InsufficientFunds):
            await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
    await until(lambda: venues.polymarket.clob.requests["GET /balance-allowance/update"] == 1)


async def test_one_log_in_for_many_callers_and_no_secret_in_sight(
    venues: LocalVenues, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    test = venues.polymarket_account
    async with exchange_of(venues) as exchange:
        await asyncio.gather(*(exchange.login.ready() for _ in range(5)))
        assert venues.polymarket.clob.requests["GET /auth/derive-api-key"] == 1
        assert venues.polymarket.clob.requests["POST /auth/api-key"] == 0
        shown = caplog.text + repr(exchange.login.identity) + repr(vars(exchange.login)) + repr(vars(exchange._http))
        for secret in (test.private_key[2:], test.api_key.secret, test.api_key.passphrase):
            assert secret not in shown


async def test_new_keys_are_created_where_there_are_none(venues: LocalVenues) -> None:
    venues.polymarket.keys.forget(venues.polymarket_account.api_key)
    async with exchange_of(venues) as exchange:
        await exchange.login.ready()
        assert venues.polymarket.clob.requests["POST /auth/api-key"] == 1
        assert await exchange.get_balance() == 10_000


async def test_rs_06_wrong_credentials_name_the_key_and_not_the_clock(venues: LocalVenues) -> None:
    given = ("11111111-2222-3333-4444-555555555555", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTAwMDE=", "pass")
    async with exchange_of(venues, credentials=given) as exchange:
        with pytest.raises(AuthError, match="POLYMARKET_API_KEY"):
            await exchange.get_balance()


def test_credentials_never_go_in_clear_text_beyond_loopback() -> None:
    import msgspec

    from pmkit.clock import SystemClock
    from pmkit.config.secret import Secret
    from pmkit.endpoints import Endpoints
    from tests.polymarket.accounts import KEY

    real = Endpoints.real()
    plain = msgspec.structs.replace(
        real, polymarket=msgspec.structs.replace(real.polymarket, clob="http://clob.polymarket.com")
    )
    with pytest.raises(ConfigError, match="http"):
        PolymarketExchange(plain, SystemClock(), private_key=Secret(KEY))


# -- the dead-man switch -----------------------------------------------------------------------------------------


async def test_oe_19_a_lost_heartbeat_stops_new_orders_until_it_is_back(
    venues: LocalVenues, exchange: PolymarketExchange, market: PolymarketMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("EVERY_SECONDS", 0.2), ("RETRY_SECONDS", 0.05), ("LOST_SECONDS", 0.3)):
        monkeypatch.setattr(f"pmkit.exchanges.polymarket.heartbeat.{name}", seconds)
    async with exchange.dead_man() as beat:
        await until(lambda: beat.beats > 2)
        venues.polymarket.faults.http_status("POST /v1/heartbeats", 500, b"{}", times=None)
        await until(lambda: beat.losses == 1)
        with pytest.raises(NotSent, match="heartbeat"):
            await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
        venues.polymarket.faults.clear()
        await until(lambda: not exchange._entry.blocked)
        placed = await exchange.place_limit_order(market, "UP", Side.BUY, "0.02", 10)
        assert placed.status is OrderState.LIVE
    beats = beat.beats
    await asyncio.sleep(0.3)
    assert beat.beats == beats


async def test_oe_19_one_heartbeat_at_a_time_and_none_after_close(
    venues: LocalVenues, exchange: PolymarketExchange
) -> None:
    async with exchange.dead_man():
        with pytest.raises(RuntimeError, match="one dead_man"):
            exchange.dead_man()
        await exchange.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "pmkit polymarket heartbeat"]


async def test_oe_19_the_id_that_the_venue_expects_is_taken_over(
    venues: LocalVenues, exchange: PolymarketExchange
) -> None:
    async with exchange.dead_man():
        pass
    async with exchange.dead_man() as again:  # knows nothing of the first one's id
        assert again.beats == 1
