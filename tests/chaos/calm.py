"""What must hold when it is calm again: everything is live, and the bot's idea of its account is the venue's."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pmkit.data.binance.feed import BinanceFeed
from pmkit.errors import PmkitError
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import FillState
from tests.chaos.trader import Attempt

if TYPE_CHECKING:
    from tests.chaos.invariants import Watch

MONEY = Decimal("0.000001")
CENT = Decimal("0.01")
COMPARED_CANDLES = 40
BOUNDARY_SECONDS = 1.5
"""How much the bot's idea of the current market may lag at a boundary, beside what its clock is wrong by."""


class Calm:
    """Asked by the session, once, after the last fault."""

    def __init__(self, watch: Watch) -> None:
        self.bot = watch.bot
        self.truth = watch.truth
        self.clock = watch.clock
        self.live = watch.live
        self.counts = watch.counts
        self.violated = watch.violated

    def _attempts(self, venue: str) -> list[Attempt]:
        return [attempt for attempt in self.bot.said.attempts if attempt.venue == venue]

    async def calm(self) -> None:
        """Everything is live again: books, candles, streams, account. Queries must be answered, and tell the truth."""
        bot = self.bot
        if self.clock.now_ms() % 900_000 < 1000 * BOUNDARY_SECONDS * self.clock.factor:
            await self.clock.io_sleep(BOUNDARY_SECONDS)  # in the very moment of a switch there may be no market
        for key, market in bot.markets.items():
            if not isinstance(market, Market):
                self.violated("no current market in the calm phase", f"{key}: {market.reason}")
                continue
            for outcome in market.outcomes:
                if not bot.book(market, outcome).valid:
                    self.violated("an invalid book in the calm phase", f"{key} {bot.book(market, outcome).reason}")
        for feed in bot.feeds:
            for symbol in feed.symbols:
                late = self.clock.now_ms() - (feed.candles(symbol).last_ms or 0)
                if late > 2 * step_of(feed) + 5_000 * max(1.0, self.clock.factor):
                    self.violated("candles are late in the calm phase", f"{symbol} by {late} ms")
                await self._candle_numbers(feed, symbol)
        if not self.live:
            return
        for venue, exchange in bot.exchanges.items():
            if exchange.unresolved:
                self.violated("orders are unresolved in the calm phase", f"{venue} {len(exchange.unresolved)}")
            try:
                await self._account(venue)
            except PmkitError as error:
                self.violated("a query failed in the calm phase", f"{venue} {type(error).__name__}: {error}")

    async def _candle_numbers(self, feed: BinanceFeed, symbol: str) -> None:
        last = {candle.timestamp: candle for candle in feed.candles(symbol)[-COMPARED_CANDLES:]}
        true = await self.truth.candles(symbol, feed.interval, list(last), self.clock)
        for opened, own in last.items():
            numbers = true.get(opened)
            told = tuple(round(1e8 * one) for one in (own.open, own.high, own.low, own.close, own.volume))
            if numbers is not None and told != numbers:
                self.violated("a candle with other numbers", f"{symbol} {opened} {told} {numbers}")
        self.counts["candles compared"] += len(true)

    async def _account(self, venue: str) -> None:
        exchange, truth = self.bot.exchanges[venue], self.truth
        standing = {order.order_id for order in truth.orders(venue) if order.open}
        listed = {status.order_id for status in await exchange.get_open_orders()}
        if listed != standing:
            self.violated("open orders differ from the venue's", f"{venue} {len(listed)} {len(standing)}")
        if set(exchange.open) != standing:
            self.violated(
                "the bot's own open orders differ from the venue's",
                f"{venue} {sorted(set(exchange.open) ^ standing)}, of which {len(standing)} stand there",
            )
        await exchange.cancel_own()
        await self._cash(venue)
        for market in self.bot.markets.values():
            if isinstance(market, Market) and market.venue == venue and self.bot.seconds_remaining(market) > 20:
                await self.bot.take(market)
        await self.clock.io_sleep(5.0)
        positions = await exchange.get_positions()
        for market in self.bot.markets.values():
            if isinstance(market, Market) and market.venue == venue:
                told = {
                    position.outcome: position.size
                    for position in positions
                    if position.market_id == market.market_id and position.size
                }
                if told != (held := truth.positions(venue, market.market_id)):
                    self.violated("positions differ from the venue's", f"{venue} {told} {held}")

    async def _cash(self, venue: str) -> None:
        """Trades may be mined while the venue answers: then what was and what is are both right."""
        exchange, truth = self.bot.exchanges[venue], self.truth
        was, balance, now = truth.cash(venue), await exchange.get_balance(), truth.cash(venue)
        if not min(was, now) - CENT <= balance <= max(was, now) + CENT:
            self.violated("the balance differs from the venue's", f"{venue} {balance} {was} {now}")
        for market in self.bot.markets.values():
            if isinstance(market, Market) and market.venue == venue:
                free, told = truth.spendable(venue), await exchange.get_balance(market)
                if told > max(free, truth.spendable(venue)) + CENT:
                    self.violated("more can be spent than there is", f"{venue} {told} {free}")

    async def last_orders(self) -> None:
        """An order on each venue is accepted, and the stream tells of it. They rest when the bot is stopped."""
        resting: list[Attempt] = []
        for market in self.bot.markets.values():
            if isinstance(market, Market) and self.bot.seconds_remaining(market) > 20 * self.clock.factor**0.5:
                resting.append(await self.bot.rest(market))
        await self.clock.io_sleep(2.0)
        told = {status.order_id for status in self.bot.said.orders}
        for attempt in resting:
            self.counts["last orders"] += 1
            if attempt.result != "accepted":
                self.violated("an order was not accepted in the calm phase", f"{attempt.venue} {attempt.error}")
            elif attempt.order_id not in told:
                self.violated("the stream did not tell of an order in the calm phase", attempt.venue)

    def fills_equal(self) -> None:
        """Each fill of the venue was delivered, in its last state, and nothing else was."""
        for venue in self.bot.exchanges:
            markets = {attempt.market.market_id for attempt in self._attempts(venue)}
            told: dict[tuple[str, str], dict[str, object]] = {}
            for fill in self.bot.said.fills:
                if fill.market_id in markets:
                    told.setdefault((fill.fill_id, fill.order_id), {})[fill.state] = fill
            truth = {(fill.fill_id, fill.order_id): fill for fill in self.truth.fills(venue)}
            mine = {attempt.market.market_id for attempt in self._attempts(venue)}
            for key, fill in truth.items():
                states = told.pop(key, None)
                if states is None:
                    self.violated(f"a fill was never delivered ({venue})", key)
                    continue
                some = next(iter(states.values()))
                if some.size != fill.size or abs(some.fee - fill.fee) > MONEY:
                    self.violated(
                        f"a fill with other numbers ({venue})", f"{some.size} {some.fee} {fill.size} {fill.fee}"
                    )
                if fill.price not in (some.price, 1 - some.price):
                    self.violated(f"a fill at another price ({venue})", f"{some.price} {fill.price}")
                if fill.final and (FillState.FAILED if fill.failed else FillState.FINAL) not in states:
                    self.violated(f"the last state of a fill was never delivered ({venue})", f"{key} {set(states)}")
                if not fill.failed and FillState.FAILED in states:
                    self.violated(f"a fill that stands was taken back ({venue})", key)
            if left := [key for key, states in told.items() if next(iter(states.values())).market_id in mine]:
                self.violated(f"fills that never were ({venue})", left[:3])

    def ledger_equal(self) -> None:
        """The bot's own books of shares agree with the venue's fills."""
        for venue in self.bot.exchanges:
            cash: dict[str, Decimal] = {}
            for fill in self.truth.fills(venue):
                if not fill.failed:
                    cash[fill.market_id] = cash.get(fill.market_id, Decimal(0)) + fill.fee
            for (of, market_id), ledger in self.bot.ledgers.items():
                if of == venue and abs(ledger.fees - cash.get(market_id, Decimal(0))) > MONEY:
                    self.violated("the ledger's fees differ", f"{venue} {ledger.fees} {cash.get(market_id)}")


def step_of(feed: BinanceFeed) -> int:
    return {"1s": 1_000, "1m": 60_000}[feed.interval]
