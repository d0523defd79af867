"""Numbers at the edge: every spelling of a value is one integer, and what is no value is refused (MD-20)."""

from __future__ import annotations

import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pmkit.errors import InvalidOrder, PmkitError
from pmkit.exchanges.numbers import (
    MAX_UNITS,
    MEMO_LIMIT,
    BookError,
    TickMap,
    decimals_of,
    delta_units,
    grid_units,
    price_decimals,
    price_ticks,
    prices,
    quotient,
    scaled,
    size_units,
    to_decimal,
    whole,
)

UNITS = (1000, 100, 50, 25, 10, 1)
SCALES = (1, 100, 1_000_000)


def spellings(value: Decimal) -> list[str]:
    """Ways in which venues write one number."""
    plain = f"{value:f}"
    if "." not in plain:
        plain += "."
    longer = plain + "00"
    shorter = plain.rstrip("0").rstrip(".") or "0"
    out = [plain, longer, shorter, "+" + shorter, "0" + plain, f"{value:e}", f"{value:E}"]
    if shorter.startswith("0."):
        out.append(shorter[1:])
    return out


# -- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_md_20_every_spelling_of_a_price_is_the_same_tick(unit: int) -> None:
    ticks_of = TickMap(unit)
    step = max(1, 10_000 // unit // 400)
    for tick in range(0, 10_000 // unit + 1, step):
        for text in spellings(Decimal(tick * unit) / 10_000):
            assert ticks_of[text] == tick, text
            assert ticks_of[text] == tick, "from the memo"
            assert text in ticks_of


def test_the_spellings_that_venues_use() -> None:
    assert {price_ticks(10)[text] for text in ("0.5", "0.50", ".5", "0.500", "5e-1", "0.5000")} == {500}
    assert price_ticks(100)["0"] == 0
    assert price_ticks(100)["1"] == price_ticks(100)["1.00"] == 100


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "abc", "0.5x", " 0.5", "0.5 ", "0,5", "0.5.1", ".", "-", "+", "e5", "1e", "0x1", "0.5\n", "\x00"),
        *("NaN", "nan", "sNaN", "Infinity", "inf", "-inf", "-0.5", "-0.01", "1.01", "2", "55", "1e3", "1e-999999999"),
        *("0_5", "0.5_0", "\u0660.\u0665", "1e999999999", "0." + "5" * 60, "0.555", "0.005", "0.015", "1e-5"),
    ],
)
def test_md_20_text_that_is_no_price_on_the_grid_is_refused(text: str) -> None:
    ticks_of = TickMap(100)
    with pytest.raises(BookError) as caught:
        ticks_of[text]
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PmkitError)
    assert str(caught.value).isprintable(), "text from the network reaches no terminal unescaped"
    assert len(str(caught.value)) < 160
    assert not ticks_of, "what is refused is not remembered"


@pytest.mark.parametrize("value", [None, 0.5, 1, True, b"0.5", Decimal("0.5"), float("nan")])
def test_md_20_a_price_that_is_not_text_is_refused(value: Any) -> None:
    with pytest.raises(BookError):
        TickMap(100)[value]


@given(st.text(max_size=12) | st.from_regex(r"[+-]?\d{0,3}\.?\d{0,6}([eE][+-]?\d{1,3})?", fullmatch=True))
def test_a_tick_is_what_decimal_says_or_an_error(text: str) -> None:
    try:
        tick = TickMap(10)[text]
    except BookError:
        return
    assert Decimal(text) == Decimal(tick) / 1000


def test_the_memo_is_bounded_and_stays_right() -> None:
    ticks_of = TickMap(1)
    for n in range(3 * MEMO_LIMIT):
        assert ticks_of[f"0.{n % 10_000:04d}{'0' * (n // 10_000)}"] == n % 10_000
        assert len(ticks_of) <= MEMO_LIMIT
    assert price_ticks(1) is price_ticks(1)


@pytest.mark.parametrize("unit", [0, -1, 3, 7, 10_000, 20_000, 300, 1.0, True, "100", None])
def test_a_step_that_does_not_divide_a_dollar_is_refused(unit: Any) -> None:
    with pytest.raises(BookError):
        TickMap(unit)


def test_price_tables_are_exact_and_shared() -> None:
    assert [price_decimals(unit) for unit in UNITS] == [1, 2, 3, 4, 3, 4]
    for unit in UNITS:
        table = prices(unit)
        assert table is prices(unit)
        assert len(table) == 10_000 // unit + 1
        assert all(Fraction(price) == Fraction(tick * unit, 10_000) for tick, price in enumerate(table))
    assert str(prices(100)[52]) == "0.52"
    assert str(prices(10)[525]) == "0.525"


# -- sizes ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, MAX_UNITS), st.sampled_from(SCALES))
@example(MAX_UNITS, 100)
@example(MAX_UNITS - 1, 1_000_000)
@example(0, 100)
def test_a_size_read_through_a_double_equals_decimal(units: int, scale: int) -> None:
    text = f"{scaled(units, decimals_of(scale)):f}"
    assert size_units(text, scale) == units == Decimal(text) * scale
    assert size_units(float(text), scale) == units
    # The decoder feeds use: number text or a JSON number into a double, in C.
    assert size_units(msgspec.json.decode(f'"{text}"'.encode(), type=float, strict=False), scale) == units
    assert size_units(msgspec.json.decode(text.encode(), type=float), scale) == units
    assert delta_units(-float(text), scale) == -units
    assert delta_units("-" + text, scale) == -units


def test_rounding_alone_is_not_enough_near_the_limit() -> None:
    """Why the division is there: value * scale, rounded, is the wrong unit for some sizes below 2^52 units."""
    seeded = random.Random(1)
    wrong = 0
    for _ in range(20_000):
        units = MAX_UNITS - seeded.randrange(1 << 40)
        value = float(scaled(units, 6))
        wrong += round(value * 1_000_000) != units
        assert size_units(value, 1_000_000) == units
    assert wrong > 0


@pytest.mark.parametrize("scale", [100, 1_000_000])
@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, -math.inf, -0.01, -1.0, -5e-324, 5e-324, 1e300, -1e300, 0.0000001, 1e-7, 12.3456789),
        *("NaN", "inf", "-1", "-0.01", "", "abc", " 1", "1 ", "1_0", "\u0661", "1e99", "0.0000001", "1" * 60, "1e"),
        *(None, True, False, b"1", [], {}, Decimal(1), -1, 10**30),
    ],
)
def test_md_20_what_is_no_size_is_refused(value: Any, scale: int) -> None:
    with pytest.raises(BookError):
        size_units(value, scale)


@pytest.mark.parametrize("scale", SCALES)
def test_sizes_above_two_to_the_52_units_are_refused(scale: int) -> None:
    above = scaled(MAX_UNITS + scale, decimals_of(scale))
    for value in (float(above), f"{above:f}", 2.0**60, 1e18, str(10**18)):
        with pytest.raises(BookError, match=r"2\^52"):
            size_units(value, scale)
        with pytest.raises(BookError, match=r"2\^52"):
            delta_units(f"-{value}" if isinstance(value, str) else -value, scale)
    with pytest.raises(BookError, match=r"2\^52"):
        size_units(10**18, scale)


@given(st.floats())
def test_a_double_between_two_units_is_refused_not_rounded(value: float) -> None:
    try:
        units = delta_units(value, 100)
    except BookError:
        assert not math.isfinite(value) or abs(value) * 100 > MAX_UNITS or float(f"{value:.2f}") != value
        return
    assert units / 100 == value


def test_md_20_spellings_of_a_size() -> None:
    assert {size_units(v, 100) for v in ("100", "100.0", "1e2", "100.00", 100, 100.0, "+100", "0100")} == {10_000}
    assert size_units(".48", 100) == size_units("0.48", 100) == size_units(0.48, 100) == 48
    assert size_units("-0", 100) == size_units(-0.0, 100) == 0
    assert delta_units("-54.00", 100) == delta_units(-54.0, 100) == -5400


# -- what users give ------------------------------------------------------------------------------------------------


@given(st.decimals(min_value=0, max_value=10**6, places=4))
def test_md_20_representations_of_one_value_are_one_decimal(value: Decimal) -> None:
    for text in spellings(value):
        assert to_decimal(text, "price") == value
    assert to_decimal(value, "price") is value
    assert to_decimal(-value, "price") == -value
    assert to_decimal(int(value), "size") == int(value)


@pytest.mark.parametrize("value", [0.56, 1.0, 0.0, math.nan, math.inf])
def test_md_20_a_float_is_refused_and_told_why(value: float) -> None:
    with pytest.raises(InvalidOrder, match=r'price is the float .* give it as text, e\.g\. "0\.56"'):
        to_decimal(value, "price")


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, b"1", [], (), {}, Fraction(1, 2), 1j, object()),
        *("", " 1", "1 ", "abc", "NaN", "inf", "1_0", "0x1", "\u0661", "1" * 60, "1e999", "1e-99", "1e99", "\x1b[2J"),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("1e999999"), 10**40),
        Decimal("1e-999999"),
    ],
)
def test_md_20_what_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidOrder, match="^size is ") as caught:
        to_decimal(value, "size")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 160


def test_an_off_grid_size_names_both_neighbours() -> None:
    assert grid_units(Decimal("10.01"), 100, "size") == 1001
    with pytest.raises(InvalidOrder, match=r"size 10\.001 .* neighbours are 10\.00 and 10\.01"):
        grid_units(Decimal("10.001"), 100, "size")
    with pytest.raises(InvalidOrder, match=r"-1\.5 .* neighbours are -2 and -1"):
        grid_units(Decimal("-1.5"), 1, "size")


@pytest.mark.parametrize("scale", [0, -10, 50, 99, 1.0, True, "100", None, 1000.0])
def test_a_size_scale_is_a_power_of_ten(scale: Any) -> None:
    with pytest.raises(BookError):
        decimals_of(scale)


def test_nothing_depends_on_the_callers_decimal_context() -> None:
    with localcontext() as context:
        context.prec = 2
        context.Emax = 3
        context.Emin = -3
        assert str(scaled(123_456_789_012_345, 6)) == "123456789.012345"
        assert whole(Decimal("123456789.012345"), 1_000_000) == 123_456_789_012_345
        assert to_decimal("123456789.012345", "size").as_tuple().digits == (1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5)
        assert str(quotient(Decimal(1), Decimal(3))) == "0." + "3" * 28
        assert TickMap(1)["0.1234"] == 1234
        assert size_units("123456789.01", 100) == 12_345_678_901
