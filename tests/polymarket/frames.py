"""Frames of the market channel as the venue writes them, and recorded ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmkit.exchanges.polymarket.book_feed import BookFeed

UP = "70895234396709025773342693203106560069237232969150325287750380631000454051832"
DOWN = "25801918911712881011657387719401686051305861072148365207414517688301028254647"
MARKET = "0x1d62e718f603a9a0320b8788031085fab71a2e63815ecafaf6e1c931e4386b05"
T0 = 1_795_176_000_000

Side = dict[str, str]


def ns(ms: int = T0) -> int:
    return ms * 1_000_000


def book(
    token: str = UP,
    bids: Side | None = None,
    asks: Side | None = None,
    *,
    at: int = T0,
    tick: str | None = "0.01",
    **more: Any,
) -> dict[str, Any]:
    """A `book` event; levels are given as price -> size and written in the venue's order."""
    bids = {"0.48": "30", "0.49": "20"} if bids is None else bids
    asks = {"0.52": "25", "0.53": "60"} if asks is None else asks
    event: dict[str, Any] = {
        "event_type": "book",
        "market": MARKET,
        "asset_id": token,
        "timestamp": str(at),
        "hash": "f0ab",
        "bids": [{"price": p, "size": bids[p]} for p in sorted(bids, key=float)],
        "asks": [{"price": p, "size": asks[p]} for p in sorted(asks, key=float, reverse=True)],
        "last_trade_price": "0.50",
    }
    if tick is not None:
        event["tick_size"] = tick
    return event | more


def change(price: str, size: str, side: str, bid: str | None, ask: str | None, token: str = UP) -> dict[str, Any]:
    entry = {"asset_id": token, "price": price, "size": size, "side": side, "hash": "f0ab"}
    if bid is not None:
        entry["best_bid"] = bid
    if ask is not None:
        entry["best_ask"] = ask
    return entry


def price_change(*changes: dict[str, Any], at: int = T0 + 1) -> dict[str, Any]:
    return {"event_type": "price_change", "market": MARKET, "timestamp": str(at), "price_changes": list(changes)}


def tick_change(new: str, old: str = "0.01", token: str = UP, at: int = T0 + 1) -> dict[str, Any]:
    return {
        "event_type": "tick_size_change",
        "market": MARKET,
        "asset_id": token,
        "old_tick_size": old,
        "new_tick_size": new,
        "timestamp": str(at),
    }


def trade(price: str, size: str, side: str, token: str = UP, at: int = T0 + 1, tx: str = "0xaa") -> dict[str, Any]:
    return {
        "event_type": "last_trade_price",
        "market": MARKET,
        "asset_id": token,
        "price": price,
        "size": size,
        "side": side,
        "fee_rate_bps": "0",
        "timestamp": str(at),
        "transaction_hash": tx,
    }


def raw(*events: Any) -> bytes:
    """One frame: an object, or an array where there are several."""
    return json.dumps(events[0] if len(events) == 1 else list(events), separators=(",", ":")).encode()


class Told:
    """What a feed told its shell."""

    def __init__(self, feed: BookFeed) -> None:
        self.lost: list[tuple[str, str]] = []
        self.doubts: list[tuple[str, int]] = []
        self.ticks: list[str] = []
        self.resolved: list[str] = []
        feed.on_lost = lambda token, reason: self.lost.append((token, reason))
        feed.on_doubt = lambda token, doubt: self.doubts.append((token, doubt))
        feed.on_tick = lambda live, tick: self.ticks.append(tick)
        feed.on_resolved = self.resolved.append


def make_feed(*snapshots: dict[str, Any]) -> tuple[BookFeed, Told]:
    """A feed of the two outcomes, with these books applied (a standard one of UP by default)."""
    feed = BookFeed()
    feed.add(UP, MARKET, "UP")
    feed.add(DOWN, MARKET, "DOWN")
    told = Told(feed)
    feed.connected(1)
    feed.apply(raw(*(snapshots or (book(),))), ns())
    return feed, told


SESSIONS = ("mixed_20260428T1404Z_6min", "mixed_20260429T0210Z_30min", "mixed_20260429T0312Z_current_window")


def markets_of(recordings: Path, session: str) -> list[dict[str, Any]]:
    path = recordings / "polymarket" / "sessions" / f"{session}.markets.jsonl.gz"
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def session_frames(recordings: Path, session: str) -> Iterator[tuple[bytes, int]]:
    """(frame of the market channel, receive time in ns) of a recorded session, without the REST books in it."""
    path = recordings / "polymarket" / "sessions" / f"{session}.jsonl.gz"
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if row["source"] == "polymarket_clob" and '"event_type"' in row["payload"]:
                yield row["payload"].encode(), row["recv_wall_ts"] * 1_000_000
