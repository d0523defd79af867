"""A share of `python -m tests.kalshi.fuzz`, whose whole is 100,000 damaged frames and bodies of each kind."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from tests.kalshi.fuzz import fuzz

SHARES = {"books": 600, "user": 1500, "index": 1500, "answers": 2000, "bodies": 200}
SEEN = {
    "books": ("damage", "drop", "valid"),
    "user": ("taken", "refused", "fills", "orders"),
    "index": ("taken", "refused"),
    "answers": ("order", "refused", "unknown", "duplicate"),
    "bodies": ("answered", "ProtocolChanged"),
}


@pytest.mark.parametrize("part", SHARES)
def test_md_18_rs_12_damage_raises_nothing_and_makes_no_wrong_book_valid(part: str) -> None:
    found = fuzz(part, SHARES[part], seed=3)
    assert all(found[what] for what in SEEN[part]), found


def test_rs_12_bytes_that_are_no_text_in_one_row_leave_the_others() -> None:
    """A row of a list is decoded by itself, and only then is it seen that its bytes are no UTF-8."""
    import msgspec

    from pmkit.clock import ManualClock
    from pmkit.endpoints import Endpoints
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData
    from pmkit.exchanges.kalshi.rest_messages import SeriesRow

    data = KalshiMarketData(Endpoints.real(), ManualClock())
    rows = data.catalogue._rows([msgspec.Raw(b'{"ticker":"A\xf9"}'), msgspec.Raw(b'{"ticker":"B"}')], SeriesRow)
    assert [row.ticker for row in rows] == ["B"]
    assert data.catalogue.odd_rows == 1
