"""YES and NO to bid and ask and back, prices and counts as text (wire).

One book per market, quoted in YES dollars: a `bid` buys YES or sells NO, an `ask` sells YES or buys NO; NO at q is YES
at 1 - q. Prices have four decimals on the wire, counts two. Sources: "Order direction", "Fixed point migration".
"""

from __future__ import annotations

from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

from pmkit.errors import InvalidOrder
from pmkit.exchanges.kalshi.types import NO, OUTCOMES, YES
from pmkit.exchanges.market import Market
from pmkit.exchanges.numbers import grid_units, to_decimal
from pmkit.exchanges.types import PRICE_SCALE, Side

EXACT: Final = Context(prec=60)
"""Wide enough for every sum and product of prices, counts and fees; the caller's own context never matters."""

_ONE: Final = Decimal(1)


class BookSide(StrEnum):
    """The side of the YES book. `bid` is positioned for YES, `ask` for NO."""

    BID = "bid"
    ASK = "ask"

    @property
    def outcome(self) -> str:
        """The outcome this side is positioned for (Kalshi's `outcome_side`): what an order of unknown origin buys."""
        return YES if self is BookSide.BID else NO


def book_side(outcome: str, side: Side) -> BookSide:
    """The side of the YES book on which an order rests. Raises InvalidOrder for an outcome that is not YES or NO, and
    for what is no `Side`: whatever is not the BUY would be sold."""
    if outcome not in OUTCOMES:
        raise InvalidOrder(f"{outcome!r} is no outcome of a Kalshi market: it has YES and NO")
    if type(side) is not Side:
        raise InvalidOrder(f"side {ascii(side)[:40]} is no Side: nothing was sent")
    return BookSide.BID if (side is Side.BUY) == (outcome == YES) else BookSide.ASK


def own_side(side: BookSide, outcome: str) -> Side:
    """What an order on that side of the book does with `outcome`."""
    return Side.BUY if side.outcome == outcome else Side.SELL


def mirrored(outcome: str, price: Decimal) -> Decimal:
    """A price of `outcome` in YES dollars, or YES dollars as a price of `outcome`: the two are the same step."""
    return price if outcome == YES else EXACT.subtract(_ONE, price)


def price_text(price: Decimal) -> str:
    """Dollars with four decimals. Raises InvalidOrder outside 0 to 1 and off the grid of 0.0001."""
    units = grid_units(price, PRICE_SCALE, "price")
    if not 0 < units < PRICE_SCALE:
        raise InvalidOrder(f"price {price:f} is not between 0 and 1 dollar")
    return f"0.{units:04d}"


def count_text(count: Decimal) -> str:
    """Contracts with two decimals. Raises InvalidOrder for what is not a positive multiple of 0.01."""
    units = grid_units(count, 100, "size")
    if units <= 0:
        raise InvalidOrder(f"size {count:f} is not above zero")
    return f"{units // 100}.{units % 100:02d}"


def yes_price_text(market: Market, outcome: str, price: object) -> str:
    """A price of `outcome` as YES dollars on the wire, where the market's bands are.

    Raises InvalidOrder for an off-grid price, naming the two legal neighbours in dollars of `outcome`.
    """
    value = to_decimal(price, "price")
    yes_price = mirrored(outcome, value)
    if not market.grid.legal(yes_price):
        around = (market.grid.floor(yes_price), market.grid.ceil(yes_price))
        near = sorted(mirrored(outcome, neighbour) for neighbour in around if neighbour is not None)
        raise InvalidOrder(
            f"price {value:f} of {outcome} is not on the grid of {market.market_id}: the legal neighbours are "
            f"{' and '.join(f'{neighbour:f}' for neighbour in near)}"
        )
    return price_text(yes_price)
