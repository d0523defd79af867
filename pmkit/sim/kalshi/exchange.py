"""The exchange behind the order calls: checks, matching with everybody's orders, netting, settlement (5.1 to 5.14).

Everything here is one step of the loop: no awaits between a check and its consequence.
"""

from __future__ import annotations

from collections.abc import Callable

from pmkit.clock import Clock
from pmkit.sim.engine import PRICE_UNITS, Match, Order, Side, TimeInForce
from pmkit.sim.kalshi.errors import refuse
from pmkit.sim.kalshi.intents import Intent, Outcome, Plan, check_funds, crosses, plan_of
from pmkit.sim.kalshi.ledger import (
    Account,
    Accounts,
    FillRecord,
    OrderRecord,
    Position,
    Status,
    cost_of,
)
from pmkit.sim.kalshi.market import GRID, SHARD, LiveMarket, Trade
from pmkit.sim.kalshi.order_groups import OrderGroups
from pmkit.sim.kalshi.user_feed import UserFeed
from pmkit.sim.kalshi.windows import Window, in_maintenance
from pmkit.sim.server import Refused


class Exchange:
    """One shard's matching for the members in `accounts`; `find` says which windows are listed, `live` which trade.

    A post-only order that would cross is refused as a bot saw it on 2026-08-04 (sessions/order_api_log_20260804);
    with `crosses_are_cancelled` it is accepted and cancelled at once, as FIX has it. Not known of the real one, so
    switchable: `kills_as_errors` answers 400 to a FOK that cannot fill (default: 201 with nothing filled),
    `client_ids_come_free` lets the id of an ended order be used again (default: never).
    """

    def __init__(
        self,
        accounts: Accounts,
        clock: Clock,
        user_feed: UserFeed,
        find: Callable[[str], Window | None],
        live: Callable[[str], LiveMarket | None],
        paused: Callable[[], bool],
        watch_expiry: Callable[[OrderRecord], object],
    ) -> None:
        self.crosses_are_cancelled = False
        self.kills_as_errors = False
        self.client_ids_come_free = False
        self.orders: dict[str, OrderRecord] = {}
        self.groups = OrderGroups(clock, user_feed, self._cancel_for_group)
        self._accounts = accounts
        self._clock = clock
        self._feed = user_feed
        self._find = find
        self._live = live
        self._paused = paused
        self._watch_expiry = watch_expiry
        self._numbers = 0
        self._now_trading: Outcome | None = None

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def now_us(self) -> int:
        return self._clock.time_ns() // 1000

    # ---- checks

    def check_open(self) -> None:
        """Raises Refused while the whole exchange stands still."""
        if in_maintenance(self._clock.now_ms()):
            raise refuse(400, "exchange_is_paused")

    def market(self, ticker: str) -> LiveMarket:
        """The market of an order call. Raises Refused where there is none, or where it does not trade now."""
        self.check_open()
        window = self._find(ticker)
        if window is None:
            raise refuse(404, "market_not_found", f"no market {ticker[:80]}")
        live = self._live(ticker)
        if live is None or not window.open_ms <= self._clock.now_ms() < window.close_ms:
            raise refuse(400, "market_inactive", f"{ticker} is not open for trading")
        return live

    def resting(self, account: Account, order_id: str, shard: int) -> OrderRecord:
        """An own order that rests on that shard. Raises Refused with 404."""
        order = account.orders.get(order_id) if shard == SHARD else None
        if order is None:
            raise refuse(404, "not_found", "no such order on this exchange index")
        self.market(order.ticker)
        if order.status is not Status.RESTING:
            raise refuse(404, "not_found", f"the order is {order.status}")
        return order

    def _check_trading(self) -> None:
        if self._paused():
            raise refuse(400, "trading_is_paused")

    # ---- create

    def create(self, account: Account, intent: Intent) -> Outcome:
        """Accept an order and match it. Raises Refused where it is not accepted; nothing has happened then."""
        used = account.client_ids.get(intent.client_order_id) if intent.client_order_id else None
        if used is not None and not (self.client_ids_come_free and account.orders[used].status is not Status.RESTING):
            raise refuse(409, "order_already_exists", f"client_order_id is that of order {used}")
        live = self.market(intent.ticker)
        self._check_trading()
        if not GRID.holds(intent.price):
            raise refuse(400, "invalid_price")
        if intent.group_id is not None:
            self.groups.check(account, intent.group_id)
        count = intent.count
        if intent.reduce_only:
            net = account.net(intent.ticker)
            count = min(count, max(0, -net if intent.side is Side.BUY else net))
        plan = plan_of(live, account, intent.side, intent.price, count, intent.self_trade)
        if intent.post_only and crosses(live, intent.side, intent.price):
            if not self.crosses_are_cancelled:
                raise refuse(400, "invalid_order", "post only cross")
            return self._stillborn(account, intent, "PostOnlyCrossCancel")
        time_in_force = intent.time_in_force
        if time_in_force is TimeInForce.FOK:
            if plan.own:
                time_in_force = TimeInForce.IOC
            elif plan.tradable < count:
                if self.kills_as_errors:
                    raise refuse(400, "fok_insufficient_volume")
                return self._stillborn(account, intent, "")
        if not count:
            return self._stillborn(account, intent, "ReduceOnlyCancel")
        rests = time_in_force is TimeInForce.GTC and not plan.stopped
        check_funds(account, intent.ticker, intent.side, intent.price, plan, count - plan.tradable if rests else 0)
        order = self._record(account, intent)
        outcome = self._run(live, order, plan, count, time_in_force)
        if order.status is not Status.RESTING:
            pass
        elif plan.stopped and order.remaining:
            self._end(order, "SelfTradeCancel")
        elif order.remaining and time_in_force is not TimeInForce.GTC:
            self._end(order, "ReduceOnlyCancel" if count < intent.count and order.filled == count else "")
        self._feed.order(order)
        if order.status is Status.RESTING and order.expires_s is not None:
            self._watch_expiry(order)
        return outcome

    def _record(self, account: Account, intent: Intent) -> OrderRecord:
        now = self.now_us()
        order = OrderRecord(
            number=self._next(),
            order_id=self._clock.entropy.uuid4(),
            client_order_id=intent.client_order_id,
            account=account,
            ticker=intent.ticker,
            side=intent.side,
            price=intent.price,
            initial=intent.count,
            remaining=intent.count,
            created_us=now,
            updated_us=now,
            time_in_force=intent.time_in_force,
            self_trade=intent.self_trade,
            expires_s=intent.expires_s,
            group_id=intent.group_id,
            cancel_on_pause=intent.cancel_on_pause,
        )
        account.orders[order.order_id] = self.orders[order.order_id] = order
        if intent.client_order_id:
            account.client_ids[intent.client_order_id] = order.order_id
        return order

    def _stillborn(self, account: Account, intent: Intent, reason: str) -> Outcome:
        """Accepted, then cancelled at once without a trade."""
        order = self._record(account, intent)
        self._end(order, reason)
        self._feed.order(order)
        return Outcome(order)

    def _run(self, live: LiveMarket, order: OrderRecord, plan: Plan, count: int, time_in_force: TimeInForce) -> Outcome:
        """Send an order that passed all checks to the book."""
        if not plan.stopped:
            for own in plan.own:
                self._take_out(self.orders[own], "SelfTradeCancel")
        else:
            count, time_in_force = plan.tradable, TimeInForce.IOC
        outcome = self._now_trading = Outcome(order)
        try:
            if count:
                owner, order_id = order.account.user_id, order.order_id
                with live.caused_by(owner, order.client_order_id):
                    made = live.engine.submit(
                        owner, order.side, order.price, count, time_in_force=time_in_force, order_id=order_id
                    )
                if made.order is not None and order.status is Status.RESTING:
                    order.account.resting[order.order_id] = order
        finally:
            self._now_trading = None
        self.groups.settle_triggers()
        return outcome

    # ---- trades

    def on_match(self, live: LiveMarket, match: Match, trade: Trade) -> None:
        """A match in the engine, told while it is still in its step."""
        for owner, order_id, is_taker in (
            (match.taker_owner, match.taker_id, True),
            (match.maker_owner, match.maker_id, False),
        ):
            if self._accounts.of_user(owner) is not None:
                self._fill(self.orders[order_id], trade, is_taker=is_taker)

    def _fill(self, order: OrderRecord, trade: Trade, *, is_taker: bool) -> None:
        account, price, count = order.account, trade.price, trade.size
        position = account.positions.setdefault(order.ticker, Position(order.ticker))
        own_price = price if order.side is Side.BUY else PRICE_UNITS - price
        fee = order.charged.fill(own_price, count, is_taker=is_taker)
        account.cash[SHARD] = account.cash.get(SHARD, 0) + position.trade(order.side, price, count) - fee
        position.fees += fee
        position.updated_us = order.updated_us = trade.at_us
        own = cost_of(own_price, count)
        order.filled += count
        order.remaining -= count
        order.reason = "Trade"
        if is_taker:
            order.taker_cost += own
            order.taker_fees += fee
            if self._now_trading is not None:
                self._now_trading.filled += count
                self._now_trading.money += price * count
                self._now_trading.fees += fee
        else:
            order.maker_cost += own
            order.maker_fees += fee
        if not order.remaining:
            order.status = Status.EXECUTED
            account.resting.pop(order.order_id, None)
        fill = FillRecord(self._next(), trade.trade_id, order, price, count, is_taker, fee, trade.at_us, position.net)
        account.fills.append(fill)
        self._feed.fill(fill)
        self._feed.position(account, position)
        if not is_taker:
            self._feed.order(order)
        if order.group_id is not None:
            self.groups.traded(account, order.group_id, count)

    def step_done(self) -> None:
        """The engine's step is over and told: groups that passed their limit may take their orders out now."""
        if self._now_trading is None:
            self.groups.settle_triggers()

    # ---- ends

    def _end(self, order: OrderRecord, reason: str) -> None:
        order.status = Status.CANCELED
        order.remaining = 0
        order.reason = reason
        order.updated_us = self.now_us()
        order.account.resting.pop(order.order_id, None)

    def _take_out(self, order: OrderRecord, reason: str) -> int:
        """Out of the book, with a word to its owner. Returns what was open."""
        left = order.remaining
        self._end(order, reason)
        live = self._live(order.ticker)
        if live is not None:
            self._cancel(live, order)
        self._feed.order(order)
        return left

    def _cancel(self, live: LiveMarket, order: OrderRecord) -> None:
        with live.caused_by(order.account.user_id, order.client_order_id):
            live.engine.cancel(order.order_id)

    def _cancel_for_group(self, account: Account, group_id: str) -> None:
        for order in [order for order in account.resting.values() if order.group_id == group_id]:
            self._take_out(order, "")

    def cancel(self, account: Account, order_id: str, shard: int) -> tuple[OrderRecord, int]:
        """Cancel an own order; returns it and what was open. Raises Refused with 404, or after the close."""
        order = self.resting(account, order_id, shard)
        return order, self._take_out(order, "")

    def cancel_all(self, account: Account) -> int:
        """Every resting order of an account. Returns how many there were."""
        self.check_open()
        gone = list(account.resting.values())
        for order in gone:
            self._take_out(order, "")
        return len(gone)

    def expire(self, order: OrderRecord) -> None:
        """Its time is over."""
        if order.status is Status.RESTING:
            self._take_out(order, "ExpiryCancel")

    def removed(self, gone: list[Order]) -> None:
        """Orders that the venue took out of a book: the close, or a market that trades again after a pause."""
        for order in gone:
            record = self.orders.get(order.order_id)
            if record is not None and record.status is Status.RESTING:
                self._end(record, "")
                self._feed.order(record)

    def trading_paused(self) -> None:
        """Orders that asked for it go when trading is paused."""
        for account in self._accounts:
            for order in [order for order in account.resting.values() if order.cancel_on_pause]:
                self._take_out(order, "")

    # ---- changes

    def decrease(self, account: Account, order_id: str, shard: int, new_size: Callable[[int], int]) -> OrderRecord:
        """Bring an order's rest down to `new_size(rest)`; 0 ends it. It keeps its place. Raises Refused."""
        order = self.resting(account, order_id, shard)
        size = new_size(order.remaining)
        if not 0 <= size <= order.remaining:
            raise refuse(400, "invalid_order_size", "an order can only become smaller")
        if size == 0:
            self._take_out(order, "Decrease")
            return order
        self._shrink(order, size, "Decrease")
        self._feed.order(order)
        return order

    def _shrink(self, order: OrderRecord, size: int, reason: str) -> None:
        if size < order.remaining:
            live = self.market(order.ticker)
            with live.caused_by(order.account.user_id, order.client_order_id):
                live.engine.reduce(order.order_id, size)
        order.remaining = size
        order.reason = reason
        order.updated_us = self.now_us()

    def amend(
        self,
        order: OrderRecord,
        price: int,
        total: int,
        *,
        expires_s: int | None,
        client_order_id: str,
    ) -> tuple[Outcome, bool]:
        """Change a resting order to a price and a total count (filled and wanted). Says whether its size changed.

        It keeps its place only at the same price with no more than it had. Raises Refused; then it is as it was.
        """
        live = self.market(order.ticker)
        self._check_trading()
        if not GRID.holds(price):
            raise refuse(400, "invalid_price")
        rest = total - order.filled
        if rest <= 0:
            raise refuse(400, "invalid_amend_qty_for_order", "count is the total, with what has been filled")
        account = order.account
        taken = account.client_ids.get(client_order_id) if client_order_id else None
        if taken is not None and taken != order.order_id:
            raise refuse(409, "order_already_exists", f"client_order_id is that of order {taken}")
        resized = rest != order.remaining
        outcome = Outcome(order)
        keeps_place = price == order.price and rest <= order.remaining
        if keeps_place:
            self._shrink(order, rest, "Amend")
        else:
            outcome = self._replace(live, order, price, rest)
        order.initial = total
        order.expires_s = expires_s
        if client_order_id:
            account.client_ids[client_order_id] = order.order_id
            order.client_order_id = client_order_id
        if order.status is Status.RESTING and expires_s is not None:
            self._watch_expiry(order)
        self._feed.order(order)
        return outcome, resized

    def _replace(self, live: LiveMarket, order: OrderRecord, price: int, rest: int) -> Outcome:
        account = order.account
        del account.resting[order.order_id]  # its own reserve must not count against it
        try:
            plan = plan_of(live, account, order.side, price, rest, order.self_trade, order.charged)
            rests = 0 if plan.stopped else rest - plan.tradable
            check_funds(account, order.ticker, order.side, price, plan, rests)
        except Refused:
            account.resting[order.order_id] = order
            raise
        self._cancel(live, order)
        order.price, order.remaining, order.reason, order.updated_us = price, rest, "Amend", self.now_us()
        outcome = self._run(live, order, plan, rest, TimeInForce.GTC)
        if plan.stopped and order.remaining and order.status is Status.RESTING:
            self._end(order, "SelfTradeCancel")
        return outcome

    # ---- settlement

    def settle(self, ticker: str, result: str) -> None:
        """Pay every position of a market out: a dollar for each contract of the result. A second time does nothing."""
        for account in self._accounts:
            position = account.settle(ticker, result, self._next(), self.now_us())
            if position is not None:
                self._feed.position(account, position)
