"""The faults a script may name, by venue, with how their parameters are drawn. `KINDS` has them all."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from pmkit.clock import Clock, Entropy
from pmkit.sim.proxies import Proxies
from pmkit.sim.venues import LocalVenues

_log = logging.getLogger("pmkit.sim")

VENUES = ("polymarket", "kalshi", "binance")
HTML = "<html><body><h1>Bad gateway</h1></body></html>"

UNTIL_TOLD = 1e6
"""Market seconds. A silence ends in the same moment as the connections: were it to end on a standing one, some messages
in the middle of it would be lost, which TCP does not do."""

Parameters = dict[str, float | int | str]


class Stage(msgspec.Struct):
    """What faults act on. `step_clock`, where given, moves the bot's date by that many seconds."""

    venues: LocalVenues
    proxies: Proxies | None
    clock: Clock
    step_clock: Callable[[float], object] | None = None

    async def wait(self, parameters: Parameters) -> None:
        """As long as the fault lasts."""
        await self.clock.io_sleep(float(parameters["seconds"]))


Apply = Callable[[Stage, Parameters], Awaitable[None] | None]
Draw = Callable[[Entropy], Parameters]


class Kind(msgspec.Struct, frozen=True):
    """A fault: which venue, how its parameters are drawn, what it does. `weight` is how often it comes."""

    name: str
    venue: str
    draw: Draw
    apply: Apply
    weight: int = 2


KINDS: dict[str, Kind] = {}


def _fault(venue: str, draw: Draw = lambda entropy: {}, weight: int = 2) -> Callable[[Apply], Apply]:
    def register(apply: Apply) -> Apply:
        name = getattr(apply, "__name__").strip("_")  # noqa: B009
        KINDS[name] = Kind(name, venue, draw, apply, weight)
        return apply

    return register


def _seconds(low: float, high: float) -> Draw:
    return lambda entropy: {"seconds": round(entropy.uniform(low, high), 2)}


def _times(low: int = 1, high: int = 3) -> Draw:
    return lambda entropy: {"times": entropy.randint(low, high)}


def _which(name: str, values: Sequence[int | str], more: Draw = lambda entropy: {}) -> Draw:
    return lambda entropy: {name: entropy.choice(values), **more(entropy)}


# ---- all venues: sockets and answers


def _all_venues() -> None:
    for venue in VENUES:
        short = {"polymarket": "pm", "kalshi": "kalshi", "binance": "binance"}[venue]

        def drop(stage: Stage, given: Parameters, venue: str = venue) -> None:
            getattr(stage.venues, venue).faults.drop_connections()

        async def silence(stage: Stage, given: Parameters, venue: str = venue) -> None:
            # What a silent venue does not say never comes: no feed without sequence numbers could know that it missed
            # something, so the silence ends as real ones do, with the connection.
            faults = getattr(stage.venues, venue).faults
            faults.silence(UNTIL_TOLD)
            await stage.wait(given)
            faults.silence(0.0)
            faults.drop_connections()

        async def delay(stage: Stage, given: Parameters, venue: str = venue) -> None:
            faults = getattr(stage.venues, venue).faults
            faults.delay(float(given["by"]))
            await stage.wait(given)
            faults.delay(0.0)

        def handshake(stage: Stage, given: Parameters, venue: str = venue) -> None:
            faults = getattr(stage.venues, venue).faults
            faults.reject_handshake(int(given["status"]), int(given["times"]))
            faults.drop_connections()

        def garbage(stage: Stage, given: Parameters, venue: str = venue) -> None:
            getattr(stage.venues, venue).faults.garbage(str(given["frame"]))

        def errors(stage: Stage, given: Parameters, venue: str = venue) -> None:
            body = "" if given["body"] == "empty" else HTML
            getattr(stage.venues, venue).faults.http_status(
                "^GET ", int(given["status"]), body, times=int(given["times"])
            )

        frames = ("not json", "{", "[]", '{"event_type":"never_heard_of"}', '{"type":"never_heard_of","msg":{}}', "NaN")
        rows: tuple[tuple[str, Apply, Draw, int], ...] = (
            ("drop", drop, lambda entropy: {}, 4),
            ("silence", silence, _seconds(2, 45), 2),
            ("delay", delay, lambda entropy: {"by": round(entropy.uniform(0.1, 12), 2), **_seconds(1, 20)(entropy)}, 2),
            ("handshake", handshake, _which("status", (429, 500, 503), _times()), 2),
            ("garbage", garbage, _which("frame", frames), 2),
            (
                "errors",
                errors,
                _which("status", (500, 502, 503, 504, 520), _which("body", ("html", "empty"), _times())),
                3,
            ),
        )
        for name, apply, draw, weight in rows:
            KINDS[f"{short}_{name}"] = Kind(f"{short}_{name}", venue, draw, apply, weight)


_all_venues()


# ---- Polymarket


def _pm_armed(name: str, weight: int) -> None:
    def apply(stage: Stage, given: Parameters) -> None:
        stage.venues.polymarket.faults.arm(name, int(given["times"]))

    KINDS[f"pm_{name}"] = Kind(f"pm_{name}", "polymarket", _times(), apply, weight)


for _name, _weight in {
    "answer_lost": 5, "request_lost": 4, "answer_500": 4, "trade_failed": 3, "trade_retried": 2, "duplicate_event": 4,
    "long_delay": 2, "killed_in_delay": 2, "request_500": 3, "answer_400": 3, "unmatched": 2,
}.items():  # fmt: skip
    _pm_armed(_name, _weight)


@_fault("polymarket", lambda entropy: {"late": round(entropy.uniform(1, 14), 2), **_times()(entropy)}, 4)
def pm_answer_late(stage: Stage, given: Parameters) -> None:
    stage.venues.polymarket.answers.late_seconds = float(given["late"])
    stage.venues.polymarket.faults.arm("answer_late", int(given["times"]))


@_fault("polymarket", _seconds(5, 60), 3)
async def pm_user_silence(stage: Stage, given: Parameters) -> None:
    """Own orders and fills are not told, then the connections end: what was missed can only be read."""
    stage.venues.polymarket.user.silence(UNTIL_TOLD)
    await stage.wait(given)
    stage.venues.polymarket.user.silence(0.0)
    stage.venues.polymarket.faults.drop_connections()


@_fault("polymarket", lambda entropy: {"down": entropy.randint(5, 60), "post_only": entropy.randint(5, 40)})
def pm_restart(stage: Stage, given: Parameters) -> None:
    stage.venues.polymarket.modes.restart(float(given["down"]), float(given["post_only"]))


@_fault("polymarket", _seconds(5, 40))
async def pm_gamma_cache(stage: Stage, given: Parameters) -> None:
    stage.venues.polymarket.gamma_cache_seconds = float(given["seconds"])
    await stage.wait(given)
    stage.venues.polymarket.gamma_cache_seconds = 0.0


@_fault("polymarket", _seconds(5, 90))
async def pm_gamma_down(stage: Stage, given: Parameters) -> None:
    faults = stage.venues.polymarket.faults
    faults.http_status("^GET /(events|markets|series)", 503, HTML, times=None)
    await stage.wait(given)
    faults.forget("^GET /(events|markets|series)")


@_fault("polymarket", lambda entropy: {"hidden": round(entropy.uniform(0.5, 8), 2), **_seconds(5, 60)(entropy)})
async def pm_orders_hidden(stage: Stage, given: Parameters) -> None:
    """An order that was just accepted cannot be read yet."""
    stage.venues.polymarket.reads.hydration_seconds = float(given["hidden"])
    await stage.wait(given)
    stage.venues.polymarket.reads.hydration_seconds = 0.0


@_fault("polymarket", lambda entropy: {"late": round(entropy.uniform(1, 8), 2), **_seconds(5, 60)(entropy)})
async def pm_reads_late(stage: Stage, given: Parameters) -> None:
    """Trades cannot be read yet, and balances are old unless the venue is asked to look."""
    reads = stage.venues.polymarket.reads
    reads.trade_hydration_seconds, reads.balance_lag_seconds = float(given["late"]), 60.0
    await stage.wait(given)
    reads.trade_hydration_seconds = reads.balance_lag_seconds = 0.0


@_fault("polymarket")
def pm_finer_tick(stage: Stage, given: Parameters) -> None:
    for live in list(stage.venues.polymarket.live.values()):
        live.refine()


# ---- Kalshi


def _kalshi_armed(name: str, weight: int) -> None:
    def apply(stage: Stage, given: Parameters) -> None:
        stage.venues.kalshi.faults.arm(name, int(given["times"]))

    KINDS[f"kalshi_{name}"] = Kind(f"kalshi_{name}", "kalshi", _times(), apply, weight)


for _name, _weight in {
    "lose_request": 4, "lose_answer": 5, "error_before": 3, "error_after": 4, "skip_delta": 4, "duplicate_frame": 3,
    "duplicate_fill": 4, "timestamp_expired": 2,
}.items():  # fmt: skip
    _kalshi_armed(_name, _weight)


@_fault("kalshi", lambda entropy: {"late": round(entropy.uniform(1, 14), 2), **_times()(entropy)}, 4)
def kalshi_answer_late(stage: Stage, given: Parameters) -> None:
    stage.venues.kalshi.mishaps.delay = float(given["late"])
    stage.venues.kalshi.faults.arm("delay_answer", int(given["times"]))


@_fault("kalshi", _seconds(5, 60), 3)
async def kalshi_user_silence(stage: Stage, given: Parameters) -> None:
    """As on Polymarket."""
    stage.venues.kalshi.user_feed.silence(UNTIL_TOLD)
    await stage.wait(given)
    stage.venues.kalshi.user_feed.silence(0.0)
    stage.venues.kalshi.faults.drop_connections()


@_fault("kalshi")
def kalshi_overflow(stage: Stage, given: Parameters) -> None:
    stage.venues.kalshi.overflow()


@_fault("kalshi", _seconds(3, 40), 1)
async def kalshi_pause(stage: Stage, given: Parameters) -> None:
    stage.venues.kalshi.pause()
    await stage.wait(given)
    stage.venues.kalshi.pause(False)


@_fault("kalshi", lambda entropy: {"late": entropy.randint(200, 5000), **_seconds(5, 60)(entropy)})
async def kalshi_portfolio_late(stage: Stage, given: Parameters) -> None:
    stage.venues.kalshi.portfolio.lag_ms = int(given["late"])
    await stage.wait(given)
    stage.venues.kalshi.portfolio.lag_ms = 0


@_fault("kalshi", lambda entropy: {"late": entropy.randint(1000, 15000), **_seconds(5, 60)(entropy)})
async def kalshi_lists_late(stage: Stage, given: Parameters) -> None:
    stage.venues.kalshi.markets.lag_ms = int(given["late"])
    await stage.wait(given)
    stage.venues.kalshi.markets.lag_ms = 0


# ---- Binance


@_fault("binance", _which("status", (418, 429, 503), lambda entropy: {"retry_after": entropy.randint(1, 20)}))
def binance_refuse(stage: Stage, given: Parameters) -> None:
    stage.venues.binance.faults.refuse(int(given["status"]), retry_after=int(given["retry_after"]))


@_fault("binance", lambda entropy: {"after": entropy.randint(0, 2000), **_times()(entropy)})
def binance_tear(stage: Stage, given: Parameters) -> None:
    stage.venues.binance.faults.tear(int(given["after"]), times=int(given["times"]))


@_fault("binance")
def binance_shutdown(stage: Stage, given: Parameters) -> None:
    stage.venues.binance.server_shutdown()


# ---- the line


def _line(weight: int, draw: Draw, apply: Callable[[Stage, Parameters, str], Awaitable[None] | None]) -> None:
    for venue in VENUES:

        def on(stage: Stage, given: Parameters, venue: str = venue) -> Awaitable[None] | None:
            return None if stage.proxies is None else apply(stage, given, venue)

        name = f"line_{getattr(apply, '__name__').strip('_')}_{venue}"  # noqa: B009
        KINDS[name] = Kind(name, "line", draw, on, weight if venue != "binance" else 1)


def _cut(stage: Stage, given: Parameters, venue: str) -> None:
    assert stage.proxies is not None
    for proxy in stage.proxies.of(venue):
        proxy.cut(reset=bool(given["reset"]))


def _reset_after(stage: Stage, given: Parameters, venue: str) -> None:
    assert stage.proxies is not None
    for proxy in stage.proxies.of(venue):
        proxy.cut(reset=True)
        proxy.reset_after(int(given["bytes"]), int(given["times"]))


async def _hole(stage: Stage, given: Parameters, venue: str) -> None:
    assert stage.proxies is not None
    for proxy in stage.proxies.of(venue):
        proxy.black_hole = True
    await stage.wait(given)
    for proxy in stage.proxies.of(venue):
        proxy.black_hole = False
        if given["then"] == "cut":
            proxy.cut(reset=True)


async def _refused(stage: Stage, given: Parameters, venue: str) -> None:
    assert stage.proxies is not None
    proxies = stage.proxies.of(venue)
    for proxy in proxies:
        await proxy.refuse(True)
        proxy.cut(reset=True)
    try:
        await stage.wait(given)
    finally:
        for proxy in proxies:
            await proxy.refuse(False)


async def _slow(stage: Stage, given: Parameters, venue: str) -> None:
    assert stage.proxies is not None
    proxies = stage.proxies.of(venue)
    for proxy in proxies:
        proxy.latency, proxy.jitter = float(given["latency"]), float(given["jitter"])
        proxy.slice_bytes = int(given["slice"])
        proxy.slow_close = float(given["slow_close"])
    await stage.wait(given)
    for proxy in proxies:
        proxy.calm()


_line(2, _which("reset", (0, 1)), _cut)
_line(2, lambda entropy: {"bytes": entropy.randint(1, 1500), **_times()(entropy)}, _reset_after)
_line(2, _which("then", ("cut", "go on"), _seconds(1, 40)), _hole)
_line(1, _seconds(1, 30), _refused)
_line(
    2,
    lambda entropy: {
        "latency": round(entropy.uniform(0.01, 0.4), 3),
        "jitter": round(entropy.uniform(0.0, 0.3), 3),
        "slice": entropy.choice((0, 0, 1, 7, 100)),
        "slow_close": round(entropy.uniform(0.0, 3.0), 2),
        **_seconds(5, 40)(entropy),
    },
    _slow,
)


# ---- the clock of the bot


@_fault("clock", lambda entropy: {"by": round(entropy.uniform(-3, 3), 2), **_seconds(5, 60)(entropy)})
async def clock_step(stage: Stage, given: Parameters) -> None:
    if stage.step_clock is None:
        return
    stage.step_clock(float(given["by"]))
    await stage.wait(given)
    stage.step_clock(-float(given["by"]))
