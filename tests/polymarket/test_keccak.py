"""The quick hash is the documented one, also from several threads; where it cannot be had, that one is used."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from pmkit.exchanges.polymarket import keccak as module
from pmkit.exchanges.polymarket.keccak import by_object, choose, keccak


def test_known_answers() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


def test_the_direct_way_is_what_this_environment_uses() -> None:
    assert keccak is not by_object  # else pycryptodome has changed inside: orders are signed right, and slower


def test_all_lengths_and_threads_agree() -> None:
    source = random.Random(7)
    texts = [source.randbytes(size) for size in [*range(420), 1000, 5000]] * 3
    expected = [by_object(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(keccak, texts)) == expected


@pytest.mark.parametrize("wrong", ["gone", "another", "cut"])
def test_what_is_not_as_expected_is_not_used(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    if wrong == "gone":
        monkeypatch.delattr(module._module, "_raw_keccak_lib")
        assert choose() is by_object
    else:
        odd = (lambda data: bytes(32)) if wrong == "another" else (lambda data: by_object(data[:135]))
        assert choose(lambda: odd) is by_object


def test_a_hash_that_fails_leaves_nothing_behind() -> None:
    for wrong in (None, "abc", 7):
        with pytest.raises(TypeError):
            keccak(wrong)  # type: ignore[arg-type]
    assert keccak(b"abc") == by_object(b"abc")
