"""What a socket counts and logs: each kind of trouble at most once in ten seconds, each episode of losses once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from pmkit.clock import Clock
from pmkit.logging.limits import RateLimitedLog
from pmkit.websocket.failures import Failure, printable

_LOG = logging.getLogger("pmkit.websocket")
_LOG_EVERY_SECONDS = 10.0
MAX_UNKNOWN_KINDS = 64
OTHER_KINDS = "(other)"


class FrameError(ValueError):
    """A frame that is garbage, or of a known type and does not parse. Raised by `_on_frame`; the stream lives on."""


@dataclass(slots=True)
class SocketStats:
    """Counters of one socket over all its connections.

    `blocked` says why trying again soon cannot help (credentials, region, a frame too large); empty when all is well.
    `callback_errors` counts exceptions of `_on_frame`, of the hooks and of `on_gap`.
    """

    attempts: int = 0
    connects: int = 0
    disconnects: int = 0
    renewals: int = 0
    silences: int = 0
    frames: int = 0
    data_frames: int = 0
    bytes: int = 0
    garbage: int = 0
    callback_errors: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    last_reason: str = ""
    blocked: str = ""


class Reports:
    """The counters of a socket and its lines in the log."""

    def __init__(self, name: str, clock: Clock, show_frames: bool) -> None:
        self.stats = SocketStats()
        self._name = name
        self._limited = RateLimitedLog(_LOG, clock, every=_LOG_EVERY_SECONDS)
        self._show_frames = show_frames
        self._in_trouble = False
        self._told_blocked = False

    def failed(self, what: str, error: BaseException) -> None:
        """Code that a feed or a user gave us raised."""
        self.stats.callback_errors += 1
        count = self.stats.callback_errors
        self._limited.error(what, "%s: %s raised (%d errors so far)", self._name, what, count, exc_info=error)

    def garbage(self, data: bytes, error: FrameError) -> None:
        """A frame does not parse."""
        self.stats.garbage += 1
        shown = printable(data) if self._show_frames else f"{len(data)} bytes, not shown"
        message = "%s: a frame does not parse (%s; %d so far): %s"
        self._limited.warning("garbage", message, self._name, printable(error), self.stats.garbage, shown)

    def unknown(self, kind: str, host: str) -> None:
        """An event type that this version does not know. Kinds come from the network: their number has a bound."""
        unknown = self.stats.unknown
        kind = printable(kind, 64)
        if kind not in unknown and len(unknown) >= MAX_UNKNOWN_KINDS:
            kind = OTHER_KINDS
        if kind not in unknown:
            _LOG.warning("%s: %s sends '%s', which this version does not know: ignored", self._name, host, kind)
        unknown[kind] += 1

    def trouble(self, failure: Failure, what: str) -> bool:
        """A connection failed or was lost. True when the socket became blocked, once per episode."""
        stats = self.stats
        stats.last_reason = failure.reason
        newly = failure.blocked and not self._told_blocked
        if failure.blocked:
            stats.blocked = failure.reason
            self._told_blocked = True
        level = logging.ERROR if newly else logging.DEBUG if self._in_trouble else logging.WARNING
        _LOG.log(level, "%s: %s (%s); trying again", self._name, what, failure.reason)
        self._in_trouble = True
        return newly

    def up(self, host: str, generation: int) -> None:
        """A connection is up and subscribed."""
        level = logging.DEBUG if self._in_trouble and generation > 1 else logging.INFO
        _LOG.log(level, "%s: connected to %s (connection %d)", self._name, host, generation)

    def proved(self) -> None:
        """A connection delivered and lasted: the next loss is a new episode."""
        self._in_trouble = self._told_blocked = False

    def renewal_failed(self, failure: Failure) -> None:
        """A planned renewal did not come up; the old connection stays."""
        message = "%s: a renewal failed (%s); the old connection stays"
        self._limited.warning("renewal", message, self._name, failure.reason)
