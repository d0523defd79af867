"""Public trades out of `last_trade_price` events (wire).

The venue writes one print per match, on the outcome that the taker traded. Should it write the mirrored one of the
other outcome as well (BUY p here is SELL 1 - p there, same moment, size and transaction), only the first is passed on:
counting a trade twice would make a dry-run's queue move too fast.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from decimal import Decimal
from typing import Final

from pmkit.errors import InvalidOrder
from pmkit.exchanges.numbers import BookError, to_decimal
from pmkit.exchanges.polymarket.messages import LastTradePrice
from pmkit.exchanges.types import PublicTrade, Side

_REMEMBERED: Final = 512
_ONE: Final = Decimal(1)
_Key = tuple[str, int, str, Decimal, Decimal, str]


class Prints:
    """Turns events into `PublicTrade`s and drops mirrored ones. `mirrored` counts those."""

    __slots__ = ("_seen", "mirrored")

    def __init__(self) -> None:
        self.mirrored = 0
        # What was passed on, in terms of the first outcome: how often per token.
        self._seen: OrderedDict[_Key, Counter[str]] = OrderedDict()

    def read(
        self, event: LastTradePrice, market_id: str, outcome: str, first_outcome: bool, received_ns: int
    ) -> PublicTrade | None:
        """The trade, or None for the mirror of one that was passed on. Raises BookError for what is no trade."""
        try:
            price, size = to_decimal(event.price, "price"), to_decimal(event.size, "size")
        except InvalidOrder as error:
            raise BookError(str(error)) from error
        if not 0 < price < 1 or size <= 0:
            raise BookError(f"a print of {size} shares at {price} dollars")
        key: _Key
        if first_outcome:
            key = (market_id, event.timestamp, event.transaction_hash, size, price, event.side)
        else:
            flipped = "SELL" if event.side == "BUY" else "BUY"
            key = (market_id, event.timestamp, event.transaction_hash, size, _ONE - price, flipped)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Counter()
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        elsewhere = next((token for token, count in seen.items() if token != event.asset_id and count > 0), None)
        if elsewhere is not None:
            seen[elsewhere] -= 1
            self.mirrored += 1
            return None
        seen[event.asset_id] += 1
        return PublicTrade(
            market_id=market_id,
            outcome=outcome,
            price=price,
            size=size,
            side=Side(event.side),
            trade_id="",
            venue_ms=event.timestamp,
            received_ns=received_ns,
        )
