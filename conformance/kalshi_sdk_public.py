"""kalshi-sdk (Python 3.12 and later): markets, books and trades over REST and its socket, which checks `seq` itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from kalshi import AsyncKalshiClient, KalshiConfig


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["kalshi"]
    config = KalshiConfig(base_url=venue["rest"], ws_base_url=venue["ws"], max_retries=0, ws_max_retries=1)
    books: dict[str, Any] = {}
    heard: dict[str, list[Any]] = {"ticker": [], "trade": []}
    updates: dict[str, int] = {}
    reading: list[asyncio.Task[None]] = []

    async with (
        AsyncKalshiClient(key_id=settings["key_id"], private_key_path=settings["key_path"], config=config) as client,
        AsyncExitStack() as stack,
    ):

        async def market(ticker: str) -> object:
            return await client.markets.get(ticker)

        async def markets(series: str, status: str) -> object:
            return [one async for one in client.markets.list_all(series_ticker=series, status=status, limit=7)]

        async def orderbook(ticker: str) -> object:
            return await client.markets.orderbook(ticker)

        async def orderbooks(tickers: list[str]) -> object:
            return await client.markets.bulk_orderbooks(tickers=tickers)

        async def trades(ticker: str) -> object:
            return [one async for one in client.markets.list_all_trades(ticker=ticker, limit=5)]

        async def exchange() -> object:
            return {"status": await client.exchange.status(), "schedule": await client.exchange.schedule()}

        async def series(ticker: str) -> object:
            return await client.series.get(ticker)

        async def event(ticker: str) -> object:
            return await client.events.get(ticker, with_nested_markets=True)

        async def watch(tickers: list[str]) -> None:
            session = await stack.enter_async_context(client.ws.connect())

            async def follow(ticker: str, stream: Any) -> None:
                async for found in stream:
                    books[ticker] = found
                    updates[ticker] = updates.get(ticker, 0) + 1

            async def keep(name: str, stream: Any) -> None:
                async for message in stream:
                    heard[name].append(message.model_dump(mode="json"))

            for ticker in tickers:
                reading.append(asyncio.create_task(follow(ticker, await session.orderbook(ticker))))
            reading.append(asyncio.create_task(keep("ticker", await session.subscribe_ticker(tickers=tickers))))
            reading.append(asyncio.create_task(keep("trade", await session.subscribe_trade(tickers=tickers))))

        async def book(ticker: str) -> object:
            for task in reading:
                if task.done():
                    task.result()
            return books[ticker]

        async def messages() -> object:
            return heard | {"updates": updates}

        calls = (market, markets, orderbook, orderbooks, trades, exchange, series, event, watch, book, messages)
        try:
            yield {call.__name__: call for call in calls}
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


serve("kalshi-sdk", connect)
