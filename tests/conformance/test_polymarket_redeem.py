"""The official client redeems on the local chain and through the local relayer, and pmkit sees the same of it."""

from __future__ import annotations

from typing import Any

import pytest

from pmkit.clock import Entropy, SystemClock
from pmkit.config.secret import Secret
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.redeem_types import RedeemCause
from pmkit.sim.polymarket.on_chain import ADAPTER, CTF
from pmkit.sim.venues import LocalVenues
from tests.conformance.conftest import OpenClient
from tests.conformance.truth import settings_of
from tests.polymarket.chain_venue import CONTRACTS


@pytest.mark.parametrize(("kind", "builder"), [(0, False), (1, False), (2, False), (3, False), (3, True)], ids=str)
async def test_the_official_client_redeems(client: OpenClient, kind: int, builder: bool) -> None:
    async with LocalVenues(seed=7, assets=("BTC",), clock=SystemClock(), contracts=CONTRACTS) as venues:
        venue = venues.polymarket
        side = venue.chain
        assert side is not None
        venue.data_rows.position_lag_seconds = 0.0
        test = venue.test_accounts[kind]
        account = venue.accounts.find(test.funder)
        assert account is not None
        current = venue.current("BTC")
        window = venue.listings.at(current.series, current.open_ms - 2 * current.series.length_ms)
        venue.accounts.split(account, window.condition_id, window.tokens, 4_000_000)
        side.catch_up()
        side.chain.act(account.wallet, CTF, "setApprovalForAll(address,bool)", ADAPTER, True)
        before = account.cash
        key: dict[str, Any] = {"key": side.relayer.make_key(test.address), "address": test.address}
        if builder:
            made = side.relayer.make_builder()
            key = {"key": made.key, "secret": made.secret, "passphrase": made.passphrase}
        credentials = {
            "key": test.api_key.key,
            "secret": test.api_key.secret,
            "passphrase": test.api_key.passphrase,
        }
        settings = settings_of(venues.endpoints) | {
            "private_key": test.private_key,
            "funder": test.funder,
            "credentials": credentials,
            "relayer_key": key,
        }
        async with client("polymarket_client_redeem", settings) as official:
            done = await official.ask("redeem", condition_id=window.condition_id)
        assert bytes.fromhex(done["hash"][2:]) in side.chain.machine.receipts
        assert account.cash == before + 4_000_000 == side.chain.cash(account.wallet)
        assert len(side.relayer.submitted) == (kind != 0)
        clock = venues.endpoints.make_clock(Entropy())
        async with PolymarketExchange(
            venues.endpoints, clock, private_key=Secret(test.private_key), funder=test.funder, signature_type=kind
        ) as exchange:
            again = await exchange.redeem(window.condition_id)
        assert again.cause is RedeemCause.NOTHING_HELD
        assert venues.failures == []
