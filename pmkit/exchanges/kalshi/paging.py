"""Kalshi's lists, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, TypeVar

from pmkit.errors import VenueUnavailable
from pmkit.exchanges.kalshi.signed_http import SignedSession

PAGE: Final = 1000
MAX_PAGES: Final = 500


class _Page(Protocol):
    @property
    def cursor(self) -> str | None: ...


P = TypeVar("P", bound=_Page)
R = TypeVar("R")


async def pages(
    session: SignedSession,
    path: str,
    kind: type[P],
    rows: Callable[[P], list[R] | None],
    params: dict[str, str | int],
) -> AsyncIterator[R]:
    """Every row of a list. The end is an absent or empty cursor.

    Raises VenueUnavailable for a cursor that repeats and for a list without an end: half a list is no answer.
    """
    cursor, seen = "", set[str]()
    for _ in range(MAX_PAGES):
        page = await session.get(path, kind, {**params, "limit": PAGE, **({"cursor": cursor} if cursor else {})})
        for row in rows(page) or ():
            yield row
        cursor = page.cursor or ""
        if not cursor:
            return
        if cursor in seen:
            raise VenueUnavailable(f"GET {path} repeats its cursor: the list has no end")
        seen.add(cursor)
    raise VenueUnavailable(f"GET {path} has more than {MAX_PAGES} pages")
