"""Fields of a JSON row that the venue writes in more than one way (wire): exact numbers, times, sides."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.exchanges.types import Side

JSON: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(float_hook=Decimal)
"""JSON of any shape; numbers with a fraction come out as Decimal, digit by digit."""

_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{0,40})?").fullmatch
_DIGITS = re.compile(r"[0-9]{1,20}").fullmatch
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
# Seconds until the year 5138, milliseconds from March 1973, microseconds and nanoseconds beyond: told apart by size.
_SECONDS_BELOW: Final = 100_000_000_000
_MS_BELOW: Final = 100_000_000_000_000
_MISSING: Final[Any] = object()


class FieldsError(ValueError):
    """A field is missing or cannot be what it has to be. Names it, and holds at most a short, escaped piece of it."""


class Fields:
    """One JSON object. A field that is absent, null or "" is missing; a missing field without a default raises."""

    __slots__ = ("_row",)

    def __init__(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise FieldsError(f"{shown(row)} is no object")
        self._row = row

    def has(self, name: str) -> bool:
        return self._row.get(name) not in (None, "")

    def text(self, name: str, default: str = _MISSING) -> str:
        """A text; a whole number is taken as its digits."""
        value = self._value(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise FieldsError(f"{name} is {shown(value)}: not a text")
        return value

    def money(self, name: str, default: Decimal = _MISSING) -> Decimal:
        """A number >= 0 as text or JSON number, exact. NaN, infinity, exponents and bools are refused."""
        return money(self._value(name, default), name)

    def price(self, name: str) -> Decimal:
        """Dollars of a share: `money` of at most 1."""
        value = self.money(name)
        if value > 1:
            raise FieldsError(f"{name} is {shown(self._row.get(name))}: no share costs more than a dollar")
        return value

    def time_ms(self, name: str) -> int:
        """Epoch ms; 0 where it is missing. Seconds, ms, us and ns are told apart by size; ISO text is taken."""
        return time_ms(self._value(name, 0), name)

    def side(self, name: str) -> Side:
        """BUY or SELL, in any case."""
        value = self.text(name).upper()
        if value not in ("BUY", "SELL"):
            raise FieldsError(f"{name} is {shown(value)}: neither BUY nor SELL")
        return Side(value)

    def count(self, name: str) -> int:
        """A small whole number; 0 where it is missing."""
        value = self._value(name, 0)
        if isinstance(value, str) and _DIGITS(value):
            return int(value)
        if type(value) is not int or value < 0:
            raise FieldsError(f"{name} is {shown(value)}: not a whole number")
        return value

    def flag(self, name: str) -> bool:
        """True only for a JSON true."""
        return self._row.get(name) is True

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it is missing."""
        value = self._value(name, ())
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise FieldsError(f"{name} is {shown(value)}: not a list of texts")
        return tuple(value)

    def items(self, name: str) -> list[Fields]:
        """A list of objects; empty where it is missing."""
        value = self._value(name, [])
        if not isinstance(value, list):
            raise FieldsError(f"{name} is {shown(value)}: not a list")
        return [Fields(item) for item in value]

    def object(self, name: str) -> Fields:
        """A nested object."""
        return Fields(self._value(name, _MISSING))

    def raw(self, name: str) -> Any:
        """Whatever is there; None where nothing is."""
        return self._row.get(name)

    def _value(self, name: str, default: Any) -> Any:
        value = self._row.get(name)
        if value is None or value == "":
            if default is _MISSING:
                raise FieldsError(f"{name} is missing")
            return default
        return value


def money(value: Any, name: str) -> Decimal:
    """A number >= 0, exact, from text, a JSON number or a Decimal. Raises FieldsError."""
    if isinstance(value, str) and _NUMBER(value):
        number = Decimal(value)
    elif isinstance(value, Decimal):
        number = value
    elif type(value) is int:
        number = Decimal(value)
    else:
        raise FieldsError(f"{name} is {shown(value)}: not a number")
    if not number.is_finite() or number < 0 or number >= 10**40:
        raise FieldsError(f"{name} is {shown(value)}: out of range")
    # Written out, a number with a large negative exponent fills the memory.
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -40:
        raise FieldsError(f"{name} is {shown(value)}: out of range")
    return number


def time_ms(value: Any, name: str) -> int:
    """Epoch ms of a time in any of the venue's spellings. Raises FieldsError."""
    if isinstance(value, str) and _DIGITS(value):
        value = int(value)
    elif isinstance(value, str) and _ISO(value):
        try:
            value = round(datetime.fromisoformat(value).timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            raise FieldsError(f"{name} is {shown(value)}: not a time") from error
    elif isinstance(value, Decimal) and value.is_finite() and 0 <= value < 10**20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 10**20:
        raise FieldsError(f"{name} is {shown(value)}: not a time")
    number: int = value
    if number < _SECONDS_BELOW:
        return number * 1000
    while number >= _MS_BELOW:
        number //= 1000
    return number


def shown(value: Any) -> str:
    """A value from the network for a message: escaped and short."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
