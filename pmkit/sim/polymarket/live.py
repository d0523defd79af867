"""A market that trades: its engine, its traders, its tick, and what the market channel says about it.

Numbers are strings on the wire and moments market milliseconds as text; spacing and key order are those of recorded
frames. `price_change` carries the new total of a level for both outcomes and the touch after the whole operation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from pmkit.clock import Clock, Entropy
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, LevelChange, Match, MatchingEngine, Side, Update
from pmkit.sim.polymarket.book import (
    COARSE_TICK,
    FINE_TICK,
    MIN_ORDER_SHARES,
    TokenBook,
    own_levels,
    price_of,
    price_text,
    side_of,
    size_text,
)
from pmkit.sim.polymarket.market import Window
from pmkit.sim.traders import Grid, Traders
from pmkit.sim.world import World

FINE_ABOVE = 9_600
FINE_BELOW = 400
QUIET_BEFORE_OPEN = 0.25

_COARSE = Grid.even(COARSE_TICK)
_FINE = Grid.even(FINE_TICK)
_LOOSE = json.JSONEncoder(separators=(", ", ":"), ensure_ascii=False).encode


def loose(data: object) -> str:
    """JSON with a space after commas only, as the venue writes everything but books."""
    return _LOOSE(data)


def empty_book(window: Window, outcome: int, tick: int = COARSE_TICK) -> TokenBook:
    """The book of a market in which nobody has traded or quotes yet, or that has ended."""
    return TokenBook(window.condition_id, window.tokens[outcome], window.accepting_ms, (), (), tick, None)


def outcome_of(client: object) -> int:
    """In which outcome an order was placed: what traders hand to the engine is a number, of others an attribute."""
    outcome = client if isinstance(client, int) else getattr(client, "outcome", 0)
    return outcome if isinstance(outcome, int) else 0


class Tell:
    """Where a market's messages go. `watched` says whether building them is worth it."""

    def watched(self, window: Window) -> bool:
        raise NotImplementedError

    def market(self, window: Window, frame: str, *, custom: bool = False) -> None:
        """To everyone who subscribed to either token; with `custom` only those who asked for custom features."""
        raise NotImplementedError

    def token(self, token: str, frame: Callable[[], str]) -> None:
        """To everyone who subscribed to that token. The frame is only made when there is somebody."""
        raise NotImplementedError


class LiveMarket:
    """The engine of a current or next window. `traders.run()` is for the venue to run; `end()` empties the book."""

    def __init__(self, world: World, window: Window, clock: Clock, tell: Tell, *, steps_per_wall_second: float) -> None:
        self.window = window
        self.engine = MatchingEngine()
        self.tick = COARSE_TICK
        self.last_trade: int | None = None
        self.last_side = Side.BUY
        self.changed_ms = clock.now_ms()
        self.ended = False
        self.steps_per_wall_second = steps_per_wall_second
        self._clock = clock
        self._tell = tell
        self._touch: tuple[int | None, int | None] = (None, None)

        def fair() -> float:
            return world.fair_up(window.asset, window.open_ms, window.close_ms, clock.now_ms())

        self.traders = Traders(
            self.engine,
            fair=fair,
            seconds_left=lambda: (window.close_ms - clock.now_ms()) / 1000,
            grid=lambda: _FINE if self.tick == FINE_TICK else _COARSE,
            clock=clock,
            entropy=Entropy(f"{world.seed} {window.slug}"),
            client=lambda entropy: entropy.randint(0, 1),
            min_size=MIN_ORDER_SHARES * SIZE_UNITS,
            steps_per_wall_second=steps_per_wall_second,
            hurry=lambda: 1.0 if clock.now_ms() >= window.open_ms else QUIET_BEFORE_OPEN,
        )
        self.traders.fill()
        self._check_tick()
        self._touch = (self.engine.best_bid, self.engine.best_ask)
        self.engine.on_update.append(self._updated)

    def book(self, outcome: int) -> TokenBook:
        return TokenBook(
            self.window.condition_id,
            self.window.tokens[outcome],
            self.changed_ms,
            own_levels(self.engine, outcome, Side.BUY),
            own_levels(self.engine, outcome, Side.SELL),
            self.tick,
            self.last_trade,
        )

    def end(self) -> None:
        """The window is over: everything that rests is cancelled."""
        self.ended = True
        self.engine.cancel_all()

    # ---- what the market channel says

    def _updated(self, update: Update) -> None:
        self.changed_ms = self._clock.now_ms()
        if update.matches:
            # One last trade a market, as its taker wrote it: recorded books of both tokens carry the same price.
            last = update.matches[-1]
            outcome = outcome_of(last.taker_client)
            self.last_trade = price_of(last.price, outcome)
            self.last_side = side_of(last.taker_side, outcome)
        if self._tell.watched(self.window):
            books = (self.book(0), self.book(1))
            self._tell.market(self.window, self._price_change(update.changes, books))
            for frame in self._prints(update.matches):
                self._tell.market(self.window, frame)
            self._tell_touch(books)
            if update.matches:
                self._tell_books()
        self._check_tick()

    def _price_change(self, changes: tuple[LevelChange, ...], books: tuple[TokenBook, TokenBook]) -> str:
        digests = [book.digest() for book in books]
        rows = [
            {
                "asset_id": books[outcome].token,
                "price": price_text(price_of(change.price, outcome)),
                "size": size_text(change.size_after),
                "side": side_of(change.side, outcome).value,
                "hash": digests[outcome],
                "best_bid": books[outcome].best_bid_text(),
                "best_ask": books[outcome].best_ask_text(),
            }
            for change in changes
            for outcome in (0, 1)
        ]
        return loose(
            {
                "market": self.window.condition_id,
                "price_changes": rows,
                "timestamp": str(self.changed_ms),
                "event_type": "price_change",
            }
        )

    def _prints(self, matches: tuple[Match, ...]) -> list[str]:
        """One `last_trade_price` per price level, for the token the taker traded; the matches have one taker."""
        sizes: dict[int, int] = {}
        for match in matches:
            sizes[match.price] = sizes.get(match.price, 0) + match.size
        frames = []
        for price, size in sizes.items():
            taker = matches[0]
            outcome = outcome_of(taker.taker_client)
            number = self.engine.matched * PRICE_UNITS + price
            frames.append(
                loose(
                    {
                        "market": self.window.condition_id,
                        "asset_id": self.window.tokens[outcome],
                        "price": price_text(price_of(price, outcome)),
                        "size": size_text(size),
                        "fee_rate_bps": "0",
                        "side": side_of(taker.taker_side, outcome).value,
                        "timestamp": str(self.changed_ms),
                        "event_type": "last_trade_price",
                        "transaction_hash": f"0x{int(self.window.condition_id, 16) ^ (number << 128):064x}",
                    }
                )
            )
        return frames

    def _tell_books(self) -> None:
        for outcome, token in enumerate(self.window.tokens):
            self._tell.token(token, partial(self._book_frame, outcome))

    def _book_frame(self, outcome: int) -> str:
        return self.book(outcome).socket_json()

    def _tell_touch(self, books: tuple[TokenBook, TokenBook]) -> None:
        touch = (self.engine.best_bid, self.engine.best_ask)
        if touch == self._touch:
            return
        self._touch = touch
        for book in books:
            bid = book.bids[0][0] if book.bids else 0
            ask = book.asks[0][0] if book.asks else PRICE_UNITS
            frame = loose(
                {
                    "market": self.window.condition_id,
                    "asset_id": book.token,
                    "best_bid": book.best_bid_text(),
                    "best_ask": book.best_ask_text(),
                    "spread": price_text(ask - bid),
                    "timestamp": str(self.changed_ms),
                    "event_type": "best_bid_ask",
                }
            )
            self._tell.market(self.window, frame, custom=True)

    def _check_tick(self) -> None:
        """The tick becomes finer, for good, when the price passes 0.96 or 0.04 (5.1)."""
        bid, ask = self.engine.best_bid, self.engine.best_ask
        if (bid is not None and bid > FINE_ABOVE) or (ask is not None and ask < FINE_BELOW):
            self.refine()

    def refine(self) -> None:
        """Make the tick finer, if it is not yet; for tests that do not wait for the price."""
        if self.tick == FINE_TICK or self.ended:
            return
        old, self.tick = self.tick, FINE_TICK
        self.changed_ms = self._clock.now_ms()
        for token in self.window.tokens:
            frame = loose(
                {
                    "market": self.window.condition_id,
                    "asset_id": token,
                    "old_tick_size": price_text(old),
                    "new_tick_size": price_text(self.tick),
                    "timestamp": str(self.changed_ms),
                    "event_type": "tick_size_change",
                }
            )
            self._tell.market(self.window, frame)
        self._tell_books()
