"""A listening port in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from pmkit.sim.virtual.pipes import PipeTransport
from pmkit.sim.virtual.sockets import PipeSocket

if TYPE_CHECKING:
    from pmkit.sim.virtual.loop import VirtualLoop


class PipeServer(asyncio.AbstractServer):
    """A listening port."""

    def __init__(self, line: VirtualLoop, factory: Callable[[], asyncio.BaseProtocol], sock: PipeSocket) -> None:
        self._line = line
        self._sock: PipeSocket | None = sock
        self._clients: dict[PipeTransport, None] = {}
        self._closed = asyncio.Event()
        self.make_protocol = factory
        self.port = sock.name[1]

    @property
    def sockets(self) -> tuple[PipeSocket, ...]:
        return () if self._sock is None else (self._sock,)

    def attach(self, transport: PipeTransport) -> None:
        self._clients[transport] = None

    def detach(self, transport: PipeTransport) -> None:
        self._clients.pop(transport, None)

    def listen(self) -> None:
        """Answer the port."""
        self._line.listen(self)

    def close(self) -> None:
        """Listen no more; connections stay."""
        self._line.unlisten(self)
        self._sock = None
        self._closed.set()

    def close_clients(self) -> None:
        for transport in [*self._clients]:
            transport.close()

    def abort_clients(self) -> None:
        for transport in [*self._clients]:
            transport.abort()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._line

    def is_serving(self) -> bool:
        return self._line.listens(self)

    async def start_serving(self) -> None:
        self.listen()

    async def serve_forever(self) -> None:
        self.listen()
        await self._closed.wait()

    async def wait_closed(self) -> None:
        """Until it listens no more; it does not wait for the connections."""
        await self._closed.wait()
