"""Replay recorded sessions through the library's own feeds and books, and say whether everything fitted.

    python examples/replay_session.py FILE...

Files: texts of Kalshi's socket (`ws_orderbook_*.jsonl.gz`), mixed Polymarket sessions (`mixed_*.jsonl.gz`, with the
names of `*.markets.jsonl.gz` beside them), days of Binance candles (zip), REST books of Kalshi
(`rest_orderbook_*.jsonl.gz`, compared with the snapshots of the sessions given with them). Each is served on loopback,
byte for byte, to the socket classes that bots use. Prints what was seen; the last line on stdout is one JSON object,
summed over the files. Exits with 1 when a file could not be read whole or something did not fit.
"""

import asyncio
import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec

from pmkit.clock import ScaledClock, SystemClock, to_utc
from pmkit.data.binance.feed import BinanceFeed
from pmkit.errors import PmkitError
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.messages import ORDERBOOK
from pmkit.exchanges.kalshi.orderbook_ws import BookFeed as KalshiBooks
from pmkit.exchanges.kalshi.orderbook_ws import KalshiSocket
from pmkit.exchanges.kalshi.rest_messages import DepthAnswer
from pmkit.exchanges.polymarket.live_book import listen
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.orderbook_ws import BookFeed as PolymarketBooks
from pmkit.exchanges.polymarket.orderbook_ws import MarketSocket
from pmkit.sim.replay.recording import CandleRow, Form
from pmkit.sim.replay.sessions import rows, scan
from pmkit.sim.replay.venues import replay_of
from pmkit.venue_clock import VenueClock

SPEED = None
"""How many times as fast as it was recorded, e.g. 1.0 or 60.0; None: as fast as the feeds take it."""

ALONE_SECONDS = 60.0
LATE_SECONDS = 10.0
MUST_BE_ZERO = (
    *("unparsed", "bad_rows", "undelivered", "best_failures", "sequence_gaps", "negative_levels", "refused", "crossed"),
    *("candle_gaps", "candle_duplicates", "candle_mismatches", "rest_books_different"),
)
SUMMARY = (
    *("frames", "applied", "replies", "ignored", "unknown", "connections", "best_checks", "repeats", "dropped"),
    *("crossings", "lost_books", "late", "strangers", "rest_books", "rest_books_compared", "candles", *MUST_BE_ZERO),
)


class FullSpeedClock(SystemClock):
    """For a replay without pauses. It is dated at the end of the recording and runs at the pace of the wall, so that no
    stamp lies in its future and no book seems crossed for long because its next frame waits in a buffer. Only the waits
    between two connections are cut short.
    """

    def __init__(self, date_ms):
        super().__init__()
        self._offset_ns = date_ms * 1_000_000 - super().time_ns()

    def time_ns(self):
        return super().time_ns() + self._offset_ns

    async def sleep(self, seconds):
        await super().sleep(seconds / 1000)


def clock_of(recording):
    now_ms = SystemClock().now_ms()
    if SPEED is None:
        return FullSpeedClock(recording.last_ms or now_ms)
    return ScaledClock(now_ms, SPEED, recording.first_ms or now_ms)


class Line:
    """Both ends of a replay: what was sent, and what the feed has handled. `lost`: frames that never came."""

    def __init__(self, replay, socket, stats, clock):
        self.replay, self.socket, self.stats, self.clock = replay, socket, stats, clock
        self.lost = 0

    async def played(self):
        """Wait for the end of the recording. Raises RuntimeError when the two ends cannot find each other."""
        replay, alone = self.replay, 0.0
        while not replay.finished.is_set():
            if replay.failures:
                raise RuntimeError(f"the replay broke: {replay.failures[0]}")
            alone = 0.0 if self.socket.connected else alone + 0.05
            if alone > ALONE_SECONDS:
                raise RuntimeError(f"the feed does not come back ({self.stats.last_reason})")
            try:
                async with self.clock.io_timeout(0.05):
                    await replay.finished.wait()
            except TimeoutError:
                continue
        await self.caught_up()

    async def caught_up(self):
        """Wait until the feed has handled what was sent; what a broken connection has swallowed is given up."""
        waited = 0.0
        while self.stats.frames + self.lost < self.replay.out:
            if waited > LATE_SECONDS:
                self.lost = self.replay.out - self.stats.frames
                return
            await self.clock.io_sleep(0.001)
            waited += 0.001

    def totals(self):
        """Frames of the recording that came, and that did not."""
        replay = self.replay
        unsent = max(0, replay.recording.frames - replay.sent)
        lost = max(0, replay.out - self.stats.frames)
        return Counter(
            frames=self.stats.frames - replay.answers, undelivered=unsent + lost, connections=self.stats.connects
        )


class Seen:
    """What was seen of one book; `look` is a sink of its feed. `compare()` is called after each snapshot."""

    def __init__(self, name, compare):
        self.name = name
        self.events = self.snapshots = 0
        self.first_ms = self.last_ms = 0
        self.compare = compare

    def look(self, book):
        if book.epoch > self.snapshots:
            self.snapshots = book.epoch
            self.compare()
        if book.changes > self.events:
            self.events = book.changes
            if book.venue_ms:
                self.first_ms = self.first_ms or book.venue_ms
                self.last_ms = max(self.last_ms, book.venue_ms)

    def line(self, book):
        span = f"{to_utc(self.first_ms):%H:%M:%S} to {to_utc(self.last_ms):%H:%M:%S}" if self.first_ms else "no stamps"
        touch = f"{book.best_bid} x {book.best_bid_size} / {book.best_ask} x {book.best_ask_size}"
        state = "valid" if book.valid else f"invalid: {book.reason}"
        return f"  {self.name:<44} {self.events:>6} changes, {self.snapshots} books, {span}, {touch}, {state}"


def same_book(one, other):
    return all(one.levels(side) == other.levels(side) for side in ("BID", "ASK"))


# -- Kalshi -----------------------------------------------------------------------------------------------------------


async def replay_kalshi(recording, answers):
    """Every text through `KalshiSocket` into books of both outcomes, snapshots beside REST books where given."""
    totals = Counter()
    clock = clock_of(recording)
    feed = KalshiBooks()
    seen = {}
    for ticker, unit in recording.tickers.items():
        pair = feed.watch(ticker, unit or 100)
        seen[ticker] = Seen(ticker, lambda pair=pair: compare_answers(pair, answers))
        pair.listeners.append(lambda books, pair=pair: seen[pair.ticker].look(pair.yes) if pair.yes in books else None)

    async def nothing_missed():
        # What a bot asks REST for; here the silence is that of the recording.
        return socket.stats.frames == replay.out

    async def measure():
        return None

    async def count_crossed():
        await line.caught_up()
        totals["crossed"] += sum(pair.yes.crossed_since_ns != 0 for pair in feed.pairs.values())

    async with replay_of(recording, clock, SPEED) as replay:
        replay.on_end = count_crossed
        socket = KalshiSocket(
            replay.endpoints.kalshi.ws,
            clock,
            HandshakeSigner.from_key(replay.key.id, replay.key.pem),
            feed,
            venue_clock=VenueClock(clock),
            confirm=nothing_missed,
            measure=measure,
            # A snapshot comes when the recording has it: none is to be asked for, however long that takes.
            is_over=lambda ticker: not feed.pairs[ticker].live,
        )
        line = Line(replay, socket, socket.stats, clock)
        await play(line, [(ORDERBOOK, ticker) for ticker in recording.tickers], count_crossed)
        for ticker, watch in seen.items():
            print(watch.line(feed.pairs[ticker].yes))
        await socket.close()
    totals.update(
        applied=feed.applied,
        unparsed=max(feed.unparsed, socket.stats.garbage),
        unknown=sum(feed.unknown.values()),
        sequence_gaps=feed.seq_gaps + feed.restarts,
        repeats=feed.duplicates,
        dropped=feed.dropped,
        refused=feed.refused,
        negative_levels=feed.negative,
        crossings=feed.crossed,
        replies=sum(recording.types[kind] for kind in ("subscribed", "ok", "unsubscribed", "error")),
    )
    return totals + line.totals()


def compare_answers(pair, answers):
    """REST books of this market against the snapshot that has just come."""
    for answer in answers.get(pair.ticker, ()):
        depth = answer.depth
        answer.compared = True
        answer.equal = answer.equal or pair.holds(depth.yes_dollars or (), depth.no_dollars or ())


class Answer:
    """A recorded REST book of Kalshi; equal when one of the snapshots of its market is."""

    def __init__(self, data):
        self.depth = msgspec.json.decode(data, type=DepthAnswer, strict=False).orderbook_fp
        self.compared = self.equal = False


def read_answers(recordings, totals):
    answers = {}
    for recording in recordings:
        for row in rows(recording):
            try:
                answers.setdefault(row.key, []).append(Answer(row.data))
            except (msgspec.DecodeError, ValueError):
                totals["unparsed"] += 1
    return answers


# -- Polymarket -------------------------------------------------------------------------------------------------------


class RestRead:
    """A book that was read over REST. `equal`: None before it was compared, False once it differed."""

    def __init__(self, book):
        self.book = book
        self.equal = None


async def replay_polymarket(recording, names):
    """Every frame through `MarketSocket`; every recorded REST book is read over REST when it is its turn.

    A REST book and the socket's book of an asset are compared where both have the same stamp: it is that of the last
    change, so they must be equal. Others are of moments at which the recorder was not listening.
    """
    totals = Counter()
    clock = clock_of(recording)
    read = {}

    async with replay_of(recording, clock, SPEED) as replay:
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

        def compare(token):
            other, live = read.get(token), feed.books[token]
            if other is None or not live.live or other.book.venue_ms != live.book.venue_ms:
                return
            if other.equal is None:
                totals["rest_books_compared"] += 1
                other.equal = True
            if other.equal and not same_book(live.book, other.book):
                totals["rest_books_different"] += 1
                other.equal = False

        async def on_read(row):
            await line.caught_up()
            totals["rest_books"] += 1
            answer = await data.catalogue.book(row.key)
            reader = PolymarketBooks()
            read[row.key] = RestRead(reader.add(row.key, answer.market, ""))
            if not reader.merge(answer, clock.time_ns()):
                totals["unparsed"] += 1
                del read[row.key]
            compare(row.key)

        async def count_crossed():
            await line.caught_up()
            totals["crossed"] += sum(live.book.crossed_since_ns != 0 for live in feed.books.values())

        seen = {}
        for market, ticks in recording.markets.items():
            for token, tick in ticks.items():
                slug, outcome = names.get(token, (f"{market[:12]}...", f"{token[:8]}..."))
                feed.add(token, market, outcome.upper(), int(Decimal(tick or "0.01") * 10_000))
                seen[token] = Seen(f"{slug} {outcome.upper()}", lambda token=token: compare(token))
                listen([feed.books[token]], lambda books, look=seen[token].look: look(books[0]))
        line = Line(replay, socket, socket.stats, clock)
        replay.on_read, replay.on_end = on_read, count_crossed
        try:
            await play(line, list(feed.books), count_crossed)
            for token, watch in seen.items():
                print(watch.line(feed.books[token].book))
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


# -- Binance ----------------------------------------------------------------------------------------------------------


async def replay_candles(recording):
    """A day through `BinanceFeed`: the first candles come with its warm-up over REST, the others live. Each is compared
    with its row of the file.
    """
    totals = Counter()
    clock = clock_of(recording)
    expected = (row for row in rows(recording) if isinstance(row, CandleRow))
    last_ms = 0

    def take(candle):
        nonlocal last_ms
        last_ms = candle.timestamp
        for row in expected:
            if row.at_ms == candle.timestamp:
                totals["candles"] += 1
                numbers = (candle.open, candle.high, candle.low, candle.close, candle.volume)
                totals["candle_mismatches"] += numbers != tuple(map(float, row.columns[1:6]))
                return
            totals["candle_gaps"] += 1
        totals["candle_mismatches"] += 1

    async with replay_of(recording, clock, SPEED) as replay:
        replay.go.clear()  # the stream begins with one candle, and goes on after the warm-up
        feed = BinanceFeed(replay.endpoints, clock, [recording.symbol], recording.interval)
        await feed.subscribe_candles(lambda event: take(event.candle) if event.candle.timestamp > last_ms > 0 else None)
        try:
            await feed.start()
            for candle in feed.candles(recording.symbol):
                take(candle)
            replay.go.set()
            line = Line(replay, feed, feed.socket_stats, clock)
            await line.played()
            waited = 0.0
            while last_ms < recording.last_ms and waited < LATE_SECONDS:  # a gap is being read over REST
                await clock.io_sleep(0.01)
                waited += 0.01
        finally:
            await feed.close()
    totals["candle_gaps"] += sum(1 for _ in expected)
    stats = feed.stats
    span = f"{to_utc(recording.first_ms):%Y-%m-%d %H:%M:%S} to {to_utc(last_ms):%H:%M:%S}"
    print(f"  {recording.symbol} {recording.interval}: {totals['candles']} candles, {replay.warm_up} by REST, {span}")
    print(f"  last: {feed.candles(recording.symbol).last}")
    totals.update(
        applied=stats.live,
        candle_gaps=stats.lost,
        candle_duplicates=stats.duplicates + stats.differing + stats.late,
        unparsed=feed.socket_stats.garbage,
        unknown=sum(feed.socket_stats.unknown.values()),
    )
    return totals + line.totals()


# -- all --------------------------------------------------------------------------------------------------------------


async def play(line, keys, at_end):
    """Connect a socket that wants these, until all was played."""
    try:
        await line.socket.start()
        await line.socket.want(keys)
        if keys:
            await line.played()
            await at_end()
    except BaseException:
        await line.socket.close()
        raise


async def replay_file(recording, names, answers):
    if recording.form is Form.KALSHI:
        return await replay_kalshi(recording, answers)
    if recording.form is Form.MIXED:
        return await replay_polymarket(recording, names)
    if recording.form is Form.CANDLES and recording.candles:
        return await replay_candles(recording)
    return Counter()


def read_all(paths, errors):
    """What the files hold; those that cannot be read go to `errors`."""
    recordings = []
    for path in paths:
        try:
            recordings.append(scan(path))
        except FileNotFoundError:
            errors.append(f"{path}: there is no such file")
        except (OSError, PmkitError) as error:
            errors.append(f"{path}: {error}")
    return recordings


def read_names(recordings, errors):
    """asset -> (slug, outcome), from the files given and those beside the sessions."""
    beside = set()
    for recording in recordings:
        if recording.form is Form.MIXED:
            stem = recording.path.name.partition(".")[0]
            beside.update(recording.path.parent.glob(f"{stem}.markets.jsonl*"))
    beside -= {recording.path for recording in recordings}
    names = {}
    for recording in [*recordings, *read_all(sorted(beside), errors)]:
        names.update(recording.names)
    return names


def describe(recording):
    what = [
        f"{recording.frames} frames",
        f"{recording.reads} REST books",
        f"{recording.candles} candles",
        f"{len(recording.names)} names",
    ]
    types = ", ".join(f"{count} {name}" for name, count in recording.types.items())
    others = ", ".join(f"{count} {name}" for name, count in recording.others.items())
    text = f"{recording.path.name}: {recording.form}, " + ", ".join(part for part in what if not part.startswith("0 "))
    return text + (f" ({types})" if types else "") + (f"; not replayed: {others}" if others else "")


async def main(paths):
    """Replay these files; returns the exit code."""
    totals = Counter()
    errors = []
    recordings = read_all(paths, errors)
    names = read_names(recordings, errors)
    answers = read_answers([one for one in recordings if one.form is Form.ANSWERS], totals)
    others = Counter()
    for recording in recordings:
        print(describe(recording))
        try:
            totals += await replay_file(recording, names, answers)
        except (PmkitError, RuntimeError) as error:
            errors.append(f"{recording.path}: {error}")
        totals["bad_rows"] += recording.bad_rows
        others += recording.others
        if recording.damage:
            errors.append(f"{recording.path}: {recording.damage}; what was before it was replayed")
    books = [answer for same in answers.values() for answer in same]
    totals["rest_books"] += len(books)
    totals["rest_books_compared"] += sum(answer.compared for answer in books)
    totals["rest_books_different"] += sum(answer.compared and not answer.equal for answer in books)
    for kind in MUST_BE_ZERO:
        if totals[kind]:
            errors.append(f"{kind}: {totals[kind]}, expected 0")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    summary = {"files": len(recordings)} | {key: totals[key] for key in SUMMARY} | {"not_replayed": dict(others)}
    summary["rest_books_equal"] = totals["rest_books_compared"] - totals["rest_books_different"]
    print(json.dumps(summary | {"errors": errors}))
    return 1 if errors else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/replay_session.py FILE...")
    sys.exit(asyncio.run(main([Path(name) for name in sys.argv[1:]])))
