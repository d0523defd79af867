"""Frames for the feed benchmarks: seeded ones that look like the venues', and the recorded ones repeated.

    python -m benchmarks.traffic      prints what each case is made of

A `Traffic` begins with a snapshot of every book, so that every contender starts from the same state, and holds text
frames only as a venue sends them. Everything in it is consistent: no book is crossed after a frame, every
`price_change` carries the touch after it, sequence numbers have no gap, no level goes below zero.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = 1000  # a price step of 0.001 dollars
START_MS = 1_735_689_600_000  # 2025-01-01: long ago on any clock, since a stamp of the future is refused
MARKET = "0x5f65177b394277fd294cd75650044e32ba009a95022d88a0c1d565897d72f8f1"
UP = "53431787537752012142983832748108156250609349559570426386983233069951903949794"
DOWN = "59786788470364361604591183412024344418114800306777148865664445470075376616491"
TICKER = "KXBTC15M-26NOV201200-00"
STAMP = re.compile(r'("timestamp":\s?")(\d{13})(")')
SEQ = re.compile(r'("seq":)(\d+)')

Change = tuple[int, int, int]  # side (0 bid, 1 ask), tick, new size in 0.01 shares; 0 removes


@dataclass(frozen=True)
class Traffic:
    """`books`: Polymarket token ids or Kalshi tickers. `kinds`: how many frames of each type."""

    venue: str
    case: str
    frames: list[bytes]
    books: tuple[str, ...]
    kinds: dict[str, int]

    @property
    def mean_bytes(self) -> float:
        return statistics.fmean(map(len, self.frames))


# -- levels that come and go ----------------------------------------------------------------------------------------


class Levels:
    """Bids and asks of one outcome, tick -> size in 0.01 shares."""

    def __init__(self) -> None:
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def put(self, change: Change) -> None:
        side, tick, size = change
        if size:
            self.sides[side][tick] = size
        else:
            self.sides[side].pop(tick, None)

    @property
    def touch(self) -> tuple[int, int]:
        """Best bid and best ask tick; 0 and TICKS for an empty side, as the venues write it."""
        return max(self.sides[0], default=0), min(self.sides[1], default=TICKS)


def dense(rng: random.Random, levels: Levels) -> Iterator[Change]:
    """About 60 levels a side around a walking price; 35 % of the changes remove."""
    mid = 500
    for away in range(60):
        yield 0, mid - 1 - away, rng.randint(1, 500_000)
        yield 1, mid + 1 + away, rng.randint(1, 500_000)
    while True:
        if rng.random() < 0.02:
            mid = min(900, max(100, mid + rng.choice((-1, 1))))
            # What the price has walked over goes first: no message may leave the book crossed.
            yield from [(0, tick, 0) for tick in levels.sides[0] if tick >= mid]
            yield from [(1, tick, 0) for tick in levels.sides[1] if tick <= mid]
        side = rng.randrange(2)
        away = 1 + min(int(rng.expovariate(1 / 20)), 59)
        tick = mid + away if side else mid - away
        remove = rng.random() < 0.35 and tick in levels.sides[side] and len(levels.sides[side]) > 5
        yield side, tick, 0 if remove else rng.randint(1, 500_000)


def thin(rng: random.Random, levels: Levels) -> Iterator[Change]:
    """At most four levels a side, far apart, the best one often removed, a side often empty: a market near its end."""
    while True:
        side = rng.randrange(2)
        live = levels.sides[side]
        if live and (len(live) >= 4 or rng.random() < 0.5):
            best = (min if side else max)(live)
            yield side, best if rng.random() < 0.6 else rng.choice(sorted(live)), 0
        else:
            yield side, rng.randrange(501, TICKS) if side else rng.randrange(1, 501), rng.randint(1, 500_000)


# -- Polymarket -----------------------------------------------------------------------------------------------------

# type -> share of the frames. With them the dense case has the mean of about 734 bytes that was modelled before.
POLYMARKET_MIX = {"change": 0.755, "changes": 0.12, "many": 0.035, "book": 0.014, "trade": 0.05, "touch": 0.026}
CHANGES = {"change": 1, "changes": 2, "many": 4}


def dollars(tick: int) -> str:
    """As the venue writes it: 0.5, 0.512, 0, 1."""
    return f"{tick / TICKS:.3f}".rstrip("0").rstrip(".")


def shares(size: int) -> str:
    return f"{size / 100:.2f}".rstrip("0").rstrip(".")


def polymarket(count: int, kind: str = "dense", seed: int = 1) -> Traffic:
    """`count` frames of one market; both outcomes are told of every change, mirrored."""
    rng, levels = random.Random(seed), Levels()
    stream = (dense if kind == "dense" else thin)(rng, levels)
    stamp = START_MS
    kinds: dict[str, int] = {}

    def hash_of() -> str:
        return f"{rng.getrandbits(160):040x}"

    def encode(content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()

    def book(token: str) -> dict[str, Any]:
        bids, asks = levels.sides
        if token == DOWN:
            bids, asks = ({TICKS - tick: size for tick, size in side.items()} for side in (asks, bids))
        return {
            "market": MARKET, "asset_id": token, "timestamp": str(stamp), "hash": hash_of(),
            "bids": [{"price": dollars(tick), "size": shares(bids[tick])} for tick in sorted(bids)],
            "asks": [{"price": dollars(tick), "size": shares(asks[tick])} for tick in sorted(asks, reverse=True)],
            "tick_size": "0.001", "event_type": "book", "last_trade_price": "0.5",
        }  # fmt: skip

    def change(entry: Change) -> list[dict[str, str]]:
        side, tick, size = entry
        bid, ask = levels.touch
        both = []
        for token, price, word, best in (
            (UP, tick, ("BUY", "SELL")[side], (bid, ask)),
            (DOWN, TICKS - tick, ("SELL", "BUY")[side], (TICKS - ask, TICKS - bid)),
        ):
            both.append({
                "asset_id": token, "price": dollars(price), "size": shares(size), "side": word, "hash": hash_of(),
                "best_bid": dollars(best[0]), "best_ask": dollars(best[1]),
            })  # fmt: skip
        return both

    if kind == "dense":
        for _ in range(120):
            levels.put(next(stream))
    frames = [encode([book(UP), book(DOWN)])]
    names, weights = list(POLYMARKET_MIX), list(POLYMARKET_MIX.values())
    while len(frames) < count:
        stamp += rng.randrange(6)
        name = rng.choices(names, weights)[0]
        if name in CHANGES:
            entries = []
            for _ in range(CHANGES[name]):
                entries.append(next(stream))
                levels.put(entries[-1])
            changes = [both for entry in entries for both in change(entry)]
            event = {"market": MARKET, "price_changes": changes, "timestamp": str(stamp), "event_type": "price_change"}
        elif name == "book":
            event = book(rng.choice((UP, DOWN)))
        elif name == "trade":
            event = {
                "market": MARKET, "asset_id": UP, "price": dollars(levels.touch[1]),
                "size": shares(rng.randint(1, 9999)), "fee_rate_bps": "0", "side": "BUY",
                "timestamp": str(stamp), "event_type": "last_trade_price",
                "transaction_hash": f"0x{rng.getrandbits(256):064x}",
            }  # fmt: skip
        else:
            bid, ask = levels.touch
            event = {
                "market": MARKET, "asset_id": UP, "best_bid": dollars(bid), "best_ask": dollars(ask),
                "spread": dollars(ask - bid), "timestamp": str(stamp), "event_type": "best_bid_ask",
            }  # fmt: skip
        kinds[event["event_type"]] = kinds.get(event["event_type"], 0) + 1
        frames.append(encode(event))
    return Traffic("polymarket", kind, frames, (UP, DOWN), {"list of 2 books": 1, **kinds})


# -- Kalshi ---------------------------------------------------------------------------------------------------------


def kalshi(count: int, kind: str = "dense", seed: int = 1) -> Traffic:
    """`count` frames of one market: a snapshot, then changes, and every twentieth frame a public trade."""
    rng, levels = random.Random(seed), Levels()
    stream = (dense if kind == "dense" else thin)(rng, levels)
    if kind == "dense":
        for _ in range(120):
            levels.put(next(stream))

    def price(tick: int) -> str:
        return f"{tick / TICKS:.4f}"

    def encode(content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()

    bids, asks = levels.sides
    frames = [
        encode({
            "type": "orderbook_snapshot", "sid": 1, "seq": 1,
            "msg": {
                "market_ticker": TICKER, "market_id": "492cb255-91da-4c91-bc9e-f83d090cc6dd",
                "yes_dollars_fp": [[price(tick), f"{bids[tick] / 100:.2f}"] for tick in sorted(bids)],
                "no_dollars_fp": [
                    [price(TICKS - tick), f"{asks[tick] / 100:.2f}"] for tick in sorted(asks, reverse=True)
                ],
            },
        })
    ]  # fmt: skip
    kinds = {"orderbook_snapshot": 1, "orderbook_delta": 0, "trade": 0}
    stamp, seq, trades = START_MS, 1, 0
    while len(frames) < count:
        stamp += rng.randrange(40)
        stamp_text = f"2025-01-01T00:00:00.{stamp % 1000:03d}Z"
        if len(frames) % 20 == 0:
            trades += 1
            event = {
                "type": "trade", "sid": 2, "seq": trades,
                "msg": {
                    "trade_id": f"{rng.getrandbits(128):032x}", "market_ticker": TICKER,
                    "yes_price_dollars": price(levels.touch[1]), "no_price_dollars": price(TICKS - levels.touch[1]),
                    "count_fp": f"{rng.randint(1, 99_999) / 100:.2f}", "taker_side": "yes", "ts": stamp // 1000,
                    "ts_ms": stamp,
                },
            }  # fmt: skip
        else:
            side, tick, size = entry = next(stream)
            before = levels.sides[side].get(tick, 0)
            if size == before:
                continue
            levels.put(entry)
            seq += 1
            event = {
                "type": "orderbook_delta", "sid": 1, "seq": seq,
                "msg": {
                    "market_ticker": TICKER, "market_id": "492cb255-91da-4c91-bc9e-f83d090cc6dd",
                    "price_dollars": price(TICKS - tick if side else tick), "delta_fp": f"{(size - before) / 100:.2f}",
                    "side": ("yes", "no")[side], "ts": stamp_text, "ts_ms": stamp,
                },
            }  # fmt: skip
        kinds[event["type"]] += 1
        frames.append(encode(event))
    return Traffic("kalshi", kind, frames, (TICKER,), kinds)


# -- recordings -----------------------------------------------------------------------------------------------------


def recordings() -> Path | None:
    """The directory of recordings; None without one."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
    root = Path(os.environ.get("PMKIT_RECORDINGS") or beside)
    return root if root.is_dir() else None


def recorded_polymarket(count: int) -> Traffic | None:
    """The socket frames of the longest recorded session, repeated until there are `count`, each time with later stamps.

    It was recorded by a program that subscribed anew every minute: most bytes are whole books, six to a frame.
    """
    root = recordings()
    path = root / "polymarket" / "sessions" / "mixed_20260429T0210Z_30min.jsonl.gz" if root else None
    if path is None or not path.is_file():
        return None
    once: list[str] = []
    kinds: dict[str, int] = {}
    books: dict[str, None] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["source"] != "polymarket_clob":
                continue
            event = json.loads(row["payload"])
            items = event if isinstance(event, list) else [event]
            if any("event_type" not in item for item in items):
                continue  # a REST book
            kind = f"list of {len(items)} {items[0]['event_type']}s" if event is items else items[0]["event_type"]
            kinds[kind] = kinds.get(kind, 0) + 1
            books.update({item["asset_id"]: None for item in items if item["event_type"] == "book"})
            once.append(row["payload"])
    stamps = [int(found[1]) for text in once for found in STAMP.findall(text)]
    span = max(stamps) - min(stamps) + 1
    frames = _repeated(
        once, count, lambda text, turn: STAMP.sub(lambda at: f"{at[1]}{int(at[2]) + turn * span}{at[3]}", text)
    )
    return Traffic("polymarket", "recorded", frames, tuple(books), kinds)


def recorded_kalshi(count: int) -> Traffic | None:
    """Snapshots and changes of the recorded session, repeated until there are `count`, numbered on without a gap."""
    root = recordings()
    path = root / "kalshi" / "sessions" / "ws_orderbook_20260701T0231Z_first180s.jsonl.gz" if root else None
    if path is None or not path.is_file():
        return None
    once: list[str] = []
    kinds: dict[str, int] = {}
    books: dict[str, None] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            frame = json.loads(line)
            if frame["type"] not in ("orderbook_snapshot", "orderbook_delta"):
                continue
            kinds[frame["type"]] = kinds.get(frame["type"], 0) + 1
            books[frame["msg"]["market_ticker"]] = None
            once.append(line.strip())
    numbers = iter(range(1, 1 << 60))
    frames = _repeated(once, count, lambda text, turn: SEQ.sub(lambda at: f"{at[1]}{next(numbers)}", text, count=1))
    return Traffic("kalshi", "recorded", frames, tuple(books), kinds)


def _repeated(once: list[str], count: int, change: Callable[[str, int], str]) -> list[bytes]:
    """Whole repetitions only: a repetition begins with snapshots."""
    frames: deque[bytes] = deque()
    for turn in range(max(1, round(count / len(once)))):
        frames.extend(change(text, turn).encode() for text in once)
    return list(frames)


def cases(count: int) -> list[Traffic | tuple[str, str]]:
    """Every case; (venue, reason) where its recordings are not there."""
    missing = "no recordings"
    return [
        polymarket(count),
        polymarket(count, "thin"),
        recorded_polymarket(max(1, count // 10)) or ("polymarket", missing),  # frames ten times as large
        kalshi(count),
        kalshi(count, "thin"),
        recorded_kalshi(count) or ("kalshi", missing),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description="What the feed benchmarks send.")
    parser.add_argument("--frames", type=int, default=20_000)
    options, _ = parser.parse_known_args()
    for case in cases(options.frames):
        if isinstance(case, tuple):
            print(f"{case[0]:<12} recorded   skipped: {case[1]}")
            continue
        what = ", ".join(f"{number} {kind}" for kind, number in case.kinds.items())
        print(f"{case.venue:<12} {case.case:<10} {len(case.frames)} frames, mean {case.mean_bytes:.0f} B: {what}")


if __name__ == "__main__":
    main()
