"""The local relayer: takes signed actions of Safes, proxies and deposit wallets, and has the local chain execute them.

Reference: polymarket-markets-and-redeem.md, 4.8. It checks the key of whoever asks and the owner's signature, serves
one action per wallet at a time, and pays the gas. Faults by name on `Faults.arm`: `submit_answer_lost`, `busy`, `fail`
(the action ends in STATE_FAILED), `invalid`, `swallow` (confirmed, but nothing happens on chain), `stall` (stays new
until `release()`), `no_hash` (the transaction's hash is never told).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from coincurve import PublicKey
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from pmkit.clock import Clock, Entropy
from pmkit.sim.chain.machine import CHAIN_ID, Reverted
from pmkit.sim.faults import Faults
from pmkit.sim.polymarket.on_chain import (
    DEPOSIT_FACTORY,
    MULTI_SEND,
    POL,
    PROXY_FACTORY,
    RELAY_HUB,
    PolymarketChain,
    call_data,
)
from pmkit.sim.polymarket.signatures import address_bytes, address_of
from pmkit.sim.polymarket.wallets import WalletType, deposit_of, wallet_of
from pmkit.sim.server import Handler, Refused, Server, answer

RELAY = "0x7db63fe6D62EB73fb01f8009416F4C2BB4fBda6A"
STAMP_SECONDS = 300
GAS = 2_000_000
_ZERO = "0x" + "0" * 40
_FACTORIES = {"PROXY": PROXY_FACTORY, "WALLET": DEPOSIT_FACTORY, "WALLET-CREATE": DEPOSIT_FACTORY}
_NEXT = {"STATE_NEW": "STATE_EXECUTED", "STATE_EXECUTED": "STATE_MINED", "STATE_MINED": "STATE_CONFIRMED"}
_FINAL = ("STATE_CONFIRMED", "STATE_FAILED", "STATE_INVALID")


@dataclass(slots=True)
class Action:
    """One submission. `execute` sends the transaction and gives its hash; None once that was tried."""

    id: str
    wallet: str
    execute: Callable[[], bytes] | None
    state: str = "STATE_NEW"
    hash: bytes = b""
    error: str = ""
    stalled: bool = False
    told: bool = True


@dataclass(frozen=True, slots=True)
class BuilderCredentials:
    """A builder key that the relayer knows."""

    key: str
    secret: str
    passphrase: str


class Relayer:
    """Routes under a prefix, each wrapped by `around`. Every look at an action moves it one state on.

    `quota` counts builder submissions down.
    """

    def __init__(
        self,
        server: Server,
        chain: PolymarketChain,
        clock: Clock,
        faults: Faults,
        prefix: str = "/relayer",
        around: Callable[[Handler], Handler] = lambda handler: handler,
    ) -> None:
        self.chain = chain
        self.actions: dict[str, Action] = {}
        self.relayer_keys: dict[str, str] = {}
        self.builders: dict[str, BuilderCredentials] = {}
        self.quota = 100
        self.submitted: list[dict[str, Any]] = []
        self.relay_nonces: dict[str, int] = {}
        self._clock = clock
        self._faults = faults
        self._prefix = prefix
        self._entropy = Entropy("relayer ids")
        self._account: Any = Account.from_key(keccak(b"the local relayer"))
        chain.machine.fund(address_bytes(self._account.address), 10**6 * POL)
        server.get(prefix + "/deployed", around(self._deployed))
        server.get(prefix + "/relay-payload", around(self._relay_payload))
        server.get(prefix + "/v1/account/transactions/params", around(self._params))
        server.get(prefix + "/v1/account/transactions/{id}", around(self._progress))
        server.post(prefix + "/submit", around(self._submit))

    # ---- keys

    def make_key(self, address: str) -> str:
        """A relayer key of an account."""
        key = self._entropy.uuid4()
        self.relayer_keys[key] = address.lower()
        return key

    def make_builder(self) -> BuilderCredentials:
        secret = base64.urlsafe_b64encode(self._entropy.randbits(256).to_bytes(32)).decode()
        builder = BuilderCredentials(self._entropy.uuid4(), secret, f"{self._entropy.randbits(128):032x}")
        self.builders[builder.key] = builder
        return builder

    def _authorize(self, request: web.Request, body: bytes) -> None:
        headers = request.headers
        if "RELAYER_API_KEY" in headers:
            owner = self.relayer_keys.get(headers["RELAYER_API_KEY"])
            if owner is None or owner != headers.get("RELAYER_API_KEY_ADDRESS", "").lower():
                raise Refused(401, "invalid authorization")
            return
        builder = self.builders.get(headers.get("POLY_BUILDER_API_KEY", ""))
        if builder is None:
            raise Refused(401, "invalid authorization")
        stamp = headers.get("POLY_BUILDER_TIMESTAMP", "")
        path = request.path.removeprefix(self._prefix)
        text = f"{stamp}{request.method}{path}".encode() + body
        mac = hmac.new(base64.urlsafe_b64decode(builder.secret), text, hashlib.sha256).digest()
        good = (
            stamp.isdecimal()
            and abs(int(stamp) - self._clock.now_ms() // 1000) <= STAMP_SECONDS
            and headers.get("POLY_BUILDER_PASSPHRASE") == builder.passphrase
            and hmac.compare_digest(headers.get("POLY_BUILDER_SIGNATURE", ""), base64.urlsafe_b64encode(mac).decode())
        )
        if not good:
            raise Refused(401, "invalid authorization")
        if self.quota <= 0:
            raise Refused(429, "quota exceeded: 0 units remaining, resets in 3600 seconds")
        self.quota -= 1

    # ---- reads

    async def _deployed(self, request: web.Request) -> web.Response:
        return answer({"deployed": self.chain.has_code(_address(request.query.get("address", "")))})

    async def _params(self, request: web.Request) -> web.Response:
        owner, kind = _address(request.query.get("address", "")), request.query.get("type", "")
        if kind not in ("SAFE", "WALLET"):
            raise Refused(400, "invalid type")
        wallets = [wallet_of(owner, WalletType.SAFE)]
        if kind == "WALLET":
            wallets = [deposit_of(owner), deposit_of(owner, beacon=False)]
        found = [self.chain.batch_nonce(wallet) for wallet in wallets if self.chain.has_code(wallet)]
        return answer({"address": owner, "nonce": str(found[0] if found else 0)})

    async def _relay_payload(self, request: web.Request) -> web.Response:
        owner = _address(request.query.get("address", ""))
        return answer({"address": RELAY, "nonce": str(self._relay_nonce(owner))})

    def _relay_nonce(self, owner: str) -> int:
        return self.chain.read(RELAY_HUB, "nonces(address)", owner)

    async def _progress(self, request: web.Request) -> web.Response:
        action = self.actions.get(request.match_info["id"])
        if action is None:
            raise Refused(404, "transaction not found")
        self._advance(action)
        return answer(
            {
                "transaction_id": action.id,
                "transaction_hash": "0x" + action.hash.hex() if action.hash and action.told else "",
                "state": action.state,
                "error_msg": action.error,
            }
        )

    def _advance(self, action: Action) -> None:
        if action.state in _FINAL or action.stalled:
            return
        if action.state == "STATE_NEW" and action.execute is not None:
            execute, action.execute = action.execute, None
            action.hash = execute()
        if action.state == "STATE_EXECUTED" and action.hash:
            receipt = self.chain.machine.receipts.get(action.hash)
            if receipt is None:
                return
            if not receipt.ok:
                action.state, action.error = "STATE_FAILED", f"execution reverted: {receipt.reason}"
                return
        action.state = _NEXT[action.state]

    def release(self) -> None:
        """Let stalled actions go on, at once and to their end."""
        for action in self.actions.values():
            if action.stalled:
                action.stalled = False
                while action.state not in _FINAL:
                    self._advance(action)

    def _send(self, to: str, data: bytes) -> bytes:
        """A transaction of the relayer's own key."""
        machine = self.chain.machine
        fields = {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": machine.nonce(address_bytes(self._account.address), pending=True),
            "to": to,
            "value": 0,
            "data": data,
            "gas": GAS,
            "maxFeePerGas": 2 * machine.base_fee + 2 * machine.market_tip,
            "maxPriorityFeePerGas": 2 * machine.market_tip,
        }
        return machine.submit(bytes(self._account.sign_transaction(fields).raw_transaction))

    # ---- submit

    async def _submit(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self._authorize(request, raw)
        body = msgspec.json.decode(raw)
        if self._faults.take("busy"):
            raise Refused(400, "wallet busy: there is already an active action for this wallet")
        action = self._take(body)
        self.actions[action.id] = action
        self.submitted.append(body)
        if self._faults.take("submit_answer_lost"):
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the answer is lost on purpose")
        return answer({"transactionID": action.id, "state": action.state})

    def _take(self, body: Mapping[str, Any]) -> Action:
        kind, owner = body.get("type"), _address(body.get("from", ""))
        if kind == "SAFE":
            wallet, execute = self._safe(body, owner)
        elif kind == "PROXY":
            wallet, execute = self._proxy(body, owner)
        elif kind == "WALLET":
            wallet, execute = self._deposit(body, owner)
        elif kind == "WALLET-CREATE":
            wallet = deposit_of(owner)
            execute = self._creation(owner)
        else:
            raise Refused(400, f"invalid transaction type: {kind}")
        if kind in _FACTORIES and body.get("to") != _FACTORIES[str(kind)]:
            raise Refused(400, "invalid to address")
        if len(body.get("metadata", "")) > 500:
            raise Refused(400, "metadata too long")
        for other in self.actions.values():
            if other.wallet == wallet and other.state not in _FINAL:
                if other.stalled:
                    raise Refused(400, "wallet has in-flight action")
                # Nobody looks at it any more: it is through by now.
                while other.state not in _FINAL:
                    self._advance(other)
        stalled, told = self._faults.take("stall"), not self._faults.take("no_hash")
        action = Action(self._entropy.uuid4(), wallet, execute, stalled=stalled, told=told)
        if self._faults.take("fail"):
            action.execute, action.state, action.error = None, "STATE_FAILED", "execution reverted"
        elif self._faults.take("invalid"):
            action.execute, action.state, action.error = None, "STATE_INVALID", "invalid signature"
        elif self._faults.take("swallow"):
            action.execute = None
        return action

    def _creation(self, owner: str) -> Callable[[], bytes]:
        return lambda: self._send(DEPOSIT_FACTORY, call_data("make(address,bool)", owner, True))

    def _safe(self, body: Mapping[str, Any], owner: str) -> tuple[str, Callable[[], bytes]]:
        safe = _address(body.get("proxyWallet", ""))
        if not self.chain.has_code(safe) or owner.lower() not in [one.lower() for one in self.chain.owners(safe)]:
            raise Refused(400, "invalid proxy wallet")
        params = body["signatureParams"]
        operation = int(params["operation"])
        if operation == 1 and body["to"] != MULTI_SEND:
            raise Refused(400, "delegate call to an unknown contract")
        self._check_nonce(int(body["nonce"]), self.chain.batch_nonce(safe))
        signature = "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
        numbers = [int(params[name]) for name in ("safeTxnGas", "baseGas", "gasPrice")]
        arguments = (
            body["to"],
            int(body.get("value", "0")),
            _hex_bytes(body["data"]),
            operation,
            *numbers,
            params["gasToken"],
            params["refundReceiver"],
            _hex_bytes(body["signature"]),
        )
        # The Safe itself tells whether the signature is one of its owner.
        data = call_data(signature, *arguments)
        try:
            self.chain.machine.call(address_bytes(safe), data, address_bytes(RELAY))
        except Reverted as error:
            if error.reason.startswith("GS026"):
                raise Refused(400, "invalid signature") from error
        return safe, lambda: self._send(safe, data)

    def _proxy(self, body: Mapping[str, Any], owner: str) -> tuple[str, Callable[[], bytes]]:
        wallet = wallet_of(owner, WalletType.PROXY)
        if body.get("proxyWallet") != wallet:
            raise Refused(400, "invalid proxy wallet")
        params = body["signatureParams"]
        data, nonce = _hex_bytes(body["data"]), int(body["nonce"])
        self._check_nonce(nonce, self._relay_nonce(owner))
        text = b"rlx:" + address_bytes(owner) + address_bytes(body["to"]) + data
        for name in ("relayerFee", "gasPrice", "gasLimit"):
            text += int(params[name]).to_bytes(32)
        text += nonce.to_bytes(32) + address_bytes(params["relayHub"]) + address_bytes(params["relay"])
        if params["relayHub"] != RELAY_HUB or params["relay"] != RELAY:
            raise Refused(400, "invalid relay")
        message = keccak(b"\x19Ethereum Signed Message:\n32" + keccak(text))
        if _signer(message, body["signature"]).lower() != owner.lower():
            raise Refused(400, "invalid signature")
        relayed = call_data("relayCall(address,address,bytes)", owner, PROXY_FACTORY, data)
        return wallet, lambda: self._send(RELAY_HUB, relayed)

    def _deposit(self, body: Mapping[str, Any], owner: str) -> tuple[str, Callable[[], bytes]]:
        params = body["depositWalletParams"]
        wallet = params["depositWallet"]
        if not self.chain.has_code(_address(wallet)):
            raise Refused(400, "deposit wallet is not deployed")
        nonce, deadline = int(body["nonce"]), int(params["deadline"])
        self._check_nonce(nonce, self.chain.batch_nonce(wallet))
        calls = [(call["target"], int(call["value"]), _hex_bytes(call["data"])) for call in params["calls"]]
        kinds = ["(address,uint256,uint256,(address,uint256,bytes)[])[]", "bytes[]"]
        arguments = encode(kinds, [[(wallet, nonce, deadline, calls)], [_hex_bytes(body["signature"])]])
        data = keccak(f"proxy({','.join(kinds)})".encode())[:4] + arguments
        try:
            self.chain.machine.call(address_bytes(DEPOSIT_FACTORY), data, address_bytes(RELAY))
        except Reverted as error:
            if error.reason in ("wrong signature", "expired"):
                raise Refused(400, f"invalid batch: {error.reason}") from error
        return wallet, lambda: self._send(DEPOSIT_FACTORY, data)

    @staticmethod
    def _check_nonce(given: int, expected: int) -> None:
        if given != expected:
            raise Refused(400, f"batch nonce {given} does not match on-chain nonce {expected}")


def _address(text: object) -> str:
    try:
        address_bytes(str(text))
    except ValueError as error:
        raise Refused(400, "invalid address") from error
    return str(text)


def _hex_bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _signer(digest: bytes, signature: str) -> str:
    raw = _hex_bytes(signature)
    if len(raw) != 65 or raw[64] not in (27, 28):
        return _ZERO
    try:
        public = PublicKey.from_signature_and_message(raw[:64] + bytes([raw[64] - 27]), digest, hasher=None)
    except Exception:  # coincurve raises its own plain Exception
        return _ZERO
    return address_of(public)
