"""kalshi-python-async, the older official client: the reads it can still parse, and the order paths that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import kalshi_python_async as kalshi
from child import Calls, Settings, serve


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    configuration = kalshi.Configuration(host=settings["endpoints"]["kalshi"]["rest"])
    client = kalshi.ApiClient(configuration)
    # What set_kalshi_auth() does: in 3.2.0 it fails with a NameError, for a name that its module does not import.
    pem = await asyncio.to_thread(Path(settings["key_path"]).read_text)
    client.kalshi_auth = kalshi.KalshiAuth(settings["key_id"], pem)
    market_api = kalshi.MarketApi(client)

    async def exchange() -> object:
        return await kalshi.ExchangeApi(client).get_exchange_status()

    async def schedule() -> object:
        return await kalshi.ExchangeApi(client).get_exchange_schedule()

    async def series(ticker: str) -> object:
        return await market_api.get_series(ticker)

    async def market(ticker: str) -> object:
        return await market_api.get_market(ticker)

    async def orderbook(ticker: str) -> object:
        return await market_api.get_market_orderbook(ticker)

    async def trades(ticker: str) -> object:
        return await market_api.get_trades(ticker=ticker)

    async def create_order(ticker: str) -> object:
        """Over the first version's path, the only one it knows."""
        return await kalshi.OrdersApi(client).create_order(
            ticker=ticker, side="yes", action="buy", count=1, type="limit", yes_price=1
        )

    try:
        yield {call.__name__: call for call in (exchange, schedule, series, market, orderbook, trades, create_order)}
    finally:
        await client.close()


serve("kalshi-python-async", connect)
