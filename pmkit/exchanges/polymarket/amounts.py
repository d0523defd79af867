"""What an order gives and wants, in integers of 0.000001 (wire): pUSD and shares, the caps per order type.

Prices come in units of 0.0001 dollars and sizes in 0.01 shares, so that their product is in base units already and
nothing is rounded. Decimals per price step, which the venue's own table gives as well: prices what the step needs,
sizes 2, dollars both together (docs.polymarket.com/trading/orders, the code of Polymarket's Python SDK).

Orders that only take have caps of their own (FAK, FOK). BUY: dollars to the cent and shares to 4 decimals at every
step, whatever the table says (py-clob-client-v2 issue 99). SELL: dollars to 4 decimals; no page says so for steps finer
than 0.01, refusing is the safe side. A BUY's shares are cut off and never rounded up: rounded up, the price they
imply lies below the limit and the order matches nothing (py-sdk issue 291).
"""

from __future__ import annotations

from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from math import gcd
from typing import Final, NamedTuple, NoReturn

from pmkit.errors import InvalidOrder
from pmkit.exchanges.market import FeeRule
from pmkit.exchanges.numbers import price_decimals, quotient, scaled
from pmkit.exchanges.types import PRICE_SCALE, Side

SIZE_DECIMALS: Final = 2
BASE: Final = 1_000_000
"""Base units per dollar and per share."""

_HUNDREDTH: Final = BASE // 100
_TAKER_DECIMALS: Final = 4
_SELL_QUANTUM: Final = 10 ** (6 - _TAKER_DECIMALS)
# makerAmount and takerAmount are uint256; this keeps every number exact in a double as well.
_MOST: Final = 1 << 52
_EXACT: Final = Context(prec=60, rounding=ROUND_FLOOR)


class Amounts(NamedTuple):
    """Base units of what the maker of the order gives and wants: BUY gives dollars, SELL gives shares."""

    maker: int
    taker: int


def plain(units: int, decimals: int) -> str:
    """Units of 10^-decimals as people write them: (5700, 4) -> 0.57."""
    return f"{scaled(units, decimals):f}".rstrip("0").rstrip(".")


def amount_decimals(tick: int) -> int:
    """Decimals of dollars at a price step of `tick` x 0.0001: 1000 -> 3, 100 -> 4, 50 and 10 -> 5, 25 and 1 -> 6."""
    return price_decimals(tick) + SIZE_DECIMALS


def price_units(price: Decimal, tick: int) -> int:
    """A legal price in 0.0001 dollars. Raises InvalidOrder naming the neighbours for one off the step or at 0 or 1."""
    numerator, denominator = price.as_integer_ratio()
    units, rest = divmod(numerator * PRICE_SCALE, denominator)
    if rest or units % tick or not 0 < units < PRICE_SCALE:
        below = units // tick * tick
        near = {min(max(guess, tick), PRICE_SCALE - tick) for guess in (below, below + tick)}
        names = " and ".join(f"{plain(guess, 4)}" for guess in sorted(near))
        raise InvalidOrder(f"price {price:f} is not on the grid of {plain(tick, 4)}: legal are {names}")
    return units


def size_hundredths(size: Decimal) -> int:
    """A size in 0.01 shares. Raises InvalidOrder naming the neighbours for more decimals, zero and below."""
    numerator, denominator = size.as_integer_ratio()
    units, rest = divmod(numerator * 100, denominator)
    if rest:
        near = f"{scaled(units, 2)} and {scaled(units + 1, 2)}"
        raise InvalidOrder(f"size {size:f} has more than two decimals: the neighbours are {near}")
    if units <= 0:
        raise InvalidOrder(f"size {size:f} is not above zero")
    return units


def resting(side: Side, price: int, size: int) -> Amounts:
    """GTC and GTD: exact. `price` in 0.0001 dollars, `size` in 0.01 shares."""
    return _amounts(side, price * size, size * _HUNDREDTH)


def taking(side: Side, price: int, size: int) -> Amounts:
    """FAK and FOK of a number of shares. A BUY aims at the dollars: at a better price it gets more shares.

    Raises InvalidOrder naming the largest legal size where the dollars have too many decimals: BUY 2, SELL 4.
    """
    dollars = price * size
    quantum = _HUNDREDTH if side is Side.BUY else _SELL_QUANTUM
    if dollars % quantum:
        _refuse_size(side, price, size, quantum)
    return _amounts(side, dollars, size * _HUNDREDTH)


def spending(price: int, cents: int, tick: int) -> Amounts:
    """FAK and FOK BUY for money: `cents` dollars of the fee's payer, shares cut off at what the venue takes.

    `price` is the worst one, in 0.0001 dollars. Raises InvalidOrder where no share is left.
    """
    money = cents * _HUNDREDTH
    quantum = 10 ** (6 - min(amount_decimals(tick), _TAKER_DECIMALS))
    shares = money * PRICE_SCALE // price // quantum * quantum
    if money <= 0 or shares <= 0:
        raise InvalidOrder(f"{scaled(cents, 2)} dollars buy nothing at {plain(price, 4)}")
    if money * PRICE_SCALE < price * shares:
        raise AssertionError("shares were rounded up: the order could not match at its own limit")
    return _amounts(Side.BUY, money, shares)


def cents_within(amount: Decimal, price: Decimal, fees: FeeRule) -> int:
    """The most cents a BUY may spend so that they and the taker fee stay within `amount` dollars; may be 0.

    The fee of one share-dollar grows as the price falls (rate x (1 - p) at exponent 1): `price` is the lowest one the
    order is expected to fill at, the best ask. Filled below that, the fee may exceed the rest of the amount. Raises
    InvalidOrder for a price that is none.
    """
    if not 0 < price < 1:
        raise InvalidOrder(f"price {price:f} is not between 0 and 1 dollar")
    if amount <= 0:
        return 0
    with localcontext(_EXACT):
        per_dollar = 1 + fees.raw(price, Decimal(1)) / price
        cents = int(amount * 100 / per_dollar)
        # The quotient above is cut off at 60 digits, so that an exact cent may come out one too low.
        if Decimal(cents + 1) * per_dollar <= amount * 100:
            cents += 1
    return cents


def floor_hundredths(value: Decimal) -> int:
    """What the venue's own clients do with a size or an amount: cut off after two decimals (0.01 units)."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * 100 // denominator


def implied_price(side: Side, amounts: Amounts) -> Decimal:
    """The price that the amounts say, dollars per share to 28 digits."""
    dollars, shares = amounts if side is Side.BUY else (amounts.taker, amounts.maker)
    return quotient(Decimal(dollars), Decimal(shares))


def _amounts(side: Side, dollars: int, shares: int) -> Amounts:
    if not 0 < dollars <= _MOST or not 0 < shares <= _MOST:
        raise InvalidOrder(f"{scaled(shares, 6)} shares for {scaled(dollars, 6)} dollars is out of range")
    return Amounts(dollars, shares) if side is Side.BUY else Amounts(shares, dollars)


def _refuse_size(side: Side, price: int, size: int, quantum: int) -> NoReturn:
    step = quantum // gcd(price, quantum)
    largest = size // step * step
    decimals = "two decimals" if side is Side.BUY else "four decimals"
    advice = (
        f"the largest legal size is {scaled(largest, 2)}"
        if largest
        else f"the smallest legal size is {scaled(step, 2)}; rest the order (GTC), or choose another price"
    )
    raise InvalidOrder(
        f"size {scaled(size, 2)} at {plain(price, 4)} comes to {plain(price * size, 6)} "
        f"dollars; a {side} that only takes (IOC, FOK) may have {decimals} of dollars: {advice}"
    )
