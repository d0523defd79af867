"""The questions, in a real pseudo-terminal and without one. Failure modes CF-01, CF-03."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pmkit.config.env import Mode, Settings, Venue, Where
from pmkit.errors import ConfigError
from pmkit.prompts import inquirer as prompts

pexpect = pytest.importorskip("pexpect", reason="pexpect needs a POSIX pseudo-terminal")

ROOT = Path(__file__).resolve().parent.parent
UP, DOWN, ENTER, SPACE, CTRL_C = "\x1b[A", "\x1b[B", "\r", " ", "\x03"

HEAD = """
import sys
from pmkit.config.env import Settings
from pmkit.errors import ConfigError
from pmkit.prompts.inquirer import *
settings = Settings()
try:
    {body}
except ConfigError as error:
    print("REFUSED", error)
except KeyboardInterrupt:
    print("INTERRUPTED")
print("ended")
"""


class Terminal:
    """A script on a pseudo-terminal that a test types on."""

    def __init__(self, body: str) -> None:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", "PYTHONPATH": str(ROOT)}
        script = HEAD.format(body=body)
        self.child = pexpect.spawn(
            sys.executable, ["-c", script], encoding="utf-8", timeout=8, env=environment, dimensions=(40, 100)
        )

        self.text = ""
        self.seen = 0

    def _read(self, timeout: float) -> None:
        try:
            self.text += self.child.read_nonblocking(100_000, timeout=timeout)
        except pexpect.TIMEOUT:
            return

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(800):
            if condition():
                return
            self._read(0.01)
        pytest.fail(f"{what} within 8 s; on the screen: {self.text[-500:]!r}")

    def see(self, text: str) -> None:
        """Wait until the text is on the screen, behind what was seen before."""
        self._wait(lambda: text in self.text[self.seen :], f"no {text!r}")
        self.seen = self.text.index(text, self.seen) + len(text)

    def ready(self) -> None:
        """Wait until a key is waited for: only then is the terminal without line mode. Earlier keys are thrown away."""
        self._wait(lambda: not self.line_mode(), "no question")
        self._read(0)

    def line_mode(self) -> bool:
        return bool(termios.tcgetattr(self.child.child_fd)[3] & termios.ICANON)

    def type(self, *keys: str) -> None:
        for key in keys:
            self.ready()
            shown = len(self.text)
            self.child.send(key)
            self._wait(lambda shown=shown: len(self.text) > shown, "no answer to a key")  # type: ignore[misc]

    def end(self) -> str:
        """All that was shown, once the script has ended."""
        with contextlib.suppress(pexpect.EOF):
            while True:
                self._read(8)
        self.child.close()
        return self.text


@pytest.fixture
def terminal() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.child.close(force=True)


def start(opened: list[Terminal], body: str) -> Terminal:
    opened.append(Terminal(body))
    return opened[-1]


def test_choices_by_arrow_keys_and_enter(terminal: list[Terminal]) -> None:
    screen = start(terminal, "print('CHOSEN', ask_where(settings, ['kalshi']), ask_mode(settings, 'demo'))")
    screen.see("Select where")
    screen.type(UP, ENTER)
    screen.see("Select mode")
    screen.type(DOWN, ENTER)
    assert "CHOSEN demo live" in screen.end()


def test_cf_01_enter_alone_is_local_and_dry_run(terminal: list[Terminal]) -> None:
    screen = start(terminal, "print('CHOSEN', ask_where(settings), ask_mode(settings, 'real'))")
    screen.see("Select where")
    screen.type(ENTER)
    screen.see("Select mode")
    screen.see("Dry Run")
    screen.see("Live")
    screen.type(ENTER)
    assert "CHOSEN local dry-run" in screen.end()


def test_several_assets_and_at_least_one(terminal: list[Terminal]) -> None:
    screen = start(terminal, "print('CHOSEN', *ask_assets(settings, ['BTC', 'ETH', 'SOL']))")
    screen.see("Select assets")
    screen.type(ENTER)
    screen.see("choose at least one")
    screen.type(DOWN, DOWN, SPACE, UP, UP, SPACE, ENTER)
    assert "CHOSEN BTC SOL" in screen.end(), "in the order of the choices"


def test_venues_interval_and_period(terminal: list[Terminal]) -> None:
    body = (
        "print('CHOSEN', *ask_venues(settings), ask_interval(settings, ['1m', '15m', '1h'], '15m'),"
        " ask_period(settings).text)"
    )
    screen = start(terminal, body)
    screen.see("Select venues")
    screen.type(SPACE, ENTER)
    screen.see("Select interval")
    screen.type(ENTER)
    screen.see("Period")
    screen.type("x", ENTER)
    screen.see("expects a length")
    screen.type("\x7f", ENTER)
    assert "CHOSEN polymarket 15m 7d" in screen.end()


LIVE = "confirm_live('real', ['polymarket', 'kalshi'], 'account 0xabc\\x1b[2J, BTC'); print('CONFIRMED')"


def test_live_needs_the_typed_word(terminal: list[Terminal]) -> None:
    screen = start(terminal, LIVE)
    screen.see("LIVE on Polymarket and Kalshi: orders will be real")
    screen.see("account 0xabc\\x1b[2J, BTC")
    screen.see("Type LIVE to go on")
    screen.type("L", "I", "V", "E", ENTER)
    assert "CONFIRMED" in screen.end()


@pytest.mark.parametrize("keys", [("y", ENTER), (ENTER,), ("l", "i", "v", "e", ENTER)])
def test_another_word_is_a_refusal(keys: tuple[str, ...], terminal: list[Terminal]) -> None:
    screen = start(terminal, LIVE)
    screen.see("Type LIVE to go on")
    screen.type(*keys)
    text = screen.end()
    assert "REFUSED live trading was not confirmed" in text
    assert "CONFIRMED" not in text


@pytest.mark.parametrize("body", [LIVE, "ask_mode(settings, 'real')", "ask_assets(settings)", "ask_period(settings)"])
def test_ctrl_c_ends_cleanly_with_the_terminal_as_it_was(body: str, terminal: list[Terminal]) -> None:
    screen = start(terminal, body)
    screen.type(CTRL_C)
    screen.see("INTERRUPTED")
    screen.see("ended")
    assert screen.line_mode()
    assert "Traceback" not in screen.end()


def test_a_terminal_that_goes_away_is_no_hang(terminal: list[Terminal], tmp_path: Path) -> None:
    body = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "    try:\n"
        "        ask_mode(settings, 'real')\n"
        "    except ConfigError as error:\n"
        f"        open({str(tmp_path / 'error')!r}, 'w').write(str(error))"
    )
    screen = start(terminal, body)
    screen.ready()
    screen.child.ptyproc.fileobj.close()
    for _ in range(300):
        if not screen.child.isalive():
            assert "the terminal went away" in (tmp_path / "error").read_text()
            return
        select.select([], [], [], 0.01)
    screen.child.kill(signal.SIGKILL)
    screen.child.wait()
    pytest.fail("it waits for a terminal that is gone")


# -- answers of variables


def test_variables_answer_without_a_terminal() -> None:
    settings = Settings.load(
        environ={"PMKIT_WHERE": "real", "PMKIT_MODE": "dry-run", "PMKIT_VENUES": "kalshi", "PMKIT_ASSETS": "btc",
                 "PMKIT_INTERVAL": "15m", "PMKIT_PERIOD": "36h"},
    )  # fmt: skip
    assert prompts.ask_where(settings, ["kalshi"]) is Where.REAL
    assert prompts.ask_mode(settings, "real") is Mode.DRY_RUN
    assert prompts.ask_venues(settings) == (Venue.KALSHI,)
    assert prompts.ask_assets(settings) == ("BTC",)
    assert prompts.ask_interval(settings) == "15m"
    assert prompts.ask_period(settings).text == "36h"
    assert prompts.ask_interval(Settings(), ["15m"]) == "15m", "one choice is no question"
    assert prompts.ask_venues(Settings(), ["kalshi"]) == (Venue.KALSHI,)
    prompts.confirm_live("local", ["kalshi"])
    prompts.confirm_live("demo", ["kalshi"])


def test_answers_outside_the_choices_are_refused_with_the_choices() -> None:
    settings = Settings(where=Where.DEMO, venues=(Venue.KALSHI,), assets=("BTC", "FOO"), interval="1M")
    with pytest.raises(ConfigError, match="PMKIT_WHERE is demo: the choices here are local, real"):
        prompts.ask_where(settings, ["polymarket", "kalshi"])
    with pytest.raises(ConfigError, match="PMKIT_VENUES has kalshi: the choices here are polymarket"):
        prompts.ask_venues(settings, ["polymarket"])
    with pytest.raises(ConfigError, match="PMKIT_ASSETS has FOO: the choices here are BTC, ETH"):
        prompts.ask_assets(settings, ["BTC", "ETH"])
    with pytest.raises(ConfigError, match="PMKIT_INTERVAL is 1M"):
        prompts.ask_interval(settings, ["15m"])


QUESTIONS = {
    "ask_where(settings)": "PMKIT_WHERE",
    "ask_mode(settings, 'real')": "PMKIT_MODE",
    "ask_venues(settings)": "PMKIT_VENUES",
    "ask_assets(settings)": "PMKIT_ASSETS",
    "ask_interval(settings)": "PMKIT_INTERVAL",
    "ask_period(settings)": "PMKIT_PERIOD",
    "confirm_live('real', ['kalshi'])": "no terminal to ask on",
}


@pytest.mark.parametrize("body", QUESTIONS)
def test_cf_03_without_a_terminal_each_question_is_an_error(
    body: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = compile(body, "question", "eval")
    closed = io.StringIO()
    closed.close()
    for stdin in (io.StringIO("\n\n\n"), closed, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(ConfigError, match=QUESTIONS[body]):
            eval(question, {**vars(prompts), "settings": Settings()})
    assert "inquirer.render" not in sys.modules, "nothing is loaded to refuse"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stdin", ["closed", "pipe", "null", "open pipe"])
def test_cf_03_a_process_without_a_terminal_ends_within_two_seconds(stdin: str) -> None:
    command = [sys.executable, "-c", HEAD.format(body="ask_mode(settings, 'real')")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ends = os.pipe()
    if stdin == "closed":
        command = ["sh", "-c", 'exec "$0" "$@" <&-', *command]
    source = {"closed": None, "pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "open pipe": ends[0]}[stdin]
    process = subprocess.Popen(
        command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )
    try:
        if stdin == "open pipe":
            assert process.stdout is not None
            process.wait(2)
            output = process.stdout.read()
        else:
            output = process.communicate(timeout=2)[0]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        for end in ends:
            os.close(end)
    assert "REFUSED PMKIT_MODE is not set and there is no terminal to ask on" in output
    assert "dry-run, live" in output


def test_cf_03_a_background_job_is_not_stopped_by_its_question(terminal: list[Terminal]) -> None:
    """Reading from the terminal in the background would stop the process (SIGTTIN) for ever."""
    body = (
        "import os; pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.setpgid(0, 0)\n"
        "        ask_mode(settings, 'real')\n"
        "    else:\n"
        "        _, status = os.waitpid(pid, os.WUNTRACED); print('STOPPED', os.WIFSTOPPED(status))"
    )
    screen = start(terminal, body)
    text = screen.end()
    assert "REFUSED PMKIT_MODE" in text
    assert "STOPPED False" in text
