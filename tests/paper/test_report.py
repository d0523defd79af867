"""The report of the dry-run, checked by a reader of its own: from the tape alone, each fill must have been possible.

The reader knows the books and prints that were shown, the orders, and the report. It shares no code with the dry-run.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.clock import ManualClock
from pmkit.errors import PmkitError
from pmkit.exchanges.paper.order import FillReason, How
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.types import Liquidity, OrderId, PublicTrade, Side, TimeInForce

from .conftest import KALSHI, POLYMARKET, START_MS
from .test_exchange import Venue

D = Decimal
ZERO = D(0)
Level = tuple[str, Side, Decimal]


@dataclass
class Reader:
    """Plays a tape to a dry-run, and keeps what it needs to judge the report."""

    venue: Venue
    shown: dict[int, dict[Level, Decimal]] = field(default_factory=dict)
    prints: list[PublicTrade] = field(default_factory=list)
    orders: dict[str, tuple[str, Side, Decimal]] = field(default_factory=dict)

    def show(self, bids: dict[str, str], asks: dict[str, str]) -> None:
        first, second = self.venue.market.outcomes
        levels: dict[Level, Decimal] = {}
        for side, rows in ((Side.BUY, bids), (Side.SELL, asks)):
            for price, size in rows.items():
                levels[first, side, D(price)] = D(size)
                levels[second, Side.SELL if side is Side.BUY else Side.BUY, 1 - D(price)] = D(size)
        self.shown[self.venue.clock.time_ns()] = levels
        self.venue.data.show(first, bids, asks)

    async def place(self, number: int, side: Side, price: Decimal, size: int, time_in_force: TimeInForce) -> None:
        outcome = self.venue.market.outcomes[number]
        placing = self.venue.paper.place_limit_order(
            self.venue.market, outcome, side, price, size, time_in_force=time_in_force
        )
        task = asyncio.ensure_future(placing)
        while not task.done():
            await self.venue.clock.advance(0.05)
        if task.exception() is None:
            self.orders[task.result()] = (outcome, side, price)
        else:
            assert isinstance(task.exception(), PmkitError)

    def judge(self, model: QueueModel) -> None:
        """Every fill has a reason, and the tape allows it."""
        report = self.venue.paper.report()
        fills = {fill.fill_id: fill for fill in self.venue.fills}
        assert list(fills) == [reason.fill_id for reason in report]
        used: dict[Level, Decimal] = {}
        of_print: dict[int, Decimal] = {}
        moments = sorted(self.shown)
        at = -1
        for reason in report:
            fill, (outcome, side, limit) = fills[reason.fill_id], self.orders[reason.order_id]
            assert (reason.size, reason.price) == (fill.size, fill.price)
            assert self.venue.paper.explain(reason.fill_id) == str(reason)
            assert str(reason.how) in str(reason) and f"{reason.seen_size:f}" in str(reason)
            # Memory of what was taken: a level that shrinks takes it along.
            while at + 1 < len(moments) and moments[at + 1] <= reason.received_ns:
                at += 1
                for level in list(used):
                    used[level] = min(used[level], self.shown[moments[at]].get(level, ZERO))
            if reason.how in (How.LEVEL, How.CROSS):
                self.level(reason, outcome, side, limit, used, self.shown[moments[at]])
                assert fill.liquidity is (Liquidity.TAKER if reason.how is How.LEVEL else Liquidity.MAKER)
                assert fill.price == (reason.level_price if reason.how is How.LEVEL else limit)
                assert reason.how is How.LEVEL or model is not QueueModel.PESSIMISTIC
            else:
                self.print(reason, outcome, side, limit, model, of_print)
                assert fill.liquidity is Liquidity.MAKER and fill.price == limit

    def level(self, reason: FillReason, outcome, side, limit, used, levels) -> None:
        other = Side.SELL if side is Side.BUY else Side.BUY
        key = (outcome, other, reason.level_price)
        twin = (self.venue.market.opposite(outcome), side, 1 - reason.level_price)
        assert levels[key] == reason.seen_size, "the level was shown so"
        assert (reason.level_price <= limit) if side is Side.BUY else (reason.level_price >= limit)
        assert reason.taken_before == used.get(key, ZERO)
        assert reason.taken_before + reason.size <= reason.seen_size
        used[key] = used[twin] = reason.taken_before + reason.size
        for (name, which, price), size in levels.items():
            better = price < reason.level_price if side is Side.BUY else price > reason.level_price
            if (name, which) == (outcome, other) and better:
                assert used.get((name, which, price), ZERO) >= size, "what is better goes first"

    def print(self, reason: FillReason, outcome, side, limit, model, of_print) -> None:
        assert reason.trade is not None
        (number,) = (i for i, row in enumerate(self.prints) if row == reason.trade)
        row = self.prints[number]
        same = row.outcome == outcome
        price = row.price if same else 1 - row.price
        taker = row.side if same else (Side.SELL if row.side is Side.BUY else Side.BUY)
        assert taker is not side, "whoever takes is on the other side"
        through = (price < limit) if side is Side.BUY else (price > limit)
        assert through if reason.how is How.THROUGH else price == limit
        assert reason.seen_size == row.size and reason.received_ns == row.received_ns
        assert reason.own_before == min(row.size, of_print.get(number, ZERO))
        of_print[number] = of_print.get(number, ZERO) + reason.size
        if model is QueueModel.OPTIMISTIC:
            return  # whoever took all there was may have wanted more
        assert of_print[number] <= row.size, "a print is had once"
        if reason.how is How.PRINT:
            assert reason.size <= row.size - reason.own_before - reason.ahead_before, "after the queue"
            assert reason.ahead_after == 0


def ladder(best: int, sizes: tuple[int, ...], step: int) -> dict[str, str]:
    return {str(D(best + step * i) / 100): str(size) for i, size in enumerate(sizes)}


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)
BOOK = st.tuples(st.just("book"), st.integers(40, 50), st.integers(1, 6), SIZES, SIZES)
PRINT = st.tuples(st.just("print"), st.integers(0, 1), st.sampled_from(Side), st.integers(42, 58), st.integers(1, 40))
ORDER = st.tuples(
    st.just("order"), st.integers(0, 1), st.sampled_from(Side), st.integers(42, 58), st.integers(5, 30),
    st.sampled_from((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)),
)  # fmt: skip
WAIT = st.tuples(st.just("wait"), st.sampled_from((0.001, 0.3, 0.6)))


async def play(model: QueueModel, tape: list[tuple], kind: dict) -> Reader:
    clock = ManualClock(START_MS + 1000)
    async with Venue(clock, queue=model, balance=10_000, **kind) as venue:
        reader = Reader(venue)
        await venue.data.subscribe_trades([], reader.prints.append)
        reader.show({"0.48": "30", "0.47": "20"}, {"0.52": "30", "0.53": "20"})
        for step in tape:
            await clock.advance(0.001)
            if step[0] == "book":
                _, bid, spread, buys, sells = step
                reader.show(ladder(bid, buys, -1), ladder(bid + spread, sells, 1))
            elif step[0] == "print":
                _, number, side, cents, size = step
                venue.data.trade(venue.market.outcomes[number], side, str(D(cents) / 100), str(size))
            elif step[0] == "order":
                _, number, side, cents, size, time_in_force = step
                await reader.place(number, side, D(cents) / 100, size, time_in_force)
            else:
                await clock.advance(step[1])
        reader.judge(model)
        return reader


@pytest.mark.parametrize("kind", [POLYMARKET, KALSHI], ids=["polymarket", "kalshi"])
@pytest.mark.parametrize("model", list(QueueModel))
@settings(max_examples=12, deadline=None)
@given(st.lists(st.one_of(BOOK, PRINT, ORDER, WAIT), max_size=14))
def test_every_fill_is_explained_by_what_was_shown(model, kind, tape):
    asyncio.run(play(model, tape, kind))


@settings(max_examples=20, deadline=None)
@given(st.integers(44, 53), st.integers(5, 30), st.lists(st.one_of(BOOK, PRINT, WAIT), max_size=14))
def test_for_one_order_the_models_are_a_band_on_every_tape(cents, size, tape):
    order = ("order", 0, Side.BUY, cents, size, TimeInForce.GTC)
    filled = {}
    for model in QueueModel:
        reader = asyncio.run(play(model, [order, *tape], KALSHI))
        filled[model] = sum((fill.size for fill in reader.venue.fills), ZERO)
    assert filled[QueueModel.PESSIMISTIC] <= filled[QueueModel.MIDDLE] <= filled[QueueModel.OPTIMISTIC]


async def test_the_report_says_what_a_reader_needs(clock):
    async with Venue(clock, **KALSHI) as venue:
        venue.data.show("YES", {"0.50": "20"}, {"0.52": "10"})
        await venue.limit("YES", Side.BUY, "0.52", "4", time_in_force=TimeInForce.IOC)
        await venue.limit("YES", Side.BUY, "0.52", "4", time_in_force=TimeInForce.IOC)
        resting = await venue.limit("YES", Side.BUY, "0.50", "10")
        venue.data.trade("YES", Side.SELL, "0.50", "23")
        first, second, third = (str(reason) for reason in venue.paper.report())
        assert "4 at 0.52, took a level of 10 shares; touch 0.50/0.52" in first
        assert "took a level of 10 shares at 0.52, of which 4 were taken before" in second
        assert f"of {resting}: 3 at 0.5, a print at its price of 23 shares; 20 shares were ahead before it, 0" in third
        assert isinstance(resting, OrderId)
