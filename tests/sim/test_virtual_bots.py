"""Whole bots on whole local venues in virtual time, and the same run twice."""

import asyncio
import hashlib
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy
from pmkit.data.binance.feed import BinanceFeed
from pmkit.errors import PmkitError
from pmkit.exchanges.types import Side
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, VirtualLoop, run
from tests.local import exchanges_on

START = 1_795_176_600_000  # five minutes before a boundary
ROLLOVERS = 4  # two on each venue


class Buyer(BaseBot):
    """Buys a little of the dearer outcome now and then, and writes down all it decides and sees."""

    async def _on_start(self):
        self.decisions = []
        self.valid_before = []

    async def _tick(self):
        for key, market in self.markets.items():
            if not market:
                continue
            if self.seconds_remaining(market) < 5 and (following := self.next_markets[key]):
                self.valid_before.append(all(self.book(following, outcome).valid for outcome in following.outcomes))
            ask = (book := self.book(market, market.outcomes[0])).best_ask
            if not book.valid or ask is None or ask < Decimal("0.5") or self.stats.ticks % 20:
                continue
            decision = f"{self.clock.now_ms()} {market.market_id} {ask}"
            try:
                order_id = await self.exchanges[market.venue].place_limit_order(
                    market, market.outcomes[0], Side.BUY, ask, 5
                )
                decision += f" {order_id.status} {order_id.filled_amount}"
            except PmkitError as error:
                decision += f" {type(error).__name__}"
            self.decisions.append(decision)

    async def _on_rollover(self, asset, old, new):
        self.decisions.append(f"{self.clock.now_ms()} {old.market_id} -> {new.market_id}")
        if self.stats.rollovers == ROLLOVERS:
            self.spawn(self.stop(), critical=False)


async def session(live: bool, seed: int) -> tuple[Buyer, LocalVenues, list]:
    clock = VirtualClock(START, Entropy(seed))
    async with LocalVenues(seed=seed, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
        line = asyncio.get_running_loop()
        assert isinstance(line, VirtualLoop)
        line.tape = []
        feed = BinanceFeed(venues.endpoints, clock, ["BTCUSDT"], interval="1m")
        bot = Buyer(exchanges_on(venues, clock, live=live), ["BTC"], clock=clock, feeds=[feed])
        await bot.start()
        assert venues.failures == []
        return bot, venues, line.tape


@pytest.mark.parametrize("live", [False, True], ids=["dry-run", "live"])
def test_ro_01_a_bot_goes_through_two_boundaries_on_each_venue(live):
    async def main():
        before = asyncio.all_tasks()
        bot, venues, _ = await session(live, seed=5)
        assert asyncio.all_tasks() == before, "no task is left"
        assert bot.stats.rollovers == ROLLOVERS
        assert bot.stats.tick_errors == bot.stats.hook_errors == bot.stats.task_errors == 0
        assert bot.valid_before and all(bot.valid_before)
        assert any(" -> " not in decision for decision in bot.decisions)
        now = venues.clock.now_ms()
        assert 20 * 60_000 <= now - START <= 21 * 60_000, "it ends right after the second boundary"

    run(main(), seed=5, latency=0.001, jitter=0.004)


def test_one_seed_makes_one_run_whatever_the_process():
    """Down to the moment and size of everything that was sent, with another order of hashes, zone and language."""

    def child(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.sim.test_virtual_bots", "9"],
            env={**os.environ, **environment},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout

    first = child(PYTHONHASHSEED="1", TZ="UTC", LANG="C")
    assert first == child(PYTHONHASHSEED="2", TZ="Pacific/Kiritimati", LANG="C.UTF-8")
    assert len(first.splitlines()) > 8


if __name__ == "__main__":
    played, _, tape = run(session(live=True, seed=int(sys.argv[1])), seed=sys.argv[1], latency=0.001, jitter=0.004)
    print("\n".join(played.decisions))
    print(len(tape), hashlib.sha256(repr(tape).encode()).hexdigest())
