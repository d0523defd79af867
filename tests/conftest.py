"""What all tests share: where the real recordings are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
