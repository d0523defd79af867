"""Live prices against the local venue: index, average, strike at the open, gaps, refused log-ins."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise

import pytest

from pmkit.errors import AuthError, ConfigError
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.polymarket.auth import Credentials, HandshakeSigner
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.reference_ws import LivePrices
from pmkit.exchanges.types import ReferencePrice

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.venue_clock import VenueClock
from tests.local import clock_of
from tests.polymarket.accounts import API_KEY, PASSPHRASE, SECRET
from tests.polymarket.trading import current, exchange_of, local, until

pytestmark = pytest.mark.virtual_time


async def test_index_average_and_the_strike_of_the_next_window() -> None:
    async with local(3, boundary=3.0) as venues, exchange_of(venues) as exchange:
        market = await current(exchange)
        following = await exchange.finder().get_next_market("BTC")
        assert following
        seen: list[ReferencePrice] = []
        await exchange.subscribe_reference(["btc"], seen.append)
        assert seen and seen[-1].price and seen[-1].average
        assert exchange.strike(following) is None
        await until(lambda: exchange.strike(following) is not None, 10)
        strike = exchange.strike(following)
        assert seen[-1].strike == strike
        assert exchange.strike(market) is None or exchange.strike(market) != strike
        assert seen[-1].asset == "BTC"
        assert all(one.venue_ms <= other.venue_ms for one, other in pairwise(seen))


async def test_a_late_starter_sees_the_strike_in_the_first_snapshot() -> None:
    async with local(4, boundary=0.5) as venues, exchange_of(venues) as exchange:
        await asyncio.sleep(2.0)  # half a minute into the window
        market = await current(exchange)
        await exchange.subscribe_reference(["BTC"], lambda price: None)
        assert exchange.strike(market) is not None


async def test_a_dry_run_with_api_credentials_sees_prices_and_strike() -> None:
    async with local(4, boundary=0.5) as venues, exchange_of(venues) as exchange:
        clock = exchange.clock
        key, secret, passphrase = (await exchange.login.ready()).credentials.reveal()
        signer = HandshakeSigner(key, secret, passphrase)
        async with PaperExchange(PolymarketMarketData(venues.endpoints, clock, signer=signer)) as paper:
            await asyncio.sleep(2.0)  # half a minute into the window
            seen: list[ReferencePrice] = []
            await paper.subscribe_reference(["BTC"], seen.append)
            assert seen[-1].price and seen[-1].strike
        async with PaperExchange(PolymarketMarketData(venues.endpoints, clock)) as paper:
            with pytest.raises(ConfigError, match="POLYMARKET_API_KEY"):
                await paper.subscribe_reference(["BTC"])


async def test_a_gap_in_the_numbering_is_counted_and_subscribed_anew() -> None:
    async with local(5) as venues, exchange_of(venues) as exchange:
        await exchange.subscribe_reference(["BTC"], lambda price: None)
        prices = exchange.data._prices
        assert prices is not None
        venues.polymarket.faults.arm("price_dropped")
        await until(lambda: prices.socket.gaps > 0, 5)
        before = prices.socket.stats.data_frames
        await until(lambda: prices.socket.stats.data_frames > before + 3, 5)
        assert prices.socket.stats.disconnects == 0


async def test_a_refused_log_in_says_so() -> None:
    async with local(6) as venues:
        clock = clock_of(venues)
        wrong = Credentials(venues.polymarket_account.address, API_KEY, SECRET, PASSPHRASE).handshake()
        prices = LivePrices(venues.endpoints.polymarket.live_ws, clock, wrong, VenueClock(clock))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pmkit.exchanges.polymarket.reference_ws.FIRST_SNAPSHOT", 0.6)
            with pytest.raises(AuthError):
                await prices.subscribe(["BTC"])
        await prices.close()


async def test_a_price_carried_forward_is_no_strike() -> None:
    from pmkit.exchanges.polymarket.reference_messages import PriceTick, Topic
    from pmkit.exchanges.polymarket.reference_ws import _Asset

    state = _Asset()
    state.take(Topic("btcusd", 60), PriceTick(900_000, Decimal("1"), True))
    assert state.strikes == {}
    state.take(Topic("btcusd", 60), PriceTick(900_000, Decimal("2")))
    assert state.strikes == {900_000: Decimal("2")}
