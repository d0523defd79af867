"""`KlineSocket`: the combined kline streams of Binance on one connection that comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from pmkit.clock import Clock
from pmkit.data.binance.types import BadFrame, KlineEvent, Refusal, Shutdown, Unknown, parse_frame, requests
from pmkit.websocket import deadlines
from pmkit.websocket.base import BaseWebSocket, FrameError

RENEW_SECONDS: Final = 24 * 3600 - 600.0
"""Market seconds: the venue ends every connection at 24 h (SPOT/web-socket-streams.md)."""
PACE: Final = 3.0
"""Text frames per wall second. The venue cuts at more than 5, and PING and PONG frames count."""
SLOW_STREAM_CANDLES: Final = 5
"""A stream this far behind the others of its connection has stopped: 1s streams speak every second."""
SLOW_STREAM_WAIT: Final = (60.0, 600.0)
"""Market seconds between two reconnects for that, doubling: a halted market is no fault of the connection."""

_LOG = logging.getLogger("pmkit.binance")


class KlineSocket(BaseWebSocket[str]):
    """Keys are stream names ("btcusdt@kline_1s"). `length`: the interval in ms.

    `on_kline(event, received_ns)` returns whether the candle was wanted; `on_end()` is called when a connection is lost
    or replaced; `on_refusal(text)` when the venue refuses a subscription.
    """

    public = True

    def __init__(
        self,
        hosts: Sequence[str],
        clock: Clock,
        length: int,
        *,
        on_kline: Callable[[KlineEvent, int], bool],
        on_end: Callable[[], None],
        on_refusal: Callable[[str], None],
    ) -> None:
        fast = length == 1_000
        super().__init__(
            [f"{host}/stream" for host in hosts],
            clock,
            name="Binance candles",
            deadline=deadlines.BINANCE_KLINE_1S if fast else deadlines.BINANCE_KLINE_SLOW,
            renew_after=RENEW_SECONDS,
            pace=PACE,
        )
        self._on_kline = on_kline
        self._on_end = on_end
        self._on_refusal = on_refusal
        self._slack = SLOW_STREAM_CANDLES * length if fast else None
        self._newest: dict[str, int] = {}
        self._requests = 0
        self._slow_wait = SLOW_STREAM_WAIT[0]
        self._slow_after = 0.0

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> list[str | bytes]:
        return self._frames("SUBSCRIBE", keys)

    def _unsubscribe_frames(self, keys: Sequence[str]) -> list[str | bytes]:
        return self._frames("UNSUBSCRIBE", keys)

    def _frames(self, method: str, keys: Sequence[str]) -> list[str | bytes]:
        frames: list[str | bytes] = list(requests(method, keys, self._requests + 1))
        self._requests += len(frames)
        return frames

    def _on_connect(self) -> None:
        self._newest.clear()
        self._on_end()

    def _on_disconnect(self, reason: str) -> None:
        self._on_end()

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            frame = parse_frame(data)
        except BadFrame as error:
            raise FrameError(str(error)) from error
        if isinstance(frame, KlineEvent):
            if self._on_kline(frame, received_ns):
                self._watch(frame)
                return True
            self.count_unknown(f"kline {frame.symbol} {frame.interval}")
        elif isinstance(frame, Shutdown):
            _LOG.info("Binance: %s announces its shutdown: renewing the connection", self.host)
            self.renew("serverShutdown")
        elif isinstance(frame, Refusal):
            self._on_refusal(f"{frame.message} (code {frame.code})")
        elif isinstance(frame, Unknown):
            self.count_unknown(frame.kind)
        return False

    def _watch(self, frame: KlineEvent) -> None:
        """One stream of several that stops is not seen by the deadline of the connection."""
        if self._slack is None:
            return
        newest, opened = self._newest, frame.candle.timestamp
        if not newest:
            newest.update(dict.fromkeys((stream.partition("@")[0].upper() for stream in self.wanted), opened))
        newest[frame.symbol] = max(opened, newest.get(frame.symbol, opened))
        behind = min(newest, key=newest.__getitem__)
        now = self._clock.monotonic()
        if newest[behind] >= opened - self._slack:
            if now > self._slow_after + SLOW_STREAM_WAIT[1]:
                self._slow_wait = SLOW_STREAM_WAIT[0]
            return
        if now < self._slow_after:
            return
        self._slow_after = now + self._slow_wait
        self._slow_wait = min(2 * self._slow_wait, SLOW_STREAM_WAIT[1])
        self.drop(f"the stream of {behind} has stopped")
