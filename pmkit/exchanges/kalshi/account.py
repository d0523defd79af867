"""Queries about one's own account on Kalshi: orders, fills, positions, money, history.

REST lags the engine a little. Fills seen on the socket are the authority for own activity, so that recent ones are laid
over the positions.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from pmkit.clock import Clock
from pmkit.errors import MarketNotFound, ProtocolChanged
from pmkit.exchanges.kalshi.budget import TokenBudget
from pmkit.exchanges.kalshi.catalogue import Catalogue
from pmkit.exchanges.kalshi.journal import Journal, count_of, standing
from pmkit.exchanges.kalshi.orders import order_path
from pmkit.exchanges.kalshi.paging import pages
from pmkit.exchanges.kalshi.resolve import Resolver
from pmkit.exchanges.kalshi.signed_http import SignedSession
from pmkit.exchanges.kalshi.types import NO, YES, RowError, time_ms
from pmkit.exchanges.kalshi.user_messages import (
    BalanceAnswer,
    FillRow,
    FillsPage,
    FillTexts,
    LimitsAnswer,
    OrderRow,
    OrdersPage,
    PositionRow,
    PositionsPage,
    QueueAnswer,
    QueuesAnswer,
    UserFill,
    decode_fill_row,
)
from pmkit.exchanges.kalshi.user_types import balance, fill, position
from pmkit.exchanges.types import Fill, OrderState, OrderStatus, Position
from pmkit.venue_clock import VenueClock

FRESH_SECONDS: Final = 10.0
"""Wall seconds for which a fill of the socket may know more than the positions over REST."""
_MAX_LOOKUPS: Final = 200
_MAX_TOLD: Final = 100
_LOG = logging.getLogger("pmkit.kalshi")


class _Net(NamedTuple):
    """The net position of one market after the newest fill seen: contracts, below zero NO."""

    contracts: Decimal
    venue_ms: int
    at: float


class Account:
    """Reads. `odd_rows` counts rows that could not be read; a list with one raises, since it must not look complete."""

    def __init__(
        self,
        session: SignedSession,
        journal: Journal,
        resolver: Resolver,
        catalogue: Catalogue,
        clock: Clock,
        venue_clock: VenueClock,
        *,
        query: dict[str, str | int],
    ) -> None:
        self.odd_rows = 0
        self._session = session
        self._journal = journal
        self._resolver = resolver
        self._catalogue = catalogue
        self._clock = clock
        self._venue_clock = venue_clock
        self._query = query
        self._nets: dict[str, _Net] = {}
        self._told: set[str] = set()

    async def limits(self, budget: TokenBudget) -> None:
        """The account's rate limits, read into the budget. The first signed query: it proves the key."""
        budget.learn(await self._session.get("/account/limits", LimitsAnswer))

    # Orders.

    async def order_rows(
        self, *, status: str | None = None, ticker: str | None = None, since_ms: int | None = None
    ) -> list[OrderRow]:
        """All orders that fit, as the venue lists them."""
        params = dict(self._query)
        if status is not None:
            params["status"] = status
        if ticker is not None:
            params["ticker"] = ticker
        if since_ms is not None:
            params["min_ts"] = since_ms // 1000
        rows = pages(self._session, "/portfolio/orders", OrdersPage, lambda page: page.orders, params)
        return [row async for row in rows]

    async def open_orders(self, ticker: str | None = None) -> list[OrderStatus]:
        """Resting orders, oldest first."""
        rows = await self.order_rows(status="resting", ticker=ticker)
        return sorted((self._status(row) for row in rows), key=lambda one: (one.created_ms, one.order_id))

    def _status(self, row: OrderRow) -> OrderStatus:
        """The row in the terms of whoever placed it. Raises ProtocolChanged for one that cannot be read."""
        record = self._journal.record_of(row)
        self._journal.place(row.order_id, row.ticker, row.exchange_index)
        with self._reading("an order"):
            return standing(row, None if record is None else record.intent.order.outcome)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except RowError as error:
            self.odd_rows += 1
            raise ProtocolChanged(f"{what} of Kalshi's cannot be read: {error}") from error

    async def status(self, order_id: str) -> OrderStatus:
        """One order. REST may not know a fresh one yet, nor an archived one any more: then the journal and the fills
        tell. Raises MarketNotFound where they do not either."""
        order_path(order_id)
        known = self._journal.statuses.get(order_id)
        try:
            status = self._status(await self._resolver.row(order_id))
        except MarketNotFound:
            if known is not None:
                return await self._by_fills(known)
            raise
        if known is not None and (known.status.terminal or known.filled_amount > status.filled_amount):
            # REST lags behind what the socket or the answer has already said.
            if status.status.terminal and status.filled_amount >= known.filled_amount:
                return status
            return known
        return status

    async def _by_fills(self, known: OrderStatus) -> OrderStatus:
        fills = [row async for row in self.fill_rows(order_id=known.order_id)]
        with self._reading("a fill"):
            filled = sum((count_of(row.count_fp) for row in fills), Decimal(0))
        if filled <= known.filled_amount:
            return known
        state = OrderState.FILLED if filled >= known.size else known.status
        return msgspec.structs.replace(known, status=state, filled_amount=filled)

    async def place_of(self, order_id: str) -> tuple[str, int | None]:
        """Market and shard of an order: remembered, or read. Raises MarketNotFound."""
        order_path(order_id)
        known = self._journal.places.get(order_id)
        if known is None or known[1] is None:
            row = await self._resolver.row(order_id)
            known = (row.ticker, row.exchange_index)
            self._journal.place(order_id, *known)
        return known

    async def queue_position(self, order_id: str) -> Decimal:
        """Contracts ahead of a resting order."""
        answer = await self._session.get(f"/portfolio/orders/{_checked(order_id)}/queue_position", QueueAnswer)
        with self._reading("a place in the queue"):
            return count_of(answer.queue_position_fp)

    async def queue_positions(self, ticker: str) -> dict[str, Decimal]:
        """Contracts ahead of each resting order of a market, by order id."""
        params = {**self._query, "market_tickers": ticker}
        answer = await self._session.get("/portfolio/orders/queue_positions", QueuesAnswer, params)
        with self._reading("a place in the queue"):
            return {row.order_id: count_of(row.queue_position_fp) for row in answer.queue_positions or ()}

    async def orders(self, ticker: str | None, since_ms: int | None) -> list[OrderStatus]:
        """Every order, open or over, of the live part of the venue's memory, oldest first."""
        rows = await self.order_rows(ticker=ticker, since_ms=since_ms)
        return sorted((self._status(row) for row in rows), key=lambda one: (one.created_ms, one.order_id))

    async def archived_status(self, order_id: str) -> OrderStatus:
        """One order of the archive, where finished ones go after two weeks. Raises MarketNotFound."""
        rows = pages(self._session, "/historical/orders", OrdersPage, lambda page: page.orders, {})
        async for row in rows:
            if row.order_id == order_id:
                return self._status(row)
        raise MarketNotFound(f"the account has no order {order_id}, neither live nor archived")

    # Fills.

    def fill_rows(
        self, *, since_ms: int | None = None, order_id: str | None = None, ticker: str | None = None
    ) -> AsyncIterator[FillRow]:
        """Fills, newest first."""
        params = dict(self._query)
        if since_ms is not None:
            params["min_ts"] = since_ms // 1000
        if order_id is not None:
            params["order_id"] = order_id
        if ticker is not None:
            params["ticker"] = ticker
        return pages(self._session, "/portfolio/fills", FillsPage, lambda page: page.fills, params)

    async def fills_since(self, since_ms: int) -> list[FillRow]:
        """Fills from then on, oldest first, their orders identified: a fill over REST does not say whose it is, and the
        answer to the order may still be missing. A row that does not fit is told and left out: it must not hide the
        others for good."""
        rows: list[FillRow] = []
        params = {**self._query, "min_ts": since_ms // 1000}
        async for text in pages(self._session, "/portfolio/fills", FillTexts, lambda page: page.fills, params):
            try:
                rows.append(decode_fill_row(text))
            except msgspec.DecodeError as error:
                self.odd_rows += 1
                if str(error) not in self._told and len(self._told) < _MAX_TOLD:
                    self._told.add(str(error))
                    _LOG.error("kalshi: a fill over REST does not fit: %s (the others are told)", error)
        rows.reverse()
        await self.identify(rows)
        return rows

    async def identify(self, rows: Iterable[FillRow]) -> None:
        """Read the orders of fills that nobody has named."""
        nameless = self._journal.nameless(rows)
        for order_id in nameless[:_MAX_LOOKUPS]:
            try:
                self._journal.on_order(await self._resolver.row(order_id))
            except (MarketNotFound, RowError) as error:
                _LOG.info("kalshi: the order %s of a fill could not be read: %s", ascii(order_id)[:60], error)

    def as_fill(self, row: FillRow) -> Fill:
        """A fill in the terms of whoever placed the order. Raises ProtocolChanged."""
        record = self._journal.record_of(row)
        known = self._journal.statuses.get(row.order_id)
        outcome = record.intent.order.outcome if record is not None else known.outcome if known is not None else None
        with self._reading("a fill"):
            return fill(row, outcome, None if record is None else record.intent.client_order_id, own=record is not None)

    # Positions and money.

    def on_net(self, row: UserFill) -> None:
        """The socket tells the net position after a fill."""
        if row.post_position_fp is None:
            return
        old = self._nets.get(row.market_ticker)
        if old is None or row.ts_ms >= old.venue_ms:
            self._nets[row.market_ticker] = _Net(count_of(row.post_position_fp), row.ts_ms, self._clock.io_monotonic())

    def on_position(self, ticker: str, contracts: str) -> None:
        """The socket tells a position; it has no time of its own."""
        old = self._nets.get(ticker)
        if old is None or old.contracts != count_of(contracts):
            now_ms = self._venue_clock.now_ms()
            self._nets[ticker] = _Net(count_of(contracts), now_ms, self._clock.io_monotonic())

    async def positions(self) -> list[Position]:
        """Positions of unsettled markets, as of the moment of the request, with the fills of the last seconds."""
        as_of_ms = self._venue_clock.now_ms()
        asked_at = self._clock.io_monotonic()
        params = {**self._query, "count_filter": "position", "settlement_status": "unsettled"}
        source = pages(self._session, "/portfolio/positions", PositionsPage, lambda page: page.market_positions, params)
        rows = {row.ticker: row async for row in source}
        fresh = {
            ticker: net for ticker, net in self._nets.items() if asked_at - net.at < FRESH_SECONDS or net.at > asked_at
        }
        self._nets = fresh
        found: list[Position] = []
        for ticker in dict.fromkeys((*rows, *fresh)):
            row, net = rows.get(ticker), fresh.get(ticker)
            with self._reading("a position"):
                listed = None if row is None else position(row, as_of_ms)
                one = listed if net is None else self._overlaid(ticker, row, listed, net, as_of_ms)
            if one is not None:
                found.append(one)
        return found

    def _overlaid(
        self, ticker: str, row: PositionRow | None, listed: Position | None, net: _Net, as_of_ms: int
    ) -> Position | None:
        if row is not None and (
            count_of(row.position_fp) == net.contracts
            or (row.last_updated_ts and time_ms(row.last_updated_ts, "last_updated_ts of a position") > net.venue_ms)
        ):
            return listed
        market = self._catalogue.markets.get(ticker)
        if row is None and market is not None and as_of_ms >= market.close_ms:
            return listed  # it may have been settled meanwhile
        if not net.contracts:
            return None
        outcome = YES if net.contracts > 0 else NO
        size = net.contracts.copy_abs()
        return Position(
            market_id=ticker,
            token_id=f"{ticker}:{outcome}",
            outcome=outcome,
            size=size,
            average_price=listed.average_price if listed is not None and listed.outcome == outcome else None,
            confirmed=size,
            pending=Decimal(0),
            as_of_ms=as_of_ms,
        )

    async def balances(self) -> dict[int, Decimal]:
        """Dollars of cash by shard."""
        answer = await self._session.get("/portfolio/balance", BalanceAnswer, self._query)
        if answer.balance_breakdown is None:
            raise ProtocolChanged("the balance has no breakdown by shard: ask for that of one market")
        with self._reading("a balance"):
            return {part.exchange_index: balance(answer, part.exchange_index) for part in answer.balance_breakdown}

    async def balance(self, shard: int | None) -> Decimal:
        """Dollars of cash: of all shards together, or of one, which is what an order there can spend."""
        answer = await self._session.get("/portfolio/balance", BalanceAnswer, self._query)
        if shard is not None and answer.balance_breakdown is None:
            # Keys bound to a sub-account get no breakdown: the query for one shard is its balance.
            params = {**self._query, "exchange_index": shard}
            answer, shard = await self._session.get("/portfolio/balance", BalanceAnswer, params), None
        with self._reading("a balance"):
            return balance(answer, shard)


def _checked(order_id: str) -> str:
    order_path(order_id)
    return order_id
