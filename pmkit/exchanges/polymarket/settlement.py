"""How markets ended: Gamma first, then the CLOB's winner, asked until one of them says so.

A window is resolved about a minute after its end (measured: half within 54 s, all within 162 s); Gamma's answers may be
cached for a minute longer. `market_resolved` on the socket asks at once. Redeeming needs the chain's word as well.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import NotSent, RateLimited, VenueUnavailable
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.catalogue import Catalogue, market_row
from pmkit.exchanges.polymarket.resolution import clob_payouts, gamma_payouts, known_strike
from pmkit.exchanges.polymarket.types import PolymarketMarket, same_condition
from pmkit.exchanges.types import MarketResult

_LOG = logging.getLogger("pmkit.polymarket")

POLLS: Final = (2.0, 4.0, 8.0, 15.0)
"""Market seconds between two questions; the last one repeats."""

MIN_POLL_SECONDS: Final = 0.2
"""Wall seconds between two questions, however fast market time runs."""


class _Wait:
    """One market that is asked about, for however many callers."""

    __slots__ = ("callers", "poke", "task")

    def __init__(self) -> None:
        self.callers = 0
        self.poke = asyncio.Event()
        self.task: asyncio.Task[PolymarketMarket] | None = None


class Settlement:
    """Results of markets. `polls` counts the questions asked, `failed` those that got no answer."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self.polls = 0
        self.failed = 0
        self._catalogue = catalogue
        self._clock = clock
        self._waits: dict[str, _Wait] = {}

    async def wait(self, market: Market) -> MarketResult:
        """Wait until the result is published. Callers share the questions; cancelling one leaves the others alone.

        Queries that fail are repeated; raises what cannot be waited out (RegionBlocked, ProtocolChanged, AuthError).
        """
        known = self._catalogue.known(market.market_id)
        if known is None or known.payouts is None:
            known = await self._shared(known or _own(market))
        assert known.payouts is not None
        return MarketResult(market.market_id, known.outcomes, known.payouts)

    def poke(self, market_id: str) -> None:
        """The socket says that this market was resolved: ask at once."""
        wait = self._waits.get(market_id)
        if wait is not None:
            wait.poke.set()

    async def close(self) -> None:
        """End all waiting; callers are cancelled."""
        tasks = [wait.task for wait in self._waits.values() if wait.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _shared(self, market: PolymarketMarket) -> PolymarketMarket:
        wait = self._waits.get(market.market_id)
        if wait is None or wait.task is None or wait.task.done():
            wait = self._waits[market.market_id] = _Wait()
            name = f"pmkit result of {market.slug}"
            wait.task = asyncio.get_running_loop().create_task(self._ask_until_known(market, wait), name=name)
        task = wait.task
        assert task is not None
        wait.callers += 1
        try:
            return await asyncio.shield(task)
        finally:
            wait.callers -= 1
            if not wait.callers:
                if self._waits.get(market.market_id) is wait:
                    del self._waits[market.market_id]
                if not task.done():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    async def _ask_until_known(self, market: PolymarketMarket, wait: _Wait) -> PolymarketMarket:
        left = (market.close_ms - self._catalogue.now_ms()) / 1000
        await self._pause(wait, left)
        step = 0
        while True:
            self.polls += 1
            try:
                resolved = await self._ask(market)
            except (VenueUnavailable, RateLimited, NotSent) as error:
                self.failed += 1
                _LOG.warning("%s: its result could not be asked for (%d failures): %s", market.slug, self.failed, error)
                resolved = None
            if resolved is not None:
                return resolved
            await self._pause(wait, POLLS[min(step, len(POLLS) - 1)])
            step += 1

    async def _pause(self, wait: _Wait, seconds: float) -> None:
        """Market seconds, cut short by `poke`, but never below the least wall time."""
        if seconds <= 0:
            return
        await self._clock.io_sleep(MIN_POLL_SECONDS)
        rest = seconds / self._clock.factor - MIN_POLL_SECONDS
        if rest > 0:
            try:
                async with self._clock.io_timeout(rest):
                    await wait.poke.wait()
            except TimeoutError:
                return
        wait.poke.clear()

    async def _ask(self, market: PolymarketMarket) -> PolymarketMarket | None:
        """Gamma by slug, then the CLOB; None while neither knows."""
        catalogue = self._catalogue
        event = await catalogue.event(market.slug)
        strike = known_strike(event, catalogue.now_ms() >= market.close_ms)
        payouts = None
        if event is not None:
            row = market_row(event)
            if same_condition(row.condition_id or "", market.condition_id):
                payouts = gamma_payouts(row, market.outcomes)
        if payouts is None:
            answer = await catalogue.clob_market(market.condition_id)
            payouts = None if answer is None else clob_payouts(answer, market)
        if payouts is None:
            return None
        latest = catalogue.known(market.market_id) or market
        return catalogue.store(latest.resolved(payouts, strike))


def _own(market: Market) -> PolymarketMarket:
    if not isinstance(market, PolymarketMarket):
        raise TypeError(f"{market.market_id} is a market of {market.venue}, not of Polymarket")
    return market
