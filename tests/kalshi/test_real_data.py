"""The real account and the real windows: every row explained or of a named kind, and a check that can fail."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.real_data.__main__ import main
from tests.real_data.forms import UnknownForm, read
from tests.real_data.money import check_fills, check_orders
from tests.real_data.windows import CUT, LATE, NO_DATA, check_markets, check_settled

FILLS, ORDERS = "rest_fills_jul2026.csv.gz", "rest_orders_jul2026.csv.gz"
SETTLED = "settled_15m_markets_may_jul2026.csv.gz"


@pytest.fixture
def sessions(recordings: Path) -> Path:
    return recordings / "kalshi" / "sessions"


def test_recorded_fills_and_orders(sessions: Path) -> None:
    report, fills = check_fills(FILLS, read(sessions / FILLS).rows, set())
    assert (report.exact, report.total) == (1658, 1679)
    assert not report.failed
    # Four sports series charge makers; their fee type is not in the file, one rule fits all their fills.
    assert [len(rows) for rows in report.named.values()] == [21]
    assert {row.split()[0] for rows in report.named.values() for row in rows} == {
        "KXATPMATCH",
        "KXMLBGAME",
        "KXWNBAGAME",
        "KXWTAMATCH",
    }
    orders = check_orders(ORDERS, read(sessions / ORDERS).rows, fills, has_fills=True)
    assert (orders.exact, orders.total, orders.failed, orders.notes) == (1359, 1359, {}, [])


def test_recorded_windows(sessions: Path, recordings: Path) -> None:
    report = check_settled(SETTLED, read(sessions / SETTLED).rows)
    assert report.total == 38_474
    assert not report.failed
    assert {kind: len(rows) for kind, rows in report.named.items()} == {LATE: 1150, CUT: 8}
    path = recordings / "kalshi" / "rest" / "markets_settled_KXBTC15M_missing_strike.json"
    missing = check_markets(path.name, read(path).rows)
    assert (missing.exact, {kind: len(rows) for kind, rows in missing.named.items()}) == (7, {NO_DATA: 2})


def test_the_command(sessions: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, fees = sessions / "order_api_log_20260804_maker.jsonl.gz", recordings / "kalshi" / "rest" / "fees_charged.json"
    assert main([str(log), str(fees), str(sessions / ORDERS)]) == 0
    out = capsys.readouterr().out
    assert "fees_charged.json: 4 of 4" in out
    assert "no file of fills was given" in out
    assert out.splitlines()[-1].startswith("1558 of 1560; the rest: 2 named")


def test_files_of_no_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junk = {"a.csv": b"x,y\n1,2\n", "b.json": b"{oops", "c.gz": b"\x1f\x8bno", "d.bin": b"\xff\xfe", "e": b""}
    for name, data in junk.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises((UnknownForm, OSError)):
            read(path)
        assert main([str(path)]) == 2
    assert main([str(tmp_path / "absent")]) == 2
    assert main([]) == 2


# A check that cannot fail is none: each of these changes to one real row has to be found.


def rows_of(path: Path, count: int) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]


@pytest.mark.parametrize(
    "change",
    [
        {"fee_cost": "0.000100"},
        {"is_taker": "True"},
        {"no_price_dollars": "0.8800"},
        {"outcome_side": "yes"},
        {"count_fp": "0.00"},
        {"yes_price_dollars": "11.0000", "no_price_dollars": "-10.0000"},
        {"fill_id": "another"},
        {"book_side": "offer"},
    ],
)
def test_a_wrong_fill_is_found(sessions: Path, change: dict[str, str]) -> None:
    rows = rows_of(sessions / FILLS, 10)
    assert not check_fills("", rows, set())[0].failed
    rows[0] = rows[0] | change
    report, _ = check_fills("", rows, set())
    assert sum(map(len, report.failed.values())) == 1
    assert not report.ok


def test_a_fill_twice_is_found(sessions: Path) -> None:
    rows = rows_of(sessions / FILLS, 3)
    assert check_fills("", [*rows, rows[0]], set())[0].failed


@pytest.mark.parametrize(
    "change",
    [
        {"fill_count_fp": "10.00"},
        {"maker_fill_cost_dollars": "9.780000"},
        {"maker_fees_dollars": "0.000100"},
        {"remaining_count_fp": "1.00"},
        {"status": "resting"},
        {"status": "pending"},
        {"yes_price_dollars": "0.1200", "no_price_dollars": "0.8800"},
        {"last_update_time": "2026-07-31T23:51:50Z"},
    ],
)
def test_a_wrong_order_is_found(sessions: Path, change: dict[str, str]) -> None:
    _, fills = check_fills("", read(sessions / FILLS).rows, set())
    rows = rows_of(sessions / ORDERS, 5)
    assert check_orders("", rows, fills, has_fills=True).exact == 5
    rows[0] = rows[0] | change
    assert check_orders("", rows, fills, has_fills=True).failed


@pytest.mark.parametrize(
    "change",
    [
        {"result": "no"},
        {"result": ""},
        {"close": "2026-05-25T01:20:00Z"},
        {"ticker": "KXBTC15M-26MAY242015-00"},
        {"ticker": "KXBTC15M-26MAY242030-30"},
        {"coin": "ETH"},
        {"a0": "76990.08"},
        {"a0": "", "a1": ""},
    ],
)
def test_a_wrong_window_is_found(sessions: Path, change: dict[str, str]) -> None:
    rows = [row for row in rows_of(sessions / SETTLED, 60) if row["coin"] == "BTC"]
    assert check_settled("", rows).ok
    assert (rows[1]["ticker"], rows[1]["result"]) == ("KXBTC15M-26MAY242015-15", "yes")
    rows[1] = rows[1] | change
    assert check_settled("", rows).failed


def test_a_window_in_the_thursday_maintenance_is_found(sessions: Path) -> None:
    row = rows_of(sessions / SETTLED, 1)[0]
    thursday = row | {"ticker": "KXBTC15M-26MAY280400-00", "close": "2026-05-28T08:05:00Z"}
    assert any("maintenance" in why for why in check_settled("", [thursday]).failed)
