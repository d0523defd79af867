"""Signing for Polymarket (wire): the wallet key (L1 log-in, orders), the API credentials (L2 headers, socket log-ins).

L1 is an EIP-712 signature of the key's own address, used only to make or fetch API credentials. L2 is an HMAC-SHA256
over `seconds + METHOD + path + body`, path without query, body the exact bytes that are sent. Source:
docs.polymarket.com/api-reference/authentication; pinned by test vectors.

Nothing here prints, pickles or raises any part of a key, secret or passphrase.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NoReturn, final

import msgspec
from coincurve import PrivateKey

from pmkit.errors import ConfigError, ProtocolChanged
from pmkit.exchanges.polymarket.eip712 import (
    POLYGON,
    address_bytes,
    checksum_address,
    login_digest,
)
from pmkit.exchanges.polymarket.keccak import keccak
from pmkit.exchanges.polymarket.secp256k1 import Sign, recoverable

_ORDER_OF_CURVE: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_KEY = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_SECRET = re.compile(r"[A-Za-z0-9_-]+={0,2}").fullmatch
# These become header values: printable ASCII, no blanks, no line ends.
_HEADER = re.compile(r"[!-~]{1,200}").fullmatch
_PATH = re.compile(r"/[!-~]*").fullmatch


# base64 as URLs write it; `base64.urlsafe_b64encode` makes this table at every call.
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


@lru_cache(maxsize=64)
def _target(method: str, path: str) -> bytes:
    if not _PATH(path) or "?" in path or "#" in path:
        raise ValueError(f"{ascii(path)[:200]} cannot be signed: the bare path from the root is, without query")
    return f"{method.upper()}{path}".encode()


class Hidden:
    """What is inside never shows, travels or is compared."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ***>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled")


@final
class Signer(Hidden):
    """The private key of an account: makes L1 log-ins and signs order digests. A dry-run never gets one.

    `address` is the key's own (EOA) address, checksummed; `address_raw` its 20 bytes. `sign(digest)` gives 65 bytes r,
    s, v of a 32-byte digest: deterministic (RFC 6979), low s, v 27 or 28.
    """

    __slots__ = ("address", "address_raw", "sign")

    address: str
    address_raw: bytes
    sign: Sign

    def __init__(self, private_key: str) -> None:
        """`private_key`: 64 hex digits; `0x`, quotes and blanks around it are taken off.

        Raises ConfigError that says what is wrong with it, without any part of it.
        """
        text = private_key.strip().strip("\"'").strip()
        text = text[2:] if text[:2] in ("0x", "0X") else text
        if not _KEY(text):
            _refuse_key(text)
        number = int(text, 16)
        if not 0 < number < _ORDER_OF_CURVE:
            raise ConfigError("the Polymarket private key is out of range: it is not a key of this kind")
        key = PrivateKey.from_int(number)
        self.sign = recoverable(key)
        self.address_raw = keccak(key.public_key.format(compressed=False)[1:])[-20:]
        self.address = checksum_address(self.address_raw)

    def login_headers(self, timestamp_s: int, nonce: int = 0, chain_id: int = POLYGON) -> dict[str, str]:
        """The four L1 headers of /auth/api-key and /auth/derive-api-key. The address is always the key's own."""
        signature = self.sign(login_digest(self.address_raw, timestamp_s, nonce, chain_id))
        return {
            "POLY_ADDRESS": self.address,
            "POLY_SIGNATURE": "0x" + signature.hex(),
            "POLY_TIMESTAMP": str(timestamp_s),
            "POLY_NONCE": str(nonce),
        }


@final
class Credentials(Hidden):
    """API credentials of one key: L2 headers and socket log-ins. `api_key` is the `owner` of its orders."""

    __slots__ = ("__mac", "__passphrase", "__secret", "address", "api_key")

    address: str
    api_key: str

    def __init__(self, address: str, api_key: str, secret: str, passphrase: str) -> None:
        """`address`: the key's own address. Raises ConfigError that names the part that cannot be one."""
        for name, value in (("API key", api_key), ("API passphrase", passphrase)):
            if not _HEADER(value):
                raise ConfigError(f"the Polymarket {name} is not one: copy all three parts anew, or leave them out")
        self.__mac = hmac.new(secret_bytes(secret), digestmod=hashlib.sha256)  # copied for each signature
        self.__secret = secret
        self.__passphrase = passphrase
        self.address = checksum_address(address_bytes(address))
        self.api_key = api_key

    def signature(self, timestamp_s: int, method: str, path: str, body: bytes = b"") -> str:
        """The L2 signature, URL-safe base64 with its padding. An empty body and none are the same to the venue.

        Raises ValueError for a path with a query: the venue signs without it.
        """
        mac = self.__mac.copy()
        mac.update(b"%d%b%b" % (timestamp_s, _target(method, path), body))
        return b2a_base64(mac.digest(), newline=False).translate(_URL_SAFE).decode()

    def headers(self, timestamp_s: int, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """The five L2 headers of one attempt (epoch seconds). `body`: exactly the bytes that will be sent."""
        return {
            "POLY_ADDRESS": self.address,
            "POLY_API_KEY": self.api_key,
            "POLY_PASSPHRASE": self.__passphrase,
            "POLY_TIMESTAMP": str(timestamp_s),
            "POLY_SIGNATURE": self.signature(timestamp_s, method, path, body),
        }

    def user_login(self, markets: Sequence[str] = ()) -> str:
        """The first frame of the user channel. `markets` are condition ids; none: all of the account."""
        frame: dict[str, object] = {"auth": self._parts(), "type": "user"}
        if markets:
            frame["markets"] = list(markets)
        return msgspec.json.encode(frame).decode()

    def price_login(self, rid: str) -> str:
        """The first frame of the live-price socket; the answer's op is `authed`."""
        return self.handshake().price_login(rid)

    def handshake(self) -> HandshakeSigner:
        """What may be near a dry-run."""
        return HandshakeSigner(self.api_key, self.__secret, self.__passphrase)

    def reveal(self) -> tuple[str, str, str]:
        """API key, secret and passphrase, for the log's redactor. Keep them out of attributes, messages and logs."""
        return self.api_key, self.__secret, self.__passphrase

    def _parts(self) -> dict[str, str]:
        return {"apiKey": self.api_key, "secret": self.__secret, "passphrase": self.__passphrase}


@final
class HandshakeSigner(Hidden):
    """Logs in to the live prices and does nothing else: it makes no headers, so it cannot trade."""

    __slots__ = ("__parts",)

    def __init__(self, api_key: str, secret: str, passphrase: str) -> None:
        self.__parts = {"apiKey": api_key, "secret": secret, "passphrase": passphrase}

    def price_login(self, rid: str) -> str:
        """The first frame of the live-price socket; the answer's op is `authed`."""
        return msgspec.json.encode({"op": "auth", "rid": rid, "auth": self.__parts}).decode()


class _ApiKeyAnswer(msgspec.Struct, frozen=True, rename="camel"):
    api_key: str
    secret: str
    passphrase: str

    def __repr__(self) -> str:
        return "<_ApiKeyAnswer ***>"


def read_credentials(body: bytes, address: str) -> Credentials:
    """The answer of /auth/api-key and /auth/derive-api-key. Raises ProtocolChanged where it is not one, unquoted."""
    try:
        answer = msgspec.json.decode(body, type=_ApiKeyAnswer)
        return Credentials(address, answer.api_key, answer.secret, answer.passphrase)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError):
        problem = "Polymarket answered something else than API credentials"
    # Outside of the handler: what was raised there may quote the answer, and becomes no context of ours.
    raise ProtocolChanged(
        f"{problem} ({len(body)} bytes): update pmkit, or set POLYMARKET_API_KEY, _SECRET and _PASSPHRASE"
    )


def secret_bytes(secret: str) -> bytes:
    if not _SECRET(secret) or len(secret.rstrip("=")) % 4 == 1:
        raise ConfigError("the Polymarket API secret is not one: expected URL-safe base64; copy all three parts anew")
    return base64.urlsafe_b64decode(secret.rstrip("=") + "=" * (-len(secret.rstrip("=")) % 4))


def _refuse_key(text: str) -> NoReturn:
    if not text:
        what = "is empty"
    elif len(text.split()) in (12, 15, 18, 21, 24):
        what = "is a seed phrase: export the private key of one account from the wallet instead"
    elif re.fullmatch(r"[0-9a-fA-F]{40}", text):
        what = "is an address: the private key has 64 hex digits"
    elif not re.fullmatch(r"[0-9a-fA-F]+", text):
        what = "holds characters that are no hex digits (0-9, a-f)"
    else:
        what = f"has {len(text)} hex digits instead of 64"
    raise ConfigError(f"the Polymarket private key {what}")
