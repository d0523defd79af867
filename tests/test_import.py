"""`import pmkit` is cheap, and every public name is there when it is asked for."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pmkit
from pmkit import errors

ROOT = Path(__file__).resolve().parent.parent
INIT = ROOT / "pmkit" / "__init__.py"

NAMED_IN_DESIGN = {"pandas", "numpy", "web3", "eth_account", "httpx", "aiohttp", "inquirer"}
HEAVY = NAMED_IN_DESIGN | {"websockets", "rich", "cryptography", "coincurve", "Crypto", "dotenv", "ccxt", "orjson"}

# Part of a full install, but not needed before the feature that uses them is (failure mode DP-04).
LATE = ("pandas", "numpy", "web3", "eth_account", "inquirer", "rich", "aiohttp", "matplotlib", "ccxt")


def fresh(code: str) -> str:
    """What a fresh interpreter prints that runs the code at the root of the repository."""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def typed_names() -> dict[str, str]:
    """Name -> module of the `if TYPE_CHECKING:` block."""
    found: dict[str, str] = {}
    for node in ast.parse(INIT.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                assert statement.module is not None
                for alias in statement.names:
                    # Only `X as X` is a public name to type checkers.
                    assert alias.asname == alias.name
                    found[alias.name] = statement.module
    return found


def test_import_loads_only_the_standard_library_and_msgspec() -> None:
    loaded = set(
        json.loads(
            fresh(
                "import sys; before = set(sys.modules); import pmkit, json;"
                "print(json.dumps(sorted(set(sys.modules) - before)))"
            )
        )
    )
    roots = {name.partition(".")[0] for name in loaded}
    assert "pmkit" in roots
    assert not roots & HEAVY
    assert roots - sys.stdlib_module_names <= {"pmkit", "msgspec"}


def test_dp_04_every_name_resolves_without_what_only_some_features_need() -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LATE!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocked())
import pmkit
for name in pmkit.__all__:
    getattr(pmkit, name)
"""
    fresh(code)


@pytest.mark.parametrize("name", sorted(pmkit._MODULE_OF))
def test_name_resolves(name: str) -> None:
    value = getattr(pmkit, name)
    assert value is getattr(importlib.import_module(pmkit._MODULE_OF[name]), name)
    assert not isinstance(value, types.ModuleType)
    # Defined there, not passed on from somewhere else: one home for each name.
    assert value.__module__ == pmkit._MODULE_OF[name]


def test_type_checkers_see_the_same_names() -> None:
    assert typed_names() == pmkit._MODULE_OF


def test_every_error_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PmkitError) and value.__module__ == "pmkit.errors"
    }
    assert len(tree) > 10
    assert tree == set(pmkit._MODULES["pmkit.errors"])


def test_dir_and_all() -> None:
    assert set(pmkit.__all__) == {*pmkit._MODULE_OF, "__version__"}
    assert len(pmkit.__all__) == len(set(pmkit.__all__))
    assert set(pmkit.__all__) <= set(dir(pmkit))
    # In a fresh interpreter as well, where nothing has been loaded yet; and looking loads nothing.
    seen = fresh("import pmkit, sys; print('BaseBot' in dir(pmkit), 'pmkit.bot' in sys.modules)")
    assert seen.split() == ["True", "False"]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'BaseBto'"):
        _ = pmkit.BaseBto  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from pmkit import BaseBto")


def test_typed_package() -> None:
    assert (ROOT / "pmkit" / "py.typed").is_file()
    assert pmkit.__version__.count(".") == 2
