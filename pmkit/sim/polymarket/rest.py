"""The public side of the CLOB but for its quotes (reference: polymarket-trading.md, 3.10, 3.11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.engine import PRICE_UNITS
from pmkit.sim.polymarket.book import MIN_ORDER_SHARES, NO_BOOK, TokenBook, price_of, touch
from pmkit.sim.polymarket.gamma import BASE_FEE, FEE_SCHEDULE, description, iso, tags_of
from pmkit.sim.polymarket.live import LiveMarket
from pmkit.sim.polymarket.market import OUTCOMES, Window
from pmkit.sim.polymarket.market_lists import MarketLists
from pmkit.sim.server import Refused, Server, answer
from pmkit.sim.world import World

MAX_BOOKS = 500
MAX_HISTORY_SECONDS = 15 * 86_400
NOT_BUILT = "not built in this local venue yet"

_INTERVAL_SECONDS = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "1w": 604_800, "1m": 2_592_000, "max": 0, "all": 0}


class Markets(Protocol):
    """What the routes need of the venue."""

    world: World
    clock: Clock

    def known(self, key: str) -> Window | None:
        """A window that the CLOB knows, by condition or token id."""

    def listed(self) -> Iterable[Window]:
        """All windows that the CLOB knows, oldest first."""

    def running(self, window: Window) -> LiveMarket | None:
        """Its engine, started when it may trade now."""

    def book_of(self, token: str) -> TokenBook | None:
        """The book of a token, None where the CLOB has none (any more)."""


class _Wanted(msgspec.Struct):
    token_id: str


_wanted = msgspec.json.Decoder(list[_Wanted])


class ClobRoutes:
    """Registers the routes on a server."""

    def __init__(self, server: Server, markets: Markets) -> None:
        self._markets = markets
        server.get("/time", self._time)
        server.get("/ok", self._ok)
        server.get("/version", self._version)
        server.get("/book", self._book)
        server.post("/books", self._books)
        server.get("/tick-size", self._tick_size)
        server.get("/neg-risk", self._neg_risk)
        server.get("/fee-rate", self._fee_rate)
        server.get("/prices-history", self._history)
        server.get("/markets-by-token/{token}", self._by_token)
        server.get("/markets/{condition}", self._market)
        MarketLists(server, markets.listed, self._row)
        server.get("/clob-markets/{condition}", self._clob_market)

    # ---- the venue itself

    async def _time(self, request: web.Request) -> web.Response:
        return answer(self._markets.clock.now_ms() // 1000)

    async def _ok(self, request: web.Request) -> web.Response:
        return answer("OK")

    async def _version(self, request: web.Request) -> web.Response:
        return answer({"version": 2})

    # ---- books

    def _token(self, request: web.Request, name: str = "token_id") -> str:
        token = request.query.get(name, "")
        if not token.isdecimal():
            raise Refused(400, "Invalid token id")
        return token

    def _found(self, request: web.Request) -> TokenBook:
        book = self._markets.book_of(self._token(request))
        if book is None:
            raise Refused(404, NO_BOOK)
        return book

    async def _book(self, request: web.Request) -> web.Response:
        return answer(self._found(request).rest_json().encode())

    async def _books(self, request: web.Request) -> web.Response:
        try:
            wanted = _wanted.decode(await request.read())
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid payload") from error
        if len(wanted) > MAX_BOOKS:
            raise Refused(400, "Payload exceeds the limit")
        # Unknown tokens are left out, and the answer does not keep the order of the question.
        tokens = sorted({row.token_id for row in wanted})
        books = [book.rest_json() for token in tokens if (book := self._markets.book_of(token)) is not None]
        return answer(f"[{','.join(books)}]".encode())

    async def _tick_size(self, request: web.Request) -> web.Response:
        return answer({"minimum_tick_size": self._found(request).tick / PRICE_UNITS})

    async def _neg_risk(self, request: web.Request) -> web.Response:
        self._found(request)
        return answer({"neg_risk": False})

    async def _fee_rate(self, request: web.Request) -> web.Response:
        self._found(request)
        return answer({"base_fee": BASE_FEE})

    # ---- markets

    def _window(self, key: str) -> Window:
        window = self._markets.known(key)
        if window is None:
            raise Refused(404, "market not found")
        return window

    async def _by_token(self, request: web.Request) -> web.Response:
        window = self._window(request.match_info["token"])
        primary, secondary = window.tokens
        return answer(
            {"condition_id": window.condition_id, "primary_token_id": primary, "secondary_token_id": secondary}
        )

    def _tick(self, window: Window) -> float:
        book = self._markets.book_of(window.tokens[0])
        return 0.001 if book is None else book.tick / PRICE_UNITS

    def _tokens(self, window: Window, now_ms: int) -> list[dict[str, Any]]:
        if now_ms < window.tokens_known_ms:
            return [{"token_id": "", "outcome": "", "price": 0, "winner": False} for _ in OUTCOMES]
        resolved = now_ms >= window.resolved_ms
        up = self._markets.world.went_up(window.asset, window.open_ms, window.close_ms) if resolved else False
        rows = []
        for outcome, token in enumerate(window.tokens):
            winner = resolved and up == (outcome == 0)
            book = self._markets.book_of(token)
            if resolved:
                price: float = int(winner)
            elif book is None or not (book.bids or book.asks):
                price = 0.5
            else:
                price = sum(touch(book)) / 2 / PRICE_UNITS
            rows.append({"token_id": token, "outcome": OUTCOMES[outcome], "price": price, "winner": winner})
        return rows

    async def _market(self, request: web.Request) -> web.Response:
        return answer(self._row(self._window(request.match_info["condition"])))

    def _row(self, window: Window) -> dict[str, Any]:
        now = self._markets.clock.now_ms()
        known = now >= window.tokens_known_ms
        closed = now >= window.resolved_ms
        return {
            "accepting_order_timestamp": iso(window.accepting_ms),
            "accepting_orders": known and window.accepts(now),
            "active": known,
            "archived": False,
            "closed": closed,
            "condition_id": window.condition_id,
            "description": description(window),
            "enable_order_book": known and not closed,
            "end_date_iso": iso(window.close_ms),
            "fpmm": "",
            "game_start_time": iso(window.open_ms),
            "icon": "",
            "image": "",
            "is_50_50_outcome": False,
            "maker_base_fee": BASE_FEE,
            "market_slug": window.slug,
            "minimum_order_size": MIN_ORDER_SHARES,
            "minimum_tick_size": self._tick(window),
            "neg_risk": False,
            "neg_risk_market_id": "",
            "neg_risk_request_id": "",
            "notifications_enabled": True,
            "question": window.title,
            "question_id": window.question_id,
            "rewards": {"max_spread": 4.5, "min_size": 50, "rates": None},
            "seconds_delay": 0,
            "tags": [label for _, label, _ in tags_of(window)],
            "taker_base_fee": BASE_FEE,
            "tokens": self._tokens(window, now),
        }

    async def _clob_market(self, request: web.Request) -> web.Response:
        window = self._window(request.match_info["condition"])
        now = self._markets.clock.now_ms()
        known = now >= window.tokens_known_ms
        tokens = window.tokens if known else ("", "")
        labels = OUTCOMES if known else ("", "")
        return answer(
            {
                "gst": iso(window.open_ms),
                "t": [{"t": token, "o": label} for token, label in zip(tokens, labels, strict=True)],
                "mos": MIN_ORDER_SHARES,
                "mts": self._tick(window),
                "mbf": BASE_FEE,
                "tbf": BASE_FEE,
                "ao": known and window.accepts(now),
                "itode": True,
                "fd": {"r": FEE_SCHEDULE["rate"], "e": FEE_SCHEDULE["exponent"], "to": FEE_SCHEDULE["takerOnly"]},
                "v": "v1",
            }
        )

    # ---- history

    async def _history(self, request: web.Request) -> web.Response:
        """Minute points at the fair value of the moment (what `p` means is not documented)."""
        window = self._markets.known(self._token(request, "market"))
        now = self._markets.clock.now_ms() // 1000
        start, end = self._span(request, now)
        if window is None or now * 1000 >= window.resolved_ms:
            return answer({"history": []})  # resolved markets were empty at fine granularity
        fidelity = request.query.get("fidelity", "1")
        if not fidelity.isdecimal() or not int(fidelity):
            raise Refused(400, "invalid fidelity")
        step = int(fidelity) * 60
        outcome = window.outcome_of(request.query["market"])
        first = max(start, window.tokens_known_ms // 1000, now - MAX_HISTORY_SECONDS)
        points = []
        for second in range(-(-first // step) * step, min(end, now, window.close_ms // 1000) + 1, step):
            fair = self._markets.world.fair_up(window.asset, window.open_ms, window.close_ms, second * 1000)
            price = max(1, min(PRICE_UNITS - 1, round(fair * 200) * (PRICE_UNITS // 200)))
            points.append({"t": second, "p": price_of(price, outcome) / PRICE_UNITS})
        return answer({"history": points})

    @staticmethod
    def _span(request: web.Request, now: int) -> tuple[int, int]:
        interval, start, end = (request.query.get(name) for name in ("interval", "startTs", "endTs"))
        if interval is not None:
            if interval not in _INTERVAL_SECONDS:
                raise Refused(400, f"invalid interval: {interval}")
            seconds = _INTERVAL_SECONDS[interval]
            return (now - seconds if seconds else 0), now
        if start is None or not start.isdecimal() or (end is not None and not end.isdecimal()):
            raise Refused(400, "one of interval and startTs must be given")
        span = int(start), now if end is None else int(end)
        if span[1] - span[0] > MAX_HISTORY_SECONDS:
            raise Refused(400, "the interval is too long: at most 15 days")
        return span
