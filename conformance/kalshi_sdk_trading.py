"""kalshi-sdk (Python 3.12 and later): orders, the account and its channels over REST and its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from child import Calls, Settings, serve
from kalshi import AsyncKalshiClient, KalshiConfig
from kalshi.models.orders import (
    AmendOrderV2Request,
    BatchCancelOrdersV2Request,
    BatchCreateOrdersV2Request,
    CreateOrderV2Request,
    DecreaseOrderV2Request,
)

SHARD = 2


def request(
    ticker: str, book_side: str, price: str, count: str, time_in_force: str = "good_till_canceled", **more: Any
) -> CreateOrderV2Request:
    return CreateOrderV2Request(
        ticker=ticker, side=book_side, price=price, count=count, time_in_force=time_in_force, exchange_index=SHARD,
        self_trade_prevention_type="maker", **more,
    )  # fmt: skip


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Calls]:
    venue = settings["endpoints"]["kalshi"]
    config = KalshiConfig(base_url=venue["rest"], ws_base_url=venue["ws"], max_retries=0, ws_max_retries=1)
    books: list[Any] = []
    channels = ("fill", "user_orders", "market_positions", "order_group_updates")
    heard: dict[str, list[Any]] = {name: [] for name in channels}
    reading: list[asyncio.Task[None]] = []

    async with (
        AsyncKalshiClient(key_id=settings["key_id"], private_key_path=settings["key_path"], config=config) as client,
        AsyncExitStack() as stack,
    ):

        async def create(**fields: Any) -> object:
            return await client.orders.create_v2(request=request(**fields))

        async def create_batch(orders: list[dict[str, Any]]) -> object:
            legs = BatchCreateOrdersV2Request(orders=[request(**one) for one in orders])
            return (await client.orders.batch_create_v2(request=legs)).orders

        async def amend(order_id: str, ticker: str, book_side: str, price: str, count: str) -> object:
            body = AmendOrderV2Request(ticker=ticker, side=book_side, price=price, count=count, exchange_index=SHARD)
            return await client.orders.amend_v2(order_id, request=body)

        async def decrease(order_id: str, ticker: str, by: str) -> object:
            body = DecreaseOrderV2Request(reduce_by=by, exchange_index=SHARD, market_ticker=ticker)
            return await client.orders.decrease_v2(order_id, request=body)

        async def cancel(order_id: str, ticker: str) -> object:
            return await client.orders.cancel_v2(order_id, exchange_index=SHARD, market_ticker=ticker)

        async def cancel_batch(order_ids: list[str], ticker: str) -> object:
            legs = [{"order_id": one, "exchange_index": SHARD, "market_ticker": ticker} for one in order_ids]
            body = BatchCancelOrdersV2Request.model_validate({"orders": legs})
            return (await client.orders.batch_cancel_v2(request=body)).orders

        async def cancel_all() -> None:
            await client.orders.cancel_all_v2()

        async def order(order_id: str) -> object:
            return await client.orders.get(order_id)

        async def orders() -> object:
            return [one async for one in client.orders.list_all(limit=2)]

        async def fills() -> object:
            return [one async for one in client.portfolio.fills_all(limit=2)]

        async def positions() -> object:
            return (await client.portfolio.positions()).market_positions

        async def settlements() -> object:
            return [one async for one in client.portfolio.settlements_all()]

        async def balance() -> object:
            return await client.portfolio.balance()

        async def queue(order_id: str, ticker: str) -> object:
            one = await client.orders.queue_position(order_id)
            several = await client.orders.queue_positions(market_tickers=[ticker])
            return [{"order_id": order_id, "queue_position": one}, *several]

        async def group_create(limit: str) -> object:
            return await client.order_groups.create(contracts_limit=int(limit), exchange_index=SHARD)

        async def group_create_on_0(limit: str) -> object:
            return await client.order_groups.create(contracts_limit=int(limit))

        async def group(group_id: str) -> object:
            return await client.order_groups.get(group_id)

        async def groups() -> object:
            return await client.order_groups.list()

        async def group_limit(group_id: str, limit: str) -> None:
            await client.order_groups.update_limit(group_id, contracts_limit=int(limit))

        async def group_trigger(group_id: str) -> None:
            await client.order_groups.trigger(group_id)

        async def group_reset(group_id: str) -> None:
            await client.order_groups.reset(group_id)

        async def group_delete(group_id: str) -> None:
            await client.order_groups.delete(group_id, exchange_index=SHARD)

        async def watch(ticker: str) -> bool:
            session = await stack.enter_async_context(client.ws.connect())

            async def follow(stream: Any) -> None:
                async for found in stream:
                    books.append(found)

            async def keep(name: str, stream: Any) -> None:
                async for message in stream:
                    heard[name].append(message.msg.model_dump(mode="json"))

            streams = (
                await session.subscribe_fill(),
                await session.subscribe_user_orders(),
                await session.subscribe_market_positions(),
                await session.subscribe_order_group(),
            )
            # The book comes last: while this client subscribes it throws away every frame but the answer.
            reading.extend(
                asyncio.create_task(keep(name, stream)) for name, stream in zip(channels, streams, strict=True)
            )
            reading.append(asyncio.create_task(follow(await session.orderbook(ticker))))
            return True

        async def book(ticker: str) -> object:
            """The live book as of the last frame; None before the first."""
            for task in reading:
                if task.done():
                    task.result()
            return books[-1] if books else None

        async def messages() -> object:
            return heard

        calls = (
            create, create_batch, amend, decrease, cancel, cancel_batch, cancel_all, order, orders, fills, positions,
            settlements, balance, queue, group_create, group_create_on_0, group, groups, group_limit, group_trigger,
            group_reset, group_delete, watch, book, messages,
        )  # fmt: skip
        try:
            yield {call.__name__: call for call in calls}
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


serve("kalshi-sdk", connect)
