"""What is asked for in a trial, drawn from a seed and the book that both sides see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pmkit.clock import Entropy
from pmkit.errors import InvalidOrder, OrderRejected, PmkitError
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import OrderId, Side, TimeInForce

CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Ask:
    """One order. `market`: a market order, by `size` or `amount`."""

    kind: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal | None = None
    amount: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False

    @property
    def market(self) -> bool:
        return self.kind.startswith("market")

    def __str__(self) -> str:
        what = f"{self.size:f}" if self.size is not None else f"{self.amount:f} dollars"
        only = ", post only" if self.post_only else ""
        return f"{self.kind}: {self.side} {what} {self.outcome} at {self.price:f} {self.time_in_force}{only}"


async def place(exchange: BaseExchange, market: Market, ask: Ask) -> OrderId | PmkitError:
    """The order id, or what was raised."""
    try:
        if ask.market:
            return await exchange.place_market_order(
                market, ask.outcome, ask.side, worst_price=ask.price, size=ask.size, amount=ask.amount
            )
        assert ask.size is not None
        return await exchange.place_limit_order(
            market,
            ask.outcome,
            ask.side,
            ask.price,
            ask.size,
            time_in_force=ask.time_in_force,
            post_only=ask.post_only,
        )
    except PmkitError as error:
        return error


def told(answer: OrderId | PmkitError) -> tuple[object, ...]:
    """What of an answer must be the same on both sides."""
    if isinstance(answer, OrderId):
        # Price and fee in Kalshi's answer are averages of four decimals: the fills are what counts.
        return ("accepted", answer.status, answer.filled_amount)
    if isinstance(answer, OrderRejected):
        return ("rejected", answer.code)
    return (type(answer).__name__,)


def sizes(entropy: Entropy, most: Decimal) -> Decimal:
    """Mostly whole, sometimes hundredths."""
    whole = Decimal(entropy.randint(5, max(6, int(most))))
    return whole + CENT * entropy.randint(1, 99) if entropy.random() < 0.15 else whole


def better(market: Market, side: Side, price: Decimal, ticks: int) -> Decimal | None:
    """A price so many legal steps more aggressive (fewer than none: less)."""
    up = (side is Side.BUY) == (ticks > 0)
    step = Decimal(market.grid.unit) / 10_000
    for _ in range(abs(ticks)):
        try:
            price = market.ceil_price(price + step) if up else market.floor_price(price - step)
        except InvalidOrder:
            return None
        if not 0 < price < 1:
            return None
    return price


TAKERS = (
    "ioc at the touch", "ioc through", "ioc through", "ioc too far", "fok", "fok too large", "market by size",
    "market by size", "market by amount", "market by amount", "gtc that crosses", "post-only that crosses",
    "too large for the cash", "ioc below a dollar",
)  # fmt: skip


def taker(
    entropy: Entropy,
    market: Market,
    books: Sequence[OrderBook],
    held: dict[str, Decimal],
    kinds: Sequence[str] = TAKERS,
) -> Ask | None:
    """An order that wants to take. `held`: shares by outcome, which may be sold. None where the book is one-sided."""
    book = entropy.choice(list(books))
    kind = entropy.choice(list(kinds))
    side = Side.BUY
    if market.nets_outcomes:
        side = entropy.choice([Side.BUY, Side.SELL])
    elif held.get(book.outcome, Decimal(0)) >= 10 and entropy.random() < 0.5:
        side = Side.SELL
    opposite = Side.SELL if side is Side.BUY else Side.BUY
    levels = book.levels(opposite, 4)
    if not levels:
        return None
    touch = levels[0]
    deep = entropy.randint(1, 3)
    through = better(market, side, touch.price, deep) or touch.price
    here = sum((level.size for level in levels if (level.price <= through) == (side is Side.BUY)), Decimal(0))
    most = touch.size * 2 + 10
    if side is Side.SELL and not market.nets_outcomes:
        most = held[book.outcome] - 1
    size = sizes(entropy, most)
    if kind == "ioc at the touch":
        return Ask(kind, book.outcome, side, touch.price, size, time_in_force=TimeInForce.IOC)
    if kind == "ioc through":
        return Ask(kind, book.outcome, side, through, size, time_in_force=TimeInForce.IOC)
    if kind == "ioc too far":
        away = better(market, side, touch.price, -entropy.randint(1, 2))
        return None if away is None else Ask(kind, book.outcome, side, away, size, time_in_force=TimeInForce.IOC)
    if kind == "fok":
        return Ask(kind, book.outcome, side, through, size, time_in_force=TimeInForce.FOK)
    if kind == "fok too large":
        much = (here + 500).quantize(Decimal(1))
        if side is Side.SELL and not market.nets_outcomes:
            return None
        return Ask(kind, book.outcome, side, through, much, time_in_force=TimeInForce.FOK)
    if kind == "market by size":
        return Ask(kind, book.outcome, side, through, size, time_in_force=TimeInForce.IOC)
    if kind == "market by amount":
        dollars = Decimal(entropy.randint(2, 60)) + CENT * entropy.randint(0, 99)
        return Ask(kind, book.outcome, Side.BUY, through, amount=dollars) if side is Side.BUY else None
    if kind == "gtc that crosses":
        return Ask(kind, book.outcome, side, through, size)
    if kind == "post-only that crosses":
        return Ask(kind, book.outcome, side, through, size, post_only=True)
    if kind == "ioc below a dollar":
        return Ask(kind, book.outcome, side, touch.price, Decimal("1"), time_in_force=TimeInForce.IOC)
    if side is Side.SELL and not market.nets_outcomes:
        return Ask(kind, book.outcome, side, touch.price, Decimal(50_000))
    return Ask(kind, book.outcome, side, touch.price, Decimal(1_000_000), time_in_force=TimeInForce.GTC)


def low_bid(entropy: Entropy, market: Market, books: Sequence[OrderBook]) -> Ask | None:
    """A bid at a few cents for the outcome that is worth more: it holds cash back and is not met."""
    bids = [(book.best_bid, book) for book in books if book.best_bid is not None]
    if not bids:
        return None
    bid, book = max(bids, key=lambda row: row[0])
    price = market.floor_price(Decimal(entropy.randint(10, 50)) / 1000)
    if bid < Decimal("0.4"):
        return None
    return Ask("low bid", book.outcome, Side.BUY, price, sizes(entropy, Decimal(200)))


MAKERS = ("joined", "joined", "joined", "inside", "inside", "deep", "deep", "far")


def maker(entropy: Entropy, market: Market, books: Sequence[OrderBook]) -> Ask | None:
    """An order that rests: at the touch, inside the spread, a few levels behind it, or far."""
    book = entropy.choice(list(books))
    kind = entropy.choice(MAKERS)
    side = Side.BUY if not market.nets_outcomes else entropy.choice([Side.BUY, Side.SELL])
    own, other = (book.best_bid, book.best_ask) if side is Side.BUY else (book.best_ask, book.best_bid)
    if own is None or other is None:
        return None
    if kind == "joined":
        price: Decimal | None = own
    elif kind == "inside":
        price = better(market, side, own, entropy.randint(1, 3))
    elif kind == "deep":
        price = better(market, side, own, -entropy.randint(1, 3))
    else:
        price = better(market, side, own, -entropy.randint(4, 12))
    if price is None or ((price >= other) if side is Side.BUY else (price <= other)):
        return None
    return Ask(kind, book.outcome, side, price, sizes(entropy, Decimal(45)), post_only=entropy.random() < 0.5)
