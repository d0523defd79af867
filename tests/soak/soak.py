"""Runs a soak: a venue in this process, a trading process beside it that is killed and started anew, the checks."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pmkit.exchanges.types import Intent
from pmkit.sim.venues import LocalVenues
from tests.soak.checks import Life, counts, problems
from tests.soak.ledger import Ledger
from tests.soak.notes import Reader
from tests.soak.trader import Setup

ROOT = Path(__file__).resolve().parents[2]
FACTOR = 10.0


class Side(Protocol):
    """The venue's part. `ledger` follows the venue's records from the start."""

    trader: str
    ledger: Ledger

    def account(self) -> dict[str, Any]:
        """What the trader needs to log in."""

    def lose_answers(self, share: float) -> None:
        """From now on this share of the answers is lost, late or reset."""

    def trouble(self, pick: random.Random) -> str:
        """Something else that goes wrong now and is over within seconds, and its name."""

    def calm(self) -> None:
        """Nothing goes wrong any more."""


async def soak(
    venues: LocalVenues, side: Side, *, seed: int, intents: int, notes: Path, kills: int = 0
) -> tuple[list[Life], int]:
    """The lives of the trading process, and how many of them were killed at a fill.

    With `kills` the first so many lives are short, have no end of intents and are killed for sure.
    """
    pick = random.Random(seed)
    reader = Reader(notes)
    lives: list[Life] = []
    at_fills = 0
    side.lose_answers(0.2)
    while True:
        left = intents - sum(note["what"] == "intent" for note in reader.lines)
        life = Life(len(lives) + 1, time.time())
        lives.append(life)
        setup = Setup(
            venue=side.trader,
            endpoints=venues.endpoints.to_json(),
            account=side.account(),
            notes=str(notes),
            seed=seed,
            life=life.number,
            intents=max(10, left) if life.number > kills else sys.maxsize,
            unknown=_unknown(reader),
        )
        process = _start(setup)
        try:
            lasts = pick.choice([pick.uniform(0, 2), pick.uniform(2, 6), pick.uniform(6, 15)])
            at_start = pick.random() < 0.15
            if life.number <= kills:
                lasts, at_start = pick.uniform(0.3, 1), False
            at_fills += await _live(process, side, life, reader, pick, lasts=lasts, at_start=at_start)
        finally:
            process.kill()
            process.wait()
        if life.ended is None:
            return lives, at_fills
        await asyncio.sleep(pick.uniform(0.0, 0.3))


def _start(setup: Setup) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.soak.trader", msgspec.json.encode(setup).decode()]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _unknown(reader: Reader) -> tuple[Intent, ...]:
    """What the trader would have kept on its disk: intents whose outcome it never learned."""
    found: dict[str, Any] = {}
    for note in reader.lines:
        if note["what"] == "unknown":
            found[note["client"]] = note["intent"]
        elif note["what"] == "resolved":
            found.pop(note["client"], None)
    return tuple(msgspec.convert(one, Intent) for one in found.values())


async def _live(
    process: subprocess.Popen[bytes],
    side: Side,
    life: Life,
    reader: Reader,
    pick: random.Random,
    *,
    lasts: float,
    at_start: bool,
) -> bool:
    """Let one process live until it ends or is killed, `lasts` wall seconds after it was ready, or in the middle of its
    start. Whether it was killed at a fill.
    """
    kill_at = life.started + pick.uniform(0.3, 2) if at_start else math.inf
    at_fill = pick.random() < 0.4
    trouble_at = 0.0
    calm = False

    def kill() -> None:
        if life.ended is None:
            process.send_signal(signal.SIGKILL)
            life.ended = time.time()

    while process.poll() is None and life.ended is None:
        for note in reader.more():
            if note["life"] == life.number:
                life.notes.append(note)
                calm = calm or note["what"] == "calm"
                if note["what"] == "ready" and kill_at == math.inf:
                    kill_at = time.time() + lasts
        now = time.time()
        if calm:
            side.ledger.on_match = lambda: None
            side.calm()
        elif now > kill_at and at_fill:
            side.ledger.on_match = kill  # within the match, before the venue tells of it
        elif now > kill_at:
            kill()
        elif now > trouble_at:
            life.quiet = side.trouble(pick) == "silence" or life.quiet
            trouble_at = now + pick.uniform(0.5, 2)
        await asyncio.sleep(0.02)
    side.ledger.on_match = lambda: None
    process.wait()
    life.notes += [note for note in reader.more() if note["life"] == life.number]
    return at_fill and life.ended is not None


def report(side: Side, lives: list[Life], at_fills: int, began: float) -> list[str]:
    """Print what was seen; what is wrong."""
    seen = counts(lives, side.ledger)
    print(
        json.dumps({"seconds": round(time.time() - began), "killed at a fill": at_fills, **dict(sorted(seen.items()))})
    )
    codes = Counter(note["code"] for life in lives for note in life.of("rejected"))
    print(json.dumps({"rejected": dict(codes.most_common())}))
    why = Counter(str(note.get("why", ""))[:60] for life in lives for note in life.of("not_sent"))
    print(json.dumps({"not sent": dict(why.most_common(6))}))
    wrong = problems(lives, side.ledger)
    for line in wrong[:30]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong" if wrong else "nothing wrong")
    return wrong


def arguments(what: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--intents", type=int, default=10_000)
    parser.add_argument("--notes", type=Path, default=None, help="keep the notes of the trading process in this file")
    return parser.parse_known_args()[0]


def notes_file(given: Path | None) -> Path:
    """A new file: notes of an earlier run are none of this one's."""
    notes = given or Path(tempfile.mkdtemp(prefix="pmkit-soak-")) / "notes.jsonl"
    notes.unlink(missing_ok=True)
    return notes
