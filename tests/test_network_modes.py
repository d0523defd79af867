"""Failure modes of names, addresses, redirects and loops, by their ids: over HTTP and sockets, on loopback only."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pmkit.clock import SystemClock
from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints
from pmkit.errors import NotSent, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.http import HttpSession
from tests.websocket_peers import Feed, answering, fast_clock, running, status_answer, tcp_server, until, venue

NAME = "venue.test"
OK = status_answer(200, b'{"fine":1}')


def resolve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[str]]) -> list[str]:
    """The name above has the addresses that `answer` gives (or raises); anything else is a mistake. Gives the asked."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    asked: list[str] = []

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text != NAME:
            assert text.startswith("127."), f"{text} is no address of this machine"
            return await real(host, port, **options)
        asked.append(text)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)) for address in answer()]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


def failing(times: int) -> Callable[[], list[str]]:
    left = [times]

    def answer() -> list[str]:
        if left[0]:
            left[0] -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    return answer


async def test_rs_09_a_name_that_does_not_resolve_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve(monkeypatch, failing(3))
    async with venue() as there:
        feed = Feed(there.url.replace("127.0.0.1", NAME), fast_clock())
        async with running(feed, "a"):
            assert feed.stats.attempts == 4 and len(asked) == 4


async def test_rs_09_an_order_for_a_name_that_does_not_resolve_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, failing(1))
    seen: list[str] = []
    async with (
        tcp_server(answering(OK, seen=seen)) as port,
        HttpSession(f"http://{NAME}:{port}", SystemClock()) as http,
    ):
        with pytest.raises(NotSent):
            await http.request("POST", "/order", body=b"{}")
        assert seen == []
        assert (await http.request("POST", "/order", body=b"{}")).status == 200


@asynccontextmanager
async def black_hole(port: int) -> AsyncIterator[str]:
    """An address of this machine, that port, where SYNs vanish: its queue is full and nobody takes any from it."""
    address = "127.0.0.9"
    waiting: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((address, port))
            waiting.append(filler)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await asyncio.open_connection(address, port)
            yield address
        finally:
            for filler in waiting:
                filler.close()


async def test_rs_10_a_dead_first_address_costs_less_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async with venue() as there:
        port = int(there.url.rpartition(":")[2].strip("/"))
        async with black_hole(port) as dead:
            resolve(monkeypatch, lambda: [dead, "127.0.0.1"])
            feed = Feed(there.url.replace("127.0.0.1", NAME), SystemClock(), open_timeout=5.0)
            async with running(feed, "a"):
                assert feed.stats.attempts == 1, "the second address was tried beside the first"


async def test_rs_10_over_http_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tcp_server(answering(OK)) as port, black_hole(port) as dead:
        resolve(monkeypatch, lambda: [dead, "127.0.0.1"])
        async with HttpSession(f"http://{NAME}:{port}", SystemClock(), connect_timeout=5.0) as http:
            assert (await http.request("GET", "/")).status == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_rs_15_http_never_follows_a_redirect(status: int) -> None:
    first: list[str] = []
    elsewhere: list[str] = []
    async with tcp_server(answering(OK, seen=elsewhere)) as other:
        moved = status_answer(status, b"", f"Location: http://127.0.0.1:{other}/order")
        async with (
            tcp_server(answering(moved, seen=first)) as port,
            HttpSession(f"http://127.0.0.1:{port}", SystemClock()) as http,
        ):
            answer = await http.request("POST", "/order", body=b"{}", headers={"POLY_SIGNATURE": "canary"})
            assert answer.status == status
            with pytest.raises(ProtocolChanged):
                await http.get_json("/order", dict)
    assert "canary" in first[0] and elsewhere == []


async def test_dp_05_two_exchanges_share_no_connection_and_no_state() -> None:
    endpoints = Endpoints()
    clock = SystemClock()
    one, other = (PolymarketExchange(endpoints, clock, private_key=Secret(f"0x{number:064x}")) for number in (1, 2))
    assert one._http is not other._http and one.journal is not other.journal and one.limits is not other.limits
    await one.close()
    assert other.unresolved == () or list(other.unresolved) == []
    with pytest.raises((NotSent, VenueUnavailable)):
        await one._http.send("GET", "/time", b"")
    assert not other._closed
    await other.close()


def test_pl_12_uvloop_is_never_asked_for() -> None:
    root = Path(__file__).resolve().parents[1] / "pmkit"
    named = [
        path.name
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name == "uvloop" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "uvloop")
    ]
    assert named == []


def test_pl_12_feeds_and_http_run_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is optional and not installed")

    async def main() -> None:
        async with venue() as there, tcp_server(answering(OK)) as port:
            feed = Feed(there.url, SystemClock())
            async with running(feed, "a"):
                await there.last.send(1)
                await until(lambda: feed.got)
            async with HttpSession(f"http://127.0.0.1:{port}", SystemClock()) as http:
                assert json.loads((await http.request("GET", "/")).body) == {"fine": 1}

    uvloop.run(main())
