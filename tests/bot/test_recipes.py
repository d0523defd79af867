"""Every recipe of docs/recipes.md runs, on the local venues and one after the other as they stand there."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmkit.clock import Entropy
from pmkit.endpoints import Endpoints
from pmkit.exchanges.types import OrderId
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from tests.local import clock_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
FIRST, *SHARED, LAST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
START = 1_795_176_600_000


async def play(code: str, names: dict[str, Any]) -> None:
    running = eval(compile(code, "recipes.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if running is not None:
        await running


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`virtual(codes)`: plays them on venues in virtual time, which `Endpoints.real()` gives then."""

    def play_all(*codes: str) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            clock = VirtualClock(START, Entropy(5))
            async with LocalVenues(seed=5, assets=("BTC",), clock=clock) as venues:
                monkeypatch.setattr(Endpoints, "real", lambda: venues.endpoints)
                monkeypatch.setattr(Endpoints, "make_clock", lambda self: clock_of(venues))
                monkeypatch.setenv("KALSHI_API_KEY_ID", venues.kalshi_key.id)
                monkeypatch.setenv("KALSHI_PRIVATE_KEY", venues.kalshi_key.pem)
                names: dict[str, Any] = {}
                for code in codes:
                    await play(code, names)
                assert venues.failures == []
                return names

        return run(main(), seed=5)

    monkeypatch.chdir(tmp_path)
    return play_all


def test_a_live_book(virtual: Any, capsys: pytest.CaptureFixture[str]) -> None:
    virtual(FIRST.replace("asyncio.run(main())", "await main()"))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 20
    assert re.fullmatch(r"(UP|DOWN) (None|0\.\d+) (None|0\.\d+)", said[-1])


def test_the_others(virtual: Any) -> None:
    names = virtual(*SHARED)
    assert names["bought"].filled_amount or names["reason"]
    assert names["result"].winner in ("UP", "DOWN")
    assert names["order_id"].filled_amount == 2
    assert [type(leg) for leg in (*names["placed"], *names["moved"])] == [OrderId] * 3
    assert len(names["frame"]) == 300


def test_local_venues_in_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec("from pmkit import *", names)
    asyncio.run(play(LAST, names))
    assert "BTC" in capsys.readouterr().out
