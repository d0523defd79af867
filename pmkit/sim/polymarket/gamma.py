"""Rows of the Gamma API, every field in its real JSON type (reference: polymarket-markets-and-redeem.md, 1)."""

from __future__ import annotations

from typing import Any

from pmkit.clock import to_utc
from pmkit.sim.engine import PRICE_UNITS
from pmkit.sim.polymarket.book import COARSE_TICK, FINE_TICK, MIN_ORDER_SHARES
from pmkit.sim.polymarket.live import LiveMarket, loose
from pmkit.sim.polymarket.market import OUTCOMES, Series, Window
from pmkit.sim.world import ASSETS, World

FEE_SCHEDULE = {"exponent": 1, "rate": 0.07, "takerOnly": True, "rebateRate": 0.2}
BASE_FEE = 1000
_IMAGE = "https://polymarket-upload.s3.us-east-2.amazonaws.com/{}+fullsize.png"

# id, label, slug; the asset's own tag comes beside them. Real ids where known (section 2.1).
_TAGS = (
    ("102127", "Up or Down", "up-or-down"),
    ("1312", "Crypto Prices", "crypto-prices"),
    ("101757", "Recurring", "recurring"),
    ("21", "Crypto", "crypto"),
)
_INTERVAL_TAGS = {"5m": ("102892", "5M", "5M"), "15m": ("102467", "15M", "15M")}
_ASSET_TAGS = {"BTC": "235"}


def iso(ms: int, *, fraction: bool = False) -> str:
    """`2026-09-23T00:30:00Z`, or with microseconds as in the columns that the database fills."""
    moment = to_utc(ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z" if fraction else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def description(window: Window) -> str:
    asset, stream = window.asset, source(window)
    name = ASSETS[asset].name
    return (
        f'This market will resolve to "Up" if the time-weighted average price (TWAP) of {name} over the minute before '
        f'the end of the range in the title is at or above the one before its start, and to "Down" otherwise.\n'
        f"The resolution source is the {asset}/USD TWAP data stream of Chainlink, here a local world: {stream}."
    )


def source(window: Window) -> str:
    return f"https://data.chain.link/streams/{window.asset.lower()}-usd-twap-60s-streams"


def tags_of(window: Window) -> list[tuple[str, str, str]]:
    """(id, label, slug) of an event's tags."""
    name = ASSETS[window.asset].name
    made_up = str(103_000 + list(ASSETS).index(window.asset))
    own = (_ASSET_TAGS.get(window.asset, made_up), name, name.lower())
    return [*_TAGS, own, _INTERVAL_TAGS[window.series.interval]]


def volume(world: World, window: Window, now_ms: int) -> float:
    """Dollars traded so far: a seeded total that grows from the publication to the end."""
    total = 2_000.0 * 30.0 ** world.draw("polymarket volume", window.slug)
    before = min(1.0, max(0.0, (now_ms - window.accepting_ms) / (window.open_ms - window.accepting_ms)))
    inside = min(1.0, max(0.0, (now_ms - window.open_ms) / window.series.length_ms))
    traded: float = round(total * (0.05 * before + 0.95 * inside), 6)
    return traded


class GammaRows:
    """Rows as Gamma would answer them at a moment. `live` finds the running market of a window, if there is one."""

    def __init__(self, world: World, live: dict[str, LiveMarket]) -> None:
        self.world = world
        self._live = live

    def went_up(self, window: Window) -> bool:
        return self.world.went_up(window.asset, window.open_ms, window.close_ms)

    def _quote(self, window: Window, now_ms: int) -> tuple[int | None, int | None, int | None, int]:
        """Best bid, best ask, last trade (0.0001 dollars, of the first outcome) and tick."""
        live = self._live.get(window.condition_id)
        if live is not None and now_ms < window.close_ms:
            return live.engine.best_bid, live.engine.best_ask, live.last_trade, live.tick
        if now_ms >= window.close_ms:
            up = self.went_up(window)
            last = PRICE_UNITS - FINE_TICK if up else FINE_TICK
            return (last, PRICE_UNITS, last, FINE_TICK) if up else (None, last, last, FINE_TICK)
        fair = self.world.fair_up(window.asset, window.open_ms, window.close_ms, now_ms)
        middle = max(COARSE_TICK, min(PRICE_UNITS - COARSE_TICK, round(fair * 100) * 100))
        bid, ask = middle - COARSE_TICK, middle + COARSE_TICK
        return bid or None, ask if ask < PRICE_UNITS else None, None, COARSE_TICK

    def market(self, window: Window, now_ms: int, *, with_event: bool = False) -> dict[str, Any]:
        """A market; with its event where the market is the root of the answer."""
        closed = now_ms >= window.resolved_ms
        bid, ask, last, tick = self._quote(window, now_ms)
        traded = volume(self.world, window, now_ms)
        liquid = round(500 + 4_000 * self.world.draw("polymarket liquidity", window.slug), 2)
        row: dict[str, Any] = {
            "id": window.market_id,
            "question": window.title,
            "conditionId": window.condition_id,
            "slug": window.slug,
            "resolutionSource": source(window),
            "endDate": iso(window.close_ms),
            "liquidity": "0" if closed else repr(liquid),
            "startDate": iso(window.created_ms, fraction=True),
            "image": _IMAGE.format(window.asset),
            "icon": _IMAGE.format(window.asset),
            "description": description(window),
            "outcomes": loose(list(OUTCOMES)),
            "outcomePrices": loose(self._prices(window, closed, bid, ask)),
            "volume": repr(traded),
            "active": True,
            "closed": closed,
            "marketMakerAddress": "",
            "createdAt": iso(window.created_ms, fraction=True),
            "updatedAt": iso(min(now_ms, window.final_ms), fraction=True),
            "new": False,
            "featured": False,
            "archived": False,
            "restricted": True,
            "groupItemThreshold": "0",
            "questionID": window.question_id,
            "enableOrderBook": True,
            "orderPriceMinTickSize": tick / PRICE_UNITS,
            "orderMinSize": MIN_ORDER_SHARES,
            "volumeNum": traded,
            "liquidityNum": 0 if closed else liquid,
            "endDateIso": iso(window.close_ms)[:10],
            "startDateIso": iso(window.created_ms)[:10],
            "hasReviewedDates": True,
            "volume24hr": traded,
            "volume1wk": traded,
            "volume1mo": traded,
            "volume1yr": traded,
            "clobTokenIds": loose(list(window.tokens)),
            "comboStatus": "disabled",
            "makerBaseFee": BASE_FEE,
            "takerBaseFee": BASE_FEE,
            "acceptingOrders": window.accepts(now_ms),
            "negRisk": False,
            "ready": False,
            "funded": False,
            "acceptingOrdersTimestamp": iso(window.accepting_ms),
            "cyom": False,
            "pagerDutyNotificationEnabled": False,
            "approved": True,
            "rewardsMinSize": 50,
            "rewardsMaxSpread": 4.5,
            "automaticallyActive": True,
            "clearBookOnStart": False,
            "showGmpSeries": False,
            "showGmpOutcome": False,
            "manualActivation": False,
            "negRiskOther": False,
            "umaResolutionStatuses": "[]",
            "pendingDeployment": False,
            "deploying": False,
            "rfqEnabled": False,
            "eventStartTime": iso(window.open_ms),
            "holdingRewardsEnabled": False,
            "feesEnabled": True,
            "requiresTranslation": False,
            "makerRebatesFeeShareBps": 10000,
            "feeType": "crypto_fees_v2",
            "feeSchedule": FEE_SCHEDULE,
            **self._config(window.series),
            "version": "v1",
        }
        if closed:
            at = to_utc(window.resolved_ms)
            row |= {
                "closedTime": f"{at:%Y-%m-%d %H:%M:%S}+00",
                "umaEndDate": iso(window.resolved_ms),
                "umaResolutionStatus": "resolved",
                "automaticallyResolved": True,
            }
        for name, value in (("bestBid", bid), ("bestAsk", ask), ("lastTradePrice", last)):
            if value is not None:
                row[name] = value / PRICE_UNITS
        row["spread"] = ((PRICE_UNITS if ask is None else ask) - (bid or 0)) / PRICE_UNITS
        if with_event:
            row["events"] = [self.event(window, now_ms, with_markets=False)]
        return row

    def prices(self, window: Window, now_ms: int) -> list[str]:
        """The price of each outcome at a moment, as text."""
        bid, ask, _, _ = self._quote(window, now_ms)
        return self._prices(window, now_ms >= window.resolved_ms, bid, ask)

    def _prices(self, window: Window, closed: bool, bid: int | None, ask: int | None) -> list[str]:
        if closed:
            return ["1", "0"] if self.went_up(window) else ["0", "1"]
        up = ((bid or 0) + (PRICE_UNITS if ask is None else ask)) / 2 / PRICE_UNITS
        return [f"{up:.4f}".rstrip("0").rstrip("."), f"{1 - up:.4f}".rstrip("0").rstrip(".")]

    @staticmethod
    def _config(series: Series) -> dict[str, Any]:
        name = f"{series.asset.lower()}-{series.interval}-twap-60"
        return {
            "cryptoMarketConfigId": name,
            "cryptoMarketConfig": {
                "id": name,
                "asset": series.asset.lower(),
                "duration": series.interval,
                "twapEnabled": True,
                "twapLookbackSeconds": 60,
            },
        }

    def event(self, window: Window, now_ms: int, *, with_markets: bool = True) -> dict[str, Any]:
        """An event with its market."""
        closed = now_ms >= window.resolved_ms
        traded = volume(self.world, window, now_ms)
        row: dict[str, Any] = {
            "id": window.event_id,
            "ticker": window.slug,
            "slug": window.slug,
            "title": window.title,
            "description": description(window),
            "resolutionSource": source(window),
            "startDate": iso(window.created_ms, fraction=True),
            "creationDate": iso(window.created_ms, fraction=True),
            "endDate": iso(window.close_ms),
            "image": _IMAGE.format(window.asset),
            "icon": _IMAGE.format(window.asset),
            "active": True,
            "closed": closed,
            "archived": False,
            "new": False,
            "featured": False,
            "restricted": True,
            "volume": traded,
            "createdAt": iso(window.created_ms, fraction=True),
            "updatedAt": iso(min(now_ms, window.final_ms), fraction=True),
            "volume24hr": traded,
            "volume1wk": traded,
            "volume1mo": traded,
            "volume1yr": traded,
            "enableOrderBook": True,
            "negRisk": False,
            "commentCount": 0,
        }
        if with_markets:
            row["markets"] = [self.market(window, now_ms)]
            row["tags"] = [
                {"id": tag, "label": label, "slug": slug, "forceShow": False, "requiresTranslation": False}
                for tag, label, slug in tags_of(window)
            ]
        row |= {
            "series": [self.series(window.series)],
            "cyom": False,
            "showAllOutcomes": True,
            "showMarketImages": True,
            "enableNegRisk": False,
            "automaticallyActive": True,
            "startTime": iso(window.open_ms),
            "seriesSlug": window.series.slug,
            "negRiskAugmented": False,
            "pendingDeployment": False,
            "deploying": False,
            "requiresTranslation": False,
            "version": "v1",
        }
        if closed:
            row["closedTime"] = iso(window.resolved_ms)
            row["automaticallyResolved"] = True
            # The strike is published with the resolution, the final price later (section 2.3).
            known = {"priceToBeat": self.world.twap60(window.asset, window.open_ms)}
            if now_ms >= window.final_ms:
                known["finalPrice"] = self.world.twap60(window.asset, window.close_ms)
            row["eventMetadata"] = known
        return row

    @staticmethod
    def series(series: Series) -> dict[str, Any]:
        return {
            "id": series.series_id,
            "ticker": series.slug,
            "slug": series.slug,
            "title": f"{series.asset} Up or Down {series.interval}",
            "seriesType": "single",
            "recurrence": series.interval,
            "image": "",
            "icon": "",
            "active": True,
            "closed": False,
            "archived": False,
            "featured": False,
            "restricted": True,
            "createdAt": "2025-11-21T21:46:22.201627Z",
            "commentCount": 0,
            "requiresTranslation": False,
        }
