"""Order entry of the local Polymarket: what is refused with which text, what matches how, and whose money moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest

from pmkit.clock import Entropy
from pmkit.sim.engine import Side
from pmkit.sim.polymarket.modes import TEXTS_500, Mode
from pmkit.sim.polymarket.signatures import CTF_EXCHANGE, EXCHANGE_V3, separator
from tests.sim.polymarket_client import Bench
from tests.sim.polymarket_trader import Trader

SHARE = 1_000_000


@pytest.fixture
async def trader(still: Bench) -> Trader:
    return Trader(still)


@pytest.fixture
async def at_once(still: Bench) -> Trader:
    """A trader where marketable orders match without the taker delay and nobody else quotes."""
    still.venue.desk.taker_delay_seconds = 0
    trader = Trader(still)
    trader.clear_book()
    return trader


def conserved(bench: Bench) -> None:
    """No dollar and no share came from nowhere or went."""
    accounts = bench.venue.accounts
    assert accounts.total_cash() + accounts.fees + sum(accounts.collateral.values()) == accounts.paid_in
    for condition, collateral in accounts.collateral.items():
        window = bench.venue.listings.find(condition)
        assert window is not None
        assert [accounts.total_shares(token) for token in window.tokens] == [collateral, collateral]


# ---- every wallet type


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
async def test_every_wallet_type_places_reads_and_cancels(still: Bench, kind: int) -> None:
    trader = Trader(still, kind)
    body = trader.order(price=100, shares=50 * SHARE)
    status, data, headers = await trader.answered("POST", "/order", body)
    assert status == 200
    order_id = data["orderID"]
    assert data == {
        "errorMsg": "",
        "orderID": order_id,
        "takingAmount": "",
        "makingAmount": "",
        "status": "live",
        "success": True,
    }
    assert (headers["Poly-RateLimit-Remaining"], headers["Poly-RateLimit-Tier"]) == ("59", "Standard")
    status, row = await trader.ask("GET", f"/data/order/{order_id}")
    assert (row["original_size"], row["size_matched"], row["price"]) == ("50", "0", "0.01")
    assert (row["status"], row["maker_address"]) == ("ORDER_STATUS_LIVE", trader.test.funder)
    status, page = await trader.ask("GET", "/data/orders", market=trader.window.condition_id)
    assert page == {"limit": 500, "count": 1, "next_cursor": "LTE=", "data": [row]}
    assert (await trader.ask("GET", "/data/orders", asset_id="1"))[1]["data"] == []
    assert await trader.ask("DELETE", "/order", {"orderID": order_id}) == (
        200,
        {"canceled": [order_id], "not_canceled": {}},
    )
    assert (await trader.ask("DELETE", "/orders", [order_id]))[1]["not_canceled"] == {
        order_id: "already canceled or matched"
    }
    assert (await trader.ask("GET", f"/data/order/{order_id}"))[1]["status"] == "ORDER_STATUS_CANCELED"
    assert await trader.ask("GET", "/data/order/0xab") == (200, None)


# ---- refusals


async def refused(trader: Trader, **fields: Any) -> tuple[int, str]:
    status, data = await trader.place(**fields)
    return status, data["error"]


async def test_numbers_that_the_venue_refuses(trader: Trader) -> None:
    status, text = await refused(trader, price=105)
    assert status == 400
    assert text.endswith("is invalid. Price (0.0105) breaks minimum tick size rule: 0.01")
    assert (await refused(trader, price=10_000))[1].endswith("breaks minimum tick size rule: 0.01")
    status, text = await refused(trader, shares=4_990_000)
    assert text.endswith("is invalid. Size (4.99) lower than the minimum: 5")
    assert (
        "supports a max accuracy of 4 decimals, taker amount a max of 2" in (await refused(trader, shares=5_001_000))[1]
    )
    status, text = await refused(trader, kind="FAK", price=9_900, shares=10_101_010, money=10_000_000)
    assert text == (
        "invalid amounts, the market buy orders maker amount supports a max accuracy of 2 decimals, taker amount a "
        "max of 4 decimals"
    )
    assert await refused(trader, kind="FOK", price=9_900, shares=9_990_000, money=9_890_100) == (400, text)
    soon = trader.bench.clock.now_ms() // 1000 + 179
    assert await refused(trader, kind="GTD", expiration=soon) == (400, "invalid expiration")
    assert await refused(trader, kind="GTC", expiration=soon + 600) == (400, "invalid expiration")


async def test_marketable_buys_have_a_minimum_of_one_dollar(at_once: Trader) -> None:
    text = "invalid amount for a marketable BUY order ($0.99), min size: $1"
    at_once.house(Side.SELL, 100, 500 * SHARE)
    assert await refused(at_once, kind="FAK", money=990_000, shares=99 * SHARE) == (400, text)
    assert await refused(at_once, price=100, shares=99 * SHARE) == (400, text)
    assert (await at_once.place(price=100, shares=100 * SHARE))[1]["status"] == "matched"
    assert (await at_once.place(price=100, shares=99 * SHARE, postOnly=True))[0] == 400


async def test_who_signed_what(still: Bench, trader: Trader) -> None:
    other = Trader(still, 1)
    body = trader.order()
    assert await other.ask("POST", "/order", body) == (
        400,
        {"error": "the order owner has to be the owner of the API KEY"},
    )
    wrong_signer = "the order signer address has to be the address of the API KEY"
    assert await refused(trader, signed={"signer": other.test.address}) == (400, wrong_signer)
    tampered = trader.order()
    tampered["order"]["takerAmount"] = "11000000"
    assert await trader.ask("POST", "/order", tampered) == (400, {"error": "invalid signature"})
    v3 = separator("3", EXCHANGE_V3)
    assert await refused(trader, domain=v3) == (400, "order_version_mismatch")
    not_allowed = "maker address not allowed, please use the deposit wallet flow"
    assert await refused(trader, signed={"maker": other.test.funder}) == (400, not_allowed)
    assert await refused(trader, signed={"signature_type": 2}) == (400, not_allowed)
    trader.account.allowed = False
    assert await refused(trader) == (400, not_allowed)
    deposit = Trader(still, 3)
    assert await refused(deposit, signed={"signer": deposit.test.address}) == (400, wrong_signer)
    eoa_signed = deposit.order()
    eoa_signed["order"]["signature"] = tampered["order"]["signature"]
    assert await deposit.ask("POST", "/order", eoa_signed) == (400, {"error": "invalid signature"})


async def test_bodies_of_the_wrong_form(trader: Trader) -> None:
    for change in (
        {"salt": "12"},
        {"makerAmount": 5},
        {"makerAmount": "-5"},
        {"takerAmount": "0"},
        {"signatureType": 4},
        {"salt": 2**53},
        {"side": "buy"},
        {"maker": "0x12"},
        {"signature": "zz"},
    ):
        body = trader.order()
        body["order"].update(change)
        assert await trader.ask("POST", "/order", body) == (400, {"error": "Invalid order payload"}), change
    body = trader.order()
    body["order"].update({"feeRateBps": "0", "nonce": "0", "taker": "0x"})
    del body["order"]["timestamp"]
    assert await trader.ask("POST", "/order", body) == (400, {"error": "order_version_mismatch"})
    assert await refused(trader, kind="FAK", postOnly=True) == (400, "Invalid order payload")
    assert (await trader.ask("POST", "/order", []))[0] == 400


async def test_markets_that_take_no_orders(still: Bench, trader: Trader) -> None:
    assert await refused(trader, token="12345") == (404, "No orderbook exists for the requested token id")
    series = trader.window.series
    early = next(row for row in still.venue.listings._windows[series] if row.tokens_known_ms > still.clock.now_ms())
    await still.clock.advance((early.clob_known_ms - still.clock.now_ms()) / 1000 + 1)
    if still.clock.now_ms() < early.tokens_known_ms:
        assert await refused(trader, token=early.tokens[0]) == (
            400,
            "the market is not yet ready to process new orders",
        )
    over = trader.window
    await still.clock.advance((over.close_ms - still.clock.now_ms()) / 1000 + 1)
    assert (await refused(trader, token=over.tokens[0]))[0] == 404


async def test_a_market_that_opens_hours_later_takes_orders(still: Bench, trader: Trader) -> None:
    later = still.venue.listings.at(trader.window.series, still.clock.now_ms() + 3 * 3_600_000)
    status, data = await trader.place(price=100, token=later.tokens[1])
    assert (status, data["status"]) == (200, "live")


async def test_money_and_allowances(still: Bench, trader: Trader) -> None:
    still.venue.accounts.deposit(trader.account, 20 * SHARE - trader.account.cash)
    await trader.rest(price=1000, shares=100 * SHARE)  # holds 10 dollars
    assert await refused(trader, price=1000, shares=101 * SHARE) == (
        400,
        "not enough balance / allowance: the balance is not enough -> balance: 10000000, order amount: 10100000",
    )
    _, data = await refused(trader, side="SELL", price=9900)
    assert data == "not enough balance / allowance: the balance is not enough -> balance: 0, order amount: 10000000"
    trader.account.cash_allowances[CTF_EXCHANGE] = 0
    assert (await refused(trader))[1].startswith("not enough balance / allowance: the allowance is not enough ->")
    trader.account.approve_all()
    trader.account.known = False
    assert "balance: 0," in (await refused(trader))[1]
    query = {"asset_type": "COLLATERAL", "signature_type": "0"}
    assert (await trader.ask("GET", "/balance-allowance", **query))[1]["balance"] == "0"
    assert await trader.ask("GET", "/balance-allowance/update", **query) == (200, {})
    _status, data = await trader.ask("GET", "/balance-allowance", **query)
    assert (data["balance"], data["allowances"][CTF_EXCHANGE]) == ("20000000", str(2**256 - 1))
    query["signature_type"] = "3"
    assert (await trader.ask("GET", "/balance-allowance", **query))[1]["balance"] == "0"
    assert (await trader.ask("GET", "/balance-allowance", asset_type="X"))[1] == {"error": "Invalid asset type"}


async def test_duplicates_and_closed_only(still: Bench, trader: Trader) -> None:
    body = trader.order(price=100)
    assert (await trader.ask("POST", "/order", body))[0] == 200
    status, data = await trader.ask("POST", "/order", body)
    assert (status, data["error"].endswith(" is invalid. Duplicated.")) == (400, True)
    still.venue.desk.closed_only.add(trader.test.address)
    assert await refused(trader) == (400, f"'{trader.test.address}' address in closed only mode")
    still.venue.desk.banned.add(trader.test.address)
    assert await refused(trader) == (400, f"'{trader.test.address}' address banned")
    still.venue.modes.region_blocked = True
    assert await refused(trader) == (403, "Trading restricted in your region")


# ---- post-only, batches, sweeps


async def test_post_only_never_takes(trader: Trader) -> None:
    bid, ask = trader.touch()
    assert await refused(trader, price=ask, postOnly=True) == (400, "invalid post-only order: order crosses book")
    await trader.rest(price=bid, postOnly=True)


async def test_a_batch_answers_leg_by_leg(trader: Trader) -> None:
    legs = [trader.order(price=100), trader.order(price=105), trader.order(price=200)]
    status, answers = await trader.ask("POST", "/orders", legs)
    assert status == 200
    assert [leg["status"] for leg in answers] == ["live", "", "live"]
    assert (answers[1]["orderID"], answers[1]["success"]) == ("", True)
    assert "breaks minimum tick size rule" in answers[1]["errorMsg"]
    assert await trader.ask("POST", "/orders", [trader.order(price=100) for _ in range(16)]) == (
        400,
        {"error": "Too many orders in payload: 16, max allowed: 15"},
    )
    assert (await trader.ask("POST", "/orders", []))[0] == 400


async def test_cancels_of_a_market_and_of_everything(still: Bench, trader: Trader) -> None:
    up, down = trader.window.tokens
    first, second = await trader.rest(price=100), await trader.rest(price=100, token=down)
    eth = still.venue.current("ETH")
    third = await trader.rest(price=100, token=eth.tokens[0])
    stranger = Trader(still, 2)
    assert (await stranger.ask("DELETE", "/cancel-all"))[1] == {"canceled": [], "not_canceled": {}}
    assert (await stranger.ask("DELETE", "/orders", [first]))[1]["not_canceled"] == {
        first: "Order not found or already canceled"
    }
    swept = (await trader.ask("DELETE", "/cancel-market-orders", {"asset_id": up}))[1]
    assert swept["canceled"] == [first]
    swept = (await trader.ask("DELETE", "/cancel-market-orders", {"market": trader.window.condition_id}))[1]
    assert swept["canceled"] == [second]
    swept = (await trader.ask("DELETE", "/cancel-market-orders", {}))[1]  # both left out: everything
    assert swept["canceled"] == [third]
    assert (await trader.ask("DELETE", "/order", {"orderID": 5})) == (400, {"error": "Invalid orderID"})


# ---- matching


async def test_a_marketable_order_waits_and_then_matches(still: Bench, trader: Trader) -> None:
    trader.clear_book()
    trader.house(Side.SELL, 5000, 30 * SHARE)
    status, data = await trader.place(price=5000, shares=20 * SHARE)
    assert (status, data["status"], data["makingAmount"]) == (200, "delayed", "")
    order_id = data["orderID"]
    assert (await trader.ask("DELETE", "/order", {"orderID": order_id}))[1]["not_canceled"] == {
        order_id: "cannot cancel because the order is in pending/delayed status"
    }
    assert (await trader.ask("GET", f"/data/order/{order_id}"))[1]["status"] == "ORDER_STATUS_DELAYED"
    await still.advance(0.2, step=0.1)
    row = (await trader.ask("GET", f"/data/order/{order_id}"))[1]
    assert (row["status"], row["size_matched"]) == ("ORDER_STATUS_MATCHED", "20")


async def test_what_left_during_the_delay_is_killed_or_rests(still: Bench, trader: Trader) -> None:
    trader.clear_book()
    trader.house(Side.SELL, 5000, 30 * SHARE)
    fok = (await trader.place(kind="FOK", price=5000, shares=20 * SHARE))[1]["orderID"]
    gtc = (await trader.place(price=5000, shares=20 * SHARE))[1]["orderID"]
    trader.clear_book()
    await still.advance(0.2, step=0.1)
    orders = still.venue.desk.orders
    assert orders[fok].reason.startswith("CANCELED_order couldn't be fully filled")
    assert orders[gtc].state == "LIVE"
    assert still.venue.desk.free_cash(trader.account) == trader.account.cash - 10 * SHARE
    conserved(still)


async def test_money_buys_more_shares_at_a_better_price(still: Bench, at_once: Trader) -> None:
    at_once.house(Side.SELL, 4000, 10 * SHARE)
    at_once.house(Side.SELL, 5000, 100 * SHARE)
    _status, data = await at_once.place(kind="FAK", money=9 * SHARE, shares=18 * SHARE)
    # 10 shares at 0.40 and 5 dollars at 0.50.
    assert (data["status"], data["makingAmount"], data["takingAmount"]) == ("matched", "9", "20")
    assert len(data["tradeIDs"]) == 2
    assert "transactionsHashes" not in data
    trades = [still.venue.trades.trades[trade] for trade in data["tradeIDs"]]
    assert [(trade.taker.price, trade.taker.size, trade.bucket) for trade in trades] == [
        (4000, 10 * SHARE, 0),
        (5000, 10 * SHARE, 1),
    ]
    # 0.07 x p x (1 - p) a share.
    assert [trade.taker.fee for trade in trades] == [168_000, 175_000]


async def test_fok_and_fak_that_find_nothing(at_once: Trader) -> None:
    at_once.house(Side.SELL, 5000, 10 * SHARE)
    fok = "order couldn't be fully filled. FOK orders are fully filled or killed."
    fak = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
    assert await refused(at_once, kind="FOK", price=5000, shares=11 * SHARE) == (400, fok)
    assert await refused(at_once, kind="FAK", price=4900, shares=10 * SHARE) == (400, fak)
    _status, data = await at_once.place(kind="FAK", price=5000, shares=11 * SHARE)
    assert (data["status"], data["takingAmount"]) == ("matched", "10")


async def test_a_taker_amount_rounded_up_matches_nothing_at_its_limit(at_once: Trader) -> None:
    """Sheet 3.2: 10 dollars at 0.03 are 333.3333 shares; 333.3334 put the limit below 0.03."""
    at_once.house(Side.SELL, 300, 500 * SHARE)
    assert (await refused(at_once, kind="FAK", money=10 * SHARE, shares=333_333_400))[1].startswith("no orders found")
    _status, data = await at_once.place(kind="FAK", money=10 * SHARE, shares=333_333_300)
    assert (data["status"], data["makingAmount"]) == ("matched", "9.999999")


async def test_both_outcomes_trade_with_each_other_and_nothing_is_lost(still: Bench, at_once: Trader) -> None:
    """BUY meets BUY of the other outcome (a pair is made), SELL meets SELL (it is melted), and plain transfers."""
    up, down = at_once.window.tokens
    other = Trader(still, 3)
    await at_once.rest(price=4000, shares=50 * SHARE)
    assert (await other.place(price=6100, shares=50 * SHARE, token=down))[1]["status"] == "matched"
    await still.advance(5)
    conserved(still)
    assert (at_once.account.shares[up], other.account.shares[down]) == (50 * SHARE, 50 * SHARE)
    assert still.venue.accounts.collateral[at_once.window.condition_id] == 50 * SHARE
    # The maker paid 0.40 without a fee, the taker 0.60 and 0.07 x 0.24 a share.
    assert at_once.account.cash == 10_000 * SHARE - 20 * SHARE
    assert other.account.cash == 10_000 * SHARE - 30 * SHARE - 840_000
    await at_once.rest("SELL", price=3000, shares=20 * SHARE)
    assert (await other.place("SELL", price=6900, shares=20 * SHARE, token=down))[1]["status"] == "matched"
    await still.advance(5)
    conserved(still)
    assert still.venue.accounts.collateral[at_once.window.condition_id] == 30 * SHARE
    await at_once.rest("SELL", price=3000, shares=10 * SHARE)
    assert (await other.place(price=3000, shares=10 * SHARE))[1]["status"] == "matched"
    await still.advance(15)
    conserved(still)
    for trader in (at_once, other):
        for token in (up, down):
            assert still.venue.accounts.position(trader.test.funder, token) == trader.account.shares[token]


async def test_shares_can_only_be_sold_when_they_are_mined(still: Bench, at_once: Trader) -> None:
    at_once.house(Side.SELL, 5000, 10 * SHARE)
    assert (await at_once.place(price=5000))[1]["status"] == "matched"
    assert "the balance is not enough -> balance: 0" in (await refused(at_once, side="SELL", price=6000))[1]
    await still.advance(5)
    await at_once.rest("SELL", price=6000)
    query = {"asset_type": "CONDITIONAL", "token_id": at_once.window.tokens[0], "signature_type": 0}
    assert (await at_once.ask("GET", "/balance-allowance", **query))[1]["balance"] == "10000000"


async def test_background_traders_fill_what_rests(still: Bench, at_once: Trader) -> None:
    order_id = await at_once.rest(price=4000, shares=10 * SHARE)
    at_once.house(Side.SELL, 4000, 4 * SHARE)
    row = (await at_once.ask("GET", f"/data/order/{order_id}"))[1]
    assert (row["status"], row["size_matched"], len(row["associate_trades"])) == ("ORDER_STATUS_LIVE", "4", 1)
    _status, page = await at_once.ask("GET", "/data/trades", id=row["associate_trades"][0])
    (trade,) = page["data"]
    assert (trade["trader_side"], trade["status"], trade["side"]) == ("MAKER", "TRADE_STATUS_MATCHED", "SELL")
    (leg,) = trade["maker_orders"]
    assert (leg["order_id"], leg["matched_amount"], leg["price"], leg["side"]) == (order_id, "4", "0.4", "BUY")
    await still.advance(5)
    assert at_once.account.cash == 10_000 * SHARE - 1_600_000  # makers pay no fee
    assert (await at_once.ask("GET", "/data/trades", after=trade["match_time"]))[1]["data"] == []
    assert len((await at_once.ask("GET", "/data/trades", before=int(trade["match_time"]) + 1))[1]["data"]) == 1
    conserved(still)


async def test_trades_are_mined_confirmed_retried_or_fail(still: Bench, at_once: Trader) -> None:
    for fault, states in (
        ("", ["MATCHED", "MINED", "CONFIRMED"]),
        ("trade_retried", ["MATCHED", "RETRYING", "MINED", "CONFIRMED"]),
        ("trade_failed", ["MATCHED", "RETRYING", "FAILED"]),
    ):
        if fault:
            still.venue.faults.arm(fault)
        before = (at_once.account.cash, at_once.account.shares[at_once.window.tokens[0]])
        at_once.house(Side.SELL, 5000, 10 * SHARE)
        _status, data = await at_once.place(price=5000)
        assert data["status"] == "matched"
        await still.advance(20)
        trade = still.venue.trades.trades[data["tradeIDs"][0]]
        assert trade.history == states
        after = (at_once.account.cash, at_once.account.shares[at_once.window.tokens[0]])
        assert (after == before) == (fault == "trade_failed")
        assert at_once.account.pending_cash == 0
        (row,) = (await at_once.ask("GET", "/data/trades", id=trade.trade_id))[1]["data"]
        assert (row["status"], row["transaction_hash"]) == (f"TRADE_STATUS_{states[-1]}", trade.transaction)
    conserved(still)


async def test_a_thousand_random_orders_conserve_everything(still: Bench, trader: Trader) -> None:
    """Four wallets of all types trade both outcomes against each other and the house; some trades fail."""
    still.venue.limits.enforced = False
    still.venue.faults.arm("trade_failed", 20)
    draw = Entropy(5)
    crowd = [Trader(still, kind) for kind in range(4)]
    placed = 0
    for number in range(1000):
        who = draw.choice(crowd)
        outcome = draw.randint(0, 1)
        token = who.window.tokens[outcome]
        bid, ask = still.venue.book_truth(token).bids, still.venue.book_truth(token).asks
        middle = round((bid[0][0] if bid else ask[0][0]) * 100)
        price = 100 * min(98, max(2, middle + draw.randint(-2, 4)))
        side = draw.choice(("BUY", "BUY", "SELL"))
        kind = draw.choice(("GTC", "GTC", "FAK", "FOK"))
        shares = draw.randint(5, 60) * SHARE
        if kind != "GTC" and side == "BUY":
            shares = shares * price // 10_000 // 10_000 * 10_000 * 10_000 // price // 100 * 100
            money = (shares * price // 10_000 + 9_999) // 10_000 * 10_000
            body = who.order(side, price, shares, token=token, kind=kind, money=money)
        else:
            body = who.order(side, price, shares, token=token, kind=kind)
        status, _ = await who.ask("POST", "/order", body)
        placed += status == 200
        if number % 20 == 0:
            await who.ask("DELETE", "/cancel-all")
            await still.clock.advance(0.5)
    await still.advance(30)
    conserved(still)
    accounts = still.venue.accounts
    assert placed > 300
    assert len({trade.state for trade in still.venue.trades.trades.values()}) == 2
    for who in crowd:
        account = who.account
        assert account.cash >= 0
        assert account.pending_cash == 0
        assert all(size >= 0 for size in account.shares.values())
        for token in who.window.tokens:
            fills = [
                (1 if leg.side is Side.BUY else -1) * leg.size
                for trade in still.venue.trades.of_owner(who.test.address)
                if trade.state == "CONFIRMED"
                for leg in trade.legs
                if leg.record is not None
                and leg.record.account is account
                and trade.window.tokens[leg.outcome] == token
            ]
            assert account.shares[token] == sum(fills) == accounts.position(account.wallet, token)
    for record in still.venue.desk.orders.values():
        assert record.intent.by_money or record.matched <= record.intent.shares
        assert not record.intent.by_money or record.spent <= record.intent.money


# ---- what the venue does by itself


async def test_expiry_end_of_market_and_lost_cover(still: Bench, trader: Trader) -> None:
    soon = still.clock.now_ms() // 1000 + 200
    gtd = await trader.rest(kind="GTD", expiration=soon)
    gtc = await trader.rest(price=100)
    down = await trader.rest(price=100, token=trader.window.tokens[1])
    await still.advance(139)
    assert still.venue.desk.orders[gtd].open
    await still.advance(2)  # a minute before the stated second
    assert still.venue.desk.orders[gtd].reason == "CANCELED_EXPIRED_ORDER"
    uncovered = await trader.rest(price=200, shares=100 * SHARE)
    still.venue.accounts.deposit(trader.account, 1_500_000 - trader.account.cash)
    still.venue.desk.check_cover(trader.account)
    assert still.venue.desk.orders[uncovered].reason == "CANCELED_NOT_ENOUGH_BALANCE"
    assert still.venue.desk.orders[gtc].open
    await still.advance((trader.window.close_ms - still.clock.now_ms()) / 1000 + 1, step=60)
    # What has lost may have been sold to one of the two bids.
    rest = [still.venue.desk.orders[order_id] for order_id in (gtc, down)]
    assert not any(order.open for order in rest)
    assert "CANCELED_MARKET_RESOLVED" in {order.reason for order in rest}


async def test_a_heart_that_stops_cancels_everything(still: Bench, trader: Trader) -> None:
    order_id = await trader.rest(price=100)
    status, first = await trader.ask("POST", "/v1/heartbeats", {"heartbeat_id": ""})
    assert status == 200
    status, second = await trader.ask("POST", "/v1/heartbeats", first)
    assert status == 200
    assert await trader.ask("POST", "/v1/heartbeats", {"heartbeat_id": "x"}) == (
        400,
        {"error_msg": "Invalid Heartbeat ID", **second},
    )
    await still.advance(9)
    assert (await trader.ask("POST", "/v1/heartbeats", second))[0] == 200
    await still.advance(9)
    assert still.venue.desk.orders[order_id].open
    await still.advance(8)
    assert not still.venue.desk.orders[order_id].open


async def test_restart_and_modes(still: Bench, trader: Trader) -> None:
    order_id = await trader.rest(price=100)
    still.venue.modes.restart(90, 120)
    assert (await trader.place(price=100))[0] == 425
    assert (await trader.ask("DELETE", "/order", {"orderID": order_id}))[0] == 425
    await still.advance(91, step=10)
    text = "post-only mode: only post-only orders and cancels are allowed"
    status, data, headers = await trader.answered("POST", "/order", trader.order(price=100))
    assert (status, data["error"], data["code"]) == (503, text, "post_only_mode")
    assert headers["Retry-After"] == str(data["retry_after_seconds"])
    await trader.rest(price=100, postOnly=True)
    assert (await trader.ask("POST", "/orders", [trader.order(price=100)]))[1][0]["errorMsg"] == text
    assert (await trader.ask("DELETE", "/order", {"orderID": order_id}))[1]["canceled"] == [order_id]
    still.venue.modes.set(Mode.CANCEL_ONLY)
    assert (await refused(trader))[1].startswith("Trading is currently cancel-only")
    assert (await trader.ask("DELETE", "/cancel-all"))[0] == 200
    still.venue.modes.set(Mode.DISABLED)
    assert (await refused(trader))[1].startswith("Trading is currently disabled")
    assert (await trader.ask("DELETE", "/cancel-all"))[0] == 503


async def test_rate_limits_per_signer(still: Bench, trader: Trader) -> None:
    await trader.rest(price=100)
    still.venue.limits.take(trader.test.address, 59)
    status, data, headers = await trader.answered("POST", "/order", trader.order(price=100))
    assert (status, data) == (429, {"error": "Too Many Requests"})
    assert headers["Retry-After"] == "1"
    assert (await trader.ask("DELETE", "/cancel-all"))[0] == 200  # a bucket of its own
    assert (await Trader(still, 3).place(price=100))[0] == 200
    await still.advance(1)
    await trader.rest(price=100)


async def test_answers_that_are_lost_late_or_wrong(still: Bench, trader: Trader) -> None:
    for fault, placed in (("request_lost", False), ("answer_lost", True)):
        still.venue.faults.arm(fault)
        body = trader.order(price=100)
        known = len(still.venue.desk.orders)
        with pytest.raises(aiohttp.ClientConnectionError):
            await trader.ask("POST", "/order", body)
        assert len(still.venue.desk.orders) == known + placed
        status, _data = await trader.ask("POST", "/order", body)  # the same bytes again
        assert (status == 400) == placed
    for text in TEXTS_500:
        still.venue.answers.text_500 = text
        for fault, placed in (("answer_500", True), ("request_500", False)):
            still.venue.faults.arm(fault)
            known = len(still.venue.desk.orders)
            assert await trader.place(price=100) == (500, {"error": text})
            assert len(still.venue.desk.orders) == known + placed
    still.venue.faults.arm("answer_400")
    known = len(still.venue.desk.orders)
    assert await trader.place(price=100) == (400, {"error": "order match delayed due to market conditions"})
    assert len(still.venue.desk.orders) == known + 1
    still.venue.reads.hydration_seconds = 3
    order_id = await trader.rest(price=100)
    assert await trader.ask("GET", f"/data/order/{order_id}") == (200, None)
    await still.advance(3)
    assert (await trader.ask("GET", f"/data/order/{order_id}"))[1]["id"] == order_id
    still.venue.reads.unknown_is_404 = True
    assert await trader.ask("GET", "/data/order/0xab") == (404, {"error": "order not found"})


async def test_a_word_that_no_document_has(still: Bench, trader: Trader) -> None:
    trader.clear_book()
    trader.house(Side.SELL, 5000, 30 * SHARE)
    still.venue.faults.arm("unmatched")
    _status, data = await trader.place(price=5000, shares=20 * SHARE)
    assert (data["status"], data["success"], data["errorMsg"]) == ("unmatched", True, "")
    await still.advance(0.2, step=0.1)
    row = (await trader.ask("GET", f"/data/order/{data['orderID']}"))[1]
    assert (row["status"], row["size_matched"]) == ("ORDER_STATUS_MATCHED", "20")


async def test_trades_and_balances_are_read_late(still: Bench, at_once: Trader) -> None:
    venue = still.venue
    venue.reads.trade_hydration_seconds = 5
    venue.reads.balance_lag_seconds = 60
    await still.advance(100, step=50)
    at_once.clear_book()
    at_once.house(Side.SELL, 5000, 30 * SHARE)
    assert (await at_once.place(price=5000, shares=10 * SHARE))[1]["status"] == "matched"
    assert (await at_once.ask("GET", "/data/trades"))[1]["data"] == []
    await still.advance(15)
    (row,) = (await at_once.ask("GET", "/data/trades"))[1]["data"]
    assert row["status"] == "TRADE_STATUS_CONFIRMED"
    token = at_once.window.tokens[0]
    shares = {"asset_type": "CONDITIONAL", "token_id": token, "signature_type": "0"}
    cash = {"asset_type": "COLLATERAL", "signature_type": "0"}
    before = at_once.account.cash

    async def seen(query: dict[str, str]) -> int:
        return int((await at_once.ask("GET", "/balance-allowance", **query))[1]["balance"])

    assert (await seen(shares), await seen(cash) > before) == (0, True)
    await at_once.ask("GET", "/balance-allowance/update", **shares)
    assert (await seen(shares), await seen(cash) > before) == (10 * SHARE, True)  # of this token only
    await still.advance(60, step=30)
    assert await seen(cash) == at_once.account.cash == before
    conserved(still)


async def test_a_match_that_never_reaches_the_chain(still: Bench, at_once: Trader) -> None:
    venue = still.venue
    at_once.house(Side.SELL, 5000, 30 * SHARE)
    venue.faults.arm("trade_stuck")
    assert (await at_once.place(price=5000, shares=10 * SHARE))[1]["status"] == "matched"
    venue.reads.not_broadcasted = True
    await still.advance(120, step=30)
    (row,) = (await at_once.ask("GET", "/data/trades"))[1]["data"]
    assert (row["status"], row["transaction_hash"]) == ("TRADE_STATUS_MATCHED_NOT_BROADCASTED", "")
    venue.reads.not_broadcasted = False
    (row,) = (await at_once.ask("GET", "/data/trades"))[1]["data"]
    assert row["status"] == "TRADE_STATUS_MATCHED"
    assert at_once.account.shares[at_once.window.tokens[0]] == 0
    assert at_once.account.pending_cash > 5 * SHARE  # held back as long as nobody knows


async def test_a_share_of_answers_is_lost_and_the_rest_is_late(still: Bench, trader: Trader) -> None:
    still.venue.answers.shares = {"request_lost": 0.2, "answer_lost": 0.2, "answer_500": 0.1}
    seen: Counter[str] = Counter()
    for _ in range(60):
        body = trader.order(price=100)
        known = len(still.venue.desk.orders)
        try:
            status, _data = await trader.ask("POST", "/order", body)
        except aiohttp.ClientConnectionError:
            status = 0
        seen[f"{status} {len(still.venue.desk.orders) - known}"] += 1
        await still.clock.advance(0.1)
    assert set(seen) == {"200 1", "0 0", "0 1", "500 1"}
    assert seen["200 1"] > 15
    still.venue.answers.shares = {}
    still.venue.faults.arm("answer_late")
    late = asyncio.create_task(trader.place(price=100))
    known = len(still.venue.desk.orders)
    await still.until(lambda: len(still.venue.desk.orders) > known)
    await still.clock.settle()
    assert not late.done()
    await still.clock.advance(still.venue.answers.late_seconds)
    assert (await late)[0] == 200


async def test_the_region(still: Bench) -> None:
    assert (await still.get("/api/geoblock"))[1]["blocked"] is False
    still.venue.modes.region_blocked = True
    assert (await still.get("/api/geoblock"))[1] == {
        "blocked": True,
        "ip": "127.0.0.1",
        "country": "US",
        "region": "NY",
    }


async def test_pages_follow_their_cursors(still: Bench, trader: Trader) -> None:
    still.venue.reads.page = 2
    placed = [await trader.rest(price=100) for _ in range(5)]
    seen: list[str] = []
    cursor = "MA=="
    while cursor != "LTE=":
        page = (await trader.ask("GET", "/data/orders", next_cursor=cursor))[1]
        seen += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert seen == placed
    assert (await trader.ask("GET", "/data/orders", next_cursor="!"))[0] == 400
