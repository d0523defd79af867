"""Placing orders: three outcomes, and nothing is ever sent twice.

The id of an order is the hash of what is signed, so that it is on record before a byte is sent. The sending runs to its
end in a task of its own, whatever becomes of the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn

from pmkit.clock import Clock, uuid4_of
from pmkit.errors import (
    AuthError,
    ClockSkewError,
    ConfigError,
    InvalidOrder,
    NotSent,
    OrderAuthError,
    OrderClockSkew,
    OrderRejected,
    OrderUnknown,
    PmkitError,
)
from pmkit.exchanges.base import LegResult
from pmkit.exchanges.polymarket.answers import Placed, read_batch, read_placed
from pmkit.exchanges.polymarket.credentials import Identity, Login
from pmkit.exchanges.polymarket.journal import Journal, Record
from pmkit.exchanges.polymarket.limits import TradingLimits
from pmkit.exchanges.polymarket.order_plan import OrderPlan
from pmkit.exchanges.polymarket.orders import MAX_SALT, ORDER_PATH, ORDERS_PATH, batch_body
from pmkit.exchanges.polymarket.refusals import Proof, Verdict
from pmkit.exchanges.polymarket.signed_http import SignedSession
from pmkit.exchanges.polymarket.types import VENUE, PolymarketMarket
from pmkit.exchanges.types import Accepted, Intent, Order, OrderId
from pmkit.outlive import Outliving

_LOG = logging.getLogger("pmkit.polymarket")

SALT_BITS: Final = MAX_SALT.bit_length()
UUID_BITS: Final = 128
Leg = tuple[PolymarketMarket, Order, OrderPlan]
Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]


class OrderEntry:
    """`blocked`: why no order may be sent now, "" where they may. `on_accepted(record, order_id)` hears of every order
    that the venue took; `on_refused(market, error)` of every refusal. `lookup(intent)` is `OrderLookup.resolve`. The
    sendings are in `tasks` until they end; `spawn` is for all else.
    """

    def __init__(
        self,
        http: SignedSession,
        login: Login,
        journal: Journal,
        limits: TradingLimits,
        clock: Clock,
        spawn: Spawn,
        tasks: set[asyncio.Task[Any]],
        *,
        on_accepted: Callable[[Record, OrderId], object],
        on_refused: Callable[[PolymarketMarket, OrderRejected], object],
        lookup: Callable[[Intent], Coroutine[Any, Any, Any]],
    ) -> None:
        self.blocked = ""
        self._http = http
        self._login = login
        self._journal = journal
        self._limits = limits
        self._clock = clock
        self._spawn = spawn
        self._tasks = tasks
        self._on_accepted = on_accepted
        self._on_refused = on_refused
        self._lookup = lookup

    async def place(self, market: PolymarketMarket, order: Order, plan: OrderPlan) -> OrderId:
        """Place one. Raises NotSent, OrderRejected, OrderUnknown."""
        identity = self._login.identity or await self._ready()
        if self.blocked:
            self._refuse()
        self._limits.order()
        record = self._begin(identity, market, order, plan)
        sending = Outliving(self._send(record), self._tasks, f"pmkit polymarket order {record.sent.order_id}")
        record.sending = sending.task
        try:
            return await sending
        except asyncio.CancelledError:
            # The order is on its way and goes on: the caller is gone, its outcome is kept.
            record.unresolved = True
            if sending.task.cancelled():  # by `close`, while it was looked up: the caller is still there
                raise self._unknown(record, "closed before it was known") from None
            raise

    async def place_batch(self, wanted: Sequence[Leg]) -> list[LegResult]:
        """Place up to 15 in one request; a result per order. Raises ConfigError for an account that is not usable."""
        try:
            identity = self._login.identity or await self._ready()
            if self.blocked:
                self._refuse()
            self._limits.order(len(wanted))
        except (NotSent, OrderRejected) as error:
            return [error for _ in wanted]
        results: list[LegResult | None] = []
        records: list[Record] = []
        for market, order, plan in wanted:
            try:
                records.append(self._begin(identity, market, order, plan))
                results.append(None)
            except OrderRejected as error:
                results.append(error)
        if records:
            sending = Outliving(
                self._send_batch(records), self._tasks, f"pmkit polymarket batch of {len(records)} orders"
            )
            for record in records:
                record.sending = sending.task
            try:
                legs = await sending
            except asyncio.CancelledError:
                for record in records:
                    record.unresolved = True
                if not sending.task.cancelled():
                    raise
                legs = [self._unknown(record, "closed before it was known") for record in records]
            left = iter(legs)
            results = [next(left) if result is None else result for result in results]
        return [result for result in results if result is not None]

    async def _ready(self) -> Identity:
        """Log in. What fails there is proof that no order was sent."""
        try:
            return await self._login.ready()
        except (NotSent, ConfigError):
            raise
        except AuthError as error:
            raise OrderAuthError(str(error)) from error
        except PmkitError as error:
            raise NotSent(f"the log-in failed, so that no order was sent: {error}") from error

    def _refuse(self) -> NoReturn:
        raise NotSent(f"nothing was sent: {self.blocked}")

    def _begin(self, identity: Identity, market: PolymarketMarket, order: Order, plan: OrderPlan) -> Record:
        now_ms = self._http.now_ms()
        if now_ms >= market.close_ms:
            raise OrderRejected("market_closed", f"{market.label} closed at {market.close_time}: nothing was sent")
        # One draw for both: the machine's entropy is a system call.
        bits = self._clock.entropy.randbits(UUID_BITS + SALT_BITS)
        sent = identity.orders.sign(plan, bits & MAX_SALT, now_ms)
        intent = Intent(
            venue=VENUE,
            client_order_id=order.client_order_id or uuid4_of(bits >> SALT_BITS),
            order=order,
            created_ms=now_ms,
            order_id=sent.order_id,
        )
        record = Record(intent, market, sent)
        self._journal.begin(record)
        return record

    # -- one ------------------------------------------------------------------------------------------------------

    async def _send(self, record: Record) -> OrderId:
        try:
            answer = await self._http.send("POST", ORDER_PATH, record.sent.body)
        except NotSent as error:
            raise self._failed([record], error) from error.__cause__
        except asyncio.CancelledError as error:
            raise self._failed([record], error) from None
        except Exception as error:
            raise self._failed([record], error) from error
        self._limits.learn(answer.headers, orders=True, status=answer.status)
        outcome = read_placed(answer.status, answer.body, record.sent, answer.retry_after)
        result = self._settle(record, outcome)
        if isinstance(result, OrderId):
            return result
        if isinstance(outcome, Verdict) and outcome.proof is Proof.DUPLICATE:
            result = await self._look_up(record)
            if isinstance(result, OrderId):
                return result
        raise result

    async def _look_up(self, record: Record) -> LegResult:
        """The venue says that it has this very order. Only a request signed anew for its stamp can lead here."""
        record.sending, sending = None, record.sending
        try:
            found = await self._lookup(record.intent)
        except OrderUnknown as error:
            record.unresolved = True
            return error
        finally:
            record.sending = sending
        return found.order_id if isinstance(found, Accepted) else self._unknown(record, "duplicate, and not found")

    # -- several --------------------------------------------------------------------------------------------------

    async def _send_batch(self, records: list[Record]) -> list[LegResult]:
        body = batch_body([record.sent for record in records])
        try:
            answer = await self._http.send("POST", ORDERS_PATH, body)
        except (Exception, asyncio.CancelledError) as error:
            failed = self._failed(records, error)
            return [record.result if isinstance(record.result, PmkitError) else failed for record in records]
        self._limits.learn(answer.headers, orders=True, status=answer.status)
        outcomes = read_batch(answer.status, answer.body, [record.sent for record in records], answer.retry_after)
        results = [self._settle(record, outcome) for record, outcome in zip(records, outcomes, strict=True)]
        for place, (record, outcome) in enumerate(zip(records, outcomes, strict=True)):
            if isinstance(outcome, Verdict) and outcome.proof is Proof.DUPLICATE:
                results[place] = await self._look_up(record)
        return results

    # -- outcomes -------------------------------------------------------------------------------------------------

    def _failed(self, records: list[Record], error: BaseException) -> PmkitError:
        """No answer came: the outcome of every one of these orders. Returns that of the first."""
        if isinstance(error, NotSent):
            for record in records:
                self._not_sent(record, error)
            return error
        outcomes: list[PmkitError]
        if isinstance(error, ClockSkewError):
            outcomes = [self._refused(record, OrderClockSkew(str(error), error.skew_ms)) for record in records]
        elif isinstance(error, PmkitError):
            outcomes = [self._unknown(record, str(error)) for record in records]
        elif isinstance(error, asyncio.CancelledError):
            # This object is being closed. The task ends with the outcome, not as cancelled.
            outcomes = [self._unknown(record, "closed while it was on its way") for record in records]
        else:
            _LOG.error("polymarket: sending an order failed in an unexpected way", exc_info=error)
            outcomes = [self._unknown(record, f"{type(error).__name__} while sending") for record in records]
        return outcomes[0]

    def _settle(self, record: Record, outcome: Placed | Verdict) -> LegResult:
        if isinstance(outcome, Placed):
            record.sent_at = self._clock.io_monotonic()
            record.result = outcome.order_id
            self._on_accepted(record, outcome.order_id)
            return outcome.order_id
        if outcome.proof is Proof.REFUSED:
            return self._refused(record, outcome.error())
        return self._unknown(record, f"HTTP {outcome.status}: {outcome.reason}")

    def _not_sent(self, record: Record, error: NotSent) -> None:
        if record.unresolved:  # its caller is gone and may ask what became of it
            record.result = OrderRejected("not_sent", str(error))
        else:
            self._journal.forget(record)

    def _refused(self, record: Record, error: OrderRejected) -> PmkitError:
        if self._journal.stands(record.order_id):
            # The socket spoke of it: no refusal, whatever the answer says.
            return self._unknown(record, f"refused ({error}), and yet the venue has told of it")
        record.sent_at = self._clock.io_monotonic()
        record.result = error
        self._on_refused(record.market, error)
        if isinstance(error, OrderAuthError):
            self._spawn(self._renew(), "credentials")
        return error

    def _unknown(self, record: Record, reason: str) -> OrderUnknown:
        record.sent_at = self._clock.io_monotonic()
        record.unresolved = True
        error = OrderUnknown(record.intent, reason)
        if record.result is None:
            record.result = error
        return error

    async def _renew(self) -> None:
        try:
            if await self._login.renew():
                _LOG.warning("polymarket: an order was refused for its API key; the credentials were fetched anew")
        except PmkitError as error:
            _LOG.error("polymarket: the API credentials could not be fetched anew: %s", error)


def check_legs(orders: Sequence[Order]) -> None:
    """Raises InvalidOrder for two legs with one client order id."""
    named = [order.client_order_id for order in orders if order.client_order_id]
    if len(set(named)) != len(named):
        raise InvalidOrder("two orders of one batch have the same client order id")
