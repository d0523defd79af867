"""The local Kalshi on one port: REST, the signed socket, and the life of its markets."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import web

from pmkit.clock import Clock
from pmkit.endpoints import KalshiEndpoints
from pmkit.sim.kalshi.account_rest import AccountRest
from pmkit.sim.kalshi.auth import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Keys, VenueKey
from pmkit.sim.kalshi.candles import Candles
from pmkit.sim.kalshi.catalog import CatalogRest
from pmkit.sim.kalshi.errors import error_body, refuse, unauthorized
from pmkit.sim.kalshi.exchange import Exchange
from pmkit.sim.kalshi.feed import Feed
from pmkit.sim.kalshi.history_rest import HistoryRest
from pmkit.sim.kalshi.ledger import Account, Accounts, OrderRecord
from pmkit.sim.kalshi.life import Life
from pmkit.sim.kalshi.limits import COST, EXCEPTIONS, ReadLimits, WriteLimits
from pmkit.sim.kalshi.market import SHARD, LiveMarket, Stats, Trade, market_id, market_object
from pmkit.sim.kalshi.messages import ticker_message
from pmkit.sim.kalshi.mishaps import Mishaps
from pmkit.sim.kalshi.order_rest import Mutation, OrderRest
from pmkit.sim.kalshi.portfolio_rest import PortfolioRest, Read
from pmkit.sim.kalshi.rest import MarketRest
from pmkit.sim.kalshi.streams import KalshiSession
from pmkit.sim.kalshi.user_feed import UserFeed
from pmkit.sim.kalshi.windows import Calendar, Window, index_of, parse, series_of
from pmkit.sim.server import Handler, Server, SocketSession, Venue, answer
from pmkit.sim.traders import STEPS_PER_WALL_SECOND
from pmkit.sim.world import World

ROOT = "/trade-api/v2"
STAKE = 10_000  # dollars of the first member, on the shard of crypto
SOCKET = "/trade-api/ws/v2"
# Public paths of the real venue that are not here: a 404 would look like a market that does not exist.
_NOT_BUILT = (
    "/events/multivariate",
    "/live_data/{rest:.*}",
    "/cfbenchmarks/{rest:.*}",
    "/milestones",
)
_V2_DOCS = "https://docs.kalshi.com/api-reference/orders/create-order-v2"


class KalshiVenue(Venue):
    """Fifteen-minute markets on every asset of the World.

    `account` is the member of `key`, a throwaway key that signs; `accounts.open` makes further members,
    `keys.make("rsa")` further keys of the first one. `accounts` is the truth about money, orders and fills.

    Scripted beside `faults`: `mishaps`, `user_feed.silence`, `exchange` and `orders` (their switches),
    `portfolio.lag_ms`, `pause`, `overflow`, `calendar` (`missing`, `late`, `archived_ms`), `markets.lag_ms`, `limits`,
    `writes`, and `faults.arm` with "duplicate_fill", "timestamp_expired", "skip_delta", "duplicate_frame" or a
    `Mishap`.
    """

    def __init__(
        self,
        world: World,
        clock: Clock,
        port: int = 0,
        *,
        key_kind: str = "ed25519",
        steps_per_wall_second: float = STEPS_PER_WALL_SECOND,
    ) -> None:
        super().__init__("kalshi", clock)
        self.world = world
        self.calendar = Calendar(world)
        self.keys = Keys(clock)
        self.key: VenueKey = self.keys.make(key_kind)
        self.accounts = Accounts(world, self.keys)
        self.account: Account = self.accounts.open({0: 0, SHARD: STAKE}, self.key)
        self.limits = ReadLimits(clock)
        self.writes = WriteLimits(clock)
        self.mishaps = Mishaps(clock, self.faults)
        self._feed = Feed(clock, self._sessions, lambda key_id: self.accounts.of_key(key_id).user_id)
        self._life = Life(world, clock, self.calendar, self._feed, self.spawn, steps_per_wall_second)
        self.user_feed = UserFeed(clock, self.faults, self._sessions, self.accounts.of_key)
        self.exchange = Exchange(
            self.accounts, clock, self.user_feed, self.window, self.live, lambda: self.paused, self._watch_expiry
        )
        self.candles = Candles(clock)
        self._feed.on_match += [self.exchange.on_match, self.candles.matched]
        self._feed.on_changed.append(self.candles.quoted)
        self._feed.on_done.append(self.exchange.step_done)
        self._life.on_removed.append(self.exchange.removed)
        self._life.on_paused.append(self.exchange.trading_paused)
        self._life.on_settled.append(self.exchange.settle)
        self.markets = MarketRest(self)
        self.orders = OrderRest(self, self.exchange)
        self.portfolio = PortfolioRest(self, self.exchange)
        self.server = self.add_server("kalshi", port, error_body=error_body)
        self._add_account_routes()
        for path in _NOT_BUILT:
            self.server.get(ROOT + path, self._public(self._not_built))
        history = HistoryRest(self, self.candles)
        for path, handler in (history.routes() | self.markets.routes() | CatalogRest(self).routes()).items():
            self.server.get(ROOT + path, self._public(handler))
        self.server.get(f"{ROOT}/account/endpoint_costs", self._public(self._endpoint_costs))
        self.server.get(f"{ROOT}/exchange/user_data_timestamp", self._public(self.portfolio.user_data_timestamp))
        self.server.socket(SOCKET, self._session)

    def _add_account_routes(self) -> None:
        """What needs a key."""
        router = self.server.app.router
        rest = AccountRest(self, self.exchange)
        self.server.get(f"{ROOT}/account/limits", self._read(self._account_limits, COST))
        for path, handler, cost in [*self.portfolio.routes(), *rest.reads()]:
            self.server.get(ROOT + path, self._read(handler, cost))
        for method, path, write in [*self.orders.routes(), *rest.writes()]:
            router.add_route(method, ROOT + path, self._write(write))
        for path in ("", "/batched", "/{order_id}", "/{order_id}/amend", "/{order_id}/decrease"):
            for method in ("POST", "DELETE"):
                router.add_route(method, f"{ROOT}/portfolio/orders{path}", self._read(self._gone, COST))
        self.server.any(f"{ROOT}/portfolio/{{rest:.*}}", self._read(self._not_built_signed, COST))

    def endpoints(self) -> KalshiEndpoints:
        """Where this venue is."""
        return KalshiEndpoints(rest=self.server.url(ROOT), ws=self.server.url(SOCKET, "ws"))

    async def start(self) -> None:
        await super().start()
        self._life.start()
        self.spawn(self._feed.index(self.calendar, self.world.assets), "index values")

    async def close(self) -> None:
        """End every task and port within a second. Idempotent."""
        await self.mishaps.close()
        await super().close()

    # -- what tests and other parts of the venue read

    @property
    def trades(self) -> deque[Trade]:
        """The last public prints, oldest first."""
        return self._feed.trades

    @property
    def paused(self) -> bool:
        """Whether trading in crypto is paused."""
        return self._life.paused

    @property
    def indices(self) -> tuple[str, ...]:
        """The index ids of `cfbenchmarks_value`."""
        return tuple(index_of(asset) for asset in self.world.assets)

    def window(self, ticker: str) -> Window | None:
        """The window of a market ticker that is listed now."""
        window = parse(ticker, self.world.assets) if ticker.count("-") == 2 else None
        return window if window is not None and self.calendar.is_listed(window, self.clock.now_ms()) else None

    def live(self, ticker: str) -> LiveMarket | None:
        """The market of a ticker while it is open."""
        return self._life.live.get(ticker)

    def market_id(self, ticker: str) -> str | None:
        window = self.window(ticker)
        return None if window is None else market_id(self.world, window)

    def market_json(self, window: Window, now_ms: int | None = None) -> dict[str, object]:
        """The market object of REST."""
        now = self.clock.now_ms() if now_ms is None else now_ms
        ticker = window.ticker
        stats = self._life.stats.get(ticker) or Stats()
        return market_object(self.calendar, window, now, self._life.live.get(ticker), stats, self.paused)

    def ticker_message(self, ticker: str) -> dict[str, object] | None:
        """The `msg` of the ticker channel; None for a market that is not open."""
        live = self._life.live.get(ticker)
        return None if live is None else ticker_message(live, self.clock.time_ns() // 1000)

    def volume(self, asset: str) -> int:
        """What was traded in a series since the start, in engine units."""
        prefix = f"{series_of(asset)}-"
        return sum(stats.volume for ticker, stats in self._life.stats.items() if ticker.startswith(prefix))

    def book_truth(self, ticker: str) -> dict[str, list[tuple[str, str]]]:
        """The venue's own book: bids of both outcomes as (price, count), ascending."""
        live = self._life.live.get(ticker)
        yes, no = live.levels() if live else ([], [])
        return {"yes": yes, "no": no}

    # -- scripted

    def pause(self, paused: bool = True) -> None:
        """Pause trading in crypto, or go on: then every resting order is gone, as when a market is re-activated."""
        self._life.pause(paused)

    def overflow(self, code: int = 25) -> int:
        """End every book subscription with that error, 25 or 10. Returns how many there were."""
        return sum(session.overflow(code) for session in self._sessions())

    # -- requests

    def _check(self, request: web.Request, *, needed: bool) -> str | None:
        """The key of a signed request. Raises Refused with 401 for a bad signature, or for none where one is needed."""
        headers = request.headers
        if not needed and not any(name in headers for name in (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)):
            return None
        return self.keys.check(request.method, request.raw_path.partition("?")[0], headers)

    def _public(self, handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = self._check(request, needed=False)
            who = (request.remote or "") if key is None else self.accounts.of_key(key).user_id
            self.limits.spend(key is not None, who)
            return answer(await handler(request))

        return handle

    def _member(self, request: web.Request, *scopes: str) -> Account:
        """Whose signed request it is. Raises Refused with 401, or with 403 for a key without any of the scopes."""
        key_id = self._check(request, needed=True) or ""
        account = self.accounts.of_key(key_id)
        if not set(scopes).intersection(self.accounts.scopes_of(key_id)):
            raise refuse(403, "forbidden", f"the key needs the scope {' or '.join(scopes)}")
        if self.faults.take("timestamp_expired"):
            raise unauthorized("header_timestamp_expired", "the timestamp is too far from the time of the exchange")
        return account

    def _read(self, handler: Read, cost: int) -> Handler:
        on_balance = handler == self.portfolio.balance

        async def handle(request: web.Request) -> web.StreamResponse:
            account = self._member(request, "read", *(["read::portfolio_balance"] if on_balance else []))
            self.limits.spend(True, account.user_id, cost)
            return answer(await handler(request, account))

        return handle

    def _write(self, handler: Mutation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            transfer = "intra_exchange" in request.path
            account = self._member(request, "write", "write::transfer" if transfer else "write::trade")
            await request.read()  # all of it is here before anything happens: a write has no awaits in its middle
            return await self.mishaps.run(request, lambda: handler(request, account))

        return handle

    def _watch_expiry(self, order: OrderRecord) -> None:
        expires_s = order.expires_s
        if expires_s is not None:
            self.spawn(self._expire(order, expires_s), f"expiry of order {order.number}")

    async def _expire(self, order: OrderRecord, expires_s: int) -> None:
        while (left := expires_s * 1000 - self.clock.now_ms()) > 0:
            await self.clock.sleep(left / 1000)
        if order.expires_s == expires_s:
            self.exchange.expire(order)

    async def _gone(self, request: web.Request, account: Account) -> object:
        raise refuse(410, "deprecated_v1_order_endpoint", _V2_DOCS, "Please switch to the V2 endpoints")

    async def _not_built_signed(self, request: web.Request, account: Account) -> object:
        return await self._not_built(request)

    async def _not_built(self, request: web.Request) -> object:
        raise refuse(501, "not_implemented", f"{request.path} is not built in this local venue")

    async def _account_limits(self, request: web.Request, account: Account) -> object:
        bucket = {"refill_rate": int(self.limits.refill), "bucket_capacity": int(self.limits.capacity)}
        write = {"refill_rate": int(self.writes.refill), "bucket_capacity": int(self.writes.capacity)}
        return {"usage_tier": "basic", "read": bucket, "write": write, "grants": []}

    async def _endpoint_costs(self, request: web.Request) -> object:
        exceptions = [{"method": method, "path": path, "cost": cost} for method, path, cost in EXCEPTIONS]
        return {"default_cost": COST, "endpoint_costs": exceptions}

    def _session(self, server: Server, request: web.Request) -> SocketSession:
        key = self._check(request, needed=True)
        return KalshiSession(server, request, self, key or "")

    def _sessions(self) -> list[KalshiSession]:
        return [session for session in self.server.sessions if isinstance(session, KalshiSession)]
