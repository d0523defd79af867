"""Redeeming with every kind of wallet on the local chain: the real ConditionalTokens and Safe, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from pmkit.errors import ConfigError, NotYetRedeemable
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket.position_ids import outcome_indexes
from pmkit.exchanges.polymarket.redeem_plan import Planner
from pmkit.exchanges.polymarket.redeem_types import RedeemCause, RedeemPath, RedeemStatus
from pmkit.sim.polymarket.on_chain import CTF, PUSD
from pmkit.sim.polymarket.wallets import WalletType
from tests.polymarket.chain_venue import PATHS, ChainVenue, chain_venue

D = Decimal
EACH_PATH = [(kind, None) for kind in WalletType] + [
    (WalletType.SAFE, RedeemPath.RELAYER),
    (WalletType.PROXY, RedeemPath.RELAYER),
]


@pytest.fixture
async def venue() -> AsyncIterator[ChainVenue]:
    async with chain_venue() as found:
        yield found


def gas_used(venue: ChainVenue, hashes: tuple[str, ...]) -> int:
    return sum(venue.machine.receipts[bytes.fromhex(one[2:])].gas_used for one in hashes)


@pytest.mark.parametrize(("kind", "via"), EACH_PATH)
async def test_every_wallet_is_paid_to_the_unit_and_a_second_call_does_nothing(
    venue: ChainVenue, kind: WalletType, via: RedeemPath | None
) -> None:
    """Both outcomes held, and no approval yet: it comes first, or in the same batch."""
    user = venue.user(kind)
    condition = user.won(5_000_001, 1_000_000)
    venue.chain.approve(user.address, condition, False)
    sends = len(venue.machine.broadcasts)
    market = venue.markets[condition.condition_id]
    seen = await Planner(venue.reader()).preview(market, user.wallet, via=via)
    assert seen and seen.approval and seen.payout == D("5.000001") and seen.path == (via or PATHS[kind])
    assert [holding.won for holding in seen.holdings] == [True, False] and len(venue.machine.broadcasts) == sends
    done = await user.redeem(condition, via=via)
    assert (done.status, done.cause, done.path) == (RedeemStatus.SUCCESS, RedeemCause.NONE, via or PATHS[kind]), done
    assert done and done.payout == done.expected == D("5.000001")
    assert user.cash == 5_000_001 and user.shares(condition) == (0, 0)
    assert len(done.transactions) == (2 if kind is WalletType.EOA else 1)
    if done.path is RedeemPath.RELAYER:
        assert done.relayer_id and seen.gas == 0 and done.gas_cost == 0
    else:
        used = gas_used(venue, done.transactions)
        assert not done.relayer_id and used <= seen.gas <= used * 2 and 0 < done.gas_cost <= seen.gas_cost
    sends = len(venue.machine.broadcasts) + len(venue.relayer.submitted)
    again = await user.redeem(condition, via=via)
    assert (again.status, again.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.NOTHING_HELD), again
    assert not again and again.payout == 0
    assert len(venue.machine.broadcasts) + len(venue.relayer.submitted) == sends and user.cash == 5_000_001


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (WalletType.EOA, "v1 neg risk"),
        (WalletType.DEPOSIT, "v1 neg risk"),
        (WalletType.EOA, "v2"),
        (WalletType.SAFE, "v2"),
    ],
)
async def test_neg_risk_and_protocol_v2_are_chosen_per_market(
    venue: ChainVenue, kind: WalletType, protocol: str
) -> None:
    user = venue.user(kind)
    one = user.won(4_000_000, 2_500_000, protocol=protocol[:2], neg_risk="neg" in protocol, payouts=(0, 1))
    done = await user.redeem(one)
    assert done.status is RedeemStatus.SUCCESS and done.payout == D("2.5"), done
    # V2 redeems outcome by outcome: the loser stays where it is; V1 takes both.
    assert user.cash == 2_500_000 and user.shares(one) == ((4_000_000, 0) if protocol == "v2" else (0, 0))


@pytest.mark.parametrize("kind", list(WalletType))
async def test_se_08_only_winners_are_redeemed_unless_asked_for(venue: ChainVenue, kind: WalletType) -> None:
    user = venue.user(kind)
    lost = user.won(0, 7_000_000)
    sends = len(venue.machine.broadcasts) + len(venue.relayer.submitted)
    done = await user.redeem(lost)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.ONLY_LOSERS)
    assert user.shares(lost) == (0, 7_000_000) and user.cash == 0
    assert len(venue.machine.broadcasts) + len(venue.relayer.submitted) == sends
    if kind in (WalletType.EOA, WalletType.DEPOSIT):
        asked = await user.redeem(lost, losers=True)
        assert asked.status is RedeemStatus.SUCCESS and asked.payout == 0 and user.shares(lost) == (0, 0)


async def test_se_08_a_split_result_pays_both_halves_rounded_down(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    tie = user.won(3_000_001, 1_000_000, payouts=(1, 1))
    done = await user.redeem(tie)
    assert done.payout == done.expected == D("2.000000") and user.cash == 2_000_000


@pytest.mark.parametrize("kind", list(WalletType))
async def test_se_01_without_a_result_on_chain_nothing_is_sent(venue: ChainVenue, kind: WalletType) -> None:
    user = venue.user(kind)
    condition = venue.condition(protocol="v2" if kind is WalletType.PROXY else "v1")
    venue.chain.give(user.address, condition, 2_000_000)
    sends = len(venue.machine.broadcasts) + len(venue.relayer.submitted)
    with pytest.raises(NotYetRedeemable, match="no result") as error:
        await user.redeem(condition)
    assert error.value.retry_after > 0
    assert len(venue.machine.broadcasts) + len(venue.relayer.submitted) == sends
    market = venue.markets[condition.condition_id]
    seen = await Planner(venue.reader()).preview(market, user.wallet)
    assert not seen and not seen.resolved and [holding.size for holding in seen.holdings] == [2, 0]


@pytest.mark.parametrize("holder", list(WalletType))
async def test_se_06_shares_in_another_wallet_are_named_and_nothing_is_sent(
    venue: ChainVenue, holder: WalletType
) -> None:
    user = venue.user(WalletType.EOA if holder is not WalletType.EOA else WalletType.SAFE)
    other = venue.chain.make_wallet(user.owner, holder)
    condition = venue.condition()
    venue.chain.give(other, condition, 5_000_000)
    venue.chain.report(condition, (1, 0))
    sends = len(venue.machine.broadcasts)
    done = await user.redeem(condition)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.OTHER_WALLET)
    assert other in done.reason and f"POLYMARKET_SIGNATURE_TYPE to {int(holder)}" in done.reason
    assert len(venue.machine.broadcasts) == sends
    assert venue.chain.shares(other, condition) == (5_000_000, 0)


async def test_se_07_dust_is_reported_and_left_alone_unless_wanted(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    dust = user.won(9_999)
    done = await user.redeem(dust)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.DUST) and "0.009999" in done.reason
    assert (await user.redeem(user.won(10_000))).payout == D("0.01")
    assert (await user.redeem(dust, minimum=D(0))).payout == D("0.009999")


async def test_an_older_deposit_wallet_is_redeemed_as_well(venue: ChainVenue) -> None:
    user = venue.user(WalletType.DEPOSIT, beacon=False)
    assert (await user.redeem(user.won())).status is RedeemStatus.SUCCESS


async def test_outcomes_are_matched_to_the_chain_by_their_ids(venue: ChainVenue) -> None:
    """The venue may list Down first: which payout belongs to a token follows from its id, not from its place."""
    user = venue.user(WalletType.EOA)
    condition = user.won(0, 6_000_000, payouts=(0, 1), swapped=True)
    seen = await Planner(venue.reader()).preview(venue.markets[condition.condition_id], user.wallet)
    assert [(holding.size, holding.payout) for holding in seen.holdings] == [(6, 6), (0, 0)]
    assert (await user.redeem(condition)).payout == 6


async def test_ids_are_those_that_the_contract_derives(venue: ChainVenue) -> None:
    for neg_risk in (False, True):
        for condition in (venue.chain.ask(neg_risk=neg_risk) for _ in range(3)):
            assert condition.ids == tuple(venue.chain.position_id(condition, outcome) for outcome in (0, 1))
            tokens = tuple(str(one) for one in condition.ids)
            assert outcome_indexes(condition.condition_id, tokens, neg_risk) == (0, 1)


async def test_ways_that_a_wallet_does_not_have_are_refused(venue: ChainVenue) -> None:
    for kind, via in (
        (WalletType.EOA, RedeemPath.RELAYER),
        (WalletType.DEPOSIT, RedeemPath.EOA),
        (WalletType.SAFE, RedeemPath.PROXY),
    ):
        user = venue.user(kind)
        with pytest.raises(ConfigError, match="cannot redeem by"):
            await user.redeem(user.won(), via=via)


@pytest.mark.parametrize("kind", [WalletType.PROXY, WalletType.SAFE])
async def test_a_preview_with_an_approval_asks_the_node_for_gas(venue: ChainVenue, kind: WalletType) -> None:
    user = venue.user(kind)
    condition = user.won(2_000_000)
    seen = await Planner(venue.reader()).preview(venue.markets[condition.condition_id], user.wallet)
    used = gas_used(venue, (await user.redeem(condition)).transactions)
    assert not seen.approval and used <= seen.gas <= used * 2


@pytest.mark.parametrize("kind", [WalletType.EOA, WalletType.SAFE, WalletType.DEPOSIT])
async def test_the_silent_no_op_would_be_told(
    venue: ChainVenue, kind: WalletType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pUSD given to the ConditionalTokens themselves: status 1, nothing redeemed. Forced here to see the report."""
    user = venue.user(kind)
    condition = user.won(5_000_000)
    made = calldata.redeem_positions
    with monkeypatch.context() as wrong:
        wrong.setattr(calldata, "redeem_positions", lambda adapter, condition_id: made(CTF, condition_id))
        done = await user.redeem(condition)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.SILENT), done
    assert done.payout == 0 and user.shares(condition) == (5_000_000, 0) and user.cash == 0


async def test_no_plan_calls_the_conditional_tokens_but_for_the_approval(venue: ChainVenue) -> None:
    user = venue.user(WalletType.SAFE)
    for protocol, neg_risk in (("v1", False), ("v1", True), ("v2", False)):
        one = user.won(1_000_000, 1_000_000, protocol=protocol, neg_risk=neg_risk)
        venue.chain.approve(user.address, one, False)
        plan = await Planner(venue.reader()).plan(venue.markets[one.condition_id], user.wallet, losers=True)
        approval, *redeems = plan.calls
        assert approval == calldata.set_approval_for_all(one.tokens, one.spender)
        assert redeems and {call.to for call in redeems} == {one.spender} and one.spender != CTF


async def test_redeems_of_one_key_at_once_are_all_paid(venue: ChainVenue) -> None:
    user = venue.user(WalletType.SAFE)
    conditions = [user.won(1_000_000 + number) for number in range(3)]
    done = await asyncio.gather(*(user.redeem(condition) for condition in conditions))
    assert all(done) and user.cash == 3_000_003 == sum(int(one.payout * 1_000_000) for one in done)
    assert venue.chain.cash(user.address, PUSD) == user.cash
