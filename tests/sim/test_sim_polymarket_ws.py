"""The market channel of the local Polymarket, and the life of a window."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from pmkit.sim.engine import SIZE_UNITS, Side, TimeInForce
from pmkit.sim.polymarket.market import HISTORY_MS, Series
from tests.sim.polymarket_client import START, Bench, json_types, open_bench

SHARE = SIZE_UNITS


async def test_a_subscription_keeps_a_true_book(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens))
    await bench.until(lambda: feed.kinds["book"] == 2)
    first = json.loads(feed.frames[0])
    assert isinstance(first, list)
    assert [event["asset_id"] for event in first] == list(window.tokens)
    for _ in range(20):
        await bench.advance(1.5, 0.25)
        await bench.settle()
        for token in window.tokens:
            truth = bench.venue.book_truth(token)
            assert feed.levels(token) == (list(truth.bids), list(truth.asks))
            assert feed.hashes[token] == truth.hash == (await bench.get("/book", token_id=token))[1]["hash"]
    assert feed.wrong == []
    assert feed.checked > 200
    assert feed.kinds["price_change"] > 100
    assert feed.kinds["last_trade_price"] > 3
    # A book comes after trades, for both tokens.
    assert feed.kinds["book"] > 2
    assert set(feed.kinds) <= {"book", "price_change", "last_trade_price", "tick_size_change"}


async def test_frames_look_like_recorded_ones(bench: Bench, recordings: Path) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens), custom_feature_enabled=True)
    await bench.advance(20, 0.5)
    await bench.until(lambda: feed.kinds["last_trade_price"] and feed.kinds["best_bid_ask"])
    await bench.advance(280, 20)
    await bench.settle()
    path = recordings / "polymarket" / "sessions" / "mixed_20260428T1404Z_6min.jsonl.gz"
    real: dict[str, tuple[str, dict[str, Any]]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            data = json.loads(row["payload"]) if row["source"] == "polymarket_clob" else {}
            event = data[0] if isinstance(data, list) else data
            if "event_type" in event:
                real.setdefault(event["event_type"], (row["payload"].strip(), event))
    assert set(real) == {"book", "price_change", "new_market"}
    for kind in ("book", "price_change", "new_market"):
        event = feed.of(kind)[0]
        assert list(event) == list(real[kind][1])
        assert json_types(event) == json_types(real[kind][1])
    changes = feed.of("price_change")[0]["price_changes"], real["price_change"][1]["price_changes"]
    assert list(changes[0][0]) == list(changes[1][0])
    # Spaces after commas, none after colons, and none at all in books.
    frame = next(frame for frame in feed.frames if "price_changes" in frame)
    assert frame == json.dumps(json.loads(frame), separators=(", ", ":"))
    assert real["price_change"][0] == json.dumps(real["price_change"][1], separators=(", ", ":"))
    assert feed.frames[0] == json.dumps(json.loads(feed.frames[0]), separators=(",", ":"))
    folder = recordings / "polymarket" / "samples" / "nautilus"
    for kind, name in (
        ("best_bid_ask", "ws_market_best_bid_ask_msg"),
        ("last_trade_price", "ws_market_last_trade_msg"),
    ):
        sample = json.loads((folder / f"{name}.json").read_text())
        event = feed.of(kind)[0]
        assert json_types(event).items() >= json_types(sample).items()


async def test_every_number_is_a_string_and_every_stamp_market_time(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens), custom_feature_enabled=True)
    await bench.advance(20, 0.5)
    await bench.settle()

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(plain, value.values()))
        if isinstance(value, list):
            return all(map(plain, value))
        return isinstance(value, str | bool)

    assert all(map(plain, feed.events))
    assert all(abs(int(event["timestamp"]) - bench.clock.now_ms()) < 21_000 for event in feed.events)


async def test_changes_come_for_both_outcomes_mirrored(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed([window.tokens[0]])
    await bench.advance(10, 0.5)
    await bench.settle()
    for event in feed.of("price_change"):
        rows = event["price_changes"]
        for up, down in zip(rows[::2], rows[1::2], strict=True):
            assert (up["asset_id"], down["asset_id"]) == window.tokens
            assert Decimal(up["price"]) + Decimal(down["price"]) == 1
            assert up["size"] == down["size"]
            assert {up["side"], down["side"]} == {"BUY", "SELL"}
    # Books come for the tokens asked for only.
    assert {event["asset_id"] for event in feed.of("book")} == {window.tokens[0]}


async def test_ping_noise_and_dynamic_subscriptions(bench: Bench) -> None:
    btc, eth = bench.venue.current("BTC"), bench.venue.current("ETH")
    feed = await bench.feed()
    await feed.ws.send_str("PING")
    await feed.ws.send_str("not json")
    await feed.ws.send_str('{"operation":"dance"}')
    await bench.until(lambda: feed.pongs == 1 and len(feed.noise) == 2)
    await feed.ws.send_json({"operation": "subscribe", "assets_ids": [btc.tokens[0], "987654321"]})
    await bench.until(lambda: feed.kinds["book"] == 1)
    await feed.ws.send_json({"operation": "subscribe", "assets_ids": [btc.tokens[0]]})  # a duplicate is ignored
    await feed.ws.send_json({"operation": "subscribe", "assets_ids": [eth.tokens[1]], "custom_feature_enabled": True})
    await bench.until(lambda: feed.kinds["book"] == 2)
    await feed.ws.send_json({"operation": "unsubscribe", "assets_ids": [btc.tokens[0]]})
    await bench.settle()
    before = len(feed.events)
    await bench.advance(10, 0.5)
    await bench.settle()
    markets = {event["market"] for event in feed.events[before:] if event["event_type"] != "new_market"}
    assert markets == {eth.condition_id}
    assert feed.kinds["best_bid_ask"] > 0
    assert len(feed.noise) == 2


async def test_without_initial_dump_there_is_no_snapshot(bench: Bench) -> None:
    window = bench.venue.current("BTC")
    feed = await bench.feed(list(window.tokens), initial_dump=False)
    await bench.settle()
    assert feed.kinds["book"] == 0


async def test_the_tick_becomes_finer_beyond_96_cents_with_a_fresh_book(still: Bench) -> None:
    window = still.venue.current("BTC")
    live = still.venue.running(window)
    assert live is not None
    feed = await still.feed(list(window.tokens))
    await still.until(lambda: feed.kinds["book"] == 2)
    live.engine.cancel_all()
    live.engine.submit("x", Side.BUY, 9_600, 10 * SHARE)
    await still.settle()
    assert feed.kinds["tick_size_change"] == 0
    live.engine.submit("x", Side.BUY, 9_700, 10 * SHARE)
    await still.settle()
    told = feed.of("tick_size_change")
    assert [(event["asset_id"], event["old_tick_size"], event["new_tick_size"]) for event in told] == [
        (token, "0.01", "0.001") for token in window.tokens
    ]
    kinds = [event["event_type"] for event in feed.events]
    assert kinds[-2:] == ["book", "book"]
    assert kinds[-4:-2] == ["tick_size_change"] * 2
    assert [event["tick_size"] for event in feed.events[-2:]] == ["0.001", "0.001"]
    assert (await still.get("/tick-size", token_id=window.tokens[1]))[1] == {"minimum_tick_size": 0.001}
    assert (await still.get("/book", token_id=window.tokens[1]))[1]["tick_size"] == "0.001"
    live.engine.cancel_all()
    live.engine.submit("x", Side.BUY, 5_000, 10 * SHARE)
    await still.settle()
    assert feed.kinds["tick_size_change"] == 2, "it does not go back"


async def test_a_trade_prints_in_the_takers_own_outcome(still: Bench) -> None:
    window = still.venue.current("BTC")
    live = still.venue.running(window)
    assert live is not None
    live.engine.cancel_all()
    for price, size in ((4_000, 10), (4_100, 5)):
        live.engine.submit("maker", Side.BUY, price, size * SHARE)
    feed = await still.feed(list(window.tokens))
    await still.until(lambda: feed.kinds["book"] == 2)
    # Somebody buys DOWN at up to 0.60: in terms of UP a sale at 0.40.
    live.engine.submit("taker", Side.SELL, 4_000, 8 * SHARE, time_in_force=TimeInForce.IOC, client=1)
    await still.settle()
    prints = [(e["asset_id"], e["price"], e["size"], e["side"]) for e in feed.of("last_trade_price")]
    assert prints == [(window.tokens[1], "0.59", "5", "BUY"), (window.tokens[1], "0.6", "3", "BUY")]
    assert [event["event_type"] for event in feed.events[2:]] == [
        "price_change",
        *["last_trade_price"] * 2,
        *["book"] * 2,
    ]
    for token in window.tokens:
        assert (await still.get("/book", token_id=token))[1]["last_trade_price"] == "0.600"


async def test_a_window_ends_resolves_and_is_forgotten() -> None:
    async with open_bench(600) as bench:
        window = bench.venue.current("BTC")
        feed = await bench.feed(list(window.tokens), custom_feature_enabled=True)
        await bench.until(lambda: feed.kinds["book"] == 2)
        await bench.advance((window.close_ms - bench.clock.now_ms()) / 1000 - 0.5, 5)
        slug = f"/events/slug/{window.slug}"
        assert (await bench.get(slug, gamma=True))[1]["markets"][0]["acceptingOrders"] is True
        await bench.advance(1.0)
        await bench.settle()
        # Matching has stopped and the book is empty, flags lag behind.
        for token in window.tokens:
            assert bench.venue.book_truth(token).bids == bench.venue.book_truth(token).asks == ()
            assert feed.levels(token) == ([], [])
        event = (await bench.get(slug, gamma=True))[1]
        assert (event["closed"], event["markets"][0]["acceptingOrders"]) == (False, True)
        count = len(feed.of("price_change"))
        await bench.advance(16)
        event = (await bench.get(slug, gamma=True))[1]
        assert (event["closed"], event["markets"][0]["acceptingOrders"]) == (False, False)
        assert len(feed.of("price_change")) == count
        lag = (window.resolved_ms - window.close_ms) / 1000
        assert 53 <= lag <= 90
        await bench.advance((window.resolved_ms - bench.clock.now_ms()) / 1000 + 0.5)
        await bench.settle()
        up = bench.venue.world.went_up("BTC", window.open_ms, window.close_ms)
        told = feed.of("market_resolved")
        assert [(e["winning_asset_id"], e["winning_outcome"]) for e in told] == [
            (window.tokens[0 if up else 1], "Up" if up else "Down")
        ]
        event = (await bench.get(slug, gamma=True))[1]
        market = event["markets"][0]
        assert (event["closed"], market["closed"], market["umaResolutionStatus"]) == (True, True, "resolved")
        assert json.loads(market["outcomePrices"]) == (["1", "0"] if up else ["0", "1"])
        assert set(event["eventMetadata"]) == {"priceToBeat"}
        assert (await bench.get("/book", token_id=window.tokens[0]))[0] == 404
        rest = (await bench.get(f"/markets/{window.condition_id}"))[1]
        assert [row["winner"] for row in rest["tokens"]] == [up, not up]
        await bench.advance((window.final_ms - bench.clock.now_ms()) / 1000 + 1, 10)
        event = (await bench.get(slug, gamma=True))[1]
        strike, final = event["eventMetadata"]["priceToBeat"], event["eventMetadata"]["finalPrice"]
        assert (final >= strike) is up
        assert window.condition_id not in bench.venue.live


async def test_a_far_market_comes_alive_before_its_window() -> None:
    async with open_bench(850) as bench:
        series = Series("BTC", "15m")
        far = bench.venue.listings.at(series, START + 2 * 900_000)
        feed = await bench.feed(list(far.tokens))
        await bench.until(lambda: feed.kinds["book"] == 2)
        assert feed.levels(far.tokens[0]) == ([], [])
        await bench.advance(55, 5)
        await bench.settle()
        truth = bench.venue.book_truth(far.tokens[0])
        assert truth.bids
        assert feed.levels(far.tokens[0]) == (list(truth.bids), list(truth.asks))
        assert feed.wrong == []


async def test_memory_stays_flat_over_a_day(still: Bench) -> None:
    venue = still.venue
    count = len(venue.listings)
    token = venue.current("BTC").tokens[0]
    await still.get("/book", token_id=token)
    for _ in range(26):
        await still.clock.advance(3_600)
        for asset in ("BTC", "ETH"):
            for interval in ("5m", "15m"):
                await still.get("/book", token_id=venue.current(asset, interval).tokens[0])
        assert len(venue.live) <= 2 * len(venue.listings.series)
    assert abs(len(venue.listings) - count) <= 8
    assert len(venue._events) < 5 * count
    assert venue.listings.find(token) is None
    oldest = min(window.close_ms for window in venue.listings.published(still.clock.now_ms()))
    assert oldest >= still.clock.now_ms() - HISTORY_MS - 900_000
