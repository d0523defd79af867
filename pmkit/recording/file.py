"""The compressed file of a recording: gzip, readable up to its last batch at any moment.

Written by one thread. What a full disk did not take is kept and written first next time, so that the stream has no hole
inside.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from pmkit.logging.paths import unwritable
from pmkit.logging.redact import REDACTOR
from pmkit.recording.lines import Answer, Decision, Heard, Line, Request, Said, encode

Item = tuple[Line, bytes]
"""A line, and what was on the wire: it is put into the line by the thread that writes, not by the event loop."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_GZIP = 31
_KEPT_BYTES = 1 << 20


class RecordingFile:
    """A sink of a `LineWriter`. `lines` and `taken` bytes so far; `masked`: lines in which a known secret was struck
    out, which should never happen: what is private is told by its session. Raises ConfigError where it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self.taken = 0
        self.masked = 0
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self._out = b""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise unwritable(path, error) from None

    def write(self, item: Item) -> None:
        """Raises OSError, and then the item is not taken."""
        if len(self._out) > _KEPT_BYTES:
            self._drain()
        line, data = item
        if data and isinstance(line, Request | Answer | Heard | Said | Decision):
            line.fill(data)
        text = encode(line).decode()
        clean = REDACTOR.known(text)
        self.masked += clean != text
        self._out += self._deflate.compress(clean.encode())
        self.lines += 1
        self.taken += len(data)

    def sync(self) -> None:
        """After each batch: all lines so far can be read by others. Raises OSError."""
        self._out += self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._drain()

    def close(self) -> None:
        try:
            self._out += self._deflate.flush(zlib.Z_FINISH)
            self._drain()
        finally:
            os.close(self._fd)

    def _drain(self) -> None:
        while self._out:
            self._out = self._out[os.write(self._fd, self._out) :]
