"""Ids of V1 outcome shares, from the condition (wire): which outcome of the chain a token id is.

The ConditionalTokens contract names a collection by a point of the curve alt_bn128 (y^2 = x^3 + 3), found from a hash.
Source: CTHelpers.sol of conditional-tokens-contracts 1.0.3; tests hold it against the contract and real markets.
"""

from __future__ import annotations

from typing import Final

from pmkit.exchanges.polymarket.calldata import condition_word
from pmkit.exchanges.polymarket.eip712 import address_bytes, word
from pmkit.exchanges.polymarket.keccak import keccak

USDC_E: Final = "0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174"
"""The collateral of V1 positions; the adapter turns it into pUSD."""
WRAPPED_COLLATERAL: Final = "0x3A3BD7bb9528E159577F7C2e685CC81A765002E2"
"""That of neg-risk markets. Where it does not fit, the venue's order of outcomes holds (it is not published)."""

_P: Final = 21888242871839275222246405745257275088696311157297823662689037894645226208583
_ODD: Final = 1 << 254


def collection_id(condition_id: str, index_set: int) -> int:
    """The collection of one index set of a condition, without a parent."""
    x = int.from_bytes(keccak(condition_word(condition_id) + word(index_set)))
    odd = x >> 255
    while True:
        x = (x + 1) % _P
        square = (x * x * x + 3) % _P
        y = pow(square, (_P + 1) // 4, _P)
        if y * y % _P == square:
            break
    if odd != y & 1:
        y = _P - y
    return x ^ _ODD if y & 1 else x


def position_id(condition_id: str, outcome_index: int, collateral: str = USDC_E) -> int:
    """The token id of an outcome (0 or 1)."""
    collection = collection_id(condition_id, 1 << outcome_index)
    return int.from_bytes(keccak(address_bytes(collateral) + word(collection)))


def outcome_indexes(condition_id: str, token_ids: tuple[str, ...], neg_risk: bool) -> tuple[int, ...] | None:
    """Which outcome of the chain each token of a V1 market is; None where they are not of this condition."""
    collateral = WRAPPED_COLLATERAL if neg_risk else USDC_E
    own = {str(position_id(condition_id, index, collateral)): index for index in range(2)}
    if set(token_ids) != set(own):
        return None
    return tuple(own[token] for token in token_ids)
