"""Parameters, pages and errors of the Data API v2 (reference: polymarket-markets-and-redeem.md, 3.1)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from aiohttp import web

from pmkit.sim.server import Refused, answer

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

_CODES = {400: "invalid_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 429: "rate_limited"}


def data_error_body(status: int, text: str) -> object:
    """An error in the form of this API."""
    code = _CODES.get(status, "dependency_unavailable" if status == 503 else "internal")
    return {"error": text, "code": code, "retryable": status in (429, 503), "trace_id": f"local-{status}"}


def query(request: web.Request, name: str, *others: str) -> list[str]:
    """All values of a parameter, repeated or separated by commas, in snake or camel case."""
    head, *tail = name.split("_")
    camel = head + "".join(word.title() for word in tail)
    found = [text for key in (name, camel, *others) for text in request.query.getall(key, [])]
    return [value for text in found for value in text.split(",") if value]


def paged(request: web.Request, rows: list[dict[str, Any]]) -> web.Response:
    """One page of rows. Raises Refused (400)."""
    if "offset" in request.query:
        raise Refused(400, "offset is not supported: use cursor")
    text = (query(request, "limit") or [str(DEFAULT_LIMIT)])[0]
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise Refused(400, f"limit must be between 1 and {MAX_LIMIT}")
    limit = int(text)
    cursor = (query(request, "cursor", "next_cursor") or [""])[0]
    try:
        start = int(base64.urlsafe_b64decode(cursor)) if cursor else 0
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "invalid cursor") from error
    end = start + limit
    more = end < len(rows)
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if more else None
    return answer(
        {
            "data": rows[start:end],
            "pagination": {"limit": limit, "offset": start, "has_more": more, "next_cursor": following},
        }
    )


def user_of(request: web.Request) -> str | None:
    """The wallet that is asked about, in lower case."""
    found = query(request, "user")
    return found[0].lower() if found else None


def conditions_of(request: web.Request) -> set[str]:
    """The conditions that are asked about. Raises Refused (400) for too many."""
    found = set(query(request, "condition", "condition_id", "conditionId"))
    if len(found) > 20:
        raise Refused(400, "at most 20 conditions")
    return found


def amount_of(request: web.Request, default: float) -> float:
    """The least amount of a row. Raises Refused (400)."""
    text = (query(request, "filter_amount") or [str(default)])[0]
    try:
        return float(text)
    except ValueError as error:
        raise Refused(400, "invalid filter_amount") from error
