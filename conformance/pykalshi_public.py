"""pykalshi: markets, books, trades and the state of the exchange over signed REST; its feed for the live book.

The client is synchronous, its feed runs in a thread of its own: calls go to threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from pykalshi import KalshiClient
from pykalshi.enums import MarketStatus
from pykalshi.feed import OrderbookSnapshotMessage
from pykalshi.orderbook import OrderbookManager


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["kalshi"]
    client = KalshiClient(
        api_base=venue["rest"], api_key_id=settings["key_id"], private_key_path=settings["key_path"], max_retries=0
    )
    feed = client.feed()
    feed._ws_url = venue["ws"]
    lock = threading.Lock()
    books: dict[str, OrderbookManager] = {}
    heard: dict[str, list[Any]] = {"ticker": [], "trade": [], "error": [], "deltas": []}

    def on_book(message: Any) -> None:
        with lock:
            book = books.setdefault(message.market_ticker, OrderbookManager(message.market_ticker))
            if isinstance(message, OrderbookSnapshotMessage):
                book.apply_snapshot(message.yes_dollars, message.no_dollars)
            else:
                book.apply_delta(message.side, message.price_dollars, message.delta_fp)
                heard["deltas"].append(message.market_ticker)

    def on(channel: str) -> None:
        def keep(message: Any) -> None:
            with lock:
                # A message that does not fit the client's model reaches handlers as a raw dict.
                fits = hasattr(message, "model_dump")
                heard[channel].append(message.model_dump(mode="json") if fits else {"unparsed": message})

        feed.on(channel, keep)

    async def market(ticker: str) -> object:
        return (await asyncio.to_thread(client.get_market, ticker)).data

    async def markets(series: str, status: str) -> object:
        found = await asyncio.to_thread(
            client.get_markets, series_ticker=series, status=MarketStatus(status), limit=7, fetch_all=True
        )
        return [one.data for one in found]

    async def event(ticker: str) -> object:
        return (await asyncio.to_thread(client.get_event, ticker, with_nested_markets=True)).data

    async def series(ticker: str) -> object:
        return (await asyncio.to_thread(client.get_series, ticker)).data

    async def orderbook(ticker: str) -> object:
        found = await asyncio.to_thread(client.get_market, ticker)
        return (await asyncio.to_thread(found.get_orderbook)).orderbook

    async def trades(ticker: str) -> object:
        return list(await asyncio.to_thread(client.get_trades, ticker=ticker, limit=5, fetch_all=True))

    async def exchange() -> object:
        status = await asyncio.to_thread(client.exchange.get_status)
        return {"status": status, "schedule": await asyncio.to_thread(client.exchange.get_schedule)}

    async def watch(tickers: list[str]) -> bool:
        feed.on("orderbook_delta", on_book)
        for channel in ("ticker", "trade", "error"):
            on(channel)
        for channel in ("orderbook_delta", "ticker", "trade"):
            feed.subscribe(channel, market_tickers=tickers)
        await asyncio.to_thread(feed.start)
        return feed.is_connected

    async def book(ticker: str) -> object:
        """The live book: bids of both outcomes as [price, count]; None before the first frame."""
        with lock:
            held = books.get(ticker)
            if held is None:
                return None
            return {side: [[price, count] for price, count in getattr(held, side).items()] for side in ("yes", "no")}

    async def messages() -> object:
        with lock:
            return {name: list(found) for name, found in heard.items()} | {"reconnects": feed.reconnect_count}

    try:
        yield {
            call.__name__: call
            for call in (market, markets, event, series, orderbook, trades, exchange, watch, book, messages)
        }
    finally:
        await asyncio.to_thread(feed.stop)
        client.close()


serve("pykalshi", connect)
