"""Wallet addresses, and which signature type goes with which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.eip712 import address_bytes, checksum_address
from pmkit.exchanges.polymarket.wallets import SignatureType, wallets_of
from tests.polymarket.accounts import ADDRESS

WALLETS = wallets_of(ADDRESS)
FOREIGN = "0x" + "12" * 20


def test_official_addresses(recordings: Path) -> None:
    rows = json.loads((recordings / "polymarket" / "order_vectors.json").read_text())["wallet_addresses"]
    assert rows
    for row in rows:
        found = wallets_of(row["signer"].lower())
        assert (found.owner, found.proxy, found.safe, found.deposit_beacon, found.deposit_uups) == (
            row["signer"],
            row["poly_proxy"],
            row["gnosis_safe"],
            row["deposit_wallet_beacon"],
            row["deposit_wallet_uups"],
        )


def test_published_addresses_of_the_first_test_account() -> None:
    assert WALLETS.proxy == "0x365f0CA36Ae1f641E02fE3B7743673da42A13A70"
    assert WALLETS.safe == "0xd93B25cb943D14d0d34FBaF01Fc93a0f8b5F6E47"
    assert WALLETS.deposit_beacon == "0xBc0fF067b7740Eff76C1ca93c875Ba6B890d6B50"
    assert WALLETS.deposit_uups == "0xdf8b9E8f9AB23f261F6e1B171B7454ae6E46Ba76"


@pytest.mark.parametrize(
    ("funder", "kind"),
    [
        (WALLETS.owner, SignatureType.EOA),
        (WALLETS.proxy, SignatureType.POLY_PROXY),
        (WALLETS.safe, SignatureType.GNOSIS_SAFE),
        (WALLETS.deposit_beacon, SignatureType.POLY_1271),
        (WALLETS.deposit_uups, SignatureType.POLY_1271),
    ],
)
def test_the_type_that_fits_is_named(funder: str, kind: SignatureType) -> None:
    assert WALLETS.type_of(funder.lower()) is kind
    assert WALLETS.check(funder, kind) is kind
    for other in set(SignatureType) - {kind}:
        with pytest.raises(ConfigError, match=f"set it to {int(kind)}$"):
            WALLETS.check(funder, other)


def test_a_foreign_wallet_is_a_session_keys_or_a_mistake() -> None:
    assert WALLETS.type_of(FOREIGN) is None
    assert WALLETS.check(FOREIGN, 3) is SignatureType.POLY_1271
    for kind, address in ((0, WALLETS.owner), (1, WALLETS.proxy), (2, WALLETS.safe)):
        with pytest.raises(ConfigError, match=address):
            WALLETS.check(FOREIGN, kind)
    with pytest.raises(ConfigError, match="unknown"):
        WALLETS.check(FOREIGN, 9)


@pytest.mark.parametrize(
    "text",
    [
        # EIP-55's own examples
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_checksums(text: str) -> None:
    for spelling in (text, text.lower(), "0x" + text[2:].upper()):
        assert checksum_address(address_bytes(spelling)) == text
    flipped = text[:-1] + text[-1].swapcase() if text[-1].isalpha() else text[:2] + text[2:].swapcase()
    with pytest.raises(ConfigError, match="wrong digit"):
        address_bytes(flipped)


@pytest.mark.parametrize("text", ["", "0x", ADDRESS[:-1], ADDRESS + "0", ADDRESS[2:], "0x" + "g" * 40, "0X" + "1" * 40])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        address_bytes(text)
