"""Which wallet holds the funds of a key (wire): the four kinds, and their addresses by CREATE2.

The API key belongs to the key's own address (EOA) whatever the wallet. Sources: docs.polymarket.com/resources/contracts
and the wallet code of Polymarket's Python SDK; the factories are those of Polygon mainnet.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Final

import msgspec

from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.eip712 import (
    ZERO_WORD,
    address_bytes,
    address_word,
    checksum_address,
    word,
)
from pmkit.exchanges.polymarket.keccak import keccak

_PROXY_FACTORY: Final = bytes.fromhex("aB45c5A4B0c941a2F231C04C3f49182e1A254052")
_PROXY_IMPLEMENTATION: Final = bytes.fromhex("44e999d5c2F66Ef0861317f9A4805AC2e90aEB4f")
_SAFE_FACTORY: Final = bytes.fromhex("aacFeEa03eb1561C4e67d661e40682Bd20E3541b")
_SAFE_INIT_HASH: Final = bytes.fromhex("2bce2127ff07fb632d16c8347c4ebf501f4841168bed00d9e6ef715ddb6fcecf")
_DEPOSIT_FACTORY: Final = bytes.fromhex("00000000000Fb5C9ADea0298D729A0CB3823Cc07")
_DEPOSIT_UUPS: Final = bytes.fromhex("58CA52ebe0DadfdF531Cde7062e76746de4Db1eB")
_DEPOSIT_BEACON: Final = bytes.fromhex("7A18EDfe055488A3128f01F563e5B479D92ffc3a")

_PROXY_INIT: Final = (
    bytes.fromhex("3d3d606380380380913d393d73")
    + _PROXY_FACTORY
    + bytes.fromhex("5af4602a57600080fd5b602d8060366000396000f3363d3d373d3d3d363d73")
    + _PROXY_IMPLEMENTATION
    + bytes.fromhex("5af43d82803e903d91602b57fd5bf352e831dd")
    + word(32)
    + ZERO_WORD
)
_UUPS_INIT: Final = (
    bytes.fromhex("61007d3d8160233d3973")
    + _DEPOSIT_UUPS
    + bytes.fromhex("60095155f3363d3d373d3d363d7f360894a13ba1a3210667c828492db98dca3e2076")
    + bytes.fromhex("cc3735a920a3ca505d382bbc545af43d6000803e6038573d6000fd5b3d6000f3")
)
_BEACON_INIT: Final = (
    bytes.fromhex("6100923d8160233d3973")
    + _DEPOSIT_BEACON
    + bytes.fromhex("60195155f3363d3d373d3d363d602036600436635c60da")
    + bytes.fromhex("1b60e01b36527fa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6c")
    + bytes.fromhex("b3582b35133d50545afa5036515af43d6000803e604d573d6000fd5b3d6000f3")
)


class SignatureType(IntEnum):
    """How an order is signed, which is what kind of wallet makes it."""

    EOA = 0
    POLY_PROXY = 1
    GNOSIS_SAFE = 2
    POLY_1271 = 3


class Wallets(msgspec.Struct, frozen=True):
    """All wallets that can belong to one key, as checksummed addresses. Whether one exists, only the chain knows.

    A deposit wallet has one of two addresses, by the generation of its factory (beacon is the current one).
    """

    owner: str
    proxy: str
    safe: str
    deposit_beacon: str
    deposit_uups: str

    def type_of(self, funder: str) -> SignatureType | None:
        """The signature type of the wallet at that address; None where it does not follow from this key.

        Such a wallet may be a deposit wallet that this key drives as a session key.
        """
        raw = address_bytes(funder)
        kinds = {
            self.owner: SignatureType.EOA,
            self.proxy: SignatureType.POLY_PROXY,
            self.safe: SignatureType.GNOSIS_SAFE,
            self.deposit_beacon: SignatureType.POLY_1271,
            self.deposit_uups: SignatureType.POLY_1271,
        }
        return kinds.get(checksum_address(raw))

    def check(self, funder: str, signature_type: int) -> SignatureType:
        """The type, where the funder is such a wallet of this key.

        Raises ConfigError that names the type that fits, or the address that would. A foreign address passes as type 3
        only, where it can be a deposit wallet of another key that allows this one.
        """
        try:
            wanted = SignatureType(signature_type)
        except ValueError:
            raise ConfigError(f"signature type {signature_type!r} is unknown: 0, 1, 2 or 3") from None
        found = self.type_of(funder)
        if found is wanted or (found is None and wanted is SignatureType.POLY_1271):
            return wanted
        if found is not None:
            raise ConfigError(
                f"POLYMARKET_SIGNATURE_TYPE is {int(wanted)} ({wanted.name}), but {funder} is the wallet of type "
                f"{int(found)} ({found.name}) of this key: set it to {int(found)}"
            )
        address = {0: self.owner, 1: self.proxy, 2: self.safe}[int(wanted)]
        raise ConfigError(
            f"{funder} is no wallet of this key ({self.owner}): with signature type {int(wanted)} ({wanted.name}) its "
            f"wallet is {address}; check POLYMARKET_FUNDER_ADDRESS, or that the private key is of that account"
        )


@lru_cache(maxsize=64)
def wallets_of(owner: str) -> Wallets:
    """The wallets of a key's address. Raises ConfigError where that is no address."""
    raw = address_bytes(owner)
    args = address_word(_DEPOSIT_FACTORY) + address_word(raw)
    return Wallets(
        owner=checksum_address(raw),
        proxy=_create2(_PROXY_FACTORY, keccak(raw), keccak(_PROXY_INIT)),
        safe=_create2(_SAFE_FACTORY, keccak(address_word(raw)), _SAFE_INIT_HASH),
        deposit_beacon=_create2(_DEPOSIT_FACTORY, keccak(args), keccak(_BEACON_INIT + args)),
        deposit_uups=_create2(_DEPOSIT_FACTORY, keccak(args), keccak(_UUPS_INIT + args)),
    )


def _create2(factory: bytes, salt: bytes, init_hash: bytes) -> str:
    return checksum_address(keccak(b"\xff" + factory + salt + init_hash)[-20:])
