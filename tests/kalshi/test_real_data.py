"""The real account and the real windows: every row explained or of a named kind, and a check that can fail."""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.real_data.__main__ import main
from tests.real_data.books import LATE as LATE_BOOK
from tests.real_data.books import NO_BOOK, NO_SESSION, Moments, check_books, check_socket
from tests.real_data.forms import UnknownForm, read
from tests.real_data.money import PAID_BACK, TWICE, check_fills, check_orders
from tests.real_data.windows import CUT, LATE, NO_DATA, ZERO, check_markets, check_settled

FILLS, ORDERS = "rest_fills_jul2026.csv.gz", "rest_orders_jul2026.csv.gz"
SETTLED = "settled_15m_markets_may_jul2026.csv.gz"


@pytest.fixture
def sessions(recordings: Path) -> Path:
    return recordings / "kalshi" / "sessions"


def test_recorded_fills_and_orders(sessions: Path) -> None:
    report, fills = check_fills(FILLS, read(sessions / FILLS).rows, {})
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
    junk["cut.csv"] = b"ticker,count,price,fee_charged\nKXT,1,0.5,0.0175\nKXT,1,0."
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
    assert not check_fills("", rows, {})[0].failed
    rows[0] = rows[0] | change
    report, _ = check_fills("", rows, {})
    assert sum(map(len, report.failed.values())) == 1
    assert not report.ok


def test_a_fill_twice_is_found(sessions: Path) -> None:
    rows = rows_of(sessions / FILLS, 3)
    assert check_fills("", [*rows, rows[0]], {})[0].failed


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
    _, fills = check_fills("", read(sessions / FILLS).rows, {})
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


# ---- a socket session, and the books beside it


def session_rows(recordings: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    kalshi = recordings / "kalshi"
    return (
        read(kalshi / "sessions" / "ws_orderbook_20260701T0231Z_first180s.jsonl.gz").rows,
        read(kalshi / "samples" / "rest_orderbook_positions_20260701.jsonl.gz").rows,
    )


def test_the_recorded_session_and_its_books(recordings: Path) -> None:
    socket, books = session_rows(recordings)
    moments: Moments = {}
    report = check_socket("", socket, moments)
    assert (report.exact, report.total, report.failed, report.named) == (1801, 1801, {}, {})
    beside = check_books("", books, moments)
    assert (beside.exact, beside.total, beside.failed) == (5, 6, {})
    alone = check_books("", books, {})
    assert (alone.exact, {why: len(rows) for why, rows in alone.named.items()}) == (0, {NO_SESSION: 5, NO_BOOK: 1})
    wrong = books[0] | {"response_body": books[0]["response_body"].replace("55555.20", "55555.21")}
    assert len(check_books("", [wrong], moments).failed) == 1


@pytest.mark.parametrize("change", ["drop", "repeat", "negative", "unreadable", "reorder"])
def test_a_wrong_message_of_a_session_is_found(recordings: Path, change: str) -> None:
    rows = session_rows(recordings)[0][:60]
    assert check_socket("", rows, {}).ok
    delta = next(place for place, row in enumerate(rows) if row["type"] == "orderbook_delta")
    if change == "drop":
        del rows[delta]
    elif change == "repeat":
        rows.insert(delta, rows[delta])
    elif change == "negative":
        rows[delta] = rows[delta] | {"msg": rows[delta]["msg"] | {"delta_fp": "-9999999.00"}}
    elif change == "unreadable":
        rows[delta] = rows[delta] | {"msg": rows[delta]["msg"] | {"price_dollars": "1.5"}}
    else:
        rows[delta], rows[delta + 1] = rows[delta + 1], rows[delta]
    assert check_socket("", rows, {}).failed


def test_a_session_that_begins_late_or_connects_again(recordings: Path) -> None:
    rows = session_rows(recordings)[0]
    late = check_socket("", rows[200:], {})
    assert not late.failed and set(late.named) == {LATE_BOOK}
    again = check_socket("", [*rows[:100], *rows[:100]], {})
    assert (again.exact, again.total) == (200, 200)


# ---- other exports of the same forms


def fill_row(fee: str, *, order: str = "o-1", trade: str = "t-1", price: str = "0.5000", **more: str) -> dict[str, Any]:
    return {
        "trade_id": trade, "fill_id": trade, "order_id": order, "ticker": "KXBTC15M-26OCT201215-15",
        "market_ticker": "KXBTC15M-26OCT201215-15", "book_side": "bid", "outcome_side": "yes", "side": "yes",
        "action": "buy", "count_fp": "1.00", "yes_price_dollars": price, "no_price_dollars": str(1 - Decimal(price)),
        "is_taker": "True", "fee_cost": fee, "created_time": "2026-10-20T16:01:00Z", "ts": "1792512060",
        "subaccount_number": "0",
    } | more  # fmt: skip


def test_a_fill_in_two_files_counts_once() -> None:
    seen: dict[str, str] = {}
    first, fills = check_fills("a", [fill_row("0.0175")], seen)
    second, more = check_fills("b", [fill_row("0.0175"), fill_row("0.0175", trade="t-2")], seen)
    assert (first.exact, second.exact, list(second.named)) == (1, 1, [TWICE])
    assert [one.fill_id for one in fills + more] == ["t-1", "t-2"]


def test_an_overcharge_that_was_paid_back_is_named_and_no_more() -> None:
    """0.07 * 0.33 * 0.67 is 0.015477: two fills are charged 0.0155 each, or 0.0155 and then 0.0154."""
    rows = [fill_row("0.0155", price="0.3300"), fill_row("0.0155", price="0.3300", trade="t-2")]
    assert check_fills("", rows, {})[0].exact == 2
    rows[1] = rows[1] | {"fee_cost": "0.015454"}
    report = check_fills("", rows, {})[0]
    assert list(report.named) == [PAID_BACK] and not report.failed
    for fee in ("0.0154", "0.0157"):
        assert check_fills("", [rows[0], rows[1] | {"fee_cost": fee}], {})[0].failed
    assert check_fills("", [rows[1]], {})[0].failed


def test_a_series_with_another_multiplier_is_named() -> None:
    other = {"ticker": "KXINXD-26OCT20-T5000", "market_ticker": "KXINXD-26OCT20-T5000"}
    rows = [fill_row("0.0088", **other), fill_row("0.0088", trade="t-2", **other)]
    report = check_fills("", rows, {})[0]
    assert not report.failed and "multiplier 0.5" in next(iter(report.named))
    assert check_fills("", [rows[0] | {"fee_cost": "0.0099"}, rows[1]], {})[0].failed


def test_orders_that_reach_beyond_the_fills(sessions: Path) -> None:
    fills = read(sessions / FILLS).rows
    orders = read(sessions / ORDERS).rows
    _, some = check_fills("", fills[: len(fills) // 2], {})
    report = check_orders("", orders, some, has_fills=True)
    assert not report.failed and report.total == 1359


@pytest.mark.parametrize(
    ("fields", "right"),
    [
        ({"strike_type": "greater", "floor_strike": 72749.99, "expiration_value": "72750.00"}, "yes"),
        ({"strike_type": "greater", "floor_strike": 72749.99, "expiration_value": "72749.99"}, "no"),
        ({"strike_type": "between", "floor_strike": 56, "cap_strike": 57, "expiration_value": "57"}, "yes"),
        ({"strike_type": "less", "cap_strike": 56, "expiration_value": "56.0"}, "no"),
    ],
)
def test_other_markets_by_their_strikes(recordings: Path, fields: dict[str, Any], right: str) -> None:
    row = read(recordings / "kalshi" / "rest" / "market_KXBTCD-26AUG1717-T72749.99.json").rows[0]
    settled = row | {"status": "finalized"} | fields
    assert check_markets("", [settled | {"result": right}]).exact == 1
    assert check_markets("", [settled | {"result": "no" if right == "yes" else "yes"}]).failed
    unknown = check_markets("", [settled | {"result": right, "strike_type": "custom"}])
    assert not unknown.failed and unknown.exact == 0


def test_an_index_value_of_nothing_is_named(recordings: Path) -> None:
    path = recordings / "kalshi" / "rest" / "markets_settled_KXBTC15M_missing_strike.json"
    row = next(row for row in read(path).rows if row.get("floor_strike"))
    report = check_markets("", [row | {"expiration_value": "0.00", "result": "yes"}])
    assert list(report.named) == [ZERO] and not report.failed
