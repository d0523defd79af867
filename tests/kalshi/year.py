"""The finder over months of 15-minute boundaries, against the local venue in virtual time.

    python -m tests.kalshi.year [--start 2026-02-20] [--days 365]

At every boundary the finder is asked shortly before, at it and after it, and each answer is held against windows that
are told here from the rules alone: quarters of an hour, none in the Thursday maintenance of New York, and of the hour
that an autumn night repeats only the first pass. Ends with what was seen, and 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from pmkit.clock import Entropy, to_ms
from pmkit.endpoints import Endpoints, Where
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import MarketStatus, NoMarket
from pmkit.sim.kalshi.venue import KalshiVenue
from pmkit.sim.kalshi.windows import Window
from pmkit.sim.virtual import VirtualClock, run
from pmkit.sim.world import World

NEW_YORK = ZoneInfo("America/New_York")
QUARTER = timedelta(minutes=15)
THURSDAY = 3
ASSET = "BTC"


def listed(opened: datetime) -> bool:
    """Whether a window that opens then exists."""
    local, closed = opened.astimezone(NEW_YORK), (opened + QUARTER).astimezone(NEW_YORK)
    return not (local.weekday() == THURSDAY and local.hour in (3, 4)) and not closed.fold


def reopens(moment: datetime) -> datetime | None:
    """The end of the maintenance that a moment lies in."""
    local = moment.astimezone(NEW_YORK)
    if local.weekday() == THURSDAY and local.hour in (3, 4):
        return local.replace(hour=5, minute=0, second=0, microsecond=0).astimezone(UTC)
    return None


@dataclass
class Walk:
    """`problems` is everything that was wrong, `counts` what was seen."""

    venue: KalshiVenue
    finder: KalshiMarketFinder
    clock: VirtualClock
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def wrong(self, what: str, found: object) -> None:
        self.problems.append(f"{self.clock.now():%Y-%m-%d %H:%M:%S}: {what}: {found}"[:300])

    async def until(self, moment: datetime) -> None:
        while (left := to_ms(moment) - self.clock.now_ms()) > 0:
            await self.clock.sleep(left / 1000)

    def check(self, what: str, found: Market | NoMarket, opened: datetime, status: MarketStatus) -> KalshiMarket | None:
        """The answer for the window that opens then. The market, where there is one."""
        if isinstance(found, NoMarket):
            self.counts[f"none: {found.reason}"] += 1
            if listed(opened):
                self.wrong(f"{what} is none", found)
            elif (until := reopens(opened)) is not None and found.until != until:
                self.wrong(f"{what} should come back at {until}", found)
            return None
        if not listed(opened):
            self.wrong(f"{what} should be none", found)
        elif (found.open_time, found.close_time, found.status) != (opened, opened + QUARTER, status):
            self.wrong(f"{what} should open at {opened}", (found.market_id, found.open_time, found.status))
        assert isinstance(found, KalshiMarket) and found.asset == ASSET
        return found

    async def boundary(self, opened: datetime) -> None:
        """Shortly before a window opens, at its open, when its strike is there, and in its middle."""
        await self.until(opened - timedelta(seconds=5))
        following = self.check(
            "the next market", await self.finder.get_next_market(ASSET), opened, MarketStatus.UPCOMING
        )
        if listed(opened):
            smart = await self.finder.get_smart_market(ASSET, lead=10)
            self.check("the smart market", smart, opened, MarketStatus.UPCOMING)
        await self.until(opened)
        current = self.check("the market", await self.finder.get_current_market(ASSET), opened, MarketStatus.OPEN)
        if (current and current.ticker) != (following and following.ticker):
            self.wrong("the next market did not become the current one", (following, current))
        await self.until(opened + timedelta(seconds=3))
        current = self.check("the market", await self.finder.get_current_market(ASSET), opened, MarketStatus.OPEN)
        if current is not None:
            self.counts["windows"] += 1
            strike = self.venue.calendar.strike(Window(ASSET, current.close_ms))
            if strike is None or current.strike != Decimal(str(strike)):
                self.wrong(f"the strike should be {strike}", (current.ticker, current.strike))
        await self.until(opened + timedelta(minutes=7))
        self.check("the market", await self.finder.get_current_market(ASSET), opened, MarketStatus.OPEN)


async def _walk(start: datetime, days: float) -> Walk:
    clock = VirtualClock(to_ms(start - QUARTER), Entropy(1))
    venue = KalshiVenue(World(1, clock, (ASSET,)), clock, steps_per_wall_second=1e-6)
    tells = asyncio.Event()

    async def no_index(*_: object) -> None:
        await tells.wait()  # nobody listens to it here, and a second is too short a step for a year

    venue._feed.index = no_index  # type: ignore[method-assign]
    async with venue:
        endpoints = Endpoints(where=Where.LOCAL, kalshi=venue.endpoints(), clock="manual")
        async with KalshiMarketData(endpoints, clock) as data:
            walk = Walk(venue, data.finder(), clock)
            opened = start
            while opened < start + timedelta(days=days):
                await walk.boundary(opened)
                opened += QUARTER
                walk.counts["boundaries"] += 1
            walk.problems += venue.failures
            return walk


def walk(start: datetime, days: float) -> Walk:
    """Boundaries from `start` on, in virtual time."""
    return run(_walk(start, days), seed=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", default="2026-02-20", help="a day, UTC")
    parser.add_argument("--days", type=float, default=365)
    given = parser.parse_args()
    began = time.perf_counter()
    done = walk(datetime.fromisoformat(given.start).replace(tzinfo=UTC), given.days)
    for problem in done.problems[:30]:
        print(f"WRONG: {problem}")
    print(dict(done.counts), f"{time.perf_counter() - began:.0f} s")
    print(f"{len(done.problems)} wrong" if done.problems else "nothing wrong")
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
