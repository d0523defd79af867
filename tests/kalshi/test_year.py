"""The finder at the boundaries of the nights that are different; the whole year is `make year`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from tests.kalshi import year

SPANS = {  # start and hours, with what the boundaries must show: windows, and times that one was rightly none
    "spring night": ((2026, 3, 8, 5), 5, 20, 0),
    "autumn night": ((2026, 11, 1, 4), 5, 16, 4),
    "thursday of summer": ((2026, 3, 12, 6), 4, 8, 8),
    "thursday of winter": ((2026, 11, 26, 7), 4, 8, 8),
    "new year": ((2027, 1, 1, 3), 4, 16, 0),
}


@pytest.mark.parametrize("span", SPANS)
def test_ck_04_ro_02_every_boundary_has_its_own_window_or_none(span: str) -> None:
    start, hours, windows, none = SPANS[span]
    done = year.walk(datetime(*start, tzinfo=UTC), hours / 24)
    assert done.problems == []
    assert done.counts["boundaries"] == 4 * hours
    assert done.counts["windows"] == windows
    assert sum(count for what, count in done.counts.items() if what.startswith("none: ")) == 4 * none


def test_the_walk_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour off in the rules is found: by a window that should be none, and one that is none and should not."""
    monkeypatch.setattr(year, "listed", lambda opened: opened.hour != 7)
    done = year.walk(datetime(2026, 11, 1, 4, tzinfo=UTC), 5 / 24)
    assert any("should be none" in problem for problem in done.problems)
    assert any("is none" in problem for problem in done.problems)
