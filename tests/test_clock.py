"""Clocks: scaled time that two processes agree on, a clock that tests move, entropy that repeats, a venue's time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.clock import Clock, Entropy, ManualClock, ScaledClock, SystemClock, clock_from_text, to_ms, to_utc
from pmkit.venue_clock import VenueClock

ROOT = Path(__file__).resolve().parent.parent

# Scaled time.


def test_scaled_clock_passes_faster_from_its_anchor() -> None:
    system = SystemClock()
    anchor = system.now_ms()
    clock = ScaledClock(anchor, 1000.0, market_anchor=1_800_000_000_000)
    elapsed = clock.now_ms() - 1_800_000_000_000
    assert 0 <= elapsed <= (system.now_ms() - anchor + 1) * 1000
    assert ScaledClock(anchor, 2.0).now_ms() >= anchor


def test_scaled_clock_takes_datetimes_and_refuses_naive_ones() -> None:
    moment = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert ScaledClock(moment, 45.0).anchor_ms == 1_795_176_000_000
    with pytest.raises(ValueError, match="naive"):
        ScaledClock(datetime(2026, 11, 20, 12), 45.0)  # noqa: DTZ001


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_scaled_clock_refuses_a_factor_that_is_none(factor: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ScaledClock(0, factor)


async def test_scaled_durations() -> None:
    """Market time is scaled, I/O time is not."""
    clock = ScaledClock(SystemClock().now_ms(), 50.0)
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    begin = loop.time()
    clock.call_later(5.0, lambda: fired.append(loop.time() - begin))
    clock.io_call_later(0.05, lambda: fired.append(loop.time() - begin))
    await clock.sleep(10.0)
    market = loop.time() - begin
    assert 0.15 < market < 1.0
    assert len(fired) == 2
    assert all(0.04 < moment < market for moment in fired)
    with pytest.raises(TimeoutError):
        async with clock.timeout(5.0):
            await asyncio.sleep(5.0)
    with pytest.raises(TimeoutError):
        async with clock.io_timeout(0.05):
            await clock.io_sleep(5.0)
    async with clock.timeout(None), clock.io_timeout(None):
        pass
    assert loop.time() - begin < 2.0
    assert clock.monotonic() == pytest.approx(clock.io_monotonic() * 50.0, rel=1e-3)


def test_text_round_trip_in_a_second_process() -> None:
    clock = ScaledClock(SystemClock().now_ms() - 5000, 44.99999999999999, market_anchor=1_800_000_000_123)
    program = (
        "import sys; from pmkit.clock import clock_from_text as c; k = c(sys.argv[1]); print(k.text(), k.now_ms())"
    )
    before = clock.now_ms()
    done = subprocess.run(
        [sys.executable, "-c", program, clock.text()], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    text, now_ms = done.stdout.split()
    assert text == clock.text()
    assert before <= int(now_ms) <= clock.now_ms()


@given(
    st.integers(0, 4_000_000_000_000),
    st.integers(0, 4_000_000_000_000),
    st.floats(min_value=1e-3, max_value=1e6, allow_nan=False),
)
def test_text_round_trip(anchor: int, market_anchor: int, factor: float) -> None:
    clock = ScaledClock(anchor, factor, market_anchor)
    again = clock_from_text(clock.text())
    assert isinstance(again, ScaledClock)
    assert (again.anchor_ms, again.market_anchor_ms, again.factor) == (anchor, market_anchor, factor)


@pytest.mark.parametrize(
    "text", ["", "System", "scaled", "scaled:1:2", "scaled:1:2:x", "scaled:1:2:nan", "scaled:a:2:3"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        clock_from_text(text)
    assert isinstance(clock_from_text("system"), SystemClock)


@pytest.mark.parametrize(
    ("factor", "seconds", "wall"),
    [(1.0, 10.0, 10.0), (1.0, 0.2, 1.0), (5.0, 10.0, 2.0), (45.0, 5.0, 1.0), (0.5, 3.0, 6.0)],
)
def test_data_deadlines_are_never_below_a_second_of_wall_time(factor: float, seconds: float, wall: float) -> None:
    assert ScaledClock(0, factor).deadline(seconds) == wall


# The clock that tests move.


async def test_manual_clock_fires_in_order_and_shows_each_moment() -> None:
    clock = ManualClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.monotonic()))
        await clock.sleep(1.0)
        seen.append((name, clock.monotonic()))

    tasks = [asyncio.ensure_future(sleeper(name, seconds)) for name, seconds in (("b", 2.0), ("a", 1.0), ("c", 2.5))]
    clock.call_later(1.5, lambda: seen.append(("call", clock.monotonic())))
    cancelled = clock.call_later(1.6, lambda: seen.append(("never", 0.0)))
    cancelled.cancel()
    await clock.advance(0.9)
    assert seen == []
    await clock.advance(10.0)
    expected = [("a", 1.0), ("call", 1.5), ("b", 2.0), ("a", 2.0), ("c", 2.5), ("b", 3.0), ("c", 3.5)]
    assert seen == expected
    assert clock.monotonic() == pytest.approx(10.9)
    assert clock.pending == 0
    await asyncio.gather(*tasks)


async def test_manual_clock_sleep_of_nothing_only_yields_and_a_cancelled_sleep_leaves_no_timer() -> None:
    clock = ManualClock()
    await clock.sleep(0)
    await clock.io_sleep(-1)
    sleeping = asyncio.ensure_future(clock.sleep(10))
    await asyncio.sleep(0)
    assert clock.pending == 1
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert clock.pending == 0


async def test_wall_step_moves_the_date_only() -> None:
    clock = ManualClock()
    before_ms, before = clock.now_ms(), clock.monotonic()
    clock.step_wall(-3600.5)
    assert clock.now_ms() == before_ms - 3_600_500
    assert clock.monotonic() == clock.io_monotonic() == before
    fired: list[int] = []
    clock.call_later(1.0, lambda: fired.append(clock.now_ms()))
    clock.step_wall(7200.0)
    await clock.advance(1.0)
    assert fired == [before_ms - 3_600_500 + 7_200_000 + 1000]
    with pytest.raises(ValueError, match="cannot travel"):
        clock.text()


# A timeout of the manual clock does what asyncio.timeout does. Each scenario runs on both.

Timeout = Callable[[float | None], AbstractAsyncContextManager[Any]]
Pass = Callable[[float], Awaitable[None]]
UNIT = 0.02


def outcome(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return type(error).__name__ if error else f"returned {task.result()}"


async def ends_in_time(timeout: Timeout, move: Pass) -> Any:
    async with timeout(2):
        await move(1)
    return asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def expires(timeout: Timeout, move: Pass) -> Any:
    try:
        async with timeout(1):
            await asyncio.get_running_loop().create_future()
    except TimeoutError as error:
        cause = type(error.__cause__).__name__
        return cause, asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def inner_expires_first(timeout: Timeout, move: Pass) -> Any:
    async with timeout(5):
        try:
            async with timeout(1):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "inner"
    return "neither"


async def outer_expires_first(timeout: Timeout, move: Pass) -> Any:
    try:
        async with timeout(1):
            try:
                async with timeout(5):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                return "inner"
    except TimeoutError:
        return "outer"


async def body_raises_when_it_expires(timeout: Timeout, move: Pass) -> Any:
    async with timeout(1):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LookupError from None


async def body_swallows_the_expiry(timeout: Timeout, move: Pass) -> Any:
    async with timeout(1):
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
    return asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def nothing_at_all(timeout: Timeout, move: Pass) -> Any:
    try:
        async with timeout(0):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return "at once"


async def no_limit(timeout: Timeout, move: Pass) -> Any:
    async with timeout(None):
        await move(3)
    return "unlimited"


async def used_again_after_it_expired(timeout: Timeout, move: Pass) -> Any:
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with timeout(1):
                await asyncio.get_running_loop().create_future()
    await asyncio.sleep(0)
    return "alive"


async def waits(timeout: Timeout, move: Pass) -> Any:
    async with timeout(2):
        await asyncio.get_running_loop().create_future()


SCENARIOS = [
    (ends_in_time, "returned 0"),
    (expires, "returned ('CancelledError', 0)"),
    (inner_expires_first, "returned inner"),
    (outer_expires_first, "returned outer"),
    (body_raises_when_it_expires, "LookupError"),
    (body_swallows_the_expiry, "returned 0"),
    (nothing_at_all, "returned at once"),
    (no_limit, "returned unlimited"),
    (used_again_after_it_expired, "returned alive"),
    (waits, "TimeoutError"),
]


@pytest.mark.parametrize(("scenario", "expected"), SCENARIOS, ids=[scenario.__name__ for scenario, _ in SCENARIOS])
@pytest.mark.parametrize("manual", [True, False], ids=["manual", "asyncio"])
async def test_timeouts(scenario: Callable[[Timeout, Pass], Any], expected: str, manual: bool) -> None:
    clock: Clock = ManualClock() if manual else ScaledClock(0, 1 / UNIT)
    task = asyncio.ensure_future(scenario(clock.timeout, clock.sleep))
    if isinstance(clock, ManualClock):
        for _ in range(6):
            await clock.advance(1.0)
    await asyncio.wait({task}, timeout=5)
    assert outcome(task) == expected
    if isinstance(clock, ManualClock):
        assert clock.pending == 0


@pytest.mark.parametrize("manual", [True, False], ids=["manual", "asyncio"])
@pytest.mark.parametrize("together", [False, True], ids=["before", "with the expiry"])
async def test_a_cancellation_from_outside_is_not_turned_into_a_timeout(manual: bool, together: bool) -> None:
    clock: Clock = ManualClock() if manual else ScaledClock(0, 1 / UNIT)
    task = asyncio.ensure_future(waits(clock.timeout, clock.sleep))
    await asyncio.sleep(0)
    if together:
        # A timer set after the timeout's own, for the same moment: it fires next, before the task has run again.
        clock.call_later(2.0, task.cancel)
    else:
        task.cancel()
    if isinstance(clock, ManualClock):
        if together:
            await _fire_all_at_once(clock, 2.0)
        else:
            await clock.settle()
    await asyncio.wait({task}, timeout=5)
    assert outcome(task) == "cancelled"


async def _fire_all_at_once(clock: ManualClock, seconds: float) -> None:
    """What an event loop does with two timers of one moment: both callbacks, then the tasks."""
    clock._elapsed += seconds
    for _, _, timer in sorted(clock._timers, key=lambda entry: entry[:2]):
        if not timer.cancelled:
            timer.callback()
    clock._timers.clear()
    await clock.settle()


# Entropy.


def draws(entropy: Entropy) -> list[Any]:
    return [
        entropy.random(),
        entropy.uniform(1, 2),
        entropy.randint(1, 10**9),
        entropy.gauss(0, 1),
        entropy.randbits(256),
        entropy.choice(range(10**6)),
        entropy.uuid4(),
    ]


def test_seeded_entropy_repeats_and_other_seeds_differ() -> None:
    assert draws(Entropy(7)) == draws(Entropy(7))
    assert draws(Entropy("seed")) == draws(Entropy("seed"))
    assert draws(Entropy(7)) != draws(Entropy(8))
    assert Entropy(7).seeded
    assert not Entropy().seeded
    assert draws(Entropy()) != draws(Entropy())


def test_uuids_are_version_4() -> None:
    entropy = Entropy(1)
    made = [entropy.uuid4() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(len(text) == 36 and text[14] == "4" and text[19] in "89ab" for text in made)


# Moments.


@given(st.integers(1_577_836_800_000, 4_102_444_800_000))
def test_moments_round_trip_exactly(ms: int) -> None:
    assert to_ms(to_utc(ms)) == ms
    assert to_utc(ms).tzinfo is UTC
    elsewhere = to_utc(ms).astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    assert to_ms(elsewhere) == ms


def test_moments_are_floored_and_naive_ones_refused() -> None:
    assert to_ms(datetime(2026, 1, 1, microsecond=999_999, tzinfo=UTC)) % 1000 == 999
    with pytest.raises(ValueError, match="no place in time"):
        to_ms(datetime(2026, 1, 1))  # noqa: DTZ001


# A venue's time.


def test_venue_clock_intersects_what_its_answers_say() -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    now = clock.now_ms()
    assert venue.now_ms() == now
    assert venue.uncertainty_ms is None
    venue.observe(now + 5000, now - 400, now + 400)
    assert (venue.offset_ms, venue.uncertainty_ms) == (5000, 400)
    venue.observe(now + 4800, now - 10, now + 10)
    assert (venue.offset_ms, venue.uncertainty_ms) == (4800, 10)
    venue.observe(now + 5000, now - 300, now + 300)
    assert venue.now_ms() == now + 4800
    venue.observe(now + 9000, now - 300, now + 300)  # contradicts all before: a clock was moved
    assert (venue.offset_ms, venue.uncertainty_ms) == (9000, 300)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 200)), min_size=1, max_size=20))
def test_stamps_in_whole_seconds_do_not_move_a_clock_that_is_right(samples: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    now = clock.now_ms()
    for later, trip in samples:
        venue.observe((now + later) // 1000 * 1000, now + later - trip, now + later + trip, resolution_ms=1000)
        assert venue.offset_ms == 0


def test_stamps_in_whole_seconds_find_a_clock_that_is_wrong() -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    now = clock.now_ms() // 1000 * 1000
    for later in (0, 130, 290, 450, 610, 880):
        stamp = (now + later + 700) // 1000 * 1000
        venue.observe(stamp, now + later, now + later + 20, resolution_ms=1000)
    assert abs(venue.offset_ms - 700) <= 100
    assert abs(venue.offset_ms - 700) <= (venue.uncertainty_ms or 0)


@given(st.integers(-5000, 5000), st.lists(st.tuples(st.integers(0, 800), st.integers(0, 800)), min_size=1, max_size=8))
def test_ck_01_the_true_offset_is_within_the_uncertainty(offset: int, delays: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    sent = clock.now_ms()
    for there, back in delays:
        venue.observe(sent + there + offset, sent, sent + there + back)
    assert venue.uncertainty_ms is not None
    assert abs(venue.offset_ms - offset) <= venue.uncertainty_ms + 1


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.0, -1.0])
async def test_ck_03_a_stepped_clock_forgets_what_was_measured_before(step: float) -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    venue_ms = clock.now_ms() + 2000

    def measure(trip: int) -> None:
        now = clock.now_ms()
        venue.observe(venue_ms, now - trip, now + trip)

    for _ in range(8):
        measure(1)
    await clock.advance(5.0)
    venue_ms += 5000
    assert venue.now_ms() == venue_ms
    clock.step_wall(step)
    assert venue.now_ms() == clock.now_ms()  # the machine's own date, until something better is known
    assert venue.uncertainty_ms is None
    measure(200)  # worse than all that was measured before, and the only one that counts
    assert venue.now_ms() == venue_ms
    assert venue.uncertainty_ms == 200


def test_ck_03_a_request_during_which_the_clock_was_set_back_counts_for_nothing() -> None:
    clock = ManualClock()
    venue = VenueClock(clock)
    now = clock.now_ms()
    venue.observe(now, now + 3_600_000, now)
    assert venue.uncertainty_ms is None
    assert venue.offset_ms == 0


def test_venue_clock_on_a_scaled_clock_keeps_its_samples() -> None:
    clock = ScaledClock(SystemClock().now_ms(), 1000.0)
    venue = VenueClock(clock)
    now = clock.now_ms()
    venue.observe(now + 60_000, now, now)
    for _ in range(2000):
        venue.now_ms()
    assert venue.offset_ms == 60_000
