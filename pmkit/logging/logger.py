"""Log set-up for a program: a terminal and one file per UTC day.

    log = setup_logging("FavouriteBot", "dry-run", paths=paths, clock=clock, secrets=secrets_of(settings))
    ...
    close_logging()

Only a program calls this (`run` does); a library that imports pmkit keeps its own logging. From set-up to close

* every record of every logger is cleaned of secrets before any handler sees it, tracebacks included; uncaught
  exceptions are cleaned as well, until the process ends;
* the root logger has one handler, which gives each line to two threads, one for the terminal and one for the file, so
  that neither a full disk nor a stuck terminal stops the event loop;
* third-party libraries are heard from WARNING on, unless the level is DEBUG.

Times and dates are those of the given clock, UTC. `RateLimitedLog` for messages that repeat: `pmkit.logging.limits`.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from pmkit.clock import Clock
from pmkit.config.secret import Secret
from pmkit.errors import ConfigError
from pmkit.logging.files import DailyFile
from pmkit.logging.limits import FloodGuard, RateLimitedLog
from pmkit.logging.paths import Paths, clean_part, unwritable
from pmkit.logging.redact import REDACTOR, protect
from pmkit.logging.sinks import FileLine, FileSink, TerminalLine, TerminalSink
from pmkit.logging.text import escape, shorten
from pmkit.logging.writer import CLOSE_SECONDS, LineWriter

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "LogStats",
    "RateLimitedLog",
    "close_logging",
    "console",
    "flush_logging",
    "log_path",
    "log_stats",
    "protect",
    "setup_logging",
]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
MAX_FILE_BYTES = 100 * 1024 * 1024
MAX_MESSAGE_CHARS = 10_000
MAX_TRACE_CHARS = 20_000
HELD_LINES = 10_000
THIRD_PARTY = (
    "aiohttp", "asyncio", "charset_normalizer", "h2", "hpack", "httpcore", "httpx", "markdown_it", "urllib3", "web3",
    "websockets",
)  # fmt: skip
_BOT_PREFIX = "pmkit.bot."
_LIBRARY_PATH = re.compile(r"[/\\](?:site|dist)-packages[/\\]")


@dataclass(frozen=True, slots=True)
class LogStats:
    """`written` lines in the file, `held` in memory, `lost`, `suppressed` as repeats, `errors` of disk or terminal."""

    written: int
    held: int
    lost: int
    suppressed: int
    errors: int


class _Handler(logging.Handler):
    """The one handler of the root logger: renders a record once and hands it to the writers."""

    def __init__(self, mode: str, clock: Clock, level: str) -> None:
        super().__init__()
        self.mode = mode
        self.clock = clock
        self.verbose = level == "DEBUG"
        self.guard = FloodGuard(clock)
        self.terminal: LineWriter[TerminalLine] | None = None
        self.file: LineWriter[FileLine] | None = None
        self.bad_calls = 0
        self.addFilter(self._is_wanted)

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or self.verbose or not _LIBRARY_PATH.search(record.pathname)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            note = self.guard.judge(record)
            if note is not None:
                self.put(record.levelno, record.name, _message(record) + note, _trace(record))
        except Exception:
            # logging's own handleError prints the record's arguments as they are, secrets included.
            self.bad_calls += 1
            self.put(logging.ERROR, __name__, f"a log record of {record.name} could not be shown", "")

    def put(self, level: int, name: str, message: str, trace: str = "") -> None:
        """One line (and a traceback's) to terminal and file."""
        now = self.clock.now()
        name = escape(name.removeprefix(_BOT_PREFIX))
        text = f"{self.mode} {name}: {escape(shorten(REDACTOR(message), MAX_MESSAGE_CHARS))}{_indented(trace)}"
        word = logging.getLevelName(level)
        if self.terminal is not None:
            self.terminal.submit(TerminalLine(level, f"{now:%H:%M:%S}.{now.microsecond // 1000:03}", word, text))
        if self.file is not None:
            line = f"{_stamp(now)} {word:<7} {text}\n"
            self.file.submit(FileLine(now.date(), line.encode("utf-8", "backslashreplace")))


def _stamp(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"


def _message(record: logging.LogRecord) -> str:
    """The record's text, also when its arguments do not fit or cannot be shown."""
    try:
        return record.getMessage()
    except Exception as error:
        where = f"{Path(record.pathname).name}:{record.lineno}"
        return f"{_safely(record.msg)} with {_safely(record.args)} (badly logged at {where}: {type(error).__name__})"


def _safely(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text raises {type(error).__name__}>"


def _trace(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(_format_exception(*record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _format_exception(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    try:
        return "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    except Exception as failure:
        return f"{kind} (its traceback cannot be shown: {type(failure).__name__})"


def _indented(trace: str) -> str:
    """A traceback on lines of its own, none of which can be taken for a record."""
    if not trace:
        return ""
    lines = shorten(REDACTOR(trace), MAX_TRACE_CHARS).split("\n")
    return "".join(f"\n    | {escape(line)}" for line in lines)


@dataclass(slots=True)
class _SetUp:
    """What is installed now, and what was there before."""

    key: tuple[str, str, Paths, int, int]
    logger: logging.Logger
    handler: _Handler
    file: DailyFile
    terminal: TerminalSink | None
    root_level: int
    library_levels: dict[str, int]


_guard = threading.RLock()
_current: _SetUp | None = None
_make_record: Any = None
_hooked = False


def setup_logging(
    bot: str,
    mode: str,
    *,
    paths: Paths,
    clock: Clock,
    level: str = "INFO",
    secrets: Iterable[str | Secret] = (),
    stream: TextIO | None = None,
    max_bytes: int = MAX_FILE_BYTES,
) -> logging.Logger:
    """Logs of this process go to the terminal and to `{bot}_{mode}_{date}.log`. Gives the bot's logger.

    `stream` is stderr unless given; colours only when it is a terminal. `max_bytes` bounds one day's file. A second
    call with the same bot, mode, paths, clock and stream only sets the level and adds secrets; with others it closes
    the first set-up. Raises ConfigError for an unknown level and when the file cannot be opened.
    """
    global _current
    if level not in LEVELS:
        raise ConfigError(f"the log level must be one of {', '.join(LEVELS)}, not {level!r}")
    protect(*secrets)
    output = sys.stderr if stream is None else stream
    key = (bot, mode, paths, id(clock), id(output))
    with _guard:
        if _current is None or _current.key != key:
            close_logging()
            _current = _install(bot, mode, paths, clock, output, max_bytes, key)
        _set_level(_current, level)
        return _current.logger


def _install(
    bot: str,
    mode: str,
    paths: Paths,
    clock: Clock,
    output: TextIO | None,
    max_bytes: int,
    key: tuple[str, str, Paths, int, int],
) -> _SetUp:
    handler = _Handler(mode, clock, "INFO")

    def notice(text: str) -> None:
        handler.put(logging.WARNING, __name__, text)

    def tell(text: str, recovered: bool) -> None:
        handler.put(logging.WARNING if recovered else logging.ERROR, __name__, text)

    today = clock.now().date()
    terminal = None if output is None else TerminalSink(output, lambda text: tell(text, False))
    if terminal is not None:
        handler.terminal = LineWriter("terminal", terminal, tell, limit=HELD_LINES)
    file = DailyFile(
        lambda day, number: paths.log_file(bot, mode, day, number),
        notice,
        max_bytes=max_bytes,
        capped_line=f"--- the limit of {max_bytes} bytes is reached: the rest of the day is not in here\n".encode(),
    )
    try:
        file.open(today)
    except OSError as error:
        if handler.terminal is not None:
            handler.terminal.close()
        raise unwritable(paths.log_file(bot, mode, today), error) from None
    handler.file = LineWriter("log file", FileSink(file), tell, limit=HELD_LINES)
    root = logging.getLogger()
    logger = logging.getLogger(_BOT_PREFIX + clean_part(bot))
    levels = {name: logging.getLogger(name).level for name in THIRD_PARTY}
    _hook()
    root.addHandler(handler)
    return _SetUp(key, logger, handler, file, terminal, root.level, levels)


def _set_level(current: _SetUp, level: str) -> None:
    current.handler.verbose = level == "DEBUG"
    logging.getLogger().setLevel(level)
    for name in THIRD_PARTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)


def flush_logging(timeout: float = CLOSE_SECONDS) -> bool:
    """Wait (blocking, wall seconds for each of terminal and file) until all lines are out. False when they are not."""
    with _guard:
        current = _current
    if current is None:
        return True
    # The file first: what happens to it is said on the terminal.
    writers = (current.handler.file, current.handler.terminal)
    done = [writer.flush(timeout) for writer in writers if writer is not None]
    return all(done)


def close_logging(timeout: float = CLOSE_SECONDS) -> None:
    """Write what is left and put the root logger back as it was. Idempotent; ends within `timeout` wall seconds."""
    global _current
    with _guard:
        current, _current = _current, None
    if current is None:
        return
    handler, root = current.handler, logging.getLogger()
    for file, line, count in handler.guard.outstanding():
        handler.put(logging.WARNING, __name__, f"{count} more from {Path(file).name}:{line} were only counted")
    root.removeHandler(handler)
    root.setLevel(current.root_level)
    for name, level in current.library_levels.items():
        logging.getLogger(name).setLevel(level)
    # The file first, so that its last words reach the terminal.
    if handler.file is not None:
        left = handler.file.close(timeout / 2)
        if left:
            handler.put(logging.ERROR, __name__, f"{len(left)} lines could not be written to the log file")
    if handler.terminal is not None:
        handler.terminal.close(timeout / 2)
    handler.close()


def log_path() -> Path | None:
    """Today's log file; None without set-up."""
    with _guard:
        return None if _current is None else _current.file.path


def log_stats() -> LogStats:
    """Counts since set-up; all zero without one."""
    with _guard:
        current = _current
    if current is None or current.handler.file is None:
        return LogStats(0, 0, 0, 0, 0)
    stats = current.handler.file.stats
    errors = stats.errors + current.handler.bad_calls + (current.terminal.errors if current.terminal else 0)
    return LogStats(stats.written, stats.pending, stats.lost, current.handler.guard.suppressed, errors)


def console() -> Console | None:
    """The rich console that log lines go through when stderr is a terminal; a live display must use the same one."""
    with _guard:
        return None if _current is None or _current.terminal is None else _current.terminal.console


# -- what stays for the life of the process -------------------------------------------------------------------------


def _hook() -> None:
    """Clean records where they are made, and what is printed about uncaught exceptions."""
    global _hooked, _make_record
    if logging.getLogRecordFactory() is not _clean_record:
        _make_record = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_clean_record)
    if not _hooked:
        _hooked = True
        atexit.register(close_logging)
        sys.excepthook = _ExceptHook(sys.excepthook)
        threading.excepthook = _ThreadHook(threading.excepthook)


def _clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A record that holds no secret for any handler: changed only where there was one."""
    record: logging.LogRecord = _make_record(*args, **kwargs)
    text = _message(record)
    clean = REDACTOR(text)
    if clean != text:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[0] is not None:
        trace = _format_exception(*record.exc_info)
        clean = REDACTOR(trace)
        if clean != trace:
            record.exc_info, record.exc_text = None, clean
    return record


class _ExceptHook:
    """sys.excepthook: into the log while there is one; a traceback that holds a secret is printed clean."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self.show("uncaught exception", kind, error, trace, lambda: self.before(kind, error, trace))

    def show(self, what: str, kind: Any, error: Any, trace: Any, otherwise: Any) -> None:
        with _guard:
            current = _current
        if current is not None and not issubclass(kind, KeyboardInterrupt):
            current.handler.put(logging.ERROR, __name__, what, _format_exception(kind, error, trace))
            flush_logging()
            return
        text = _format_exception(kind, error, trace)
        clean = REDACTOR(text)
        if clean == text:
            otherwise()
        elif sys.stderr is not None:
            sys.stderr.write(clean + "\n")


class _ThreadHook(_ExceptHook):
    """threading.excepthook, likewise."""

    def __call__(self, args: Any) -> None:  # type: ignore[override]
        if args.exc_type is not SystemExit:
            name = "?" if args.thread is None else args.thread.name
            text = f"uncaught exception in thread {name}"
            self.show(text, args.exc_type, args.exc_value, args.exc_traceback, lambda: self.before(args))
