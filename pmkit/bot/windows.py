"""`Window`: one asset on one venue, followed from market to market.

It finds the current market, subscribes to its books, finds and subscribes to the next one before the boundary and
switches exactly once. What goes wrong on the way (not listed yet, the metadata host is down) is a state with a reason,
not an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pmkit.errors import ConfigError, PmkitError
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import MarketStatus, NoMarket
from pmkit.streams import Subscription

if TYPE_CHECKING:
    import logging

    from pmkit.bot.own import OwnOrders

PREFETCH_SECONDS = 120.0
"""How long before the boundary the next market is looked for and subscribed to, in market time ..."""
PREFETCH_WALL_SECONDS = 4.0
"""... and at least this much wall time, since finding and subscribing take I/O time."""
RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
RETRY_WALL_SECONDS = 0.2
GRACE_SECONDS = 5.0
"""How long after the boundary the next market may still turn up before the bot is told that there is none."""


class Window:
    """The current and the next market of one asset on one venue. `run` follows them until it is cancelled.

    `on_switch(window, old, new, skipped)` is awaited once per change; `on_closing(window, market)` once per market,
    shortly before its close. `skipped` counts windows that passed unseen (a machine that slept).
    """

    def __init__(
        self,
        exchange: OwnOrders,
        asset: str,
        interval: str,
        *,
        log: logging.Logger,
        cancel_before_close: float,
        on_switch: Callable[[Window, Market | NoMarket | None, Market | NoMarket, int], Awaitable[None]],
        on_closing: Callable[[Window, Market], Awaitable[None]],
    ) -> None:
        self.exchange = exchange
        self.asset = asset
        self.interval = interval
        self.current: Market | NoMarket = NoMarket("not looked for yet")
        self.next: Market | NoMarket = NoMarket("not looked for yet")
        self.next_ready_ms: int | None = None
        self._log = log
        self._finder = exchange.finder()
        self._clock = exchange.clock
        self._cancel_before_close = cancel_before_close
        self._on_switch = on_switch
        self._on_closing = on_closing
        self._books: dict[str, Subscription[OrderBook]] = {}
        self._last_close_ms: int | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Time has passed unseen: look at the clock now."""
        self._woken.set()

    @property
    def name(self) -> str:
        """For messages: `polymarket BTC`."""
        return f"{self.exchange.venue} {self.asset}"

    @property
    def market(self) -> Market | NoMarket:
        """The current market as a strategy sees it: one whose close has passed is none, however late the switch is."""
        current = self.current
        if isinstance(current, Market) and self._now_ms() >= current.close_ms:
            return NoMarket(f"{current.label} is over, and the next market is not found yet")
        return current

    def _now_ms(self) -> int:
        return self.exchange.venue_clock.now_ms()

    async def start(self) -> None:
        """Find the current market and its books. Raises ConfigError for an asset the venue does not have."""
        found = await self._look(self._finder.get_current_market)
        if found:
            await self._subscribe(found)
        await self._switch(None, found)

    async def run(self) -> None:
        """Follow the markets for ever."""
        while True:
            market = self.current
            if isinstance(market, Market):
                await self._prefetch(market)
                await self._finish()
                await self._roll(self.current)
            else:
                await self._between(market)

    def update(self, market: Market) -> None:
        """The venue changed a market: its tick, strike, close, status or result."""
        if isinstance(self.current, Market) and self.current.market_id == market.market_id:
            moved = self.current.close_ms != market.close_ms
            self.current = market
            if moved:
                self._log.warning("%s: %s closes at %s now", self.name, market.label, market.close_time)
                self.wake()
        elif isinstance(self.next, Market) and self.next.market_id == market.market_id:
            self.next = market
        else:
            return
        self.exchange.rows.know(market)

    # -- one market ---------------------------------------------------------------------------------------------

    async def _prefetch(self, market: Market) -> None:
        """Find and subscribe to the next market while the current one still runs."""
        lead_ms = max(PREFETCH_SECONDS, PREFETCH_WALL_SECONDS * self._clock.factor) * 1000
        begin_ms = market.close_ms - round(min(lead_ms, (market.close_ms - market.open_ms) / 2))
        attempt = 0
        while not await self._subscribe(market) and self._now_ms() < begin_ms:
            await self._pause(attempt, limit_ms=begin_ms)
            attempt += 1
        await self._until(lambda: min(begin_ms, self._closing_ms()))
        attempt = 0
        while self._now_ms() < self._closing_ms():
            found = await self._look(self._finder.get_next_market)
            if isinstance(found, Market) and found.open_ms >= market.close_ms:
                self.next = found
                if await self._subscribe(found):
                    self.next_ready_ms = self._now_ms()
                    return
            elif isinstance(found, NoMarket):
                self.next = found
            await self._pause(attempt, limit_ms=self._closing_ms())
            attempt += 1

    async def _finish(self) -> None:
        """Wait for the close, wherever the venue moves it meanwhile."""
        await self._until(self._closing_ms)
        if isinstance(self.current, Market):
            await self._on_closing(self, self.current)
        await self._until(self._closes_ms)

    def _closes_ms(self) -> int:
        return self.current.close_ms if isinstance(self.current, Market) else 0

    def _closing_ms(self) -> int:
        return self._closes_ms() - round(self._cancel_before_close * 1000)

    async def _roll(self, market: Market | NoMarket) -> None:
        """The boundary has passed: switch to the market whose window holds now, or say that there is none."""
        if isinstance(market, NoMarket):
            return
        self._last_close_ms = market.close_ms
        following, self.next = self.next, NoMarket("not looked for yet")
        self.next_ready_ms = None
        attempt = 0
        while not (isinstance(following, Market) and following.open_ms <= self._now_ms() < following.close_ms):
            following = await self._look(self._finder.get_current_market)
            if isinstance(following, Market) and following.open_ms >= market.close_ms:
                await self._subscribe(following)
                break
            if isinstance(following, Market):
                following = NoMarket(f"the venue still shows {market.market_id}")
            if self._now_ms() > market.close_ms + max(GRACE_SECONDS, self._clock.factor) * 1000:
                break
            await self._pause(attempt)
            attempt += 1
        await self._switch(market, following)

    async def _between(self, reason: NoMarket) -> None:
        """No current market: look again until there is one."""
        attempt = 0
        while True:
            await self._pause(attempt)
            attempt += 1
            found = await self._look(self._finder.get_current_market)
            if isinstance(found, Market):
                await self._subscribe(found)
                await self._switch(reason, found)
                return
            self.current = found

    async def _switch(self, old: Market | NoMarket | None, new: Market | NoMarket) -> None:
        skipped = 0
        if isinstance(new, Market) and self._last_close_ms is not None:
            length = new.close_ms - new.open_ms
            skipped = max(0, (new.open_ms - self._last_close_ms) // length)
        self.current = new
        keep = new.market_id if isinstance(new, Market) else None
        for market_id in [known for known in self._books if known != keep]:
            await self._books.pop(market_id).close()
        if isinstance(new, NoMarket):
            self._log.warning("%s: no market now: %s", self.name, new.reason)
        await self._on_switch(self, old, new, skipped)

    # -- pieces -------------------------------------------------------------------------------------------------

    async def _look(self, find: Callable[[str, str], Awaitable[Market | NoMarket]]) -> Market | NoMarket:
        try:
            found = await find(self.asset, self.interval)
        except ConfigError:
            raise
        except PmkitError as error:
            self._log.warning("%s: looking for a market failed: %s", self.name, error)
            return NoMarket(str(error))
        if isinstance(found, Market) and found.status is MarketStatus.RESOLVED:
            return NoMarket(f"{found.market_id} is already resolved")
        return found

    async def _subscribe(self, market: Market) -> bool:
        if market.market_id in self._books:
            return True
        self.exchange.rows.know(market)
        try:
            self._books[market.market_id] = await self.exchange.subscribe_orderbook([market], _nothing)
        except PmkitError as error:
            self._log.warning("%s: no book of %s yet: %s", self.name, market.label, error)
            return False
        return True

    async def _until(self, moment_ms: Callable[[], int]) -> None:
        # In slices: the venue's clock may be corrected and the wall may step while waiting.
        while (left := (moment_ms() - self._now_ms()) / 1000) > 0:
            await self._rest(min(left, 30.0))

    async def _pause(self, attempt: int, limit_ms: int | None = None) -> None:
        seconds = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
        seconds = max(seconds, RETRY_WALL_SECONDS * self._clock.factor)
        if limit_ms is not None:
            seconds = min(seconds, max(0.0, (limit_ms - self._now_ms()) / 1000))
        await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        self._woken.clear()
        with suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await self._woken.wait()

    async def close(self) -> None:
        """Give up the books."""
        for subscription in [*self._books.values()]:
            await subscription.close()
        self._books.clear()


def _nothing(book: OrderBook) -> None:
    """The bot reads live books; it wants no event per change."""
