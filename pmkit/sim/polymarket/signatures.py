"""What an order and a login are signed over, and who signed them (reference: polymarket-trading.md, 2.1 to 2.4, 3.1).

The venue's own reading of the pages, pinned to the official vectors by the tests. Pure: bytes in, addresses out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

from coincurve import PublicKey
from Crypto.Hash import keccak as _keccak

CHAIN_ID = 137
ORDER_TYPE = (
    "Order(uint256 salt,address maker,address signer,uint256 tokenId,uint256 makerAmount,uint256 takerAmount,"
    "uint8 side,uint8 signatureType,uint256 timestamp,bytes32 metadata,bytes32 builder)"
)
CTF_EXCHANGE = "0xE111180000d2663C0091e4f400237545B87B996B"
NEG_RISK_EXCHANGE = "0xe2222d279d744050d28e00520010520000310F59"
EXCHANGE_V3 = "0xe3333700cA9d93003F00f0F71f8515005F6c00Aa"

_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_NESTED_TYPE = (
    "TypedDataSign(Order contents,string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
)
_LOGIN_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId)"
_LOGIN_TYPE = "ClobAuth(address address,string timestamp,uint256 nonce,string message)"
_LOGIN_MESSAGE = "This message attests that I control the given wallet"
_SESSION_SUFFIX = bytes.fromhex("6492") * 16
_POSITION_MASK = ((1 << 64) - 1) << 40
_WRAPPED = 65 + 32 + 32 + len(ORDER_TYPE) + 2
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def keccak(data: bytes) -> bytes:
    """Keccak-256, the one of Ethereum."""
    return _keccak.new(digest_bits=256, data=data).digest()


def checksummed(raw: bytes) -> str:
    """An address as text, with the capitals of EIP-55."""
    text = raw.hex()
    digest = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) > 7 else c for c, d in zip(text, digest, strict=False))


def address_bytes(text: str) -> bytes:
    """The 20 bytes of an address. Raises ValueError."""
    if len(text) != 42 or not text.startswith("0x"):
        raise ValueError(f"not an address: {text!r}")
    return bytes.fromhex(text[2:])


def address_of(public: PublicKey) -> str:
    """The address of a public key."""
    return checksummed(keccak(public.format(compressed=False)[1:])[12:])


def _word(number: int) -> bytes:
    return number.to_bytes(32)


def _address_word(text: str) -> bytes:
    return address_bytes(text).rjust(32, b"\0")


@lru_cache(maxsize=16)
def separator(version: str, exchange: str) -> bytes:
    """The EIP-712 domain separator of an exchange."""
    return keccak(
        keccak(_DOMAIN_TYPE.encode())
        + keccak(b"Polymarket CTF Exchange")
        + keccak(version.encode())
        + _word(CHAIN_ID)
        + _address_word(exchange)
    )


def is_position_id(token: str) -> bool:
    """Whether an asset id is one of Protocol V2 (1.4): then orders on it are signed for domain "3"."""
    return int(token) & _POSITION_MASK == 0


def separator_for(token: str, neg_risk: bool = False) -> bytes:
    """The domain that an order on this asset must be signed for."""
    if is_position_id(token):
        return separator("3", EXCHANGE_V3)
    return separator("2", NEG_RISK_EXCHANGE if neg_risk else CTF_EXCHANGE)


def spender_for(token: str, neg_risk: bool = False) -> str:
    """The exchange contract that moves this asset."""
    if is_position_id(token):
        return EXCHANGE_V3
    return NEG_RISK_EXCHANGE if neg_risk else CTF_EXCHANGE


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """The eleven signed fields and the signature, amounts in base units (1e-6)."""

    salt: int
    maker: str
    signer: str
    token: str
    maker_amount: int
    taker_amount: int
    side: int
    signature_type: int
    timestamp: int
    metadata: bytes
    builder: bytes
    signature: bytes

    def contents_hash(self) -> bytes:
        """The struct hash. Raises ValueError or OverflowError for fields that have no encoding."""
        return keccak(
            keccak(ORDER_TYPE.encode())
            + _word(self.salt)
            + _address_word(self.maker)
            + _address_word(self.signer)
            + _word(int(self.token))
            + _word(self.maker_amount)
            + _word(self.taker_amount)
            + _word(self.side)
            + _word(self.signature_type)
            + _word(self.timestamp)
            + self.metadata.rjust(32, b"\0")
            + self.builder.rjust(32, b"\0")
        )


def order_digest(domain: bytes, contents: bytes) -> bytes:
    """The plain digest; with 0x in front it is the order's id, for every wallet type."""
    return keccak(b"\x19\x01" + domain + contents)


def recover(digest: bytes, signature: bytes) -> str | None:
    """Who made a 65-byte signature r, s, v (27 or 28, low s), None where nobody can have made it."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64]) > _HALF_ORDER:
        return None
    try:
        public = PublicKey.from_signature_and_message(signature[:64] + bytes([signature[64] - 27]), digest, hasher=None)
    except Exception:  # coincurve raises a bare Exception for a point that is none
        return None
    return address_of(public)


def nested_digest(domain: bytes, contents: bytes, wallet: str) -> bytes:
    """What the owner of a deposit wallet signs (ERC-7739, 2.4)."""
    nested = keccak(
        keccak((_NESTED_TYPE + ORDER_TYPE).encode())
        + contents
        + keccak(b"DepositWallet")
        + keccak(b"1")
        + _word(CHAIN_ID)
        + _address_word(wallet)
        + bytes(32)
    )
    return keccak(b"\x19\x01" + domain + nested)


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed. `session` is the session key a deposit wallet's signature says it is made with, lower case."""

    by: str
    session: str | None = None


def order_signer(order: SignedOrder, domain: bytes) -> Signed | None:
    """Who signed an order for that domain; None where the signature has the wrong form for its type."""
    contents = order.contents_hash()
    if order.signature_type != 3:
        by = recover(order_digest(domain, contents), order.signature)
        return None if by is None else Signed(by)
    raw, session = order.signature, None
    if raw.endswith(_SESSION_SUFFIX):
        unpacked = _session(raw[: -len(_SESSION_SUFFIX)])
        if unpacked is None:
            return None
        session, raw = unpacked
    tail = domain + contents + ORDER_TYPE.encode() + len(ORDER_TYPE).to_bytes(2)
    if len(raw) != _WRAPPED or raw[65:] != tail:
        return None
    by = recover(nested_digest(domain, contents, order.maker), raw[:65])
    if by is None or (session is not None and session != by.lower()):
        return None
    return Signed(by, session)


def _session(raw: bytes) -> tuple[str, bytes] | None:
    """The session address and the inner bytes of abi.encode(bytes32, bytes32, bytes)."""
    if len(raw) < 128 or raw[:12] != bytes(12) or raw[32:64] != bytes(32) or raw[64:96] != _word(96):
        return None
    length = int.from_bytes(raw[96:128])
    inner = raw[128 : 128 + length]
    return ("0x" + raw[12:32].hex(), inner) if len(inner) == length else None


def login_digest(address: str, timestamp: str, nonce: int) -> bytes:
    """What an L1 login signs (2.1)."""
    domain = keccak(keccak(_LOGIN_DOMAIN_TYPE.encode()) + keccak(b"ClobAuthDomain") + keccak(b"1") + _word(CHAIN_ID))
    struct = keccak(
        keccak(_LOGIN_TYPE.encode())
        + _address_word(address)
        + keccak(timestamp.encode())
        + _word(nonce)
        + keccak(_LOGIN_MESSAGE.encode())
    )
    return keccak(b"\x19\x01" + domain + struct)


def hmac_text(secret: str, timestamp: str, method: str, path: str, body: bytes) -> str | None:
    """The L2 signature over the bytes as sent (2.2); None for a secret that is no base64."""
    try:
        key = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    except (binascii.Error, ValueError):
        return None
    made = hmac.new(key, f"{timestamp}{method.upper()}{path}".encode() + body, hashlib.sha256)
    return base64.urlsafe_b64encode(made.digest()).decode()
