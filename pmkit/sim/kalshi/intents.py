"""Before an order touches the book: how far it would get, and whether its money suffices (kalshi.md, 5.2, 5.11)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pmkit.sim.engine import PRICE_UNITS, Side, TimeInForce
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.ledger import Account, Fees, OrderRecord, SelfTrade, cost_of
from pmkit.sim.kalshi.market import SHARD, LiveMarket


@dataclass(frozen=True, slots=True)
class Intent:
    """A create call whose fields were read: prices in 0.0001 dollars of YES, counts in engine units."""

    ticker: str
    side: Side
    price: int
    count: int
    time_in_force: TimeInForce
    self_trade: SelfTrade
    client_order_id: str = ""
    expires_s: int | None = None
    post_only: bool = False
    reduce_only: bool = False
    cancel_on_pause: bool = False
    group_id: str | None = None


@dataclass(slots=True)
class Outcome:
    """What one call did to an order."""

    order: OrderRecord
    filled: int = 0
    money: int = 0
    fees: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How far an order would get: what trades, and which own orders go before or stop it."""

    tradable: int
    cost: int
    fees: int
    own: tuple[str, ...]
    stopped: bool


def crosses(live: LiveMarket, side: Side, price: int) -> bool:
    best = live.engine.best_ask if side is Side.BUY else live.engine.best_bid
    return best is not None and (best <= price if side is Side.BUY else best >= price)


def plan_of(
    live: LiveMarket,
    account: Account,
    side: Side,
    price: int,
    count: int,
    self_trade: SelfTrade,
    charged: Fees | None = None,
) -> Plan:
    """Walk the other side of the book in the order in which it would trade. `charged`: what the order paid so far."""
    charges = Fees() if charged is None else replace(charged)
    path = [
        order
        for order in live.engine.orders()
        if order.side is side.opposite and (order.price <= price if side is Side.BUY else order.price >= price)
    ]
    path.sort(key=lambda order: order.price, reverse=side is Side.SELL)
    left, cost, fees = count, 0, 0
    own: list[str] = []
    for order in path:
        if not left:
            break
        if order.owner == account.user_id:
            own.append(order.order_id)
            if self_trade is SelfTrade.TAKER_AT_CROSS:
                return Plan(count - left, cost, fees, tuple(own), True)
            continue
        traded = min(left, order.size)
        left -= traded
        paid = order.price if side is Side.BUY else PRICE_UNITS - order.price
        cost += cost_of(paid, traded)
        fees += charges.fill(paid, traded, is_taker=True)
    return Plan(count - left, cost, fees, tuple(own), False)


def check_funds(account: Account, ticker: str, side: Side, price: int, plan: Plan, resting: int) -> None:
    """Whether the shard's balance covers what trades, its fees, and what rests afterwards (with all else there)."""
    net = account.net(ticker)
    sign = 1 if side is Side.BUY else -1
    closing = min(plan.tradable, max(0, -sign * net))
    # Every contract is paid for; those that net against the position bring a dollar a pair.
    spent = plan.cost - cost_of(PRICE_UNITS, closing)
    after = net + sign * plan.tradable
    extra = ((side, price, resting),) if resting else ()
    change = account.reserved(ticker, extra, after) - account.reserved(ticker)
    need = spent + plan.fees + change
    if need > 0 and need > account.available(SHARD):
        raise refuse(400, "insufficient_balance", f"exchange index {SHARD}")
