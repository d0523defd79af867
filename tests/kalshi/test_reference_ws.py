"""The settlement index and the ticker channel: against the local venue, and frame by frame."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from pmkit.clock import ManualClock
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError, VenueUnavailable
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.messages import INDEX, Ticker, decode_frame, subscribe, update_indices
from pmkit.exchanges.kalshi.reference_ws import IndexPrices, index_of
from pmkit.exchanges.kalshi.types import KalshiMarket, KalshiReference, KalshiTicker, RowError, parse_ticker
from pmkit.exchanges.types import NoMarket, ReferencePrice
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import FrameError
from tests.kalshi.frames import T, encode
from tests.kalshi.test_against_sim import FACTOR, eventually, local, window
from tests.local import clock_of, listener

pytestmark = pytest.mark.virtual_time

CLOSE_MS = 1_795_205_700_000  # a quarter of an hour


async def test_the_index_its_average_and_the_settlement_as_it_forms() -> None:
    async with local(key=True, boundary=3.0) as (data, venues):
        seen: list[ReferencePrice] = []
        stream = await data.subscribe_reference(["btc", "ETH"], seen.append)
        assert data.reference is not None and data.reference.reference("BTC") is not None
        # Through a boundary: the whole average at the close is the strike of the next window.
        await eventually(lambda: any(one.strike is not None for one in seen if one.asset == "BTC"), 5)
        before = await window(data)
        await eventually(lambda: any(_whole(one) for one in seen if one.asset == "BTC"), 8)
        whole = next(one for one in seen if one.asset == "BTC" and _whole(one))
        assert isinstance(whole, KalshiReference) and whole.settlement is not None
        await eventually(lambda: seen[-1].venue_ms > whole.venue_ms + 20_000 and seen[-1].strike is not None, 5)
        after = await window(data)
        assert after.ticker != before.ticker
        assert after.strike == whole.settlement.quantize(Decimal("0.01"))
        last = [one for one in seen if one.asset == "BTC"][-1]
        assert last.strike == after.strike
        assert isinstance(last, KalshiReference)
        assert (last.settlement, last.settlement_ticks) == (None, 0)
        assert last.average is not None and abs(last.average / (last.price or 1) - 1) < Decimal("0.05")
        assert {one.asset for one in seen} == {"BTC", "ETH"}
        assert [one.venue_ms for one in seen if one.asset == "BTC"] == sorted(
            {one.venue_ms for one in seen if one.asset == "BTC"}
        )
        await stream.close()
        assert data.reference.reference("BTC") is None
        assert venues.failures == []


def _whole(one: ReferencePrice) -> bool:
    return isinstance(one, KalshiReference) and one.settlement_ticks == 60


async def test_md_01_an_index_that_goes_silent_is_connected_anew() -> None:
    async with local(key=True, boundary=20.0) as (data, venues):
        await data.subscribe_reference(["BTC"])
        assert data.reference is not None
        socket = data.reference.socket
        first = socket.generation
        venues.kalshi.faults.silence(1.6 * FACTOR)
        await eventually(lambda: socket.generation > first, 6)
        reference = data.reference.reference("BTC")
        assert reference is not None
        await eventually(lambda: (data.reference and data.reference.reference("BTC")) != reference, 6)


async def test_an_index_that_the_venue_does_not_have_is_said() -> None:
    async with local(key=True) as (data, _):
        with pytest.raises(VenueUnavailable, match="no index of NOSUCH"):
            await data.subscribe_reference(["NOSUCH"])
        for wrong in ("", "a b", "B/../C"):
            with pytest.raises(ConfigError, match="write it like BTC"):
                await data.subscribe_reference([wrong])


async def test_without_a_key_neither_comes_and_it_is_said() -> None:
    async with local(key=False) as (data, _):
        with pytest.raises(ConfigError, match="KALSHI_API_KEY_ID"):
            await data.subscribe_reference(["BTC"])
        with pytest.raises(ConfigError, match="KALSHI_API_KEY_ID"):
            await data.subscribe_ticker([await window(data)])


@pytest.mark.parametrize("compression", [False, True])
async def test_the_ticker_is_the_top_of_the_book_with_and_without_compression(compression: bool) -> None:
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData

    async with local(key=True, factor=1.0, boundary=300) as (_, venues):
        signer = listener(venues)
        async with KalshiMarketData(venues.endpoints, clock_of(venues), signer=signer, compression=compression) as data:
            market = await window(data)
            await data.subscribe_orderbook([market])
            seen: list[KalshiTicker] = []
            stream = await data.subscribe_ticker([market], seen.append)
            socket = data.source.socket
            assert socket is not None
            (session,) = venues.kalshi.server.sessions
            assert bool(session.ws.compress) is compression
            book = data.book(market, "YES")
            await eventually(lambda: any((one.bid, one.ask) == (book.best_bid, book.best_ask) for one in seen), 8)
            assert all(one.market_id == market.market_id and one.venue_ms for one in seen)
            count = len(seen)
            await stream.close()
            await eventually(lambda: not socket.subscriptions.has(("ticker", market.ticker)))
            assert len(seen) == count


def test_a_ticker_row_without_quotes_has_none() -> None:
    row = Ticker(T, "0.0000", "1.0000", "0.00", "0.00", "", "", "12.50", "", 5)
    one = parse_ticker(row, 7)
    assert (one.bid, one.ask, one.bid_size, one.ask_size, one.last) == (None,) * 5
    assert (one.volume, one.open_interest, one.venue_ms, one.received_ns) == (Decimal("12.50"), None, 5, 7)
    for text in ("1.2", "-0.1", "nan", "x"):
        with pytest.raises(RowError):
            parse_ticker(Ticker(T, text, "1.0000"), 0)


# -- frame by frame


def frame(time_ms: int, value: str, *, index: str = "BRTI", **averages: Any) -> bytes:
    data = json.dumps({"type": "value", "id": index, "time": time_ms, "value": value})
    return encode(
        {"type": INDEX, "sid": 1, "seq": 1, "msg": {"index_id": index, "received_at": time_ms, "data": data} | averages}
    )


def prices() -> IndexPrices:
    from pmkit.sim.kalshi.auth import Keys

    clock = ManualClock(CLOSE_MS)
    key = Keys(clock).make("ed25519")

    async def nothing(asset: str) -> KalshiMarket | NoMarket:
        return NoMarket("none")

    async def measure() -> None:
        return None

    made = IndexPrices(
        Endpoints.real().kalshi.ws,
        clock,
        HandshakeSigner.from_key(key.id, key.pem),
        VenueClock(clock),
        compression=False,
        current=nothing,
        measure=measure,
    )
    from pmkit.exchanges.kalshi.reference_ws import _Asset

    made._names["BRTI"], made._assets["BTC"] = "BTC", _Asset()
    return made


async def test_late_foreign_and_odd_ticks_change_nothing() -> None:
    made = prices()
    take = made.socket._on_frame
    assert take(frame(CLOSE_MS, "90000.5", avg_60s_data={"value": "90001", "window_size": 60}), 1)
    one = made.reference("BTC")
    assert one is not None and (one.price, one.average, one.strike) == (Decimal("90000.5"), Decimal("90001"), None)
    assert take(frame(CLOSE_MS - 1, "1.0"), 2)
    assert take(frame(CLOSE_MS, "1.0", index="DOGEUSD_RTI"), 3)
    assert made.reference("BTC") == one
    for bad in ("nan", "-1", "0", "x", ""):
        with pytest.raises(FrameError):
            take(frame(CLOSE_MS + 1, bad), 4)
    assert made.odd == 5 and made.reference("BTC") == one
    assert take(frame(CLOSE_MS + 2, "5", avg_60s_data={"value": "NaN"}), 5)
    last = made.reference("BTC")
    assert last is not None and last.average is None
    for data in (b"{", b'{"type":"cfbenchmarks_value","sid":1,"msg":{}}'):
        with pytest.raises(FrameError):
            take(data, 6)
    assert not take(b'{"type":"event_lifecycle","sid":1}', 7)
    assert not take(b'{"type":"error","id":9,"msg":{"code":8,"msg":"Unknown channel name"}}', 8)
    assert made.socket.refused == "code 8: Unknown channel name"
    await made.close()


def test_commands_name_the_indices() -> None:
    assert json.loads(subscribe(1, INDEX, ["BRTI"]))["params"] == {
        "channels": ["cfbenchmarks_value"],
        "index_ids": ["BRTI"],
    }
    assert json.loads(update_indices(2, 5, "unsubscribe_indices", ["BRTI"]))["params"] == {
        "sids": [5],
        "action": "unsubscribe_indices",
        "index_ids": ["BRTI"],
    }
    assert index_of("BTC") == "BRTI" and index_of("DOGE") == "DOGEUSD_RTI"
    decode_frame(frame(1, "1"))
