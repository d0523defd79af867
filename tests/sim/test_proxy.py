"""The proxy that makes the line bad, on real sockets and in virtual time."""

import asyncio
import contextlib
import socket

import pytest

from pmkit.clock import SystemClock
from pmkit.sim.proxy import Proxy
from pmkit.sim.virtual import VirtualClock, run

HOST = "127.0.0.1"


@pytest.fixture(params=["virtual", "real"])
def both(request):
    def go(scenario):
        async def main():
            clock = VirtualClock() if request.param == "virtual" else SystemClock()
            async with echo() as port, Proxy(port, clock) as proxy:
                await scenario(proxy, clock)

        (run if request.param == "virtual" else asyncio.run)(main())

    return go


@contextlib.asynccontextmanager
async def echo():
    """Answers every piece with itself, and an end of file with one."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0.01)


async def client(proxy):
    return await asyncio.open_connection(HOST, proxy.port)


async def ask(reader, writer, data, seconds=5.0):
    writer.write(data)
    async with asyncio.timeout(seconds):
        return await reader.readexactly(len(data))


def test_without_a_switch_everything_passes_and_ends_as_it_came(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        big = bytes(range(256)) * 8192  # 2 MiB: more than any buffer on the way
        assert await ask(reader, writer, big, 20) == big
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(0.05)
        assert proxy.connections == 0

    both(scenario)


def test_latency_bandwidth_and_slices(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        proxy.latency = 0.05
        began = clock.io_monotonic()
        assert await ask(reader, writer, b"ping") == b"ping"
        assert clock.io_monotonic() - began >= 0.099
        proxy.calm()
        proxy.bytes_per_second = 100_000
        began = clock.io_monotonic()
        await ask(reader, writer, b"x" * 10)
        await ask(reader, writer, b"x" * 20_000)
        proxy.calm()
        proxy.slice_bytes = 3
        proxy.slice_gap = 0.001
        text = b"sliced into threes"
        writer.write(text)
        sizes = []
        while sum(sizes) < len(text):
            sizes.append(len(await reader.read(1000)))
        assert len(sizes) > 1
        writer.close()

    both(scenario)


def test_a_black_hole_passes_nothing_and_ends_nothing_then_gives_all_of_it(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        await ask(reader, writer, b"before")
        proxy.black_hole = True
        with pytest.raises(TimeoutError):
            await ask(reader, writer, b"lost?", 0.2)
        proxy.black_hole = False
        assert await reader.readexactly(5) == b"lost?"
        writer.close()

    both(scenario)


def test_cut_and_reset_are_told_apart(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        await ask(reader, writer, b"x")
        assert proxy.cut() == 1
        assert await reader.read() == b""
        writer.close()
        reader, writer = await client(proxy)
        await ask(reader, writer, b"x")
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert (proxy.counts["cut"], proxy.counts["reset"]) == (1, 1)

    both(scenario)


def test_reset_after_so_many_bytes(both):
    async def scenario(proxy, clock):
        proxy.reset_after(10)
        reader, writer = await client(proxy)
        assert await ask(reader, writer, b"12345") == b"12345"
        writer.write(b"67890 and more")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await client(proxy)  # one connection only
        assert await ask(reader, writer, b"x" * 100) == b"x" * 100
        writer.close()

    both(scenario)


def test_refuse_and_an_unreachable_venue(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        await proxy.refuse(True)
        with pytest.raises(ConnectionRefusedError):
            await client(proxy)
        assert await ask(reader, writer, b"stands") == b"stands"
        writer.close()
        await proxy.refuse(False)
        proxy.target = 1  # nobody is there
        reader, writer = await client(proxy)
        writer.write(b"x")
        with pytest.raises(ConnectionError):
            await reader.read()
        writer.close()
        assert proxy.counts["unreachable"] == 1

    both(scenario)


async def test_nobody_else_gets_the_port_while_it_refuses():
    async with echo() as port, Proxy(port, SystemClock()) as proxy:
        await proxy.refuse(True)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, proxy.port))
        await proxy.refuse(False)
        reader, writer = await client(proxy)
        assert await ask(reader, writer, b"there again") == b"there again"
        writer.close()


def test_a_slow_close_passes_the_end_on_late(both):
    async def scenario(proxy, clock):
        reader, writer = await client(proxy)
        await ask(reader, writer, b"x")
        proxy.slow_close = 0.1
        began = clock.io_monotonic()
        writer.write_eof()
        assert await reader.read() == b""
        assert clock.io_monotonic() - began >= 0.19
        writer.close()

    both(scenario)
