"""What became of an order whose answer did not come: looked up, never sent again.

An order that is not found is not absent yet: a fresh one may be missing from REST, and a late one may still arrive.
Only several empty look-ups over `seconds` of wall time are believed. They count from the first that was answered, not
from the sending: a line that was dead until then has held the order back as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import MarketNotFound, NotSent, OrderRejected, OrderUnknown, PmkitError, ProtocolChanged
from pmkit.exchanges.kalshi.budget import LOOKUP_COST
from pmkit.exchanges.kalshi.journal import Journal, Record, standing
from pmkit.exchanges.kalshi.paging import pages
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import RowError
from pmkit.exchanges.kalshi.user_messages import OrderAnswer, OrderRow, OrdersPage
from pmkit.exchanges.kalshi.user_types import order_id_of
from pmkit.exchanges.types import Absent, Accepted, Intent, OrderId, OrderStatus

RESOLVE_SECONDS: Final = 10.0
LOOKS: Final = 3
MARGIN_MS: Final = 120_000
"""An order may be stamped that much before the moment it was sent: clocks differ."""
_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 1.5
_LOG = logging.getLogger("pmkit.kalshi")


class Resolver:
    """Looks up orders by their client order id."""

    def __init__(
        self,
        session: SignedSession,
        journal: Journal,
        clock: Clock,
        *,
        account: dict[str, str | int],
        seconds: float,
        changed: Callable[[OrderStatus], object],
    ) -> None:
        self._session = session
        self._journal = journal
        self._clock = clock
        self._account = account
        self._seconds = seconds
        self._changed = changed

    async def row(self, order_id: str) -> OrderRow:
        """One order by its id. Raises MarketNotFound where REST does not know it (yet, or any more)."""
        answer = await self._session.get(f"/portfolio/orders/{order_id}", OrderAnswer, cost=LOOKUP_COST)
        if answer.order.order_id != order_id:
            raise ProtocolChanged(f"Kalshi answers the query for order {order_id} with another order")
        return answer.order

    async def find(self, intent: Intent) -> OrderRow | None:
        """The order with this client id among those of its market since shortly before it was sent; None: not there."""
        record = self._journal.records.get(intent.client_order_id)
        if record is not None and record.order_id is not None:
            try:
                return await self.row(record.order_id)
            except MarketNotFound:
                pass  # known from the socket, not yet to REST: the list may have it
        params: dict[str, str | int] = {
            **self._account,
            "ticker": intent.order.market_id,
            "min_ts": (intent.created_ms - MARGIN_MS) // 1000,
        }
        async for row in pages(self._session, "/portfolio/orders", OrdersPage, lambda page: page.orders, params):
            if row.client_order_id == intent.client_order_id:
                return row
        return None

    async def resolve(self, intent: Intent) -> Accepted | Absent:
        """Accepted, or Absent after the minimum time. Raises OrderUnknown while the venue cannot be asked."""
        record = self._journal.records.get(intent.client_order_id)
        if record is not None and record.sending is not None and not record.sending.done():
            await asyncio.wait({record.sending})
        since: float | None = None
        empty, wait = 0, _FIRST_WAIT_SECONDS
        while True:
            known = self._known(intent, record)
            if known is not None:
                return self._done(record, known)
            try:
                row = await self._look(intent)
                if row is not None:
                    return self._done(record, self._accepted(intent, row))
                empty += 1
                since = self._clock.io_monotonic() if since is None else since
            except (PmkitError, RowError) as error:
                raise OrderUnknown(intent, f"looking it up failed: {error}") from error
            left = since + self._seconds - self._clock.io_monotonic()
            if empty >= LOOKS and left <= 0:
                return self._done(record, Absent(intent))
            await self._clock.io_sleep(min(wait, max(left, _FIRST_WAIT_SECONDS)))
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    async def _look(self, intent: Intent) -> OrderRow | None:
        if intent.order_id is not None:
            return await self.row(intent.order_id)  # an amend: the order itself was there before
        return await self.find(intent)

    def _known(self, intent: Intent, record: Record | None) -> Accepted | Absent | None:
        """What the answer has said meanwhile, or the socket."""
        if record is None or intent.order_id is not None:
            return None
        if isinstance(record.result, OrderId):
            return Accepted(self._current(record.result))
        if isinstance(record.result, OrderRejected | NotSent):
            return Absent(intent)
        status = self._journal.statuses.get(record.order_id or "")
        return None if status is None else Accepted(order_id_of(status))

    def _current(self, placed: OrderId) -> OrderId:
        status = self._journal.statuses.get(str(placed))
        return placed if status is None else order_id_of(status)

    def _accepted(self, intent: Intent, row: OrderRow) -> Accepted:
        status = self._journal.on_order(row)
        if status is not None:
            self._changed(status)
        known = self._journal.statuses.get(row.order_id) or standing(row, intent.order.outcome)
        return Accepted(order_id_of(known))

    def _done(self, record: Record | None, answer: Accepted | Absent) -> Accepted | Absent:
        if record is not None:
            record.unresolved = False
            if isinstance(answer, Accepted):
                record.result = answer.order_id
                self._journal.identify(record, str(answer.order_id))
            elif record.result is None:
                # Kept: should it appear after all, it is recognised.
                record.result = OrderRejected("absent", "the venue does not know the order")
        return answer
