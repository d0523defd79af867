"""The trading process of a soak: `python -m tests.soak.trader SETUP` (JSON of `Setup`), killed whenever it pleases.

It is written against `BaseExchange` alone, as a strategy is: random intents from several tasks, callers that give up,
cancels, unknown outcomes looked up. Whatever it is told it writes down at once. Nothing of an earlier life is read but
the intents that were left unknown, which a strategy would have kept. With no intents left it waits until everything is
settled, looks at the account once more and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import sys
import time
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pmkit.clock import to_utc
from pmkit.errors import CancelUnknown, InvalidOrder, NotSent, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import (
    Accepted,
    CancelResult,
    Fill,
    Intent,
    Order,
    OrderId,
    OrderState,
    OrderStatus,
    Side,
    TimeInForce,
)
from pmkit.streams import Subscription
from tests.soak.notes import Notes

D = Decimal
LIFE = timedelta(seconds=200)
"""Market time after which a GTD order of a soak is gone."""

VIEWS_UNTIL = 10.0
"""Wall seconds after its start until which a trader looks at the account again and again."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """`venue`: the module with `exchange_of(setup)`; `account`: what that needs; `unknown`: intents of lives before."""

    venue: str
    endpoints: str
    account: dict[str, Any]
    notes: str
    seed: int
    life: int
    intents: int
    workers: int = 16
    asset: str = "BTC"
    unknown: tuple[Intent, ...] = ()


class Trader:
    def __init__(self, setup: Setup, exchange: BaseExchange) -> None:
        self.setup = setup
        self.exchange = exchange
        self.notes = Notes(Path(setup.notes), setup.life)
        self.random = random.Random(f"{setup.seed} {setup.life}")
        self.left = setup.intents
        self.market: Market | None = None
        self.resting: dict[str, Market] = {}
        self.mine: set[str] = set()
        self.began = time.time()
        self._books: Subscription[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life -----------------------------------------------------------------------------------------------------

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.notes.add("failed", error=f"{type(error).__name__}: {error}")

    async def run(self) -> None:
        self.began = time.time()
        self.notes.add("start")
        for intent in self.setup.unknown:
            self.spawn(self.resolve(intent))
        await again(self.view)
        await again(lambda: self.exchange.subscribe_fills(self.on_fill))
        await again(lambda: self.exchange.subscribe_orders(self.on_order))
        self.notes.add("ready")
        beside = [asyncio.create_task(self.watch()), asyncio.create_task(self.follow())]
        await asyncio.gather(*(self.work() for _ in range(self.setup.workers)))
        self.notes.add("calm")
        await self.finish()
        for task in beside:
            task.cancel()
        for error in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(error, Exception):
                self.notes.add("failed", error=f"{type(error).__name__}: {error}")
        self.notes.add("done")

    async def follow(self) -> None:
        """Keep to the current market, with its live books."""
        finder = self.exchange.finder()
        while True:
            with contextlib.suppress(PmkitError):
                found = await finder.get_current_market(self.setup.asset)
                if found and (self.market is None or found.market_id != self.market.market_id):
                    books = await self.exchange.subscribe_orderbook([found])
                    self.market = found
                    if self._books is not None:
                        await self._books.close()
                    self._books = books
            await asyncio.sleep(0.2)

    async def watch(self) -> None:
        """What a restarted bot sees of the account, within ten seconds of its start."""
        while time.time() < self.began + VIEWS_UNTIL:
            await asyncio.sleep(2)
            await again(self.view)

    async def view(self, what: str = "view") -> bool:
        """Look at the whole account. Whether nothing is open, unknown or pending any more."""
        began = time.time()
        positions = await self.exchange.get_positions()
        looked = time.time()
        opened = await self.exchange.get_open_orders()
        trades = await self.exchange.get_trade_history()
        self.notes.add(
            what,
            began=began,
            looked=looked,
            open=[status.order_id for status in opened],
            trades=[(trade.trade_id, trade.order_id) for trade in trades],
            positions=[(one.market_id, one.outcome, one.size) for one in positions],
        )
        for status in opened:
            if what == "view" and status.order_id not in self.mine:
                self.spawn(self.cancel(status.order_id))
        return not opened and not self.exchange.unresolved and not any(one.pending for one in positions)

    async def finish(self) -> None:
        """Everything resolved, nothing open, all fills final; then the last word about every order."""
        async with asyncio.timeout(120):
            while self._tasks - {asyncio.current_task()} or self.exchange.unresolved:
                for intent in self.exchange.unresolved:
                    await self.resolve(intent)
                await asyncio.sleep(0.1)
            while not await again(self.view):  # noqa: ASYNC110 - the venue says it only when asked
                await asyncio.sleep(0.5)
            await asyncio.sleep(1)  # the last events are on their way
        await self.view("last")
        for order_id in sorted(self.mine):
            status = await self.exchange.get_order_status(order_id)
            self.notes.add("status", order=order_id, state=status.status, filled=status.filled_amount)

    # -- streams --------------------------------------------------------------------------------------------------

    def on_fill(self, fill: Fill) -> None:
        shares = fill.size if fill.side is Side.BUY else -fill.size
        self.notes.add(
            "fill",
            fill=fill.fill_id,
            order=fill.order_id,
            state=fill.state,
            own=fill.own,
            market=fill.market_id,
            outcome=fill.outcome,
            shares=shares,
            price=fill.price,
        )

    def on_order(self, status: OrderStatus) -> None:
        self.notes.add("order", order=status.order_id, state=status.status, filled=status.filled_amount)

    # -- orders ---------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        while self.left > 0:
            market = self.market
            if market is None or self.exchange.finder().get_seconds_remaining(market) < 2:
                await asyncio.sleep(0.02)
                continue
            kind = self.random.random()
            if kind < 0.85:
                self.left -= 1
                await self.single(market)
            elif kind < 0.95 or not self.resting:
                count = self.random.randint(2, 4)
                self.left -= count
                await self.batch(market, [self.draw(market) for _ in range(count)])
            else:
                self.left -= 1
                await self.replace(market)
            await asyncio.sleep(self.random.random() * 0.02)

    def draw(self, market: Market) -> Order:
        """A limit order: deep, at the touch, or across it."""
        pick = self.random
        outcome = pick.choice(market.outcomes)
        size = market.floor_size(D(pick.randint(500, 2000)) / 100)
        book = self.exchange.book(market, outcome)
        kind = pick.random()
        price, side, more = market.floor_price(D(pick.randint(2, 6)) / 100), Side.BUY, {}
        if kind < 0.35 and book.best_bid is not None:
            price, more = book.best_bid, {"post_only": pick.random() < 0.5}
        elif kind < 0.55:
            price = market.floor_price(D("0.95"))
        elif kind < 0.7:
            price, side, more = market.floor_price(D("0.05")), Side.SELL, {"time_in_force": TimeInForce.IOC}
        elif kind < 0.8:
            more = {"time_in_force": TimeInForce.GTD, "expires_at": to_utc(self.exchange.venue_clock.now_ms()) + LIFE}
        return Order(
            market_id=market.market_id,
            outcome=outcome,
            side=side,
            price=price,
            size=size,
            client_order_id=self.client_id(),
            **more,
        )

    def client_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def note_intent(self, order: Order) -> None:
        rests = order.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)
        self.notes.add(
            "intent",
            client=order.client_order_id,
            market=order.market_id,
            outcome=order.outcome,
            side=order.side,
            price=order.price if rests else None,
            size=order.size if rests else None,
        )

    async def single(self, market: Market) -> None:
        pick = self.random
        if pick.random() < 0.25:
            await self.take(market)
            return
        order = self.draw(market)
        self.note_intent(order)
        placing = self.exchange.place_limit_order(
            market,
            order.outcome,
            order.side,
            order.price,
            order.size,
            time_in_force=order.time_in_force,
            expires_at=order.expires_at,
            post_only=order.post_only,
            client_order_id=order.client_order_id,
        )
        await self.outcome(market, str(order.client_order_id), placing)

    async def take(self, market: Market) -> None:
        client, outcome = self.client_id(), self.random.choice(market.outcomes)
        self.notes.add(
            "intent", client=client, market=market.market_id, outcome=outcome, side=Side.BUY, price=None, size=None
        )
        placing = self.exchange.place_market_order(
            market,
            outcome,
            Side.BUY,
            worst_price=market.floor_price(D("0.98")),
            amount=self.random.randint(2, 9),
            client_order_id=client,
        )
        await self.outcome(market, client, placing)

    async def outcome(self, market: Market, client: str, placing: Coroutine[Any, Any, OrderId]) -> None:
        """See one order through, with a caller that may lose patience."""
        task = asyncio.create_task(placing)
        if self.random.random() < 0.1:
            await asyncio.sleep(self.random.random() * 0.02)
            task.cancel()
        try:
            result: OrderId | PmkitError = await task
        except asyncio.CancelledError:
            self.notes.add("left", client=client)
            intent = next((one for one in self.exchange.unresolved if one.client_order_id == client), None)
            if intent is None:  # cancelled before it began
                self.notes.add("not_sent", client=client)
            else:
                self.notes.add("unknown", client=client, intent=intent)
                self.spawn(self.resolve(intent))
            return
        except PmkitError as error:
            result = error
        self.take_down(market, client, result)

    def take_down(self, market: Market, client: str, result: OrderId | PmkitError) -> None:
        if isinstance(result, OrderId):
            self.notes.add("accepted", client=client, order=str(result), state=result.status)
            self.placed(result, market)
        elif isinstance(result, OrderUnknown):
            self.notes.add("unknown", client=client, intent=result.intent)
            self.spawn(self.resolve(result.intent))
        elif isinstance(result, NotSent | InvalidOrder):
            self.notes.add("not_sent", client=client, why=str(result))
        elif isinstance(result, OrderRejected):
            self.notes.add("rejected", client=client, code=result.code)
        else:
            self.notes.add("failed", error=f"{type(result).__name__}: {result}")

    def placed(self, order_id: OrderId, market: Market) -> None:
        if order_id.status is OrderState.CANCELED and not order_id.filled_amount:
            return  # it took nothing: a venue need not remember it
        self.mine.add(str(order_id))
        if order_id.status in (OrderState.LIVE, OrderState.DELAYED):
            self.resting[str(order_id)] = market
            if self.random.random() < 0.8:
                self.spawn(self.cancel(str(order_id), self.random.random() * 2))

    async def batch(self, market: Market, orders: list[Order]) -> None:
        for order in orders:
            self.note_intent(order)
        results = await self.exchange.place_orders(orders)
        for order, result in zip(orders, results, strict=True):
            self.take_down(market, str(order.client_order_id), result)

    async def replace(self, market: Market) -> None:
        old = self.random.choice(list(self.resting))
        order = self.draw(market)
        self.note_intent(order)
        (result,) = await self.exchange.replace_orders([old], [order])
        if isinstance(result, CancelUnknown):
            self.notes.add("not_sent", client=order.client_order_id, why=str(result))
            return
        if isinstance(result, OrderId) and result == old:
            self.notes.add("amended", client=order.client_order_id, order=old)  # no new order: the old one is smaller
            return
        if isinstance(result, OrderUnknown) and result.intent.order_id == old:
            self.notes.add("amended", client=order.client_order_id, order=old)
            self.spawn(self.cancel(old))
            return
        self.resting.pop(old, None)
        self.take_down(market, str(order.client_order_id), result)

    async def resolve(self, intent: Intent) -> None:
        while True:
            try:
                found = await self.exchange.resolve_order(intent)
                break
            except PmkitError as error:
                self.notes.add("still_unknown", client=intent.client_order_id, why=str(error))
                await asyncio.sleep(0.5)
        if not isinstance(found, Accepted):
            self.notes.add("resolved", client=intent.client_order_id, order=None)
            return
        order_id = found.order_id
        took = order_id.status is not OrderState.CANCELED or bool(order_id.filled_amount)
        self.notes.add("resolved", client=intent.client_order_id, order=str(order_id), took=took)
        if took:  # of one that took nothing the venue need not know
            self.mine.add(str(order_id))
            self.spawn(self.cancel(str(order_id), self.random.random() * 2))

    async def cancel(self, order_id: str, wait: float = 0) -> None:
        await asyncio.sleep(wait)
        while True:
            try:
                result = await self.exchange.cancel_order(order_id)
            except PmkitError as error:
                self.notes.add("cancel_unknown", order=order_id, why=str(error))
            else:
                self.notes.add("cancel", order=order_id, result=result)
                if result is not CancelResult.NOT_YET:
                    break
            await asyncio.sleep(0.1)
        self.resting.pop(order_id, None)


async def again(call: Any) -> Any:
    """Until it works: a query that fails says so, and may be asked again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except PmkitError:
                await asyncio.sleep(0.2)


async def main(setup: Setup) -> None:
    async with importlib.import_module(setup.venue).exchange_of(setup) as exchange:
        await Trader(setup, exchange).run()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Setup)))
