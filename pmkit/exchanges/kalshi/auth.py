"""Signing for Kalshi (wire): three headers per request, RSA-PSS or Ed25519, whichever the key is.

The message is `timestamp + METHOD + path`: milliseconds, upper case, the path of the URL from the root and byte for
byte as sent, without query. RSA keys sign with PSS, SHA-256, MGF1-SHA-256 and a salt of 32 bytes; Ed25519 keys (the web
app's default since October 2026) sign the same bytes plainly. Source: Kalshi, "API keys"; pinned by test vectors.

A key is loaded once and test-signed. No message here holds any part of a key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Final, NoReturn
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from pmkit.errors import ConfigError

SOCKET_PATH: Final = "/trade-api/ws/v2"
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_SHA256 = hashes.SHA256()
_HOW = "create an API key at kalshi.com (Account, API keys) and use the private key file it gives"
# It becomes a header: no blanks, no line ends.
_KEY_ID = re.compile(r"[A-Za-z0-9-]{8,64}").fullmatch


def path_of(url: str) -> str:
    """The path to sign for a URL: no host, no query, no fragment."""
    return urlsplit(url).path


def message(timestamp_ms: int, method: str, path: str) -> bytes:
    """The bytes that are signed. Raises ValueError for a path with a query or no leading slash, or odd stamps."""
    if not path.startswith("/") or "?" in path or "#" in path:
        raise ValueError(f"{path!r} cannot be signed: the bare path from the root is, without query")
    if not 1_000_000_000_000 <= timestamp_ms < 10_000_000_000_000:
        raise ValueError(f"{timestamp_ms} is no time in epoch milliseconds")
    return f"{timestamp_ms}{method.upper()}{path}".encode()


def load_key(pem: str | bytes) -> Callable[[bytes], bytes]:
    """The signing function of a private key in PEM (PKCS#1 or PKCS#8; RSA or Ed25519; literal \\n are line ends).

    Raises ConfigError that says what is wrong with the key, without any part of it.
    """
    data = _pem_bytes(pem)
    if b"-----BEGIN" not in data:
        _refuse("holds no PEM: it does not contain '-----BEGIN'")
    if b"PUBLIC KEY-----" in data or b"CERTIFICATE-----" in data:
        _refuse("is a public key or certificate, not the private key")
    key, problem = _parse(data)
    if problem:
        _refuse(problem)
    if isinstance(key, rsa.RSAPrivateKey):
        return _rsa(key)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        _refuse(f"is of the kind {type(key).__name__.lstrip('_')}: Kalshi takes RSA and Ed25519 keys")
    return key.sign


def _parse(data: bytes) -> tuple[object, str]:
    # The texts of cryptography's exceptions may quote what they were given, so none of them becomes a context of ours.
    try:
        return serialization.load_pem_private_key(data, password=None), ""
    except TypeError:
        return None, "is encrypted with a passphrase: store it without one (openssl pkey -in KEY -out PLAIN)"
    except (ValueError, UnsupportedAlgorithm):
        return None, "cannot be read as PEM: it is damaged, cut off, or encrypted"


def _rsa(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    if key.key_size < 2048:
        _refuse(f"is an RSA key of {key.key_size} bits: Kalshi's have 2048 or more")

    def sign(data: bytes) -> bytes:
        return key.sign(data, _PSS, _SHA256)

    fits = True
    try:
        key.public_key().verify(sign(b"pmkit"), b"pmkit", _PSS, _SHA256)
    except (InvalidSignature, ValueError):
        fits = False
    if not fits:
        _refuse("does not sign: its parts do not fit together")
    return sign


def _pem_bytes(pem: str | bytes) -> bytes:
    if not pem.strip():
        _refuse("is empty")
    text = pem.decode("utf-8", "replace") if isinstance(pem, bytes) else pem
    text = text.lstrip("\ufeff")
    if not text.isascii():
        _refuse("is no text: PEM begins with '-----BEGIN'")
    text = text.strip().strip("\"'").replace("\\r", "").replace("\\n", "\n").replace("\r\n", "\n").strip()
    return text.encode() + b"\n"


def _refuse(what: str) -> NoReturn:
    raise ConfigError(f"the Kalshi private key {what}; {_HOW}")


def _checked_id(key_id: str) -> str:
    text = key_id.strip()
    if not _KEY_ID(text):
        raise ConfigError("the Kalshi API key id is not one: expected a UUID such as the one shown beside the key")
    return text


class _Signer:
    """Key id and signing function; prints neither."""

    __slots__ = ("_key_id", "_sign")

    def __init__(self, key_id: str, sign: Callable[[bytes], bytes]) -> None:
        self._key_id = key_id
        self._sign = sign

    def _headers(self, method: str, path: str, timestamp_ms: int) -> dict[str, str]:
        signature = base64.b64encode(self._sign(message(timestamp_ms, method, path))).decode()
        return {
            "KALSHI-ACCESS-KEY": self._key_id,
            "KALSHI-ACCESS-TIMESTAMP": str(timestamp_ms),
            "KALSHI-ACCESS-SIGNATURE": signature,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ***>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled")


class Signer(_Signer):
    """Signs any request. For the live exchange; a dry-run never gets one."""

    __slots__ = ()

    @classmethod
    def from_key(cls, key_id: str, pem: str | bytes) -> Signer:
        """Raises ConfigError for a key id or a key that cannot be used."""
        return cls(_checked_id(key_id), load_key(pem))

    def headers(self, method: str, path: str, timestamp_ms: int) -> dict[str, str]:
        """The three headers of one attempt. `path` is the whole path of the URL, /trade-api/v2 included."""
        return self._headers(method, path, timestamp_ms)

    def handshake(self) -> HandshakeSigner:
        """What may be near a dry-run."""
        return HandshakeSigner(self._key_id, self._sign)


class HandshakeSigner(_Signer):
    """Signs GET of the socket path and refuses everything else: it cannot place an order."""

    __slots__ = ()

    @classmethod
    def from_key(cls, key_id: str, pem: str | bytes) -> HandshakeSigner:
        """Raises ConfigError for a key id or a key that cannot be used."""
        return cls(_checked_id(key_id), load_key(pem))

    def headers(self, method: str, path: str, timestamp_ms: int) -> dict[str, str]:
        """The three headers of one handshake. Raises ConfigError for anything but GET of `SOCKET_PATH`."""
        if method != "GET" or path != SOCKET_PATH:
            raise ConfigError(f"this signer signs GET {SOCKET_PATH} only, not {method} {path}: a dry-run cannot trade")
        return self._headers(method, path, timestamp_ms)
