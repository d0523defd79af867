"""Candle history to CSV: pmkit beside its peers, against a local server with 50 ms of latency, in interleaved rounds.

    python -m benchmarks.history [--rounds 3] [--rows 500000] [--latency 0.05] [--without-memory] [--json FILE]

REST: pmkit fetches `--rows` 1s candles into a file, with its weight limiter on, in order, written and synced. The peers
fetch fewer (their own way, one page after another) and write the same CSV; what is compared is rows per second. Every
CSV is compared with what the server has (ccxt's numbers are floats: compared as floats). The server's limit is the real
one, 6000 a minute: all of a round is about 1,150 of it, so nobody waits for it; that pmkit would is measured apart,
with a limit so low that it has to (`budget`).

Then: page -> CSV alone, a bulk file on disk -> a synced CSV (a month of 1s candles in one zip: unzip, convert, write,
fsync), the same with its download and checksum, and the peak memory of a fresh process that fetches this month, over
bulk and over REST (there with a raised limit: at the real one a month takes minutes).

Peers that are not installed are printed as skipped. The exit code is 1 where a CSV is wrong or the budget was exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _history_server as venue
from benchmarks._history_contenders import (
    CCXT,
    CONTENDERS,
    MONTH_MS,
    PEER_ROWS,
    PYTHON_BINANCE,
    SECOND,
    SHARE,
    START,
    Contender,
    endpoints,
    pmkit,
    same,
    server,
    stats,
    version,
)
from pmkit.clock import ScaledClock, SystemClock
from pmkit.data.binance.bulk import BulkFacts, BulkZip
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.history import SYNC_BYTES
from pmkit.data.binance.plan import Bulk
from pmkit.data.binance.rows import page_rows
from pmkit.data.candle_file import HEADER, CandleFile

GOAL_RATIO = 25.0
GOAL_PAGE = 1_000_000
GOAL_BULK = 700_000
GOAL_MEMORY = 150.0


@dataclass
class Found:
    """All that was measured. `rate` in rows per second, by contender and round."""

    rate: dict[str, list[float]] = field(default_factory=dict)
    checksum: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)


def rest(found: Found, rounds: int, rows: int, latency: float) -> None:
    running = []
    for name in CONTENDERS:
        if name != "pmkit" and version(name) is None:
            found.skipped[name] = "not installed"
        else:
            running.append(name)
    for number in range(rounds):
        order = running.copy()
        random.Random(number).shuffle(order)
        # A server of its own each round: weights of the last one would make the limiter wait.
        with server(latency=latency) as url, tempfile.TemporaryDirectory() as place:
            asyncio.run(pmkit(url, min(rows, 20_000), Path(place, "warm")))  # imports, connections, ready-made pages
            for name in order:
                count = rows if name == "pmkit" else min(rows, PEER_ROWS[name])
                stats(url)
                began = time.perf_counter()
                csv = asyncio.run(_run(CONTENDERS[name], url, count, Path(place)))
                found.rate.setdefault(name, []).append(count / (time.perf_counter() - began))
                spent = stats(url)
                if name == "pmkit":
                    found.spent.append(spent["most"])
                if spent["refused"]:
                    found.failed.append(f"{name}: {spent['refused']} requests were refused with 429")
                if not same(name, count, csv):
                    found.failed.append(f"{name}: its CSV is not what the server has")
                found.checksum[name] = hashlib.sha256(csv).hexdigest()[:16]


async def _run(contender: Contender, url: str, rows: int, directory: Path) -> bytes:
    return await contender(url, rows, directory)


def budget(found: Found) -> None:
    """With a limit of 1000, of which 400 are ours, 300 pages (600) cannot be had within a minute of 3 seconds."""
    limit, minute, rows = 1000, 3.0, 300_000
    with server(limit=limit, minute=minute) as url, tempfile.TemporaryDirectory() as place:
        # A minute of market time passes in a little more than the server's, as clocks differ.
        now = SystemClock().now_ms()
        clock = ScaledClock(now, 60 / minute * 0.97, now)

        async def fetch() -> int:
            async with BinanceFetcher(endpoints(url), clock, share=SHARE) as fetcher:
                result = await fetcher.fetch("BTCUSDT", "1s", START, START + rows * SECOND, Path(place), source="rest")
                return result.rows

        count = asyncio.run(fetch())
        spent = stats(url)
    found.parts["budget"] = {"limit": limit, "share": SHARE, "most_in_a_minute": spent["most"], "rows": count}
    if spent["most"] > limit * SHARE or spent["refused"] or count != rows:
        found.failed.append(f"budget: {spent} for {count} rows")


def page(found: Found, rounds: int) -> None:
    """CPU time of one core; decoding, checking and writing the text of 1000 rows."""
    body = venue.page(START, START + 999 * SECOND, 1000)
    rates = []
    for _ in range(max(3, rounds)):
        began = time.process_time()
        for _ in range(200):
            chunk = page_rows(body, START, START + 1000 * SECOND, SECOND)
        rates.append(200_000 / (time.process_time() - began))
    if chunk is None or chunk.data != venue.csv(START, START + 1000 * SECOND):
        found.failed.append("page: the CSV is wrong")
    found.parts["page"] = {"rows_per_second": round(statistics.median(rates)), "lo": round(min(rates))}


def make_month(directory: Path) -> Path:
    """The monthly bulk file of March 2026 and its checksum."""
    name = "BTCUSDT-1s-2026-03"
    path = directory / f"{name}.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.csv", "w", force_zip64=True) as text,
    ):
        for at in range(START, START + MONTH_MS, 3_600_000):
            text.write(venue.bulk_lines(at, at + 3_600_000))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".CHECKSUM").write_text(f"{digest}  {path.name}\n")
    return path


def peak_kib() -> int:
    """The most memory this process has had. Where there is no /proc: ru_maxrss, which a child inherits from its parent
    over exec, and so is an upper bound.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


CHILD = """
import asyncio, json, re, sys, time
from pathlib import Path
from benchmarks import history
from pmkit.clock import SystemClock
from pmkit.data.binance.bulk import BulkFacts, BulkZip
from pmkit.data.binance.fetcher import BinanceFetcher

async def main():
    url, source, directory = sys.argv[1:]
    async with BinanceFetcher(history.endpoints(url), SystemClock(), share=history.SHARE) as fetcher:
        began, cpu = time.perf_counter(), time.process_time()
        found = await fetcher.fetch(
            "BTCUSDT", "1s", history.START, history.START + history.MONTH_MS, Path(directory), source=source
        )
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    about = {"wall": wall, "cpu": cpu, "peak_kib": history.peak_kib(), "file": str(found.files[0])}
    print(json.dumps({"rows": found.rows, "downloads": found.downloads, **about}))

asyncio.run(main())
"""


def convert(found: Found, path: Path) -> None:
    """A bulk file on this disk -> a synced CSV file: unzip, convert, write, fsync."""

    async def write() -> int:
        bulk = Bulk("2026-03", START, START + MONTH_MS, START, START + MONTH_MS)
        archive = BulkZip(bulk, path.open("rb"), SECOND, BulkFacts(bulk.name, "", "ok"))
        rows = 0
        with CandleFile(path.with_name("converted.csv")) as file:
            async for chunk in archive.chunks():
                file.append(chunk.data, chunk.first_ms, chunk.last_ms, every=SYNC_BYTES)
                rows += chunk.rows
            file.sync()
        await archive.close()
        return rows

    began, wall = time.process_time(), time.perf_counter()
    rows = asyncio.run(write())
    spent, wall = time.process_time() - began, time.perf_counter() - wall
    if rows != MONTH_MS // SECOND:
        found.failed.append(f"bulk file: {rows} rows")
    found.parts["bulk"] = {"rows_per_second": round(rows / wall), "rows_per_cpu_second": round(rows / spent)}


def month(found: Found, sources: tuple[str, ...]) -> None:
    """A month of 1s candles in a fresh process."""
    with tempfile.TemporaryDirectory() as place:
        convert(found, make_month(Path(place)))
        expected = hashlib.sha256(HEADER)
        for at in range(START, START + MONTH_MS, 86_400_000):
            expected.update(venue.csv(at, at + 86_400_000))
        with server(limit=100_000, bulk=place) as url:
            for source in sources:
                command = [sys.executable, "-c", CHILD, url, source, str(Path(place) / source)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout)
                with Path(row["file"]).open("rb") as file:
                    right = hashlib.file_digest(file, "sha256").hexdigest() == expected.hexdigest()
                if not right or (source == "bulk") != (row["downloads"] == 1):
                    found.failed.append(f"month over {source}: the CSV is wrong ({row})")
                found.parts[f"month {source}"] = {
                    "rows": row["rows"], "seconds": round(row["wall"], 2), "cpu_seconds": round(row["cpu"], 2),
                    "rows_per_second": round(row["rows"] / row["wall"]),
                    "rows_per_cpu_second": round(row["rows"] / row["cpu"]),
                    "peak_MiB": round(row["peak_kib"] / 1024, 1),
                }  # fmt: skip
                Path(row["file"]).unlink()


def rows_of(found: Found) -> list[dict[str, Any]]:
    """One JSON object per thing measured."""
    about = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("pmkit", "httpx", "msgspec", PYTHON_BINANCE, CCXT)},
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }
    out: list[dict[str, Any]] = [
        {"bench": "history", "case": "rest", "contender": name, "skipped": why} for name, why in found.skipped.items()
    ]
    for name, rates in found.rate.items():
        ratios = [own / peer for own, peer in zip(found.rate["pmkit"], rates, strict=True)]
        out.append(
            {
                "bench": "history", "case": "rest", "contender": name, "unit": "rows/s", "rounds": len(rates),
                "median": round(statistics.median(rates)), "min": round(min(rates)), "max": round(max(rates)),
                "pmkit_is_times": round(statistics.median(ratios), 2),
                "ratio_lo": round(min(ratios), 2), "ratio_hi": round(max(ratios), 2),
                "checksum": found.checksum[name],
            }
        )  # fmt: skip
    out += [{"bench": "history", "case": case, "contender": "pmkit", **part} for case, part in found.parts.items()]
    return [row | about for row in out]


def goals(found: Found) -> Iterator[str]:
    def line(what: str, value: float, goal: float, most: bool = False) -> str:
        good = value <= goal if most else value >= goal
        return f"{what}: {value:,.1f}, goal {'<' if most else '>'}= {goal:,.0f}: {'met' if good else 'MISSED'}"

    if PYTHON_BINANCE in found.rate:
        ratios = [a / b for a, b in zip(found.rate["pmkit"], found.rate[PYTHON_BINANCE], strict=True)]
        yield line("pmkit / python-binance", statistics.median(ratios), GOAL_RATIO)
    yield line("most weight in a minute, of 6000", max(found.spent), 6000 * SHARE, most=True)
    yield line("page -> CSV, rows/s of CPU", found.parts["page"]["rows_per_second"], GOAL_PAGE)
    if "bulk" in found.parts:
        yield line(
            "bulk file -> synced CSV (unzip, convert, write, fsync), rows/s of wall time",
            found.parts["bulk"]["rows_per_second"],
            GOAL_BULK,
        )
        yield line("the same, rows/s of CPU, of all its threads", found.parts["bulk"]["rows_per_cpu_second"], GOAL_BULK)
    if "month bulk" in found.parts:
        part = found.parts["month bulk"]
        yield (
            f"the same with its download and sha256 before it, rows/s: "
            f"{part['rows_per_second']:,} of wall time, {part['rows_per_cpu_second']:,} of CPU time (no goal)"
        )
    for case in ("month bulk", "month rest"):
        if case in found.parts:
            yield line(f"peak memory, {case}, MiB", found.parts[case]["peak_MiB"], GOAL_MEMORY, most=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that every answer takes longer")
    parser.add_argument("--without-memory", action="store_true", help="leave out the month")
    parser.add_argument("--json", type=Path, help="also write the JSON objects to this file, one per line")
    options = parser.parse_args(arguments)
    found = Found()
    rest(found, options.rounds, options.rows, options.latency)
    budget(found)
    page(found, options.rounds)
    if not options.without_memory:
        month(found, ("bulk", "rest"))
    lines = [json.dumps(row) for row in rows_of(found)]
    print("\n".join(lines))
    if options.json:
        options.json.write_text("".join(f"{line}\n" for line in lines))
    print()
    for name, why in found.skipped.items():
        print(f"{name:<16} skipped: {why}")
    for name, rates in found.rate.items():
        print(f"{name:<16} {statistics.median(rates):>10,.0f} rows/s   ({min(rates):,.0f} - {max(rates):,.0f})")
    print("\n" + "\n".join(goals(found)))
    for failure in found.failed:
        print(f"FAILED: {failure}")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
