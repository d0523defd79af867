"""Order calls over REST: create, cancel, amend, decrease, one by one and in batches (kalshi.md, 5.2 to 5.6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from pmkit.sim.engine import TimeInForce
from pmkit.sim.kalshi import bodies
from pmkit.sim.kalshi.bodies import Body
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.exchange import Exchange
from pmkit.sim.kalshi.intents import Intent, Outcome
from pmkit.sim.kalshi.ledger import MICRO, Account, SelfTrade, short_money
from pmkit.sim.kalshi.limits import CANCEL_COST, COST
from pmkit.sim.kalshi.market import COUNT_UNIT, SHARD, count_text, price_text
from pmkit.sim.server import Refused, answer

if TYPE_CHECKING:
    from pmkit.sim.kalshi.venue import KalshiVenue

Mutation = Callable[[web.Request, Account], Awaitable[web.Response]]

_TIMES = {
    "good_till_canceled": TimeInForce.GTC,
    "immediate_or_cancel": TimeInForce.IOC,
    "fill_or_kill": TimeInForce.FOK,
}
_SELF_TRADES = {kind.value: kind for kind in SelfTrade}


class OrderRest:
    """The handlers. `cancels_find_any_shard` routes a cancel or decrease without ticker and shard to where the order
    is; the real exchange (and this one by default) looks on shard 0 only."""

    def __init__(self, venue: KalshiVenue, exchange: Exchange) -> None:
        self.cancels_find_any_shard = False
        self._venue = venue
        self._exchange = exchange

    def routes(self) -> list[tuple[str, str, Mutation]]:
        """(method, path below /trade-api/v2, handler); fixed paths before those with an id."""
        root = "/portfolio/events/orders"
        return [
            ("POST", root, self._create),
            ("POST", f"{root}/batched", self._create_batch),
            ("DELETE", root, self._cancel_all),
            # An empty order id makes this path: it cancels everything as well.
            ("DELETE", f"{root}/", self._cancel_all),
            ("DELETE", f"{root}/batched", self._cancel_batch),
            ("DELETE", f"{root}/{{order_id}}", self._cancel),
            ("POST", f"{root}/{{order_id}}/amend", self._amend),
            ("POST", f"{root}/{{order_id}}/decrease", self._decrease),
        ]

    def _spend(self, account: Account, shard: int | None, cost: int = COST) -> None:
        self._venue.writes.spend(account.user_id, shard, cost)

    # ---- create

    async def _create(self, request: web.Request, account: Account) -> web.Response:
        body = await bodies.read_body(request)
        self._spend(account, bodies.bucket_of(bodies.whole(body, "exchange_index"), bodies.text(body, "ticker")))
        return answer(self._create_one(account, body), 201)

    def _create_one(self, account: Account, body: Body) -> dict[str, object]:
        intent, shard = self._intent(body)
        if shard != SHARD:
            raise refuse(404, "market_not_found", f"no market {intent.ticker[:80]} on exchange index {shard}")
        outcome = self._exchange.create(account, intent)
        order = outcome.order
        data: dict[str, object] = {"order_id": order.order_id}
        if order.client_order_id:
            data["client_order_id"] = order.client_order_id
        data |= {"fill_count": count_text(outcome.filled), "remaining_count": count_text(order.remaining)}
        return data | _averages(outcome) | {"ts_ms": order.updated_us // 1000}

    def _intent(self, body: Body) -> tuple[Intent, int]:
        ticker = bodies.text(body, "ticker", required=True)
        bodies.primary_only(body.get("subaccount"))
        intent = Intent(
            ticker=ticker,
            side=bodies.side(body),
            count=bodies.count(body),
            price=bodies.price(body),
            time_in_force=bodies.word(body, "time_in_force", _TIMES),
            self_trade=bodies.word(body, "self_trade_prevention_type", _SELF_TRADES),
            client_order_id=bodies.client_order_id(body),
            expires_s=bodies.whole(body, "expiration_time"),
            post_only=bodies.flag(body, "post_only"),
            reduce_only=bodies.flag(body, "reduce_only"),
            cancel_on_pause=bodies.flag(body, "cancel_order_on_pause"),
            group_id=bodies.text(body, "order_group_id") or None,
        )
        if intent.expires_s is not None:
            self._check_expiry(intent.expires_s)
            if intent.time_in_force is not TimeInForce.GTC:
                raise refuse(400, "invalid_order", "expiration_time goes with good_till_canceled only")
        if intent.reduce_only and intent.time_in_force is not TimeInForce.IOC:
            raise refuse(400, "invalid_order", "reduce_only goes with immediate_or_cancel only")
        if intent.post_only and intent.time_in_force is not TimeInForce.GTC:
            raise refuse(400, "invalid_order", "post_only goes with good_till_canceled only")
        return intent, bodies.shard_of(bodies.whole(body, "exchange_index"), ticker)

    def _check_expiry(self, expires_s: int) -> None:
        if expires_s * 1000 <= self._venue.clock.now_ms():
            raise refuse(400, "invalid_order", "expiration_time is in the past")

    async def _create_batch(self, request: web.Request, account: Account) -> web.Response:
        orders = _list(await bodies.read_body(request))
        self._spend(account, 0, COST * len(orders))
        found: list[dict[str, object]] = []
        for body in orders:
            empty = {"order_id": "", "client_order_id": body.get("client_order_id")}
            empty |= {"fill_count": None, "remaining_count": None, "ts_ms": None}
            try:
                found.append(self._create_one(account, body) | {"error": None})
            except Refused as refused:
                found.append(empty | {"error": _leg_error(refused)})
        return answer({"orders": found}, 201)

    # ---- cancel

    def _shard(self, account: Account, given: int | None, ticker: str, order_id: str) -> int:
        if self.cancels_find_any_shard and given is None and not ticker and order_id in account.orders:
            return SHARD
        return bodies.shard_of(given, ticker)

    def _cancel_one(self, account: Account, order_id: str, given: int | None, ticker: str) -> dict[str, object]:
        shard = self._shard(account, given, ticker, order_id)
        known = account.orders.get(order_id)
        if known is not None and ticker and ticker != known.ticker:
            raise refuse(400, "order_ticker_mismatch")
        order, left = self._exchange.cancel(account, order_id, shard)
        data: dict[str, object] = {"order_id": order_id, "client_order_id": order.client_order_id}
        return data | {"reduced_by": count_text(left), "ts_ms": order.updated_us // 1000}

    async def _cancel(self, request: web.Request, account: Account) -> web.Response:
        given, ticker = _query_route(request)
        self._spend(account, bodies.bucket_of(given, ticker), CANCEL_COST)
        return answer(self._cancel_one(account, request.match_info["order_id"], given, ticker))

    async def _cancel_batch(self, request: web.Request, account: Account) -> web.Response:
        orders = _list(await bodies.read_body(request))
        self._spend(account, 0, CANCEL_COST * len(orders))
        found: list[dict[str, object]] = []
        for body in orders:
            order_id = bodies.text(body, "order_id", required=True)
            try:
                bodies.primary_only(body.get("subaccount"))
                given, ticker = bodies.whole(body, "exchange_index"), bodies.text(body, "market_ticker")
                found.append(self._cancel_one(account, order_id, given, ticker) | {"error": None})
            except Refused as refused:
                empty = {"order_id": order_id, "client_order_id": None, "reduced_by": "0.00", "ts_ms": None}
                found.append(empty | {"error": _leg_error(refused)})
        return answer({"orders": found})

    async def _cancel_all(self, request: web.Request, account: Account) -> web.Response:
        bodies.primary_only(request.query.get("subaccount"))
        self._spend(account, 0, CANCEL_COST)
        self._exchange.cancel_all(account)
        return web.Response(status=204)

    # ---- changes

    async def _amend(self, request: web.Request, account: Account) -> web.Response:
        bodies.primary_only(request.query.get("subaccount"))
        body = await bodies.read_body(request)
        ticker = bodies.text(body, "ticker", required=True)
        given = bodies.whole(body, "exchange_index")
        self._spend(account, bodies.bucket_of(given, ticker))
        side, price, total = bodies.side(body), bodies.price(body), bodies.count(body)
        expected = bodies.client_order_id(body)
        updated = bodies.client_order_id(body, "updated_client_order_id")
        expires_s = bodies.whole(body, "expiration_time")
        order = self._exchange.resting(account, request.match_info["order_id"], bodies.shard_of(given, ticker))
        if order.ticker != ticker:
            raise refuse(400, "order_ticker_mismatch")
        if order.side is not side:
            raise refuse(400, "order_side_mismatch")
        if expected and expected != order.client_order_id:
            raise refuse(400, "order_id_and_client_order_id_mismatch")
        if expires_s is None:
            expires_s = order.expires_s
        elif expires_s == 0:
            expires_s = None
        else:
            self._check_expiry(expires_s)
        outcome, resized = self._exchange.amend(order, price, total, expires_s=expires_s, client_order_id=updated)
        data: dict[str, object] = {"order_id": order.order_id, "client_order_id": order.client_order_id}
        if outcome.filled or resized:
            data |= {"remaining_count": count_text(order.remaining), "fill_count": count_text(outcome.filled)}
        return answer(data | _averages(outcome) | {"ts_ms": order.updated_us // 1000})

    async def _decrease(self, request: web.Request, account: Account) -> web.Response:
        bodies.primary_only(request.query.get("subaccount"))
        body = await bodies.read_body(request)
        given, ticker = bodies.whole(body, "exchange_index"), bodies.text(body, "market_ticker")
        self._spend(account, bodies.bucket_of(given, ticker))
        ways = [name for name in ("reduce_by", "reduce_to") if body.get(name) is not None]
        if len(ways) != 1:
            raise bodies.bad("exactly one of reduce_by and reduce_to is required")
        amount = bodies.count(body, ways[0], least=1 if ways[0] == "reduce_by" else 0)
        order_id = request.match_info["order_id"]
        shard = self._shard(account, given, ticker, order_id)
        order = self._exchange.decrease(
            account, order_id, shard, lambda rest: rest - amount if ways[0] == "reduce_by" else amount
        )
        data: dict[str, object] = {"order_id": order_id, "client_order_id": order.client_order_id}
        return answer(data | {"remaining_count": count_text(order.remaining), "ts_ms": order.updated_us // 1000})


def _averages(outcome: Outcome) -> dict[str, object]:
    """Per contract, with four decimals; only where something was filled."""
    if not outcome.filled:
        return {}
    # Fees are millionths, counts hundredths of a contract in engine units.
    fee = (outcome.fees * 100 * COUNT_UNIT + outcome.filled // 2) // outcome.filled
    rounded = (fee + 50) // 100 * 100
    price = (outcome.money + outcome.filled // 2) // outcome.filled
    return {"average_fill_price": price_text(price), "average_fee_paid": short_money(min(rounded, MICRO))}


def _list(body: Body) -> list[Body]:
    orders = body.get("orders")
    if not isinstance(orders, list) or not orders:
        raise bodies.bad("orders must be a list that is not empty")
    return [bodies.as_object(order) for order in orders]


def _leg_error(refused: Refused) -> object:
    """The error of one leg: code, message, details without the envelope."""
    return msgspec.json.decode(refused.text)["error"]


def _query_route(request: web.Request) -> tuple[int | None, str]:
    query = request.query
    bodies.primary_only(query.get("subaccount"))
    given = query.get("exchange_index", "")
    try:
        return (int(given) if given else None), query.get("market_ticker", "")
    except ValueError:
        raise bodies.bad("exchange_index must be a whole number") from None
