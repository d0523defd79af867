"""What the project's own pages and files say is true: variables, commands, paths, dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pmkit.config.env import VARIABLES, Settings
from tests import failure_modes

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", ".claude/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.relative_to(ROOT).parts
)
VARIABLE = re.compile(r"\b(?:PMKIT|POLYMARKET|KALSHI|POLYGON)_[A-Z][A-Z_]*[A-Z]\b")
FOR_TESTS = {"PMKIT_RECORDINGS"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> dict[str, str]:
    """Name -> specifier of everything in pyproject.toml, optional or not."""
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)([^;]*)(;.*)?", text) for lines in lists for text in lines]
    return {normal(match[1]): match[2].strip() for match in found if match}


def locked() -> dict[str, str]:
    """Name -> version of the lock file."""
    return {normal(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ]+)", LOCK, re.MULTILINE)}


# --- variables


def example_variables() -> dict[str, str]:
    """Name -> the comment above it in .env.example; lines without one in between share it."""
    found: dict[str, str] = {}
    comment: list[str] = []
    fresh = True
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment = [*comment, line] if fresh else [line]
            fresh = True
        elif line:
            name, equals, value = line.partition("=")
            assert equals, f"not NAME=value: {line}"
            assert not value, f"{name} has a value in the example"
            found[name] = "\n".join(comment)
            fresh = False
        else:
            comment, fresh = [], True
    return found


def test_env_example_has_every_variable_explained() -> None:
    found = example_variables()
    assert set(found) == set(VARIABLES)
    for name, comment in found.items():
        assert len(comment) > 15, f"{name} is not explained"
        assert ("SECRET" in comment) == VARIABLES[name].secret, f"{name}: marked SECRET or not"


def test_env_example_unchanged_means_nothing_is_set(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text((ROOT / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    copy.chmod(0o600)
    settings = Settings.load(copy, {})
    assert settings.warnings == ()
    assert dict(settings.sources) == {}


def test_readme_names_every_variable_and_no_other() -> None:
    assert set(VARIABLE.findall(README)) - FOR_TESTS == set(VARIABLES)


def test_code_names_no_other_variable() -> None:
    used: dict[str, str] = {}
    readers: set[str] = set()
    for path in sorted((ROOT / "pmkit").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        file = path.relative_to(ROOT).as_posix()
        # A docstring may name a constant of ours; texts that the program uses may name variables only.
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                used |= dict.fromkeys(VARIABLE.findall(node.value), file)
            elif isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                readers.add(file)
    assert "PMKIT_WHERE" in used
    assert {name: file for name, file in used.items() if name not in VARIABLES and name not in FOR_TESTS} == {}
    assert readers <= {"pmkit/config/dotenv.py"}, "the environment is read in one place"


# --- pages


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_paths_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = make_targets()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    for module in re.findall(r"python3? -m ((?:examples|pmkit|benchmarks|tests)[\w.]*)", text):
        base = ROOT / module.replace(".", "/")
        assert base.with_suffix(".py").is_file() or (base / "__main__.py").is_file(), f"python -m {module}"
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), f"link to {link}"
    for path in re.findall(r"`((?:pmkit|tests|examples|benchmarks|docs|\.ci)/[\w./-]*)`", text):
        if path != "pmkit/exchanges/NAME/":
            assert (ROOT / path).exists(), f"path {path}"


def test_every_failure_mode_has_a_test_named_after_it_and_the_page_says_which() -> None:
    text = failure_modes.PAGE.read_text(encoding="utf-8")
    rows = failure_modes.ROW.findall(text)
    assert len(rows) == len({mode for mode, _ in rows}) >= 154
    assert set(failure_modes.tests_by_mode()) == {mode for mode, _ in rows}, "a test of a mode that is not listed"
    assert text == failure_modes.page(text), "out of date: python -m tests.failure_modes"
    assert "**none**" not in text


def test_layout_in_the_readme() -> None:
    layout = README.partition("## Layout")[2].partition("```")[2].partition("```")[0]
    folders = re.findall(r"^  ([\w/ ]+?)(?:\s{2,}|$)", layout, re.MULTILINE)
    named = {name.rstrip("/") for entry in folders for name in entry.split() if name.endswith("/")}
    there = {path.name for path in (ROOT / "pmkit").iterdir() if (path / "__init__.py").is_file()}
    assert there <= {name.partition("/")[0] for name in named}
    for name in named:
        assert (ROOT / "pmkit" / name).is_dir(), name


def test_python_in_the_readme() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    imported = [
        alias.name
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "pmkit"
        for alias in node.names
    ]
    assert imported
    import pmkit

    assert set(imported) <= set(pmkit.__all__)


# --- dependencies


def test_dp_01_lock_pins_everything_by_hash() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+( ;[^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert "://" not in LOCK, "no index, no address"
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links|--trusted)", LOCK, re.MULTILINE)


def test_dp_01_lock_holds_what_pyproject_asks_for() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"dev", "sim", "clob", "plot", "bench"}
    not_locked = {normal(re.split(r"[<>=;]", text)[0]) for extra in ("clob", "plot") for text in extras[extra]}
    assert set(requirements()) - set(locked()) == not_locked


def test_dp_01_each_dependency_of_pmkit_is_one_of_those_agreed() -> None:
    # DESIGN section 4. A new one is a decision: it comes with its reason, and with a line here.
    agreed = {
        "httpx", "websockets", "msgspec", "pandas", "coincurve", "pycryptodome", "web3", "cryptography", "inquirer",
        "rich", "python-dotenv", "tzdata", "sniffio",
    }  # fmt: skip
    found = {normal(re.split(r"[<>=;]", text)[0]) for text in PROJECT["project"]["dependencies"]}
    assert found == agreed


def test_dp_02_every_dependency_has_bounds_and_the_lock_is_inside() -> None:
    from packaging.specifiers import SpecifierSet

    versions = locked()
    for name, specifier in requirements().items():
        if name == "tzdata":
            continue  # data with a calendar version: newer is always better
        assert re.fullmatch(r">=[\d.]+(?:b\d+)?,<\d+(\.\d+)?", specifier), (
            f"{name}{specifier}: a lower and an upper bound"
        )
        if name in versions:
            assert versions[name] in SpecifierSet(specifier), f"{name}=={versions[name]} is outside {specifier}"


# --- the repository


def repository_files() -> list[Path]:
    """What git tracks or would track."""
    run = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if run.returncode:
        pytest.skip("not a git checkout")
    return [path for name in run.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_no_path_of_one_machine_and_no_package_index() -> None:
    # Written in pieces, so that this file does not find itself.
    words = ["/wor" + "k/", "/ro" + "ot/", "/tmp/ba" + "sh_jobs", "py" + r"pi\.org", "python" + "hosted"]
    refused = re.compile("|".join(words))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in repository_files()
        if path.suffix not in (".png", ".gz", ".zip")
        for match in refused.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found, "\n".join(found)


def test_secrets_and_output_are_ignored_by_git() -> None:
    names = [".env", ".env.live", "kalshi.pem", "logs/bot_dry-run_2026-11-20.log", "trades/trades_local_2026-11-20.csv"]
    names += ["data/BTCUSDT_1s.csv", ".venv/bin/python"]
    kept = [".env.example", "logs/.gitkeep", "trades/.gitkeep", "pmkit/data/storage.py", "pmkit/py.typed"]
    repository_files()
    run = subprocess.run(
        ["git", "check-ignore", "--no-index", *names, *kept], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines() == names
    for name in kept:
        if name.endswith(".gitkeep"):
            assert (ROOT / name).is_file()


def test_tests_that_a_page_names_are_there() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "binance.md").read_text(encoding="utf-8"))
    assert len(named) > 50
    assert [name for name in named if f"def {name}(" not in written] == []
