"""The exchange's own files against everything that goes over the wire, and the tap and the check themselves.

Every test in this folder is held to the files (conftest.py); here the check is shown to find what is wrong, and each
allowed difference to be needed. `pytest tests/kalshi/test_specifications.py -n 0 -s -k report` prints what was asked.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import pmkit.exchanges.kalshi as kalshi
from pmkit.errors import OrderUnknown
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.types import Order, OrderId, Side, TimeInForce
from pmkit.sim.engine import Side as Buy
from tests.kalshi.spec_changes import REST, SOCKET, Change
from tests.kalshi.spec_check import ROOT, Check, directory
from tests.kalshi.tap import Exchange, Frame, Record, tapped
from tests.kalshi.trading import LOW, Desk, desk, eventually
from tests.local import kalshi_exchange
from tests.sim.kalshi_client import OPEN, TICKER, running, utc
from tests.sim.kalshi_trader import Desk as Plain
from tests.sim.kalshi_trader import desk as plain_desk

OLD = "KXBTC15M-26JAN142015-15"
SOURCES = Path(kalshi.__file__).parent


@pytest.fixture
def files() -> Path:
    found = directory()
    if found is None:
        pytest.skip("the specifications of Kalshi, or PyYAML, are not here: nothing is held to them")
    return found


# ---- what goes over the wire


def leg(one: Desk, size: int, client: str) -> Order:
    return Order(
        market_id=one.market.market_id, outcome="NO", side=Side.BUY, price=LOW, size=Decimal(size),
        client_order_id=client,
    )  # fmt: skip


async def rest(one: Desk, size: str = "1") -> OrderId:
    return await one.exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, size)


async def trade(one: Desk) -> str:
    """Every order call. Gives the id of an order that has ended."""
    exchange, market = one.exchange, one.market
    await exchange.keep_warm()
    soon = exchange.clock.now() + timedelta(seconds=60)
    await exchange.place_limit_order(
        market, "YES", Side.BUY, LOW, 1, time_in_force=TimeInForce.GTD, expires_at=soon, cancel_on_pause=True
    )
    await exchange.place_market_order(market, "NO", Side.BUY, worst_price="0.99", amount=5)
    await exchange.place_market_order(market, "NO", Side.SELL, worst_price="0.01", size=1, reduce_only=True)
    await exchange.place_limit_order(market, "YES", Side.BUY, LOW, 1, post_only=True)
    placed = await exchange.place_orders([leg(one, 1, "a"), leg(one, 5, "b"), leg(one, 5, "c")])
    ids = [found for found in placed if isinstance(found, OrderId)]
    assert len(ids) == 3
    await exchange.replace_orders(ids[1:], [leg(one, 2, "d"), leg(one, 9, "e")])
    await exchange.amend_order(ids[0], price="0.02", size=1, expires_at=soon)
    await exchange.decrease_order(await rest(one), by="0.5")
    async with exchange.dead_man(limit="10.5"):
        await rest(one)
    await ask(one, ids[0])
    await exchange.cancel_order(ids[0])
    await exchange.cancel_all(market)
    await exchange.cancel_everything()
    return str(ids[0])


async def ask(one: Desk, order_id: str) -> None:
    """Every question about the account, and what became of an order whose answer is lost."""
    exchange, market = one.exchange, one.market
    await exchange.get_order_status(order_id)
    await exchange.queue_position(order_id)
    await exchange.queue_positions(market)
    await exchange.get_open_orders(market)
    await exchange.get_orders(market)
    await exchange.get_balances()
    await exchange.get_positions()
    await exchange.get_balance(market)
    yesterday = exchange.clock.now() - timedelta(days=1)
    await exchange.get_trade_history(since=yesterday)
    await exchange.get_settlements(since=yesterday)
    for silence in (0, 1):
        one.venue.user_feed.silence(silence)
        one.venue.faults.arm("lose_answer")
        with pytest.raises(OrderUnknown) as caught:
            await rest(one)
        await exchange.resolve_order(caught.value.intent)
    await exchange.stream.back_fill()


async def read(one: Desk, record: Record) -> None:
    """Every question about markets, and every public channel; a gap, the end of a subscription, a lost connection."""
    exchange, market, faults = one.exchange, one.market, one.venue.faults
    await exchange.get_market(market.ticker)
    await exchange.get_orderbook(market, "YES")
    await exchange.data.get_market_candles(market)
    await exchange.data.get_market_trades(market)
    await exchange.exchange_schedule()
    await exchange.finder().list_markets("BTC")
    subscriptions = (
        await exchange.data.subscribe_ticker([market]),
        await exchange.subscribe_reference(["BTC"]),
        await exchange.subscribe_orderbook([market]),
        await exchange.subscribe_trades([market]),
        await exchange.subscribe_markets(),
    )
    book = exchange.book(market, "YES")

    def snapshots() -> int:
        return sum(b'"orderbook_snapshot"' in frame.data for frame in record.frames)

    def gap() -> int:
        faults.arm("skip_delta")
        move_book(one)
        return 1

    for trouble in (gap, one.venue.overflow, faults.drop_connections):
        before = snapshots()
        assert trouble() > 0
        await eventually(lambda before=before: snapshots() > before and book.valid, 20)
    for subscription in subscriptions:
        await subscription.close()


async def read_without_a_key(one: Desk) -> None:
    """Books by polling, one market of an unknown series, and what is archived."""
    exchange = one.exchange
    async with KalshiMarketData(one.venues.endpoints, exchange.clock) as data:
        books = await data.subscribe_orderbook([one.market])
        await books.close()
        await data.catalogue.event(one.market.event_ticker)
        await data.catalogue.series(one.market.series_ticker)
        old = await data.get_market(OLD)
        assert await data.get_market_candles(old) == []  # the local venue was not there to see it trade
        await data.get_market_trades(old)


async def ask_the_archive(one: Desk, order_id: str) -> None:
    """Everything so far is past the cut-off."""
    exchange = one.exchange
    await exchange.clock.sleep(1.1)  # the cut-off is told in whole seconds
    one.venue.calendar.archived_ms = exchange.clock.now_ms()
    async with kalshi_exchange(one.venues) as fresh:  # it has not seen the order
        assert (await fresh.get_order_status(order_id)).status.terminal
        assert await fresh.get_trade_history()


def move_book(one: Desk) -> None:
    """Two changes at least, whatever the venue's own traders do."""
    live = one.venue.live(one.market.ticker)
    assert live is not None
    for _ in range(3):
        live.engine.submit("maker-1", Buy.BUY, 10, 1_000_000, post_only=True)


@pytest.fixture(scope="module")
def pmkit_traffic() -> Record:
    """One session of pmkit's clients. No request reached the venue past the tap."""

    async def session() -> None:
        async with desk() as one:
            await read(one, record)
            await read_without_a_key(one)
            await ask_the_archive(one, await trade(one))
            requests.append(sum(one.venue.server.requests.values()))

    requests: list[int] = []
    with tapped() as record:
        asyncio.run(session())
    assert requests == [len(record.exchanges)] and requests[0] > 40
    return record


async def odd_questions(at: Plain) -> None:
    """What pmkit does not ask, or is not answered, in a quiet session."""
    await at.trader.order("bid", "0.0100", "1.00")
    await at.trader.refused("bid", "0.0100", "1.00", exchange_index=0)
    await at.trader.refused("bid", "0.0001", "1.00")
    await at.trader.get("/portfolio/positions", settlement_status="all")
    at.venue.accounts.scopes[at.trader.account.key.id] = ("read",)
    await at.trader.try_order("bid", "0.0100", "1.00")
    at.venue.accounts.scopes.clear()
    await at.ask("/account/limits")
    await at.ask("/markets", {"status": "nonsense"})
    await at.ask("/series/KXNONE")
    await at.ask(f"/markets/{TICKER}/orderbook")
    await at.get("/events", {"limit": 1})
    at.venue.faults.arm("error_before")
    await at.trader.try_order("bid", "0.0100", "1.00")
    at.venue.limits.capacity = 0
    await at.ask("/markets")
    at.venue.limits.capacity = 1e6


async def odd_messages() -> None:
    """A day is listed; a window opens, is paused and settled; a subscription overflows."""
    async with running(OPEN - 1_000, steps=0.5) as setup, setup.socket() as ws:
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        await ws.call("subscribe", channels=["orderbook_delta", "trade"], market_tickers=[TICKER])
        await setup.clock.advance(5)
        setup.venue.pause()
        setup.venue.pause(False)
        await setup.clock.advance(910)
        setup.venue.overflow()
        await ws.drain()
    async with running(utc("2026-11-20T00:00:00+00:00"), steps=1) as night, night.socket() as ws:
        await ws.call("subscribe", channels=["market_lifecycle_v2"])
        await night.clock.advance(90)
        await ws.drain()


@pytest.fixture(scope="module")
def venue_traffic() -> Record:
    async def session() -> None:
        async with plain_desk() as at:
            await odd_questions(at)
            async with at.trader.socket() as ws:
                await ws.call("subscribe", channels=["user_orders"])
                await at.trader.order("bid", "0.0100", "1.00")
                await ws.drain()
        await odd_messages()

    with tapped() as record:
        asyncio.run(session())
    return record


# ---- the check


def test_a_session_of_pmkit_is_as_the_files_say_report(files: Path, pmkit_traffic: Record) -> None:
    check = Check(files)
    assert check.problems(pmkit_traffic) == []
    print(check.coverage.report(check.rest))
    asked = {line.split()[1] for line in check.coverage.operations}
    for path in paths_in_sources():
        form = re.compile(re.escape(path).replace(r"\{\}", r"{[a-z_]+}") + "(/.*)?")
        assert any(map(form.fullmatch, asked)), f"pmkit has the path {path}: ask for it in this session as well"
    channels = {name.split()[1] for name in check.coverage.socket if name.startswith("channel ")}
    assert channels == {
        "orderbook_delta", "trade", "ticker", "market_lifecycle_v2", "cfbenchmarks_value", "fill", "user_orders",
        "market_positions",
    }  # fmt: skip


def paths_in_sources() -> set[str]:
    """Every path that is written out in pmkit's Kalshi client; what is put in is `{}`."""
    found: set[str] = set()
    for source in SOURCES.glob("*.py"):
        nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            else:
                continue
            if re.fullmatch(r"(/[a-z_]+|/{})+", text) and not text.startswith(("/trade-api", "/{}")):
                found.add(text)
    return found


def test_paths_are_found_in_the_sources() -> None:
    found = paths_in_sources()
    assert {"/portfolio/events/orders", "/portfolio/orders/{}", "/markets/{}/orderbook", "/series"} <= found
    assert len(found) > 25


@pytest.mark.parametrize("change", [*REST, *SOCKET], ids=lambda change: change.name)
def test_each_allowed_difference_is_needed(
    files: Path, venue_traffic: Record, pmkit_traffic: Record, change: Change
) -> None:
    missing = Check(files, without=change.name)
    assert missing.problems(venue_traffic) or missing.problems(pmkit_traffic), "allowed, but nobody does it"


def test_what_the_venue_says_to_odd_questions_is_as_the_files_say(files: Path, venue_traffic: Record) -> None:
    assert Check(files, requests=False).problems(venue_traffic) == []


def of(record: Record, method: str, path: str) -> Exchange:
    return next(one for one in record.exchanges if one.method == method and one.path == ROOT + path and one.status)


def changed_body(exchange: Exchange, **fields: Any) -> Exchange:
    body = json.loads(exchange.body) | fields
    return replace(exchange, body=json.dumps({name: at for name, at in body.items() if at is not None}).encode())


def changed_answer(exchange: Exchange, **fields: Any) -> Exchange:
    return replace(exchange, answer=json.dumps(json.loads(exchange.answer) | fields).encode())


ENTRY = "/portfolio/events/orders"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: changed_body(one, action="buy"), "unknown field action"),
        (lambda one: changed_body(one, price=0.5), "is not string"),
        (lambda one: changed_body(one, side="yes"), "is none of"),
        (lambda one: changed_body(one, count=None), "no count"),
        (lambda one: replace(one, body=b"{"), "not JSON"),
        (lambda one: replace(one, body=b""), "no body"),
        (lambda one: replace(one, target=one.target + "?subaccount=0"), "unknown parameter subaccount"),
        (lambda one: replace(one, target=one.target + "/"), "no such operation"),
        (lambda one: replace(one, method="PUT"), "no such operation"),
        (lambda one: replace(one, target="/v3" + one.target), "no such operation"),
        (lambda one: replace(one, headers=one.headers | {"content-type": "text/plain"}), "content-type"),
        (lambda one: replace(one, headers=one.headers | {"kalshi-access-timestamp": "1795176000"}), "timestamp"),
        (lambda one: replace(one, headers={"content-type": "application/json"}), "kalshi-access-key is missing"),
        (lambda one: changed_answer(one, status="resting"), "unknown field status"),
        (lambda one: changed_answer(one, fill_count=0), "is not string"),
        (lambda one: replace(one, answer=b"{}"), "no order_id"),
        (lambda one: replace(one, answer=b"<html>"), "not JSON"),
        (lambda one: replace(one, status=202), "a status that the file does not name"),
        (lambda one: replace(one, status=400), "no error"),
        (lambda one: replace(one, complete=False), "cut off"),
    ],
)
def test_a_wrong_order_call_is_found(files: Path, pmkit_traffic: Record, change: Any, told: str) -> None:
    right = of(pmkit_traffic, "POST", ENTRY)
    assert Check(files).problems(Record(exchanges=[right])) == []
    assert any(told in problem for problem in Check(files).problems(Record(exchanges=[change(right)])))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=5000", "above 1000"),
        ("limit=1e3", "is not integer"),
        ("status=open", ""),
        ("ticker=A&ticker=B", "more than once"),
        ("min_ts=2026-11-20", "is not integer"),
        ("client_order_id=x", "unknown parameter"),
    ],
)
def test_a_wrong_question_is_found(files: Path, pmkit_traffic: Record, query: str, told: str) -> None:
    right = of(pmkit_traffic, "GET", "/portfolio/orders")
    problems = Check(files).problems(Record(exchanges=[replace(right, target=f"{right.path}?{query}")]))
    assert any(told in problem for problem in problems) if told else problems == []


@pytest.mark.parametrize(
    ("sent", "message", "told"),
    [
        (True, {"id": 1, "cmd": "subscribe", "params": {"channels": ["fill"], "user": 1}}, "unknown field user"),
        (True, {"id": 1, "cmd": "subscribe", "params": {"channels": ["books"]}}, "is none of"),
        (True, {"id": 1, "cmd": "subscribe", "params": {"channels": []}}, "0 items"),
        (True, {"cmd": "subscribe", "params": {"channels": ["fill"]}}, "no id"),
        (True, {"id": 1, "cmd": "resubscribe"}, "no such command"),
        (True, {"id": 1, "cmd": "update_subscription", "params": {"action": "get_snapshot"}}, "neither sid nor sids"),
        (False, {"type": "subscribed", "msg": {"channel": "fill", "sid": 0}}, "below 1"),
        (False, {"type": "fills", "sid": 1, "msg": {}}, "no such message"),
        (False, {"type": "error", "msg": {"code": 29, "msg": "x"}}, "above 28"),
        (False, {"type": "fill", "sid": 1, "msg": {}}, "no trade_id"),
        (False, [], "not an object"),
    ],
)
def test_a_wrong_message_is_found(files: Path, sent: bool, message: Any, told: str) -> None:
    frames = [Frame(1, sent, "text", json.dumps(message).encode())]
    assert any(told in problem for problem in Check(files).problems(Record(frames=frames)))


# ---- the tap


async def test_what_the_tap_cannot_read_is_told(wire: Record) -> None:
    with tapped() as record:
        async with running() as setup:
            url = setup.venue.endpoints().rest
            host, _, port = url.partition("//")[2].partition("/")[0].partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET\r\n\r\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()
    assert len(record.unread) >= 1 and not record.exchanges
    assert wire.unread == record.unread
    wire.unread.clear()  # or this test fails, as it should


@pytest.mark.parametrize("compress", [0, 15])
async def test_the_tap_reads_sockets_as_both_ends_do(compress: int, wire: Record) -> None:
    async with running() as setup, setup.socket(compress=compress) as ws:
        await ws.call("subscribe", channels=["orderbook_delta", "trade"], market_tickers=[TICKER])
        for _ in range(40):
            await setup.clock.advance(1)
        await ws.drain()
        heard = [frame for frame in wire.frames if frame.kind == "text" and not frame.sent]
        assert [json.loads(frame.data) for frame in heard] == ws.frames and len(ws.frames) > 20
        asked = [json.loads(frame.data)["cmd"] for frame in wire.frames if frame.kind == "text" and frame.sent]
        assert asked == ["subscribe", "list_subscriptions"]


async def test_the_tap_reads_requests_as_both_ends_do(wire: Record) -> None:
    async with running() as setup:
        body = await setup.get("/markets", {"limit": 3})
        url = setup.venue.endpoints().rest
        async with aiohttp.ClientSession() as http, http.get(f"{url}/exchange/status") as answer:
            status = await answer.read()
        asked = [exchange.target for exchange in wire.exchanges]
        assert asked == [f"{ROOT}/markets?limit=3", f"{ROOT}/exchange/status"]
        assert json.loads(wire.exchanges[0].answer) == body and wire.exchanges[1].answer == status
        assert [exchange.status for exchange in wire.exchanges] == [200, 200]
