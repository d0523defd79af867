"""Where the venues are: real, demo (Kalshi) or local. A strategy cannot tell them apart but by this."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from pmkit.clock import Clock, Entropy, clock_from_text
from pmkit.errors import ConfigError


class Where(StrEnum):
    """Which set of venues."""

    LOCAL = "local"
    REAL = "real"
    DEMO = "demo"


class BinanceEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts are tried in order. REST without path, sockets without path, bulk files without path."""

    rest: tuple[str, ...] = (
        "https://data-api.binance.vision",
        "https://api.binance.com",
        "https://api-gcp.binance.com",
        "https://api1.binance.com",
        "https://api2.binance.com",
        "https://api3.binance.com",
        "https://api4.binance.com",
    )
    ws: tuple[str, ...] = (
        "wss://data-stream.binance.vision",
        "wss://stream.binance.com:443",
        "wss://stream.binance.com:9443",
    )
    bulk: str = "https://data.binance.vision"


class PolymarketEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """REST bases without trailing slash; sockets with their whole path. `rpc_others`: public Polygon nodes to turn to
    when `rpc` is that of pmkit's choice and fails; none for local venues.
    """

    clob: str = "https://clob.polymarket.com"
    gamma: str = "https://gamma-api.polymarket.com"
    data: str = "https://data-api.polymarket.com"
    market_ws: str = "wss://ws-subscriptions-clob.polymarket.com/ws/market"
    user_ws: str = "wss://ws-subscriptions-clob.polymarket.com/ws/user"
    live_ws: str = "wss://ws-live-v2.polymarket.com/ws"
    relayer: str = "https://relayer-v2.polymarket.com"
    rpc: str = "https://polygon.drpc.org"
    rpc_others: tuple[str, ...] = ("https://polygon-bor-rpc.publicnode.com", "https://tenderly.rpc.polygon.community")


class KalshiEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """`rest` ends in /trade-api/v2; `ws` ends in /trade-api/ws/v2."""

    rest: str = "https://external-api.kalshi.com/trade-api/v2"
    ws: str = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"


KALSHI_DEMO = KalshiEndpoints(
    rest="https://external-api.demo.kalshi.co/trade-api/v2",
    ws="wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2",
)


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """All addresses and the clock that goes with them. Travels as one JSON line between processes."""

    where: Where = Where.REAL
    binance: BinanceEndpoints = BinanceEndpoints()
    polymarket: PolymarketEndpoints = PolymarketEndpoints()
    kalshi: KalshiEndpoints = KalshiEndpoints()
    clock: str = "system"

    @classmethod
    def real(cls) -> Endpoints:
        """The production venues."""
        return cls()

    @classmethod
    def demo(cls) -> Endpoints:
        """Kalshi's demo environment. Polymarket has none; its addresses stay the real ones and bots refuse them."""
        return cls(where=Where.DEMO, kalshi=KALSHI_DEMO)

    @classmethod
    def from_json(cls, text: str | bytes) -> Endpoints:
        """The inverse of `to_json`. Raises ConfigError where the text is none of ours."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"not an endpoints line: {error}") from error

    def to_json(self) -> str:
        """One line of JSON."""
        return msgspec.json.encode(self).decode()

    def make_clock(self, entropy: Entropy | None = None) -> Clock:
        """The clock these venues run on: the system's, or a scaled one for local venues. Raises ConfigError."""
        try:
            return clock_from_text(self.clock, entropy)
        except ValueError as error:
            raise ConfigError(f"the clock of these endpoints cannot be read: {error}") from error


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(url: str, what: str) -> None:
    """Refuse to send credentials in clear text: http:// and ws:// only to loopback. Raises ConfigError."""
    scheme = urlsplit(url).scheme
    if scheme in ("https", "wss") or is_loopback(url):
        return
    host = urlsplit(url).hostname
    raise ConfigError(f"{what}: credentials are not sent over {scheme}:// to {host}; use https:// or wss://")
