"""SIGINT and SIGTERM as a callback, on every platform, and put back as they were."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Counts stop signals and reports each as (name, how many so far). Does nothing outside the main thread, where
    Python delivers no signals.
    """

    def __init__(self, on_signal: Callable[[str, int], None]) -> None:
        self._on_signal = on_signal
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._native: list[signal.Signals] = []

    def install(self) -> None:
        """Take over. Call on the running loop."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._before[number] = signal.getsignal(number)
            try:
                self._loop.add_signal_handler(number, self._seen, number)
                self._native.append(number)
            except NotImplementedError:  # Windows: its loops cannot; the handler runs in the main thread instead
                signal.signal(number, self._from_thread)

    def _from_thread(self, number: int, frame: FrameType | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._seen, signal.Signals(number))

    def _seen(self, number: signal.Signals) -> None:
        self._count += 1
        self._on_signal(number.name, self._count)

    def remove(self) -> None:
        """Give the handlers back to whoever had them."""
        for number, before in self._before.items():
            if number in self._native and self._loop is not None:
                self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()
        self._native.clear()
