"""pmkit: asyncio building blocks for prediction-market bots.

The public names below are loaded on first use, so that `import pmkit` costs next to nothing: no HTTP client, no pandas,
no prompt library. `from pmkit import BaseBot, Side, run` is all that most strategies need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pmkit.version import __version__

if TYPE_CHECKING:
    from pmkit.bot.base import BaseBot as BaseBot
    from pmkit.bot.run import run as run
    from pmkit.clock import Clock as Clock
    from pmkit.clock import ManualClock as ManualClock
    from pmkit.clock import ScaledClock as ScaledClock
    from pmkit.clock import SystemClock as SystemClock
    from pmkit.config.env import Settings as Settings
    from pmkit.config.secret import Secret as Secret
    from pmkit.data.binance.feed import BinanceFeed as BinanceFeed
    from pmkit.data.binance.fetcher import BinanceFetcher as BinanceFetcher
    from pmkit.data.binance.types import Candle as Candle
    from pmkit.endpoints import Endpoints as Endpoints
    from pmkit.errors import AuthError as AuthError
    from pmkit.errors import CancelUnknown as CancelUnknown
    from pmkit.errors import ClockSkewError as ClockSkewError
    from pmkit.errors import ConfigError as ConfigError
    from pmkit.errors import InsufficientFunds as InsufficientFunds
    from pmkit.errors import InvalidOrder as InvalidOrder
    from pmkit.errors import MarketNotFound as MarketNotFound
    from pmkit.errors import NotSent as NotSent
    from pmkit.errors import NotYetRedeemable as NotYetRedeemable
    from pmkit.errors import OrderAuthError as OrderAuthError
    from pmkit.errors import OrderClockSkew as OrderClockSkew
    from pmkit.errors import OrderRateLimited as OrderRateLimited
    from pmkit.errors import OrderRegionBlocked as OrderRegionBlocked
    from pmkit.errors import OrderRejected as OrderRejected
    from pmkit.errors import OrderUnknown as OrderUnknown
    from pmkit.errors import OrderVenueUnavailable as OrderVenueUnavailable
    from pmkit.errors import PmkitError as PmkitError
    from pmkit.errors import ProtocolChanged as ProtocolChanged
    from pmkit.errors import RateLimited as RateLimited
    from pmkit.errors import RedeemRefused as RedeemRefused
    from pmkit.errors import RegionBlocked as RegionBlocked
    from pmkit.errors import VenueUnavailable as VenueUnavailable
    from pmkit.exchanges.base import BaseExchange as BaseExchange
    from pmkit.exchanges.base import MarketData as MarketData
    from pmkit.exchanges.base import MarketFinder as MarketFinder
    from pmkit.exchanges.kalshi.client import KalshiExchange as KalshiExchange
    from pmkit.exchanges.kalshi.market_data import KalshiMarketData as KalshiMarketData
    from pmkit.exchanges.kalshi.market_finder import KalshiMarketFinder as KalshiMarketFinder
    from pmkit.exchanges.kalshi.types import KalshiMarket as KalshiMarket
    from pmkit.exchanges.market import Market as Market
    from pmkit.exchanges.orderbook import OrderBook as OrderBook
    from pmkit.exchanges.paper.exchange import PaperExchange as PaperExchange
    from pmkit.exchanges.polymarket.client import PolymarketExchange as PolymarketExchange
    from pmkit.exchanges.polymarket.market_data import PolymarketMarketData as PolymarketMarketData
    from pmkit.exchanges.polymarket.market_finder import PolymarketMarketFinder as PolymarketMarketFinder
    from pmkit.exchanges.polymarket.redeem_types import RedeemPreview as RedeemPreview
    from pmkit.exchanges.polymarket.redeem_types import RedeemResult as RedeemResult
    from pmkit.exchanges.polymarket.redeem_types import RedeemStatus as RedeemStatus
    from pmkit.exchanges.polymarket.redeem_view import RedeemView as RedeemView
    from pmkit.exchanges.polymarket.types import PolymarketMarket as PolymarketMarket
    from pmkit.exchanges.types import Absent as Absent
    from pmkit.exchanges.types import Accepted as Accepted
    from pmkit.exchanges.types import CancelResult as CancelResult
    from pmkit.exchanges.types import Fill as Fill
    from pmkit.exchanges.types import Intent as Intent
    from pmkit.exchanges.types import MarketResult as MarketResult
    from pmkit.exchanges.types import NoMarket as NoMarket
    from pmkit.exchanges.types import Order as Order
    from pmkit.exchanges.types import OrderId as OrderId
    from pmkit.exchanges.types import OrderState as OrderState
    from pmkit.exchanges.types import OrderStatus as OrderStatus
    from pmkit.exchanges.types import Position as Position
    from pmkit.exchanges.types import PublicTrade as PublicTrade
    from pmkit.exchanges.types import ReferencePrice as ReferencePrice
    from pmkit.exchanges.types import Side as Side
    from pmkit.exchanges.types import TimeInForce as TimeInForce
    from pmkit.exchanges.types import Trade as Trade
    from pmkit.logging.paths import Paths as Paths
    from pmkit.streams import Subscription as Subscription
    from pmkit.websocket.base import BaseWebSocket as BaseWebSocket

# Module -> the public names it gives. The block above says the same to type checkers; a test compares the two.
_MODULES = {
    "pmkit.bot.base": ("BaseBot",),
    "pmkit.bot.run": ("run",),
    "pmkit.clock": ("Clock", "ManualClock", "ScaledClock", "SystemClock"),
    "pmkit.config.env": ("Settings",),
    "pmkit.config.secret": ("Secret",),
    "pmkit.data.binance.feed": ("BinanceFeed",),
    "pmkit.data.binance.fetcher": ("BinanceFetcher",),
    "pmkit.data.binance.types": ("Candle",),
    "pmkit.endpoints": ("Endpoints",),
    "pmkit.errors": (
        "AuthError",
        "CancelUnknown",
        "ClockSkewError",
        "ConfigError",
        "InsufficientFunds",
        "InvalidOrder",
        "MarketNotFound",
        "NotSent",
        "NotYetRedeemable",
        "OrderAuthError",
        "OrderClockSkew",
        "OrderRateLimited",
        "OrderRegionBlocked",
        "OrderRejected",
        "OrderUnknown",
        "OrderVenueUnavailable",
        "PmkitError",
        "ProtocolChanged",
        "RateLimited",
        "RedeemRefused",
        "RegionBlocked",
        "VenueUnavailable",
    ),
    "pmkit.exchanges.base": ("BaseExchange", "MarketData", "MarketFinder"),
    "pmkit.exchanges.kalshi.client": ("KalshiExchange",),
    "pmkit.exchanges.kalshi.market_data": ("KalshiMarketData",),
    "pmkit.exchanges.kalshi.market_finder": ("KalshiMarketFinder",),
    "pmkit.exchanges.kalshi.types": ("KalshiMarket",),
    "pmkit.exchanges.market": ("Market",),
    "pmkit.exchanges.orderbook": ("OrderBook",),
    "pmkit.exchanges.paper.exchange": ("PaperExchange",),
    "pmkit.exchanges.polymarket.client": ("PolymarketExchange",),
    "pmkit.exchanges.polymarket.market_data": ("PolymarketMarketData",),
    "pmkit.exchanges.polymarket.market_finder": ("PolymarketMarketFinder",),
    "pmkit.exchanges.polymarket.redeem_types": ("RedeemPreview", "RedeemResult", "RedeemStatus"),
    "pmkit.exchanges.polymarket.redeem_view": ("RedeemView",),
    "pmkit.exchanges.polymarket.types": ("PolymarketMarket",),
    "pmkit.exchanges.types": (
        "Absent",
        "Accepted",
        "CancelResult",
        "Fill",
        "Intent",
        "MarketResult",
        "NoMarket",
        "Order",
        "OrderId",
        "OrderState",
        "OrderStatus",
        "Position",
        "PublicTrade",
        "ReferencePrice",
        "Side",
        "TimeInForce",
        "Trade",
    ),
    "pmkit.logging.paths": ("Paths",),
    "pmkit.streams": ("Subscription",),
    "pmkit.websocket.base": ("BaseWebSocket",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604 - all texts

# Hidden from type checkers: with a module-level __getattr__ in sight they would take any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module 'pmkit' has no attribute {name!r}")
        value = getattr(import_module(module), name)
        globals()[name] = value  # the next use does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
