"""Hashes that orders and log-ins are signed over (wire): keccak-256, EIP-712 domains, struct hashes.

Type hashes and domain separators are computed once, from the type strings and contract addresses below; tests hold them
against the published constants. Sources: docs.polymarket.com/resources/contracts, docs.polymarket.com/v2-migration,
EIP-712, ERC-7739.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

from pmkit.errors import ConfigError, InvalidOrder
from pmkit.exchanges.polymarket.keccak import keccak

POLYGON: Final = 137
AMOY: Final = 80002

ZERO_WORD: Final = bytes(32)
ZERO_HEX: Final = "0x" + "0" * 64
_PREFIX: Final = b"\x19\x01"

ORDER_TYPE: Final = (
    b"Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,"
    b"uint8 side,uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)"
)
"""One struct for domain versions "2" and "3"; `timestamp` is in milliseconds, expiration is not part of it."""

_NESTED_TYPE: Final = (
    b"TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
    + ORDER_TYPE
)
_DOMAIN_TYPE: Final = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_LOGIN_DOMAIN_TYPE: Final = b"EIP712Domain(string name,string version,uint256 chainId)"
_LOGIN_TYPE: Final = b"ClobAuth(address address,string timestamp,uint256 nonce,string message)"
LOGIN_MESSAGE: Final = "This message attests that I control the given wallet"

_EXCHANGE_NAME: Final = b"Polymarket CTF Exchange"
_WALLET_NAME: Final = b"DepositWallet"

# Bits 40 to 103 of a Protocol V2 position id are zero; a CTF token id is a hash, where they are not.
_V2_ZERO_BITS: Final = ((1 << 64) - 1) << 40
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}").fullmatch
_WORD = re.compile(r"0x[0-9a-fA-F]{64}").fullmatch
_TOKEN = re.compile(r"[1-9][0-9]{0,77}").fullmatch


def word(number: int) -> bytes:
    """An unsigned integer as one ABI word of 32 bytes."""
    return number.to_bytes(32, "big")


def address_bytes(address: str) -> bytes:
    """The 20 bytes of a `0x...` address. Raises ConfigError where it is none, or where its mixed case does not add up.

    All lower and all upper case are taken; anything else has to be the EIP-55 checksum, which catches a wrong digit.
    """
    if not _ADDRESS(address):
        raise ConfigError(f"{ascii(address)[:60]} is no address: expected 0x and 40 hex digits")
    digits = address[2:]
    raw = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and checksum_address(raw) != address:
        raise ConfigError(f"address {address} has a wrong digit: its capital letters do not fit (EIP-55)")
    return raw


def checksum_address(raw: bytes) -> str:
    """20 bytes as `0x...` with the capital letters of EIP-55, as the venue's own clients write it."""
    digits = raw.hex()
    marks = keccak(digits.encode()).hex()
    return "0x" + "".join(char.upper() if mark > "7" else char for char, mark in zip(digits, marks, strict=False))


def address_word(raw: bytes) -> bytes:
    """20 bytes as one ABI word."""
    return bytes(12) + raw


def hex_word(text: str, name: str) -> bytes:
    """The 32 bytes of a `0x...` bytes32. Raises ConfigError naming it."""
    if not _WORD(text):
        raise ConfigError(f"{name} is {ascii(text)[:80]}: expected 0x and 64 hex digits")
    return bytes.fromhex(text[2:])


ORDER_TYPE_HASH: Final = keccak(ORDER_TYPE)
NESTED_TYPE_HASH: Final = keccak(_NESTED_TYPE)
DOMAIN_TYPE_HASH: Final = keccak(_DOMAIN_TYPE)
LOGIN_TYPE_HASH: Final = keccak(_LOGIN_TYPE)
LOGIN_DOMAIN_TYPE_HASH: Final = keccak(_LOGIN_DOMAIN_TYPE)
EXCHANGE_NAME_HASH: Final = keccak(_EXCHANGE_NAME)
WALLET_NAME_HASH: Final = keccak(_WALLET_NAME)
LOGIN_MESSAGE_HASH: Final = keccak(LOGIN_MESSAGE.encode())
ONE_HASH: Final = keccak(b"1")


class Exchange(NamedTuple):
    """The contract an order is signed for: EIP-712 domain version and separator, chain and address."""

    version: str
    chain_id: int
    contract: str
    separator: bytes


def domain_separator(version: str, chain_id: int, contract: str) -> bytes:
    """The separator of an order domain."""
    return keccak(
        DOMAIN_TYPE_HASH
        + EXCHANGE_NAME_HASH
        + keccak(version.encode())
        + word(chain_id)
        + address_word(address_bytes(contract))
    )


def _exchange(version: str, chain_id: int, contract: str) -> Exchange:
    return Exchange(version, chain_id, contract, domain_separator(version, chain_id, contract))


_CTF_V2: Final = "0xE111180000d2663C0091e4f400237545B87B996B"
_NEG_RISK_V2: Final = "0xe2222d279d744050d28e00520010520000310F59"
_V3: Final = {POLYGON: "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa", AMOY: "0x9fE6e61422AdB6F610d8597F9684b16912D50C3D"}

CTF_V2: Final = {chain: _exchange("2", chain, _CTF_V2) for chain in (POLYGON, AMOY)}
NEG_RISK_V2: Final = {chain: _exchange("2", chain, _NEG_RISK_V2) for chain in (POLYGON, AMOY)}
EXCHANGE_V3: Final = {chain: _exchange("3", chain, contract) for chain, contract in _V3.items()}


def token_number(token_id: str) -> int:
    """A token or position id as integer. Raises InvalidOrder where it is none."""
    if not _TOKEN(token_id) or (number := int(token_id)) >> 256:
        raise InvalidOrder(f"{ascii(token_id)[:90]} is no token id: expected a decimal number below 2^256")
    return number


def is_position_id(token_id: str) -> bool:
    """Whether the id is of Protocol V2 (domain version "3"), by its layout. Raises InvalidOrder where it is no id."""
    return not token_number(token_id) & _V2_ZERO_BITS


@lru_cache(maxsize=4096)
def exchange_for(token_id: str, neg_risk: bool, chain_id: int = POLYGON) -> Exchange:
    """Where orders in this token are settled, decided per token and not per server.

    Protocol V2 position ids have one exchange, whatever `neg_risk` says. Raises InvalidOrder for what is no token id,
    ConfigError for another chain.
    """
    if chain_id not in CTF_V2:
        raise ConfigError(f"chain {chain_id} is none of Polymarket's: {POLYGON} (Polygon) or {AMOY} (Amoy)")
    if is_position_id(token_id):
        return EXCHANGE_V3[chain_id]
    return (NEG_RISK_V2 if neg_risk else CTF_V2)[chain_id]


@lru_cache(maxsize=4096)
def token_word(token_id: str) -> bytes:
    """The id as one ABI word; remembered, since a bot trades few tokens."""
    return word(token_number(token_id))


def typed_digest(separator: bytes, struct_hash: bytes) -> bytes:
    """What is signed: keccak(0x1901 + domain separator + struct hash)."""
    return keccak(_PREFIX + separator + struct_hash)


@cache
def _nested_tail(chain_id: int, wallet: bytes) -> bytes:
    return WALLET_NAME_HASH + ONE_HASH + word(chain_id) + address_word(wallet) + ZERO_WORD


def nested_hash(contents: bytes, chain_id: int, wallet: bytes) -> bytes:
    """The ERC-7739 struct hash that wraps an order for its deposit wallet; signed in the exchange's own domain."""
    return keccak(NESTED_TYPE_HASH + contents + _nested_tail(chain_id, wallet))


@cache
def login_separator(chain_id: int) -> bytes:
    """The separator of the log-in domain; it has no contract."""
    return keccak(LOGIN_DOMAIN_TYPE_HASH + keccak(b"ClobAuthDomain") + ONE_HASH + word(chain_id))


def login_digest(address: bytes, timestamp_s: int, nonce: int, chain_id: int) -> bytes:
    """What an L1 log-in signs: the address, epoch seconds as text, the nonce and a fixed sentence."""
    struct_hash = keccak(
        LOGIN_TYPE_HASH + address_word(address) + keccak(str(timestamp_s).encode()) + word(nonce) + LOGIN_MESSAGE_HASH
    )
    return typed_digest(login_separator(chain_id), struct_hash)
