"""What really happened, read from the venues' own ledgers, and the books as they were."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from pmkit.clock import Clock
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import Side
from pmkit.sim.engine import MatchingEngine
from pmkit.sim.engine import Side as EngineSide
from pmkit.sim.kalshi.ledger import Status
from pmkit.sim.kalshi.market import SHARD
from pmkit.sim.polymarket.records import TradeState
from pmkit.sim.venues import LocalVenues

MICRO = Decimal(1_000_000)
KEEP_STATES = 600
PM_OUTCOMES = ("UP", "DOWN")
Snapshot = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]


class VenueOrder(NamedTuple):
    """An order at the venue. Sizes in 1e-6 shares."""

    order_id: str
    client_order_id: str
    market_id: str
    size: int
    open: bool
    filled: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class VenueFill:
    """One leg of a trade. `failed`: taken back."""

    fill_id: str
    order_id: str
    market_id: str
    outcome: str
    size: Decimal
    price: Decimal
    side: Side
    fee: Decimal
    failed: bool
    at_ms: int
    final: bool


class BookHistory:
    """Every state that every book had, for a while. `with BookHistory(now) as history`: patches the engine's class."""

    def __init__(self, now) -> None:
        self._now = now
        self._states: dict[MatchingEngine, deque[tuple[float, Snapshot]]] = {}

    def __enter__(self):
        self._tell = tell = MatchingEngine._tell
        states, now = self._states, self._now

        def remembering(engine, matches, touched):
            rows = states.get(engine)
            if rows is None:
                rows = states[engine] = deque(maxlen=KEEP_STATES)
                rows.append((now(), ((), ())))
            tell(engine, matches, touched)
            rows.append((now(), snapshot(engine)))

        MatchingEngine._tell = remembering
        return self

    def __exit__(self, *_):
        MatchingEngine._tell = self._tell

    def had(self, engine: MatchingEngine, seen: Snapshot, age: float) -> bool:
        """Whether the book was in that state at some moment of the last `age` seconds."""
        since = self._now() - age
        rows = self._states.get(engine)
        if rows is None:
            return seen == ((), ())
        for at, state in reversed(rows):
            if state == seen:
                return True
            if at < since:
                return False
        return len(rows) == KEEP_STATES  # older than what was kept: nothing can be said

    def forget(self, engines: set[MatchingEngine]) -> None:
        for engine in [engine for engine in self._states if engine not in engines]:
            del self._states[engine]


def snapshot(engine: MatchingEngine) -> Snapshot:
    return tuple(engine.levels(EngineSide.BUY)), tuple(engine.levels(EngineSide.SELL))


def seen_of(book, first: bool) -> Snapshot:
    """A bot's book in the engine's terms: 0.0001 dollars and 1e-6 shares, of the first outcome."""
    scale, unit = 1_000_000 // book.size_scale, book.unit
    if first:
        return (
            tuple([(tick * unit, size * scale) for tick, size in book._walk(0)]),
            tuple([(tick * unit, size * scale) for tick, size in book._walk(1)]),
        )
    return (
        tuple([(10_000 - tick * unit, size * scale) for tick, size in book._walk(1)]),
        tuple([(10_000 - tick * unit, size * scale) for tick, size in book._walk(0)]),
    )


class Truth:
    """The account the bot trades with, on both venues."""

    def __init__(self, venues: LocalVenues) -> None:
        self.venues = venues
        self.pm_owner = venues.polymarket_account.address
        self.pm_wallet = venues.polymarket_account.funder
        self.kalshi = venues.kalshi.account

    def engine(self, venue: str, market_id: str) -> MatchingEngine | None:
        if venue == "polymarket":
            live = self.venues.polymarket.live.get(market_id)
        else:
            live = self.venues.kalshi.live(market_id)
        return None if live is None else live.engine

    def engines(self) -> set[MatchingEngine]:
        return {live.engine for live in self.venues.polymarket.live.values()} | {
            live.engine for live in self.venues.kalshi._life.live.values()
        }

    async def candles(self, symbol: str, interval: str, opens: list[int], clock: Clock) -> dict[int, tuple[int, ...]]:
        """Open, high, low, close and volume in 1e-8, by open time, of those that are closed."""
        made = await self.venues.binance.makers[symbol].candles(interval, opens, clock.now_ms(), clock)
        return {one.open_ms: (one.open, one.high, one.low, one.close, one.volume) for one in made if one.closed}

    def went_up(self, market: Market) -> bool:
        """What a market that is over settled on."""
        return self.venues.world.went_up("BTC", market.open_ms, market.close_ms)

    def orders(self, venue: str, but: Set[str] = frozenset()) -> list[VenueOrder]:
        """All of the account's, without those in `but`."""
        if venue == "polymarket":
            return [
                VenueOrder(
                    row.order_id, "", row.window.condition_id, row.intent.shares, row.open, row.matched, row.created_ms
                )
                for row in self.venues.polymarket.desk.orders.values()
                if row.order_id not in but and row.account.owner == self.pm_owner
            ]  # fmt: skip
        return [
            VenueOrder(
                row.order_id, row.client_order_id, row.ticker, row.initial, row.status is Status.RESTING, row.filled,
                row.created_us // 1000,
            )
            for row in self.kalshi.orders.values()
            if row.order_id not in but
        ]  # fmt: skip

    def fills(self, venue: str) -> list[VenueFill]:
        found = []
        if venue == "polymarket":
            for trade in self.venues.polymarket.trades.of_owner(self.pm_owner):
                for leg in trade.legs:
                    if leg.record is None or leg.record.account.owner != self.pm_owner:
                        continue
                    found.append(
                        VenueFill(
                            trade.trade_id, leg.order_id, trade.window.condition_id, PM_OUTCOMES[leg.outcome],
                            Decimal(leg.size) / MICRO, Decimal(leg.price) / 10_000,
                            Side(leg.side.value), Decimal(leg.fee) / MICRO, trade.state is TradeState.FAILED,
                            trade.match_ms, trade.state in (TradeState.FAILED, TradeState.CONFIRMED),
                        )
                    )  # fmt: skip
            return found
        for fill in self.kalshi.fills:
            yes = fill.order.side is EngineSide.BUY
            found.append(
                VenueFill(
                    fill.trade_id,
                    fill.order.order_id,
                    fill.order.ticker,
                    "YES" if yes else "NO",
                    Decimal(fill.count) / MICRO,
                    Decimal(fill.price if yes else 10_000 - fill.price) / 10_000,
                    Side.BUY,
                    Decimal(fill.fee) / MICRO,
                    False,
                    fill.at_us // 1000,
                    True,
                )
            )
        return found

    def positions(self, venue: str, market_id: str) -> dict[str, Decimal]:
        """Shares by outcome in a market that is not settled, trades under way included."""
        if venue == "polymarket":
            held: dict[str, Decimal] = {}
            for fill in self.fills(venue):
                if fill.market_id == market_id and not fill.failed:
                    sign = 1 if fill.side is Side.BUY else -1
                    held[fill.outcome] = held.get(fill.outcome, Decimal(0)) + sign * fill.size
            return {outcome: size for outcome, size in held.items() if size}
        net = Decimal(self.kalshi.net(market_id)) / MICRO
        return {} if not net else {"YES": net} if net > 0 else {"NO": -net}

    def cash(self, venue: str) -> Decimal:
        """Dollars of the account: on Polymarket those on chain, matches that are not mined left out."""
        if venue == "polymarket":
            account = self.venues.polymarket.accounts.find(self.pm_wallet)
            assert account is not None
            return Decimal(account.cash) / MICRO
        return self.spendable(venue)

    def spendable(self, venue: str) -> Decimal:
        """Dollars that a further order may use."""
        if venue == "polymarket":
            account = self.venues.polymarket.accounts.find(self.pm_wallet)
            assert account is not None
            return Decimal(self.venues.polymarket.desk.free_cash(account)) / MICRO
        return Decimal(self.kalshi.available(SHARD)) / MICRO
