"""`TradeRows`: the trade CSV as one bot on one venue writes it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pmkit.bot.decisions import TradeWriter
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Order
from pmkit.logging.csv_logger import TradeEvent


class TradeRows:
    """Rows about orders and fills, completed with asset, touch and seconds left of the markets that are followed."""

    def __init__(self, exchange: BaseExchange, trades: TradeWriter | None) -> None:
        self._exchange = exchange
        self._trades = trades
        self._markets: dict[str, Market] = {}

    def know(self, market: Market) -> None:
        """Follow a market."""
        self._markets[market.market_id] = market

    def market(self, market_id: str) -> Market | None:
        """A followed market, None for any other."""
        return self._markets.get(market_id)

    def forget(self, market_id: str) -> None:
        """Follow it no longer."""
        self._markets.pop(market_id, None)

    def write(self, event: TradeEvent, market_id: str, outcome: str, **fields: Any) -> None:
        """One row."""
        if self._trades is None:
            return
        market = self._markets.get(market_id)
        if market is not None:
            fields.setdefault("asset", market.asset)
            fields["seconds_left"] = round((market.close_ms - self._exchange.venue_clock.now_ms()) / 1000, 3)
            if outcome in market.outcomes:
                book = self._exchange.book(market, outcome)
                if book.valid:
                    fields["best_bid"] = book.best_bid
                    fields["best_ask"] = book.best_ask
        self._trades.write(event, venue=self._exchange.venue, market_id=market_id, outcome=outcome, **fields)

    def write_order(self, event: TradeEvent, order: Order, **fields: Any) -> None:
        """One row about an order."""
        self.write(
            event,
            order.market_id,
            order.outcome,
            side=order.side,
            time_in_force=order.time_in_force,
            price=_asked(order.price),
            size=_asked(order.size),
            client_order_id=order.client_order_id,
            **fields,
        )


def _asked(number: object) -> Decimal | str:
    """A leg is written down before it is checked: what is no Decimal as it was given."""
    return number if isinstance(number, Decimal) else str(number)
