"""What must hold at every step, and what must hold when it is calm again."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from pmkit.clock import Clock
from pmkit.data.binance.feed import BinanceFeed
from pmkit.errors import PmkitError
from pmkit.exchanges.market import Market
from pmkit.exchanges.types import FillState
from pmkit.logging.csv_logger import read_trades
from pmkit.websocket import deadlines
from tests.chaos.trader import Attempt, Trader
from tests.chaos.truth import BookHistory, Truth, seen_of, snapshot

TASKS = 150
KNOWN_AFTER_SECONDS = 3.0
"""An order that stands at the venue is never unknown to the bot for longer than this."""
CONFIRMING_SECONDS = 7.0
"""What a data deadline may be exceeded by: one REST read confirms the silence."""
BOOK_AGE = {
    "polymarket": deadlines.POLYMARKET_MARKET + CONFIRMING_SECONDS,
    "kalshi": deadlines.KALSHI_BOOK + CONFIRMING_SECONDS,
}
BOUNDARY_SECONDS = 1.5
"""How much the bot's idea of the current market may lag at a boundary, beside what its clock is wrong by."""
DOUBT_SECONDS = 1.5
LISTED_AFTER_MS = 15_000
READY_SECONDS = 3.0
CALM_BOUNDARY_SECONDS = 60.0
MONEY = Decimal("0.000001")


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
        self._boundaries: set[str] = set()
        # A change of several levels comes in several messages: between two of them the book is none of the venue's.
        self._doubts: dict[tuple[str, str], float] = {}
        self._doubt_seconds = DOUBT_SECONDS * clock.factor

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
        self._next_books()
        if self.live:
            self._orders()
        if self.counts["steps"] % 10 == 0 and len(asyncio.all_tasks()) > TASKS:
            self.violated("tasks pile up", len(asyncio.all_tasks()))

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

    def _next_books(self) -> None:
        """Where nothing was wrong for a while, the next books are valid before the boundary."""
        for key, market in self.bot.markets.items():
            if not isinstance(market, Market) or market.market_id in self._boundaries:
                continue
            left = (market.close_ms - self.clock.now_ms()) / 1000 / self.clock.factor
            if not READY_SECONDS - 1 <= left <= READY_SECONDS:
                continue
            self._boundaries.add(market.market_id)
            if self.quiet() < CALM_BOUNDARY_SECONDS / self.clock.factor**0.5:
                continue
            self.counts["calm boundaries"] += 1
            following = self.bot.next_markets[key]
            if not isinstance(following, Market) or not all(
                self.bot.book(following, outcome).valid for outcome in following.outcomes
            ):
                self.violated("the next book was not ready before a calm boundary", f"{key} {following}"[:200])

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
            mine = self._attempts(venue)
            for attempt in mine:
                if attempt.result == "raised":
                    self.violated("placing an order raised what is none of the three outcomes", attempt.error)
            waiting = sum(1 for attempt in mine if attempt.result in ("", "cancelled"))
            by_order = {attempt.order_id: attempt for attempt in mine if attempt.order_id}
            by_client = {attempt.client_order_id: attempt for attempt in mine}
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

    def _attempts(self, venue: str) -> list[Attempt]:
        return [attempt for attempt in self.bot.said.attempts if attempt.venue == venue]

    # -- when it is calm again

    async def calm(self) -> None:
        """Everything is live again: books, candles, streams, account. Queries must be answered, and tell the truth."""
        bot = self.bot
        for key, market in bot.markets.items():
            if not isinstance(market, Market):
                self.violated("no current market in the calm phase", f"{key}: {market.reason}")
                continue
            for outcome in market.outcomes:
                if not bot.book(market, outcome).valid:
                    self.violated("an invalid book in the calm phase", f"{key} {bot.book(market, outcome).reason}")
        for feed in bot.feeds:
            for symbol in feed.symbols:
                late = self.clock.now_ms() - (feed.candles(symbol).last_ms or 0)
                if late > 2 * step_of(feed) + 5_000 * max(1.0, self.clock.factor):
                    self.violated("candles are late in the calm phase", f"{symbol} by {late} ms")
        if not self.live:
            return
        for venue, exchange in bot.exchanges.items():
            if exchange.unresolved:
                self.violated("orders are unresolved in the calm phase", f"{venue} {len(exchange.unresolved)}")
            try:
                await self._account(venue)
            except PmkitError as error:
                self.violated("a query failed in the calm phase", f"{venue} {type(error).__name__}: {error}")

    async def _account(self, venue: str) -> None:
        exchange, truth = self.bot.exchanges[venue], self.truth
        standing = {order.order_id for order in truth.orders(venue) if order.open}
        listed = {status.order_id for status in await exchange.get_open_orders()}
        if listed != standing:
            self.violated("open orders differ from the venue's", f"{venue} {len(listed)} {len(standing)}")
        if set(exchange.open) != standing:
            self.violated(
                "the bot's own open orders differ from the venue's",
                f"{venue} {sorted(set(exchange.open) ^ standing)}, of which {len(standing)} stand there",
            )
        await exchange.cancel_own()
        balance, spendable = await exchange.get_balance(), truth.spendable(venue)
        if abs(balance - spendable) > Decimal("0.01"):
            self.violated("the balance differs from the venue's", f"{venue} {balance} {spendable}")
        for market in self.bot.markets.values():
            if isinstance(market, Market) and market.venue == venue and self.bot.seconds_remaining(market) > 20:
                await self.bot.take(market)
        await self.clock.io_sleep(5.0)
        positions = await exchange.get_positions()
        for market in self.bot.markets.values():
            if isinstance(market, Market) and market.venue == venue:
                told = {
                    position.outcome: position.size
                    for position in positions
                    if position.market_id == market.market_id and position.size
                }
                if told != (held := truth.positions(venue, market.market_id)):
                    self.violated("positions differ from the venue's", f"{venue} {told} {held}")

    async def last_orders(self) -> None:
        """An order on each venue is accepted, and the stream tells of it. They rest when the bot is stopped."""
        resting: list[Attempt] = []
        for market in self.bot.markets.values():
            if isinstance(market, Market) and self.bot.seconds_remaining(market) > 20 * self.clock.factor**0.5:
                resting.append(await self.bot.rest(market))
        await self.clock.io_sleep(2.0)
        told = {status.order_id for status in self.bot.said.orders}
        for attempt in resting:
            self.counts["last orders"] += 1
            if attempt.result != "accepted":
                self.violated("an order was not accepted in the calm phase", f"{attempt.venue} {attempt.error}")
            elif attempt.order_id not in told:
                self.violated("the stream did not tell of an order in the calm phase", attempt.venue)

    def fills_equal(self) -> None:
        """Each fill of the venue was delivered, in its last state, and nothing else was."""
        for venue in self.bot.exchanges:
            markets = {attempt.market.market_id for attempt in self._attempts(venue)}
            told: dict[tuple[str, str], dict[str, object]] = {}
            for fill in self.bot.said.fills:
                if fill.market_id in markets:
                    told.setdefault((fill.fill_id, fill.order_id), {})[fill.state] = fill
            truth = {(fill.fill_id, fill.order_id): fill for fill in self.truth.fills(venue)}
            mine = {attempt.market.market_id for attempt in self._attempts(venue)}
            for key, fill in truth.items():
                states = told.pop(key, None)
                if states is None:
                    self.violated(f"a fill was never delivered ({venue})", key)
                    continue
                some = next(iter(states.values()))
                if some.size != fill.size or abs(some.fee - fill.fee) > MONEY:
                    self.violated(
                        f"a fill with other numbers ({venue})", f"{some.size} {some.fee} {fill.size} {fill.fee}"
                    )
                if fill.price not in (some.price, 1 - some.price):
                    self.violated(f"a fill at another price ({venue})", f"{some.price} {fill.price}")
                if fill.final and (FillState.FAILED if fill.failed else FillState.FINAL) not in states:
                    self.violated(f"the last state of a fill was never delivered ({venue})", f"{key} {set(states)}")
                if not fill.failed and FillState.FAILED in states:
                    self.violated(f"a fill that stands was taken back ({venue})", key)
            if left := [key for key, states in told.items() if next(iter(states.values())).market_id in mine]:
                self.violated(f"fills that never were ({venue})", left[:3])

    def ledger_equal(self) -> None:
        """The bot's own books of shares agree with the venue's fills."""
        for venue in self.bot.exchanges:
            cash: dict[str, Decimal] = {}
            for fill in self.truth.fills(venue):
                if not fill.failed:
                    cash[fill.market_id] = cash.get(fill.market_id, Decimal(0)) + fill.fee
            for (of, market_id), ledger in self.bot.ledgers.items():
                if of == venue and abs(ledger.fees - cash.get(market_id, Decimal(0))) > MONEY:
                    self.violated("the ledger's fees differ", f"{venue} {ledger.fees} {cash.get(market_id)}")

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


def step_of(feed: BinanceFeed) -> int:
    return {"1s": 1_000, "1m": 60_000}[feed.interval]
