"""Numbers at the edge: text, JSON numbers and `Decimal` into the integers of books and matching, and back, exactly.

Units: a price is an integer number of 0.0001 dollars, or a tick, which is that number divided by the price step of a
book (its `unit`); a size is an integer number of 1/scale shares, where `scale` is a power of ten (100 on Kalshi,
1_000_000 on Polymarket, whose base unit is 0.000001 share). No function here depends on the caller's decimal context.

What comes from a venue and cannot be right raises `BookError`; what comes from a user raises `InvalidOrder`.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from functools import cache
from typing import Final

from pmkit.errors import InvalidOrder, PmkitError
from pmkit.exchanges.types import PRICE_SCALE

MAX_UNITS: Final = 1 << 52
"""The largest size in units; up to here a double that was read from text names one integer only."""

MEMO_LIMIT: Final = 20_000
"""Spellings a `TickMap` remembers."""

Number = Decimal | str | int
"""What money is given as: never float, never bool (see `to_decimal`)."""

# Inexact is trapped: a conversion that would have to round is a bug here, whatever the caller's own context says.
_EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation, DivisionByZero])
_QUOTIENT = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero])
# Stricter than Decimal(): that also takes "0_5", " 0.5 ", "NaN" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?").fullmatch
_MAX_TEXT = 48


class BookError(PmkitError, ValueError):
    """A book was given what it cannot hold: a price off its grid or out of range, a size that is none."""


def decimals_of(scale: int) -> int:
    """The decimals of a size with `scale` units per share: 100 -> 2. Raises `BookError` unless it is a power of ten."""
    if type(scale) is not int or scale < 1 or scale != 10 ** (len(str(scale)) - 1):
        raise BookError(f"size scale {scale!r} is not a power of ten")
    return len(str(scale)) - 1


def price_decimals(unit: int) -> int:
    """The decimals of prices with a step of `unit` x 0.0001 dollars: 100 -> 2, 50 -> 3, 10 -> 3, 1 -> 4.

    Raises `BookError` unless the step divides a dollar into at least two parts.
    """
    if type(unit) is not int or not 1 <= unit <= PRICE_SCALE // 2 or PRICE_SCALE % unit:
        raise BookError(f"price unit {unit!r} does not divide 10000 units of 0.0001 dollars")
    return next(digits for digits in range(1, 5) if unit % 10 ** (4 - digits) == 0)


def scaled(units: int, decimals: int) -> Decimal:
    """`units` x 10^-decimals, exact and with that many decimals: (525, 3) -> 0.525."""
    return Decimal(units).scaleb(-decimals, _EXACT)


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal:
    """`numerator` / `denominator` to 28 significant digits, half to even, whatever the caller's context is."""
    return _QUOTIENT.divide(numerator, denominator)


@cache
def prices(unit: int) -> tuple[Decimal, ...]:
    """The price in dollars of every tick 0 .. 10000 // unit. One tuple per unit for the whole process."""
    decimals = price_decimals(unit)
    step = unit // 10 ** (4 - decimals)
    return tuple(scaled(tick * step, decimals) for tick in range(PRICE_SCALE // unit + 1))


def whole(value: Decimal, scale: int) -> int | None:
    """`value` x `scale` where that is an integer, else None. `value` is finite."""
    numerator, denominator = value.as_integer_ratio()
    units, rest = divmod(numerator * scale, denominator)
    return None if rest else units


def to_decimal(value: object, name: str) -> Decimal:
    """The one converter of what a user gives: `str`, `int` and `Decimal`, finite, to `Decimal` without rounding.

    Raises `InvalidOrder` naming `name` for float, bool, None and other types, for text that is no plain decimal number
    (an exponent of one or two digits is allowed), for NaN, infinity, and for what is above 10^18 or below 10^-30.
    """
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, str):
        if len(value) > _MAX_TEXT or not _NUMBER(value):
            raise InvalidOrder(f'{name} is {_shown(value)}: not a number; write it like "0.56"')
        number = Decimal(value)
    elif isinstance(value, float):
        raise InvalidOrder(
            f"{name} is the float {value!r}: a float cannot hold most prices and sizes exactly; "
            'give it as text, e.g. "0.56", or as a Decimal'
        )
    elif isinstance(value, bool):
        raise InvalidOrder(f'{name} is the bool {value!r}: give a number as text, e.g. "0.56", or as a Decimal')
    elif isinstance(value, int):
        number = Decimal(value)
    else:
        raise InvalidOrder(f'{name} is {_shown(value)}: give a number as text, e.g. "0.56", or as a Decimal')
    if not number.is_finite():
        raise InvalidOrder(f"{name} is {number}: it must be finite")
    if number and not -30 <= number.adjusted() <= 18:
        raise InvalidOrder(f"{name} is of the order of 1e{number.adjusted()}: out of range")
    return number


def grid_units(value: Decimal, scale: int, name: str) -> int:
    """`value` in units of 1/scale. Raises `InvalidOrder` naming the two legal neighbours when it lies between them."""
    units = whole(value, scale)
    if units is None:
        numerator, denominator = value.as_integer_ratio()
        below = numerator * scale // denominator
        digits = decimals_of(scale)
        raise InvalidOrder(
            f"{name} {value:f} is not a multiple of {scaled(1, digits)}: "
            f"the neighbours are {scaled(below, digits)} and {scaled(below + 1, digits)}"
        )
    return units


class TickMap(dict[str, int]):
    """Price text to tick: `ticks_of["0.5"]` equals `ticks_of["0.50"]`. Every spelling is computed once and remembered.

    0 and 1 dollar are ticks as well (0 and 10000 // unit): venues write them for an empty side. Raises `BookError` for
    what is no number, negative, above 1 or off the grid; those are not remembered.
    """

    __slots__ = ("ticks", "unit")

    def __init__(self, unit: int) -> None:
        price_decimals(unit)
        super().__init__()
        self.unit = unit
        self.ticks = PRICE_SCALE // unit

    def __missing__(self, text: object) -> int:
        if not isinstance(text, str) or len(text) > _MAX_TEXT or not _NUMBER(text):
            raise BookError(f"price {_shown(text)} is not a price in dollars as text")
        numerator, denominator = Decimal(text).as_integer_ratio()
        if not 0 <= numerator <= denominator:
            raise BookError(f"price {_shown(text)} is not between 0 and 1 dollar")
        tick, rest = divmod(numerator * PRICE_SCALE, denominator * self.unit)
        if rest:
            raise BookError(f"price {_shown(text)} is not a multiple of {prices(self.unit)[1]} dollars")
        # Bounded, so that odd spellings cannot fill the memory; the ones in use are back after one look-up each.
        if len(self) >= MEMO_LIMIT:
            self.clear()
        self[text] = tick
        return tick


@cache
def price_ticks(unit: int) -> TickMap:
    """The `TickMap` of a price step of `unit` x 0.0001 dollars; one per unit for the whole process."""
    return TickMap(unit)


def size_units(value: str | float, scale: int) -> int:
    """A size on the wire in units of 1/scale, >= 0: text or int exactly, a double as the one grid value it stands for.

    A double is taken where a decoder made it from number text in C: `value` x `scale` is rounded to an integer, which
    must give `value` again, so the result is the one `Decimal` gives, and a value between two units is refused like
    text would be. Raises `BookError` for NaN, infinity, negative, off-grid, above 2^52 units, junk and other types.
    """
    if type(value) is float:
        try:
            units = round(value * scale)
        except (ValueError, OverflowError):
            raise BookError(f"size {value!r} is not a finite number of units") from None
        if 0 <= units <= MAX_UNITS and units / scale == value:
            return units
    units = _slow_units(value, scale)
    if units < 0:
        raise BookError(f"size {_shown(value)} is negative")
    return units


def delta_units(value: str | float, scale: int) -> int:
    """A signed change of a size (Kalshi's `delta_fp`) in units of 1/scale; otherwise as `size_units`."""
    if type(value) is float:
        try:
            units = round(value * scale)
        except (ValueError, OverflowError):
            raise BookError(f"size {value!r} is not a finite number of units") from None
        if -MAX_UNITS <= units <= MAX_UNITS and units / scale == value:
            return units
    return _slow_units(value, scale)


def _slow_units(value: str | float, scale: int) -> int:
    """Text, ints, and doubles that the short way did not settle."""
    units: int | None = None
    if type(value) is float:
        # Near 2^52 the product of two rounded numbers may be one unit off; the division tells which one was meant.
        near = round(value * scale)
        units = next((guess for guess in (near - 1, near + 1) if guess / scale == value), None)
        # Above the limit no guess need match: say so, rather than that it is off the grid.
        if units is None and abs(near) > MAX_UNITS:
            units = near
    elif type(value) is int:
        units = value * scale
    elif isinstance(value, str) and len(value) <= _MAX_TEXT and _NUMBER(value):
        units = whole(Decimal(value), scale)
    else:
        raise BookError(f"size {_shown(value)} is not a number")
    if units is None:
        raise BookError(f"size {_shown(value)} is not a multiple of 1/{scale}")
    if not -MAX_UNITS <= units <= MAX_UNITS:
        raise BookError(f"size {_shown(value)} is above 2^52 units of 1/{scale}")
    return units


def _shown(value: object) -> str:
    """`value` for a message: escaped to ASCII and short, since it may come from the network."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
