"""Keys in every shape, headers over the exact bytes, and that none of it shows."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import ConfigError, ProtocolChanged
from pmkit.exchanges.polymarket.auth import Credentials, HandshakeSigner, Signer, read_credentials
from tests.polymarket.accounts import ADDRESS, API_KEY, KEY, PASSPHRASE, SECRET, credentials, signer


def test_official_log_ins_and_request_signatures(recordings: Path) -> None:
    content = json.loads((recordings / "polymarket" / "order_vectors.json").read_text())
    for row in content["l1_auth"]:
        inputs = row["inputs"]
        made = Signer(inputs["private_key"]).login_headers(inputs["timestamp"], inputs["nonce"], inputs["chain_id"])
        assert made == row["expected"]["headers"]
    for row in content["l2_hmac"]:
        inputs = row["inputs"]
        made_for = Credentials(ADDRESS, API_KEY, inputs["secret"], PASSPHRASE)
        body = (inputs["body"] or "").encode()
        assert (
            made_for.signature(inputs["timestamp"], inputs["method"].lower(), inputs["path"], body)
            == (row["expected"]["signature"])
        )


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY[2:],
        KEY.upper().replace("0X", "0x"),
        "0X" + KEY[2:].upper(),
        f'"{KEY}"',
        f"'{KEY}'",
        f"  {KEY}\n",
        f'" {KEY} "',
    ],
)
def test_sx_06_one_key_in_many_shapes(text: str) -> None:
    assert Signer(text).address == ADDRESS


BAD_KEYS = {
    "empty": "  ",
    "short": KEY[:-1],
    "long": KEY + "0",
    "address": ADDRESS,
    "letters": "0x" + "zz" * 32,
    "words": "test test test test test test test test test test test junk",
    "zero": "0x" + "0" * 64,
    "order of the curve": "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
    "pem": "-----BEGIN EC PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_sx_01_bad_keys_are_named_and_never_shown(name: str) -> None:
    text = BAD_KEYS[name]
    with pytest.raises(ConfigError, match="Polymarket private key") as caught:
        Signer(text)
    pieces = [text[at : at + 8] for at in range(0, max(len(text) - 8, 1), 4)]
    assert not [piece for piece in pieces if len(piece) == 8 and piece in str(caught.value)]
    assert caught.value.__context__ is None


def test_bad_keys_are_told_apart() -> None:
    said = set()
    for text in BAD_KEYS.values():
        with pytest.raises(ConfigError) as caught:
            Signer(text)
        said.add(str(caught.value))
    assert len(said) >= 6


@given(
    st.binary(min_size=1, max_size=150),
    st.integers(0, 10**10),
    st.sampled_from(["GET", "post", "DELETE"]),
    st.from_regex(r"/[a-z0-9/_.-]{0,40}", fullmatch=True),
    st.binary(max_size=300),
    st.booleans(),
)
def test_rs_06_the_bytes_sent_are_the_bytes_signed(
    secret: bytes, at: int, method: str, path: str, body: bytes, padded: bool
) -> None:
    text = base64.urlsafe_b64encode(secret).decode()
    made_for = Credentials(ADDRESS, API_KEY, text if padded else text.rstrip("="), PASSPHRASE)
    expected = hmac.new(secret, f"{at}{method.upper()}{path}".encode() + body, hashlib.sha256).digest()
    headers = made_for.headers(at, method, path, body)
    assert headers["POLY_SIGNATURE"] == base64.urlsafe_b64encode(expected).decode()
    # The keyed object is copied, not used up.
    assert made_for.headers(at, method, path, body) == headers


def test_an_apostrophe_in_the_body_is_signed_as_it_is() -> None:
    body = b'{"heartbeat_id":"it\'s"}'
    assert credentials().signature(1, "POST", "/v1/heartbeats", body) != credentials().signature(
        1, "POST", "/v1/heartbeats", body.replace(b"'", b'"')
    )


@pytest.mark.parametrize("path", ["/data/orders?market=1", "data/orders", "", "/a#b", "/a b", "/a\r\nX: 1", "/ü"])
def test_rs_06_paths_that_cannot_be_signed(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        credentials().headers(1, "GET", path)


@pytest.mark.parametrize(
    "parts",
    [
        ("", SECRET, PASSPHRASE),
        ("key with blank", SECRET, PASSPHRASE),
        (API_KEY + "\r\nX-Evil: 1", SECRET, PASSPHRASE),
        (API_KEY, "", PASSPHRASE),
        (API_KEY, "not+base64/url*", PASSPHRASE),
        (API_KEY, "abcde", PASSPHRASE),
        (API_KEY, SECRET, ""),
        (API_KEY, SECRET, "pass\nphrase-hidden"),
        (API_KEY, SECRET, "pässphrase-hidden"),
    ],
)
def test_sx_05_bad_credentials_are_named_and_never_shown(parts: tuple[str, str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials(ADDRESS, *parts)
    assert not [part for part in parts if part and part in str(caught.value)]
    with pytest.raises(ConfigError, match="address"):
        Credentials("0x12", API_KEY, SECRET, PASSPHRASE)


def test_credentials_come_from_the_venue() -> None:
    body = json.dumps({"apiKey": API_KEY, "secret": SECRET, "passphrase": PASSPHRASE, "more": 1}).encode()
    assert read_credentials(body, ADDRESS.lower()).reveal() == (API_KEY, SECRET, PASSPHRASE)
    assert read_credentials(body, ADDRESS.lower()).address == ADDRESS
    canary = "c2VjcmV0LWNhbmFyeQ"
    for wrong in (
        b"",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b"null",
        json.dumps({"apiKey": API_KEY, "secret": canary + "*", "passphrase": canary}).encode(),
        json.dumps({"apiKey": API_KEY, "secret": canary}).encode(),
        json.dumps({"apiKey": 7, "secret": canary, "passphrase": canary}).encode(),
    ):
        with pytest.raises(ProtocolChanged) as caught:
            read_credentials(wrong, ADDRESS)
        assert canary not in str(caught.value) and caught.value.__context__ is None


def every_slot(value: Any) -> list[str]:
    assert not hasattr(value, "__dict__")
    return [repr(value), str(value), f"{value}", repr([value])]


def test_sx_02_nothing_prints_or_travels() -> None:
    for value in (signer(), credentials(), credentials().handshake()):
        for shown in every_slot(value):
            for hidden in (KEY[2:20], SECRET[:12], PASSPHRASE):
                assert hidden not in shown
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="pickled"):
                pickle.dumps(value, protocol)
        with pytest.raises(TypeError):
            copy.deepcopy(value)
        with pytest.raises(TypeError):
            json.dumps(value)


def test_socket_log_ins() -> None:
    parts = {"apiKey": API_KEY, "secret": SECRET, "passphrase": PASSPHRASE}
    assert json.loads(credentials().user_login()) == {"auth": parts, "type": "user"}
    assert json.loads(credentials().user_login(["0x1"])) == {"auth": parts, "type": "user", "markets": ["0x1"]}
    expected = {"op": "auth", "rid": "1", "auth": parts}
    assert json.loads(credentials().price_login("1")) == expected
    assert json.loads(credentials().handshake().price_login("1")) == expected


def test_oe_23_the_handshake_signer_makes_no_headers() -> None:
    shake = credentials().handshake()
    assert isinstance(shake, HandshakeSigner)
    assert [name for name in dir(shake) if not name.startswith("_")] == ["price_login"]
