"""From a match to the chain: what the engine did becomes trades, and trades are mined, confirmed or fail (3.7, 4).

A taker's matches at one price level are one trade, at most MAKERS_PER_TRADE makers in each; its trades are told apart
by `bucket_index`. Money moves when a trade is mined; until then it is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pmkit.clock import Clock, Entropy
from pmkit.sim.engine import PRICE_UNITS, Match, Side, Update
from pmkit.sim.faults import Faults
from pmkit.sim.polymarket.accounts import HOUSE, Account, Accounts, Entry
from pmkit.sim.polymarket.book import price_of
from pmkit.sim.polymarket.live import outcome_of
from pmkit.sim.polymarket.market import Window
from pmkit.sim.polymarket.records import Leg, OrderRecord, TradeRecord, TradeState, make_leg

MAKERS_PER_TRADE = 10
MINED_SECONDS = (2.0, 4.0)
CONFIRMED_SECONDS = (3.0, 8.0)
RETRY_SECONDS = 4.0
FEE_PERCENT = 7

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


def taker_fee(price: int, size: int) -> int:
    """`shares x 0.07 x p x (1 - p)`, floored to five decimals of a dollar."""
    return FEE_PERCENT * size * price * (PRICE_UNITS - price) // (100 * PRICE_UNITS * PRICE_UNITS) // 10 * 10


class TradeBook:
    """Every trade of an account. `changed` hears of each new trade and each change of state.

    Faults that a test arms, each for the next trade: `trade_failed`, `trade_retried`, and `trade_stuck`, which stays
    MATCHED for ever (approvals were missing).
    """

    def __init__(self, clock: Clock, entropy: Entropy, accounts: Accounts, faults: Faults, spawn: Spawn) -> None:
        self.changed: list[Callable[[TradeRecord], object]] = []
        self.trades: dict[str, TradeRecord] = {}
        self._by_owner: dict[str, list[TradeRecord]] = {}
        self._clock = clock
        self._entropy = entropy
        self._accounts = accounts
        self._faults = faults
        self._spawn = spawn

    def matched(self, window: Window, update: Update) -> list[TradeRecord]:
        """What one operation of the engine was for the accounts; matches among background traders are nobody's."""
        ours = [match for match in update.matches if _record(match.taker_client) or _record(match.maker_client)]
        levels: dict[int, list[list[Match]]] = {}
        for match in ours:
            groups = levels.setdefault(match.price, [[]])
            if len(groups[-1]) >= MAKERS_PER_TRADE:
                groups.append([])
            groups[-1].append(match)
        made: list[TradeRecord] = []
        for groups in levels.values():
            for group in groups:
                made.append(self._trade(window, group, len(made)))
        for trade in made:
            self._spawn(self._settle(trade), f"trade {trade.trade_id}")
        return made

    def _trade(self, window: Window, matches: list[Match], bucket: int) -> TradeRecord:
        first = matches[0]
        record = _record(first.taker_client)
        outcome = outcome_of(first.taker_client)
        makers = []
        total = 0
        for match in matches:
            # The taker's part is floored; what the maker pays or gets is the same, or the rest of a dollar a pair.
            cash = price_of(match.price, outcome) * match.size // PRICE_UNITS
            total += cash
            maker = _record(match.maker_client)
            maker_outcome = maker.outcome if maker else 0
            makers.append(
                make_leg(
                    maker.order_id if maker else f"0x{hash_of(match.maker_id)}",
                    maker,
                    maker_outcome,
                    match.taker_side.opposite,
                    match.price,
                    match.size,
                    cash if maker_outcome == outcome else match.size - cash,
                )
            )
        size = sum(match.size for match in matches)
        order_id = record.order_id if record else f"0x{hash_of(first.taker_id)}"
        fee = taker_fee(first.price, size)
        taker = make_leg(order_id, record, outcome, first.taker_side, first.price, size, total, fee)
        now = self._clock.now_ms()
        trade = TradeRecord(
            trade_id=self._entropy.uuid4(),
            window=window,
            taker=taker,
            makers=makers,
            match_ms=now,
            update_ms=now,
            bucket=bucket,
            transaction=f"0x{self._entropy.randbits(256):064x}",
        )
        self.trades[trade.trade_id] = trade
        for leg in trade.legs:
            if leg.record is not None:
                self._hold(leg, trade)
        for owner in sorted(trade.owners()):
            self._by_owner.setdefault(owner, []).append(trade)
        return trade

    def of_owner(self, owner: str) -> list[TradeRecord]:
        """Everything an owner has a part in, oldest first."""
        return self._by_owner.get(owner, [])

    def _hold(self, leg: Leg, trade: TradeRecord) -> None:
        record = leg.record
        assert record is not None
        record.matched += leg.size
        record.spent += leg.cash
        record.fees += leg.fee
        record.trades.append(trade.trade_id)
        if leg.side is Side.BUY:
            record.account.pending_cash += leg.cash + leg.fee
        else:
            record.account.pending_shares[trade.window.tokens[leg.outcome]] += leg.size

    def _release(self, leg: Leg, trade: TradeRecord) -> None:
        record = leg.record
        if record is None:
            return
        if leg.side is Side.BUY:
            record.account.pending_cash -= leg.cash + leg.fee
        else:
            record.account.pending_shares[trade.window.tokens[leg.outcome]] -= leg.size

    # ---- the life of a trade

    async def _settle(self, trade: TradeRecord) -> None:
        if self._faults.take("trade_stuck"):
            return
        failing, retrying = self._faults.take("trade_failed"), self._faults.take("trade_retried")
        await self._clock.sleep(self._entropy.uniform(*MINED_SECONDS))
        trade.sent = True
        if failing or retrying:
            self._become(trade, TradeState.RETRYING)
            await self._clock.sleep(RETRY_SECONDS)
        if failing:
            for leg in trade.legs:
                self._release(leg, trade)
            self._become(trade, TradeState.FAILED)
            return
        self._mine(trade)
        self._become(trade, TradeState.MINED)
        await self._clock.sleep(self._entropy.uniform(*CONFIRMED_SECONDS))
        self._become(trade, TradeState.CONFIRMED)

    def _become(self, trade: TradeRecord, state: TradeState) -> None:
        trade.state = state
        trade.history.append(state)
        trade.update_ms = self._clock.now_ms()
        for hear in self.changed:
            hear(trade)

    def _mine(self, trade: TradeRecord) -> None:
        now = trade.mined_ms = self._clock.now_ms()
        pairs = 0
        for leg in trade.legs:
            self._release(leg, trade)
            sign = 1 if leg.side is Side.BUY else -1
            account: Account = self._accounts.house if leg.record is None else leg.record.account
            entry = Entry(
                at_ms=now,
                wallet=HOUSE if leg.record is None else account.wallet,
                kind="TRADE",
                token=trade.window.tokens[leg.outcome],
                shares=sign * leg.size,
                cash=-sign * leg.cash,
                fee=leg.fee,
                order_id=leg.order_id,
                trade_id=trade.trade_id,
                price=leg.price,
            )
            self._accounts.move(account, entry)
            # Buyers of both outcomes make pairs, sellers of both melt them; the first outcome counts them.
            pairs += sign * leg.size if leg.outcome == 0 else 0
        self._accounts.collateral[trade.window.condition_id] += pairs


def _record(client: object) -> OrderRecord | None:
    return client if isinstance(client, OrderRecord) else None


def hash_of(name: str) -> str:
    """An order id for an order of the background traders."""
    return name.encode().hex().rjust(64, "0")
