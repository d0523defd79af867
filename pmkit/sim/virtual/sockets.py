"""What stands for a socket of the operating system in virtual time: its name, its options, its descriptor."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmkit.sim.virtual.pipes import PipeTransport

Address = tuple[str, int]


class Readability:
    """Two descriptors for those who poll a connection (httpcore does, to see whether an idle one was dropped): one that
    is always readable, and one that never is.
    """

    def __init__(self) -> None:
        self._open: list[int] = []
        self._pair: tuple[int, int] | None = None

    def descriptor(self, readable: bool) -> int:
        if self._pair is None:
            quiet, holder = os.pipe()
            ended, closed = os.pipe()
            os.close(closed)
            self._open = [quiet, holder, ended]
            self._pair = (quiet, ended)
        return self._pair[readable]

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []
        self._pair = None


class PipeSocket:
    """What a transport shows as its socket. SO_LINGER with 0 seconds makes its close a reset; other options are
    ignored.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, name: Address, peer: Address | None) -> None:
        self.name = name
        self.peer = peer
        self.resets = False
        self.transport: PipeTransport | None = None

    def getsockname(self) -> Address:
        return self.name

    def getpeername(self) -> Address:
        if self.peer is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self.peer

    def setsockopt(self, level: int, option: int, value: int | bytes | None, length: int | None = None) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER) and isinstance(value, bytes):
            on, seconds = struct.unpack("ii", value)
            self.resets = bool(on) and not seconds

    def getsockopt(self, level: int, option: int, length: int = 0) -> int:
        return 0

    def fileno(self) -> int:
        transport = self.transport
        return -1 if transport is None or transport.gone else transport.descriptor()
