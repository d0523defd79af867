"""`Connection`: the library's connection, with a short way for the frames that make up a feed.

The library parses a frame in a generator and hands its message to a reader through a queue: most of what a frame costs.
Here whole messages in one plain frame are cut from the bytes and handed over at once, all of one read together. Every
other frame (control frames, fragments, compressed or masked ones, those too large, and what breaks the protocol) goes
to the library, byte for byte and in its place, and so do the handshake and the goodbye.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import State

CLOSE_SECONDS: Final = 0.5
MAX_WAITING: Final = 16
"""Messages that wait for whoever takes them before the connection reads no more; one read may bring more."""
MAX_FRAGMENTS: Final = 8192
GATHERED_BYTES: Final = 2**16
"""A larger frame that comes in pieces is the library's: gathering it here would copy it with every piece."""

_PLAIN: Final = (0x81, 0x82)  # text, binary: the only frame of its message, and no extension's bits
_HEAD_END: Final = b"\r\n\r\n"

Deliver = Callable[[Sequence[bytes]], object]


class Connection(ClientConnection):
    """Ends at once when the peer says goodbye or breaks the protocol.

    By itself the library waits for the peer to close TCP as well, up to its next ping, and recv() waits with it.

    Messages wait until `deliver_to` says who takes them. `recv()` never has one: it tells how the connection ended.
    `largest`: bytes of the largest message.
    """

    leaving = False
    """We are closing: the peer may take its time, within the close timeout."""

    def __init__(self, *args: Any, largest: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._largest = largest
        self._head: bytes | None = b""  # of the handshake's answer: the last bytes; None once it is over
        self._rest = b""  # the beginning of a frame
        self._owed = 0  # bytes of the frame that the library has the beginning of
        self._broken = False  # all that comes is the library's
        self._fragments: list[bytes] = []
        self._waiting: list[bytes] = []
        self._deliver: Deliver | None = None
        self._spoke = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.state is State.OPEN

    async def spoken(self) -> None:
        """Wait for the first message. Raises ConnectionClosed where the connection ends without one."""
        await self._spoke.wait()
        if not self._waiting:
            await self.recv(False)

    def deliver_to(self, deliver: Deliver) -> None:
        """From here on `deliver`, which must not raise, gets the messages of each read; first those that waited."""
        self._deliver = deliver
        waiting, self._waiting = self._waiting, []
        if waiting:
            deliver(waiting)
        self.transport.resume_reading()

    async def hang_up(self) -> None:
        """Say goodbye, and cut the line when the peer has not answered within `CLOSE_SECONDS`."""
        self.leaving = True
        closing = asyncio.ensure_future(self.close())
        try:
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS + 0.1)
        finally:
            self.transport.abort()
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            data = self._handshake(self._head, data)
        if self._owed and data:
            part, data = data[: self._owed], data[self._owed :]
            self._owed -= len(part)
            self._to_library(part)
        if data:
            self._frames(self._rest + data if self._rest else data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._spoke.set()

    def _handshake(self, head: bytes, data: bytes) -> bytes:
        """Give the library the answer to the handshake; returns what came behind it."""
        seen = head + data
        end = seen.find(_HEAD_END)
        if end < 0:
            self._head = seen[1 - len(_HEAD_END) :]
            self._to_library(data)
            return b""
        self._head = None
        cut = end + len(_HEAD_END) - len(head)
        self._to_library(data[:cut])
        return data[cut:]

    def _frames(self, data: bytes) -> None:
        if self._broken or self.state is not State.OPEN:  # a body instead of frames, or what comes behind a goodbye
            self._rest = b""
            self._to_library(data)
            return
        messages: list[bytes] = []
        at, have, largest = 0, len(data), self._largest
        while have - at >= 2:
            kind, size = data[at], data[at + 1]
            begin = at + 2
            if 126 <= size <= 127:
                begin += 2 if size == 126 else 8
                if begin > have:
                    break
                size = int.from_bytes(data[at + 2 : begin])
                masked = False
            else:
                masked = size > 127
            end = begin + size
            if masked or size > largest:
                self._broken = True
                end = have
            elif kind in _PLAIN and not self._fragments and (end <= have or size <= GATHERED_BYTES):
                if end > have:
                    break
                messages.append(data[begin:end])
                at = end
                continue
            elif end > have:
                self._owed = end - have
                end = have
            if messages:
                self._hand_over(messages)
                messages = []
            self._to_library(data[at:end])
            at = end
            if self._broken or self.state is not State.OPEN:
                self._to_library(data[at:])
                at = have
        self._rest = data[at:]
        if messages:
            self._hand_over(messages)

    # To the library, and what comes back from it.

    def _to_library(self, data: bytes) -> None:
        if data:
            super().data_received(data)
        if not self.leaving and self.state is State.CLOSING:
            self.transport.abort()

    def process_event(self, event: Any) -> None:
        """One frame, from the library."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        if event.fin:
            message, self._fragments = b"".join(self._fragments), []
            self._hand_over([message])
        elif len(self._fragments) > MAX_FRAGMENTS:
            self.protocol.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.transport.abort()

    def _hand_over(self, messages: list[bytes]) -> None:
        if self._deliver is not None:
            self._deliver(messages)
            return
        self._waiting += messages
        self._spoke.set()
        if len(self._waiting) > MAX_WAITING:
            self.transport.pause_reading()
