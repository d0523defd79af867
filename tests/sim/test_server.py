"""What every local venue stands on, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from aiohttp import web

from pmkit.clock import SystemClock
from pmkit.sim.faults import Faults
from pmkit.sim.server import Server


async def test_a_client_that_hangs_up_in_its_request_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    clock = SystemClock()
    server = Server("local", clock, Faults(clock))
    reading, ended = asyncio.Event(), asyncio.Event()

    async def read(request: web.Request) -> web.Response:
        reading.set()
        try:
            await request.read()
        finally:
            ended.set()
        return web.Response()

    server.post("/order", read)
    await server.start()
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /order HTTP/1.1\r\nhost: local\r\ncontent-length: 10\r\n\r\n{")
        await reading.wait()
        # As a killed process does: a reset, not a goodbye.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await ended.wait()
        await asyncio.sleep(0)
    finally:
        await server.close()
    assert [line.status for line in server.log] == [0]
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]
