"""Finding windows: computed names, the minutes in which only Gamma knows a market, lists, and failures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import respx

from pmkit.errors import (
    ConfigError,
    MarketNotFound,
    NotSent,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.types import PolymarketMarket, Window, iso_seconds
from pmkit.exchanges.types import MarketStatus, NoMarket
from tests.polymarket.rest import CLOB, START, Venue, condition_of, event_row, tokens_of

NOW = Window("BTC", "15m", START)
NEXT = NOW.following


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    with respx.mock(assert_all_called=False) as router:
        yield Venue(router, NOW, NEXT)


@pytest.fixture
async def data(venue: Venue) -> AsyncIterator[PolymarketMarketData]:
    async with venue.data() as data:
        yield data


async def test_current_next_and_smart(venue: Venue, data: PolymarketMarketData) -> None:
    finder = data.finder()
    current = await finder.get_current_market("btc")
    assert isinstance(current, PolymarketMarket)
    assert (current.slug, current.status) == (NOW.slug, MarketStatus.OPEN)
    assert current.token_ids == tokens_of(NOW)
    following = await finder.get_next_market("BTC")
    assert isinstance(following, PolymarketMarket)
    assert (following.slug, following.status) == (NEXT.slug, MarketStatus.UPCOMING)
    assert finder.get_seconds_remaining(current) == pytest.approx(450, abs=1)
    assert await finder.get_smart_market("BTC", lead=400) == current
    await venue.clock.advance(441)
    assert (await finder.get_smart_market("BTC", lead=10)).slug == NEXT.slug  # type: ignore[union-attr]


async def test_a_window_is_read_once(venue: Venue, data: PolymarketMarketData) -> None:
    finder = data.finder()
    await finder.get_next_market("BTC")
    assert (venue.events.call_count, venue.clob.call_count, venue.time.call_count) == (1, 1, 1)
    await venue.clock.advance(451)
    market = await finder.get_current_market("BTC")
    assert isinstance(market, PolymarketMarket)
    assert market.status is MarketStatus.OPEN
    assert (venue.events.call_count, venue.clob.call_count, venue.time.call_count) == (1, 1, 1)


async def test_ck_01_the_venues_clock_decides_about_the_window(venue: Venue, data: PolymarketMarketData) -> None:
    venue.clock.step_wall(451)  # the local clock is 451 s fast: by itself it would name the next window
    venue.time.mock(side_effect=lambda _: httpx.Response(200, text=str(START + 450)))
    assert (await data.finder().get_current_market("BTC")).slug == NOW.slug  # type: ignore[union-attr]


async def test_di_07_a_prefetched_window_survives_dead_hosts(venue: Venue, data: PolymarketMarketData) -> None:
    finder = data.finder()
    await finder.get_next_market("BTC")
    venue.events.mock(side_effect=httpx.ConnectError("down"))
    venue.clob.mock(side_effect=httpx.ConnectError("down"))
    await venue.clock.advance(460)
    assert (await finder.get_current_market("BTC")).slug == NEXT.slug  # type: ignore[union-attr]
    with pytest.raises(NotSent):
        await finder.get_next_market("BTC")


async def test_ro_01_not_listed_yet(venue: Venue, data: PolymarketMarketData) -> None:
    del venue.listed[NEXT.slug]
    finder = data.finder()
    none = await finder.get_next_market("BTC")
    assert isinstance(none, NoMarket)
    assert NEXT.slug in none.reason
    assert none.until is not None
    assert none.until.timestamp() == pytest.approx(venue.now_s + 5, abs=1)
    asked = venue.events.call_count
    await finder.get_next_market("BTC")
    assert venue.events.call_count == asked  # a bot that ticks fast does not hammer Gamma
    venue.listed[NEXT.slug] = event_row(NEXT)
    await venue.clock.advance(3)
    assert (await finder.get_next_market("BTC")).slug == NEXT.slug  # type: ignore[union-attr]


@pytest.mark.parametrize("tokens", [None, [], [{"t": "", "o": ""}, {"t": "", "o": ""}], [None, None]])
async def test_ro_01_gamma_knows_it_and_the_clob_does_not(
    venue: Venue, data: PolymarketMarketData, tokens: list[Any] | None
) -> None:
    if tokens is None:
        del venue.known[condition_of(NEXT)]
    else:
        venue.known[condition_of(NEXT)]["t"] = tokens
    none = await data.finder().get_next_market("BTC")
    assert isinstance(none, NoMarket)
    assert none.reason == f"{NEXT.slug} is not on the CLOB yet"


async def test_the_older_route_of_the_clob_is_asked_as_well(venue: Venue, data: PolymarketMarketData) -> None:
    del venue.known[condition_of(NOW)]
    up, down = tokens_of(NOW)
    tokens = [{"token_id": down, "outcome": "Down"}, {"token_id": up, "outcome": "Up"}]
    answer = {"condition_id": condition_of(NOW), "enable_order_book": True, "accepting_orders": True, "tokens": tokens}
    venue.markets[condition_of(NOW)] = answer
    market = await data.finder().get_current_market("BTC")
    assert isinstance(market, PolymarketMarket)
    assert market.token_ids == (up, down)
    venue.markets[condition_of(NOW)] = answer | {"enable_order_book": False}
    venue.listed[NEXT.slug] = event_row(NEXT)
    del venue.known[condition_of(NEXT)]
    venue.markets[condition_of(NEXT)] = answer | {"enable_order_book": False}
    assert isinstance(await data.finder().get_next_market("BTC"), NoMarket)


@pytest.mark.parametrize("changed", [{"enableOrderBook": False}, {"acceptingOrders": False}])
async def test_di_01_a_window_that_takes_no_orders_is_none(
    venue: Venue, data: PolymarketMarketData, changed: dict[str, Any]
) -> None:
    venue.listed[NOW.slug] = event_row(NOW, **changed)
    venue.known[condition_of(NOW)]["ao"] = None if "enableOrderBook" in changed else False
    finder = data.finder()
    assert isinstance(await finder.get_current_market("BTC"), NoMarket)
    venue.listed[NOW.slug] = event_row(NOW)
    venue.known[condition_of(NOW)]["ao"] = True
    await venue.clock.advance(3)
    assert (await finder.get_current_market("BTC")).slug == NOW.slug  # type: ignore[union-attr]


async def test_unknown_assets_and_intervals_name_the_known_ones(venue: Venue, data: PolymarketMarketData) -> None:
    finder = data.finder()
    with pytest.raises(ConfigError, match="BTC, ETH"):
        await finder.get_current_market("FOO")
    with pytest.raises(ConfigError, match="5m or 15m"):
        await finder.get_current_market("BTC", "1h")
    with pytest.raises(ConfigError):
        await finder.get_current_market("../../etc")
    with pytest.raises(ConfigError, match="BTC, ETH"):
        await finder.list_markets("FOO")
    assert await finder.list_assets() == ["BTC", "ETH"]
    assert await finder.list_assets("5m") == ["BTC"]


async def test_a_known_asset_without_a_window_is_no_error(venue: Venue, data: PolymarketMarketData) -> None:
    assert isinstance(await data.finder().get_current_market("ETH"), NoMarket)


async def test_di_02_a_renamed_window_is_found_by_its_series(venue: Venue, data: PolymarketMarketData) -> None:
    row = event_row(NOW, slug="bitcoin-quarter-of-an-hour-7")
    venue.listed = {row["slug"]: row}
    market = await data.finder().get_current_market("BTC")
    assert isinstance(market, PolymarketMarket)
    assert (market.asset, market.interval, market.open_ms) == ("BTC", "15m", START * 1000)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(500, html="<html>oops</html>"), VenueUnavailable),
        (httpx.Response(503, text=""), VenueUnavailable),
        (httpx.Response(200, html="<html>hello</html>"), ProtocolChanged),
        (httpx.Response(200, json=[]), ProtocolChanged),
        (httpx.Response(200, json={"slug": NOW.slug, "markets": []}), ProtocolChanged),
        (httpx.Response(403, html="<html>no</html>"), RegionBlocked),
        (httpx.Response(429, headers={"retry-after": "9"}), RateLimited),
        (httpx.Response(422, json={"error": "validation"}), ProtocolChanged),
        (httpx.ReadTimeout("slow"), VenueUnavailable),
        (httpx.ConnectError("down"), NotSent),
    ],
)
@pytest.mark.parametrize("host", ["gamma", "clob"])
async def test_rs_04_a_failed_query_never_looks_like_no_market(
    venue: Venue, data: PolymarketMarketData, response: Any, error: type[Exception], host: str
) -> None:
    if host == "clob" and isinstance(response, httpx.Response) and b"markets" in response.content:
        response = httpx.Response(200, json={"t": "x"})
    (venue.events if host == "gamma" else venue.clob).mock(side_effect=[response])
    with pytest.raises(error):
        await data.finder().get_current_market("BTC")


async def test_a_window_with_a_wrong_row_is_refused_by_name(venue: Venue, data: PolymarketMarketData) -> None:
    venue.listed[NOW.slug] = event_row(NOW, endDate=iso_seconds((NOW.end + 60) * 1000))
    with pytest.raises(ProtocolChanged, match=NOW.slug):
        await data.finder().get_current_market("BTC")


# -- lists ------------------------------------------------------------------------------------------------------------


def chain(count: int, first: Window = NOW) -> list[Window]:
    found = [first]
    while len(found) < count:
        found.append(found[-1].following)
    return found


async def test_di_05_lists_are_walked_page_by_page_and_sorted(venue: Venue, data: PolymarketMarketData) -> None:
    windows = chain(7)
    venue.listed = {window.slug: event_row(window) for window in windows}
    eth = Window("ETH", "15m", START)
    venue.listed[eth.slug] = event_row(eth)
    finder = data.finder()
    listed = await finder.list_markets("BTC")
    assert [market.open_ms for market in listed] == [window.start * 1000 for window in windows]
    assert venue.keyset.call_count == 4
    everything = await finder.list_markets()
    assert len(everything) == 8
    assert [market.asset for market in everything[:2]] == ["BTC", "ETH"]
    upcoming = await finder.list_markets("BTC", MarketStatus.UPCOMING)
    assert len(upcoming) == 6
    assert venue.clob.call_count == 0


async def test_zombies_and_odd_rows_are_left_out(venue: Venue, data: PolymarketMarketData) -> None:
    zombie = Window("BTC", "15m", START - 86_400 * 300)
    unborn, odd, other = chain(4, NEXT.following)[1:]
    venue.listed |= {
        zombie.slug: event_row(zombie),
        unborn.slug: event_row(unborn, enableOrderBook=False),
        odd.slug: event_row(odd, outcomes='["Up"]'),
        other.slug: event_row(other) | {"markets": "none"},
    }
    listed = await data.finder().list_markets("BTC")
    assert [market.slug for market in listed] == [NOW.slug, NEXT.slug]  # type: ignore[attr-defined]
    assert data.catalogue.skipped == 2


async def test_closed_and_resolved_windows_of_the_last_day(venue: Venue, data: PolymarketMarketData) -> None:
    earlier, before = Window("BTC", "15m", START - 1800), Window("BTC", "15m", START - 900)
    done = {"closed": True, "umaResolutionStatus": "resolved", "outcomePrices": '["0", "1"]'}
    venue.listed |= {earlier.slug: event_row(earlier, **done), before.slug: event_row(before)}
    finder = data.finder()
    resolved = await finder.list_markets("BTC", MarketStatus.RESOLVED)
    assert [market.payouts for market in resolved] == [(0, 1)]
    closed = await finder.list_markets("BTC", MarketStatus.CLOSED)
    assert [market.open_ms for market in closed] == [before.start * 1000]


def page(windows: list[Window], cursor: str | None) -> httpx.Response:
    more = {} if cursor is None else {"next_cursor": cursor}
    return httpx.Response(200, json={"events": [event_row(window) for window in windows]} | more)


@pytest.mark.parametrize(
    "pages",
    [
        [page([NOW], "a")] * 3,
        [page([], "a"), page([], "b")],
        [page(chain(60)[n : n + 1], str(n)) for n in range(60)] + [page([], None)],
    ],
)
async def test_rs_14_paging_that_repeats_or_never_ends(
    venue: Venue, data: PolymarketMarketData, pages: list[httpx.Response]
) -> None:
    venue.pages = list(pages)
    with pytest.raises(ProtocolChanged, match="keyset"):
        await data.finder().list_markets("BTC")


async def test_rs_14_rows_that_overlap_are_taken_once(venue: Venue, data: PolymarketMarketData) -> None:
    windows = chain(3)
    venue.pages = [page(windows[:2], "a"), page(windows[1:], None)]
    assert len(await data.finder().list_markets("BTC")) == 3
    last = venue.keyset.calls.last.request.url.params
    assert last["after_cursor"] == "a"
    assert "cursor" not in last
    assert "offset" not in last


async def test_series_come_in_pages_of_fifty(venue: Venue, data: PolymarketMarketData) -> None:
    venue.series += [{"id": str(n), "slug": f"a{n}-up-or-down-15m", "recurrence": "15m"} for n in range(70)]
    assets = await data.finder().list_assets()
    assert len(assets) == 72
    assert await data.finder().list_assets() == assets
    assert venue.series_route.call_count == 2


async def test_no_series_at_all_is_a_change_of_the_venue_not_an_unknown_asset(
    venue: Venue, data: PolymarketMarketData
) -> None:
    venue.series = [row | {"slug": "something-else"} for row in venue.series]
    with pytest.raises(ProtocolChanged, match="series"):
        await data.finder().list_assets()


# -- single markets ---------------------------------------------------------------------------------------------------


async def test_a_market_by_its_condition_id(venue: Venue, data: PolymarketMarketData) -> None:
    market = await data.get_market(condition_of(NOW))
    assert market.slug == NOW.slug
    assert data.current(market) == market
    venue.listed[NOW.slug] = event_row(
        NOW, closed=True, umaResolutionStatus="resolved", outcomePrices='["1", "0"]', acceptingOrders=False
    )
    assert (await data.get_market(condition_of(NOW).upper().replace("0X", "0x"))).payouts == (1, 0)
    assert data.current(market).status is MarketStatus.RESOLVED


@pytest.mark.parametrize("market_id", ["", "0x12", "btc", "0x" + "00" * 32, "0x" + "ab" * 31 + "/."])
async def test_a_wrong_id_is_not_found(venue: Venue, data: PolymarketMarketData, market_id: str) -> None:
    with pytest.raises(MarketNotFound):
        await data.get_market(market_id)


async def test_a_market_that_the_clob_does_not_know_yet_can_be_read(venue: Venue, data: PolymarketMarketData) -> None:
    del venue.known[condition_of(NOW)]
    assert (await data.get_market(condition_of(NOW))).token_ids == tokens_of(NOW)


async def test_a_book_over_rest(venue: Venue, data: PolymarketMarketData) -> None:
    market = await data.get_market(condition_of(NOW))
    up, down = market.token_ids
    answer = {
        "market": condition_of(NOW),
        "asset_id": up,
        "timestamp": str(START * 1000),
        "hash": "x",
        "bids": [{"price": "0.48", "size": "30"}, {"price": "0.49", "size": "12.5"}],
        "asks": [{"price": "0.6", "size": "1"}, {"price": "0.51", "size": "2"}],
        "tick_size": "0.01",
    }
    with respx.mock() as router:
        route = router.get(f"{CLOB}/book").mock(return_value=httpx.Response(200, json=answer))
        book = await data.get_orderbook(market, "UP")
        assert book.valid
        assert (str(book.best_bid), str(book.best_bid_size)) == ("0.49", "12.500000")
        assert route.calls.last.request.url.params["token_id"] == up
        with pytest.raises(ProtocolChanged, match="another"):
            await data.get_orderbook(market, "DOWN")
        odd = answer | {"asset_id": down, "bids": [{"price": "x", "size": "1"}]}
        route.mock(return_value=httpx.Response(200, json=odd))
        with pytest.raises(ProtocolChanged, match=NOW.slug):
            await data.get_orderbook(market, "DOWN")
        route.mock(return_value=httpx.Response(404, json={"error": "No orderbook exists for the requested token id"}))
        with pytest.raises(MarketNotFound):
            await data.get_orderbook(market, "DOWN")
    unfollowed = data.book(market, "UP")
    assert (unfollowed.valid, unfollowed.reason) == (False, "not subscribed")


async def test_oe_23_nothing_outside_of_the_public_list_is_ever_sent(data: PolymarketMarketData) -> None:
    for method, path in (("POST", "/order"), ("DELETE", "/order"), ("GET", "/data/orders"), ("POST", "/auth/api-key")):
        with pytest.raises(NotSent, match="allow-list"):
            await data.clob.request(method, path)
    assert data.clob.requests == 0
