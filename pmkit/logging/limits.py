"""Logs that repeat: the first at once, then a count."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from pmkit.clock import Clock

MAX_KEYS = 1000


class RateLimitedLog:
    """Logs a message of one key at most once in `every` wall seconds; the next one says how many were left out.

    For what a venue or a network can repeat thousands of times a second. One per stream or client; of more than 1000
    keys the oldest are forgotten (with their counts).
    """

    def __init__(self, logger: logging.Logger, clock: Clock, *, every: float = 30.0) -> None:
        self._logger = logger
        self._clock = clock
        self._every = every
        self._state: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self.suppressed = 0

    def log(
        self, level: int, key: Hashable, message: str, *args: Any, exc_info: Any = None, stacklevel: int = 1
    ) -> bool:
        """Log `message % args`, or only count it. True when it was logged."""
        now = self._clock.io_monotonic()
        next_at, left_out = self._state.get(key, (now, 0))
        if now < next_at:
            self._state[key] = (next_at, left_out + 1)
            self.suppressed += 1
            return False
        self._state[key] = (now + self._every, 0)
        self._state.move_to_end(key)
        while len(self._state) > MAX_KEYS:
            self._state.popitem(last=False)
        if left_out:
            message, args = message + " (and %d like it since the last)", (*args, left_out)
        self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=stacklevel + 1)
        return True

    def debug(self, key: Hashable, message: str, *args: Any) -> bool:
        """See `log`."""
        return self.log(logging.DEBUG, key, message, *args, stacklevel=2)

    def info(self, key: Hashable, message: str, *args: Any) -> bool:
        """See `log`."""
        return self.log(logging.INFO, key, message, *args, stacklevel=2)

    def warning(self, key: Hashable, message: str, *args: Any, exc_info: Any = None) -> bool:
        """See `log`."""
        return self.log(logging.WARNING, key, message, *args, exc_info=exc_info, stacklevel=2)

    def error(self, key: Hashable, message: str, *args: Any, exc_info: Any = None) -> bool:
        """See `log`."""
        return self.log(logging.ERROR, key, message, *args, exc_info=exc_info, stacklevel=2)


class FloodGuard:
    """The last net under every handler: of warnings and errors from one line of code, so many in so many wall seconds.

    Below WARNING nothing is held back; the size limit of the file bounds that.
    """

    def __init__(self, clock: Clock, *, burst: int = 50, window: float = 10.0) -> None:
        self._clock = clock
        self._burst = burst
        self._window = window
        self._state: OrderedDict[tuple[str, int, int], tuple[float, int]] = OrderedDict()
        self.suppressed = 0

    def judge(self, record: logging.LogRecord) -> str | None:
        """None: leave it out. Else a note to put behind the message, usually empty."""
        if record.levelno < logging.WARNING:
            return ""
        key = (record.pathname, record.lineno, record.levelno)
        now = self._clock.io_monotonic()
        started, count = self._state.get(key, (now, 0))
        note = ""
        if now - started >= self._window or now < started:
            if count > self._burst:
                note = f" (and {count - self._burst} more from this line of code before)"
            started, count = now, 0
        count += 1
        self._state[key] = (started, count)
        self._state.move_to_end(key)
        while len(self._state) > MAX_KEYS:
            self._state.popitem(last=False)
        if count > self._burst:
            self.suppressed += 1
            return None
        if count == self._burst:
            note += f" (further ones from this line of code are only counted for up to {self._window:g} s)"
        return note

    def outstanding(self) -> list[tuple[str, int, int]]:
        """(file, line, how many) of what was left out and not told yet."""
        return [(key[0], key[1], count - self._burst) for key, (_, count) in self._state.items() if count > self._burst]
