"""Official and peer clients, unmodified, against the local venues. They live in an environment of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.environment import Client, environment_directory

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session")
def client_python() -> Path:
    """The interpreter that has the clients; skips where there is none."""
    python = environment_directory() / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment for the clients: make conformance makes the environment")
    return python


@pytest.fixture(scope="session")
def client_python_version(client_python: Path) -> tuple[int, int]:
    told = subprocess.run(
        [str(client_python), "-c", "import sys; print(*sys.version_info[:2])"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    major, minor = told.stdout.split()
    return int(major), int(minor)


OpenClient = Callable[[str, Mapping[str, Any]], Client]


@pytest.fixture
def client(client_python: Path) -> OpenClient:
    """Makes a client out of the name of its script and its settings."""
    return lambda script, settings: Client(client_python, script, settings)
