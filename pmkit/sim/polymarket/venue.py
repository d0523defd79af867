"""The local Polymarket: CLOB, Gamma and Data on a port each, its sockets, the clock that opens and ends markets."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from pmkit.clock import Clock, Entropy
from pmkit.endpoints import PolymarketEndpoints
from pmkit.errors import ConfigError
from pmkit.sim.polymarket.account_rest import AccountRoutes
from pmkit.sim.polymarket.accounts import Accounts, TestAccount
from pmkit.sim.polymarket.auth import ApiKeys, AuthRoutes
from pmkit.sim.polymarket.book import COARSE_TICK, BookTruth, TokenBook
from pmkit.sim.polymarket.ctf_ids import on_chain
from pmkit.sim.polymarket.data import DataRoutes
from pmkit.sim.polymarket.data_query import data_error_body
from pmkit.sim.polymarket.data_tokens import TokenRoutes
from pmkit.sim.polymarket.desk import Desk
from pmkit.sim.polymarket.gamma import FEE_SCHEDULE, GammaRows, description
from pmkit.sim.polymarket.gamma_rest import GammaRoutes, error_body
from pmkit.sim.polymarket.limits import SignerLimits
from pmkit.sim.polymarket.live import LiveMarket, empty_book, loose
from pmkit.sim.polymarket.market import OUTCOMES, Listings, Window
from pmkit.sim.polymarket.modes import AnswerFaults, Modes
from pmkit.sim.polymarket.order_rest import OrderRoutes
from pmkit.sim.polymarket.prices import PriceChannel
from pmkit.sim.polymarket.quotes import QuoteRoutes
from pmkit.sim.polymarket.rest import NOT_BUILT, ClobRoutes
from pmkit.sim.polymarket.trades import TradeBook
from pmkit.sim.polymarket.user import UserChannel
from pmkit.sim.polymarket.wallets import WalletType
from pmkit.sim.polymarket.ws import MarketChannel
from pmkit.sim.server import Refused, Venue, answer
from pmkit.sim.traders import STEPS_PER_WALL_SECOND
from pmkit.sim.world import INTERVALS_MS, World

if TYPE_CHECKING:
    from pmkit.sim.polymarket.chain_ledger import ChainLedger

LONGEST_SLEEP_SECONDS = float(min(INTERVALS_MS.values()) / 1000)


class _Event(IntEnum):
    """What happens to a window by itself, in the order in which it happens at one moment."""

    ENDED = 0
    RESOLVED = 1
    LISTED = 2
    NEXT = 3
    EXTEND = 4


class PolymarketVenue(Venue):
    """Start it inside a running loop. `gamma_cache_seconds` (market time) makes Gamma answer with an older state.

    Only the current and the next window of each series may hold an engine, and only once somebody asked for them; an
    order on a later one starts it, too. For tests: `accounts` (the truth: balances and ledger), `desk` (orders, taker
    delay), `trades`, `modes` (restarts), `answers` (lost and late answers), `user` (its silence), `limits`,
    `reads` and `data_rows` (how late they are), `prices`. With `contracts`, a directory of bytecode (tests/data/chain),
    a chain and a relayer are there as well (`chain`): windows have the ids that the chain gives them.
    """

    def __init__(
        self,
        world: World,
        clock: Clock,
        *,
        clob_port: int = 0,
        gamma_port: int = 0,
        data_port: int = 0,
        steps_per_wall_second: float = STEPS_PER_WALL_SECOND,
        contracts: Path | None = None,
    ) -> None:
        super().__init__("polymarket", clock)
        self.world = world
        self.gamma_cache_seconds = 0.0
        self.steps_per_wall_second = steps_per_wall_second
        self.listings = Listings(world) if contracts is None else Listings(world, on_chain)
        self.live: dict[str, LiveMarket] = {}
        self.rows = GammaRows(world, self.live)
        self.channel = MarketChannel(self._snapshot, self._subscribed)
        self.clob = self.add_server("polymarket clob", clob_port)
        self.gamma = self.add_server("polymarket gamma", gamma_port, error_body=error_body)
        self.data = self.add_server("polymarket data", data_port, error_body=data_error_body)
        entropy = Entropy(f"{world.seed} polymarket orders")
        self.keys = ApiKeys(world, clock)
        self.accounts = Accounts(world, self.keys)
        self.chain = None if contracts is None else self._chain(contracts)
        self.trades = TradeBook(clock, entropy, self.accounts, self.faults, self.spawn)
        self.desk = Desk(self, clock, self.accounts, self.trades, self.faults, self.spawn)
        self.user = UserChannel(self.keys, clock, self.faults)
        self.desk.told.append(self.user.order)
        self.trades.changed.append(self.user.trade)
        self.limits = SignerLimits(clock)
        self.modes = Modes(clock)
        self.answers = AnswerFaults(clock, entropy, self.faults)
        # One funded account per wallet type, each with a key of its own.
        self.test_accounts: dict[int, TestAccount] = {int(kind): self.accounts.make(kind) for kind in WalletType}
        ClobRoutes(self.clob, self)
        QuoteRoutes(self.clob, self)
        AuthRoutes(self.clob, self.keys, self.desk.closed_only)
        OrderRoutes(self.clob, self.desk, self.keys, self.limits, self.modes, self.answers)
        self.reads = AccountRoutes(
            self.clob, self.desk, self.trades, self.accounts, self.keys, self.limits, clock, self.spawn
        )
        GammaRoutes(self.gamma, self.listings, self.rows, self._state_ms)
        self.clob.socket("/ws/market", self.channel.make_session)
        self.clob.socket("/ws/user", self.user.make_session)
        self.clob.get("/api/geoblock", self._geoblock)
        self.data_rows = DataRoutes(self.data, self.listings, self.rows, self.accounts, self.trades, clock)
        TokenRoutes(self.data, self.listings, self.rows, clock)
        self.prices = PriceChannel(world, clock, self.keys, self.faults)
        self.data.socket("/ws", self.prices.make_session)
        if self.chain is None:
            self.data.get("/relayer/deployed", self._deployed)
        self.data.any("/{rest:.*}", self._not_built)
        self._events: list[tuple[int, int, str, Window | None]] = []

    def _chain(self, contracts: Path) -> ChainLedger:
        try:
            from pmkit.sim.polymarket.chain_ledger import ChainLedger
        except ModuleNotFoundError as error:
            if error.name != "eth":
                raise
            raise ConfigError("the local chain needs py-evm: pip install 'py-evm>=0.12.1b1,<0.13'") from error
        return ChainLedger(self, contracts)

    # ---- life

    async def start(self) -> None:
        now = self.clock.now_ms()
        for window in self.listings.advance(now):
            self._plan(window, now)
        heapq.heappush(self._events, (now + round(LONGEST_SLEEP_SECONDS * 1000), _Event.EXTEND, "", None))
        await super().start()
        _ = self.spawn(self._keep_time(), "schedule")
        _ = self.spawn(self.prices.run(), "live prices")

    def endpoints(self) -> PolymarketEndpoints:
        """Where everything is. What is not built yet answers 501 there."""
        return PolymarketEndpoints(
            clob=self.clob.url(),
            gamma=self.gamma.url(),
            data=self.data.url(),
            market_ws=self.clob.url("/ws/market", "ws"),
            user_ws=self.clob.url("/ws/user", "ws"),
            live_ws=self.data.url("/ws", "ws"),
            relayer=self.data.url("/relayer"),
            rpc=self.data.url("/rpc"),
            rpc_others=(),
        )

    async def _geoblock(self, request: web.Request) -> web.Response:
        country, region = ("US", "NY") if self.modes.region_blocked else ("CH", "ZH")
        return answer({"blocked": self.modes.region_blocked, "ip": "127.0.0.1", "country": country, "region": region})

    async def _deployed(self, request: web.Request) -> web.Response:
        """The relayer's answer whether a wallet has code on chain, which is what clients ask at their start."""
        return answer({"deployed": self.accounts.find(request.query.get("address", "")) is not None})

    async def _not_built(self, request: web.Request) -> web.Response:
        raise Refused(501, f"{request.path}: {NOT_BUILT}")

    # ---- what tests look at

    def current(self, asset: str, interval: str = "15m") -> Window:
        """The window of now."""
        for series in self.listings.series:
            if (series.asset, series.interval) == (asset, interval):
                return self.listings.at(series, self.clock.now_ms())
        raise KeyError(f"{asset} {interval}")

    def book_truth(self, token: str) -> BookTruth:
        """The venue's own book of a token. Raises KeyError where there is none."""
        book = self.book_of(token)
        if book is None:
            raise KeyError(token)
        return book.truth()

    # ---- what the routes ask

    def _state_ms(self) -> int:
        return self.clock.now_ms() - round(self.gamma_cache_seconds * 1000)

    def known(self, key: str) -> Window | None:
        window = self.listings.find(key)
        if window is None or key not in (window.condition_id, *window.tokens):
            return None
        return window if self.clock.now_ms() >= window.clob_known_ms else None

    def listed(self) -> list[Window]:
        now = self.clock.now_ms()
        known = [window for window in self.listings if now >= window.clob_known_ms]
        return sorted(known, key=lambda window: (window.open_ms, window.slug))

    def running(self, window: Window) -> LiveMarket | None:
        live = self.live.get(window.condition_id)
        if live is None and window.open_ms - window.series.length_ms <= self.clock.now_ms() < window.close_ms:
            live = self._begin(window)
        return live

    def engine_of(self, window: Window) -> LiveMarket | None:
        """The engine for orders, which may come long before anybody else trades there; None once it has ended."""
        live = self.live.get(window.condition_id)
        if live is None and self.clock.now_ms() < window.close_ms:
            live = self._begin(window)
        return None if live is None or live.ended else live

    def _begin(self, window: Window) -> LiveMarket:
        live = LiveMarket(
            self.world, window, self.clock, self.channel, steps_per_wall_second=self.steps_per_wall_second
        )
        self.live[window.condition_id] = live
        self.desk.attach(live)
        _ = self.spawn(live.traders.run(), f"traders of {window.slug}")
        return live

    def book_of(self, token: str) -> TokenBook | None:
        window = self.known(token)
        now = self.clock.now_ms()
        if window is None or not token.isdecimal() or not window.tokens_known_ms <= now < window.resolved_ms:
            return None
        outcome = window.outcome_of(token)
        live = self.running(window)
        return empty_book(window, outcome, COARSE_TICK) if live is None else live.book(outcome)

    def _snapshot(self, token: str) -> str | None:
        book = self.book_of(token)
        return None if book is None else book.socket_json()

    def _subscribed(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            if (window := self.known(token)) is not None:
                self.running(window)

    # ---- what happens by itself

    def _plan(self, window: Window, now_ms: int) -> None:
        for at_ms, kind in (
            (window.tokens_known_ms, _Event.LISTED),
            (window.open_ms - window.series.length_ms, _Event.NEXT),
            (window.close_ms, _Event.ENDED),
            (window.resolved_ms, _Event.RESOLVED),
        ):
            if at_ms > now_ms:
                heapq.heappush(self._events, (at_ms, kind, window.slug, window))

    async def _keep_time(self) -> None:
        while True:
            wait = (self._events[0][0] - self.clock.now_ms()) / 1000
            if wait > 0:
                await self.clock.sleep(wait)
                continue
            at_ms, kind, _, window = heapq.heappop(self._events)
            if window is None:
                now = self.clock.now_ms()
                for new in self.listings.advance(now):
                    self._plan(new, now)
                again = max(at_ms, now) + round(LONGEST_SLEEP_SECONDS * 1000)
                heapq.heappush(self._events, (again, _Event.EXTEND, "", None))
            else:
                self._happen(_Event(kind), window)

    def _happen(self, kind: _Event, window: Window) -> None:
        live = self.live.get(window.condition_id)
        if kind is _Event.LISTED:
            self.channel.everybody(self._new_market(window))
        elif kind is _Event.NEXT:
            if self.channel.watched(window) and self.running(window) is not None:
                for token in window.tokens:
                    self.channel.token(token, partial(self._frame, token))
        elif kind is _Event.ENDED:
            if live is not None:
                self.desk.ended(window)
                live.end()
        elif kind is _Event.RESOLVED:
            self.live.pop(window.condition_id, None)
            if self.channel.watched(window):
                self.channel.market(window, self._resolved(window), custom=True)

    def _frame(self, token: str) -> str:
        return self._snapshot(token) or "[]"

    def _new_market(self, window: Window) -> str:
        text = description(window)
        return loose(
            {
                "id": window.market_id,
                "question": window.title,
                "market": window.condition_id,
                "slug": window.slug,
                "description": text,
                "assets_ids": list(window.tokens),
                "outcomes": list(OUTCOMES),
                "event_message": {
                    "id": window.event_id,
                    "ticker": window.slug,
                    "slug": window.slug,
                    "title": window.title,
                    "description": text,
                },
                "timestamp": str(self.clock.now_ms()),
                "event_type": "new_market",
                "tags": [],
                "condition_id": window.condition_id,
                "active": False,
                "clob_token_ids": list(window.tokens),
                "sports_market_type": "",
                "line": "",
                "game_start_time": "",
                "order_price_min_tick_size": "0.01",
                "group_item_title": "",
                "taker_base_fee": "1000",
                "fees_enabled": True,
                "fee_schedule": {
                    "exponent": str(FEE_SCHEDULE["exponent"]),
                    "rate": str(FEE_SCHEDULE["rate"]),
                    "taker_only": FEE_SCHEDULE["takerOnly"],
                    "rebate_rate": str(FEE_SCHEDULE["rebateRate"]),
                },
            }
        )

    def _resolved(self, window: Window) -> str:
        winner = 0 if self.world.went_up(window.asset, window.open_ms, window.close_ms) else 1
        return loose(
            {
                "id": window.market_id,
                "market": window.condition_id,
                "assets_ids": list(window.tokens),
                "winning_asset_id": window.tokens[winner],
                "winning_outcome": OUTCOMES[winner],
                "timestamp": str(self.clock.now_ms()),
                "event_type": "market_resolved",
                "tags": [],
            }
        )
