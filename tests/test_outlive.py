"""Work that outlives its waiter: as `asyncio.shield`, in every order of ends."""

from __future__ import annotations

import asyncio

import pytest

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


async def test_an_error_reaches_whoever_waits_and_the_task() -> None:
    gate = asyncio.Event()
    gate.set()
    outliving = Outliving(work(gate, KeyError("x")), set(), "")
    with pytest.raises(KeyError):
        await outliving
    assert isinstance(outliving.task.exception(), KeyError)


@pytest.mark.parametrize("outcome", ["done", KeyError("x")])
async def test_a_waiter_that_is_cancelled_leaves_the_work_running(outcome: str | Exception) -> None:
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
    assert outliving.task.exception() is (outcome if isinstance(outcome, Exception) else None)


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
    outliving.task.exception()


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_task_that_is_cancelled_ends_the_waiting(steps: int) -> None:
    outliving = Outliving(work(asyncio.Event(), ""), set(), "")
    for _ in range(steps):
        await asyncio.sleep(0)
    outliving.task.cancel()  # with no step made, the work was never begun: nothing warns of that
    with pytest.raises(asyncio.CancelledError):
        await outliving
    assert outliving.task.cancelled()
