"""Which assets are followed, by how many, and on which connection.

A socket takes at most 200 assets; the next one begins with the 201st. Interest is counted, so that closing one
subscription leaves the others' books alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pmkit.clock import Clock
from pmkit.errors import VenueUnavailable
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.polymarket.live_book import LiveBook, Sink, listen, unlisten
from pmkit.exchanges.polymarket.orderbook_ws import MarketSocket
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.websocket.deadlines import FIRST_SNAPSHOT

SUBSCRIBE_SECONDS: Final = 2 * FIRST_SNAPSHOT + 2.0
"""Wall seconds until a subscription without a first snapshot is given up: room for one reconnect."""


class Subscriptions:
    """The market sockets of one `PolymarketMarketData`. `make_socket(name)` makes one; it is started here."""

    def __init__(self, clock: Clock, make_socket: Callable[[str], MarketSocket]) -> None:
        self.sockets: list[MarketSocket] = []
        self._clock = clock
        self._make_socket = make_socket
        self._refs: Counter[str] = Counter()
        self._socket_of: dict[str, MarketSocket] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._lock = asyncio.Lock()
        self._made = 0
        self._closed = False

    def live(self, token_id: str) -> LiveBook | None:
        """The live book of an asset; None where nobody follows it."""
        socket = self._socket_of.get(token_id)
        return None if socket is None else socket.feed.books.get(token_id)

    async def acquire(self, markets: Iterable[PolymarketMarket], sink: Sink | None = None) -> None:
        """One more interest in all outcomes of these markets. Returns when their books are there.

        `sink` is called with the books of each message until `release`. Raises VenueUnavailable, with nothing acquired,
        where a first snapshot does not come.
        """
        markets = list(markets)
        tokens = [token for market in markets for token in market.token_ids]
        if self._closed:
            raise VenueUnavailable("this PolymarketMarketData is closed")
        fresh: dict[MarketSocket, list[str]] = {}
        for market in markets:
            for token, outcome in zip(market.token_ids, market.outcomes, strict=True):
                self._refs[token] += 1
                if token not in self._socket_of:
                    socket = self._with_room(fresh)
                    fresh.setdefault(socket, []).append(token)
                    self._socket_of[token] = socket
                    socket.feed.add(token, market.market_id, outcome, market.grid.unit)
            if sink is not None:
                listen(self._lives(market.token_ids), sink)
        try:
            if fresh:
                async with self._lock:  # what is being unsubscribed is sent first
                    for socket, added in fresh.items():
                        await socket.start()
                        await socket.want(token for token in added if self._socket_of.get(token) is socket)
            await self._first_books(tokens)
        except BaseException:
            await self.release(markets, sink)
            raise
        if sink is not None:
            new = {token for added in fresh.values() for token in added}
            for token in tokens:
                live = self.live(token)
                if live is not None and token not in new:
                    sink((live.book,))  # it was there before: the subscriber has seen nothing of it yet

    async def release(self, markets: Iterable[PolymarketMarket], sink: Sink | None = None) -> None:
        """One interest less; an asset that nobody follows any more is unsubscribed and its book becomes invalid."""
        gone: dict[MarketSocket, list[str]] = {}
        for market in markets:
            if sink is not None:
                unlisten(self._lives(market.token_ids), sink)
            for token in market.token_ids:
                self._refs[token] -= 1
                if self._refs[token] <= 0:
                    del self._refs[token]
                    socket = self._socket_of.pop(token, None)
                    if socket is not None:
                        gone.setdefault(socket, []).append(token)
        for socket, tokens in gone.items():
            socket.forget(tokens)
        if self._closed:
            return
        async with self._lock:
            for socket, tokens in gone.items():
                await socket.unwant(token for token in tokens if self._socket_of.get(token) is not socket)
                if not socket.wanted and len(self.sockets) > 1 and socket in self.sockets:
                    self.sockets.remove(socket)
                    await socket.close()

    def _with_room(self, fresh: dict[MarketSocket, list[str]]) -> MarketSocket:
        for socket in self.sockets:
            if socket.room - len(fresh.get(socket, ())) > 0:
                return socket
        self._made += 1
        socket = self._make_socket(f"polymarket market {self._made}")
        self.sockets.append(socket)
        return socket

    def _lives(self, tokens: Sequence[str]) -> list[LiveBook]:
        return [live for token in tokens if (live := self.live(token)) is not None]

    async def _first_books(self, tokens: list[str]) -> None:
        """Wait until all of these have a book on their current connection."""
        missing = {token for token in tokens if not self._is_live(token)}
        if not missing:
            return
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(books: Sequence[OrderBook]) -> None:
            missing.difference_update(book.token_id for book in books if self._is_live(book.token_id))
            if not missing and not there.done():
                there.set_result(None)

        watched = list(missing)
        listen(self._lives(watched), look)
        self._waiting.add(there)
        try:
            async with self._clock.io_timeout(SUBSCRIBE_SECONDS):
                await there
        except TimeoutError:
            socket = self._socket_of.get(next(iter(missing)))
            why = (socket.stats.blocked or socket.stats.last_reason if socket is not None else "") or "no answer"
            host = socket.host if socket is not None else "the market channel"
            raise VenueUnavailable(
                f"{host} sent no book of {len(missing)} of {len(tokens)} assets within {SUBSCRIBE_SECONDS:g} s ({why})"
            ) from None
        finally:
            self._waiting.discard(there)
            unlisten(self._lives(watched), look)

    def _is_live(self, token: str) -> bool:
        live = self.live(token)
        return live is not None and live.live

    async def close(self) -> None:
        """Close all sockets, within a second; who waits for a first book gets VenueUnavailable."""
        self._closed = True
        for there in self._waiting:
            if not there.done():
                there.set_exception(VenueUnavailable("this PolymarketMarketData was closed while it subscribed"))
        sockets, self.sockets = self.sockets, []
        await asyncio.gather(*(socket.close() for socket in sockets))
        for socket in sockets:
            socket.forget(list(socket.feed.books))
        self._socket_of.clear()
        self._refs.clear()
