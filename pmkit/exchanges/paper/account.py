"""The dry-run's account: cash, shares, what open orders hold back, history and payouts. Pure; exact decimals."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal

from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Fill, FillState, MarketResult, Position, Side, Trade, TradeResult

ZERO, ONE = Decimal(0), Decimal(1)
MICRO = Decimal("0.000001")
"""Both venues keep millionths of a dollar."""


@dataclass(slots=True)
class Holding:
    """Shares of one outcome and what they cost, fees not included."""

    shares: Decimal = ZERO
    cost: Decimal = ZERO
    pending: Decimal = ZERO

    def add(self, size: Decimal, cost: Decimal) -> None:
        self.shares += size
        self.cost += cost

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


@dataclass(frozen=True, slots=True)
class Held:
    """An open order: what is left of it, and the dollars (of a buy) that it holds back where outcomes do not net."""

    market: Market
    outcome: str
    side: Side
    price: Decimal
    size: Decimal
    dollars: Decimal


class PaperAccount:
    """Cash in dollars and holdings by market. Nothing here can go below zero; `lacks` is asked first."""

    def __init__(self, balance: Decimal) -> None:
        self.cash = balance
        self.markets: dict[str, MarketAccount] = {}
        self._held: dict[str, Held] = {}

    def open(self, market: Market) -> MarketAccount:
        """The account of a market, made on first use."""
        account = self.markets.get(market.market_id)
        if account is None:
            account = MarketAccount(market, {outcome: Holding() for outcome in market.outcomes})
            self.markets[market.market_id] = account
        return account

    # -- what orders hold back ----------------------------------------------------------------------------------

    @property
    def shown_cash(self) -> Decimal:
        """Cash as the venue shows it: where outcomes net, what open orders may need is taken off at once."""
        markets = {held.market.market_id: held.market for held in self._held.values() if held.market.nets_outcomes}
        return self.cash - sum((self.reserved(market) for market in markets.values()), ZERO)

    @property
    def free_cash(self) -> Decimal:
        """Cash that no open order needs."""
        held = (held.dollars for held in self._held.values() if not held.market.nets_outcomes)
        return self.shown_cash - sum(held, ZERO)

    def free_shares(self, market: Market, outcome: str) -> Decimal:
        """Shares of an outcome that no open order offers, and that the venue has settled."""
        held = sum(
            (
                held.size
                for held in self._held.values()
                if held.side is Side.SELL and (held.market.market_id, held.outcome) == (market.market_id, outcome)
            ),
            ZERO,
        )
        holding = self.open(market).holdings[outcome]
        return holding.shares - holding.pending - held

    def reserved(self, market: Market, extra: tuple[Held, ...] = (), bought: Decimal = ZERO) -> Decimal:
        """Dollars that the open orders of a market that nets, and `extra` ones, need if all of them fill.

        What is held covers the orders that close it, those first that would trade first. `bought`: shares of the first
        outcome that come to the position before (less than none: of the other).
        """
        first, second = market.outcomes
        holdings = self.open(market).holdings
        net = holdings[first].shares - holdings[second].shares + bought
        total = ZERO
        rows = [held for held in self._held.values() if held.market.market_id == market.market_id]
        for up in (True, False):
            cover = max(ZERO, -net if up else net)
            mine = [held for held in (*rows, *extra) if ((held.side is Side.BUY) == (held.outcome == first)) is up]
            # What a contract of the side that is bought costs, dearest first: that one trades first.
            priced = [(held.price if held.side is Side.BUY else 1 - held.price, held.size) for held in mine]
            for price, size in sorted(priced, key=lambda row: row[0], reverse=True):
                closing = min(cover, size)
                cover -= closing
                total += price * (size - closing) + market.resting_fee(Side.BUY, price, size)
        return total

    def lacks(self, order: Held, takes: list[tuple[Decimal, Decimal]], fee: Decimal, rests: bool) -> str:
        """What is missing for an order, in words; empty when all is there.

        `takes`: (price, size) of what it would match now, for `fee` dollars; `rests`: what is left of it stays.
        """
        market = order.market
        if not market.nets_outcomes:
            if order.side is Side.BUY:
                return self._short(order.dollars + fee)
            free = self.free_shares(market, order.outcome)
            if order.size > free:
                return f"the order offers {order.size:f} shares of {order.outcome} and {free:f} are free"
            return ""
        first = order.outcome == market.outcomes[0]
        up = (order.side is Side.BUY) == first
        holdings = self.open(market).holdings
        net = holdings[market.outcomes[0]].shares - holdings[market.outcomes[1]].shares
        taken = sum((size for _, size in takes), ZERO)
        cost = sum((size * (price if order.side is Side.BUY else 1 - price) for price, size in takes), ZERO)
        closing = min(taken, max(ZERO, -net if up else net))
        rest = order.size - taken
        extra = (replace(order, size=rest),) if rests and rest > 0 else ()
        change = self.reserved(market, extra, taken if up else -taken) - self.reserved(market)
        return self._short(cost - closing + fee + change)

    def _short(self, dollars: Decimal) -> str:
        if dollars > 0 and dollars > self.free_cash:
            return f"the order needs {dollars:.4f} dollars and {self.free_cash:.4f} are free"
        return ""

    def hold(self, order_id: str, held: Held) -> None:
        """Hold back for an open order; called again as it fills."""
        self._held[order_id] = held

    def release(self, order_id: str) -> None:
        """An order is done."""
        self._held.pop(order_id, None)

    # -- fills and results --------------------------------------------------------------------------------------

    def book(self, market: Market, fill: Fill, notional: Decimal) -> None:
        """Count a fill of so many dollars: cash, shares, netting."""
        account = self.open(market)
        account.fills.append(fill)
        holding = account.holdings[fill.outcome]
        self.cash -= fill.fee
        if fill.side is Side.BUY:
            self.cash -= notional
            holding.add(fill.size, notional)
            if fill.state is FillState.PENDING:
                holding.pending += fill.size
        else:
            self.cash += notional
            owned = min(fill.size, holding.shares)
            holding.remove(owned)
            if fill.size > owned:
                # Sold without holding it: a share of each outcome is made of a dollar and this one given away.
                opened = fill.size - owned
                self.cash -= opened
                account.holdings[market.opposite(fill.outcome)].add(opened, opened * (1 - fill.price))
        if market.nets_outcomes:
            first, second = (account.holdings[outcome] for outcome in market.outcomes)
            pairs = min(first.shares, second.shares)
            if pairs > 0:
                first.remove(pairs)
                second.remove(pairs)
                self.cash += pairs

    def confirm(self, fill: Fill) -> None:
        """The venue has settled a fill: its shares may be sold from now on."""
        holding = self.markets[fill.market_id].holdings[fill.outcome]
        if fill.side is Side.BUY:
            holding.pending = max(ZERO, holding.pending - fill.size)

    def settle(self, market: Market, result: MarketResult) -> Decimal:
        """Pay out and return the dollars paid. Positions of the market are gone afterwards."""
        account = self.open(market)
        account.result = result
        paid = ZERO
        for outcome, holding in account.holdings.items():
            paid += (holding.shares * result.payout(outcome)).quantize(MICRO, ROUND_FLOOR)
            holding.remove(holding.shares)
            holding.pending = ZERO
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
                    good = payout if fill.side is Side.BUY else 1 - payout
                    result = {ONE: TradeResult.WON, ZERO: TradeResult.LOST}.get(good, TradeResult.VOID)
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
