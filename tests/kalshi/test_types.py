"""REST rows and lifecycle events to markets; grids, fees, prints."""

from __future__ import annotations

import csv
import gzip
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import InvalidOrder, ProtocolChanged
from pmkit.exchanges.kalshi import messages
from pmkit.exchanges.kalshi.fees import fee_rule
from pmkit.exchanges.kalshi.grid import GridError, grid_of
from pmkit.exchanges.kalshi.messages import Lifecycle, PriceRange, TradeFrame, decode_frame, decode_index_tick
from pmkit.exchanges.kalshi.rest_messages import MarketRow, SeriesRow, TradeRow
from pmkit.exchanges.kalshi.types import (
    KalshiMarket,
    RowError,
    asset_of,
    is_ticker,
    is_window,
    parse_market,
    parse_trade,
    time_ms,
    with_event,
)
from pmkit.exchanges.types import MarketStatus, Side

SERIES = SeriesRow("KXBTC15M", "Bitcoin price up down", "Crypto", "fifteen_min", "quadratic", Decimal(1), 2)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "ticker": "KXBTC15M-26NOV201915-15",
        "event_ticker": "KXBTC15M-26NOV201915",
        "market_type": "binary",
        "title": "BTC price up in next 15 mins?",
        "open_time": "2026-11-21T00:00:00Z",
        "close_time": "2026-11-21T00:15:00Z",
        "status": "initialized",
        "result": "",
        "exchange_index": 2,
        "price_level_structure": "tapered_deci_cent",
        **changes,
    }


def market(now: str = "2026-11-21T00:05:00Z", **changes: Any) -> KalshiMarket:
    return parse_market(msgspec.convert(row(**changes), MarketRow, strict=False), SERIES, ms(now))


def recorded(path: Path) -> MarketRow:
    document = json.loads(path.read_text())
    return msgspec.convert((document.get("body") or document)["market"], MarketRow, strict=False)


def test_a_recorded_open_market(recordings: Path) -> None:
    path = recordings / "kalshi" / "rest" / "market_KXBTC15M-26JUL222315-15.json"
    found = parse_market(recorded(path), SERIES, ms("2026-07-23T03:08Z"))
    assert (found.market_id, found.ticker, found.asset, found.interval) == (
        "KXBTC15M-26JUL222315-15",
        "KXBTC15M-26JUL222315-15",
        "BTC",
        "15m",
    )
    assert found.outcomes == ("YES", "NO")
    assert found.token_ids == ("KXBTC15M-26JUL222315-15:YES", "KXBTC15M-26JUL222315-15:NO")
    assert found.open_time == datetime(2026, 7, 23, 3, 0, tzinfo=UTC)
    assert found.close_ms - found.open_ms == 900_000
    assert found.strike == Decimal("65776.62")
    assert found.status is MarketStatus.OPEN
    assert found.payouts is None
    assert not found.tradable_before_open
    assert (found.min_size, found.size_step) == (Decimal("0.01"), Decimal("0.01"))
    assert found.grid.unit == 10
    assert found.grid.legal(Decimal("0.099"))
    assert found.grid.legal(Decimal("0.90"))
    assert not found.grid.legal(Decimal("0.123"))
    assert found.settlement.startswith("If the simple average")
    assert is_window(found)
    with pytest.raises(InvalidOrder, match=r"0\.12 and 0\.13"):
        found.check_price("0.125")


def test_a_recorded_market_without_bands_takes_them_from_its_structure(recordings: Path) -> None:
    path = recordings / "kalshi" / "rest" / "market_KXBTC15M-26AUG170100-00.json"
    found = parse_market(recorded(path), SERIES, ms("2026-08-17T04:50Z"))
    assert found.grid == grid_of(None, "tapered_deci_cent")
    # 01:00 in the ticker is New York's summer time; what counts is close_time.
    assert found.close_time == datetime(2026, 8, 17, 5, 0, tzinfo=UTC)


def test_a_recorded_hourly_market_is_no_window(recordings: Path) -> None:
    path = recordings / "kalshi" / "rest" / "market_KXBTCD-26AUG1717-T72749.99.json"
    series = SeriesRow("KXBTCD", fee_type="quadratic", fee_multiplier=Decimal(1), frequency="hourly")
    found = parse_market(recorded(path), series, ms("2026-08-17T04:50Z"))
    assert not is_window(found)
    assert found.strike == Decimal("72749.99")
    assert found.strike_type == "greater"


def test_recorded_settled_markets_with_missing_strikes(recordings: Path) -> None:
    document = json.loads((recordings / "kalshi" / "rest" / "markets_settled_KXBTC15M_missing_strike.json").read_text())
    rows = [msgspec.convert(one, MarketRow, strict=False) for one in (document.get("body") or document)["markets"]]
    found = [parse_market(one, SERIES, ms("2026-07-29T00:00Z")) for one in rows]
    assert len(found) >= 9
    assert all(one.status is MarketStatus.RESOLVED and one.payouts is not None for one in found)
    missing = [one for one in found if one.strike is None]
    assert {one.ticker for one in missing} >= {"KXBTC15M-26JUL221430-30"}
    assert all(one.payouts == (0, 1) for one in missing)  # no data means NO; the venue's result counts, not ours
    for one in found:
        assert one.strike is None or one.strike > 0


@pytest.mark.parametrize(
    ("venue_status", "now", "expected"),
    [
        ("initialized", "2026-11-20T23:59:59.999Z", MarketStatus.UPCOMING),
        ("initialized", "2026-11-21T00:00:00Z", MarketStatus.OPEN),  # the list may be 15 s old
        ("active", "2026-11-21T00:14:59.999Z", MarketStatus.OPEN),
        ("active", "2026-11-21T00:15:00Z", MarketStatus.CLOSED),
        ("inactive", "2026-11-21T00:05:00Z", MarketStatus.PAUSED),
        ("closed", "2026-11-21T00:05:00Z", MarketStatus.CLOSED),  # closed early
        ("determined", "2026-11-21T00:15:03Z", MarketStatus.CLOSED),
        ("disputed", "2026-11-21T00:15:03Z", MarketStatus.CLOSED),
        ("finalized", "2026-11-21T00:15:05Z", MarketStatus.RESOLVED),
        ("something_new", "2026-11-21T00:05:00Z", MarketStatus.OPEN),
    ],
)
def test_di_01_status_follows_the_word_and_the_clock(venue_status: str, now: str, expected: MarketStatus) -> None:
    result = "yes" if venue_status in ("determined", "finalized") else ""
    found = market(now, status=venue_status, result=result)
    assert found.status is expected
    assert found.venue_status == venue_status
    assert (found.payouts is not None) is (expected is MarketStatus.RESOLVED)
    early = market("2026-11-20T12:00:00Z", status=venue_status, result=result)
    assert early.at(ms(now)).status is expected


@pytest.mark.parametrize(
    ("result", "value", "expected"),
    [
        ("yes", "1.0000", (1, 0)),
        ("no", "0.0000", (0, 1)),
        ("scalar", "0.2500", (Decimal("0.25"), Decimal("0.75"))),
        ("scalar", None, None),
        ("scalar", "1.5", None),
        ("scalar", "NaN", None),
        ("", None, None),
        ("void", None, None),
    ],
)
def test_payouts(result: str, value: str | None, expected: Any) -> None:
    found = market("2026-11-21T01:00:00Z", status="finalized", result=result, settlement_value_dollars=value)
    assert found.payouts == expected
    assert found.status is (MarketStatus.CLOSED if expected is None else MarketStatus.RESOLVED)


@pytest.mark.parametrize("strike", [None, 0, -1])
def test_a_missing_strike_is_none_and_never_zero(strike: Any) -> None:
    assert market(floor_strike=strike).strike is None


def test_the_strike_is_exact() -> None:
    text = json.dumps(row()).replace('"result"', '"floor_strike": 65776.62, "result"')
    found = msgspec.json.decode(text.encode(), type=MarketRow, strict=False)
    assert found.floor_strike == Decimal("65776.62")


@pytest.mark.parametrize(
    "changes",
    [
        {"close_time": "2026-11-21T00:00:00Z"},
        {"close_time": "2026-11-20T00:15:00Z"},
        {"open_time": ""},
        {"open_time": "2026-11-21"},
        {"open_time": "2026-11-21T00:00:00"},
        {"open_time": "soon"},
        {"open_time": "1970-01-01T00:00:00Z"},
        {"close_time": "58000-01-01T00:00:00Z"},
        {"close_time": "2126-01-01T00:00:00Z"},
        {"ticker": "../../portfolio/orders"},
        {"ticker": ""},
        {"price_level_structure": "holographic"},
        {"price_ranges": [{"start": "0", "end": "1", "step": "0"}]},
        {"price_ranges": [{"start": "0.9", "end": "0.1", "step": "0.01"}]},
        {"price_ranges": [{"start": "0", "end": "1", "step": "0.00001"}]},
        {"price_ranges": [{"start": "0", "end": "NaN", "step": "0.01"}]},
        {"market_type": "exotic"},
    ],
)
def test_di_06_odd_rows_are_refused_one_by_one(changes: dict[str, Any]) -> None:
    with pytest.raises(RowError):
        market(**changes)


@pytest.mark.parametrize("seconds", ["1795219200", "1795219200000", "1795219200000000"])
def test_ck_06_epochs_where_times_belong_are_refused(seconds: str) -> None:
    with pytest.raises(RowError):
        time_ms(seconds, "open_time")


def test_created_times_have_any_number_of_digits() -> None:
    assert time_ms("2026-08-06T02:23:54.38059Z", "x") == ms("2026-08-06T02:23:54.380+00:00")
    assert time_ms("2026-08-06T02:23:54Z", "x") == ms("2026-08-06T02:23:54+00:00")


def test_a_fee_waiver_counts_only_when_it_lasts() -> None:
    assert market().fee("0.50", 1) == Decimal("0.0175")
    assert market(fee_waiver_expiration_time="2026-11-21T00:15:00Z").fee("0.50", 1) == 0
    assert market(fee_waiver_expiration_time="2026-11-21T00:10:00Z").fee("0.50", 1) == Decimal("0.0175")


# -- series and tickers


@pytest.mark.parametrize(
    ("series", "asset"),
    [
        ("KXBTC15M", "BTC"),
        ("KXETH15M", "ETH"),
        ("KXHYPE15M", "HYPE"),
        ("KXCRYPTOLEAD15M", None),
        ("KXBTC5M", None),
        ("KXBTCD", None),
        ("KXBTC15MIN", None),
        ("XBTC15M", None),
        ("kxbtc15m", None),
    ],
)
def test_di_03_series_that_look_alike(series: str, asset: str | None) -> None:
    assert asset_of(series) == asset


@pytest.mark.parametrize("text", ["", "a b", "KX/../x", "KX?x=1", "KX%2f", "x" * 200, "KX\n"])
def test_no_odd_ticker_reaches_a_url(text: str) -> None:
    assert not is_ticker(text)


def test_real_tickers_pass() -> None:
    for text in ("KXBTC15M-26JUL222315-15", "KXBTCD-26AUG1717-T72749.99", "FED-23DEC-T3.00"):
        assert is_ticker(text)


# -- grids and fees


STRUCTURES = {
    "linear_cent": (100, ["0.01", "0.99"], ["0.005"]),
    "deci_cent": (10, ["0.001", "0.555"], ["0.0005"]),
    "tapered_deci_cent": (10, ["0.001", "0.10", "0.11", "0.901"], ["0.105", "0.895"]),
    "center_whole_edge_half_cent": (50, ["0.005", "0.095", "0.11"], ["0.105"]),
    "center_half_edge_deci_cent": (10, ["0.001", "0.105"], ["0.101"]),
    "center_quint_edge_deci_cent": (10, ["0.102", "0.001"], ["0.101"]),
    "center_centi_edge_centi_cent": (1, ["0.0001", "0.5555"], ["0.00005"]),
    "center_deci_edge_centi_cent": (1, ["0.0055", "0.011", "0.9901"], ["0.0105"]),
}


@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_named_grids(structure: str) -> None:
    unit, legal, illegal = STRUCTURES[structure]
    grid = grid_of(None, structure)
    assert grid.unit == unit
    assert all(grid.legal(Decimal(price)) for price in legal)
    assert not any(grid.legal(Decimal(price)) for price in [*illegal, "0", "1"])


def test_every_documented_structure_is_known(recordings: Path) -> None:
    text = next((recordings / "kalshi" / "spec").glob("asyncapi*")).read_text()
    found = re.search(r'enum: \["linear_cent",(.*?)\]', text)
    assert found
    names = ["linear_cent", *re.findall(r'"([a-z_]+)"', found[1])]
    assert len(names) == 12
    for name in names:
        assert grid_of(None, name).legal(Decimal("0.5"))


def test_bands_win_over_the_name() -> None:
    bands = [PriceRange(Decimal("0.0000"), Decimal("1.0000"), Decimal("0.0010"))]
    assert grid_of(bands, "linear_cent").legal(Decimal("0.501"))
    with pytest.raises(GridError):
        grid_of([], "no_such_structure")


def test_recorded_charges(recordings: Path) -> None:
    rule = fee_rule("quadratic", Decimal(1), "KXBTC15M")
    fills = json.loads((recordings / "kalshi" / "rest" / "fees_charged.json").read_text())["fills"]
    assert len(fills) == 4
    for fill in fills:
        assert rule.fee(Decimal(fill["price"]), Decimal(fill["count"])) == Decimal(fill["fee_charged"])


def test_recorded_fills_of_july_charge_what_the_rule_says(recordings: Path) -> None:
    """To the step of 0.0001: Kalshi rounds cost and fee together, the rule the fee alone."""
    rule = fee_rule("quadratic", Decimal(1), "x")
    checked = exact = 0
    with gzip.open(recordings / "kalshi" / "sessions" / "rest_fills_jul2026.csv.gz", "rt", newline="") as file:
        for one in csv.DictReader(file):
            ticker = one.get("ticker") or one["market_ticker"]
            if "15M-" not in ticker:
                continue
            taker = one["is_taker"].lower() in ("true", "1", "t")
            price, count = Decimal(one["yes_price_dollars"]), Decimal(one["count_fp"])
            charged = Decimal(one["fee_cost"])
            ours = rule.fee(price, count, maker=not taker)
            checked += 1
            exact += ours == charged
            assert abs(charged - ours) <= Decimal("0.0001"), one
    assert checked > 1_300
    assert exact / checked > 0.97


@pytest.mark.parametrize(
    ("kind", "taker", "maker"),
    [
        ("quadratic", "0.0175", "0"),
        ("quadratic_with_maker_fees", "0.0175", "0.0044"),
        ("quadratic_with_combo_maker_fees", "0.0175", "0.0088"),
    ],
)
def test_fee_types(kind: str, taker: str, maker: str) -> None:
    rule = fee_rule(kind, Decimal(1), "x")
    half, one = Decimal("0.5"), Decimal(1)
    assert (rule.fee(half, one), rule.fee(half, one, maker=True)) == (Decimal(taker), Decimal(maker))
    assert fee_rule(kind, Decimal("0.5"), "x").taker == Decimal("0.035")


@pytest.mark.parametrize("kind", ["flat", "cubic", "", None])
def test_an_unknown_fee_type_is_named(kind: str | None) -> None:
    with pytest.raises(ProtocolChanged, match="KXBTC15M"):
        fee_rule(kind, Decimal(1), "series KXBTC15M")


@pytest.mark.parametrize("multiplier", [None, Decimal(-1), Decimal("NaN"), Decimal(1000)])
def test_an_odd_multiplier_is_refused(multiplier: Decimal | None) -> None:
    with pytest.raises(ProtocolChanged):
        fee_rule("quadratic", multiplier, "x")


# -- lifecycle


def event(kind: str, **fields: Any) -> Lifecycle:
    frame = {"type": "market_lifecycle_v2", "sid": 1, "msg": {"market_ticker": "T", "event_type": kind, **fields}}
    found = decode_frame(json.dumps(frame).encode()).msg
    assert isinstance(found, Lifecycle)
    return found


def test_lifecycle_brings_strike_close_pause_grid_and_result() -> None:
    now = ms("2026-11-21T00:05:00Z")
    one = market()
    assert one.strike is None
    one = with_event(one, event("metadata_updated", yes_sub_title="Target Price: $1"), now)
    assert one.strike is None
    one = with_event(one, event("metadata_updated", strike_type="greater_or_equal", floor_strike=65776.62), now)
    assert (one.strike, one.strike_type) == (Decimal("65776.62"), "greater_or_equal")
    one = with_event(one, event("metadata_updated", yes_sub_title="x"), now)
    assert one.strike == Decimal("65776.62")
    one = with_event(one, event("deactivated", is_deactivated=True), now)
    assert one.status is MarketStatus.PAUSED
    one = with_event(one, event("activated", is_deactivated=False), now)
    assert one.status is MarketStatus.OPEN
    one = with_event(one, event("close_date_updated", close_ts=ms("2026-11-21T00:10:00Z") // 1000), now)
    assert one.close_time == datetime(2026, 11, 21, 0, 10, tzinfo=UTC)
    bands = [{"start": "0.0000", "end": "1.0000", "step": "0.0001"}]
    one = with_event(one, event("price_level_structure_updated", price_level_structure="x", price_ranges=bands), now)
    assert one.grid.unit == 1
    later = ms("2026-11-21T00:10:03Z")
    one = with_event(one, event("determined", result="yes", settlement_value="1.0000"), later)
    assert (one.status, one.result, one.payouts) == (MarketStatus.CLOSED, "yes", None)
    one = with_event(one, event("settled", settled_ts=later // 1000), later)
    assert (one.status, one.payouts) == (MarketStatus.RESOLVED, (1, 0))
    assert with_event(one, event("activated"), later).status is MarketStatus.RESOLVED
    assert with_event(one, event("something_new"), later) is one


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "close_date_updated", "close_ts": 1_795_219_200_000},
        {"kind": "close_date_updated", "close_ts": 0},
        {"kind": "price_level_structure_updated", "price_level_structure": "holographic"},
    ],
)
def test_lifecycle_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    fields = dict(bad)
    with pytest.raises(RowError):
        with_event(market(), event(fields.pop("kind"), **fields), ms("2026-11-21T00:05:00Z"))


# -- messages


def test_md_19_every_documented_type_has_a_handler_or_an_entry(recordings: Path) -> None:
    text = next((recordings / "kalshi" / "spec").glob("asyncapi*")).read_text()
    commands = {"subscribe", "unsubscribe", "update_subscription", "list_subscriptions", "heartbeat", ""}
    types = set(re.findall(r'const: "([a-z0-9_]*)"', text)) - commands
    assert len(types) > 15
    assert types <= messages.KNOWN_TYPES | messages.IGNORED_TYPES
    assert not messages.KNOWN_TYPES & messages.IGNORED_TYPES


def test_official_and_observed_frames_decode(recordings: Path) -> None:
    examples = json.loads((recordings / "kalshi" / "ws" / "official_examples.json").read_text())["examples"]
    frames = [one["payload"] for one in examples if isinstance(one["payload"], dict) and "type" in one["payload"]]
    captures = json.loads((recordings / "kalshi" / "ws" / "observed_frames.json").read_text())["captures"]
    frames += [frame for capture in captures for frame in capture["frames"] if '"..."' not in json.dumps(frame)]
    known = [frame for frame in frames if frame["type"] in messages.KNOWN_TYPES and "<ms>" not in json.dumps(frame)]
    assert len(known) > 20
    for frame in known:
        assert decode_frame(json.dumps(frame).encode()) is not None, frame
    seen = {frame["type"] for frame in known}
    assert seen == messages.KNOWN_TYPES


def test_index_values_hold_json_inside_json(recordings: Path) -> None:
    examples = json.loads((recordings / "kalshi" / "ws" / "official_examples.json").read_text())["examples"]
    frame = next(one["payload"] for one in examples if one["example"] == "cfbenchmarksValueUpdate")
    found = decode_frame(json.dumps(frame).encode())
    assert isinstance(found, messages.IndexFrame)
    tick = decode_index_tick(found.msg.data)
    assert (tick.id, tick.time, tick.value) == ("BRTI", 1_710_000_000_123, Decimal("68000.12"))
    assert found.msg.last_60s_windowed_average_15min is not None
    assert found.msg.last_60s_windowed_average_15min.window_size == 14


def test_commands_are_those_of_the_page() -> None:
    assert json.loads(messages.subscribe(1, messages.ORDERBOOK, ["A", "B"])) == {
        "id": 1,
        "cmd": "subscribe",
        "params": {"channels": ["orderbook_delta"], "market_tickers": ["A", "B"], "use_yes_price": False},
    }
    assert json.loads(messages.subscribe(2, messages.LIFECYCLE, [])) == {
        "id": 2,
        "cmd": "subscribe",
        "params": {"channels": ["market_lifecycle_v2"]},
    }
    assert json.loads(messages.update(3, 4, "get_snapshot", ["A"])) == {
        "id": 3,
        "cmd": "update_subscription",
        "params": {"sids": [4], "market_tickers": ["A"], "action": "get_snapshot"},
    }
    assert json.loads(messages.unsubscribe(6, 4)) == {"id": 6, "cmd": "unsubscribe", "params": {"sids": [4]}}
    assert json.loads(messages.subscribe(7, messages.INDEX, ["BRTI"]))["params"]["index_ids"] == ["BRTI"]


# -- prints


def test_recorded_prints(recordings: Path) -> None:
    with gzip.open(recordings / "kalshi" / "samples" / "ws_trade_20260212.jsonl.gz") as file:
        lines = file.read().splitlines()
    for line in lines:
        frame = decode_frame(line)
        assert isinstance(frame, TradeFrame)
        raw = json.loads(line)["msg"]
        found = parse_trade(frame.msg, 1)
        assert found.outcome == "YES"
        assert found.price == Decimal(raw["yes_price_dollars"])
        assert found.size == Decimal(raw["count_fp"])
        assert found.side is (Side.BUY if raw["taker_side"] == "yes" else Side.SELL)
        assert found.venue_ms == raw["ts"] * 1000


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ({"taker_outcome_side": "yes", "taker_book_side": "bid", "taker_side": "yes"}, Side.BUY),
        ({"taker_outcome_side": "no", "taker_book_side": "ask", "taker_side": "no"}, Side.SELL),
        ({"taker_book_side": "ask"}, Side.SELL),
        ({"taker_side": "no"}, Side.SELL),
    ],
)
def test_a_taker_of_no_sells_yes(sides: dict[str, str], expected: Side) -> None:
    printed = TradeRow("id", "T", "12.34", "0.3600", "2026-08-06T02:23:54.38059Z", **sides)
    assert parse_trade(printed, 5).side is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"yes_price_dollars": "1.5"},
        {"yes_price_dollars": "x"},
        {"count_fp": "0"},
        {"count_fp": "NaN"},
        {"taker_side": "maybe"},
        {"created_time": "yesterday"},
    ],
)
def test_odd_prints_are_refused(changes: dict[str, str]) -> None:
    fields = {
        "trade_id": "id",
        "ticker": "T",
        "count_fp": "1.00",
        "yes_price_dollars": "0.36",
        "created_time": "2026-08-06T02:23:54Z",
        "taker_side": "yes",
        **changes,
    }
    with pytest.raises(RowError):
        parse_trade(msgspec.convert(fields, TradeRow), 5)


ODD = st.one_of(st.none(), st.text(max_size=8), st.integers(), st.floats())


@given(st.dictionaries(st.sampled_from(list(row())), ODD))
def test_di_06_mutated_rows_give_a_market_or_a_row_error(changes: dict[str, Any]) -> None:
    try:
        parsed = msgspec.json.decode(json.dumps(row(**changes)), type=MarketRow, strict=False)
    except msgspec.DecodeError:
        return
    try:
        found = parse_market(parsed, SERIES, ms("2026-11-21T00:05:00Z"))
    except RowError:
        return
    assert found.close_ms > found.open_ms
    assert found.strike is None or found.strike > 0
