"""Random orders against the local Polymarket, 20 % of the answers lost, the trading process killed at random.

    python -m tests.soak.polymarket_orders [--seed 1] [--intents 10000] [--notes FILE]

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
from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.sim.polymarket.accounts import TestAccount
from pmkit.sim.polymarket.market import OUTCOMES
from pmkit.sim.polymarket.records import OrderRecord, TradeRecord, TradeState
from pmkit.sim.venues import LocalVenues
from tests.soak.ledger import Booked, Ledger, Leg, Token
from tests.soak.soak import FACTOR, arguments, notes_file, report, soak
from tests.soak.trader import Setup

CASH = 10**15
_STATES = {TradeState.CONFIRMED: "FINAL", TradeState.FAILED: "FAILED"}


def exchange_of(setup: Setup) -> PolymarketExchange:
    """The trader's exchange."""
    endpoints = Endpoints.from_json(setup.endpoints)
    return PolymarketExchange(
        endpoints,
        endpoints.make_clock(Entropy()),
        private_key=Secret(setup.account["private_key"]),
        signature_type=setup.account["signature_type"],
        funder=setup.account["funder"],
    )


class PolymarketSide:
    """The venue's part of the soak."""

    trader = "tests.soak.polymarket_orders"

    def __init__(self, venues: LocalVenues, account: TestAccount) -> None:
        self.ledger = Ledger()
        self.ledger.same = self._same
        self._venues = venues
        self._venue = venues.polymarket
        self._account = account
        found = self._venue.accounts.find(account.funder)
        assert found is not None
        self._venue.accounts.deposit(found, CASH)
        self._owner = found
        self._venue.desk.told.append(self._order)
        self._venue.trades.changed.append(self._trade)

    def account(self) -> dict[str, Any]:
        return self._account.json()

    def lose_answers(self, share: float) -> None:
        answers = self._venue.answers
        answers.late_seconds = answers.zombie_seconds = 0.4
        names = {"request_lost": 0.2, "answer_lost": 0.25, "answer_late": 0.2, "answer_500": 0.15, "request_late": 0.2}
        answers.shares = {name: part * share for name, part in names.items()}

    def calm(self) -> None:
        self._venue.answers.shares = {}
        self._venue.faults.clear()
        self._venue.user.silence(0)

    def trouble(self, pick: random.Random) -> str:
        kind = pick.choice(["trade", "trade", "duplicate", "drop", "restart", "http", "silence", "nothing"])
        faults = self._venue.faults
        if kind == "trade":
            faults.arm(pick.choice(["trade_failed", "trade_retried"]), pick.randint(1, 3))
        elif kind == "duplicate":
            faults.arm("duplicate_event", pick.randint(1, 20))
        elif kind == "drop":
            faults.drop_connections()
        elif kind == "restart":
            self._venue.modes.restart(down=0.3 * FACTOR, post_only=0.2 * FACTOR)
        elif kind == "http":
            faults.http_status(r"GET /(data|balance)", pick.choice([500, 502, 503]), "<html>", times=pick.randint(1, 5))
        elif kind == "silence":
            self._venue.user.silence(pick.uniform(0.1, 0.5) * FACTOR)
        return kind

    def _same(self, token: Token, shown: Decimal | None, held: Decimal) -> bool:
        """Once a market is resolved only the Data API tells, to four decimals, and nothing of what lost."""
        if (shown or 0) == held:
            return True
        window = self._venue.listings.find(token[0])
        if window is None or self._venue.clock.now_ms() < window.resolved_ms:
            return False
        if shown is None:
            return self._venue.rows.went_up(window) != (token[1] == "UP")
        return abs(shown - held) <= Decimal("0.0001")

    # -- the ledger -----------------------------------------------------------------------------------------------

    def _order(self, record: OrderRecord, kind: str) -> None:
        if record.account is not self._owner:
            return
        if record.order_id not in self.ledger.orders:
            intent = record.intent
            rests = intent.order_type.rests
            self.ledger.book(
                Booked(
                    record.order_id,
                    (record.window.condition_id, OUTCOMES[record.outcome].upper()),
                    intent.side.value,
                    time.time(),
                    price=Decimal(intent.limit).scaleb(-4) if rests else None,
                    size=Decimal(intent.shares).scaleb(-6) if rests else None,
                )
            )
        if not record.open:
            self.ledger.end(record.order_id)

    def _trade(self, trade: TradeRecord) -> None:
        for leg in trade.legs:
            record = leg.record
            if record is None or record.account is not self._owner:
                continue
            key = (trade.trade_id, leg.order_id)
            known = self.ledger.legs.get(key)
            if known is None:
                shares = Decimal(leg.size if leg.side.value == "BUY" else -leg.size).scaleb(-6)
                token = (trade.window.condition_id, OUTCOMES[leg.outcome].upper())
                price = Decimal(leg.price).scaleb(-4)
                self.ledger.match(Leg(trade.trade_id, leg.order_id, token, shares, price, time.time()))
            elif trade.state is TradeState.FAILED:
                self.ledger.fail(*key)
            else:
                known.state = _STATES.get(trade.state, "PENDING")


async def run(seed: int, intents: int, notes: Path, kills: int = 0) -> list[str]:
    """One soak; what is wrong."""
    began = time.time()
    async with LocalVenues(seed=seed, factor=FACTOR, assets=("BTC",), first_boundary_wall_seconds=40) as venues:
        account = venues.polymarket_accounts[seed % 4]
        side = PolymarketSide(venues, account)
        lives, at_fills = await soak(venues, side, seed=seed, intents=intents, notes=notes, kills=kills)
        wrong = report(side, lives, at_fills, began)
        return wrong + [f"the venue itself failed: {failure}" for failure in venues.polymarket.clob.failures]


if __name__ == "__main__":
    given = arguments(__doc__ or "")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it logs each answer that is lost on purpose
    sys.exit(1 if asyncio.run(run(given.seed, given.intents, notes_file(given.notes))) else 0)
