"""A bot on both local venues in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from tests.local import exchanges_on

START = 1_795_176_600_000  # five minutes before a boundary


class Told(logging.Logger):
    """A bot's log, kept as lines: no test that sets logging up elsewhere changes what is seen here."""

    def __init__(self) -> None:
        super().__init__("told", logging.INFO)
        self.lines: list[str] = []
        self.propagate = False

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


Story = Callable[[BaseBot, LocalVenues], Awaitable[None]]


def on_local(kind: type[BaseBot], live: bool, story: Story, *, seed: int = 3, only: str | None = None) -> BaseBot:
    """Run a bot of this kind (on one venue `only`) beside a story, and stop it when the story is over."""

    async def main() -> BaseBot:
        clock = VirtualClock(START, Entropy(seed))
        async with LocalVenues(seed=seed, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
            exchanges = [one for one in exchanges_on(venues, clock, live=live) if only in (None, one.venue)]
            bot = kind(exchanges, ("BTC",), clock=clock, log=Told())

            async def tell() -> None:
                try:
                    await story(bot, venues)
                finally:
                    await bot.stop()

            told = asyncio.create_task(tell())
            await asyncio.gather(bot.start(), told)
            assert venues.failures == []
            return bot

    return run(main(), seed=seed, latency=0.001, jitter=0.004)
