"""Failure modes of the list that no other file here covers; in virtual time where a clock or a connection matters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pmkit.clock import Entropy
from pmkit.errors import OrderUnknown, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.types import KalshiMarket
from pmkit.exchanges.types import OrderState, PublicTrade, Side
from tests.kalshi.test_market_finder import running
from tests.kalshi.trading import LOW, desk, freeze
from tests.local import clock_of, kalshi_exchange, listener

from pmkit.sim.venues import LocalVenues  # isort: skip - after tests.kalshi.trading, which skips where aiohttp is missing
from pmkit.sim.virtual import VirtualClock, run  # isort: skip

pytestmark = pytest.mark.virtual_time

START = 1_795_176_600_000  # five minutes before a boundary


def virtually(main: Callable[[LocalVenues, VirtualClock], Awaitable[None]]) -> None:
    """Run a test on local venues in virtual time; the venues must have had no failure of their own."""

    async def whole() -> None:
        clock = VirtualClock(START, Entropy(3))
        async with LocalVenues(seed=3, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
            await main(venues, clock)
            assert venues.failures == []

    run(whole(), seed=3, latency=0.001, jitter=0.004)


async def window(data: KalshiMarketData) -> KalshiMarket:
    found = await data.finder().get_current_market("BTC")
    assert isinstance(found, KalshiMarket), found
    return found


async def test_rs_04_a_page_of_a_proxy_is_neither_a_refusal_nor_an_empty_account() -> None:
    page = "<html><head><title>502</title></head>" + "x" * 20_000 + "</html>"
    async with desk() as one:
        one.venue.faults.http_status("GET .*/portfolio/positions", 502, page, times=None)
        with pytest.raises(VenueUnavailable) as caught:
            await one.exchange.get_positions()
        assert "502" in str(caught.value) and len(str(caught.value)) < 1000
        one.venue.faults.clear()
        one.venue.faults.http_status("POST .*/portfolio/events/orders", 502, page)
        with pytest.raises(OrderUnknown):
            await one.exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, 1)


async def test_rs_13_an_error_with_the_status_of_a_success_is_no_empty_answer() -> None:
    async with desk() as one:
        for query, path in (
            (one.exchange.get_open_orders, "orders"),
            (one.exchange.get_positions, "positions"),
            (one.exchange.get_balance, "balance"),
        ):
            one.venue.faults.http_status(f"GET .*/portfolio/{path}", 200, '{"error":{"code":"internal_error"}}')
            with pytest.raises(ProtocolChanged):
                await query()


async def test_oe_18_a_market_order_with_nothing_to_hit_is_a_cancelled_order() -> None:
    async with desk() as one:
        freeze(one)
        live = one.venue.live(one.market.ticker)
        assert live is not None
        live.engine.cancel_all()
        placed = await one.exchange.place_market_order(one.market, "YES", Side.BUY, worst_price="0.99", amount=5)
        assert (placed.status, placed.filled_amount) == (OrderState.CANCELED, 0)


async def test_oe_22_ids_of_two_runs_are_disjoint() -> None:
    async with desk(streams=False) as one:
        for _ in range(2):
            clock = clock_of(one.venues)
            clock.entropy = Entropy()
            async with kalshi_exchange(one.venues, clock) as exchange:
                for _ in range(3):
                    await exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, 1)
        assert len(one.ledger) == 6, "each intent has an identity of its own"


def test_ck_02_after_a_sleep_the_first_order_is_signed_anew_and_placed_once() -> None:
    async def main(venues: LocalVenues, clock: VirtualClock) -> None:
        own = VirtualClock(clock.now_ms(), Entropy(4))
        async with kalshi_exchange(venues, own) as exchange:
            market = await window(exchange.data)
            await exchange.keep_warm()
            own.step_wall(-90.0)  # the machine slept and its date has not caught up yet
            placed = await exchange.place_limit_order(market, "YES", Side.BUY, LOW, 1)
            assert placed.status is OrderState.LIVE
            assert exchange._session.restamped == 1
            await exchange.place_limit_order(market, "YES", Side.BUY, LOW, 1)
            assert exchange._session.restamped == 1, "the venue's clock is known again"
            assert len(venues.kalshi.account.orders) == 2

    virtually(main)


def test_ro_05_a_rollover_while_the_socket_reconnects() -> None:
    async def main(venues: LocalVenues, clock: VirtualClock) -> None:
        async with KalshiMarketData(venues.endpoints, clock, signer=listener(venues)) as data:
            old = await window(data)
            following = await data.finder().get_next_market("BTC")
            assert isinstance(following, KalshiMarket)
            subscription = await data.subscribe_orderbook([old])
            await clock.sleep((old.close_ms - clock.now_ms()) / 1000 - 2)
            venues.kalshi.faults.reject_handshake(503)
            venues.kalshi.faults.drop_connections()
            await asyncio.sleep(0)
            late = asyncio.ensure_future(data.subscribe_orderbook([following]))
            await clock.sleep(0.5)
            assert not data.book(old, "YES").valid, "no book without a connection"
            await subscription.close()
            await late  # within its 5 s, over the boundary
            await clock.sleep(6)
            assert clock.now_ms() > following.open_ms
            current = await window(data)
            assert current.ticker == following.ticker
            for outcome in ("YES", "NO"):
                assert data.book(following, outcome).valid, data.book(following, outcome).reason
                assert not data.book(old, outcome).valid
            truth = venues.kalshi.book_truth(following.ticker)
            best = max((Decimal(price) for price, _ in truth["yes"]), default=None)
            assert data.book(following, "YES").best_bid == best

    virtually(main)


def test_md_26_prints_across_a_reconnect_come_once_and_none_is_missing() -> None:
    async def main(venues: LocalVenues, clock: VirtualClock) -> None:
        async with KalshiMarketData(venues.endpoints, clock, signer=listener(venues)) as data:
            market = await window(data)
            seen: list[PublicTrade] = []
            await data.subscribe_trades([market], seen.append)
            since_ms = clock.now_ms()
            for _ in range(3):
                await clock.sleep(40)
                venues.kalshi.faults.drop_connections()
            await clock.sleep(40)
            until_ms = clock.now_ms() - 2_000
            truth = {one.trade_id for one in venues.kalshi.trades if since_ms <= one.at_us // 1000 < until_ms}
            counts = Counter(one.trade_id for one in seen)
            assert len(truth) > 10 and truth <= set(counts)
            assert max(counts.values()) == 1

    virtually(main)


async def test_di_02_tickers_of_another_pattern_are_found_by_their_times() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.listing = False
        opened = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)
        for quarter in range(3):
            row: dict[str, Any] = venue.market("BTC", opened + timedelta(minutes=15 * (quarter + 1)), venue.now)
            row["ticker"] = f"KXBTC15M-V2.{quarter}"
            venue.extra_markets.append(row)
        current, following = await finder.get_current_market("BTC"), await finder.get_next_market("BTC")
        assert current and following
        assert (current.market_id, following.market_id) == ("KXBTC15M-V2.0", "KXBTC15M-V2.1")
