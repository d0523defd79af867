"""Work that outlives its waiter: as `asyncio.shield`, in every order of ends."""

from __future__ import annotations

import asyncio

import pytest

from pmkit.errors import NotSent
from pmkit.outlive import Outliving


async def work(gate: asyncio.Event, outcome: str | Exception) -> str:
    await gate.wait()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def wait_for(outliving: Outliving[str]) -> str:
    return await outliving


@pytest.mark.parametrize("ready", [False, True])
async def test_the_result_reaches_whoever_waits(ready: bool) -> None:
    gate = asyncio.Event()
    if ready:
        gate.set()
    outliving = Outliving(work(gate, "done"), set(), "a name")
    asyncio.get_running_loop().call_soon(gate.set)
    assert await outliving == "done"
    assert outliving.task.get_name() == "a name"


@pytest.mark.parametrize("error", [KeyError("x"), NotSent("x")])
async def test_an_error_reaches_whoever_waits_and_the_log_where_it_is_none_of_ours(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    gate.set()
    tasks: set[asyncio.Task[None]] = set()
    outliving = Outliving(work(gate, error), tasks, "a name")
    assert tasks == {outliving.task}
    with pytest.raises(type(error)) as caught:
        await outliving
    assert caught.value is error and not tasks
    assert outliving.task.exception() is None
    logged = [row.message for row in caplog.records]
    assert logged == ["a name failed in an unforeseen way"] * isinstance(error, KeyError)


@pytest.mark.parametrize("outcome", ["done", KeyError("x")])
async def test_a_waiter_that_is_cancelled_leaves_the_work_running(
    outcome: str | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    outliving = Outliving(work(gate, outcome), set(), "")
    waiter = asyncio.create_task(wait_for(outliving))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not outliving.task.done()
    gate.set()
    await asyncio.wait({outliving.task})
    assert outliving.task.exception() is None
    assert len(caplog.records) == isinstance(outcome, Exception)


@pytest.mark.parametrize("outcome", ["done", KeyError("x")])
async def test_both_at_once_warn_of_nothing(outcome: str | Exception) -> None:
    gate = asyncio.Event()
    outliving = Outliving(work(gate, outcome), set(), "")
    waiter = asyncio.create_task(wait_for(outliving))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.sleep(0)
    assert outliving.task.done() and not waiter.done()
    waiter.cancel()  # the result is there, and nobody to take it
    with pytest.raises(asyncio.CancelledError):
        await waiter


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_task_that_is_cancelled_ends_the_waiting(steps: int) -> None:
    tasks: set[asyncio.Task[None]] = set()
    outliving = Outliving(work(asyncio.Event(), ""), tasks, "")
    for _ in range(steps):
        await asyncio.sleep(0)
    outliving.task.cancel()  # with no step made, the work was never begun: nothing warns of that
    with pytest.raises(asyncio.CancelledError):
        await outliving
    assert outliving.task.cancelled() and not tasks
