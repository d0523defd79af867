"""The contenders of the order benchmark: an order of one each, from intent to bytes and headers.

Run as a program it is one peer in a process and an interpreter of its own (`_orders_contenders.py NAME TYPE FUNDER`).
Imports are inside, since the peers live in another environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

# The public key of a test chain and invented credentials; never fund this account.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
DEPOSIT_WALLET = "0xBc0fF067b7740Eff76C1ca93c875Ba6B890d6B50"
CREDENTIALS = ("11111111-2222-3333-4444-555555555555", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTAwMDE_-w==", "passphrase")
TOKEN = "15145801626287409071829658876802325044255807122523050327799178344958379739907"
PRICE, SIZE, TICK = "0.57", "123.45", "0.01"

Order = Callable[[], tuple[bytes, dict[str, str]]]


def sample_market() -> Any:
    from decimal import Decimal

    from pmkit.exchanges.market import FeeRule, PriceGrid
    from pmkit.exchanges.polymarket.types import PolymarketMarket
    from pmkit.exchanges.types import MarketStatus

    now_ms = time.time_ns() // 1_000_000
    return PolymarketMarket(
        venue="polymarket", market_id="0x" + "ab" * 32, asset="BTC", interval="15m", title="", outcomes=("UP", "DOWN"),
        token_ids=(TOKEN, TOKEN[:-1] + "1"), open_ms=now_ms, close_ms=now_ms + 900_000,
        grid=PriceGrid.uniform(Decimal(TICK)), min_size=Decimal(5), size_step=Decimal("0.01"), fees=FeeRule(),
        status=MarketStatus.OPEN, protocol="v1", slug="",
    )  # fmt: skip


def pmkit_order(kind: int, funder: str) -> Order:
    from pmkit.exchanges.polymarket.auth import Credentials, Signer
    from pmkit.exchanges.polymarket.order_plan import plan_limit
    from pmkit.exchanges.polymarket.orders import OrderSigner
    from pmkit.exchanges.types import Side

    market = sample_market()
    signer = Signer(KEY)
    credentials = Credentials(signer.address, *CREDENTIALS)
    account = OrderSigner(signer, credentials.api_key, funder=funder, signature_type=kind)
    entropy = iter(range(1, 1 << 53))

    def make() -> tuple[bytes, dict[str, str]]:
        now_ms = time.time_ns() // 1_000_000
        plan = plan_limit(market, "UP", Side.BUY, PRICE, SIZE, now_ms=now_ms)
        signed = account.sign(plan, next(entropy), now_ms)
        return signed.body, signed.headers(credentials, now_ms // 1000)

    return make


def signing_alone() -> Order:
    """libsecp256k1 through coincurve, nothing else: what no signer written in Python can beat."""
    from coincurve import PrivateKey

    key, digest = PrivateKey.from_hex(KEY[2:]), bytes(range(32))

    def make() -> tuple[bytes, dict[str, str]]:
        return key.sign_recoverable(digest, hasher=None), {}

    return make


def py_clob_client_v2_order(kind: int, funder: str) -> Order:
    from py_clob_client_v2.client import ClobClient
    from py_clob_client_v2.clob_types import (
        ApiCreds,
        OrderArgsV2,
        OrderType,
        PartialCreateOrderOptions,
        RequestArgs,
    )
    from py_clob_client_v2.headers.headers import create_level_2_headers
    from py_clob_client_v2.order_utils.model.order_data_v2 import order_to_json_v2

    client = ClobClient(
        "http://127.0.0.1:9", chain_id=137, key=KEY, creds=ApiCreds(*CREDENTIALS), signature_type=kind, funder=funder
    )

    # Its cache of market facts, which it would fill by a request.
    client._ClobClient__tick_sizes[TOKEN] = TICK

    def make() -> tuple[bytes, dict[str, str]]:
        args = OrderArgsV2(token_id=TOKEN, price=float(PRICE), size=float(SIZE), side="BUY")
        options = PartialCreateOrderOptions(tick_size=TICK, neg_risk=False, version=2)
        payload = order_to_json_v2(client.create_order(args, options), CREDENTIALS[0], OrderType.GTC, False, False)
        text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
        request = RequestArgs(method="POST", request_path="/order", body=payload, serialized_body=text)
        return text.encode(), create_level_2_headers(client.signer, client.creds, request)

    return make


def polymarket_client_order(kind: int, funder: str) -> Order:
    """Its secure client's own steps, in their order; only the look-up of market facts is left out."""
    from decimal import Decimal
    from types import SimpleNamespace

    from eth_account import Account
    from polymarket._internal.actions.orders import limit, orders, post, typed_data
    from polymarket._internal.hmac import build_hmac_signature
    from polymarket._internal.wallet import signature_type_for
    from polymarket.environments import PRODUCTION

    account = Account.from_key(KEY)
    wallet_types = ("EOA", "POLY_PROXY", "GNOSIS_SAFE", "DEPOSIT_WALLET")
    wallet_type: Any = next(name for name in wallet_types if signature_type_for(name) == kind)
    context: Any = SimpleNamespace(environment_config=PRODUCTION._config, wallet=funder, signer=account)
    facts: Any = SimpleNamespace(tick_size=Decimal(TICK), neg_risk=False)

    def make() -> tuple[bytes, dict[str, str]]:
        params = limit.validate_limit_order_params(asset_id=TOKEN, price=PRICE, size=SIZE, side="BUY")
        price = limit.validate_price_on_tick_grid(params.price, facts.tick_size, "price")
        draft = limit._build_limit_order_draft(context, params, price=price, metadata=facts)
        unsigned = orders.create_unsigned_order(draft, wallet=funder, wallet_type=wallet_type)
        message = account.sign_typed_data(full_message=typed_data.build_order_typed_data(unsigned))
        raw = message.signature.hex()
        signature = typed_data.build_order_signature(unsigned, raw if raw.startswith("0x") else "0x" + raw)
        path, payload = post.build_post_order_request(
            orders.create_signed_order(unsigned, signature), owner_api_key=CREDENTIALS[0]
        )
        text = json.dumps(payload, separators=(",", ":"))
        stamp = int(time.time())
        digest = build_hmac_signature(secret=CREDENTIALS[1], timestamp=stamp, method="POST", path=path, body=text)
        return text.encode(), {
            "POLY_ADDRESS": account.address,
            "POLY_API_KEY": CREDENTIALS[0],
            "POLY_PASSPHRASE": CREDENTIALS[2],
            "POLY_SIGNATURE": digest,
            "POLY_TIMESTAMP": str(stamp),
        }

    return make


MAKERS: dict[str, Callable[[int, str], Order]] = {
    "py-clob-client-v2": py_clob_client_v2_order,
    "polymarket-client": polymarket_client_order,
}


def timed(make: Order, count: int) -> float:
    """Microseconds of CPU per order: what else the machine does counts for nobody."""
    start = time.process_time_ns()
    for _ in range(count):
        make()
    return (time.process_time_ns() - start) / count / 1000


def worker(name: str, kind: int, funder: str) -> None:
    """One peer: says what it is, then answers each line (a number of orders) with microseconds per order."""
    try:
        make = MAKERS[name](kind, funder)
        body, headers = make()
        about: dict[str, Any] = {"version": importlib.metadata.version(name)}
    except Exception as error:  # whatever is missing or has moved: the parent says that it is skipped
        print(json.dumps({"skipped": f"{type(error).__name__}: {error}"[:200]}), flush=True)
        return
    print(json.dumps(about | {"body": body.decode(), "headers": headers}), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(make, int(line))), flush=True)


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]), sys.argv[3])
