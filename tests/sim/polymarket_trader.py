"""A trader of the local Polymarket for tests: signs and sends what the documents say, nothing of pmkit's client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import aiohttp
from coincurve import PrivateKey

from pmkit.sim.engine import Side
from pmkit.sim.polymarket.accounts import Account, TestAccount
from pmkit.sim.polymarket.market import Window
from pmkit.sim.polymarket.signatures import (
    ORDER_TYPE,
    SignedOrder,
    hmac_text,
    login_digest,
    nested_digest,
    order_digest,
    separator_for,
)
from tests.sim.polymarket_client import Bench

ZERO = "0x" + "00" * 32


def sign(private_key: str, digest: bytes) -> bytes:
    """65 bytes r, s, v."""
    raw = PrivateKey(bytes.fromhex(private_key[2:])).sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes([raw[64] + 27])


class Trader:
    """One account of the venue with an HTTP session."""

    def __init__(self, bench: Bench, kind: int = 0, account: TestAccount | None = None) -> None:
        self.bench = bench
        self.test = account or bench.venue.test_accounts[kind]
        self.kind = self.test.signature_type
        self.salt = 1000 * (1 + self.kind)

    @property
    def account(self) -> Account:
        found = self.bench.venue.accounts.find(self.test.funder)
        assert found is not None
        return found

    @property
    def window(self) -> Window:
        return self.bench.venue.current("BTC")

    # ---- requests

    def headers(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        timestamp = str(self.bench.clock.now_ms() // 1000)
        key = self.test.api_key
        return {
            "POLY_ADDRESS": self.test.address,
            "POLY_API_KEY": key.key,
            "POLY_PASSPHRASE": key.passphrase,
            "POLY_TIMESTAMP": timestamp,
            "POLY_SIGNATURE": hmac_text(key.secret, timestamp, method, path, body) or "",
        }

    async def ask(self, method: str, path: str, body: object = None, **query: Any) -> tuple[int, Any]:
        status, data, _ = await self.answered(method, path, body, **query)
        return status, data

    async def answered(self, method: str, path: str, body: object = None, **query: Any) -> tuple[int, Any, Any]:
        raw = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        url = self.bench.venue.endpoints().clob + path
        headers = self.headers(method, path, raw)
        async with self.bench.http.request(method, url, data=raw or None, headers=headers, params=query) as response:
            return response.status, await response.json(), response.headers

    def login(self, nonce: int = 0, **changed: str) -> dict[str, str]:
        timestamp = str(self.bench.clock.now_ms() // 1000)
        signature = sign(self.test.private_key, login_digest(self.test.address, timestamp, nonce))
        return {
            "POLY_ADDRESS": self.test.address,
            "POLY_TIMESTAMP": timestamp,
            "POLY_NONCE": str(nonce),
            "POLY_SIGNATURE": "0x" + signature.hex(),
            **changed,
        }

    # ---- orders

    def order(
        self,
        side: str = "BUY",
        price: int = 1000,
        shares: int = 10_000_000,
        *,
        token: str | None = None,
        kind: str = "GTC",
        money: int | None = None,
        domain: bytes | None = None,
        signed: dict[str, Any] | None = None,
        **changed: Any,
    ) -> dict[str, Any]:
        """A body. `price` in 0.0001 dollars, `shares` and `money` in base units."""
        token = token or self.window.tokens[0]
        dollars = money if money is not None else price * shares // 10_000
        self.salt += 1
        unsigned = SignedOrder(
            salt=self.salt,
            maker=self.test.funder,
            signer=self.test.funder if self.kind == 3 else self.test.address,
            token=token,
            maker_amount=dollars if side == "BUY" else shares,
            taker_amount=shares if side == "BUY" else dollars,
            side=0 if side == "BUY" else 1,
            signature_type=self.kind,
            timestamp=self.bench.clock.now_ms(),
            metadata=bytes(32),
            builder=bytes(32),
            signature=b"",
        )
        unsigned = dataclasses.replace(unsigned, **(signed or {}))
        domain = domain or separator_for(token)
        contents = unsigned.contents_hash()
        if unsigned.signature_type == 3:
            signature = sign(self.test.private_key, nested_digest(domain, contents, unsigned.maker))
            signature += domain + contents + ORDER_TYPE.encode() + len(ORDER_TYPE).to_bytes(2)
        else:
            signature = sign(self.test.private_key, order_digest(domain, contents))
        body: dict[str, Any] = {
            "order": {
                "salt": unsigned.salt,
                "maker": unsigned.maker,
                "signer": unsigned.signer,
                "tokenId": unsigned.token,
                "makerAmount": str(unsigned.maker_amount),
                "takerAmount": str(unsigned.taker_amount),
                "side": side,
                "signatureType": unsigned.signature_type,
                "timestamp": str(unsigned.timestamp),
                "expiration": str(changed.pop("expiration", 0)),
                "metadata": ZERO,
                "builder": ZERO,
                "signature": "0x" + signature.hex(),
            },
            "owner": self.test.api_key.key,
            "orderType": kind,
            "deferExec": False,
        }
        body.update(changed)
        return body

    async def place(self, *args: Any, **fields: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/order", self.order(*args, **fields))

    async def rest(self, *args: Any, **fields: Any) -> str:
        """Place an order that rests; its id."""
        status, data = await self.place(*args, **fields)
        assert (status, data.get("status")) == (200, "live"), data
        order_id: str = data["orderID"]
        return order_id

    # ---- the book

    def touch(self, outcome: int = 0) -> tuple[int, int]:
        """Best bid and ask of the current BTC window, in 0.0001 dollars."""
        truth = self.bench.venue.book_truth(self.window.tokens[outcome])
        return round(truth.bids[0][0] * 10_000), round(truth.asks[0][0] * 10_000)

    def house(self, side: Side, price: int, size: int) -> None:
        """A background trader's order that rests or takes, in terms of the first outcome."""
        live = self.bench.venue.running(self.window)
        assert live is not None
        live.engine.submit("maker-9", side, price, size, client=0)

    def clear_book(self) -> None:
        """Take out all that the background traders rest."""
        live = self.bench.venue.running(self.window)
        assert live is not None
        for order in live.engine.orders():
            if order.owner.startswith(("maker", "taker")):
                live.engine.cancel(order.order_id)

    # ---- the user channel

    async def user(self, markets: list[str] | None = None) -> UserFeed:
        ws = await self.bench.http.ws_connect(self.bench.venue.endpoints().user_ws)
        self.bench.sockets.append(ws)
        feed = UserFeed(self, ws)
        key = self.test.api_key
        auth = {"apiKey": key.key, "secret": key.secret, "passphrase": key.passphrase}
        await ws.send_json({"auth": auth, "type": "user", **({} if markets is None else {"markets": markets})})
        await feed.settle()
        return feed


class UserFeed:
    """What the user channel says."""

    def __init__(self, trader: Trader, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.trader = trader
        self.ws = ws
        self.events: list[dict[str, Any]] = []

    async def settle(self) -> list[dict[str, Any]]:
        """Everything that came so far: a PONG comes after all frames before it."""
        await self.ws.send_str("PING")
        async with asyncio.timeout(3):
            while (text := await self.ws.receive_str()) != "PONG":
                self.events.append(json.loads(text))
        return self.events

    def of(self, kind: str, *, order_id: str | None = None) -> list[dict[str, Any]]:
        """Events of a `type`."""
        return [row for row in self.events if row["type"] == kind and order_id in (None, row["id"])]

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(3):
            while not true():
                await self.settle()
