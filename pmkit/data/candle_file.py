"""`CandleFile`: one candle CSV, open for appending, whole rows or nothing. See `pmkit.data.storage`."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pmkit.errors import ConfigError

HEADER: Final = b"timestamp,open,high,low,close,volume\n"
LONGEST_ROW: Final = 512

_TAIL_BYTES = 8 << 20
"""What is looked at of a file's end when it is opened: more than is ever not synced."""
_ROW = re.compile(rb"([0-9]{13})(?:,[0-9]{1,24}(?:\.[0-9]{1,24})?){5}")
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)

_LOG = logging.getLogger("pmkit.storage")

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        os.lseek(fd, 0x7FFF_FFF0, os.SEEK_SET)  # far behind any content: others may not read a locked range
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def row_time(line: bytes) -> int | None:
    """The open time of a row without its line end; None where it is no row."""
    found = _ROW.fullmatch(line)
    return int(found[1]) if found else None


def whole_rows(read: Callable[[int, int], bytes], size: int) -> tuple[int, bytes]:
    """Where the last whole row of a file ends, and that row without its line end; b"" where there is none.

    `read(start, count)` reads the file. Readers and writers ask here, so that both see the same end.
    """
    start = max(len(HEADER), size - _TAIL_BYTES)
    block = read(start, max(0, size - start))
    # A power cut may leave zeros where the data of the last writes did not reach the disk; what follows them is lost.
    zeros = block.find(b"\0")
    if zeros >= 0:
        block = block[:zeros]
    stop = block.rfind(b"\n")
    if stop < 0:
        return (len(HEADER), b"") if start == len(HEADER) else (start, block)
    return start + stop + 1, block[block.rfind(b"\n", 0, stop) + 1 : stop]


class FileGone(ConfigError):
    """A file was removed, renamed or replaced by somebody else while it was written."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses inside the block into a ConfigError that names the file and the next step."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> ConfigError:
    reason = error.strerror or type(error).__name__
    where = path.absolute()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(
            f"no room on the disk for {where} ({reason}): free some and start again; what is in the file stays, and "
            "the next run goes on from there"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigError(
            f"cannot write {where} ({reason}): give this user the right to, or choose another directory "
            "(PMKIT_DATA_DIR)"
        )
    if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        return ConfigError(f"cannot write {where} ({reason}): a file or directory of that name is in the way")
    return ConfigError(f"cannot write {where} ({reason}): check the disk, or choose another directory (PMKIT_DATA_DIR)")


class CandleFile:
    """One CSV, open for appending and locked for this process. Made, with its header, where it is not there.

    Raises ConfigError, having changed nothing, where the file is not of this kind, is in use by another process, or
    cannot be written. `cut`: bytes of a torn end that were cut off when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = 0
        self._unsynced = 0
        self._appended = False
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, _FLAGS, 0o644)
        try:
            with disk_errors(path):
                self._claim()
                self.size = os.fstat(self._fd).st_size
                self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self) -> None:
        try:
            _lock(self._fd)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise ConfigError(
                    f"{self.path.absolute()} is in use by another process: wait for it, or end it"
                ) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            _LOG.warning("%s: this file system has no locks: do not fetch into it twice at the same time", self.path)

    def _prepare(self) -> None:
        start = self._read(0, len(HEADER))
        if start != HEADER:
            if not HEADER.startswith(start) or self.size > len(start):
                raise ConfigError(
                    f"{self.path.absolute()} is not a candle file of pmkit (it begins {start[:40]!r}): it was left "
                    "alone; move it away or choose another directory"
                )
            self._truncate(0)
            self._write(HEADER)
        end, last = self._last_row()
        if end < self.size:
            self.cut = self.size - end
            _LOG.warning("%s: its last row was torn: %d bytes were cut off", self.path, self.cut)
            self._truncate(end)
        self.last_ms = last
        if last is not None:
            self.first_ms = row_time(self._read(len(HEADER), LONGEST_ROW).partition(b"\n")[0])
            if self.first_ms is None or self.first_ms > last:
                raise ConfigError(f"{self.path.absolute()} is damaged at its start: it was left alone; move it away")

    def _read(self, start: int, count: int) -> bytes:
        os.lseek(self._fd, start, os.SEEK_SET)
        found = b""
        while len(found) < count and (part := os.read(self._fd, count - len(found))):
            found += part
        return found

    def _last_row(self) -> tuple[int, int | None]:
        """Where the last whole row ends, and its time. Raises ConfigError where it is no row of ours."""
        end, row = whole_rows(self._read, self.size)
        if end == len(HEADER):
            return end, None
        opened = row_time(row)
        if opened is None:
            raise ConfigError(
                f"{self.path.absolute()} does not end in a candle: it was left alone; move it away or choose another "
                "directory"
            )
        return end, opened

    def append(self, data: bytes, first_ms: int, last_ms: int, *, every: int = 0) -> None:
        """Add whole rows, all or nothing. Raises ValueError where they do not follow the last row, ConfigError where
        the disk refuses them (full, gone), FileGone where the file is not at its place any more.

        They are on the disk when this returns; with `every`, once that many bytes have come together, or at `close`: a
        kill loses nothing then either, a power cut the last of them.
        """
        if self.last_ms is not None and first_ms <= self.last_ms:
            raise ValueError(f"{self.path.name} ends at {self.last_ms}: a row of {first_ms} does not follow")
        with disk_errors(self.path):
            self._appended = True
            self._write(data)
            if self.first_ms is None:
                self.first_ms = first_ms
            self.last_ms = last_ms
            self._unsynced += len(data)
            if self._unsynced >= every:
                self.sync()

    def sync(self) -> None:
        """Make what was appended durable. Raises ConfigError."""
        with disk_errors(self.path):
            os.fsync(self._fd)
        self._unsynced = 0
        self._check_place()

    def _check_place(self) -> None:
        """Rows that go into a file without a name are lost when it is closed."""
        mine = os.fstat(self._fd)
        with disk_errors(self.path):
            try:
                there = os.stat(self.path)
            except FileNotFoundError:
                there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise FileGone(
                f"{self.path.absolute()} was removed or replaced while it was written: nothing of it is left there; "
                "start again, and leave the directory alone meanwhile"
            )

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException:
            if len(rest) < len(data):
                with suppress(OSError):  # where it fails too, the next opening cuts the torn row
                    os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def _truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self.size = size

    def close(self) -> None:
        """Make durable, unlock and close. Idempotent. Raises ConfigError where the first of these failed."""
        fd = self._fd
        if fd < 0:
            return
        try:
            if self._unsynced:
                self.sync()
            elif self._appended:
                self._check_place()
        finally:
            self._fd = -1
            with suppress(OSError):  # released even when it reports an earlier write's error
                os.close(fd)


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable, where the system can do that."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return  # Windows opens no directories
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
