"""The quick signature is coincurve's, for any key and digest and from several threads; else coincurve signs."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from coincurve import PrivateKey, PublicKey, _libsecp256k1

from pmkit.exchanges.polymarket.secp256k1 import by_object, recoverable


def key_of(source: random.Random) -> PrivateKey:
    return PrivateKey.from_int(source.randrange(1, 1 << 255))


def test_the_direct_way_is_what_this_environment_uses() -> None:
    assert recoverable(key_of(random.Random(1))).__qualname__.startswith("_direct")


def test_keys_digests_and_threads_agree() -> None:
    source = random.Random(7)
    seen = set()
    for _ in range(8):
        key = key_of(source)
        digests = [source.randbytes(32) for _ in range(40)]
        expected = [by_object(key)(digest) for digest in digests]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(recoverable(key), digests)) == expected
        seen |= {signature[64] for signature in expected}
        recovery = bytes([expected[0][64] - 27])
        found = PublicKey.from_signature_and_message(expected[0][:64] + recovery, digests[0], hasher=None)
        assert found.format() == key.public_key.format()
    assert seen == {27, 28}


def test_what_is_no_digest_is_not_signed_and_no_key_is_shown() -> None:
    key = key_of(random.Random(3))
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes") as caught:
            recoverable(key)(wrong)
        frame = caught.traceback[-1].frame
        assert key.to_hex() not in repr(frame.f_locals) and repr(key.secret) not in repr(frame.f_locals)


@pytest.mark.parametrize("wrong", ["gone", "another", "cut"])
def test_what_is_not_as_expected_is_not_used(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    key = key_of(random.Random(5))
    if wrong == "gone":
        monkeypatch.delattr(_libsecp256k1, "lib")
        sign = recoverable(key)
    else:
        odd = (lambda digest: bytes(65)) if wrong == "another" else (lambda digest: by_object(key)(digest)[:64])
        sign = recoverable(key, lambda _: odd)
    monkeypatch.undo()
    assert sign.__qualname__.startswith("by_object")
    assert sign(bytes(32)) == by_object(key)(bytes(32))
