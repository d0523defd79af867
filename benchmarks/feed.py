"""Frame -> decode -> valid book -> callback of the user: pmkit beside its peers, in one interleaved run.

    python -m benchmarks.feed [--rounds 5] [--frames 20000] [--only polymarket] [--without-sockets] [--json FILE]

Without the socket every contender applies the same frames in a loop. With it, a server process sends them already
framed, in writes of 64 KiB, and client and server are pinned to a core each where the system can do that. What is
counted is CPU time (user and system) of the client process; wall time stands beside it.

Before anything is timed, every contender tells its touches (best bid, best ask and stamp after every frame, per book),
and all must be equal to those of the naive feed. Where they are not the case fails, and the exit code is 1. Contenders
that are not installed are printed as skipped. Use the ratios, not the times: they are medians of per-round ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _feeds, _server, _sockets
from benchmarks._feeds import Probe, Recorder, Touch
from benchmarks.traffic import Traffic, cases

NAIVE, CCXT, CCXT_PRO, NAUTILUS = "json+Decimal+dict", "orjson+ccxt book", "ccxt pro", "nautilus parts"
FLOOR = "decode only"

# DESIGN section 5: (with the socket, contender) -> least ratio contender / pmkit.
GOALS = {(False, NAIVE): 5.0, (False, CCXT): 2.5, (False, NAUTILUS): 7.0, (True, CCXT_PRO): 2.3, (True, NAIVE): 2.5}
GOAL_PER_SECOND = 50_000
LARGE_BYTES = 2_000  # a rate of messages says little about frames of several whole books
GOAL_THIN = 0.6  # CPU per frame dense / thin: no cliff
NEEDS = {CCXT: ("ccxt", "orjson"), CCXT_PRO: ("ccxt", "orjson"), NAUTILUS: ("nautilus_trader",)}
PACKAGES = ("msgspec", "websockets", "orjson", "ccxt", "nautilus_trader")

OFFLINE: dict[str, Callable[[Traffic, Probe], Any]] = {
    "pmkit": _feeds.Pmkit,
    FLOOR: _feeds.DecodeOnly,
    NAIVE: _feeds.Naive,
    CCXT: _feeds.CcxtBook,
    NAUTILUS: _feeds.Nautilus,
}
ONLINE: dict[str, _sockets.Contender] = {
    "pmkit": _sockets.pmkit,
    NAIVE: _sockets.naive,
    CCXT: _sockets.orjson_ccxt_book,
    CCXT_PRO: _sockets.ccxt_pro,
    NAUTILUS: _sockets.nautilus,
}


@dataclass
class Case:
    """One traffic with or without the socket. Times are per frame, in ns; `failed` says why it is no comparison."""

    traffic: Traffic
    socket: bool
    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    checksum: str = ""

    @property
    def name(self) -> str:
        return f"{self.traffic.venue} {self.traffic.case} {'socket' if self.socket else 'no socket'}"

    def ratios(self, contender: str) -> list[float]:
        return [peer / own for peer, own in zip(self.cpu[contender], self.cpu["pmkit"], strict=True)]


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(contender: str, traffic: Traffic) -> str:
    """Why a contender cannot take part, "" where it can."""
    if contender == NAUTILUS and traffic.venue == "kalshi":
        return "it has no Kalshi adapter"
    absent = [name for name in NEEDS.get(contender, ()) if version(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def checksum(touches: list[Touch]) -> str:
    return hashlib.sha256(json.dumps(touches).encode()).hexdigest()[:16]


def compare(case: Case, name: str, expected: list[Touch], touches: list[Touch]) -> None:
    if touches == expected:
        return
    at = next((n for n, pair in enumerate(zip(expected, touches, strict=False)) if pair[0] != pair[1]), None)
    case.failed[name] = (
        f"{len(touches)} touches instead of {len(expected)}"
        if at is None
        else f"touch {at} is {touches[at]} instead of {expected[at]}"
    )


# -- without the socket ---------------------------------------------------------------------------------------------


def offline(traffic: Traffic, rounds: int) -> Case:
    """All contenders on the same frames in a loop."""
    case = Case(traffic, socket=False)
    expected = naive_touches(traffic)
    case.checksum = checksum(expected)
    running: list[str] = []
    for name, make in OFFLINE.items():
        if why := missing(name, traffic):
            case.skipped[name] = why
            continue
        running.append(name)
        if name != FLOOR:
            recorder = Recorder()
            make(traffic, recorder).run(traffic.frames)
            compare(case, name, expected, recorder.touches)

    def once(name: str) -> Probe:
        probe = Probe(-1)
        feed = OFFLINE[name](traffic, probe)
        probe.start()
        feed.run(traffic.frames)
        probe.finish()
        return probe

    measure(case, [name for name in running if name not in case.failed], rounds, once)
    return case


def naive_touches(traffic: Traffic) -> list[Touch]:
    recorder = Recorder()
    _feeds.Naive(traffic, recorder).run(traffic.frames)
    return recorder.touches


def measure(case: Case, running: list[str], rounds: int, once: Callable[[str], Probe]) -> None:
    """Interleaved rounds in a shuffled order."""
    if "pmkit" not in running:
        return
    for number in range(rounds):
        order = running.copy()
        random.Random(number).shuffle(order)
        for name in order:
            gc.collect()
            probe = once(name)
            case.cpu.setdefault(name, []).append(probe.cpu_ns / len(case.traffic.frames))
            case.wall.setdefault(name, []).append(probe.wall_ns / len(case.traffic.frames))


# -- with the socket ------------------------------------------------------------------------------------------------


@contextmanager
def server(traffic: Traffic) -> Iterator[str]:
    """A server process for these frames; its address."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "frames"
        path.write_bytes(b"".join(map(_server.framed, traffic.frames)))
        command = [sys.executable, _server.__file__, str(path), traffic.venue]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            try:
                port = int(process.stdout.readline())
                if len(cores) > 1:
                    os.sched_setaffinity(process.pid, cores[1:2])
                    os.sched_setaffinity(0, cores[:1])
                yield f"ws://127.0.0.1:{port}{_sockets.PATH[traffic.venue]}"
            finally:
                if len(cores) > 1:
                    os.sched_setaffinity(0, cores)
                process.stdin.close()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()


def online(traffic: Traffic, rounds: int) -> Case:
    """All contenders on the same server process, one after the other."""
    case = Case(traffic, socket=True)
    expected = naive_touches(traffic)
    case.checksum = checksum(expected)
    running: list[str] = []
    with server(traffic) as address:
        for name, contender in ONLINE.items():
            if why := missing(name, traffic):
                case.skipped[name] = why
                continue
            recorder = Recorder(len(expected))
            try:
                asyncio.run(_run(contender, address, traffic, recorder))
            except RuntimeError as error:
                case.failed[name] = str(error)
                continue
            running.append(name)
            compare(case, name, expected, recorder.touches)

        def once(name: str) -> Probe:
            probe = Probe(len(expected))
            asyncio.run(_run(ONLINE[name], address, traffic, probe))
            return probe

        measure(case, [name for name in running if name not in case.failed], rounds, once)
    return case


async def _run(contender: _sockets.Contender, address: str, traffic: Traffic, probe: Probe) -> None:
    await contender(address, traffic, probe)


# -- what is printed ------------------------------------------------------------------------------------------------


def rows(case: Case) -> list[dict[str, Any]]:
    """One JSON object per contender."""
    found: list[dict[str, Any]] = []
    about = {
        "versions": {"python": platform.python_version(), "pmkit": version("pmkit")}
        | {name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }
    for name in ONLINE if case.socket else OFFLINE:
        row: dict[str, Any] = {"bench": "feed", "case": case.name, "contender": name}
        if name in case.skipped:
            row["skipped"] = case.skipped[name]
        elif name in case.failed:
            row["failed"] = case.failed[name]
        elif name not in case.cpu:
            row["failed"] = "not measured: pmkit failed"
        else:
            values, ratios = [value / 1000 for value in case.cpu[name]], case.ratios(name)
            wall = statistics.median(case.wall[name])
            row |= {
                "unit": "us CPU/frame", "rounds": len(values), "checksum": case.checksum,
                "frames": len(case.traffic.frames), "mean_bytes": round(case.traffic.mean_bytes),
                "median": round(statistics.median(values), 3), "min": round(min(values), 3),
                "max": round(max(values), 3), "ratio_to_pmkit": round(statistics.median(ratios), 2),
                "ratio_lo": round(min(ratios), 2), "ratio_hi": round(max(ratios), 2),
                "wall_median": round(wall / 1000, 3), "frames_per_second": round(1e9 / wall),
            }  # fmt: skip
        found.append(row | about)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'case':<28} {'contender':<18} {'us CPU':>8} {'us wall':>8} {'frames/s':>9} {'x pmkit':>8} {'lo - hi':>15}"
    for row in found:
        start = f"{row['case']:<28} {row['contender']:<18}"
        if "skipped" in row or "failed" in row:
            yield f"{start} {'skipped: ' + row['skipped'] if 'skipped' in row else 'FAILED: ' + row['failed']}"
            continue
        spread = f"{row['ratio_lo']:.2f} - {row['ratio_hi']:.2f}"
        yield (
            f"{start} {row['median']:>8.2f} {row['wall_median']:>8.2f} {row['frames_per_second']:>9} "
            f"{row['ratio_to_pmkit']:>8.2f} {spread:>15}"
        )


def goals(found: list[dict[str, Any]]) -> Iterator[str]:
    """The goals of DESIGN section 5 that this program measures."""
    measured = {(row["case"], row["contender"]): row for row in found if "median" in row}
    for (name, contender), row in measured.items():
        goal = GOALS.get((not name.endswith("no socket"), contender))
        if goal is not None:
            ratio = row["ratio_to_pmkit"]
            yield f"{name}: {contender} / pmkit {ratio:.2f}, goal >= {goal:g}: {'met' if ratio >= goal else 'MISSED'}"
        if contender == "pmkit" and not name.endswith("no socket") and row["mean_bytes"] < LARGE_BYTES:
            rate = 1e6 / row["median"]
            verdict = "met" if rate >= GOAL_PER_SECOND else "MISSED"
            yield f"{name}: pmkit {rate:.0f} msg/s of CPU on one core, goal >= {GOAL_PER_SECOND}: {verdict}"
    for venue in ("polymarket", "kalshi"):
        pair = [measured.get((f"{venue} {case} no socket", "pmkit")) for case in ("dense", "thin")]
        if pair[0] is not None and pair[1] is not None:
            cliff = pair[0]["median"] / pair[1]["median"]
            verdict = "met" if cliff >= GOAL_THIN else "MISSED"
            yield f"{venue}: no cliff on thin books, dense / thin {cliff:.2f}, goal >= {GOAL_THIN}: {verdict}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--only", default="", help="cases whose name holds this, e.g. 'kalshi' or 'thin socket'")
    parser.add_argument("--without-sockets", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the JSON objects to this file, one per line")
    options = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    broken = False
    for socket in (False, True)[: 1 if options.without_sockets else 2]:
        for traffic in cases(options.frames):
            if isinstance(traffic, tuple):
                name = f"{traffic[0]} recorded {'socket' if socket else 'no socket'}"
                found.append({"bench": "feed", "case": name, "contender": "all", "skipped": traffic[1]})
                continue
            if options.only not in Case(traffic, socket).name:
                continue
            case = (online if socket else offline)(traffic, options.rounds)
            broken = broken or bool(case.failed)
            found += rows(case)
    lines = [json.dumps(row) for row in found]
    print("\n".join(lines))
    if options.json:
        options.json.write_text("".join(f"{line}\n" for line in lines))
    print()
    print("\n".join(table(found)))
    print("\ngoals (DESIGN section 5), as medians of per-round ratios of CPU time:")
    print("\n".join(goals(found)))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
