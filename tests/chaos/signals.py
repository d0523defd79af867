"""Random signals to bots in processes of their own, at seeded points:

    python -m tests.chaos.signals --count 200 --seed 1

Each case has local venues (in this process) and a bot that trades live on them (in another). It gets SIGINT, SIGTERM,
SIGINT twice or SIGKILL during its start, in the middle of an order, around a rollover or during its shutdown, some of
them while the venue answers late. What must hold: exit within 5 s of wall time and with the right code; every order
that stands at the venue afterwards was named in the output; every row and line is whole; no traceback and no secret
anywhere. After SIGKILL a second bot names every order that the first one left. Exits 1 when something was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pmkit.bot.local import KalshiKey, LocalLine, PolymarketAccount
from pmkit.logging.csv_logger import read_trades
from pmkit.sim.venues import LocalVenues
from tests.chaos.signalled import STARTED, TICKING, Setup
from tests.chaos.truth import Truth

ROOT = Path(__file__).resolve().parents[2]
FACTOR = 30.0
EXIT_SECONDS = 5.0
START_SECONDS = 60.0
PHASES = ("start", "order", "order", "rollover", "shutdown")
SIGNALS = ("INT", "TERM", "INT INT", "KILL")
BEFORE_RUN = {-signal.SIGINT, -signal.SIGTERM, 130, 1}
"""Codes of a process that was signalled before `run` took over: Python's own."""


@dataclass(slots=True)
class Case:
    """One bot and what became of it."""

    number: int
    phase: str
    signals: str
    late: bool
    venues: tuple[str, ...]
    seconds: float = 0.0
    code: int | None = None
    open_at_signal: int = 0
    left_open: int = 0
    named: int = 0
    found_again: int = 0
    rows: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.number} ({self.phase}, {self.signals}{', late answers' if self.late else ''})"


class Process:
    """A bot's process with what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._reading = asyncio.gather(self._read(process.stdout, "out"), self._read(process.stderr, "err"))

    @classmethod
    async def start(cls, setup: Setup, directory: Path) -> Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PMKIT_", "KALSHI_", "POLY"))}
        more = {"PMKIT_WHERE": "local", "PMKIT_MODE": "live", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.signalled",
                msgspec.json.encode(setup).decode(),
                cwd=directory,
                env={**kept, **more},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def _read(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while part := await stream.read(65_536):
            setattr(self, name, getattr(self, name) + part.decode("utf-8", "replace"))

    def signal(self, name: str) -> None:
        if self.process.returncode is None:
            self.process.send_signal(getattr(signal, f"SIG{name}"))

    async def end(self, seconds: float) -> bool:
        """Whether it ended by itself in that time; it has ended in any case."""
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
            return True
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            return False
        finally:
            await self._reading


async def until(condition: Callable[[], object], seconds: float) -> bool:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.005)
    return True


def draw(seed: int, number: int) -> Case:
    pick = random.Random(f"{seed} {number}")
    venues = pick.choice((("polymarket",), ("kalshi",), ("polymarket", "kalshi")))
    return Case(number, pick.choice(PHASES), pick.choice(SIGNALS), pick.random() < 0.25, venues)


async def play(seed: int, case: Case) -> Case:
    pick = random.Random(f"points {seed} {case.number}")
    directory = Path(tempfile.mkdtemp(prefix="signals-"))
    boundary = 12.0 if case.phase == "rollover" else 25.0
    venues = LocalVenues(
        seed=seed * 1000 + case.number,
        assets=("BTC",),
        factor=FACTOR,
        first_boundary_wall_seconds=boundary,
        steps_per_wall_second=4.0,
    )
    try:
        async with venues:
            await _live(pick, case, venues, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return case


def _setup(venues: LocalVenues, case: Case, seed: int) -> Setup:
    key, account = venues.kalshi_key, venues.polymarket_account
    line = LocalLine(
        venues.endpoints,
        KalshiKey(key.id, key.pem),
        PolymarketAccount(account.private_key, account.funder, account.signature_type),
    )
    return Setup(line, seed, case.venues)


def _open(truth: Truth, case: Case) -> dict[str, set[str]]:
    """Names of the orders that stand, by order id."""
    found = {}
    for venue in case.venues:
        for order in truth.orders(venue):
            if order.open:
                found[order.order_id] = {name for name in (order.order_id, order.client_order_id) if name}
    return found


async def _live(pick: random.Random, case: Case, venues: LocalVenues, directory: Path) -> None:
    truth, clock = Truth(venues), venues.clock
    bot = await Process.start(_setup(venues, case, pick.randint(0, 10**6)), directory)
    placed = [sum(len(truth.orders(venue)) for venue in case.venues)]

    def more_orders() -> bool:
        return sum(len(truth.orders(venue)) for venue in case.venues) > placed[0]

    if case.phase == "start":
        await asyncio.sleep(pick.uniform(0.0, 1.0) if pick.random() < 0.3 else 0.0)
        if pick.random() < 0.7:
            await until(lambda: STARTED in bot.out, START_SECONDS)
            await asyncio.sleep(pick.uniform(0.0, 1.5))
    else:
        if not await until(lambda: TICKING in bot.out, START_SECONDS):
            case.wrong.append(f"it did not start: {bot.out[-300:]} {bot.err[-1500:]}")
        await asyncio.sleep(pick.uniform(0.0, 3.0))
        if case.phase == "rollover":
            left = (900_000 - clock.now_ms() % 900_000) / 1000 / FACTOR
            await asyncio.sleep(max(0.0, left + pick.uniform(-0.4, 0.6)))
        elif case.phase == "order":
            placed[0] = sum(len(truth.orders(venue)) for venue in case.venues)
            await until(more_orders, 10.0)
            await asyncio.sleep(pick.uniform(0.0, 0.05))
    if case.late:
        for venue in (venues.polymarket, venues.kalshi):
            venue.faults.delay(pick.uniform(0.3, 8.0))
    before_run = STARTED not in bot.out
    case.open_at_signal = len(_open(truth, case))
    await _signal(pick, case, bot)
    await asyncio.sleep(0.3)  # a request that was on its way may still arrive
    for venue in (venues.polymarket, venues.kalshi):
        venue.faults.delay(0.0)
    standing = _open(truth, case)
    _judge(case, bot, standing, before_run, directory, venues)
    if case.signals == "KILL":
        await _again(pick, case, venues, truth, directory)


async def _signal(pick: random.Random, case: Case, bot: Process) -> None:
    loop = asyncio.get_running_loop()
    first, *more = case.signals.split()
    if case.phase == "shutdown" and (first == "KILL" or not more):
        # Killed, or asked once more, while it leaves.
        bot.signal("TERM")
        await asyncio.sleep(pick.uniform(0.0, 0.3))
    began = loop.time()
    bot.signal(first)
    for name in more:
        await asyncio.sleep(pick.uniform(0.0, 0.8))
        began = loop.time() if bot.process.returncode is None else began
        bot.signal(name)
    in_time = await bot.end(EXIT_SECONDS + 10)
    case.seconds = loop.time() - began
    case.code = bot.process.returncode
    if not in_time or case.seconds > EXIT_SECONDS:
        case.wrong.append(f"the exit took {case.seconds:.1f} s")


def _judge(
    case: Case, bot: Process, standing: dict[str, set[str]], before_run: bool, directory: Path, venues: LocalVenues
) -> None:
    log = _log(directory)
    said = bot.out + bot.err + log
    allowed = {0, 130}
    if case.signals == "KILL":
        allowed = {-signal.SIGKILL} | ({0} if case.phase == "shutdown" else set())
    elif case.phase == "start":
        allowed |= BEFORE_RUN
    if "ticks " in bot.out and "hooks that raised" in bot.out:
        allowed |= {-signal.SIGINT, -signal.SIGTERM}  # the bot was over, and Python was on its way out
    if case.code not in allowed:
        case.wrong.append(f"exit code {case.code}: {bot.err[-800:]}")
    case.left_open = len(standing)
    if case.signals != "KILL":
        for order_id, names in standing.items():
            if any(name in said for name in names):
                case.named += 1
            else:
                case.wrong.append(f"order {order_id} stands and was not named")
    if "Traceback" in said and not before_run:
        case.wrong.append(f"a traceback: {said[said.index('Traceback') :][:1500]}")
    _files(case, directory)
    account = venues.polymarket_account
    secrets = [account.private_key.removeprefix("0x"), account.api_key.secret, account.api_key.passphrase]
    secrets += [line for line in venues.kalshi_key.pem.splitlines() if len(line) > 30 and "KEY" not in line]
    rows = "".join(path.read_text() for path in directory.rglob("*.csv"))
    if any(secret in said + rows for secret in secrets):
        case.wrong.append("a secret in the output")


def _log(directory: Path) -> str:
    return "".join(path.read_text() for path in sorted(directory.rglob("*.log")))


def _files(case: Case, directory: Path) -> None:
    """Every row and every line whole."""
    for path in sorted(directory.rglob("*")):
        if path.suffix not in (".csv", ".log"):
            continue
        raw = path.read_bytes()
        if raw and not raw.endswith(b"\n"):
            case.wrong.append(f"a torn last line in {path.name}: {raw[-80:]!r}")
        if path.suffix == ".csv":
            case.rows += sum(
                1
                for _ in read_trades(
                    path, lambda number, why, name=path.name: case.wrong.append(f"{name}:{number}: {why}")
                )
            )
        else:
            for line in raw.decode().splitlines():
                if not (line[:4].isdigit() and line[4:5] == "-") and not line.startswith("    | "):
                    case.wrong.append(f"{path.name}: no whole line: {line[:80]!r}")


async def _again(pick: random.Random, case: Case, venues: LocalVenues, truth: Truth, directory: Path) -> None:
    """A restart names what stands at the venue."""
    standing = _open(truth, case)
    bot = await Process.start(_setup(venues, case, pick.randint(0, 10**6)), directory)
    started = await until(lambda: TICKING in bot.out or bot.process.returncode is not None, START_SECONDS)
    bot.signal("TERM")
    await bot.end(EXIT_SECONDS + 10)
    if not started or bot.process.returncode != 0:
        case.wrong.append(f"the restart failed with {bot.process.returncode}: {bot.err[-800:]}")
        return
    log = _log(directory)
    ended = {name for names in standing.values() for name in names} - {
        name for names in _open(truth, case).values() for name in names
    }
    for order_id in standing:
        if f"({order_id})" in log and "the account has an open order already" in log:
            case.found_again += 1
        elif order_id not in ended:
            case.wrong.append(f"the restart did not find order {order_id}")
    _files(case, directory)


async def run(seed: int, first: int, count: int, at_once: int) -> list[Case]:
    found: list[Case] = []
    numbers = iter(range(first, first + count))

    async def one_after_the_other() -> None:
        for number in numbers:
            case = draw(seed, number)
            try:
                await play(seed, case)
            except Exception as error:
                case.wrong.append(f"the case failed: {error!r}")
            found.append(case)
            for line in case.wrong:
                print(f"WRONG case {case.name}: {line}", flush=True)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return found


def report(found: list[Case]) -> int:
    kinds = Counter(f"{case.phase} {case.signals}" for case in found)
    codes = Counter(case.code for case in found)
    print(json.dumps({"cases": len(found), **dict(sorted(kinds.items()))}))
    print(json.dumps({"exit codes": {str(code): count for code, count in codes.most_common()}}))
    graceful = [case.seconds for case in found if case.signals != "KILL"]
    sums = {
        "longest exit s": round(max(graceful, default=0.0), 2),
        "with late answers": sum(case.late for case in found),
        "orders open at the signal": sum(case.open_at_signal for case in found),
        "left open by a graceful end": sum(case.left_open for case in found if case.signals != "KILL"),
        "of which named": sum(case.named for case in found),
        "left open by a kill": sum(case.left_open for case in found if case.signals == "KILL"),
        "of which found again": sum(case.found_again for case in found),
        "rows": sum(case.rows for case in found),
    }
    print(json.dumps(sums))
    wrong = [case for case in found if case.wrong]
    print(f"{len(wrong)} of {len(found)} cases wrong: {[case.number for case in wrong]}" if wrong else "nothing wrong")
    return 1 if wrong or not found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of that seed")
    parser.add_argument("--at-once", type=int, default=2, help="cases that run side by side")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it; ours must not
    return report(asyncio.run(run(arguments.seed, arguments.first, arguments.count, arguments.at_once)))


if __name__ == "__main__":
    sys.exit(main())
