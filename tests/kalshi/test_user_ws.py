"""The user stream of Kalshi against the local venue: each fill once, whatever path it takes (failure modes UW)."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from pmkit.endpoints import KalshiEndpoints
from pmkit.errors import NotSent, PmkitError
from pmkit.exchanges.kalshi import user_stream, user_ws
from pmkit.exchanges.kalshi.journal import Journal
from pmkit.exchanges.kalshi.user_messages import UserOrder
from pmkit.exchanges.types import Fill, OrderState, Side, TimeInForce
from pmkit.streams import Subscription
from tests.kalshi.test_order_entry import desk_again, rest
from tests.kalshi.trading import LOW, Desk, desk, eventually, freeze
from tests.local import kalshi_exchange

pytestmark = pytest.mark.virtual_time


def keys(one: Desk) -> list[tuple[str, str]]:
    return [(fill.fill_id, fill.order_id) for fill in one.fills]


def truth(one: Desk) -> list[tuple[str, str]]:
    return [(fill.trade_id, fill.order.order_id) for fill in one.venue.account.fills]


async def take(one: Desk, size: int = 1, outcome: str = "YES") -> str:
    """An order that fills at once."""
    return await one.exchange.place_limit_order(one.market, outcome, Side.BUY, "0.99", size)


async def test_uw_01_fills_missed_while_disconnected_come_once() -> None:
    async with desk() as one:
        await take(one)
        await eventually(lambda: len(one.fills) == len(truth(one)))
        one.venue.user_feed.silence(1.0)
        one.venue.faults.drop_connections()
        await take(one, 2)
        await take(one, 3, "NO")
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)), 8)
        await asyncio.sleep(1.2)  # the later passes find nothing more
        assert Counter(keys(one)) == Counter(truth(one)) and max(Counter(keys(one)).values()) == 1
        assert one.exchange.stream.back_filled
        for fill in one.fills:
            assert fill.own and one.ledger[fill.client_order_id or ""].order_id == fill.order_id
        assert {fill.outcome for fill in one.fills} == {"YES", "NO"}  # in the terms in which they were ordered


async def test_uw_01_orders_that_ended_while_disconnected_are_told() -> None:
    async with desk() as one:
        order_id = await rest(one)
        await eventually(lambda: any(status.order_id == order_id for status in one.orders))
        one.venue.user_feed.silence(1.0)
        one.venue.faults.drop_connections()
        async with desk_again(one) as other:
            assert await other.cancel_order(str(order_id))
        await eventually(lambda: one.orders[-1].status is OrderState.CANCELED, 8)
        assert one.orders[-1].order_id == order_id


async def test_uw_01_fills_are_told_over_rest_while_no_socket_comes_up() -> None:
    async with desk() as one:
        one.venue.faults.reject_handshake(503, 100)
        one.venue.faults.drop_connections()
        await eventually(lambda: not one.exchange.stream.socket.live)
        await asyncio.sleep(60)
        await take(one, 2)
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)) != Counter(), 60)
        assert not one.exchange.stream.socket.live


async def test_one_fill_over_rest_that_does_not_fit_hides_no_other() -> None:
    async with desk() as one:
        one.venue.user_feed.silence(1e6)
        await take(one, 2)
        answer = await one.exchange._session.reads.request(
            "GET", "/portfolio/fills", headers=one.exchange._session._headers("GET", "/portfolio/fills")
        )
        page = msgspec.json.decode(answer.body)
        page["fills"].insert(0, {**page["fills"][0], "trade_id": "odd", "book_side": None})
        one.venue.faults.http_status("^GET .*/portfolio/fills", 200, msgspec.json.encode(page).decode(), times=None)
        await one.exchange.stream.back_fill()
        assert Counter(keys(one)) == Counter(truth(one)) != Counter()
        with pytest.raises(PmkitError):  # a query that is asked for everything says so
            await one.exchange.get_trade_history()


async def test_uw_02_repeated_fills_are_one() -> None:
    async with desk() as one:
        one.venue.faults.arm("duplicate_fill", 100)
        for _ in range(5):
            await take(one)
        await asyncio.sleep(0.2)
        await one.exchange.stream.back_fill()
        assert Counter(keys(one)) == Counter(truth(one)) and max(Counter(keys(one)).values()) == 1


async def test_uw_03_a_fill_before_the_answer_is_known_as_own() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.mishaps.delay = 0.5
        one.venue.faults.arm("delay_answer")
        task = asyncio.ensure_future(one.exchange.place_limit_order(one.market, "NO", Side.BUY, "0.99", 2))
        await eventually(lambda: bool(one.fills))
        assert not task.done()
        assert one.fills[0].own and one.fills[0].outcome == "NO" and one.fills[0].client_order_id in one.ledger
        order_id = await task
        assert {fill.order_id for fill in one.fills} == {order_id}
        assert sum(fill.size for fill in one.fills) == order_id.filled_amount == 2


async def test_uw_03_a_fill_that_names_no_client_id_is_not_called_foreign_while_answers_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client order id is optional in it; which order it is then follows from the answer, or from REST."""
    async with desk() as one:
        await one.exchange.keep_warm()
        tell = one.venue.user_feed._tell

        def nameless(account: Any, channel: str, kind: str, ticker: str | None, message: dict[str, Any]) -> None:
            if kind == "fill":
                message = {name: value for name, value in message.items() if name != "client_order_id"}
            tell(account, channel, kind, ticker, message)

        monkeypatch.setattr(one.venue.user_feed, "_tell", nameless)
        one.venue.mishaps.delay = 0.5
        one.venue.faults.arm("delay_answer")
        order_id = await one.exchange.place_limit_order(one.market, "NO", Side.BUY, "0.99", 2)
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)))
        assert all(fill.own and fill.outcome == "NO" and fill.client_order_id for fill in one.fills)
        assert {fill.order_id for fill in one.fills} == {str(order_id)}


async def test_uw_03_a_fill_over_rest_before_the_answer_is_known_as_own() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.user_feed.silence(2)
        one.venue.mishaps.delay = 1.0
        one.venue.faults.arm("delay_answer")
        task = asyncio.ensure_future(one.exchange.place_limit_order(one.market, "NO", Side.BUY, "0.99", 2))
        await eventually(lambda: bool(truth(one)))
        await one.exchange.stream.back_fill()
        assert not task.done() and one.fills and all(fill.own and fill.outcome == "NO" for fill in one.fills)
        await task
        assert Counter(keys(one)) == Counter(truth(one))


async def test_uw_05_partial_fills_sum_to_the_order() -> None:
    async with desk() as one:
        order_id = await take(one, 5000)
        await eventually(lambda: len(one.fills) == len(truth(one)))
        assert len(one.fills) > 1
        status = await one.exchange.get_order_status(order_id)
        assert sum(fill.size for fill in one.fills) == status.filled_amount <= status.size
        assert sum(fill.fee for fill in one.fills) == status.fee


async def test_uw_05_more_than_the_order_is_not_believed_and_read_over_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count in another unit."""
    async with desk() as one:
        tell = one.venue.user_feed._tell

        def in_hundredths(account: Any, channel: str, kind: str, ticker: str | None, message: dict[str, Any]) -> None:
            if kind == "fill":
                message = {**message, "count_fp": str(Decimal(message["count_fp"]) * 100)}
            tell(account, channel, kind, ticker, message)

        monkeypatch.setattr(one.venue.user_feed, "_tell", in_hundredths)
        order_id = await take(one, 5)
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)))
        assert sum(fill.size for fill in one.fills) == 5 == order_id.filled_amount
        assert one.exchange.stream.socket.stats.garbage


async def test_more_may_fill_of_an_order_that_was_amended() -> None:
    async with desk() as one:
        freeze(one)
        order_id = await rest(one, size=2)
        await one.exchange.amend_order(order_id, price="0.99", size=5)
        await eventually(lambda: bool(truth(one)) and Counter(keys(one)) == Counter(truth(one)))
        assert sum(fill.size for fill in one.fills) == 5


async def test_uw_06_without_acknowledgement_nothing_is_traded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmkit.exchanges.kalshi.portfolio.FIRST_SNAPSHOT", 0.5)
    async with desk(streams=False) as one:
        one.venue.faults.reject_handshake(401, 50)
        with pytest.raises(NotSent, match="user s"):
            await rest(one)
        with pytest.raises(PmkitError, match="check the key"):
            await one.exchange.subscribe_fills()
        assert one.ledger == {}


async def test_uw_06_accepted_and_ignored_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ws, "ACK_SECONDS", 0.3)
    monkeypatch.setattr("pmkit.exchanges.kalshi.portfolio.FIRST_SNAPSHOT", 0.6)

    async def ignore(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with desk(streams=False) as one, serve(ignore, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        where = KalshiEndpoints(rest=one.venues.endpoints.kalshi.rest, ws=f"ws://127.0.0.1:{port}/trade-api/ws/v2")
        endpoints = msgspec.structs.replace(one.venues.endpoints, kalshi=where)
        async with kalshi_exchange(one.venues, one.exchange.clock, endpoints=endpoints) as exchange:
            with pytest.raises(NotSent, match="not acknowledged"):
                await exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, 1)
            assert exchange.stream.socket.stats.disconnects  # given up, not waited for
        assert one.ledger == {}


async def test_uw_06_a_deaf_stream_is_noticed_by_an_accepted_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ws, "ACK_SECONDS", 0.4)
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.user_feed.silence(1.0)
        await rest(one)
        await eventually(lambda: one.exchange.stream.socket.deaf == 1)
        await eventually(lambda: one.exchange.stream.socket.stats.connects >= 2 and one.exchange.stream.socket.live, 8)
        assert one.orders


async def test_uw_06_silence_about_nothing_is_no_deafness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ws, "ACK_SECONDS", 0.3)
    async with desk() as one:
        await rest(one, "mine-1")
        async with desk_again(one) as other:
            await other.keep_warm()
            one.venue.user_feed.silence(1.0)
            again = await other.place_limit_order(one.market, "YES", Side.BUY, LOW, 10, client_order_id="mine-1")
            assert again.status is OrderState.LIVE  # found after a 409: it was there before
            ended = await other.place_limit_order(one.market, "YES", Side.BUY, LOW, 1, time_in_force=TimeInForce.IOC)
            assert ended.status is OrderState.CANCELED
            await asyncio.sleep(0.5)
            assert other.stream.socket.deaf == 0 and other.stream.socket.stats.connects == 1


async def test_uw_06_a_deaf_stream_is_noticed_by_a_look_over_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_stream, "ACK_SECONDS", 0.2)
    monkeypatch.setattr(user_stream, "LOOK_EVERY_SECONDS", 0.8)
    monkeypatch.setattr(user_stream, "PASSES", (0.0,))
    async with desk() as one:
        await one.exchange.keep_warm()
        await asyncio.sleep(0.3)
        one.venue.user_feed.silence(600.0)
        async with desk_again(one) as other:
            await other.place_limit_order(one.market, "YES", Side.BUY, "0.99", 1)
        await eventually(lambda: one.exchange.stream.socket.deaf == 1)
        assert Counter(keys(one)) == Counter(truth(one)) and not one.fills[0].own


async def test_uw_08_a_foreign_fill_is_told_and_marked() -> None:
    async with desk() as one:
        async with desk_again(one) as other:
            theirs = await other.place_limit_order(one.market, "NO", Side.BUY, "0.99", 1)
        mine = await take(one)
        await eventually(lambda: len(one.fills) == len(truth(one)))
        assert {fill.order_id: fill.own for fill in one.fills} == {theirs: False, mine: True}


async def test_fills_from_before_this_object_are_no_news() -> None:
    async with desk() as one:
        await take(one)
        await asyncio.sleep(1.2)
        async with desk_again(one) as other:
            told: list[Fill] = []
            await other.subscribe_fills(told.append)
            await asyncio.sleep(1.5)
            assert told == []
            assert len(await other.get_trade_history()) == len(truth(one))


def order_events() -> list[UserOrder]:
    """The life of one order as the socket tells it."""

    def event(status: str, filled: str, left: str, at: int, reason: str = "") -> UserOrder:
        return UserOrder(
            order_id="o-1",
            ticker="KXBTC15M-26NOV202000-00",
            book_side="bid",
            status=status,
            yes_price_dollars="0.5000",
            initial_count_fp="10.00",
            fill_count_fp=filled,
            remaining_count_fp=left,
            created_ts_ms=1_795_000_000_000,
            last_updated_ts_ms=1_795_000_000_000 + at,
            last_update_reason=reason,
        )

    return [
        event("resting", "0.00", "10.00", 0),
        event("resting", "3.00", "7.00", 1, "Trade"),
        event("resting", "5.00", "5.00", 2, "Trade"),
        event("canceled", "5.00", "0.00", 3),
    ]


def test_uw_09_every_order_of_events_ends_in_the_same_state() -> None:
    for events in itertools.permutations(order_events()):
        journal = Journal()
        told = [status for event in events if (status := journal.on_order(event)) is not None]
        final = journal.statuses["o-1"]
        assert (final.status, final.filled_amount) == (OrderState.CANCELED, Decimal(5)), events
        filled = [status.filled_amount for status in told]
        assert filled == sorted(filled)
        ended = [status.status.terminal for status in told]
        assert ended == sorted(ended)


async def test_a_gap_in_the_numbers_is_back_filled() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        socket = one.exchange.stream.socket
        sid = next(sid for sid, stream in socket._streams.items() if stream.channel == "fill")
        one.venue.user_feed.silence(0.5)
        await take(one)
        event = {"event_type": "reset", "order_group_id": "g"}
        for seq in (1, 5):
            frame = {"type": "order_group_updates", "sid": sid, "seq": seq, "msg": event}
            one.venue.faults.garbage(msgspec.json.encode(frame))
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)))
        assert socket.missed == 1


async def test_garbage_never_ends_the_stream_and_is_read_over_rest() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        socket = one.exchange.stream.socket
        frames: list[Any] = [
            "not json",
            b'{"type":"fill","sid":1,"msg":{"trade_id":5}}',
            {
                "type": "fill",
                "sid": 1,
                "msg": {
                    "trade_id": "t",
                    "order_id": "o",
                    "client_order_id": "c",
                    "market_ticker": "T",
                    "is_taker": True,
                    "book_side": "sideways",
                    "yes_price_dollars": "0.5",
                    "count_fp": "1.00",
                    "fee_cost": "0",
                },
            },
            {"type": "something_new", "sid": 1, "msg": {}},
        ]
        for frame in frames:
            one.venue.faults.garbage(frame if isinstance(frame, str | bytes) else msgspec.json.encode(frame))
        await take(one)
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)))
        assert socket.connected and socket.stats.garbage >= 3 and socket.stats.connects == 1


async def test_error_25_ends_the_subscription_and_it_comes_back() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        socket = one.exchange.stream.socket
        one.venue.faults.garbage(b'{"type":"error","sid":1,"msg":{"code":25,"msg":"overflow"}}')
        await eventually(lambda: socket.stats.connects == 2 and socket.live, 8)
        await take(one)
        await eventually(lambda: Counter(keys(one)) == Counter(truth(one)))


async def test_a_slow_reader_of_fills_gets_each_once_over_rest() -> None:
    async with desk(streams=False) as one:
        stream: Subscription[Fill] = await one.exchange.subscribe_fills()
        stream._limit = 3
        for _ in range(12):
            await take(one)
        await asyncio.sleep(0.1)
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(30):
            while len(seen) < len(truth(one)):
                fill = await anext(stream)
                assert fill.own
                seen.append((fill.fill_id, fill.order_id))
        assert Counter(seen) == Counter(truth(one)) and stream.stats.gaps == 1


def stale_positions(one: Desk, size: str, at: str) -> None:
    """REST is behind: it says this about the market, as of then."""
    row = {"ticker": one.market.ticker, "position_fp": size, "market_exposure_dollars": "1.5", "last_updated_ts": at}
    body = msgspec.json.encode({"market_positions": [row], "event_positions": [], "cursor": ""})
    one.venue.faults.clear()
    one.venue.faults.http_status("GET .*/portfolio/positions", 200, body, times=None)


async def held(one: Desk) -> list[tuple[str, Decimal]]:
    return [(position.outcome, position.size) for position in await one.exchange.get_positions()]


async def test_rs_20_positions_know_the_fill_that_rest_does_not() -> None:
    async with desk() as one:
        before = one.exchange.clock.now().isoformat()
        await take(one, 3)
        assert await held(one) == [("YES", Decimal(3))]
        await take(one, 2)
        await eventually(lambda: sum(fill.size for fill in one.fills) == 5)
        stale_positions(one, "3.00", before)
        assert await held(one) == [("YES", Decimal(5))]
        await take(one, 7, "NO")
        await eventually(lambda: sum(fill.size for fill in one.fills) == 12)
        assert await held(one) == [("NO", Decimal(2))]
        await take(one, 2)
        await eventually(lambda: sum(fill.size for fill in one.fills) == 14)
        assert await held(one) == []  # closed, whatever REST still says
        # Where REST is the newer one (a fill that the socket did not tell) it counts.
        after = (one.exchange.clock.now() + timedelta(seconds=5)).isoformat()
        stale_positions(one, "9.00", after)
        assert await held(one) == [("YES", Decimal(9))]


async def test_an_order_below_the_book_is_told_when_it_trades() -> None:
    async with desk() as one:
        order_id = await rest(one)
        assert (await one.exchange.get_order_status(order_id)).price == LOW
        await eventually(lambda: any(status.order_id == order_id for status in one.orders))
        assert sum(status.order_id == order_id for status in one.orders) == 1  # the answer and the socket say the same
