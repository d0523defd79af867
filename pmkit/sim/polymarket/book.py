"""Books as text: number forms, REST and socket shapes, the SHA-1 hash (reference: polymarket-trading.md, 5.1).

Prices are 0.0001 dollars and sizes 1e-6 shares, in the outcome's own terms. A book lists bids in ascending and asks in
descending order, so that the best level is the last of each list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from hashlib import sha1

from pmkit.sim.engine import PRICE_UNITS, SIZE_UNITS, MatchingEngine, Side

Levels = Sequence[tuple[int, int]]

COARSE_TICK = 100
FINE_TICK = 10
MIN_ORDER_SHARES = 5
NO_BOOK = "No orderbook exists for the requested token id"


@lru_cache(8192)
def decimal_text(units: int, scale: int) -> str:
    """A fraction without trailing zeros: 4800 of 10000 is "0.48", 30 million of a million is "30"."""
    whole, rest = divmod(units, scale)
    if not rest:
        return str(whole)
    digits = len(str(scale)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def price_text(price: int) -> str:
    return decimal_text(price, PRICE_UNITS)


def size_text(size: int) -> str:
    return decimal_text(size, SIZE_UNITS)


def last_text(price: int | None) -> str:
    """The last trade's price, with three decimals as in recorded books; empty before the first trade."""
    if price is None:
        return ""
    return price_text(price).ljust(5, "0")


def side_of(side: Side, outcome: int) -> Side:
    """A side in terms of the first outcome, as seen from outcome 0 or 1."""
    return side if outcome == 0 else side.opposite


def price_of(price: int, outcome: int) -> int:
    """A price in terms of the first outcome, as seen from outcome 0 or 1."""
    return price if outcome == 0 else PRICE_UNITS - price


def own_levels(engine: MatchingEngine | None, outcome: int, side: Side) -> list[tuple[int, int]]:
    """Levels from the best to the worst, in the outcome's own terms; the second outcome mirrors the first."""
    if engine is None:
        return []
    return [(price_of(price, outcome), size) for price, size in engine.levels(side_of(side, outcome))]


@lru_cache(8192)
def _level_text(level: tuple[int, int]) -> str:
    # A book is written at each of its changes, and nearly all of its levels are those of the last time.
    return f'{{"price":"{price_text(level[0])}","size":"{size_text(level[1])}"}}'


def _levels_text(levels: Levels) -> str:
    return f"[{','.join(map(_level_text, reversed(levels)))}]"


@dataclass(frozen=True, slots=True)
class BookTruth:
    """The venue's own book of one token, for tests: levels from the best to the worst, in dollars and shares."""

    token: str
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]
    tick: Decimal
    timestamp_ms: int
    hash: str


@dataclass(frozen=True, slots=True)
class TokenBook:
    """The book of one token at one moment, ready to be written."""

    condition_id: str
    token: str
    timestamp_ms: int
    bids: Levels
    asks: Levels
    tick: int
    last_trade: int | None

    def _rest(self, digest: str) -> str:
        return (
            f'{{"market":"{self.condition_id}","asset_id":"{self.token}","timestamp":"{self.timestamp_ms}",'
            f'"hash":"{digest}","bids":{_levels_text(self.bids)},"asks":{_levels_text(self.asks)},'
            f'"min_order_size":"{MIN_ORDER_SHARES}","tick_size":"{price_text(self.tick)}","neg_risk":false,'
            f'"last_trade_price":"{last_text(self.last_trade)}"}}'
        )

    def digest(self) -> str:
        """SHA-1 over the REST form with an empty hash, the same for REST and socket."""
        return sha1(self._rest("").encode(), usedforsecurity=False).hexdigest()

    def rest_json(self) -> str:
        """What GET /book answers."""
        return self._rest(self.digest())

    def socket_json(self) -> str:
        """A `book` event of the market channel."""
        return (
            f'{{"market":"{self.condition_id}","asset_id":"{self.token}","timestamp":"{self.timestamp_ms}",'
            f'"hash":"{self.digest()}","bids":{_levels_text(self.bids)},"asks":{_levels_text(self.asks)},'
            f'"tick_size":"{price_text(self.tick)}","event_type":"book","last_trade_price":"{last_text(self.last_trade)}"}}'
        )

    def truth(self) -> BookTruth:
        def plain(levels: Levels) -> tuple[tuple[Decimal, Decimal], ...]:
            return tuple((Decimal(price) / PRICE_UNITS, Decimal(size) / SIZE_UNITS) for price, size in levels)

        return BookTruth(
            self.token,
            plain(self.bids),
            plain(self.asks),
            Decimal(self.tick) / PRICE_UNITS,
            self.timestamp_ms,
            self.digest(),
        )

    def best_bid_text(self) -> str:
        """ "0" where nobody bids."""
        return price_text(self.bids[0][0]) if self.bids else "0"

    def best_ask_text(self) -> str:
        """ "1" where nobody asks."""
        return price_text(self.asks[0][0]) if self.asks else "1"


def touch(book: TokenBook) -> tuple[int, int]:
    """Best bid and ask; nothing and one dollar where a side is empty."""
    return book.bids[0][0] if book.bids else 0, book.asks[0][0] if book.asks else PRICE_UNITS
