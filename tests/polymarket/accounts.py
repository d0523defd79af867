"""Public test keys, invented credentials and a market to trade in: what the tests of orders share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from pmkit.exchanges.market import FeeRule, PriceGrid
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import MarketStatus

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
API_KEY = "11111111-2222-3333-4444-555555555555"
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTAwMDE_-w=="
PASSPHRASE = "passphrase-0001"
NOW_MS = 1_795_176_450_123
UP, DOWN = str((1 << 255) + (1 << 60) + 7), str((1 << 254) + (1 << 61) + 9)
UP_V2, DOWN_V2 = str((1 << 248) + (1 << 110)), str((1 << 248) + (1 << 110) + 1)


def signer() -> Signer:
    return Signer(KEY)


def credentials() -> Credentials:
    return Credentials(ADDRESS, API_KEY, SECRET, PASSPHRASE)


def market(tick: str = "0.01", **changes: Any) -> PolymarketMarket:
    """A 15-minute market of protocol v1."""
    made = PolymarketMarket(
        venue="polymarket",
        market_id="0x" + "ab" * 32,
        asset="BTC",
        interval="15m",
        title="BTC up or down",
        outcomes=("UP", "DOWN"),
        token_ids=(UP, DOWN),
        open_ms=1_795_176_000_000,
        close_ms=1_795_176_900_000,
        grid=PriceGrid.uniform(Decimal(tick)),
        min_size=Decimal(5),
        size_step=Decimal("0.01"),
        fees=FeeRule(taker=Decimal("0.07"), quantum=Decimal("0.00001")),
        status=MarketStatus.OPEN,
        protocol="v1",
        min_marketable=Decimal(1),
        slug="btc-updown-15m-1795176000",
    )
    return msgspec.structs.replace(made, **changes)
