"""The script as a user starts it, on the local venue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples import fetch_candles
from pmkit.data.binance.history import Estimate
from pmkit.data.binance.plan import Source
from pmkit.data.storage import first_time, last_time, validate
from pmkit.errors import ConfigError
from tests.test_prompts import DOWN, ENTER, SPACE, UP, Terminal

pexpect = pytest.importorskip("pexpect", reason="pexpect is not installed")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ["-m", "examples.fetch_candles"]


def environment(directory: Path, **answers: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PMKIT_")}
    return kept | {"PMKIT_DATA_DIR": str(directory), "PMKIT_WHERE": "local", "PYTHONPATH": str(ROOT)} | answers


def run(directory: Path, *options: str, **answers: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *SCRIPT, *options], env=environment(directory, **answers), cwd=directory, capture_output=True,
        text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_candles_into_files_and_again(tmp_path: Path) -> None:
    answers = {"PMKIT_ASSETS": "BTC,SOL", "PMKIT_INTERVAL": "1s", "PMKIT_PERIOD": "2h"}
    done = run(tmp_path, **answers)
    assert done.returncode == 0, done.stderr
    assert "BTCUSDT 1s: " in done.stdout and "rows to fetch" in done.stdout and "fetched now" in done.stdout
    held = {}
    for symbol in ("BTCUSDT", "SOLUSDT"):
        folder = tmp_path / "local" / f"{symbol}-1s"  # made-up candles never lie among real ones
        held[symbol] = sorted(folder.glob("*.csv"))
        assert all(validate(path, 1000) == [] for path in held[symbol])
        report = json.loads((folder / f"{symbol}-1s.gaps.json").read_text())
        assert report["complete"] and report["candles"] > 7100 and report["gaps"] == []
    before = {path: last_time(path) for paths in held.values() for path in paths}
    assert run(tmp_path, **answers).returncode == 0
    assert any((last_time(path) or 0) > (before[path] or 0) for path in before) or len(held["BTCUSDT"]) > 1


def test_ctrl_c_keeps_what_is_there(tmp_path: Path) -> None:
    answers = {"PMKIT_ASSETS": "BTC", "PMKIT_INTERVAL": "1s", "PMKIT_PERIOD": "3d"}
    child = subprocess.Popen(
        [sys.executable, *SCRIPT], env=environment(tmp_path, **answers), cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A suite that runs in the background of a shell ignores Ctrl-C, and so would its child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    folder = tmp_path / "local" / "BTCUSDT-1s"
    until = time.monotonic() + 40
    # At the first rows: the rest of three days cannot be there before the signal, however fast the machine is.
    while sum(path.stat().st_size for path in folder.glob("*.csv")) < 1_000 and time.monotonic() < until:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130 and errors.startswith("stopped: what was fetched is in the files")
    assert "Traceback" not in errors
    path = min(folder.glob("*.csv"))
    assert validate(path, 1000) == []
    assert not json.loads((folder / "BTCUSDT-1s.gaps.json").read_text())["complete"]
    start = first_time(path)
    # A shorter period that begins later goes on in the same files.
    assert run(tmp_path, **answers | {"PMKIT_PERIOD": "71h"}).returncode == 0
    paths = sorted(folder.glob("*.csv"))
    assert first_time(paths[0]) == start
    assert all(validate(path, 1000) == [] for path in paths)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"PMKIT_ASSETS": "DOGE"}, "PMKIT_ASSETS has DOGE"),
        ({"PMKIT_INTERVAL": "1h"}, "PMKIT_INTERVAL is 1h"),
        ({"PMKIT_PERIOD": "2026-11-08..2026-11-01"}, "expects a start before its end"),
        ({"PMKIT_PERIOD": ""}, "PMKIT_PERIOD is not set and there is no terminal"),
        ({"PMKIT_PERIOD": "2031-01-01..2031-01-02"}, "in the future"),
        ({"PMKIT_PERIOD": "full", "PMKIT_INTERVAL": "1s"}, "start it with --yes"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, answers: dict[str, str], said: str) -> None:
    done = run(tmp_path, **{"PMKIT_ASSETS": "BTC", "PMKIT_INTERVAL": "1m", "PMKIT_PERIOD": "1h"} | answers)
    assert done.returncode == 1
    assert said in done.stderr.replace("\n  - ", "") and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.csv"))


def test_a_big_one_is_asked_for_in_a_terminal(tmp_path: Path) -> None:
    answers = {"PMKIT_ASSETS": "BTC", "PMKIT_INTERVAL": "1s", "PMKIT_PERIOD": "full"}
    child = pexpect.spawn(
        sys.executable, SCRIPT, env=environment(tmp_path, **answers), cwd=str(tmp_path), timeout=40, encoding="utf-8"
    )
    child.expect(r"Fetch [0-9,]+ candles\?")
    child.sendline("n")
    child.expect("nothing was fetched")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert not list(tmp_path.rglob("*.csv"))


class Script(Terminal):
    """The script on a pseudo-terminal, with no answer given beforehand."""

    def __init__(self, directory: Path) -> None:
        variables = environment(directory) | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
        del variables["PMKIT_WHERE"]
        self.child = pexpect.spawn(
            sys.executable,
            SCRIPT,
            env=variables,
            cwd=str(directory),
            timeout=40,
            encoding="utf-8",
            dimensions=(40, 160),
        )
        self.text = ""
        self.seen = 0


def test_every_question_is_asked_in_a_terminal(tmp_path: Path) -> None:
    screen = Script(tmp_path)
    try:
        for question, keys in (
            ("Select where", (ENTER,)),
            ("Select assets", (SPACE, DOWN, DOWN, SPACE, ENTER)),
            ("Select interval", (UP, ENTER)),
            ("Period", ("\x7f", "\x7f", "2", "h", ENTER)),
        ):
            screen.see(question)
            screen.type(*keys)
        text = screen.end()
    finally:
        screen.child.close(force=True)
    assert screen.child.exitstatus == 0, text
    assert "BTCUSDT 1s: " in text and "rows to fetch" in text and "ETHUSDT" not in text
    for symbol in ("BTCUSDT", "SOLUSDT"):
        paths = sorted((tmp_path / "local" / f"{symbol}-1s").glob("*.csv"))
        assert paths and all(validate(path, 1000) == [] for path in paths)


def estimate(size: int, free: int) -> Estimate:
    return Estimate("BTCUSDT", "1s", 1, 2, Source.REST, 1, size, 1, 2, 0, 0, 0.0, free, [])


def test_a_disk_that_is_too_small_is_said_before_the_start() -> None:
    fetch_candles.check_disk([estimate(10**9, 5 * 10**9)] * 3)
    with pytest.raises(ConfigError, match="6.0 GB are needed and 5.0 GB are free.*PMKIT_DATA_DIR"):
        fetch_candles.check_disk([estimate(2 * 10**9, 5 * 10**9)] * 3)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (85_000, "85.0 kB"), (24.8e9, "24.8 GB")]
)
def test_sizes(count: int, text: str) -> None:
    assert fetch_candles.size(count) == text
