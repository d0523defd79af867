"""Redeem vectors as the official SDK made them: wallets, calldata, Safe hashes, signatures, relayer bodies, headers.

A file names its calls but not always which of them went into a batch; that is found by encoding: a batch is reproduced
where some of the file's calls, in some order, give exactly its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from pmkit.exchanges.polymarket import calldata, contracts
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.relayer_messages import (
    BATCH_SECONDS,
    BuilderKey,
    RelayerKey,
    body_bytes,
    proxy_body,
    safe_body,
    wallet_body,
    wallet_create_body,
)
from pmkit.exchanges.polymarket.wallet_actions import (
    batch_digest,
    marked_message,
    message_digest,
    proxy_struct,
    safe_action,
    safe_digest,
)
from pmkit.exchanges.polymarket.wallets import wallets_of
from tests.vectors.polymarket_orders import differences

SECTIONS = (
    "calls",
    "safe",
    "proxy",
    "deposit_wallet",
    "proxy_factory_calldata",
    "safe_multisend_calldata_two_calls",
    "wallet_create_body",
    "builder_headers",
    "relayer_headers",
)
_LONGEST_BATCH = 3
_CTF, _MANAGER, _ROUTER = contracts.CONDITIONAL_TOKENS, contracts.POSITION_MANAGER, contracts.ROUTER


def recognise(content: Any) -> bool:
    return isinstance(content, dict) and sum(isinstance(content.get(name), (dict, str)) for name in SECTIONS) >= 2


def check(content: dict[str, Any], path: Path) -> Iterator[tuple[str, str | None]]:
    vectors = Vectors(content)
    for name, problem in vectors.all():
        try:
            found = problem()
        except Exception as error:  # one odd vector must not hide the others
            found = f"{type(error).__name__}: {error}"
        yield name, found


class Vectors:
    """One file."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.signer = Signer(content["private_key"])
        self.inputs = content.get("inputs", {})
        self.nonces = self.inputs.get("nonces", {})
        self.wallets = wallets_of(self.signer.address)
        self.calls = {name: call_of(row) for name, row in content.get("calls", {}).items()}

    def all(self) -> Iterator[tuple[str, Callable[[], str | None]]]:
        content = self.content
        if "eoa" in content:
            yield "eoa", lambda: differences(eoa=(self.signer.address, content["eoa"]))
        for name, address in content.get("wallets", {}).items():
            yield f"wallets {name}", lambda n=name, a=address: self.wallet(n, a)  # type: ignore[misc]
        for name, call in self.calls.items():
            yield f"calls {name}", lambda n=name, c=call: self.call(n, c)  # type: ignore[misc]
        for name, data in content.get("proxy_factory_calldata", {}).items():
            yield f"proxy_factory_calldata {name}", lambda d=data: self.proxy_data(d)  # type: ignore[misc]
        for name in (key for key in content if key.startswith("safe_multisend_calldata")):
            yield name, lambda d=content[name]: self.multi_send(d)  # type: ignore[misc]
        for name, row in content.get("safe", {}).items():
            yield f"safe {name}", lambda r=row: self.safe(r)  # type: ignore[misc]
        for section, problem in (
            ("proxy", self.proxy),
            ("deposit_wallet", self.deposit),
            ("wallet_create_body", self.create),
            ("builder_headers", self.builder),
            ("relayer_headers", self.relayer),
        ):
            if section in content:
                yield section, lambda p=problem, r=content[section]: p(r)  # type: ignore[misc]

    # -- single vectors ------------------------------------------------------------------------------------------

    def wallet(self, name: str, address: str) -> str | None:
        own = self.wallets
        kinds = (("proxy", own.proxy), ("safe", own.safe), ("beacon", own.deposit_beacon), ("uups", own.deposit_uups))
        made = next((made for part, made in kinds if part in name), None)
        if made is None:
            return "no kind of wallet has that name"
        return differences(address=(made, address))

    def call(self, name: str, expected: Call) -> str | None:
        made = self.made(name) or read_back(expected)
        if made is None:
            return f"no call is known by that name or selector 0x{expected.data[:4].hex()}"
        return differences(to=(made.to, expected.to), data=(made.data.hex(), expected.data.hex()), value=(made[2], 0))

    def made(self, name: str) -> Call | None:
        """The call of that name, made from the file's inputs."""
        one, two = self.inputs.get("condition_id_ctf", ""), self.inputs.get("condition_id_v2", "")
        amount = self.inputs.get("amount", 0)
        adapter = contracts.NEG_RISK_ADAPTER if "neg_risk" in name else contracts.COLLATERAL_ADAPTER
        if match := re.fullmatch(r"router_redeem_outcome(\d+)", name):
            return calldata.router_redeem(_ROUTER, two, int(match[1]), int(amount))
        if match := re.fullmatch(r"ctf_balance_of_token_(\d+)", name):
            return calldata.balance_of(_CTF, self.signer.address, int(match[1]))
        plain: dict[str, Callable[[], Call]] = {
            "ctf_redeem": lambda: calldata.redeem_positions(adapter, one),
            "ctf_split": lambda: calldata.split_position(adapter, one, int(amount)),
            "ctf_merge": lambda: calldata.merge_positions(adapter, one, int(amount)),
            "ctf_set_approval": lambda: calldata.set_approval_for_all(_CTF, adapter),
            "router_split": lambda: calldata.router_split(_ROUTER, two, int(amount)),
            "router_merge": lambda: calldata.router_merge(_ROUTER, two, int(amount)),
        }
        usual = re.fullmatch(r"(?:ctf_\w+?_(?:via|for)_(?:neg_risk_)?collateral_adapter|router_\w+)", name)
        return next((make() for start, make in plain.items() if usual and name.startswith(start)), None)

    def proxy_data(self, data: str) -> str | None:
        for batch in self.batches():
            if calldata.proxy_batch(contracts.PROXY_FACTORY, batch).data.hex() == data[2:].lower():
                return None
        return "no calls of the file give these bytes"

    def multi_send(self, data: str) -> str | None:
        for batch in self.batches(2):
            if calldata.multi_send(contracts.SAFE_MULTI_SEND, batch).data.hex() == data[2:].lower():
                return None
        return "no calls of the file give these bytes"

    def safe(self, row: dict[str, Any]) -> str | None:
        body = row["relayer_submit_body"]
        nonce = int(self.nonces.get("safe", body["nonce"]))
        for batch in self.batches():
            action = safe_action(batch)
            if "0x" + action.call.data.hex() == body["data"].lower():
                break
        else:
            return "no calls of the file give its data"
        digest = safe_digest(self.wallets.safe, action, nonce)
        message = marked_message(self.signer.sign(message_digest(digest)))
        made = safe_body(self.signer, self.wallets.safe, batch, nonce, body["metadata"])
        direct = "direct_eip712_signature_for_execTransaction"
        return differences(
            safe_tx_hash=("0x" + digest.hex(), row.get("safe_tx_hash", "0x" + digest.hex())),
            message=("0x" + message.hex(), row.get("eth_sign_signature_v_plus_4", body["signature"])),
            direct=("0x" + self.signer.sign(digest).hex(), row.get(direct, "0x" + self.signer.sign(digest).hex())),
            body=(made, body),
            text=(body_bytes(made), compact(body)),
        )

    def proxy(self, row: dict[str, Any]) -> str | None:
        body = row["relayer_submit_body"]
        nonce = int(self.nonces.get("proxy", body["nonce"]))
        relay = self.nonces.get("relay_address", body["signatureParams"]["relay"])
        gas = int(self.inputs.get("proxy_gas_limit", body["signatureParams"]["gasLimit"]))
        for batch in self.batches():
            made = proxy_body(self.signer, self.wallets.proxy, batch, nonce, relay, gas, body["metadata"])
            if made["data"] == body["data"].lower():
                break
        else:
            return "no calls of the file give its data"
        struct = proxy_struct(
            self.signer.address, contracts.PROXY_FACTORY, bytes.fromhex(made["data"][2:]), nonce, gas, relay
        )
        return differences(
            struct_hash=("0x" + struct.hex(), row.get("struct_hash", "0x" + struct.hex())),
            signature=(made["signature"], row.get("signature", body["signature"])),
            body=(made, body),
            text=(body_bytes(made), compact(body)),
        )

    def deposit(self, row: dict[str, Any]) -> str | None:
        body = row["relayer_submit_body"]
        params = body["depositWalletParams"]
        nonce = int(self.nonces.get("wallet", body["nonce"]))
        stamp = self.inputs.get("timestamp")
        deadline = int(params["deadline"]) if stamp is None else int(stamp) + BATCH_SECONDS
        wallet = params["depositWallet"]
        if wallet not in (self.wallets.deposit_beacon, self.wallets.deposit_uups):
            return f"{wallet} is no deposit wallet of this key"
        calls = [Call(call["target"], bytes.fromhex(call["data"][2:]), int(call["value"])) for call in params["calls"]]
        made = wallet_body(self.signer, wallet, calls, nonce, deadline, body["metadata"])
        signature = "0x" + self.signer.sign(batch_digest(wallet, calls, nonce, deadline)).hex()
        return differences(
            calls=(all(call in self.calls.values() for call in calls), True),
            signature=(signature, row.get("signature", body["signature"])),
            deadline=(str(deadline), row.get("deadline", params["deadline"])),
            body=(made, body),
            text=(body_bytes(made), compact(body)),
        )

    def create(self, row: dict[str, Any]) -> str | None:
        made = wallet_create_body(self.signer.address, row["metadata"])
        return differences(body=(made, row), text=(body_bytes(made), compact(row)))

    def builder(self, row: dict[str, Any]) -> str | None:
        headers = row["headers"]
        key = BuilderKey(headers["POLY_BUILDER_API_KEY"], row["secret"], headers["POLY_BUILDER_PASSPHRASE"])
        stamp = int(headers["POLY_BUILDER_TIMESTAMP"])
        made = key.headers(stamp, row["method"], row["path"], (row.get("body") or "").encode())
        return differences(headers=(made, headers))

    def relayer(self, row: dict[str, Any]) -> str | None:
        headers = row.get("headers", row)
        key = RelayerKey(headers["RELAYER_API_KEY"], headers["RELAYER_API_KEY_ADDRESS"])
        return differences(headers=(key.headers(0, "POST", "/submit"), headers))

    def batches(self, shortest: int = 1) -> Iterator[Sequence[Call]]:
        """Every batch of the file's calls; the usual ones come early."""
        for length in range(shortest, _LONGEST_BATCH + 1):
            yield from permutations(self.calls.values(), length)


def call_of(row: dict[str, Any]) -> Call:
    return Call(row["to"], bytes.fromhex(row["data"][2:]), int(row.get("value", 0)))


def compact(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def read_back(call: Call) -> Call | None:
    """A call of an unknown name, encoded again from its own arguments."""
    words = [call.data[4 + place : 36 + place] for place in range(0, len(call.data) - 4, 32)]

    def number(place: int) -> int:
        return int.from_bytes(words[place])

    def address(place: int) -> str:
        return "0x" + words[place][12:].hex()

    def condition(place: int) -> str:
        return "0x" + words[place].hex()

    forms: dict[str, Callable[[], Call]] = {
        "setApprovalForAll(address,bool)": lambda: calldata.set_approval_for_all(call.to, address(0), bool(number(1))),
        "isApprovedForAll(address,address)": lambda: calldata.is_approved_for_all(call.to, address(0), address(1)),
        "balanceOf(address,uint256)": lambda: calldata.balance_of(call.to, address(0), number(1)),
        "balanceOf(address)": lambda: calldata.erc20_balance(call.to, address(0)),
        "payoutDenominator(bytes32)": lambda: calldata.payout_denominator(call.to, condition(0)),
        "payoutNumerators(bytes32,uint256)": lambda: calldata.payout_numerator(call.to, condition(0), number(1)),
        "getPayout(uint256,uint256)": lambda: calldata.get_payout(call.to, number(0), number(1)),
        "redeemPositions(address,bytes32,bytes32,uint256[])": lambda: calldata.redeem_positions(
            call.to, condition(2), [number(place) for place in range(5, len(words))]
        ),
        "splitPosition(address,bytes32,bytes32,uint256[],uint256)": lambda: calldata.split_position(
            call.to, condition(2), number(4)
        ),
        "mergePositions(address,bytes32,bytes32,uint256[],uint256)": lambda: calldata.merge_positions(
            call.to, condition(2), number(4)
        ),
        "redeem(bytes31,uint256,uint256)": lambda: calldata.router_redeem(call.to, condition(0), number(1), number(2)),
        "split(bytes31,uint256)": lambda: calldata.router_split(call.to, condition(0), number(1)),
        "merge(bytes31,uint256)": lambda: calldata.router_merge(call.to, condition(0), number(1)),
    }
    return next((make() for form, make in forms.items() if calldata.selector(form) == call.data[:4]), None)
