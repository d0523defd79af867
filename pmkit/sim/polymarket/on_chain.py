"""Polymarket on the local chain: contracts at their real addresses, wallets of every kind, conditions, shares.

The ConditionalTokens and the Safe are the real bytecode, everything else doubles with the published signatures. None of
it is in pmkit's wheel: `read_contracts` takes it from a directory (tests/data/chain). Whoever holds what is the chain's
truth; amounts are base units. Reference: polymarket-markets-and-redeem.md, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from pmkit.clock import Clock
from pmkit.sim.chain.machine import Machine
from pmkit.sim.polymarket.ctf_ids import ORACLE, USDCE, condition_of, token_of
from pmkit.sim.polymarket.signatures import address_bytes, checksummed
from pmkit.sim.polymarket.wallets import WalletType, deposit_of, wallet_of

CTF = "0x4D97DCd97eC945f40cF65F87097ACe5EA0476045"
PUSD = "0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB"
WCOL = "0x3A3BD7bb9528E159577F7C2e685CC81A765002E2"
ADAPTER = "0xAdA100Db00Ca00073811820692005400218FcE1f"
NEG_RISK_ADAPTER = "0xadA2005600Dec949baf300f4C6120000bDB6eAab"
MANAGER = "0x006F54F7f9A22e0000CC2AB60031000000ae9fEF"
ROUTER = "0x12121212006e4CD160D18e3f00711DA5c3372600"
PROXY_FACTORY = "0xaB45c5A4B0c941a2F231C04C3f49182e1A254052"
PROXY_CODE = "0x44e999d5c2F66Ef0861317f9A4805AC2e90aEB4f"
DEPOSIT_FACTORY = "0x00000000000Fb5C9ADea0298D729A0CB3823Cc07"
DEPOSIT_CODE = "0x58CA52ebe0DadfdF531Cde7062e76746de4Db1eB"
DEPOSIT_BEACON = "0x7A18EDfe055488A3128f01F563e5B479D92ffc3a"
RELAY_HUB = "0xD216153c06E857cD7f72665E0aF1d7D82172F494"
MULTI_SEND = "0xA238CBeb142c10Ef7Ad8442C6D1f9E89e07e7761"
# Where Safe 1.3.0 is on every chain.
SAFE_CODE = "0xd9Db270c1B5E3Bd161E8c8503c55cEABeE709552"
SAFE_HANDLER = "0xf48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4"

POL = 10**18
_HOUSE = "0x" + "00" * 18 + "0f0f"
_ZERO = "0x" + "0" * 40
_CONSTRUCTED = {
    "ConditionalTokens": CTF,
    "MultiSend": MULTI_SEND,
    "GnosisSafe": SAFE_CODE,
    "CompatibilityFallbackHandler": SAFE_HANDLER,
}
_PLACED = {
    "CtfCollateralAdapter": (ADAPTER,),
    "NegRiskCtfCollateralAdapter": (NEG_RISK_ADAPTER,),
    "Token": (PUSD, USDCE, WCOL),
    "PositionManager": (MANAGER,),
    "Router": (ROUTER,),
    "ProxyWalletFactory": (PROXY_FACTORY,),
    "ProxyWallet": (PROXY_CODE,),
    "RelayHub": (RELAY_HUB,),
    "DepositWalletFactory": (DEPOSIT_FACTORY,),
    "DepositBeacon": (DEPOSIT_BEACON,),
    "DepositWallet": (DEPOSIT_CODE,),
}


def read_contracts(directory: Path) -> dict[str, bytes]:
    """Bytecode by name from every JSON file of a directory. Reads files."""
    found: dict[str, bytes] = {}
    for path in sorted(directory.glob("*.json")):
        found.update({name: bytes.fromhex(code[2:]) for name, code in json.loads(path.read_text()).items()})
    return found


def call_data(signature: str, *arguments: object) -> bytes:
    """A call of a plain function, such as `balanceOf(address)`."""
    kinds = signature[signature.index("(") + 1 : -1]
    return keccak(signature.encode())[:4] + encode(kinds.split(",") if kinds else [], arguments)


class Condition:
    """A market as the chain knows it. `ids`: position ids of the outcomes. `protocol`: "v1" or "v2"."""

    def __init__(self, protocol: str, neg_risk: bool, condition_id: str, question: bytes, ids: tuple[int, int]) -> None:
        self.protocol = protocol
        self.neg_risk = neg_risk
        self.condition_id = condition_id
        self.question = question
        self.ids = ids

    @property
    def tokens(self) -> str:
        """The ERC-1155 contract."""
        return MANAGER if self.protocol == "v2" else CTF

    @property
    def spender(self) -> str:
        """Who redeems it, and needs an approval."""
        if self.protocol == "v2":
            return ROUTER
        return NEG_RISK_ADAPTER if self.neg_risk else ADAPTER


class PolymarketChain:
    """The chain with Polymarket's contracts. One may serve many tests, each with keys and questions of its own."""

    def __init__(self, clock: Clock, contracts: dict[str, bytes]) -> None:
        self.machine = Machine(clock)
        self._contracts = contracts
        self._questions = 0
        for name, address in _CONSTRUCTED.items():
            self.machine.construct(address_bytes(address), contracts[name])
        for name, addresses in _PLACED.items():
            for address in addresses:
                self.machine.place(address_bytes(address), contracts[name])
        for collateral in (USDCE, WCOL):
            self.act(_HOUSE, collateral, "approve(address,uint256)", CTF, 2**256 - 1)

    # ---- calls

    def act(self, sender: str, to: str, signature: str, *arguments: object) -> bytes:
        """Anybody does something, without a signature."""
        return self.machine.act(address_bytes(sender), address_bytes(to), call_data(signature, *arguments))

    def read(self, to: str, signature: str, *arguments: object) -> int:
        """A view with one number as its answer."""
        return int.from_bytes(self.machine.call(address_bytes(to), call_data(signature, *arguments)))

    # ---- wallets

    def make_wallet(self, owner: str, kind: WalletType, *, beacon: bool = True, pol: int = 1000 * POL) -> str:
        """The owner's wallet of that kind, on chain; the owner has some POL for gas."""
        self.machine.fund(address_bytes(owner), pol)
        if kind is WalletType.PROXY:
            self.act(owner, PROXY_FACTORY, "make(address)", owner)
        elif kind is WalletType.SAFE:
            self._make_safe(owner, wallet_of(owner, kind))
        elif kind is WalletType.DEPOSIT:
            self.act(owner, DEPOSIT_FACTORY, "make(address,bool)", owner, beacon)
            return deposit_of(owner, beacon=beacon)
        return wallet_of(owner, kind)

    def _make_safe(self, owner: str, safe: str) -> None:
        """Polymarket's factory has init code that is not public: the proxy is placed where it would make it."""
        raw = address_bytes(safe)
        self.machine.place(raw, self._contracts["GnosisSafeProxy"])
        self.machine.change(lambda state: state.set_storage(raw, 0, int.from_bytes(address_bytes(SAFE_CODE))))
        self.act(
            owner,
            safe,
            "setup(address[],uint256,address,bytes,address,address,uint256,address)",
            [owner],
            1,
            _ZERO,
            b"",
            SAFE_HANDLER,
            _ZERO,
            0,
            _ZERO,
        )

    def has_code(self, address: str) -> bool:
        return bool(self.machine.state().get_code(address_bytes(address)))

    def approve(self, holder: str, condition: Condition, approved: bool = True) -> None:
        """Let the market's adapter or router take the holder's shares."""
        self.act(holder, condition.tokens, "setApprovalForAll(address,bool)", condition.spender, approved)

    # ---- markets

    def ask(self, *, protocol: str = "v1", neg_risk: bool = False) -> Condition:
        """A new question of two outcomes."""
        self._questions += 1
        question = keccak(f"question {self._questions}".encode())
        if protocol == "v2":
            prefix = b"\x01" + question[:16] + (2).to_bytes(2) + bytes(8) + (137).to_bytes(2) + bytes(2)
            first = int.from_bytes(prefix + b"\0")
            return Condition("v2", neg_risk, "0x" + prefix.hex(), question, (first, first + 1))
        return self.prepare(question, neg_risk=neg_risk)

    def prepare(self, question: bytes, *, neg_risk: bool = False) -> Condition:
        """A question of that id under Protocol V1."""
        self.act(_HOUSE, CTF, "prepareCondition(address,bytes32,uint256)", ORACLE, question, 2)
        condition = condition_of(question)
        up, down = (token_of(condition, outcome, WCOL if neg_risk else USDCE) for outcome in (0, 1))
        return Condition("v1", neg_risk, "0x" + condition.hex(), question, (up, down))

    def position_id(self, condition: Condition, outcome: int) -> int:
        """The token id of an outcome as the contract derives it."""
        signature = "getCollectionId(bytes32,bytes32,uint256)"
        raw = bytes.fromhex(condition.condition_id[2:])
        collection = self.read(CTF, signature, bytes(32), raw, 1 << outcome).to_bytes(32)
        return self.read(CTF, "getPositionId(address,bytes32)", WCOL if condition.neg_risk else USDCE, collection)

    def give(self, holder: str, condition: Condition, up: int, down: int = 0) -> None:
        """Shares for a holder. They come from a split, so that the chain owes what they can pay."""
        if condition.protocol == "v2":
            for position, amount in zip(condition.ids, (up, down), strict=True):
                if amount:
                    self.act(_HOUSE, MANAGER, "mint(address,uint256,uint256)", holder, position, amount)
            return
        most = max(up, down)
        collateral = WCOL if condition.neg_risk else USDCE
        self.act(_HOUSE, collateral, "mint(address,uint256)", _HOUSE, most)
        split = "splitPosition(address,bytes32,bytes32,uint256[],uint256)"
        self.act(_HOUSE, CTF, split, collateral, bytes(32), bytes.fromhex(condition.condition_id[2:]), [1, 2], most)
        for position, amount in zip(condition.ids, (up, down), strict=True):
            if amount:
                move = "safeTransferFrom(address,address,uint256,uint256,bytes)"
                self.act(_HOUSE, CTF, move, _HOUSE, holder, position, amount, b"")

    def report(self, condition: Condition, payouts: Sequence[int]) -> None:
        """The oracle's answer, e.g. (1, 0), or (1, 1) for a tie."""
        if condition.protocol == "v2":
            padded = bytes.fromhex(condition.condition_id[2:]).ljust(32, b"\0")
            self.act(ORACLE, MANAGER, "report(bytes32,uint256,uint256)", padded, *payouts)
        else:
            self.act(ORACLE, CTF, "reportPayouts(bytes32,uint256[])", condition.question, list(payouts))

    # ---- truth

    def shares(self, holder: str, condition: Condition) -> tuple[int, int]:
        """What a holder has of both outcomes."""
        up, down = (
            self.read(condition.tokens, "balanceOf(address,uint256)", holder, position) for position in condition.ids
        )
        return up, down

    def cash(self, holder: str, token: str = PUSD) -> int:
        """What a holder has in pUSD (or another token)."""
        return self.read(token, "balanceOf(address)", holder)

    def batch_nonce(self, wallet: str) -> int:
        """The next nonce of a Safe or a deposit wallet."""
        return self.read(wallet, "nonce()")

    def owners(self, safe: str) -> list[str]:
        """Who signs for a Safe."""
        (found,) = decode(["address[]"], self.machine.call(address_bytes(safe), call_data("getOwners()")))
        return [checksummed(address_bytes(owner)) for owner in found]
