"""The host of the bulk files: zips, their checksums, and the listing of the storage behind it (binance.md, section 3).

Zips are made on demand in one thread, with candle makers of its own, and the latest are kept. A recorded day is its own
file, byte for byte, as long as nothing scripted changes that day. Not here: ranges, conditional requests, sizes and
hashes in the listing, futures.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from hashlib import sha256

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.binance.archives import ArchiveName, Stopped, lines_of, read_key, zip_of
from pmkit.sim.binance.candles import CandleMaker
from pmkit.sim.binance.faults import BinanceFaults, Spoiled
from pmkit.sim.binance.intervals import HOUR
from pmkit.sim.binance.listing import Listing
from pmkit.sim.binance.refusals import storage_refusal
from pmkit.sim.server import Handler, Refused, Server
from pmkit.sim.world import World

KEPT_BYTES = 64 * 2**20


class _Made(msgspec.Struct, frozen=True):
    """A file: its zip and the digest of that."""

    zip: bytes
    digest: str


_Key = tuple[ArchiveName, Spoiled, int]


class Bulk:
    """`latency_ms` (wall) is added to every answer.

    A daily file appears `daily_lag_ms` (market) after its day ("usually 4-6 h"); a monthly one `monthly_lag_ms` after
    its month or, when that is None, on the first Monday of the next. `kept_bytes` bounds what is kept; `made` counts
    the zips that were made.
    """

    def __init__(self, makers: Mapping[str, CandleMaker], world: World, clock: Clock, faults: BinanceFaults) -> None:
        self.latency_ms = 0.0
        self.daily_lag_ms = 5 * HOUR
        self.monthly_lag_ms: int | None = None
        self.kept_bytes = KEPT_BYTES
        self.made: Counter[str] = Counter()
        self._makers = makers
        self._world = world
        self._clock = clock
        self._faults = faults
        self._files: OrderedDict[_Key, _Made | None] = OrderedDict()
        self._making: dict[_Key, asyncio.Future[_Made | None]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._own_makers: dict[str, CandleMaker] = {}
        self._stopped = False

    def add_routes(self, server: Server, host: int = 0) -> None:
        def served(handler: Handler) -> Handler:
            return self._faults.served(_in_xml(handler), host, lambda: self.latency_ms, storage_refusal)

        server.any("/data/{key:.*}", served(self._file))
        server.any("/data.binance.vision", served(self._listing))
        server.any("/data.binance.vision/", served(self._listing))

    async def close(self) -> None:
        """Whatever is being made is dropped."""
        self._stopped = True
        await asyncio.gather(*self._making.values(), return_exceptions=True)
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._thread = None

    # -- files

    def published(self, name: ArchiveName) -> bool:
        """Whether a file is there now."""
        maker = self._makers.get(name.symbol)
        return (
            maker is not None
            and name.end_ms > maker.symbol.first_ms
            and self._published_ms(name) <= self._clock.now_ms()
            and not self._faults.spoiled(name.base).missing
        )

    def _published_ms(self, name: ArchiveName) -> int:
        return name.published_ms(self.daily_lag_ms, self.monthly_lag_ms)

    async def file(self, name: ArchiveName) -> tuple[bytes, str] | None:
        """The zip and the digest that its checksum file tells, both as spoiled; None where there is no file."""
        if not self.published(name):
            return None
        spoiled = self._faults.spoiled(name.base)
        made = await self._get(name, spoiled)
        if made is None:
            return None
        content, digest = made.zip, made.digest
        if spoiled.corrupt:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        if spoiled.checksum:
            digest = sha256(made.digest.encode()).hexdigest()
        return content, digest

    async def _get(self, name: ArchiveName, spoiled: Spoiled) -> _Made | None:
        history = self._makers[name.symbol].history
        content = msgspec.structs.replace(spoiled, corrupt=False, checksum=False, until_ms=None)
        while True:
            if name.interval == "1s" and not name.monthly and content == Spoiled():
                day = history.untouched(name.start_ms)
                if day is not None:
                    return _Made(day.archive, day.sha256)
            version = history.version
            made = await self._kept_or_made((name, content, version))
            if version == history.version:
                return made  # else the past was rewritten while it was made

    async def _kept_or_made(self, key: _Key) -> _Made | None:
        if key in self._files:
            self._files.move_to_end(key)
            return self._files[key]
        making = self._making.get(key)
        if making is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "binance bulk files")
            making = asyncio.get_running_loop().run_in_executor(self._thread, self._make, *key[:2])
            self._making[key] = making
            making.add_done_callback(lambda done: self._keep(key, done))
        try:
            return await asyncio.shield(making)  # whoever asked first may go away, others wait for it as well
        except Stopped as error:
            raise Refused(503, "The storage is going away.") from error

    def _make(self, name: ArchiveName, spoiled: Spoiled) -> _Made | None:
        """In the thread."""
        maker = self._own_makers.get(name.symbol)
        if maker is None:
            theirs = self._makers[name.symbol]
            world = World(self._world.seed, self._clock, (theirs.symbol.asset,))
            maker = self._own_makers[name.symbol] = CandleMaker(world, theirs.symbol, theirs.history)
        content = zip_of(name, lines_of(maker, name, spoiled, lambda: self._stopped))
        return None if content is None else _Made(content, sha256(content).hexdigest())

    def _keep(self, key: _Key, done: asyncio.Future[_Made | None]) -> None:
        del self._making[key]
        if done.cancelled() or done.exception() is not None:
            return
        self.made[key[0].base] += 1
        self._files[key] = done.result()
        while sum(len(made.zip) for made in self._files.values() if made) > self.kept_bytes or len(self._files) > 4_096:
            self._files.popitem(last=False)

    # -- routes

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = "data/" + request.match_info["key"]
        name = read_key(path.removesuffix(".CHECKSUM"))
        found = None if name is None else await self.file(name)
        if name is None or found is None:
            raise Refused(404, f"The specified key does not exist: {path}")
        content, digest = found
        kind = "application/zip"
        if path.endswith(".CHECKSUM"):
            content, kind = f"{digest}  {name.base}.zip\n".encode(), "binary/octet-stream"
        modified = formatdate(self._published_ms(name) / 1000, usegmt=True)
        return web.Response(body=content, content_type=kind, headers={"Last-Modified": modified})

    async def _listing(self, request: web.Request) -> web.StreamResponse:
        listing = Listing(tuple(self._makers.values()), self.published, self._published_ms, self._clock.now_ms())
        return web.Response(body=listing.answer(request.query), content_type="application/xml")


def _in_xml(handler: Handler) -> Handler:
    """A handler of the storage, whose refusals are XML; it reads only."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "The specified method is not allowed against this resource.")
            return await handler(request)
        except Refused as refused:
            body, kind = storage_refusal(refused.status, None, refused.text)
            return web.Response(status=refused.status, body=body, content_type=kind)

    return handle
