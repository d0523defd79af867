"""The dry-run's account: cash, shares, what open orders hold back, history and payouts. Pure; exact decimals."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Fill, MarketResult, Position, Side, Trade, TradeResult

ZERO = Decimal(0)


@dataclass(slots=True)
class Holding:
    """Shares of one outcome and what they cost, fees not included."""

    shares: Decimal = ZERO
    cost: Decimal = ZERO
    pending: Decimal = ZERO

    def add(self, size: Decimal, price: Decimal) -> None:
        self.shares += size
        self.cost += size * price

    def remove(self, size: Decimal) -> None:
        if self.shares:
            self.cost -= self.cost * size / self.shares
        self.shares -= size


@dataclass(slots=True)
class MarketAccount:
    """Holdings and fills of one market."""

    market: Market
    holdings: dict[str, Holding]
    fills: list[Fill] = field(default_factory=list)
    result: MarketResult | None = None


class PaperAccount:
    """Cash in dollars and holdings by market. Nothing here can go below zero; `can_pay` and `free_shares` are asked
    first.
    """

    def __init__(self, balance: Decimal) -> None:
        self.cash = balance
        self.markets: dict[str, MarketAccount] = {}
        self._held_cash: dict[str, Decimal] = {}
        self._held_shares: dict[str, tuple[str, str, Decimal]] = {}

    def open(self, market: Market) -> MarketAccount:
        """The account of a market, made on first use."""
        account = self.markets.get(market.market_id)
        if account is None:
            account = MarketAccount(market, {outcome: Holding() for outcome in market.outcomes})
            self.markets[market.market_id] = account
        return account

    # -- what orders hold back ----------------------------------------------------------------------------------

    @property
    def free_cash(self) -> Decimal:
        """Cash that no open order needs."""
        return self.cash - sum(self._held_cash.values(), ZERO)

    def free_shares(self, market: Market, outcome: str) -> Decimal:
        """Shares of an outcome that no open order offers."""
        held = sum(
            (
                size
                for market_id, held_outcome, size in self._held_shares.values()
                if (market_id, held_outcome) == (market.market_id, outcome)
            ),
            ZERO,
        )
        return self.open(market).holdings[outcome].shares - held

    def need(
        self, market: Market, outcome: str, side: Side, price: Decimal, size: Decimal, fee: Decimal
    ) -> tuple[Decimal, Decimal]:
        """(dollars, shares of the outcome) an order would need at worst.

        Where the venue nets outcomes, a sale of what is not held is a purchase of the other outcome, and a purchase
        first closes the other outcome, which costs nothing.
        """
        if side is Side.BUY:
            if market.nets_outcomes:
                closing = min(size, max(ZERO, self.free_shares(market, market.opposite(outcome))))
                return (size - closing) * price + fee, ZERO
            return size * price + fee, ZERO
        if market.nets_outcomes:
            held = min(size, max(ZERO, self.free_shares(market, outcome)))
            return (size - held) * (1 - price) + fee, held
        return ZERO, size

    def lacks(self, market: Market, outcome: str, dollars: Decimal, shares: Decimal) -> str:
        """What is missing for that, in words; empty when it is there."""
        if dollars > self.free_cash:
            return f"the order needs {dollars:.4f} dollars and {self.free_cash:.4f} are free"
        free = self.free_shares(market, outcome)
        if shares > free:
            return f"the order offers {shares:f} shares of {outcome} and {free:f} are free"
        return ""

    def hold(self, order_id: str, market: Market, outcome: str, dollars: Decimal, shares: Decimal) -> None:
        """Hold back for an open order; called again as it fills."""
        self._held_cash[order_id] = dollars
        self._held_shares[order_id] = (market.market_id, outcome, shares)

    def release(self, order_id: str) -> None:
        """An order is done."""
        self._held_cash.pop(order_id, None)
        self._held_shares.pop(order_id, None)

    # -- fills and results --------------------------------------------------------------------------------------

    def book(self, market: Market, fill: Fill) -> None:
        """Count a fill: cash, shares, netting."""
        account = self.open(market)
        account.fills.append(fill)
        holding = account.holdings[fill.outcome]
        notional = fill.price * fill.size
        self.cash -= fill.fee
        if fill.side is Side.BUY:
            self.cash -= notional
            holding.add(fill.size, fill.price)
        else:
            self.cash += notional
            owned = min(fill.size, holding.shares)
            holding.remove(owned)
            if fill.size > owned:
                # Sold without holding it: a share of each outcome is made of a dollar and this one given away.
                self.cash -= fill.size - owned
                account.holdings[market.opposite(fill.outcome)].add(fill.size - owned, 1 - fill.price)
        if market.nets_outcomes:
            first, second = (account.holdings[outcome] for outcome in market.outcomes)
            pairs = min(first.shares, second.shares)
            if pairs > 0:
                first.remove(pairs)
                second.remove(pairs)
                self.cash += pairs

    def settle(self, market: Market, result: MarketResult) -> Decimal:
        """Pay out and return the dollars paid. Positions of the market are gone afterwards."""
        account = self.open(market)
        account.result = result
        paid = ZERO
        for outcome, holding in account.holdings.items():
            paid += holding.shares * result.payout(outcome)
            holding.remove(holding.shares)
        self.cash += paid
        return paid

    # -- what users read ----------------------------------------------------------------------------------------

    def positions(self, now_ms: int) -> list[Position]:
        """Everything with shares in it."""
        found: list[Position] = []
        for account in self.markets.values():
            for outcome, holding in account.holdings.items():
                if holding.shares:
                    found.append(
                        Position(
                            market_id=account.market.market_id,
                            token_id=account.market.token_id(outcome),
                            outcome=outcome,
                            size=holding.shares,
                            average_price=holding.cost / holding.shares,
                            confirmed=holding.shares - holding.pending,
                            pending=holding.pending,
                            as_of_ms=now_ms,
                        )
                    )
        return found

    def history(self) -> list[Trade]:
        """Every fill with what became of its token, oldest first."""
        rows: list[Trade] = []
        for account in self.markets.values():
            for fill in account.fills:
                result, pnl = TradeResult.OPEN, None
                if account.result is not None:
                    payout = account.result.payout(fill.outcome)
                    result = {Decimal(1): TradeResult.WON, ZERO: TradeResult.LOST}.get(payout, TradeResult.VOID)
                    gain = (payout - fill.price) * fill.size
                    pnl = (gain if fill.side is Side.BUY else -gain) - fill.fee
                rows.append(
                    Trade(
                        trade_id=fill.fill_id,
                        order_id=fill.order_id,
                        market_id=fill.market_id,
                        outcome=fill.outcome,
                        side=fill.side,
                        price=fill.price,
                        size=fill.size,
                        fee=fill.fee,
                        time_ms=fill.venue_ms,
                        result=result,
                        pnl=pnl,
                    )
                )
        return sorted(rows, key=lambda row: row.time_ms)
