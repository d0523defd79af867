"""Which Up/Down windows exist, their ids and the moments of their life (reference: polymarket-markets-and-redeem.md).

Ids and moments are functions of the world's seed and the window alone. Condition and token ids have the form of real
ones, but without a chain they are hashes, not `getPositionId` of a condition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from pmkit.clock import to_utc
from pmkit.sim.world import ASSETS, INTERVALS_MS, World, windows

SECOND_MS = 1_000
DAY_MS = 24 * 3_600_000
HISTORY_MS = DAY_MS
OUTCOMES = ("Up", "Down")

_NEW_YORK = ZoneInfo("America/New_York")
_EPOCH_MS = 1_700_000_000_000 // 300_000 * 300_000
# Real ids where they are known (section 2.1); the others are made up.
_SERIES_IDS = {("BTC", "5m"): 10684, ("BTC", "15m"): 10192}


@dataclass(frozen=True, slots=True)
class Series:
    """All windows of one asset and length."""

    asset: str
    interval: str

    @property
    def length_ms(self) -> int:
        return INTERVALS_MS[self.interval]

    @property
    def slug(self) -> str:
        return f"{self.asset.lower()}-up-or-down-{self.interval}"

    @property
    def series_id(self) -> str:
        made_up = 10_700 + 2 * list(ASSETS).index(self.asset) + (self.interval == "15m")
        return str(_SERIES_IDS.get((self.asset, self.interval), made_up))


@dataclass(frozen=True, slots=True)
class Window:
    """One market that is its event's only one. All moments are epoch ms of market time."""

    series: Series
    open_ms: int
    close_ms: int
    market_id: str
    event_id: str
    condition_id: str
    question_id: str
    tokens: tuple[str, str]
    created_ms: int
    accepting_ms: int
    clob_known_ms: int
    tokens_known_ms: int
    accepting_off_ms: int
    resolved_ms: int
    final_ms: int

    @property
    def asset(self) -> str:
        return self.series.asset

    @property
    def slug(self) -> str:
        return f"{self.asset.lower()}-updown-{self.series.interval}-{self.open_ms // SECOND_MS}"

    @property
    def title(self) -> str:
        """As the venue words it: `Bitcoin Up or Down - September 22, 8:30PM-8:35PM ET`."""
        start = to_utc(self.open_ms).astimezone(_NEW_YORK)
        end = to_utc(self.close_ms).astimezone(_NEW_YORK)
        when = f"{start:%B} {start.day}, {_hour(start)}-{_hour(end)} ET"
        return f"{ASSETS[self.asset].name} Up or Down - {when}"

    def outcome_of(self, token: str) -> int:
        """0 for the Up token, 1 for the Down token."""
        return self.tokens.index(token)

    def accepts(self, ms: int) -> bool:
        """What the `acceptingOrders` flag says, which lags behind the end of matching."""
        return self.accepting_ms <= ms < self.accepting_off_ms


def _hour(moment: datetime) -> str:
    return f"{moment.hour % 12 or 12}:{moment.minute:02d}{'AM' if moment.hour < 12 else 'PM'}"


def make_window(world: World, series: Series, open_ms: int) -> Window:
    """The window of a series that starts at `open_ms`.

    Section 2.3: created about 24 h ahead (real rows 23 h 53 min), the book opens seconds later, the CLOB knows the
    condition after Gamma does and its tokens later still; 53 to 90 s pass from the end to the resolution, and more
    until the final price is published.
    """

    def between(what: str, low: float, high: float) -> int:
        return round((low + (high - low) * world.draw("polymarket", series.slug, open_ms, what)) * SECOND_MS)

    def hex64(what: str) -> str:
        return f"0x{world.bits('polymarket', series.slug, open_ms, what, size=32):064x}"

    def token(outcome: str) -> str:
        # 77 digits, all below 2**256.
        return str(10**76 + world.bits("polymarket", series.slug, open_ms, outcome, size=32) % (9 * 10**76))

    close_ms = open_ms + series.length_ms
    created_ms = open_ms - DAY_MS + between("created", 240, 460)
    accepting_ms = created_ms + between("accepting", 8, 45)
    clob_known_ms = created_ms + between("clob", 5, 30)
    resolved_ms = close_ms + between("resolved", 53, 90)
    number = (open_ms - _EPOCH_MS) // 300_000 * 32 + 2 * list(ASSETS).index(series.asset) + (series.interval == "15m")
    return Window(
        series=series,
        open_ms=open_ms,
        close_ms=close_ms,
        market_id=str(1_000_000 + number),
        event_id=str(200_000 + number),
        condition_id=hex64("condition"),
        question_id=hex64("question"),
        tokens=(token("Up"), token("Down")),
        created_ms=created_ms,
        accepting_ms=accepting_ms,
        clob_known_ms=clob_known_ms,
        tokens_known_ms=max(accepting_ms, clob_known_ms) + between("tokens", 30, 90),
        accepting_off_ms=close_ms + between("accepting off", 2, 15),
        resolved_ms=resolved_ms,
        final_ms=resolved_ms + between("final", 20, 120),
    )


class Listings:
    """All windows from a day back to a day ahead; older ones are forgotten, so that memory stays flat.

    `change` may give them other ids.
    """

    def __init__(self, world: World, change: Callable[[Window], Window] = lambda window: window) -> None:
        self.world = world
        self._change = change
        self.series = tuple(Series(asset, interval) for asset in world.assets for interval in INTERVALS_MS)
        self._windows: dict[Series, deque[Window]] = {series: deque() for series in self.series}
        self._by: dict[str, Window] = {}
        self._until_ms = 0

    def advance(self, now_ms: int) -> list[Window]:
        """Bring the range up to a moment. Returns the windows that came in; a day passes before each of them opens."""
        came: list[Window] = []
        start = self._until_ms or now_ms - HISTORY_MS
        until = max(start, now_ms + DAY_MS + min(INTERVALS_MS.values()))
        for series in self.series:
            row = self._windows[series]
            for open_ms in windows(series.interval, start, until):
                window = self._change(make_window(self.world, series, open_ms))
                row.append(window)
                came.append(window)
                for key in (window.slug, window.condition_id, *window.tokens, _market(window), _event(window)):
                    self._by[key] = window
            while row and row[0].close_ms < now_ms - HISTORY_MS:
                gone = row.popleft()
                for key in (gone.slug, gone.condition_id, *gone.tokens, _market(gone), _event(gone)):
                    del self._by[key]
        self._until_ms = until
        return came

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))

    def __iter__(self) -> Iterator[Window]:
        return (window for row in self._windows.values() for window in row)

    def find(self, key: str) -> Window | None:
        """By slug, condition id or token id, whether it is published yet or not."""
        return self._by.get(key)

    def market(self, market_id: str) -> Window | None:
        """By Gamma's market id."""
        return self._by.get(f"market {market_id}")

    def event(self, event_id: str) -> Window | None:
        """By Gamma's event id."""
        return self._by.get(f"event {event_id}")

    def at(self, series: Series, ms: int) -> Window:
        """The window of a series that holds a moment."""
        open_ms = ms // series.length_ms * series.length_ms
        row = self._windows[series]
        if row:
            index = (open_ms - row[0].open_ms) // series.length_ms
            if 0 <= index < len(row):
                return row[index]
        return self._change(make_window(self.world, series, open_ms))

    def published(self, now_ms: int) -> Iterator[Window]:
        """All windows that Gamma shows at a moment, series by series, oldest first."""
        for row in self._windows.values():
            for window in row:
                if window.created_ms > now_ms:
                    break
                yield window


def _market(window: Window) -> str:
    return f"market {window.market_id}"


def _event(window: Window) -> str:
    return f"event {window.event_id}"
