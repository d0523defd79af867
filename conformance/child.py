"""What the client scripts share. Each is a process of its own in the environment of the clients, and talks JSON lines.

The first line on standard input is an object of settings (the endpoints of the local venues, a key). Every further line
is `{"call": name, "args": {...}}`, answered by one line: `{"result": ...}`, or `{"error": {"type": ..., "text": ...}}`
where the client raised. The end of the input ends the process. Nothing but loopback can be reached from here.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

Calls = Mapping[str, Callable[..., Awaitable[Any]]]
Settings = dict[str, Any]

BLOCKED = "this process may reach loopback only, not"


def _is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _guard(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: a client that turns to a real venue fails, instead of reading from it unnoticed.

    It is written to standard error as well, where the tests look for it: the client may hide the failure.
    """
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if not _is_loopback(host):
        os.write(2, f"{BLOCKED} {host}\n".encode())
        raise PermissionError(errno.EPERM, f"{BLOCKED} {host}")


def plain(value: Any) -> Any:
    """What JSON cannot say by itself: decimals, dates and enums as text, models as objects."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _run(
    distribution: str, connect: Callable[[Settings], AbstractAsyncContextManager[Calls]], answers: int
) -> None:
    def say(answer: object) -> None:
        raw = json.dumps(answer, default=plain).encode() + b"\n"
        while raw:
            raw = raw[os.write(answers, raw) :]

    reader = await _lines()
    settings = json.loads(await reader.readline())
    async with connect(settings) as calls:
        say({"result": {"version": version(distribution), "python": platform.python_version()}})
        while line := await reader.readline():
            request = json.loads(line)
            try:
                result = await calls[request["call"]](**request["args"])
            except Exception as error:  # whatever a client raises is its answer
                say({"error": {"type": type(error).__name__, "text": str(error), **_details(error)}})
            else:
                say({"result": result})


def _details(error: Exception) -> dict[str, Any]:
    """What several clients tell of a refusal, where they do."""
    names = ("status_code", "status", "code", "restriction", "retry_after", "heartbeat_id")
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, int | float | str)}


def serve(distribution: str, connect: Callable[[Settings], AbstractAsyncContextManager[Calls]]) -> None:
    """Answer calls until the input ends. `connect(settings)` opens the client and gives what it can be asked."""
    sys.addaudithook(_guard)
    # Standard output carries answers only: whatever a client prints goes to standard error.
    answers = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(_run(distribution, connect, answers))
