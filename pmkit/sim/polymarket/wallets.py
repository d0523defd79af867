"""The wallets that belong to an owner's key (reference: polymarket-markets-and-redeem.md, 4.6 and 4.10)."""

from __future__ import annotations

from enum import IntEnum

from pmkit.sim.polymarket.signatures import address_bytes, checksummed, keccak


class WalletType(IntEnum):
    """The signature type of the orders that such a wallet makes."""

    EOA = 0
    PROXY = 1
    SAFE = 2
    DEPOSIT = 3


_PROXY_FACTORY = address_bytes("0xaB45c5A4B0c941a2F231C04C3f49182e1A254052")
_PROXY_CODE = address_bytes("0x44e999d5c2F66Ef0861317f9A4805AC2e90aEB4f")
_SAFE_FACTORY = address_bytes("0xaacFeEa03eb1561C4e67d661e40682Bd20E3541b")
_SAFE_INIT_HASH = bytes.fromhex("2bce2127ff07fb632d16c8347c4ebf501f4841168bed00d9e6ef715ddb6fcecf")
_DEPOSIT_FACTORY = address_bytes("0x00000000000Fb5C9ADea0298D729A0CB3823Cc07")
_DEPOSIT_CODE = address_bytes("0x58CA52ebe0DadfdF531Cde7062e76746de4Db1eB")
_DEPOSIT_BEACON = address_bytes("0x7A18EDfe055488A3128f01F563e5B479D92ffc3a")
_UUPS_TAIL = bytes.fromhex(
    "60095155f3363d3d373d3d363d7f360894a13ba1a3210667c828492db98dca3e2076"
    "cc3735a920a3ca505d382bbc545af43d6000803e6038573d6000fd5b3d6000f3"
)
_BEACON_TAIL = bytes.fromhex(
    "60195155f3363d3d373d3d363d602036600436635c60da"
    "1b60e01b36527fa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6c"
    "b3582b35133d50545afa5036515af43d6000803e604d573d6000fd5b3d6000f3"
)


def _create2(factory: bytes, salt: bytes, init_hash: bytes) -> str:
    return checksummed(keccak(b"\xff" + factory + salt + init_hash)[12:])


def proxy_of(owner: str) -> str:
    """The proxy wallet of an owner (type 1)."""
    init = (
        bytes.fromhex("3d3d606380380380913d393d73")
        + _PROXY_FACTORY
        + bytes.fromhex("5af4602a57600080fd5b602d8060366000396000f3363d3d373d3d3d363d73")
        + _PROXY_CODE
        + bytes.fromhex("5af43d82803e903d91602b57fd5bf352e831dd")
        + (32).to_bytes(32)
        + bytes(32)
    )
    return _create2(_PROXY_FACTORY, keccak(address_bytes(owner)), keccak(init))


def safe_of(owner: str) -> str:
    """The Safe of an owner (type 2)."""
    return _create2(_SAFE_FACTORY, keccak(address_bytes(owner).rjust(32, b"\0")), _SAFE_INIT_HASH)


def deposit_of(owner: str, *, beacon: bool = True) -> str:
    """The deposit wallet of an owner (type 3), the current kind or the older UUPS one."""
    arguments = _DEPOSIT_FACTORY.rjust(32, b"\0") + address_bytes(owner).rjust(32, b"\0")
    if beacon:
        init = bytes.fromhex("6100923d8160233d3973") + _DEPOSIT_BEACON + _BEACON_TAIL + arguments
    else:
        init = bytes.fromhex("61007d3d8160233d3973") + _DEPOSIT_CODE + _UUPS_TAIL + arguments
    return _create2(_DEPOSIT_FACTORY, keccak(arguments), keccak(init))


def wallet_of(owner: str, kind: WalletType) -> str:
    """Where an owner's funds are for that signature type."""
    if kind is WalletType.EOA:
        return owner
    if kind is WalletType.PROXY:
        return proxy_of(owner)
    return safe_of(owner) if kind is WalletType.SAFE else deposit_of(owner)
