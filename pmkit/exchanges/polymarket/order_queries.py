"""What the CLOB answers about own orders and trades, page by page."""

from __future__ import annotations

from typing import Final

from pmkit.errors import ProtocolChanged
from pmkit.exchanges.polymarket.signed_http import SignedSession
from pmkit.exchanges.polymarket.user_messages import (
    FIRST_CURSOR,
    OwnOrder,
    OwnTrade,
    decode_order,
    decode_orders,
    decode_trades,
)

MAX_PAGES: Final = 500


class OrderQueries:
    """Signed reads. All raise as `SignedSession.get`; ProtocolChanged for a walk that does not end."""

    def __init__(self, http: SignedSession) -> None:
        self._http = http

    async def order(self, order_id: str) -> OwnOrder | None:
        """GET /data/order/{id}; None: not found, which is not the same as cancelled."""
        answer = await self._http.get(f"/data/order/{order_id}", missing=True)
        return None if answer.status == 404 else decode_order(answer.body)

    async def open_orders(self, market_id: str = "", order_id: str = "") -> list[OwnOrder]:
        """GET /data/orders: live and delayed orders, oldest first."""
        params = _given(market=market_id, id=order_id)
        found: dict[str, OwnOrder] = {}
        cursor: str | None = FIRST_CURSOR
        seen: set[str] = set()
        while cursor is not None:
            _check(cursor, seen, "/data/orders")
            answer = await self._http.get("/data/orders", {**params, "next_cursor": cursor})
            page = decode_orders(answer.body)
            found.update((row.order_id, row) for row in page.rows)
            cursor = page.next_cursor
        return sorted(found.values(), key=lambda row: row.created_ms)

    async def trades(
        self,
        *,
        after_s: int | None = None,
        market_id: str = "",
        token_id: str = "",
        odd: list[str] | None = None,
    ) -> list[OwnTrade]:
        """GET /data/trades, oldest first. `after_s`: epoch seconds of the match, exclusive. `odd`: where rows that do
        not read are told, in place of ProtocolChanged."""
        params = _given(market=market_id, asset_id=token_id)
        if after_s is not None:
            params["after"] = str(max(0, after_s))
        found: dict[str, OwnTrade] = {}
        cursor: str | None = FIRST_CURSOR
        seen: set[str] = set()
        while cursor is not None:
            _check(cursor, seen, "/data/trades")
            answer = await self._http.get("/data/trades", {**params, "next_cursor": cursor})
            page = decode_trades(answer.body, odd)
            found.update((row.trade_id, row) for row in page.rows)
            cursor = page.next_cursor
        return sorted(found.values(), key=lambda row: row.matched_ms)


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _check(cursor: str, seen: set[str], path: str) -> None:
    if cursor in seen or len(seen) >= MAX_PAGES:
        raise ProtocolChanged(f"Polymarket's {path} does not end: page {len(seen)} leads back, or there are too many")
    seen.add(cursor)
