"""Whole bots as a user starts them: a process of their own, a directory of their own, the local venues beside them."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).resolve().parents[2]
PEM = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


def environment(**more: str) -> dict[str, str]:
    """No PMKIT_* of whoever runs the tests, and no key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PMKIT_", "KALSHI_", "POLY"))}
    return {**kept, **more, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


def start(directory: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(directory: Path) -> list[dict[str, str]]:
    found = []
    for file in sorted((directory / "trades").glob("trades_local_*.csv")):
        raw = file.read_text()
        assert raw.endswith("\n"), "the last row is whole"
        found += list(csv.DictReader(raw.splitlines()))
    return found


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_the_demo_rolls_over_fills_and_ends_in_a_minute(tmp_path):
    began = time.monotonic()
    demo = start(tmp_path, str(ROOT / "examples" / "demo.py"))
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, err[-3000:]
    assert time.monotonic() - began < 60
    assert "Traceback" not in err
    table = rows(tmp_path)
    for venue in ("polymarket", "kalshi"):
        mine = [row for row in table if row["venue"] == venue]
        events = Counter(row["event"] for row in mine)
        assert events["rollover"] >= 2 * 2, events
        assert {row["liquidity"] for row in mine if row["event"] == "fill"} == {"MAKER", "TAKER"}
        assert events["settled"] >= 2
        assert events["intent"] == events["accepted"] + events["rejected"] + events["unknown"]
        assert venue in out
    assert {row["mode"] for row in table} == {"local"}
    assert list((tmp_path / "logs").glob("DemoBot_local_*.log"))
    assert "total" in out and "profit" in out


@POSIX
def test_ctrl_c_in_the_middle_ends_clean_and_a_second_run_appends(tmp_path):
    kept: dict[Path, str] = {}

    def run_until_it_trades_then_ctrl_c(seen: int) -> None:
        demo = start(tmp_path, str(ROOT / "examples" / "demo.py"))
        wait_for(lambda: any(row["event"] == "accepted" for row in rows(tmp_path)[seen:]), 25)
        venues = children_of(demo.pid)
        assert venues
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=20)
        assert time.monotonic() - began < 5
        assert demo.returncode == 0, err[-2000:]
        assert "Traceback" not in err and "may still be open" not in err
        assert "markets of this run" in out
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in venues), 3)

    for _ in range(2):
        run_until_it_trades_then_ctrl_c(len(rows(tmp_path)) if kept else 0)
        before, kept = kept, {file: file.read_text() for file in (tmp_path / "trades").glob("*.csv")}
        assert all(kept[file].startswith(text) for file, text in before.items())
        assert sum(map(len, kept.values())) > sum(map(len, before.values()))
    assert all(text.count("time_utc") == 1 for text in kept.values())


@POSIX
def test_live_on_local_venues_goes_through_the_real_clients(tmp_path):
    demo = start(tmp_path, str(ROOT / "examples" / "demo.py"), PMKIT_WHERE="local", PMKIT_MODE="live")

    def filled() -> bool:
        seen = {(row["venue"], row["liquidity"]) for row in rows(tmp_path) if row["event"] == "fill"}
        return seen >= {(venue, how) for venue in ("polymarket", "kalshi") for how in ("MAKER", "TAKER")}

    wait_for(filled, 40)
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=20)
    assert demo.returncode == 0, err[-2000:]
    assert "Traceback" not in err and "may still be open" not in err and "is unknown" not in err
    table = rows(tmp_path)
    assert not any(row["order_id"].startswith("paper-") for row in table)
    placed = {row["order_id"] for row in table if row["event"] == "accepted"}
    assert {row["order_id"] for row in table if row["event"] == "fill"} <= placed
    log = "".join(file.read_text() for file in (tmp_path / "logs").glob("*.log"))
    assert "PRIVATE KEY" not in log + out + err


@POSIX
def test_the_local_venues_end_when_the_bot_is_killed(tmp_path):
    demo = start(tmp_path, str(ROOT / "examples" / "demo.py"))
    wait_for(lambda: rows(tmp_path) if (tmp_path / "trades").exists() else [], 25)
    venues = children_of(demo.pid)
    demo.kill()
    demo.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in venues), 5)
    assert all(len(row) == len(rows(tmp_path)[0]) for row in rows(tmp_path))


@POSIX
def test_from_the_prompts_to_the_trade_file_in_a_terminal(tmp_path):
    pexpect = pytest.importorskip("pexpect")
    bot = pexpect.spawn(
        sys.executable,
        [str(ROOT / "examples" / "updown_bot.py")],
        cwd=str(tmp_path),
        env={**environment(), "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=30,
        dimensions=(40, 160),
    )
    enter, down, space = "\r", "\x1b[B", " "
    bot.expect("Select where")
    bot.send(enter)  # local stands first
    bot.expect("Select mode")
    bot.send(enter)  # dry run stands first
    bot.expect("Select venues")
    bot.send(space + down + space + enter)
    bot.expect("Select assets")
    bot.send(space + enter)
    bot.expect(r"polymarket BTC +\d+s +UP")  # the status line
    bot.expect(r"kalshi BTC +\d+s +YES")
    # A window may have no two-sided book; one lasts a minute at this speed.
    wait_for(lambda: any(row["event"] == "accepted" for row in rows(tmp_path)), 75)
    began = time.monotonic()
    bot.sendcontrol("c")
    bot.expect("markets of this run")
    bot.expect(pexpect.EOF)
    bot.close()
    assert bot.exitstatus == 0 and time.monotonic() - began < 5
    assert {row["venue"] for row in rows(tmp_path)} == {"polymarket", "kalshi"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "PMKIT_WHERE"),
        ({"PMKIT_WHERE": "mars", "PMKIT_MODE": "dry-run"}, "PMKIT_WHERE"),
        ({"PMKIT_WHERE": "real", "PMKIT_MODE": "live"}, "KALSHI_API_KEY_ID"),
        (
            {
                "PMKIT_WHERE": "real",
                "PMKIT_MODE": "live",
                "KALSHI_API_KEY_ID": "338f1187-198f-4502-b5d9-f0123e13a421",
                "KALSHI_PRIVATE_KEY": PEM,
            },
            "typed confirmation",
        ),
        (
            {
                "PMKIT_WHERE": "real",
                "PMKIT_MODE": "dry-run",
                "KALSHI_API_KEY_ID": "id-1",
                "KALSHI_PRIVATE_KEY_PATH": "no",
            },
            "KALSHI_PRIVATE_KEY_PATH",
        ),
        ({"PMKIT_WHERE": "local", "PMKIT_MODE": "dry-run", "PMKIT_LOG_DIR": "/proc/none"}, "PMKIT_LOG_DIR"),
    ],
)
def test_a_bot_that_cannot_start_says_why_and_never_hangs(tmp_path, settings, words):
    script = tmp_path / "strategy.py"
    script.write_text(
        "from pmkit import BaseBot, run\n"
        "class Bot(BaseBot):\n"
        "    async def _on_start(self):\n"
        "        await self.stop()\n"
        "run(Bot, venues=['kalshi'], assets=['BTC'], interval='15m')\n"
    )
    bot = start(tmp_path, str(script), **settings)
    _, err = bot.communicate(timeout=20)
    assert bot.returncode == 1
    assert words in err and "Traceback" not in err
    assert children_of(bot.pid) == []


def test_an_asset_nobody_lists_is_named(tmp_path):
    script = tmp_path / "strategy.py"
    script.write_text(
        "from pmkit import BaseBot, run\n"
        "run(type('Bot', (BaseBot,), {}), venues=['polymarket'], assets=['NOPE'], interval='15m')\n"
    )
    bot = start(tmp_path, str(script), PMKIT_WHERE="local", PMKIT_MODE="dry-run")
    _, err = bot.communicate(timeout=30)
    assert bot.returncode == 1, err
    assert "NOPE" in err and "Traceback" not in err
