"""py-clob-client-v2, official and synchronous: log-in, orders, cancels and an account's own reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from py_clob_client_v2 import ClobClient
from py_clob_client_v2.clob_types import (
    ApiCreds,
    BalanceAllowanceParams,
    MarketOrderArgs,
    OpenOrderParams,
    OrderArgs,
    OrderMarketCancelParams,
    OrderPayload,
    OrdersScoringParams,
    PostOrdersV2Args,
    RequestArgs,
    TradeParams,
)
from py_clob_client_v2.config import get_contract_config
from py_clob_client_v2.headers.headers import create_level_1_headers, create_level_2_headers
from py_clob_client_v2.order_utils import ExchangeOrderBuilderV2, Side
from py_clob_client_v2.order_utils.model.order_data_v2 import OrderDataV2, order_to_json_v2

CHAIN = 137


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    client = ClobClient(
        host=settings["endpoints"]["polymarket"]["clob"],
        chain_id=CHAIN,
        key=settings["private_key"],
        signature_type=settings["signature_type"],
        funder=settings["funder"],
    )

    def limit(order: dict[str, Any]) -> Any:
        wanted = {name: order[name] for name in ("token_id", "price", "size", "side", "expiration") if name in order}
        return client.create_order(OrderArgs(**wanted))

    async def login(nonce: int = 0) -> object:
        """Creates a key, or derives the one that is there, and uses it."""
        made = await asyncio.to_thread(client.create_or_derive_api_key, nonce)
        client.set_api_creds(made)
        return vars(made)

    async def derive(nonce: int = 0) -> object:
        return vars(await asyncio.to_thread(client.derive_api_key, nonce))

    async def place(order: dict[str, Any], kind: str = "GTC", post_only: bool = False) -> object:
        return await asyncio.to_thread(lambda: client.post_order(limit(order), kind, post_only))

    async def place_many(orders: list[dict[str, Any]], kind: str = "GTC", post_only: bool = False) -> object:
        def send() -> object:
            legs = [PostOrdersV2Args(order=limit(order), orderType=kind) for order in orders]
            return client.post_orders(legs, post_only)

        return await asyncio.to_thread(send)

    async def market(order: dict[str, Any], kind: str) -> object:
        return await asyncio.to_thread(
            lambda: client.create_and_post_market_order(MarketOrderArgs(**order, order_type=kind), order_type=kind)
        )

    async def cancel(order_id: str) -> object:
        return await asyncio.to_thread(client.cancel_order, OrderPayload(orderID=order_id))

    async def cancel_many(order_ids: list[str]) -> object:
        return await asyncio.to_thread(client.cancel_orders, order_ids)

    async def cancel_market(market: str = "", asset_id: str = "") -> object:
        wanted = OrderMarketCancelParams(market=market or None, asset_id=asset_id or None)
        return await asyncio.to_thread(client.cancel_market_orders, wanted)

    async def cancel_all() -> object:
        return await asyncio.to_thread(client.cancel_all)

    async def order(order_id: str) -> object:
        return await asyncio.to_thread(client.get_order, order_id)

    async def open_orders(**filters: Any) -> object:
        return await asyncio.to_thread(client.get_open_orders, OpenOrderParams(**filters))

    async def trades(**filters: Any) -> object:
        return await asyncio.to_thread(client.get_trades, TradeParams(**filters))

    async def balance(asset_type: str, token_id: str | None = None, update: bool = False) -> object:
        wanted = BalanceAllowanceParams(asset_type=asset_type, token_id=token_id)
        ask = client.update_balance_allowance if update else client.get_balance_allowance
        return await asyncio.to_thread(ask, wanted)

    async def heartbeat(heartbeat_id: str = "") -> object:
        return await asyncio.to_thread(client.post_heartbeat, heartbeat_id)

    async def scoring(order_ids: list[str]) -> object:
        return await asyncio.to_thread(client.are_orders_scoring, OrdersScoringParams(orderIds=order_ids))

    async def call(name: str, args: list[Any]) -> object:
        """Any other call of the client, by its name."""
        return await asyncio.to_thread(getattr(client, name), *args)

    async def built(order: dict[str, Any], domain: str, neg_risk: bool) -> object:
        """The same order by the client's own code: its id and its wire form, salt and time as they are in `order`."""
        contracts = get_contract_config(CHAIN)
        regular = contracts.neg_risk_exchange_v2 if neg_risk else contracts.exchange_v2
        builder = ExchangeOrderBuilderV2(
            contracts.exchange_v3 if domain == "3" else regular,
            CHAIN,
            client.signer,
            generate_salt=lambda: str(order["salt"]),
            domain_version=domain,
        )
        data = OrderDataV2(
            **{name: order[name] for name in ("maker", "tokenId", "makerAmount", "takerAmount", "signer", "timestamp")},
            side=Side.BUY if order["side"] == "BUY" else Side.SELL,
            signatureType=order["signatureType"],
            metadata=order["metadata"],
            builder=order["builder"],
            expiration=order["expiration"],
        )
        signed = builder.build_signed_order(data)
        order_id = builder.build_order_hash(builder.build_order_typed_data(builder.build_order(data)))
        return {"order_id": order_id, "order": order_to_json_v2(signed, "", "GTC")["order"]}

    async def headers(creds: dict[str, str], method: str, path: str, body: str | None, nonce: int) -> object:
        return {
            "l1": create_level_1_headers(client.signer, nonce),
            "l2": create_level_2_headers(
                client.signer, ApiCreds(**creds), RequestArgs(method, path, serialized_body=body)
            ),
        }

    calls = (
        *(login, derive, place, place_many, market, cancel, cancel_many, cancel_market, cancel_all),
        *(order, open_orders, trades, balance, heartbeat, scoring, call, built, headers),
    )
    yield {made.__name__: made for made in calls}


serve("py-clob-client-v2", connect)
