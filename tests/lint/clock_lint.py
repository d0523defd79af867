"""The clock lint: time and randomness go through `pmkit.clock` and nowhere else.

    python -m tests.lint.clock_lint pmkit examples

prints `file:line:column: what is wrong` and exits 1 when it finds something, 2 when it was given nothing to read. Names
are resolved through the imports of the file (`import time as t`, `from asyncio import sleep as nap`), so an alias does
not hide a call. There is no comment that switches it off. `asyncio.wait(..., timeout=)` is not refused.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EXEMPT = ("pmkit/clock.py", "pmkit/sim/virtual/loop.py")
"""The clock, and the event loop that is one."""

# Whole modules: even importing one is refused.
MODULES = {
    "time": "take a Clock: now_ms(), time_ns(), monotonic(), perf_ns(), sleep()",
    "random": "use clock.entropy",
    "secrets": "use clock.entropy",
    "numpy.random": "use clock.entropy",
    "sched": "use clock.call_later()",
}
_SLEEP = "use clock.sleep() for market time, clock.io_sleep() for wall time"
_TIMEOUT = "use clock.timeout() for market time, clock.io_timeout() for wall time"
_NOW = "use clock.now()"
_UUID = "use clock.entropy.uuid4()"
NAMES = {
    "datetime.datetime.now": _NOW,
    "datetime.datetime.utcnow": _NOW,
    "datetime.datetime.today": _NOW,
    "datetime.date.today": _NOW,
    "pandas.Timestamp.now": _NOW,
    "pandas.Timestamp.utcnow": _NOW,
    "pandas.Timestamp.today": _NOW,
    "asyncio.sleep": _SLEEP,
    "asyncio.tasks.sleep": _SLEEP,
    "asyncio.wait_for": _TIMEOUT,
    "asyncio.tasks.wait_for": _TIMEOUT,
    "asyncio.timeout": _TIMEOUT,
    "asyncio.timeout_at": _TIMEOUT,
    "asyncio.Timeout": _TIMEOUT,
    "asyncio.timeouts": _TIMEOUT,
    "threading.Timer": "use clock.call_later()",
    "uuid.uuid1": _UUID,
    "uuid.uuid4": _UUID,
    "os.urandom": "use clock.entropy",
    "os.getrandom": "use clock.entropy",
}
LOOP_METHODS = {
    "time": "use clock.monotonic()",
    "call_later": "use clock.call_later()",
    "call_at": "use clock.call_later()",
}
LOOP_MAKERS = {"get_running_loop", "get_event_loop", "new_event_loop", "get_loop"}
LOOP_NAME = re.compile(r"(^|_)loop$")
# Refused on any receiver, since nothing of ours has a method of that name.
METHODS = {"utcnow": _NOW, "today": _NOW, "call_at": LOOP_METHODS["call_at"]}
STAR_REFUSED = {name.partition(".")[0] for name in (*NAMES, *MODULES)}


class Finding(NamedTuple):
    """One refused use."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class _Names(ast.NodeVisitor):
    """First pass: what each local name stands for, and which names hold an event loop."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.loops: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.aliases[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module:
            for alias in node.names:
                self.aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, node.value)
        self._annotated(last_name(node.target), node.annotation)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        self._annotated(node.arg, node.annotation)

    def _annotated(self, name: str | None, annotation: ast.expr | None) -> None:
        if name and annotation is not None and "EventLoop" in ast.unparse(annotation):
            self.loops.add(name)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        name = last_name(target)
        if name is None:
            return
        if makes_loop(value):
            self.loops.add(name)
        elif isinstance(target, ast.Name) and (path := self.resolve(value)):
            self.aliases[name] = path  # `nap = asyncio.sleep`

    def resolve(self, node: ast.expr) -> str | None:
        """The dotted path of an expression as far as the imports tell it: `t.sleep` -> `time.sleep`."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            return f"{base}.{node.attr}" if base else None
        if isinstance(node, ast.Call):
            if (module := imported_by_call(node)) is not None:
                return module
            if (pair := got_attribute(node)) is not None:
                base = self.resolve(pair[0])
                return f"{base}.{pair[1]}" if base else None
        return None


class _Lint(ast.NodeVisitor):
    """Second pass: every use of a refused name."""

    def __init__(self, file: str, names: _Names) -> None:
        self.file = file
        self.names = names
        self.found: list[Finding] = []

    def add(self, node: ast.stmt | ast.expr, what: str, instead: str) -> None:
        self.found.append(Finding(self.file, node.lineno, node.col_offset + 1, f"{what}: {instead}"))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if reason := refused(alias.name):
                self.add(node, f"import {alias.name}", reason)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module:
            return
        if reason := refused(node.module):
            self.add(node, f"from {node.module} import", reason)
            return
        for alias in node.names:
            if alias.name == "*" and node.module.partition(".")[0] in STAR_REFUSED:
                self.add(node, f"from {node.module} import *", "name what you import, so that the lint can see it")
            elif reason := refused(f"{node.module}.{alias.name}"):
                self.add(node, f"from {node.module} import {alias.name}", reason)

    def visit_Name(self, node: ast.Name) -> None:
        path = self.names.aliases.get(node.id)
        # A plain name that stands for a refused one: reported where it is used as well as where it is imported.
        if isinstance(node.ctx, ast.Load) and path and (reason := refused(path)):
            self.add(node, path, reason)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._attribute(node, node.value, node.attr):
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if (module := imported_by_call(node)) is not None and (reason := refused(module)):
            self.add(node, f"import of {module}", reason)
        if (pair := got_attribute(node)) is not None:
            self._attribute(node, *pair)
        self.generic_visit(node)

    def _attribute(self, node: ast.expr, receiver: ast.expr, name: str) -> bool:
        base = self.names.resolve(receiver)
        path = f"{base}.{name}" if base else None
        if path and (reason := refused(path)):
            self.add(node, path, reason)
        elif name in LOOP_METHODS and self._is_loop(receiver):
            self.add(node, f"loop.{name}", LOOP_METHODS[name])
        elif name in METHODS:
            self.add(node, f".{name}", METHODS[name])
        else:
            return False
        return True

    def _is_loop(self, node: ast.expr) -> bool:
        if makes_loop(node):
            return True
        name = last_name(node)
        return name is not None and (name in self.names.loops or LOOP_NAME.search(name) is not None)


def refused(path: str) -> str | None:
    """What to use in place of a dotted path; None where it is allowed."""
    while path:
        if reason := NAMES.get(path) or MODULES.get(path):
            return reason
        path = path.rpartition(".")[0]
    return None


def last_name(node: ast.expr) -> str | None:
    """`x` of `x` and of `self.x`."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def makes_loop(node: ast.expr) -> bool:
    """Whether an expression is a call such as `asyncio.get_running_loop()` or `task.get_loop()`."""
    return isinstance(node, ast.Call) and last_name(node.func) in LOOP_MAKERS


def imported_by_call(node: ast.Call) -> str | None:
    """The module of `import_module("time")` and `__import__("time")`."""
    if last_name(node.func) in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
        return str(node.args[0].value)
    return None


def got_attribute(node: ast.Call) -> tuple[ast.expr, str] | None:
    """Receiver and name of `getattr(receiver, "name")`."""
    if last_name(node.func) == "getattr" and len(node.args) >= 2 and isinstance(node.args[1], ast.Constant):
        return node.args[0], str(node.args[1].value)
    return None


def check_source(source: str, file: str = "<source>") -> list[Finding]:
    """All findings in one file's text. Raises SyntaxError where it is not Python."""
    tree = ast.parse(source, file)
    names = _Names()
    names.visit(tree)
    lint = _Lint(file, names)
    lint.visit(tree)
    return sorted(set(lint.found))


def python_files(paths: list[Path]) -> Iterator[Path]:
    """Every Python file at or under the paths. Raises FileNotFoundError for a path that is not there."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def check_tree(paths: list[Path]) -> tuple[int, list[Finding]]:
    """How many files were read, and what was found in them."""
    found: list[Finding] = []
    count = 0
    for path in python_files(paths):
        if path.as_posix().endswith(EXEMPT):
            continue
        count += 1
        found += check_source(path.read_text(encoding="utf-8"), path.as_posix())
    return count, found


def main(arguments: list[str]) -> int:
    try:
        count, found = check_tree([Path(argument) for argument in arguments])
    except FileNotFoundError as error:
        print(f"clock lint: there is no {error}", file=sys.stderr)
        return 2
    if not count:
        print("clock lint: no Python file to read", file=sys.stderr)
        return 2
    for finding in found:
        print(finding)
    print(f"clock lint: {count} files, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
