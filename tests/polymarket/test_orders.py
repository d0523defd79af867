"""Orders: the official vectors, amounts against Decimal, every local refusal, and what the bytes say."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_DOWN, Decimal, localcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from coincurve import PublicKey
from hypothesis import given
from hypothesis import strategies as st

from pmkit.errors import ConfigError, InvalidOrder
from pmkit.exchanges.market import FeeRule
from pmkit.exchanges.polymarket import amounts, eip712
from pmkit.exchanges.polymarket.amounts import Amounts
from pmkit.exchanges.polymarket.order_plan import OrderPlan, expiration_of, plan_limit, plan_market
from pmkit.exchanges.polymarket.orders import (
    MAX_SALT,
    OrderSigner,
    batch_body,
    cancel_body,
    cancel_many_body,
    cancel_market_body,
    heartbeat_body,
)
from pmkit.exchanges.polymarket.wallets import SignatureType, wallets_of
from pmkit.exchanges.types import Side, TimeInForce
from tests.polymarket.accounts import (
    ADDRESS,
    API_KEY,
    DOWN_V2,
    NOW_MS,
    UP,
    UP_V2,
    credentials,
    market,
    signer,
)
from tests.vectors import polymarket_orders
from tests.vectors.__main__ import form_of, run

TICKS = (1000, 100, 50, 25, 10, 1)
COLUMNS = {1000: (1, 3), 100: (2, 4), 50: (3, 5), 25: (4, 6), 10: (3, 5), 1: (4, 6)}
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)


def vectors(recordings: Path) -> dict[str, Any]:
    return json.loads((recordings / "polymarket" / "order_vectors.json").read_text())


# -- vectors --------------------------------------------------------------------------------------------------------


def test_dp_03_every_official_vector_is_reproduced(recordings: Path) -> None:
    path = recordings / "polymarket" / "order_vectors.json"
    content = vectors(recordings)
    found = list(polymarket_orders.check(content, path))
    assert [name for name, _ in found if not name.startswith("orders")]
    assert len(found) == sum(len(content.get(name, ())) for name in polymarket_orders.SECTIONS) >= 73
    assert [(name, problem) for name, problem in found if problem] == []


def test_bodies_are_the_official_bytes(recordings: Path) -> None:
    """Keys in the order of the official package as well, so that its L2 signature is ours over our own body."""
    for row in vectors(recordings)["orders"]:
        given_, expected = row["inputs"], row["expected"]
        plan = OrderPlan(
            token_id=given_["asset_id"],
            exchange=eip712.exchange_for(given_["asset_id"], given_["neg_risk"], given_["chain_id"]),
            side=Side(given_["side"]),
            maker_amount=int(expected["maker_amount"]),
            taker_amount=int(expected["taker_amount"]),
            time_in_force=TimeInForce({"FAK": "IOC"}.get(given_["order_type"], given_["order_type"])),
            post_only=given_["post_only"],
            expiration=given_["expiration"] or 0,
        )
        account = OrderSigner(
            signer(),
            API_KEY,
            funder=given_["funder"],
            signature_type=given_["signature_type"],
            session_key=given_["signer_type"] == "SESSION_KEY",
            builder=given_["builder_code"],
        )
        signed = account.sign(plan, given_["salt"], given_["timestamp_ms"])
        assert signed.body == expected["post_body_json"].encode(), row["id"]
        assert signed.headers(credentials(), given_["timestamp_ms"] // 1000) == expected["l2_headers"], row["id"]


def change_price(row: dict[str, Any]) -> None:
    row["inputs"]["price"] = str(Decimal(row["inputs"]["price"]) + Decimal(row["inputs"]["tick_size"]))


def change_salt(row: dict[str, Any]) -> None:
    row["inputs"]["salt"] += 1


def change_body(row: dict[str, Any]) -> None:
    row["expected"]["post_body"]["deferExec"] = True


def change_header(row: dict[str, Any]) -> None:
    row["expected"]["l2_headers"]["POLY_TIMESTAMP"] = "1"


@pytest.mark.parametrize("change", [change_price, change_salt, change_body, change_header])
def test_the_vector_check_can_fail(change: Callable[[dict[str, Any]], None], recordings: Path, tmp_path: Path) -> None:
    content = vectors(recordings)
    content["orders"] = [row for row in content["orders"] if row["inputs"]["kind"] == "limit"][:3]
    change(content["orders"][1])
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(content))
    said: list[str] = []
    assert run([path], said.append) == 1
    rows = 3 + sum(len(content.get(name, ())) for name in polymarket_orders.SECTIONS[1:])
    assert said[-1] == f"{rows - 1} of {rows}"
    assert sum(line.startswith("FAILED") for line in said) == 1 and content["orders"][1]["id"] in said[0]


def test_vectors_of_batches_and_rows_of_an_unknown_kind(recordings: Path) -> None:
    path = recordings / "polymarket" / "order_vectors.json"
    content = vectors(recordings)
    rows = [row for row in content["orders"] if row["inputs"]["signer_type"] == "OWNER"][:15]
    text = "[" + ",".join(row["expected"]["post_body_json"] for row in rows) + "]"
    seconds = rows[0]["inputs"]["timestamp_ms"] // 1000
    headers = dict(rows[0]["expected"]["l2_headers"])
    secret = base64.urlsafe_b64decode(content["meta"]["api_credentials"]["secret"])
    mac = hmac.new(secret, f"{seconds}POST/orders{text}".encode(), hashlib.sha256)
    headers["POLY_SIGNATURE"] = base64.urlsafe_b64encode(mac.digest()).decode()
    batch = {
        "id": "batch-0",
        "inputs": {"orders": [row["id"] for row in rows], "timestamp_ms": rows[0]["inputs"]["timestamp_ms"]},
        "expected": {
            "post_path": "/orders",
            "post_body": json.loads(text),
            "post_body_json": text,
            "l2_headers": headers,
            "order_hashes": [row["expected"]["order_hash"] for row in rows],
        },
    }
    content["batches"] = [batch]
    assert [problem for _, problem in polymarket_orders.check(content, path) if problem] == []
    batch["expected"]["order_hashes"][3] = "0x00"
    content["replacements"] = [{"id": "r-0"}]
    failed = {name: problem for name, problem in polymarket_orders.check(content, path) if problem}
    assert list(failed) == ["batches batch-0", "replacements"]


def test_an_order_that_pmkit_refuses_for_its_decimals_is_checked_by_its_signature() -> None:
    given = {"kind": "market", "order_type": "FAK", "side": "SELL", "min_price": "0.123", "tick_size": "0.001"}
    expected = {"maker_amount": "7770000", "taker_amount": "955710"}
    assert polymarket_orders.amounts_of({**given, "shares": "7.775"}, expected) == (7_770_000, 955_710)
    with pytest.raises(InvalidOrder, match="four decimals"):
        amounts.taking(Side.SELL, 1230, 777)


def test_forms_are_told_apart_and_unknown_ones_fail(recordings: Path, tmp_path: Path) -> None:
    kalshi = recordings / "kalshi" / "auth" / "signature_vectors.json"
    said: list[str] = []
    assert run([recordings / "polymarket" / "order_vectors.json", kalshi], said.append) == 0
    good, total = said[-1].split(" of ")
    assert good == total and int(total) >= 87
    for text in ('{"orders": "none"}', "[1]", '{"orders": []}', "no json"):
        path = tmp_path / "odd.json"
        path.write_text(text)
        assert run([kalshi, path], said.append) == 1, text
    assert form_of({"verify": [{"name": "x"}]}) is None
    path.write_text('{"verify": [{"name": "x", "ed25519_signature": "y"}], "must_fail": 3}')
    assert run([path], said.append) == 1 and any("not of the form Kalshi signatures" in line for line in said)
    assert run([tmp_path / "absent.json"], said.append) == 1


# -- constants ------------------------------------------------------------------------------------------------------


def test_hashes_are_the_published_ones() -> None:
    assert len(eip712.ORDER_TYPE) == 186
    assert {
        "order": eip712.ORDER_TYPE_HASH.hex(),
        "domain": eip712.DOMAIN_TYPE_HASH.hex(),
        "nested": eip712.NESTED_TYPE_HASH.hex(),
        "name": eip712.EXCHANGE_NAME_HASH.hex(),
        "wallet": eip712.WALLET_NAME_HASH.hex(),
        "login": eip712.LOGIN_TYPE_HASH.hex(),
        "login domain": eip712.LOGIN_DOMAIN_TYPE_HASH.hex(),
        "message": eip712.LOGIN_MESSAGE_HASH.hex(),
        "1": eip712.ONE_HASH.hex(),
        "2": eip712.keccak(b"2").hex(),
        "3": eip712.keccak(b"3").hex(),
    } == {
        "order": "bb86318a2138f5fa8ae32fbe8e659f8fcf13cc6ae4014a707893055433818589",
        "domain": "8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f",
        "nested": "6ba028565cb324c2aa02bb714b9816d0bddd557a2f33bb36cf13272a4256bd42",
        "name": "f30041e9aac4c4d3a1481d2941dfb0a844a72040e9bbc79a810d1ec5b5d6c7af",
        "wallet": "d682b529a17cda19aa275f3a050608f9e9401fadd1b0d233d81519972295828b",
        "login": "52578c5c725a28a84fedc8c22aa47947822942f35b4dc350db028e45320e035c",
        "login domain": "c2f8787176b8ac6bf7215b4adcc1e069bf4ab82d9ab1df05a57a91d425935b6e",
        "message": "474924bb27022542020023b4a52fb834ca5e3dd70b9a4d7e7fe9ca13228cbda3",
        "1": "c89efdaa54c0f20c7adf612882df0950f5a951637e0307cdcb4c672f298b8bc6",
        "2": "ad7c5bef027816a800da1736444fb58a807ef4c9603b7848673f7e3a68eb14a5",
        "3": "2a80e1ef1d7842f27f2e6be0972bb708b9a135c38860dbe73c27c3486c34f4de",
    }


@pytest.mark.parametrize(
    ("exchange", "separator"),
    [
        (eip712.CTF_V2[137], "3264e159346253e26a64e00b69032db0e7d32f94628de3e6eecb50304d7af3d2"),
        (eip712.NEG_RISK_V2[137], "9b858f53327b0bd13af8ec14cfb35234fb9eb7b0504d1a4e61f433840d30e81a"),
        (eip712.EXCHANGE_V3[137], "466c63910185bbd55e8679264200c4e0abdcbb0c6264eb3d41d13326022e095b"),
        (eip712.CTF_V2[80002], "a440cbd865bc0c6243d7a8df9a8bf48a8827b0a4abbb61c30e96d305423af148"),
        (eip712.NEG_RISK_V2[80002], "1468e39841f0a0e05d3762b235cb7acecabf8cd7b6d3a672965a5d415bf9378e"),
        (eip712.EXCHANGE_V3[80002], "df8b5fd204134b8d562677d7fc9346884e8f02ef2fd43358239393723e8833e6"),
    ],
)
def test_separators_are_the_published_ones(exchange: eip712.Exchange, separator: str) -> None:
    assert exchange.separator.hex() == separator


def test_the_version_follows_from_the_token() -> None:
    assert eip712.exchange_for(UP, False).version == "2"
    assert eip712.exchange_for(UP, True).contract.startswith("0xe2222")
    assert eip712.exchange_for(UP_V2, False) is eip712.exchange_for(UP_V2, True) is eip712.EXCHANGE_V3[137]
    assert eip712.exchange_for(UP_V2, False, 80002).contract.startswith("0x9fE6")
    assert not eip712.is_position_id(str((1 << 248) + (1 << 40)))
    assert not eip712.is_position_id(str((1 << 248) + (1 << 103)))
    assert eip712.is_position_id(str((1 << 248) + (1 << 39) + (1 << 104)))
    for token in ("", "0", "-1", "0x12", "1.0", "٣", str(1 << 256), "9" * 79):
        with pytest.raises(InvalidOrder):
            eip712.exchange_for(token, False)
    with pytest.raises(ConfigError, match="chain"):
        eip712.exchange_for(UP, False, 1)


# -- amounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tick", TICKS)
def test_the_decimals_table(tick: int) -> None:
    price, amount = COLUMNS[tick]
    assert amounts.amount_decimals(tick) == amount
    assert amounts.price_decimals(tick) == price


def decimals(base_units: int) -> int:
    return max(0, -Decimal(base_units).scaleb(-6).normalize().as_tuple().exponent)  # type: ignore[operator]


@given(st.sampled_from(TICKS), st.data(), st.integers(1, 10**8), st.sampled_from(list(Side)))
def test_oe_09_resting_amounts_are_the_exact_product(tick: int, data: st.DataObject, size: int, side: Side) -> None:
    price = data.draw(st.integers(1, 10_000 // tick - 1)) * tick
    made = amounts.resting(side, price, size)
    dollars, shares = Decimal(price) / 10_000 * Decimal(size) / 100, Decimal(size) / 100
    expected = (dollars, shares) if side is Side.BUY else (shares, dollars)
    assert tuple(Decimal(units) / 1_000_000 for units in made) == expected
    assert decimals(made.maker) <= (amounts.amount_decimals(tick) if side is Side.BUY else 2)
    assert amounts.implied_price(side, made) == Decimal(price) / 10_000


@given(st.sampled_from(TICKS), st.data(), st.integers(1, 10**7))
def test_oe_10_oe_14_market_buys_keep_the_caps_and_stay_matchable(tick: int, data: st.DataObject, cents: int) -> None:
    price = data.draw(st.integers(1, 10_000 // tick - 1)) * tick
    made = amounts.spending(price, cents, tick)
    limit, money = Decimal(price) / 10_000, Decimal(cents) / 100
    places = min(COLUMNS[tick][1], 4)
    with localcontext() as context:
        context.prec = 60
        shares = (money / limit).quantize(Decimal(1).scaleb(-places), ROUND_DOWN)
        assert made == Amounts(cents * 10_000, int(shares * 1_000_000))
        # Never rounded up: what is implied is the limit or worse for the buyer, so that the order matches at it.
        assert money / shares >= limit
    assert decimals(made.maker) <= 2 and decimals(made.taker) <= 4


@given(st.sampled_from(TICKS), st.data(), st.integers(1, 10**6), st.sampled_from(list(Side)))
def test_oe_10_taking_refuses_or_is_exact(tick: int, data: st.DataObject, size: int, side: Side) -> None:
    price = data.draw(st.integers(1, 10_000 // tick - 1)) * tick
    cap = 2 if side is Side.BUY else 4

    def legal(hundredths: int) -> bool:
        product = Decimal(price) / 10_000 * Decimal(hundredths) / 100
        return product == product.quantize(Decimal(1).scaleb(-cap), ROUND_DOWN)

    if legal(size):
        assert amounts.taking(side, price, size) == amounts.resting(side, price, size)
        return
    with pytest.raises(InvalidOrder) as caught:
        amounts.taking(side, price, size)
    words = str(caught.value).split()
    if "largest" in words:
        named = Decimal(words[-1])
        hundredths = int(named * 100)
        assert legal(hundredths) and 0 < hundredths < size
        assert not any(legal(other) for other in range(hundredths + 1, min(size, hundredths + 200)))
    else:
        smallest = int(Decimal(words[words.index("size", 5) + 2].rstrip(";")) * 100)
        assert legal(smallest) and smallest > size


@given(
    st.decimals("0.01", "100000", places=2),
    st.integers(1, 9999),
    st.sampled_from(["0", "0.04", "0.07", "0.25"]),
    st.sampled_from([1, 2]),
)
def test_what_is_spent_and_its_fee_stay_within_the_amount(
    amount: Decimal, price: int, rate: str, exponent: int
) -> None:
    fees = FeeRule(taker=Decimal(rate), exponent=Decimal(exponent))
    limit = Decimal(price) / 10_000
    cents = amounts.cents_within(amount, limit, fees)
    with localcontext() as context:
        context.prec = 60

        def cost(spent: int) -> Decimal:
            return Decimal(spent) / 100 + fees.raw(limit, Decimal(spent) / 100 / limit)

        slack = Decimal("1e-40")
        assert cost(cents) <= amount + slack
        assert cost(cents + 1) > amount - slack
    if rate == "0":
        assert cents == amount * 100


def test_amounts_do_not_depend_on_the_callers_context() -> None:
    with localcontext() as context:
        context.prec = 2
        assert amounts.spending(amounts.price_units(Decimal("0.69"), 100), 5050, 100) == (50_500_000, 73_188_400)
        assert plan_limit(market(), "UP", Side.BUY, "0.57", "1234.56", now_ms=NOW_MS).maker_amount == 703_699_200
        with pytest.raises(InvalidOrder, match="0.57 and 0.58"):
            amounts.price_units(Decimal("0.573"), 100)


@pytest.mark.parametrize(
    "bad", [0.5, True, None, "NaN", "inf", "-1", "0", "1", "1.01", "abc", "0.501", Decimal("NaN"), "", "1e-40"]
)
def test_oe_11_nonsense_prices_never_get_through(bad: object) -> None:
    with pytest.raises(InvalidOrder):
        plan_limit(market(), "UP", Side.BUY, bad, "10", now_ms=NOW_MS)
    with pytest.raises(InvalidOrder):
        plan_market(market(), "UP", Side.BUY, worst_price=bad, size="10")


@pytest.mark.parametrize("bad", [10.0, False, "NaN", "-5", "0", "10.001", "1e18", Decimal("Infinity"), "ten"])
def test_oe_11_nonsense_sizes_never_get_through(bad: object) -> None:
    for time_in_force in TimeInForce:
        expires = NOW + timedelta(hours=1) if time_in_force is TimeInForce.GTD else None
        with pytest.raises(InvalidOrder):
            plan_limit(
                market(), "UP", Side.SELL, "0.5", bad, now_ms=NOW_MS, time_in_force=time_in_force, expires_at=expires
            )
    if bad != "10.001":  # an amount is the most that may be spent, not what is spent
        with pytest.raises(InvalidOrder):
            plan_market(market(), "UP", Side.BUY, worst_price="0.5", amount=bad)


# -- plans ----------------------------------------------------------------------------------------------------------


def test_oe_12_minimums_are_those_of_the_kind_of_order() -> None:
    with pytest.raises(InvalidOrder, match="minimum of 5"):
        plan_limit(market(), "UP", Side.SELL, "0.5", "4.99", now_ms=NOW_MS)
    # What only takes never rests: a small rest of a position can be sold.
    sold = plan_limit(market(), "UP", Side.SELL, "0.5", "0.02", now_ms=NOW_MS, time_in_force=TimeInForce.IOC)
    assert (sold.maker_amount, sold.taker_amount) == (20_000, 10_000)
    with pytest.raises(InvalidOrder, match=r"0\.99 dollars.*1 at least"):
        plan_limit(market(), "UP", Side.BUY, "0.33", "3", now_ms=NOW_MS, time_in_force=TimeInForce.FOK)
    with pytest.raises(InvalidOrder, match="fee inside leave"):
        plan_market(market(), "UP", Side.BUY, worst_price="0.5", amount="1.03")
    assert plan_market(market(), "UP", Side.BUY, worst_price="0.5", amount="1.04").maker_amount == 1_000_000


def test_a_market_buy_has_its_fee_inside_the_amount() -> None:
    # At 0.50 the fee is 0.07 x 0.5 per dollar: 5 / 1.035 = 4.83.
    plan = plan_market(market(), "UP", Side.BUY, worst_price="0.50", amount=5)
    assert (plan.maker_amount, plan.taker_amount) == (4_830_000, 9_660_000)
    # Filled cheaper, a dollar pays more fee: reckoned at the best ask it stays inside there as well.
    cheaper = plan_market(market(), "UP", Side.BUY, worst_price="0.50", amount=5, fee_price=Decimal("0.10"))
    assert cheaper.maker_amount == 4_700_000
    assert plan_market(market(), "UP", Side.BUY, worst_price="0.50", size="10").maker_amount == 5_000_000


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ({}, "exactly one"),
        ({"size": 1, "amount": 1}, "exactly one"),
        ({"size": 9, "time_in_force": TimeInForce.GTC}, "IOC or FOK"),
        ({"size": "5.01"}, "largest legal size is 5.00"),
    ],
)
def test_market_orders_that_make_no_sense(kind: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidOrder, match=what):
        plan_market(market(), "UP", Side.BUY, worst_price="0.57", **kind)


def test_a_market_sell_is_given_by_size() -> None:
    with pytest.raises(InvalidOrder, match="BUY only"):
        plan_market(market(), "UP", Side.SELL, worst_price="0.5", amount=5)
    plan = plan_market(market(), "UP", Side.SELL, worst_price="0.5", size="7.77", time_in_force=TimeInForce.FOK)
    assert (plan.maker_amount, plan.taker_amount, plan.time_in_force) == (7_770_000, 3_885_000, "FOK")


def test_plain_words_are_sides_and_odd_ones_are_refused() -> None:
    word: Any = "BUY"
    assert plan_limit(market(), "UP", word, "0.5", 10, now_ms=NOW_MS).side is Side.BUY
    for wrong in ("buy", "LONG", "", None):
        bad: Any = wrong
        with pytest.raises(InvalidOrder, match="BUY and SELL"):
            plan_limit(market(), "UP", bad, "0.5", 10, now_ms=NOW_MS)


def test_post_only_rests() -> None:
    assert plan_limit(market(), "UP", Side.BUY, "0.5", 10, now_ms=NOW_MS, post_only=True).post_only
    for time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        with pytest.raises(InvalidOrder, match="post_only"):
            plan_limit(market(), "UP", Side.BUY, "0.5", 10, now_ms=NOW_MS, post_only=True, time_in_force=time_in_force)


def test_a_gtd_order_says_sixty_seconds_more() -> None:
    gone = NOW + timedelta(seconds=300)
    assert expiration_of(gone, TimeInForce.GTD, NOW_MS) == int(gone.timestamp()) + 60
    other_zone = gone.astimezone(timezone(timedelta(hours=-5)))
    assert expiration_of(other_zone, TimeInForce.GTD, NOW_MS) == int(gone.timestamp()) + 60
    # 180 s ahead on the wire are 120 s of life.
    with pytest.raises(InvalidOrder, match="within 120 s; the earliest is") as caught:
        expiration_of(NOW + timedelta(seconds=119), TimeInForce.GTD, NOW_MS)
    earliest = datetime.fromisoformat(str(caught.value).rpartition(" ")[2])
    assert expiration_of(earliest, TimeInForce.GTD, NOW_MS) == int(earliest.timestamp()) + 60
    with pytest.raises(InvalidOrder):
        expiration_of(earliest - timedelta(seconds=1), TimeInForce.GTD, NOW_MS)
    with pytest.raises(InvalidOrder, match="needs expires_at"):
        expiration_of(None, TimeInForce.GTD, NOW_MS)
    with pytest.raises(InvalidOrder, match="GTD only"):
        expiration_of(gone, TimeInForce.GTC, NOW_MS)
    with pytest.raises(InvalidOrder, match="time zone"):
        expiration_of(gone.replace(tzinfo=None), TimeInForce.GTD, NOW_MS)
    assert expiration_of(None, TimeInForce.GTC, NOW_MS) == 0


def test_oe_16_the_markets_version_and_its_ids_have_to_agree() -> None:
    v2 = market(token_ids=(UP_V2, DOWN_V2), protocol="v2")
    assert plan_limit(v2, "DOWN", Side.BUY, "0.5", 10, now_ms=NOW_MS).exchange.version == "3"
    for odd in (market(protocol=""), market(protocol="v3"), market(protocol="v2"), market(token_ids=(UP_V2, DOWN_V2))):
        with pytest.raises(InvalidOrder, match="protocol"):
            plan_limit(odd, "UP", Side.BUY, "0.5", 10, now_ms=NOW_MS)
    with pytest.raises(InvalidOrder, match="no outcome"):
        plan_limit(v2, "YES", Side.BUY, "0.5", 10, now_ms=NOW_MS)


# -- signing --------------------------------------------------------------------------------------------------------


def plan() -> OrderPlan:
    return plan_limit(market(), "UP", Side.BUY, "0.57", "10", now_ms=NOW_MS)


@pytest.mark.parametrize("kind", list(SignatureType))
def test_a_signature_recovers_to_the_key(kind: SignatureType) -> None:
    wallets = wallets_of(ADDRESS)
    funder = (wallets.owner, wallets.proxy, wallets.safe, wallets.deposit_beacon)[kind]
    for salt in range(40):
        signed = OrderSigner(signer(), API_KEY, funder=funder, signature_type=kind).sign(plan(), salt, NOW_MS)
        order = json.loads(signed.body)["order"]
        raw = bytes.fromhex(order["signature"][2:])
        assert order["maker"] == funder and order["salt"] == salt
        assert order["signer"] == (funder if kind is SignatureType.POLY_1271 else ADDRESS)
        digest = bytes.fromhex(signed.order_id[2:])
        if kind is SignatureType.POLY_1271:
            assert len(raw) == 317 and raw[-2:] == b"\x00\xba"
            contents = raw[97:129]
            assert eip712.typed_digest(raw[65:97], contents) == digest
            digest = eip712.typed_digest(raw[65:97], eip712.nested_hash(contents, 137, bytes.fromhex(funder[2:])))
        else:
            assert len(raw) == 65
        assert raw[64] in (27, 28)
        assert int.from_bytes(raw[32:64], "big") <= 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
        recoverable = raw[:64] + bytes([raw[64] - 27])
        public = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
        assert eip712.keccak(public.format(compressed=False)[1:])[-20:].hex() == ADDRESS[2:].lower()


@given(
    owner=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    side=st.sampled_from(list(Side)),
    word=st.sampled_from([TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK]),
    post_only=st.booleans(),
    numbers=st.tuples(*[st.integers(0, 1 << 52)] * 4),
)
def test_the_body_is_json_of_what_was_given(
    owner: str, side: Side, word: TimeInForce, post_only: bool, numbers: tuple[int, int, int, int]
) -> None:
    maker, taker, expiration, salt = numbers
    asked = msgspec.structs.replace(
        plan(), side=side, maker_amount=maker, taker_amount=taker, expiration=expiration, time_in_force=word,
        post_only=post_only,
    )  # fmt: skip
    body = json.loads(OrderSigner(signer(), owner).sign(asked, salt, NOW_MS).body)
    signature = body["order"].pop("signature")
    assert len(bytes.fromhex(signature[2:])) == 65 and signature[:2] == "0x"
    assert body == {
        "deferExec": False,
        "order": {
            "builder": eip712.ZERO_HEX, "expiration": str(expiration), "maker": ADDRESS, "makerAmount": str(maker),
            "metadata": eip712.ZERO_HEX, "salt": salt, "side": str(side), "signatureType": 0, "signer": ADDRESS,
            "takerAmount": str(taker), "timestamp": str(NOW_MS), "tokenId": asked.token_id,
        },
        "orderType": {"IOC": "FAK"}.get(word, str(word)),
        "owner": owner,
        **({"postOnly": True} if post_only else {}),
    }  # fmt: skip


def test_a_session_key_wraps_once_more() -> None:
    account = OrderSigner(
        signer(), API_KEY, funder="0x" + "12" * 20, signature_type=3, session_key=True, builder="0x" + "0b" * 32
    )
    order = json.loads(account.sign(plan(), 7, NOW_MS).body)["order"]
    raw = bytes.fromhex(order["signature"][2:])
    assert len(raw) == 480 and raw[:32].hex().endswith(ADDRESS[2:].lower()) and raw[-32:] == bytes.fromhex("6492" * 16)
    assert int.from_bytes(raw[96:128], "big") == 317 and order["builder"] == "0x" + "0b" * 32


def test_oe_02_one_plan_salt_and_time_is_one_order() -> None:
    account = OrderSigner(signer(), API_KEY)
    first, again = account.sign(plan(), 5, NOW_MS), account.sign(plan(), 5, NOW_MS)
    assert (first.order_id, first.body) == (again.order_id, again.body)
    assert len({account.sign(plan(), salt, NOW_MS + late).order_id for salt in range(5) for late in range(5)}) == 25


@pytest.mark.parametrize("salt", [-1, MAX_SALT + 1])
def test_salts_have_to_survive_a_double(salt: int) -> None:
    with pytest.raises(ValueError, match="2\\^53"):
        OrderSigner(signer(), API_KEY).sign(plan(), salt, NOW_MS)
    with pytest.raises(ValueError, match="milliseconds"):
        OrderSigner(signer(), API_KEY).sign(plan(), 1, NOW_MS // 1000)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ({"signature_type": 0, "funder": "0x" + "12" * 20}, "type 0 trades from the key's own address"),
        ({"signature_type": 3}, "types 1 to 3 from a wallet"),
        ({"signature_type": 4}, "unknown"),
        ({"session_key": True}, "session key belongs"),
        ({"builder": "0x12"}, "builder code"),
        ({"funder": "0x12", "signature_type": 1}, "no address"),
    ],
)
def test_accounts_that_cannot_sign(kind: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        OrderSigner(signer(), API_KEY, **kind)


def test_sx_02_signed_orders_do_not_print_their_signature() -> None:
    account = OrderSigner(signer(), API_KEY)
    signed = account.sign(plan(), 5, NOW_MS)
    signature = json.loads(signed.body)["order"]["signature"]
    for shown in (repr(signed), str(signed), f"{signed}", repr(account), repr([signed])):
        assert signature[2:40] not in shown and API_KEY not in shown
    assert signed.order_id in repr(signed)


def test_bodies_of_the_other_requests() -> None:
    account = OrderSigner(signer(), API_KEY)
    signed = [account.sign(plan(), salt, NOW_MS) for salt in range(16)]
    assert [row["order"]["salt"] for row in json.loads(batch_body(signed[:15]))] == list(range(15))
    for wrong in (signed, []):
        with pytest.raises(InvalidOrder, match="1 to 15"):
            batch_body(wrong)
    assert cancel_body("0xab") == b'{"orderID":"0xab"}'
    assert cancel_many_body(["0xab", "0xcd"]) == b'["0xab","0xcd"]'
    assert cancel_market_body("0xcd", "12") == b'{"market":"0xcd","asset_id":"12"}'
    assert heartbeat_body("") == b'{"heartbeat_id":""}'
    for empty in (lambda: cancel_market_body(""), lambda: cancel_market_body("0x1", ""), lambda: cancel_body("")):
        with pytest.raises(InvalidOrder, match="empty"):
            empty()
    for ids in ([], ["0x1"] * 1001):
        with pytest.raises(InvalidOrder, match="1 to 1000"):
            cancel_many_body(ids)
