"""What rests in a book, side by side in integers, and how users read it in `Decimal` (wire: no I/O, no clock).

A price is a tick: price in 0.0001 dollars divided by `unit`, 0 < tick < `ticks`. A size is a number of 1/`size_scale`
shares. `OrderBook` adds how a book changes and whether it can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from pmkit.errors import InvalidOrder
from pmkit.exchanges.numbers import (
    Number,
    decimals_of,
    grid_units,
    price_decimals,
    prices,
    quotient,
    scaled,
    to_decimal,
    whole,
)
from pmkit.exchanges.types import PRICE_SCALE

BID: Final = 0
ASK: Final = 1

_SIDES = {"BID": BID, "BUY": BID, "ASK": ASK, "SELL": ASK}
_TAKES = {"BUY": ASK, "SELL": BID}


class Level(NamedTuple):
    """All that rests at one price: dollars per share, shares."""

    price: Decimal
    size: Decimal


class Cost(msgspec.Struct, frozen=True):
    """What taking `size` shares from the book costs or brings, before fees.

    `amount` in dollars is exact; `average_price` is amount / size to 28 significant digits; `worst_price` is that of
    the last level touched.
    """

    size: Decimal
    amount: Decimal
    average_price: Decimal
    worst_price: Decimal


class Depth:
    """Bids and asks of one outcome as they are. All reads are safe on empty sides.

    Plain attributes, for reading only: `best_bid` and `best_ask` in dollars, None where nobody bids or asks; the same
    as `best_bid_tick` and `best_ask_tick`, -1 for an empty side. They are written where they change, since they are
    read far more often. `bid_units` and `ask_units` are for feeds: size units by tick.
    """

    __slots__ = (
        "_ask_at",
        "_bid_at",
        "_prices",
        "_size_decimals",
        "ask_units",
        "best_ask",
        "best_ask_tick",
        "best_bid",
        "best_bid_tick",
        "bid_units",
        "size_scale",
        "ticks",
        "unit",
    )

    def __init__(self, *, unit: int, size_scale: int) -> None:
        """`unit`: the price step in 0.0001 dollars (100 = 1 cent). `size_scale`: size units per share, a power of ten.

        Raises BookError for a step that does not divide a dollar or another scale.
        """
        self._size_decimals = decimals_of(size_scale)
        self.size_scale = size_scale
        self._empty(unit)

    def _empty(self, unit: int) -> None:
        self._grid(unit)
        # Per side: sizes by tick, and one byte per tick that is 1 where a level is. The bytes are touched only when a
        # level comes or goes; memchr over them finds the next best price however wide the gap is. The dict keeps the
        # memory at the number of levels, not of ticks.
        self.bid_units: dict[int, int] = {}
        self.ask_units: dict[int, int] = {}
        self._bid_at = bytearray(self.ticks)
        self._ask_at = bytearray(self.ticks)

    def _grid(self, unit: int) -> None:
        price_decimals(unit)
        self.unit = unit
        self.ticks = PRICE_SCALE // unit
        self._prices = prices(unit)
        self._touch_is(-1, -1)

    def _touch_is(self, bid: int, ask: int) -> None:
        self.best_bid_tick = bid
        self.best_ask_tick = ask
        self.best_bid: Decimal | None = self._prices[bid] if bid >= 0 else None
        self.best_ask: Decimal | None = self._prices[ask] if ask >= 0 else None

    def size_units(self, side: int, tick: int) -> int:
        """The size at a tick (side BID or ASK) in units of 1/`size_scale`, 0 where nothing rests."""
        return (self.ask_units if side else self.bid_units).get(tick, 0)

    @property
    def best_bid_size(self) -> Decimal | None:
        """Shares at the best bid."""
        tick = self.best_bid_tick
        return scaled(self.size_units(BID, tick), self._size_decimals) if tick >= 0 else None

    @property
    def best_ask_size(self) -> Decimal | None:
        """Shares at the best ask."""
        tick = self.best_ask_tick
        return scaled(self.size_units(ASK, tick), self._size_decimals) if tick >= 0 else None

    @property
    def mid(self) -> Decimal | None:
        """Halfway between best bid and best ask in dollars, exact; None when a side is empty."""
        bid, ask = self.best_bid_tick, self.best_ask_tick
        return scaled((bid + ask) * self.unit * 5, 5) if bid >= 0 and ask >= 0 else None

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid in dollars (negative when crossed); None when a side is empty."""
        bid, ask = self.best_bid_tick, self.best_ask_tick
        return scaled((ask - bid) * self.unit, 4) if bid >= 0 and ask >= 0 else None

    def _walk(self, side: int) -> Iterator[tuple[int, int]]:
        """(tick, size units) of a side, best first."""
        if side:
            tick, sizes, at = self.best_ask_tick, self.ask_units, self._ask_at
            while tick >= 0:
                yield tick, sizes[tick]
                tick = at.find(1, tick + 1)
        else:
            tick, sizes, at = self.best_bid_tick, self.bid_units, self._bid_at
            while tick >= 0:
                yield tick, sizes[tick]
                tick = at.rfind(1, 0, tick)

    def levels(self, side: str, n: int | None = None) -> list[Level]:
        """The best `n` levels of a side (all for None), best first.

        `side` is "BID" or "ASK", or the Side of the orders that rest there: Side.BUY for bids, Side.SELL for asks.
        Raises InvalidOrder for another word or a negative `n`.
        """
        where = _side(side, _SIDES)
        if n is not None and n < 0:
            raise InvalidOrder(f"{n} levels: give a number from 0, or None for all")
        decimals, price_of = self._size_decimals, self._prices
        found: list[Level] = []
        for tick, size in self._walk(where):
            if n is not None and len(found) >= n:
                break
            found.append(Level(price_of[tick], scaled(size, decimals)))
        return found

    def size_at(self, price: Number, side: str | None = None) -> Decimal:
        """Shares resting at a price, 0 where there are none, also between two ticks.

        Without `side` (words as in `levels`) it is found: a price holds bids or asks; in a crossed book it may hold
        both, then the bids count. Raises InvalidOrder for what is no price from 0 to 1 dollar.
        """
        value = to_decimal(price, "price")
        if not 0 <= value <= 1:
            raise InvalidOrder(f"price {value:f} is not between 0 and 1 dollar")
        units = whole(value, PRICE_SCALE)
        tick, rest = divmod(units, self.unit) if units is not None else (0, 1)
        if rest:
            size = 0
        elif side is None:
            size = self.size_units(BID, tick) or self.size_units(ASK, tick)
        else:
            size = self.size_units(_side(side, _SIDES), tick)
        return scaled(size, self._size_decimals)

    def cost(self, side: str, size: Number) -> Cost | None:
        """What taking `size` shares now would cost (Side.BUY, walks the asks) or bring (Side.SELL, walks the bids).

        Before fees. None when the book does not hold that many. Raises InvalidOrder for another side and for a size
        that is not above 0 or not a multiple of 1/`size_scale`.
        """
        taken = _side(side, _TAKES)
        value = to_decimal(size, "size")
        if value <= 0:
            raise InvalidOrder(f"size {value:f} is not above 0")
        left = wanted = grid_units(value, self.size_scale, "size")
        amount = 0  # in ticks x size units
        for tick, available in self._walk(taken):
            if available >= left:
                amount += left * tick
                shares = scaled(wanted, self._size_decimals)
                dollars = scaled(amount * self.unit, self._size_decimals + 4)
                return Cost(shares, dollars, quotient(dollars, shares), self._prices[tick])
            amount += available * tick
            left -= available
        return None

    def size_for(self, side: str, amount: Number) -> Decimal:
        """The shares that `amount` dollars buy now (Side.BUY), or that must be sold for them (Side.SELL), before fees.

        Floored to a multiple of 1/`size_scale`; all the book holds when that is less. Raises InvalidOrder for another
        side or a negative amount.
        """
        taken = _side(side, _TAKES)
        value = to_decimal(amount, "amount")
        if value < 0:
            raise InvalidOrder(f"amount {value:f} is negative")
        numerator, denominator = value.as_integer_ratio()
        left = numerator * PRICE_SCALE * self.size_scale // denominator  # in 0.0001 dollars x 1/size_scale
        size = 0
        for tick, available in self._walk(taken):
            price = tick * self.unit
            if price * available > left:
                size += left // price
                break
            left -= price * available
            size += available
        return scaled(size, self._size_decimals)


def _side(side: object, words: dict[str, int]) -> int:
    found = words.get(side) if isinstance(side, str) else None
    if found is None:
        raise InvalidOrder(f"side {ascii(side)[:40]} is none of {', '.join(words)}")
    return found
