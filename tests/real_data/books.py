"""Books: a recorded socket session through pmkit's feed, and the books that REST gave beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.kalshi.book_pair import BookPair
from pmkit.exchanges.orderbook import OrderBook
from tests.kalshi.frames import NaiveBook, levels
from tests.real_data.report import Report

Moments = dict[str, set[int]]
"""Market ticker -> what its book was, moment by moment, in the sockets' sessions: hashes of both sides' levels."""

OTHER = "no message of a book: only its number in the sequence was looked at"
LATE = "a change of a market whose snapshot came before the file begins"
NO_SESSION = "a book of a market that is in none of the socket sessions given: its levels were read by themselves"
NO_BOOK = "an answer that is no book"
_FAULTS = (
    "unparsed", "seq_gaps", "duplicates", "restarts", "negative", "crossed", "refused", "dropped", "foreign"
)  # fmt: skip
_T0_NS = 1_795_176_000_000_000_000
_FINEST = 1  # 0.0001 dollars: every grid is on it


def check_socket(name: str, rows: Sequence[dict[str, Any]], moments: Moments) -> Report:
    """Every message applies to a valid book: no gap in `seq`, no negative level, no crossed book.

    The books are kept a second time by plain arithmetic on the texts, and are the same after every message.
    """
    report = Report(name)
    feed = BookFeed()
    naive: dict[str, NaiveBook] = defaultdict(NaiveBook)
    seen: set[int] = set()
    for number, row in enumerate(rows):
        kind, sid, label = row["type"], row.get("sid"), f"message {number + 1}"
        if kind == "subscribed":
            sid = row["msg"]["sid"]
            if sid in seen:
                feed.reset("another connection")
                seen, naive = set(), defaultdict(NaiveBook)
        elif kind.startswith("orderbook_") and sid not in seen:  # the file begins in the middle of a session
            known = {"type": "subscribed", "id": 1, "msg": {"channel": "orderbook_delta", "sid": sid}}
            feed.apply(json.dumps(known).encode(), _T0_NS)
        if isinstance(sid, int):
            seen.add(sid)
        before = {fault: getattr(feed, fault) for fault in _FAULTS}
        ticker = row["msg"].get("market_ticker", "") if isinstance(row.get("msg"), dict) else ""
        if kind.startswith("orderbook_"):
            feed.watch(ticker, _FINEST)
        changed = feed.apply(json.dumps(row).encode(), _T0_NS + number)
        wrong = [fault for fault in _FAULTS if getattr(feed, fault) != before[fault]]
        if kind == "orderbook_delta" and not naive[ticker].good and not set(wrong) - {"dropped"}:
            report.name_it(LATE, label)
        elif wrong:
            report.fail(f"{', '.join(wrong)} in the feed", label)
        elif not kind.startswith("orderbook_"):
            _other(report, kind, label)
        else:
            (naive[ticker].load if kind == "orderbook_snapshot" else naive[ticker].change)(row["msg"])
            _compare(report, feed.pairs[ticker], naive[ticker], changed, label)
            moments.setdefault(ticker, set()).add(_hash(feed.pairs[ticker].yes))
    return report


def _other(report: Report, kind: str, label: str) -> None:
    if kind in ("subscribed", "unsubscribed", "ok"):
        report.explain()
    else:
        report.name_it(f"{OTHER} ({kind})", label)


def _compare(report: Report, pair: BookPair, naive: NaiveBook, changed: int, label: str) -> None:
    if not changed:
        report.fail("a message of a book changed nothing", label)
    elif not naive.good:
        report.fail("a level below zero", label)
    elif not (pair.yes.valid and pair.no.valid):
        report.fail(f"the book is not valid: {pair.yes.reason}", label)
    elif levels(pair.yes) != naive.yes() or levels(pair.no) != naive.no():
        report.fail("the book is not that of plain arithmetic", label)
    else:
        report.explain()


def _hash(book: OrderBook) -> int:
    bids, asks = levels(book)
    return hash((frozenset(bids.items()), frozenset(asks.items())))


def check_books(name: str, rows: Iterable[dict[str, Any]], moments: Moments) -> Report:
    """A book of REST is what the socket's book was at some moment."""
    report = Report(name)
    for number, row in enumerate(rows):
        label = f"answer {number + 1}"
        try:
            body = json.loads(row["response_body"])
            depth = body["orderbook_fp"]
        except (ValueError, KeyError, TypeError):
            report.name_it(NO_BOOK, label)
            continue
        ticker = row["url"].partition("?")[0].rstrip("/").split("/")[-2]
        pair = BookPair(ticker, _FINEST)
        try:
            pair.load(depth.get("yes_dollars") or (), depth.get("no_dollars") or (), 0, 0)
        except (ValueError, ArithmeticError, msgspec.ValidationError) as error:
            report.fail(f"{type(error).__name__}: {error}"[:120], label)
            continue
        best = pair.yes.best_bid, pair.yes.best_ask
        if None not in best and not Decimal(0) < best[0] < best[1] < 1:  # type: ignore[operator]
            report.fail("a crossed book", label)
        elif ticker not in moments:
            report.name_it(NO_SESSION, label)
        elif _hash(pair.yes) not in moments[ticker]:
            report.fail("the socket's book of this market was never this", label)
        else:
            report.explain()
    return report
