"""What an owner signs so that a wallet acts (wire): Safe transactions, proxy calls and deposit-wallet batches.

Sources: Safe 1.3.0, docs.polymarket.com/trading/gasless, the official SDK; pinned by its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from pmkit.exchanges.polymarket.calldata import Call, multi_send
from pmkit.exchanges.polymarket.contracts import RELAY_HUB, SAFE_MULTI_SEND
from pmkit.exchanges.polymarket.eip712 import (
    DOMAIN_TYPE_HASH,
    ONE_HASH,
    POLYGON,
    WALLET_NAME_HASH,
    ZERO_WORD,
    address_bytes,
    address_word,
    typed_digest,
    word,
)
from pmkit.exchanges.polymarket.keccak import keccak

CALL: Final = 0
DELEGATE_CALL: Final = 1

_SAFE_DOMAIN_HASH: Final = keccak(b"EIP712Domain(uint256 chainId,address verifyingContract)")
_SAFE_TX_HASH: Final = keccak(
    b"SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,"
    b"address gasToken,address refundReceiver,uint256 nonce)"
)
_CALL_TYPE: Final = b"Call(address target,uint256 value,bytes data)"
_CALL_HASH: Final = keccak(_CALL_TYPE)
_BATCH_HASH: Final = keccak(b"Batch(address wallet,uint256 nonce,uint256 deadline,Call[] calls)" + _CALL_TYPE)


class SafeAction(NamedTuple):
    """What a Safe does: one call, or several by MultiSend."""

    call: Call
    operation: int


def safe_action(calls: Sequence[Call]) -> SafeAction:
    """One call as it is; several as a delegated MultiSend."""
    if len(calls) == 1:
        return SafeAction(calls[0], CALL)
    return SafeAction(multi_send(SAFE_MULTI_SEND, calls), DELEGATE_CALL)


def safe_digest(safe: str, action: SafeAction, nonce: int, chain_id: int = POLYGON) -> bytes:
    """The SafeTx hash, without gas refund. Signed as it is for `execTransaction`, as a message for the relayer."""
    separator = keccak(_SAFE_DOMAIN_HASH + word(chain_id) + address_word(address_bytes(safe)))
    struct = keccak(
        _SAFE_TX_HASH
        + address_word(address_bytes(action.call.to))
        + word(action.call.value)
        + keccak(action.call.data)
        + word(action.operation)
        + ZERO_WORD * 5
        + word(nonce)
    )
    return typed_digest(separator, struct)


def message_digest(message: bytes) -> bytes:
    """What `personal_sign` signs of 32 bytes (EIP-191)."""
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)


def marked_message(signature: bytes) -> bytes:
    """A signature of a message as a Safe tells it from one of EIP-712: v is raised by 4."""
    return signature[:64] + bytes([signature[64] + 4])


def proxy_struct(owner: str, to: str, data: bytes, nonce: int, gas_limit: int, relay: str) -> bytes:
    """The hash that an owner signs (as a message) for the relay hub: no fee, no gas price."""
    return keccak(
        b"rlx:"
        + address_bytes(owner)
        + address_bytes(to)
        + data
        + ZERO_WORD
        + ZERO_WORD
        + word(gas_limit)
        + word(nonce)
        + address_bytes(RELAY_HUB)
        + address_bytes(relay.lower())  # as the relayer wrote it; its capitals need not be a checksum
    )


def batch_digest(wallet: str, calls: Sequence[Call], nonce: int, deadline_s: int, chain_id: int = POLYGON) -> bytes:
    """What an owner signs for a batch of a deposit wallet; it cannot be executed after the deadline (epoch seconds)."""
    raw = address_bytes(wallet)
    separator = keccak(DOMAIN_TYPE_HASH + WALLET_NAME_HASH + ONE_HASH + word(chain_id) + address_word(raw))
    hashes = [
        keccak(_CALL_HASH + address_word(address_bytes(call.to)) + word(call.value) + keccak(call.data))
        for call in calls
    ]
    struct = keccak(_BATCH_HASH + address_word(raw) + word(nonce) + word(deadline_s) + keccak(b"".join(hashes)))
    return typed_digest(separator, struct)
