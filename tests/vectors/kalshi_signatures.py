"""Kalshi signature vectors: the message, Ed25519 byte for byte, RSA-PSS by verifying (it is randomised).

The keys are PEM files beside the vectors, or beside the shared ones ($PMKIT_RECORDINGS) where there are none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from pmkit.exchanges.kalshi.auth import Signer, message, path_of
from tests.conftest import recordings_directory

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_KEY_ID = "0f0e0d0c-0b0a-4000-8000-070605040302"


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and any(
        isinstance(rows := content.get(name), list) and rows and isinstance(rows[0], dict) and field in rows[0]
        for name, field in (("verify", "ed25519_signature"), ("must_fail", "must_not_verify_against"))
    )


class Keys:
    """What the PEM files hold."""

    def __init__(self, directory: Path) -> None:
        self.public: rsa.RSAPublicKey | None = None
        self.public_ed25519: ed25519.Ed25519PublicKey | None = None
        self.rsa: list[Signer] = []
        self.ed25519: list[Signer] = []
        for path in sorted(directory.glob("*.pem")):
            data = path.read_bytes()
            if b"PUBLIC KEY" in data:
                public = serialization.load_pem_public_key(data)
                self.public = public if isinstance(public, rsa.RSAPublicKey) else self.public
                if isinstance(public, ed25519.Ed25519PublicKey):
                    self.public_ed25519 = public
                continue
            key = serialization.load_pem_private_key(data, None)
            if isinstance(key, ed25519.Ed25519PrivateKey):
                self.ed25519.append(Signer.from_key(_KEY_ID, data))
            elif isinstance(key, rsa.RSAPrivateKey):
                self.rsa.append(Signer.from_key(_KEY_ID, data))

    def verifies(self, signature: str, text: bytes) -> bool:
        """Whether it is a signature of the RSA key."""
        assert self.public is not None
        try:
            self.public.verify(base64.b64decode(signature, validate=True), text, _PSS, hashes.SHA256())
        except (InvalidSignature, binascii.Error):
            return False
        return True

    def verifies_ed25519(self, signature: str, text: bytes) -> bool:
        """Whether it is one of the Ed25519 key; not without such a key."""
        try:
            if self.public_ed25519 is not None:
                self.public_ed25519.verify(base64.b64decode(signature, validate=True), text)
                return True
        except (InvalidSignature, binascii.Error):
            pass
        return False


def check(content: dict[str, Any], path: Path) -> Iterator[tuple[str, str | None]]:
    beside = any(path.parent.glob("*.pem"))
    keys = Keys(path.parent if beside else recordings_directory() / "kalshi" / "auth")
    for section, problem in (("verify", verify_problem), ("must_fail", fail_problem)):
        for number, row in enumerate(content.get(section, ())):
            try:
                found = problem(row, keys)
            except Exception as error:  # one odd row must not hide the others
                found = f"{type(error).__name__}: {error}"
            yield f"{section} {row.get('name', number) if isinstance(row, dict) else number}", found


def verify_problem(row: dict[str, Any], keys: Keys) -> str | None:
    if keys.public is None or not keys.rsa or not keys.ed25519:
        return "a key is missing: RSA private and public and Ed25519 private are needed, as .pem beside the file"
    stamp, method, path = row["timestamp_ms"], row["method"], path_of(row["url"])
    text = message(stamp, method, path)
    if text != row["message"].encode():
        return f"message is {text!r}, expected {row['message']!r}"
    if not keys.verifies(row["rsa_pss_example_signature"], text):
        return "the official RSA signature does not verify"
    for signer in keys.rsa:
        if not keys.verifies(signer.headers(method, path, stamp)["KALSHI-ACCESS-SIGNATURE"], text):
            return "our RSA signature does not verify"
    for signer in keys.ed25519:
        headers = signer.headers(method, path, stamp)
        if keys.public_ed25519 is not None and not keys.verifies_ed25519(row["ed25519_signature"], text):
            return "the official Ed25519 signature does not verify"
        if headers["KALSHI-ACCESS-SIGNATURE"] != row["ed25519_signature"]:
            return f"Ed25519 signature is {headers['KALSHI-ACCESS-SIGNATURE']}, expected {row['ed25519_signature']}"
        if headers["KALSHI-ACCESS-TIMESTAMP"] != str(stamp):
            return f"time stamp is {headers['KALSHI-ACCESS-TIMESTAMP']}, expected {stamp}"
    return None


def fail_problem(row: dict[str, Any], keys: Keys) -> str | None:
    if keys.public is None:
        return "the RSA public key is missing: it is needed as .pem beside the file"
    text = row["must_not_verify_against"].encode()
    if keys.verifies(row["signature"], text) or keys.verifies_ed25519(row["signature"], text):
        return "a wrong signature verifies"
    return None
