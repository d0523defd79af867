"""py-clob-client-v2, official and synchronous: the public side of the CLOB. It has no socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from py_clob_client_v2 import ClobClient
from py_clob_client_v2.clob_types import BookParams, OrderType, PricesHistoryParams


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    client = ClobClient(host=settings["endpoints"]["polymarket"]["clob"], chain_id=137)

    async def book(token: str) -> object:
        """The book as sent, and the hash that the client computes over it."""
        found = await asyncio.to_thread(client.get_order_book, token)
        return {"book": found, "hash": client.get_order_book_hash(dict(found))}

    async def books(tokens: list[str]) -> object:
        return await asyncio.to_thread(client.get_order_books, [BookParams(token_id=token) for token in tokens])

    async def history(token: str) -> object:
        return await asyncio.to_thread(client.get_prices_history, PricesHistoryParams(market=token, interval="1h"))

    async def worst_price(token: str, side: str, amount: float) -> object:
        """The price at which a market order of that size would end, which the client walks the book for."""
        return await asyncio.to_thread(client.calculate_market_price, token, side, amount, OrderType.FOK)

    async def read(name: str, args: list[Any]) -> object:
        """Any other read, by its name."""
        if not name.startswith("get_"):
            raise ValueError(f"{name} is no read")
        return await asyncio.to_thread(getattr(client, name), *args)

    yield {call.__name__: call for call in (book, books, history, worst_price, read)}


serve("py-clob-client-v2", connect)
