"""From shares on the local venue to pUSD: what it resolved is found and redeemed on its chain, by the exchange."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from examples.redeem_all import redeem_all, show
from pmkit.config.secret import Secret
from pmkit.errors import NotSent, NotYetRedeemable
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.redeem_types import RedeemCause, RedeemStatus
from pmkit.exchanges.polymarket.redeem_view import RedeemView
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.sim.polymarket.chain_ledger import ChainLedger
from pmkit.sim.polymarket.market import Window
from pmkit.sim.venues import LocalVenues
from tests.local import clock_of
from tests.polymarket.chain_venue import CONTRACTS

D = Decimal


@pytest.fixture
async def venues() -> AsyncIterator[LocalVenues]:
    async with LocalVenues(seed=7, factor=1.0, assets=("BTC",), contracts=CONTRACTS) as local:
        local.polymarket.data_rows.position_lag_seconds = 0.0
        yield local
        assert local.failures == []


def chain_of(venues: LocalVenues) -> ChainLedger:
    assert venues.polymarket.chain is not None
    return venues.polymarket.chain


def exchange_of(venues: LocalVenues, kind: int) -> PolymarketExchange:
    account = venues.polymarket_accounts[kind]
    return PolymarketExchange(
        venues.endpoints,
        clock_of(venues),
        private_key=Secret(account.private_key),
        funder=account.funder,
        signature_type=kind,
        relayer_key=Secret(chain_of(venues).relayer.make_key(account.address)),
    )


def held(venues: LocalVenues, kind: int, window: Window, amount: int) -> None:
    """Shares of both outcomes, as a split gives them."""
    account = venues.polymarket.accounts.find(venues.polymarket_accounts[kind].funder)
    assert account is not None
    venues.polymarket.accounts.split(account, window.condition_id, window.tokens, amount)


def past(venues: LocalVenues, back: int) -> Window:
    """A window that ended some windows ago, so that pages and chain have its result."""
    current = venues.polymarket.current("BTC")
    return venues.polymarket.listings.at(current.series, current.open_ms - back * current.series.length_ms)


@pytest.mark.parametrize("kind", [0, 3])
async def test_winnings_of_the_local_venue_are_found_and_redeemed(
    venues: LocalVenues, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    won, other, now = past(venues, 2), past(venues, 3), venues.polymarket.current("BTC")
    for window, amount in ((won, 5_000_000), (other, 2_500_001), (now, 1_000_000)):
        held(venues, kind, window, amount)
    account = venues.polymarket.accounts.find(venues.polymarket_accounts[kind].funder)
    assert account is not None
    before = account.cash
    async with exchange_of(venues, kind) as exchange:
        found = {seen.condition_id: seen for seen in await exchange.redeemable()}
        assert set(found) == {won.condition_id, other.condition_id} and all(found.values())
        assert found[won.condition_id].payout == 5 and found[other.condition_id].payout == D("2.500001")
        with pytest.raises(NotYetRedeemable):
            await exchange.redeem(now.condition_id)
        assert await redeem_all(exchange, yes=True) == 0
        said = capsys.readouterr().out
        assert "7.500001 pUSD redeemed" in said and said.count("success ") == 2, said
        # Once more: the venue's rows may lag, the chain says that nothing is left.
        assert await redeem_all(exchange, yes=True) == 0
        assert "0 pUSD  in 0 market(s)" in capsys.readouterr().out
        again = await exchange.redeem(won.condition_id)
        assert (again.status, again.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.NOTHING_HELD)
        # The venue's ledger, its chain and what the account can spend agree.
        assert account.cash == before + 7_500_001 == chain_of(venues).chain.cash(account.wallet)
        assert await exchange.get_balance() == D(account.cash) / 1_000_000
        assert [row.kind for row in venues.polymarket.accounts.ledger].count("REDEEM") == 4
    with pytest.raises(NotSent):
        await exchange.redeem(other.condition_id)


async def test_a_view_needs_no_key_and_finds_the_kind_of_wallet(
    venues: LocalVenues, capsys: pytest.CaptureFixture[str]
) -> None:
    window = past(venues, 2)
    for kind in range(4):
        held(venues, kind, window, 3_000_000 if kind else 9_000)  # the plain key has dust
    async with PolymarketMarketData(venues.endpoints, clock_of(venues)) as data:
        for kind in range(4):
            account = venues.polymarket_accounts[kind]
            async with RedeemView(data, account.funder) as view:
                assert (await view.wallet()).kind == kind
                (seen,) = await view.redeemable()
                assert bool(seen) == (kind != 0) and view.unreadable == {}
                assert show([seen], {}) == (3 if kind else 0)
                if not kind:
                    assert seen.cause is RedeemCause.DUST and "0.009" in capsys.readouterr().out
                assert await view.preview(window.condition_id) == seen
    assert venues.polymarket.accounts.ledger[-1].kind == "SPLIT"


async def test_the_chain_follows_trades_and_reports_late(venues: LocalVenues) -> None:
    """What the venue calls resolved is not redeemable before the chain has it."""
    side = chain_of(venues)
    side.report_seconds = 1e9
    window = past(venues, 2)
    held(venues, 0, window, 1_000_000)
    async with exchange_of(venues, 0) as exchange:
        market = await exchange.get_market(window.condition_id)
        assert isinstance(market, PolymarketMarket) and market.payouts is not None
        assert await exchange.redeemable() == []
        with pytest.raises(NotYetRedeemable):
            await exchange.redeem(window.condition_id)
        side.report_seconds = 0.0
        assert (await exchange.redeem(window.condition_id)).payout == 1


async def test_web3_is_imported_beside_the_loop_and_only_by_a_redeem() -> None:
    program = """
import asyncio, sys, time
from pmkit import Endpoints, PolymarketExchange, RedeemView, Secret, SystemClock
from pmkit.endpoints import PolymarketEndpoints, Where

async def main():
    closed = "http://127.0.0.1:9"
    endpoints = Endpoints(where=Where.LOCAL, polymarket=PolymarketEndpoints(rpc=closed, rpc_others=()))
    key = Secret("11" * 32)
    async with PolymarketExchange(endpoints, SystemClock(), private_key=key, signature_type=0) as exchange:
        assert not {"web3", "eth_account"} & set(sys.modules), "imported before it is needed"
        ticks = 0
        preparing = asyncio.create_task(exchange.prepare_redeem())
        while not preparing.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert "web3" in sys.modules and type(preparing.exception()).__name__ == "VenueUnavailable"
        print(ticks)

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5  # the loop went on meanwhile
