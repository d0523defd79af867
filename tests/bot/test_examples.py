"""The example bots on both local venues in virtual time: they trade, and leave nothing open."""

from __future__ import annotations

from decimal import Decimal

import pytest

from examples import cross_venue
from examples.market_maker import MarketMakerBot
from examples.order_flow import OrderFlowBot
from examples.updown_bot import UpDownBot
from pmkit.bot.base import BaseBot
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local

MODES = pytest.mark.parametrize("live", [False, True], ids=["dry-run", "live"])


def played(kind: type[BaseBot], live: bool, minutes: float) -> BaseBot:
    """A bot after so many minutes, checked for what every bot owes."""

    async def story(bot: BaseBot, venues: LocalVenues) -> None:
        await bot.clock.sleep(minutes * 60)

    bot = on_local(kind, live, story)
    stats = bot.stats
    assert (stats.tick_errors, stats.hook_errors, stats.task_errors, stats.foreign_fills) == (0, 0, 0, 0)
    assert stats.rollovers >= 2
    assert not any(exchange.open or exchange.unresolved for exchange in bot.exchanges.values())
    return bot


def test_updown_bot():
    bot = played(UpDownBot, live=True, minutes=8)
    assert bot.stats.fills and bot.stats.settled


@MODES
def test_order_flow_knows_what_every_order_brought(live):
    bot = played(OrderFlowBot, live, 8)
    told = [line for line in bot.log.lines if " shares at " in line]
    assert len(told) == len(bot.tried) == 4, told
    bought = sum(sum(ledger.shares.values()) for ledger in bot.ledgers.values())
    assert bought == sum(Decimal(line.split()[1]) for line in told)


@MODES
def test_market_maker_quotes_both_sides_and_takes_them_away(live):
    bot = played(MarketMakerBot, live, 8)
    makers = {ledger.market.venue for ledger in bot.ledgers.values() if ledger.maker_fills}
    assert makers == {"polymarket", "kalshi"}
    assert not any(ledger.taker_fills for ledger in bot.ledgers.values()), "its quotes are post-only"
    for exchange in bot.exchanges.values():
        assert exchange.placed > 10


def test_cross_venue_buys_the_same_number_of_both_legs(monkeypatch):
    monkeypatch.setattr(cross_venue, "MARGIN", Decimal("-0.05"))  # the local venues leave nothing for free
    bot = played(cross_venue.CrossVenueBot, live=False, minutes=8)
    assert bot.done
    bought: dict[int, list[tuple[str, Decimal]]] = {}
    for ledger in bot.ledgers.values():
        bought.setdefault(ledger.market.close_ms, []).extend(ledger.shares.items())
    assert {(asset, close) for asset in bot.assets for close in bought} == bot.done
    for (up, size), (down, other) in bought.values():
        assert {up, down} in ({"UP", "NO"}, {"DOWN", "YES"})
        assert abs(size - other) < Decimal("0.01"), "Polymarket fills a market order by its dollars"
