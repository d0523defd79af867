"""Order entry of Kalshi against the local venue: three outcomes, nothing sent twice (failure modes OE and RS)."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from pmkit.endpoints import KalshiEndpoints
from pmkit.errors import (
    CancelUnknown,
    InsufficientFunds,
    InvalidOrder,
    NotSent,
    OrderAuthError,
    OrderRateLimited,
    OrderRejected,
    OrderUnknown,
    PmkitError,
)
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.types import (
    Absent,
    Accepted,
    CancelResult,
    Intent,
    Order,
    OrderId,
    OrderState,
    Side,
    TimeInForce,
)
from pmkit.http import HttpAnswer
from tests.kalshi.trading import LOW, Desk, desk, eventually, watch
from tests.local import kalshi_exchange

pytestmark = pytest.mark.virtual_time

POST = "POST .*/portfolio/events/orders"


async def rest(one: Desk, client_order_id: str | None = None, size: int = 10) -> OrderId:
    """An order that rests."""
    return await one.exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, size, client_order_id=client_order_id)


async def unknown(one: Desk, mishap: str) -> Intent:
    one.venue.faults.arm(mishap)
    with pytest.raises(OrderUnknown) as caught:
        await rest(one)
    return caught.value.intent


@pytest.mark.parametrize("mishap", ["lose_answer", "error_after"])
async def test_oe_01_a_lost_answer_is_unknown_and_found(mishap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk() as one:
        intent = await unknown(one, mishap)
        assert one.exchange.unresolved == (intent,)
        answer = await one.exchange.resolve_order(intent)
        assert isinstance(answer, Accepted)
        assert answer.order_id == one.ledger[intent.client_order_id].order_id
        assert one.exchange.unresolved == ()
        assert wire.ids == {intent.client_order_id: 1}


@pytest.mark.parametrize("mishap", ["lose_request", "error_before"])
async def test_oe_03_a_reset_before_the_order_was_read_is_absent_in_the_end(
    mishap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = watch(monkeypatch)
    async with desk(resolve_seconds=0.6) as one:
        intent = await unknown(one, mishap)
        sent_at = one.exchange.journal.records[intent.client_order_id].sent_at
        assert await one.exchange.resolve_order(intent) == Absent(intent)
        assert one.exchange.clock.io_monotonic() - sent_at >= 0.6  # not on the first empty look
        assert wire.count("GET", "/portfolio/orders") >= 3
        assert one.exchange.unresolved == () and one.ledger == {}
        assert wire.ids == {intent.client_order_id: 1}


class Cutter:
    """A proxy before the venue that resets the connection after `cut` bytes of the answer to an order."""

    def __init__(self, port: int) -> None:
        self.cut: int | None = None
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        order = False

        async def up() -> None:
            nonlocal order
            while data := await reader.read(65536):
                order = data.startswith(b"POST ") or (order and b"HTTP/1.1" not in data[:2000])
                up_writer.write(data)
            up_writer.close()

        forward = asyncio.ensure_future(up())
        while data := await up_reader.read(65536):
            if order and self.cut is not None:
                writer.write(data[: self.cut])
                if self.cut < len(data):
                    await writer.drain()
                    writer.transport.abort()
                    break
            else:
                writer.write(data)
        forward.cancel()
        await asyncio.gather(forward, return_exceptions=True)
        up_writer.close()
        writer.close()


async def test_oe_03_rs_12_an_answer_cut_anywhere_is_unknown_and_found() -> None:
    async with desk(streams=False) as one:
        rest_url = one.venues.endpoints.kalshi.rest
        port = urlsplit(rest_url).port
        assert port is not None
        cutter = Cutter(port)
        server = await asyncio.start_server(cutter, "127.0.0.1", 0)
        mine = server.sockets[0].getsockname()[1]
        where = KalshiEndpoints(rest=rest_url.replace(str(port), str(mine)), ws=one.venues.endpoints.kalshi.ws)
        endpoints = msgspec.structs.replace(one.venues.endpoints, kalshi=where)
        async with kalshi_exchange(one.venues, one.exchange.clock, endpoints=endpoints) as exchange:
            await exchange.keep_warm()
            unknowns = 0
            for cutter.cut in range(0, 700, 20):
                client_id = f"cut-{cutter.cut}"
                try:
                    placed = await exchange.place_limit_order(
                        one.market, "YES", Side.BUY, LOW, 1, client_order_id=client_id
                    )
                except OrderUnknown as error:
                    unknowns += 1
                    answer = await exchange.resolve_order(error.intent)
                    assert isinstance(answer, Accepted)
                    placed = answer.order_id
                assert placed == one.ledger[client_id].order_id
            assert 5 < unknowns < 34  # short answers were cut, long cuts let them through
            assert exchange.unresolved == ()
        await asyncio.sleep(0.1)  # both ends hear of it
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("status", [500, 502, 504, 425, 408])
async def test_oe_04_a_5xx_is_no_refusal(status: int) -> None:
    async with desk(resolve_seconds=0.3) as one:
        one.venue.faults.http_status(POST, status, "<html>bad gateway</html>")
        with pytest.raises(OrderUnknown):
            await rest(one)
        assert len(one.exchange.unresolved) == 1


async def test_a_refusal_of_an_order_that_the_socket_has_told_of_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something in between answers with a body of the table while the exchange has the order."""
    async with desk() as one:
        await one.exchange.keep_warm()
        write = one.exchange._session.write

        async def refused(method: str, path: str, **options: Any) -> HttpAnswer:
            answer = await write(method, path, **options)
            if method == "POST":
                await eventually(lambda: all(record.seen for record in one.exchange.journal.records.values()))
                answer = msgspec.structs.replace(answer, status=429, body=b'{"error":"too many requests"}')
            return answer

        monkeypatch.setattr(one.exchange._session, "write", refused)
        with pytest.raises(OrderUnknown, match="too many requests") as caught:
            await rest(one)
        assert one.exchange.unresolved == (caught.value.intent,)
        found = await one.exchange.resolve_order(caught.value.intent)
        assert isinstance(found, Accepted) and found.order_id.status is OrderState.LIVE
        assert one.exchange.unresolved == ()


async def test_oe_02_a_stale_stamp_is_signed_anew_once_with_the_same_client_id(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.faults.arm("timestamp_expired")
        order_id = await rest(one)
        (client_id,) = wire.ids
        assert wire.ids[client_id] == 2
        assert one.ledger[client_id].order_id == order_id
        one.venue.faults.arm("timestamp_expired", 2)
        with pytest.raises(OrderRejected, match="clock"):
            await rest(one)
        assert len(one.ledger) == 1


async def test_oe_02_409_is_looked_up_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk() as one:
        first = await rest(one, "mine-1")
        async with desk_again(one) as other:
            again = await other.place_limit_order(one.market, "YES", Side.BUY, LOW, 10, client_order_id="mine-1")
            assert again == first and again.status is OrderState.LIVE
            with pytest.raises(OrderRejected) as caught:
                await other.place_limit_order(one.market, "YES", Side.BUY, LOW, 11, client_order_id="mine-1")
            assert caught.value.code == "duplicate"
        sent = wire.ids["mine-1"]
        with pytest.raises(OrderRejected) as caught:
            await rest(one, "mine-1")
        assert caught.value.code == "duplicate" and wire.ids["mine-1"] == sent  # known here: not even sent
        assert len(one.ledger) == 1


def desk_again(one: Desk) -> KalshiExchange:
    return kalshi_exchange(one.venues, one.exchange.clock)


async def test_oe_02_409_of_another_order_is_a_duplicate() -> None:
    async with desk() as one:
        await rest(one, "mine-1")
        async with desk_again(one) as other:
            with pytest.raises(OrderRejected) as caught:
                await other.place_limit_order(one.market, "NO", Side.BUY, LOW, 10, client_order_id="mine-1")
            assert caught.value.code == "duplicate"
            assert other.unresolved == ()


async def test_oe_07_a_cancelled_caller_leaves_an_intent_that_resolves() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.mishaps.delay = 0.3
        one.venue.faults.arm("delay_answer")
        task = asyncio.ensure_future(rest(one))
        await eventually(lambda: len(one.ledger) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (intent,) = one.exchange.unresolved
        answer = await one.exchange.resolve_order(intent)
        assert isinstance(answer, Accepted) and answer.order_id == one.ledger[intent.client_order_id].order_id
        assert one.exchange.unresolved == ()


async def test_oe_07_cancelled_at_every_step_nothing_is_forgotten() -> None:
    async with desk(resolve_seconds=0.3) as one:
        await one.exchange.keep_warm()
        returned: list[str] = []
        for steps in range(40):
            task = asyncio.ensure_future(rest(one))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                returned.append(await task)
        resolved = [await one.exchange.resolve_order(intent) for intent in one.exchange.unresolved]
        known = {answer.order_id for answer in resolved if isinstance(answer, Accepted)} | set(returned)
        assert known == {order.order_id for order in one.ledger.values()}
        assert one.exchange.unresolved == ()


async def test_oe_08_an_order_hidden_from_rest_is_not_absent() -> None:
    async with desk(resolve_seconds=1.5) as one:
        one.venue.portfolio.lag_ms = 700
        one.venue.user_feed.silence(60)  # else the user stream tells
        intent = await unknown(one, "lose_answer")
        assert isinstance(await one.exchange.resolve_order(intent), Accepted)


async def test_oe_08_a_failed_lookup_is_unknown_again() -> None:
    async with desk() as one:
        one.venue.user_feed.silence(60)
        one.venue.faults.http_status("GET .*/portfolio/orders", 503, "", times=None)
        intent = await unknown(one, "lose_answer")
        with pytest.raises(OrderUnknown, match="looking it up failed"):
            await one.exchange.resolve_order(intent)
        assert one.exchange.unresolved == (intent,)
        one.venue.faults.clear()
        assert isinstance(await one.exchange.resolve_order(intent), Accepted)


async def test_oe_20_a_late_order_is_recognised_as_own() -> None:
    async with desk(resolve_seconds=0.2) as one:
        one.venue.user_feed.silence(60)
        one.venue.portfolio.lag_ms = 60_000
        intent = await unknown(one, "lose_answer")
        assert await one.exchange.resolve_order(intent) == Absent(intent)
        one.venue.portfolio.lag_ms = 0
        await one.exchange.stream.back_fill()
        assert one.exchange.unresolved == (intent,)
        assert one.orders[-1].client_order_id == intent.client_order_id
        assert isinstance(await one.exchange.resolve_order(intent), Accepted)


async def test_oe_11_nothing_leaves_for_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk(streams=False) as one:
        begun = len(wire.lines)
        for price, size in [("0.0005", 1), ("0", 1), ("1", 1), ("0.5", 0), ("0.5", -1), ("0.5", "NaN"), ("0.505", 1)]:
            with pytest.raises(InvalidOrder):
                await one.exchange.place_limit_order(one.market, "YES", Side.BUY, price, size)
        with pytest.raises(InvalidOrder):
            await one.exchange.place_limit_order(one.market, "UP", Side.BUY, "0.5", 1)
        with pytest.raises(InvalidOrder, match="float"):
            await one.exchange.place_limit_order(one.market, "YES", Side.BUY, 0.5, 1)  # type: ignore[arg-type]
        for order_id in ("", "batched", "../x"):
            with pytest.raises(InvalidOrder):
                await one.exchange.cancel_order(order_id)
        assert len(wire.lines) == begun


async def test_oe_13_money_on_the_wrong_shard_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as one:
        poor = one.venue.accounts.open({0: 500})
        signer = Signer.from_key(poor.key.id, poor.key.pem)
        async with kalshi_exchange(one.venues, one.exchange.clock, signer=signer) as exchange:
            assert await exchange.get_balance() == 500
            assert await exchange.get_balance(one.market) == 0
            with pytest.raises(InsufficientFunds, match="shard"):
                await exchange.place_limit_order(one.market, "YES", Side.BUY, "0.5", 10)
            assert exchange.unresolved == ()


async def test_oe_15_a_paused_market_refuses_and_cancels_go_on() -> None:
    async with desk() as one:
        order_id = await rest(one)
        one.venue.pause()
        with pytest.raises(OrderRejected) as caught:
            await rest(one)
        assert caught.value.code in ("venue_unavailable", "market_closed")
        assert await one.exchange.cancel_order(order_id) is CancelResult.CANCELED


async def test_oe_15_a_closed_market_is_refused_here_and_its_orders_are_done() -> None:
    async with desk(factor=60.0) as one:
        order_id = await rest(one)
        await eventually(lambda: one.exchange.venue_clock.now_ms() > one.market.close_ms + 2000, 25)
        with pytest.raises(InvalidOrder, match="closed"):
            await rest(one)
        assert await one.exchange.cancel_order(order_id) is CancelResult.ALREADY_DONE
        await eventually(lambda: one.orders[-1].status.terminal)
        assert one.orders[-1].order_id == order_id


async def test_oe_16_a_retired_path_is_a_definite_refusal() -> None:
    async with desk() as one:
        body = '{"error":{"code":"deprecated_v1_order_endpoint","message":"gone"}}'
        one.venue.faults.http_status(POST, 410, body)
        with pytest.raises(OrderRejected) as caught:
            await rest(one)
        assert caught.value.code == "protocol_changed"


async def test_oe_17_ioc_and_fok_that_fill_nothing_are_cancelled_orders() -> None:
    async with desk() as one:
        for tif in (TimeInForce.IOC, TimeInForce.FOK):
            order_id = await one.exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, 1, time_in_force=tif)
            assert order_id.status is OrderState.CANCELED and order_id.filled_amount == 0


async def test_post_only_that_would_cross_is_rejected_in_both_spellings() -> None:
    async with desk() as one:
        for cancelled in (False, True):
            one.venue.exchange.crosses_are_cancelled = cancelled
            with pytest.raises(OrderRejected) as caught:
                await one.exchange.place_limit_order(one.market, "YES", Side.BUY, "0.99", 1, post_only=True)
            assert caught.value.code == "post_only_cross"


async def test_gtd_is_gone_at_its_time_and_says_so() -> None:
    async with desk() as one:
        expires = one.exchange.clock.now() + timedelta(seconds=2)
        order_id = await one.exchange.place_limit_order(
            one.market, "YES", Side.BUY, LOW, 1, time_in_force=TimeInForce.GTD, expires_at=expires
        )
        assert order_id.status is OrderState.LIVE
        await eventually(lambda: one.orders[-1].status is OrderState.EXPIRED)
        assert (await one.exchange.get_order_status(order_id)).status is OrderState.EXPIRED


async def test_oe_05_a_cancel_of_a_filled_order_is_already_done() -> None:
    async with desk() as one:
        order_id = await one.exchange.place_limit_order(one.market, "YES", Side.BUY, "0.99", 1)
        assert order_id.status is OrderState.FILLED
        assert await one.exchange.cancel_order(order_id) is CancelResult.ALREADY_DONE
        found = await one.exchange.cancel_orders([order_id, await rest(one)])
        assert list(found.values()) == [CancelResult.ALREADY_DONE, CancelResult.CANCELED]


@pytest.mark.parametrize("mishap", ["lose_answer", "lose_request"])
async def test_oe_06_a_cancel_without_answer_is_unknown_and_may_be_repeated(mishap: str) -> None:
    async with desk() as one:
        order_id = await rest(one)
        one.venue.faults.arm(mishap)
        with pytest.raises(CancelUnknown):
            await one.exchange.cancel_order(order_id)
        again = await one.exchange.cancel_order(order_id)
        assert again is (CancelResult.ALREADY_DONE if mishap == "lose_answer" else CancelResult.CANCELED)
        assert (await one.exchange.get_order_status(order_id)).status is OrderState.CANCELED


async def test_a_cancel_finds_the_shard_of_an_order_of_another_process() -> None:
    async with desk() as one:
        order_id = await rest(one)
        async with desk_again(one) as other:
            assert await other.cancel_order(str(order_id)) is CancelResult.CANCELED


async def test_oe_21_a_batch_has_a_result_per_leg(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk() as one:

        def leg(price: str, size: int = 1, client: str | None = None, market_id: str = "") -> Order:
            return Order(
                market_id=market_id or one.market.market_id,
                outcome="YES",
                side=Side.BUY,
                price=Decimal(price),
                size=Decimal(size),
                client_order_id=client,
            )

        results = await one.exchange.place_orders(
            [leg("0.01"), leg("0.505"), leg("0.5", 1_000_000), leg("0.02"), leg("0.02", market_id="KXBTC15M-NONE")]
        )
        kinds = [type(result) for result in results]
        assert kinds == [OrderId, InvalidOrder, InsufficientFunds, OrderId, InvalidOrder]
        assert wire.count("POST", "/batched") == 1
        one.venue.faults.arm("lose_answer")
        lost = await one.exchange.place_orders([leg("0.01", 2), leg("0.01", 3)])
        assert all(isinstance(result, OrderUnknown) for result in lost)
        assert len(one.exchange.unresolved) == 2
        found = [await one.exchange.resolve_order(intent) for intent in one.exchange.unresolved]
        assert all(isinstance(answer, Accepted) for answer in found)
        one.venue.faults.http_status("POST .*/batched", 429, '{"error":"too many requests"}')
        refused = await one.exchange.place_orders([leg("0.01", 4), leg("0.01", 5)])
        assert all(isinstance(result, OrderRateLimited) for result in refused)
        assert max(wire.ids.values()) == 1


async def test_replace_keeps_the_queue_where_it_only_shrinks() -> None:
    async with desk() as one:
        a, b, c = await rest(one), await rest(one), await rest(one)
        await one.exchange.cancel_order(c)

        def leg(price: Decimal, size: int, client: str) -> Order:
            return Order(
                market_id=one.market.market_id,
                outcome="YES",
                side=Side.BUY,
                price=price,
                size=Decimal(size),
                client_order_id=client,
            )

        results = await one.exchange.replace_orders(
            [a, b, c], [leg(LOW, 4, "x-a"), leg(Decimal("0.02"), 4, "x-b"), leg(LOW, 4, "x-c")]
        )
        assert results[0] == a and results[1] != b and isinstance(results[2], InvalidOrder)
        assert {one.ledger["x-a"].order_id, one.ledger["x-b"].order_id} == {results[0], results[1]}
        assert {order.order_id for order in await one.exchange.get_open_orders()} == {results[0], results[1]}
        one.venue.faults.arm("lose_answer")
        stuck = await one.exchange.replace_orders([results[1]], [leg(Decimal("0.03"), 9, "x-d")])
        assert isinstance(stuck[0], CancelUnknown) and "x-d" not in one.ledger


async def test_amend_and_decrease_change_the_order_and_say_when_they_do_not_know() -> None:
    async with desk() as one:
        order_id = await rest(one)
        assert await one.exchange.decrease_order(order_id, by=2) == 8
        await eventually(lambda: one.orders[-1].remaining == 8)
        changed = await one.exchange.amend_order(order_id, price="0.02", size=6)
        assert changed.order_id == order_id and changed.remaining == 6
        await eventually(lambda: (one.orders[-1].price, one.orders[-1].remaining) == (Decimal("0.02"), 6))
        one.venue.faults.arm("lose_answer")
        with pytest.raises(OrderUnknown) as caught:
            await one.exchange.amend_order(order_id, price="0.03", size=5)
        answer = await one.exchange.resolve_order(caught.value.intent)
        assert isinstance(answer, Accepted) and answer.order_id == order_id
        assert (await one.exchange.get_order_status(order_id)).price == Decimal("0.03")


async def test_rs_01_a_429_is_a_refusal_with_the_venues_body_only() -> None:
    async with desk() as one:
        one.venue.faults.http_status(POST, 429, '{"error":"too many requests"}')
        with pytest.raises(OrderRateLimited):
            await rest(one)
        with pytest.raises(NotSent):
            await rest(one)  # the gate is closed: an order does not wait
        await asyncio.sleep(1.1)
        one.venue.faults.http_status(POST, 429, "<html>slow down</html>")
        with pytest.raises(OrderUnknown):
            await rest(one)
        assert one.ledger == {}


async def test_rs_01_the_local_budget_keeps_a_reserve_for_cancels() -> None:
    async with desk(streams=False) as one:
        one.venue.writes.capacity, one.venue.writes.refill = 100.0, 0.001
        await one.exchange.keep_warm()
        assert one.exchange.budget().orders == 8
        placed = [await rest(one, size=1) for _ in range(8)]
        with pytest.raises(NotSent, match="budget"):
            await rest(one)
        assert one.exchange.budget().orders == 0
        for order_id in placed:
            assert await one.exchange.cancel_order(order_id)


async def test_rs_05_a_clock_that_is_off_is_corrected_and_named() -> None:
    async with desk() as one:
        one.exchange.venue_clock.offset_ms = 60_000
        one.exchange.venue_clock._bounds = [(60_000, 60_000)]
        assert (await rest(one)).status is OrderState.LIVE
        assert abs(one.exchange.venue_clock.offset_ms) < 2000


async def test_rs_07_forbidden_is_said_in_words_to_act_on() -> None:
    async with desk() as one:
        body = '{"error":{"code":"forbidden","message":"missing scope"}}'
        one.venue.faults.http_status(POST, 403, body)
        with pytest.raises(OrderAuthError, match="scope"):
            await rest(one)


async def test_a_wrong_key_places_nothing_and_says_why() -> None:
    async with desk() as one:
        stranger = one.venue.keys.make("ed25519")
        wrong = Signer.from_key(one.venues.kalshi_key.id, stranger.pem)
        async with kalshi_exchange(one.venues, one.exchange.clock, signer=wrong) as exchange:
            with pytest.raises(NotSent, match="not the one of this key id"):
                await exchange.place_limit_order(one.market, "YES", Side.BUY, LOW, 1)
            with pytest.raises(PmkitError, match="not the one of this key id"):
                await exchange.subscribe_fills()
        assert one.ledger == {}


async def test_the_order_path_asks_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        await asyncio.sleep(1.5)
        wire = watch(monkeypatch)
        for _ in range(5):
            await rest(one)
        assert [line for line in wire.lines if line[0] != "GET"] == wire.lines
        assert len(wire.lines) == 5


async def test_after_close_nothing_is_sent_and_what_is_under_way_is_unknown() -> None:
    async with desk() as one:
        await one.exchange.keep_warm()
        one.venue.mishaps.delay = 3.0
        one.venue.faults.arm("delay_answer")
        task = asyncio.ensure_future(rest(one))
        await eventually(lambda: len(one.ledger) == 1)
        begun = one.exchange.clock.io_monotonic()
        await one.exchange.close()
        assert one.exchange.clock.io_monotonic() - begun < 1
        with pytest.raises(OrderUnknown):
            await task
        assert len(one.exchange.unresolved) == 1
        with pytest.raises(NotSent):
            await rest(one)


async def test_no_secret_in_any_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with desk() as one:
        for mishap in ("lose_answer", "error_before", "timestamp_expired"):
            one.venue.faults.arm(mishap)
            (result,) = await asyncio.gather(rest(one), return_exceptions=True)
            assert one.venues.kalshi_key.id not in str(result)
        body = re.sub(r"\s", "", one.venues.kalshi_key.pem.split("-----")[2])
        assert body[:20] not in caplog.text and "KALSHI-ACCESS-SIGNATURE" not in caplog.text
