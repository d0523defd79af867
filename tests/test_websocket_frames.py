"""BaseWebSocket: what is subscribed, what is read, and planned renewals."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import serve

from pmkit.clock import ManualClock, SystemClock
from pmkit.errors import NotSent, VenueUnavailable
from pmkit.streams import Policy, Subscription
from pmkit.websocket.failures import printable
from pmkit.websocket.reports import MAX_UNKNOWN_KINDS
from pmkit.websocket.transport import Pacer
from tests.websocket_peers import (
    Feed,
    Peer,
    SkippingClock,
    answering,
    fast_clock,
    proxy,
    running,
    self_signed,
    status_answer,
    tcp_server,
    until,
    venue,
)

# Subscriptions are state.


async def test_md_05_subscriptions_are_replayed_once_with_the_changes_made_while_down() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock)
        async with running(feed, "a", "b", "gone"):
            await until(lambda: there.last.subscribed == ["a", "b", "gone"])
            there.last.cut()
            await until(lambda: not feed.connected)
            await feed.want(["late", "a"])
            await feed.unwant(["gone", "never there"])
            assert feed.wanted == ("a", "b", "late")
            await clock.advance(1.3)
            await until(lambda: feed.connected)
            await until(lambda: there.last.frames)
            await asyncio.sleep(0.05)
            assert there.peers[1].frames == [{"subscribe": ["a", "b", "late"], "first": True}]
            assert len(feed.gaps) == 1


async def test_md_05_changes_made_during_a_connect_are_included_and_sent_once() -> None:
    async with venue() as there:
        feed = Feed(there.url, fast_clock())
        connect = feed._connect

        async def slow(url: str, headers: Any) -> Any:
            await feed.want(["before the handshake"])
            connection = await connect(url, headers)
            await feed.want(["after the handshake"])
            return connection

        feed._connect = slow  # type: ignore[method-assign]
        async with running(feed, "a"):
            await asyncio.sleep(0.05)
            assert there.last.subscribed == ["a", "before the handshake", "after the handshake"]
            assert len(there.last.frames) == 1


async def test_md_05_changes_while_connected_are_sent_as_differences() -> None:
    async with venue() as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed):
            await feed.want(["a"])
            await feed.want(["a", "b"])
            await feed.unwant(["a"])
            await feed.unwant(["a"])
            await feed.want(["a"])
            await until(lambda: len(there.last.frames) == 4)
            assert there.last.frames == [
                {"subscribe": ["a"], "first": True},
                {"subscribe": ["b"], "first": False},
                {"unsubscribe": ["a"]},
                {"subscribe": ["a"], "first": False},
            ]


async def test_md_05_a_cancelled_want_is_still_sent() -> None:
    async with venue() as there:
        feed = Feed(there.url, SystemClock(), pace=10.0)
        async with running(feed):
            for number in range(10):
                await feed.send(json.dumps({"n": number}))
            waiting = asyncio.ensure_future(feed.want(["a"]))
            await asyncio.sleep(0.01)
            assert not waiting.done()  # its turn comes in a second
            waiting.cancel()
            await until(lambda: there.last.subscribed == ["a"])


async def test_md_05_live_only_after_everything_was_subscribed() -> None:
    class Many(Feed):
        def _subscribe_frames(self, keys: Any, first: bool) -> list[str | bytes]:
            return [json.dumps({"subscribe": [key], "first": first}) for key in keys]

    async def script(peer: Peer) -> None:
        await peer.send("early")

    async with venue(script) as there:
        feed = Many(there.url, SystemClock(), pace=2.0)
        async with running(feed, "a", "b", "c", connected=False):
            await until(lambda: feed.got == ["early"])  # pacing does not hold up the reader
            assert not feed.connected
            await until(lambda: feed.connected)
            await until(lambda: there.last.subscribed == ["a", "b", "c"])


async def test_a_feed_may_introduce_itself_before_anything_is_wanted() -> None:
    class Polite(Feed):
        def _subscribe_frames(self, keys: Any, first: bool) -> list[str | bytes]:
            return [json.dumps({"subscribe": list(keys), "first": first, "auth": first})]

    async with venue() as there:
        feed = Polite(there.url, fast_clock())
        async with running(feed):
            await feed.want(["a"])
            await until(lambda: len(there.last.frames) == 2)
            assert [frame["auth"] for frame in there.last.frames] == [True, False]


async def test_a_broken_subscribe_hook_is_loud_and_backs_off() -> None:
    class Broken(Feed):
        def _subscribe_frames(self, keys: Any, first: bool) -> list[str | bytes]:
            raise KeyError("no such market")

    clock = SkippingClock()
    clock.stop_after = 3
    async with venue() as there:
        feed = Broken(there.url, clock)
        async with running(feed, "a", connected=False):
            await until(lambda: len(clock.sleeps) == 3)
            assert clock.sleeps[2] > 3
            assert feed.stats.callback_errors == 3
            assert not feed.connected


async def test_md_27_control_frames_are_paced() -> None:
    """A venue that cuts the line at more than 20 frames in any second."""
    stamps: list[float] = []
    loop = asyncio.get_running_loop()

    async def strict(connection: Any) -> None:
        async for _ in connection:
            stamps.append(loop.time())
            if sum(stamp > stamps[-1] - 1.0 for stamp in stamps) > 20:
                await connection.close(1008, "too many messages")

    class Single(Feed):
        def _subscribe_frames(self, keys: Any, first: bool) -> list[str | bytes]:
            return [json.dumps({"subscribe": [key]}) for key in keys]

    async with serve(strict, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        feed = Single(url, SystemClock(), pace=20.0, ping_text="PING", ping_every=0.2)
        async with running(feed, *(f"k{number}" for number in range(45))):
            await until(lambda: len(stamps) >= 45)
            assert feed.stats.disconnects == 0
            assert stamps[44] - stamps[0] > 2.0


async def test_md_27_pace_of_less_than_one_and_fairness() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 0.5)
    order: list[int] = []

    async def take(number: int) -> None:
        await pacer.turn()
        order.append(number)

    waiting = [asyncio.ensure_future(take(number)) for number in range(3)]
    await clock.settle()
    assert order == [0]
    await clock.advance(2.0)
    assert order == [0]
    await clock.advance(0.2)
    assert order == [0, 1]
    await clock.advance(2.2)
    assert order == [0, 1, 2]
    await asyncio.gather(*waiting)
    with pytest.raises(ValueError, match="above 0"):
        Pacer(clock, 0)


async def test_send_needs_a_connection() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock)
        with pytest.raises(NotSent):
            await feed.send("{}")
        async with running(feed):
            await feed.send("{}")
            await feed.send(b'{"utf-8": "\xc3\xa9"}')
            await until(lambda: there.last.texts == ["{}", '{"utf-8": "é"}'])
            feed.drop("gone")
            with pytest.raises(NotSent):
                await feed.send("{}")


# Renewals.


async def test_planned_renewal_switches_without_a_hole() -> None:
    clock = ManualClock()

    async def script(peer: Peer) -> None:
        for number in range(10_000):
            await peer.send([peer.number, number])
            await asyncio.sleep(0.001)

    async with venue(script) as there:
        feed = Feed(there.url, clock, renew_after=1800.0)
        async with running(feed, "a"):
            await until(lambda: len(feed.got) > 10)
            await clock.advance(1799.0)
            assert feed.generation == 1
            await clock.advance(2.0)
            await until(lambda: feed.generation == 2 and feed.connected)
            await until(lambda: feed.got[-1][0] == 2)
            await until(lambda: there.peers[0].ended)
            assert feed.events == ["connect 1", "connect 2"]  # no moment without a connection
            assert feed.stats.disconnects == 0
            assert feed.stats.renewals == 1
            assert there.peers[1].frames == [{"subscribe": ["a"], "first": True}]
            await until(lambda: feed.gaps)
            reason, since_ns = feed.gaps[0]
            assert reason == "planned"
            assert since_ns in feed.stamps
            await clock.advance(1801.0)
            await until(lambda: feed.generation == 3)
    assert feed.stats.renewals == 2


async def test_md_10_frames_of_an_older_connection_are_dropped() -> None:
    """Both connections talk at once, as fast as they can; each frame names the connection it was sent on."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(peer.number)
            await asyncio.sleep(0)

    async with venue(script) as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            for generation in range(2, 8):
                await until(lambda n=generation: feed.got and feed.got[-1] == n - 1)
                feed.renew("shutdown notice")
                await until(lambda n=generation: feed.generation == n)
            await until(lambda: feed.got[-1] == 7)
        assert {pair[0] - pair[1] for pair in feed.by_generation} == {0}
        assert feed.got == sorted(feed.got)


async def test_renewal_that_fails_keeps_the_old_connection_and_is_tried_again() -> None:
    clock = ManualClock()
    async with venue(lambda peer: peer.send(peer.number)) as there:
        feed = Feed(there.url, clock)
        connect, failures = feed._connect, iter([OSError("refused"), TimeoutError()])

        async def failing(url: str, headers: Any) -> Any:
            if feed.generation == 1 and (error := next(failures, None)) is not None:
                raise error
            return await connect(url, headers)

        feed._connect = failing  # type: ignore[method-assign]
        async with running(feed, "a"):
            await until(lambda: feed.got == [1])
            feed.renew("shutdown notice")
            feed.renew("a second notice changes nothing")
            await clock.settle()
            assert feed.stats.attempts == 2
            await there.last.send("still here")
            await until(lambda: feed.got[-1] == "still here")
            await clock.advance(1.2)
            assert feed.stats.attempts == 3
            assert feed.events == ["connect 1"]
            await clock.advance(2.4)
            await until(lambda: feed.got[-1] == 2)
            assert feed.events == ["connect 1", "connect 2"]
            assert feed.gaps[0][0] == "shutdown notice"


async def test_renewal_whose_old_connection_dies_meanwhile() -> None:
    clock = ManualClock()
    opened = asyncio.Event()
    go_on = asyncio.Event()
    async with venue(lambda peer: peer.send(peer.number)) as there:
        feed = Feed(there.url, clock)
        connect = feed._connect

        async def slow(url: str, headers: Any) -> Any:
            if feed.generation:
                opened.set()
                await go_on.wait()
            return await connect(url, headers)

        feed._connect = slow  # type: ignore[method-assign]
        async with running(feed, "a"):
            await until(lambda: feed.got == [1])
            feed.renew("shutdown notice")
            await opened.wait()
            there.last.cut()
            await until(lambda: not feed.connected)
            assert feed.events[-1].startswith("disconnect")  # at once, not when the new one is there
            go_on.set()
            await until(lambda: feed.got == [1, 2])
            assert feed.generation == 2
            await until(lambda: feed.gaps)
            assert "broke" in feed.gaps[0][0]


async def test_renewal_in_a_lost_state_goes_the_usual_way() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock)
        feed.renew("nothing to renew")
        async with running(feed, "a"):
            feed.renew("now")
            feed.drop("and lost at once")
            await clock.advance(1.3)
            await until(lambda: feed.connected)
            await asyncio.sleep(0.05)
            assert feed.generation == 2
            assert feed.stats.renewals == 0


async def test_renewal_of_a_venue_that_says_nothing_at_first() -> None:
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock)
        async with running(feed, "a"):
            feed.renew("planned")
            await until(lambda: len(there.peers) == 2 and there.last.frames)
            await clock.settle()
            assert feed.generation == 1
            await clock.advance(2.1)
            await until(lambda: feed.generation == 2)


async def test_on_gap_gets_the_last_data_frame_once_per_loss_and_may_be_async() -> None:
    clock = ManualClock()
    seen: list[tuple[str, int, bool]] = []

    async def back_fill(reason: str, since_ns: int) -> None:
        seen.append((reason, since_ns, feed.connected))
        raise RuntimeError("the back-fill failed")

    async with venue() as there:
        feed = Feed(there.url, clock, on_gap=back_fill)
        async with running(feed, "a"):
            assert seen == []  # nothing can be missing before the first connection
            await there.last.send(1)
            await until(lambda: feed.got == [1])
            await clock.advance(10.0)
            feed.drop("first")
            await clock.advance(1.3)
            await until(lambda: len(seen) == 1)
            assert seen[0] == ("first", feed.stamps[0], True)
            await clock.advance(10.0)
            feed.drop("second, with no data in between")
            await clock.advance(3.0)
            await until(lambda: len(seen) == 2)
            assert seen[1][1] == feed.stamps[0]
            assert feed.stats.callback_errors == 2


# What is read.


async def test_md_13_slow_consumer_neither_holds_up_the_reader_nor_reads_old_news() -> None:
    clock = SystemClock()
    handled: list[int] = []

    async def slow(event: tuple[str, int]) -> None:
        await asyncio.sleep(0.5)
        handled.append(event[1])

    books: Subscription[tuple[str, int]] = Subscription(
        "books", clock, callback=slow, policy=Policy.CONFLATE, key=lambda event: event[0]
    )

    class Books(Feed):
        def _on_frame(self, data: bytes, received_ns: int) -> bool:
            super()._on_frame(data, received_ns)
            books.publish(("book", self.got[-1]))
            return True

    async def flood(peer: Peer) -> None:
        for number in range(3000):
            await peer.send(number)

    async with venue(flood) as there:
        feed = Books(there.url, clock)
        async with running(feed, "a"):
            begin = asyncio.get_running_loop().time()
            await until(lambda: len(feed.got) == 3000)
            assert asyncio.get_running_loop().time() - begin < 2.0
            assert books.pending <= 1
            await until(lambda: handled and handled[-1] == 2999)
            assert len(handled) <= 6
            assert books.stats.conflated + len(handled) == 3000
    await books.close()


async def test_md_14_no_buffer_grows_without_bound() -> None:
    """A consumer that is stuck while 100,000 events come (twenty seconds at 5,000 a second)."""
    clock = SystemClock()
    stuck = asyncio.Event()

    async def never(event: Any) -> None:
        await stuck.wait()

    books: Subscription[Any] = Subscription("books", clock, callback=never, policy=Policy.CONFLATE, key=lambda e: e[0])
    trades: Subscription[Any] = Subscription("trades", clock, callback=never, limit=1000)

    async def refill() -> list[Any]:
        return []

    fills: Subscription[Any] = Subscription(
        "fills", clock, callback=never, policy=Policy.NEVER_DROP, limit=1000, key=lambda e: e[1], refill=refill
    )
    await asyncio.sleep(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(100_000):
        event = (number % 10, number)
        books.publish(event)
        trades.publish(event)
        fills.publish(event)
        if number % 1000 == 0:
            await asyncio.sleep(0)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20 * 2**20
    assert books.pending <= 10
    assert trades.pending <= 1000
    assert fills.pending <= 1000
    assert trades.stats.dropped >= 98_000
    assert fills.stats.gaps == 1
    for subscription in (books, trades, fills):
        await subscription.close()


async def test_md_15_a_callback_that_raises_does_not_end_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        for number in range(300):
            await peer.send(number)

    async with venue(script) as there:
        feed = Feed(there.url, fast_clock())
        feed.raise_on = lambda message: ValueError("boom") if message["data"] % 3 == 0 else None
        async with running(feed, "a"):
            await until(lambda: feed.stats.frames == 300)
            assert feed.got == [number for number in range(300) if number % 3]
            assert feed.stats.callback_errors == 100
            assert feed.stats.garbage == 0
            assert feed.generation == 1
    raised = [record for record in caplog.records if "_on_frame raised" in record.message]
    assert len(raised) == 1
    assert raised[0].exc_info is not None


async def test_md_15_a_cancelled_error_is_not_swallowed_and_leaves_no_dead_feed() -> None:
    async with venue(lambda peer: peer.send(peer.number)) as there:
        feed = Feed(there.url, fast_clock())
        feed.raise_on = lambda message: asyncio.CancelledError() if message["data"] == 1 else None
        async with running(feed, "a", connected=False):
            await until(lambda: feed.got == [2])
            assert "reader ended" in feed.stats.last_reason


async def test_md_15_hooks_that_raise() -> None:
    class Raising(Feed):
        def _on_connect(self) -> None:
            super()._on_connect()
            raise RuntimeError("on connect")

        def _on_disconnect(self, reason: str) -> None:
            super()._on_disconnect(reason)
            raise RuntimeError("on disconnect")

    def gap(reason: str, since_ns: int) -> None:
        raise RuntimeError("on gap")

    async with venue() as there:
        feed = Raising(there.url, fast_clock(), on_gap=gap)
        async with running(feed, "a"):
            feed.drop("again")
            await until(lambda: feed.connected and feed.generation == 2)
            assert feed.stats.callback_errors == 4


@pytest.mark.parametrize("size", [2**20 + 1, 15 * 2**20])
async def test_md_16_large_frames_pass(size: int) -> None:
    async with venue(lambda peer: peer.send("x" * size)) as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            await until(lambda: feed.got)
            assert len(feed.got[0]) == size
            assert feed.stats.disconnects == 0


async def test_md_16_a_frame_over_the_limit_goes_straight_to_the_cap(caplog: pytest.LogCaptureFixture) -> None:
    clock = SkippingClock()
    clock.stop_after = 3

    async def script(peer: Peer) -> None:
        await peer.send("small")
        await peer.send("x" * (17 * 2**20))

    with caplog.at_level(logging.INFO, "pmkit"):
        async with venue(script) as there:
            feed = Feed(there.url, clock)
            async with running(feed, "a", connected=False):
                await until(lambda: len(clock.sleeps) == 3)
                assert all(24 <= wait <= 30 for wait in clock.sleeps)
                assert "larger than this client takes" in feed.stats.blocked
                assert "1009" in feed.stats.blocked
                assert feed.got == ["small"] * 3
                assert sum(event.startswith("blocked") for event in feed.events) == 1
    # Said once, although each connection delivered something before it failed.
    assert [record.levelno for record in caplog.records if "larger than" in record.message] == [logging.ERROR]


@pytest.mark.parametrize("compression", [False, True])
async def test_md_17_sliced_fragmented_and_compressed_frames(compression: bool) -> None:
    rows = [{"n": number, "text": "é€😀" * (number % 40)} for number in range(120)]

    async def script(peer: Peer) -> None:
        for row in rows:
            text = json.dumps({"data": row}, ensure_ascii=False)
            if row["n"] % 3 == 0:
                raw = text.encode()
                # Fragments that cut through letters: what is sent is bytes, marked as text.
                pieces = [raw[at : at + 5] for at in range(0, len(raw), 5)]
                await peer.connection.send(iter(pieces), text=True)
            elif row["n"] % 3 == 1:
                await peer.connection.send(text.encode())  # a binary frame
            else:
                await peer.connection.send(text)

    async with venue(script, compression="deflate") as there, proxy(there.url, slices=(1, 7)) as (_, url):
        feed = Feed(url, fast_clock(), compression=compression)
        async with running(feed, "a"):
            await until(lambda: len(feed.got) == len(rows))
            assert feed.got == rows
            assert feed.stats.garbage == 0
            extensions = there.last.connection.protocol.extensions
            assert bool(extensions) is compression  # off: not even offered


async def test_md_18_garbage_is_counted_and_the_reader_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    shown = "\x1b]0;owned\x07\u202e" + "y" * 1000
    frames = ["", b"", "PONG?", "nul", "[1, 2]", '{"data": ', b"\xff\xfe\x00", "\x00", shown, "[" * 500, '"text"']

    async def script(peer: Peer) -> None:
        for frame in frames:
            await peer.connection.send(frame)
        await peer.connection.send("PONG")
        await peer.send("good")

    async with venue(script) as there:
        feed = Feed(there.url, fast_clock(), pong_text="PONG")
        async with running(feed, "a"):
            await until(lambda: feed.got == ["good"])
            assert feed.stats.garbage == len(frames)
            assert feed.stats.frames == len(frames) + 2
            assert feed.generation == 1
    warned = [record.message for record in caplog.records if "does not parse" in record.message]
    assert len(warned) == 1


async def test_md_18_shown_frames_are_short_escaped_and_may_be_hidden(caplog: pytest.LogCaptureFixture) -> None:
    class Account(Feed):
        log_frames = False

    for kind in (Feed, Account):
        caplog.clear()
        async with venue(lambda peer: peer.connection.send("canary \x1b[2J\r\n\u202e" + "z" * 5000)) as there:
            feed = kind(there.url, fast_clock())
            async with running(feed, "a"):
                await until(lambda feed=feed: feed.stats.garbage == 1)
        message = next(record.message for record in caplog.records if "does not parse" in record.message)
        assert len(message) < 400
        assert message.isprintable()
        assert ("canary" in message) is kind.log_frames


async def test_md_18_mutated_frames_never_end_the_reader() -> None:
    rng = random.Random(18)
    good = b'{"data": {"price": "0.48", "size": "12.5", "rows": [1, 2, null, true]}}'

    def mutated() -> bytes:
        raw = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(raw) or 1)
            match rng.randrange(4):
                case 0:
                    raw[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    del raw[at : at + 1]
                case 2:
                    raw.insert(at, rng.randrange(256))
                case _:
                    del raw[at:]
                    raw += b"}"
        return bytes(raw)

    async def script(peer: Peer) -> None:
        for _ in range(20_000):
            await peer.connection.send(mutated())
        await peer.send("end")

    async with venue(script) as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            await until(lambda: feed.got and feed.got[-1] == "end")
            assert feed.generation == 1
            assert feed.stats.frames == 20_001
            assert feed.stats.garbage + feed.stats.data_frames + feed.stats.callback_errors <= 20_001
            assert feed.stats.garbage > 1000


async def test_md_19_unknown_kinds_are_counted_warned_once_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed("ws://127.0.0.1:1", ManualClock())
    for _ in range(3):
        feed.count_unknown("brand_new\x1b[2J")
    assert feed.stats.unknown["brand_new\\x1b[2J"] == 3
    assert len(caplog.records) == 1
    for number in range(10_000):
        feed.count_unknown(f"kind {number}")
    assert len(feed.stats.unknown) <= MAX_UNKNOWN_KINDS + 1
    assert feed.stats.unknown.total() == 10_003
    assert len(caplog.records) <= MAX_UNKNOWN_KINDS + 1


@given(st.text(), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_printable_is_short_and_safe(text: str, limit: int) -> None:
    for foreign in (text, text.encode("utf-8", "surrogatepass")):
        shown = printable(foreign, limit)
        assert len(shown) <= 10 * limit + 3
        assert not any(char in shown for char in "\x00\x07\x08\r\n\x1b\x7f\x9b\u2028\u202e")


async def test_received_ns_is_the_clock_of_the_feed() -> None:
    clock = ManualClock(start_ms=1_800_000_000_000)
    async with venue(lambda peer: peer.send(1)) as there:
        feed = Feed(there.url, clock)
        async with running(feed, "a"):
            await until(lambda: feed.got)
            assert feed.stamps == [1_800_000_000_000_000_000]


async def test_ck_03_a_wall_clock_that_steps_does_not_touch_the_deadline() -> None:
    """CK-03: the deadline is measured on the monotonic clock. (A date that runs far ahead is a sleep: CK-02.)"""
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock, deadline=5.0)
        async with running(feed, "a"):
            await there.last.send(1)
            await until(lambda: feed.got)
            clock.step_wall(8.0)
            await clock.advance(4.0)
            assert feed.connected
            clock.step_wall(-7200.0)
            await clock.advance(1.1)
            assert not feed.connected


async def test_proxy_variables_do_not_touch_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """RS-11: a SOCKS proxy in the environment, for which no library is installed."""
    async with venue() as there:
        for name in ("ALL_PROXY", "HTTPS_PROXY", "http_proxy"):
            monkeypatch.setenv(name, "socks5://user:canary-password@127.0.0.1:1")
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            assert feed.connected
        clock = SkippingClock()
        clock.stop_after = 1
        feed = Feed("wss://venue.invalid/ws", clock)
        async with running(feed, "a", connected=False):
            await until(lambda: clock.sleeps)
            assert "ALL_PROXY" in feed.stats.blocked
            assert "canary-password" not in feed.stats.blocked


async def test_rs_17_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    seen: list[str] = []
    clock = SkippingClock()
    clock.stop_after = 1
    async with tcp_server(answering(status_answer(200), seen=seen), self_signed(tmp_path)) as port:
        feed = Feed(f"wss://127.0.0.1:{port}", clock)
        feed.headers = {"signature": "canary"}
        async with running(feed, "a", connected=False):
            await until(lambda: clock.sleeps)
            assert feed.stats.last_reason.startswith("TLS failed")
            assert "verify" in feed.stats.last_reason.lower()
    assert seen == []


async def test_a_send_into_a_connection_that_ends_tells_its_caller() -> None:
    async def send_on(feed: Feed) -> None:
        for _ in range(1000):
            await feed.send("{}")
            await asyncio.sleep(0)

    async with venue() as there:
        feed = Feed(there.url, fast_clock())
        async with running(feed, "a"):
            there.last.cut()
            with pytest.raises((NotSent, VenueUnavailable)):
                await send_on(feed)
            await until(lambda: feed.connected and feed.generation == 2)


@pytest.mark.parametrize("slept", [ManualClock.step_wall, ManualClock.doze])
async def test_ck_02_after_a_sleep_of_the_machine_the_socket_is_made_anew(
    slept: Callable[[ManualClock, float], None],
) -> None:
    """Whether the monotonic clock went on or not; the deadline alone would believe the old one for its whole length."""
    clock = ManualClock()
    async with venue() as there:
        feed = Feed(there.url, clock, deadline=6 * 3600.0)
        async with running(feed, "a"):
            await there.last.send(1)
            await until(lambda: feed.got)
            await clock.advance(30.0)
            assert feed.connected
            slept(clock, 3 * 3600.0)
            await clock.advance(2.0)
            await until(lambda: feed.stats.disconnects == 1)
            assert "away for" in feed.stats.last_reason
            await clock.advance(2.0)
            await until(lambda: feed.connected)
            assert feed.generation == 2
