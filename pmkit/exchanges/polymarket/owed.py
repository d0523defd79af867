"""What the user socket has not told yet though it should have: the reasons to ask REST, and to call a socket silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pmkit.clock import Clock
from pmkit.exchanges.polymarket.journal import Journal
from pmkit.exchanges.polymarket.order_plan import DUST
from pmkit.exchanges.polymarket.user_messages import OwnOrder, OwnTrade
from pmkit.exchanges.types import OrderStatus

SILENT_SECONDS: Final = 5.0
"""Wall seconds within which the socket must speak of an order that the venue took."""

UNTOLD_SECONDS: Final = 15.0
"""Wall seconds within which it must speak of a trade that REST told first."""

DOUBT_SECONDS: Final = 30.0
"""Wall seconds for which REST is asked again and again for what the socket told illegibly or in part: REST itself is
some seconds late."""

SOON_SECONDS: Final = 1.0


class Owed:
    """`wake()` is called when it is time to ask REST. All times are wall seconds."""

    def __init__(self, clock: Clock, journal: Journal, wake: Callable[[], object]) -> None:
        self._clock = clock
        self._journal = journal
        self._wake = wake
        self._orders: dict[str, float] = {}
        self._trades: dict[str, float] = {}
        self._doubts: dict[str, float] = {}

    def order(self, order_id: str) -> None:
        """The venue took it."""
        self._owe(self._orders, order_id, SILENT_SECONDS, SILENT_SECONDS)

    def trade(self, trade_id: str) -> None:
        """REST told of it first."""
        self._owe(self._trades, trade_id, UNTOLD_SECONDS, UNTOLD_SECONDS)

    def unread(self) -> None:
        """An event did not read: what it said is lost on the socket, but not for the account."""
        self._owe(self._doubts, "", DOUBT_SECONDS, SOON_SECONDS)

    def changed(self, status: OrderStatus) -> None:
        """An order changed. Where it has filled more than its fills that are known, these usually follow at once."""
        if status.filled_amount > self._journal.matched(status.order_id) + DUST:
            self._owe(self._doubts, status.order_id, DOUBT_SECONDS, SOON_SECONDS)

    def heard(self, event: OwnOrder | OwnTrade) -> None:
        """The socket spoke."""
        if isinstance(event, OwnOrder):
            self._orders.pop(event.order_id, None)
            return
        self._trades.pop(event.trade_id, None)
        for order_id in (event.taker_order_id, *(maker.order_id for maker in event.maker_orders)):
            self._orders.pop(order_id, None)

    def reconnected(self) -> None:
        """What happened before this connection is not told on it."""
        self._trades.clear()

    def anything(self) -> bool:
        """Whether REST should be asked, and again soon."""
        now = self._clock.io_monotonic()
        for order_id, until in tuple(self._doubts.items()):
            known = self._journal.statuses.get(order_id)
            explained = known is not None and known.filled_amount <= self._journal.matched(order_id) + DUST
            if explained or now >= until:
                del self._doubts[order_id]
        return bool(self._orders or self._trades or self._doubts)

    def overdue(self) -> tuple[list[str], list[str]]:
        """Orders and trades of which it should have spoken by now. They are not waited for any more."""
        return self._take(self._orders), self._take(self._trades)

    def _owe(self, kind: dict[str, float], key: str, seconds: float, look_after: float) -> None:
        first = not kind
        kind[key] = self._clock.io_monotonic() + seconds
        if first:
            self._clock.io_call_later(look_after, self._look)

    def _look(self) -> None:
        if self.anything():
            self._wake()

    def _take(self, kind: dict[str, float]) -> list[str]:
        now = self._clock.io_monotonic()
        late = [key for key, due in kind.items() if now >= due]
        for key in late:
            del kind[key]
        return late
