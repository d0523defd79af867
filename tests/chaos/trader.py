"""A bot that does everything a strategy can do, at random but by a seed, and writes down what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy
from pmkit.errors import (
    CancelUnknown,
    InvalidOrder,
    NotSent,
    OrderRejected,
    OrderUnknown,
    PmkitError,
)
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Accepted, Fill, Intent, Order, OrderStatus, Side, TimeInForce

RESOLVE_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Attempt:
    """One order the bot wanted. `result`: "" while it is on its way, then accepted, rejected, unknown, cancelled (its
    caller was) or not sent; later resolved: accepted or absent."""

    venue: str
    market: Market
    order: Order
    client_order_id: str
    begun_ms: int
    result: str = ""
    resolved: str = ""
    order_id: str = ""
    error: str = ""
    ended_ms: int = 0


@dataclass(slots=True)
class Said:
    """What the bot was told, in the order in which it was told."""

    attempts: list[Attempt] = field(default_factory=list)
    by_client: dict[str, Attempt] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    orders: list[OrderStatus] = field(default_factory=list)
    rollovers: list[tuple[str, str, object, object]] = field(default_factory=list)
    settled: list[tuple[Market, object, Decimal]] = field(default_factory=list)
    listings: list[tuple[str, int, int, frozenset[str]]] = field(default_factory=list)
    """Answers of get_open_orders: venue, begun and answered (ms), order ids."""
    cancels: int = 0
    queries: int = 0
    failed_queries: int = 0


class Trader(BaseBot):
    """`entropy` decides. With `busy` False (the calm phase) nothing new is begun."""

    TICK_SECONDS = 1.0

    def prepare(self, seed: int | str, *, pace: float = 1.0) -> None:
        """Before `start`."""
        self.entropy = Entropy(f"trader {seed}")
        self.pace = pace
        self.said = Said()
        self.busy = True
        self.started = False
        self.resolving: set[str] = set()
        self.before_tick: Callable[[], object] = lambda: None
        self.before_order: Callable[[Attempt], object] = lambda attempt: None

    def start_of(self, attempt: Attempt) -> None:
        self.before_order(attempt)
        self.said.attempts.append(attempt)
        self.said.by_client[attempt.client_order_id] = attempt

    async def _on_start(self) -> None:
        for exchange in self.exchanges.values():
            await exchange.subscribe_fills(self.said.fills.append)
            await exchange.subscribe_orders(self.said.orders.append)
        self.started = True

    async def _tick(self) -> None:
        self.before_tick()
        for exchange in self.exchanges.values():
            for intent in exchange.unresolved:
                if intent.client_order_id not in self.resolving:
                    self.resolving.add(intent.client_order_id)
                    self.spawn(self.resolve(exchange, intent), f"resolving {intent.client_order_id}", critical=False)
        if not self.busy:
            return
        for key in self.markets:
            market = self.markets[key]  # looked up anew: the one before may have taken longer than its market lasted
            if not isinstance(market, Market):
                continue
            chance = self.entropy.random() / self.pace
            if chance < 0.16:
                await self.place(market)
            elif chance < 0.24:
                await self.cancel(key[0])
            elif chance < 0.27:
                await self.replace(market)
            elif chance < 0.29:
                await self.batch(market)
            elif chance < 0.35:
                await self.ask(key[0])

    async def _on_rollover(self, asset, old, new) -> None:
        venue = (old or new).venue if (old or new) else "none"
        self.said.rollovers.append((venue, asset, old, new))

    async def _on_settled(self, asset, market, result, pnl) -> None:
        self.said.settled.append((market, result, pnl))

    # -- what it does

    def choose(self, market: Market) -> Order | None:
        """A legal order of a random sort."""
        entropy = self.entropy
        outcome = entropy.choice(market.outcomes)
        book = self.book(market, outcome)
        size = Decimal(entropy.randint(5, 20))
        side = Side.BUY
        held = self.ledger(market).shares.get(outcome, Decimal(0))
        if held >= 5 and entropy.random() < 0.5:
            side, size = Side.SELL, Decimal(int(min(held, size)))
        touch = (book.best_ask if side is Side.BUY else book.best_bid) or Decimal("0.5")
        step = Decimal("0.01") * entropy.randint(-3, 2) * (1 if side is Side.BUY else -1)
        price = min(max(touch + step, Decimal("0.02")), Decimal("0.98"))
        price = market.floor_price(price) if side is Side.BUY else market.ceil_price(price)
        kinds = (TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)
        time_in_force = entropy.choice(kinds)
        post_only = time_in_force is TimeInForce.GTC and entropy.random() < 0.3
        return Order(
            market_id=market.market_id,
            outcome=outcome,
            side=side,
            price=price,
            size=size,
            time_in_force=time_in_force,
            post_only=post_only,
            client_order_id=self.clock.entropy.uuid4(),
        )

    async def place(self, market: Market) -> None:
        order = self.choose(market)
        if order is None:
            return
        if self.entropy.random() < 0.06:
            # The caller goes away in the middle.
            task = asyncio.ensure_future(self.send(market, order))
            await asyncio.wait({task}, timeout=self.entropy.uniform(0.0, 0.5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        await self.send(market, order)

    async def send(self, market: Market, order: Order) -> None:
        attempt = Attempt(market.venue, market, order, order.client_order_id or "", self.clock.now_ms())
        self.start_of(attempt)
        exchange = self.exchanges[market.venue]
        placing = exchange.place_limit_order(
            market,
            order.outcome,
            order.side,
            order.price,
            order.size,
            time_in_force=order.time_in_force,
            post_only=order.post_only,
            client_order_id=order.client_order_id,
        )
        try:
            order_id = await placing
        except BaseException as error:
            self.note(attempt, error)
            if not isinstance(error, PmkitError):
                raise
        else:
            self.note(attempt, order_id)

    def note(self, attempt: Attempt, result: object) -> None:
        attempt.ended_ms = self.clock.now_ms()
        if isinstance(result, str):
            attempt.result, attempt.order_id = "accepted", str(result)
        elif isinstance(result, OrderUnknown):
            attempt.result, attempt.order_id = "unknown", result.intent.order_id or ""
            attempt.error = str(result)
        elif isinstance(result, OrderRejected | InvalidOrder):
            attempt.result, attempt.error = "rejected", str(result)
        elif isinstance(result, NotSent):
            attempt.result, attempt.error = "not sent", str(result)
        elif isinstance(result, asyncio.CancelledError):
            attempt.result = "cancelled"
        else:
            attempt.result, attempt.error = "raised", f"{type(result).__name__}: {result}"

    async def resolve(self, exchange, intent: Intent) -> None:
        while True:
            try:
                answer = await exchange.resolve_order(intent)
            except PmkitError:
                await self.clock.sleep(RESOLVE_AGAIN_SECONDS)
                continue
            break
        self.resolving.discard(intent.client_order_id)
        attempt = self.said.by_client.get(intent.client_order_id)
        if attempt is not None:
            attempt.resolved = "accepted" if isinstance(answer, Accepted) else "absent"
            if isinstance(answer, Accepted):
                attempt.order_id = str(answer.order_id)

    async def cancel(self, venue: str) -> None:
        exchange = self.exchanges[venue]
        if not exchange.open:
            return
        order_id = self.entropy.choice(list(exchange.open))
        self.said.cancels += 1
        try:
            await exchange.cancel_order(order_id)
        except CancelUnknown:
            if self.entropy.random() < 0.5:
                await self.again(exchange, order_id)
        except PmkitError:
            return

    async def again(self, exchange, order_id: str) -> None:
        try:
            await exchange.cancel_order(order_id)
        except PmkitError:
            return

    async def replace(self, market: Market) -> None:
        exchange = self.exchanges[market.venue]
        mine = [key for key, order in exchange.open.items() if order.market_id == market.market_id]
        order = self.choose(market)
        if not mine or order is None or order.time_in_force is not TimeInForce.GTC:
            return
        await self.legs(market, [order], exchange.replace_orders([self.entropy.choice(mine)], [order]))

    async def batch(self, market: Market) -> None:
        orders = [order for _ in range(self.entropy.randint(2, 4)) if (order := self.choose(market)) is not None]
        orders = [order for order in orders if order.side is Side.BUY]
        if orders:
            await self.legs(market, orders, self.exchanges[market.venue].place_orders(orders))

    async def legs(self, market: Market, orders: list[Order], placing) -> None:
        attempts = [
            Attempt(market.venue, market, order, order.client_order_id or "", self.clock.now_ms()) for order in orders
        ]
        for attempt in attempts:
            self.start_of(attempt)
        try:
            results = await placing
        except BaseException as error:
            for attempt in attempts:
                self.note(attempt, error)
            if not isinstance(error, PmkitError):
                raise
            return
        for attempt, result in zip(attempts, results, strict=True):
            # A leg whose cancel failed was not placed.
            self.note(attempt, NotSent(str(result)) if isinstance(result, CancelUnknown) else result)

    async def ask(self, venue: str) -> None:
        exchange = self.exchanges[venue]
        self.said.queries += 1
        questions = (
            self.list_orders,
            self.list_orders,
            exchange.get_positions,
            exchange.get_balance,
            exchange.get_trade_history,
        )
        question = self.entropy.choice(questions)
        try:
            await (question(venue) if question == self.list_orders else question())
        except PmkitError:
            self.said.failed_queries += 1

    async def list_orders(self, venue: str) -> None:
        begun = self.clock.now_ms()
        found = await self.exchanges[venue].get_open_orders()
        answered = frozenset(status.order_id for status in found)
        self.said.listings.append((venue, begun, self.clock.now_ms(), answered))

    async def rest(self, market: Market) -> Attempt:
        """A bid far below the market: the order that shows that orders work, and that must not be left behind."""
        # In a market that is nearly decided one of the two is offered at 0.01: a bid for it would take.
        dearest = max(market.outcomes, key=lambda outcome: self.book(market, outcome).best_ask or Decimal(1))
        order = Order(
            market_id=market.market_id,
            outcome=dearest,
            side=Side.BUY,
            price=market.ceil_price(Decimal("0.01")),
            size=Decimal(5),
            client_order_id=self.clock.entropy.uuid4(),
        )
        await self.send(market, order)
        return self.said.attempts[-1]

    async def take(self, market: Market) -> None:
        """Buy a little of what there is: positions must show it at once."""
        ask = self.book(market, market.outcomes[0]).best_ask
        if ask is None or ask > Decimal("0.95"):
            return
        order = Order(
            market_id=market.market_id,
            outcome=market.outcomes[0],
            side=Side.BUY,
            price=market.floor_price(ask + Decimal("0.02")),
            size=Decimal(7),
            time_in_force=TimeInForce.IOC,
            client_order_id=self.clock.entropy.uuid4(),
        )
        await self.send(market, order)
