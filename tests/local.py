"""The local venues and exchanges on them, for tests of bots and clients: in virtual time where the loop is of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from typing import Any

import pytest

from pmkit.clock import Clock, Entropy
from pmkit.config.secret import Secret
from pmkit.endpoints import Endpoints
from pmkit.exchanges.base import BaseExchange
from pmkit.exchanges.kalshi.auth import HandshakeSigner, Signer
from pmkit.exchanges.kalshi.client import KalshiExchange
from pmkit.exchanges.kalshi.market_data import KalshiMarketData
from pmkit.exchanges.paper.exchange import PaperExchange
from pmkit.exchanges.polymarket.client import PolymarketExchange
from pmkit.exchanges.polymarket.market_data import PolymarketMarketData

pytest.importorskip("aiohttp", reason="the local venues need the extra pmkit[sim]")

from pmkit.sim.polymarket.accounts import TestAccount
from pmkit.sim.venues import LocalVenues
from pmkit.sim.virtual import VirtualClock, VirtualLoop

BOUNDARY_MS = 1_795_176_900_000  # 2026-11-20 12:15 UTC, a Friday: Kalshi rests on Thursdays
VENUES = ("polymarket", "kalshi")


def local_venues(
    *, seed: int = 7, factor: float = 1.0, assets: Sequence[str] = ("BTC",), boundary: float = 45.0, **options: Any
) -> LocalVenues:
    """`boundary` seconds of the loop's time before the first window ends."""
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        return LocalVenues(seed=seed, factor=factor, assets=assets, first_boundary_wall_seconds=boundary, **options)
    clock = VirtualClock(BOUNDARY_MS - round(boundary * factor * 1000), Entropy(seed), factor=factor)
    return LocalVenues(seed=seed, assets=assets, clock=clock, **options)


def clock_of(venues: LocalVenues) -> Clock:
    """For a client of these venues: their time, entropy of its own."""
    if not isinstance(venues.clock, VirtualClock):
        return venues.endpoints.make_clock(Entropy())
    clock = copy(venues.clock)
    clock.entropy = Entropy(str(venues.clock.entropy.random()))
    return clock


def polymarket_exchange(
    venues: LocalVenues,
    clock: Clock | None = None,
    *,
    account: TestAccount | None = None,
    endpoints: Endpoints | None = None,
    **options: Any,
) -> PolymarketExchange:
    """Logged in as this account, the plain key unless told otherwise."""
    test = account or venues.polymarket_account
    options = {"signature_type": test.signature_type, "funder": test.funder} | options
    return PolymarketExchange(
        endpoints or venues.endpoints, clock or clock_of(venues), private_key=Secret(test.private_key), **options
    )


def kalshi_exchange(
    venues: LocalVenues,
    clock: Clock | None = None,
    *,
    signer: Signer | None = None,
    endpoints: Endpoints | None = None,
    **options: Any,
) -> KalshiExchange:
    """Logged in as the one member there is."""
    key = venues.kalshi_key
    return KalshiExchange(
        endpoints or venues.endpoints,
        clock or clock_of(venues),
        signer=signer or Signer.from_key(key.id, key.pem),
        **options,
    )


def listener(venues: LocalVenues) -> HandshakeSigner:
    """What a dry-run on Kalshi's sockets needs, and all it may have."""
    return HandshakeSigner.from_key(venues.kalshi_key.id, venues.kalshi_key.pem)


def exchange_on(
    venue: str, venues: LocalVenues, clock: Clock, *, live: bool, endpoints: Endpoints | None = None
) -> BaseExchange:
    """What a bot trades with: the account, or a dry-run with the same data."""
    if live:
        make = polymarket_exchange if venue == "polymarket" else kalshi_exchange
        return make(venues, clock, endpoints=endpoints)
    where = endpoints or venues.endpoints
    if venue == "polymarket":
        return PaperExchange(PolymarketMarketData(where, clock))
    return PaperExchange(KalshiMarketData(where, clock, signer=listener(venues)))


def exchanges_on(venues: LocalVenues, clock: Clock, *, live: bool) -> list[BaseExchange]:
    return [exchange_on(venue, venues, clock, live=live) for venue in VENUES]
