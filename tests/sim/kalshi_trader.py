"""A plain client that trades on the local Kalshi, for tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from pmkit.sim.engine import Side, TimeInForce
from pmkit.sim.kalshi.ledger import Account
from pmkit.sim.kalshi.market import LiveMarket
from tests.sim.kalshi_client import OPEN, TICKER, Client, Setup, running, sign, until

ORDERS = "/portfolio/events/orders"


class Trader:
    """One member. `order` fills in what a create call must have."""

    def __init__(self, setup: Setup, account: Account) -> None:
        self.setup = setup
        self.account = account

    async def ask(self, method: str, path: str, body: Any = None, query: Any = None) -> tuple[int, Any]:
        url = self.setup.venue.endpoints().rest + path
        headers = sign(self.account.key, self.setup.clock.now_ms(), method, urlsplit(url).path)
        async with self.setup.http.request(method, url, params=query, headers=headers, json=body) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None

    async def get(self, path: str, **query: Any) -> Any:
        status, body = await self.ask("GET", path, query=query)
        assert status == 200, body
        return body

    def body(self, side: str, price: str, count: str, **more: Any) -> dict[str, Any]:
        fields = {
            "ticker": TICKER,
            "side": side,
            "price": price,
            "count": count,
            "time_in_force": "good_till_canceled",
            "self_trade_prevention_type": "taker_at_cross",
            "exchange_index": 2,
        } | more
        return {name: value for name, value in fields.items() if value is not None}

    async def try_order(self, side: str, price: str, count: str, **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", ORDERS, self.body(side, price, count, **more))

    async def order(self, side: str, price: str, count: str, **more: Any) -> Any:
        status, body = await self.try_order(side, price, count, **more)
        assert status == 201, body
        return body

    async def refused(self, side: str, price: str, count: str, **more: Any) -> tuple[int, str]:
        status, body = await self.try_order(side, price, count, **more)
        assert status >= 400, body
        return status, body["error"]["code"]

    async def cancel(self, order_id: str, **query: Any) -> tuple[int, Any]:
        return await self.ask("DELETE", f"{ORDERS}/{order_id}", query=query or {"exchange_index": 2})

    async def read(self, order_id: str) -> Any:
        return (await self.get(f"/portfolio/orders/{order_id}"))["order"]

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[Client]:
        url = self.setup.venue.endpoints().ws
        headers = sign(self.account.key, self.setup.clock.now_ms(), "GET", urlsplit(url).path)
        before = len(self.setup.venue.server.sessions)
        async with self.setup.http.ws_connect(url, headers=headers) as ws:
            await until(lambda: len(self.setup.venue.server.sessions) > before)
            yield Client(ws)


class Desk(Setup):
    """A venue whose book is what the test puts there."""

    trader: Trader
    other: Trader

    @property
    def live(self) -> LiveMarket:
        live = self.venue.live(TICKER)
        assert live is not None
        return live

    def quote(self, side: Side, price: int, contracts: float, owner: str = "maker-1") -> str:
        """A resting order of the venue's own traders; price in 0.0001 dollars."""
        size = round(contracts * 100) * 10_000
        made = self.live.engine.submit(owner, side, price, size, post_only=True)
        assert made.order is not None
        return made.order_id

    def take(self, side: Side, price: int, contracts: float) -> None:
        """One of the venue's own traders takes."""
        size = round(contracts * 100) * 10_000
        self.live.engine.submit("taker-1", side, price, size, time_in_force=TimeInForce.IOC)


@asynccontextmanager
async def desk(now: int = OPEN + 300_000) -> AsyncIterator[Desk]:
    """An empty book with slow traders, one funded member and one with money on shard 0 only."""
    async with running(now, steps=0.0001) as made, aiohttp.ClientSession() as http:
        found = Desk(made.venue, made.clock, http)
        for ticker in [TICKER]:
            live = made.venue.live(ticker)
            if live is not None:
                live.engine.cancel_all()
        found.trader = Trader(found, made.venue.account)
        found.other = Trader(found, made.venue.accounts.open({0: 500}))
        yield found
