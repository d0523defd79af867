"""Recorded texts of Kalshi's socket, through the library's socket into books of both outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.kalshi.messages import ORDERBOOK
from pmkit.exchanges.kalshi.orderbook_ws import BookFeed, KalshiSocket
from pmkit.exchanges.kalshi.rest_messages import DepthAnswer
from pmkit.exchanges.orderbook import OrderBook
from pmkit.replay.line import Line, Seen, clock_of, play
from pmkit.sim.replay.recording import Read, Recording
from pmkit.sim.replay.sessions import rows
from pmkit.sim.replay.venues import KalshiReplay
from pmkit.venue_clock import VenueClock

Tell = Callable[[str], object]


async def replay_kalshi(
    recording: Recording, answers: Mapping[str, Sequence[Answer]], speed: float | None, tell: Tell
) -> Counter[str]:
    """Every text through `KalshiSocket` into books of both outcomes, snapshots beside REST books where given."""
    totals: Counter[str] = Counter()
    clock = clock_of(recording, speed)
    feed = BookFeed()
    seen: dict[str, Seen] = {}
    for ticker, unit in recording.tickers.items():
        pair = feed.watch(ticker, unit or 100)
        seen[ticker] = Seen(ticker, partial(compare_answers, pair, answers))
        pair.listeners.append(partial(_look, pair, seen[ticker]))

    async def nothing_missed() -> bool:
        # What a bot asks REST for; here the silence is that of the recording.
        return socket.stats.frames == replay.out

    async def measure() -> None:
        return None

    async def count_crossed() -> None:
        await line.caught_up()
        totals["crossed"] += sum(pair.yes.crossed_since_ns != 0 for pair in feed.pairs.values())

    async with KalshiReplay(recording, clock, speed) as replay:
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
        await play(line, socket, [(ORDERBOOK, ticker) for ticker in recording.tickers], count_crossed)
        for ticker, watch in seen.items():
            tell(watch.line(feed.pairs[ticker].yes))
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


def _look(pair: BookPair, seen: Seen, books: Iterable[OrderBook]) -> None:
    if pair.yes in books:
        seen.look(pair.yes)


def compare_answers(pair: BookPair, answers: Mapping[str, Sequence[Answer]]) -> None:
    """REST books of this market against the snapshot that has just come."""
    for answer in answers.get(pair.ticker, ()):
        depth = answer.depth
        answer.compared = True
        answer.equal = answer.equal or pair.holds(depth.yes_dollars or (), depth.no_dollars or ())


class Answer:
    """A recorded REST book of Kalshi; equal when one of the snapshots of its market is."""

    def __init__(self, data: bytes) -> None:
        self.depth = msgspec.json.decode(data, type=DepthAnswer, strict=False).orderbook_fp
        self.compared = self.equal = False


def read_answers(recordings: Iterable[Recording], totals: Counter[str]) -> dict[str, list[Answer]]:
    """The REST books of these recordings, by ticker; what cannot be read is counted in `totals`."""
    answers: dict[str, list[Answer]] = {}
    for recording in recordings:
        for row in rows(recording):
            if not isinstance(row, Read):
                continue
            try:
                answers.setdefault(row.key, []).append(Answer(row.data))
            except (msgspec.DecodeError, ValueError):
                totals["unparsed"] += 1
    return answers
