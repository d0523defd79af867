"""Client scripts as child processes: JSON lines there and back (the other end: conformance/child.py)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "conformance"
BLOCKED = "may reach loopback only"  # what a client process says that turned to another host
SECONDS = 150.0  # of the wall, for one answer: an import of ccxt alone takes two, and a busy machine ten times that


def environment_directory() -> Path:
    """$PMKIT_CONFORMANCE_VENV, else where `.ci/setup-conformance` puts it. It may not exist."""
    chosen = os.environ.get("PMKIT_CONFORMANCE_VENV")
    if chosen:
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lock = hashlib.sha256((SCRIPTS / "requirements.lock").read_bytes()).hexdigest()
    return cache / "pmkit" / f"conformance-{lock[:16]}"


class ClientError(Exception):
    """What the client raised: `type` is the name of its exception, `details` what it told beside the text."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.type: str = error["type"]
        self.text: str = error["text"]
        self.details = {name: value for name, value in error.items() if name not in ("type", "text")}
        super().__init__(f"{self.type}: {self.text}")


class Client:
    """One client in a process of its own. An async context manager; `ask` is one call."""

    def __init__(self, python: Path, script: str, settings: Mapping[str, Any]) -> None:
        self.version = ""
        self.python = ""
        self._last_words = ""
        self._command = [str(python), "-E", "-s", str(SCRIPTS / f"{script}.py")]
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended

    async def __aenter__(self) -> Self:
        # Nothing of this machine's settings: no proxy, no key of a real account.
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            limit=2**26,
        )
        try:
            ready = await self._exchange(self._settings)
        except BaseException:
            await self._end()
            raise
        self.version, self.python = ready["version"], ready["python"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
        if error is None:
            assert BLOCKED not in self._last_words, self._last_words

    async def ask(self, call: str, **args: Any) -> Any:
        """What the client answers to one call. Raises ClientError where it raised."""
        return await self._exchange({"call": call, "args": args})

    @property
    def said(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()[-8000:].decode(errors="replace")

    async def _exchange(self, line: Mapping[str, Any]) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(SECONDS):
            await process.stdin.drain()
            raw = await process.stdout.readline()
        if not raw:
            raise AssertionError(f"{self._command[-1]} ended without an answer:\n{self.said}")
        answer = json.loads(raw)
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer["result"]

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self._last_words = self.said
        self._errors.close()
