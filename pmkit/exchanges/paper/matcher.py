"""The dry-run's matching: what the venue would have done with our orders, as far as books and prints tell. No I/O, no
clock.

Takers walk the displayed book at the moment they arrive and remember what they used of it. Resting orders fill when a
print reaches them in the queue, when a print trades through their price, or when the other side of the valid book
crosses it. Own orders are never in the book, so what is displayed is the others' alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal

from pmkit.errors import InsufficientFunds, OrderRejected
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.paper.account import PaperAccount
from pmkit.exchanges.paper.liquidity import Take, TakenLevels, walk_money, walk_size
from pmkit.exchanges.paper.order import FillReason, PaperOrder, dollars, price_units, shares, size_units
from pmkit.exchanges.paper.queue import QueueModel, QueuePlace
from pmkit.exchanges.types import (
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
        self._resting: dict[str, list[PaperOrder]] = {}
        self._finished: deque[str] = deque()

    # -- arrival ------------------------------------------------------------------------------------------------

    def marketable(self, order: PaperOrder, book: OrderBook) -> bool:
        """Whether the order would match something that is displayed."""
        touch = book.best_ask if order.buys else book.best_bid
        if touch is None:
            return False
        return price_units(touch) <= order.price if order.buys else price_units(touch) >= order.price

    def admit(self, order: PaperOrder, taking: bool) -> None:
        """Check what the account has and hold it back. Raises InsufficientFunds or OrderRejected; nothing is changed
        then.
        """
        market, price, size = order.market, order.order.price, shares(order.size)
        if taking and order.buys and price * size < market.min_marketable:
            reason = f"a buy that takes needs at least {market.min_marketable} dollars, this one has {price * size:f}"
            raise OrderRejected("below_minimum", reason)
        fee = market.fees.fee(price, size) if taking else market.fees.fee(price, size, maker=True)
        cash, offered = self.account.need(market, order.outcome, order.order.side, price, size, fee)
        lacks = self.account.lacks(market, order.outcome, cash, offered)
        if lacks:
            raise InsufficientFunds(lacks)
        self.orders[order.order_id] = order
        self.account.hold(order.order_id, market, order.outcome, cash, offered)

    def arrive(self, order: PaperOrder, book: OrderBook, now_ms: int, now_ns: int) -> None:
        """The order reaches the book: take what it may, rest or drop what is left. `admit` comes first."""
        order.updated_ms = now_ms
        side = "ASK" if order.buys else "BID"
        takes = self._reachable(order, book, side)
        tif = order.order.time_in_force
        if tif is TimeInForce.FOK and sum(take.size for take in takes) < order.size:
            takes = []
        for take in takes:
            self._taken.use(book.token_id or book.outcome, side, take)
            self._match(order, take.price, take.size, Liquidity.TAKER, "took a level", take.shown, book, now_ms, now_ns)
        if order.money is not None and order.filled:
            order.size = order.filled
        if order.status.terminal:
            return
        if tif in (TimeInForce.IOC, TimeInForce.FOK):
            self.finish(
                order, OrderState.CANCELED, "nothing more to take" if order.filled else "nothing to take", now_ms
            )
            return
        order.status = OrderState.LIVE
        displayed = book.size_at(order.order.price, order.order.side)
        order.place = QueuePlace(self._model, size_units(displayed))
        self._resting.setdefault(order.market.market_id, []).append(order)
        self._hold(order)
        self._on_order(order)

    def _reachable(self, order: PaperOrder, book: OrderBook, side: str) -> list[Take]:
        levels = self._levels(book, side, order.price)
        if order.money is not None:
            return walk_money(levels, order.money)
        return walk_size(levels, order.left)

    def _levels(self, book: OrderBook, side: str, limit: int) -> Iterator[tuple[int, int, int]]:
        """(price, shown, left) from the best on, no worse than the limit."""
        token = book.token_id or book.outcome
        for level in book.levels(side):
            price = price_units(level.price)
            if price > limit if side == "ASK" else price < limit:
                return
            shown = size_units(level.size)
            yield price, shown, self._taken.left(token, side, price, shown)

    # -- resting ------------------------------------------------------------------------------------------------

    def on_book(self, book: OrderBook, now_ms: int, now_ns: int) -> None:
        """A book changed. Nothing is concluded from one that is not valid."""
        if not book.valid:
            return
        for order in tuple(self._resting.get(book.market_id, ())):
            if order.outcome != book.outcome or order.status.terminal or order.place is None:
                continue
            order.place.on_level(size_units(book.size_at(order.order.price, order.order.side)), now_ns)
            if self.marketable(order, book):
                self._crossed(order, book, now_ms, now_ns)

    def _crossed(self, order: PaperOrder, book: OrderBook, now_ms: int, now_ns: int) -> None:
        assert order.place is not None
        side = "ASK" if order.buys else "BID"
        ahead = order.place.ahead
        order.place.overtaken()
        for take in walk_size(self._levels(book, side, order.price), order.left):
            self._taken.use(book.token_id or book.outcome, side, take)
            self._match(
                order, order.price, take.size, Liquidity.MAKER, "the other side crossed it with a level", take.shown,
                book, now_ms, now_ns, ahead,
            )  # fmt: skip

    def on_print(self, trade: PublicTrade, book_of: Callable[[str], OrderBook], now_ms: int) -> None:
        """A public trade. It is read in the terms of each order's own outcome."""
        left = size_units(trade.size)
        for order in tuple(self._resting.get(trade.market_id, ())):
            if order.status.terminal or order.place is None or left <= 0:
                continue
            same = trade.outcome == order.outcome
            price = price_units(trade.price if same else 1 - trade.price)
            seller = (trade.side is Side.SELL) == same
            if seller != order.buys:
                continue
            through = price < order.price if order.buys else price > order.price
            if not through and price != order.price:
                continue
            ahead = order.place.ahead
            if through:
                order.place.overtaken()
                reaching, how = left, "a print traded through it"
            else:
                reaching, how = order.place.on_print(size_units(trade.size), trade.received_ns), "a print at its price"
            part = min(reaching, left, order.left)
            if part > 0:
                left -= part
                self._match(
                    order, order.price, part, Liquidity.MAKER, how, size_units(trade.size),
                    book_of(order.outcome), now_ms, trade.received_ns, ahead,
                )  # fmt: skip

    # -- fills and ends -----------------------------------------------------------------------------------------

    def _match(
        self,
        order: PaperOrder,
        price: int,
        size: int,
        liquidity: Liquidity,
        how: str,
        seen: int,
        book: OrderBook,
        now_ms: int,
        now_ns: int,
        ahead: int | None = None,
    ) -> None:
        at, part = dollars(price), shares(size)
        fee = order.market.fees.fee(at, part, maker=liquidity is Liquidity.MAKER)
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
            state=FillState.PENDING if order.market.final_after_ms else FillState.FINAL,
            venue_ms=now_ms,
            received_ns=now_ns,
        )
        order.filled += size
        order.notional += at * part
        order.fee += fee
        order.updated_ms = now_ms
        self.account.book(order.market, fill)
        self.fills.append(fill)
        self.reasons[fill.fill_id] = FillReason(
            fill_id=fill.fill_id,
            order_id=order.order_id,
            how=how,
            price=at,
            size=part,
            seen_size=shares(seen),
            best_bid=book.best_bid,
            best_ask=book.best_ask,
            ahead_before=None if ahead is None else shares(ahead),
            ahead_after=None if order.place is None else shares(order.place.ahead),
            venue_ms=now_ms,
            received_ns=now_ns,
        )
        while len(self.reasons) > KEEP:
            del self.reasons[next(iter(self.reasons))]
        self._hold(order)
        self._on_fill(fill, order)
        if order.left <= 0:
            self.finish(order, OrderState.FILLED, "", now_ms)
        elif order.status is OrderState.LIVE:
            self._on_order(order)

    def _hold(self, order: PaperOrder) -> None:
        size, market = shares(order.left), order.market
        self.account.release(order.order_id)
        fee = market.fees.fee(order.order.price, size, maker=order.place is not None)
        cash, offered = self.account.need(market, order.outcome, order.order.side, order.order.price, size, fee)
        self.account.hold(order.order_id, market, order.outcome, cash, offered)

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
        for token, outcome in zip(market.token_ids, market.outcomes, strict=True):
            self._taken.forget(token or outcome)

    def settle(self, market: Market, result: MarketResult) -> Decimal:
        """Pay out; returns the dollars paid."""
        return self.account.settle(market, result)
