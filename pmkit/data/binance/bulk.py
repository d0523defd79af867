"""The bulk files of data.binance.vision: download, check, unzip, convert. See binance.md section 3.

A file is trusted when its sha256 is that of its `.CHECKSUM`. When it is not, both are read once more (files get
replaced); when it still is not, the file is used only if every candle of its days is in it, since published checksums
have been wrong for whole files before. Otherwise REST has the last word.

A zip lies in a temporary file without a name and is unpacked in pieces in a thread: memory does not grow with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from pmkit.clock import Clock
from pmkit.data.binance.plan import Bulk, row_count
from pmkit.data.binance.rows import BadRows, Chunk, bulk_rows, is_header
from pmkit.data.candle_file import disk_errors
from pmkit.endpoints import Endpoints
from pmkit.errors import NotSent, PmkitError, RateLimited, RegionBlocked, VenueUnavailable
from pmkit.http import HttpSession

T = TypeVar("T")

ATTEMPTS: Final = 4
FIRST_BACKOFF: Final = 0.5
GIVE_UP_AFTER: Final = 3
"""So many files in a row that could not be read, and the host is left alone for a while."""
PAUSES: Final = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Market seconds of that: a network that was away comes back, and then bulk files are quicker than REST again."""
MOST_BYTES_OF_A_LINE: Final = 4_096
_ALLOW = (("GET", r"/data/spot/(daily|monthly)/klines/[A-Z0-9]+/[0-9a-zA-Z]+/[A-Za-z0-9-]+\.zip(\.CHECKSUM)?"),)
_BLOCK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)

_LOG = logging.getLogger("pmkit.binance")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run blocking work in a thread. A cancelled caller still waits for it: it holds a file."""
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        work.exception()  # so that it counts as seen
        raise


class BulkFacts(msgspec.Struct, frozen=True):
    """Where rows came from, for the gap report. `checksum`: ok, wrong, absent."""

    name: str
    sha256: str
    checksum: str


class BulkZip:
    """A downloaded file. `close` it."""

    def __init__(self, bulk: Bulk, file: IO[bytes], length: int, facts: BulkFacts) -> None:
        self.bulk = bulk
        self.facts = facts
        self._file = file
        self._length = length
        self._at = bulk.file_start
        self._tasks: set[asyncio.Task[Any]] = set()

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """The wanted rows as CSV in runs without a gap, in order. A block is unpacked while the one before it is
        converted and the one before that is written.

        Raises BadRows; what came before it is good.
        """
        blocks = self._unpacked()
        text = self._spawn(next, blocks, None)
        converted: asyncio.Task[list[Chunk]] | None = None
        while True:
            await asyncio.wait([text])
            found = await converted if converted is not None else []
            block = None
            if text.exception() is None and (block := text.result()) is not None:
                converted = self._spawn(self._convert, block, self.bulk.start_ms, self.bulk.end_ms)
            read, text = text, self._spawn(next, blocks, None) if block is not None else text
            for chunk in found:
                yield chunk
            if block is None:
                read.result()  # raises what ended it
                return

    def _spawn(self, function: Callable[..., T], *arguments: Any) -> asyncio.Task[T]:
        work = asyncio.get_running_loop().create_task(in_thread(function, *arguments), name="pmkit unzip")
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        return work

    def _unpacked(self) -> Iterator[bytes]:
        try:
            yield from _lines(self._file)
        except _UNREADABLE as error:
            raise BadRows(f"the bulk file {self.bulk.name} cannot be unpacked: {error}") from error

    def _convert(self, block: bytes, start_ms: int, end_ms: int) -> list[Chunk]:
        """One block after another: rows go up over all of them."""
        found = bulk_rows(block, self._at, self.bulk.file_end, self._length)
        if found:
            self._at = found[-1].last_ms + 1
        clipped = (_clip(chunk, start_ms, end_ms, self._length) for chunk in found)
        return [chunk for chunk in clipped if chunk is not None]

    def count(self) -> int:
        """Rows in the whole file. Blocking. Raises BadRows."""
        self._at = self.bulk.file_start
        try:
            return sum(
                chunk.rows
                for block in self._unpacked()
                for chunk in self._convert(block, self.bulk.file_start, self.bulk.file_end)
            )
        finally:
            self._at = self.bulk.file_start

    async def close(self) -> None:
        """Forget the file. Idempotent."""
        tasks = list(self._tasks)
        for work in tasks:
            work.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._file.close()


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The CSV inside a zip, in blocks of whole lines, without a header."""
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.lower().endswith(".csv")]
        if len(members) != 1:
            raise BadRows(f"a bulk file holds {len(members)} CSV files, not one")
        with archive.open(members[0]) as text:
            first, tail = True, b""
            while block := text.read(_BLOCK):
                block = tail + block
                cut = block.rfind(b"\n") + 1
                block, tail = block[:cut], block[cut:]
                if len(tail) > MOST_BYTES_OF_A_LINE:
                    raise BadRows(f"a line of more than {MOST_BYTES_OF_A_LINE} bytes in a bulk file")
                if first and cut:
                    first = False
                    line, _, rest = block.partition(b"\n")
                    block = rest if is_header(line) else block
                if block:
                    yield block
            if tail:
                yield tail


def _clip(chunk: Chunk, start_ms: int, end_ms: int, length: int) -> Chunk | None:
    """The part of a run in [start_ms, end_ms)."""
    if start_ms <= chunk.first_ms and chunk.last_ms < end_ms:
        return chunk
    skip = row_count(chunk.first_ms, max(start_ms, chunk.first_ms), length)
    keep = row_count(chunk.first_ms, min(end_ms, chunk.last_ms + length), length) - skip
    if keep <= 0:
        return None
    lines = chunk.data.split(b"\n")[skip : skip + keep]
    first = chunk.first_ms + skip * length
    return Chunk(first, first + (keep - 1) * length, keep, b"\n".join(lines) + b"\n")


class BulkHost:
    """The host of the bulk files. Nothing connects before the first call."""

    def __init__(self, endpoints: Endpoints, clock: Clock) -> None:
        self.off = ""
        """Why the host is not asked any more (it refuses this machine); empty while it is."""
        self.notes: list[str] = []
        self.downloads = 0
        self.bytes = 0
        self._clock = clock
        self._session = HttpSession(endpoints.binance.bulk, clock, allow=_ALLOW, max_connections=8, public=True)
        self._failed = 0
        self._pauses = 0
        self._resume_at = 0.0

    async def close(self) -> None:
        """End all downloads, within a second."""
        await self._session.close()

    async def get(self, bulk: Bulk, symbol: str, interval: str, length: int, directory: Path) -> BulkZip | None:
        """One file, checked; None where REST must do (not there, damaged, no answer). Raises ConfigError: the disk."""
        if self.off or self._clock.monotonic() < self._resume_at:
            return None
        path = bulk.path(symbol, interval)
        try:
            found = await self._checked(bulk, path, length, directory)
        except RegionBlocked as error:
            if not self.off:
                self.off = str(error)
                self._note(f"bulk files are given up, the rest comes over REST: {error}")
            return None
        except (VenueUnavailable, NotSent, RateLimited) as error:
            self._failed += 1
            self._note(f"{bulk.name}: {error}: taken over REST")
            if self._failed >= GIVE_UP_AFTER:
                self._pause()
            return None
        self._failed = self._pauses = 0
        return found

    def _pause(self) -> None:
        seconds = PAUSES[min(self._pauses, len(PAUSES) - 1)]
        self._note(f"{self._failed} files in a row could not be read: bulk files are left alone for {seconds:.0f} s")
        self._failed, self._pauses = 0, self._pauses + 1
        self._resume_at = self._clock.monotonic() + seconds

    def _note(self, text: str) -> None:
        self.notes.append(text)
        _LOG.warning("Binance bulk files: %s", text)

    async def _checked(self, bulk: Bulk, path: str, length: int, directory: Path) -> BulkZip | None:
        for last in (False, True):
            expected = await self._checksum(path)
            loaded = await self._download(path, directory)
            if loaded is None:
                if expected:
                    self._note(f"{bulk.name}: there is a checksum and no file: taken over REST")
                return None
            file, sha256 = loaded
            if sha256 == expected:
                return BulkZip(bulk, file, length, BulkFacts(bulk.name, sha256, "ok"))
            if not last and expected:
                file.close()
                continue
            found = BulkZip(bulk, file, length, BulkFacts(bulk.name, sha256, "wrong" if expected else "absent"))
            return await self._judged(found)
        raise AssertionError("the loop returns")

    async def _judged(self, found: BulkZip) -> BulkZip | None:
        """A file whose checksum does not fit, or is not there, is used only if it is whole."""
        bulk, checksum = found.bulk, found.facts.checksum
        wanted = row_count(bulk.file_start, bulk.file_end, found._length)
        try:
            count = await in_thread(found.count)
        except BadRows as error:
            self._note(f"{bulk.name}: its checksum is {checksum}, and {error}: taken over REST")
            await found.close()
            return None
        except BaseException:
            await found.close()
            raise
        if count != wanted:
            self._note(f"{bulk.name}: its checksum is {checksum}, and it has {count} of {wanted} rows: taken over REST")
            await found.close()
            return None
        self._note(f"{bulk.name}: its checksum is {checksum}, but all {count} rows are there and in order: used")
        return found

    async def _checksum(self, path: str) -> str:
        """The sha256 that the host names, in lower case; empty where it names none."""
        body = bytearray()

        async def take(part: bytes) -> None:
            body.extend(part)

        if not await self._read(path + ".CHECKSUM", take, body.clear):
            return ""
        word = bytes(body).split(maxsplit=1)[0].decode("ascii", "replace").lower() if body.strip() else ""
        return word if len(word) == 64 and not set(word) - set("0123456789abcdef") else ""

    async def _download(self, path: str, directory: Path) -> tuple[IO[bytes], str] | None:
        with disk_errors(directory):
            file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - BulkZip closes it
        digest = [hashlib.sha256()]

        def write(part: bytes) -> None:
            with disk_errors(directory):
                file.write(part)
            digest[0].update(part)

        def restart() -> None:
            file.seek(0)
            file.truncate()
            digest[0] = hashlib.sha256()

        async def take(part: bytes) -> None:
            await in_thread(write, part)

        try:
            if not await self._read(path, take, restart):
                file.close()
                return None
            with disk_errors(directory):
                await in_thread(file.flush)
        except BaseException:
            with suppress(OSError):  # closing writes what is left: on a full disk that fails once more
                file.close()
            raise
        self.downloads += 1
        self.bytes += file.tell()
        return file, digest[0].hexdigest()

    async def _read(self, path: str, sink: Callable[[bytes], Any], restart: Callable[[], object]) -> bool:
        """Whether the file is there; its bytes go to `sink`. Network failures and 5xx are tried again."""
        backoff = FIRST_BACKOFF
        for attempt in range(1, ATTEMPTS + 1):
            restart()
            problem: PmkitError
            try:
                answer = await self._session.request("GET", path, sink=sink)
                if answer.status == 404:
                    return False
                answer.raise_for_status()
                return True
            except (VenueUnavailable, NotSent, RateLimited) as error:
                problem = error
            if attempt == ATTEMPTS:
                raise problem
            await self._clock.sleep(backoff * self._clock.entropy.uniform(0.8, 1.2))
            backoff *= 2
        raise AssertionError("the last attempt returns or raises")
