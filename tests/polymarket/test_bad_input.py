"""What a user can get wrong, and the words that say what to do about it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pmkit.clock import to_utc
from pmkit.errors import (
    ConfigError,
    InsufficientFunds,
    InvalidOrder,
    OrderAuthError,
    OrderRegionBlocked,
    OrderRejected,
    RegionBlocked,
)
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.wallets import wallets_of
from pmkit.exchanges.types import Side, TimeInForce

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.polymarket.accounts import TestAccount
from pmkit.sim.venues import LocalVenues
from tests.polymarket.trading import account_of, current, exchange_of, local, orders_of

D = Decimal
BUY, SELL = Side.BUY, Side.SELL
Place = Callable[[PolymarketExchange, PolymarketMarket], Awaitable[Any]]


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with local(17) as venues:
        yield venues


def limit(outcome: Any = "UP", side: Side = BUY, price: Any = "0.02", size: Any = 10, **options: Any) -> Place:
    return lambda exchange, market: exchange.place_limit_order(market, outcome, side, price, size, **options)


def soon(exchange: PolymarketExchange, market: PolymarketMarket) -> Awaitable[Any]:
    at = to_utc(exchange.venue_clock.now_ms()) + timedelta(seconds=60)
    placing: Awaitable[Any] = limit(time_in_force=TimeInForce.GTD, expires_at=at)(exchange, market)
    return placing


def of_no_version(exchange: PolymarketExchange, market: PolymarketMarket) -> Awaitable[Any]:
    odd = msgspec.structs.replace(market, market_id="0x" + "00" * 32, protocol="")
    return exchange.place_limit_order(odd, "UP", BUY, "0.02", 10)


CASES: dict[str, tuple[Place, type[Exception], str]] = {
    "off tick": (limit(price="0.025"), InvalidOrder, r"grid of 0\.01: legal are 0\.02 and 0\.03"),
    "a float": (limit(price=0.02), InvalidOrder, r'give it as text, e\.g\. "0\.56"'),
    "price of one": (limit(price=1), InvalidOrder, r"legal are 0\.99"),
    "too small": (limit(size=4), InvalidOrder, "minimum.*5|5.*minimum|at least 5|below 5"),
    "too fine": (limit(size="5.001"), InvalidOrder, r"neighbours are 5\.00 and 5\.01"),
    "under a dollar": (limit(price="0.99", size="1.01", time_in_force=TimeInForce.IOC), InvalidOrder, "dollars"),
    "cents": (
        limit(price="0.33", size="10.01", time_in_force=TimeInForce.FOK),
        InvalidOrder,
        r"two decimals of dollars: the largest legal size is 10",
    ),
    "no such outcome": (limit(outcome="YES"), InvalidOrder, "it has UP and DOWN"),
    "expires soon": (soon, InvalidOrder, "too near.*the earliest is"),
    "no expiry": (limit(time_in_force=TimeInForce.GTD), InvalidOrder, "GTD needs expires_at"),
    "no version": (of_no_version, InvalidOrder, "protocol unknown: how to sign.*update pmkit"),
    "no money": (limit(size=10_000_000), InsufficientFunds, "balance is not enough"),
    "no shares": (limit(side=SELL, price="0.98"), InsufficientFunds, "balance is not enough"),
}


async def test_orders_that_cannot_be_say_what_can(venues: LocalVenues) -> None:
    async with exchange_of(venues) as exchange:
        market = await current(exchange)
        for place, kind, words in CASES.values():
            with pytest.raises(kind, match=words):
                await place(exchange, market)
        account_of(venues).approve_none()
        with pytest.raises(InsufficientFunds, match="allowance is not enough.*approve the exchange") as short:
            await limit()(exchange, market)
        assert short.value.code == "insufficient_allowance"
        with pytest.raises(ConfigError, match="approve it"):
            await exchange.check_allowance(market)
        account_of(venues).approve_all()
        venues.polymarket.modes.region_blocked = True
        with pytest.raises(OrderRegionBlocked, match="restricted in your region.*final here") as blocked:
            await limit()(exchange, market)
        assert isinstance(blocked.value, RegionBlocked)
        venues.polymarket.modes.region_blocked = False
        over = msgspec.structs.replace(market, market_id="0x" + "11" * 32, close_ms=market.open_ms)
        with pytest.raises(OrderRejected, match="closed at .*nothing was sent") as closed:
            await limit()(exchange, over)
        assert closed.value.code == "market_closed"
        assert not orders_of(venues, account_of(venues))


async def test_a_wallet_type_that_is_not_the_accounts_is_named_at_the_log_in(
    venues: LocalVenues, caplog: pytest.LogCaptureFixture
) -> None:
    """The key's Safe exists and is empty; the funds lie at the key's own address."""
    test = venues.polymarket_account
    safe = wallets_of(test.address).safe
    wrong = TestAccount(test.private_key, test.address, 2, safe, test.api_key)
    async with exchange_of(venues, wrong) as exchange:
        market = await current(exchange)
        with caplog.at_level(logging.ERROR, "pmkit.polymarket"):
            await exchange.keep_warm()
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1 and "type 2 (GNOSIS_SAFE) is empty, but that of type 0 (EOA) is not" in said[0]
        assert "POLYMARKET_SIGNATURE_TYPE" in said[0]
        with pytest.raises(OrderAuthError, match="POLYMARKET_SIGNATURE_TYPE=3 and that wallet as funder"):
            await limit()(exchange, market)
