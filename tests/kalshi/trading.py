"""What the tests of trading share: a local Kalshi with one member, and an exchange on it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import Fill, OrderStatus
from pmkit.http import HttpSession

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.kalshi.ledger import OrderRecord
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.venues import LocalVenues
from tests.local import kalshi_exchange, local_venues

ENTRY = "/portfolio/events/orders"
LOW = Decimal("0.01")


@dataclass
class Desk:
    """The venues, the member's exchange and what its streams have told."""

    venues: LocalVenues
    exchange: KalshiExchange
    market: KalshiMarket
    fills: list[Fill] = field(default_factory=list)
    orders: list[OrderStatus] = field(default_factory=list)

    @property
    def venue(self) -> KalshiVenue:
        return self.venues.kalshi

    @property
    def ledger(self) -> dict[str, OrderRecord]:
        """The venue's truth: client order id -> order."""
        return {order.client_order_id: order for order in self.venue.account.orders.values()}


@asynccontextmanager
async def desk(*, factor: float = 1.0, streams: bool = True, **options: Any) -> AsyncIterator[Desk]:
    """Nothing may be left behind, close() takes less than a second, and the venue must have had no failure."""
    boundary = 600.0 if factor == 1.0 else 5.0
    async with local_venues(factor=factor, boundary=boundary) as venues:
        venues.kalshi.writes.capacity = venues.kalshi.writes.refill = 1e6
        venues.kalshi.limits.capacity = venues.kalshi.limits.refill = 1e6
        running = asyncio.all_tasks()
        exchange = kalshi_exchange(venues, **options)
        market = await exchange.finder().get_current_market("BTC")
        assert isinstance(market, KalshiMarket), market
        one = Desk(venues, exchange, market)
        try:
            if streams:
                await exchange.subscribe_fills(one.fills.append)
                await exchange.subscribe_orders(one.orders.append)
            yield one
        finally:
            begun = exchange.clock.io_monotonic()
            await exchange.close()
            took = exchange.clock.io_monotonic() - begun
        assert took < 1, took
        await exchange.close()
        assert not {task.get_name() for task in asyncio.all_tasks() - running if "pmkit" in task.get_name()}
        assert venues.failures == []


@dataclass
class Wire:
    """Every request that left: (method, path), with query and body, and how often each client order id was sent."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, Any], Any]] = field(default_factory=list)
    ids: Counter[str] = field(default_factory=Counter)

    def count(self, method: str, end: str) -> int:
        return sum(one == method and path.endswith(end) for one, path in self.lines)


def watch(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    real = HttpSession.request

    async def request(self: HttpSession, method: str, path: str, **options: Any) -> Any:
        wire.lines.append((method, path))
        sent = json.loads(options["body"]) if options.get("body") else None
        wire.requests.append((method, path, dict(options.get("params") or {}), sent))
        if method == "POST" and path.startswith(ENTRY) and options.get("body"):
            body = json.loads(options["body"])
            for leg in body.get("orders", [body]):
                wire.ids[leg.get("client_order_id", "")] += 1
        return await real(self, method, path, **options)

    monkeypatch.setattr(HttpSession, "request", request)
    return wire


def freeze(one: Desk) -> None:
    """The venue's own traders stop: what is in the book stays there until the test moves it."""
    live = one.venue.live(one.market.ticker)
    assert live is not None
    live.traders.step = lambda: None  # type: ignore[method-assign]


async def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
