"""The trade CSV: whole rows whatever happens to the disk, harmless cells. Failure modes ST-01 to ST-09."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.clock import ManualClock, to_ms
from pmkit.errors import ConfigError
from pmkit.exchanges.types import Side
from pmkit.logging import files
from pmkit.logging.csv_logger import COLUMNS, HEADER, TradeEvent, TradeLog, defuse, plain, read_trades, render, undo
from pmkit.logging.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
START = to_ms(datetime(2026, 11, 20, 23, 59, 58, 250_000, tzinfo=UTC))
TODAY = "trades_dry-run_2026-11-20.csv"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "logs", tmp_path / "trades", tmp_path / "data")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def rows(path: Path) -> list[dict[str, str]]:
    return list(read_trades(path))


def test_columns_and_events_are_those_of_the_design(paths: Paths, clock: ManualClock) -> None:
    assert HEADER.decode() == (
        "time_utc,mode,venue,bot,event,asset,market_id,outcome,side,type,time_in_force,price,size,filled,remaining,"
        "avg_price,fee,order_id,client_order_id,fill_id,liquidity,status,reason,best_bid,best_ask,seconds_left\n"
    )
    assert " ".join(TradeEvent) == (
        "intent accepted rejected unknown resolved fill fill_final fill_failed cancel canceled rollover settled"
    )
    with TradeLog(paths, "dry-run", "FavouriteBot", clock) as trades:
        trades.write(
            TradeEvent.ACCEPTED, venue="kalshi", asset="BTC", market_id="KXBTC15M-26NOV202400-00", outcome="YES",
            side=Side.BUY, type="limit", time_in_force="GTC", price=Decimal("0.5500"), size=10, filled="0",
            remaining=Decimal("1E+1"), avg_price=None, fee=Decimal("-0.00"), order_id="o-1", client_order_id="c-1",
            status="LIVE", best_bid=Decimal("0.54"), best_ask=Decimal("0.56"), seconds_left=1.75,
        )  # fmt: skip
        assert trades.flush()
        assert trades.path == paths.trade_dir / TODAY
        assert trades.path is not None
        text = trades.path.read_text()
    assert text == HEADER.decode() + (
        "2026-11-20T23:59:58.250Z,dry-run,kalshi,FavouriteBot,accepted,BTC,KXBTC15M-26NOV202400-00,YES,BUY,limit,GTC,"
        "0.5500,10,0,10,,-0.00,o-1,c-1,,,LIVE,,0.54,0.56,1.750\n"
    )


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"price": 0.55}, "price must be a Decimal"),
        ({"size": True}, "size must be a Decimal"),
        ({"prize": "1"}, "prize"),
        ({"mode": "live"}, "mode"),
        ({"time_utc": datetime(2026, 11, 20)}, "aware"),  # noqa: DTZ001
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object], part: str, paths: Paths, clock: ManualClock) -> None:
    with TradeLog(paths, "dry-run", "b", clock) as trades, pytest.raises(TypeError, match=part):
        trades.write(TradeEvent.FILL, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [("1E+3", "1000"), ("1E-7", "0.0000001"), ("0E-10", "0.0000000000"), ("-5", "-5"), ("12.3400", "12.3400"),
     ("NaN", "NaN"), ("1E+999999", "1E+999999")],
)  # fmt: skip
def test_decimals_are_printed_plainly(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


# -- days


def test_st_05_the_utc_day_of_the_event_decides_the_file(paths: Paths, clock: ManualClock) -> None:
    with TradeLog(paths, "live", "b", clock) as trades:
        for hours, zone in ((-1, 0), (0, 5), (1, -8), (0, 0), (-1, 9)):
            moment = datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=hours)
            local = moment.astimezone(timezone(timedelta(hours=zone)))
            trades.write(TradeEvent.FILL, time_utc=local, reason=f"{hours}")
    assert [row["reason"] for row in rows(paths.trade_dir / "trades_live_2026-11-20.csv")] == ["-1", "-1"]
    assert [row["reason"] for row in rows(paths.trade_dir / "trades_live_2026-11-21.csv")] == ["0", "1", "0"]


async def test_a_bot_that_crosses_midnight_changes_the_file(paths: Paths, clock: ManualClock) -> None:
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        for _ in range(4):
            trades.write(TradeEvent.INTENT)
            await clock.advance(1)
    assert len(rows(paths.trade_dir / TODAY)) == 2
    assert len(rows(paths.trade_dir / "trades_dry-run_2026-11-21.csv")) == 2


# -- cells

HOSTILE = [
    '=cmd|"/c calc"!A1', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "''=1", "＝1", "a,b", 'say "hi"',
    "a\nb", "a\r\nb", "\0", "\x1b]0;title\x07", "\u202egnp.exe", "\ud800", "é😀", "-5", "+0.5", "-5-5", "'", "", " ",
    "'-5",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_st_07_hostile_text_stays_one_harmless_row(text: str, paths: Paths, clock: ManualClock) -> None:
    with TradeLog(paths, "dry-run", text, clock) as trades:
        trades.write(TradeEvent.REJECTED, reason=text, market_id=text, price=text, status=text)
        trades.write(TradeEvent.REJECTED, reason="next")
    content = (paths.trade_dir / TODAY).read_bytes()
    assert content.count(b"\n") == 3
    assert not set(content.decode()) & set(map(chr, [*range(10), *range(11, 32), 127, 0x202E]))
    with (paths.trade_dir / TODAY).open(newline="") as file:
        parsed = list(csv.reader(file, strict=True))
    assert [len(row) for row in parsed] == [len(COLUMNS)] * 3
    for cell in parsed[1]:
        assert cell.lstrip(" ")[:1] not in ("=", "@", "＝") or cell.startswith("'")
        if cell.lstrip(" ")[:1] in ("+", "-"):
            assert float(cell) == float(text), "only a real number may begin with a sign"
    if text.isprintable():
        assert rows(paths.trade_dir / TODAY)[0]["reason"] == text


@given(st.text(max_size=30))
def test_defusing_can_be_undone(text: str) -> None:
    assert undo(defuse(text)) == text
    assert defuse(text)[:1] not in ("=", "@")


@given(st.dictionaries(st.sampled_from(sorted(set(COLUMNS) - {"time_utc", "mode", "bot", "event"})), st.text()))
def test_any_text_gives_one_line_that_parses(fields: dict[str, str]) -> None:
    _, line = render(START, "live", "b", TradeEvent.FILL, fields)  # type: ignore[arg-type]
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    (parsed,) = csv.reader([line.decode()], strict=True)
    assert len(parsed) == len(COLUMNS)


def test_secrets_and_floods_do_not_get_into_reasons(paths: Paths, clock: ManualClock) -> None:
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        trades.write(TradeEvent.REJECTED, reason="refused: {'POLY_SIGNATURE': '0xcanary'} " + "x" * 10_000)
    reason = rows(paths.trade_dir / TODAY)[0]["reason"]
    assert "canary" not in reason
    assert len(reason) < 600


# -- torn rows


def test_st_04_a_file_cut_at_every_byte_is_repaired_and_nothing_is_lost(
    paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", str)  # 600 of them are slow, and are not what is tested here
    path, aside = paths.trade_dir / TODAY, paths.trade_dir / (TODAY + ".torn")
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        for number in range(3):
            trades.write(TradeEvent.FILL, reason=f"row {number}, with a comma")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    cuts = [*range(len(HEADER) + 1), *range(len(HEADER) + len(lines[1]), len(whole) + 1)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        aside.unlink(missing_ok=True)
        with TradeLog(paths, "dry-run", "b", clock) as trades:
            trades.write(TradeEvent.SETTLED, reason="after")
        content = path.read_bytes()
        assert content.startswith(HEADER)
        kept = [line for line in lines if whole[:cut].startswith(b"".join(lines[: lines.index(line) + 1]))]
        assert [row["reason"] for row in rows(path)][:-1] == [f"row {n}, with a comma" for n in range(len(kept[1:]))]
        assert rows(path)[-1]["reason"] == "after"
        tail = whole[len(b"".join(kept)) : cut]
        assert (aside.read_bytes() if aside.exists() else b"") == (tail + b"\n" if tail else b"")


def test_st_04_zeros_after_a_power_cut_are_moved_aside(paths: Paths, clock: ManualClock) -> None:
    paths.trade_dir.mkdir()
    path = paths.trade_dir / TODAY
    path.write_bytes(HEADER + b"\0" * 100_000)
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        trades.write(TradeEvent.FILL)
    assert path.read_bytes().startswith(HEADER + b"2026")
    assert (paths.trade_dir / (TODAY + ".torn")).stat().st_size == 100_001


def test_st_04_readers_skip_and_report_bad_rows(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    paths.trade_dir.mkdir()
    path = paths.trade_dir / "t.csv"
    good = b"a" + b"," * (len(COLUMNS) - 1) + b"\n"
    path.write_bytes(HEADER + good + b"too,few\n" + b"\xff\0\n" + b'"open' + good + good + good[:-1])
    bad: list[int] = []
    assert len(list(read_trades(path, lambda number, line: bad.append(number)))) == 2
    assert bad == [3, 4, 5, 7]
    assert len(list(read_trades(path))) == 2
    assert "4 bad rows" in caplog.text
    path.write_bytes(b"timestamp,open\n")
    with pytest.raises(ConfigError, match="not a trade file"):
        next(read_trades(path))


KILLED = """
import sys
from pathlib import Path
from pmkit.clock import SystemClock
from pmkit.logging.csv_logger import TradeEvent, TradeLog
from pmkit.logging.paths import Paths
trades = TradeLog(Paths(trade_dir=Path(sys.argv[1])), "live", "b", SystemClock())
print(trades.path, flush=True)
number = 0
while True:
    trades.write(TradeEvent.FILL, fill_id=str(number), reason="x" * (number % 300))
    number += 1
    if number % 50 == 0:
        trades.flush()
        print(number, flush=True)
"""


def test_st_04_kill_9_while_rows_are_written(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        flushed = [int(process.stdout.readline()) for _ in range(10)][-1]
        process.send_signal(signal.SIGKILL)
    content = path.read_bytes()
    assert content.endswith(b"\n")
    ids = [int(row["fill_id"]) for row in rows(path)]
    assert ids == list(range(len(ids)))
    assert len(ids) >= flushed


# -- disks


def test_st_02_an_unwritable_directory_is_found_at_the_start(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        TradeLog(Paths(trade_dir=tmp_path / "file" / "trades"), "live", "b", clock)


def test_a_foreign_file_is_left_alone_and_the_other_name_is_said(
    paths: Paths, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    paths.trade_dir.mkdir()
    (paths.trade_dir / TODAY).write_text("my,own,notes\n")
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        trades.write(TradeEvent.FILL)
        assert trades.path == paths.trade_dir / "trades_dry-run_2026-11-20_2.csv"
    assert (paths.trade_dir / TODAY).read_text() == "my,own,notes\n"
    assert "another header" in caplog.text


@contextlib.contextmanager
def disk_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`: what a full disk is like, half rows included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    event = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it did not happen")


def test_st_01_a_full_disk_holds_the_rows_and_nothing_is_lost(
    paths: Paths, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trades = TradeLog(paths, "dry-run", "b", clock, retry_seconds=0.02)
    path = paths.trade_dir / TODAY
    trades.write(TradeEvent.FILL, fill_id="0")
    assert trades.flush()
    with disk_limit(path.stat().st_size + 100):  # room for half of the next but one row
        for number in range(1, 200):
            trades.write(TradeEvent.FILL, fill_id=str(number), reason="r" * 20)
        wait_until(lambda: trades.trouble is not None)
        wait_until(lambda: trades.stats.errors > 2)
        assert path.read_bytes().endswith(b"\n"), "half a row is taken back"
        assert not trades.flush(0.05)
        assert trades.stats.pending > 190
    wait_until(lambda: trades.trouble is None)
    trades.close()
    assert [row["fill_id"] for row in rows(path)] == [str(number) for number in range(200)]
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 2, "once when it began, once when it ended"
    assert "cannot be written: File too large" in messages[0]
    assert "written again; no lines were lost" in messages[1]


def test_st_01_memory_is_bounded_and_losses_are_counted(
    paths: Paths, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trades = TradeLog(paths, "dry-run", "b", clock, held_rows=10, retry_seconds=0.02)
    with disk_limit(len(HEADER)):
        trades.write(TradeEvent.FILL, fill_id="0")
        wait_until(lambda: trades.trouble is not None)
        for number in range(1, 100):
            trades.write(TradeEvent.FILL, fill_id=str(number))
        assert (trades.stats.pending, trades.stats.lost) == (10, 90)
    wait_until(lambda: trades.trouble is None)
    trades.close()
    assert [row["fill_id"] for row in rows(paths.trade_dir / TODAY)] == [str(number) for number in range(10)]
    assert "further ones are lost" in caplog.text
    assert "90 lines were lost" in caplog.text


def test_st_01_rows_left_at_the_end_are_in_the_log(
    paths: Paths, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    trades = TradeLog(paths, "dry-run", "b", clock, retry_seconds=10)
    with disk_limit(len(HEADER)):
        trades.write(TradeEvent.FILL, fill_id="canary-fill")
        wait_until(lambda: trades.trouble is not None)
        trades.close()
    assert "1 trade rows could not be written" in caplog.text
    assert "canary-fill" in caplog.text
    assert trades.stats.lost == 1
    trades.close()


def test_a_row_torn_by_a_disk_that_cannot_even_truncate_is_repaired(
    paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trades = TradeLog(paths, "dry-run", "b", clock, retry_seconds=0.02)
    real_write, real_truncate = os.write, os.ftruncate
    failing = threading.Event()
    failing.set()
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        if not failing.is_set():
            return real_write(fd, data)
        if len(written) == 0:
            written.append(bytes(data))
            return real_write(fd, data[:10])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def truncate(fd: int, size: int) -> None:
        if failing.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_truncate(fd, size)

    monkeypatch.setattr(files.os, "write", write)
    monkeypatch.setattr(files.os, "ftruncate", truncate)
    trades.write(TradeEvent.FILL, fill_id="1")
    wait_until(lambda: trades.trouble is not None)
    failing.clear()
    wait_until(lambda: trades.trouble is None)
    trades.close()
    assert [row["fill_id"] for row in rows(paths.trade_dir / TODAY)] == ["1"]
    assert (paths.trade_dir / (TODAY + ".torn")).read_bytes() == b"2026-11-20\n"


async def test_st_08_a_slow_disk_does_not_block_the_loop(
    paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = threading.Event()
    calls = 0

    def slow(fd: int) -> None:
        nonlocal calls
        calls += 1
        sleep.wait(1.0)

    monkeypatch.setattr(files.os, "fsync", slow)
    trades = TradeLog(paths, "dry-run", "b", clock)
    loop = asyncio.get_running_loop()
    worst, last = 0.0, loop.time()
    for number in range(60):
        trades.write(TradeEvent.FILL, fill_id=str(number))
        await asyncio.sleep(0.01)
        now = loop.time()
        worst, last = max(worst, now - last - 0.01), now
    assert calls >= 1
    assert worst < 0.7, f"the loop stood still for {worst:.3f} s"
    sleep.set()
    await asyncio.to_thread(trades.close)
    assert [row["fill_id"] for row in rows(paths.trade_dir / TODAY)] == [str(number) for number in range(60)]


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release, entered = threading.Event(), threading.Event()
    real_write = os.write

    def hang(fd: int, data: bytes) -> int:
        entered.set()
        release.wait(10)
        return real_write(fd, data)

    trades = TradeLog(paths, "dry-run", "b", clock)
    monkeypatch.setattr(files.os, "write", hang)
    trades.write(TradeEvent.FILL, fill_id="stuck")
    assert entered.wait(5)
    before = threading.Event()
    closer = threading.Thread(target=lambda: (trades.close(0.2), before.set()))
    closer.start()
    assert before.wait(2), "close() must end although the disk hangs"
    assert "unwritten trade row" in caplog.text
    release.set()
    wait_until(lambda: not any(thread.name == "pmkit-trade file" for thread in threading.enumerate()))


def test_st_09_a_deleted_file_is_made_anew_with_its_header(
    paths: Paths, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with TradeLog(paths, "dry-run", "b", clock) as trades:
        trades.write(TradeEvent.FILL, fill_id="1")
        assert trades.flush()
        (paths.trade_dir / TODAY).unlink()
        trades.write(TradeEvent.FILL, fill_id="2")
    assert [row["fill_id"] for row in rows(paths.trade_dir / TODAY)] == ["2"]
    assert "moved or deleted" in caplog.text


def test_st_04_rows_are_synced_as_often_as_configured(
    paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(files.os, "fsync", synced.append)
    for rows_per_sync, expected in ((1, 7), (3, 3), (0, 1)):
        synced.clear()
        trades = TradeLog(paths, "live", "b", clock, fsync_rows=rows_per_sync)
        for _ in range(6):
            trades.write(TradeEvent.FILL)
            assert trades.flush()
        trades.close()
        assert len(synced) == expected, "and once at close"


FORGETFUL = """
import sys
from pathlib import Path
from pmkit.clock import SystemClock
from pmkit.logging.csv_logger import TradeEvent, TradeLog
from pmkit.logging.paths import Paths
trades = TradeLog(Paths(trade_dir=Path(sys.argv[1])), "live", "b", SystemClock())
for number in range(2000):
    trades.write(TradeEvent.FILL, fill_id=str(number))
raise KeyboardInterrupt
"""


def test_a_program_that_forgets_to_close_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORGETFUL, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=20)
    assert process.returncode != 0
    (path,) = tmp_path.iterdir()
    assert [row["fill_id"] for row in rows(path)] == [str(number) for number in range(2000)]


def test_no_thread_and_no_descriptor_is_left(paths: Paths, clock: ManualClock) -> None:
    fds = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(5):
        trades = TradeLog(paths, "dry-run", "b", clock)
        trades.write(TradeEvent.FILL)
        trades.close()
        trades.close()
    assert not any(thread.name.startswith("pmkit-") for thread in threading.enumerate())
    if fds:
        assert len(os.listdir("/proc/self/fd")) == fds
    assert len(rows(paths.trade_dir / TODAY)) == 5
    trades.write(TradeEvent.FILL)
    assert trades.stats.lost == 1, "a row after close is counted, not written"
    assert date(2026, 11, 20).isoformat() in str(trades.path)
