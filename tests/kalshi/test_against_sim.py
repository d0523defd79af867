"""The clients against the local Kalshi, which reads the venue's pages for itself: with a key and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from pmkit.errors import AuthError, ConfigError, InvalidOrder
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import MarketStatus, PublicTrade
from tests.kalshi.frames import levels

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.venues import LocalVenues
from tests.local import clock_of, listener, local_venues

pytestmark = pytest.mark.virtual_time

FACTOR = 30.0


@asynccontextmanager
async def local(
    *, key: bool, boundary: float = 12.0, kind: str = "ed25519", factor: float = FACTOR
) -> AsyncIterator[tuple[KalshiMarketData, LocalVenues]]:
    """Market data and venues; nothing may be left behind, and the venue must have had no failure of its own."""
    before = asyncio.all_tasks()
    assets = ("BTC", "ETH")
    async with local_venues(factor=factor, assets=assets, boundary=boundary) as venues:
        made = venues.kalshi_key if kind == "ed25519" else venues.kalshi.keys.make(kind)
        signer = HandshakeSigner.from_key(made.id, made.pem) if key else None
        running = asyncio.all_tasks()
        clock = clock_of(venues)
        async with KalshiMarketData(venues.endpoints, clock, signer=signer) as data:
            yield data, venues
        begun = clock.io_monotonic()
        await data.close()
        assert clock.io_monotonic() - begun < 1
        left = {task.get_name() for task in asyncio.all_tasks() - running if "pmkit" in task.get_name()}
        assert not left
        assert venues.failures == []
    assert not {task.get_name() for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}


async def window(data: KalshiMarketData, asset: str = "BTC") -> KalshiMarket:
    found = await data.finder().get_current_market(asset)
    assert isinstance(found, KalshiMarket), found
    return found


async def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def equals_truth(data: KalshiMarketData, venues: LocalVenues, market: Market) -> bool:
    """Whether both live books hold what the venue's engine holds at this moment."""
    truth = venues.kalshi.book_truth(market.market_id)
    pair = data.feed.pairs[market.market_id]
    return (
        pair.yes.valid
        and pair.no.valid
        and pair.holds(
            [(price, float(size)) for price, size in truth["yes"]],
            [(price, float(size)) for price, size in truth["no"]],
        )
    )


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_books_with_a_key_are_the_venues_own(kind: str) -> None:
    async with local(key=True, kind=kind) as (data, venues):
        markets = [await window(data), await window(data, "ETH")]
        events: list[tuple[str, bool]] = []
        await data.subscribe_orderbook(markets, lambda book: events.append((book.token_id, book.valid)))
        assert not data.polled
        for market in markets:
            assert data.book(market, "YES").valid
            assert data.book(market, "NO").valid
        for _ in range(5):
            await eventually(lambda: all(equals_truth(data, venues, market) for market in markets))
            await asyncio.sleep(0.1)
        await eventually(lambda: len(events) > 20)
        assert {token for token, _ in events} == {token for market in markets for token in market.token_ids}
        assert all(valid for _, valid in events)
        feed = data.feed
        assert (feed.unparsed, feed.seq_gaps, feed.duplicates, feed.negative, feed.refused) == (0, 0, 0, 0, 0)
        assert not feed.unknown
        book = data.book(markets[0], "YES")
        assert book.venue_ms > 0
        assert book.received_ns > 0
        assert book.generation == 1


async def test_books_without_a_key_come_from_one_call_a_second() -> None:
    async with local(key=False) as (data, venues):
        markets = [await window(data), await window(data, "ETH")]
        await data.subscribe_orderbook(markets)
        assert data.polled
        assert data.source.socket is None
        for market in markets:
            assert data.book(market, "YES").valid
        requests = data.session.requests
        await asyncio.sleep(1.0)
        assert 3 <= data.session.requests - requests <= 5  # at factor 30: four times a wall second, both in one call
        await eventually(lambda: all(equals_truth(data, venues, market) for market in markets))
        venues.kalshi.faults.http_status("/markets/orderbooks", 429, '{"error":"too many requests"}', times=None)
        await eventually(lambda: not data.book(markets[0], "YES").valid, 2.0)
        assert "poll" in data.book(markets[0], "NO").reason
        venues.kalshi.faults.clear()
        await eventually(lambda: data.book(markets[0], "YES").valid, 8.0)


@pytest.mark.parametrize("key", [True, False])
async def test_one_rest_read_of_a_book(key: bool) -> None:
    async with local(key=key) as (data, venues):
        market = await window(data)
        async with asyncio.timeout(30):
            while True:
                book = await data.get_orderbook(market, "NO")
                bids = {Decimal(price): Decimal(size) for price, size in venues.kalshi.book_truth(market.ticker)["no"]}
                if levels(book)[0] == bids:
                    break
        assert book.valid
        assert book.outcome == "NO"
        live = data.book(market, "NO")
        assert (live.valid, live.reason) == (False, "not subscribed")
        with pytest.raises(InvalidOrder):
            await data.get_orderbook(market, "UP")


async def test_md_07_a_gap_on_the_wire_is_healed_by_snapshots() -> None:
    async with local(key=True) as (data, venues):
        market = await window(data)
        seen: list[tuple[bool, str]] = []
        await data.subscribe_orderbook([market], lambda book: seen.append((book.valid, book.reason)))
        venues.kalshi.faults.arm("skip_delta")
        await eventually(lambda: data.feed.seq_gaps == 1)
        await eventually(lambda: equals_truth(data, venues, market))
        assert (False, "sequence gap") in seen
        assert data.source.socket is not None
        assert data.source.socket.stats.connects == 1, "a snapshot is enough"
        assert data.feed.dropped >= 0


async def test_md_09_a_repeated_frame_on_the_wire_changes_nothing() -> None:
    async with local(key=True) as (data, venues):
        market = await window(data)
        await data.subscribe_orderbook([market])
        venues.kalshi.faults.arm("duplicate_frame", 3)
        await eventually(lambda: data.feed.duplicates == 3)
        await eventually(lambda: equals_truth(data, venues, market))
        assert data.feed.seq_gaps == 0


@pytest.mark.parametrize("code", [10, 25])
async def test_errors_10_and_25_subscribe_again(code: int) -> None:
    async with local(key=True) as (data, venues):
        market = await window(data)
        seen: list[str] = []
        await data.subscribe_orderbook([market], lambda book: seen.append(book.reason))
        assert venues.kalshi.overflow(code) == 1
        await eventually(lambda: any(f"code {code}" in reason for reason in seen))
        await eventually(lambda: equals_truth(data, venues, market))
        assert data.source.socket is not None
        assert data.source.socket.stats.connects == 1


async def test_md_05_a_lost_connection_comes_back_with_what_is_wanted_now() -> None:
    async with local(key=True) as (data, venues):
        market, other = await window(data), await window(data, "ETH")
        first = await data.subscribe_orderbook([market])
        seen: list[bool] = []
        await data.subscribe_trades([market], lambda trade: None)
        data.feed.pairs[market.ticker].listeners.append(lambda books: seen.extend(book.valid for book in books))
        assert venues.kalshi.faults.drop_connections() == 1
        await eventually(lambda: False in seen)
        assert data.book(market, "YES").reason.startswith("disconnected")
        await data.subscribe_orderbook([other])  # while it is down
        await eventually(lambda: equals_truth(data, venues, market))
        await eventually(lambda: equals_truth(data, venues, other))
        assert data.book(market, "YES").generation == 2
        await first.close()
        assert data.book(market, "YES").reason == "not subscribed"
        sessions = list(venues.kalshi.faults.sessions)
        await eventually(lambda: len(venues.kalshi.faults.sessions) == 1)
        assert sessions


async def test_closing_one_of_two_subscriptions_keeps_the_other() -> None:
    async with local(key=True) as (data, venues):
        market = await window(data)
        first = await data.subscribe_orderbook([market])
        second: list[OrderBook] = []
        await data.subscribe_orderbook([market], second.append)
        assert len(second) == 2, "a live book is handed over at once"
        await first.close()
        await first.close()
        count = len(second)
        await eventually(lambda: len(second) > count)
        assert data.book(market, "YES").valid
        assert equals_truth(data, venues, market) or data.book(market, "YES").valid


async def test_a_market_wanted_again_at_once_gets_its_books() -> None:
    async with local(key=True) as (data, venues):
        market, other = await window(data), await window(data, "ETH")
        await data.subscribe_orderbook([other])
        for _ in range(3):
            subscription = await data.subscribe_orderbook([market])
            assert data.book(market, "YES").valid
            await subscription.close()
        await data.subscribe_orderbook([market])
        await eventually(lambda: equals_truth(data, venues, market))
        assert data.book(other, "YES").valid


async def test_md_01_silence_is_confirmed_by_rest_or_ends_the_connection() -> None:
    async with local(key=True, factor=45.0) as (data, venues):
        market = await window(data)
        await data.subscribe_orderbook([market])
        socket = data.source.socket
        assert socket is not None
        # The deadline is 30 market seconds, at least a wall second. The venue goes on without telling.
        venues.kalshi.faults.silence(120)
        await eventually(lambda: socket.stats.silences >= 1, 3.0)
        await eventually(lambda: socket.stats.disconnects >= 1, 3.0)
        assert not data.book(market, "YES").valid
        venues.kalshi.faults.clear()
        await eventually(lambda: data.book(market, "YES").valid, 6.0)


async def test_md_01_a_market_that_rests_is_confirmed_and_stays() -> None:
    async with local(key=True, factor=45.0) as (data, venues):
        market = await window(data)
        seen: list[str] = []
        await data.subscribe_orderbook([market], lambda book: seen.append(book.reason))
        socket = data.source.socket
        assert socket is not None
        venues.kalshi.pause()
        await eventually(lambda: socket.stats.silences >= 2, 5.0)
        await eventually(lambda: data.book(market, "YES").valid)
        assert socket.stats.disconnects == 0
        assert "no data for too long" in seen, "not valid while it was in doubt"
        assert equals_truth(data, venues, market)


async def test_md_28_a_refused_handshake_is_an_auth_error_at_once() -> None:
    async with local(key=True) as (data, venues):
        market = await window(data)
        venues.kalshi.faults.reject_handshake(401, times=100)
        begun = data.clock.io_monotonic()
        with pytest.raises(AuthError, match="check the key"):
            await data.subscribe_orderbook([market])
        assert data.clock.io_monotonic() - begun < 3
        assert data.feed.pairs == {}


async def test_a_key_that_the_venue_does_not_know_is_an_auth_error() -> None:
    async with local_venues(factor=FACTOR, boundary=20) as venues:
        signer = HandshakeSigner.from_key("00000000-0000-4000-8000-000000000000", venues.kalshi_key.pem)
        async with KalshiMarketData(venues.endpoints, clock_of(venues), signer=signer) as data:
            with pytest.raises(AuthError):
                await data.subscribe_orderbook([await window(data)])


@pytest.mark.parametrize("key", [True, False])
async def test_trades_come_once_each_and_in_order(key: bool) -> None:
    async with local(key=key, boundary=15, factor=60.0) as (data, venues):
        market = await window(data)
        got: list[PublicTrade] = []
        await data.subscribe_trades([market], got.append)
        begun = data.venue_clock.now_ms()
        await eventually(lambda: len(got) >= 8, 8.0)
        if key:
            venues.kalshi.faults.drop_connections()  # what is missed meanwhile is read over REST
        count = len(got)
        await eventually(lambda: len(got) >= count + 8, 10.0)
        assert len({trade.trade_id for trade in got}) == len(got)
        assert {trade.market_id for trade in got} == {market.market_id}
        assert all(trade.outcome == "YES" and 0 < trade.price < 1 and trade.size > 0 for trade in got)
        await asyncio.sleep(0.6)
        seen = {trade.trade_id for trade in got}
        real = [trade for trade in venues.kalshi.trades if trade.ticker == market.ticker]
        middle = [one.trade_id for one in real if begun + 5_000 < one.at_us // 1000 < got[-1].venue_ms - 5_000]
        assert middle
        assert not [trade_id for trade_id in middle if trade_id not in seen], "a print is missing"


@pytest.mark.parametrize("key", [True, False])
async def test_a_rollover_from_window_to_window(key: bool) -> None:
    async with local(key=key, boundary=1.5, factor=60.0) as (data, _venues):
        finder = data.finder()
        market = await window(data)
        following = await finder.get_next_market("BTC")
        assert isinstance(following, KalshiMarket)
        assert following.strike is None
        news: list[Market] = []
        await data.subscribe_markets(news.append)
        old = await data.subscribe_orderbook([market])
        await data.subscribe_orderbook([following])  # before it opens: an empty book is a valid one
        assert data.book(following, "YES").valid
        result = await asyncio.wait_for(data.wait_result(market), 12)
        assert sum(result.payouts) == 1
        assert result.winner in ("YES", "NO")
        assert (await data.wait_result(market)).winner == result.winner
        await old.close()

        def told(market_id: str) -> list[Market]:
            return [one for one in news if one.market_id == market_id]

        await eventually(lambda: any(one.status is MarketStatus.RESOLVED for one in told(market.market_id)), 8.0)
        await eventually(lambda: any(one.strike is not None for one in told(following.market_id)), 8.0)
        statuses = [one.status for one in told(market.market_id)]
        assert statuses.index(MarketStatus.CLOSED) < statuses.index(MarketStatus.RESOLVED)
        assert told(following.market_id)[0].status is MarketStatus.OPEN
        current = await finder.get_current_market("BTC")
        assert current
        assert current.market_id == following.market_id
        assert current.strike is not None
        await eventually(lambda: data.book(following, "YES").best_ask is not None, 5.0)


async def test_an_address_that_is_not_the_signed_path_is_refused() -> None:
    async with local_venues(factor=FACTOR, boundary=20) as venues:
        import msgspec

        endpoints = msgspec.structs.replace(
            venues.endpoints,
            kalshi=msgspec.structs.replace(venues.endpoints.kalshi, ws=venues.endpoints.kalshi.ws + "/other"),
        )
        async with KalshiMarketData(endpoints, clock_of(venues), signer=listener(venues)) as data:
            with pytest.raises(ConfigError, match="/trade-api/ws/v2"):
                await data.subscribe_orderbook([await window(data)])


async def test_oe_23_nothing_but_public_reads_passes_the_session() -> None:
    from pmkit.errors import NotSent

    async with local(key=True) as (data, _):
        for method, path in [
            ("POST", "/portfolio/events/orders"),
            ("DELETE", "/portfolio/events/orders"),
            ("GET", "/portfolio/balance"),
            ("POST", "/markets"),
            ("GET", "/markets/A/../../portfolio/orders"),
        ]:
            requests = data.session.requests
            with pytest.raises(NotSent, match="allow-list"):
                await data.session.request(method, path)
            assert data.session.requests == requests


async def test_use_after_close_is_refused() -> None:
    async with local(key=False) as (data, _):
        market = await window(data)
        subscription = await data.subscribe_orderbook([market])
        await data.close()
        assert subscription.closed
        with pytest.raises(Exception, match="closed"):
            await data.subscribe_orderbook([market])
        with pytest.raises(Exception, match="closed"):
            await data.wait_result(market)
        assert data.book(market, "YES").reason == "not subscribed"


async def test_reading_a_subscription_with_async_for_gets_the_latest_state() -> None:
    async with local(key=True) as (data, _):
        market = await window(data)
        subscription = await data.subscribe_orderbook([market])
        await asyncio.sleep(0.5)
        assert subscription.pending <= 2, "one per book"
        books: list[Any] = []
        async for book in subscription:
            books.append(book)
            if len(books) >= 6:
                break
        assert {book.outcome for book in books} == {"YES", "NO"}
        assert isinstance(data.feed.pairs[market.ticker], BookPair)
