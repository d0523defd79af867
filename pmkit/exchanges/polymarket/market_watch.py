"""What changes in a market while it is followed: status, price step, result and strike.

The window opens and closes by the clock alone; the price step comes over the socket; the result is asked for after the
end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import PmkitError
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.catalogue import Catalogue
from pmkit.exchanges.polymarket.settlement import Settlement
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.streams import Subscription

_LOG = logging.getLogger("pmkit.polymarket")

LINGER_SECONDS: Final = 3 * 3600.0
"""Market seconds for which a closed market is asked about its result; the measured maximum is under three minutes."""

SLICE_SECONDS: Final = 30.0
MAX_SEEN: Final = 200


class MarketWatch:
    """Follows every market that anybody subscribed to, for the subscribers of `subscribe_markets`.

    A market is followed until it is resolved, also when its books are not subscribed any more.
    """

    def __init__(self, catalogue: Catalogue, settlement: Settlement, clock: Clock) -> None:
        self.subscriptions: list[Subscription[Market]] = []
        self._catalogue = catalogue
        self._settlement = settlement
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, PolymarketMarket] = {}
        catalogue.on_change = self._changed

    def follow(self, market: PolymarketMarket) -> None:
        """Somebody subscribed to this market."""
        self._seen.setdefault(market.market_id, market)
        if len(self._seen) > MAX_SEEN:
            limit = self._catalogue.now_ms() - LINGER_SECONDS * 1000
            self._seen = {key: seen for key, seen in self._seen.items() if seen.close_ms > limit or key in self._tasks}
        if self.subscriptions:
            self._start(market)

    def add(self, subscription: Subscription[Market]) -> None:
        """One more subscriber: from now on all followed markets are watched."""
        self.subscriptions.append(subscription)
        for market in list(self._seen.values()):
            self._start(market)

    async def remove(self, subscription: Subscription[Market]) -> None:
        """One subscriber less; without any nothing is watched."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
        if not self.subscriptions:
            await self._stop()

    async def close(self) -> None:
        """End everything."""
        await self._stop()
        self._seen.clear()

    async def _stop(self) -> None:
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, market: PolymarketMarket) -> None:
        if market.market_id not in self._tasks:
            name = f"pmkit watch {market.slug}"
            self._tasks[market.market_id] = asyncio.get_running_loop().create_task(self._watch(market), name=name)

    def _changed(self, market: PolymarketMarket) -> None:
        if market.market_id in self._seen:
            for subscription in list(self.subscriptions):
                subscription.publish(market)

    async def _watch(self, market: PolymarketMarket) -> None:
        try:
            for moment in (market.open_ms, market.close_ms):
                if await self._until(moment):
                    self._refresh(market)
            async with self._clock.timeout(LINGER_SECONDS):
                await self._settlement.wait(market)
        except TimeoutError:
            _LOG.error("%s: no result within three hours of its end; it is followed no more", market.slug)
        except PmkitError as error:
            _LOG.error("%s: its result cannot be asked for: %s", market.slug, error)
        finally:
            if self._tasks.get(market.market_id) is asyncio.current_task():
                del self._tasks[market.market_id]
                self._seen.pop(market.market_id, None)

    async def _until(self, moment_ms: int) -> bool:
        """Wait for a moment of venue time, in slices: that clock may be corrected. False where it has passed."""
        waited = False
        while (left := (moment_ms - self._catalogue.now_ms()) / 1000) > 0:
            waited = True
            await self._clock.sleep(min(left, SLICE_SECONDS))
        return waited

    def _refresh(self, market: PolymarketMarket) -> None:
        """The status that the clock gives it now; storing it tells the subscribers."""
        self._catalogue.store(self._catalogue.known(market.market_id) or market.at(self._catalogue.now_ms()))
