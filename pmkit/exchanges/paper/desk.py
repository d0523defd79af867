"""`PaperDesk`: an order's way into the dry-run, and the markets that are followed for it.

An order travels `latency_ms`, waits the venue's taker delay where it would take, meets the live book and comes back.
Its market is followed until it closes and, where there was a fill, until it is resolved and paid.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from pmkit.clock import to_ms
from pmkit.errors import NotSent, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.paper.follow import Followed
from pmkit.exchanges.paper.matcher import KEEP, Matcher
from pmkit.exchanges.paper.order import PaperOrder, size_units
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.paper.streams import PaperStreams
from pmkit.exchanges.types import (
    Fill,
    FillState,
    Intent,
    MarketResult,
    MarketStatus,
    Order,
    OrderId,
    OrderState,
    PublicTrade,
)

T = TypeVar("T")
_LOG = logging.getLogger("pmkit.paper")

BOOK_WAIT_SECONDS = 1.0
BOOK_WAIT_WALL_SECONDS = 0.3
BOOK_LOOK_WALL_SECONDS = 0.01
RESULT_RETRY_SECONDS = 15.0


class PaperDesk:
    """One dry-run account at work on `data`. `unresolved`: orders whose caller went away, by client order id."""

    def __init__(self, data: MarketData, balance: Decimal, queue: QueueModel, latency_ms: int) -> None:
        self.data = data
        self.clock = data.clock
        self.venue = data.venue
        self.venue_clock = data.venue_clock
        self.latency_ms = latency_ms
        self.matcher = Matcher(balance, queue, self._new_id, self._filled, self._changed)
        self.streams = PaperStreams(data.venue, data.clock, self.matcher)
        self.unresolved: dict[str, Intent] = {}
        self.by_client: dict[str, str] = {}
        self._followed: dict[str, Followed] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their making: so they are cancelled
        self._closed = False

    def _new_id(self) -> str:
        return f"paper-{self.clock.entropy.uuid4()}"

    def _spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coro, name=f"paper {name}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        # An order's error reaches whoever placed it; of anything else nobody would hear.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OrderRejected):
            _LOG.error("%s: %s failed", self.venue, task.get_name(), exc_info=error)

    async def close(self) -> None:
        """End all tasks and streams; `data` stays open. May be called twice."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.streams.close()
        for followed in [*self._followed.values()]:
            await followed.close()
        self._followed.clear()

    # -- events -------------------------------------------------------------------------------------------------

    def _filled(self, fill: Fill, order: PaperOrder) -> None:
        self.streams.publish_fill(fill)
        if fill.state is FillState.PENDING:
            self._spawn(self._finalise(fill, order.market.final_after_ms), f"fill {fill.fill_id}")

    async def _finalise(self, fill: Fill, after_ms: int) -> None:
        await self.clock.sleep(after_ms / 1000)
        self.matcher.account.confirm(fill)
        final = msgspec.structs.replace(fill, state=FillState.FINAL)
        self.matcher.fills.append(final)
        self.streams.publish_fill(final)

    def _changed(self, order: PaperOrder) -> None:
        self.streams.publish_order(order)

    def _on_book(self, book: OrderBook) -> None:
        self.matcher.on_book(book, self.venue_clock.now_ms(), book.received_ns)

    def _on_print(self, trade: PublicTrade) -> None:
        followed = self._followed.get(trade.market_id)
        if followed is not None:
            market = followed.market
            self.matcher.on_print(trade, lambda outcome: self.data.book(market, outcome), self.venue_clock.now_ms())

    # -- an order -----------------------------------------------------------------------------------------------

    async def send(self, market: Market, order: Order, money: Decimal | None) -> OrderId:
        """Bring an order to the book and its answer back. `money`: dollars of a buy that aims at dollars.

        Returns when the order is accepted: DELAYED where the venue holds it before it matches.
        """
        if self._closed:
            raise NotSent("this exchange is closed: nothing was sent")
        client_id = order.client_order_id or self.clock.entropy.uuid4()
        if client_id in self.by_client:
            raise OrderRejected("duplicate", f"the client order id {client_id} was used before")
        now_ms = self.venue_clock.now_ms()
        order_id = self._new_id()
        intent = Intent(venue=self.venue, client_order_id=client_id, order=order, created_ms=now_ms, order_id=order_id)
        spends = None if money is None else size_units(money)
        paper = PaperOrder(order_id, intent, market, size_units(order.size), now_ms, spends)
        self.by_client[client_id] = order_id
        while len(self.by_client) > KEEP:
            del self.by_client[next(iter(self.by_client))]
        arriving = self._spawn(self._arrive(paper), f"order {order_id}")
        try:
            # A caller that goes away does not take the order back, here as little as at a venue.
            answer = await asyncio.shield(arriving)
            await self.clock.sleep(self.latency_ms / 1000)
        except asyncio.CancelledError:
            self.unresolved[client_id] = intent
            if arriving.cancelled() and self._closed:  # by `close`: the caller is still there
                raise OrderUnknown(intent, "the exchange was closed before the answer came") from None
            raise
        return answer

    def under_way(self, order_id: str | None) -> bool:
        """Whether an order has not reached the book yet."""
        return any(task.get_name() == f"paper order {order_id}" for task in self._tasks)

    def market(self, market_id: str) -> Market | None:
        """A market that is followed."""
        followed = self._followed.get(market_id)
        return None if followed is None else followed.market

    async def _arrive(self, paper: PaperOrder) -> OrderId:
        """On its way, then accepted or refused; what is accepted and need not wait meets the book at once."""
        market = paper.market
        followed = self._follow(market)
        await self.clock.sleep(self.latency_ms / 1000)
        self._check_open(market)
        book = self.data.book(market, paper.outcome)
        takes = self.matcher.reachable(paper, book) if book.valid else []
        if not takes:
            # What is to rest needs the prints as well. What takes does not wait for them.
            try:
                await followed.ready()
            except PmkitError as error:
                raise OrderRejected("no_valid_book", f"no book of {market.market_id}: {error}") from error
            book = await self._valid_book(market, paper.outcome)
            takes = self.matcher.reachable(paper, book)
        if not self.matcher.admit(paper, takes, self.venue_clock.now_ms()):
            return paper.as_id()
        if takes and market.taker_delay_ms:
            self._spawn(self._delayed(paper, followed), f"delay of {paper.order_id}")
            self._changed(paper)
        else:
            self._meet(paper, book, followed)
        return paper.as_id()

    async def _delayed(self, paper: PaperOrder, followed: Followed) -> None:
        await self.clock.sleep(paper.market.taker_delay_ms / 1000)
        try:
            book = await self._valid_book(paper.market, paper.outcome)
        except OrderRejected as error:
            # It was accepted: that nobody can say what it met is told as the end of the order.
            self.matcher.finish(paper, OrderState.CANCELED, error.reason, self.venue_clock.now_ms())
            return
        self._meet(paper, book, followed)

    def _meet(self, paper: PaperOrder, book: OrderBook, followed: Followed) -> None:
        now_ms = self.venue_clock.now_ms()
        if now_ms >= paper.market.close_ms or followed.closed:
            self.matcher.finish(paper, OrderState.CANCELED, "market closed", now_ms)
            return
        self.matcher.arrive(paper, book, now_ms)
        if paper.status is OrderState.LIVE and followed.error is not None:
            self._cannot_tell(paper, followed.error)
        elif paper.status is OrderState.LIVE and paper.order.expires_at is not None:
            # Both venues keep whole seconds of an expiry.
            left = to_ms(paper.order.expires_at) // 1000 - now_ms / 1000
            paper.expiry = self.clock.call_later(max(0.0, left), self._expire, paper)

    def _check_open(self, market: Market) -> None:
        now_ms = self.venue_clock.now_ms()
        if now_ms >= market.close_ms or market.status in (MarketStatus.CLOSED, MarketStatus.RESOLVED):
            raise OrderRejected("market_closed", f"{market.market_id} takes no orders any more")
        if now_ms < market.open_ms and not market.tradable_before_open:
            raise OrderRejected("market_not_open", f"{market.market_id} takes orders from {market.open_time} on")
        if market.status is MarketStatus.PAUSED:
            raise OrderRejected("market_paused", f"{market.market_id} is paused")

    async def _valid_book(self, market: Market, outcome: str) -> OrderBook:
        """The live book once it is valid. A venue would match against a book that we cannot see now; the dry-run says
        that it does not know, with OrderRejected("no_valid_book").
        """
        book = self.data.book(market, outcome)
        until = self.clock.io_monotonic() + max(BOOK_WAIT_WALL_SECONDS, BOOK_WAIT_SECONDS / self.clock.factor)
        while not book.valid:
            if self.clock.io_monotonic() > until:
                raise OrderRejected("no_valid_book", f"the book of {outcome} is not valid ({book.reason}): no telling")
            await self.clock.io_sleep(BOOK_LOOK_WALL_SECONDS)
            book = self.data.book(market, outcome)
        return book

    def _expire(self, paper: PaperOrder) -> None:
        self.matcher.finish(paper, OrderState.EXPIRED, "expired", self.venue_clock.now_ms())

    # -- markets ------------------------------------------------------------------------------------------------

    def _follow(self, market: Market) -> Followed:
        """Listen to books and prints of a market until it closes, then wait for its result and pay out."""
        followed = self._followed.get(market.market_id)
        if followed is None:
            followed = Followed(market, self.data, self._on_book, self._on_print)
            self._followed[market.market_id] = followed
            self._spawn(self._run(followed), f"market {market.market_id}")
        return followed

    async def _run(self, followed: Followed) -> None:
        market = followed.market
        try:
            await followed.ready()
        except PmkitError as error:
            self._lose(followed, error)
        while (left := market.close_ms - self.venue_clock.now_ms()) > 0:
            await self.clock.sleep(min(left / 1000, 30.0))
        self.matcher.close_market(market, self.venue_clock.now_ms())
        await followed.close()
        account = self.matcher.account.markets.get(market.market_id)
        if account is not None:
            result = await self._result(market)
            if account.result is None:
                paid = self.matcher.settle(market, result)
                _LOG.info("%s %s is resolved: %s, paid %s dollars", self.venue, market.label, result, paid)
        if self._followed.get(market.market_id) is followed:
            del self._followed[market.market_id]

    def _lose(self, followed: Followed, error: PmkitError) -> None:
        """Books or prints of a market cannot be had: what rests there cannot be judged. The next order tries again."""
        followed.error = error
        market_id = followed.market.market_id
        self._followed.pop(market_id, None)
        for order in self.matcher.open_orders(market_id):
            if order.status is OrderState.LIVE:
                self._cannot_tell(order, error)

    def _cannot_tell(self, order: PaperOrder, error: PmkitError) -> None:
        self.matcher.finish(order, OrderState.CANCELED, f"no telling: {error}", self.venue_clock.now_ms())

    async def _result(self, market: Market) -> MarketResult:
        while True:
            try:
                return await self.data.wait_result(market)
            except PmkitError as error:
                _LOG.warning("%s: no result of %s yet: %s", self.venue, market.market_id, error)
                await self.clock.sleep(RESULT_RETRY_SECONDS)
