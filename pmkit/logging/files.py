"""`DailyFile`: whole lines appended to one file per UTC day.

* A file belongs to one process: it is locked (flock; a byte range on Windows), and the lock ends with the process. A
  second process gets the next number. Open files are never renamed.
* A line is in the file as a whole or not at all: one write, and what a full disk left of it is taken back.
* What a power cut left of a last line is moved to `<file>.torn` before the first append (files with a header), or
  closed by a line end (files without).
* A file whose header is another one is never touched: the next number is used.
* A file that was moved or deleted under us is noticed before the next line, and made anew.

Synchronous, for one thread at a time.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

MAX_NUMBER = 1000
_DAYS_OPEN = 2
_BLOCK = 64 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)

if sys.platform == "win32":
    import msvcrt

    _LOCK_AT = 0x7FFF_FFF0  # far behind any content: Windows forbids others to read a locked range

    def _lock(fd: int) -> None:
        os.lseek(fd, _LOCK_AT, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _Taken(Exception):
    """This name cannot be ours; the text says why."""


@dataclass(slots=True)
class _Open:
    fd: int
    path: Path
    device: int
    inode: int
    capped: bool = False


class DailyFile:
    """See the module docstring. `path_of(day, number)` names the files; `notice` is told, in words, of every surprise.

    `max_bytes` bounds each file: `capped_line` is written once and `write` gives False from then on.
    """

    def __init__(
        self,
        path_of: Callable[[date, int], Path],
        notice: Callable[[str], None],
        *,
        header: bytes = b"",
        max_bytes: int | None = None,
        capped_line: bytes = b"",
    ) -> None:
        self._path_of = path_of
        self._notice = notice
        self._header = header
        self._max_bytes = max_bytes
        self._capped_line = capped_line
        self._files: dict[date, _Open] = {}
        self.path: Path | None = None
        """The file that was opened last."""

    def open(self, day: date) -> Path:
        """The file of this day, opened, locked, repaired. Raises OSError."""
        return self._at(day).path

    def write(self, day: date, line: bytes) -> bool:
        """Append one line (with its line end). False when the file has reached `max_bytes`. Raises OSError."""
        opened = self._at(day)
        size = _size_if_in_place(opened)
        if size is None:
            self._notice(f"{opened.path} was moved or deleted while it was written: a new one is made")
            self._forget(day)
            opened = self._at(day)
            size = os.fstat(opened.fd).st_size
        if self._max_bytes is not None and size + len(line) > self._max_bytes:
            if not opened.capped:
                _append(opened.fd, self._capped_line, size)
                opened.capped = True
                self._notice(f"{opened.path} has reached {self._max_bytes} bytes: no more lines of that day go into it")
            return False
        try:
            _append(opened.fd, line, size)
        except _Torn as error:
            self._forget(day)  # opening it again repairs it
            raise error.cause from None
        return True

    def sync(self) -> None:
        """fsync. Raises OSError."""
        for opened in self._files.values():
            os.fsync(opened.fd)

    def close(self) -> None:
        """Closes and unlocks. Lines may be written again afterwards; the files are then opened anew."""
        for day in list(self._files):
            self._forget(day)

    def _forget(self, day: date) -> None:
        opened = self._files.pop(day, None)
        if opened is not None:
            with suppress(OSError):  # the descriptor is released even when close reports an earlier write's error
                os.close(opened.fd)

    def _at(self, day: date) -> _Open:
        opened = self._files.get(day)
        if opened is None:
            opened = self._claim(day)
            self._files[day] = opened
            self.path = opened.path
            for old in sorted(self._files)[:-_DAYS_OPEN]:
                if old != day:
                    self._forget(old)
        return opened

    def _claim(self, day: date) -> _Open:
        first = self._path_of(day, 1)
        first.parent.mkdir(parents=True, exist_ok=True)
        reason = ""
        for number in range(1, MAX_NUMBER + 1):
            path = self._path_of(day, number)
            try:
                opened = self._try(path)
            except _Taken as taken:
                reason = reason or str(taken)
                continue
            except _Unlockable:
                opened = self._try(self._path_of(day, os.getpid()), locked=False)
                reason = "this file system has no locks"
            if reason:
                self._notice(f"{first}: {reason}; writing to {opened.path.name}")
            return opened
        raise OSError(errno.EEXIST, f"{MAX_NUMBER} files of this name are in use", str(first))

    def _try(self, path: Path, locked: bool = True) -> _Open:
        for _ in range(10):
            try:
                fd = os.open(path, _FLAGS, 0o644)
            except IsADirectoryError:
                raise _Taken("it is a directory") from None
            except PermissionError:
                if path.exists():
                    raise _Taken("it belongs to another user") from None
                raise
            try:
                state = os.fstat(fd)
                if not stat.S_ISREG(state.st_mode):
                    raise _Taken("it is not a regular file")
                if locked:
                    _claim_lock(fd)
                opened = _Open(fd, path, state.st_dev, state.st_ino)
                if _size_if_in_place(opened) is not None:
                    self._prepare(opened)
                    return opened
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # replaced between opening and locking: once more
        raise OSError(errno.EBUSY, "the file is replaced again and again", str(path))

    def _prepare(self, opened: _Open) -> None:
        """The header, and the end of the last line."""
        fd, size = opened.fd, os.fstat(opened.fd).st_size
        if self._header:
            os.lseek(fd, 0, os.SEEK_SET)
            start = os.read(fd, len(self._header))
            if start != self._header and not self._header.startswith(start):
                raise _Taken("it has another header and is left alone")
            if start != self._header:
                size = self._move_tail(opened, 0, size)
        end = _end_of_last_line(fd, size)
        if end < size:
            if self._header:
                size = self._move_tail(opened, end, size)
            else:
                _append(fd, b"\n", size)
        if self._header and size == 0:
            _append(fd, self._header, 0)

    def _move_tail(self, opened: _Open, start: int, size: int) -> int:
        """What stands behind `start` goes to the .torn file, which is on the disk before it is cut off here."""
        if start < size:
            os.lseek(opened.fd, start, os.SEEK_SET)
            tail = b""
            while block := os.read(opened.fd, _BLOCK):
                tail += block
            aside = opened.path.with_name(opened.path.name + ".torn")
            torn = os.open(aside, _FLAGS, 0o644)
            try:
                _append(torn, tail + b"\n", os.fstat(torn).st_size)
                os.fsync(torn)
            finally:
                os.close(torn)
            os.ftruncate(opened.fd, start)
            self._notice(f"{opened.path}: its last row was torn; {len(tail)} bytes were moved to {aside.name}")
        return start


class _Unlockable(Exception):
    """The file system knows no locks."""


class _Torn(Exception):
    """Half a line could not be taken back; `cause` is why the whole could not be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _claim_lock(fd: int) -> None:
    try:
        _lock(fd)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise _Taken("it is in use by another process") from None
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise _Unlockable from None
        raise


def _size_if_in_place(opened: _Open) -> int | None:
    """The size of the file, or None when its path leads elsewhere or nowhere."""
    try:
        there = os.stat(opened.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return there.st_size if (there.st_dev, there.st_ino) == (opened.device, opened.inode) else None


def _append(fd: int, line: bytes, size: int) -> None:
    """All of the line or nothing. `size` is that of the file before."""
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        if len(rest) < len(line):
            try:
                os.ftruncate(fd, size)
            except OSError:
                raise _Torn(error) from None
        raise


def _end_of_last_line(fd: int, size: int) -> int:
    """The offset behind the last line end; 0 without any."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        os.lseek(fd, start, os.SEEK_SET)
        at = os.read(fd, end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
