"""A Binance with a past: klines and bulk files of the same rows, on one loopback port, for the tests of history.

Rows are those of `tests.binance.venue.tape`. `holes` are absent everywhere; `files` replaces what a bulk path gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from pmkit.data.candle_file import HEADER
from tests.binance.venue import Venue, tape

DAY = 86_400_000
MICROSECONDS_FROM = 1_735_689_600_000  # 2025-01-01
BULK = re.compile(r"/data/spot/(daily|monthly)/klines/([A-Z]+)/(\w+)/\2-\3-([0-9-]+)\.zip(\.CHECKSUM)?")


def ms(text: str) -> int:
    """`2026-03-13` or `2026-03-13T12:00:05` in UTC, as epoch ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def bounds(name: str) -> tuple[int, int]:
    """Start and end of the day or month of a bulk file."""
    if len(name) == 10:
        return ms(name), ms(name) + DAY
    first = datetime.fromisoformat(name + "-01").replace(tzinfo=UTC)
    return ms(name + "-01"), int((first + timedelta(days=32)).replace(day=1).timestamp()) * 1000


class HistoryVenue(Venue):
    """`Venue` with bulk files. `published` says whether a file is there yet; `files` overrides (body, checksum)."""

    def __init__(self, interval: str, now_ms: int) -> None:
        super().__init__(interval, now_ms)
        self.files: dict[str, tuple[bytes | None, str | None]] = {}
        self.bulk_requests: list[str] = []
        self.bulk_status: int | None = None
        self.off_grid: dict[int, int] = {}  # open on the grid -> open as it is
        self.published: Callable[[str], bool] = lambda name: True
        self.limit = 1_000_000
        self.first_ms = ms("2026-03-01")
        self.on_request: Callable[[int], None] | None = None
        self.served = 0
        self._cache: dict[str, bytes] = {}

    def row(self, symbol: str, opened: int) -> list[object]:
        found: list[object] = super().row(symbol, opened)
        found[0] = self.off_grid.get(opened, opened)
        return found

    def rows(self, query):  # type: ignore[no-untyped-def]
        if self.on_request is not None:
            self.served += 1
            self.on_request(self.served)
        # Off the grid the venue filters by the open as it is.
        if "startTime" in query:
            query = {**query, "startTime": str(max(int(query["startTime"]), self.first_ms - self.length))}
            if "endTime" not in query:
                span = (int(query.get("limit", "500")) + len(self.outage)) * self.length
                query["endTime"] = str(min(self.now_ms, int(query["startTime"]) + span))
        found = super().rows(query)
        start, end = int(query.get("startTime", 0)), int(query.get("endTime", 1 << 60))
        return [row for row in found if start <= row[0] <= end] if self.off_grid else found

    def opens(self, start: int, end: int) -> Iterable[int]:
        length = self.length
        for opened in range(-(-max(start, self.first_ms) // length) * length, end, length):
            if opened not in self.outage:
                yield opened

    def csv(self, start: int, end: int, symbol: str = "BTCUSDT", header: bool = True) -> bytes:
        """What pmkit's file of that range must be."""
        lines = [
            f"{self.off_grid.get(opened, opened)},{','.join(tape(symbol, opened))}\n"
            for opened in self.opens(start, end)
        ]
        return (HEADER if header else b"") + "".join(lines).encode()

    def text(self, symbol: str, start: int, end: int, micro: bool | None = None) -> bytes:
        """The CSV inside a bulk file."""
        lines = []
        for opened in self.opens(start, end):
            us = opened >= MICROSECONDS_FROM if micro is None else micro
            first, last = opened, opened + self.length - 1
            stamp, close = (first * 1000, last * 1000 + 999) if us else (first, last)
            lines.append(f"{stamp},{','.join(tape(symbol, opened))},{close},0.00000000,1,0.00000000,0.00000000,0\n")
        return "".join(lines).encode()

    def zip(self, symbol: str, name: str, text: bytes | None = None) -> bytes:
        """A bulk file."""
        if text is None:
            text = self.text(symbol, *bounds(name))
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            # A fixed date: with that of the moment the same file has another sha256 every two seconds.
            member = zipfile.ZipInfo(f"{symbol}-{self.interval}-{name}.csv", (2026, 3, 20, 0, 0, 0))
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, 1)
        return target.getvalue()

    async def bulk(self, request: web.Request) -> web.StreamResponse:
        self.bulk_requests.append(request.path)
        if self.bulk_status is not None:
            return web.Response(status=self.bulk_status)
        found = BULK.fullmatch(request.path)
        if found is None:
            return web.Response(status=404)
        _, symbol, _, name, checksum = found.groups()
        if not self.published(name):
            return web.Response(status=404)
        if name in self.files:
            body, digest = self.files[name]
        else:
            body, digest = self._cache.get(symbol + name), None
            if body is None:
                body = self._cache[symbol + name] = self.zip(symbol, name)
        if body is None:
            return web.Response(status=404)
        if checksum:
            digest = hashlib.sha256(body).hexdigest() if digest is None else digest
            return (
                web.Response(text=f"{digest}  {request.path.rpartition('/')[2]}\n")
                if digest
                else web.Response(status=404)
            )
        return web.Response(body=body)

    def endpoints(self, *more: str, first: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
        found = super().endpoints(*more, first=first)
        from msgspec.structs import replace

        return replace(found, binance=replace(found.binance, bulk=self.url))


@contextlib.asynccontextmanager
async def history(interval: str, now: str) -> AsyncIterator[HistoryVenue]:
    """A venue that is up; `now` is its time."""
    venue = HistoryVenue(interval, ms(now))
    app = web.Application()
    app.router.add_get("/api/v3/{path}", venue.rest)

    async def bulk(request: web.Request) -> web.StreamResponse:
        return await venue.bulk(request)  # looked up for each: tests replace it

    app.router.add_get("/data/spot/{path:.*}", bulk)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield venue
    finally:
        await runner.cleanup()


class Killed(BaseException):
    """What a kill -9 is inside this process: nothing that follows reaches the disk."""


class Axe:
    """Kills at the n-th call that changes the disk, half-way through where it is a write."""

    NAMES = ("write", "fsync", "ftruncate", "replace", "unlink")

    def __init__(self, monkeypatch, at: int, share: float = 0.5) -> None:  # type: ignore[no-untyped-def]
        import os

        self.calls = 0
        self.dead = False
        self._at, self._share = at, share
        self._lock = threading.Lock()
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            with self._lock:
                if self.dead:
                    raise Killed
                self.calls += 1
                if self.calls < self._at:
                    return real(*arguments, **options)
                self.dead = True
                if name == "write":
                    fd, data = arguments
                    real(fd, bytes(data)[: int(len(data) * self._share)])
                raise Killed

        return call


def months(directory: Path, symbol: str = "BTCUSDT", interval: str = "1s") -> dict[str, bytes]:
    """The month files of a fetch, by month."""
    folder, prefix = directory / f"{symbol}-{interval}", f"{symbol}-{interval}-"
    return {path.stem.removeprefix(prefix): path.read_bytes() for path in sorted(folder.glob(prefix + "*.csv"))}
