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
    books: list[Any] = []
    heard: dict[str, list[Any]] = {"ticker": [], "trade": []}
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

        async def watch(ticker: str) -> None:
            session = await stack.enter_async_context(client.ws.connect())

            async def follow(stream: Any) -> None:
                async for found in stream:
                    books.append(found)

            async def keep(name: str, stream: Any) -> None:
                async for message in stream:
                    heard[name].append(message.model_dump(mode="json"))

            # The book comes last: while this client subscribes it throws away every frame but the answer, so that the
            # snapshot of a book would be lost to the subscription after it.
            reading.append(asyncio.create_task(keep("ticker", await session.subscribe_ticker(tickers=[ticker]))))
            reading.append(asyncio.create_task(keep("trade", await session.subscribe_trade(tickers=[ticker]))))
            reading.append(asyncio.create_task(follow(await session.orderbook(ticker))))

        async def book() -> object:
            """The live book as of the last frame; None before the first."""
            for task in reading:
                if task.done():
                    task.result()
            return books[-1] if books else None

        async def messages() -> object:
            return heard | {"updates": len(books)}

        calls = (market, markets, orderbook, orderbooks, trades, exchange, series, event, watch, book, messages)
        try:
            yield {call.__name__: call for call in calls}
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


serve("kalshi-sdk", connect)
