"""What Polymarket says about an account (wire): the user channel, and orders and trades over REST, in one shape.

The venue writes the same rows in several ways: numbers as text or as numbers, times as seconds, milliseconds or ISO
text, absent fields as null or "". They are read leniently and come out exact (`Decimal`, epoch ms); a row without its
ids, side or sizes is refused. Sources: docs.polymarket.com/asyncapi-user.json, docs.polymarket.com/api-reference,
observations of adapters.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.fields import JSON, Fields, FieldsError, shown
from pmkit.exchanges.polymarket.states import StateOf, fill_state, order_state
from pmkit.exchanges.types import FillState, Liquidity, Side

FIRST_CURSOR: Final = "MA=="
LAST_CURSOR: Final = "LTE="
_ORDER_TYPES: Final = frozenset({"PLACEMENT", "UPDATE", "CANCELLATION"})


class OwnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One own order, as an event of the user channel or a row of REST. Shares and dollars of its own outcome.

    `event`: PLACEMENT, UPDATE or CANCELLATION on the socket, "" over REST. `size_matched` is cumulative. `outcome` is
    upper case, "" where the venue left it out. `expiration` in epoch seconds, 0 for none. `venue_ms` is when the event
    happened, 0 over REST.
    """

    order_id: str
    market_id: str
    token_id: str
    side: Side
    price: Decimal
    original_size: Decimal
    size_matched: Decimal
    status: str
    event: str = ""
    outcome: str = ""
    order_type: str = ""
    owner: str = ""
    maker_address: str = ""
    expiration: int = 0
    created_ms: int = 0
    venue_ms: int = 0
    trade_ids: tuple[str, ...] = ()

    @property
    def state(self) -> StateOf:
        """Where it stands by its status word."""
        return order_state(self.status, self.event)

    @property
    def size_is_money(self) -> bool:
        """A BUY that only takes aims at dollars: `original_size` is its budget, not a number of shares."""
        return self.side is Side.BUY and self.order_type in ("FAK", "FOK")


class MakerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One resting order that a trade hit. `side` is None where the venue left it out."""

    order_id: str
    token_id: str
    price: Decimal
    matched: Decimal
    side: Side | None = None
    outcome: str = ""
    owner: str = ""
    maker_address: str = ""


class OwnLeg(msgspec.Struct, frozen=True, kw_only=True):
    """An own order's part in a trade, in the terms of its own outcome. Keyed by (trade_id, order_id, state).

    `status` is the venue's word; a word that is not known counts as PENDING.
    """

    trade_id: str
    order_id: str
    market_id: str
    token_id: str
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    liquidity: Liquidity
    state: FillState
    status: str
    venue_ms: int
    transaction: str


class OwnTrade(msgspec.Struct, frozen=True, kw_only=True):
    """One trade of an account. The outer fields are the taker's, also where the account was the maker.

    `matched_ms` is when it matched, `venue_ms` when it got this status. `transaction` may be empty until it is mined.
    """

    trade_id: str
    market_id: str
    token_id: str
    side: Side
    price: Decimal
    size: Decimal
    status: str
    taker_order_id: str
    maker_orders: tuple[MakerOrder, ...]
    trader_side: str = ""
    outcome: str = ""
    owner: str = ""
    trade_owner: str = ""
    maker_address: str = ""
    transaction: str = ""
    bucket: int = 0
    matched_ms: int = 0
    venue_ms: int = 0

    def legs(self, api_key: str = "", address: str = "", order_ids: Collection[str] = ()) -> tuple[OwnLeg, ...]:
        """The legs of own orders. As a taker: the outer fields. As a maker: each own element of `maker_orders`.

        A maker order is own by its id, the API key that owns it, or its maker address. The taker's is own by its id or
        where the venue says so (`trader_side` TAKER); without that word, by its owner. Both, where an account traded
        with itself.
        """
        mine = address.lower()
        makers = [
            order
            for order in self.maker_orders
            if order.order_id in order_ids
            or (api_key != "" and order.owner == api_key)
            or (mine != "" and order.maker_address.lower() == mine)
        ]
        taker = self.taker_order_id in order_ids or self.trader_side == "TAKER"
        if not taker and not makers and self.trader_side != "MAKER":
            # In a maker's event the outer owner may be one's own key all the same, so it is asked last.
            taker = api_key != "" and api_key in (self.owner, self.trade_owner)
        legs = []
        if taker:
            legs.append(
                self._leg(self.taker_order_id, self.token_id, self.outcome, self.side, self.price, self.size, False)
            )
        for order in makers:
            side = order.side or self._maker_side(order)
            legs.append(
                self._leg(order.order_id, order.token_id, order.outcome, side, order.price, order.matched, True)
            )
        return tuple(legs)

    def _maker_side(self, order: MakerOrder) -> Side:
        # In one token a buyer meets a seller; in the two tokens of a market both buy (mint) or both sell (merge).
        if order.token_id != self.token_id:
            return self.side
        return Side.SELL if self.side is Side.BUY else Side.BUY

    def _leg(
        self, order_id: str, token: str, outcome: str, side: Side, price: Decimal, size: Decimal, maker: bool
    ) -> OwnLeg:
        return OwnLeg(
            trade_id=self.trade_id,
            order_id=order_id,
            market_id=self.market_id,
            token_id=token,
            outcome=outcome,
            side=side,
            price=price,
            size=size,
            liquidity=Liquidity.MAKER if maker else Liquidity.TAKER,
            state=fill_state(self.status) or FillState.PENDING,
            status=self.status,
            venue_ms=self.venue_ms or self.matched_ms,
            transaction=self.transaction,
        )


class Odd(msgspec.Struct, frozen=True):
    """Something of the user channel that is no order and no trade: `kind` is its event type, `problem` why it does not
    read ("" for a type that is not known, which may be ignored and counted).
    """

    kind: str
    problem: str = ""


UserEvent = OwnOrder | OwnTrade | Odd


def decode_user(frame: bytes) -> list[UserEvent]:
    """The events of one text frame: an object or an array of them. One bad event does not hide the others.

    Raises ProtocolChanged for what is no JSON, or no object and no array.
    """
    content = _json(frame, "a frame of the user channel")
    items = content if isinstance(content, list) else [content]
    if not isinstance(content, list | dict):
        raise ProtocolChanged("a frame of Polymarket's user channel is neither an object nor an array")
    return [_event(item) for item in items]


def _event(item: Any) -> UserEvent:
    if not isinstance(item, dict):
        return Odd("", "no object")
    kind, event = item.get("event_type"), item.get("type")
    if not isinstance(kind, str):
        # Older frames have no event type; what it is follows from the type of the event.
        kind = "trade" if event == "TRADE" else "order" if isinstance(event, str) and event in _ORDER_TYPES else ""
    try:
        if kind == "order":
            return _order(Fields(item))
        if kind == "trade":
            return _trade(Fields(item))
    except FieldsError as error:
        return Odd(kind, str(error))
    return Odd(ascii(kind)[1:-1][:60])


class OrdersPage(msgspec.Struct, frozen=True):
    """GET /data/orders. `next_cursor` is None on the last page."""

    rows: tuple[OwnOrder, ...]
    next_cursor: str | None


class TradesPage(msgspec.Struct, frozen=True):
    """GET /data/trades. `next_cursor` is None on the last page."""

    rows: tuple[OwnTrade, ...]
    next_cursor: str | None


def decode_order(body: bytes) -> OwnOrder | None:
    """GET /data/order/{id}. None where the answer is null or empty: not found, which is not the same as cancelled.

    Raises ProtocolChanged for anything else that is no order.
    """
    content = _json(body, "the answer of /data/order")
    if content is None or content == {} or content == "":
        return None
    if isinstance(content, dict) and isinstance(content.get("order"), dict):
        content = content["order"]
    return _order_row(content, "/data/order")


def decode_orders(body: bytes) -> OrdersPage:
    """One page of GET /data/orders. Raises ProtocolChanged for a page or a row that does not read."""
    rows, cursor = _page(body, "/data/orders")
    return OrdersPage(tuple(_order_row(row, "/data/orders") for row in rows), cursor)


def decode_trades(body: bytes, odd: list[str] | None = None) -> TradesPage:
    """One page of GET /data/trades. Raises ProtocolChanged for a page that does not read, and for a row; with a list
    `odd`, what is wrong with a row goes there, and the others are given.
    """
    rows, cursor = _page(body, "/data/trades")
    found: list[OwnTrade] = []
    for row in rows:
        try:
            found.append(_trade_row(row))
        except ProtocolChanged as error:
            if odd is None:
                raise
            odd.append(str(error))
    return TradesPage(tuple(found), cursor)


def _page(body: bytes, path: str) -> tuple[list[Any], str | None]:
    content = _json(body, f"a page of {path}")
    if isinstance(content, list):
        return content, None
    rows = content.get("data") if isinstance(content, dict) else None
    if rows is None and isinstance(content, dict) and "data" in content and content.get("count") in (0, None):
        rows = []
    if not isinstance(rows, list):
        raise ProtocolChanged(f"a page of Polymarket's {path} has no rows (`data`): update pmkit")
    cursor, problem = content.get("next_cursor"), content.get("error")
    if problem:
        raise ProtocolChanged(f"a page of Polymarket's {path} is an error: {shown(problem)}")
    if cursor is not None and not isinstance(cursor, str):
        raise ProtocolChanged(f"a page of Polymarket's {path} leads to {shown(cursor)}: no cursor: update pmkit")
    return rows, None if cursor in (None, "", LAST_CURSOR) else cursor


def _order_row(content: Any, path: str) -> OwnOrder:
    try:
        return _order(Fields(content))
    except FieldsError as error:
        raise ProtocolChanged(f"an order of Polymarket's {path} does not read: {error}: update pmkit") from error


def _trade_row(content: Any) -> OwnTrade:
    try:
        return _trade(Fields(content))
    except FieldsError as error:
        raise ProtocolChanged(f"a trade of Polymarket's /data/trades does not read: {error}: update pmkit") from error


def _order(row: Fields) -> OwnOrder:
    return OwnOrder(
        order_id=row.text("id").lower(),
        market_id=row.text("market", "").lower(),
        token_id=row.text("asset_id"),
        side=row.side("side"),
        price=row.price("price"),
        original_size=row.money("original_size"),
        size_matched=row.money("size_matched", Decimal(0)),
        status=row.text("status"),
        event=row.text("type", ""),
        outcome=row.text("outcome", "").upper(),
        order_type=row.text("order_type", "").upper(),
        owner=row.text("order_owner", "") or row.text("owner", ""),
        maker_address=row.text("maker_address", ""),
        expiration=row.time_ms("expiration") // 1000,
        created_ms=row.time_ms("created_at"),
        venue_ms=row.time_ms("timestamp"),
        trade_ids=row.texts("associate_trades"),
    )


def _trade(row: Fields) -> OwnTrade:
    side = row.text("trader_side", "").upper()
    return OwnTrade(
        trade_id=row.text("id"),
        market_id=row.text("market", "").lower(),
        token_id=row.text("asset_id"),
        side=row.side("side"),
        price=row.price("price"),
        size=row.money("size"),
        status=row.text("status"),
        taker_order_id=(row.text("taker_order_id") if side == "TAKER" else row.text("taker_order_id", "")).lower(),
        maker_orders=tuple(_maker(item) for item in row.items("maker_orders")),
        trader_side=side,
        outcome=row.text("outcome", "").upper(),
        owner=row.text("owner", ""),
        trade_owner=row.text("trade_owner", ""),
        maker_address=row.text("maker_address", ""),
        transaction=row.text("transaction_hash", ""),
        bucket=row.count("bucket_index"),
        matched_ms=row.time_ms("match_time") or row.time_ms("matchtime"),
        venue_ms=row.time_ms("timestamp") or row.time_ms("last_update"),
    )


def _maker(row: Fields) -> MakerOrder:
    return MakerOrder(
        order_id=row.text("order_id").lower(),
        token_id=row.text("asset_id"),
        price=row.price("price"),
        matched=row.money("matched_amount"),
        side=row.side("side") if row.has("side") else None,
        outcome=row.text("outcome", "").upper(),
        owner=row.text("owner", ""),
        maker_address=row.text("maker_address", ""),
    )


def _json(body: bytes, what: str) -> Any:
    try:
        return JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = f"{what} is no JSON ({len(body)} bytes)"
    raise ProtocolChanged(f"Polymarket: {problem}")
