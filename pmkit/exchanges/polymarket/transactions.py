"""Transactions of a key's own account (wire): type 2 (EIP-1559), signed here, so that the hash is known before sending.

RLP of EIP-2718; tests hold the bytes equal to eth-account's. The key stays inside its `Signer`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.eip712 import POLYGON, address_bytes
from pmkit.exchanges.polymarket.keccak import keccak

GWEI: Final = 10**9
MIN_TIP: Final = 30 * GWEI
"""Polygon refuses a tip below 25 gwei (error -32000, `transaction gas price below minimum`); nodes may name less."""


class Fees(msgspec.Struct, frozen=True):
    """What a unit of gas may cost, in wei of POL."""

    max_fee: int
    tip: int

    def raised(self, market: Fees) -> Fees:
        """For the same nonce again: an eighth more (nodes ask for a tenth, of both), and not below the market."""
        return Fees(
            max_fee=max(self.max_fee + -(-self.max_fee // 8), market.max_fee),
            tip=max(self.tip + -(-self.tip // 8), market.tip),
        )


def polygon_fees(base_fee: int, suggested_tip: int) -> Fees:
    """Fees by Polygon's rules: the tip has a floor, the maximum leaves room for a base fee twice as high."""
    tip = max(MIN_TIP, suggested_tip)
    return Fees(max_fee=2 * base_fee + tip, tip=tip)


class Transaction(msgspec.Struct, frozen=True):
    """A signed transaction: `raw` is what is broadcast (any number of times), `hash` what it will be known by."""

    hash: str
    raw: bytes
    nonce: int
    fees: Fees
    gas: int

    def __repr__(self) -> str:
        return f"<Transaction {self.hash} nonce {self.nonce}>"


class Log(msgspec.Struct, frozen=True):
    """One event: address lower case, topics and data as bytes."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes


class Receipt(msgspec.Struct, frozen=True):
    """A mined transaction. `gas_cost` is in wei of POL."""

    hash: str
    ok: bool
    block: int
    gas_cost: int
    logs: tuple[Log, ...]


def sign_transaction(
    signer: Signer, call: Call, *, nonce: int, gas: int, fees: Fees, chain_id: int = POLYGON
) -> Transaction:
    """The transaction with which the key's own account makes a call."""
    fields: list[int | bytes | list[bytes]] = [
        chain_id,
        nonce,
        fees.tip,
        fees.max_fee,
        gas,
        address_bytes(call.to),
        call.value,
        call.data,
        [],
    ]
    signature = signer.sign(keccak(b"\x02" + _rlp(fields)))
    parts = [signature[64] - 27, int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])]
    raw = b"\x02" + _rlp([*fields, *parts])
    return Transaction("0x" + keccak(raw).hex(), raw, nonce, fees, gas)


def _rlp(item: int | bytes | list[bytes] | list[int | bytes | list[bytes]]) -> bytes:
    if isinstance(item, list):
        return _prefixed(b"".join(map(_rlp, item)), 0xC0)
    data = item if isinstance(item, bytes) else item.to_bytes((item.bit_length() + 7) // 8)
    return data if len(data) == 1 and data[0] < 0x80 else _prefixed(data, 0x80)


def _prefixed(data: bytes, base: int) -> bytes:
    if len(data) < 56:
        return bytes([base + len(data)]) + data
    size = len(data).to_bytes((len(data).bit_length() + 7) // 8)
    return bytes([base + 55 + len(size)]) + size + data
