"""Bad input: the right error, before anything is sent where that can be known, in words that a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pmkit.config.env import Settings
from pmkit.errors import AuthError, ConfigError, InsufficientFunds, InvalidOrder, NotSent
from pmkit.exchanges.kalshi.auth import Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.types import Side
from tests.kalshi.test_auth import bad_keys
from tests.kalshi.trading import Desk, desk, watch

pytestmark = pytest.mark.virtual_time

PRICES = {
    "0.505": "the legal neighbours are 0.5 and 0.51",
    "0.0015": "the legal neighbours are 0.001 and 0.002",
    "0.9505": "the legal neighbours are 0.95 and 0.951",
    "0": "the legal neighbours are 0.001",
    "1": "the legal neighbours are 0.999",
    "-0.1": "the legal neighbours are 0.001",
    "56": "not on the grid",  # cents
    "NaN": "not a number",
}
COUNTS = {"0": "minimum of 0.01", "-1": "minimum of 0.01", "0.001": "minimum of 0.01", "1.005": "1.00 and 1.01"}


def another(one: Desk, key_id: str, pem: str) -> KalshiExchange:
    signer = Signer.from_key(key_id, pem)
    return KalshiExchange(one.venues.endpoints, one.exchange.clock, signer=signer)


async def test_oe_10_oe_11_oe_12_prices_and_counts_name_what_would_be_legal(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = watch(monkeypatch)
    async with desk(streams=False) as one:
        begun = len(wire.lines)

        async def refused(price: Any, size: Any, outcome: str = "YES") -> str:
            with pytest.raises(InvalidOrder) as caught:
                await one.exchange.place_limit_order(one.market, outcome, Side.BUY, price, size)
            return str(caught.value)

        for price, words in PRICES.items():
            assert words in await refused(price, 1), price
        for count, words in COUNTS.items():
            assert words in await refused("0.5", count), count
        assert "a float cannot hold" in await refused(0.5, 1)
        assert "it has YES and NO" in await refused("0.5", 1, "UP")
        assert len(wire.lines) == begun, "nothing was sent"


async def test_cf_04_a_key_of_the_other_environment_and_a_key_that_does_not_match_are_told_apart() -> None:
    async with desk(streams=False) as one:
        stranger = one.venue.keys.make("ed25519")
        async with another(one, "99999999-aaaa-4bbb-8ccc-dddddddddddd", stranger.pem) as exchange:
            with pytest.raises(AuthError, match="keys of demo are not known in production") as caught:
                await exchange.get_balance()
            assert "99999999" not in str(caught.value)
            with pytest.raises(NotSent, match="nothing was sent.*keys of demo are not known in production"):
                await exchange.place_limit_order(one.market, "YES", Side.BUY, "0.5", 1)
            assert exchange.unresolved == ()
        async with another(one, one.venue.key.id, stranger.pem) as exchange:
            with pytest.raises(AuthError, match="the private key is not the one of this key id"):
                await exchange.get_balance()


async def test_oe_13_funds_on_another_shard_name_the_shard() -> None:
    async with desk(streams=False) as one:
        poor = one.venue.accounts.open({0: 500})
        async with another(one, poor.key.id, poor.key.pem) as exchange:
            with pytest.raises(InsufficientFunds, match=r"index 2: .*balance on this market's shard, not at the sum"):
                await exchange.place_limit_order(one.market, "YES", Side.BUY, "0.5", 10)
            assert exchange.unresolved == ()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("encrypted", "a key without a passphrase; this one is encrypted"),
        ("public", "is a public key"),
        ("elliptic", "Kalshi takes RSA and Ed25519"),
        ("cut off", "to -----END ... PRIVATE KEY-----"),
        ("empty", "from -----BEGIN ... PRIVATE KEY-----"),
    ],
)
def test_sx_05_a_key_file_that_is_no_use_names_the_variable_and_the_problem(
    kind: str, words: str, tmp_path: Path
) -> None:
    pem = bad_keys()[kind]
    path = tmp_path / "kalshi.pem"
    path.write_bytes(pem if isinstance(pem, bytes) else pem.encode())
    (tmp_path / ".env").write_text(
        f"KALSHI_API_KEY_ID=8c35ecb3-328f-4f52-8c7c-0f4b9862f8d1\nKALSHI_PRIVATE_KEY_PATH={path}\n"
    )
    with pytest.raises(ConfigError) as caught:
        Settings.load(tmp_path / ".env", environ={}).require("live", ["kalshi"], "real")
    assert "KALSHI_PRIVATE_KEY_PATH" in str(caught.value) and words in str(caught.value)


def test_sx_05_a_key_file_that_is_missing_names_the_variable_and_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"KALSHI_API_KEY_ID=8c35ecb3-328f-4f52-8c7c-0f4b9862f8d1\nKALSHI_PRIVATE_KEY_PATH={tmp_path / 'none.pem'}\n"
    )
    with pytest.raises(ConfigError, match=r"KALSHI_PRIVATE_KEY_PATH.*none\.pem"):
        Settings.load(tmp_path / ".env", environ={}).require("live", ["kalshi"], "real")
