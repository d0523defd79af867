"""Connection beside its library: the same bytes, however they are cut, give the same messages and the same end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from pmkit.websocket.connection import GATHERED_BYTES, MAX_FRAGMENTS, MAX_WAITING, Connection
from tests.websocket_peers import Feed, fast_clock, running, until, venue

LARGEST = 200_000
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Wire(asyncio.Transport):
    """Notes what the connection does to its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.aborted = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def write_eof(self) -> None: ...
    def can_write_eof(self) -> bool:
        return True

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...
    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


def protocol(deflate: bool) -> ClientProtocol:
    made = ClientProtocol(parse_uri("ws://127.0.0.1/"), max_size=LARGEST)
    made.send_request(made.connect())
    made.data_to_send()
    if deflate:
        made.extensions = [PerMessageDeflate(False, False, 15, 15)]
    return made


def answer(made: ClientProtocol) -> bytes:
    from websockets.utils import accept_key

    return HEAD + f"Sec-WebSocket-Accept: {accept_key(made.key)}\r\n\r\n".encode()


async def by_pmkit(stream: bytes, cuts: Sequence[int], deflate: bool, *, late: bool = False) -> tuple[Any, ...]:
    """Messages, what was sent back, and the state at the end; `late`: messages are taken only then."""
    made = protocol(deflate)
    if deflate:
        extensions, made.extensions = made.extensions, []
    connection = Connection(made, ping_interval=None, largest=LARGEST)
    wire = Wire()
    connection.connection_made(wire)
    got: list[bytes] = []
    if not late:
        connection.deliver_to(got.extend)
    whole = answer(made) + stream
    begin = len(whole) - len(stream)
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if deflate and start < begin <= end:
            connection.data_received(whole[start:begin])
            made.extensions = extensions
            start = begin
        connection.data_received(whole[start:end])
        if wire.aborted:
            break
    if late:
        connection.deliver_to(got.extend)
    # Masks are random: what was sent back is compared by length.
    outcome = (got, len(wire.sent), made.state, made.close_sent, made.close_rcvd, str(made.parser_exc))
    connection.connection_lost(None)
    return outcome


def by_the_library(stream: bytes, deflate: bool) -> tuple[Any, ...]:
    made = protocol(False)
    made.receive_data(answer(made))
    if deflate:
        made.extensions = [PerMessageDeflate(False, False, 15, 15)]
    made.events_received()
    # Byte by byte only as far as it is needed: after a goodbye nothing counts.
    made.receive_data(stream)
    sent = sum(len(data) for data in made.data_to_send())
    got: list[bytes] = []
    parts: list[bytes] = []
    for event in made.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                got.append(b"".join(parts))
                parts = []
    return got, sent, made.state, made.close_sent, made.close_rcvd, str(made.parser_exc)


frames = st.builds(
    lambda opcode, fin, size, seed: Frame(opcode, random.Random(seed).randbytes(size), fin),
    st.sampled_from([Opcode.TEXT] * 6 + [Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG]),
    st.sampled_from([True] * 5 + [False]),
    st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65_534, 65_535, 65_536, GATHERED_BYTES + 1, 150_000]),
    st.integers(0, 99),
)
closes = st.sampled_from([b"\x03\xe8bye", b"\x0f\xa0", b"", b"\x00", b"\x03\xed"])


def stream_of(made: Sequence[Frame], deflate: bool, closing: bytes | None) -> bytes:
    extensions = [PerMessageDeflate(False, False, 15, 15)] if deflate else []
    stream = b""
    for frame in made:
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            frame = Frame(frame.opcode, frame.data[:125])
        stream += bytes(frame.serialize(mask=False, extensions=extensions))
    if closing is not None:
        stream += bytes(Frame(Opcode.CLOSE, closing).serialize(mask=False)) + b"\x81\x04late"
    return stream


@settings(max_examples=200, deadline=None)
@given(
    made=st.lists(frames, max_size=12),
    closing=st.none() | closes,
    deflate=st.booleans(),
    seed=st.integers(0, 10_000),
    late=st.booleans(),
)
def test_the_same_messages_and_the_same_end_as_the_library(
    made: list[Frame], closing: bytes | None, deflate: bool, seed: int, late: bool
) -> None:
    stream = stream_of(made, deflate, closing)
    draw = random.Random(seed)
    size = len(stream) + 129
    cuts = sorted(draw.randrange(size) for _ in range(draw.choice([0, 1, 3, 20])))
    if seed % 3 == 0:  # one byte at a time where frames begin
        cuts = sorted({*cuts, *range(100, min(160, size))})
    assert asyncio.run(by_pmkit(stream, cuts, deflate, late=late)) == by_the_library(stream, deflate)


@settings(max_examples=300, deadline=None)
@given(
    noise=st.binary(max_size=40),
    made=st.lists(frames, max_size=3),
    mutate=st.integers(0, 10_000),
    deflate=st.booleans(),
)
def test_noise_ends_as_it_does_in_the_library(noise: bytes, made: list[Frame], mutate: int, deflate: bool) -> None:
    draw = random.Random(mutate)
    # The pongs at the end: pmkit judges a frame once it has the whole of its head.
    stream = bytearray(stream_of(made, deflate, None) + noise + b"\x8a\x00" * 5)
    stream[draw.randrange(min(len(stream), 12))] ^= 1 << draw.randrange(8)
    cuts = sorted(draw.randrange(len(stream) + 129) for _ in range(5))
    assert asyncio.run(by_pmkit(bytes(stream), cuts, deflate)) == by_the_library(bytes(stream), deflate)


async def test_a_message_of_too_many_fragments_is_refused() -> None:
    one = bytes(Frame(Opcode.TEXT, b"x", False).serialize(mask=False))
    more = bytes(Frame(Opcode.CONT, b"x", False).serialize(mask=False))
    got, _, state, close_sent, *_ = await by_pmkit(one + more * (MAX_FRAGMENTS + 1), [], False)
    assert not got and state is State.CLOSING and close_sent.code == 1009


async def test_it_reads_no_more_while_nobody_takes_the_messages() -> None:
    made = protocol(False)
    connection = Connection(made, ping_interval=None, largest=LARGEST)
    wire = Wire()
    connection.connection_made(wire)
    connection.data_received(answer(made) + b"\x81\x01a" * MAX_WAITING)
    assert not wire.paused
    await connection.spoken()
    connection.data_received(b"\x81\x01b")
    assert wire.paused
    got: list[bytes] = []
    connection.deliver_to(got.extend)
    assert got == [b"a"] * MAX_WAITING + [b"b"] and not wire.paused
    connection.connection_lost(None)


async def test_spoken_tells_of_an_end_without_a_message() -> None:
    made = protocol(False)
    connection = Connection(made, ping_interval=None, largest=LARGEST)
    connection.connection_made(Wire())
    connection.data_received(answer(made))
    waiting = asyncio.ensure_future(connection.spoken())
    await asyncio.sleep(0)
    connection.connection_lost(ConnectionResetError("gone"))
    with pytest.raises(ConnectionClosed):
        await waiting


async def test_a_hook_that_lets_a_cancellation_out_leaves_no_dead_feed() -> None:
    async with venue() as there:
        feed = Feed(there.url, fast_clock())
        feed.raise_on = lambda message: asyncio.CancelledError() if message.get("data") == 1 else None
        async with running(feed, "a"):
            await there.last.send(1)
            await until(lambda: feed.generation == 2 and feed.connected)
            await there.last.send(2)
            await until(lambda: feed.got == [2])
            assert feed.stats.callback_errors == 1 and "ended by itself" in feed.stats.last_reason


async def test_all_messages_of_one_read_have_its_time_and_none_comes_after_a_drop() -> None:
    async with venue() as there:
        feed = Feed(there.url, fast_clock())

        def drop_at_three(message: Any) -> None:
            if message.get("data") == 3:
                feed.drop("enough")

        feed.raise_on = drop_at_three
        async with running(feed, "a"):
            connection = feed._supervisor.link._connection  # type: ignore[union-attr]
            batch = b"".join(
                bytes(Frame(Opcode.TEXT, b'{"data": %d}' % number).serialize(mask=False)) for number in range(1, 6)
            )
            connection.data_received(batch)
            assert feed.got == [1, 2, 3] and len(set(feed.stamps)) == 1
            await until(lambda: feed.generation == 2)
