"""Logins and request signatures of the local Polymarket, against the official vectors and over HTTP."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pmkit.sim.polymarket.signatures import (
    SignedOrder,
    hmac_text,
    keccak,
    login_digest,
    order_digest,
    order_signer,
    recover,
    separator_for,
)
from pmkit.sim.polymarket.wallets import deposit_of, proxy_of, safe_of
from tests.sim.polymarket_client import Bench
from tests.sim.polymarket_trader import Trader


@pytest.fixture(scope="module")
def vectors(recordings: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((recordings / "polymarket" / "order_vectors.json").read_text())
    return data


def signed(body: dict[str, Any]) -> SignedOrder:
    order = body["order"]
    return SignedOrder(
        salt=order["salt"],
        maker=order["maker"],
        signer=order["signer"],
        token=order["tokenId"],
        maker_amount=int(order["makerAmount"]),
        taker_amount=int(order["takerAmount"]),
        side=("BUY", "SELL").index(order["side"]),
        signature_type=order["signatureType"],
        timestamp=int(order["timestamp"]),
        metadata=bytes.fromhex(order["metadata"][2:]),
        builder=bytes.fromhex(order["builder"][2:]),
        signature=bytes.fromhex(order["signature"][2:]),
    )


def test_every_official_order_is_hashed_and_its_signer_found(vectors: dict[str, Any]) -> None:
    kinds = set()
    for row in vectors["orders"]:
        order = signed(row["expected"]["post_body"])
        domain = separator_for(order.token, row["inputs"]["neg_risk"])
        assert f"0x{order_digest(domain, order.contents_hash()).hex()}" == row["expected"]["order_hash"], row["id"]
        found = order_signer(order, domain)
        assert found is not None, row["id"]
        assert found.by == row["inputs"]["signer"]
        assert (found.session is not None) == (row["inputs"]["wallet_kind"] == "SESSION")
        kinds.add(row["inputs"]["wallet_kind"])
    assert len(kinds) == 6


def test_a_changed_order_has_another_signer(vectors: dict[str, Any]) -> None:
    for row in vectors["orders"]:
        body = json.loads(json.dumps(row["expected"]["post_body"]))
        body["order"]["takerAmount"] = str(int(body["order"]["takerAmount"]) + 1)
        order = signed(body)
        found = order_signer(order, separator_for(order.token, row["inputs"]["neg_risk"]))
        assert found is None or found.by != row["inputs"]["signer"]


def test_official_logins_headers_and_wallets(vectors: dict[str, Any]) -> None:
    for row in vectors["l1_auth"]:
        headers = row["expected"]["headers"]
        if row["inputs"]["chain_id"] == 137:
            digest = login_digest(headers["POLY_ADDRESS"], headers["POLY_TIMESTAMP"], int(headers["POLY_NONCE"]))
            assert recover(digest, bytes.fromhex(headers["POLY_SIGNATURE"][2:])) == headers["POLY_ADDRESS"]
    for row in vectors["l2_hmac"]:
        given = row["inputs"]
        body = (given["body"] or "").encode()
        made = hmac_text(given["secret"], str(given["timestamp"]), given["method"], given["path"], body)
        assert made == row["expected"]["signature"]
    for row in vectors["wallet_addresses"]:
        owner = row["signer"]
        assert proxy_of(owner) == row["poly_proxy"]
        assert safe_of(owner) == row["gnosis_safe"]
        assert deposit_of(owner) == row["deposit_wallet_beacon"]
        assert deposit_of(owner, beacon=False) == row["deposit_wallet_uups"]


def test_signatures_of_the_wrong_form_have_no_signer() -> None:
    digest = keccak(b"x")
    assert recover(digest, b"") is None
    assert recover(digest, bytes(64) + b"\x1b") is None
    assert recover(digest, bytes(65)) is None
    assert recover(digest, b"\x01" * 32 + b"\xff" * 32 + b"\x1b") is None  # high s


async def test_keys_are_made_once_and_derived(still: Bench) -> None:
    trader = Trader(still)
    base = still.venue.endpoints().clob

    async def login(method: str, path: str, nonce: int, **changed: str) -> tuple[int, Any]:
        async with still.http.request(method, base + path, headers=trader.login(nonce, **changed)) as response:
            return response.status, await response.json()

    assert await login("POST", "/auth/api-key", 0) == (400, {"error": "Could not create api key"})
    assert await login("GET", "/auth/derive-api-key", 0) == (200, trader.test.api_key.json())
    assert await login("GET", "/auth/derive-api-key", 5) == (400, {"error": "Could not derive api key!"})
    status, made = await login("POST", "/auth/api-key", 5)
    assert (status, set(made)) == (200, {"apiKey", "secret", "passphrase"})
    assert await login("GET", "/auth/derive-api-key", 5) == (200, made)
    refused = (401, {"error": "Invalid L1 Request headers"})
    assert await login("GET", "/auth/derive-api-key", 0, POLY_TIMESTAMP="1") == refused
    assert await login("GET", "/auth/derive-api-key", 0, POLY_ADDRESS=Trader(still, 1).test.address) == refused
    assert await login("GET", "/auth/derive-api-key", 0, POLY_SIGNATURE="0x12") == refused
    assert await login("GET", "/auth/derive-api-key", 0, POLY_NONCE="1") == refused


async def test_requests_are_signed_over_the_exact_bytes(still: Bench) -> None:
    trader = Trader(still)
    refused = (401, {"error": "Unauthorized/Invalid api key"})
    assert await trader.ask("GET", "/auth/api-keys") == (200, {"apiKeys": [trader.test.api_key.key]})
    assert await trader.ask("GET", "/auth/ban-status/closed-only") == (200, {"closed_only": False})
    url = still.venue.endpoints().clob + "/order"
    for change in (
        {"POLY_API_KEY": "x"},
        {"POLY_PASSPHRASE": "x"},
        {"POLY_ADDRESS": Trader(still, 1).test.address},
        {"POLY_TIMESTAMP": str(still.clock.now_ms() // 1000 - 60)},
        {"POLY_SIGNATURE": ""},
    ):
        async with still.http.get(
            still.venue.endpoints().clob + "/data/orders", headers=trader.headers("GET", "/data/orders") | change
        ) as response:
            assert (response.status, await response.json()) == refused
    # The same JSON in other bytes is another body.
    body = b'{"orderID": "0x12"}'
    async with still.http.delete(
        url, data=b'{"orderID":"0x12"}', headers=trader.headers("DELETE", "/order", body)
    ) as r:
        assert r.status == 401
    async with still.http.delete(url, data=body, headers=trader.headers("DELETE", "/order", body)) as r:
        assert (r.status, await r.json()) == (
            200,
            {"canceled": [], "not_canceled": {"0x12": "Order not found or already canceled"}},
        )


async def test_a_deleted_key_and_a_read_only_key(still: Bench) -> None:
    trader = Trader(still, 1)
    status, read_only = await trader.ask("POST", "/auth/readonly-api-key")
    assert status == 200
    assert await trader.ask("GET", "/auth/readonly-api-keys") == (200, {"readonlyApiKeys": [read_only["apiKey"]]})
    reading = next(key for key in still.venue.keys.of(trader.test.address, read_only=True))
    original, trader.test = trader.test, _with_key(trader, reading)
    assert (await trader.ask("GET", "/data/orders"))[0] == 200
    assert (await trader.ask("DELETE", "/cancel-all"))[0] == 401
    trader.test = original
    assert await trader.ask("DELETE", "/auth/api-key") == (200, "OK")
    assert (await trader.ask("GET", "/data/orders"))[0] == 401


def _with_key(trader: Trader, key: Any) -> Any:
    return dataclasses.replace(trader.test, api_key=key)


def test_credentials_do_not_print(still: Bench) -> None:
    account = still.venue.test_accounts[0]
    shown = repr(account) + repr(account.api_key)
    for secret in (account.private_key, account.api_key.secret, account.api_key.passphrase):
        assert secret not in shown
        assert secret[2:] not in shown
