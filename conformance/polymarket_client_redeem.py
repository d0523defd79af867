"""polymarket-client, official: redeems through the local node (plain keys) and the local relayer (wallets)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from child import Calls, Settings, serve
from polymarket import AsyncSecureClient
from polymarket.auth import BuilderApiKey, RelayerApiKey
from polymarket.models.clob import ApiKeyCreds
from polymarket_environment import local_environment


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    key = settings["relayer_key"]
    client = await AsyncSecureClient.create(
        private_key=settings["private_key"],
        wallet=settings["funder"],
        environment=local_environment(settings["endpoints"]["polymarket"]),
        credentials=ApiKeyCreds(**settings["credentials"]),
        api_key=RelayerApiKey(**key) if "address" in key else BuilderApiKey(**key),
    )

    async def redeem(condition_id: str) -> object:
        handle = await client.redeem_positions(condition_id=condition_id)
        outcome = await handle.wait()
        return {"hash": str(outcome.transaction_hash)}

    try:
        yield {"redeem": redeem}
    finally:
        await client.close()


serve("polymarket-client", connect)
