"""Recorded frames of Polymarket's market channel, with the REST books between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial

from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.live_book import listen
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.orderbook_ws import BookFeed, MarketSocket
from pmkit.replay.line import Line, Seen, clock_of, play
from pmkit.sim.replay.recording import Read, Recording
from pmkit.sim.replay.venues import PolymarketReplay
from pmkit.venue_clock import VenueClock

Tell = Callable[[str], object]


class RestRead:
    """A book that was read over REST. `equal`: None before it was compared, False once it differed."""

    def __init__(self, book: OrderBook) -> None:
        self.book = book
        self.equal: bool | None = None


async def replay_polymarket(
    recording: Recording, names: Mapping[str, tuple[str, str]], speed: float | None, tell: Tell
) -> Counter[str]:
    """Every frame through `MarketSocket`; every recorded REST book is read over REST when it is its turn.

    A REST book and the socket's book of an asset are compared where both have the same stamp: it is that of the last
    change, so they must be equal. Others are of moments at which the recorder was not listening.
    """
    totals: Counter[str] = Counter()
    clock = clock_of(recording, speed)
    read: dict[str, RestRead] = {}

    async with PolymarketReplay(recording, clock, speed) as replay:
        data = PolymarketMarketData(replay.endpoints, clock)
        socket = MarketSocket(
            replay.endpoints.polymarket.market_ws,
            clock,
            VenueClock(clock),  # never measured: how old the messages are says nothing here
            name="polymarket market",
            read_books=data.catalogue.books,
            # Nothing comes for an asset before the recording has it.
            is_over=lambda token: not feed.books[token].heard,
            # The recorder was silent for minutes, which says nothing about the venue.
            deadline=None,
        )
        feed = socket.feed

        def compare(token: str) -> None:
            other, live = read.get(token), feed.books[token]
            if other is None or not live.live or other.book.venue_ms != live.book.venue_ms:
                return
            if other.equal is None:
                totals["rest_books_compared"] += 1
                other.equal = True
            if other.equal and not same_book(live.book, other.book):
                totals["rest_books_different"] += 1
                other.equal = False

        async def on_read(row: Read) -> None:
            await line.caught_up()
            totals["rest_books"] += 1
            answer = await data.catalogue.book(row.key)
            reader = BookFeed()
            read[row.key] = RestRead(reader.add(row.key, answer.market, ""))
            if not reader.merge(answer, clock.time_ns()):
                totals["unparsed"] += 1
                del read[row.key]
            compare(row.key)

        async def count_crossed() -> None:
            await line.caught_up()
            totals["crossed"] += sum(live.book.crossed_since_ns != 0 for live in feed.books.values())

        seen: dict[str, Seen] = {}
        for market, ticks in recording.markets.items():
            for token, tick in ticks.items():
                slug, outcome = names.get(token, (f"{market[:12]}...", f"{token[:8]}..."))
                feed.add(token, market, outcome.upper(), int(Decimal(tick or "0.01") * 10_000))
                seen[token] = Seen(f"{slug} {outcome.upper()}", partial(compare, token))
                listen([feed.books[token]], partial(_look, seen[token]))
        line = Line(replay, socket, socket.stats, clock)
        replay.on_read, replay.on_end = on_read, count_crossed
        try:
            await play(line, socket, list(feed.books), count_crossed)
            for token, watch in seen.items():
                tell(watch.line(feed.books[token].book))
        finally:
            await socket.close()
            await data.close()
    totals.update(
        applied=feed.applied,
        unparsed=max(feed.unparsed + feed.garbage, socket.stats.garbage),
        unknown=sum(feed.unknown.values()),
        ignored=feed.ignored,
        strangers=feed.strangers,
        late=feed.late,
        lost_books=feed.lost,
        best_checks=feed.best_checks,
        best_failures=feed.best_failures,
        crossings=feed.crossed,
    )
    return totals + line.totals()


def _look(seen: Seen, books: Sequence[OrderBook]) -> None:
    seen.look(books[0])


def same_book(one: OrderBook, other: OrderBook) -> bool:
    """Whether both have the same levels."""
    return all(one.levels(side) == other.levels(side) for side in ("BID", "ASK"))
