"""Fields of request bodies: what they must look like, and the refusals where they do not (5.2, 5.6, 5.15)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec
from aiohttp import web

from pmkit.sim.engine import PRICE_UNITS, Side
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.market import COUNT_UNIT, SHARD
from pmkit.sim.server import Refused

Body = Mapping[str, object]
_E = TypeVar("_E", bound=StrEnum)

_PRICE = re.compile(r"(0|1)\.(\d{1,6})", re.ASCII)
_COUNT = re.compile(r"(\d{1,9})(?:\.(\d{1,2}))?", re.ASCII)
_LONGEST_CLIENT_ID = 64
_SIDES = {"bid": Side.BUY, "ask": Side.SELL}


def bad(details: str) -> Refused:
    """A 400 for a body that is not as documented."""
    return refuse(400, "invalid_parameters", details)


async def read_body(request: web.Request) -> Body:
    """The JSON object of a request. Raises Refused with 400."""
    try:
        body = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise bad(f"the body is not JSON: {error}") from None
    return as_object(body)


def as_object(value: object) -> Body:
    if not isinstance(value, dict):
        raise bad("a JSON object is expected")
    return value


def text(body: Body, name: str, *, required: bool = False) -> str:
    value = body.get(name)
    if value is None or value == "":
        if required:
            raise bad(f"{name} is required")
        return ""
    if not isinstance(value, str):
        raise bad(f"{name} must be a string")
    return value


def whole(body: Body, name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**53:
        raise bad(f"{name} must be a whole number")
    return value


def flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad(f"{name} must be true or false")
    return value


def word(body: Body, name: str, words: Mapping[str, _E]) -> _E:
    found = words.get(text(body, name, required=True))
    if found is None:
        raise bad(f"{name} must be one of {', '.join(words)}")
    return found


def side(body: Body) -> Side:
    return word(body, "side", _SIDES)


def price(body: Body, name: str = "price") -> int:
    """YES dollars as text, in 0.0001 dollars. Raises Refused with `invalid_price`."""
    found = _PRICE.fullmatch(text(body, name, required=True))
    if found is None or found[2][4:].strip("0"):
        raise refuse(400, "invalid_price", "a price is text of dollars with 2 to 4 decimals")
    units = int(found[1]) * PRICE_UNITS + int(found[2][:4].ljust(4, "0"))
    if not 0 < units < PRICE_UNITS:
        raise refuse(400, "invalid_price", "a price lies between 0 and 1")
    return units


def count(body: Body, name: str = "count", *, least: int = 1) -> int:
    """Contracts as text with up to two decimals, in engine units; `least` in hundredths."""
    found = _COUNT.fullmatch(text(body, name, required=True))
    hundredths = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else -1
    if hundredths < least:
        raise refuse(400, "invalid_order_size", f"{name} is text of contracts with 0 to 2 decimals, at least 0.01")
    return hundredths * COUNT_UNIT


def client_order_id(body: Body, name: str = "client_order_id") -> str:
    value = text(body, name)
    if len(value) > _LONGEST_CLIENT_ID:
        raise bad(f"{name} has more than {_LONGEST_CLIENT_ID} characters")
    return value


def primary_only(subaccount: object) -> None:
    """Numbered sub-accounts do not exist here."""
    if subaccount not in (None, "", 0, "0"):
        raise bad("no such subaccount")


def shard_of(given: int | None, ticker: str) -> int:
    """Where a write goes: an index of 0 or more as it is; -1 or none by the ticker, without one to 0 (5.11)."""
    if given is not None and given >= 0:
        return given
    if given is not None and given != -1:
        raise bad("exchange_index must be -1 or more")
    if ticker:
        return SHARD if ticker.startswith("KX") else 0
    if given == -1:
        raise bad("exchange_index -1 needs a market ticker")
    return 0


def bucket_of(given: int | None, ticker: str) -> int | None:
    """The write bucket of a call (7.3): None where the exchange had to find the shard itself."""
    if given is not None and given >= 0:
        return given
    return None if ticker else 0
