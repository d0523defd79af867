"""`run`: from a strategy class to a running bot. Asks where and in which mode, loads settings, starts local venues when
chosen, wires exchanges and feeds, runs, prints a summary.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pmkit.bot.base import BaseBot
from pmkit.bot.decisions import Decisions, TradeWriter
from pmkit.bot.local import LocalLine, LocalProcess
from pmkit.bot.record import About, recorder_of, run_recorded
from pmkit.bot.signals import StopSignals
from pmkit.bot.summary import prepare, print_summary
from pmkit.bot.venues import VENUES, listens_with_key, live_exchange, market_data
from pmkit.clock import Clock
from pmkit.config.env import Mode, Settings, secrets_of
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import ConfigError, PmkitError
from pmkit.exchanges.base import BaseExchange, asset_names
from pmkit.exchanges.numbers import to_decimal
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.paper.queue import QueueModel, queue_model
from pmkit.logging.csv_logger import TradeLog
from pmkit.logging.logger import close_logging, flush_logging, setup_logging
from pmkit.logging.paths import Paths, file_mode
from pmkit.prompts import inquirer as prompts

if TYPE_CHECKING:
    from pmkit.data.binance.feed import BinanceFeed
    from pmkit.recording.recorder import Recorder

MARKET_INTERVALS = {"polymarket": ("5m", "15m"), "kalshi": ("15m",)}
"""The windows that each venue lists; those of 15 minutes where nobody says otherwise."""


def run(
    bot: type[BaseBot],
    *,
    venues: Sequence[str] | None = None,
    assets: Sequence[str] | None = None,
    interval: str | None = None,
    candles: str | None = None,
    local_speed: float = 15.0,
    local_seed: int = 7,
    local_first_boundary: float | None = None,
    balance: Decimal | str | int = 1000,
    queue: Literal["pessimistic", "middle", "optimistic"] = "middle",
    record: bool = False,
) -> None:
    """Run a strategy until it stops itself, Ctrl-C or SIGTERM.

    Two questions are asked at a prompt, or answered by PMKIT_WHERE and PMKIT_MODE; `venues` and `assets` are asked (or
    read from PMKIT_VENUES, PMKIT_ASSETS) only where they are not given. `interval`: length of the windows, "15m" where
    neither it nor PMKIT_INTERVAL says otherwise ("5m" on Polymarket alone). `candles` is the interval of live Binance
    candles ("1s", "1m"), None for none.

    Local venues: market time passes `local_speed` times as fast as the wall, prices and traders follow `local_seed`,
    and the first boundary comes after `local_first_boundary` seconds of wall time where it is given. Dry-run: the
    account starts with `balance` dollars per venue, `queue` is the model of queue positions.

    `record`: every public frame and request goes to a file in `PMKIT_DATA_DIR/recordings` (`pmkit.recording`), which
    `pmkit.replay` plays back.

    Exits the process with status 1 and a message when the run could not start or failed, 130 after a second Ctrl-C.
    """
    kind: object = bot
    if not (isinstance(kind, type) and issubclass(kind, BaseBot)):
        raise TypeError(f"run takes a class that is a BaseBot, not {bot!r}")
    try:
        settings = Settings.load()
        where = prompts.ask_where(settings, venues or ())
        mode = prompts.ask_mode(settings, where)
        venues = _venues(venues) if venues else list(prompts.ask_venues(settings))
        assets = asset_names([assets] if isinstance(assets, str) else assets or prompts.ask_assets(settings))
        interval = _interval(interval or settings.interval or "15m", venues)
        dollars = to_decimal(balance, "balance")
        model = queue_model(queue)
        if where is Where.DEMO and "polymarket" in venues:
            raise ConfigError("demo exists on Kalshi only: choose local or real for Polymarket")
        settings.require(mode, venues, where)
        if mode is Mode.LIVE:
            prompts.confirm_live(where, venues, f"{bot.__name__} on {', '.join(assets)}, {interval} windows")
        status = asyncio.run(
            _main(
                bot,
                settings=settings,
                where=where,
                mode=mode,
                venues=venues,
                assets=assets,
                interval=interval,
                candles=candles,
                local=LocalProcess(
                    assets=tuple(assets), speed=local_speed, seed=local_seed, first_boundary=local_first_boundary
                ),
                balance=dollars,
                queue=model,
                record=record,
            )
        )
    except PmkitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        # Ctrl-C in a prompt, or before the bot took over the signals: nothing has started.
        raise SystemExit(130) from None
    if status:
        raise SystemExit(status)


async def _main(
    bot: type[BaseBot],
    *,
    settings: Settings,
    where: Where,
    mode: Mode,
    venues: Sequence[str],
    assets: Sequence[str],
    interval: str,
    candles: str | None,
    local: LocalProcess,
    balance: Decimal,
    queue: QueueModel,
    record: bool,
) -> int:
    async with AsyncExitStack() as stack:
        # From the bot's end to ours nothing is left to stop: a further signal must not cut the last lines off.
        ending = StopSignals(lambda name, count: None)
        stack.callback(ending.remove)
        line: LocalLine | None = None
        if where is Where.LOCAL:
            line = await stack.enter_async_context(local)
            endpoints = line.endpoints
        else:
            endpoints = Endpoints.demo() if where is Where.DEMO else Endpoints.real()
        clock = endpoints.make_clock()
        paths = Paths.of(settings)
        paths.check()
        secrets = [*secrets_of(settings), *(line.secrets if line else [])]
        shown_mode = file_mode(where, mode)
        log = setup_logging(
            bot.__name__, shown_mode, paths=paths, clock=clock, level=settings.log_level, secrets=secrets
        )
        stack.callback(close_logging)
        for warning in settings.warnings:
            log.warning("%s", warning)
        trades = TradeLog(paths, shown_mode, bot.__name__, clock)
        stack.callback(trades.close)
        rows: TradeWriter = trades
        recorder: Recorder | None = None
        if record:
            about = About(
                bot=bot.__name__,
                where=where,
                mode=mode,
                venues=list(venues),
                assets=list(assets),
                interval=interval,
                candles=candles,
                keys=[venue for venue in venues if listens_with_key(venue, settings, line)],
                balance=str(balance),
                queue=queue,
            )
            path = paths.recording_file(bot.__name__, shown_mode, clock.now())
            recorder = stack.enter_context(recorder_of(path, clock, endpoints, about))
            log.info("recording to %s", path)
            if mode is Mode.DRY_RUN:
                rows = Decisions(clock, recorder.decision, trades)
        exchanges: list[BaseExchange] = []
        for venue in venues:
            if mode is Mode.LIVE:
                exchanges.append(live_exchange(venue, endpoints, clock, settings, line))
            else:
                data = market_data(venue, endpoints, clock, settings, line)
                exchanges.append(PaperExchange(data, balance=balance, queue=queue))
        feeds = _feeds(endpoints, clock, assets, candles)
        given = settings if mode is Mode.LIVE else settings.without_keys()
        runner = bot(
            exchanges, assets, feeds=feeds, clock=clock, settings=given, interval=interval, trades=rows, log=log
        )
        prepare()
        # What is here now stays: it need not be looked through by each collection of garbage, nor by the one at the
        # end, which is most of what Python itself does when it exits.
        gc.collect()
        gc.freeze()
        await clock.io_sleep(0)  # a Ctrl-C during the imports of the venues is seen here, before anything connects
        log.info("%s on %s venues, %s: %s, %s", bot.__name__, where, mode, ", ".join(venues), ", ".join(assets))
        status = 0
        ending.install()
        try:
            if recorder is None:
                await runner.start()
            else:
                await run_recorded(runner, recorder, runner.start)
        except PmkitError as error:
            log.error("%s: %s", type(error).__name__, error)
            status = 1
        except Exception:
            log.exception("the bot failed")
            status = 1
        flush_logging()
        print_summary(runner.ledgers.values(), runner.stats)
        return 130 if runner.hurried else status


def _venues(given: Sequence[str]) -> list[str]:
    names = [str(name).lower() for name in ([given] if isinstance(given, str) else given)]
    for name in names:
        if name not in VENUES:
            raise ConfigError(f"unknown venue {name!r}: there are {' and '.join(VENUES)}")
    return list(dict.fromkeys(names))


def _interval(interval: str, venues: Sequence[str]) -> str:
    for venue in venues:
        if interval not in MARKET_INTERVALS[venue]:
            listed = " and ".join(MARKET_INTERVALS[venue])
            raise ConfigError(f"{venue} has no windows of {interval!r}, but of {listed}: see interval=, PMKIT_INTERVAL")
    return interval


def _feeds(endpoints: Endpoints, clock: Clock, assets: Sequence[str], candles: str | None) -> list[BinanceFeed]:
    if candles is None:
        return []
    from pmkit.data.binance.feed import BinanceFeed
    from pmkit.data.binance.types import symbol_of

    return [BinanceFeed(endpoints, clock, [symbol_of(asset) for asset in assets], interval=candles)]
