"""What a bot did in each market: its own fills, fees, cash and shares, and the profit once the market is settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Fill, FillState, Liquidity, MarketResult, Side

ZERO = Decimal(0)


@dataclass(slots=True)
class MarketLedger:
    """Own fills of one market. Dollars and shares; `cash` is what the fills paid in or out, fees included.

    A fill counts from its first state on; FAILED takes it back.
    """

    market: Market
    cash: Decimal = ZERO
    fees: Decimal = ZERO
    taker_fills: int = 0
    maker_fills: int = 0
    shares: dict[str, Decimal] = field(default_factory=dict)
    result: MarketResult | None = None
    pnl: Decimal | None = None
    _counted: dict[tuple[str, str], Fill] = field(default_factory=dict)

    def apply(self, fill: Fill) -> bool:
        """Count one fill event. True when it changed cash and shares (a new fill, or one taken back)."""
        key = (fill.fill_id, fill.order_id)
        known = self._counted.get(key)
        if fill.state is FillState.FAILED:
            if known is None:
                return False
            del self._counted[key]
            self._book(known, -1)
            return True
        if known is not None:
            return False
        self._counted[key] = fill
        self._book(fill, 1)
        return True

    def _book(self, fill: Fill, sign: int) -> None:
        bought = fill.side is Side.BUY
        notional = fill.price * fill.size
        self.cash += sign * ((-notional if bought else notional) - fill.fee)
        self.fees += sign * fill.fee
        held = self.shares.get(fill.outcome, ZERO)
        self.shares[fill.outcome] = held + sign * (fill.size if bought else -fill.size)
        if fill.liquidity is Liquidity.MAKER:
            self.maker_fills += sign
        else:
            self.taker_fills += sign

    @property
    def fills(self) -> int:
        """Fills that count."""
        return self.taker_fills + self.maker_fills

    def value(self, prices: dict[str, Decimal]) -> Decimal:
        """Profit so far when the shares are worth `prices` (dollars per share by outcome, missing ones count 0)."""
        return self.cash + sum((size * prices.get(outcome, ZERO) for outcome, size in self.shares.items()), ZERO)

    def settle(self, result: MarketResult) -> Decimal:
        """Book the result and return the profit in dollars."""
        self.result = result
        self.pnl = self.value({outcome: result.payout(outcome) for outcome in self.shares})
        return self.pnl
