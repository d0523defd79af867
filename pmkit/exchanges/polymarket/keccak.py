"""keccak-256 as Ethereum means it (wire; not SHA3-256), by pycryptodome's C code.

Its Python object around a hash takes twice as long as the hash itself, and an order of a deposit wallet takes four. So
the C functions are called directly, where they are what this file knows and give what the object gives for every length
around a block; anything else, and the object is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from Crypto.Hash import keccak as _module
from Crypto.Util import _raw_api

_BYTES: Final = 32
_PADDING: Final = 0x01
_ROUNDS: Final = 24
_SAMPLE: Final = bytes(range(256)) * 2
_SIZES: Final = (0, 1, 135, 136, 137, 271, 272, 384)
"""Around one and two blocks of 136 bytes."""


def by_object(data: bytes) -> bytes:
    """The documented way."""
    return _module.new(digest_bits=8 * _BYTES, data=data).digest()


def _direct() -> Callable[[bytes], bytes]:
    inside: Any = _module
    library, ffi = inside._raw_keccak_lib, _raw_api.ffi
    init, absorb = library.keccak_init, library.keccak_absorb
    digest, destroy = library.keccak_digest, library.keccak_destroy
    new, text = ffi.new, ffi.buffer
    pointer, result = ffi.typeof("void *[1]"), ffi.typeof(f"uint8_t[{_BYTES}]")

    def hashed(data: bytes) -> bytes:
        # A state of its own each time: other threads run while the C code does.
        held, out = new(pointer), new(result)
        if init(held, 2 * _BYTES, _ROUNDS):
            raise MemoryError("no room for a hash")
        state = held[0]
        failed = absorb(state, data, len(data)) or digest(state, out, _BYTES, _PADDING)
        destroy(state)
        if failed:
            raise RuntimeError(f"keccak failed with {failed}")
        return bytes(text(out))

    return hashed


def choose(make: Callable[[], Callable[[bytes], bytes]] = _direct) -> Callable[[bytes], bytes]:
    """The direct way where it can be had and is right."""
    try:
        hashed = make()
        right = all(hashed(_SAMPLE[:size]) == by_object(_SAMPLE[:size]) for size in _SIZES)
    except Exception:  # whatever has changed in there: it is not ours
        return by_object
    return hashed if right else by_object


keccak: Final = choose()
