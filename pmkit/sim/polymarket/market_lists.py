"""The CLOB's lists of markets, page by page (docs.polymarket.com/api-reference/markets).

Four routes, one form: `limit`, `count` (rows of this page), `next_cursor` (base64 of the place in the list; "LTE=" is
the end, as base64 of -1) and `data`. "Sampling" ones are those with rewards, which no Up/Down market has.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from aiohttp import web

from pmkit.sim.polymarket.market import Window
from pmkit.sim.server import Refused, Server, answer

PAGE = 1_000
END = "LTE="
SIMPLE = ("accepting_orders", "active", "archived", "closed", "condition_id", "rewards", "tokens")


class MarketLists:
    """Registers the routes on a server. `windows()`: what the CLOB knows, oldest first; `row(window)`: as one market
    is told alone."""

    def __init__(
        self, server: Server, windows: Callable[[], Iterable[Window]], row: Callable[[Window], dict[str, Any]]
    ) -> None:
        self._windows = windows
        self._row = row
        server.get("/markets", self._full)
        server.get("/simplified-markets", self._simplified)
        server.get("/sampling-markets", self._none)
        server.get("/sampling-simplified-markets", self._none)

    async def _full(self, request: web.Request) -> web.Response:
        return answer(_page(request, self._windows(), self._row))

    async def _simplified(self, request: web.Request) -> web.Response:
        def simple(window: Window) -> dict[str, Any]:
            row = self._row(window)
            return {name: row[name] for name in SIMPLE}

        return answer(_page(request, self._windows(), simple))

    async def _none(self, request: web.Request) -> web.Response:
        return answer(_page(request, (), self._row))


def _page(request: web.Request, windows: Iterable[Window], row: Callable[[Window], dict[str, Any]]) -> dict[str, Any]:
    start = _place(request.query.get("next_cursor", ""))
    found = list(islice(windows, start, start + PAGE + 1))
    data = [row(window) for window in found[:PAGE]]
    following = base64.b64encode(b"%d" % (start + PAGE)).decode() if len(found) > PAGE else END
    return {"limit": PAGE, "count": len(data), "next_cursor": following, "data": data}


def _place(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor, validate=True)
    except binascii.Error:
        text = b"?"
    if text and not text.isdigit():
        raise Refused(400, "invalid next_cursor")
    return int(text or 0)
