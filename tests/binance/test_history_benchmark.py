"""The history benchmark measures what it says: its server's rows are what pmkit must write, and wrong CSVs fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import history
from benchmarks._history_server import bulk_lines, csv, page
from pmkit.data.binance.rows import bulk_rows, page_rows

START, S = history.START, history.SECOND


def test_the_server_has_one_set_of_rows_in_three_forms() -> None:
    end = START + 1000 * S
    chunk = page_rows(page(START, end - 1, 1000), START, end, S)
    assert chunk is not None and chunk.data == csv(START, end)
    assert [found.data for found in bulk_rows(bulk_lines(START, end), START, end, S)] == [csv(START, end)]


def test_contenders_are_compared_and_what_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "version", lambda name: None)  # peers have their own environment
    found = history.Found()
    history.rest(found, 1, 5_000, 0.0)
    assert found.failed == [] and set(found.skipped) == {history.PYTHON_BINANCE, history.CCXT}
    assert 0 < found.spent[0] <= 2 * 30 + 30

    async def forgetful(url: str, rows: int, directory: Path) -> bytes:
        return (await history.pmkit(url, rows, directory))[86:]

    monkeypatch.setitem(history.CONTENDERS, "pmkit", forgetful)
    history.rest(found, 1, 5_000, 0.0)
    assert found.failed == ["pmkit: its CSV is not what the server has"]
