"""What this process knows of the account's orders and fills: identities before anything is sent, states that only go
forward, each fill once per state.

No I/O: whoever reads the socket or REST tells it, and gets back what is new.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.clock import to_utc
from pmkit.errors import OrderRejected, PmkitError
from pmkit.exchanges.numbers import quotient
from pmkit.exchanges.polymarket.order_plan import DUST, EXPIRES_EARLY_S
from pmkit.exchanges.polymarket.orders import WIRE_TYPES, SignedOrder
from pmkit.exchanges.polymarket.states import forward
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.user_messages import OwnLeg, OwnOrder, OwnTrade
from pmkit.exchanges.types import (
    Fill,
    FillState,
    Intent,
    Liquidity,
    OrderId,
    OrderState,
    OrderStatus,
    TimeInForce,
)

KEEP: Final = 50_000
"""Orders and fills remembered; the oldest that are over go first. A busy bot makes some thousands a day."""

_ZERO: Final = Decimal(0)
_TIMES: Final = {word: time_in_force for time_in_force, word in WIRE_TYPES.items()}
_TAKING: Final = (TimeInForce.IOC, TimeInForce.FOK)
_LOG = logging.getLogger("pmkit.polymarket")


class Record(msgspec.Struct, eq=False):
    """One order of this process. `sending`: the task that sends it; `result`: how it ended as far as is known;
    `sent_at`: monotonic wall seconds when the sending ended, None while it goes on; `seen`: the venue spoke of it.
    """

    intent: Intent
    market: PolymarketMarket
    sent: SignedOrder
    sending: asyncio.Task[Any] | None = None
    result: OrderId | PmkitError | None = None
    sent_at: float | None = None
    unresolved: bool = False
    seen: bool = False

    @property
    def order_id(self) -> str:
        return self.sent.order_id


class Journal:
    """Orders and fills of one account, as far as this object has seen them.

    `late` counts events that would have taken an order or a fill back in time (dropped); `odd_words` status words that
    are not known; `impossible` are fills (trade id, order id) of more than their order (not told).
    """

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self.records: OrderedDict[str, Record] = OrderedDict()
        self.by_client: dict[str, str] = {}
        self.statuses: OrderedDict[str, OrderStatus] = OrderedDict()
        self.fills: OrderedDict[tuple[str, str, str], Fill] = OrderedDict()
        self.late = 0
        self.odd_words: dict[str, int] = {}
        self.impossible: set[tuple[str, str]] = set()
        self._state: OrderedDict[tuple[str, str], Fill] = OrderedDict()
        self._of_order: dict[str, dict[str, Fill]] = {}

    # -- own orders -----------------------------------------------------------------------------------------------

    def begin(self, record: Record) -> None:
        """Before a byte of it is sent. Raises OrderRejected for a client id that is in use here."""
        client_id = record.intent.client_order_id
        if client_id in self.by_client:
            raise OrderRejected("duplicate", f"the client order id {client_id} was used before: nothing was sent")
        order_id = record.sent.order_id
        self.by_client[client_id] = order_id
        self.records[order_id] = record
        if len(self.records) > KEEP:
            over = next((key for key, one in self.records.items() if one.result and not one.unresolved), None)
            if over is not None:
                self.by_client.pop(self.records.pop(over).intent.client_order_id, None)

    def forget(self, record: Record) -> None:
        """Nothing of it was sent: its client id is free again."""
        self.records.pop(record.order_id, None)
        self.by_client.pop(record.intent.client_order_id, None)

    @property
    def unresolved(self) -> tuple[Intent, ...]:
        """Oldest first."""
        return tuple(record.intent for record in self.records.values() if record.unresolved)

    def unplaced(self, order_id: str) -> bool:
        """Whether it is one of this process of which nobody can say whether the venue has it."""
        record = self.records.get(order_id)
        return record is not None and not record.seen and not isinstance(record.result, OrderId | OrderRejected)

    def accept(self, record: Record, order_id: OrderId, now_ms: int) -> OrderStatus | None:
        """The venue's answer: the order's new state, None where the socket has said as much already."""
        record.result = order_id
        order = record.intent.order
        return self._merge(
            OrderStatus(
                order_id=record.sent.order_id,
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
                created_ms=now_ms,
                updated_ms=now_ms,
                expires_at=order.expires_at,
            )
        )

    def stands(self, order_id: str) -> bool:
        """Whether the venue has told that this order rests or has filled."""
        known = self.statuses.get(order_id)
        return bool(self._of_order.get(order_id)) or (
            known is not None and (not known.status.terminal or known.filled_amount > 0)
        )

    def _appeared(self, order_id: str, stillborn: bool = False) -> Record | None:
        """The venue speaks of an order. One that was said not to stand is unknown again, but for one of which the venue
        tells that nothing came of it."""
        record = self.records.get(order_id)
        if record is not None:
            record.seen = True
            if isinstance(record.result, OrderRejected) and not stillborn:
                _LOG.error("polymarket: order %s stands after all, though it was said: %s", order_id, record.result)
                record.result, record.unresolved = None, True
        return record

    # -- orders ---------------------------------------------------------------------------------------------------

    def on_order(self, row: OwnOrder, outcome: str, received_ns: int = 0) -> OrderStatus | None:
        """A row of REST or an event of the socket: the new state, None where it says nothing new.

        `outcome`: what its token is, where the row does not say.
        """
        state = row.state.state
        over = state is not None and state.terminal and state is not OrderState.FILLED
        record = self._appeared(row.order_id, stillborn=over and not row.size_matched)
        return self._merge(self.status_of(row, record, outcome, received_ns))

    def status_of(self, row: OwnOrder, record: Record | None, outcome: str, received_ns: int = 0) -> OrderStatus:
        """A row as a status, by itself."""
        order = record.intent.order if record is not None else None
        if order is not None:
            size = order.size
        elif row.size_is_money and row.price > 0:
            size = quotient(row.original_size, row.price)
        else:
            size = row.original_size
        state = row.state
        status = state.state
        if status is None:
            self.odd_words[state.word[:60]] = self.odd_words.get(state.word[:60], 0) + 1
            known = self.statuses.get(row.order_id)
            status = known.status if known is not None else OrderState.LIVE
        elif status is OrderState.FILLED and row.size_matched + DUST < (
            record.sent.plan.least_shares() if record else size
        ):
            if row.order_type in ("FAK", "FOK") or (order is not None and order.time_in_force in _TAKING):
                status = OrderState.CANCELED  # an order that only takes, and did not get all
            elif row.event:
                status = OrderState.LIVE  # matched in part; were it over, an event would say so
        ends = row.expiration - EXPIRES_EARLY_S
        return OrderStatus(
            order_id=row.order_id,
            client_order_id=record.intent.client_order_id if record is not None else None,
            market_id=order.market_id if order is not None else row.market_id,
            outcome=order.outcome if order is not None else row.outcome or outcome,
            side=row.side,
            price=row.price,
            size=size,
            filled_amount=row.size_matched,
            status=status,
            time_in_force=_TIMES.get(row.order_type, TimeInForce.GTC),
            reason=state.reason,
            created_ms=row.created_ms,
            updated_ms=row.venue_ms,
            expires_at=order.expires_at if order is not None else to_utc(ends * 1000) if row.expiration else None,
            received_ns=received_ns,
        )

    def end(self, order_id: str, status: OrderState, reason: str, now_ms: int) -> OrderStatus | None:
        """What became of an order that the venue does not list any more: the new state, None where it was over."""
        old = self.statuses.get(order_id)
        if old is None:
            return None
        filled = max(old.filled_amount, self.matched(order_id))
        return self._merge(
            msgspec.structs.replace(old, status=status, filled_amount=filled, reason=reason, updated_ms=now_ms)
        )

    def _merge(self, new: OrderStatus) -> OrderStatus | None:
        old = self.statuses.get(new.order_id)
        if old is not None:
            merged = forward(old, new)
            if merged is None:
                self.late += 1
                _LOG.debug("polymarket: a late event of order %s was dropped: %s", new.order_id, new.status)
                return None
            new = merged
        before = None if old is None else self._shown(old)
        self.statuses[new.order_id] = new
        if len(self.statuses) > KEEP:
            over = next((key for key, one in self.statuses.items() if one.status.terminal), None)
            if over is not None:
                del self.statuses[over]
        shown = self._shown(new)
        return shown if before is None or order_key(before) != order_key(shown) else None

    def _shown(self, status: OrderStatus) -> OrderStatus:
        """As users see it: with price and fee of the fills that are known, and without the shares of failed trades,
        which the venue goes on counting as matched.
        """
        if status.order_id not in self._of_order:
            return status
        failed = self.matched(status.order_id) - self.filled(status.order_id)
        if failed:
            status = msgspec.structs.replace(
                status,
                filled_amount=max(_ZERO, status.filled_amount - failed),
                status=OrderState.CANCELED if status.status is OrderState.FILLED else status.status,
                reason=f"{failed:f} shares were taken back: the trade failed on chain",
            )
        fills = self.fills_of(status.order_id)
        size = sum((fill.size for fill in fills), _ZERO)
        if not size or size < status.filled_amount:
            return status
        paid = sum((fill.size * fill.price for fill in fills), _ZERO)
        fee = sum((fill.fee for fill in fills), _ZERO)
        return msgspec.structs.replace(status, average_price=quotient(paid, size), fee=fee)

    def status(self, order_id: str) -> OrderStatus | None:
        """The last known state, with the fills that are known by now."""
        known = self.statuses.get(order_id)
        return None if known is None else self._shown(known)

    def all_statuses(self) -> Iterator[OrderStatus]:
        """Every order that is known, as `status` shows it."""
        return map(self._shown, tuple(self.statuses.values()))

    def open_ids(self) -> list[str]:
        """Orders that are not over as far as is known here."""
        return [status.order_id for status in self.statuses.values() if not status.status.terminal]

    # -- fills ----------------------------------------------------------------------------------------------------

    def on_leg(self, leg: OwnLeg, outcome: str, fee: Decimal, received_ns: int = 0) -> Fill | None:
        """An own part of a trade, of either path: the fill or its new state, the first time; else None.

        `outcome`: what its token is, where the venue does not say. `fee`: dollars.
        """
        key = (leg.trade_id, leg.order_id)
        last = self._state.get(key)
        if last is not None and (last.state is leg.state or last.state is not FillState.PENDING):
            self.late += last.state is not leg.state
            return None
        record = self._appeared(leg.order_id)
        if record is not None and last is None and self._beyond(record, leg):
            self._refuse(key, leg)
            return None
        order = record.intent.order if record is not None else None
        fill = Fill(
            fill_id=leg.trade_id,
            order_id=leg.order_id,
            client_order_id=record.intent.client_order_id if record is not None else None,
            market_id=order.market_id if order is not None else leg.market_id,  # what was signed for
            outcome=order.outcome if order is not None else leg.outcome or outcome,
            side=leg.side,
            price=leg.price,
            size=leg.size,
            fee=fee if leg.liquidity is Liquidity.TAKER else _ZERO,
            liquidity=leg.liquidity,
            state=leg.state,
            own=record is not None,
            venue_ms=leg.venue_ms,
            received_ns=received_ns,
        )
        self._state[key] = fill
        self.fills[(*key, str(leg.state))] = fill
        self._of_order.setdefault(leg.order_id, {})[leg.trade_id] = fill
        self._trim()
        return fill

    def _beyond(self, record: Record, leg: OwnLeg) -> bool:
        """Whether this would fill more than was signed for, which the exchange's contract cannot do."""
        others = self.fills_of(leg.order_id)
        shares = leg.size + sum((fill.size for fill in others), _ZERO)
        dollars = leg.size * leg.price + sum((fill.size * fill.price for fill in others), _ZERO)
        return not record.sent.plan.allows(shares, dollars)

    def _refuse(self, key: tuple[str, str], leg: OwnLeg) -> None:
        if key in self.impossible:
            return
        if len(self.impossible) < KEEP:
            self.impossible.add(key)
        _LOG.error(
            "polymarket: trade %s says that order %s filled %s at %s, more than the order is: not believed",
            *(leg.trade_id[:80], leg.order_id[:80], leg.size, leg.price),
        )

    def knows(self, trade: OwnTrade) -> bool:
        """Whether a part of that trade was taken in before, in whatever state."""
        ids = (trade.taker_order_id, *(maker.order_id for maker in trade.maker_orders))
        return any((trade.trade_id, order_id) in self._state for order_id in ids)

    def after_fill(self, fill: Fill) -> OrderStatus | None:
        """What a fill changes in its order: one that ended before all of its fills were known, or a fill that failed.

        The order's new state, None where it is not another one.
        """
        old = self.statuses.get(fill.order_id)
        if old is None:
            return None
        if fill.state is FillState.FAILED:
            return self._shown(old)
        if not old.status.terminal or self.matched(fill.order_id) <= old.filled_amount:
            return None
        return self._merge(msgspec.structs.replace(old, filled_amount=self.matched(fill.order_id)))

    def _trim(self) -> None:
        if len(self.fills) > 2 * KEEP:
            self.fills.popitem(last=False)
        while len(self._state) > KEEP:
            (_, order_id), _ = self._state.popitem(last=False)
            self._of_order.pop(order_id, None)

    def legs_of(self, order_id: str) -> Iterable[Fill]:
        """The fills of an order as they stand now, failed ones too."""
        return self._of_order.get(order_id, {}).values()

    def fills_of(self, order_id: str) -> list[Fill]:
        """The fills of an order that did not fail."""
        return [fill for fill in self.legs_of(order_id) if fill.state is not FillState.FAILED]

    def filled(self, order_id: str) -> Decimal:
        """Shares filled by the fills seen here, failed ones taken back."""
        return sum((fill.size for fill in self.fills_of(order_id)), _ZERO)

    def matched(self, order_id: str) -> Decimal:
        """Shares matched by the fills seen here, whatever became of them: what the venue's own count is made of."""
        return sum((fill.size for fill in self.legs_of(order_id)), _ZERO)

    def pending(self) -> list[Fill]:
        """Fills that are neither final nor failed yet."""
        return [fill for fill in self._state.values() if fill.state is FillState.PENDING]


def fill_key(fill: Fill) -> tuple[str, str, str]:
    """What makes a fill one event."""
    return (fill.fill_id, fill.order_id, str(fill.state))


def order_key(status: OrderStatus) -> tuple[str, str, Decimal]:
    """What makes a state of an order one event."""
    return (status.order_id, str(status.status), status.filled_amount)
