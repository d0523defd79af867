"""Own orders, fills, positions and money as pmkit shows them (wire).

Kalshi keeps one net position per market and tells only the direction: a `bid` is positioned for YES, an `ask` for NO.
Whether an ask sold YES or bought NO is known to whoever placed it; `outcome` says which, and without it the outcome of
the side is taken, i.e. a purchase. Prices come back in that outcome's own dollars.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Final

from pmkit.exchanges.kalshi.sides import EXACT, BookSide, mirrored, own_side
from pmkit.exchanges.kalshi.types import NO, OUTCOMES, YES, RowError, payouts_of, time_ms
from pmkit.exchanges.kalshi.user_messages import (
    BalanceAnswer,
    FillRow,
    MarketPosition,
    OrderRow,
    PositionRow,
    SettlementRow,
    UserFill,
    UserOrder,
)
from pmkit.exchanges.numbers import quotient
from pmkit.exchanges.types import (
    Fill,
    FillState,
    Liquidity,
    OrderId,
    OrderState,
    OrderStatus,
    Position,
    Side,
    TimeInForce,
    Trade,
    TradeResult,
)

ZERO: Final = Decimal(0)
EXPIRED_REASON: Final = "ExpiryCancel"
_STATES: Final = {"resting": OrderState.LIVE, "executed": OrderState.FILLED, "canceled": OrderState.CANCELED}


def order_status(row: OrderRow | UserOrder, outcome: str | None = None, received_ns: int = 0) -> OrderStatus:
    """A REST row or a socket message to an OrderStatus.

    CANCELED may have fills; EXPIRED is a cancel whose reason is the expiry, or that came at or after it. FILLED means
    that nothing is left: a decreased order has filled less than its `size`.
    Raises RowError for a status word that is not documented (look the order up), and for numbers that cannot be.
    """
    state = _STATES.get(row.status)
    if state is None:
        raise RowError(f"order {row.order_id} is {ascii(row.status)[:40]}, a word that is not documented")
    side, outcome, price = _own_terms(row.book_side, row.yes_price_dollars, outcome)
    size, filled = _count(row.initial_count_fp), _count(row.fill_count_fp)
    created_ms, updated_ms, expires_ms, reason = _times(row)
    if state is OrderState.CANCELED and (
        reason == EXPIRED_REASON or (not reason and expires_ms is not None and updated_ms >= expires_ms)
    ):
        state = OrderState.EXPIRED
    return OrderStatus(
        order_id=row.order_id,
        client_order_id=row.client_order_id or None,
        market_id=row.ticker,
        outcome=outcome,
        side=side,
        price=price,
        size=size,
        filled_amount=filled,
        status=state,
        average_price=_average(row, outcome, filled),
        fee=EXACT.add(_optional(row.taker_fees_dollars), _optional(row.maker_fees_dollars)),
        time_in_force=TimeInForce.GTC if expires_ms is None else TimeInForce.GTD,
        reason=reason,
        created_ms=created_ms,
        updated_ms=updated_ms,
        expires_at=None if expires_ms is None else datetime.fromtimestamp(expires_ms / 1000, UTC),
        received_ns=received_ns,
    )


def order_id_of(status: OrderStatus) -> OrderId:
    """The OrderId of an order that was looked up, e.g. after an unknown outcome or a 409."""
    return OrderId(status.order_id, status.status, status.filled_amount, status.average_price, status.fee)


def fill(
    row: FillRow | UserFill,
    outcome: str | None = None,
    client_order_id: str | None = None,
    *,
    own: bool = True,
    received_ns: int = 0,
) -> Fill:
    """A REST row or a socket message to a Fill, FINAL at once. `client_order_id` is for REST rows, which have none.

    Raises RowError for numbers that cannot be.
    """
    side, outcome, price = _own_terms(row.book_side, row.yes_price_dollars, outcome)
    count = _count(row.count_fp)
    if not count:
        raise RowError(f"fill {row.trade_id} is of no contracts")
    if isinstance(row, UserFill):
        ticker, client_order_id, venue_ms = row.market_ticker, row.client_order_id or client_order_id, row.ts_ms
    else:
        ticker, venue_ms = row.ticker, _moment(row.created_time, "created_time of a fill") or 0
    return Fill(
        fill_id=row.trade_id,
        order_id=row.order_id,
        client_order_id=client_order_id,
        market_id=ticker,
        outcome=outcome,
        side=side,
        price=price,
        size=count,
        fee=_number(row.fee_cost),
        liquidity=Liquidity.TAKER if row.is_taker else Liquidity.MAKER,
        state=FillState.FINAL,
        own=own,
        venue_ms=venue_ms,
        received_ns=received_ns,
    )


def position(row: PositionRow | MarketPosition, as_of_ms: int) -> Position | None:
    """A position; None where nothing is held. Negative is NO. `as_of_ms`: venue time up to which it is known.

    Raises RowError for numbers that cannot be.
    """
    if isinstance(row, MarketPosition):
        ticker, cost_text = row.market_ticker, row.position_cost_dollars
    else:
        ticker, cost_text = row.ticker, row.market_exposure_dollars
    net = _number(row.position_fp)
    if not net:
        return None
    outcome, size = (YES, net) if net > 0 else (NO, net.copy_abs())
    cost = _number(cost_text).copy_abs()
    return Position(
        market_id=ticker,
        token_id=f"{ticker}:{outcome}",
        outcome=outcome,
        size=size,
        average_price=quotient(cost, size),
        confirmed=size,
        pending=ZERO,
        as_of_ms=as_of_ms,
    )


def balance(answer: BalanceAnswer, exchange_index: int | None = None) -> Decimal:
    """Dollars of cash: of all shards, or what an order on one shard can spend (0 where the account holds none there).

    Raises RowError where the answer has no breakdown: ask again with `exchange_index` in the query.
    """
    if exchange_index is None:
        return _number(answer.balance_dollars)
    if answer.balance_breakdown is None:
        raise RowError("the balance has no breakdown by shard: ask for that of one shard")
    here = [part.balance for part in answer.balance_breakdown if part.exchange_index == exchange_index]
    with localcontext(EXACT):
        return sum(map(_number, here), ZERO)


def payouts(row: SettlementRow) -> tuple[Decimal, Decimal] | None:
    """Dollars per YES and NO contract by a settlement; None where it does not say."""
    value = None if row.value is None else EXACT.scaleb(Decimal(row.value), Decimal(-2))
    return payouts_of(row.market_result, value)


def profit(row: SettlementRow) -> Decimal:
    """Dollars won or lost by a settled position, fees included. Raises RowError for numbers that cannot be."""
    with localcontext(EXACT):
        costs = _number(row.yes_total_cost_dollars) + _number(row.no_total_cost_dollars) + _number(row.fee_cost)
        return Decimal(row.revenue).scaleb(-2) - costs


def trade(done: Fill, settled: tuple[Decimal, Decimal] | None) -> Trade:
    """A fill and what became of it: OPEN without payouts; WON when what was bought paid 1 or what was sold paid 0.

    `pnl` is of this trade held to the end, its own fee included.
    """
    result, pnl = TradeResult.OPEN, None
    if settled is not None:
        payout = settled[OUTCOMES.index(done.outcome)]
        with localcontext(EXACT):
            gain = payout - done.price if done.side is Side.BUY else done.price - payout
            pnl = gain * done.size - done.fee
        good = payout if done.side is Side.BUY else 1 - payout
        result = TradeResult.WON if good == 1 else TradeResult.LOST if good == 0 else TradeResult.VOID
    return Trade(
        trade_id=done.fill_id,
        order_id=done.order_id,
        market_id=done.market_id,
        outcome=done.outcome,
        side=done.side,
        price=done.price,
        size=done.size,
        fee=done.fee,
        time_ms=done.venue_ms,
        result=result,
        pnl=pnl,
    )


def unseen(fills: Iterable[Fill], seen: set[tuple[str, str, str]]) -> list[Fill]:
    """Those whose (fill id, order id, state) is not in `seen`, which they join: each fill once, live or back-filled."""
    fresh: list[Fill] = []
    for one in fills:
        key = (one.fill_id, one.order_id, str(one.state))
        if key not in seen:
            seen.add(key)
            fresh.append(one)
    return fresh


def _own_terms(side_text: str, yes_price: str, outcome: str | None) -> tuple[Side, str, Decimal]:
    try:
        side = BookSide(side_text)
    except ValueError:
        raise RowError(f"{ascii(side_text)[:40]} is no side of the book") from None
    chosen = side.outcome if outcome is None else outcome
    if chosen not in OUTCOMES:
        raise RowError(f"{ascii(chosen)[:40]} is no outcome of a Kalshi market")
    return own_side(side, chosen), chosen, mirrored(chosen, _price(yes_price))


def _average(row: OrderRow | UserOrder, outcome: str, filled: Decimal) -> Decimal | None:
    """Costs are of the outcome that the side is positioned for; the other's price is what is missing to a dollar."""
    if not filled or row.taker_fill_cost_dollars is None or row.maker_fill_cost_dollars is None:
        return None
    cost = EXACT.add(_number(row.taker_fill_cost_dollars), _number(row.maker_fill_cost_dollars))
    mean = quotient(cost, filled)
    return mean if BookSide(row.book_side).outcome == outcome else EXACT.subtract(Decimal(1), mean)


def _times(row: OrderRow | UserOrder) -> tuple[int, int, int | None, str]:
    """Created, updated, expiry (epoch ms) and reason."""
    if isinstance(row, UserOrder):
        return row.created_ts_ms, row.last_updated_ts_ms, row.expiration_ts_ms or None, row.last_update_reason
    created = _moment(row.created_time, "created_time of an order") or 0
    updated = _moment(row.last_update_time, "last_update_time of an order") or created
    return created, updated, _moment(row.expiration_time, "expiration_time of an order"), ""


def _moment(text: str | None, what: str) -> int | None:
    return time_ms(text, what) if text else None


def _number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite():
        raise RowError(f"{ascii(text)[:40]} is no number")
    return value


def _price(text: str) -> Decimal:
    value = _number(text)
    if not 0 <= value <= 1:
        raise RowError(f"{value} dollars is no price")
    return value


def _count(text: str) -> Decimal:
    value = _number(text)
    if value < 0:
        raise RowError(f"{value} contracts are none")
    return value


def _optional(text: str | None) -> Decimal:
    return _number(text) if text else ZERO
