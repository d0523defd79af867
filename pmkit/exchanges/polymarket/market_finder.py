"""`PolymarketMarketFinder`: the windows of an asset, by their computed names.

A slug is computed once per question, in whole seconds of the venue's clock, and what comes back is checked against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pmkit.errors import ConfigError
from pmkit.exchanges.base import MarketFinder, asset_name
from pmkit.exchanges.market import Market
from pmkit.exchanges.polymarket.types import PolymarketMarket, Window, interval_seconds
from pmkit.exchanges.types import MarketStatus, NoMarket

if TYPE_CHECKING:
    from pmkit.exchanges.polymarket.market_data import PolymarketMarketData

PAST_MS: Final = 24 * 3_600_000
"""How far back `list_markets` looks for closed and resolved windows."""

_OVER: Final = (MarketStatus.CLOSED, MarketStatus.RESOLVED)


class PolymarketMarketFinder(MarketFinder):
    """Up/Down windows of 5 and 15 minutes. Shares the metadata of its `PolymarketMarketData`."""

    def __init__(self, data: PolymarketMarketData) -> None:
        super().__init__(data)
        self._catalogue = data.catalogue

    async def get_current_market(self, asset: str, interval: str = "15m") -> PolymarketMarket | NoMarket:
        """The market whose window contains now (venue time).

        NoMarket while Gamma or the CLOB does not know it yet. Raises ConfigError for an asset without a series.
        """
        return await self._window(await self._now(asset, interval))

    async def get_next_market(self, asset: str, interval: str = "15m") -> PolymarketMarket | NoMarket:
        """The market of the following window. It may be traded before its window opens."""
        return await self._window((await self._now(asset, interval)).following)

    async def list_markets(
        self, asset: str | None = None, status: MarketStatus | None = None, interval: str = "15m"
    ) -> list[Market]:
        """All listed windows that are not over, oldest first; with status CLOSED or RESOLVED those of the last day.

        From Gamma alone: a window of tomorrow may be listed before the CLOB takes orders for it. Raises ConfigError for
        an asset without a series, ProtocolChanged for paging that does not end.
        """
        interval_seconds(interval)
        status = self._status(status)
        asset = None if asset is None else asset_name(asset)
        await self._catalogue.sync_clock()
        series = await self._catalogue.series(interval)
        if asset is not None:
            series = {asset: self._known(asset, interval, series)}
        now = self._catalogue.now_ms()
        found: dict[str, PolymarketMarket] = {}
        for name, series_id in series.items():
            # A window that is over stays "not closed" until it is resolved.
            past = [(now - PAST_MS, now, False), (now - PAST_MS, now, True)]
            for from_ms, to_ms, closed in past if status in _OVER else [(now, None, False)]:
                rows = await self._catalogue.windows(name, interval, series_id, from_ms, to_ms, closed=closed)
                found.update((market.market_id, market) for market in rows)
        chosen = [market for market in found.values() if self._fits(market, status, now)]
        return sorted(chosen, key=lambda market: (market.open_ms, market.asset))

    async def list_assets(self, interval: str = "15m") -> list[str]:
        """The assets that have a series of this interval, sorted."""
        interval_seconds(interval)
        return sorted(await self._catalogue.series(interval))

    @staticmethod
    def _fits(market: PolymarketMarket, status: MarketStatus | None, now: int) -> bool:
        # The venue's filter counts whole seconds; a window that ends this very moment is over.
        return market.status is status if status is not None else market.close_ms > now

    async def _now(self, asset: str, interval: str) -> Window:
        interval_seconds(interval)
        asset = asset_name(asset)
        await self._catalogue.sync_clock()
        return Window.at(asset, interval, self._catalogue.now_ms())

    async def _window(self, window: Window) -> PolymarketMarket | NoMarket:
        found = await self._catalogue.window(window)
        if isinstance(found, NoMarket):
            self._known(window.asset, window.interval, await self._catalogue.series(window.interval))
        return found

    @staticmethod
    def _known(asset: str, interval: str, series: dict[str, str]) -> str:
        found = series.get(asset)
        if found is None:
            raise ConfigError(
                f"Polymarket lists no {interval} windows of {asset[:40]!a}: it has them of {', '.join(sorted(series))}"
            )
        return found
