"""`python -m tests.paper.compare`: the same orders live and dry-run, on two venues of one seed (see `twins`).

Takers are compared fill by fill: price, size, fee, and cash, held-back cash, positions and payout over the session, to
the last unit. Makers: what the live order filled up to its end lies between what the pessimistic and the optimistic
dry-run filled. Every order that was placed is counted; every difference is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.clock import Entropy
from pmkit.exchanges.market import Market
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.types import Fill, Liquidity, OrderId, Side, TimeInForce
from pmkit.sim.virtual import run
from tests.paper.intents import maker, place, taker, told
from tests.paper.sessions import Money, session
from tests.paper.twins import LATENCY, VENUES, Flow, Party, Twins, twins

ASSETS = ("BTC", "ETH", "SOL", "XRP")
MODELS = tuple(QueueModel)
LAST_SECONDS = 45.0
TOLD_SECONDS = 1.5


@dataclass(slots=True)
class Report:
    """What was seen on one venue."""

    venue: str
    takers: Counter = field(default_factory=Counter)
    taker_fills: int = 0
    taker_misses: list[str] = field(default_factory=list)
    makers: Counter = field(default_factory=Counter)
    filled: Counter = field(default_factory=Counter)
    maker_misses: list[str] = field(default_factory=list)
    band: Decimal = Decimal(0)
    killed: int = 0

    @property
    def in_band(self) -> float:
        count = sum(self.makers.values())
        return 1 - len(self.maker_misses) / count if count else 1.0


def by_level(fills: Sequence[Fill]) -> dict[Decimal, Decimal]:
    """Shares by price."""
    found: dict[Decimal, Decimal] = {}
    for fill in fills:
        found[fill.price] = found.get(fill.price, Decimal(0)) + fill.size
    return found


async def taker_trial(both: Twins, report: Report, markets: tuple[Market, Market, Flow], entropy: Entropy) -> None:
    venue, (live_market, dry_market, flow) = report.venue, markets
    live, paper = both.live[venue], both.papers[venue][QueueModel.MIDDLE]
    books = [both.data[venue].book(dry_market, outcome) for outcome in dry_market.outcomes]
    held = {p.outcome: p.confirmed for p in await paper.exchange.get_positions_by_market_id(dry_market.market_id)}
    ask = taker(entropy, dry_market, books, held)
    if ask is None or not all(book.valid for book in books):
        return
    report.takers[ask.kind] += 1
    answers = await asyncio.gather(place(live.exchange, live_market, ask), place(paper.exchange, dry_market, ask))
    await both.clock.io_sleep(TOLD_SECONDS)
    seen: list[tuple[object, ...]] = []
    for side, answer in zip((live, paper), answers, strict=True):
        rows: tuple[object, ...] = told(answer)
        if isinstance(answer, OrderId):
            fills = [fill for fill in side.fills.get(answer, ()) if fill.liquidity is Liquidity.TAKER]
            status = await side.exchange.get_order_status(answer)
            rows += (by_level(fills), sum((fill.fee for fill in fills), Decimal(0)), status.size)
            if ask.time_in_force is not TimeInForce.GTC or ask.market:
                rows += (status.status, status.filled_amount)
            if not status.status.terminal:
                await side.exchange.cancel_order(answer)
        seen.append(rows)
    if isinstance(answers[0], OrderId):
        report.taker_fills += len([f for f in live.fills.get(answers[0], ()) if f.liquidity is Liquidity.TAKER])
    if seen[0] != seen[1]:
        report.taker_misses.append(f"{ask}\n    live    {seen[0]}\n    dry-run {seen[1]}\n    {answers}")
    await both.clock.io_sleep(0.2)
    heal(both, venue, flow)


def heal(both: Twins, venue: str, flow: Flow) -> None:
    """The live books become those of the dry-run's venue; the dry-run forgets what it took of them, too."""
    flow.heal()
    for side in both.papers[venue].values():
        side.exchange._matcher._taken = type(side.exchange._matcher._taken)()  # type: ignore[attr-defined]


async def maker_trial(both: Twins, report: Report, markets: tuple[Market, Market, Flow], entropy: Entropy) -> None:
    venue, (live_market, dry_market, flow) = report.venue, markets
    sides = {"live": both.live[venue], **{model.value: both.papers[venue][model] for model in MODELS}}
    books = [both.data[venue].book(dry_market, outcome) for outcome in dry_market.outcomes]
    asks = [maker(entropy, dry_market, books) for _ in range(2 if entropy.random() < 0.3 else 1)]
    group = [ask for ask in asks if ask is not None]
    if len({(ask.side is Side.BUY) == (ask.outcome == dry_market.outcomes[0]) for ask in group}) > 1:
        # What keeps others' quotes out on one side moves the other side of the live market: one side at a time.
        del group[1:]
    if not group or not all(book.valid for book in books):
        return
    answers: dict[str, list] = {name: [] for name in sides}

    async def enter(name: str, side: Party) -> None:
        market = live_market if name == "live" else dry_market
        answers[name] = await asyncio.gather(*(place(side.exchange, market, ask) for ask in group))

    await asyncio.gather(*(enter(name, side) for name, side in sides.items()))
    await both.clock.io_sleep(entropy.uniform(1.0, 25.0))

    async def leave(name: str, side: Party) -> None:
        await asyncio.gather(*(side.exchange.cancel_order(a) for a in answers[name] if isinstance(a, OrderId)))

    await asyncio.gather(*(leave(name, side) for name, side in sides.items()))
    await both.clock.io_sleep(TOLD_SECONDS)
    for index, ask in enumerate(group):
        report.makers[ask.kind] += 1
        filled: dict[str, Decimal] = {}
        for name, side in sides.items():
            answer = answers[name][index]
            filled[name] = (
                sum((fill.size for fill in side.fills.get(answer, ())), Decimal(0))
                if isinstance(answer, OrderId)
                else Decimal(-1)
            )
        low, high = filled[QueueModel.PESSIMISTIC], filled[QueueModel.OPTIMISTIC]
        report.band += high - low
        what = "whole" if filled["live"] == ask.size else "part" if filled["live"] > 0 else "nothing"
        report.filled[what] += 1
        report.filled["live is the middle"] += filled["live"] == filled[QueueModel.MIDDLE]
        report.filled["no width"] += low == high
        if not (low <= filled["live"] <= high and low <= filled[QueueModel.MIDDLE] <= high):
            why = "; ".join(
                both.papers[venue][model].exchange.explain(fill.fill_id)  # type: ignore[attr-defined]
                for model in MODELS
                for fill in both.papers[venue][model].fills.get(answers[model.value][index], ())
            )
            live_fills = [
                f"{fill.size} at {fill.venue_ms}" for fill in sides["live"].fills.get(answers["live"][index], ())
            ]
            amounts = ", ".join(f"{name} {size:f}" for name, size in filled.items())
            report.maker_misses.append(
                f"{ask}, one of {len(group)}: {amounts}\n    live fills: {live_fills}\n    {why}\n   {answers}"
            )
    await both.clock.io_sleep(0.2)
    heal(both, venue, flow)


async def lane(both: Twins, report: Report, asset: str, wanted: dict[str, int], entropy: Entropy) -> None:
    """Trials on one market after the other, until there were enough."""
    while True:
        what = "takers" if sum(report.takers.values()) < wanted["takers"] else "makers"
        if what == "makers" and sum(report.makers.values()) >= wanted["makers"]:
            return
        markets = await both.market(report.venue, asset)
        left = (markets[0].close_ms - both.clock.now_ms()) / 1000
        if left < LAST_SECONDS:
            await both.clock.io_sleep(left + 2.0)
            continue
        if what == "takers":
            await taker_trial(both, report, markets, entropy)
        else:
            await maker_trial(both, report, markets, entropy)
        await both.clock.io_sleep(entropy.uniform(0.3, 3.0))


async def compare(
    seed: int, venues: Sequence[str], assets: Sequence[str], *, takers: int, makers: int, reacting: bool = False
) -> list[Report]:
    """Both kinds of trials, on all markets at the same time. `takers`, `makers`: orders per venue."""
    reports = [Report(venue) for venue in venues]
    async with twins(seed, assets, reacting=reacting) as both:
        await asyncio.gather(
            *(
                lane(
                    both, report, asset, {"takers": takers, "makers": makers}, Entropy(f"{seed} {report.venue} {asset}")
                )
                for report in reports
                for asset in assets
            )
        )
        for report in reports:
            report.killed = sum(flow.killed for (venue, _), flow in both._flows.items() if venue == report.venue)
    return reports


def sessions(seed: int, *, void: bool) -> list[Money]:
    """One session on each venue (of a void one: on Polymarket)."""

    async def main() -> list[Money]:
        async with twins(seed, ("BTC",), pace=1.0) as both:
            venues = ("polymarket",) if void else VENUES
            return await asyncio.gather(*(session(both, venue, "BTC", orders=24, void=void) for venue in venues))

    return run(main(), seed=seed, latency=LATENCY)


def show(report: Report) -> None:
    print(f"== {report.venue}")
    print(
        f"takers {sum(report.takers.values())}: {len(report.taker_misses)} differ, {report.taker_fills} live fills; "
        f"{dict(report.takers)}"
    )
    print(
        f"makers {sum(report.makers.values())}: {report.in_band:.2%} in the band; {dict(report.makers)}; "
        f"live {dict(report.filled)}; mean width {report.band / max(1, sum(report.makers.values())):.2f} shares; "
        f"quotes of others that the live orders kept out: {report.killed}"
    )
    for name in ("taker", "maker"):
        for miss in getattr(report, f"{name}_misses"):
            print(f"-- {name}: {miss}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1000, help="makers per venue")
    parser.add_argument("--takers", type=int, default=300, help="takers per venue")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--venues", nargs="+", default=list(VENUES), choices=VENUES)
    parser.add_argument("--assets", nargs="+", default=list(ASSETS))
    parser.add_argument("--sessions", type=int, default=0, help="whole sessions per venue, every second one void")
    parser.add_argument("--reacting", action="store_true", help="the live venue's traders see the live orders")
    given = parser.parse_args()
    reports = run(
        compare(
            given.seed, given.venues, given.assets, takers=given.takers, makers=given.orders, reacting=given.reacting
        ),
        seed=given.seed,
        latency=LATENCY,
    )
    for report in reports:
        show(report)
    money = [row for number in range(given.sessions) for row in sessions(given.seed + number, void=number % 2 == 1)]
    for row in money:
        print(
            f"session on {row.venue}: {row.orders} orders ({row.resting} resting), {row.looks} looks at both accounts, "
            f"{'; '.join(row.misses) or 'all equal'}; ended {row.results[0]}"
        )
    bad = any(row.misses for row in money) or any(report.taker_misses or report.in_band < 0.95 for report in reports)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
