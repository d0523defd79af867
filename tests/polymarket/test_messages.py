"""The decoders: what the venue writes, what it used to write, and what it never wrote."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from pmkit.exchanges.polymarket import messages
from pmkit.exchanges.polymarket.messages import Book, DecodeFailure, TaggedPriceChange, decode, inspect
from tests.polymarket.frames import DOWN, UP, book, change, price_change, raw, tick_change, trade


def sample(recordings: Path, name: str) -> bytes:
    return (recordings / "polymarket" / "samples" / name).read_bytes()


def test_one_event_and_an_array_of_events() -> None:
    one = decode(raw(book()))
    assert isinstance(one, Book)
    assert one.timestamp == 1_795_176_000_000
    assert [(level.price, level.size) for level in one.asks] == [("0.53", 60.0), ("0.52", 25.0)]
    both = decode(raw(book(), price_change(change("0.5", "3", "BUY", "0.5", "0.52"))))
    assert isinstance(both, list)
    assert [type(event) for event in both] == [Book, TaggedPriceChange]


@pytest.mark.parametrize(
    "frame",
    [
        raw(book(tick=None)),
        raw(book() | {"brand_new": {"a": [1]}, "hash": None}),
        raw({key: value for key, value in book().items() if key not in ("last_trade_price", "hash", "market")}),
        raw(tick_change("0.001")),
        raw(trade("0.5", "12.345678", "SELL")),
        raw({key: value for key, value in trade("0.5", "1", "BUY").items() if key != "transaction_hash"}),
        raw({"event_type": "best_bid_ask", "market": "0x", "asset_id": UP, "best_bid": "0.1", "best_ask": "0.2"}),
        raw({"event_type": "new_market", "id": "1", "slug": "btc-updown-5m-1795176000", "fee_schedule": {}}),
        raw({"event_type": "market_resolved", "market": "0x", "assets_ids": [UP, DOWN], "winning_asset_id": UP}),
    ],
)
def test_md_19_new_fields_and_missing_optional_ones_are_fine(frame: bytes) -> None:
    decode(frame)


def test_every_documented_type_has_a_struct() -> None:
    tags = {kind.__struct_config__.tag for kind in messages.Event.__args__}
    assert tags == messages.KNOWN_EVENTS


LEGACY = {
    "event_type": "price_change",
    "asset_id": UP,
    "market": "0x",
    "timestamp": "1729084877448",
    "changes": [{"price": "0.5", "side": "BUY", "size": "3"}],
}


@pytest.mark.parametrize(
    ("frame", "kind", "assets"),
    [
        (raw(LEGACY), "price_change", (UP,)),
        (raw(price_change({"asset_id": DOWN, "price": "0.5", "side": "BUY"})), "price_change", (DOWN,)),
        (raw({"event_type": "from_the_future", "asset_id": UP}), "from_the_future", (UP,)),
        (raw({"event_type": 7}), "", ()),
        (raw({"message": "hello"}), "", ()),
        (b'{"event_type":"book"', None, ()),
        (b"INVALID OPERATION", None, ()),
        (b'[{"event_type":"book"}]', None, ()),
        (b"\xff\xfe\x00", None, ()),
        (b"[" * 50_000, None, ()),
        (b"NaN", None, ()),
    ],
)
def test_md_23_what_does_not_decode_is_told_apart(frame: bytes, kind: str | None, assets: tuple[str, ...]) -> None:
    with pytest.raises(DecodeFailure):
        decode(frame)
    wreck = inspect(frame)
    assert (wreck.kind, wreck.assets) == (kind, assets)


@pytest.mark.parametrize("size", ["true", "null", '"a lot"', '""', "[]", "1e999", '"0x10"', '" 1"'])
def test_md_20_a_size_that_is_no_number_does_not_decode(size: str) -> None:
    frame = raw(book()).replace(b'"size":"30"', f'"size":{size}'.encode())
    with pytest.raises(DecodeFailure):
        decode(frame)


@pytest.mark.parametrize("size", ['"30"', "30", "30.0", '"30.0"', '"3e1"', "3e1"])
def test_md_20_numbers_as_text_and_as_numbers(size: str) -> None:
    event = decode(raw(book()).replace(b'"size":"30"', f'"size":{size}'.encode()))
    assert isinstance(event, Book)
    assert event.bids[0].size == 30.0


@pytest.mark.parametrize("side", ["buy", "BID", "", "SELLS"])
def test_a_side_is_buy_or_sell(side: str) -> None:
    with pytest.raises(DecodeFailure):
        decode(raw(price_change(change("0.5", "3", side, "0.5", "0.52"))))


@pytest.mark.parametrize(
    "name",
    ["py_ws_price_change_v2", "py_ws_tick_size_change", "py_ws_last_trade_price", "ws_market_book_msg"]
    + [f"ws_market_{kind}_msg" for kind in ("best_bid_ask", "last_trade", "new_market", "price_change", "resolved")],
)
def test_published_samples_decode(recordings: Path, name: str) -> None:
    decode(sample(recordings, f"nautilus/{name}.json"))


@pytest.mark.parametrize("name", ["ws_book_20260212", "ws_last_trade_price_20260212"])
def test_recorded_production_frames_decode(recordings: Path, name: str) -> None:
    with gzip.open(recordings / "polymarket" / "samples" / f"{name}.jsonl.gz") as lines:
        frames = list(lines)
    assert len(frames) == 10
    for frame in frames:
        decode(frame)


def test_rest_books_decode(recordings: Path) -> None:
    for name in ("rest/clob_book.json", "nautilus/clob_book_response.json"):
        answer = msgspec.json.decode(sample(recordings, name), type=messages.RestBook, strict=False)
        assert answer.bids
        assert answer.asks
        assert answer.timestamp > 1_700_000_000_000


def test_gamma_numbers_keep_every_digit(recordings: Path) -> None:
    path = recordings / "polymarket" / "gamma_events_btc_5m_resolved_2026-09-23.json"
    row = json.dumps(json.loads(path.read_text())["data"][0]).encode()
    event = messages.decode_event(row)
    assert event.event_metadata is not None
    assert event.event_metadata.price_to_beat == Decimal("86434.33744369619")
    assert event.markets[0].order_price_min_tick_size == Decimal("0.001")
    assert event.markets[0].fee_schedule == messages.FeeSchedule(rate=Decimal("0.07"))


def test_subscribe_frames() -> None:
    first = json.loads(messages.subscribe_frame([UP, DOWN], True))
    assert first == {
        "assets_ids": [UP, DOWN],
        "type": "market",
        "custom_feature_enabled": True,
        "initial_dump": True,
        "level": 2,
    }
    later = json.loads(messages.subscribe_frame([UP], False))
    assert later == {"operation": "subscribe", "assets_ids": [UP], "custom_feature_enabled": True}
    assert json.loads(messages.unsubscribe_frame([UP])) == {"operation": "unsubscribe", "assets_ids": [UP]}
