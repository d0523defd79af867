"""Redeeming: the winnings of a resolved market into pUSD, by whatever way the wallet has.

Look (chain), send once, wait, read the balances again, report what is proven. A key's transactions go one at a time.
Whatever happens in between, a second call is safe: the chain pays shares once, and each call looks before it sends.
Before anything is sent errors are raised; afterwards no failed query hides what was sent: it becomes a result.
"""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Final

from pmkit.clock import Clock, to_utc
from pmkit.errors import ConfigError, PmkitError, RedeemRefused
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket import redeem_verdict as verdict
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.chain import CallReverted, Chain
from pmkit.exchanges.polymarket.contracts import PROXY_FACTORY
from pmkit.exchanges.polymarket.redeem_plan import FindMarket, Planner
from pmkit.exchanges.polymarket.redeem_types import (
    DUST,
    Plan,
    RedeemCause,
    RedeemPath,
    RedeemResult,
    RedeemStatus,
    Wallet,
)
from pmkit.exchanges.polymarket.redeem_verdict import Sent
from pmkit.exchanges.polymarket.relayer import AnswerLost, Relayer, Skipped
from pmkit.exchanges.polymarket.relayer_messages import Progress, RelayerState
from pmkit.exchanges.polymarket.transaction_sender import Flight, NonceTaken, Patience, TransactionSender
from pmkit.exchanges.polymarket.transactions import Receipt
from pmkit.exchanges.polymarket.wallet_actions import safe_action, safe_digest

_LOG = logging.getLogger("pmkit.polymarket")

TRIES: Final = 3
"""How often a redeem is begun anew after another program used its nonce."""


class Redeemer:
    """Redeems with one key. `relayer` is None where no key for it was given."""

    def __init__(
        self,
        chain: Chain,
        find_market: FindMarket,
        signer: Signer,
        clock: Clock,
        *,
        relayer: Relayer | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.planner = Planner(chain)
        self._chain = chain
        self._find_market = find_market
        self._signer = signer
        self._clock = clock
        self._relayer = relayer
        self._patience = patience or Patience()
        self.sender = TransactionSender(chain, signer, clock, self._patience)

    async def redeem(
        self,
        condition_id: str,
        wallet: Wallet,
        *,
        via: RedeemPath | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> RedeemResult:
        """See `PolymarketExchange.redeem`."""
        market = await self._find_market(condition_id)
        async with self.sender.lock:
            earlier = await self.sender.settle(market.market_id)
            for _ in range(TRIES):
                plan = await self.planner.plan(market, wallet, via=via, losers=losers, minimum=minimum)
                if isinstance(earlier, Flight):
                    return _pending(plan, earlier)
                if plan.cause:
                    return self._nothing(plan, earlier)
                if plan.path is RedeemPath.RELAYER:
                    return await self._by_relayer(plan)
                try:
                    return await self._by_transaction(plan)
                except NonceTaken as error:
                    _LOG.warning("polymarket: %s", error)
        raise RedeemRefused(
            "blocked", f"{TRIES} times another program used the nonce of {self._signer.address}: stop it first"
        )

    def _nothing(self, plan: Plan, earlier: Receipt | None) -> RedeemResult:
        """There is nothing to send; perhaps because a transaction of an earlier call was mined meanwhile."""
        if earlier is None:
            return verdict.no_effect(plan, plan.cause, plan.reason)
        sent = Sent((earlier.hash,), gas_cost=earlier.gas_cost)
        effect = verdict.effect_of(earlier, plan)
        if not (earlier.ok and effect.taken and effect.paid):
            return verdict.no_effect(plan, plan.cause, plan.reason, sent)
        reason = f"{earlier.hash}, which an earlier call sent, redeemed it"
        return verdict.result(plan, RedeemStatus.SUCCESS, RedeemCause.NONE, reason, sent, effect.paid)

    # -- by the key's own transactions ---------------------------------------------------------------------------

    async def _by_transaction(self, plan: Plan) -> RedeemResult:
        await self._quiet()
        sent = Sent()
        receipt: Receipt | None = None
        # A plain key sends one call after the other, a wallet makes all of them in one.
        for call in plan.calls if plan.path is RedeemPath.EOA else (await self._wrapped(plan),):
            try:
                done = await self.sender.send(plan.market.market_id, call)
            except CallReverted as error:
                raise _would_revert(plan, error) from error
            if isinstance(done, Flight):
                return _pending(plan, done, sent)
            receipt = done
            sent = Sent((*sent.hashes, done.hash), gas_cost=sent.gas_cost + done.gas_cost)
            if not done.ok:
                return await self._reverted(plan, call, done, sent)
        assert receipt is not None
        return verdict.judge(plan, receipt, await self._sizes_after(plan, receipt.block), sent)

    async def _quiet(self) -> None:
        """Wait for transactions of this key that somebody else has sent: ours would only queue behind them.

        Raises RedeemRefused where they do not go through.
        """
        end = self._clock.io_monotonic() + self._patience.lag
        while True:
            pending = await self._chain.nonce(self._signer.address, pending=True)
            mined = await self._chain.nonce(self._signer.address, pending=False)
            if pending <= mined:
                return
            if self._clock.io_monotonic() >= end:
                raise RedeemRefused(
                    "blocked",
                    f"{pending - mined} transaction(s) of {self._signer.address} wait at {self._chain.host} since more "
                    f"than {self._patience.lag:.0f} s: let them be mined, or replace them in your wallet",
                )
            await self._clock.io_sleep(self._patience.poll)

    async def _wrapped(self, plan: Plan) -> Call:
        """The plan's calls as the wallet's owner sends them."""
        if plan.path is RedeemPath.PROXY:
            return calldata.proxy_batch(PROXY_FACTORY, plan.calls)
        safe = plan.wallet.address
        if not await self._chain.code(safe):
            raise ConfigError(f"there is no Safe at {safe} (yet): check POLYMARKET_FUNDER_ADDRESS")
        nonce = await self._chain.number(calldata.safe_nonce(safe))
        action = safe_action(plan.calls)
        signature = self._signer.sign(safe_digest(safe, action, nonce))
        return calldata.exec_transaction(safe, action.call, action.operation, signature)

    async def _reverted(self, plan: Plan, call: Call, receipt: Receipt, sent: Sent) -> RedeemResult:
        try:
            await self._chain.call(call, sender=self._signer.address, block=receipt.block - 1)
            why = "no reason is known: one block before it would have worked"
        except CallReverted as error:
            why = error.reason or "the contract gave no reason"
        except PmkitError as error:
            why = f"the reason could not be read: {error}"
        reason = f"{receipt.hash} reverted ({why}): the shares are where they were"
        return verdict.no_effect(plan, RedeemCause.REVERTED, reason, sent)

    async def _sizes_after(self, plan: Plan, block: int) -> tuple[int, ...] | None:
        """The shares as of a block, for as long as a node may lag behind it."""
        end = self._clock.io_monotonic() + self._patience.lag
        while True:
            try:
                return (await self.planner.state(plan, block))[0]
            except PmkitError as error:
                _LOG.info("polymarket: %s", error)
            if self._clock.io_monotonic() >= end:
                return None
            await self._clock.io_sleep(self._patience.poll)

    # -- by the relayer ----------------------------------------------------------------------------------------------

    async def _by_relayer(self, plan: Plan) -> RedeemResult:
        relayer = self._relayer
        if relayer is None:
            raise ConfigError(
                f"{plan.wallet.address} redeems through the relayer, which needs a key: POLYMARKET_RELAYER_API_KEY "
                "(polymarket.com, Settings, API keys) or the three of POLYMARKET_BUILDER_API_KEY"
            )
        if plan.approved:  # else the call only works after the approval in the same batch
            for call in plan.calls:
                try:
                    await self._chain.call(call, sender=plan.wallet.address)
                except CallReverted as error:
                    raise _would_revert(plan, error) from error
        metadata = f"Redeem positions for condition {plan.market.condition_id}"
        try:
            relayer_id = await relayer.submit(plan.wallet.kind, plan.wallet.address, plan.calls, metadata)
        except Skipped as error:
            sizes, _ = await self.planner.state(plan)
            if sizes != plan.sizes:
                return verdict.elsewhere(plan, f"the relayer skipped it ({error})")
            reason = f"the relayer skipped it ({error}), though the shares are there: try again in a minute"
            return verdict.no_effect(plan, RedeemCause.RELAYER_FAILED, reason)
        except AnswerLost as error:
            return await self._lost(plan, error)
        done = await relayer.follow(relayer_id)
        sent = Sent((done.transaction_hash,) if done.transaction_hash else (), relayer_id)
        return await self._relayed(plan, sent, done)

    async def _relayed(self, plan: Plan, sent: Sent, done: Progress) -> RedeemResult:
        if done.state in (RelayerState.FAILED, RelayerState.INVALID):
            what = f"the relayer ended it with {done.state} ({(done.error_msg or 'no reason')[:200]})"
            try:
                sizes, _ = await self.planner.state(plan)
            except PmkitError as error:
                reason = f"{what}, and the balances could not be read ({error}): call redeem again later"
                return verdict.unverified(plan, RedeemCause.LAGGING, reason, sent)
            if sizes != plan.sizes:
                return verdict.elsewhere(plan, what, sent)
            reason = f"{what}: the shares are where they were; try again"
            return verdict.no_effect(plan, RedeemCause.RELAYER_FAILED, reason, sent)
        if done.state not in (RelayerState.MINED, RelayerState.CONFIRMED):
            reason = (
                f"the relayer still has it ({done.state}, id {sent.relayer_id}): call redeem again later, "
                "it looks first"
            )
            return verdict.unverified(plan, RedeemCause.PENDING, reason, sent)
        what = f"the relayer says {done.state}"
        if sent.hashes and (receipt := await self._receipt(sent.hashes[-1])) is not None:
            return verdict.judge(plan, receipt, await self._sizes_after(plan, receipt.block), sent)
        seen = await self._changed(plan, self._patience.lag)
        if seen is None:
            reason = f"{what}, but the balances could not be read: call redeem again later"
            return verdict.unverified(plan, RedeemCause.LAGGING, reason, sent)
        if seen[0] == plan.sizes:
            reason = f"{what}, but the shares are still there: nothing was redeemed; try again"
            return verdict.no_effect(plan, RedeemCause.SILENT, reason, sent)
        return verdict.by_balances(plan, what, *seen, sent)

    async def _receipt(self, transaction_hash: str) -> Receipt | None:
        """The receipt of the relayer's transaction, for as long as a node may lag."""
        end = self._clock.io_monotonic() + self._patience.lag
        while True:
            try:
                if (receipt := await self._chain.receipt(transaction_hash)) is not None:
                    return receipt
            except PmkitError as error:
                _LOG.warning("polymarket: %s", error)
            if self._clock.io_monotonic() >= end:
                return None
            await self._clock.io_sleep(self._patience.poll)

    async def _changed(self, plan: Plan, seconds: float) -> tuple[tuple[int, ...], int] | None:
        """Shares and pUSD as soon as the shares are not what they were, else as they still are; None: nobody tells."""
        end = self._clock.io_monotonic() + seconds
        seen: tuple[tuple[int, ...], int] | None = None
        while True:
            try:
                seen = await self.planner.state(plan)
                if seen[0] != plan.sizes:
                    return seen
            except PmkitError as error:
                seen = None
                _LOG.warning("polymarket: %s", error)
            if self._clock.io_monotonic() >= end:
                return seen
            await self._clock.io_sleep(self._patience.poll)

    async def _lost(self, plan: Plan, error: AnswerLost) -> RedeemResult:
        """The relayer may have it. The shares are watched; nothing is submitted a second time here."""
        _LOG.warning("polymarket: %s; watching the shares of %s", error, plan.market.label)
        what = f"the relayer's answer was lost ({error})"
        seen = await self._changed(plan, self._patience.watch)
        if seen is not None and seen[0] != plan.sizes:
            return verdict.by_balances(plan, what, *seen, Sent())
        until = "" if error.until_s is None else f" before {to_utc(error.until_s * 1000):%H:%M:%S} UTC"
        reason = (
            f"{what}: it may still be executed{until}. Call redeem again later: it looks first, and the wallet's nonce "
            "lets only one of them through"
        )
        return verdict.unverified(plan, RedeemCause.LOST_ANSWER, reason)


def _pending(plan: Plan, flight: Flight, earlier: Sent = verdict.NOTHING) -> RedeemResult:
    sent = Sent((*earlier.hashes, *flight.hashes), gas_cost=earlier.gas_cost)
    return verdict.pending(plan, sent, flight.nonce, len(flight.hashes))


def _would_revert(plan: Plan, error: CallReverted) -> RedeemRefused:
    return RedeemRefused("would_revert", f"{plan.market.label}: it would revert ({error.reason or 'without a reason'})")
