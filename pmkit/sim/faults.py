"""The switches with which tests and the fault layer make a venue misbehave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.ordered import OrderedSet

if TYPE_CHECKING:
    from pmkit.sim.sockets import SocketSession


class _Status(msgspec.Struct):
    pattern: re.Pattern[str]
    status: int
    body: bytes
    times: int | None
    headers: dict[str, str]


def frame_of(data: object) -> bytes:
    """A text frame: bytes as they are, text encoded, anything else as JSON."""
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else msgspec.json.encode(data)


class Faults:
    """Switches that tests and the fault layer turn. One object for all ports of a venue.

    `counts` says how often each did something.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until = 0.0
        self._delay = 0.0
        self._statuses: list[_Status] = []
        self._armed: Counter[str] = Counter()
        self._handshakes: list[int] = []
        self.sessions: OrderedSet[SocketSession] = OrderedSet()
        self.counts: Counter[str] = Counter()

    def silence(self, seconds: float) -> None:
        """For market seconds no socket sends data: pings are still answered, what is missed never comes."""
        self._silent_until = self._clock.monotonic() + seconds

    @property
    def silent(self) -> bool:
        return self._clock.monotonic() < self._silent_until

    def drop_connections(self) -> int:
        """Reset every socket connection, without a closing handshake. Returns how many there were."""
        sessions = list(self.sessions)
        for session in sessions:
            session.abort()
        self.counts["dropped"] += len(sessions)
        return len(sessions)

    def reject_handshake(self, status: int, times: int = 1) -> None:
        """Answer the next socket handshakes with a status."""
        self._handshakes += [status] * times

    def delay(self, seconds: float) -> None:
        """Hold every HTTP answer (and handshake) back for wall seconds, until `delay(0)`."""
        self._delay = seconds

    def http_status(
        self,
        path_pattern: str,
        status: int,
        body: str | bytes = b"",
        times: int | None = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer requests whose "METHOD /path" the regular expression finds with a status and raw body.

        `times=None` means until `clear`.
        """
        raw = body.encode() if isinstance(body, str) else body
        self._statuses.append(_Status(re.compile(path_pattern), status, raw, times, dict(headers or {})))

    def forget(self, path_pattern: str) -> None:
        """Take back what `http_status` was told with that expression."""
        self._statuses = [rule for rule in self._statuses if rule.pattern.pattern != path_pattern]

    def garbage(self, frame: str | bytes) -> int:
        """Send a text frame as it is to every socket. Returns to how many."""
        for session in list(self.sessions):
            session.send_control(frame_of(frame))
        self.counts["garbage"] += len(self.sessions)
        return len(self.sessions)

    def arm(self, name: str, times: int = 1) -> None:
        """A one-shot switch of a single venue; `take` turns it off again."""
        self._armed[name] += times

    def take(self, name: str) -> bool:
        """Whether that switch was armed; uses it up once."""
        if self._armed[name] <= 0:
            return False
        self._armed[name] -= 1
        self.counts[name] += 1
        return True

    def clear(self) -> None:
        """All switches off. Connections that were dropped stay dropped."""
        self._silent_until = 0.0
        self._delay = 0.0
        self._statuses.clear()
        self._armed.clear()
        self._handshakes.clear()

    async def before(self, request: web.Request) -> web.Response | None:
        """What the plumbing asks before every request: waits out a delay, may answer in the venue's place."""
        if self._delay > 0:
            self.counts["delayed"] += 1
            await self._clock.io_sleep(self._delay)
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        if is_socket and self._handshakes:
            self.counts["rejected_handshakes"] += 1
            return web.Response(status=self._handshakes.pop(0))
        line = f"{request.method} {request.path}"
        for rule in self._statuses:
            if rule.pattern.search(line):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self._statuses.remove(rule)
                self.counts["http_status"] += 1
                kind = "text/html" if rule.body.startswith(b"<") else "application/json"
                return web.Response(status=rule.status, body=rule.body, headers=rule.headers, content_type=kind)
        return None
