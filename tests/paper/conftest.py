"""A market, its books and a source of public data that the test drives by hand."""

from collections.abc import Iterable
from decimal import Decimal

import pytest

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.market import FeeRule, Market, PriceGrid
from pmkit.exchanges.orderbook import ASK, BID, OrderBook
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import MarketResult, MarketStatus, PublicTrade, Side
from pmkit.streams import Policy, Subscription

START_MS = 1_795_176_000_000


def make_market(**changes) -> Market:
    fields = {
        "venue": "polymarket",
        "market_id": "M",
        "asset": "BTC",
        "interval": "15m",
        "title": "",
        "outcomes": ("UP", "DOWN"),
        "token_ids": ("1", "2"),
        "open_ms": START_MS,
        "close_ms": START_MS + 900_000,
        "grid": PriceGrid.uniform(Decimal("0.01")),
        "min_size": Decimal(5),
        "size_step": Decimal("0.01"),
        "fees": FeeRule(taker=Decimal("0.07")),
        "status": MarketStatus.OPEN,
    }
    given = {**fields, **changes}
    return given.pop("kind", Market)(**given)


POLYMARKET = {"kind": PolymarketMarket, "slug": "btc-updown-15m-1795176000", "protocol": "v2"}
KALSHI = {
    "venue": "kalshi",
    "outcomes": ("YES", "NO"),
    "token_ids": ("M:YES", "M:NO"),
    "nets_outcomes": True,
    "min_size": Decimal("0.01"),
    "fees": FeeRule(taker=Decimal("0.07"), quantum=Decimal("0.0001"), round_up=True),
}


class HandData(MarketData):
    """Public data that the test makes: `show` a book, `trade` a print, `resolve` the market."""

    def __init__(self, market: Market, clock: ManualClock) -> None:
        super().__init__(Endpoints(), clock)
        self.venue = market.venue
        self.market = market
        self.books = {
            outcome: OrderBook(
                venue=market.venue, market_id="M", outcome=outcome, token_id=token, unit=100, size_scale=1_000_000
            )
            for outcome, token in zip(market.outcomes, market.token_ids, strict=True)
        }
        self._book_streams: list[Subscription[OrderBook]] = []
        self._trade_streams: list[Subscription[PublicTrade]] = []
        self.result = clock_future(clock)
        self.closed = 0

    def show(self, outcome: str, bids: dict[str, str], asks: dict[str, str]) -> None:
        now_ns = self.clock.time_ns()
        for name, (buy, sell) in {
            outcome: (bids, asks),
            self.market.opposite(outcome): (mirror(asks), mirror(bids)),
        }.items():
            book = self.books[name]
            book.snapshot(levels(buy), levels(sell), now_ns // 1_000_000, now_ns)
            for stream in self._book_streams:
                stream.publish(book)

    def trade(self, outcome: str, side: Side, price: str, size: str) -> None:
        now_ns = self.clock.time_ns()
        for stream in self._trade_streams:
            stream.publish(
                PublicTrade(
                    market_id="M",
                    outcome=outcome,
                    price=Decimal(price),
                    size=Decimal(size),
                    side=side,
                    trade_id="",
                    venue_ms=now_ns // 1_000_000,
                    received_ns=now_ns,
                )
            )

    async def close(self) -> None:
        self.closed += 1

    def finder(self):
        raise AssertionError("not here")

    async def get_market(self, market_id: str) -> Market:
        return self.market

    async def get_orderbook(self, market: Market, outcome: str) -> OrderBook:
        return self.books[outcome].copy()

    def book(self, market: Market, outcome: str) -> OrderBook:
        return self.books[outcome]

    async def subscribe_orderbook(self, markets: Iterable[Market], callback=None):
        stream = Subscription("books", self.clock, callback=callback, policy=Policy.CONFLATE)
        self._book_streams.append(stream)
        return stream

    async def subscribe_trades(self, markets: Iterable[Market], callback=None):
        stream = Subscription("trades", self.clock, callback=callback)
        self._trade_streams.append(stream)
        return stream

    async def subscribe_markets(self, callback=None):
        raise AssertionError("not here")

    async def wait_result(self, market: Market) -> MarketResult:
        return await self.result


def clock_future(clock: ManualClock):
    import asyncio

    return asyncio.get_running_loop().create_future()


def levels(side: dict[str, str]) -> list[tuple[int, int]]:
    return [(int(Decimal(price) * 100), int(Decimal(size) * 1_000_000)) for price, size in side.items()]


def mirror(side: dict[str, str]) -> dict[str, str]:
    return {str(1 - Decimal(price)): size for price, size in side.items()}


assert (BID, ASK) == (0, 1)


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock(START_MS + 1000)
