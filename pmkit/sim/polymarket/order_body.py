"""The body of an order: its form, its amounts, what it means (reference: polymarket-trading.md, 3.1 to 3.4, 3.11).

Prices are 0.0001 dollars and amounts base units (1e-6), in the outcome's own terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

import msgspec

from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, Side
from pmkit.sim.polymarket.book import MIN_ORDER_SHARES, price_text, size_text
from pmkit.sim.polymarket.signatures import SignedOrder, address_bytes, order_digest, separator_for
from pmkit.sim.server import Refused

MIN_EXPIRY_SECONDS = 180
EARLY_EXPIRY_SECONDS = 60
MIN_MARKETABLE = 1_000_000
BAD_BODY = "Invalid order payload"

# (decimals of the price, of the amount in dollars) by tick (3.2).
_DECIMALS = {1000: (1, 3), 100: (2, 4), 50: (3, 5), 25: (4, 6), 10: (3, 5), 1: (4, 6)}
_SIZE_DECIMALS = 2
_MARKET_BUY = (2, 4)


class OrderType(StrEnum):
    """GTC and GTD rest; FOK trades all or nothing; FAK what it can at once."""

    GTC = "GTC"
    GTD = "GTD"
    FOK = "FOK"
    FAK = "FAK"

    @property
    def rests(self) -> bool:
        return self in (OrderType.GTC, OrderType.GTD)


class _Order(msgspec.Struct):
    salt: int
    maker: str
    signer: str
    token_id: str = msgspec.field(name="tokenId")
    maker_amount: str = msgspec.field(name="makerAmount")
    taker_amount: str = msgspec.field(name="takerAmount")
    side: Literal["BUY", "SELL"]
    signature_type: int = msgspec.field(name="signatureType")
    timestamp: str
    expiration: str
    signature: str
    metadata: str
    builder: str


class _Body(msgspec.Struct):
    order: _Order
    owner: str
    order_type: OrderType = msgspec.field(name="orderType", default=OrderType.GTC)
    defer: bool = msgspec.field(name="deferExec", default=False)
    post_only: bool = msgspec.field(name="postOnly", default=False)


class _Old(msgspec.Struct):
    """What tells an order of the first generation from garbage."""

    order: dict[str, Any]


_body = msgspec.json.Decoder(_Body)
_old = msgspec.json.Decoder(_Old)


@dataclass(frozen=True, slots=True)
class Intent:
    """An order that has a proper form. `order_id` is the hash; `expiration` unix seconds, 0 for none."""

    order_id: str
    signed: SignedOrder
    owner: str
    token: str
    side: Side
    order_type: OrderType
    post_only: bool
    expiration: int

    @property
    def money(self) -> int:
        """The dollar amount of the two."""
        return self.signed.maker_amount if self.side is Side.BUY else self.signed.taker_amount

    @property
    def shares(self) -> int:
        """The amount of shares of the two."""
        return self.signed.taker_amount if self.side is Side.BUY else self.signed.maker_amount

    @property
    def by_money(self) -> bool:
        """FAK and FOK BUYs aim at the money, everything else at the shares (3.2)."""
        return self.side is Side.BUY and not self.order_type.rests

    @property
    def limit(self) -> int:
        """The worst price in whole units; a limit between two is the better one of them for the other side."""
        exact = self.money * PRICE_UNITS
        return exact // self.shares if self.side is Side.BUY else -(-exact // self.shares)


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 78):
        raise Refused(400, BAD_BODY)
    return int(text)


def _bytes32(text: str) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError(f"not 32 bytes: {text!r}")
    return raw


def read_intent(raw: bytes) -> Intent:
    """One body. Raises Refused (400) where it has no proper form."""
    try:
        body = _body.decode(raw)
    except msgspec.MsgspecError as error:
        raise Refused(400, "order_version_mismatch" if _is_first_generation(raw) else BAD_BODY) from error
    order = body.order
    if not (order.token_id.isascii() and order.token_id.isdigit()) or int(order.token_id) >= 2**256:
        raise Refused(400, "Invalid token id")
    try:
        address_bytes(order.maker)
        address_bytes(order.signer)
        signed = SignedOrder(
            salt=order.salt,
            maker=order.maker,
            signer=order.signer,
            token=order.token_id,
            maker_amount=_digits(order.maker_amount),
            taker_amount=_digits(order.taker_amount),
            side=0 if order.side == "BUY" else 1,
            signature_type=order.signature_type,
            timestamp=_digits(order.timestamp),
            metadata=_bytes32(order.metadata),
            builder=_bytes32(order.builder),
            signature=bytes.fromhex(order.signature.removeprefix("0x")),
        )
        if not 0 <= order.salt < 2**53 or not 0 <= order.signature_type <= 3:
            raise Refused(400, BAD_BODY)
        digest = order_digest(separator_for(order.token_id), signed.contents_hash())
    except (ValueError, OverflowError) as error:
        raise Refused(400, BAD_BODY) from error
    if signed.maker_amount <= 0 or signed.taker_amount <= 0 or (body.post_only and not body.order_type.rests):
        raise Refused(400, BAD_BODY)
    return Intent(
        order_id=f"0x{digest.hex()}",
        signed=signed,
        owner=body.owner,
        token=str(int(order.token_id)),
        side=Side(order.side),
        order_type=body.order_type,
        post_only=body.post_only,
        expiration=_digits(order.expiration),
    )


def _is_first_generation(raw: bytes) -> bool:
    try:
        return "feeRateBps" in _old.decode(raw).order and "timestamp" not in _old.decode(raw).order
    except msgspec.MsgspecError:
        return False


def check_numbers(intent: Intent, tick: int, now_ms: int) -> None:
    """Price, amounts, size and expiration against the market's rules. Raises Refused (400)."""
    _check_price(intent, tick)
    _check_decimals(intent, tick)
    if intent.order_type.rests and intent.shares < MIN_ORDER_SHARES * SIZE_UNITS:
        raise Refused(
            400,
            f"order {intent.order_id} is invalid. Size ({size_text(intent.shares)}) lower than the minimum: "
            f"{MIN_ORDER_SHARES}",
        )
    if intent.order_type is OrderType.GTD:
        if intent.expiration - now_ms // 1000 < MIN_EXPIRY_SECONDS:
            raise Refused(400, "invalid expiration")
    elif intent.expiration:
        raise Refused(400, "invalid expiration")


def _check_price(intent: Intent, tick: int) -> None:
    exact = Decimal(intent.money) * PRICE_UNITS / Decimal(intent.shares)
    nearest = round(exact / tick) * tick
    # A floored number of shares moves the price of an order that spends money by less than a tenth of a tick.
    slack = Decimal(tick) / 10 if intent.by_money else Decimal(0)
    if abs(exact - nearest) > slack or not tick <= nearest <= PRICE_UNITS - tick:
        shown = f"{exact / PRICE_UNITS:.6f}".rstrip("0").rstrip(".")
        raise Refused(
            400,
            f"order {intent.order_id} is invalid. Price ({shown}) breaks minimum tick size rule: {price_text(tick)}",
        )


def _check_decimals(intent: Intent, tick: int) -> None:
    _, amount = _DECIMALS[tick]
    if intent.by_money:
        maker, taker, what = *_MARKET_BUY, "market buy orders maker"
    elif intent.side is Side.BUY:
        maker, taker, what = amount, _SIZE_DECIMALS, "buy orders maker"
    else:
        maker, taker, what = _SIZE_DECIMALS, amount, "sell orders maker"
        if not intent.order_type.rests:
            what = "market sell orders maker"
    if intent.signed.maker_amount % 10 ** (6 - maker) or intent.signed.taker_amount % 10 ** (6 - taker):
        raise Refused(
            400,
            f"invalid amounts, the {what} amount supports a max accuracy of {maker} decimals, taker amount a max of "
            f"{taker} decimals",
        )
