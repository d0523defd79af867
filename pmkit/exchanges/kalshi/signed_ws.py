"""What Kalshi's sockets have in common: every handshake is signed, with the venue's time (kalshi.md 2.3 and 6.1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pmkit.clock import Clock
from pmkit.errors import ConfigError, PmkitError
from pmkit.exchanges.kalshi.auth import SOCKET_PATH, HandshakeSigner, path_of
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import BaseWebSocket
from pmkit.websocket.link import K

MEASURE_SECONDS: Final = 30.0
"""Wall seconds between two measurements of the venue's clock, as long as the venue refuses the handshake."""
_LOG = logging.getLogger("pmkit.kalshi")


class SignedSocket(BaseWebSocket[K]):
    """Each attempt is signed anew. A stamp that is off by more than some seconds is refused like a wrong key: while the
    venue refuses, `measure()` measures its clock. Raises ConfigError for an address whose path is not the signed one.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        *,
        venue_clock: VenueClock,
        measure: Callable[[], Awaitable[object]],
        **options: Any,
    ) -> None:
        if path_of(url) != SOCKET_PATH:
            raise ConfigError(f"Kalshi's socket address must end in {SOCKET_PATH}, the path that is signed")
        super().__init__(url, clock, pace=20.0, **options)
        self._signer = signer
        self._venue_clock = venue_clock
        self._measure = measure
        self._measuring: asyncio.Task[None] | None = None

    def _handshake_headers(self) -> Mapping[str, str]:
        return self._signer.headers("GET", SOCKET_PATH, self._venue_clock.now_ms())

    def _on_blocked(self, reason: str) -> None:
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.get_running_loop().create_task(self._remeasure(), name="pmkit kalshi clock")

    async def _remeasure(self) -> None:
        while self.stats.blocked:
            try:
                await self._measure()
            except PmkitError as error:
                _LOG.warning("kalshi: the venue's clock could not be measured: %s", error)
            await self._clock.io_sleep(MEASURE_SECONDS)

    async def close(self) -> None:
        """End everything, within a second of wall time. May be called again."""
        measuring, self._measuring = self._measuring, None
        if measuring is not None:
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
        await super().close()
