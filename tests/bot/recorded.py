"""A bot on both local venues and Binance in virtual time, recorded."""

from __future__ import annotations

import logging
from pathlib import Path

from pmkit.bot.base import BaseBot
from pmkit.bot.decisions import Decisions
from pmkit.bot.record import About, recorder_of, run_recorded
from pmkit.clock import Entropy
from pmkit.data.binance.feed import BinanceFeed
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from tests.local import BOUNDARY_MS, listener

SEED = 3


def record(
    kind: type[BaseBot], path: Path, *, before: float = 60.0, after: float = 60.0, with_key: bool = True
) -> BaseBot:
    """Run a bot for so many seconds before and after a boundary, as a dry-run, into a recording."""

    async def main() -> BaseBot:
        clock = VirtualClock(BOUNDARY_MS - round(before * 1000), Entropy(SEED))
        async with LocalVenues(seed=SEED, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
            about = About(
                bot=kind.__name__,
                where="local",
                mode="dry-run",
                venues=["polymarket", "kalshi"],
                assets=["BTC"],
                candles="1s",
                keys=["kalshi"] if with_key else [],
            )
            signer = listener(venues) if with_key else None
            with recorder_of(path, clock, venues.endpoints, about) as recorder:
                exchanges = [
                    PaperExchange(PolymarketMarketData(venues.endpoints, clock)),
                    PaperExchange(KalshiMarketData(venues.endpoints, clock, signer=signer)),
                ]
                bot = kind(
                    exchanges,
                    ["BTC"],
                    feeds=[BinanceFeed(venues.endpoints, clock, ["BTCUSDT"], interval="1s")],
                    clock=clock,
                    trades=Decisions(clock, recorder.decision),
                    log=logging.getLogger("recorded"),
                )
                bot.venues = venues  # type: ignore[attr-defined]  # for bots that break them
                clock.call_later(before + after, lambda: bot.spawn(bot.stop(), critical=False))
                await run_recorded(bot, recorder, bot.start)
            assert recorder.lost == recorder.masked == 0
            assert venues.failures == []
            return bot

    return run(main(), seed=SEED, latency=0.001, jitter=0.004)
