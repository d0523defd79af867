"""Polymarket's windows and markets as users see them, read from Gamma and the CLOB (wire: no I/O, no clock).

Slug of a 5- or 15-minute window: `{asset}-updown-{interval}-{start}`, start in epoch seconds, a multiple of the length,
all in UTC; event and market have the same one. Gamma's `startDate` is when the row was published, not when the window
opens.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple, Self

import msgspec

from pmkit.errors import ConfigError, InvalidOrder, ProtocolChanged
from pmkit.exchanges.market import Market, PriceGrid, Terms
from pmkit.exchanges.numbers import scaled, to_decimal
from pmkit.exchanges.polymarket.fees import fee_rule
from pmkit.exchanges.polymarket.messages import ClobInfo, GammaEvent, GammaMarket
from pmkit.exchanges.polymarket.resolution import gamma_payouts, known_strike, text_list
from pmkit.exchanges.types import MarketStatus, Side, TimeInForce

VENUE: Final = "polymarket"
INTERVALS: Final = {"5m": 300, "15m": 900}
"""Seconds of the windows whose names can be computed. Hourly and daily ones settle by other rules."""

SIZE_STEP: Final = Decimal("0.01")
"""Orders carry at most two decimals of shares; fills and books go down to 0.000001."""

SIZE_SCALE: Final = 1_000_000
TAKER_DELAY_MS: Final = 150
"""Crypto markets since 2026-09-04 where the CLOB says that a taker delay is on (docs.polymarket.com/changelog)."""

MIN_MARKETABLE: Final = Decimal(1)
"""pUSD that a buy which takes at once must be worth (observed: "invalid amount for a marketable BUY order")."""

FINAL_AFTER_MS: Final = 5_000
"""A match becomes CONFIRMED with Polygon's finality, 2-5 s after it was mined (docs.polygon.technology)."""

FIRST_V2_MS: Final = 1_788_220_800_000
"""2026-09-01: rows of windows that ended before may lack `version` and are v1; later ones must say which they are."""

STRIKE_SOURCE: Final = "gamma priceToBeat"
ONE: Final = Decimal(1)

_SLUG = re.compile(r"([a-z0-9]{1,12})-updown-(5m|15m)-([0-9]{9,11})").fullmatch
_ANY_SLUG = re.compile(r"[0-9A-Za-z_-]{1,200}").fullmatch
_SERIES = re.compile(r"([a-z0-9]{1,12})-up-or-down-(5m|15m)").fullmatch
_ASSET = re.compile(r"[A-Za-z0-9]{1,12}").fullmatch
_CONDITION = re.compile(r"0x(?:[0-9a-f]{62}|[0-9a-f]{64})").fullmatch
_TOKEN = re.compile(r"[1-9][0-9]{0,77}").fullmatch
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|\+00(?::?00)?)"
).fullmatch
# Bits 40 to 103 of a Protocol V2 position id are zero; a CTF token id is a hash, where they are not.
_V2_ZERO_BITS: Final = ((1 << 64) - 1) << 40


def parse_time_ms(text: str | None, name: str) -> int:
    """An ISO time of Gamma as epoch ms: `2026-09-23T00:36:28Z`, with a fraction, or `2026-09-23 00:36:28+00`.

    Raises ProtocolChanged, naming the field, for null, a date alone, another zone or none, and years outside 2020-2100.
    """
    match = _TIME(text) if text else None
    if match is None:
        raise ProtocolChanged(f"{name} is {ascii(text)[:60]}: not a UTC time")
    day, clock, fraction = match.groups()
    try:
        whole = int(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise ProtocolChanged(f"{name} is {ascii(text)[:60]}: {error}") from error
    if not 1_577_836_800 <= whole < 4_102_444_800:
        raise ProtocolChanged(f"{name} is {ascii(text)[:60]}: not between 2020 and 2100")
    return whole * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def iso_seconds(ms: int) -> str:
    """Epoch ms as Gamma's filters take it: `2026-09-23T00:30:00Z`."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def interval_seconds(interval: str) -> int:
    """Seconds of an interval. Raises ConfigError naming the known ones."""
    seconds = INTERVALS.get(interval)
    if seconds is None:
        raise ConfigError(f"interval {ascii(interval)[:40]} is not known on Polymarket: use {' or '.join(INTERVALS)}")
    return seconds


class Window(NamedTuple):
    """One window of one asset: asset upper case, start in epoch seconds."""

    asset: str
    interval: str
    start: int

    @classmethod
    def at(cls, asset: str, interval: str, ms: int) -> Self:
        """The window that contains a moment (epoch ms). Raises ConfigError for an unknown interval or an odd asset."""
        seconds = interval_seconds(interval)
        if not _ASSET(asset):
            raise ConfigError(f"asset {ascii(asset)[:40]} is no name of one: write it like BTC")
        return cls(asset.upper(), interval, ms // 1000 // seconds * seconds)

    @property
    def end(self) -> int:
        """Epoch seconds, exclusive."""
        return self.start + INTERVALS[self.interval]

    @property
    def following(self) -> Window:
        """The window after this one."""
        return self._replace(start=self.end)

    @property
    def slug(self) -> str:
        """The name of event and market."""
        return f"{self.asset.lower()}-updown-{self.interval}-{self.start}"

    @property
    def series(self) -> str:
        """The slug of the series it belongs to."""
        return series_slug(self.asset, self.interval)


def window_of(slug: str) -> Window | None:
    """The window a slug names; None where it is no Up/Down slug or its start is off the grid."""
    match = _SLUG(slug)
    if match is None or int(match[3]) % INTERVALS[match[2]]:
        return None
    return Window(match[1].upper(), match[2], int(match[3]))


def series_slug(asset: str, interval: str) -> str:
    """The slug of a series, e.g. btc-up-or-down-15m."""
    return f"{asset.lower()}-up-or-down-{interval}"


def series_asset(slug: str, interval: str) -> str | None:
    """The asset of a series slug of that interval, upper case; None for any other series."""
    match = _SERIES(slug)
    return match[1].upper() if match is not None and match[2] == interval else None


def is_condition_id(text: str) -> bool:
    """Whether this is written like a condition id (31 or 32 bytes, lower-case hex)."""
    return _CONDITION(text) is not None


def same_condition(one: str, other: str) -> bool:
    """Whether two condition ids are the same; a 31-byte one of Protocol V2 is padded with a zero byte on the right."""
    return one.lower().ljust(66, "0") == other.lower().ljust(66, "0")


class PolymarketMarket(Market, frozen=True, kw_only=True):
    """One market. `market_id` is the condition id; `token_ids` are CLOB token ids, or position ids under Protocol V2
    (`protocol`: "v1" or "v2", which decides how its orders are signed).

    `fees_assumed`: neither source named a rate. `twap_seconds`: look-back of the settlement average, 0 where the venue
    names none. `accepting_orders`: as last read.
    """

    slug: str
    gamma_id: str = ""
    neg_risk: bool = False
    accepting_orders: bool = True
    fees_assumed: bool = False
    twap_seconds: int = 0

    @property
    def label(self) -> str:
        """The slug, e.g. `btc-updown-15m-1795219200`."""
        return self.slug

    @property
    def condition_id(self) -> str:
        """The id on chain and in the CLOB."""
        return self.market_id

    def at(self, now_ms: int) -> PolymarketMarket:
        """The same market with the status it has at that moment (epoch ms, venue time)."""
        status = self._status(now_ms)
        return self if status is self.status else msgspec.structs.replace(self, status=status)

    def _status(self, now_ms: int) -> MarketStatus:
        if self.payouts is not None:
            return MarketStatus.RESOLVED
        if now_ms >= self.close_ms:
            return MarketStatus.CLOSED
        if not self.accepting_orders:
            return MarketStatus.PAUSED
        return MarketStatus.UPCOMING if now_ms < self.open_ms else MarketStatus.OPEN

    def with_tick(self, tick: Decimal) -> PolymarketMarket:
        """The same market on another price step. Raises InvalidOrder for a step that does not divide a dollar."""
        grid = PriceGrid.uniform(tick)
        return self if grid == self.grid else msgspec.structs.replace(self, grid=grid)

    def resolved(self, payouts: tuple[Decimal, ...], strike: Decimal | None = None) -> PolymarketMarket:
        """The same market with its result, and its strike where that is known by now."""
        return msgspec.structs.replace(
            self,
            payouts=payouts,
            status=MarketStatus.RESOLVED,
            strike=self.strike if strike is None else strike,
            strike_source=self.strike_source if strike is None else STRIKE_SOURCE,
        )

    def limit_terms(
        self,
        outcome: str,
        side: Side,
        price: object,
        size: object,
        *,
        now_ms: int,
        time_in_force: TimeInForce = TimeInForce.GTC,
        expires_at: datetime | None = None,
        post_only: bool = False,
        best_ask: Decimal | None = None,
    ) -> Terms:
        """See `Market`. An IOC or FOK that buys aims at its dollars: at a better price it gets more shares."""
        from pmkit.exchanges.polymarket.order_plan import check_crossing, plan_limit

        plan = plan_limit(
            self, outcome, side, price, size,
            now_ms=now_ms, time_in_force=time_in_force, expires_at=expires_at, post_only=post_only,
        )  # fmt: skip
        check_crossing(self, plan, to_decimal(price, "price"), best_ask)
        if plan.side is Side.SELL:
            return Terms(scaled(plan.maker_amount, 6))
        takes = plan.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        return Terms(scaled(plan.taker_amount, 6), scaled(plan.maker_amount, 6) if takes else None)

    def market_terms(
        self,
        outcome: str,
        side: Side,
        *,
        worst_price: object,
        size: object = None,
        amount: object = None,
        best_ask: Decimal | None = None,
    ) -> Terms:
        """See `Market` and `plan_market`."""
        from pmkit.exchanges.polymarket.order_plan import plan_market

        plan = plan_market(
            self, outcome, side, worst_price=worst_price, size=size, amount=amount,
            fee_price=scaled(self.grid.unit, 4) if best_ask is None else best_ask,
        )  # fmt: skip
        if plan.side is Side.SELL:
            return Terms(scaled(plan.maker_amount, 6))
        return Terms(scaled(plan.taker_amount, 6), scaled(plan.maker_amount, 6))


def parse_market(
    row: GammaMarket,
    event: GammaEvent | None = None,
    clob: ClobInfo | None = None,
    *,
    now_ms: int,
    window: Window | None = None,
) -> PolymarketMarket:
    """A market from its Gamma row, the event it belongs to, and what the CLOB says about it.

    `window` is what the caller looks for where the slug does not tell it. The CLOB wins over Gamma on price step, fees,
    minimum size and whether orders are taken, since Gamma's answers are cached. Raises ProtocolChanged, naming market
    and field, for a row that cannot be traded safely: unknown protocol version, other outcomes than expected, times
    that contradict the slug, ids that contradict each other.
    """
    slug = row.slug or (event.slug if event is not None else None) or ""
    name = f"Polymarket market {ascii(slug or row.condition_id or row.id)[:80]}"
    if not _ANY_SLUG(slug):  # it becomes part of a path and of log lines
        raise ProtocolChanged(f"{name}: its slug is no plain name")
    condition = (row.condition_id or "").lower()
    if not is_condition_id(condition):
        raise ProtocolChanged(f"{name}: conditionId is {ascii(condition)[:80]}")
    window = window_of(slug) or window
    open_ms, close_ms = _times(row, event, window, name)
    protocol = _protocol(row, event, clob, close_ms, name)
    outcomes, tokens = _outcomes(row, clob, protocol, window is not None, name)
    fees, assumed = fee_rule(clob.fd if clob else None, row.fee_schedule, row.fees_enabled, name)
    config = row.crypto_market_config
    twap = config.twap_lookback_seconds if config is not None and config.twap_enabled else 0
    accepting = row.accepting_orders is not False and row.enable_order_book is not False
    if clob is not None and clob.ao is not None:
        accepting = clob.ao
    market = PolymarketMarket(
        venue=VENUE,
        market_id=condition,
        asset=window.asset if window else "",
        interval=window.interval if window else "",
        title=row.question or slug,
        outcomes=outcomes,
        token_ids=tokens,
        open_ms=open_ms,
        close_ms=close_ms,
        grid=_grid(row, clob, name),
        min_size=_positive((clob.mos if clob else None) or row.order_min_size, f"{name}: orderMinSize"),
        size_step=SIZE_STEP,
        fees=fees,
        status=MarketStatus.OPEN,
        settlement=_settlement(row, twap),
        protocol=protocol,
        tradable_before_open=True,
        min_marketable=MIN_MARKETABLE,
        taker_delay_ms=TAKER_DELAY_MS if (window is not None if clob is None else clob.itode) else 0,
        final_after_ms=FINAL_AFTER_MS,
        payouts=gamma_payouts(row, outcomes),
        slug=slug,
        gamma_id=str(row.id),
        neg_risk=bool(clob.nr) if clob is not None else bool(row.neg_risk),
        accepting_orders=accepting,
        fees_assumed=assumed,
        twap_seconds=twap,
    )
    strike = known_strike(event, now_ms >= close_ms)
    if strike is not None:
        market = msgspec.structs.replace(market, strike=strike, strike_source=STRIKE_SOURCE)
    return market.at(now_ms)


def _times(row: GammaMarket, event: GammaEvent | None, window: Window | None, name: str) -> tuple[int, int]:
    started = row.event_start_time or (event.start_time if event is not None else None)
    ended = row.end_date or (event.end_date if event is not None else None)
    if window is None:
        return parse_time_ms(started or row.start_date, f"{name}: startDate"), parse_time_ms(ended, f"{name}: endDate")
    open_ms = parse_time_ms(started, f"{name}: eventStartTime")
    close_ms = parse_time_ms(ended, f"{name}: endDate")
    if (open_ms, close_ms) != (window.start * 1000, window.end * 1000):
        raise ProtocolChanged(
            f"{name}: its window is {started} to {ended}, its name says {iso_seconds(window.start * 1000)} "
            f"to {iso_seconds(window.end * 1000)}"
        )
    return open_ms, close_ms


def _protocol(row: GammaMarket, event: GammaEvent | None, clob: ClobInfo | None, close_ms: int, name: str) -> str:
    own = row.version or (event.version if event is not None else None)
    named = {version for version in (own, clob.v if clob is not None else None) if version}
    if not named and close_ms < FIRST_V2_MS:
        return "v1"
    if len(named) != 1 or not named <= {"v1", "v2"}:
        raise ProtocolChanged(
            f"{name}: its protocol version is {sorted(named)!a}; how to sign its orders is not known: update pmkit"
        )
    return named.pop()


def _outcomes(
    row: GammaMarket, clob: ClobInfo | None, protocol: str, up_down: bool, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Upper-case labels and their ids, UP first; paired by label, checked against the CLOB."""
    labels = [label.strip().upper() for label in text_list(row.outcomes, f"{name}: outcomes")]
    field = "positionIds" if protocol == "v2" else "clobTokenIds"
    ids = text_list(row.position_ids if protocol == "v2" else row.clob_token_ids, f"{name}: {field}")
    if len(labels) != 2 or len(set(labels)) != 2 or (up_down and set(labels) != {"UP", "DOWN"}):
        raise ProtocolChanged(f"{name}: its outcomes are {ascii(labels)[:80]}, expected two, Up and Down for a window")
    if len(ids) != 2 or len(set(ids)) != 2 or not all(_TOKEN(token) for token in ids):
        raise ProtocolChanged(f"{name}: {field} is {ascii(ids)[:200]}: expected two different numbers")
    if any((int(token) & _V2_ZERO_BITS == 0) != (protocol == "v2") for token in ids):
        raise ProtocolChanged(f"{name}: its ids are not of protocol version {protocol}: its orders could not be signed")
    pairs = dict(zip(labels, ids, strict=True))
    if clob is not None and (known := clob_tokens(clob)) and known != pairs:
        raise ProtocolChanged(f"{name}: Gamma and the CLOB name different tokens for its outcomes")
    outcomes = ("UP", "DOWN") if up_down else tuple(labels)
    return outcomes, tuple(pairs[outcome] for outcome in outcomes)


def clob_tokens(clob: ClobInfo) -> dict[str, str]:
    """Upper-case label -> token as the CLOB knows them; empty while it does not know the market's tokens."""
    found = {token.o.strip().upper(): token.t for token in clob.t or () if token is not None and token.t and token.o}
    return found if len(found) == 2 else {}


def _grid(row: GammaMarket, clob: ClobInfo | None, name: str) -> PriceGrid:
    tick = _positive((clob.mts if clob else None) or row.order_price_min_tick_size, f"{name}: orderPriceMinTickSize")
    try:
        return PriceGrid.uniform(tick)
    except InvalidOrder as error:
        raise ProtocolChanged(f"{name}: {error}") from error


def _positive(value: Decimal | None, what: str) -> Decimal:
    if value is None or not value.is_finite() or value <= 0:
        raise ProtocolChanged(f"{what} is {value}")
    # Gamma writes numbers: 5 and 5.0 are the same minimum, and a user should see the shorter one.
    return value.normalize() if value % 1 else value.quantize(ONE)


def _settlement(row: GammaMarket, twap: int) -> str:
    source = row.resolution_source or "a source that the venue does not name"
    if twap:
        return f"UP when the {twap} s average at the end is at or above the one at the start; {source}"
    return f"by the market's own text; {source}"
