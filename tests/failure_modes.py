"""The table of failure modes in docs/, made from the names of the tests.

    python -m tests.failure_modes          (writes docs/failure-modes.md anew)

A test is named after the modes it covers: `test_md_05_...`, `test_lg_01_lg_03_...`. Ids and titles stand in the page;
a new incident is a new row with the next free number of its area, then a test, then the fix.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "failure-modes.md"
ROW = re.compile(r"^\| ([A-Z]{2}-\d\d) \| ([^|]+) \|.*$", re.MULTILINE)
NAMED = re.compile(r"^test((?:_[a-z]{2}_\d\d)+)_")


def tests_by_mode() -> dict[str, list[str]]:
    """Mode -> the files with tests named after it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := NAMED.match(node.name)):
                for area, number in re.findall(r"_([a-z]{2})_(\d\d)", match[1]):
                    found[f"{area.upper()}-{number}"].append(path.relative_to(ROOT).as_posix())
    return {mode: list(dict.fromkeys(files)) for mode, files in found.items()}


def page(text: str) -> str:
    """The page with the column of tests made anew."""
    tests = tests_by_mode()

    def row(match: re.Match[str]) -> str:
        # Without counts: a further test in a file that is named already changes nothing here.
        cell = ", ".join(f"`{name}`" for name in tests.get(match[1], []))
        return f"| {match[1]} | {match[2]} | {cell or '**none**'} |"

    return ROW.sub(row, text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
