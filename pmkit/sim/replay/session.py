"""A recording of `pmkit.recording`, read ahead of the moment that is played: who was asked what, and which frames came.

A file of any length: only what is near the moment is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pmkit.recording.lines import (
    Answer,
    Close,
    Connect,
    Decision,
    End,
    Failed,
    Heard,
    Line,
    Lost,
    Open,
    Request,
    Running,
    Said,
    Start,
    Stopping,
    Unanswered,
    decode,
)
from pmkit.sim.replay.files import Damaged, lines

NS = 1_000_000_000
NEAR_SECONDS = 5.0
"""Wall seconds by which a request may come earlier or later than the recorded one whose answer it gets."""
_UNTAKEN = 60
_MOMENT = re.compile(
    r"(?<![0-9A-Za-z.-])(?:\d{13}|\d{10}|\d{4}-\d\d-\d\dT\d\d(?::|%3A)\d\d(?::|%3A)\d\d(?:\.\d+)?Z)(?![0-9A-Za-z])"
)
"""Epoch s or ms, or ISO: what a client computes from its clock."""


class Key(NamedTuple):
    """What makes two requests the same; moments in the query are replaced by a star."""

    authority: str
    method: str
    path: str
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. `status` 0: no answer. `done_ns` 0: not known (yet)."""

    key: Key
    moments: tuple[int, ...]
    sent_ns: int
    done_ns: int = 0
    answer: Answer | None = None


@dataclass(slots=True)
class Socket:
    """One recorded connection. `events`: frames and its end, in order; `more` is set when some were added."""

    authority: str
    path: str
    private: bool
    connect_ns: int
    open_ns: int = 0
    failed: Failed | None = None
    first_said: str | None = None
    events: deque[Heard | Said | Close] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    taken: bool = False
    playing: bool = False
    complete: bool = False


def authority_of(url: str) -> str:
    """Host and port."""
    return urlsplit(url).netloc


def key_of(authority: str, method: str, target: str, body: bytes) -> tuple[Key, tuple[int, ...]]:
    """The key of a request, and the moments in its query as epoch ms. `target`: path and query as sent."""
    path, mark, query = target.partition("?")
    moments = tuple(_ms(found) for found in _MOMENT.findall(query))
    return Key(authority, method, path + mark + _MOMENT.sub("*", query), body), moments


def _ms(text: str) -> int:
    if text.isdigit():
        return int(text) * (1000 if len(text) == 10 else 1)
    return round(datetime.fromisoformat(text.replace("%3A", ":").replace("Z", "+00:00")).timestamp() * 1000)


class Session:
    """What a recording holds around the moment. `began_ns`: when the bot was started. `counts`: lines by type, `bad`.
    `holes`: (since, until, lines). `damage`: why the file ends early, "" for a whole one. `decisions`: what the bot
    decided then. Raises ConfigError for what is no recording, OSError for what cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.holes: list[tuple[int, int, int]] = []
        self.decisions: list[bytes] = []
        self.sockets: list[Socket] = []
        self.damage = ""
        self.whole = False
        self.over = False
        self.last_ns = 0
        self.stopping_ns = 0
        self._lines = self._read()
        first = next(self._lines, None)
        assert isinstance(first, Start)  # `decode` has looked
        self.start = first
        self._second = next(self._lines, None)
        self.began_ns = self._second.at_ns if isinstance(self._second, Running) else first.at_ns
        self.near_ns = round(NEAR_SECONDS * first.factor * NS)
        self._pool: dict[Key, deque[Exchange]] = {}
        self._last: dict[Key, Exchange] = {}
        self._open: dict[int, Exchange] = {}
        self._conns: dict[int, Socket] = {}

    def _read(self) -> Iterator[Line | None]:
        try:
            yield from decode(lines(self.path))
        except Damaged as error:
            self.damage = str(error)

    # -- reading ahead --------------------------------------------------------------------------------------------

    def read_until(self, moment_ns: int, now_ns: int) -> None:
        """Read on until a line of a later moment; what is too old to be asked for is forgotten."""
        old = now_ns - self.near_ns
        for key, pool in list(self._pool.items()):
            while pool and pool[0].sent_ns < old:
                self._last[key] = pool.popleft()
            if not pool:
                del self._pool[key]
        self._last = {key: last for key, last in self._last.items() if not 0 < last.done_ns < old}
        while not self.over and self.last_ns <= moment_ns:
            line, self._second = self._second, None
            try:
                line = line or next(self._lines)
            except StopIteration:
                self.over = True
                return
            if line is None:
                self.counts["bad"] += 1
                continue
            self.last_ns = max(self.last_ns, line.at_ns)
            self._take(line)

    def read_to_end(self) -> None:
        """Count what is left, and see whether the file is whole."""
        while not self.over:
            self.read_until(self.last_ns + NS, self.last_ns)

    def _take(self, line: Line) -> None:
        self.counts[str(type(line).__struct_config__.tag)] += 1
        if isinstance(line, Heard | Said | Close):
            self._event(line)
        elif isinstance(line, Request):
            self._request(line)
        elif isinstance(line, Answer | Unanswered):
            exchange = self._open.pop(line.id, None)
            if exchange is not None:
                exchange.done_ns = line.at_ns
                exchange.answer = line if isinstance(line, Answer) and not line.streamed else None
        elif isinstance(line, Connect):
            url = urlsplit(line.url)
            socket = Socket(url.netloc, url.path, line.private, line.at_ns)
            self._conns[line.conn] = socket
            self.sockets.append(socket)
        elif isinstance(line, Open | Failed):
            socket = self._conns[line.conn]
            if isinstance(line, Open):
                socket.open_ns = line.at_ns
            else:
                socket.failed = line
        elif isinstance(line, Decision):
            self.decisions.append(line.data)
        elif isinstance(line, Lost):
            self.holes.append((line.since_ns, line.at_ns, line.lines))
        elif isinstance(line, Stopping):
            self.stopping_ns = line.at_ns
        elif isinstance(line, End):
            self.whole = True

    def _event(self, line: Heard | Said | Close) -> None:
        socket = self._conns.get(line.conn)
        if socket is None:
            return  # its beginning is in a hole
        if not socket.taken and line.at_ns - socket.connect_ns > _UNTAKEN * self.near_ns:
            socket.events.clear()  # nobody will come for it
            return
        if isinstance(line, Said) and socket.first_said is None:
            socket.first_said = line.text
        if isinstance(line, Close):
            socket.complete = True
            del self._conns[line.conn]
        socket.events.append(line)
        socket.more.set()

    def _request(self, line: Request) -> None:
        if line.private:
            return
        url = urlsplit(line.url)
        target = url.path + (f"?{url.query}" if url.query else "")
        key, moments = key_of(url.netloc, line.method, target, line.data)
        exchange = Exchange(key, moments, line.at_ns)
        self._open[line.id] = exchange
        self._pool.setdefault(key, deque()).append(exchange)

    # -- what is asked --------------------------------------------------------------------------------------------

    def exchange(self, key: Key, moments: tuple[int, ...], now_ns: int) -> Exchange | None:
        """The recorded exchange whose answer this request gets: the next of the same request within `near_ns`, or the
        last one again while it is no older. None where there is none. `answers` counts.
        """
        pool = self._pool.get(key, deque())
        while pool and pool[0].sent_ns < now_ns - self.near_ns:
            self._last[key] = pool.popleft()
        for place, found in enumerate(pool):
            if found.sent_ns > now_ns + self.near_ns:
                break
            if self._same_moments(found.moments, moments):
                del pool[place]
                self._last[key] = found
                self.answers["as recorded" if found.moments == moments else "near"] += 1
                return found
        last = self._last.get(key)
        if last is not None and last.done_ns and last.answer and now_ns - last.done_ns <= self.near_ns:
            self.answers["again"] += 1
            return last
        self.answers["not recorded"] += 1
        return None

    def _same_moments(self, recorded: tuple[int, ...], asked: tuple[int, ...]) -> bool:
        if len(recorded) != len(asked):
            return False
        return all(abs(one - other) * 1_000_000 <= self.near_ns for one, other in zip(recorded, asked, strict=True))

    def connection(self, authority: str, path: str, now_ns: int) -> Socket | None:
        """The next recorded attempt to connect there within `near_ns`."""
        while self.sockets and (self.sockets[0].taken or self.sockets[0].connect_ns < now_ns - 2 * self.near_ns):
            self.sockets.pop(0)
        for socket in self.sockets:
            here = (socket.authority, socket.path) == (authority, path)
            if here and not socket.taken and abs(socket.connect_ns - now_ns) <= self.near_ns:
                socket.taken = socket.playing = True
                return socket
        return None

    def left(self, authority: str, path: str) -> Socket | None:
        """A recorded connection that still lasts, and whose client has gone."""
        for socket in self._conns.values():
            if (socket.authority, socket.path) == (authority, path) and socket.taken and not socket.playing:
                socket.playing = True
                return socket
        return None
