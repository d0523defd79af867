"""A few hundred order intents with lost, delayed and reset answers, dropped sockets and killed clients, seeded.

Truth is the venue's ledger: no order twice, none lost, each fill once, the position equal.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from pmkit.errors import NotSent, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import Absent, Accepted, Fill, Intent, OrderStatus, Side, TimeInForce
from pmkit.sim.engine import SIZE_UNITS
from pmkit.sim.kalshi.mishaps import Mishap
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.venues import LocalVenues
from tests.kalshi.trading import desk, watch
from tests.local import kalshi_exchange

pytestmark = pytest.mark.virtual_time

INTENTS = int(os.environ.get("PMKIT_INTENTS", "300"))
PRICES = [Decimal(text) for text in ("0.01", "0.05", "0.30", "0.50", "0.70", "0.99")]


@dataclass
class Life:
    """One client object: what it was told, and when it lived (venue microseconds)."""

    exchange: KalshiExchange
    since_us: int
    fills: list[Fill] = field(default_factory=list)
    orders: list[OrderStatus] = field(default_factory=list)
    until_us: int = 0


@dataclass
class Ledger:
    """What the strategy believes: client order id -> what it was told."""

    accepted: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    open: dict[str, Intent] = field(default_factory=dict)


class Chaos:
    def __init__(self, venues: LocalVenues, market: KalshiMarket, seed: int) -> None:
        self.venues = venues
        self.venue: KalshiVenue = venues.kalshi
        self.market = market
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.lives: list[Life] = []
        self.count = 0

    def mishap(self, line: str) -> Mishap | None:
        if self.random.random() >= 0.2:
            return None
        return self.random.choice(list(Mishap))

    async def begin(self) -> Life:
        life = Life(kalshi_exchange(self.venues, resolve_seconds=0.5), self.venue.clock.time_ns() // 1000)
        await life.exchange.subscribe_fills(life.fills.append)
        await life.exchange.subscribe_orders(life.orders.append)
        self.lives.append(life)
        return life

    async def act(self, life: Life) -> None:
        exchange, dice = life.exchange, self.random
        client_id = f"intent-{self.count}"
        self.count += 1
        outcome, side = dice.choice(["YES", "NO"]), dice.choice(list(Side))
        size = dice.randint(1, 5)
        try:
            if dice.random() < 0.2:
                placing = exchange.place_market_order(
                    self.market,
                    outcome,
                    side,
                    worst_price="0.99" if side is Side.BUY else "0.01",
                    size=size,
                    client_order_id=client_id,
                )
            else:
                placing = exchange.place_limit_order(
                    self.market,
                    outcome,
                    side,
                    dice.choice(PRICES),
                    size,
                    client_order_id=client_id,
                    time_in_force=dice.choice([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC]),
                )
            order_id = await placing
        except OrderUnknown as error:
            self.ledger.open[client_id] = error.intent
        except (OrderRejected, NotSent):
            self.ledger.refused.add(client_id)
        else:
            self.ledger.accepted[client_id] = str(order_id)
            if dice.random() < 0.3:
                with suppress(PmkitError):
                    await exchange.cancel_order(order_id)

    async def settle(self, life: Life) -> None:
        """Ask what became of everything that is open, with the client that is there."""
        for intent in life.exchange.unresolved:
            self.ledger.open[intent.client_order_id] = intent
        opened = list(self.ledger.open.values())
        for start in range(0, len(opened), 20):
            await asyncio.gather(*(self.ask(life, intent) for intent in opened[start : start + 20]))

    async def ask(self, life: Life, intent: Intent) -> None:
        answer = None
        async with asyncio.timeout(10):
            while answer is None:
                with suppress(OrderUnknown):
                    answer = await life.exchange.resolve_order(intent)
        client_id = intent.client_order_id
        del self.ledger.open[client_id]
        if isinstance(answer, Accepted):
            self.ledger.accepted[client_id] = str(answer.order_id)
        else:
            assert isinstance(answer, Absent)
            self.ledger.refused.add(client_id)

    async def kill(self, life: Life, running: list[asyncio.Task[None]]) -> None:
        """In the middle of everything: callers are cancelled, the object is closed."""
        for task in running:
            if self.random.random() < 0.5:
                task.cancel()
        begun = life.exchange.clock.io_monotonic()
        life.until_us = self.venue.clock.time_ns() // 1000
        await life.exchange.close()
        assert life.exchange.clock.io_monotonic() - begun < 1
        await asyncio.gather(*running, return_exceptions=True)
        for intent in life.exchange.unresolved:
            self.ledger.open[intent.client_order_id] = intent

    async def run(self) -> None:
        life = await self.begin()
        self.venue.mishaps.script = self.mishap
        self.venue.mishaps.delay = 0.05
        while self.count < INTENTS:
            running = [asyncio.ensure_future(self.act(life)) for _ in range(self.random.randint(1, 6))]
            chance = self.random.random()
            if chance < 0.15:
                await asyncio.sleep(self.random.random() * 0.02)
                await self.kill(life, running)
                life = await self.begin()
                continue
            if chance < 0.22:
                self.venue.faults.drop_connections()
            if chance > 0.9:
                self.venue.faults.arm("duplicate_fill")
                self.venue.faults.arm("timestamp_expired")
            await asyncio.gather(*running)
        self.venue.mishaps.script = None
        await self.settle(life)
        async with asyncio.timeout(10):
            while not life.exchange.stream.socket.live:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        await life.exchange.stream.back_fill()
        life.until_us = self.venue.clock.time_ns() // 1000


@pytest.mark.parametrize("seed", [1, 2])
async def test_oe_seeded_intents_none_twice_none_lost_each_fill_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = watch(monkeypatch)
    async with desk(streams=False) as one:
        chaos = Chaos(one.venues, one.market, seed)
        try:
            await chaos.run()
            await check(chaos, sum(wire.ids.values()), len(wire.ids))
        finally:
            await chaos.lives[-1].exchange.close()


async def check(chaos: Chaos, sent: int, identities: int) -> None:
    """The venue's ledger against what was believed and told."""
    account = chaos.venue.account
    last = chaos.lives[-1]
    assert len(chaos.lives) > 2 and chaos.venue.faults.counts["lose_answer"] > 5

    # No order twice: each identity left once, but for stamps that were refused (proven not placed).
    assert sent - identities <= chaos.venue.faults.counts["timestamp_expired"]
    placed = Counter(order.client_order_id for order in account.orders.values())
    assert max(placed.values()) == 1

    # None lost: what the strategy believes is what the ledger has.
    truth = {order.client_order_id: order.order_id for order in account.orders.values()}
    known = chaos.ledger.accepted
    assert chaos.ledger.open == {} and last.exchange.unresolved == ()
    assert {client: truth.get(client) for client in known} == known
    assert not chaos.ledger.refused & {client for client in truth if client not in known}
    everyone = {f"intent-{number}" for number in range(chaos.count)}
    unheard = everyone - set(known) - chaos.ledger.refused  # cancelled before anything of them was sent
    assert not unheard & set(truth), unheard & set(truth)

    # Each fill once, in its own terms.
    for life in chaos.lives:
        told = Counter((fill.fill_id, fill.order_id) for fill in life.fills)
        assert not told or max(told.values()) == 1
    during = {
        (fill.trade_id, fill.order.order_id) for fill in account.fills if last.since_us <= fill.at_us <= last.until_us
    }
    assert during <= {(fill.fill_id, fill.order_id) for fill in last.fills}
    history = await last.exchange.get_trade_history()
    assert Counter((row.trade_id, row.order_id) for row in history) == Counter(
        (fill.trade_id, fill.order.order_id) for fill in account.fills
    )
    assert sum(row.fee for row in history) == sum((Decimal(fill.fee) for fill in account.fills), Decimal(0)) / 10**6

    # The position, from the venue's ledger, from the fills and as asked.
    net = Decimal(account.net(chaos.market.ticker)) / SIZE_UNITS
    held = sum(
        (row.size if (row.side is Side.BUY) == (row.outcome == "YES") else -row.size for row in history), Decimal(0)
    )
    assert held == net
    positions = {position.outcome: position.size for position in await last.exchange.get_positions()}
    assert positions == ({} if not net else {"YES" if net > 0 else "NO": abs(net)})
    resting = {order.order_id for order in account.resting.values()}
    assert {order.order_id for order in await last.exchange.get_open_orders()} == resting
    balance = await last.exchange.get_balance(chaos.market)
    assert balance == Decimal(account.available(2)) / 10**6
