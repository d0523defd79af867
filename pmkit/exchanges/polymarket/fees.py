"""Fees of one market from what the venue says about it (wire).

fee = shares * rate * (p * (1 - p)) ** exponent per fill, takers only, charged in pUSD. The venue keeps five decimals
and charges nothing below 0.00001; the direction of rounding is not documented, floor is what adapters observed (allow
0.00001 per fill). Source: docs.polymarket.com/trading/fees. Legacy figures (`takerBaseFee` 1000, `/fee-rate`,
`fee_rate_bps`) are not fees.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.market import FeeRule
from pmkit.exchanges.polymarket.messages import FeeData, FeeSchedule

FEE_QUANTUM: Final = Decimal("0.00001")
NO_FEES: Final = FeeRule(quantum=FEE_QUANTUM)
CRYPTO_FALLBACK: Final = FeeRule(taker=Decimal("0.07"), quantum=FEE_QUANTUM)
"""Crypto markets of every length on 2026-10-09 (166 of 166). Used only where no source names a rate, and flagged."""


def fee_rule(clob: FeeData | None, gamma: FeeSchedule | None, enabled: bool | None, name: str) -> tuple[FeeRule, bool]:
    """The rule of one market, and whether it had to be assumed.

    Order: the CLOB's `fd`, no fees where Gamma says `feesEnabled: false`, Gamma's `feeSchedule`, else the crypto
    fallback. Raises ProtocolChanged, naming the market, for a rate or exponent that cannot be one.
    """
    if clob is not None:
        return _rule(clob.r, clob.e, clob.to, name), False
    if enabled is False:
        return NO_FEES, False
    if gamma is not None:
        return _rule(gamma.rate, gamma.exponent, gamma.taker_only, name), False
    return CRYPTO_FALLBACK, True


def _rule(rate: Decimal, exponent: Decimal, taker_only: bool, name: str) -> FeeRule:
    if not (rate.is_finite() and exponent.is_finite() and 0 <= rate <= 1 and 0 <= exponent <= 10):
        raise ProtocolChanged(f"the fees of {name!a} cannot be: rate {rate}, exponent {exponent}")
    return FeeRule(
        taker=rate,
        maker=Decimal(0) if taker_only else rate,
        exponent=exponent.normalize() if exponent else Decimal(0),
        quantum=FEE_QUANTUM,
    )
