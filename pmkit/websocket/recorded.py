"""`RecordedConnection`: a connection of a socket that is recorded (`pmkit.recording`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pmkit.recording.recorder import SocketTap
from pmkit.websocket.connection import Connection, Deliver


class RecordedConnection(Connection):
    """Tells `tap` of every message when it is taken, of what is sent, and of the end; of a frame what `public_part`
    leaves of it, None for nothing.
    """

    def __init__(
        self, *args: Any, tap: SocketTap, public_part: Callable[[bytes, bool], bytes | None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tap = tap
        self._public_part = public_part

    def deliver_to(self, deliver: Deliver) -> None:
        def told(messages: Sequence[bytes]) -> None:
            for data in messages:
                self._tap.heard(data, self._public_part(data, False))
            deliver(messages)

        super().deliver_to(told)

    async def send(self, message: Any, *, text: bool | None = None) -> None:
        raw = message.encode()
        self._tap.said(raw, self._public_part(raw, True))
        await super().send(message, text=text)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._tap.closed(self.leaving, self.close_code or 1006, self.close_reason or "")
