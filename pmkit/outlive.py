"""Work that goes on when whoever waits for it is gone: what `asyncio.shield` does, at half its cost.

Every order has one. A shield passes the end of its task on through two callbacks and one more turn of the loop; here
the work itself wakes whoever waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from pmkit.errors import PmkitError

T = TypeVar("T")

_LOG = logging.getLogger("pmkit")


class Outliving(Generic[T]):
    """Await it for the result of `work`; a cancelled waiter leaves `task` running. One waiter.

    The task has that name and is in `tasks` until it ends. What it raises reaches whoever waits; whatever is no
    PmkitError is logged as well. CancelledError where the task was cancelled itself.
    """

    __slots__ = ("_heard", "_tasks", "_work", "task")

    def __init__(self, work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]], name: str) -> None:
        loop = asyncio.get_running_loop()
        self._work = work
        self._tasks = tasks
        # An error travels as a value: one that nobody waits for any more is the task's alone.
        self._heard: asyncio.Future[T | Exception] = loop.create_future()
        self.task: asyncio.Task[None] = loop.create_task(self._run(), name=name)
        tasks.add(self.task)
        self.task.add_done_callback(self._ended)

    async def _run(self) -> None:
        try:
            outcome = await self._work
        except Exception as error:
            if not self._heard.done():
                self._heard.set_result(error)
            raise
        if not self._heard.done():
            self._heard.set_result(outcome)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._work.close()  # where the task was cancelled before its first step
        if not self._heard.done():
            self._heard.cancel()
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, PmkitError):
            _LOG.error("%s failed in an unforeseen way", task.get_name(), exc_info=error)

    def __await__(self) -> Generator[Any, None, T]:
        outcome = yield from self._heard.__await__()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
