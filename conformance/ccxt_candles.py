"""ccxt: candles over REST (async_support) and over its socket (ccxt pro's watch_ohlcv)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt.pro
from child import Calls, Settings, serve


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["binance"]
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}}, "enableRateLimit": False})
    exchange.urls["api"]["public"] = f"{venue['rest'][0]}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"{venue['ws'][0]}/ws"
    updates: dict[str, list[Any]] = {}
    reading: list[asyncio.Task[None]] = []

    async def markets() -> object:
        found = await exchange.load_markets()
        return {name: [market["id"], market["precision"], market["limits"]] for name, market in found.items()}

    async def page(symbol: str, interval: str, since: int | None, limit: int | None, until: int | None) -> object:
        """One request."""
        params = {} if until is None else {"until": until}
        return await exchange.fetch_ohlcv(symbol, interval, since, limit, params)

    async def history(symbol: str, interval: str, start: int, end: int) -> object:
        """Candles with start <= open <= end: the usual loop, each page from one after the last one's."""
        rows: list[Any] = []
        since = start
        while since <= end:
            found = await exchange.fetch_ohlcv(symbol, interval, since, 1000, {"until": end})
            if not found:
                break
            rows += found
            since = found[-1][0] + 1
        return rows

    async def watch(symbols: list[str], interval: str) -> None:
        async def read(symbol: str) -> None:
            while True:
                found = await exchange.watch_ohlcv(symbol, interval)
                updates.setdefault(symbol, []).extend(list(row) for row in found)

        await exchange.load_markets()
        reading.extend(asyncio.create_task(read(symbol)) for symbol in symbols)

    async def heard() -> object:
        for task in reading:
            if task.done():
                task.result()
        return updates

    try:
        yield {call.__name__: call for call in (markets, page, history, watch, heard)}
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await exchange.close()


serve("ccxt", connect)
