"""One seed: venues, a bot, a fault script, and what was seen. In virtual time or on real sockets."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pmkit.clock import Clock, Entropy, SystemClock
from pmkit.data.binance.feed import BinanceFeed
from pmkit.endpoints import Endpoints
from pmkit.logging.csv_logger import TradeLog
from pmkit.logging.logger import close_logging, setup_logging
from pmkit.logging.paths import Paths
from pmkit.logging.redact import REDACTOR
from pmkit.sim.proxies import Proxies
from pmkit.sim.script import FaultScript, Step, draw_script, text
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, run
from tests.chaos.calm import Calm
from tests.chaos.invariants import Watch
from tests.chaos.trader import Trader
from tests.chaos.truth import BookHistory, Truth
from tests.local import exchange_on

FIRST_QUARTER_MS = 1_795_176_000_000  # 2026-11-20 12:00 UTC, a Friday: Kalshi rests on Thursdays
EXIT_SECONDS = 5.0
START_SECONDS = 30.0
SETTLE_SECONDS = 20.0
CANDLES = 60
IDLE_STEPS = 0.01
"""What the background traders of a venue do in a second that is not in the scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed stands for. Seconds are wall seconds of the loop (virtual or real)."""

    seed: int
    virtual: bool
    venues: tuple[str, ...]
    live: bool
    candles: str
    proxied: bool
    factor: float
    lead: float
    faults: float
    every: float
    calm: float
    latency: float
    offset: float
    start_ms: int

    @classmethod
    def of(cls, seed: int, virtual: bool, *, hours: float = 0.0) -> Scenario:
        """`hours` of market time under faults in place of some minutes."""
        entropy = Entropy(f"scenario {seed}")
        venues = entropy.choice((("polymarket",), ("kalshi",), ("polymarket", "kalshi"), ("polymarket", "kalshi")))
        live = entropy.random() < 0.8
        candles = entropy.choice(("", "1s", "1m"))
        proxied = entropy.random() < 0.6
        latency = entropy.uniform(0.0005, 0.03)
        offset = entropy.uniform(-2.0, 2.0) if entropy.random() < 0.3 else 0.0
        quarter = entropy.randint(0, 40)
        if virtual:
            faults, calm, factor = 340.0, CALM_SECONDS, 1.0
            # Every third boundary lies in the calm phase, where more is asked of it.
            lead = entropy.uniform(60, 240) if entropy.random() < 0.67 else faults + entropy.uniform(80, 95)
            faults = hours * 3600 or faults
            every = entropy.uniform(8, 30)
        else:
            # A window of 30 s.
            lead, faults, calm, factor = entropy.uniform(5, 9), 16.0, REAL_CALM_SECONDS, 30.0
            faults = hours * 3600 / factor or faults
            every = entropy.uniform(0.8, 2.5)
        return cls(
            seed, virtual, venues, live, candles, proxied, factor, lead, faults, every, calm, latency, offset,
            FIRST_QUARTER_MS + quarter * 900_000,
        )  # fmt: skip

    @property
    def weighed(self) -> bool:
        """Whether its memory is looked at, which costs a tenth of a virtual seed."""
        return self.seed % 3 == 0 or not self.virtual

    def script(self) -> list[Step]:
        kinds = [*self.venues, *(["binance"] if self.candles else []), *(["line"] if self.proxied else [])]
        if self.virtual and self.live:
            kinds.append("clock")
        return draw_script(self.seed, seconds=self.faults, start=2.0, every=self.every, venues=kinds)


CALM_SECONDS = 100.0
"""After the last fault everything is live again within this: the longest backoff (30 s), one attempt to connect that
runs into its limit (10 s), a log-in and a book read anew with retries, and half a minute for an unknown order."""
REAL_CALM_SECONDS = 20.0


@dataclass(slots=True)
class Outcome:
    """What one seed gave."""

    seed: int
    virtual: bool
    variant: str = ""
    violations: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    script: str = ""
    log: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


Patch = Callable[[], object]


def play(
    scenario: Scenario,
    *,
    variant: str = "",
    patch: Patch | None = None,
    bot_class: type[Trader] = Trader,
    script: list[Step] | None = None,
    level: str = "INFO",
) -> Outcome:
    """Run one scenario to its end. Never raises: what went wrong is a violation."""
    outcome = Outcome(scenario.seed, scenario.virtual, variant)
    steps = scenario.script() if script is None else script
    outcome.script = text(steps)
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    output = io.StringIO()
    try:
        with ExitStack() as stack:
            stack.enter_context(patch() if patch is not None else nullcontext())  # type: ignore[arg-type]
            session = _Session(scenario, outcome, steps, directory, output, bot_class, level)
            if scenario.virtual:
                run(session.main(), seed=scenario.seed, latency=scenario.latency, jitter=scenario.latency)
            else:
                asyncio.run(session.main())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.violations.append(f"the run failed: {type(error).__name__}: {error}\n{traceback.format_exc()[-2000:]}")
    finally:
        close_logging()
        rows = "\n--- rows\n" + "".join(path.read_text() for path in sorted(directory.glob("*.csv")))
        REDACTOR.__init__()  # one process plays many seeds, each with secrets of its own
        shutil.rmtree(directory, ignore_errors=True)
        if outcome.violations:
            outcome.log = output.getvalue()[-200_000:] + rows
    return outcome


class _Tracebacks(logging.Handler):
    """Everything that was logged with a traceback at ERROR: nobody expected it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None and not record.name.startswith("aiohttp"):
            trace = traceback.extract_tb(record.exc_info[2])
            where = f" at {trace[-1].filename.rsplit('/', 2)[-1]}:{trace[-1].lineno}" if trace else ""
            self.seen.append(f"{record.getMessage()}: {type(record.exc_info[1]).__name__} {record.exc_info[1]}{where}")


class _Session:
    def __init__(self, scenario, outcome, steps, directory, output, bot_class, level) -> None:
        self.scenario: Scenario = scenario
        self.outcome: Outcome = outcome
        self.steps: list[Step] = steps
        self.directory: Path = directory
        self.output: io.StringIO = output
        self.bot_class: type[Trader] = bot_class
        self.level: str = level
        self.watch: Watch | None = None

    async def main(self) -> None:
        scenario = self.scenario
        loop = asyncio.get_running_loop()
        unhandled: list[str] = []
        loop.set_exception_handler(
            lambda _, context: unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")
        )
        before = asyncio.all_tasks()
        if scenario.virtual:
            start = scenario.start_ms - round(scenario.lead * 1000)
            clock: Clock = VirtualClock(start, Entropy(f"venues {scenario.seed}"))
            bot_clock: Clock = VirtualClock(start + round(scenario.offset * 1000), Entropy(f"bot {scenario.seed}"))
            self.clock = clock
            options = {"clock": clock, "steps_per_wall_second": 0.7}
        else:
            options = {
                "factor": scenario.factor,
                "first_boundary_wall_seconds": scenario.lead,
                "steps_per_wall_second": 4.0,
            }
            self.clock = SystemClock()
        tracebacks = _Tracebacks()
        async with AsyncExitStack() as stack:
            books = stack.enter_context(BookHistory(self.now))
            venues = LocalVenues(seed=scenario.seed, assets=("BTC",), **options)
            # Nobody looks at a venue that the bot does not use.
            if "polymarket" not in scenario.venues:
                venues.polymarket.steps_per_wall_second = IDLE_STEPS
            if "kalshi" not in scenario.venues:
                venues.kalshi._life._steps = IDLE_STEPS
            await stack.enter_async_context(venues)
            if not scenario.virtual:
                self.clock = clock = bot_clock = venues.clock
            endpoints, proxies = venues.endpoints, None
            if scenario.proxied:
                proxies = await stack.enter_async_context(
                    Proxies(venues.endpoints, SystemClock() if not scenario.virtual else clock)
                )
                endpoints = proxies.endpoints
            paths = Paths(self.directory, self.directory, self.directory)
            secrets = self.secrets(venues)
            log = setup_logging(
                "Trader", "local", paths=paths, clock=bot_clock, level=self.level, secrets=[], stream=self.output
            )
            stack.callback(close_logging)
            logging.getLogger().addHandler(tracebacks)
            stack.callback(logging.getLogger().removeHandler, tracebacks)
            trades = TradeLog(paths, "local", "Trader", bot_clock, fsync_rows=0)
            stack.callback(trades.close)
            bot = self.bot(endpoints, venues, bot_clock, trades, log)
            wrong = abs(scenario.offset)
            wrong += max(
                [abs(float(step.parameters["by"])) for step in self.steps if step.fault == "clock_step"], default=0.0
            )
            watch = self.watch = Watch(
                bot, Truth(venues), books, clock, live=scenario.live, wrong_clock=wrong * scenario.factor
            )
            step_clock = bot_clock.step_wall if isinstance(bot_clock, VirtualClock) else None
            faults = FaultScript(
                self.steps, venues, proxies, SystemClock() if not scenario.virtual else clock, step_clock
            )
            await self.live(bot, watch, faults, clock)
            trades.close()
            close_logging()
            watch.stopped(before | self.venue_tasks(before), self.output.getvalue())
            watch.files(self.directory, secrets, self.output.getvalue())
            if not scenario.live:
                for line in (line for venue in (venues.polymarket.clob, venues.kalshi.server) for line in venue.log):
                    if line.method in ("POST", "DELETE", "PUT") and "order" in line.path:
                        watch.violated("a dry-run sent an order", line.path)
            for failure in venues.failures:
                watch.violated("inside the venues", failure)
            self.count(bot, venues, faults, proxies)
        for what in unhandled:
            watch.violated("nobody handled an exception", what)
        for what in tracebacks.seen:
            watch.violated("an unexpected error was logged", what)
        stats = bot.stats
        if stats.tick_errors or stats.hook_errors or stats.task_errors:
            watch.violated(
                "ticks, hooks or tasks failed", f"{stats.tick_errors} {stats.hook_errors} {stats.task_errors}"
            )
        self.outcome.violations += watch.violations

    def now(self) -> float:
        return self.clock.monotonic()

    def venue_tasks(self, before: set) -> set:
        names = ("polymarket", "kalshi", "binance", "proxy", "fault script")
        return {task for task in asyncio.all_tasks() - before if task.get_name().startswith(names) or _of_aiohttp(task)}

    def secrets(self, venues: LocalVenues) -> list[str]:
        account = venues.polymarket_account
        pem = [line for line in venues.kalshi_key.pem.splitlines() if len(line) > 30 and "KEY" not in line]
        return [account.private_key.removeprefix("0x"), account.api_key.secret, account.api_key.passphrase, *pem]

    def bot(self, endpoints: Endpoints, venues: LocalVenues, clock: Clock, trades: TradeLog, log) -> Trader:
        exchanges = [
            exchange_on(venue, venues, clock, live=self.scenario.live, endpoints=endpoints)
            for venue in self.scenario.venues
        ]
        feeds = []
        if self.scenario.candles:
            feeds.append(BinanceFeed(endpoints, clock, ["BTCUSDT"], interval=self.scenario.candles, size=CANDLES))
        bot = self.bot_class(exchanges, ["BTC"], feeds=feeds, clock=clock, trades=trades, log=log)
        bot.prepare(self.scenario.seed, pace=1.0 if self.scenario.virtual else 0.3 * self.scenario.factor / 10)
        if not self.scenario.virtual:
            bot.TICK_SECONDS = 0.25 * self.scenario.factor  # type: ignore[misc]
        return bot

    async def live(self, bot: Trader, watch: Watch, faults: FaultScript, clock: Clock) -> None:
        scenario = self.scenario
        watch.quiet = faults.quiet
        life = asyncio.ensure_future(bot.start())
        life.set_name("life of the bot")
        watcher: asyncio.Future[None] | None = None
        try:
            began = clock.io_monotonic()
            while not bot.started:
                await clock.io_sleep(0.1)
                if life.done() or clock.io_monotonic() - began > START_SECONDS:
                    watch.violated("the bot did not start", life.exception() if life.done() else "in time")
                    return
            watcher = asyncio.ensure_future(self.watching(watch, clock))
            async with faults:
                await faults.done()
                bot.busy = False
                await clock.io_sleep(scenario.calm * 0.3)
                if scenario.weighed:
                    watch.memory()
                await clock.io_sleep(scenario.calm * 0.7)
                if scenario.weighed:
                    watch.memory()
            if life.done():
                watch.violated("the bot ended by itself", life.exception())
                return
            calm = Calm(watch)
            await calm.calm()
            await clock.io_sleep(SETTLE_SECONDS if scenario.virtual else 3.0)
            calm.fills_equal() if scenario.live else None
            calm.ledger_equal() if scenario.live else None
            watch.boundaries.settled()
            if scenario.live:
                await calm.last_orders()
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
                if not watcher.cancelled() and watcher.exception() is not None:
                    watch.violated("the watch failed", repr(watcher.exception()))
            began = clock.io_monotonic()
            await bot.stop()
            await asyncio.gather(life, return_exceptions=True)
            took = clock.io_monotonic() - began
            if took > EXIT_SECONDS:
                watch.violated("the exit took too long", f"{took:.1f} s")
            if life.done() and not life.cancelled() and life.exception() is not None:
                watch.violated("the bot failed", repr(life.exception()))
            await clock.io_sleep(1.0)

    async def watching(self, watch: Watch, clock: Clock) -> None:
        count = 0
        while True:
            await clock.io_sleep(1.0 if self.scenario.virtual else 0.25)
            watch.step()
            count += 1
            if count % 120 == 0:
                watch.books.forget(watch.truth.engines())

    def count(self, bot: Trader, venues: LocalVenues, faults: FaultScript, proxies: Proxies | None) -> None:
        counts = Counter(self.watch.counts if self.watch else {})
        said = bot.said
        counts["orders tried"] = len(said.attempts)
        for attempt in said.attempts:
            counts[f"orders {attempt.result}"] += 1
            if attempt.resolved:
                counts[f"resolved {attempt.resolved}"] += 1
        counts["fills"] = len({(fill.fill_id, fill.order_id) for fill in said.fills})
        counts["fills failed"] = sum(fill.state == "FAILED" for fill in said.fills)
        counts["cancels"] = said.cancels
        counts["queries"] = said.queries
        counts["queries failed"] = said.failed_queries
        counts["rollovers"] = bot.stats.rollovers
        counts["settled"] = bot.stats.settled
        counts["ticks"] = bot.stats.ticks
        counts["connections"] = sum(server.counts["connections"] for venue in venues.venues for server in venue.servers)
        counts["dropped"] = sum(venue.faults.counts["dropped"] for venue in venues.venues)
        self.outcome.counts = dict(counts)
        self.outcome.faults = dict(faults.counts)


def _of_aiohttp(task: asyncio.Task) -> bool:
    coroutine = task.get_coro()
    return "aiohttp" in getattr(getattr(coroutine, "cr_code", None), "co_filename", "") or "pmkit/sim" in getattr(
        getattr(coroutine, "cr_code", None), "co_filename", ""
    )
