"""A share of `make soak`: the trading process is killed, and its notes are held against the venue's ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from tests.soak.polymarket_orders import run


async def test_oe_01_oe_02_rs_20_orders_and_positions_survive_kills(tmp_path: Path) -> None:
    wrong = await run(2, 60, tmp_path / "notes.jsonl", kills=1)
    # Whether a process that starts sees anything within ten seconds of wall time hangs on what else this machine does:
    # `make soak` holds that. What it sees has to be right here as well.
    assert [what for what in wrong if "saw nothing of the account" not in what] == []
