"""Replays: the bytes and pauses of a recording, and `examples/replay_session.py` on real and on broken files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from examples import replay_session
from pmkit.clock import ManualClock, SystemClock
from pmkit.errors import ConfigError
from pmkit.exchanges.kalshi.auth import SOCKET_PATH, HandshakeSigner
from pmkit.sim.replay.files import Damaged, lines
from pmkit.sim.replay.recording import Form, Frame, Opening, Read
from pmkit.sim.replay.server import Pace
from pmkit.sim.replay.sessions import rows, scan
from pmkit.sim.replay.venues import KalshiReplay, replay_of
from tests.conftest import ROOT

START_MS = 1_777_428_640_000
UP, DOWN, MARKET = "111", "222", "0xabc"


def write_gzip(path: Path, texts: Iterable[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))
    return path


def session(directory: Path, pattern: str) -> list[Path]:
    found = sorted(directory.glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {directory}")
    return found


async def run(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, dict[str, Any]]:
    """The example on these files, in this process: its exit code and its last line."""
    code = await replay_session.main(paths)
    out = capsys.readouterr().out.splitlines()
    return code, json.loads(out[-1])


# -- Kalshi texts made here -------------------------------------------------------------------------------------------


def k_subscribed(sid: int = 1) -> str:
    return json.dumps({"type": "subscribed", "id": 7, "msg": {"channel": "orderbook_delta", "sid": sid}})


def k_snapshot(seq: int, yes: Sequence[Sequence[str]] = (("0.4000", "10.00"),), ticker: str = "KXT") -> str:
    msg = {"market_ticker": ticker, "yes_dollars_fp": yes, "no_dollars_fp": [["0.5000", "5.00"]]}
    return json.dumps({"type": "orderbook_snapshot", "sid": 1, "seq": seq, "msg": msg})


def k_delta(seq: int, price: str = "0.4100", delta: str = "3.00", ts_ms: int = START_MS) -> str:
    msg = {"market_ticker": "KXT", "price_dollars": price, "delta_fp": delta, "side": "yes", "ts_ms": ts_ms}
    return json.dumps({"type": "orderbook_delta", "sid": 1, "seq": seq, "msg": msg})


def k_answer(yes: Sequence[Sequence[str]]) -> str:
    body = {"orderbook_fp": {"yes_dollars": yes, "no_dollars": [["0.5000", "5.00"]]}}
    url = "https://host/trade-api/v2/markets/KXT/orderbook"
    return json.dumps(
        {"method": "GET", "url": url, "status": 200, "request_body": "", "response_body": json.dumps(body)}
    )


# -- Polymarket rows made here ----------------------------------------------------------------------------------------


def p_row(payload: object, at_ms: int = START_MS, source: str = "polymarket_clob") -> str:
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return json.dumps({"source": source, "recv_wall_ts": at_ms, "payload": text})


def p_book(asset: str, stamp: int = START_MS, bid: str = "0.4", **more: object) -> dict[str, object]:
    bids, asks = [{"price": bid, "size": "10"}], [{"price": "0.6", "size": "10"}]
    book = {"market": MARKET, "asset_id": asset, "timestamp": str(stamp), "bids": bids, "asks": asks}
    return book | {"tick_size": "0.01"} | more


def p_dump(*assets: str, stamp: int = START_MS) -> list[dict[str, object]]:
    return [p_book(asset, stamp, event_type="book") for asset in assets]


def p_change(asset: str, stamp: int, best_bid: str = "0.45") -> dict[str, object]:
    change = {"asset_id": asset, "price": "0.45", "size": "3", "side": "BUY", "best_bid": best_bid, "best_ask": "0.6"}
    return {"event_type": "price_change", "market": MARKET, "timestamp": str(stamp), "price_changes": [change]}


# -- candles made here ------------------------------------------------------------------------------------------------


def candle_zip(path: Path, seconds: Iterable[int]) -> Path:
    texts = []
    for second in seconds:
        t = (1_773_273_600 + second) * 1_000_000
        texts.append(f"{t},1.10,1.30,1.00,{1.1 + second % 7 / 100:.2f},0.5,{t + 999_999},0.55,3,0.2,0.22,0")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-1s-2026-03-12.csv", "\n".join(texts))
    return path


# -- files ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=20))
def test_lines_are_those_of_the_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    directory = tmp_path_factory.mktemp("lines")
    raw = "\n\n".join(texts).encode()
    half = len(raw) // 2
    (directory / "plain").write_bytes(raw)
    (directory / "one.gz").write_bytes(gzip.compress(raw))
    (directory / "joined.gz").write_bytes(gzip.compress(raw[:half]) + gzip.compress(raw[half:]))
    wanted = [text.encode() for text in texts]
    for name in ("one.gz", "joined.gz") if raw else ():
        assert list(lines(directory / name)) == wanted
    if raw[:2] != b"\x1f\x8b":
        assert list(lines(directory / "plain")) == wanted


def test_a_torn_gzip_gives_its_whole_lines_first(tmp_path: Path) -> None:
    texts = [os.urandom(60).hex() for _ in range(400)]
    path = write_gzip(tmp_path / "torn.gz", texts)
    path.write_bytes(path.read_bytes()[:-2000])
    got: list[str] = []
    with pytest.raises(Damaged, match="torn"):
        got.extend(line.decode() for line in lines(path))
    assert 300 < len(got) < 400 and got == texts[: len(got)]


def test_forms_are_told_by_content(tmp_path: Path) -> None:
    write = lambda text: write_gzip(tmp_path / "anything.bin", [text])  # noqa: E731
    assert scan(write(k_subscribed())).form is Form.KALSHI
    assert scan(write(p_row(p_book(UP)))).form is Form.MIXED
    assert scan(write(k_answer([]))).form is Form.ANSWERS
    assert scan(candle_zip(tmp_path / "also", range(3))).form is Form.CANDLES
    for text in ("", "time,price\n1,2", "{}", "[1]", '{"type":"fill"}', "\x00\x01"):
        with pytest.raises(ConfigError, match="unknown form"):
            scan(write(text))


def test_the_recorders_connections_are_told_apart(tmp_path: Path) -> None:
    later = START_MS + 60_000
    path = write_gzip(
        tmp_path / "mixed",
        [
            p_row(p_book(UP), START_MS - 1),
            p_row(p_dump(UP, DOWN)),
            p_row(p_book(UP, event_type="book")),  # after a trade: no new connection
            p_row(p_dump("333")),  # an asset more on the same connection
            p_row({"s": "trade"}, source="binance"),
            "not json",
            p_row(p_dump(DOWN, UP, "333"), later),
            p_row(p_change(UP, later), later),
        ],
    )
    recording = scan(path)
    kinds = [type(row) for row in rows(recording)]
    assert kinds == [Read, Opening, Frame, Frame, Frame, Opening, Frame, Frame]
    assert (recording.connections, recording.bad_rows, recording.others) == (2, 1, Counter(binance=1))
    assert recording.markets == {MARKET: {UP: "0.01", DOWN: "0.01", "333": "0.01"}}


# -- what is served ---------------------------------------------------------------------------------------------------


async def frames_of(socket: ClientConnection) -> list[bytes]:
    got: list[bytes] = []
    try:
        while True:
            got.append(await socket.recv(decode=False))
    except ConnectionClosed:
        return got


async def test_polymarket_frames_are_served_byte_for_byte(tmp_path: Path) -> None:
    odd = ' {"event_type" : "new_market", "slug":"ü € \\u00fc", "n": 1.50}'
    first = [json.dumps(p_dump(UP, DOWN)), odd, "garbage", json.dumps(p_change(UP, START_MS + 5))]
    second = [json.dumps(p_dump(UP, DOWN, stamp=START_MS + 9))]
    path = write_gzip(tmp_path / "mixed", [p_row(text) for text in first + second])
    async with asyncio.timeout(10), replay_of(scan(path), SystemClock()) as replay:
        url = replay.endpoints.polymarket.market_ws
        subscribe = json.dumps({"type": "market", "assets_ids": [UP, DOWN]})
        async with connect(url) as socket:
            await socket.send("PING")
            assert await socket.recv() == "PONG" and replay.sent == 0  # nothing before it was asked for
            await socket.send(subscribe)
            assert [frame.decode() for frame in await frames_of(socket)] == first
        async with connect(url) as socket:
            await socket.send(subscribe)
            assert await socket.recv() == second[0]
            await replay.finished.wait()
            async with httpx.AsyncClient(base_url=replay.endpoints.polymarket.clob) as http:
                books = await http.post("/books", json=[{"token_id": UP}, {"token_id": "nobody's"}])
                assert [book["timestamp"] for book in books.json()] == [str(START_MS + 9)]
                assert (await http.get("/book", params={"token_id": "nobody's"})).status_code == 404
        assert replay.sent == 5 and replay.failures == []


async def test_kalshi_texts_are_served_byte_for_byte_behind_a_checked_handshake(tmp_path: Path) -> None:
    texts = [k_subscribed(), k_snapshot(1), '{"type" : "odd", "sid":1,"seq":2 , "x":1.50}', k_delta(3)]
    clock = SystemClock()
    async with asyncio.timeout(10), replay_of(scan(write_gzip(tmp_path / "k", texts)), clock) as replay:
        assert isinstance(replay, KalshiReplay)
        url = replay.endpoints.kalshi.ws
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 401
        signer = HandshakeSigner.from_key(replay.key.id, replay.key.pem)
        async with connect(url, additional_headers=signer.headers("GET", SOCKET_PATH, clock.now_ms())) as socket:
            params = {"channels": ["orderbook_delta"], "market_tickers": ["KXT"]}
            await socket.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
            got = [str(await socket.recv()) for _ in range(5)]
        mine = [text for text in got if text not in texts]
        assert [text for text in got if text in texts] == texts
        assert [json.loads(text) for text in mine] == [
            {"id": 1, "type": "subscribed", "msg": {"channel": "orderbook_delta", "sid": 1}}
        ]
        assert (replay.sent, replay.answers, replay.out) == (4, 1, 5)


async def test_the_pace_is_the_recorded_one_times_the_speed() -> None:
    clock = ManualClock()
    pace = Pace(clock, 4.0)
    moments: list[float] = []

    async def play() -> None:
        for at_ms in (5_000, 5_000, 9_000, 8_000, 13_000):
            await pace.until(at_ms)
            moments.append(clock.io_monotonic())

    task = asyncio.create_task(play())
    await clock.advance(10)
    await task
    assert moments == [0.0, 0.0, 1.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="above 0"):
        Pace(clock, 0.0)


# -- the example on the real recordings -------------------------------------------------------------------------------


def naive_kalshi(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["type"] for line in gzip.decompress(path.read_bytes()).splitlines())


async def test_every_kalshi_frame_applies_and_the_rest_books_are_the_snapshots(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = session(recordings, "kalshi/sessions/ws_orderbook_*.jsonl.gz")
    answers = session(recordings, "kalshi/samples/rest_orderbook_*.jsonl.gz")
    code, summary = await run(capsys, *sessions, *answers)
    types = sum((naive_kalshi(path) for path in sessions), Counter[str]())
    assert code == 0 and summary["errors"] == []
    assert summary["frames"] == types.total()
    assert summary["applied"] == types["orderbook_delta"] + types["orderbook_snapshot"]
    assert summary["frames"] == summary["applied"] + summary["replies"]
    assert summary["rest_books_equal"] == summary["rest_books_compared"] == summary["rest_books"] > 0
    for must in ("sequence_gaps", "negative_levels", "crossed", "unparsed", "unknown", "repeats", "dropped", "refused"):
        assert summary[must] == 0, must


def naive_polymarket(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = json.loads(line)
        if row["source"] != "polymarket_clob":
            counts["others"] += 1
            continue
        content = json.loads(row["payload"])
        if isinstance(content, dict) and "event_type" not in content:
            counts["rest"] += 1
            continue
        counts["frames"] += 1
        for event in content if isinstance(content, list) else [content]:
            counts[event["event_type"]] += 1
            counts["changes"] += len(event.get("price_changes", ()))
    return counts


async def test_every_polymarket_change_leaves_the_best_prices_it_carries(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = session(recordings, "polymarket/sessions/mixed_*.jsonl.gz")  # with the names of the markets
    code, summary = await run(capsys, *given)
    counts = sum((naive_polymarket(path) for path in given if ".markets." not in path.name), Counter[str]())
    assert code == 0 and summary["errors"] == []
    assert summary["frames"] == counts["frames"] > 0
    assert summary["best_checks"] == counts["changes"] and summary["best_failures"] == 0
    assert summary["applied"] == counts["changes"] + counts["book"]
    assert summary["ignored"] == counts["new_market"]
    assert summary["rest_books"] == counts["rest"]
    assert summary["rest_books_equal"] == summary["rest_books_compared"] > counts["rest"] / 2
    assert sum(summary["not_replayed"].values()) == counts["others"]
    for must in ("unparsed", "unknown", "undelivered", "crossed", "lost_books", "late", "strangers"):
        assert summary[must] == 0, must


@pytest.mark.slow
async def test_a_day_of_candles_comes_in_whole(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = session(recordings, "binance/sessions/*-1s-*.zip")[0]
    code, summary = await run(capsys, day)
    assert code == 0 and summary["errors"] == []
    assert summary["candles"] == 86_400
    assert summary["candle_gaps"] == summary["candle_duplicates"] == summary["candle_mismatches"] == 0
    assert summary["undelivered"] == summary["unparsed"] == 0


# -- the example on files made here: every check can fail -------------------------------------------------------------


async def test_a_good_session_at_a_set_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_session, "SPEED", 20.0)
    texts = [k_subscribed(), k_snapshot(1)] + [k_delta(2 + n, ts_ms=START_MS + 500 * n) for n in range(9)]
    clock = SystemClock()
    began = clock.io_monotonic()
    code, summary = await run(capsys, write_gzip(tmp_path / "k", texts))
    assert code == 0 and summary["applied"] == 10
    assert 4.0 / 20 <= clock.io_monotonic() - began < 2.0


async def test_kalshi_two_recorded_connections_are_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [k_subscribed(), k_snapshot(1), k_delta(2), k_subscribed(), k_snapshot(1), k_delta(2)]
    code, summary = await run(capsys, write_gzip(tmp_path / "k", texts))
    assert code == 0
    assert (summary["connections"], summary["applied"], summary["sequence_gaps"], summary["repeats"]) == (2, 4, 0, 0)


@pytest.mark.parametrize(
    ("texts", "check"),
    [
        ([k_subscribed(), k_snapshot(1), k_delta(2), k_delta(4)], "sequence_gaps"),
        ([k_subscribed(), k_snapshot(1), k_delta(2, delta="-3.00")], "negative_levels"),
        ([k_subscribed(), k_snapshot(1), k_delta(2, price="0.7000")], "crossed"),
        ([k_subscribed(), k_snapshot(1), "no json", k_delta(2)], "unparsed"),
        ([k_subscribed(), k_snapshot(1), k_delta(2, delta="x")], "unparsed"),
        ([k_subscribed(), k_snapshot(1), k_delta(2, price="1.5000")], "refused"),
    ],
)
async def test_what_is_wrong_in_a_kalshi_session_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: list[str], check: str
) -> None:
    code, summary = await run(capsys, write_gzip(tmp_path / "k", texts))
    assert code == 1 and summary[check] == 1
    assert any(error.startswith(check) for error in summary["errors"])
    assert summary["frames"] == len(texts)


async def test_a_rest_book_that_is_no_snapshot_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books = write_gzip(tmp_path / "k", [k_subscribed(), k_snapshot(1)])
    same = write_gzip(tmp_path / "same", [k_answer([["0.4000", "10.00"]])])
    other = write_gzip(tmp_path / "other", [k_answer([["0.4000", "11.00"]])])
    code, summary = await run(capsys, same, books)
    assert (code, summary["rest_books_compared"], summary["rest_books_equal"]) == (0, 1, 1)
    code, summary = await run(capsys, books, other)
    assert (code, summary["rest_books_compared"], summary["rest_books_equal"]) == (1, 1, 0)


async def test_a_wrong_best_price_and_a_different_rest_book_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp = START_MS + 1
    wrong = [
        p_row(p_dump(UP, DOWN)),
        p_row({"event_type": "brand_new", "market": MARKET}),
        p_row(p_change(UP, stamp)),
        p_row(p_change(DOWN, stamp, best_bid="0.44")),
    ]
    code, summary = await run(capsys, write_gzip(tmp_path / "wrong", wrong))
    assert code == 1
    assert (summary["best_checks"], summary["best_failures"], summary["unknown"]) == (2, 1, 1)
    different = [p_row(p_dump(UP, DOWN)), p_row(p_book(UP, bid="0.41")), p_row(p_book(DOWN))]
    code, summary = await run(capsys, write_gzip(tmp_path / "different", different))
    assert code == 1
    assert (summary["rest_books"], summary["rest_books_compared"], summary["rest_books_equal"]) == (2, 2, 1)


async def test_missing_candles_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary = await run(capsys, candle_zip(tmp_path / "whole", range(200)))
    assert (code, summary["candles"], summary["candle_gaps"]) == (0, 200, 0)
    code, summary = await run(capsys, candle_zip(tmp_path / "hole", [n for n in range(200) if n not in (150, 151)]))
    assert (code, summary["candles"], summary["candle_gaps"]) == (1, 198, 2)


async def test_few_prices_are_a_grid_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thin book, or a piece out of the middle: the common step of its prices need not divide a dollar."""
    texts = [k_subscribed(), k_snapshot(1, yes=[["0.0300", "10.00"], ["0.0600", "1.00"]]).replace("0.5000", "0.9300")]
    code, summary = await run(capsys, write_gzip(tmp_path / "k", texts))
    assert (code, summary["applied"]) == (0, 1), summary["errors"]


@pytest.mark.parametrize("packed", [True, False])
async def test_candles_come_as_csv_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool) -> None:
    with zipfile.ZipFile(candle_zip(tmp_path / "z", range(60))) as archive:
        (name,) = archive.namelist()
        text = b"\xef\xbb\xbf" + archive.read(name)
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(text) if packed else text)
    code, summary = await run(capsys, path)
    assert (code, summary["candles"]) == (0, 60), summary["errors"]


def test_files_that_cannot_be_read_end_with_one_and_the_rest_is_reported(tmp_path: Path) -> None:
    texts = [k_subscribed(), k_snapshot(1)] + [k_delta(n, ts_ms=START_MS + n * n) for n in range(2, 4000)]
    torn = write_gzip(tmp_path / "torn.jsonl.gz", texts)
    torn.write_bytes(torn.read_bytes()[:-200])
    strange = write_gzip(tmp_path / "strange.gz", ["a,b,c"])
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "replay_session.py", torn, tmp_path / "missing.gz", strange],
        capture_output=True,
        text=True,
        timeout=60,
    )
    summary = json.loads(result.stdout.splitlines()[-1])
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert 1000 < summary["applied"] == summary["frames"] - 1 < 3999
    for said in ("torn.jsonl.gz: the gzip is torn", "missing.gz: there is no such file", "strange.gz: unknown form"):
        assert said in result.stderr
