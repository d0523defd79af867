"""File names and directories; files that belong to one process. Failure modes ST-02, ST-03, ST-09, LG-05."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.config.env import Mode, Settings, Where
from pmkit.errors import ConfigError
from pmkit.logging import files
from pmkit.logging.files import DailyFile
from pmkit.logging.paths import Paths, clean_part, ensure_writable, file_mode

DAY = date(2026, 11, 20)
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def as_nobody(directory: Path) -> Iterator[None]:
    """Root may write anywhere, so such tests run as somebody else."""
    user = os.geteuid()
    if user == 0:
        for parent in directory.parents:
            if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
                parent.chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_names_are_those_of_the_design() -> None:
    paths = Paths(Path("l"), Path("t"), Path("d"))
    assert paths.log_file("FavouriteBot", "dry-run", DAY) == Path("l/FavouriteBot_dry-run_2026-11-20.log")
    assert paths.trades_file("live", DAY) == Path("t/trades_live_2026-11-20.csv")
    assert paths.trades_file("live", DAY, 2) == Path("t/trades_live_2026-11-20_2.csv")
    assert Paths.of(Settings(log_dir=Path("x"))) == Paths(Path("x"), Path("trades"), Path("data"))
    assert Paths() == Paths(Path("logs"), Path("trades"), Path("data"))


def test_the_mode_of_files_never_mixes_play_money_with_real_money() -> None:
    assert file_mode(Where.REAL, Mode.LIVE) == "live"
    assert file_mode("real", "dry-run") == "dry-run"
    assert {file_mode("local", mode) for mode in Mode} == {"local"}
    assert {file_mode("demo", mode) for mode in Mode} == {"demo"}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "_"),
        ("", "_"),
        (".hidden", "hidden"),
        ("a/b\\c:d*e", "a_b_c_d_e"),
        ("nul", "_nul"),
        ("COM1.log", "_COM1.log"),
        ("console", "console"),
        ("bot\n\x1b[31m\0", "bot___31m_"),
        ("ÄÖ\u202e", "___"),
        ("x" * 300, "x" * 64),
    ],
)
def test_names_from_the_network_never_reach_a_path(name: str, part: str) -> None:
    assert clean_part(name) == part


@given(st.text(), st.text())
def test_any_name_stays_inside_its_directory(bot: str, mode: str) -> None:
    path = Paths(Path("logs")).log_file(bot, mode, DAY)
    assert path.parent == Path("logs")
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,160}\.log", path.name)
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", path.name)


def test_nothing_is_created_before_it_is_used(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "a" / "logs", tmp_path / "a" / "trades", tmp_path / "a" / "data")
    paths.log_file("b", "live", DAY)
    assert list(tmp_path.iterdir()) == []
    paths.check()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["logs", "trades"]
    assert list((tmp_path / "a" / "logs").iterdir()) == []


def test_st_02_directories_that_cannot_be_written_are_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        Paths(tmp_path / "file", tmp_path / "file" / "below").check()
    assert len(caught.value.problems) == 2
    assert str(tmp_path / "file") in str(caught.value)
    assert "PMKIT_LOG_DIR" in str(caught.value)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    with as_nobody(closed), pytest.raises(ConfigError, match=r"closed.*Permission denied"):
        ensure_writable(closed)


def test_st_02_a_full_disk_is_found_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left"):
        ensure_writable(tmp_path)


# -- one file, one process


def daily(directory: Path, notes: list[str] | None = None, header: bytes = b"", **options: int) -> DailyFile:
    notes = [] if notes is None else notes
    return DailyFile(
        lambda day, number: directory / f"f_{day}{'' if number == 1 else f'_{number}'}.csv",
        notes.append,
        header=header,
        **options,
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_st_03_a_second_writer_gets_a_name_of_its_own_and_says_so(tmp_path: Path) -> None:
    notes: list[str] = []
    first, second = daily(tmp_path), daily(tmp_path, notes)
    assert first.open(DAY).name == "f_2026-11-20.csv"
    assert second.open(DAY).name == "f_2026-11-20_2.csv"
    assert len(notes) == 1
    assert "in use by another process" in notes[0]
    first.close()
    second.close()
    third = daily(tmp_path)
    assert third.open(DAY).name == "f_2026-11-20.csv", "a lock ends with its owner"
    third.close()


WRITER = """
import sys
from datetime import date
from pathlib import Path
from pmkit.logging.files import DailyFile
directory, name, rows = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
file = DailyFile(lambda day, n: directory / ("f.csv" if n == 1 else f"f_{n}.csv"), str, header=b"name,row\\n")
print(file.open(date(2026, 11, 20)).name, flush=True)
sys.stdin.readline()
for row in range(rows):
    file.write(date(2026, 11, 20), f"{name},{row}\\n".encode())
print("done", flush=True)
sys.stdin.readline()
"""


def start(directory: Path, name: str, rows: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), name, str(rows)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_st_03_two_processes_with_10000_rows_each_and_a_killed_one(tmp_path: Path) -> None:
    processes = [start(tmp_path, name, 10_000) for name in "ab"]
    try:
        opened = []
        for process in processes:
            assert process.stdout is not None
            opened.append(process.stdout.readline().strip())
        assert sorted(opened) == ["f.csv", "f_2.csv"]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
        for name, file in zip("ab", opened, strict=True):
            lines = (tmp_path / file).read_text().splitlines()
            assert lines == ["name,row", *(f"{name},{row}" for row in range(10_000))]
        processes[0].kill()
        processes[0].wait(5)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), "c", "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        ) as third:  # fmt: skip
            assert third.stdout is not None
            assert third.stdout.readline().strip() == opened[0], "the lock of a killed process does not matter"
            say(third)
            say(third)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_file_system_without_locks_gives_each_process_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(fd: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "_lock", unsupported)
    notes: list[str] = []
    file = daily(tmp_path, notes)
    assert file.open(DAY).name == f"f_2026-11-20_{os.getpid()}.csv"
    assert "no locks" in notes[0]
    file.close()


def moved(path: Path) -> None:
    path.rename(path.with_name("moved.csv"))


def vanished(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("remove", [Path.unlink, moved, vanished])
def test_st_09_a_file_removed_while_open_is_made_anew(remove: Callable[[Path], None], tmp_path: Path) -> None:
    directory = tmp_path / "dir"
    notes: list[str] = []
    file = daily(directory, notes, b"h\n")
    file.write(DAY, b"1\n")
    path = file.path
    assert path is not None
    remove(path)
    file.write(DAY, b"2\n")
    file.write(DAY, b"3\n")
    assert path.read_bytes() == b"h\n2\n3\n"
    assert len(notes) == 1
    assert "moved or deleted" in notes[0]
    file.close()


def test_a_file_of_another_kind_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "f_2026-11-20.csv").write_text("somebody,else\n1,2")
    (tmp_path / "f_2026-11-20_2.csv").mkdir()
    os.mkfifo(tmp_path / "f_2026-11-20_3.csv")
    (tmp_path / "f_2026-11-20_4.csv").symlink_to("/dev/full")
    (tmp_path / "f_2026-11-20_5.csv").write_bytes(b"\xef\xbb\xbfh1,h2\n")
    notes: list[str] = []
    file = daily(tmp_path, notes, b"h1,h2\n")
    assert file.open(DAY).name == "f_2026-11-20_6.csv"
    assert (tmp_path / "f_2026-11-20.csv").read_text() == "somebody,else\n1,2"
    assert (tmp_path / "f_2026-11-20_5.csv").read_bytes() == b"\xef\xbb\xbfh1,h2\n"
    assert "another header" in notes[0]
    assert file.path is not None
    assert file.path.read_bytes() == b"h1,h2\n"
    file.close()


def test_a_file_of_another_user_is_passed_over(tmp_path: Path) -> None:
    other = tmp_path / "f_2026-11-20.csv"
    other.write_text("h\n")
    other.chmod(0o400)
    tmp_path.chmod(0o777)
    with as_nobody(tmp_path):
        file = daily(tmp_path, header=b"h\n")
        expected = "f_2026-11-20_2.csv"
        assert file.open(DAY).name == expected
        file.close()


def test_log_files_get_a_line_end_behind_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "f_2026-11-20.csv").write_bytes(b"line\nhalf a li")
    file = daily(tmp_path)
    file.write(DAY, b"next\n")
    assert (tmp_path / "f_2026-11-20.csv").read_bytes() == b"line\nhalf a li\nnext\n"
    assert names(tmp_path) == ["f_2026-11-20.csv"]
    file.close()


def test_days_have_files_of_their_own_and_few_are_open(tmp_path: Path) -> None:
    file = daily(tmp_path)
    days = [date(2026, 11, day) for day in (19, 20, 19, 21, 20, 22)]
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for number, day in enumerate(days):
        file.write(day, f"{number}\n".encode())
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert (tmp_path / "f_2026-11-19.csv").read_text() == "0\n2\n"
    assert (tmp_path / "f_2026-11-20.csv").read_text() == "1\n4\n"
    file.close()


def test_lg_05_a_file_has_a_size_limit(tmp_path: Path) -> None:
    notes: list[str] = []
    file = DailyFile(lambda day, number: tmp_path / str(day), notes.append, max_bytes=100, capped_line=b"limit\n")
    assert [file.write(DAY, b"x" * 29 + b"\n") for _ in range(5)] == [True, True, True, False, False]
    assert (tmp_path / str(DAY)).read_bytes().endswith(b"x\nlimit\n")
    assert len(notes) == 1
    assert file.write(date(2026, 11, 21), b"next day\n")
    file.close()


def fork_and_write(file: DailyFile) -> None:
    file.write(DAY, b"child\n")


def test_a_forked_child_shares_the_file(tmp_path: Path) -> None:
    file = daily(tmp_path)
    file.write(DAY, b"parent\n")
    child = multiprocessing.get_context("fork").Process(target=fork_and_write, args=(file,))
    child.start()
    child.join(5)
    file.write(DAY, b"parent\n")
    assert file.path is not None
    assert file.path.read_bytes() == b"parent\nchild\nparent\n"
    file.close()
