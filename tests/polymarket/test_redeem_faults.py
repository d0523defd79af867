"""What goes wrong between a redeem and the chain: nothing is paid twice, nothing is reported that did not happen."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pmkit.errors import AuthError, ConfigError, RedeemRefused, VenueUnavailable
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.redeem import Redeemer
from pmkit.exchanges.polymarket.redeem_types import RedeemCause, RedeemPath, RedeemStatus
from pmkit.exchanges.polymarket.relayer_messages import BuilderKey, RelayerKey
from pmkit.exchanges.polymarket.transaction_sender import Patience
from pmkit.exchanges.polymarket.transactions import GWEI, Fees, sign_transaction
from pmkit.logging.redact import REDACTOR
from pmkit.sim.chain.machine import Block
from pmkit.sim.polymarket.on_chain import ADAPTER, CTF, Condition
from pmkit.sim.polymarket.wallets import WalletType
from tests.polymarket.chain_venue import QUICK, ChainVenue, User, chain_venue, until

IMPATIENT = replace(QUICK, give_up=0.2, lag=0.2, watch=0.2)


@pytest.fixture
async def venue() -> AsyncIterator[ChainVenue]:
    async with chain_venue() as found:
        yield found


def outcomes(venue: ChainVenue, since: int = 0) -> list[str]:
    """What the node said to each broadcast."""
    return [text for _, text in list(venue.machine.broadcasts)[since:]]


def mined(venue: ChainVenue, user: User) -> int:
    """Transactions of a key that are in the chain."""
    return venue.machine.nonce(user.signer.address_raw)


def foreign(venue: ChainVenue, user: User, *, tip: int = 30, nonce: int | None = None) -> bytes:
    """A transaction that another program sends with the same key."""
    used = venue.machine.nonce(user.signer.address_raw, pending=True) if nonce is None else nonce
    call = Call(user.owner, b"", 1)
    fees = Fees(200 * GWEI, tip * GWEI)
    return venue.machine.submit(sign_transaction(user.signer, call, nonce=used, gas=30_000, fees=fees).raw)


# -- the node ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["raw_answer_lost", "raw_request_lost"])
async def test_se_05_a_broken_broadcast_is_looked_for_and_only_its_bytes_are_sent_again(
    venue: ChainVenue, fault: str
) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    before = len(venue.machine.broadcasts)
    venue.faults.arm(fault)
    done = await user.redeem(condition)
    assert done.status is RedeemStatus.SUCCESS and user.cash == 5_000_000, done
    hashes = {key for key, _ in list(venue.machine.broadcasts)[before:]}
    assert len(hashes) == 1 and mined(venue, user) == 1
    assert venue.faults.counts[fault] == 1


async def test_se_05_a_node_that_is_gone_after_the_broadcast_leaves_an_open_result(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    redeemer = user.redeemer(patience=IMPATIENT)
    venue.machine.mined.append(lambda block: setattr(venue.rpc, "down", bool(block.receipts)))
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert (done.status, done.cause) == (RedeemStatus.UNVERIFIED, RedeemCause.PENDING), done
    assert user.cash == 5_000_000 and "again later" in done.reason
    venue.rpc.down = False
    again = await redeemer.redeem(condition.condition_id, user.wallet)
    assert again.status is RedeemStatus.SUCCESS and again.transactions == done.transactions, again
    assert again.payout == 5 and user.cash == 5_000_000 and mined(venue, user) == 1


async def test_se_05_another_node_is_asked_when_the_first_one_is_gone(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    redeemer = user.redeemer("/rpc", "/other")
    venue.machine.mined.append(lambda block: setattr(venue.rpc, "down", bool(block.receipts)))
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert done.status is RedeemStatus.SUCCESS and venue.other_rpc.calls["eth_getTransactionReceipt"]


async def test_no_node_at_all_raises_before_anything_is_sent(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    venue.rpc.down = True
    with pytest.raises(VenueUnavailable, match="POLYGON_RPC_URL"):
        await user.redeem(condition)
    venue.rpc.down, venue.rpc.chain_id = False, 1
    with pytest.raises(ConfigError, match="chain 1, not of 137"):
        await user.redeem(condition)
    assert mined(venue, user) == 0


async def test_balances_that_lag_are_waited_for_and_never_guessed(venue: ChainVenue) -> None:
    user = venue.user(WalletType.SAFE)
    condition = user.won()

    def lag(block: Block) -> None:
        if block.receipts:
            venue.rpc.lag, venue.rpc.lag_calls = 1, 15

    venue.machine.mined.append(lag)
    done = await user.redeem(condition)
    assert done.status is RedeemStatus.SUCCESS and user.cash == 5_000_000, done
    assert venue.rpc.lag == 0 and mined(venue, user) == 1


async def test_balances_that_lag_too_long_are_unverified_with_what_the_receipt_says(
    venue: ChainVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer: the receipt comes from a node that has the block, the balances from one that does not."""
    user = venue.user(WalletType.EOA)
    condition = user.won()
    receipt = venue.rpc._methods["eth_getTransactionReceipt"]

    def then_lag(params: list[object]) -> object:
        answer = receipt(params)
        venue.rpc.lag = 1 if answer is not None else 0
        return answer

    monkeypatch.setitem(venue.rpc._methods, "eth_getTransactionReceipt", then_lag)
    done = await user.redeem(condition, IMPATIENT)
    assert (done.status, done.cause, done.payout) == (RedeemStatus.UNVERIFIED, RedeemCause.LAGGING, 5), done
    venue.rpc.lag = 0
    again = await user.redeem(condition)
    assert again.cause is RedeemCause.NOTHING_HELD and mined(venue, user) == 1 and user.cash == 5_000_000


# -- fees -------------------------------------------------------------------------------------------------------------


async def test_se_02_the_floor_of_polygon_is_kept_whatever_the_node_suggests(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    venue.rpc.suggested_tip = 1
    assert (await user.redeem(user.won())).status is RedeemStatus.SUCCESS
    assert outcomes(venue)[-1] == "taken"


async def test_se_02_a_stuck_transaction_is_replaced_at_its_nonce_with_higher_fees(venue: ChainVenue) -> None:
    user = venue.user(WalletType.SAFE)
    condition = user.won()
    before = len(venue.machine.broadcasts)
    venue.machine.market_tip = 36 * GWEI  # 30 gwei does not get in, 30 * 9/8 neither, the next does
    done = await user.redeem(condition, replace(QUICK, replace_after=0.0))
    assert done.status is RedeemStatus.SUCCESS and user.cash == 5_000_000, done
    assert outcomes(venue, before) == ["taken", "taken", "taken"] and mined(venue, user) == 1
    assert not venue.machine.pool


async def test_se_02_what_is_not_mined_in_time_is_pending_and_the_next_call_goes_on_with_it(
    venue: ChainVenue,
) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    venue.machine.automine = False
    done = await user.redeem(condition, replace(IMPATIENT, replace_after=0.0))
    assert (done.status, done.cause) == (RedeemStatus.UNVERIFIED, RedeemCause.PENDING), done
    assert len(done.transactions) > 1 and done.payout == 0 and "nonce 0" in done.reason
    assert len(venue.machine.pool) == 1
    still = await user.redeem(condition)
    assert still.cause is RedeemCause.PENDING and still.transactions[0] == done.transactions[0]
    venue.machine.mine()
    again = await user.redeem(condition)
    assert again.status is RedeemStatus.SUCCESS and again.payout == 5, again
    assert mined(venue, user) == 1 and user.cash == 5_000_000


async def test_without_gas_money_nothing_is_sent_and_the_address_is_named(venue: ChainVenue) -> None:
    user = venue.user(WalletType.SAFE, pol=10**12)
    condition = user.won()
    with pytest.raises(RedeemRefused, match="POL") as error:
        await user.redeem(condition)
    assert error.value.code == "no_gas" and user.owner in str(error.value)
    assert (await user.redeem(condition, via=RedeemPath.RELAYER)).status is RedeemStatus.SUCCESS


async def test_an_absurd_gas_price_is_not_paid(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    venue.machine.base_fee = 3_000 * GWEI
    with pytest.raises(RedeemRefused, match="gwei") as error:
        await user.redeem(condition)
    assert error.value.code == "gas_price" and mined(venue, user) == 0


# -- nonces -----------------------------------------------------------------------------------------------------------


async def test_se_03_many_redeems_at_once_and_a_foreign_transaction_are_all_mined(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    conditions = [user.won(1_000_000) for _ in range(4)]
    others = 0

    async def other() -> None:
        nonlocal others
        while others < 4:
            foreign(venue, user)
            others += 1
            await asyncio.sleep(0.05)

    meddler = asyncio.create_task(other())
    done = await asyncio.gather(*(user.redeem(condition) for condition in conditions))
    await meddler
    assert all(done) and user.cash == 4_000_000
    assert mined(venue, user) == 4 + others


async def test_se_03_a_nonce_that_is_taken_between_reading_and_sending_is_read_again(
    venue: ChainVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    before = len(venue.machine.broadcasts)
    send = venue.rpc._methods["eth_sendRawTransaction"]

    def raced(params: list[str]) -> object:
        monkeypatch.undo()
        foreign(venue, user)
        return send(params)

    monkeypatch.setitem(venue.rpc._methods, "eth_sendRawTransaction", raced)
    done = await user.redeem(condition)
    assert done.status is RedeemStatus.SUCCESS and user.cash == 5_000_000
    said = outcomes(venue, before)
    assert said[0] == "taken" and said[1].startswith("nonce too low") and said[2] == "taken"


async def test_se_03_a_foreign_transaction_in_our_place_is_noticed_and_the_redeem_begun_anew(
    venue: ChainVenue,
) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    venue.machine.automine = False
    call = asyncio.create_task(user.redeem(condition))
    await until(lambda: venue.machine.pool)
    foreign(venue, user, tip=500, nonce=0)
    venue.machine.automine = True
    venue.machine.mine()
    done = await call
    assert done.status is RedeemStatus.SUCCESS and user.cash == 5_000_000 and mined(venue, user) == 2


async def test_se_03_a_stuck_foreign_transaction_is_not_queued_behind(venue: ChainVenue) -> None:
    user = venue.user(WalletType.PROXY)
    condition = user.won()
    venue.machine.automine = False
    foreign(venue, user)
    before = len(venue.machine.broadcasts)
    with pytest.raises(RedeemRefused, match="wait") as error:
        await user.redeem(condition, IMPATIENT)
    assert error.value.code == "blocked" and len(venue.machine.broadcasts) == before


async def test_two_programs_with_one_key_pay_out_once(venue: ChainVenue) -> None:
    """Safe to run beside a bot: what the other one redeemed is not reported as ours."""
    user = venue.user(WalletType.SAFE)
    condition = user.won()
    one, two = user.redeemer(), user.redeemer()
    done = await asyncio.gather(
        one.redeem(condition.condition_id, user.wallet),
        two.redeem(condition.condition_id, user.wallet),
        return_exceptions=True,
    )
    assert user.cash == 5_000_000 and user.shares(condition) == (0, 0)
    paid = [row for row in done if not isinstance(row, BaseException) and row.payout]
    assert len(paid) == 1 and paid[0].status is RedeemStatus.SUCCESS, done
    for row in done:
        assert isinstance(row, RedeemRefused) or not isinstance(row, BaseException)


# -- reverts ----------------------------------------------------------------------------------------------------------


async def test_se_04_what_would_revert_is_not_sent(venue: ChainVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    monkeypatch.setattr("pmkit.exchanges.polymarket.redeem_plan.redeemer_of", lambda *_: (CTF, CTF))
    monkeypatch.setattr(calldata, "redeem_positions", lambda *_: Call(ADAPTER, b"\x01\x02\x03\x04"))
    venue.chain.act(user.address, CTF, "setApprovalForAll(address,bool)", CTF, True)
    with pytest.raises(RedeemRefused, match="would revert") as error:
        await user.redeem(condition)
    assert error.value.code == "would_revert" and mined(venue, user) == 0


@pytest.mark.parametrize("kind", [WalletType.EOA, WalletType.SAFE])
async def test_se_04_a_mined_revert_is_no_effect_with_the_reason(venue: ChainVenue, kind: WalletType) -> None:
    """The approval is taken back between the estimate and the block."""
    user = venue.user(kind)
    condition = user.won()
    venue.machine.automine = False
    call = asyncio.create_task(user.redeem(condition))
    await until(lambda: venue.machine.pool)
    venue.chain.approve(user.address, condition, False)
    venue.machine.mine()
    done = await call
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.REVERTED), done
    assert ("need operator approval" if kind is WalletType.EOA else "GS013") in done.reason
    assert done.gas_cost > 0 and done.payout == 0 and user.shares(condition) == (5_000_000, 0)


async def test_somebody_elses_redeem_in_the_same_moment_is_not_claimed(venue: ChainVenue) -> None:
    user = venue.user(WalletType.EOA)
    condition = user.won()
    venue.machine.automine = False
    call = asyncio.create_task(user.redeem(condition))
    await until(lambda: venue.machine.pool)
    redeem = calldata.redeem_positions(ADAPTER, condition.condition_id)
    venue.machine.act(bytes.fromhex(user.address[2:]), bytes.fromhex(ADAPTER[2:]), redeem.data)
    venue.machine.mine()
    done = await call
    assert (done.status, done.cause, done.payout) == (RedeemStatus.NO_EFFECT, RedeemCause.ELSEWHERE, 0), done
    assert user.cash == 5_000_000


# -- the relayer ------------------------------------------------------------------------------------------------------


def relayed(
    venue: ChainVenue, kind: WalletType = WalletType.DEPOSIT, patience: Patience = IMPATIENT
) -> tuple[User, Redeemer, Condition]:
    user = venue.user(kind)
    return user, user.redeemer(patience=patience), user.won()


@pytest.mark.parametrize("kind", [WalletType.DEPOSIT, WalletType.SAFE, WalletType.PROXY])
async def test_a_busy_relayer_is_asked_again_and_a_lost_answer_never(venue: ChainVenue, kind: WalletType) -> None:
    user, redeemer, condition = relayed(venue, kind)
    venue.faults.arm("busy", 2)
    venue.faults.arm("submit_answer_lost")
    venue.faults.arm("stall")
    done = await redeemer.redeem(condition.condition_id, user.wallet, via=RedeemPath.RELAYER)
    assert (done.status, done.cause) == (RedeemStatus.UNVERIFIED, RedeemCause.LOST_ANSWER), done
    assert "again later" in done.reason and len(venue.relayer.submitted) == 1
    assert ("UTC" in done.reason) == (kind is WalletType.DEPOSIT)
    # It is executed in the end: the next call finds nothing left to do.
    venue.relayer.release()
    again = await redeemer.redeem(condition.condition_id, user.wallet, via=RedeemPath.RELAYER)
    assert again.cause is RedeemCause.NOTHING_HELD and user.cash == 5_000_000


async def test_a_lost_answer_is_a_success_once_the_money_is_there(venue: ChainVenue) -> None:
    user, redeemer, condition = relayed(venue, patience=QUICK)
    venue.faults.arm("submit_answer_lost")
    venue.faults.arm("stall")
    call = asyncio.create_task(redeemer.redeem(condition.condition_id, user.wallet))
    await until(lambda: venue.relayer.submitted)
    venue.relayer.release()
    done = await call
    assert done.status is RedeemStatus.SUCCESS and done.payout == 5 and user.cash == 5_000_000, done
    assert len(venue.relayer.submitted) == 1


async def test_without_a_hash_the_balances_prove_it(venue: ChainVenue) -> None:
    user, redeemer, condition = relayed(venue)
    venue.faults.arm("no_hash")
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert done.status is RedeemStatus.SUCCESS and done.payout == 5 and done.transactions == (), done


async def test_a_relayer_that_stays_busy_has_taken_nothing(venue: ChainVenue) -> None:
    user, redeemer, condition = relayed(venue)
    venue.faults.arm("busy", 100)
    with pytest.raises(RedeemRefused) as error:
        await redeemer.redeem(condition.condition_id, user.wallet)
    assert error.value.code == "relayer_busy" and venue.relayer.submitted == []


@pytest.mark.parametrize("fault", ["fail", "invalid"])
async def test_a_failed_relayer_action_is_no_effect(venue: ChainVenue, fault: str) -> None:
    user, redeemer, condition = relayed(venue)
    venue.faults.arm(fault)
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.RELAYER_FAILED), done
    assert done.relayer_id and user.shares(condition) == (5_000_000, 0)
    assert (await redeemer.redeem(condition.condition_id, user.wallet)).status is RedeemStatus.SUCCESS


async def test_a_confirmed_action_that_did_nothing_is_no_effect(venue: ChainVenue) -> None:
    user, redeemer, condition = relayed(venue)
    venue.faults.arm("swallow")
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert (done.status, done.cause) == (RedeemStatus.NO_EFFECT, RedeemCause.SILENT), done
    assert user.shares(condition) == (5_000_000, 0)


async def test_an_action_that_takes_too_long_is_unverified(venue: ChainVenue) -> None:
    user, redeemer, condition = relayed(venue)
    venue.faults.arm("stall")
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert (done.status, done.cause) == (RedeemStatus.UNVERIFIED, RedeemCause.PENDING), done
    assert done.relayer_id in done.reason
    with pytest.raises(RedeemRefused) as error:
        await redeemer.redeem(condition.condition_id, user.wallet)
    assert error.value.code == "relayer_busy" and len(venue.relayer.submitted) == 1
    venue.relayer.release()
    assert (await redeemer.redeem(condition.condition_id, user.wallet)).cause is RedeemCause.NOTHING_HELD
    assert user.cash == 5_000_000


async def test_a_nonce_that_the_relayer_names_is_signed_with(
    venue: ChainVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, redeemer, condition = relayed(venue)
    assert (await redeemer.redeem(user.won().condition_id, user.wallet)).status is RedeemStatus.SUCCESS
    relayer = redeemer._relayer
    assert relayer is not None
    nonce = relayer.nonce

    async def old(kind: object) -> object:
        answer = await nonce(kind)  # type: ignore[arg-type]
        return type(answer)(nonce=answer.nonce - 1, address=answer.address)

    monkeypatch.setattr(relayer, "nonce", old)
    done = await redeemer.redeem(condition.condition_id, user.wallet)
    assert done.status is RedeemStatus.SUCCESS and user.cash == 10_000_000


async def test_builder_keys_work_and_their_quota_ends(venue: ChainVenue) -> None:
    user = venue.user(WalletType.DEPOSIT)
    made = venue.relayer.make_builder()
    redeemer = user.redeemer(key=BuilderKey(made.key, made.secret, made.passphrase))
    assert (await redeemer.redeem(user.won().condition_id, user.wallet)).status is RedeemStatus.SUCCESS
    venue.relayer.quota = 0
    with pytest.raises(RedeemRefused, match="quota") as error:
        await redeemer.redeem(user.won().condition_id, user.wallet)
    assert error.value.code == "quota"


async def test_keys_that_are_refused_or_missing_say_so_without_showing_any(
    venue: ChainVenue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user = venue.user(WalletType.DEPOSIT)
    condition = user.won()
    wrong = user.redeemer(key=RelayerKey("wrong-relayer-key", user.owner))
    with pytest.raises(AuthError, match="relayer or builder key") as refused:
        await wrong.redeem(condition.condition_id, user.wallet)
    none = Redeemer(venue.reader(), venue.find, user.signer, venue.clock, patience=QUICK)
    with pytest.raises(ConfigError, match="POLYMARKET_RELAYER_API_KEY"):
        await none.redeem(condition.condition_id, user.wallet)
    done = await user.redeem(condition)
    text = "\n".join([str(refused.value), repr(done), *(REDACTOR(record.getMessage()) for record in caplog.records)])
    signatures = [body["signature"][2:] for body in venue.relayer.submitted]
    for secret in ("wrong-relayer-key", user.key[2:], *venue.relayer.relayer_keys, *signatures):
        assert secret not in text


@pytest.mark.parametrize("kind", [WalletType.EOA, WalletType.SAFE, WalletType.PROXY])
async def test_the_direct_path_shows_no_key_in_results_errors_and_logs(
    venue: ChainVenue, kind: WalletType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user = venue.user(kind)
    shown = [repr(user.signer), repr(await user.redeem(user.won()))]
    venue.faults.arm("raw_answer_lost")
    shown.append(repr(await user.redeem(user.won())))
    loser = user.redeemer()
    shown.append(repr(loser))
    text = "\n".join([*shown, *(REDACTOR(record.getMessage()) for record in caplog.records)])
    assert len(caplog.records) > 5 and user.key[2:].lower() not in text.lower()


def test_web3_leaves_the_recursion_limit_of_the_process_alone() -> None:
    """Seen: with the limit that py_ecc sets, a body of 100,000 brackets was a segmentation fault of the whole bot."""
    code = (
        "import sys; before = sys.getrecursionlimit()\n"
        "from pmkit.exchanges.polymarket.chain import _import_web3; _import_web3()\n"
        "assert 'py_ecc' in sys.modules and sys.getrecursionlimit() == before\n"
        "from pmkit.exchanges.polymarket.refusals import judge; print(judge(500, b'[' * 99_999).proof)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "UNKNOWN"), run.stderr
