"""Orders, fills, positions, settlements as REST and the account's channels give them (kalshi.md, 5.7 to 5.10, 6.5)."""

from __future__ import annotations

from pmkit.sim.engine import PRICE_UNITS, Side
from pmkit.sim.kalshi.ledger import (
    Account,
    FillRecord,
    OrderRecord,
    Position,
    SettlementRecord,
    money_text,
    short_money,
)
from pmkit.sim.kalshi.market import SHARD, count_text, price_text
from pmkit.sim.kalshi.windows import iso, iso_us

_CENT = 10_000  # in millionths of a dollar


def _direction(side: Side, old_side: str | None = None) -> dict[str, object]:
    """All the words for one bit. Of the old ones, `side` follows the outcome in fills and is "yes" in orders: captures
    of July 2026 have asks as (sell, yes) in orders and as (sell, no) in fills."""
    outcome = "yes" if side is Side.BUY else "no"
    return {
        "outcome_side": outcome,
        "book_side": "bid" if side is Side.BUY else "ask",
        "side": old_side or outcome,
        "action": "buy" if side is Side.BUY else "sell",
    }


def _order_money(order: OrderRecord) -> dict[str, object]:
    return {
        "initial_count_fp": count_text(order.initial),
        "fill_count_fp": count_text(order.filled),
        "remaining_count_fp": count_text(order.remaining),
        "taker_fill_cost_dollars": money_text(order.taker_cost),
        "maker_fill_cost_dollars": money_text(order.maker_cost),
        "taker_fees_dollars": money_text(order.taker_fees),
        "maker_fees_dollars": money_text(order.maker_fees),
    }


def order_object(order: OrderRecord) -> dict[str, object]:
    """GET /portfolio/orders."""
    return {
        "order_id": order.order_id,
        "user_id": order.account.user_id,
        "client_order_id": order.client_order_id,
        "ticker": order.ticker,
        "type": "limit",
        "status": order.status,
        "yes_price_dollars": price_text(order.price),
        "no_price_dollars": price_text(PRICE_UNITS - order.price),
        "expiration_time": None if order.expires_s is None else iso(order.expires_s * 1000),
        "created_time": iso_us(order.created_us),
        "last_update_time": iso_us(order.updated_us),
        "self_trade_prevention_type": order.self_trade,
        "order_group_id": order.group_id,
        "cancel_order_on_pause": order.cancel_on_pause,
        "subaccount_number": 0,
        "exchange_index": SHARD,
        **_direction(order.side, "yes"),
        **_order_money(order),
    }


def user_order_message(order: OrderRecord) -> dict[str, object]:
    """The `msg` of a user_order."""
    data: dict[str, object] = {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "user_id": order.account.user_id,
        "ticker": order.ticker,
        "exchange_index": SHARD,
        "status": order.status,
        "is_yes": True,
        "yes_price_dollars": price_text(order.price),
        "self_trade_prevention_type": order.self_trade,
        "created_time": iso_us(order.created_us),
        "created_ts_ms": order.created_us // 1000,
        "last_update_time": iso_us(order.updated_us),
        "last_updated_ts_ms": order.updated_us // 1000,
        "subaccount_number": 0,
        "last_update_reason": order.reason,
        **_direction(order.side, "yes"),
        **_order_money(order),
    }
    del data["action"]  # orders over REST have it, these messages do not
    if order.group_id is not None:
        data["order_group_id"] = order.group_id
    if order.expires_s is not None:
        data["expiration_time"] = iso(order.expires_s * 1000)
        data["expiration_ts_ms"] = order.expires_s * 1000
    return data


def fill_object(fill: FillRecord) -> dict[str, object]:
    """GET /portfolio/fills."""
    return {
        "fill_id": fill.trade_id,
        "trade_id": fill.trade_id,
        "order_id": fill.order.order_id,
        "ticker": fill.order.ticker,
        "market_ticker": fill.order.ticker,
        "count_fp": count_text(fill.count),
        "yes_price_dollars": price_text(fill.price),
        "no_price_dollars": price_text(PRICE_UNITS - fill.price),
        "is_taker": fill.is_taker,
        "fee_cost": money_text(fill.fee),
        "created_time": iso_us(fill.at_us),
        "ts": fill.at_us // 1_000_000,
        "subaccount_number": 0,
        "exchange_index": SHARD,
        **_direction(fill.order.side),
    }


def fill_message(fill: FillRecord) -> dict[str, object]:
    """The `msg` of a fill: it has no fill_id, but the client's own id and the position after it."""
    direction = _direction(fill.order.side)
    data: dict[str, object] = {
        "trade_id": fill.trade_id,
        "order_id": fill.order.order_id,
        "market_ticker": fill.order.ticker,
        "exchange_index": SHARD,
        "is_taker": fill.is_taker,
        "purchased_side": direction["side"],
        "yes_price_dollars": price_text(fill.price),
        "count_fp": count_text(fill.count),
        "fee_cost": money_text(fill.fee),
        "post_position_fp": count_text(fill.position_after),
        "subaccount": 0,
        "ts": fill.at_us // 1_000_000,
        "ts_ms": fill.at_us // 1000,
        **direction,
    }
    if fill.order.client_order_id:
        data["client_order_id"] = fill.order.client_order_id
    return data


def position_object(position: Position) -> dict[str, object]:
    """GET /portfolio/positions: a market."""
    return {
        "ticker": position.ticker,
        "exchange_index": SHARD,
        "position_fp": count_text(position.net),
        "market_exposure_dollars": money_text(position.cost),
        "total_traded_dollars": money_text(position.traded),
        "realized_pnl_dollars": money_text(position.realized),
        "fees_paid_dollars": money_text(position.fees),
        "last_updated_ts": iso_us(position.updated_us),
    }


def event_object(event_ticker: str, positions: list[Position]) -> dict[str, object]:
    """GET /portfolio/positions: all markets of an event."""
    return {
        "event_ticker": event_ticker,
        "total_cost_dollars": money_text(sum(position.traded for position in positions)),
        "total_cost_shares_fp": count_text(sum(position.volume for position in positions)),
        "event_exposure_dollars": money_text(sum(position.cost for position in positions)),
        "realized_pnl_dollars": money_text(sum(position.realized for position in positions)),
        "fees_paid_dollars": money_text(sum(position.fees for position in positions)),
    }


def position_message(account: Account, position: Position) -> dict[str, object]:
    """The `msg` of a market_position."""
    return {
        "user_id": account.user_id,
        "market_ticker": position.ticker,
        "position_fp": count_text(position.net),
        "position_cost_dollars": short_money(position.cost),
        "realized_pnl_dollars": short_money(position.realized),
        "fees_paid_dollars": short_money(position.fees),
        "position_fee_cost_dollars": short_money(position.fees),
        "volume_fp": count_text(position.volume),
        "subaccount": 0,
    }


def settlement_object(settlement: SettlementRecord) -> dict[str, object]:
    """GET /portfolio/settlements. Revenue and value are whole cents."""
    return {
        "ticker": settlement.ticker,
        "event_ticker": settlement.ticker.rpartition("-")[0],
        "exchange_index": SHARD,
        "market_result": settlement.result,
        "yes_count_fp": count_text(settlement.yes_count),
        "yes_total_cost_dollars": money_text(settlement.yes_cost),
        "no_count_fp": count_text(settlement.no_count),
        "no_total_cost_dollars": money_text(settlement.no_cost),
        "revenue": settlement.revenue // _CENT,
        "value": 100 if settlement.result == "yes" else 0,
        "fee_cost": money_text(settlement.fees),
        "settled_time": iso_us(settlement.at_us),
    }
