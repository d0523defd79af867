"""What a redeem came to, from a receipt and from balances read again (wire): nothing else is reported."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from pmkit.exchanges.polymarket.contracts import PUSD
from pmkit.exchanges.polymarket.eip712 import address_bytes, address_word
from pmkit.exchanges.polymarket.keccak import keccak
from pmkit.exchanges.polymarket.redeem_types import Plan, RedeemCause, RedeemResult, RedeemStatus, units
from pmkit.exchanges.polymarket.transactions import Receipt

_TRANSFER: Final = keccak(b"Transfer(address,address,uint256)")
_SINGLE: Final = keccak(b"TransferSingle(address,address,address,uint256,uint256)")
_BATCH: Final = keccak(b"TransferBatch(address,address,address,uint256[],uint256[])")
_SAFE_FAILED: Final = keccak(b"ExecutionFailure(bytes32,uint256)")


class Sent(msgspec.Struct, frozen=True):
    """What has left this machine: hashes, the relayer's id, wei of POL spent."""

    hashes: tuple[str, ...] = ()
    relayer_id: str = ""
    gas_cost: int = 0


NOTHING: Final = Sent()


class Effect(msgspec.Struct, frozen=True):
    """What a receipt proves for a wallet, in base units: shares that left it, pUSD that came."""

    taken: int
    paid: int
    inner_failed: bool


def effect_of(receipt: Receipt, plan: Plan) -> Effect:
    """Read the events of one transaction. Through the adapter the redeemer is the adapter: only transfers tell."""
    wallet = plan.wallet.address
    own = address_word(address_bytes(wallet))
    taken = paid = 0
    failed = False
    for log in receipt.logs:
        topic = log.topics[0] if log.topics else b""
        if log.address == PUSD.lower() and topic == _TRANSFER and len(log.topics) == 3 and log.topics[2] == own:
            paid += int.from_bytes(log.data[:32])
        elif log.address == plan.token.lower() and len(log.topics) == 4 and log.topics[2] == own:
            if topic == _SINGLE and int.from_bytes(log.data[:32]) in plan.ids:
                taken += int.from_bytes(log.data[32:64])
            elif topic == _BATCH:
                taken += _batch_sum(log.data, plan.ids)
        elif log.address == wallet.lower() and topic == _SAFE_FAILED:
            failed = True
    return Effect(taken, paid, failed)


def _batch_sum(data: bytes, ids: tuple[int, ...]) -> int:
    """What a batch moved of these ids. Data that is no batch moved nothing that could be proven."""
    words = [int.from_bytes(data[place : place + 32]) for place in range(0, len(data), 32)]
    try:
        found, amounts = (words[at // 32 + 1 : at // 32 + 1 + words[at // 32]] for at in words[:2])
    except (IndexError, ValueError):
        return 0
    return sum(amount for one, amount in zip(found, amounts, strict=False) if one in ids)


def result(
    plan: Plan, status: RedeemStatus, cause: RedeemCause, reason: str, sent: Sent = NOTHING, payout: int = 0
) -> RedeemResult:
    """A result of that plan; `payout` in base units."""
    return RedeemResult(
        status=status,
        cause=cause,
        reason=reason,
        condition_id=plan.market.condition_id,
        market=plan.market.label,
        wallet=plan.wallet.address,
        path=plan.path,
        expected=plan.expected,
        payout=units(payout),
        transactions=sent.hashes,
        relayer_id=sent.relayer_id,
        gas_cost=Decimal(sent.gas_cost) / 10**18,
    )


def no_effect(plan: Plan, cause: RedeemCause, reason: str, sent: Sent = NOTHING) -> RedeemResult:
    return result(plan, RedeemStatus.NO_EFFECT, cause, reason, sent)


def unverified(plan: Plan, cause: RedeemCause, reason: str, sent: Sent = NOTHING, payout: int = 0) -> RedeemResult:
    return result(plan, RedeemStatus.UNVERIFIED, cause, reason, sent, payout)


def elsewhere(plan: Plan, what: str, sent: Sent = NOTHING) -> RedeemResult:
    """The shares are gone, but not by this call."""
    reason = f"{what}: the shares are gone, redeemed or moved by something else (auto-redeem, another program)"
    return no_effect(plan, RedeemCause.ELSEWHERE, reason, sent)


def pending(plan: Plan, sent: Sent, nonce: int, attempts: int) -> RedeemResult:
    """A transaction waits to be mined."""
    reason = (
        f"{sent.hashes[-1]} waits to be mined (nonce {nonce}, {attempts} attempt(s), the dearest last): call redeem "
        "again later, it goes on with this one; at most one of them can be mined"
    )
    return unverified(plan, RedeemCause.PENDING, reason, sent)


def judge(plan: Plan, receipt: Receipt, sizes: tuple[int, ...] | None, sent: Sent) -> RedeemResult:
    """A mined transaction: its events, and the shares as of its block (None: no node tells them)."""
    effect = effect_of(receipt, plan)
    name = receipt.hash
    if effect.inner_failed:
        reason = f"{name} went through, but the Safe's own call in it failed: the shares are where they were"
        return no_effect(plan, RedeemCause.INNER_FAILED, reason, sent)
    if not receipt.ok:
        return no_effect(plan, RedeemCause.REVERTED, f"{name} reverted: the shares are where they were", sent)
    if sizes is None:
        reason = (
            f"{name} was mined and says that {units(effect.paid)} pUSD came, but no node tells the balances of its "
            "block yet: call redeem again later"
        )
        return unverified(plan, RedeemCause.LAGGING, reason, sent, effect.paid)
    left = sum(size for size, payout in zip(sizes, plan.payouts, strict=True) if payout)
    if not effect.taken and not effect.paid:
        if sizes != plan.sizes and not left:
            return elsewhere(plan, f"{name} found nothing to redeem", sent)
        reason = f"{name} went through and redeemed nothing, the shares are still there: do not repeat it, report it"
        return no_effect(plan, RedeemCause.SILENT, reason, sent)
    if effect.taken and not left and (effect.paid or not sum(plan.payouts)):
        reason = f"{units(effect.paid)} pUSD for {units(effect.taken)} shares of {plan.market.label}"
        return result(plan, RedeemStatus.SUCCESS, RedeemCause.NONE, reason, sent, effect.paid)
    reason = (
        f"{name} took {units(effect.taken)} shares and paid {units(effect.paid)} pUSD where {plan.expected} were "
        "expected: look at it before anything else"
    )
    return unverified(plan, RedeemCause.UNPAID, reason, sent, effect.paid)


def by_balances(plan: Plan, what: str, sizes: tuple[int, ...], cash: int, sent: Sent) -> RedeemResult:
    """Without a receipt, the shares having changed: the pUSD tells whether they were paid for."""
    came = cash - plan.cash
    left = sum(size for size, payout in zip(sizes, plan.payouts, strict=True) if payout)
    if came == sum(plan.payouts) and not left:
        reason = f"{what}; the shares are gone and {units(came)} pUSD came"
        return result(plan, RedeemStatus.SUCCESS, RedeemCause.NONE, reason, sent, came)
    reason = (
        f"{what}; the shares changed and the pUSD by {units(came)} where {plan.expected} were expected, which other "
        f"payments may explain: look at {plan.wallet.address}"
    )
    return unverified(plan, RedeemCause.UNPAID, reason, sent)
