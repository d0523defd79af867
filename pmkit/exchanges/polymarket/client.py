"""`PolymarketExchange`: an account on Polymarket, behind `BaseExchange`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any

from pmkit.clock import Clock
from pmkit.config.secret import Secret, revealed
from pmkit.endpoints import Endpoints
from pmkit.errors import InsufficientFunds, NotSent, OrderRejected, PmkitError
from pmkit.exchanges.base import Amount, Callback, LegResult, PublicSide, not_placed, order_ids_of
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.account import DATA_REQUESTS, Account
from pmkit.exchanges.polymarket.account_stream import AccountStream
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.cancels import Cancels, check_replacement, not_replaced
from pmkit.exchanges.polymarket.credentials import GivenCredentials, Login, given_credentials
from pmkit.exchanges.polymarket.heartbeat import Heartbeat
from pmkit.exchanges.polymarket.history import History
from pmkit.exchanges.polymarket.journal import Journal
from pmkit.exchanges.polymarket.limits import TradingLimits
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.order_entry import Leg, OrderEntry, check_legs
from pmkit.exchanges.polymarket.order_intent import leg_intent, limit_intent, market_intent
from pmkit.exchanges.polymarket.order_lookup import OrderLookup
from pmkit.exchanges.polymarket.order_queries import OrderQueries
from pmkit.exchanges.polymarket.orders import MAX_BATCH
from pmkit.exchanges.polymarket.redeem_side import RedeemSide
from pmkit.exchanges.polymarket.signed_http import SignedSession
from pmkit.exchanges.polymarket.types import VENUE, PolymarketMarket
from pmkit.exchanges.polymarket.winnings import GivenRelayerKey, Winnings
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    Budget,
    CancelResult,
    Fill,
    Intent,
    Order,
    OrderId,
    OrderState,
    OrderStatus,
    Position,
    ReferencePrice,
    Side,
    TimeInForce,
    Trade,
)
from pmkit.http import HttpSession
from pmkit.logging.redact import protect
from pmkit.streams import Subscription

_LOG = logging.getLogger("pmkit.polymarket")

CLOSE_SECONDS = 0.3
"""Wall seconds that orders on their way get when the exchange is closed."""


class PolymarketExchange(PublicSide, RedeemSide):
    """An account on Polymarket, on the public side of `data` (closed with it; made where none is given).

    `private_key` is the key of the account; `funder` the wallet that holds its funds (none: the key's own address, or
    the wallet of `signature_type`, or the only one of its wallets with money). `credentials`: API key, secret and
    passphrase; derived or created where none are given. For redeems: `rpc_url`, a Polygon node (none: public ones), and
    `relayer_key`, a relayer API key or the three parts of a builder key. Nothing connects before the first call;
    `keep_warm()` logs in and opens the connections, so that the first order does not have to.

    Raises ConfigError for a key that is none, and for a funder and signature type that do not fit (naming what does).
    """

    data: PolymarketMarketData

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        *,
        private_key: Secret,
        funder: str | None = None,
        signature_type: int | None = None,
        credentials: GivenCredentials = None,
        data: PolymarketMarketData | None = None,
        rpc_url: Secret | str | None = None,
        relayer_key: GivenRelayerKey = None,
    ) -> None:
        signer = Signer(revealed(private_key, "private_key"))
        protect(private_key)
        super().__init__(data or PolymarketMarketData(endpoints, clock))
        self._http = SignedSession(endpoints.polymarket.clob, clock, self.venue_clock)
        self._data_api = HttpSession(endpoints.polymarket.data, clock, allow=DATA_REQUESTS)
        self.login = Login(
            self._http,
            clock,
            signer,
            funder=funder,
            signature_type=signature_type,
            credentials=given_credentials(signer, credentials),
            relayer=endpoints.polymarket.relayer,
        )
        self.limits = TradingLimits(clock, self._http.host)
        self.journal = Journal(VENUE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        catalogue = self.data.catalogue
        self._queries = OrderQueries(self._http)
        self.stream = AccountStream(
            endpoints.polymarket.user_ws, self.login, self._queries, self.journal, catalogue, clock, self._spawn
        )
        self.lookup = OrderLookup(
            self._queries,
            self.journal,
            clock,
            self.stream.take,
            self.stream.take,
            self.stream.know,
            self.venue_clock.now_ms,
        )
        self.lookup.published = self.stream.publish_order
        self._entry = OrderEntry(
            self._http,
            self.login,
            self.journal,
            self.limits,
            clock,
            self._spawn,
            self._tasks,
            on_accepted=self.stream.accepted,
            on_refused=self._refused,
            lookup=self.lookup.resolve,
        )
        self._cancels = Cancels(
            self._http,
            self.login,
            self.limits,
            on_canceled=self._canceled,
            on_done=self.stream.look,
            unplaced=self.journal.unplaced,
        )
        self._account = Account(self.login, self._data_api, self._queries, self.journal, catalogue, clock)
        self._history = History(self.login, self._data_api, self._queries, self.journal, catalogue)
        self._heartbeat: Heartbeat | None = None
        self._winnings = Winnings(self.data, self.login, signer, self._account, rpc_url=rpc_url, key=relayer_key)

    # -- life -----------------------------------------------------------------------------------------------------

    def _spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coro, name=f"pmkit polymarket {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, PmkitError):
            _LOG.debug("%s ended: %s", task.get_name(), error)
        else:
            _LOG.error("%s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """End everything within a second. Orders that are still on their way stay in `unresolved`."""
        self._closed = self.lookup.closed = True
        sending = {record.sending for record in self.journal.records.values() if record.sending} & self._tasks
        if sending:
            await asyncio.wait(sending, timeout=CLOSE_SECONDS)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._heartbeat is not None:
            await self._heartbeat.stop()
        await asyncio.gather(self.stream.close(), self.login.close())
        await asyncio.gather(self._http.close(), self._data_api.close(), self._winnings.close(), self.data.close())

    async def keep_warm(self) -> None:
        """Log in, and open (or keep open) the connections for orders and cancels. Measures the venue's clock."""
        await self.login.ready()
        await asyncio.gather(self._http.measure_clock(self._http.orders), self._http.measure_clock(self._http.cancels))

    def budget(self) -> Budget:
        return self.limits.left()

    def dead_man(self) -> AbstractAsyncContextManager[Any]:
        """Heartbeats while the block runs. The venue cancels **all** open orders of the API key some 10 s after the
        last one: also after the block has ended, since nothing disarms it. One at a time: RuntimeError for a second."""
        if self._heartbeat is not None and self._heartbeat.beating:
            raise RuntimeError("one dead_man() at a time: it belongs to the API key")
        self._heartbeat = Heartbeat(
            self._http, self.login, self.clock, block=self._block, on_back=self.stream.back_fill
        )
        return self._heartbeat

    def _block(self, reason: str) -> None:
        self._entry.blocked = reason

    # -- placing --------------------------------------------------------------------------------------------------

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
    ) -> OrderId:
        self._check_open()
        own = self.data.listed(market)
        order, plan = limit_intent(
            self.data, own, outcome, side, price, size, time_in_force, expires_at, post_only, client_order_id
        )
        return await self._entry.place(own, order, plan)

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
    ) -> OrderId:
        """See `BaseExchange`. A BUY aims at dollars: at a better price than the worst it gets more shares, also where
        `size` was given. The order's own size is what the worst price gives."""
        self._check_open()
        own = self.data.listed(market)
        order, plan = market_intent(self.data, own, outcome, side, worst_price, size, amount, client_order_id)
        return await self._entry.place(own, order, plan)

    async def place_orders(self, orders: Sequence[Order]) -> list[LegResult]:
        """Up to 15 go in one request, more in several. One result per leg; only a log-in that fails raises."""
        self._check_open()
        check_legs(orders)
        return await self._place_legal([await self._legal(order) for order in orders])

    async def _legal(self, order: Order) -> Leg | PmkitError:
        """One leg with its plan, or why there is none."""
        try:
            market = self.data.catalogue.known(order.market_id) or await self.data.get_market(order.market_id)
        except PmkitError as error:
            return not_placed(order.market_id, error)
        try:
            return market, *leg_intent(self.data, market, order)
        except PmkitError as error:
            return error

    async def _place_legal(self, legs: Sequence[Leg | PmkitError]) -> list[LegResult]:
        good = [leg for leg in legs if not isinstance(leg, PmkitError)]
        placed: list[LegResult] = []
        for first in range(0, len(good), MAX_BATCH):
            placed += await self._entry.place_batch(good[first : first + MAX_BATCH])
        left = iter(placed)
        return [leg if isinstance(leg, PmkitError) else next(left) for leg in legs]

    async def replace_orders(self, cancels: Sequence[str], places: Sequence[Order]) -> list[LegResult]:
        """See `BaseExchange`. The order of a leg that cannot be legal is left alone."""
        self._check_open()
        check_replacement(cancels, places)
        check_legs(places)
        legs = [await self._legal(order) for order in places]
        pairs = list(zip(cancels, legs, strict=True))
        done = await self.cancel_orders([order_id for order_id, leg in pairs if not isinstance(leg, PmkitError)])
        return await self._place_legal(
            [
                leg if isinstance(leg, PmkitError) else not_replaced(order_id, done[order_id]) or leg
                for order_id, leg in pairs
            ]
        )

    def _check_open(self) -> None:
        if self._closed:
            raise NotSent("this exchange is closed: nothing was sent")

    def _refused(self, market: PolymarketMarket, error: OrderRejected) -> None:
        """What a refusal says about our own view: the price step or the venue's view of the balance is old."""
        if self._closed:
            return
        if error.code == "tick_size":
            self._spawn(self._fresh_tick(market), f"tick of {market.slug}")
        elif isinstance(error, InsufficientFunds):
            self._spawn(self._account.explain_funds(), "balance")

    async def _fresh_tick(self, market: PolymarketMarket) -> None:
        info = await self.data.catalogue.clob_info(market.condition_id)
        if info is not None and info.mts is not None:
            self.data.catalogue.set_tick(market.market_id, str(info.mts))

    # -- cancelling -----------------------------------------------------------------------------------------------

    async def cancel_order(self, order_id: str) -> CancelResult:
        return await self._cancels.one(order_id)

    async def cancel_orders(self, order_ids: Sequence[str]) -> dict[str, CancelResult | PmkitError]:
        ids = order_ids_of(order_ids)
        return await self._cancels.many(ids) if ids else {}

    async def cancel_all(self, market: Market) -> dict[str, CancelResult | PmkitError]:
        return await self._cancels.market(self.data.current(market).condition_id)

    def _canceled(self, order_id: str) -> None:
        ended = self.journal.end(order_id, OrderState.CANCELED, "cancelled", self.venue_clock.now_ms())
        if ended is not None:
            self.stream.publish_order(ended)

    # -- orders ---------------------------------------------------------------------------------------------------

    @property
    def unresolved(self) -> Sequence[Intent]:
        return self.journal.unresolved

    async def resolve_order(self, intent: Intent) -> Accepted | Absent:
        """See `BaseExchange`. Absent takes half a minute (market time; 3 s of wall time at least) after the sending
        ended: until then the venue may still come to know the order."""
        await self.login.ready()
        return await self.lookup.resolve(intent)

    async def get_order_status(self, order_id: str) -> OrderStatus:
        await self.login.ready()
        return await self.lookup.status(order_id)

    async def get_open_orders(self, market: Market | None = None) -> list[OrderStatus]:
        await self.login.ready()
        rows = await self._queries.open_orders("" if market is None else self.data.current(market).condition_id)
        found = []
        for row in rows:
            await self.stream.know(row.market_id)
            self.stream.take(row)
            known = self.journal.status(row.order_id)
            if known is None:  # forgotten already: there are too many
                known = self.journal.status_of(row, self.journal.records.get(row.order_id), "")
            if not known.status.terminal:
                found.append(known)
        return found

    async def subscribe_fills(self, callback: Callback[Fill] | None = None) -> Subscription[Fill]:
        return await self.stream.fills(callback)

    async def subscribe_orders(self, callback: Callback[OrderStatus] | None = None) -> Subscription[OrderStatus]:
        return await self.stream.orders(callback)

    # -- account --------------------------------------------------------------------------------------------------

    async def get_positions(self) -> list[Position]:
        return await self._account.positions()

    async def get_balance(self, market: Market | None = None) -> Decimal:
        if market is None:
            return await self._account.cash()
        return await self._account.spendable(self.data.current(market))

    async def get_trade_history(self, since: datetime | None = None, limit: int | None = None) -> list[Trade]:
        return await self._history.trades(since, limit)

    async def check_allowance(self, market: Market) -> None:
        """Raises ConfigError, naming the contract, where the account's pUSD may not be spent on this market."""
        await self._account.check_allowance(self.data.current(market))

    async def refresh_balance(self, token_id: str = "") -> None:
        """Have the venue look at the chain again for pUSD, or for the shares of a token."""
        await self._account.refresh(token_id)

    # -- live prices ----------------------------------------------------------------------------------------------

    async def subscribe_reference(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """The settlement index of assets, its running 60 s average, and the strike of the current 15-minute window."""
        self.data.log_in((await self.login.ready()).credentials.handshake())
        return await self.data.subscribe_reference(assets, callback)

    def strike(self, market: Market) -> Decimal | None:
        """The price to beat of a window, once its average at the open was seen. Asks nobody."""
        return self.data.strike(market)
