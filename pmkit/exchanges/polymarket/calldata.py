"""Contract calls as bytes (wire): the ABI encoding of the few functions that a redeem needs, and batches of calls.

Pinned to the official SDK by test vectors. Arguments are checked by their encoders: an address that is none raises
ConfigError, a number out of range OverflowError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.contracts import PUSD
from pmkit.exchanges.polymarket.eip712 import (
    ZERO_WORD,
    address_bytes,
    address_word,
    word,
)
from pmkit.exchanges.polymarket.keccak import keccak

_CONDITION = re.compile(r"0x(?:[0-9a-f]{62}|[0-9a-f]{64})").fullmatch
_BOTH: Final = (1, 2)
"""Index sets of the two outcomes of a binary condition."""


class Call(NamedTuple):
    """One call of a contract. `value` is in wei of POL."""

    to: str
    data: bytes
    value: int = 0


class _Tail(bytes):
    """An encoded argument of dynamic size: its place in the arguments holds an offset."""


def _arguments(*parts: bytes) -> bytes:
    offset = sum(32 if isinstance(part, _Tail) else len(part) for part in parts)
    head, tail = b"", b""
    for part in parts:
        if isinstance(part, _Tail):
            head += word(offset + len(tail))
            tail += part
        else:
            head += part
    return head + tail


def _bytes(data: bytes) -> _Tail:
    return _Tail(word(len(data)) + data + bytes(-len(data) % 32))


def _words(items: Sequence[bytes]) -> _Tail:
    return _Tail(word(len(items)) + b"".join(items))


def _tuples(items: Sequence[bytes]) -> _Tail:
    """An array of tuples of dynamic size."""
    return _Tail(word(len(items)) + _arguments(*map(_Tail, items)))


def _address(address: str) -> bytes:
    return address_word(address_bytes(address))


def selector(signature: str) -> bytes:
    """The first four bytes of a call, e.g. of `balanceOf(address,uint256)`."""
    return keccak(signature.encode())[:4]


def condition_word(condition_id: str) -> bytes:
    """A condition id as bytes32. A 31-byte one of Protocol V2 is padded on the right. Raises ConfigError."""
    if not _CONDITION(text := condition_id.lower()):
        raise ConfigError(f"{ascii(condition_id)[:80]} is no condition id: expected 0x and 64 hex digits (62 under V2)")
    return bytes.fromhex(text[2:]).ljust(32, b"\0")


def condition_31(condition_id: str) -> bytes:
    """A condition id of Protocol V2 as the bytes31 that its Router takes, one ABI word. Raises ConfigError."""
    raw = condition_word(condition_id)
    if raw[31]:
        raise ConfigError(f"{condition_id} is no condition of Protocol V2: its last byte is not 00")
    return raw


# -- tokens -----------------------------------------------------------------------------------------------------------


def balance_of(token: str, owner: str, token_id: int) -> Call:
    """ERC-1155: base units of one id."""
    return Call(token, selector("balanceOf(address,uint256)") + _address(owner) + word(token_id))


def balance_of_batch(token: str, owner: str, token_ids: Sequence[int]) -> Call:
    """ERC-1155: base units of several ids of one owner, in one answer and of one block."""
    owners = _words([_address(owner)] * len(token_ids))
    arguments = _arguments(owners, _words([word(token_id) for token_id in token_ids]))
    return Call(token, selector("balanceOfBatch(address[],uint256[])") + arguments)


def is_approved_for_all(token: str, owner: str, operator: str) -> Call:
    return Call(token, selector("isApprovedForAll(address,address)") + _address(owner) + _address(operator))


def set_approval_for_all(token: str, operator: str, approved: bool = True) -> Call:
    return Call(token, selector("setApprovalForAll(address,bool)") + _address(operator) + word(int(approved)))


def erc20_balance(token: str, owner: str) -> Call:
    return Call(token, selector("balanceOf(address)") + _address(owner))


# -- Protocol V1: ConditionalTokens through a collateral adapter ----------------------------------------------------


def payout_denominator(tokens: str, condition_id: str) -> Call:
    """0 until the oracle has reported."""
    return Call(tokens, selector("payoutDenominator(bytes32)") + condition_word(condition_id))


def payout_numerator(tokens: str, condition_id: str, index: int) -> Call:
    return Call(tokens, selector("payoutNumerators(bytes32,uint256)") + condition_word(condition_id) + word(index))


def redeem_positions(adapter: str, condition_id: str, index_sets: Sequence[int] = _BOTH) -> Call:
    """All shares that the caller holds of the condition. The adapter ignores collateral, parent and index sets.

    Never to be sent to ConditionalTokens itself: with pUSD as collateral that succeeds and redeems nothing.
    """
    arguments = _arguments(
        _address(PUSD), ZERO_WORD, condition_word(condition_id), _words([word(item) for item in index_sets])
    )
    return Call(adapter, selector("redeemPositions(address,bytes32,bytes32,uint256[])") + arguments)


def _partition(name: str, adapter: str, condition_id: str, amount: int) -> Call:
    parts = _words([word(item) for item in _BOTH])
    arguments = _arguments(_address(PUSD), ZERO_WORD, condition_word(condition_id), parts, word(amount))
    return Call(adapter, selector(f"{name}(address,bytes32,bytes32,uint256[],uint256)") + arguments)


def split_position(adapter: str, condition_id: str, amount: int) -> Call:
    """`amount` base units of pUSD into as many shares of both outcomes."""
    return _partition("splitPosition", adapter, condition_id, amount)


def merge_positions(adapter: str, condition_id: str, amount: int) -> Call:
    """The reverse of `split_position`."""
    return _partition("mergePositions", adapter, condition_id, amount)


# -- Protocol V2: PositionManager and Router --------------------------------------------------------------------------


def get_payout(manager: str, position_id: int, amount: int) -> Call:
    """Base units of pUSD for so many base units of a position. May revert while it is unresolved; 0 is a loss."""
    return Call(manager, selector("getPayout(uint256,uint256)") + word(position_id) + word(amount))


def router_redeem(router: str, condition_id: str, outcome_index: int, amount: int) -> Call:
    data = condition_31(condition_id) + word(outcome_index) + word(amount)
    return Call(router, selector("redeem(bytes31,uint256,uint256)") + data)


def router_split(router: str, condition_id: str, amount: int) -> Call:
    return Call(router, selector("split(bytes31,uint256)") + condition_31(condition_id) + word(amount))


def router_merge(router: str, condition_id: str, amount: int) -> Call:
    return Call(router, selector("merge(bytes31,uint256)") + condition_31(condition_id) + word(amount))


# -- wallets ----------------------------------------------------------------------------------------------------------


def proxy_batch(factory: str, calls: Sequence[Call]) -> Call:
    """Calls made by the proxy wallet of whoever sends this (type 1); the wallet is created where it is missing."""
    tuples = [_arguments(word(1), _address(call.to), word(call.value), _bytes(call.data)) for call in calls]
    return Call(factory, selector("proxy((uint8,address,uint256,bytes)[])") + _arguments(_tuples(tuples)))


def multi_send(contract: str, calls: Sequence[Call]) -> Call:
    """Calls that a Safe makes by delegating to `contract`: all of them, or it reverts."""
    packed = b"".join(
        b"\0" + address_bytes(call.to) + word(call.value) + word(len(call.data)) + call.data for call in calls
    )
    return Call(contract, selector("multiSend(bytes)") + _arguments(_bytes(packed)))


def exec_transaction(safe: str, call: Call, operation: int, signatures: bytes) -> Call:
    """A Safe's `execTransaction`, without a refund and with `safeTxGas` 0: an inner failure reverts the whole."""
    arguments = _arguments(
        _address(call.to),
        word(call.value),
        _bytes(call.data),
        word(operation),
        ZERO_WORD,
        ZERO_WORD,
        ZERO_WORD,
        ZERO_WORD,
        ZERO_WORD,
        _bytes(signatures),
    )
    signature = "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
    return Call(safe, selector(signature) + arguments)


def safe_nonce(safe: str) -> Call:
    return Call(safe, selector("nonce()"))


# -- answers ----------------------------------------------------------------------------------------------------------


def number_list(data: bytes) -> list[int]:
    """An answer that is one array of numbers. Raises ValueError where it is none."""
    words = [int.from_bytes(data[place : place + 32]) for place in range(0, len(data), 32)]
    if len(data) % 32 or len(words) < 2 or words[0] != 32 or words[1] != len(words) - 2:
        raise ValueError(f"{len(data)} bytes are no array of numbers")
    return words[2:]
