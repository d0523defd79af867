"""What must hold at every step, and what must hold when it is calm again."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pmkit.clock import Clock
from pmkit.exchanges.market import Market
from pmkit.logging.csv_logger import read_trades
from pmkit.websocket import deadlines
from tests.chaos.boundaries import Boundaries
from tests.chaos.calm import BOUNDARY_SECONDS, step_of
from tests.chaos.memory import BOUNDS, bounded, census, growth
from tests.chaos.trader import Attempt, Trader
from tests.chaos.truth import BookHistory, Truth, seen_of, snapshot

MORE_TASKS = 40
"""Tasks of the bot beside those it had at its first tick: orders under way and being resolved, goodbyes."""
GROWTH = 100
"""Elements of one collection in the calm phase: market data goes on, and nothing else."""
WAITING = 50
KNOWN_AFTER_SECONDS = 3.0
"""An order that stands at the venue is never unknown to the bot for longer than this."""
CONFIRMING_SECONDS = 7.0
"""What a data deadline may be exceeded by: one REST read confirms the silence."""
BOOK_AGE = {
    "polymarket": deadlines.POLYMARKET_MARKET + CONFIRMING_SECONDS,
    "kalshi": deadlines.KALSHI_BOOK + CONFIRMING_SECONDS,
}
DOUBT_SECONDS = 1.5
LISTED_AFTER_MS = 15_000


class Violation(AssertionError):
    """Something that must never happen."""


class Watch:
    """Looks at a bot and at the truth. `clock` is the venues', `wrong_clock` the seconds the bot's may be off by."""

    def __init__(
        self, bot: Trader, truth: Truth, books: BookHistory, clock: Clock, *, live: bool, wrong_clock: float = 0.0
    ) -> None:
        self.bot = bot
        self.truth = truth
        self.books = books
        self.clock = clock
        self.live = live
        self.wrong_clock = wrong_clock
        self.quiet: Callable[[], float] = lambda: 0.0
        """Seconds for which no fault has been at work; set by whoever runs the script."""
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self._fill_keys: set[tuple[str, str, str]] = set()
        self._fills_read = 0
        self._reported: set[str] = set()
        self._judged: set[str] = set()
        self._unknown: dict[str, int] = {}
        self._stood: dict[str, set[str]] = {}
        self._ended: set[str] = set()
        self._orders_read = 0
        # A change of several levels comes in several messages: between two of them the book is none of the venue's.
        self._doubts: dict[tuple[str, str], float] = {}
        self._doubt_seconds = DOUBT_SECONDS * clock.factor
        self.boundaries = Boundaries(self)
        self._tasks_before = 0
        self._census: Counter[str] = Counter()

    def violated(self, what: str, detail: object = "") -> None:
        key = f"{what}: {detail}"
        if key not in self._reported and len(self.violations) < 50:
            self._reported.add(key)
            self.violations.append(f"{self.clock.now()} {key}")

    # -- every step

    def step(self) -> None:
        self.counts["steps"] += 1
        self._current_markets()
        self._books()
        self._candles()
        self._fills_once()
        self._orders_once()
        self.boundaries.step()
        if self.live:
            self._orders()
        if self.counts["steps"] % 10 == 1:
            self._tasks()

    def _tasks(self) -> None:
        """Those of the bot, not of the venues."""
        mine = [task for task in asyncio.all_tasks() if task.get_name().startswith(("pmkit", type(self.bot).__name__))]
        self._tasks_before = self._tasks_before or len(mine)
        self.counts["most tasks of the bot"] = max(self.counts["most tasks of the bot"], len(mine))
        if len(mine) > self._tasks_before + MORE_TASKS:
            names = Counter(task.get_name().rstrip("0123456789abcdef-") for task in mine).most_common(3)
            self.violated("tasks pile up", f"{self._tasks_before} {len(mine)} {names}")

    def memory(self) -> None:
        """Called twice with nothing but market data in between: no collection of pmkit has grown by it."""
        after = census()
        for name in [name for name in after if name.endswith(".pending")]:
            self.violated("events wait for nobody", name) if after[name] > WAITING else None
        if self._census:
            self.counts["collections compared"] += len(after)
            grown = {name: more for name, more in growth(self._census, after, GROWTH).items() if not bounded(name)}
            for name, more in grown.items():
                self.violated("memory grows", f"{name} by {more} to {after[name]}")
            for name, bound in BOUNDS.items():
                if (owners := after[f"instances of {name.split('.')[0]}"]) and after[name] > bound * owners:
                    self.violated("a collection beyond its bound", f"{name} {after[name]} in {owners}")
        self._census = after

    def _current_markets(self) -> None:
        now = self.clock.now_ms()
        slack = 1000 * (BOUNDARY_SECONDS * max(1.0, self.clock.factor) + self.wrong_clock)
        for key, market in self.bot.markets.items():
            if isinstance(market, Market) and not market.open_ms - slack <= now < market.close_ms + slack:
                over = "is over" if now >= market.close_ms else "has not begun"
                self.violated(f"the current market of {key} {over}", market.market_id)
            if isinstance(market, Market) and market.close_ms - market.open_ms != 900_000:
                self.violated("a market of another length", market.market_id)

    def _books(self) -> None:
        doubted = {key for key in self._doubts if self._doubts[key] < self.clock.monotonic() - self._doubt_seconds}
        for markets in (self.bot.markets, self.bot.next_markets):
            for market in markets.values():
                if not isinstance(market, Market):
                    continue
                engine = self.truth.engine(market.venue, market.market_id)
                for place, outcome in enumerate(market.outcomes):
                    key, book = (market.market_id, outcome), self.bot.book(market, outcome)
                    if not book.valid:
                        self.counts["invalid books"] += 1
                        self._doubts.pop(key, None)
                        continue
                    self.counts["valid books"] += 1
                    if engine is None:
                        continue  # not begun at the venue, or over
                    if book.best_bid is not None and book.best_ask is not None and book.best_bid >= book.best_ask:
                        self.violated("a valid book is crossed", f"{market.market_id} {outcome}")
                    age = BOOK_AGE[market.venue] * max(1.0, self.clock.factor / 10)
                    seen = seen_of(book, place == 0)
                    if self.books.had(engine, seen, age):
                        self._doubts.pop(key, None)
                    elif key in doubted:
                        latest = snapshot(engine)
                        wrong = [sorted(set(one) ^ set(two)) for one, two in zip(seen, latest, strict=True)]
                        self.violated(f"a valid book that the venue never had ({market.venue})", f"{key} {wrong}")
                    else:
                        self._doubts.setdefault(key, self.clock.monotonic())

    def _candles(self) -> None:
        for feed in self.bot.feeds:
            for symbol in feed.symbols:
                last = feed.candles(symbol)[-30:]
                for one, two in itertools.pairwise(last):
                    if two.timestamp - one.timestamp == step_of(feed):
                        continue
                    due = one.timestamp + step_of(feed)
                    holes = [hole for hole in feed.gaps(symbol) if hole.first_ms <= due <= hole.last_ms]
                    if any(hole.reason.startswith("not read") for hole in holes):
                        self.counts["candle holes reported"] += 1  # REST did not answer, and the feed says so
                    else:
                        self.violated("a candle is missing or twice", f"{symbol} after {one.timestamp}")

    def _fills_once(self) -> None:
        for fill in self.bot.said.fills[self._fills_read :]:
            self._fills_read += 1
            key = (fill.fill_id, fill.order_id, fill.state)
            if key in self._fill_keys:
                self.violated("a fill was delivered twice", key)
            self._fill_keys.add(key)

    def _orders_once(self) -> None:
        """An order that has ended stays so."""
        for status in self.bot.said.orders[self._orders_read :]:
            self._orders_read += 1
            if status.status.terminal:
                self._ended.add(status.order_id)
            elif status.order_id in self._ended:
                self.violated("an order came back to life", f"{status.order_id} {status.status}")

    def _listings(self, venue: str) -> None:
        """A list of open orders has those that stood all the time (what a venue's lists may lag by left out)."""
        rows, self.bot.said.listings = self.bot.said.listings, []
        for of, begun, answered, ids in rows:
            for order in self.truth.orders(of):
                if order.open and order.created_ms < begun - LISTED_AFTER_MS and order.order_id not in ids:
                    self.violated(
                        "a listing without an order that stands", f"{of} {order.order_id} {answered - begun} ms"
                    )

    def _orders(self) -> None:
        self._listings("")
        now = self.clock.now_ms()
        for venue, exchange in self.bot.exchanges.items():
            waiting = 0
            by_order: dict[str, Attempt] = {}
            by_client: dict[str, Attempt] = {}
            for attempt in self.bot.said.attempts:
                if attempt.venue != venue:
                    continue
                if attempt.result == "raised":
                    self.violated("placing an order raised what is none of the three outcomes", attempt.error)
                waiting += attempt.result in ("", "cancelled")
                if attempt.order_id:
                    by_order[attempt.order_id] = attempt
                by_client[attempt.client_order_id] = attempt
            unresolved = {intent.client_order_id: intent for intent in exchange.unresolved}
            of_intent = {intent.order_id for intent in unresolved.values() if intent.order_id}
            nameless = 0
            for order in self.truth.orders(venue, self._judged):
                attempt = by_order.get(order.order_id) or by_client.get(order.client_order_id)
                if attempt is not None and (order.open or order.filled):
                    stood = self._stood.setdefault(attempt.client_order_id, set())
                    stood.add(order.order_id)
                    if len(stood) > 1:
                        self.violated("one order stands more than once", f"{venue} {attempt.client_order_id}")
                if attempt is None:
                    nameless += order.order_id not in of_intent
                elif (order.open or order.filled) and (
                    attempt.result in ("rejected", "not sent") or attempt.resolved == "absent"
                ):
                    what = "absent" if attempt.resolved == "absent" else attempt.result
                    self.violated(f"an order that was said to be {what} stands at the venue", attempt.error)
                known = (
                    order.order_id in exchange.open
                    or order.order_id in of_intent
                    or order.client_order_id in unresolved
                    or attempt is None
                    or attempt.result == ""
                )
                if not order.open or known:
                    self._unknown.pop(order.order_id, None)
                elif now - self._unknown.setdefault(order.order_id, now) > 1000 * KNOWN_AFTER_SECONDS * max(
                    1.0, self.clock.factor
                ):
                    self.violated("an open order was forgotten", f"{venue} {order.order_id} ({attempt.result})")
                if not order.open and attempt is not None and attempt.result == "accepted":
                    self._judged.add(order.order_id)
            if nameless > waiting:
                self.violated("orders at the venue that nobody placed", f"{venue} {nameless}")
            self.counts[f"most unresolved {venue}"] = max(
                self.counts[f"most unresolved {venue}"], len(exchange.unresolved)
            )

    def stopped(self, tasks_before: set[asyncio.Task], warnings: str) -> None:
        """After the end: nothing runs, nothing stands at the venue that was not reported."""
        if left := [task.get_name() for task in asyncio.all_tasks() - tasks_before]:
            self.violated("tasks are left", sorted(left)[:5])
        reported = "".join(
            line for line in warnings.splitlines() if "may still be open" in line or "is unknown" in line
        )
        for venue in self.bot.exchanges:
            for order in self.truth.orders(venue) if self.live else ():
                names = [name for name in (order.order_id, order.client_order_id) if name]
                if order.open and not any(name in reported for name in names):
                    self.violated("an orphan order after the end", f"{venue} {order.order_id}")

    def files(self, directory: Path, secrets: list[str], output: str) -> None:
        """Every row is whole, and no secret is in any output."""
        rows = 0
        for path in sorted(directory.rglob("*")):
            if not path.is_file():
                continue
            raw = path.read_bytes()
            if raw and not raw.endswith(b"\n"):
                self.violated("a torn last row", path.name)
            for secret in secrets:
                if secret.encode() in raw:
                    self.violated("a secret in a file", path.name)
            if path.suffix == ".csv":
                rows += sum(1 for _ in read_trades(path, lambda number, why: self.violated("a bad row", (number, why))))
        self.counts["rows"] += rows
        if any(secret in output for secret in secrets):
            self.violated("a secret in the log")
