"""Fees as the venue names them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.fees import CRYPTO_FALLBACK, NO_FEES, fee_rule
from pmkit.exchanges.polymarket.messages import FeeData, FeeSchedule

CLOB = FeeData(r=Decimal("0.07"))


@pytest.mark.parametrize(
    ("shares", "price", "fee"),
    [
        # The venue's own table, and the three figures of its documentation.
        ("100", "0.50", "1.75000"),
        ("100", "0.10", "0.63000"),
        ("100", "0.03", "0.20370"),
        ("5", "0.99", "0.00346"),  # 0.003465 floored to five decimals
        ("0.01", "0.01", "0"),  # below 0.00001 nothing is charged
        ("0.02", "0.01", "0.00001"),
    ],
)
def test_fee_table(shares: str, price: str, fee: str) -> None:
    rule, assumed = fee_rule(CLOB, None, True, "m")
    assert not assumed
    assert rule.fee(Decimal(price), Decimal(shares)) == Decimal(fee)
    assert rule.fee(Decimal(price), Decimal(shares), maker=True) == 0


def test_order_of_the_sources() -> None:
    gamma = FeeSchedule(rate=Decimal("0.05"))
    assert fee_rule(CLOB, gamma, True, "m")[0].taker == Decimal("0.07")
    assert fee_rule(None, gamma, True, "m")[0].taker == Decimal("0.05")
    assert fee_rule(None, gamma, False, "m") == (NO_FEES, False)
    assert fee_rule(None, None, False, "m") == (NO_FEES, False)
    assert fee_rule(None, None, None, "m") == (CRYPTO_FALLBACK, True)


def test_makers_pay_where_the_market_says_so() -> None:
    rule, _ = fee_rule(FeeData(r=Decimal("0.02"), to=False), None, True, "m")
    assert rule.fee(Decimal("0.5"), Decimal(100), maker=True) == Decimal("0.5")


def test_the_curve_of_another_exponent() -> None:
    rule, _ = fee_rule(FeeData(r=Decimal("0.25"), e=Decimal("2.0")), None, True, "m")
    assert rule.fee(Decimal("0.5"), Decimal(100)) == Decimal("1.5625")


@pytest.mark.parametrize("rate", ["-0.01", "1.01", "NaN", "Infinity"])
def test_a_rate_that_cannot_be_is_refused(rate: str) -> None:
    with pytest.raises(ProtocolChanged, match="btc-updown"):
        fee_rule(FeeData(r=Decimal(rate)), None, True, "btc-updown-15m-1")


@pytest.mark.parametrize("exponent", ["-1", "11", "NaN"])
def test_an_exponent_that_cannot_be_is_refused(exponent: str) -> None:
    with pytest.raises(ProtocolChanged):
        fee_rule(None, FeeSchedule(rate=Decimal("0.07"), exponent=Decimal(exponent)), True, "m")
