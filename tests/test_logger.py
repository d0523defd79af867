"""Logs: set-up, daily files, redaction, hostile text, full disks. Failure modes LG-01 to LG-06, SX-01, SX-03, SX-07."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import logging
import os
import pty
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from pmkit.clock import ManualClock, to_ms
from pmkit.config.secret import Secret
from pmkit.errors import ConfigError
from pmkit.logging import files
from pmkit.logging.limits import RateLimitedLog
from pmkit.logging.logger import (
    THIRD_PARTY,
    close_logging,
    console,
    flush_logging,
    log_path,
    log_stats,
    protect,
    setup_logging,
)
from pmkit.logging.paths import Paths
from pmkit.logging.redact import Redactor
from pmkit.logging.text import escape

ROOT = Path(__file__).resolve().parent.parent
NOON = to_ms(datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC))
KEY = "d00dfeed" + "0123456789abcdef" * 3 + "cafe0042"
CONDITION_ID = "0x" + "7b" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "logs", tmp_path / "trades", tmp_path / "data")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(autouse=True)
def closed_afterwards() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    close_logging()
    assert (root.level, root.handlers) == before, "close_logging puts the root logger back"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pmkit-")]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def content(paths: Paths, bot: str = "bot", day: str = "2026-11-20") -> str:
    assert flush_logging()
    return (paths.log_dir / f"{bot}_dry-run_{day}.log").read_text(encoding="utf-8")


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    event = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it did not happen")


# -- set-up


def test_a_line_goes_to_the_stream_and_to_the_file_of_the_day(
    paths: Paths, clock: ManualClock, stream: io.StringIO
) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    assert log.name == "pmkit.bot.bot"
    log.debug("unseen")
    log.info("bought %s at %s", 5, "0.55")
    log.warning("careful")
    log.error("wrong")
    assert content(paths) == (
        "2026-11-20T12:00:00.123Z INFO    dry-run bot: bought 5 at 0.55\n"
        "2026-11-20T12:00:00.123Z WARNING dry-run bot: careful\n"
        "2026-11-20T12:00:00.123Z ERROR   dry-run bot: wrong\n"
    )
    assert stream.getvalue() == content(paths).replace("2026-11-20T", "").replace("Z ", " ")
    assert log_path() == paths.log_dir / "bot_dry-run_2026-11-20.log"
    assert log_stats().written == 3
    assert console() is None


def test_lg_04_setting_up_three_times_gives_one_line(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    loggers = {setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream) for _ in range(3)}
    (log,) = loggers
    log.info("once")
    assert content(paths).count("once") == 1
    assert flush_logging()
    assert stream.getvalue().count("once") == 1
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream, level="DEBUG", secrets=["canary-secret"])
    log.debug("now seen canary-secret")
    assert "now seen ***" in content(paths)
    setup_logging("other", "dry-run", paths=paths, clock=clock, stream=stream).info("elsewhere")
    assert "elsewhere" in content(paths, "other")
    assert "elsewhere" not in content(paths)
    close_logging()
    close_logging()
    log.error("after")
    assert "after" not in content(paths)


def test_a_wrong_level_and_an_unwritable_directory_are_errors(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="LOUD"):
        setup_logging("bot", "live", paths=Paths(tmp_path), clock=clock, level="LOUD")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        setup_logging("bot", "live", paths=Paths(tmp_path / "file"), clock=clock, stream=io.StringIO())


def test_third_party_loggers_are_kept_at_warning_unless_debug(
    paths: Paths, clock: ManualClock, stream: io.StringIO
) -> None:
    before = {name: logging.getLogger(name).level for name in THIRD_PARTY}
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    for name in ("httpx", "httpcore.http11", "websockets.client", "asyncio", "hpack.hpack"):
        logging.getLogger(name).info("chatter of %s", name)
        logging.getLogger(name).warning("warning of %s", name)
    logging.getLogger("my.strategy").info("own loggers are heard")
    record = logging.LogRecord("lib", logging.INFO, "/x/site-packages/lib/a.py", 1, "unknown library", (), None)
    logging.getLogger("lib").handle(record)
    assert "chatter" not in content(paths)
    assert "unknown library" not in content(paths)
    assert content(paths).count("warning of") == 5
    assert "own loggers are heard" in content(paths)
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream, level="DEBUG")
    logging.getLogger("httpx").debug("all of it")
    assert "all of it" in content(paths)
    close_logging()
    assert {name: logging.getLogger(name).level for name in THIRD_PARTY} == before


# -- days and processes


def test_lg_01_lg_03_no_line_is_lost_across_midnight_and_nothing_is_renamed(
    paths: Paths, clock: ManualClock, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("WinError 32: in use")

    monkeypatch.setattr(os, "rename", refuse)  # LG-03
    monkeypatch.setattr(os, "replace", refuse)
    clock.step_wall(12 * 3600 - 5)
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    for number in range(10_000):
        log.info("line %d", number)
        clock.step_wall(0.001)
        if number % 1000 == 0:
            assert flush_logging(5)
    assert flush_logging(10)
    days = [content(paths, day=day).splitlines() for day in ("2026-11-20", "2026-11-21")]
    assert all(line.startswith(f"2026-11-2{index}T") for index, lines in enumerate(days) for line in lines)
    assert [int(line.rpartition(" ")[2]) for lines in days for line in lines] == list(range(10_000))
    assert 4_000 < len(days[0]) < 6_000


TWO = """
import sys
from pathlib import Path
from pmkit.clock import ManualClock
from pmkit.logging.logger import close_logging, flush_logging, setup_logging
from pmkit.logging.paths import Paths
clock = ManualClock(int(sys.argv[1]))
log = setup_logging("bot", "live", paths=Paths(Path(sys.argv[2])), clock=clock)
print("ready", flush=True)
sys.stdin.readline()
for number in range(1000):
    log.info("line %d", number)
    clock.step_wall(0.01)
flush_logging(10)
print("done", flush=True)
sys.stdin.readline()
close_logging()
"""


def test_lg_02_two_processes_across_midnight_lose_no_line(tmp_path: Path) -> None:
    start = str(NOON + 12 * 3600 * 1000 - 5000)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, start, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for expected in ("ready\n", "done\n"):
            for process in processes:
                assert process.stdout is not None
                assert process.stdin is not None
                assert process.stdout.readline() == expected
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
    finally:
        errors = [process.communicate(timeout=10)[1] for process in processes]
    assert sum("writing to bot_live_2026-11-20_2.log" in error for error in errors) == 1
    lines: list[str] = []
    for path in tmp_path.iterdir():
        own = [line for line in path.read_text().splitlines() if "line" in line]
        numbers = [int(line.rpartition(" ")[2]) for line in own]
        assert numbers == sorted(set(numbers)), "one process per file"
        lines += own
    assert len(lines) == 2000
    assert len(list(tmp_path.iterdir())) == 4


FORKED = """
import os, sys
from pathlib import Path
from pmkit.clock import SystemClock
from pmkit.logging.logger import close_logging, flush_logging, setup_logging
from pmkit.logging.paths import Paths
log = setup_logging("bot", "live", paths=Paths(Path(sys.argv[1])), clock=SystemClock())
log.info("before")
flush_logging()
child = os.fork()
log.info("both")
if child == 0:
    close_logging()
    os._exit(0)
os.waitpid(child, 0)
close_logging()
"""


def test_a_forked_child_logs_into_the_same_file(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    (path,) = tmp_path.iterdir()
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["before", "both", "both"]
    assert process.stderr.count("both") == 2


# -- secrets


SECRETS = {
    "private key": KEY,
    "api secret": base64.urlsafe_b64encode(bytes(range(200, 232))).decode(),
    "passphrase": 'pass"phrase/with+odd characters\\and é',
    "key id": "a952bcbe-ec3b-4b5b-b8f9-11dae589608c",
}


def spellings(secret: str) -> dict[str, str]:
    raw = secret.encode()
    found = {
        "plain": secret,
        "url": quote(secret, safe=""),
        "form": quote_plus(secret),
        "json": json.dumps({"a": secret}),
        "json utf-8": json.dumps([secret], ensure_ascii=False),
        "repr": repr(secret),
        "base64": base64.b64encode(raw).decode(),
        "basic auth": base64.b64encode(b"user:" + raw).decode(),
        "basic auth 2": base64.b64encode(b"users:" + raw + b"!").decode(),
        "url-safe base64": base64.urlsafe_b64encode(b"x" + raw + b"yy").decode(),
        "hex": raw.hex(),
    }
    if secret == KEY:
        found |= {
            "0x": "0x" + KEY,
            "upper": "0X" + KEY.upper(),
            "number": str(int(KEY, 16)),
            "bytes": repr(bytes.fromhex(KEY)),
            "base64 of bytes": base64.b64encode(bytes.fromhex(KEY)).decode(),
        }
    return found


@pytest.mark.parametrize("name", SECRETS)
def test_every_spelling_of_a_known_secret_is_replaced(name: str) -> None:
    redact = Redactor([Secret(SECRETS[name])])
    for spelling, text in spellings(SECRETS[name]).items():
        shown = redact(f"before {text} after")
        assert shown.startswith("before "), spelling
        assert shown.endswith(" after"), spelling
        assert "***" in shown, spelling
        longest = max(text.split("***"), key=len)
        kept = shown.removeprefix("before ").removesuffix(" after").replace("***", "")
        assert len(kept) <= 12, f"{spelling}: {kept!r} is left of {longest!r}"


def test_patterns_find_unknown_secrets() -> None:
    redact = Redactor()
    for text in (
        "POLY_SIGNATURE: canary",
        "> poly_passphrase: canary",
        "{'POLY_API_KEY': 'canary', 'x': 1}",
        '{"KALSHI-ACCESS-SIGNATURE": "canary=="}',
        "[(b'KALSHI-ACCESS-KEY', b'canary'), (b'Accept', b'*/*')]",
        "b'KALSHI-ACCESS-SIGNATURE: canary\\r\\n'",
        "Authorization: Bearer canary",
        "authorization=Basic canary",
        "Headers({'authorization': 'canary'})",
        "Cookie: session=canary; other=canary",
        '{"auth":{"apiKey":"canary","secret":"canary","passphrase":"canary"},"type":"user"}',
        '"{\\"secret\\":\\"canary\\"}"',
        "POLYMARKET_API_SECRET=canary0123456789abcdef",
        "wss://host/ws?token=canary&x=1",
        "https://user:canary@host/",
        "-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY----- behind",
        "-----BEGIN PRIVATE KEY-----\\ncanary cut off",
    ):
        assert "canary" not in redact(text), text
    signature = "0x" + "1f" * 65
    assert redact(f'"signature":"{signature}"') == '"signature":"***"'
    assert redact(f"signed {signature}") == "signed ***"


def test_what_is_public_stays_readable() -> None:
    redact = Redactor(SECRETS.values())
    for text in (
        f"market {CONDITION_ID} order 0x{'9c' * 32} by 0x{'ab' * 20}",
        "wallet POLY_PROXY, POLY_1271: ok",
        "POLY_TIMESTAMP: 1795176000, KALSHI-ACCESS-TIMESTAMP: 1795176000000",
        "invalid signature: order hash differs",
        "POLYMARKET_API_KEY is missing: Polymarket API key (UUID)",
        "KALSHI_PRIVATE_KEY_PATH: /home/me/keys/kalshi.pem cannot be read",
        "GET https://clob.polymarket.com/book?token_id=123 -> 200",
        "the secret of success: patience",
        "BTC at 91234.50, 0.55 x 100",
    ):
        assert redact(text) == text


def test_short_texts_do_not_mask_everything() -> None:
    assert Redactor(["", "a", " ", "abc"])("abc a b c") == "abc a b c"


def raise_with_secret(secret: str) -> None:
    try:
        raise ValueError(f"inner {secret}")
    except ValueError as error:
        raise RuntimeError(f"outer {secret}") from error


def test_sx_01_exceptions_tracebacks_and_other_handlers_are_clean(
    paths: Paths, clock: ManualClock, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = io.StringIO()
    handler = logging.StreamHandler(foreign)
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream, secrets=[Secret(KEY)])
    other = logging.getLogger("somebody.else")
    other.addHandler(handler)
    try:
        raise_with_secret(KEY)
    except RuntimeError:
        log.exception("failed with %s", KEY)
        other.exception("failed with %(key)s", {"key": KEY})
        other.error("only args %s", [KEY.upper()], exc_info=True, stack_info=True)
    other.error("bad call %d", KEY)
    other.error("%s %s", KEY)
    log.info(KEY)
    other.removeHandler(handler)
    try:
        raise ValueError("nothing secret")
    except ValueError:
        log.exception("plain")
    text = content(paths)
    close_logging()
    captured = capsys.readouterr()
    for output in (text, stream.getvalue(), foreign.getvalue(), captured.out, captured.err):
        assert KEY not in output.lower()
    assert "RuntimeError: outer ***" in text
    assert "ValueError: inner ***" in text
    assert "RuntimeError: outer ***" in foreign.getvalue()
    assert "badly logged at test_logger.py" in text
    assert "ValueError: nothing secret" in text


def test_records_without_a_secret_are_not_changed(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    seen: list[logging.LogRecord] = []
    log.addFilter(lambda record: seen.append(record) or True)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        log.exception("%d%%", 5)
    log.filters.clear()
    assert (seen[0].msg, seen[0].args) == ("%d%%", (5,))
    assert seen[0].exc_info is not None


def test_secrets_learned_later_are_protected(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    protect("derived-canary-value")
    log.info("got derived-canary-value")
    assert "got ***" in content(paths)


SESSION = """
import asyncio, base64, logging, sys
from pathlib import Path
import httpx
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from pmkit.clock import SystemClock
from pmkit.config.secret import Secret
from pmkit.logging.logger import close_logging, setup_logging
from pmkit.logging.paths import Paths

async def main():
    key, secret, phrase = sys.argv[2:5]
    log = setup_logging("bot", "live", paths=Paths(Path(sys.argv[1])), clock=SystemClock(), level="DEBUG",
                        secrets=[Secret(key), Secret(secret), Secret(phrase)])
    async def answer(request):
        return web.Response(text="ok", headers={"set-cookie": "session=CANARYCOOKIE"})
    app = web.Application()
    app.router.add_get("/x", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    headers = {"POLY_SIGNATURE": "CANARYSIGNATURE", "POLY_PASSPHRASE": phrase, "KALSHI-ACCESS-KEY": "CANARYKEYID",
               "KALSHI-ACCESS-SIGNATURE": base64.b64encode(b"CANARY" * 30).decode(),
               "Authorization": "Bearer CANARYBEARER"}
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port}/x?api_key=CANARYQUERY", headers=headers)
    async def echo(socket):
        async for message in socket:
            await socket.send(message)
    async with serve(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        async with connect(f"ws://127.0.0.1:{address[1]}/", additional_headers=headers, proxy=None) as socket:
            auth = '{"apiKey":"CANARYAPI","secret":"%s","passphrase":"%s"}' % (secret, phrase)
            await socket.send('{"auth":%s,"type":"user"}' % auth)
            await socket.recv()
    log.info("key %s", key)
    await runner.cleanup()
    asyncio.get_running_loop().call_exception_handler({"message": "lost " + key, "exception": ValueError(key)})
    raise ValueError("at the end " + key)

try:
    asyncio.run(main())
finally:
    if sys.argv[5] == "close":
        close_logging()
"""


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_sx_03_a_whole_session_at_debug_shows_no_canary(ending: str, tmp_path: Path) -> None:
    secret = base64.urlsafe_b64encode(b"CANARY-OF-AN-API-SECRET-32-BYTES").decode()
    command = [sys.executable, "-c", SESSION, str(tmp_path), KEY, secret, "deadbeefcanaryphrase", ending]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    (path,) = tmp_path.iterdir()
    file = path.read_text()
    for output in (process.stdout, process.stderr, file):
        for canary in (KEY, secret, "deadbeefcanaryphrase", "CANARY", base64.b64encode(b"CANARY" * 30).decode()[:40]):
            assert canary not in output
    assert "httpx" in file
    assert "websockets" in file
    assert "httpcore" in file
    assert "lost ***" in file
    assert "at the end ***" in process.stderr
    assert process.returncode == 1


def test_uncaught_exceptions_in_threads_are_logged_clean(
    paths: Paths, clock: ManualClock, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream, secrets=[KEY])
    hook = threading.excepthook
    thread = threading.Thread(target=raise_with_secret, args=(KEY,), name="worker")
    before, threading.excepthook = threading.excepthook, sys.modules["pmkit.logging.logger"]._ThreadHook(hook)
    try:
        thread.start()
        thread.join(5)
    finally:
        threading.excepthook = before
    assert "uncaught exception in thread worker" in content(paths)
    assert "outer ***" in content(paths)
    assert KEY not in content(paths) + stream.getvalue() + capsys.readouterr().err


# -- hostile text


def test_lg_06_foreign_text_forges_no_line_and_drives_no_terminal(
    paths: Paths, clock: ManualClock, stream: io.StringIO
) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    title = "Will BTC\r\n2026-11-20T12:00:00.000Z ERROR forged\x1b]0;title\x07\x1b[2J\u202e\u2028\x85\x00\ud800 😀é"
    log.info("market %s", title)
    try:
        raise ValueError(title)
    except ValueError:
        log.exception("body: %s", title)
    logging.getLogger("name\nwith\x1b[31m").info("x")
    text = content(paths)
    for output in (text, stream.getvalue()):
        assert not set(output) & set(map(chr, [*range(10), *range(11, 32), 127, 0x85, 0x202E, 0x2028]))
        lines = output.splitlines()
        assert all(re.match(r"(2026-11-20T)?12:00:00\.123|    \| ", line) for line in lines)
        assert sum(bool(re.match(r"\S+ ERROR", line)) for line in lines) == 1
    assert "\\r\\n2026-11-20T12:00:00.000Z ERROR forged\\x1b]0;title\\x07" in text
    assert "😀é" in text
    assert escape("a\tb\ud800") == "a\\tb\\ud800"


def test_lg_06_a_stream_of_another_encoding(paths: Paths, clock: ManualClock) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="cp1252", errors="strict")
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream).info("é 😀")
    assert flush_logging()
    assert raw.getvalue().decode("cp1252").endswith("é \\U0001f600\n".replace("é", "é"))
    close_logging()
    stream.detach()


def test_very_long_messages_are_cut(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream).error("frame: %s", "x" * 1_000_000)
    assert len(content(paths)) < 11_000
    assert "more characters)" in content(paths)


# -- floods


def test_lg_05_a_failure_loop_stays_small_and_is_counted(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)

    def fail(number: int) -> None:
        try:
            raise ConnectionError(f"refused {number}")
        except ConnectionError:
            log.exception("cannot connect, attempt %d", number)

    for second in range(60):
        for number in range(100):
            fail(second * 100 + number)
        clock._elapsed += 1.0
    log.error("another line of code is not held back")
    text = content(paths)
    assert len(text.encode()) < 1024 * 1024
    assert "only counted for up to 10 s" in text
    assert "950 more from this line of code before" in text
    assert "another line of code" in text
    assert log_stats().suppressed == 60 * 100 - 6 * 50
    close_logging()
    assert "950 more from test_logger.py" in (paths.log_dir / "bot_dry-run_2026-11-20.log").read_text()


def test_lg_05_the_file_has_a_size_limit_and_the_terminal_goes_on(
    paths: Paths, clock: ManualClock, stream: io.StringIO
) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream, max_bytes=5000)
    for number in range(1000):
        log.info("line %d", number)
    assert len(content(paths)) < 5200
    assert content(paths).endswith("is not in here\n")
    assert "line 999" in stream.getvalue()
    assert "has reached 5000 bytes" in stream.getvalue()


def test_rate_limited_log(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    limited = RateLimitedLog(logging.getLogger("limits"), clock, every=10)
    assert limited.warning("a", "stream %s lost", "x")
    assert not limited.warning("a", "stream %s lost", "x")
    assert limited.error("b", "another key")
    assert not limited.warning("a", "stream %s lost", "x")
    clock._elapsed += 10
    assert limited.warning("a", "stream %s lost", "x")
    assert [record.getMessage() for record in caplog.records] == [
        "stream x lost",
        "another key",
        "stream x lost (and 2 like it since the last)",
    ]
    assert {record.funcName for record in caplog.records} == {"test_rate_limited_log"}
    assert limited.suppressed == 2
    for number in range(5000):
        limited.info(number, "x")
    assert len(limited._state) <= 1000


# -- disks and terminals


@contextlib.contextmanager
def disk_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_st_01_a_full_disk_does_not_stop_the_bot(paths: Paths, clock: ManualClock, stream: io.StringIO) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    log.info("line 0")
    assert flush_logging()
    with disk_limit(len(content(paths)) + 30):
        for number in range(1, 100):
            log.info("line %d", number)
        wait_until(lambda: "cannot be written" in stream.getvalue())
        wait_until(lambda: log_stats().errors >= 2)
        assert content_as_is(paths).endswith("line 0\n")
    wait_until(lambda: "written again" in stream.getvalue())
    numbers = [int(found) for found in re.findall(r"line (\d+)\n", content(paths))]
    assert numbers == list(range(100)), "nothing is lost"
    assert stream.getvalue().count("cannot be written") == 1


def content_as_is(paths: Paths) -> str:
    return (paths.log_dir / "bot_dry-run_2026-11-20.log").read_text(encoding="utf-8")


class SlowTerminal(io.StringIO):
    def write(self, text: str) -> int:
        threading.Event().wait(0.05)  # the threads of file and terminal race here
        return super().write(text)


def test_st_09_a_vanished_directory_is_made_anew(paths: Paths, clock: ManualClock) -> None:
    stream = SlowTerminal()
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    log.info("before")
    assert flush_logging()
    (paths.log_dir / "bot_dry-run_2026-11-20.log").unlink()
    paths.log_dir.rmdir()
    log.info("after")
    assert "after" in content(paths)
    assert "moved or deleted" in stream.getvalue()


def test_a_disk_that_hangs_does_not_block_logging_or_the_end(
    paths: Paths, clock: ManualClock, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    release, entered = threading.Event(), threading.Event()
    real_write = os.write

    def hang(fd: int, data: bytes) -> int:
        entered.set()
        release.wait(10)
        return real_write(fd, data)

    monkeypatch.setattr(files.os, "write", hang)
    done = threading.Event()

    def work() -> None:
        for number in range(1000):
            log.info("line %d", number)
        close_logging()
        done.set()

    threading.Thread(target=work).start()
    assert entered.wait(5)
    assert done.wait(2)
    assert "line 999" in stream.getvalue()
    assert "lines could not be written to the log file" in stream.getvalue()
    release.set()
    wait_until(lambda: not any(thread.name.startswith("pmkit-") for thread in threading.enumerate()))


def test_a_stuck_terminal_does_not_block_the_bot(paths: Paths, clock: ManualClock) -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    done = threading.Event()

    def work() -> None:
        for number in range(3000):
            log.info("line %d %s", number, "x" * 100)
        done.set()

    threading.Thread(target=work).start()
    try:
        assert done.wait(5), "a full pipe must not stop the program"
        wait_until(lambda: log_stats().written == 3000)
    finally:
        os.close(reader)  # the writer gets EPIPE
    wait_until(lambda: log_stats().errors > 0)
    assert "terminal cannot be written any more" in content(paths)
    close_logging()
    with contextlib.suppress(OSError):
        stream.close()


def test_a_closed_stream_is_no_error(paths: Paths, clock: ManualClock) -> None:
    stream = io.StringIO()
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
    stream.close()
    log.info("goes on")
    assert "goes on" in content(paths)


def test_colours_only_on_a_terminal(paths: Paths, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)
        assert console() is not None
        log.warning("[bold]not markup[/bold] :smile: \x1b[31m %s", "y" * 200)
        assert flush_logging()
        close_logging()
        shown = os.read(master, 10_000).decode()
    os.close(master)
    assert "\x1b[1;33mWARNING" in shown
    assert "[bold]not markup[/bold] :smile: \\x1b[31m" in shown
    assert "y" * 200 in shown, "long lines are neither cut nor wrapped by us"
    assert shown.count("\n") == 1


def test_an_error_of_the_file_is_counted(
    paths: Paths, clock: ManualClock, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = setup_logging("bot", "dry-run", paths=paths, clock=clock, stream=stream)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", fail)
        log.info("held")
        wait_until(lambda: "Input/output error" in stream.getvalue())
        close_logging()
    assert "1 lines could not be written" in stream.getvalue() or "2 lines could not" in stream.getvalue()
