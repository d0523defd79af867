"""The public side of the local Kalshi, read by pykalshi, kalshi-sdk and kalshi-python-async.

Orders, the account and its channels: test_kalshi_trading.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import MarketStatus, PublicTrade, Side
from pmkit.sim.venues import LocalVenues
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import ClientError
from tests.conformance.truth import (
    PATIENCE_SECONDS,
    Book,
    balanced_seed,
    common_run,
    held,
    levels,
    same_as_truth,
    settings_of,
    signed_clock,
)

_T = TypeVar("_T")

VERSIONS = {"pykalshi_public": "2.0.0", "kalshi_sdk_public": "22.4.0", "kalshi_python_public": "3.2.0"}


class Local:
    """The local venues, pmkit's market data on them, the market of now, and a key that the clients sign with."""

    def __init__(
        self, venues: LocalVenues, data: KalshiMarketData, market: KalshiMarket, settings: dict[str, Any]
    ) -> None:
        self.venues = venues
        self.data = data
        self.market = market
        self.settings = settings

    async def same(
        self, read: Callable[[], Awaitable[_T]], truth: Callable[[], _T], *, live: bool = False, times: int = 3
    ) -> list[_T]:
        market = self.venues.kalshi.live(self.market.ticker)
        assert market is not None
        return await same_as_truth(read, truth, market.traders, live=live, times=times)

    def book_truth(self) -> Book:
        """The venue's own book: bids of YES and of NO."""
        truth = self.venues.kalshi.book_truth(self.market.ticker)
        return levels(truth["yes"]), levels(truth["no"])

    def pmkit_book(self) -> Book:
        """pmkit's live books as bids of both outcomes. Each outcome's asks are the other's bids, which is checked."""
        yes, no = held(self.data.book(self.market, "YES")), held(self.data.book(self.market, "NO"))
        assert {1 - price: size for price, size in yes[1].items()} == no[0]
        assert {1 - price: size for price, size in no[1].items()} == yes[0]
        return yes[0], no[0]

    async def pmkit_read(self) -> Book:
        """The same out of one read over REST."""
        bids, asks = held(await self.data.get_orderbook(self.market, "YES"))
        return bids, {1 - price: size for price, size in asks.items()}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Local]:
        clock = signed_clock(monkeypatch)
        async with LocalVenues(seed=balanced_seed(clock), assets=("BTC", "ETH"), clock=clock) as venues:
            key = venues.kalshi.keys.make("rsa")  # none of these clients takes Ed25519 keys
            path = tmp_path / "kalshi.pem"
            path.touch(mode=0o600)
            path.write_text(key.pem)
            signer = HandshakeSigner.from_key(key.id, key.pem)
            async with KalshiMarketData(venues.endpoints, clock, signer=signer) as data:
                market = await data.finder().get_current_market("BTC")
                assert isinstance(market, KalshiMarket)
                settings = settings_of(venues.endpoints) | {"key_id": key.id, "key_path": str(path)}
                yield Local(venues, data, market, settings)
            assert venues.failures == []

    return opened


@pytest.fixture
def needs_312(client_python_version: tuple[int, int]) -> None:
    if client_python_version < (3, 12):
        pytest.skip("kalshi-sdk 22 needs Python 3.12; the environment of the clients has an older one")


def moment(text: str) -> int:
    """ISO 8601 as epoch ms."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def check_market(row: dict[str, Any], market: KalshiMarket) -> None:
    """A market object as a client reads it is pmkit's market."""
    assert row["ticker"] == market.ticker
    assert row["event_ticker"] == market.event_ticker
    assert row["status"] == market.venue_status
    assert moment(row["open_time"]) == market.open_ms
    assert moment(row["close_time"]) == market.close_ms
    assert row["title"] == market.title
    assert row["floor_strike"] is None or Decimal(str(row["floor_strike"])) == market.strike
    assert (row["floor_strike"] is None) == (market.strike is None)


def trade_key(trade: PublicTrade) -> tuple[object, ...]:
    assert trade.outcome == "YES"
    return trade.trade_id, trade.market_id, trade.price, trade.size, trade.side is Side.BUY


def row_key(row: dict[str, Any], ticker: str = "ticker", price: str = "yes_price", count: str = "count") -> object:
    return row["trade_id"], row[ticker], Decimal(row[price]), Decimal(row[count]), row["taker_outcome_side"] == "yes"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("script", ["pykalshi_public", "kalshi_sdk_public"])
async def test_books_over_rest(
    client: OpenClient, local: Callable[[], Any], script: str, request: pytest.FixtureRequest
) -> None:
    if script == "kalshi_sdk_public":
        request.getfixturevalue("needs_312")
    async with local() as there, client(script, there.settings) as one:
        assert one.version == VERSIONS[script]

        async def read() -> Book:
            found = await one.ask("orderbook", ticker=there.market.ticker)
            if script == "pykalshi_public":
                return levels(found["yes_dollars"]), levels(found["no_dollars"])
            return levels(found["yes"]), levels(found["no"])

        seen = await there.same(read, there.book_truth)
        assert all(yes and no for yes, no in seen)
        await there.same(there.pmkit_read, there.book_truth)


@pytest.mark.parametrize("script", ["pykalshi_public", "kalshi_sdk_public"])
async def test_live_books_and_trades(
    client: OpenClient, local: Callable[[], Any], script: str, request: pytest.FixtureRequest
) -> None:
    """The client's live book, the venue's own and pmkit's are the same; so are the trades that both heard."""
    if script == "kalshi_sdk_public":
        request.getfixturevalue("needs_312")
    async with local() as there, client(script, there.settings) as one:
        ticker = there.market.ticker
        trades: list[PublicTrade] = []
        await there.data.subscribe_orderbook([there.market])
        await there.data.subscribe_trades([there.market], trades.append)
        if script == "pykalshi_public":
            assert await one.ask("watch", tickers=[ticker]) is True
        else:
            await one.ask("watch", ticker=ticker)

        async def both() -> tuple[Book | None, Book]:
            found = await one.ask("book", **({"ticker": ticker} if script == "pykalshi_public" else {}))
            return found and (levels(found["yes"]), levels(found["no"])), there.pmkit_book()

        await there.same(both, lambda: (there.book_truth(), there.book_truth()), live=True, times=8)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                told = await one.ask("messages")
                changes = told["updates"] if script == "kalshi_sdk_public" else len(told["deltas"])
                if min(len(told["trade"]), len(told["ticker"]), len(trades)) >= 3 and changes > 10:
                    break
                await asyncio.sleep(0.2)
        rows = [row if script == "pykalshi_public" else row["msg"] for row in told["trade"]]
        assert not [row for row in rows if "unparsed" in row]
        names = ("yes_price_dollars", "count_fp") if script == "pykalshi_public" else ("yes_price", "count")
        heard = [row_key(row, "market_ticker", *names) for row in rows]
        mine = [trade_key(trade) for trade in trades]
        ours, theirs = common_run(mine, heard)
        assert len(ours) >= 2 and ours == theirs
        prints = {trade.trade_id for trade in there.venues.kalshi.trades}
        assert {row["trade_id"] for row in rows} <= prints

        tickers = [row if script == "pykalshi_public" else row["msg"] for row in told["ticker"]]
        assert not [row for row in tickers if "unparsed" in row]
        assert {row["market_ticker"] for row in tickers} == {ticker}
        bid, ask = ("yes_bid_dollars", "yes_ask_dollars") if script == "pykalshi_public" else ("yes_bid", "yes_ask")
        assert all(0 <= Decimal(row[bid]) < Decimal(row[ask]) <= 1 for row in tickers)
        assert "Failed to validate" not in one.said
        if script == "pykalshi_public":
            assert (told["error"], told["reconnects"]) == ([], 0)
        else:
            # This client checks `seq` itself and takes a new snapshot on a gap; it found none.
            assert "gap" not in one.said.lower()


async def test_markets_events_series_and_the_exchange(client: OpenClient, local: Callable[[], Any]) -> None:
    async with local() as there, client("pykalshi_public", there.settings) as one:
        market = there.market
        async with asyncio.timeout(PATIENCE_SECONDS):  # a window that has just begun learns its strike a little later
            while (await there.data.get_market(market.ticker)).strike is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        check_market(await one.ask("market", ticker=market.ticker), await there.data.get_market(market.ticker))
        # Asked for by seven at a time, so that cursors are followed.
        unopened = await one.ask("markets", series=market.series_ticker, status="unopened")
        assert len(unopened) > 7
        mine = {found.ticker: found for found in await there.data.finder().list_markets("BTC", MarketStatus.UPCOMING)}
        assert mine
        for row in unopened:
            if row["ticker"] in mine:
                check_market(row, mine[row["ticker"]])
        assert set(mine) <= {row["ticker"] for row in unopened}
        (row,) = await one.ask("markets", series=market.series_ticker, status="open")
        assert row["ticker"] == market.ticker
        event = await one.ask("event", ticker=market.event_ticker)
        assert event["series_ticker"] == market.series_ticker
        series = await one.ask("series", ticker=market.series_ticker)
        assert (series["ticker"], series["frequency"], series["category"]) == (
            market.series_ticker, "fifteen_min", "Crypto"
        )  # fmt: skip
        exchange = await one.ask("exchange")
        assert exchange["status"] == {"exchange_active": True, "trading_active": True}
        assert "thursday" in exchange["schedule"]["standard_hours"][0]
        with pytest.raises(ClientError) as refused:
            await one.ask("market", ticker="KXBTC15M-26JAN010000-00")
        assert (refused.value.type, refused.value.details["status_code"]) == ("ResourceNotFoundError", 404)


async def test_trades_over_rest(client: OpenClient, local: Callable[[], Any]) -> None:
    async with local() as there, client("pykalshi_public", there.settings) as one:
        kalshi = there.venues.kalshi
        await until(lambda: len([trade for trade in kalshi.trades if trade.ticker == there.market.ticker]) > 6)
        wanted = [trade for trade in kalshi.trades if trade.ticker == there.market.ticker]
        rows = await one.ask("trades", ticker=there.market.ticker)  # five at a time, newest first
        assert len({row["trade_id"] for row in rows}) == len(rows)
        rows = rows[-len(wanted) :]
        assert [row["trade_id"] for row in rows] == [trade.trade_id for trade in reversed(wanted)]
        for row, trade in zip(rows, reversed(wanted), strict=True):
            assert Decimal(row["yes_price_dollars"]) == Decimal(trade.price) / 10_000
            assert Decimal(row["yes_price_dollars"]) + Decimal(row["no_price_dollars"]) == 1
            assert abs(moment(row["created_time"]) * 1000 - trade.at_us) <= 1000


async def test_a_bad_signature_is_refused(client: OpenClient, local: Callable[[], Any]) -> None:
    async with local() as there:
        there.venues.kalshi.keys.forget(there.settings["key_id"])
        async with client("pykalshi_public", there.settings) as one:
            with pytest.raises(ClientError) as refused:
                await one.ask("exchange")
            assert (refused.value.type, refused.value.details["status_code"]) == ("AuthenticationError", 401)


@pytest.mark.usefixtures("needs_312")
async def test_kalshi_sdk_reads_what_it_can(client: OpenClient, local: Callable[[], Any]) -> None:
    async with local() as there, client("kalshi_sdk_public", there.settings) as one:
        market = there.market
        series = await one.ask("series", ticker=market.series_ticker)
        assert (series["ticker"], series["exchange_index"]) == (market.series_ticker, market.exchange_index)
        exchange = await one.ask("exchange")
        assert exchange["status"]["trading_active"] is True
        shards = {row["exchange_index"]: row["trading_active"] for row in exchange["status"]["exchange_index_statuses"]}
        assert shards[market.exchange_index] is True

        async def read() -> Book:
            (found,) = await one.ask("orderbooks", tickers=[market.ticker])
            return levels(found["yes"]), levels(found["no"])

        await there.same(read, there.book_truth)
        await until(lambda: any(trade.ticker == market.ticker for trade in there.venues.kalshi.trades))
        rows = await one.ask("trades", ticker=market.ticker)
        wanted = {trade.trade_id: trade for trade in there.venues.kalshi.trades if trade.ticker == market.ticker}
        assert rows
        for row in rows:
            assert Decimal(row["yes_price"]) == Decimal(wanted[row["trade_id"]].price) / 10_000
        # Since 2026-10-01 the venue sends no `liquidity_dollars`, which this version of the client still asks for:
        # that, and nothing else, keeps it from reading a market.
        for call, args in (
            ("market", {"ticker": market.ticker}),
            ("markets", {"series": market.series_ticker, "status": "open"}),
            ("event", {"ticker": market.event_ticker}),
        ):
            with pytest.raises(ClientError, match="liquidity_dollars") as refused:
                await one.ask(call, **args)
            assert refused.value.text.startswith("1 validation error")


async def test_the_older_official_client(client: OpenClient, local: Callable[[], Any]) -> None:
    """It still reads the exchange and series. The rest has changed since, and its order path is gone: 410."""
    async with local() as there, client("kalshi_python_public", there.settings) as one:
        assert one.version == VERSIONS["kalshi_python_public"]
        status = await one.ask("exchange")
        assert (status["exchange_active"], status["trading_active"]) == (True, True)
        assert "standard_hours" in (await one.ask("schedule"))["schedule"]
        series = (await one.ask("series", ticker=there.market.series_ticker))["series"]
        assert series["ticker"] == there.market.series_ticker
        # Cent fields and `orderbook` went away with the second version: the answer reaches the client, whose model
        # of it is older.
        for call in ("market", "orderbook"):
            with pytest.raises(ClientError) as refused:
                await one.ask(call, ticker=there.market.ticker)
            assert refused.value.type == "ValidationError"
        with pytest.raises(ClientError, match="deprecated_v1_order_endpoint") as refused:
            await one.ask("create_order", ticker=there.market.ticker)
        assert refused.value.details["status"] == 410
