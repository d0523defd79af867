"""Random orders against the local Kalshi, 20 % of the answers lost, the trading process killed at random.

    python -m tests.soak.kalshi_orders [--seed 1] [--intents 10000] [--notes FILE]

The venue runs in this process and the trader in another. Ends with what was seen and 1 where anything is wrong: an
order placed twice or lost, an outcome that stayed unknown, a fill delivered twice or never, a position that is not the
ledger's, a restarted trader that does not know within ten seconds what the venue knows.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pmkit.clock import Entropy
from pmkit.endpoints import Endpoints
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.sim.engine import Side
from pmkit.sim.kalshi.ledger import FillRecord, OrderRecord, Status
from pmkit.sim.kalshi.mishaps import Mishap
from pmkit.sim.venues import LocalVenues
from tests.soak.ledger import Booked, Ledger, Leg, Token
from tests.soak.soak import FACTOR, arguments, notes_file, report, soak
from tests.soak.trader import Setup

CASH = 10**15
RESOLVE_SECONDS = 3.0
"""More than the time after which a late request of the soak arrives."""
LATE_SECONDS = 0.4
_WEIGHTS = {
    Mishap.LOSE_REQUEST: 4,
    Mishap.LOSE_ANSWER: 5,
    Mishap.ERROR_BEFORE: 2,
    Mishap.ERROR_AFTER: 3,
    Mishap.DELAY_ANSWER: 3,
    Mishap.LATE_REQUEST: 3,
}


def exchange_of(setup: Setup) -> KalshiExchange:
    """The trader's exchange."""
    endpoints = Endpoints.from_json(setup.endpoints)
    signer = Signer.from_key(setup.account["id"], setup.account["pem"])
    return KalshiExchange(endpoints, endpoints.make_clock(Entropy()), signer=signer, resolve_seconds=RESOLVE_SECONDS)


class NettingLedger(Ledger):
    """Kalshi keeps one net position per market: what is bought of NO while YES is held sells YES."""

    def terms(self, token: Token, shares: Decimal, price: Decimal) -> tuple[Token, Decimal, Decimal]:
        """Buying NO at q and selling YES at 1 - q are one thing."""
        market, outcome = token
        return (token, shares, price) if outcome == "YES" else ((market, "YES"), -shares, 1 - price)

    def net(self, market: str) -> Decimal:
        """Contracts, below zero NO."""
        held = self.held()
        return held.get((market, "YES"), Decimal(0)) - held.get((market, "NO"), Decimal(0))

    def _move(self, token: Token, shares: Decimal) -> None:
        (market, _), change, _ = self.terms(token, shares, Decimal(0))
        self._hold(market, self.net(market) + change)

    def settle(self, market: str) -> None:
        """The market has paid: nothing is held of it any more."""
        if self.net(market):
            self._hold(market, Decimal(0))

    def _hold(self, market: str, net: Decimal) -> None:
        now = time.time()
        for outcome, size in (("YES", max(net, Decimal(0))), ("NO", max(-net, Decimal(0)))):
            self._held.setdefault((market, outcome), []).append((now, size))


class KalshiSide:
    """The venue's part of the soak."""

    trader = "tests.soak.kalshi_orders"

    def __init__(self, venues: LocalVenues, seed: int) -> None:
        self.ledger = NettingLedger()
        self._venue = venue = venues.kalshi
        self._owner = venue.account
        self._random = random.Random(seed)
        self._share = 0.0
        venue.account.cash[2] = CASH
        venue.writes.capacity = venue.writes.refill = venue.limits.capacity = venue.limits.refill = 1e6
        venue.mishaps.delay = LATE_SECONDS
        venue.mishaps.script = self._mishap
        venue._life.on_settled.append(lambda ticker, result: self.ledger.settle(ticker))
        self._tell_order, self._tell_fill = venue.user_feed.order, venue.user_feed.fill
        # Whatever happens to an order or with it, the venue tells its member's sockets.
        venue.user_feed.order = self._order  # type: ignore[method-assign]
        venue.user_feed.fill = self._fill  # type: ignore[method-assign]

    def account(self) -> dict[str, Any]:
        key = self._venue.key
        return {"id": key.id, "pem": key.pem}

    def _mishap(self, line: str) -> Mishap | None:
        if self._random.random() >= self._share:
            return None
        return self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]

    def lose_answers(self, share: float) -> None:
        self._share = share

    def calm(self) -> None:
        self._share = 0.0
        self._venue.faults.clear()
        self._venue.user_feed.silence(0)

    def trouble(self, pick: random.Random) -> str:
        faults = self._venue.faults
        kind = pick.choice(["stamp", "duplicate", "drop", "http", "silence", "gap", "overflow", "nothing"])
        if kind == "stamp":
            faults.arm("timestamp_expired", pick.randint(1, 3))
        elif kind == "duplicate":
            faults.arm("duplicate_fill", pick.randint(1, 20))
        elif kind == "drop":
            faults.drop_connections()
        elif kind == "http":
            status = pick.choice([429, 500, 502, 503])
            faults.http_status("GET .*/portfolio", status, "<html>", times=pick.randint(1, 5))
        elif kind == "silence":
            self._venue.user_feed.silence(pick.uniform(0.1, 0.5) * FACTOR)
        elif kind == "gap":
            faults.arm("skip_delta", pick.randint(1, 3))
        elif kind == "overflow":
            self._venue.overflow()
        return kind

    # -- the ledger -----------------------------------------------------------------------------------------------

    def _order(self, order: OrderRecord) -> None:
        if order.account is self._owner:
            self._book(order)
            if order.status is not Status.RESTING:
                self.ledger.end(order.order_id)
        self._tell_order(order)

    def _fill(self, fill: FillRecord) -> None:
        order = fill.order
        if order.account is self._owner:
            self._book(order)
            shares, price = Decimal(fill.count).scaleb(-6), Decimal(fill.price).scaleb(-4)
            token, sign = (order.ticker, "YES"), 1 if order.side is Side.BUY else -1
            self.ledger.match(Leg(fill.trade_id, order.order_id, token, sign * shares, price, time.time(), "FINAL"))
        self._tell_fill(fill)

    def _book(self, order: OrderRecord) -> None:
        if order.order_id not in self.ledger.orders:
            self.ledger.book(
                Booked(
                    order.order_id,
                    (order.ticker, "YES"),
                    order.side.value,
                    time.time(),
                    client_order_id=order.client_order_id,
                    price=Decimal(order.price).scaleb(-4),
                    size=Decimal(order.initial).scaleb(-6),
                    refused=order.reason == "PostOnlyCrossCancel" and not order.filled,
                )
            )


async def run(seed: int, intents: int, notes: Path) -> list[str]:
    """One soak; what is wrong."""
    began = time.time()
    async with LocalVenues(seed=seed, factor=FACTOR, assets=("BTC",), first_boundary_wall_seconds=40) as venues:
        side = KalshiSide(venues, seed)
        lives, at_fills = await soak(venues, side, seed=seed, intents=intents, notes=notes)
        wrong = report(side, lives, at_fills, began)
        return wrong + [f"the venue itself failed: {failure}" for failure in venues.kalshi.failures]


if __name__ == "__main__":
    given = arguments(__doc__ or "")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it logs each answer that is lost on purpose
    sys.exit(1 if asyncio.run(run(given.seed, given.intents, notes_file(given.notes))) else 0)
