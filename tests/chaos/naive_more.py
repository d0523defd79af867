"""More naive variants: those of the failure modes that cost money soonest. Registered by `tests.chaos.naive`."""

from __future__ import annotations

import asyncio

import msgspec

from pmkit.bot.base import BaseBot
from pmkit.bot.ledger import MarketLedger
from pmkit.bot.life import Life
from pmkit.bot.own import OwnOrders
from pmkit.bot.windows import Window
from pmkit.data.binance.join import CandleJoin
from pmkit.errors import OrderRejected, OrderUnknown
from pmkit.exchanges.kalshi import sequence
from pmkit.exchanges.kalshi.journal import Journal as KalshiJournal
from pmkit.exchanges.polymarket.journal import Journal as PolymarketJournal
from pmkit.exchanges.polymarket.user_messages import OwnTrade
from pmkit.exchanges.types import Liquidity, OrderId, OrderState
from pmkit.websocket.link import Link
from pmkit.websocket.supervisor import Supervisor
from tests.chaos.naive import EXCHANGES, naive, replaced

# ---- orders


@naive("OE-04 RS-04", "said to be rejected")
def a_500_is_a_refusal():
    """Counts a 5xx on an order request as rejected."""

    def wrap(original):
        async def place(self, *args, **options):
            try:
                return await original(self, *args, **options)
            except OrderUnknown as error:
                if "with 50" in str(error) or " 50" in str(error):
                    raise OrderRejected("500", str(error)) from error
                raise

        return place

    with replaced(*((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES)):
        yield


@naive("RS-13", "own open orders", "that the venue does not have")
def a_refusal_with_200_is_accepted():
    """Returns an order id as if accepted, without looking at what the answer says."""

    def wrap(original):
        async def place(self, market, *args, client_order_id=None, **options):
            try:
                return await original(self, market, *args, client_order_id=client_order_id, **options)
            except OrderRejected:
                return OrderId(str(client_order_id), OrderState.LIVE)

        return place

    with replaced(*((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES)):
        yield


@naive("OE-17 OE-18", "own open orders")
def nothing_hit_still_rests():
    """An IOC or FOK order that filled nothing: the strategy has an id and waits for ever."""

    def wrap(original):
        async def place(self, *args, **options):
            placed = await original(self, *args, **options)
            if placed.status is OrderState.CANCELED:
                return OrderId(str(placed), OrderState.LIVE, placed.filled_amount)
            return placed

        return place

    # Nor does it listen to what the stream says of it.
    original = OwnOrders.note

    def note(self, status):
        if status.status is not OrderState.CANCELED:
            original(self, status)

    with replaced(
        *((kind, "place_limit_order", wrap(kind.place_limit_order)) for kind in EXCHANGES), (OwnOrders, "note", note)
    ):
        yield


@naive("OE-21", "said to be rejected", "forgotten", "own open orders")
def a_batch_is_all_or_nothing():
    """One leg was refused: the batch counts as refused."""

    def wrap(original):
        async def place(self, orders):
            results = await original(self, orders)
            if any(isinstance(result, OrderRejected) for result in results):
                return [OrderRejected("batch", "a leg was refused") for _ in results]
            return results

        return place

    with replaced(*((kind, "place_orders", wrap(kind.place_orders)) for kind in EXCHANGES)):
        yield


@naive("RO-04", "an order stands in a market that closes")
def orders_rest_through_the_close():
    """Orders resting in the closed market are forgotten: capital locked."""

    async def closing(self, window, market):
        return None

    with replaced((BaseBot, "_closing", closing)):
        yield


# ---- fills and account


@naive("UW-03", "never delivered", "forgotten", "own open orders")
def a_fill_before_the_answer_is_dropped():
    """Unknown order id: the fill is dropped, and never asked for again."""
    polymarket, kalshi = PolymarketJournal.on_leg, KalshiJournal.on_fill

    def on_leg(self, leg, *args):
        record = self.records.get(leg.order_id)
        fill = polymarket(self, leg, *args)
        return None if record is not None and record.result is None else fill

    def on_fill(self, row, *args):
        known = row.order_id in self.by_order
        fill = kalshi(self, row, *args)
        return fill if known else None

    with replaced((PolymarketJournal, "on_leg", on_leg), (KalshiJournal, "on_fill", on_fill)):
        yield


@naive("UW-07", "other numbers", "another price", "differ", "never were", "never delivered", venues=("polymarket",))
def the_takers_numbers_are_a_makers():
    """Takes the top-level side, price and size for a maker fill."""
    original = OwnTrade._leg

    def leg(self, order_id, token, outcome, side, price, size, maker):
        if maker:
            return original(self, order_id, token, outcome, self.side, self.price, self.size, maker)
        return original(self, order_id, token, outcome, side, price, size, maker)

    with replaced((OwnTrade, "_leg", leg)):
        yield


@naive("SE-08", "the profit of a market differs", "a market with another result")
def every_market_was_won():
    """Trade history shows every resolved market as won."""

    def settle(self, result):
        self.result = result
        self.pnl = self.cash + sum(size for size in self.shares.values() if size > 0)
        return self.pnl

    with replaced((MarketLedger, "settle", settle)):
        yield


@naive("OE-13 UW-05", "fees differ", "the profit of a market differs")
def makers_pay_what_takers_pay():
    """The fee of an order is taken from its type and not from who met whom."""
    original = MarketLedger._book

    def book(self, fill, sign):
        original(self, fill, sign)
        if fill.liquidity is Liquidity.MAKER:
            fee = self.market.fee(fill.price, fill.size)
            self.fees += sign * fee
            self.cash -= sign * fee

    with replaced((MarketLedger, "_book", book)):
        yield


# ---- books and streams


@naive("MD-09", "a valid book that the venue never had", venues=("kalshi",))
def a_delta_is_added_twice():
    """A frame that comes twice is applied twice."""
    original = sequence.Stream.check

    def check(self, seq, *, control=False):
        verdict = original(self, seq, control=control)
        return sequence.Verdict.NEXT if verdict is sequence.Verdict.OLD and not control else verdict

    with replaced((sequence.Stream, "check", check)):
        yield


@naive("MD-03 PL-13", "invalid book", "candles are late", "did not tell", "no current market", "was not accepted")
def a_lost_connection_is_the_end():
    """Treats a close as "finished" and stops."""
    original = Supervisor._life

    async def life(self):
        await original(self)
        await asyncio.Event().wait()

    with replaced((Supervisor, "_life", life)):
        yield


@naive("MD-14 PL-10", "memory grows")
def every_frame_is_kept():
    """A list that only ever grows."""
    original = Link._receive
    kept = Supervisor.__init__

    def init(self, *args, **options):
        kept(self, *args, **options)
        self.history = []

    def receive(self, messages):
        self._socket._supervisor.history.extend(messages)
        return original(self, messages)

    with replaced((Supervisor, "__init__", init), (Link, "_receive", receive)):
        yield


@naive("RO-07 PL-06", "tasks pile up", "memory grows")
def ticks_pile_up():
    """A tick that is slower than its interval: the next one runs beside it."""

    async def ticks(self):
        while not self._stop_event.is_set():
            self.spawn(self._tick(), "tick", critical=False)
            self.spawn(self.clock.sleep(600), "waiting", critical=False)
            self.stats.ticks += 1
            await self.clock.sleep(self.TICK_SECONDS)

    with replaced((Life, "_ticks", ticks)):
        yield


# ---- candles, markets


@naive("MD-25", "a candle with other numbers", candles="1m", venues=("polymarket",))
def an_open_candle_is_final():
    """Takes the last update before the next open."""
    original = CandleJoin.hear

    def hear(self, event, received_ns):
        if event.closed and self.forming is not None and self.forming.timestamp == event.candle.timestamp:
            event = msgspec.structs.replace(event, candle=self.forming)
        return original(self, event, received_ns)

    with replaced((CandleJoin, "hear", hear)):
        yield


@naive("RO-02 CK-01", "a tick on a closed market", "is over", "an order for a closed market")
def the_boundary_is_looked_at_now_and_then():
    """A loop that asks three times a minute whether the market is over; until then it trades on."""

    async def until(self, moment_ms):
        while self._now_ms() < moment_ms():
            await self._rest(20.0)

    with replaced((Window, "_until", until), (Window, "market", property(lambda self: self.current))):
        yield
