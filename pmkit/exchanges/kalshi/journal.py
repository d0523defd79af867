"""What this process knows of the account's orders and fills: identities before anything is sent, states that only go
forward, each fill once.

No I/O: whoever reads the socket or REST tells it, and gets back what is new.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.errors import OrderRejected, PmkitError
from pmkit.exchanges.kalshi.orders import CreateOrder
from pmkit.exchanges.kalshi.types import RowError
from pmkit.exchanges.kalshi.user_messages import FillRow, OrderRow, UserFill, UserOrder
from pmkit.exchanges.kalshi.user_types import fill, order_status
from pmkit.exchanges.types import Fill, Intent, OrderId, OrderState, OrderStatus

KEEP: Final = 50_000
"""Orders and fills remembered; the oldest that are over go first. A busy bot makes some thousands a day."""
ZERO: Final = Decimal(0)
_LOG = logging.getLogger("pmkit.kalshi")


@dataclass(slots=True, eq=False)
class Record:
    """One order of this process. `body`: what was sent; `sending`: the task that sends it; `result`: how it ended as
    far as is known; `seen`: the user socket has spoken of it. `sent_at`: monotonic wall seconds.
    """

    intent: Intent
    body: CreateOrder
    sent_at: float
    sending: asyncio.Task[Any] | None = None
    result: OrderId | PmkitError | None = None
    order_id: str | None = None
    unresolved: bool = False
    seen: bool = False


class Journal:
    """Orders and fills of one account, as far as this object has seen them.

    `late` counts events that would have taken an order back (dropped), `foreign` orders of others.
    """

    def __init__(self) -> None:
        self.records: OrderedDict[str, Record] = OrderedDict()
        self.by_order: dict[str, Record] = {}
        self.statuses: OrderedDict[str, OrderStatus] = OrderedDict()
        self.places: OrderedDict[str, tuple[str, int | None]] = OrderedDict()
        """order id -> market ticker and shard"""
        self.fills: OrderedDict[tuple[str, str, str], Fill] = OrderedDict()
        self.amended: set[str] = set()
        """Orders that were given another size here: more than was first sent may fill."""
        self.late = 0
        self.foreign: set[str] = set()
        self._filled: OrderedDict[str, Decimal] = OrderedDict()

    # Own orders.

    def begin(self, record: Record) -> None:
        """Before a byte of it is sent. Raises OrderRejected for a client id that is in use here."""
        client_id = record.intent.client_order_id
        if client_id in self.records:
            raise OrderRejected("duplicate", f"the client order id {client_id} was used before: nothing was sent")
        self.records[client_id] = record
        if len(self.records) > KEEP:
            over = next((key for key, one in self.records.items() if one.result and not one.unresolved), None)
            if over is not None:
                gone = self.records.pop(over)
                self.by_order.pop(gone.order_id or "", None)

    def forget(self, record: Record) -> None:
        """Nothing of it was sent: its client id is free again."""
        self.records.pop(record.intent.client_order_id, None)

    def identify(self, record: Record, order_id: str) -> None:
        """The venue's id of an own order is known."""
        record.order_id = order_id
        self.by_order[order_id] = record
        self.place(order_id, record.body.ticker, record.body.exchange_index)

    def accept(self, record: Record, order_id: OrderId) -> OrderStatus | None:
        """The venue's answer: the order's new state, None where the socket has said as much already.

        Its `updated_ms` is 0, since a stamp of this machine must not make the venue's look old.
        """
        self.identify(record, str(order_id))
        record.result = order_id
        order = record.intent.order
        return self._merge(
            OrderStatus(
                order_id=str(order_id),
                client_order_id=record.intent.client_order_id,
                market_id=order.market_id,
                outcome=order.outcome,
                side=order.side,
                price=order.price,
                size=order.size,
                filled_amount=order_id.filled_amount,
                status=order_id.status,
                average_price=order_id.average_price,
                fee=order_id.fee,
                time_in_force=order.time_in_force,
                created_ms=record.intent.created_ms,
                expires_at=order.expires_at,
            )
        )

    @property
    def unresolved(self) -> tuple[Intent, ...]:
        """Oldest first."""
        return tuple(record.intent for record in self.records.values() if record.unresolved)

    def record_of(self, row: OrderRow | UserOrder | FillRow | UserFill) -> Record | None:
        """The own order behind an event. With a client id that is in use here, market and side tell whether it is that
        order; from then on its order id is known."""
        order_id = row.order_id
        record = self.by_order.get(order_id)
        client_id = None if isinstance(row, FillRow) else row.client_order_id
        if record is None and client_id and (record := self.records.get(client_id)) is not None:
            ticker = row.market_ticker if isinstance(row, UserFill) else row.ticker
            if (ticker, row.book_side) != (record.body.ticker, str(record.body.side)):
                return None
            if record.order_id is None:
                self.identify(record, order_id)
                if isinstance(record.result, PmkitError) and not _stillborn(row):
                    _LOG.error("kalshi: order %s stands after all, though this was said: %s", order_id, record.result)
                    record.result, record.unresolved = None, True
            elif record.order_id != order_id:
                return None
        return record

    def stands(self, record: Record) -> bool:
        """Whether the venue has told that this order rests or has filled."""
        if record.order_id is None:
            return False
        known = self.statuses.get(record.order_id)
        if known is not None and (not known.status.terminal or known.filled_amount > 0):
            return True
        return record.order_id in self._filled

    def may_be_own(self, row: UserFill) -> bool:
        """Whether a fill that names no client id may be of an own order whose answer is still missing."""
        if row.client_order_id or row.order_id in self.by_order or row.order_id in self.foreign:
            return False
        return any(
            record.order_id is None and (record.unresolved or record.result is None)
            for record in reversed(self.records.values())
        )

    def place(self, order_id: str, ticker: str, shard: int | None) -> None:
        """Where an order is, for its cancel."""
        self.places[order_id] = (ticker, shard)
        if len(self.places) > KEEP:
            self.places.popitem(last=False)

    # Events.

    def on_order(self, row: OrderRow | UserOrder, received_ns: int = 0) -> OrderStatus | None:
        """A REST row or a socket message: the new state, None where it says nothing new. Raises RowError."""
        record = self.record_of(row)
        self.place(row.order_id, row.ticker, row.exchange_index)
        status = standing(row, self._outcome(record, row.order_id), received_ns)
        if record is not None:
            if isinstance(row, UserOrder):
                record.seen = True
            known = record.intent.order.time_in_force
            status = msgspec.structs.replace(status, time_in_force=known)
        return self._merge(status)

    def _outcome(self, record: Record | None, order_id: str) -> str | None:
        if record is not None:
            return record.intent.order.outcome
        known = self.statuses.get(order_id)
        return None if known is None else known.outcome

    def _merge(self, new: OrderStatus) -> OrderStatus | None:
        old = self.statuses.get(new.order_id)
        if old is not None:
            merged = _forward(old, new)
            if merged is None:
                self.late += 1
                _LOG.debug("kalshi: a late event of order %s was dropped: %s", new.order_id, new.status)
                return None
            new = merged
        self.statuses[new.order_id] = new
        if len(self.statuses) > KEEP:
            over = next((key for key, one in self.statuses.items() if one.status.terminal), None)
            if over is not None:
                del self.statuses[over]
        return new if old is None or _shown(old) != _shown(new) else None

    def on_fill(self, row: FillRow | UserFill, received_ns: int = 0) -> Fill | None:
        """A fill of either path, the first time it is seen; else None. Raises RowError, also for one of more than is
        left of an own order."""
        record = self.record_of(row)
        known_id = record.intent.client_order_id if record is not None else None
        one = fill(row, self._outcome(record, row.order_id), known_id, own=record is not None, received_ns=received_ns)
        key = fill_key(one)
        if key in self.fills:
            return None
        if record is not None and one.order_id not in self.amended:
            known = self.statuses.get(one.order_id)
            most = max(count_of(record.body.count), ZERO if known is None else known.size)
            if one.size + self._filled.get(one.order_id, ZERO) > most:
                raise RowError(f"fill {one.fill_id} is of {one.size}, more than is left of order {one.order_id}")
        if record is not None and isinstance(row, UserFill):
            record.seen = True
        if record is None:
            if len(self.foreign) >= KEEP:
                self.foreign.clear()
            self.foreign.add(row.order_id)
        self.place(row.order_id, one.market_id, row.exchange_index)
        self.fills[key] = one
        if record is not None:
            self._filled[one.order_id] = self._filled.get(one.order_id, ZERO) + one.size
            if len(self._filled) > KEEP:
                self._filled.popitem(last=False)
        if len(self.fills) > KEEP:
            self.fills.popitem(last=False)
        return one

    def nameless(self, rows: Iterable[FillRow]) -> list[str]:
        """Order ids of fills whose order is neither known as own nor as someone else's. A REST fill has no client id,
        so that it may belong to an order whose answer is still missing."""
        found = {
            row.order_id: None for row in rows if row.order_id not in self.by_order and row.order_id not in self.foreign
        }
        return list(found)

    def open_ids(self) -> list[str]:
        """Orders that are live as far as is known here."""
        return [status.order_id for status in self.statuses.values() if not status.status.terminal]


def standing(row: OrderRow | UserOrder, outcome: str | None = None, received_ns: int = 0) -> OrderStatus:
    """`order_status` with the size that is true now: a decreased order keeps its first count on the wire, so that what
    rests (or, once it is filled, what it filled) tells. Raises RowError."""
    status = order_status(row, outcome, received_ns)
    size = status.size
    if status.status is OrderState.LIVE:
        size = min(size, status.filled_amount + count_of(row.remaining_count_fp))
    elif status.status is OrderState.FILLED:
        size = status.filled_amount
    return status if size == status.size else msgspec.structs.replace(status, size=size)


def count_of(text: str) -> Decimal:
    """A count of the wire. Raises RowError."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite():
        raise RowError(f"{ascii(text)[:40]} is no number")
    return value


def fill_key(one: Fill) -> tuple[str, str, str]:
    """What makes a fill one event."""
    return (one.fill_id, one.order_id, str(one.state))


def order_key(one: OrderStatus) -> tuple[object, ...]:
    """What makes a state of an order one event."""
    return (one.order_id, *_shown(one))


def _shown(one: OrderStatus) -> tuple[object, ...]:
    return (str(one.status), one.filled_amount, one.size, one.price, one.expires_at)


def _forward(old: OrderStatus, new: OrderStatus) -> OrderStatus | None:
    """The state after both, None where `new` is older: a terminal order stays so, filled contracts never shrink."""
    if old.status.terminal:
        if new.filled_amount <= old.filled_amount or not new.status.terminal:
            return None
        return msgspec.structs.replace(
            old, filled_amount=new.filled_amount, average_price=new.average_price, fee=new.fee
        )
    if not new.status.terminal and (
        new.filled_amount < old.filled_amount
        or (new.filled_amount == old.filled_amount and new.updated_ms < old.updated_ms)
    ):
        return None
    if new.filled_amount < old.filled_amount:
        return msgspec.structs.replace(
            new, filled_amount=old.filled_amount, average_price=old.average_price, fee=old.fee
        )
    return new


def _stillborn(row: OrderRow | UserOrder | FillRow | UserFill) -> bool:
    """Whether it says that nothing ever stood: what the venue tells of a post-only order that it refused, too."""
    return isinstance(row, OrderRow | UserOrder) and row.status == "canceled" and not count_of(row.fill_count_fp)
