"""`PaperExchange`: the dry-run. All of `BaseExchange` on a venue's public data, with an account that exists only here.

It wraps a `MarketData` and nothing else: there is no key, no signer for orders and no session of its own in it. What it
cannot know, and how it errs: whose cancels shorten a queue (three models, see `queue`), what our own orders would have
made others do, and orders hidden between two frames of the feed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import msgspec

from pmkit.clock import to_ms
from pmkit.errors import InvalidOrder, MarketNotFound, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.base import Amount, Callback, LegResult, MarketData, PublicSide
from pmkit.exchanges.market import Market
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.paper.follow import Followed
from pmkit.exchanges.paper.liquidity import SIZE_SCALE, money_units
from pmkit.exchanges.paper.matcher import KEEP, Matcher
from pmkit.exchanges.paper.order import PaperOrder, check_combination, size_units
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.paper.streams import PaperStreams
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    Budget,
    CancelResult,
    Fill,
    FillState,
    Intent,
    MarketResult,
    MarketStatus,
    Order,
    OrderId,
    OrderState,
    OrderStatus,
    Position,
    PublicTrade,
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
        self.latency_ms = latency_ms
        self._matcher = Matcher(
            to_decimal(balance, "balance"), QueueModel(queue), self._new_id, self._filled, self._changed
        )
        self._followed: dict[str, Followed] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams = PaperStreams(data.venue, data.clock, self._matcher)
        self._unresolved: dict[str, Intent] = {}
        self._by_client: dict[str, str] = {}
        self._closed = False

    def _new_id(self) -> str:
        return f"paper-{self.clock.entropy.uuid4()}"

    def _spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coro, name=f"paper {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # An order's error reaches whoever placed it; of anything else nobody would hear.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OrderRejected):
            _LOG.error("%s: %s failed", self.venue, task.get_name(), exc_info=error)

    async def close(self) -> None:
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._streams.close()
        for followed in [*self._followed.values()]:
            await followed.close()
        self._followed.clear()
        await self.data.close()

    # -- events -------------------------------------------------------------------------------------------------

    def _filled(self, fill: Fill, order: PaperOrder) -> None:
        self._streams.publish_fill(fill)
        if fill.state is FillState.PENDING:
            self._spawn(self._finalise(fill, order.market.final_after_ms), f"fill {fill.fill_id}")

    async def _finalise(self, fill: Fill, after_ms: int) -> None:
        holding = self._matcher.account.markets[fill.market_id].holdings[fill.outcome]
        holding.pending += fill.size
        await self.clock.sleep(after_ms / 1000)
        holding.pending -= fill.size
        final = msgspec.structs.replace(fill, state=FillState.FINAL)
        self._matcher.fills.append(final)
        self._streams.publish_fill(final)

    def _changed(self, order: PaperOrder) -> None:
        self._streams.publish_order(order)

    def _on_book(self, book: OrderBook) -> None:
        self._matcher.on_book(book, self.venue_clock.now_ms(), book.received_ns)

    def _on_print(self, trade: PublicTrade) -> None:
        followed = self._followed.get(trade.market_id)
        if followed is not None:
            market = followed.market
            self._matcher.on_print(trade, lambda outcome: self.data.book(market, outcome), self.venue_clock.now_ms())

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
        return await self._send(market, order, None)

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
        return await self._send(market, order, money)

    async def _send(self, market: Market, order: Order, money: int | None) -> OrderId:
        if self._closed:
            raise InvalidOrder("this exchange is closed")
        client_id = order.client_order_id or self.clock.entropy.uuid4()
        if client_id in self._by_client:
            raise OrderRejected("duplicate", f"the client order id {client_id} was used before")
        now_ms = self.venue_clock.now_ms()
        order_id = self._new_id()
        intent = Intent(venue=self.venue, client_order_id=client_id, order=order, created_ms=now_ms, order_id=order_id)
        paper = PaperOrder(order_id, intent, market, size_units(order.size), now_ms, money)
        self._by_client[client_id] = order_id
        while len(self._by_client) > KEEP:
            del self._by_client[next(iter(self._by_client))]
        arriving = self._spawn(self._arrive(paper), f"order {order_id}")
        try:
            # A caller that goes away does not take the order back, here as little as at a venue.
            await asyncio.shield(arriving)
        except asyncio.CancelledError:
            self._unresolved[client_id] = intent
            raise
        await self.clock.sleep(self.latency_ms / 1000)
        return paper.as_id()

    async def _arrive(self, paper: PaperOrder) -> None:
        await self.clock.sleep(self.latency_ms / 1000)
        market = paper.market
        self._check_open(market)
        followed = await self._follow(market)
        book = await self._valid_book(market, paper.outcome)
        taking = self._matcher.marketable(paper, book)
        if taking and paper.order.post_only:
            raise OrderRejected("post_only_cross", "a post-only order would have matched at once")
        self._matcher.admit(paper, taking)
        if taking and market.taker_delay_ms:
            await self.clock.sleep(market.taker_delay_ms / 1000)
            book = await self._valid_book(market, paper.outcome, paper)
        now_ms = self.venue_clock.now_ms()
        if now_ms >= market.close_ms or followed.closed:
            self._matcher.finish(paper, OrderState.CANCELED, "market closed", now_ms)
            return
        self._matcher.arrive(paper, book, now_ms, self.clock.time_ns())
        if paper.status is OrderState.LIVE and paper.order.expires_at is not None:
            left = (to_ms(paper.order.expires_at) - now_ms) / 1000
            paper.expiry = self.clock.call_later(left, self._expire, paper)

    def _check_open(self, market: Market) -> None:
        now_ms = self.venue_clock.now_ms()
        if now_ms >= market.close_ms or market.status in (MarketStatus.CLOSED, MarketStatus.RESOLVED):
            raise OrderRejected("market_closed", f"{market.market_id} takes no orders any more")
        if now_ms < market.open_ms and not market.tradable_before_open:
            raise OrderRejected("market_not_open", f"{market.market_id} takes orders from {market.open_time} on")
        if market.status is MarketStatus.PAUSED:
            raise OrderRejected("market_paused", f"{market.market_id} is paused")

    async def _valid_book(self, market: Market, outcome: str, admitted: PaperOrder | None = None) -> OrderBook:
        """The live book once it is valid. A venue would match against a book that we cannot see now; the dry-run says
        that it does not know, with OrderRejected("no_valid_book").
        """
        book = self.data.book(market, outcome)
        until = self.clock.io_monotonic() + max(BOOK_WAIT_WALL_SECONDS, BOOK_WAIT_SECONDS / self.clock.factor)
        while not book.valid:
            if self.clock.io_monotonic() > until:
                if admitted is not None:
                    self._matcher.finish(admitted, OrderState.REJECTED, "no valid book", self.venue_clock.now_ms())
                raise OrderRejected("no_valid_book", f"the book of {outcome} is not valid ({book.reason}): no telling")
            await self.clock.io_sleep(BOOK_LOOK_WALL_SECONDS)
            book = self.data.book(market, outcome)
        return book

    def _expire(self, paper: PaperOrder) -> None:
        self._matcher.finish(paper, OrderState.EXPIRED, "expired", self.venue_clock.now_ms())

    # -- markets ------------------------------------------------------------------------------------------------

    async def _follow(self, market: Market) -> Followed:
        """Listen to books and prints of a market until it closes, then wait for its result and pay out."""
        followed = self._followed.get(market.market_id)
        if followed is None:
            followed = Followed(market, self.data, self._on_book, self._on_print)
            self._followed[market.market_id] = followed
            self._spawn(self._run(followed), f"market {market.market_id}")
        try:
            await followed.ready()
        except PmkitError:
            self._followed.pop(market.market_id, None)
            raise
        return followed

    async def _run(self, followed: Followed) -> None:
        market = followed.market
        while (left := market.close_ms - self.venue_clock.now_ms()) > 0:
            await self.clock.sleep(min(left / 1000, 30.0))
        self._matcher.close_market(market, self.venue_clock.now_ms())
        await followed.close()
        if market.market_id in self._matcher.account.markets:
            result = await self._result(market)
            paid = self._matcher.settle(market, result)
            _LOG.info("%s %s is resolved: %s, paid %s dollars", self.venue, market.label, result, paid)
        self._followed.pop(market.market_id, None)

    async def _result(self, market: Market) -> MarketResult:
        while True:
            try:
                return await self.data.wait_result(market)
            except PmkitError as error:
                _LOG.warning("%s: no result of %s yet: %s", self.venue, market.market_id, error)
                await self.clock.sleep(RESULT_RETRY_SECONDS)

    # -- several, cancel, look up -------------------------------------------------------------------------------

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        return [await self._leg(order) for order in orders]

    async def _leg(self, order: Order) -> LegResult:
        try:
            followed = self._followed.get(order.market_id)
            market = followed.market if followed is not None else await self.data.get_market(order.market_id)
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
        await self.clock.sleep(self.latency_ms / 1000)
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
        order = self._matcher.orders.get(self._by_client.get(intent.client_order_id, ""))
        if order is None and any(task.get_name() == f"paper order {intent.order_id}" for task in self._tasks):
            raise OrderUnknown(intent, "it is still on its way")
        self._unresolved.pop(intent.client_order_id, None)
        return Absent(intent) if order is None else Accepted(order.as_id())

    @property
    def unresolved(self) -> Sequence[Intent]:
        return tuple(self._unresolved.values())

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
        return self._streams.fills(callback)

    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        return self._streams.orders(callback)

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
