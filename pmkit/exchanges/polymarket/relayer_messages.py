"""What the relayer is sent and answers (wire): bodies, headers of both kinds of keys, states, refusals.

Source: docs.polymarket.com/trading/gasless and the official SDK, pinned by its vectors. Numbers are texts.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, final

import msgspec

from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket.auth import Hidden, Signer, secret_bytes
from pmkit.exchanges.polymarket.calldata import Call, proxy_batch
from pmkit.exchanges.polymarket.contracts import DEPOSIT_FACTORY, PROXY_FACTORY, RELAY_HUB, ZERO_ADDRESS
from pmkit.exchanges.polymarket.wallet_actions import (
    batch_digest,
    marked_message,
    message_digest,
    proxy_struct,
    safe_action,
    safe_digest,
)

SUBMIT_PATH: Final = "/submit"
METADATA_CHARS: Final = 500
BATCH_SECONDS: Final = 600
"""How long a deposit-wallet batch may be executed after it was signed, as the official SDK signs it."""

_HEADER = re.compile(r"[!-~]{1,200}").fullmatch


class RelayerType(StrEnum):
    """What a submission is."""

    SAFE = "SAFE"
    PROXY = "PROXY"
    WALLET = "WALLET"
    WALLET_CREATE = "WALLET-CREATE"


class RelayerState(StrEnum):
    """Where a submission is. Only the last three are final."""

    NEW = "STATE_NEW"
    EXECUTED = "STATE_EXECUTED"
    MINED = "STATE_MINED"
    CONFIRMED = "STATE_CONFIRMED"
    FAILED = "STATE_FAILED"
    INVALID = "STATE_INVALID"


# -- keys -------------------------------------------------------------------------------------------------------------


@final
class RelayerKey(Hidden):
    """A relayer API key (polymarket.com, Settings, API keys). `address` is the account it was made by."""

    __slots__ = ("__key", "address")

    def __init__(self, key: str, address: str) -> None:
        if not _HEADER(key):
            raise ConfigError("the Polymarket relayer API key is not one: copy it anew")
        self.__key = key
        self.address = address

    def headers(self, timestamp_s: int, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """The two headers of any request."""
        return {"RELAYER_API_KEY": self.__key, "RELAYER_API_KEY_ADDRESS": self.address}


@final
class BuilderKey(Hidden):
    """A builder key: an HMAC over `seconds + METHOD + path + body`, body the exact bytes that are sent."""

    __slots__ = ("__key", "__mac", "__passphrase")

    def __init__(self, key: str, secret: str, passphrase: str) -> None:
        for name, value in (("key", key), ("passphrase", passphrase)):
            if not _HEADER(value):
                raise ConfigError(f"the Polymarket builder {name} is not one: copy all three parts anew")
        self.__mac = hmac.new(secret_bytes(secret), digestmod=hashlib.sha256)
        self.__key = key
        self.__passphrase = passphrase

    def headers(self, timestamp_s: int, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """The four headers of one attempt (epoch seconds)."""
        mac = self.__mac.copy()
        mac.update(f"{timestamp_s}{method.upper()}{path}".encode() + body)
        return {
            "POLY_BUILDER_API_KEY": self.__key,
            "POLY_BUILDER_PASSPHRASE": self.__passphrase,
            "POLY_BUILDER_SIGNATURE": base64.urlsafe_b64encode(mac.digest()).decode(),
            "POLY_BUILDER_TIMESTAMP": str(timestamp_s),
        }


# -- bodies -----------------------------------------------------------------------------------------------------------


def body_bytes(body: dict[str, Any]) -> bytes:
    """A body as it is sent and signed: compact, in the order of its fields."""
    return msgspec.json.encode(body)


def safe_body(signer: Signer, safe: str, calls: Sequence[Call], nonce: int, metadata: str = "") -> dict[str, Any]:
    """Calls made by a Safe (type 2)."""
    action = safe_action(calls)
    signature = marked_message(signer.sign(message_digest(safe_digest(safe, action, nonce))))
    body: dict[str, Any] = {
        "type": RelayerType.SAFE.value,
        "from": signer.address,
        "to": action.call.to,
        "proxyWallet": safe,
        "data": "0x" + action.call.data.hex(),
        "nonce": str(nonce),
        "signature": "0x" + signature.hex(),
        "metadata": metadata[:METADATA_CHARS],
        "signatureParams": {
            "baseGas": "0",
            "gasPrice": "0",
            "gasToken": ZERO_ADDRESS,
            "operation": str(action.operation),
            "refundReceiver": ZERO_ADDRESS,
            "safeTxnGas": "0",
        },
    }
    if action.call.value:
        body["value"] = str(action.call.value)
    return body


def proxy_body(
    signer: Signer, proxy: str, calls: Sequence[Call], nonce: int, relay: str, gas_limit: int, metadata: str = ""
) -> dict[str, Any]:
    """Calls made by a proxy wallet (type 1), through the relay that the relayer named."""
    data = proxy_batch(PROXY_FACTORY, calls).data
    struct = proxy_struct(signer.address, PROXY_FACTORY, data, nonce, gas_limit, relay)
    return {
        "type": RelayerType.PROXY.value,
        "from": signer.address,
        "to": PROXY_FACTORY,
        "proxyWallet": proxy,
        "data": "0x" + data.hex(),
        "nonce": str(nonce),
        "signature": "0x" + signer.sign(message_digest(struct)).hex(),
        "metadata": metadata[:METADATA_CHARS],
        "signatureParams": {
            "gasLimit": str(gas_limit),
            "gasPrice": "0",
            "relay": relay,
            "relayHub": RELAY_HUB,
            "relayerFee": "0",
        },
    }


def wallet_body(
    signer: Signer, wallet: str, calls: Sequence[Call], nonce: int, deadline_s: int, metadata: str = ""
) -> dict[str, Any]:
    """Calls made by a deposit wallet (type 3)."""
    return {
        "type": RelayerType.WALLET.value,
        "from": signer.address,
        "to": DEPOSIT_FACTORY,
        "nonce": str(nonce),
        "signature": "0x" + signer.sign(batch_digest(wallet, calls, nonce, deadline_s)).hex(),
        "metadata": metadata[:METADATA_CHARS],
        "depositWalletParams": {
            "depositWallet": wallet,
            "deadline": str(deadline_s),
            "calls": [{"target": call.to, "value": str(call.value), "data": "0x" + call.data.hex()} for call in calls],
        },
    }


def wallet_create_body(owner: str, metadata: str = "") -> dict[str, Any]:
    """Has a deposit wallet made; carries no signature."""
    return {
        "type": RelayerType.WALLET_CREATE.value,
        "from": owner,
        "to": DEPOSIT_FACTORY,
        "metadata": metadata[:METADATA_CHARS],
    }


# -- answers ----------------------------------------------------------------------------------------------------------


class NonceAnswer(msgspec.Struct, frozen=True):
    """`/v1/account/transactions/params` and `/relay-payload`: the next nonce; `address` is the relay of a proxy."""

    nonce: int
    address: str = ""


class Submitted(msgspec.Struct, frozen=True, rename={"transaction_id": "transactionID", "hash": "transactionHash"}):
    """`/submit`: an id to ask with. The hash comes later."""

    transaction_id: str
    state: str = ""
    hash: str | None = None


class Progress(msgspec.Struct, frozen=True):
    """`/v1/account/transactions/{id}`."""

    state: str
    transaction_hash: str | None = None
    error_msg: str | None = None


class Refusal(StrEnum):
    """What a submission that was not taken means."""

    BUSY = "busy"
    """The wallet has an action on its way, or too many requests: the same bytes may be sent again."""
    NONCE_USED = "nonce_used"
    """The nonce is used up: sign again with the one that the chain has."""
    SKIPPED = "skipped"
    """The relayer looked first and found nothing to redeem."""
    QUOTA = "quota"
    FINAL = "final"


_NONCES = re.compile(r"nonce (\d+) does not match on-?chain nonce (\d+)", re.IGNORECASE).search


def refusal_of(status: int, text: str) -> tuple[Refusal, int | None]:
    """What a status other than 2xx of `/submit` proves: nothing was taken. With NONCE_USED, the nonce to use."""
    lower = text.lower()
    if "quota exceeded" in lower:
        return Refusal.QUOTA, None
    if "precheck_skipped" in lower:
        return Refusal.SKIPPED, None
    if status == 429:
        return Refusal.BUSY, None
    if status == 400:
        if "in-flight action" in lower or ("wallet busy" in lower and "active action" in lower):
            return Refusal.BUSY, None
        if (match := _NONCES(text)) is not None and int(match[1]) < int(match[2]):
            return Refusal.NONCE_USED, int(match[2])
    return Refusal.FINAL, None
