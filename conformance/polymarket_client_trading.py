"""polymarket-client, official: log-in, orders, cancels, an account's own reads, Data API, and its user channel."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from eth_account import Account
from polymarket import AsyncSecureClient
from polymarket._internal.actions.orders.orders import create_signed_order
from polymarket._internal.actions.orders.post import build_post_order_request
from polymarket._internal.actions.orders.typed_data import build_order_signature, build_order_typed_data
from polymarket._internal.actions.orders.types import UnsignedOrder
from polymarket._internal.wallet import wrap_deposit_wallet_signature
from polymarket.models.clob import ApiKeyCreds
from polymarket.streams import UserSpec
from polymarket_environment import local_environment


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    limits: list[object] = []
    client = await AsyncSecureClient.create(
        private_key=settings["private_key"],
        wallet=settings["funder"],
        environment=local_environment(settings["endpoints"]["polymarket"]),
        credentials=ApiKeyCreds(**settings["credentials"]) if settings.get("credentials") else None,
        on_rate_limit_update=lambda update: limits.append(dataclasses.asdict(update)),
    )
    events: list[dict[str, Any]] = []
    reading: list[asyncio.Task[None]] = []
    accepted: dict[str, Any] = {}

    async def account() -> object:
        return {
            "wallet": client.wallet,
            "signer": client.signer,
            "wallet_type": client.wallet_type,
            "credentials": client.credentials.model_dump(),
        }

    async def place(order: dict[str, Any]) -> object:
        found = await client.place_limit_order(**order)
        accepted[getattr(found, "order_id", "")] = found
        return found

    async def place_many(orders: list[dict[str, Any]]) -> object:
        return list(await client.post_orders([await client.create_limit_order(**order) for order in orders]))

    async def market(order: dict[str, Any]) -> object:
        found = await client.place_market_order(**order)
        accepted[getattr(found, "order_id", "")] = found
        return found

    async def settled(order_id: str) -> object:
        """The transactions of an order that matched when it was placed."""
        return list(await client.wait_for_order_fill_settlement(accepted[order_id]))

    async def cancel(order_id: str) -> object:
        return await client.cancel_order(order_id=order_id)

    async def cancel_many(order_ids: list[str]) -> object:
        return await client.cancel_orders(order_ids=order_ids)

    async def cancel_market(**filters: Any) -> object:
        return await client.cancel_market_orders(**filters)

    async def cancel_all() -> object:
        return await client.cancel_all()

    async def order(order_id: str) -> object:
        return await client.get_order(order_id=order_id)

    async def listed(name: str, **filters: Any) -> object:
        """Every page of one of its lists: open_orders, account_trades, trades, positions, activity."""
        return [row async for row in getattr(client, f"list_{name}")(**filters).iter_items()]

    async def call(name: str, **args: Any) -> object:
        """Any other call of the client, by its name."""
        return await getattr(client, name)(**args)

    async def rate_limits() -> object:
        return limits

    async def watch(markets: list[str] | None = None) -> None:
        handle = await client.subscribe(UserSpec(markets=markets))

        async def read() -> None:
            async with handle:
                async for event in handle:
                    events.append(event.model_dump(mode="json"))

        reading.append(asyncio.create_task(read()))

    async def heard() -> object:
        for task in reading:
            if task.done():
                task.result()
        return events

    async def built(order: dict[str, Any], kind: str, owner: str, post_only: bool, session_key: str | None) -> object:
        """The body of POST /order by the client's own code, salt and time as they are in `order`."""
        version = "3" if int(order["tokenId"]) & (((1 << 64) - 1) << 40) == 0 else "2"
        config = client.environment._config
        unsigned = UnsignedOrder(
            chain_id=config.chain_id,
            builder=order["builder"],
            exchange_address=config.exchange_v3 if version == "3" else config.standard_exchange,
            expiration=int(order["expiration"]),
            maker=order["maker"],
            maker_amount=int(order["makerAmount"]),
            metadata=order["metadata"],
            order_type=kind,
            salt=order["salt"],
            side=order["side"],
            signature_type=order["signatureType"],
            signer=order["signer"],
            taker_amount=int(order["takerAmount"]),
            timestamp=int(order["timestamp"]),
            token_id=order["tokenId"],
            protocol_version=version,
        )
        signer = Account.from_key(session_key or settings["private_key"])
        signed = signer.sign_typed_data(full_message=build_order_typed_data(unsigned))
        signature = wrap_deposit_wallet_signature(
            signer=signer.address,
            signer_type="SESSION_KEY" if session_key else "OWNER",
            signature=build_order_signature(unsigned, "0x" + signed.signature.hex().removeprefix("0x")),
        )
        made = create_signed_order(unsigned, signature, post_only=post_only)
        return build_post_order_request(made, owner_api_key=owner)[1]

    calls = (
        *(account, place, place_many, market, settled, cancel, cancel_many, cancel_market, cancel_all, order),
        *(listed, call, rate_limits, watch, heard, built),
    )
    try:
        yield {made.__name__: made for made in calls}
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await client.close()


serve("polymarket-client", connect)
