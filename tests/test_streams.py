"""Subscription: how events reach a strategy, and what a full buffer does."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock
from pmkit.streams import SLOW_CALLBACK_NS, Policy, Subscription

Event = tuple[str, int]


def key_of(event: Event) -> int:
    return event[1]


async def drain(subscription: Subscription[Event]) -> list[Event]:
    """All that an `async for` still gets after the close."""
    await subscription.close()
    return [event async for event in subscription]


async def test_conflation_keeps_the_latest_per_key_in_the_order_of_keys() -> None:
    stream: Subscription[Event] = Subscription(
        "books", ManualClock(), policy=Policy.CONFLATE, key=lambda event: event[0]
    )
    for event in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]:
        stream.publish(event)
    assert stream.pending == 3
    assert stream.stats.conflated == 2
    assert await drain(stream) == [("a", 3), ("b", 5), ("c", 4)]
    assert stream.stats.published == stream.stats.delivered + stream.stats.conflated


async def test_drop_oldest_keeps_the_newest_and_counts() -> None:
    stream: Subscription[Event] = Subscription("trades", ManualClock(), limit=3)
    for number in range(10):
        stream.publish(("t", number))
    assert stream.stats.dropped == 7
    assert await drain(stream) == [("t", 7), ("t", 8), ("t", 9)]


class Source:
    """A stream that never drops, with everything it ever published to refill from."""

    def __init__(self, clock: ManualClock, limit: int = 5, callback: Any = None) -> None:
        self.all: list[Event] = []
        self.refills = 0
        self.failing = 0
        self.gate: asyncio.Event | None = None
        self.stream: Subscription[Event] = Subscription(
            "fills", clock, callback=callback, policy=Policy.NEVER_DROP, limit=limit, key=key_of, refill=self.refill
        )

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.all.append(("f", number))
            self.stream.publish(("f", number))

    async def refill(self) -> list[Event]:
        self.refills += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            self.failing -= 1
            raise OSError("the venue is away")
        return list(self.all)


async def test_never_drop_refills_what_overflowed_exactly_once_per_key(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(ManualClock())
    source.publish(*range(12))
    assert source.stream.pending == 5
    got = [await anext(source.stream) for _ in range(12)]
    assert [number for _, number in got] == list(range(12))
    assert source.refills == 1
    assert source.stream.stats.gaps == 1
    assert source.stream.stats.dropped == 0
    source.publish(3, 11, 12)  # repeats, and one that is new
    assert (await anext(source.stream))[1] == 12
    assert source.stream.stats.conflated == 2
    assert sum("behind" in record.message for record in caplog.records) == 1
    await source.stream.close()


async def test_never_drop_what_comes_during_the_refill_comes_once_and_last() -> None:
    source = Source(ManualClock())
    source.gate = asyncio.Event()
    source.publish(*range(8))
    got = [await anext(source.stream) for _ in range(5)]
    reading = asyncio.ensure_future(anext(source.stream))
    await asyncio.sleep(0)
    source.publish(8, 9)  # the venue's list will hold them as well
    source.gate.set()
    got.append(await reading)
    got += [await anext(source.stream) for _ in range(4)]
    assert sorted(number for _, number in got) == list(range(10))
    assert source.stream.pending == 0
    await source.stream.close()


async def test_never_drop_overflow_again_during_the_refill() -> None:
    source = Source(ManualClock())
    source.gate = asyncio.Event()
    source.publish(*range(8))
    got = [await anext(source.stream) for _ in range(5)]
    reading = asyncio.ensure_future(anext(source.stream))
    await asyncio.sleep(0)
    source.publish(*range(8, 30))
    source.gate.set()
    got.append(await reading)
    got += [await anext(source.stream) for _ in range(24)]
    assert sorted(number for _, number in got) == list(range(30))
    assert source.stream.stats.gaps == 2
    await source.stream.close()


async def test_never_drop_a_refill_that_fails_is_tried_again() -> None:
    clock = ManualClock()
    source = Source(clock)
    source.failing = 2
    source.publish(*range(8))
    got = [await anext(source.stream) for _ in range(5)]
    reading = asyncio.ensure_future(anext(source.stream))
    await clock.settle()
    assert (source.refills, reading.done()) == (1, False)
    await clock.advance(1.0)
    assert (source.refills, reading.done()) == (2, False)
    await clock.advance(1.0)
    got.append(await reading)
    got += [await anext(source.stream) for _ in range(2)]
    assert [number for _, number in got] == list(range(8))
    assert source.stream.stats.errors == 2
    await source.stream.close()


async def test_never_drop_a_reader_that_gives_up_during_the_refill_loses_nothing() -> None:
    source = Source(ManualClock())
    source.gate = asyncio.Event()
    source.publish(*range(8))
    got = [await anext(source.stream) for _ in range(5)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(source.stream), 0.01)
    source.gate.set()
    async with asyncio.timeout(2):
        got += [await anext(source.stream) for _ in range(3)]
    assert [number for _, number in got] == list(range(8))
    await source.stream.close()


async def test_never_drop_needs_a_key_and_a_way_to_refill() -> None:
    async def refill() -> list[Event]:
        return []

    with pytest.raises(ValueError, match="needs a way to refill"):
        Subscription("x", ManualClock(), policy=Policy.NEVER_DROP, key=key_of)
    with pytest.raises(ValueError, match="needs a way to refill"):
        Subscription("x", ManualClock(), policy=Policy.NEVER_DROP, refill=refill)


@given(st.lists(st.one_of(st.integers(0, 40), st.none()), max_size=120), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_never_drop_any_order_of_writing_and_reading_gives_each_key_once(steps: list[int | None], limit: int) -> None:
    async def run() -> None:
        source = Source(ManualClock(), limit)
        got: list[int] = []
        for step in steps:
            if step is not None:
                source.publish(step)
            elif {number for _, number in source.all} - set(got):
                got.append((await anext(source.stream))[1])
        while {number for _, number in source.all} - set(got):
            got.append((await anext(source.stream))[1])
        # What is remembered for this is bounded: ten times the buffer.
        if len(set(got)) <= 10 * limit:
            assert len(got) == len(set(got))
        await source.stream.close()

    asyncio.run(run())


async def test_inline_callback_runs_at_once_and_slow_ones_are_counted() -> None:
    class Stopwatch(ManualClock):
        ns = 0

        def perf_ns(self) -> int:
            return self.ns

    clock = Stopwatch()
    seen: list[int] = []

    def callback(event: Event) -> None:
        seen.append(event[1])
        clock.ns += event[1]

    stream: Subscription[Event] = Subscription("books", clock, callback=callback)
    for took in (1, SLOW_CALLBACK_NS, SLOW_CALLBACK_NS + 1):
        stream.publish(("a", took))
    assert len(seen) == 3  # without giving the loop a turn
    assert stream.stats.slow == 1
    assert stream.pending == 0
    await stream.close()
    stream.publish(("a", 1))
    assert len(seen) == 3


async def test_the_events_of_one_message_are_timed_together_and_counted_one_by_one() -> None:
    class Stopwatch(ManualClock):
        ns = 0

        def perf_ns(self) -> int:
            return self.ns

    clock = Stopwatch()
    seen: list[int] = []

    def callback(event: Event) -> None:
        seen.append(event[1])
        clock.ns += SLOW_CALLBACK_NS // 2 + 1
        if event[1] < 0:
            raise RuntimeError("boom")
        if event[1] > 9:
            stream.closed = True

    stream: Subscription[Event] = Subscription("books", clock, callback=callback)
    stream.publish_all([("a", 1)])
    assert stream.stats.slow == 0
    stream.publish_all([("a", -2), ("b", 3)])  # the one that raised does not take the other's event
    stream.publish_all([("a", 10), ("b", 4)])
    assert seen == [1, -2, 3, 10]  # none begins after the close
    stats = stream.stats
    assert (stats.published, stats.delivered, stats.errors, stats.slow) == (4, 3, 1, 1)


@pytest.mark.parametrize("kind", ["plain", "async", "method", "partial", "object"])
async def test_md_15_callbacks_that_raise_are_counted_and_delivery_goes_on(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def plain(event: Event) -> None:
        if event[1] % 3 == 0:
            raise RuntimeError("boom")
        seen.append(event[1])

    class Strategy:
        async def method(self, event: Event) -> None:
            plain(event)

        async def __call__(self, event: Event) -> None:
            plain(event)

    async def with_extra(extra: str, event: Event) -> None:
        plain(event)

    strategy = Strategy()
    callback: Any = {
        "plain": plain,
        "async": functools.partial(with_extra, "x"),
        "method": strategy.method,
        "partial": functools.partial(plain),
        "object": strategy,
    }[kind]
    clock = ManualClock()
    stream: Subscription[Event] = Subscription("trades", clock, callback=callback)
    for number in range(30):
        stream.publish(("t", number))
    await clock.settle(100)
    assert seen == [number for number in range(30) if number % 3]
    assert stream.stats.errors == 10
    assert stream.stats.delivered == 20
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1
    await stream.close()


async def test_the_log_of_errors_comes_back_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    def broken(event: Event) -> None:
        raise RuntimeError("boom")

    stream: Subscription[Event] = Subscription("trades", clock, callback=broken)
    for _ in range(500):
        stream.publish(("t", 1))
    await clock.advance(11.0)
    stream.publish(("t", 1))
    assert [record.getMessage() for record in caplog.records] == [
        "trades: a consumer raised (1 so far)",
        "trades: a consumer raised (501 so far)",
    ]
    await stream.close()


async def test_a_plain_callback_that_returns_a_coroutine_is_an_error_not_silence() -> None:
    async def work(event: Event) -> None:
        raise AssertionError("never runs")

    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=lambda event: work((event[0], 1)))
    stream.publish(("t", 1))
    assert stream.stats.errors == 1
    assert stream.stats.delivered == 0
    await stream.close()


async def test_cancelled_error_of_a_callback_is_not_swallowed() -> None:
    def cancelled(event: Event) -> None:
        raise asyncio.CancelledError

    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=cancelled)
    with pytest.raises(asyncio.CancelledError):
        stream.publish(("t", 1))
    assert stream.stats.errors == 0
    await stream.close()


async def test_a_callback_that_awaited_something_cancelled_does_not_end_its_stream() -> None:
    seen: list[int] = []

    async def callback(event: Event) -> None:
        if event[1] == 0:
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other
        seen.append(event[1])

    clock = ManualClock()
    stream: Subscription[Event] = Subscription("trades", clock, callback=callback)
    for number in range(3):
        stream.publish(("t", number))
    await clock.settle()
    assert seen == [1, 2]
    assert stream.stats.errors == 1
    await stream.close()


async def test_close_from_inside_the_async_callback_ends_delivery() -> None:
    seen: list[int] = []

    async def callback(event: Event) -> None:
        seen.append(event[1])
        if event[1] == 1:
            await stream.close()
            await stream.close()

    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=callback)
    for number in range(5):
        stream.publish(("t", number))
    task = stream._task
    assert task is not None
    async with asyncio.timeout(2):
        await task
    assert seen == [0, 1]
    assert stream.closed


async def test_close_cancels_a_callback_that_runs_and_leaves_no_task() -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def callback(event: Event) -> None:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("cleaned up")

    before = asyncio.all_tasks()
    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=callback)
    stream.publish(("t", 1))
    await started.wait()
    await stream.close()
    assert ended == ["cleaned up"]
    assert asyncio.all_tasks() == before


async def test_close_does_not_wait_for_ever_for_a_stubborn_callback(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()
    told: list[Any] = []

    async def stubborn(event: Event) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=stubborn, on_close=told.append)
    stream.publish(("t", 1))
    await asyncio.sleep(0)
    async with asyncio.timeout(1.0):
        await stream.close()
    assert told == [stream]
    assert "does not end" in caplog.text
    release.set()
    task = stream._task
    assert task is not None
    await asyncio.wait({task})


async def test_on_close_runs_once_also_when_the_closer_is_cancelled() -> None:
    told: list[Any] = []

    async def on_close(stream: Subscription[Event]) -> None:
        told.append(stream)

    async def slow_to_end(event: Event) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise

    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=slow_to_end, on_close=on_close)
    stream.publish(("t", 1))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(stream.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await stream.close()
    assert told == [stream]
    task = stream._task
    assert task is not None
    await asyncio.wait({task})


async def test_async_for_ends_at_close_after_what_was_pending() -> None:
    stream: Subscription[Event] = Subscription("trades", ManualClock())
    stream.publish(("t", 1))
    stream.publish(("t", 2))
    got: list[int] = []

    async def read() -> None:
        async for event in stream:
            got.append(event[1])

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    assert got == [1, 2]
    stream.publish(("t", 3))
    await stream.close()
    async with asyncio.timeout(1):
        await reading
    assert got == [1, 2, 3]
    stream.publish(("t", 4))
    assert [event async for event in stream] == []


async def test_a_cancelled_reader_loses_nothing() -> None:
    stream: Subscription[Event] = Subscription("trades", ManualClock())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.publish(("t", 1))
    reading.cancel()  # in the same turn in which the event came
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await anext(stream) == ("t", 1)
    await stream.close()


async def test_a_stream_with_a_callback_cannot_be_iterated() -> None:
    stream: Subscription[Event] = Subscription("trades", ManualClock(), callback=lambda event: None)
    with pytest.raises(RuntimeError, match="delivers to a callback"):
        aiter(stream)
    await stream.close()
