"""What can go wrong between a write and its answer (reference: kalshi.md, 5.3: the state is unknown then)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum

from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.faults import Faults
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.server import Refused


class Mishap(StrEnum):
    """Lost ones reset the connection; errors are a 503 `exchange_unavailable`. Each before or after the write is done.

    DELAY_ANSWER does the write at once and answers `Mishaps.delay` wall seconds later. LATE_REQUEST resets the
    connection at once and does the write that much later, as a request that hung on its way.
    """

    LOSE_REQUEST = "lose_request"
    LOSE_ANSWER = "lose_answer"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    DELAY_ANSWER = "delay_answer"
    LATE_REQUEST = "late_request"


class Mishaps:
    """Scripts for writes: `faults.arm(name)` with a name of `Mishap` for the next one, or `script` for every one.

    `script("POST /trade-api/v2/portfolio/events/orders")` says what happens to that write, None for nothing.
    """

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.script: Callable[[str], Mishap | None] | None = None
        self.delay = 1.0
        self._clock = clock
        self._faults = faults
        self._late: set[asyncio.Task[None]] = set()

    def _next(self, line: str) -> Mishap | None:
        for mishap in Mishap:
            if self._faults.take(mishap):
                return mishap
        found = self.script(line) if self.script is not None else None
        if found is not None:
            self._faults.counts[found] += 1
        return found

    async def run(self, request: web.Request, write: Callable[[], Awaitable[web.Response]]) -> web.Response:
        """Do a write and answer it, or what the script says instead."""
        mishap = self._next(f"{request.method} {request.path}")
        if mishap is Mishap.ERROR_BEFORE:
            raise _unavailable()
        if mishap is Mishap.LOSE_REQUEST:
            return _reset(request)
        if mishap is Mishap.LATE_REQUEST:
            task = asyncio.get_running_loop().create_task(self._later(write))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return _reset(request)
        response = await write()
        if mishap is Mishap.ERROR_AFTER:
            raise _unavailable()
        if mishap is Mishap.LOSE_ANSWER:
            return _reset(request)
        if mishap is Mishap.DELAY_ANSWER:
            await self._clock.io_sleep(self.delay)
        return response

    async def _later(self, write: Callable[[], Awaitable[web.Response]]) -> None:
        await self._clock.io_sleep(self.delay)
        with suppress(Refused):  # nobody hears it
            await write()

    async def close(self) -> None:
        """End what is still on its way."""
        for task in tuple(self._late):
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)


def _unavailable() -> Refused:
    return refuse(503, "exchange_unavailable")


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # to nobody
