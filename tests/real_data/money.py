"""Fills and orders of an account: fees by the formula, fills that add up to their orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from pmkit.exchanges.kalshi.fees import MAKER_SHARES, QUANTUM, TRADE_FEE_QUANTUM, charge, fee_rule
from pmkit.exchanges.kalshi.tickers import series_of
from pmkit.exchanges.kalshi.types import NO, YES, RowError, asset_of, time_ms
from pmkit.exchanges.kalshi.user_messages import FillRow, OrderRow
from pmkit.exchanges.kalshi.user_types import fill, order_status
from pmkit.exchanges.market import FeeRule
from pmkit.exchanges.types import Fill, Liquidity, OrderState, OrderStatus, Side
from tests.real_data.report import Report

PLAIN = "quadratic"
RULES = {name: fee_rule(name, Decimal(1), "test") for name in MAKER_SHARES} | {
    f"{name} with the multiplier {multiplier}": fee_rule(name, Decimal(multiplier), "test")
    for multiplier in ("0.5", "2", "0")
    for name in MAKER_SHARES
}
"""Fee types, and multipliers of series that have another one. The first that fits all fills of a series is taken."""
TWICE = "the same fill is in another of the files as well"
OUTSIDE = "its other fills are before or after those in the files"
PAID_BACK = "an overcharge of the same order was paid back: its fees add up between the formula's raw and rounded sums"
FINER_FROM_MS = time_ms("2026-08-20T00:00:00Z", "first day on which release 3.29.0 may have been out")
FINER_BY_MS = time_ms("2026-09-03T00:00:00Z", "day by which it was")


class OddRow(ValueError):
    """A row that contradicts itself."""


def cells(row: dict[str, Any]) -> dict[str, Any]:
    """A CSV row without its empty cells."""
    return {name: value for name, value in row.items() if value != "" and value is not None}


def positioned(row: dict[str, Any]) -> tuple[str, Decimal]:
    """The outcome that a fill or order is positioned for, and its price. Raises OddRow where the columns disagree."""
    yes, no = Decimal(row["yes_price_dollars"]), Decimal(row["no_price_dollars"])
    outcome = YES if row["book_side"] == "bid" else NO
    if yes + no != 1:
        raise OddRow("YES and NO prices do not sum to 1")
    if row.get("outcome_side", outcome.lower()) != outcome.lower():
        raise OddRow("book_side and outcome_side disagree")
    return outcome, yes if outcome == YES else no


def quanta(at_ms: int) -> tuple[Decimal, ...]:
    """What trade fees were rounded up to at that time: both, around the change."""
    if at_ms < FINER_FROM_MS:
        return (QUANTUM,)
    return (TRADE_FEE_QUANTUM,) if at_ms >= FINER_BY_MS else (QUANTUM, TRADE_FEE_QUANTUM)


def check_fills(name: str, rows: Iterable[dict[str, Any]], seen: dict[str, str]) -> tuple[Report, list[Fill]]:
    """`seen`: ids of all files so far, with their file. Fills come back as purchases of the outcome they are for."""
    report = Report(name)
    good: list[Fill] = []
    here: set[tuple[str, str]] = set()
    for row in rows:
        label = str(row.get("trade_id"))[:8]
        try:
            outcome, price = positioned(row)
            one = fill(msgspec.convert(cells(row), FillRow, strict=False))
            if (one.outcome, one.side, one.price) != (outcome, Side.BUY, price):
                raise OddRow("the fill is not read in the terms of its own outcome")
            if row.get("fill_id", one.fill_id) != one.fill_id:
                raise OddRow("fill_id is not trade_id")
            if seen.setdefault(one.fill_id + one.order_id, name) != name:
                report.name_it(TWICE, label)
                continue
            if (one.fill_id, one.order_id) in here:
                raise OddRow("a fill twice")
        except (OddRow, RowError, msgspec.ValidationError, ArithmeticError, KeyError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], label)
            continue
        here.add((one.fill_id, one.order_id))
        good.append(one)
    by_series: dict[str, list[Fill]] = defaultdict(list)
    for one in good:
        by_series[series_of(one.market_id)].append(one)
    for series, fills in by_series.items():
        _check_series(report, series, fills)
    return report, good


def _check_series(report: Report, series: str, fills: Sequence[Fill]) -> None:
    """The plain rule for windows of a coin. Elsewhere the series' fee type is not in the file: one has to fit all."""
    rule = PLAIN
    if asset_of(series) is None:
        rule = next((name for name, one in RULES.items() if all(_exact(one, done) for done in fills)), PLAIN)
    of_order: dict[str, list[Fill]] = defaultdict(list)
    for done in fills:
        of_order[done.order_id].append(done)
    for done in fills:
        label = f"{series} {done.fill_id[:8]}"
        if _exact(RULES[PLAIN], done):
            report.explain()
        elif _exact(RULES[rule], done):
            other = "makers pay in this series" if "multiplier" not in rule else "another fee in this series"
            report.name_it(f"{other}: all its fills are exact as {rule}", label)
        elif _paid_back(RULES[rule], of_order[done.order_id]):
            report.name_it(PAID_BACK, label)
        else:
            report.fail("the fee is not the formula's", f"{label} charged {done.fee}")


def _paid_back(rule: FeeRule, fills: Sequence[Fill]) -> bool:
    """Since 3.29.0 an accumulator per order gives back what rounding took too much. It takes several fills."""
    if len(fills) < 2 or min(done.venue_ms for done in fills) < FINER_FROM_MS:
        return False
    rounded = [charge(rule, done.price, done.size, done.liquidity is Liquidity.MAKER) for done in fills]
    raw = [rule.raw(done.price, done.size, done.liquidity is Liquidity.MAKER) for done in fills]
    each = all(done.fee <= most for done, most in zip(fills, rounded, strict=True) if done.fee is not None)
    return each and sum(raw) <= sum(done.fee or Decimal(0) for done in fills) <= sum(rounded)


def _exact(rule: FeeRule, done: Fill) -> bool:
    maker = done.liquidity is Liquidity.MAKER
    return any(
        charge(rule, done.price, done.size, maker, trade_fee_quantum=quantum) == done.fee
        for quantum in quanta(done.venue_ms)
    )


def check_charges(name: str, rows: Iterable[dict[str, Any]]) -> Report:
    """Taker fees quoted with price and count, but without side and time: one of the two outcomes has to fit."""
    report = Report(name)
    for row in rows:
        price, count, charged = Decimal(row["price"]), Decimal(row["count"]), Decimal(row["fee_charged"])
        fits = {
            charge(RULES[PLAIN], side, count, trade_fee_quantum=quantum)
            for side in (price, 1 - price)
            for quantum in quanta(FINER_FROM_MS)
        }
        if charged in fits:
            report.explain()
        else:
            report.fail("the fee is not the formula's", f"{row['ticker']} charged {charged}")
    return report


def check_orders(name: str, rows: Iterable[dict[str, Any]], fills: Sequence[Fill], *, has_fills: bool) -> Report:
    """Each order by itself, and against its fills where a file of fills was given."""
    report = Report(name)
    of_order: dict[str, list[Fill]] = defaultdict(list)
    for one in fills:
        of_order[one.order_id].append(one)
    span = (min(one.venue_ms for one in fills), max(one.venue_ms for one in fills)) if fills else (0, 0)
    seen: set[str] = set()
    for row in rows:
        label = str(row.get("order_id"))[:8]
        try:
            outcome, limit = positioned(row)
            order = order_status(msgspec.convert(cells(row), OrderRow, strict=False))
            if (order.outcome, order.side, order.price) != (outcome, Side.BUY, limit):
                raise OddRow("the order is not read in the terms of its own outcome")
            if order.order_id in seen:
                raise OddRow("an order twice")
            seen.add(order.order_id)
            _check_order(order, row)
            mine = of_order.get(order.order_id, [])
            outside = order.created_ms < span[0] or order.updated_ms > span[1]
            if mine and outside and sum((one.size for one in mine), Decimal(0)) < order.filled_amount:
                report.name_it(OUTSIDE, label)
                continue
            if has_fills and (mine or not order.filled_amount):
                _check_sums(order, row, mine)
        except (OddRow, RowError, msgspec.ValidationError, ArithmeticError, KeyError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], label)
            continue
        if has_fills and order.filled_amount and not mine:
            report.name_it("its fills are in none of the files", label)
        else:
            report.explain()
    if not has_fills:
        report.notes.append("no file of fills was given: orders were checked by themselves, their fills not added up")
    return report


def _check_order(order: OrderStatus, row: dict[str, Any]) -> None:
    remaining = Decimal(row["remaining_count_fp"])
    if order.filled_amount + remaining > order.size:
        raise OddRow("more filled and remaining than was ordered")
    if order.status.terminal and remaining:
        raise OddRow("a finished order has something left")
    if order.status is OrderState.LIVE and not remaining:
        raise OddRow("a resting order has nothing left")
    if order.average_price is not None and order.average_price > order.price + Decimal("1e-20"):
        raise OddRow("filled at worse than its limit")
    cost = Decimal(row["taker_fill_cost_dollars"]) + Decimal(row["maker_fill_cost_dollars"])
    if bool(cost) != bool(order.filled_amount):
        raise OddRow("fills without cost, or cost without fills")
    if order.fee is None or (cost + order.fee) % QUANTUM:
        raise OddRow("cost and fees do not change the balance by whole $0.0001")


def _check_sums(order: OrderStatus, row: dict[str, Any], fills: Sequence[Fill]) -> None:
    if sum((one.size for one in fills), Decimal(0)) != order.filled_amount:
        raise OddRow("the fills do not add up to fill_count_fp")
    for word, liquidity in (("taker", Liquidity.TAKER), ("maker", Liquidity.MAKER)):
        part = [one for one in fills if one.liquidity is liquidity]
        if sum((one.price * one.size for one in part), Decimal(0)) != Decimal(row[f"{word}_fill_cost_dollars"]):
            raise OddRow(f"the {word} fills do not add up to their cost")
        if sum((one.fee for one in part), Decimal(0)) != Decimal(row[f"{word}_fees_dollars"]):
            raise OddRow(f"the {word} fills do not add up to their fees")
    for one in fills:
        if (one.market_id, one.outcome) != (order.market_id, order.outcome):
            raise OddRow("a fill in another market or of the other side")
        if one.price > order.price:
            raise OddRow("a fill at worse than the limit")
        if not order.created_ms <= one.venue_ms <= order.updated_ms:
            raise OddRow("a fill outside the life of its order")
