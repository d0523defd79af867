"""The user channel: one socket that logs in with its first frame and tells of all orders and trades of the account.

Nothing is acknowledged and nothing is replayed; whoever listens back-fills over REST after each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pmkit.clock import Clock
from pmkit.endpoints import require_safe
from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.user_messages import Odd, OwnOrder, OwnTrade, decode_user
from pmkit.websocket.base import BaseWebSocket, FrameError
from pmkit.websocket.deadlines import POLYMARKET_USER


class UserSocket(BaseWebSocket[str]):
    """`login()` makes the first frame of each connection. `on_event(event, received_ns)` gets every order and trade;
    `on_missed()` is called for what does not read, or failed on the way.

    `on_gap(reason, since_ns)` is called after every connection but the first.
    """

    log_frames = False

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        login: Callable[[], str],
        on_event: Callable[[OwnOrder | OwnTrade, int], object],
        on_missed: Callable[[], object],
        on_gap: Callable[[str, int], object],
    ) -> None:
        require_safe(url, "the Polymarket user channel")
        super().__init__(
            url,
            clock,
            name="polymarket user",
            deadline=POLYMARKET_USER,
            on_gap=on_gap,
            ping_text="PING",
            pong_text="PONG",
            ping_every=10.0,
        )
        self._login = login
        self._on_event = on_event
        self._on_missed = on_missed

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> list[str | bytes]:
        return [self._login()] if first else []

    def _unsubscribe_frames(self, keys: Sequence[str]) -> list[str | bytes]:
        return []

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            events = decode_user(data)
        except ProtocolChanged as error:
            self._on_missed()
            raise FrameError(str(error)) from error
        problem = ""
        failure: Exception | None = None
        for event in events:
            if not isinstance(event, Odd):
                try:
                    self._on_event(event, received_ns)
                except Exception as error:
                    failure = error  # once the other events of the frame are told
            elif event.problem:
                problem = f"{event.kind or 'an event'} does not read: {event.problem}"
            else:
                self.count_unknown(event.kind)
        if problem or failure is not None:
            self._on_missed()
        if failure is not None:
            raise failure
        if problem:
            raise FrameError(problem)
        return True
