"""The life of a bot without markets: ticks, tasks, signals and an end that comes in time."""

import asyncio
import logging
import os
import signal

import pytest

from pmkit.bot.life import MAX_TICK_ERRORS, Life
from pmkit.clock import ManualClock, SystemClock
from pmkit.errors import ConfigError

LOG = logging.getLogger("test.life")


class Probe(Life):
    def __init__(self, clock=None):
        super().__init__(clock or ManualClock(), LOG)
        self.began = self.ended = 0
        self.running_ticks = self.most_ticks = 0

    async def _begin(self):
        self.began += 1

    async def _end(self):
        self.ended += 1


async def until(condition, clock=None):
    async with asyncio.timeout(5):
        while not condition():
            await (clock.advance(0.1) if clock else asyncio.sleep(0.01))


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.5, 10.0])
async def test_ro_07_ticks_never_overlap_and_missed_ones_are_counted(seconds):
    class Slow(Probe):
        async def _tick(self):
            self.running_ticks += 1
            self.most_ticks = max(self.most_ticks, self.running_ticks)
            await self.clock.sleep(seconds)
            self.running_ticks -= 1

    clock = ManualClock()
    bot = Slow(clock)
    life = asyncio.ensure_future(bot.start())
    await clock.advance(40.0)
    assert bot.most_ticks == 1
    assert bot.stats.ticks + bot.stats.ticks_skipped == pytest.approx(40, abs=max(2, seconds + 1))
    assert bot.stats.ticks == pytest.approx(40 / max(1.0, seconds), rel=0.3)
    stopping = asyncio.ensure_future(bot.stop())
    await clock.advance(20.0)
    await stopping
    await life


async def test_pl_11_a_tick_that_raises_is_counted_and_a_row_of_them_stops_the_bot():
    class Third(Probe):
        async def _tick(self):
            if self.stats.ticks % 3 == 2:
                raise KeyError("third")

    clock = ManualClock()
    bot = Third(clock)
    life = asyncio.ensure_future(bot.start())
    await clock.advance(60.5)
    assert bot.stats.tick_errors == 20 and not life.done()
    await bot.stop()
    await life

    class Always(Probe):
        async def _tick(self):
            raise KeyError("always")

    bot = Always(clock)
    life = asyncio.ensure_future(bot.start())
    await clock.advance(100.0)
    with pytest.raises(KeyError, match="always"):
        await life
    assert bot.stats.tick_errors == MAX_TICK_ERRORS and bot.ended == 1


async def test_pl_05_a_task_that_dies_stops_the_bot_loudly_unless_told_otherwise(caplog):
    class Doomed(Probe):
        async def _begin(self):
            self.spawn(self.die(), "harmless", critical=False)

        async def die(self):
            raise ValueError("dead")

    clock = ManualClock()
    bot = Doomed(clock)
    life = asyncio.ensure_future(bot.start())
    await clock.advance(3)
    assert bot.stats.task_errors == 1 and not life.done()
    bot.spawn(bot.die(), "vital")
    await clock.advance(1)
    with pytest.raises(ValueError, match="dead"):
        await life
    assert "'vital' died; the bot stops" in caplog.text


async def test_pl_06_spawned_tasks_are_held_until_they_are_done():
    import gc

    bot = Probe(SystemClock())
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot.began)
    done = []

    async def work():
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        done.append(1)

    bot.spawn(work())
    await until(lambda: done)
    await bot.stop()
    await life


async def test_pl_08_a_start_that_fails_releases_everything_and_may_be_repeated():
    class Fails(Probe):
        async def _begin(self):
            self.began += 1
            self.spawn(asyncio.sleep(1000), "left over")
            if self.began == 1:
                raise ConfigError("second exchange")

    before = asyncio.all_tasks()
    bot = Fails(SystemClock())
    with pytest.raises(ConfigError, match="second exchange"):
        await bot.start()
    assert bot.ended == 1 and asyncio.all_tasks() == before
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot.began == 2)
    await bot.stop()
    await life
    assert bot.ended == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_pl_01_a_signal_lets_the_tick_in_flight_finish_then_ends(number):
    class Ordering(Probe):
        finished = False

        async def _tick(self):
            await asyncio.sleep(0.3)
            self.finished = True

    bot = Ordering(SystemClock())
    before = signal.getsignal(number)
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot._in_tick)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(5):
        await life
    assert bot.finished and bot.ended == 1 and not bot.hurried
    assert signal.getsignal(number) is before


async def test_pl_02_a_second_signal_leaves_at_once():
    class Stuck(Probe):
        async def _tick(self):
            await asyncio.sleep(60)

    bot = Stuck(SystemClock())
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot._in_tick)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(1.0):
        await life
    assert bot.hurried and bot.ended == 1


async def test_pl_07_signals_where_the_loop_cannot(monkeypatch):
    loop = asyncio.get_running_loop()

    def cannot(*args):
        raise NotImplementedError

    monkeypatch.setattr(loop, "add_signal_handler", cannot)
    bot = Probe(SystemClock())
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot.began)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await life
    assert bot.ended == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_pl_09_a_step_of_the_end_that_hangs_is_given_up():
    class Hangs(Probe):
        async def _end(self):
            await self._bounded("hanging", asyncio.sleep(60), 0.2)
            self.ended += 1

    bot = Hangs(SystemClock())
    life = asyncio.ensure_future(bot.start())
    await until(lambda: bot.began)
    await bot.stop()
    await life
    assert bot.ended == 1
