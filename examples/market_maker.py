"""Quote both sides of every window: a bid for each outcome, moved with the book, taken away before the end.

    python examples/market_maker.py

A bid for DOWN at 0.44 is an ask for UP at 0.56, so two bids are a two-sided quote that needs no shares to sell, on both
venues. While the bot runs, the venue's own switch is on: where this process falls silent, the venue cancels
its orders (Polymarket's heartbeat; on Kalshi an order group). A starting point, not a way to make money.
"""

from contextlib import AsyncExitStack
from decimal import Decimal

from pmkit import BaseBot, CancelUnknown, NotSent, Order, OrderId, OrderUnknown, PmkitError, Side, run

QUOTE_USD = Decimal("5")
EDGE = Decimal("0.02")  # below the middle of the book
MOVE = Decimal("0.01")  # a quote that is this far off is moved
MAX_SHARES = Decimal("60")  # of one outcome more than of the other
QUIET_SECONDS = 90  # before the close: no quotes
LOWEST, HIGHEST = Decimal("0.05"), Decimal("0.95")


class MarketMakerBot(BaseBot):
    async def _on_start(self):
        self.quotes = {}  # (market id, outcome) -> (order id, price)
        self.switches = AsyncExitStack()
        for exchange in self.exchanges.values():
            await self.switches.enter_async_context(exchange.dead_man())

    async def _tick(self):
        for market in self.markets.values():
            if not market:
                continue
            for outcome in market.outcomes:
                try:
                    await self.quote(market, outcome)
                except PmkitError as error:
                    self.log.warning("%s %s: %s", market.label, outcome, error)

    def wanted(self, market, outcome):
        """The price to bid, None for none."""
        book = self.book(market, outcome)
        shares = self.ledger(market).shares
        ahead = shares.get(outcome, 0) - shares.get(market.opposite(outcome), 0)
        if not book.valid or book.mid is None or ahead >= MAX_SHARES or self.seconds_remaining(market) < QUIET_SECONDS:
            return None
        price = book.mid - EDGE
        return market.floor_price(price) if LOWEST <= price <= HIGHEST else None

    async def quote(self, market, outcome):
        exchange = self.exchanges[market.venue]
        key = (market.market_id, outcome)
        price = self.wanted(market, outcome)
        order_id, held = self.quotes.get(key, (None, None))
        if order_id is not None and order_id not in exchange.open:  # filled, or cancelled by the venue
            order_id = None
            del self.quotes[key]
        if order_id is not None and (price is None or abs(price - held) >= MOVE):
            if price is None:
                await exchange.cancel_order(order_id)
                return  # the next tick sees whether it is gone
            (result,) = await exchange.replace_orders([order_id], [self.order(market, outcome, price)])
            await self.placed(exchange, key, price, result)
        elif order_id is None and price is not None:
            (result,) = await exchange.place_orders([self.order(market, outcome, price)])
            await self.placed(exchange, key, price, result)

    def order(self, market, outcome, price):
        size = market.size_for(QUOTE_USD, price, maker=True)
        return Order(
            market_id=market.market_id, outcome=outcome, side=Side.BUY, price=price, size=size, post_only=True
        )

    async def placed(self, exchange, key, price, result):
        """Keep what a leg gave: an order id, or why there is none."""
        if isinstance(result, OrderId):
            self.quotes[key] = (result, price)
        elif isinstance(result, CancelUnknown | NotSent):
            self.log.warning("%s: the old quote may still stand, it is tried again: %s", key, result)
        else:
            self.quotes.pop(key, None)
            self.log.info("%s: no quote: %s", key, result)
            if isinstance(result, OrderUnknown):  # never a second one before it is known what became of the first
                found = await exchange.resolve_order(result.intent)
                if order_id := getattr(found, "order_id", None):
                    self.quotes[key] = (order_id, price)

    async def _on_stop(self):
        await self.switches.aclose()


if __name__ == "__main__":
    run(MarketMakerBot)
