"""A price-time matching engine for one binary market, in terms of its first outcome (YES, UP).

Integers only: prices in 0.0001 dollars (1 to 9999), sizes in 1e-6 shares. The grid, fees, minimum sizes, balances and
what happens when an owner meets himself are the venue's business; a `Match` says whether it was one.

One operation (a submission, a cancel) is one step: matches and level changes are told to the listeners when the book is
in its final state, all `on_match` first, then all `on_level`, then `on_update` once with everything.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

PRICE_UNITS = 10_000
SIZE_UNITS = 1_000_000


class Side(StrEnum):
    """Of the first outcome. Buying the second one at p is selling the first at 1 - p."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class TimeInForce(StrEnum):
    """GTC rests what is left; IOC drops it; FOK trades all or nothing."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Killed(StrEnum):
    """Why an order, or what was left of it, did not come to rest."""

    POST_ONLY_CROSS = "post_only_cross"
    FOK_UNFILLED = "fok_unfilled"
    IOC_REMAINDER = "ioc_remainder"


@dataclass(slots=True)
class Order:
    """A resting order. `size` is what is left of `original`; `client` is whatever the venue wants back."""

    order_id: str
    owner: str
    side: Side
    price: int
    size: int
    original: int
    client: object = None


class Match(msgspec.Struct, frozen=True):
    """A taker met a resting order, at the resting order's price. `sequence` counts the matches of the engine from 1."""

    sequence: int
    price: int
    size: int
    taker_side: Side
    taker_id: str
    maker_id: str
    taker_owner: str
    maker_owner: str
    maker_left: int
    taker_client: object = None
    maker_client: object = None

    @property
    def self_trade(self) -> bool:
        return self.taker_owner == self.maker_owner


class LevelChange(msgspec.Struct, frozen=True):
    """The total size of a level after an operation; 0 where it is gone."""

    side: Side
    price: int
    size_after: int


class Update(msgspec.Struct, frozen=True):
    """All that one operation did to the book."""

    matches: tuple[Match, ...] = ()
    changes: tuple[LevelChange, ...] = ()


class Submission(msgspec.Struct, frozen=True):
    """What became of a submission. `order` is the resting order, None where nothing rests; `killed` says why.

    `filled` and `unfilled` are sizes; what is neither rests.
    """

    order_id: str
    order: Order | None
    matches: tuple[Match, ...] = ()
    killed: Killed | None = None
    filled: int = 0
    unfilled: int = 0


@dataclass(slots=True)
class _Half:
    """One side: FIFO queues by price, the prices in ascending order, the totals."""

    side: Side
    queues: dict[int, dict[str, Order]] = field(default_factory=dict)
    prices: list[int] = field(default_factory=list)
    totals: dict[int, int] = field(default_factory=dict)

    def best(self) -> int | None:
        if not self.prices:
            return None
        return self.prices[-1] if self.side is Side.BUY else self.prices[0]

    def add(self, order: Order) -> None:
        queue = self.queues.get(order.price)
        if queue is None:
            queue = self.queues[order.price] = {}
            insort(self.prices, order.price)
        queue[order.order_id] = order
        self.totals[order.price] = self.totals.get(order.price, 0) + order.size

    def shrink(self, order: Order, size: int) -> None:
        """Take `size` off an order; it leaves when nothing is left."""
        order.size -= size
        self.totals[order.price] -= size
        if order.size:
            return
        queue = self.queues[order.price]
        del queue[order.order_id]
        if not queue:
            del self.queues[order.price]
            del self.totals[order.price]
            del self.prices[bisect_left(self.prices, order.price)]


class MatchingEngine:
    """One book. `submit` raises ValueError for numbers outside the units above or an order id that was used before."""

    def __init__(self) -> None:
        self.on_match: list[Callable[[Match], object]] = []
        self.on_level: list[Callable[[Side, int, int], object]] = []
        self.on_update: list[Callable[[Update], object]] = []
        self.matched = 0
        self.volume = 0
        self._halves = {side: _Half(side) for side in Side}
        self._orders: dict[str, Order] = {}
        self._sequence = 0

    # ---- reading

    @property
    def best_bid(self) -> int | None:
        return self._halves[Side.BUY].best()

    @property
    def best_ask(self) -> int | None:
        return self._halves[Side.SELL].best()

    def levels(self, side: Side) -> list[tuple[int, int]]:
        """(price, size) from the best level to the worst."""
        half = self._halves[side]
        ordered = reversed(half.prices) if side is Side.BUY else half.prices
        return [(price, half.totals[price]) for price in ordered]

    def size_at(self, side: Side, price: int) -> int:
        return self._halves[side].totals.get(price, 0)

    def order(self, order_id: str) -> Order | None:
        """A resting order, None where it is none (any more)."""
        return self._orders.get(order_id)

    def orders(self, owner: str | None = None) -> list[Order]:
        """All resting orders, or those of one owner, oldest first."""
        return [order for order in self._orders.values() if owner is None or order.owner == owner]

    def available(self, side: Side, price: int) -> int:
        """What a taker of that side and limit price could get."""
        half = self._halves[side.opposite]
        return sum(half.totals[level] for level in half.prices if _crosses(side, price, level))

    # ---- changing

    def submit(
        self,
        owner: str,
        side: Side,
        price: int,
        size: int,
        *,
        time_in_force: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
        order_id: str | None = None,
        client: object = None,
    ) -> Submission:
        """Match and rest an order. Without an id the engine makes one."""
        if not 0 < price < PRICE_UNITS or size <= 0:
            raise ValueError(f"not a price and size of this engine: {price}, {size}")
        self._sequence += 1
        order_id = order_id or f"o{self._sequence}"
        if order_id in self._orders:
            raise ValueError(f"an order {order_id} rests already")
        book = self._halves[side.opposite]
        best = book.best()
        crosses = best is not None and _crosses(side, price, best)
        if post_only and crosses:
            return Submission(order_id, None, killed=Killed.POST_ONLY_CROSS, unfilled=size)
        if time_in_force is TimeInForce.FOK and self.available(side, price) < size:
            return Submission(order_id, None, killed=Killed.FOK_UNFILLED, unfilled=size)
        left = size
        matches: list[Match] = []
        touched: dict[tuple[Side, int], None] = {}
        while left and crosses:
            assert best is not None
            maker = next(iter(book.queues[best].values()))
            traded = min(left, maker.size)
            left -= traded
            book.shrink(maker, traded)
            if not maker.size:
                del self._orders[maker.order_id]
            self.matched += 1
            self.volume += traded
            matches.append(
                Match(
                    sequence=self.matched,
                    price=best,
                    size=traded,
                    taker_side=side,
                    taker_id=order_id,
                    maker_id=maker.order_id,
                    taker_owner=owner,
                    maker_owner=maker.owner,
                    maker_left=maker.size,
                    taker_client=client,
                    maker_client=maker.client,
                )
            )
            touched[book.side, best] = None
            best = book.best()
            crosses = best is not None and _crosses(side, price, best)
        order = None
        killed = None
        if left and time_in_force is TimeInForce.GTC:
            order = Order(order_id, owner, side, price, left, size, client)
            self._halves[side].add(order)
            self._orders[order_id] = order
            touched[side, price] = None
        elif left:
            killed = Killed.IOC_REMAINDER
        self._tell(matches, touched)
        return Submission(order_id, order, tuple(matches), killed, size - left, 0 if order else left)

    def cancel(self, order_id: str) -> Order | None:
        """Take an order out. Returns it as it was, None where no such order rests."""
        order = self._orders.pop(order_id, None)
        if order is None:
            return None
        left = order.size
        self._halves[order.side].shrink(order, left)
        order.size = left
        self._tell([], {(order.side, order.price): None})
        return order

    def reduce(self, order_id: str, size: int) -> Order | None:
        """Bring an order down to `size` without losing its place in the queue.

        Returns it, or None where no such order rests. Raises ValueError unless 0 < size < what is left.
        """
        order = self._orders.get(order_id)
        if order is None:
            return None
        if not 0 < size < order.size:
            raise ValueError(f"an order of {order.size} cannot be reduced to {size}")
        self._halves[order.side].shrink(order, order.size - size)
        self._tell([], {(order.side, order.price): None})
        return order

    def cancel_all(self, owner: str | None = None) -> list[Order]:
        """Take all orders out, or those of one owner, in one step. Returns them as they were."""
        gone = self.orders(owner)
        touched: dict[tuple[Side, int], None] = {}
        for order in gone:
            left = order.size
            del self._orders[order.order_id]
            self._halves[order.side].shrink(order, left)
            order.size = left
            touched[order.side, order.price] = None
        if gone:
            self._tell([], touched)
        return gone

    def _tell(self, matches: list[Match], touched: dict[tuple[Side, int], None]) -> None:
        changes = tuple(LevelChange(side, price, self.size_at(side, price)) for side, price in touched)
        for match in matches:
            for hear_match in self.on_match:
                hear_match(match)
        for change in changes:
            for hear_level in self.on_level:
                hear_level(change.side, change.price, change.size_after)
        if matches or changes:
            update = Update(tuple(matches), changes)
            for hear_update in self.on_update:
                hear_update(update)


def _crosses(taker: Side, limit: int, level: int) -> bool:
    return level <= limit if taker is Side.BUY else level >= limit
