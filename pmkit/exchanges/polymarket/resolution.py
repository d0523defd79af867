"""What proves that a market is over, and how it ended (wire).

Source: docs.polymarket.com and measured windows; redeeming needs the chain's word as well, which may come later.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.messages import ClobMarket, GammaEvent, GammaMarket, JsonList

ONE: Final = Decimal(1)
HALF: Final = Decimal("0.5")
ZERO: Final = Decimal(0)


def text_list(value: JsonList, name: str) -> list[str]:
    """A list that Gamma wrote as JSON inside a string. Raises ProtocolChanged for anything else."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value, type=list[str])
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ProtocolChanged(f"{name} is {ascii(value)[:80]}: not a list of texts") from error
    if value is None:
        raise ProtocolChanged(f"{name} is missing")
    return value


def known_strike(event: GammaEvent | None, ended: bool) -> Decimal | None:
    """The price to beat: only after the end, when Gamma's figure is the one that counts."""
    if not ended or event is None or event.event_metadata is None:
        return None
    strike = event.event_metadata.price_to_beat
    return strike if strike is not None and strike.is_finite() and strike > 0 else None


def _binary(payouts: Sequence[Decimal]) -> tuple[Decimal, ...] | None:
    """Payouts that a finished binary market can have: 1 and 0, or half and half."""
    return tuple(payouts) if sorted(payouts) in ([ZERO, ONE], [HALF, HALF]) else None


def gamma_payouts(row: GammaMarket, outcomes: tuple[str, ...]) -> tuple[Decimal, ...] | None:
    """The result where Gamma's row proves one, in the order of `outcomes`; None while it does not.

    v1: closed, `umaResolutionStatus` resolved, and prices of exactly 0 and 1 or one half each; v2: `resolutionStatus`
    resolved and such prices.
    """
    if row.version == "v2":
        done = row.resolution_status == "resolved"
    else:
        done = row.closed is True and row.uma_resolution_status == "resolved"
    if not done:
        return None
    try:
        labels = [label.strip().upper() for label in text_list(row.outcomes, "outcomes")]
        prices = [Decimal(price) for price in text_list(row.outcome_prices, "outcomePrices")]
    except (ProtocolChanged, ArithmeticError):
        return None
    if sorted(labels) != sorted(outcomes) or len(prices) != len(labels) or not all(map(Decimal.is_finite, prices)):
        return None
    by_label = dict(zip(labels, prices, strict=True))
    return _binary([by_label[outcome] for outcome in outcomes])


def clob_payouts(answer: ClobMarket, market: Market) -> tuple[Decimal, ...] | None:
    """The result where the CLOB names a winner (or a split) of a closed market; None while it does not."""
    if answer.closed is not True or sorted(t.token_id for t in answer.tokens) != sorted(market.token_ids):
        return None
    if answer.is_50_50_outcome:
        return HALF, HALF
    winners = {token.token_id for token in answer.tokens if token.winner}
    return tuple(ONE if token in winners else ZERO for token in market.token_ids) if len(winners) == 1 else None
