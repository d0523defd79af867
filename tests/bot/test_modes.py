"""Failure modes of the composition: whole bots on both local venues in virtual time, by the ids of the list."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from pmkit.bot.base import BaseBot
from pmkit.bot.life import Life
from pmkit.clock import SystemClock
from pmkit.errors import OrderUnknown
from pmkit.exchanges.types import Accepted, Side
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local
from tests.chaos.truth import Truth
from tests.local import exchanges_on

D = Decimal


class Plain(BaseBot):
    """Counts what happens to it."""

    async def _on_start(self) -> None:
        self.switched: Counter[str] = Counter()
        self.last: dict[str, Any] = {}

    async def _on_rollover(self, asset: str, old: Any, new: Any) -> None:
        self.switched[(new or old).venue] += 1
        self.last[(new or old).venue] = new

    def all_valid(self) -> bool:
        """Every market of now has valid books."""
        markets = [market for market in self.markets.values() if market]
        books = [self.book(market, outcome) for market in markets for outcome in market.outcomes]
        return len(markets) == len(self.exchanges) and all(book.valid for book in books)


async def until(bot: BaseBot, condition: Any, seconds: float) -> None:
    async with bot.clock.timeout(seconds):
        while not condition():
            await bot.clock.sleep(0.1)


def test_ck_02_after_a_sleep_of_the_machine_the_markets_of_now_are_found_with_one_rollover():
    async def story(bot: Plain, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        before = dict(bot.markets)
        bot.clock.step_wall(3 * 3600)  # and the monotonic time stood still
        await until(bot, lambda: bot.stats.sleeps == 1, 5)
        await until(bot, lambda: all(bot.switched.values()) and len(bot.switched) == 2, 60)
        await until(bot, bot.all_valid, 60)
        now = bot.clock.now_ms()
        assert all(market.open_ms <= now < market.close_ms for market in bot.markets.values())
        assert set(bot.switched.values()) == {1}
        assert all(bot.markets[key].market_id != market.market_id for key, market in before.items())
        assert bot.stats.windows_skipped == 2 * 11

    bot = on_local(Plain, live=False, story=story)
    assert any("was away for" in line for line in bot.log.lines)


@pytest.mark.parametrize("live", [False, True], ids=["dry-run", "live"])
def test_ro_05_an_outage_over_the_boundary_ends_on_the_new_market(live):
    async def story(bot: Plain, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        left = min(bot.seconds_remaining(market) for market in bot.markets.values())
        await bot.clock.sleep(left - 20)
        for venue in (venues.polymarket, venues.kalshi):
            venue.faults.reject_handshake(503, 1000)
            venue.faults.drop_connections()
        await bot.clock.sleep(40)
        assert not bot.all_valid()
        for venue in (venues.polymarket, venues.kalshi):
            venue.faults.clear()
        await until(bot, bot.all_valid, 45)
        now = bot.clock.now_ms()
        assert all(market.open_ms <= now < market.close_ms for market in bot.markets.values())
        assert set(bot.switched.values()) == {1}
        wanted = {token for market in bot.markets.values() for token in market.token_ids}
        for socket in bot.exchanges["polymarket"].exchange.data.sockets:
            assert set(socket.wanted) <= wanted

    on_local(Plain, live=live, story=story)


class BadHook(Plain):
    """Its rollover hook raises on one venue and never returns on the other."""

    async def _on_rollover(self, asset: str, old: Any, new: Any) -> None:
        await super()._on_rollover(asset, old, new)
        if new.venue == "kalshi":
            raise RuntimeError("a strategy's own mistake")
        await asyncio.Event().wait()


def test_ro_06_a_rollover_hook_that_raises_or_hangs_stops_nothing():
    async def story(bot: BadHook, venues: LocalVenues) -> None:
        await bot.clock.sleep((5 + 15) * 60 + 15)
        assert bot.switched == {"kalshi": 2, "polymarket": 2}
        now = bot.clock.now_ms()
        assert all(market.open_ms <= now < market.close_ms for market in bot.markets.values())
        assert bot.all_valid()

    bot = on_local(BadHook, live=False, story=story)
    assert bot.stats.hook_errors == 2
    said = bot.log.lines
    assert sum("_on_rollover has been running for 5 s" in line for line in said) == 2
    assert "_on_rollover raised" in said


class Rester(Plain):
    """Rests one far bid in every market, and loses the answers to some."""

    async def _on_start(self) -> None:
        await super()._on_start()
        self.unknown: list[str] = []
        self.resting: list[tuple[str, str]] = []

    async def rest(self, market: Any, price: str = "0.02") -> None:
        exchange = self.exchanges[market.venue]
        try:
            order_id = await exchange.place_limit_order(market, market.outcomes[0], Side.BUY, D(price), 50)
        except OrderUnknown as error:
            self.unknown.append(error.intent.client_order_id)
        else:
            self.resting.append((market.venue, order_id))


def open_of(truth: Truth) -> int:
    return sum(order.open for venue in ("polymarket", "kalshi") for order in truth.orders(venue))


def test_ro_04_a_cancel_before_the_close_that_fails_is_tried_again():
    async def story(bot: Rester, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        (market,) = bot.markets.values()
        await bot.rest(market)
        for _ in range(2):
            venues.polymarket.faults.arm("request_lost")
        await bot.clock.sleep(bot.seconds_remaining(market) - 0.5)
        (order,) = Truth(venues).orders("polymarket")
        assert not order.open and venues.polymarket.faults.counts["request_lost"] == 2
        assert not bot.exchanges["polymarket"].open

    on_local(Rester, live=True, story=story, only="polymarket")


def test_ro_02_a_cancel_that_hangs_holds_no_switch_up_and_no_tick_sees_a_closed_market():
    class Ticking(Rester):
        TICK_SECONDS = 0.25
        closed = 0

        async def _tick(self) -> None:
            self.closed += sum(self.seconds_remaining(market) <= 0 for market in self.markets.values() if market)

    async def story(bot: Ticking, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        (market,) = bot.markets.values()
        await bot.rest(market)
        venues.polymarket.answers.late_seconds = 8.0
        venues.polymarket.faults.arm("answer_late")
        await bot.clock.sleep(bot.seconds_remaining(market) + 1)
        assert venues.polymarket.faults.counts["answer_late"] == 1
        assert bot.switched["polymarket"] == 1 and bot.all_valid()
        assert bot.closed == 0

    on_local(Ticking, live=True, story=story, only="polymarket")


def test_pl_03_orders_whose_answer_was_lost_are_looked_up_and_cancelled_at_exit():
    opened: list[int] = []

    async def story(bot: Rester, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        bot.truth = Truth(venues)
        for market in bot.markets.values():
            await bot.rest(market)
        venues.polymarket.faults.arm("answer_lost")
        venues.kalshi.faults.arm("lose_answer")
        for market in bot.markets.values():
            await bot.rest(market, "0.03")
        assert len(bot.resting) == len(bot.unknown) == 2
        opened.append(open_of(bot.truth))

    bot = on_local(Rester, live=True, story=story)
    assert opened == [4]
    assert open_of(bot.truth) == 0
    assert not any(exchange.unresolved or exchange.open for exchange in bot.exchanges.values())


def test_pl_03_what_cannot_be_cancelled_at_exit_is_reported_by_id():
    async def story(bot: Rester, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        for market in bot.markets.values():
            await bot.rest(market)
        for venue in (venues.polymarket, venues.kalshi):
            venue.faults.delay(60.0)

    bot = on_local(Rester, live=True, story=story)
    said = "\n".join(bot.log.lines)
    for _, order_id in bot.resting:
        assert f"order {order_id} may still be open" in said


def test_pl_03_orders_of_an_earlier_run_are_listed_before_the_first_tick():
    class Leaver(Rester):
        OPEN_ORDERS = "leave"

    async def story(bot: Rester, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        for market in bot.markets.values():
            await bot.rest(market)
        again = Rester(exchanges_on(venues, bot.clock, live=True), ("BTC",), clock=bot.clock, log=bot.log)
        living = asyncio.create_task(again.start())
        await until(again, lambda: again.stats.ticks, 30)
        await again.stop()
        await living

    bot = on_local(Leaver, live=True, story=story)
    said = [line for line in bot.log.lines if "has an open order already" in line]
    assert len(said) == 2 and all(any(order_id in line for line in said) for _, order_id in bot.resting)


def test_rs_16_an_answer_that_is_queued_for_seconds_is_unknown_and_never_sent_again():
    async def story(bot: Rester, venues: LocalVenues) -> None:
        await until(bot, bot.all_valid, 30)
        truth = Truth(venues)
        venues.polymarket.answers.late_seconds = venues.kalshi.mishaps.delay = 20.0
        venues.polymarket.faults.arm("answer_late")
        venues.kalshi.faults.arm("delay_answer")
        await asyncio.gather(*(bot.rest(market) for market in bot.markets.values()))
        assert len(bot.unknown) == 2
        await bot.clock.sleep(25)
        assert [len(truth.orders(venue)) for venue in ("polymarket", "kalshi")] == [1, 1]
        for exchange in bot.exchanges.values():
            (intent,) = exchange.unresolved
            assert isinstance(await exchange.resolve_order(intent), Accepted)

    on_local(Rester, live=True, story=story)


async def test_pl_04_what_holds_the_loop_up_is_named(caplog):
    """On the real loop: only there code takes time."""

    class Blocker(Life):
        async def _begin(self) -> None:
            pass

        async def _end(self) -> None:
            pass

        async def _tick(self) -> None:
            if self.stats.ticks == 0:
                time.sleep(1.3)  # noqa: ASYNC251 - the mistake that is to be seen
            elif self.stats.held_up:
                await self.stop()

    async with asyncio.timeout(20):
        await Blocker(SystemClock(), logging.getLogger("test.blocker")).start()
    (said,) = (record.message for record in caplog.records if "was held up" in record.message)
    assert "asyncio.to_thread" in said


def test_oe_22_client_order_ids_of_two_runs_differ():
    code = "from pmkit.clock import SystemClock; e = SystemClock().entropy; print(*(e.uuid4() for _ in range(50)))"
    runs = [
        set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
        for _ in range(2)
    ]
    assert len(runs[0] | runs[1]) == 100
    assert all(uuid.UUID(name).version == 4 for name in runs[0])


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/New_York", "UTC"])
def test_ck_05_file_dates_and_windows_are_utc_wherever_the_machine_stands(zone, tmp_path):
    code = (
        "import sys; from pathlib import Path; from pmkit.clock import ManualClock\n"
        "from pmkit.logging.csv_logger import TradeLog, TradeEvent; from pmkit.logging.paths import Paths\n"
        "from pmkit.exchanges.kalshi.tickers import *\n"
        "where = Path(sys.argv[1]); clock = ManualClock(1_795_219_200_000 - 1)\n"
        "log = TradeLog(Paths(where, where, where), 'dry-run', 'Bot', clock); log.write(TradeEvent.ROLLOVER)\n"
        "log.close(); print(clock.now().isoformat())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "2026-11-20T23:59:59.999000+00:00"
    (file,) = tmp_path.glob("trades_*.csv")
    assert file.name == "trades_dry-run_2026-11-20.csv"
    assert "2026-11-20T23:59:59.999Z" in file.read_text()
