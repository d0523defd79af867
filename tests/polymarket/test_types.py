"""Windows, and markets read from real rows with every trap of theirs."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import ConfigError, ProtocolChanged
from pmkit.exchanges.polymarket.messages import ClobInfo, ClobMarket, GammaEvent, GammaMarket
from pmkit.exchanges.polymarket.resolution import clob_payouts, gamma_payouts
from pmkit.exchanges.polymarket.types import (
    INTERVALS,
    PolymarketMarket,
    Window,
    is_condition_id,
    iso_seconds,
    parse_market,
    parse_time_ms,
    same_condition,
    series_asset,
    window_of,
)
from pmkit.exchanges.types import MarketStatus

START = 1_795_176_000
MID_MS = (START + 450) * 1000
UP, DOWN = "7" * 77, "3" * 77
V2_UP = "651150819117105875331414918119047680898421632356043490229292782433651916800"
V2_DOWN = "651150819117105875331414918119047680898421632356043490229292782433651916801"


def gamma(**changed: Any) -> GammaMarket:
    row = {
        "id": "4825799",
        "conditionId": "0x" + "ab" * 32,
        "slug": f"btc-updown-15m-{START}",
        "question": "Bitcoin Up or Down",
        "version": "v1",
        "outcomes": '["Up", "Down"]',
        "outcomePrices": '["0.5", "0.5"]',
        "clobTokenIds": json.dumps([UP, DOWN]),
        "startDate": "2026-11-19T20:00:05.368423Z",
        "eventStartTime": iso_seconds(START * 1000),
        "endDate": iso_seconds((START + 900) * 1000),
        "active": True,
        "closed": False,
        "acceptingOrders": True,
        "enableOrderBook": True,
        "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5,
        "negRisk": False,
        "feesEnabled": True,
        "feeSchedule": {"exponent": 1, "rate": 0.07, "takerOnly": True, "rebateRate": 0.2},
        "cryptoMarketConfig": {"id": "btc-15m-twap-60", "twapEnabled": True, "twapLookbackSeconds": 60},
        "resolutionSource": "https://data.chain.link/streams/btc-usd-twap-60s-streams",
    } | changed
    row = {key: value for key, value in row.items() if value is not ...}
    return msgspec.convert(msgspec.json.decode(msgspec.json.encode(row)), GammaMarket, strict=False)


def clob(**changed: Any) -> ClobInfo:
    row = {
        "t": [{"t": UP, "o": "Up"}, {"t": DOWN, "o": "Down"}],
        "mts": 0.01,
        "mos": 5,
        "ao": True,
        "fd": {"r": 0.07, "e": 1, "to": True},
        "itode": True,
        "v": "v1",
    } | changed
    return msgspec.json.decode(msgspec.json.encode(row), type=ClobInfo, strict=False)


def parse(row: GammaMarket | None = None, info: ClobInfo | None = None, now_ms: int = MID_MS) -> PolymarketMarket:
    return parse_market(row or gamma(), None, info, now_ms=now_ms)


# -- windows ----------------------------------------------------------------------------------------------------------


@given(st.integers(1_577_836_800_000, 4_102_444_799_999), st.sampled_from(sorted(INTERVALS)))
def test_a_window_contains_its_moment_and_is_named_by_its_start(ms: int, interval: str) -> None:
    window = Window.at("btc", interval, ms)
    assert window.start * 1000 <= ms < window.end * 1000
    assert window.end - window.start == INTERVALS[interval]
    assert window_of(window.slug) == window
    assert window.following.start == window.end
    assert series_asset(window.series, interval) == "BTC"


def test_half_a_window_is_not_rounded_up() -> None:
    # `round(now / 900)` names the next window from the middle on.
    assert Window.at("BTC", "15m", (START + 451) * 1000).slug == f"btc-updown-15m-{START}"
    assert Window.at("BTC", "15m", (START + 899) * 1000 + 999).slug == f"btc-updown-15m-{START}"


@pytest.mark.parametrize(
    "slug",
    [
        f"btc-updown-15m-{START + 1}",
        f"btc-updown-1h-{START}",
        f"btc-updown-15m-{START}-x",
        "bitcoin-up-or-down-october-2-2026-1am-et",
        f"btc-updown-15m-{START}\n",
        f"../btc-updown-15m-{START}",
        "",
    ],
)
def test_di_03_names_of_other_markets_are_no_windows(slug: str) -> None:
    assert window_of(slug) is None


@pytest.mark.parametrize("asset", ["", "BTC/USD", "../x", "B" * 13, "бтк"])
def test_an_odd_asset_never_reaches_a_path(asset: str) -> None:
    with pytest.raises(ConfigError):
        Window.at(asset, "15m", MID_MS)


def test_an_unknown_interval_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="5m or 15m"):
        Window.at("BTC", "1h", MID_MS)


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-09-23T00:36:28Z", 1_790_123_788_000),
        ("2026-09-23 00:36:28+00", 1_790_123_788_000),  # closedTime of a market
        ("2026-09-23T00:36:28.5Z", 1_790_123_788_500),
        ("2026-09-22T00:38:25.368423Z", 1_790_037_505_368),
        ("2026-09-23T00:36:28+00:00", 1_790_123_788_000),
    ],
)
def test_times_of_gamma(text: str, ms: int) -> None:
    assert parse_time_ms(text, "t") == ms


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "2026-09-23",
        "2026-09-23T00:36:28",
        "2026-09-23T00:36:28+02:00",
        "1790123788",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-09-23T25:00:00Z",
        "2019-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
    ],
)
def test_di_06_odd_times_are_refused(text: str | None) -> None:
    with pytest.raises(ProtocolChanged, match="endDate"):
        parse_time_ms(text, "endDate")


@given(st.integers(1_577_836_800, 4_102_444_799))
def test_iso_round_trip(second: int) -> None:
    assert parse_time_ms(iso_seconds(second * 1000), "t") == second * 1000


# -- markets ----------------------------------------------------------------------------------------------------------


def test_a_market_with_both_sources() -> None:
    market = parse(info=clob(mts=0.001, mos=7))
    assert (market.asset, market.interval, market.slug) == ("BTC", "15m", f"btc-updown-15m-{START}")
    assert market.condition_id == market.market_id == "0x" + "ab" * 32
    assert market.outcomes == ("UP", "DOWN")
    assert market.token_ids == (UP, DOWN)
    assert (market.open_ms, market.close_ms) == (START * 1000, (START + 900) * 1000)
    assert market.grid.unit == 10  # the CLOB wins over Gamma's cached 0.01
    assert market.min_size == 7
    assert market.size_step == Decimal("0.01")
    assert market.status is MarketStatus.OPEN
    assert market.protocol == "v1"
    assert market.strike is None
    assert market.taker_delay_ms == 150
    assert market.tradable_before_open
    assert not market.fees_assumed
    assert market.fee("0.5", "100") == Decimal("1.75")
    assert market.twap_seconds == 60
    assert "60 s average" in market.settlement


def test_di_04_outcomes_are_paired_by_label() -> None:
    turned = parse(gamma(outcomes='["Down", "Up"]', clobTokenIds=json.dumps([DOWN, UP])))
    assert turned.outcomes == ("UP", "DOWN")
    assert turned.token_ids == (UP, DOWN)
    as_lists = parse(gamma(outcomes=["Down", "Up"], clobTokenIds=[DOWN, UP]))
    assert as_lists.token_ids == (UP, DOWN)


@pytest.mark.parametrize(
    "changed",
    [
        {"outcomes": '["Up", "Down", "Flat"]', "clobTokenIds": json.dumps([UP, DOWN, "9" * 77])},
        {"outcomes": '["Yes", "No"]'},
        {"outcomes": '["Up", "Up"]'},
        {"outcomes": '["Up"]', "clobTokenIds": json.dumps([UP])},
        {"outcomes": None},
        {"outcomes": "Up, Down"},
        {"outcomes": '{"Up": 1}'},
        {"clobTokenIds": None},
        {"clobTokenIds": json.dumps([UP])},
        {"clobTokenIds": json.dumps([UP, UP])},
        {"clobTokenIds": json.dumps([UP, ""])},
        {"clobTokenIds": "[7.77e76, 3.3e76]"},
        {"clobTokenIds": json.dumps([UP, "0x33"])},
        {"slug": "../../data/orders"},
        {"slug": "line\nbreak"},
        {"slug": None},
        {"conditionId": None},
        {"conditionId": "0x12"},
        {"orderPriceMinTickSize": None},
        {"orderPriceMinTickSize": 0},
        {"orderPriceMinTickSize": 0.03},
        {"orderMinSize": None},
        {"orderMinSize": -5},
    ],
)
def test_di_04_rows_that_cannot_be_traded_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolChanged, match="Polymarket market"):
        parse(gamma(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"eventStartTime": iso_seconds((START - 900) * 1000)},
        {"endDate": iso_seconds((START + 300) * 1000)},
        {"endDate": None},
        {"eventStartTime": ...},  # startDate is not the window's start
        {"slug": f"btc-updown-5m-{START}"},
        {"slug": f"btc-updown-15m-{START + 900}"},
    ],
)
def test_di_03_di_06_times_must_be_those_of_the_name(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolChanged):
        parse(gamma(**changed))


@pytest.mark.parametrize(
    ("changed", "info"),
    [
        ({"version": ...}, None),
        ({"version": None}, clob(v=None)),
        ({"version": "v3"}, None),
        ({"version": "v1"}, clob(v="v2")),
        ({"version": "v2", "positionIds": None}, None),
        ({"version": "v2", "positionIds": [UP, DOWN]}, None),  # ids of the other protocol
        ({"version": "v1", "clobTokenIds": json.dumps([V2_UP, V2_DOWN])}, None),
    ],
)
def test_unknown_or_contradictory_versions_are_refused(changed: dict[str, Any], info: ClobInfo | None) -> None:
    with pytest.raises(ProtocolChanged):
        parse(gamma(**changed), info)


def test_the_version_decides_which_ids_are_traded() -> None:
    both = {"positionIds": [V2_UP, V2_DOWN], "clobTokenIds": json.dumps([UP, DOWN])}
    assert parse(gamma(version="v1", **both)).token_ids == (UP, DOWN)  # positionIds have been seen on v1 markets
    second = parse(gamma(version="v2", **both))
    assert second.token_ids == (V2_UP, V2_DOWN)
    assert second.protocol == "v2"
    assert parse(gamma(version=...), clob()).protocol == "v1"  # the CLOB says it where a trimmed row does not


def test_tokens_that_the_clob_names_otherwise_are_refused() -> None:
    with pytest.raises(ProtocolChanged, match="different tokens"):
        parse(info=clob(t=[{"t": UP, "o": "Down"}, {"t": DOWN, "o": "Up"}]))


def test_fees_that_nobody_names_are_assumed_and_flagged() -> None:
    market = parse(gamma(feeSchedule=None))
    assert market.fees_assumed
    assert market.fee("0.5", "100") == Decimal("1.75")


@pytest.mark.parametrize(
    ("now_s", "accepting", "status"),
    [
        (START - 1, True, MarketStatus.UPCOMING),
        (START, True, MarketStatus.OPEN),
        (START + 899, True, MarketStatus.OPEN),
        (START + 450, False, MarketStatus.PAUSED),
        (START + 900, True, MarketStatus.CLOSED),
        (START + 5000, False, MarketStatus.CLOSED),
    ],
)
def test_di_01_status_follows_the_clock_not_gammas_cache(now_s: int, accepting: bool, status: MarketStatus) -> None:
    assert parse(gamma(acceptingOrders=accepting, closed=False), now_ms=now_s * 1000).status is status
    early = parse(gamma(acceptingOrders=accepting), now_ms=(START - 5000) * 1000)
    assert early.at(now_s * 1000).status is status


def test_a_changed_price_step() -> None:
    market = parse()
    finer = market.with_tick(Decimal("0.001"))
    assert finer.grid.unit == 10
    assert finer.with_tick(Decimal("0.001")) is finer
    assert finer.with_tick(Decimal("0.01")) == market


def test_strike_only_after_the_end() -> None:
    event = msgspec.json.decode(
        b'{"id":"1","eventMetadata":{"priceToBeat":86434.33744369619}}', type=GammaEvent, strict=False
    )
    assert parse_market(gamma(), event, now_ms=MID_MS).strike is None
    after = parse_market(gamma(), event, now_ms=(START + 901) * 1000)
    assert after.strike == Decimal("86434.33744369619")
    assert after.strike_source == "gamma priceToBeat"


def test_a_market_that_is_no_window() -> None:
    market = parse(
        gamma(
            slug="katana-fdv-above-1b",
            outcomes='["Yes", "No"]',
            eventStartTime=...,
            startDate="2026-02-27T23:33:23.5Z",
            endDate="2028-01-01T00:00:00Z",
        )
    )
    assert (market.asset, market.interval) == ("", "")
    assert market.outcomes == ("YES", "NO")


def test_condition_ids_of_31_and_32_bytes_are_one() -> None:
    short = "0x" + "ab" * 31
    assert is_condition_id(short)
    assert same_condition(short, short + "00")
    assert not same_condition(short, short + "01")
    assert not is_condition_id("0x" + "ab" * 31 + "/")


# -- results ----------------------------------------------------------------------------------------------------------

RESOLVED = {"closed": True, "umaResolutionStatus": "resolved", "outcomePrices": '["1", "0"]'}


def test_a_resolved_row() -> None:
    market = parse(gamma(**RESOLVED), now_ms=(START + 960) * 1000)
    assert market.status is MarketStatus.RESOLVED
    assert market.payouts == (1, 0)
    assert market.payout("UP") == 1
    assert parse(gamma(**RESOLVED, outcomes='["Down","Up"]', clobTokenIds=json.dumps([DOWN, UP]))).payouts == (0, 1)
    assert parse(gamma(**RESOLVED | {"outcomePrices": '["0.5", "0.5"]'})).payouts == (Decimal("0.5"), Decimal("0.5"))


@pytest.mark.parametrize(
    "changed",
    [
        {"closed": False},
        {"umaResolutionStatus": "proposed"},
        {"umaResolutionStatus": None},
        {"outcomePrices": '["0.999", "0.001"]'},
        {"outcomePrices": '["1", "1"]'},
        {"outcomePrices": '["0", "0"]'},
        {"outcomePrices": None},
        {"outcomePrices": '["NaN", "0"]'},
        {"outcomePrices": '["one", "0"]'},
        {"outcomePrices": '["1"]'},
        {"version": "v2", "resolutionStatus": "active"},
    ],
)
def test_se_08_no_result_before_it_is_proven(changed: dict[str, Any]) -> None:
    assert gamma_payouts(gamma(**RESOLVED | changed), ("UP", "DOWN")) is None


def test_a_resolved_row_of_protocol_v2() -> None:
    row = gamma(version="v2", resolutionStatus="resolved", outcomePrices='["0", "1"]')
    assert gamma_payouts(row, ("UP", "DOWN")) == (0, 1)


def winner(up: bool | None, down: bool | None, *, closed: bool = True, split: bool = False) -> ClobMarket:
    tokens = [
        {"token_id": DOWN, "outcome": "Down", "winner": down},
        {"token_id": UP, "outcome": "Up", "winner": up},
    ]
    body = {"condition_id": "0x", "closed": closed, "is_50_50_outcome": split, "tokens": tokens}
    return msgspec.json.decode(msgspec.json.encode(body), type=ClobMarket)


@pytest.mark.parametrize(
    ("answer", "payouts"),
    [
        (winner(True, False), (1, 0)),
        (winner(False, True), (0, 1)),
        (winner(False, False, split=True), (Decimal("0.5"), Decimal("0.5"))),
        (winner(False, False), None),
        (winner(None, None), None),
        (winner(True, True), None),
        (winner(True, False, closed=False), None),
    ],
)
def test_the_winner_of_the_clob(answer: ClobMarket, payouts: tuple[Decimal, ...] | None) -> None:
    assert clob_payouts(answer, parse()) == payouts


# -- real rows --------------------------------------------------------------------------------------------------------


def load(recordings: Path, name: str) -> Any:
    return json.loads((recordings / "polymarket" / name).read_text())["data"]


def event_of(row: Any) -> GammaEvent:
    return msgspec.json.decode(json.dumps(row).encode(), type=GammaEvent, strict=False)


def test_real_resolved_events(recordings: Path) -> None:
    rows = [event_of(row) for row in load(recordings, "gamma_events_btc_5m_resolved_2026-09-23.json")]
    markets = [parse_market(event.markets[0], event, now_ms=1_790_200_000_000) for event in rows]
    assert [market.status for market in markets] == [MarketStatus.RESOLVED] * 2
    assert markets[0].payouts == (1, 0)
    assert markets[0].strike == Decimal("86434.33744369619")
    assert markets[1].strike == rows[0].event_metadata.final_price  # type: ignore[union-attr]
    assert markets[0].twap_seconds == 60


def test_real_events_without_a_final_price(recordings: Path) -> None:
    rows = load(recordings, "gamma_events_btc_5m_resolving_no_finalprice_2026-09-23.json")
    for row in rows if isinstance(rows, list) else [rows]:
        event = event_of(row)
        market = parse_market(event.markets[0], event, now_ms=1_790_200_000_000)
        assert market.payouts is None or sorted(market.payouts) == [0, 1]


def test_real_zombie_has_no_order_book(recordings: Path) -> None:
    event = event_of(load(recordings, "gamma_event_zombie_2025-12-19.json")[0])
    market = parse_market(event.markets[0], event, now_ms=1_790_200_000_000)
    assert event.markets[0].enable_order_book is False
    assert market.status is MarketStatus.CLOSED


def test_real_open_market_trimmed_of_its_version(recordings: Path) -> None:
    row = msgspec.convert(load(recordings, "gamma_market_btc_5m_open_2026-08-22.json"), GammaMarket, strict=False)
    assert parse_market(row, now_ms=1_787_414_500_000).status is MarketStatus.OPEN


def test_documented_v2_ids_are_told_from_v1_ids(recordings: Path) -> None:
    row = load(recordings, "gamma_market_v2_doc_example.json")
    assert parse(gamma(version="v2", positionIds=row["positionIds"], clobTokenIds=None)).protocol == "v2"


def test_real_rows_of_half_a_day(recordings: Path) -> None:
    path = recordings / "polymarket" / "sessions" / "gamma_btc5m_resolved_20260724_am.jsonl.gz"
    count = 0
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            market = parse_market(msgspec.convert(row["raw"], GammaMarket, strict=False), now_ms=1_790_200_000_000)
            assert market.condition_id == row["condition_id"]
            assert list(market.token_ids) == row["token_ids"]
            assert market.payouts == tuple(map(Decimal, row["outcome_prices"]))
            assert (market.open_ms, market.close_ms) == (row["start_sec"] * 1000, row["end_sec"] * 1000)
            count += 1
    assert count == 145


def test_real_clob_market_before_and_after_it_is_known(recordings: Path) -> None:
    rows = load(recordings, "clob_market_updown_2026-08-16.json")
    live = msgspec.convert(rows["live"], ClobMarket, strict=False)
    early = msgspec.convert(rows["not_yet_live"], ClobMarket, strict=False)
    assert [token.outcome for token in live.tokens] == ["Up", "Down"]
    assert clob_payouts(early, parse()) is None
