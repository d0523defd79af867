"""What a wallet holds of a market, and which calls redeem it: read from the chain, all as of one block.

Needs no key and sends nothing. What is redeemed is decided by the chain alone: the payout that the oracle reported and
the shares that the wallet holds. The venue's own flags ("redeemable", "resolved") are true for losers and too early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

from pmkit.errors import ConfigError, NotYetRedeemable, ProtocolChanged
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.chain import CallReverted, Chain, NodeRefused
from pmkit.exchanges.polymarket.contracts import PUSD, ROUTER, UNITS, redeemer_of
from pmkit.exchanges.polymarket.position_ids import outcome_indexes
from pmkit.exchanges.polymarket.redeem_types import (
    DUST,
    Holding,
    Plan,
    RedeemCause,
    RedeemPath,
    RedeemPreview,
    Wallet,
    units,
)
from pmkit.exchanges.polymarket.types import PolymarketMarket
from pmkit.exchanges.polymarket.wallets import SignatureType, wallets_of

RETRY_SECONDS: Final = 30.0
"""When to look again for a result that is not on chain yet: it follows the venue's pages within a minute or so."""

GAS: Final = {RedeemPath.EOA: 270_000, RedeemPath.SAFE: 360_000, RedeemPath.PROXY: 320_000, RedeemPath.RELAYER: 0}
GAS_APPROVAL: Final = 60_000
GAS_WALLET: Final = {RedeemPath.EOA: 0, RedeemPath.SAFE: 75_000, RedeemPath.PROXY: 45_000, RedeemPath.RELAYER: 0}
"""Units of gas: a redeem where it cannot be estimated, an approval, and what a wallet adds to its inner call. Measured
on the local chain (the Safe and the ConditionalTokens real, the adapters doubles)."""

_PATHS: Final = {
    SignatureType.EOA: RedeemPath.EOA,
    SignatureType.POLY_PROXY: RedeemPath.PROXY,
    SignatureType.GNOSIS_SAFE: RedeemPath.SAFE,
    SignatureType.POLY_1271: RedeemPath.RELAYER,
}

FindMarket = Callable[[str], Awaitable[PolymarketMarket]]


def path_of(kind: SignatureType, via: RedeemPath | None) -> RedeemPath:
    """How a wallet redeems: by the key's own transactions where it can, else (or on request) by the relayer.

    Raises ConfigError for a way that this kind of wallet does not have.
    """
    own = _PATHS[kind]
    if via is None or via is own:
        return own
    if via is RedeemPath.RELAYER and kind is not SignatureType.EOA:
        return via
    raise ConfigError(
        f"a wallet of type {int(kind)} ({kind.name}) cannot redeem by {via.value!r}: "
        + ("the relayer takes no plain keys" if kind is SignatureType.EOA else f"use {own.value!r} or 'relayer'")
    )


class Planner:
    """Reads and plans, on one chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def plan(
        self,
        market: PolymarketMarket,
        wallet: Wallet,
        *,
        via: RedeemPath | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> Plan:
        """What redeeming this market with this wallet means now.

        Raises NotYetRedeemable while the chain has no result, ConfigError for a way this wallet does not have,
        ProtocolChanged where the market's ids are not those of its condition.
        """
        path = path_of(wallet.kind, via)
        if market.protocol not in ("v1", "v2"):
            raise ProtocolChanged(f"{market.label}: how protocol {market.protocol!a} is redeemed is not known")
        chain = self._chain
        block = await chain.block_number()
        tokens, spender = redeemer_of(market.protocol, market.neg_risk)
        ids = tuple(int(token) for token in market.token_ids)
        batch = calldata.balance_of_batch(tokens, wallet.address, ids)
        answer, approved, cash = await asyncio.gather(
            chain.call(batch, block=block),
            chain.number(calldata.is_approved_for_all(tokens, wallet.address, spender), block=block),
            chain.number(calldata.erc20_balance(PUSD, wallet.address), block=block),
        )
        sizes = read_sizes(answer, len(ids))
        payouts = await self._payouts(market, sizes, block)
        calls = _calls(market, spender, sizes, payouts, losers)
        if not approved and calls:
            calls = (calldata.set_approval_for_all(tokens, spender), *calls)
        cause, reason = await self._doubt(market, wallet, sizes, payouts, losers, minimum)
        return Plan(
            market=market,
            wallet=wallet,
            path=path,
            block=block,
            sizes=sizes,
            payouts=payouts,
            cash=cash,
            approved=bool(approved),
            calls=() if cause else calls,
            ids=ids,
            cause=cause,
            reason=reason,
        )

    async def _payouts(self, market: PolymarketMarket, sizes: tuple[int, ...], block: int) -> tuple[int, ...]:
        """Base units of pUSD for the shares held, by outcome. Raises NotYetRedeemable."""
        chain = self._chain
        tokens = redeemer_of(market.protocol, market.neg_risk)[0]
        if market.protocol == "v2":
            try:
                found = await asyncio.gather(
                    *(
                        chain.number(calldata.get_payout(tokens, int(token), size or UNITS), block=block)
                        for token, size in zip(market.token_ids, sizes, strict=True)
                    )
                )
            except CallReverted as error:
                raise _not_yet(market) from error
            if not any(found):
                raise _not_yet(market)
            return tuple(payout if size else 0 for payout, size in zip(found, sizes, strict=True))
        condition = market.condition_id
        denominator = await chain.number(calldata.payout_denominator(tokens, condition), block=block)
        if not denominator:
            raise _not_yet(market)
        indexes = outcome_indexes(condition, market.token_ids, market.neg_risk)
        if indexes is None:
            if not market.neg_risk:
                raise ProtocolChanged(f"{market.label}: its token ids are not those of condition {condition}")
            indexes = (0, 1)
        numerators = await asyncio.gather(
            *(chain.number(calldata.payout_numerator(tokens, condition, index), block=block) for index in indexes)
        )
        return tuple(size * numerator // denominator for size, numerator in zip(sizes, numerators, strict=True))

    async def _doubt(
        self,
        market: PolymarketMarket,
        wallet: Wallet,
        sizes: tuple[int, ...],
        payouts: tuple[int, ...],
        losers: bool,
        minimum: Decimal,
    ) -> tuple[RedeemCause, str]:
        """Why nothing should be sent; nothing where it should."""
        if not any(sizes):
            other = await self._elsewhere(market, wallet)
            if other:
                return RedeemCause.OTHER_WALLET, other
            return RedeemCause.NOTHING_HELD, f"{wallet.address} holds no shares of {market.label}"
        if losers:
            return RedeemCause.NONE, ""
        total = units(sum(payouts))
        if not total:
            return RedeemCause.ONLY_LOSERS, f"{market.label}: only shares that pay nothing; gas would be spent on them"
        if total < minimum:
            return RedeemCause.DUST, f"{market.label}: {total} pUSD is below {minimum} (minimum=)"
        return RedeemCause.NONE, ""

    async def _elsewhere(self, market: PolymarketMarket, wallet: Wallet) -> str:
        """Which other wallet of the key holds shares of the market."""
        if not wallet.owner:
            return ""
        own = wallets_of(wallet.owner)
        tokens = redeemer_of(market.protocol, market.neg_risk)[0]
        for address in (own.owner, own.proxy, own.safe, own.deposit_beacon, own.deposit_uups):
            if address.lower() == wallet.address.lower():
                continue
            answer = await self._chain.call(
                calldata.balance_of_batch(tokens, address, tuple(map(int, market.token_ids)))
            )
            if any(read_sizes(answer, len(market.token_ids))):
                kind = own.type_of(address)
                assert kind is not None
                return (
                    f"the shares of {market.label} are in {address}, which is the wallet of type {int(kind)} "
                    f"({kind.name}) of this key, and only that one can redeem them: set POLYMARKET_SIGNATURE_TYPE to "
                    f"{int(kind)} and POLYMARKET_FUNDER_ADDRESS to it"
                )
        return ""

    async def state(self, plan: Plan, block: int | None = None) -> tuple[tuple[int, ...], int]:
        """(shares by outcome, pUSD) of the wallet in base units, both as of one block (None: the latest)."""
        at = await self._chain.block_number() if block is None else block
        batch = calldata.balance_of_batch(plan.token, plan.wallet.address, plan.ids)
        answer, cash = await asyncio.gather(
            self._chain.call(batch, block=at),
            self._chain.number(calldata.erc20_balance(PUSD, plan.wallet.address), block=at),
        )
        return read_sizes(answer, len(plan.ids)), cash

    async def preview(
        self,
        market: PolymarketMarket,
        wallet: Wallet,
        *,
        via: RedeemPath | None = None,
        losers: bool = False,
        minimum: Decimal = DUST,
    ) -> RedeemPreview:
        """The plan, for people: nothing is sent. Unresolved is a state here and no error."""
        try:
            plan = await self.plan(market, wallet, via=via, losers=losers, minimum=minimum)
        except NotYetRedeemable as error:
            return await self._unresolved(market, wallet, path_of(wallet.kind, via), error.reason)
        gas = await self._gas(plan)
        fees = await self._chain.fees() if gas else None
        return RedeemPreview(
            condition_id=market.condition_id,
            market=market.label,
            wallet=wallet.address,
            signature_type=wallet.kind,
            path=plan.path,
            resolved=True,
            holdings=_holdings(market, plan.sizes, plan.payouts),
            payout=Decimal(0) if plan.cause else plan.expected,
            approval=bool(plan.calls) and not plan.approved,
            gas=gas,
            gas_cost=Decimal(0) if fees is None else Decimal(gas * fees.max_fee) / 10**18,
            cause=plan.cause,
            reason=plan.reason,
        )

    async def _unresolved(
        self, market: PolymarketMarket, wallet: Wallet, path: RedeemPath, reason: str
    ) -> RedeemPreview:
        tokens = redeemer_of(market.protocol, market.neg_risk)[0]
        batch = calldata.balance_of_batch(tokens, wallet.address, tuple(map(int, market.token_ids)))
        return RedeemPreview(
            condition_id=market.condition_id,
            market=market.label,
            wallet=wallet.address,
            signature_type=wallet.kind,
            path=path,
            resolved=False,
            holdings=_holdings(market, read_sizes(await self._chain.call(batch), len(market.token_ids)), None),
            payout=Decimal(0),
            approval=False,
            gas=0,
            gas_cost=Decimal(0),
            reason=reason,
        )

    async def _gas(self, plan: Plan) -> int:
        """Units of gas of all transactions: by the node where the approval is there, else a table of our own."""
        if not plan.calls or plan.path is RedeemPath.RELAYER:
            return 0
        if not plan.approved:
            return GAS[plan.path] + GAS_APPROVAL
        total = GAS_WALLET[plan.path]
        for call in plan.calls:
            try:
                total += await self._chain.estimate(call, plan.wallet.address)
            except (CallReverted, NodeRefused):
                return GAS[plan.path]
        return total


def _calls(
    market: PolymarketMarket, spender: str, sizes: tuple[int, ...], payouts: tuple[int, ...], losers: bool
) -> tuple[Call, ...]:
    """The calls that redeem. Under V1 one takes both outcomes, whatever they pay."""
    if market.protocol == "v1":
        return (calldata.redeem_positions(spender, market.condition_id),)
    return tuple(
        calldata.router_redeem(ROUTER, market.condition_id, int(token) & 0xFF, size)
        for token, size, payout in zip(market.token_ids, sizes, payouts, strict=True)
        if size and (payout or losers)
    )


def _holdings(market: PolymarketMarket, sizes: tuple[int, ...], payouts: tuple[int, ...] | None) -> tuple[Holding, ...]:
    return tuple(
        Holding(outcome, token, units(size), None if payouts is None else units(payouts[place]))
        for place, (outcome, token, size) in enumerate(zip(market.outcomes, market.token_ids, sizes, strict=True))
    )


def _not_yet(market: PolymarketMarket) -> NotYetRedeemable:
    return NotYetRedeemable(
        f"the chain has no result of {market.label} yet, whatever the venue's pages say; try again in "
        f"{RETRY_SECONDS:.0f} s",
        RETRY_SECONDS,
    )


def read_sizes(answer: bytes, count: int) -> tuple[int, ...]:
    """Balances of a batch. Raises ProtocolChanged where the answer is none."""
    try:
        found = calldata.number_list(answer)
    except ValueError as error:
        raise ProtocolChanged(f"the contract answers balanceOfBatch with something else: {error}") from error
    if len(found) != count:
        raise ProtocolChanged(f"the contract answers balanceOfBatch of {count} ids with {len(found)} balances")
    return tuple(found)
