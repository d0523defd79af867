"""The venue's own truth about one account, as the checks of a soak read it. An adapter per venue fills it in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

Token: TypeAlias = tuple[str, str]
"""Market id and outcome."""


@dataclass(slots=True)
class Booked:
    """An order that the venue took. `client_order_id`, `price` and `size` are None where the venue does not know them
    as the trader does; `at` and `ended` are wall seconds. `refused`: taken and ended in one step with nothing filled,
    so that the trader may be told of a refusal.
    """

    order_id: str
    token: Token
    side: str
    at: float
    client_order_id: str | None = None
    price: Decimal | None = None
    size: Decimal | None = None
    ended: float | None = None
    refused: bool = False


@dataclass(slots=True)
class Leg:
    """The account's part in a match. `state` is that of a `Fill`; shares are signed: a SELL's are negative."""

    fill_id: str
    order_id: str
    token: Token
    shares: Decimal
    price: Decimal
    at: float
    state: str = "PENDING"


class Ledger:
    """Orders, matches, and what was held at any moment.

    `on_match` is called within each match. `same(token, shown, held)`: whether a venue may show a position so, None
    where it does not list it.
    """

    def __init__(self) -> None:
        self.same: Callable[[Token, Decimal | None, Decimal], bool] = lambda _, shown, held: (shown or 0) == held
        self.on_match: Callable[[], object] = lambda: None
        self.orders: dict[str, Booked] = {}
        self.legs: dict[tuple[str, str], Leg] = {}
        self._held: dict[Token, list[tuple[float, Decimal]]] = {}

    def terms(self, token: Token, shares: Decimal, price: Decimal) -> tuple[Token, Decimal, Decimal]:
        """The one form of a match that a venue may show in several."""
        return token, shares, price

    def book(self, order: Booked) -> None:
        """Raises ValueError for an id that was booked before."""
        if order.order_id in self.orders:
            raise ValueError(f"the venue booked {order.order_id} twice")
        self.orders[order.order_id] = order

    def end(self, order_id: str) -> None:
        order = self.orders[order_id]
        if order.ended is None:
            order.ended = time.time()

    def match(self, leg: Leg) -> None:
        self.legs[leg.fill_id, leg.order_id] = leg
        self._move(leg.token, leg.shares)
        self.on_match()

    def fail(self, fill_id: str, order_id: str) -> None:
        """The match is taken back."""
        leg = self.legs[fill_id, order_id]
        leg.state = "FAILED"
        self._move(leg.token, -leg.shares)

    def _move(self, token: Token, shares: Decimal) -> None:
        moves = self._held.setdefault(token, [])
        moves.append((time.time(), (moves[-1][1] if moves else Decimal(0)) + shares))

    def held(self) -> dict[Token, Decimal]:
        """What is held now, nothing left out but zeros."""
        return {token: moves[-1][1] for token, moves in self._held.items() if moves[-1][1]}

    def held_between(self, token: Token, began: float, ended: float) -> set[Decimal]:
        """Every size that a position had between two moments."""
        found = {Decimal(0)}
        for at, size in self._held.get(token, ()):
            if at > ended:
                break
            found = {size} if at < began else found | {size}
        return found

    def tokens(self) -> set[Token]:
        return set(self._held)

    def filled(self, order_id: str) -> Decimal:
        """Shares of an order that stand."""
        legs = (leg for leg in self.legs.values() if leg.order_id == order_id and leg.state != "FAILED")
        return sum((abs(leg.shares) for leg in legs), Decimal(0))
