"""One line at the bottom of a terminal that shows what a bot sees now. Writes nothing where there is no terminal."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pmkit.bot.base import BaseBot
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import NoMarket
from pmkit.logging.logger import console

if TYPE_CHECKING:
    from rich.live import Live


def price(value: Decimal | None) -> str:
    """A price for people: `0.560`, or `----` where there is none."""
    return "----" if value is None else f"{value:.3f}"


def describe(bot: BaseBot, market: Market | NoMarket) -> str:
    """Market, seconds left, best bid and ask of its first outcome, position and profit at the bid prices."""
    if not isinstance(market, Market):
        return f"no market: {market.reason}"
    parts = [f"{market.venue} {market.asset} {bot.seconds_remaining(market):4.0f}s"]
    bids: dict[str, Decimal] = {}
    for outcome in market.outcomes:
        book = bot.book(market, outcome)
        if book.valid and book.best_bid is not None:
            bids[outcome] = book.best_bid
    first = bot.book(market, market.outcomes[0])
    touch = f"{price(first.best_bid)}/{price(first.best_ask)}" if first.valid else f"({first.reason})"
    parts.append(f"{market.outcomes[0]} {touch}")
    ledger = bot.ledger(market)
    held = " ".join(f"{size.normalize():f} {outcome}" for outcome, size in ledger.shares.items() if size)
    parts.append(held or "flat")
    if ledger.fills:
        parts.append(f"profit {ledger.value(bids):+.2f}")
    return "  ".join(parts)


class StatusLine:
    """`show(text)` replaces the line, `clear()` takes it away. Log lines are printed above it."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def show(self, *lines: str) -> None:
        """Draw the lines, each cut to the terminal's width."""
        from rich.live import Live
        from rich.text import Text

        target = console()
        if target is None or not target.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=target, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def clear(self) -> None:
        """Remove the lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None
