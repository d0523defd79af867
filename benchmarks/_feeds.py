"""The contenders of the feed benchmark without their sockets: frame -> decode -> book -> callback.

Every feed takes the text frames of a `Traffic` in `apply` and calls `Probe.quote(key, bid, ask, venue_ms)` (pmkit:
`Probe.book`) for every book that a frame changed, once the whole frame is applied: the best prices in its own kind of
number, and the venue's stamp as an int, without which nobody can tell how old they are. Each keeps one book per
Polymarket token and one market on Kalshi, whose NO book follows from it; pmkit alone checks sequence, touch, stamps and
crosses, and says of each outcome's book whether it is valid.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from benchmarks._ccxt import book_class
from benchmarks.traffic import Traffic
from pmkit.clock import Clock, SystemClock
from pmkit.exchanges.kalshi.book_feed import BookFeed as KalshiFeed
from pmkit.exchanges.kalshi.messages import decode_frame as kalshi_frame
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.book_feed import BookFeed as PolymarketFeed
from pmkit.exchanges.polymarket.live_book import listen
from pmkit.exchanges.polymarket.messages import PRICE_CHANGE_END, decode_price_change
from pmkit.exchanges.polymarket.messages import decode_frame as polymarket_frame
from pmkit.streams import Policy, Subscription

Touch = tuple[str, int, int, int]
"""Token, best bid and best ask in 0.0001 dollars (-1: nobody), the venue's stamp in ms."""

ONE = Decimal(1)
KALSHI_UNIT = 10


class Probe:
    """The user's callback. Counts down from `target` and notes CPU and wall time when it is reached."""

    def __init__(self, target: int) -> None:
        self.left = target
        self.cpu_ns = self.wall_ns = 0
        self.done: Callable[[], object] | None = None

    def start(self) -> None:
        self._cpu, self._wall = time.process_time_ns(), time.perf_counter_ns()

    def finish(self) -> None:
        self.cpu_ns, self.wall_ns = time.process_time_ns() - self._cpu, time.perf_counter_ns() - self._wall
        if self.done is not None:
            self.done()

    def quote(self, key: str, bid: Any, ask: Any, venue_ms: int) -> None:
        self.left -= 1
        if not self.left:
            self.finish()

    def book(self, book: OrderBook) -> None:
        """What pmkit calls: a user reads the same four things from the book that the others hand to `quote`."""
        _key, _bid, _ask, _venue_ms = book.token_id, book.best_bid, book.best_ask, book.venue_ms
        self.left -= 1
        if not self.left:
            self.finish()


class Recorder(Probe):
    """Keeps every touch it is told, in units of 0.0001 dollars, -1 for an empty side, and its stamp. Not timed."""

    def __init__(self, target: int = -1) -> None:
        super().__init__(target)
        self.touches: list[Touch] = []

    def quote(self, key: str, bid: Any, ask: Any, venue_ms: int) -> None:
        if self.left:
            self.touches.append((key, _units(bid), _units(ask), venue_ms))
            super().quote(key, bid, ask, venue_ms)

    def book(self, book: OrderBook) -> None:
        # A book that is not valid is no answer: its touch must not agree with anything.
        key = book.token_id if book.valid else f"{book.token_id} invalid: {book.reason}"
        self.quote(key, book.best_bid, book.best_ask, book.venue_ms)


def _units(price: Any) -> int:
    return -1 if price is None else round(float(price) * 10_000)


# -- pmkit ----------------------------------------------------------------------------------------------------------


def subscription(probe: Probe, clock: Clock) -> Subscription[OrderBook]:
    """What stands between a feed and the callback of a user."""
    return Subscription("books", clock, callback=probe.book, policy=Policy.CONFLATE)


def follow_polymarket(feed: PolymarketFeed, traffic: Traffic, sink: Callable[[OrderBook], object]) -> None:
    for token in traffic.books:
        feed.add(token, "market", "UP")
    listen(feed.books.values(), sink)


def follow_kalshi(feed: KalshiFeed, traffic: Traffic, sink: Callable[[OrderBook], object]) -> None:
    for ticker in traffic.books:
        feed.watch(ticker, KALSHI_UNIT).listeners.append(sink)


class Pmkit:
    """BookFeed of the venue, and a Subscription with an inline callback as `subscribe_orderbook` makes it. The clock is
    read for every frame, as the socket does."""

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        sink = subscription(probe, SystemClock()).publish_all
        if traffic.venue == "polymarket":
            polymarket = PolymarketFeed()
            polymarket.connected(1)
            follow_polymarket(polymarket, traffic, sink)
            self._apply = polymarket.apply
        else:
            kalshi = KalshiFeed()
            kalshi.begin(1)
            follow_kalshi(kalshi, traffic, sink)
            self._apply = kalshi.receive  # what the socket calls

    def run(self, frames: list[bytes]) -> None:
        apply, time_ns = self._apply, time.time_ns
        for frame in frames:
            apply(frame, time_ns())


class DecodeOnly:
    """A floor: pmkit's decoder and nothing else. Calls nobody."""

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        self._polymarket = traffic.venue == "polymarket"

    def run(self, frames: list[bytes]) -> None:
        if not self._polymarket:
            for frame in frames:
                kalshi_frame(frame)
            return
        for frame in frames:
            if frame.endswith(PRICE_CHANGE_END):
                decode_price_change(frame)
            else:
                polymarket_frame(frame)


# -- json, Decimal and dicts ----------------------------------------------------------------------------------------


class _Feed:
    """One frame at a time, for loops and sockets alike."""

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        self.quote = probe.quote
        self.apply: Callable[[Any], None] = self.polymarket if traffic.venue == "polymarket" else self.kalshi

    def run(self, frames: list[bytes]) -> None:
        apply = self.apply
        for frame in frames:
            apply(frame)

    def polymarket(self, frame: Any) -> None:
        raise NotImplementedError

    def kalshi(self, frame: Any) -> None:
        raise NotImplementedError


class Naive(_Feed):
    """What one writes first. On Kalshi it keeps two dicts of bids and derives the asks."""

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        super().__init__(traffic, probe)
        self.books: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
        self.keys = {ticker: (f"{ticker}:YES", f"{ticker}:NO") for ticker in traffic.books}

    def polymarket(self, frame: bytes | str) -> None:
        events = json.loads(frame)
        for event in events if isinstance(events, list) else [events]:
            kind = event["event_type"]
            if kind == "price_change":
                touched = {}
                for change in event["price_changes"]:
                    token = change["asset_id"]
                    book = touched[token] = self.books[token]
                    levels = book[0] if change["side"] == "BUY" else book[1]
                    price, size = Decimal(change["price"]), Decimal(change["size"])
                    if size:
                        levels[price] = size
                    else:
                        levels.pop(price, None)
                stamp = int(event["timestamp"])
                for token, (bids, asks) in touched.items():
                    self.quote(token, max(bids, default=None), min(asks, default=None), stamp)
            elif kind == "book":
                bids = {Decimal(level["price"]): Decimal(level["size"]) for level in event["bids"]}
                asks = {Decimal(level["price"]): Decimal(level["size"]) for level in event["asks"]}
                self.books[event["asset_id"]] = (bids, asks)
                stamp = int(event["timestamp"])
                self.quote(event["asset_id"], max(bids, default=None), min(asks, default=None), stamp)

    def kalshi(self, frame: bytes | str) -> None:
        event = json.loads(frame)
        kind = event["type"]
        if kind == "orderbook_delta":
            message = event["msg"]
            ticker = message["market_ticker"]
            yes, no = self.books[ticker]
            levels = yes if message["side"] == "yes" else no
            price = Decimal(message["price_dollars"])
            size = levels.get(price, 0) + Decimal(message["delta_fp"])
            if size:
                levels[price] = size
            else:
                levels.pop(price, None)
            stamp = message["ts_ms"]
        elif kind == "orderbook_snapshot":
            message = event["msg"]
            ticker = message["market_ticker"]
            stamp = event.get("sending_ts_ms", 0)
            yes = {Decimal(price): Decimal(size) for price, size in message.get("yes_dollars_fp") or ()}
            no = {Decimal(price): Decimal(size) for price, size in message.get("no_dollars_fp") or ()}
            self.books[ticker] = (yes, no)
        else:
            return
        yes_bid, no_bid = max(yes, default=None), max(no, default=None)
        first, second = self.keys[ticker]
        self.quote(first, yes_bid, None if no_bid is None else ONE - no_bid, stamp)
        self.quote(second, no_bid, None if yes_bid is None else ONE - yes_bid, stamp)


# -- orjson and ccxt's book -----------------------------------------------------------------------------------------


class CcxtBook(_Feed):
    """orjson, floats and ccxt's OrderBook. Sides hold [price, size], best first; on Kalshi asks are 1 - NO bids.

    Stamped as ccxt's feeds do it, but without `datetime`, a text that costs more than all the rest: that one is in the
    row of ccxt pro.
    """

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        import orjson

        super().__init__(traffic, probe)
        self.loads = orjson.loads
        self.make = book_class()
        self.books: dict[str, Any] = {}
        self.sizes: dict[str, dict[tuple[str, float], float]] = {}
        self.keys = {ticker: (f"{ticker}:YES", f"{ticker}:NO") for ticker in traffic.books}

    def polymarket(self, frame: bytes | str) -> None:
        self.polymarket_events(self.loads(frame))

    def polymarket_events(self, events: Any) -> None:
        for event in events if isinstance(events, list) else [events]:
            kind = event["event_type"]
            if kind == "price_change":
                touched = {}
                for change in event["price_changes"]:
                    token = change["asset_id"]
                    book = touched[token] = self.books[token]
                    side = book["bids"] if change["side"] == "BUY" else book["asks"]
                    side.storeArray([float(change["price"]), float(change["size"])])
                stamp = int(event["timestamp"])
                for token, book in touched.items():
                    book["timestamp"] = stamp
                    self.tell(token, book)
            elif kind == "book":
                book = self.books.setdefault(event["asset_id"], self.make())
                book.reset({
                    "bids": [[float(level["price"]), float(level["size"])] for level in event["bids"]],
                    "asks": [[float(level["price"]), float(level["size"])] for level in event["asks"]],
                })  # fmt: skip
                book["timestamp"] = int(event["timestamp"])
                self.tell(event["asset_id"], book)

    def tell(self, token: str, book: Any) -> None:
        bids, asks = book["bids"], book["asks"]
        self.quote(token, bids[0][0] if bids else None, asks[0][0] if asks else None, book["timestamp"])

    def kalshi(self, frame: bytes | str) -> None:
        self.kalshi_event(self.loads(frame))

    def kalshi_event(self, event: Any) -> None:
        kind = event["type"]
        if kind == "orderbook_delta":
            message = event["msg"]
            ticker = message["market_ticker"]
            sizes, book = self.sizes[ticker], self.books[ticker]
            level = (message["side"], float(message["price_dollars"]))
            # The book takes sizes, not changes; without rounding a level of 1e-14 contracts would stay.
            size = sizes[level] = round(sizes.get(level, 0.0) + float(message["delta_fp"]), 2)
            if level[0] == "yes":
                book["bids"].storeArray([level[1], size])
            else:
                book["asks"].storeArray([round(1 - level[1], 4), size])
            book["timestamp"] = message["ts_ms"]
        elif kind == "orderbook_snapshot":
            message = event["msg"]
            ticker = message["market_ticker"]
            yes = [[float(price), float(size)] for price, size in message.get("yes_dollars_fp") or ()]
            no = [[float(price), float(size)] for price, size in message.get("no_dollars_fp") or ()]
            self.sizes[ticker] = {("yes", price): size for price, size in yes}
            self.sizes[ticker] |= {("no", price): size for price, size in no}
            book = self.books.setdefault(ticker, self.make())
            book.reset({"bids": yes, "asks": [[round(1 - price, 4), size] for price, size in no]})
            book["timestamp"] = event.get("sending_ts_ms", 0)
        else:
            return
        self.tell_both(ticker, book)

    def tell_both(self, ticker: str, book: Any) -> None:
        bids, asks = book["bids"], book["asks"]
        bid, ask = bids[0][0] if bids else None, asks[0][0] if asks else None
        first, second = self.keys[ticker]
        stamp = book["timestamp"]
        self.quote(first, bid, ask, stamp)
        self.quote(second, None if ask is None else 1 - ask, None if bid is None else 1 - bid, stamp)


# -- nautilus_trader's parts ----------------------------------------------------------------------------------------


class Nautilus(_Feed):
    """What `PolymarketDataClient` of its adapter does from a frame until its local book is changed: its structs, an
    instrument id per change, the clock, order, delta, deltas, its Rust book; a new book for every snapshot.

    What comes then is left out: message bus, data engine (which applies the deltas to a second book), quotes. It has no
    Kalshi adapter.
    """

    def __init__(self, traffic: Traffic, probe: Probe) -> None:
        import msgspec
        from nautilus_trader.adapters.polymarket.common.enums import PolymarketOrderSide
        from nautilus_trader.adapters.polymarket.common.symbol import get_polymarket_instrument_id
        from nautilus_trader.adapters.polymarket.schemas import book as schemas
        from nautilus_trader.common.component import LiveClock
        from nautilus_trader.core.datetime import millis_to_nanos
        from nautilus_trader.model import book, data, enums, instruments, objects
        from nautilus_trader.model.currencies import USDC

        super().__init__(traffic, probe)
        self.schemas, self.data, self.enums, self.failure = schemas, data, enums, msgspec.ValidationError
        self.buy = PolymarketOrderSide.BUY
        kinds = schemas.PolymarketBookSnapshot | schemas.PolymarketQuotes | schemas.PolymarketTrade
        self.decode = msgspec.json.Decoder(kinds | list[kinds]).decode
        self.name_of, self.clock, self.nanos = get_polymarket_instrument_id, LiveClock(), millis_to_nanos
        self.make: Callable[[Any], Any] = lambda name: book.OrderBook(name, enums.BookType.L2_MBP)
        self.objects = objects
        self.currency = USDC
        self.instrument = instruments.BinaryOption
        self.cache: dict[Any, Any] = {}
        self.books: dict[Any, Any] = {}

    def known(self, market: str, token: str) -> Any:
        """The instrument, from what stands for its cache; made when it is first named."""
        name = self.name_of(market, token)
        found = self.cache.get(name)
        if found is None:
            price, quantity = self.objects.Price, self.objects.Quantity
            found = self.cache[name] = self.instrument(
                instrument_id=name, raw_symbol=name.symbol, asset_class=self.enums.AssetClass.ALTERNATIVE,
                currency=self.currency, price_precision=3, price_increment=price.from_str("0.001"), size_precision=6,
                size_increment=quantity.from_str("0.000001"), activation_ns=0, expiration_ns=0, ts_event=0, ts_init=0,
            )  # fmt: skip
            self.books[name] = self.make(name)
        return found

    def polymarket(self, frame: bytes) -> None:
        try:
            events = self.decode(frame)
        except self.failure:
            return  # best_bid_ask and new_market are not among its types
        for event in events if isinstance(events, list) else [events]:
            if isinstance(event, self.schemas.PolymarketQuotes):
                self.changes(event)
            elif isinstance(event, self.schemas.PolymarketBookSnapshot):
                instrument = self.known(event.market, event.asset_id)
                deltas = event.parse_to_snapshot(instrument, self.clock.timestamp_ns())
                book = self.books[instrument.id] = self.make(instrument.id)
                if deltas is not None:  # it makes nothing of a book without levels
                    book.apply_deltas(deltas)
                self.quote(event.asset_id, book.best_bid_price(), book.best_ask_price(), int(event.timestamp))

    def changes(self, event: Any) -> None:
        data, enums = self.data, self.enums
        touched = {}
        for change in event.price_changes:
            instrument = self.known(event.market, change.asset_id)
            now_ns = self.clock.timestamp_ns()
            order = data.BookOrder(
                side=enums.OrderSide.BUY if change.side == self.buy else enums.OrderSide.SELL,
                price=instrument.make_price(float(change.price)),
                size=instrument.make_qty(float(change.size)),
                order_id=0,
            )
            delta = data.OrderBookDelta(
                instrument_id=instrument.id,
                action=enums.BookAction.UPDATE if order.size > 0 else enums.BookAction.DELETE,
                order=order,
                flags=enums.RecordFlag.F_LAST,
                sequence=0,
                ts_event=self.nanos(float(event.timestamp)),
                ts_init=now_ns,
            )
            book = touched[change.asset_id] = self.books[instrument.id]
            book.apply(data.OrderBookDeltas(instrument.id, [delta]))
        stamp = int(event.timestamp)
        for token, book in touched.items():
            self.quote(token, book.best_bid_price(), book.best_ask_price(), stamp)
