"""The same window on both venues: when one up and one down together cost less than the dollar they pay, buy both.

    python examples/cross_venue.py

Polymarket and Kalshi settle on different indices and averages, so the two sides are not the same bet: near the strike
both can lose. That is why this one is for a dry-run. It shows how a bot holds two venues.
"""

from decimal import Decimal

from pmkit import BaseBot, PmkitError, Side, run

ORDER_SIZE_USD = Decimal("10")
MARGIN = Decimal("0.02")
LAST_SECONDS = 30
UP = {"polymarket": "UP", "kalshi": "YES"}
DOWN = {"polymarket": "DOWN", "kalshi": "NO"}


class CrossVenueBot(BaseBot):
    async def _on_start(self):
        self.done = set()

    async def _tick(self):
        for asset in self.assets:
            here, there = self.markets["polymarket", asset], self.markets["kalshi", asset]
            if not here or not there or here.close_ms != there.close_ms:
                continue
            if self.seconds_remaining(here) > LAST_SECONDS and (asset, here.close_ms) not in self.done:
                await self.compare(asset, here, there)
                await self.compare(asset, there, here)

    async def compare(self, asset, up, down):
        """Up in one market and down in the other, where that is cheap enough."""
        legs = [(up, UP[up.venue]), (down, DOWN[down.venue])]
        books = [self.book(market, outcome) for market, outcome in legs]
        if any(not book.valid or book.best_ask is None for book in books):
            return
        asks = [book.best_ask for book in books]
        cost = sum(market.break_even(ask) for (market, _), ask in zip(legs, asks, strict=True))
        if cost > 1 - MARGIN or (asset, up.close_ms) in self.done:
            return
        self.done.add((asset, up.close_ms))
        try:
            # Of both the same number of shares, legal in both and there at that price.
            sizes = [market.size_for(ORDER_SIZE_USD, ask) for (market, _), ask in zip(legs, asks, strict=True)]
            size = min(*sizes, *(book.best_ask_size for book in books))
            # Polymarket takes a buy for whole cents only: ten shares at any price, one at whole cents.
            step = 1 if all(ask == round(ask, 2) for ask in asks) else 10
            size = size // step * step
            for (market, outcome), ask in zip(legs, asks, strict=True):
                order_id = await self.exchanges[market.venue].place_market_order(
                    market, outcome, Side.BUY, worst_price=ask, size=size
                )
                self.log.info("%s of %s at %s: %s", outcome, market.label, ask, order_id.filled_amount)
        except PmkitError as error:
            self.log.warning("%s: one leg is missing, and stays so: %s", asset, error)


if __name__ == "__main__":
    run(CrossVenueBot, venues=["polymarket", "kalshi"])
