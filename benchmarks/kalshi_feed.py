"""Kalshi frames -> decode -> valid book -> callback of the user: pmkit beside the book code of pykalshi and kalshi-sdk.

    python -m benchmarks.kalshi_feed [--rounds 5] [--frames 20000] [--peers PYTHON]

The peers' pins disagree with pmkit's, so they run in an environment of their own (`sh .ci/setup-conformance` makes it;
`--peers` names another interpreter), fed with the same frames, in turns with pmkit. Before anything is timed, the best
YES bid and ask after every frame must be those of dicts of Decimal; pmkit's must, else the exit code is 1, and a peer's
too, else it is printed as wrong and not timed. A peer that is not installed is printed as skipped. CPU time; use the
ratios, which are medians of per-round ratios. pmkit calls its user twice a frame, for YES and for NO.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _feeds
from benchmarks._feeds import Probe, Recorder
from benchmarks.traffic import Traffic, cases

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("pykalshi", "kalshi-sdk")
NAIVE = "json+Decimal+dict"
Touches = list[tuple[str, int, int]]


class Peers:
    """The process with the peers. `absent`: why a peer is not there."""

    def __init__(self, python: str | None) -> None:
        self.versions: dict[str, str] = {}
        self.python = self.why = ""
        self._process: subprocess.Popen[str] | None = None
        if python is None:
            self.why = "no environment of peers: sh .ci/setup-conformance makes one"
            return
        command = [python, "-m", "benchmarks._kalshi_peers"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hello = self._read()
        self.versions, self.python = hello["versions"], hello["python"]

    def _read(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("kalshi_feed: the process of the peers has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def absent(self, name: str) -> str:
        return "" if name in self.versions else self.why or f"not installed in the peers' environment: {name}"

    def ask(self, name: str, frames: Path, *, touches: bool) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"peer": name, "frames": str(frames), "touches": touches}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)  # the end of its input is its end


def interpreter() -> str | None:
    """The one of the environment that .ci/setup-conformance made for the lock of now; None where there is none."""
    made = os.environ.get("PMKIT_CONFORMANCE_VENV")
    if made is None:
        import hashlib

        short = hashlib.sha256((ROOT / "conformance" / "requirements.lock").read_bytes()).hexdigest()[:16]
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        made = str(cache / "pmkit" / f"conformance-{short}")
    python = Path(made) / "bin" / "python"
    return str(python) if python.exists() else None


@dataclass
class Case:
    """One traffic. CPU ns per book frame and round; `left_out` says why a contender has none."""

    traffic: Traffic
    deltas: int
    cpu: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def differs(expected: Touches, touches: Touches) -> str:
    """Where two runs part, "" where they do not."""
    if len(expected) != len(touches):
        return f"{len(touches)} touches instead of {len(expected)}"
    at = next((at for at, pair in enumerate(zip(expected, touches, strict=True)) if pair[0] != pair[1]), None)
    return "" if at is None else f"touch {at} is {touches[at]} instead of {expected[at]}"


def touches_of(kind: Any, traffic: Traffic) -> Touches:
    recorder = Recorder()
    kind(traffic, recorder).run(traffic.frames)
    return [(touch[0].removesuffix(":YES"), touch[1], touch[2]) for touch in recorder.touches if touch[0][-3:] != ":NO"]


def once(kind: Any, traffic: Traffic) -> int:
    probe = Probe(-1)
    feed = kind(traffic, probe)
    probe.start()
    feed.run(traffic.frames)
    probe.finish()
    return probe.cpu_ns


def measure(traffic: Traffic, peers: Peers, rounds: int, folder: Path) -> Case:
    """All contenders on one traffic, in turns. Raises SystemExit where pmkit's books are wrong."""
    path = folder / f"{traffic.case}.jsonl"
    path.write_bytes(b"\n".join(traffic.frames) + b"\n")
    expected = touches_of(_feeds.Naive, traffic)
    if why := differs(expected, touches_of(_feeds.Pmkit, traffic)):
        raise SystemExit(f"kalshi_feed: pmkit's books are wrong on {traffic.case} frames: {why}")
    case = Case(traffic, len(expected))
    for name in PEERS:
        if why := peers.absent(name):
            case.left_out[name] = f"skipped: {why}"
            continue
        answer = peers.ask(name, path, touches=True)
        why = answer.get("error") or differs(expected, [tuple(one) for one in answer["touches"]])
        if why:
            case.left_out[name] = f"wrong, not timed: {why}"
    timed = [name for name in PEERS if name not in case.left_out]
    for _ in range(rounds):
        for name, kind in (("pmkit", _feeds.Pmkit), (NAIVE, _feeds.Naive)):
            case.cpu.setdefault(name, []).append(once(kind, traffic) / case.deltas)
        for name in timed:
            spent = peers.ask(name, path, touches=False)["cpu_ns"]
            case.cpu.setdefault(name, []).append(spent / case.deltas)
    return case


def report(case: Case) -> None:
    print(f"{case.traffic.case}: {case.deltas} snapshots and changes, {len(case.traffic.books)} market(s)")
    for name, each in case.cpu.items():
        ratio = statistics.median(one / own for one, own in zip(each, case.cpu["pmkit"], strict=True))
        median = statistics.median(each)
        print(f"  {name:20} {1e9 / median:>12,.0f} deltas/s {median / 1000:>9.2f} us  {ratio:>6.2f}x pmkit's CPU")
    for name, why in case.left_out.items():
        print(f"  {name:20} {why}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--peers", default=interpreter(), help="the interpreter of the peers' environment")
    given = parser.parse_args()
    peers = Peers(given.peers)
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions.items()) or "none"
    print(f"pmkit on Python {platform.python_version()}; peers on {peers.python or 'no Python'}: {versions}")
    try:
        with tempfile.TemporaryDirectory(prefix="pmkit-bench-") as folder:
            for traffic in cases(given.frames):
                if isinstance(traffic, tuple):
                    if traffic[0] == "kalshi":
                        print(f"skipped: {traffic[1]}")
                elif traffic.venue == "kalshi":
                    report(measure(traffic, peers, given.rounds, Path(folder)))
    finally:
        peers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
