"""Where files go, and how they are called. A file name is made of cleaned parts only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pmkit.errors import ConfigError

if TYPE_CHECKING:
    from pmkit.config.env import Mode, Settings, Where

MAX_PART_CHARS = 64
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(\.|$)")


def clean_part(text: str) -> str:
    """A text as part of a file name: letters, digits, `.`, `_` and `-` of ASCII, all else becomes `_`.

    No leading or trailing dot, at most 64 characters, never empty, never a device name of Windows. Two texts may become
    the same part, so a name from the network must not be the only thing that tells two files apart.
    """
    part = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:MAX_PART_CHARS].strip(".")
    if _RESERVED.match(part):
        part = "_" + part
    return part[:MAX_PART_CHARS] or "_"


def file_mode(where: Where | str, mode: Mode | str) -> str:
    """The mode that stands in file names and rows: `live` or `dry-run` on real venues, `local` on local ones.

    `demo` on Kalshi's demo, so that play money is never among live trades.
    """
    return str(mode) if str(where) == "real" else str(where)


def _name(parts: tuple[str, ...], day: date, number: int, suffix: str) -> str:
    stem = "_".join((*(clean_part(part) for part in parts), day.strftime("%Y-%m-%d")))
    return f"{stem}{'' if number == 1 else f'_{number}'}{suffix}"


@dataclass(frozen=True, slots=True)
class Paths:
    """The three directories. Nothing is created before something is written.

    `day` is a UTC date everywhere; `number` is 2, 3, ... for the files of a second, third process of the same name.
    """

    log_dir: Path = Path("logs")
    trade_dir: Path = Path("trades")
    data_dir: Path = Path("data")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The directories that the settings name."""
        return cls(settings.log_dir, settings.trade_dir, settings.data_dir)

    def log_file(self, bot: str, mode: str, day: date, number: int = 1) -> Path:
        """`{bot}_{mode}_{date}.log`"""
        return self.log_dir / _name((bot, mode), day, number, ".log")

    def trades_file(self, mode: str, day: date, number: int = 1) -> Path:
        """`trades_{mode}_{date}.csv`"""
        return self.trade_dir / _name(("trades", mode), day, number, ".csv")

    def recording_file(self, bot: str, mode: str, moment: datetime) -> Path:
        """`recordings/{bot}_{mode}_{date}_{time}.jsonl.gz` of the data directory; `moment` is aware."""
        stem = "_".join((clean_part(bot), clean_part(mode), f"{moment.astimezone(UTC):%Y-%m-%d_%H%M%S}"))
        return self.data_dir / "recordings" / f"{stem}.jsonl.gz"

    def check(self) -> None:
        """Creates the log and trade directories and writes into each. Raises ConfigError for all that fail, at once."""
        problems: list[str] = []
        for directory in (self.log_dir, self.trade_dir):
            try:
                ensure_writable(directory)
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("files cannot be written:", problems)


def ensure_writable(directory: Path) -> None:
    """Creates the directory and proves by a real write that files can be made in it. Raises ConfigError."""
    probe = directory / f".pmkit-probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"pmkit\n")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None


def unwritable(path: Path, error: OSError) -> ConfigError:
    """The ConfigError for a directory or file that cannot be written."""
    reason = error.strerror or type(error).__name__
    return ConfigError(
        f"cannot write to {path.absolute()} ({reason}): give this user the right to write there and room on the disk, "
        "or set PMKIT_LOG_DIR, PMKIT_TRADE_DIR, PMKIT_DATA_DIR to other directories"
    )
