"""Cancels, amends and decreases of resting orders, and order groups.

A cancel may be repeated, an amend may not. Each carries its market and shard, without which it would go to shard 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from pmkit.clock import Clock
from pmkit.errors import (
    CancelUnknown,
    InvalidOrder,
    NotSent,
    OrderUnknown,
    PmkitError,
    VenueUnavailable,
)
from pmkit.exchanges.base import order_ids_of
from pmkit.exchanges.kalshi.account import Account
from pmkit.exchanges.kalshi.budget import MAX_BATCH, TokenBudget
from pmkit.exchanges.kalshi.journal import Journal
from pmkit.exchanges.kalshi.order_entry import OrderEntry
from pmkit.exchanges.kalshi.order_replies import (
    Amended,
    ReplyError,
    amended,
    cancelled,
    cancelled_batch,
    decreased,
    group_created,
)
from pmkit.exchanges.kalshi.orders import (
    BATCH_PATH,
    GROUP_CREATE_PATH,
    ORDERS_PATH,
    CancelLeg,
    account_query,
    amend_order,
    cancel_batch,
    cancel_query,
    create_group,
    decrease_order,
    encode,
    group_path,
    order_path,
)
from pmkit.exchanges.kalshi.refusals import Proof, refusal
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import VENUE, KalshiMarket
from pmkit.exchanges.types import CancelResult, Intent, Order, OrderStatus
from pmkit.http import HttpAnswer, Unanswered
from pmkit.venue_clock import VenueClock

_GROUP_CLOSE_SECONDS: Final = 2.0
_LOG = logging.getLogger("pmkit.kalshi")


class Changes:
    """What is done to orders that stand."""

    def __init__(
        self,
        session: SignedSession,
        journal: Journal,
        account: Account,
        entry: OrderEntry,
        clock: Clock,
        venue_clock: VenueClock,
        subaccount: int | None,
    ) -> None:
        self._session = session
        self._budget: TokenBudget = session.budget
        self._journal = journal
        self._account = account
        self._entry = entry
        self._clock = clock
        self._venue_clock = venue_clock
        self._subaccount = subaccount

    # Cancels.

    async def cancel(self, order_id: str) -> CancelResult:
        """Cancel one order. Raises InvalidOrder, NotSent and CancelUnknown."""
        path = order_path(order_id)
        ticker, shard = await self._place_of(order_id)
        await self._budget.cancel(shard or 0)
        query = cancel_query(ticker, shard, self._subaccount)
        try:
            answer = await self._session.write("DELETE", path, params=query, wait=True)
        except Unanswered as error:
            raise CancelUnknown(order_id, str(error)) from error
        if answer.status == 429:
            self._budget.drained(read=False, shard=shard or 0)
        # Without the shard a 404 may come from another one.
        result = cancelled(answer.status, answer.body, order_id, routed=shard is not None)
        if isinstance(result, CancelResult):
            return result
        if answer.status in (400, 404, 409) and await self._is_over(order_id):
            return CancelResult.ALREADY_DONE  # e.g. the market has closed and took its orders with it
        raise CancelUnknown(order_id, result)

    async def _place_of(self, order_id: str) -> tuple[str, int | None]:
        try:
            return await self._account.place_of(order_id)
        except InvalidOrder:
            raise
        except PmkitError as error:
            raise CancelUnknown(order_id, f"its market and shard could not be read: {error}") from error

    async def _is_over(self, order_id: str) -> bool:
        try:
            return (await self._account.status(order_id)).status.terminal
        except PmkitError as error:
            _LOG.debug("kalshi: order %s after a refused cancel: %s", order_id, error)
            return False

    async def cancel_many(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        """Cancel several, in batches; a result or error per id."""
        results: dict[str, CancelResult | PmkitError] = {}
        legs: list[CancelLeg] = []
        for order_id in map(str, order_ids_of(order_ids)):  # an OrderId has more in it than JSON takes
            try:
                order_path(order_id)
                ticker, shard = await self._place_of(order_id)
            except PmkitError as error:
                results[order_id] = error
                continue
            legs.append(
                CancelLeg(order_id=order_id, market_ticker=ticker, exchange_index=shard, subaccount=self._subaccount)
            )
        if len(legs) == 1:
            results[legs[0].order_id] = await self._cancel_alone(legs[0].order_id)
            legs = []
        for start in range(0, len(legs), MAX_BATCH):
            results.update(await self._cancel_part(legs[start : start + MAX_BATCH]))
        return {order_id: results[order_id] for order_id in dict.fromkeys(order_ids)}

    async def _cancel_alone(self, order_id: str) -> CancelResult | PmkitError:
        try:
            return await self.cancel(order_id)
        except PmkitError as error:
            return error

    async def _cancel_part(self, legs: Sequence[CancelLeg]) -> dict[str, CancelResult | PmkitError]:
        ids = [leg.order_id for leg in legs]
        try:
            await self._budget.cancel(0, len(legs))
            answer = await self._session.write("DELETE", BATCH_PATH, body=encode(cancel_batch(legs)), wait=True)
        except NotSent as error:
            return dict.fromkeys(ids, error)
        except Unanswered as error:
            return {order_id: CancelUnknown(order_id, str(error)) for order_id in ids}
        if answer.status == 429:
            self._budget.drained(read=False)
        found = cancelled_batch(answer.status, answer.body, ids)
        results: dict[str, CancelResult | PmkitError] = {}
        for order_id, result in found.items():
            if isinstance(result, CancelResult):
                results[order_id] = result
            else:
                over = answer.status < 500 and await self._is_over(order_id)
                results[order_id] = CancelResult.ALREADY_DONE if over else CancelUnknown(order_id, result)
        return results

    async def cancel_everything(self) -> None:
        """Raises NotSent and CancelUnknown."""
        await self._budget.cancel(0)
        try:
            answer = await self._session.write("DELETE", ORDERS_PATH, params=account_query(self._subaccount), wait=True)
        except Unanswered as error:
            raise CancelUnknown("everything", str(error)) from error
        if not 200 <= answer.status < 300:
            raise CancelUnknown("everything", f"{answer.status}: {answer.excerpt}")

    # Amend and decrease.

    async def amend(
        self,
        market: KalshiMarket,
        status: OrderStatus,
        *,
        price: object,
        total: object,
        new_client_order_id: str | None = None,
        expires_at: datetime | UnsetType | None = UNSET,
    ) -> Amended:
        """Change price, total size (filled and wanted rest) or expiry. Raises InvalidOrder, NotSent, OrderRejected, and
        OrderUnknown with an intent of that order."""
        body = amend_order(
            market,
            status.outcome,
            status.side,
            price=price,
            total=total,
            client_order_id=status.client_order_id,
            new_client_order_id=new_client_order_id,
            expires_at=expires_at,
            now_ms=self._venue_clock.now_ms(),
        )
        wanted = msgspec.structs.replace(status, price=Decimal(str(price)), size=Decimal(str(total)))
        path = order_path(status.order_id, "amend")
        self._journal.amended.add(status.order_id)
        answer = await self._change(path, encode(body), wanted, market.exchange_index)
        try:
            return amended(answer.body, status.outcome)
        except ReplyError as error:
            raise OrderUnknown(_intent(wanted), str(error)) from error

    async def decrease(
        self, market: KalshiMarket, status: OrderStatus, *, by: object | None, to: object | None
    ) -> Decimal:
        """Contracts that still rest afterwards. Raises as `amend`."""
        body = encode(decrease_order(market, by=by, to=to))
        path = order_path(status.order_id, "decrease")
        answer = await self._change(path, body, status, market.exchange_index)
        try:
            return decreased(answer.body, status.order_id)
        except ReplyError as error:
            raise OrderUnknown(_intent(status), str(error)) from error

    async def _change(self, path: str, body: bytes, wanted: OrderStatus, shard: int) -> HttpAnswer:
        self._budget.order(shard)
        params = account_query(self._subaccount)
        sending = asyncio.get_running_loop().create_task(
            self._session.write("POST", path, params=params, body=body), name="pmkit kalshi amend"
        )
        sending.add_done_callback(_heard)
        try:
            answer = await asyncio.shield(sending)
        except Unanswered as error:
            raise OrderUnknown(_intent(wanted), str(error)) from error
        if 200 <= answer.status < 300:
            return answer
        verdict = refusal(answer.status, answer.body)
        if verdict.error is not None and verdict.proof in (Proof.REFUSED, Proof.STALE_STAMP):
            raise verdict.error
        raise OrderUnknown(_intent(wanted), verdict.reason)

    # Order groups.

    @asynccontextmanager
    async def group(self, limit: object, shard: int) -> AsyncIterator[str]:
        """See `KalshiExchange.dead_man`."""
        if shard in self._entry.groups:
            raise InvalidOrder(f"shard {shard} has an order group already: one at a time")
        self._budget.order(shard)
        body = encode(create_group(limit, shard, self._subaccount))
        answer = await self._session.write("POST", GROUP_CREATE_PATH, body=body)
        if not 200 <= answer.status < 300:
            verdict = refusal(answer.status, answer.body)
            raise verdict.error or VenueUnavailable(f"no order group was made: {verdict.reason}", answer.status)
        try:
            group_id = group_created(answer.body)
        except ReplyError as error:
            raise VenueUnavailable(f"no order group was made: {error}") from error
        self._entry.groups[shard] = group_id
        try:
            yield group_id
        finally:
            self._entry.groups.pop(shard, None)
            await self._end_group(group_id, shard)

    async def _end_group(self, group_id: str, shard: int) -> None:
        """Deleting a group cancels all of its orders. Raises CancelUnknown where that is not certain."""
        params = account_query(self._subaccount, shard)
        try:
            async with self._clock.io_timeout(_GROUP_CLOSE_SECONDS):
                await self._budget.cancel(shard)
                answer = await self._session.write("DELETE", group_path(group_id), params=params, wait=True)
        except (PmkitError, TimeoutError) as error:
            raise CancelUnknown(f"the orders of group {group_id}", str(error) or "no answer in time") from error
        if not 200 <= answer.status < 300 and answer.status != 404:
            raise CancelUnknown(f"the orders of group {group_id}", f"{answer.status}: {answer.excerpt}")


def _heard(task: asyncio.Task[HttpAnswer]) -> None:
    # A caller that went away does not hear it; the order's state comes over the user stream.
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.warning("kalshi: an amend: %s", error)


def _intent(status: OrderStatus) -> Intent:
    """An order that stands and may have been changed: it is looked up by its id."""
    order = Order(
        market_id=status.market_id,
        outcome=status.outcome,
        side=status.side,
        price=status.price,
        size=status.size,
        time_in_force=status.time_in_force,
        expires_at=status.expires_at,
        client_order_id=status.client_order_id,
    )
    return Intent(
        venue=VENUE,
        client_order_id=status.client_order_id or status.order_id,
        order=order,
        created_ms=status.created_ms,
        order_id=status.order_id,
    )
