"""Orders, the account and its channels of the local Kalshi, through pykalshi and kalshi-sdk, and through pmkit.

What a client reads has to be the venue's ledger and what pmkit reads for the same account. The venue's own traders
rest, so that every trade here is one that the test makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import OrderState, Side
from pmkit.sim.engine import SIZE_UNITS, TimeInForce
from pmkit.sim.engine import Side as BookSide
from pmkit.sim.kalshi.ledger import Account, FillRecord, OrderRecord
from pmkit.sim.kalshi.market import LiveMarket
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.venues import LocalVenues
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import Client, ClientError
from tests.conformance.truth import PATIENCE_SECONDS, levels, settings_of, signed_clock
from tests.kalshi.spec_check import hold
from tests.kalshi.tap import tapped

SCRIPTS = ["pykalshi_trading", "kalshi_sdk_trading"]
VERSIONS = {"pykalshi_trading": "2.0.0", "kalshi_sdk_trading": "22.4.0"}

Row = dict[str, Any]


@dataclass
class Local:
    """The venue, its one member as pmkit sees it, and a client in a process of its own."""

    venue: KalshiVenue
    exchange: KalshiExchange
    market: KalshiMarket
    client: Client

    @property
    def account(self) -> Account:
        return self.venue.account

    @property
    def live(self) -> LiveMarket:
        live = self.venue.live(self.market.ticker)
        assert live is not None
        return live

    def quote(self, side: BookSide, price: int, contracts: int) -> None:
        """A resting order of somebody else; price in 0.0001 dollars."""
        made = self.live.engine.submit("maker-1", side, price, contracts * SIZE_UNITS, post_only=True)
        assert made.order is not None

    def take(self, side: BookSide, price: int, contracts: int) -> None:
        """Somebody else takes."""
        self.live.engine.submit("taker-1", side, price, contracts * SIZE_UNITS, time_in_force=TimeInForce.IOC)

    async def create(self, book_side: str, price: str, count: str, **more: Any) -> Row:
        found: Row = await self.client.ask(
            "create", ticker=self.market.ticker, book_side=book_side, price=price, count=count, **more
        )
        return found

    async def on(self, call: str, order_id: str, **more: Any) -> Row:
        found: Row = await self.client.ask(call, order_id=order_id, ticker=self.market.ticker, **more)
        return found


@pytest.fixture
def local(
    tmp_path: Path, client: OpenClient, monkeypatch: pytest.MonkeyPatch, client_python_version: tuple[int, int]
) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(script: str) -> AsyncIterator[Local]:
        if script == "kalshi_sdk_trading" and client_python_version < (3, 12):
            pytest.skip("kalshi-sdk 22 needs Python 3.12; the environment of the clients has an older one")
        clock = signed_clock(monkeypatch)
        with tapped() as record:
            async with LocalVenues(seed=7, assets=("BTC",), clock=clock) as venues:
                for limits in (venues.kalshi.limits, venues.kalshi.writes):
                    limits.capacity = limits.refill = 1e6
                key = venues.kalshi.keys.make("rsa")  # neither client takes Ed25519 keys
                path = tmp_path / "kalshi.pem"
                path.touch(mode=0o600)
                path.write_text(key.pem)
                settings = settings_of(venues.endpoints) | {"key_id": key.id, "key_path": str(path)}
                signer = Signer.from_key(key.id, key.pem)
                async with KalshiExchange(venues.endpoints, clock, signer=signer) as exchange:
                    market = await exchange.finder().get_current_market("BTC")
                    assert isinstance(market, KalshiMarket)
                    live = venues.kalshi.live(market.ticker)
                    assert live is not None
                    live.traders.resting = True
                    live.engine.cancel_all()
                    async with client(script, settings) as one:
                        assert one.version == VERSIONS[script]
                        yield Local(venues.kalshi, exchange, market, one)
                assert venues.failures == []
        # Other people's questions are their own affair; the answers are as the exchange's files say.
        hold(record, requests=False)

    return opened


def money(micro: int) -> Decimal:
    return Decimal(micro) / 1_000_000


def count(units: int) -> Decimal:
    return Decimal(units) / SIZE_UNITS


def at(row: Row, name: str) -> Decimal:
    """A number of a client's own object: one client keeps the venue's name, the other cuts its unit off."""
    for form in (name, f"{name}_dollars", f"{name}_fp"):
        if row.get(form) is not None:
            return Decimal(str(row[form]))
    raise AssertionError(f"{name} is not in {row}")


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await true():  # noqa: ASYNC110 - the other end is a process
            await asyncio.sleep(0.05)


# ---- what a client read against the ledger


def check_order(row: Row, order: OrderRecord) -> None:
    assert (row["order_id"], row["client_order_id"], row["ticker"]) == (
        order.order_id, order.client_order_id, order.ticker
    )  # fmt: skip
    assert row["status"] == order.status
    assert row["book_side"] == ("bid" if order.side is BookSide.BUY else "ask")
    assert at(row, "yes_price") == Decimal(order.price) / 10_000
    assert (at(row, "initial_count"), at(row, "fill_count"), at(row, "remaining_count")) == (
        count(order.initial), count(order.filled), count(order.remaining)
    )  # fmt: skip
    assert (at(row, "taker_fees"), at(row, "maker_fees")) == (money(order.taker_fees), money(order.maker_fees))
    assert (at(row, "taker_fill_cost"), at(row, "maker_fill_cost")) == (
        money(order.taker_cost), money(order.maker_cost)
    )  # fmt: skip


def check_fill(row: Row, fill: FillRecord) -> None:
    assert (row["trade_id"], row["order_id"]) == (fill.trade_id, fill.order.order_id)
    assert (row.get("ticker") or row["market_ticker"]) == fill.order.ticker
    assert row["book_side"] == ("bid" if fill.order.side is BookSide.BUY else "ask")
    assert row["is_taker"] is fill.is_taker
    assert (at(row, "yes_price"), at(row, "count")) == (Decimal(fill.price) / 10_000, count(fill.count))
    assert at(row, "fee_cost") == money(fill.fee)


async def check_account(here: Local) -> None:
    """Orders, fills, positions and money, as the client, pmkit and the ledger have them."""
    account, client, exchange = here.account, here.client, here.exchange
    orders = await client.ask("orders")  # two a page, newest first
    ledger = sorted(account.orders.values(), key=lambda order: -order.number)
    assert len(orders) == len(ledger) > 2
    for row, order in zip(orders, ledger, strict=True):
        check_order(row, order)
    resting = {status.order_id: status for status in await exchange.get_open_orders()}
    assert set(resting) == {row["order_id"] for row in orders if row["status"] == "resting"}
    for row in orders:
        if row["order_id"] in resting:
            assert resting[row["order_id"]].filled_amount == at(row, "fill_count")

    fills = await client.ask("fills")
    assert len(fills) == len(account.fills) == 2
    for row, fill in zip(fills, reversed(account.fills), strict=True):
        check_fill(row, fill)
    history = {(trade.trade_id, trade.order_id): trade for trade in await exchange.get_trade_history()}
    assert len(history) == len(fills)
    for row in fills:
        trade = history[row["trade_id"], row["order_id"]]
        assert (trade.size, trade.fee) == (at(row, "count"), at(row, "fee_cost"))
        bought = (trade.side is Side.BUY) == (trade.outcome == "YES")
        assert bought == (row["book_side"] == "bid")
        assert (trade.price if trade.outcome == "YES" else 1 - trade.price) == at(row, "yes_price")

    (position,) = await client.ask("positions")
    held = account.positions[here.market.ticker]
    assert (at(position, "position"), at(position, "market_exposure")) == (count(held.net), money(held.cost))
    assert (at(position, "fees_paid"), at(position, "realized_pnl")) == (money(held.fees), money(held.realized))
    (mine,) = await exchange.get_positions()
    assert (mine.size if mine.outcome == "YES" else -mine.size) == at(position, "position")

    balance = await client.ask("balance")
    total = sum(account.available(shard) for shard in account.cash)
    assert balance["balance"] == total // 10_000
    assert await exchange.get_balance() == money(total)
    assert await exchange.get_balance(here.market) == money(account.available(2))


# ---- the tests


@pytest.mark.parametrize("script", SCRIPTS)
async def test_orders_from_beginning_to_end(local: Callable[[str], Any], script: str) -> None:
    async with local(script) as here:
        account, ticker = here.account, here.market.ticker
        # pykalshi says neither market nor shard when it cancels: the exchange looks on shard 0, and finds nothing of
        # crypto there. With the switch it goes on as it would on shard 0.
        pykalshi = script == "pykalshi_trading"
        here.quote(BookSide.SELL, 5_500, 5)

        # Taken: three contracts at 0.55.
        taken = await here.create("bid", "0.55", "3", client_order_id="taken")
        assert at(taken, "fill_count") == 3 and at(taken, "remaining_count") == 0
        if not pykalshi:
            assert at(taken, "average_fill_price") == Decimal("0.55")
            assert abs(at(taken, "average_fee_paid") - money(account.fills[0].fee) / 3) < Decimal("0.0001")

        # Rests, is amended, becomes smaller, trades in part, is cancelled.
        made = await here.create("bid", "0.40", "10.5", client_order_id="made")
        order_id = made["order_id"]
        amended = await here.on("amend", order_id, book_side="bid", price="0.41", count="12")
        assert at(amended, "remaining_count") == 12
        if pykalshi:
            with pytest.raises(ClientError) as refused:
                await here.on("decrease", order_id, by="2")
            assert (refused.value.type, refused.value.details["status_code"]) == ("ResourceNotFoundError", 404)
            with pytest.raises(ClientError) as refused:
                await here.on("cancel", order_id)
            assert (refused.value.type, refused.value.details["status_code"]) == ("ResourceNotFoundError", 404)
            here.venue.orders.cancels_find_any_shard = True
        assert at(await here.on("decrease", order_id, by="2"), "remaining_count") == 10
        here.quote(BookSide.BUY, 4_200, 7)
        queue = await here.on("queue", order_id)
        assert [(row["order_id"], at(row, "queue_position")) for row in queue] == [(order_id, 7)] * 2
        assert await here.exchange.queue_position(order_id) == 7
        here.take(BookSide.SELL, 4_100, 11)
        check_order(await here.client.ask("order", order_id=order_id), account.orders[order_id])
        assert count(account.orders[order_id].filled) == 4
        gone = await here.on("cancel", order_id)
        assert count(account.orders[order_id].filled) == 4 and account.orders[order_id].status == "canceled"
        if not pykalshi:  # pykalshi reads no `reduced_by`
            assert at(gone, "reduced_by") == 6
        status = await here.exchange.get_order_status(order_id)
        assert (status.status, status.filled_amount) == (OrderState.CANCELED, 4)

        # The other outcome, by pmkit and by the client: both at a price of YES.
        mine = await here.exchange.place_limit_order(here.market, "NO", Side.BUY, "0.30", 2, client_order_id="mine")
        check_order(await here.client.ask("order", order_id=str(mine)), account.orders[str(mine)])
        assert account.orders[str(mine)].price == 7_000
        theirs = await here.create("ask", "0.71", "1", client_order_id="theirs")
        status = await here.exchange.get_order_status(theirs["order_id"])
        assert (status.outcome, status.side, status.price) in (
            ("NO", Side.BUY, Decimal("0.29")), ("YES", Side.SELL, Decimal("0.71"))
        )  # fmt: skip

        # Nothing to take, off the grid, an id twice, too much.
        killed = await here.create("bid", "0.30", "1", time_in_force="fill_or_kill", client_order_id="killed")
        assert at(killed, "fill_count") == 0
        for fields, code in (
            ({"price": "0.3033", "count": "1", "client_order_id": "g"}, 400),
            ({"price": "0.30", "count": "1", "client_order_id": "taken"}, 409),
            ({"price": "0.50", "count": "900000", "client_order_id": "h"}, 400),
        ):
            with pytest.raises(ClientError) as refused:
                await here.create("bid", **fields)
            assert refused.value.details["status_code"] == code
        await check_account(here)

        # Settled: a dollar for each contract of the result.
        await here.exchange.cancel_everything()
        before = account.cash[2]
        here.venue.exchange.settle(ticker, "yes")
        (row,) = await here.client.ask("settlements")
        (settlement,) = account.settlements
        assert (row["ticker"], row["market_result"], row["revenue"]) == (ticker, "yes", 700)
        assert account.cash[2] - before == settlement.revenue == 7_000_000
        assert (at(row, "yes_count"), at(row, "no_count")) == (7, 0)
        assert at(row, "yes_total_cost") == money(settlement.yes_cost)
        (mine_row,) = await here.exchange.get_settlements()
        assert mine_row.ticker == ticker


@pytest.mark.parametrize("script", SCRIPTS)
async def test_batches_have_a_result_for_each_leg(local: Callable[[str], Any], script: str) -> None:
    async with local(script) as here:
        ticker, account = here.market.ticker, here.account
        prices = ("0.3", "0.3033", "0.95")
        legs = [
            {"ticker": ticker, "book_side": side, "price": price, "count": "2.00", "client_order_id": f"leg-{price}"}
            for side, price in zip(("bid", "bid", "ask"), prices, strict=True)
        ]
        placed = await here.client.ask("create_batch", orders=legs)
        assert [row["client_order_id"] for row in placed] == [leg["client_order_id"] for leg in legs]
        good = [placed[0], placed[2]]
        assert {row["order_id"] for row in good} == set(account.orders) == set(account.resting)
        assert placed[1]["order_id"] == ""
        if script == "kalshi_sdk_trading":
            assert placed[1]["error"]["code"] == "invalid_price" and placed[0]["error"] is None
        else:
            # pykalshi shows a leg that was refused as an order that rests, without an id and without the error.
            assert placed[1]["status"] == "resting" and "error" not in placed[1]
            here.venue.orders.cancels_find_any_shard = True
        ids = [row["order_id"] for row in good]
        gone = await here.client.ask("cancel_batch", order_ids=[*ids, ids[0]], ticker=ticker)
        assert [row["order_id"] for row in gone] == [*ids, ids[0]]
        assert not account.resting
        if script == "kalshi_sdk_trading":
            assert [at(row, "reduced_by") for row in gone] == [2, 2, 0]
            assert [row["error"] is None for row in gone] == [True, True, False]
            rested = await here.create("bid", "0.30", "1", client_order_id="rested")
            await here.client.ask("cancel_all")
            assert account.orders[rested["order_id"]].status == "canceled"
        assert await here.exchange.get_open_orders() == []


async def test_a_group_of_the_markets_shard_takes_its_orders_with_it(local: Callable[[str], Any]) -> None:
    async with local("kalshi_sdk_trading") as here:
        made = await here.client.ask("group_create", limit="20")
        group_id = made["order_group_id"]
        assert made["exchange_index"] == 2
        order = await here.create("bid", "0.30", "2", client_order_id="a", order_group_id=group_id)
        shown = await here.client.ask("group", group_id=group_id)
        assert shown["orders"] == [order["order_id"]] and at(shown, "contracts_limit") == 20
        assert [row["id"] for row in await here.client.ask("groups")] == [group_id]
        # Its reset, trigger and limit have no exchange index: they look on shard 0.
        for call, args in (("group_trigger", {}), ("group_reset", {}), ("group_limit", {"limit": "5"})):
            with pytest.raises(ClientError) as refused:
                await here.client.ask(call, group_id=group_id, **args)
            assert refused.value.details["status_code"] == 404
        await here.client.ask("group_delete", group_id=group_id)
        assert here.account.orders[order["order_id"]].status == "canceled"
        assert not here.venue.exchange.groups.groups


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_group_of_shard_0(local: Callable[[str], Any], script: str) -> None:
    """All its life. An order of a crypto market cannot join it; pykalshi can make no other."""
    async with local(script) as here:
        create = "group_create" if script == "pykalshi_trading" else "group_create_on_0"
        made = await here.client.ask(create, limit="20")
        (group_id,) = here.venue.exchange.groups.groups
        assert made.get("id", made.get("order_group_id")) == group_id
        await here.client.ask("group_limit", group_id=group_id, limit="5")
        shown = await here.client.ask("group", group_id=group_id)
        assert at(shown, "contracts_limit") == 5 and shown["is_auto_cancel_enabled"] is True
        await here.client.ask("group_trigger", group_id=group_id)
        assert (await here.client.ask("group", group_id=group_id))["is_auto_cancel_enabled"] is False
        await here.client.ask("group_reset", group_id=group_id)
        assert (await here.client.ask("group", group_id=group_id))["is_auto_cancel_enabled"] is True
        with pytest.raises(ClientError) as refused:
            await here.create("bid", "0.30", "2", client_order_id="a", order_group_id=group_id)
        assert refused.value.details["status_code"] == 404


@pytest.mark.parametrize("script", SCRIPTS)
async def test_streams_tell_what_the_ledger_has(local: Callable[[str], Any], script: str) -> None:
    async with local(script) as here:
        account, ticker, client = here.account, here.market.ticker, here.client
        here.quote(BookSide.BUY, 100, 5)  # kalshi-sdk takes no snapshot of one side
        here.quote(BookSide.SELL, 9_900, 5)
        await client.ask("watch", ticker=ticker)
        channels = ("orderbook_delta", "fill", "user_orders", "market_positions", "order_group_updates")

        async def subscribed() -> bool:
            return any(
                {found.channel for found in session.subscriptions.values()} >= set(channels)
                for session in here.venue._sessions()
            )

        await until(subscribed)
        mine: list[Any] = []
        await here.exchange.subscribe_fills(mine.append)
        await here.exchange.subscribe_orderbook([here.market])
        here.quote(BookSide.SELL, 5_500, 4)
        await here.create("bid", "0.55", "6", client_order_id="both")  # four are taken, two rest
        here.take(BookSide.SELL, 5_500, 1)
        group = await here.exchange.place_limit_order(here.market, "NO", Side.BUY, "0.20", 3, client_order_id="mine")
        await here.exchange.cancel_order(group)
        here.venue.exchange.groups.create(account, 10 * SIZE_UNITS, 2)

        async def complete() -> bool:
            told = await client.ask("messages")
            return bool(len(told["fill"]) >= 2 and len(told["user_orders"]) >= 4 and told["order_group_updates"])

        await until(complete)
        told = await client.ask("messages")
        assert not [row for rows in told.values() if isinstance(rows, list) for row in rows if "unparsed" in row]
        assert len(told["fill"]) == len(account.fills) == 2
        net = 0
        for row, fill in zip(told["fill"], account.fills, strict=True):
            check_fill(row, fill)
            net += fill.count
            assert at(row, "post_position") == count(net)
            assert row["client_order_id"] == "both"
        last = {row["order_id"]: row for row in told["user_orders"]}
        assert set(last) == set(account.orders)
        for order_id, row in last.items():
            check_order(row, account.orders[order_id])
        assert [row["status"] for row in told["user_orders"]] == ["resting", "resting", "resting", "canceled"]
        held = account.positions[ticker]
        assert at(told["market_positions"][-1], "position") == count(held.net)
        assert at(told["market_positions"][-1], "position_cost") == money(held.cost)
        (row,) = told["order_group_updates"]
        assert (row["event_type"], at(row, "contracts_limit")) == ("created", 10)

        async def heard() -> bool:
            return len(mine) == 2

        await until(heard)
        assert [(fill.fill_id, fill.size) for fill in mine] == [
            (fill.trade_id, count(fill.count)) for fill in account.fills
        ]

        # The book, with the own order in it, of the client, of pmkit and of the venue.
        here.quote(BookSide.BUY, 4_400, 8)
        truth = here.venue.book_truth(ticker)
        wanted = levels(truth["yes"]), levels(truth["no"])

        async def same() -> bool:
            found = await client.ask("book", ticker=ticker)
            return found is not None and (levels(found["yes"]), levels(found["no"])) == wanted

        await until(same)
        assert wanted[0][Decimal("0.55")] == 1
        book = here.exchange.book(here.market, "YES")

        async def mine_too() -> bool:
            return book.valid and {level.price: level.size for level in book.levels("BID")} == wanted[0]

        await until(mine_too)
        assert "Failed to validate" not in client.said


async def test_a_partly_filled_ioc_order_looks_executed_to_pykalshi(local: Callable[[str], Any]) -> None:
    async with local("pykalshi_trading") as here:
        here.quote(BookSide.SELL, 5_500, 2)
        taken = await here.create("bid", "0.55", "3", time_in_force="immediate_or_cancel", client_order_id="a")
        assert (taken["status"], at(taken, "fill_count")) == ("executed", 2)
        assert (await here.client.ask("order", order_id=taken["order_id"]))["status"] == "canceled"
        mine = await here.exchange.get_order_status(taken["order_id"])
        assert (mine.status, mine.filled_amount) == (OrderState.CANCELED, 2)
