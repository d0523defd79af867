"""`OwnOrders`: an exchange that writes down what its bot does and knows which open orders are the bot's.

It passes every call on to the venue's exchange (or the dry-run) and adds rows to the trade CSV: the intent before
anything is sent, then accepted, rejected or unknown. A bot cancels only the orders known here, never the account's
others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from pmkit.bot.decisions import TradeWriter
from pmkit.bot.rows import TradeRows
from pmkit.errors import InvalidOrder, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.base import Amount, BaseExchange, Callback, LegResult, PublicSide
from pmkit.exchanges.market import Market
from pmkit.exchanges.numbers import to_decimal
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
from pmkit.logging.csv_logger import TradeEvent
from pmkit.streams import Subscription


class OwnOrders(PublicSide):
    """One exchange as one bot uses it. Constructed by BaseBot."""

    def __init__(self, exchange: BaseExchange, trades: TradeWriter | None) -> None:
        super().__init__(exchange)
        self.exchange = exchange
        self.rows = TradeRows(exchange, trades)
        self.open: dict[str, Order] = {}
        self._ended: dict[str, None] = {}
        self._doubtful: dict[str, Order] = {}  # by client order id, until the venue speaks of them
        self.placed = 0
        self.rejected = 0
        self.unknown = 0

    def __getattr__(self, name: str) -> Any:
        # What only one venue has (redeem, amend_order, ...) is used as it is.
        if name.startswith("__") or name == "exchange":
            raise AttributeError(name)
        return getattr(self.exchange, name)

    # -- placing ------------------------------------------------------------------------------------------------

    def _accepted(self, order: Order, order_id: OrderId, kind: str) -> None:
        self.placed += 1
        if not order_id.status.terminal and order_id not in self._ended:
            self.open[str(order_id)] = order
        self.rows.write_order(
            TradeEvent.ACCEPTED,
            order,
            type=kind,
            order_id=str(order_id),
            status=order_id.status,
            filled=order_id.filled_amount,
            avg_price=order_id.average_price,
            fee=order_id.fee,
        )

    def _failed(self, order: Order, error: BaseException, kind: str) -> None:
        if isinstance(error, OrderUnknown | asyncio.CancelledError):
            self.unknown += 1
            event = TradeEvent.UNKNOWN
            self._doubtful[str(order.client_order_id)] = order
            while len(self._doubtful) > 10_000:
                del self._doubtful[next(iter(self._doubtful))]
        else:
            self.rejected += 1
            event = TradeEvent.REJECTED
        reason = str(error) or type(error).__name__
        intent = error.intent if isinstance(error, OrderUnknown) else None
        code = error.code if isinstance(error, OrderRejected) else type(error).__name__
        self.rows.write_order(
            event, order, type=kind, status=code, reason=reason, order_id=intent.order_id if intent else None
        )

    async def _place(self, market: Market, order: Order, kind: str, placing: Awaitable[OrderId]) -> OrderId:
        self.rows.know(market)
        self.rows.write_order(TradeEvent.INTENT, order, type=kind)
        try:
            order_id = await placing
        except (PmkitError, asyncio.CancelledError) as error:
            self._failed(order, error, kind)
            raise
        self._accepted(order, order_id, kind)
        return order_id

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
        market = self.exchange.current(market)  # the price step may be another one by now
        client_order_id = client_order_id or self.clock.entropy.uuid4()
        order = Order(
            market_id=market.market_id,
            outcome=outcome,
            side=side,
            price=market.check_price(price),
            size=market.check_size(size),
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        placing = self.exchange.place_limit_order(
            market,
            outcome,
            side,
            price,
            size,
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        return await self._place(market, order, "limit", placing)

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
        market = self.exchange.current(market)
        client_order_id = client_order_id or self.clock.entropy.uuid4()
        price = market.check_price(worst_price)
        if (size is None) == (amount is None):
            raise InvalidOrder("a market order takes exactly one of size (shares) and amount (dollars)")
        # For the row only: the venue's own rules of market orders are checked by the exchange.
        wanted = size if amount is None else to_decimal(amount, "amount") / market.break_even(price)
        shares = market.floor_size(wanted)
        order = Order(
            market_id=market.market_id,
            outcome=outcome,
            side=side,
            price=price,
            size=shares,
            time_in_force=TimeInForce.IOC,
            client_order_id=client_order_id,
        )
        placing = self.exchange.place_market_order(
            market, outcome, side, worst_price=price, size=size, amount=amount, client_order_id=client_order_id
        )
        return await self._place(market, order, "market", placing)

    def _identified(self, orders: Sequence[Order]) -> list[Order]:
        named = [
            msgspec.structs.replace(order, client_order_id=order.client_order_id or self.clock.entropy.uuid4())
            for order in orders
        ]
        for order in named:
            self.rows.write_order(TradeEvent.INTENT, order, type="limit")
        return named

    async def _place_legs(self, named: list[Order], placing: Awaitable[list[LegResult]]) -> list[LegResult]:
        try:
            results = await placing
        except (PmkitError, asyncio.CancelledError) as error:
            for order in named:
                self._failed(order, error, "limit")
            raise
        for order, result in zip(named, results, strict=True):
            if isinstance(result, OrderId):
                self._accepted(order, result, "limit")
            else:
                self._failed(order, result, "limit")
        return results

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        named = self._identified(orders)
        return await self._place_legs(named, self.exchange.place_orders(named))

    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        named = self._identified(places)
        results = await self._place_legs(named, self.exchange.replace_orders(cancels, named))
        for order_id, result in zip(cancels, results, strict=False):
            # Only an order in its place proves that it is gone (one that was made smaller in place, on Kalshi, keeps
            # its id and goes on). After any error it may stand: it stays known until the venue says that it ended.
            if isinstance(result, OrderId) and result != order_id:
                self.ended(order_id)
        return results

    # -- cancelling ---------------------------------------------------------------------------------------------

    def ended(self, order_id: str) -> None:
        """An order is done. Remembered for a while, since the answer to its placing may still be on the way."""
        self.open.pop(order_id, None)
        self._ended[order_id] = None
        while len(self._ended) > 10_000:
            del self._ended[next(iter(self._ended))]

    def _cancelled(self, order_id: str, result: CancelResult | PmkitError) -> None:
        order = self.open.get(order_id)
        if result in (CancelResult.CANCELED, CancelResult.ALREADY_DONE):
            self.ended(order_id)
        status = result if isinstance(result, CancelResult) else type(result).__name__
        reason = "" if isinstance(result, CancelResult) else str(result)
        market_id, outcome = (order.market_id, order.outcome) if order else ("", "")
        self.rows.write(TradeEvent.CANCEL, market_id, outcome, order_id=order_id, status=status, reason=reason)

    async def cancel_order(self, order_id: str) -> CancelResult:
        try:
            result = await self.exchange.cancel_order(order_id)
        except PmkitError as error:
            self._cancelled(order_id, error)
            raise
        self._cancelled(order_id, result)
        return result

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        results = await self.exchange.cancel_orders(order_ids)
        for order_id, result in results.items():
            self._cancelled(order_id, result)
        return results

    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        results = await self.exchange.cancel_all(market)
        for order_id, result in results.items():
            self._cancelled(order_id, result)
        return results

    def forget(self, market_id: str) -> None:
        """A market is settled: drop what is kept for it, unless an order of it may still be open."""
        if not any(order.market_id == market_id for order in self.open.values()):
            self.rows.forget(market_id)

    async def cancel_own(self, market_id: str | None = None) -> dict[str, CancelResult | PmkitError]:
        """Cancel the bot's own open orders (of one market). Never touches the account's other orders."""
        mine = self.resting(market_id)
        return await self.cancel_orders(mine) if mine else {}

    def resting(self, market_id: str | None = None) -> list[str]:
        """The ids of the bot's own open orders (of one market), as far as it knows."""
        return [key for key, order in self.open.items() if market_id is None or order.market_id == market_id]

    def note(self, status: OrderStatus) -> None:
        """An order event of the venue: keep the set of open orders, and write the venue's own cancels."""
        lost = self._doubtful.pop(status.client_order_id or "", None)
        if lost is not None and status.order_id not in self._ended:
            self.open[status.order_id] = lost  # it stands, though its answer never came
        own = status.order_id in self.open
        if status.status.terminal:
            if own and status.status in (OrderState.CANCELED, OrderState.EXPIRED, OrderState.REJECTED):
                order = self.open[status.order_id]
                self.rows.write_order(
                    TradeEvent.CANCELED,
                    order,
                    order_id=status.order_id,
                    status=status.status,
                    filled=status.filled_amount,
                    reason=status.reason,
                )
            self.ended(status.order_id)

    async def resolve_order(self, intent: Intent) -> Accepted | Absent:
        answer = await self.exchange.resolve_order(intent)
        found = answer.order_id if isinstance(answer, Accepted) else None
        # The stream may have told its end while it was being looked up.
        if found is not None and not found.status.terminal and found not in self._ended:
            self.open[str(found)] = intent.order
        self.rows.write_order(
            TradeEvent.RESOLVED,
            intent.order,
            order_id=None if found is None else str(found),
            status="ABSENT" if found is None else found.status,
            filled=None if found is None else found.filled_amount,
        )
        return answer

    # -- passed on as they are ----------------------------------------------------------------------------------

    @property
    def unresolved(self) -> Sequence[Intent]:
        return self.exchange.unresolved

    async def get_order_status(self, order_id: str) -> OrderStatus:
        return await self.exchange.get_order_status(order_id)

    async def get_open_orders(self, market: Market | None = None) -> list[OrderStatus]:
        return await self.exchange.get_open_orders(market)

    async def get_positions(self) -> list[Position]:
        return await self.exchange.get_positions()

    async def get_balance(self, market: Market | None = None) -> Decimal:
        return await self.exchange.get_balance(market)

    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        return await self.exchange.get_trade_history(since, limit)

    async def subscribe_fills(self, callback: Callback[Fill] | None = None) -> Subscription[Fill]:
        return await self.exchange.subscribe_fills(callback)

    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        return await self.exchange.subscribe_orders(callback)

    async def keep_warm(self) -> None:
        await self.exchange.keep_warm()

    def budget(self) -> Budget:
        return self.exchange.budget()

    def dead_man(self) -> AbstractAsyncContextManager[Any]:
        return self.exchange.dead_man()
