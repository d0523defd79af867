"""Candles of Binance into CSV files: the last days, a range, or everything there is.

    python examples/fetch_candles.py [--yes]

asks for assets, interval and period, or takes PMKIT_WHERE, PMKIT_ASSETS, PMKIT_INTERVAL (1s 1m 5m 15m), PMKIT_PERIOD
(3d, 2026-11-01..2026-11-08, full) and PMKIT_DATA_DIR (data; made-up candles of the local venue go to data/local).
`--yes` answers the question before a big one. Started again after Ctrl-C, a crash or a full disk it goes on where it
stopped. What Binance itself does not have is in the gap report beside the files.
"""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pmkit.bot.local import LocalProcess
from pmkit.clock import to_utc
from pmkit.config.env import Settings
from pmkit.config.values import Period
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.history import Estimate, Fetched
from pmkit.data.binance.types import ASSETS, INTERVALS, symbol_of
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import ConfigError, PmkitError
from pmkit.prompts.inquirer import ask_assets, ask_interval, ask_period, ask_where, confirm

ASK_ABOVE_ROWS = 20_000_000  # about eight months of 1s candles of one symbol, 1.7 GB
SPARE_BYTES = 1 << 30  # of the disk, that is left alone
SHOWN_GAPS = 5

console = Console()


async def main(settings, where, assets, interval, period, yes):
    """Estimate, ask, fetch one symbol after another, sum up."""
    async with AsyncExitStack() as stack:
        endpoints, directory = Endpoints.real(), settings.data_dir
        if where is Where.LOCAL:
            local = await stack.enter_async_context(LocalProcess(assets=assets, speed=1.0, seed=7))
            # Made up: never among real ones.
            endpoints, directory = local.endpoints, directory / "local"
        clock = endpoints.make_clock()
        fetcher = await stack.enter_async_context(BinanceFetcher(endpoints, clock))
        symbols = [symbol_of(asset) for asset in assets]
        start, end = bounds(period, clock)
        with console.status("asking Binance what there is"):
            estimates = [await fetcher.estimate(symbol, interval, start, end, directory) for symbol in symbols]
        show_estimates(estimates)
        check_disk(estimates)
        rows = sum(each.rows for each in estimates)
        question = f"Fetch {rows:,} candles?"
        if rows > ASK_ABOVE_ROWS and not yes and not await asyncio.to_thread(confirm, question, "start it with --yes"):
            console.print("nothing was fetched")
            return 0
        await fetch_all(fetcher, directory, symbols, interval, (start, end), estimates)
    return 0


def bounds(period: Period, clock):
    """None is the first candle, and now."""
    if period.text == "full":
        return None, None
    start, end = period.bounds(clock.now())
    return start, None if period.last is not None or period.end is None else end


def show_estimates(estimates: list[Estimate]) -> None:
    for each in estimates:
        files = f", {each.files:,} bulk files ({size(each.download_bytes)})" if each.files else ""
        console.print(
            f"{each.symbol} {each.interval}: {to_utc(each.start_ms):%Y-%m-%d %H:%M} to "
            f"{to_utc(each.end_ms):%Y-%m-%d %H:%M} UTC: {each.rows:,} rows to fetch, {size(each.bytes)} of CSV, "
            f"{each.requests:,} requests{files}, about {each.minutes:.1f} minutes",
            markup=False,
        )
        for note in each.notes:
            console.print(f"  note: {note}", markup=False)


def check_disk(estimates: list[Estimate]) -> None:
    """Refuse what will not fit. Downloads lie beside the data while they are read, a few at a time."""
    needed = sum(each.bytes for each in estimates) + max((each.download_bytes for each in estimates), default=0) // 50
    free = min(each.free_bytes for each in estimates)
    if needed + SPARE_BYTES > free:
        raise ConfigError(
            f"about {size(needed)} are needed and {size(free)} are free: choose a shorter period, a longer interval, "
            "or a directory on another disk (PMKIT_DATA_DIR)"
        )


async def fetch_all(fetcher, directory, symbols, interval, period, estimates) -> None:
    """One bar per symbol. What is in the files when this ends, in whatever way, stays."""
    results: list[Fetched] = []
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as bars:
            tasks = [bars.add_task(each.symbol, total=each.rows, rate="", start=False) for each in estimates]
            for symbol, task in zip(symbols, tasks, strict=True):
                bars.start_task(task)
                began = fetcher.clock.io_monotonic()

                def moved(progress, task=task, began=began):
                    seconds = max(0.001, fetcher.clock.io_monotonic() - began)
                    rate = "waiting for the network" if progress.trouble else f"{progress.rows / seconds:,.0f} rows/s"
                    bars.update(task, completed=progress.done, total=progress.total, rate=rate)

                results.append(await fetcher.fetch(symbol, interval, *period, directory, progress=moved))
    finally:
        for result in results:
            show(result)


def show(result: Fetched) -> None:
    rate = result.rows / max(result.seconds, 0.001)
    console.print(
        f"{result.symbol} {result.interval}: {result.candles:,} candles from "
        f"{to_utc(result.start_ms):%Y-%m-%d %H:%M:%S} to {to_utc(result.end_ms):%Y-%m-%d %H:%M:%S} UTC, "
        f"{result.rows:,} of them fetched now "
        f"({result.requests:,} requests, {result.downloads} bulk files, {rate:,.0f} rows/s)",
        markup=False,
    )
    if result.gaps:
        console.print(f"  {result.missing:,} candles in {len(result.gaps)} gaps that Binance has itself:", markup=False)
        for gap in result.gaps[:SHOWN_GAPS]:
            console.print(f"  {gap.first} to {gap.last}: {gap.missing:,} ({gap.why})", markup=False)
    for note in result.notes:
        console.print(f"  note: {note}", markup=False)
    console.print(f"  {result.files[0].parent if result.files else '(no files)'}; gaps: {result.report}", markup=False)


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


if __name__ == "__main__":
    logging.getLogger("pmkit").setLevel(logging.ERROR)  # what was odd is among the notes
    try:
        if unknown := [argument for argument in sys.argv[1:] if argument != "--yes"]:
            raise ConfigError(f"unknown argument {unknown[0]}: there is only --yes")
        settings = Settings.load()
        where = ask_where(settings, ["binance"])
        assets = ask_assets(settings, ASSETS)
        interval = ask_interval(settings, tuple(INTERVALS), "1m")
        period = ask_period(settings, "3d")
        sys.exit(asyncio.run(main(settings, where, assets, interval, period, "--yes" in sys.argv)))
    except (PmkitError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped: what was fetched is in the files, and the same call goes on from there", file=sys.stderr)
        sys.exit(130)
