"""Order groups: a fuse on how much may be filled within 15 seconds (reference: kalshi.md, section 5.12)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pmkit.clock import Clock
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.ledger import Account
from pmkit.sim.kalshi.market import SHARD
from pmkit.sim.kalshi.user_feed import UserFeed

_WINDOW_MS = 15_000


@dataclass(slots=True)
class OrderGroup:
    """One group. `limit` in engine units; `fills` are (market ms, count) of the last 15 seconds."""

    group_id: str
    account: Account
    shard: int
    limit: int
    triggered: bool = False
    fills: deque[tuple[int, int]] = field(default_factory=deque)


class OrderGroups:
    """All groups. `cancel(account, group_id)` takes a group's orders out of the book."""

    def __init__(self, clock: Clock, user_feed: UserFeed, cancel: Callable[[Account, str], object]) -> None:
        self.groups: dict[str, OrderGroup] = {}
        self._clock = clock
        self._feed = user_feed
        self._cancel = cancel
        self._over: list[OrderGroup] = []

    def of(self, account: Account) -> list[OrderGroup]:
        return [group for group in self.groups.values() if group.account is account]

    def find(self, account: Account, group_id: str, shard: int | None = None) -> OrderGroup:
        """Raises Refused with 404 for a group that the account has not got on that shard (None: on any)."""
        group = self.groups.get(group_id)
        if group is None or group.account is not account or shard not in (None, group.shard):
            raise refuse(404, "order_group_not_found")
        return group

    def check(self, account: Account, group_id: str) -> None:
        """Whether an order of a crypto market may join. Raises Refused."""
        if self.find(account, group_id, SHARD).triggered:
            raise refuse(400, "exceeded_order_group_risk_limit", "the order group was triggered and not reset")

    def create(self, account: Account, limit: int, shard: int) -> OrderGroup:
        group = OrderGroup(self._clock.entropy.uuid4(), account, shard, limit)
        self.groups[group.group_id] = group
        self._feed.group(account, group.group_id, "created", limit)
        return group

    def traded(self, account: Account, group_id: str, count: int) -> None:
        """A fill of one of its orders; a limit that is passed takes effect when the engine's step is over."""
        group = self.groups.get(group_id)
        if group is None:
            return
        group.fills.append((self._clock.now_ms(), count))
        if self._recent(group) > group.limit and not group.triggered:
            group.triggered = True
            self._over.append(group)

    def settle_triggers(self) -> None:
        """Cancel the orders of the groups that passed their limit."""
        while self._over:
            group = self._over.pop()
            self._feed.group(group.account, group.group_id, "triggered")
            self._cancel(group.account, group.group_id)

    def _recent(self, group: OrderGroup) -> int:
        since = self._clock.now_ms() - _WINDOW_MS
        while group.fills and group.fills[0][0] <= since:
            group.fills.popleft()
        return sum(count for _, count in group.fills)

    def trigger(self, group: OrderGroup) -> None:
        if not group.triggered:
            group.triggered = True
            self._over.append(group)
            self.settle_triggers()

    def reset(self, group: OrderGroup) -> None:
        group.triggered = False
        group.fills.clear()
        self._feed.group(group.account, group.group_id, "reset")

    def set_limit(self, group: OrderGroup, limit: int) -> None:
        group.limit = limit
        self._feed.group(group.account, group.group_id, "limit_updated", limit)
        if self._recent(group) > limit:
            self.trigger(group)

    def delete(self, group: OrderGroup) -> None:
        self._cancel(group.account, group.group_id)
        del self.groups[group.group_id]
        self._feed.group(group.account, group.group_id, "deleted")
