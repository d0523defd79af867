"""The Kalshi key: from a file or a variable to PEM text that is known to be usable."""

from __future__ import annotations

from pathlib import Path

from pmkit.config import values
from pmkit.config.dotenv import read_text
from pmkit.config.secret import Secret
from pmkit.errors import ConfigError

MIN_RSA_BITS = 2048


def read_pem(path: Path, name: str) -> Secret:
    """The PEM text in a key file. Raises ConfigError that names the variable, the path and the reason."""
    problem = ""
    try:
        return values.pem(read_text(path, f"{name}: the key file"))
    except values.Wrong as error:
        problem = str(error)
    raise ConfigError(f"{name}: {path}: {problem}")


def problem_of(pem: Secret) -> str | None:
    """Why Kalshi would not take this key; None when it is an RSA or Ed25519 private key (kalshi.md 2.2).

    Loads `cryptography`. The library's own messages are not passed on.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.reveal().encode(), password=None)
    except TypeError:
        return "expects a key without a passphrase; this one is encrypted"
    except (ValueError, UnsupportedAlgorithm):
        return "is not a readable PEM private key; copy the file anew from the page where the key was made"
    if isinstance(key, RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            return f"is an RSA key of {key.key_size} bits; Kalshi's keys have {MIN_RSA_BITS} or more"
        return None
    if isinstance(key, Ed25519PrivateKey):
        return None
    return f"is a key of another kind ({type(key).__name__.strip('_')}); Kalshi takes RSA and Ed25519"
