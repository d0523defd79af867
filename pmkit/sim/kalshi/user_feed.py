"""What the channels of an account say, to the connections of its keys (reference: kalshi.md, sections 6.3 and 6.5)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pmkit.clock import Clock
from pmkit.sim.faults import Faults
from pmkit.sim.kalshi.ledger import Account, FillRecord, OrderRecord, Position
from pmkit.sim.kalshi.market import count_text
from pmkit.sim.kalshi.objects import fill_message, position_message, user_order_message
from pmkit.sim.kalshi.streams import FILLS, GROUPS, POSITIONS, USER_ORDERS, KalshiSession


class UserFeed:
    """Publishes to the sessions whose key belongs to the account.

    Scripted: `silence(seconds)` loses everything for market seconds while public channels go on;
    `faults.arm("duplicate_fill")` sends a fill twice.
    """

    def __init__(
        self,
        clock: Clock,
        faults: Faults,
        sessions: Callable[[], list[KalshiSession]],
        account_of: Callable[[str], Account],
    ) -> None:
        self.lost = 0
        self._clock = clock
        self._faults = faults
        self._sessions = sessions
        self._account_of = account_of
        self._silent_until = 0.0

    def silence(self, seconds: float) -> None:
        self._silent_until = self._clock.monotonic() + seconds

    def fill(self, fill: FillRecord) -> None:
        again = self._faults.take("duplicate_fill")
        for _ in range(2 if again else 1):
            self._tell(fill.order.account, FILLS, "fill", fill.order.ticker, fill_message(fill))

    def order(self, order: OrderRecord) -> None:
        self._tell(order.account, USER_ORDERS, "user_order", order.ticker, user_order_message(order))

    def position(self, account: Account, position: Position) -> None:
        message = position_message(account, position)
        self._tell(account, POSITIONS, "market_position", position.ticker, message)

    def group(self, account: Account, group_id: str, event: str, limit: int | None = None) -> None:
        message: dict[str, object] = {"event_type": event, "order_group_id": group_id}
        if limit is not None:
            message["contracts_limit_fp"] = count_text(limit)
        message["ts_ms"] = self._clock.now_ms()
        self._tell(account, GROUPS, GROUPS, None, message)

    def _tell(self, account: Account, channel: str, kind: str, ticker: str | None, message: dict[str, object]) -> None:
        if self._clock.monotonic() < self._silent_until:
            self.lost += 1
            return
        raw = msgspec.json.encode(message)
        for session in self._sessions():
            if self._account_of(session.key_id) is account:
                for subscription in session.by_channel(channel):
                    if ticker is None or subscription.wants(ticker):
                        session.publish(subscription, kind, raw)
