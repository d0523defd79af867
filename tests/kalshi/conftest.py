"""Every test here that reaches a local Kalshi is held to the exchange's own files, whatever else it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from tests.kalshi.spec_check import hold
from tests.kalshi.tap import tapped

if TYPE_CHECKING:
    from tests.kalshi.tap import Record


@pytest.fixture(autouse=True)
def wire() -> Iterator[Record]:
    """All traffic of the test with local Kalshis. Fails it where anything is not as the files say."""
    with tapped() as record:
        yield record
    hold(record)
