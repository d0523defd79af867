"""Trading on the local Polymarket by the official clients, and orders of pmkit checked by their code.

What a client reads is what the venue holds and what pmkit reads of the same account.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pmkit.clock import Entropy
from pmkit.exchanges.polymarket.auth import Credentials, Signer
from pmkit.exchanges.polymarket.order_plan import OrderPlan, plan_limit, plan_market
from pmkit.exchanges.polymarket.orders import MAX_SALT, OrderSigner, SignedOrder
from pmkit.exchanges.types import Fill, FillState, OrderState, TimeInForce
from pmkit.exchanges.types import Side as OrderSide
from pmkit.sim.engine import Side
from pmkit.sim.polymarket.desk import FAK_KILLED, FOK_KILLED
from pmkit.sim.polymarket.modes import POST_ONLY_TEXT, Mode
from pmkit.sim.polymarket.signatures import CTF_EXCHANGE
from pmkit.sim.polymarket.wallets import WalletType
from tests.conformance.conftest import OpenClient
from tests.conformance.environment import Client, ClientError
from tests.conformance.polymarket_desk import (
    Desk,
    fills_of,
    fills_of_pmkit,
    open_desk,
    rows_of,
    rows_of_pmkit,
)
from tests.conformance.truth import PATIENCE_SECONDS
from tests.polymarket.accounts import DOWN as DOWN_TOKEN
from tests.polymarket.accounts import DOWN_V2, UP_V2
from tests.polymarket.accounts import UP as UP_TOKEN
from tests.polymarket.accounts import market as made_market

__all__ = ["open_desk"]

KINDS = [0, 1, 2, 3]
WALLET_TYPES = ["EOA", "POLY_PROXY", "GNOSIS_SAFE", "DEPOSIT_WALLET"]
NOT_FOUND = "0x" + "ab" * 32
D = Decimal
OpenDesk = Callable[..., Any]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.05)


async def same_orders(desk: Desk, shown: list[dict[str, Any]], status: str = "ORDER_STATUS_LIVE") -> None:
    """The client's open orders are the venue's and pmkit's."""
    assert rows_of(shown) == desk.orders() != set()
    assert {row["status"] for row in shown} == {status}
    async with desk.pmkit() as (exchange, market):
        assert rows_of_pmkit(await exchange.get_open_orders(market)) == desk.orders()


# ---- log-in


async def test_keys_are_made_derived_listed_and_deleted(client: OpenClient, open_desk: OpenDesk) -> None:
    async with open_desk() as desk, client("py_clob_client_trading", desk.settings()) as one:
        assert one.version == "1.2.1"
        await _same_headers(desk, one)
        await one.ask("login")
        await _quotes_by_the_clob_client(desk, one)
        first = await one.ask("heartbeat")
        assert await one.ask("heartbeat", **first) != first
        with pytest.raises(ClientError, match="Invalid Heartbeat ID"):
            await one.ask("heartbeat", **first)
        keys = desk.venue.keys
        keys.forget(desk.test.api_key)
        with pytest.raises(ClientError, match="Could not derive api key") as refused:
            await one.ask("derive")
        assert refused.value.details["status_code"] == 400
        made = await one.ask("login")
        (held,) = keys.of(desk.test.address)
        assert made == {"api_key": held.key, "api_secret": held.secret, "api_passphrase": held.passphrase}
        assert await one.ask("derive") == await one.ask("login") == made
        assert (await one.ask("derive", nonce=0))["api_key"] == held.key
        other = await one.ask("login", nonce=7)
        assert await one.ask("call", name="get_api_keys", args=[]) == {"apiKeys": [held.key, other["api_key"]]}
        assert await one.ask("call", name="get_closed_only_mode", args=[]) == {"closed_only": False}
        reader = await one.ask("call", name="create_readonly_api_key", args=[])
        assert await one.ask("call", name="get_readonly_api_keys", args=[]) == {"readonlyApiKeys": [reader["apiKey"]]}
        await one.ask("call", name="delete_readonly_api_key", args=[reader["apiKey"]])
        assert await one.ask("call", name="get_readonly_api_keys", args=[]) == {"readonlyApiKeys": []}
        async with desk.pmkit() as (exchange, _):  # pmkit derives what the client made
            assert (await exchange.login.ready()).credentials.api_key == held.key
        assert await one.ask("call", name="delete_api_key", args=[]) == "OK"
        with pytest.raises(ClientError, match="Unauthorized/Invalid api key") as refused:
            await one.ask("open_orders")
        assert refused.value.details["status_code"] == 401


# ---- orders


@pytest.mark.parametrize("kind", KINDS)
async def test_orders_by_the_clob_client(client: OpenClient, open_desk: OpenDesk, kind: int) -> None:
    async with open_desk(kind) as desk, client("py_clob_client_trading", desk.settings()) as one:
        await one.ask("login")
        desk.house(Side.BUY, "0.40", 300)
        desk.house(Side.SELL, "0.60", 300)
        await _rest(desk, one)
        await _take(desk, one)
        await _cancel(desk, one)
        await _refuse(desk, one)
        for order in signed(desk, f"orders {kind}"):
            body = json.loads(order.body)
            found = await one.ask("built", order=body["order"], domain=order.plan.exchange.version, neg_risk=False)
            assert (found["order"], found["order_id"]) == (body["order"], order.order_id)


def _order(desk: Desk, price: float, size: float, side: str = "BUY", **more: Any) -> dict[str, Any]:
    return {"token_id": desk.up, "price": price, "size": size, "side": side, **more}


async def _rest(desk: Desk, one: Client) -> None:
    """Every way to place an order that rests; the client reads back what stands."""
    gtc = await one.ask("place", order=_order(desk, 0.45, 10))
    assert (gtc["status"], gtc["success"], gtc["errorMsg"]) == ("live", True, "")
    until_s = desk.venues.clock.now_ms() // 1000 + 3_600
    gtd = await one.ask("place", order=_order(desk, 0.44, 12.34, expiration=until_s), kind="GTD")
    post = await one.ask("place", order=_order(desk, 0.55, 20), post_only=True) | {"post": True}
    batch = await one.ask("place_many", orders=[_order(desk, 0.41, 7), _order(desk, 0.42, 1), _order(desk, 0.43, 8)])
    assert [leg["status"] for leg in batch] == ["live", "", "live"]
    assert batch[1]["errorMsg"].endswith("Size (1) lower than the minimum: 5")
    desk.give(100)
    sell = await one.ask("place", order=_order(desk, 0.65, 30, "SELL"))
    placed = {found["orderID"] for found in (gtc, gtd, post, batch[0], batch[2], sell)}
    shown = await one.ask("open_orders", market=desk.window.condition_id)
    assert {row["id"] for row in shown} == placed
    await same_orders(desk, shown)
    row = await one.ask("order", order_id=gtd["orderID"])
    assert (row["order_type"], row["expiration"], row["outcome"]) == ("GTD", str(until_s), "Up")
    assert (row["maker_address"], row["owner"]) == (desk.test.funder, desk.test.api_key.key)
    assert row in shown
    assert [found["id"] for found in await one.ask("open_orders", id=gtc["orderID"])] == [gtc["orderID"]]
    assert await one.ask("open_orders", asset_id=desk.window.tokens[1]) == []
    assert await one.ask("order", order_id=NOT_FOUND) is None
    assert await one.ask("scoring", order_ids=[gtc["orderID"]]) == {gtc["orderID"]: False}
    # Somebody hits the best of them: the client sees how much of it.
    desk.house_takes(Side.SELL, "0.55", 8)
    (row,) = await one.ask("open_orders", id=post["orderID"])
    assert (row["size_matched"], len(row["associate_trades"])) == ("8", 1)
    await same_orders(desk, await one.ask("open_orders"))


async def _take(desk: Desk, one: Client) -> None:
    """Every way to place an order that takes; trades, shares and money are the ledger's and pmkit's."""
    desk.house(Side.BUY, "0.59", 60)
    for kind in ("FOK", "FAK"):
        bought = await one.ask("market", order={"token_id": desk.up, "amount": 30, "side": "BUY"}, kind=kind)
        assert bought["status"] == "matched"
        sold = await one.ask("market", order={"token_id": desk.up, "amount": 20, "side": "SELL"}, kind=kind)
        assert (sold["makingAmount"], sold["status"]) == ("20", "matched")
        for answer in (bought, sold):
            record = desk.order(answer["orderID"])
            # The client waited for the transactions by its own rule.
            hashes = [desk.venue.trades.trades[name].transaction for name in answer["tradeIDs"]]
            assert answer["tradeIDs"] == record.trades and answer["transactionsHashes"] == hashes
    limit = await one.ask("place", order=_order(desk, 0.62, 10), kind="FAK")
    assert limit["status"] == "matched"
    crossing = await one.ask("place", order=_order(desk, 0.57, 40, "SELL"))
    assert (crossing["status"], crossing["makingAmount"]) == ("matched", "20")
    (row,) = await one.ask("open_orders", id=crossing["orderID"])
    assert (row["size_matched"], row["original_size"]) == ("20", "40")
    await until(desk.confirmed)
    shown = await one.ask("trades", market=desk.window.condition_id)
    assert fills_of(shown, desk.test.funder) == desk.fills()
    assert {row["status"] for row in shown} == {"TRADE_STATUS_CONFIRMED"}
    assert {row["trader_side"] for row in shown} == {"TAKER", "MAKER"}
    newest = shown[0]
    assert await one.ask("trades", id=newest["id"]) == [newest]
    assert await one.ask("trades", after=desk.venues.clock.now_ms() // 1000 + 60) == []
    cash = await one.ask("balance", asset_type="COLLATERAL")
    assert D(cash["balance"]) / 10**6 == desk.cash()
    assert int(cash["allowances"][CTF_EXCHANGE]) == 2**256 - 1
    for token in desk.window.tokens:
        held = await one.ask("balance", asset_type="CONDITIONAL", token_id=token)
        assert D(held["balance"]) / 10**6 == desk.shares(token)
    async with desk.pmkit() as (exchange, market):
        held = {position.token_id: position for position in await exchange.get_positions()}
        assert {token: held[token].size for token in desk.window.tokens} == {
            token: desk.shares(token) for token in desk.window.tokens
        }
        assert await exchange.get_balance() == desk.cash()
        mine = await exchange.get_trade_history()
        assert {
            (trade.trade_id, trade.order_id, market.token_id(trade.outcome), trade.side.value, trade.price, trade.size)
            for trade in mine
        } == desk.fills()


async def _cancel(desk: Desk, one: Client) -> None:
    """One, several, those of a token, those of a market, all; what cannot be cancelled is told apart."""
    first, second, *rest = sorted(row[0] for row in desk.orders())
    assert await one.ask("cancel", order_id=first) == {"canceled": [first], "not_canceled": {}}
    assert await one.ask("cancel_many", order_ids=[first, second, NOT_FOUND]) == {
        "canceled": [second],
        "not_canceled": {
            first: "already canceled or matched",
            NOT_FOUND: "Order not found or already canceled",
        },
    }
    assert (await one.ask("order", order_id=first))["status"] == "ORDER_STATUS_CANCELED"
    down = await one.ask("place", order=_order(desk, 0.1, 10) | {"token_id": desk.window.tokens[1]})
    swept = await one.ask("cancel_market", asset_id=desk.window.tokens[1])
    assert swept == {"canceled": [down["orderID"]], "not_canceled": {}}
    swept = await one.ask("cancel_market", market=desk.window.condition_id)
    assert sorted(swept["canceled"]) == rest and desk.orders() == set()
    again = await one.ask("place", order=_order(desk, 0.1, 10))
    assert (await one.ask("cancel_all"))["canceled"] == [again["orderID"]]
    assert await one.ask("open_orders") == []


async def _refuse(desk: Desk, one: Client) -> None:
    """The client hands on the venue's status and text; nothing stands afterwards."""
    for wanted, call, args in (
        ("invalid post-only order: order crosses book", "place", {"order": _order(desk, 0.7, 10), "post_only": True}),
        (FOK_KILLED, "place", {"order": _order(desk, 0.6, 5_000), "kind": "FOK"}),
        (FAK_KILLED, "place", {"order": _order(desk, 0.5, 10), "kind": "FAK"}),
        ("lower than the minimum: 5", "place", {"order": _order(desk, 0.3, 4.99)}),
        ("the balance is not enough -> balance: ", "place", {"order": _order(desk, 0.99, 99_999)}),
        ("invalid expiration", "place", {"order": _order(desk, 0.3, 10, expiration=1), "kind": "GTD"}),
        ("invalid amount for a marketable BUY order ($0.6), min size: $1", "place",
         {"order": _order(desk, 0.6, 1), "kind": "FAK"}),
    ):  # fmt: skip
        with pytest.raises(ClientError) as refused:
            await one.ask(call, **args)
        assert wanted in refused.value.text, (wanted, refused.value.text)
        assert refused.value.details["status_code"] == 400
    desk.account.approve_none()
    with pytest.raises(ClientError, match="the allowance is not enough -> allowance: 0"):
        await one.ask("place", order=_order(desk, 0.3, 10))
    desk.account.approve_all()
    assert desk.orders() == set()


@pytest.mark.parametrize("kind", KINDS)
async def test_orders_by_the_official_client(client: OpenClient, open_desk: OpenDesk, kind: int) -> None:
    """It finds out the kind of wallet by itself, and takes the credentials that pmkit derived."""
    async with open_desk(kind) as desk:
        async with desk.pmkit() as (exchange, _):
            credentials = (await exchange.login.ready()).credentials
        key, secret, passphrase = credentials.reveal()
        given = {"key": key, "secret": secret, "passphrase": passphrase}
        async with client("polymarket_client_trading", desk.settings(credentials=given)) as one:
            assert one.version == "0.14.0"
            account = await one.ask("account")
            assert (account["wallet"], account["signer"]) == (desk.test.funder, desk.test.address)
            assert (account["wallet_type"], account["credentials"]) == (WALLET_TYPES[kind], given)
            assert await one.ask("call", name="fetch_api_keys") == [key]
            await _trade_by_the_official_client(desk, one)
            for order in signed(desk, f"orders {kind}"):
                assert await _same_body(one, order) == order.body


async def _trade_by_the_official_client(desk: Desk, one: Client) -> None:
    desk.house(Side.BUY, "0.40", 300)
    desk.house(Side.SELL, "0.60", 300)
    desk.give(100)
    wanted = {"asset_id": desk.up, "side": "BUY", "price": "0.45", "size": "10"}
    until_s = desk.venues.clock.now_ms() // 1000 + 3_600
    placed = []
    for change in (
        {},
        {"price": "0.44", "size": "12.34", "expiration": until_s},
        {"price": "0.55", "post_only": True},
        {"side": "SELL", "price": "0.65", "size": "30"},
    ):
        found = await one.ask("place", order=wanted | change)
        assert (found["ok"], found["status"]) == (True, "live")
        placed.append(found["order_id"])
    legs = await one.ask("place_many", orders=[wanted | {"price": "0.41"}, wanted | {"price": "0.6", "size": "1"}])
    assert [leg["ok"] for leg in legs] == [True, False]
    assert "lower than the minimum" in legs[1]["message"]
    placed.append(legs[0]["order_id"])
    shown = await one.ask("listed", name="open_orders", market=desk.window.condition_id)
    assert [row["id"] for row in shown] == placed
    await same_orders(desk, shown)
    row = await one.ask("order", order_id=placed[1])
    assert row in shown and row["order_type"] == "GTD"
    assert (await one.ask("rate_limits"))[-1]["tier"] == "Standard"

    desk.house(Side.BUY, "0.59", 60)
    bought = await one.ask("market", order={"asset_id": desk.up, "side": "BUY", "amount": "12", "max_price": "0.6"})
    assert (bought["ok"], bought["status"], bought["taking_amount"]) == (True, "matched", "20")
    sold = await one.ask("market", order={"asset_id": desk.up, "side": "SELL", "shares": "20", "order_type": "FOK"})
    assert (sold["status"], sold["making_amount"]) == ("matched", "20")
    for answer in (bought, sold):
        hashes = [desk.venue.trades.trades[name].transaction for name in answer["trade_ids"]]
        assert await one.ask("settled", order_id=answer["order_id"]) == hashes
    trades = await one.ask("listed", name="account_trades")
    assert fills_of(trades, desk.test.funder) == desk.fills()
    assert {row["status"] for row in trades} == {"CONFIRMED"}
    cash = await one.ask("call", name="get_balance_allowance", asset_type="COLLATERAL")
    assert D(cash["balance"]) / 10**6 == desk.cash()
    held = await one.ask("call", name="get_balance_allowance", asset_type="CONDITIONAL", asset_id=desk.up)
    assert D(held["balance"]) / 10**6 == desk.shares()

    assert (await one.ask("cancel", order_id=placed[0]))["canceled"] == placed[:1]
    found = await one.ask("cancel_many", order_ids=[*placed[:2], NOT_FOUND])
    assert found["canceled"] == placed[1:2]
    assert found["not_canceled"][NOT_FOUND] == "Order not found or already canceled"
    assert (await one.ask("cancel_market", market=desk.window.condition_id))["canceled"] == placed[2:]
    again = await one.ask("place", order=wanted)
    assert (await one.ask("cancel_all"))["canceled"] == [again["order_id"]]
    assert await one.ask("listed", name="open_orders") == [] and desk.orders() == set()


async def test_a_session_key_of_a_deposit_wallet(client: OpenClient, open_desk: OpenDesk) -> None:
    async with open_desk(WalletType.DEPOSIT) as desk:
        session = desk.venue.accounts.make(WalletType.EOA, "session")
        desk.account.session_keys.add(session.address.lower())
        async with client("polymarket_client_trading", desk.settings() | {"private_key": session.private_key}) as one:
            wanted = {"asset_id": desk.up, "side": "BUY", "price": "0.45", "size": "10"}
            found = await one.ask("place", order=wanted)
            assert found["status"] == "live"
            assert desk.order(found["order_id"]).account is desk.account
            for order in signed(desk, "session", session_key=session.private_key):
                assert await _same_body(one, order, session.private_key) == order.body
            desk.account.session_keys.clear()
            with pytest.raises(ClientError, match="the order signer address has to be the address of the API KEY"):
                await one.ask("place", order=wanted)


async def test_the_default_wallet_and_a_key_that_is_made(client: OpenClient, open_desk: OpenDesk) -> None:
    """Without a wallet and credentials the official client asks what is deployed, and creates a key."""
    async with open_desk(WalletType.DEPOSIT) as desk:
        desk.venue.keys.forget(desk.test.api_key)
        async with client("polymarket_client_trading", desk.settings() | {"funder": None}) as one:
            account = await one.ask("account")
            (held,) = desk.venue.keys.of(desk.test.address)
            assert (account["wallet"], account["credentials"]["key"]) == (desk.test.funder, held.key)
            await _quotes_by_the_official_client(desk, one)
            await _heartbeats_by_the_official_client(one)


# ---- streams, positions, modes, heartbeats


async def test_the_user_channel_by_the_official_client(client: OpenClient, open_desk: OpenDesk) -> None:
    """Orders and trades from placement to end, also behind the taker delay; pmkit's stream says the same."""
    async with open_desk(WalletType.SAFE) as desk, client("polymarket_client_trading", desk.settings()) as one:
        desk.venue.desk.taker_delay_seconds = 0.15
        async with desk.pmkit() as (exchange, market):
            fills: list[Fill] = []
            states: list[tuple[str, OrderState]] = []
            await exchange.subscribe_fills(fills.append)
            await exchange.subscribe_orders(lambda order: states.append((order.order_id, order.status)))
            await one.ask("watch", markets=[desk.window.condition_id])
            await until(lambda: len(desk.venue.user.sessions) == 2)
            desk.house(Side.SELL, "0.60", 100)
            wanted = {"asset_id": desk.up, "side": "BUY", "price": "0.45", "size": "20"}
            rests = (await one.ask("place", order=wanted))["order_id"]
            taken = await one.ask("market", order={"asset_id": desk.up, "side": "BUY", "amount": "12"})
            assert (taken["status"], taken["trade_ids"]) == ("delayed", [])
            desk.house_takes(Side.SELL, "0.45", 8)
            await until(lambda: len(desk.fills()) == 2 and desk.confirmed())
            await one.ask("cancel_all")
            events: list[dict[str, Any]] = []

            def ended() -> bool:
                return any(
                    event["payload"].get("order_event_type") == "CANCELLATION" and event["payload"]["id"] == rests
                    for event in events
                )

            async with asyncio.timeout(PATIENCE_SECONDS):
                while not ended():
                    events = await one.ask("heard")
            await until(lambda: (rests, OrderState.CANCELED) in states)
            finals = [fill for fill in fills if fill.state is FillState.FINAL]
            assert fills_of_pmkit(finals, market) == desk.fills() and len(finals) == 2
        assert _life(events, rests) == [
            ("PLACEMENT", "LIVE", "0"), ("UPDATE", "LIVE", "8"), ("CANCELLATION", "CANCELED", "8")
        ]  # fmt: skip
        shares = str(desk.order(taken["order_id"]).matched // 10**6)
        assert _life(events, taken["order_id"]) == [("PLACEMENT", "DELAYED", "0"), ("UPDATE", "MATCHED", shares)]
        told: dict[str, list[str]] = {}
        for event in events:
            if event["type"] == "trade":
                told.setdefault(event["payload"]["id"], []).append(event["payload"]["status"])
        assert set(told) == {row[0] for row in desk.fills()}
        assert all(life == ["MATCHED", "MINED", "CONFIRMED"] for life in told.values()), told
        heard = [event["payload"] for event in events if event["type"] == "trade"]
        assert fills_of(heard, desk.test.funder) == desk.fills()


def _life(events: list[dict[str, Any]], order_id: str) -> list[tuple[str, str, str]]:
    return [
        (event["payload"]["order_event_type"], event["payload"]["status"], event["payload"]["size_matched"])
        for event in events
        if event["type"] == "order" and event["payload"]["id"] == order_id
    ]


async def test_positions_trades_and_activity_by_the_official_client(client: OpenClient, open_desk: OpenDesk) -> None:
    async with open_desk(WalletType.PROXY) as desk, client("polymarket_client_trading", desk.settings()) as one:
        desk.house(Side.SELL, "0.60", 100)
        desk.house(Side.BUY, "0.40", 100)
        for order in (
            {"side": "BUY", "amount": "12", "max_price": "0.6"},
            {"side": "SELL", "shares": "5", "min_price": "0.4"},
        ):
            assert (await one.ask("market", order={"asset_id": desk.up, **order}))["status"] == "matched"
            await until(desk.confirmed)  # what is not mined cannot be sold
        (row,) = await one.ask("listed", name="positions")
        assert (row["asset_id"], row["condition_id"], row["outcome"], row["status"]) == (
            desk.up, desk.window.condition_id, "Up", "OPEN"
        )  # fmt: skip
        assert D(row["current_size"]) == desk.shares() == 15
        assert (D(row["avg_price"]), D(row["total_size"])) == (D("0.6"), 20)
        async with desk.pmkit() as (exchange, _):
            (mine,) = await exchange.get_positions()
            assert (mine.token_id, mine.size, mine.average_price) == (desk.up, desk.shares(), D("0.6"))
        trades = await one.ask("listed", name="trades", taker_only=False)
        assert {(t["asset_id"], t["side"], D(t["price"]), D(t["size"])) for t in trades} == {
            row[2:] for row in desk.fills()
        }
        done = await one.ask("listed", name="activity")
        ledger = [entry for entry in desk.venue.accounts.ledger if entry.wallet == desk.test.funder]
        assert sorted(row["type"] for row in done) == sorted(entry.kind for entry in ledger)
        paid = {(row["side"], D(row["amount"])) for row in done if row["type"] == "TRADE"}
        assert paid == {
            ("BUY" if entry.shares > 0 else "SELL", D(abs(entry.cash - entry.fee)) / 10**6)
            for entry in ledger
            if entry.kind == "TRADE"
        }
        value = await one.ask("call", name="get_portfolio_value")
        assert D(value["value"]) == D(row["current_value"])


async def test_restarts_limits_and_region_as_the_official_client_reads_them(
    client: OpenClient, open_desk: OpenDesk
) -> None:
    """The client knows four restrictions and a rate limit by their status, code, text and headers."""
    async with open_desk() as desk, client("polymarket_client_trading", desk.settings()) as one:
        wanted = {"asset_id": desk.up, "side": "BUY", "price": "0.45", "size": "10"}
        stands = (await one.ask("place", order=wanted))["order_id"]
        modes = desk.venue.modes

        async def refused(call: str = "", **args: Any) -> dict[str, Any]:
            with pytest.raises(ClientError) as error:
                await (one.ask(call, **args) if call else one.ask("place", order=wanted))
            return {"type": error.value.type, "text": error.value.text, **error.value.details}

        modes.set(Mode.RESTARTING)
        found = await refused()
        assert (found["status"], found["restriction"]) == (425, "restarting")
        assert (await refused("cancel", order_id=stands))["status"] == 425
        modes.set(Mode.POST_ONLY)
        found = await refused()
        assert (found["status"], found["restriction"], found["code"]) == (503, "post_only", "post_only_mode")
        assert found["retry_after"] == 120 and POST_ONLY_TEXT in found["text"]
        assert (await one.ask("place", order=wanted | {"post_only": True}))["status"] == "live"
        (leg,) = await one.ask("place_many", orders=[wanted])
        assert leg["code"] == "post_only_mode"
        modes.set(Mode.CANCEL_ONLY)
        found = await refused()
        assert (found["status"], found["restriction"]) == (503, "cancel_only")
        assert (await one.ask("cancel", order_id=stands))["canceled"] == [stands]
        modes.set(Mode.DISABLED)
        assert (await refused())["status"] == (await refused("cancel_all"))["status"] == 503
        modes.set(Mode.NORMAL)
        modes.region_blocked = True
        assert (await refused())["status"] == 403
        modes.region_blocked = False
        desk.venue.limits.enforced = False
        desk.venue.limits.take(desk.test.address, 1_000)
        await one.ask("place", order=wanted)
        last = (await one.ask("rate_limits"))[-1]
        assert last["warning"] is True and last["remaining"] < 0
        desk.venue.limits.enforced = True
        found = await refused()
        assert found["type"] == "RateLimitError" and found["retry_after"] >= 1


async def _heartbeats_by_the_official_client(one: Client) -> None:
    first = await one.ask("call", name="send_order_heartbeat")
    second = await one.ask("call", name="send_order_heartbeat", **first)
    assert second != first
    with pytest.raises(ClientError) as refused:
        await one.ask("call", name="send_order_heartbeat", **first)
    assert refused.value.type == "OrderHeartbeatMismatchError"
    assert refused.value.details["heartbeat_id"] == second["heartbeat_id"]


def _quoted(desk: Desk) -> tuple[str, str]:
    """A book of 0.40 and 0.55, last traded at 0.55."""
    desk.house(Side.BUY, "0.40", 100)
    desk.house(Side.SELL, "0.55", 100)
    desk.house_takes(Side.BUY, "0.55", 10)
    return desk.window.tokens


async def _quotes_by_the_clob_client(desk: Desk, one: Client) -> None:
    up, down = _quoted(desk)
    both = [{"token_id": token} for token in (up, down, "1" * 70)]

    async def read(name: str, params: list[dict[str, str]] = both) -> Any:
        return await one.ask("call", name=name, args=[params])

    assert await read("get_midpoints") == {up: "0.475", down: "0.525"}
    assert await read("get_spreads") == {up: "0.15", down: "0.15"}
    sides = [{"token_id": token, "side": side} for token in (up, down) for side in ("BUY", "SELL")]
    prices = {up: {"BUY": "0.4", "SELL": "0.55"}, down: {"BUY": "0.45", "SELL": "0.6"}}
    assert await read("get_prices", sides) == prices
    last = [{"token_id": token, "price": "0.550", "side": "BUY"} for token in (up, down)]
    assert await read("get_last_trades_prices") == last


async def _quotes_by_the_official_client(desk: Desk, one: Client) -> None:
    up, down = _quoted(desk)
    ids = {"asset_ids": [up, down]}
    found = await one.ask("call", name="get_midpoints", **ids)
    assert {token: D(value) for token, value in found.items()} == {up: D("0.475"), down: D("0.525")}
    found = await one.ask("call", name="get_spreads", **ids)
    assert {token: D(value) for token, value in found.items()} == dict.fromkeys((up, down), D("0.15"))
    rows = await one.ask("call", name="get_last_trade_prices", **ids)
    assert [(row["asset_id"], D(row["price"]), row["side"]) for row in rows] == [
        (up, D("0.55"), "BUY"), (down, D("0.55"), "BUY")
    ]  # fmt: skip


# ---- pmkit's orders and headers by the clients' code


def plans(draw: Entropy) -> Iterator[OrderPlan]:
    """Orders of every kind at every tick, in markets of both protocol versions."""
    now_ms = 1_795_176_450_123
    for tick in ("0.1", "0.01", "0.005", "0.0025", "0.001", "0.0001"):
        for protocol, tokens in (("v1", (UP_TOKEN, DOWN_TOKEN)), ("v2", (UP_V2, DOWN_V2))):
            market = made_market(tick, protocol=protocol, token_ids=tokens)
            steps = round(1 / D(tick))

            def price(market: Any = market, steps: int = steps) -> Decimal:
                return D(draw.randint(1, steps - 1)) / steps

            side = draw.choice(list(OrderSide))
            outcome = draw.choice(market.outcomes)
            shares = D(draw.randint(500, 99_999)) / 100
            yield plan_limit(market, outcome, side, price(), shares, now_ms=now_ms, post_only=draw.random() < 0.5)
            later = datetime.fromtimestamp(market.close_ms // 1000, UTC) + timedelta(hours=1)
            yield plan_limit(
                market, outcome, side, price(), shares, now_ms=now_ms, time_in_force=TimeInForce.GTD, expires_at=later
            )
            for kind in (TimeInForce.IOC, TimeInForce.FOK):
                much = {"amount": shares} if side is OrderSide.BUY else {"size": draw.randint(1, 999)}
                yield plan_market(market, outcome, side, worst_price=price(), time_in_force=kind, **much)


def signed(desk: Desk, seed: str, *, session_key: str | None = None) -> list[SignedOrder]:
    draw = Entropy(seed)
    signer = OrderSigner(
        Signer(session_key or desk.test.private_key),
        desk.test.api_key.key,
        funder=desk.test.funder,
        signature_type=desk.test.signature_type,
        session_key=session_key is not None,
    )
    found = []
    for plan in plans(draw):
        salt = draw.choice([draw.randint(0, MAX_SALT), MAX_SALT, 0])
        found.append(signer.sign(plan, salt, 1_795_176_450_123 + draw.randint(0, 10**9)))
    return found


async def _same_body(one: Client, order: SignedOrder, session_key: str | None = None) -> bytes:
    """The body that the official client makes of the same order, salt and time."""
    body = json.loads(order.body)
    theirs = await one.ask(
        "built",
        order=body["order"],
        kind=body["orderType"],
        owner=body["owner"],
        post_only=body.get("postOnly", False),
        session_key=session_key,
    )
    return json.dumps(theirs, separators=(",", ":")).encode()


async def _same_headers(desk: Desk, one: Client) -> None:
    """L1 and L2 headers, with the second in which the client made them."""
    key = desk.test.api_key
    signer = Signer(desk.test.private_key)
    mine = Credentials(signer.address, key.key, key.secret, key.passphrase)
    creds = {"api_key": key.key, "api_secret": key.secret, "api_passphrase": key.passphrase}
    order = signed(desk, "headers")[0].body.decode()
    for nonce, (method, path, body) in enumerate(
        (
            ("GET", "/data/orders", None),
            ("POST", "/order", order),
            ("POST", "/v1/heartbeats", '{"heartbeat_id":""}'),
            ("DELETE", "/cancel-all", None),
        )
    ):
        theirs = await one.ask("headers", creds=creds, method=method, path=path, body=body, nonce=nonce)
        at = int(theirs["l1"]["POLY_TIMESTAMP"])
        assert theirs["l1"] == signer.login_headers(at, nonce)
        at = int(theirs["l2"]["POLY_TIMESTAMP"])
        assert theirs["l2"] == mine.headers(at, method, path, (body or "").encode())


async def test_headers_are_those_of_the_archived_client(client: OpenClient, open_desk: OpenDesk) -> None:
    async with open_desk() as desk, client("py_clob_client_headers", desk.settings()) as one:
        assert one.version == "0.34.6"
        await _same_headers(desk, one)
