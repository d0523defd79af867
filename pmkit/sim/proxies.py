"""A proxy before every port of the local venues."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from pmkit.clock import Clock
from pmkit.endpoints import Endpoints
from pmkit.sim.proxy import Proxy


class Proxies:
    """A proxy before every port of the local venues. `endpoints` are theirs, each port replaced by its proxy's."""

    def __init__(self, endpoints: Endpoints, clock: Clock) -> None:
        self._real = endpoints
        self._clock = clock
        self._by_port: dict[int, Proxy] = {}
        self._by_venue: dict[str, list[Proxy]] = {}
        self.endpoints = endpoints

    def of(self, venue: str) -> list[Proxy]:
        """Those of "binance", "polymarket" or "kalshi", in the order of its addresses."""
        return self._by_venue[venue]

    @property
    def all(self) -> list[Proxy]:
        return [*self._by_port.values()]

    async def start(self) -> None:
        changed = {}
        for venue in ("binance", "polymarket", "kalshi"):
            rows: dict[str, object] = msgspec.to_builtins(getattr(self._real, venue))
            mine: dict[int, None] = {}
            for name, value in rows.items():
                urls = value if isinstance(value, list | tuple) else [value]
                found = [await self._before(str(url), mine) for url in urls]
                rows[name] = found if isinstance(value, list | tuple) else found[0]
            changed[venue] = msgspec.convert(rows, type(getattr(self._real, venue)))
            self._by_venue[venue] = [self._by_port[port] for port in mine]
        self.endpoints = msgspec.structs.replace(self._real, **changed)

    async def _before(self, url: str, mine: dict[int, None]) -> str:
        port = urlsplit(url).port
        assert port is not None, "local venues are on loopback ports"
        if port not in self._by_port:
            proxy = self._by_port[port] = Proxy(port, self._clock)
            await proxy.start()
        mine[port] = None
        return url.replace(f":{port}", f":{self._by_port[port].port}", 1)

    def calm(self) -> None:
        """All switches of all proxies back."""
        for proxy in self.all:
            proxy.calm()

    async def close(self) -> None:
        await asyncio.gather(*(proxy.close() for proxy in self.all))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def total(proxies: Iterable[Proxy]) -> Counter[str]:
    """What all of them did."""
    counts: Counter[str] = Counter()
    for proxy in proxies:
        counts.update(proxy.counts)
    return counts
