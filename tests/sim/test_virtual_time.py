"""The event loop of virtual time: order, cancellation, timeouts, threads, and connections that behave like TCP."""

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
import time

import httpx
import pytest
from aiohttp import web
from websockets.asyncio.client import connect

from pmkit.sim.virtual import Stuck, VirtualClock, run

HOST = "127.0.0.1"


class Peer(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self, keep=False):
        self.data = bytearray()
        self.events = []
        self.keep = keep
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.keep

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, error):
        self.events.append("lost" if error is None else type(error).__name__)
        self.lost.set_result(error)


async def pair(client_keep=False, server_keep=False):
    """Both ends of a connection: (client, server, listener)."""
    loop = asyncio.get_running_loop()
    served = []
    listener = await loop.create_server(lambda: served.append(Peer(server_keep)) or served[-1], HOST, 0)
    _, client = await loop.create_connection(lambda: Peer(client_keep), HOST, listener.sockets[0].getsockname()[1])
    await asyncio.sleep(0.01)
    return client, served[0], listener


# The socket tests run on real sockets as well: what they say is true there, or the copy is wrong.
@pytest.fixture(params=["virtual", "real"])
def both(request):
    return run if request.param == "virtual" else asyncio.run


# ---- time


def test_a_quarter_of_an_hour_passes_in_no_time_and_the_clock_tells_it():
    async def main():
        clock = VirtualClock(1_795_176_000_000)
        began = time.monotonic()
        await asyncio.sleep(900)
        assert time.monotonic() - began < 5
        assert (clock.now_ms(), clock.perf_ns() > 0) == (1_795_176_900_000, True)
        clock.step_wall(3600)
        assert clock.now_ms() == 1_795_180_500_000
        assert asyncio.get_running_loop().jumps == 1

    run(main())


def test_timers_fire_in_order_and_those_of_one_moment_in_the_order_of_their_making():
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        for number in range(50):
            loop.call_at(loop.time() + 5 + number % 3, seen.append, (number % 3, number))
        loop.call_soon(seen.append, "soon")
        gone = loop.call_later(6, seen.append, "cancelled")
        gone.cancel()
        await asyncio.sleep(100)
        assert seen[0] == "soon" and seen[1:] == sorted(seen[1:]) and len(seen) == 51

    run(main())


def test_years_pass_as_well():
    """Beyond 2^24 s two neighbouring moments lie further apart than the resolution: what is due was never due."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            await asyncio.sleep(86_400.3)
            await asyncio.sleep(0.0000001)
        return loop.time()

    assert run(main()) > 2**26


def test_timeouts_and_cancellation_are_asyncios_own():
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        assert loop.time() - began == 30
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 5)
        task = asyncio.ensure_future(asyncio.sleep(60))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.time() - began == 36

    run(main())


def test_waiting_for_ever_is_an_error_and_so_is_a_moment_without_end(monkeypatch):
    monkeypatch.setattr("pmkit.sim.virtual.loop.STUCK_WALL_SECONDS", 0.05)
    monkeypatch.setattr("pmkit.sim.virtual.loop.TURNS_PER_MOMENT", 1000)

    async def restless():
        for _ in itertools.count():
            await asyncio.sleep(0)

    for forever in (lambda: asyncio.Event().wait(), restless):
        with pytest.raises(Stuck):
            run(forever())


def test_time_stands_still_while_threads_work_and_their_results_come_in_the_order_of_asking():
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        release = threading.Event()
        order = []

        async def ask(name, work):
            await loop.run_in_executor(None, work)
            order.append(name)

        slow = asyncio.ensure_future(ask("slow", lambda: time.sleep(0.2)))
        quick = asyncio.ensure_future(ask("quick", lambda: None))
        async with asyncio.timeout(0.1):
            await asyncio.gather(slow, quick)
        assert (order, loop.time()) == (["slow", "quick"], began)
        # One that waits for a younger one does not hold everything up.
        await asyncio.gather(ask("older", release.wait), ask("younger", release.set))
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    run(main())


# ---- connections


def test_bytes_arrive_once_and_in_order_then_end_of_file(both):
    async def main():
        client, server, listener = await pair()
        sent = b"".join(bytes([number % 251]) * (number * 37) for number in range(400))
        for start in range(0, len(sent), 1000):
            client.transport.write(sent[start : start + 1000])
        client.transport.close()
        assert await server.lost is None and await client.lost is None
        assert bytes(server.data) == sent
        assert server.events == ["made", "eof", "lost"] and client.events[-1] == "lost"
        assert (client.transport.is_closing(), server.transport.is_closing()) == (True, True)
        listener.close()

    both(main())


def test_half_close_lets_the_other_side_go_on(both):
    async def main():
        client, server, listener = await pair(server_keep=True)
        client.transport.write(b"question")
        client.transport.write_eof()
        with pytest.raises(RuntimeError):
            client.transport.write(b"more")
        await asyncio.sleep(0.05)
        assert (bytes(server.data), server.events) == (b"question", ["made", "eof"])
        server.transport.write(b"answer")
        server.transport.close()
        await asyncio.gather(client.lost, server.lost)
        assert bytes(client.data) == b"answer"
        listener.close()

    both(main())


def test_a_reset_says_so_and_so_does_writing_to_one_who_left(both):
    async def main():
        client, server, listener = await pair()
        linger = struct.pack("ii", 1, 0)
        server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        server.transport.abort()
        assert isinstance(await client.lost, ConnectionResetError)
        assert "eof" not in client.events
        listener.close()

        client, server, listener = await pair(client_keep=True)
        server.transport.abort()  # without lingering: an end of file, as sockets do it
        await server.lost
        await asyncio.sleep(0.05)
        assert client.events == ["made", "eof"]
        for _ in range(3):
            client.transport.write(b"x")
            await asyncio.sleep(0.05)
        assert isinstance(await client.lost, ConnectionResetError | BrokenPipeError)
        listener.close()

    both(main())


def test_closing_with_unread_data_resets(both):
    async def main():
        client, server, listener = await pair()
        server.transport.pause_reading()
        client.transport.write(b"never read")
        await asyncio.sleep(0.05)
        server.transport.close()
        assert isinstance(await client.lost, ConnectionResetError)
        listener.close()

    both(main())


def test_a_reader_that_pauses_holds_the_writer_back_and_nothing_is_lost(both):
    async def main():
        client, server, listener = await pair()
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        chunk = bytes(range(256)) * 256
        count = 0
        while "pause" not in client.events:
            client.transport.write(chunk)
            count += 1
            assert count < 2000, "the line takes anything"
        assert client.transport.get_write_buffer_size() > 0
        client.transport.close()  # flushes first
        await asyncio.sleep(0.05)
        assert not client.lost.done()
        server.transport.resume_reading()
        await asyncio.gather(client.lost, server.lost)
        assert bytes(server.data) == chunk * count
        listener.close()

    both(main())


def test_nobody_listening_refuses_and_a_taken_port_is_taken(both):
    async def main():
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(Peer, HOST, 0)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Peer, HOST, port)
        listener.close()
        await listener.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Peer, HOST, port)

    both(main())


def test_names_of_other_machines_do_not_resolve():
    async def main():
        for host in ("example.com", "10.0.0.1", "::1"):
            with pytest.raises(socket.gaierror):
                await asyncio.get_running_loop().create_connection(Peer, host, 80)

    run(main())


def test_latency_delays_and_never_reorders():
    async def main():
        loop = asyncio.get_running_loop()
        client, server, listener = await pair()
        began = loop.time()
        for number in range(100):
            client.transport.write(bytes([number]))
        client.transport.close()
        await server.lost
        assert bytes(server.data) == bytes(range(100))
        assert 0.05 <= loop.time() - began <= 0.3
        listener.close()

    run(main(), latency=0.05, jitter=0.05)


# ---- the libraries


async def _echo(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data.upper())
    return ws


@contextlib.asynccontextmanager
async def _site():
    app = web.Application()
    app.router.add_get("/ws", _echo)
    app.router.add_post("/sum", _sum)
    runner = web.AppRunner(app, keepalive_timeout=75.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def _sum(request):
    return web.json_response({"bytes": len(await request.read())})


def test_httpx_websockets_and_aiohttp_run_unchanged():
    async def main():
        loop = asyncio.get_running_loop()
        async with _site() as port:
            async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as http:
                opened = loop.opened
                for size in (0, 10, 1_000_000):
                    assert (await http.post("/sum", content=b"x" * size)).json() == {"bytes": size}
                assert loop.opened == opened + 1, "one connection was kept alive"
                await asyncio.sleep(200)  # aiohttp closes idle connections; the client sees it before it sends
                assert (await http.post("/sum", content=b"abc")).json() == {"bytes": 3}
                assert loop.opened == opened + 2
            async with connect(f"ws://{HOST}:{port}/ws", proxy=None, ping_interval=20, ping_timeout=20) as ws:
                await ws.send("hello")
                assert await ws.recv() == "HELLO"
                await asyncio.sleep(600)
                await ws.send("still here")
                assert await ws.recv() == "STILL HERE"

    run(main())
