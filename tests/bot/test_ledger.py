"""Fills of one market, counted once, taken back when they fail, and worth what the result says."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from pmkit.bot.ledger import MarketLedger
from pmkit.exchanges.market import FeeRule, Market, PriceGrid
from pmkit.exchanges.types import Fill, FillState, Liquidity, MarketResult, MarketStatus, Side

MARKET = Market(
    venue="kalshi",
    market_id="M",
    asset="BTC",
    interval="15m",
    title="",
    outcomes=("YES", "NO"),
    token_ids=("M:YES", "M:NO"),
    open_ms=0,
    close_ms=900_000,
    grid=PriceGrid.uniform(Decimal("0.01")),
    min_size=Decimal(1),
    size_step=Decimal("0.01"),
    fees=FeeRule(),
    status=MarketStatus.OPEN,
)


def fill(key: str, side: Side, outcome: str, price: str, size: str, fee: str = "0", state: str = "FINAL") -> Fill:
    return Fill(
        fill_id=key,
        order_id="o",
        client_order_id=None,
        market_id="M",
        outcome=outcome,
        side=side,
        price=Decimal(price),
        size=Decimal(size),
        fee=Decimal(fee),
        liquidity=Liquidity.TAKER,
        state=FillState(state),
    )


def test_a_fill_counts_once_over_its_states() -> None:
    ledger = MarketLedger(MARKET)
    assert ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "PENDING"))
    assert not ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "PENDING"))
    assert not ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "FINAL"))
    assert (ledger.cash, ledger.fees, ledger.fills) == (Decimal("-4.17"), Decimal("0.17"), 1)


def test_a_failed_fill_is_taken_back_whole() -> None:
    ledger = MarketLedger(MARKET)
    ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "PENDING"))
    assert ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "FAILED"))
    assert (ledger.cash, ledger.fees, ledger.fills, ledger.shares["YES"]) == (0, 0, 0, 0)
    assert not ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17", "FAILED"))


def test_the_result_pays_the_winner_only() -> None:
    ledger = MarketLedger(MARKET)
    ledger.apply(fill("a", Side.BUY, "YES", "0.40", "10", "0.17"))
    ledger.apply(fill("b", Side.BUY, "NO", "0.50", "4"))
    assert ledger.settle(MarketResult("M", ("YES", "NO"), (Decimal(1), Decimal(0)))) == Decimal("3.83")
    assert ledger.settle(MarketResult("M", ("YES", "NO"), (Decimal("0.5"), Decimal("0.5")))) == Decimal("0.83")


PRICES = st.integers(1, 99).map(lambda cents: f"{Decimal(cents) / 100}")
FILLS = st.lists(
    st.tuples(st.sampled_from(Side), st.sampled_from(("YES", "NO")), PRICES, st.integers(1, 50).map(str)), max_size=20
)


@given(FILLS)
def test_a_pair_of_yes_and_no_is_worth_a_dollar_whatever_happens(fills: list[tuple[Side, str, str, str]]) -> None:
    """Profit under YES plus profit under NO equals profit as if each pair of shares had paid a dollar in sum."""
    ledger = MarketLedger(MARKET)
    for number, (side, outcome, price, size) in enumerate(fills):
        ledger.apply(fill(str(number), side, outcome, price, size))
    up = ledger.value({"YES": Decimal(1)})
    down = ledger.value({"NO": Decimal(1)})
    assert up + down == 2 * ledger.cash + sum(ledger.shares.values(), Decimal(0))
