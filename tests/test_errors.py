"""Errors and order ids travel: a copy or pickle is the thing itself (worker processes, state that a script keeps)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pmkit import errors
from pmkit.exchanges.types import Intent, Order, OrderId, OrderState, Side

INTENT = Intent(
    venue="kalshi",
    client_order_id="c",
    order=Order(market_id="M", outcome="YES", side=Side.BUY, price=Decimal("0.5"), size=Decimal(1)),
    created_ms=1,
)
MADE = [
    errors.ConfigError("wrong settings:", ["one", "two"]),
    errors.ClockSkewError("late", 300),
    errors.RateLimited("slow down", 2.5),
    errors.VenueUnavailable("down", 503, 120.0),
    errors.InvalidOrder("off the grid"),
    errors.OrderRejected("post_only_cross", "it would cross"),
    errors.InsufficientFunds("no money"),
    errors.OrderRateLimited("429", 1.0),
    errors.OrderClockSkew("401", 40_000),
    errors.OrderVenueUnavailable("paused", 503, 10.0),
    errors.OrderUnknown(INTENT, "no answer"),
    errors.CancelUnknown("abc", "no answer"),
    errors.NotYetRedeemable("no result", 30.0),
]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_a_copied_error_says_and_holds_the_same(error: Exception, again: Callable[[Any], Any]) -> None:
    twin = again(error)
    assert type(twin) is type(error)
    assert (str(twin), vars(twin)) == (str(error), vars(error))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copied_order_id_keeps_what_the_answer_said(again: Callable[[Any], Any]) -> None:
    order_id = OrderId("id", OrderState.FILLED, Decimal(5), Decimal("0.5"), Decimal("0.01"))
    twin = again({"kept": order_id})["kept"]
    assert twin == order_id
    assert vars(twin) == vars(order_id)
