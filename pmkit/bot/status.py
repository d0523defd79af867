"""One line at the bottom of a terminal that shows what a bot sees now. Writes nothing where there is no terminal."""

from __future__ import annotations

import shutil
import sys
from decimal import Decimal
from typing import IO

from pmkit.bot.base import BaseBot
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import NoMarket


def price(value: Decimal | None) -> str:
    """A price for people: `.560`, or `----` where there is none."""
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
    """`show(text)` replaces the line; `clear()` takes it away. Log lines written meanwhile push it down."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._active = self._stream.isatty()

    def show(self, text: str) -> None:
        """Draw the line, cut to the terminal's width."""
        if self._active:
            width = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[2K" + text[: width - 1])
            self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._active:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
