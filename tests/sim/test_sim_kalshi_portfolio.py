"""Money, positions, fills, settlements and order groups of the local Kalshi; the ledger against independent sums."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock
from pmkit.sim.engine import Side, TimeInForce
from pmkit.sim.kalshi.intents import Intent
from pmkit.sim.kalshi.ledger import Account, Fees, SelfTrade, Status, money_text
from pmkit.sim.kalshi.market import SHARD
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.kalshi.windows import LENGTH_MS
from pmkit.sim.server import Refused
from pmkit.sim.world import World
from tests.sim.kalshi_client import ASSETS, OPEN, TICKER
from tests.sim.kalshi_trader import ORDERS, Desk, Trader, desk
from tests.sim.openapi import Spec


@pytest.fixture
async def at() -> AsyncIterator[Desk]:
    async with desk() as made:
        yield made


@pytest.fixture(scope="session")
def openapi(recordings: Path) -> Spec:
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    return Spec(recordings / "kalshi/spec/openapi-3.28.0-2026-08-22.yaml")


def fits(openapi: Spec, body: Any, path: str) -> None:
    assert openapi.problems(body, openapi.answer(path)) == []


def taker_fee(price: int, count: int) -> int:
    """Of an order that one fill fills."""
    return Fees().fill(price, count, is_taker=True)


def test_fees_are_the_recorded_charges(recordings: Path) -> None:
    fills = json.loads((recordings / "kalshi/rest/fees_charged.json").read_text())["fills"]
    assert len(fills) == 4
    for fill in fills:
        price, count = round(float(fill["price"]) * 10_000), round(float(fill["count"]) * 100) * 10_000
        assert money_text(taker_fee(price, count)) == fill["fee_charged"]


def test_fees_are_those_of_the_recorded_fills(recordings: Path) -> None:
    """Of orders that one fill filled: 15-minute windows, takers and makers, whole and fractional sizes (July 2026, when
    a trade fee was rounded up to 0.0001 by itself: fractional taker fills of that time may be a step higher)."""
    with gzip.open(recordings / "kalshi/sessions/rest_fills_jul2026.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if "15M" in row["ticker"]]
    times = Counter(row["order_id"] for row in rows)
    checked: Counter[tuple[bool, bool]] = Counter()
    for row in rows:
        if times[row["order_id"]] > 1:
            continue
        own = row["yes_price_dollars"] if row["book_side"] == "bid" else row["no_price_dollars"]
        price, count = (int(Decimal(text) * units) for text, units in ((own, 10_000), (row["count_fp"], 1_000_000)))
        is_taker = row["is_taker"] == "True"
        fee, charged = Fees().fill(price, count, is_taker=is_taker), int(Decimal(row["fee_cost"]) * 1_000_000)
        fractional = bool(price * count // 10_000 % 100)
        assert fee == charged or (fractional and is_taker and charged - fee == 100), row
        checked[is_taker, fractional] += 1
    assert min(checked.values()) >= 5 and sum(checked.values()) > 900, checked


def test_what_rounding_took_is_not_taken_again() -> None:
    fees = Fees()
    taken = [fees.fill(550, 370_000, is_taker=False) for _ in range(4)]
    assert taken[0] == 50 and sum(taken) < 100  # 0.055 * 0.37 is 0.02035
    assert Fees().fill(5_500, 370_000, is_taker=False) == 0


async def test_fills_of_both_roles_are_listed_newest_first(at: Desk, openapi: Spec) -> None:
    at.quote(Side.SELL, 5_500, 4)
    taken = await at.trader.order("bid", "0.5500", "6.00")
    await at.clock.advance(2)
    at.take(Side.SELL, 5_500, 1.5)
    listed = await at.trader.get("/portfolio/fills")
    fits(openapi, listed, "/portfolio/fills")
    made, took = listed["fills"]
    assert (made["is_taker"], made["count_fp"], made["fee_cost"]) == (False, "1.50", "0.000000")
    assert (took["is_taker"], took["count_fp"], took["fee_cost"]) == (True, "4.00", "0.069300")
    assert {made["order_id"], took["order_id"]} == {taken["order_id"]}
    assert (took["book_side"], took["outcome_side"], took["no_price_dollars"]) == ("bid", "yes", "0.4500")
    public = (await at.get("/markets/trades", {"ticker": TICKER}))["trades"]
    assert [trade["trade_id"] for trade in public] == [made["trade_id"], took["trade_id"]]
    assert (await at.trader.get("/portfolio/fills", order_id="0"))["fills"] == []
    assert len((await at.trader.get("/portfolio/fills", ticker=f"X,{TICKER}"))["fills"]) == 2
    assert (await at.trader.get("/portfolio/fills", min_ts=at.clock.now_ms() // 1000))["fills"] == [made]
    page = await at.trader.get("/portfolio/fills", limit=1)
    assert page["fills"] == [made]
    assert (await at.trader.get("/portfolio/fills", limit=1, cursor=page["cursor"]))["fills"] == [took]
    assert (await at.other.get("/portfolio/fills"))["fills"] == []


async def test_yes_and_no_net(at: Desk, openapi: Spec) -> None:
    """Buying NO while long YES closes YES: a pair is worth a dollar at once."""
    at.quote(Side.SELL, 4_000, 10)
    at.quote(Side.BUY, 3_000, 30)
    await at.trader.order("bid", "0.4000", "10.00")
    listed = await at.trader.get("/portfolio/positions")
    fits(openapi, listed, "/portfolio/positions")
    [position] = listed["market_positions"]
    assert (position["position_fp"], position["market_exposure_dollars"]) == ("10.00", "4.000000")
    cash = at.trader.account.cash[SHARD]
    await at.trader.order("ask", "0.3000", "25.00", time_in_force="immediate_or_cancel")
    [position] = (await at.trader.get("/portfolio/positions"))["market_positions"]
    assert (position["position_fp"], position["market_exposure_dollars"]) == ("-15.00", "10.500000")
    assert position["realized_pnl_dollars"] == "-1.000000"
    fee = taker_fee(3_000, 25_000_000)
    assert at.trader.account.cash[SHARD] - cash == 3_000_000 - 10_500_000 - fee
    assert position["fees_paid_dollars"] == money_text(taker_fee(4_000, 10_000_000) + fee)
    [event] = (await at.trader.get("/portfolio/positions"))["event_positions"]
    assert (event["event_ticker"], event["total_cost_shares_fp"]) == ("KXBTC15M-26NOV200715", "35.00")
    await at.trader.order("bid", "0.9000", "15.00")  # nobody sells: it rests
    assert (await at.trader.get("/portfolio/positions", count_filter="position"))["market_positions"]


async def test_a_settlement_pays_positions(at: Desk, openapi: Spec) -> None:
    no = Trader(at, at.venue.accounts.open({2: 100}))
    await no.order("ask", "0.4000", "10.00")
    await at.trader.order("bid", "0.4000", "10.00")
    await at.trader.order("bid", "0.1000", "10.00")
    await at.clock.advance(603)
    assert (await at.trader.get("/portfolio/settlements"))["settlements"] == []
    await at.clock.advance(3)
    result = (await at.market())["result"]
    listed = await at.trader.get("/portfolio/settlements")
    fits(openapi, listed, "/portfolio/settlements")
    [mine] = listed["settlements"]
    [theirs] = (await no.get("/portfolio/settlements"))["settlements"]
    assert mine["market_result"] == theirs["market_result"] == result
    assert (mine["yes_count_fp"], mine["yes_total_cost_dollars"], mine["no_count_fp"]) == ("10.00", "4.000000", "0.00")
    assert (theirs["no_count_fp"], theirs["no_total_cost_dollars"]) == ("10.00", "6.000000")
    won = result == "yes"
    assert (mine["revenue"], theirs["revenue"], mine["value"]) == ((1000, 0, 100) if won else (0, 1000, 0))
    fee = taker_fee(4_000, 10_000_000)
    assert at.trader.account.cash[SHARD] == 10_000_000_000 - 4_000_000 - fee + (10_000_000 if won else 0)
    assert no.account.cash[SHARD] == 100_000_000 - 6_000_000 + (0 if won else 10_000_000)
    assert (await at.trader.get("/portfolio/positions"))["market_positions"] == []
    [position] = (await at.trader.get("/portfolio/positions", settlement_status="settled"))["market_positions"]
    assert (position["position_fp"], position["market_exposure_dollars"]) == ("0.00", "0.000000")
    assert position["realized_pnl_dollars"] == ("6.000000" if won else "-4.000000")


async def test_a_late_settlement_pays_late_and_once(at: Desk) -> None:
    at.venue.calendar.late["BTC", OPEN + LENGTH_MS] = 340_000
    at.quote(Side.SELL, 4_000, 10)
    await at.trader.order("bid", "0.4000", "10.00")
    await at.clock.advance(700)
    assert at.trader.account.settlements == []
    assert (await at.trader.get("/portfolio/positions"))["market_positions"][0]["position_fp"] == "10.00"
    await at.clock.advance(300)
    assert len(at.trader.account.settlements) == 1


async def test_balance_is_per_shard(at: Desk, openapi: Spec) -> None:
    account = Trader(at, at.venue.accounts.open({0: 5, 2: "12.34"}))
    whole = await account.get("/portfolio/balance")
    fits(openapi, whole, "/portfolio/balance")
    assert (whole["balance"], whole["balance_dollars"]) == (1734, "17.3400")
    await account.order("bid", "0.0330", "0.01")
    await account.order("bid", "0.4500", "10.01")
    crypto = await account.get("/portfolio/balance", exchange_index=2)
    assert (crypto["balance"], crypto["balance_dollars"]) == (783, "7.835070")  # 0.0001 for rounding
    assert crypto["balance_breakdown"] == [{"exchange_index": 2, "balance": "7.835070"}]
    at.take(Side.SELL, 4_500, 10)
    at.quote(Side.BUY, 4_000, 1)
    assert (await account.get("/portfolio/balance"))["portfolio_value"] == 450  # its own bid is the best one


async def test_a_key_does_what_its_scopes_say(at: Desk, openapi: Spec) -> None:
    scopes = at.venue.accounts.scopes
    listed = await at.trader.get("/api_keys")
    fits(openapi, listed, "/api_keys")
    assert listed["api_keys"][0]["scopes"] == ["read", "write"]
    scopes[at.trader.account.key.id] = ("read",)
    assert await at.trader.refused("bid", "0.4000", "1.00") == (403, "forbidden")
    await at.trader.get("/portfolio/orders")
    scopes[at.trader.account.key.id] = ("read::portfolio_balance", "write::trade")
    await at.trader.order("bid", "0.4000", "1.00")
    await at.trader.get("/portfolio/balance")
    assert (await at.trader.ask("GET", "/portfolio/orders"))[0] == 403
    assert (await at.trader.ask("POST", "/portfolio/intra_exchange_instance_transfer", {}))[0] == 403


async def test_queue_positions(at: Desk, openapi: Spec) -> None:
    at.quote(Side.BUY, 4_100, 3)
    at.quote(Side.BUY, 4_000, 5.5)
    mine = await at.trader.order("bid", "0.4000", "1.00")
    at.quote(Side.BUY, 4_000, 7)
    one = await at.trader.get(f"/portfolio/orders/{mine['order_id']}/queue_position")
    fits(openapi, one, "/portfolio/orders/{order_id}/queue_position")
    assert one == {"queue_position_fp": "8.50"}
    several = await at.trader.get("/portfolio/orders/queue_positions", market_tickers=f"A,{TICKER}")
    fits(openapi, several, "/portfolio/orders/queue_positions")
    assert several["queue_positions"] == [
        {"order_id": mine["order_id"], "market_ticker": TICKER, "queue_position_fp": "8.50"}
    ]
    assert (await at.trader.ask("GET", "/portfolio/orders/queue_positions"))[0] == 400


async def test_orders_are_listed_in_pages_and_by_filters(at: Desk) -> None:
    made = [(await at.trader.order("bid", "0.4000", "1.00"))["order_id"] for _ in range(3)]
    await at.trader.cancel(made[0])
    pages, cursor = [], ""
    while True:
        page = await at.trader.get("/portfolio/orders", limit=2, cursor=cursor)
        pages.append([order["order_id"] for order in page["orders"]])
        if not (cursor := page["cursor"]):
            break
    assert pages == [made[:0:-1], made[:1]]
    for query, count in (
        ({"status": "canceled"}, 1),
        ({"event_ticker": "A,KXBTC15M-26NOV200715"}, 3),
        ({"event_ticker": "A"}, 0),
        ({"exchange_index": 0}, 0),
        ({"max_ts": OPEN // 1000}, 0),
    ):
        assert len((await at.trader.get("/portfolio/orders", **query))["orders"]) == count, query
    assert (await at.trader.ask("GET", "/portfolio/orders", query={"status": "open"}))[0] == 400
    assert (await at.trader.ask("GET", "/portfolio/orders", query={"event_ticker": ",".join("ABCDEFGHIJK")}))[0] == 400


async def test_history_is_empty_and_says_from_when(at: Desk, openapi: Spec) -> None:
    cutoff = await at.get("/historical/cutoff")
    fits(openapi, cutoff, "/historical/cutoff")
    assert cutoff["orders_updated_ts"] == "2026-11-06T12:05:00Z"
    for name in ("orders", "fills"):
        body = await at.trader.get(f"/historical/{name}")
        fits(openapi, body, f"/historical/{name}")
        assert body[name] == []
    fits(openapi, await at.get("/exchange/user_data_timestamp"), "/exchange/user_data_timestamp")


# -- order groups


async def test_a_group_that_fills_too_much_is_a_fuse(at: Desk, openapi: Spec) -> None:
    status, body = await at.trader.ask(
        "POST", "/portfolio/order_groups/create", {"contracts_limit_fp": "5.00", "exchange_index": 2}
    )
    assert status == 201
    assert openapi.problems(body, openapi.answer("/portfolio/order_groups/create", "post", "201")) == []
    group = body["order_group_id"]
    first = await at.trader.order("bid", "0.4000", "5.00", order_group_id=group)
    second = await at.trader.order("bid", "0.3900", "5.00", order_group_id=group)
    alone = await at.trader.order("bid", "0.3800", "5.00")
    path = f"/portfolio/order_groups/{group}"
    shown = await at.trader.get(path)
    fits(openapi, shown, "/portfolio/order_groups/{order_group_id}")
    assert shown["orders"] == [first["order_id"], second["order_id"]]
    at.take(Side.SELL, 4_000, 5)
    assert (await at.trader.read(second["order_id"]))["status"] == "resting"
    await at.clock.advance(10)
    at.take(Side.SELL, 3_900, 1)
    assert (await at.trader.read(second["order_id"]))["status"] == "canceled"
    assert (await at.trader.read(alone["order_id"]))["status"] == "resting"
    assert at.venue.book_truth(TICKER)["yes"] == [("0.3800", "5.00")]
    groups = await at.trader.get("/portfolio/order_groups")
    fits(openapi, groups, "/portfolio/order_groups")
    assert [found["is_auto_cancel_enabled"] for found in groups["order_groups"]] == [False]
    more = {"order_group_id": group}
    assert await at.trader.refused("bid", "0.4", "1", **more) == (400, "exceeded_order_group_risk_limit")
    assert (await at.trader.ask("PUT", f"{path}/reset"))[0] == 404  # on shard 0
    query = {"exchange_index": 2}
    assert await at.trader.ask("PUT", f"{path}/reset", {}, query) == (200, {})
    again = await at.trader.order("bid", "0.4000", "1.00", order_group_id=group)
    assert (await at.trader.ask("PUT", f"{path}/limit", {"contracts_limit": 1}, query))[0] == 200
    assert (await at.trader.ask("PUT", f"{path}/trigger", {}, query))[0] == 200
    assert (await at.trader.read(again["order_id"]))["status"] == "canceled"
    assert (await at.trader.ask("DELETE", path, None, query))[0] == 200
    assert (await at.trader.ask("GET", path))[0] == 404


async def test_a_taker_that_trips_its_group_does_not_rest(at: Desk) -> None:
    status, body = await at.trader.ask(
        "POST", "/portfolio/order_groups/create", {"contracts_limit": 2, "exchange_index": 2}
    )
    assert status == 201
    at.quote(Side.SELL, 5_000, 3)
    made = await at.trader.order("bid", "0.5000", "10.00", order_group_id=body["order_group_id"])
    assert (made["fill_count"], made["remaining_count"]) == ("3.00", "0.00")
    assert at.venue.book_truth(TICKER) == {"yes": [], "no": []}


async def test_the_window_of_a_group_rolls(at: Desk) -> None:
    _, body = await at.trader.ask(
        "POST", "/portfolio/order_groups/create", {"contracts_limit_fp": "5.00", "exchange_index": 2}
    )
    made = await at.trader.order("bid", "0.4000", "10.00", order_group_id=body["order_group_id"])
    for _ in range(2):
        at.take(Side.SELL, 4_000, 4)
        await at.clock.advance(16)
    assert (await at.trader.read(made["order_id"]))["remaining_count_fp"] == "2.00"


# -- conservation

_PRICES = (10, 50, 990, 1_000, 2_500, 4_900, 5_000, 5_100, 7_500, 9_000, 9_010, 9_990)
_WHAT = ("create", "create", "create", "create", "trader", "trader", "cancel", "amend", "decrease")


def _actions(seed: int) -> Iterator[tuple[Any, ...]]:
    """What members and the venue's traders do, near enough to each other that half of it trades."""
    draw = Random(seed)
    prices = draw.sample(_PRICES, draw.choice((2, 3, len(_PRICES))))
    for _ in range(100):
        yield (
            draw.choice(_WHAT),
            draw.randrange(3),
            draw.choice(list(Side)),
            draw.choice(prices),
            draw.choice((1, 37, 100, 250, 1_237, 2_500)),
            draw.choice(list(TimeInForce)),
            draw.choice(list(SelfTrade)),
            draw.random() < 0.2,
            draw.randrange(1_000),
        )


def _check(venue: KalshiVenue, account: Account, result: str | None = None) -> None:
    """Cash from fills alone: a short pays in the dollar it may owe, a long gets what it is worth at the end."""
    cash = account.deposited.get(SHARD, 0)
    net = bought = 0
    for fill in account.fills:
        sign = 1 if fill.order.side is Side.BUY else -1
        cash -= sign * fill.price * fill.count // 10_000 + fill.fee
        net += sign * fill.count
        bought += fill.count
    if result is None:
        cash -= max(0, -net)
        assert account.net(TICKER) == net
    else:
        cash += net if result == "yes" else 0
        assert account.net(TICKER) == 0
    assert account.cash.get(SHARD, 0) == cash
    assert account.available(SHARD) >= 0
    live = venue.live(TICKER)
    resting = {} if live is None else {order.order_id: order.size for order in live.engine.orders(account.user_id)}
    assert resting == {order_id: order.remaining for order_id, order in account.resting.items()}
    assert bought == sum(order.filled for order in account.orders.values())
    for order in account.orders.values():
        assert (order.status is Status.RESTING) == (order.order_id in account.resting)
        assert order.filled + order.remaining <= order.initial
        if order.status is Status.RESTING:
            assert order.remaining > 0
        if order.status is Status.EXECUTED:
            assert order.filled == order.initial or order.reason == "Trade"


def _play(seed: int) -> int:
    """One market with three members from its open to its settlement, checked at every step. Returns their fills."""
    clock = ManualClock(OPEN + 300_000)
    venue = KalshiVenue(World(7, clock, ASSETS), clock, steps_per_wall_second=0.0001)
    members = [venue.account, venue.accounts.open({2: 20}), venue.accounts.open({2: 3})]
    from pmkit.sim.kalshi.windows import parse

    window = parse(TICKER, ASSETS)
    assert window is not None
    venue._life._spawn = lambda coroutine, name: coroutine.close()  # nobody trades but the test
    venue._life._open(window)
    live = venue.live(TICKER)
    assert live is not None
    live.engine.cancel_all()
    exchange = venue.exchange
    refusals: Counter[int] = Counter()
    for what, who, side, price, hundredths, time_in_force, self_trade, post_only, pick in _actions(seed):
        account = members[who]
        count = hundredths * 10_000
        resting = list(account.resting.values())
        order = resting[pick % len(resting)] if resting else None
        try:
            if what == "trader":
                live.engine.submit("maker-1", side, price, count, time_in_force=time_in_force)
            elif what == "create":
                exchange.create(
                    account,
                    Intent(
                        TICKER,
                        side,
                        price,
                        count,
                        time_in_force,
                        self_trade,
                        post_only=post_only and time_in_force is TimeInForce.GTC,
                        reduce_only=post_only and time_in_force is TimeInForce.IOC,
                    ),
                )
            elif order is not None and what == "cancel":
                exchange.cancel(account, order.order_id, SHARD)
            elif order is not None and what == "amend":
                exchange.amend(order, price, order.filled + count, expires_s=None, client_order_id="")
            elif order is not None:
                exchange.decrease(account, order.order_id, SHARD, lambda rest: rest // 20_000 * 10_000)
        except Refused as refused:
            refusals[refused.status] += 1
        for member in members:
            _check(venue, member)
    assert set(refusals) <= {400}
    held = sum(member.net(TICKER) for member in members)
    traders = sum(size for owner, size in live.stats.positions.items() if owner == "maker-1")
    makers = sum(
        size
        for owner, size in live.stats.positions.items()
        if owner not in {member.user_id for member in members} and owner != "maker-1"
    )
    assert held + traders + makers == 0
    result = "yes" if seed % 2 else "no"
    venue._life._close(window)
    exchange.settle(TICKER, result)
    exchange.settle(TICKER, result)
    for member in members:
        _check(venue, member, result)
        assert member.resting == {}
    return sum(len(member.fills) for member in members)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_money_and_contracts_are_conserved(seed: int) -> None:
    _play(seed)


def test_what_is_conserved_was_traded() -> None:
    assert sum(_play(seed) for seed in range(8)) > 80


async def test_the_balance_never_goes_below_zero_among_real_traders() -> None:
    from tests.sim.kalshi_client import running

    async with running(OPEN + 300_000) as setup:
        venue = setup.venue
        account = venue.accounts.open({2: 30})
        entropy = venue.clock.entropy
        refusals: list[str] = []
        for _ in range(120):
            await setup.clock.advance(2)
            side = entropy.choice(list(Side))
            price = entropy.choice(_PRICES)
            try:
                venue.exchange.create(
                    account,
                    Intent(TICKER, side, price, entropy.randint(1, 900) * 10_000, TimeInForce.GTC, SelfTrade.MAKER),
                )
            except Refused as refused:
                refusals.append(refused.text)
            _check(venue, account)
        assert len(account.fills) > 10
        assert refusals
        assert all("insufficient_balance" in text for text in refusals)
        await setup.clock.advance(400)
        assert len(account.settlements) == 1
        _check(venue, account, account.settlements[0].result)
        assert (await setup.ask(ORDERS, method="POST", signed=True))[0] == 400
