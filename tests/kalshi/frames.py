"""Frames as Kalshi sends them, and a book that is kept the naive way, for comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pmkit.exchanges.kalshi.book_feed import BookFeed
from pmkit.exchanges.orderbook import OrderBook

T = "KXBTC15M-26NOV202015-15"
U = "KXETH15M-26NOV202015-15"
T0_NS = 1_795_176_000_000_000_000


def encode(frame: Mapping[str, Any]) -> bytes:
    return json.dumps(frame, separators=(",", ":")).encode()


def subscribed(sid: int = 1, channel: str = "orderbook_delta", id_: int = 1) -> bytes:
    return encode({"type": "subscribed", "id": id_, "msg": {"channel": channel, "sid": sid}})


def snapshot(
    seq: int,
    yes: Iterable[tuple[str, str]] | None = (),
    no: Iterable[tuple[str, str]] | None = (),
    *,
    ticker: str = T,
    sid: int = 1,
    **more: Any,
) -> bytes:
    msg: dict[str, Any] = {"market_ticker": ticker, "market_id": "9b0f"}
    if yes is not None:
        msg["yes_dollars_fp"] = [list(level) for level in yes]
    if no is not None:
        msg["no_dollars_fp"] = [list(level) for level in no]
    return encode({"type": "orderbook_snapshot", "sid": sid, "seq": seq, "msg": msg, **more})


def delta(
    seq: int, side: str, price: str, change: str, *, ticker: str = T, sid: int = 1, ts_ms: int = 1_795_176_000_000
) -> bytes:
    msg = {"market_ticker": ticker, "market_id": "9b0f", "price_dollars": price, "delta_fp": change, "side": side}
    return encode({"type": "orderbook_delta", "sid": sid, "seq": seq, "msg": {**msg, "ts": "x", "ts_ms": ts_ms}})


def levels(book: OrderBook) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
    return {at.price: at.size for at in book.levels("BID")}, {at.price: at.size for at in book.levels("ASK")}


def feed_of(*tickers: str, unit: int = 10) -> tuple[BookFeed, list[tuple[tuple[str, ...], str]]]:
    """A feed that watches these, and the list of (tickers, reason) that it asks snapshots for."""
    feed = BookFeed()
    asked: list[tuple[tuple[str, ...], str]] = []
    feed.on_resync = lambda sid, names, reason: asked.append((names, reason))
    for ticker in tickers:
        feed.watch(ticker, unit)
    return feed, asked


class NaiveBook:
    """One market in dicts of Decimal; `good` while its frames came in an unbroken run of numbers."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[Decimal, Decimal]] = {"yes": {}, "no": {}}
        self.good = False

    def load(self, msg: Mapping[str, Any]) -> None:
        self.good = True
        for side in ("yes", "no"):
            self.sides[side] = {
                Decimal(price): Decimal(size) for price, size in msg.get(f"{side}_dollars_fp") or () if Decimal(size)
            }

    def change(self, msg: Mapping[str, Any]) -> None:
        side = self.sides[msg["side"]]
        price = Decimal(msg["price_dollars"])
        size = side.get(price, Decimal(0)) + Decimal(str(msg["delta_fp"]))
        if size < 0:
            self.good = False
        elif size:
            side[price] = size
        else:
            side.pop(price, None)

    def yes(self) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        return self.sides["yes"], {1 - price: size for price, size in self.sides["no"].items()}

    def no(self) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        return self.sides["no"], {1 - price: size for price, size in self.sides["yes"].items()}
