"""Damaged frames and bodies: none raises out of a stream, or anything but an error of pmkit's, and no book that says
it is valid is wrong.

    python -m tests.kalshi.fuzz [--count 100000] [--seed 1] [PART ...]

Parts: books, user, index, answers, bodies. Each runs through `count` damaged frames or bodies. Ends with what was seen,
and 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx
import respx

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.errors import PmkitError
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.messages import INDEX
from pmkit.exchanges.kalshi.order_replies import (
    ReplyError,
    amended,
    cancelled,
    cancelled_batch,
    created,
    created_batch,
    decreased,
    group_created,
)
from pmkit.exchanges.kalshi.orders import CreateOrder, SelfTrade
from pmkit.exchanges.kalshi.reference_ws import IndexPrices, _Asset
from pmkit.exchanges.kalshi.refusals import Proof, Verdict
from pmkit.exchanges.kalshi.sides import BookSide
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.kalshi.user_messages import Bucket, LimitsAnswer
from pmkit.exchanges.types import CancelResult, Fill, OrderId, OrderStatus
from pmkit.websocket.base import FrameError
from tests.kalshi.frames import T0_NS, T, U, encode
from tests.kalshi.rest_venue import BASE, RestVenue
from tests.kalshi.test_book_fuzz import Line, damage

NOW_MS = 1_795_176_000_000 + 420_000


def _exchange(clock: ManualClock) -> KalshiExchange:
    from pmkit.sim.kalshi.auth import Keys

    key = Keys(clock).make("ed25519")
    made = KalshiExchange(Endpoints.real(), clock, signer=Signer.from_key(key.id, key.pem))
    made._budget.learn(LimitsAnswer(read=Bucket(1e15, 1e15), write=Bucket(1e15, 1e15)))
    return made


# -- frames -----------------------------------------------------------------------------------------------------------


def books(count: int, seed: int) -> Counter[str]:
    """A tenth of the frames is lost, late, repeated or damaged; every valid book equals the venue's at each step."""
    found: Counter[str] = Counter()
    line = Line(seed)
    queue = [line.venue.snapshot(T), line.venue.snapshot(U)]
    while sum(line.counts.values()) < count:
        queue.append(line.venue.change())
        if line.asked and line.random.random() < 0.3:
            queue += line.snapshots()
        line.send(queue)
        if line.venue.seq % 500 == 0:
            line.venue.after = {seq: books for seq, books in line.venue.after.items() if seq > line.venue.seq - 10_000}
    found.update(line.counts)
    found["valid"], found["checks"] = line.valid, line.checks
    return found


def _user_frames() -> list[bytes]:
    fill = {
        "trade_id": "d91bc706-ee49-470d-82d8-11418bda6fed",
        "order_id": "ee587a1c-8b87-4dcf-b721-9f6f790619fa",
        "client_order_id": "mine",
        "market_ticker": T,
        "exchange_index": 2,
        "is_taker": True,
        "outcome_side": "yes",
        "book_side": "bid",
        "yes_price_dollars": "0.750",
        "count_fp": "278.00",
        "fee_cost": "3.648750",
        "post_position_fp": "500.00",
        "subaccount": 0,
        "ts": 1795176001,
        "ts_ms": 1795176001000,
    }
    order = {
        "order_id": "ee587a1c-8b87-4dcf-b721-9f6f790619fa",
        "client_order_id": "mine",
        "ticker": T,
        "exchange_index": 2,
        "status": "resting",
        "outcome_side": "yes",
        "book_side": "bid",
        "yes_price_dollars": "0.3500",
        "initial_count_fp": "500.00",
        "fill_count_fp": "278.00",
        "remaining_count_fp": "222.00",
        "taker_fill_cost_dollars": "208.5000",
        "maker_fill_cost_dollars": "0.0000",
        "taker_fees_dollars": "3.6488",
        "maker_fees_dollars": "0.0000",
        "created_ts_ms": 1795176000000,
        "last_updated_ts_ms": 1795176001000,
        "expiration_ts_ms": 1795179600000,
        "subaccount_number": 0,
        "last_update_reason": "Trade",
    }
    position = {
        "market_ticker": T,
        "position_fp": "100.00",
        "position_cost_dollars": "50.0000",
        "realized_pnl_dollars": "10.0000",
        "fees_paid_dollars": "1.0000",
        "volume_fp": "15.00",
        "subaccount": 0,
    }
    return [
        encode({"type": "subscribed", "id": 1, "msg": {"channel": "fill", "sid": 1}}),
        encode({"type": "fill", "sid": 1, "msg": fill}),
        encode({"type": "fill", "sid": 1, "seq": 3, "msg": {**fill, "trade_id": "other", "book_side": "ask"}}),
        encode({"type": "user_order", "sid": 2, "msg": order}),
        encode({"type": "user_order", "sid": 2, "msg": {**order, "status": "canceled", "remaining_count_fp": "0.00"}}),
        encode({"type": "market_position", "sid": 3, "msg": position}),
        encode({"type": "ok", "id": 3, "sid": 1, "seq": 4, "msg": {"market_tickers": [T]}}),
        encode({"type": "error", "id": 5, "sid": 1, "msg": {"code": 8, "msg": "Unknown channel name"}}),
        encode({"type": "order_group_updates", "sid": 4, "seq": 1, "msg": {"event_type": "created"}}),
    ]


async def user(count: int, seed: int) -> Counter[str]:
    """The user socket takes or refuses each frame; no fill comes twice and none with numbers that cannot be."""
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    exchange = _exchange(ManualClock(NOW_MS))
    stream, told = exchange.stream, Counter[tuple[str, str]]()

    def on_fill(fill: Fill) -> None:
        told[fill.fill_id, fill.order_id] += 1
        assert fill.size > 0 and 0 <= fill.price <= 1 and fill.fee.is_finite(), fill

    def on_order(status: OrderStatus) -> None:
        assert 0 <= status.price <= 1 and status.size >= 0 and status.filled_amount >= 0, status
        found["orders"] += 1

    stream.fills(on_fill)
    stream.orders(on_order)
    frames = _user_frames()
    for number in range(count):
        frame = rng.choice(frames)
        try:
            stream.socket._on_frame(damage(frame, rng) if rng.random() < 0.9 else frame, T0_NS + number)
            found["taken"] += 1
        except FrameError:
            found["refused"] += 1
    found["fills"] = len(told)
    assert max(told.values()) == 1
    await exchange.close()
    return found


async def index(count: int, seed: int) -> Counter[str]:
    """The index socket takes or refuses each frame; prices and averages are numbers."""
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    clock = ManualClock(NOW_MS)
    exchange = _exchange(clock)
    signer = exchange.data._signer
    assert signer is not None

    async def none(asset: str) -> Any:
        return None

    async def measure() -> None:
        return None

    prices = IndexPrices(
        Endpoints.real().kalshi.ws,
        clock,
        signer,
        exchange.venue_clock,
        compression=False,
        current=none,
        measure=measure,
    )
    prices._names["BRTI"], prices._assets["BTC"] = "BTC", _Asset()
    data = json.dumps({"type": "value", "id": "BRTI", "time": NOW_MS, "value": "68000.12"})
    average = {"value": "68000.12000000", "window_size": 3, "window_start_ts_ms": 1, "window_end_ts_exclusive": 2}
    message = {
        "index_id": "BRTI",
        "received_at": NOW_MS,
        "data": data,
        "avg_60s_data": average,
        "last_60s_windowed_average_15min": average,
    }
    frame = encode({"type": INDEX, "sid": 1, "seq": 42, "msg": message})
    for number in range(count):
        try:
            found["taken"] += prices.socket._on_frame(damage(frame, rng), T0_NS + number)
        except FrameError:
            found["refused"] += 1
        state = prices._assets["BTC"]
        if state.last is not None:
            known = (state.last.price, state.last.average, state.last.settlement)
            assert all(one is None or (one.is_finite() and one > 0) for one in known), state.last
        state.last = None  # else one damaged stamp of the far future would leave out all that follows
        if state.looking is not None:
            state.looking.cancel()
            state.looking, state.window = None, 0
    await prices.close()
    await exchange.close()
    return found


# -- bodies -----------------------------------------------------------------------------------------------------------

_SENT = CreateOrder(
    ticker=T,
    side=BookSide.BID,
    count="10.00",
    price="0.5600",
    time_in_force="good_till_canceled",
    self_trade_prevention_type=SelfTrade.TAKER_AT_CROSS,
    client_order_id="8c35ecb3",
    exchange_index=2,
)
_CREATED = {
    "order_id": "3b23c1c7",
    "client_order_id": "8c35ecb3",
    "fill_count": "4.00",
    "remaining_count": "6.00",
    "average_fill_price": "0.5600",
    "average_fee_paid": "0.0172",
    "ts_ms": 1795185600123,
}
_CANCELLED = {"order_id": "3b23c1c7", "client_order_id": "8c35ecb3", "reduced_by": "6.00", "ts_ms": 1795185600123}
_ERROR = {"error": {"code": "insufficient_balance", "message": "insufficient balance", "details": ""}}


def answers(count: int, seed: int) -> Counter[str]:
    """Answers to orders: whatever comes, a verdict or an order that fits what was sent."""
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    whole = [encode(_CREATED), encode({"orders": [_CREATED, _CREATED]}), encode(_CANCELLED), encode(_ERROR)]
    whole += [encode({"orders": [_CANCELLED]}), encode({"order_group_id": "og-1"})]
    whole += [encode({"error": "too many requests"})]
    for _ in range(count):
        body = damage(rng.choice(whole), rng)
        status = rng.choice([200, 201, 204, 301, 400, 401, 403, 404, 408, 409, 410, 422, 425, 429, 500, 502, 503])
        results = [created(status, body, _SENT, "YES"), *created_batch(status, body, [(_SENT, "YES"), (_SENT, "NO")])]
        for one in results:
            if isinstance(one, OrderId):
                found["order"] += 1
                assert 200 <= status < 300 and str(one) and 0 <= one.filled_amount <= 10, (status, body)
            else:
                assert isinstance(one, Verdict) and one.proof is not Proof.PLACED
                assert (one.error is not None) == (one.proof in (Proof.REFUSED, Proof.STALE_STAMP)), (status, body)
                assert one.proof is not Proof.REFUSED or status not in (408, 425, 500, 502, 503), (status, body)
                found[str(one.proof.value)] += 1
        gone = cancelled(status, body, "3b23c1c7", routed=rng.random() < 0.5)
        for result in (gone, cancelled_batch(status, body, ["3b23c1c7"])["3b23c1c7"]):
            assert not isinstance(result, CancelResult) or 200 <= status < 300 or status == 404, (status, body)
        for read in (lambda raw: amended(raw, "NO"), lambda raw: decreased(raw, "3b23c1c7"), group_created):
            try:
                read(body)
            except ReplyError:
                found["reply refused"] += 1
    return found


def _pages() -> dict[str, Any]:
    """Whole answers by path, for the queries of `bodies`."""
    order = {
        "order_id": "o-1",
        "client_order_id": "mine",
        "ticker": T,
        "book_side": "bid",
        "status": "resting",
        "yes_price_dollars": "0.4000",
        "initial_count_fp": "2.00",
        "fill_count_fp": "0.50",
        "remaining_count_fp": "1.50",
        "taker_fill_cost_dollars": "0.20",
        "maker_fill_cost_dollars": "0.00",
        "created_time": "2026-11-20T12:00:00Z",
        "last_update_time": "2026-11-20T12:00:01Z",
        "exchange_index": 2,
    }
    fill = {
        "trade_id": "t-1",
        "order_id": "o-1",
        "ticker": T,
        "book_side": "bid",
        "count_fp": "0.50",
        "yes_price_dollars": "0.4000",
        "is_taker": True,
        "fee_cost": "0.01",
        "created_time": "2026-11-20T12:00:00Z",
    }
    position = {
        "ticker": T,
        "position_fp": "-3.00",
        "market_exposure_dollars": "1.50",
        "last_updated_ts": "2026-11-20T12:00:00Z",
        "exchange_index": 2,
    }
    settlement = {
        "ticker": T,
        "market_result": "yes",
        "yes_count_fp": "1.00",
        "yes_total_cost_dollars": "0.40",
        "no_count_fp": "0.00",
        "no_total_cost_dollars": "0.00",
        "revenue": 100,
        "fee_cost": "0.01",
        "value": 100,
        "settled_time": "2026-11-20T12:00:00Z",
    }
    prices = {"open_dollars": "0.4", "high_dollars": "0.6", "low_dollars": "0.3", "close_dollars": "0.5"}
    candle = {
        "end_period_ts": 1795176060,
        "yes_bid": prices,
        "yes_ask": prices,
        "price": prices,
        "volume_fp": "1.00",
        "open_interest_fp": "2.00",
    }
    moment = "2026-09-10T00:00:00Z"
    return {
        "/portfolio/orders/o-1": {"order": order},
        "/portfolio/orders/o-1/queue_position": {"queue_position_fp": "12.00"},
        "/portfolio/orders/queue_positions": {
            "queue_positions": [{"order_id": "o-1", "market_ticker": T, "queue_position_fp": "12.00"}]
        },
        "/portfolio/orders": {"orders": [order, {**order, "order_id": "o-2"}], "cursor": ""},
        "/portfolio/fills": {"fills": [fill], "cursor": ""},
        "/historical/fills": {"fills": [fill], "cursor": ""},
        "/portfolio/positions": {"market_positions": [position], "event_positions": [], "cursor": ""},
        "/portfolio/settlements": {"settlements": [settlement], "cursor": ""},
        "/portfolio/balance": {
            "balance": 1234,
            "balance_dollars": "12.3400",
            "portfolio_value": 1,
            "updated_ts": 1,
            "balance_breakdown": [{"exchange_index": 2, "balance": "12.3400"}],
        },
        "/account/limits": {
            "usage_tier": "basic",
            "read": {"refill_rate": 200, "bucket_capacity": 600},
            "write": {"refill_rate": 100, "bucket_capacity": 100},
            "grants": [],
        },
        "/historical/cutoff": {"market_settled_ts": moment, "trades_created_ts": moment, "orders_updated_ts": moment},
        "candlesticks": {"ticker": T, "candlesticks": [candle]},
    }


class _Damaging(RestVenue):
    """A whole REST venue, of whose answers one per query is damaged."""

    def __init__(self, clock: ManualClock, rng: random.Random) -> None:
        super().__init__(clock)
        self.rng = rng
        self.pages = _pages()
        self.armed = False
        self.books[T] = {"yes_dollars": [["0.4200", "13.00"]], "no_dollars": [["0.5600", "17.00"]]}
        self.trades = [
            {
                "trade_id": "t",
                "ticker": T,
                "count_fp": "1.00",
                "yes_price_dollars": "0.4000",
                "taker_outcome_side": "no",
                "created_time": "2026-11-20T20:01:00Z",
            }
        ]

    def route(self, path: str, params: httpx.QueryParams) -> Any:
        page = self.pages.get(path) or (self.pages["candlesticks"] if path.endswith("candlesticks") else None)
        return page if page is not None else super().route(path, params)

    def answer(self, request: httpx.Request) -> httpx.Response:
        whole = super().answer(request)
        if not self.armed or self.rng.random() < 0.3:
            return whole
        self.armed = False
        return httpx.Response(whole.status_code, content=damage(whole.content, self.rng), headers={"date": "x"})


async def bodies(count: int, seed: int) -> Counter[str]:
    """Every query of the client gets a damaged body: an answer or an error of pmkit's."""
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    clock = ManualClock(NOW_MS)
    venue = _Damaging(clock, rng)
    with respx.mock(assert_all_called=False) as router:
        router.route(url__startswith=BASE).mock(side_effect=venue.answer)
        exchange = _exchange(clock)
        data = exchange.data
        market = await data.get_market(T)
        assert isinstance(market, KalshiMarket)
        queries: Sequence[Callable[[], Awaitable[Any]]] = (
            exchange.get_open_orders,
            exchange.get_orders,
            exchange.get_positions,
            exchange.get_balance,
            lambda: exchange.get_balance(market),
            exchange.get_balances,
            exchange.get_trade_history,
            exchange.get_settlements,
            lambda: exchange.get_order_status("o-1"),
            lambda: exchange.queue_position("o-1"),
            lambda: exchange.queue_positions(market),
            exchange.exchange_status,
            exchange.exchange_schedule,
            lambda: data.finder().list_markets("BTC"),
            lambda: data.finder().list_markets(series="KXBTC15M"),
            lambda: data.finder().list_series("Crypto"),
            lambda: data.finder().get_current_market("BTC"),
            lambda: data.get_orderbook(market, "NO"),
            lambda: data.get_market_candles(market),
            lambda: data.get_market_trades(market),
            lambda: data.get_market(T),
        )
        for _ in range(count):
            venue.armed = True
            try:
                answer = await rng.choice(queries)()
                found["answered"] += 1
            except PmkitError as error:
                found[type(error).__name__] += 1
                continue
            if isinstance(answer, Decimal):
                assert answer.is_finite()
        await exchange.close()
    return found


PARTS = {"books": books, "user": user, "index": index, "answers": answers, "bodies": bodies}


def fuzz(part: str, count: int, seed: int) -> Counter[str]:
    """One part; an AssertionError, or what else was raised, where something is wrong."""
    logging.getLogger("pmkit").setLevel(logging.CRITICAL)
    try:
        result = PARTS[part](count, seed)
        return result if isinstance(result, Counter) else asyncio.run(_awaited(result))
    finally:
        logging.getLogger("pmkit").setLevel(logging.NOTSET)


async def _awaited(coro: Awaitable[Counter[str]]) -> Counter[str]:
    return await coro


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], default=[])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for part in given.parts or PARTS:
        began = time.perf_counter()
        found = fuzz(part, given.count, given.seed)
        print(f"{part}: {given.count} in {time.perf_counter() - began:.0f} s: {dict(found)}")
    print("nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
