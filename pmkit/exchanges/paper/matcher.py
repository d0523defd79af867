"""The dry-run's matching: what the venue would have done with our orders, as far as books and prints tell. No I/O, no
clock.

Takers walk the displayed book at the moment they arrive and remember what they used of it. Resting orders fill when a
print reaches them in the queue, when a print trades through their price, or when the other side of the valid book
crosses it. Own orders are never in the book, so what is displayed is the others' alone; own orders that wait at the
same price share a print in their order. An order that crosses ours may have been one that only adds to the book, which
the venue would have refused: the pessimistic model does not fill then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal

from pmkit.errors import InsufficientFunds, OrderRejected
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.paper.account import Held, PaperAccount
from pmkit.exchanges.paper.liquidity import Key, Take, TakenLevels, cost_of, walk_money, walk_size
from pmkit.exchanges.paper.order import FillReason, How, PaperOrder, dollars, price_units, shares, size_units
from pmkit.exchanges.paper.queue import QueueModel, QueuePlace
from pmkit.exchanges.types import (
    PRICE_SCALE,
    Fill,
    FillState,
    Liquidity,
    MarketResult,
    OrderState,
    PublicTrade,
    Side,
    TimeInForce,
)

KEEP = 10_000
"""Fills and finished orders that stay known."""


class Matcher:
    """Orders, account and memory of one dry-run account on one venue.

    `on_fill` and `on_order` are called for every event, after account and order are consistent.
    """

    def __init__(
        self,
        balance: Decimal,
        model: QueueModel,
        new_id: Callable[[], str],
        on_fill: Callable[[Fill, PaperOrder], None],
        on_order: Callable[[PaperOrder], None],
    ) -> None:
        self.account = PaperAccount(balance)
        self.orders: dict[str, PaperOrder] = {}
        self.fills: deque[Fill] = deque(maxlen=KEEP)
        self.reasons: dict[str, FillReason] = {}
        self._model = model
        self._new_id = new_id
        self._on_fill = on_fill
        self._on_order = on_order
        self._taken = TakenLevels()
        self._first: dict[str, str] = {}
        self._resting: dict[str, list[PaperOrder]] = {}
        self._finished: deque[str] = deque()

    # -- arrival ------------------------------------------------------------------------------------------------

    def reachable(self, order: PaperOrder, book: OrderBook) -> list[Take]:
        """What the order would match now of what is displayed and not used up."""
        levels = self._levels(order, book)
        return walk_size(levels, order.left) if order.money is None else walk_money(levels, order.money)

    def _levels(self, order: PaperOrder, book: OrderBook) -> Iterator[tuple[int, int, int]]:
        """(price, shown, taken before) of the other side, from the best on, no worse than the order's limit."""
        for level in book.levels("ASK" if order.buys else "BID"):
            price = price_units(level.price)
            if price > order.price if order.buys else price < order.price:
                return
            shown = size_units(level.size)
            yield price, shown, self._taken.taken(self._key(order, price), shown)

    @staticmethod
    def _key(order: PaperOrder, price: int) -> Key:
        # Both outcomes' books are one: asks of the second are bids for the first.
        first = order.outcome == order.market.outcomes[0]
        return order.market.market_id, order.buys != first, price if first else PRICE_SCALE - price

    @staticmethod
    def whole(order: PaperOrder, takes: list[Take]) -> bool:
        """Whether that fills the order. A last unit of money may be too little for any share."""
        if order.money is None:
            return sum(take.size for take in takes) >= order.size
        return order.money - sum(cost_of(take.price, take.size) for take in takes) <= 1

    def admit(self, order: PaperOrder, takes: list[Take], now_ms: int) -> bool:
        """Take the order in, with what it would match now, and hold back what it needs. False: it was killed at once.

        Raises InsufficientFunds or OrderRejected; nothing is changed then.
        """
        market, tif = order.market, order.order.time_in_force
        if takes and order.order.post_only:
            raise OrderRejected("post_only_cross", "a post-only order would have matched at once")
        if (tif is TimeInForce.IOC and not takes) or (tif is TimeInForce.FOK and not self.whole(order, takes)):
            self.orders[order.order_id] = order
            self.finish(order, OrderState.CANCELED, "nothing to take", now_ms)
            return False
        if takes and order.buys and self._worth(order) < market.min_marketable:
            reason = (
                f"a buy that takes needs at least {market.min_marketable} dollars, this one has {self._worth(order):f}"
            )
            raise OrderRejected("below_minimum", reason)
        fee, charged = Decimal(0), order.charged
        for take in takes:
            more, charged = market.charge(order.order.side, dollars(take.price), shares(take.size), False, charged)
            fee += more
        rests = tif in (TimeInForce.GTC, TimeInForce.GTD)
        lacks = self.account.lacks(
            self._held(order), [(dollars(take.price), shares(take.size)) for take in takes], fee, rests
        )
        if lacks:
            raise InsufficientFunds(lacks)
        self.orders[order.order_id] = order
        self.account.hold(order.order_id, self._held(order))
        return True

    @staticmethod
    def _worth(order: PaperOrder) -> Decimal:
        """Dollars of the whole order at its limit."""
        return shares(cost_of(order.price, order.size) if order.money is None else order.money)

    def _held(self, order: PaperOrder) -> Held:
        money = cost_of(order.price, order.left) if order.money is None else max(0, order.money - order.notional)
        return Held(
            order.market, order.outcome, order.order.side, order.order.price, shares(order.left), shares(money)
        )  # fmt: skip

    def arrive(self, order: PaperOrder, book: OrderBook, now_ms: int) -> None:
        """The order meets the book: take what it may, rest or drop what is left. `admit` comes first."""
        order.updated_ms = now_ms
        self._first[order.market.market_id] = order.market.outcomes[0]
        takes = self.reachable(order, book)
        tif = order.order.time_in_force
        if tif is TimeInForce.FOK and not self.whole(order, takes):
            takes = []
        for take in takes:
            self._taken.use(self._key(order, take.price), take.size)
            self._match(order, take.price, take.size, Liquidity.TAKER, How.LEVEL, book, now_ms, take=take)
        if order.status.terminal:
            return
        if tif in (TimeInForce.IOC, TimeInForce.FOK):
            if order.filled >= order.size:  # it aimed at money, and got more than its worst price gives
                self.finish(order, OrderState.FILLED, "", now_ms)
                return
            self.finish(
                order, OrderState.CANCELED, "nothing more to take" if order.filled else "nothing to take", now_ms
            )
            return
        order.status = OrderState.LIVE
        displayed = book.size_at(order.order.price, order.order.side)
        order.place = QueuePlace(self._model, size_units(displayed))
        self._resting.setdefault(order.market.market_id, []).append(order)
        # Those that trade first come first; of the same price the older ones.
        self._resting[order.market.market_id].sort(key=_priority)
        self.account.hold(order.order_id, self._held(order))
        self._on_order(order)

    # -- resting ------------------------------------------------------------------------------------------------

    def on_book(self, book: OrderBook, now_ms: int, now_ns: int) -> None:
        """A book changed. Nothing is concluded from one that is not valid."""
        if not book.valid:
            return
        if self._first.get(book.market_id) == book.outcome:
            for key in self._taken.keys(book.market_id):
                self._taken.taken(key, size_units(book.size_at(dollars(key[2]), Side.BUY if key[1] else Side.SELL)))
        for order in tuple(self._resting.get(book.market_id, ())):
            if order.outcome != book.outcome or order.status.terminal or order.place is None:
                continue
            order.place.on_level(size_units(book.size_at(order.order.price, order.order.side)), now_ns)
            self._crossed(order, book, now_ms)

    def _crossed(self, order: PaperOrder, book: OrderBook, now_ms: int) -> None:
        assert order.place is not None
        takes = self.reachable(order, book)
        if not takes:
            return
        ahead = order.place.ahead
        order.place.overtaken()
        if self._model is QueueModel.PESSIMISTIC:
            return
        for take in takes:
            self._taken.use(self._key(order, take.price), take.size)
            self._match(order, order.price, take.size, Liquidity.MAKER, How.CROSS, book, now_ms, take=take, ahead=ahead)

    def on_print(self, trade: PublicTrade, book_of: Callable[[str], OrderBook], now_ms: int) -> None:
        """A public trade. It is read in the terms of each order's own outcome."""
        size = size_units(trade.size)
        left = size
        for order in tuple(self._resting.get(trade.market_id, ())):
            if order.status.terminal or order.place is None:
                continue
            same = trade.outcome == order.outcome
            price = price_units(trade.price if same else 1 - trade.price)
            seller = (trade.side is Side.SELL) == same
            if seller != order.buys:
                continue
            through = price < order.price if order.buys else price > order.price
            if not through and price != order.price:
                order.place.spare(size - left)
                continue
            ahead, before = order.place.ahead + order.place.spared, size - left
            if through:
                order.place.overtaken()
                reaching, how = order.place.past_spared(left), How.THROUGH
            else:
                reaching, how = order.place.on_print(size, trade.received_ns, left), How.PRINT
            if self._model is QueueModel.OPTIMISTIC and (through or order.place.exhausted):
                # Whoever took all there was may have wanted more, and would have found us.
                reaching = order.left
            part = min(reaching, order.left)
            if part > 0:
                left = max(0, left - part)
                self._match(
                    order, order.price, part, Liquidity.MAKER, how, book_of(order.outcome), now_ms,
                    trade=trade, own_before=before, ahead=ahead,
                )  # fmt: skip

    # -- fills and ends -----------------------------------------------------------------------------------------

    def _match(
        self,
        order: PaperOrder,
        price: int,
        size: int,
        liquidity: Liquidity,
        how: How,
        book: OrderBook,
        now_ms: int,
        *,
        take: Take | None = None,
        trade: PublicTrade | None = None,
        own_before: int = 0,
        ahead: int | None = None,
    ) -> None:
        at, part, market = dollars(price), shares(size), order.market
        fee, order.charged = market.charge(order.order.side, at, part, liquidity is Liquidity.MAKER, order.charged)
        cost = cost_of(price, size)
        if trade is not None and trade.outcome != order.outcome:
            cost = size - cost_of(PRICE_SCALE - price, size)  # what the taker's share of the pair leaves of a dollar
        received_ns = book.received_ns if trade is None else trade.received_ns
        fill = Fill(
            fill_id=self._new_id(),
            order_id=order.order_id,
            client_order_id=order.intent.client_order_id,
            market_id=order.order.market_id,
            outcome=order.outcome,
            side=order.order.side,
            price=at,
            size=part,
            fee=fee,
            liquidity=liquidity,
            state=FillState.PENDING if market.final_after_ms else FillState.FINAL,
            venue_ms=now_ms,
            received_ns=received_ns,
        )
        order.filled += size
        order.notional += cost
        order.fee += fee
        order.updated_ms = now_ms
        self.account.book(market, fill, shares(cost))
        self.fills.append(fill)
        level = price if take is None else take.price
        self.reasons[fill.fill_id] = FillReason(
            fill_id=fill.fill_id,
            order_id=order.order_id,
            how=how,
            price=at,
            size=part,
            level_price=dollars(level),
            seen_size=shares(take.shown) if take is not None else trade.size if trade is not None else part,
            taken_before=shares(0 if take is None else take.taken),
            own_before=shares(own_before),
            best_bid=book.best_bid,
            best_ask=book.best_ask,
            ahead_before=None if ahead is None else shares(ahead),
            ahead_after=None if order.place is None else shares(order.place.ahead + order.place.spared),
            trade=trade,
            venue_ms=now_ms,
            received_ns=received_ns,
        )
        while len(self.reasons) > KEEP:
            del self.reasons[next(iter(self.reasons))]
        if order.left > 0 or order.money is not None:
            self.account.hold(order.order_id, self._held(order))
        else:
            self.account.release(order.order_id)
        self._on_fill(fill, order)
        if order.left <= 0 and order.money is None:
            self.finish(order, OrderState.FILLED, "", now_ms)
        elif order.status is OrderState.LIVE:
            self._on_order(order)

    def finish(self, order: PaperOrder, status: OrderState, reason: str, now_ms: int) -> None:
        """The order is done, for good."""
        if order.status.terminal:
            return
        order.status, order.reason, order.updated_ms = status, reason, now_ms
        if order.expiry is not None:
            order.expiry.cancel()
        self.account.release(order.order_id)
        resting = self._resting.get(order.market.market_id, [])
        if order in resting:
            resting.remove(order)
        self._finished.append(order.order_id)
        while len(self._finished) > KEEP:
            self.orders.pop(self._finished.popleft(), None)
        self._on_order(order)

    def open_orders(self, market_id: str | None = None) -> list[PaperOrder]:
        """Orders that are not done, oldest first."""
        return [
            order
            for order in self.orders.values()
            if not order.status.terminal and (market_id is None or order.order.market_id == market_id)
        ]

    def close_market(self, market: Market, now_ms: int) -> None:
        """Trading has ended: the venue cancels what rests."""
        for order in self.open_orders(market.market_id):
            self.finish(order, OrderState.CANCELED, "market closed", now_ms)
        self._resting.pop(market.market_id, None)
        self._taken.forget(market.market_id)
        self._first.pop(market.market_id, None)

    def settle(self, market: Market, result: MarketResult) -> Decimal:
        """Pay out; returns the dollars paid."""
        return self.account.settle(market, result)


def _priority(order: PaperOrder) -> int:
    """Smaller comes first among own orders of one side: better prices."""
    return -order.price if order.buys else order.price
