"""The public side of the local Polymarket, read by polymarket-client and py-clob-client-v2.

Orders and the user channel are in test_polymarket_trading.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.types import PublicTrade, Side
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS
from pmkit.sim.engine import Side as EngineSide
from pmkit.sim.engine import TimeInForce as EngineTIF
from pmkit.sim.polymarket.live import LiveMarket
from pmkit.sim.venues import LocalVenues
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import ClientError
from tests.conformance.truth import (
    PATIENCE_SECONDS,
    WINDOW_MS,
    Book,
    balanced_seed,
    common_run,
    held,
    levels,
    middle_clock,
    same_as_truth,
    settings_of,
)

_T = TypeVar("_T")

NOBODY = "1" * 70  # a token that no market has


class Local:
    """The local venues, pmkit's market data on them, and the market of now."""

    def __init__(self, venues: LocalVenues, data: PolymarketMarketData, market: PolymarketMarket) -> None:
        self.venues = venues
        self.data = data
        self.market = market
        self.settings = settings_of(venues.endpoints)

    @property
    def up(self) -> str:
        return self.market.token_id("UP")

    @property
    def live(self) -> LiveMarket:
        """The venue's side of the market."""
        return self.venues.polymarket.live[self.market.market_id]

    async def same(
        self, read: Callable[[], Awaitable[_T]], truth: Callable[[], _T], *, live: bool = False, times: int = 3
    ) -> list[_T]:
        return await same_as_truth(read, truth, self.live.traders, live=live, times=times)

    def truth(self, outcome: str) -> Book:
        own = self.venues.polymarket.book_truth(self.market.token_id(outcome))
        return dict(own.bids), dict(own.asks)

    def pmkit_book(self, outcome: str) -> Book:
        return held(self.data.book(self.market, outcome))

    async def pmkit_read(self, outcome: str) -> Book:
        return held(await self.data.get_orderbook(self.market, outcome))


@asynccontextmanager
async def local() -> AsyncIterator[Local]:
    clock = middle_clock()
    async with (
        LocalVenues(seed=balanced_seed(clock), assets=("BTC", "ETH"), clock=clock) as venues,
        PolymarketMarketData(venues.endpoints, clock) as data,
    ):
        market = await data.finder().get_current_market("BTC")
        assert isinstance(market, PolymarketMarket), market
        yield Local(venues, data, market)
        assert venues.failures == []


def moment(text: str) -> int:
    """ISO 8601 as epoch ms."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def sides(found: dict[str, Any]) -> Book:
    return levels(found["bids"]), levels(found["asks"])


async def test_books_by_the_clob_client(client: OpenClient) -> None:
    async with local() as there, client("py_clob_client_public", there.settings) as one:
        assert one.version == "1.2.1"
        raw: list[dict[str, Any]] = []

        async def read() -> Book:
            answer = await one.ask("book", token=there.up)
            # The client hashes the book by its own rule: what the venue calls its hash is that hash.
            assert answer["hash"] == answer["book"]["hash"]
            raw.append(answer["book"])
            return sides(answer["book"])

        seen = await there.same(read, lambda: there.truth("UP"))
        assert all(bids and asks for bids, asks in seen)
        assert {(book["market"], book["asset_id"]) for book in raw} == {(there.market.condition_id, there.up)}
        # The best level is the last of each list, which is what the client's own search relies on.
        for book in raw:
            bids, asks = ([Decimal(row["price"]) for row in book[side]] for side in ("bids", "asks"))
            assert bids == sorted(bids) and asks == sorted(asks, reverse=True)

        async def several() -> tuple[Book, Book]:
            found = {book["asset_id"]: sides(book) for book in await one.ask("books", tokens=there.market.token_ids)}
            return found[there.market.token_ids[0]], found[there.market.token_ids[1]]

        await there.same(several, lambda: (there.truth("UP"), there.truth("DOWN")))
        await there.same(lambda: there.pmkit_read("DOWN"), lambda: there.truth("DOWN"))


async def test_prices_and_parameters_by_the_clob_client(client: OpenClient) -> None:
    async with local() as there, client("py_clob_client_public", there.settings) as one:

        async def read(name: str, *args: object) -> Any:
            return await one.ask("read", name=name, args=list(args))

        assert await read("get_ok") == "OK"
        assert await read("get_version") == 2
        before = there.venues.clock.now_ms() // 1000
        assert before <= await read("get_server_time") <= there.venues.clock.now_ms() // 1000
        market = await there.data.get_market(there.market.market_id)
        assert Decimal(await read("get_tick_size", there.up)) * 10_000 == market.grid.unit
        assert await read("get_neg_risk", there.up) is market.neg_risk
        assert await read("get_fee_exponent", there.up) == market.fees.exponent
        row = await read("get_market", market.condition_id)
        assert [token["token_id"] for token in row["tokens"]] == list(market.token_ids)
        assert [token["outcome"].upper() for token in row["tokens"]] == list(market.outcomes)
        assert (row["minimum_order_size"], row["market_slug"]) == (market.min_size, market.slug)
        assert moment(row["end_date_iso"]) == market.close_ms
        assert await _listed(read, "get_markets", market.condition_id) == _still(row)
        simple = await _listed(read, "get_simplified_markets", market.condition_id)
        assert simple == {name: _still(row)[name] for name in simple} and "market_slug" not in simple
        for name in ("get_sampling_markets", "get_sampling_simplified_markets"):
            assert (await read(name))["data"] == []
        info = await read("get_clob_market_info", market.condition_id)
        assert Decimal(str(info["fd"]["r"])) == market.fees.taker
        assert info["v"] == market.protocol

        async def quotes() -> tuple[Decimal, ...]:
            values = [
                (await read("get_price", there.up, "BUY"))["price"],
                (await read("get_price", there.up, "SELL"))["price"],
                (await read("get_midpoint", there.up))["mid"],
                (await read("get_spread", there.up))["spread"],
            ]
            return tuple(map(Decimal, values))

        def truth() -> tuple[Decimal, ...]:
            bids, asks = there.truth("UP")
            bid, ask = max(bids), min(asks)
            return bid, ask, (bid + ask) / 2, ask - bid

        await there.same(quotes, truth, times=1)

        def dollars() -> int:
            """Half of what is offered."""
            return int(sum(price * size for price, size in there.truth("UP")[1].items()) / 2)

        async def worst() -> Decimal:
            return Decimal(str(await one.ask("worst_price", token=there.up, side="BUY", amount=dollars())))

        def price_of_it() -> Decimal:
            left = Decimal(dollars())
            for price, size in sorted(there.truth("UP")[1].items()):
                left -= price * size
                if left <= 0:
                    return price
            raise AssertionError("the book holds less than that")

        await there.same(worst, price_of_it, times=1)
        history = (await one.ask("history", token=there.up))["history"]
        assert history and all(0 < point["p"] < 1 and point["t"] % 60 == 0 for point in history)
        with pytest.raises(ClientError) as refused:
            await one.ask("book", token=NOBODY)
        assert refused.value.details["status_code"] == 404
        assert "No orderbook exists for the requested token id" in refused.value.text


async def _listed(read: Callable[..., Awaitable[Any]], name: str, condition_id: str) -> Any:
    """The row of a market in one of the client's lists, which has it once."""
    cursor, found, pages = "MA==", [], 0
    while cursor != "LTE=":
        page = await read(name, cursor)
        assert page["count"] == len(page["data"]) <= page["limit"]
        found += [row for row in page["data"] if row["condition_id"] == condition_id]
        cursor, pages = page["next_cursor"], pages + 1
    assert len(found) == 1 and pages > 1
    return _still(found[0])


def _still(row: dict[str, Any]) -> dict[str, Any]:
    """A market without its prices, which move between two reads."""
    return row | {"tokens": [token | {"price": None} for token in row["tokens"]]}


async def test_markets_by_the_official_client(client: OpenClient) -> None:
    async with local() as there, client("polymarket_client_public", there.settings) as one:
        assert one.version == "0.14.0"
        mine = await there.data.get_market(there.market.market_id)
        row = await one.ask("market", slug=mine.slug)
        assert (row["id"], row["condition_id"], row["slug"], row["version"]) == (
            mine.gamma_id, mine.condition_id, mine.slug, mine.protocol
        )  # fmt: skip
        assert row["question"] == mine.title
        (listed,) = await one.ask("markets", condition_ids=[mine.condition_id])
        assert listed["slug"] == mine.slug
        event = await one.ask("event", slug=mine.slug)
        assert [market["condition_id"] for market in event["markets"]] == [mine.condition_id]
        # Wherever the client keeps them: both tokens, the legal step and the end of the window are in what it read.
        flat = dict(_flat(row))
        assert set(mine.token_ids) <= set(map(str, flat.values()))
        ends = [value for name, value in flat.items() if name.endswith("end_date")]
        assert ends and {moment(value) for value in ends} == {mine.close_ms}
        ticks = [value for name, value in flat.items() if name.endswith("tick_size")]
        assert ticks and {Decimal(str(value)) * 10_000 for value in ticks} == {mine.grid.unit}
        with pytest.raises(ClientError):
            await one.ask("market", slug="btc-updown-15m-1500000000")


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{name}.{key}")]
    if isinstance(value, list):
        return [pair for number, inner in enumerate(value) for pair in _flat(inner, f"{name}.{number}")]
    return [(name, value)]


async def test_books_by_the_official_client(client: OpenClient) -> None:
    async with local() as there, client("polymarket_client_public", there.settings) as one:
        raw: list[dict[str, Any]] = []

        async def read() -> Book:
            raw.append(await one.ask("orderbook", token=there.up))
            return sides(raw[-1])

        await there.same(read, lambda: there.truth("UP"))
        mine = await there.data.get_market(there.market.market_id)
        for book in raw:
            assert (Decimal(book["tick_size"]) * 10_000, Decimal(book["min_order_size"]), book["neg_risk"]) == (
                mine.grid.unit, mine.min_size, False
            )  # fmt: skip

        async def several() -> tuple[Book, Book]:
            found = {book["asset_id"]: sides(book) for book in await one.ask("orderbooks", tokens=mine.token_ids)}
            return found[mine.token_ids[0]], found[mine.token_ids[1]]

        await there.same(several, lambda: (there.truth("UP"), there.truth("DOWN")))

        async def quotes() -> tuple[Decimal, ...]:
            found = await one.ask("quotes", token=there.up)
            return tuple(Decimal(found[name]) for name in ("BUY", "SELL", "midpoint", "spread"))

        def truth() -> tuple[Decimal, ...]:
            bids, asks = there.truth("UP")
            bid, ask = max(bids), min(asks)
            return bid, ask, (bid + ask) / 2, ask - bid

        await there.same(quotes, truth, times=1)


async def test_the_last_trade_by_the_official_client(client: OpenClient) -> None:
    async with local() as there, client("polymarket_client_public", there.settings) as one:
        venue = there.venues.polymarket
        window = venue.known(there.up)
        assert window is not None
        # Nobody has traded in a window that is half an hour away. The price "0.5" without a side is no trade.
        later = venue.listings.at(window.series, window.open_ms + 2 * WINDOW_MS)
        assert await one.ask("last", token=later.tokens[0]) is None
        there.live.traders.resting = True
        engine = there.live.engine
        assert engine.best_ask is not None and engine.best_bid is not None
        # Somebody buys UP, then somebody buys DOWN: in the engine, which knows UP only, the second one sells.
        for outcome, side, limit in ((0, EngineSide.BUY, engine.best_ask), (1, EngineSide.SELL, engine.best_bid)):
            engine.submit("one", side, limit, 5 * SIZE_UNITS, time_in_force=EngineTIF.IOC, client=outcome)
            paid = limit if outcome == 0 else PRICE_UNITS - limit
            for token in window.tokens:
                found = await one.ask("last", token=token)
                assert (Decimal(found["price"]) * PRICE_UNITS, found["side"]) == (paid, "BUY")


async def test_the_market_channel_by_the_official_client(client: OpenClient) -> None:
    """The book that the client's events build, the venue's own and pmkit's live one are the same; so are the trades."""
    async with local() as there, client("polymarket_client_public", there.settings) as one:
        trades: list[PublicTrade] = []
        await there.data.subscribe_orderbook([there.market])
        await there.data.subscribe_trades([there.market], trades.append)
        await one.ask("watch", tokens=there.market.token_ids)
        for outcome in there.market.outcomes:
            token = there.market.token_id(outcome)

            async def both(token: str = token, outcome: str = outcome) -> tuple[Book | None, Book]:
                found = await one.ask("book", token=token)
                return found and sides(found), there.pmkit_book(outcome)

            def truth(outcome: str = outcome) -> tuple[Book, Book]:
                return there.truth(outcome), there.truth(outcome)

            await there.same(both, truth, live=True, times=6)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                told = await one.ask("messages")
                enough = told["counts"].get("price_change", 0) > 10 and len(told["best"]) == 2
                if enough and min(len(told["trades"]), len(trades)) >= 3:
                    break
                await asyncio.sleep(0.2)
        counts = told["counts"]
        assert set(counts) <= {"book", "price_change", "best_bid_ask", "last_trade_price", "new_market"}, counts
        assert counts["book"] >= 2
        assert set(told["best"]) == set(there.market.token_ids)

        heard = [_print_of_row(row, there.market) for row in told["trades"]]
        mine = [(t.outcome, t.price, t.size, t.side is Side.BUY, t.venue_ms) for t in trades]
        ours, theirs = common_run(mine, heard)
        assert len(ours) >= 2 and ours == theirs
        assert not [line for line in one.said.splitlines() if "Traceback" in line]


def _print_of_row(row: dict[str, Any], market: PolymarketMarket) -> tuple[str, Decimal, Decimal, bool, int]:
    outcome = market.outcomes[market.token_ids.index(row["asset_id"])]
    return outcome, Decimal(row["price"]), Decimal(row["size"]), row["side"] == "BUY", moment(row["timestamp"])
