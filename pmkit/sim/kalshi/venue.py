"""The local Kalshi on one port: REST, the signed socket, and the life of its markets."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import web

from pmkit.clock import Clock
from pmkit.endpoints import KalshiEndpoints
from pmkit.sim.kalshi.auth import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Keys, VenueKey
from pmkit.sim.kalshi.catalog import CatalogRest
from pmkit.sim.kalshi.errors import error_body, refuse
from pmkit.sim.kalshi.feed import Feed
from pmkit.sim.kalshi.life import Life
from pmkit.sim.kalshi.limits import COST, ReadLimits
from pmkit.sim.kalshi.market import LiveMarket, Stats, Trade, market_id, market_object
from pmkit.sim.kalshi.messages import ticker_message
from pmkit.sim.kalshi.rest import MarketRest
from pmkit.sim.kalshi.streams import KalshiSession
from pmkit.sim.kalshi.windows import Calendar, Window, index_of, parse, series_of
from pmkit.sim.server import Handler, Server, SocketSession, Venue, answer
from pmkit.sim.traders import STEPS_PER_WALL_SECOND
from pmkit.sim.world import World

ROOT = "/trade-api/v2"
SOCKET = "/trade-api/ws/v2"
# Public paths of the real venue that are not here: a 404 would look like a market that does not exist.
_NOT_BUILT = (
    "/markets/candlesticks",
    "/series/{series}/markets/{ticker}/candlesticks",
    "/series/{series}/events/{ticker}/candlesticks",
    "/series/fee_changes",
    "/events/fee_changes",
    "/events/multivariate",
    "/exchange/user_data_timestamp",
    "/historical/{rest:.*}",
    "/live_data/{rest:.*}",
    "/cfbenchmarks/{rest:.*}",
    "/milestones",
)
_V2_DOCS = "https://docs.kalshi.com/api-reference/orders/create-order-v2"


class KalshiVenue(Venue):
    """Fifteen-minute markets on every asset of the World.

    `key` is a throwaway key that signs; `keys.make("rsa")` makes further ones. Scripted beside `faults`: `pause`,
    `overflow`, `faults.arm("skip_delta")`, `faults.arm("duplicate_frame")`, `calendar.missing`, `calendar.late`,
    `markets.lag_ms`, `limits`.
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
        self.limits = ReadLimits(clock)
        self._feed = Feed(clock, self._sessions)
        self._life = Life(world, clock, self.calendar, self._feed, self.spawn, steps_per_wall_second)
        self.markets = MarketRest(self)
        self.server = self.add_server("kalshi", port, error_body=error_body)
        for path in _NOT_BUILT:
            self.server.get(ROOT + path, self._public(self._not_built))
        for path, handler in (self.markets.routes() | CatalogRest(self).routes()).items():
            self.server.get(ROOT + path, self._public(handler))
        self.server.get(f"{ROOT}/account/limits", self._signed(self._account_limits))
        self.server.get(f"{ROOT}/account/endpoint_costs", self._public(self._endpoint_costs))
        for path in ("", "/batched", "/{order_id}", "/{order_id}/amend", "/{order_id}/decrease"):
            for method in (self.server.post, self.server.delete):
                method(f"{ROOT}/portfolio/orders{path}", self._signed(self._gone))
        self.server.any(f"{ROOT}/portfolio/{{rest:.*}}", self._signed(self._no_orders))
        self.server.socket(SOCKET, self._session)

    def endpoints(self) -> KalshiEndpoints:
        """Where this venue is."""
        return KalshiEndpoints(rest=self.server.url(ROOT), ws=self.server.url(SOCKET, "ws"))

    async def start(self) -> None:
        await super().start()
        self._life.start()
        self.spawn(self._feed.index(self.calendar, self.world.assets), "index values")

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

    def overflow(self) -> int:
        """End every book subscription with error 25. Returns how many there were."""
        return sum(session.overflow() for session in self._sessions())

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
            self.limits.spend(key is not None, key or request.remote or "")
            return answer(await handler(request))

        return handle

    def _signed(self, handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = self._check(request, needed=True)
            self.limits.spend(True, key or "")
            return answer(await handler(request))

        return handle

    async def _gone(self, request: web.Request) -> object:
        raise refuse(410, "deprecated_v1_order_endpoint", _V2_DOCS, "Please switch to the V2 endpoints")

    async def _no_orders(self, request: web.Request) -> object:
        raise refuse(503, "exchange_unavailable", "order entry and portfolio are not built in this local venue yet")

    async def _not_built(self, request: web.Request) -> object:
        raise refuse(501, "not_implemented", f"{request.path} is not built in this local venue")

    async def _account_limits(self, request: web.Request) -> object:
        bucket = {"refill_rate": int(self.limits.refill), "bucket_capacity": int(self.limits.capacity)}
        write = {"refill_rate": 100, "bucket_capacity": 100}
        return {"usage_tier": "basic", "read": bucket, "write": write, "grants": []}

    async def _endpoint_costs(self, request: web.Request) -> object:
        return {"default_cost": COST, "endpoint_costs": []}

    def _session(self, server: Server, request: web.Request) -> SocketSession:
        key = self._check(request, needed=True)
        return KalshiSession(server, request, self, key or "")

    def _sessions(self) -> list[KalshiSession]:
        return [session for session in self.server.sessions if isinstance(session, KalshiSession)]
