"""BaseWebSocket: connections that end, in every way, and how the next one comes up."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from websockets.frames import Close, Frame, Opcode

from pmkit.clock import Entropy, ManualClock, SystemClock
from pmkit.errors import NotSent, VenueUnavailable
from pmkit.websocket import deadlines
from pmkit.websocket.backoff import Backoff
from tests.websocket_peers import (
    Feed,
    Peer,
    SkippingClock,
    answering,
    fast_clock,
    proxy,
    read_request,
    running,
    status_answer,
    tcp_server,
    until,
    venue,
)

STEPS = [1, 2, 4, 8, 16, 30, 30]


def assert_steps(waits: list[float], steps: list[float]) -> None:
    assert len(waits) >= len(steps)
    for wait, step in zip(waits, steps, strict=False):
        assert step * 0.8 <= wait <= min(30.0, step * 1.2), waits


# Silence.


async def test_md_01_silent_stall_with_pongs_still_answered() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock, deadline=5.0, ping_text="PING", pong_text="PONG", ping_every=1.0)
        async with running(feed, "a"):
            await there.last.send(1)
            await until(lambda: feed.got == [1])
            for second in range(4):
                await clock.advance(1.0)
                await until(lambda due=second + 1: there.peers[0].texts.count("PING") >= due)
            pings = there.peers[0].texts.count("PING")
            await until(lambda: feed.stats.frames == 1 + pings)  # all PONGs are in, and none of them is data
            assert feed.connected
            await clock.advance(1.1)
            assert feed.events[-1].startswith("disconnect: no data for 5 s")
            assert not feed.connected
            assert feed.stats.silences == 1
            await clock.advance(1.2)  # the first step of the backoff
            await until(lambda: feed.connected)
            assert feed.generation == 2
            assert there.peers[1].subscribed == ["a"]


async def test_md_01_deadline_restarts_when_silence_is_confirmed() -> None:
    clock = ManualClock()

    class Confirming(Feed):
        outcome: bool | Exception | None = True

        async def _confirm_silence(self) -> bool:
            if self.outcome is None:
                await asyncio.get_running_loop().create_future()
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return bool(self.outcome)

    async with venue() as there:
        feed = Confirming(there.url, clock, deadline=5.0)
        async with running(feed, "a"):
            for silences in (1, 2, 3):
                await clock.advance(5.0)
                assert feed.stats.silences == silences
                assert feed.connected
            feed.outcome = RuntimeError("the REST read failed")
            await clock.advance(5.0)
            assert not feed.connected
            assert feed.stats.callback_errors == 1
            await clock.advance(1.2)
            await until(lambda: feed.connected)
            feed.outcome = None  # a REST read that never ends
            await clock.advance(5.0)
            assert feed.connected
            await clock.advance(5.0)
            assert not feed.connected


async def test_md_01_data_that_came_during_the_check_saves_the_connection() -> None:
    clock = ManualClock()
    checked: list[bool] = []

    class Late(Feed):
        async def _confirm_silence(self) -> bool:
            await there.last.send("late")
            await until(lambda: self.got)
            asyncio.get_running_loop().call_soon(checked.append, True)
            return False

    async with venue() as there:
        feed = Late(there.url, clock, deadline=5.0)
        async with running(feed, "a"):
            await clock.advance(5.0)
            await until(lambda: checked)
            await clock.settle()
            assert feed.got == ["late"]
            assert feed.connected


async def test_md_01_no_deadline_while_nothing_is_wanted() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock, deadline=5.0)
        async with running(feed):
            await clock.advance(60.0)
            assert feed.connected
            assert feed.stats.silences == 0
            await feed.want(["a"])
            await clock.advance(4.0)
            assert feed.connected  # counted from the subscription
            await clock.advance(6.0)
            assert feed.stats.silences == 1


def test_md_01_deadline_is_scaled_but_never_below_a_second() -> None:
    assert fast_clock(45.0).deadline(deadlines.BINANCE_KLINE_1S) == 1.0
    assert fast_clock(10.0).deadline(deadlines.KALSHI_BOOK) == 3.0
    assert SystemClock().deadline(deadlines.POLYMARKET_MARKET) == 10.0


async def test_md_02_half_open_connection_is_found_by_protocol_pings() -> None:
    async with venue() as there, proxy(there.url) as (between, url):
        feed = Feed(url, fast_clock(), ping_interval=0.2, ping_timeout=0.2)
        async with running(feed, "a"):
            await there.last.send(1)
            await until(lambda: feed.got == [1])
            between.frozen = True
            await asyncio.sleep(0.01)
            begin = asyncio.get_running_loop().time()
            await until(lambda: feed.events[-1].startswith("disconnect"))
            assert asyncio.get_running_loop().time() - begin < 0.2 + 0.2 + 1.0
            between.frozen = False
            await until(lambda: feed.connected)
            assert feed.generation >= 2


async def test_md_02_missing_text_pongs_end_the_connection() -> None:
    clock = ManualClock()
    async with venue() as there:
        there.answer_pings = False
        options = {"ping_text": "PING", "pong_text": "PONG", "ping_every": 10.0, "pong_timeout": 30.0}
        feed = Feed(there.url, clock, **options)
        async with running(feed, "a"):
            await clock.advance(29.0)
            assert feed.connected
            await clock.advance(1.5)
            assert feed.events[-1] == "disconnect: no PONG for 30 s"
            await until(lambda: there.peers[0].texts.count("PING") == 2)  # at 10 and 20 s, none at the start


# Goodbyes of the venue.


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 3003, 4000, None])
async def test_md_03_every_close_code_leads_to_a_reconnect(code: int | None, caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.send(1)
            if code is None:
                peer.cut()
            else:
                await peer.connection.close(code, "bye\x1b[2J\r\nnow")

    clock = SkippingClock()
    with caplog.at_level(logging.INFO, "pmkit"):
        async with venue(script) as there:
            feed = Feed(there.url, clock)
            async with running(feed, "a", connected=False):
                await until(lambda: feed.generation == 2 and feed.connected)
                assert feed.got == [1]
                refused = code in (1008, 3000, 3003)
                if refused:
                    assert 24 <= clock.sleeps[0] <= 30
                    assert str(code) in feed.stats.blocked
                    assert feed.events[2].startswith("blocked: closed by the venue")
                else:
                    assert_steps(clock.sleeps, [1])
                    assert feed.stats.blocked == ""
                if code is not None:
                    assert str(code) in feed.stats.last_reason
                assert len(feed.gaps) == 1
                await there.last.send(2)
                await until(lambda: feed.got == [1, 2])
                assert feed.stats.blocked == ""
    lost = [record for record in caplog.records if "lost the connection" in record.message]
    assert [record.levelno for record in lost] == [logging.ERROR if refused else logging.WARNING]
    assert not any(char in lost[0].message for char in "\x1b\r\n")


async def test_md_03_close_frame_without_the_end_of_tcp() -> None:
    """The venue says goodbye and keeps the line open: not waited for."""
    accepted = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await shake_hands(reader, writer)
        writer.write(Frame(Opcode.TEXT, b'{"data": 1}').serialize(mask=False))
        writer.write(Frame(Opcode.CLOSE, Close(1012, "restart").serialize()).serialize(mask=False))
        await asyncio.sleep(30)

    async with tcp_server(handle) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", fast_clock())
        begin = asyncio.get_running_loop().time()
        async with running(feed, "a", connected=False):
            await until(lambda: accepted == 2)
            assert asyncio.get_running_loop().time() - begin < 1.0
            assert feed.got[0] == 1  # what came before the goodbye was read
            assert "1012" in feed.stats.last_reason


async def test_md_03_broken_protocol_leads_to_a_reconnect() -> None:
    accepted = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await shake_hands(reader, writer)
        writer.write(b"\xff\xff\xff this is no frame")
        await asyncio.sleep(30)

    async with tcp_server(handle) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", fast_clock())
        async with running(feed, "a", connected=False):
            await until(lambda: accepted >= 2)
            assert "1002" in feed.stats.last_reason


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The venue's side of a handshake, by hand."""
    import base64
    import hashlib

    request = await read_request(reader)
    key = next(line.split(": ")[1] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )


async def test_md_04_reconnect_storm_backs_off() -> None:
    """Accepted, given a frame, dropped at once, twenty times: the successful handshakes must not reset the backoff."""

    async def script(peer: Peer) -> None:
        await peer.send(peer.number)
        await peer.connection.close(1011)

    clock = SkippingClock()
    clock.stop_after = 20
    async with venue(script) as there:
        feed = Feed(there.url, clock)
        async with running(feed, "a", connected=False):
            await until(lambda: len(clock.sleeps) == 20)
            assert_steps(clock.sleeps, [*STEPS, *[30] * 13])
            passed, attempts = 0.0, 1
            for wait in clock.sleeps:
                passed += wait
                attempts += passed <= 300
            assert attempts <= 15
            assert feed.stats.data_frames >= 1


async def test_md_04_backoff_starts_over_after_a_connection_that_delivered_and_lasted() -> None:
    clock = SkippingClock()
    async with venue() as there:
        feed = Feed(there.url, clock, min_uptime=30.0, deadline=1e6)
        async with running(feed, "a"):
            for drops in range(1, 5):
                await there.last.send(drops)
                await until(lambda n=drops: feed.stats.data_frames == n)
                feed.drop("too young")
                await until(lambda n=drops: feed.connected and len(there.peers) == n + 1)
            assert_steps(clock.sleeps, [1, 2, 4, 8])
            clock.skipped += 60.0
            feed.drop("old, but it never delivered")
            await until(lambda: feed.connected and len(there.peers) == 6)
            assert_steps(clock.sleeps[4:], [16])
            await there.last.send("data")
            await until(lambda: feed.got[-1] == "data")
            clock.skipped += 60.0
            feed.drop("old, and it delivered")
            await until(lambda: feed.connected and len(there.peers) == 7)
            assert_steps(clock.sleeps[5:], [1])


async def test_md_04_backoff_of_a_feed_that_is_silent_by_nature(caplog: pytest.LogCaptureFixture) -> None:
    """Fills may not come for days: a connection that lasted is enough, or each loss would wait longer than the last."""
    clock = SkippingClock()
    async with venue() as there:
        feed = Feed(there.url, clock, min_uptime=30.0, deadline=None)
        async with running(feed, "a"):
            for losses in range(1, 5):
                clock.skipped += 86_400.0
                feed.drop("once a day")
                await until(lambda n=losses: feed.connected and len(there.peers) == n + 1)
            assert_steps(clock.sleeps, [1, 1, 1, 1])
            feed.drop("at once")
            await until(lambda: feed.connected and len(there.peers) == 6)
            assert_steps(clock.sleeps[4:], [2])
    assert len([record for record in caplog.records if "once a day" in record.message]) == 4


def test_backoff_bounds_and_seed() -> None:
    for seed in range(50):
        backoff = Backoff(Entropy(seed))
        assert_steps([backoff.next() for _ in range(10)], [*STEPS, 30, 30, 30])
        backoff.reset()
        assert_steps([backoff.next()], [1])
        backoff.to_cap()
        assert 24 <= backoff.next() <= 30
    assert len({Backoff(Entropy(seed)).next() for seed in range(50)}) > 40
    assert [Backoff(Entropy(1)).next() for _ in range(3)] == [Backoff(Entropy(1)).next()] * 3


# Handshakes that fail.


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 426, 451, 500, 502, 503, 504, 520])
async def test_md_28_handshake_answered_with_an_http_error(status: int, caplog: pytest.LogCaptureFixture) -> None:
    clock = SkippingClock()
    clock.stop_after = 3
    answer = status_answer(status, b'{"code":"no","msg":"go \x1b[31maway"}')
    with caplog.at_level(logging.WARNING, "pmkit"):
        async with tcp_server(answering(answer)) as port:
            feed = Feed(f"ws://127.0.0.1:{port}/ws?token=canary-in-query", clock)
            async with running(feed, "a", connected=False):
                await until(lambda: len(clock.sleeps) == 3)
                assert feed.stats.attempts == 3
                assert str(status) in feed.stats.last_reason
                assert "\x1b" not in feed.stats.last_reason
                if status in (401, 403, 451):
                    assert all(24 <= wait <= 30 for wait in clock.sleeps)
                    assert str(status) in feed.stats.blocked
                    assert sum(event.startswith("blocked") for event in feed.events) == 1
                    assert [record.levelno for record in caplog.records] == [logging.ERROR]
                else:
                    assert_steps(clock.sleeps, [1, 2, 4])
                    assert feed.stats.blocked == ""
                    assert [record.levelno for record in caplog.records] == [logging.WARNING]
                assert "canary-in-query" not in caplog.text


@pytest.mark.parametrize(
    ("retry_after", "at_least"), [("7", 7.0), ("120", 120.0), ("soon", 0.8), ("-5", 0.8), ("0", 0.8)]
)
async def test_md_28_429_honours_retry_after(retry_after: str, at_least: float) -> None:
    clock = SkippingClock()
    clock.stop_after = 1
    async with tcp_server(answering(status_answer(429, b"", f"Retry-After: {retry_after}"))) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", clock)
        async with running(feed, "a", connected=False):
            await until(lambda: clock.sleeps)
            assert at_least <= clock.sleeps[0] <= max(at_least, 1.2)


async def test_md_28_blocked_is_taken_back_by_a_handshake_that_works() -> None:
    clock = SkippingClock()
    refuse = True

    async with venue() as there:
        feed = Feed(there.url, clock)
        connect = feed._connect

        async def refusing(url: str, headers: object) -> object:
            return await connect(f"ws://127.0.0.1:{port}" if refuse else url, {})

        feed._connect = refusing  # type: ignore[method-assign,assignment]
        async with tcp_server(answering(status_answer(401))) as port, running(feed, "a", connected=False):
            await until(lambda: feed.stats.blocked)
            with pytest.raises(VenueUnavailable, match="401"):
                await feed.wait_connected(0.01)
            refuse = False
            await feed.wait_connected(5)
            assert feed.stats.blocked == ""


@pytest.mark.parametrize(
    "answer", [b"", b"\x00\x01\x02", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
async def test_md_28_garbage_for_a_handshake(answer: bytes) -> None:
    clock = SkippingClock()
    clock.stop_after = 3
    async with tcp_server(answering(answer)) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", clock)
        async with running(feed, "a", connected=False):
            await until(lambda: len(clock.sleeps) == 3)
            assert_steps(clock.sleeps, [1, 2, 4])
            assert feed.stats.last_reason
            assert feed.stats.callback_errors == 0


async def test_md_28_refused_connection_and_no_handshake_in_time() -> None:
    async with tcp_server(answering(b"")) as port:
        pass
    clock = SkippingClock()
    clock.stop_after = 2
    feed = Feed(f"ws://127.0.0.1:{port}", clock)
    async with running(feed, "a", connected=False):
        await until(lambda: len(clock.sleeps) == 2)
        assert "no connection" in feed.stats.last_reason

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    clock = SkippingClock()
    clock.stop_after = 1
    async with tcp_server(mute) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", clock, open_timeout=0.1)
        async with running(feed, "a", connected=False):
            await until(lambda: clock.sleeps)
            assert feed.stats.last_reason == "no handshake in time"


async def test_rs_15_a_redirect_is_not_followed_and_carries_no_credential_along() -> None:
    elsewhere: list[str] = []
    first: list[str] = []
    clock = SkippingClock()
    clock.stop_after = 1
    async with tcp_server(answering(status_answer(200), seen=elsewhere)) as other:
        moved = status_answer(307, b"", f"Location: ws://127.0.0.1:{other}/")
        async with tcp_server(answering(moved, seen=first)) as port:
            feed = Feed(f"ws://127.0.0.1:{port}", clock)
            feed.headers = {"KALSHI-ACCESS-SIGNATURE": "canary-signature"}
            async with running(feed, "a", connected=False):
                await until(lambda: clock.sleeps)
                assert "canary-signature" in first[0]
                assert elsewhere == []
                assert "redirects are not followed" in feed.stats.blocked


async def test_several_addresses_are_tried_in_turn() -> None:
    clock = SkippingClock()
    async with tcp_server(answering(status_answer(503))) as bad, venue() as there:
        urls = [f"ws://127.0.0.1:{bad}", f"ws://127.0.0.1:{bad}/2", there.url]
        feed = Feed(urls, clock)
        async with running(feed, "a"):
            assert feed.stats.attempts == 3
            assert_steps(clock.sleeps, [1, 2])
            await there.last.send(1)
            await until(lambda: feed.got)
            feed.drop("on an address that works")
            await until(lambda: feed.connected)
            assert feed.stats.attempts == 4  # and it is asked again first


async def test_an_address_may_be_made_anew_for_every_attempt() -> None:
    async with venue() as there:
        made: list[str] = []

        def url() -> str:
            made.append(f"{there.url}/?n={len(made)}")
            return made[-1]

        feed = Feed(url, fast_clock())
        async with running(feed, "a"):
            feed.drop("again")
            await until(lambda: feed.generation == 2)
            paths = [peer.connection.request.path for peer in there.peers if peer.connection.request]
            assert len(set(paths)) == 2


# Keys and secrets on the way.


async def test_headers_are_signed_anew_and_never_over_plain_text_to_another_host() -> None:
    seen: list[str] = []
    clock = SkippingClock()
    clock.stop_after = 2
    async with tcp_server(answering(status_answer(503), seen=seen)) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", clock)
        stamps = iter(range(100))

        feed._handshake_headers = lambda: {"stamp": f"stamp-{next(stamps)}"}  # type: ignore[method-assign]
        async with running(feed, "a", connected=False):
            await until(lambda: len(clock.sleeps) == 2)
        assert "stamp-0" in seen[0]
        assert "stamp-1" in seen[1]

    clock = SkippingClock()
    clock.stop_after = 1
    feed = Feed("ws://venue.invalid/ws", clock)
    feed.headers = {"signature": "canary"}
    async with running(feed, "a", connected=False):
        await until(lambda: clock.sleeps)
        assert "credentials are not sent" in feed.stats.blocked


async def test_sx_03_no_credential_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, for every logger: a handshake that works, one whose answer echoes the request, and sent frames."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        writer.write(status_answer(401, request.encode()))
        await writer.drain()
        writer.close()

    with caplog.at_level(logging.DEBUG):
        async with venue() as there, tcp_server(echo) as port:
            for url in (f"{there.url}/?key=canary-query", f"ws://127.0.0.1:{port}/?key=canary-query"):
                clock = SkippingClock()
                clock.stop_after = 1
                feed = Feed(url, clock)
                feed.headers = {"signature": "canary-header"}
                async with running(feed, "canary-key", connected=False):
                    await until(lambda feed=feed, clock=clock: feed.connected or clock.sleeps)
                    if feed.connected:
                        await feed.send('{"secret": "canary-frame"}')
                    else:
                        assert "***" in feed.stats.last_reason
                        assert "canary-header" not in feed.stats.last_reason
    ours = [record for record in caplog.records if record.name != "websockets.server"]
    assert not [record for record in ours if "canary" in record.getMessage()]


# One owner, one reader, an end.


async def test_md_29_start_is_a_no_op_while_running_and_one_connection_is_made() -> None:
    async with venue() as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            await asyncio.gather(*(feed.start() for _ in range(10)))
            await asyncio.sleep(0.05)
            assert len(there.peers) == 1
    with pytest.raises(RuntimeError, match="closed"):
        await feed.start()


async def test_md_29_old_reader_has_ended_before_the_next_one_reads() -> None:
    async with venue(lambda peer: peer.send(peer.number)) as there:
        feed = Feed(there.url, fast_clock())
        readers: list[int] = []

        def seen(message: object) -> None:
            readers.append(sum(task.get_name() == "pmkit link reader" for task in asyncio.all_tasks()))

        feed.raise_on = seen
        async with running(feed, "a"):
            for number in range(2, 8):
                await there.last.send(number - 1)
                feed.drop("again") if number % 2 else feed.renew("again")
                await until(lambda n=number: feed.by_generation[-1:] == [(n, n)])
        assert set(readers) == {1}
        assert all(generation == number for generation, number in feed.by_generation)


@pytest.mark.parametrize("state", ["connecting", "backoff", "serving", "deaf", "full", "renewing", "new"])
async def test_pl_13_close_ends_within_a_second_and_nothing_connects_afterwards(state: str) -> None:
    accepted = 0
    release = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        if state == "connecting" or (state == "renewing" and accepted == 2):
            await release.wait()
        elif state == "backoff":
            writer.write(status_answer(503))
        else:  # a peer that shakes hands and never reads or answers again
            await shake_hands(reader, writer)
            if state == "serving":
                while await reader.read(1000):
                    pass
            await release.wait()

    async with tcp_server(handle) as port:
        feed = Feed(f"ws://127.0.0.1:{port}", fast_clock(0.02 if state == "backoff" else 100.0))
        before = asyncio.all_tasks()
        if state != "new":
            await feed.want(["a"])
            await feed.start()
            await until(lambda: accepted == 1)
        if state in ("serving", "deaf", "full", "renewing"):
            await feed.wait_connected(5)
        if state == "backoff":
            await until(lambda: feed.stats.last_reason)
        sending = None
        if state == "full":  # the write buffer is full: send() waits for a peer that does not read
            sending = asyncio.ensure_future(send_much(feed))
            await asyncio.sleep(0.1)
            assert not sending.done()
        if state == "renewing":
            feed.renew("now")
            await until(lambda: accepted == 2)
        seen = accepted
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(feed.close(), feed.close())
        assert asyncio.get_running_loop().time() - begin < 1.0
        await feed.close()
        if sending is not None:
            with pytest.raises((VenueUnavailable, NotSent)):
                await sending
        await asyncio.sleep(0.1)
        assert accepted == seen
        assert not {task for task in asyncio.all_tasks() - before if "pmkit" in task.get_name()}
        with pytest.raises(NotSent):
            await feed.send("x")
        with pytest.raises(VenueUnavailable):
            await feed.wait_connected(0.01)
        release.set()


async def send_much(feed: Feed) -> None:
    while True:
        await feed.send("x" * 1_000_000)


async def test_close_from_a_hook_and_while_others_wait() -> None:
    async with venue() as there:
        feed: Feed = Feed(there.url, fast_clock(), on_gap=lambda reason, since_ns: feed.close())
        waiting = asyncio.ensure_future(feed.wait_connected(20))
        await asyncio.sleep(0)
        await feed.want(["a"])
        await feed.start()
        await waiting
        feed.drop("so that there is a gap")
        await until(lambda: feed._supervisor.closed)
        await feed.close()
        await asyncio.sleep(0.05)
        assert len(there.peers) == 2
        assert feed.events[-1] == "disconnect: closed"


async def test_drop_from_inside_a_frame() -> None:
    """Frames behind the one that gave up the connection are not handled."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            for number in range(50):
                await peer.connection.send(json.dumps({"data": number}))
        await peer.send("fresh")

    class Dropping(Feed):
        def _on_frame(self, data: bytes, received_ns: int) -> bool:
            is_data = super()._on_frame(data, received_ns)
            if self.got[-1] == 3 and self.generation == 1:
                self.drop("a gap in the sequence")
            return is_data

    async with venue(script) as there:
        feed = Dropping(there.url, fast_clock())
        async with running(feed, "a"):
            await until(lambda: "fresh" in feed.got)
            assert feed.got == [0, 1, 2, 3, "fresh"]
            assert feed.gaps[0][0] == "a gap in the sequence"
            assert feed.gaps[0][1] == feed.stamps[2]  # the last frame that was handled to its end
