"""Candles on the wire: recorded frames and pages, and what must be refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.data.binance.types import (
    ASSETS,
    LONGEST_REQUEST,
    BadFrame,
    Candle,
    KlineEvent,
    Refusal,
    Reply,
    Shutdown,
    Unknown,
    check_ms,
    check_symbol,
    interval_ms,
    parse_error,
    parse_frame,
    parse_klines,
    parse_weight_limit,
    requests,
    symbol_of,
    to_ms,
)
from pmkit.errors import ConfigError, ProtocolChanged


def recorded(recordings: Path, name: str) -> Path:
    path = recordings / "binance" / name
    if not path.exists():
        pytest.skip(f"no recording {name}")
    return path


def test_recorded_1s_klines(recordings: Path) -> None:
    lines = recorded(recordings, "ws/kline_1s_messages.jsonl").read_bytes().splitlines()
    frames = [parse_frame(line) for line in lines]
    assert len(frames) == 6
    assert all(isinstance(frame, KlineEvent) and frame.closed and frame.interval == "1s" for frame in frames)
    quiet = frames[1]
    assert isinstance(quiet, KlineEvent)
    assert quiet.candle == Candle(1682244927000, 1870.76, 1870.76, 1870.76, 1870.76, 0.0)
    assert quiet.symbol == "ETHUSDT" and quiet.event_ms == 1682244928001
    combined = frames[4]
    assert isinstance(combined, KlineEvent) and combined.candle.low == 43296.79


def test_recorded_streams_of_all_kinds(recordings: Path) -> None:
    kinds: dict[str, int] = {}
    klines: list[KlineEvent] = []
    for name in ("ws/cryptofeed_BINANCE.ws.1.0.txt", "ws/cryptofeed_BINANCE_US.ws.1.0.txt"):
        for line in recorded(recordings, name).read_text().splitlines()[1:]:
            if not line.partition(": ")[2].startswith("{"):
                continue  # the address of a further connection, or what REST said
            frame = parse_frame(line.partition(": ")[2].encode())
            if isinstance(frame, KlineEvent):
                klines.append(frame)
            else:
                assert isinstance(frame, Unknown)
                kinds[frame.kind] = kinds.get(frame.kind, 0) + 1
    assert len(klines) == 7
    assert sum(kline.closed for kline in klines) == 1
    assert set(kinds) == {"depthUpdate", "bookTicker", "aggTrade"}
    assert kinds["depthUpdate"] == 513 - 2 + 2  # as many as the files hold
    cut = recorded(recordings, "ws/combined_2026-09-15.jsonl").read_bytes().splitlines()
    assert [type(parse_frame(line)) for line in cut] == [Unknown, KlineEvent, Unknown]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("btcusdt_1m_unaligned_start", 60),
        ("btcusdt_1m_start_eq_end", 1),
        ("btcusdt_1h_page1_1000rows", 1000),
        ("btcusdt_1h_page2_outage_gap", 468),
        ("btcusdt_1d_endtime_inclusive_366rows", 366),
        ("btcusdt_1m_2021-10-22", 10),
    ],
)
def test_recorded_pages_keep_the_venues_text(recordings: Path, name: str, count: int) -> None:
    body = recorded(recordings, f"rest/{name}.json").read_bytes()
    rows = parse_klines(body)
    assert len(rows) == count
    for row, raw in zip(rows, json.loads(body), strict=True):
        assert [row.open_ms, row.open, row.high, row.low, row.close, row.volume, row.close_ms] == raw[:7]
        assert row.candle() == Candle(raw[0], *(float(text) for text in raw[1:6]))


def test_recorded_error_bodies(recordings: Path) -> None:
    for entry in json.loads(recorded(recordings, "rest/error_bodies.json").read_text()):
        body = entry.get("body") or entry["body_template"]
        assert parse_error(json.dumps(body).encode()) == (body["code"], body["msg"])
    assert parse_error(b"<html>502</html>") == (0, "")
    assert parse_error(b"[]") == (0, "")


def row(opened: int, scale: int = 1) -> list[object]:
    return [opened * scale, "1.0", "2.0", "0.5", "1.5", "3.0", (opened + 1000) * scale - 1, "0", 1, "0", "0", "0"]


def test_microseconds_are_told_by_the_row() -> None:
    rows = parse_klines(json.dumps([row(1_735_689_599_000), row(1_735_689_600_000, 1000)]).encode())
    assert [(r.open_ms, r.close_ms) for r in rows] == [
        (1_735_689_599_000, 1_735_689_599_999),
        (1_735_689_600_000, 1_735_689_600_999),
    ]
    assert to_ms(1_735_689_600_000_000) == to_ms(1_735_689_600_000) == 1_735_689_600_000


@pytest.mark.parametrize(
    "page",
    [
        "{}",
        '{"code":-1121,"msg":"Invalid symbol."}',
        "[[1]]",
        json.dumps([row(2000), row(1000)]),
        json.dumps([row(1000), row(1000)]),
        json.dumps([[1000, 1.0, "2", "0.5", "1", "3", 1999]]),
        json.dumps([[1000, "NaN", "2", "0.5", "1", "3", 1999]]),
        json.dumps([[1000, "1e5", "2", "0.5", "1", "3", 1999]]),
        json.dumps([[1000, "-1", "2", "0.5", "1", "3", 1999]]),
        json.dumps([[1000, "1\n", "2", "0.5", "1", "3", 1999]]),
    ],
)
def test_pages_that_do_not_fit(page: str) -> None:
    with pytest.raises(ProtocolChanged):
        parse_klines(page.encode())


def test_weight_limit() -> None:
    limits = [
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 1, "limit": 61000},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "DAY", "intervalNum": 1, "limit": 9},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    ]
    assert parse_weight_limit(json.dumps({"timezone": "UTC", "rateLimits": limits}).encode()) == 6000
    with pytest.raises(ProtocolChanged):
        parse_weight_limit(json.dumps({"rateLimits": limits[:2]}).encode())


KLINE = {"t": 1000, "T": 1999, "s": "BTCUSDT", "i": "1s", "o": "1", "c": "1", "h": "1", "l": "1", "v": "0", "x": True}


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"e": "serverShutdown", "E": 7}, Shutdown(7)),
        ({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 7}}, Shutdown(7)),
        ({"result": None, "id": 1}, Reply(1)),
        ({"result": ["btcusdt@kline_1s"], "id": "x"}, Reply("x")),
        ({"code": 2, "msg": "Invalid request", "id": 3}, Refusal(3, 2, "Invalid request")),
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": None}, Refusal(None, 2, "Invalid request")),
        ({"stream": "!miniTicker@arr", "data": [{"e": "24hrMiniTicker"}]}, Unknown("arr")),
        ({"stream": "btcusdt@bookTicker", "data": {"u": 1, "s": "BTCUSDT"}}, Unknown("bookTicker")),
        ({"e": "newThing", "k": 5}, Unknown("newThing")),
        ({"stream": "x@y", "data": {"e": "newThing", "k": 5}}, Unknown("newThing")),
        ({}, Unknown("(no event type)")),
    ],
)
def test_frames_are_told_apart_by_their_keys(frame: object, expected: object) -> None:
    assert parse_frame(json.dumps(frame).encode()) == expected


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize(
    "change",
    [{"o": 1.0}, {"x": 1}, {"t": None}, {"t": "1"}, {"t": -5}, {"c": "nan"}, {"h": "0.5"}, {"l": "2"}, {"v": "-1"}],
)
def test_a_kline_that_does_not_fit_is_a_bad_frame(change: dict[str, object], combined: bool) -> None:
    event = {"e": "kline", "E": 2000, "s": "BTCUSDT", "k": {**KLINE, **change}}
    with pytest.raises(BadFrame):
        parse_frame(json.dumps({"stream": "btcusdt@kline_1s", "data": event} if combined else event).encode())


@pytest.mark.parametrize(
    "frame", [b"", b"x", b"[]", b"null", b"5", b'"text"', b'{"e":"kline"}', b"\xff\xfe", b'{"e":"kl']
)
def test_garbage_is_a_bad_frame(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        parse_frame(frame)


KEYS = st.sampled_from(["e", "E", "k", "data", "stream", "code", "id", "result", "t", "error", "msg"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("kline")
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)


@given(st.binary(max_size=200) | TREES.map(lambda value: json.dumps(value).encode()))
def test_any_frame_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadFrame):
        parse_frame(data)


def test_symbols_intervals_and_moments() -> None:
    assert [symbol_of(asset) for asset in ASSETS][:2] == ["BTCUSDT", "ETHUSDT"]
    assert symbol_of("btc") == check_symbol("btcusdt") == "BTCUSDT"
    for wrong in ("DOGE", "", "BTCUSDT"):
        with pytest.raises(ConfigError, match="BTC, ETH"):
            symbol_of(wrong)
    for wrong in ("BTC-USDT", "", "../x", "B"):
        with pytest.raises(ConfigError):
            check_symbol(wrong)
    assert [interval_ms(i) for i in ("1s", "1m", "5m", "15m")] == [1000, 60_000, 300_000, 900_000]
    for wrong in ("1M", "1h", "", "1S"):
        with pytest.raises(ConfigError, match="1s, 1m, 5m, 15m"):
            interval_ms(wrong)
    assert check_ms(1_795_176_000_000, "start_ms") == 1_795_176_000_000
    for moment in (1_795_176_000, 1_795_176_000_000_000, 0, -1, True, 1.5e12):
        with pytest.raises(ValueError, match="start_ms"):
            check_ms(moment, "start_ms")  # type: ignore[arg-type]


def test_md_27_subscribe_texts_stay_below_what_the_venue_reads() -> None:
    streams = [f"coin{n}usdt@kline_1s" for n in range(1000)]
    texts = list(requests("SUBSCRIBE", streams, 5))
    assert len(texts) > 4
    assert max(map(len, texts)) <= LONGEST_REQUEST
    parsed = [json.loads(text) for text in texts]
    assert [stream for text in parsed for stream in text["params"]] == streams
    assert [text["id"] for text in parsed] == list(range(5, 5 + len(texts)))
    assert list(requests("SUBSCRIBE", [], 1)) == []
