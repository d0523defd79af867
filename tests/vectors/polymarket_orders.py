"""Orders, log-ins, request signatures and wallets as Polymarket's official packages made them, with all inputs fixed.

The packages cut a size or an amount off after two decimals; pmkit refuses more, so the cut is made here. Rows with
`within_flat_market_caps: false` break a cap of the venue: of them the signature is checked, over the given amounts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pmkit.errors import InvalidOrder
from pmkit.exchanges.polymarket import amounts
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.eip712 import exchange_for, login_digest
from pmkit.exchanges.polymarket.order_plan import OrderPlan
from pmkit.exchanges.polymarket.orders import ORDER_PATH, OrderSigner
from pmkit.exchanges.polymarket.wallets import wallets_of
from pmkit.exchanges.types import Side, TimeInForce

SECTIONS = ("orders", "l1_auth", "l2_hmac", "wallet_addresses")
_TIMES = {"GTC": TimeInForce.GTC, "GTD": TimeInForce.GTD, "FAK": TimeInForce.IOC, "FOK": TimeInForce.FOK}
# Public keys of test chains that a file may name by number only.
_HARDHAT = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
)


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(content.get(name), list) for name in SECTIONS)


def check(content: dict[str, Any], path: Path) -> Iterator[tuple[str, str | None]]:
    signers = {signer.address.lower(): signer for signer in map(Signer, dict.fromkeys(keys_in(content)))}
    meta = content.get("meta", {}).get("api_credentials", {})
    checks: dict[str, Callable[[dict[str, Any]], str | None]] = {
        "orders": lambda row: order_problem(row, signers, meta),
        "l1_auth": login_problem,
        "l2_hmac": hmac_problem,
        "wallet_addresses": wallet_problem,
    }
    for section, problem in checks.items():
        for number, row in enumerate(content.get(section, ())):
            try:
                found = problem(row)
            except Exception as error:  # one odd row must not hide the others
                found = f"{type(error).__name__}: {error}"
            yield f"{section} {row.get('id', number) if isinstance(row, dict) else number}", found


def keys_in(content: Any) -> Iterator[str]:
    """Every text of 32 hex bytes that stands under a name with `key` in it, and the public test keys."""
    stack = [content]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for name, value in item.items():
                if "key" in name and isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{64}", value):
                    yield value
                else:
                    stack.append(value)
        elif isinstance(item, list):
            stack.extend(item)
    yield from _HARDHAT


def amounts_of(given: dict[str, Any], expected: dict[str, Any]) -> amounts.Amounts:
    side = Side(given["side"])
    tick = int(Decimal(given["tick_size"]) * 10_000)
    if given.get("within_flat_market_caps") is False:
        return amounts.Amounts(int(expected["maker_amount"]), int(expected["taker_amount"]))
    price = given["price"] if given["kind"] == "limit" else given["max_price" if side is Side.BUY else "min_price"]
    units = amounts.price_units(price, tick)
    if given["kind"] == "limit":
        size = amounts.floor_hundredths(Decimal(given["size"]))
        resting = given["order_type"] in ("GTC", "GTD")
        return (amounts.resting if resting else amounts.taking)(side, units, size)
    if side is Side.BUY:
        return amounts.spending(units, amounts.floor_hundredths(Decimal(given["amount"])), tick)
    return amounts.taking(side, units, amounts.floor_hundredths(Decimal(given["shares"])))


def order_problem(row: dict[str, Any], signers: dict[str, Signer], meta: dict[str, Any]) -> str | None:
    given, expected = row["inputs"], row["expected"]
    signer = signers.get(given["signer"].lower())
    if signer is None:
        return f"no key of {given['signer']} in the file"
    try:
        found = amounts_of(given, expected)
    except InvalidOrder as error:
        return f"refused: {error}"
    exchange = exchange_for(given["asset_id"], given["neg_risk"], given["chain_id"])
    domain = {"version": exchange.version, "chainId": exchange.chain_id, "verifyingContract": exchange.contract}
    credentials = Credentials(signer.address, meta["apiKey"], meta["secret"], meta["passphrase"])
    account = OrderSigner(
        signer,
        credentials.api_key,
        funder=given["funder"],
        signature_type=given["signature_type"],
        session_key=given["signer_type"] == "SESSION_KEY",
        builder=given["builder_code"],
    )
    plan = OrderPlan(
        token_id=given["asset_id"],
        exchange=exchange,
        side=Side(given["side"]),
        maker_amount=found.maker,
        taker_amount=found.taker,
        time_in_force=_TIMES[given["order_type"]],
        post_only=given["post_only"],
        expiration=given["expiration"] or 0,
    )
    signed = account.sign(plan, given["salt"], given["timestamp_ms"])
    body = json.loads(signed.body)
    text = expected["post_body_json"].encode()
    seconds = given["timestamp_ms"] // 1000
    return differences(
        domain=(domain, {name: expected["domain"][name] for name in domain}),
        path=(ORDER_PATH, expected["post_path"]),
        maker=(body["order"]["maker"], expected["maker"]),
        order_signer=(body["order"]["signer"], expected["order_signer"]),
        maker_amount=(body["order"]["makerAmount"], expected["maker_amount"]),
        taker_amount=(body["order"]["takerAmount"], expected["taker_amount"]),
        signature=(body["order"]["signature"], expected["signature"]),
        order_hash=(signed.order_id, expected["order_hash"]),
        body=(body, expected["post_body"]),
        # Exact bytes of numbers and texts, whatever order the file has its keys in.
        body_text=(sorted(signed.body), sorted(text)),
        l2_headers=(credentials.headers(seconds, "POST", ORDER_PATH, text), expected["l2_headers"]),
        own_headers=(
            signed.headers(credentials, seconds),
            credentials.headers(seconds, "POST", ORDER_PATH, signed.body),
        ),
    )


def login_problem(row: dict[str, Any]) -> str | None:
    given, headers = row["inputs"], row["expected"]["headers"]
    signer = Signer(given["private_key"])
    made = signer.login_headers(given["timestamp"], given["nonce"], given["chain_id"])
    digest = login_digest(signer.address_raw, given["timestamp"], given["nonce"], given["chain_id"])
    return differences(headers=(made, headers), signature=("0x" + signer.sign(digest).hex(), headers["POLY_SIGNATURE"]))


def hmac_problem(row: dict[str, Any]) -> str | None:
    given = row["inputs"]
    credentials = Credentials("0x" + "0" * 40, "key", given["secret"], "passphrase")
    made = credentials.signature(given["timestamp"], given["method"], given["path"], (given["body"] or "").encode())
    return differences(signature=(made, row["expected"]["signature"]))


def wallet_problem(row: dict[str, Any]) -> str | None:
    found = wallets_of(row["signer"])
    return differences(
        proxy=(found.proxy, row["poly_proxy"]),
        safe=(found.safe, row["gnosis_safe"]),
        beacon=(found.deposit_beacon, row["deposit_wallet_beacon"]),
        uups=(found.deposit_uups, row["deposit_wallet_uups"]),
    )


def differences(**pairs: tuple[Any, Any]) -> str | None:
    """What is not equal, by name: made against expected."""
    wrong = [f"{name} is {made!r}, expected {wanted!r}" for name, (made, wanted) in pairs.items() if made != wanted]
    return "; ".join(wrong) or None
