"""`KalshiExchange`: one Kalshi account. All of `BaseExchange`, and what only Kalshi has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from pmkit.errors import InvalidOrder, NotSent, OrderRejected, PmkitError
from pmkit.exchanges.base import Amount, LegResult, not_placed
from pmkit.exchanges.kalshi.order_entry import Choices
from pmkit.exchanges.kalshi.order_replies import Amended
from pmkit.exchanges.kalshi.orders import taking_order
from pmkit.exchanges.kalshi.portfolio import KalshiPortfolio
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.market import Market, order_words
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.types import CancelResult, Order, OrderId, OrderStatus, Side, TimeInForce

CRYPTO_SHARD: Final = 2
"""Where crypto trades since 2026-08-24."""
GROUP_LIMIT: Final = 1000
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiExchange(KalshiPortfolio):
    """A Kalshi account on the public side of `data` (made, with the same key, when None; closed with this object).

    Before the first order the key is proven by a signed query, which also gives the account's rate limits, and the
    venue has acknowledged the user stream; after that the order path asks nothing. `journal` holds what this process
    knows of its orders and fills, `stream` the counters of the user stream.

    `self_trade`: what happens when an order meets an own one. `subaccount`: 1-63, None for the key's own default.
    `resolve_seconds`: wall seconds since it was sent after which an order that is nowhere to be found is absent.
    """

    # Placing.

    async def _before_order(self) -> None:
        if self._ready:
            return
        try:
            await self.ready()
        except PmkitError as error:
            raise NotSent(f"nothing was sent, since this account cannot trade safely yet: {error}") from error

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
        reduce_only: bool = False,
        cancel_on_pause: bool = False,
    ) -> OrderId:
        """See `BaseExchange`. `reduce_only`: never more than the position, IOC only. `cancel_on_pause`: gone when
        trading in the market is paused."""
        side, time_in_force = order_words(side, time_in_force)
        own = self._newest(market)
        order = Order(
            market_id=own.market_id,
            outcome=outcome,
            side=side,
            price=to_decimal(price, "price"),
            size=to_decimal(size, "size"),
            time_in_force=time_in_force,
            expires_at=expires_at,
            post_only=post_only,
            client_order_id=client_order_id,
        )
        return await self._place(own, order, reduce_only=reduce_only, cancel_on_pause=cancel_on_pause)

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
        reduce_only: bool = False,
    ) -> OrderId:
        """See `BaseExchange`: Kalshi has no market orders, so this is an IOC bounded by `worst_price`."""
        side, _ = order_words(side, TimeInForce.IOC)
        own = self._newest(market)
        order = taking_order(own, outcome, side, worst_price=worst_price, size=size, amount=amount)
        if client_order_id is not None:
            order = msgspec.structs.replace(order, client_order_id=client_order_id)
        return await self._place(own, order, reduce_only=reduce_only, cancel_on_pause=False)

    async def _place(self, own: KalshiMarket, order: Order, *, reduce_only: bool, cancel_on_pause: bool) -> OrderId:
        choices = self._choices
        if reduce_only or cancel_on_pause:
            choices = Choices(
                self_trade=choices.self_trade,
                subaccount=choices.subaccount,
                reduce_only=reduce_only,
                cancel_on_pause=cancel_on_pause,
            )
        self._entry.body(own, order, choices)  # what is wrong is said before anything connects
        await self._before_order()
        return await self._entry.place(own, order, choices)

    async def _market_of(self, market_id: str) -> KalshiMarket:
        known = self.data.catalogue.markets.get(market_id)
        if known is not None:
            return known
        await self.data.catalogue.now_ms()
        return await self.data.catalogue.market(market_id)  # what is archived takes no orders

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        """See `BaseExchange`. Goes out in batches, as large as the write budget takes at once."""
        results: list[LegResult | None] = [None] * len(orders)
        legs: list[tuple[int, KalshiMarket, Order]] = []
        for index, order in enumerate(orders):
            try:
                market = await self._market_of(order.market_id)
            except PmkitError as error:
                results[index] = not_placed(order.market_id, error)
                continue
            try:
                order = _exact(order)
                self._entry.body(market, order, self._choices)
                legs.append((index, market, order))
            except PmkitError as error:
                results[index] = error
        if legs:
            try:
                await self._before_order()
                if len(legs) == 1:
                    placed: list[LegResult] = [await self._alone(legs[0][1], legs[0][2])]
                else:
                    placed = await self._entry.place_batch([leg[1:] for leg in legs], self._choices)
            except NotSent as error:
                placed = [error] * len(legs)
            for (index, _, _), result in zip(legs, placed, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    async def _alone(self, market: KalshiMarket, order: Order) -> LegResult:
        try:
            return await self._entry.place(market, order, self._choices)
        except PmkitError as error:
            return error

    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        """See `BaseExchange`. A leg that only makes its order smaller amends it, which keeps its place in the queue and
        its order id; every other one is cancelled and placed anew."""
        if len(cancels) != len(places):
            raise InvalidOrder(f"{len(cancels)} orders to cancel and {len(places)} to place: each leg replaces one")
        results: list[LegResult | None] = [None] * len(places)
        rest: list[int] = []
        for index, (order_id, order) in enumerate(zip(cancels, places, strict=True)):
            results[index] = await self._shrink(order_id, order)
            if results[index] is None:
                rest.append(index)
        cancelled = await self._changes.cancel_many([cancels[index] for index in rest]) if rest else {}
        legs: list[int] = []
        for index in rest:
            result = cancelled[cancels[index]]
            if isinstance(result, PmkitError):
                results[index] = result
            elif result:
                legs.append(index)
            else:
                results[index] = InvalidOrder(f"{cancels[index]} was not cancelled ({result}): it is not replaced")
        placed = await self.place_orders([places[index] for index in legs]) if legs else []
        for index, leg in zip(legs, placed, strict=True):
            results[index] = leg
        return [result for result in results if result is not None]

    async def _shrink(self, order_id: str, order: Order) -> LegResult | None:
        """Make a resting order smaller where that is all that is asked; None where it is not, or was refused."""
        known = self.journal.statuses.get(order_id)
        market = self.data.catalogue.markets.get(order.market_id)
        if known is None or market is None or known.status.terminal or order.post_only:
            return None
        try:
            order = _exact(order)
        except InvalidOrder as error:
            return error
        same = (known.market_id, known.outcome, known.side, known.price, known.time_in_force, known.expires_at)
        asked = (order.market_id, order.outcome, order.side, order.price, order.time_in_force, order.expires_at)
        if same != asked or not 0 < order.size < known.remaining:
            return None
        total = known.filled_amount + order.size
        try:
            done = await self._changes.amend(
                market, known, price=order.price, total=total, new_client_order_id=order.client_order_id
            )
        except OrderRejected as error:
            _LOG.debug("kalshi: order %s could not be made smaller: %s", order_id, error)
            return None
        except PmkitError as error:
            return error
        return OrderId(done.order_id, known.status, known.filled_amount + done.filled, known.average_price, known.fee)

    async def amend_order(
        self, order_id: str, *, price: Amount, size: Amount, expires_at: datetime | UnsetType | None = UNSET
    ) -> Amended:
        """Change a resting order: `price` in dollars of its outcome, `size` the total, filled contracts included.

        Keeps its place in the queue only for a smaller size or another expiry. `expires_at` None takes the expiry away.
        Raises InvalidOrder, NotSent, OrderRejected, and OrderUnknown, after which `resolve_order` reads its state.
        """
        market, status = await self._standing(order_id)
        wanted = to_decimal(price, "price"), to_decimal(size, "size")
        return await self._changes.amend(market, status, price=wanted[0], total=wanted[1], expires_at=expires_at)

    async def decrease_order(self, order_id: str, *, by: Amount | None = None, to: Amount | None = None) -> Decimal:
        """Make a resting order smaller, by or to so many contracts; it keeps its place in the queue. Returns what still
        rests. Raises as `amend_order`."""
        market, status = await self._standing(order_id)
        return await self._changes.decrease(market, status, by=by, to=to)

    async def _standing(self, order_id: str) -> tuple[KalshiMarket, OrderStatus]:
        """The market and state of an order: known here, else read."""
        status = self.journal.statuses.get(order_id)
        if status is None:
            status = await self._account.status(order_id)
        return await self._market_of(status.market_id), status

    # Cancelling.

    async def cancel_order(self, order_id: str) -> CancelResult:
        """See `BaseExchange`. An order that ended with its market is ALREADY_DONE."""
        return await self._changes.cancel(order_id)

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        return await self._changes.cancel_many(order_ids)

    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        own = self._newest(market)  # never without a market: that would be every order of the account
        return await self._changes.cancel_many([one.order_id for one in await self.get_open_orders(own)])

    async def cancel_everything(self) -> None:
        """The kill switch: cancels **every** order of the account in all markets, also those of other programs. Orders
        placed within the next minute may go too. Nothing in pmkit calls it.

        Raises CancelUnknown; it may be repeated.
        """
        await self._changes.cancel_everything()

    def dead_man(
        self, *, limit: Amount = GROUP_LIMIT, exchange_index: int = CRYPTO_SHARD
    ) -> AbstractAsyncContextManager[str]:
        """An order group for all orders placed on that shard inside the block; gives its id.

        A fuse, not a heartbeat: Kalshi cancels the group's orders when more than `limit` contracts fill within 15 s,
        and takes no new ones then; and leaving the block, however it is left, deletes the group and thereby cancels
        them. A process that is killed leaves its orders resting: Kalshi has nothing against that but an expiry (GTD).

        Leaving raises CancelUnknown where it is not certain that they are gone.
        """
        return self._changes.group(limit, exchange_index)


def _exact(order: Order) -> Order:
    """A leg as one that `place_limit_order` would make of it. Raises InvalidOrder."""
    side, time_in_force = order_words(order.side, order.time_in_force)
    price, size = to_decimal(order.price, "price"), to_decimal(order.size, "size")
    return msgspec.structs.replace(order, side=side, time_in_force=time_in_force, price=price, size=size)
