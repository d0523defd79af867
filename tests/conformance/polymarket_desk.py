"""A market of the local Polymarket in which only the test and its clients trade, and three readings of an account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from pmkit.clock import Entropy, SystemClock
from pmkit.config.secret import Secret
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import Fill, OrderStatus
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, Side, TimeInForce
from pmkit.sim.polymarket.accounts import Account, TestAccount
from pmkit.sim.polymarket.venue import PolymarketVenue
from pmkit.sim.polymarket.wallets import WalletType
from pmkit.sim.venues import LocalVenues
from tests.conformance.truth import WINDOW_MS, settings_of

ENOUGH_LEFT_MS = 400_000  # of a window; with less the next one is taken, in which one can trade as well
D = Decimal

OrderRow = tuple[str, str, Decimal, Decimal, Decimal]
"""Order id, BUY or SELL, price, size (dollars for a FAK or FOK BUY), matched."""
FillRow = tuple[str, str, str, str, Decimal, Decimal]
"""Trade id, order id, token, side, price, size."""


class Desk:
    """The venue with an account, whose book holds nothing but what `house` puts there. Orders match at once."""

    def __init__(self, venues: LocalVenues, test: TestAccount) -> None:
        self.venues = venues
        self.test = test
        now = venues.clock.now_ms()
        window = self.venue.current("BTC")
        if window.close_ms - now < ENOUGH_LEFT_MS:
            window = self.venue.listings.at(window.series, now + WINDOW_MS)
        self.window = window
        live = self.venue.engine_of(window)
        assert live is not None
        self.live = live
        live.traders.resting = True
        live.engine.cancel_all()
        self.venue.desk.taker_delay_seconds = 0
        self.venue.data_rows.trade_lag_seconds = self.venue.data_rows.position_lag_seconds = 0

    @property
    def venue(self) -> PolymarketVenue:
        return self.venues.polymarket

    @property
    def account(self) -> Account:
        found = self.venue.accounts.find(self.test.funder)
        assert found is not None
        return found

    @property
    def up(self) -> str:
        return self.window.tokens[0]

    def house(self, side: Side, price: str, shares: int) -> None:
        """Somebody else's order for UP: it rests, or takes what is there."""
        self.live.engine.submit("house", side, int(D(price) * PRICE_UNITS), shares * SIZE_UNITS, client=0)

    def house_takes(self, side: Side, price: str, shares: int) -> None:
        """Somebody else takes, and rests nothing."""
        price_units, size = int(D(price) * PRICE_UNITS), shares * SIZE_UNITS
        self.live.engine.submit("house", side, price_units, size, time_in_force=TimeInForce.IOC, client=0)

    def give(self, shares: int) -> None:
        """Shares of both outcomes."""
        self.venue.accounts.split(self.account, self.window.condition_id, self.window.tokens, shares * SIZE_UNITS)

    def settings(self, **more: Any) -> dict[str, Any]:
        """What a trading script is opened with."""
        return settings_of(self.venues.endpoints) | {
            "private_key": self.test.private_key,
            "signature_type": self.test.signature_type,
            "funder": self.test.funder,
            **more,
        }

    # ---- what the venue holds

    def orders(self) -> set[OrderRow]:
        """The account's open orders."""
        return {
            (row.order_id, row.side.value, D(row.intent.limit) / PRICE_UNITS, D(row.original_text),
             _shares(row.matched))
            for row in self.venue.desk.open_orders(self.test.address)
            if row.account is self.account
        }  # fmt: skip

    def order(self, order_id: str) -> Any:
        return self.venue.desk.orders[order_id]

    def fills(self) -> set[FillRow]:
        """The account's legs of all trades."""
        return {
            (trade.trade_id, leg.order_id, trade.window.tokens[leg.outcome], leg.side.value,
             D(leg.price) / PRICE_UNITS, _shares(leg.size))
            for trade in self.venue.trades.of_owner(self.test.address)
            for leg in trade.legs
            if leg.record is not None and leg.record.account is self.account
        }  # fmt: skip

    def confirmed(self) -> bool:
        trades = self.venue.trades.of_owner(self.test.address)
        return bool(trades) and all(trade.state == "CONFIRMED" for trade in trades)

    def shares(self, token: str | None = None) -> Decimal:
        return _shares(self.account.shares[token or self.up])

    def cash(self) -> Decimal:
        return _shares(self.account.cash)

    # ---- what pmkit reads

    @asynccontextmanager
    async def pmkit(self) -> AsyncIterator[tuple[PolymarketExchange, PolymarketMarket]]:
        """pmkit's client of the same account, and the market."""
        exchange = PolymarketExchange(
            self.venues.endpoints,
            self.venues.endpoints.make_clock(Entropy()),
            private_key=Secret(self.test.private_key),
            signature_type=self.test.signature_type,
            funder=self.test.funder,
        )
        try:
            market = await exchange.get_market(self.window.condition_id)
            assert isinstance(market, PolymarketMarket)
            yield exchange, market
        finally:
            await exchange.close()


def _shares(units: int) -> Decimal:
    return D(units) / SIZE_UNITS


def rows_of(orders: Iterable[Mapping[str, Any]]) -> set[OrderRow]:
    """Open orders as a client shows them."""
    return {
        (row["id"], row["side"], D(row["price"]), D(row["original_size"]), D(row["size_matched"])) for row in orders
    }


def rows_of_pmkit(orders: Iterable[OrderStatus]) -> set[OrderRow]:
    return {(row.order_id, row.side.value, row.price, row.size, row.filled_amount) for row in orders}


def fills_of(trades: Iterable[Mapping[str, Any]], wallet: str) -> set[FillRow]:
    """The wallet's fills in trades as a client shows them: its own side, or its part of the makers'."""
    found: set[FillRow] = set()
    for row in trades:
        if row["trader_side"] == "TAKER":
            found.add(
                (row["id"], row["taker_order_id"], row["asset_id"], row["side"], D(row["price"]), D(row["size"]))
            )  # fmt: skip
        for leg in row["maker_orders"]:
            if leg["maker_address"].lower() == wallet.lower():
                price, size = D(leg["price"]), D(leg["matched_amount"])
                found.add((row["id"], leg["order_id"], leg["asset_id"], leg["side"], price, size))
    return found


def fills_of_pmkit(fills: Iterable[Fill], market: PolymarketMarket) -> set[FillRow]:
    return {
        (fill.fill_id, fill.order_id, market.token_id(fill.outcome), fill.side.value, fill.price, fill.size)
        for fill in fills
    }


@pytest.fixture
def open_desk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Opens a desk for a wallet type. Trades settle within a second."""
    monkeypatch.setattr("pmkit.sim.polymarket.trades.MINED_SECONDS", (0.1, 0.2))
    monkeypatch.setattr("pmkit.sim.polymarket.trades.CONFIRMED_SECONDS", (0.1, 0.2))

    @asynccontextmanager
    async def opened(kind: int = 0, name: str = "conformance") -> AsyncIterator[Desk]:
        async with LocalVenues(seed=7, assets=("BTC",), clock=SystemClock()) as venues:
            yield Desk(venues, venues.polymarket.accounts.make(WalletType(kind), name))
            assert venues.failures == []

    return opened
