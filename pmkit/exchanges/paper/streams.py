"""Fills and orders of the dry-run as subscriptions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pmkit.clock import Clock
from pmkit.errors import VenueUnavailable
from pmkit.exchanges.base import Callback
from pmkit.exchanges.paper.matcher import Matcher
from pmkit.exchanges.paper.order import PaperOrder
from pmkit.exchanges.types import Fill, OrderStatus
from pmkit.streams import Policy, Subscription


class PaperStreams:
    """Who listens to the account's fills and orders. What overflows is refilled from the journal."""

    def __init__(self, venue: str, clock: Clock, matcher: Matcher) -> None:
        self._venue = venue
        self._clock = clock
        self._matcher = matcher
        self._fills: list[Subscription[Fill]] = []
        self._orders: list[Subscription[OrderStatus]] = []
        self._closed = False

    def _check_closed(self) -> None:
        if self._closed:
            raise VenueUnavailable("this exchange is closed: make a new object")

    def publish_fill(self, fill: Fill) -> None:
        """Tell everyone of a fill or a change of its state."""
        for stream in tuple(self._fills):
            stream.publish(fill)

    def publish_order(self, order: PaperOrder) -> None:
        """Tell everyone how an order stands now."""
        status = order.as_status(self._clock.time_ns())
        for stream in tuple(self._orders):
            stream.publish(status)

    def fills(self, callback: Callback[Fill] | None) -> Subscription[Fill]:
        """A new listener to fills."""
        self._check_closed()
        stream = Subscription(
            f"{self._venue} paper fills",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=lambda fill: (fill.fill_id, fill.order_id, fill.state),
            refill=self._all_fills,
            on_close=lambda closed: _drop(self._fills, closed),
        )
        self._fills.append(stream)
        return stream

    def orders(self, callback: Callback[OrderStatus] | None) -> Subscription[OrderStatus]:
        """A new listener to orders."""
        self._check_closed()
        stream = Subscription(
            f"{self._venue} paper orders",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=lambda status: (status.order_id, status.status, status.filled_amount),
            refill=self._all_orders,
            on_close=lambda closed: _drop(self._orders, closed),
        )
        self._orders.append(stream)
        return stream

    async def _all_fills(self) -> Iterable[Fill]:
        return tuple(self._matcher.fills)

    async def _all_orders(self) -> Iterable[OrderStatus]:
        now_ns = self._clock.time_ns()
        return [order.as_status(now_ns) for order in self._matcher.orders.values()]

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        for fills in tuple(self._fills):
            await fills.close()
        for orders in tuple(self._orders):
            await orders.close()


def _drop(streams: list[Any], closed: Subscription[Any]) -> None:
    if closed in streams:
        streams.remove(closed)
