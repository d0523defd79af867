"""The seam to the websockets library: opening one connection, and the pace of what is sent. No other module of pmkit
imports the library's client, but `connection.py`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from websockets.asyncio.client import connect

from pmkit.clock import Clock
from pmkit.endpoints import is_loopback
from pmkit.websocket.connection import CLOSE_SECONDS, Connection

OPEN_SECONDS = 10.0
_HAPPY_EYEBALLS_SECONDS = 0.25
# A sliding window is watched by two clocks; a few per cent keep ours the stricter one.
_PACE_MARGIN = 1.05

# At DEBUG the library writes handshake headers and whole frames, credentials among them (failure mode SX-03). It gets a
# logger of its own that stays at WARNING whatever level the root has.
_LIBRARY_LOG = logging.getLogger("pmkit.websocket.library")
_LIBRARY_LOG.setLevel(logging.WARNING)


class _Connect(connect):
    """Follows no redirect: the library would take signed headers along to another host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@functools.cache
def _tls() -> ssl.SSLContext:
    # Loading the certificates takes tens of milliseconds: once, not at every reconnect.
    return ssl.create_default_context()


async def open_connection(
    url: str,
    headers: Mapping[str, str],
    *,
    compression: bool,
    max_size: int,
    open_timeout: float = OPEN_SECONDS,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
    factory: Callable[..., Connection] = Connection,
) -> Connection:
    """TCP, TLS and the handshake; all times in wall seconds. Raises OSError, TimeoutError or the library's errors.

    Loopback never goes through a proxy; any other host takes the one of the environment, as the HTTP session does.
    """
    local = is_loopback(url)
    options: dict[str, Any] = {}
    if url.startswith("wss:"):
        options["ssl"] = _tls()
    if not local and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        options["happy_eyeballs_delay"] = _HAPPY_EYEBALLS_SECONDS  # asyncio's own loops only: uvloop has none
    connection = await _Connect(
        url,
        compression="deflate" if compression else None,
        additional_headers=dict(headers),
        user_agent_header="pmkit",
        proxy=None if local else True,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=CLOSE_SECONDS,
        max_size=max_size,
        logger=_LIBRARY_LOG,
        create_connection=cast(Any, functools.partial(factory, largest=max_size)),  # it is only called
        **options,
    )
    assert isinstance(connection, Connection)
    return connection


class Pacer:
    """At most `per_second` frames in any second of wall time, in the order in which they asked."""

    __slots__ = ("_clock", "_lock", "_sent", "_window")

    def __init__(self, clock: Clock, per_second: float) -> None:
        if not per_second > 0:
            raise ValueError(f"a pace must be above 0 frames a second, not {per_second!r}")
        slots = max(1, int(per_second))
        self._clock = clock
        self._window = slots / per_second * _PACE_MARGIN
        self._sent: deque[float] = deque(maxlen=slots)
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for a free slot and take it."""
        async with self._lock:
            sent = self._sent
            while len(sent) == sent.maxlen and (left := sent[0] + self._window - self._clock.io_monotonic()) > 0:
                await self._clock.io_sleep(left)
            sent.append(self._clock.io_monotonic())
