"""`run`, accounts and feeds with arguments that are wrong: one line that says what there is, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from pmkit.bot.base import BaseBot
from pmkit.bot.run import run
from pmkit.config.env import ASSETS
from pmkit.config.secret import Secret
from pmkit.data.binance.feed import BinanceFeed
from pmkit.data.binance.types import ASSETS as WITH_CANDLES
from pmkit.endpoints import Endpoints
from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.sim.world import ASSETS as LOCAL_ASSETS


class Idle(BaseBot):
    """Never gets as far as a tick."""


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PMKIT_WHERE", "local")
    monkeypatch.setenv("PMKIT_MODE", "dry-run")
    monkeypatch.delenv("PMKIT_INTERVAL", raising=False)
    monkeypatch.chdir(tmp_path)

    class Started(AssertionError):
        """What was wrong went unseen."""

    async def no_process(self: object) -> None:
        raise Started

    monkeypatch.setattr("pmkit.bot.local.LocalProcess.__aenter__", no_process)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"venues": "polymarkt"}, "unknown venue 'polymarkt': there are polymarket and kalshi"),
        ({"venues": [None]}, "unknown venue 'none'"),
        ({"assets": ["B TC"]}, "asset 'B TC' is no name of one"),
        ({"assets": [None]}, "asset None is no name of one"),
        ({"interval": "5m"}, "kalshi has no windows of '5m', but of 15m"),
        ({"interval": "15M", "venues": "polymarket"}, "polymarket has no windows of '15M', but of 5m and 15m"),
        ({"queue": "best"}, "queue is 'best': there are pessimistic, middle, optimistic"),
        ({"balance": 12.5}, "balance is the float 12.5"),
        ({"balance": "much"}, "balance is 'much': not a number"),
    ],
)
def test_a_wrong_argument_is_one_line_and_starts_nothing(
    given: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(Idle, **{"venues": ["kalshi"], "assets": ["BTC"], **given})
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_what_is_no_bot_is_said_before_anything_is_asked() -> None:
    for wrong in (5, object, "Idle"):
        with pytest.raises(TypeError, match="BaseBot"):
            run(wrong)  # type: ignore[arg-type]


def test_one_venue_or_asset_may_be_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for its letters: unknown venue 'p'."""
    started: dict[str, Any] = {}

    async def main(bot: type[BaseBot], **options: Any) -> int:
        started.update(options)
        return 0

    monkeypatch.setattr("pmkit.bot.run._main", main)
    monkeypatch.setenv("PMKIT_INTERVAL", "5m")
    run(Idle, venues="Polymarket", assets="btc")
    assert (started["venues"], started["assets"], started["interval"]) == (["polymarket"], ("BTC",), "5m")
    run(Idle, venues=["kalshi", "kalshi"], assets=["BTC", "btc"], interval="15m")
    assert (started["venues"], started["assets"]) == (["kalshi"], ("BTC",))


def test_the_local_venues_have_every_asset_that_is_offered() -> None:
    """ZEC was among the choices, and choosing it on local venues was an error."""
    assert {*ASSETS, *WITH_CANDLES} <= set(LOCAL_ASSETS)


def test_an_account_made_of_wrong_parts_is_said_without_showing_them() -> None:
    """A private key as a plain text was "'str' object has no attribute 'reveal'"."""
    key, where = "1" * 64, Endpoints.real()
    for given, said in (
        ({"private_key": key}, "private_key is a str and not a Secret"),
        ({"private_key": Secret(key), "credentials": ("a", "b")}, "three parts"),
        ({"private_key": Secret(key), "funder": "0xabc"}, "no address"),
        ({"private_key": Secret(key), "signature_type": 9}, "signature type 9 is unknown"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            PolymarketExchange(where, where.make_clock(), **given)
        assert key not in str(caught.value)
    for symbols in ("BTCUSDT", [None], []):
        with pytest.raises(ConfigError, match="BTCUSDT"):
            BinanceFeed(where, where.make_clock(), symbols)
