"""The Data API v2 (reference: polymarket-markets-and-redeem.md, 3): what the chain did, some time later.

Trades show `trade_lag_seconds` after they were mined, positions `position_lag_seconds` (market time; 1 to 3 minutes in
reality). Both are read from the ledger, and only mined trades are in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pmkit.clock import Clock, to_utc
from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS
from pmkit.sim.polymarket.accounts import Accounts, Entry
from pmkit.sim.polymarket.data_query import amount_of, conditions_of, paged, query, user_of
from pmkit.sim.polymarket.gamma import GammaRows
from pmkit.sim.polymarket.market import OUTCOMES, Listings, Window
from pmkit.sim.polymarket.trades import TradeBook
from pmkit.sim.server import Refused, Server, answer

TRADE_LAG_SECONDS = 2.0
POSITION_LAG_SECONDS = 90.0
UNLABELLED = 999
DUST_SHARES = 0.1
DUST_TRADE = 0.01

_STATUSES = ("OPEN", "REDEEMABLE", "REDEEMABLE_LOST", "MERGEABLE", "CLOSED")


@dataclass(slots=True)
class _Held:
    """What the ledger says about one wallet and token, in base units."""

    window: Window
    outcome: int
    size: int = 0
    bought: int = 0
    cost: int = 0
    fees: int = 0
    realized: float = 0.0
    first_ms: int = 0
    last_ms: int = 0

    def add(self, entry: Entry) -> None:
        self.first_ms = self.first_ms or entry.at_ms
        self.last_ms = entry.at_ms
        if entry.shares >= 0:
            self.size += entry.shares
            self.bought += entry.shares
            self.cost -= entry.cash
            self.fees += entry.fee
            return
        share = min(1.0, -entry.shares / self.size) if self.size > 0 else 1.0
        self.realized += entry.cash - entry.fee - (self.cost + self.fees) * share
        self.cost -= round(self.cost * share)
        self.fees -= round(self.fees * share)
        self.size += entry.shares


class DataRoutes:
    """Registers the routes."""

    def __init__(
        self,
        server: Server,
        listings: Listings,
        rows: GammaRows,
        accounts: Accounts,
        trades: TradeBook,
        clock: Clock,
    ) -> None:
        self.trade_lag_seconds = TRADE_LAG_SECONDS
        self.position_lag_seconds = POSITION_LAG_SECONDS
        self._listings = listings
        self._rows = rows
        self._accounts = accounts
        self._trades = trades
        self._clock = clock
        server.get("/v2/positions", self._positions)
        server.get("/v2/trades", self._own_trades)
        server.get("/v2/activity", self._activity)
        server.get("/v2/value", self._value)

    def _window_of(self, token: str) -> Window | None:
        return self._listings.find(token)

    # ---- positions

    def held(self, wallet: str, until_ms: int) -> list[_Held]:
        """Everything a wallet ever held, as the chain stood at a moment."""
        found: dict[str, _Held] = {}
        for entry in self._accounts.ledger:
            if entry.at_ms > until_ms or not entry.token or entry.wallet.lower() != wallet:
                continue
            held = found.get(entry.token)
            if held is None:
                window = self._window_of(entry.token)
                if window is None:
                    continue  # older than a day: this venue has forgotten the market
                held = found[entry.token] = _Held(window, window.outcome_of(entry.token))
            held.add(entry)
        return list(found.values())

    def _lagging(self) -> int:
        return self._clock.now_ms() - round(self.position_lag_seconds * 1000)

    def _price(self, held: _Held) -> float:
        now = self._clock.now_ms()
        if now >= held.window.resolved_ms:
            return 1.0 if self._rows.went_up(held.window) == (held.outcome == 0) else 0.0
        text: list[str] = self._rows.prices(held.window, now)
        return float(text[held.outcome])

    async def _positions(self, request: web.Request) -> web.Response:
        user, conditions = user_of(request), conditions_of(request)
        statuses = query(request, "status") or ["OPEN"]
        if unknown := [status for status in statuses if status not in _STATUSES]:
            raise Refused(400, f"unknown status {unknown[0]}")
        if user is None and len(conditions) != 1:
            raise Refused(400, "user or exactly one condition must be given")
        if user is None and {"REDEEMABLE_LOST", "MERGEABLE"} & set(statuses):
            raise Refused(400, "user must be given")
        wallets = [user] if user is not None else [account.wallet.lower() for account in self._accounts]
        least = amount_of(request, DUST_SHARES)
        rows = []
        for wallet in wallets:
            all_held = self.held(wallet, self._lagging())
            sizes = {(held.window.condition_id, held.outcome): held.size for held in all_held}
            for held in all_held:
                if conditions and held.window.condition_id not in conditions:
                    continue
                other = sizes.get((held.window.condition_id, 1 - held.outcome), 0)
                row = self._position(wallet, held, mergeable=other > 0 and held.size > 0)
                if self._shown(row, held, statuses, least):
                    rows.append(row)
        rows.sort(key=lambda row: -float(row["current_value"]))
        return paged(request, rows)

    @staticmethod
    def _shown(row: dict[str, Any], held: _Held, statuses: Iterable[str], least: float) -> bool:
        if held.size <= 0:
            return "CLOSED" in statuses
        if held.size / SIZE_UNITS < least:
            return False
        lost = row["redeemable"] and row["current_price"] == 0
        kinds = {"REDEEMABLE_LOST"} if lost else {"OPEN", *(("REDEEMABLE",) if row["redeemable"] else ())}
        if row["mergeable"]:
            kinds.add("MERGEABLE")
        return bool(kinds & set(statuses))

    def _position(self, wallet: str, held: _Held, *, mergeable: bool) -> dict[str, Any]:
        window = held.window
        resolved = self._clock.now_ms() >= window.resolved_ms
        price = self._price(held)
        size = round(max(0, held.size) / SIZE_UNITS, 4)
        cost, fees = held.cost / SIZE_UNITS, held.fees / SIZE_UNITS
        value = round(size * price, 4)
        realized = round(held.realized / SIZE_UNITS, 4)
        unrealized = round(value - cost - fees, 4)
        total = cost + fees
        status = "CLOSED" if held.size <= 0 else "OPEN"
        if resolved and held.size > 0:
            status = "REDEEMABLE"
        return {
            "proxy_wallet": wallet,
            "token_id": window.tokens[held.outcome],
            "condition_id": window.condition_id,
            "current_size": size,
            "avg_price": round(cost / size, 6) if size else 0.0,
            "entry_cost_usdc": round(cost, 4),
            "entry_fees_usdc": round(fees, 4),
            "total_cost_usdc": round(total, 4),
            "current_price": price,
            "current_value": value,
            "total_size": round(held.bought / SIZE_UNITS, 4),
            "realized_pnl": realized,
            "unrealized_pnl": unrealized,
            "total_pnl": round(realized + unrealized, 4),
            "percent_pnl": round(100 * unrealized / total, 4) if total else 0.0,
            "percent_realized_pnl": round(100 * realized / total, 4) if total else 0.0,
            "status": status,
            "redeemable": resolved and held.size > 0,  # losers, too
            "mergeable": mergeable,
            "negative_risk": False,
            "archived": False,
            **self._about(window, held.outcome),
            "event_id": window.event_id,
            "opposite_outcome": OUTCOMES[1 - held.outcome],
            "opposite_token_id": window.tokens[1 - held.outcome],
            "end_date": f"{to_utc(window.close_ms):%Y-%m-%d}",
            "first_entry_at": held.first_ms // 1000,
            "last_event_at": held.last_ms // 1000,
            "name": "",
            "profile_image": "",
            "verified": False,
        }

    @staticmethod
    def _about(window: Window, outcome: int) -> dict[str, Any]:
        return {
            "title": window.title,
            "slug": window.slug,
            "icon": "",
            "event_slug": window.slug,
            "outcome": OUTCOMES[outcome],
            "outcome_index": outcome,
        }

    async def _value(self, request: web.Request) -> web.Response:
        user = user_of(request)
        if user is None:
            raise Refused(400, "user must be given")
        value = sum(max(0, held.size) / SIZE_UNITS * self._price(held) for held in self.held(user, self._lagging()))
        return answer({"data": {"proxy_wallet": user, "value": round(value, 4)}})

    # ---- trades and activity

    def _entries(self, request: web.Request, user: str | None) -> list[Entry]:
        """Ledger rows that show already, newest first."""
        until = self._clock.now_ms() - round(self.trade_lag_seconds * 1000)
        conditions = conditions_of(request)
        side = (query(request, "side") or [""])[0].upper()
        start, end = (query(request, name) for name in ("start", "end"))
        if user is None and (start or end):
            raise Refused(400, "start and end need user")
        low, high = (int(start[0]) if start else 0), (int(end[0]) if end else 2**62)
        found = []
        for entry in reversed(self._accounts.ledger):
            if entry.at_ms > until or not low <= entry.at_ms // 1000 <= high:
                continue
            if user is not None and entry.wallet.lower() != user:
                continue
            window = self._window_of(entry.token) if entry.token else None
            if conditions and (window is None or window.condition_id not in conditions):
                continue
            if side and entry.token and side != ("BUY" if entry.shares > 0 else "SELL"):
                continue
            found.append(entry)
        return found

    def _trade_row(self, entry: Entry) -> dict[str, Any] | None:
        window = self._window_of(entry.token)
        if window is None:
            return None
        trade = self._trades.trades.get(entry.trade_id)
        outcome = window.outcome_of(entry.token)
        return {
            "proxy_wallet": entry.wallet.lower(),
            "side": "BUY" if entry.shares > 0 else "SELL",
            "token_id": entry.token,
            "condition_id": window.condition_id,
            "size": abs(entry.shares) / SIZE_UNITS,
            "price": entry.price / PRICE_UNITS,
            "timestamp": entry.at_ms // 1000,
            **self._about(window, outcome),
            "name": "",
            "pseudonym": "",
            "bio": "",
            "profile_image": "",
            "profile_image_optimized": "",
            "transaction_hash": trade.transaction if trade is not None else "0x" + "0" * 64,
        }

    async def _own_trades(self, request: web.Request) -> web.Response:
        user = user_of(request)
        taker_only = (query(request, "taker_only") or ["true"])[0].lower() != "false"
        least = amount_of(request, DUST_TRADE)
        rows = []
        for entry in self._entries(request, user):
            trade = self._trades.trades.get(entry.trade_id)
            if entry.kind != "TRADE" or trade is None or entry.wallet == self._accounts.house.wallet:
                continue
            if taker_only and trade.taker.order_id != entry.order_id:
                continue
            row = self._trade_row(entry)
            if row is not None and row["size"] >= least:
                rows.append(self._fresh(row, entry))
        return paged(request, rows)

    def _fresh(self, row: dict[str, Any], entry: Entry) -> dict[str, Any]:
        """A row that is younger than the positions is not labelled yet."""
        if entry.at_ms > self._lagging():
            row |= {"outcome_index": UNLABELLED, "event_slug": ""}
        return row

    async def _activity(self, request: web.Request) -> web.Response:
        user = user_of(request)
        if user is None:
            raise Refused(400, "user must be given")
        kinds = set(query(request, "type"))
        hidden = (query(request, "exclude_deposits_withdrawals") or ["true"])[0].lower() != "false"
        rows = []
        for entry in self._entries(request, user):
            if (kinds and entry.kind not in kinds) or (entry.kind == "DEPOSIT" and hidden):
                continue
            row = self._trade_row(entry) if entry.token else self._cash_row(entry)
            if row is None:
                continue
            paid = abs(entry.cash - entry.fee) / SIZE_UNITS
            row |= {"type": entry.kind, "usdc_size": paid, "is_combo": False}
            if entry.kind != "TRADE":
                row["side"] = ""
            rows.append(row)
        return paged(request, rows)

    @staticmethod
    def _cash_row(entry: Entry) -> dict[str, Any]:
        return {
            "proxy_wallet": entry.wallet.lower(),
            "timestamp": entry.at_ms // 1000,
            "condition_id": "",
            "token_id": "",
            "size": abs(entry.cash) / SIZE_UNITS,
            "price": 0.0,
            "transaction_hash": "0x" + "0" * 64,
        }
