"""What the Data API lists a wallet to hold: rows that lag the chain by minutes, by token."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from pmkit.errors import ProtocolChanged
from pmkit.http import HttpSession

POSITIONS_PATH: Final = "/v2/positions"
PAGE: Final = 500
MAX_PAGES: Final = 100


class PositionRow(msgspec.Struct, frozen=True):
    """One token of one wallet. Sizes have four decimals: good enough to know what to ask the chain about."""

    token_id: str
    condition_id: str
    current_size: Decimal
    avg_price: Decimal | None = None
    outcome: str | None = None
    redeemable: bool | None = None


class _Pagination(msgspec.Struct, frozen=True):
    next_cursor: str | None = None


class _Page(msgspec.Struct, frozen=True):
    data: list[PositionRow]
    pagination: _Pagination


async def position_rows(data: HttpSession, wallet: str) -> list[PositionRow]:
    """All open positions of a wallet, unredeemed winners included, dust as well. Raises as a query does."""
    rows: dict[str, PositionRow] = {}
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        params: dict[str, str | int] = {"user": wallet, "filter_amount": 0, "limit": PAGE}
        if cursor is not None:
            params["cursor"] = cursor
        page = await data.get_json(POSITIONS_PATH, _Page, params)
        for row in page.data:
            if not row.current_size.is_finite() or row.current_size < 0:
                raise ProtocolChanged(f"{data.host}: {POSITIONS_PATH} has a position of {row.current_size} shares")
            rows[row.token_id] = row
        cursor = page.pagination.next_cursor
        if not cursor:
            return list(rows.values())
        if cursor in seen:
            break
        seen.add(cursor)
    raise ProtocolChanged(f"{data.host}: {POSITIONS_PATH} does not end after {len(seen)} pages")
