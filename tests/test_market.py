"""Price grids, sizes and fees of a market: legal or named, never rounded in silence."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import InvalidOrder
from pmkit.exchanges.market import Band, FeeRule, Market, PriceGrid
from pmkit.exchanges.types import MarketStatus

D = Decimal
TAPERED = PriceGrid((Band(0, 1000, 10), Band(1000, 9000, 100), Band(9000, 10000, 10)))
GRIDS = [PriceGrid.uniform(D(tick)) for tick in ("0.1", "0.01", "0.005", "0.0025", "0.001", "0.0001")] + [TAPERED]


def market(grid: PriceGrid = GRIDS[1], **changes: object) -> Market:
    fields: dict[str, object] = {
        "venue": "v",
        "market_id": "M",
        "asset": "BTC",
        "interval": "15m",
        "title": "",
        "outcomes": ("UP", "DOWN"),
        "token_ids": ("1", "2"),
        "open_ms": 0,
        "close_ms": 900_000,
        "grid": grid,
        "min_size": D(5),
        "size_step": D("0.01"),
        "fees": FeeRule(taker=D("0.07")),
        "status": MarketStatus.OPEN,
    }
    return Market(**{**fields, **changes})  # type: ignore[arg-type]


def legal_by_counting(grid: PriceGrid) -> list[Decimal]:
    found = set()
    for band in grid.bands:
        found |= {units for units in range(band.start, band.end + 1, band.step) if 0 < units < 10_000}
    return [D(units) / 10_000 for units in sorted(found)]


@pytest.mark.parametrize("grid", GRIDS)
@given(st.decimals(D("0.00001"), D("0.99999"), places=6))
def test_floor_and_ceil_are_the_nearest_legal_prices(grid: PriceGrid, price: Decimal) -> None:
    legal = legal_by_counting(grid)
    assert grid.floor(price) == max((each for each in legal if each <= price), default=None)
    assert grid.ceil(price) == min((each for each in legal if each >= price), default=None)
    assert grid.legal(price) == (price in legal)
    assert all(D(each * 10_000) % grid.unit == 0 for each in legal)


def test_the_neighbours_are_named_at_a_change_of_band() -> None:
    with pytest.raises(InvalidOrder, match=r"0\.1 and 0\.11$"):
        market(TAPERED).check_price("0.105")
    assert market(TAPERED).check_price("0.0990") == D("0.099")
    with pytest.raises(InvalidOrder, match=r"neighbours are 0\.99$"):
        market().check_price("0.999")
    for edge in ("0", "1", "-0.5", "2"):
        with pytest.raises(InvalidOrder):
            market().check_price(edge)


@pytest.mark.parametrize("tick", ["0", "1", "0.003", "0.00001", "-0.01", "2"])
def test_a_tick_that_does_not_divide_a_dollar_is_refused(tick: str) -> None:
    with pytest.raises(InvalidOrder):
        PriceGrid.uniform(D(tick))


@given(st.integers(1, 99), st.decimals(D("0.10"), D("500"), places=2), st.booleans())
def test_size_for_is_the_largest_size_that_the_money_pays(cents: int, money: Decimal, maker: bool) -> None:
    price = D(cents) / 100
    for fees in (FeeRule(taker=D("0.07")), FeeRule(taker=D("0.07"), quantum=D("0.0001"), round_up=True)):
        each = market(fees=fees)
        cost = lambda size: size * price + each.fee(price, size, maker)  # noqa: B023, E731
        if cost(each.min_size) > money:
            with pytest.raises(InvalidOrder, match=f"that takes {cost(each.min_size):f}"):
                each.size_for(money, price, maker)
            continue
        size = each.size_for(money, price, maker)
        assert each.check_size(size) == size
        assert cost(size) <= money < cost(size + each.size_step)


def test_fees_of_the_venues_tables() -> None:
    polymarket, kalshi = FeeRule(taker=D("0.07")), FeeRule(taker=D("0.07"), quantum=D("0.0001"), round_up=True)
    assert polymarket.fee(D("0.50"), D(100)) == D("1.75")
    assert polymarket.fee(D("0.10"), D(100)) == D("0.63")
    assert polymarket.fee(D("0.50"), D(100), maker=True) == 0
    assert kalshi.fee(D("0.84"), D("12.37")) == D("0.1164")


def test_the_callers_decimal_context_does_not_matter() -> None:
    with localcontext() as context:
        context.prec = 3
        each = market()
        assert each.size_for("123.45", "0.37") == D("319.55")
        assert each.floor_size("12345.678") == D("12345.67")
        assert each.fee("0.37", "319.55") == D("5.21409")
        assert each.check_size("12345.67") == D("12345.67")


def test_a_foreign_outcome_is_named() -> None:
    with pytest.raises(InvalidOrder, match="'YES' is no outcome of M: it has UP and DOWN"):
        market().token_id("YES")
    assert market().opposite("UP") == "DOWN"


@pytest.mark.parametrize("price", ["-0.01", "1.01", "2"])
def test_a_price_outside_of_a_dollar_has_no_fee(price: str) -> None:
    """The formula gives a negative fee there, and a market would seem to pay for trading."""
    for ask in (lambda: market().fee(price, 10), lambda: market().break_even(price)):
        with pytest.raises(InvalidOrder, match="between 0 and 1"):
            ask()


def test_negative_sizes_are_refused_and_not_rounded() -> None:
    for ask in (lambda: market().floor_size("-1.555"), lambda: market().fee("0.5", -10)):
        with pytest.raises(InvalidOrder, match="negative"):
            ask()
