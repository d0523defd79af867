"""One order from beginning to end: place it, wait for its fill, cancel what is left, and know what was bought.

    python examples/order_flow.py

pmkit never sends an order twice, never waits for a fill and never retries: that is a strategy's. This is how it is
done. Every branch a live order can take is in `buy`, in the order in which it can happen.
"""

import asyncio
from decimal import Decimal

from pmkit import Accepted, BaseBot, CancelUnknown, InvalidOrder, NotSent, OrderRejected, OrderUnknown, Side, run

ORDER_SIZE_USD = Decimal("5")
FILL_SECONDS = 20
ASK_AGAIN_SECONDS = 1
NOT_BEFORE_CLOSE = 60


class OrderFlowBot(BaseBot):
    async def _on_start(self):
        self.tried = set()
        self.done = {}  # order id -> an event that is set when the order is over
        for exchange in self.exchanges.values():
            await exchange.subscribe_orders(self.order_changed)

    def order_changed(self, status):
        if status.status.terminal and status.order_id in self.done:
            self.done[status.order_id].set()

    async def _tick(self):
        for market in self.markets.values():
            if not market or market.market_id in self.tried or self.seconds_remaining(market) < NOT_BEFORE_CLOSE:
                continue
            outcome = market.outcomes[0]
            book = self.book(market, outcome)
            if book.valid and book.best_bid is not None:
                self.tried.add(market.market_id)
                # In a task of its own: the ticks go on. Its failure is logged and does not stop the bot.
                self.spawn(self.buy(market, outcome, book.best_bid), f"order in {market.label}", critical=False)

    async def buy(self, market, outcome, price):
        """Bid `price`, and say how many shares that brought."""
        exchange = self.exchanges[market.venue]
        try:
            order_id = await exchange.place_limit_order(
                market, outcome, Side.BUY, price, market.size_for(ORDER_SIZE_USD, price, maker=True)
            )
        except (InvalidOrder, NotSent, OrderRejected) as error:
            self.log.warning("%s: nothing was placed: %s", market.label, error)
            return
        except OrderUnknown as error:
            order_id = await self.resolve(exchange, error.intent)
            if order_id is None:
                self.log.warning("%s: the order did not reach the venue", market.label)
                return
        if not await self.over_within(exchange, order_id, FILL_SECONDS):
            await self.cancel(exchange, order_id)
        status = await exchange.get_order_status(order_id)
        self.log.info(
            "%s: %s of %s shares at %s, %s", market.label, status.filled_amount, status.size, price, status.status
        )

    async def resolve(self, exchange, intent):
        """The id of an order whose answer was lost, None when it is proven that there is no such order."""
        while True:
            try:
                answer = await exchange.resolve_order(intent)
            except OrderUnknown as error:
                self.log.warning("still unknown: %s", error)
                await self.clock.sleep(ASK_AGAIN_SECONDS)
            else:
                return answer.order_id if isinstance(answer, Accepted) else None

    async def over_within(self, exchange, order_id, seconds):
        """Whether the order is filled, or ended otherwise, within so many seconds."""
        over = self.done[order_id] = asyncio.Event()
        try:
            if order_id not in exchange.open:  # it ended before its answer came
                return True
            async with self.clock.timeout(seconds):
                await over.wait()
            return True
        except TimeoutError:
            return False
        finally:
            del self.done[order_id]

    async def cancel(self, exchange, order_id):
        """Returns when the order is over: cancelled, or filled in the meantime."""
        while True:
            try:
                result = await exchange.cancel_order(order_id)
            except (CancelUnknown, NotSent) as error:
                self.log.warning("not cancelled yet: %s", error)
            else:
                if result is not result.NOT_YET:
                    return
            await self.clock.sleep(ASK_AGAIN_SECONDS)


if __name__ == "__main__":
    run(OrderFlowBot)
