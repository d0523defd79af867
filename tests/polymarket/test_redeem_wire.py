"""The bytes of a redeem: official vectors, eth-account and eth-abi as oracles, refusals of the relayer."""

from __future__ import annotations

import json
from pathlib import Path

import eth_abi
import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from pmkit.errors import ConfigError
from pmkit.exchanges.polymarket import calldata
from pmkit.exchanges.polymarket.auth import Signer
from pmkit.exchanges.polymarket.calldata import Call
from pmkit.exchanges.polymarket.contracts import CONDITIONAL_TOKENS, PROXY_FACTORY, ROUTER
from pmkit.exchanges.polymarket.eip712 import checksum_address
from pmkit.exchanges.polymarket.position_ids import outcome_indexes
from pmkit.exchanges.polymarket.redeem_verdict import _batch_sum
from pmkit.exchanges.polymarket.relayer_messages import BuilderKey, Refusal, RelayerKey, refusal_of
from pmkit.exchanges.polymarket.transactions import GWEI, MIN_TIP, Fees, polygon_fees, sign_transaction
from tests.vectors import __main__ as vectors

KEY = "0x" + "4c" * 32
SAFE = "0xd93B25cb943D14d0d34FBaF01Fc93a0f8b5F6E47"

numbers = st.integers(0, 2**256 - 1)
addresses = st.binary(min_size=20, max_size=20).map(checksum_address)
calls = st.builds(Call, addresses, st.binary(max_size=200), st.integers(0, 2**128))


def test_official_vectors(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recordings / "polymarket" / "chain_redeem_vectors.json"
    assert vectors.run([path]) == 0, capsys.readouterr().out


def test_a_changed_vector_is_noticed(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((recordings / "polymarket" / "chain_redeem_vectors.json").read_text())
    content["safe"]["two_calls"]["safe_tx_hash"] = "0x" + "11" * 32
    content["calls"]["router_split"]["data"] = content["calls"]["router_split"]["data"][:-2] + "81"
    content["deposit_wallet"]["relayer_submit_body"]["nonce"] = "4"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(content))
    assert vectors.run([changed]) == 1
    failed = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert [line.removeprefix("FAILED changed.json ") for line in failed] == [
        "calls router_split",
        "safe two_calls",
        "deposit_wallet",
    ]


@given(st.lists(calls, max_size=4))
@settings(max_examples=50)
def test_batches_are_encoded_as_eth_abi_does(batch: list[Call]) -> None:
    tuples = [(1, call.to, call.value, call.data) for call in batch]
    expected = eth_abi.encode(["(uint8,address,uint256,bytes)[]"], [tuples])
    assert calldata.proxy_batch(PROXY_FACTORY, batch).data[4:] == expected


@given(calls, st.integers(0, 1), st.binary(max_size=130))
@settings(max_examples=50)
def test_a_safe_call_is_encoded_as_eth_abi_does(call: Call, operation: int, signature: bytes) -> None:
    zero = "0x" + "0" * 40
    expected = eth_abi.encode(
        ["address", "uint256", "bytes", "uint8", *["uint256"] * 3, "address", "address", "bytes"],
        [call.to, call.value, call.data, operation, 0, 0, 0, zero, zero, signature],
    )
    assert calldata.exec_transaction(SAFE, call, operation, signature).data[4:] == expected


@given(addresses, st.lists(numbers, max_size=3))
@settings(max_examples=30)
def test_balances_are_asked_as_eth_abi_does(owner: str, ids: list[int]) -> None:
    expected = eth_abi.encode(["address[]", "uint256[]"], [[owner] * len(ids), ids])
    assert calldata.balance_of_batch(CONDITIONAL_TOKENS, owner, ids).data[4:] == expected


@given(
    calls,
    st.integers(0, 2**40),
    st.integers(21_000, 30_000_000),
    st.integers(1, 10**15),
    st.integers(1, 10**15),
    st.sampled_from([1, 137, 80002, 131277322940537]),
)
@settings(max_examples=60)
def test_transactions_are_those_of_eth_account(
    call: Call, nonce: int, gas: int, max_fee: int, tip: int, chain_id: int
) -> None:
    made = sign_transaction(Signer(KEY), call, nonce=nonce, gas=gas, fees=Fees(max_fee, tip), chain_id=chain_id)
    fields = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": call.to,
        "value": call.value,
        "data": call.data,
        "gas": gas,
        "maxFeePerGas": max_fee,
        "maxPriorityFeePerGas": tip,
    }
    expected = Account.sign_transaction(fields, KEY)
    assert made.raw == expected.raw_transaction
    assert made.hash == expected.hash.to_0x_hex()


def test_token_ids_follow_from_the_condition(recordings: Path) -> None:
    """Real markets: the order of the outcomes on chain is that of the venue's lists."""
    events = json.loads((recordings / "polymarket" / "gamma_events_btc_5m_resolved_2026-09-23.json").read_text())
    markets = [market for event in events["data"] for market in event["markets"]]
    assert markets
    for market in markets:
        tokens = tuple(json.loads(market["clobTokenIds"]))
        assert outcome_indexes(market["conditionId"], tokens, False) == (0, 1)
        assert outcome_indexes(market["conditionId"], tokens[::-1], False) == (1, 0)
        assert outcome_indexes("0x" + "11" * 32, tokens, False) is None


@given(st.binary(max_size=200), st.lists(numbers, max_size=3))
@settings(max_examples=50)
def test_events_that_are_no_batch_prove_nothing(data: bytes, ids: list[int]) -> None:
    assert _batch_sum(data, tuple(ids)) >= 0
    assert _batch_sum(eth_abi.encode(["uint256[]", "uint256[]"], [ids, [7] * len(ids)]), tuple(ids)) == 7 * len(ids)


@pytest.mark.parametrize("text", ["", "0x", "0x" + "g" * 64, "0x" + "a" * 63, "a" * 64])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        calldata.condition_word(text)


def test_a_v1_condition_does_not_pass_as_one_of_v2() -> None:
    with pytest.raises(ConfigError, match="not 00"):
        calldata.router_redeem(ROUTER, "0x" + "ab" * 32, 0, 1)
    short, padded = "0x" + "ab" * 31, "0x" + "ab" * 31 + "00"
    assert calldata.router_redeem(ROUTER, short, 1, 5) == calldata.router_redeem(ROUTER, padded, 1, 5)


def test_fees_keep_polygons_floor_and_a_replacement_is_dearer_in_both() -> None:
    fees = polygon_fees(100 * GWEI, 1 * GWEI)
    assert fees == Fees(max_fee=230 * GWEI, tip=MIN_TIP)
    dearer = fees.raised(polygon_fees(50 * GWEI, 1 * GWEI))
    assert dearer.max_fee * 10 >= fees.max_fee * 11 and dearer.tip * 10 >= fees.tip * 11
    assert fees.raised(polygon_fees(1000 * GWEI, 90 * GWEI)) == Fees(2090 * GWEI, 90 * GWEI)


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (429, "slow down", (Refusal.BUSY, None)),
        (400, "wallet busy: there is an active action", (Refusal.BUSY, None)),
        (400, "wallet has in-flight action", (Refusal.BUSY, None)),
        (400, "batch nonce 3 does not match on-chain nonce 5", (Refusal.NONCE_USED, 5)),
        (400, "batch nonce 5 does not match on-chain nonce 3", (Refusal.FINAL, None)),
        (400, "PRECHECK_SKIPPED: redeem skipped: zero position balance", (Refusal.SKIPPED, None)),
        (429, "quota exceeded: 0 units remaining", (Refusal.QUOTA, None)),
        (400, "invalid signature", (Refusal.FINAL, None)),
        (401, "wallet has in-flight action", (Refusal.FINAL, None)),
    ],
)
def test_what_a_refusal_of_the_relayer_means(status: int, text: str, expected: tuple[Refusal, int | None]) -> None:
    assert refusal_of(status, text) == expected


def test_keys_show_nothing() -> None:
    for key in (RelayerKey("relayer-key-abcdef", SAFE), BuilderKey("builder-abcdef", "c2VjcmV0LXNlY3JldA==", "passes")):
        assert "abcdef" not in repr(key) and "passes" not in repr(key)
    with pytest.raises(ConfigError) as error:
        RelayerKey("bad key\r\n", SAFE)
    assert "bad key" not in str(error.value)
