"""HttpSession: what is sent, how often, and what each failure proves."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import socket
import traceback
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import respx

from pmkit.clock import ManualClock, SystemClock
from pmkit.errors import (
    AuthError,
    ConfigError,
    MarketNotFound,
    NotSent,
    PmkitError,
    ProtocolChanged,
    RateLimited,
    RegionBlocked,
    VenueUnavailable,
)
from pmkit.http import MAX_BODY_BYTES, HttpAnswer, HttpSession, Unanswered
from pmkit.http_pool import build, open_client
from pmkit.venue_clock import VenueClock
from tests.websocket_peers import answering, read_request, self_signed, status_answer, tcp_server

BASE = "https://venue.test/api"


class Row(msgspec.Struct):
    n: int


def session(port: int, **options: Any) -> HttpSession:
    return HttpSession(f"http://127.0.0.1:{port}/api", SystemClock(), **options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What goes out.


@respx.mock
async def test_request_goes_out_once_and_byte_for_byte() -> None:
    route = respx.post(f"{BASE}/order").mock(return_value=httpx.Response(201, json={"n": 1}, headers={"X-Id": "7"}))
    async with HttpSession(BASE, SystemClock()) as http:
        answer = await http.request(
            "POST", "/order", body=b'{"a":1 }', headers={"KEY": "v"}, params=[("x", 1), ("x", 2)]
        )
    assert route.call_count == 1
    sent = route.calls[0].request
    assert sent.content == b'{"a":1 }'
    assert sent.headers["key"] == "v"
    assert sent.url.query == b"x=1&x=2"
    assert (answer.status, answer.headers["x-id"], answer.host) == (201, "7", "venue.test")
    assert answer.decode(Row) == Row(1)
    assert http.requests == 1


@respx.mock
async def test_allow_list_refuses_before_anything_is_sent() -> None:
    routes = respx.route().mock(return_value=httpx.Response(200, json={}))
    allow = [("GET", r"/book/[A-Z0-9-]+"), ("POST", "/books")]
    async with HttpSession(BASE, SystemClock(), allow=allow) as http:
        await http.request("GET", "/book/KX-1")
        await http.request("POST", "/books")
        for method, path in [
            ("POST", "/order"),
            ("DELETE", "/book/KX-1"),
            ("GET", "/book/KX-1/../../order"),
            ("GET", "/book/"),
            ("POST", "/books/"),
            ("post", "/books"),
            ("GET", "https://elsewhere.test/book/KX-1"),
        ]:
            with pytest.raises(NotSent, match="allow-list"):
                await http.request(method, path)
    assert routes.call_count == 2


@respx.mock
async def test_a_path_cannot_lead_to_another_host() -> None:
    everything = respx.route().mock(return_value=httpx.Response(200))
    async with HttpSession(BASE, SystemClock()) as http:
        for path in ("https://elsewhere.test/x", "elsewhere", ""):
            with pytest.raises(NotSent, match="not a path"):
                await http.request("GET", path)
        await http.request("GET", "//elsewhere.test/x")
    assert [call.request.url.host for call in everything.calls] == ["venue.test"]


# What was certainly not sent.


async def test_rs_08_refused_and_unresolvable_are_proof_that_nothing_was_sent() -> None:
    async with session(free_port()) as http:
        with pytest.raises(NotSent, match="ConnectError"):
            await http.request("POST", "/order", body=b"{}")
    async with HttpSession("https://no-such-host.invalid", SystemClock(), connect_timeout=2.0) as http:
        with pytest.raises(NotSent):
            await http.request("POST", "/order", body=b"{}")


@respx.mock
@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_rs_08_errors_before_the_first_byte(error: type[httpx.TransportError]) -> None:
    respx.post(f"{BASE}/order").mock(side_effect=error("detail"))
    async with HttpSession(BASE, SystemClock()) as http:
        with pytest.raises(NotSent):
            await http.request("POST", "/order")


@respx.mock
@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
        httpx.ProxyError,
    ],
)
async def test_rs_08_errors_after_it_are_unanswered(error: type[httpx.HTTPError]) -> None:
    route = respx.post(f"{BASE}/order").mock(side_effect=error("detail"))  # type: ignore[call-arg]
    async with HttpSession(BASE, SystemClock()) as http:
        with pytest.raises(Unanswered):
            await http.request("POST", "/order")
    assert route.call_count == 1


async def test_rs_17_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_was_sent(tmp_path: Path) -> None:
    seen: list[str] = []
    async with tcp_server(answering(status_answer(200), seen=seen), self_signed(tmp_path)) as port:
        http = HttpSession(f"https://127.0.0.1:{port}", SystemClock())
        with pytest.raises(NotSent):
            await http.request("POST", "/order")
        await http.close()
    assert seen == []


async def test_reset_after_the_request_is_unanswered() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    async with tcp_server(reset) as port, session(port) as http:
        with pytest.raises(Unanswered):
            await http.request("POST", "/order", body=b"{}")


async def test_no_answer_in_time_is_unanswered() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        await asyncio.sleep(30)

    async with tcp_server(mute) as port, session(port, timeout=0.1) as http:
        with pytest.raises(Unanswered):
            await http.request("POST", "/order", body=b"{}")


async def test_an_answer_that_trickles_is_bounded_as_a_whole() -> None:
    """Each byte comes in time for a read timeout; together they never end."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with tcp_server(trickle) as port, session(port, timeout=0.2) as http:
        async with asyncio.timeout(1.0):
            with pytest.raises(Unanswered):
                await http.request("POST", "/order", body=b"{}")


@pytest.mark.parametrize("cut", [0, 1, 9, 17, 30, 40, 52, 60])
async def test_rs_12_truncated_answers_are_unanswered(cut: int) -> None:
    answer = status_answer(200, b'{"n": 12345}', "Content-Type: application/json")
    assert cut < len(answer)
    async with tcp_server(answering(answer[:cut])) as port, session(port) as http:
        with pytest.raises(Unanswered):
            await http.request("POST", "/order", body=b"{}")


async def test_rs_12_corrupt_compression_is_unanswered() -> None:
    body = gzip.compress(b'{"n": 1}')[:-9] + b"nonsense!"
    async with tcp_server(answering(status_answer(200, body, "Content-Encoding: gzip"))) as port, session(port) as http:
        with pytest.raises(Unanswered):
            await http.request("POST", "/order", body=b"{}")


async def test_body_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmkit.http.MAX_BODY_BYTES", 100_000)
    small, bomb = b" " * 100_000, gzip.compress(b" " * 50_000_000)
    assert MAX_BODY_BYTES >= 16 * 2**20
    for body, encoding, passes in ((small, "identity", True), (small + b" ", "identity", False), (bomb, "gzip", False)):
        answer = status_answer(200, body, f"Content-Encoding: {encoding}")
        async with tcp_server(answering(answer)) as port, session(port) as http:
            if passes:
                assert (await http.request("GET", "/x")).body == body
            else:
                with pytest.raises(Unanswered, match="larger than"):
                    await http.request("GET", "/x")


# Statuses.


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 521, 524])
@pytest.mark.parametrize("body", [b"<html>\x1b[2J<h1>Bad\r\ngateway</h1>" + b"x" * 5000, b"", b'{"error": "later"}'])
@respx.mock
async def test_rs_04_5xx_with_any_body(status: int, body: bytes) -> None:
    respx.get(f"{BASE}/rows").mock(return_value=httpx.Response(status, content=body, headers={"Retry-After": "3"}))
    async with HttpSession(BASE, SystemClock()) as http:
        with pytest.raises(VenueUnavailable) as caught:
            await http.get_json("/rows", list[Row])
        text = str(caught.value)
        assert caught.value.status == status
        assert caught.value.retry_after == 3.0
        assert not isinstance(caught.value, Unanswered)
        assert str(status) in text
        assert "venue.test" in text
        assert len(text) < 400
        assert text.isprintable()
        answer = await http.request("GET", "/rows")  # for an order, the status is for its caller to judge
        assert answer.status == status


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ProtocolChanged),
        (307, ProtocolChanged),
        (400, ProtocolChanged),
        (401, AuthError),
        (403, RegionBlocked),
        (404, MarketNotFound),
        (410, ProtocolChanged),
        (418, RateLimited),
        (425, VenueUnavailable),
        (429, RateLimited),
        (451, RegionBlocked),
    ],
)
@respx.mock
async def test_other_statuses(status: int, error: type[PmkitError]) -> None:
    route = respx.get(f"{BASE}/x").mock(
        return_value=httpx.Response(status, text="why", headers={"Location": "https://elsewhere.test/"})
    )
    async with HttpSession(BASE, SystemClock()) as http:
        with pytest.raises(error, match="why"):
            await http.get("/x")
    assert route.call_count == 1


@respx.mock
async def test_200_with_a_body_that_does_not_fit() -> None:
    respx.get(f"{BASE}/x").mock(
        side_effect=[httpx.Response(200, text=text) for text in ("<html>", "", '[{"m": 1}]', '{"n": 1}', '[{"n":1}] [')]
    )
    async with HttpSession(BASE, SystemClock()) as http:
        for _ in range(5):
            with pytest.raises(ProtocolChanged, match="does not fit"):
                await http.get_json("/x", list[Row])


# The gate.


@respx.mock
async def test_rs_01_no_request_leaves_while_the_venue_asked_to_wait() -> None:
    clock = ManualClock()
    bucket = 10

    def limited(request: httpx.Request) -> httpx.Response:
        nonlocal bucket
        bucket -= 1
        if bucket >= 0:
            return httpx.Response(200, json={})
        return httpx.Response(429, json={"error": "slow down"}, headers={"Retry-After": "30"})

    route = respx.get(f"{BASE}/x").mock(side_effect=limited)
    async with HttpSession(BASE, clock) as http:
        outcomes = [await asyncio.gather(http.get("/x"), return_exceptions=True) for _ in range(100)]
        limits = [outcome[0] for outcome in outcomes if isinstance(outcome[0], RateLimited)]
        assert len(limits) == 90
        assert route.call_count == 11
        assert limits[0].retry_after == 30.0
        await clock.advance(27.0)
        with pytest.raises(RateLimited) as caught:
            await http.get("/x")
        with pytest.raises(RateLimited):
            await http.request("POST", "/order", wait=False)
        assert caught.value.retry_after == pytest.approx(3.0)
        assert route.call_count == 11
        bucket = 5
        await clock.advance(3.1)
        await http.get("/x")
        assert route.call_count == 12


@respx.mock
async def test_rs_01_short_waits_are_waited_out_but_not_by_orders() -> None:
    clock = ManualClock()
    answers = [httpx.Response(429, headers={"Retry-After": "1.5"})] + [httpx.Response(200, json={})] * 5
    route = respx.route().mock(side_effect=answers)
    async with HttpSession(BASE, clock) as http:
        with pytest.raises(RateLimited):
            await http.get("/x")
        waiting = asyncio.ensure_future(http.get("/x"))
        await clock.settle()
        with pytest.raises(RateLimited):
            await http.request("POST", "/order", wait=False)
        await clock.advance(1.4)
        assert not waiting.done()
        assert route.call_count == 1
        await clock.advance(0.2)
        await waiting
        assert route.call_count == 2


@respx.mock
async def test_rs_01_a_later_shorter_wait_does_not_open_the_gate_early() -> None:
    clock = ManualClock()
    first, second = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("slow"):
            await second.wait()
            return httpx.Response(429, headers={"Retry-After": "1"})
        await first.wait()
        return httpx.Response(429, headers={"Retry-After": "60"})

    respx.route().mock(side_effect=answer)
    async with HttpSession(BASE, clock) as http:
        both = [asyncio.ensure_future(http.get(path)) for path in ("/fast", "/slow")]
        await clock.settle()
        first.set()
        await clock.settle()
        second.set()
        await asyncio.gather(*both, return_exceptions=True)
        await clock.advance(5.0)
        with pytest.raises(RateLimited, match="nothing was sent"):
            await http.get("/fast")


@pytest.mark.parametrize(
    ("retry_after", "wait"), [("600", 600.0), (None, 120.0), ("Wed, 21 Oct", 120.0), ("-1", 120.0)]
)
@respx.mock
async def test_rs_02_a_ban_stops_everything_for_its_time(retry_after: str | None, wait: float) -> None:
    clock = ManualClock()
    ban = httpx.Response(418, headers={} if retry_after is None else {"Retry-After": retry_after})
    route = respx.route().mock(side_effect=[httpx.Response(429), ban, httpx.Response(200)])
    async with HttpSession(BASE, clock) as http:
        for _ in range(2):
            with pytest.raises(RateLimited):
                await http.get("/x")
            await clock.advance(1.1)
        await clock.advance(wait - 5.0)
        for _ in range(3):
            with pytest.raises(RateLimited):
                await http.get("/x")
        assert route.call_count == 2
        await clock.advance(5.0)
        await http.get("/x")
        assert route.call_count == 3


async def test_rs_01_the_gate_closes_with_the_headers_also_when_the_body_never_ends() -> None:
    connections = 0

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(b"HTTP/1.1 429 Slow down\r\nRetry-After: 60\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async with tcp_server(half) as port, session(port) as http:
        with pytest.raises(Unanswered):
            await http.request("GET", "/x")
        with pytest.raises(RateLimited):
            await http.request("GET", "/x")
    assert connections == 1


# Connections.


class KeepAlive:
    """Answers every request of a connection; `drop_idle` closes it after the answer without saying so."""

    def __init__(self, drop_idle: bool) -> None:
        self.drop_idle = drop_idle
        self.requests: list[str] = []
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        served = 0
        while True:
            request = await read_request(reader)
            if self.drop_idle and served == 1:
                # Already half gone: the request arrives, and instead of an answer comes the end.
                self.requests.append("dropped " + request.split()[0])
                return
            self.requests.append(request.split()[0])
            served += 1
            writer.write(status_answer(200, b"{}"))
            await writer.drain()


async def test_a_get_on_a_dropped_connection_is_sent_once_more() -> None:
    venue = KeepAlive(drop_idle=True)
    async with tcp_server(venue.handle) as port, session(port) as http:
        await http.get("/1")
        await http.get("/2")
    assert venue.requests == ["GET", "dropped GET", "GET"]


async def test_a_post_on_a_dropped_connection_is_never_sent_again() -> None:
    venue = KeepAlive(drop_idle=True)
    async with tcp_server(venue.handle) as port, session(port) as http:
        await http.get("/1")
        with pytest.raises(Unanswered):
            await http.request("POST", "/order", body=b"{}")
    assert venue.requests == ["GET", "dropped POST"]


async def test_a_get_that_fails_twice_raises() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    connections = 0
    async with tcp_server(deaf) as port, session(port) as http:
        http.requests = 1  # as if it had been used
        with pytest.raises(Unanswered):
            await http.get("/1")
    assert connections == 2


async def test_connections_are_kept() -> None:
    venue = KeepAlive(drop_idle=False)
    async with tcp_server(venue.handle) as port, session(port) as http:
        for _ in range(20):
            await http.get("/x")
    assert venue.connections == 1


async def test_rs_18_cancelled_requests_give_their_connections_back() -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await release.wait()
            writer.write(status_answer(200, b"{}"))

    async with tcp_server(slow) as port, session(port, max_connections=4, connect_timeout=1.0) as http:
        for turn in range(200):
            tasks = [asyncio.ensure_future(http.get("/x")) for _ in range(5)]
            await asyncio.sleep(0.0005 * (turn % 8))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        release.set()
        answers = await asyncio.gather(*(http.get("/x") for _ in range(10)))
        assert [answer.status for answer in answers] == [200] * 10


async def test_closing_at_any_step_of_a_request_leaves_no_connection_open() -> None:
    """One that was being made when the pool was closed stayed open for ever, or its request hung."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(status_answer(200, b"{}"))

    loop = asyncio.get_running_loop()
    async with tcp_server(answer) as port:
        for steps in range(25):
            http = session(port)
            asking = asyncio.ensure_future(http.request("GET", "/x"))
            for _ in range(steps):
                await asyncio.sleep(0)
            began = loop.time()
            await http.close()
            (found,) = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(found, (HttpAnswer, NotSent, Unanswered)) and loop.time() - began < 3, (steps, found)
            del http, asking, found
            gc.collect()  # an unclosed socket warns, which fails the test


async def test_closing_does_not_swallow_the_callers_own_cancellation() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(hang) as port:
        http = session(port)
        asking = asyncio.ensure_future(http.request("GET", "/x"))
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(http.close())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, closing, return_exceptions=True)
        assert asking.cancelled()


async def test_close_within_a_second_with_a_peer_that_hangs() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with tcp_server(mute) as port:
        http = session(port, timeout=20.0)
        waiting = asyncio.ensure_future(http.request("POST", "/order", body=b"{}"))
        await asyncio.sleep(0.05)
        begin = asyncio.get_running_loop().time()
        await http.close()
        await http.close()
        assert asyncio.get_running_loop().time() - begin < 1.0
        with pytest.raises(NotSent, match="closed"):
            await http.request("GET", "/x")
        async with asyncio.timeout(1.0):
            with pytest.raises(Unanswered):
                await waiting


async def test_nothing_is_opened_in_the_constructor() -> None:
    http = session(free_port())
    assert http._client is None
    await http.close()


# Secrets.

CANARY = "canary-4f9d-secret"


async def test_no_secret_in_any_error_text(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if "reset" in request.split("\r\n")[0]:
            writer.transport.abort()
            return
        writer.write(status_answer(401, b'{"error": "bad signature"}'))
        await writer.drain()

    errors: list[BaseException] = []
    with caplog.at_level(logging.DEBUG):
        async with tcp_server(echo) as port:
            for path, value, to in [
                ("/401", CANARY, port),
                ("/reset", CANARY, port),
                ("/refused", CANARY, free_port()),
                ("/newline", f"{CANARY}\r\nX: y", port),
                ("/trailing", f"{CANARY}\n", port),
                ("/letters", f"{CANARY}€", port),
            ]:
                async with session(to) as http:
                    with pytest.raises(PmkitError) as caught:
                        await http.get(path, headers={"SIGNATURE": value}, params={"q": "public"})
                    errors.append(caught.value)
    assert [type(error) for error in errors] == [AuthError, Unanswered, NotSent, NotSent, NotSent, NotSent]
    for error in errors:
        assert CANARY not in "".join(traceback.format_exception(error))
        assert CANARY not in repr(error)


async def test_rs_11_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback never takes a proxy; elsewhere a proxy that cannot be used is a clear error without its password."""
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{CANARY}@127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{CANARY}@127.0.0.1:1")
    async with tcp_server(answering(status_answer(200, b"{}"))) as port, session(port) as http:
        await http.get("/x")
    for variable in (f"socks5://user:{CANARY}@127.0.0.1:1", f"weird://user:{CANARY}@127.0.0.1"):
        monkeypatch.setenv("ALL_PROXY", variable)
        http = HttpSession(BASE, SystemClock())
        with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
            await http.get("/x")
        assert CANARY not in "".join(traceback.format_exception(caught.value))


async def test_rs_11_a_proxy_on_the_way_is_told_once_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = "rs-11.example"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{CANARY}@127.0.0.1:1")
    for _ in range(2):
        async with HttpSession(f"https://{host}", SystemClock()) as http:
            with pytest.raises(NotSent):
                await http.get("/x")
    (told,) = [record.getMessage() for record in caplog.records if record.name == "pmkit.http"]
    assert host in told and "127.0.0.1:1" in told and CANARY not in caplog.text
    monkeypatch.setenv("NO_PROXY", "other-" + host)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{CANARY}@127.0.0.1:bad")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        await HttpSession(f"https://another-{host}", SystemClock()).get("/x")
    assert CANARY not in "".join(traceback.format_exception(caught.value))


# Time.


@respx.mock
async def test_date_header_feeds_the_venue_clock() -> None:
    clock = ManualClock(start_ms=1_795_176_000_000)  # 2026-11-20 12:00:00 UTC
    venue_clock = VenueClock(clock)
    dates = ["Fri, 20 Nov 2026 12:00:03 GMT", "nonsense", "", "Fri, 99 Nov 2026 12:00:03 GMT"]
    respx.route().mock(side_effect=[httpx.Response(200, headers={"Date": date}) for date in dates])
    async with HttpSession(BASE, clock, venue_clock=venue_clock) as http:
        for _ in dates:
            await http.get("/x")
            assert venue_clock.offset_ms == 3499  # the header has whole seconds: the middle of the second
            assert venue_clock.uncertainty_ms == 500


def test_answers_are_read_only_and_excerpts_are_short() -> None:
    answer = HttpAnswer("GET", "h", "/p", 200, {}, b"\x00\x1b[31m" + "é".encode() * 500, 0, 0)
    assert len(answer.excerpt) <= 200
    assert answer.excerpt.isprintable()
    with pytest.raises(AttributeError):
        answer.status = 500  # type: ignore[misc]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("body", [None, b"", b'{"a":1}'])
@pytest.mark.parametrize(
    "params",
    [None, {}, {"a": "b c/ü=&", "next": "MA=="}, [("m", "1"), ("m", "2")], {"limit": 1}, {"limit": True}, {"x": ""}],
)
@pytest.mark.parametrize("headers", [None, {"KEY": "v", "User-Agent": "mine"}, {"accept": "x", "HOST": "h"}])
def test_a_request_is_what_httpx_builds_byte_for_byte(method, body, params, headers):
    client = open_client("http://127.0.0.1:1/base", "h", timeout=1, connect_timeout=1, max_connections=1)
    urls: dict = {}
    for _ in range(2):  # the second time the address is known
        build(client, urls, method, "/p/a%2Fb", {"limit": 1}, None, None)
        ours = build(client, urls, method, "/p/a%2Fb", params, body, headers)
        theirs = client.build_request(method, "/p/a%2Fb", params=params, content=body, headers=headers)
        assert (ours.method, ours.url, ours.content) == (theirs.method, theirs.url, theirs.content)
        assert ours.headers.raw == theirs.headers.raw
        assert ours.extensions == theirs.extensions


@respx.mock
async def test_a_cookie_that_a_venue_sets_goes_back_to_it():
    route = respx.get("https://venue.test/a").mock(
        side_effect=[httpx.Response(200, headers={"set-cookie": "edge=1; Path=/"}), httpx.Response(200)]
    )
    async with HttpSession("https://venue.test", ManualClock()) as session:
        await session.get("/a")
        await session.get("/a")
    assert "cookie" not in route.calls[0].request.headers
    assert route.calls[1].request.headers["cookie"] == "edge=1"
