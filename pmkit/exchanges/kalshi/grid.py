"""Kalshi's price grids (wire): bands in dollars to a `PriceGrid`. Source: "Fixed point migration", 2026-08-20."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from pmkit.exchanges.kalshi.messages import PriceRange
from pmkit.exchanges.market import Band, PriceGrid
from pmkit.exchanges.types import PRICE_SCALE

_STEPS: Final = {"whole": 100, "half": 50, "quint": 20, "deci": 10, "centi": 1}
_CENTER_EDGE = re.compile(r"center_([a-z]+)_edge_([a-z]+)_cent").fullmatch


class GridError(ValueError):
    """Bands that cannot be a price grid, or a structure that is not documented."""


def grid_of(ranges: Sequence[PriceRange] | None, structure: str | None) -> PriceGrid:
    """The grid of a market: its `price_ranges`, or its named structure where they are missing. Raises GridError."""
    if ranges:
        return PriceGrid(tuple(_band(one) for one in ranges))
    return _named(structure or "")


def _units(value: Decimal) -> int:
    if value.is_finite() and abs(value) <= 1:
        numerator, denominator = value.as_integer_ratio()
        units, rest = divmod(numerator * PRICE_SCALE, denominator)
        if not rest:
            return units
    raise GridError(f"{value} is not from 0 to 1 dollar in steps of 0.0001")


def _band(one: PriceRange) -> Band:
    start, end, step = _units(one.start), _units(one.end), _units(one.step)
    if not (0 <= start < end <= PRICE_SCALE and 0 < step <= end - start):
        raise GridError(f"a band from {one.start} to {one.end} in steps of {one.step} is none")
    return Band(start, end, step)


def _named(structure: str) -> PriceGrid:
    if structure == "linear_cent":
        return PriceGrid((Band(0, PRICE_SCALE, 100),))
    if structure == "deci_cent":
        return PriceGrid((Band(0, PRICE_SCALE, 10),))
    if structure == "tapered_deci_cent":
        return _edged(100, 10, 1000)
    found = _CENTER_EDGE(structure)
    center, edge = (_STEPS.get(found[1]), _STEPS.get(found[2])) if found else (None, None)
    if center is None or edge is None:
        raise GridError(f"the price structure {ascii(structure)[:60]} is not known and no bands are given")
    return _edged(center, edge, 100 if structure == "center_deci_edge_centi_cent" else 1000)


def _edged(center: int, edge: int, width: int) -> PriceGrid:
    return PriceGrid(
        (Band(0, width, edge), Band(width, PRICE_SCALE - width, center), Band(PRICE_SCALE - width, PRICE_SCALE, edge))
    )
