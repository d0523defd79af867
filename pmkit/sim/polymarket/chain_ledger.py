"""The chain beside the venue's ledger: what trades move there is moved on chain, what is redeemed there is booked here.

Movements are repeated when somebody looks at the chain, so that trading does not wait for it. A condition is there as
soon as somebody holds shares of its window; its result follows `report_seconds` (market time) after the venue's pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from pmkit.sim.chain.machine import Block, Receipt
from pmkit.sim.chain.rpc import ChainRpc
from pmkit.sim.polymarket.accounts import HOUSE, Account, Entry
from pmkit.sim.polymarket.market import Window
from pmkit.sim.polymarket.on_chain import CTF, PUSD, Condition, PolymarketChain, read_contracts
from pmkit.sim.polymarket.relayer import Relayer
from pmkit.sim.polymarket.signatures import address_bytes

if TYPE_CHECKING:
    from pmkit.sim.polymarket.venue import PolymarketVenue

_HOLDER = "0x" + "00" * 18 + "0f0e"
_WHOLE = 1_000_000


class ChainLedger:
    """RPC and relayer of a venue, on its Data port. For tests: `chain`, `rpc`, `relayer`, `report_seconds`."""

    def __init__(self, venue: PolymarketVenue, contracts: Path) -> None:
        self.report_seconds = 10.0
        self.chain = PolymarketChain(venue.clock, read_contracts(contracts))
        self.rpc = ChainRpc(self.chain.machine, venue.faults)
        self.relayer = Relayer(venue.data, self.chain, venue.clock, venue.faults, around=self._after_catching_up)
        venue.data.post("/rpc", self._after_catching_up(self.rpc.handle))
        self._venue = venue
        self._behind: deque[Entry] = deque()
        self._wallets: set[str] = set()
        self._conditions: dict[str, tuple[Window, Condition]] = {}
        self._booking = False
        venue.accounts.noted.append(self._noted)
        self.chain.machine.mined.append(self._mined)

    def _after_catching_up(
        self, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.catch_up()
            return await handle(request)

        return handler

    # ---- from the ledger to the chain

    def _noted(self, entry: Entry) -> None:
        if not self._booking and entry.wallet != HOUSE:
            self._behind.append(entry)

    def catch_up(self) -> None:
        """Bring the chain up to the ledger and to the time of day."""
        while self._behind:
            self._repeat(self._behind.popleft())
        now = self._venue.clock.now_ms() - round(self.report_seconds * 1000)
        for key, (window, condition) in list(self._conditions.items()):
            if now >= window.resolved_ms and not self.chain.read(
                CTF, "payoutDenominator(bytes32)", bytes.fromhex(key[2:])
            ):
                self.chain.report(condition, (1, 0) if self._venue.rows.went_up(window) else (0, 1))

    def _repeat(self, entry: Entry) -> None:
        account = self._venue.accounts.find(entry.wallet)
        if account is None:
            raise KeyError(entry.wallet)
        wallet = self._on_chain(account)
        if cash := entry.cash - entry.fee:
            name = "mint(address,uint256)" if cash > 0 else "burn(address,uint256)"
            self.chain.act(_HOLDER, PUSD, name, wallet, abs(cash))
        if entry.token and entry.shares:
            window, condition = self._condition(entry.token)
            outcome = window.outcome_of(entry.token)
            if entry.shares > 0:
                amounts = (entry.shares, 0) if outcome == 0 else (0, entry.shares)
                self.chain.give(wallet, condition, *amounts)
            else:
                move = "safeTransferFrom(address,address,uint256,uint256,bytes)"
                self.chain.act(wallet, CTF, move, wallet, _HOLDER, condition.ids[outcome], -entry.shares, b"")

    def _on_chain(self, account: Account) -> str:
        if account.wallet not in self._wallets:
            self._wallets.add(account.wallet)
            self.chain.make_wallet(account.owner, account.kind)
        return account.wallet

    def _condition(self, token: str) -> tuple[Window, Condition]:
        window = self._venue.listings.find(token)
        if window is None:
            raise KeyError(token)
        if window.condition_id not in self._conditions:
            condition = self.chain.prepare(bytes.fromhex(window.question_id[2:]))
            self._conditions[window.condition_id] = window, condition
        return self._conditions[window.condition_id]

    # ---- from the chain to the ledger

    def _mined(self, block: Block) -> None:
        for receipt in block.receipts:
            if receipt.ok:
                self._book(receipt)

    def _book(self, receipt: Receipt) -> None:
        """Whatever a transaction redeemed: the shares that left a wallet for good."""
        raw = {int.from_bytes(address_bytes(wallet)): wallet for wallet in self._wallets}
        ctf = address_bytes(CTF)
        left = {
            raw[log.topics[2]]
            for log in receipt.logs
            if log.address == ctf and len(log.topics) == 4 and log.topics[2] in raw
        }
        for wallet in left:
            account = self._venue.accounts.find(wallet)
            assert account is not None
            for window, condition in self._conditions.values():
                held = [account.shares[token] for token in window.tokens]
                if any(held) and self.chain.shares(wallet, condition) == (0, 0):
                    up = self._venue.rows.went_up(window)
                    payouts = dict(zip(window.tokens, (_WHOLE, 0) if up else (0, _WHOLE), strict=True))
                    self._booking = True
                    try:
                        self._venue.accounts.redeem(account, window.condition_id, payouts)
                    finally:
                        self._booking = False
