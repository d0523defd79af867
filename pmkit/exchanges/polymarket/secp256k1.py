"""Recoverable signatures (wire) by libsecp256k1, called as coincurve calls it.

Coincurve's Python around the call costs a third of an order's signature where a bot comes from other work. So the C
functions are called directly, where they are what this file knows and give what coincurve gives; else coincurve signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coincurve import PrivateKey

Sign = Callable[[bytes], bytes]

_V: Final = (b"\x1b", b"\x1c", b"\x1b", b"\x1c")
"""By recovery id. 2 and 3 need an r above the order of the curve, which nobody has ever seen."""

_SAMPLES: Final = tuple(bytes([number]) * 32 for number in range(1, 9))


def by_object(key: PrivateKey) -> Sign:
    """The documented way: 65 bytes r, s and v (27 or 28) of a digest of 32."""

    def sign(digest: bytes) -> bytes:
        signature = key.sign_recoverable(digest, hasher=None)
        return signature[:64] + _V[signature[64]]

    return sign


def _direct(key: PrivateKey) -> Sign:
    from coincurve import _libsecp256k1

    inside: Any = _libsecp256k1
    ffi, library = inside.ffi, inside.lib
    make = library.secp256k1_ecdsa_sign_recoverable
    write = library.secp256k1_ecdsa_recoverable_signature_serialize_compact
    new, text, none = ffi.new, ffi.buffer, ffi.NULL
    signature_kind = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
    compact_kind, recovery_kind = ffi.typeof("unsigned char[64]"), ffi.typeof("int *")
    context = key.context.ctx

    def sign(digest: bytes) -> bytes:
        if len(digest) != 32:
            raise ValueError("a digest has 32 bytes")
        signature, compact, recovery = new(signature_kind), new(compact_kind), new(recovery_kind)
        if not make(context, signature, digest, key.secret, none, none):
            raise RuntimeError("libsecp256k1 refused to sign")
        write(context, compact, recovery, signature)
        return bytes(text(compact)) + _V[recovery[0]]

    return sign


def recoverable(key: PrivateKey, make: Callable[[PrivateKey], Sign] = _direct) -> Sign:
    """The direct way where it can be had and signs as coincurve does."""
    slow = by_object(key)
    try:
        quick = make(key)
        right = all(quick(sample) == slow(sample) for sample in _SAMPLES)
    except Exception:  # whatever has changed in there: it is not ours
        return slow
    return quick if right else slow
