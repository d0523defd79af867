"""Routes of the Gamma API: by slug, by id, lists, series (reference: polymarket-markets-and-redeem.md, 1.1, 1.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from pmkit.clock import to_ms
from pmkit.sim.polymarket.gamma import GammaRows, tags_of, volume
from pmkit.sim.polymarket.market import Listings, Window
from pmkit.sim.server import Refused, Server, answer

MAX_MARKETS = 100
MAX_EVENTS = 500
MAX_SERIES = 50
MAX_VALUES = 100
DEFAULT_LIMIT = 20
DEEPEST_CLOSED_ROW = 2_100
_SUNSET = {"deprecation": "true", "sunset": "Fri, 01 May 2026 00:00:00 GMT"}

SortKey = tuple[float | str, int]


def error_body(status: int, text: str) -> dict[str, str]:
    kind = "not found error" if status == 404 else "validation error" if status == 422 else "error"
    return {"type": kind, "error": text}


class _Cursor(msgspec.Struct, array_like=True):
    """Where a page ended: the sort value and id of its last row, and how many rows came before."""

    value: float | str
    number: int
    seen: int


@dataclass(frozen=True, slots=True)
class _Query:
    """The parameters of a list request."""

    request: web.Request

    def text(self, name: str) -> str | None:
        return self.request.query.get(name)

    def values(self, name: str) -> list[str]:
        """Repeated or comma separated. Raises Refused (422) for more than 100."""
        found = [value for text in self.request.query.getall(name, []) for value in text.split(",") if value]
        if len(found) > MAX_VALUES:
            raise Refused(422, f"{name}: at most {MAX_VALUES} values")
        return found

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in ("true", "false"):
            raise Refused(422, f"{name} must be true or false")
        return value.lower() == "true"

    def number(self, name: str, default: int, highest: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not value.isdecimal():
            raise Refused(422, f"{name} must be a whole number")
        return min(int(value), highest)

    def moment(self, name: str) -> int | None:
        """ISO text as epoch ms; unix numbers are refused since June 2026."""
        value = self.text(name)
        if value is None:
            return None
        try:
            if value.replace(".", "").isdecimal():
                raise ValueError(value)
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise Refused(422, f"{name} must be an ISO 8601 time") from error
        return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


class GammaRoutes:
    """`state_ms` is the moment whose state is answered (now, or earlier where answers are cached)."""

    def __init__(self, server: Server, listings: Listings, rows: GammaRows, state_ms: Callable[[], int]) -> None:
        self._listings = listings
        self._rows = rows
        self._state_ms = state_ms
        server.get("/events/keyset", self._events_keyset)
        server.get("/markets/keyset", self._markets_keyset)
        server.get("/events/slug/{slug}", self._event_by_slug)
        server.get("/markets/slug/{slug}", self._market_by_slug)
        server.get("/events/{number}", self._event_by_id)
        server.get("/markets/{number}", self._market_by_id)
        server.get("/events", self._events_offset)
        server.get("/markets", self._markets_offset)
        server.get("/series", self._series)
        server.get("/series/{number}", self._series_by_id)

    def _published(self, window: Window | None) -> Window:
        if window is None or window.created_ms > self._state_ms():
            raise Refused(404, "slug not found")
        return window

    async def _event_by_slug(self, request: web.Request) -> web.Response:
        window = self._published(self._listings.find(request.match_info["slug"]))
        return answer(self._rows.event(window, self._state_ms()))

    async def _market_by_slug(self, request: web.Request) -> web.Response:
        window = self._published(self._listings.find(request.match_info["slug"]))
        return answer(self._rows.market(window, self._state_ms(), with_event=True))

    async def _event_by_id(self, request: web.Request) -> web.Response:
        window = self._published(self._listings.event(request.match_info["number"]))
        return answer(self._rows.event(window, self._state_ms()))

    async def _market_by_id(self, request: web.Request) -> web.Response:
        window = self._published(self._listings.market(request.match_info["number"]))
        return answer(self._rows.market(window, self._state_ms(), with_event=True))

    # ---- lists

    async def _events_keyset(self, request: web.Request) -> web.Response:
        windows, following = self._page(_Query(request), self._event_filter(_Query(request)), MAX_EVENTS, "event")
        return _keyset("events", [self._rows.event(window, self._state_ms()) for window in windows], following)

    async def _markets_keyset(self, request: web.Request) -> web.Response:
        windows, following = self._page(_Query(request), self._market_filter(_Query(request)), MAX_MARKETS, "market")
        rows = [self._rows.market(window, self._state_ms(), with_event=True) for window in windows]
        return _keyset("markets", rows, following)

    async def _events_offset(self, request: web.Request) -> web.Response:
        windows = self._offset(_Query(request), self._event_filter(_Query(request)), MAX_EVENTS, "event")
        return answer([self._rows.event(window, self._state_ms()) for window in windows], headers=_SUNSET)

    async def _markets_offset(self, request: web.Request) -> web.Response:
        windows = self._offset(_Query(request), self._market_filter(_Query(request)), MAX_MARKETS, "market")
        rows = [self._rows.market(window, self._state_ms(), with_event=True) for window in windows]
        return answer(rows, headers=_SUNSET)

    def _candidates(self, query: _Query) -> Iterator[Window]:
        """What the filters leave that events and markets share. Closed rows only with `closed=true`."""
        now = self._state_ms()
        closed = query.flag("closed") or False
        slugs = set(query.values("slug"))
        version = query.text("version")
        tag = query.text("tag_id")
        end_min, end_max = query.moment("end_date_min"), query.moment("end_date_max")
        for window in self._listings.published(now):
            if (now >= window.resolved_ms) is not closed or (slugs and window.slug not in slugs):
                continue
            if not _within(window.close_ms, end_min, end_max):
                continue
            if version not in (None, "v1") or (tag is not None and tag not in {row[0] for row in tags_of(window)}):
                continue
            yield window

    def _event_filter(self, query: _Query) -> Iterator[Window]:
        now = self._state_ms()
        series, recurrence, tag = query.text("series_id"), query.text("recurrence"), query.text("tag_slug")
        live, ended, title = query.flag("live"), query.flag("ended"), (query.text("title_search") or "").lower()
        start_min, start_max = query.moment("start_date_min"), query.moment("start_date_max")
        open_min, open_max = query.moment("start_time_min"), query.moment("start_time_max")
        for window in self._candidates(query):
            if series is not None and window.series.series_id != series:
                continue
            if recurrence is not None and window.series.interval != recurrence:
                continue
            if tag is not None and tag not in {row[2] for row in tags_of(window)}:
                continue
            if live is not None and (window.open_ms <= now < window.close_ms) is not live:
                continue
            if ended is not None and (now >= window.close_ms) is not ended:
                continue
            if title and title not in window.title.lower():
                continue
            if not _within(window.created_ms, start_min, start_max) or not _within(window.open_ms, open_min, open_max):
                continue
            yield window

    def _market_filter(self, query: _Query) -> Iterator[Window]:
        now = self._state_ms()
        ids, conditions = set(query.values("id")), set(query.values("condition_ids"))
        tokens, questions = set(query.values("clob_token_ids")), set(query.values("question_ids"))
        status = query.text("uma_resolution_status")
        if query.values("position_ids"):
            return  # no market of this venue has position ids
        for window in self._candidates(query):
            if ids and window.market_id not in ids:
                continue
            if conditions and window.condition_id not in conditions:
                continue
            if tokens and not tokens.intersection(window.tokens):
                continue
            if questions and window.question_id not in questions:
                continue
            if status is not None and status != ("resolved" if now >= window.resolved_ms else ""):
                continue
            yield window

    def _sorted(
        self, query: _Query, windows: Iterator[Window], kind: str
    ) -> tuple[list[Window], Callable[[Window], SortKey]]:
        now = self._state_ms()
        order = query.text("order") or "id"
        world = self._rows.world

        def number(window: Window) -> int:
            return int(window.event_id if kind == "event" else window.market_id)

        columns: dict[str, Callable[[Window], float | str]] = {
            "id": number,
            "endDate": lambda window: window.close_ms,
            "startDate": lambda window: window.created_ms,
            "startTime": lambda window: window.open_ms,
            "eventStartTime": lambda window: window.open_ms,
            "createdAt": lambda window: window.created_ms,
            "closedTime": lambda window: window.resolved_ms,
            "volumeNum": lambda window: volume(world, window, now),
            "volume24hr": lambda window: volume(world, window, now),
            "volume": lambda window: repr(volume(world, window, now)),  # a text column, sorted as text
        }
        if order not in columns:
            raise Refused(422, "order fields are not valid")
        column = columns[order]

        def key(window: Window) -> SortKey:
            return column(window), number(window)

        descending = query.flag("ascending") is False
        return sorted(windows, key=key, reverse=descending), key

    def _page(self, query: _Query, windows: Iterator[Window], most: int, kind: str) -> tuple[list[Window], str | None]:
        if query.text("offset") is not None:
            raise Refused(422, "offset is not supported here, use after_cursor")
        limit = query.number("limit", DEFAULT_LIMIT, most)
        ordered, key = self._sorted(query, windows, kind)
        seen = 0
        if (text := query.text("after_cursor")) is not None:
            cursor = _read_cursor(text)
            seen = cursor.seen
            last = (cursor.value, cursor.number)
            if type(last[0]) is str and ordered and not isinstance(key(ordered[0])[0], str):
                raise Refused(422, "after_cursor is not valid for this order")
            after = query.flag("ascending") is not False
            ordered = [window for window in ordered if (key(window) > last if after else key(window) < last)]
        if query.flag("closed") and seen + limit > DEEPEST_CLOSED_ROW:
            raise Refused(422, "too many rows: narrow the request with end_date_min and end_date_max")
        page = ordered[:limit]
        if len(ordered) <= limit or not page:
            return page, None
        value, number = key(page[-1])
        packed = msgspec.json.encode(_Cursor(value, number, seen + len(page)))
        return page, base64.urlsafe_b64encode(packed).decode()

    def _offset(self, query: _Query, windows: Iterator[Window], most: int, kind: str) -> list[Window]:
        limit = query.number("limit", DEFAULT_LIMIT, most)
        offset = query.number("offset", 0, 10_000)
        return self._sorted(query, windows, kind)[0][offset : offset + limit]

    # ---- series

    async def _series(self, request: web.Request) -> web.Response:
        query = _Query(request)
        limit, offset = query.number("limit", DEFAULT_LIMIT, MAX_SERIES), query.number("offset", 0, 10_000)
        slugs, recurrence = set(query.values("slug")), query.text("recurrence")
        rows = [
            self._rows.series(series)
            for series in self._listings.series
            if (not slugs or series.slug in slugs)
            and recurrence in (None, series.interval)
            and query.flag("closed") is not True
        ]
        return answer(rows[offset : offset + limit])

    async def _series_by_id(self, request: web.Request) -> web.Response:
        for series in self._listings.series:
            if series.series_id == request.match_info["number"]:
                return answer(self._rows.series(series))
        raise Refused(404, "series not found")


def _within(ms: int, low: int | None, high: int | None) -> bool:
    return (low is None or ms >= low) and (high is None or ms <= high)


def _read_cursor(text: str) -> _Cursor:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Cursor)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise Refused(422, "after_cursor is not valid") from error


def _keyset(name: str, rows: list[dict[str, Any]], following: str | None) -> web.Response:
    body: dict[str, object] = {name: rows}
    if following is not None:
        body["next_cursor"] = following
    return answer(body)
