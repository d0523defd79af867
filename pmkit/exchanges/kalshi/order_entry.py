"""Placing orders on Kalshi: what is sent, sent once, and what each answer proves.

The intent is in the journal before a byte leaves. The sending is a task of its own: a caller that goes away does not
take the order back, and its outcome is known to the journal all the same. Nothing is ever sent twice, but a request
that was refused for its stamp is signed anew, with the same client order id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from pmkit.clock import Clock
from pmkit.errors import InvalidOrder, NotSent, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.base import LegResult
from pmkit.exchanges.kalshi.budget import TokenBudget
from pmkit.exchanges.kalshi.journal import Journal, Record
from pmkit.exchanges.kalshi.order_replies import Created, created, created_batch, same_order
from pmkit.exchanges.kalshi.orders import (
    BATCH_PATH,
    ORDERS_PATH,
    CreateBatch,
    CreateOrder,
    SelfTrade,
    create_order,
    encode,
)
from pmkit.exchanges.kalshi.refusals import Proof, Verdict
from pmkit.exchanges.kalshi.resolve import Resolver
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import VENUE, KalshiMarket, RowError
from pmkit.exchanges.kalshi.user_types import order_id_of, order_status
from pmkit.exchanges.types import Intent, MarketStatus, Order, OrderId, OrderStatus
from pmkit.http import Unanswered
from pmkit.outlive import Outliving
from pmkit.venue_clock import VenueClock

T = TypeVar("T")
_CLOSE_SECONDS: Final = 0.4
_LOG = logging.getLogger("pmkit.kalshi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What goes along with every order of an account, or with one."""

    self_trade: SelfTrade = SelfTrade.TAKER_AT_CROSS
    subaccount: int | None = None
    reduce_only: bool = False
    cancel_on_pause: bool = False


class OrderEntry:
    """Sends orders. `changed` is called with every new state; `expect(record)` after an order was accepted of which
    the user stream has to speak.

    `groups`: shard -> order group that new orders join.
    """

    def __init__(
        self,
        session: SignedSession,
        journal: Journal,
        resolver: Resolver,
        clock: Clock,
        venue_clock: VenueClock,
        *,
        changed: Callable[[OrderStatus], object],
        expect: Callable[[Record], object],
    ) -> None:
        self.groups: dict[int, str] = {}
        self._session = session
        self._budget: TokenBudget = session.budget
        self._journal = journal
        self._resolver = resolver
        self._clock = clock
        self._venue_clock = venue_clock
        self._changed = changed
        self._expect = expect
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def close(self) -> None:
        """What is under way gets 0.4 s to hear its answer; its outcome is unknown then."""
        self._closed = True
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # One order.

    async def place(self, market: KalshiMarket, order: Order, choices: Choices) -> OrderId:
        """Place one order. Raises InvalidOrder, NotSent, OrderRejected or OrderUnknown."""
        body = self.body(market, order, choices)
        self._check_closed()
        self._budget.order(market.exchange_index)
        record = self._begin(order, body)
        return await self._shielded(self._send(record), [record])

    def body(self, market: KalshiMarket, order: Order, choices: Choices) -> CreateOrder:
        """What would be sent. Raises InvalidOrder, also for a market that takes no orders now."""
        now_ms = self._venue_clock.now_ms()
        status = market.at(now_ms).status
        if status in (MarketStatus.CLOSED, MarketStatus.RESOLVED):
            raise InvalidOrder(f"{market.market_id} is closed since {market.close_time:%H:%M:%S} UTC: nothing was sent")
        if now_ms < market.open_ms:
            raise InvalidOrder(f"{market.market_id} opens at {market.open_time:%H:%M:%S} UTC: nothing was sent")
        return create_order(
            market,
            order,
            client_order_id=str(order.client_order_id or self._clock.entropy.uuid4()),
            now_ms=now_ms,
            self_trade=choices.self_trade,
            reduce_only=choices.reduce_only,
            cancel_on_pause=choices.cancel_on_pause,
            order_group_id=self.groups.get(market.exchange_index),
            subaccount=choices.subaccount,
        )

    def _check_closed(self) -> None:
        if self._closed:
            raise NotSent("this exchange is closed: nothing was sent")

    def _begin(self, order: Order, body: CreateOrder) -> Record:
        intent = Intent(
            venue=VENUE,
            client_order_id=body.client_order_id,
            order=msgspec.structs.replace(order, client_order_id=body.client_order_id),
            created_ms=self._venue_clock.now_ms(),
        )
        record = Record(intent, body, self._clock.io_monotonic())
        self._journal.begin(record)
        return record

    async def _shielded(self, coro: Coroutine[Any, Any, T], records: Sequence[Record]) -> T:
        sending = Outliving(coro, self._tasks, "pmkit kalshi order")
        for record in records:
            record.sending = sending.task
        try:
            return await sending
        except asyncio.CancelledError:
            for record in records:
                record.unresolved = True
            if sending.task.cancelled():  # by `close`: the caller is still there
                raise OrderUnknown(records[0].intent, "the exchange was closed before the answer came") from None
            raise

    async def _send(self, record: Record) -> OrderId:
        try:
            answer = await self._session.write("POST", ORDERS_PATH, body=encode(record.body))
        except NotSent:
            self._not_sent(record)
            raise
        except Unanswered as error:
            raise self._unknown(record, str(error)) from error
        except BaseException:
            record.unresolved = True
            raise
        if answer.status == 429:
            self._budget.drained(read=False, shard=record.body.exchange_index or 0)
        result = created(answer.status, answer.body, record.body, record.intent.order.outcome)
        return await self._conclude(record, result)

    def _not_sent(self, record: Record) -> None:
        # Only while nothing of an earlier attempt may stand: a stale stamp proves that the first did not.
        self._journal.forget(record)

    def _unknown(self, record: Record, reason: str) -> OrderUnknown:
        record.unresolved = True
        return OrderUnknown(record.intent, reason)

    async def _conclude(self, record: Record, result: Created) -> OrderId:
        """Turn an answer into one of the three outcomes."""
        fresh = isinstance(result, OrderId)
        if isinstance(result, Verdict) and result.proof is Proof.DUPLICATE:
            result = await self._duplicate(record, result)
        if isinstance(result, OrderId):
            status = self._journal.accept(record, result)
            if status is not None:
                self._changed(status)
            # Nothing may be said of an order that was there before, or that ended with nothing filled.
            if fresh and (result.filled_amount or not result.status.terminal):
                self._expect(record)
            return result
        if result.error is not None and self._journal.stands(record):
            # The socket spoke of it: no refusal, whatever the answer says.
            raise self._unknown(record, f"refused ({result.error}), and yet Kalshi has told of it")
        if result.error is not None:
            record.result = result.error
            raise result.error
        raise self._unknown(record, result.reason)

    async def _duplicate(self, record: Record, verdict: Verdict) -> Created:
        """A client id in use: the same order is this one; another one means that this was refused."""
        try:
            row = await self._resolver.find(record.intent)
            if row is None:
                return Verdict(Proof.UNKNOWN, f"{verdict.reason}, and the order is not to be found yet")
            status = order_status(row, record.intent.order.outcome)
        except (PmkitError, RowError) as error:
            return Verdict(Proof.UNKNOWN, f"{verdict.reason}, and looking it up failed: {error}")
        yes_price = order_status(row, "YES").price
        if same_order(record.body, row.ticker, row.book_side, yes_price, status.size):
            return order_id_of(status)
        refused = OrderRejected("duplicate", f"{verdict.reason}: the client order id belongs to order {row.order_id}")
        return Verdict(Proof.REFUSED, verdict.reason, refused)

    # Several.

    async def place_batch(self, legs: Sequence[tuple[KalshiMarket, Order]], choices: Choices) -> list[LegResult]:
        """One result per leg. What fits into one batch goes out together."""
        results: list[LegResult | None] = [None] * len(legs)
        ready: list[tuple[int, Record]] = []
        for index, (market, order) in enumerate(legs):
            try:
                self._check_closed()
                ready.append((index, self._begin(order, self.body(market, order, choices))))
            except PmkitError as error:
                results[index] = error
        size = self._budget.batch_size
        for start in range(0, len(ready), size):
            part = ready[start : start + size]
            records = [record for _, record in part]
            try:
                # Batches spend the unscoped bucket, whatever shard their orders are for.
                self._budget.order(0, len(part))
                outcomes: Sequence[LegResult] = await self._shielded(self._send_batch(records), records)
            except NotSent as error:
                for record in records:
                    self._journal.forget(record)
                outcomes = [error] * len(part)
            except asyncio.CancelledError:
                for _, record in ready[start + size :]:
                    self._journal.forget(record)
                raise
            except OrderUnknown as error:
                outcomes = [OrderUnknown(record.intent, error.reason) for record in records]
            for (index, _), outcome in zip(part, outcomes, strict=True):
                results[index] = outcome
        return [result for result in results if result is not None]

    async def _send_batch(self, records: Sequence[Record]) -> list[LegResult]:
        body = encode(CreateBatch(tuple(record.body for record in records)))
        try:
            answer = await self._session.write("POST", BATCH_PATH, body=body)
        except NotSent:
            raise
        except Unanswered as error:
            return [self._unknown(record, str(error)) for record in records]
        except BaseException:
            for record in records:
                record.unresolved = True
            raise
        if answer.status == 429:
            self._budget.drained(read=False)
        sent = [(record.body, record.intent.order.outcome) for record in records]
        legs: list[LegResult] = []
        for record, result in zip(records, created_batch(answer.status, answer.body, sent), strict=True):
            try:
                legs.append(await self._conclude(record, result))
            except PmkitError as error:
                legs.append(error)
        return legs
