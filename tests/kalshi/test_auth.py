"""Signing: the official vectors, keys in every shape, and what a dry-run's signer refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa

from pmkit.errors import ConfigError
from pmkit.exchanges.kalshi.auth import SOCKET_PATH, HandshakeSigner, Signer, load_key, message, path_of

KEY_ID = "0f0e0d0c-0b0a-4000-8000-070605040302"
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


@pytest.fixture(scope="module")
def auth(recordings: Path) -> Path:
    return recordings / "kalshi" / "auth"


@pytest.fixture(scope="module")
def vectors(auth: Path) -> dict[str, Any]:
    return json.loads((auth / "signature_vectors.json").read_text())


@pytest.fixture(scope="module")
def rsa_public(auth: Path) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key((auth / "throwaway_rsa_public.pem").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def test_messages_are_the_official_ones(vectors: dict[str, Any]) -> None:
    assert len(vectors["verify"]) == 9
    for case in vectors["verify"]:
        made = message(case["timestamp_ms"], case["method"].lower(), path_of(case["url"]))
        assert made == case["message"].encode(), case["name"]


def test_official_rsa_signatures_verify_and_the_bad_ones_do_not(
    vectors: dict[str, Any], rsa_public: rsa.RSAPublicKey
) -> None:
    for case in vectors["verify"]:
        signature = base64.b64decode(case["rsa_pss_example_signature"], validate=True)
        rsa_public.verify(
            signature, message(case["timestamp_ms"], case["method"], path_of(case["url"])), PSS, hashes.SHA256()
        )
    assert len(vectors["must_fail"]) == 5
    for case in vectors["must_fail"]:
        with pytest.raises(InvalidSignature):
            rsa_public.verify(
                base64.b64decode(case["signature"]), case["must_not_verify_against"].encode(), PSS, hashes.SHA256()
            )


@pytest.mark.parametrize("file", ["throwaway_rsa_pkcs1.pem", "throwaway_rsa_pkcs8.pem"])
def test_rsa_signatures_of_ours_verify(
    file: str, auth: Path, vectors: dict[str, Any], rsa_public: rsa.RSAPublicKey
) -> None:
    signer = Signer.from_key(KEY_ID, (auth / file).read_text())
    for case in vectors["verify"]:
        headers = signer.headers(case["method"], path_of(case["url"]), case["timestamp_ms"])
        assert headers["KALSHI-ACCESS-KEY"] == KEY_ID
        assert headers["KALSHI-ACCESS-TIMESTAMP"] == str(case["timestamp_ms"])
        signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
        # Salt length 32 exactly: verifying with any other length fails.
        rsa_public.verify(signature, case["message"].encode(), PSS, hashes.SHA256())


def test_ed25519_signatures_are_the_official_ones(auth: Path, vectors: dict[str, Any]) -> None:
    signer = Signer.from_key(KEY_ID, (auth / "throwaway_ed25519_pkcs8.pem").read_bytes())
    for case in vectors["verify"]:
        headers = signer.headers(case["method"], path_of(case["url"]), case["timestamp_ms"])
        assert headers["KALSHI-ACCESS-SIGNATURE"] == case["ed25519_signature"], case["name"]


def pem_of(key: Any, form: Any = serialization.PrivateFormat.PKCS8, password: bytes | None = None) -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, how).decode()


@pytest.fixture(scope="module")
def small_key() -> str:
    return pem_of(ed25519.Ed25519PrivateKey.generate())


@pytest.mark.parametrize("shape", ["plain", "literal", "crlf", "quoted", "bytes", "bom", "blank"])
def test_keys_come_in_many_shapes(shape: str, small_key: str) -> None:
    pem: str | bytes = {
        "plain": small_key,
        "literal": small_key.replace("\n", "\\n"),
        "crlf": small_key.replace("\n", "\r\n"),
        "quoted": f'"{small_key.strip()}"',
        "bytes": small_key.encode(),
        "bom": "\ufeff" + small_key,
        "blank": f"\n  {small_key}  \n\n",
    }[shape]
    key = serialization.load_pem_private_key(small_key.encode(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    key.public_key().verify(load_key(pem)(b"text"), b"text")


def bad_keys() -> dict[str, str | bytes]:
    good = pem_of(rsa.generate_private_key(65537, 2048))
    elliptic = ec.generate_private_key(ec.SECP256R1())
    lines = good.splitlines()
    return {
        "empty": "   ",
        "no pem": "3f2b8c1e-secret-looking-text",
        "elliptic": pem_of(elliptic),
        "elliptic, old form": pem_of(elliptic, serialization.PrivateFormat.TraditionalOpenSSL),
        "ed448": pem_of(ed448.Ed448PrivateKey.generate()),
        "dsa": pem_of(dsa.generate_private_key(2048)),
        "encrypted": pem_of(elliptic, password=b"hunter2hunter2"),
        "small": pem_of(rsa.generate_private_key(65537, 1024)),
        "cut off": "\n".join(lines[: len(lines) // 2]),
        "one line lost": "\n".join(lines[:3] + lines[4:]),
        "public": elliptic.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        "der": elliptic.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }


def test_sx_05_bad_keys_are_told_apart_and_never_shown() -> None:
    said: set[str] = set()
    for name, pem in bad_keys().items():
        with pytest.raises(ConfigError) as caught:
            HandshakeSigner.from_key(KEY_ID, pem)
        text = str(caught.value)
        said.add(text)
        assert "Kalshi" in text, name
        assert caught.value.__context__ is None, f"{name}: what cryptography says may quote the key"
        body = pem.decode("latin-1") if isinstance(pem, bytes) else pem
        for line in body.splitlines():
            if len(line) > 12 and not line.startswith("-----"):
                assert line[:12] not in text, name
    assert len(said) >= 7


@pytest.mark.parametrize("key_id", ["", "short", "with blank in it", "line\r\nX-Evil: 1", "x" * 80, "käy-id-0000-1111"])
def test_key_ids_cannot_break_out_of_their_header(key_id: str, small_key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Signer.from_key(key_id, small_key)
    assert not key_id or key_id not in str(caught.value)


def test_oe_23_the_handshake_signer_signs_nothing_else(small_key: str) -> None:
    signer = HandshakeSigner.from_key(KEY_ID, small_key)
    assert set(signer.headers("GET", SOCKET_PATH, 1_795_185_604_000)) == {
        "KALSHI-ACCESS-KEY",
        "KALSHI-ACCESS-TIMESTAMP",
        "KALSHI-ACCESS-SIGNATURE",
    }
    for method, path in [
        ("POST", SOCKET_PATH),
        ("GET", "/trade-api/v2/portfolio/orders"),
        ("POST", "/trade-api/v2/portfolio/events/orders"),
        ("DELETE", "/trade-api/v2/portfolio/events/orders"),
        ("GET", SOCKET_PATH + "/"),
        ("get", SOCKET_PATH),
    ]:
        with pytest.raises(ConfigError, match="cannot trade"):
            signer.headers(method, path, 1_795_185_604_000)
    assert not hasattr(signer, "handshake")
    same = Signer.from_key(KEY_ID, small_key).handshake()
    with pytest.raises(ConfigError):
        same.headers("POST", "/trade-api/v2/portfolio/events/orders", 1_795_185_604_000)


def test_sx_02_a_signer_does_not_print_or_travel(small_key: str) -> None:
    import pickle

    for signer in (Signer.from_key(KEY_ID, small_key), HandshakeSigner.from_key(KEY_ID, small_key)):
        assert KEY_ID not in repr(signer)
        with pytest.raises(TypeError):
            pickle.dumps(signer)


def test_rs_06_the_query_is_not_signed(small_key: str) -> None:
    url = "https://external-api.kalshi.com/trade-api/v2/portfolio/orders?status=resting&limit=5"
    assert path_of(url) == "/trade-api/v2/portfolio/orders"
    assert urlsplit(url).query
    signer = Signer.from_key(KEY_ID, small_key)
    with pytest.raises(ValueError, match="without query"):
        signer.headers("GET", "/trade-api/v2/portfolio/orders?status=resting", 1_795_185_604_000)
    for stamp in (1_795_185_604, 1_795_185_604_000_000):
        with pytest.raises(ValueError, match="milliseconds"):
            signer.headers("GET", "/trade-api/v2/portfolio/orders", stamp)
