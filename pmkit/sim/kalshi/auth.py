"""The venue's side of signed requests: throwaway keys, and checking what clients send (kalshi.md, section 2).

A request is signed over `timestamp + METHOD + path`, where path is what was sent, from the root and without query. RSA
keys sign with PSS (SHA-256, MGF1-SHA-256, salt of 32 bytes), Ed25519 keys plainly. Pinned to the vectors by the tests.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from pmkit.clock import Clock
from pmkit.sim.kalshi.errors import unauthorized

PublicKey = ed25519.Ed25519PublicKey | rsa.RSAPublicKey

KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"

# FIX documents 30 s; measured over REST: 10 s passes, 60 s does not (2.3). Seconds of the wall.
TOLERANCE_SECONDS = 30.0
_SALT = 32


@dataclass(frozen=True, slots=True)
class VenueKey:
    """A key of this venue for bots and tests. Worth nothing anywhere else, but kept out of logs all the same."""

    id: str
    pem: str

    def __repr__(self) -> str:
        return f"VenueKey(id={self.id!r}, pem=***)"


class Keys:
    """The keys this venue knows, by id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, PublicKey] = {}

    def make(self, kind: str = "ed25519") -> VenueKey:
        """A new key of kind "ed25519" or "rsa" (PKCS#8 PEM), known to the venue from now on."""
        private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        if kind == "ed25519":
            private = ed25519.Ed25519PrivateKey.generate()
        elif kind == "rsa":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            raise ValueError(f"a key is of kind 'ed25519' or 'rsa', not {kind!r}")
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = VenueKey(self._clock.entropy.uuid4(), pem.decode())
        self._known[key.id] = private.public_key()
        return key

    def register(self, key_id: str, public: PublicKey) -> None:
        """Let a public key in under an id."""
        self._known[key_id] = public

    def forget(self, key_id: str) -> None:
        """Delete a key: its requests answer 401 from now on."""
        self._known.pop(key_id, None)

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The key id of a properly signed request; `path` without query, as sent. Raises Refused with a 401."""
        key_id = headers.get(KEY_HEADER, "")
        timestamp = headers.get(TIMESTAMP_HEADER, "")
        signature = headers.get(SIGNATURE_HEADER, "")
        if not (key_id and timestamp and signature):
            raise unauthorized("authentication_error", "missing authentication headers")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 18):
            raise unauthorized("header_timestamp_invalid", f"{TIMESTAMP_HEADER} is not a whole number of milliseconds")
        tolerance_ms = TOLERANCE_SECONDS * 1000 * self._clock.factor
        if abs(int(timestamp) - self._clock.now_ms()) > tolerance_ms:
            raise unauthorized("header_timestamp_expired", "the timestamp is too far from the time of the exchange")
        public = self._known.get(key_id)
        if public is None:
            raise unauthorized("authentication_error", "rpc error: code = Unauthenticated desc = NOT_FOUND")
        if not verify(public, f"{timestamp}{method.upper()}{path}", signature):
            raise unauthorized(
                "authentication_error", "rpc error: code = Unauthenticated desc = INCORRECT_API_KEY_SIGNATURE"
            )
        return key_id


def verify(public: PublicKey, message: str, signature: str) -> bool:
    """Whether `signature` (standard base64) is that key's for the message."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    try:
        if isinstance(public, rsa.RSAPublicKey):
            scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT)
            public.verify(raw, message.encode(), scheme, hashes.SHA256())
        else:
            public.verify(raw, message.encode())
    except InvalidSignature:
        return False
    return True
