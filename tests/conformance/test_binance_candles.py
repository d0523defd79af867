"""python-binance and ccxt read candles from the local Binance, row for row what pmkit reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pmkit.clock import Clock, SystemClock
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.fetcher import BinanceFetcher
from pmkit.data.binance.types import Candle, KlineRow, interval_ms
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import MarketNotFound
from pmkit.sim.binance.venue import BinanceVenue
from pmkit.sim.world import World
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import Client, ClientError
from tests.conformance.truth import PATIENCE_SECONDS

S = 1000
INTERVALS = ("1s", "1m", "5m", "15m")
SYMBOLS = {"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT"}  # the venue's name, ccxt's


class Local:
    """The local venue, and pmkit's fetcher on it. The clients take the wall's time: so does the venue."""

    def __init__(self, venue: BinanceVenue, clock: Clock, endpoints: Endpoints, fetcher: BinanceFetcher) -> None:
        self.venue = venue
        self.clock = clock
        self.endpoints = endpoints
        self.fetcher = fetcher

    @property
    def settings(self) -> dict[str, Any]:
        return {"endpoints": {"binance": {"rest": self.endpoints.binance.rest, "ws": self.endpoints.binance.ws}}}

    async def rows(self, symbol: str, interval: str, start: int, end: int) -> list[KlineRow]:
        """pmkit's rows with start <= open <= end: both clients name the last open, pmkit the one after it."""
        return [row async for row in self.fetcher.klines(symbol, interval, start, end + 1)]


@asynccontextmanager
async def local() -> AsyncIterator[Local]:
    clock = SystemClock()
    async with BinanceVenue(World(7, clock, ("BTC", "ETH")), clock) as venue:
        endpoints = Endpoints(where=Where.LOCAL, binance=venue.endpoints(), clock=clock.text())
        async with BinanceFetcher(endpoints, clock) as fetcher:
            yield Local(venue, clock, endpoints, fetcher)
        assert venue.failures == []


def as_sent(rows: Iterable[KlineRow]) -> list[list[object]]:
    """The seven fields that pmkit reads, in the venue's text."""
    return [[r.open_ms, r.open, r.high, r.low, r.close, r.volume, r.close_ms] for r in rows]


def as_floats(candles: Iterable[Candle]) -> list[list[float]]:
    return [[c.timestamp, c.open, c.high, c.low, c.close, c.volume] for c in candles]


def ranges(interval: str, now_ms: int) -> dict[str, tuple[int, int]]:
    """First and last open to ask for, both included by the venue, all in the past."""
    step = interval_ms(interval)
    last = (now_ms - 10 * S) // step * step - step
    return {
        "both edges are opens": (last - 9 * step, last),
        "no edge is an open": (last - 9 * step - 1, last + 1),
        "just inside of opens": (last - 9 * step + 1, last - 1),
        "one candle": (last, last),
        "nothing: between two opens": (last - step + 1, last - 1),
        "a full page": (last - 999 * step, last),
        "a page and one": (last - 1000 * step, last),
        "several pages": (last - 2345 * step, last),
    }


def thin_out(venue: BinanceVenue, interval: str, start: int, end: int) -> None:
    """Leave the first ten seconds of every candle from start to end, of which it is made then.

    Pages of whole ones are a month of seconds: on a busy machine the venue then answers 408, as it should.
    """
    step = interval_ms(interval)
    for opened in range(start // step * step, end + 1, step):
        venue.faults.outage(opened + 10 * S, opened + step, "BTCUSDT")


async def test_the_clients_are_the_ones_that_are_meant(client: OpenClient) -> None:
    async with local() as there, client("python_binance_candles", there.settings) as one:
        assert one.version == "1.0.37"
        async with client("ccxt_candles", there.settings) as other:
            assert other.version == "4.5.90"


@pytest.mark.parametrize("interval", INTERVALS)
async def test_ranges_over_rest(client: OpenClient, interval: str) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        step = interval_ms(interval)
        for name, (start, end) in ranges(interval, there.clock.now_ms()).items():
            if end - start > 900 * step > 900 * 60 * S:
                thin_out(there.venue, interval, start, end)
            mine = await there.rows("BTCUSDT", interval, start, end)
            # Not only do they agree: what they agree on is the grid between the edges.
            assert [row.open_ms for row in mine] == list(range(-(-start // step) * step, end + 1, step)), name
            # An end that python-binance would leave out itself: it stops where the next page would start exactly at
            # the end, and asks nobody where the end is the start. One millisecond later no further candle opens.
            later = end if end % step else end + 1
            theirs = await one.ask("history", symbol="BTCUSDT", interval=interval, start=start, end=later)
            if len(mine) <= 1000:
                edges = {"startTime": start, "endTime": end, "limit": 1000}
                assert await one.ask("klines", symbol="BTCUSDT", interval=interval, **edges) == theirs, name
            assert [row[:7] for row in theirs] == as_sent(mine), name
            assert all(len(row) == 12 for row in theirs)
            floats = await other.ask("history", symbol="BTC/USDT", interval=interval, start=start, end=end)
            assert floats == as_floats(row.candle() for row in mine), name
        assert {line.status for line in there.venue.server.log} == {200}


@pytest.mark.parametrize("interval", ["1s", "1m"])
async def test_a_hole_is_a_hole_for_all(client: OpenClient, interval: str) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        step = interval_ms(interval)
        last = there.clock.now_ms() // 60_000 * 60_000 - 120_000
        start = last - 2500 * step
        first = last - 1700 * step
        # Longer than a page of any client, on the grid of the minute: longer candles around it stay whole.
        hole = range(first, first + 1020 * step, step)
        there.venue.faults.outage(hole.start, hole.stop)
        mine = await there.rows("BTCUSDT", interval, start, last)
        wanted = [ms for ms in range(start, last + 1, step) if ms not in hole]
        assert [row.open_ms for row in mine] == wanted
        theirs = await one.ask("history", symbol="BTCUSDT", interval=interval, start=start, end=last + 1)
        assert [row[:7] for row in theirs] == as_sent(mine)
        floats = await other.ask("history", symbol="BTC/USDT", interval=interval, start=start, end=last)
        assert floats == as_floats(row.candle() for row in mine)
        # A range inside of the hole has nothing at all.
        inside = {"start": hole[10], "end": hole[20]}
        assert await one.ask("history", symbol="BTCUSDT", interval=interval, **inside) == []
        assert await other.ask("history", symbol="BTC/USDT", interval=interval, **inside) == []
        assert await there.rows("BTCUSDT", interval, hole[10], hole[20]) == []


async def test_the_first_candles_of_a_symbol(client: OpenClient) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        for interval in INTERVALS:
            first = await there.fetcher.first_open("ETHUSDT", interval)
            assert first is not None
            end = first + 4 * interval_ms(interval)
            mine = await there.rows("ETHUSDT", interval, first - 10**9, end)
            assert mine[0].open_ms == first and len(mine) == 5
            theirs = await one.ask("history", symbol="ETHUSDT", interval=interval, start=0, end=end)
            assert [row[:7] for row in theirs] == as_sent(mine)
            floats = await other.ask("history", symbol="ETH/USDT", interval=interval, start=0, end=end)
            assert floats == as_floats(row.candle() for row in mine)


@pytest.mark.parametrize("interval", INTERVALS)
async def test_the_forming_candle_is_told_and_never_kept(client: OpenClient, interval: str) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        step = interval_ms(interval)
        before = (await one.ask("server_time"))["serverTime"]
        theirs = await one.ask("klines", symbol="BTCUSDT", interval=interval, limit=6)
        floats = await other.ask("page", symbol="BTC/USDT", interval=interval, since=None, limit=6, until=None)
        after = (await one.ask("server_time"))["serverTime"]
        assert before <= after <= there.clock.now_ms()
        for opens in ([row[0] for row in theirs], [row[0] for row in floats]):
            assert opens == list(range(opens[-1] - 5 * step, opens[-1] + 1, step))
            assert before // step * step <= opens[-1] <= after
        await asyncio.sleep(0.6)  # what ended within the last half second is not settled by pmkit's rule
        # What pmkit keeps ends before: of the clients' rows it has the closed ones, equal, and no other.
        mine = await there.fetcher.warm_up("BTCUSDT", interval, 5, before_ms=theirs[-1][0])
        assert [[c.timestamp, c.open, c.high, c.low, c.close, c.volume] for c in mine] == [
            [row[0], *map(float, row[1:6])] for row in theirs[:5]
        ]
        kept = {c.timestamp: c for c in await there.fetcher.warm_up("BTCUSDT", interval, 30)}
        assert max(kept) + step <= there.clock.now_ms()
        common = [row for row in floats[:-1] if row[0] in kept]
        assert common and common == as_floats(kept[int(row[0])] for row in common)


async def test_microseconds(client: OpenClient) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings | {"time_unit": "MICROSECOND"}) as one,
    ):
        last = there.clock.now_ms() // S * S - 20 * S
        mine = as_sent(await there.rows("BTCUSDT", "1s", last - 9 * S, last))
        theirs = await one.ask(
            "klines", symbol="BTCUSDT", interval="1s", startTime=(last - 9 * S) * 1000, endTime=last * 1000
        )
        assert [[row[0] // 1000, *row[1:6], row[6] // 1000] for row in theirs] == mine
        assert all(row[0] % 1000 == 0 and row[6] % 1000 == 999 for row in theirs)


async def test_refusals_are_what_the_clients_expect(client: OpenClient) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        with pytest.raises(ClientError) as refused:
            await one.ask("klines", symbol="DOGEUSDT", interval="1m")
        assert (refused.value.type, refused.value.details["code"]) == ("BinanceAPIException", -1121)
        with pytest.raises(MarketNotFound):
            await there.fetcher.require("DOGEUSDT", "1m")
        with pytest.raises(ClientError) as refused:
            await one.ask("klines", symbol="BTCUSDT", interval="7m")
        assert refused.value.details["code"] == -1120
        with pytest.raises(ClientError) as refused:
            await other.ask("page", symbol="DOGE/USDT", interval="1m", since=None, limit=1, until=None)
        assert refused.value.type == "BadSymbol"
        asked = {"symbol": "BTC/USDT", "interval": "1m", "since": None, "limit": 1, "until": None}
        for status, code, word in ((429, -1003, "DDoSProtection"), (418, -1003, "DDoSProtection")):
            there.venue.faults.refuse(status, path="/api/v3/klines", times=None)
            with pytest.raises(ClientError) as refused:
                await one.ask("klines", symbol="BTCUSDT", interval="1m")
            assert (refused.value.details["status_code"], refused.value.details["code"]) == (status, code)
            with pytest.raises(ClientError) as refused:
                await other.ask("page", **asked)
            assert refused.value.type in (word, "RateLimitExceeded"), refused.value
            there.venue.faults.clear()


async def test_what_the_symbols_say(client: OpenClient) -> None:
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
    ):
        told = await one.ask("exchange_info")
        assert [symbol["symbol"] for symbol in told["symbols"]] == list(SYMBOLS)
        weights = [limit for limit in told["rateLimits"] if limit["rateLimitType"] == "REQUEST_WEIGHT"]
        assert await there.fetcher.weight_per_minute("BTCUSDT") == int(0.4 * weights[0]["limit"])
        markets = await other.ask("markets")
        assert {name: market[0] for name, market in markets.items()} == {b: a for a, b in SYMBOLS.items()}
        for symbol in told["symbols"]:
            tick = next(float(f["tickSize"]) for f in symbol["filters"] if f["filterType"] == "PRICE_FILTER")
            assert markets[SYMBOLS[symbol["symbol"]]][1]["price"] == tick


async def _heard(one: Client, enough: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not enough(found := await one.ask("heard")):  # noqa: ASYNC110 - asked in another process
            await asyncio.sleep(0.2)
    return found


async def test_live_candles(client: OpenClient) -> None:
    """Both clients and pmkit listen at the same time; all have the same candles, which REST then has as well."""
    async with (
        local() as there,
        client("python_binance_candles", there.settings) as one,
        client("ccxt_candles", there.settings) as other,
        BinanceFeed(there.endpoints, there.clock, list(SYMBOLS), size=120) as feed,
    ):
        await one.ask("watch", streams=[f"{symbol.lower()}@kline_1s" for symbol in SYMBOLS])
        await other.ask("watch", symbols=list(SYMBOLS.values()), interval="1s")
        updates = await _heard(other, lambda found: len(found) == 2 and min(map(len, found.values())) >= 5)
        frames = await _heard(one, lambda found: len(found) >= 10)
        raw: dict[str, list[list[Any]]] = {symbol: [] for symbol in SYMBOLS}
        for frame in frames:
            kline = frame["data"]["k"]
            assert frame["stream"] == f"{kline['s'].lower()}@kline_1s" and kline["x"] is True
            raw[kline["s"]].append([kline[field] for field in "tohlcvT"])
        for symbol, name in SYMBOLS.items():
            newest = max(raw[symbol][-1][0], int(updates[name][-1][0]))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (feed.candles(symbol).last_ms or 0) < newest:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            kept = {candle.timestamp: candle for candle in feed.candles(symbol)}
            opens = [row[0] for row in raw[symbol]]
            assert len(opens) >= 4 and opens == list(range(opens[0], opens[-1] + 1, S))
            assert [[row[0], *map(float, row[1:6])] for row in raw[symbol]] == as_floats(kept[ms] for ms in opens)
            opens = [int(row[0]) for row in updates[name]]
            assert len(opens) >= 5 and opens == list(range(opens[0], opens[-1] + 1, S))
            assert updates[name] == as_floats(kept[ms] for ms in opens)
            first, last = raw[symbol][0][0], raw[symbol][-1][0]
            await asyncio.sleep(1)  # as above: settled
            assert as_sent(await there.rows(symbol, "1s", first, last)) == raw[symbol]
            assert feed.gaps(symbol) == []


async def test_live_minutes_form_and_close(client: OpenClient) -> None:
    """The forming minute over the socket: what ccxt shows last is what pmkit shows as open, or one update from it."""
    async with (
        local() as there,
        client("ccxt_candles", there.settings) as other,
        BinanceFeed(there.endpoints, there.clock, ["BTCUSDT"], "1m", size=3) as feed,
    ):
        await other.ask("watch", symbols=["BTC/USDT"], interval="1m")
        seen: list[list[float]] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                updates = (await other.ask("heard")).get("BTC/USDT", [])
                forming = feed.open_candle("BTCUSDT")
                if forming is not None:
                    seen += as_floats([forming])
                if len(updates) >= 3 and sum(row in seen for row in updates) >= 2:
                    break
                await asyncio.sleep(0.1)
        assert all(row[0] % 60_000 == 0 for row in updates)
        assert [row[5] for row in updates if row[0] == updates[0][0]] == sorted(
            row[5] for row in updates if row[0] == updates[0][0]
        )
