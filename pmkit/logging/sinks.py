"""What the writers of the log write to: the file of the day, and a terminal or stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, NamedTuple, TextIO

from pmkit.logging.files import DailyFile

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"DEBUG": "dim", "INFO": "green", "WARNING": "bold yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class FileLine(NamedTuple):
    """A line with its line end, and the UTC day whose file it belongs to."""

    day: date
    line: bytes


class TerminalLine(NamedTuple):
    """A line for people. `text` is escaped; only a traceback has more than one line."""

    level: int
    time: str
    word: str
    text: str


class FileSink:
    """Lines into a DailyFile. A line beyond the file's size limit is counted in `refused`."""

    def __init__(self, file: DailyFile) -> None:
        self._file = file
        self.refused = 0

    def write(self, item: FileLine) -> None:
        if not self._file.write(item.day, item.line):
            self.refused += 1

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class TerminalSink:
    """Lines to a stream: through rich on a terminal, plain otherwise.

    A stream that is gone (closed, EPIPE) is told once to the file; its lines are dropped and counted, since a terminal
    does not come back.
    """

    def __init__(self, stream: TextIO, tell: Callable[[str], None]) -> None:
        self._stream = stream
        self._tell = tell
        self.errors = 0
        self.console: Console | None = None
        if _is_terminal(stream):
            from rich.console import Console

            self.console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def write(self, item: TerminalLine) -> None:
        try:
            if self.console is None:
                self._plain(f"{item.time} {item.word:<7} {item.text}\n")
            else:
                self._coloured(self.console, item)
        except (OSError, ValueError) as error:
            self.errors += 1
            if self.errors == 1:
                self._tell(f"the terminal cannot be written any more: {type(error).__name__}")

    def _plain(self, line: str) -> None:
        try:
            self._stream.write(line)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()

    def _coloured(self, console: Console, item: TerminalLine) -> None:
        from rich.text import Text

        style = _STYLES.get(item.word, "")
        encoding = console.encoding or "utf-8"
        shown = item.text.encode(encoding, "backslashreplace").decode(encoding)
        line = Text.assemble((item.time, "dim"), " ", (f"{item.word:<7}", style), " ", shown)
        console.print(line, soft_wrap=True)

    def sync(self) -> None:
        with suppress(OSError, ValueError):  # counted where it matters, in write
            self._stream.flush()

    def close(self) -> None:
        self.sync()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
