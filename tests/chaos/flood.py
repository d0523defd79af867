"""A flood of messages for a while: `python -m tests.chaos.flood --seconds 600 --rate 2000`

A process of its own sends what both venues send (half of the rate each, on one connection each, stamped as they leave)
to the sockets of pmkit; the callback of a Subscription notes how old each message is when it gets there. Prints the
counts, the ages and the memory of this process; exits 1 when a message was older than a second, when memory grew by
more than 20 MiB after the first tenth, or when a message was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _server, traffic
from benchmarks._feeds import follow_kalshi, follow_polymarket, subscription
from benchmarks._sockets import PATH, signer
from pmkit.clock import SystemClock
from pmkit.venue_clock import VenueClock

FRAMES = 20_000
SLICE_SECONDS = 0.01
OLDEST_MS = 1_000
MIB = 2**20
GROWTH_MIB = 20
PAGE = os.sysconf("SC_PAGE_SIZE")
SEQ = re.compile(rb'"seq":\d+')
STAMP = re.compile(rb'"timestamp":"\d{13}"')
STAMP_MS = re.compile(rb'"ts_ms":\d+')
PING, PONG = 0x89, 0x8A


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB


def made(venue: str) -> traffic.Traffic:
    return (traffic.polymarket if venue == "polymarket" else traffic.kalshi)(FRAMES)


# ---- the venues, in a process of their own


class Sender:
    """The frames of one venue over and over, stamped and numbered as they leave."""

    def __init__(self, venue: str, frames: list[bytes], rate: float) -> None:
        self.venue = venue
        self.frames = frames
        self.rate = rate
        self.sent = 0
        self._numbers = {b'"sid":1': 0, b'"sid":2': 0}

    def next(self, now: int) -> bytes:
        frame = self.frames[self.sent % len(self.frames)]
        self.sent += 1
        if self.venue == "polymarket":
            return STAMP.sub(b'"timestamp":"%d"' % now, frame)
        sid = b'"sid":2' if b'"sid":2' in frame else b'"sid":1'
        self._numbers[sid] += 1
        return STAMP_MS.sub(b'"ts_ms":%d' % now, SEQ.sub(b'"seq":%d' % self._numbers[sid], frame, count=1))

    async def run(self, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        while True:
            due = int((time.monotonic() - began) * self.rate) - self.sent
            now = time.time_ns() // 1_000_000
            if due > 0:
                writer.write(b"".join(_server.framed(self.next(now)) for _ in range(min(due, 1_000))))
                await writer.drain()
            await asyncio.sleep(SLICE_SECONDS)


async def serve(venue: str, rate: float) -> None:
    """One connection at a time."""
    frames = made(venue).frames

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = None
        try:
            await _server.handshake(reader, writer)
            while True:
                first, payload = await _server.receive(reader)
                if first == _server.CLOSE:
                    writer.write(bytes((_server.CLOSE, 0)))
                    return
                if first == PING:
                    writer.write(bytes((PONG, len(payload))) + payload)
                elif payload == b"PING":
                    writer.write(_server.framed(b"PONG"))
                elif sending is None:
                    if venue == "kalshi":
                        channel = {"channel": "orderbook_delta", "sid": 1}
                        answer = {"type": "subscribed", "id": json.loads(payload)["id"], "msg": channel}
                        writer.write(_server.framed(json.dumps(answer).encode()))
                    sending = asyncio.ensure_future(Sender(venue, frames, rate).run(writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            if sending is not None:
                sending.cancel()
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


# ---- the client


class Ages:
    """The callback: how old is what comes?"""

    def __init__(self) -> None:
        self.count = 0
        self.oldest = 0
        self.over_100 = 0
        self.invalid = 0

    def book(self, book: Any) -> None:
        self.count += 1
        if not book.valid:
            self.invalid += 1  # before the first snapshot, or something is wrong
            return
        if not book.venue_ms:
            return  # Kalshi's snapshots have no stamp
        age = time.time_ns() // 1_000_000 - book.venue_ms
        if age > self.oldest:
            self.oldest = age
        self.over_100 += age > 100


async def nothing(*_: object) -> Any:
    raise RuntimeError("the feed had to ask REST")


def socket_of(venue: str, port: int, sink: Any) -> tuple[Any, Any, list[Any]]:
    """The venue's socket as pmkit makes it, its feed, and the keys to subscribe to."""
    clock = SystemClock()
    address = f"ws://127.0.0.1:{port}{PATH[venue]}"
    model = traffic.Traffic(venue, "flood", [], (traffic.UP, traffic.DOWN), {})
    if venue == "polymarket":
        from pmkit.exchanges.polymarket.orderbook_ws import MarketSocket

        socket = MarketSocket(
            address, clock, VenueClock(clock), name="flood", read_books=nothing, is_over=lambda token: False
        )
        follow_polymarket(socket.feed, model, sink)
        return socket, socket.feed, list(model.books)
    from pmkit.exchanges.kalshi.book_feed import BookFeed
    from pmkit.exchanges.kalshi.messages import ORDERBOOK
    from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket

    feed = BookFeed()
    kalshi = KalshiSocket(
        address, clock, signer(), feed,
        venue_clock=VenueClock(clock), confirm=nothing, measure=nothing, is_over=lambda ticker: False,
    )  # fmt: skip
    follow_kalshi(feed, traffic.Traffic(venue, "flood", [], (traffic.TICKER,), {}), sink)
    return kalshi, feed, [(ORDERBOOK, traffic.TICKER)]


async def flood(ports: dict[str, int], seconds: float) -> int:
    ages = {venue: Ages() for venue in ports}
    sockets = {}
    for venue, port in ports.items():
        socket, feed, keys = socket_of(venue, port, subscription(ages[venue], SystemClock()).publish_all)
        sockets[venue] = (socket, feed)
        await socket.start()
        await socket.wait_connected(10)
        await socket.want(keys)
    began = time.monotonic()
    first, most, next_word = 0.0, 0.0, 60.0
    while (passed := time.monotonic() - began) < seconds:
        await asyncio.sleep(1)
        now = resident()
        if not first and passed >= seconds / 10:
            gc.collect()
            first = now
        most = max(most, now) if first else most
        if passed >= next_word:
            next_word += 60
            print(json.dumps({"s": round(passed), "MiB": round(now, 1), "oldest ms": _oldest(ages)}), flush=True)
    wrong = []
    for venue, (socket, feed) in sockets.items():
        stats = socket.stats
        rate = stats.data_frames / seconds
        print(
            json.dumps(
                {
                    "venue": venue, "frames": stats.frames, "a second": round(rate), "callbacks": ages[venue].count,
                    "oldest ms": ages[venue].oldest, "older than 100 ms": ages[venue].over_100,
                    "invalid": ages[venue].invalid, "connections": stats.connects, "garbage": stats.garbage,
                }
            )
        )  # fmt: skip
        bad = (stats.connects != 1, stats.garbage, feed.unparsed, getattr(feed, "seq_gaps", 0), feed.crossed)
        if any(bad):
            wrong.append(f"{venue}: connections, garbage, unparsed, gaps, crossed: {bad}")
        if ages[venue].invalid > 2:
            wrong.append(f"{venue}: a book was invalid {ages[venue].invalid} times")
        if ages[venue].oldest > OLDEST_MS:
            wrong.append(f"{venue}: a message was {ages[venue].oldest} ms old")
        await socket.close()
    gc.collect()
    print(json.dumps({"MiB at the start": round(first, 1), "at the end": round(resident(), 1), "most": round(most, 1)}))
    if most - first > GROWTH_MIB:
        wrong.append(f"memory grew by {most - first:.1f} MiB")
    for line in wrong:
        print(f"WRONG: {line}")
    print("FAILED" if wrong else "nothing wrong")
    return 1 if wrong else 0


def _oldest(ages: dict[str, Ages]) -> int:
    return max(one.oldest for one in ages.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=2_000, help="messages a second, of both venues together")
    parser.add_argument("--serve", choices=("polymarket", "kalshi"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.rate))
        return 0
    logging.basicConfig(level=logging.WARNING)
    with contextlib.ExitStack() as stack:
        ports = {}
        for venue in ("polymarket", "kalshi"):
            command = [sys.executable, "-m", "tests.chaos.flood", "--serve", venue, "--rate", str(arguments.rate / 2)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            )
            assert process.stdin is not None and process.stdout is not None
            stack.callback(process.stdin.close)
            ports[venue] = int(process.stdout.readline())
        return asyncio.run(flood(ports, arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
