"""Two local venues of one seed in one virtual time: on one the orders are live, on the other they are dry-run.

What makes them comparable:

* The background traders of the dry-run's venue do what they always do. On the live venue the same orders of theirs
  arrive at the same moments (`scripted`), whatever stands there; or the live venue has traders of its own who draw the
  same numbers and see the live order (`reacting`).
* A live order changes its venue, a dry-run order does not. After each trial the books of the live venue are made those
  of the other again (`heal`): every order is judged on the market that it would have met.
* An order takes `LATENCY` to a venue, and a book as long to come back. A dry-run that waits for both, and then looks
  at its book, sees the book that the live order met.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from pmkit.clock import Entropy
from pmkit.config.secret import Secret
from pmkit.exchanges.base import BaseExchange, MarketData
from pmkit.exchanges.kalshi.auth import HandshakeSigner, Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.market import Market
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.paper.queue import QueueModel
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData
from pmkit.exchanges.types import Fill
from pmkit.sim.engine import MatchingEngine, Side
from pmkit.sim.traders import MAKERS, Traders
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock

START_MS = 1_795_176_030_000  # half a minute into a window; a Friday: Kalshi rests on Thursdays
LATENCY = 0.005
STAKE = Decimal(10_000)
VENUES = ("polymarket", "kalshi")


@dataclass(slots=True)
class Party:
    """One of the two: an exchange, and the fills it told of, by order id."""

    exchange: BaseExchange
    fills: dict[str, list[Fill]] = field(default_factory=dict)

    def take(self, fill: Fill) -> None:
        rows = self.fills.setdefault(fill.order_id, [])
        if all(row.fill_id != fill.fill_id for row in rows):
            rows.append(fill)


class Flow:
    """The background orders of one market, on both venues. `step` is one of them."""

    def __init__(self, name: str, live: object, dry: object, reacting: bool) -> None:
        self.live: MatchingEngine = live.engine  # type: ignore[attr-defined]
        self.dry: MatchingEngine = dry.engine  # type: ignore[attr-defined]
        self.steps = 0
        self.healed = 0
        self.killed = 0
        self._name = name
        self._reacting = reacting
        self._traders: tuple[Traders, Traders] = (live.traders, dry.traders)  # type: ignore[attr-defined]
        self._ops: list[tuple] = []
        for traders in self._traders:
            traders.resting = True
        self._listen()

    def _listen(self) -> None:
        """Write down what the traders of the dry-run's venue do."""
        engine, ops = self.dry, self._ops
        submit, cancel, cancel_all = engine.submit, engine.cancel, engine.cancel_all

        def submitted(*args, **more):
            made = submit(*args, **more)
            ops.append(("submit", args, {**more, "order_id": made.order_id}))
            return made

        def cancelled(order_id):
            ops.append(("cancel", order_id))
            return cancel(order_id)

        def all_cancelled(owner=None):
            ops.extend(("cancel", order.order_id) for order in engine.orders(owner))
            return cancel_all(owner)

        engine.submit, engine.cancel, engine.cancel_all = submitted, cancelled, all_cancelled  # type: ignore[method-assign]

    def step(self) -> None:
        self.steps += 1
        live, dry = self._traders
        dry._entropy = Entropy(f"{self._name} {self.steps}")
        self._ops.clear()
        dry.step()
        if self._reacting:
            live._entropy = Entropy(f"{self._name} {self.steps}")
            live.step()
            return
        for op in self._ops:
            if op[0] == "cancel":
                self.live.cancel(op[1])
            else:
                made = self.live.submit(*op[1], **op[2])
                self.killed += made.killed is not None and op[2].get("post_only", False)

    def heal(self) -> None:
        """Make the live book that of the other venue, order by order, where it differs. Own orders stay."""
        missing = []
        for side in Side:
            live, dry = self.live._halves[side], self.dry._halves[side]
            for price in {*live.queues, *dry.queues}:
                others = [order for order in live.queues.get(price, {}).values() if order.owner in MAKERS]
                here = [(order.order_id, order.size) for order in others]
                there = [(order.order_id, order.size) for order in dry.queues.get(price, {}).values()]
                if here == there:
                    continue
                self.healed += 1
                for order_id, _ in here:
                    self.live.cancel(order_id)
                missing += list(dry.queues.get(price, {}).values())
        for order in missing:
            self.live.submit(order.owner, order.side, order.price, order.size, order_id=order.order_id)

    def equal(self) -> bool:
        return all(self.live.levels(side) == self.dry.levels(side) for side in Side)


class Twins:
    """Both worlds: `live[venue]`, and `papers[venue][model]` on `data[venue]`."""

    def __init__(self, seed: int, assets: Sequence[str], clock: VirtualClock, *, reacting: bool, pace: float) -> None:
        self.seed = seed
        self.clock = clock
        self.assets = tuple(assets)
        self.reacting = reacting
        self.pace = pace
        self.worlds = [
            LocalVenues(seed=seed, assets=self.assets, clock=clock, steps_per_wall_second=1.0) for _ in range(2)
        ]
        self.live: dict[str, Party] = {}
        self.papers: dict[str, dict[QueueModel, Party]] = {}
        self.data: dict[str, MarketData] = {}
        self._flows: dict[tuple[str, str], Flow] = {}
        self._now: dict[tuple[str, str], tuple[Market, Market, Flow]] = {}
        self._tasks: list[asyncio.Task] = []

    async def open(self) -> None:
        live, dry = self.worlds
        await live.start()
        await dry.start()
        account = live.polymarket_account
        self.live = {
            "polymarket": Party(
                PolymarketExchange(
                    live.endpoints,
                    self.clock,
                    private_key=Secret(account.private_key),
                    funder=account.funder,
                    signature_type=account.signature_type,
                )
            ),
            "kalshi": Party(
                KalshiExchange(
                    live.endpoints, self.clock, signer=Signer.from_key(live.kalshi_key.id, live.kalshi_key.pem)
                )
            ),
        }
        signer = HandshakeSigner.from_key(dry.kalshi_key.id, dry.kalshi_key.pem)
        self.data = {
            "polymarket": PolymarketMarketData(dry.endpoints, self.clock),
            "kalshi": KalshiMarketData(dry.endpoints, self.clock, signer=signer),
        }
        for venue, data in self.data.items():
            self.papers[venue] = {
                model: Party(PaperExchange(data, balance=STAKE, queue=model, latency_ms=round(2000 * LATENCY)))
                for model in QueueModel
            }
        for side in [*self.live.values(), *(side for sides in self.papers.values() for side in sides.values())]:
            await side.exchange.subscribe_fills(side.take)
            await side.exchange.keep_warm()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for side in [*self.live.values(), *(side for sides in self.papers.values() for side in sides.values())]:
            await side.exchange.close()
        for world in self.worlds:
            await world.close()

    async def market(self, venue: str, asset: str) -> tuple[Market, Market, Flow]:
        """The current market as the live and the dry-run side know it, their books live, their flow running."""
        known = self._now.get((venue, asset))
        if known is not None and known[0].close_ms > self.clock.now_ms():
            return known
        pair = []
        for exchange in (self.live[venue].exchange, self.data[venue]):
            found = await exchange.finder().get_current_market(asset)
            assert isinstance(found, Market), found
            await exchange.subscribe_orderbook([found], lambda book: None)
            pair.append(found)
        live, dry = (self._venue_market(world, venue, pair[0].market_id) for world in self.worlds)
        key = (venue, pair[0].market_id)
        if key not in self._flows:
            flow = self._flows[key] = Flow(f"{self.seed} {venue} {pair[0].market_id}", live, dry, self.reacting)
            flow.heal()
            self._tasks.append(asyncio.create_task(self._run(flow, pair[0].close_ms, Entropy(f"pace {flow._name}"))))
            await self.clock.io_sleep(0.5)
        self._now[venue, asset] = pair[0], pair[1], self._flows[key]
        return self._now[venue, asset]

    async def _run(self, flow: Flow, close_ms: int, entropy: Entropy) -> None:
        while True:
            await self.clock.io_sleep(entropy.uniform(0.6, 1.4) / self.pace)
            if self.clock.now_ms() >= close_ms - 50:
                return
            flow.step()

    @staticmethod
    def _venue_market(world: LocalVenues, venue: str, market_id: str) -> object:
        if venue == "polymarket":
            return world.polymarket.live[market_id]
        return world.kalshi.live(market_id)


@asynccontextmanager
async def twins(seed: int, assets: Sequence[str], *, reacting: bool = False, pace: float = 3.0) -> AsyncIterator[Twins]:
    """Both worlds, started; inside a `VirtualLoop` of latency LATENCY and no jitter."""
    both = Twins(seed, assets, VirtualClock(START_MS, Entropy(seed)), reacting=reacting, pace=pace)
    try:
        await both.open()
        yield both
    finally:
        await both.close()
    assert [failure for world in both.worlds for failure in world.failures] == []
