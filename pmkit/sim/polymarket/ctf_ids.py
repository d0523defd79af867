"""Token ids as the ConditionalTokens contract derives them, for windows that are on the local chain.

A collection is a point of alt_bn128 with the hash of condition and index set as the start of the search for its x
(reference: polymarket-markets-and-redeem.md, 4.3). The contract itself says so too, but a million times slower.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from pmkit.sim.polymarket.market import Window
from pmkit.sim.polymarket.signatures import address_bytes, keccak

ORACLE = "0x58e1745bEdda7312C4CDdb72618923da1B90EfDE"
USDCE = "0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174"
_FIELD = 0x30644E72E131A029B85045B68181585D97816A916871CA8D3C208C16D87CFD47


def condition_of(question: bytes) -> bytes:
    """The condition of a question with two outcomes."""
    return keccak(address_bytes(ORACLE) + question + (2).to_bytes(32))


def token_of(condition: bytes, outcome: int, collateral: str = USDCE) -> int:
    """The token id of an outcome, with that collateral behind it."""
    start = int.from_bytes(keccak(condition + (1 << outcome).to_bytes(32)))
    wants_odd = bool(start >> 255)
    x = start % _FIELD
    y = None
    while y is None:
        x = (x + 1) % _FIELD
        y = _root((pow(x, 3, _FIELD) + 3) % _FIELD)
    is_odd = bool(y % 2)
    if wants_odd != is_odd:
        is_odd = not is_odd  # the other root
    collection = x ^ (1 << 254) if is_odd else x
    return int.from_bytes(keccak(address_bytes(collateral) + collection.to_bytes(32)))


def _root(square: int) -> int | None:
    root = pow(square, (_FIELD + 1) >> 2, _FIELD)
    return root if root * root % _FIELD == square else None


@lru_cache(maxsize=8192)
def _ids(question: str) -> tuple[str, str, str]:
    condition = condition_of(bytes.fromhex(question[2:]))
    return "0x" + condition.hex(), str(token_of(condition, 0)), str(token_of(condition, 1))


def on_chain(window: Window) -> Window:
    """The window with the ids that a chain gives its question."""
    condition_id, up, down = _ids(window.question_id)
    return replace(window, condition_id=condition_id, tokens=(up, down))
