"""The order desk: what is accepted, what rests, matches, waits and is taken out (reference: polymarket-trading.md, 3).

One desk for all markets. Marketable orders wait out the taker delay (market time) before they match: their funds are
held, they cannot be cancelled, and a lost connection changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pmkit.clock import Clock
from pmkit.sim.engine import Side, TimeInForce, Update
from pmkit.sim.faults import Faults
from pmkit.sim.polymarket.accounts import Account, Accounts
from pmkit.sim.polymarket.auth import ApiKey
from pmkit.sim.polymarket.book import NO_BOOK, own_levels, price_of, side_of
from pmkit.sim.polymarket.live import LiveMarket
from pmkit.sim.polymarket.market import Window
from pmkit.sim.polymarket.order_body import MIN_MARKETABLE, Intent, OrderType, check_numbers
from pmkit.sim.polymarket.records import OrderRecord, OrderState, dollars
from pmkit.sim.polymarket.signatures import (
    CTF_EXCHANGE,
    EXCHANGE_V3,
    is_position_id,
    order_signer,
    separator,
    separator_for,
    spender_for,
)
from pmkit.sim.polymarket.trades import Spawn, TradeBook, taker_fee
from pmkit.sim.polymarket.wallets import WalletType, deposit_of, wallet_of
from pmkit.sim.server import Refused

TAKER_DELAY_SECONDS = 0.150
FOK_KILLED = "order couldn't be fully filled. FOK orders are fully filled or killed."
FAK_KILLED = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
GONE = "already canceled or matched"
NEVER_SEEN = "Order not found or already canceled"
IN_DELAY = "cannot cancel because the order is in pending/delayed status"
WRONG_SIGNER = "the order signer address has to be the address of the API KEY"
NOT_ALLOWED = "maker address not allowed, please use the deposit wallet flow"


class Markets(Protocol):
    """What the desk needs of the venue."""

    def known(self, key: str) -> Window | None:
        """A window that the CLOB knows, by condition or token id."""

    def engine_of(self, window: Window) -> LiveMarket | None:
        """Its engine, started now where it has none; None where it has ended."""


class Desk:
    """`told` hears of every change of an order: the record and PLACEMENT, UPDATE or CANCELLATION.

    `taker_delay_seconds` 0 matches at once (the answer is then `matched`). The fault `long_delay` holds the next
    marketable order `long_delay_seconds`; `killed_in_delay` ends the next delayed one as if its makers had left;
    `unmatched` answers the next delayed one with that undocumented word, and goes on as always.
    """

    def __init__(
        self, markets: Markets, clock: Clock, accounts: Accounts, trades: TradeBook, faults: Faults, spawn: Spawn
    ) -> None:
        self.orders: dict[str, OrderRecord] = {}
        self.told: list[Callable[[OrderRecord, str], object]] = []
        self.taker_delay_seconds = TAKER_DELAY_SECONDS
        self.long_delay_seconds = 5.0
        self.banned: set[str] = set()
        self.closed_only: set[str] = set()
        self._markets = markets
        self._clock = clock
        self._accounts = accounts
        self._trades = trades
        self._faults = faults
        self._spawn = spawn
        self._open: dict[str, dict[str, OrderRecord]] = {}

    # ---- reading

    def open_orders(self, owner: str) -> list[OrderRecord]:
        """An owner's live and delayed orders, oldest first."""
        rows = [row for account in self._accounts.wallets_of(owner) for row in self._of(account)]
        return sorted(rows, key=lambda row: row.created_ms)

    def _of(self, account: Account) -> list[OrderRecord]:
        return list(self._open.get(account.wallet, {}).values())

    def free_cash(self, account: Account) -> int:
        """What a further BUY may use."""
        held = sum(row.held for row in self._of(account) if row.side is Side.BUY)
        return account.cash - account.pending_cash - held

    def free_shares(self, account: Account, token: str) -> int:
        """What a further SELL may use."""
        held = sum(row.held for row in self._of(account) if row.side is Side.SELL and row.intent.token == token)
        return account.shares[token] - account.pending_shares[token] - held

    # ---- who may place it

    def _signed_by(self, intent: Intent, key: ApiKey) -> Account:
        """The account an order is for. Raises Refused (400) for anything wrong with who signed what."""
        signed = intent.signed
        signer = order_signer(signed, separator_for(intent.token))
        if signer is None or signer.by != key.owner:
            other = separator("2", CTF_EXCHANGE) if is_position_id(intent.token) else separator("3", EXCHANGE_V3)
            wrong = order_signer(signed, other)
            if wrong is not None and wrong.by == key.owner:
                raise Refused(400, "order_version_mismatch")
        kind = WalletType(signed.signature_type)
        if kind is WalletType.DEPOSIT:
            return self._deposit_signer(intent, key, signer.by if signer else None)
        if signed.signer.lower() != key.owner.lower():
            raise Refused(400, WRONG_SIGNER)
        if signer is None or signer.by != key.owner:
            raise Refused(400, "invalid signature")
        account = self._accounts.find(signed.maker)
        if account is None or wallet_of(key.owner, kind).lower() != signed.maker.lower() or not account.allowed:
            raise Refused(400, NOT_ALLOWED)
        return account

    def _deposit_signer(self, intent: Intent, key: ApiKey, by: str | None) -> Account:
        signed = intent.signed
        account = self._accounts.find(signed.maker)
        if signed.signer.lower() != signed.maker.lower() or account is None or account.kind is not WalletType.DEPOSIT:
            raise Refused(400, WRONG_SIGNER)
        mine = (deposit_of(key.owner).lower(), deposit_of(key.owner, beacon=False).lower())
        session = by is not None and by.lower() in account.session_keys
        if (signed.maker.lower() not in mine and not session) or (by is not None and by != key.owner and not session):
            raise Refused(400, WRONG_SIGNER)
        if by is None:
            raise Refused(400, "invalid signature")
        return account

    # ---- placing

    def place(self, intent: Intent, key: ApiKey) -> dict[str, Any]:
        """Accept an order and answer as POST /order does. Raises Refused."""
        if intent.owner != key.key:
            raise Refused(400, "the order owner has to be the owner of the API KEY")
        if key.owner in self.banned:
            raise Refused(400, f"'{key.owner}' address banned")
        now = self._clock.now_ms()
        window = self._markets.known(intent.token)
        if window is None or now >= window.close_ms:
            raise Refused(404, NO_BOOK)
        if now < max(window.accepting_ms, window.tokens_known_ms):
            raise Refused(400, "the market is not yet ready to process new orders")
        account = self._signed_by(intent, key)
        if intent.side is Side.BUY and key.owner in self.closed_only:
            raise Refused(400, f"'{key.owner}' address in closed only mode")
        live = self._markets.engine_of(window)
        if live is None:
            raise Refused(404, NO_BOOK)
        if intent.order_id in self.orders:
            raise Refused(400, f"order {intent.order_id} is invalid. Duplicated.")
        check_numbers(intent, live.tick, now)
        record = OrderRecord(intent, account, key.key, window, window.outcome_of(intent.token), now)
        marketable, fee = self._check_market(record, live)
        self._check_funds(record, fee)
        self.orders[record.order_id] = record
        self._open.setdefault(account.wallet, {})[record.order_id] = record
        if marketable:
            return self._take(record, live)
        self._rest(record, live)
        return self._answer(record, "live")

    def _check_market(self, record: OrderRecord, live: LiveMarket) -> tuple[bool, int]:
        """Whether it would match now, and the fee of that. Raises Refused for what the book forbids."""
        intent = record.intent
        shares, cost, fee, _ = self._reach(record, live)
        if intent.post_only and shares:
            raise Refused(400, "invalid post-only order: order crosses book")
        if intent.order_type is OrderType.FAK and not shares:
            raise Refused(400, FAK_KILLED)
        if intent.order_type is OrderType.FOK and not self._whole(intent, shares, cost):
            raise Refused(400, FOK_KILLED)
        if shares and intent.side is Side.BUY and intent.money < MIN_MARKETABLE:
            raise Refused(400, f"invalid amount for a marketable BUY order (${dollars(intent.money)}), min size: $1")
        return bool(shares), fee

    @staticmethod
    def _whole(intent: Intent, shares: int, cost: int) -> bool:
        # One base unit of money may be too little for any share.
        return intent.money - cost <= 1 if intent.by_money else shares >= intent.shares

    @staticmethod
    def _reach(record: OrderRecord, live: LiveMarket) -> tuple[int, int, int, int]:
        """What an order would get now: shares, dollars, fee, and the worst price of it (its limit without any)."""
        intent = record.intent
        levels = own_levels(live.engine, record.outcome, intent.side.opposite)
        limit = worst = intent.limit
        shares = cost = fee = 0
        for price, size in levels:
            if (price > limit) if intent.side is Side.BUY else (price < limit):
                break
            if intent.by_money:
                wanted = min(size, (intent.money - cost) * 10_000 // price)
            else:
                wanted = min(size, intent.shares - shares)
            if wanted <= 0:
                break
            shares += wanted
            cost += wanted * price // 10_000
            fee += taker_fee(price, wanted)
            worst = price
            if wanted < size:
                break  # a rest of money that buys less than a base unit here buys nothing worse
        return shares, cost, fee, worst

    def _check_funds(self, record: OrderRecord, fee: int) -> None:
        intent, account = record.intent, record.account
        spender = spender_for(intent.token)
        if intent.side is Side.BUY:
            need, free = intent.money + fee, self.free_cash(account)
            allowance = account.cash_allowances.get(spender, 0)
        else:
            need, free = intent.shares, self.free_shares(account, intent.token)
            allowance = account.share_allowances.get(spender, 0)
        text = "not enough balance / allowance"
        if not account.known:
            free = 0
        if free < need:
            raise Refused(400, f"{text}: the balance is not enough -> balance: {max(0, free)}, order amount: {need}")
        if allowance < need:
            raise Refused(400, f"{text}: the allowance is not enough -> allowance: {allowance}, order amount: {need}")

    def _take(self, record: OrderRecord, live: LiveMarket) -> dict[str, Any]:
        delay = self.taker_delay_seconds
        if self._faults.take("long_delay"):
            delay = self.long_delay_seconds
        if delay <= 0:
            self._tell(record, "PLACEMENT")
            self._match(record, live)
            return self._answer(record, "matched")
        record.state = OrderState.DELAYED
        self._tell(record, "PLACEMENT")
        self._spawn(self._wait(record, delay), f"delay of {record.order_id}")
        return self._answer(record, "unmatched" if self._faults.take("unmatched") else "delayed")

    async def _wait(self, record: OrderRecord, delay: float) -> None:
        await self._clock.sleep(delay)
        live = self._markets.engine_of(record.window)
        if not record.open:
            return
        if live is None or live.ended:
            self._end(record, "CANCELED_MARKET_RESOLVED")
        elif self._faults.take("killed_in_delay"):
            self._end(record, f"CANCELED_{FOK_KILLED if record.intent.order_type is OrderType.FOK else FAK_KILLED}")
        else:
            self._match(record, live)

    def _match(self, record: OrderRecord, live: LiveMarket) -> None:
        """Match an order now; what is left rests or is killed."""
        intent = record.intent
        shares, cost, fee, worst = self._reach(record, live)
        if intent.order_type is OrderType.FOK and not self._whole(intent, shares, cost):
            self._end(record, f"CANCELED_{FOK_KILLED}")
            return
        if not intent.order_type.rests and not shares:
            self._end(record, f"CANCELED_{FAK_KILLED}")
            return
        if intent.side is Side.BUY and self.free_cash(record.account) + record.held < cost + fee:
            self._end(record, "CANCELED_NOT_ENOUGH_BALANCE")
            return
        record.state = OrderState.LIVE
        live.engine.submit(
            record.account.wallet,
            side_of(intent.side, record.outcome),
            price_of(worst if intent.by_money else intent.limit, record.outcome),
            shares if intent.by_money else intent.shares,
            time_in_force=TimeInForce.GTC if intent.order_type.rests else TimeInForce.IOC,
            order_id=record.order_id,
            client=record,
        )
        if not record.open:
            return
        if intent.order_type.rests:
            self._watch_expiry(record)
            return
        # What a FAK did not get is gone; it counts as matched when it got anything.
        self._close(record, OrderState.MATCHED)
        self._tell(record, "UPDATE")

    def _rest(self, record: OrderRecord, live: LiveMarket) -> None:
        intent = record.intent
        self._tell(record, "PLACEMENT")
        live.engine.submit(
            record.account.wallet,
            side_of(intent.side, record.outcome),
            price_of(intent.limit, record.outcome),
            intent.shares,
            order_id=record.order_id,
            client=record,
        )
        self._watch_expiry(record)

    def _watch_expiry(self, record: OrderRecord) -> None:
        if record.is_gtd:
            self._spawn(self._expire(record), f"expiry of {record.order_id}")

    async def _expire(self, record: OrderRecord) -> None:
        await self._clock.sleep(max(0.0, (record.expires_ms - self._clock.now_ms()) / 1000))
        if record.open:
            self._end(record, "CANCELED_EXPIRED_ORDER")

    @staticmethod
    def _answer(record: OrderRecord, status: str) -> dict[str, Any]:
        matched = status == "matched"
        buy = record.side is Side.BUY
        making, taking = (record.spent, record.matched) if buy else (record.matched, record.spent)
        return {
            "errorMsg": "",
            "orderID": record.order_id,
            "takingAmount": dollars(taking) if matched else "",
            "makingAmount": dollars(making) if matched else "",
            "status": status,
            "success": True,
            **({"tradeIDs": list(record.trades)} if matched else {}),
        }

    # ---- what the engine says

    def attach(self, live: LiveMarket) -> None:
        """Listen to a market's engine."""
        live.engine.on_update.append(lambda update: self._updated(live.window, update))

    def _updated(self, window: Window, update: Update) -> None:
        made = self._trades.matched(window, update)
        for trade in made:
            for hear in self._trades.changed:
                hear(trade)
        touched = {id(leg.record): leg.record for trade in made for leg in trade.legs if leg.record is not None}
        for record in touched.values():
            if record.open and record.left <= 0:
                self._close(record, OrderState.MATCHED)
            if record.intent.order_type.rests or not record.open:
                self._tell(record, "UPDATE")

    # ---- taking out

    def cancel(self, order_ids: Iterable[str], owner: str) -> dict[str, Any]:
        """What DELETE /orders answers; a foreign order is one that was never seen."""
        canceled: list[str] = []
        refused: dict[str, str] = {}
        for order_id in dict.fromkeys(order_ids):
            record = self.orders.get(order_id)
            if record is None or record.account.owner != owner:
                refused[order_id] = NEVER_SEEN
            elif record.state is OrderState.DELAYED:
                refused[order_id] = IN_DELAY
            elif not record.open:
                refused[order_id] = GONE
            else:
                self._end(record, "CANCELED")
                canceled.append(order_id)
        return {"canceled": canceled, "not_canceled": refused}

    def ended(self, window: Window) -> None:
        """A market is over: what rests there is taken out."""
        self.take_out((row for row in self.orders.values() if row.window is window), "CANCELED_MARKET_RESOLVED")

    def take_out(self, records: Iterable[OrderRecord], reason: str) -> None:
        """The venue cancels by itself. `INVALID` is one of the reasons it gives."""
        for record in list(records):
            if record.open and record.state is not OrderState.DELAYED:
                self._end(record, reason)

    def check_cover(self, account: Account) -> None:
        """Cancel the newest orders that are no longer covered; to be called when a balance changed from outside."""
        for record in reversed(self._of(account)):
            if record.side is Side.BUY:
                short = self.free_cash(account) < 0
            else:
                short = self.free_shares(account, record.intent.token) < 0
            if short:
                self.take_out([record], "CANCELED_NOT_ENOUGH_BALANCE")

    def _end(self, record: OrderRecord, reason: str) -> None:
        self._close(record, OrderState.INVALID if reason == "INVALID" else OrderState.CANCELED)
        record.reason = reason
        live = self._markets.engine_of(record.window)
        if live is not None:
            live.engine.cancel(record.order_id)
        self._tell(record, "CANCELLATION")

    def _close(self, record: OrderRecord, state: OrderState) -> None:
        record.state = state
        record.done_ms = self._clock.now_ms()
        self._open.get(record.account.wallet, {}).pop(record.order_id, None)

    def _tell(self, record: OrderRecord, kind: str) -> None:
        for hear in self.told:
            hear(record, kind)
