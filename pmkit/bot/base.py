"""`BaseBot`: the life cycle of a strategy.

A strategy overrides hooks and reads what the bot keeps for it; it never has to think of connecting, rolling over,
signals or cleaning up.

Rules written down once: a hook that raises is logged and counted and the bot goes on; `MAX_TICK_ERRORS` ticks in a row
that raise stop it. A background task that dies stops the bot, unless it was spawned with `critical=False`. At exit the
bot's own open orders are cancelled (`OPEN_ORDERS = "cancel"`) or reported by id. Nothing is read from disk at start:
the venue's orders, trades and positions are the truth.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pmkit.bot.decisions import TradeWriter
from pmkit.bot.ledger import MarketLedger
from pmkit.bot.life import HOOK_GRACE_SECONDS, KEPT_FOR_CLOSING, SLOW_SECONDS, Life
from pmkit.bot.own import OwnOrders
from pmkit.bot.windows import Window
from pmkit.clock import Clock
from pmkit.errors import ConfigError, PmkitError
from pmkit.exchanges.base import BaseExchange, asset_names
from pmkit.exchanges.market import Market, market_of
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import Fill, FillState, Intent, Liquidity, MarketResult, NoMarket
from pmkit.logging.csv_logger import TradeEvent

if TYPE_CHECKING:
    from pmkit.config.env import Settings
    from pmkit.data.binance.buffer import CandleBuffer
    from pmkit.data.binance.feed import BinanceFeed

V = TypeVar("V")

HOOKS = ("_on_start", "_tick", "_on_rollover", "_on_settled", "_on_stop")
KEEP_LEDGERS = 2_000
CANCEL_GRACE_SECONDS = 1.5
LOOK_UP_SECONDS = 0.8
CLOSE_GRACE_SECONDS = 1.2
KEPT_FOR_HOOK = 1.1
"""Shares of the exit budget of 5 s of wall time; the others are in `life`."""
AGAIN_SECONDS = 0.2
"""Wall seconds until own orders that could not be cancelled are cancelled once more."""

_FILL_EVENTS = {
    FillState.PENDING: TradeEvent.FILL,
    FillState.FINAL: TradeEvent.FILL_FINAL,
    FillState.FAILED: TradeEvent.FILL_FAILED,
}


class ByAsset(dict[tuple[str, str], V], Generic[V]):
    """Values by (venue, asset); with a single venue by asset alone as well."""

    def __missing__(self, key: object) -> V:
        venues = {venue for venue, _ in self}
        if isinstance(key, str) and len(venues) == 1:
            return self[(venues.pop(), key)]
        if isinstance(key, str) and venues:
            raise KeyError(f"{key!r}: with several venues use a pair, e.g. {(sorted(venues)[0], key)!r}")
        raise KeyError(f"{key!r}: there are {', '.join(map(repr, self)) or 'none yet'}")


class BaseBot(Life):
    """Subclass it, override the hooks, `await Bot(exchanges, assets).start()` or let `pmkit.run` do all of it.

    Hooks: `_on_start()`, `_tick()` every TICK_SECONDS (never two at once; missed ones are skipped and counted),
    `_on_rollover(asset, old, new)` once per asset and venue and change (`new` may be falsy), `_on_settled(asset,
    market, result, pnl)`, `_on_stop()`.
    """

    CANCEL_BEFORE_CLOSE: ClassVar[float] = 2.0
    OPEN_ORDERS: ClassVar[Literal["cancel", "leave"]] = "cancel"

    def __init__(
        self,
        exchanges: BaseExchange | Iterable[BaseExchange] | Mapping[str, BaseExchange],
        assets: Sequence[str],
        *,
        feeds: Sequence[BinanceFeed] = (),
        clock: Clock | None = None,
        settings: Settings | None = None,
        interval: str = "15m",
        trades: TradeWriter | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        if isinstance(exchanges, BaseExchange):
            exchanges = [exchanges]
        listed = list(exchanges.values()) if isinstance(exchanges, Mapping) else list(exchanges)
        if not listed or not assets:
            raise ConfigError("a bot needs at least one exchange and one asset")
        for hook in HOOKS:
            if not inspect.iscoroutinefunction(inspect.unwrap(getattr(type(self), hook))):
                raise ConfigError(f"{type(self).__name__}.{hook} is no coroutine: write `async def {hook}`")
        name = f"pmkit.bot.{type(self).__name__}"
        super().__init__(clock or listed[0].clock, log or logging.getLogger(name))
        self.assets = asset_names(assets)
        self.interval = interval
        self.feeds = tuple(feeds)
        self.settings = settings
        self.trades = trades
        self.exchanges: dict[str, OwnOrders] = {}
        for exchange in listed:
            if exchange.venue in self.exchanges:
                raise ConfigError(f"two exchanges of {exchange.venue}: a bot takes one per venue")
            self.exchanges[exchange.venue] = OwnOrders(exchange, trades)
        self.ledgers: dict[tuple[str, str], MarketLedger] = {}
        self._windows: dict[tuple[str, str], Window] = {}

    # -- hooks --------------------------------------------------------------------------------------------------

    async def _on_start(self) -> None:
        """Once, when markets and books are there, before the first tick."""

    async def _tick(self) -> None:
        """Every TICK_SECONDS."""

    async def _on_rollover(self, asset: str, old: Market | NoMarket, new: Market | NoMarket) -> None:
        """The market of an asset changed. Both may be falsy."""

    async def _on_settled(self, asset: str, market: Market, result: MarketResult, pnl: Decimal) -> None:
        """A market in which the bot had a fill, or whose window it saw, is resolved. `pnl` in dollars, fees
        included. Called again, with the profit that is right then, where a fill of it is heard of only later.
        """

    async def _on_stop(self) -> None:
        """Once, at the end, after the bot's orders were cancelled; connections still stand."""

    # -- what a strategy reads ----------------------------------------------------------------------------------

    @property
    def exchange(self) -> OwnOrders:
        """The only exchange. Raises ConfigError with several: use `self.exchanges["kalshi"]`."""
        if len(self.exchanges) > 1:
            raise ConfigError(
                f"this bot has several venues: use self.exchanges[...] with one of {list(self.exchanges)}"
            )
        return next(iter(self.exchanges.values()))

    @property
    def markets(self) -> ByAsset[Market | NoMarket]:
        """The current market by asset; with several venues by (venue, asset). Falsy where there is none now."""
        return ByAsset({key: window.market for key, window in self._windows.items()})

    @property
    def next_markets(self) -> ByAsset[Market | NoMarket]:
        """The next market, by the same keys; falsy until it is found, some time before the boundary."""
        return ByAsset({key: window.next for key, window in self._windows.items()})

    def book(self, market: Market, outcome: str) -> OrderBook:
        """The live book of an outcome. Look at `.valid` before using it."""
        return self._venue_of(market).book(market, outcome)

    def candles(self, asset: str) -> CandleBuffer:
        """The rolling candles of an asset, oldest first. Raises ConfigError where no feed has it."""
        from pmkit.data.binance.types import symbol_of

        symbol = symbol_of(asset)
        for feed in self.feeds:
            if symbol in feed.symbols:
                return feed.candles(symbol)
        raise ConfigError(f"no candle feed has {symbol}: give the bot a BinanceFeed with it (run(..., candles='1s'))")

    def seconds_remaining(self, market: Market) -> float:
        """Seconds until the market closes, venue time; negative afterwards."""
        venue = self._venue_of(market)
        return (market.close_ms - venue.venue_clock.now_ms()) / 1000

    def _venue_of(self, market: Market) -> OwnOrders:
        """The exchange of a market. Raises InvalidOrder where there is no market, ConfigError for a venue without."""
        own = market_of(Market, market, "this bot's venues")
        if own.venue not in self.exchanges:
            raise ConfigError(f"{own.label} is a market of {own.venue}: this bot has {' and '.join(self.exchanges)}")
        return self.exchanges[own.venue]

    def ledger(self, market: Market) -> MarketLedger:
        """Own fills of a market: shares, cash, fees, profit."""
        key = (market.venue, market.market_id)
        if key not in self.ledgers:
            while len(self.ledgers) >= KEEP_LEDGERS:
                self.ledgers.pop(next(iter(self.ledgers)))
            self.ledgers[key] = MarketLedger(market)
        return self.ledgers[key]

    async def _begin(self) -> None:
        await asyncio.gather(*(feed.start() for feed in self.feeds))
        for venue, exchange in self.exchanges.items():
            await exchange.__aenter__()
            await exchange.subscribe_fills(partial(self._fill, exchange))
            await exchange.subscribe_orders(exchange.note)
            await exchange.subscribe_markets(partial(self._market_changed, venue))
            for order in await exchange.get_open_orders():
                what = f"{order.side} {order.remaining} {order.outcome} {order.market_id} at {order.price}"
                self.log.warning("%s: the account has an open order already: %s (%s)", venue, what, order.order_id)
        for venue, exchange in self.exchanges.items():
            for asset in self.assets:
                self._windows[(venue, asset)] = Window(
                    exchange,
                    asset,
                    self.interval,
                    log=self.log,
                    cancel_before_close=self.CANCEL_BEFORE_CLOSE,
                    on_switch=self._switched,
                    on_closing=self._closing,
                )
        await asyncio.gather(*(window.start() for window in self._windows.values()))
        await self._hook("_on_start", self._on_start())
        for window in self._windows.values():
            self.spawn(window.run(), f"windows of {window.name}")

    # -- events -------------------------------------------------------------------------------------------------

    def _fill(self, exchange: OwnOrders, fill: Fill) -> None:
        # A settled market is not followed any more, and a fill of it may still be heard of, or be taken back.
        known = self.ledgers.get((exchange.venue, fill.market_id))
        market = exchange.rows.market(fill.market_id) or (known.market if known is not None else None)
        if not fill.own or market is None:
            self.stats.foreign_fills += 1
            self.log.warning("a fill of an order this bot did not place: %s (%s)", fill.fill_id, fill.order_id)
            return
        changed = self.ledger(market).apply(fill)
        first = changed and fill.state is not FillState.FAILED
        self.stats.fills += first
        exchange.rows.write(
            TradeEvent.FILL if first else _FILL_EVENTS[fill.state],
            fill.market_id,
            fill.outcome,
            side=fill.side,
            price=fill.price,
            filled=fill.size,
            fee=fill.fee,
            order_id=fill.order_id,
            client_order_id=fill.client_order_id,
            fill_id=fill.fill_id,
            liquidity=fill.liquidity,
            status=fill.state,
        )
        if first:
            maker = "maker" if fill.liquidity is Liquidity.MAKER else "taker"
            self.log.info(
                "fill: %s %s %s of %s at %s (%s, fee %s)",
                fill.side, fill.size, fill.outcome, market.label, fill.price, maker, fill.fee,
            )  # fmt: skip
        if changed and known is not None and known.result is not None:
            self.log.warning("%s: a fill was heard of, or taken back, after the result", market.label)
            settled = self._tell_result(exchange, market, known.result)
            self.spawn(settled, f"result of {market.market_id} again", critical=False)

    def _market_changed(self, venue: str, market: Market) -> None:
        for (of, _), window in self._windows.items():
            if of == venue:
                window.update(market)

    async def _switched(
        self, window: Window, old: Market | NoMarket | None, new: Market | NoMarket, skipped: int
    ) -> None:
        if isinstance(old, Market):
            self.spawn(self._settle(window, old), f"result of {old.market_id}", critical=False)
        if old is None:
            return
        self.stats.rollovers += 1
        self.stats.windows_skipped += skipped
        if skipped:
            self.log.warning("%s: %d windows passed unseen", window.name, skipped)
        shown = new.market_id if isinstance(new, Market) else ""
        window.exchange.rows.write(
            TradeEvent.ROLLOVER, shown, "", reason=f"from {old.market_id if isinstance(old, Market) else 'none'}"
        )
        # The market goes on, whatever the hook does: one that hangs must not keep the next orders from being cancelled.
        hook = self._hook("_on_rollover", self._on_rollover(window.asset, old, new))
        await self._patiently({self.spawn(hook, "_on_rollover", critical=False)}, SLOW_SECONDS)

    async def _closing(self, window: Window, market: Market) -> None:
        if self.OPEN_ORDERS == "cancel":
            # A cancel that hangs goes on beside the next market: the switch does not wait for it.
            left = max(0.0, self.seconds_remaining(market)) / self.clock.factor
            cancels = self._cancel_before_close(window, market)
            await self._patiently({self.spawn(cancels, f"cancels before {market.label}", critical=False)}, left)

    async def _cancel_before_close(self, window: Window, market: Market) -> None:
        exchange = window.exchange
        # Orders whose answer was lost, or was not waited for, may stand at the venue: they are looked up meanwhile.
        lookups = [
            self.spawn(self._look_up(exchange, intent), "look-up before the close", critical=False)
            for intent in exchange.unresolved
            if intent.order.market_id == market.market_id
        ]
        try:
            await exchange.cancel_own(market.market_id)
            # What is left had no clear answer, or cannot be cancelled yet: a cancel may be repeated.
            while self.seconds_remaining(market) > 0 and (
                exchange.resting(market.market_id) or not all(lookup.done() for lookup in lookups)
            ):
                await self.clock.io_sleep(AGAIN_SECONDS)
                await exchange.cancel_own(market.market_id)
        except PmkitError as error:
            self.log.error("%s: before the close of %s: %s", window.name, market.label, error)

    async def _settle(self, window: Window, market: Market) -> None:
        exchange = window.exchange
        result = await exchange.wait_result(market)
        self.stats.settled += 1
        await self._tell_result(exchange, market, result)
        exchange.forget(market.market_id)

    async def _tell_result(self, exchange: OwnOrders, market: Market, result: MarketResult) -> None:
        pnl = self.ledger(market).settle(result)
        exchange.rows.write(
            TradeEvent.SETTLED, market.market_id, result.winner or "", status=str(result), reason=f"pnl {pnl}"
        )
        name = f"{exchange.venue} {market.asset}"
        self.log.info("settled: %s %s -> %s, profit %s", name, market.label, result, pnl)
        await self._hook("_on_settled", self._on_settled(market.asset, market, result, pnl))

    # -- the end ------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        if not self.hurried:
            await self._bounded("cancelling own orders", self._leave_orders(), CANCEL_GRACE_SECONDS, kept=KEPT_FOR_HOOK)
            hook = self._hook("_on_stop", self._on_stop())
            await self._bounded("_on_stop", hook, HOOK_GRACE_SECONDS, kept=KEPT_FOR_CLOSING)
        for exchange in self.exchanges.values():
            for order_id, order in exchange.open.items():
                self.log.warning("%s: order %s may still be open (%s)", exchange.venue, order_id, order.market_id)
            for intent in exchange.unresolved:
                name = intent.order_id or intent.client_order_id
                self.log.error("%s: the outcome of order %s is unknown: it may stand", exchange.venue, name)
        parts: list[Any] = [*self._windows.values(), *self.feeds, *self.exchanges.values()]
        # Also after a second signal: connections that are left to the loop's end would break with tracebacks.
        closing = _gather(part.close() for part in parts)
        await self._bounded("closing", closing, CLOSE_GRACE_SECONDS, in_any_hurry=True)
        self._windows.clear()

    async def _leave_orders(self) -> None:
        if self.OPEN_ORDERS == "cancel":
            await asyncio.gather(*(self._leave_venue(exchange) for exchange in self.exchanges.values()))

    async def _leave_venue(self, exchange: OwnOrders) -> None:
        # Orders whose answer was lost, or was not waited for, may stand at the venue: they are looked up meanwhile.
        lookups = [self._look_up(exchange, intent) for intent in exchange.unresolved]
        try:
            await asyncio.gather(exchange.cancel_own(), *lookups)
            while exchange.resting():  # for as long as the exit budget lets it
                await exchange.cancel_own()
                await self.clock.io_sleep(AGAIN_SECONDS)
        except PmkitError as error:
            self.log.error("%s: cancelling at exit failed: %s", exchange.venue, error)

    async def _look_up(self, exchange: OwnOrders, intent: Intent) -> None:
        try:
            async with self.clock.io_timeout(LOOK_UP_SECONDS):
                await exchange.resolve_order(intent)
        except (PmkitError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            self.log.warning("%s: order %s: %s", exchange.venue, intent.client_order_id, why)

    def _resumed(self, seconds: float) -> None:
        for window in self._windows.values():
            window.wake()


async def _gather(steps: Iterable[Awaitable[None]]) -> None:
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
