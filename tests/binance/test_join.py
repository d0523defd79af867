"""The join of stream and REST, as a function: every order of things ends in one unbroken series."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.data.binance.join import Added, CandleJoin, Missing
from pmkit.data.binance.types import Candle, Hole, KlineEvent
from tests.binance.venue import T0, candle

S = 1000


def live(opened: int, closed: bool = True, **change: float) -> KlineEvent:
    whole = msgspec.structs.replace(candle(opened), **change)
    return KlineEvent("BTCUSDT", "1s", opened + S + 2, whole, closed)


def rest(missing: Missing, size: int, outage: frozenset[int] = frozenset(), until: int = 2**62) -> list[Candle]:
    opens = [o for o in range(missing.start_ms - 50 * S, missing.end_ms, S) if o not in outage and o < until]
    if missing.warm_up:
        return [candle(o) for o in opens[-size:]]
    return [candle(o) for o in opens if o >= missing.start_ms]


def warmed(size: int = 5) -> CandleJoin:
    """Ends with T0 in the buffer."""
    join = CandleJoin(S, size)
    assert join.missing is None
    assert join.hear(live(T0), 1) == []
    missing = join.missing
    assert missing == Missing(T0 - size * S, T0, True)
    added = join.fill(missing, rest(missing, size), 2, "none")
    assert [entry.candle for entry in added] == [candle(T0)]
    assert join.missing is None and join.warm
    return join


def test_warm_up_then_live() -> None:
    join = warmed(5)
    assert list(join.buffer) == [candle(T0 + i * S) for i in range(-4, 1)]
    assert [entry.candle for entry in join.hear(live(T0 + S), 3)] == [candle(T0 + S)]
    assert join.missing is None and not join.holes


def test_a_gap_holds_newer_candles_in_order() -> None:
    join = warmed(10)
    assert join.hear(live(T0 + 4 * S), 1) == []
    assert join.hear(live(T0 + 3 * S), 1) == []  # two streams of one connection, or a renewal
    assert join.missing == Missing(T0 + S, T0 + 3 * S, False)
    missing = join.missing
    assert not join.complete(missing, [candle(T0 + S)])
    rows = rest(missing, 10)
    assert join.complete(missing, rows)
    assert not join.complete(missing, rows[1:]), "a gap is read again also when it is the older row that is not there"
    added = join.fill(missing, rows, 9, "none")
    assert [entry.candle for entry in added] == [candle(T0 + i * S) for i in (1, 2, 3, 4)]
    assert [entry.event is None for entry in added] == [True, True, False, False]
    assert join.missing is None and join.held == 0


def test_what_the_venue_does_not_have_is_a_hole_and_nothing_is_made_up() -> None:
    join = warmed(10)
    join.hear(live(T0 + 6 * S), 1)
    missing = join.missing
    assert missing is not None
    outage = frozenset({T0 + 2 * S, T0 + 3 * S, T0 + 5 * S})
    added = join.fill(missing, rest(missing, 10, outage), 9, "not at the venue")
    assert [entry.candle.timestamp - T0 for entry in added] == [1 * S, 4 * S, 6 * S]
    assert list(join.holes) == [
        Hole(T0 + 2 * S, T0 + 3 * S, 2, "not at the venue"),
        Hole(T0 + 5 * S, T0 + 5 * S, 1, "not at the venue"),
    ]
    assert join.stats.lost == 3
    assert join.hear(live(T0 + 5 * S), 1) == [] and join.stats.late == 1
    assert len(join.hear(live(T0 + 7 * S), 1)) == 1 and join.missing is None


def test_a_trailing_hole_ends_the_asking() -> None:
    join = warmed(10)
    join.hear(live(T0 + 3 * S), 1)
    missing = join.missing
    assert missing is not None
    added = join.fill(missing, [], 9, "why")
    assert [entry.candle.timestamp for entry in added] == [T0 + 3 * S]
    assert join.missing is None and join.stats.lost == 2


def test_md_25_open_frame_is_never_stored() -> None:
    join = warmed(5)
    assert join.hear(live(T0 + S, closed=False, close=1.0), 1) == []
    assert join.forming is not None and join.forming.close == 1.0
    assert join.buffer.last == candle(T0) and join.missing is None
    assert [entry.candle for entry in join.hear(live(T0 + S), 1)] == [candle(T0 + S)]
    assert join.forming is None
    join.hear(live(T0, closed=False), 1)  # an update of what is closed long since
    assert join.forming is None and join.missing is None


def test_md_25_closed_flag_lost_across_a_reconnect_comes_from_rest() -> None:
    join = warmed(5)
    join.hear(live(T0 + S, closed=False), 1)
    # Its last update, the closed one, is lost; the next thing heard is the candle after it, still open.
    join.hear(live(T0 + 2 * S, closed=False), 1)
    missing = join.missing
    assert missing == Missing(T0 + S, T0 + 2 * S, False)
    added = join.fill(missing, rest(missing, 5), 1, "none")
    assert [entry.candle for entry in added] == [candle(T0 + S)]
    assert join.forming is not None and join.forming.timestamp == T0 + 2 * S


def test_an_open_frame_is_enough_to_warm_up() -> None:
    join = CandleJoin(S, 5)
    join.hear(live(T0, closed=False), 1)
    missing = join.missing
    assert missing == Missing(T0 - 5 * S, T0, True)
    assert join.fill(missing, rest(missing, 5), 1, "none") == []
    assert join.buffer.last == candle(T0 - S)
    assert len(join.hear(live(T0), 1)) == 1


def test_duplicates_and_other_values() -> None:
    join = warmed(5)
    join.hear(live(T0), 1)
    join.hear(live(T0 - S), 1)
    assert join.stats.duplicates == 2
    join.hear(live(T0, close=100.0), 1)
    assert join.stats.differing == 1 and join.buffer.last == candle(T0)
    join.hear(live(T0 - 90 * S), 1)
    assert join.stats.late == 1
    join.hear(live(T0 + 5 * S), 1)
    join.hear(live(T0 + 5 * S), 1)
    join.hear(live(T0 + 5 * S, volume=0.0), 1)
    assert (join.stats.duplicates, join.stats.differing, join.held) == (3, 2, 1)


def test_a_candle_that_comes_while_rest_is_asked() -> None:
    join = warmed(5)
    join.hear(live(T0 + 3 * S), 1)
    missing = join.missing
    assert missing is not None
    join.hear(live(T0 + 2 * S), 1)  # after all
    added = join.fill(missing, [candle(T0 + S)], 1, "none")
    assert [entry.candle for entry in added] == [candle(T0 + i * S) for i in (1, 2, 3)]
    assert not join.holes


def test_a_candle_that_comes_live_while_rest_reads_it_enters_once() -> None:
    join = warmed(5)
    join.hear(live(T0 + 2 * S, closed=False), 1)
    missing = join.missing
    assert missing == Missing(T0 + S, T0 + 2 * S, False)
    assert [entry.candle for entry in join.hear(live(T0 + S), 1)] == [candle(T0 + S)]
    assert join.fill(missing, [candle(T0 + S)], 1, "none") == []
    assert join.missing is None and join.stats.duplicates == 1 and not join.holes
    assert len(join.hear(live(T0 + 2 * S), 1)) == 1


def test_a_gap_longer_than_the_buffer_needs_only_its_end() -> None:
    join = warmed(4)
    join.hear(live(T0 + 100 * S), 1)
    missing = join.missing
    assert missing == Missing(T0 + 96 * S, T0 + 100 * S, False)
    join.fill(missing, rest(missing, 4), 1, "none")
    assert list(join.buffer) == [candle(T0 + i * S) for i in (97, 98, 99, 100)]
    assert [(hole.first_ms, hole.last_ms, hole.missing) for hole in join.holes] == [(T0 + S, T0 + 95 * S, 95)]


def test_while_rest_is_down_no_more_waits_than_the_buffer_holds() -> None:
    join = warmed(4)
    for i in range(2, 60):
        assert join.hear(live(T0 + i * S), 1) == []
    assert join.held == 4
    missing = join.missing
    assert missing == Missing(T0 + 52 * S, T0 + 56 * S, False)
    join.fill(missing, rest(missing, 4), 1, "none")
    assert list(join.buffer) == [candle(T0 + i * S) for i in (56, 57, 58, 59)]


def test_a_new_market_has_no_history() -> None:
    join = CandleJoin(S, 5)
    join.hear(live(T0), 1)
    missing = join.missing
    assert missing is not None
    assert not join.complete(missing, [])
    assert len(join.fill(missing, [candle(T0 - 2 * S), candle(T0 - S)], 1, "none")) == 1
    assert len(join.buffer) == 3 and not join.holes


@pytest.mark.parametrize("late", [0, 1, 2])
def test_md_26_the_rows_of_warm_up_may_overlap_what_came_live(late: int) -> None:
    join = CandleJoin(S, 5)
    for i in range(4):
        join.hear(live(T0 + i * S), 1)
    missing = join.missing
    assert missing is not None and missing.end_ms == T0
    rows = [candle(T0 + i * S) for i in range(-5, late)]
    added = join.fill(missing, rows, 1, "none")
    assert [entry.candle for entry in added] == [candle(T0 + i * S) for i in range(4)]
    assert list(join.buffer) == [candle(T0 + i * S) for i in range(-1, 4)]


actions = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "next", "skip", "again", "back", "open", "rest", "late rest"]),
        st.integers(1, 4),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(actions, st.integers(1, 12), st.frozensets(st.integers(-6, 60), max_size=12), st.booleans())
def test_any_order_of_things_ends_in_one_series(
    script: list[tuple[str, int]], size: int, holes: frozenset[int], outage_live: bool
) -> None:
    """The stream may say what REST lacks (REST is a database that lost it); then it must not be lost twice."""
    outage = frozenset(T0 + i * S for i in holes)
    join = CandleJoin(S, size)
    told: list[Added] = []
    now = T0
    before: int | None = None

    def hear(opened: int, closed: bool = True) -> None:
        nonlocal told
        if outage_live or opened not in outage:
            told += join.hear(live(opened, closed), 1)

    def ask(late: bool) -> None:
        nonlocal told, before
        missing = join.missing
        if missing is None:
            return
        rows = rest(missing, size, outage, missing.end_ms - S if late else 2**62)
        if missing.warm_up:
            before = missing.end_ms
        told += join.fill(missing, rows, 1, "none")

    for action, n in script:
        if action == "next":
            for _ in range(n):
                hear(now)
                now += S
        elif action == "skip":
            now += n * S
        elif action == "again":
            hear(now - S)
        elif action == "back":
            hear(now - n * S)
        elif action == "open":
            hear(now, closed=False)
        else:
            ask(action == "late rest")
    for _ in range(80):
        ask(False)
    assert join.missing is None and join.held == 0

    times = [c.timestamp for c in join.buffer]
    assert times == sorted(set(times)) and len(times) <= size
    assert all(c == candle(c.timestamp) for c in join.buffer)
    entered = [entry.candle.timestamp for entry in told]
    assert entered == sorted(set(entered))
    assert times[-len(entered) :][-size:] == entered[-size:] or not entered
    if before is not None:
        missing_opens = {o for h in join.holes for o in range(h.first_ms, h.last_ms + 1, S)}
        assert not missing_opens & set(entered)
        # Between the warm-up and the last candle every open time was entered once or is in a hole.
        end = max([before - S, *entered])
        span = set(range(before, end + 1, S))
        assert span <= set(entered) | missing_opens
