"""Reading an account over REST: orders, queue, fills, positions, settlements, balance (kalshi.md, 5.7 to 5.11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from pmkit.sim.engine import PRICE_UNITS, Side
from pmkit.sim.kalshi import bodies
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.exchange import Exchange
from pmkit.sim.kalshi.ledger import Account, FillRecord, OrderRecord, Position, Status, cost_of, short_money
from pmkit.sim.kalshi.limits import CANCEL_COST, COST
from pmkit.sim.kalshi.market import SHARD, count_text
from pmkit.sim.kalshi.objects import event_object, fill_object, order_object, position_object, settlement_object
from pmkit.sim.kalshi.rest import Query, choice, integer, paginate, read_limit
from pmkit.sim.kalshi.windows import iso_us

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

Read = Callable[[web.Request, Account], Awaitable[object]]
_T = TypeVar("_T")

_CENT = 10_000  # in millionths of a dollar
_MOST_EVENTS = 10
_MOST_TICKERS = 100


class PortfolioRest:
    """The handlers. `lag_ms` hides orders and fills that are younger, as the real REST is behind its engine; 0 here."""

    def __init__(self, venue: KalshiVenue, exchange: Exchange) -> None:
        self.lag_ms = 0
        self._venue = venue
        self._exchange = exchange

    def routes(self) -> list[tuple[str, Read, int]]:
        """(path, handler, tokens); fixed paths before those with an id."""
        return [
            ("/portfolio/orders", self._orders, COST),
            ("/portfolio/orders/queue_positions", self._queue_positions, COST),
            ("/portfolio/orders/{order_id}", self._order, CANCEL_COST),
            ("/portfolio/orders/{order_id}/queue_position", self._queue_position, COST),
            ("/portfolio/fills", self._fills, COST),
            ("/portfolio/positions", self._positions, COST),
            ("/portfolio/settlements", self._settlements, COST),
            ("/portfolio/balance", self.balance, COST),
            ("/historical/orders", self._archived_orders, COST),
            ("/historical/fills", self._archived_fills, COST),
            ("/historical/positions", self._archived_positions, COST),
        ]

    def _fresh_us(self) -> int:
        return self._exchange.now_us() - self.lag_ms * 1000

    # ---- the cut-off: what is older is under /historical only

    def _old_fill(self, fill: FillRecord) -> bool:
        calendar = self._venue.calendar
        return fill.at_us < calendar.kept_since(self._venue.clock.now_ms()) * 1000

    def _old_order(self, order: OrderRecord) -> bool:
        calendar = self._venue.calendar
        ended = order.status is not Status.RESTING
        return ended and order.updated_us < calendar.orders_kept_since(self._venue.clock.now_ms()) * 1000

    def _old_position(self, position: Position) -> bool:
        calendar = self._venue.calendar
        return position.settled and position.updated_us < calendar.kept_since(self._venue.clock.now_ms()) * 1000

    # ---- orders

    async def _orders(self, request: web.Request, account: Account) -> object:
        query = request.query
        status = choice(query, "status", tuple(Status))
        events = set(_names(query, "event_ticker", _MOST_EVENTS))
        found = (
            order
            for order in _newest(account.orders.values())
            if order.created_us <= self._fresh_us()
            and not self._old_order(order)
            and _asked(query, order.ticker, order.created_us)
            and (not events or order.ticker.rpartition("-")[0] in events)
            and status in ("", order.status)
        )
        page, cursor = _page(query, found, lambda order: (-order.number, ""))
        return {"orders": [order_object(order) for order in page], "cursor": cursor}

    def _find(self, request: web.Request, account: Account) -> OrderRecord:
        order = account.orders.get(request.match_info["order_id"])
        if order is None or order.created_us > self._fresh_us() or self._old_order(order):
            raise refuse(404, "not_found", "no such order")
        return order

    async def _order(self, request: web.Request, account: Account) -> object:
        return {"order": order_object(self._find(request, account))}

    def _ahead(self, order: OrderRecord) -> str:
        """Contracts that trade before this order does, by price and then time."""
        live = self._venue.live(order.ticker)
        ahead = 0
        for other in live.engine.orders() if live is not None else ():
            if other.order_id == order.order_id:
                break
            if other.side is order.side and other.price == order.price:
                ahead += other.size
        better = live.engine.levels(order.side) if live is not None else []
        sign = 1 if order.side is Side.BUY else -1
        ahead += sum(size for price, size in better if sign * price > sign * order.price)
        return count_text(ahead)

    async def _queue_position(self, request: web.Request, account: Account) -> object:
        order = self._find(request, account)
        if order.status is not Status.RESTING:
            raise refuse(404, "not_found", f"the order is {order.status}")
        return {"queue_position_fp": self._ahead(order)}

    async def _queue_positions(self, request: web.Request, account: Account) -> object:
        query = request.query
        bodies.primary_only(query.get("subaccount"))
        tickers = set(_names(query, "market_tickers", _MOST_TICKERS))
        event = query.get("event_ticker", "")
        if not tickers and not event:
            raise bodies.bad("market_tickers or event_ticker is required")
        return {
            "queue_positions": [
                {
                    "order_id": order.order_id,
                    "market_ticker": order.ticker,
                    "queue_position_fp": self._ahead(order),
                }
                for order in account.resting.values()
                if order.ticker in tickers or order.ticker.rpartition("-")[0] == event
            ]
        }

    # ---- fills, positions, settlements

    async def _fills(self, request: web.Request, account: Account) -> object:
        query = request.query
        order_id = query.get("order_id", "")
        tickers = set(_names(query, "ticker", _MOST_TICKERS))
        found = (
            fill
            for fill in reversed(account.fills)
            if fill.at_us <= self._fresh_us()
            and not self._old_fill(fill)
            and _asked(query, None, fill.at_us)
            and (not tickers or fill.order.ticker in tickers)
            and order_id in ("", fill.order.order_id)
        )
        page, cursor = _page(query, found, lambda fill: (-fill.number, ""))
        return {"fills": [fill_object(fill) for fill in page], "cursor": cursor}

    async def _positions(self, request: web.Request, account: Account) -> object:
        query = request.query
        which = choice(query, "settlement_status", ("unsettled", "settled", "all")) or "unsettled"
        nonzero = _names(query, "count_filter", 2)
        if set(nonzero) - {"position", "total_traded"}:
            raise bodies.bad("count_filter is a list of position, total_traded")
        event = query.get("event_ticker", "")
        values = {"position": lambda at: at.net, "total_traded": lambda at: at.traded}
        found = [
            position
            for position in sorted(account.positions.values(), key=lambda at: at.ticker)
            if _asked(query, position.ticker, None)
            and not self._old_position(position)
            and event in ("", position.ticker.rpartition("-")[0])
            and which in ("all", "settled" if position.settled else "unsettled")
            and (not nonzero or any(values[name](position) for name in nonzero))
        ]
        return self._position_page(query, found)

    def _position_page(self, query: Query, found: Iterable[Position]) -> object:
        page, cursor = _page(query, found, lambda position: (0, position.ticker))
        events: dict[str, list[Position]] = {}
        for position in page:
            events.setdefault(position.ticker.rpartition("-")[0], []).append(position)
        return {
            "market_positions": [position_object(position) for position in page],
            "event_positions": [event_object(name, inside) for name, inside in events.items()],
            "cursor": cursor,
        }

    async def _settlements(self, request: web.Request, account: Account) -> object:
        query = request.query
        event = query.get("event_ticker", "")
        found = (
            settlement
            for settlement in reversed(account.settlements)
            if _asked(query, settlement.ticker, settlement.at_us)
            and event in ("", settlement.ticker.rpartition("-")[0])
        )
        page, cursor = _page(query, found, lambda settlement: (-settlement.number, ""))
        return {"settlements": [settlement_object(settlement) for settlement in page], "cursor": cursor}

    # ---- balance

    def _value(self, position: Position) -> int:
        """What a position would bring now: at the best bid of its side, at cost where nobody trades."""
        live = self._venue.live(position.ticker)
        if live is None or not position.net:
            return position.cost
        if position.net > 0:
            return cost_of(live.engine.best_bid or 0, position.net)
        return cost_of(PRICE_UNITS - (live.engine.best_ask or PRICE_UNITS), -position.net)

    async def balance(self, request: web.Request, account: Account) -> object:
        """GET /portfolio/balance."""
        query = request.query
        bodies.primary_only(query.get("subaccount"))
        only = integer(query, "exchange_index")
        shards = [shard for shard in sorted(account.cash) if only in (None, shard)]
        total = sum(account.available(shard) for shard in shards)
        value = 0
        if only in (None, SHARD):
            value = sum(self._value(position) for position in account.positions.values())
        return {
            "balance": total // _CENT,
            "balance_dollars": short_money(total),
            "portfolio_value": value // _CENT,
            "updated_ts": self._venue.clock.now_ms() // 1000,
            "balance_breakdown": [
                {"exchange_index": shard, "balance": short_money(account.available(shard))} for shard in shards
            ],
        }

    # ---- history

    async def _archived_orders(self, request: web.Request, account: Account) -> object:
        query = request.query
        found = (
            order
            for order in _newest(account.orders.values())
            if self._old_order(order) and _asked(query, order.ticker, order.created_us)
        )
        page, cursor = _page(query, found, lambda order: (-order.number, ""))
        return {"orders": [order_object(order) for order in page], "cursor": cursor}

    async def _archived_fills(self, request: web.Request, account: Account) -> object:
        query = request.query
        found = (
            fill
            for fill in reversed(account.fills)
            if self._old_fill(fill) and _asked(query, fill.order.ticker, fill.at_us)
        )
        page, cursor = _page(query, found, lambda fill: (-fill.number, ""))
        return {"fills": [fill_object(fill) for fill in page], "cursor": cursor}

    async def _archived_positions(self, request: web.Request, account: Account) -> object:
        query = request.query
        event = query.get("event_ticker", "")
        found = (
            position
            for position in sorted(account.positions.values(), key=lambda at: at.ticker)
            if self._old_position(position)
            and _asked(query, position.ticker, None)
            and event in ("", position.ticker.rpartition("-")[0])
        )
        return self._position_page(query, found)

    async def user_data_timestamp(self, request: web.Request) -> object:
        """GET /exchange/user_data_timestamp."""
        return {"as_of_time": iso_us(self._fresh_us())}


def _newest(orders: Iterable[OrderRecord]) -> Iterator[OrderRecord]:
    return iter(sorted(orders, key=lambda order: -order.number))


def _names(query: Query, name: str, most: int) -> list[str]:
    """A comma list."""
    found = [item for item in query.get(name, "").split(",") if item]
    if len(found) > most:
        raise bodies.bad(f"{name} has more than {most} items")
    return found


def _asked(query: Query, ticker: str | None, at_us: int | None) -> bool:
    """The filters that all lists have. Pass None for what a list filters otherwise."""
    bodies.primary_only(query.get("subaccount"))
    low, high = integer(query, "min_ts"), integer(query, "max_ts")
    return (
        integer(query, "exchange_index") in (None, SHARD)
        and (ticker is None or query.get("ticker", "") in ("", ticker))
        and (at_us is None or low is None or at_us >= low * 1_000_000)
        and (at_us is None or high is None or at_us <= high * 1_000_000)
    )


def _page(query: Query, found: Iterable[_T], key: Callable[[_T], tuple[int, str]]) -> tuple[list[_T], str]:
    return paginate(found, key, read_limit(query, 100, 1_000), query.get("cursor", ""))
