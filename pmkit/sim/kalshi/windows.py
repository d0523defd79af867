"""Which 15-minute windows exist, their tickers and the moments of their life (reference: kalshi.md, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from pmkit.sim.world import ASSETS, World

LENGTH_MS = 900_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# All windows of 24 hours are made in one batch soon after 00:00Z, four hours ahead (4.3).
LEAD_MS = 4 * HOUR_MS
# "Live endpoints hold about three months" (3.10).
KEPT_MS = 90 * DAY_MS
ORDERS_KEPT_MS = 14 * DAY_MS
# A maintenance that begins at the close, and more.
LONGEST_SETTLEMENT_MS = 4 * HOUR_MS
# How far back the archive of this venue goes.
ARCHIVE_MS = 400 * DAY_MS

NEW_YORK = ZoneInfo("America/New_York")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_THURSDAY = 3
# Digits to which the settlement value is rounded, from settled markets of May to July 2026.
_DIGITS = {"BTC": 2, "ETH": 2, "SOL": 4, "XRP": 4, "HYPE": 4, "DOGE": 7}
# The index that a series settles on (4.1).
_INDEX = {"BTC": "BRTI"}


def series_of(asset: str) -> str:
    return f"KX{asset}15M"


def index_of(asset: str) -> str:
    """The CF Benchmarks index of an asset."""
    return _INDEX.get(asset, f"{asset}USD_RTI")


def digits_of(asset: str) -> int:
    """Decimals of settlement values and strikes."""
    base = ASSETS[asset].base
    return _DIGITS.get(asset, 2 if base >= 1_000 else 4 if base >= 1 else 7)


@lru_cache(1024)
def new_york(ms: int) -> datetime:
    """A moment (epoch ms) on the wall in New York."""
    return datetime.fromtimestamp(ms // 1000, UTC).astimezone(NEW_YORK)


def in_maintenance(ms: int) -> bool:
    """Whether the exchange stands still: Thursdays 03:00 to 05:00 in New York."""
    local = new_york(ms)
    return local.weekday() == _THURSDAY and 3 <= local.hour < 5


def maintenance_end(ms: int) -> int:
    """The end of the maintenance that holds `ms`, as epoch ms."""
    local = new_york(ms).replace(hour=5, minute=0, second=0, microsecond=0)
    return int(local.timestamp()) * 1000


def exists(close_ms: int) -> bool:
    """Whether a window closes at this quarter of an hour.

    None lies in the maintenance. Of the hour that New York has twice in autumn only the first pass is listed, because
    the labels of the second are taken (what Kalshi does then is not known: section 4.2).
    """
    return not in_maintenance(close_ms - LENGTH_MS) and new_york(close_ms).fold == 0


@dataclass(frozen=True, slots=True)
class Window:
    """One market that is its event's only one. All moments in epoch ms."""

    asset: str
    close_ms: int

    @property
    def series(self) -> str:
        return series_of(self.asset)

    @property
    def open_ms(self) -> int:
        return self.close_ms - LENGTH_MS

    @property
    def event_ticker(self) -> str:
        """Series and the close on New York's wall: KXBTC15M-26AUG170100 closes at 01:00 EDT."""
        local = new_york(self.close_ms)
        return f"{self.series}-{local:%y}{MONTHS[local.month - 1]}{local:%d%H%M}"

    @property
    def ticker(self) -> str:
        return f"{self.event_ticker}-{new_york(self.close_ms):%M}"


def parse(ticker: str, assets: tuple[str, ...]) -> Window | None:
    """The window of a market or event ticker; None where there is none of that name."""
    parts = ticker.split("-")
    if len(parts) not in (2, 3) or len(parts[1]) != 11:
        return None
    asset = next((asset for asset in assets if series_of(asset) == parts[0]), None)
    label = parts[1]
    if asset is None or label[2:5] not in MONTHS or not (label[:2] + label[5:]).isascii():
        return None
    try:
        local = datetime(
            2000 + int(label[:2]),
            MONTHS.index(label[2:5]) + 1,
            int(label[5:7]),
            int(label[7:9]),
            int(label[9:]),
            tzinfo=NEW_YORK,
        )
    except ValueError:
        return None
    window = Window(asset, int(local.timestamp()) * 1000)
    known = ticker in (window.ticker, window.event_ticker)  # also drops the hour that spring leaves out
    return window if known and window.close_ms % LENGTH_MS == 0 and exists(window.close_ms) else None


class Calendar:
    """All windows of the venue and what happens to each, as pure functions of the World and the moment."""

    def __init__(self, world: World) -> None:
        self._world = world
        # Scripted: windows (by close) whose index data is missing, and settlements that take longer (market ms).
        self.missing: set[tuple[str, int]] = set()
        self.late: dict[tuple[str, int], int] = {}
        # Scripted: everything before this moment (market ms) is archived, in place of about three months.
        self.archived_ms: int | None = None

    def _jitter(self, window: Window, what: str, span: int) -> int:
        return int(self._world.draw("kalshi", what, window.asset, window.close_ms) * span)

    # -- the moments of one window

    def created_us(self, window: Window) -> int:
        """Epoch microseconds; about 0.3 s from one window of a batch to the next."""
        day = (window.open_ms - LEAD_MS) // DAY_MS * DAY_MS
        place = (window.open_ms - LEAD_MS - day) // LENGTH_MS
        start = day + 30_000 + int(self._world.draw("kalshi", "batch", window.asset, day) * 4_000)
        return (start + place * 300) * 1000 + self._jitter(window, "created", 200_000)

    def strike_ms(self, window: Window) -> int:
        """When the exchange writes the strike: 0.7 s after the open."""
        return window.open_ms + 650 + self._jitter(window, "strike", 150)

    def settled_us(self, window: Window) -> int:
        """When it is settled (epoch us): 4 s after the close, or after the maintenance that begins at the close."""
        base = maintenance_end(window.close_ms) if in_maintenance(window.close_ms) else window.close_ms
        late = self.late.get((window.asset, window.close_ms), 0)
        return (base + 3_965 + late) * 1000 + self._jitter(window, "settled", 30_000)

    def settled_ms(self, window: Window) -> int:
        """The first whole millisecond at which it is settled."""
        return -(-self.settled_us(window) // 1000)

    def determined_ms(self, window: Window) -> int:
        """When the result is known: a second (the settlement timer) before the settlement."""
        return self.settled_us(window) // 1000 - 1_000

    # -- values

    def index(self, asset: str, ms: int) -> float:
        """The index print of a second: the World's price with the digits of the index."""
        return round(self._world.price(asset, ms), digits_of(asset))

    def value(self, window: Window) -> float | None:
        """The settlement value: the mean of the 60 prints before the close, rounded. None without index data.

        Not to be asked before the close.
        """
        if (window.asset, window.close_ms) in self.missing:
            return None
        prints = [self.index(window.asset, window.close_ms - 1_000 * back) for back in range(60)]
        return round(math.fsum(prints) / 60, digits_of(window.asset))

    def strike(self, window: Window) -> float | None:
        """The settlement value of the window before: known from the open on."""
        return self.value(Window(window.asset, window.open_ms))

    def result(self, window: Window) -> str:
        """Yes when the value is at least the strike; no data is a no."""
        value, strike = self.value(window), self.strike(window)
        return "yes" if value is not None and strike is not None and value >= strike else "no"

    def status(self, window: Window, now_ms: int, paused: bool = False) -> str:
        """The status word of answers (3.4)."""
        if now_ms < window.open_ms:
            return "initialized"
        if now_ms < window.close_ms:
            return "inactive" if paused else "active"
        if now_ms < self.determined_ms(window):
            return "closed"
        return "determined" if now_ms * 1000 < self.settled_us(window) else "finalized"

    def updated_us(self, window: Window, now_ms: int) -> int:
        """The last change of the market's data other than by trading (epoch us)."""
        settled = self.settled_us(window) + 45_000
        if settled <= now_ms * 1000:
            return settled
        strike = self.strike_ms(window)
        return strike * 1000 if strike <= now_ms else self.created_us(window)

    # -- lists

    def listed_until(self, now_ms: int) -> int:
        """No window that opens at or after this moment is listed yet (the batch of the day may still be under way)."""
        return now_ms // DAY_MS * DAY_MS + LEAD_MS + DAY_MS

    def kept_since(self, now_ms: int) -> int:
        """The cut-off (market ms): markets settled and trades made before it are archived."""
        return now_ms - KEPT_MS if self.archived_ms is None else self.archived_ms

    def orders_kept_since(self, now_ms: int) -> int:
        """The cut-off of orders that ended: two weeks back."""
        return now_ms - ORDERS_KEPT_MS if self.archived_ms is None else self.archived_ms

    def is_listed(self, window: Window, now_ms: int) -> bool:
        return (
            exists(window.close_ms)
            and self.settled_us(window) >= self.kept_since(now_ms) * 1000
            and self.created_us(window) <= now_ms * 1000
        )

    def is_archived(self, window: Window, now_ms: int) -> bool:
        return exists(window.close_ms) and (
            (now_ms - ARCHIVE_MS) * 1000 <= self.settled_us(window) < self.kept_since(now_ms) * 1000
        )

    def archived_first(self, now_ms: int, assets: tuple[str, ...]) -> Iterator[Window]:
        """Archived windows of those assets: the latest close first, then by ticker."""
        close = self.kept_since(now_ms) // LENGTH_MS * LENGTH_MS
        while close >= now_ms - ARCHIVE_MS - LENGTH_MS:
            for asset in sorted(assets, key=series_of):
                window = Window(asset, close)
                if self.is_archived(window, now_ms):
                    yield window
            close -= LENGTH_MS

    def newest_first(
        self, now_ms: int, assets: tuple[str, ...], low_ms: int | None = None, high_ms: int | None = None
    ) -> Iterator[Window]:
        """Listed windows of those assets with low <= close <= high: the latest close first, then by ticker."""
        top = self.listed_until(now_ms) + LENGTH_MS
        close = min(top, top if high_ms is None else high_ms) // LENGTH_MS * LENGTH_MS
        # A window that is settled late may have closed long before the cut-off.
        bottom = max(self.kept_since(now_ms) - LONGEST_SETTLEMENT_MS, 0 if low_ms is None else low_ms)
        while close >= bottom:
            for asset in sorted(assets, key=series_of):
                window = Window(asset, close)
                if self.is_listed(window, now_ms):
                    yield window
            close -= LENGTH_MS


@lru_cache(1024)
def iso(ms: int) -> str:
    """Epoch ms as the venue writes whole seconds: 2026-07-23T03:15:00Z."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}Z"


@lru_cache(1024)
def iso_us(us: int) -> str:
    """Epoch microseconds with up to six decimals, trailing zeros cut as Go does it."""
    moment = datetime.fromtimestamp(us // 1_000_000, UTC) + timedelta(microseconds=us % 1_000_000)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
