"""The matching engine against a naive model, and the traders that fill it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import Entropy, ManualClock, ScaledClock, SystemClock
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, Killed, Match, MatchingEngine, Side, TimeInForce, Update
from pmkit.sim.traders import FAR_LEVELS, LEVELS, Grid, Traders

# ---- a model that is too simple to be wrong: one list of orders, searched again for every unit of the taker


@dataclass
class Resting:
    order_id: str
    side: Side
    price: int
    size: int


@dataclass
class Model:
    orders: list[Resting] = field(default_factory=list)

    def _next(self, side: Side, price: int) -> Resting | None:
        found = None
        for order in self.orders:
            if order.side is side or (order.price > price if side is Side.BUY else order.price < price):
                continue
            if found is None or (order.price < found.price if side is Side.BUY else order.price > found.price):
                found = order
        return found

    def submit(
        self, order_id: str, side: Side, price: int, size: int, kind: TimeInForce, post_only: bool
    ) -> list[tuple[str, int, int]]:
        def crossing(order: Resting) -> bool:
            if order.side is side:
                return False
            return order.price <= price if side is Side.BUY else order.price >= price

        reachable = sum(order.size for order in self.orders if crossing(order))
        if (post_only and reachable) or (kind is TimeInForce.FOK and reachable < size):
            return []
        trades = []
        while size and (maker := self._next(side, price)) is not None:
            traded = min(size, maker.size)
            trades.append((maker.order_id, maker.price, traded))
            size -= traded
            maker.size -= traded
            if not maker.size:
                self.orders.remove(maker)
        if size and kind is TimeInForce.GTC:
            self.orders.append(Resting(order_id, side, price, size))
        return trades

    def levels(self, side: Side) -> list[tuple[int, int]]:
        totals: dict[int, int] = defaultdict(int)
        for order in self.orders:
            if order.side is side:
                totals[order.price] += order.size
        return sorted(totals.items(), reverse=side is Side.BUY)


submissions = st.tuples(
    st.just("submit"),
    st.sampled_from(list(Side)),
    st.integers(min_value=4_980, max_value=5_020),
    st.integers(min_value=1, max_value=40),
    st.sampled_from(list(TimeInForce)),
    st.booleans(),
)
others = st.tuples(st.sampled_from(["cancel", "reduce", "cancel_all"]), st.integers(min_value=0, max_value=60))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(submissions, submissions, submissions, others), max_size=60))
def test_engine_equals_the_model(operations: list[tuple]) -> None:  # type: ignore[type-arg]
    engine, model = MatchingEngine(), Model()
    shadow: dict[tuple[Side, int], int] = {}
    heard: list[Match] = []
    updates: list[Update] = []
    engine.on_level.append(lambda side, price, size: shadow.__setitem__((side, price), size))
    engine.on_match.append(heard.append)
    engine.on_update.append(updates.append)
    put = filled = removed = 0
    for number, operation in enumerate(operations):
        if operation[0] == "submit":
            _, side, price, size, kind, post_only = operation
            before = len(heard)
            done = engine.submit(
                f"owner-{number % 3}", side, price, size, time_in_force=kind, post_only=post_only, order_id=f"n{number}"
            )
            expected = model.submit(f"n{number}", side, price, size, kind, post_only)
            assert [(match.maker_id, match.price, match.size) for match in done.matches] == expected
            assert list(done.matches) == heard[before:]
            assert done.filled == sum(match.size for match in done.matches)
            assert done.filled + done.unfilled + (done.order.size if done.order else 0) == size
            if kind is TimeInForce.FOK:
                assert done.filled in (0, size)
            if post_only:
                assert not done.matches
            put += size - done.unfilled
            filled += done.filled
        elif operation[0] == "cancel_all":
            removed += sum(order.size for order in engine.cancel_all(f"owner-{operation[1] % 3}"))
            model.orders = [order for order in model.orders if int(order.order_id[1:]) % 3 != operation[1] % 3]
        else:
            order = engine.order(f"n{operation[1]}")
            if operation[0] == "cancel":
                gone = engine.cancel(f"n{operation[1]}")
                assert (gone is None) == (order is None)
                removed += gone.size if gone else 0
                model.orders = [row for row in model.orders if row.order_id != f"n{operation[1]}"]
            elif order is not None and order.size > 1:
                removed += order.size - 1
                engine.reduce(order.order_id, 1)
                next(row for row in model.orders if row.order_id == order.order_id).size = 1
        for side in Side:
            assert engine.levels(side) == model.levels(side)
            assert engine.levels(side) == sorted(
                ((price, size) for (where, price), size in shadow.items() if where is side and size),
                reverse=side is Side.BUY,
            )
        bid, ask = engine.best_bid, engine.best_ask
        assert bid is None or ask is None or bid < ask, "crossed"
        # Conservation: what came in is what rests, what was filled (once as taker, once as maker) and what was removed.
        assert put == sum(order.size for order in engine.orders()) + 2 * filled + removed
    assert heard == [match for update in updates for match in update.matches]
    assert [match.sequence for match in heard] == list(range(1, len(heard) + 1))
    assert engine.volume == filled


def test_first_come_first_served_also_after_a_reduction() -> None:
    engine = MatchingEngine()
    for name in ("a", "b", "c"):
        engine.submit(name, Side.SELL, 5_000, 10, order_id=name)
    engine.reduce("a", 4)
    done = engine.submit("taker", Side.BUY, 5_000, 15)
    assert [(match.maker_id, match.size, match.maker_left) for match in done.matches] == [
        ("a", 4, 0),
        ("b", 10, 0),
        ("c", 1, 9),
    ]
    with pytest.raises(ValueError, match="reduced"):
        engine.reduce("c", 9)
    assert engine.reduce("gone", 1) is None


def test_reasons_of_orders_that_do_not_rest() -> None:
    engine = MatchingEngine()
    engine.submit("maker", Side.SELL, 5_000, 10)
    assert engine.submit("x", Side.BUY, 5_000, 1, post_only=True).killed is Killed.POST_ONLY_CROSS
    assert engine.submit("x", Side.BUY, 5_000, 11, time_in_force=TimeInForce.FOK).killed is Killed.FOK_UNFILLED
    rest = engine.submit("x", Side.BUY, 5_000, 11, time_in_force=TimeInForce.IOC)
    assert (rest.killed, rest.filled, rest.unfilled) == (Killed.IOC_REMAINDER, 10, 1)
    assert engine.levels(Side.BUY) == engine.levels(Side.SELL) == []


def test_meeting_oneself_is_flagged_and_left_to_the_venue() -> None:
    engine = MatchingEngine()
    engine.submit("me", Side.SELL, 5_000, 10, client="resting")
    done = engine.submit("me", Side.BUY, 5_000, 4, client="taking")
    assert done.matches[0].self_trade
    assert (done.matches[0].maker_client, done.matches[0].taker_client) == ("resting", "taking")


@pytest.mark.parametrize(("price", "size"), [(0, 1), (PRICE_UNITS, 1), (-1, 1), (5_000, 0), (5_000, -1)])
def test_numbers_outside_the_units_are_refused(price: int, size: int) -> None:
    with pytest.raises(ValueError, match="not a price and size"):
        MatchingEngine().submit("x", Side.BUY, price, size)


def test_listeners_see_the_final_book() -> None:
    engine = MatchingEngine()
    for price in (5_000, 5_100, 5_200):
        engine.submit("maker", Side.SELL, price, 10)
    seen: list[tuple[int | None, int | None]] = []
    engine.on_level.append(lambda *_: seen.append((engine.best_bid, engine.best_ask)))
    engine.submit("taker", Side.BUY, 5_150, 25)
    assert seen == [(5_150, 5_200)] * 3


# ---- traders


class Stage:
    """Traders on a book of their own, with a fair value and an end that the test moves."""

    def __init__(self, grid: Grid, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.engine = MatchingEngine()
        self.fair = 0.5
        self.left = 600.0
        self.grid = grid
        self.traders = Traders(
            self.engine,
            fair=lambda: self.fair,
            seconds_left=lambda: self.left,
            grid=lambda: self.grid,
            clock=self.clock,
            entropy=Entropy(seed),
        )
        self.traders.fill()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.traders.step()


CENT = Grid.even(100)
FINE = Grid.even(10)
TAPERED = Grid(((10, 1_000, 10), (1_000, 9_000, 100), (9_000, 9_990, 10)))


@pytest.mark.parametrize("grid", [CENT, FINE, TAPERED], ids=["cent", "fine", "tapered"])
def test_the_book_follows_the_fair_value(grid: Grid) -> None:
    stage = Stage(grid)
    wander = Entropy(5)
    prices: set[int] = set()
    stage.engine.on_level.append(lambda side, price, size: prices.add(price))
    for _ in range(200):
        stage.fair = min(0.97, max(0.03, stage.fair + wander.gauss(0, 0.03)))
        stage.steps(25)
        bid, ask = stage.engine.best_bid, stage.engine.best_ask
        assert bid is not None
        assert ask is not None
        assert bid < ask
        assert bid <= stage.fair * PRICE_UNITS + 50
        assert ask >= stage.fair * PRICE_UNITS - 50
        assert ask - bid <= 500
        assert len(stage.engine.orders()) < 5 * (LEVELS + FAR_LEVELS)
    assert all(grid.holds(price) for price in prices)
    assert stage.engine.matched > 100
    assert all(order.size >= 0 for order in stage.engine.orders())


def test_the_book_is_one_sided_at_the_end() -> None:
    stage = Stage(CENT)
    stage.fair, stage.left = 0.995, 15.0
    stage.steps(60)
    assert stage.engine.best_ask is None
    assert stage.engine.best_bid == 9_800
    stage = Stage(CENT)
    stage.fair, stage.left = 0.004, 15.0
    stage.steps(60)
    assert stage.engine.best_bid is None
    assert stage.engine.best_ask == 200


def test_in_some_windows_both_sides_are_empty_at_the_end() -> None:
    empty = 0
    for seed in range(12):
        stage = Stage(CENT, seed)
        stage.left = 2.0
        stage.steps(20)
        empty += stage.engine.best_bid is None and stage.engine.best_ask is None
    assert 0 < empty < 12


async def test_the_pace_is_bounded_in_wall_time() -> None:
    stage = Stage(CENT)
    updates: list[Update] = []
    stage.engine.on_update.append(updates.append)
    task = asyncio.create_task(stage.traders.run())
    await stage.clock.advance(30)
    assert 8 * 30 < stage.traders.steps < 16 * 30
    assert 5 * 30 < len(updates) < 20 * 30
    stage.left = 0.0
    await stage.clock.advance(1)
    assert task.done()
    await task


async def test_a_fast_clock_does_not_make_traders_faster() -> None:
    wall = SystemClock()
    clock = ScaledClock(wall.now_ms(), 45.0)
    traders = Traders(
        MatchingEngine(),
        fair=lambda: 0.5,
        seconds_left=lambda: 600.0,
        grid=lambda: CENT,
        clock=clock,
        entropy=Entropy(1),
    )
    task = asyncio.create_task(traders.run())
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 3 <= traders.steps <= 20


def test_sizes_are_legal() -> None:
    stage = Stage(CENT)
    stage.steps(300)
    assert all(order.original % (SIZE_UNITS // 100) == 0 for order in stage.engine.orders())
    assert all(order.original >= 5 * SIZE_UNITS for order in stage.engine.orders())


@pytest.mark.parametrize(
    ("grid", "price", "low", "high"),
    [
        (CENT, 5_049.9, 5_000, 5_100),
        (CENT, 99.0, None, 100),
        (CENT, 9_901.0, 9_900, None),
        (CENT, 5_000, 5_000, 5_000),
        (TAPERED, 994.0, 990, 1_000),
        (TAPERED, 1_050.0, 1_000, 1_100),
        (TAPERED, 8_999.0, 8_900, 9_000),
        (TAPERED, 9_001.0, 9_000, 9_010),
        (TAPERED, 9_995.0, 9_990, None),
    ],
)
def test_grid(grid: Grid, price: float, low: int | None, high: int | None) -> None:
    assert (grid.floor(price), grid.ceil(price)) == (low, high)
