"""`Recorder`: writes down what all sessions and sockets made inside its `with` block send and hear.

    with Recorder(path, clock, endpoints) as recorder:
        data = PolymarketMarketData(endpoints, clock)

There are two seams: `HttpSession` and `BaseWebSocket` look for the `current` recorder when they are made. Without one
they do what they always do. A session or socket says itself whether what passes it is `public`; of all others nothing
but the moment, the host and the size is written, and of the headers of a request never anything. Beside that, every
known secret (`pmkit.logging.redact`) is struck out of what is written.

Nothing here waits for the disk: a thread writes. What it cannot keep up with is lost, counted, and the hole is said in
the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.logging.writer import LineWriter
from pmkit.recording import lines
from pmkit.recording.file import Item, RecordingFile
from pmkit.recording.lines import Line
from pmkit.version import __version__

_LOG = logging.getLogger("pmkit.recording")

LIMIT_LINES: Final = 100_000
LIMIT_BYTES: Final = 128 * 2**20
CLOSE_SECONDS: Final = 3.0
_LAST_WORDS: Final = 4
"""Lines that are kept free for what must be said at the end."""
HEADERS: Final = frozenset(
    {"date", "age", "retry-after", "content-type", "x-mbx-used-weight-1m", "cf-cache-status", "server-timing"}
)
"""Of an answer; all others may hold what is private (cookies, request ids)."""

_CURRENT: ContextVar[Recorder | None] = ContextVar("pmkit_recorder", default=None)


def current() -> Recorder | None:
    """The recorder of the `with` block that this code runs in."""
    return _CURRENT.get()


class Recorder:
    """`path` must not exist yet. `about`: what is run, for whoever plays it back. Up to `limit_lines` and `limit_bytes`
    wait for the disk. Raises ConfigError where the file cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        clock: Clock,
        endpoints: Endpoints,
        about: Mapping[str, str | int | list[str] | None] | None = None,
        *,
        limit_lines: int = LIMIT_LINES,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self.path = Path(path)
        self.lost = 0
        self._clock = clock
        self._file = RecordingFile(self.path)
        self._limit_lines = limit_lines
        self._limit_bytes = limit_bytes
        self._writer: LineWriter[Item] = LineWriter(
            f"recording {self.path.name}",
            self._file,
            lambda text, recovered: _LOG.log(logging.WARNING if recovered else logging.ERROR, "%s", text),
            limit=limit_lines + _LAST_WORDS,
            sync_every=1,
        )
        self._given = self._given_bytes = 0
        self._hole = self._hole_since = 0
        self._ids = self._conns = 0
        self._closed = False
        self._token: Token[Recorder | None] | None = None
        self.put(
            lines.Start(
                at_ns=clock.time_ns(),
                version=__version__,
                endpoints=_without_nodes(endpoints),
                factor=clock.factor,
                about=dict(about or {}),
            )
        )

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
            self._token = None
        self.close()

    @property
    def masked(self) -> int:
        """Lines in which a known secret was struck out; anything but 0 is a mistake of pmkit's."""
        return self._file.masked

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what is left and the last line. Blocks `timeout` wall seconds at most. Idempotent."""
        if self._closed:
            return
        self._say_hole()
        self._submit((lines.End(at_ns=self._clock.time_ns(), lines=self._given, lost=self.lost), b""))
        self._closed = True
        left = self._writer.close(timeout)
        if left:
            _LOG.error("%s: %d lines could not be written: the recording has no end", self.path, len(left))

    # -- what sessions, sockets and bots report -------------------------------------------------------------------

    def put(self, line: Line, data: bytes = b"") -> None:
        """One line, with its content. Lost where too much waits for the disk."""
        if self._closed:
            return
        waiting = self._given - self._file.lines
        waiting_bytes = self._given_bytes - self._file.taken
        if waiting >= self._limit_lines or waiting_bytes + len(data) > self._limit_bytes:
            if not self._hole:
                self._hole_since = line.at_ns
                _LOG.error("%s: the disk is too slow: there is a hole in the recording from here on", self.path)
            self._hole += 1
            self.lost += 1
            return
        self._say_hole()
        self._submit((line, data))

    def _say_hole(self) -> None:
        if self._hole:
            hole = lines.Lost(at_ns=self._clock.time_ns(), since_ns=self._hole_since, lines=self._hole)
            self._hole = 0
            self._submit((hole, b""))

    def _submit(self, item: Item) -> None:
        self._given += 1
        self._given_bytes += len(item[1])
        self._writer.submit(item)

    def request(self, method: str, url: str, body: bytes, public: bool) -> RequestTap:
        """A request that is about to be sent."""
        self._ids += 1
        line = lines.Request(at_ns=self._clock.time_ns(), id=self._ids, method=method, url=_bare(url, public))
        if public:
            self.put(line, body)
        else:
            line.private, line.size = True, len(body)
            self.put(line)
        return RequestTap(self, self._clock, self._ids, public)

    def connection(self, name: str, url: str, public: bool) -> SocketTap:
        """A socket that is about to be opened."""
        self._conns += 1
        bare = _bare(url.partition("?")[0], public)
        self.put(lines.Connect(at_ns=self._clock.time_ns(), conn=self._conns, name=name, url=bare, private=not public))
        return SocketTap(self, self._clock, self._conns, public)

    def decision(self, text: bytes) -> None:
        """What a dry-run decided."""
        self.put(lines.Decision(at_ns=self._clock.time_ns()), text)

    def running(self) -> None:
        """The bot is being started."""
        self.put(lines.Running(at_ns=self._clock.time_ns()))

    def stopping(self) -> None:
        """The bot is on its way out."""
        self.put(lines.Stopping(at_ns=self._clock.time_ns()))


def _without_nodes(endpoints: Endpoints) -> Endpoints:
    """The address of a node often holds its key, and no recording has need of it."""
    polymarket = msgspec.structs.replace(endpoints.polymarket, rpc="", rpc_others=())
    return msgspec.structs.replace(endpoints, polymarket=polymarket)


def _bare(url: str, public: bool) -> str:
    """Without user and password; of what is private the host only."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, "") if public else (parts.scheme, host, "", "", ""))


class RequestTap:
    """One request on its way."""

    __slots__ = ("_clock", "_id", "_public", "_recorder")

    def __init__(self, recorder: Recorder, clock: Clock, number: int, public: bool) -> None:
        self._recorder = recorder
        self._clock = clock
        self._id = number
        self._public = public

    def answered(self, status: int, headers: Mapping[str, str], body: bytes, streamed: bool) -> None:
        """Header names are lower case."""
        line = lines.Answer(at_ns=self._clock.time_ns(), id=self._id, status=status)
        if self._public:
            line.headers = {name: value for name, value in headers.items() if name in HEADERS}
            line.streamed = streamed
            self._recorder.put(line, body)
        else:
            line.private, line.size = True, len(body)
            self._recorder.put(line)

    def failed(self, error: BaseException) -> None:
        """There is no answer."""
        reason = type(error).__name__
        self._recorder.put(lines.Unanswered(at_ns=self._clock.time_ns(), id=self._id, reason=reason))


class SocketTap:
    """One connection."""

    __slots__ = ("_clock", "_conn", "_open", "_public", "_recorder")

    def __init__(self, recorder: Recorder, clock: Clock, number: int, public: bool) -> None:
        self._recorder = recorder
        self._clock = clock
        self._conn = number
        self._public = public
        self._open = False

    def opened(self) -> None:
        self._open = True
        self._recorder.put(lines.Open(at_ns=self._clock.time_ns(), conn=self._conn))

    def failed(self, reason: str, status: int) -> None:
        shown = reason if self._public else ""
        self._recorder.put(lines.Failed(at_ns=self._clock.time_ns(), conn=self._conn, reason=shown, status=status))

    def heard(self, data: bytes, part: bytes | None) -> None:
        """A frame from the venue, and what of it may be written."""
        self._content(lines.Heard(at_ns=self._clock.time_ns(), conn=self._conn), data, part)

    def said(self, data: bytes, part: bytes | None) -> None:
        """A frame to the venue, and what of it may be written."""
        self._content(lines.Said(at_ns=self._clock.time_ns(), conn=self._conn), data, part)

    def _content(self, line: lines.Heard | lines.Said, data: bytes, part: bytes | None) -> None:
        if self._public and part is not None:
            self._recorder.put(line, part)
        else:
            line.private, line.size = True, len(data)
            self._recorder.put(line)

    def closed(self, by_us: bool, code: int, reason: str) -> None:
        if not self._open:
            return  # it did not come up: `failed` has said so
        self._open = False
        line = lines.Close(at_ns=self._clock.time_ns(), conn=self._conn, by="us" if by_us else "venue", code=code)
        line.reason = reason if self._public else ""
        self._recorder.put(line)
