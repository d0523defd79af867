"""Recordings: what they hold, what they never hold, and what is said when something is missing."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from pmkit import http
from pmkit.bot.base import BaseBot
from pmkit.clock import Entropy, ManualClock
from pmkit.endpoints import Endpoints, PolymarketEndpoints
from pmkit.errors import ConfigError, PmkitError
from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket
from pmkit.exchanges.types import Side
from pmkit.http import HttpSession
from pmkit.logging.redact import REDACTOR, Redactor
from pmkit.recording import recorder as recorder_module
from pmkit.recording.lines import Heard, Request, decode
from pmkit.recording.recorder import HEADERS, Recorder, current
from pmkit.replay.session import is_session
from pmkit.sim.replay.files import Damaged, lines
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from pmkit.websocket.recorded import RecordedConnection
from tests.bot.virtual import Told
from tests.local import exchanges_on

START = 1_795_176_600_000


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def kinds(path: Path) -> list[str]:
    return [line["type"] for line in read(path)]


def recorder_in(tmp_path: Path, **options: Any) -> Recorder:
    return Recorder(tmp_path / "one.jsonl.gz", ManualClock(START), Endpoints.real(), **options)


# -- what is never in it ----------------------------------------------------------------------------------------------


def test_a_live_session_leaves_no_secret_and_nothing_private_in_its_recording(tmp_path, monkeypatch):
    """Log-ins, orders, cancels, own streams on both venues. The markers are what really was on the wire."""
    private: set[str] = set()
    send, said = http.send, RecordedConnection.send

    async def spy(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        signed = {name: value for name, value in request.headers.items() if name.startswith(("poly", "kalshi"))}
        private.update(value for name, value in signed.items() if not name.endswith("timestamp") and len(value) > 3)
        response = await send(client, request)
        if signed:
            private.update(part for part in request.content.decode().split('"') if len(part) > 15)
            private.update(part for part in request.url.path.split("/") if len(part) > 20)
        return response

    async def spy_frame(self: RecordedConnection, message: Any, *, text: bool | None = None) -> None:
        if '"auth"' in message:
            private.update(part for part in message.split('"') if len(part) > 15)
        await said(self, message, text=text)

    monkeypatch.setattr(http, "send", spy)
    monkeypatch.setattr(RecordedConnection, "send", spy_frame)
    path = tmp_path / "live.jsonl.gz"
    public: set[str] = set()

    class Trader(BaseBot):
        async def _tick(self) -> None:
            for market in self.markets.values():
                exchange = self.exchanges[market.venue]
                public.update((*market.token_ids, market.market_id))
                try:
                    placed = await exchange.place_limit_order(market, market.outcomes[0], Side.BUY, "0.10", 25)
                    private.add(placed)
                    await exchange.cancel_order(placed)
                except PmkitError as error:
                    self.log.info("%s", error)
            if self.stats.ticks == 5:
                self.spawn(self.stop(), critical=False)

        async def _on_start(self) -> None:
            await self.exchanges["polymarket"].subscribe_reference(["BTC"], lambda price: None)

    async def main() -> tuple[Recorder, Trader]:
        clock = VirtualClock(START, Entropy(5))
        async with LocalVenues(seed=5, assets=("BTC",), clock=clock, steps_per_wall_second=1.0) as venues:
            account, key = venues.polymarket_account, venues.kalshi_key
            api_key = account.api_key
            private.update((account.private_key, account.funder, api_key.key, api_key.secret, api_key.passphrase))
            private.update((key.id, *(line for line in key.pem.splitlines() if "----" not in line)))
            with Recorder(path, clock, venues.endpoints) as recorder:
                bot = Trader(exchanges_on(venues, clock, live=True), ["BTC"], clock=clock, log=Told())
                await bot.start()
            return recorder, bot

    recorder, bot = run(main(), seed=5, latency=0.001, jitter=0.004)
    assert all(exchange.placed for exchange in bot.exchanges.values()), bot.log.lines
    text = gzip.decompress(path.read_bytes()).decode()
    private -= public | {"application/json"}
    assert len(private) > 30
    found = {marker for marker in private if marker.lower() in text.lower()}
    where = [text[max(0, text.find(m) - 150) : text.find(m) + 40] for m in sorted(found)]
    assert not found, where
    assert recorder.masked == 0, "the session said itself what is private; the net under it was not needed"
    for word in ("POLY_", "KALSHI-ACCESS", "signature", "passphrase", "cookie"):
        assert word.lower() not in text.lower()
    told = read(path)
    assert {line["name"] for line in told if line["type"] == "connect" and line.get("private")} == {
        "polymarket user",
        "kalshi user",
    }
    assert any(line["type"] == "request" and line.get("private") and line["method"] == "POST" for line in told)
    logins = [line["size"] for line in told if line["type"] == "out" and line.get("private")]
    assert max(logins) > 100, "that there was a log-in is seen"
    assert any("orderbook_delta" in line.get("text", "") for line in told if line["type"] == "in")
    assert any("price.crypto" in line.get("text", "") for line in told if line["type"] == "in"), "so are live prices"


def test_marks_of_own_orders_are_taken_out_of_kalshis_public_frames():
    """Found by the test above: on a signed socket, changes made by own orders carry their client order id."""
    part = KalshiSocket._public_part
    plain = b'{"type":"orderbook_delta","sid":2,"msg":{"price_dollars":"0.9","side":"no","ts_ms":1}}'
    assert part(None, plain, False) is plain
    marks = b'"client_order_id":"a-b","subaccount":0'
    for marked in (plain.replace(b'"ts_ms":1', b'"ts_ms":1,' + marks), plain.replace(b'"price', marks + b',"price')):
        assert json.loads(part(None, marked, False)) == json.loads(plain)
    assert part(None, plain.replace(b'"no"', b'{"client_order_id":["a"]}'), False) is None, "not understood: nothing"


@respx.mock
async def test_of_a_request_with_headers_and_of_a_private_session_only_the_host_is_written(tmp_path):
    respx.route().mock(
        return_value=httpx.Response(200, json={"marker": "body"}, headers={"set-cookie": "marker", "date": "now"})
    )
    with recorder_in(tmp_path) as recorder:
        clock = ManualClock(START)
        shared = HttpSession("https://u:marker@clob.example", clock, public=True)
        own = HttpSession("https://own.example", clock)
        await shared.request("GET", "/open", params={"a": 1})
        await shared.request("GET", "/marker", params={"q": "marker"}, headers={"X-KEY": "marker"})
        await own.request("DELETE", "/marker/1", body=b"marker")
        await shared.close()
        await own.close()
    text = gzip.decompress(recorder.path.read_bytes()).decode()
    requests = [line for line in read(recorder.path) if line["type"] == "request"]
    assert [line["url"] for line in requests] == [
        "https://clob.example/open?a=1",
        "https://clob.example",
        "https://own.example",
    ]
    answers = [line for line in read(recorder.path) if line["type"] == "answer"]
    assert answers[0]["text"] == '{"marker":"body"}'
    assert set(answers[0]["headers"]) <= HEADERS
    assert [line.get("private", False) for line in answers] == [False, True, True]
    assert text.count("marker") == 1


def test_a_known_secret_is_struck_out_whatever_session_it_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(REDACTOR, "known", Redactor(["zq-known-marker"]).known)
    endpoints = Endpoints(polymarket=PolymarketEndpoints(rpc="https://node.example/v2/its-own-key"))
    with Recorder(tmp_path / "one.jsonl.gz", ManualClock(START), endpoints) as recorder:
        recorder.put(Heard(at_ns=1, conn=1), b'{"echo":"zq-known-marker"}')
        recorder.request("GET", "https://x.example/?key=zq-known-marker", b"", True)
    assert recorder.masked == 2
    start, heard, request, _ = read(recorder.path)
    assert heard["text"] == '{"echo":"***"}'
    assert request["url"] == "https://x.example/?key=***"
    assert "node.example" not in json.dumps(start), "the address of a node often holds its key"


# -- what is in it ----------------------------------------------------------------------------------------------------


def test_bytes_come_back_as_they_were(tmp_path):
    frames = [b"{}", "\N{EURO SIGN}\u2028\x00".encode(), b"\xff\xfe\x00", b'"\\u00e9"', b""]
    with recorder_in(tmp_path) as recorder:
        for frame in frames:
            recorder.put(Heard(at_ns=1, conn=1), frame)
    back = [line.data for line in decode(lines(recorder.path)) if isinstance(line, Heard)]
    assert back == frames
    assert is_session(recorder.path)
    assert not is_session(tmp_path / "none")


@respx.mock
async def test_what_fails_is_in_it_too(tmp_path):
    respx.get("https://x.example/a").mock(side_effect=httpx.ReadTimeout("late"))
    with recorder_in(tmp_path) as recorder:
        session = HttpSession("https://x.example", ManualClock(START), public=True)
        with pytest.raises(PmkitError):
            await session.get("/a")
        await session.close()
    assert [line.get("reason") for line in read(recorder.path) if line["type"] == "unanswered"] == ["Unanswered"]


def test_only_what_is_made_inside_the_block_is_recorded(tmp_path):
    assert current() is None
    with recorder_in(tmp_path) as recorder:
        assert current() is recorder
        assert HttpSession("https://x.example", ManualClock(START))._recorder is recorder
    assert current() is None
    assert HttpSession("https://x.example", ManualClock(START))._recorder is None
    with pytest.raises(ConfigError, match="exists"):
        recorder_in(tmp_path)


# -- what is missing is said ------------------------------------------------------------------------------------------


class SlowDisk(recorder_module.RecordingFile):
    """Writes nothing until it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may = threading.Event()

    def write(self, item: Any) -> None:
        assert self.may.wait(20)
        super().write(item)


@pytest.mark.parametrize("limits", [{"limit_lines": 10}, {"limit_bytes": 1000}], ids=["lines", "bytes"])
def test_a_hole_is_said_where_it_is(tmp_path, monkeypatch, limits):
    monkeypatch.setattr(recorder_module, "RecordingFile", SlowDisk)
    recorder = recorder_in(tmp_path, **limits)
    for number in range(30):
        recorder.put(Heard(at_ns=number, conn=1), b"x" * 100)
    held = recorder._given - 1
    assert recorder.lost == 30 - held > 0
    recorder._file.may.set()
    assert recorder._writer.flush(20)
    recorder.put(Heard(at_ns=100, conn=1), b"after")
    recorder.close(20)
    told = read(recorder.path)
    hole = told[held + 1]
    assert hole == {"type": "lost", "at_ns": START * 1_000_000, "since_ns": held, "lines": 30 - held}
    assert told[held + 2]["text"] == "after"
    assert told[-1] == {"type": "end", "at_ns": START * 1_000_000, "lines": held + 3, "lost": 30 - held}


def test_a_hole_at_the_end_is_said_too(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "RecordingFile", SlowDisk)
    recorder = recorder_in(tmp_path, limit_lines=3)
    for number in range(9):
        recorder.put(Heard(at_ns=number, conn=1), b"x")
    recorder._file.may.set()
    recorder.close(20)
    assert kinds(recorder.path) == ["start", "in", "in", "lost", "end"]


def test_a_full_disk_loses_nothing_that_fits_later(tmp_path, monkeypatch):
    """The disk takes some bytes of a write, refuses the rest for a while, and is then freed."""
    real, full = recorder_module.RecordingFile._drain, threading.Event()
    tries = 0

    def drain(self: Any) -> None:
        nonlocal tries
        if full.is_set():
            tries += 1
            import os

            part, self._out = self._out[:3], self._out[3:]
            os.write(self._fd, part)
            if tries > 1:
                full.clear()
            raise OSError(28, "No space left on device")
        real(self)

    monkeypatch.setattr(recorder_module.RecordingFile, "_drain", drain)
    recorder = recorder_in(tmp_path)
    assert recorder._writer.flush(20)
    full.set()
    for number in range(50):
        recorder.put(Heard(at_ns=number, conn=1), b"frame %d" % number)
    recorder.close(20)
    assert tries > 1
    assert [line["text"] for line in read(recorder.path) if line["type"] == "in"] == [f"frame {n}" for n in range(50)]
    assert kinds(recorder.path)[-1] == "end"


def test_a_killed_recorder_leaves_what_it_wrote(tmp_path):
    recorder = recorder_in(tmp_path)
    for number in range(100):
        recorder.put(Request(at_ns=number, id=number, method="GET", url="https://x.example/"))
    assert recorder._writer.flush(20)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(recorder.path.read_bytes())
    recorder.close()
    seen = []
    with pytest.raises(Damaged, match="torn"):
        seen.extend(decode(lines(torn)))
    seen = [line for line in _until_damage(torn) if isinstance(line, Request)]
    assert len(seen) == 100
    torn.write_bytes(recorder.path.read_bytes()[:-40])
    assert len(list(_until_damage(torn))) > 90


def _until_damage(path: Path) -> Any:
    try:
        yield from decode(lines(path))
    except Damaged:
        return


def test_another_file_is_none(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"type":"in","at_ns":1,"conn":1}\n')
    with pytest.raises(ConfigError, match="no start line"):
        list(decode(lines(path)))
    path.write_text("no json\n")
    with pytest.raises(ConfigError, match="no recording of pmkit"):
        list(decode(lines(path)))
    start = {"type": "start", "at_ns": 1, "version": "9", "endpoints": {}, "format": 2}
    path.write_text(json.dumps(start) + "\n")
    with pytest.raises(ConfigError, match="format 2"):
        list(decode(lines(path)))
