"""The chaos suite. Examples:

    python -m tests.chaos --virtual 60 --real 4            # seeds 0 ..., those that failed last time first
    python -m tests.chaos --virtual 1 --first 4711 --log DEBUG
    python -m tests.chaos --virtual 0 --seeds v17 r3
    python -m tests.chaos --virtual 2000 --results a.jsonl # a row a seed; begun again, it goes on where it was
    python -m tests.chaos --sum a.jsonl b.jsonl            # what several runs have seen
    python -m tests.chaos --naive                          # each naive variant must be caught

Prints what was seen in sum. Exits 1 when an invariant was violated, or when a naive variant was not caught. Seeds that
failed stand in `.chaos/failing.txt` (not in git), their scripts and logs beside it.
"""

from __future__ import annotations

import argparse
import concurrent.futures as futures
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import naive
from tests.chaos.session import Outcome, Scenario, play

KEPT = Path(".chaos")
FAILING = KEPT / "failing.txt"
SEED_WALL_SECONDS = {True: 180, False: 240}
SEEDS_PER_CHILD = 30


class _TooLong(BaseException):
    """A seed that takes far longer than any should."""


def _alarm(*_: object) -> None:
    raise _TooLong("it took longer than any seed should")


def one(seed: int, virtual: bool, variant: str, level: str, hours: float) -> dict[str, object]:
    """In a child: play one seed."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(SEED_WALL_SECONDS[virtual] + round(hours * 600))
    gc.freeze()  # the modules need not be looked through again and again
    gc.set_threshold(100_000, 20, 20)
    began = time.process_time()
    try:
        scenario = Scenario.of(seed, virtual, hours=hours)
        if variant:
            found = naive.play(naive.VARIANTS[variant], seed)
        else:
            found = play(scenario, level=level)
    except _TooLong as error:
        found = Outcome(seed, virtual, variant, [str(error)])
    finally:
        signal.alarm(0)
    return {**found.as_dict(), "cpu": time.process_time() - began}


def _jobs(arguments: argparse.Namespace) -> list[tuple[int, bool]]:
    named = [(int(name[1:]), name[0] == "v") for name in arguments.seeds]
    kept = FAILING.read_text().split() if FAILING.exists() and not arguments.seeds else []
    failed = [(int(name[1:]), name[0] == "v") for name in kept]
    # Real ones first: they take their time and little else.
    fresh = [(arguments.first + number, False) for number in range(arguments.real)]
    fresh += [(arguments.first + number, True) for number in range(arguments.virtual)]
    if not arguments.virtual:
        failed = [job for job in failed if not job[1]]
    if not arguments.real:
        failed = [job for job in failed if job[1]]
    return list(dict.fromkeys([*named, *failed, *([] if arguments.seeds else fresh)]))


def _name(row: dict[str, object]) -> str:
    return f"{'v' if row['virtual'] else 'r'}{row['seed']}"


def _keep(row: dict[str, object]) -> None:
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{_name(row)}.txt").write_text(
        "\n".join(str(violation) for violation in row["violations"])  # type: ignore[attr-defined]
        + f"\n\n--- script\n{row['script']}\n--- log\n{row['log']}"
    )


@dataclass(slots=True)
class Sum:
    """What many seeds have seen."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seeds: Counter[bool] = field(default_factory=Counter)
    rollovers: Counter[bool] = field(default_factory=Counter)
    cpu: Counter[bool] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    bad: set[str] = field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        virtual = bool(row["virtual"])
        self.seeds[virtual] += 1
        self.cpu[virtual] += row["cpu"]
        self.rollovers[virtual] += row["counts"].get("rollovers", 0)
        self.commits[row["commit"]] += 1
        self.faults.update(row["faults"])
        for name, count in row["counts"].items():
            most = name.startswith("most ")
            self.counts[name] = max(self.counts[name], count) if most else self.counts[name] + count
        if row["violations"]:
            self.bad.add(_name(row))

    def print(self, wall: float = 0.0) -> None:
        print(f"\n{self.seeds[True]} seeds in virtual time, {self.seeds[False]} on real sockets", end="")
        print(f" in {wall:.0f} s" if wall else "", end="")
        if self.seeds[True]:
            print(f" ({self.cpu[True] / self.seeds[True]:.2f} s of CPU a virtual seed)", end="")
        print(f", code {', '.join(f'{commit} ({count})' for commit, count in self.commits.items())}")
        print("faults:", ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())))
        print(f"faults in sum: {sum(self.faults.values())}")
        print(f"rollovers: {self.rollovers[True]} in virtual time, {self.rollovers[False]} on real sockets")
        print("seen:", ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))


def _done(path: Path | None) -> set[tuple[int, bool]]:
    """The seeds of which that file has a row."""
    if path is None or not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["seed"], row["virtual"]) for row in rows}


def _commit() -> str:
    """The code that runs, for the rows."""
    git = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def run_seeds(arguments: argparse.Namespace) -> int:
    done = _done(arguments.results)
    jobs = [job for job in _jobs(arguments) if job not in done]
    began = time.monotonic()
    seen, commit = Sum(), arguments.commit or _commit()
    context = multiprocessing.get_context("spawn")
    unfinished = 0
    with futures.ProcessPoolExecutor(arguments.jobs, context, max_tasks_per_child=SEEDS_PER_CHILD) as pool:
        waiting, running = list(reversed(jobs)), set()
        while waiting or running:
            if arguments.seconds and time.monotonic() - began > arguments.seconds:
                unfinished, waiting = unfinished + len(waiting), []
            while waiting and len(running) < arguments.jobs:
                seed, virtual = waiting.pop()
                running.add(pool.submit(one, seed, virtual, "", arguments.log, arguments.hours))
            if not running:
                break
            future = futures.wait(running, return_when=futures.FIRST_COMPLETED).done.pop()
            running.discard(future)
            row = {**future.result(), "commit": commit}
            seen.add(row)
            if row["violations"]:
                _keep(row)
                print(f"{_name(row)}: {len(row['violations'])} violations")
                for violation in row["violations"][:6]:
                    print(f"    {violation[:500]}")
                sys.stdout.flush()
            if arguments.results is not None:
                with arguments.results.open("a") as file:
                    file.write(json.dumps({key: row[key] for key in row if key not in ("script", "log")}) + "\n")
    names = sorted(seen.bad)
    if not arguments.seeds and arguments.results is None:
        KEPT.mkdir(exist_ok=True)
        FAILING.write_text("\n".join(names) + "\n" if names else "")
    seen.print(time.monotonic() - began)
    if unfinished:
        print(f"{unfinished} seeds were not begun: {arguments.seconds:.0f} s were over")
    if names:
        print(f"FAILED: {' '.join(names)} (scripts and logs in {KEPT})")
        return 1
    if not seen.seeds:
        print("FAILED: no seed was run")
        return 1
    print("no violation")
    return 0


def print_sum(files: list[Path]) -> int:
    """The rows of several runs together; of a seed that was run twice the later one."""
    rows = {}
    for path in files:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows[row["seed"], row["virtual"]] = row
    seen = Sum()
    for row in rows.values():
        seen.add(row)
    seen.print()
    print(f"FAILED: {' '.join(sorted(seen.bad))}" if seen.bad else "no violation")
    return 1 if seen.bad or not rows else 0


def run_naive(arguments: argparse.Namespace) -> int:
    chosen = arguments.variants or list(naive.VARIANTS)
    missed = []
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(arguments.jobs, context, max_tasks_per_child=1) as pool:
        running = {pool.submit(_caught, name, arguments.tries): name for name in chosen}
        for future in futures.as_completed(running):
            name = running[future]
            seed, why = future.result()
            if why:
                print(f"caught  {name} (seed {seed}): {why[:160]}")
            else:
                missed.append(name)
                print(f"MISSED  {name}: not caught in {arguments.tries} seeds")
            sys.stdout.flush()
    print(f"{len(chosen) - len(missed)} of {len(chosen)} naive variants caught")
    return 1 if missed else 0


def _caught(name: str, tries: int) -> tuple[int, str]:
    """The first seed at which a variant violates what it must violate, and how."""
    variant = naive.VARIANTS[name]
    for seed in range(tries):
        outcome = naive.play(variant, seed)
        for violation in outcome.violations:
            if any(word in violation for word in variant.expected):
                return seed, violation.split("\n")[0]
    return -1, ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--virtual", type=int, default=60, help="seeds in virtual time")
    parser.add_argument("--real", type=int, default=0, help="seeds on real sockets")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", nargs="*", default=[], help="only these: v17 in virtual time, r3 on real sockets")
    parser.add_argument("--hours", type=float, default=0.0, help="market hours under faults in place of 7 minutes")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no seed after this (0: all are run)")
    parser.add_argument(
        "--results", type=Path, default=None, help="a file for a row of JSON a seed; it is gone on with"
    )
    parser.add_argument("--sum", type=Path, nargs="+", default=[], help="only add up such files")
    parser.add_argument("--commit", default="", help="the name of the code in the rows (the commit, unless given)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument("--log", default="INFO", help="level of the kept logs")
    parser.add_argument("--naive", action="store_true", help="run the naive variants instead")
    parser.add_argument("--variants", nargs="*", default=[], help="only these")
    parser.add_argument("--tries", type=int, default=12, help="seeds per naive variant")
    arguments = parser.parse_args()
    if arguments.sum:
        return print_sum(arguments.sum)
    return run_naive(arguments) if arguments.naive else run_seeds(arguments)
