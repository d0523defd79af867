"""The order book alone: pmkit beside ccxt's and beside dicts of Decimal, on the same changes, in one interleaved run.

    python -m benchmarks.book [--rounds 7] [--changes 20000] [--json FILE]

Every contender gets the changes as its own feed would have them decoded (ticks and units; floats; Decimals), applies
them one at a time and reads best bid and best ask after each. "pmkit + touch" also stamps the book and settles its
validity after every single change: a feed does that once per message, and no peer does it at all.

What is counted is CPU time of the process. An untimed pass compares the best prices of all: a contender that disagrees
ends the run. Prints one JSON object per case and contender, then a table. Use the ratios, not the times: they are
medians of per-round ratios.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks._ccxt import book_class
from pmkit.exchanges.numbers import delta_units, price_ticks, prices, size_units
from pmkit.exchanges.orderbook import ASK, BID, OrderBook

Change = tuple[int, int, int]  # side, tick of 0.001 dollars, size in 0.01 shares; 0 removes
UNIT, TICKS = 10, 1000

# reference/performance.md, G4, G5 and G20: what this program is held to. (case, peer) -> least ratio peer / pmkit.
GOALS = {("dense", "ccxt"): 3.0, ("sparse", "ccxt"): 2.0, ("dense", "dict+Decimal"): 20.0, ("memory", "ccxt"): 1.0}


# -- the changes ----------------------------------------------------------------------------------------------------


def dense(count: int, seed: int = 1) -> list[Change]:
    """60 levels a side around a walking price; 35 % of the changes remove."""
    rng, mid, out = random.Random(seed), 500, []
    for _ in range(count):
        if rng.random() < 0.02:
            mid = min(900, max(100, mid + rng.choice((-1, 1))))
        side = rng.randrange(2)
        away = 1 + min(int(rng.expovariate(1 / 20)), 59)
        out.append((side, mid + away if side else mid - away, 0 if rng.random() < 0.35 else rng.randint(1, 10**6)))
    return out


def sparse(count: int, seed: int = 2) -> list[Change]:
    """At most four levels a side, far apart, the best one often removed: a market near its end."""
    rng, out = random.Random(seed), []
    live: tuple[set[int], set[int]] = (set(), set())
    for _ in range(count):
        side = rng.randrange(2)
        if live[side] and (len(live[side]) >= 4 or rng.random() < 0.5):
            best = (min if side else max)(live[side])
            tick = best if rng.random() < 0.6 else rng.choice(sorted(live[side]))
            live[side].discard(tick)
            out.append((side, tick, 0))
        else:
            tick = rng.randrange(501, 1000) if side else rng.randrange(1, 501)
            live[side].add(tick)
            out.append((side, tick, rng.randint(1, 10**6)))
    return out


def recorded(count: int) -> list[Change] | None:
    """A recorded Kalshi session as absolute sizes per market, `count` at most; None without recordings."""
    root = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
    root = Path(os.environ.get("PMKIT_RECORDINGS") or root)
    path = root / "kalshi" / "sessions" / "ws_orderbook_20260701T0231Z_first180s.jsonl.gz"
    if not path.is_file():
        return None
    ticks = price_ticks(UNIT)
    sizes: dict[tuple[str, int, int], int] = {}
    streams: dict[str, list[Change]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            frame = json.loads(line)
            message = frame["msg"]
            if frame["type"] == "orderbook_snapshot":
                levels = [("yes", *level) for level in message.get("yes_dollars_fp", [])]
                levels += [("no", *level) for level in message.get("no_dollars_fp", [])]
            elif frame["type"] == "orderbook_delta":
                levels = [(message["side"], message["price_dollars"], message["delta_fp"])]
            else:
                continue
            market = message["market_ticker"]
            for word, price, delta in levels:
                side, tick = (BID, ticks[price]) if word == "yes" else (ASK, TICKS - ticks[price])
                size = sizes[market, side, tick] = sizes.get((market, side, tick), 0) + delta_units(delta, 100)
                streams.setdefault(market, []).append((side, tick, size))
    # One book per run: the market with the most changes.
    return max(streams.values(), key=len)[:count]


# -- the contenders -------------------------------------------------------------------------------------------------


def new_book(unit: int = UNIT) -> OrderBook:
    """A valid, empty book."""
    book = OrderBook(venue="kalshi", market_id="BENCH", outcome="YES", unit=unit)
    book.snapshot([], [], 0, 1)
    return book


def full_book(unit: int = UNIT) -> OrderBook:
    """60 levels a side next to 0.5."""
    book, half = new_book(unit), 10_000 // unit // 2
    for n in range(60):
        book.set(BID, half - 1 - n, size_units(f"{1000 + n * 7}.25", 100))
        book.set(ASK, half + 1 + n, size_units(f"{1000 + n * 9}.5", 100))
    book.touch(1, 1)
    return book


def ccxt_book() -> Any:
    """ccxt's book with the levels of `full_book(10)`; None where ccxt is not installed."""
    try:
        book = book_class()()
    except ImportError:
        return None
    for n in range(60):
        book["bids"].storeArray([float(f"{0.499 - n / 1000:.3f}"), float(f"{1000 + n * 7}.25")])
        book["asks"].storeArray([float(f"{0.501 + n / 1000:.3f}"), float(f"{1000 + n * 9}.5")])
    return book


def run_pmkit(changes: list[Change], bests: list[tuple[int, int]] | None = None) -> int:
    book = new_book()
    start = time.process_time_ns()
    for side, tick, size in changes:
        if side:
            book.set_ask(tick, size)
        else:
            book.set_bid(tick, size)
        bid, ask = book.best_bid_tick, book.best_ask_tick
        if bests is not None:
            bests.append((bid, ask))
    return time.process_time_ns() - start


def run_pmkit_touch(changes: list[Change], bests: list[tuple[int, int]] | None = None) -> int:
    """With what no peer does and a feed does once per message: stamps and validity."""
    book = new_book()
    start = time.process_time_ns()
    for side, tick, size in changes:
        if side:
            book.set_ask(tick, size)
        else:
            book.set_bid(tick, size)
        book.touch(1, 2)
        bid, ask = book.best_bid_tick, book.best_ask_tick
        if bests is not None:
            bests.append((bid, ask))
    return time.process_time_ns() - start


def run_ccxt(changes: list[tuple[int, float, float]], bests: list[tuple[int, int]] | None = None) -> int:
    book = book_class()()
    start = time.process_time_ns()
    for side, price, size in changes:
        book["asks" if side else "bids"].storeArray([price, size])
        bids, asks = book["bids"], book["asks"]
        bid = bids[0][0] if bids else None
        ask = asks[0][0] if asks else None
        if bests is not None:
            bests.append((-1 if bid is None else round(bid * TICKS), -1 if ask is None else round(ask * TICKS)))
    return time.process_time_ns() - start


def run_decimal(changes: list[tuple[int, Decimal, Decimal]], bests: list[tuple[int, int]] | None = None) -> int:
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    start = time.process_time_ns()
    for side, price, size in changes:
        levels = asks if side else bids
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)
        bid = max(bids) if bids else None
        ask = min(asks) if asks else None
        if bests is not None:
            bests.append((-1 if bid is None else int(bid * TICKS), -1 if ask is None else int(ask * TICKS)))
    return time.process_time_ns() - start


def deep_size(root: object) -> int:
    """Bytes of an object and all it alone refers to. The price table, one per process and step, is left out."""
    seen = {id(prices(unit)) for unit in (1, 10, 100)}
    stack, total = [root], 0
    while stack:
        item = stack.pop()
        if id(item) in seen or item is None or isinstance(item, type):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set):
            stack.extend(item)
        stack.extend(vars(item).values() if hasattr(item, "__dict__") else ())
        slots = (name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ()))
        stack.extend(getattr(item, name) for name in slots if hasattr(item, name))
    return total


# -- the run --------------------------------------------------------------------------------------------------------


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(case: str, changes: list[Change], rounds: int) -> list[dict[str, Any]]:
    """One row per contender. Raises SystemExit where the best prices differ."""
    floats = [(side, tick / TICKS, size / 100) for side, tick, size in changes]
    decimals = [(side, prices(UNIT)[tick], Decimal(size) / 100) for side, tick, size in changes]
    contenders: dict[str, Callable[..., int]] = {
        "pmkit": lambda bests=None: run_pmkit(changes, bests),
        "pmkit + touch": lambda bests=None: run_pmkit_touch(changes, bests),
        "dict+Decimal": lambda bests=None: run_decimal(decimals, bests),
    }
    if version("ccxt"):
        contenders["ccxt"] = lambda bests=None: run_ccxt(floats, bests)
    expected: list[tuple[int, int]] = []
    run_pmkit(changes, expected)
    for name, run in contenders.items():
        bests: list[tuple[int, int]] = []
        run(bests)
        if bests != expected:
            at = next(n for n, (mine, its) in enumerate(zip(expected, bests, strict=True)) if mine != its)
            raise SystemExit(f"{case}: after change {at} {name} has {bests[at]}, pmkit {expected[at]}: no comparison")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for n in range(rounds):
        random.Random(n).shuffle(order)
        for name in order:
            times[name].append(contenders[name]() / len(changes))
    checksum = sum((bid + 2) * (ask + 3) for bid, ask in expected)
    rows = [row(case, name, "ns/change", times[name], times["pmkit"], checksum) for name in contenders]
    return rows if "ccxt" in contenders else [*rows, skipped(case, "ccxt", "not installed")]


def row(
    case: str, name: str, unit: str, values: list[float], own: list[float], checksum: int | None
) -> dict[str, Any]:
    ratios = [value / mine for value, mine in zip(values, own, strict=True)]
    return {
        "bench": "book", "case": case, "contender": name, "unit": unit, "rounds": len(values), "checksum": checksum,
        "median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1),
        "ratio_to_pmkit": round(statistics.median(ratios), 2),
        "ratio_lo": round(min(ratios), 2), "ratio_hi": round(max(ratios), 2),
    }  # fmt: skip


def skipped(case: str, name: str, why: str) -> dict[str, Any]:
    return {"bench": "book", "case": case, "contender": name, "skipped": why}


def memory() -> list[dict[str, Any]]:
    """One book of 0.001 dollars with 60 levels a side."""
    own = deep_size(full_book()) / 1024
    plain = [
        {level.price: level.size for level in full_book().levels("BID")},
        {level.price: level.size for level in full_book().levels("ASK")},
    ]
    # Decimal prices of the table are shared there and would be the dict's own here.
    decimal = (deep_size(plain) + 120 * sys.getsizeof(Decimal("0.123"))) / 1024
    rows = [row("memory", "pmkit", "KiB", [own], [own], None)]
    peer = ccxt_book()
    if peer is None:
        rows.append(skipped("memory", "ccxt", "not installed"))
    else:
        rows.append(row("memory", "ccxt", "KiB", [deep_size(peer) / 1024], [own], None))
    return [*rows, row("memory", "dict+Decimal", "KiB", [decimal], [own], None)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.book", description="The order book alone.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--changes", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="also write the JSON objects to this file, one per line")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case, changes in (
        ("dense", dense(options.changes)),
        ("sparse", sparse(options.changes)),
        ("recorded Kalshi", recorded(options.changes)),
    ):
        rows += measure(case, changes, options.rounds) if changes else [skipped(case, "all", "no recordings")]
    rows += memory()
    about = {
        "versions": {"python": platform.python_version(), "ccxt": version("ccxt")},
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }
    lines = [json.dumps(found | about) for found in rows]
    print("\n".join(lines))
    if options.json:
        options.json.write_text("".join(f"{line}\n" for line in lines))
    print(f"\n{'case':<16} {'contender':<16} {'median':>10} {'unit':<10} {'x pmkit':>8} {'lo - hi':>15}  goal")
    for found in rows:
        if "skipped" in found:
            print(f"{found['case']:<16} {found['contender']:<16} skipped: {found['skipped']}")
            continue
        goal, ratio = GOALS.get((found["case"], found["contender"])), found["ratio_to_pmkit"]
        verdict = "" if goal is None else f">= {goal:g} {'met' if ratio >= goal else 'MISSED'}"
        spread = f"{found['ratio_lo']:.2f} - {found['ratio_hi']:.2f}"
        print(
            f"{found['case']:<16} {found['contender']:<16} {found['median']:>10.1f} {found['unit']:<10} {ratio:>8.2f} "
            f"{spread:>15}  {verdict}"
        )
    own = {found["case"]: found["median"] for found in rows if found["contender"] == "pmkit"}
    cliff = own["dense"] / own["sparse"]
    print(f"\nno cliff on thin books: dense / sparse {cliff:.2f}, goal >= 0.6 {'met' if cliff >= 0.6 else 'MISSED'}")


if __name__ == "__main__":
    main()
