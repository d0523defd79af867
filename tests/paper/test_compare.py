"""A short share of the comparison of the dry-run with live orders; the whole: `python -m tests.paper.compare`."""

from __future__ import annotations

import asyncio

import pytest

from pmkit.exchanges.paper.queue import QueuePlace
from pmkit.sim.virtual import run
from tests.paper.compare import compare
from tests.paper.sessions import session
from tests.paper.twins import LATENCY, VENUES, twins


def test_the_same_orders_live_and_dry_run():
    """Takers equal to the last unit, makers in the band, on both venues."""
    for report in run(compare(7, VENUES, ("BTC",), takers=12, makers=14), seed=7, latency=LATENCY):
        assert sum(report.takers.values()) >= 12 and report.taker_fills >= 6
        assert report.taker_misses == []
        assert sum(report.makers.values()) >= 14
        assert report.in_band >= 0.95, report.maker_misses


def test_the_comparison_sees_a_dry_run_that_stands_first_in_every_queue(monkeypatch):
    monkeypatch.setattr(QueuePlace, "on_print", lambda place, size, now_ns, reach=None: size)
    (report,) = run(compare(7, ("kalshi",), ("BTC", "ETH"), takers=0, makers=24), seed=7, latency=LATENCY)
    assert report.in_band < 0.95


@pytest.mark.parametrize("void", [False, True], ids=["won or lost", "void"])
def test_the_money_of_a_session_is_the_same_to_the_last_unit(void):
    async def main():
        async with twins(2, ("BTC",), pace=0.5) as both:
            venues = ("polymarket",) if void else VENUES
            return await asyncio.gather(*(session(both, venue, "BTC", orders=12, void=void) for venue in venues))

    for money in run(main(), seed=2, latency=LATENCY):
        assert money.misses == []
        assert money.orders >= 8 and money.looks >= 4
        assert money.results[0] == money.results[1] != ""
        assert not void or money.results[0] == "0.5/0.5"
