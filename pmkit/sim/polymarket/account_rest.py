"""An account's own reads: orders, trades, balances, the dead-man switch (polymarket-trading.md, 3.7 to 3.10)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from pmkit.clock import Clock
from pmkit.sim.polymarket.accounts import Account, Accounts
from pmkit.sim.polymarket.auth import ApiKeys
from pmkit.sim.polymarket.desk import Desk
from pmkit.sim.polymarket.limits import SignerLimits
from pmkit.sim.polymarket.signatures import CTF_EXCHANGE, EXCHANGE_V3, NEG_RISK_EXCHANGE
from pmkit.sim.polymarket.trades import Spawn, TradeBook
from pmkit.sim.polymarket.wallets import WalletType
from pmkit.sim.server import Refused, Server, answer

PAGE = 500
FIRST_CURSOR = "MA=="
LAST_CURSOR = "LTE="
BEAT_SECONDS = 10.0
BEAT_CHECK_SECONDS = 5.0

_ASSET_TYPES = ("COLLATERAL", "CONDITIONAL", "CONDITIONAL-V2")


class _Beat(msgspec.Struct):
    heartbeat_id: str | None = ""


_beat = msgspec.json.Decoder(_Beat)


class AccountRoutes:
    """Registers the routes.

    For `hydration_seconds` (market time) after it was accepted an order cannot be read, for `trade_hydration_seconds`
    after its match a trade. `balance_lag_seconds` is how old a balance is unless an update was asked for since.
    `unknown_is_404` answers 404 for an order that nobody knows, and not null; `not_broadcasted` names matches that are
    not sent to the chain as the real one does at times.
    """

    def __init__(
        self,
        server: Server,
        desk: Desk,
        trades: TradeBook,
        accounts: Accounts,
        keys: ApiKeys,
        limits: SignerLimits,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        self.hydration_seconds = 0.0
        self.trade_hydration_seconds = 0.0
        self.balance_lag_seconds = 0.0
        self.unknown_is_404 = False
        self.not_broadcasted = False
        self.page = PAGE
        self._desk = desk
        self._trades = trades
        self._accounts = accounts
        self._keys = keys
        self._limits = limits
        self._clock = clock
        self._spawn = spawn
        self._beats: dict[str, tuple[str, float]] = {}
        self._looked_ms: dict[tuple[str, str], int] = {}
        server.get("/data/order/{id}", self._order)
        server.get("/data/orders", self._orders)
        server.get("/data/trades", self._own_trades)
        server.get("/balance-allowance", self._balance)
        server.get("/balance-allowance/update", self._update)
        server.post("/v1/heartbeats", self._heartbeat)
        server.get("/v1/user/rate-limit-tier", self._tier)
        server.get("/order-scoring", self._scoring)
        server.post("/orders-scoring", self._scorings)
        server.get("/notifications", self._notifications)
        server.delete("/notifications", self._notifications)

    # ---- orders and trades

    def _hidden(self, created_ms: int) -> bool:
        return self._clock.now_ms() < created_ms + self.hydration_seconds * 1000

    async def _order(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        record = self._desk.orders.get(request.match_info["id"])
        if record is None or record.account.owner != key.owner or self._hidden(record.created_ms):
            if self.unknown_is_404:
                raise Refused(404, "order not found")
            return answer(None)
        return answer(record.row())

    def _paged(self, request: web.Request, rows: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        cursor = request.query.get("next_cursor", "") or FIRST_CURSOR
        try:
            start = int(base64.b64decode(cursor, validate=True))
        except (binascii.Error, ValueError) as error:
            raise Refused(400, "invalid order params payload") from error
        page = rows[start : start + self.page] if start >= 0 else []
        end = start + self.page
        following = LAST_CURSOR if start < 0 or end >= len(rows) else base64.b64encode(str(end).encode()).decode()
        return page, {"limit": self.page, "count": len(page), "next_cursor": following}

    async def _orders(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        query = request.query
        rows = [
            row
            for row in self._desk.open_orders(key.owner)
            if not self._hidden(row.created_ms)
            and query.get("id", row.order_id) == row.order_id
            and query.get("market", row.window.condition_id) == row.window.condition_id
            and query.get("asset_id", row.intent.token) == row.intent.token
        ]
        page, envelope = self._paged(request, rows)
        return answer({**envelope, "data": [row.row() for row in page]})

    async def _own_trades(self, request: web.Request) -> web.Response:
        """Newest first; `before` and `after` are unix seconds of the match, both exclusive."""
        key = await self._keys.of_request(request)
        query = request.query
        for name in ("before", "after"):
            if name in query and not query[name].isdecimal():
                raise Refused(400, "Invalid trade params payload")
        before, after = int(query.get("before", 2**62)), int(query.get("after", -1))
        rows = [
            trade
            for trade in reversed(self._trades.of_owner(key.owner))
            if query.get("id", trade.trade_id) == trade.trade_id
            and query.get("market", trade.window.condition_id) == trade.window.condition_id
            and ("asset_id" not in query or query["asset_id"] in self._assets(trade, key.owner))
            and ("maker_address" not in query or query["maker_address"].lower() in self._wallets(trade))
            and after < trade.match_ms // 1000 < before
            and self._clock.now_ms() >= trade.match_ms + self.trade_hydration_seconds * 1000
        ]
        page, envelope = self._paged(request, rows)
        shown = [trade.row(key.owner, not_broadcasted=self.not_broadcasted) for trade in page]
        return answer({**envelope, "data": shown})

    @staticmethod
    def _assets(trade: Any, owner: str) -> set[str]:
        mine = (leg for leg in trade.legs if leg.record is not None and leg.record.account.owner == owner)
        return {trade.window.tokens[leg.outcome] for leg in mine}

    @staticmethod
    def _wallets(trade: Any) -> set[str]:
        return {leg.wallet.lower() for leg in trade.legs}

    # ---- balances

    def _asked(self, request: web.Request, owner: str) -> tuple[Account | None, str]:
        kind, token = request.query.get("asset_type", ""), request.query.get("token_id", "")
        signature_type = request.query.get("signature_type", "0")
        if kind not in _ASSET_TYPES:
            raise Refused(400, "Invalid asset type")
        if signature_type not in ("0", "1", "2", "3"):
            raise Refused(400, "Invalid signature_type")
        if kind != "COLLATERAL" and not token.isdecimal():
            raise Refused(400, "Invalid token id")
        return self._accounts.of_owner(owner, WalletType(int(signature_type))), token if kind != "COLLATERAL" else ""

    async def _balance(self, request: web.Request) -> web.Response:
        """What the chain says; what trades that are not mined will change is not in it."""
        key = await self._keys.of_request(request)
        account, token = self._asked(request, key.owner)
        balance = 0
        allowances = dict.fromkeys((CTF_EXCHANGE, NEG_RISK_EXCHANGE, EXCHANGE_V3), 0)
        if account is not None:
            allowances |= account.share_allowances if token else account.cash_allowances
            if account.known:
                balance = self._seen(account, token)
        return answer(
            {"balance": str(balance), "allowances": {spender: str(most) for spender, most in allowances.items()}}
        )

    def _seen(self, account: Account, token: str) -> int:
        """A balance as the venue saw the chain last."""
        if not self.balance_lag_seconds:
            return account.shares[token] if token else account.cash
        late = self._clock.now_ms() - round(self.balance_lag_seconds * 1000)
        return self._accounts.as_of(account, token, max(late, self._looked_ms.get((account.wallet, token), 0)))

    async def _update(self, request: web.Request) -> web.Response:
        key = await self._keys.of_request(request)
        account, token = self._asked(request, key.owner)
        if account is not None:
            account.known = True
            self._looked_ms[account.wallet, token] = self._clock.now_ms()
        return answer({})

    # ---- the dead-man switch

    async def _heartbeat(self, request: web.Request) -> web.Response:
        """10 s and 5 s are wall time, like every ping."""
        key = await self._keys.of_request(request, writing=True)
        try:
            sent = _beat.decode(await request.read() or b"{}").heartbeat_id or ""
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid payload") from error
        known = self._beats.get(key.key)
        if known is not None and sent != known[0]:
            return answer({"error_msg": "Invalid Heartbeat ID", "heartbeat_id": known[0]}, 400)
        if known is None and sent:
            return answer({"error_msg": "Invalid Heartbeat ID", "heartbeat_id": ""}, 400)
        following = self._clock.entropy.uuid4()
        self._beats[key.key] = (following, self._clock.io_monotonic())
        if known is None:
            self._spawn(self._watch(key.key), f"heartbeat of {key.key}")
        return answer({"heartbeat_id": following})

    async def _watch(self, key: str) -> None:
        while True:
            await self._clock.io_sleep(BEAT_CHECK_SECONDS)
            if self._clock.io_monotonic() - self._beats[key][1] > BEAT_SECONDS:
                break
        # Gone until the next beat, which starts anew with an empty id.
        del self._beats[key]
        self._desk.take_out([row for row in self._desk.orders.values() if row.key == key], "CANCELED")

    # ---- small ones

    async def _tier(self, request: web.Request) -> web.Response:
        await self._keys.of_request(request)
        return answer({"tier": self._limits.tier})

    async def _scoring(self, request: web.Request) -> web.Response:
        await self._keys.of_request(request)
        return answer({"scoring": False})

    async def _scorings(self, request: web.Request) -> web.Response:
        await self._keys.of_request(request)
        try:
            ids = msgspec.json.decode(await request.read(), type=list[str])
        except msgspec.MsgspecError as error:
            raise Refused(400, "Invalid payload") from error
        return answer(dict.fromkeys(ids, False))

    async def _notifications(self, request: web.Request) -> web.Response:
        await self._keys.of_request(request)
        return answer([] if request.method == "GET" else "OK")
