"""`python -m pmkit.sim ['{"seed": 7, "factor": 45, "assets": ["BTC"], "first_boundary_wall_seconds": 20}']`

Starts all local venues, prints one JSON line with their endpoints, a Kalshi key and funded Polymarket accounts, and
serves until its standard input closes or a SIGTERM or SIGINT comes. Exit codes: 0, or 2 for a wrong setting (said on
standard error).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from pmkit.errors import ConfigError

if TYPE_CHECKING:
    from pmkit.sim.venues import LocalVenues


class SimSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the JSON argument may say; units as in `LocalVenues`."""

    seed: int = 7
    factor: float = 1.0
    assets: tuple[str, ...] = ("BTC", "ETH", "SOL", "XRP")
    first_boundary_wall_seconds: float | None = None
    ports: dict[str, int] = {}
    start: Annotated[datetime, msgspec.Meta(tz=True)] | None = None  # "2026-03-13T00:00:00Z"
    binance_days: tuple[str, ...] = ()
    contracts: str | None = None

    @classmethod
    def read(cls, arguments: list[str]) -> SimSettings:
        """Raises ConfigError for anything but nothing or one JSON object."""
        if not arguments:
            return cls()
        if len(arguments) > 1:
            raise ConfigError(f"expected at most one argument, a JSON object, not {len(arguments)}")
        try:
            return msgspec.json.decode(arguments[0], type=cls)
        except msgspec.MsgspecError as error:
            fields = ", ".join(cls.__struct_fields__)
            raise ConfigError(f"the argument must be a JSON object of {fields}: {error}") from error


def make_venues(settings: SimSettings) -> LocalVenues:
    """Raises ConfigError for a bad setting, or where aiohttp is not installed."""
    from pmkit.sim.venues import LocalVenues

    return LocalVenues(
        seed=settings.seed,
        factor=settings.factor,
        assets=settings.assets,
        first_boundary_wall_seconds=settings.first_boundary_wall_seconds,
        ports=settings.ports,
        start=settings.start,
        binance_days=settings.binance_days,
        contracts=settings.contracts,
    )


def first_line(venues: LocalVenues) -> str:
    """The JSON line that tells a parent process everything."""
    key = {"id": venues.kalshi_key.id, "pem": venues.kalshi_key.pem}
    accounts = {str(kind): account.json() for kind, account in venues.polymarket_accounts.items()}
    polymarket = venues.polymarket
    if polymarket.chain is not None:
        for account in polymarket.test_accounts.values():
            accounts[str(account.signature_type)]["relayer_key"] = polymarket.chain.relayer.make_key(account.address)
    line = {
        "endpoints": venues.endpoints,
        "kalshi_key": key,
        "polymarket_account": venues.polymarket_account.json(),
        "polymarket_accounts": accounts,
    }
    return msgspec.json.encode(line).decode()


def _watch_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Read standard input to its end in a thread of its own.

    `os.read` and not `sys.stdin`: a daemon thread that holds the lock of a buffered reader breaks the exit of Python.
    """

    def read() -> None:
        with suppress(OSError):  # a closed or missing standard input is its end
            while os.read(0, 4096):
                pass
        with suppress(RuntimeError):  # the loop is gone already
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="standard input", daemon=True).start()


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))


async def serve(settings: SimSettings) -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _on_signals(loop, stop)
    async with make_venues(settings) as venues:
        print(first_line(venues), flush=True)
        _watch_input(loop, stop)
        await stop.wait()


def main(arguments: list[str]) -> int:
    try:
        asyncio.run(serve(SimSettings.read(arguments)))
    except ConfigError as error:
        print(f"pmkit.sim: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever started this is gone before it read the line; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
