"""Offline, in under a minute: both venues on this machine at 45 times the speed of the wall, a dry-run bot on each.

    python examples/demo.py        (or: make demo)

It buys the favourite with a market order and rests bids, in every 15-minute BTC and ETH market, until each venue has
rolled over twice, and prints what came of it. Prices are made up, the code paths are not: sockets, HTTP, books,
finder, rollover, logs. Exits with 1 when something that should happen did not.
"""

import os
from decimal import Decimal

from pmkit import BaseBot, InvalidOrder, OrderRejected, Side, run
from pmkit.bot.status import StatusLine, describe

SPEED = 45.0
ROLLOVERS = 2
ORDER_SIZE_USD = Decimal("5")
TAKE_FROM_SECONDS = 500
WALL_SECONDS = 55.0
SETTLE_WALL_SECONDS = 5.0


class DemoBot(BaseBot):
    async def _on_start(self):
        self.taken = set()
        self.resting = {}
        self.rolled = dict.fromkeys(self.exchanges, 0)
        self.settled = dict.fromkeys(self.exchanges, 0)
        self.began = self.clock.io_monotonic()
        self.enough_at = None
        self.status = StatusLine()

    async def _tick(self):
        self.status.show(*(describe(self, market) for market in self.markets.values()))
        for market in self.markets.values():
            if market:
                for outcome in market.outcomes:
                    await self.trade(market, outcome)
        await self.maybe_stop()

    async def trade(self, market, outcome):
        book = self.book(market, outcome)
        left = self.seconds_remaining(market)
        if not book.valid or book.best_bid is None or book.best_ask is None or left < 20:
            return
        exchange = self.exchanges[market.venue]
        try:
            if market.market_id not in self.taken and left < TAKE_FROM_SECONDS and book.best_ask >= Decimal("0.5"):
                self.taken.add(market.market_id)
                await exchange.place_market_order(
                    market, outcome, Side.BUY, worst_price=book.best_ask, amount=ORDER_SIZE_USD
                )
            await self.rest(market, outcome, book, exchange)
        except (InvalidOrder, OrderRejected) as error:
            self.log.warning("%s %s: %s", market.label, outcome, error)

    async def rest(self, market, outcome, book, exchange):
        """Keep one bid at the best bid; follow it when the book has moved away."""
        resting = self.resting.get((market.market_id, outcome))
        if resting is not None and resting[0] in exchange.open:
            if resting[1] == book.best_bid:
                return
            await exchange.cancel_order(resting[0])
        bid = book.best_bid  # read after the waiting: the book is live
        if bid is not None and Decimal("0.10") <= bid <= Decimal("0.90"):
            size = market.size_for(ORDER_SIZE_USD, bid, maker=True)
            order_id = await exchange.place_limit_order(market, outcome, Side.BUY, bid, size, post_only=True)
            self.resting[(market.market_id, outcome)] = (order_id, bid)

    async def _on_rollover(self, asset, old, new):
        market = new or old
        self.rolled[market.venue] += 1
        self.log.info("rollover %s %s: %s -> %s", market.venue, asset, old and old.label, new and new.label)

    async def _on_settled(self, asset, market, result, pnl):
        self.settled[market.venue] += 1

    def missing(self):
        """What has not been seen yet, in words."""
        lacks = []
        for venue in self.exchanges:
            ledgers = [ledger for (name, _), ledger in self.ledgers.items() if name == venue]
            if self.rolled[venue] < ROLLOVERS * len(self.assets):
                lacks.append(f"{venue}: {self.rolled[venue]} rollovers")
            if not any(ledger.taker_fills for ledger in ledgers):
                lacks.append(f"{venue}: no taker fill")
            if not any(ledger.maker_fills for ledger in ledgers):
                lacks.append(f"{venue}: no maker fill")
        return lacks

    async def maybe_stop(self):
        now = self.clock.io_monotonic()
        if self.enough_at is None and not self.missing():
            self.enough_at = now
        settled = all(count >= ROLLOVERS * len(self.assets) for count in self.settled.values())
        if self.enough_at is not None and (settled or now - self.enough_at > SETTLE_WALL_SECONDS):
            await self.stop()
        elif now - self.began > WALL_SECONDS:
            raise SystemExit(f"the demo did not get far enough in {WALL_SECONDS:.0f} s: {'; '.join(self.missing())}")

    async def _on_stop(self):
        self.status.clear()


if __name__ == "__main__":
    os.environ.setdefault("PMKIT_WHERE", "local")
    os.environ.setdefault("PMKIT_MODE", "dry-run")
    run(
        DemoBot,
        venues=["polymarket", "kalshi"],
        assets=["BTC", "ETH"],
        interval="15m",
        candles="1s",
        local_speed=SPEED,
        local_first_boundary=9.0,
    )
