"""Orders and trades as the venue remembers them, and their rows in REST and on the user channel (3.7, 5.2).

Prices are 0.0001 dollars, sizes and money base units (1e-6), always in the terms of the outcome that was ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pmkit.sim.engine import SIZE_UNITS, Side
from pmkit.sim.polymarket.accounts import Account
from pmkit.sim.polymarket.book import decimal_text, price_of, price_text, side_of, size_text
from pmkit.sim.polymarket.market import OUTCOMES, Window
from pmkit.sim.polymarket.order_body import EARLY_EXPIRY_SECONDS, Intent, OrderType

HOUSE_OWNER = "00000000-0000-4000-8000-000000000000"
HOUSE_WALLET = "0x000000000000000000000000000000000000dEaD"


class OrderState(StrEnum):
    """What becomes of an order; what begins with CANCELED is final, and so is MATCHED."""

    DELAYED = "DELAYED"
    LIVE = "LIVE"
    MATCHED = "MATCHED"
    CANCELED = "CANCELED"
    INVALID = "INVALID"


class TradeState(StrEnum):
    """CONFIRMED and FAILED are final."""

    MATCHED = "MATCHED"
    MINED = "MINED"
    CONFIRMED = "CONFIRMED"
    RETRYING = "RETRYING"
    FAILED = "FAILED"


@dataclass(slots=True, eq=False)
class OrderRecord:
    """An accepted order. `matched` counts shares and `spent` dollars of its trades, failed ones included.

    `reason` is the status the user channel shows for a cancellation (CANCELED, CANCELED_EXPIRED_ORDER, ...).
    """

    intent: Intent
    account: Account
    key: str
    window: Window
    outcome: int
    created_ms: int
    state: OrderState = OrderState.LIVE
    reason: str = ""
    matched: int = 0
    spent: int = 0
    fees: int = 0
    trades: list[str] = field(default_factory=list)
    done_ms: int = 0

    @property
    def order_id(self) -> str:
        return self.intent.order_id

    @property
    def side(self) -> Side:
        return self.intent.side

    @property
    def open(self) -> bool:
        return self.state in (OrderState.LIVE, OrderState.DELAYED)

    @property
    def left(self) -> int:
        """Shares that are still wanted."""
        return max(0, self.intent.shares - self.matched)

    @property
    def held(self) -> int:
        """What an open order holds back: dollars of a BUY, shares of a SELL."""
        if not self.open:
            return 0
        if self.side is Side.SELL:
            return self.left
        if self.intent.by_money:
            return max(0, self.intent.money - self.spent)
        return self.intent.money * self.left // self.intent.shares

    @property
    def original_text(self) -> str:
        """Shares; the dollar budget of a FAK or FOK BUY."""
        return size_text(self.intent.money if self.intent.by_money else self.intent.shares)

    def _common(self) -> dict[str, Any]:
        return {
            "id": self.order_id,
            "owner": self.key,
            "market": self.window.condition_id,
            "asset_id": self.intent.token,
            "side": self.side.value,
            "original_size": self.original_text,
            "size_matched": size_text(self.matched),
            "price": price_text(self.intent.limit),
            "outcome": OUTCOMES[self.outcome],
            "expiration": str(self.intent.expiration),
            "order_type": self.intent.order_type.value,
            "maker_address": self.account.wallet,
        }

    def row(self) -> dict[str, Any]:
        """As GET /data/order/{id} shows it."""
        status = "CANCELED_MARKET_RESOLVED" if self.reason == "CANCELED_MARKET_RESOLVED" else self.state.value
        return {
            **self._common(),
            "status": f"ORDER_STATUS_{status}",
            "associate_trades": list(self.trades),
            "created_at": self.created_ms // 1000,
        }

    def event(self, kind: str, now_ms: int) -> dict[str, Any]:
        """As the user channel tells of it; `kind` is PLACEMENT, UPDATE or CANCELLATION."""
        return {
            "event_type": "order",
            "type": kind,
            **self._common(),
            "order_owner": self.key,
            "associate_trades": list(self.trades) or None,
            "created_at": str(self.created_ms // 1000),
            "status": self.reason or self.state.value,
            "timestamp": str(now_ms),
        }

    @property
    def expires_ms(self) -> int:
        """When the venue takes it out: a minute before the stated second."""
        return (self.intent.expiration - EARLY_EXPIRY_SECONDS) * 1000

    @property
    def is_gtd(self) -> bool:
        return self.intent.order_type is OrderType.GTD


@dataclass(slots=True, eq=False)
class Leg:
    """One side of a fill, in its own terms; `record` is None for the background traders."""

    order_id: str
    outcome: int
    side: Side
    price: int
    size: int
    cash: int
    fee: int
    record: OrderRecord | None

    @property
    def wallet(self) -> str:
        return HOUSE_WALLET if self.record is None else self.record.account.wallet

    @property
    def owner(self) -> str:
        return HOUSE_OWNER if self.record is None else self.record.key


@dataclass(slots=True, eq=False)
class TradeRecord:
    """One settlement: a taker against makers at one price level."""

    trade_id: str
    window: Window
    taker: Leg
    makers: list[Leg]
    match_ms: int
    update_ms: int
    bucket: int
    transaction: str
    state: TradeState = TradeState.MATCHED
    sent: bool = False
    mined_ms: int = 0
    history: list[TradeState] = field(default_factory=lambda: [TradeState.MATCHED])

    @property
    def legs(self) -> list[Leg]:
        return [self.taker, *self.makers]

    def owners(self) -> set[str]:
        """The owners (EOAs) that have a part in it."""
        return {leg.record.account.owner for leg in self.legs if leg.record is not None}

    def taken_by(self, viewer: str) -> bool:
        """Whether the taker's side is that owner's."""
        return self.taker.record is not None and self.taker.record.account.owner == viewer

    def _key_of(self, viewer: str) -> str:
        mine = (leg.owner for leg in self.legs if leg.record is not None and leg.record.account.owner == viewer)
        return next(mine, "")

    def _maker(self, leg: Leg) -> dict[str, Any]:
        return {
            "order_id": leg.order_id,
            "owner": leg.owner,
            "maker_address": leg.wallet,
            "matched_amount": size_text(leg.size),
            "price": price_text(leg.price),
            "fee_rate_bps": "0",
            "asset_id": self.window.tokens[leg.outcome],
            "outcome": OUTCOMES[leg.outcome],
            "outcome_index": leg.outcome,
            "side": leg.side.value,
        }

    def _common(self, viewer: str) -> dict[str, Any]:
        taker = self.taker
        return {
            "id": self.trade_id,
            "taker_order_id": taker.order_id,
            "market": self.window.condition_id,
            "asset_id": self.window.tokens[taker.outcome],
            "side": taker.side.value,
            "size": size_text(taker.size),
            "fee_rate_bps": "1000",
            "price": price_text(taker.price),
            "match_time": str(self.match_ms // 1000),
            "last_update": str(self.update_ms // 1000),
            "outcome": OUTCOMES[taker.outcome],
            "bucket_index": self.bucket,
            "owner": taker.owner,
            "maker_address": taker.wallet,
            "transaction_hash": self.transaction if self.sent else "",
            "maker_orders": [self._maker(leg) for leg in self.makers],
            "trader_side": "TAKER" if self.taken_by(viewer) else "MAKER",
        }

    def row(self, viewer: str, *, not_broadcasted: bool = False) -> dict[str, Any]:
        """As GET /data/trades shows it to an owner; `not_broadcasted`: with the word for what is not sent yet."""
        waits = not_broadcasted and self.state is TradeState.MATCHED and not self.sent
        return {
            **self._common(viewer),
            "status": f"TRADE_STATUS_{'MATCHED_NOT_BROADCASTED' if waits else self.state.value}",
        }

    def event(self, viewer: str, now_ms: int) -> dict[str, Any]:
        """As the user channel tells an owner."""
        return {
            "event_type": "trade",
            "type": "TRADE",
            **self._common(viewer),
            "trade_owner": self._key_of(viewer),
            "status": self.state.value,
            "timestamp": str(now_ms),
        }


def make_leg(
    order_id: str, record: OrderRecord | None, outcome: int, side: Side, price: int, size: int, cash: int, fee: int = 0
) -> Leg:
    """A leg from side and price in the engine's terms (those of the first outcome); `cash` is in its own."""
    return Leg(order_id, outcome, side_of(side, outcome), price_of(price, outcome), size, cash, fee, record)


def dollars(units: int) -> str:
    """Base units as the venue writes whole units."""
    return decimal_text(units, SIZE_UNITS)
