"""A bot on local venues in virtual time, through two boundaries: found before, switched once, nothing left behind."""

import asyncio
import itertools
from decimal import Decimal

import pytest

from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy
from pmkit.errors import ConfigError, InvalidOrder, OrderRejected
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import OrderState, Side
from pmkit.logging.csv_logger import TradeLog, read_trades
from pmkit.logging.paths import Paths
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock
from pmkit.sim.virtual import run as run_virtual
from tests.local import exchanges_on

BOUNDARIES = 2
START = 1_795_176_600_000  # five minutes before a boundary
LATEST_RESULT_SECONDS = 150


class Watcher(BaseBot):
    """Rests a bid far from the touch in every market and writes down what it sees."""

    async def _on_start(self):
        self.switches = []
        self.next_valid = {}
        self.rested = {}
        self.late_orders = []
        self.open_at_close = []
        self.settled = []
        self.ticks_on_closed = 0

    async def _tick(self):
        for key, market in self.markets.items():
            if not market:
                continue
            if self.seconds_remaining(market) < -self.TICK_SECONDS:
                self.ticks_on_closed += 1
            following = self.next_markets[key]
            if following and all(self.book(following, outcome).valid for outcome in following.outcomes):
                self.next_valid.setdefault(following.market_id, self.seconds_remaining(market))
            for outcome in market.outcomes:
                if (market.market_id, outcome) not in self.rested and self.seconds_remaining(market) > 60:
                    await self.rest(market, outcome)

    async def rest(self, market: Market, outcome: str):
        exchange = self.exchanges[market.venue]
        try:
            order_id = await exchange.place_limit_order(
                market, outcome, Side.BUY, market.grid.ceil(Decimal("0.01")), 10, post_only=True
            )
        except (OrderRejected, InvalidOrder) as error:
            self.late_orders.append(error)
        else:
            self.rested[(market.market_id, outcome)] = order_id

    async def _on_rollover(self, asset, old, new):
        self.switches.append((old.venue if old else new.venue, asset, old, new))
        for outcome in old.outcomes if old else ():
            if (old.market_id, outcome) in self.rested:
                status = await self.exchanges[old.venue].get_order_status(self.rested[(old.market_id, outcome)])
                self.open_at_close.append((status.status, status.reason))
        if len(self.switches) == 4 * BOUNDARIES:
            self.spawn(self.soon(), critical=False)

    async def soon(self):
        await self.clock.sleep(LATEST_RESULT_SECONDS)
        await self.stop()

    async def _on_settled(self, asset, market, result, pnl):
        self.settled.append((market, result))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run for all tests of this file."""
    directory = tmp_path_factory.mktemp("bot")

    async def main() -> tuple[Watcher, list[dict[str, str]]]:
        before = asyncio.all_tasks()
        clock = VirtualClock(START, Entropy(11))
        async with LocalVenues(seed=11, assets=("BTC", "ETH"), clock=clock, steps_per_wall_second=1.0) as venues:
            trades = TradeLog(Paths(directory, directory, directory), "local", "Watcher", venues.clock)
            bot = Watcher(exchanges_on(venues, clock, live=False), ["BTC", "ETH"], trades=trades)
            await bot.start()
            trades.close()
        assert asyncio.all_tasks() == before, "no task is left"
        return bot, [row for file in sorted(directory.glob("trades_*.csv")) for row in read_trades(file)]

    return run_virtual(main(), seed=11, latency=0.001, jitter=0.004)


def test_ro_02_every_boundary_is_taken_once_and_in_a_chain(run):
    bot, rows = run
    for venue in bot.exchanges:
        for asset in bot.assets:
            mine = [(old, new) for of, what, old, new in bot.switches if (of, what) == (venue, asset)]
            assert len(mine) == BOUNDARIES
            for (_, new), (old, _) in itertools.pairwise(mine):
                assert new.market_id == old.market_id
            assert all(new.open_ms == old.close_ms for old, new in mine)
    assert bot.stats.rollovers == 4 * BOUNDARIES == sum(row["event"] == "rollover" for row in rows)
    assert bot.stats.windows_skipped == bot.stats.hook_errors == bot.stats.tick_errors == 0


def test_ro_01_the_next_market_has_valid_books_before_the_boundary(run):
    bot, _ = run
    for _, _, _, new in bot.switches:
        assert bot.next_valid[new.market_id] > 0, "seconds left in the old market when the new books were valid"


def test_ro_04_own_orders_are_cancelled_before_the_close_and_none_is_sent_after_it(run):
    bot, rows = run
    assert len(bot.open_at_close) >= 4 * (BOUNDARIES - 1)
    # A bid of a cent for the losing outcome may fill; the other was cancelled by the bot, not by the close.
    cancelled = [reason for status, reason in bot.open_at_close if status is OrderState.CANCELED]
    assert set(cancelled) == {"cancelled"}
    assert all(status in (OrderState.CANCELED, OrderState.FILLED) for status, _ in bot.open_at_close)
    assert not any(error for error in bot.late_orders if "closed" in str(error))
    assert bot.ticks_on_closed == 0
    cancels = [row for row in rows if row["event"] == "cancel"]
    assert cancels and all(float(row["seconds_left"]) > 0 for row in cancels if row["seconds_left"])


def test_results_come_for_markets_that_were_only_watched_as_well(run):
    bot, _ = run
    assert len(bot.settled) == 4 * BOUNDARIES
    assert all(result.winner in market.outcomes for market, result in bot.settled)


def test_with_several_venues_the_short_forms_say_what_to_write_instead(run):
    bot, _ = run
    with pytest.raises(ConfigError, match=r"self\.exchanges\[\.\.\.\]"):
        _ = bot.exchange
    with pytest.raises(ConfigError, match="candles='1s'"):
        bot.candles("BTC")
