"""The finder: windows by series and times, also on nights when New York changes its clocks and on Thursdays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, MarketNotFound, ProtocolChanged, RateLimited, VenueUnavailable
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder
from pmkit.exchanges.kalshi.rest_messages import Schedule, ScheduleAnswer
from pmkit.exchanges.kalshi.schedule import closed_until
from pmkit.exchanges.kalshi.types import KalshiMarket, RowError
from pmkit.exchanges.types import MarketStatus, NoMarket
from tests.kalshi.rest_venue import RestVenue, serving


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@asynccontextmanager
async def running(now: str) -> AsyncIterator[tuple[KalshiMarketFinder, RestVenue, ManualClock]]:
    clock = ManualClock(at(now))
    venue = RestVenue(clock)
    with serving(venue):
        async with KalshiMarketData(Endpoints.real(), clock) as data:
            yield data.finder(), venue, clock


async def test_current_and_next() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, clock):
        current = await finder.get_current_market("BTC")
        following = await finder.get_next_market("BTC")
        assert current
        assert following
        assert current.market_id == "KXBTC15M-26NOV201515-15"
        assert current.open_time == datetime(2026, 11, 20, 20, 0, tzinfo=UTC)
        assert (current.status, current.strike) == (MarketStatus.OPEN, Decimal("90000.25"))
        assert following.open_ms == current.close_ms
        assert (following.status, following.strike) == (MarketStatus.UPCOMING, None)
        assert current.fee("0.5", 1) == Decimal("0.0175")
        calls = sum(venue.calls.values())
        for _ in range(10):
            await clock.advance(1)
            assert await finder.get_current_market("BTC")
            assert await finder.get_next_market("BTC")
        assert sum(venue.calls.values()) == calls, "the day's list is read once"
        assert finder.get_seconds_remaining(current) == pytest.approx(470, abs=0.6)


async def test_ro_02_the_window_changes_at_the_quarter_and_its_strike_follows() -> None:
    async with running("2026-11-20T20:14:58Z") as (finder, _, clock):
        first = await finder.get_current_market("BTC")
        assert first
        await clock.advance(1.4)  # the venue's clock is known to half a second only
        assert await finder.get_current_market("BTC") == first
        await clock.advance(1.2)
        second = await finder.get_current_market("BTC")
        assert second
        assert second.open_ms == first.close_ms
        assert second.status is MarketStatus.OPEN
        await clock.advance(2)
        again = await finder.get_current_market("BTC")
        assert again
        assert again.strike == Decimal("90000.25")


async def test_a_window_without_a_strike_is_a_market_and_is_asked_for_once_a_second() -> None:
    async with running("2026-11-20T20:00:05Z") as (finder, venue, clock):
        venue.strikes = False
        for _ in range(40):
            found = await finder.get_current_market("BTC")
            assert found
            assert found.strike is None
            await clock.advance(0.1)
        assert 3 <= venue.calls[f"/markets/{found.market_id}"] <= 6
        venue.strikes = True
        await clock.advance(1.1)
        found = await finder.get_current_market("BTC")
        assert found
        assert found.strike == Decimal("90000.25")
        calls = venue.calls.total()
        await clock.advance(5)
        await finder.get_current_market("BTC")
        assert venue.calls.total() == calls


async def test_smart_market_takes_the_next_one_before_the_boundary() -> None:
    async with running("2026-11-20T20:14:30Z") as (finder, _, clock):
        early = await finder.get_smart_market("BTC", lead=10)
        await clock.advance(22)
        late = await finder.get_smart_market("BTC", lead=10)
        assert early
        assert late
        assert late.open_ms == early.close_ms


async def test_ro_01_a_window_that_is_not_listed_yet_is_no_market_with_a_reason() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, clock):
        venue.listing = False
        found = await finder.get_current_market("BTC")
        assert isinstance(found, NoMarket)
        assert not found
        assert found.reason == "not listed yet"
        assert found.until is not None
        assert 10 <= (found.until - clock.now()).total_seconds() <= 20
        calls = venue.calls["/markets"]
        for _ in range(20):
            assert not await finder.get_current_market("BTC")
            await clock.advance(0.1)
        assert venue.calls["/markets"] - calls <= 4, "a miss asks at most once a second"
        venue.listing = True
        await clock.advance(1.1)
        assert await finder.get_current_market("BTC")


async def test_di_01_a_stale_list_at_the_boundary_is_judged_by_its_times() -> None:
    async with running("2026-11-20T20:15:02Z") as (finder, venue, clock):
        venue.stale_seconds = 15  # the CDN's copy of the list: the new window still says initialized
        found = await finder.get_current_market("BTC")
        assert found
        assert found.status is MarketStatus.OPEN
        assert found.open_time == datetime(2026, 11, 20, 20, 15, tzinfo=UTC)
        await clock.advance(1.1)
        found = await finder.get_current_market("BTC")
        assert found
        assert found.strike is not None
        await finder.list_markets("BTC")  # the stale list must not take the strike away again
        found = await finder.get_current_market("BTC")
        assert found
        assert found.strike is not None


NIGHTS = {
    "spring, before": ("2027-03-14T06:52:00Z", "KXBTC15M-27MAR140300-00"),
    "spring, after": ("2027-03-14T07:07:00Z", "KXBTC15M-27MAR140315-15"),
    "autumn, first 01:15": ("2026-11-01T05:07:00Z", "KXBTC15M-26NOV010115-15"),
    "autumn, second 01:15": ("2026-11-01T06:07:00Z", "KXBTC15M-26NOV010115-15"),
    "autumn, after": ("2026-11-01T07:07:00Z", "KXBTC15M-26NOV010215-15"),
    "january": ("2027-01-15T17:07:00Z", "KXBTC15M-27JAN151215-15"),
    "july": ("2026-07-15T17:07:00Z", "KXBTC15M-26JUL151315-15"),
}


@pytest.mark.parametrize("night", sorted(NIGHTS))
async def test_ck_04_nights_when_new_york_changes_its_clocks(night: str) -> None:
    now, ticker = NIGHTS[night]
    async with running(now) as (finder, venue, _):
        if night.startswith("autumn"):
            # The grammar of tickers cannot tell the repeated hour apart. Whatever Kalshi lists there, each window is
            # found by its times: here the second 01:15 carries another event's name.
            start = datetime.fromisoformat(now).replace(minute=0, second=0)
            venue.listing = False
            for quarter in range(8):
                close = start + timedelta(minutes=15 * quarter)
                row = venue.market("BTC", close, venue.now)
                if datetime(2026, 11, 1, 6, tzinfo=UTC) < close <= datetime(2026, 11, 1, 7, tzinfo=UTC):
                    row["ticker"] += "B"
                venue.extra_markets.append(row)
        found = await finder.get_current_market("BTC")
        assert found
        assert found.market_id.startswith(ticker)
        moment = datetime.fromisoformat(now)
        assert found.open_time <= moment < found.close_time
        assert found.close_ms - found.open_ms == 900_000
        following = await finder.get_next_market("BTC")
        assert following
        assert following.open_ms == found.close_ms


@pytest.mark.parametrize(
    ("thursday", "opens"),
    [("2026-11-19", "2026-11-19T10:00:00Z"), ("2026-07-23", "2026-07-23T09:00:00Z")],  # winter and summer time
)
async def test_thursday_maintenance_is_no_market_until_five(thursday: str, opens: str) -> None:
    reopen = datetime.fromisoformat(opens)
    async with running((reopen - timedelta(hours=2, minutes=4)).isoformat()) as (finder, venue, clock):
        last = await finder.get_current_market("BTC")  # 02:45-03:00 in New York
        assert last
        following = await finder.get_next_market("BTC")
        assert isinstance(following, NoMarket)
        assert following.until == reopen
        venue.trading = False
        for minutes in (5, 60, 50):
            await clock.advance(minutes * 60)
            found = await finder.get_current_market("BTC")
            assert isinstance(found, NoMarket), clock.now()
            assert "maintenance" in found.reason
            assert found.until == reopen
        following = await finder.get_next_market("BTC")  # 04:51: the window of 05:00 is next
        assert following
        assert following.open_time == reopen
        venue.trading = True
        await clock.advance(10 * 60)
        found = await finder.get_current_market("BTC")
        assert found
        assert found.open_time == reopen
        assert thursday in str(reopen)


async def test_a_pause_of_the_shard_is_told() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.listing, venue.trading = False, False
        found = await finder.get_current_market("BTC")
        assert isinstance(found, NoMarket)
        assert found.reason == "trading is paused"  # shard 2 does not trade, whatever the top fields say of shard 0


async def test_di_07_a_failed_query_raises_and_a_known_window_does_not_need_one() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, clock):
        venue.fail["/markets"] = 503
        with pytest.raises(VenueUnavailable):
            await finder.get_current_market("BTC")
        venue.fail = {"/": 429}
        with pytest.raises(RateLimited):
            await finder.get_current_market("BTC")
        venue.fail.clear()
        await clock.advance(20)
        assert await finder.get_current_market("BTC")
        venue.fail["/"] = 500
        await clock.advance(8 * 60)  # the next window, from the day's list; its strike cannot be read
        for _ in range(30):
            found = await finder.get_current_market("BTC")
            assert found
            assert (found.open_time.minute, found.strike) == (15, None)
            await clock.advance(1)
        venue.fail.clear()
        await clock.advance(2)
        found = await finder.get_current_market("BTC")
        assert found
        assert found.strike is not None


async def test_di_07_discovery_is_down_over_midnight() -> None:
    async with running("2026-11-20T23:50:00Z") as (finder, venue, clock):
        assert await finder.get_current_market("BTC")
        venue.fail["/"] = 503
        for _ in range(30):
            await clock.advance(60)
            found = await finder.get_current_market("BTC")
            assert found
            assert found.open_time <= clock.now() < found.close_time
        calls = venue.calls["/series"]
        assert calls < 40
        venue.fail.clear()
        await clock.advance(60)
        assert await finder.get_current_market("BTC")
        assert venue.calls["/series"] == calls + 1
        await clock.advance(60)
        assert await finder.get_current_market("BTC")
        assert venue.calls["/series"] == calls + 1


async def test_why_there_is_none_may_be_unreadable_and_says_so() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.listing = False
        venue.fail["/exchange/schedule"] = 500
        found = await finder.get_current_market("BTC")
        assert isinstance(found, NoMarket)
        assert "could not be read" in found.reason
        assert "500" in found.reason


async def test_unknown_assets_and_intervals_name_what_there_is() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        with pytest.raises(ConfigError, match="BTC, ETH"):
            await finder.get_current_market("LUNA")
        with pytest.raises(ConfigError, match="15m"):
            await finder.get_current_market("BTC", interval="5m")
        with pytest.raises(ConfigError):
            await finder.list_assets("1h")
        assert await finder.list_assets() == ["BTC", "ETH"]
        venue.assets.append("SOL")  # listed during the day: an unknown asset asks again
        assert await finder.get_current_market("SOL")


async def test_di_03_series_and_windows_that_look_alike_are_left_out() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.extra_series += [
            venue.series("KXCRYPTOLEAD15M"),
            venue.series("KXBTCD") | {"frequency": "hourly"},
            venue.series("KXDOGE15M") | {"frequency": "daily"},
            {"ticker": 5},
            {"title": "no ticker"},
        ]
        assert await finder.list_assets() == ["BTC", "ETH"]
        now = venue.now.replace(second=0)
        long = venue.market("BTC", now + timedelta(minutes=23), venue.now) | {
            "ticker": "KXBTC15M-LONG",
            "open_time": "2026-11-20T20:00:00Z",
        }
        other = venue.market("BTC", now + timedelta(minutes=8), venue.now) | {
            "ticker": "KXBTC15M-OTHER",
            "strike_type": "between",
        }
        venue.extra_markets += [long, other]
        found = await finder.get_current_market("BTC")
        assert found
        assert found.market_id == "KXBTC15M-26NOV201515-15"
        venue.extra_markets.append(
            venue.market("BTC", now + timedelta(minutes=8), venue.now) | {"ticker": "KXBTC15M-TWIN"}
        )
        await finder.list_markets("BTC")
        with pytest.raises(ProtocolChanged, match="KXBTC15M-TWIN"):
            await finder.get_current_market("BTC")


async def test_di_06_odd_rows_are_left_out_and_the_others_go_on() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        good = venue.market("BTC", venue.now, venue.now)
        venue.extra_markets += [
            good | {"ticker": "KXBTC15M-A", "close_time": None},
            good | {"ticker": "KXBTC15M-B", "open_time": "tomorrow"},
            good | {"ticker": "KXBTC15M-C", "price_ranges": "none"},
        ]
        assert await finder.get_current_market("BTC")
        assert finder.data.catalogue.odd_rows == 3  # type: ignore[attr-defined]


async def test_a_list_of_which_nothing_can_be_read_is_not_an_empty_one() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        good = venue.market("BTC", venue.now, venue.now)
        venue.listing = False
        venue.extra_markets.append({**good, "close_time": 17})
        with pytest.raises(ProtocolChanged, match="none of 1"):
            await finder.get_current_market("BTC")


async def test_di_05_pages_are_followed_to_the_end() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.page_size = 7
        assert await finder.get_current_market("BTC")
        assert venue.calls["/markets"] == 5  # and the current window is on the last page


async def test_rs_14_a_cursor_that_repeats_ends_the_walk_with_an_error() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        venue.page_size, venue.repeat_cursor = 5, True
        with pytest.raises(ProtocolChanged, match="cursor"):
            await finder.get_current_market("BTC")


async def test_a_provisional_market_may_vanish() -> None:
    async with running("2026-11-20T20:00:02Z") as (finder, venue, clock):
        venue.strikes = False
        found = await finder.get_current_market("BTC")
        assert found
        venue.hidden.add(found.market_id)
        await clock.advance(1.5)
        assert not await finder.get_current_market("BTC")


async def test_list_markets_is_sorted_and_filtered() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, _, _clock):
        everything = await finder.list_markets()
        assert {one.asset for one in everything} == {"BTC", "ETH"}
        assert [one.open_ms for one in everything] == sorted(one.open_ms for one in everything)
        open_ones = await finder.list_markets("BTC", MarketStatus.OPEN)
        assert [one.market_id for one in open_ones] == ["KXBTC15M-26NOV201515-15"]
        upcoming = await finder.list_markets("ETH", MarketStatus.UPCOMING)
        assert all(one.status is MarketStatus.UPCOMING and one.asset == "ETH" for one in upcoming)
        assert len(upcoming) > 10
        done = await finder.list_markets("BTC", MarketStatus.RESOLVED)
        assert len(done) > 50
        assert all(one.payouts for one in done)


@pytest.mark.parametrize("error", [-5.0, -0.7, 0.7, 5.0])
async def test_ck_01_the_venues_clock_decides_at_the_boundary(error: float) -> None:
    # The venue's clock is `error` seconds ahead of ours; ours says 20:15:00.
    async with running("2026-11-20T20:15:00Z") as (finder, venue, _):
        venue.clock_error = error
        found = await finder.get_current_market("BTC")
        assert found
        assert abs(finder.data.venue_clock.offset_ms - error * 1000) <= finder.data.venue_clock.uncertainty_ms <= 1000
        if abs(error) > 0.5:
            assert found.open_time <= datetime(2026, 11, 20, 20, 15, tzinfo=UTC) + timedelta(seconds=error)
            assert (found.open_ms == at("2026-11-20T20:15:00Z")) is (error > 0)


async def test_an_answer_from_a_cache_does_not_move_the_venues_clock() -> None:
    """A capture of Kalshi's list has an Age of 6 s: its Date is six seconds old as well."""
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        await finder.get_current_market("BTC")
        offset = finder.data.venue_clock.offset_ms
        plain = venue.answer

        def cached(request: Any) -> Any:
            response = plain(request)
            response.headers["age"] = "6"
            response.headers["date"] = "Fri, 20 Nov 2026 20:06:50 GMT"
            return response

        venue.answer = cached  # type: ignore[method-assign]
        with serving(venue):
            for _ in range(10):
                await finder.list_markets("BTC")
        assert finder.data.venue_clock.offset_ms == offset


async def test_get_market_reads_series_and_fees_by_the_event() -> None:
    async with running("2026-11-20T20:07:00Z") as (finder, venue, _):
        data = finder.data
        found = await data.get_market("KXBTC15M-26NOV201515-15")
        assert isinstance(found, KalshiMarket)
        assert (found.asset, found.series_ticker, found.strike) == ("BTC", "KXBTC15M", Decimal("90000.25"))
        assert venue.calls["/events/KXBTC15M-26NOV201515"] == 1
        await data.get_market("KXBTC15M-26NOV201515-15")
        assert venue.calls["/events/KXBTC15M-26NOV201515"] == 1
        for wrong in ("KXBTC15M-NO-SUCH", "../portfolio/orders", "", "a?b", "KX/../../x"):
            with pytest.raises(MarketNotFound):
                await data.get_market(wrong)
        assert not any("portfolio" in url for url in venue.urls)


# -- the schedule


@pytest.fixture(scope="module")
def schedule(recordings: Path) -> Schedule:
    document = json.loads((recordings / "kalshi" / "rest" / "exchange_schedule.json").read_text())
    import msgspec

    return msgspec.convert(document["response"], ScheduleAnswer).schedule


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-19T07:59:59Z", None),  # Thursday 02:59:59 EST
        ("2026-11-19T08:00:00Z", "2026-11-19T10:00:00Z"),
        ("2026-11-19T09:59:59Z", "2026-11-19T10:00:00Z"),
        ("2026-11-19T10:00:00Z", None),
        ("2026-07-23T07:00:00Z", "2026-07-23T09:00:00Z"),  # EDT
        ("2026-07-23T06:59:59Z", None),
        ("2026-11-18T08:30:00Z", None),  # a Wednesday
        ("2026-11-20T04:59:59Z", None),  # the last second of Thursday in New York
        ("2026-11-01T05:30:00Z", None),
        ("2026-11-01T06:30:00Z", None),
        ("2027-03-14T07:30:00Z", None),
    ],
)
def test_the_recorded_schedule_closes_on_thursdays(schedule: Schedule, now: str, until: str | None) -> None:
    assert closed_until(schedule, at(now)) == (None if until is None else at(until))


@contextmanager
def no_rows() -> Iterator[None]:
    with pytest.raises(RowError):
        yield


def test_schedules_that_are_odd(schedule: Schedule) -> None:
    import msgspec

    def made(**fields: Any) -> Schedule:
        return msgspec.convert(fields, Schedule)

    now = at("2026-11-18T12:00:00Z")
    assert closed_until(made(), now) is None
    windows = [{"start_datetime": "2026-11-18T11:00:00Z", "end_datetime": "2026-11-18T13:00:00Z"}]
    assert closed_until(made(maintenance_windows=windows), now) == at("2026-11-18T13:00:00Z")
    # A maintenance that ends inside the Thursday gap ends with the gap.
    windows = [{"start_datetime": "2026-11-19T07:00:00Z", "end_datetime": "2026-11-19T09:00:00Z"}]
    both = msgspec.structs.replace(schedule, maintenance_windows=made(maintenance_windows=windows).maintenance_windows)
    assert closed_until(both, at("2026-11-19T07:30:00Z")) == at("2026-11-19T10:00:00Z")
    for hours in ([{}], [{"monday": [{"open_time": "9am", "close_time": "5pm"}]}]):
        with no_rows():
            closed_until(made(standard_hours=hours), now)
