"""Signed orders for Polymarket (wire): from a plan to the bytes of POST /order, and the bodies of the other requests.

The id of an order is its EIP-712 hash, known before anything is sent. The body is serialised once; the same bytes are
hashed for the headers and sent. Salt and time are arguments. Sources: docs.polymarket.com/v2-migration,
docs.polymarket.com/trading/orders, and the code of Polymarket's Python SDK; pinned by test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import msgspec

from pmkit.errors import ConfigError, InvalidOrder
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.eip712 import (
    ORDER_TYPE,
    ORDER_TYPE_HASH,
    ZERO_HEX,
    ZERO_WORD,
    Exchange,
    address_bytes,
    address_word,
    checksum_address,
    hex_word,
    nested_hash,
    token_word,
    typed_digest,
    word,
)
from pmkit.exchanges.polymarket.keccak import keccak
from pmkit.exchanges.polymarket.order_plan import OrderPlan
from pmkit.exchanges.polymarket.wallets import SignatureType
from pmkit.exchanges.types import Side, TimeInForce

ORDER_PATH: Final = "/order"
ORDERS_PATH: Final = "/orders"
MAX_BATCH: Final = 15
MAX_CANCELS: Final = 1000
MAX_SALT: Final = (1 << 53) - 1
"""The salt travels as a JSON number and has to survive a double."""

WIRE_TYPES: Final = {
    TimeInForce.GTC: "GTC",
    TimeInForce.GTD: "GTD",
    TimeInForce.IOC: "FAK",
    TimeInForce.FOK: "FOK",
}
_SIDES: Final = {Side.BUY: word(0), Side.SELL: word(1)}
_SUFFIX: Final = ORDER_TYPE + len(ORDER_TYPE).to_bytes(2, "big")
_SESSION_SUFFIX: Final = bytes.fromhex("6492" * 16)

# -- the signed order -----------------------------------------------------------------------------------------------


# In the order of the venue's own clients, whose bodies the vectors hold. What is text in here was checked letter by
# letter (digits, hex, words of ours) or is JSON already (the owner).
_BODY: Final = (
    '{"deferExec":false,"order":{"builder":"%s","expiration":"%s","maker":"%s","makerAmount":"%s","metadata":"%s",'
    '"salt":%s,"side":"%s","signature":"0x%s","signatureType":%s,"signer":"%s","takerAmount":"%s","timestamp":"%s",'
    '"tokenId":"%s"},"orderType":"%s","owner":%s%s}'
)
_ENCODE: Final = msgspec.json.Encoder().encode


class SignedOrder(msgspec.Struct, frozen=True, gc=False):
    """One order, ready to be sent once. `order_id` is the venue's id of it; `body` the bytes of POST /order.

    Sending the same bytes again can place nothing twice (the venue answers "Duplicated"); signing anew can.
    """

    order_id: str
    body: bytes
    plan: OrderPlan
    salt: int
    timestamp_ms: int

    def headers(self, credentials: Credentials, timestamp_s: int) -> dict[str, str]:
        """The L2 headers of POST /order for this body, at an epoch second of the venue's clock."""
        return credentials.headers(timestamp_s, "POST", ORDER_PATH, self.body)

    def __repr__(self) -> str:
        return f"<SignedOrder {self.order_id}>"


@final
class OrderSigner:
    """Signs the orders of one account: everything that does not change from order to order is made once, here.

    `funder` holds the funds (the maker): the key's own address for type 0, its proxy, Safe or deposit wallet for types
    1, 2 and 3. `session_key`: the key is a session key of the deposit wallet, not its owner. `owner` is the API key of
    the L2 headers. Raises ConfigError where these do not go together.
    """

    __slots__ = (
        "_builder",
        "_head",
        "_kind",
        "_kind_number",
        "_kind_word",
        "_maker",
        "_owner",
        "_session",
        "_sign",
        "_tail",
        "_wallet",
        "_who",
    )

    def __init__(
        self,
        signer: Signer,
        owner: str,
        *,
        funder: str | None = None,
        signature_type: int = SignatureType.EOA,
        session_key: bool = False,
        builder: str | None = None,
    ) -> None:
        self._kind = _kind_of(signature_type)
        wallet = signer.address_raw if funder is None else address_bytes(funder)
        if (self._kind is SignatureType.EOA) != (wallet == signer.address_raw):
            raise ConfigError(
                f"signature type {int(self._kind)} ({self._kind.name}) does not go with the funder "
                f"{checksum_address(wallet)} and the key of {signer.address}: type 0 trades from the key's own "
                "address, types 1 to 3 from a wallet; see POLYMARKET_SIGNATURE_TYPE and POLYMARKET_FUNDER_ADDRESS"
            )
        if session_key and self._kind is not SignatureType.POLY_1271:
            raise ConfigError("a session key belongs to a deposit wallet: signature type 3")
        self._kind_number = int(self._kind)
        self._kind_word = word(self._kind)
        self._sign = signer.sign
        self._owner = _ENCODE(owner).decode()  # quotes and all
        self._wallet = wallet
        self._maker = checksum_address(wallet)
        # A deposit wallet is the order's signer as well; putting the key's address there is what the venue refuses.
        signing = wallet if self._kind is SignatureType.POLY_1271 else signer.address_raw
        self._who = checksum_address(signing)
        self._builder = ZERO_HEX if builder is None else builder
        self._head = address_word(wallet) + address_word(signing)
        self._tail = ZERO_WORD + (ZERO_WORD if builder is None else hex_word(builder, "the builder code"))
        self._session = address_word(signer.address_raw) if session_key else b""

    def __repr__(self) -> str:
        return f"<OrderSigner {self._maker} type {int(self._kind)}>"

    @property
    def maker(self) -> str:
        """The address that holds the funds."""
        return self._maker

    def sign(self, plan: OrderPlan, salt: int, timestamp_ms: int) -> SignedOrder:
        """`salt`: random, below 2^53. `timestamp_ms`: now, in venue time. Raises ValueError where they are not."""
        if not 0 <= salt <= MAX_SALT:
            raise ValueError("a salt is below 2^53: it has to survive a double")
        if not 1_000_000_000_000 <= timestamp_ms < 10_000_000_000_000:
            raise ValueError(f"{timestamp_ms} is no time in epoch milliseconds")
        exchange = plan.exchange
        contents = keccak(
            b"".join(
                (
                    ORDER_TYPE_HASH,
                    salt.to_bytes(32, "big"),
                    self._head,
                    token_word(plan.token_id),
                    plan.maker_amount.to_bytes(32, "big"),
                    plan.taker_amount.to_bytes(32, "big"),
                    _SIDES[plan.side],
                    self._kind_word,
                    timestamp_ms.to_bytes(32, "big"),
                    self._tail,
                )
            )
        )
        digest = typed_digest(exchange.separator, contents)
        wallet = self._kind is SignatureType.POLY_1271
        signature = self._nested(exchange, contents) if wallet else self._sign(digest)
        body = _BODY % (
            self._builder,
            plan.expiration,
            self._maker,
            plan.maker_amount,
            ZERO_HEX,
            salt,
            plan.side,
            signature.hex(),
            self._kind_number,
            self._who,
            plan.taker_amount,
            timestamp_ms,
            plan.token_id,
            WIRE_TYPES[plan.time_in_force],
            self._owner,
            ',"postOnly":true' if plan.post_only else "",
        )
        return SignedOrder("0x" + digest.hex(), body.encode(), plan, salt, timestamp_ms)

    def _nested(self, exchange: Exchange, contents: bytes) -> bytes:
        """What a deposit wallet checks (ERC-7739), in place of a plain signature."""
        nested = nested_hash(contents, exchange.chain_id, self._wallet)
        signed = self._sign(typed_digest(exchange.separator, nested))
        wrapped = signed + exchange.separator + contents + _SUFFIX
        if not self._session:
            return wrapped
        # abi.encode(bytes32 session key, bytes32 0, bytes wrapped), then the marker.
        padding = bytes(-len(wrapped) % 32)
        return self._session + ZERO_WORD + word(96) + word(len(wrapped)) + wrapped + padding + _SESSION_SUFFIX


def _kind_of(signature_type: int) -> SignatureType:
    try:
        return SignatureType(signature_type)
    except ValueError:
        raise ConfigError(f"signature type {signature_type!r} is unknown: 0, 1, 2 or 3") from None


# -- other bodies ---------------------------------------------------------------------------------------------------


def batch_body(orders: Sequence[SignedOrder]) -> bytes:
    """The bytes of POST /orders. Raises InvalidOrder for none and for more than 15."""
    if not 1 <= len(orders) <= MAX_BATCH:
        raise InvalidOrder(f"{len(orders)} orders in one batch: 1 to {MAX_BATCH} are taken")
    return b"[" + b",".join(order.body for order in orders) + b"]"


def cancel_body(order_id: str) -> bytes:
    """DELETE /order."""
    return _ENCODE({"orderID": _some(order_id, "order id")})


def cancel_many_body(order_ids: Sequence[str]) -> bytes:
    """DELETE /orders. Raises InvalidOrder for none and for more than 1000."""
    if not 1 <= len(order_ids) <= MAX_CANCELS:
        raise InvalidOrder(f"{len(order_ids)} orders in one cancel: 1 to {MAX_CANCELS} are taken")
    return _ENCODE([_some(order_id, "order id") for order_id in order_ids])


def cancel_market_body(condition_id: str, token_id: str | None = None) -> bytes:
    """DELETE /cancel-market-orders. A body without either field would cancel everything, so a market is required."""
    body = {"market": _some(condition_id, "condition id")}
    if token_id is not None:
        body["asset_id"] = _some(token_id, "token id")
    return _ENCODE(body)


def heartbeat_body(heartbeat_id: str) -> bytes:
    """POST /v1/heartbeats: "" arms it, afterwards the id of the last answer."""
    return _ENCODE({"heartbeat_id": heartbeat_id})


def _some(text: str, name: str) -> str:
    if not text:
        raise InvalidOrder(f"the {name} is empty")
    return str(text)  # an OrderId is a str with more to it, which no encoder takes
