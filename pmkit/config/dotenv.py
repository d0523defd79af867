"""Reads a .env file and the environment into raw values; nothing is written into the environment.

python-dotenv's parser reads the file; `${...}` is not expanded, since a key may hold a dollar sign. Every value is
wrapped in a Secret as soon as it is read, so that no frame above holds one in clear (tracebacks may show locals).
"""

from __future__ import annotations

import difflib
import os
import stat
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from pmkit.config.secret import Secret
from pmkit.errors import ConfigError

ENVIRONMENT = "environment"
_MAX_FILE_BYTES = 1024 * 1024
_PREFIXES = ("PMKIT_", "POLYMARKET_", "KALSHI_", "POLYGON_")
_KNOWN_ELSEWHERE = frozenset({"PMKIT_RECORDINGS"})  # read by the tests


@dataclass(slots=True)
class RawValues:
    """What was found: values and where each came from (`environment` or the file's path)."""

    values: dict[str, Secret] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    file: Path | None = None


def read(env_file: Path | None, environ: Mapping[str, str] | None, names: Collection[str]) -> RawValues:
    """The variables `names` from the file and the environment; the environment wins.

    `env_file=None` means `.env` in the current directory, if there is one; parent directories are not searched. A file
    that was named but cannot be read raises ConfigError. `environ=None` means the real environment.
    """
    raw = RawValues()
    path = Path.cwd() / ".env" if env_file is None else Path(env_file)
    if env_file is not None or path.exists():
        raw.file = path
        _read_file(path, raw, names)
    environment = os.environ if environ is None else environ
    for name in environment:
        if name not in names and name.upper().startswith("PMKIT_") and _is_ours(name):
            raw.warnings.append(_unknown(name, "the environment", names))
    for name in names:
        if name not in environment:
            continue
        value = Secret(environment[name])
        if name in raw.values and raw.values[name] != value:
            raw.warnings.append(f"{name}: the environment's value is used, the different one in {path} is not")
        raw.values[name] = value
        raw.sources[name] = ENVIRONMENT
    return raw


def _read_file(path: Path, raw: RawValues, names: Collection[str]) -> None:
    from dotenv.parser import parse_stream

    raw.warnings += exposure(path)
    for binding in parse_stream(StringIO(read_text(path, "the .env file"))):
        name = binding.key
        if binding.error or (name is not None and binding.value is None):
            raw.warnings.append(
                f"{path}: line {binding.original.line} is not NAME=value and was passed over "
                "(a PEM key needs quotes around it, or its line ends written as \\n)"
            )
        elif name is not None and name in names:
            if name in raw.values:
                raw.warnings.append(f"{path}: {name} is there twice, the last one is used")
            raw.values[name] = Secret(binding.value or "")
            raw.sources[name] = str(path)
        elif name is not None and _is_ours(name):
            raw.warnings.append(_unknown(name, str(path), names))


def read_text(path: Path, what: str) -> str:
    """The text of a small file. Raises ConfigError with the reason and never with the content."""
    problem = ""
    try:
        if path.is_dir():
            problem = "it is a directory"
        elif not path.exists():
            problem = "there is no such file"
        elif not path.is_file():
            problem = "it is not a regular file"  # reading a pipe without a writer would hang
        elif path.stat().st_size > _MAX_FILE_BYTES:
            problem = "it is larger than 1 MiB"
        else:
            return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    raise ConfigError(f"{what} {path} cannot be read: {problem}")


def exposure(path: Path) -> list[str]:
    """Warnings about a file with secrets that others can read (POSIX modes) or that git tracks."""
    warnings: list[str] = []
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            warnings.append(f"{path} can be read by other users of this machine (mode {mode:04o}): chmod 600 {path}")
        if _git_tracks(path):
            warnings.append(f"{path} is tracked by git: git rm --cached {path.name}, and change the keys in it")
    except OSError as error:
        warnings.append(f"{path}: could not find out who can read it ({error.strerror})")
    return warnings


def _git_tracks(path: Path) -> bool:
    """Whether the file's name stands in the index of the repository around it (index versions 2 and 3)."""
    path = path.resolve()
    for parent in path.parents:
        index = parent / ".git" / "index"
        if index.is_file():
            name = os.fsencode(path.relative_to(parent).as_posix())
            # An entry is ..., 16 bits with the length of the name in the lower 12, the name, NUL (git's index-format).
            return struct.pack(">H", min(len(name), 0xFFF)) + name + b"\0" in index.read_bytes()
    return False


def _is_ours(name: str) -> bool:
    return name.upper().startswith(_PREFIXES) and name not in _KNOWN_ELSEWHERE


def _unknown(name: str, where: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name.upper(), list(names), n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name} in {where} is not a variable of pmkit{hint}"
