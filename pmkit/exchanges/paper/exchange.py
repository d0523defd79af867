"""`PaperExchange`: the dry-run. All of `BaseExchange` on a venue's public data, with an account that exists only here.

It wraps a `MarketData` and nothing else: there is no key, no signer for orders and no session of its own in it. What it
cannot know, and how it errs: whose cancels shorten a queue (three models, see `queue`), what our own orders would have
made others do, and orders hidden between two frames of the feed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from pmkit.clock import to_ms
from pmkit.errors import ConfigError, InvalidOrder, MarketNotFound, OrderUnknown, PmkitError
from pmkit.exchanges.base import (
    Amount,
    Callback,
    LegResult,
    MarketData,
    PublicSide,
    check_limit,
    not_placed,
    order_ids_of,
)
from pmkit.exchanges.market import Market, order_words
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.paper.desk import PaperDesk
from pmkit.exchanges.paper.order import FillReason
from pmkit.exchanges.paper.queue import QueueModel, queue_model
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    Budget,
    CancelResult,
    Fill,
    Intent,
    Order,
    OrderId,
    OrderState,
    OrderStatus,
    Position,
    Side,
    TimeInForce,
    Trade,
)
from pmkit.streams import Subscription


class PaperExchange(PublicSide):
    """A dry-run account of `balance` dollars on the books of `data`.

    `queue` is the model of queue positions (pessimistic, middle, optimistic). `latency_ms` (market time): what an order
    takes to the venue, plus what a book takes back; then the book that is seen is the one that the order would meet.
    The wrapped `data` is closed with it.
    """

    def __init__(
        self,
        data: MarketData,
        *,
        balance: Decimal | str | int = 1000,
        queue: QueueModel | str = QueueModel.MIDDLE,
        latency_ms: int = 50,
    ) -> None:
        """Raises InvalidOrder for a balance that is a float, and ConfigError for another queue or a number below 0."""
        dollars, model = to_decimal(balance, "balance"), queue_model(queue)
        if dollars < 0 or latency_ms < 0:
            raise ConfigError(f"balance {dollars:f} and latency_ms {latency_ms}: neither may be below zero")
        super().__init__(data)
        self._desk = PaperDesk(data, dollars, model, latency_ms)
        self._matcher = self._desk.matcher

    async def close(self) -> None:
        await self._desk.close()
        await self.data.close()

    # -- placing ------------------------------------------------------------------------------------------------

    async def place_limit_order(
        self,
        market: Market,
        outcome: str,
        side: Side,
        price: Amount,
        size: Amount,
        *,
        time_in_force: TimeInForce = TimeInForce.GTC,
        expires_at: datetime | None = None,
        post_only: bool = False,
        client_order_id: str | None = None,
    ) -> OrderId:
        own, best_ask = self._known(market, outcome)
        side, time_in_force = order_words(side, time_in_force)
        terms = own.limit_terms(
            outcome,
            side,
            price,
            size,
            now_ms=self.venue_clock.now_ms(),
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            best_ask=best_ask,
        )
        order = Order(
            market_id=own.market_id,
            outcome=outcome,
            side=side,
            price=to_decimal(price, "price"),
            size=terms.size,
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        return await self._desk.send(own, order, terms.money)

    async def place_market_order(
        self,
        market: Market,
        outcome: str,
        side: Side,
        *,
        worst_price: Amount,
        size: Amount | None = None,
        amount: Amount | None = None,
        client_order_id: str | None = None,
    ) -> OrderId:
        own, best_ask = self._known(market, outcome)
        side, time_in_force = order_words(side, TimeInForce.IOC)
        terms = own.market_terms(
            outcome, side, worst_price=worst_price, size=size, amount=amount, best_ask=best_ask
        )  # fmt: skip
        order = Order(
            market_id=own.market_id,
            outcome=outcome,
            side=side,
            price=to_decimal(worst_price, "worst_price"),
            size=terms.size,
            time_in_force=time_in_force,
            client_order_id=client_order_id,
        )
        return await self._desk.send(own, order, terms.money)

    def _known(self, market: Market, outcome: str) -> tuple[Market, Decimal | None]:
        """The market as it is now, and the best ask of the live book where that is valid."""
        own = self.data.current(market)
        own.token_id(outcome)
        book = self.data.book(own, outcome)
        return own, book.best_ask if book.valid else None

    # -- several, cancel, look up -------------------------------------------------------------------------------

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        return [*await asyncio.gather(*(self._leg(order) for order in orders))]

    async def _leg(self, order: Order) -> LegResult:
        try:
            return await self.place_limit_order(
                await self._market(order.market_id),
                order.outcome,
                order.side,
                order.price,
                order.size,
                time_in_force=order.time_in_force,
                expires_at=order.expires_at,
                post_only=order.post_only,
                client_order_id=order.client_order_id,
            )
        except PmkitError as error:
            return error

    async def _market(self, market_id: str) -> Market:
        """A market by its id. Raises what placing an order may raise."""
        known = self._desk.market(market_id)
        if known is not None:
            return known
        try:
            return await self.data.get_market(market_id)
        except PmkitError as error:
            raise not_placed(market_id, error) from error

    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        if len(cancels) != len(places):
            raise InvalidOrder(f"{len(cancels)} orders to cancel and {len(places)} to place: each leg replaces one")
        cancelled = await self.cancel_orders(cancels)
        return [
            *await asyncio.gather(
                *(self._replaced(i, cancelled[i], order) for i, order in zip(cancels, places, strict=True))
            )
        ]

    async def _replaced(self, order_id: str, cancelled: CancelResult | PmkitError, order: Order) -> LegResult:
        if isinstance(cancelled, PmkitError):
            return cancelled
        if not cancelled:
            return InvalidOrder(f"{order_id} was not cancelled ({cancelled}): it is not replaced")
        return await self._leg(order)

    async def cancel_order(self, order_id: str) -> CancelResult:
        order_ids_of([order_id])
        await self.clock.sleep(self._desk.latency_ms / 1000)
        order = self._matcher.orders.get(order_id)
        if order is None or order.status.terminal:
            return CancelResult.ALREADY_DONE
        if order.status is OrderState.DELAYED:
            return CancelResult.NOT_YET
        self._matcher.finish(order, OrderState.CANCELED, "cancelled", self.venue_clock.now_ms())
        return CancelResult.CANCELED

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        ids = order_ids_of(order_ids)
        results = await asyncio.gather(*(self.cancel_order(order_id) for order_id in ids))
        return dict(zip(ids, results, strict=True))

    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        own = self.data.current(market)  # which refuses what is no market of this venue
        return await self.cancel_orders([order.order_id for order in self._matcher.open_orders(own.market_id)])

    async def resolve_order(self, intent: Intent) -> Accepted | Absent:
        order = self._matcher.orders.get(self._desk.by_client.get(intent.client_order_id, ""))
        if order is None and self._desk.under_way(intent.order_id):
            raise OrderUnknown(intent, "it is still on its way")
        self._desk.unresolved.pop(intent.client_order_id, None)
        return Absent(intent) if order is None else Accepted(order.as_id())

    @property
    def unresolved(self) -> Sequence[Intent]:
        return tuple(self._desk.unresolved.values())

    async def get_order_status(self, order_id: str) -> OrderStatus:
        order = self._matcher.orders.get(order_id)
        if order is None:
            raise MarketNotFound(f"the dry-run knows no order {order_id}")
        return order.as_status(self.clock.time_ns())

    async def get_open_orders(self, market: Market | None = None) -> list[OrderStatus]:
        found = self._matcher.open_orders(None if market is None else self.data.current(market).market_id)
        return [order.as_status(self.clock.time_ns()) for order in found]

    async def get_positions(self) -> list[Position]:
        return self._matcher.account.positions(self.venue_clock.now_ms())

    async def get_balance(self, market: Market | None = None) -> Decimal:
        account = self._matcher.account
        if market is None:
            return account.shown_cash
        self.data.current(market)  # which refuses what is no market of this venue
        return account.free_cash

    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        check_limit(limit)
        rows = self._matcher.account.history()
        if since is not None:
            since_ms = to_ms(since)
            rows = [row for row in rows if row.time_ms >= since_ms]
        return rows if limit is None else rows[:limit]

    def explain(self, fill_id: str) -> str:
        """Why a fill happened, from the book and the print that were seen. Raises KeyError for an unknown id."""
        return str(self._matcher.reasons[fill_id])

    def report(self) -> list[FillReason]:
        """The reasons of all fills (of the last 10,000), oldest first: what to check them by, and `str` of each."""
        return list(self._matcher.reasons.values())

    async def subscribe_fills(self, callback: Callback[Fill] | None = None) -> Subscription[Fill]:
        return self._desk.streams.fills(callback)

    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        return self._desk.streams.orders(callback)

    async def keep_warm(self) -> None:
        """Nothing to warm: the dry-run opens no connection of its own."""

    def budget(self) -> Budget:
        """The dry-run has no rate limit; the real venue has."""
        return Budget(orders=float("inf"), cancels=float("inf"))

    def dead_man(self) -> AbstractAsyncContextManager[Any]:
        """Cancels all open orders of the dry-run when the block ends by an exception."""
        return self._dead_man()

    @asynccontextmanager
    async def _dead_man(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            for order in self._matcher.open_orders():
                self._matcher.finish(order, OrderState.CANCELED, "dead man", self.venue_clock.now_ms())
            raise
