"""Markets: price grid, sizes, fees and times of one binary market (wire: no I/O, no clock)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from math import gcd
from typing import TypeVar

import msgspec

from pmkit.errors import InvalidOrder
from pmkit.exchanges.numbers import scaled, to_decimal, whole
from pmkit.exchanges.types import PRICE_SCALE, MarketStatus, NoMarket, Side, TimeInForce

M = TypeVar("M", bound="Market")

ONE = Decimal(1)
_EXACT = Context(prec=60)
"""Wide enough for every product of price, size and rate here; the caller's own context never matters."""


class Band(msgspec.Struct, frozen=True):
    """Prices from start to end (both included) in steps; integers of 0.0001 dollars."""

    start: int
    end: int
    step: int


class PriceGrid(msgspec.Struct, frozen=True):
    """The legal prices of a market. 0 and 1 themselves are never tradable."""

    bands: tuple[Band, ...]

    @classmethod
    def uniform(cls, tick: Decimal) -> PriceGrid:
        """One tick everywhere: 0.01 gives 0.01 .. 0.99. Raises InvalidOrder where the tick does not divide a dollar."""
        step = whole(tick, PRICE_SCALE)
        if step is None or not 0 < step < PRICE_SCALE or PRICE_SCALE % step:
            raise InvalidOrder(f"{tick} is no price step: it has to divide one dollar and be a multiple of 0.0001")
        return cls((Band(0, PRICE_SCALE, step),))

    @property
    def unit(self) -> int:
        """The largest step that every legal price is a multiple of, in 0.0001 dollars: the step of an order book."""
        unit = PRICE_SCALE
        for band in self.bands:
            unit = gcd(unit, band.step, band.start)
        return unit

    def legal(self, price: Decimal) -> bool:
        """Whether an order may carry this price."""
        units = whole(price, PRICE_SCALE)
        if units is None or not 0 < units < PRICE_SCALE:
            return False
        return any(band.start <= units <= band.end and (units - band.start) % band.step == 0 for band in self.bands)

    def floor(self, price: Decimal) -> Decimal | None:
        """The highest legal price at or below, None where there is none."""
        best: int | None = None
        numerator, denominator = price.as_integer_ratio()
        for band in self.bands:
            limit = min(numerator * PRICE_SCALE // denominator, band.end, PRICE_SCALE - 1)
            if limit < band.start:
                continue
            units = limit - (limit - band.start) % band.step
            if units > 0 and (best is None or units > best):
                best = units
        return None if best is None else scaled(best, 4).normalize(_EXACT)

    def ceil(self, price: Decimal) -> Decimal | None:
        """The lowest legal price at or above, None where there is none."""
        best: int | None = None
        numerator, denominator = price.as_integer_ratio()
        for band in self.bands:
            limit = max(-(-numerator * PRICE_SCALE // denominator), band.start, 1)
            units = limit + (band.start - limit) % band.step
            if units <= band.end and units < PRICE_SCALE and (best is None or units < best):
                best = units
        return None if best is None else scaled(best, 4).normalize(_EXACT)


class FeeRule(msgspec.Struct, frozen=True, kw_only=True):
    """fee = size * rate * (price * (1 - price)) ** exponent, rounded to `quantum` dollars per fill.

    Rates are dollars per share at price*(1-price) = 1. `round_up` says which way the venue is assumed to round; the
    venue's own figure in a fill is what counts.
    """

    taker: Decimal = Decimal(0)
    maker: Decimal = Decimal(0)
    exponent: Decimal = ONE
    quantum: Decimal = Decimal("0.00001")
    round_up: bool = False

    def raw(self, price: Decimal, size: Decimal, maker: bool = False) -> Decimal:
        """The fee before rounding."""
        with localcontext(_EXACT):
            rate = self.maker if maker else self.taker
            spread = price * (ONE - price)
            return size * rate * (spread if self.exponent == 1 else spread**self.exponent)

    def fee(self, price: Decimal, size: Decimal, maker: bool = False) -> Decimal:
        """Dollars charged for one fill."""
        rounding = ROUND_CEILING if self.round_up else ROUND_FLOOR
        return self.raw(price, size, maker).quantize(self.quantum, rounding, _EXACT)


class Terms(msgspec.Struct, frozen=True):
    """What an order comes to at the venue: shares, and the dollars it aims at where the venue fills by money."""

    size: Decimal
    money: Decimal | None = None


class Charged(msgspec.Struct, frozen=True):
    """What the fills of one order have cost so far, where the venue rounds over all of them: dollars."""

    cost: Decimal = Decimal(0)
    trade_fee: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """One binary market of one venue. Venues subclass it with ids of their own.

    Times are epoch milliseconds (`open_ms`, `close_ms`: the window, close exclusive); `open_time` and `close_time`
    give them as aware UTC datetimes. `strike` is None until the venue has published it.

    How the venue trades: `tradable_before_open` (orders are taken before the window), `nets_outcomes` (one net
    position: buying one outcome closes the other), `min_marketable` (dollars of a buy that takes at once),
    `taker_delay_ms` (how long a marketable order is held), `final_after_ms` (about how long a fill stays PENDING; 0:
    final at once).
    """

    venue: str
    market_id: str
    asset: str
    interval: str
    title: str
    outcomes: tuple[str, ...]
    token_ids: tuple[str, ...]
    open_ms: int
    close_ms: int
    grid: PriceGrid
    min_size: Decimal
    size_step: Decimal
    fees: FeeRule
    status: MarketStatus
    strike: Decimal | None = None
    strike_source: str = ""
    settlement: str = ""
    protocol: str = ""
    tradable_before_open: bool = False
    nets_outcomes: bool = False
    min_marketable: Decimal = Decimal(0)
    taker_delay_ms: int = 0
    final_after_ms: int = 0
    payouts: tuple[Decimal, ...] | None = None

    @property
    def label(self) -> str:
        """A short name for people: the venue's own where it has one, else the id."""
        return self.market_id

    @property
    def open_time(self) -> datetime:
        """When the window opens, aware UTC."""
        return datetime.fromtimestamp(self.open_ms / 1000, UTC)

    @property
    def close_time(self) -> datetime:
        """When trading ends, aware UTC."""
        return datetime.fromtimestamp(self.close_ms / 1000, UTC)

    def token_id(self, outcome: str) -> str:
        """The token (or `TICKER:YES`) of an outcome. Raises InvalidOrder for a foreign outcome."""
        if outcome not in self.outcomes:
            raise InvalidOrder(f"{outcome!r} is no outcome of {self.market_id}: it has {' and '.join(self.outcomes)}")
        return self.token_ids[self.outcomes.index(outcome)]

    def opposite(self, outcome: str) -> str:
        """The other outcome."""
        self.token_id(outcome)
        return next(other for other in self.outcomes if other != outcome)

    def check_price(self, price: object) -> Decimal:
        """A legal price as Decimal. Raises InvalidOrder naming the two legal neighbours."""
        value = to_decimal(price, "price")
        if not self.grid.legal(value):
            below, above = self.grid.floor(value), self.grid.ceil(value)
            near = " and ".join(f"{neighbour:f}" for neighbour in (below, above) if neighbour is not None)
            raise InvalidOrder(
                f"price {value:f} is not on the grid of {self.market_id}: the legal neighbours are {near}"
            )
        return value

    def check_size(self, size: object) -> Decimal:
        """A legal size as Decimal. Raises InvalidOrder naming the two legal neighbours, or the minimum."""
        value = to_decimal(size, "size")
        if value < self.min_size:
            raise InvalidOrder(f"size {value:f} is below the minimum of {self.min_size:f} of {self.market_id}")
        if _EXACT.remainder(value, self.size_step):
            below = self.floor_size(value)
            raise InvalidOrder(
                f"size {value:f} is not a multiple of {self.size_step:f}: the legal neighbours are "
                f"{below:f} and {below + self.size_step:f}"
            )
        return value

    def floor_price(self, price: object) -> Decimal:
        """The nearest legal price at or below. Raises InvalidOrder where there is none."""
        found = self.grid.floor(to_decimal(price, "price"))
        if found is None:
            raise InvalidOrder(f"no legal price of {self.market_id} is at or below {price}")
        return found

    def ceil_price(self, price: object) -> Decimal:
        """The nearest legal price at or above. Raises InvalidOrder where there is none."""
        found = self.grid.ceil(to_decimal(price, "price"))
        if found is None:
            raise InvalidOrder(f"no legal price of {self.market_id} is at or above {price}")
        return found

    def floor_size(self, size: object) -> Decimal:
        """The size cut to the size step. May be below the minimum. Raises InvalidOrder for a negative one."""
        value = _from_zero(size, "size")
        return _EXACT.multiply(_EXACT.divide_int(value, self.size_step), self.size_step)

    def fee(self, price: object, size: object, maker: bool = False) -> Decimal:
        """Dollars of fee for one fill of this size at this price. Raises InvalidOrder for a price outside 0 to 1."""
        return self.fees.fee(_within_dollar(price), _from_zero(size, "size"), maker)

    def size_for(self, amount: object, price: object, maker: bool = False) -> Decimal:
        """The largest legal size that `amount` dollars buy at `price`, fee included.

        Raises InvalidOrder where that is below the market's minimum size, naming the dollars it would take.
        """
        money = to_decimal(amount, "amount")
        limit = to_decimal(price, "price")
        if not 0 < limit < 1:
            raise InvalidOrder(f"price {limit:f} is not between 0 and 1 dollar")
        with localcontext(_EXACT):
            per_share = limit + self.fees.raw(limit, ONE, maker)
            size = self.floor_size(money / per_share)
            # The estimate has no rounding in it; the venue's may cost a step, or give one.
            while size > 0 and size * limit + self.fees.fee(limit, size, maker) > money:
                size -= self.size_step
            while (size + self.size_step) * limit + self.fees.fee(limit, size + self.size_step, maker) <= money:
                size += self.size_step
        if size < self.min_size:
            need = self.min_size * limit + self.fees.fee(limit, self.min_size, maker)
            raise InvalidOrder(
                f"{money:f} dollars do not buy the minimum of {self.min_size:f} shares of {self.market_id} "
                f"at {limit:f}: "
                f"that takes {need:f}"
            )
        return size

    # What the dry-run asks: the venue's own rules, as its client applies them.

    def limit_terms(
        self,
        outcome: str,
        side: Side,
        price: object,
        size: object,
        *,
        now_ms: int,
        time_in_force: TimeInForce = TimeInForce.GTC,
        expires_at: datetime | None = None,
        post_only: bool = False,
        best_ask: Decimal | None = None,
    ) -> Terms:
        """What a limit order comes to. Raises InvalidOrder for whatever the venue's client refuses to send.

        `best_ask`: of the live book, None where that is not known or empty.
        """
        self.token_id(outcome)
        self.check_price(price)
        shares = self.check_size(size)
        wrong = _wrong_combination(time_in_force, expires_at, post_only, now_ms)
        if wrong:
            raise InvalidOrder(wrong)
        return Terms(shares)

    def market_terms(
        self,
        outcome: str,
        side: Side,
        *,
        worst_price: object,
        size: object = None,
        amount: object = None,
        best_ask: Decimal | None = None,
    ) -> Terms:
        """What a market order comes to. Raises as `limit_terms`."""
        self.token_id(outcome)
        limit = self.check_price(worst_price)
        if (size is None) == (amount is None):
            raise InvalidOrder("a market order takes exactly one of size (shares) and amount (dollars)")
        if amount is None:
            return Terms(self.check_size(size))
        if side is not Side.BUY:
            raise InvalidOrder("amount is for BUY only: sell a number of shares with size")
        return Terms(self.size_for(amount, limit))

    def charge(
        self, side: Side, price: Decimal, size: Decimal, maker: bool, before: Charged
    ) -> tuple[Decimal, Charged]:
        """The fee of one more fill of an order in dollars, and what the order was charged with it."""
        fee = self.fees.fee(price, size, maker)
        return fee, Charged(before.cost + price * size, before.trade_fee + fee, before.paid + fee)

    def resting_fee(self, side: Side, price: Decimal, size: Decimal) -> Decimal:
        """The most dollars of fee and rounding that an order may cost which rests at that price."""
        return self.fees.fee(price, size, maker=True)

    def break_even(self, price: object, maker: bool = False) -> Decimal:
        """The probability at which buying at `price` and holding to the end neither wins nor loses, per share. Raises
        InvalidOrder for a price outside 0 to 1.
        """
        limit = _within_dollar(price)
        return _EXACT.add(limit, self.fees.raw(limit, ONE, maker))

    def payout(self, outcome: str) -> Decimal | None:
        """Dollars per share after resolution, None before."""
        self.token_id(outcome)
        return None if self.payouts is None else self.payouts[self.outcomes.index(outcome)]


def _within_dollar(price: object) -> Decimal:
    value = to_decimal(price, "price")
    if not 0 <= value <= 1:
        raise InvalidOrder(f"price {value:f} is not between 0 and 1 dollar")
    return value


def _from_zero(number: object, what: str) -> Decimal:
    value = to_decimal(number, what)
    if value < 0:
        raise InvalidOrder(f"{what} {value:f} is negative")
    return value


def order_words(side: object, time_in_force: object) -> tuple[Side, TimeInForce]:
    """The two words of an order as what they are. Raises InvalidOrder for any other.

    A plain "BUY" equals Side.BUY and is not the same object: taken for a SELL it would do the opposite.
    """
    if type(side) is Side and type(time_in_force) is TimeInForce:
        return side, time_in_force
    try:
        return Side(side), TimeInForce(time_in_force)  # type: ignore[arg-type] # what is no word raises
    except ValueError as error:
        raise InvalidOrder(f"{error}: sides are BUY and SELL, times in force GTC, GTD, IOC and FOK") from None


def _wrong_combination(time_in_force: TimeInForce, expires_at: object, post_only: bool, now_ms: int) -> str:
    """What is wrong with a combination of order arguments, in words; empty when it is legal."""
    if (time_in_force is TimeInForce.GTD) != (expires_at is not None):
        return "expires_at goes with GTD, and GTD needs it"
    if expires_at is not None:
        if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
            return "expires_at has to be an aware datetime (UTC)"
        if expires_at.timestamp() * 1000 <= now_ms:
            return "expires_at lies in the past"
    if post_only and time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        return "a post-only order rests: it goes with GTC and GTD only"
    return ""


def market_of(kind: type[M], market: object, venue: str) -> M:
    """The market as one of that venue. Raises InvalidOrder for another venue's, for a NoMarket and for what is none."""
    if isinstance(market, kind):
        return market
    if isinstance(market, Market):
        what = f"{market.label} is a market of {market.venue}"
    elif isinstance(market, NoMarket):
        what = f"there is no market ({market.reason})"
    else:
        what = f"{ascii(market)[:60]} is no Market"
    raise InvalidOrder(f"{what}, and one of {venue} is needed: nothing was sent")
