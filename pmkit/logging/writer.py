"""`LineWriter`: a thread that writes what the event loop hands over, so that a slow or full disk never stops the loop.

Items are written in order. When the sink fails they wait in memory, up to a bound, and are tried again; beyond the
bound new ones are lost and counted. Each episode of failure is told once when it begins, once when items begin to be
lost and once when it ends.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

CLOSE_SECONDS = 1.0
RETRY_SECONDS = 1.0
_BATCH = 500


class Sink(Protocol[T_contra]):
    """Where items end up. Called by the writer's thread only."""

    def write(self, item: T_contra) -> None:
        """Write all of it or raise."""

    def sync(self) -> None:
        """Make what was written last a power cut, or raise."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WriterStats:
    """`written` items; `pending` in memory; `lost` beyond the bound or at close; `errors` of the sink."""

    written: int
    pending: int
    lost: int
    errors: int


class LineWriter(Generic[T]):
    """See the module docstring.

    `limit` items at most are held. `sync_every=n` calls `sink.sync` once at least n items were written since the last
    time (after the batch in which that happens), 0 only at close. `tell(text, recovered)` gets the episodes of failure;
    it is called by the writer's thread or by a submitting one. The thread starts with the first item.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[T],
        tell: Callable[[str, bool], None],
        *,
        limit: int = 10_000,
        sync_every: int = 0,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._name = name
        self._sink = sink
        self._tell = tell
        self._limit = limit
        self._sync_every = sync_every
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing = False
        self._hurry = False
        self._trouble: str | None = None
        self._lost_in_episode = 0
        self._written = self._lost = self._errors = self._unsynced = 0

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment; None when all is well."""
        return self._trouble

    @property
    def stats(self) -> WriterStats:
        """Counts so far."""
        with self._changed:
            return WriterStats(self._written, len(self._items), self._lost, self._errors)

    def submit(self, item: T) -> bool:
        """Hand over one item; returns at once. False when it is lost: the bound is reached, or the writer is closed."""
        if os.getpid() != self._pid:
            return self._write_here(item)  # a forked child has the file, but not the thread
        first_loss = False
        with self._changed:
            accepted = not self._closing and len(self._items) < self._limit
            if accepted:
                if self._thread is None and not self._start():
                    return self._write_here(item)
                self._items.append(item)
                self._changed.notify_all()
            else:
                self._lost += 1
                self._lost_in_episode += 1
                first_loss = self._lost_in_episode == 1 and not self._closing
        if first_loss:
            why = self._trouble or "the disk is slow"
            self._tell(f"{self._name}: {self._limit} lines are waiting ({why}); further ones are lost", False)
        return accepted

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait (wall seconds, blocking) until everything handed over so far is written. False when it is not."""
        with self._changed:
            target = self._written + len(self._items)
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._written >= target or not self._alive(), timeout) and (
                self._written >= target
            )

    def close(self, timeout: float = CLOSE_SECONDS) -> Sequence[T]:
        """Write what is left, sync and close the sink; returns within `timeout` wall seconds, also when the disk hangs.

        Gives the items that could not be written; they count as lost. Idempotent.
        """
        if os.getpid() != self._pid:
            return ()
        with self._changed:
            if self._closing and not self._alive():
                return ()
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._sink.close()
            return ()
        if thread is not threading.current_thread():
            thread.join(timeout)
        with self._changed:
            left = tuple(self._items)
            self._lost += len(left)
            if not thread.is_alive():
                self._items.clear()
            return left

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name=f"pmkit-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down
            return False
        self._thread = thread
        return True

    def _write_here(self, item: T) -> bool:
        try:
            self._sink.write(item)
        except (OSError, ValueError):
            self._errors += 1
            return False
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._trouble is not None:
                    self._changed.wait_for(lambda: self._closing or self._hurry, self._retry_seconds)
                else:
                    self._changed.wait_for(lambda: bool(self._items) or self._closing)
                self._hurry = False
                last = self._closing
                batch = list(islice(self._items, _BATCH))
            if last and not batch:
                break
            done, error = self._write(batch)
            with self._changed:
                for _ in range(done):
                    self._items.popleft()
                self._written += done
                self._errors += error is not None
                self._changed.notify_all()
            self._judge(error)
            if last and error is not None:
                break  # one last attempt was made
        self._finish()

    def _write(self, batch: list[T]) -> tuple[int, Exception | None]:
        done = 0
        try:
            for item in batch:
                self._sink.write(item)
                done += 1
                self._unsynced += 1
        except Exception as error:  # whatever the sink raises is told, and the item is tried again
            return done, error
        try:
            if self._sync_every and self._unsynced >= self._sync_every:
                self._sink.sync()
                self._unsynced = 0
        except OSError as error:
            return done, error
        return done, None

    def _judge(self, error: Exception | None) -> None:
        """Begin or end an episode."""
        before = self._trouble
        if error is not None:
            self._trouble = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            if before is None:
                self._tell(f"{self._name} cannot be written: {self._trouble}; lines are held in memory", False)
        elif before is not None:
            with self._changed:
                self._trouble = None
                lost, self._lost_in_episode = self._lost_in_episode, 0
            self._tell(f"{self._name} is written again; {lost or 'no'} lines were lost", True)

    def _finish(self) -> None:
        for step in (self._sink.sync, self._sink.close):
            try:
                step()
            except OSError as error:
                with self._changed:
                    self._errors += 1
                self._tell(f"{self._name} could not be closed properly: {error.strerror}", False)
