"""The dead-man switch: as long as beats arrive orders live; without them the venue cancels all of the API key's.

The first beat arms it, and there is no way to disarm it: some 10 s after the last one every open order of the key goes.
Source: docs.polymarket.com/api-reference/trade/send-heartbeat. Its seconds are wall seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from pmkit.clock import Clock
from pmkit.errors import PmkitError, VenueUnavailable
from pmkit.exchanges.polymarket.answers import read_heartbeat
from pmkit.exchanges.polymarket.credentials import Login
from pmkit.exchanges.polymarket.orders import heartbeat_body
from pmkit.exchanges.polymarket.signed_http import SignedSession

PATH: Final = "/v1/heartbeats"
EVERY_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
LOST_SECONDS: Final = 9.0
"""Without a beat for so long the orders may be gone: no new ones until it beats again."""

_LOG = logging.getLogger("pmkit.polymarket")


class Heartbeat:
    """An async context. `block(reason)` stops new orders, `block("")` lets them pass; `on_back()` is awaited once it
    beats again after a loss: the open orders have to be read anew. `beats` and `losses` count.
    """

    def __init__(
        self,
        http: SignedSession,
        login: Login,
        clock: Clock,
        *,
        block: Callable[[str], object],
        on_back: Callable[[], Awaitable[object]],
    ) -> None:
        self.beats = 0
        self.losses = 0
        self._http = http
        self._login = login
        self._clock = clock
        self._block = block
        self._on_back = on_back
        self._id = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def beating(self) -> bool:
        return self._task is not None

    async def __aenter__(self) -> Self:
        await self._login.ready()
        await self._beat()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pmkit polymarket heartbeat")
        return self

    async def stop(self) -> None:
        """No more beats. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            _LOG.info("polymarket: no more heartbeats; the venue cancels what is open within some 15 s")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        self._block("")

    async def _beat(self) -> None:
        """One beat that the venue took. Raises what the request raises, VenueUnavailable for an odd answer."""
        for _ in range(3):
            answer = await self._http.send("POST", PATH, heartbeat_body(self._id))
            found = read_heartbeat(answer.status, answer.body)
            if found is None:
                # After a loss the venue begins anew, with an empty id.
                again, self._id = bool(self._id), ""
                if again and answer.status == 400:
                    continue
                break
            self._id = found.heartbeat_id
            if found.accepted:
                self.beats += 1
                return
        raise VenueUnavailable(
            f"{self._http.host} does not take the heartbeat ({answer.status}: {answer.excerpt}): is another process "
            "beating for the same API key?",
            answer.status,
        )

    async def _run(self) -> None:
        clock = self._clock
        last = clock.io_monotonic()
        wait = EVERY_SECONDS
        lost = False
        while True:
            await clock.io_sleep(wait)
            try:
                async with clock.io_timeout(EVERY_SECONDS - RETRY_SECONDS):
                    await self._beat()
            except Exception as error:  # whatever it is: without beats the orders go
                wait = RETRY_SECONDS
                if not isinstance(error, PmkitError | TimeoutError):
                    _LOG.exception("polymarket: the heartbeat failed in an unexpected way")
                if not lost and clock.io_monotonic() - last > LOST_SECONDS:
                    lost = True
                    self.losses += 1
                    self._block("the heartbeat is lost, and the venue may have cancelled all open orders")
                    _LOG.error(
                        "polymarket: no heartbeat for %g s, no new orders until it is back: %s", LOST_SECONDS, error
                    )
                continue
            last = clock.io_monotonic()
            wait = EVERY_SECONDS
            if lost:
                try:
                    await self._on_back()
                except PmkitError as error:
                    _LOG.error("polymarket: the heartbeat is back, the open orders could not be read: %s", error)
                    wait = RETRY_SECONDS
                    continue
                lost = False
                self._block("")
                _LOG.warning("polymarket: the heartbeat is back")
