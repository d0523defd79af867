"""python-binance: candles over REST and from its multiplex socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from binance import AsyncClient, BinanceSocketManager
from child import Calls, Settings, serve


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["binance"]
    AsyncClient.API_URL = f"{venue['rest'][0]}/api"
    BinanceSocketManager.STREAM_URL = f"{venue['ws'][0]}/"
    client = await AsyncClient.create(time_unit=settings.get("time_unit"))
    frames: list[Any] = []
    reading: list[asyncio.Task[None]] = []

    async def history(symbol: str, interval: str, start: int, end: int) -> object:
        """Rows with start <= open <= end, by as many requests as it takes."""
        return await client.get_historical_klines(symbol, interval, start, end)

    async def klines(**params: Any) -> object:
        return await client.get_klines(**params)

    async def server_time() -> object:
        return await client.get_server_time()

    async def exchange_info() -> object:
        return await client.get_exchange_info()

    async def watch(streams: list[str]) -> None:
        socket = BinanceSocketManager(client).multiplex_socket(streams)

        async def read() -> None:
            async with socket as stream:
                while True:
                    frames.append(await stream.recv())

        reading.append(asyncio.create_task(read()))

    async def heard() -> object:
        for task in reading:
            if task.done():
                task.result()
        return frames

    try:
        yield {call.__name__: call for call in (history, klines, server_time, exchange_info, watch, heard)}
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await client.close_connection()


serve("python-binance", connect)
