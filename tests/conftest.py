"""What all tests share: where the real recordings are."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine under load makes examples says nothing about what is tested.
settings.register_profile("pmkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pmkit")

ROOT = Path(__file__).resolve().parent.parent
RECURSION_LIMIT = sys.getrecursionlimit()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: async tests on the loop of pmkit.sim.virtual")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of an async test: a real one, or one on which time jumps when nothing is ready."""
    if item.get_closest_marker("virtual_time") is None:
        return {"real": asyncio.new_event_loop}
    from pmkit.sim.virtual import VirtualLoop

    return {"virtual": lambda: VirtualLoop(seed=item.nodeid, latency=0.0005, jitter=0.0005)}


# Files that take longest, most of it waiting: begun first, so that no worker is left with one of them at the end.
LONG = ("test_processes", "test_history_against_sim", "test_soak", "test_resume", "test_fetch_candles", "test_prompts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: without it in the way a full collection takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """py_ecc, which comes with eth_account and web3, raises the limit of the whole process to 100,000.
    Tests of hostile JSON would then not end in a RecursionError but with the process.
    """
    sys.setrecursionlimit(RECURSION_LIMIT)
    # Programs that a test runs in its own process (examples, benchmarks) quieten it: the next test wants its lines.
    logging.getLogger("pmkit").setLevel(logging.NOTSET)


def recordings_directory() -> Path:
    """$PMKIT_RECORDINGS, else ../shared/recordings beside the repository. It may not exist."""
    return Path(os.environ.get("PMKIT_RECORDINGS") or ROOT.parent / "shared" / "recordings")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The directory of real recordings (binance/, kalshi/, polymarket/); skips the test where there is none."""
    directory = recordings_directory()
    if not directory.is_dir():
        pytest.skip(f"no recordings at {directory}: set PMKIT_RECORDINGS to run this test")
    return directory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured text with lone surrogates (tests of hostile log lines) cannot be sent from a worker process."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report
