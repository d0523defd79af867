"""Live prices: the settlement index of each asset and its 60 s average, the strike at the open of each window.

Up/Down windows settle on the average at their two ends: the tick of the average that is stamped exactly with the open
is the price to beat. A new subscription brings the last two minutes, so that a late starter sees it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from pmkit.clock import Clock
from pmkit.endpoints import require_safe
from pmkit.errors import AuthError, NotSent, PmkitError, ProtocolChanged, VenueUnavailable
from pmkit.exchanges.base import Callback, asset_names
from pmkit.exchanges.polymarket.auth import HandshakeSigner
from pmkit.exchanges.polymarket.reference_messages import (
    MAX_SUBSCRIPTIONS,
    PING,
    ControlMessage,
    PriceMessage,
    PriceTick,
    Topic,
    asset_of,
    decode_prices,
    subscribe_frame,
    symbol_of,
)
from pmkit.exchanges.types import ReferencePrice
from pmkit.streams import Policy, Subscription
from pmkit.venue_clock import VenueClock
from pmkit.websocket.base import BaseWebSocket, FrameError
from pmkit.websocket.deadlines import FIRST_SNAPSHOT, POLYMARKET_REFERENCE

TWAP_SECONDS: Final = 60
WINDOW_MS: Final = 900_000
SMALL_WINDOW_MS: Final = 300_000
KEPT_STRIKES: Final = 64
_LOG = logging.getLogger("pmkit.polymarket")


class PriceSocket(BaseWebSocket[Topic]):
    """The connection: logs in, subscribes once that is acknowledged, and hands on every price message.

    `gaps` counts holes in the numbering of a channel (each is filled by subscribing anew); `refusal` is the code with
    which the venue refused the log-in or a subscription, "" where it did not.
    """

    log_frames = False
    public = True

    def __init__(
        self, url: str, clock: Clock, signer: HandshakeSigner, on_prices: Callable[[PriceMessage, int], object]
    ) -> None:
        require_safe(url, "the Polymarket live prices")
        super().__init__(
            url,
            clock,
            name="polymarket prices",
            deadline=POLYMARKET_REFERENCE,
            ping_text=PING,
            ping_every=30.0,
        )
        self.gaps = 0
        self.refusal = ""
        self._signer = signer
        self._on_prices = on_prices
        self._authed = False
        self._rid = 0
        self._seq: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End everything, within a second. May be called again."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().close()

    def _public_part(self, frame: bytes, sent: bool) -> bytes | None:
        return None if sent and b'"auth"' in frame else frame  # the log-in holds the API key with its secret

    def _next_rid(self) -> str:
        self._rid += 1
        return str(self._rid)

    def _on_connect(self) -> None:
        self._authed = False
        self._seq.clear()

    def _subscribe_frames(self, keys: Sequence[Topic], first: bool) -> list[str | bytes]:
        if first:
            return [self._signer.price_login(self._next_rid())]  # the topics follow its answer
        return [subscribe_frame(list(keys), self._next_rid())] if self._authed and keys else []

    def _unsubscribe_frames(self, keys: Sequence[Topic]) -> list[str | bytes]:
        return [subscribe_frame(list(keys), self._next_rid(), "unsubscribe")] if self._authed else []

    def _on_frame(self, data: bytes, received_ns: int) -> bool:
        try:
            message = decode_prices(data)
        except ProtocolChanged as error:
            raise FrameError(str(error)) from error
        if isinstance(message, ControlMessage):
            self._control(message)
            return False
        self._check_seq(message)
        self._on_prices(message, received_ns)
        return True

    def _control(self, message: ControlMessage) -> None:
        if message.op == "authed":
            self._authed = True
            self.refusal = ""
            self._send_soon(lambda: [subscribe_frame(list(self.wanted), self._next_rid())] if self.wanted else [])
        elif message.code:
            self.refusal = message.code
            _LOG.error("polymarket: the live prices refuse a request: %s %s", message.code, message.text)
            if message.code.startswith("auth"):
                self.drop(f"the log-in was refused ({message.code})")

    def _check_seq(self, message: PriceMessage) -> None:
        seq, channel = message.seq, message.topic.channel
        if seq is not None:
            last = self._seq.get(channel)
            self._seq[channel] = seq if last is None else max(last, seq)
            if (last is not None and seq > last + 1) or message.dropped:
                self.gaps += 1
                topics = [topic for topic in self.wanted if topic.channel == channel]
                self._send_soon(
                    lambda: [
                        subscribe_frame(topics, self._next_rid(), "unsubscribe"),
                        subscribe_frame(topics, self._next_rid()),
                    ]
                )

    def _send_soon(self, frames: Callable[[], list[str]]) -> None:
        task = asyncio.get_running_loop().create_task(self._send_all(frames()), name=f"pmkit {self.name} frames")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_all(self, frames: list[str]) -> None:
        try:
            for frame in frames:
                await self.send(frame)
        except (NotSent, VenueUnavailable) as error:
            _LOG.debug("%s: %s; the next connection subscribes anew", self.name, error)


class _Asset:
    """What is known of one asset."""

    __slots__ = ("average", "known", "price", "strikes", "venue_ms")

    def __init__(self) -> None:
        self.price: Decimal | None = None
        self.average: Decimal | None = None
        self.strikes: dict[int, Decimal] = {}
        self.venue_ms = 0
        self.known = asyncio.Event()

    def take(self, topic: Topic, tick: PriceTick) -> None:
        if not topic.window_seconds:
            if tick.time_ms >= self.venue_ms or self.price is None:
                self.price = tick.price
        else:
            self.average = tick.price
            # A price that is carried forward is no price of that moment.
            if tick.time_ms % SMALL_WINDOW_MS == 0 and not tick.carried:
                self.strikes.setdefault(tick.time_ms, tick.price)
                while len(self.strikes) > KEPT_STRIKES:
                    del self.strikes[min(self.strikes)]
        self.venue_ms = max(self.venue_ms, tick.time_ms)

    def reference(self, asset: str, received_ns: int) -> ReferencePrice:
        window = self.venue_ms // WINDOW_MS * WINDOW_MS
        return ReferencePrice(
            asset=asset,
            price=self.price,
            average=self.average,
            strike=self.strikes.get(window),
            venue_ms=self.venue_ms,
            received_ns=received_ns,
        )


class LivePrices:
    """Reference prices for any number of subscribers, over one socket. Needs only a log-in, no key that could trade."""

    def __init__(self, url: str, clock: Clock, signer: HandshakeSigner, venue_clock: VenueClock) -> None:
        self.socket = PriceSocket(url, clock, signer, self._on_prices)
        self._clock = clock
        self._venue_clock = venue_clock
        self._assets: dict[str, _Asset] = {}
        self._readers: list[tuple[Subscription[ReferencePrice], frozenset[str]]] = []

    async def subscribe(
        self, assets: Iterable[str], callback: Callback[ReferencePrice] | None = None
    ) -> Subscription[ReferencePrice]:
        """The latest state of each asset after every change. Returns with the first index and average of each.

        Raises AuthError where the venue refuses the log-in, VenueUnavailable where prices do not come.
        """
        names = frozenset(asset_names(assets))
        topics = [topic for name in sorted(names) for topic in _topics(name)]
        if len({*self.socket.wanted, *topics}) > MAX_SUBSCRIPTIONS:
            raise ValueError(f"live prices of at most {MAX_SUBSCRIPTIONS // 2} assets on one connection")
        stream: Subscription[ReferencePrice] = Subscription(
            "polymarket reference",
            self._clock,
            callback=callback,
            policy=Policy.CONFLATE,
            key=_asset_name,
            on_close=self._leave,
        )
        self._readers.append((stream, names))
        try:
            states = [self._assets.setdefault(name, _Asset()) for name in names]
            await self.socket.start()
            await self.socket.want(topics)
            await self._first(states, names)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _first(self, states: Sequence[_Asset], names: Iterable[str]) -> None:
        try:
            async with self._clock.io_timeout(2 * FIRST_SNAPSHOT):
                for state in states:
                    await state.known.wait()
        except TimeoutError:
            pass
        else:
            return
        refusal = self.socket.refusal
        if refusal.startswith("auth"):
            raise AuthError(f"{self.socket.host} refuses the log-in to the live prices ({refusal}): check the API keys")
        reason = refusal or self.socket.stats.blocked or self.socket.stats.last_reason or "nothing came"
        raise VenueUnavailable(f"no live prices of {', '.join(sorted(names))} from {self.socket.host}: {reason}")

    def strike(self, asset: str, open_ms: int) -> Decimal | None:
        """The average at the open of a window (epoch ms), where it was seen."""
        state = self._assets.get(asset.upper())
        return None if state is None else state.strikes.get(open_ms)

    def reference(self, asset: str) -> ReferencePrice | None:
        """The latest state of an asset; None where it was never subscribed."""
        state = self._assets.get(asset.upper())
        return None if state is None else state.reference(asset.upper(), 0)

    async def close(self) -> None:
        """End the socket and all subscriptions, within a second. May be called twice."""
        await self.socket.close()
        for stream, _ in tuple(self._readers):
            await stream.close()

    def _on_prices(self, message: PriceMessage, received_ns: int) -> None:
        name = asset_of(message.topic.symbol)
        state = self._assets.get(name)
        if state is None or message.topic not in _topics(name) or not message.ticks:
            return
        for tick in message.ticks:
            state.take(message.topic, tick)
        if state.price is None or state.average is None:
            return
        state.known.set()
        reference = state.reference(name, received_ns)
        for stream, names in tuple(self._readers):
            if name in names:
                stream.publish(reference)

    async def _leave(self, closed: Subscription[Any]) -> None:
        self._readers = [(stream, names) for stream, names in self._readers if stream is not closed]
        left = {topic for _, names in self._readers for name in names for topic in _topics(name)}
        gone = [topic for topic in self.socket.wanted if topic not in left]
        try:
            await self.socket.unwant(gone)
        except PmkitError as error:
            _LOG.debug("%s: %s", self.socket.name, error)


def _topics(asset: str) -> tuple[Topic, Topic]:
    symbol = symbol_of(asset)
    return Topic(symbol), Topic(symbol, TWAP_SECONDS)


def _asset_name(reference: ReferencePrice) -> str:
    return reference.asset
