"""What a user asks for as an `Order` and its plan: the wire's checks, and those that need the live book."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pmkit.exchanges.base import Amount
from pmkit.exchanges.numbers import scaled, to_decimal
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.order_plan import OrderPlan, check_crossing, plan_limit_exact, plan_market
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import Order, Side, TimeInForce


def limit_intent(
    data: PolymarketMarketData,
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    price: Amount,
    size: Amount,
    time_in_force: TimeInForce,
    expires_at: datetime | None,
    post_only: bool,
    client_order_id: str | None,
) -> tuple[Order, OrderPlan]:
    """A limit order. Asks nobody: the live book is looked at where there is one. Raises InvalidOrder."""
    limit, shares = to_decimal(price, "price"), to_decimal(size, "size")
    now_ms = 0 if expires_at is None else data.venue_clock.now_ms()  # nothing else asks for it
    plan = plan_limit_exact(market, outcome, side, limit, shares, now_ms, time_in_force, expires_at, post_only)
    best_ask = data.best_ask(plan.token_id)
    if best_ask is not None:
        check_crossing(market, plan, limit, best_ask)
    order = Order(
        market_id=market.market_id,
        outcome=outcome,
        side=plan.side,
        price=limit,
        size=shares,
        time_in_force=plan.time_in_force,
        expires_at=expires_at,
        post_only=post_only,
        client_order_id=client_order_id,
    )
    return order, plan


def leg_intent(data: PolymarketMarketData, market: PolymarketMarket, order: Order) -> tuple[Order, OrderPlan]:
    """A leg of a batch. Raises as `limit_intent`."""
    return limit_intent(
        data,
        market,
        order.outcome,
        order.side,
        order.price,
        order.size,
        order.time_in_force,
        order.expires_at,
        order.post_only,
        order.client_order_id,
    )


def market_intent(
    data: PolymarketMarketData,
    market: PolymarketMarket,
    outcome: str,
    side: Side,
    worst_price: Amount,
    size: Amount | None,
    amount: Amount | None,
    client_order_id: str | None,
) -> tuple[Order, OrderPlan]:
    """An order that takes. The fee inside `amount` is reckoned at the best ask, where a live book knows it; without
    one at the lowest price there is, where a dollar pays the most fee: some is left over then, and never more spent
    than was asked for. Raises InvalidOrder.
    """
    asked = data.best_ask(market.token_id(outcome))
    plan = plan_market(
        market,
        outcome,
        side,
        worst_price=worst_price,
        size=size,
        amount=amount,
        fee_price=scaled(market.grid.unit, 4) if asked is None else asked,
    )
    order = Order(
        market_id=market.market_id,
        outcome=outcome,
        side=plan.side,
        price=to_decimal(worst_price, "worst_price"),
        size=_shares(plan),
        time_in_force=plan.time_in_force,
        client_order_id=client_order_id,
    )
    return order, plan


def _shares(plan: OrderPlan) -> Decimal:
    units = plan.taker_amount if plan.side is Side.BUY else plan.maker_amount
    text = f"{scaled(units, 6):f}".rstrip("0").rstrip(".")
    return Decimal(text)
