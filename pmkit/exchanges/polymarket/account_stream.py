"""Fills and orders of the account as streams: the user channel, and REST for what it missed.

REST is read after every connection, after an overflow, when an answer or a fill waits too long for its event, after an
event that does not read, and while orders are open or fills pending: a socket that falls silent looks like a quiet
account. Each fill comes once per state and each state of an order once, whatever path it took.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from decimal import Decimal
from typing import Any, Final

from pmkit.clock import Clock
from pmkit.errors import PmkitError, VenueUnavailable
from pmkit.exchanges.base import Callback
from pmkit.exchanges.market import FeeRule
from pmkit.exchanges.polymarket.catalogue import Catalogue
from pmkit.exchanges.polymarket.credentials import Login
from pmkit.exchanges.polymarket.journal import Journal, Record, fill_key, order_key
from pmkit.exchanges.polymarket.order_queries import OrderQueries
from pmkit.exchanges.polymarket.owed import SILENT_SECONDS, Owed
from pmkit.exchanges.polymarket.types import VENUE, PolymarketMarket
from pmkit.exchanges.polymarket.user_messages import OwnOrder, OwnTrade
from pmkit.exchanges.polymarket.user_ws import UserSocket
from pmkit.exchanges.types import Fill, OrderId, OrderStatus
from pmkit.streams import Policy, Subscription

CONNECT_SECONDS: Final = 10.0
"""Wall seconds for the first connection of a subscription."""

OVERLAP_MS: Final = 60_000
"""REST is read from so far before the last point that is known to be complete (market time)."""

CHECK_SECONDS: Final = 20.0
CHECK_WALL_SECONDS: Final = 2.0
"""While orders are open, fills pending or the socket owes an event: market seconds between two reads, and the least
wall ones."""

RETRY_SECONDS: Final = 1.0
ODD_ROWS: Final = 1_000
CRYPTO_FEES: Final = FeeRule(taker=Decimal("0.07"), quantum=Decimal("0.00001"))
"""For a market that cannot be read: the rate of all crypto markets (docs.polymarket.com/trading/fees)."""

_LOG = logging.getLogger("pmkit.polymarket")
Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]


class AccountStream:
    """`back_fills` counts reads over REST, `silences` the times when REST knew what the socket should have said.
    `odd_rows`: what was wrong with trades that did not read.
    """

    def __init__(
        self,
        url: str,
        login: Login,
        queries: OrderQueries,
        journal: Journal,
        catalogue: Catalogue,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        self.back_fills = 0
        self.silences = 0
        self.odd_rows: set[str] = set()
        self.socket: UserSocket | None = None
        self._url = url
        self._login = login
        self._queries = queries
        self._journal = journal
        self._catalogue = catalogue
        self._clock = clock
        self._spawn = spawn
        self._fills: list[Subscription[Fill]] = []
        self._orders: list[Subscription[OrderStatus]] = []
        self._made_at = clock.io_monotonic()
        self._began_ms = self._complete_ms = catalogue.now_ms()
        self._complete_at = clock.monotonic()
        self._listens_ms = 0
        self._parked: dict[str, list[tuple[OwnOrder | OwnTrade, int]]] = {}
        self._dirty = asyncio.Event()
        self._owed = Owed(clock, journal, self._dirty.set)
        self._starting = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._keeper: asyncio.Task[Any] | None = None
        self._unread: set[str] = set()
        self._reconnected = False

    # -- subscriptions --------------------------------------------------------------------------------------------

    async def fills(self, callback: Callback[Fill] | None) -> Subscription[Fill]:
        """Own fills from now on. Returns once the socket is up and REST was read. Raises what these do."""
        stream: Subscription[Fill] = Subscription(
            f"{VENUE} fills",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=fill_key,
            refill=self._refill_fills,
            on_close=lambda closed: _drop(self._fills, closed),
        )
        self._fills.append(stream)
        await self._begun(stream)
        return stream

    async def orders(self, callback: Callback[OrderStatus] | None) -> Subscription[OrderStatus]:
        """Every change of an own order from now on. Returns and raises as `fills`."""
        stream: Subscription[OrderStatus] = Subscription(
            f"{VENUE} orders",
            self._clock,
            callback=callback,
            policy=Policy.NEVER_DROP,
            key=order_key,
            refill=self._refill_orders,
            on_close=lambda closed: _drop(self._orders, closed),
        )
        self._orders.append(stream)
        await self._begun(stream)
        return stream

    async def _begun(self, stream: Subscription[Any]) -> None:
        try:
            await self.start()
        except BaseException:
            await stream.close()
            raise

    async def _refill_fills(self) -> Iterable[Fill]:
        await self.back_fill()
        return tuple(self._journal.fills.values())

    async def _refill_orders(self) -> Iterable[OrderStatus]:
        await self.back_fill()
        return tuple(self._journal.all_statuses())

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, log in and read REST once. A second call does nothing.

        A silent socket looks like a quiet account: that REST can be read with the same credentials is the evidence at
        the start, afterwards every own order is.
        """
        async with self._starting:
            if self.socket is not None:
                return
            await self._login.ready()
            # The venue's clock is measured by now. What matched before this object was made is history.
            age_ms = (self._clock.io_monotonic() - self._made_at) * self._clock.factor * 1000
            self._began_ms = self._complete_ms = self._catalogue.now_ms() - round(age_ms)
            socket = UserSocket(
                self._url,
                self._clock,
                login=self._login_frame,
                on_event=self.on_event,
                on_missed=self._owed.unread,
                on_gap=self._gap,
            )
            try:
                await socket.start()
                await socket.wait_connected(CONNECT_SECONDS)
                self.socket = socket
                self._listens_ms = self._catalogue.now_ms() + 1_000  # matches are dated in whole seconds
                await self.back_fill()
            except BaseException:
                self.socket = None
                await socket.close()
                raise
            self._keeper = self._spawn(self._keep(socket), "account stream")

    def _login_frame(self) -> str:
        identity = self._login.identity
        if identity is None:
            raise VenueUnavailable("not logged in to Polymarket")
        return identity.credentials.user_login()

    async def close(self) -> None:
        """End the socket and all subscriptions, within a second. May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        socket = self.socket
        if socket is not None:
            await socket.close()
        for fills in tuple(self._fills):
            await fills.close()
        for orders in tuple(self._orders):
            await orders.close()

    def look(self) -> None:
        """Read REST soon: an order turned out to be over."""
        if self.socket is not None:
            self._dirty.set()

    def _gap(self, reason: str, since_ns: int) -> None:
        self._reconnected = True
        self._listens_ms = self._catalogue.now_ms() + 1_000
        self._owed.reconnected()
        self._dirty.set()

    async def _keep(self, socket: UserSocket) -> None:
        """The one task that reads REST: after a reconnect at once, else while something is owed or may come."""
        clock = self._clock
        every = max(CHECK_SECONDS / clock.factor, CHECK_WALL_SECONDS)
        while True:
            soon = self._owed.anything() or self._journal.pending() or self._unread
            try:
                async with clock.io_timeout(min(every, SILENT_SECONDS) if soon else every):
                    await self._dirty.wait()
            except TimeoutError:
                if not soon and not self._journal.open_ids():
                    continue
            self._dirty.clear()
            reconnected, self._reconnected = self._reconnected, False
            generation = socket.generation
            try:
                late, untold = self._owed.overdue()
                fresh = await self.back_fill()
            except Exception as error:
                if isinstance(error, PmkitError):
                    _LOG.warning("polymarket: fills and orders could not be read over REST, again soon: %s", error)
                else:
                    _LOG.exception("polymarket: reading fills and orders failed in an unexpected way, again soon")
                self._dirty.set()
                self._reconnected = self._reconnected or reconnected
                await clock.io_sleep(RETRY_SECONDS)
                continue
            silent = (late and fresh) or untold
            if not reconnected and silent and socket.connected and socket.generation == generation:
                self.silences += 1
                socket.drop(f"silent: REST knew {fresh + len(untold)} things that it did not tell")

    # -- what comes in --------------------------------------------------------------------------------------------

    def accepted(self, record: Record, order_id: OrderId) -> None:
        """The venue's answer to an order."""
        status = self._journal.accept(record, order_id, self._catalogue.now_ms())
        if status is not None:
            self._changed(status)
        if self.socket is not None and not record.seen:
            self._owed.order(record.order_id)

    def on_event(self, event: OwnOrder | OwnTrade, received_ns: int) -> None:
        """One event of the socket."""
        self._owed.heard(event)
        self.take(event, received_ns)

    def take(self, event: OwnOrder | OwnTrade, received_ns: int = 0) -> int:
        """A row of REST or an event: how much of it was new. What is of a market that is not known waits for it."""
        market = self._catalogue.known(event.market_id)
        if market is None and self._record_market(event) is None and event.market_id not in self._unread:
            parked = self._parked.setdefault(event.market_id, [])
            parked.append((event, received_ns))
            if len(parked) == 1:
                self._spawn(self._learn(event.market_id), f"market {event.market_id}")
            return 1
        return self._apply(event, market or self._record_market(event), received_ns)

    def _record_market(self, event: OwnOrder | OwnTrade) -> PolymarketMarket | None:
        ids = [event.order_id] if isinstance(event, OwnOrder) else [event.taker_order_id]
        if isinstance(event, OwnTrade):
            ids += [maker.order_id for maker in event.maker_orders]
        return next((self._journal.records[one].market for one in ids if one in self._journal.records), None)

    async def know(self, market_id: str) -> None:
        """Read a market that is not known yet, so that what is taken of it is not parked."""
        if self._catalogue.known(market_id) is None and market_id not in self._unread:
            await self._learn(market_id)

    async def _learn(self, market_id: str) -> None:
        market: PolymarketMarket | None = None
        try:
            market = await self._catalogue.condition(market_id)
        except Exception as error:  # whatever it is: what waits for this market must not be lost
            self._unread.add(market_id)
            _LOG.warning(
                "polymarket: market %s of an own order cannot be read, fees of crypto markets are taken: %s",
                market_id,
                error,
                exc_info=None if isinstance(error, PmkitError) else error,
            )
        for event, received_ns in self._parked.pop(market_id, []):
            self._apply(event, market, received_ns)

    def _apply(self, event: OwnOrder | OwnTrade, market: PolymarketMarket | None, received_ns: int) -> int:
        if isinstance(event, OwnOrder):
            status = self._journal.on_order(event, _outcome(market, event.token_id), received_ns)
            if status is not None:
                self._changed(status)
            return status is not None
        return self._trade(event, market, received_ns)

    def _trade(self, trade: OwnTrade, market: PolymarketMarket | None, received_ns: int) -> int:
        identity = self._login.identity
        if identity is None:
            return 0
        rule = market.fees if market is not None else CRYPTO_FEES
        fresh = 0
        own = self._journal.records
        for leg in trade.legs(identity.credentials.api_key, identity.maker, own.keys()):
            fill = self._journal.on_leg(leg, _outcome(market, leg.token_id), rule.fee(leg.price, leg.size), received_ns)
            if fill is None and received_ns and (leg.trade_id, leg.order_id) in self._journal.impossible:
                self._owed.unread()
            if fill is None or (not fill.own and trade.matched_ms + 1_000 <= self._began_ms and not received_ns):
                continue  # known, or of a time before this process
            fresh += 1
            for stream in tuple(self._fills):
                stream.publish(fill)
            status = self._journal.after_fill(fill)
            if status is not None:
                self.publish_order(status)
        return fresh

    def _changed(self, status: OrderStatus) -> None:
        if self.socket is not None:
            self._owed.changed(status)
        self.publish_order(status)

    def publish_order(self, status: OrderStatus) -> None:
        """Tell everyone how an order stands now."""
        for stream in tuple(self._orders):
            stream.publish(status)

    # -- REST -----------------------------------------------------------------------------------------------------

    async def back_fill(self) -> int:
        """Read trades and orders since the last complete point; how much was new. Raises what the queries raise."""
        async with self._reading:
            self.back_fills += 1
            now_ms = self._catalogue.now_ms()
            pending = [fill.venue_ms for fill in self._journal.pending() if fill.venue_ms]
            # Whatever was done to the clocks since (or to the venue's, by one bad stamp), so much time has passed.
            now_s = self._clock.monotonic()
            passed_ms = round((now_s - self._complete_at) * 1000)
            since_ms = min([self._complete_ms, now_ms - passed_ms, *pending]) - OVERLAP_MS
            fresh = 0
            before = set(self._journal.open_ids())
            rows = await self._queries.open_orders()
            odd: list[str] = []  # one row that does not read must not hide the fills of all others
            trades = await self._queries.trades(after_s=since_ms // 1000, odd=odd)
            for problem in set(odd) - self.odd_rows:
                _LOG.error("polymarket: %s (the other trades are told)", problem)
            self.odd_rows.update(odd[: ODD_ROWS - len(self.odd_rows)])
            told: list[OwnOrder | OwnTrade] = [*trades, *rows]
            for market_id in dict.fromkeys(event.market_id for event in told):
                await self.know(market_id)
            for trade in trades:
                known = self._journal.knows(trade)
                new = self.take(trade)
                fresh += new
                # Of an own order only: what other API keys of the wallet do, the socket need not tell.
                own = self._record_market(trade) is not None
                if new and own and not known and trade.matched_ms > self._listens_ms:
                    self._owed.trade(trade.trade_id)
            for row in rows:
                fresh += self.take(row)
            # Those that were open and are not listed any more. One that was accepted meanwhile is in neither.
            for order_id in before - {row.order_id for row in rows}:
                status = self._journal.statuses.get(order_id)
                if status is None or status.status.terminal:
                    continue
                found = await self._queries.order(order_id)
                if found is not None:
                    await self.know(found.market_id)
                    fresh += self.take(found)
            self._complete_ms, self._complete_at = now_ms, now_s
            return fresh


def _outcome(market: PolymarketMarket | None, token_id: str) -> str:
    if market is None or token_id not in market.token_ids:
        return ""
    return market.outcomes[market.token_ids.index(token_id)]


def _drop(streams: list[Any], closed: Subscription[Any]) -> None:
    if closed in streams:
        streams.remove(closed)
