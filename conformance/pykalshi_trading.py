"""pykalshi: orders, the account and its channels, over signed REST and the client's own feed.

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
from pykalshi.enums import TimeInForce
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
    portfolio = client.portfolio
    lock = threading.Lock()
    books: dict[str, OrderbookManager] = {}
    channels = ("fill", "user_orders", "market_positions", "order_group_updates")
    heard: dict[str, list[Any]] = {name: [] for name in (*channels, "error")}

    def on_book(message: Any) -> None:
        with lock:
            book = books.setdefault(message.market_ticker, OrderbookManager(message.market_ticker))
            if isinstance(message, OrderbookSnapshotMessage):
                book.apply_snapshot(message.yes_dollars, message.no_dollars)
            else:
                book.apply_delta(message.side, message.price_dollars, message.delta_fp)

    def on(channel: str) -> None:
        def keep(message: Any) -> None:
            with lock:
                # A message that does not fit the client's model reaches handlers as a raw dict.
                fits = hasattr(message, "model_dump")
                heard[channel].append(message.model_dump(mode="json") if fits else {"unparsed": message})

        feed.on(channel, keep)

    async def create(
        ticker: str, book_side: str, price: str, count: str, time_in_force: str = "good_till_canceled", **more: Any
    ) -> object:
        placed = await asyncio.to_thread(
            portfolio.place_order, ticker, count_fp=count, book_side=book_side, price_dollars=price,
            time_in_force=TimeInForce(time_in_force), **more,
        )  # fmt: skip
        return placed.data

    async def create_batch(orders: list[dict[str, Any]]) -> object:
        legs = [
            {name: one[name] for name in ("ticker", "book_side", "client_order_id")}
            | {"price_dollars": one["price"], "count_fp": one["count"]}
            for one in orders
        ]
        return [order.data for order in await asyncio.to_thread(portfolio.batch_place_orders, legs)]

    async def amend(order_id: str, ticker: str, book_side: str, price: str, count: str) -> object:
        amended = await asyncio.to_thread(
            portfolio.amend_order, order_id, ticker=ticker, book_side=book_side, price_dollars=price, count_fp=count
        )
        return amended.data

    async def decrease(order_id: str, ticker: str, by: str) -> object:
        """This client says neither market nor exchange index."""
        return (await asyncio.to_thread(portfolio.decrease_order, order_id, by)).data

    async def cancel(order_id: str, ticker: str) -> object:
        """The same."""
        return (await asyncio.to_thread(portfolio.cancel_order, order_id)).data

    async def cancel_batch(order_ids: list[str], ticker: str) -> object:
        return [order.data for order in await asyncio.to_thread(portfolio.batch_cancel_orders, order_ids)]

    async def order(order_id: str) -> object:
        return (await asyncio.to_thread(portfolio.get_order, order_id)).data

    async def orders() -> object:
        return [one.data for one in await asyncio.to_thread(portfolio.get_orders, limit=2, fetch_all=True)]

    async def fills() -> object:
        return list(await asyncio.to_thread(portfolio.get_fills, limit=2, fetch_all=True))

    async def positions(settled: bool = False) -> object:
        more = {"settlement_status": "all"} if settled else {}
        return list(await asyncio.to_thread(portfolio.get_positions, fetch_all=True, **more))

    async def settlements() -> object:
        return list(await asyncio.to_thread(portfolio.get_settlements, fetch_all=True))

    async def balance() -> object:
        return await asyncio.to_thread(portfolio.get_balance)

    async def queue(order_id: str, ticker: str) -> object:
        one = await asyncio.to_thread(portfolio.get_queue_position, order_id)
        return [one, *await asyncio.to_thread(portfolio.get_queue_positions, market_tickers=[ticker])]

    async def group_create(limit: str) -> object:
        return await asyncio.to_thread(portfolio.create_order_group, limit)

    async def group(group_id: str) -> object:
        return await asyncio.to_thread(portfolio.get_order_group, group_id)

    async def groups() -> object:
        return list(await asyncio.to_thread(portfolio.get_order_groups))

    async def group_limit(group_id: str, limit: str) -> None:
        await asyncio.to_thread(portfolio.update_order_group_limit, group_id, limit)

    async def group_trigger(group_id: str) -> None:
        await asyncio.to_thread(portfolio.trigger_order_group, group_id)

    async def group_reset(group_id: str) -> None:
        await asyncio.to_thread(portfolio.reset_order_group, group_id)

    async def watch(ticker: str) -> bool:
        feed.on("orderbook_delta", on_book)
        on("error")
        feed.subscribe("orderbook_delta", market_tickers=[ticker])
        for channel in channels:
            on(channel)
            feed.subscribe(channel)
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

    calls = (
        create, create_batch, amend, decrease, cancel, cancel_batch, order, orders, fills, positions, settlements,
        balance, queue, group_create, group, groups, group_limit, group_trigger, group_reset, watch, book, messages,
    )  # fmt: skip
    try:
        yield {call.__name__: call for call in calls}
    finally:
        await asyncio.to_thread(feed.stop)
        client.close()


serve("pykalshi", connect)
