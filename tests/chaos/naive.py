"""Naive variants: what code written for the happy path does, patched into pmkit one at a time.

Each is the "Naive client" line of a failure mode. The suite must catch every one of them, or it proves nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from pmkit.bot.base import BaseBot
from pmkit.bot.own import OwnOrders
from pmkit.bot.windows import Window
from pmkit.data.binance.series import Series
from pmkit.errors import CancelUnknown, NotSent, OrderRejected, OrderUnknown, PmkitError
from pmkit.exchanges.kalshi import resolve as kalshi_resolve
from pmkit.exchanges.kalshi import sequence
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.journal import Journal as KalshiJournal
from pmkit.exchanges.kalshi.user_stream import UserStream
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket import order_lookup
from pmkit.exchanges.polymarket.account import Account as PolymarketAccount
from pmkit.exchanges.polymarket.account_stream import AccountStream
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.journal import Journal as PolymarketJournal
from pmkit.exchanges.types import Absent, CancelResult, FillState
from pmkit.streams import Subscription
from pmkit.websocket.link import Link
from tests.chaos.session import Outcome, Scenario
from tests.chaos.session import play as play_scenario
from tests.chaos.trader import Trader

EXCHANGES = (PolymarketExchange, KalshiExchange)


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """`modes`: the failure modes it belongs to; `expected`: words of the violations that catch it."""

    name: str
    modes: str
    expected: tuple[str, ...]
    patch: Callable
    venues: tuple[str, ...] = ("polymarket", "kalshi")
    candles: str = ""
    live: bool = True
    bot: type[Trader] = Trader


VARIANTS: dict[str, Variant] = {}


def naive(modes: str, *expected: str, **more):
    """Register a generator function that patches while it is suspended."""

    def register(function):
        VARIANTS[function.__name__] = Variant(function.__name__, modes, expected, contextmanager(function), **more)
        return function

    return register


def play(variant: Variant, seed: int) -> Outcome:
    """A random scenario that has what the variant is about."""
    scenario = dataclasses.replace(
        Scenario.of(seed, True),
        venues=variant.venues,
        candles=variant.candles,
        live=variant.live,
        proxied=True,
        every=10.0,
    )
    return play_scenario(scenario, variant=variant.name, patch=variant.patch, bot_class=variant.bot)


@contextmanager
def replaced(*triples):
    """`(owner, name, value)`: attributes replaced for a while."""
    with ExitStack() as stack:
        for owner, name, value in triples:
            stack.enter_context(patch.object(owner, name, value))
        yield


# ---- orders


@naive("OE-02 RS-04", "nobody placed", "more than once", "forgotten", "fills that never were", "own open orders")
def retry_after_a_timeout():
    """retry(2) around place_order."""

    def wrap(original):
        async def place(self, *args, **options):
            try:
                return await original(self, *args, **options)
            except OrderUnknown:
                return await original(self, *args, **{**options, "client_order_id": None})

        return place

    with replaced(*((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES)):
        yield


@naive("OE-01 OE-03 OE-04", "said to be rejected")
def unknown_is_rejected():
    """A timeout counts as a failure."""

    def wrap(original):
        async def place(self, *args, **options):
            try:
                return await original(self, *args, **options)
            except OrderUnknown as error:
                raise OrderRejected("timeout", str(error)) from error

        return place

    with replaced(*((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES)):
        yield


@naive("OE-03 RS-08", "said to be not sent", "said to be rejected")
def a_reset_is_not_sent():
    """Connection error: safe to retry."""

    def wrap(original):
        async def place(self, *args, **options):
            try:
                return await original(self, *args, **options)
            except OrderUnknown as error:
                raise NotSent(str(error)) from error

        return place

    with replaced(*((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES)):
        yield


@naive("OE-06", "forgotten", "own open orders")
def an_unanswered_cancel_has_worked():
    """No response to DELETE: assumed cancelled."""

    def wrap(original):
        async def cancel(self, order_id):
            try:
                return await original(self, order_id)
            except CancelUnknown:
                return CancelResult.CANCELED

        return cancel

    with replaced(*((kind, "cancel_order", wrap(kind.cancel_order)) for kind in EXCHANGES)):
        yield


@naive("OE-05", "forgotten", "own open orders")
def not_yet_is_done():
    """A cancel that the venue refused for now is read as: nothing to cancel."""

    def wrap(original):
        async def cancel(self, order_id):
            result = await original(self, order_id)
            return CancelResult.ALREADY_DONE if result is CancelResult.NOT_YET else result

        return cancel

    original = OwnOrders.replace_orders

    async def replace_orders(self, cancels, places):
        results = await original(self, cancels, places)
        for order_id in cancels:
            self.ended(order_id)
        return results

    with replaced(
        (PolymarketExchange, "cancel_order", wrap(PolymarketExchange.cancel_order)),
        (OwnOrders, "replace_orders", replace_orders),
    ):
        yield


@naive("OE-07", "nobody placed", "forgotten", "own open orders", "fills that never were")
def a_cancelled_caller_forgets():
    """CancelledError propagates; the order goes on and nobody knows."""
    with replaced(
        (PolymarketJournal, "unresolved", property(lambda self: ())),
        (KalshiJournal, "unresolved", property(lambda self: ())),
    ):
        yield


@naive("OE-08 OE-20", "said to be absent")
def not_found_is_absent():
    """One look that finds nothing proves that there is nothing."""

    async def resolve(self, intent):
        record = self._journal.records.get(getattr(intent, "order_id", None) or intent.client_order_id)
        if record is not None:
            record.unresolved = False
        return Absent(intent)

    with replaced((order_lookup.OrderLookup, "resolve", resolve), (kalshi_resolve.Resolver, "resolve", resolve)):
        yield


@naive("OE-17 UW-05", "forgotten", "own open orders")
def the_first_fill_is_the_last():
    """A first partial fill is read as: filled."""
    original = BaseBot._fill

    def fill(self, exchange, one):
        original(self, exchange, one)
        exchange.ended(one.order_id)

    with replaced((BaseBot, "_fill", fill)):
        yield


@naive("PL-03", "an orphan order")
def nobody_cancels_at_the_end():
    """Resting orders stay live after the bot is gone."""

    async def end(self):
        parts = [*self._windows.values(), *self.feeds, *self.exchanges.values()]
        await asyncio.gather(*(part.close() for part in parts))

    async def calm_cancel(self, market_id=None):
        return {}

    with replaced((BaseBot, "_end", end), (OwnOrders, "cancel_own", calm_cancel)):
        yield


class Asker(Trader):
    """Has something that rests, and asks for its open orders all the time."""

    async def _tick(self):
        await super()._tick()
        for key, market in self.markets.items() if self.busy else ():
            if market and not any(
                order.market_id == market.market_id for order in self.exchanges[key[0]].open.values()
            ):
                await self.rest(market)
            self.spawn(self.asked(key[0]), "asking", critical=False)

    async def asked(self, venue):
        try:
            await self.list_orders(venue)
        except PmkitError:
            self.said.failed_queries += 1


@naive("RS-04 RS-20", "a listing without", bot=Asker)
def a_failed_query_is_an_empty_account():
    """except Exception: return []."""

    def wrap(original):
        async def orders(self, market=None):
            try:
                return await original(self, market)
            except PmkitError:
                return []

        return orders

    with replaced(*((kind, "get_open_orders", wrap(kind.get_open_orders)) for kind in EXCHANGES)):
        yield


# ---- fills and account


@naive("UW-01", "never delivered", "own open orders", "forgotten", "differ")
def no_back_fill():
    """The stream does not replay, and nobody reads what it missed."""

    async def nothing(self):
        return 0

    with replaced((AccountStream, "back_fill", nothing), (UserStream, "back_fill", nothing)):
        yield


@naive("UW-02", "delivered twice")
def every_message_is_a_new_fill():
    """Calls the strategy each time."""
    polymarket, kalshi = PolymarketJournal.on_leg, KalshiJournal.on_fill

    def on_leg(self, leg, *args):
        self._state.pop((leg.trade_id, leg.order_id), None)
        return polymarket(self, leg, *args)

    def on_fill(self, row, *args):
        self.fills.clear()
        return kalshi(self, row, *args)

    original = Subscription.__init__
    numbers = itertools.count()

    def init(self, *args, **options):
        original(self, *args, **{**options, "key": lambda event: next(numbers)})

    with replaced(
        (PolymarketJournal, "on_leg", on_leg), (KalshiJournal, "on_fill", on_fill), (Subscription, "__init__", init)
    ):
        yield


@naive("UW-04", "the last state of a fill", "never delivered", "fees differ", venues=("polymarket",))
def matched_is_final():
    """Counts shares it does not own: a trade that failed is not taken back."""
    original = PolymarketJournal.on_leg

    def on_leg(self, leg, *args):
        return None if leg.state is FillState.FAILED else original(self, leg, *args)

    with replaced((PolymarketJournal, "on_leg", on_leg)):
        yield


@naive("UW-09", "came back to life")
def states_go_backwards():
    """A late event brings an order back to life."""
    from pmkit.exchanges.kalshi import journal as kalshi
    from pmkit.exchanges.polymarket import journal as polymarket

    def forward(old, new):
        return None if old == new else new

    with replaced((kalshi, "_forward", forward), (polymarket, "forward", forward)):
        yield


@naive("RS-20 SE-06", "positions differ", venues=("polymarket",))
def positions_are_what_the_data_api_says():
    """Read after write: a position is believed that is minutes old."""

    from pmkit.exchanges.polymarket import account

    async def positions(self):
        rows = await account.position_rows(self._data, (await self._login.ready()).maker)
        return [account._position(row, self._catalogue.now_ms()) for row in rows]

    with replaced((PolymarketAccount, "positions", positions)):
        yield


@naive("OE-13", "the balance differs", venues=("kalshi",))
def the_balance_is_what_was_paid_in():
    """The first balance is believed for ever."""
    original = KalshiExchange.get_balance

    async def get_balance(self, market=None):
        if not hasattr(self, "_first_balance"):
            object.__setattr__(self, "_first_balance", await original(self, market))
        return self._first_balance

    bot_start = Trader._on_start

    async def on_start(self):
        await bot_start(self)
        for exchange in self.exchanges.values():
            await exchange.get_balance()

    with replaced((KalshiExchange, "get_balance", get_balance), (Trader, "_on_start", on_start)):
        yield


# ---- books


@naive("MD-11 MD-02", "a valid book that the venue never had")
def the_last_book_is_served_while_disconnected():
    """Continue with in-memory state."""
    with replaced((OrderBook, "expire", lambda self, reason: None)):
        yield


@naive("MD-01", "a valid book that the venue never had", "invalid book")
def no_data_deadline():
    """Waits in recv() for ever."""

    async def watch(self, deadline):
        await asyncio.Event().wait()

    with replaced((Link, "_watch", watch)):
        yield


@naive("MD-05 RO-05", "invalid book", "no current market", "did not start")
def subscribed_once():
    """Nobody re-sends the subscribe message on a new connection."""
    original = Link._difference
    seen: set[int] = set()

    def difference(self):
        frames = original(self)
        if not frames:
            return frames
        key = id(self._socket)
        if key in seen and self._first_link is False:
            return []
        seen.add(key)
        return frames

    begun = Link.__init__
    sockets: dict[int, int] = {}

    def init(self, connection, clock, settings, socket, *args, **options):
        begun(self, connection, clock, settings, socket, *args, **options)
        sockets[id(socket)] = sockets.get(id(socket), 0) + 1
        self._first_link = sockets[id(socket)] == 1

    with replaced((Link, "_difference", difference), (Link, "__init__", init)):
        yield


@naive("MD-07 MD-10", "a valid book that the venue never had", venues=("kalshi",))
def gaps_are_ignored():
    """Applies the delta anyway."""
    original = sequence.Stream.check

    def check(self, seq, *, control=False):
        verdict = original(self, seq, control=control)
        return sequence.Verdict.NEXT if verdict is sequence.Verdict.GAP else verdict

    with replaced((sequence.Stream, "check", check)):
        yield


@naive("MD-12", "a valid book that the venue never had", "crossed")
def snapshots_are_merged():
    """Treats a snapshot as a list of updates: ghost levels."""
    original = OrderBook.snapshot

    def snapshot(self, bids, asks, venue_ms, received_ns):
        old_bids, old_asks = dict(self.bid_units), dict(self.ask_units)
        new_bids = {**old_bids, **dict(bids.items() if hasattr(bids, "items") else bids)}
        new_asks = {**old_asks, **dict(asks.items() if hasattr(asks, "items") else asks)}
        return original(self, new_bids, new_asks, venue_ms, received_ns)

    with replaced((OrderBook, "snapshot", snapshot)):
        yield


# ---- candles


@naive("MD-24 MD-26", "a candle is missing", "candles are late", candles="1s", venues=("polymarket",))
def holes_are_not_filled():
    """A candle or two is lost at every reconnect."""

    async def read(self, missing):
        if missing.warm_up:
            return await original(self, missing)
        return []

    original = Series._read
    with replaced((Series, "_read", read)):
        yield


@naive("MD-26 ST-06", "a candle is missing or twice", candles="1s", venues=("polymarket",))
def live_candles_are_appended_as_they_come():
    """Concatenates what comes, without looking at what came before."""
    from pmkit.data.binance.buffer import CandleBuffer

    original = CandleBuffer.append

    def append(self, candle):
        if candle.timestamp % 7_000 == 0:
            return None
        return original(self, candle)

    with replaced((CandleBuffer, "append", append)):
        yield


# ---- markets and the bot


@naive("RO-01", "the next book was not ready")
def the_next_market_is_looked_for_at_the_boundary():
    """No prefetch."""

    async def prefetch(self, market):
        while not await self._subscribe(market) and self._now_ms() < market.close_ms - 3000:
            await self._pause(0)

    with replaced((Window, "_prefetch", prefetch)):
        yield


@naive("RO-02 DI-01", "is over", "has not begun", "no current market", "invalid book")
def the_market_is_looked_up_once():
    """Caches the current market for ever."""

    async def run(self):
        await asyncio.Event().wait()

    with replaced((Window, "run", run)):
        yield


@naive("PL-05", "no current market", "is over", "the bot ended by itself", "the bot failed", "failed")
def a_task_dies_unnoticed():
    """create_task and forget."""

    async def finish(self, market):
        raise RuntimeError("unexpected")

    def spawn(self, coro, name="task", critical=True):
        task = asyncio.ensure_future(coro)
        self._tasks[task] = None
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    with replaced((Window, "_finish", finish), (BaseBot, "spawn", spawn)):
        yield


@naive("OE-23", "a dry-run sent an order", live=False)
def dry_run_is_an_if():
    """One code path forgets the mode check: a dry-run that has a session which can send."""
    from pmkit.exchanges.paper.exchange import PaperExchange
    from pmkit.http import HttpSession

    original = PaperExchange.place_limit_order

    async def place(self, market, *args, **options):
        endpoints = self.data.endpoints
        base = endpoints.polymarket.clob if self.venue == "polymarket" else endpoints.kalshi.rest
        path = "/order" if self.venue == "polymarket" else "/portfolio/events/orders"
        session = HttpSession(base, self.clock)
        try:
            await session.request("POST", path, body=b"{}")
        except PmkitError:
            pass
        finally:
            await session.close()
        return await original(self, market, *args, **options)

    with replaced((PaperExchange, "place_limit_order", place)):
        yield


@naive("PL-09", "the exit took too long")
def the_end_waits_for_everybody():
    """await ws.close() for ever."""

    async def bounded(self, what, step, seconds, **_):
        await self.clock.io_sleep(6.0)
        await step

    with replaced((BaseBot, "_bounded", bounded)):
        yield


@naive("SX-01 SX-03", "a secret in")
def the_key_is_in_the_message():
    """f"bad key {key}"."""
    import logging

    from pmkit.logging.redact import Redactor

    original = PolymarketExchange.__init__

    def init(self, *args, private_key, **options):
        original(self, *args, private_key=private_key, **options)
        logging.getLogger("pmkit.polymarket").warning("using the key %s", private_key.reveal())

    with replaced((PolymarketExchange, "__init__", init), (Redactor, "__call__", lambda self, text: text)):
        yield


@naive("ST-04", "torn", "bad row")
def rows_are_cut():
    """The last row is cut by whatever ended the process."""
    from pmkit.logging.csv_logger import TradeLog

    original = TradeLog.close

    def close(self, *args, **options):
        original(self, *args, **options)
        if self.path is not None:
            raw = self.path.read_bytes()
            self.path.write_bytes(raw[:-7])

    with replaced((TradeLog, "close", close)):
        yield


@naive("PL-11 MD-15", "ticks, hooks or tasks failed", "the bot ended", "the bot failed", "an unexpected error")
def callbacks_raise():
    """A strategy that raises is seen, not swallowed."""
    original = Trader._tick

    async def tick(self):
        await original(self)
        if self.stats.ticks % 50 == 49:
            raise KeyError("strategy")

    with replaced((Trader, "_tick", tick)):
        yield


from tests.chaos import naive_more  # noqa: E402,F401  # registers its own; it needs what is above
