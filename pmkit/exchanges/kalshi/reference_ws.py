"""The settlement index of each coin, tick by tick, and the settlement average as it forms.

A connection of its own: the index ticks about once a second, so that its silence is a fault long before that of a quiet
book is. Each window settles on the average of the last 60 ticks up to its close, which is the next window's strike.
Source: Kalshi, "CF Benchmarks values"; kalshi.md 4.3 and 6.6.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from pmkit.clock import Clock
from pmkit.errors import AuthError, ConfigError, PmkitError, VenueUnavailable
from pmkit.exchanges.base import Callback, asset_names
from pmkit.exchanges.kalshi.auth import HandshakeSigner
from pmkit.exchanges.kalshi.messages import (
    ENDED_CODES,
    IGNORED_TYPES,
    INDEX,
    KNOWN_TYPES,
    ErrorFrame,
    IndexAverage,
    IndexFrame,
    IndexValue,
    SubscribedFrame,
    decode_envelope,
    decode_frame,
    decode_index_tick,
    subscribe,
    update_indices,
)
from pmkit.exchanges.kalshi.signed_ws import SignedSocket
from pmkit.exchanges.kalshi.types import WINDOW_MS, KalshiMarket, KalshiReference
from pmkit.exchanges.types import NoMarket, ReferencePrice
from pmkit.streams import Policy, Subscription
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import FrameError
from pmkit.websocket.deadlines import FIRST_SNAPSHOT, KALSHI_REFERENCE
from pmkit.websocket.failures import printable

_ASSET: Final = re.compile(r"[A-Z0-9]{2,12}").fullmatch
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
_LOOK_SECONDS: Final = 1.0
_MIN_LOOK_WALL_SECONDS: Final = 0.25
_LOG = logging.getLogger("pmkit.kalshi")


def index_of(asset: str) -> str:
    """The CF Benchmarks index that an asset's windows settle on. Raises ConfigError for what is no asset."""
    if not _ASSET(asset):
        raise ConfigError(f"{ascii(asset)[:20]} is no asset: it looks like BTC")
    return "BRTI" if asset == "BTC" else f"{asset}USD_RTI"


class IndexSocket(SignedSocket[str]):
    """One connection for index values. Keys are index ids; `on_value(value, received_ns)` gets every tick.

    `refused` is what the venue said to the last subscription that it did not take, "" where it took all.
    """

    public = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        *,
        venue_clock: VenueClock,
        compression: bool,
        on_value: Callable[[IndexValue, int], object],
        measure: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(
            url,
            clock,
            signer,
            venue_clock=venue_clock,
            measure=measure,
            name="kalshi index",
            deadline=KALSHI_REFERENCE,
            compression=compression,
        )
        self.refused = ""
        self._on_value = on_value
        self._ids = 0
        self._sid: int | None = None

    def _on_connect(self) -> None:
        self._sid = None

    def _subscribe_frames(self, keys: Sequence[str], first: bool) -> Sequence[str | bytes]:
        # The same command again adds to the subscription that is there (kalshi.md 6.2).
        self._ids += 1
        return [subscribe(self._ids, INDEX, keys)] if keys else []

    def _unsubscribe_frames(self, keys: Sequence[str]) -> Sequence[str | bytes]:
        self._ids += 1
        return [] if self._sid is None else [update_indices(self._ids, self._sid, "unsubscribe_indices", keys)]

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            frame = decode_frame(data)
        except _UNREADABLE as error:
            self._odd(data, error)
            return False
        if isinstance(frame, IndexFrame):
            self._on_value(frame.msg, received_ns)
            return True
        if isinstance(frame, SubscribedFrame):
            self._sid = frame.msg.sid
            self.refused = ""
        elif isinstance(frame, ErrorFrame):
            text = f"code {frame.msg.code}: {printable(frame.msg.msg, 100)}"
            _LOG.warning("kalshi: the index stream says %s", text)
            if frame.msg.code in ENDED_CODES:
                self.drop(f"the index subscription has ended ({text})")
            else:
                self.refused = text
        return False

    def _odd(self, data: bytes, error: Exception) -> None:
        try:
            kind = decode_envelope(data).type
        except _UNREADABLE:
            raise FrameError("not a frame of Kalshi's") from error
        if kind in KNOWN_TYPES:
            raise FrameError(f"a {kind} frame that does not fit") from error
        if kind not in IGNORED_TYPES:
            self.count_unknown(kind)


class _Asset:
    """What is known of one asset, and who looks for the strike of which window."""

    __slots__ = ("last", "looking", "strike", "window")

    def __init__(self) -> None:
        self.last: KalshiReference | None = None
        self.window = 0
        self.strike: Decimal | None = None
        self.looking: asyncio.Task[None] | None = None


class IndexPrices:
    """Reference prices for any number of subscribers. `odd` counts ticks that could not be read.

    `current(asset)` gives the running window, whose strike the venue writes into the market a moment after its open.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        signer: HandshakeSigner,
        venue_clock: VenueClock,
        *,
        compression: bool,
        current: Callable[[str], Awaitable[KalshiMarket | NoMarket]],
        measure: Callable[[], Awaitable[object]],
    ) -> None:
        self.odd = 0
        self._clock = clock
        self._current = current
        self._measure = measure
        self._assets: dict[str, _Asset] = {}
        self._names: dict[str, str] = {}
        self._readers: list[tuple[Subscription[ReferencePrice], frozenset[str]]] = []
        self.socket = IndexSocket(
            url,
            clock,
            signer,
            venue_clock=venue_clock,
            compression=compression,
            on_value=self._on_value,
            measure=measure,
        )

    async def subscribe(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """The state of each asset after every tick. Returns with the first tick of each.

        Raises ConfigError for what is no asset, AuthError where the venue refuses the key, VenueUnavailable where no
        tick comes.
        """
        index_ids = {index_of(asset): asset for asset in asset_names(assets)}
        stream: Subscription[ReferencePrice] = Subscription(
            "kalshi reference",
            self._clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_asset_name,
            on_close=self._leave,
        )
        self._names.update(index_ids)
        self._readers.append((stream, frozenset(index_ids.values())))
        try:
            await self._measure()  # the handshake is stamped with the venue's time
            await self.socket.start()
            await self.socket.want(list(index_ids))
            await self._first([self._assets.setdefault(asset, _Asset()) for asset in index_ids.values()])
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _first(self, states: Sequence[_Asset]) -> None:
        deadline = self._clock.io_monotonic() + FIRST_SNAPSHOT
        while any(state.last is None for state in states):
            socket = self.socket
            if socket.stats.blocked:
                raise AuthError(
                    f"{socket.host} refuses the socket ({socket.stats.blocked}): check the key, its environment (demo "
                    "or production) and this machine's clock"
                )
            if self._clock.io_monotonic() >= deadline:
                missing = [asset for asset, state in self._assets.items() if state in states and state.last is None]
                why = socket.refused or socket.stats.last_reason or "nothing came"
                raise VenueUnavailable(
                    f"no index of {', '.join(missing)} from {socket.host} within {FIRST_SNAPSHOT:g} s ({why})"
                )
            await self._clock.io_sleep(0.02)

    def reference(self, asset: str) -> KalshiReference | None:
        """The latest state of an asset; None before its first tick."""
        state = self._assets.get(asset.upper())
        return None if state is None else state.last

    async def close(self) -> None:
        """End everything, within a second. May be called twice."""
        tasks = [state.looking for state in self._assets.values() if state.looking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self.socket.close(), *tasks, return_exceptions=True)
        for stream, _ in tuple(self._readers):
            await stream.close()

    async def _leave(self, closed: Subscription[Any]) -> None:
        self._readers = [(stream, names) for stream, names in self._readers if stream is not closed]
        read = {asset for _, names in self._readers for asset in names}
        gone = [index for index, asset in self._names.items() if asset not in read]
        for index in gone:
            state = self._assets.pop(self._names.pop(index), None)
            if state is not None and state.looking is not None:
                state.looking.cancel()
        try:
            await self.socket.unwant(gone)
        except PmkitError as error:
            _LOG.debug("%s: %s", self.socket.name, error)

    # Ticks.

    def _on_value(self, value: IndexValue, received_ns: int) -> None:
        asset = self._names.get(value.index_id)
        state = self._assets.get(asset or "")
        if asset is None or state is None:
            return
        try:
            tick = decode_index_tick(value.data)
        except _UNREADABLE as error:
            self.odd += 1
            raise FrameError(f"a value of {printable(value.index_id, 20)} that cannot be read") from error
        if not (tick.value.is_finite() and tick.value > 0) or tick.time <= 0:
            self.odd += 1
            raise FrameError(f"a value of {printable(value.index_id, 20)} that cannot be")
        if state.last is not None and tick.time < state.last.venue_ms:
            return  # late
        self._look(asset, state, tick.time)
        trailing, forming = _sound(value.avg_60s_data), _sound(value.last_60s_windowed_average_15min)
        state.last = KalshiReference(
            asset=asset,
            price=tick.value,
            average=None if trailing is None else trailing.value,
            strike=state.strike,
            settlement=None if forming is None else forming.value,
            settlement_ticks=0 if forming is None else forming.window_size,
            venue_ms=tick.time,
            received_ns=received_ns,
        )
        for stream, names in tuple(self._readers):
            if asset in names:
                stream.publish(state.last)

    # The strike.

    def _look(self, asset: str, state: _Asset, venue_ms: int) -> None:
        window = venue_ms // WINDOW_MS
        if window != state.window:
            state.window, state.strike = window, None
            if state.looking is not None:
                state.looking.cancel()
            state.looking = asyncio.get_running_loop().create_task(
                self._find_strike(asset, state, window), name="pmkit kalshi strike"
            )

    async def _find_strike(self, asset: str, state: _Asset, window: int) -> None:
        """Ask until the running window has its strike; a window may end without one (kalshi.md 4.4)."""
        wait = max(_LOOK_SECONDS / self._clock.factor, _MIN_LOOK_WALL_SECONDS)
        while True:
            try:
                market = await self._current(asset)
                if isinstance(market, KalshiMarket) and market.open_ms // WINDOW_MS == window:
                    state.strike = market.strike
            except PmkitError as error:
                _LOG.debug("kalshi: the strike of %s could not be read: %s", asset, error)
            if state.strike is not None:
                return
            await self._clock.io_sleep(wait)
            wait = min(wait * 2, 15.0)


def _sound(average: IndexAverage | None) -> IndexAverage | None:
    return average if average is not None and average.value.is_finite() and average.value > 0 else None


def _asset_name(reference: ReferencePrice) -> str:
    return reference.asset
