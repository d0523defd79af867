"""Whole sessions on the twins: the money of the live account and of the dry-run, to the last unit.

A session takes, rests bids that nothing reaches, and cancels, through a window of each venue; at quiet moments, at the
end and after the result both accounts are read as a user reads them. `void` makes Polymarket's window pay half a dollar
to each outcome. What the live account wins on Polymarket is redeemed on the venue's ledger, as the dry-run redeems by
itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.clock import Entropy
from pmkit.exchanges.market import Market
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.types import OrderId
from tests.paper.intents import TAKERS, low_bid, place, taker
from tests.paper.twins import Flow, Party, Twins

ONLY_TAKING = tuple(kind for kind in TAKERS if kind != "gtc that crosses")
MINED_SECONDS = 15.0
"""A match is mined and told of within this, and a low bid is in the venue's lists."""


@dataclass(slots=True)
class Money:
    """What was compared, and where it differed."""

    venue: str
    orders: int = 0
    resting: int = 0
    looks: int = 0
    paid: Decimal = Decimal(0)
    results: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)


async def look(both: Twins, money: Money, markets: tuple[Market, Market, Flow], when: str) -> None:
    """Both accounts as a user sees them: cash, what can be spent, open orders, positions, history."""
    money.looks += 1
    seen = []
    for party, market in zip(_parties(both, money.venue), markets[:2], strict=True):
        exchange = party.exchange
        positions = await exchange.get_positions()
        history: dict[tuple[object, ...], list[Decimal]] = {}
        for row in await exchange.get_trade_history():
            # Of one order and price: Kalshi fills maker by maker, which no book shows.
            sums = history.setdefault((row.outcome, row.side, row.price, row.result), [Decimal(0)] * 3)
            for place_, number in enumerate((row.size, row.fee, row.pnl or Decimal(0))):
                sums[place_] += number
        seen.append(
            {
                "cash": await exchange.get_balance(),
                "to spend": await exchange.get_balance(market),
                "open": sorted((s.outcome, s.price, s.remaining) for s in await exchange.get_open_orders()),
                "positions": sorted((p.outcome, p.size) for p in positions),
                "history": history,
            }
        )
    for name in seen[0]:
        if seen[0][name] != seen[1][name]:
            money.misses.append(f"{when}: {name}\n    live    {seen[0][name]}\n    dry-run {seen[1][name]}")


def _parties(both: Twins, venue: str) -> tuple[Party, Party]:
    return both.live[venue], both.papers[venue][QueueModel.MIDDLE]


async def session(both: Twins, venue: str, asset: str, *, orders: int, void: bool = False) -> Money:
    """One window of one venue, from now to its result."""
    money = Money(venue)
    entropy = Entropy(f"session {both.seed} {venue} {asset}")
    markets = await both.market(venue, asset)
    live_market, dry_market, flow = markets
    live, paper = _parties(both, venue)
    books = [both.data[venue].book(dry_market, outcome) for outcome in dry_market.outcomes]
    standing: list[tuple[OrderId, OrderId]] = []
    pause = max(4.0, (live_market.close_ms - both.clock.now_ms() - 200_000) / 1000 / orders - 3.0)
    for number in range(orders):
        ask = low_bid(entropy, dry_market, books) if entropy.random() < 0.2 else None
        if ask is None:
            held = {p.outcome: p.confirmed for p in await paper.exchange.get_positions()}
            ask = taker(entropy, dry_market, books, held, ONLY_TAKING)
        if ask is None:
            continue
        money.orders += 1
        one, two = await asyncio.gather(place(live.exchange, live_market, ask), place(paper.exchange, dry_market, ask))
        await both.clock.io_sleep(1.0)
        if ask.kind == "low bid":
            if not (isinstance(one, OrderId) and isinstance(two, OrderId)):
                money.misses.append(f"{ask}: {one} {two}")
                continue
            money.resting += 1
            standing.append((one, two))
            if len(standing) > 2:
                pair = standing.pop(entropy.randint(0, 1))
                await asyncio.gather(*(p.exchange.cancel_order(i) for p, i in zip((live, paper), pair, strict=True)))
        flow.heal()
        paper.exchange._matcher._taken = type(paper.exchange._matcher._taken)()  # type: ignore[attr-defined]
        if number % 6 == 5:
            await both.clock.io_sleep(MINED_SECONDS)
            await look(both, money, markets, f"after {number + 1} orders")
        await both.clock.io_sleep(pause)
    await both.clock.io_sleep(MINED_SECONDS)
    await look(both, money, markets, "before the end")
    if void:
        make_void(both, live_market.market_id)
    before = await paper.exchange.get_balance()
    await both.clock.io_sleep((live_market.close_ms - both.clock.now_ms()) / 1000)
    for party, market in zip((live, paper), markets[:2], strict=True):
        money.results.append(str(await party.exchange.wait_result(market)))
    await both.clock.io_sleep(60.0)
    if venue == "polymarket":
        redeem(both, live_market, void)
    await both.clock.io_sleep(MINED_SECONDS)
    await look(both, money, markets, "after the result")
    money.paid = await paper.exchange.get_balance() - before
    return money


def redeem(both: Twins, market: Market, void: bool) -> None:
    """The live account's shares become what they pay, on the venue's ledger."""
    world = both.worlds[0]
    venue = world.polymarket
    window = venue.listings.find(market.market_id)
    account = venue.accounts.find(world.polymarket_account.funder)
    up = venue.rows.went_up(window)
    pays = (500_000, 500_000) if void else (1_000_000, 0) if up else (0, 1_000_000)
    venue.accounts.redeem(account, window.condition_id, dict(zip(window.tokens, pays, strict=True)))


def make_void(both: Twins, market_id: str) -> None:
    """Both venues' Gamma says half and half when that window is resolved."""
    for world in both.worlds:
        rows = world.polymarket.rows
        prices = rows._prices

        def half(window, closed, bid, ask, prices=prices):
            if closed and window.condition_id == market_id:
                return ["0.5", "0.5"]
            return prices(window, closed, bid, ask)

        rows._prices = half
