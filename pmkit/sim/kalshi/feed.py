"""From books and the index to the subscriptions of all connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from pmkit.clock import Clock
from pmkit.sim.engine import Match
from pmkit.sim.kalshi import messages
from pmkit.sim.kalshi.index import index_message
from pmkit.sim.kalshi.market import Delta, LiveMarket, Trade
from pmkit.sim.kalshi.streams import BOOK, INDEX, LIFECYCLE, TICKER, TRADE, KalshiSession
from pmkit.sim.kalshi.windows import Calendar, index_of

_TRADES_KEPT = 20_000
_INDEX_LAG_MS = 120
# A process that slept longer (market seconds) goes on with the present.
_LONGEST_BACKLOG = 60


class Feed:
    """What is published. `sessions` tells the connections there are now, `user_of` the member of a key.

    `trades` are the last public prints.
    """

    def __init__(
        self, clock: Clock, sessions: Callable[[], list[KalshiSession]], user_of: Callable[[str], str]
    ) -> None:
        self.trades: deque[Trade] = deque(maxlen=_TRADES_KEPT)
        # Of every match, of every operation on a book, and at the end of each when all of it was told.
        self.on_match: list[Callable[[LiveMarket, Match, Trade], object]] = []
        self.on_changed: list[Callable[[LiveMarket], object]] = []
        self.on_done: list[Callable[[], object]] = []
        self._clock = clock
        self._sessions = sessions
        self._user_of = user_of
        self._printed = 0

    def changed(self, live: LiveMarket, deltas: list[Delta], matches: list[Match]) -> None:
        """One operation on a book: prints, level changes, the ticker."""
        at_us = self._clock.time_ns() // 1000
        for match in matches:
            self._printed += 1
            trade_id = self._clock.entropy.uuid4()
            trade = Trade(self._printed, trade_id, live.ticker, match.price, match.size, match.taker_side, at_us)
            self.trades.append(trade)
            for hear in self.on_match:
                hear(live, match, trade)
            raw = messages.trade_message(trade)
            for session in self._sessions():
                for subscription in session.by_channel(TRADE):
                    if subscription.wants(live.ticker):
                        session.publish(subscription, "trade", raw)
        self._tell_deltas(live, deltas, at_us)
        for changed in self.on_changed:
            changed(live)
        ticker: bytes = b""
        for session in self._sessions():
            for subscription in session.by_channel(TICKER):
                if subscription.wants(live.ticker):
                    ticker = ticker or msgspec.json.encode(messages.ticker_message(live, at_us))
                    session.publish(subscription, "ticker", ticker)
        for done in self.on_done:
            done()

    def _tell_deltas(self, live: LiveMarket, deltas: list[Delta], at_us: int) -> None:
        encoded: dict[tuple[bool, str | None], list[bytes]] = {}
        user, client_id = live.cause or (None, None)
        for session in self._sessions():
            for subscription in session.by_channel(BOOK):
                if not subscription.wants(live.ticker):
                    continue
                own = client_id if user is not None and self._user_of(session.key_id) == user else None
                form = (subscription.use_yes_price, own)
                if form not in encoded:
                    encoded[form] = [
                        messages.delta_message(live, delta, at_us, use_yes_price=form[0], own=own) for delta in deltas
                    ]
                for raw in encoded[form]:
                    session.publish(subscription, "orderbook_delta", raw)

    def lifecycle(self, message: dict[str, object], kind: str = "market_lifecycle_v2") -> None:
        """To everybody on market_lifecycle_v2, which has no filter."""
        raw = msgspec.json.encode(message)
        for session in self._sessions():
            for subscription in session.by_channel(LIFECYCLE):
                session.publish(subscription, kind, raw)

    async def index(self, calendar: Calendar, assets: tuple[str, ...]) -> None:
        """Every market second the index values, a little after their own time. Ends with its task."""
        second = self._clock.now_ms() // 1000 + 1
        while True:
            while (left := second * 1000 + _INDEX_LAG_MS - self._clock.now_ms()) > 0:
                await self._clock.sleep(left / 1000)
            wanted = [(session, found) for session in self._sessions() for found in session.by_channel(INDEX)]
            for asset in assets:
                name = index_of(asset)
                raw = b""
                for session, subscription in wanted:
                    if name in subscription.indices or "all" in subscription.indices:
                        raw = raw or index_message(calendar, asset, second * 1000, self._clock.now_ms())
                        session.publish(subscription, INDEX, raw)
            second = max(second + 1, self._clock.now_ms() // 1000 - _LONGEST_BACKLOG)
