"""The loopback Binance of the history benchmark, in a process of its own: `_history_server.py SETTINGS_JSON`.

Klines of any range out of ready-made rows, exchangeInfo, time, bulk files from a directory, each `latency` seconds
after its request came. Weight is counted as the venue does; `/stats` tells the most that was spent in any minute.
Prints its port, ends with its input. HTTP is done by hand: the server must not be what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SECOND = 1000
FIRST_MS = 1_502_942_400_000
ROWS = 1000


def tail(slot: int) -> str:
    """open to volume of a second, as CSV text; repeats every 1000 seconds."""
    price = 70_000 + slot * 37 % 997 / 100
    spread = slot % 13 / 100
    return (
        f"{price:.8f},{price + spread + 0.01:.8f},{price - spread:.8f},{price + spread / 2:.8f},"
        f"{slot % 71 / 7 + 0.00001:.8f}"
    )


TAILS = [tail(slot) for slot in range(ROWS)]
_QUOTED = ['"' + text.replace(",", '","') + '"' for text in TAILS]
_REST = ',"181409.45213300",203,"2.42841000","171201.14910540","0"]'


def page(start: int, end: int, limit: int) -> bytes:
    """The body of a klines answer: start <= open <= end."""
    first = -(-max(start, FIRST_MS) // SECOND)
    last = min(end // SECOND, first + limit - 1)
    rows = [f"[{at}000,{_QUOTED[at % ROWS]},{at}999{_REST}" for at in range(first, last + 1)]
    return ("[" + ",".join(rows) + "]").encode()


def csv(start: int, end: int) -> bytes:
    """The rows of start <= open < end as pmkit writes them, without the header."""
    return "".join([f"{at}000,{TAILS[at % ROWS]}\n" for at in range(start // SECOND, end // SECOND)]).encode()


def bulk_lines(start: int, end: int) -> bytes:
    """The same as a bulk file has them, in microseconds."""
    rest = "181409.45213300,203,2.42841000,171201.14910540,0\n"
    return "".join(
        [f"{at}000000,{TAILS[at % ROWS]},{at}999999,{rest}" for at in range(start // SECOND, end // SECOND)]
    ).encode()


SYMBOL: dict[str, Any] = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": 8, "quoteAsset": "USDT",
    "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT"], "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.00", "stepSize": "0.00001"},
    ],
}  # fmt: skip


class Server:
    """Answers; `settings`: latency, limit, minute (seconds of the weight's minute), bulk (directory)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.latency: float = settings.get("latency", 0.0)
        self.limit: int = settings.get("limit", 6000)
        self.minute: float = settings.get("minute", 60.0)
        self.bulk = Path(settings["bulk"]) if settings.get("bulk") else None
        self.spent: deque[tuple[float, int]] = deque()
        self.used = self.most = self.requests = self.refused = 0
        self._pages: dict[tuple[int, int, int], bytes] = {}

    def charge(self, weight: int) -> bool:
        now = time.monotonic()
        while self.spent and self.spent[0][0] <= now - self.minute:
            self.used -= self.spent.popleft()[1]
        self.spent.append((now, weight))
        self.used += weight
        self.most = max(self.most, self.used)
        self.requests += 1
        return self.used <= self.limit

    def answer(self, target: str) -> tuple[int, bytes, str]:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        name = parts.path.rpartition("/")[2]
        if parts.path == "/stats":
            found = {"most": self.most, "requests": self.requests, "refused": self.refused}
            self.most = self.used
            self.requests = self.refused = 0
            return 200, json.dumps(found).encode(), ""
        if parts.path.startswith("/data/"):
            file = self.bulk / name if self.bulk else None
            return (200, file.read_bytes(), "") if file and file.is_file() else (404, b"", "")
        weight = {"klines": 2, "exchangeInfo": 20}.get(name, 1)
        if not self.charge(weight):
            self.refused += 1
            return 429, b'{"code":-1003,"msg":"Too much request weight used"}', "Retry-After: 5\r\n"
        extra = f"X-MBX-USED-WEIGHT-1M: {self.used}\r\n"
        now = int(time.time() * 1000)
        if name == "klines":
            key = (int(query.get("startTime", 0)), int(query.get("endTime", now)), int(query.get("limit", 500)))
            body = self._pages.get(key)
            if body is None:
                body = page(*key)
                if key[1] < now - 60_000 and len(self._pages) < 1200:
                    self._pages[key] = body
            return 200, body, extra
        if name == "exchangeInfo":
            limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.limit}]
            info = {"timezone": "UTC", "serverTime": now, "rateLimits": limits, "symbols": [SYMBOL]}
            return 200, json.dumps(info).encode(), extra
        return 200, json.dumps({"serverTime": now}).encode(), extra

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1].decode()
                status, body, extra = self.answer(target)
                if self.latency:
                    await asyncio.sleep(self.latency)
                kind = "OK" if status == 200 else "No"
                writer.write(
                    f"HTTP/1.1 {status} {kind}\r\nContent-Type: application/json\r\n{extra}"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()


async def main(settings: dict[str, Any]) -> None:
    server = await asyncio.start_server(Server(settings).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
