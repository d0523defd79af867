"""The public CLOB of the local Polymarket against the documents and real recordings, over real sockets."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS
from pmkit.sim.polymarket.book import TokenBook
from pmkit.sim.polymarket.market import Series
from tests.sim.polymarket_client import Bench, book_hash, json_types


async def test_a_book_is_what_the_document_says(still: Bench) -> None:
    window = still.venue.current("BTC")
    books = {}
    for outcome, token in enumerate(window.tokens):
        status, book = await still.get("/book", token_id=token)
        assert status == 200
        assert tuple(book) == (
            *("market", "asset_id", "timestamp", "hash", "bids", "asks"),
            *("min_order_size", "tick_size", "neg_risk", "last_trade_price"),
        )
        assert (book["market"], book["asset_id"]) == (window.condition_id, token)
        assert (book["min_order_size"], book["neg_risk"]) == ("5", False)
        assert book["hash"] == book_hash(book)
        bids = [Decimal(row["price"]) for row in book["bids"]]
        asks = [Decimal(row["price"]) for row in book["asks"]]
        assert bids == sorted(bids)
        assert asks == sorted(asks, reverse=True)
        assert bids
        assert asks
        assert bids[-1] < asks[-1]
        assert all(price % Decimal(book["tick_size"]) == 0 for price in bids + asks)
        truth = still.venue.book_truth(token)
        assert truth.bids == tuple((Decimal(r["price"]), Decimal(r["size"])) for r in reversed(book["bids"]))
        assert truth.asks == tuple((Decimal(r["price"]), Decimal(r["size"])) for r in reversed(book["asks"]))
        assert truth.hash == book["hash"]
        books[outcome] = book
    mirrored = [{"price": str(1 - Decimal(row["price"])), "size": row["size"]} for row in books[1]["asks"]]
    assert [(Decimal(r["price"]), r["size"]) for r in mirrored] == [
        (Decimal(r["price"]), r["size"]) for r in books[0]["bids"]
    ]


def test_recorded_rest_books_are_written_and_hashed_alike(recordings: Path) -> None:
    seen = 0
    for path in sorted((recordings / "polymarket" / "sessions").glob("mixed_*[nw].jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                row = json.loads(line)
                if row["source"] != "polymarket_clob":
                    continue
                data = json.loads(row["payload"])
                if not isinstance(data, dict) or "event_type" in data:
                    continue

                def levels(rows: list[dict[str, str]]) -> list[tuple[int, int]]:
                    return [
                        (int(Decimal(r["price"]) * PRICE_UNITS), int(Decimal(r["size"]) * SIZE_UNITS))
                        for r in reversed(rows)
                    ]

                last = data["last_trade_price"]
                book = TokenBook(
                    data["market"],
                    data["asset_id"],
                    int(data["timestamp"]),
                    levels(data["bids"]),
                    levels(data["asks"]),
                    int(Decimal(data["tick_size"]) * PRICE_UNITS),
                    int(Decimal(last) * PRICE_UNITS) if last else None,
                )
                assert book.rest_json() == row["payload"].strip()
                seen += 1
    assert seen >= 400


async def test_books_leaves_unknown_tokens_out_and_refuses_nonsense(bench: Bench) -> None:
    tokens = [*bench.venue.current("ETH").tokens, *bench.venue.current("BTC").tokens]
    status, books = await bench.post("/books", [{"token_id": token} for token in [*tokens, "123"]])
    assert status == 200
    assert {book["asset_id"] for book in books} == set(tokens)
    assert all(book["hash"] == book_hash(book) for book in books)
    assert await bench.post("/books", {"token_id": tokens[0]}) == (400, {"error": "Invalid payload"})
    assert await bench.post("/books", [{"token_id": "1"}] * 501) == (400, {"error": "Payload exceeds the limit"})
    assert (await bench.get("/books"))[0] == 405


async def test_small_answers(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    up, down = window.tokens
    truth = bench.venue.book_truth(up)
    bid, ask = truth.bids[0][0], truth.asks[0][0]
    assert await bench.get("/time") == (200, bench.clock.now_ms() // 1000)
    assert await bench.get("/ok") == (200, "OK")
    assert await bench.get("/version") == (200, {"version": 2})
    assert await bench.get("/tick-size", token_id=up) == (200, {"minimum_tick_size": 0.01})
    assert await bench.get("/neg-risk", token_id=up) == (200, {"neg_risk": False})
    assert await bench.get("/price", token_id=up, side="BUY") == (200, {"price": str(bid)})
    assert await bench.get("/price", token_id=down, side="SELL") == (200, {"price": str(1 - bid)})
    assert (await bench.get("/midpoint", token_id=up))[1] == {"mid": str(((bid + ask) / 2).normalize())}
    assert (await bench.get("/spread", token_id=down))[1] == {"spread": str(ask - bid)}
    assert (await bench.get("/price", token_id=up, side="HOLD")) == (400, {"error": "Invalid side"})
    no_book = (404, {"error": "No orderbook exists for the requested token id"})
    for path in ("/book", "/midpoint", "/spread", "/tick-size"):
        assert await bench.get(path, token_id="12345") == no_book
        assert await bench.get(path, token_id="0xabc") == (400, {"error": "Invalid token id"})
    assert await bench.get("/markets/0xabc") == (404, {"error": "market not found"})
    assert await bench.get("/clob-markets/0xabc") == (404, {"error": "market not found"})
    status, history = await bench.get("/prices-history", market=up, interval="1h", fidelity=1)
    assert status == 200
    assert len(history["history"]) == 61
    assert all(0 < point["p"] < 1 for point in history["history"])
    assert (await bench.get("/prices-history", market=up))[0] == 400


async def test_what_is_not_built_says_so(bench: Bench) -> None:
    base = bench.venue.endpoints()
    for url in (base.relayer + "/submit", base.rpc):
        async with bench.http.get(url) as response:
            assert response.status == 501
            assert "not built in this local venue yet" in (await response.json())["error"]


async def test_answers_carry_the_date_of_market_time(bench: Bench) -> None:
    async with bench.http.get(bench.venue.endpoints().clob + "/ok") as response:
        date = parsedate_to_datetime(response.headers["Date"])
    assert int(date.timestamp()) == bench.clock.now_ms() // 1000


async def test_clob_markets_have_the_fields_of_real_ones(bench: Bench, recordings: Path) -> None:
    window = bench.venue.current("BTC", "5m")
    status, market = await bench.get(f"/markets/{window.condition_id}")
    assert status == 200
    samples = recordings / "polymarket"
    live = json.loads((samples / "clob_market_updown_2026-08-16.json").read_text())["data"]["live"]
    mine = json_types(market)
    assert {key: mine.get(key) for key in live} == json_types(live)
    assert [json_types(row) for row in market["tokens"]] == [json_types(row) for row in live["tokens"]]
    full = json.loads((samples / "samples/nautilus/clob_market_closed_binary_accepting_false.json").read_text())
    assert set(full) == set(market)
    status, short = await bench.get(f"/clob-markets/{window.condition_id}")
    assert [row["t"] for row in short["t"]] == list(window.tokens)
    assert [row["o"] for row in short["t"]] == ["Up", "Down"]
    assert short["fd"] == {"r": 0.07, "e": 1, "to": True}
    assert (short["mos"], short["mts"], short["ao"], short["itode"], short["v"]) == (5, 0.01, True, True, "v1")
    assert "nr" not in short


async def test_the_clob_knows_a_new_market_later_than_gamma(still: Bench) -> None:
    series = Series("BTC", "15m")
    opened = still.clock.now_ms() // 900_000 * 900_000 + 86_400_000
    window = still.venue.listings.at(series, opened)
    slug = f"/events/slug/{window.slug}"
    assert window.created_ms > still.clock.now_ms()
    assert (await still.get(slug, gamma=True))[0] == 404
    feed = await still.feed([], custom_feature_enabled=True)
    plain = await still.feed([])
    await still.settle()

    async def at(ms: int) -> tuple[int, Any, int]:
        await still.advance((ms - still.clock.now_ms()) / 1000 + 0.01, 60)
        status, market = await still.get(f"/markets/{window.condition_id}")
        return status, market, (await still.get("/book", token_id=window.tokens[0]))[0]

    status, _, book = await at(window.created_ms)
    assert (await still.get(slug, gamma=True))[0] == 200
    assert (status, book) == (404, 404)
    status, market, book = await at(window.clob_known_ms)
    assert (status, book) == (200, 404)
    assert [row["token_id"] for row in market["tokens"]] == ["", ""]
    assert market["enable_order_book"] is market["accepting_orders"] is False
    status, market, book = await at(window.tokens_known_ms)
    assert (status, book) == (200, 200)
    assert [row["token_id"] for row in market["tokens"]] == list(window.tokens)
    assert [row["outcome"] for row in market["tokens"]] == ["Up", "Down"]
    # Far from its window it holds no engine, and its book is empty.
    status, empty = await still.get("/book", token_id=window.tokens[0])
    assert empty["bids"] == empty["asks"] == []
    assert empty["last_trade_price"] == ""
    assert (await still.get("/last-trade-price", token_id=window.tokens[0])) == (200, {"price": "0.5", "side": ""})
    assert empty["hash"] == book_hash(empty)
    assert window.condition_id not in still.venue.live
    await still.settle()
    told = [event for event in feed.of("new_market") if event["market"] == window.condition_id]
    assert [event["clob_token_ids"] for event in told] == [list(window.tokens)]
    assert plain.kinds["new_market"] == 0
