"""The table at the end of a run: markets, fills, fees, profit."""

from __future__ import annotations

import io
from collections.abc import Iterable
from decimal import Decimal
from typing import IO

from pmkit.bot.ledger import MarketLedger
from pmkit.bot.life import BotStats

COLUMNS = ("venue", "asset", "window (UTC)", "taker", "maker", "fees $", "result", "profit $")
ZERO = Decimal(0)
WIDTH = 110
"""Of the table in a file or pipe; a terminal has its own."""


def rows(ledgers: Iterable[MarketLedger]) -> list[tuple[str, ...]]:
    """One row per market, oldest first; an unsettled one shows what it has cost or paid so far."""
    table: list[tuple[str, ...]] = []
    for ledger in sorted(ledgers, key=lambda each: (each.market.open_ms, each.market.venue, each.market.asset)):
        market = ledger.market
        profit = "" if ledger.pnl is None else f"{ledger.pnl:+.4f}"
        if ledger.pnl is None and ledger.fills:
            profit = f"open, cash {ledger.cash:+.4f}"
        table.append(
            (
                market.venue,
                market.asset,
                f"{market.open_time:%m-%d %H:%M}-{market.close_time:%H:%M}",
                str(ledger.taker_fills),
                str(ledger.maker_fills),
                f"{ledger.fees:.4f}",
                "" if ledger.result is None else str(ledger.result),
                profit,
            )
        )
    return table


def total(ledgers: Iterable[MarketLedger]) -> tuple[str, ...]:
    """The last row: sums over the settled markets, fills and fees over all."""
    listed = list(ledgers)
    return (
        "total",
        "",
        f"{len(listed)} markets",
        str(sum(ledger.taker_fills for ledger in listed)),
        str(sum(ledger.maker_fills for ledger in listed)),
        f"{sum((ledger.fees for ledger in listed), ZERO):.4f}",
        "",
        f"{sum((ledger.pnl or ZERO for ledger in listed), ZERO):+.4f}",
    )


def prepare() -> None:
    """Load all that `print_summary` needs, to be called at the start: loading rich takes 0.2 s of CPU, which on a busy
    machine is a second or more of those few in which a bot has to be gone.
    """
    print_summary([], BotStats(), io.StringIO())


def print_summary(ledgers: Iterable[MarketLedger], stats: BotStats, stream: IO[str] | None = None) -> None:
    """Print the table and the counters of a run."""
    from rich.console import Console
    from rich.table import Table

    listed = list(ledgers)
    console = Console(file=stream)
    if not console.is_terminal:
        console = Console(file=stream, width=WIDTH)
    table = Table(title="markets of this run")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index > 2 else "left")
    for row in rows(listed):
        table.add_row(*row)
    table.add_section()
    table.add_row(*total(listed))
    console.print(table)
    console.print(
        f"ticks {stats.ticks} (skipped {stats.ticks_skipped}, raised {stats.tick_errors}), "
        f"rollovers {stats.rollovers}, fills {stats.fills}, settled {stats.settled}, "
        f"hooks that raised {stats.hook_errors}, tasks that died {stats.task_errors}"
    )
