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

    The task has that name and is in `tasks` until it ends. An error is told to whoever waits; one that is no PmkitError
    is logged as well. CancelledError where the task was cancelled itself.
    """

    __slots__ = ("_heard", "_tasks", "_work", "task")

    def __init__(self, work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]], name: str) -> None:
        loop = asyncio.get_running_loop()
        self._work = work
        self._tasks = tasks
        self._heard: asyncio.Future[T | Exception] = loop.create_future()
        self.task: asyncio.Task[None] = loop.create_task(self._run(), name=name)
        tasks.add(self.task)
        self.task.add_done_callback(self._never_began)

    async def _run(self) -> None:
        self.task.remove_done_callback(self._never_began)  # a turn of the loop less: from here on it is told below
        outcome: T | Exception
        try:
            outcome = await self._work
        except Exception as error:
            outcome = error
            if not isinstance(error, PmkitError):
                _LOG.exception("%s failed in an unforeseen way", self.task.get_name())
        except BaseException:
            self._heard.cancel()
            raise
        finally:
            self._tasks.discard(self.task)
        if not self._heard.done():
            self._heard.set_result(outcome)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """The task was cancelled before its first step."""
        self._tasks.discard(task)
        self._work.close()
        self._heard.cancel()

    def __await__(self) -> Generator[Any, None, T]:
        outcome = yield from self._heard.__await__()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
