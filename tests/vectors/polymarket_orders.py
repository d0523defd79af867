"""Orders, batches, log-ins, request signatures and wallets as Polymarket's official packages made them, with all inputs
fixed.

The packages cut a size or an amount off after two decimals; pmkit refuses more, so the cut is made here. Orders that
only take and break the venue's caps on decimals (`within_flat_market_caps: false` says so of some) are made by the
packages and refused by pmkit: of them the signature is checked, over amounts that are worked out as the packages do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pmkit.exchanges.polymarket import amounts
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.eip712 import exchange_for, login_digest
from pmkit.exchanges.polymarket.order_plan import OrderPlan
from pmkit.exchanges.polymarket.orders import ORDER_PATH, ORDERS_PATH, OrderSigner, SignedOrder, batch_body
from pmkit.exchanges.polymarket.wallets import wallets_of
from pmkit.exchanges.types import Side, TimeInForce

SECTIONS = ("orders", "batches", "l1_auth", "l2_hmac", "wallet_addresses")
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
    known = {row["id"]: row for row in content.get("orders", ()) if isinstance(row, dict) and "id" in row}
    checks: dict[str, Callable[[dict[str, Any]], str | None]] = {
        "orders": lambda row: order_problem(row, signers, meta),
        "batches": lambda row: batch_problem(row, known, signers, meta),
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
    for section, rows in content.items():
        if section not in checks and isinstance(rows, list) and rows:
            yield section, f"{len(rows)} rows of a kind that is not known here: {', '.join(checks)} are"


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
    units = amounts.price_units(Decimal(price_of(given)), tick)
    resting = given["order_type"] in ("GTC", "GTD")
    money = side is Side.BUY and given["kind"] == "market"
    size = amounts.floor_hundredths(Decimal(given["amount" if money else "size" if "size" in given else "shares"]))
    wanted = amounts.Amounts(int(expected["maker_amount"]), int(expected["taker_amount"]))
    if not resting and beyond_caps(side, wanted):
        if money:
            step = 10 ** (6 - amounts.amount_decimals(tick))
            return amounts.Amounts(size * 10_000, size * 10_000 * 10_000 // units // step * step)
        dollars, shares = units * size, size * 10_000
        return amounts.Amounts(dollars, shares) if side is Side.BUY else amounts.Amounts(shares, dollars)
    if money:
        return amounts.spending(units, size, tick)
    return (amounts.resting if resting else amounts.taking)(side, units, size)


def price_of(given: dict[str, Any]) -> str:
    """The limit: a market order's worst price."""
    names = ("price", "max_price", "min_price", "worst_price")
    return next(str(given[name]) for name in names if given.get(name) is not None)


def beyond_caps(side: Side, wanted: amounts.Amounts) -> bool:
    """BUY: dollars to the cent, shares to four decimals; SELL: dollars to four."""
    if side is Side.BUY:
        return bool(wanted.maker % 10_000 or wanted.taker % 100)
    return bool(wanted.taker % 100)


def signed_of(
    given: dict[str, Any], expected: dict[str, Any], signers: dict[str, Signer], meta: dict[str, Any]
) -> tuple[SignedOrder, Credentials]:
    """The order as pmkit makes it. Raises InvalidOrder, KeyError for a key that is not in the file."""
    found = amounts_of(given, expected)
    signer = signers[given["signer"].lower()]
    credentials = Credentials(signer.address, meta["apiKey"], meta["secret"], meta["passphrase"])
    account = OrderSigner(
        signer,
        credentials.api_key,
        funder=given["funder"],
        signature_type=given["signature_type"],
        session_key=given.get("signer_type") == "SESSION_KEY",
        builder=given.get("builder_code"),
    )
    plan = OrderPlan(
        token_id=given["asset_id"],
        exchange=exchange_for(given["asset_id"], given["neg_risk"], given["chain_id"]),
        side=Side(given["side"]),
        maker_amount=found.maker,
        taker_amount=found.taker,
        time_in_force=_TIMES[given["order_type"]],
        post_only=bool(given.get("post_only")),
        expiration=given.get("expiration") or 0,
    )
    return account.sign(plan, given["salt"], given["timestamp_ms"]), credentials


def order_problem(row: dict[str, Any], signers: dict[str, Signer], meta: dict[str, Any]) -> str | None:
    given, expected = row["inputs"], row["expected"]
    signed, credentials = signed_of(given, expected, signers, meta)
    exchange = signed.plan.exchange
    domain = {"version": exchange.version, "chainId": exchange.chain_id, "verifyingContract": exchange.contract}
    order = json.loads(signed.body)["order"]
    return differences(
        domain=(domain, {name: expected["domain"][name] for name in domain}),
        maker=(order["maker"], expected["maker"]),
        order_signer=(order["signer"], expected["order_signer"]),
        maker_amount=(order["makerAmount"], expected["maker_amount"]),
        taker_amount=(order["takerAmount"], expected["taker_amount"]),
        signature=(order["signature"], expected["signature"]),
        order_hash=(signed.order_id, expected["order_hash"]),
    ) or request_problem(ORDER_PATH, signed.body, expected, credentials, given["timestamp_ms"] // 1000)


def batch_problem(
    row: dict[str, Any], known: dict[str, Any], signers: dict[str, Signer], meta: dict[str, Any]
) -> str | None:
    """Several orders in one request. `inputs.orders` are rows of the same file by id, or inputs of their own."""
    given, expected = row["inputs"], row["expected"]
    bodies = expected["post_body"]
    signed = []
    for item, body in zip(given["orders"], bodies, strict=True):
        inputs = known[item]["inputs"] if isinstance(item, str) else item
        amounts = {"maker_amount": body["order"]["makerAmount"], "taker_amount": body["order"]["takerAmount"]}
        made, credentials = signed_of(inputs, amounts, signers, meta)
        signed.append(made)
    hashes = expected.get("order_hashes")
    seconds = given.get("timestamp_ms", signed[0].timestamp_ms) // 1000
    return differences(order_hashes=([one.order_id for one in signed], hashes or [one.order_id for one in signed])) or (
        request_problem(ORDERS_PATH, batch_body(signed), expected, credentials, seconds)
    )


def request_problem(
    path: str, body: bytes, expected: dict[str, Any], credentials: Credentials, seconds: int
) -> str | None:
    """The body, in the file's own words whatever order its keys have, and the headers over its own bytes."""
    text = expected["post_body_json"].encode()
    return differences(
        path=(path, expected["post_path"]),
        body=(json.loads(body), expected["post_body"]),
        body_text=(sorted(body), sorted(text)),
        l2_headers=(credentials.headers(seconds, "POST", path, text), expected["l2_headers"]),
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
    made = {
        "poly_proxy": found.proxy,
        "gnosis_safe": found.safe,
        "deposit_wallet_beacon": found.deposit_beacon,
        "deposit_wallet_uups": found.deposit_uups,
    }
    if not made.keys() & row.keys():
        return f"none of {', '.join(made)} is named"
    return differences(**{name: (address, row[name]) for name, address in made.items() if name in row})


def differences(**pairs: tuple[Any, Any]) -> str | None:
    """What is not equal, by name: made against expected."""
    wrong = [f"{name} is {made!r}, expected {wanted!r}" for name, (made, wanted) in pairs.items() if made != wanted]
    return "; ".join(wrong) or None
