"""What must hold around the end of a market: ticks, orders, the next books, the result."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Side
from tests.chaos.trader import Attempt

if TYPE_CHECKING:
    from tests.chaos.invariants import Watch

CLOSED_SECONDS = 1.0
"""By how much the venue's time, as the bot knows it, may be wrong: the stamps it is measured by are whole seconds."""
READY_SECONDS = 3.0
CALM_BOUNDARY_SECONDS = 60.0
CENT = Decimal("0.01")


class Boundaries:
    """Looks at a bot for `watch`. `quiet` of the watch says for how long no fault has been at work."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._looked: set[str] = set()
        self._slack_ms = 1000 * (CLOSED_SECONDS * max(1.0, watch.clock.factor) + watch.wrong_clock)
        watch.bot.before_tick = self.before_tick
        watch.bot.before_order = self.before_order

    def before_tick(self) -> None:
        """No tick sees a closed market, or one that has not begun."""
        watch, now = self.watch, self.watch.clock.now_ms()
        watch.counts["ticks looked at"] += 1
        for key, market in watch.bot.markets.items():
            if isinstance(market, Market) and self._over(market, now):
                watch.counts["ticks on a closed market"] += 1
                watch.violated("a tick on a closed market", f"{key} {market.market_id} by {now - market.close_ms} ms")

    def before_order(self, attempt: Attempt) -> None:
        """Orders are for markets that trade."""
        now = self.watch.clock.now_ms()
        if self._over(attempt.market, now):
            late = now - attempt.market.close_ms
            self.watch.violated("an order for a closed market", f"{attempt.market.market_id} by {late} ms")

    def _over(self, market: Market, now: int) -> bool:
        late = now - market.close_ms
        if 0 < late < 60_000:
            self.watch.counts["most ms after a close"] = max(self.watch.counts["most ms after a close"], late)
        return late > self._slack_ms or now < market.open_ms - self._slack_ms

    def step(self) -> None:
        """Where nothing was wrong for a while: the next books are valid before the boundary, and no own order stands
        in a market in its last moment.
        """
        watch = self.watch
        factor = watch.clock.factor
        for key, market in watch.bot.markets.items():
            if not isinstance(market, Market):
                continue
            left = (market.close_ms - watch.clock.now_ms()) / 1000 / factor
            calm = watch.quiet() >= CALM_BOUNDARY_SECONDS / factor**0.5
            if READY_SECONDS - 1 <= left <= READY_SECONDS and market.market_id not in self._looked:
                self._looked.add(market.market_id)
                if calm:
                    watch.counts["calm boundaries"] += 1
                    self._next_books(key)
            if calm and watch.live and not watch.bot.busy and 0 < left * factor < watch.bot.CANCEL_BEFORE_CLOSE - 1:
                for order in watch.truth.orders(market.venue):
                    if order.open and order.market_id == market.market_id:
                        watch.violated("an order stands in a market that closes", f"{market.venue} {order.order_id}")

    def _next_books(self, key: object) -> None:
        bot = self.watch.bot
        following = bot.next_markets[key]
        if not isinstance(following, Market) or not all(
            bot.book(following, outcome).valid for outcome in following.outcomes
        ):
            self.watch.violated("the next book was not ready before a calm boundary", f"{key} {following}"[:200])

    def settled(self) -> None:
        """Each result is the venue's, and the profit is what the account really won or lost."""
        watch = self.watch
        last = {
            (market.venue, market.market_id): (market, result, pnl) for market, result, pnl in watch.bot.said.settled
        }
        for market, result, pnl in last.values():
            watch.counts["results compared"] += 1
            up = watch.truth.went_up(market)
            winner = market.outcomes[0 if up else 1]
            if getattr(result, "winner", None) != winner:
                watch.violated("a market with another result", f"{market.market_id} {result}, not {winner}")
                continue
            if not watch.live:
                continue
            won = Decimal(0)
            for fill in watch.truth.fills(market.venue):
                if fill.market_id == market.market_id and not fill.failed:
                    sign = 1 if fill.side is Side.BUY else -1
                    won += sign * fill.size * ((fill.outcome == winner) - fill.price) - fill.fee
            if abs(won - pnl) > CENT:
                watch.violated("the profit of a market differs", f"{market.venue} {market.market_id} {pnl} {won}")
