"""`PaperExchange`: the dry-run. All of `BaseExchange` on a venue's public data, with an account that exists only here.

It wraps a `MarketData` and nothing else: there is no key, no signer for orders and no session of its own in it. What it
cannot know, and how it errs: whose cancels shorten a queue (three models, see `queue`), what our own orders would have
made others do, and orders hidden between two frames of the feed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from pmkit.clock import to_ms
from pmkit.errors import InvalidOrder, MarketNotFound, OrderUnknown, PmkitError
from pmkit.exchanges.base import Amount, Callback, LegResult, MarketData, PublicSide
from pmkit.exchanges.market import Market
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.paper.desk import PaperDesk
from pmkit.exchanges.paper.liquidity import SIZE_SCALE, money_units
from pmkit.exchanges.paper.order import check_combination
from pmkit.exchanges.paper.queue import QueueModel
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

_LOG = logging.getLogger("pmkit.paper")

BOOK_WAIT_SECONDS = 1.0
BOOK_WAIT_WALL_SECONDS = 0.3
BOOK_LOOK_WALL_SECONDS = 0.01
RESULT_RETRY_SECONDS = 15.0
CENT = Decimal("0.01")


class PaperExchange(PublicSide):
    """A dry-run account of `balance` dollars on the books of `data`.

    `queue` is the model of queue positions (pessimistic, middle, optimistic); `latency_ms` is market time one way. The
    wrapped `data` is closed with it.
    """

    def __init__(
        self,
        data: MarketData,
        *,
        balance: Decimal | str | int = 1000,
        queue: QueueModel | str = QueueModel.MIDDLE,
        latency_ms: int = 50,
    ) -> None:
        super().__init__(data)
        self._desk = PaperDesk(data, to_decimal(balance, "balance"), QueueModel(queue), latency_ms)
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
        market.token_id(outcome)
        legal = market.check_price(price)
        amount = market.check_size(size)
        wrong = check_combination(time_in_force, expires_at, post_only, self.venue_clock.now_ms())
        if wrong:
            raise InvalidOrder(wrong)
        order = Order(
            market_id=market.market_id,
            outcome=outcome,
            side=Side(side),
            price=legal,
            size=amount,
            time_in_force=TimeInForce(time_in_force),
            expires_at=expires_at,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        return await self._desk.send(market, order, None)

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
        market.token_id(outcome)
        legal = market.check_price(worst_price)
        side = Side(side)
        if (size is None) == (amount is None):
            raise InvalidOrder("a market order takes exactly one of size (shares) and amount (dollars)")
        if amount is not None and side is Side.SELL:
            raise InvalidOrder("amount is for BUY only: sell a number of shares with size")
        money: int | None = None
        spends = market.market_buys_spend and side is Side.BUY
        if amount is not None:
            if spends:
                # The venue takes dollars without the fee, to the cent; the fee comes on top of what is matched.
                per_dollar = 1 + market.fees.raw(legal, Decimal(1)) / legal
                notional = (to_decimal(amount, "amount") / per_dollar).quantize(CENT, ROUND_FLOOR)
                if notional <= 0:
                    raise InvalidOrder(f"{amount} dollars leave nothing to spend after the fee")
                shares = market.floor_size(notional / legal)
            else:
                shares = market.size_for(amount, legal)
        else:
            shares = market.check_size(size) if not spends else market.floor_size(size)
            notional = (shares * legal).quantize(CENT, ROUND_FLOOR)
        if shares <= 0:
            raise InvalidOrder(f"nothing can be bought for that at {legal}")
        if spends:
            money = money_units(int(notional * SIZE_SCALE))
        order = Order(
            market_id=market.market_id,
            outcome=outcome,
            side=side,
            price=legal,
            size=shares,
            time_in_force=TimeInForce.IOC,
            client_order_id=client_order_id,
        )
        return await self._desk.send(market, order, money)

    # -- several, cancel, look up -------------------------------------------------------------------------------

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        return [await self._leg(order) for order in orders]

    async def _leg(self, order: Order) -> LegResult:
        try:
            market = self._desk.market(order.market_id) or await self.data.get_market(order.market_id)
            return await self.place_limit_order(
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
        except PmkitError as error:
            return error

    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        if len(cancels) != len(places):
            raise InvalidOrder(f"{len(cancels)} orders to cancel and {len(places)} to place: each leg replaces one")
        results: list[LegResult] = []
        for order_id, order in zip(cancels, places, strict=True):
            cancelled = await self.cancel_order(order_id)
            if cancelled:
                results.append(await self._leg(order))
            else:
                results.append(InvalidOrder(f"{order_id} was not cancelled ({cancelled}): it is not replaced"))
        return results

    async def cancel_order(self, order_id: str) -> CancelResult:
        await self.clock.sleep(self._desk.latency_ms / 1000)
        order = self._matcher.orders.get(order_id)
        if order is None or order.status.terminal:
            return CancelResult.ALREADY_DONE
        if order.status is OrderState.DELAYED:
            return CancelResult.NOT_YET
        self._matcher.finish(order, OrderState.CANCELED, "cancelled", self.venue_clock.now_ms())
        return CancelResult.CANCELED

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        results = await asyncio.gather(*(self.cancel_order(order_id) for order_id in order_ids))
        return dict(zip(order_ids, results, strict=True))

    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        return await self.cancel_orders([order.order_id for order in self._matcher.open_orders(market.market_id)])

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
        found = self._matcher.open_orders(None if market is None else market.market_id)
        return [order.as_status(self.clock.time_ns()) for order in found]

    async def get_positions(self) -> list[Position]:
        return self._matcher.account.positions(self.venue_clock.now_ms())

    async def get_balance(self, market: Market | None = None) -> Decimal:
        account = self._matcher.account
        return account.cash if market is None else account.free_cash

    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        rows = self._matcher.account.history()
        if since is not None:
            since_ms = to_ms(since)
            rows = [row for row in rows if row.time_ms >= since_ms]
        return rows if limit is None else rows[:limit]

    def explain(self, fill_id: str) -> str:
        """Why a fill happened, from the book and the print that were seen. Raises KeyError for an unknown id."""
        return str(self._matcher.reasons[fill_id])

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
