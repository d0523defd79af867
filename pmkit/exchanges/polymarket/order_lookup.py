"""What became of an order: by its id, the open orders and the trades, over a minimum time before "there is none".

"Not found" is no answer by itself: the venue lists only active orders, forgets those that are over, and may know a new
one late (failure modes OE-08, OE-20).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import InvalidOrder, MarketNotFound, OrderRejected, OrderUnknown, PmkitError, ProtocolChanged
from pmkit.exchanges.numbers import quotient
from pmkit.exchanges.polymarket.journal import Journal, Record
from pmkit.exchanges.polymarket.order_plan import DUST
from pmkit.exchanges.polymarket.order_queries import OrderQueries
from pmkit.exchanges.polymarket.states import NOT_LISTED
from pmkit.exchanges.polymarket.user_messages import OwnOrder, OwnTrade
from pmkit.exchanges.types import Absent, Accepted, Intent, OrderId, OrderState, OrderStatus, TimeInForce

ABSENT_SECONDS: Final = 30.0
"""Market seconds after the sending ended before an order that nobody knows counts as never placed."""

ABSENT_WALL_SECONDS: Final = 3.0
"""And at least so many wall seconds, however fast market time runs."""

ANSWERED_SHARE: Final = 1 / 3
"""For that share of the time the venue must have answered without a break: a line that was dead until just now has held
the order back as well, and a fresh order cannot be read at once."""

TRADES_MARGIN_S: Final = 60
_ID: Final = re.compile("0x[0-9a-f]{64}").fullmatch
_WAITS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)

OnRow = Callable[[OwnOrder], object]
OnTrade = Callable[[OwnTrade], object]


class OrderLookup:
    """`on_order` and `on_trade` take every row that is read, so that subscribers hear of it as well; `know` reads the
    market of a row first.
    """

    def __init__(
        self,
        queries: OrderQueries,
        journal: Journal,
        clock: Clock,
        on_order: OnRow,
        on_trade: OnTrade,
        know: Callable[[str], Awaitable[object]],
        now_ms: Callable[[], int],
    ) -> None:
        self.absent_after = max(ABSENT_SECONDS / clock.factor, ABSENT_WALL_SECONDS)
        """Wall seconds."""
        self.closed = False
        self.published: Callable[[OrderStatus], object] = lambda status: None
        self._queries = queries
        self._journal = journal
        self._clock = clock
        self._on_order = on_order
        self._on_trade = on_trade
        self._know = know
        self._missing: dict[str, float] = {}
        self._now_ms = now_ms

    # -- one order ------------------------------------------------------------------------------------------------

    async def status(self, order_id: str) -> OrderStatus:
        """Where an order stands. An order that was refused, or proven absent, is REJECTED.

        Raises OrderUnknown for one whose placing is not resolved yet, MarketNotFound for an id that neither venue nor
        this process knows.
        """
        order_id = str(order_id).lower()
        if not _ID(order_id):
            raise MarketNotFound(f"{ascii(order_id)[:80]} is no order id of Polymarket: 0x and 64 hex digits")
        row = await self._find(order_id)
        known = self._journal.status(order_id)
        now = self._clock.io_monotonic()
        if row is not None and known is not None:
            self._missing.pop(order_id, None)
            return known  # what the row said is in it
        if known is not None and known.status.terminal:
            return known
        record = self._journal.records.get(order_id)
        since_ms = known.created_ms if known is not None else record.intent.created_ms if record is not None else None
        await self._read_trades(order_id, known.market_id if known else "", since_ms)
        known = self._journal.status(order_id)
        if known is None:
            return self._without_row(order_id, record)
        if known.status.terminal:
            return known
        if self._journal.matched(order_id) + DUST > known.size:
            self._end(order_id, OrderState.FILLED, "")
        elif now - self._missing.setdefault(order_id, now) >= self.absent_after:
            del self._missing[order_id]
            expired = known.expires_at is not None and self._now_ms() >= known.expires_at.timestamp() * 1000
            if expired:
                self._end(order_id, OrderState.EXPIRED, "expired")
            else:
                self._end(order_id, OrderState.CANCELED, NOT_LISTED)
        return self._journal.status(order_id) or known

    def _end(self, order_id: str, state: OrderState, reason: str) -> None:
        ended = self._journal.end(order_id, state, reason, self._now_ms())
        if ended is not None:
            self.published(ended)

    def _without_row(self, order_id: str, record: Record | None) -> OrderStatus:
        """An order that the venue does not list and never told of."""
        if self._journal.legs_of(order_id):
            return self._from_fills(order_id)
        if record is None:
            raise MarketNotFound(f"Polymarket knows no order {order_id[:80]!a} of this account")
        if not isinstance(record.result, OrderRejected):
            raise OrderUnknown(record.intent, "not resolved yet: resolve_order() tells")
        order = record.intent.order
        return OrderStatus(
            order_id=order_id,
            client_order_id=record.intent.client_order_id,
            market_id=order.market_id,
            outcome=order.outcome,
            side=order.side,
            price=order.price,
            size=order.size,
            filled_amount=Decimal(0),
            status=OrderState.REJECTED,
            time_in_force=order.time_in_force,
            reason=str(record.result),
            created_ms=record.intent.created_ms,
            updated_ms=self._now_ms(),
            expires_at=order.expires_at,
        )

    def _from_fills(self, order_id: str) -> OrderStatus:
        """An order of which only trades are left: another process placed it."""
        legs = list(self._journal.legs_of(order_id))
        fills = self._journal.fills_of(order_id)
        first = legs[0]
        filled = sum((fill.size for fill in fills), Decimal(0))
        paid = sum((fill.size * fill.price for fill in fills), Decimal(0))
        failed = len(fills) < len(legs)
        return OrderStatus(
            order_id=order_id,
            client_order_id=first.client_order_id,
            market_id=first.market_id,
            outcome=first.outcome,
            side=first.side,
            price=first.price,
            size=self._journal.matched(order_id),
            filled_amount=filled,
            status=OrderState.CANCELED if failed else OrderState.FILLED,
            average_price=quotient(paid, filled) if filled else None,
            fee=sum((fill.fee for fill in fills), Decimal(0)),
            time_in_force=TimeInForce.GTC,
            reason="known by its trades only" + (", of which some failed on chain" if failed else ""),
            updated_ms=max(fill.venue_ms for fill in legs),
        )

    async def _find(self, order_id: str) -> OwnOrder | None:
        """By its id, else among the open ones."""
        row = await self._queries.order(order_id)
        if row is not None and row.order_id.lower() != order_id:
            raise ProtocolChanged(f"Polymarket answers the query for order {order_id} with another order")
        if row is None:
            rows = await self._queries.open_orders(order_id=order_id)
            row = next((one for one in rows if one.order_id.lower() == order_id), None)
        if row is not None:
            await self._know(row.market_id)
            self._on_order(row)
        return row

    async def _read_trades(self, order_id: str, market_id: str, since_ms: int | None) -> bool:
        """Whether trades say that the order stood."""
        after = None if since_ms is None else since_ms // 1000 - TRADES_MARGIN_S
        found = False
        for trade in await self._queries.trades(after_s=after, market_id=market_id):
            if trade.taker_order_id.lower() == order_id or any(
                maker.order_id.lower() == order_id for maker in trade.maker_orders
            ):
                found = True
                await self._know(trade.market_id)
                self._on_trade(trade)
        return found

    def _age(self, record: Record) -> float:
        return 0.0 if record.sent_at is None else self._clock.io_monotonic() - record.sent_at

    # -- an unknown one -------------------------------------------------------------------------------------------

    async def resolve(self, intent: Intent) -> Accepted | Absent:
        """What became of an order whose outcome is unknown. Waits out the minimum time before it says Absent.

        Raises OrderUnknown while it cannot tell: the queries fail.
        """
        order_id = (intent.order_id or "").lower()
        if not order_id:
            raise InvalidOrder("this intent holds no order id: it was not made by PolymarketExchange")
        record = self._journal.records.get(order_id)
        if record is not None and record.sending is not None and not record.sending.done():
            await asyncio.wait({record.sending})
        if record is not None and (known := self._settled(record)) is not None:
            return known
        began = self._clock.io_monotonic()
        answered: float | None = None
        turn = 0
        while True:
            problem: PmkitError | None = None
            try:
                if await self._stands(order_id, intent):
                    return self._accepted(order_id, record)
                answered = self._clock.io_monotonic() if answered is None else answered
            except PmkitError as error:
                problem, answered = error, None
            if self.closed:
                raise OrderUnknown(intent, "this exchange is closed: a new object can look it up")
            age = self._clock.io_monotonic() - began if record is None else self._age(record)
            # An intent of another process is judged by its own date.
            if record is None:
                age = max(age, (self._now_ms() - intent.created_ms) / 1000 / self._clock.factor)
            if age >= self.absent_after and problem is not None:
                raise OrderUnknown(intent, f"the venue cannot be asked: {problem}") from problem
            needed = self.absent_after * ANSWERED_SHARE
            left = max(
                self.absent_after - age,
                needed if answered is None else needed - (self._clock.io_monotonic() - answered),
            )
            if left <= 0:
                return self._absent(intent, record)
            wait = _WAITS[min(turn, len(_WAITS) - 1)]
            turn += 1
            await self._clock.io_sleep(min(wait, max(0.01, left)))

    def _settled(self, record: Record) -> Accepted | Absent | None:
        """What is known here without asking."""
        if isinstance(record.result, OrderId):
            if record.order_id in self._journal.statuses:  # what it is now, not what the answer said
                return self._accepted(record.order_id, record)
            record.unresolved = False
            return Accepted(record.result)
        if isinstance(record.result, OrderRejected):
            record.unresolved = False
            return Absent(record.intent)
        if record.seen and record.order_id in self._journal.statuses:
            return self._accepted(record.order_id, record)
        return None

    async def _stands(self, order_id: str, intent: Intent) -> bool:
        if order_id in self._journal.statuses or self._journal.legs_of(order_id):
            return True
        if await self._find(order_id) is not None:
            return True
        return await self._read_trades(order_id, intent.order.market_id, intent.created_ms)

    def _accepted(self, order_id: str, record: Record | None) -> Accepted:
        status = self._journal.status(order_id)
        filled = self._journal.filled(order_id)
        if status is not None:
            found = OrderId(
                order_id, status.status, max(status.filled_amount, filled), status.average_price, status.fee
            )
        else:
            # Trades alone: how much of it is left, the venue did not say.
            fills = self._journal.fills_of(order_id)
            paid = sum((fill.size * fill.price for fill in fills), Decimal(0))
            whole = record is not None and filled + DUST > record.intent.order.size
            found = OrderId(
                order_id,
                OrderState.FILLED if whole else OrderState.LIVE,
                filled,
                quotient(paid, filled) if filled else None,
                sum((fill.fee for fill in fills), Decimal(0)),
            )
        if record is not None:
            record.unresolved = False
            new = self._journal.accept(record, found, self._now_ms())
            if new is not None:
                self.published(new)
        return Accepted(found)

    def _absent(self, intent: Intent, record: Record | None) -> Absent:
        if record is not None:
            record.unresolved = False
            record.result = OrderRejected("absent", "the venue does not know it")
        return Absent(intent)
