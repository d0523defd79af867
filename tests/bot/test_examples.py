"""The example bots on both local venues in virtual time: they trade, and leave nothing open."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal

import pytest

from examples import cross_venue
from examples.market_maker import MarketMakerBot
from examples.order_flow import OrderFlowBot
from examples.updown_bot import UpDownBot
from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy
from pmkit.config.secret import Secret
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.kalshi.auth import HandshakeSigner, Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run

START = 1_795_176_600_000  # five minutes before a boundary
MODES = pytest.mark.parametrize("live", [False, True], ids=["dry-run", "live"])


def exchanges_of(venues: LocalVenues, clock: VirtualClock, live: bool) -> list[BaseExchange]:
    key, account = venues.kalshi_key, venues.polymarket_account
    if not live:
        signer = HandshakeSigner.from_key(key.id, key.pem)
        return [
            PaperExchange(PolymarketMarketData(venues.endpoints, clock)),
            PaperExchange(KalshiMarketData(venues.endpoints, clock, signer=signer)),
        ]
    return [
        PolymarketExchange(
            venues.endpoints,
            clock,
            private_key=Secret(account.private_key),
            funder=account.funder,
            signature_type=account.signature_type,
        ),
        KalshiExchange(venues.endpoints, clock, signer=Signer.from_key(key.id, key.pem)),
    ]


def played(kind: type[BaseBot], live: bool, minutes: float) -> BaseBot:
    """A bot after so many minutes, checked for what every bot owes."""

    seed, assets = 3, ("BTC",)

    async def main() -> BaseBot:
        clock = VirtualClock(START, Entropy(seed))
        async with LocalVenues(seed=seed, assets=assets, clock=clock, steps_per_wall_second=1.0) as venues:
            bot = kind(exchanges_of(venues, clock, live), assets, clock=clock)

            async def stop_later() -> None:
                await clock.sleep(minutes * 60)
                await bot.stop()

            stopping = asyncio.create_task(stop_later())
            await bot.start()
            await stopping
            assert venues.failures == []
            stats = bot.stats
            assert (stats.tick_errors, stats.hook_errors, stats.task_errors, stats.foreign_fills) == (0, 0, 0, 0)
            assert stats.rollovers >= 2
            assert not any(exchange.open or exchange.unresolved for exchange in bot.exchanges.values())
            return bot

    return run(main(), seed=seed, latency=0.001, jitter=0.004)


def test_updown_bot():
    bot = played(UpDownBot, live=True, minutes=8)
    assert bot.stats.fills and bot.stats.settled


@MODES
def test_order_flow_knows_what_every_order_brought(live, caplog):
    caplog.set_level(logging.INFO)
    bot = played(OrderFlowBot, live, 8)
    told = [record.message for record in caplog.records if " shares at " in record.message]
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
