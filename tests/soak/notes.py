"""What a trading process knew, line by line: written at once, so that a SIGKILL loses nothing of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec


class Notes:
    """Appends one JSON object per note: `t` (wall seconds, the same in all processes), `life`, `what`, and the rest."""

    def __init__(self, path: Path, life: int) -> None:
        self._life = life
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, what: str, **fields: Any) -> None:
        line = {"t": time.time(), "life": self._life, "what": what, **fields}
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        os.close(self._file)


class Reader:
    """Reads a file of notes as it grows. A line that is not whole yet stays for the next `more`."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._path = path
        self._at = 0

    def more(self) -> list[dict[str, Any]]:
        """The notes since the last call; all of them are in `lines`."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        new = [msgspec.json.decode(line) for line in whole.splitlines()]
        self.lines += new
        return new
