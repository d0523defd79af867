"""Own fills and orders as events: from the user socket, and over REST what it missed, each once.

After every (re)connect the fills since the last point that is known for certain and the open orders are read, several
times, since REST lags; once in a while they are read to see whether the socket still tells everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from pmkit.clock import Clock
from pmkit.errors import MarketNotFound, PmkitError, VenueUnavailable
from pmkit.exchanges.base import Callback
from pmkit.exchanges.kalshi.account import Account
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.journal import Journal, Record, fill_key, order_key
from pmkit.exchanges.kalshi.resolve import Resolver
from pmkit.exchanges.kalshi.types import RowError
from pmkit.exchanges.kalshi.user_messages import FillFrame, MarketPositionFrame, UserEvent, UserOrderFrame
from pmkit.exchanges.kalshi.user_ws import ACK_SECONDS, CHANNELS, UserSocket
from pmkit.exchanges.types import Fill, OrderStatus
from pmkit.streams import Policy, Subscription
from pmkit.venue_clock import VenueClock

OVERLAP_SECONDS: Final = 30.0
"""Wall seconds by which back-fills overlap: REST may show a fill that late."""
PASSES: Final = (0.0, 1.0, 4.0)
"""Wall seconds before each pass after a connect."""
SOON_PASSES: Final = (0.2, 1.0, 4.0)
"""The same after something was missed on a connection that goes on."""
LOOK_EVERY_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 2.0
_LOG = logging.getLogger("pmkit.kalshi")


class UserStream:
    """The account's events. `back_filled` counts fills that came over REST first, `failures` passes that failed."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        venue_clock: VenueClock,
        journal: Journal,
        account: Account,
        resolver: Resolver,
        catalogue: Catalogue,
        subaccount: int | None,
        compression: bool = False,
    ) -> None:
        self.back_filled = 0
        self.failures = 0
        self._clock = clock
        self._venue_clock = venue_clock
        self._journal = journal
        self._account = account
        self._resolver = resolver
        self._subaccount = subaccount
        self._fills: list[Subscription[Fill]] = []
        self._orders: list[Subscription[OrderStatus]] = []
        self._started_ms = 0
        self._since_ms = 0
        self._since_at = 0.0
        self._wake = asyncio.Event()
        self._passes: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.socket = UserSocket(
            url,
            clock,
            signer,
            venue_clock=venue_clock,
            on_event=self._on_event,
            on_live=self._on_live,
            on_missed=self._on_missed,
            measure=catalogue.measure,
            compression=compression,
        )

    async def start(self) -> None:
        """Begin to listen. A second call does nothing."""
        if self._task is None and not self._closed:
            self._started_ms = self._since_ms = self._venue_clock.now_ms()
            self._since_at = self._clock.monotonic()
            await self.socket.want(CHANNELS)
            await self.socket.start()
            self._task = asyncio.get_running_loop().create_task(self._fill_gaps(), name="pmkit kalshi back-fill")

    async def close(self) -> None:
        """End everything, within a second. May be called twice."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        ends = [*(one.close() for one in tuple(self._fills)), *(one.close() for one in tuple(self._orders))]
        await asyncio.gather(self.socket.close(), *ends, return_exceptions=True)

    # Who listens.

    def fills(self, callback: Callback[Fill] | None) -> Subscription[Fill]:
        """A new listener to fills, from now on."""
        self._check_closed()
        stream: Subscription[Fill] = Subscription(
            "kalshi fills",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=fill_key,
            refill=partial(self._refill_fills, self._venue_clock.now_ms()),
            on_close=partial(_drop, self._fills),
        )
        self._fills.append(stream)
        return stream

    def orders(self, callback: Callback[OrderStatus] | None) -> Subscription[OrderStatus]:
        """A new listener to orders, from now on."""
        self._check_closed()
        stream: Subscription[OrderStatus] = Subscription(
            "kalshi orders",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=order_key,
            refill=partial(self._refill_orders, self._venue_clock.now_ms()),
            on_close=partial(_drop, self._orders),
        )
        self._orders.append(stream)
        return stream

    def _check_closed(self) -> None:
        if self._closed:
            raise VenueUnavailable("this exchange is closed: make a new object")

    async def _refill_fills(self, since_ms: int) -> Iterable[Fill]:
        rows = await self._account.fills_since(since_ms)
        return [self._account.as_fill(row) for row in rows]

    async def _refill_orders(self, since_ms: int) -> Iterable[OrderStatus]:
        for status in await self._changed_orders():
            self.publish_order(status)
        return [one for one in self._journal.statuses.values() if max(one.updated_ms, one.created_ms) >= since_ms]

    # Events.

    def publish_order(self, status: OrderStatus) -> None:
        """Tell everyone how an order stands now."""
        for stream in tuple(self._orders):
            stream.publish(status)

    def expect(self, record: Record) -> None:
        """An order was accepted: the socket must speak of it soon."""
        self.socket.expect(lambda: record.seen)

    def _on_event(self, frame: UserEvent, received_ns: int) -> None:
        if isinstance(frame, FillFrame):
            if self._mine(frame.msg.subaccount):
                self._account.on_net(frame.msg)
                if self._journal.may_be_own(frame.msg):
                    self._on_missed("a fill without a client order id, while answers are missing")
                    return  # REST tells whose it is
                self._publish_fill(self._journal.on_fill(frame.msg, received_ns))
        elif isinstance(frame, UserOrderFrame):
            if self._mine(frame.msg.subaccount_number):
                status = self._journal.on_order(frame.msg, received_ns)
                if status is not None:
                    self.publish_order(status)
        elif isinstance(frame, MarketPositionFrame) and self._mine(frame.msg.subaccount):
            self._account.on_position(frame.msg.market_ticker, frame.msg.position_fp)

    def _mine(self, subaccount: int | None) -> bool:
        return self._subaccount is None or subaccount is None or subaccount == self._subaccount

    def _publish_fill(self, one: Fill | None) -> None:
        if one is not None:
            for stream in tuple(self._fills):
                stream.publish(one)

    # What the socket missed.

    def _on_live(self) -> None:
        self._passes = list(PASSES)
        self._wake.set()

    def _on_missed(self, reason: str) -> None:
        if len(self._passes) < 2:  # else they are read soon anyway: a storm of bad frames must not put it off for ever
            _LOG.warning("kalshi: %s: fills and orders are read over REST", reason)
            self._passes = list(SOON_PASSES)
            self._wake.set()

    async def _fill_gaps(self) -> None:
        while True:
            wait = self._passes[0] if self._passes else LOOK_EVERY_SECONDS
            self._wake.clear()
            if wait > 0:
                try:
                    async with self._clock.io_timeout(wait):
                        await self._wake.wait()
                    continue  # a new connection: its passes begin anew
                except TimeoutError:
                    pass
            # Also while there is no connection: REST may well be up, and tells the fills of resting orders.
            asked = bool(self._passes)
            if asked:
                self._passes.pop(0)
            try:
                found = await self.back_fill()
            except PmkitError as error:
                self.failures += 1
                _LOG.warning("kalshi: what the user stream missed could not be read (trying again): %s", error)
                self._passes.insert(0, RETRY_SECONDS)
            except Exception:
                self.failures += 1
                _LOG.exception("kalshi: the back-fill failed in an unforeseen way (trying again)")
                self._passes.insert(0, RETRY_SECONDS)
            else:
                if found and not asked and self.socket.live:
                    self.socket.deaf += 1
                    self.socket.drop(f"{found} fills were read over REST that the user stream did not tell")

    async def back_fill(self) -> int:
        """One pass. Returns how many fills were new that had happened well before it."""
        now_ms, now_s = self._venue_clock.now_ms(), self._clock.monotonic()
        # Whatever was done to the clocks since (or to the venue's, by one bad stamp), so much time has passed.
        since_ms = min(self._since_ms, now_ms - round((now_s - self._since_at) * 1000))
        overlap_ms = int(OVERLAP_SECONDS * 1000 * max(1.0, self._clock.factor))
        rows = await self._account.fills_since(max(self._started_ms - 1000, since_ms - overlap_ms))
        old_ms = now_ms - int(ACK_SECONDS * 1000 * max(1.0, self._clock.factor))
        found = 0
        for row in rows:
            try:
                one = self._journal.on_fill(row, self._clock.time_ns())
            except RowError as error:
                self.failures += 1
                _LOG.error("kalshi: a fill over REST cannot be read: %s", error)
                continue
            if one is None or (not one.own and one.venue_ms < self._started_ms):
                continue
            self.back_filled += 1
            found += one.venue_ms < old_ms
            self._publish_fill(one)
        for status in await self._changed_orders():
            # Orders from before this object are known from now on, and no news.
            if status.client_order_id in self._journal.records or status.updated_ms >= self._started_ms:
                self.publish_order(status)
        self._since_ms, self._since_at = now_ms, now_s
        return found

    async def _changed_orders(self) -> list[OrderStatus]:
        """Open orders of the account, and what became of those that were open here and are not any more."""
        open_before = self._journal.open_ids()
        rows = await self._account.order_rows(status="resting")
        resting = {row.order_id for row in rows}
        for order_id in open_before:
            if order_id not in resting:
                try:
                    rows.append(await self._resolver.row(order_id))
                except MarketNotFound:
                    _LOG.debug("kalshi: order %s is not known to REST now", order_id)
        changed: list[OrderStatus] = []
        for row in rows:
            try:
                status = self._journal.on_order(row)
            except RowError as error:
                self.failures += 1
                _LOG.error("kalshi: an order over REST cannot be read: %s", error)
                continue
            if status is not None:
                changed.append(status)
        return changed


def _drop(streams: list[Any], closed: Subscription[Any]) -> None:
    if closed in streams:
        streams.remove(closed)
