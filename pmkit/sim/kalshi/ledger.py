"""The venue's truth about its traders' accounts: cash per shard, orders, fills, positions, settlements.

Integers: prices in 0.0001 dollars, counts in engine units, money in millionths of a dollar (price times count is one
exactly, since counts are whole hundredths). Tests read this to know what really happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, Side, TimeInForce
from pmkit.sim.kalshi.auth import Keys, VenueKey
from pmkit.sim.kalshi.market import COUNT_UNIT, SHARD
from pmkit.sim.world import World

MICRO = 1_000_000
# A trade fee is rounded up to a millionth of a dollar; then cost and fee together up to a ten-thousandth (5.14), also
# where there is no trade fee: 22 of 22 recorded maker fills of fractional cost paid that (July 2026).
STEP = 100
# 0.07 * C * P * (1 - P), in engine units, makes hundredths of this many dollars.
_FEE_UNITS = 100 * SIZE_UNITS * PRICE_UNITS * PRICE_UNITS


class Status(StrEnum):
    """Of an order, in the venue's words."""

    RESTING = "resting"
    CANCELED = "canceled"
    EXECUTED = "executed"


class SelfTrade(StrEnum):
    """What happens when an account would trade with itself."""

    TAKER_AT_CROSS = "taker_at_cross"
    MAKER = "maker"


def cost_of(price: int, count: int) -> int:
    """Money of that many contracts at a price."""
    return price * count // COUNT_UNIT


@dataclass(slots=True)
class Fees:
    """What an order has cost and was charged so far: what rounding took too much once is not taken again."""

    cost: int = 0
    trade: int = 0
    paid: int = 0

    def fill(self, price: int, count: int, *, is_taker: bool) -> int:
        """The fee of one more fill, at the price of the outcome that it is for. Makers have no trade fee here."""
        self.cost += cost_of(price, count)
        if is_taker:
            self.trade += -(-7 * count * price * (PRICE_UNITS - price) * MICRO // _FEE_UNITS)
        due = -(-(self.cost + self.trade) // STEP) * STEP - self.cost
        fee = max(0, due - self.paid)
        self.paid += fee
        return fee


def rounding_of(price: int) -> int:
    """The most that rounding takes of an order that rests: nothing where every hundredth costs whole steps."""
    return STEP if price % STEP else 0


def money_text(micro: int) -> str:
    """Dollars with six decimals, as orders and fills have them."""
    whole, rest = divmod(abs(micro), MICRO)
    return f"{'-' if micro < 0 else ''}{whole}.{rest:06d}"


def short_money(micro: int) -> str:
    """Dollars with four decimals, six where they are needed."""
    text = money_text(micro)
    return text[:-2] if text.endswith("00") else text


@dataclass(slots=True)
class OrderRecord:
    """An order that was accepted, resting or not."""

    number: int
    order_id: str
    client_order_id: str
    account: Account
    ticker: str
    side: Side
    price: int
    initial: int
    remaining: int
    created_us: int
    updated_us: int
    time_in_force: TimeInForce
    self_trade: SelfTrade
    status: Status = Status.RESTING
    filled: int = 0
    expires_s: int | None = None
    group_id: str | None = None
    cancel_on_pause: bool = False
    reason: str = ""
    taker_cost: int = 0
    maker_cost: int = 0
    taker_fees: int = 0
    maker_fees: int = 0
    charged: Fees = field(default_factory=Fees)


@dataclass(frozen=True, slots=True)
class FillRecord:
    """One side of a match that an account was in. `trade_id` is that of the public print."""

    number: int
    trade_id: str
    order: OrderRecord
    price: int
    count: int
    is_taker: bool
    fee: int
    at_us: int
    position_after: int


@dataclass(slots=True)
class Position:
    """What an account holds in one market: `net` is positive for YES, negative for NO; `cost` is what that cost."""

    ticker: str
    net: int = 0
    cost: int = 0
    realized: int = 0
    fees: int = 0
    traded: int = 0
    volume: int = 0
    updated_us: int = 0
    settled: bool = False

    def trade(self, side: Side, price: int, count: int) -> int:
        """Apply a fill; returns the change of cash without the fee. What nets pays out a dollar a pair at once."""
        sign = 1 if side is Side.BUY else -1
        own = price if side is Side.BUY else PRICE_UNITS - price
        closing = min(count, max(0, -sign * self.net))
        opening = count - closing
        change = 0
        if closing:
            released = self.cost * closing // abs(self.net)
            proceeds = cost_of(PRICE_UNITS - own, closing)
            self.cost -= released
            self.realized += proceeds - released
            change += proceeds
        spent = cost_of(own, opening)
        self.cost += spent
        self.traded += spent
        self.net += sign * count
        self.volume += count
        return change - spent


@dataclass(frozen=True, slots=True)
class SettlementRecord:
    """A position that was paid out. Counts are those held at the end."""

    number: int
    ticker: str
    result: str
    yes_count: int
    yes_cost: int
    no_count: int
    no_cost: int
    revenue: int
    fees: int
    at_us: int


@dataclass(slots=True)
class Transfer:
    """Money on its way from one shard to another."""

    number: int
    transfer_id: str
    client_id: str
    source: int
    destination: int
    amount: int
    created_s: int
    complete: bool = False


@dataclass(slots=True, eq=False)
class Account:
    """One member. `cash` by shard holds what no position has taken; resting orders reserve part of it."""

    user_id: str
    key: VenueKey
    cash: dict[int, int]
    deposited: dict[int, int]
    orders: dict[str, OrderRecord] = field(default_factory=dict)
    client_ids: dict[str, str] = field(default_factory=dict)
    fills: list[FillRecord] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=dict)
    settlements: list[SettlementRecord] = field(default_factory=list)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    resting: dict[str, OrderRecord] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Account(user_id={self.user_id!r})"

    def net(self, ticker: str) -> int:
        position = self.positions.get(ticker)
        return 0 if position is None else position.net

    def reserved(self, ticker: str, extra: tuple[tuple[Side, int, int], ...] = (), net: int | None = None) -> int:
        """What the resting orders in a market, and further ones (side, price, count), need if all of them fill.

        A position covers the orders that close it, those first that would trade first.
        """
        net = self.net(ticker) if net is None else net
        wanted = [
            (order.side, order.price, order.remaining) for order in self.resting.values() if order.ticker == ticker
        ]
        wanted += extra
        total = 0
        for side in Side:
            cover = max(0, -net if side is Side.BUY else net)
            rows = [(price, count) for at, price, count in wanted if at is side]
            for price, count in sorted(rows, reverse=side is Side.BUY):
                closing = min(cover, count)
                cover -= closing
                total += cost_of(price if side is Side.BUY else PRICE_UNITS - price, count - closing)
                total += rounding_of(price)
        return total

    def available(self, shard: int) -> int:
        """What can be spent on a shard. All markets of this venue are on one."""
        cash = self.cash.get(shard, 0)
        if shard != SHARD:
            return cash
        return cash - sum(self.reserved(ticker) for ticker in {order.ticker for order in self.resting.values()})

    def settle(self, ticker: str, result: str, number: int, at_us: int) -> Position | None:
        """Pay out what is held in a market; None where there is nothing (any more) to settle."""
        position = self.positions.get(ticker)
        if position is None or position.settled:
            return None
        yes, no = max(0, position.net), max(0, -position.net)
        revenue = yes if result == "yes" else no  # an engine unit of contracts pays a millionth of a dollar
        settlement = SettlementRecord(
            number=number,
            ticker=ticker,
            result=result,
            yes_count=yes,
            yes_cost=position.cost if yes else 0,
            no_count=no,
            no_cost=position.cost if no else 0,
            revenue=revenue,
            fees=position.fees,
            at_us=at_us,
        )
        self.settlements.append(settlement)
        self.cash[SHARD] = self.cash.get(SHARD, 0) + revenue
        position.realized += revenue - position.cost
        position.cost = position.net = 0
        position.settled = True
        position.updated_us = at_us
        return position


class Accounts:
    """All members, by key. A key that was made without an account belongs to the first one.

    `scopes` by key id where a key may not do everything: of "read", "write", "write::trade", "write::transfer",
    "read::portfolio_balance" (2.5).
    """

    def __init__(self, world: World, keys: Keys) -> None:
        self._world = world
        self._keys = keys
        self._by_key: dict[str, Account] = {}
        self._by_user: dict[str, Account] = {}
        self.scopes: dict[str, tuple[str, ...]] = {}

    def open(
        self, balances: dict[int, Decimal | int], key: VenueKey | None = None, *, key_kind: str = "ed25519"
    ) -> Account:
        """A new member with dollars per shard; without a key it gets a new one of that kind."""
        key = key or self._keys.make(key_kind)
        number = len(self._by_user)
        user_id = str(UUID(int=self._world.bits("kalshi", "user", number, size=16), version=4))
        cash = {shard: int(Decimal(dollars) * MICRO) for shard, dollars in balances.items()}
        account = Account(user_id, key, cash, dict(cash))
        self._by_key[key.id] = self._by_user[user_id] = account
        return account

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_user.values())

    def of_key(self, key_id: str) -> Account:
        return self._by_key.get(key_id) or next(iter(self))

    def scopes_of(self, key_id: str) -> tuple[str, ...]:
        return self.scopes.get(key_id, ("read", "write"))

    def keys_of(self, account: Account) -> list[str]:
        return [key_id for key_id, owner in self._by_key.items() if owner is account]

    def of_user(self, user_id: str) -> Account | None:
        """The member of that id; None for the venue's own traders."""
        return self._by_user.get(user_id)
