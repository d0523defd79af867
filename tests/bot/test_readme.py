"""The README's Python runs, on the local venues."""

from __future__ import annotations

import ast
import inspect
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pmkit
from pmkit.bot.base import BaseBot
from pmkit.exchanges.types import Accepted
from pmkit.sim.venues import LocalVenues
from tests.bot.virtual import on_local

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
STRATEGY, PLACING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_strategy_buys_the_favourite(monkeypatch):
    started: list[tuple[type[BaseBot], dict[str, Any]]] = []
    monkeypatch.setattr(pmkit, "run", lambda kind, **options: started.append((kind, options)))
    exec(compile(STRATEGY, "README.md", "exec"), {})
    ((kind, options),) = started
    assert options == {"venues": ["polymarket"], "assets": ["BTC"]}

    async def story(bot: BaseBot, venues: LocalVenues) -> None:
        await bot.clock.sleep(6 * 60)

    bot = on_local(kind, live=False, story=story, only="polymarket")
    assert (bot.stats.tick_errors, bot.stats.hook_errors, bot.stats.task_errors) == (0, 0, 0)
    assert bot.done and bot.stats.fills


def test_placing_an_order_has_three_outcomes():
    class Placer(BaseBot):
        async def place(self, market: Any) -> dict[str, Any]:
            names: dict[str, Any] = {**vars(pmkit), "Decimal": Decimal, "exchange": self.exchange, "market": market}
            names |= {name: getattr(pmkit, name) for name in pmkit.__all__}
            code = compile(PLACING, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            assert inspect.iscoroutine(running)
            await running
            return names

    async def story(bot: Placer, venues: LocalVenues) -> None:
        while not bot.stats.ticks:
            await bot.clock.sleep(0.1)
        market = bot.markets["BTC"]
        assert (await bot.place(market))["order_id"].status
        venues.polymarket.faults.arm("answer_lost")
        assert isinstance((await bot.place(market))["outcome"], Accepted)

    on_local(Placer, live=True, story=story, only="polymarket")
