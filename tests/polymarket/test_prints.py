"""Public prints: each match once, with the taker's side."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from pmkit.exchanges.numbers import BookError
from pmkit.exchanges.polymarket.messages import LastTradePrice, decode
from pmkit.exchanges.polymarket.prints import Prints
from pmkit.exchanges.types import PublicTrade, Side
from tests.polymarket.frames import DOWN, MARKET, T0, UP, raw, trade


def read(prints: Prints, *args: str, token: str = UP, at: int = T0, tx: str = "0xaa") -> PublicTrade | None:
    event = decode(raw(trade(*args, token=token, at=at, tx=tx)))
    assert isinstance(event, LastTradePrice)
    return prints.read(event, MARKET, "UP" if token == UP else "DOWN", token == UP, 7)


def test_a_print() -> None:
    assert read(Prints(), "0.456", "219.2", "SELL") == PublicTrade(
        market_id=MARKET,
        outcome="UP",
        price=Decimal("0.456"),
        size=Decimal("219.2"),
        side=Side.SELL,
        trade_id="",
        venue_ms=T0,
        received_ns=7,
    )


def test_the_mirrored_print_of_the_other_outcome_is_dropped() -> None:
    for first, second in ((UP, DOWN), (DOWN, UP)):
        prints = Prints()
        assert read(prints, "0.60", "5", "BUY", token=first)
        assert read(prints, "0.4", "5.0", "SELL", token=second) is None
        assert prints.mirrored == 1
        # A second pair of the same numbers is a second match.
        assert read(prints, "0.6", "5", "BUY", token=first)
        assert read(prints, "0.40", "5", "SELL", token=second) is None


def test_several_fills_of_one_transaction_are_several_prints() -> None:
    prints = Prints()
    assert all(read(prints, "0.6", "5", "BUY") for _ in range(3))
    assert prints.mirrored == 0


@pytest.mark.parametrize(
    ("price", "size", "side", "at", "tx"),
    [
        ("0.4", "5", "BUY", T0, "0xaa"),
        ("0.41", "5", "SELL", T0, "0xaa"),
        ("0.4", "6", "SELL", T0, "0xaa"),
        ("0.4", "5", "SELL", T0 + 1, "0xaa"),
        ("0.4", "5", "SELL", T0, "0xbb"),
    ],
)
def test_what_is_no_mirror_is_passed_on(price: str, size: str, side: str, at: int, tx: str) -> None:
    prints = Prints()
    assert read(prints, "0.6", "5", "BUY")
    assert read(prints, price, size, side, token=DOWN, at=at, tx=tx)


@pytest.mark.parametrize(
    ("price", "size"),
    [("0", "5"), ("1", "5"), ("-0.1", "5"), ("0.5", "0"), ("0.5", "-1"), ("NaN", "1"), ("0.5", "much"), ("", "1")],
)
def test_what_is_no_trade_is_refused(price: str, size: str) -> None:
    with pytest.raises(BookError):
        read(Prints(), price, size, "BUY")


def test_memory_is_bounded() -> None:
    prints = Prints()
    for number in range(3000):
        assert read(prints, "0.6", "5", "BUY", at=T0 + number)
    assert len(prints._seen) <= 513


def test_recorded_prints_come_once_each(recordings: Path) -> None:
    prints = Prints()
    with gzip.open(recordings / "polymarket" / "samples" / "ws_last_trade_price_20260212.jsonl.gz") as lines:
        for line in lines:
            event = decode(line)
            assert isinstance(event, LastTradePrice)
            assert prints.read(event, event.market, "YES", True, 0)
    assert prints.mirrored == 0
