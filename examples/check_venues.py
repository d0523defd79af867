"""Is everything there that a bot needs? Checks line by line; only reads, places nothing, needs no key.

Where keys are set, the account as well: log-in, wallet type, cash, allowance, open orders, positions.

    python examples/check_venues.py        (PMKIT_WHERE=local|real|demo answers the question)

Local starts the local venues first. Exits with 0 only if every line is ok; each other line says what to do.
"""

import asyncio
import logging
import platform
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pmkit.bot.local import KalshiKey, LocalLine, LocalProcess
from pmkit.bot.venues import live_exchange
from pmkit.clock import Clock
from pmkit.config.env import Settings
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import ConfigError, NotSent, PmkitError
from pmkit.exchanges.base import MarketData
from pmkit.exchanges.market import Market
from pmkit.exchanges.orderbook import OrderBook
from pmkit.exchanges.types import NoMarket
from pmkit.http import HttpSession, Unanswered
from pmkit.prompts.inquirer import ask_where
from pmkit.venue_clock import VenueClock
from pmkit.version import __version__

T = TypeVar("T")

LOCAL_SPEED = 15.0
STEP_SECONDS = 20.0  # wall time of each step
CLOCK_LIMIT_MS = 1_000  # Kalshi refuses signatures that are some seconds old
NEARLY_OVER_SECONDS = 6.0  # wall time: a window that ends now is not worth a look
LIBRARIES = ("httpx", "websockets", "msgspec", "pandas", "cryptography", "coincurve", "inquirer")
NETWORK = "check the network, the proxy settings and whether the venue is up"


@dataclass(eq=False)
class Report:
    """The lines of one venue. `failed` counts those that are not ok, skipped ones included."""

    venue: str
    lines: list[str] = field(default_factory=list)
    failed: int = 0

    def ok(self, text: str) -> None:
        self.lines.append(f"ok      {self.venue:<11} {text}")

    def wrong(self, text: str, todo: str) -> None:
        self.failed += 1
        self.lines.append(f"WRONG   {self.venue:<11} {text}\n        {'':<11} -> {todo}")

    def skip(self, what: str, why: str) -> None:
        self.failed += 1
        self.lines.append(f"skipped {self.venue:<11} {what}: {why}")

    def raised(self, what: str, error: BaseException) -> None:
        """One line for what was raised, never a traceback."""
        if isinstance(error, TimeoutError):
            self.wrong(f"{what}: nothing within {STEP_SECONDS:.0f} s", NETWORK)
        elif isinstance(error, NotSent | Unanswered):
            self.wrong(f"{what}: not reachable: {str(error).partition(': ')[0]}", NETWORK)
        elif isinstance(error, ConfigError):
            self.wrong(f"{what}: {error}", "correct the setting, or choose another asset (PMKIT_ASSETS)")
        elif isinstance(error, PmkitError):
            self.wrong(f"{what}: {type(error).__name__}: {error}", "try again; if it stays, see the venue's status")
        else:
            self.wrong(f"{what}: {type(error).__name__}: {error}", "this is a bug: please report it")


async def main(settings: Settings, where: Where) -> int:
    """Start the local venues where they were chosen, check, print. Returns the exit code."""
    asset = (settings.assets or ("BTC",))[0]
    pmkit = Report("pmkit")
    check_pmkit(pmkit, settings)
    print("\n".join(pmkit.lines), flush=True)
    async with AsyncExitStack() as stack:
        key = line = None
        if where is Where.LOCAL:
            try:
                line = await stack.enter_async_context(LocalProcess(assets=(asset,), speed=LOCAL_SPEED, seed=7))
            except ConfigError as error:
                print(f"WRONG   local       {error}\n                    -> pip install 'aiohttp>=3.12,<4'")
                return 1
            endpoints, key = line.endpoints, line.kalshi_key
        else:
            endpoints = Endpoints.demo() if where is Where.DEMO else Endpoints.real()
        failed = pmkit.failed + await check(endpoints, settings, asset, key, line)
    print(f"\nall ok on {where} venues" if not failed else f"\nnot ok on {where} venues: {failed} of the lines above")
    return 1 if failed else 0


def check_pmkit(report: Report, settings: Settings) -> None:
    """What is installed, and what the settings warn of."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            report.wrong(f"{name} is not installed", f"pip install {name}, or set up anew: make setup")
    report.ok(f"pmkit {__version__} on Python {platform.python_version()}: {', '.join(found)}")
    for warning in settings.warnings:
        report.lines.append(f"note    {'pmkit':<11} {warning}")


async def check(
    endpoints: Endpoints,
    settings: Settings,
    asset: str,
    key: KalshiKey | None = None,
    line: LocalLine | None = None,
) -> int:
    """Check all venues of `endpoints` side by side and print their lines. Returns how many are not ok."""
    clock = endpoints.make_clock()
    binance, polymarket, kalshi = Report("binance"), Report("polymarket"), Report("kalshi")
    work = {binance: check_binance(binance, endpoints, clock, asset)}
    if endpoints.where is not Where.DEMO:
        work[polymarket] = one_by_one(
            check_polymarket(polymarket, endpoints, clock, asset),
            check_account(polymarket, endpoints, clock, settings, asset, line),
        )
    work[kalshi] = one_by_one(
        check_kalshi(kalshi, endpoints, clock, settings, asset, key),
        check_account(kalshi, endpoints, clock, settings, asset, line),
    )
    tasks = {report: asyncio.ensure_future(checks) for report, checks in work.items()}
    for report, task in tasks.items():
        try:
            await task
        except Exception as error:
            report.raised("the check", error)
        print("\n".join(report.lines), flush=True)
    return sum(report.failed for report in tasks)


async def one_by_one(*checks: Coroutine[Any, Any, None]) -> None:
    for one in checks:
        await one


async def step(report: Report, clock: Clock, what: str, work: Coroutine[Any, Any, T]) -> T | None:
    """Await `work` within the deadline of a step. None, and a line, where it failed."""
    try:
        async with clock.io_timeout(STEP_SECONDS):
            return await work
    except Exception as error:
        report.raised(what, error)
        return None


def check_clock(report: Report, clock: Clock, venue_clock: VenueClock) -> None:
    """Offsets are market time: on local venues it runs faster, and so do errors of measuring."""
    if venue_clock.uncertainty_ms is None:
        report.wrong("the venue did not tell its time", "try again")
        return
    offset_ms = venue_clock.offset_ms / clock.factor
    known_to_ms = venue_clock.uncertainty_ms / clock.factor
    text = f"this machine's clock is {-offset_ms:+.0f} ms from the venue's (known to {known_to_ms:.0f} ms)"
    if abs(offset_ms) > CLOCK_LIMIT_MS + known_to_ms:
        report.wrong(text, "synchronise it (NTP): signed requests will be refused, windows will be missed")
    else:
        report.ok(text)


# Binance.


async def check_binance(report: Report, endpoints: Endpoints, clock: Clock, asset: str) -> None:
    from pmkit.data.binance.types import symbol_of

    symbol = symbol_of(asset)
    venue_clock = VenueClock(clock)
    host = await step(report, clock, "time", ask_time(endpoints, clock, venue_clock))
    if host is None:
        report.skip("candles", "the venue did not answer")
        return
    check_clock(report, clock, venue_clock)
    count = await step(report, clock, f"1s candles of {symbol}", count_candles(endpoints, clock, symbol))
    if count is not None:
        report.ok(f"1s candles of {symbol} flow: {count[0]} read over REST, {count[1]} more from the socket")


async def ask_time(endpoints: Endpoints, clock: Clock, venue_clock: VenueClock) -> str:
    """The first host that answers. Raises what the last one gave when none does."""
    last: PmkitError = NotSent("no host is configured")
    for base in endpoints.binance.rest:
        async with HttpSession(base, clock, connect_timeout=3.0, timeout=5.0) as session:
            try:
                answer = await session.get("/api/v3/time")
            except PmkitError as error:
                last = error
                continue
            venue_clock.observe(answer.decode(dict[str, int])["serverTime"], answer.sent_ms, answer.received_ms)
            return session.host
    raise last


async def count_candles(endpoints: Endpoints, clock: Clock, symbol: str) -> tuple[int, int]:
    """Warm up, then wait for three candles of the socket."""
    from pmkit.data.binance.feed import BinanceFeed

    async with BinanceFeed(endpoints, clock, [symbol], interval="1s", size=60) as feed:
        warm = len(feed.candles(symbol))
        live = await feed.subscribe_candles()
        count = 0
        async for _ in live:
            count += 1
            if count == 3:
                break
        return warm, count


# Polymarket and Kalshi.


async def check_polymarket(report: Report, endpoints: Endpoints, clock: Clock, asset: str) -> None:
    from pmkit.exchanges.polymarket.market_data import PolymarketMarketData

    async with PolymarketMarketData(endpoints, clock) as data:
        await check_books(report, data, asset, "books from the public socket")


async def check_kalshi(
    report: Report, endpoints: Endpoints, clock: Clock, settings: Settings, asset: str, key: KalshiKey | None
) -> None:
    from pmkit.exchanges.kalshi.auth import HandshakeSigner
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData

    signer, source = None, "books polled over REST, since there is no key (Kalshi signs its public socket as well)"
    try:
        if key is not None:
            signer = HandshakeSigner.from_key(key.id, key.pem)
        elif settings.kalshi_api_key_id and (pem := settings.kalshi_pem()) is not None:
            signer = HandshakeSigner.from_key(settings.kalshi_api_key_id, pem.reveal())
    except PmkitError as error:
        report.wrong(f"the key: {error}", "see KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH in .env.example")
        return
    if signer is not None:
        source = "books from the socket, with the key"
    async with KalshiMarketData(endpoints, clock, signer=signer) as data:
        await check_books(report, data, asset, source)


async def check_books(report: Report, data: MarketData, asset: str, source: str) -> None:
    """The current window of the asset, the clock, and both books."""
    market = await step(report, data.clock, f"current 15-minute market of {asset}", find(data, asset))
    if not isinstance(market, Market):
        if market is not None:
            until = f", look again at {market.until:%H:%M} UTC" if market.until else ""
            report.wrong(f"no 15-minute market of {asset} now: {market.reason}", f"wait{until}")
        report.skip("books", "no market to look at")
        return
    left = (market.close_ms - data.venue_clock.now_ms()) / 1000
    report.ok(f"market of {asset}: {market.market_id}, {left:.0f} s left")
    check_clock(report, data.clock, data.venue_clock)
    books = await step(report, data.clock, source, valid_books(data, market))
    for book in books or ():
        if book.valid:
            report.ok(f"{book.outcome} {book.best_bid} / {book.best_ask}, {source}")
        else:
            report.wrong(f"{book.outcome} has no valid book: {book.reason}", "try again; if it stays, report it")


async def check_account(
    report: Report, endpoints: Endpoints, clock: Clock, settings: Settings, asset: str, line: LocalLine | None
) -> None:
    """What live orders need beside the books. Without keys a note: a dry-run needs none of it."""
    keys = {"polymarket": settings.polymarket_private_key, "kalshi": settings.kalshi_api_key_id}
    if line is None and keys[report.venue] is None:
        report.lines.append(f"note    {report.venue:<11} no key: the account was not looked at; a dry-run needs none")
        return
    try:
        exchange = live_exchange(report.venue, endpoints, clock, settings, line)
    except PmkitError as error:
        report.raised("the key", error)
        return
    async with exchange:
        what = "log-in"
        try:
            async with clock.io_timeout(STEP_SECONDS):
                await exchange.keep_warm()
                if report.venue == "polymarket":
                    identity = await exchange.login.ready()
                    report.ok(f"logged in; funds in {identity.maker}, wallet type {int(identity.signature_type)}")
                else:
                    report.ok("the key is taken")
                what = "cash"
                market = await find(exchange, asset)
                report.ok(f"cash {await exchange.get_balance()} dollars")
                if market:
                    report.ok(f"an order can spend {await exchange.get_balance(market)} dollars")
                    if report.venue == "polymarket":
                        what = "allowance"
                        await exchange.check_allowance(market)
                        report.ok("the exchange contract may move the funds")
                what = "orders and positions"
                orders, positions = await exchange.get_open_orders(), await exchange.get_positions()
                report.ok(f"{len(orders)} open orders, {len(positions)} positions")
        except (PmkitError, TimeoutError) as error:
            report.raised(what, error)


async def find(data: MarketData, asset: str) -> Market | NoMarket:
    """The current window, or the one after it when it is nearly over."""
    finder = data.finder()
    market = await finder.get_current_market(asset)
    left = finder.get_seconds_remaining(market) / data.clock.factor if market else NEARLY_OVER_SECONDS
    if left < NEARLY_OVER_SECONDS:
        await data.clock.io_sleep(max(0.0, left) + 0.5)
        market = await finder.get_current_market(asset)
    return market


async def valid_books(data: MarketData, market: Market) -> list[OrderBook]:
    """Both books, once both are valid or time is nearly up."""
    subscription = await data.subscribe_orderbook([market])
    books = [data.book(market, outcome) for outcome in market.outcomes]
    try:
        async with data.clock.io_timeout(STEP_SECONDS / 2):
            while not all(book.valid for book in books):
                await anext(subscription)
    except (TimeoutError, StopAsyncIteration):
        pass  # the books say why
    finally:
        # Copies: closing the subscription ends the live books.
        books = [book.copy() for book in books]
        await subscription.close()
    return books


if __name__ == "__main__":
    logging.getLogger("pmkit").setLevel(logging.CRITICAL)  # what goes wrong is said by the lines
    try:
        settings = Settings.load()
        sys.exit(asyncio.run(main(settings, ask_where(settings))))
    except PmkitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
