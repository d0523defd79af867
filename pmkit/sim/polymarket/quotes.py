"""Prices of the CLOB that are read off the book: of one token, or of up to MAX_QUOTES (polymarket-trading.md, 3.10).

The answers for several tokens leave out what the CLOB has no book of.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from aiohttp import web

from pmkit.sim.engine import PRICE_UNITS
from pmkit.sim.polymarket.book import NO_BOOK, TokenBook, last_text, price_text, touch
from pmkit.sim.polymarket.live import LiveMarket
from pmkit.sim.polymarket.market import Window
from pmkit.sim.server import Refused, Server, answer

MAX_QUOTES = 500
NEVER_TRADED = {"price": "0.5", "side": ""}
"""What the OpenAPI says the last trade is where there was none."""


class Markets(Protocol):
    """What the routes need of the venue."""

    def known(self, key: str) -> Window | None:
        """A window that the CLOB knows, by condition or token id."""

    def running(self, window: Window) -> LiveMarket | None:
        """Its engine, started when it may trade now."""

    def book_of(self, token: str) -> TokenBook | None:
        """The book of a token, None where the CLOB has none (any more)."""


class _Asked(msgspec.Struct):
    token_id: str
    side: str = ""


_asked = msgspec.json.Decoder(list[_Asked])


class QuoteRoutes:
    """Registers the routes on a server."""

    def __init__(self, server: Server, markets: Markets) -> None:
        self._markets = markets
        server.get("/price", self._price)
        server.post("/prices", self._prices)
        server.get("/midpoint", self._midpoint)
        server.post("/midpoints", self._midpoints)
        server.get("/spread", self._spread)
        server.post("/spreads", self._spreads)
        server.get("/last-trade-price", self._last)
        server.post("/last-trades-prices", self._lasts)

    def _found(self, request: web.Request) -> TokenBook:
        token = request.query.get("token_id", "")
        if not token.isdecimal():
            raise Refused(400, "Invalid token id")
        book = self._markets.book_of(token)
        if book is None:
            raise Refused(404, NO_BOOK)
        return book

    async def _several(self, request: web.Request) -> list[tuple[_Asked, TokenBook]]:
        try:
            asked = _asked.decode(await request.read())
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid payload") from error
        if len(asked) > MAX_QUOTES:
            raise Refused(400, "Payload exceeds the limit")
        return [(row, book) for row in asked if (book := self._markets.book_of(row.token_id)) is not None]

    # ---- the touch

    @staticmethod
    def _side_price(book: TokenBook, side: str) -> str:
        # BUY is the best bid, not the price that a buyer pays (seen in production, section 3.10).
        if side.upper() not in ("BUY", "SELL"):
            raise Refused(400, "Invalid side")
        return book.best_bid_text() if side.upper() == "BUY" else book.best_ask_text()

    async def _price(self, request: web.Request) -> web.Response:
        return answer({"price": self._side_price(self._found(request), request.query.get("side", ""))})

    async def _prices(self, request: web.Request) -> web.Response:
        found: dict[str, dict[str, str]] = {}
        for row, book in await self._several(request):
            found.setdefault(row.token_id, {})[row.side.upper()] = self._side_price(book, row.side)
        return answer(found)

    @staticmethod
    def _middle(book: TokenBook) -> str:
        return f"{sum(touch(book)) / 2 / PRICE_UNITS:.5f}".rstrip("0").rstrip(".")

    async def _midpoint(self, request: web.Request) -> web.Response:
        return answer({"mid": self._middle(self._found(request))})

    async def _midpoints(self, request: web.Request) -> web.Response:
        return answer({row.token_id: self._middle(book) for row, book in await self._several(request)})

    @staticmethod
    def _width(book: TokenBook) -> str:
        bid, ask = touch(book)
        return price_text(ask - bid)

    async def _spread(self, request: web.Request) -> web.Response:
        return answer({"spread": self._width(self._found(request))})

    async def _spreads(self, request: web.Request) -> web.Response:
        return answer({row.token_id: self._width(book) for row, book in await self._several(request)})

    # ---- the last trade

    def _last_trade(self, book: TokenBook) -> dict[str, Any] | None:
        window = self._markets.known(book.token)
        live = self._markets.running(window) if window is not None else None
        if live is None or live.last_trade is None:
            return None
        return {"price": last_text(live.last_trade), "side": live.last_side.value}

    async def _last(self, request: web.Request) -> web.Response:
        return answer(self._last_trade(self._found(request)) or NEVER_TRADED)

    async def _lasts(self, request: web.Request) -> web.Response:
        """What nobody has traded is left out: the documented rows have a side."""
        rows = [(row.token_id, self._last_trade(book)) for row, book in await self._several(request)]
        return answer([{"token_id": token, **last} for token, last in rows if last is not None])
