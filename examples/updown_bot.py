"""Follow the 15-minute Up/Down markets: buy the favourite late, rest a bid below the touch early.

    python examples/updown_bot.py

Asks where (local needs nothing and no network) and in which mode, then shows one line per market until Ctrl-C. A
starting point for a strategy of your own, not a way to make money.
"""

from decimal import Decimal

from pmkit import BaseBot, InvalidOrder, Market, OrderRejected, Side, TimeInForce, run
from pmkit.bot.status import StatusLine, describe

ORDER_SIZE_USD = Decimal("5")
LAST_SECONDS = 120
FAVOURITE = Decimal("0.70")
QUOTE_BELOW = Decimal("0.02")
QUOTE_UNTIL_SECONDS = 180


class UpDownBot(BaseBot):
    status = StatusLine()  # there also when the start fails

    async def _on_start(self):
        self.taken = set()
        self.quoted = set()

    async def _tick(self):
        shown = []
        for market in self.markets.values():
            shown.append(describe(self, market))
            if market:
                await self.trade(market)
        self.status.show(*shown)

    async def trade(self, market: Market):
        left = self.seconds_remaining(market)
        for outcome in market.outcomes:
            book = self.book(market, outcome)
            if not book.valid or book.best_ask is None or book.best_bid is None:
                continue
            try:
                if left <= LAST_SECONDS:
                    await self.take(market, outcome, book)
                elif left > QUOTE_UNTIL_SECONDS:
                    await self.quote(market, outcome, book)
            except (InvalidOrder, OrderRejected) as error:
                self.log.warning("%s %s: %s", market.label, outcome, error)

    async def take(self, market, outcome, book):
        if market.market_id in self.taken or not FAVOURITE <= book.best_ask <= Decimal("0.97"):
            return
        self.taken.add(market.market_id)
        exchange = self.exchanges[market.venue]
        order_id = await exchange.place_market_order(
            market, outcome, Side.BUY, worst_price=market.ceil_price(book.best_ask), amount=ORDER_SIZE_USD
        )
        self.log.info(
            "took %s of %s: %s shares (%s)", outcome, market.label, order_id.filled_amount, order_id.status
        )

    async def quote(self, market, outcome, book):
        key = (market.market_id, outcome)
        if key in self.quoted or book.best_bid - QUOTE_BELOW < Decimal("0.20"):
            return
        self.quoted.add(key)
        price = market.floor_price(book.best_bid - QUOTE_BELOW)
        size = market.size_for(ORDER_SIZE_USD, price, maker=True)
        exchange = self.exchanges[market.venue]
        await exchange.place_limit_order(
            market, outcome, Side.BUY, price, size, time_in_force=TimeInForce.GTC, post_only=True
        )

    async def _on_rollover(self, asset, old, new):
        self.log.info("%s: %s -> %s", asset, old and old.label, new.label if new else new.reason)

    async def _on_settled(self, asset, market, result, pnl):
        self.log.info("%s %s ended %s: profit %s", asset, market.label, result, pnl)

    async def _on_stop(self):
        self.status.clear()


if __name__ == "__main__":
    run(UpDownBot)
