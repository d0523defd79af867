"""Recording a run: what was run, and when it began to end, beside what its sessions and sockets write by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from pmkit.bot.life import Life
from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.recording.recorder import Recorder


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay needs to know to run the same again. `keys`: venues whose sockets were opened with a key;
    `balance` and `queue`: of the dry-run.
    """

    bot: str
    where: str
    mode: str
    venues: list[str]
    assets: list[str]
    interval: str = "15m"
    candles: str | None = None
    keys: list[str] = []
    balance: str = "1000"
    queue: str = "middle"


def recorder_of(path: Path, clock: Clock, endpoints: Endpoints, about: About) -> Recorder:
    """A recorder of one run, for a `with` block around the making of exchanges and feeds. Raises ConfigError."""
    return Recorder(path, clock, endpoints, msgspec.to_builtins(about))


async def run_recorded(bot: Life, recorder: Recorder, start: Callable[[], Awaitable[None]]) -> None:
    """`start()` the bot, and note that moment and the one from which on it was on its way out."""

    async def note() -> None:
        await bot.wait_stopping()
        recorder.stopping()

    recorder.running()
    noting = asyncio.ensure_future(note())
    try:
        await start()
    finally:
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)
