"""Candle CSV files: whole rows or nothing, whatever happens to the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.data import storage
from pmkit.data.storage import HEADER, CandleFile, Problem, validate
from pmkit.errors import ConfigError

T = 1_773_360_000_000
S = 1000


def row(at: int) -> bytes:
    return f"{T + at * S},{70000 + at}.12000000,70001.10000000,69999.00000000,70000.50000000,0.{at:08d}\n".encode()


def rows(*at: int) -> bytes:
    return b"".join(map(row, at))


def written(path: Path, *at: int) -> Path:
    path.write_bytes(HEADER + rows(*at))
    return path


def append(path: Path, *at: int) -> None:
    with CandleFile(path) as file:
        file.append(rows(*at), T + at[0] * S, T + at[-1] * S)


def test_append_reads_back_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.csv"
    append(path, 0, 1, 2)
    with CandleFile(path) as file:
        assert (file.first_ms, file.last_ms, file.cut) == (T, T + 2 * S, 0)
        file.append(rows(3), T + 3 * S, T + 3 * S)
        file.append(rows(7, 8), T + 7 * S, T + 8 * S)
    assert path.read_bytes() == HEADER + rows(0, 1, 2, 3, 7, 8)
    assert (storage.first_time(path), storage.last_time(path)) == (T, T + 8 * S)
    assert [candle.timestamp for candle in storage.candles(path)] == [T + at * S for at in (0, 1, 2, 3, 7, 8)]


def test_st_06_rows_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 0, 1, 2)
    for again in (2, 0):
        with CandleFile(path) as file, pytest.raises(ValueError, match="does not follow"):
            file.append(rows(again), T + again * S, T + again * S)
    assert path.read_bytes() == HEADER + rows(0, 1, 2)


def test_st_04_a_file_cut_at_any_byte_is_whole_rows_again(tmp_path: Path) -> None:
    whole = HEADER + rows(0, 1, 2)
    path = tmp_path / "a.csv"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        count = max(0, whole[:size].count(b"\n") - 1)
        if size >= len(HEADER):
            assert storage.last_time(path) == (T + (count - 1) * S if count else None)
            assert len(list(storage.candles(path))) == count
        with CandleFile(path) as file:
            assert file.last_ms == (T + (count - 1) * S if count else None)
            file.append(rows(5), T + 5 * S, T + 5 * S)
        assert path.read_bytes() == HEADER + rows(*range(count), 5)


def test_st_04_zeros_after_a_power_cut_are_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 0, 1)
    # Data that never reached the disk, between rows that did.
    path.write_bytes(path.read_bytes() + b"\0" * 5000 + rows(40, 41))
    append(path, 2)
    assert path.read_bytes() == HEADER + rows(0, 1, 2)


FOREIGN = [
    b"time,open,high,low,close,volume\n1,2,3,4,5,6\n",
    b"timestamp,open,high,low,close,volume,trades\n",
    b"not a table at all",
    b"\xef\xbb\xbf" + HEADER,
    HEADER.replace(b"\n", b"\r\n") + rows(1),
    HEADER + rows(0, 1) + b"17733600,broken by a spreadsheet\n",
    HEADER + b"1.77336E+12,1,2,3,4,5\n",
    HEADER + b"x\n" + rows(3),
]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_is_not_ours_is_never_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="left alone"):
        CandleFile(path)
    assert path.read_bytes() == content


def test_st_02_directories_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="in the way"):
        CandleFile(tmp_path / "file" / "a.csv")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigError, match="in the way"):
        CandleFile(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="cannot read"):
        storage.last_time(tmp_path / "absent.csv")


def test_st_02_a_read_only_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root, so the answer of the system is what is put in place.
    def refused(*arguments: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ConfigError, match="Read-only file system.*PMKIT_DATA_DIR"):
        CandleFile(tmp_path / "a.csv")


@pytest.mark.parametrize("accepted", [0, 1, 90, 200])
def test_st_01_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int) -> None:
    path = written(tmp_path / "a.csv", 0, 1)
    real, room = os.write, [accepted]

    def write(fd: int, data: memoryview) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[: room[0]])
        room[0] -= done
        return done

    with CandleFile(path) as file:
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(ConfigError, match="no room on the disk.*a.csv"):
            file.append(rows(2, 3, 4), T + 2 * S, T + 4 * S)
        assert path.read_bytes() == HEADER + rows(0, 1)
        room[0] = 10_000
        file.append(rows(2, 3, 4), T + 2 * S, T + 4 * S)
    assert path.read_bytes() == HEADER + rows(0, 1, 2, 3, 4)


def test_st_03_a_second_process_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 0)
    code = (
        "import sys; from pathlib import Path; from pmkit.data.storage import CandleFile; from pmkit.errors import *\n"
        "try: CandleFile(Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)\n"
        "else: print('opened')"
    )
    command = [sys.executable, "-c", code, str(path)]
    with CandleFile(path) as file:
        assert "in use by another process" in subprocess.run(command, capture_output=True, text=True).stdout
        file.append(rows(1), T + S, T + S)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "opened\n"


def test_validate_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + rows(0, 1, 1, 4, 3) + b"1773360000500,1,2,3,4,5\n" + b"hello\n" + rows(6)[:-1])
    found = validate(path, S)
    assert [(problem.line, problem.kind) for problem in found] == [
        (4, "duplicate"), (5, "hole"), (6, "order"), (7, "order"), (8, "row"), (9, "torn"),
    ]  # fmt: skip
    assert "2 candles are missing" in found[1].text
    path.write_bytes(HEADER + b"1773360000500,1,2,3,4,5\n" + rows(1))
    assert [problem.kind for problem in validate(path, S)] == ["grid"]
    path.write_bytes(b"a,b\n1,2\n")
    assert validate(path, S) == [Problem(1, "header", validate(path)[0].text)]
    assert validate(written(path, 0, 1, 2), S) == []
    assert validate(written(path, 0, 5, 9), S, holes=False) == validate(path) == []


def test_read_and_chunks(tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.csv", *range(2500)), written(tmp_path / "b.csv", 3000, 3001)
    frame = storage.read([one, two])
    assert list(frame.columns) == list(storage.COLUMNS) and frame.index.name == "time"
    assert str(frame.index.tz) == "UTC" and frame.index[0].isoformat() == "2026-03-13T00:00:00+00:00"
    assert len(frame) == 2502 and frame.index.is_monotonic_increasing
    assert [tuple(values) for values in frame.itertuples(index=False)] == [
        (c.timestamp, c.open, c.high, c.low, c.close, c.volume) for c in storage.candles([one, two])
    ]
    pieces = list(storage.chunks([one, two], rows=700))
    assert len(pieces) > 3 and sum(map(len, pieces)) == 2502
    some = storage.read(one, T + 10 * S, T + 12 * S)
    assert list(some["timestamp"]) == [T + 10 * S, T + 11 * S]
    assert len(storage.read(written(tmp_path / "c.csv"))) == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3000)), min_size=1, max_size=12))
def test_appends_with_cuts_between_them_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, end: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever is cut off the end after an append is appended again."""
    path = tmp_path_factory.mktemp("cuts") / "a.csv"
    while True:
        with CandleFile(path) as file:
            at = 0 if file.last_ms is None else (file.last_ms - T) // S + 1
            if at >= end:
                break
            count, cut = steps.pop() if steps else (end, 0)
            until = min(end, at + count)
            file.append(rows(*range(at, until)), T + at * S, T + (until - 1) * S, every=cut)
        os.truncate(path, max(0, path.stat().st_size - cut))
    assert path.read_bytes() == HEADER + rows(*range(end))
