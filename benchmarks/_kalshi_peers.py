"""Kalshi's peers with their own decoding and book code; runs in their environment and imports nothing of pmkit.

Reads one JSON line per task, {"peer", "frames", "touches"}, and answers each with one JSON line. `frames` is a file of
frames, one a line. `touches` asks for the best bid and ask after every frame, in units of 0.0001 dollars (-1 for an
empty side), instead of the CPU time in ns.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Quote = Callable[[str, Any, Any], None]


def pykalshi(quote: Quote) -> Callable[[bytes], None]:
    """`Feed`'s parser, and `OrderbookManager` as its docstring says to use it."""
    from pykalshi.feed import OrderbookDeltaMessage, OrderbookSnapshotMessage, _parse_message
    from pykalshi.orderbook import OrderbookManager

    books: dict[str, Any] = {}

    def apply(frame: bytes) -> None:
        message = _parse_message(frame)[2]
        if isinstance(message, OrderbookDeltaMessage):
            book = books[message.market_ticker]
            book.apply_delta(message.side, message.price_dollars, message.delta_fp)
        elif isinstance(message, OrderbookSnapshotMessage):
            book = books.setdefault(message.market_ticker, OrderbookManager(message.market_ticker))
            book.apply_snapshot(message.yes_dollars_fp, message.no_dollars_fp)
        else:
            return
        quote(book.ticker, book.best_bid, book.best_ask)

    return apply


def kalshi_sdk(quote: Quote) -> Callable[[bytes], None]:
    """What its receive loop does with a book frame: json, the sequence, the model, the book; then the public book."""
    from kalshi.ws.models.orderbook_delta import OrderbookDeltaMessage, OrderbookSnapshotMessage
    from kalshi.ws.orderbook import OrderbookManager
    from kalshi.ws.sequence import SequenceTracker

    manager, tracker = OrderbookManager(), SequenceTracker()

    def apply(frame: bytes) -> None:
        data = json.loads(frame)
        kind = data["type"]
        if kind not in ("orderbook_delta", "orderbook_snapshot"):
            return
        fits, gap = tracker.track_sync(data["sid"], data["seq"], kind)
        if not fits or gap is not None:
            raise ValueError(f"a gap in the frames: {gap}")
        if kind == "orderbook_delta":
            book = manager.apply_delta(OrderbookDeltaMessage.model_validate(data))
        else:
            book = manager.apply_snapshot(OrderbookSnapshotMessage.model_validate(data))
        if book is not None:
            bid = book.yes[-1].price if book.yes else None
            quote(book.ticker, bid, 1 - book.no[-1].price if book.no else None)

    return apply


PEERS = {"pykalshi": pykalshi, "kalshi-sdk": kalshi_sdk}


def answer(task: dict[str, Any], files: dict[str, list[bytes]]) -> dict[str, Any]:
    """One task. What a peer raises is its answer."""
    name, path = task["peer"], task["frames"]
    if path not in files:
        with open(path, "rb") as file:
            files[path] = file.read().splitlines()
    frames = files[path]
    touches: list[tuple[str, int, int]] = []

    def record(key: str, bid: Any, ask: Any) -> None:
        units = [-1 if price is None else round(Decimal(price) * 10_000) for price in (bid, ask)]
        touches.append((key, *units))

    def count(key: str, bid: Any, ask: Any) -> None:
        pass

    try:
        apply = PEERS[name](record if task["touches"] else count)
        begun = time.process_time_ns()
        for frame in frames:
            apply(frame)
        spent = time.process_time_ns() - begun
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    return {"touches": touches} if task["touches"] else {"cpu_ns": spent}


def main() -> None:
    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    print(json.dumps({"python": platform.python_version(), "versions": versions}), flush=True)
    files: dict[str, list[bytes]] = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), files)), flush=True)


if __name__ == "__main__":
    main()
