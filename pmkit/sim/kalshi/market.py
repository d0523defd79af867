"""A market that trades: its book, what was traded, and the market object of REST (kalshi.md, section 3.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from pmkit.clock import Clock
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, Match, MatchingEngine, Side, Update
from pmkit.sim.kalshi.windows import DAY_MS, NEW_YORK, Calendar, Window, digits_of, index_of, iso, iso_us, new_york
from pmkit.sim.traders import STEPS_PER_WALL_SECOND, Grid, Traders
from pmkit.sim.world import World

SHARD = 2
# Engine units of a hundredth of a contract, the finest count.
COUNT_UNIT = 10_000
# Size times price, in engine units, per dollar.
MONEY_UNITS = PRICE_UNITS * SIZE_UNITS
# tapered_deci_cent: 0.001 outside 0.10 to 0.90, else 0.01 (3.5). Neither 0 nor 1 is a price.
GRID = Grid(((10, 1_000, 10), (1_000, 9_000, 100), (9_000, 9_990, 10)))
STRUCTURE = "tapered_deci_cent"
PRICE_RANGES = [
    {"start": "0.0000", "end": "0.1000", "step": "0.0010"},
    {"start": "0.1000", "end": "0.9000", "step": "0.0100"},
    {"start": "0.9000", "end": "1.0000", "step": "0.0010"},
]

Levels = list[tuple[str, str]]


def price_text(units: int) -> str:
    """0.0001 dollars as text with four decimals."""
    return f"{units // PRICE_UNITS}.{units % PRICE_UNITS:04d}"


def count_text(units: int) -> str:
    """Engine units as contracts with two decimals; may be negative."""
    hundredths = abs(units) // COUNT_UNIT
    return f"{'-' if units < 0 else ''}{hundredths // 100}.{hundredths % 100:02d}"


def book_side(side: Side) -> str:
    """The outcome whose bids are on an engine side: YES bids, and NO bids for the asks."""
    return "yes" if side is Side.BUY else "no"


@dataclass(slots=True)
class Stats:
    """What was traded in a market. Counts in engine units, prices in 0.0001 dollars."""

    volume: int = 0
    money: int = 0  # in 1 / MONEY_UNITS dollars
    last_price: int = 0
    last_size: int = 0
    positions: Counter[str] = field(default_factory=Counter)

    @property
    def open_interest(self) -> int:
        """Contracts held: the positive positions of all owners."""
        return sum(size for size in self.positions.values() if size > 0)


@dataclass(frozen=True, slots=True)
class Trade:
    """One public print. `number` grows; price in YES terms."""

    number: int
    trade_id: str
    ticker: str
    price: int
    size: int
    taker: Side
    at_us: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A change of one level. `price` in YES terms; `size` is signed."""

    side: Side
    price: int
    size: int


class LiveMarket:
    """The book of one window while it is open, and its background traders, who stop while trading is paused.

    `on_change(market, deltas, matches)` is called after every operation.
    """

    def __init__(
        self,
        window: Window,
        world: World,
        clock: Clock,
        on_change: Callable[[LiveMarket, list[Delta], list[Match]], object],
        paused: Callable[[], bool],
        steps_per_wall_second: float = STEPS_PER_WALL_SECOND,
    ) -> None:
        self.window = window
        self.ticker = window.ticker
        self.market_id = market_id(world, window)
        self.stats = Stats()
        self.engine = MatchingEngine()
        self.engine.on_update.append(self._updated)
        # Whose order the operation under way is about, with its client_order_id; None for the venue's own traders.
        self.cause: tuple[str, str] | None = None
        self._shown: dict[tuple[Side, int], int] = {}
        self._on_change = on_change
        asset, opened, closed = window.asset, window.open_ms, window.close_ms
        self.traders = Traders(
            self.engine,
            fair=lambda: world.fair_up(asset, opened, closed, clock.now_ms()),
            seconds_left=lambda: 0.0 if paused() else (closed - clock.now_ms()) / 1000,
            grid=lambda: GRID,
            clock=clock,
            entropy=clock.entropy,
            size_step=COUNT_UNIT,
            min_size=COUNT_UNIT,
            steps_per_wall_second=steps_per_wall_second,
        )

    @contextmanager
    def caused_by(self, user_id: str, client_order_id: str) -> Iterator[None]:
        """What changes in the book is that member's doing: its own connections are told so."""
        before, self.cause = self.cause, (user_id, client_order_id)
        try:
            yield
        finally:
            self.cause = before

    def levels(self, *, yes_price: bool = False, depth: int = 0) -> tuple[Levels, Levels]:
        """YES bids and NO bids as (price, count), ascending, the best last. `depth` best levels per side, 0 for all.

        With `yes_price` the NO side is given in YES prices (its best, the lowest, is last then).
        """
        found: list[Levels] = []
        for side in (Side.BUY, Side.SELL):
            levels = self.engine.levels(side)[: depth or None]
            own = side is Side.BUY or yes_price
            rows = [(price_text(price if own else PRICE_UNITS - price), count_text(size)) for price, size in levels]
            found.append(rows[::-1])
        return found[0], found[1]

    def _updated(self, update: Update) -> None:
        for match in update.matches:
            self.stats.volume += match.size
            self.stats.money += match.size * match.price
            self.stats.last_price = match.price
            self.stats.last_size = match.size
            sign = 1 if match.taker_side is Side.BUY else -1
            self.stats.positions[match.taker_owner] += sign * match.size
            self.stats.positions[match.maker_owner] -= sign * match.size
        deltas = []
        for change in update.changes:
            key = (change.side, change.price)
            before = self._shown.pop(key, 0)
            if change.size_after:
                self._shown[key] = change.size_after
            if change.size_after != before:
                deltas.append(Delta(change.side, change.price, change.size_after - before))
        self._on_change(self, deltas, list(update.matches))


def market_id(world: World, window: Window) -> str:
    """The UUID of a market."""
    return str(UUID(int=world.bits("kalshi", "market", window.ticker, size=16), version=4))


def title_of(window: Window) -> str:
    """The title of a market and of its event."""
    return f"{window.asset} price up in next 15 mins?"


def strike_text(asset: str, value: float) -> str:
    """A price as the sub-titles write it: $65,776.62."""
    return f"${value:,.{digits_of(asset)}f}"


def _when(ms: int) -> str:
    local = new_york(ms)
    return f"{local:%I:%M %p} {local.astimezone(NEW_YORK).tzname()} on {local:%b %d, %Y}"


def market_object(
    calendar: Calendar, window: Window, now_ms: int, live: LiveMarket | None, stats: Stats, paused: bool
) -> dict[str, object]:
    """A market as GET /markets gives it, with every field of October 2026 in its type."""
    status = calendar.status(window, now_ms, paused)
    known = now_ms >= calendar.strike_ms(window)
    strike = calendar.strike(window) if known else None
    determined = status in ("determined", "finalized")
    value = calendar.value(window) if determined else None
    bid = live.engine.best_bid if live else None
    ask = live.engine.best_ask if live else None
    index = index_of(window.asset)
    data: dict[str, object] = {
        "ticker": window.ticker,
        "event_ticker": window.event_ticker,
        "market_type": "binary",
        "title": title_of(window),
        "yes_sub_title": "Target price: TBD"
        if strike is None
        else f"Target Price: {strike_text(window.asset, strike)}",
        "no_sub_title": "Target price: TBD",
        "created_time": iso_us(calendar.created_us(window)),
        "updated_time": iso_us(calendar.updated_us(window, now_ms)),
        "open_time": iso(window.open_ms),
        "close_time": iso(window.close_ms),
        "expected_expiration_time": iso(window.close_ms + 300_000),
        "expiration_time": iso(window.close_ms + 7 * DAY_MS),
        "latest_expiration_time": iso(window.close_ms + 7 * DAY_MS),
        "occurrence_datetime": iso(window.close_ms + 300_000),
        "settlement_timer_seconds": 1,
        "status": status,
        "result": calendar.result(window) if determined else "",
        "expiration_value": "" if value is None else f"{value:.{digits_of(window.asset)}f}",
        "can_close_early": True,
        "custom_strike": {"round_digits": str(digits_of(window.asset))},
        "yes_bid_dollars": price_text(bid or 0),
        "yes_bid_size_fp": count_text(live.engine.size_at(Side.BUY, bid) if live and bid else 0),
        "yes_ask_dollars": price_text(ask or PRICE_UNITS),
        "yes_ask_size_fp": count_text(live.engine.size_at(Side.SELL, ask) if live and ask else 0),
        "no_bid_dollars": price_text(PRICE_UNITS - (ask or PRICE_UNITS)),
        "no_ask_dollars": price_text(PRICE_UNITS - (bid or 0)),
        "last_price_dollars": price_text(stats.last_price),
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "0.0000",
        "previous_price_dollars": "0.0000",
        "volume_fp": count_text(stats.volume),
        "volume_24h_fp": count_text(stats.volume),
        "open_interest_fp": count_text(stats.open_interest),
        "notional_value_dollars": "1.0000",
        "price_level_structure": STRUCTURE,
        "price_ranges": PRICE_RANGES,
        "rules_primary": (
            f"Resolves to Yes if the mean of the 60 {index} values of the minute before {_when(window.close_ms)} is at "
            f"least that of the minute before {_when(window.open_ms)}."
        ),
        "rules_secondary": f"Each mean is rounded to {digits_of(window.asset)} digits. Without data it resolves to No.",
        "exchange_index": SHARD,
        "settlement_bounds_type": "default",
    }
    if strike is not None:
        data["strike_type"] = "greater_or_equal"
        data["floor_strike"] = strike
    if determined:
        data["settlement_value_dollars"] = "1.0000" if data["result"] == "yes" else "0.0000"
    if status == "finalized":
        data["settlement_ts"] = iso_us(calendar.settled_us(window))
    return data
