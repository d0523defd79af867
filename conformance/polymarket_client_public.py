"""polymarket-client, official: markets from Gamma, books from the CLOB, and its stream of the market channel."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from child import Calls, Settings, serve
from polymarket import AsyncPublicClient, environments
from polymarket.streams import MarketSpec


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["polymarket"]
    config = dataclasses.replace(
        environments.PRODUCTION._config,
        clob_url=venue["clob"],
        gamma_url=venue["gamma"],
        data_url=venue["data"],
        relayer_url=venue["relayer"],
        clob_market_ws_url=venue["market_ws"],
        clob_user_ws_url=venue["user_ws"],
        realtime_ws_url=venue["live_ws"],
        rpc_url=venue["rpc"],
    )
    client = AsyncPublicClient(environments._create_environment(name="local", config=config))
    books: dict[str, dict[str, dict[Decimal, Decimal]]] = {}
    counts: dict[str, int] = {}
    best: dict[str, Any] = {}
    trades: list[Any] = []
    reading: list[asyncio.Task[None]] = []

    async def market(slug: str) -> object:
        return await client.get_market(slug=slug)

    async def event(slug: str) -> object:
        return await client.get_event(slug=slug)

    async def markets(condition_ids: list[str]) -> object:
        page = await client.list_markets(condition_ids=condition_ids).first_page()
        return list(page.items)

    async def orderbook(token: str) -> object:
        return await client.get_order_book(asset_id=token)

    async def orderbooks(tokens: list[str]) -> object:
        return list(await client.get_order_books(asset_ids=tokens))

    async def quotes(token: str) -> object:
        return {
            "midpoint": await client.get_midpoint(asset_id=token),
            "spread": await client.get_spread(asset_id=token),
            "BUY": await client.get_price(asset_id=token, side="BUY"),
            "SELL": await client.get_price(asset_id=token, side="SELL"),
        }

    async def last(token: str) -> object:
        """The last trade's price and side; None where the client reads that nobody has traded."""
        return await client.get_last_trade_price(asset_id=token)

    def apply(event: Any) -> None:
        counts[event.type] = counts.get(event.type, 0) + 1
        payload = event.payload
        if event.type == "book":
            books[payload.asset_id] = {
                side: {level.price: level.size for level in getattr(payload, side)} for side in ("bids", "asks")
            }
        elif event.type == "price_change":
            for change in payload.price_changes:
                if change.asset_id in books:
                    side = books[change.asset_id]["bids" if change.side == "BUY" else "asks"]
                    side[change.price] = change.size
                    if not change.size:
                        del side[change.price]
        elif event.type == "best_bid_ask":
            best[payload.asset_id] = payload
        elif event.type == "last_trade_price":
            trades.append(payload)

    async def watch(tokens: list[str]) -> None:
        handle = await client.subscribe(MarketSpec(asset_ids=tokens, custom_feature_enabled=True))

        async def read() -> None:
            async with handle:
                async for event in handle:
                    apply(event)

        reading.append(asyncio.create_task(read()))

    async def book(token: str) -> object:
        """The live book: [price, size] of both sides; None before the first frame."""
        for task in reading:
            if task.done():
                task.result()
        held = books.get(token)
        return held and {side: [[price, size] for price, size in levels.items()] for side, levels in held.items()}

    async def messages() -> object:
        return {"counts": counts, "best": best, "trades": trades}

    calls = (market, event, markets, orderbook, orderbooks, quotes, last, watch, book, messages)
    try:
        yield {call.__name__: call for call in calls}
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await client.close()


serve("polymarket-client", connect)
