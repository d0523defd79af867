"""The bot that `tests.chaos.signals` starts and signals: `python -m tests.chaos.signalled SETUP_JSON`.

It goes through `pmkit.run` as a user's script does; only the local venues are those of the parent process.
"""

from __future__ import annotations

import sys
from typing import Self

import msgspec

from pmkit import run
from pmkit.bot import run as run_module
from pmkit.bot.local import LocalLine
from pmkit.exchanges.market import Market
from tests.chaos.trader import Trader

STARTED = "about to run"
TICKING = "first tick"


class Setup(msgspec.Struct, frozen=True):
    """What the parent says: the line of the venues, a seed, the venues to trade on, and for how many ticks nothing is
    traded."""

    line: LocalLine
    seed: int
    venues: tuple[str, ...]


class SignalledBot(Trader):
    """Trades at random, and always has something that rests."""

    TICK_SECONDS = 6.0  # 0.2 s of wall time at the factor of the parent
    setup: Setup

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.prepare(self.setup.seed, pace=0.35)

    async def _tick(self) -> None:
        await super()._tick()
        if self.stats.ticks == 0:
            print(TICKING, flush=True)
        for market in self.markets.values():
            if isinstance(market, Market) and self.entropy.random() < 0.5 and self.seconds_remaining(market) > 5:
                await self.rest(market)


class _Given:
    """In place of a child process with venues: those that are there."""

    def __init__(self, **_: object) -> None: ...

    async def __aenter__(self) -> LocalLine:
        return SignalledBot.setup.line

    async def __aexit__(self, *_: object) -> None: ...

    def __call__(self) -> Self:
        return self


def main() -> None:
    SignalledBot.setup = msgspec.json.decode(sys.argv[1], type=Setup)
    run_module.LocalProcess = _Given  # type: ignore[assignment, misc]
    print(STARTED, flush=True)
    run(SignalledBot, venues=list(SignalledBot.setup.venues), assets=["BTC"], interval="15m")


if __name__ == "__main__":
    main()
