"""All local venues together, each on free loopback ports: `async with LocalVenues(seed=7, factor=45.0) as venues`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from zoneinfo import ZoneInfo

from pmkit.clock import Clock, ScaledClock, SystemClock, to_ms, to_utc
from pmkit.endpoints import Endpoints, Where
from pmkit.errors import ConfigError
from pmkit.sim.traders import STEPS_PER_WALL_SECOND
from pmkit.sim.world import INTERVALS_MS, World

if TYPE_CHECKING:
    from pmkit.sim.binance.venue import BinanceVenue
    from pmkit.sim.kalshi.auth import VenueKey
    from pmkit.sim.kalshi.venue import KalshiVenue
    from pmkit.sim.polymarket.accounts import TestAccount
    from pmkit.sim.polymarket.venue import PolymarketVenue

PORTS = ("binance", "kalshi", "polymarket_clob", "polymarket_gamma", "polymarket_data")

_NEW_YORK = ZoneInfo("America/New_York")
_THURSDAY = 3


def clock_for(
    factor: float, first_boundary_wall_seconds: float | None, wall: Clock, start: datetime | None = None
) -> Clock:
    """The market clock of local venues.

    Market time starts at `start`, else without a wish for the first boundary at the wall's date. With one it starts so
    long before a 15-minute boundary that the boundary comes after that many wall seconds; a start inside Kalshi's
    Thursday maintenance (or within half an hour of it) is moved six hours on, since no window would follow.
    """
    now = wall.now_ms()
    if start is not None:
        if first_boundary_wall_seconds is not None:
            raise ConfigError("start and first_boundary_wall_seconds both say when market time starts: give one")
        if start.tzinfo is None:
            raise ConfigError(f"start must be an aware datetime (with a time zone), not {start}")
        return ScaledClock(now, factor, start)
    if first_boundary_wall_seconds is None:
        return SystemClock() if factor == 1.0 else ScaledClock(now, factor, now)
    if first_boundary_wall_seconds < 0:
        raise ConfigError(f"first_boundary_wall_seconds must not be negative: {first_boundary_wall_seconds}")
    length = INTERVALS_MS["15m"]
    lead = round(first_boundary_wall_seconds * factor * 1000)
    begin = -(-(now + lead) // length) * length - lead
    local = to_utc(begin).astimezone(_NEW_YORK)
    if local.weekday() == _THURSDAY and 2 * 60 + 30 <= local.hour * 60 + local.minute < 5 * 60 + 30:
        begin = to_ms(to_utc(begin) + timedelta(hours=6))
    return ScaledClock(now, factor, begin)


def _clock_text(clock: Clock) -> str:
    try:
        return clock.text()
    except ValueError:
        # A clock that only this process can tell; `Endpoints.make_clock` refuses the word, so nobody takes another one.
        return "manual"


class LocalVenues:
    """Binance, Polymarket and Kalshi on this machine, on one seeded world and one clock.

    `factor` is how much faster than the wall market time passes; `first_boundary_wall_seconds` moves the start of
    market time so that the first 15-minute boundary comes that soon; `clock` replaces both. `ports` gives fixed ports
    by the names in PORTS (0 or absent: any free one). `start` (aware) is where market time starts; `binance_days` are
    bulk files of real days that Binance serves as they are (`BinanceVenue.load_day`, a quarter of a second each).
    `contracts` (tests/data/chain of the repository) puts Polymarket's chain and relayer beside them; needs py-evm.
    `steps_per_wall_second` is the pace of the background traders of each market. Raises ConfigError for a
    bad setting or a taken port.
    """

    def __init__(
        self,
        *,
        seed: int = 7,
        factor: float = 1.0,
        assets: Sequence[str] = ("BTC", "ETH", "SOL", "XRP"),
        first_boundary_wall_seconds: float | None = None,
        ports: Mapping[str, int] | None = None,
        clock: Clock | None = None,
        start: datetime | None = None,
        binance_days: Sequence[str | Path] = (),
        steps_per_wall_second: float = STEPS_PER_WALL_SECOND,
        contracts: str | Path | None = None,
    ) -> None:
        ports = dict(ports or {})
        if unknown := sorted(set(ports) - set(PORTS)):
            raise ConfigError(f"the local venues have no port {', '.join(unknown)}; they have {', '.join(PORTS)}")
        if not factor > 0:
            raise ConfigError(f"the clock factor of the local venues must be above 0, not {factor!r}")
        try:
            from pmkit.sim.binance.venue import BinanceVenue
            from pmkit.sim.kalshi.venue import KalshiVenue
            from pmkit.sim.polymarket.venue import PolymarketVenue
        except ModuleNotFoundError as error:
            if error.name != "aiohttp":
                raise
            raise ConfigError("the local venues need aiohttp, the extra pmkit[sim]: pip install 'aiohttp<4'") from error
        self.clock = clock or clock_for(factor, first_boundary_wall_seconds, SystemClock(), start)
        self.world = World(seed, self.clock, assets)
        self.binance: BinanceVenue = BinanceVenue(self.world, self.clock, port=ports.get("binance", 0))
        for path in binance_days:
            self.binance.load_day(path)
        self.kalshi: KalshiVenue = KalshiVenue(
            self.world, self.clock, port=ports.get("kalshi", 0), steps_per_wall_second=steps_per_wall_second
        )
        self.polymarket: PolymarketVenue = PolymarketVenue(
            self.world,
            self.clock,
            clob_port=ports.get("polymarket_clob", 0),
            gamma_port=ports.get("polymarket_gamma", 0),
            data_port=ports.get("polymarket_data", 0),
            steps_per_wall_second=steps_per_wall_second,
            contracts=None if contracts is None else Path(contracts),
        )
        self._endpoints: Endpoints | None = None

    @property
    def venues(self) -> tuple[BinanceVenue, KalshiVenue, PolymarketVenue]:
        return (self.binance, self.kalshi, self.polymarket)

    @property
    def endpoints(self) -> Endpoints:
        """Where they are. Raises RuntimeError before `start`."""
        if self._endpoints is None:
            raise RuntimeError("the local venues have no addresses before start()")
        return self._endpoints

    @property
    def kalshi_key(self) -> VenueKey:
        """A throwaway key that the local Kalshi accepts: `id` and `pem`."""
        return self.kalshi.key

    @property
    def polymarket_account(self) -> TestAccount:
        """A funded account of the local Polymarket, a plain key (signature type 0)."""
        return self.polymarket.test_accounts[0]

    @property
    def polymarket_accounts(self) -> dict[int, TestAccount]:
        """One funded account per signature type: 0 plain key, 1 proxy, 2 Safe, 3 deposit wallet."""
        return self.polymarket.test_accounts

    @property
    def failures(self) -> list[str]:
        """Everything unexpected that happened inside the venues; must stay empty."""
        return [failure for venue in self.venues for failure in venue.failures]

    async def start(self) -> None:
        try:
            for venue in self.venues:
                await venue.start()
        except BaseException:
            await self.close()
            raise
        self._endpoints = Endpoints(
            where=Where.LOCAL,
            binance=self.binance.endpoints(),
            polymarket=self.polymarket.endpoints(),
            kalshi=self.kalshi.endpoints(),
            clock=_clock_text(self.clock),
        )

    async def close(self) -> None:
        """End within a second. Idempotent."""
        await asyncio.gather(*(venue.close() for venue in self.venues))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
