"""The loopback server of the feed benchmark, in a process of its own: `_server.py FILE VENUE`.

Prints its port. The handshake is made by hand. A connection waits for the first message of its client (Kalshi's is
answered) and then gets the whole of FILE, which holds framed messages, in writes of 64 KiB. Ends with its input.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from pathlib import Path

CHUNK = 65_536
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
TEXT, CLOSE = 0x81, 0x88


def framed(payload: bytes) -> bytes:
    """One unmasked text frame."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65_536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + payload


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One frame of a client: (first byte, payload). Raises IncompleteReadError at the end."""
    first, size = await reader.readexactly(2)
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    return first, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request of a client and answer it."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
    key = {name.lower(): value for name, value in headers.items()}["sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, blob: memoryview, venue: str) -> None:
    try:
        await handshake(reader, writer)
        _, message = await receive(reader)
        if venue == "kalshi":
            answer = {
                "type": "subscribed",
                "id": json.loads(message)["id"],
                "msg": {"channel": "orderbook_delta", "sid": 1},
            }
            writer.write(framed(json.dumps(answer).encode()))
        for at in range(0, len(blob), CHUNK):
            writer.write(blob[at : at + CHUNK])
            await writer.drain()
        while (await receive(reader))[0] != CLOSE:
            pass
        writer.write(bytes((CLOSE, 0)))
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client is gone
    finally:
        writer.close()


async def main(blob: memoryview, venue: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, blob, venue), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main(memoryview(Path(sys.argv[1]).read_bytes()), sys.argv[2]))
