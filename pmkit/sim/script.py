"""The fault script: a seeded list of (seconds, fault, parameters) over the switches of the venues and the proxies.

    script = draw_script(seed, seconds=600)
    async with FaultScript(script, venues, proxies) as faults: ...   # runs beside the bot

One seed is one list; `text` and `read_script` make it a file and back. A fault that lasts is undone by itself, within
the length of the script. Times are wall seconds; in virtual time and at clock factor 1 they are market seconds too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from pmkit.clock import Clock, Entropy
from pmkit.errors import ConfigError
from pmkit.sim.fault_kinds import KINDS, VENUES, Parameters, Stage
from pmkit.sim.proxies import Proxies
from pmkit.sim.venues import LocalVenues

_log = logging.getLogger("pmkit.sim")


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One fault: `at` seconds after the start of the script."""

    at: float
    fault: str
    parameters: Parameters = {}


def text(steps: Iterable[Step]) -> str:
    """One line of JSON per step."""
    return "".join(msgspec.json.encode(step).decode() + "\n" for step in steps)


def read_script(lines: str) -> list[Step]:
    """The inverse of `text`. Raises ConfigError for anything else."""
    try:
        return [msgspec.json.decode(line, type=Step) for line in lines.splitlines() if line.strip()]
    except msgspec.ValidationError as error:
        raise ConfigError(f"this is no fault script: {error}") from error


def draw_script(
    seed: int | str,
    *,
    seconds: float,
    start: float = 5.0,
    every: float = 20.0,
    venues: Sequence[str] = (*VENUES, "line", "clock"),
) -> list[Step]:
    """The script of a seed: a fault about `every` seconds from `start` until `seconds`, after which all are over."""
    entropy = Entropy(f"fault script {seed}")
    weighted = [kind for kind in KINDS.values() if kind.venue in venues for _ in range(kind.weight)]
    steps: list[Step] = []
    at = start
    while True:
        at += every * entropy.uniform(0.2, 1.8)
        if at >= seconds - 1.0:
            return steps
        kind = entropy.choice(weighted)
        parameters = kind.draw(entropy)
        if "seconds" in parameters:
            parameters["seconds"] = round(min(float(parameters["seconds"]), seconds - at), 2)
        steps.append(Step(round(at, 2), kind.name, parameters))


class FaultScript:
    """Runs a script: `start`, then `done()` after its last fault is over. `counts` says how often each was begun.

    `finish` undoes everything that is left, so that a calm phase is calm.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        venues: LocalVenues,
        proxies: Proxies | None,
        clock: Clock,
        step_clock: Callable[[float], object] | None = None,
    ) -> None:
        if unknown := sorted({step.fault for step in steps} - set(KINDS)):
            raise ConfigError(f"there is no fault {', '.join(unknown)}; there are {', '.join(KINDS)}")
        self.steps = list(steps)
        self.counts: Counter[str] = Counter()
        self.now: Step | None = None
        self._stage = Stage(venues, proxies, clock, step_clock)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._last = clock.io_monotonic()
        self._lasting: dict[asyncio.Future[None], None] = {}

    def start(self) -> None:
        """Begin; the first fault comes `at` seconds from now."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="fault script")

    async def _run(self) -> None:
        began = self._clock.io_monotonic()
        for step in sorted(self.steps, key=lambda step: step.at):
            wait = began + step.at - self._clock.io_monotonic()
            if wait > 0:
                await self._clock.io_sleep(wait)
            self.now = step
            self.counts[step.fault] += 1
            _log.info("fault %s %s", step.fault, dict(step.parameters))
            self._last = self._clock.io_monotonic()
            lasting = KINDS[step.fault].apply(self._stage, step.parameters)
            if lasting is not None:
                self._lasting[asyncio.ensure_future(lasting)] = None
        while self._lasting:
            await asyncio.wait([*self._lasting])
            for future in [future for future in self._lasting if future.done()]:
                del self._lasting[future]
                future.result()

    def quiet(self) -> float:
        """Seconds for which no fault has been at work; 0 while one is."""
        return 0.0 if self._lasting_now() else self._clock.io_monotonic() - self._last

    def _lasting_now(self) -> bool:
        running = [future for future in self._lasting if not future.done()]
        if running:
            self._last = self._clock.io_monotonic()
        return bool(running)

    async def done(self) -> None:
        """Wait for the end of the last fault. Raises what a fault raised."""
        if self._task is not None:
            await self._task
        self.calm()

    def calm(self) -> None:
        """Every switch back."""
        venues = self._stage.venues
        for venue in venues.venues:
            venue.faults.clear()
        venues.polymarket.user.silence(0.0)
        venues.kalshi.user_feed.silence(0.0)
        venues.polymarket.modes.restart(0.0, 0.0)
        venues.polymarket.gamma_cache_seconds = 0.0
        if venues.kalshi.paused:
            venues.kalshi.pause(False)
        if self._stage.proxies is not None:
            self._stage.proxies.calm()

    async def close(self) -> None:
        """Stop, wherever it is, and set every switch back."""
        running: list[asyncio.Future[None]] = [*([self._task] if self._task else []), *self._lasting]
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._lasting.clear()
        self.calm()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
