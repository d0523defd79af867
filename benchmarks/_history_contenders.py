"""The contenders of the history benchmark, and the server they fetch from."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import _history_server as venue
from pmkit.clock import SystemClock
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.candle_file import HEADER
from pmkit.endpoints import BinanceEndpoints, Endpoints, Where

START = 1_772_323_200_000  # 2026-03-01
MONTH_MS = 31 * 86_400_000
SECOND = 1000
SHARE = 0.4
PYTHON_BINANCE, CCXT = "python-binance", "ccxt"
PEER_ROWS = {PYTHON_BINANCE: 24_000, CCXT: 50_000}


@contextmanager
def server(**settings: Any) -> Iterator[str]:
    """A server process; its address."""
    command = [sys.executable, venue.__file__, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def stats(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url + "/stats") as answer:
        found: dict[str, int] = json.loads(answer.read())
    return found


def endpoints(url: str) -> Endpoints:
    return Endpoints(where=Where.LOCAL, binance=BinanceEndpoints(rest=(url,), ws=(), bulk=url))


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# The contenders: fetch so many rows into a file, and return its rows without the header.


async def pmkit(url: str, rows: int, directory: Path) -> bytes:
    async with BinanceFetcher(endpoints(url), SystemClock(), share=SHARE) as fetcher:
        found = await fetcher.fetch("BTCUSDT", "1s", START, START + rows * SECOND, directory, source="rest")
    return b"".join(path.read_bytes()[len(HEADER) :] for path in found.files)


async def python_binance(url: str, rows: int, directory: Path) -> bytes:
    from binance import AsyncClient

    AsyncClient.API_URL = f"{url}/api"
    client = await AsyncClient.create()
    try:
        end = START + (rows - 1) * SECOND
        found = await client.get_historical_klines("BTCUSDT", "1s", START, end)
    finally:
        await client.close_connection()
    text = "".join([f"{row[0]},{','.join(row[1:6])}\n" for row in found])
    (directory / "python_binance.csv").write_text(text)
    return text.encode()


async def ccxt(url: str, rows: int, directory: Path) -> bytes:
    import ccxt.async_support

    exchange = ccxt.async_support.binance(
        {"enableRateLimit": True, "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}}
    )
    exchange.urls["api"]["public"] = f"{url}/api/v3"
    found: list[list[float]] = []
    try:
        since = START
        while len(found) < rows:
            page = await exchange.fetch_ohlcv("BTC/USDT", "1s", since, 1000)
            found += page
            since = int(page[-1][0]) + SECOND
    finally:
        await exchange.close()
    text = "".join([f"{int(row[0])},{','.join(map(str, row[1:6]))}\n" for row in found[:rows]])
    (directory / "ccxt.csv").write_text(text)
    return text.encode()


Contender = Callable[[str, int, Path], Awaitable[bytes]]
CONTENDERS: dict[str, Contender] = {"pmkit": pmkit, PYTHON_BINANCE: python_binance, CCXT: ccxt}


def same(name: str, rows: int, found: bytes) -> bool:
    """Whether a CSV is what the server has."""
    expected = venue.csv(START, START + rows * SECOND)
    if name != CCXT:
        return found == expected
    return [list(map(float, line.split(b","))) for line in found.splitlines()] == [
        list(map(float, line.split(b","))) for line in expected.splitlines()
    ]
