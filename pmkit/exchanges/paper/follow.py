"""`Followed`: one market that the dry-run listens to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pmkit.errors import PmkitError
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import PublicTrade
from pmkit.streams import Subscription


class Followed:
    """Books and prints of one market, subscribed once, however many orders ask for it at the same time."""

    def __init__(
        self,
        market: Market,
        data: MarketData,
        on_book: Callable[[OrderBook], None],
        on_print: Callable[[PublicTrade], None],
    ) -> None:
        self.market = market
        self.closed = False
        self.error: PmkitError | None = None
        self._data = data
        self._on_book = on_book
        self._on_print = on_print
        self._streams: list[Subscription[Any]] = []
        self._opening: asyncio.Task[None] | None = None

    async def _open(self) -> None:
        # Prints first: a change of the book waits for its print, a print that came before nobody hears.
        self._streams.append(await self._data.subscribe_trades([self.market], self._on_print))
        self._streams.append(await self._data.subscribe_orderbook([self.market], self._on_book))

    async def ready(self) -> None:
        """Return when both are subscribed. Raises what the subscription raised."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name=f"follow {self.market.market_id}")
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Give both up. May be called twice."""
        self.closed = True
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        streams, self._streams = self._streams, []
        for stream in streams:
            await stream.close()
