"""What the venue's rate-limit headers say about the account's own buckets."""

from __future__ import annotations

import pytest

from pmkit.clock import ManualClock
from pmkit.exchanges.polymarket.limits import TradingLimits


@pytest.mark.parametrize(("header", "left"), [("12", 12), ("-3", 0), (" 7 ", 7), ("many", 60), ("9" * 12, 60)])
def test_the_venues_count_is_the_one_that_matters(header: str, left: int) -> None:
    limits = TradingLimits(ManualClock(), "here")
    limits.learn({"poly-ratelimit-remaining": header}, orders=True)
    assert limits.left().orders == left


async def test_a_debt_of_the_cancel_bucket_is_paid_off_first() -> None:
    limits = TradingLimits(clock := ManualClock(), "here")
    limits.learn({"poly-ratelimit-remaining": "-40"}, orders=False)
    await clock.advance(0.5)  # half a second at 80 a second
    assert limits.left().cancels == 0
    await clock.advance(0.25)
    assert limits.left().cancels == pytest.approx(20)


def test_only_a_warning_that_is_true_warns() -> None:
    limits = TradingLimits(ManualClock(), "here")
    for word in ("false", "", "0"):
        limits.learn({"poly-ratelimit-warning": word}, orders=True)
    assert limits.warnings == 0
    limits.learn({"poly-ratelimit-warning": "true"}, orders=True)
    assert limits.warnings == 1
