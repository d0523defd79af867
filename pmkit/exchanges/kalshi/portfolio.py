"""The asking side of a Kalshi account: its parts and their life, look-ups, money, history, streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

from pmkit.clock import Clock, to_ms
from pmkit.endpoints import Endpoints, require_safe
from pmkit.errors import InvalidOrder, MarketNotFound
from pmkit.exchanges.base import Callback, PublicSide
from pmkit.exchanges.kalshi.account import Account
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.budget import TokenBudget
from pmkit.exchanges.kalshi.changes import Changes
from pmkit.exchanges.kalshi.history import History
from pmkit.exchanges.kalshi.journal import Journal
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.order_entry import Choices, OrderEntry
from pmkit.exchanges.kalshi.orders import SelfTrade, account_query
from pmkit.exchanges.kalshi.resolve import RESOLVE_SECONDS, Resolver
from pmkit.exchanges.kalshi.rest_messages import Schedule, StatusAnswer
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.kalshi.user_messages import SettlementRow
from pmkit.exchanges.kalshi.user_stream import UserStream
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Absent, Accepted, Budget, Fill, Intent, OrderStatus, Position, Trade
from pmkit.streams import Subscription
from pmkit.websocket.deadlines import FIRST_SNAPSHOT

SKEW_WARNING_MS: Final = 500
T = TypeVar("T")
_LOG = logging.getLogger("pmkit.kalshi")


class KalshiPortfolio(PublicSide):
    """What can be asked and listened to; `KalshiExchange` adds orders."""

    data: KalshiMarketData

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        *,
        signer: Signer,
        data: KalshiMarketData | None = None,
        self_trade: SelfTrade = SelfTrade.TAKER_AT_CROSS,
        subaccount: int | None = None,
        resolve_seconds: float = RESOLVE_SECONDS,
        compression: bool = False,
    ) -> None:
        """`compression`: the sockets offer permessage-deflate. Raises ConfigError for an address to which credentials
        must not be sent."""
        for url in (endpoints.kalshi.rest, endpoints.kalshi.ws):
            require_safe(url, "Kalshi")
        handshake = signer.handshake()
        super().__init__(data or KalshiMarketData(endpoints, clock, signer=handshake, compression=compression))
        self.clock = clock
        public: KalshiMarketData = self.data
        query = account_query(subaccount)
        self.journal = Journal()
        self._choices = Choices(self_trade=self_trade, subaccount=subaccount)
        self._budget = TokenBudget(clock, public.session.host)
        self._session = SignedSession(endpoints.kalshi.rest, clock, signer, self.venue_clock, self._budget)
        self._resolver = Resolver(
            self._session, self.journal, clock, account=query, seconds=resolve_seconds, changed=self._on_changed
        )
        self._account = Account(
            self._session, self.journal, self._resolver, public.catalogue, clock, self.venue_clock, query=query
        )
        self._history = History(self._session, self._account, public.catalogue, self.venue_clock, query=query)
        self.stream = UserStream(
            endpoints.kalshi.ws,
            clock,
            handshake,
            self.venue_clock,
            self.journal,
            self._account,
            self._resolver,
            public.catalogue,
            subaccount,
            compression,
        )
        self._entry = OrderEntry(
            self._session,
            self.journal,
            self._resolver,
            clock,
            self.venue_clock,
            changed=self._on_changed,
            expect=self.stream.expect,
        )
        self._changes = Changes(
            self._session, self.journal, self._account, self._entry, clock, self.venue_clock, subaccount
        )
        self._ready = False
        self._readying = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    def _on_changed(self, status: OrderStatus) -> None:
        self.stream.publish_order(status)

    async def close(self) -> None:
        """End all sockets, tasks and connections, within a second; an order under way gets 0.4 s of it."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="pmkit kalshi close exchange")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(self._entry.close(), self.stream.close(), self.data.close(), return_exceptions=True)
        await self._session.close()

    # Before the first order.

    async def ready(self) -> None:
        """Prove the key, read the rate limits, and have the user stream acknowledged. Once; later calls cost nothing.

        Raises AuthError, ClockSkewError, VenueUnavailable, ... as the first query and the stream do.
        """
        if not self._ready:
            async with self._readying:
                await self._make_ready()

    async def _make_ready(self) -> None:
        if not self._ready:
            await self._account.limits(self._budget)
            if abs(self.venue_clock.offset_ms) > SKEW_WARNING_MS:
                _LOG.warning("kalshi: this machine's clock is off by %.1f s", self._session.skew_ms / 1000)
            await self.stream.start()
            await self.stream.socket.wait_live(FIRST_SNAPSHOT)
            self._ready = True

    async def keep_warm(self) -> None:
        """`ready`, and a connection that the next order will find open."""
        await self.ready()
        await self._session.writes.get("/exchange/status")

    def _newest(self, market: Market) -> KalshiMarket:
        """The newest state of a market: its grid or close may have changed. Raises InvalidOrder for a foreign one."""
        return self.data.current(market)

    # Looking up.

    @property
    def unresolved(self) -> Sequence[Intent]:
        return self.journal.unresolved

    async def resolve_order(self, intent: Intent) -> Accepted | Absent:
        """See `BaseExchange`. Waits for an order that is still being sent; Absent takes `resolve_seconds` since it was
        sent. An order that appears even later is known as own, and is listed in `unresolved` again."""
        return await self._resolver.resolve(intent)

    async def get_order_status(self, order_id: str) -> OrderStatus:
        """One own order, archived ones too. Raises MarketNotFound."""
        try:
            return await self._account.status(order_id)
        except InvalidOrder as error:
            raise MarketNotFound(str(error)) from error
        except MarketNotFound:
            return await self._account.archived_status(order_id)

    async def get_open_orders(self, market: Market | None = None) -> list[OrderStatus]:
        return await self._account.open_orders(None if market is None else self._newest(market).ticker)

    async def get_orders(self, market: Market | None = None, since: datetime | None = None) -> list[OrderStatus]:
        """Every order of the account, open and over, oldest first, which tells a new process what its predecessor did.
        Kalshi archives finished ones after two weeks."""
        ticker = None if market is None else self._newest(market).ticker
        return await self._account.orders(ticker, None if since is None else to_ms(since))

    async def get_positions(self) -> list[Position]:
        """Positions of unsettled markets; a net NO position is one of NO. Fills of the last seconds are in it also
        where REST lags behind them."""
        return await self._account.positions()

    async def get_balance(self, market: Market | None = None) -> Decimal:
        """Dollars of cash: of all shards together, or, with a market, on its shard: what an order can spend."""
        return await self._account.balance(None if market is None else self._newest(market).exchange_index)

    async def get_balances(self) -> dict[int, Decimal]:
        """Dollars of cash by shard (2 is crypto). Money is not moved between shards by pmkit."""
        return await self._account.balances()

    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        """See `BaseExchange`. With no `since`, or one before Kalshi's historical cut-off, the archive is read too."""
        return await self._history.trades(None if since is None else to_ms(since), limit)

    async def get_settlements(self, since: datetime | None = None) -> list[SettlementRow]:
        """Settled positions as Kalshi lists them; `user_types.profit` gives the dollars won or lost by one."""
        return await self._history.settlements(None if since is None else to_ms(since))

    async def queue_position(self, order_id: str) -> Decimal:
        """Contracts ahead of a resting order; 0 is first."""
        return await self._account.queue_position(order_id)

    async def queue_positions(self, market: Market) -> dict[str, Decimal]:
        """Contracts ahead of each resting order of a market, by order id; one call."""
        return await self._account.queue_positions(self._newest(market).ticker)

    async def exchange_status(self) -> StatusAnswer:
        """Whether the exchange is up and trading, also per shard."""
        return await self.data.exchange_status()

    async def exchange_schedule(self) -> Schedule:
        """Trading hours and maintenance windows."""
        return await self.data.exchange_schedule()

    def budget(self) -> Budget:
        """Orders and cancels that the rate limits leave now; a fifth of the tokens is kept for cancels."""
        return self._budget.left()

    # Streams.

    async def subscribe_fills(self, callback: Callback[Fill] | None = None) -> Subscription[Fill]:
        """See `BaseExchange`. Raises AuthError or VenueUnavailable where the venue does not acknowledge the stream."""
        return await self._subscribed(self.stream.fills(callback))

    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        """See `subscribe_fills`."""
        return await self._subscribed(self.stream.orders(callback))

    async def _subscribed(self, subscription: Subscription[T]) -> Subscription[T]:
        try:
            await self.ready()
        except BaseException:
            await subscription.close()
            raise
        return subscription
